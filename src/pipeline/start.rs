//! The restart protocol: from what is on disk and what is in Postgres to a pipeline that goes on.
//!
//! P is the epoch in Postgres, L the last in the log. When they agree, the records as of P are put back, only those
//! judged that changed since the snapshot, and the output is dropped; (P, L] is replayed as normal epochs. Otherwise
//! everything is computed as of L and compared with the tables. When the tables may show records that the state does
//! not know, that waits until every instance was read up to now: before, their rows would go, only to come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant as Stopwatch};

use tokio::sync::{mpsc, watch};

use super::erasures::Erasing;
use super::publish::asked_to_end;
use super::sightings::Sightings;
use super::standing::{Standing, as_changes, tree_of};
use super::status::Board;
use super::{Debt, EVENTS_WAITING_MAX, Meta, Options, Pipeline, Progress};
use crate::config::Config;
use crate::crash::{self, Step};
use crate::dataflow::{Dataflow, Input};
use crate::error::{Error, Result};
use crate::indicator::{Fingerprint, Plan, schema_of};
use crate::model::{
    Case, Changes, Code, Day, Epoch, EpochInput, Interner, LocationTree, Reason, RecordKey, Summed,
    Tally,
};
use crate::report::{self, Event};
use crate::sink::{Position, RunId, Sink};
use crate::source::{self, Erased, Resume, Shared};
use crate::state::{Agreement, Restored, State};

/// Wait before a Postgres that cannot be reached at the start is asked again.
const RETRY_WAIT: Duration = Duration::from_secs(2);

/// What a pipeline is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To follow the instances.
    Follow,
    /// To compare every row with the state and correct those that differ.
    Repair,
    /// To let erased records leave, and what else the state has for the tables.
    Erase,
}

/// Lays the packs of `config` out for these places.
///
/// # Errors
/// A configuration error when they are too large.
pub fn compile(config: &Config, tree: &LocationTree, interner: &Interner) -> Result<Arc<Plan>> {
    let instances = config.instance_definitions();
    let definition = Arc::clone(&config.definition);
    interner
        .write(|dictionary| Plan::compile(definition, &instances, tree, dictionary))
        .map(Arc::new)
}

impl<'a> Pipeline<'a> {
    /// Restores the state, brings the tables up to it, and starts the sources.
    ///
    /// # Errors
    /// When the state is locked or damaged, Postgres cannot be reached or refuses, or a source cannot begin.
    pub async fn start(config: Config, options: Options<'a>) -> Result<Self> {
        let mut pipeline = Self::settled(config, options, Purpose::Follow).await?;
        if !pipeline.retract().await? {
            return Err(asked_to_end());
        }
        pipeline.start_sources()?;
        crash::point(Step::SourcesStarted);
        Ok(pipeline)
    }

