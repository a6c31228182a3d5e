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

mod beginning;
mod bundle;
mod compact;
mod decoders;
mod directory;
mod disk;
mod erased;
mod format;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod log;
mod power;
mod record;
mod recovery;
mod seal;
mod segment;
mod settings;
mod show;
mod snapshot;
mod sums;
mod translation;
mod view;
mod writer;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Stopwatch};

use crate::crash::{self, Step};
use crate::error::{Error, Kind, Result};
use crate::model::{Durable, Epoch, EpochInput, Interner, Logged, Schema};

use beginning::FileKind;
use directory::{Directory, Listing, segment_name, snapshot_name};
use log::Log;
use recovery::Recovered;

pub use bundle::{Exported, import};
pub use compact::COMPACTION_AGE_MAX;
#[doc(hidden)]
pub use disk::{Faults, Operation};
pub use log::Pending;
#[doc(hidden)]
pub use power::Loss;
pub use recovery::{Agreement, Restored};
pub use seal::{KEY_BYTES, PREVIOUS_KEYS_MAX, StateKey};
pub use settings::Settings;
pub use show::{FileShown, Sealing, Shown};
pub use snapshot::SnapshotContent;
pub use view::StateView;

/// A segment of the log is followed by another one once it is longer than this, in bytes.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// No snapshot is wanted before the log grew by this, in bytes.
pub const SNAPSHOT_LOG_BYTES_MIN: u64 = 16 << 20;

/// With more parts than this the log is snapshotted however short it is: each restart begins a
/// part.
const SEGMENTS_MAX: usize = 256;

/// Snapshots that are kept: the newest, and one before it in case the newest is damaged.
const SNAPSHOTS_KEPT: usize = 2;

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
    /// How long it took; nothing for one that an earlier run has written.
    pub took: Duration,
}

/// The state of a running pipeline, locked for it alone.
pub struct State {
    settings: Settings,
    directory: Arc<Directory>,
    pipeline: PipelineId,
    /// When it was compacted last, in milliseconds since 1970, once that was read.
    compacted: Option<u64>,
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
    /// Names of files that are not sealed as files are now.
    stale: BTreeSet<String>,
    /// Whether the last snapshot failed: then only a longer log asks for the next one.
    failed: bool,
    /// Whether the newest snapshot has no sums that hold.
    lacks_sums: bool,
    /// When the compaction was begun that the snapshot being written is of.
    compacting: Option<u64>,
}

