//! A disk that fails: at each single operation, for good, in the middle of a frame.
//!
//! Whatever fails, nothing panics, the error says which file and what was asked of the disk, and a
//! start on a disk that is well again gives back every epoch that was called durable, and no half
//! one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tonle::error::{Error, Kind, Result};
use tonle::model::{Epoch, Tombstone};
use tonle::state::{Agreement, COMPACTION_AGE_MAX, Faults, Operation, Settings, State};

use super::world::{How, Step, World, files, schema, sealed, settings, step, view_with};

// Errors of the system, as Linux numbers them; these are the same on macOS.
pub(super) const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// In memory where that is possible: a disk of a test is synced some ten thousand times.
pub(super) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let fast = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    fast.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// A state on a disk with faults, and what it called durable.
pub(super) struct Play {
    pub(super) world: World,
    settings: Settings,
    pub(super) faults: Arc<Faults>,
    /// What Postgres holds.
    pub(super) committed: Epoch,
    /// The tombstones that are kept; while they are being written, what was kept and what is to be.
    erased: Vec<BTreeSet<Tombstone>>,
    /// Files that a compaction said to have removed.
    removed: BTreeSet<String>,
}

/// The names of the log and the snapshots.
fn names(directory: &Path) -> BTreeSet<String> {
    let paths = files(directory, "seg").into_iter().chain(files(directory, "snap"));
    paths.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

impl Play {
    fn new(how: How, faults: Arc<Faults>) -> Self {
        Self::on(how, directory(), faults)
    }

    pub(super) fn on(how: How, directory: TempDir, faults: Arc<Faults>) -> Self {
        let mut world = World::unopened(how);
        world.directory = directory;
        let settings = how(world.directory.path()).with_faults(Arc::clone(&faults));
        let (committed, erased, removed) = (Epoch(0), vec![BTreeSet::new()], BTreeSet::new());
        Self { world, settings, faults, committed, erased, removed }
    }

    /// Goes on with other faults.
    pub(super) fn with(&mut self, faults: &Arc<Faults>) {
        self.world.state = None;
        self.faults = Arc::clone(faults);
        let directory = self.world.directory.path();
        self.settings = (self.world.how)(directory).with_faults(Arc::clone(faults));
    }

    pub(super) fn published(&self) -> Option<Epoch> {
        (self.committed > Epoch(0)).then_some(self.committed)
    }

    pub(super) fn restart(&mut self) -> Result<()> {
        let published = self.published();
        self.world.try_restart(&self.settings.clone(), published).map(drop)
    }

    fn append(&mut self, seed: u16) -> Result<()> {
        let input = self.world.input(&step(seed));
        let appended = self.world.try_append(input);
        // Postgres has what is durable, whatever becomes of the files that are not needed any more.
        self.committed = self.world.durable;
        appended
    }

    fn erase(&mut self, number: u16) -> Result<()> {
        let mut all = self.erased[0].clone();
        all.insert(Tombstone(u128::from(number) << 100 | 7));
        self.erased.push(all.clone());
        self.world.state.as_mut().unwrap().keep_erased(&all)?;
        self.erased = vec![all];
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        let before = names(self.world.directory.path());
        let written = self.world.try_compact()?;
        let left = names(self.world.directory.path());
        let only = format!("snapshot-{:020}.snap", written.epoch.0);
        assert_eq!(left, BTreeSet::from([only]));
        self.removed.extend(before.difference(&left).cloned());
        Ok(())
    }

    /// Epochs in several segments, snapshots, pruning, a compaction, tombstones, and restarts.
    pub(super) fn history(&mut self) -> Result<()> {
        self.restart()?;
        let state = self.world.state.as_mut().unwrap();
        assert!(!state.compaction_due(COMPACTION_AGE_MAX)?);
        for seed in 0..16 {
            self.append(seed)?;
            if seed % 4 == 2 {
                self.world.try_snapshot()?;
            }
            if matches!(seed, 5 | 12) {
                self.erase(seed)?;
            }
            if seed == 11 {
                self.compact()?;
            }
            if seed % 5 == 3 {
                self.restart()?;
            }
        }
        Ok(())
    }

    /// Goes on where the disk is well again.
    pub(super) fn recovers(mut self, context: &str) {
        self.world.state = None;
        let well = (self.world.how)(self.world.directory.path());
        let published = self.published();
        let restored = view_with(&well, published);
        let restored = restored.unwrap_or_else(|error| panic!("{context}: {error}"));
        self.world.check(&restored, published);
        let erased = State::read_only(&well).unwrap().erased().unwrap();
        assert!(self.erased.contains(&erased), "{context}: other tombstones are kept");
        let back: Vec<_> =
            names(self.world.directory.path()).intersection(&self.removed).cloned().collect();
        assert!(back.is_empty(), "{context}: {back:?} were removed by a compaction");
        let last = self.world.try_restart(&well, published);
        let last = last.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(last >= self.committed, "{context}: {last} after {}", self.committed);
        let restored = view_with(&well, published).unwrap();
        assert!(published.is_none() || restored.agreement == Agreement::Agrees, "{context}");
        self.world.forget_after(last);
        self.world.step(&Step { snapshot: true, ..step(20) });
        self.world.step(&step(21));
        self.world.restart(Some(self.world.last()));
    }
}

/// Says which file or directory it was, what was asked of the disk, and what the disk said.
fn clear(error: &Error, play: &Play, context: &str) {
    let text = error.to_string();
    let directory = play.world.directory.path().to_str().unwrap();
    let (operation, path) = play.faults.failed()[0].clone();
    let name = path.file_name().unwrap().to_str().unwrap().trim_end_matches(".tmp").to_owned();
    let verb = match operation {
        Operation::List => "listing",
        Operation::Open => "opening|reading",
        Operation::Create => "creating|opening the state directory",
        Operation::Read => "reading",
        Operation::Write => "writing",
        Operation::Sync => "syncing",
        Operation::SyncDirectory => "syncing the name of",
        Operation::Cut => "cutting",
        Operation::Rename => "naming",
        Operation::Remove => "removing",
    };
    let names = text.contains(directory)
        && (text.contains(&name) || name == "lock" || operation == Operation::SyncDirectory);
    assert!(names, "{context}: {path:?} is not named: {text}");
    assert!(verb.split('|').any(|verb| text.contains(verb)), "{context}: {operation:?}: {text}");
    assert!(text.contains("os error"), "{context}: {text}");
    assert!(matches!(error.kind(), Kind::Temporary | Kind::Config), "{context}: {error:?}");
}

fn undisturbed(how: How) -> Arc<Faults> {
    let faults = Faults::none();
    let mut play = Play::new(how, Arc::clone(&faults));
    play.history().unwrap();
    faults
}

/// Each operation of a history fails, once and then for good; both with plain and sealed files.
#[test]
fn every_single_operation_may_fail() {
    let mut operations = BTreeSet::new();
    let (mut failures, mut survived) = (0, BTreeSet::new());
    for how in [settings as How, sealed] {
        let count = undisturbed(how).count();
        assert!(count > 280, "{count}");
        for number in 0..count {
            for faults in [Faults::nth(number, EIO), Faults::from(number, EIO)] {
                let context = format!("operation {number} of {count}");
                let mut play = Play::new(how, faults);
                let ended = play.history();
                let (operation, path) = play.faults.failed().first().cloned().unwrap();
                match ended {
                    Err(error) => {
                        clear(&error, &play, &context);
                        failures += 1;
                    }
                    Ok(()) => drop(survived.insert((operation, path))),
                }
                operations.insert(operation);
                play.recovers(&context);
            }
        }
    }
    // Nothing that fails is passed over, and no kind of operation is forgotten.
    assert!(survived.is_empty(), "{survived:?}");
    assert!(failures > 1_100, "{failures}");
    assert_eq!(operations.len(), 10, "{operations:?}");
}

/// Every write of a history finds the disk full, and leaves some bytes of a frame, or none.
#[test]
fn a_full_disk_loses_nothing_that_was_called_durable() {
    for how in [settings as How, sealed] {
        let writes = undisturbed(how).count_of(Operation::Write);
        assert!(writes > 20, "{writes}");
        for after in 0..writes {
            for short_bytes in [0, 1, 7, 8, 9, 30, 200, usize::MAX] {
                let context = format!("write {after}, {short_bytes} bytes");
                let mut play = Play::new(how, Faults::full(after, short_bytes, ENOSPC));
                let error = play.history().unwrap_err();
                clear(&error, &play, &context);
                assert!(error.to_string().contains("No space left"), "{context}: {error}");
                assert_eq!(error.kind(), Kind::Temporary);
                play.recovers(&context);
            }
        }
    }
}

/// A snapshot that fails takes nothing with it: the epochs go on.
#[test]
fn a_snapshot_that_finds_the_disk_full_is_given_up() {
    let faults = Faults::full(0, 9, ENOSPC);
    faults.lift();
    let mut play = Play::new(settings, Arc::clone(&faults));
    play.restart().unwrap();
    for seed in 0..5 {
        play.append(seed).unwrap();
    }
    faults.arm();
    let error = play.world.try_snapshot().unwrap_err();
    assert!(error.to_string().contains("snapshot-"), "{error}");
    faults.lift();
    let left = std::fs::read_dir(play.world.directory.path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_str().unwrap().ends_with(".tmp")), "{left:?}");
    play.append(5).unwrap();
    play.world.try_snapshot().unwrap();
    play.recovers("a snapshot failed");
}

