//! State: what was read and where reading stopped, so that a restart neither loses nor doubles a
//! record.
//!
//! A log of epochs and snapshots of everything, in one directory that is always safe to delete:
//! then everything is read from the sources again. Opened ([`State::open`]), restored
//! ([`State::restore`]), appended to and snapshotted; [`StateView`] looks at it beside a running
//! pipeline.
//!
//! **Invariant:** log(e) durable → rows(e) committed in Postgres → acknowledged(e) → snapshot and pruning ≤ e.
//! The types hold it: [`Pending::wait`] alone makes a [`Logged`], and
//! [`State::commit`] wants the sink's [`Durable`].

mod directory;
mod format;
mod frame;
mod log;
mod record;
mod recovery;
mod segment;
mod snapshot;
mod translation;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::crash::{self, Step};
use crate::error::{Error, Result};
use crate::model::{Durable, Epoch, EpochInput, Interner, Logged, Schema};

use directory::{Directory, Listing, segment_name, snapshot_name};
use log::Log;
use recovery::Recovered;

pub use log::Pending;
pub use recovery::{Agreement, Restored};
pub use snapshot::SnapshotContent;

/// A segment of the log is followed by another one once it is longer than this, in bytes.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// No snapshot is wanted before the log grew by this, in bytes.
pub const SNAPSHOT_LOG_BYTES_MIN: u64 = 16 << 20;

/// With more parts than this the log is snapshotted however short it is: each restart begins a
/// part.
const SEGMENTS_MAX: usize = 256;

/// Snapshots that are kept: the newest, and one before it in case the newest is damaged.
const SNAPSHOTS_KEPT: usize = 2;

/// How often a view reads again when files change under it, and how long it waits before.
const VIEW_ATTEMPTS_MAX: u32 = 10;
const VIEW_PAUSE: Duration = Duration::from_millis(50);

/// Checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    directory: PathBuf,
    segment_bytes: u64,
    snapshot_log_bytes_min: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("state"),
            segment_bytes: SEGMENT_BYTES,
            snapshot_log_bytes_min: SNAPSHOT_LOG_BYTES_MIN,
        }
    }
}

impl Settings {
    /// State in `directory`, which is made when it does not exist.
    ///
    /// # Errors
    /// A configuration error when the path is empty.
    pub fn new(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        if directory.as_os_str().is_empty() {
            return Err(Error::config("the state directory has no name"));
        }
        Ok(Self { directory, ..Self::default() })
    }

    /// The same with small files, so that a test sees many of them.
    #[must_use]
    pub fn with_sizes(mut self, segment_bytes: u64, snapshot_log_bytes_min: u64) -> Self {
        (self.segment_bytes, self.snapshot_log_bytes_min) = (segment_bytes, snapshot_log_bytes_min);
        self
    }

    /// The state directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Names the pipeline that a state belongs to; drawn at random when its directory is first used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PipelineId(pub u128);

impl fmt::Display for PipelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A snapshot that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotWritten {
    /// Its epoch.
    pub epoch: Epoch,
    /// The size of its file, in bytes.
    pub bytes: u64,
}

/// The state of a running pipeline, locked for it alone.
pub struct State {
    settings: Settings,
    directory: Arc<Directory>,
    pipeline: PipelineId,
    /// Set by `restore`.
    writing: Option<Writing>,
}

/// What is known once the state is restored.
struct Writing {
    schema: Schema,
    log: Log,
    files: Listing,
    /// What the tables showed when the state was restored; the next epoch is a greater one.
    published: Epoch,
    /// The last epoch that was restored; restoring synced the end of the log.
    restored: Epoch,
    committed: Epoch,
    /// The newest snapshot and its size in bytes.
    newest: Option<SnapshotWritten>,
    /// Bytes of the log before it was opened that the newest snapshot does not cover.
    older_log_bytes: u64,
    /// `log.bytes()` when the newest snapshot was begun, or the last attempt failed.
    log_bytes_then: u64,
    background: Option<Background>,
}

/// A snapshot being written.
struct Background {
    epoch: Epoch,
    done: Receiver<Result<u64>>,
    thread: JoinHandle<()>,
}

impl State {
    /// Opens and locks the state directory, making it if it is new.
    ///
    /// # Errors
    /// When it cannot be made or read, another program uses it, or the file that names its pipeline
    /// is missing or damaged.
    pub fn open(settings: &Settings) -> Result<Self> {
        let directory = Directory::lock(&settings.directory)?;
        crash::point(Step::StateLocked);
        let pipeline = match directory.pipeline()? {
            Some(id) => id,
            None => new_pipeline(&directory)?,
        };
        Ok(Self {
            settings: settings.clone(),
            directory: Arc::new(directory),
            pipeline: PipelineId(pipeline),
            writing: None,
        })
    }

