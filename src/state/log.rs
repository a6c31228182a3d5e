//! The log: append-only segments of epochs, synced by a thread of its own so that computing goes on
//! meanwhile.
//!
//! **Invariant:** an epoch ends with a commit frame, and a [`Logged`] exists only after an fsync behind it.
//! After a write or a sync that failed, nobody knows what is on the disk: the log says so for good.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crate::error::{Error, Kind, Result};
use crate::model::{Entry, Epoch, EpochInput, Interner, Logged, Schema};

use super::directory::{Directory, failed, segment_name};
use super::format::{self, COMMIT_BYTES, Commit, FileKind, Frame, PREAMBLE_BYTES, SegmentHead};
use super::frame::{Damage, FRAME_HEAD_BYTES, Frames, Trouble, checksum};
use super::translation::Translation;

/// Most epochs that may wait for the disk; then appending waits too.
const SYNCS_WAITING_MAX: usize = 64;

/// A damaged end of a segment is searched for later commits in windows of this many bytes.
const SEARCH_WINDOW_BYTES: usize = 1 << 20;

/// An epoch that is written and not yet known to be on disk.
#[must_use]
#[derive(Debug)]
pub struct Pending {
    epoch: Epoch,
    synced: Receiver<bool>,
    broken: Arc<OnceLock<String>>,
}

impl Pending {
    /// The epoch that was appended.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Waits for the fsync; blocks for some milliseconds, so not on a thread that serves others.
    ///
    /// # Errors
    /// When the fsync failed: the log can no longer be used, and the program has to start anew.
    pub fn wait(self) -> Result<Logged> {
        match self.synced.recv() {
            Ok(true) => Ok(Logged::after_fsync(self.epoch)),
            Ok(false) | Err(_) => Err(broken(&self.broken)),
        }
    }
}

fn broken(why: &OnceLock<String>) -> Error {
    let why = why.get().map_or("the thread that syncs it ended", String::as_str);
    Error::new(Kind::Temporary, format!("writing the log: {why}"))
        .advise("mend the disk and start again: what was logged before is used")
}

/// The end of the log, to be appended to.
pub(super) struct Log {
    directory: Arc<Directory>,
    pipeline: u128,
    schema: Schema,
    segment: Option<Segment>,
    last: Epoch,
    entry_count: usize,
    segment_bytes_max: u64,
    /// Bytes appended since it was opened.
    bytes: u64,
    syncer: Syncer,
}

struct Segment {
    file: Arc<File>,
    bytes: u64,
}

impl Log {
    /// A log that goes on after epoch `last`, with `entry_count` dictionary entries in it already.
    pub(super) fn after(
        directory: Arc<Directory>,
        pipeline: u128,
        schema: Schema,
        last: Epoch,
        entry_count: usize,
        segment_bytes_max: u64,
    ) -> Self {
        let syncer = Syncer::new(last);
        let segment = None;
        Self {
            directory,
            pipeline,
            schema,
            segment,
            last,
            entry_count,
            segment_bytes_max,
            bytes: 0,
            syncer,
        }
    }

    /// The dictionary entries that are in the log.
    pub(super) fn entry_count(&self) -> usize {
        self.entry_count
    }

    /// Bytes appended since the log was opened.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fails when an earlier write or sync did.
    pub(super) fn check(&self) -> Result<()> {
        if self.syncer.broken.get().is_some() { Err(broken(&self.syncer.broken)) } else { Ok(()) }
    }

