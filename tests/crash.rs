//! The real program ended at any moment, and started again over whatever is left: no record is lost, doubled or
//! withdrawn.

/// An indicator over a field that no pack of these tests reads: all that a pack says of it.
macro_rules! by_nationality {
    () => {
        r#"
[fields.nationality]
type = "options"
values = ["khmer", "vietnamese", "thai"]

[dimensions.nationality]
title = { en = "Nationality" }
from = "nationality"

[indicators.X-02]
title = { en = "New cases by nationality" }
definition = { en = "Cases by date of registration." }
count = "cases"
population = "strict"
placed = { flow = "registration_date" }
periods = ["month"]
tables = [["nationality"]]
"#
    };
}

mod changes;
mod comebacks;
mod copies;
mod departures;
mod disagree;
mod erasure;
mod keeping;
mod matrix;
mod packs;
mod paused;
mod replies;
mod restart;
mod soak;

use std::fs;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tonle::sim::{Fault, Sim};

use crate::support::first_sight;
use crate::support::program::{Program, assert_same_tables, cases_of_today, primero};

/// Kills of one test.
const KILLS: usize = 22;
/// During so many of them the first instance is too slow to be loaded.
const KILLS_LOADING: usize = 6;
/// Time between two live edits.
const SLOW_EDIT_PAUSE: Duration = Duration::from_millis(12);
/// The same where a test is over soon.
const EDIT_PAUSE: Duration = Duration::from_millis(4);

#[test]
fn a_program_killed_at_random_ends_with_the_same_tables() {
    let seed = Seed::drawn();
    let mut rng = ChaCha8Rng::seed_from_u64(seed.0);
    let sims: Vec<_> = [260, 180, 1]
        .into_iter()
        .zip(seed.0..)
        .map(|(count, seed)| primero(late(cases_of_today(seed, count))))
        .collect();
    let mut program = recent(Program::new(), None)
        .server_with("kampot", &sims[0], "page_size = 20")
        .server_with("takeo", &sims[1], "page_size = 50")
        .server("kep", &sims[2]);
    let slow = Fault::SlowBody(Duration::from_millis(20));
    sims[0].faults().at_rate("/api/v2/cases", 1_000, slow, seed.0);
    let editor = Editor::start(&sims);
    let mut killed_loading = 0;
    for kill in 0..KILLS {
        if kill == KILLS_LOADING {
            sims[0].faults().clear();
        }
        let workers = if rng.random_bool(0.5) { "1" } else { "2" };
        program.start_with(&["--workers", workers]);
        thread::sleep(Duration::from_millis(rng.random_range(50..800)));
        program.kill();
        killed_loading += usize::from(!has_finished_loading(&program, "kampot"));
    }
    editor.stop();
    assert!(killed_loading >= 3, "{killed_loading} kills during the first load");
    sims.iter().for_each(|sim| sim.advance(Duration::from_secs(1)));
    program.once(0);
    program.assert_true_to_state();
    let other = undisturbed(&program, &sims);
    assert_same_tables(&program.tables(), &other.tables());
    assert_same_tables(&program.descriptions(), &other.descriptions());
    assert_changes_are_a_chain(&program);
}

/// The program with the shipped packs, without the periods of earlier years, so that starts are quick, without what
/// depends on first sight, and with one pack more.
fn recent(mut program: Program, more: Option<&str>) -> Program {
    let since = Timestamp::now().to_zoned(TimeZone::UTC).date() - 200.days();
    let recent = format!(
        "[pack]\nid = \"recent\"\nversion = \"1.0.0\"\ntitle = {{ en = \"Recent\" }}\nhistory_start = \"{since}\"\n"
    );
    let mut packs = vec!["cp-core".to_owned(), "cambodia".to_owned()];
    let sight = first_sight::without();
    let always = [("sight.toml", &*sight), ("recent.toml", &*recent)].map(|(n, t)| (n, Some(t)));
    for (name, text) in always.into_iter().chain([("more.toml", more)]) {
        let Some(text) = text else { continue };
        // By its full path, for other programs use it too.
        let path = program.path(name);
        fs::write(&path, text).unwrap();
        packs.push(path.display().to_string());
    }
    program.set(&format!("packs = {packs:?}"));
    program
}

/// A save becomes visible some time after its stamp.
fn late(settings: tonle::sim::Settings) -> tonle::sim::Settings {
    tonle::sim::Settings { commit_delay: Duration::from_millis(100), ..settings }
}

fn has_finished_loading(program: &Program, instance: &str) -> bool {
    let line = format!("finished the first load instance=\"{instance}\"");
    program.log().contains(&line)
}

/// The tables of a program that reads the same servers for the first time.
fn undisturbed(program: &Program, sims: &[Sim]) -> Program {
    let names = ["kampot", "takeo", "kep"];
    let pairs = names.iter().zip(sims);
    let other = pairs.fold(program.elsewhere(), |other, (name, sim)| other.server(name, sim));
    other.once(0);
    other
}

