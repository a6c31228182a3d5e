//! What a source hands on: new versions of cases, coded, with the cursor they move.

use serde::{Deserialize, Serialize};

use super::{Case, Code, Cursor, Day, Epoch, Instant, Location, RecordKey};

/// A new version of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordChange {
    /// Which record.
    pub key: RecordKey,
    /// Its content now; `None` when it is gone from its instance for good.
    pub case: Option<Case>,
}

/// A record that could not be read at all. It is counted, and the batch goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The record's key, when at least its id could be read.
    pub key: Option<RecordKey>,
    /// Why, in fixed words that quote nothing of the record.
    pub reason: &'static str,
}

/// Changes of one instance that enter an epoch together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The instance, a code of [`super::Domain::Instance`].
    pub instance: Code,
    /// New versions, in the order they were read; of two versions of one record the later one holds.
    pub changes: Vec<RecordChange>,
    /// Where to go on once this batch is in the log.
    pub cursor: Cursor,
    /// Whether it was read for fields that were never read, so that nothing need have changed in the instance.
    pub is_backfill: bool,
    /// Records that could not be read.
    pub refusals: Vec<Refusal>,
    /// Values that did not fit their declared type, by name of the field, sorted.
    pub misfits: Vec<(String, u64)>,
}

/// Everything that enters the dataflow with one epoch, as it is logged and replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochInput {
    /// Its number.
    pub epoch: Epoch,
    /// When it was closed; the `updated_at` of every row it changes.
    pub at: Instant,
    /// New versions of records, by instance.
    pub arrivals: Vec<Arrival>,
    /// Instances whose first complete read ended: their deferred records become visible with this epoch.
    pub released: Vec<Code>,
    /// A clock tick.
    pub today: Option<Day>,
    /// The places of an instance, when they were read anew.
    pub locations: Vec<(Code, Vec<Location>)>,
}

impl EpochInput {
    /// Whether nothing enters with this epoch.
    pub fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
            && self.released.is_empty()
            && self.today.is_none()
            && self.locations.is_empty()
    }
}

/// A batch as it is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The instance.
    pub instance: Code,
    /// Where to go on after it.
    pub cursor: Cursor,
    /// Whether the records wait until their instance is released.
    pub deferred: bool,
    /// Whether it was read for fields that were never read.
    pub is_backfill: bool,
    /// New versions.
    pub changes: Vec<RecordChange>,
}
