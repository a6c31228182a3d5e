//! The prepared statements that write an epoch, made from a layout.
//!
//! Each checks on the server that it changed exactly the rows it was asked to change, since its reply is not
//! awaited before the commit; the old content of a cell is part of that check.

use tokio_postgres::{Client, Statement};

use super::connection::{STATE_DIFFERS, STATE_FENCED, failed};
use super::layout::{ExtractLayout, Layout};
use crate::error::Result;

/// Statements for one table of anonymized rows.
#[derive(Debug)]
pub(super) struct ExtractStatements {
    /// Parameters: arrays of key and columns, epoch, instant, number of rows.
    pub(super) insert: Statement,
    /// As `insert`.
    pub(super) update: Statement,
    /// Parameters: array of keys, number of rows.
    pub(super) delete: Statement,
}

/// Every statement of the write path.
#[derive(Debug)]
pub(super) struct Statements {
    /// Moves the fence, notes the epoch and notifies. See [`fence`] for the parameters.
    pub(super) fence: Statement,
    /// Parameters: arrays of the columns of a cell, epoch, instant, reason, number of rows.
    pub(super) insert: Statement,
    /// Parameters: arrays of cell, old numerator and denominator, new ones; epoch, instant, reason, rows.
    pub(super) update: Statement,
    /// Parameters: arrays of cell, old numerator and denominator; epoch, instant, reason, number of rows.
    pub(super) delete: Statement,
    /// One for each extract of the catalog.
    pub(super) extracts: Vec<ExtractStatements>,
}

impl Statements {
    /// Prepares them all on a connection.
    pub(super) async fn prepare(client: &Client, layout: &Layout) -> Result<Self> {
        let mut extracts = Vec::with_capacity(layout.extracts.len());
        for extract in &layout.extracts {
            extracts.push(ExtractStatements {
                insert: prepare(client, &insert_rows(layout, extract)).await?,
                update: prepare(client, &update_rows(layout, extract)).await?,
                delete: prepare(client, &delete_rows(layout, extract)).await?,
            });
        }
        Ok(Self {
            fence: prepare(client, &fence(layout)).await?,
            insert: prepare(client, &insert_cells(layout)).await?,
            update: prepare(client, &update_cells(layout)).await?,
            delete: prepare(client, &delete_cells(layout)).await?,
            extracts,
        })
    }
}

async fn prepare(client: &Client, sql: &str) -> Result<Statement> {
    client.prepare(sql).await.map_err(failed("preparing the statements of an epoch"))
}

/// Parameters: epoch, previous epoch, run, instant, reason, cases added, corrected, disabled, changed, cells
/// changed, rows inserted, updated, deleted, payload of the notification.
pub(super) fn fence(layout: &Layout) -> String {
    let schema = &layout.schema;
    format!(
        "WITH moved AS (
             UPDATE {schema}.tonle_pipeline SET epoch = $1::bigint, written_at = now()
              WHERE epoch = $2::bigint AND run_id = $3::uuid RETURNING 1),
         noted AS (
             INSERT INTO {schema}.epochs (epoch, at, reason, cases_added, cases_corrected,
                 cases_disabled, cases_changed, cells_changed, rows_inserted, rows_updated, rows_deleted)
             VALUES ($1, $4::timestamptz, $5::text, $6::bigint, $7::bigint, $8::bigint, $9::bigint,
                 $10::bigint, $11::bigint, $12::bigint, $13::bigint))
         SELECT {schema}.tonle_must_equal(count(*), 1, '{STATE_FENCED}',
                    'another copy of tonle has taken over these tables'),
                pg_notify('tonle', $14::text)
           FROM moved"
    )
}

