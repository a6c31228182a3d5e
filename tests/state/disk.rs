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
use tonle::model::Epoch;
use tonle::state::{Agreement, Faults, Operation, Settings, State};

use super::world::{How, Step, World, schema, sealed, settings, step, view_with};

// Errors of the system, as Linux numbers them; these are the same on macOS.
const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// In memory where that is possible: a disk of a test is synced some ten thousand times.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let fast = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    fast.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// A state on a disk with faults, and what it called durable.
struct Play {
    world: World,
    settings: Settings,
    faults: Arc<Faults>,
    /// What Postgres holds.
    committed: Epoch,
}

impl Play {
    fn new(how: How, faults: Arc<Faults>) -> Self {
        let mut world = World::unopened(how);
        world.directory = directory();
        let settings = how(world.directory.path()).with_faults(Arc::clone(&faults));
        Self { world, settings, faults, committed: Epoch(0) }
    }

    fn published(&self) -> Option<Epoch> {
        (self.committed > Epoch(0)).then_some(self.committed)
    }

    fn restart(&mut self) -> Result<()> {
        let published = self.published();
        self.world.try_restart(&self.settings.clone(), published).map(drop)
    }

    fn append(&mut self, seed: u16) -> Result<()> {
        let input = self.world.input(&step(seed));
        let epoch = input.epoch;
        self.world.try_append(input)?;
        self.committed = epoch;
        Ok(())
    }

    /// Epochs in several segments, three snapshots, pruning, and two restarts.
    fn history(&mut self) -> Result<()> {
        self.restart()?;
        for seed in 0..12 {
            self.append(seed)?;
            if seed % 4 == 2 {
                self.world.try_snapshot()?;
            }
            if seed % 5 == 3 {
                self.restart()?;
            }
        }
        Ok(())
    }

    /// Goes on where the disk is well again.
    fn recovers(mut self, context: &str) {
        self.world.state = None;
        let well = (self.world.how)(self.world.directory.path());
        let published = self.published();
        if let Ok(restored) = view_with(&well, published) {
            self.world.check(&restored, published);
        }
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
    let mut failures = 0;
    for how in [settings as How, sealed] {
        let count = undisturbed(how).count();
        assert!(count > 150, "{count}");
        for number in 0..count {
            for faults in [Faults::nth(number, EIO), Faults::from(number, EIO)] {
                let context = format!("operation {number} of {count}");
                let mut play = Play::new(how, faults);
                if let Err(error) = play.history() {
                    clear(&error, &play, &context);
                    failures += 1;
                }
                operations.extend(play.faults.failed().first().map(|(operation, _)| *operation));
                play.recovers(&context);
            }
        }
    }
    println!("{failures} failures");
    // None is forgotten; a file is cut in a test of its own.
    assert!(operations.len() >= 9, "{operations:?}");
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
