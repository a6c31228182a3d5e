//! The end of the log: epochs appended, and synced by a thread of its own so that computing goes
//! on.
//!
//! **Invariant:** a [`Logged`] exists only after an fsync behind its epoch. After a write or a sync
//! that failed, nobody knows what is on the disk: the log says so for good.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crate::crash::{self, Step};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, Epoch, EpochInput, Interner, Logged, Schema};

use super::directory::{Directory, failed, segment_name};
use super::disk::DiskFile;
use super::format::{SegmentHead, TooLarge};
use super::writer::{Sealing, Writer};

/// Most epochs that may wait for the disk; then appending waits too.
const SYNCS_WAITING_MAX: usize = 64;

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
    file: Arc<DiskFile>,
    bytes: u64,
    sealing: Sealing,
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

    /// The last epoch that was appended, or before which the log was opened.
    pub(super) fn last(&self) -> Epoch {
        self.last
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
        let full = |segment: &Segment| segment.bytes >= self.segment_bytes_max;
        if self.segment.as_ref().is_some_and(full) {
            self.roll()?;
            crash::point(Step::SegmentRolled);
        }
        let encoded = self.encode(input, &entries, durable);
        let (head, writer) = encoded.map_err(|large| {
            Error::bug(format!("appending epoch {}: {} is too large", input.epoch, large.0))
        })?;
        let began = head.is_some().then_some(input.epoch);
        let file = match self.write(input.epoch, head, &writer) {
            Ok(file) => file,
            Err(error) => {
                self.syncer.broken.get_or_init(|| error.to_string());
                return Err(error);
            }
        };
        self.last = input.epoch;
        self.entry_count += entries.len();
        Ok((self.syncer.sync(file, input.epoch), began))
    }

    /// The frames of an epoch, and before them the head of a segment if one has to begin.
    fn encode(
        &self,
        input: &EpochInput,
        entries: &[Entry],
        durable: Epoch,
    ) -> Result<(Option<Head>, Writer), TooLarge> {
        let (head, sealing) = match &self.segment {
            Some(segment) => (None, segment.sealing.clone()),
            None => {
                let (bytes, sealing) = self.head(input.epoch)?;
                (Some(Head { bytes, sealing: sealing.clone() }), sealing)
            }
        };
        let mut writer = Writer::after(sealing);
        put_epoch(&mut writer, input, self.entry_count, entries, durable)?;
        Ok((head, writer))
    }

    fn write(
        &mut self,
        epoch: Epoch,
        head: Option<Head>,
        writer: &Writer,
    ) -> Result<Arc<DiskFile>> {
        if let Some(head) = head {
            self.segment = Some(self.begin(epoch, head)?);
        }
        let missing = || Error::bug(format!("appending epoch {epoch}: no segment was begun"));
        let segment = self.segment.as_mut().ok_or_else(missing)?;
        let bytes = writer.bytes();
        crash::half_written(Step::LogHalfWritten, segment.file.file(), bytes);
        segment.file.write_all(bytes).map_err(|e| {
            let path = segment.file.path().display();
            failed(format!("appending epoch {epoch} to the log, writing {path}"), e)
        })?;
        crash::point(Step::LogWritten);
        segment.bytes += bytes.len() as u64;
        segment.sealing = writer.sealing();
        self.bytes += bytes.len() as u64;
        Ok(Arc::clone(&segment.file))
    }

    /// Ends the current segment; the next epoch begins another one.
    ///
    /// It is on disk before its successor exists, so only the last segment can have a torn end.
    pub(super) fn roll(&mut self) -> Result<()> {
        self.check()?;
        let Some(segment) = self.segment.take() else { return Ok(()) };
        segment.file.sync_data().map_err(|e| {
            let error = failed(syncing(&segment.file), e);
            self.syncer.broken.get_or_init(|| error.to_string());
            error
        })
    }

    fn head(&self, first: Epoch) -> Result<(Vec<u8>, Sealing), TooLarge> {
        let head = SegmentHead {
            pipeline: self.pipeline,
            first,
            previous: self.last,
            entry_count: self.entry_count as u64,
            schema: self.schema.clone(),
        };
        Writer::segment(&head, self.directory.keys().current.as_ref())
    }

    fn begin(&self, first: Epoch, head: Head) -> Result<Segment> {
        let name = segment_name(first);
        let file = self.directory.create(&name)?;
        file.write_all(&head.bytes)
            .map_err(|e| failed(format!("writing {}", file.path().display()), e))?;
        self.directory.publish(&name, &file)?;
        let bytes = head.bytes.len() as u64;
        Ok(Segment { file: Arc::new(file), bytes, sealing: head.sealing })
    }
}

/// The first bytes of a segment, and how the frames behind them are sealed.
struct Head {
    bytes: Vec<u8>,
    sealing: Sealing,
}

fn syncing(file: &DiskFile) -> String {
    format!("syncing the log, {}", file.path().display())
}

/// Puts the frames of one epoch.
fn put_epoch(
    writer: &mut Writer,
    input: &EpochInput,
    entry_count: usize,
    entries: &[Entry],
    durable: Epoch,
) -> Result<(), TooLarge> {
    writer.entries(entry_count, entries)?;
    for arrival in &input.arrivals {
        writer.arrival(arrival)?;
    }
    for (instance, places) in &input.locations {
        writer.places(*instance, places)?;
    }
    writer.turn(input.at, &input.released, input.today)?;
    writer.commit(input.epoch, durable)
}

/// The thread that syncs, in the order of the epochs.
struct Syncer {
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    durable: Arc<AtomicU64>,
    broken: Arc<OnceLock<String>>,
}

struct Request {
    file: Arc<DiskFile>,
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

    fn sync(&self, file: Arc<DiskFile>, epoch: Epoch) -> Pending {
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
                broken.get_or_init(|| failed(syncing(&same[0].file), e).to_string());
            }
            crash::point(Step::LogSynced);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::directory::Access;
    use crate::state::disk::Disk;

    fn log(directory: &std::path::Path) -> Log {
        let directory = Arc::new(Directory::lock(directory, Access::default()).unwrap());
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
        let file = Disk::default().create(std::path::Path::new(path), true).unwrap();
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
}
