//! The tables, looked at beside whoever writes them. **Invariant:** nothing here can write; Postgres sees to it.

mod outlook;

use std::fmt::Write as _;

use tokio_postgres::{Client, Row};

use super::cell_key::CellKeys;
use super::connection::{RECONCILE_STATEMENT_MS_MAX, connect, failed};
use super::encode::Uuid;
use super::identifier::{Identifier, literal};
use super::tables::VALUES;
use super::{Position, RunId, Settings, schema_name};
use crate::error::{Error, Kind, Result};
use crate::indicator::{Catalog, CellText, Fingerprint, Naming};
use crate::model::{Changes, Day, Epoch};

use outlook::Outlooker;

pub use outlook::{Fate, IndicatorOutlook, Outlook, RowsOutlook};

const DOING: &str = "looking at the tables";

/// A connection that can only read.
pub struct Look {
    client: Client,
    schema: Identifier,
}

/// A cell as the table shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The figure, as [`figure_text`] writes it.
    pub figure: String,
    /// How often it was written.
    pub revision: i32,
    /// Whether its period is not over.
    pub provisional: bool,
    /// The epoch that wrote it last.
    pub epoch: Epoch,
}

/// One change of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The epoch that made it.
    pub epoch: Epoch,
    /// When that was closed, as Postgres writes it, in UTC.
    pub at: String,
    /// Why.
    pub reason: String,
    /// Before; none where the cell did not exist.
    pub old: Option<String>,
    /// After; none where it left.
    pub new: Option<String>,
}

impl Look {
    /// Connects. Nothing is made or brought up to date.
    ///
    /// # Errors
    /// Unavailable when Postgres does not answer, Permission when it refuses.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let schema = schema_name(settings)?;
        let client = connect(&settings.address).await?;
        let read_only = "SET default_transaction_read_only = on; SET enable_seqscan = on";
        client.batch_execute(read_only).await.map_err(failed(DOING))?;
        Ok(Self { client, schema })
    }

    /// What the tables hold; none when nothing was ever committed to them.
    ///
    /// # Errors
    /// Whatever Postgres answers.
    pub async fn position(&self) -> Result<Option<Position>> {
        let schema = &self.schema;
        let table = literal(&format!("{schema}.tonle_pipeline"));
        let present = format!("SELECT to_regclass({table}) IS NOT NULL");
        let row = self.client.query_one(&present, &[]).await.map_err(failed(DOING))?;
        if !row.get::<_, bool>(0) {
            return Ok(None);
        }
        let sql = format!(
            "SELECT epoch, fingerprint, uuid_send(run_id), uuid_send(pipeline_id), pack, {}, {}, {}
               FROM {schema}.tonle_pipeline p WHERE epoch > 0 AND fingerprint IS NOT NULL",
            of_later_version("instances_fingerprint"),
            of_later_version("places_fingerprint"),
            of_later_version("agencies_fingerprint"),
        );
        let row = self.client.query_opt(&sql, &[]).await.map_err(failed(DOING))?;
        let Some(row) = row else { return Ok(None) };
        let number = |index| row.get::<_, i64>(index).cast_unsigned();
        let id = |bytes: Option<Vec<u8>>| Some(u128::from_be_bytes(bytes?.try_into().ok()?));
        Ok(Some(Position {
            epoch: Epoch(row.get::<_, i64>(0).cast_unsigned()),
            fingerprint: Fingerprint {
                packs: number(1),
                instances: number(5),
                places: number(6),
                agencies: number(7),
            },
            run: RunId(id(row.get(2)).ok_or_else(|| Error::bug("a run id is not 16 bytes"))?),
            pipeline: id(row.get(3)),
            pack: row.get(4),
        }))
    }

    /// How the tables would have to change to become those of `catalog` and hold `complete`, as of one moment.
    ///
    /// # Errors
    /// Config for names that cannot be in Postgres, else whatever it answers.
    pub async fn outlook(
        &mut self,
        catalog: &Catalog,
        complete: &Changes,
        naming: &dyn Naming,
        today: Option<Day>,
        examples_max: usize,
    ) -> Result<Outlook> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
             SET LOCAL statement_timeout = {RECONCILE_STATEMENT_MS_MAX}"
        );
        self.client.batch_execute(&begin).await.map_err(failed(DOING))?;
        let position = self.position().await;
        let (client, schema) = (&self.client, &self.schema);
        let looker = Outlooker { client, schema, catalog, naming, today, examples_max };
        let outlook = match position {
            Ok(position) => looker.run(position, complete).await,
            Err(error) => Err(error),
        };
        self.client.batch_execute("ROLLBACK").await.map_err(failed(DOING))?;
        outlook
    }

    /// A cell as it stands, and its last changes, the newest first.
    ///
    /// # Errors
    /// DataDiffers when the tables are of an older version, else whatever Postgres answers.
    pub async fn cell(
        &self,
        catalog: &Catalog,
        cell: &CellText<'_>,
        changes_max: u32,
    ) -> Result<(Option<Shown>, Vec<Told>)> {
        let key = Uuid(CellKeys::new(catalog).key(cell));
        let schema = &self.schema;
        let sql = format!(
            "SELECT numerator, denominator, median, revision, provisional, epoch
               FROM {schema}.{VALUES} WHERE cell = $1"
        );
        let row = self.client.query_opt(&sql, &[&key]).await.map_err(failed(DOING))?;
        let shown = row.as_ref().map(|row| Shown {
            figure: figure_text(row.get(0), row.get(1), row.get(2)),
            revision: row.get(3),
            provisional: row.get(4),
            epoch: Epoch(row.get::<_, i64>(5).cast_unsigned()),
        });
        let sql = format!(
            "SELECT epoch, at::timestamptz(0)::text, reason, old_numerator, old_denominator, old_median,
                    new_numerator, new_denominator, new_median
               FROM {schema}.changes WHERE cell = $1 ORDER BY epoch DESC LIMIT {changes_max}"
        );
        let rows = self.client.query(&sql, &[&key]).await.map_err(failed(DOING))?;
        Ok((shown, rows.iter().map(told).collect()))
    }
}

