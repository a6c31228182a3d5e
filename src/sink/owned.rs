//! The one row that says which run may write, and what it committed last.

use tokio_postgres::Client;

use super::connection::failed;
use super::encode::Uuid;
use super::identifier::Identifier;
use super::layout::Layout;
use super::{Position, RunId, Sink, replaced};
use crate::crash::{self, Step};
use crate::error::{Error, Kind, Result};
use crate::indicator::Fingerprint;
use crate::model::Epoch;

/// How often taking over is tried again because another run did so at the same moment.
const TAKE_OVER_ATTEMPTS_MAX: u32 = 10;

/// What the tables hold, and the run that may write to them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owned {
    pub(super) run: RunId,
    /// The state directory this process writes from; not what the tables were written from so far.
    pub(super) pipeline: u128,
    pub(super) epoch: Epoch,
    /// None until something was committed.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// The part of an update of that row that says what the rows follow from now on.
pub(super) fn following(layout: &Layout) -> String {
    let Fingerprint { packs, instances, places, agencies } = layout.fingerprint;
    let [packs, instances, places, agencies] =
        [packs, instances, places, agencies].map(u64::cast_signed);
    format!(
        "fingerprint = {packs}, instances_fingerprint = {instances}, places_fingerprint = {places},
         agencies_fingerprint = {agencies}"
    )
}

/// What the row says now.
pub(super) async fn read_pipeline(client: &Client, schema: &Identifier) -> Result<Option<Owned>> {
    read(client, schema, "").await
}

/// What it says once a transaction has ended that is moving the fence, such as that of a connection that was lost.
pub(super) async fn read_settled_pipeline(
    client: &Client,
    schema: &Identifier,
) -> Result<Option<Owned>> {
    read(client, schema, "FOR SHARE").await
}

async fn read(client: &Client, schema: &Identifier, lock: &str) -> Result<Option<Owned>> {
    let sql = format!(
        "SELECT epoch, uuid_send(run_id), fingerprint, coalesce(instances_fingerprint, 0),
                coalesce(places_fingerprint, 0), coalesce(agencies_fingerprint, 0) FROM {schema}.tonle_pipeline {lock}"
    );
    let row = client.query_opt(&sql, &[]).await.map_err(failed("reading the position"))?;
    let Some(row) = row else { return Ok(None) };
    let (epoch, run): (i64, Vec<u8>) = (row.get(0), row.get(1));
    let number = |index| row.get::<_, i64>(index).cast_unsigned();
    let fingerprint = row.get::<_, Option<i64>>(2).map(|packs| Fingerprint {
        packs: packs.cast_unsigned(),
        instances: number(3),
        places: number(4),
        agencies: number(5),
    });
    let run = run.try_into().map_err(|_| Error::bug("a run id is not 16 bytes"))?;
    Ok(Some(Owned {
        run: RunId(u128::from_be_bytes(run)),
        pipeline: 0,
        epoch: Epoch(epoch.cast_unsigned()),
        fingerprint,
    }))
}

impl Sink {
    /// Makes `run` the one that may write, and returns what the tables hold. From here on every other run
    /// fails at its next epoch. `pipeline` names the state directory of the run; the tables bear its name from the
    /// first commit that makes them wholly its own: the first epoch into empty tables, or a reconcile.
    ///
    /// # Errors
    /// Whatever Postgres answers.
    pub async fn take_over(&mut self, run: RunId, pipeline: u128) -> Result<Option<Position>> {
        for _ in 0..TAKE_OVER_ATTEMPTS_MAX {
            self.reconnect().await?;
            let before = read_pipeline(&self.client, &self.schema).await?;
            if self.claim(run, pipeline, before.map_or(run, |row| row.run)).await? {
                crash::point(Step::FenceClaimed);
                return self.position().await;
            }
        }
        Err(Error::new(Kind::Temporary, "taking over the tables: others did so all the time"))
    }

    /// The same for a run that took over before, with another connection: never from a run that came later.
    ///
    /// # Errors
    /// Config when another run has taken over, else whatever Postgres answers.
    pub async fn keep(&mut self, run: RunId, pipeline: u128) -> Result<Option<Position>> {
        self.reconnect().await?;
        if self.claim(run, pipeline, run).await? { self.position().await } else { Err(replaced()) }
    }

    /// Makes `run` the one that may write if none or `before` is it so far. Postgres may get to the statement
    /// of a program when that is long dead: then it must not take the tables from the one that came after.
    async fn claim(&mut self, run: RunId, pipeline: u128, before: RunId) -> Result<bool> {
        let schema = &self.schema;
        let sql = format!(
            "INSERT INTO {schema}.tonle_pipeline AS p (run_id) VALUES ($1)
             ON CONFLICT (only_row) DO UPDATE SET run_id = $1, written_at = now()
                                        WHERE p.run_id = $2"
        );
        let (after, before) = (Uuid(run.to_bytes()), Uuid(before.to_bytes()));
        let doing = failed("taking over the tables");
        let claimed = self.client.execute(&sql, &[&after, &before]).await.map_err(&doing)?;
        if claimed == 0 {
            return Ok(false);
        }
        let row = read_pipeline(&self.client, &self.schema).await?;
        self.owned = row.filter(|row| row.run == run).map(|row| Owned { pipeline, ..row });
        Ok(self.owned.is_some())
    }
}
