//! Erasure: what was asked for leaves the tables with an epoch of its own, then the files of the state, and never
//! comes back.
//!
//! Tombstones are kept twice, in the tables and beside the log: a backup of one of them that is older than an erasure
//! is put right by the other. A record that is gone from its server leaves one too, before it leaves: should the state
//! be restored from an older backup, the tables know better than it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant as Stopwatch};

use super::compact::snapshot_end;
use super::{Debt, Meta, Pipeline};
use crate::crash::{self, Step};
use crate::error::{Kind, Result};
use crate::model::{
    Arrival, Changes, Code, EpochInput, Reason, RecordChange, RecordKey, Tombstone,
};
use crate::report::{self, Event};
use crate::sink::Sink;
use crate::source::Erased;
use crate::state::{Restored, State};

/// How often the tables are asked whether an erasure was asked for.
const ERASURES_LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How long after a snapshot that failed the next one is tried.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(60);

/// Erasures under way.
pub(super) struct Erasing {
    /// What was erased, shared with the sources.
    pub(super) erased: Erased,
    /// Asked for and not done; the records are out of the tables.
    due: BTreeSet<Tombstone>,
    /// Those of them that the compaction being written makes true.
    compacting: Option<BTreeSet<Tombstone>>,
    /// Visible records that have to leave.
    held: Vec<(Code, RecordKey)>,
    /// Of records that are gone from their server, with the next epoch.
    departed: Vec<Tombstone>,
    /// The same that the state keeps and the tables were not told yet.
    untold: Vec<Tombstone>,
    /// Of records that were gone and are there again.
    returned: Vec<Tombstone>,
    /// Whether the tables may have lost tombstones, because they did not agree with the state.
    pub(super) restored: bool,
    looked: Option<Stopwatch>,
    failed: Option<Stopwatch>,
}

impl Erasing {
    /// Brings the tombstones of tables and state together, and takes out of what was restored whatever they name. With
    /// `is_shown` the tables show the restored records: those leave with an epoch. A state that does not agree with the
    /// tables may come from a backup that holds what was erased, whatever its own tombstones say.
    pub(super) async fn begin(
        erased: Erased,
        state: &mut State,
        sink: &mut Sink,
        restored: &mut Restored,
        agrees: bool,
        is_shown: bool,
    ) -> Result<Self> {
        let kept = state.erased()?;
        let in_tables = sink.erasures().await?;
        let told: BTreeSet<_> = in_tables.iter().map(|erasure| erasure.tombstone).collect();
        let lost: Vec<_> = kept.difference(&told).copied().collect();
        sink.keep_erasures(&lost).await?;
        // What this state never knew of may still be in its files. It is due again before the state knows of it, so
        // that no crash makes it forgotten.
        let news: Vec<_> = told.difference(&kept).copied().collect();
        let again = if agrees { news.clone() } else { told.iter().copied().collect() };
        sink.ask_erasures(&again).await?;
        crash::point(Step::ErasuresCompared);
        let all: BTreeSet<_> = kept.union(&told).copied().collect();
        if all != kept {
            state.keep_erased(&all)?;
        }
        erased.add(all.iter().copied());
        let due = in_tables.iter().filter(|erasure| !erasure.is_done);
        let mut due: BTreeSet<_> = due.map(|erasure| erasure.tombstone).collect();
        due.extend(news);
        let departed = due.clone();
        due.extend(again);
        due.extend(lost);
        let mut erasing = Self {
            erased,
            due,
            compacting: None,
            held: Vec::new(),
            departed: Vec::new(),
            untold: Vec::new(),
            returned: Vec::new(),
            restored: false,
            looked: None,
            failed: None,
        };
        // When all were done, and both sides know of all, no record has to be looked at.
        if !erasing.due.is_empty() && erasing.strip(restored, &departed, is_shown) {
            // A record was there all the same: of which tombstone is not worth telling apart.
            erasing.due = all;
        }
        Ok(erasing)
    }

    /// True when anything was there. Of the records that are gone from their servers, only those leave whose tombstones
    /// the state may not have heard of: of the others it knows itself whether they came back.
    fn strip(
        &mut self,
        restored: &mut Restored,
        departed: &BTreeSet<Tombstone>,
        is_shown: bool,
    ) -> bool {
        let mut found = false;
        let mut is_gone = |key: RecordKey| {
            let erased = &self.erased;
            let is_gone = erased.is_erased(key)
                || !departed.is_empty() && departed.contains(&erased.departure(key));
            found |= is_gone;
            is_gone
        };
        for changes in restored.deferred.values_mut() {
            changes.retain(|change| !is_gone(change.key));
        }
        let tail = restored.tail.iter_mut().flat_map(|input| &mut input.arrivals);
        for change in tail.flat_map(|arrival| &mut arrival.changes) {
            if change.case.is_some() && is_gone(change.key) {
                change.case = None;
            }
        }
        let held = &mut self.held;
        restored.records.retain(|(key, case)| {
            let leaves = is_gone(*key);
            if leaves && is_shown {
                held.push((case.instance(), *key));
            }
            !leaves || is_shown
        });
        if found && !is_shown {
            restored.sums = None; // what left is in them
        }
        found
    }

