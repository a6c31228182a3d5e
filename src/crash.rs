//! Every step on the path of an epoch at which a test ends or stops the program, in the order in which it is
//! passed.
//!
//! A test orders one with the environment variable `TONLE_CRASH`: `log.synced:3` kills the process when it passes
//! that step the third time, as `kill -9` would; `log.synced:3:stop` stops it, as `kill -STOP` would, until
//! somebody continues it. `TONLE_FILE_BYTES` says from how many bytes of log on a segment and a snapshot are begun,
//! so that a short test sees many of them.
//!
//! **Invariant:** only what is built for tests, and without optimizations, has any of this: elsewhere [`point`] is
//! empty and the environment is not looked at.

use std::io::Write;

macro_rules! steps {
    ($($(#[doc = $meaning:literal])+ $step:ident = $name:literal,)+) => {
        /// A step that is told apart from what comes before and after it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step {
            $($(#[doc = $meaning])+ $step,)+
        }

        impl Step {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$step),+];

            /// What `TONLE_CRASH` calls it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)+
                }
            }
        }
    };
}

steps! {
    // A start: from a lock to the first request.
    /// The state directory is made and locked; nothing in it was looked at.
    StateLocked = "state.locked",
    /// The name of the pipeline is on disk under a temporary name.
    PipelineSynced = "pipeline.synced",
    /// It bears its own name; the directory is not synced.
    PipelineRenamed = "pipeline.renamed",
    /// The check value of the pseudonym key is on disk under a temporary name.
    KeySynced = "key.synced",
    /// It bears its own name; the directory is not synced.
    KeyRenamed = "key.renamed",
    /// All missing steps of the schema ran; their transaction is open.
    SchemaMade = "schema.made",
    /// The schema is committed; the fence still belongs to another run.
    SchemaCommitted = "schema.committed",
    /// This run owns the fence.
    FenceClaimed = "fence.claimed",
    /// Snapshot and log were read; nothing of their end was mended.
    StateRead = "state.read",
    /// The torn end of the log is cut; snapshots of lost epochs are still there.
    TailCut = "tail.cut",
    /// The state is ready to be appended to.
    StateRestored = "state.restored",
    /// This run owns the fence over its second connection too.
    FenceKept = "fence.kept",
    /// Tables and state were asked for their tombstones, and the tables have all of them.
    ErasuresCompared = "erasures.compared",
    /// The records are computed as of the tables.
    BaseComputed = "base.computed",
    /// An epoch that the tables do not show is taken from the log.
    ReplayBegun = "replay.begun",
    /// All epochs of the log are in the tables.
    ReplayEnded = "replay.ended",
    /// The log says what the start owes: instances to be read again for new fields, or tables to be compared.
    DebtLogged = "debt.logged",
    /// Every source has begun.
    SourcesStarted = "sources.started",

    // From a reply to an epoch.
    /// The reply of a server is read, not decoded.
    ReplyRead = "reply.read",
    /// All records of a page are decoded.
    ReplyDecoded = "reply.decoded",
    /// They are handed over.
    BatchSent = "batch.sent",
    /// The places of an instance are handed over.
    PlacesSent = "places.sent",
    /// The labels of an instance are handed over.
    LabelsSent = "labels.sent",
    /// Everything that a server has was listed; nobody was told who is gone.
    CensusTaken = "census.taken",
    /// All that one epoch will hold is gathered.
    EpochGathered = "epoch.gathered",
    /// The state keeps tombstones of those who are gone; the tables do not yet.
    DeparturesKept = "departures.kept",
    /// The tables do too; that they are gone is not in the log.
    DeparturesTold = "departures.told",

    // The log.
    /// A full segment is on disk; the next one does not exist.
    SegmentRolled = "segment.rolled",
    /// The head of a segment is on disk under a temporary name.
    SegmentSynced = "segment.synced",
    /// It bears its own name; the directory is not synced.
    SegmentRenamed = "segment.renamed",
    /// Half the bytes of an epoch are in the log.
    LogHalfWritten = "log.half-written",
    /// All of them are; none is synced.
    LogWritten = "log.written",
    /// They are synced; nobody was told.
    LogSynced = "log.synced",
    /// Cursors, places and records that wait hold as of the epoch.
    EpochAbsorbed = "epoch.absorbed",
    /// Its changes are computed; whether it is on disk is not known.
    EpochComputed = "epoch.computed",
    /// It is on disk: it may be written.
    EpochLogged = "epoch.logged",

    // The transaction of an epoch.
    /// The tables of the pack are made; their transaction is open.
    TablesMade = "tables.made",
    /// Its transaction has begun.
    EpochBegun = "epoch.begun",
    /// The fence is moved within it.
    EpochFenced = "epoch.fenced",
    /// Its new cells were copied.
    CellsCopied = "cells.copied",
    /// All its rows were written; nothing is committed.
    EpochWritten = "epoch.written",
    /// It is committed; nobody was told.
    EpochCommitted = "epoch.committed",
    /// The state knows that it is committed, and has removed what no restart needs.
    EpochAcknowledged = "epoch.acknowledged",

    // Everything computed anew, and compared with the tables.
    /// Everything is to be computed anew.
    RebuildBegun = "rebuild.begun",
    /// It is computed.
    RebuildComputed = "rebuild.computed",
    /// The transaction of a reconcile has begun, and holds the fence.
    ReconcileBegun = "reconcile.begun",
    /// Columns, extracts and views are those of the pack.
    ReconcileShaped = "reconcile.shaped",
    /// The cells are compared and put right.
    ReconcileCells = "reconcile.cells",
    /// The rows of an extract are compared and put right.
    ReconcileRows = "reconcile.rows",
    /// The fence is moved; nothing is committed.
    ReconcileFenced = "reconcile.fenced",
    /// It is committed; nobody was told.
    ReconcileCommitted = "reconcile.committed",

    // Beside the epochs.
    /// What rows mean is written; its transaction is open.
    MeaningWritten = "meaning.written",
    /// It is committed.
    MeaningCommitted = "meaning.committed",
    /// How current each instance is was written.
    StatusWritten = "status.written",
    /// A snapshot exists under a temporary name, empty.
    SnapshotBegun = "snapshot.begun",
    /// A part of it is written.
    SnapshotHalfWritten = "snapshot.half-written",
    /// All of it is; it is not synced.
    SnapshotWritten = "snapshot.written",
    /// It is synced, still under its temporary name.
    SnapshotSynced = "snapshot.synced",
    /// It bears its own name; the directory is not synced.
    SnapshotRenamed = "snapshot.renamed",
    /// It is on disk for good; nothing was removed for it.
    SnapshotPublished = "snapshot.published",
    /// A snapshot that is not needed any more is removed.
    SnapshotRemoved = "snapshot.removed",
    /// A segment that is not needed any more is removed.
    SegmentRemoved = "segment.removed",
    /// A compaction has removed a snapshot beside its own, whose name is on disk.
    CompactedSnapshotRemoved = "compacted.snapshot-removed",
    /// A compaction has removed a segment.
    CompactedSegmentRemoved = "compacted.segment-removed",
    /// A compaction has removed all it stands for; that it did is on disk under a temporary name.
    CompactedSynced = "compacted.synced",
    /// That bears its own name; the directory is not synced.
    CompactedRenamed = "compacted.renamed",
    /// The tombstones of erased records are on disk under a temporary name.
    ErasedSynced = "erased.synced",
    /// They bear their own name; the directory is not synced.
    ErasedRenamed = "erased.renamed",

    // The end.
    /// Nothing more is read or written but how current each instance is.
    Ending = "ending",
    /// That is written too.
    Ended = "ended",
}

