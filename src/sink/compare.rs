//! Compares the tables with what they should hold, without changing them: for `tonle verify`.

use std::fmt::Write as _;
use std::hash::BuildHasher;
use std::pin::pin;

use foldhash::fast::FixedState;
use futures_util::StreamExt;
use hashbrown::HashMap;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::cell_key::CellKeys;
use super::connection::{RECONCILE_STATEMENT_MS_MAX, failed};
use super::identifier::literal;
use super::layout::{ExtractLayout, Layout};
use super::rows::{NamedCell, median};
use crate::error::{Error, Result};
use crate::indicator::{Naming, Value};
use crate::model::{Changes, Day, Figure};

/// Most differences that are spelled out.
const EXAMPLES_MAX: usize = 20;
/// Between the values of a row; no value contains it unless somebody means to confuse a comparison.
const SEPARATOR: char = '\u{1f}';
const DOING: &str = "reading the tables back";

/// How the tables and what they should hold differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Rows that are as they should be.
    pub equal: u64,
    /// Rows with another content.
    pub different: u64,
    /// Rows that are not there.
    pub missing: u64,
    /// Rows that should not be there.
    pub surplus: u64,
    /// Some of the differing cells, as they stand in the table. Rows of extracts are only counted.
    pub examples: Vec<String>,
}

impl Comparison {
    /// Whether the tables hold exactly what they should.
    pub fn is_equal(&self) -> bool {
        self.different + self.missing + self.surplus == 0
    }

    fn example(&mut self, what: &str, row: &str) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{what}: {}", row.replace(SEPARATOR, " ")));
        }
    }
}

/// Hash of the text of each expected row, by key.
pub(super) type Expected = HashMap<[u8; 16], u64>;

/// Reads all tables in one snapshot and compares them row by row.
pub(super) async fn compare(
    client: &Client,
    layout: &Layout,
    keys: &CellKeys,
    complete: &Changes,
    today: Option<Day>,
    naming: &dyn Naming,
) -> Result<Comparison> {
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
         SET LOCAL statement_timeout = {RECONCILE_STATEMENT_MS_MAX}; SET LOCAL enable_seqscan = on"
    );
    client.batch_execute(&begin).await.map_err(failed(DOING))?;
    let mut found = Comparison::default();
    let mut expected = Expected::new();
    for change in complete.cells.iter().filter(|change| !change.new.is_empty()) {
        let cell = NamedCell::of(change.cell, naming, keys, layout)?;
        expected.insert(cell.key, hash(&cell_text(&cell, change.new, today)));
    }
    let target = format!("{}.indicator_values", layout.schema);
    let missing =
        against(client, &target, &layout.value_columns(), expected, &mut found, true).await?;
    for change in complete.cells.iter().filter(|_| !missing.is_empty()) {
        let cell = NamedCell::of(change.cell, naming, keys, layout)?;
        if missing.contains_key(&cell.key) {
            found.example("missing", &cell_text(&cell, change.new, today));
        }
    }
    for (index, extract) in layout.extracts.iter().enumerate() {
        let expected = expected_rows(index, extract, complete, naming)?;
        let target = format!("{}.{}", layout.schema, extract.table);
        against(client, &target, &extract.key_and_columns(), expected, &mut found, false).await?;
    }
    client.batch_execute("COMMIT").await.map_err(failed(DOING))?;
    Ok(found)
}

pub(super) fn expected_rows(
    index: usize,
    extract: &ExtractLayout,
    complete: &Changes,
    naming: &dyn Naming,
) -> Result<Expected> {
    let mut expected = Expected::new();
    for change in complete.rows.iter().filter(|change| usize::from(change.extract) == index) {
        let Some(row) = change.row.as_deref() else { continue };
        let values = naming.row(change.extract, row);
        if values.len() != extract.columns.len() {
            return Err(Error::bug("naming a row: not one value for each column"));
        }
        let mut text = String::new();
        values.iter().for_each(|value| put(&mut text, value_text(value).as_deref()));
        expected.insert(change.key.to_bytes(), hash(&text));
    }
    Ok(expected)
}

/// Streams a table; returns the expected rows that are not in it. The first column is the key.
pub(super) async fn against(
    client: &Client,
    target: &str,
    columns: &[(String, &'static str)],
    mut expected: Expected,
    found: &mut Comparison,
    with_examples: bool,
) -> Result<Expected> {
    let there = format!("SELECT to_regclass({}) IS NOT NULL", literal(target));
    let there = client.query_one(&there, &[]).await.map_err(failed(DOING))?;
    if !there.get::<_, bool>(0) {
        found.missing += expected.len() as u64; // the table is gone
        return Ok(expected);
    }
    let texts: String = columns[1..].iter().map(|(name, _)| format!(", {name}::text")).collect();
    let sql = format!("SELECT uuid_send({}){texts} FROM {target}", columns[0].0);
    let none: [&(dyn ToSql + Sync); 0] = [];
    let rows = client.query_raw(&sql, none).await.map_err(failed(DOING))?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.next().await {
        let row = row.map_err(failed(DOING))?;
        let text = row_text(&row)?;
        let key = row.try_get::<_, &[u8]>(0).ok().and_then(|key| key.try_into().ok());
        let key: [u8; 16] = key.ok_or_else(|| Error::bug("a key is not 16 bytes"))?;
        let what = match expected.remove(&key) {
            Some(hashed) if hashed == hash(&text) => {
                found.equal += 1;
                continue;
            }
            Some(_) => {
                found.different += 1;
                "different"
            }
            None => {
                found.surplus += 1;
                "surplus"
            }
        };
        if with_examples {
            found.example(what, &text);
        }
    }
    found.missing += expected.len() as u64;
    Ok(expected)
}

fn row_text(row: &Row) -> Result<String> {
    let mut text = String::new();
    for index in 1..row.len() {
        put(&mut text, row.try_get(index).map_err(failed(DOING))?);
    }
    Ok(text)
}

/// The columns of [`Layout::value_columns`] after the key, as Postgres writes them.
fn cell_text(cell: &NamedCell<'_>, figure: Figure, today: Option<Day>) -> String {
    let mut text = String::new();
    let named = &cell.text;
    for part in [named.indicator, named.instance, named.period_type] {
        put(&mut text, Some(part));
    }
    let start = named.period_start.map(|day| day.date().to_string());
    put(&mut text, start.as_deref());
    named.dimensions.iter().for_each(|value| put(&mut text, Some(value)));
    put(&mut text, Some(&figure.numerator.to_string()));
    put(&mut text, cell.denominator(figure).map(|d| d.to_string()).as_deref());
    put(&mut text, median(figure).map(|median| median.to_string()).as_deref());
    put(&mut text, Some(if cell.is_provisional(today) { "true" } else { "false" }));
    text
}

fn value_text(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Text(text) => Some((*text).to_owned()),
        Value::Date(day) => Some(day.date().to_string()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Key(key) => {
            let mut text = format!("{:032x}", key.0);
            [20, 16, 12, 8].into_iter().for_each(|at| text.insert(at, '-'));
            Some(text)
        }
    }
}

fn put(text: &mut String, value: Option<&str>) {
    let value = value.unwrap_or("∅");
    write!(text, "{value}{SEPARATOR}").expect("writing to a string never fails");
}

fn hash(text: &str) -> u64 {
    FixedState::with_seed(0).hash_one(text)
}