/// After a sync that failed nobody knows what is on the disk: nothing more is called durable, though
/// the disk says that it is well again.
#[test]
fn after_a_failed_sync_nothing_is_called_durable() {
    let syncs = undisturbed(settings).count_of(Operation::Sync);
    let mut broken = 0;
    for number in 0..syncs {
        let faults = Faults::of(Operation::Sync, number, EIO);
        let mut play = Play::new(settings, Arc::clone(&faults));
        if play.restart().is_err() {
            continue;
        }
        let mut failed = false;
        for seed in 0..12 {
            match play.append(seed) {
                Ok(()) => {
                    let durable = !failed && faults.failed().is_empty();
                    assert!(durable, "sync {number}: epoch {} is called durable", play.committed);
                }
                Err(error) => {
                    assert!(error.to_string().contains("sync"), "{error}");
                    failed = true;
                    faults.lift();
                }
            }
        }
        broken += u32::from(failed);
        play.recovers(&format!("sync {number}"));
    }
    assert!(broken > 5, "{broken}");
}

/// Whoever operates it has to mend the rights or the mount: a wrong setting, not something to try
/// again.
#[test]
fn a_directory_that_may_not_be_written_is_a_wrong_setting() {
    for errno in [EROFS, EACCES] {
        for operation in [Operation::Create, Operation::Cut] {
            let mut play = Play::new(settings, Faults::none());
            play.history().unwrap();
            play.world.state = None;
            let how = play.settings.clone().with_faults(Faults::of(operation, 0, errno));
            let open = || State::open(&how)?.restore(play.published(), &schema());
            let error = open().unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (Kind::Config, 2), "{error}");
            let directory = play.world.directory.path().to_str().unwrap();
            assert!(error.to_string().contains(directory), "{error}");
            play.recovers("it may be written again");
        }
    }
}

