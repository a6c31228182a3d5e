//! Snapshots: everything as of one epoch, written beside, synced, renamed.
//!
//! Records lie by shard, and a frame never spans two. Shards are fixed, whoever writes or reads, so
//! a snapshot says nothing of how many threads there were.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use crate::crash::{self, Step};
use crate::error::{Error, Result};
use crate::model::{
    Basis, Case, Code, Cursor, Day, Dictionary, Epoch, Interner, Location, RecordChange, RecordKey,
    Schema, SharedMap, Sum, Summed, Sums,
};

use super::beginning::{self, FileKind};
use super::decoders::{self, Part};
use super::directory::{Directory, failed, snapshot_name};
use super::disk::DiskFile;
use super::format::{self, Frame, RECORDS, SHARD, SnapshotHead, TooLarge};
use super::frame::{Body, Damage, Frames, Trouble};
use super::record::RECORD_BYTES_MIN;
use super::recovery::Restored;
use super::seal::Keys;
use super::segment::INPUT_BYTES;
use super::sums;
use super::translation::Translation;
use super::writer::Writer;

/// Everything as of the end of one epoch.
#[derive(Clone, Debug, Default)]
pub struct SnapshotContent {
    /// The epoch; it must be committed in Postgres.
    pub epoch: Epoch,
    /// All visible records.
    pub records: SharedMap<RecordKey, Case>,
    /// What they add up to, where that is known.
    pub sums: Option<Sums>,
    /// Changes that wait until their instance is released, in the order they arrived.
    pub deferred: BTreeMap<Code, Vec<RecordChange>>,
    /// Where each instance was read up to.
    pub cursors: BTreeMap<Code, Cursor>,
    /// The last clock tick.
    pub today: Option<Day>,
    /// The places of each instance.
    pub locations: BTreeMap<Code, Vec<Location>>,
    /// The dictionary; of what was added since the last logged epoch nothing is written.
    pub dictionary: Interner,
}

impl From<Restored> for SnapshotContent {
    /// What was restored, as of its base; it must have no tail, or cursors are ahead of the records.
    fn from(restored: Restored) -> Self {
        Self {
            epoch: restored.base,
            records: restored.records.into_iter().collect(),
            sums: None,
            deferred: restored.deferred,
            cursors: restored.cursors,
            today: restored.today,
            locations: restored.locations,
            dictionary: Interner::new(restored.dictionary),
        }
    }
}

/// A snapshot as it was read, its cases laid out for the schema that was asked for.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) epoch: Epoch,
    /// The schema it was written with.
    pub(super) schema: Option<Schema>,
    /// Ascending by key.
    pub(super) records: Vec<(RecordKey, Case)>,
    pub(super) deferred: BTreeMap<Code, Vec<RecordChange>>,
    pub(super) cursors: BTreeMap<Code, Cursor>,
    pub(super) today: Option<Day>,
    pub(super) locations: BTreeMap<Code, Vec<Location>>,
    pub(super) dictionary: Dictionary,
    pub(super) sums: Option<Summed>,
    /// Size of the file.
    pub(super) bytes: u64,
}

/// Writes the snapshot of `content`, with the first `entry_count` dictionary entries; gives its
/// size in bytes.
pub(super) fn write(
    directory: &Directory,
    pipeline: u128,
    schema: &Schema,
    content: SnapshotContent,
    entry_count: usize,
) -> Result<u64> {
    let name = snapshot_name(content.epoch);
    let written = write_as(&name, directory, pipeline, schema, content, entry_count);
    if written.is_err() {
        // The disk may be full of it; that removing it fails too says nothing new.
        directory.abandon(&name).ok();
    }
    written
}

