//! What the pipeline knows besides the visible records: cursors, records that wait, places, the day.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataflow::{Dataflow, Input};
use crate::error::Result;
use crate::model::{
    Arrival, Case, Code, Cursor, Day, EpochInput, Location, LocationTree, RecordChange, RecordKey,
};
use crate::state::Restored;

/// Everything but the visible records, as of the last epoch.
pub(super) struct Standing {
    /// The configured instances.
    instances: Vec<Code>,
    cursors: BTreeMap<Code, Cursor>,
    /// Instances that are published.
    released: BTreeSet<Code>,
    /// Records of instances that are not.
    deferred: BTreeMap<Code, Vec<RecordChange>>,
    today: Option<Day>,
    locations: BTreeMap<Code, Vec<Location>>,
    counts: BTreeMap<Code, u64>,
}

/// What an epoch lets the dataflow see.
#[derive(Default)]
pub(super) struct Visible {
    pub(super) changes: Vec<RecordChange>,
    pub(super) today: Option<Day>,
    pub(super) places_changed: bool,
}

impl Visible {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.today.is_none() && !self.places_changed
    }

    pub(super) fn into_input(self) -> Input {
        Input { changes: self.changes, today: self.today }
    }
}

impl Standing {
    /// As of `restored.base`; the records themselves are not kept.
    pub(super) fn of(restored: &Restored, instances: Vec<Code>) -> Self {
        let done = restored.cursors.iter().filter(|(_, cursor)| cursor.first_load_done);
        let mut released: BTreeSet<_> = done.map(|(instance, _)| *instance).collect();
        // Cursors are those of the last epoch: what the tail releases is not released yet.
        for instance in restored.tail.iter().flat_map(|input| &input.released) {
            released.remove(instance);
        }
        Self {
            instances,
            released,
            cursors: restored.cursors.clone(),
            deferred: restored.deferred.clone(),
            today: restored.today,
            locations: restored.locations.clone(),
            counts: counts_of(&restored.records),
        }
    }

    /// Takes an epoch in; what it does not let the dataflow see yet is kept.
    pub(super) fn absorb(&mut self, input: EpochInput) -> Visible {
        let mut visible = Visible { today: input.today, ..Visible::default() };
        self.today = input.today.or(self.today);
        for (instance, places) in input.locations {
            let before = self.locations.insert(instance, places);
            visible.places_changed |= before.as_ref() != self.locations.get(&instance);
        }
        // What waits was read before the release, and that before what is seen at once.
        let (waiting, seen): (Vec<_>, _) = input.arrivals.into_iter().partition(|a| a.deferred);
        for arrival in waiting {
            self.cursors.insert(arrival.instance, arrival.cursor);
            self.deferred.entry(arrival.instance).or_default().extend(arrival.changes);
        }
        for instance in input.released {
            self.released.insert(instance);
            visible.changes.extend(self.deferred.remove(&instance).unwrap_or_default());
        }
        for arrival in seen {
            self.cursors.insert(arrival.instance, arrival.cursor);
            visible.changes.extend(arrival.changes);
        }
        visible
    }

    /// Makes every instance be read again from the beginning, because fields are asked for that were never read.
    pub(super) fn rewind(&self) -> Vec<Arrival> {
        let rewound = |(instance, cursor): (&Code, &Cursor)| Arrival {
            instance: *instance,
            cursor: Cursor { first_load_done: cursor.first_load_done, ..Cursor::default() },
            deferred: !self.is_released(*instance),
            changes: Vec::new(),
        };
        self.cursors.iter().map(rewound).collect()
    }

    /// Lets the dataflow see what an epoch changed, for callers that do not want to know what follows from it.
    pub(super) fn hand_over(&mut self, dataflow: &mut Dataflow, visible: Visible) -> Result<()> {
        if !visible.changes.is_empty() || visible.today.is_some() {
            let changes = dataflow.advance(visible.into_input())?;
            self.count(&changes.held);
        }
        Ok(())
    }

    pub(super) fn is_released(&self, instance: Code) -> bool {
        self.released.contains(&instance)
    }

    pub(super) fn all_released(&self) -> bool {
        self.instances.iter().all(|instance| self.released.contains(instance))
    }

    pub(super) fn deferred_count(&self, instance: Code) -> u64 {
        self.deferred.get(&instance).map_or(0, |changes| changes.len() as u64)
    }

    /// Notes how many records an epoch added or removed.
    pub(super) fn count(&mut self, held: &BTreeMap<Code, i64>) {
        for (instance, more) in held {
            let count = self.counts.entry(*instance).or_default();
            *count = count.saturating_add_signed(*more);
        }
    }

    /// Records of all instances that are published.
    pub(super) fn record_count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Records of an instance that are known, published or not.
    pub(super) fn records_of(&self, instance: Code) -> u64 {
        self.counts.get(&instance).copied().unwrap_or(0) + self.deferred_count(instance)
    }

    pub(super) fn today(&self) -> Option<Day> {
        self.today
    }

    pub(super) fn cursors(&self) -> &BTreeMap<Code, Cursor> {
        &self.cursors
    }

    pub(super) fn deferred(&self) -> &BTreeMap<Code, Vec<RecordChange>> {
        &self.deferred
    }

    pub(super) fn locations(&self) -> &BTreeMap<Code, Vec<Location>> {
        &self.locations
    }

    /// The places of all instances; where two name one code differently, the later instance holds.
    pub(super) fn tree(&self) -> LocationTree {
        tree_of(&self.locations)
    }
}

/// The places of all instances as one tree.
pub(super) fn tree_of(locations: &BTreeMap<Code, Vec<Location>>) -> LocationTree {
    let mut tree = LocationTree::default();
    for places in locations.values() {
        tree.extend(places.iter().cloned());
    }
    tree
}

fn counts_of(records: &[(RecordKey, Case)]) -> BTreeMap<Code, u64> {
    let mut counts = BTreeMap::new();
    for (_, case) in records {
        *counts.entry(case.instance()).or_default() += 1;
    }
    counts
}

/// Records as the changes that make them.
pub(super) fn as_changes(records: Vec<(RecordKey, Case)>) -> Vec<RecordChange> {
    records.into_iter().map(|(key, case)| RecordChange { key, case: Some(case) }).collect()
}
