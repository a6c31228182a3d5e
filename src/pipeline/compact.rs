//! Compaction of a state that nobody uses: one new snapshot, and nothing else; option ids that no record has any more
//! go as well, which a running pipeline cannot do, for it computes with their codes.

use std::collections::HashSet;
use std::time::Duration;

use super::erase::level;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::indicator::schema_of;
use crate::model::{Case, Code, Domain, Epoch, FieldType, Schema, Slot, Subform};
use crate::sink::look::Look;
use crate::source::{self, Erased};
use crate::state::{Agreement, Restored, SnapshotContent, SnapshotWritten, State};

const DOING: &str = "compacting the state";
const ADVICE: &str = "run `tonle run --once` first";

/// How often the tables are brought up to the state before it is called impossible.
const LEVELS_MAX: usize = 2;

/// How often a snapshot that is being written is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What a compaction left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The epoch of the one snapshot.
    pub epoch: Epoch,
    /// Its size in bytes.
    pub bytes: u64,
    /// Records in it.
    pub records: usize,
    /// Terms that no record has any more.
    pub terms_emptied: usize,
}

/// Rewrites the state as one snapshot.
///
/// What Postgres does not show yet is written there first.
///
/// # Errors
/// Temporary while a pipeline uses the state; DataDiffers when the tables are not of this state, or a pack changed
/// since. Nothing is changed then: `tonle run` has to go first.
pub async fn compact(config: &Config) -> Result<Compacted> {
    State::read_only(&config.state)?; // none is made
    let schema = schema_of(&config.definition);
    let (mut state, mut restored) = opened(config, &schema).await?;
    let erased = Erased::new(&config.pseudonym_key, state.erased()?)?;
    // An epoch that only the log has may hold a record that was erased since: it is in the records once that is level.
    for _ in 0..LEVELS_MAX {
        let is_level = restored.tail.is_empty() && !holds_erased(&restored, &erased);
        if is_level {
            break;
        }
        drop(state);
        level(config).await?;
        (state, restored) = opened(config, &schema).await?;
    }
    for changes in restored.deferred.values_mut() {
        erased.sieve(changes); // nobody sees those
    }
    if holds_erased(&restored, &erased) {
        let what = format!("{DOING}: the tables still show records that are to be erased");
        return Err(Error::new(Kind::Temporary, what).advise(ADVICE));
    }
    if !restored.tail.is_empty() {
        let what = format!("{DOING}: epochs after {} are not in Postgres yet", restored.base);
        return Err(Error::new(Kind::Temporary, what).advise(ADVICE));
    }
    let terms_emptied = empty_unused(&mut restored, &schema);
    let (epoch, records) = (restored.base, restored.records.len());
    state.compact(SnapshotContent::from(restored))?;
    let bytes = snapshot_end(&mut state).await?.bytes;
    Ok(Compacted { epoch, bytes, records, terms_emptied })
}

/// Waits for the snapshot that is being written.
pub(super) async fn snapshot_end(state: &mut State) -> Result<SnapshotWritten> {
    loop {
        match state.snapshot_finished() {
            None => tokio::time::sleep(LOOK_INTERVAL).await,
            Some(outcome) => return outcome,
        }
    }
}

/// Whether visible records are there that were erased: they have to leave with an epoch.
fn holds_erased(restored: &Restored, erased: &Erased) -> bool {
    restored.records.iter().any(|(key, _)| erased.is_erased(*key))
}

/// The state, as of what the tables show.
async fn opened(config: &Config, schema: &Schema) -> Result<(State, Restored)> {
    let mut state = State::open(&config.state)?;
    state.tie_to_key(source::key_check(&config.pseudonym_key)?)?;
    let position = Look::open(&config.sink).await?.position().await?;
    let ours = position.filter(|position| position.pipeline == Some(state.pipeline_id().0));
    let restored = state.restore(ours.map(|position| position.epoch), schema)?;
    if restored.agreement != Agreement::Agrees {
        let what = format!("{DOING}: the tables do not show what it holds");
        return Err(Error::new(Kind::DataDiffers, what).advise(ADVICE));
    }
    if restored.schema_changed {
        let what = format!("{DOING}: the packs ask for other fields than before");
        return Err(Error::new(Kind::DataDiffers, what).advise(ADVICE));
    }
    Ok((state, restored))
}

/// Empties the option ids and case workers that no record has.
fn empty_unused(restored: &mut Restored, schema: &Schema) -> usize {
    let mut used = Used::default();
    let deferred = restored.deferred.values().flatten().filter_map(|change| change.case.as_ref());
    for case in restored.records.iter().map(|(_, case)| case).chain(deferred) {
        used.add(case, schema);
    }
    let dictionary = &mut restored.dictionary;
    let options = dictionary.empty_unused(Domain::Option, |code| used.options.contains(&code));
    options + dictionary.empty_unused(Domain::Worker, |code| used.workers.contains(&code))
}

/// Codes that records have.
#[derive(Default)]
struct Used {
    options: HashSet<Code>,
    workers: HashSet<Code>,
}

impl Used {
    fn add(&mut self, case: &Case, schema: &Schema) {
        for field in schema.fields() {
            match field.slot {
                Slot::Word(slot) => self.word(field.field_type, case.word(slot)),
                Slot::Set(index) => {
                    let words = case.set(schema, index);
                    words.iter().for_each(|word| self.word(field.field_type, *word));
                }
            }
        }
        for (index, subform) in schema.subforms().iter().enumerate() {
            for row in case.rows(schema, index) {
                let words = &row[Subform::KEY_WORDS..];
                for (field, word) in subform.fields.iter().zip(words) {
                    self.word(field.field_type, *word);
                }
            }
        }
    }

    fn word(&mut self, field_type: FieldType, word: u32) {
        match field_type {
            FieldType::Option | FieldType::Options => self.options.insert(Code(word)),
            FieldType::Worker => self.workers.insert(Code(word)),
            _ => false,
        };
    }
}