fn write_as(
    name: &str,
    directory: &Directory,
    pipeline: u128,
    schema: &Schema,
    content: SnapshotContent,
    entry_count: usize,
) -> Result<u64> {
    let mut file = Output { file: directory.create(name)?, bytes: 0, unsynced: 0 };
    crash::point(Step::SnapshotBegun);
    let large = |large: TooLarge| Error::bug(format!("writing {name}: {} is too large", large.0));
    let head = SnapshotHead {
        pipeline,
        epoch: content.epoch,
        record_count: content.records.len() as u64,
        today: content.today,
        cursors: content.cursors,
        schema: schema.clone(),
    };
    let key = directory.keys().current.as_ref();
    let mut writer = Writer::snapshot(&head, key).map_err(large)?;
    for (instance, cursor) in &head.cursors {
        if let Some(backfill) = &cursor.backfill {
            writer.backfill(*instance, Some(backfill), false).map_err(large)?;
        }
    }
    let mut entries = content.dictionary.read(|dictionary| dictionary.entries_from(0));
    entries.truncate(entry_count);
    writer.entries(0, &entries).map_err(large)?;
    for (instance, places) in &content.locations {
        writer.places(*instance, places).map_err(large)?;
    }
    file.take(&mut writer)?;
    for (instance, changes) in &content.deferred {
        writer.deferred(*instance, changes).map_err(large)?;
        file.take(&mut writer)?;
    }
    // First of all, so that what they share with the pipeline is given up soon.
    if let Some(Sums { basis, today, cells }) = content.sums {
        let joined = sums::joined(cells);
        let mut rest = &joined[..];
        let mut is_begun = false; // that there are no sums is to be known as well
        while !(is_begun && rest.is_empty()) {
            let taken = writer.sums(basis, today, rest).map_err(large)?;
            (rest, is_begun) = (&rest[taken..], true);
            file.take(&mut writer)?;
        }
    }
    let mut counts = BTreeMap::new();
    // By key is by shard, for the shard is the top byte of the key.
    let mut records = content.records.into_sorted().peekable();
    while let Some(shard) = records.peek().map(|(key, _)| key.shard()) {
        let next = || records.next_if(|(key, _)| key.shard() == shard);
        let of_shard: Vec<_> = std::iter::from_fn(next).collect();
        let shard = shard as u8;
        counts.insert(shard, of_shard.len() as u64);
        let mut rest = &of_shard[..];
        while !rest.is_empty() {
            let taken = writer.shard(shard, rest).map_err(large)?;
            rest = &rest[taken..];
            file.take(&mut writer)?;
        }
    }
    writer.counts(&counts).map_err(large)?;
    writer.footer().map_err(large)?;
    file.take(&mut writer)?;
    crash::point(Step::SnapshotWritten);
    directory.publish(name, &file.file)?;
    crash::point(Step::SnapshotPublished);
    Ok(file.bytes)
}

/// A snapshot is written and synced in pieces of so many bytes: what the log and Postgres sync meanwhile waits for one
/// of them at most.
const SYNC_BYTES: usize = 256 << 10;

struct Output {
    file: DiskFile,
    bytes: u64,
    /// Bytes written since it was synced last.
    unsynced: usize,
}

impl Output {
    fn take(&mut self, writer: &mut Writer) -> Result<()> {
        let mut rest = writer.bytes();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(SYNC_BYTES - self.unsynced));
            let written = self.file.write_all(piece);
            written.map_err(|e| failed(format!("writing {}", self.file.path().display()), e))?;
            self.unsynced += piece.len();
            if self.unsynced == SYNC_BYTES {
                let synced = self.file.sync_data();
                synced.map_err(|e| failed(format!("syncing {}", self.file.path().display()), e))?;
                self.unsynced = 0;
            }
            rest = after;
        }
        crash::point(Step::SnapshotHalfWritten);
        self.bytes += writer.bytes().len() as u64;
        writer.written();
        Ok(())
    }
}

/// Reads the snapshot of `epoch` and checks all of it; cases are laid out for `schema`.
pub(super) fn read(
    directory: &Directory,
    epoch: Epoch,
    pipeline: u128,
    schema: &Schema,
) -> Result<Stored> {
    let name = snapshot_name(epoch);
    let (file, length) = directory.open(&name)?;
    let input = BufReader::with_capacity(INPUT_BYTES, file);
    let decoders = directory.decoders().unwrap_or_else(decoders::count);
    decode(input, length, epoch, pipeline, directory.keys(), schema, decoders)
        .map_err(|trouble| directory.troubled(&name, trouble))
}

