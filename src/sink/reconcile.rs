//! Makes the tables equal to a complete set of rows, writing only what differs, in one transaction.
//!
//! This is also the only place where columns change, so that nobody ever sees a new column with old rows.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, GenericClient};

use super::cell_key::CellKeys;
use super::connection::{RECONCILE_STATEMENT_MS_MAX, failed};
use super::encode::{Date, PutValue, Timestamp, Uuid};
use super::identifier::Identifier;
use super::layout::{ExtractLayout, Layout};
use super::owned::following;
use super::rows::{NamedCell, put_row};
use super::statements::{self, names};
use super::write::{Copy, Head, fence_parameters, payload};
use super::{RowCounts, replaced, schema};
use crate::crash::{self, Step};
use crate::error::{Error, Result};
use crate::indicator::Naming;
use crate::model::{Changes, ExtractChange, Reason};

/// Memory for sorting and hashing while everything is compared, as Postgres writes it.
const WORK_MEMORY: &str = "64MB";

/// What a reconcile did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReconcileCounts {
    /// Differences in `indicator_values`.
    pub cells: RowCounts,
    /// Differences in the tables of anonymized rows.
    pub rows: RowCounts,
    /// Cells that stopped being provisional because their period ended; among no differences.
    pub settled: u64,
    /// Cells and rows that were compared.
    pub compared: u64,
}

impl ReconcileCounts {
    /// Whether the tables were right already.
    pub fn is_clean(&self) -> bool {
        self.cells.total() + self.rows.total() == 0
    }

    /// Both together.
    pub fn total(&self) -> RowCounts {
        let (a, b) = (&self.cells, &self.rows);
        RowCounts {
            inserted: a.inserted + b.inserted,
            updated: a.updated + b.updated,
            deleted: a.deleted + b.deleted,
            cells: a.cells,
        }
    }
}

/// Reconciles; the caller rolls back when it fails.
pub(super) struct Reconciler<'a> {
    pub(super) client: &'a Client,
    pub(super) layout: &'a Layout,
    pub(super) keys: &'a CellKeys,
    pub(super) naming: &'a dyn Naming,
    pub(super) head: Head,
}

const DOING: &str = "reconciling the tables";
/// Column of the staged cells: why a cell changes, where that is known for it alone.
const REASON: &str = "tonle_reason";

