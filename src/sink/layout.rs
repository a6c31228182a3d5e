//! The tables of one catalog: names checked and quoted once, for every statement that is made from them.

use std::collections::BTreeSet;

use super::identifier::Identifier;
use super::tables::{FIXED, FROZEN_DIFFERENCES, LABELLED, LATER, VALUES, VALUES_HEAD, VALUES_TAIL};
use super::wide::{WideView, wide_views};
use crate::error::{Error, Result};
use crate::indicator::{Catalog, ColumnType, Fingerprint};

/// The Postgres type of a column.
pub(super) fn sql_type(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Text => "text",
        ColumnType::Date => "date",
        ColumnType::Integer => "integer",
        ColumnType::Boolean => "boolean",
        ColumnType::Key => "uuid",
    }
}

/// A column of an extract.
#[derive(Clone, Debug)]
pub(super) struct ColumnLayout {
    pub(super) name: Identifier,
    pub(super) column_type: ColumnType,
    pub(super) comment: String,
}

/// A table of anonymized rows.
#[derive(Clone, Debug)]
pub(super) struct ExtractLayout {
    pub(super) table: Identifier,
    pub(super) comment: String,
    pub(super) key: Identifier,
    pub(super) columns: Vec<ColumnLayout>,
}

/// All names of one catalog in one schema.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) schema: Identifier,
    pub(super) dimensions: Vec<ColumnLayout>,
    pub(super) extracts: Vec<ExtractLayout>,
    pub(super) views: Vec<WideView>,
    pub(super) pack: String,
    pub(super) fingerprint: Fingerprint,
}

impl Layout {
    /// Checks every name of `catalog`.
    ///
    /// # Errors
    /// A configuration error that names the table or column that cannot be, or is there twice.
    pub(super) fn new(schema: &Identifier, catalog: &Catalog) -> Result<Self> {
        let own = VALUES_HEAD.iter().chain(VALUES_TAIL).map(|column| column.0);
        let dimensions = columns(VALUES, own, &catalog.dimensions)?;
        let fixed = FIXED.iter().chain(LATER).chain(LABELLED).map(|table| table.name);
        let mut tables: BTreeSet<&str> = fixed.collect();
        tables.extend([VALUES, FROZEN_DIFFERENCES, "data_dictionary", "tonle_migrations"]);
        let mut extracts = Vec::with_capacity(catalog.extracts.len());
        for extract in &catalog.extracts {
            if !tables.insert(&extract.table) {
                return Err(Error::config(format!("the table name {:?} is taken", extract.table)));
            }
            let own = [extract.key_column.as_str(), "epoch", "updated_at"];
            if own[1..].contains(&own[0]) {
                return Err(taken(&extract.table, own[0]));
            }
            extracts.push(ExtractLayout {
                table: Identifier::new(&extract.table)?,
                comment: extract.comment.clone(),
                key: Identifier::new(&extract.key_column)?,
                columns: columns(&extract.table, own, &extract.columns)?,
            });
        }
        Ok(Self {
            schema: schema.clone(),
            views: wide_views(schema, catalog, &tables)?,
            dimensions,
            extracts,
            pack: catalog.pack.clone(),
            fingerprint: catalog.fingerprint,
        })
    }

    /// The columns of `indicator_values` that say what a cell holds, with their types: neither the generated one
    /// nor its revision, epoch and moment.
    pub(super) fn value_columns(&self) -> Vec<(String, &'static str)> {
        let plain = |name: &str, sql_type| (format!("\"{name}\""), sql_type);
        let mut columns = vec![
            plain("cell", "uuid"),
            plain("indicator", "text"),
            plain("instance", "text"),
            plain("period_type", "text"),
            plain("period_start", "date"),
        ];
        columns.extend(self.dimensions.iter().map(|d| (d.name.to_string(), "text")));
        columns.extend([plain("numerator", "bigint"), plain("denominator", "bigint")]);
        columns.extend([plain("median", "double precision"), plain("provisional", "boolean")]);
        columns
    }
}

impl ExtractLayout {
    /// The key and the columns, with their types.
    pub(super) fn key_and_columns(&self) -> Vec<(String, &'static str)> {
        let columns = self.columns.iter().map(|c| (c.name.to_string(), sql_type(c.column_type)));
        std::iter::once((self.key.to_string(), "uuid")).chain(columns).collect()
    }
}

fn columns<'a>(
    table: &str,
    own: impl IntoIterator<Item = &'a str>,
    declared: &'a [crate::indicator::Column],
) -> Result<Vec<ColumnLayout>> {
    let mut names: BTreeSet<&str> = own.into_iter().collect();
    let mut columns = Vec::with_capacity(declared.len());
    for column in declared {
        if !names.insert(&column.name) {
            return Err(taken(table, &column.name));
        }
        columns.push(ColumnLayout {
            name: Identifier::new(&column.name)?,
            column_type: column.column_type,
            comment: column.comment.clone(),
        });
    }
    Ok(columns)
}

fn taken(table: &str, column: &str) -> Error {
    Error::config(format!("the table {table} cannot have a second column {column:?}"))
        .advise("give the dimension or field another name in the pack")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::indicator::{Column, Extract};

    fn column(name: &str) -> Column {
        Column { name: name.into(), column_type: ColumnType::Text, comment: String::new() }
    }

    fn refused(catalog: &Catalog) {
        let schema = Identifier::new("tonle").unwrap();
        assert!(Layout::new(&schema, catalog).is_err());
    }

    #[test]
    fn a_name_that_is_taken_is_refused() {
        let dimensions = vec![column("value")];
        refused(&Catalog { dimensions, ..Catalog::default() });
        let extract = |table: &str, key: &str| Extract {
            table: table.into(),
            comment: String::new(),
            key_column: key.into(),
            columns: vec![column("sex"), column("sex")],
        };
        for extract in [extract("epochs", "k"), extract("cases", "epoch"), extract("cases", "k")] {
            refused(&Catalog { extracts: vec![extract], ..Catalog::default() });
        }
    }
}