/// The end of the log is cut when it is torn, and the cut may fail.
#[test]
fn a_cut_that_fails_is_made_at_the_next_start() {
    for operation in [Operation::Cut, Operation::Sync, Operation::Remove] {
        let mut play = Play::new(settings, Faults::none());
        play.history().unwrap();
        play.world.state = None;
        let segment = play.world.newest("seg");
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes.extend(&bytes.clone()[..20]);
        std::fs::write(&segment, &bytes).unwrap();
        let how = play.settings.clone().with_faults(Faults::of(operation, 0, EIO));
        let mut state = State::open(&how).unwrap();
        let restored = state.restore(play.published(), &schema());
        assert_eq!(restored.is_err(), operation != Operation::Remove);
        drop(state);
        play.recovers("the end was torn");
    }
}

/// A snapshot that cannot be read at the moment is not one that is damaged: it is neither passed
/// over nor removed.
#[test]
fn a_snapshot_that_cannot_be_read_just_now_is_kept() {
    let mut play = Play::new(settings, Faults::none());
    play.history().unwrap();
    play.world.state = None;
    let snapshot = play.world.newest("snap");
    let well = (play.world.how)(play.world.directory.path());
    let published = play.published();
    let restore = |faults: Arc<Faults>| {
        let how = well.clone().with_faults(faults);
        State::open(&how).and_then(|mut state| state.restore(published, &schema()))
    };
    let reads = Faults::none();
    restore(Arc::clone(&reads)).unwrap();
    let count = reads.count_of(Operation::Read);
    assert!(count > 20, "{count}");
    for number in 0..count {
        let error = restore(Faults::one_of(Operation::Read, number, EIO)).unwrap_err();
        assert_eq!(error.kind(), Kind::Temporary, "read {number} of {count}: {error}");
        assert!(snapshot.exists());
    }
    play.recovers("it can be read again");
}
