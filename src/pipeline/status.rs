//! How current each instance is: for the table `sync_status`, the metrics and the log.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant as Stopwatch};

use jiff::Timestamp;

use super::standing::Standing;
use super::{Debt, Pipeline};
use crate::crash::{self, Step};
use crate::error::{Error, Kind, Result};
use crate::indicator::{OptionText, Plan};
use crate::model::{Code, Epoch, Instant};
use crate::report::{self, Metrics};
use crate::sink::InstanceStatus;
use crate::source::{Event, FieldLabels};

/// How often the status rows are written when nothing else happens.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

/// What is known of every instance.
pub(super) struct Board {
    entries: BTreeMap<Code, Entry>,
    labels: BTreeMap<Code, Vec<FieldLabels>>,
    written: Option<Stopwatch>,
    is_stale: bool,
    /// The first error that ended a source.
    failure: Option<Error>,
}

struct Entry {
    name: String,
    /// Index among the configured instances.
    number: usize,
    status: InstanceStatus,
    total: Option<u64>,
    begun: Stopwatch,
    /// Which labels are not as the packs assert.
    labels_differ: Option<String>,
    /// Why records that no list has stay in the tables, or are not known.
    withheld: Option<String>,
}

impl Entry {
    /// What a person should know of.
    fn error(&self) -> Option<String> {
        let all = [&self.status.last_error, &self.withheld, &self.labels_differ];
        all.into_iter().flatten().next().cloned()
    }
}

impl Board {
    pub(super) fn new(instances: &[(Code, String)], standing: &Standing) -> Self {
        let entry = |(number, (code, name)): (usize, &(Code, String))| {
            let state = if standing.is_released(*code) { "live" } else { "loading" };
            // What was read before the start counts, or a start after which nothing changes would forget it.
            let cursor = standing.cursors().get(code).and_then(|cursor| cursor.watermark);
            let status = InstanceStatus {
                instance: name.clone(),
                state,
                cursor,
                newest_change: cursor,
                ..Default::default()
            };
            (
                *code,
                Entry {
                    name: name.clone(),
                    number,
                    status,
                    total: None,
                    begun: Stopwatch::now(),
                    labels_differ: None,
                    withheld: None,
                },
            )
        };
        Self {
            entries: instances.iter().enumerate().map(entry).collect(),
            labels: BTreeMap::new(),
            written: None,
            is_stale: true,
            failure: None,
        }
    }

    pub(super) fn name(&self, instance: Code) -> &str {
        self.entries.get(&instance).map_or("", |entry| &entry.name)
    }

    /// The newest change that was seen in any instance.
    pub(super) fn newest(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.status.newest_change).max()
    }

    /// Notes what an event says about its instance, and reports it.
    pub(super) fn note(&mut self, event: &Event, standing: &Standing, metrics: &Metrics) {
        match event {
            Event::Batch(batch) => {
                let Some(entry) = self.entries.get_mut(&batch.instance) else { return };
                let status = &mut entry.status;
                status.cursor = batch.cursor.watermark.or(status.cursor);
                status.newest_change = status.newest_change.max(batch.cursor.watermark);
                status.cases_refused += batch.refusals.len() as u64;
                status.misfits += batch.misfits.iter().map(|(_, count)| count).sum::<u64>();
                self.is_stale = true;
                let Some(counts) = metrics.instance(entry.number) else { return };
                counts.cases_refused.store(status.cases_refused, Relaxed);
                counts.values_misfit.store(status.misfits, Relaxed);
                report_findings(&entry.name, batch);
            }
            Event::CaughtUp { instance, total, newest } => {
                let Some(entry) = self.entries.get_mut(instance) else { return };
                if entry.status.state == "loading" {
                    let (instance, cases) = (entry.name.as_str(), standing.records_of(*instance));
                    let took = entry.begun.elapsed();
                    report::emit(&report::Event::FirstLoadFinished { instance, cases, took });
                }
                self.is_stale |= entry.status.state != "live";
                entry.total = total.or(entry.total);
                entry.status.state = "live";
                entry.status.last_error = None;
                entry.status.progress = None;
                entry.status.newest_change = entry.status.newest_change.max(*newest);
                entry.status.polled_at = Some(now());
                entry.status.lag_seconds = Some(0);
            }
            Event::Census { instance, known, gone, is_withheld } => {
                let Some(entry) = self.entries.get_mut(instance) else { return };
                let what = is_withheld.then(|| withheld(*gone, *known));
                let is_new = entry.withheld != what;
                self.is_stale |= is_new;
                entry.withheld = what;
                let (instance, gone, known) = (entry.name.as_str(), *gone, *known);
                if *is_withheld && is_new {
                    report::emit(&report::Event::RecordsWithheld { instance, gone, known });
                } else if gone > 0 && !is_withheld {
                    report::emit(&report::Event::RecordsGone { instance, gone, known });
                }
            }
            Event::CensusFailed { instance, error } => {
                let Some(entry) = self.entries.get_mut(instance) else { return };
                let what = Some(format!("records that are deleted there are not noticed: {error}"));
                self.is_stale |= entry.withheld != what;
                entry.withheld = what;
                report::emit(&report::Event::CensusFailed { instance: &entry.name, error });
            }
            Event::Trouble { instance, error, retry_in } => {
                let Some(entry) = self.entries.get_mut(instance) else { return };
                let attempts = metrics
                    .instance(entry.number)
                    .map_or(0, |counts| counts.source_retries.fetch_add(1, Relaxed) + 1);
                report::emit(&report::Event::SourceRetried {
                    instance: &entry.name,
                    attempt: u32::try_from(attempts).unwrap_or(u32::MAX),
                    wait: *retry_in,
                    error,
                });
                entry.status.last_error = Some(error.to_string());
                if entry.status.state == "live" {
                    entry.status.state = "failing";
                }
                self.is_stale = true;
            }
            Event::Ended { instance, result } => {
                let (Err(error), Some(entry)) = (result, self.entries.get_mut(instance)) else {
                    return;
                };
                report::emit(&report::Event::SourceStopped { instance: &entry.name, error });
                if let Some(counts) = metrics.instance(entry.number) {
                    counts.asked.store(0, Relaxed);
                }
                entry.status.state = "failing";
                entry.status.last_error = Some(error.to_string());
                self.is_stale = true;
            }
            Event::Locations { .. } | Event::Labels { .. } => {}
        }
    }

    /// Notes an error that ended a source.
    pub(super) fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// The error that the run ends with, if a source ended with one.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    pub(super) fn labels(&mut self, instance: Code, labels: Vec<FieldLabels>) {
        self.labels.insert(instance, labels);
    }

    /// Notes which labels of an instance are not as the packs assert; says whether that is new.
    pub(super) fn labels_differ(&mut self, instance: Code, what: Option<String>) -> bool {
        let Some(entry) = self.entries.get_mut(&instance) else { return false };
        let is_new = entry.labels_differ != what;
        entry.labels_differ = what;
        self.is_stale |= is_new;
        is_new
    }

    /// Labels that the servers gave for values that the catalog publishes, in the order of the instances.
    pub(super) fn all_labels(&self, plan: &Plan) -> Vec<OptionText> {
        let mut texts = Vec::new();
        for option in &plan.catalog().options {
            let from = plan.definition().dimensions[&option.dimension].from.to_string();
            let fields = self.labels.values().flatten().filter(|field| field.field == from);
            let values = fields.flat_map(|field| &field.values);
            let labels = values.filter(|(id, _)| *id == option.value).map(|(_, label)| label);
            texts.extend(labels.map(|label| OptionText { label: label.clone(), ..option.clone() }));
        }
        texts
    }

    /// Notes a commit.
    pub(super) fn committed(
        &mut self,
        epoch: Epoch,
        cases: u64,
        rows: u64,
        held: u64,
        metrics: &Metrics,
    ) {
        metrics.cases_held.store(held, Relaxed);
        metrics.epochs_unacknowledged.store(0, Relaxed);
        metrics.epochs_written.fetch_add(1, Relaxed);
        metrics.rows_written.fetch_add(rows, Relaxed);
        metrics.cases_changed.fetch_add(cases, Relaxed);
        metrics.epoch_last.store(epoch.0, Relaxed);
        for entry in self.entries.values() {
            let lag = entry.status.newest_change.map_or(-1, |newest| (now().0 - newest.0) / 1_000);
            if let Some(counts) = metrics.instance(entry.number) {
                counts.lag_seconds.store(lag, Relaxed);
            }
        }
        metrics.well();
    }
}

