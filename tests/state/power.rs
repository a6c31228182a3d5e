//! The power fails at any moment: what no sync covers is lost, in part or all of it.
//!
//! A process that is killed leaves its writes to the system, so none of the tests that kill one can tell a sync that is
//! missing, or one that comes too late.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use tonle::error::Result;
use tonle::model::Epoch;
use tonle::state::{Faults, Loss, State};

use super::disk::{EIO, Play, directory};
use super::world::{How, files, schema, sealed, settings, step, view_with};

/// A history on a disk whose power fails before this operation.
fn play(how: How, number: u64) -> Play {
    let directory = directory();
    let faults = Faults::without_power(number, EIO, directory.path()).unwrap();
    Play::on(how, directory, faults)
}

/// What is done until the power fails.
type History = fn(&mut Play) -> Result<()>;

fn operations(how: How, history: History) -> u64 {
    let mut play = play(how, u64::MAX);
    history(&mut play).unwrap();
    play.faults.count()
}

/// Takes the power away, and expects no less than was called durable, and no half epoch.
fn fails(mut play: Play, history: History, number: u64, loss: Loss) -> Play {
    let ended = history(&mut play);
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
        let count = operations(how, Play::history);
        assert!(count > 280, "{count}");
        // The last one is that nothing fails before all was done.
        for number in 0..=count {
            let some = (0..seeds).map(|seed| Loss::Some(number + seed * 1_000_000));
            for loss in losses.iter().copied().chain(some) {
                let context = format!("{loss:?} lost before operation {number} of {count}");
                fails(play(how, number), Play::history, number, loss).recovers(&context);
            }
        }
    }
}

/// Epochs that are appended before the first of them is known to be on disk: so many, so that segments end between
/// them.
const BURST: u16 = 7;
const BURSTS: u16 = 4;

/// Appends epochs without waiting for any; when the disk is slow, none of them is synced before all were appended.
/// Gives how many segments began with them.
fn burst(play: &mut Play, number: u16, is_slow: bool) -> Result<usize> {
    let directory = play.world.directory.path().to_owned();
    let before = files(&directory, "seg").len();
    let mut pending = Vec::new();
    if is_slow {
        play.faults.hold_syncs();
    }
    let appended = (0..BURST).try_for_each(|n| {
        let input = play.world.input(&step(number * BURST + n));
        pending.push(play.world.begin_append(input)?);
        Ok(())
    });
    let began = files(&directory, "seg").len().saturating_sub(before);
    play.faults.let_syncs_go();
    // Whatever became of later ones: what is called durable counts.
    let mut waited = Ok(());
    for pending in pending {
        let ended = play.world.end_append(pending);
        play.committed = play.world.durable;
        waited = waited.and(ended);
    }
    appended.and(waited).map(|()| began)
}

fn bursts(play: &mut Play, is_slow: bool) -> Result<()> {
    play.restart()?;
    for number in 0..BURSTS {
        let began = burst(play, number, is_slow)?;
        assert!(began > 1, "{began} segments began in burst {number}");
        match number {
            1 => drop(play.world.try_snapshot()?),
            2 => play.restart()?,
            _ => {}
        }
    }
    Ok(())
}

/// Epochs go on being appended, into one segment after the other, while the ones before are not on disk.
#[test]
fn epochs_that_nobody_waited_for_are_lost_from_the_last_on() {
    let histories: [History; 2] = [|play| bursts(play, true), |play| bursts(play, false)];
    let mut partly = 0;
    let all = &[Loss::Everything, Loss::Bytes, Loss::Names][..];
    for (how, history, losses) in [
        (settings as How, histories[0], all),
        (settings, histories[1], &[]),
        (sealed, histories[0], &[]),
    ] {
        let count = operations(how, history);
        assert!(count > 100, "{count}");
        // How many epochs one sync covers depends on the threads: a few operations more or less.
        for number in 0..=count {
            for loss in losses.iter().copied().chain([Loss::Some(number)]) {
                let context = format!("{loss:?} lost before operation {number} of {count}");
                let play = fails(play(how, number), history, number, loss);
                partly += u32::from(play.committed < play.world.last());
                play.recovers(&context);
            }
        }
    }
    assert!(partly > 500, "{partly}");
}

/// It fails again while the state is read back and mended.
#[test]
fn it_outlives_it_twice_in_a_row() {
    let count = operations(settings, Play::history);
    let mut moments = BTreeSet::new();
    for number in 0..count {
        let loss =
            [Loss::Everything, Loss::Bytes, Loss::Names, Loss::Some(number)][number as usize % 4];
        let mut play = fails(play(settings, number), Play::history, number, loss);
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
