//! Erasure on request: asked for in the tables, carried out by the pipeline that runs, or else here.

use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use tokio::sync::watch;

use super::compact::compact;
use super::start::{Purpose, compile};
use super::{Options, Pipeline};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::model::{Interner, LocationTree, Tombstone};
use crate::report::Metrics;
use crate::sink::Sink;
use crate::source::{self, Erased};
use crate::state::State;

/// How long a running pipeline is waited for, and how often it is looked at.
const WAIT_MAX: Duration = Duration::from_secs(120);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How an erasure ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erasure {
    /// No table and no state file holds the records; so many were there, where that is known.
    Done {
        /// Records that left the tables.
        found: Option<usize>,
    },
    /// They will not come back, and whatever is held of them goes when the pipeline runs next.
    Noted,
}

/// Erases the records with these ids of an instance: from the tables, the state, and for good.
///
/// # Errors
/// A configuration error for an unknown instance or an id that is none, then nothing is asked for; whatever keeps
/// Postgres or the state from being written.
pub async fn erase(config: &Config, instance: &str, ids: &[String]) -> Result<Erasure> {
    let erased = Erased::new(&config.pseudonym_key, [])?;
    let tombstones = tombstones(config, &erased, instance, ids)?;
    let view = State::read_only(&config.state);
    let own = view.ok().and_then(|view| view.pipeline_id().ok().flatten());
    let bare = compile(config, &LocationTree::default(), &Interner::default())?;
    let mut sink = Sink::open(config.sink.clone(), bare.catalog()).await?;
    sink.ask_erasures(&tombstones).await?;
    let position = sink.position().await?;
    let shown = position.and_then(|position| position.pipeline);
    let pipeline = match (own, shown) {
        (Some(own), Some(shown)) if own.0 == shown => shown,
        _ => return Ok(Erasure::Noted), // whoever writes these tables will
    };
    match State::open(&config.state) {
        Err(error) if error.kind() == Kind::Temporary => wait(&mut sink, &tombstones).await,
        Err(error) => Err(error),
        Ok(state) => {
            drop(state);
            alone(config, sink, &tombstones, pipeline).await
        }
    }
}

fn tombstones(
    config: &Config,
    erased: &Erased,
    instance: &str,
    ids: &[String],
) -> Result<Vec<Tombstone>> {
    let is_it = |settings: &&source::Settings| settings.name == instance;
    let Some(settings) = config.instances.iter().find(is_it) else {
        let what = format!("erasing records: there is no instance {instance:?}");
        let known = config.instance_names().join(", ");
        return Err(Error::config(what).advise(format!("the instances are: {known}")));
    };
    let mut tombstones = Vec::with_capacity(2 * ids.len());
    for (index, id) in ids.iter().enumerate() {
        let of_id = erased.tombstones_of(&config.pseudonym_key, settings, id);
        let place = format!("erasing records: record {}", index + 1);
        tombstones.extend(of_id.map_err(|error| error.while_doing(place))?);
    }
    Ok(tombstones)
}

/// Brings the tables up to the state while no pipeline runs, without what was erased; gives how many records left them
/// for that. None when the instances have to be read first.
pub(super) async fn level(config: &Config) -> Result<Option<usize>> {
    let (_keep, stop) = watch::channel(false);
    let options = Options {
        once: true,
        stop,
        metrics: Arc::new(Metrics::new(config.instance_names())),
        observe: Box::new(|_| {}),
    };
    let mut pipeline = Pipeline::settled(config.clone(), options, Purpose::Erase).await?;
    let found = pipeline.erasing.held();
    let is_level = pipeline.retract().await? && pipeline.owed.is_none() && pipeline.level().await?;
    Ok(is_level.then_some(found))
}

/// Waits for the pipeline that runs.
async fn wait(sink: &mut Sink, tombstones: &[Tombstone]) -> Result<Erasure> {
    let begun = Stopwatch::now();
    while begun.elapsed() < WAIT_MAX {
        // One that the tables have lost meanwhile is not done.
        let all = sink.erasures().await?;
        let is_done = |tombstone: &Tombstone| {
            all.iter().any(|erasure| erasure.tombstone == *tombstone && erasure.is_done)
        };
        if tombstones.iter().all(is_done) {
            return Ok(Erasure::Done { found: None });
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(Erasure::Noted)
}

/// Does it while no pipeline runs.
async fn alone(
    config: &Config,
    mut sink: Sink,
    tombstones: &[Tombstone],
    pipeline: u128,
) -> Result<Erasure> {
    let Some(found) = level(config).await? else { return Ok(Erasure::Noted) };
    compact(config).await?;
    sink.erasures_done(tombstones, pipeline).await?;
    Ok(Erasure::Done { found: Some(found) })
}