    /// Writes an epoch and has it synced. Gives the first epoch of a segment that began with it.
    pub(super) fn append(
        &mut self,
        input: &EpochInput,
        dictionary: &Interner,
    ) -> Result<(Pending, Option<Epoch>)> {
        self.check()?;
        if input.epoch <= self.last {
            let (new, last) = (input.epoch, self.last);
            return Err(Error::bug(format!("epoch {new} was appended after epoch {last}")));
        }
        let entries = dictionary.read(|dictionary| dictionary.entries_from(self.entry_count));
        let durable = Epoch(self.syncer.durable.load(Ordering::Acquire));
        let bytes = encode(input, self.entry_count, &entries, durable).map_err(|large| {
            Error::bug(format!("appending epoch {}: {} is too large", input.epoch, large.0))
        })?;
        let (file, began) = match self.write(input.epoch, bytes.bytes()) {
            Ok(written) => written,
            Err(error) => {
                self.syncer.broken.get_or_init(|| error.to_string());
                return Err(error);
            }
        };
        self.last = input.epoch;
        self.entry_count += entries.len();
        Ok((self.syncer.sync(file, input.epoch), began))
    }

    fn write(&mut self, epoch: Epoch, bytes: &[u8]) -> Result<(Arc<File>, Option<Epoch>)> {
        let full = |segment: &Segment| segment.bytes >= self.segment_bytes_max;
        if self.segment.as_ref().is_some_and(full) {
            self.roll()?;
        }
        let mut began = None;
        if self.segment.is_none() {
            self.segment = Some(self.begin(epoch)?);
            began = Some(epoch);
        }
        let segment = self.segment.as_mut().expect("a segment was begun above");
        (&*segment.file)
            .write_all(bytes)
            .map_err(|e| failed(format!("appending epoch {epoch} to the log"), e))?;
        segment.bytes += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        Ok((Arc::clone(&segment.file), began))
    }

    /// Ends the current segment; the next epoch begins another one.
    ///
    /// It is on disk before its successor exists, so only the last segment can have a torn end.
    pub(super) fn roll(&mut self) -> Result<()> {
        self.check()?;
        let Some(segment) = self.segment.take() else { return Ok(()) };
        segment.file.sync_data().map_err(|e| {
            let error = failed("syncing the log", e);
            self.syncer.broken.get_or_init(|| error.to_string());
            error
        })
    }

    fn begin(&self, first: Epoch) -> Result<Segment> {
        let head = SegmentHead {
            pipeline: self.pipeline,
            first,
            previous: self.last,
            entry_count: self.entry_count as u64,
            schema: self.schema.clone(),
        };
        let head = format::segment_head(&head).map_err(|large| {
            Error::bug(format!("beginning a segment: {} is too large", large.0))
        })?;
        let name = segment_name(first);
        let mut file = self.directory.create(&name)?;
        file.write_all(&head).map_err(|e| failed(format!("writing {name}"), e))?;
        self.directory.publish(&name, &file)?;
        Ok(Segment { file: Arc::new(file), bytes: head.len() as u64 })
    }
}

/// The frames of one epoch.
fn encode(
    input: &EpochInput,
    entry_count: usize,
    entries: &[Entry],
    durable: Epoch,
) -> Result<format::Writer, format::TooLarge> {
    let mut writer = format::Writer::default();
    writer.entries(entry_count, entries)?;
    for arrival in &input.arrivals {
        writer.arrival(arrival)?;
    }
    for (instance, places) in &input.locations {
        writer.places(*instance, places)?;
    }
    writer.turn(input.at, &input.released, input.today)?;
    writer.commit(input.epoch, durable)?;
    Ok(writer)
}

/// The thread that syncs, in the order of the epochs.
struct Syncer {
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    durable: Arc<AtomicU64>,
    broken: Arc<OnceLock<String>>,
}

struct Request {
    file: Arc<File>,
    epoch: Epoch,
    synced: SyncSender<bool>,
}

impl Syncer {
    fn new(durable: Epoch) -> Self {
        let (requests, incoming) = sync_channel(SYNCS_WAITING_MAX);
        let durable = Arc::new(AtomicU64::new(durable.0));
        let broken = Arc::new(OnceLock::new());
        let shared = (Arc::clone(&durable), Arc::clone(&broken));
        let thread = std::thread::spawn(move || serve(&incoming, &shared.0, &shared.1));
        Self { requests: Some(requests), thread: Some(thread), durable, broken }
    }