/// A snapshot being written.
struct Background {
    epoch: Epoch,
    begun: Stopwatch,
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
        let directory = Directory::lock(&settings.directory, settings.access.clone())?;
        crash::point(Step::StateLocked);
        let pipeline = match directory.pipeline()? {
            Some(id) => id,
            None => new_pipeline(&directory)?,
        };
        Ok(Self {
            settings: settings.clone(),
            directory: Arc::new(directory),
            pipeline: PipelineId(pipeline),
            compacted: None,
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
        tie_to_key(&self.directory, check)
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
        // First, so that nothing is mended beside a file that another program or key is needed for.
        let mut stale = stale(&self.directory, &files)?;
        let recovered =
            recovery::recover(&self.directory, &files, self.pipeline.0, published, schema)?;
        let Recovered { restored, entry_count, snapshot, unusable, log_bytes, end } = recovered;
        crash::point(Step::StateRead);
        match end {
            Some((first, Some(bytes))) => self.directory.cut(&segment_name(first), bytes)?,
            Some((first, None)) => {
                self.directory.remove(&segment_name(first))?;
                stale.remove(&segment_name(first));
                files.segments.retain(|segment| *segment != first);
            }
            None => {}
        }
        crash::point(Step::TailCut);
        // A damaged snapshot of an epoch that is lost must never be taken for the one that will
        // have its number.
        for lost in files.snapshots.iter().filter(|epoch| **epoch > restored.last) {
            self.directory.remove(&snapshot_name(*lost))?;
            stale.remove(&snapshot_name(*lost));
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
            newest: snapshot.map(|(epoch, bytes)| SnapshotWritten {
                epoch,
                bytes,
                took: Duration::ZERO,
            }),
            older_log_bytes: log_bytes,
            log_bytes_then: 0,
            background: None,
            stale,
            failed: false,
            lacks_sums: false,
            compacting: None,
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

    /// Whether a snapshot pays: the log has grown longer than the last one, and than a constant; or
    /// a file is not sealed as files are now, and two snapshots will have replaced it; or the newest one has no sums
    /// that hold.
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
                || ((!writing.stale.is_empty() || writing.lacks_sums) && !writing.failed)
                || writing.files.segments.len() > SEGMENTS_MAX)
    }

    /// Notes that the newest snapshot, if there is one, has no sums that hold.
    pub fn lacks_sums(&mut self) {
        if let Some(writing) = &mut self.writing {
            writing.lacks_sums = writing.newest.is_some();
        }
    }

    /// How many files are not sealed as files are now: sealed with another key, or not at all while
    /// there is one. Nothing before [`Self::restore`].
    pub fn stale_file_count(&self) -> usize {
        self.writing.as_ref().map_or(0, |writing| writing.stale.len())
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
        writing.lacks_sums = content.sums.is_none();
        let (schema, entry_count) = (writing.schema.clone(), writing.log.entry_count());
        let is_alone = writing.compacting.is_some();
        let (sender, done) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            let mut written = snapshot::write(&directory, pipeline, &schema, content, entry_count);
            if is_alone && written.is_ok() {
                // What it stands for goes: it must be readable.
                let read = snapshot::read(&directory, epoch, pipeline, &schema);
                written = read.and(written);
            }
            sender.send(written).ok();
        });
        writing.background = Some(Background { epoch, begun: Stopwatch::now(), done, thread });
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
        let Background { epoch, begun, thread, .. } = writing.background.take()?;
        thread.join().ok();
        writing.failed = outcome.is_err();
        let compacting = writing.compacting.take();
        let finished = outcome.and_then(|bytes| {
            let written = SnapshotWritten { epoch, bytes, took: begun.elapsed() };
            writing.newest = Some(written);
            writing.files.snapshots.retain(|other| *other != epoch);
            writing.files.snapshots.push(epoch);
            writing.stale.remove(&snapshot_name(epoch));
            match compacting {
                Some(began) => writing.keep_only(&directory, epoch, began)?,
                None => writing.prune(&directory)?,
            }
            Ok(written)
        });
        if let (Ok(_), Some(began)) = (&finished, compacting) {
            self.compacted_at(began);
        }
        Some(finished)
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

/// The files that are not sealed as files are now. One whose beginning cannot be understood is
/// counted as well: it is to go.
fn stale(directory: &Directory, files: &Listing) -> Result<BTreeSet<String>> {
    let segments = files.segments.iter().map(|first| (segment_name(*first), FileKind::Segment));
    let snapshots = files.snapshots.iter().map(|epoch| (snapshot_name(*epoch), FileKind::Snapshot));
    let mut stale = BTreeSet::new();
    for (name, kind) in segments.chain(snapshots) {
        match directory.sealing(&name, kind) {
            Ok(sealing) if sealing == directory.keys().sealing() => {}
            Ok(_) => drop(stale.insert(name)),
            Err(error) if error.kind() == Kind::DataDiffers => drop(stale.insert(name)),
            Err(error) => return Err(error),
        }
    }
    Ok(stale)
}

/// See [`State::tie_to_key`].
fn tie_to_key(directory: &Directory, check: u128) -> Result<()> {
    let check = format!("{check:032x}");
    match directory.key_check()? {
        None => directory.set_key_check(&check),
        Some(known) if known == check => Ok(()),
        Some(_) => {
            let path = directory.path().display();
            let what = format!("the state in {path} was made with another pseudonym key");
            Err(Error::config(what).advise(
                "put the key back; to change it for good, delete the state directory: \
                 everything is read again and every row gets a new pseudonym",
            ))
        }
    }
}

fn new_pipeline(directory: &Directory) -> Result<u128> {
    let files = directory.list()?;
    let first = files.segments.first().map(|first| segment_name(*first));
    let first = first.or(files.snapshots.first().map(|epoch| snapshot_name(*epoch)));
    if let Some(name) = first {
        let what = "the file `pipeline` beside it, which says whose it is, is missing";
        return Err(directory.damaged(&name, frame::Damage::new(0, what)));
    }
    let id = rand::random();
    directory.set_pipeline(id)?;
    Ok(id)
}
