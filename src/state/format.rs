//! What the frames of state files hold, byte for byte; the only file that names bincode.
//!
//! How a file begins is said in [`super::beginning`]; then come frames. A payload begins with a tag.
//! Integers are bincode varints; the words of a case follow each other in the same varints, behind
//! the 16 bytes of its key and their number plus one (0: the record is gone).
//! Nothing decoded here is trusted before it was checked: a limit on each length, the layout of
//! each case, the range of each day and level.

use std::collections::BTreeMap;

use bincode::Options;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{
    Arrival, Backfill, Basis, Case, Code, Cursor, Day, Entry, Epoch, FieldType, Instant, LEVEL_MAX,
    Location, RecordChange, RecordKey, RowField, Schema, Subform, Sum,
};

use super::frame::FRAME_BYTES_MAX;
use super::record::take_records;
use super::sums::take_sums;
use super::translation::Translation;

/// The greatest epoch there can be: Postgres counts no further.
const EPOCH_MAX: Epoch = Epoch(i64::MAX as u64);

/// Bytes of the payload of a commit frame.
pub(super) const COMMIT_BYTES: usize = 21;

/// Most fields, subforms, or fields of a subform in a schema.
const SCHEMA_FIELDS_MAX: usize = 4096;

// What the first byte of a payload says it is.
pub(super) const HEAD: u8 = 1;
pub(super) const ENTRIES: u8 = 2;
pub(super) const ARRIVAL: u8 = 3;
pub(super) const PLACES: u8 = 4;
pub(super) const TURN: u8 = 5;
pub(super) const COMMIT: u8 = 6;
pub(super) const DEFERRED: u8 = 7;
pub(super) const RECORDS: u8 = 8;
pub(super) const FOOTER: u8 = 9;
pub(super) const BACKFILL: u8 = 10;
pub(super) const SEALED: u8 = 11;
pub(super) const SHARD: u8 = 12;
pub(super) const COUNTS: u8 = 13;
pub(super) const SUMS: u8 = 14;

/// Something too large for the format was to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooLarge(pub(super) &'static str);

/// Why a payload was refused, in fixed words.
type Refused = &'static str;

/// How a segment begins.
#[derive(Clone, Debug)]
pub(super) struct SegmentHead {
    pub(super) pipeline: u128,
    pub(super) first: Epoch,
    /// The last epoch before this segment; 0 when it begins the log.
    pub(super) previous: Epoch,
    /// How many dictionary entries were logged before this segment.
    pub(super) entry_count: u64,
    pub(super) schema: Schema,
}

/// How a snapshot begins.
#[derive(Clone, Debug)]
pub(super) struct SnapshotHead {
    pub(super) pipeline: u128,
    pub(super) epoch: Epoch,
    pub(super) record_count: u64,
    pub(super) today: Option<Day>,
    pub(super) cursors: BTreeMap<Code, Cursor>,
    pub(super) schema: Schema,
}

/// The end of an epoch in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) epoch: Epoch,
    /// The newest epoch that was known to be on disk when this one was written.
    pub(super) durable: Epoch,
    /// Frames of this epoch before this one.
    pub(super) frame_count: u32,
}

/// A frame behind the head of a file.
#[derive(Debug)]
pub(super) enum Frame {
    /// Additions to the dictionary; the first one is its `start`-th entry.
    Entries { start: u64, entries: Vec<Entry> },
    /// A batch, or more changes of the one before.
    Arrival { continued: bool, arrival: Arrival },
    /// What the cursor of an instance says of its backfill. Log: of the batch before it, and whether that is of it.
    Backfill { instance: Code, backfill: Option<Backfill>, is_of_it: bool },
    /// The places of an instance, or more of the ones before.
    Places { continued: bool, instance: Code, places: Vec<Location> },
    /// What else an epoch holds.
    Turn { at: Instant, released: Vec<Code>, today: Option<Day> },
    /// The end of an epoch.
    Commit(Commit),
    /// Snapshot: changes that wait until their instance is released.
    Deferred { instance: Code, changes: Vec<RecordChange> },
    /// Snapshot: records, since version 3 those of one shard, or more of them.
    Records { shard: Option<u8>, records: Vec<(RecordKey, Case)> },
    /// Snapshot, since version 4: what the records contribute to cells, or more of it.
    Sums { basis: Basis, today: Day, sums: Vec<Sum> },
    /// Snapshot: how many records there are, by shard that has any.
    Counts(BTreeMap<u8, u64>),
    /// The end of a snapshot: its number of frames before this one, and the checksum of their
    /// checksums.
    Footer { frame_count: u64, crc: u32 },
}

pub(super) type WireFields = Vec<(String, FieldType)>;
pub(super) type WireSchema = (WireFields, Vec<(String, WireFields)>);

#[derive(Serialize, Deserialize)]
pub(super) struct ArrivalHead {
    pub(super) continued: bool,
    pub(super) instance: Code,
    pub(super) cursor: Cursor,
    pub(super) deferred: bool,
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_varint_encoding().with_limit(FRAME_BYTES_MAX as u64)
}

