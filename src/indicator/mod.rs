//! Packs: what is read, counted and published, declared in TOML and compiled into a plan.
//!
//! [`Definition`] is a pack as meant; [`Plan`] is the same laid out for speed and bound to the places and
//! instances of one pipeline.

mod catalog;
mod check;
mod condition;
mod definition;
mod dimension;
mod extract;
mod instance;
mod judge;
mod lifecycle;
mod naming;
mod pack;
mod plan;
mod published;
mod resolve;
mod spelling;
mod table;

pub use catalog::{
    Catalog, CellText, Column, ColumnType, DimensionText, Extract, FrameworkCode, IndicatorText,
    Labels, Naming, OptionText, Value,
};
pub use definition::*;
pub use extract::CodedRow;
pub use instance::InstanceDefinition;
pub use judge::Judgement;
pub use naming::ALL;
pub use pack::{PACK_BYTES_MAX, PackText, SHIPPED};
pub use plan::{Plan, schema_of};
pub use spelling::{line_of, misread};