/// Between the fsync of a file of the state and the rename that gives it its `name`.
#[inline]
pub fn synced(name: &str) {
    match kind(name) {
        FileKind::Pipeline => point(Step::PipelineSynced),
        FileKind::Key => point(Step::KeySynced),
        FileKind::Segment => point(Step::SegmentSynced),
        FileKind::Snapshot => point(Step::SnapshotSynced),
        FileKind::Compacted => point(Step::CompactedSynced),
        FileKind::Erased => point(Step::ErasedSynced),
        FileKind::Other => {}
    }
}

/// Between that rename and the fsync of the directory.
#[inline]
pub fn renamed(name: &str) {
    match kind(name) {
        FileKind::Pipeline => point(Step::PipelineRenamed),
        FileKind::Key => point(Step::KeyRenamed),
        FileKind::Segment => point(Step::SegmentRenamed),
        FileKind::Snapshot => point(Step::SnapshotRenamed),
        FileKind::Compacted => point(Step::CompactedRenamed),
        FileKind::Erased => point(Step::ErasedRenamed),
        FileKind::Other => {}
    }
}

enum FileKind {
    Pipeline,
    Key,
    Segment,
    Snapshot,
    Compacted,
    Erased,
    Other,
}

fn kind(name: &str) -> FileKind {
    match name {
        "pipeline" => FileKind::Pipeline,
        "key-check" => FileKind::Key,
        "compacted" => FileKind::Compacted,
        "erased" => FileKind::Erased,
        _ if name.ends_with(".seg") => FileKind::Segment,
        _ if name.ends_with(".snap") => FileKind::Snapshot,
        _ => FileKind::Other,
    }
}

