//! One epoch as one transaction.

use std::collections::BTreeMap;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::cell_key::CellKeys;
use super::connection::failed;
use super::encode::{Array, CopyRows, Date, PutValue, Timestamp, Uuid};
use super::layout::Layout;
use super::request::{Parameters, Requests};
use super::rows::{Arrays, NamedCell, median, put_row};
use super::statements::{Statements, come_back, names};
use super::{EpochMeta, Owned, RowCounts, RunId};
use crate::crash::{self, Step};
use crate::error::{Error, Kind, Result};
use crate::indicator::Naming;
use crate::model::{
    CellChange, Changes, Day, Epoch, ExtractChange, Figure, Instant, Reason, Tally,
};

/// Rows of one statement with array parameters; a larger change is cut into several.
const ROWS_PER_STATEMENT: usize = 2_000;
/// From so many new rows of one table on, they are copied instead.
const COPY_ROWS_MIN: usize = 4_000;

/// The revision of a figure that was never there before.
const REVISION_FIRST: i32 = 1;

/// What is written with each row of an epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) epoch: i64,
    pub(super) previous: i64,
    pub(super) run: RunId,
    pub(super) pipeline: u128,
    pub(super) at: Instant,
    pub(super) reason: Reason,
    pub(super) today: Option<Day>,
    pub(super) has_tick: bool,
}

impl Head {
    pub(super) fn new(epoch: Epoch, owned: &Owned, meta: EpochMeta) -> Result<Self> {
        let (epoch, previous) = (stored(epoch)?, stored(owned.epoch)?);
        let Owned { run, pipeline, .. } = *owned;
        let EpochMeta { at, reason, today, has_tick } = meta;
        Ok(Self { epoch, previous, run, pipeline, at, reason, today, has_tick })
    }
}

/// An epoch as Postgres stores it.
fn stored(epoch: Epoch) -> Result<i64> {
    i64::try_from(epoch.0).map_err(|_| Error::bug(format!("epoch {epoch} does not fit bigint")))
}

/// What happens to a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Inserted,
    Updated,
    Deleted,
    Untouched,
}

fn fate_of_cell(change: &CellChange) -> Fate {
    match (change.old.is_empty(), change.new.is_empty()) {
        (true, false) => Fate::Inserted,
        (false, true) => Fate::Deleted,
        (false, false) if change.old != change.new => Fate::Updated,
        _ => Fate::Untouched,
    }
}

fn fate_of_row(change: &ExtractChange) -> Fate {
    match (change.existed, change.row.is_some()) {
        (false, true) => Fate::Inserted,
        (true, false) => Fate::Deleted,
        (true, true) => Fate::Updated,
        (false, false) => Fate::Untouched,
    }
}

/// How many rows the changes touch.
pub(super) fn count(changes: &Changes) -> RowCounts {
    let mut counts = RowCounts::default();
    let cells = changes.cells.iter().map(fate_of_cell);
    for fate in cells.chain(changes.rows.iter().map(fate_of_row)) {
        match fate {
            Fate::Inserted => counts.inserted += 1,
            Fate::Updated => counts.updated += 1,
            Fate::Deleted => counts.deleted += 1,
            Fate::Untouched => {}
        }
    }
    let changed = |change: &&CellChange| fate_of_cell(change) != Fate::Untouched;
    counts.cells = changes.cells.iter().filter(changed).count() as u64;
    counts
}

/// Writes one epoch. The caller rolls back when it fails.
pub(super) struct EpochWriter<'a> {
    pub(super) client: &'a Client,
    pub(super) statements: &'a Statements,
    pub(super) layout: &'a Layout,
    pub(super) keys: &'a CellKeys,
    pub(super) naming: &'a dyn Naming,
    pub(super) head: Head,
}

