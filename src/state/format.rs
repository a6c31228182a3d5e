//! What the frames of state files hold, byte for byte; the only file that names bincode.
//!
//! A file begins with a magic word and the version of the format, then come frames. A payload
//! begins with a tag. Integers are bincode varints; the words of a case follow each other in the
//! same varints, behind the 16 bytes of its key and their number plus one (0: the record is gone).
//! Nothing decoded here is trusted before it was checked: a limit on each length, the layout of
//! each case, the range of each day and level.

use std::collections::BTreeMap;

use bincode::Options;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{
    Arrival, Case, Code, Cursor, Day, Entry, Epoch, FieldType, Instant, LEVEL_MAX, Location,
    RecordChange, RecordKey, RowField, Schema, Subform,
};

use super::frame::{FRAME_BYTES_GOAL, FRAME_BYTES_MAX, put_frame};
use super::translation::Translation;

/// Version of the format, written into each file.
pub(super) const VERSION: u32 = 1;

/// Magic word and version, in bytes.
pub(super) const PREAMBLE_BYTES: usize = 12;

/// Bytes of the payload of a commit frame.
pub(super) const COMMIT_BYTES: usize = 21;

/// Most words of one case, about 4 MB.
pub(super) const CASE_WORDS_MAX: usize = 1 << 20;

/// Most records of a frame.
pub(super) const FRAME_RECORDS_MAX: usize = 64 << 10;

/// Most fields, subforms, or fields of a subform in a schema.
const SCHEMA_FIELDS_MAX: usize = 4096;

/// The fewest bytes of a record: its key, the number of its words, the instance.
pub(super) const RECORD_BYTES_MIN: u64 = 18;

const HEAD: u8 = 1;
const ENTRIES: u8 = 2;
const ARRIVAL: u8 = 3;
const PLACES: u8 = 4;
const TURN: u8 = 5;
const COMMIT: u8 = 6;
const DEFERRED: u8 = 7;
const RECORDS: u8 = 8;
const FOOTER: u8 = 9;

/// The two kinds of files, told apart by their magic word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A part of the log.
    Segment,
    /// Everything as of one epoch.
    Snapshot,
}

impl FileKind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Segment => b"tonlelog",
            Self::Snapshot => b"tonlesnp",
        }
    }
}

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
    /// The places of an instance, or more of the ones before.
    Places { continued: bool, instance: Code, places: Vec<Location> },
    /// What else an epoch holds.
    Turn { at: Instant, released: Vec<Code>, today: Option<Day> },
    /// The end of an epoch.
    Commit(Commit),
    /// Snapshot: changes that wait until their instance is released.
    Deferred { instance: Code, changes: Vec<RecordChange> },
    /// Snapshot: records.
    Records(Vec<(RecordKey, Case)>),
    /// The end of a snapshot: its number of frames before this one, and the checksum of their
    /// checksums.
    Footer { frame_count: u64, crc: u32 },
}

type WireFields = Vec<(String, FieldType)>;
type WireSchema = (WireFields, Vec<(String, WireFields)>);

#[derive(Serialize, Deserialize)]
struct ArrivalHead {
    continued: bool,
    instance: Code,
    cursor: Cursor,
    deferred: bool,
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_varint_encoding().with_limit(FRAME_BYTES_MAX as u64)
}

fn put<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    // Serializing to memory fails only beyond the limit, which leaves a frame that is refused as
    // too long.
    if options().serialize_into(&mut *bytes, value).is_err() {
        bytes.resize(bytes.len() + FRAME_BYTES_MAX + 1, 0);
    }
}

fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, Refused> {
    options().allow_trailing_bytes().deserialize_from(bytes).map_err(|_| "a frame is malformed")
}

fn put_word(bytes: &mut Vec<u8>, word: u32) {
    match word {
        0..=250 => bytes.push(word as u8),
        251..=0xffff => {
            bytes.push(251);
            bytes.extend((word as u16).to_le_bytes());
        }
        _ => {
            bytes.push(252);
            bytes.extend(word.to_le_bytes());
        }
    }
}

fn take_word(bytes: &mut &[u8]) -> Option<u32> {
    let (first, rest) = bytes.split_first()?;
    match *first {
        word @ 0..=250 => {
            *bytes = rest;
            Some(u32::from(word))
        }
        251 => {
            let (word, rest) = rest.split_first_chunk()?;
            *bytes = rest;
            Some(u32::from(u16::from_le_bytes(*word)))
        }
        252 => {
            let (word, rest) = rest.split_first_chunk()?;
            *bytes = rest;
            Some(u32::from_le_bytes(*word))
        }
        _ => None,
    }
}

