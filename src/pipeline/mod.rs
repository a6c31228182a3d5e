//! The loop: what the sources hand on enters the log, the dataflow and the tables, epoch by epoch.
//!
//! The only module that knows source, dataflow, sink and state. **Invariant:** log(e) durable → rows(e) committed
//! in Postgres → acknowledged(e) → snapshot and pruning ≤ e. [`Logged`] and [`Durable`](crate::model::Durable)
//! are the proofs that one step hands to the next, so the steps cannot be written in another order.

mod asked;
mod expected;
mod compact;
mod erase;
mod erasures;
mod explain;
mod foresee;
mod gather;
mod glance;
mod labels;
mod overview;
/// Comparison with the figures of Primero's own reports.
pub mod parity;
mod publish;
mod rehearse;
mod repair;
mod sightings;
mod standing;
mod start;
mod status;
mod verify;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::crash::{self, Step};
use crate::dataflow::{Dataflow, Input};
use crate::error::Result;
use crate::indicator::Plan;
use crate::model::{
    Changes, Code, Day, Epoch, EpochInput, Instant, Interner, Logged, Reason, Sums,
};
use crate::report::{self, Event, Metrics};
use crate::sink::{EpochMeta, RowCounts, RunId, Sink};
use crate::source;
use crate::state::{SnapshotContent, SnapshotWritten, State};

use erasures::Erasing;
use gather::{Gathered, HOUSEKEEPING_INTERVAL};
use sightings::Sightings;
use standing::{Standing, Visible};
use status::Board;

pub use compact::{Compacted, compact};
pub use erase::{Erasure, erase};
pub use explain::{Explained, explain};
pub use foresee::{Foreseen, foresee};
pub use overview::{InstanceState, Overview, export, import, overview};
pub use rehearse::{Rehearsed, rehearse, rehearse_shipped};
pub use repair::{Repaired, repair};
pub use start::compile;
pub use verify::{Verified, verify};

/// Batches that wait between the sources and the loop; a full channel slows the sources.
const EVENTS_WAITING_MAX: usize = 8;

/// What the caller decides.
pub struct Options<'a> {
    /// End when every instance was read up to now.
    pub once: bool,
    /// Becomes true when the program should end.
    pub stop: watch::Receiver<bool>,
    /// What is counted on the way.
    pub metrics: Arc<Metrics>,
    /// Told of every step, for people who watch.
    pub observe: Box<dyn FnMut(&Progress) + 'a>,
}

/// A step of the pipeline, for people who watch.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the facts of a variant are named as they are written")]
pub enum Progress {
    /// Records of an instance that is not published yet were read.
    Loading { instance: String, records: u64 },
    /// The tables are being brought up to the state.
    Computing { records: u64 },
    /// An epoch is committed.
    Committed {
        epoch: Epoch,
        reason: Reason,
        cases: u64,
        cells: u64,
        rows: RowCounts,
        took: Duration,
        newest: Option<Instant>,
        /// Whether every instance is published.
        complete: bool,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything that was read is committed.
    Finished(Epoch),
    /// Epochs after this one are in the log and not in Postgres; the next start writes them.
    Abandoned(Epoch),
}

/// A running pipeline.
pub struct Pipeline<'a> {
    config: Config,
    options: Options<'a>,
    state: State,
    sink: Sink,
    dataflow: Dataflow,
    plan: Arc<Plan>,
    interner: Interner,
    standing: Standing,
    sightings: Sightings,
    board: Board,
    /// The last epoch that was given a number.
    epoch: Epoch,
    /// The last epoch that is in Postgres.
    committed: Epoch,
    /// This run, which took the tables over when it started.
    run: RunId,
    /// Whether the tables may show records that this state does not know: they were written from another
    /// state directory, or from a later state of this one.
    is_behind: bool,
    /// Whether the tables that say what rows mean are up to date.
    is_described: bool,
    /// Why the tables must be compared with the state before anything else is written to them.
    owed: Option<Debt>,
    events: mpsc::Receiver<source::Event>,
    /// An event that has to wait for the next epoch.
    set_aside: Option<source::Event>,
    /// Sources that have not ended.
    sources_running: usize,
    /// Records that were erased, and those that are to be.
    erasing: Erasing,
    /// Instances that were read up to now since the program started.
    caught_up: BTreeSet<Code>,
    stop_sources: watch::Sender<bool>,
}

/// Why everything is computed anew and compared with the tables.
#[derive(Clone, Debug)]
struct Debt {
    /// For the operator.
    why: String,
    /// For those who read the tables.
    reason: Reason,
}

impl Debt {
    /// The tables do not agree with the state.
    fn reconcile(why: impl Into<String>) -> Self {
        Self { why: why.into(), reason: Reason::Reconcile }
    }

    /// Cases came of agencies that had no value yet; what else the epoch brought is written with them.
    fn agencies() -> Self {
        let why = "an agency was met for the first time".to_owned();
        Self { why, reason: Reason::Several }
    }

