//! Takes a census of a server: what was deleted there for good leaves no trace among what changed, so everything that
//! is there has to be listed now and then and compared with what is known.
//!
//! A list is no proof by itself: rows change places between two pages, and a filter that fails inside the server hides
//! rows. So a record counts as gone only when two lists lack it that fail in different ways: one by time of creation,
//! which never changes, so that no row can slip through between two pages; and one without any filter, in an order
//! in which every record has one place. A record cannot be asked for by its id instead, for ids are not kept. And
//! when more is missing than a setting allows, nothing leaves: a role that lost its rights looks the same.
//!
//! The other way round, a record that is listed and not known is read at once.

use std::time::Duration;

use hashbrown::HashSet;
use tokio::time::Instant as Clock;

use super::client::Failure;
use super::listing::{self, Entry, Listed};
use super::outlet::Halt;
use super::paths::{self, By};
use super::poll::{OFFSET_MS_MAX, PAGES_MAX, Pass, Poll};
use super::position::{Position, is_ascending, whole_second};
use super::stumble::Stumble;
use super::{Event, ServerSettings};
use crate::crash::{self, Step};
use crate::error::{Error, Kind};
use crate::model::{Batch, RecordChange, RecordKey};

/// Longest time until the number of records is compared with that of those known, which costs one request.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(10 * 60);
/// How often a list is begun anew because it was not whole, before the census is given up.
const ROUNDS_MAX: u32 = 3;
/// So many records may leave at once whatever their share is.
const GONE_FEW: usize = 20;
/// Failures in a row after which a census is given up until the next one is due.
const FAILURES_MAX: u32 = 4;
/// Most pages of the list without a filter.
const LIST_PAGES_MAX: u32 = 100_000;
/// Most records that leave with one batch.
const BATCH_RECORDS_MAX: usize = 10_000;

/// When a census is taken, and the one that is under way.
pub(super) struct Census {
    interval: Duration,
    /// Greatest share of the known records that may leave at once.
    percent_max: u8,
    due: Clock,
    look_due: Clock,
    /// Records that were missing from the last one and did not leave, because they were too many.
    withheld: u64,
    failures: u32,
    under_way: Option<Listing>,
}

/// A census under way.
struct Listing {
    /// Known at its beginning, and on no list of this round so far.
    unseen: HashSet<RecordKey>,
    list: List,
    /// Records of the list without a filter that were met.
    met: HashSet<RecordKey>,
    /// How many it said there are: at first, and at last.
    totals: Option<(u64, u64)>,
    rounds: u32,
}

impl Listing {
    fn new(unseen: HashSet<RecordKey>) -> Self {
        let list = List::ByCreation(Position::default());
        Self { unseen, list, met: HashSet::new(), totals: None, rounds: 0 }
    }

    /// Begins a list anew that was not whole.
    fn begin_again(&mut self, list: List) {
        (self.list, self.totals) = (list, None);
        self.met.clear();
        self.rounds += 1;
    }
}

/// Which list is read, and how far.
#[derive(Clone, Copy)]
enum List {
    ByCreation(Position),
    Whole { page: u32 },
    Ended,
}

impl Census {
    pub(super) fn new(settings: &ServerSettings) -> Self {
        let interval = settings.census_interval;
        Self {
            interval,
            percent_max: settings.gone_percent_max,
            due: Clock::now() + interval,
            look_due: Clock::now(),
            withheld: 0,
            failures: 0,
            under_way: None,
        }
    }

    /// Notes that a record was read: it is there.
    pub(super) fn met(&mut self, key: RecordKey) {
        if let Some(listing) = &mut self.under_way {
            listing.unseen.remove(&key);
        }
    }

    /// Notes that everything was read just now, so that there is nothing to look for.
    pub(super) fn everything_was_read(&mut self) {
        self.look_due = Clock::now() + self.interval.min(LOOK_INTERVAL_MAX);
    }

    /// Puts the next one off.
    fn put_off(&mut self) {
        self.under_way = None;
        self.failures = 0;
        self.due = Clock::now() + self.interval;
    }
}

impl Poll {
    /// Goes on with a census, or begins one that is due, until the next poll is. True when more of it is to be done.
    pub(super) async fn take_census(&mut self) -> Result<bool, Halt> {
        if self.census.under_way.is_none() && !self.begin_census().await? {
            return Ok(false);
        }
        let due = Clock::now() + self.poll_interval;
        loop {
            match self.list_on().await {
                Ok(true) => self.census.failures = 0,
                Ok(false) => return Ok(false),
                Err(Stumble::Halt(halt)) => return Err(halt),
                Err(Stumble::Failure(failure)) => return self.stumbled(failure).await,
            }
            if Clock::now() >= due {
                return Ok(true);
            }
        }
    }

