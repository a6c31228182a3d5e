//! What the program counts about itself: plain atomics that any part may raise, written as
//! Prometheus text.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// How long the loop may stay silent before the program counts as stuck, in seconds. It turns at
/// least once a poll; only the first load of a large instance comes near a minute.
pub const STALL_SECONDS_MAX: u64 = 300;

/// Counts since the start, and how things stand.
#[derive(Debug)]
pub struct Metrics {
    /// Epochs committed in Postgres.
    pub epochs_written: AtomicU64,
    /// Rows inserted, updated or deleted: the rows that changed and no others.
    pub rows_written: AtomicU64,
    /// New versions of cases that entered the dataflow.
    pub cases_changed: AtomicU64,
    /// Writes to Postgres that failed and were tried again.
    pub sink_retries: AtomicU64,
    /// Cases held now, over all instances.
    pub cases_held: AtomicU64,
    /// Epochs in the log that Postgres has not committed yet.
    pub epochs_unacknowledged: AtomicU64,
    /// The last epoch committed in Postgres.
    pub epoch_last: AtomicU64,
    instances: Box<[InstanceMetrics]>,
    trouble: Mutex<Option<Cow<'static, str>>>,
    begun: Instant,
    turned_ms: AtomicU64,
}

/// The same for one instance.
#[derive(Debug)]
pub struct InstanceMetrics {
    name: String,
    /// Records that could not be read.
    pub cases_refused: AtomicU64,
    /// Values that did not fit the declared type of their field.
    pub values_misfit: AtomicU64,
    /// Requests that failed and were tried again.
    pub source_retries: AtomicU64,
    /// Seconds from a change in the instance to its commit in Postgres, for the newest one;
    /// -1 before the first.
    pub lag_seconds: AtomicI64,
    /// 1 while the instance is asked, 0 once a person is needed.
    pub asked: AtomicU64,
}

impl Metrics {
    /// All counts at zero, not well before [`well`](Self::well) is called.
    pub fn new<N: Into<String>>(instances: impl IntoIterator<Item = N>) -> Self {
        Self {
            epochs_written: AtomicU64::new(0),
            rows_written: AtomicU64::new(0),
            cases_changed: AtomicU64::new(0),
            sink_retries: AtomicU64::new(0),
            cases_held: AtomicU64::new(0),
            epochs_unacknowledged: AtomicU64::new(0),
            epoch_last: AtomicU64::new(0),
            instances: instances
                .into_iter()
                .map(|name| InstanceMetrics::new(name.into()))
                .collect(),
            trouble: Mutex::new(Some(Cow::Borrowed("starting"))),
            begun: Instant::now(),
            turned_ms: AtomicU64::new(0),
        }
    }

    /// The counts of the instance at `index` of those given to [`new`](Self::new), if there is one.
    pub fn instance(&self, index: usize) -> Option<&InstanceMetrics> {
        self.instances.get(index)
    }

    /// Says that the loop turned; to be called at least every [`STALL_SECONDS_MAX`] seconds.
    pub fn turned(&self) {
        self.turned_ms.store(self.now_ms(), Relaxed);
    }

    /// Says that everything is as it should be. Counts as a turn.
    pub fn well(&self) {
        *self.trouble.lock().expect("nobody panics while holding it") = None;
        self.turned();
    }

    /// Says what is wrong, in words about the program and never about a record.
    pub fn unwell(&self, why: impl Into<Cow<'static, str>>) {
        *self.trouble.lock().expect("nobody panics while holding it") = Some(why.into());
    }