    /// Makes tombstones of the records that are gone with these changes, and finds those of records that are back.
    pub(super) fn depart(&mut self, changes: &[RecordChange]) {
        let knows_any = !self.erased.is_empty();
        for change in changes {
            match &change.case {
                None => self.departed.push(self.erased.departure(change.key)),
                Some(_) if knows_any => {
                    let tombstone = Some(self.erased.departure(change.key));
                    self.returned.extend(tombstone.filter(|it| self.erased.knows(*it)));
                }
                Some(_) => {}
            }
        }
    }

    /// Whether a snapshot failed a moment ago.
    pub(super) fn rests(&self) -> bool {
        self.failed.is_some_and(|failed| failed.elapsed() < SNAPSHOT_PAUSE)
    }

    /// How many visible records have to leave.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }
}

impl Pipeline<'_> {
    /// Keeps the tombstones of the records that the next epoch lets go, in front of it.
    pub(super) async fn keep_departures(&mut self) -> Result<()> {
        self.forget_departures().await?;
        let departed = std::mem::take(&mut self.erasing.departed);
        if departed.is_empty() {
            return Ok(());
        }
        let mut all = self.state.erased()?;
        all.extend(&departed);
        self.state.keep_erased(&all)?;
        crash::point(Step::DeparturesKept);
        self.erasing.erased.add(departed.iter().copied());
        self.erasing.due.extend(&departed);
        self.erasing.untold.extend(departed);
        self.tell_departures().await?;
        crash::point(Step::DeparturesTold);
        Ok(())
    }

    /// Forgets the tombstones of records that are there again. When the tables are away, that is tried again.
    async fn forget_departures(&mut self) -> Result<()> {
        let returned: BTreeSet<_> =
            std::mem::take(&mut self.erasing.returned).into_iter().collect();
        if returned.is_empty() {
            return Ok(());
        }
        let listed: Vec<_> = returned.iter().copied().collect();
        match self.sink.forget_erasures(&listed).await {
            Err(error) if error.kind().may_pass() || error.kind() == Kind::DataDiffers => {
                self.erasing.returned = listed;
                return Ok(());
            }
            told => told?,
        }
        self.state.keep_erased(&self.state.erased()?.difference(&returned).copied().collect())?;
        self.erasing.erased.remove(&returned);
        self.erasing.due.retain(|tombstone| !returned.contains(tombstone));
        self.erasing.untold.retain(|tombstone| !returned.contains(tombstone));
        Ok(())
    }

    /// Tells the tables, also what they knew before somebody restored them. When they are away, what the state keeps
    /// has to do until they are back.
    async fn tell_departures(&mut self) -> Result<()> {
        let mut told = self.sink.ask_erasures(&self.erasing.untold).await;
        if told.is_ok() && self.erasing.restored {
            told = self.sink.keep_erasures(&self.erasing.erased.all()).await;
        }
        match told {
            Ok(()) => {
                self.erasing.untold.clear();
                self.erasing.restored = false;
                Ok(())
            }
            Err(error) if error.kind() == Kind::DataDiffers => {
                self.owed.get_or_insert(Debt::reconcile(error.to_string()));
                Ok(())
            }
            Err(error) if error.kind().may_pass() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Looks whether erasures were asked for, and lets those records leave the tables. False when a stop came before
    /// that could be committed.
    pub(super) async fn keep_erasures(&mut self) -> Result<bool> {
        let looked = self.erasing.looked.map_or(Duration::MAX, |looked| looked.elapsed());
        if looked < ERASURES_LOOK_INTERVAL {
            return Ok(true);
        }
        self.erasing.looked = Some(Stopwatch::now());
        self.forget_departures().await?;
        self.tell_departures().await?;
        let due = match self.sink.erasures_due().await {
            Ok(due) => due,
            Err(error) if error.kind() == Kind::DataDiffers => {
                self.owed.get_or_insert(Debt::reconcile(error.to_string()));
                return Ok(true);
            }
            Err(error) if error.kind().may_pass() => return Ok(true), // it is asked again
            Err(error) => return Err(error),
        };
        let is_new = due.iter().any(|tombstone| !self.erasing.erased.knows(*tombstone));
        let is_again = due.iter().any(|tombstone| !self.erasing.due.contains(tombstone));
        if is_new {
            let mut all = self.state.erased()?;
            all.extend(&due);
            self.state.keep_erased(&all)?;
            self.erasing.erased.add(due.iter().copied());
        }
        // What was found at the start stays due, whatever the tables say of it.
        let known = &mut self.erasing.due;
        known.extend(due);
        if is_again {
            self.find_erased()?;
        }
        self.retract().await
    }

    /// Finds what is held of erased records; what nobody sees yet goes at once.
    fn find_erased(&mut self) -> Result<()> {
        let erased = self.erasing.erased.clone();
        self.standing.forget(|key| erased.is_erased(key));
        let records = self.dataflow.records()?;
        let found = records.iter().filter(|(key, _)| erased.is_erased(**key));
        self.erasing.held = found.map(|(key, case)| (case.instance(), *key)).collect();
        Ok(())
    }

    /// Lets erased records leave the tables, with an epoch of their own.
    pub(super) async fn retract(&mut self) -> Result<bool> {
        let held = std::mem::take(&mut self.erasing.held);
        if held.is_empty() {
            return Ok(true);
        }
        report::emit(&Event::RecordsErased { count: held.len() });
        let mut leaving: BTreeMap<Code, Vec<RecordChange>> = BTreeMap::new();
        for (instance, key) in held {
            leaving.entry(instance).or_default().push(RecordChange { key, case: None });
        }
        let arrivals = leaving.into_iter().map(|(instance, changes)| Arrival {
            instance,
            cursor: self.standing.cursors().get(&instance).cloned().unwrap_or_default(),
            deferred: false,
            is_backfill: false,
            changes,
        });
        let input = EpochInput { arrivals: arrivals.collect(), ..self.next_input() };
        self.turn(input).await
    }

    /// Whether the files of the state should be rewritten.
    pub(super) fn compaction_is_due(&mut self) -> Result<bool> {
        if self.erasing.rests() {
            return Ok(false);
        }
        let is_asked = !self.erasing.due.is_empty() && self.erasing.held.is_empty();
        Ok(is_asked || self.state.compaction_due(self.config.erasure_within)?)
    }

    /// Begins to rewrite the files of the state.
    pub(super) fn begin_compaction(&mut self) -> Result<()> {
        let content = self.snapshot_content()?;
        self.erasing.compacting = Some(self.erasing.due.clone());
        self.state.compact(content)
    }

    /// After a snapshot: if it was a compaction, the erasures that it ends are done.
    pub(super) async fn snapshot_ended(&mut self, is_good: bool) -> Result<()> {
        let ended = self.erasing.compacting.take();
        self.erasing.failed = (!is_good).then(Stopwatch::now);
        let Some(ended) = ended.filter(|_| is_good) else { return Ok(()) };
        let listed: Vec<_> = ended.iter().copied().collect();
        match self.sink.erasures_done(&listed, self.state.pipeline_id().0).await {
            Ok(()) => {
                self.erasing.due.retain(|tombstone| !ended.contains(tombstone));
                Ok(())
            }
            Err(error) if error.kind() == Kind::DataDiffers => {
                self.owed.get_or_insert(Debt::reconcile(error.to_string()));
                Ok(())
            }
            Err(error) if error.kind().may_pass() => Ok(()), // they are still due
            Err(error) => Err(error),
        }
    }

    /// Moves the tables up to the last epoch of the log, when those after theirs changed nothing in them: a snapshot is
    /// of an epoch that the tables show. False when a stop came before.
    pub(super) async fn level(&mut self) -> Result<bool> {
        if self.committed == self.epoch {
            return Ok(true);
        }
        let (watch, input) = (Stopwatch::now(), self.next_input());
        let meta = Meta { at: input.at, reason: Some(Reason::Clock), has_tick: false };
        let pending = self.state.append(&input, &self.interner)?;
        self.epoch = input.epoch;
        let logged = pending.wait()?;
        self.publish(&logged, meta, &Changes::default(), watch).await
    }

    /// Ends what is due before a run that ends by itself does: it may be the only one for a long time.
    pub(super) async fn end_erasures(&mut self) -> Result<()> {
        self.erasing.looked = None;
        if !self.keep_erasures().await? {
            return Ok(());
        }
        self.wait_for_snapshot().await?;
        let is_settled = self.owed.is_none() && self.committed.0 > 0;
        if !is_settled || !self.compaction_is_due()? || !self.level().await? {
            return Ok(()); // the next run does
        }
        self.begin_compaction()?;
        self.wait_for_snapshot().await
    }

    async fn wait_for_snapshot(&mut self) -> Result<()> {
        if self.state.is_writing_snapshot() {
            let outcome = snapshot_end(&mut self.state).await;
            self.snapshot_ended(outcome.is_ok()).await?;
            outcome?;
        }
        Ok(())
    }
}