fn put_record(bytes: &mut Vec<u8>, key: RecordKey, case: Option<&Case>) {
    bytes.extend(key.to_bytes());
    let Some(case) = case else { return bytes.push(0) };
    let words = case.words();
    put_word(bytes, words.len() as u32 + 1);
    for word in words {
        put_word(bytes, *word);
    }
}

/// Takes records to the end of the payload, giving each to `keep`.
fn take_records(
    mut bytes: &[u8],
    translation: &Translation,
    mut keep: impl FnMut(RecordKey, Option<Case>) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let mut words = Vec::new();
    while !bytes.is_empty() {
        let (key, rest) = bytes.split_first_chunk().ok_or("a frame ends within a record")?;
        bytes = rest;
        let count = take_word(&mut bytes).ok_or("a frame ends within a record")? as usize;
        let case = if count == 0 {
            None
        } else {
            if count > bytes.len() + 1 || count - 1 > CASE_WORDS_MAX {
                return Err("the length of a case is impossible");
            }
            words.clear();
            for _ in 1..count {
                words.push(take_word(&mut bytes).ok_or("a frame ends within a record")?);
            }
            Some(translation.case(&words).ok_or("a case does not have the layout of its schema")?)
        };
        keep(RecordKey::from_bytes(*key), case)?;
    }
    Ok(())
}

fn take_changes(bytes: &[u8], translation: &Translation) -> Result<Vec<RecordChange>, Refused> {
    let mut changes = Vec::new();
    take_records(bytes, translation, |key, case| {
        changes.push(RecordChange { key, case });
        Ok(())
    })?;
    Ok(changes)
}

fn wire_schema(schema: &Schema) -> WireSchema {
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

fn day_of(day: Option<Day>) -> Result<Option<Day>, Refused> {
    match day {
        Some(day) if Day::from_word(day.0).is_none() => Err("a day is out of range"),
        day => Ok(day),
    }
}

fn begin(kind: FileKind) -> Vec<u8> {
    let mut bytes = kind.magic().to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes
}

/// Checks the first [`PREAMBLE_BYTES`] of a file.
pub(super) fn check_preamble(bytes: &[u8], kind: FileKind) -> Result<(), Refused> {
    match bytes.strip_prefix(kind.magic()) {
        None => Err("it does not begin as such a file does"),
        Some(version) if version != VERSION.to_le_bytes() => {
            Err("it was written in a version of the format that this program does not read")
        }
        Some(_) => Ok(()),
    }
}

/// The first bytes of a segment.
pub(super) fn segment_head(head: &SegmentHead) -> Result<Vec<u8>, TooLarge> {
    let mut bytes = begin(FileKind::Segment);
    let value = (head.pipeline, head.first, head.previous, head.entry_count);
    put_frame(&mut bytes, |bytes| {
        bytes.push(HEAD);
        put(bytes, &value);
        put(bytes, &wire_schema(&head.schema));
    })
    .ok_or(TooLarge("the schema"))?;
    Ok(bytes)
}

/// The head of a segment from its first frame.
pub(super) fn take_segment_head(payload: &[u8]) -> Result<SegmentHead, Refused> {
    let mut bytes = payload.strip_prefix(&[HEAD]).ok_or("the head of the file is missing")?;
    let (pipeline, first, previous, entry_count) = take(&mut bytes)?;
    let schema = schema_of(take(&mut bytes)?)?;
    nothing_left(bytes)?;
    Ok(SegmentHead { pipeline, first, previous, entry_count, schema })
}

/// The head of a snapshot from its first frame.
pub(super) fn take_snapshot_head(payload: &[u8]) -> Result<SnapshotHead, Refused> {
    let mut bytes = payload.strip_prefix(&[HEAD]).ok_or("the head of the file is missing")?;
    let (pipeline, epoch, record_count) = take(&mut bytes)?;
    let (today, cursors) = take(&mut bytes)?;
    let schema = schema_of(take(&mut bytes)?)?;
    nothing_left(bytes)?;
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
            let arrival = Arrival { instance, cursor, deferred, changes };
            Frame::Arrival { continued, arrival }
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
            let mut records = Vec::new();
            take_records(std::mem::take(&mut bytes), translation, |key, case| {
                records.push((key, case.ok_or("a snapshot holds a record that is gone")?));
                Ok(())
            })?;
            Frame::Records(records)
        }
        FOOTER => {
            let (frame_count, crc) = take(&mut bytes)?;
            Frame::Footer { frame_count, crc }
        }
        _ => return Err("the kind of a frame is unknown"),
    };
    nothing_left(bytes)?;
    Ok(frame)
}

