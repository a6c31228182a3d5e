//! What the pipeline knows besides the visible records: cursors, records that wait, places, the day.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataflow::Input;
use crate::model::{
    Arrival, Backfill, Case, Code, Cursor, Day, EpochInput, Location, LocationTree, RecordChange,
    RecordKey, SharedMap, Tally,
};
use crate::state::Restored;

/// Everything but the visible records, as of the last epoch.
pub(super) struct Standing {
    /// The configured instances.
    instances: Vec<Code>,
    /// Those of them that are read from files.
    replayed: BTreeSet<Code>,
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
    pub(super) fn of(restored: &Restored, instances: Vec<Code>, replayed: BTreeSet<Code>) -> Self {
        let done = restored.cursors.iter().filter(|(_, cursor)| cursor.first_load_done);
        let mut released: BTreeSet<_> = done.map(|(instance, _)| *instance).collect();
        // Cursors are those of the last epoch: what the tail releases is not released yet.
        for input in &restored.tail {
            let again = |i: &Code| input.arrivals.iter().any(|a| a.instance == *i && a.is_backfill);
            released.retain(|instance| !input.released.contains(instance) || again(instance));
        }
        Self {
            instances,
            replayed,
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

    /// Forgets what waits of some records.
    pub(super) fn forget(&mut self, is_erased: impl Fn(RecordKey) -> bool) {
        for changes in self.deferred.values_mut() {
            changes.retain(|change| !is_erased(change.key));
        }
    }

    /// Makes every instance be read again from the beginning, because `fields` were never read. A server that is
    /// published is followed meanwhile; files are read again first, for what is new stands behind what is old.
    pub(super) fn rewind(&self, fields: &[String]) -> Vec<Arrival> {
        let rewound = |(instance, cursor): (&Code, &Cursor)| Arrival {
            instance: *instance,
            cursor: self.rewound(*instance, cursor, fields),
            deferred: !self.is_released(*instance),
            is_backfill: false,
            changes: Vec::new(),
        };
        self.cursors.iter().map(rewound).collect()
    }

    fn rewound(&self, instance: Code, cursor: &Cursor, fields: &[String]) -> Cursor {
        if !cursor.first_load_done {
            return Cursor::default();
        }
        let mut fields = fields.to_vec();
        let under_way = cursor.backfill.iter().flat_map(|backfill| &backfill.fields);
        fields.extend(under_way.cloned());
        fields.sort_unstable();
        fields.dedup();
        let backfill = Some(Backfill { fields, watermark: None });
        let is_followed = self.instances.contains(&instance) && !self.replayed.contains(&instance);
        let from = if is_followed { cursor.clone() } else { Cursor::default() };
        Cursor { first_load_done: true, backfill, ..from }
    }

    /// The fields for which an instance is being read again.
    pub(super) fn backfill(&self, instance: Code) -> Option<&Backfill> {
        self.cursors.get(&instance)?.backfill.as_ref()
    }

    /// Whether the backfill of an instance is kept back until it is complete: files may hold several versions of
    /// a record, and the tables must not go back to those before the last.
    pub(super) fn is_backfilled_at_once(&self, instance: Code) -> bool {
        self.replayed.contains(&instance)
    }

    pub(super) fn is_released(&self, instance: Code) -> bool {
        self.released.contains(&instance)
    }

    /// Whether every instance was read: it is published, and is among those that are `caught_up`.
    pub(super) fn all_read(&self, caught_up: &BTreeSet<Code>) -> bool {
        self.all_released() && self.instances.iter().all(|instance| caught_up.contains(instance))
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

    /// Notes how many records there are, when all were counted anew.
    pub(super) fn recount(&mut self, held: &BTreeMap<Code, i64>) {
        self.counts.clear();
        self.count(held);
    }

    /// Records of all instances that are published.
    pub(super) fn record_count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Records of an instance that are known, published or not.
    pub(super) fn records_of(&self, instance: Code) -> u64 {
        let visible = self.counts.get(&instance).copied().unwrap_or(0);
        let is_released = self.is_released(instance); // then those that wait are known already
        if is_released { visible } else { visible + self.deferred_count(instance) }
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

    /// Whether these are the places of an instance that are known.
    pub(super) fn knows(&self, instance: Code, places: &[Location]) -> bool {
        self.locations.get(&instance).is_some_and(|known| known == places)
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

/// What these changes do to these records.
pub(super) fn tally_of(records: &SharedMap<RecordKey, Case>, changes: &[RecordChange]) -> Tally {
    let changed: BTreeSet<RecordKey> = changes.iter().map(|change| change.key).collect();
    let keys = changed.iter().copied();
    let mut known: BTreeSet<RecordKey> = keys.filter(|key| records.has(key)).collect();
    let mut tally = Tally::default();
    for change in changes {
        match &change.case {
            None => tally.disabled += u64::from(known.remove(&change.key)),
            Some(_) if known.insert(change.key) => tally.added += 1,
            Some(_) => tally.corrected += 1,
        }
    }
    tally
}

/// Records as the changes that make them.
pub(super) fn as_changes(
    records: impl IntoIterator<Item = (RecordKey, Case)>,
) -> Vec<RecordChange> {
    records.into_iter().map(|(key, case)| RecordChange { key, case: Some(case) }).collect()
}
