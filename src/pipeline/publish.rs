//! Committing an epoch: tried again while Postgres is away, corrected when the tables are not what they should be.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant as Stopwatch};

use super::gather::HOUSEKEEPING_INTERVAL;
use super::standing::Visible;
use super::{Debt, Meta, Pipeline, Progress};
use crate::crash::{self, Step};
use crate::error::{Error, Kind, Result};
use crate::model::{Changes, Durable, Logged, Reason};
use crate::report::{self, Event};
use crate::sink::{RowCounts, Sink};

/// First wait before a failed write is tried again; each further wait is twice as long.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);

/// Longest wait between two attempts.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a run that ends by itself waits for a Postgres that is away.
const ONCE_PATIENCE: Duration = Duration::from_secs(60);

/// Attempts that failed, for one piece of work.
struct Patience {
    attempts: u32,
    since: Stopwatch,
    wait: Duration,
}

impl Patience {
    fn new() -> Self {
        Self { attempts: 0, since: Stopwatch::now(), wait: RETRY_WAIT_MIN }
    }
}

impl Pipeline<'_> {
    /// Writes what an epoch changed. False when a stop came before it could be committed.
    pub(super) async fn publish(
        &mut self,
        logged: &Logged,
        meta: Meta,
        changes: &Changes,
        watch: Stopwatch,
    ) -> Result<bool> {
        let reason = meta.reason(changes);
        let epoch_meta = meta.epoch_meta(reason, self.standing.today());
        let mut patience = Patience::new();
        let (durable, rows) = loop {
            let plan = &*self.plan;
            match self.sink.write(logged, epoch_meta, changes, plan).await {
                Ok(written) => break written,
                Err(error) if error.kind() == Kind::DataDiffers => {
                    let debt = Debt::reconcile(error.to_string());
                    return Box::pin(self.rebuild(logged, meta, Visible::default(), &debt)).await;
                }
                Err(error) => {
                    if !self.wait_for_postgres(error, &mut patience).await? {
                        return Ok(false);
                    }
                }
            }
        };
        self.recovered(&patience);
        self.acknowledge(durable, reason, changes, rows, watch)?;
        Ok(true)
    }

    /// Makes the tables equal to `complete`. False when a stop came before it could be committed.
    pub(super) async fn reconcile(
        &mut self,
        logged: &Logged,
        meta: Meta,
        complete: &Changes,
        debt: &Debt,
        watch: Stopwatch,
    ) -> Result<bool> {
        let first = meta.reason.filter(|r| *r == Reason::FirstLoad && !self.is_behind);
        // Nothing changed for those who read tables that were empty, and a debt may be more than its occasion.
        let known = match self.owed.as_ref().unwrap_or(debt).reason {
            Reason::Several => meta.reason(complete),
            known => known,
        };
        let reason = first.unwrap_or(if self.committed.0 == 0 { Reason::Reconcile } else { known });
        let meta = meta.epoch_meta(reason, self.standing.today());
        let mut patience = Patience::new();
        let (durable, counts) = loop {
            let plan = &*self.plan;
            match self.sink.reconcile(logged, meta, complete, plan).await {
                Ok(written) => break written,
                Err(error) => {
                    if !self.wait_for_postgres(error, &mut patience).await? {
                        return Ok(false);
                    }
                }
            }
        };
        self.recovered(&patience);
        let rows = counts.total();
        report::emit(&Event::Reconciled {
            why: &debt.why,
            rows: rows.total(),
            took: watch.elapsed(),
        });
        (self.owed, self.is_behind) = (None, false);
        self.is_described = false;
        self.erasing.restored = true;
        self.acknowledge(durable, reason, complete, rows, watch)?;
        Ok(true)
    }

    fn acknowledge(
        &mut self,
        durable: Durable,
        reason: Reason,
        changes: &Changes,
        rows: RowCounts,
        watch: Stopwatch,
    ) -> Result<()> {
        let epoch = durable.epoch();
        self.committed = epoch;
        self.state.commit(durable)?;
        crash::point(Step::EpochAcknowledged);
        let (cases, took) = (changes.tally.changed(), watch.elapsed());
        let held = self.standing.record_count();
        self.board.committed(epoch, cases, rows.total(), held, &self.options.metrics);
        report::emit(&Event::EpochWritten { epoch, cases, rows: rows.total(), took });
        (self.options.observe)(&Progress::Committed {
            epoch,
            reason,
            cases,
            cells: rows.cells,
            rows,
            took,
            newest: self.board.newest(),
            complete: self.standing.all_released(),
        });
        Ok(())
    }

    /// After a failed attempt: waits, or says why waiting is no use. False when a stop was asked for.
    async fn wait_for_postgres(&mut self, error: Error, patience: &mut Patience) -> Result<bool> {
        let tired = self.options.once && patience.since.elapsed() > ONCE_PATIENCE;
        if !error.kind().may_pass() || tired {
            return Err(error);
        }
        patience.attempts += 1;
        let metrics = &self.options.metrics;
        metrics.unwell("Postgres does not take epochs");
        metrics.sink_retries.fetch_add(1, Relaxed);
        let (attempt, wait) = (patience.attempts, patience.wait);
        report::emit(&Event::SinkRetried { attempt, wait, error: &error });
        patience.wait = (patience.wait * 2).min(RETRY_WAIT_MAX);
        self.options.metrics.turned();
        Ok(tokio::select! {
            biased;
            _ = self.options.stop.wait_for(|stop| *stop) => false,
            () = tokio::time::sleep(wait) => true,
        })
    }

    fn recovered(&self, patience: &Patience) {
        if patience.attempts > 0 {
            report::emit(&Event::SinkRecovered { attempts: patience.attempts });
        }
    }

    /// Fills the tables that say what rows mean, when that may have changed. A failure costs labels, no figures:
    /// it is tried again when the loop next keeps house.
    pub(super) async fn describe(&mut self) {
        if self.is_described || self.committed.0 == 0 {
            return;
        }
        let dictionary = self.interner.read(Clone::clone);
        let labels = self.board.all_labels(&self.plan);
        let tree = self.standing.tree();
        let catalog = self.plan.catalog();
        match self.sink.describe(catalog, &tree, &dictionary, &labels).await {
            Ok(_) => self.is_described = true,
            Err(error) => {
                let wait = HOUSEKEEPING_INTERVAL;
                if error.kind() == Kind::DataDiffers {
                    self.owed.get_or_insert(Debt::reconcile(error.to_string()));
                }
                report::emit(&Event::SinkRetried { attempt: 1, wait, error: &error });
            }
        }
    }

    /// Connects anew for the columns of the present plan.
    pub(super) async fn reopen_sink(&mut self) -> Result<()> {
        let mut patience = Patience::new();
        loop {
            let pipeline = self.state.pipeline_id().0;
            let opened = async {
                let mut sink = Sink::open(self.config.sink.clone(), self.plan.catalog()).await?;
                sink.keep(self.run, pipeline).await?;
                Ok(sink)
            };
            match opened.await {
                Ok(sink) => {
                    self.sink = sink;
                    return Ok(());
                }
                Err(error) => {
                    if !self.wait_for_postgres(error, &mut patience).await? {
                        return Err(asked_to_end());
                    }
                }
            }
        }
    }
}

/// The error of a start that was asked to end before the tables show what is in the log.
pub(super) fn asked_to_end() -> Error {
    let what = "ending: the program was asked to before Postgres had all that is in the log";
    Error::new(Kind::Temporary, what).advise("the next start writes it")
}