/// In `changes` each change of a cell begins where the one before it ended, and the last one ends with what the
/// table shows.
#[track_caller]
fn assert_changes_are_a_chain(program: &Program) {
    let key = program.query(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint
          WHERE conrelid = 'tonle.changes'::regclass AND contype = 'p'",
    );
    assert_eq!(key, "PRIMARY KEY (epoch, cell)");
    let broken = program.query(
        "SELECT count(*) FROM (
             SELECT (old_numerator, old_denominator) IS DISTINCT FROM
                    (lag(new_numerator) OVER w, lag(new_denominator) OVER w) AS is_broken
               FROM tonle.changes WINDOW w AS (PARTITION BY cell ORDER BY epoch)) c
          WHERE is_broken",
    );
    assert_eq!(broken, "0", "changes that do not begin where the one before ended");
    let idle = "SELECT count(*) FROM tonle.changes
                 WHERE (old_numerator, old_denominator) IS NOT DISTINCT FROM (new_numerator, new_denominator)";
    assert_eq!(program.query(idle), "0", "changes that change nothing");
    let astray = program.query(
        "SELECT count(*) FROM
             (SELECT DISTINCT ON (cell) cell, new_numerator, new_denominator, epoch
                FROM tonle.changes ORDER BY cell, epoch DESC) c
             FULL JOIN tonle.indicator_values v USING (cell)
          WHERE (new_numerator, new_denominator) IS DISTINCT FROM (numerator, denominator)
             OR c.epoch IS DISTINCT FROM v.epoch AND v.cell IS NOT NULL",
    );
    assert_eq!(astray, "0", "cells that are not what their last change says");
    let unknown =
        "SELECT count(*) FROM tonle.changes WHERE epoch NOT IN (SELECT epoch FROM tonle.epochs)";
    assert_eq!(program.query(unknown), "0");
}

/// The number that decides a random test; a failed test says it. `TONLE_TEST_SEED` repeats one.
struct Seed(u64);

impl Seed {
    fn drawn() -> Self {
        let given = std::env::var("TONLE_TEST_SEED").ok().filter(|seed| !seed.is_empty());
        Self(given.map_or_else(|| rand::random_range(0..1 << 32), |seed| seed.parse().unwrap()))
    }
}

impl Drop for Seed {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("TONLE_TEST_SEED={}", self.0);
        }
    }
}

/// Case workers who edit until they are told to stop.
struct Editor {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Editor {
    fn start(sims: &[Sim]) -> Self {
        Self::every(sims, EDIT_PAUSE)
    }

    /// Fewer edits, so that there are not many more cases in the end.
    fn slow(sims: &[Sim]) -> Self {
        Self::every(sims, SLOW_EDIT_PAUSE)
    }

    fn every(sims: &[Sim], pause: Duration) -> Self {
        let (sims, is_over) = (sims.to_vec(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                for sim in &sims {
                    sim.edit(1).unwrap();
                    thread::sleep(pause);
                }
            }
        });
        Self { is_over, thread }
    }

    fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Somebody who holds a lock on the table `changes`, so that an epoch is logged and computed and its
/// transaction cannot go on.
struct Holder(Child);

impl Holder {
    fn start(program: &mut Program) -> Self {
        let mut client = program.client("psql");
        let sql = "BEGIN; LOCK TABLE tonle.changes IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)";
        client.args(["-XAtqc", sql]).env("PGAPPNAME", "holder");
        let child = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let held = "SELECT count(*) FROM pg_locks
                     WHERE relation = 'tonle.changes'::regclass AND mode = 'AccessExclusiveLock' AND granted";
        program.wait_until("the table is locked", |program| program.query(held) == "1");
        Self(child)
    }

    /// Somebody who lets a transaction go on to its end, and holds up what the server does for its COMMIT.
    fn of_commits(program: &mut Program) -> Self {
        program.query(
            "CREATE FUNCTION public.waits() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_advisory_xact_lock_shared(77); RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON tonle.changes
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.waits()",
        );
        let mut client = program.client("psql");
        let sql = "SELECT pg_advisory_lock(77); SELECT pg_sleep(60)";
        client.args(["-XAtqc", sql]).env("PGAPPNAME", "holder");
        let child = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let held = format!("SELECT count(*) {HOLDING} AND wait_event = 'PgSleep'");
        program.wait_until("commits are held up", |program| program.query(&held) == "1");
        Self(child)
    }

    /// Waits until the program waits for the lock.
    #[track_caller]
    fn wait_for_program(&self, program: &mut Program) {
        let waits = format!("SELECT count(*) > 0 {WAITING}");
        program.wait_until("the program waits for the lock", |p| p.query(&waits) == "t");
    }

    /// Lets the lock go.
    fn release(mut self, program: &mut Program) {
        program.query(&format!("SELECT pg_terminate_backend(pid) {HOLDING}"));
        self.0.wait().unwrap();
        let count = format!("SELECT count(*) {HOLDING}");
        program.wait_until("the lock is released", |program| program.query(&count) == "0");
    }

    /// Ends the transaction that waits for the lock, as a server does that notices that its client is gone.
    fn end_waiting(&self, program: &mut Program) {
        let ended = program
            .query(&format!("SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) {WAITING}"));
        assert_ne!(ended, "0", "nobody waits for the lock any more");
        let count = format!("SELECT count(*) {WAITING}");
        program.wait_until("nobody waits", |program| program.query(&count) == "0");
    }
}

const HOLDING: &str = "FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'holder'";
const WAITING: &str = "FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'tonle' AND wait_event_type = 'Lock'";
