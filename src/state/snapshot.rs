//! Snapshots: everything as of one epoch, written beside, synced, renamed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};

use crate::crash::{self, Step};
use crate::error::{Error, Result};
use crate::model::{
    Case, Code, Cursor, Day, Dictionary, Epoch, Interner, Location, RecordChange, RecordKey, Schema,
};

use super::directory::{Directory, failed, snapshot_name};
use super::format::{self, FileKind, Frame, PREAMBLE_BYTES, SnapshotHead, TooLarge};
use super::frame::{Damage, Frames, Trouble};
use super::record::RECORD_BYTES_MIN;
use super::translation::Translation;
use super::writer::Writer;

/// Everything as of the end of one epoch.
#[derive(Clone, Debug, Default)]
pub struct SnapshotContent {
    /// The epoch; it must be committed in Postgres.
    pub epoch: Epoch,
    /// All visible records, each once, in any order.
    pub records: Vec<(RecordKey, Case)>,
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
    mut content: SnapshotContent,
    entry_count: usize,
) -> Result<u64> {
    // By key is by shard, for the shard is the top byte of the key.
    content.records.sort_unstable_by_key(|(key, _)| *key);
    let mut file = Output { file: directory.create(name)?, bytes: 0 };
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
    let mut writer = Writer::snapshot(&head).map_err(large)?;
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
    let mut rest = &content.records[..];
    while !rest.is_empty() {
        let taken = writer.records(rest).map_err(large)?;
        rest = &rest[taken..];
        file.take(&mut writer)?;
    }
    writer.footer().map_err(large)?;
    file.take(&mut writer)?;
    crash::point(Step::SnapshotWritten);
    directory.publish(name, &file.file)?;
    crash::point(Step::SnapshotPublished);
    Ok(file.bytes)
}

struct Output {
    file: File,
    bytes: u64,
}

impl Output {
    fn take(&mut self, writer: &mut Writer) -> Result<()> {
        let written = self.file.write_all(writer.bytes());
        written.map_err(|e| failed("writing a snapshot", e))?;
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
    match Reading::open(file, length, epoch, pipeline, schema).and_then(Reading::all) {
        Ok(stored) => Ok(stored),
        Err(Trouble::Damage(damage) | Trouble::Refused(damage)) => {
            Err(directory.damaged(&name, damage))
        }
        Err(Trouble::Io(e)) => Err(failed(format!("reading {name}"), e)),
    }
}

/// A snapshot being read.
struct Reading {
    frames: Frames<BufReader<File>>,
    translation: Translation,
    stored: Stored,
    record_count: u64,
    frame_count: u64,
    crcs: crc32fast::Hasher,
}

impl Reading {
    fn open(
        file: File,
        length: u64,
        epoch: Epoch,
        pipeline: u128,
        schema: &Schema,
    ) -> Result<Self, Trouble> {
        let damage = |what| Trouble::Damage(Damage { at: 0, what });
        let mut input = BufReader::with_capacity(1 << 18, file);
        let mut preamble = [0; PREAMBLE_BYTES];
        if length < PREAMBLE_BYTES as u64 {
            return Err(damage("the head of the file is missing"));
        }
        input.read_exact(&mut preamble).map_err(Trouble::Io)?;
        format::check_preamble(&preamble, FileKind::Snapshot).map_err(damage)?;
        let mut frames = Frames::new(input, PREAMBLE_BYTES as u64, length);
        let Some((payload, crc)) = frames.next()? else {
            return Err(damage("the head of the file is missing"));
        };
        let head = format::take_snapshot_head(payload).map_err(damage)?;
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
        crcs.update(&crc.to_le_bytes());
        let translation = Translation::new(&head.schema, schema);
        let stored = Stored {
            epoch,
            schema: Some(head.schema),
            records: Vec::with_capacity(head.record_count as usize),
            cursors: head.cursors,
            today: head.today,
            bytes: length,
            ..Stored::default()
        };
        let record_count = head.record_count;
        Ok(Self { frames, translation, stored, record_count, frame_count: 1, crcs })
    }

    fn all(mut self) -> Result<Stored, Trouble> {
        loop {
            let at = self.frames.at();
            let damage = |what| Trouble::Damage(Damage { at, what });
            let Some((payload, crc)) = self.frames.next()? else {
                return Err(damage("the end of the snapshot is missing"));
            };
            let frame = format::take_frame(payload, &self.translation).map_err(damage)?;
            if let Frame::Footer { frame_count, crc } = frame {
                let whole = frame_count == self.frame_count
                    && crc == self.crcs.clone().finalize()
                    && self.stored.records.len() as u64 == self.record_count;
                if !whole {
                    return Err(damage("a part of the snapshot is missing"));
                }
                return match self.frames.next()? {
                    None => Ok(self.stored),
                    Some(_) => Err(damage("the file goes on behind its end")),
                };
            }
            self.frame_count += 1;
            self.crcs.update(&crc.to_le_bytes());
            self.stored.add(frame).map_err(damage)?;
        }
    }
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
            Frame::Records(records) => {
                let before = self.records.last().map(|(key, _)| *key);
                let keys = before.into_iter().chain(records.iter().map(|(key, _)| *key));
                if !keys.is_sorted_by(|a, b| a < b) {
                    return Err("records are out of order");
                }
                self.records.extend(records);
            }
            Frame::Arrival { .. }
            | Frame::Turn { .. }
            | Frame::Commit(_)
            | Frame::Footer { .. } => return Err("a frame does not belong into a snapshot"),
        }
        Ok(())
    }
}

/// Adds entries read from a file; those that are known already must be the same.
pub(super) fn extend(
    dictionary: &mut Dictionary,
    start: u64,
    entries: Vec<crate::model::Entry>,
) -> Result<(), &'static str> {
    let count = dictionary.entry_count() as u64;
    let known = count.checked_sub(start).ok_or("dictionary entries are missing before it")?;
    for (index, entry) in entries.into_iter().enumerate() {
        if (index as u64) < known {
            if dictionary.code(entry.domain, &entry.term).is_none() {
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