/// Reads the snapshot that is `length` bytes long, its records on `decoders` threads.
pub(super) fn decode<R: Read>(
    input: R,
    length: u64,
    epoch: Epoch,
    pipeline: u128,
    keys: &Keys,
    schema: &Schema,
    decoders: usize,
) -> Result<Stored, Trouble> {
    let mut reading = Reading::open(input, length, epoch, pipeline, keys)?;
    let written_with = reading.stored.schema.as_ref();
    let translation = Translation::new(written_with.unwrap_or(schema), schema);
    let seal = reading.frames.seal().cloned();
    let read = |hand_over: &mut dyn FnMut(Body)| reading.all(&translation, hand_over);
    let (end, parts) = decoders::with(decoders, seal.as_deref(), &translation, read)?;
    reading.assemble(parts, end)
}

/// A snapshot being read.
struct Reading<R> {
    frames: Frames<R>,
    stored: Stored,
    record_count: u64,
    frame_count: u64,
    crcs: crc32fast::Hasher,
    /// How many records each shard has; not in versions before 3.
    counts: Option<BTreeMap<u8, u64>>,
}

/// What the footer says, against what was read.
struct End {
    at: u64,
    is_whole: bool,
}

impl<R: Read> Reading<R> {
    fn open(
        input: R,
        length: u64,
        epoch: Epoch,
        pipeline: u128,
        keys: &Keys,
    ) -> Result<Self, Trouble> {
        let begun = beginning::read(input, length, FileKind::Snapshot, keys, pipeline, epoch)?;
        let damage = |what: &'static str| Trouble::Damage(Damage::new(begun.head_at, what));
        let head = format::take_snapshot_head(&begun.head).map_err(damage)?;
        if head.epoch != epoch {
            return Err(damage("it is not of the epoch of its name"));
        }
        if head.pipeline != pipeline {
            return Err(damage("it belongs to another pipeline"));
        }
        if head.record_count > length / RECORD_BYTES_MIN {
            return Err(damage("the number of records is impossible"));
        }
        let mut crcs = crc32fast::Hasher::new();
        crcs.update(&begun.head_crc.to_le_bytes());
        let stored = Stored {
            epoch,
            schema: Some(head.schema),
            cursors: head.cursors,
            today: head.today,
            bytes: length,
            ..Stored::default()
        };
        let (frames, record_count) = (begun.frames, head.record_count);
        Ok(Self { frames, stored, record_count, frame_count: 1, crcs, counts: None })
    }

    /// Reads to the end of the file, handing over the frames of records.
    fn all(
        &mut self,
        translation: &Translation,
        hand_over: &mut dyn FnMut(Body),
    ) -> Result<End, Trouble> {
        let seal = self.frames.seal().cloned();
        loop {
            let at = self.frames.at();
            let damage = |what: &'static str| Trouble::Damage(Damage::new(at, what));
            let Some((mut body, crc)) = self.frames.next_body()? else {
                return Err(damage("the end of the snapshot is missing"));
            };
            if matches!(body.tag(), Some(RECORDS | SHARD)) {
                hand_over(body);
            } else {
                let payload = body.open(seal.as_deref())?;
                let frame = format::take_frame(payload, translation).map_err(damage)?;
                if let Frame::Footer { frame_count, crc } = frame {
                    let is_whole =
                        frame_count == self.frame_count && crc == self.crcs.clone().finalize();
                    return match self.frames.next()? {
                        None => Ok(End { at, is_whole }),
                        Some(_) => Err(damage("the file goes on behind its end")),
                    };
                }
                self.add(frame).map_err(damage)?;
            }
            self.frame_count += 1;
            self.crcs.update(&crc.to_le_bytes());
        }
    }