/// `$1::uuid[], $2::text[], …`
fn arrays(columns: &[(String, &'static str)]) -> String {
    let array =
        |(i, column): (usize, &(String, &'static str))| format!("${}::{}[]", i + 1, column.1);
    columns.iter().enumerate().map(array).collect::<Vec<_>>().join(", ")
}

/// `prefix"a", prefix"b", …`
pub(super) fn names(prefix: &str, columns: &[(String, &'static str)]) -> String {
    columns.iter().map(|(name, _)| format!("{prefix}{name}")).collect::<Vec<_>>().join(", ")
}

fn insert_cells(layout: &Layout) -> String {
    let schema = &layout.schema;
    let columns = layout.value_columns();
    let (plain, prefixed, arrays) = (names("", &columns), names("a.", &columns), arrays(&columns));
    let [epoch, at, reason, rows] = after(columns.len());
    format!(
        "WITH written AS (
             INSERT INTO {schema}.indicator_values ({plain}, epoch, updated_at)
             SELECT {prefixed}, {epoch}::bigint, {at}::timestamptz
               FROM unnest({arrays}) AS a ({plain})
             RETURNING cell, indicator, numerator, denominator),
         logged AS (
             INSERT INTO {schema}.changes
                 (epoch, cell, indicator, new_numerator, new_denominator, reason, at)
             SELECT {epoch}, cell, indicator, numerator, denominator, {reason}::text, {at} FROM written)
         SELECT {check} FROM written",
        check = must_equal(layout, &rows, "inserting cells")
    )
}

fn update_cells(layout: &Layout) -> String {
    let schema = &layout.schema;
    format!(
        "WITH written AS (
             UPDATE {schema}.indicator_values AS v
                SET numerator = a.numerator, denominator = a.denominator,
                    epoch = $6::bigint, updated_at = $7::timestamptz
               FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
                    AS a (cell, old_numerator, old_denominator, numerator, denominator)
              WHERE v.cell = a.cell AND v.numerator = a.old_numerator
                AND v.denominator IS NOT DISTINCT FROM a.old_denominator
             RETURNING v.cell, v.indicator, a.old_numerator, a.old_denominator,
                       v.numerator, v.denominator),
         logged AS (
             INSERT INTO {schema}.changes
                 (epoch, cell, indicator, old_numerator, old_denominator,
                  new_numerator, new_denominator, reason, at)
             SELECT $6, cell, indicator, old_numerator, old_denominator,
                    numerator, denominator, $8::text, $7 FROM written)
         SELECT {check} FROM written",
        check = must_equal(layout, "$9", "updating cells")
    )
}

fn delete_cells(layout: &Layout) -> String {
    let schema = &layout.schema;
    format!(
        "WITH written AS (
             DELETE FROM {schema}.indicator_values AS v
              USING unnest($1::uuid[], $2::bigint[], $3::bigint[])
                    AS a (cell, old_numerator, old_denominator)
              WHERE v.cell = a.cell AND v.numerator = a.old_numerator
                AND v.denominator IS NOT DISTINCT FROM a.old_denominator
             RETURNING v.cell, v.indicator, v.numerator, v.denominator),
         logged AS (
             INSERT INTO {schema}.changes
                 (epoch, cell, indicator, old_numerator, old_denominator, reason, at)
             SELECT $4::bigint, cell, indicator, numerator, denominator, $6::text, $5::timestamptz
               FROM written)
         SELECT {check} FROM written",
        check = must_equal(layout, "$7", "deleting cells")
    )
}

fn insert_rows(layout: &Layout, extract: &ExtractLayout) -> String {
    let (schema, table) = (&layout.schema, &extract.table);
    let columns = extract.key_and_columns();
    let (plain, arrays) = (names("", &columns), arrays(&columns));
    let [epoch, at, rows, _] = after(columns.len());
    let prefixed = names("a.", &columns);
    format!(
        "WITH written AS (
             INSERT INTO {schema}.{table} ({plain}, epoch, updated_at)
             SELECT {prefixed}, {epoch}::bigint, {at}::timestamptz
               FROM unnest({arrays}) AS a ({plain})
             RETURNING 1)
         SELECT {check} FROM written",
        check = must_equal(layout, &rows, "inserting rows of an extract")
    )
}

fn update_rows(layout: &Layout, extract: &ExtractLayout) -> String {
    let (schema, table, key) = (&layout.schema, &extract.table, &extract.key);
    let columns = extract.key_and_columns();
    let (plain, arrays) = (names("", &columns), arrays(&columns));
    let [epoch, at, rows, _] = after(columns.len());
    let set: String = columns[1..].iter().map(|(name, _)| format!("{name} = a.{name}, ")).collect();
    format!(
        "WITH written AS (
             UPDATE {schema}.{table} AS t
                SET {set}epoch = {epoch}::bigint, updated_at = {at}::timestamptz
               FROM unnest({arrays}) AS a ({plain}) WHERE t.{key} = a.{key}
             RETURNING 1)
         SELECT {check} FROM written",
        check = must_equal(layout, &rows, "updating rows of an extract")
    )
}

fn delete_rows(layout: &Layout, extract: &ExtractLayout) -> String {
    let (schema, table, key) = (&layout.schema, &extract.table, &extract.key);
    format!(
        "WITH written AS (
             DELETE FROM {schema}.{table} AS t USING unnest($1::uuid[]) AS a (key)
              WHERE t.{key} = a.key
             RETURNING 1)
         SELECT {check} FROM written",
        check = must_equal(layout, "$2", "deleting rows of an extract")
    )
}

/// The four parameters that follow `count` arrays.
fn after(count: usize) -> [String; 4] {
    [1, 2, 3, 4].map(|i| format!("${}", count + i))
}

fn must_equal(layout: &Layout, rows: &str, doing: &str) -> String {
    let schema = &layout.schema;
    format!("{schema}.tonle_must_equal(count(*), {rows}::bigint, '{STATE_DIFFERS}', '{doing}')")
}