impl EpochWriter<'_> {
    /// Everything from `BEGIN` to `COMMIT`, in one round trip unless there is much to write.
    pub(super) async fn write(&self, changes: &Changes, counts: &RowCounts) -> Result<()> {
        let mut requests = Requests::new(self.client, "writing an epoch");
        requests.plain("BEGIN").await;
        requests.pass(Step::EpochBegun).await?;
        self.fence(&mut requests, changes, counts).await;
        requests.pass(Step::EpochFenced).await?;
        self.cells(&mut requests, &changes.cells).await?;
        let mut rest = changes.rows.as_slice();
        while let Some(first) = rest.first() {
            let length = rest.partition_point(|change| change.extract <= first.extract);
            let (rows, tail) = rest.split_at(length.max(1));
            self.rows(&mut requests, first.extract, rows).await?;
            rest = tail;
        }
        self.settle(&mut requests).await;
        requests.pass(Step::EpochWritten).await?;
        requests.plain("COMMIT").await;
        requests.settle().await?;
        crash::point(Step::EpochCommitted);
        Ok(())
    }

    async fn fence(&self, requests: &mut Requests<'_>, changes: &Changes, counts: &RowCounts) {
        let head = &self.head;
        let payload = payload(head.epoch, &self.touched(changes));
        let parameters = fence_parameters(head, changes.tally, counts, payload);
        requests.prepared(&self.statements.fence, parameters).await;
    }

    /// After a clock tick: the periods that ended are no longer provisional.
    async fn settle(&self, requests: &mut Requests<'_>) {
        let Some(today) = self.head.today.filter(|_| self.head.has_tick) else { return };
        let parameters: Parameters = vec![
            Box::new(Date(today)),
            Box::new(self.head.epoch),
            Box::new(Timestamp(self.head.at)),
        ];
        requests.prepared(&self.statements.settle, parameters).await;
    }

    /// Names of the tables that an epoch may change.
    fn touched(&self, changes: &Changes) -> Vec<&str> {
        let mut tables = Vec::new();
        if !changes.cells.is_empty() || self.head.has_tick {
            tables.push(super::tables::VALUES);
        }
        for (index, extract) in self.layout.extracts.iter().enumerate() {
            if changes.rows.iter().any(|row| usize::from(row.extract) == index) {
                tables.push(extract.table.name());
            }
        }
        tables
    }

    /// Changes of one reason together, because a statement knows one reason.
    async fn cells(&self, requests: &mut Requests<'_>, cells: &[CellChange]) -> Result<()> {
        let mut groups: BTreeMap<Reason, Vec<&CellChange>> = BTreeMap::new();
        for change in cells {
            groups.entry(change.reason.unwrap_or(self.head.reason)).or_default().push(change);
        }
        for (reason, changes) in groups {
            self.cells_of(requests, reason, &changes).await?;
        }
        Ok(())
    }

    async fn cells_of(
        &self,
        requests: &mut Requests<'_>,
        reason: Reason,
        changes: &[&CellChange],
    ) -> Result<()> {
        let of = |fate| changes.iter().copied().filter(move |c| fate_of_cell(c) == fate);
        let updated: Vec<_> = of(Fate::Updated).collect();
        for chunk in updated.chunks(ROWS_PER_STATEMENT) {
            let mut arrays = Figures::new(2);
            for change in chunk {
                arrays.push(&self.named(change)?, &[change.old, change.new]);
            }
            let parameters = self.logged(arrays.0, reason, chunk.len());
            requests.prepared(&self.statements.update, parameters).await;
        }
        let deleted: Vec<_> = of(Fate::Deleted).collect();
        for chunk in deleted.chunks(ROWS_PER_STATEMENT) {
            let mut arrays = Figures::new(1);
            for change in chunk {
                arrays.push(&self.named(change)?, &[change.old]);
            }
            let parameters = self.logged(arrays.0, reason, chunk.len());
            requests.prepared(&self.statements.delete, parameters).await;
        }
        let inserted: Vec<_> = of(Fate::Inserted).collect();
        if inserted.len() >= COPY_ROWS_MIN {
            requests.settle().await?;
            return self.copy_cells(reason, &inserted).await;
        }
        for chunk in inserted.chunks(ROWS_PER_STATEMENT) {
            let mut arrays = Arrays::of_cells(self.layout);
            for change in chunk {
                self.named(change)?.put(&mut arrays, change.new, self.head.today);
            }
            let parameters = self.logged(arrays.0, reason, chunk.len());
            requests.prepared(&self.statements.insert, parameters).await;
        }
        Ok(())
    }

    fn named(&self, change: &CellChange) -> Result<NamedCell<'_>> {
        NamedCell::of(change.cell, self.naming, self.keys, self.layout)
    }

    /// Arrays, then epoch, instant, reason and the number of rows.
    fn logged(&self, arrays: Vec<Array>, reason: Reason, count: usize) -> Parameters {
        let mut parameters = boxed(arrays);
        parameters.push(Box::new(self.head.epoch));
        parameters.push(Box::new(Timestamp(self.head.at)));
        parameters.push(Box::new(reason.name()));
        parameters.push(Box::new(count as i64));
        parameters
    }

    /// Copies new cells and their changes straight into their tables.
    async fn copy_cells(&self, reason: Reason, inserted: &[&CellChange]) -> Result<()> {
        let (schema, columns) = (&self.layout.schema, self.layout.value_columns());
        let plain = names("", &columns);
        let head = &self.head;
        let sql = format!(
            "COPY {schema}.indicator_values ({plain}, epoch, updated_at) FROM STDIN (FORMAT binary)"
        );
        let mut copy = Copy::begin(self.client, &sql, columns.len() + 2).await?;
        let mut keys = Vec::with_capacity(inserted.len());
        for change in inserted {
            let cell = self.named(change)?;
            cell.put(copy.row().await?, change.new, head.today);
            copy.rows.bigint(head.epoch);
            copy.rows.instant(head.at);
            keys.push(cell.key);
        }
        copy.end(inserted.len()).await?;
        let sql = format!(
            "COPY {schema}.changes (epoch, cell, indicator, new_numerator, new_denominator, new_median,
                                    revision, reason, at)
             FROM STDIN (FORMAT binary)"
        );
        let mut copy = Copy::begin(self.client, &sql, 9).await?;
        for (change, key) in inserted.iter().zip(keys) {
            let text = self.naming.cell(change.cell);
            let cell = NamedCell { key, text };
            let row = copy.row().await?;
            row.bigint(head.epoch);
            row.key(cell.key);
            row.text(cell.text.indicator);
            row.bigint(change.new.numerator);
            row.optional(cell.denominator(change.new), PutValue::bigint);
            row.optional(median(change.new), PutValue::double);
            row.integer(REVISION_FIRST);
            row.text(reason.name());
            row.instant(head.at);
        }
        copy.end(inserted.len()).await?;
        crash::point(Step::CellsCopied);
        let back = come_back(schema, head.epoch);
        self.client.batch_execute(&back).await.map_err(failed(COPYING))
    }

    /// Writes the changed rows of one extract.
    async fn rows(
        &self,
        requests: &mut Requests<'_>,
        index: u16,
        rows: &[ExtractChange],
    ) -> Result<()> {
        let at = usize::from(index);
        let (Some(extract), Some(statements)) =
            (self.layout.extracts.get(at), self.statements.extracts.get(at))
        else {
            return Err(Error::bug(format!("extract {index} is not in the catalog")));
        };
        let of = |fate| rows.iter().filter(move |change| fate_of_row(change) == fate);
        let deleted: Vec<_> = of(Fate::Deleted).collect();
        for chunk in deleted.chunks(ROWS_PER_STATEMENT) {
            let mut keys = Array::new(Type::UUID);
            chunk.iter().for_each(|change| keys.push(|array| array.key(change.key.to_bytes())));
            let parameters: Parameters = vec![Box::new(keys), Box::new(chunk.len() as i64)];
            requests.prepared(&statements.delete, parameters).await;
        }
        let updated: Vec<_> = of(Fate::Updated).collect();
        let mut inserted: Vec<_> = of(Fate::Inserted).collect();
        if inserted.len() >= COPY_ROWS_MIN {
            requests.settle().await?;
            self.copy_rows(index, extract, &inserted).await?;
            inserted.clear();
        }
        for (statement, rows) in [(&statements.update, &updated), (&statements.insert, &inserted)] {
            for chunk in rows.chunks(ROWS_PER_STATEMENT) {
                let mut arrays = Arrays::of_rows(extract);
                for change in chunk {
                    let row = change.row.as_deref().unwrap_or_default();
                    put_row(&mut arrays, extract, change.key, &self.naming.row(index, row))?;
                }
                let mut parameters = boxed(arrays.0);
                parameters.push(Box::new(self.head.epoch));
                parameters.push(Box::new(Timestamp(self.head.at)));
                parameters.push(Box::new(chunk.len() as i64));
                requests.prepared(statement, parameters).await;
            }
        }
        Ok(())
    }

    async fn copy_rows(
        &self,
        index: u16,
        extract: &super::layout::ExtractLayout,
        inserted: &[&ExtractChange],
    ) -> Result<()> {
        let columns = extract.key_and_columns();
        let (schema, table, plain) = (&self.layout.schema, &extract.table, names("", &columns));
        let sql = format!(
            "COPY {schema}.{table} ({plain}, epoch, updated_at) FROM STDIN (FORMAT binary)"
        );
        let mut copy = Copy::begin(self.client, &sql, columns.len() + 2).await?;
        for change in inserted {
            let values = self.naming.row(index, change.row.as_deref().unwrap_or_default());
            put_row(copy.row().await?, extract, change.key, &values)?;
            copy.rows.bigint(self.head.epoch);
            copy.rows.instant(self.head.at);
        }
        copy.end(inserted.len()).await
    }
}

