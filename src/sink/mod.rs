//! Writes changed rows to Postgres, one epoch per transaction. The only module that knows SQL.
//!
//! **Invariants:** an epoch is visible whole or not at all; an epoch is written once, however often it is
//! handed over; exactly the rows that changed are written, and the transaction ends without effect when the
//! tables do not hold what the epoch says they held; a copy of the program that was replaced writes nothing.

mod address;
mod cell_key;
mod check;
mod compare;
mod connection;
mod describe;
mod encode;
mod erased;
mod freeze;
mod headline;
mod identifier;
mod labels;
mod layout;
pub mod look;
mod mend;
mod owned;
mod reconcile;
mod request;
mod rows;
mod schema;
mod statements;
mod step_two;
mod tables;
mod views;
mod wide;
mod write;

use std::fmt;

use tokio_postgres::{Client, Statement};

use self::cell_key::CellKeys;
use self::connection::failed;
use self::describe::Meaning;
use self::encode::Uuid;
use self::identifier::Identifier;
use self::layout::Layout;
use self::owned::{Owned, following, read_pipeline, read_settled_pipeline};
use self::reconcile::Reconciler;
use self::statements::Statements;
use self::write::{EpochWriter, Head};
use crate::crash::{self, Step};
use crate::error::{Error, Kind, Result};
use crate::indicator::{Catalog, Fingerprint, Naming, OptionText};
use crate::model::{
    Changes, Day, Dictionary, Durable, Epoch, Instant, LocationTree, Logged, Reason,
};

pub use self::address::{Address, Protection};
pub use self::check::{Check, MAJOR_VERSION_MAX, MAJOR_VERSION_MIN, check};
pub use self::compare::Comparison;
pub use self::describe::InstanceStatus;
pub use self::erased::Erasure;
pub use self::freeze::{Frozen, freeze, frozen};
pub use self::headline::{Headline, headlines};
pub use self::reconcile::ReconcileCounts;

/// One run of the program, from start to end; the newest run that took over may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(pub u128);

impl RunId {
    fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

/// Where the tables are.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database.
    pub address: Address,
    /// The schema that holds the tables.
    pub schema: String,
}

/// What the tables hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The last committed epoch.
    pub epoch: Epoch,
    /// What the rows follow.
    pub fingerprint: Fingerprint,
    /// The run that may write.
    pub run: RunId,
    /// The state directory that the rows were written from.
    pub pipeline: Option<u128>,
    /// The pack and overlays that the rows follow, for people.
    pub pack: String,
}

/// Rows that a transaction wrote, as counted and checked by Postgres.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows added.
    pub inserted: u64,
    /// Rows changed.
    pub updated: u64,
    /// Rows removed.
    pub deleted: u64,
    /// How many of all of them are cells.
    pub cells: u64,
}

impl RowCounts {
    /// All written rows.
    pub fn total(&self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}

/// What an epoch says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochMeta {
    /// When it was closed; the `updated_at` of its rows.
    pub at: Instant,
    /// Why rows change, where a change does not say it itself.
    pub reason: Reason,
    /// The day of the last clock tick; figures of a period are provisional until the period ended before it.
    pub today: Option<Day>,
    /// Whether that tick is part of this epoch.
    pub has_tick: bool,
}

/// The tables in Postgres.
pub struct Sink {
    settings: Settings,
    schema: Identifier,
    client: Client,
    /// Names of the catalog that this process follows.
    layout: Layout,
    keys: CellKeys,
    statements: Option<Statements>,
    status_statement: Option<Statement>,
    /// The epoch of a reconcile whose outcome is not known.
    in_doubt: Option<Epoch>,
    /// What the tables are known to hold; none before [`take_over`](Self::take_over).
    owned: Option<Owned>,
    /// A call was given up half-way, so nobody knows what the connection is in the middle of.
    is_unsettled: bool,
}