pub(super) fn put<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    // Serializing to memory fails only beyond the limit, which leaves a frame that is refused as
    // too long.
    if options().serialize_into(&mut *bytes, value).is_err() {
        bytes.resize(bytes.len() + FRAME_BYTES_MAX + 1, 0);
    }
}

fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, Refused> {
    options().allow_trailing_bytes().deserialize_from(bytes).map_err(|_| "a frame is malformed")
}

fn take_changes(bytes: &[u8], translation: &Translation) -> Result<Vec<RecordChange>, Refused> {
    let mut changes = Vec::new();
    take_records(bytes, translation, |key, case| {
        changes.push(RecordChange { key, case });
        Ok(())
    })?;
    Ok(changes)
}

pub(super) fn wire_schema(schema: &Schema) -> WireSchema {
    let fields = schema.fields().iter().map(|field| (field.name.clone(), field.field_type));
    let subforms = schema.subforms().iter().map(|subform| {
        let fields = subform.fields.iter().map(|field| (field.name.clone(), field.field_type));
        (subform.name.clone(), fields.collect())
    });
    (fields.collect(), subforms.collect())
}

/// Lays a schema out anew from its names and types: where its fields lie is never read from a file.
fn schema_of((fields, subforms): WireSchema) -> Result<Schema, Refused> {
    let longest = subforms.iter().map(|(_, fields)| fields.len()).max().unwrap_or(0);
    if fields.len().max(subforms.len()).max(longest) > SCHEMA_FIELDS_MAX {
        return Err("the schema has too many fields");
    }
    let rows = |fields: WireFields| {
        fields.into_iter().map(|(name, field_type)| RowField { name, field_type }).collect()
    };
    let subforms =
        subforms.into_iter().map(|(name, fields)| Subform { name, fields: rows(fields) });
    Ok(Schema::new(fields, subforms.collect()))
}

/// Whether files can hold `schema`.
pub(super) fn schema_fits(schema: &Schema) -> bool {
    schema_of(wire_schema(schema)).as_ref() == Ok(schema)
}

fn possible(epoch: Epoch) -> Result<(), Refused> {
    if epoch <= EPOCH_MAX { Ok(()) } else { Err("an epoch is impossible") }
}

fn day_of(day: Option<Day>) -> Result<Option<Day>, Refused> {
    match day {
        Some(day) if Day::from_word(day.0).is_none() => Err("a day is out of range"),
        day => Ok(day),
    }
}

/// The head of a segment from its first frame.
pub(super) fn take_segment_head(payload: &[u8]) -> Result<SegmentHead, Refused> {
    let mut bytes = payload.strip_prefix(&[HEAD]).ok_or("the head of the file is missing")?;
    let (pipeline, first, previous, entry_count) = take(&mut bytes)?;
    let schema = schema_of(take(&mut bytes)?)?;
    nothing_left(bytes)?;
    possible(first)?;
    Ok(SegmentHead { pipeline, first, previous, entry_count, schema })
}

/// The head of a snapshot from its first frame.
pub(super) fn take_snapshot_head(payload: &[u8]) -> Result<SnapshotHead, Refused> {
    let mut bytes = payload.strip_prefix(&[HEAD]).ok_or("the head of the file is missing")?;
    let (pipeline, epoch, record_count) = take(&mut bytes)?;
    let (today, cursors) = take(&mut bytes)?;
    let schema = schema_of(take(&mut bytes)?)?;
    nothing_left(bytes)?;
    possible(epoch)?;
    Ok(SnapshotHead { pipeline, epoch, record_count, today: day_of(today)?, cursors, schema })
}

fn nothing_left(bytes: &[u8]) -> Result<(), Refused> {
    if bytes.is_empty() { Ok(()) } else { Err("a frame is longer than its content") }
}

/// The content of a frame behind the head of a file.
pub(super) fn take_frame(payload: &[u8], translation: &Translation) -> Result<Frame, Refused> {
    let (tag, mut bytes) = payload.split_first().ok_or("a frame is empty")?;
    let frame = match *tag {
        ENTRIES => {
            let (start, entries) = take(&mut bytes)?;
            Frame::Entries { start, entries }
        }
        ARRIVAL => {
            let ArrivalHead { continued, instance, cursor, deferred } = take(&mut bytes)?;
            let changes = take_changes(std::mem::take(&mut bytes), translation)?;
            let is_backfill = false; // unless a frame behind it says so
            let arrival = Arrival { instance, cursor, deferred, is_backfill, changes };
            Frame::Arrival { continued, arrival }
        }
        BACKFILL => {
            let (instance, backfill, is_of_it) = take(&mut bytes)?;
            Frame::Backfill { instance, backfill, is_of_it }
        }
        PLACES => {
            let (continued, instance, places): (_, _, Vec<Location>) = take(&mut bytes)?;
            if places.iter().any(|place| place.level > LEVEL_MAX) {
                return Err("the level of a place is impossible");
            }
            Frame::Places { continued, instance, places }
        }
        TURN => {
            let (at, released, today) = take(&mut bytes)?;
            Frame::Turn { at, released, today: day_of(today)? }
        }
        COMMIT => Frame::Commit(take_commit(std::mem::take(&mut bytes))?),
        DEFERRED => {
            let instance = take(&mut bytes)?;
            let changes = take_changes(std::mem::take(&mut bytes), translation)?;
            Frame::Deferred { instance, changes }
        }
        RECORDS => {
            let records = take_present(std::mem::take(&mut bytes), translation)?;
            Frame::Records { shard: None, records }
        }
        SHARD => {
            let (shard, rest) = bytes.split_first().ok_or("a frame of records has no shard")?;
            bytes = &[];
            let records = take_present(rest, translation)?;
            if records.iter().any(|(key, _)| key.shard() != usize::from(*shard)) {
                return Err("a record lies in another shard than its own");
            }
            Frame::Records { shard: Some(*shard), records }
        }
        SUMS => {
            let (basis, today) = take(&mut bytes)?;
            let today = day_of(Some(today))?.unwrap_or(today);
            Frame::Sums { basis, today, sums: take_sums(std::mem::take(&mut bytes))? }
        }
        COUNTS => Frame::Counts(take(&mut bytes)?),
        FOOTER => {
            let (frame_count, crc) = take(&mut bytes)?;
            Frame::Footer { frame_count, crc }
        }
        _ => return Err("the kind of a frame is unknown"),
    };
    nothing_left(bytes)?;
    Ok(frame)
}