    /// After a failure: a poll comes first, which waits for a server that is away; what fails again and again is given
    /// up until the next census is due.
    async fn stumbled(&mut self, failure: Failure) -> Result<bool, Halt> {
        self.census.failures += 1;
        let rounds = self.census.under_way.as_ref().map_or(0, |listing| listing.rounds);
        let is_hopeful = self.census.failures < FAILURES_MAX && rounds < ROUNDS_MAX;
        if is_hopeful && failure.error.kind().may_pass() {
            self.pause(failure, self.census.failures).await?;
            return Ok(true);
        }
        self.census.put_off();
        self.census.look_due = self.census.due; // the same would come of it
        let instance = self.decoder.instance();
        let error = failure.error.while_doing("taking a census");
        self.outlet.send(Event::CensusFailed { instance, error }).await?;
        Ok(false)
    }

    /// Whether a census is due: by time, or because the server has fewer records than are known; while some are
    /// withheld, any other number. So it is for a run that ends by itself: it cannot wait for the time.
    async fn begin_census(&mut self) -> Result<bool, Halt> {
        let now = Clock::now();
        if now < self.census.due {
            if now < self.census.look_due {
                return Ok(false);
            }
            self.census.look_due = now + self.census.interval.min(LOOK_INTERVAL_MAX);
            let total = match self.count().await {
                Ok(total) => total,
                Err(Stumble::Halt(halt)) => return Err(halt),
                Err(Stumble::Failure(failure)) => {
                    let wait = self.census.look_due - now;
                    self.trouble(failure.error, wait).await?;
                    return Ok(false);
                }
            };
            let (known, withheld) = (self.known_count(), self.census.withheld);
            let any_other = self.once || withheld > 0;
            let differs = |total: u64| match any_other {
                true => total + withheld != known,
                false => total < known,
            };
            if !total.is_some_and(differs) {
                return Ok(false);
            }
        }
        self.census.put_off();
        self.census.under_way = Some(Listing::new(self.known_keys().collect()));
        Ok(true)
    }

    async fn count(&mut self) -> Result<Option<u64>, Stumble> {
        let listed = self.ask_list(&paths::count(self.record_type)).await?;
        Ok(listed.metadata.total)
    }

    async fn ask_list(&mut self, path: &str) -> Result<Listed, Stumble> {
        let doing = format!("listing {}", self.record_type.plural());
        let reply = self.get(path, &doing).await?;
        Ok(listing::read(&self.decoder, &reply.body)?)
    }

    /// Reads the next page, or draws the conclusion when there is none; false then.
    async fn list_on(&mut self) -> Result<bool, Stumble> {
        let Some(listing) = &self.census.under_way else { return Ok(false) };
        let next = match listing.list {
            List::ByCreation(at) => self.list_by_creation(at).await?,
            List::Whole { page } => self.list_whole(page).await?,
            List::Ended => {
                self.end_census().await?;
                return Ok(false);
            }
        };
        if let Some(listing) = &mut self.census.under_way {
            let is_over = listing.unseen.is_empty() && !matches!(next, List::ByCreation(_));
            listing.list = if is_over { List::Ended } else { next };
        }
        Ok(true)
    }

    async fn list_by_creation(&mut self, at: Position) -> Result<List, Stumble> {
        let (Listed { records, metadata }, per) = self.ask_listed(at, By::Created).await?;
        let created = || records.iter().filter_map(|one| one.created);
        if created().any(|created| created.0 < at.lower.0 - OFFSET_MS_MAX) {
            return Err(self.fault("it ignored the filter by created_at"));
        }
        if (records.len() as u64) < per {
            let read = u64::from(at.page - 1) * per + records.len() as u64;
            // The bound is the time of a record: there is one, unless it was deleted in this moment.
            let is_odd = read == 0 && at.lower.0 > 0;
            if metadata.total != Some(read) || is_odd {
                return Err(self.incomplete(List::ByCreation(Position::default())));
            }
            return Ok(List::Whole { page: 1 });
        }
        let seconds = || created().map(whole_second);
        let last = seconds().next_back().ok_or_else(|| {
            let what = "listing records by time of creation: they have none";
            let advice = "the user's role needs to read created_at; records that were deleted are not noticed";
            Error::new(Kind::Unavailable, what).advise(advice)
        })?;
        if !is_ascending(&seconds().collect::<Vec<_>>()) {
            return Err(self.fault("its list is not in the order that was asked for"));
        }
        Ok(List::ByCreation(if last > at.lower {
            Position { lower: last, page: 1 }
        } else if at.page < PAGES_MAX {
            Position { page: at.page + 1, ..at }
        } else {
            return Err(self.fault("a full page of its list leads no further"));
        }))
    }

