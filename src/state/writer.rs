//! Frames being written: lists are split into frames of about a megabyte, records of a snapshot by
//! shard too.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{
    Arrival, Backfill, Basis, Case, Code, Day, Entry, Epoch, Instant, Location, RecordChange,
    RecordKey, Sum,
};

use super::beginning::{FileKind, begin};
use super::format::{
    ARRIVAL, ArrivalHead, BACKFILL, COMMIT, COUNTS, DEFERRED, ENTRIES, FOOTER, HEAD, PLACES, SHARD,
    SUMS, SegmentHead, SnapshotHead, TURN, TooLarge, put, wire_schema,
};
use super::frame::{FRAME_BYTES_GOAL, put_frame};
use super::record::put_records;
use super::seal::{Seal, StateKey};
use super::sums::put_sums;

/// Where the sealing of a file stands; nothing when it is not sealed.
#[derive(Clone, Default)]
pub(super) struct Sealing {
    seal: Option<Arc<Seal>>,
    /// The number of the next frame.
    number: u64,
}

#[cfg(test)]
impl Sealing {
    /// With the frame of this number next.
    pub(super) fn of(seal: Arc<Seal>, number: u64) -> Self {
        Self { seal: Some(seal), number }
    }
}

/// Collects frames to be written.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    /// Frames so far.
    frame_count: u64,
    crcs: crc32fast::Hasher,
    sealing: Sealing,
}

impl Writer {
    /// Begins a snapshot.
    pub(super) fn snapshot(head: &SnapshotHead, key: Option<&StateKey>) -> Result<Self, TooLarge> {
        let mut writer = Self::begin(FileKind::Snapshot, key, head.pipeline, head.epoch);
        writer.frame("the cursors or the schema", |bytes| {
            bytes.push(HEAD);
            put(bytes, &(head.pipeline, head.epoch, head.record_count));
            put(bytes, &(head.today, &head.cursors));
            put(bytes, &wire_schema(&head.schema));
        })?;
        Ok(writer)
    }

    /// Begins a segment: its first bytes, and how its frames are sealed.
    pub(super) fn segment(
        head: &SegmentHead,
        key: Option<&StateKey>,
    ) -> Result<(Vec<u8>, Sealing), TooLarge> {
        let mut writer = Self::begin(FileKind::Segment, key, head.pipeline, head.first);
        writer.frame("the schema", |bytes| {
            bytes.push(HEAD);
            put(bytes, &(head.pipeline, head.first, head.previous, head.entry_count));
            put(bytes, &wire_schema(&head.schema));
        })?;
        Ok((writer.bytes, writer.sealing))
    }

    fn begin(kind: FileKind, key: Option<&StateKey>, pipeline: u128, epoch: Epoch) -> Self {
        let (bytes, seal) = begin(kind, key, pipeline, epoch);
        Self { bytes, sealing: Sealing { seal, number: 0 }, ..Self::default() }
    }

    /// Goes on in a file.
    pub(super) fn after(sealing: Sealing) -> Self {
        Self { sealing, ..Self::default() }
    }

    /// Where the sealing of the file stands once everything that was collected is written.
    pub(super) fn sealing(&self) -> Sealing {
        self.sealing.clone()
    }

    fn frame(
        &mut self,
        what: &'static str,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), TooLarge> {
        let Sealing { seal, number } = &mut self.sealing;
        let seal = seal.as_deref().map(|seal| (seal, *number));
        let crc = put_frame(&mut self.bytes, seal, fill).ok_or(TooLarge(what))?;
        *number += 1;
        self.frame_count += 1;
        self.crcs.update(&crc.to_le_bytes());
        Ok(())
    }

    /// What was collected.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets what was collected, once it is written.
    pub(super) fn written(&mut self) {
        self.bytes.clear();
    }

    /// Adds dictionary entries, the first of them its `start`-th.
    pub(super) fn entries(&mut self, start: usize, entries: &[Entry]) -> Result<(), TooLarge> {
        // An entry is at most some 130 bytes, so a frame of these many is never too long.
        for (index, chunk) in entries.chunks(FRAME_BYTES_GOAL / 256).enumerate() {
            let start = (start + index * (FRAME_BYTES_GOAL / 256)) as u64;
            self.frame("the dictionary", |bytes| {
                bytes.push(ENTRIES);
                put(bytes, &(start, chunk));
            })?;
        }
        Ok(())
    }

    /// Adds a batch.
    pub(super) fn arrival(&mut self, arrival: &Arrival) -> Result<(), TooLarge> {
        let mut rest = &arrival.changes[..];
        let mut continued = false;
        while !(continued && rest.is_empty()) {
            let head = ArrivalHead {
                continued,
                instance: arrival.instance,
                cursor: arrival.cursor.clone(),
                deferred: arrival.deferred,
            };
            let mut taken = Ok(0);
            self.frame("a batch", |bytes| {
                bytes.push(ARRIVAL);
                put(bytes, &head);
                taken = put_records(bytes, rest.iter().map(|c| (c.key, c.case.as_ref())));
            })?;
            rest = &rest[taken?..];
            continued = true;
        }
        let backfill = arrival.cursor.backfill.as_ref();
        if backfill.is_some() || arrival.is_backfill {
            self.backfill(arrival.instance, backfill, arrival.is_backfill)?;
        }
        Ok(())
    }

