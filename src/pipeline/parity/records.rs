//! The cases of one instance, laid out as the pack `primero-parity` asks for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::indicator::{Definition, schema_of};
use crate::model::{Case, Day, Dictionary, Domain, Interner, LocationTree, RecordKey, Schema};
use crate::pipeline::standing::tree_of;
use crate::source::{self, Event, Resume, Settings, Shared};
use crate::state::State;

use super::figures;

/// Events that wait between the reader and us; a full channel slows the reader.
const EVENTS_WAITING_MAX: usize = 8;

/// Everything that our figures are computed from.
pub(super) struct Held {
    /// What is counted.
    pub(super) definition: Definition,
    /// How the records are laid out.
    pub(super) schema: Schema,
    pub(super) dictionary: Dictionary,
    pub(super) places: LocationTree,
    pub(super) today: Day,
    pub(super) records: BTreeMap<RecordKey, Case>,
    /// What the pack asks for and the state does not hold: `field`, `subform`, `subform.field`.
    pub(super) missing: Vec<String>,
    /// Whether the instance was read to its end at least once.
    pub(super) is_complete: bool,
}

/// The cases of an instance as the state of the pipeline holds them, also beside a running one.
///
/// # Errors
/// When the state cannot be read.
pub(super) fn of_state(config: &Config, settings: &Settings) -> Result<Held> {
    let definition = figures::definition()?;
    let schema = schema_of(&definition);
    let state = State::read_only(&config.state)?;
    let restored = state.restore(None, &schema)?;
    let instance = restored.dictionary.code(Domain::Instance, &settings.name);
    let cursor = instance.and_then(|instance| restored.cursors.get(&instance));
    let of_instance = |record: &(RecordKey, Case)| Some(record.1.instance()) == instance;
    Ok(Held {
        is_complete: cursor.is_some_and(|cursor| cursor.first_load_done),
        places: tree_of(&restored.locations),
        today: restored.today.unwrap_or(Day::FIRST),
        records: restored.records.into_iter().filter(of_instance).collect(),
        missing: restored.new_fields,
        dictionary: restored.dictionary,
        definition,
        schema,
    })
}

/// The cases of an instance, read from its server now and kept nowhere else.
///
/// # Errors
/// As for reading an instance once.
pub(super) async fn read(config: &Config, settings: &Settings) -> Result<Held> {
    let definition = figures::definition()?;
    let schema = Arc::new(schema_of(&definition));
    let interner = Interner::default();
    let (sender, mut events) = mpsc::channel(EVENTS_WAITING_MAX);
    let (_stop, stopped) = watch::channel(false);
    let shared = Shared {
        schema: Arc::clone(&schema),
        interner: interner.clone(),
        key: config.pseudonym_key.clone(),
        erased: source::Erased::new(&config.pseudonym_key, [])?, // Primero's reports count them too
        once: true,
        events: sender,
        stop: stopped,
    };
    let task = source::start(settings.clone(), Resume::default(), &shared)?;
    drop(shared);
    let mut records = BTreeMap::new();
    let mut places = BTreeMap::new();
    let mut ended = None;
    while let Some(event) = events.recv().await {
        match event {
            Event::Batch(batch) => {
                for change in batch.changes {
                    match change.case {
                        Some(case) => records.insert(change.key, case),
                        None => records.remove(&change.key),
                    };
                }
            }
            Event::Locations { instance, places: all } => {
                places.insert(instance, all);
            }
            Event::Ended { result, .. } => ended = Some(result),
            Event::Labels { .. }
            | Event::CaughtUp { .. }
            | Event::Census { .. }
            | Event::CensusFailed { .. }
            | Event::Trouble { .. } => {}
        }
    }
    let doing = || format!("reading instance {:?} anew", settings.name);
    task.await.map_err(|error| Error::bug(doing()).caused_by(error))?;
    let unfinished = || Err(Error::new(Kind::Temporary, "the reading did not end"));
    ended.unwrap_or_else(unfinished).map_err(|error| error.while_doing(doing()))?;
    let today = Day::of(Timestamp::now().to_zoned(config.time_zone.clone()).date());
    Ok(Held {
        definition,
        schema: Arc::unwrap_or_clone(schema),
        dictionary: interner.read(Dictionary::clone),
        places: tree_of(&places),
        today: today.unwrap_or(Day::FIRST),
        records,
        missing: Vec::new(),
        is_complete: true,
    })
}
