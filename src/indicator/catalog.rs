//! What a compiled pack publishes, in words: the columns of every table and the text that goes into them.
//!
//! The sink creates its tables from a [`Catalog`] and writes rows through a [`Naming`]; it never sees a pack.

use std::collections::BTreeMap;

use crate::indicator::Framework;
use crate::model::{Cell, Day, Reason, RecordKey};

/// Texts by language code (`en`, `km`).
pub type Labels = BTreeMap<String, String>;

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// An option id, a location code, a band.
    Text,
    /// A calendar date.
    Date,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// A pseudonym, as `uuid`.
    Key,
}

/// A column that a pack declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name in snake case, checked when the pack was compiled.
    pub name: String,
    /// What is in it.
    pub column_type: ColumnType,
    /// What it means, for `COMMENT ON COLUMN`.
    pub comment: String,
}

/// A table of anonymized rows: the cases, or the rows of one subform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extract {
    /// Name of the table.
    pub table: String,
    /// What a row is, for `COMMENT ON TABLE`.
    pub comment: String,
    /// Name of the key column (`case_key`, `service_key`), the primary key, a `uuid`.
    pub key_column: String,
    /// The other columns in the order of the coded row.
    pub columns: Vec<Column>,
}

/// What an indicator is, for the table `indicators`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndicatorText {
    /// Its code, for example `CM-01`.
    pub code: String,
    /// Its title.
    pub title: Labels,
    /// Its definition in words.
    pub definition: Labels,
    /// `count` or `share`.
    pub unit: String,
    /// `flow`, `stock`, `presence` or `now`.
    pub kind: String,
    /// Dimensions over which its values may not be added up.
    pub not_additive_over: Vec<String>,
    /// The pack that declares it.
    pub pack: String,
    /// Lengths of the periods it is published for: `month`, `quarter`, `now`.
    pub periods: Vec<String>,
    /// The breakdowns it is published in, each a sorted set of dimensions; an empty one is the total.
    pub tables: Vec<Vec<String>>,
    /// Whether its value is a numerator divided by a denominator, as in [`CellText::is_share`].
    pub has_denominator: bool,
    /// Its codes in frameworks of others.
    pub framework: Vec<Framework>,
    /// Which way is better, `up` or `down`; none where neither is.
    pub direction: Option<String>,
}

/// What a dimension is, for the table `dimensions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DimensionText {
    /// Its name, as in [`Catalog::dimensions`].
    pub name: String,
    /// Its title.
    pub title: Labels,
    /// Whether its values are codes of places.
    pub is_place: bool,
}

/// A value that a column may hold, for the table `options`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OptionText {
    /// The dimension or column.
    pub dimension: String,
    /// The value as published.
    pub value: String,
    /// Its place among the values of the dimension.
    pub position: i32,
    /// Its label.
    pub label: Labels,
}

/// What decides the rows besides the records, each as a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// The packs.
    pub packs: u64,
    /// The instances, and what is said of each beyond the packs.
    pub instances: u64,
    /// The places.
    pub places: u64,
    /// The agencies that were met, where a dimension has a value for each.
    pub agencies: u64,
}

impl Fingerprint {
    /// Whether the same records give the same rows: agencies that no record of the tables has change none.
    pub fn counts_as(self, other: Self) -> bool {
        Self { agencies: other.agencies, ..self } == other
    }

    /// Why rows that follow `before` change, if they may: of several reasons the one that decides most.
    pub fn change_from(self, before: Self) -> Option<Reason> {
        if self.packs != before.packs {
            return Some(Reason::PackChange);
        }
        if self.instances != before.instances {
            return Some(Reason::MappingChange);
        }
        if self.places != before.places {
            return Some(Reason::LocationChange);
        }
        (self.agencies != before.agencies).then_some(Reason::Reconcile)
    }
}

/// Everything a pack publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Ids and versions of the pack and its overlays, for people.
    pub pack: String,
    /// Changes whenever anything that decides a row changes.
    pub fingerprint: Fingerprint,
    /// The dimension columns of `indicator_values`, in order; each is text.
    pub dimensions: Vec<Column>,
    /// What they are.
    pub dimension_texts: Vec<DimensionText>,
    /// The tables of anonymized rows.
    pub extracts: Vec<Extract>,
    /// The indicators.
    pub indicators: Vec<IndicatorText>,
    /// The values of the dimensions.
    pub options: Vec<OptionText>,
}

/// A cell as the text of a row of `indicator_values`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CellText<'a> {
    /// Code of the indicator.
    pub indicator: &'a str,
    /// Name of the instance, or `all`.
    pub instance: &'a str,
    /// As [`PeriodType::name`](crate::model::PeriodType::name) writes it.
    pub period_type: &'static str,
    /// First day of the period; none for `now`.
    pub period_start: Option<Day>,
    /// One value for each dimension of the catalog; `all` where the table is not broken down by it.
    pub dimensions: Vec<&'a str>,
    /// Whether the value is `numerator / denominator`.
    pub is_share: bool,
}

/// A value of a column of an extract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Not recorded.
    Null,
    /// See [`ColumnType::Text`].
    Text(&'a str),
    /// See [`ColumnType::Date`].
    Date(Day),
    /// See [`ColumnType::Integer`].
    Integer(i32),
    /// See [`ColumnType::Boolean`].
    Boolean(bool),
    /// See [`ColumnType::Key`].
    Key(RecordKey),
}

/// Turns codes into the text of rows. Pure: the same code always gives the same text.
pub trait Naming {
    /// The text of a cell.
    fn cell(&self, cell: Cell) -> CellText<'_>;

    /// The values of a coded row of the `extract`-th extract, one for each of its columns.
    fn row(&self, extract: u16, row: &[u32]) -> Vec<Value<'_>>;
}
