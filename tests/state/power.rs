//! The power fails at any moment: what no sync covers is lost, in part or all of it.
//!
//! A process that is killed leaves its writes to the system, so none of the tests that kill one can tell a sync that is
//! missing, or one that comes too late.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use tonle::model::Epoch;
use tonle::state::{Faults, Loss, State};

use super::disk::{EIO, Play, directory};
use super::world::{How, schema, sealed, settings, step, view_with};

/// A history on a disk whose power fails before this operation.
fn play(how: How, number: u64) -> Play {
    let directory = directory();
    let faults = Faults::without_power(number, EIO, directory.path()).unwrap();
    Play::on(how, directory, faults)
}

fn operations(how: How) -> u64 {
    let mut play = play(how, u64::MAX);
    play.history().unwrap();
    play.faults.count()
}

/// Takes the power away, and expects no less than was called durable, and no half epoch.
fn fails(mut play: Play, number: u64, loss: Loss) -> Play {
    let ended = play.history();
    assert!(ended.is_err() != play.faults.failed().is_empty(), "operation {number}: {ended:?}");
    play.world.state = None;
    play.faults.lose(play.world.directory.path(), loss).unwrap();
    play
}

#[test]
fn whatever_is_called_durable_outlives_the_power() {
    let whole = &[Loss::Everything, Loss::Bytes, Loss::Names][..];
    // Sealed files are written by the same calls.
    for (how, losses, seeds) in [(settings as How, whole, 2), (sealed, &whole[..1], 1)] {
        let count = operations(how);
        assert!(count > 280, "{count}");
        // The last one is that nothing fails before all was done.
        for number in 0..=count {
            let some = (0..seeds).map(|seed| Loss::Some(number + seed * 1_000_000));
            for loss in losses.iter().copied().chain(some) {
                let context = format!("{loss:?} lost before operation {number} of {count}");
                fails(play(how, number), number, loss).recovers(&context);
            }
        }
    }
}

/// It fails again while the state is read back and mended.
#[test]
fn it_outlives_it_twice_in_a_row() {
    let count = operations(settings);
    let mut moments = BTreeSet::new();
    for number in 0..count {
        let loss =
            [Loss::Everything, Loss::Bytes, Loss::Names, Loss::Some(number)][number as usize % 4];
        let mut play = fails(play(settings, number), number, loss);
        let again = number % 29;
        let directory = play.world.directory.path().to_owned();
        let faults = Faults::without_power(again, EIO, &directory).unwrap();
        play.with(&faults);
        if play.restart().is_err() {
            moments.insert(again);
        }
        play.world.state = None;
        faults.lose(&directory, Loss::Some(number)).unwrap();
        play.recovers(&format!("{loss:?} before operation {number}, again before {again}"));
    }
    assert!(moments.len() > 20, "{moments:?}");
}

/// A directory that did not exist is not lost with the name it just got.
#[test]
fn a_new_directory_outlives_it_too() {
    for (loss, seed) in [(Loss::Everything, 1), (Loss::Names, 2)] {
        let outer = directory();
        let faults = Faults::without_power(u64::MAX, EIO, outer.path()).unwrap();
        let path = outer.path().join("deep/state");
        let how = settings(&path).with_faults(Arc::clone(&faults));
        let mut play = Play::on(settings, directory(), Arc::clone(&faults));
        let mut state = State::open(&how).unwrap();
        state.restore(None, &schema()).unwrap();
        play.world.state = Some(state);
        let input = play.world.input(&step(seed));
        play.world.try_append(input).unwrap();
        play.world.state = None;
        faults.lose(outer.path(), loss).unwrap();
        let restored = view_with(&settings(&path), Some(Epoch(1))).unwrap();
        play.world.check(&restored, Some(Epoch(1)));
        assert_eq!(restored.last, Epoch(1), "{loss:?}");
        assert!(fs::metadata(path.join("pipeline")).unwrap().is_file());
    }
}