impl Reconciler<'_> {
    /// From `BEGIN` to `COMMIT`.
    pub(super) async fn run(&self, complete: &Changes) -> Result<ReconcileCounts> {
        self.begin().await?;
        crash::point(Step::ReconcileBegun);
        schema::apply(self.client, self.layout).await?;
        crash::point(Step::ReconcileShaped);
        let settled = self.settle().await?;
        let cells = self.cells(complete).await?;
        crash::point(Step::ReconcileCells);
        let mut counts = ReconcileCounts { cells, settled, ..ReconcileCounts::default() };
        for (index, extract) in self.layout.extracts.iter().enumerate() {
            let index = u16::try_from(index).map_err(|_| Error::bug("65536 extracts"))?;
            let found = self.rows(index, extract, complete).await?;
            counts.rows.inserted += found.inserted;
            counts.rows.updated += found.updated;
            counts.rows.deleted += found.deleted;
            crash::point(Step::ReconcileRows);
        }
        counts.compared = (complete.cells.len() + complete.rows.len()) as u64;
        self.commit(complete, &counts).await?;
        Ok(counts)
    }

    /// Locks the fence, so that nobody takes over in the middle.
    async fn begin(&self) -> Result<()> {
        let settings = format!(
            "BEGIN; SET LOCAL statement_timeout = {RECONCILE_STATEMENT_MS_MAX};
             SET LOCAL idle_in_transaction_session_timeout = {RECONCILE_STATEMENT_MS_MAX};
             SET LOCAL work_mem = '{WORK_MEMORY}'; SET LOCAL maintenance_work_mem = '{WORK_MEMORY}';
             SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on;
             SET LOCAL enable_mergejoin = on; SET LOCAL plan_cache_mode = force_custom_plan"
        );
        self.client.batch_execute(&settings).await.map_err(failed(DOING))?;
        let sql = format!(
            "SELECT FROM {}.tonle_pipeline WHERE run_id = $1 AND epoch = $2 FOR UPDATE",
            self.layout.schema
        );
        let run = Uuid(self.head.run.to_bytes());
        let found = self.client.query(&sql, &[&run, &self.head.previous]).await;
        if found.map_err(failed(DOING))?.len() == 1 { Ok(()) } else { Err(replaced()) }
    }

    /// Marks the periods that ended, so that only what is wrong remains to be found.
    async fn settle(&self) -> Result<u64> {
        let Some(today) = self.head.today else { return Ok(0) };
        let sql = statements::settle(&self.layout.schema);
        let (today, at) = (Date(today), Timestamp(self.head.at));
        let settled = self.client.execute(&sql, &[&today, &self.head.epoch, &at]).await;
        settled.map_err(failed(DOING))
    }

    async fn cells(&self, complete: &Changes) -> Result<RowCounts> {
        let (schema, columns) = (&self.layout.schema, self.layout.value_columns());
        let target = format!("{schema}.indicator_values");
        let staged = Staged::begin(self.client, &target, &columns).await?;
        let mut copied = columns.clone();
        if !staged.was_empty {
            copied.push((REASON.to_owned(), "text"));
        }
        let mut copy = staged.copy(self.client, &copied).await?;
        let present = || complete.cells.iter().filter(|change| !change.new.is_empty());
        for change in present() {
            let cell = NamedCell::of(change.cell, self.naming, self.keys, self.layout)?;
            cell.put(copy.row().await?, change.new, self.head.today);
            if !staged.was_empty {
                copy.rows.optional(change.reason.map(Reason::name), PutValue::text);
            }
            copy.rows.bigint(self.head.epoch);
            copy.rows.instant(self.head.at);
        }
        let count = present().count();
        copy.end(count).await?;
        let parameters: [&(dyn ToSql + Sync); 3] =
            [&self.head.epoch, &Timestamp(self.head.at), &self.head.reason.name()];
        let [was_empty, delete, update, insert] = cell_statements(schema, &columns);
        let mut counts = RowCounts::default();
        if staged.was_empty {
            counts.inserted = self.count(&was_empty, &parameters).await?;
            let back = statements::come_back(schema, self.head.epoch);
            self.client.batch_execute(&back).await.map_err(failed(DOING))?;
        } else {
            staged.analyze(self.client).await?;
            counts.deleted = self.count(&delete, &parameters).await?;
            counts.updated = self.count(&update, &parameters).await?;
            counts.inserted = self.count(&insert, &parameters).await?;
        }
        staged.end(self.client).await?;
        counts.cells = counts.total();
        Ok(counts)
    }

    async fn rows(
        &self,
        index: u16,
        extract: &ExtractLayout,
        complete: &Changes,
    ) -> Result<RowCounts> {
        let (schema, columns) = (&self.layout.schema, extract.key_and_columns());
        let target = format!("{schema}.{}", extract.table);
        let staged = Staged::begin(self.client, &target, &columns).await?;
        let mut copy = staged.copy(self.client, &columns).await?;
        let present = |change: &&ExtractChange| change.extract == index && change.row.is_some();
        let mut count = 0;
        for change in complete.rows.iter().filter(present) {
            let values = self.naming.row(index, change.row.as_deref().unwrap_or_default());
            put_row(copy.row().await?, extract, change.key, &values)?;
            copy.rows.bigint(self.head.epoch);
            copy.rows.instant(self.head.at);
            count += 1;
        }
        copy.end(count).await?;
        let mut counts = RowCounts::default();
        if staged.was_empty {
            counts.inserted = count as u64;
        } else {
            staged.analyze(self.client).await?;
            let [delete, update, insert] = row_statements(&target, &columns);
            counts.deleted = self.client.execute(&delete, &[]).await.map_err(failed(DOING))?;
            counts.updated = self.client.execute(&update, &[]).await.map_err(failed(DOING))?;
            counts.inserted = self.client.execute(&insert, &[]).await.map_err(failed(DOING))?;
        }
        staged.end(self.client).await?;
        Ok(counts)
    }

    async fn count(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        let row = self.client.query_one(sql, parameters).await.map_err(failed(DOING))?;
        Ok(row.get::<_, i64>(0).cast_unsigned())
    }

    async fn commit(&self, complete: &Changes, counts: &ReconcileCounts) -> Result<()> {
        let schema = &self.layout.schema;
        let sql = format!(
            "UPDATE {schema}.tonle_pipeline SET {}, pack = $1, pipeline_id = $3 WHERE run_id = $2",
            following(self.layout)
        );
        let pack = &self.layout.pack;
        let run = Uuid(self.head.run.to_bytes());
        let pipeline = Uuid(self.head.pipeline.to_be_bytes());
        let moved = self.client.execute(&sql, &[pack, &run, &pipeline]).await;
        if moved.map_err(failed(DOING))? != 1 {
            return Err(replaced());
        }
        let mut tables = vec![super::tables::VALUES];
        tables.extend(self.layout.extracts.iter().map(|extract| extract.table.name()));
        let payload = payload(self.head.epoch, &tables);
        let parameters = fence_parameters(&self.head, complete.tally, &counts.total(), payload);
        let parameters: Vec<&(dyn ToSql + Sync)> =
            parameters.iter().map(|p| &**p as &(dyn ToSql + Sync)).collect();
        let fence = statements::fence(self.layout);
        self.client.execute(&fence, &parameters).await.map_err(failed(DOING))?;
        let sql = format!("UPDATE {schema}.epochs SET rows_settled = $1 WHERE epoch = $2");
        let settled = counts.settled.cast_signed();
        let noted = self.client.execute(&sql, &[&settled, &self.head.epoch]).await;
        noted.map_err(failed(DOING))?;
        crash::point(Step::ReconcileFenced);
        self.client.batch_execute("COMMIT").await.map_err(failed(DOING))?;
        crash::point(Step::ReconcileCommitted);
        Ok(())
    }
}