    /// The same without sources.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub(super) async fn settled(
        config: Config,
        options: Options<'a>,
        purpose: Purpose,
    ) -> Result<Self> {
        let watch = Stopwatch::now();
        report::emit(&Event::Started {
            version: env!("CARGO_PKG_VERSION"),
            instances: config.instances.len(),
            workers: config.workers,
        });
        let settings = config.state.clone();
        let settings = match crash::file_bytes() {
            Some((segment, snapshot)) => settings.with_sizes(segment, snapshot),
            None => settings,
        };
        let mut state = State::open(&settings)?;
        state.tie_to_key(source::key_check(&config.pseudonym_key)?)?;
        let schema = schema_of(&config.definition);
        // The sink needs the plan, the plan the places, and which epoch to restore is in the sink: a plan
        // without places opens it the first time.
        let bare = compile(&config, &LocationTree::default(), &Interner::default())?;
        let run = RunId(rand::random());
        let pipeline = state.pipeline_id().0;
        let position = patiently(&options, async || {
            let mut sink = Sink::open(config.sink.clone(), bare.catalog()).await?;
            sink.take_over(run, pipeline).await
        });
        let position = position.await?;
        let ours = position.as_ref().filter(|p| p.pipeline == Some(pipeline));
        let mut restored = state.restore(ours.map(|p| p.epoch), &schema)?;
        crash::point(Step::StateRestored);
        let mut interner = Interner::new(std::mem::take(&mut restored.dictionary));
        let mut plan = compile(&config, &tree_of(&restored.locations), &interner)?;
        let agrees = restored.agreement == Agreement::Agrees;
        let is_behind = position.is_some() && !agrees && !restored.is_ahead;
        let mut owed = is_behind.then(|| Debt::reconcile(why_behind(ours, &restored.agreement)));
        if let Some(Debt { why, .. }) = &owed {
            report::emit(&Event::ComparisonWaits { why });
        }
        let follow = position.as_ref().map(|p| p.fingerprint).filter(|_| agrees);
        let debt = follow.and_then(|follow| changed(follow, &plan));
        let asked = (agrees && purpose == Purpose::Repair)
            .then(|| Debt::reconcile("a repair was asked for"));
        if let Some(debt) = debt.or(asked) {
            restored = state.restore(None, &schema)?;
            interner = Interner::new(std::mem::take(&mut restored.dictionary));
            plan = compile(&config, &tree_of(&restored.locations), &interner)?;
            owed = Some(debt);
        }
        let is_known =
            position.as_ref().is_some_and(|p| p.fingerprint == plan.catalog().fingerprint);
        let is_server = |i: &source::Settings| matches!(i.kind, source::SourceKind::Server(_));
        let has_server = config.instances.iter().any(is_server);
        let sink = patiently(&options, async || {
            let mut sink = Sink::open(config.sink.clone(), plan.catalog()).await?;
            sink.keep(run, pipeline).await?;
            Ok(sink)
        });
        let mut sink = sink.await?;
        crash::point(Step::FenceKept);
        let erased = Erased::new(&config.pseudonym_key, [])?;
        let is_shown = agrees && owed.is_none();
        let erasing =
            Erasing::begin(erased, &mut state, &mut sink, &mut restored, agrees, is_shown).await?;
        let dataflow = Dataflow::start(Arc::clone(&plan), config.workers)?;
        let codes = plan.instances().iter().map(|(code, _)| *code).collect();
        let sightings = Sightings::of(&restored, plan.schema());
        let standing = Standing::of(&restored, codes, replayed(&config, &plan));
        let epoch = position.as_ref().map_or(restored.last, |p| p.epoch.max(restored.last));
        let board = Board::new(plan.instances(), &standing);
        let (stop_sources, _) = watch::channel(false);
        let (_, events) = mpsc::channel(1);
        let mut pipeline = Self {
            committed: position.map_or(Epoch(0), |position| position.epoch),
            events,
            set_aside: None,
            sources_running: 0,
            caught_up: BTreeSet::new(),
            erasing,
            config,
            options,
            state,
            sink,
            dataflow,
            plan,
            interner,
            standing,
            sightings,
            board,
            epoch,
            run,
            is_behind,
            // Tables that follow this plan were described with it, unless the program died in between; servers
            // send their labels at each start, and with them everything is described again.
            is_described: is_known && has_server,
            owed,
            stop_sources,
        };
        pipeline.catch_up(restored, watch).await?;
        Ok(pipeline)
    }

    /// Computes the records as of the tables, then replays what the tables do not show yet.
    async fn catch_up(&mut self, restored: Restored, watch: Stopwatch) -> Result<()> {
        let Restored { records, sums, tail, base, agreement, today, warnings, new_fields, .. } =
            restored;
        for why in &warnings {
            report::emit(&Event::StateMended { why });
        }
        let record_count = records.len() as u64;
        let (mut complete, mut counted_anew) = (Changes::default(), true);
        if let Some(today) = today {
            (self.options.observe)(&Progress::Computing { records: record_count });
            (complete, counted_anew) = self.compute(records, today, sums, &agreement)?;
            complete.recomputed(Tally::default());
        }
        crash::point(Step::BaseComputed);
        report::emit(&Event::Restored {
            epoch: base,
            records: record_count,
            took: watch.elapsed(),
            counted_anew,
        });
        if let (None, Agreement::Reconcile { why }) = (&self.owed, &agreement) {
            self.owed = Some(Debt::reconcile(why));
        }
        let mut gap = None;
        if self.owed.is_none() {
            if self.committed.0 > 0 {
                gap = self.gap(&complete).await?; // before the first epoch there are no tables
            }
            complete = Changes::default(); // the tables show it already
        }
        for input in tail {
            crash::point(Step::ReplayBegun);
            if !self.replay(input).await? {
                return Err(asked_to_end());
            }
        }
        crash::point(Step::ReplayEnded);
        let mut input = self.next_input();
        if !new_fields.is_empty() {
            // With the first epoch that is logged the new fields count as asked for, so it has to be this one
            // that says that they were never read.
            report::emit(&Event::Rewound { fields: &new_fields.join(", ") });
            input.arrivals = self.standing.rewind(&new_fields);
        }
        let debt = self.owed.clone().filter(|_| self.may_settle());
        if debt.is_some() || !input.arrivals.is_empty() {
            let meta = Meta::of(&input);
            let pending = self.state.append(&input, &self.interner)?;
            self.epoch = input.epoch;
            self.standing.absorb(input);
            let logged = pending.wait()?;
            crash::point(Step::DebtLogged);
            if let Some(debt) = debt
                && !self.reconcile(&logged, meta, &complete, &debt, watch).await?
            {
                return Err(asked_to_end());
            }
        }
        self.owed = self.owed.take().or(gap); // the loop settles it first of all
        // What was just computed anew need not be computed by the next start too.
        self.begin_snapshot_if_due()?;
        self.options.metrics.well();
        let held = self.standing.record_count();
        self.options.metrics.cases_held.store(held, Relaxed);
        Ok(())
    }

    /// Puts the restored records into the dataflow, and says whether all were judged anew. What they were summed up to
    /// before is believed only where nothing says that it may be wrong: whoever compares the tables with the records
    /// wants to see them counted.
    fn compute(
        &mut self,
        records: Vec<(RecordKey, Case)>,
        today: Day,
        sums: Option<Summed>,
        agreement: &Agreement,
    ) -> Result<(Changes, bool)> {
        let is_plain = self.owed.is_none() && *agreement == Agreement::Agrees;
        let holds = |sums: &Summed| {
            sums.basis == self.plan.basis() && sums.cells.iter().all(|sum| self.plan.can_sum(sum))
        };
        match sums.filter(holds) {
            Some(sums) if is_plain => Ok((self.dataflow.resume(records, today, sums)?, false)),
            _ => {
                self.state.lacks_sums();
                let changes = as_changes(records);
                let input = Input { changes, today: Some(today) };
                Ok((self.dataflow.advance(input)?, true))
            }
        }
    }

    /// Whether a table is gone or empty that should not be.
    async fn gap(&mut self, complete: &Changes) -> Result<Option<Debt>> {
        match self.sink.gap(complete).await {
            Ok(found) => Ok(found.map(Debt::reconcile)),
            Err(error) if error.kind().may_pass() => Ok(None), // the next epoch will see
            Err(error) => Err(error),
        }
    }

    /// Whether the records that are visible are all that the tables could show.
    pub(super) fn may_settle(&self) -> bool {
        self.standing.today().is_some()
            && (!self.is_behind || self.standing.all_read(&self.caught_up))
    }

    /// Runs an epoch that is in the log already. False when a stop came before it could be committed.
    async fn replay(&mut self, input: EpochInput) -> Result<bool> {
        let (epoch, meta) = (input.epoch, Meta::of(&input));
        let visible = self.standing.absorb(input);
        if visible.is_empty() {
            return Ok(true);
        }
        let logged = self.state.logged(epoch)?;
        if visible.places_changed {
            return self.rebuild(&logged, meta, visible, &Debt::places()).await;
        }
        let watch = Stopwatch::now();
        let changes = meta.overrule(self.dataflow.advance(visible.into_input())?);
        self.standing.count(&changes.held);
        self.publish(&logged, meta, &changes, watch).await
    }

    fn start_sources(&mut self) -> Result<()> {
        let (sender, events) = mpsc::channel(EVENTS_WAITING_MAX);
        self.events = events;
        let shared = Shared {
            schema: Arc::clone(self.plan.schema()),
            interner: self.interner.clone(),
            key: self.config.pseudonym_key.clone(),
            erased: self.erasing.erased.clone(),
            once: self.options.once,
            events: sender,
            stop: self.stop_sources.subscribe(),
        };
        let mut known = self.fingerprints()?;
        for settings in &self.config.instances {
            let found = self.plan.instances().iter().find(|(_, name)| *name == settings.name);
            let (code, _) = found.ok_or_else(|| Error::bug("an instance has no code"))?;
            let resume = Resume {
                cursor: self.standing.cursors().get(code).cloned().unwrap_or_default(),
                known: known.remove(code).unwrap_or_default(),
            };
            source::start(settings.clone(), resume, &shared)?;
            self.sources_running += 1;
        }
        Ok(())
    }

    /// The fingerprint of each record that is known, deferred ones too, by instance.
    fn fingerprints(&mut self) -> Result<BTreeMap<Code, Vec<(RecordKey, u64)>>> {
        let mut known: BTreeMap<Code, Vec<_>> = BTreeMap::new();
        let schema = self.plan.schema();
        for (key, case) in self.dataflow.records()?.iter() {
            known.entry(case.instance()).or_default().push((*key, case.fingerprint(schema)));
        }
        for (instance, changes) in self.standing.deferred() {
            let newest =
                changes.iter().filter_map(|c| Some((c.key, c.case.as_ref()?.fingerprint(schema))));
            known.entry(*instance).or_default().extend(newest);
        }
        Ok(known)
    }
}

