//! Conditions compiled to word comparisons.

use crate::indicator::Test;
use crate::model::{Case, CaseBuilder, Dictionary, Domain, Schema, Slot};

/// One condition on the words of a case or of a row.
#[derive(Clone, Debug)]
pub(super) struct Check {
    slot: Slot,
    test: Compiled,
}

#[derive(Clone, Debug)]
enum Compiled {
    Any(Vec<u32>),
    None(Vec<u32>),
    Range(i32, i32),
    Present(bool),
}

impl Check {
    /// Compiles `test` for a field kept in `slot`. Option ids get their codes here, so they must be interned
    /// even when no record holds them yet.
    pub(super) fn new(slot: Slot, test: &Test, dictionary: &mut Dictionary) -> Self {
        let mut codes = |ids: &[String]| -> Vec<u32> {
            ids.iter().filter_map(|id| dictionary.intern(Domain::Option, id)).map(|c| c.0).collect()
        };
        let test = match test {
            Test::Is(value) => Compiled::Any(vec![CaseBuilder::boolean(*value)]),
            Test::IsNot(value) => Compiled::None(vec![CaseBuilder::boolean(*value)]),
            Test::Any(ids) => Compiled::Any(codes(ids)),
            Test::None(ids) => Compiled::None(codes(ids)),
            Test::Range(from, to) => Compiled::Range(*from, *to),
            Test::Present(present) => Compiled::Present(*present),
        };
        Self { slot, test }
    }

    /// Whether a case fulfils it.
    pub(super) fn holds(&self, case: &Case, schema: &Schema) -> bool {
        match self.slot {
            Slot::Word(word) => self.test.word(case.word(word)),
            Slot::Set(set) => self.test.set(case.set(schema, set)),
        }
    }

    /// Whether a row fulfils it; the slot is then a word of the row.
    pub(super) fn holds_for_row(&self, row: &[u32]) -> bool {
        match self.slot {
            Slot::Word(word) => self.test.word(row[usize::from(word)]),
            Slot::Set(_) => false,
        }
    }
}

impl Compiled {
    fn word(&self, word: u32) -> bool {
        match self {
            Self::Any(codes) => codes.contains(&word),
            Self::None(codes) => !codes.contains(&word),
            Self::Range(from, to) => {
                Case::integer(word).is_some_and(|value| (*from..=*to).contains(&value))
            }
            Self::Present(present) => (word != 0) == *present,
        }
    }

    fn set(&self, set: &[u32]) -> bool {
        match self {
            Self::Any(codes) => set.iter().any(|code| codes.contains(code)),
            Self::None(codes) => !set.iter().any(|code| codes.contains(code)),
            Self::Present(present) => set.is_empty() != *present,
            Self::Range(..) => false,
        }
    }
}