    /// The pipeline this state belongs to.
    pub fn pipeline_id(&self) -> PipelineId {
        self.pipeline
    }

    /// Ties the state to a pseudonym key by a check value that tells nothing of the key.
    ///
    /// With another key every record would come a second time under another pseudonym.
    ///
    /// # Errors
    /// A configuration error when the state was made with another key.
    pub fn tie_to_key(&mut self, check: u128) -> Result<()> {
        let check = format!("{check:032x}");
        match self.directory.key_check()? {
            None => self.directory.set_key_check(&check),
            Some(known) if known == check => Ok(()),
            Some(_) => {
                let path = self.settings.directory.display();
                let what = format!("the state in {path} was made with another pseudonym key");
                Err(Error::config(what).advise(
                    "put the key back; to change it for good, delete the state directory: \
                     everything is read again and every row gets a new pseudonym",
                ))
            }
        }
    }

    /// Reads everything back, mends the end of the log, and makes the state ready to be appended
    /// to.
    ///
    /// `published` is the epoch in Postgres; cases come laid out for `schema`.
    ///
    /// # Errors
    /// When a file is damaged or missing in a way that no snapshot makes good, or cannot be read.
    pub fn restore(&mut self, published: Option<Epoch>, schema: &Schema) -> Result<Restored> {
        if !format::schema_fits(schema) {
            return Err(Error::config("the pack asks for more fields than the state can hold"));
        }
        self.writing = None;
        let mut files = self.directory.list()?;
        let recovered =
            recovery::recover(&self.directory, &files, self.pipeline.0, published, schema)?;
        let Recovered { restored, entry_count, snapshot, unusable, log_bytes, end } = recovered;
        crash::point(Step::StateRead);
        match end {
            Some((first, Some(bytes))) => self.directory.cut(&segment_name(first), bytes)?,
            Some((first, None)) => {
                self.directory.remove(&segment_name(first))?;
                files.segments.retain(|segment| *segment != first);
            }
            None => {}
        }
        crash::point(Step::TailCut);
        // A damaged snapshot of an epoch that is lost must never be taken for the one that will
        // have its number.
        for lost in files.snapshots.iter().filter(|epoch| **epoch > restored.last) {
            self.directory.remove(&snapshot_name(*lost))?;
        }
        files.snapshots.retain(|epoch| !unusable.contains(epoch) && *epoch <= restored.last);
        let committed = match restored.agreement {
            Agreement::Agrees => restored.base,
            Agreement::Fresh | Agreement::Reconcile { .. } => Epoch(0),
        };
        let log = Log::after(
            Arc::clone(&self.directory),
            self.pipeline.0,
            schema.clone(),
            restored.last,
            entry_count,
            self.settings.segment_bytes,
        );
        self.writing = Some(Writing {
            schema: schema.clone(),
            log,
            files,
            published: published.unwrap_or_default(),
            restored: restored.last,
            committed,
            newest: snapshot.map(|(epoch, bytes)| SnapshotWritten { epoch, bytes }),
            older_log_bytes: log_bytes,
            log_bytes_then: 0,
            background: None,
        });
        Ok(restored)
    }