    /// Deletions in the middle of this list shift rows past a page, and an error inside the server looks like its end:
    /// so its total never falls, and no fewer records are met than it said at first.
    async fn list_whole(&mut self, page: u32) -> Result<List, Stumble> {
        let at = Position { page, ..Position::default() };
        let (Listed { records, metadata }, per) = self.ask_listed(at, By::Identity).await?;
        let Some(listing) = &mut self.census.under_way else { return Ok(List::Ended) };
        listing.met.extend(records.iter().filter_map(|one| one.key));
        let total = metadata.total.unwrap_or(0);
        let (first, last) = listing.totals.unwrap_or((total, total));
        listing.totals = Some((first, total));
        let is_end = (records.len() as u64) < per;
        let is_whole = metadata.total.is_some()
            && total >= last
            && page < LIST_PAGES_MAX
            && (!is_end || listing.met.len() as u64 >= first);
        match (is_whole, is_end) {
            (true, true) => Ok(List::Ended),
            (true, false) => Ok(List::Whole { page: page + 1 }),
            (false, _) => Err(self.incomplete(List::Whole { page: 1 })),
        }
    }

    /// One page of a list, and how many records a full one has. Whatever nobody knew of it is read.
    async fn ask_listed(&mut self, at: Position, by: By) -> Result<(Listed, u64), Stumble> {
        let (fields, per) = (By::Created.field(), self.page_size());
        let path = paths::since(self.record_type, by, fields, at.lower, per, at.page);
        let listed = self.ask_list(&path).await?;
        self.read_unknown(&listed.records, at, by).await?;
        let per = listed.metadata.per.unwrap_or(u64::MAX).min(per.into()).max(1);
        Ok((listed, per))
    }

    /// Reads a page whole, by the same list, when a record on it is neither known nor was erased: what the polls missed
    /// is made up for.
    async fn read_unknown(
        &mut self,
        records: &[Entry],
        at: Position,
        by: By,
    ) -> Result<(), Stumble> {
        if self.note_listed(records) {
            let (page, _, _) = self.ask_whole(at, by).await?;
            self.hand_on(page.records, None, Pass::Live, false).await?;
        }
        Ok(())
    }

    /// A list that was not whole begins again.
    fn incomplete(&mut self, list: List) -> Stumble {
        if let Some(listing) = &mut self.census.under_way {
            listing.begin_again(list);
        }
        self.fault("it listed fewer records than it says there are")
    }

    /// Notes who is listed. True when somebody is who is neither known nor was erased.
    fn note_listed(&mut self, records: &[Entry]) -> bool {
        let keys = records.iter().filter_map(|one| one.key);
        let mut is_unknown = false;
        for key in keys {
            self.census.met(key);
            is_unknown |= !self.knows(key) && !self.outlet.is_erased(key);
        }
        is_unknown
    }

    /// Lets those leave that no list has; not when the server says by now that it has fewer than it listed, or none.
    async fn end_census(&mut self) -> Result<(), Stumble> {
        let total = self.count().await?.unwrap_or(0);
        let Some(listing) = self.census.under_way.take() else { return Ok(()) };
        let mut gone: Vec<_> = listing.unseen.into_iter().filter(|key| self.knows(*key)).collect();
        gone.sort_unstable();
        let known = self.known_count();
        let share = usize::try_from(known).unwrap_or(usize::MAX) / 100;
        let most = share.saturating_mul(self.census.percent_max.into()).max(GONE_FEW);
        // An error inside the server looks like a list of nothing.
        let nothing_or_less = |(first, _)| first == 0 || total < first;
        let is_doubtful = total == 0 || listing.totals.is_some_and(nothing_or_less);
        let is_withheld = !gone.is_empty() && (gone.len() > most || is_doubtful);
        let count = gone.len() as u64;
        self.census.withheld = if is_withheld { count } else { 0 };
        crash::point(Step::CensusTaken);
        if !is_withheld {
            for keys in gone.chunks(BATCH_RECORDS_MAX) {
                self.let_go(keys).await?;
            }
        }
        let instance = self.decoder.instance();
        let census = Event::Census { instance, known, gone: count, is_withheld };
        Ok(self.outlet.send(census).await?)
    }

    async fn let_go(&mut self, keys: &[RecordKey]) -> Result<(), Halt> {
        keys.iter().for_each(|key| self.forget(*key));
        let changes = keys.iter().map(|key| RecordChange { key: *key, case: None }).collect();
        let batch = Batch {
            instance: self.decoder.instance(),
            changes,
            cursor: self.cursor().clone(),
            is_backfill: false,
            refusals: Vec::new(),
            misfits: Vec::new(),
        };
        self.outlet.send(Event::Batch(batch)).await
    }
}