    fn places() -> Self {
        let why = "the places of an instance changed".to_owned();
        Self { why, reason: Reason::LocationChange }
    }
}

impl Pipeline<'_> {
    /// Runs until every source has ended or a stop is asked for.
    ///
    /// # Errors
    /// Whatever cannot be mended by trying again; everything that was read is in the log then.
    pub async fn run(mut self) -> Result<Ended> {
        let mut ended = self.turn_until_done().await;
        if let (Ok(Ended::Finished(_)), true) = (&ended, self.options.once) {
            ended = self.end_erasures().await.map(|()| Ended::Finished(self.committed));
        }
        self.stop_sources.send_replace(true);
        crash::point(Step::Ending);
        // An error too: whoever reads the tables must see that nobody follows the instances any more.
        if !matches!(ended, Ok(Ended::Abandoned(_))) {
            self.describe().await;
            self.publish_status(true).await.ok();
        }
        crash::point(Step::Ended);
        if let Ok(Ended::Finished(epoch)) = ended {
            report::emit(&Event::Stopped { epoch });
        }
        ended
    }

    async fn turn_until_done(&mut self) -> Result<Ended> {
        let mut kept = Stopwatch::now();
        loop {
            match self.gather().await? {
                Gathered::Input(input) => {
                    crash::point(Step::EpochGathered);
                    self.keep_departures().await?;
                    if !self.turn(*input).await? {
                        return Ok(Ended::Abandoned(self.committed));
                    }
                    self.begin_snapshot_if_due()?;
                }
                Gathered::Idle => {}
                Gathered::Done => break,
            }
            if kept.elapsed() >= HOUSEKEEPING_INTERVAL {
                if !self.keep_erasures().await? {
                    return Ok(Ended::Abandoned(self.committed));
                }
                self.keep_house().await?;
                kept = Stopwatch::now();
            }
        }
        let was_asked = *self.options.stop.borrow();
        match self.board.take_failure().filter(|_| !was_asked) {
            Some(error) => Err(error),
            None if self.owed.is_some() => Ok(Ended::Abandoned(self.committed)),
            None => Ok(Ended::Finished(self.committed)),
        }
    }

    /// One epoch, from its input to its commit. False when a stop came before it could be committed.
    ///
    /// [`run`](Self::run) calls it with what the sources hand on; a benchmark hands epochs over by itself.
    ///
    /// # Errors
    /// Whatever cannot be mended by trying again.
    pub async fn turn(&mut self, input: EpochInput) -> Result<bool> {
        let watch = Stopwatch::now();
        let pending = self.state.append(&input, &self.interner)?; // from here on, a crash loses nothing
        self.epoch = input.epoch;
        let meta = Meta::of(&input);
        let visible = self.standing.absorb(input);
        crash::point(Step::EpochAbsorbed);
        if visible.places_changed {
            let logged = pending.wait()?;
            return self.rebuild(&logged, meta, visible, &Debt::places()).await;
        }
        if visible.is_empty() {
            let logged = pending.wait()?;
            return self.settle_debt(&logged, meta).await;
        }
        if self.interner.read(|dictionary| self.plan.lacks_agencies(dictionary)) {
            // A case of an agency that no plan knows yet: the new plan has a value for it.
            let logged = pending.wait()?;
            return self.rebuild(&logged, meta, visible, &Debt::agencies()).await;
        }
        let changes = meta.overrule(self.dataflow.advance(visible.into_input())?); // pure
        self.standing.count(&changes.held);
        crash::point(Step::EpochComputed);
        let logged = pending.wait()?;
        crash::point(Step::EpochLogged);
        if self.owed.is_some() {
            return self.settle_debt(&logged, meta).await;
        }
        self.publish(&logged, meta, &changes, watch).await
    }

    /// Compares the tables with the state, once everything that they hold can be known.
    async fn settle_debt(&mut self, logged: &Logged, meta: Meta) -> Result<bool> {
        match self.owed.clone().filter(|_| self.may_settle()) {
            Some(debt) => self.rebuild(logged, meta, Visible::default(), &debt).await,
            None => Ok(true),
        }
    }

    /// Computes everything anew from the records and what an epoch makes visible of them, and writes what differs
    /// from the tables.
    async fn rebuild(
        &mut self,
        logged: &Logged,
        meta: Meta,
        visible: Visible,
        debt: &Debt,
    ) -> Result<bool> {
        crash::point(Step::RebuildBegun);
        let watch = Stopwatch::now();
        let records = self.dataflow.records()?;
        let tally = standing::tally_of(&records, &visible.changes);
        // Of two versions of one record the later holds.
        let mut changes = standing::as_changes(records.into_sorted());
        changes.extend(visible.changes);
        (self.options.observe)(&Progress::Computing { records: changes.len() as u64 });
        self.plan = compile(&self.config, &self.standing.tree(), &self.interner)?;
        self.dataflow = Dataflow::start(Arc::clone(&self.plan), self.config.workers)?;
        let today = self.standing.today();
        let mut complete = self.dataflow.advance(Input { changes, today })?;
        complete.recomputed(tally);
        self.standing.recount(&complete.held);
        self.state.lacks_sums(); // what the newest snapshot has is of another plan, or was found to be wrong
        crash::point(Step::RebuildComputed);
        self.reopen_sink().await?;
        if self.owed.is_some() && !self.may_settle() {
            return Ok(true);
        }
        self.reconcile(logged, meta, &complete, debt, watch).await
    }

    /// What is due now and then: a snapshot, the status rows. [`run`](Self::run) calls it; a benchmark does by itself.
    ///
    /// # Errors
    /// Whatever cannot be mended by trying again.
    pub async fn keep_house(&mut self) -> Result<()> {
        self.options.metrics.turned();
        self.describe().await;
        if let Some(outcome) = self.state.snapshot_finished() {
            self.snapshot_ended(outcome.is_ok()).await?;
            let records = self.standing.record_count();
            match outcome {
                Ok(SnapshotWritten { epoch, bytes, took }) => {
                    report::emit(&Event::SnapshotWritten { epoch, records, bytes, took });
                }
                // The log has everything, so the stream goes on; what that costs is disk, and time at a restart.
                Err(error) => report::emit(&Event::SnapshotFailed { error: &error }),
            }
        }
        if self.owed.is_none() && self.committed.0 > 0 && self.compaction_is_due()? {
            if !self.state.is_writing_snapshot() {
                if !self.level().await? {
                    return Ok(()); // a stop was asked for
                }
                self.begin_compaction()?;
            }
        } else {
            self.begin_snapshot_if_due()?;
        }
        self.publish_status(false).await
    }

    /// Asked after each epoch, for a snapshot is of a commit: an epoch behind it that brought nothing to write has
    /// moved the cursors on, and there may be one whenever the loop keeps house.
    fn begin_snapshot_if_due(&mut self) -> Result<()> {
        if self.state.wants_snapshot() && !self.erasing.rests() {
            self.begin_snapshot()?;
        }
        Ok(())
    }

    /// Begins a snapshot of the last epoch, whether it pays or not; false when the tables do not show that epoch, or
    /// while another one is being written.
    ///
    /// # Errors
    /// When the log cannot be ended, or a worker died.
    pub fn begin_snapshot(&mut self) -> Result<bool> {
        let is_level = self.owed.is_none() && self.committed == self.epoch;
        if !is_level || self.state.is_writing_snapshot() {
            return Ok(false);
        }
        let content = self.snapshot_content()?;
        self.state.snapshot(content)?;
        Ok(true)
    }

    fn snapshot_content(&mut self) -> Result<SnapshotContent> {
        let (records, cells) = self.dataflow.held()?;
        let (basis, today) = (self.plan.basis(), self.standing.today());
        Ok(SnapshotContent {
            epoch: self.committed,
            records,
            sums: today.map(|today| Sums { basis, today, cells }),
            deferred: self.standing.deferred().clone(),
            cursors: self.standing.cursors().clone(),
            today,
            locations: self.standing.locations().clone(),
            dictionary: self.interner.clone(),
        })
    }
}

