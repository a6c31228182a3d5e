//! Segments, the parts of the log, being read: whole epochs, a torn end, or damage.
//!
//! An epoch ends with a commit frame. Behind the last one of the last segment an epoch may follow
//! that was being written when the program died; it may be cut, unless a later commit knows that it
//! was on disk.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use crate::error::Result;
use crate::model::{Entry, Epoch, EpochInput, Schema};

use super::beginning::{self, FileKind};
use super::directory::{Directory, segment_name};
use super::disk::DiskFile;
use super::format::{self, COMMIT_BYTES, Commit, Frame, SegmentHead};
use super::frame::{Damage, FRAME_HEAD_BYTES, Frames, Trouble, checksum};
use super::seal::{Keys, SEAL_BYTES_MAX, Seal};
use super::translation::Translation;

/// A damaged end of a segment is searched for later commits in windows of this many bytes.
const SEARCH_WINDOW_BYTES: usize = 1 << 20;

/// Files are read in pieces of so many bytes.
pub(super) const INPUT_BYTES: usize = 1 << 18;

/// A segment opened for reading.
pub(super) struct SegmentReader {
    pub(super) name: String,
    epochs: Epochs<BufReader<DiskFile>>,
}

/// The epochs in a segment.
pub(super) struct Epochs<R> {
    pub(super) head: SegmentHead,
    frames: Frames<R>,
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
        let (file, length) = directory.open(&name)?;
        let input = BufReader::with_capacity(INPUT_BYTES, file);
        let epochs = Epochs::open(input, length, first, pipeline, directory.keys(), schema);
        let epochs = epochs.map_err(|trouble| directory.troubled(&name, trouble))?;
        Ok(Self { name, epochs })
    }

    /// How it begins.
    pub(super) fn head(&self) -> &SegmentHead {
        &self.epochs.head
    }

    /// The newest whole epoch that was read.
    pub(super) fn last(&self) -> Option<Epoch> {
        self.epochs.last
    }

    /// Bytes up to the end of that epoch.
    pub(super) fn good_bytes(&self) -> u64 {
        self.epochs.good_bytes
    }

    /// The next epoch. Whether a torn end is allowed is the caller's to say.
    pub(super) fn next(&mut self, directory: &Directory) -> Result<Next> {
        match self.epochs.next() {
            Ok(Some(logging)) => Ok(Next::Epoch(Box::new(logging))),
            Ok(None) => Ok(Next::End),
            Err(Trouble::Damage(damage)) => self.torn(directory, damage),
            Err(trouble) => Err(directory.troubled(&self.name, trouble)),
        }
    }

    /// Tells an epoch that was never finished from damage to one that was on disk.
    fn torn(&mut self, directory: &Directory, damage: Damage) -> Result<Next> {
        let epochs = &self.epochs;
        let last = epochs.last.unwrap_or(epochs.head.previous);
        let seal = epochs.frames.seal().map(|seal| &**seal);
        let (mut file, _) = directory.open(&self.name)?;
        let search = newest_durable(&mut file, seal, epochs.good_bytes, epochs.length);
        match search.map_err(|e| directory.troubled(&self.name, Trouble::Io(e)))? {
            Some(commit) if commit.durable > last => Err(directory.damaged(&self.name, damage)),
            _ => Ok(Next::Torn(damage)),
        }
    }
}

impl<R: Read> Epochs<R> {
    /// The segment that begins with `first` and is `length` bytes long.
    pub(super) fn open(
        input: R,
        length: u64,
        first: Epoch,
        pipeline: u128,
        keys: &Keys,
        schema: &Schema,
    ) -> Result<Self, Trouble> {
        let begun = beginning::read(input, length, FileKind::Segment, keys, pipeline, first)?;
        let damage = |what: &'static str| Trouble::Refused(Damage::new(begun.head_at, what));
        let head = format::take_segment_head(&begun.head).map_err(damage)?;
        if head.first != first || head.previous >= first {
            return Err(damage("it does not begin with the epoch of its name"));
        }
        if head.pipeline != pipeline {
            return Err(damage("it belongs to another pipeline"));
        }
        let translation = Translation::new(&head.schema, schema);
        let good_bytes = begun.frames.at();
        Ok(Self { head, frames: begun.frames, translation, good_bytes, last: None, length })
    }

