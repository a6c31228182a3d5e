//! Everything the program can say while it runs, as one enum, and what it counts.
//!
//! **Invariant:** nothing of a record is here: an event carries counts, durations, names of
//! instances, of fields and of options, and fixed words. Only this module names `tracing`, and only what is said
//! here is ever written: libraries log addresses and parameters of statements when they are asked
//! for details, so they are never asked.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, debug, error, info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};

use crate::error::{Error, Kind, Result};
use crate::model::Epoch;

mod metrics;

pub use metrics::{InstanceMetrics, Metrics, STALL_SECONDS_MAX};

/// The environment variable that sets the level when no flag does: one word of [`Level`].
pub const LEVEL_VARIABLE: &str = "TONLE_LOG";

/// One thing that happened, told when it is over.
#[derive(Debug)]
#[allow(missing_docs, reason = "the facts of a variant are named as they are written")]
pub enum Event<'a> {
    /// The program runs: its settings are sound and its state is locked.
    Started { version: &'a str, instances: usize, workers: usize },
    /// Others than the owner of a key or password file and its group may use it.
    SecretIsOpen { path: &'a Path, mode: u32 },
    /// The state directory was read and the dataflow holds it again.
    Restored { epoch: Epoch, records: u64, took: Duration, counted_anew: bool },
    /// Something in the state directory was not as it should be, and is now.
    StateMended { why: &'a str },
    /// A table that is the same for every pack was gone and is there again.
    TableMended { table: &'a str, is_lost: bool },
    /// Records leave for good, because somebody asked for it.
    RecordsErased { count: usize },
    /// Records that a server does not list any more leave.
    RecordsGone { instance: &'a str, gone: u64, known: u64 },
    /// They are so many that they stay until a person decides.
    RecordsWithheld { instance: &'a str, gone: u64, known: u64 },
    /// What a server has could not be listed, so that deletions are not noticed until the next attempt.
    CensusFailed { instance: &'a str, error: &'a Error },
    /// The tables may show more than the state knows: they are left alone until every instance was read.
    ComparisonWaits { why: &'a str },
    /// The tables did not agree with the state and were corrected.
    Reconciled { why: &'a str, rows: u64, took: Duration },
    /// The pack asks for fields that were never read: every instance is read again from the beginning.
    Rewound { fields: &'a str },
    /// An instance was read completely for the first time and became visible.
    FirstLoadFinished { instance: &'a str, cases: u64, took: Duration },
    /// An epoch is committed in Postgres.
    EpochWritten { epoch: Epoch, cases: u64, rows: u64, took: Duration },
    /// A snapshot is on disk; the log before it is no longer needed.
    SnapshotWritten { epoch: Epoch, records: u64, bytes: u64, took: Duration },
    /// A snapshot could not be written; it is tried again, and nothing is lost.
    SnapshotFailed { error: &'a Error },
    /// A request to an instance failed and is tried again.
    SourceRetried { instance: &'a str, attempt: u32, wait: Duration, error: &'a Error },
    /// An instance answers again.
    SourceRecovered { instance: &'a str, attempts: u32 },
    /// An instance is no longer asked until somebody does something; the others go on.
    SourceStopped { instance: &'a str, error: &'a Error },
    /// Records could not be read; the rest of their batch went on.
    CasesRefused { instance: &'a str, count: u64, why: &'static str },
    /// Values did not fit the declared type of their field and count as not recorded.
    MisfitsCounted { instance: &'a str, field: &'a str, count: u64 },
    /// A server calls an option otherwise than a pack asserts: it may mean something else there.
    LabelDiffers {
        instance: &'a str,
        concept: &'a str,
        field: &'a str,
        id: &'a str,
        expected: &'a str,
        found: &'a str,
    },
    /// Postgres could not be written to and is tried again; the sources wait.
    SinkRetried { attempt: u32, wait: Duration, error: &'a Error },
    /// Postgres takes epochs again.
    SinkRecovered { attempts: u32 },
    /// The page with health and metrics can be asked.
    WebStarted { address: SocketAddr },
    /// Somebody asked the program to end; what is under way is finished first.
    StopRequested { how: &'static str },
    /// The program ends; everything acknowledged is on disk and in Postgres.
    Stopped { epoch: Epoch },
}

/// Writes an event, as one line, to wherever [`init`] said.
pub fn emit(event: &Event<'_>) {
    match event {
        Event::Started { version, instances, workers } => {
            info!(version, instances, workers, "started");
        }
        Event::SecretIsOpen { path, mode } => {
            let (path, mode) = (path.display(), format!("{mode:04o}"));
            let advice = format!("chmod 600 {path}; in a container, set the mode of the mount");
            warn!(%path, mode, advice, "found a key or password file that others may use");
        }
        Event::Restored { epoch, records, took, counted_anew } => {
            info!(epoch = epoch.0, records, took_ms = ms(*took), counted_anew, "restored");
        }
        Event::Rewound { fields } => info!(fields, "reads everything again for new fields"),
        Event::StateMended { why } => warn!(why, "mended the state"),
        Event::TableMended { table, is_lost: false } => {
            warn!(table, "made a table anew that was gone");
        }
        Event::TableMended { table, is_lost: true } => {
            warn!(table, "made a table anew that was gone; its rows can only come from a backup");
        }
        Event::RecordsErased { count } => info!(count, "erasing records"),
        Event::RecordsGone { instance, gone, known } => {
            info!(instance, gone, known, "lets records go that the server does not list any more");
        }
        Event::RecordsWithheld { instance, gone, known } => {
            error!(
                instance,
                gone, known, "keeps records that the server does not list: too many at once"
            );
        }
        Event::CensusFailed { instance, error } => {
            warn!(instance, %error, "failed to list what an instance has");
        }
        Event::ComparisonWaits { why } => {
            warn!(why, "leaving the tables alone until every instance was read");
        }
        Event::Reconciled { why, rows, took } => {
            info!(why, rows, took_ms = ms(*took), "reconciled the tables with the state");
        }
        Event::FirstLoadFinished { instance, cases, took } => {
            info!(instance, cases, took_ms = ms(*took), "finished the first load");
        }
        Event::EpochWritten { epoch, cases, rows, took } => {
            debug!(epoch = epoch.0, cases, rows, took_ms = ms(*took), "wrote an epoch");
        }
        Event::SnapshotWritten { epoch, records, bytes, took } => {
            let took_ms = ms(*took);
            debug!(epoch = epoch.0, records, bytes, took_ms, "wrote a snapshot");
        }
        Event::SnapshotFailed { error } => {
            error!(%error, "failed to write a snapshot; goes on with the log");
        }
        Event::StopRequested { how } => info!(how, "was asked to stop"),
        Event::Stopped { epoch } => info!(epoch = epoch.0, "stopped"),
        Event::WebStarted { address } => info!(%address, "opened the page with health and metrics"),
        Event::SourceRetried { instance, attempt, wait, error } => {
            warn!(instance, attempt, wait_ms = ms(*wait), %error, "failed to ask an instance");
        }
        Event::SourceRecovered { instance, attempts } => {
            info!(instance, attempts, "reached the instance again");
        }
        Event::SourceStopped { instance, error } => {
            error!(instance, %error, "stopped asking an instance");
        }
        Event::CasesRefused { instance, count, why } => {
            warn!(instance, count, why, "refused cases");
        }
        Event::LabelDiffers { instance, concept, field, id, expected, found } => {
            let advice = "ask what the option means there, then mend the pack or give the concept ids of this instance";
            warn!(
                instance,
                concept, field, id, expected, found, advice, "found an option with another label"
            );
        }
        Event::MisfitsCounted { instance, field, count } => {
            debug!(instance, field, count, "took values that do not fit as not recorded");
        }
        Event::SinkRetried { attempt, wait, error } => {
            warn!(attempt, wait_ms = ms(*wait), %error, "failed to write to postgres");
        }
        Event::SinkRecovered { attempts } => info!(attempts, "reached postgres again"),
    }
}

/// Tells the person at the keyboard why a command ended: the error, its causes and what to do.
pub fn failure(error: &Error) {
    // When even standard error is closed there is nobody left to tell.
    let _ = write_failure(&mut io::stderr().lock(), error);
}

fn write_failure(to: &mut impl Write, error: &Error) -> io::Result<()> {
    writeln!(to, "error: {error}")?;
    match error.kind() {
        Kind::Bug => writeln!(to, "This is a bug in tonle: please report it."),
        _ => Ok(()),
    }
}

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line, for programs that collect logs.
    Json,
}

/// The least important events that are still written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Nothing.
    Off,
    /// What needs a person.
    Error,
    /// Also what went wrong and is dealt with.
    Warn,
    /// Also the few steps of a normal run.
    #[default]
    Info,
    /// Also every epoch and snapshot.
    Debug,
}

impl Level {
    const ALL: [(&str, Self); 5] = [
        ("off", Self::Off),
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
    ];

    fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Error::config(format!("{word:?} is no log format: text or json"))),
        }
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(name, _)| *name == word).map(|(_, level)| *level);
        found.ok_or_else(|| {
            let words = "off, error, warn, info or debug";
            Error::config(format!("{word:?} is no log level: {words}"))
        })
    }
}

impl Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, level)| level == self).map(|(name, _)| *name);
        f.write_str(name.expect("ALL names every level"))
    }
}

/// Sends events to standard error from now on. `level` holds before [`LEVEL_VARIABLE`], and that
/// before [`Level::Info`].
///
/// # Errors
/// [`Kind::Config`] when the variable is not one of the levels; [`Kind::Bug`] when called twice.
pub fn init(format: Format, level: Option<Level>) -> Result<()> {
    let level = match (level, std::env::var(LEVEL_VARIABLE)) {
        (Some(level), _) => level,
        (None, Ok(word)) if !word.is_empty() => {
            word.parse().map_err(|e: Error| e.while_doing(LEVEL_VARIABLE))?
        }
        _ => Level::default(),
    };
    let subscriber = subscriber(format, level, io::stderr().is_terminal(), io::stderr);
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|e| Error::bug("setting up the log a second time").caused_by(e))
}

fn subscriber<W>(format: Format, level: Level, color: bool, to: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let ours_alone = Targets::new().with_target(module_path!(), level.filter());
    let lines = tracing_subscriber::fmt::layer().with_target(false).with_writer(to);
    let layer = match format {
        Format::Text => lines.with_ansi(color).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(ours_alone))
}

/// Whole milliseconds, the unit of every duration that is written.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is written while `act` runs.
    fn written(format: Format, level: Level, act: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let to = Lines(lines.clone());
        let subscriber = subscriber(format, level, false, move || to.clone());
        tracing::subscriber::with_default(subscriber, act);
        let bytes = lines.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[derive(Clone)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn every_event(error: &Error) -> Vec<Event<'_>> {
        let (instance, field, took, wait) = ("kampot", "sex", SECOND, SECOND);
        let (epoch, records, rows, cases, count, bytes) = (Epoch(7), 3, 4, 5, 6, 8);
        let (attempt, attempts) = (1, 2);
        vec![
            Event::Started { version: "0.1.0", instances: 2, workers: 1 },
            Event::Restored { epoch, records, took, counted_anew: true },
            Event::StateMended { why: "the end was cut" },
            Event::Rewound { fields: "age, sex" },
            Event::TableMended { table: "sync_status", is_lost: false },
            Event::TableMended { table: "changes", is_lost: true },
            Event::ComparisonWaits { why: "the state was deleted" },
            Event::RecordsErased { count: 2 },
            Event::Reconciled { why: "the state was deleted", rows, took },
            Event::FirstLoadFinished { instance, cases, took },
            Event::EpochWritten { epoch, cases, rows, took },
            Event::SnapshotWritten { epoch, records, bytes, took },
            Event::SnapshotFailed { error },
            Event::SourceRetried { instance, attempt, wait, error },
            Event::SourceRecovered { instance, attempts },
            Event::SourceStopped { instance, error },
            Event::CasesRefused { instance, count, why: "the id is missing" },
            Event::MisfitsCounted { instance, field, count },
            Event::LabelDiffers {
                instance,
                concept: "residential",
                field,
                id: "residential_care",
                expected: "Residential care",
                found: "Other",
            },
            Event::SinkRetried { attempt, wait, error },
            Event::SinkRecovered { attempts },
            Event::WebStarted { address: SocketAddr::from(([127, 0, 0, 1], 80)) },
            Event::StopRequested { how: "ctrl-c" },
            Event::CensusFailed { instance, error },
            Event::RecordsGone { instance, gone: 1, known: 9 },
            Event::RecordsWithheld { instance, gone: 8, known: 9 },
            Event::SecretIsOpen { path: Path::new("state.key"), mode: 0o644 },
            Event::Stopped { epoch },
        ]
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn every_event_is_one_line_with_its_facts() {
        let error = Error::new(Kind::Temporary, "asking for changed cases");
        let events = every_event(&error);
        let text = written(Format::Json, Level::Debug, || events.iter().for_each(emit));
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), events.len());
        for (event, line) in events.iter().zip(&lines) {
            let message = line["message"].as_str().unwrap();
            assert!(message.starts_with(|c: char| c.is_ascii_lowercase()), "{message}");
            let facts =
                line.as_object().unwrap().len() - "timestamp level message".split(' ').count();
            assert!(facts > 0, "{event:?} must come with its facts: {line}");
        }
        assert_eq!(lines[10]["epoch"], 7);
        assert_eq!(lines[10]["took_ms"], 1000);
        assert_eq!(lines[13]["error"], "asking for changed cases");
    }

    #[test]
    fn the_level_decides_what_is_written() {
        let error = Error::bug("x");
        let lines = |level| {
            let text = written(Format::Text, level, || every_event(&error).iter().for_each(emit));
            text.lines().count()
        };
        assert_eq!(lines(Level::Off), 0);
        assert_eq!(lines(Level::Error), 3);
        assert!(lines(Level::Warn) > 1);
        assert!(lines(Level::Info) > lines(Level::Warn));
        assert_eq!(lines(Level::Debug), every_event(&error).len());
    }

    #[test]
    fn libraries_are_never_heard() {
        let text = written(Format::Text, Level::Debug, || {
            tracing::error!(target: "hyper::proto", "GET /api/v2/cases?name=…");
            tracing::error!(target: "tonle::source", "something this file does not say");
            emit(&Event::StateMended { why: "the end was cut" });
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.ends_with("WARN mended the state why=\"the end was cut\"\n"), "{text}");
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for (name, level) in Level::ALL {
            assert_eq!(name.parse::<Level>().unwrap(), level);
            assert_eq!(level.to_string(), name);
        }
        assert_eq!("trace".parse::<Level>().unwrap_err().kind(), Kind::Config);
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
        assert_eq!("xml".parse::<Format>().unwrap_err().kind(), Kind::Config);
    }

    #[test]
    fn a_failure_names_its_cause_and_what_to_do() {
        let said = |error: &Error| {
            let mut bytes = Vec::new();
            write_failure(&mut bytes, error).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let error = Error::config("reading tonle.toml")
            .caused_by(io::Error::from(io::ErrorKind::NotFound))
            .advise("make one with `tonle init`");
        let text = said(&error);
        assert_eq!(
            text,
            "error: reading tonle.toml: entity not found (make one with `tonle init`)\n"
        );
        assert!(said(&Error::bug("counting")).contains("please report it"));
    }
}