/// Records of which each is there, ascending by key.
fn take_present(
    bytes: &[u8],
    translation: &Translation,
) -> Result<Vec<(RecordKey, Case)>, Refused> {
    let mut records = Vec::new();
    take_records(bytes, translation, |key, case| {
        records.push((key, case.ok_or("a snapshot holds a record that is gone")?));
        Ok(())
    })?;
    match records.is_sorted_by(|a, b| a.0 < b.0) {
        true => Ok(records),
        false => Err("records are out of order"),
    }
}

fn take_commit(bytes: &[u8]) -> Result<Commit, Refused> {
    let malformed = "a commit is malformed";
    let (epoch, bytes) = bytes.split_first_chunk().ok_or(malformed)?;
    let (durable, bytes) = bytes.split_first_chunk().ok_or(malformed)?;
    let frame_count = u32::from_le_bytes(bytes.try_into().map_err(|_| malformed)?);
    let epoch = Epoch(u64::from_le_bytes(*epoch));
    possible(epoch)?;
    Ok(Commit { epoch, durable: Epoch(u64::from_le_bytes(*durable)), frame_count })
}

/// The commit in a payload, if it is one.
pub(super) fn commit_in(payload: &[u8]) -> Option<Commit> {
    take_commit(payload.strip_prefix(&[COMMIT])?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::put_word;

    #[test]
    fn words_are_the_varints_of_bincode() {
        for word in [0, 250, 251, 0xffff, 0x1_0000, u32::MAX] {
            let mut bytes = Vec::new();
            put_word(&mut bytes, word);
            assert_eq!(bytes, options().serialize(&word).unwrap());
        }
    }

    #[test]
    fn hostile_payloads_are_refused_and_allocate_little() {
        let schema = Schema::new([("age".into(), FieldType::Integer)], Vec::new());
        let translation = Translation::new(&schema, &schema);
        let key = [1; 16];
        let with = |rest: &[u8]| [&[RECORDS][..], &key, rest].concat();
        let length = |tag: u8, varint: &[u8]| [&[tag][..], varint].concat();
        for payload in [
            with(&[]),
            with(&[0]),
            with(&[4, 1, 2]),
            with(&[252, 255, 255, 255, 255, 1, 2, 3]),
            with(&[253, 255, 255, 255, 255, 255, 255, 255, 255]),
            with(&[5, 1, 2, 3, 4]),
            length(ENTRIES, &[0, 253, 255, 255, 255, 255, 255, 255, 255, 255]),
            length(ENTRIES, &[0, 1, 0, 253, 255, 255, 255, 255, 255, 255, 255, 127]),
            length(PLACES, &[0, 1, 252, 255, 255, 255, 255]),
            length(PLACES, &[0, 1, 1, 1, 0, LEVEL_MAX + 1, 0, 0]),
            length(TURN, &[0, 0, 1, 0]),
            length(COMMIT, &[0; 19]),
            length(SHARD, &[]),
            length(SHARD, &[[2].as_slice(), &key, &[3, 1, 2]].concat()),
            length(COUNTS, &[253, 255, 255, 255, 255, 255, 255, 255, 127]),
            length(99, &[]),
            Vec::new(),
        ] {
            assert!(take_frame(&payload, &translation).is_err(), "{payload:?}");
        }
        assert!(take_frame(&with(&[3, 1, 2]), &translation).is_ok());
    }

    proptest::proptest! {
        /// Not even bytes with a right checksum make a reader panic.
        #[test]
        fn any_payload_is_read_or_refused(
            tag in 0u8..15,
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let schema = Schema::new([("concerns".into(), FieldType::Options)], Vec::new());
            let payload = [&[tag][..], &rest].concat();
            take_frame(&payload, &Translation::new(&schema, &schema)).ok();
            take_segment_head(&payload).ok();
            take_snapshot_head(&payload).ok();
        }
    }
}
