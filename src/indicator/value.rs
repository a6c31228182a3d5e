//! Computed values compiled: ages and numbers of days out of the words of a case.

use crate::indicator::lifecycle::LifecycleSlots;
use crate::indicator::plan::slot_of;
use crate::indicator::{Path, ValueDefinition, When};
use crate::model::{Case, Day, Schema, Slot};

/// Months of a year.
const YEAR_MONTHS: i32 = 12;

/// Where one word is read: from the case, or from the row at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Case(u16),
    Row(u16),
}

/// What a value, a condition or a dimension is read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) case: &'a Case,
    /// The row that is counted, or read for its case.
    pub(super) row: Option<&'a [u32]>,
    /// The day that places the count.
    pub(super) event: Day,
}

impl Subject<'_> {
    /// The word at a source; 0, not recorded, where there is no row.
    pub(super) fn word(&self, source: Source) -> u32 {
        match source {
            Source::Case(word) => self.case.word(word),
            Source::Row(word) => self.row.map_or(0, |row| row[usize::from(word)]),
        }
    }
}

impl Source {
    /// Where the single word of a field is.
    pub(super) fn of(schema: &Schema, path: &Path) -> Self {
        match (slot_of(schema, path), &path.subform) {
            (Slot::Word(word), None) => Self::Case(word),
            (Slot::Word(word), Some(_)) => Self::Row(word),
            (Slot::Set(_), _) => unreachable!("the resolver asked for a single date"),
        }
    }
}

/// A day, compiled.
#[derive(Clone, Copy, Debug)]
pub(super) enum WhenPlan {
    Event,
    Word(Source),
}

/// A value, compiled.
#[derive(Clone, Debug)]
pub(super) enum ValuePlan {
    Age { born: u16, on: WhenPlan, otherwise: Option<u16>, recorded_on: Option<u16> },
    Days { from: Source, to: WhenPlan },
    Conflict(Option<LifecycleSlots>),
}

impl ValuePlan {
    pub(super) fn new(
        definition: &ValueDefinition,
        schema: &Schema,
        lifecycle: Option<&LifecycleSlots>,
    ) -> Self {
        let word = |field: &String| match Source::of(
            schema,
            &Path { subform: None, field: field.clone() },
        ) {
            Source::Case(word) | Source::Row(word) => word,
        };
        let when = |when: &When| match when {
            When::Event => WhenPlan::Event,
            When::Field(path) => WhenPlan::Word(Source::of(schema, path)),
        };
        match definition {
            ValueDefinition::Age { born, on, otherwise, recorded_on } => Self::Age {
                born: word(born),
                on: when(on),
                otherwise: otherwise.as_ref().map(word),
                recorded_on: recorded_on.as_ref().map(word),
            },
            ValueDefinition::Days { from, to } => {
                Self::Days { from: Source::of(schema, from), to: when(to) }
            }
            ValueDefinition::Conflict => Self::Conflict(lifecycle.cloned()),
        }
    }

    /// The value, if everything it is made from is recorded.
    pub(super) fn value(&self, subject: &Subject<'_>, schema: &Schema) -> Option<i32> {
        match self {
            Self::Age { born, on, otherwise, recorded_on } => {
                let on = months(on.day(subject)?);
                if let Some(born) = month_of_birth(subject.case.word(*born)) {
                    return Some((on - born).div_euclid(YEAR_MONTHS));
                }
                let recorded = Case::integer(subject.case.word((*otherwise)?))?;
                let since = recorded_on.and_then(|word| Case::day(subject.case.word(word)));
                let years = since.map_or(0, |since| (on - months(since)).div_euclid(YEAR_MONTHS));
                Some(recorded.saturating_add(years))
            }
            Self::Days { from, to } => {
                let (from, to) = (Case::day(subject.word(*from))?, to.day(subject)?);
                Some(to.0 as i32 - from.0 as i32)
            }
            Self::Conflict(lifecycle) => {
                Some(i32::from(lifecycle.as_ref()?.conflicts(subject.case, schema)))
            }
        }
    }
}

impl ValuePlan {
    /// Whether it is read from a row.
    pub(super) fn is_of_row(&self) -> bool {
        matches!(self, Self::Days { from: Source::Row(_), .. })
            || matches!(
                self,
                Self::Days { to: WhenPlan::Word(Source::Row(_)), .. }
                    | Self::Age { on: WhenPlan::Word(Source::Row(_)), .. }
            )
    }

    /// The first event at which the value is at least `edge`; none when no event is, or all that can be are.
    pub(super) fn first_day(&self, subject: &Subject<'_>, edge: i32) -> Option<Day> {
        match self {
            Self::Days { from, to: WhenPlan::Event } => Case::day(subject.word(*from))?.plus(edge),
            Self::Age { born, on: WhenPlan::Event, otherwise, recorded_on } => {
                let (month, age) = match month_of_birth(subject.case.word(*born)) {
                    Some(born) => (born, 0),
                    None => {
                        let recorded = Case::integer(subject.case.word((*otherwise)?))?;
                        (months(Case::day(subject.case.word((*recorded_on)?))?), recorded)
                    }
                };
                let years = i64::from(edge) - i64::from(age);
                first_of(i64::from(month) + years * i64::from(YEAR_MONTHS))
            }
            Self::Days { .. } | Self::Age { .. } | Self::Conflict(_) => None,
        }
    }

    /// Whether it depends on the event.
    pub(super) fn needs_event(&self) -> bool {
        matches!(
            self,
            Self::Age { on: WhenPlan::Event, .. } | Self::Days { to: WhenPlan::Event, .. }
        )
    }
}

impl WhenPlan {
    fn day(self, subject: &Subject<'_>) -> Option<Day> {
        match self {
            Self::Event => Some(subject.event),
            Self::Word(source) => Case::day(subject.word(source)),
        }
    }
}

/// Months since 1900-01.
fn months(day: Day) -> i32 {
    day.month() as i32
}

/// The first day of a month, counted from 1900-01; none outside the days that can be recorded.
fn first_of(month: i64) -> Option<Day> {
    Day::first_of(u32::try_from(month).ok()?)
}

/// The same of a month of birth, whose word is one more.
fn month_of_birth(word: u32) -> Option<i32> {
    i32::try_from(word.checked_sub(1)?).ok()
}
