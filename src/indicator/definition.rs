//! A pack as it is meant: every name resolved, every value checked, nothing laid out yet.
//!
//! The plan is compiled from it for speed; the oracle reads it directly, so the two can disagree only by a bug.

use std::collections::BTreeMap;
use std::fmt;

use crate::indicator::terms::{ConceptDefinition, Condition, ValueDefinition};
use crate::indicator::{InstanceDefinition, Labels};
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
    /// Named sets of option ids.
    pub concepts: BTreeMap<String, ConceptDefinition>,
    /// Whole numbers that are computed.
    pub values: BTreeMap<String, ValueDefinition>,
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
    /// What it is made from.
    pub from: Origin,
    /// How a value becomes a value of the dimension.
    pub kind: DimensionKind,
    /// Labels of its values.
    pub labels: BTreeMap<String, Labels>,
}

/// What a dimension is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A field.
    Field(Path),
    /// A computed value.
    Value(String),
    /// How many cases a case worker has in the cell.
    Caseload,
}

impl Path {
    /// A path as it is written.
    pub fn parse(text: &str) -> Self {
        match text.split_once('.') {
            None => Self { subform: None, field: text.to_owned() },
            Some((subform, field)) => {
                Self { subform: Some(subform.to_owned()), field: field.to_owned() }
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subform {
            None => f.write_str(&self.field),
            Some(subform) => write!(f, "{subform}.{}", self.field),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(path) => path.fmt(f),
            Self::Value(name) => f.write_str(name),
            Self::Caseload => f.write_str("caseload"),
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
    /// The first of these concepts that an option id belongs to; for a set of options, each.
    Concepts(Vec<String>),
    /// One of these agencies, or, where none is listed, any that is known.
    Agency(Vec<String>),
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
    /// A date inside the period, as soon as enough days have passed since.
    Cohort {
        /// The date.
        date: Path,
        /// Days that have to have passed.
        mature_after: u32,
    },
    /// The case was open on any day of the period.
    Presence,
    /// The case is open at the end of the period, or now in the current one.
    Stock,
    /// No period: as of the last clock tick.
    Now,
}

/// An indicator.
#[derive(Clone, Debug)]
pub struct IndicatorDefinition {
    /// Its title in languages.
    pub title: Labels,
    /// Its definition in words.
    pub definition: Labels,
    /// Where it is asked for: set and code.
    pub framework: Vec<Framework>,
    /// `up` or `down`: which way is better, if that can be said.
    pub direction: Option<String>,
    /// Where it is declared.
    pub written: Written,
    /// What is counted: one part, the two sides of a ratio, or the alternatives of `any_of`.
    pub parts: Vec<Part>,
    /// Whether a case counts once in a cell however many parts it fulfils.
    pub is_union: bool,
    /// What is made of the counted.
    pub summary: Option<Summary>,
    /// The periods it is published for.
    pub periods: Vec<PeriodType>,
    /// The breakdowns it is published in; `[]` is the total.
    pub tables: Vec<Vec<String>>,
    /// The dimension over whose values the denominator is summed, for a share.
    pub share_over: Option<String>,
}

/// Where a declaration stands: file and line, for errors. What a pack means does not depend on it.
#[derive(Clone, Default)]
pub struct Written(pub String);

impl fmt::Debug for Written {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// A code under which a framework asks for an indicator.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Framework {
    /// The framework.
    pub set: String,
    /// Its code.
    pub code: String,
}

/// One thing that an indicator counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which side of the figure it adds to.
    pub role: Role,
    /// What is counted.
    pub count: Count,
    /// Conditions on the case, all of which must hold.
    pub filter: Vec<Condition>,
    /// Conditions on the row.
    pub rows: Vec<Condition>,
    /// Conditions on the row before it, which must exist.
    pub follows: Option<Vec<Condition>>,
    /// For cases: the one row of theirs that `rows` and dimensions read.
    pub latest: Option<Latest>,
    /// What places it in a period.
    pub placed: Placed,
    /// For a share: conditions that those in the numerator fulfil besides.
    pub numerator: Option<Numerator>,
    /// Values of dimensions that the row does not have itself.
    pub set: BTreeMap<String, String>,
}

/// Which side of a figure a part adds to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To the count; with a numerator or `share_over` to both sides.
    Counted,
    /// To the numerator of a ratio.
    Numerator,
    /// To the denominator of a ratio.
    Denominator,
}

/// The row with the latest date that is not after the event; of several the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// The subform.
    pub subform: String,
    /// Its date.
    pub by: String,
}

/// What those in the numerator of a share fulfil.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numerator {
    /// Conditions on the case.
    pub filter: Vec<Condition>,
    /// Conditions on the row.
    pub rows: Vec<Condition>,
}

