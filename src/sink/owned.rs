//! The one row that says which run may write, and what it committed last.

use tokio_postgres::Client;

use super::RunId;
use super::connection::failed;
use super::identifier::Identifier;
use super::layout::Layout;
use crate::error::{Error, Result};
use crate::indicator::Fingerprint;
use crate::model::Epoch;

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

/// Waits for a transaction that is moving the fence, such as that of a connection that was lost.
pub(super) async fn read_pipeline(client: &Client, schema: &Identifier) -> Result<Option<Owned>> {
    let sql = format!(
        "SELECT epoch, uuid_send(run_id), fingerprint, coalesce(instances_fingerprint, 0),
                coalesce(places_fingerprint, 0), coalesce(agencies_fingerprint, 0) FROM {schema}.tonle_pipeline"
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