/// Where the complete rows of one table are copied to: the table itself when it is empty, else a temporary one.
struct Staged {
    was_empty: bool,
    place: String,
}

impl Staged {
    async fn begin(
        client: &impl GenericClient,
        target: &str,
        columns: &[(String, &'static str)],
    ) -> Result<Self> {
        let sql = format!("SELECT NOT EXISTS (SELECT FROM {target})");
        let row = client.query_one(&sql, &[]).await.map_err(failed(DOING))?;
        if row.get(0) {
            return Ok(Self { was_empty: true, place: target.to_owned() });
        }
        let typed = columns.iter().map(|(name, sql_type)| format!("{name} {sql_type}, "));
        let sql = format!(
            "CREATE TEMPORARY TABLE complete ({}{REASON} text, epoch bigint, updated_at timestamptz)
             ON COMMIT DROP",
            typed.collect::<String>()
        );
        client.batch_execute(&sql).await.map_err(failed(DOING))?;
        Ok(Self { was_empty: false, place: "pg_temp.complete".to_owned() })
    }

    async fn copy(&self, client: &Client, columns: &[(String, &'static str)]) -> Result<Copy> {
        let (place, plain) = (&self.place, names("", columns));
        let sql = format!("COPY {place} ({plain}, epoch, updated_at) FROM STDIN (FORMAT binary)");
        Copy::begin(client, &sql, columns.len() + 2).await
    }

    async fn analyze(&self, client: &Client) -> Result<()> {
        client.batch_execute("ANALYZE pg_temp.complete").await.map_err(failed(DOING))
    }

    async fn end(&self, client: &Client) -> Result<()> {
        if self.was_empty {
            return Ok(());
        }
        client.batch_execute("DROP TABLE pg_temp.complete").await.map_err(failed(DOING))
    }
}

/// Notes the first rows; deletes, updates and inserts cells. Parameters of each: epoch, instant, reason, which
/// holds where a cell has none of its own.
fn cell_statements(schema: &Identifier, columns: &[(String, &'static str)]) -> [String; 4] {
    let (plain, ours, theirs) = (names("", columns), names("v.", columns), names("t.", columns));
    let log = format!(
        "INSERT INTO {schema}.changes (epoch, cell, indicator, old_numerator, old_denominator, old_median,
                                       new_numerator, new_denominator, new_median, revision, reason, at)
         SELECT $1::bigint, cell, indicator, old_numerator, old_denominator, old_median,
                numerator, denominator, median, revision, coalesce({REASON}, $3::text), $2::timestamptz"
    );
    let none = "NULL::bigint AS old_numerator, NULL::bigint AS old_denominator,
                NULL::double precision AS old_median";
    let was_empty = format!(
        "WITH logged AS ({log} FROM (SELECT *, {none}, NULL::text AS {REASON}
                                       FROM {schema}.indicator_values) w RETURNING 1)
         SELECT count(*) FROM logged"
    );
    let leave = statements::leave(schema);
    let delete = format!(
        "WITH written AS (
             DELETE FROM {schema}.indicator_values v
              WHERE NOT EXISTS (SELECT FROM pg_temp.complete t WHERE t.cell = v.cell)
             RETURNING v.cell, v.indicator, v.numerator AS old_numerator,
                       v.denominator AS old_denominator, v.median AS old_median,
                       NULL::bigint AS numerator, NULL::bigint AS denominator,
                       NULL::double precision AS median, v.revision + 1 AS revision,
                       NULL::text AS {REASON}),
         gone AS ({leave}),
         logged AS ({log} FROM written)
         SELECT count(*) FROM written"
    );
    let set: String = columns[1..].iter().map(|(name, _)| format!("{name} = t.{name}, ")).collect();
    let update = format!(
        "WITH different AS (
             SELECT v.cell, v.numerator AS old_numerator, v.denominator AS old_denominator,
                    v.median AS old_median,
                    (v.numerator, v.denominator, v.median)
                        IS DISTINCT FROM (t.numerator, t.denominator, t.median) AS is_revised
               FROM {schema}.indicator_values v JOIN pg_temp.complete t ON t.cell = v.cell
              WHERE ({ours}) IS DISTINCT FROM ({theirs})),
         written AS (
             UPDATE {schema}.indicator_values v
                SET {set}revision = v.revision + d.is_revised::integer,
                    epoch = t.epoch, updated_at = t.updated_at
               FROM pg_temp.complete t JOIN different d ON d.cell = t.cell WHERE v.cell = t.cell
             RETURNING v.cell, v.indicator, d.old_numerator, d.old_denominator, d.old_median,
                       v.numerator, v.denominator, v.median, v.revision, t.{REASON}, d.is_revised),
         logged AS ({log} FROM written WHERE is_revised)
         SELECT count(*) FROM written"
    );
    let insert = format!(
        "WITH back AS (
             DELETE FROM {schema}.tonle_left l USING pg_temp.complete t
              WHERE l.cell = t.cell
                AND NOT EXISTS (SELECT FROM {schema}.indicator_values v WHERE v.cell = l.cell)),
         written AS (
             INSERT INTO {schema}.indicator_values ({plain}, revision, epoch, updated_at)
             SELECT {theirs}, coalesce(l.revision, 0) + 1, t.epoch, t.updated_at
               FROM pg_temp.complete t LEFT JOIN {schema}.tonle_left l ON l.cell = t.cell
              WHERE NOT EXISTS (SELECT FROM {schema}.indicator_values v WHERE v.cell = t.cell)
             RETURNING cell, indicator, {none}, numerator, denominator, median, revision),
         logged AS ({log} FROM (SELECT w.*, t.{REASON} FROM written w
                                  JOIN pg_temp.complete t ON t.cell = w.cell) w)
         SELECT count(*) FROM written"
    );
    [was_empty, delete, update, insert]
}

/// Deletes, updates and inserts rows of an extract. The key is the first column.
fn row_statements(target: &str, columns: &[(String, &'static str)]) -> [String; 3] {
    let (plain, ours, theirs) = (names("", columns), names("v.", columns), names("t.", columns));
    let key = &columns[0].0;
    let set: String = columns[1..].iter().map(|(name, _)| format!("{name} = t.{name}, ")).collect();
    [
        format!(
            "DELETE FROM {target} v
              WHERE NOT EXISTS (SELECT FROM pg_temp.complete t WHERE t.{key} = v.{key})"
        ),
        format!(
            "UPDATE {target} v SET {set}epoch = t.epoch, updated_at = t.updated_at
               FROM pg_temp.complete t
              WHERE t.{key} = v.{key} AND ROW({ours}) IS DISTINCT FROM ROW({theirs})"
        ),
        format!(
            "INSERT INTO {target} ({plain}, epoch, updated_at)
             SELECT {theirs}, t.epoch, t.updated_at FROM pg_temp.complete t
              WHERE NOT EXISTS (SELECT FROM {target} v WHERE v.{key} = t.{key})"
        ),
    ]
}
