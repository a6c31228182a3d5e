//! Packs: what is read, counted and published, declared in TOML and compiled into a plan.
//!
//! [`Definition`] is a pack as meant; [`Plan`] is the same laid out for speed and bound to the places and
//! instances of one pipeline.

mod alarm;
mod assertion;
mod breakdown;
mod breaks;
mod catalog;
mod check;
mod cluster;
mod condition;
mod counted;
mod definition;
mod dimension;
mod extract;
mod filter;
mod instance;
mod judge;
mod lifecycle;
mod merged;
mod naming;
mod pack;
mod part;
mod place;
mod plan;
mod published;
mod raw;
mod resolve;
mod spelling;
mod stream;
mod table;
mod tabled;
mod terms;
mod value;
mod words;

pub use assertion::LabelFinding;
pub use catalog::{
    Catalog, CellText, Column, ColumnType, DimensionText, Extract, Fingerprint, IndicatorText,
    Labels, Naming, OptionText, Value,
};
pub use definition::*;
pub use dimension::AGENCIES_MAX;
pub use extract::CodedRow;
pub use instance::InstanceDefinition;
pub use judge::Judgement;
pub use merged::{Declaration, Lines, PACK_SCHEMA, merged};
pub use naming::ALL;
pub use pack::{PACK_BYTES_MAX, PackText, SHIPPED};
pub use plan::{Plan, schema_of};
pub use spelling::{line_of, misread, nearest};
pub use table::Summing;
pub use terms::*;