    /// Writes an epoch to the log, with what was added to `dictionary`; a thread syncs it.
    ///
    /// Within an epoch deferred arrivals wait first, then releases make visible what waits, then
    /// the other arrivals hold, each in order: whoever computes with the epoch has to do the same.
    ///
    /// An epoch without content may be logged too, as when the tables were reconciled with it.
    ///
    /// # Errors
    /// When the epoch is not greater than the last one or too large for the format; then nothing is
    /// written. When writing failed, now or before: then the program has to start anew.
    pub fn append(&mut self, input: &EpochInput, dictionary: &Interner) -> Result<Pending> {
        let writing = self.writing("appending")?;
        if input.epoch <= writing.published {
            let (new, old) = (input.epoch, writing.published);
            return Err(Error::bug(format!("epoch {new} was appended, epoch {old} is published")));
        }
        let (pending, began) = writing.log.append(input, dictionary)?;
        writing.files.segments.extend(began);
        Ok(pending)
    }

    /// The proof that a restored epoch is in the log, for replaying it.
    ///
    /// # Errors
    /// A bug when the epoch was not restored.
    pub fn logged(&mut self, epoch: Epoch) -> Result<Logged> {
        let restored = self.writing("replaying")?.restored;
        if epoch > restored {
            return Err(Error::bug(format!("epoch {epoch} is replayed, {restored} was restored")));
        }
        Ok(Logged::after_fsync(epoch))
    }

    /// Moves the restart point forward, never back, and removes what no restart needs any more.
    ///
    /// # Errors
    /// When a file cannot be removed, or an earlier write failed.
    pub fn commit(&mut self, durable: Durable) -> Result<()> {
        let directory = Arc::clone(&self.directory);
        let writing = self.writing("committing")?;
        writing.log.check()?;
        writing.committed = writing.committed.max(durable.epoch());
        writing.prune(&directory)
    }

    /// Whether the log has grown so long that a snapshot pays: longer than the last one, and than a
    /// constant.
    pub fn wants_snapshot(&self) -> bool {
        let Some(writing) = &self.writing else { return false };
        let newest = writing.newest.map_or(Epoch(0), |newest| newest.epoch);
        let newest_bytes = || writing.newest.map_or(0, |newest| newest.bytes);
        let snapshot_bytes = crash::file_bytes().map_or_else(newest_bytes, |_| 0);
        let log_bytes =
            writing.older_log_bytes + writing.log.bytes().saturating_sub(writing.log_bytes_then);
        writing.background.is_none()
            && writing.committed > newest
            && (log_bytes > snapshot_bytes.max(self.settings.snapshot_log_bytes_min)
                || writing.files.segments.len() > SEGMENTS_MAX)
    }

    /// Begins to write a snapshot in a thread of its own; see [`Self::snapshot_finished`].
    ///
    /// # Errors
    /// When its epoch is not committed or older than a snapshot, when another one is being written,
    /// and when an earlier write failed.
    pub fn snapshot(&mut self, content: SnapshotContent) -> Result<()> {
        let (directory, pipeline) = (Arc::clone(&self.directory), self.pipeline.0);
        let writing = self.writing("writing a snapshot")?;
        let epoch = content.epoch;
        let newest = writing.files.snapshots.last().copied();
        if epoch > writing.committed || newest.is_some_and(|newest| epoch < newest) {
            let committed = writing.committed;
            return Err(Error::bug(format!(
                "a snapshot of epoch {epoch} was asked for when epoch {committed} was committed"
            )));
        }
        if writing.background.is_some() {
            return Err(Error::bug("a snapshot was asked for while another one is being written"));
        }
        writing.log.roll()?;
        (writing.log_bytes_then, writing.older_log_bytes) = (writing.log.bytes(), 0);
        let (schema, entry_count) = (writing.schema.clone(), writing.log.entry_count());
        let (sender, done) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            let written = snapshot::write(&directory, pipeline, &schema, content, entry_count);
            sender.send(written).ok();
        });
        writing.background = Some(Background { epoch, done, thread });
        Ok(())
    }

    /// The snapshot that was begun, once it is written or has failed; `None` before and when there
    /// is none.
    ///
    /// A failed one changes nothing: the files before it are kept, and another one is wanted later.
    pub fn snapshot_finished(&mut self) -> Option<Result<SnapshotWritten>> {
        let directory = Arc::clone(&self.directory);
        let writing = self.writing.as_mut()?;
        let outcome = match writing.background.as_ref()?.done.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Ok(outcome) => outcome,
            Err(TryRecvError::Disconnected) => Err(Error::bug("the thread of a snapshot ended")),
        };
        let Background { epoch, thread, .. } = writing.background.take()?;
        thread.join().ok();
        Some(outcome.and_then(|bytes| {
            let written = SnapshotWritten { epoch, bytes };
            writing.newest = Some(written);
            writing.files.snapshots.retain(|other| *other != epoch);
            writing.files.snapshots.push(epoch);
            writing.prune(&directory)?;
            Ok(written)
        }))
    }

    fn writing(&mut self, doing: &str) -> Result<&mut Writing> {
        let missing = || Error::bug(format!("{doing}: the state was not restored before"));
        self.writing.as_mut().ok_or_else(missing)
    }
}