    /// Adds what a cursor says of a backfill, and whether the batch before it is of it.
    pub(super) fn backfill(
        &mut self,
        instance: Code,
        backfill: Option<&Backfill>,
        is_of_it: bool,
    ) -> Result<(), TooLarge> {
        self.frame("the fields of a backfill", |bytes| {
            bytes.push(BACKFILL);
            put(bytes, &(instance, backfill, is_of_it));
        })
    }

    /// Adds changes that wait.
    pub(super) fn deferred(
        &mut self,
        instance: Code,
        changes: &[RecordChange],
    ) -> Result<(), TooLarge> {
        let mut rest = changes;
        while !rest.is_empty() {
            let mut taken = Ok(0);
            self.frame("the deferred records", |bytes| {
                bytes.push(DEFERRED);
                put(bytes, &instance);
                taken = put_records(bytes, rest.iter().map(|c| (c.key, c.case.as_ref())));
            })?;
            rest = &rest[taken?..];
        }
        Ok(())
    }

    /// Adds one frame of records of a shard, as many as fit; gives how many.
    pub(super) fn shard(
        &mut self,
        shard: u8,
        records: &[(RecordKey, Case)],
    ) -> Result<usize, TooLarge> {
        let mut taken = Ok(0);
        self.frame("the records", |bytes| {
            bytes.extend([SHARD, shard]);
            taken = put_records(bytes, records.iter().map(|(key, case)| (*key, Some(case))));
        })?;
        taken
    }

    /// Adds one frame of sums, as many as fit; gives how many.
    pub(super) fn sums(
        &mut self,
        basis: Basis,
        today: Day,
        sums: &[Sum],
    ) -> Result<usize, TooLarge> {
        let mut taken = 0;
        self.frame("the sums", |bytes| {
            bytes.push(SUMS);
            put(bytes, &(basis, today));
            taken = put_sums(bytes, sums);
        })?;
        Ok(taken)
    }

    /// Adds how many records each shard has.
    pub(super) fn counts(&mut self, counts: &BTreeMap<u8, u64>) -> Result<(), TooLarge> {
        self.frame("the counts of the shards", |bytes| {
            bytes.push(COUNTS);
            put(bytes, counts);
        })
    }

    /// Adds the places of an instance.
    pub(super) fn places(&mut self, instance: Code, places: &[Location]) -> Result<(), TooLarge> {
        let mut rest = places;
        let mut continued = false;
        while !(continued && rest.is_empty()) {
            let mut size = 0;
            let fits = rest.iter().take_while(|place| {
                size += place_bytes(place);
                size < FRAME_BYTES_GOAL
            });
            let count = fits.count().max(1).min(rest.len());
            self.frame("a place", |bytes| {
                bytes.push(PLACES);
                put(bytes, &(continued, instance, &rest[..count]));
            })?;
            rest = &rest[count..];
            continued = true;
        }
        Ok(())
    }

    /// Adds what else an epoch holds.
    pub(super) fn turn(
        &mut self,
        at: Instant,
        released: &[Code],
        today: Option<Day>,
    ) -> Result<(), TooLarge> {
        self.frame("the released instances", |bytes| {
            bytes.push(TURN);
            put(bytes, &(at, released, today));
        })
    }

    /// Ends an epoch.
    pub(super) fn commit(&mut self, epoch: Epoch, durable: Epoch) -> Result<(), TooLarge> {
        let frame_count = u32::try_from(self.frame_count).map_err(|_| TooLarge("an epoch"))?;
        self.frame("a commit", |bytes| {
            bytes.push(COMMIT);
            bytes.extend(epoch.0.to_le_bytes());
            bytes.extend(durable.0.to_le_bytes());
            bytes.extend(frame_count.to_le_bytes());
        })
    }

    /// Ends a snapshot.
    pub(super) fn footer(&mut self) -> Result<(), TooLarge> {
        let footer = (self.frame_count, self.crcs.clone().finalize());
        self.frame("the footer", |bytes| {
            bytes.push(FOOTER);
            put(bytes, &footer);
        })
    }
}

/// About how many bytes a place takes.
fn place_bytes(place: &Location) -> usize {
    let names = place.names.iter().map(|(language, name)| language.len() + name.len() + 8);
    32 + place.kind.len() + names.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cursor, FieldType, Schema};
    use crate::state::format::{Frame, take_frame};
    use crate::state::translation::Translation;

    #[test]
    fn a_long_batch_goes_on_in_other_frames() {
        let schema = Schema::new([("age".into(), FieldType::Integer)], Vec::new());
        let case = Case::from_words(&[1, u32::MAX], &schema).unwrap();
        let change = |key| RecordChange { key: RecordKey(key), case: Some(case.clone()) };
        let arrival = Arrival {
            instance: Code(1),
            cursor: Cursor::default(),
            deferred: true,
            is_backfill: false,
            changes: (0..100_000).map(change).collect(),
        };
        let mut writer = Writer::default();
        writer.arrival(&arrival).unwrap();
        assert!(writer.frame_count > 1);
        let mut frames =
            super::super::frame::Frames::new(writer.bytes(), 0, writer.bytes().len() as u64);
        let translation = Translation::new(&schema, &schema);
        let mut read: Vec<RecordChange> = Vec::new();
        while let Some((payload, _)) = frames.next().unwrap() {
            let Ok(Frame::Arrival { continued, arrival }) = take_frame(payload, &translation)
            else {
                panic!("another frame");
            };
            assert_eq!(continued, !read.is_empty());
            read.extend(arrival.changes);
        }
        assert_eq!(read, arrival.changes);
    }
}