    fn add(&mut self, frame: Frame) -> Result<(), &'static str> {
        match frame {
            Frame::Counts(counts) => {
                self.counts = Some(counts);
                Ok(())
            }
            frame => self.stored.add(frame),
        }
    }

    /// Puts the records together, and compares them with what the file says there are.
    fn assemble(mut self, parts: Vec<Part>, end: End) -> Result<Stored, Trouble> {
        let found: usize = parts.iter().map(|part| part.records.len()).sum();
        let mut records: Vec<(RecordKey, Case)> = Vec::with_capacity(found);
        let mut found = BTreeMap::new();
        for Part { at, shard, records: more } in parts {
            let before = records.last().map(|(key, _)| *key);
            if before.zip(more.first()).is_some_and(|(before, (key, _))| before >= *key) {
                let what = match shard {
                    Some(shard) => format!("records are out of order: shard {shard} lies too late"),
                    None => "records are out of order".to_owned(),
                };
                return Err(Trouble::Damage(Damage::new(at, what)));
            }
            if let Some(shard) = shard {
                *found.entry(shard).or_insert(0) += more.len() as u64;
            }
            records.extend(more);
        }
        let damage = |what: String| Trouble::Damage(Damage::new(end.at, what));
        let counts = self.counts.take();
        if counts.is_none() && !found.is_empty() {
            return Err(damage("the counts of the shards are missing".into()));
        }
        if let Some(lost) = counts.as_ref().and_then(|counts| lost(counts, &found)) {
            return Err(damage(lost));
        }
        if !end.is_whole || records.len() as u64 != self.record_count {
            return Err(damage("a part of the snapshot is missing".into()));
        }
        self.stored.records = records;
        Ok(self.stored)
    }
}

/// The first shard that does not have as many records as it should.
fn lost(counts: &BTreeMap<u8, u64>, found: &BTreeMap<u8, u64>) -> Option<String> {
    (0..=u8::MAX).find_map(|shard| {
        let [counted, found] = [counts, found].map(|map| map.get(&shard).copied().unwrap_or(0));
        let differ =
            || format!("shard {shard} has {found} records here, and {counted} are counted");
        (counted != found).then(differ)
    })
}

impl Stored {
    fn add(&mut self, frame: Frame) -> Result<(), &'static str> {
        match frame {
            Frame::Entries { start, entries } => extend(&mut self.dictionary, start, entries)?,
            Frame::Places { continued: false, instance, places } => {
                self.locations.insert(instance, places);
            }
            Frame::Places { continued: true, instance, places } => {
                self.locations.entry(instance).or_default().extend(places);
            }
            Frame::Backfill { instance, backfill, .. } => {
                let cursor = self.cursors.get_mut(&instance).ok_or("a backfill has no cursor")?;
                cursor.backfill = backfill;
            }
            Frame::Deferred { instance, changes } => {
                self.deferred.entry(instance).or_default().extend(changes);
            }
            Frame::Sums { basis, today, sums } => self.add_sums(basis, today, sums)?,
            Frame::Records { .. }
            | Frame::Counts(_)
            | Frame::Arrival { .. }
            | Frame::Turn { .. }
            | Frame::Commit(_)
            | Frame::Footer { .. } => return Err("a frame does not belong into a snapshot"),
        }
        Ok(())
    }

    fn add_sums(&mut self, basis: Basis, today: Day, sums: Vec<Sum>) -> Result<(), &'static str> {
        let first = || Summed { basis, today, cells: Vec::new(), before: Vec::new() };
        let all = self.sums.get_or_insert_with(first);
        if (all.basis, all.today) != (basis, today) {
            return Err("sums hold for different days or packs");
        }
        let last = all.cells.last().map(|(cell, _)| *cell);
        if last.zip(sums.first()).is_some_and(|(last, (cell, _))| last >= *cell) {
            return Err("sums are out of order");
        }
        all.cells.extend(sums);
        Ok(())
    }
}

/// Adds entries read from a file; those that are known already must be the same, but for those that were emptied by a
/// compaction which ended before it removed the older files.
pub(super) fn extend(
    dictionary: &mut Dictionary,
    start: u64,
    entries: Vec<crate::model::Entry>,
) -> Result<(), &'static str> {
    let count = dictionary.entry_count() as u64;
    let known = count.checked_sub(start).ok_or("dictionary entries are missing before it")?;
    for (number, entry) in (start as usize..).zip(entries) {
        if (number as u64) < start + known {
            if !dictionary.was(number, &entry) {
                return Err("a dictionary entry is not the one that was written before");
            }
        } else {
            let before = dictionary.entry_count();
            dictionary.intern(entry.domain, &entry.term);
            if dictionary.entry_count() != before + 1 {
                return Err("a dictionary entry is impossible");
            }
        }
    }
    Ok(())
}