/// What is made of the counted, instead of their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Summary {
    /// The mean of a value, in days.
    Mean(String),
    /// The median of a value, in days.
    Median(String),
    /// How many case workers there are; the field says who they are.
    Workers(String),
    /// Cases per case worker.
    CasesPerWorker(String),
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
    pub filter: Vec<Condition>,
    /// Conditions on the row.
    pub rows: Vec<Condition>,
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

/// Longest time that a mean or a median takes in, in days: a century.
pub const DAYS_MAX: i32 = 36_524;

impl Definition {
    /// The ids of a concept at one instance: those of the configuration, of the pack for it, or of the pack.
    pub fn concept_ids<'a>(&'a self, name: &str, instance: &'a InstanceDefinition) -> &'a [String] {
        if let Some(ids) = instance.concepts.get(name) {
            return ids;
        }
        let concept = self.concepts.get(name);
        let own = concept.and_then(|concept| {
            let named = concept.instances.get(&instance.name);
            named.or_else(|| concept.instances.get(&instance.published_as))
        });
        own.or(concept.map(|concept| &concept.ids)).map_or(&[], Vec::as_slice)
    }

    /// A declared field.
    pub(super) fn field_of(&self, path: &Path) -> &FieldDefinition {
        match &path.subform {
            None => &self.fields[&path.field],
            Some(subform) => &self.subforms[subform][&path.field],
        }
    }

    /// The subform whose rows an origin is read from; none for the case.
    pub fn subform_of<'a>(&'a self, origin: &'a Origin) -> Option<&'a str> {
        match origin {
            Origin::Field(path) => path.subform.as_deref(),
            Origin::Value(name) => self.values.get(name)?.subform(),
            Origin::Caseload => None,
        }
    }

    /// Whether an origin depends on the event.
    pub fn depends_on_event(&self, origin: &Origin) -> bool {
        match origin {
            Origin::Value(name) => self.values.get(name).is_some_and(ValueDefinition::needs_event),
            Origin::Field(_) | Origin::Caseload => false,
        }
    }
}

impl IndicatorDefinition {
    /// Whether a case counts once in a cell for any of its rows or parts.
    pub fn is_distinct(&self) -> bool {
        self.is_union || self.parts.iter().any(|part| matches!(part.count, Count::CasesWith(_)))
    }

    /// Whether its figures have a denominator.
    pub fn has_denominator(&self) -> bool {
        let ratio = |part: &Part| part.numerator.is_some() || part.role != Role::Counted;
        self.share_over.is_some()
            || self.parts.iter().any(ratio)
            || !matches!(self.summary, None | Some(Summary::Workers(_)))
    }
}

impl Part {
    /// The subform whose rows are counted, or of which one row is read.
    pub fn subform(&self) -> Option<&str> {
        match (&self.count, &self.latest) {
            (Count::Rows(name) | Count::CasesWith(name), _) => Some(name),
            (Count::Cases, latest) => latest.as_ref().map(|latest| latest.subform.as_str()),
        }
    }
}
