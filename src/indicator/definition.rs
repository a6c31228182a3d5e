//! A pack as it is meant: every name resolved, every value checked, nothing laid out yet.
//!
//! The plan is compiled from it for speed; the oracle reads it directly, so the two can disagree only by a bug.

use std::collections::BTreeMap;
use std::fmt;

use crate::indicator::Labels;
use crate::model::{Day, FieldType, PeriodType};

/// Several packs, merged and checked.
#[derive(Clone, Debug)]
pub struct Definition {
    /// `id version` of each pack, in order.
    pub packs: Vec<String>,
    /// Nothing that begins before this day is published.
    pub history_start: Day,
    /// How a case opens and closes; needed for presence and stock.
    pub lifecycle: Option<Lifecycle>,
    /// What is read of a case.
    pub fields: BTreeMap<String, FieldDefinition>,
    /// What is read of the rows of its subforms.
    pub subforms: BTreeMap<String, BTreeMap<String, FieldDefinition>>,
    /// By name.
    pub dimensions: BTreeMap<String, DimensionDefinition>,
    /// By code.
    pub indicators: BTreeMap<String, IndicatorDefinition>,
    /// By name of the table.
    pub extracts: BTreeMap<String, ExtractDefinition>,
}

/// A field and the values it is known to take.
#[derive(Clone, Debug)]
pub struct FieldDefinition {
    /// What it may hold.
    pub field_type: FieldType,
    /// Option ids that are known; others are kept and published as `unmapped`.
    pub values: Vec<String>,
}

/// A field of a case, or of the rows of a subform; written `field` or `subform.field`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// The subform, for a field of its rows.
    pub subform: Option<String>,
    /// The field.
    pub field: String,
}

/// The fields that say from when to when a case is open. See [`crate::indicator::Lifecycle`] for the rule.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    /// Date of registration.
    pub opened: String,
    /// Date of (the first) closure.
    pub closed: String,
    /// Dates of reopening, in a subform.
    pub reopened: Option<Path>,
    /// The status.
    pub status: String,
    /// Option ids of a closed status.
    pub closed_when: Vec<String>,
}

/// What a table can be broken down by.
#[derive(Clone, Debug)]
pub struct DimensionDefinition {
    /// Its name in languages.
    pub title: Labels,
    /// The field it is made from.
    pub from: Path,
    /// How a value of the field becomes a value of the dimension.
    pub kind: DimensionKind,
    /// Labels of its values.
    pub labels: BTreeMap<String, Labels>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subform {
            None => f.write_str(&self.field),
            Some(subform) => write!(f, "{subform}.{}", self.field),
        }
    }
}

/// How a value of a field becomes a value of a dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DimensionKind {
    /// One of these option ids.
    Option(Vec<String>),
    /// Any of these option ids: a case counts once for each, so the dimension is not additive.
    Options(Vec<String>),
    /// A band of whole numbers.
    Bands(Vec<Band>),
    /// A place at this level or above it, and everything it is part of.
    Location {
        /// Admin level; 0 is the country.
        level: u8,
    },
    /// `true` or `false`.
    Boolean,
}

/// A band of whole numbers, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// As written: `0-5`, `18+`.
    pub name: String,
    /// First number in it.
    pub from: i32,
    /// Last number in it.
    pub to: i32,
}

/// What an indicator counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Count {
    /// Cases.
    Cases,
    /// Rows of a subform.
    Rows(String),
    /// Cases that have such a row, each once in a cell.
    CasesWith(String),
}

/// What places a count in a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// A date inside the period.
    Flow(Path),
    /// The case was open on any day of the period.
    Presence,
    /// The case is open at the end of the period, or now in the current one.
    Stock,
    /// No period: as of the last clock tick.
    Now,
}

/// A condition on one field.
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
    /// A whole number in this range, both ends included.
    Range(i32, i32),
    /// Recorded, or not recorded.
    Present(bool),
}

/// An indicator.
#[derive(Clone, Debug)]
pub struct IndicatorDefinition {
    /// Its title in languages.
    pub title: Labels,
    /// Its definition in words.
    pub definition: Labels,
    /// What it counts.
    pub count: Count,
    /// Conditions on the case, all of which must hold.
    pub filter: Vec<(String, Test)>,
    /// Conditions on the row.
    pub rows: Vec<(String, Test)>,
    /// What places it in a period.
    pub placed: Placed,
    /// The periods it is published for.
    pub periods: Vec<PeriodType>,
    /// The breakdowns it is published in; `[]` is the total.
    pub tables: Vec<Vec<String>>,
    /// The dimension over whose values the denominator is summed, for a share.
    pub share_over: Option<String>,
}

/// A table of anonymized rows.
#[derive(Clone, Debug)]
pub struct ExtractDefinition {
    /// What a row is.
    pub comment: String,
    /// Name of the key column.
    pub key: String,
    /// The subform whose rows it holds; none for cases.
    pub rows_of: Option<String>,
    /// Conditions on the case.
    pub filter: Vec<(String, Test)>,
    /// Conditions on the row.
    pub rows: Vec<(String, Test)>,
    /// Its columns.
    pub columns: Vec<ColumnDefinition>,
}

/// A column of an extract, always coded or generalized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnDefinition {
    /// The value of a dimension.
    Dimension(String),
    /// The first day of the month of a date.
    Month {
        /// Name of the column.
        name: String,
        /// The date.
        of: Path,
    },
}