    /// The next epoch; none at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Logging>, Trouble> {
        match self.gather()? {
            None if self.good_bytes != self.length => {
                let what = "the file ends within an epoch";
                Err(Trouble::Damage(Damage::new(self.frames.at(), what)))
            }
            gathered => Ok(gathered),
        }
    }

    fn gather(&mut self) -> Result<Option<Logging>, Trouble> {
        let mut logging = Logging { input: EpochInput::default(), entries: Vec::new() };
        let mut frame_count = 0;
        loop {
            let at = self.frames.at();
            let refused = |what: &'static str| Trouble::Refused(Damage::new(at, what));
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
            | Frame::Records { .. }
            | Frame::Sums { .. }
            | Frame::Counts(_)
            | Frame::Footer { .. } => {
                return Err("a frame does not belong into the log");
            }
        }
        Ok(())
    }
}

/// Of the commit frames between `from` and `end`, wherever they begin, the one that knows most to
/// be on disk. Sealed ones lie in clear, and count when their tag is right.
fn newest_durable<R: Read + Seek>(
    file: &mut R,
    seal: Option<&Seal>,
    from: u64,
    end: u64,
) -> io::Result<Option<Commit>> {
    let body_bytes = COMMIT_BYTES + seal.map_or(0, |_| SEAL_BYTES_MAX);
    let frame_bytes = FRAME_HEAD_BYTES + body_bytes;
    let mut found: Option<Commit> = None;
    let mut at = from;
    let mut window = Vec::new();
    while at + frame_bytes as u64 <= end {
        window.clear();
        file.seek(SeekFrom::Start(at))?;
        let length = (end - at).min(SEARCH_WINDOW_BYTES as u64);
        Read::by_ref(file).take(length).read_to_end(&mut window)?;
        if window.len() < frame_bytes {
            break;
        }
        for frame in window.windows(frame_bytes) {
            let commit = commit_in_frame(frame, seal);
            found = found.into_iter().chain(commit).max_by_key(|commit| commit.durable);
        }
        at += (window.len() - frame_bytes + 1) as u64;
    }
    Ok(found)
}

/// The commit that is exactly this frame, if it is one.
fn commit_in_frame(frame: &[u8], seal: Option<&Seal>) -> Option<Commit> {
    let (head, body) = frame.split_at_checked(FRAME_HEAD_BYTES)?;
    let commit = format::commit_in(body.get(..COMMIT_BYTES)?)?;
    let fits =
        head[..4] == (body.len() as u32).to_le_bytes() && head[4..] == checksum(body).to_le_bytes();
    let opens = || seal.is_none_or(|seal| seal.open_commit(&mut body.to_vec()).is_some());
    (fits && opens()).then_some(commit)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use super::*;
    use crate::model::Secret;
    use crate::state::seal::StateKey;
    use crate::state::writer::{Sealing, Writer};

    #[test]
    fn a_later_commit_is_found_wherever_it_lies_sealed_or_not() {
        let text = "0b".repeat(32);
        let key = StateKey::from_secret(&Secret::new(text)).unwrap();
        let (_, seal) = beginning::begin(FileKind::Segment, Some(&key), 7, Epoch(1));
        let (_, other) = beginning::begin(FileKind::Segment, Some(&key), 7, Epoch(1));
        for hole in [0, 1, 1000, SEARCH_WINDOW_BYTES - 53, SEARCH_WINDOW_BYTES - 10] {
            for seal in [None, seal.as_ref()] {
                let sealing = seal.map(|seal| Sealing::of(seal.clone(), 77)).unwrap_or_default();
                let mut writer = Writer::after(sealing);
                writer.commit(Epoch(4), Epoch(3)).unwrap();
                let mut bytes = vec![0x5a; hole];
                bytes.extend(writer.bytes());
                bytes.extend(vec![0; 100]);
                let search = |seal: Option<&Arc<Seal>>| {
                    let seal = seal.map(|seal| &**seal);
                    newest_durable(&mut Cursor::new(&bytes), seal, 0, bytes.len() as u64).unwrap()
                };
                assert_eq!(search(seal).map(|found| found.durable), Some(Epoch(3)), "{hole}");
                assert_eq!(search(other.as_ref()), None, "a commit of another file");
            }
        }
    }
}
