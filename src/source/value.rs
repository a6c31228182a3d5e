//! One value of a record into one word of a case.

use std::fmt;

use hashbrown::HashMap;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::moment::{Moment, Zone};
use super::pseudonym::Workers;
use crate::model::{CaseBuilder, Code, Domain, FieldType, Interner};

/// Most terms that a decoder remembers for itself, per domain; beyond it asks the shared dictionary
/// each time.
const TERMS_MAX: usize = 1 << 16;

/// A value that does not fit the declared type of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Misfit;

/// A word; 0 is not recorded.
pub(super) type Word = Result<u32, Misfit>;

/// Codes of terms, with a memory of those met before, so that the shared dictionary is rarely
/// locked.
pub(super) struct Terms {
    interner: Interner,
    known: [HashMap<Box<str>, Code>; Domain::ALL.len()],
}

impl Terms {
    pub(super) fn new(interner: Interner) -> Self {
        Self { interner, known: Default::default() }
    }

    fn code(&mut self, domain: Domain, term: &str) -> Word {
        let known = &mut self.known[domain as usize];
        if let Some(code) = known.get(term) {
            return Ok(code.0);
        }
        let code = self.interner.intern(domain, term).ok_or(Misfit)?;
        if known.len() < TERMS_MAX {
            known.insert(term.into(), code);
        }
        Ok(code.0)
    }

    /// The code of an option id.
    pub(super) fn option(&mut self, id: &str) -> Word {
        self.code(Domain::Option, id)
    }

    /// The code of a location, whose codes differ in more than case.
    pub(super) fn location(&mut self, code: &str) -> Word {
        if code.bytes().any(|byte| !byte.is_ascii() || byte.is_ascii_lowercase()) {
            return self.code(Domain::Location, &code.to_uppercase());
        }
        self.code(Domain::Location, code)
    }

    /// The code of an agency's unique id. State that was written while agencies were option codes
    /// reads wrongly; no shipped pack read one then.
    fn agency(&mut self, id: &str) -> Word {
        self.code(Domain::Agency, id)
    }

    /// The code of a worker's pseudonym. The memory of terms holds that pseudonym, never the name.
    fn worker(&mut self, workers: &Workers, user_name: &str) -> Word {
        self.code(Domain::Worker, &workers.pseudonym(user_name))
    }

    /// The dictionary behind.
    pub(super) fn interner(&self) -> &Interner {
        &self.interner
    }
}

/// Reads one value of `field_type`. Objects are a syntax error here; the lenient pass makes a
/// misfit of them.
pub(super) struct ValueSeed<'a> {
    pub(super) field_type: FieldType,
    pub(super) terms: &'a mut Terms,
    pub(super) zone: &'a Zone,
    pub(super) workers: &'a Workers,
}

impl ValueSeed<'_> {
    fn text(self, text: &str) -> Word {
        if text.is_empty() {
            return Ok(0);
        }
        match self.field_type {
            FieldType::Option | FieldType::Options => self.terms.option(text),
            FieldType::Agency => self.terms.agency(text),
            FieldType::Worker => self.terms.worker(self.workers, text),
            FieldType::Location => self.terms.location(text),
            FieldType::Boolean => match text {
                "true" => Ok(CaseBuilder::boolean(true)),
                "false" => Ok(CaseBuilder::boolean(false)),
                _ => Err(Misfit),
            },
            FieldType::Integer | FieldType::FirstSeen => Err(Misfit),
            FieldType::Date | FieldType::Dates | FieldType::Datetime => {
                let day = Moment::parse(text).and_then(|moment| self.zone.day(moment));
                day.map(|day| day.0).ok_or(Misfit)
            }
            FieldType::BirthMonth => {
                let month = Moment::parse(text).and_then(|moment| moment.month_of_birth(self.zone));
                month.map(|month| month.0).ok_or(Misfit)
            }
        }
    }

    fn number(self, value: i64) -> Word {
        match self.field_type {
            FieldType::Integer => match CaseBuilder::integer(value) {
                0 => Err(Misfit),
                word => Ok(word),
            },
            FieldType::Option | FieldType::Options | FieldType::Agency | FieldType::Location => {
                self.text(&value.to_string())
            }
            _ => Err(Misfit),
        }
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Word;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Word, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Word;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the declared type")
    }

    fn visit_unit<E>(self) -> Result<Word, E> {
        Ok(Ok(0))
    }

    fn visit_str<E>(self, text: &str) -> Result<Word, E> {
        Ok(self.text(text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Word, E> {
        Ok(match self.field_type {
            FieldType::Boolean => Ok(CaseBuilder::boolean(value)),
            FieldType::Option | FieldType::Options => {
                self.text(if value { "true" } else { "false" })
            }
            _ => Err(Misfit),
        })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Word, E> {
        Ok(self.number(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Word, E> {
        Ok(i64::try_from(value).map_or(Err(Misfit), |value| self.number(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Word, E> {
        /// Whole numbers up to here are exact in a float.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let whole = value.fract() == 0.0 && value.abs() <= EXACT;
        Ok(if whole { self.number(value as i64) } else { Err(Misfit) })
    }

    /// An empty array is how Primero writes some fields that were never filled.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Word, A::Error> {
        let mut word = Ok(0);
        while seq.next_element::<IgnoredAny>()?.is_some() {
            word = Err(Misfit);
        }
        Ok(word)
    }
}
