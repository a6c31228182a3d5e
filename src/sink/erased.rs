//! Erasures that were asked for, and the tombstones that outlive them.

use std::fmt::Write as _;

use super::Sink;
use super::connection::failed;
use crate::error::Result;
use crate::model::Tombstone;

const DOING: &str = "keeping account of erasures";

/// A tombstone in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Of which record.
    pub tombstone: Tombstone,
    /// Whether no table and no state file holds the record any more.
    pub is_done: bool,
}

impl Sink {
    /// All erasures.
    ///
    /// # Errors
    /// Whatever Postgres answers.
    pub async fn erasures(&mut self) -> Result<Vec<Erasure>> {
        self.read_erasures("").await
    }

    /// The erasures that are not done.
    ///
    /// # Errors
    /// Whatever Postgres answers.
    pub async fn erasures_due(&mut self) -> Result<Vec<Tombstone>> {
        let due = self.read_erasures("WHERE done_at IS NULL").await?;
        Ok(due.into_iter().map(|erasure| erasure.tombstone).collect())
    }

    async fn read_erasures(&mut self, which: &str) -> Result<Vec<Erasure>> {
        self.reconnect().await?;
        let sql = format!(
            "SELECT uuid_send(tombstone), done_at IS NOT NULL FROM {}.tonle_erased {which}
              ORDER BY tombstone",
            self.schema
        );
        let rows = self.client.query(&sql, &[]).await.map_err(failed(DOING))?;
        let erasure = |row: &tokio_postgres::Row| {
            let bytes: Vec<u8> = row.get(0);
            let tombstone = Tombstone(u128::from_be_bytes(bytes.try_into().ok()?));
            Some(Erasure { tombstone, is_done: row.get(1) })
        };
        Ok(rows.iter().filter_map(erasure).collect())
    }

    /// Asks for erasures; those that were done before are done again.
    ///
    /// # Errors
    /// Whatever Postgres answers.
    pub async fn ask_erasures(&mut self, tombstones: &[Tombstone]) -> Result<()> {
        self.put_erasures(tombstones, "DO UPDATE SET asked_at = now(), done_at = NULL").await
    }

    /// Adds erasures that the tables have lost; they are done again.
    ///
    /// # Errors
    /// Whatever Postgres answers.
    pub async fn keep_erasures(&mut self, tombstones: &[Tombstone]) -> Result<()> {
        self.put_erasures(tombstones, "DO NOTHING").await
    }

    /// Forgets tombstones of records that are there again.
    ///
    /// # Errors
    /// Whatever Postgres answers.
    pub async fn forget_erasures(&mut self, tombstones: &[Tombstone]) -> Result<()> {
        self.reconnect().await?;
        let sql = format!(
            "DELETE FROM {}.tonle_erased WHERE tombstone = ANY({}) AND {}",
            self.schema,
            array(tombstones),
            self.may_write()
        );
        self.client.batch_execute(&sql).await.map_err(failed(DOING))
    }

    async fn put_erasures(&mut self, tombstones: &[Tombstone], known: &str) -> Result<()> {
        if tombstones.is_empty() {
            return Ok(());
        }
        self.reconnect().await?;
        let sql = format!(
            "INSERT INTO {}.tonle_erased (tombstone) SELECT unnest({}) WHERE {}
             ON CONFLICT (tombstone) {known}",
            self.schema,
            array(tombstones),
            self.may_write()
        );
        self.client.batch_execute(&sql).await.map_err(failed(DOING))
    }

    /// Notes that erasures are done in the state of `pipeline`; nothing is noted when the tables belong to another by
    /// now. What the rows were is freed in the tables as well, as far as Postgres can do that while others read; that
    /// it cannot is no failure.
    ///
    /// # Errors
    /// Whatever Postgres answers.
    pub async fn erasures_done(&mut self, tombstones: &[Tombstone], pipeline: u128) -> Result<()> {
        if tombstones.is_empty() {
            return Ok(());
        }
        self.reconnect().await?;
        let schema = &self.schema;
        for extract in &self.layout.extracts {
            let _ = self.client.batch_execute(&format!("VACUUM {schema}.{}", extract.table)).await;
        }
        let sql = format!(
            "UPDATE {schema}.tonle_erased SET done_at = now()
              WHERE tombstone = ANY({}) AND done_at IS NULL AND {}
                AND EXISTS (SELECT FROM {schema}.tonle_pipeline
                             WHERE pipeline_id = '{pipeline:032x}' FOR SHARE)",
            array(tombstones),
            self.may_write()
        );
        self.client.batch_execute(&sql).await.map_err(failed(DOING))
    }

    /// That no other run has taken over from this one, as a condition; whoever only asks never owned the tables.
    fn may_write(&self) -> String {
        self.owned.map_or("true".to_owned(), |owned| {
            format!(
                "EXISTS (SELECT FROM {}.tonle_pipeline WHERE run_id = '{:032x}' FOR SHARE)",
                self.schema, owned.run.0
            )
        })
    }
}

/// As Postgres reads it; nothing in it needs quoting.
fn array(tombstones: &[Tombstone]) -> String {
    let mut text = "'{".to_owned();
    for (index, Tombstone(number)) in tombstones.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(text, "{comma}{number:032x}").expect("writing to a string never fails");
    }
    text + "}'::uuid[]"
}