impl Drop for State {
    /// Waits for a snapshot that is being written: its thread still holds the lock.
    fn drop(&mut self) {
        if let Some(background) = self.writing.as_mut().and_then(|w| w.background.take()) {
            background.thread.join().ok();
        }
    }
}

impl Writing {
    /// Removes all but the two newest snapshots, and the segments that the older one of them
    /// covers.
    fn prune(&mut self, directory: &Directory) -> Result<()> {
        let kept = self.files.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
        if self.files.snapshots.len() < SNAPSHOTS_KEPT {
            return Ok(());
        }
        for epoch in directory.list()?.snapshots {
            if !self.files.snapshots[kept..].contains(&epoch) {
                directory.remove(&snapshot_name(epoch))?;
                crash::point(Step::SnapshotRemoved);
            }
        }
        self.files.snapshots.drain(..kept);
        let needed_after = self.files.snapshots[0].min(self.committed);
        // All epochs of a segment are older than the first one of the next.
        while let [oldest, next, ..] = self.files.segments[..]
            && next <= needed_after.next()
        {
            directory.remove(&segment_name(oldest))?;
            crash::point(Step::SegmentRemoved);
            self.files.segments.remove(0);
        }
        Ok(())
    }
}

fn new_pipeline(directory: &Directory) -> Result<u128> {
    let files = directory.list()?;
    let first = files.segments.first().map(|first| segment_name(*first));
    let first = first.or(files.snapshots.first().map(|epoch| snapshot_name(*epoch)));
    if let Some(name) = first {
        let what = "the file `pipeline` beside it, which says whose it is, is missing";
        return Err(directory.damaged(&name, frame::Damage { at: 0, what }));
    }
    let id = rand::random();
    directory.set_pipeline(id)?;
    Ok(id)
}

/// The state of a pipeline that may be running, to be looked at: nothing is locked or written.
pub struct StateView {
    directory: Directory,
}

impl State {
    /// Looks at the state beside the pipeline that writes it.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn read_only(settings: &Settings) -> Result<StateView> {
        Ok(StateView { directory: Directory::look(&settings.directory)? })
    }
}

impl StateView {
    /// The pipeline this state belongs to; `None` when nothing was ever written.
    ///
    /// # Errors
    /// When the file that names it cannot be read or is damaged.
    pub fn pipeline_id(&self) -> Result<Option<PipelineId>> {
        Ok(self.directory.pipeline()?.map(PipelineId))
    }

    /// Everything as of `published`, as [`State::restore`] gives it; what was written meanwhile is
    /// its tail.
    ///
    /// # Errors
    /// As for [`State::restore`].
    pub fn restore(&self, published: Option<Epoch>, schema: &Schema) -> Result<Restored> {
        let mut attempt = 1;
        loop {
            let before = self.directory.sizes()?;
            let error = match self.recover(published, schema) {
                Ok(recovered) => return Ok(recovered.restored),
                Err(error) => error,
            };
            // A file was pruned, or an end was seen half written: look again. If nothing moves, it
            // is so.
            let moved = self.directory.sizes()? != before;
            if attempt == VIEW_ATTEMPTS_MAX || (attempt > 1 && !moved) {
                return Err(error);
            }
            if moved {
                std::thread::sleep(VIEW_PAUSE);
            }
            attempt += 1;
        }
    }

    fn recover(&self, published: Option<Epoch>, schema: &Schema) -> Result<Recovered> {
        let pipeline = self.directory.pipeline()?.unwrap_or(0);
        let files = self.directory.list()?;
        recovery::recover(&self.directory, &files, pipeline, published, schema)
    }
}
