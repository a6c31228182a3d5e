//! Segments, the parts of the log, being read: whole epochs, a torn end, or damage.
//!
//! An epoch ends with a commit frame. Behind the last one of the last segment an epoch may follow
//! that was being written when the program died; it may be cut, unless a later commit knows that it
//! was on disk.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use crate::error::Result;
use crate::model::{Entry, Epoch, EpochInput, Schema};

use super::directory::{Directory, failed, segment_name};
use super::format::{self, COMMIT_BYTES, Commit, FileKind, Frame, PREAMBLE_BYTES, SegmentHead};
use super::frame::{Damage, FRAME_HEAD_BYTES, Frames, Trouble, checksum};
use super::translation::Translation;

/// A damaged end of a segment is searched for later commits in windows of this many bytes.
const SEARCH_WINDOW_BYTES: usize = 1 << 20;

/// A segment opened for reading.
pub(super) struct SegmentReader {
    pub(super) name: String,
    pub(super) head: SegmentHead,
    frames: Frames<BufReader<File>>,
    translation: Translation,
    /// Bytes up to the end of the newest whole epoch.
    pub(super) good_bytes: u64,
    /// The newest whole epoch that was read.
    pub(super) last: Option<Epoch>,
    length: u64,
}

/// One epoch as it was read, with the dictionary entries it brought.
pub(super) struct Logging {
    pub(super) input: EpochInput,
    pub(super) entries: Vec<(u64, Vec<Entry>)>,
}

/// What a segment gives next.
pub(super) enum Next {
    /// Another epoch.
    Epoch(Box<Logging>),
    /// Nothing more; it ends with a whole epoch.
    End,
    /// Nothing more; an epoch that was being written when the program died follows.
    Torn(Damage),
}

impl SegmentReader {
    /// Opens the segment that begins with `first`, its cases to be laid out for `schema`.
    pub(super) fn open(
        directory: &Directory,
        first: Epoch,
        pipeline: u128,
        schema: &Schema,
    ) -> Result<Self> {
        let name = segment_name(first);
        let damaged = |at, what| directory.damaged(&name, Damage { at, what });
        let (file, length) = directory.open(&name)?;
        let mut input = BufReader::with_capacity(1 << 18, file);
        let mut preamble = [0; PREAMBLE_BYTES];
        let whole = length >= PREAMBLE_BYTES as u64;
        if !whole || input.read_exact(&mut preamble).is_err() {
            return Err(damaged(0, "the head of the file is missing"));
        }
        format::check_preamble(&preamble, FileKind::Segment).map_err(|what| damaged(0, what))?;
        let at = PREAMBLE_BYTES as u64;
        let mut frames = Frames::new(input, at, length);
        let head = match frames.next() {
            Ok(Some((payload, _))) => format::take_segment_head(payload),
            Ok(None) => Err("the head of the file is missing"),
            Err(Trouble::Damage(damage) | Trouble::Refused(damage)) => Err(damage.what),
            Err(Trouble::Io(e)) => return Err(failed(format!("reading {name}"), e)),
        }
        .map_err(|what| damaged(at, what))?;
        if head.first != first || head.previous >= first {
            return Err(damaged(at, "it does not begin with the epoch of its name"));
        }
        if head.pipeline != pipeline {
            return Err(damaged(at, "it belongs to another pipeline"));
        }
        let translation = Translation::new(&head.schema, schema);
        let good_bytes = frames.at();
        Ok(Self { name, head, frames, translation, good_bytes, last: None, length })
    }

    /// The next epoch. Whether a torn end is allowed is the caller's to say.
    pub(super) fn next(&mut self, directory: &Directory) -> Result<Next> {
        match self.gather() {
            Ok(Some(logging)) => Ok(Next::Epoch(Box::new(logging))),
            Ok(None) if self.good_bytes == self.length => Ok(Next::End),
            Ok(None) => {
                let what = "the file ends within an epoch";
                self.torn(directory, Damage { at: self.frames.at(), what })
            }
            Err(Trouble::Damage(damage)) => self.torn(directory, damage),
            Err(Trouble::Refused(damage)) => Err(directory.damaged(&self.name, damage)),
            Err(Trouble::Io(e)) => Err(failed(format!("reading {}", self.name), e)),
        }
    }