    fn sync(&self, file: Arc<File>, epoch: Epoch) -> Pending {
        let (synced, receiver) = sync_channel(1);
        // If the thread is gone, `synced` is dropped with the request, and waiting for it fails.
        if let Some(requests) = &self.requests {
            requests.send(Request { file, epoch, synced }).ok();
        }
        Pending { epoch, synced: receiver, broken: Arc::clone(&self.broken) }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.requests.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Syncs whatever waits at once, one sync for all epochs of the same file.
fn serve(incoming: &Receiver<Request>, durable: &AtomicU64, broken: &OnceLock<String>) {
    while let Ok(first) = incoming.recv() {
        let mut waiting = vec![first];
        waiting.extend(incoming.try_iter().take(SYNCS_WAITING_MAX));
        for same in waiting.chunk_by(|a, b| Arc::ptr_eq(&a.file, &b.file)) {
            if broken.get().is_none()
                && let Err(e) = same[0].file.sync_data()
            {
                broken.get_or_init(|| failed("syncing the log", e).to_string());
            }
            for request in same {
                let good = broken.get().is_none();
                if good {
                    durable.store(request.epoch.0, Ordering::Release);
                }
                // Nobody waits any more when the program ends; that is no failure.
                request.synced.send(good).ok();
            }
        }
    }
}

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

    fn log(directory: &std::path::Path) -> Log {
        let directory = Arc::new(Directory::lock(directory).unwrap());
        let schema = Schema::new([], Vec::new());
        Log::after(directory, 7, schema, Epoch(0), 0, 1 << 20)
    }

    fn epoch(epoch: u64) -> EpochInput {
        EpochInput { epoch: Epoch(epoch), ..EpochInput::default() }
    }

    fn logged(log: &mut Log, n: u64) -> Epoch {
        log.append(&epoch(n), &Interner::default()).unwrap().0.wait().unwrap().epoch()
    }

    fn replace_file(log: &mut Log, path: &str) {
        let file = File::options().write(true).open(path).unwrap();
        log.segment.as_mut().unwrap().file = Arc::new(file);
    }

    #[test]
    fn after_a_failed_write_nothing_is_written_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path());
        let dictionary = Interner::default();
        assert_eq!(logged(&mut log, 1), Epoch(1));
        replace_file(&mut log, "/dev/full");
        let error = log.append(&epoch(2), &dictionary).unwrap_err();
        assert!(error.to_string().contains("epoch 2"), "{error}");
        assert!(log.append(&epoch(3), &dictionary).is_err());
        assert!(log.roll().is_err());
    }

    #[test]
    fn after_a_failed_sync_no_epoch_is_called_durable() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path());
        let dictionary = Interner::default();
        assert_eq!(logged(&mut log, 1), Epoch(1));
        // Takes every byte, and cannot be synced.
        replace_file(&mut log, "/dev/null");
        let second = log.append(&epoch(2), &dictionary).unwrap().0;
        let third = log.append(&epoch(3), &dictionary).map(|appended| appended.0.wait());
        let error = second.wait().unwrap_err();
        assert!(error.to_string().contains("syncing the log"), "{error}");
        assert!(!matches!(third, Ok(Ok(_))));
        assert!(log.append(&epoch(4), &dictionary).is_err());
        assert_eq!(log.syncer.durable.load(Ordering::Acquire), 1);
    }

    #[test]
    fn epochs_only_grow() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path());
        let dictionary = Interner::default();
        assert_eq!(logged(&mut log, 5), Epoch(5));
        assert!(log.append(&epoch(5), &dictionary).is_err());
        assert_eq!(logged(&mut log, 9), Epoch(9));
    }

    #[test]
    fn a_later_commit_is_found_wherever_it_lies() {
        let path = tempfile::tempdir().unwrap();
        let file = path.path().join("segment");
        for hole in [0, 1, 1000, SEARCH_WINDOW_BYTES - 29, SEARCH_WINDOW_BYTES - 10] {
            let mut writer = format::Writer::default();
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