impl Sink {
    /// Connects and makes the tables that are missing. Columns change only with a reconcile.
    ///
    /// # Errors
    /// Config for a name that cannot be, Unavailable when Postgres does not answer, Permission when it refuses.
    pub async fn open(settings: Settings, catalog: &Catalog) -> Result<Self> {
        let schema = schema_name(&settings)?;
        let layout = Layout::new(&schema, catalog)?;
        let mut client = connection::connect(&settings.address).await?;
        mend::tell(&schema::migrate(&mut client, &schema).await?);
        let keys = CellKeys::new(catalog);
        Ok(Self {
            settings,
            schema,
            client,
            layout,
            keys,
            statements: None,
            status_statement: None,
            in_doubt: None,
            owned: None,
            is_unsettled: false,
        })
    }

    /// Connects again when the connection was lost, and looks what was committed. Does nothing otherwise.
    ///
    /// # Errors
    /// Unavailable or Permission as in [`open`](Self::open), Config when another run has taken over, DataDiffers
    /// when the tables went back to an older epoch meanwhile.
    pub async fn reconnect(&mut self) -> Result<()> {
        if self.connect_again().await? {
            let what = "connecting again: the tables show an older epoch than before";
            return Err(Error::new(Kind::DataDiffers, what)
                .advise("they were restored from a backup; a reconcile puts them right"));
        }
        Ok(())
    }

    /// The same, whatever is found. True when the tables went back to an older epoch.
    async fn connect_again(&mut self) -> Result<bool> {
        if !self.client.is_closed() && !self.is_unsettled {
            return Ok(false);
        }
        self.client = connection::connect(&self.settings.address).await?;
        self.statements = None;
        self.status_statement = None;
        self.is_unsettled = true; // until it is known what was committed
        let Some(owned) = self.owned else {
            self.is_unsettled = false;
            return Ok(false);
        };
        let row = read_settled_pipeline(&self.client, &self.schema).await?;
        self.is_unsettled = false;
        match row {
            Some(row) if row.run == owned.run => {
                self.owned = Some(Owned { pipeline: owned.pipeline, ..row });
                Ok(row.epoch < owned.epoch)
            }
            _ => Err(replaced()),
        }
    }

    /// What the tables hold; none when nothing was ever committed.
    ///
    /// # Errors
    /// Whatever Postgres answers.
    pub async fn position(&mut self) -> Result<Option<Position>> {
        self.reconnect().await?;
        let Some(owned) = read_pipeline(&self.client, &self.schema).await? else { return Ok(None) };
        let Some(fingerprint) = owned.fingerprint.filter(|_| owned.epoch.0 > 0) else {
            return Ok(None);
        };
        let sql =
            format!("SELECT pack, uuid_send(pipeline_id) FROM {}.tonle_pipeline", self.schema);
        let row = self.client.query_one(&sql, &[]).await.map_err(failed("reading the position"))?;
        let pipeline: Option<Vec<u8>> = row.get(1);
        let pipeline = pipeline.and_then(|bytes| bytes.try_into().ok()).map(u128::from_be_bytes);
        let (epoch, run) = (owned.epoch, owned.run);
        Ok(Some(Position { epoch, fingerprint, run, pipeline, pack: row.get(0) }))
    }

    /// Whether the tables have the columns of this catalog, so that epochs can be written without a reconcile.
    pub fn follows_catalog(&self) -> bool {
        let fingerprint = self.owned.and_then(|owned| owned.fingerprint);
        fingerprint == Some(self.layout.fingerprint)
    }

    /// Writes one epoch in one transaction. An epoch that is already committed is not written again.
    ///
    /// # Errors
    /// DataDiffers when the tables do not hold what the epoch says they held: reconcile. Config when another
    /// run has taken over. Unavailable when the connection is lost: whether the epoch is committed is found
    /// out by calling again. Nothing is written in any of these cases but the last.
    pub async fn write(
        &mut self,
        logged: &Logged,
        meta: EpochMeta,
        changes: &Changes,
        naming: &dyn Naming,
    ) -> Result<(Durable, RowCounts)> {
        self.reconnect().await?;
        let owned = self.owned.ok_or_else(|| Error::bug("an epoch is written before take_over"))?;
        let epoch = logged.epoch();
        if epoch <= owned.epoch {
            return Ok((Durable::after_commit(epoch), RowCounts::default()));
        }
        self.prepare().await?;
        let statements = self.statements.as_ref().expect("prepared one line above");
        let head = Head::new(epoch, &owned, meta)?;
        let counts = write::count(changes);
        let (client, layout, keys) = (&self.client, &self.layout, &self.keys);
        let writer = EpochWriter { client, statements, layout, keys, naming, head };
        self.is_unsettled = true;
        let written = writer.write(changes, &counts).await;
        if let Err(error) = self.settle(written).await {
            return self.committed_before(epoch, &owned, error).await;
        }
        // The first epoch made the tables after `owned` was read.
        let fingerprint = Some(self.layout.fingerprint);
        self.owned = Some(Owned { epoch, fingerprint, ..owned });
        Ok((Durable::after_commit(epoch), counts))
    }

