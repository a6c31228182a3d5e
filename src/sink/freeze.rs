//! Stores the published figures of a period once, so that later differences stay visible beside them.
//!
//! It works beside a running pipeline, which never touches frozen figures.

use tokio_postgres::Client;

use super::connection::{RECONCILE_STATEMENT_MS_MAX, connect, failed};
use super::encode::Date;
use super::identifier::{Identifier, literal};
use super::step_two::dimensions;
use super::tables::{FROZEN, FROZEN_DIFFERENCES, VALUES};
use super::{Settings, schema_name};
use crate::error::{Error, Kind, Result};
use crate::model::{Day, Period};

/// A frozen period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// The period, as it is written.
    pub period: String,
    /// When it was frozen, as Postgres writes it.
    pub at: String,
    /// How many figures were stored.
    pub figures: u64,
    /// Whether it was not over yet.
    pub provisional: bool,
}

const DOING: &str = "freezing a period";

/// Copies the figures of `period` as the tables show them at one moment; returns how many.
///
/// # Errors
/// DataDiffers when the period is frozen already, is not over and `even_provisional` is false, or when the
/// tables hold no figure of it; else whatever Postgres answers.
pub async fn freeze(settings: &Settings, period: Period, even_provisional: bool) -> Result<u64> {
    let schema = schema_name(settings)?;
    let Some(start) = period.start() else {
        return Err(Error::config(format!("{DOING}: {period} begins before any figure")));
    };
    let client = connect(&settings.address).await?;
    ready(&client, &schema).await?;
    // The lock comes first: the figures are then read as they are when nobody else freezes any more.
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ;
         SET LOCAL statement_timeout = {RECONCILE_STATEMENT_MS_MAX}; SET LOCAL enable_seqscan = on;
         LOCK TABLE {schema}.{FROZEN} IN SHARE ROW EXCLUSIVE MODE"
    );
    client.batch_execute(&begin).await.map_err(failed(DOING))?;
    let found = figures(&client, &schema, period, start).await?;
    if let Some(before) = frozen_periods(&client, &schema, Some(period)).await?.first() {
        return Err(Error::new(
            Kind::DataDiffers,
            format!("{DOING}: {period} was frozen at {}, and is frozen only once", before.at),
        )
        .advise(format!(
            "the view {FROZEN_DIFFERENCES} shows what changed since; whoever may can delete the rows of \
             {period} from {FROZEN} and freeze it again"
        )));
    }
    if found.count == 0 {
        return Err(Error::new(
            Kind::DataDiffers,
            format!("{DOING}: no figure of {period} is there"),
        )
        .advise("indicator_values names the types and first days of the published periods"));
    }
    if found.is_provisional && !even_provisional {
        return Err(Error::new(Kind::DataDiffers, format!("{DOING}: {period} is not over yet"))
            .advise("wait for its end, or freeze it as it is with --provisional"));
    }
    let stored = store(&client, &schema, period, start).await?;
    client.batch_execute("COMMIT").await.map_err(failed(DOING))?;
    Ok(stored)
}

/// The periods that are frozen, by name.
///
/// # Errors
/// DataDiffers when the tables are not there or are of an older version, else whatever Postgres answers.
pub async fn frozen(settings: &Settings) -> Result<Vec<Frozen>> {
    let schema = schema_name(settings)?;
    let client = connect(&settings.address).await?;
    ready(&client, &schema).await?;
    frozen_periods(&client, &schema, None).await
}

/// This command changes no tables: an older program may be writing to them.
async fn ready(client: &Client, schema: &Identifier) -> Result<()> {
    let present = |table: &str| format!("to_regclass({})", literal(&format!("{schema}.{table}")));
    let (values, frozen) = (present(VALUES), present(FROZEN));
    let sql = format!("SELECT {values} IS NOT NULL, {frozen} IS NOT NULL");
    let row = client.query_one(&sql, &[]).await.map_err(failed(DOING))?;
    if row.get(0) && row.get(1) {
        return Ok(());
    }
    let what = "the tables are not there yet, or were made by an older version";
    Err(Error::new(Kind::DataDiffers, format!("{DOING}: {what}"))
        .advise("start `tonle run` of this version first"))
}

struct Found {
    count: i64,
    is_provisional: bool,
}

async fn figures(
    client: &Client,
    schema: &Identifier,
    period: Period,
    start: Day,
) -> Result<Found> {
    let sql = format!(
        "SELECT count(*), coalesce(bool_or(provisional), false) FROM {schema}.{VALUES}
         WHERE period_type = $1 AND period_start = $2"
    );
    let row = client.query_one(&sql, &[&period.period_type().name(), &Date(start)]).await;
    let row = row.map_err(failed(DOING))?;
    Ok(Found { count: row.get(0), is_provisional: row.get(1) })
}

async fn store(client: &Client, schema: &Identifier, period: Period, start: Day) -> Result<u64> {
    let dimensions = dimensions("v");
    let sql = format!(
        "INSERT INTO {schema}.{FROZEN} (period, frozen_at, epoch, cell, indicator, instance,
             period_type, period_start, dimensions, numerator, denominator, median, value, revision,
             provisional)
         SELECT $1::text, now(), p.epoch, v.cell, v.indicator, v.instance, v.period_type,
                v.period_start, {dimensions}, v.numerator, v.denominator, v.median, v.value,
                v.revision, v.provisional
           FROM {schema}.{VALUES} v CROSS JOIN {schema}.tonle_pipeline p
          WHERE v.period_type = $2 AND v.period_start = $3"
    );
    let name = period.to_string();
    let stored = client.execute(&sql, &[&name, &period.period_type().name(), &Date(start)]).await;
    stored.map_err(failed(DOING))
}

async fn frozen_periods(
    client: &Client,
    schema: &Identifier,
    only: Option<Period>,
) -> Result<Vec<Frozen>> {
    let sql = format!(
        "SELECT period, min(frozen_at)::timestamptz(0)::text, count(*), bool_or(provisional)
           FROM {schema}.{FROZEN} WHERE $1::text IS NULL OR period = $1 GROUP BY period ORDER BY period"
    );
    let only = only.map(|period| period.to_string());
    let rows = client.query(&sql, &[&only]).await.map_err(failed("reading what is frozen"))?;
    let frozen = rows.iter().map(|row| Frozen {
        period: row.get(0),
        at: row.get(1),
        figures: row.get::<_, i64>(2).cast_unsigned(),
        provisional: row.get(3),
    });
    Ok(frozen.collect())
}