/// Keys with figures as arrays: key, then numerator, denominator and median of each figure.
struct Figures(Vec<Array>);

impl Figures {
    fn new(figures: usize) -> Self {
        let columns = [Type::INT8, Type::INT8, Type::FLOAT8];
        let each = std::iter::repeat_n(columns, figures).flatten();
        Self(std::iter::once(Type::UUID).chain(each).map(Array::new).collect())
    }

    fn push(&mut self, cell: &NamedCell<'_>, figures: &[Figure]) {
        self.0[0].push(|array| array.key(cell.key));
        for (columns, figure) in self.0[1..].chunks_mut(3).zip(figures) {
            columns[0].push(|array| array.bigint(figure.numerator));
            columns[1].push(|array| array.optional(cell.denominator(*figure), PutValue::bigint));
            columns[2].push(|array| array.optional(median(*figure), PutValue::double));
        }
    }
}

/// The parameters of the statement that moves the fence.
pub(super) fn fence_parameters(
    head: &Head,
    tally: Tally,
    counts: &RowCounts,
    payload: String,
) -> Parameters {
    let mut parameters: Parameters = vec![
        Box::new(head.epoch),
        Box::new(head.previous),
        Box::new(Uuid(head.run.to_bytes())),
        Box::new(Timestamp(head.at)),
        Box::new(head.reason.name()),
    ];
    let numbers = [tally.added, tally.corrected, tally.disabled, tally.changed(), counts.cells];
    for number in numbers.into_iter().chain([counts.inserted, counts.updated, counts.deleted]) {
        parameters.push(Box::new(i64::try_from(number).unwrap_or(i64::MAX)));
    }
    parameters.push(Box::new(payload));
    parameters
}