/// What an epoch says about itself before it is computed.
#[derive(Clone, Copy, Debug)]
struct Meta {
    at: Instant,
    /// The reason, where the input alone tells it.
    reason: Option<Reason>,
    has_tick: bool,
}

impl Meta {
    fn of(input: &EpochInput) -> Self {
        let has_records = input.arrivals.iter().any(|arrival| !arrival.deferred);
        let is_backfill = input.arrivals.iter().any(|arrival| arrival.is_backfill);
        let reason = match (input.released.is_empty(), has_records, input.today) {
            _ if is_backfill => Some(Reason::PackChange), // an epoch of nothing else
            (false, false, _) => Some(Reason::FirstLoad),
            (true, false, Some(_)) => Some(Reason::Clock),
            (false, true, _) => Some(Reason::Several),
            _ => None,
        };
        Self { at: input.at, reason, has_tick: input.today.is_some() }
    }

    /// What a pack asks for anew looks like a correction of each case, which it is not.
    fn overrule(&self, mut changes: Changes) -> Changes {
        if self.reason == Some(Reason::PackChange) {
            changes.cells.iter_mut().for_each(|change| change.reason = None);
        }
        changes
    }

    /// The reason once the changes are known.
    fn reason(&self, changes: &Changes) -> Reason {
        let reason = self.reason.or_else(|| changes.tally.reason().filter(|_| !self.has_tick));
        reason.unwrap_or(Reason::Several)
    }

    fn epoch_meta(&self, reason: Reason, today: Option<Day>) -> EpochMeta {
        EpochMeta { at: self.at, reason, today, has_tick: self.has_tick }
    }
}