/// What tables that follow something else owe to this plan.
fn changed(follow: Fingerprint, plan: &Plan) -> Option<Debt> {
    let reason = plan.catalog().fingerprint.change_from(follow)?;
    let why = match reason {
        Reason::PackChange => "a pack changed",
        Reason::MappingChange => "the instances or what their option ids mean changed",
        Reason::LocationChange => "the places changed",
        _ => "agencies were met for the first time",
    };
    Some(Debt { why: why.to_owned(), reason })
}

/// The instances that are read from files.
fn replayed(config: &Config, plan: &Plan) -> BTreeSet<Code> {
    let is_file = |i: &&source::Settings| matches!(i.kind, source::SourceKind::File(_));
    let names: BTreeSet<_> = config.instances.iter().filter(is_file).map(|i| &i.name).collect();
    let codes = plan.instances().iter().filter(|(_, name)| names.contains(name));
    codes.map(|(code, _)| *code).collect()
}

/// Why the tables may show more than the state knows.
fn why_behind(ours: Option<&Position>, agreement: &Agreement) -> String {
    match (ours, agreement) {
        (None, _) => "the tables were written from another state directory".to_owned(),
        (Some(_), Agreement::Reconcile { why }) => why.clone(),
        (Some(_), _) => "the state directory has lost its log".to_owned(),
    }
}

/// Asks Postgres for something, waiting for one that is away unless the run is to end by itself.
async fn patiently<T>(options: &Options<'_>, mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut stop = options.stop.clone();
    let mut attempt = 0;
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if options.once || !error.kind().may_pass() => return Err(error),
            Err(error) => error,
        };
        attempt += 1;
        options.metrics.unwell("Postgres cannot be reached");
        options.metrics.turned();
        let wait = RETRY_WAIT;
        report::emit(&Event::SinkRetried { attempt, wait, error: &error });
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Err(asked_to_end().caused_by(error)),
            () = tokio::time::sleep(wait) => {}
        }
    }
}
