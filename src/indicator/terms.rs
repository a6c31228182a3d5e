//! What the declarations of a pack are made of: concepts, computed values, tests and conditions.

use std::collections::BTreeMap;

use crate::indicator::Labels;
use crate::indicator::definition::Path;

/// A named set of option ids of one field: what an indicator means, whatever the ids are called somewhere.
#[derive(Clone, Debug)]
pub struct ConceptDefinition {
    /// The field whose ids they are.
    pub field: Path,
    /// The ids, unless an instance has its own.
    pub ids: Vec<String>,
    /// What the ids have to be called by the server, by id.
    pub assert_labels: BTreeMap<String, Labels>,
    /// The ids of single instances, by name.
    pub instances: BTreeMap<String, Vec<String>>,
}

/// A whole number that is computed from dates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueDefinition {
    /// Completed years of age, by months: the day of birth is not kept.
    Age {
        /// Month of birth.
        born: String,
        /// The day on which the age is wanted.
        on: When,
        /// The age as recorded, for a case without month of birth.
        otherwise: Option<String>,
        /// When that age was recorded; whole years since are added.
        recorded_on: Option<String>,
    },
    /// Days from one date to another; negative when the second is earlier.
    Days {
        /// The first date.
        from: Path,
        /// The second.
        to: When,
    },
    /// 1 where the dates of a case and its status disagree, 0 where they do not.
    Conflict,
}

/// A day: that of the event, or a date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// The day that places the count: the date of a flow; the first day of the period on which a present case
    /// counts; the last day of the period, or today if that is earlier, of a stock; today for now.
    Event,
    /// A date.
    Field(Path),
}

/// A test of one field or value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// A boolean that is recorded and has this value.
    Is(bool),
    /// A boolean that is not recorded or has the other value.
    IsNot(bool),
    /// An option among these; for a set, at least one of them.
    Any(Vec<String>),
    /// No option among these; not recorded passes.
    None(Vec<String>),
    /// An option of one of these concepts; for a set, at least one.
    Concepts(Vec<String>),
    /// No option of these concepts; not recorded passes.
    NotConcepts(Vec<String>),
    /// A recorded option that is none of the listed values of its field, or not.
    Unmapped(bool),
    /// A whole number in this range, both ends included.
    Range(i32, i32),
    /// Days from the event to the date, both ends included; for a set of dates, of one of them.
    Within(i32, i32),
    /// Recorded, or not recorded.
    Present(bool),
}

/// A condition on a case or on a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A field of the case, or of the counted row.
    Field(String, Test),
    /// A computed value; the test is [`Test::Range`] or [`Test::Present`].
    Value(String, Test),
    /// At least one of these groups holds as a whole.
    Any(Vec<Vec<Condition>>),
    /// The case has a row like this.
    Has(HasRow),
}

/// A row that a case must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HasRow {
    /// Of this subform.
    pub subform: String,
    /// That fulfils these.
    pub tests: Vec<Condition>,
    /// With this date.
    pub date: Option<String>,
    /// Days from the event to that date, both ends included.
    pub within: (i32, i32),
}

impl ValueDefinition {
    /// The subform whose rows it is read from; none for the case.
    pub fn subform(&self) -> Option<&str> {
        match self {
            Self::Days { from, to: When::Event } => from.subform.as_deref(),
            Self::Days { from, to: When::Field(to) } => {
                from.subform.as_deref().or(to.subform.as_deref())
            }
            Self::Age { on: When::Field(on), .. } => on.subform.as_deref(),
            Self::Age { .. } | Self::Conflict => None,
        }
    }

    /// Whether it depends on the event.
    pub fn needs_event(&self) -> bool {
        matches!(self, Self::Age { on: When::Event, .. } | Self::Days { to: When::Event, .. })
    }
}
