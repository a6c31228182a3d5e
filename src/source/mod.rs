//! What changed in Primero: asks, strips, and hands on coded cases. Nothing else knows HTTP or
//! Primero's JSON.
//!
//! Each stream of records is one task: the cases of an instance, and its incidents where they are
//! wanted, so that neither waits for the other. It reads pages (`poll`) from a server or lines (`replay`) from files,
//! decodes (`decode`) each record in the call that reads it, and sends [`Event`]s into a bounded
//! channel.
//!
//! **Invariant:** raw JSON never leaves this module; what leaves is coded, and keyed by pseudonyms.

mod poll;
mod census;
mod listing;
mod position;
mod parts;
mod texts;
mod ties;
mod replay;
mod client;
mod paths;
mod decode;
mod erasure;
mod given;
mod reader;
mod value;
mod moment;
mod plan;
mod pseudonym;
mod places;
mod labels;
mod managed;
mod asserted;
mod probe;
#[cfg(test)]
mod scripted;
mod outlet;
mod stumble;
mod settings;
mod defaults;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::decode::{Decoder, Stream};
use self::moment::Zone;
use self::outlet::{Halt, Outlet};
use self::poll::Poll;
use self::replay::Replay;
use crate::error::{Error, Result};
use crate::model::{Batch, Code, Cursor, Instant, Interner, Location, RecordKey, Schema, Secret};

pub use asserted::labels_of;
pub use defaults::defaults;
pub use erasure::Erased;
pub use given::{Given, given_places};
pub use labels::FieldLabels;
pub use managed::{ReportCell, ReportQuery, ReportReader, ReportValue};
pub use probe::{Findings, check};
pub use settings::{
    FileSettings, RawConcepts, RawMappings, RawSettings, ServerSettings, Settings, SourceKind,
};

/// Where to go on.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// The cursor of the last batch that is in the log.
    pub cursor: Cursor,
    /// The fingerprint of each case as it was last handed on.
    pub known: Vec<(RecordKey, u64)>,
}

/// What a source says.
#[derive(Debug)]
pub enum Event {
    /// New versions of records.
    Batch(Batch),
    /// All places of an instance.
    Locations {
        /// The instance.
        instance: Code,
        /// Its places.
        places: Vec<Location>,
    },
    /// What the options of an instance are called.
    Labels {
        /// The instance.
        instance: Code,
        /// Options by field.
        labels: Vec<FieldLabels>,
    },
    /// A complete read ended: everything that was there has been handed on.
    CaughtUp {
        /// The instance.
        instance: Code,
        /// How many cases it has, where it said so.
        total: Option<u64>,
        /// The newest change seen.
        newest: Option<Instant>,
    },
    /// Everything that an instance has was listed, and compared with what is known.
    Census {
        /// The instance.
        instance: Code,
        /// Records that are known.
        known: u64,
        /// Records that no list has.
        gone: u64,
        /// Whether those stay, because they are more than a setting allows to leave at once.
        is_withheld: bool,
    },
    /// That could not be done, so that nobody knows what was deleted.
    CensusFailed {
        /// The instance.
        instance: Code,
        /// Why.
        error: Error,
    },
    /// Something went wrong; it is tried again.
    Trouble {
        /// The instance.
        instance: Code,
        /// What went wrong.
        error: Error,
        /// Time until the next attempt.
        retry_in: Duration,
    },
    /// The last event of an instance.
    Ended {
        /// The instance.
        instance: Code,
        /// Why: an error that trying again cannot mend, or it was asked to stop, or is done.
        result: Result<()>,
    },
}

/// What the sources of a process share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What is read of a case.
    pub schema: Arc<Schema>,
    /// Codes of the terms met.
    pub interner: Interner,
    /// The key of all pseudonyms.
    pub key: Secret,
    /// Records that must not come back.
    pub erased: Erased,
    /// Whether a source ends when it is caught up.
    pub once: bool,
    /// Where events go. Bounded, so that a slow reader slows the sources.
    pub events: mpsc::Sender<Event>,
    /// Becomes true when the sources should stop.
    pub stop: watch::Receiver<bool>,
}

impl Shared {
    fn decoder(&self, settings: &Settings) -> Result<Decoder> {
        let (schema, interner) = (Arc::clone(&self.schema), self.interner.clone());
        let Settings { name, published_as, record_type, .. } = settings;
        let stream = Stream { name, published_as, record_type: *record_type };
        Decoder::new(&stream, schema, interner, &self.key, Zone::new(&settings.time_zone))
    }
}

/// A value that two different pseudonym keys do not share, and that tells nothing of the key.
///
/// # Errors
/// A configuration error when the key is too short.
pub fn key_check(key: &Secret) -> Result<u128> {
    Ok(pseudonym::Pseudonyms::new(key, "", "key check")?.key([]).0)
}

/// Starts reading an instance from where `resume` left it, as a task of the current runtime.
///
/// # Errors
/// A configuration error when reading cannot even begin; what happens later comes as events.
pub fn start(settings: Settings, resume: Resume, shared: &Shared) -> Result<JoinHandle<()>> {
    let decoder = shared.decoder(&settings)?;
    let instance = decoder.instance();
    let outlet = Outlet::new(shared.events.clone(), shared.stop.clone(), shared.erased.clone());
    let (once, poll_interval) = (shared.once, settings.poll_interval);
    let Resume { cursor, known } = resume;
    let mut reading = match settings.kind {
        SourceKind::File(settings) => {
            let replay = Replay { settings, decoder, cursor, poll_interval, once, outlet };
            Reading::Files(Box::new(replay))
        }
        SourceKind::Server(server) => {
            let mut poll = Poll::new(server, decoder, settings.record_type, cursor, known, outlet)?;
            (poll.once, poll.poll_interval) = (once, poll_interval);
            Reading::Server(Box::new(poll))
        }
    };
    let events = shared.events.clone();
    Ok(tokio::spawn(async move {
        let ended = match &mut reading {
            Reading::Files(replay) => replay.run().await,
            Reading::Server(poll) => poll.run().await,
        };
        let result = match ended {
            Ok(()) | Err(Halt::Stopped) => Ok(()),
            Err(Halt::Failed(error)) => Err(error),
        };
        // This fails only when nobody listens any more, and then nobody minds.
        let _ = events.send(Event::Ended { instance, result }).await;
    }))
}

/// An instance being read.
enum Reading {
    Files(Box<Replay>),
    Server(Box<Poll>),
}
