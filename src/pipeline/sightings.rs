//! Days of first sight: since when a field without a date of its own holds what it holds.
//!
//! A source tells the day of the version that it read; whoever holds the versions before knows better. So the day
//! is settled here, once, before a version enters the log: log, snapshot, dataflow and oracle all see the same one.

use std::collections::HashMap;

use crate::model::{Case, RecordChange, RecordKey, Schema, Watched};
use crate::state::Restored;

/// What each watched field of each record was last seen to hold, and since when, as words.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    watched: Vec<Watched>,
    /// By record, for each watched field: its word and that of the day. Only records that hold any.
    held: HashMap<RecordKey, Vec<(u32, u32)>>,
}

impl Sightings {
    /// Nothing seen yet.
    pub(super) fn new(schema: &Schema) -> Self {
        Self { watched: schema.watched().to_vec(), ..Self::default() }
    }

    /// What the newest version of every record says, visible or not.
    pub(super) fn of(restored: &Restored, schema: &Schema) -> Self {
        let mut sightings = Self::new(schema);
        if sightings.watched.is_empty() {
            return sightings;
        }
        for (key, case) in &restored.records {
            sightings.note(*key, Some(case));
        }
        let tail = restored.tail.iter().flat_map(|input| &input.arrivals);
        let waiting = restored.deferred.values().chain(tail.map(|arrival| &arrival.changes));
        for change in waiting.flatten() {
            sightings.note(change.key, change.case.as_ref());
        }
        sightings
    }

    /// Gives versions the day on which what they hold was seen first.
    pub(super) fn settle(&mut self, changes: &mut [RecordChange]) {
        if self.watched.is_empty() {
            return;
        }
        for change in changes {
            if let (Some(case), Some(held)) = (&mut change.case, self.held.get(&change.key)) {
                for (watched, (word, day)) in self.watched.iter().zip(held) {
                    let is_same = case.word(watched.value) == *word && *word != 0 && *day != 0;
                    if is_same && case.word(watched.first_seen) != *day {
                        *case = case.with_first_seen(*watched, *day);
                    }
                }
            }
            self.note(change.key, change.case.as_ref());
        }
    }

    fn note(&mut self, key: RecordKey, case: Option<&Case>) {
        let words = |case: &Case| -> Vec<(u32, u32)> {
            self.watched.iter().map(|w| (case.word(w.value), case.word(w.first_seen))).collect()
        };
        match case.map(words).filter(|words| words.iter().any(|(word, _)| *word != 0)) {
            Some(words) => self.held.insert(key, words),
            None => self.held.remove(&key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CaseBuilder, Code, FieldType};

    fn change(schema: &Schema, status: u32, day: u32) -> RecordChange {
        let mut builder = CaseBuilder::new(schema, Code(1));
        builder.put(schema.field("status").unwrap().slot, status);
        builder.first_seen(schema.watched()[0], day);
        RecordChange { key: RecordKey(7), case: Some(builder.finish(schema)) }
    }

    #[test]
    fn the_day_stays_while_the_value_does() {
        let fields = [("status", FieldType::Option), ("status_first_seen", FieldType::FirstSeen)];
        let schema = Schema::new(fields.map(|(name, kind)| (name.to_owned(), kind)), Vec::new());
        let mut sightings = Sightings::new(&schema);
        let mut days = Vec::new();
        for (status, day) in [(5, 10), (5, 12), (6, 13), (6, 20), (0, 21), (6, 22), (6, 23)] {
            let mut changes = [change(&schema, status, day)];
            sightings.settle(&mut changes);
            days.push(changes[0].case.as_ref().unwrap().word(schema.watched()[0].first_seen));
        }
        assert_eq!(days, [10, 10, 13, 13, 0, 22, 22]);
        sightings.settle(&mut [RecordChange { key: RecordKey(7), case: None }]);
        assert!(sightings.held.is_empty());
    }

    #[test]
    fn a_day_is_no_content() {
        let fields = [("status", FieldType::Option), ("status_first_seen", FieldType::FirstSeen)];
        let schema = Schema::new(fields.map(|(name, kind)| (name.to_owned(), kind)), Vec::new());
        let print = |status, day| change(&schema, status, day).case.unwrap().fingerprint(&schema);
        assert_eq!(print(5, 10), print(5, 11));
        assert_ne!(print(5, 10), print(5, 0)); // it was never read
        assert_ne!(print(5, 10), print(6, 10));
    }
}
