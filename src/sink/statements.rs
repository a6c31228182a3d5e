//! The prepared statements that write an epoch, made from a layout.
//!
//! Each checks on the server that it changed exactly the rows it was asked to change, since its reply is not
//! awaited before the commit; the old content of a cell is part of that check.

use tokio_postgres::{Client, Statement};

use super::connection::{STATE_DIFFERS, STATE_FENCED, failed};
use super::identifier::Identifier;
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
    /// Parameters: arrays of cell, old numerator, denominator and median, new ones; epoch, instant, reason,
    /// number of rows.
    pub(super) update: Statement,
    /// Parameters: arrays of cell, old numerator, denominator and median; epoch, instant, reason, number of rows.
    pub(super) delete: Statement,
    /// Parameters: day, epoch, instant.
    pub(super) settle: Statement,
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
            settle: prepare(client, &settle_epoch(layout)).await?,
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

/// A cell that comes back goes on from the revision with which it left.
fn insert_cells(layout: &Layout) -> String {
    let schema = &layout.schema;
    let columns = layout.value_columns();
    let (plain, prefixed, arrays) = (names("", &columns), names("a.", &columns), arrays(&columns));
    let [epoch, at, reason, rows] = after(columns.len());
    format!(
        "WITH back AS (
             DELETE FROM {schema}.tonle_left l USING unnest($1::uuid[]) AS a (cell)
              WHERE l.cell = a.cell),
         written AS (
             INSERT INTO {schema}.indicator_values ({plain}, revision, epoch, updated_at)
             SELECT {prefixed},
                    coalesce((SELECT l.revision FROM {schema}.tonle_left l WHERE l.cell = a.cell), 0) + 1,
                    {epoch}::bigint, {at}::timestamptz
               FROM unnest({arrays}) AS a ({plain})
             RETURNING cell, indicator, numerator, denominator, median, revision),
         logged AS (
             INSERT INTO {schema}.changes (epoch, cell, indicator, new_numerator, new_denominator,
                                           new_median, revision, reason, at)
             SELECT {epoch}, cell, indicator, numerator, denominator, median, revision,
                    {reason}::text, {at} FROM written)
         SELECT {check} FROM written",
        check = must_equal(layout, &rows, "inserting cells")
    )
}

fn update_cells(layout: &Layout) -> String {
    let schema = &layout.schema;
    format!(
        "WITH written AS (
             UPDATE {schema}.indicator_values AS v
                SET numerator = a.numerator, denominator = a.denominator, median = a.median,
                    revision = v.revision + 1, epoch = $8::bigint, updated_at = $9::timestamptz
               FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::double precision[],
                           $5::bigint[], $6::bigint[], $7::double precision[])
                    AS a (cell, old_numerator, old_denominator, old_median,
                          numerator, denominator, median)
              WHERE v.cell = a.cell AND v.numerator = a.old_numerator
                AND v.denominator IS NOT DISTINCT FROM a.old_denominator
                AND v.median IS NOT DISTINCT FROM a.old_median
             RETURNING v.cell, v.indicator, a.old_numerator, a.old_denominator, a.old_median,
                       v.numerator, v.denominator, v.median, v.revision),
         logged AS (
             INSERT INTO {schema}.changes
                 (epoch, cell, indicator, old_numerator, old_denominator, old_median,
                  new_numerator, new_denominator, new_median, revision, reason, at)
             SELECT $8, cell, indicator, old_numerator, old_denominator, old_median,
                    numerator, denominator, median, revision, $10::text, $9 FROM written)
         SELECT {check} FROM written",
        check = must_equal(layout, "$11", "updating cells")
    )
}

fn delete_cells(layout: &Layout) -> String {
    let schema = &layout.schema;
    let leave = leave(schema);
    format!(
        "WITH written AS (
             DELETE FROM {schema}.indicator_values AS v
              USING unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::double precision[])
                    AS a (cell, old_numerator, old_denominator, old_median)
              WHERE v.cell = a.cell AND v.numerator = a.old_numerator
                AND v.denominator IS NOT DISTINCT FROM a.old_denominator
                AND v.median IS NOT DISTINCT FROM a.old_median
             RETURNING v.cell, v.indicator, v.numerator, v.denominator, v.median,
                       v.revision + 1 AS revision),
         gone AS ({leave}),
         logged AS (
             INSERT INTO {schema}.changes (epoch, cell, indicator, old_numerator, old_denominator,
                                           old_median, revision, reason, at)
             SELECT $5::bigint, cell, indicator, numerator, denominator, median, revision,
                    $7::text, $6::timestamptz
               FROM written)
         SELECT {check} FROM written",
        check = must_equal(layout, "$8", "deleting cells")
    )
}

/// Notes the revisions of the cells in `written`, which left.
pub(super) fn leave(schema: &Identifier) -> String {
    format!(
        "INSERT INTO {schema}.tonle_left (cell, revision) SELECT cell, revision FROM written
         ON CONFLICT (cell) DO UPDATE SET revision = excluded.revision"
    )
}

/// After new cells were copied with the first revision: those that were there before get the one that follows
/// the one they left with, in the table itself and in `changes`. Cells that left in this very epoch keep theirs.
pub(super) fn come_back(schema: &Identifier, epoch: i64) -> String {
    format!(
        "UPDATE {schema}.indicator_values v SET revision = l.revision + 1
           FROM {schema}.tonle_left l WHERE v.cell = l.cell;
         UPDATE {schema}.changes c SET revision = l.revision + 1
           FROM {schema}.tonle_left l WHERE c.epoch = {epoch} AND c.cell = l.cell
            AND c.new_numerator IS NOT NULL;
         DELETE FROM {schema}.tonle_left l
          WHERE EXISTS (SELECT FROM {schema}.indicator_values v WHERE v.cell = l.cell)"
    )
}

/// Takes the mark from the rows whose period ended before the day `$1`. Parameters: day, epoch, instant.
pub(super) fn settle(schema: &Identifier) -> String {
    format!(
        "UPDATE {schema}.indicator_values
            SET provisional = false, epoch = $2::bigint, updated_at = $3::timestamptz
          WHERE provisional AND {PERIOD_NEXT} <= $1::date"
    )
}

/// The first day after the period of a row of `indicator_values`; null for now.
pub(super) const PERIOD_NEXT: &str = "(period_start + CASE period_type
    WHEN 'week' THEN interval '7 days' WHEN 'month' THEN interval '1 month'
    WHEN 'quarter' THEN interval '3 months' WHEN 'half' THEN interval '6 months'
    WHEN 'year' THEN interval '1 year' WHEN 'fiscal_year' THEN interval '1 year' END)::date";

fn settle_epoch(layout: &Layout) -> String {
    let (schema, settle) = (&layout.schema, settle(&layout.schema));
    format!(
        "WITH settled AS ({settle} RETURNING 1)
         UPDATE {schema}.epochs SET rows_settled = (SELECT count(*) FROM settled)
          WHERE epoch = $2"
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