/// What listeners are told: the epoch and the tables, nothing else.
pub(super) fn payload(epoch: i64, tables: &[&str]) -> String {
    serde_json::json!({ "epoch": epoch, "tables": tables }).to_string()
}

fn boxed(arrays: Vec<Array>) -> Parameters {
    arrays.into_iter().map(|array| Box::new(array) as Box<dyn ToSql + Sync + Send>).collect()
}

/// A binary COPY into one table.
pub(super) struct Copy {
    sink: Pin<Box<tokio_postgres::CopyInSink<Bytes>>>,
    pub(super) rows: CopyRows,
}

const COPYING: &str = "copying rows";

impl Copy {
    pub(super) async fn begin(client: &Client, sql: &str, columns: usize) -> Result<Self> {
        let sink = client.copy_in(sql).await.map_err(failed(COPYING))?;
        Ok(Self { sink: Box::pin(sink), rows: CopyRows::new(columns) })
    }

    /// Begins a row; sends what has gathered before it when that is much.
    pub(super) async fn row(&mut self) -> Result<&mut CopyRows> {
        if let Some(chunk) = self.rows.full() {
            self.sink.feed(chunk).await.map_err(failed(COPYING))?;
        }
        Ok(self.rows.row())
    }

    /// Ends the copy and checks that Postgres took every row.
    pub(super) async fn end(self, expected: usize) -> Result<()> {
        let Self { mut sink, rows } = self;
        sink.feed(rows.end()).await.map_err(failed(COPYING))?;
        let taken = sink.as_mut().finish().await.map_err(failed(COPYING))?;
        if taken != expected as u64 {
            let doing = format!("{COPYING}: Postgres took {taken} of {expected}");
            return Err(Error::new(Kind::DataDiffers, doing));
        }
        Ok(())
    }
}