    /// The server may have gone on with a transaction whose connection was lost, and have committed it while
    /// it was sent again. Then the fence refuses the second one, and the row says that the first one won.
    async fn committed_before(
        &mut self,
        epoch: Epoch,
        owned: &Owned,
        error: Error,
    ) -> Result<(Durable, RowCounts)> {
        if error.kind() != Kind::Config || self.is_unsettled {
            return Err(error);
        }
        match read_pipeline(&self.client, &self.schema).await? {
            Some(row) if row.run == owned.run && row.epoch == epoch => {
                self.owned = Some(row);
                Ok((Durable::after_commit(epoch), RowCounts::default()))
            }
            _ => Err(error),
        }
    }

    /// Makes the tables equal to `complete`, whose cells and rows are all there is, and gives them the columns
    /// of the catalog. Only differences are written, in one transaction, with the true old values.
    ///
    /// # Errors
    /// Config when another run has taken over. A bug when the epoch is not after [`Position::epoch`]: numbers
    /// of epochs never come back, or `changes` would tell two stories under one number.
    pub async fn reconcile(
        &mut self,
        logged: &Logged,
        meta: EpochMeta,
        complete: &Changes,
        naming: &dyn Naming,
    ) -> Result<(Durable, ReconcileCounts)> {
        self.connect_again().await?; // whatever the tables show is what is corrected
        let owned = self.owned.ok_or_else(|| Error::bug("a reconcile before take_over"))?;
        let epoch = logged.epoch();
        if self.in_doubt == Some(epoch) && epoch == owned.epoch {
            self.in_doubt = None;
            return Ok((Durable::after_commit(epoch), ReconcileCounts::default()));
        }
        if epoch <= owned.epoch {
            let committed = owned.epoch;
            return Err(Error::bug(format!("reconciling epoch {epoch} after epoch {committed}")));
        }
        let head = Head::new(epoch, &owned, meta)?;
        let (client, layout, keys) = (&self.client, &self.layout, &self.keys);
        let reconciler = Reconciler { client, layout, keys, naming, head };
        self.is_unsettled = true;
        self.in_doubt = Some(epoch);
        let done = reconciler.run(complete).await;
        let counts = self.settle(done).await?;
        self.in_doubt = None;
        self.statements = None;
        let fingerprint = Some(self.layout.fingerprint);
        self.owned = Some(Owned { epoch, fingerprint, ..owned });
        self.analyze().await;
        Ok((Durable::after_commit(epoch), counts))
    }

    /// Gives the planner of whoever reads the tables the right picture after a large change. Everything is
    /// committed already, and the server does the same by itself later, so a failure is none.
    async fn analyze(&self) {
        let schema = &self.schema;
        let mut sql = format!("ANALYZE {schema}.indicator_values, {schema}.changes");
        for extract in &self.layout.extracts {
            sql.push_str(&format!(", {schema}.{}", extract.table));
        }
        let _ = self.client.batch_execute(&sql).await;
    }

    /// Compares the tables with `complete`, as of the clock tick `today`, and changes nothing.
    ///
    /// # Errors
    /// DataDiffers when the tables have the columns of another pack, else whatever Postgres answers.
    pub async fn compare(
        &mut self,
        complete: &Changes,
        today: Option<Day>,
        naming: &dyn Naming,
    ) -> Result<Comparison> {
        self.reconnect().await?;
        self.is_unsettled = true;
        let (client, layout, keys) = (&self.client, &self.layout, &self.keys);
        let found = compare::compare(client, layout, keys, complete, today, naming).await;
        self.settle(found).await
    }