/// Ends or stops the process if that was ordered for this passing of the step.
#[inline]
pub fn point(step: Step) {
    #[cfg(all(feature = "crash-points", debug_assertions))]
    ordered::pass(step);
    #[cfg(not(all(feature = "crash-points", debug_assertions)))]
    let _ = step;
}

/// Whether this or a later passing of the step is ordered, so that what only travels with later work can be sent
/// before it.
#[inline]
pub fn is_ordered(step: Step) -> bool {
    #[cfg(all(feature = "crash-points", debug_assertions))]
    return ordered::is_ahead(step);
    #[cfg(not(all(feature = "crash-points", debug_assertions)))]
    {
        let _ = step;
        false
    }
}

/// In front of a write of `bytes`: if that was ordered, half of them are written before the process ends.
#[inline]
pub fn half_written(step: Step, file: impl Write, bytes: &[u8]) {
    #[cfg(all(feature = "crash-points", debug_assertions))]
    ordered::pass_half(step, file, bytes);
    #[cfg(not(all(feature = "crash-points", debug_assertions)))]
    let _ = (step, file, bytes);
}

/// Bytes of a segment, and bytes of log between two snapshots however large those are, that a test wants.
#[inline]
pub fn file_bytes() -> Option<(u64, u64)> {
    #[cfg(all(feature = "crash-points", debug_assertions))]
    return ordered::file_bytes();
    #[cfg(not(all(feature = "crash-points", debug_assertions)))]
    None
}

#[cfg(all(feature = "crash-points", debug_assertions))]
mod ordered {
    use std::io::Write;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use crate::crash::Step;

    /// What was ordered when the process began.
    static ORDER: LazyLock<Option<Order>> =
        LazyLock::new(|| Order::read(&std::env::var("TONLE_CRASH").ok()?));

    pub(super) struct Order {
        pub(super) step: &'static str,
        /// Passings up to the ordered one, which counts.
        pub(super) ahead: AtomicI64,
        pub(super) signal: Signal,
    }

    impl Order {
        /// `step`, `step:passing` or `step:passing:stop`.
        pub(super) fn read(text: &str) -> Option<Self> {
            let mut parts = text.split(':');
            let name = parts.next()?;
            let step = Step::ALL.iter().map(|step| step.name()).find(|known| *known == name)?;
            let ahead = parts.next().map_or(Some(1), |passing| passing.parse().ok())?;
            let signal = match parts.next() {
                None => Signal::KILL,
                Some("stop") => Signal::STOP,
                Some(_) => return None,
            };
            Some(Self { step, ahead: AtomicI64::new(ahead), signal })
        }
    }

    pub(super) fn pass(step: Step) {
        if let Some(order) = fires(step) {
            act(order.signal);
        }
    }

    pub(super) fn pass_half(step: Step, mut file: impl Write, bytes: &[u8]) {
        if let Some(order) = fires(step) {
            file.write_all(&bytes[..bytes.len() / 2]).ok();
            act(order.signal);
        }
    }

    pub(super) fn is_ahead(step: Step) -> bool {
        let order = ORDER.as_ref().filter(|order| order.step == step.name());
        order.is_some_and(|order| order.ahead.load(Ordering::Relaxed) > 0)
    }

    fn fires(step: Step) -> Option<&'static Order> {
        let order = ORDER.as_ref().filter(|order| order.step == step.name())?;
        (order.ahead.fetch_sub(1, Ordering::Relaxed) == 1).then_some(order)
    }

    /// No thread of the process comes past this: a signal to oneself is taken before the call returns.
    fn act(signal: Signal) {
        kill_process(getpid(), signal).ok();
    }

    pub(super) fn file_bytes() -> Option<(u64, u64)> {
        let text = std::env::var("TONLE_FILE_BYTES").ok()?;
        let (segment, snapshot) = text.split_once(':')?;
        Some((segment.parse().ok()?, snapshot.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let mut names: Vec<_> = Step::ALL.iter().map(|step| step.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Step::ALL.len());
    }

    #[cfg(all(feature = "crash-points", debug_assertions))]
    #[test]
    fn an_order_is_a_step_a_passing_and_what_to_do() {
        let read = |text: &str| {
            ordered::Order::read(text)
                .map(|order| (order.step, order.ahead.into_inner(), order.signal))
        };
        let kill = rustix::process::Signal::KILL;
        assert_eq!(read("log.synced"), Some(("log.synced", 1, kill)));
        assert_eq!(read("log.synced:3"), Some(("log.synced", 3, kill)));
        let stop = rustix::process::Signal::STOP;
        assert_eq!(read("log.synced:1:stop"), Some(("log.synced", 1, stop)));
        for nothing in ["", "log", "log.synced:x", "log.synced:1:sleep"] {
            assert_eq!(read(nothing), None, "{nothing:?}");
        }
    }
}