fn take_commit(bytes: &[u8]) -> Result<Commit, Refused> {
    let malformed = "a commit is malformed";
    let (epoch, bytes) = bytes.split_first_chunk().ok_or(malformed)?;
    let (durable, bytes) = bytes.split_first_chunk().ok_or(malformed)?;
    let frame_count = u32::from_le_bytes(bytes.try_into().map_err(|_| malformed)?);
    let epoch = Epoch(u64::from_le_bytes(*epoch));
    Ok(Commit { epoch, durable: Epoch(u64::from_le_bytes(*durable)), frame_count })
}

/// The commit in a payload, if it is one.
pub(super) fn commit_in(payload: &[u8]) -> Option<Commit> {
    take_commit(payload.strip_prefix(&[COMMIT])?).ok()
}

/// Collects frames to be written.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    /// Frames so far.
    frame_count: u64,
    crcs: crc32fast::Hasher,
}

impl Writer {
    /// Begins a snapshot.
    pub(super) fn snapshot(head: &SnapshotHead) -> Result<Self, TooLarge> {
        let mut writer = Self { bytes: begin(FileKind::Snapshot), ..Self::default() };
        writer.frame("the cursors or the schema", |bytes| {
            bytes.push(HEAD);
            put(bytes, &(head.pipeline, head.epoch, head.record_count));
            put(bytes, &(head.today, &head.cursors));
            put(bytes, &wire_schema(&head.schema));
        })?;
        Ok(writer)
    }

    fn frame(
        &mut self,
        what: &'static str,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), TooLarge> {
        let crc = put_frame(&mut self.bytes, fill).ok_or(TooLarge(what))?;
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
        Ok(())
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

    /// Adds one frame of records, as many as fit; gives how many.
    pub(super) fn records(&mut self, records: &[(RecordKey, Case)]) -> Result<usize, TooLarge> {
        let mut taken = Ok(0);
        self.frame("the records", |bytes| {
            bytes.push(RECORDS);
            taken = put_records(bytes, records.iter().map(|(key, case)| (*key, Some(case))));
        })?;
        taken
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

/// Adds records up to the goal of a frame; gives how many.
fn put_records<'a>(
    bytes: &mut Vec<u8>,
    records: impl Iterator<Item = (RecordKey, Option<&'a Case>)>,
) -> Result<usize, TooLarge> {
    let end = bytes.len() + FRAME_BYTES_GOAL;
    let mut count = 0;
    for (key, case) in records {
        if case.is_some_and(|case| case.words().len() > CASE_WORDS_MAX) {
            return Err(TooLarge("a case"));
        }
        put_record(bytes, key, case);
        count += 1;
        if bytes.len() >= end || count == FRAME_RECORDS_MAX {
            break;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        for word in [0, 250, 251, 0xffff, 0x1_0000, u32::MAX] {
            let mut bytes = Vec::new();
            put_word(&mut bytes, word);
            assert_eq!(bytes, options().serialize(&word).unwrap(), "a varint as bincode's");
            assert_eq!(take_word(&mut &bytes[..]), Some(word));
            assert_eq!(take_word(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(take_word(&mut &[253, 0, 0, 0, 0, 0, 0, 0, 0][..]), None);
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
            length(99, &[]),
            Vec::new(),
        ] {
            assert!(take_frame(&payload, &translation).is_err(), "{payload:?}");
        }
        assert!(take_frame(&with(&[3, 1, 2]), &translation).is_ok());
    }

    #[test]
    fn a_long_batch_goes_on_in_other_frames() {
        let schema = Schema::new([("age".into(), FieldType::Integer)], Vec::new());
        let case = Case::from_words(&[1, u32::MAX], &schema).unwrap();
        let change = |key| RecordChange { key: RecordKey(key), case: Some(case.clone()) };
        let arrival = Arrival {
            instance: Code(1),
            cursor: Cursor::default(),
            deferred: true,
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
