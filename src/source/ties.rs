//! Whether everything of one second was seen, when it takes more than one page.
//!
//! Pages of one list are no moment of it: records with the same stamp may change places between two requests, and
//! one that is changed leaves its place, so that those behind it move up. Either way a record may be on none of
//! the pages. How many records have a stamp is the same in every order, though, so the second is read again until
//! as many different ones were seen with each stamp, and until nothing new comes.

use std::collections::{BTreeMap, HashSet};

use super::decode::Decoded;
use crate::model::{Instant, RecordKey};

/// How often one second is read before the server is called inconsistent.
const ROUNDS_MAX: u32 = 50;

/// What was seen from one lower bound on.
#[derive(Debug, Default)]
pub(super) struct Ties {
    lower: Instant,
    /// By stamp: the records that were seen with it in any round.
    seen: BTreeMap<Instant, HashSet<RecordKey>>,
    /// By stamp: how many records of this round had it.
    counts: BTreeMap<Instant, usize>,
    /// Whether this round brought a record that no round before did.
    is_new: bool,
    rounds: u32,
}

/// Whether a second is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Yes,
    /// It has to be read again.
    Again,
    /// It was read too often.
    Never,
}

impl Ties {
    /// Notes a page. The first page of a bound begins a round, that of another bound forgets all before.
    pub(super) fn note(&mut self, lower: Instant, page: u32, records: &[Decoded]) {
        if page == 1 {
            if lower != self.lower || self.rounds == 0 {
                *self = Self { lower, ..Self::default() };
            }
            self.counts.clear();
            self.is_new = false;
            self.rounds += 1;
        }
        let known =
            records.iter().filter_map(|one| Some((one.stamp?, one.record.as_ref().ok()?.key)));
        for (stamp, key) in known {
            *self.counts.entry(stamp).or_default() += 1;
            self.is_new |= self.seen.entry(stamp).or_default().insert(key);
        }
    }

    /// Whether everything before `next` was seen; everything at all where there is no `next`.
    pub(super) fn settled(&mut self, page: u32, next: Option<Instant>) -> Settled {
        let is_of_it = |stamp: &Instant| next.is_none_or(|next| *stamp < next);
        let lacks = |(stamp, count): (&Instant, &usize)| {
            is_of_it(stamp) && self.seen.get(stamp).map_or(0, HashSet::len) < *count
        };
        // One page is one moment.
        let is_whole = page == 1 || (!self.is_new && !self.counts.iter().any(lacks));
        let outcome = match is_whole {
            true => Settled::Yes,
            false if self.rounds < ROUNDS_MAX => return Settled::Again,
            false => Settled::Never,
        };
        self.rounds = 0; // whatever comes next begins anew
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CaseBuilder, Code, Schema};
    use crate::source::decode::Record;

    fn page(keys: &[u128]) -> Vec<Decoded> {
        let schema = Schema::new([], Vec::new());
        let one = |key: &u128| Decoded {
            stamp: Some(Instant(7)),
            record: Ok(Record {
                key: RecordKey(*key),
                case: CaseBuilder::new(&schema, Code(1)).finish(&schema),
                misfits: Vec::new(),
            }),
        };
        keys.iter().map(one).collect()
    }

    #[test]
    fn equal_stamps_are_read_until_all_were_seen() {
        let mut ties = Ties::default();
        // Four records of one stamp on pages of two. The first two rounds show three of them, each time the same.
        for (pages, expected) in [
            ([[1, 2], [2, 3]], Settled::Again),
            ([[3, 2], [1, 2]], Settled::Again),
            ([[1, 2], [3, 4]], Settled::Again), // the fourth is new
            ([[2, 1], [1, 3]], Settled::Yes),
        ] {
            ties.note(Instant(0), 1, &page(&pages[0]));
            ties.note(Instant(0), 2, &page(&pages[1]));
            assert_eq!(ties.settled(2, None), expected, "{pages:?}");
        }
    }

    #[test]
    fn one_page_is_one_moment_and_patience_ends() {
        let mut ties = Ties::default();
        ties.note(Instant(0), 1, &page(&[1, 2]));
        assert_eq!(ties.settled(1, None), Settled::Yes);
        let mut outcome = Settled::Again;
        for _ in 0..ROUNDS_MAX {
            assert_eq!(outcome, Settled::Again);
            ties.note(Instant(0), 1, &page(&[1, 1]));
            ties.note(Instant(0), 2, &page(&[1, 1]));
            outcome = ties.settled(2, None);
        }
        assert_eq!(outcome, Settled::Never);
    }
}
