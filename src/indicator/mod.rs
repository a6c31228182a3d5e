//! Packs: what is read, counted and published, declared in TOML and compiled into a plan.

mod catalog;

pub use catalog::{
    Catalog, CellText, Column, ColumnType, Extract, IndicatorText, Labels, Naming, OptionText,
    Value,
};