/// The error for tables to which nothing was ever committed.
pub fn nothing_committed(doing: &str) -> Error {
    let what = format!("{doing}: nothing was committed to the tables yet");
    Error::new(Kind::DataDiffers, what).advise("start `tonle run` first")
}

fn told(row: &Row) -> Told {
    let figure = |at: usize| {
        let numerator: Option<i64> = row.get(at);
        numerator.map(|numerator| figure_text(numerator, row.get(at + 1), row.get(at + 2)))
    };
    Told {
        epoch: Epoch(row.get::<_, i64>(0).cast_unsigned()),
        at: row.get(1),
        reason: row.get(2),
        old: figure(3),
        new: figure(6),
    }
}

/// A figure for people: `12`, `3/10`, `40/8, median 4.5`.
pub fn figure_text(numerator: i64, denominator: Option<i64>, median: Option<f64>) -> String {
    let mut text = numerator.to_string();
    if let Some(denominator) = denominator {
        write!(text, "/{denominator}").expect("writing to a string never fails");
    }
    if let Some(median) = median {
        write!(text, ", median {median}").expect("writing to a string never fails");
    }
    text
}

/// A number of the row `p` in a column that tables of an older version do not have yet; 0 there.
fn of_later_version(column: &str) -> String {
    format!("coalesce((to_jsonb(p)->>'{column}')::bigint, 0)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_shows_all_its_parts() {
        assert_eq!(figure_text(12, None, None), "12");
        assert_eq!(figure_text(3, Some(10), None), "3/10");
        assert_eq!(figure_text(40, Some(8), Some(4.5)), "40/8, median 4.5");
    }
}