    /// Fills `indicators`, `dimensions`, `options` and `locations`, writing only rows that differ. `labels` are
    /// options of the servers; they fill the languages that the catalog lacks.
    ///
    /// # Errors
    /// Config when another run has taken over, else whatever Postgres answers.
    pub async fn describe(
        &mut self,
        catalog: &Catalog,
        places: &LocationTree,
        dictionary: &Dictionary,
        labels: &[OptionText],
    ) -> Result<RowCounts> {
        self.reconnect().await?;
        let owned = self.owned.ok_or_else(|| Error::bug("rows are described before take_over"))?;
        let (is_followed, layout) = (self.follows_catalog(), &self.layout);
        let meaning = Meaning { catalog, places, dictionary, labels };
        describe::describe(&mut self.client, owned.run, layout, is_followed, &meaning).await
    }

    /// Inserts or updates the row of each instance in `sync_status`; returns how many were written, none when
    /// another run has taken over.
    ///
    /// # Errors
    /// Whatever Postgres answers.
    pub async fn status(&mut self, instances: &[InstanceStatus]) -> Result<u64> {
        self.reconnect().await?;
        let owned =
            self.owned.ok_or_else(|| Error::bug("the status is written before take_over"))?;
        if self.status_statement.is_none() {
            self.status_statement =
                Some(describe::prepare_status(&self.client, &self.schema).await?);
        }
        let statement = self.status_statement.as_ref().expect("prepared above");
        describe::status(&self.client, statement, owned.run, instances).await
    }

    /// After a transaction: the connection is free again, rolled back when something failed.
    async fn settle<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if outcome.is_ok() || self.client.batch_execute("ROLLBACK").await.is_ok() {
            self.is_unsettled = false;
        }
        outcome
    }

    /// Prepares the statements; makes the tables of the catalog when nothing was ever committed.
    async fn prepare(&mut self) -> Result<()> {
        if self.statements.is_some() {
            return Ok(());
        }
        let owned = self.owned.ok_or_else(|| Error::bug("statements are made before take_over"))?;
        if owned.epoch.0 == 0 && !self.follows_catalog() {
            self.first_tables(owned.run, owned.pipeline).await?;
            self.owned = Some(Owned { fingerprint: Some(self.layout.fingerprint), ..owned });
        }
        if !self.follows_catalog() {
            return Err(Error::new(Kind::DataDiffers, "the tables follow another pack")
                .advise("a reconcile changes them"));
        }
        self.statements = Some(Statements::prepare(&self.client, &self.layout).await?);
        Ok(())
    }

    async fn first_tables(&mut self, run: RunId, pipeline: u128) -> Result<()> {
        let fail = failed("making the tables of the pack");
        let transaction = self.client.transaction().await.map_err(&fail)?;
        schema::apply(&transaction, &self.layout).await?;
        let sql = format!(
            "UPDATE {}.tonle_pipeline SET {}, pack = $1, pipeline_id = $3
             WHERE run_id = $2 AND epoch = 0",
            self.schema,
            following(&self.layout)
        );
        let run = Uuid(run.to_bytes());
        let pipeline = Uuid(pipeline.to_be_bytes());
        let pack = &self.layout.pack;
        let moved = transaction.execute(&sql, &[pack, &run, &pipeline]).await;
        if moved.map_err(&fail)? != 1 {
            return Err(replaced());
        }
        crash::point(Step::TablesMade);
        transaction.commit().await.map_err(&fail)
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn schema_name(settings: &Settings) -> Result<Identifier> {
    let schema = Identifier::new(&settings.schema)?;
    if settings.schema.starts_with("pg_") || settings.schema == "information_schema" {
        return Err(Error::config(format!("the schema {schema} belongs to Postgres")));
    }
    Ok(schema)
}

fn replaced() -> Error {
    Error::config("another copy of tonle has taken over these tables")
        .advise("two copies of tonle write to this schema: stop one")
}