    /// What is wrong, if anything; a loop that no longer turns is found here.
    pub fn trouble(&self) -> Option<Cow<'static, str>> {
        self.trouble_at(self.now_ms())
    }

    fn trouble_at(&self, now_ms: u64) -> Option<Cow<'static, str>> {
        let told = self.trouble.lock().expect("nobody panics while holding it").clone();
        let silent_seconds = now_ms.saturating_sub(self.turned_ms.load(Relaxed)) / 1_000;
        told.or_else(|| {
            (silent_seconds > STALL_SECONDS_MAX)
                .then(|| Cow::Owned(format!("the loop has not turned for {silent_seconds} s")))
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl InstanceMetrics {
    fn new(name: String) -> Self {
        Self {
            name,
            cases_refused: AtomicU64::new(0),
            values_misfit: AtomicU64::new(0),
            source_retries: AtomicU64::new(0),
            lag_seconds: AtomicI64::new(-1),
            asked: AtomicU64::new(1),
        }
    }
}

/// Prometheus text, version 0.0.4.
impl Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole: [(&str, &str, &str, &AtomicU64); 7] = [
            (
                "epochs_written_total",
                "counter",
                "Epochs committed in Postgres",
                &self.epochs_written,
            ),
            ("rows_written_total", "counter", "Rows changed in Postgres", &self.rows_written),
            ("cases_changed_total", "counter", "New versions of cases", &self.cases_changed),
            ("sink_retries_total", "counter", "Writes tried again", &self.sink_retries),
            ("cases_held", "gauge", "Cases held now", &self.cases_held),
            (
                "epochs_unacknowledged",
                "gauge",
                "Epochs not committed yet",
                &self.epochs_unacknowledged,
            ),
            ("epoch_last", "gauge", "Last epoch committed", &self.epoch_last),
        ];
        for (name, kind, help, value) in whole {
            head(f, name, kind, help)?;
            writeln!(f, "tonle_{name} {}", value.load(Relaxed))?;
        }
        head(f, "well", "gauge", "1 when nothing is wrong")?;
        writeln!(f, "tonle_well {}", u8::from(self.trouble().is_none()))?;
        self.each(f, "cases_refused_total", "counter", "Records not readable", |i| {
            i.cases_refused.load(Relaxed).into()
        })?;
        self.each(f, "values_misfit_total", "counter", "Values that do not fit", |i| {
            i.values_misfit.load(Relaxed).into()
        })?;
        self.each(f, "source_retries_total", "counter", "Requests tried again", |i| {
            i.source_retries.load(Relaxed).into()
        })?;
        self.each(f, "lag_seconds", "gauge", "From change to commit; -1 before the first", |i| {
            i.lag_seconds.load(Relaxed).into()
        })?;
        self.each(f, "instance_asked", "gauge", "0 once a person is needed", |i| {
            i.asked.load(Relaxed).into()
        })
    }
}

impl Metrics {
    fn each(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&InstanceMetrics) -> i128,
    ) -> fmt::Result {
        head(f, name, kind, help)?;
        for instance in &self.instances {
            let label = label_value(&instance.name);
            writeln!(f, "tonle_{name}{{instance=\"{label}\"}} {}", value(instance))?;
        }
        Ok(())
    }
}

fn head(f: &mut fmt::Formatter<'_>, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(f, "# HELP tonle_{name} {help}.\n# TYPE tonle_{name} {kind}")
}

/// A label's value as the text format wants it escaped.
fn label_value(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::new(["kampot", "a \"b\"\\\n"]);
        metrics.rows_written.fetch_add(12, Relaxed);
        let kampot = metrics.instance(0).unwrap();
        kampot.lag_seconds.store(3, Relaxed);
        kampot.cases_refused.fetch_add(2, Relaxed);
        let text = metrics.to_string();
        for line in [
            "# TYPE tonle_rows_written_total counter",
            "tonle_rows_written_total 12",
            "tonle_well 0",
            "tonle_lag_seconds{instance=\"kampot\"} 3",
            "tonle_lag_seconds{instance=\"a \\\"b\\\"\\\\\\n\"} -1",
            "tonle_cases_refused_total{instance=\"kampot\"} 2",
        ] {
            assert!(text.lines().any(|written| written == line), "no {line} in\n{text}");
        }
        assert!(metrics.instance(2).is_none());
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        for sample in samples {
            let (_, number) = sample.rsplit_once(' ').unwrap();
            number.parse::<i64>().unwrap();
        }
    }

    #[test]
    fn a_loop_that_no_longer_turns_is_noticed() {
        let metrics = Metrics::new(["kampot"]);
        assert_eq!(metrics.trouble().as_deref(), Some("starting"));
        metrics.well();
        assert_eq!(metrics.trouble(), None);
        let later = metrics.now_ms() + (STALL_SECONDS_MAX + 1) * 1_000;
        let trouble = metrics.trouble_at(later).unwrap();
        assert!(trouble.starts_with("the loop has not turned for 301 s"), "{trouble}");
        metrics.unwell("postgres does not answer");
        assert_eq!(metrics.trouble_at(later).as_deref(), Some("postgres does not answer"));
    }
}