impl Pipeline<'_> {
    /// Writes the status rows when they are due, or in any case when `now_or_never`.
    pub(super) async fn publish_status(&mut self, now_or_never: bool) -> Result<()> {
        let is_due =
            self.board.written.is_none_or(|written| written.elapsed() > HEARTBEAT_INTERVAL);
        if self.committed.0 == 0 || !(is_due || self.board.is_stale || now_or_never) {
            return Ok(());
        }
        let statuses: Vec<_> =
            self.board
                .entries
                .iter()
                .map(|(code, entry)| InstanceStatus {
                    cases_known: self.standing.records_of(*code),
                    progress: entry.total.filter(|total| *total > 0).map(|total| {
                        (self.standing.records_of(*code) as f64 / total as f64).min(1.0)
                    }),
                    backfill: self.standing.backfill(*code).map(|b| b.fields.join(", ")),
                    at: now(),
                    last_error: entry.error(),
                    ..entry.status.clone()
                })
                .collect();
        match self.sink.status(&statuses).await {
            Ok(0) => {
                // So a copy that has nothing to write learns it too.
                return Err(Error::config("another copy of tonle has taken over these tables")
                    .advise("two copies of tonle write to this schema: stop one"));
            }
            Ok(_) => {
                crash::point(Step::StatusWritten);
                self.board.is_stale = false;
            }
            Err(error) if error.kind() == Kind::DataDiffers => {
                self.owed.get_or_insert(Debt::reconcile(error.to_string()));
            }
            Err(error) if !error.kind().may_pass() => return Err(error),
            // The figures do not depend on it: what fails here is tried again with the next heartbeat.
            Err(_) => {}
        }
        self.board.written = Some(Stopwatch::now());
        Ok(())
    }
}

/// What a person has to decide when a server does not list so many of the records.
fn withheld(gone: u64, known: u64) -> String {
    format!(
        "the server does not list {gone} of {known} records any more; they stay, because so many at once may mean \
         that the user lost rights: mend the role, or raise gone_percent if they were deleted on purpose"
    )
}

fn now() -> Instant {
    Instant(Timestamp::now().as_millisecond())
}

/// Refusals and misfits of a batch, by kind; never which record.
fn report_findings(instance: &str, batch: &crate::model::Batch) {
    let mut reasons: BTreeMap<&'static str, u64> = BTreeMap::new();
    for refusal in &batch.refusals {
        *reasons.entry(refusal.reason).or_default() += 1;
    }
    for (why, count) in reasons {
        report::emit(&report::Event::CasesRefused { instance, count, why });
    }
    for (field, count) in &batch.misfits {
        report::emit(&report::Event::MisfitsCounted { instance, field, count: *count });
    }
}