    fn gather(&mut self) -> Result<Option<Logging>, Trouble> {
        let mut logging = Logging { input: EpochInput::default(), entries: Vec::new() };
        let mut frame_count = 0;
        loop {
            let at = self.frames.at();
            let refused = |what| Trouble::Refused(Damage { at, what });
            let Some((payload, _)) = self.frames.next()? else { return Ok(None) };
            let frame = format::take_frame(payload, &self.translation).map_err(refused)?;
            if let Frame::Commit(commit) = frame {
                let before = self.last.unwrap_or(self.head.previous);
                let expected = self.last.is_some() || commit.epoch == self.head.first;
                if commit.frame_count != frame_count || commit.epoch <= before || !expected {
                    return Err(refused("a commit does not fit the epoch before it"));
                }
                logging.input.epoch = commit.epoch;
                self.last = Some(commit.epoch);
                self.good_bytes = self.frames.at();
                return Ok(Some(logging));
            }
            logging.add(frame).map_err(refused)?;
            frame_count += 1;
        }
    }

    /// Tells an epoch that was never finished from damage to one that was on disk.
    fn torn(&mut self, directory: &Directory, damage: Damage) -> Result<Next> {
        let last = self.last.unwrap_or(self.head.previous);
        let search = || -> io::Result<Option<Commit>> {
            let (mut file, _) =
                directory.open(&self.name).map_err(|e| io::Error::other(e.to_string()))?;
            newest_durable(&mut file, self.good_bytes, self.length)
        };
        match search().map_err(|e| failed(format!("reading {}", self.name), e))? {
            Some(commit) if commit.durable > last => Err(directory.damaged(&self.name, damage)),
            _ => Ok(Next::Torn(damage)),
        }
    }
}

impl Logging {
    fn add(&mut self, frame: Frame) -> Result<(), &'static str> {
        match frame {
            Frame::Entries { start, entries } => self.entries.push((start, entries)),
            Frame::Arrival { continued: false, arrival } => self.input.arrivals.push(arrival),
            Frame::Arrival { continued: true, arrival } => {
                let before = self.input.arrivals.last_mut().ok_or("a batch does not begin")?;
                before.changes.extend(arrival.changes);
            }
            Frame::Backfill { backfill, is_of_it, .. } => {
                let before = self.input.arrivals.last_mut().ok_or("a batch does not begin")?;
                before.cursor.backfill = backfill;
                before.is_backfill = is_of_it;
            }
            Frame::Places { continued: false, instance, places } => {
                self.input.locations.push((instance, places));
            }
            Frame::Places { continued: true, places, .. } => {
                let before = self.input.locations.last_mut().ok_or("a list does not begin")?;
                before.1.extend(places);
            }
            Frame::Turn { at, released, today } => {
                self.input.at = at;
                self.input.released = released;
                self.input.today = today;
            }
            Frame::Commit(_)
            | Frame::Deferred { .. }
            | Frame::Records(_)
            | Frame::Footer { .. } => {
                return Err("a frame does not belong into the log");
            }
        }
        Ok(())
    }
}

/// Of the commit frames between `from` and `end`, wherever they begin, the one that knows most to
/// be on disk.
fn newest_durable(file: &mut File, from: u64, end: u64) -> io::Result<Option<Commit>> {
    const FRAME_BYTES: usize = FRAME_HEAD_BYTES + COMMIT_BYTES;
    let mut found: Option<Commit> = None;
    let mut at = from;
    let mut window = Vec::new();
    while at + FRAME_BYTES as u64 <= end {
        window.clear();
        file.seek(SeekFrom::Start(at))?;
        let length = (end - at).min(SEARCH_WINDOW_BYTES as u64);
        Read::by_ref(file).take(length).read_to_end(&mut window)?;
        if window.len() < FRAME_BYTES {
            break;
        }
        for frame in window.windows(FRAME_BYTES) {
            let (head, payload) = frame.split_at(FRAME_HEAD_BYTES);
            let Some(commit) = format::commit_in(payload) else { continue };
            let fits = head[..4] == (COMMIT_BYTES as u32).to_le_bytes()
                && head[4..] == checksum(payload).to_le_bytes();
            if fits && found.is_none_or(|found| found.durable < commit.durable) {
                found = Some(commit);
            }
        }
        at += (window.len() - FRAME_BYTES + 1) as u64;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::writer::Writer;

    #[test]
    fn a_later_commit_is_found_wherever_it_lies() {
        let path = tempfile::tempdir().unwrap();
        let file = path.path().join("segment");
        for hole in [0, 1, 1000, SEARCH_WINDOW_BYTES - 29, SEARCH_WINDOW_BYTES - 10] {
            let mut writer = Writer::default();
            writer.commit(Epoch(4), Epoch(3)).unwrap();
            let mut bytes = vec![0x5a; hole];
            bytes.extend(writer.bytes());
            bytes.extend(vec![0; 100]);
            std::fs::write(&file, &bytes).unwrap();
            let mut opened = File::open(&file).unwrap();
            let found = newest_durable(&mut opened, 0, bytes.len() as u64).unwrap();
            assert_eq!(found.map(|found| found.durable), Some(Epoch(3)), "{hole}");
        }
    }
}
