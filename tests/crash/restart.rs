//! What a start finds: state without tables, tables without state, tables of another day.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use rustix::process::Signal;
use tonle::sim::{Fault, Sim};

use super::packs::INDICATOR;
use super::{Holder, assert_changes_are_a_chain, has_finished_loading, recent, undisturbed};
use crate::support::program::{Program, assert_same_tables, cases_of_today, primero};

/// Cases of both instances of [`loaded`].
const CASES: u64 = 250;

const EPOCHS: &str = "SELECT count(*) FROM tonle.epochs";
const CHANGES: &str = "SELECT count(*) FROM tonle.changes";

/// A program that has read two instances.
pub(super) fn loaded() -> (Program, [Sim; 2]) {
    let sims = [primero(cases_of_today(31, 150)), primero(cases_of_today(32, 100))];
    let program = recent(Program::new(), None).server("kampot", &sims[0]).server_with(
        "takeo",
        &sims[1],
        "page_size = 10",
    );
    program.once(0);
    (program, sims)
}

/// How many cases the servers send while something is done.
pub(super) fn sent(sims: &[Sim], act: impl FnOnce()) -> u64 {
    let count = || sims.iter().map(|sim| sim.requests().cases_sent).sum::<u64>();
    let before = count();
    act();
    count() - before
}

/// A run that writes a snapshot with every epoch; gives what it said.
fn once_with_snapshots(program: &Program) -> String {
    let mut command = program.command(&["run", "--once"]);
    let output = command.env("TONLE_FILE_BYTES", "20000:1").output().unwrap();
    let text = [output.stdout, output.stderr].map(|part| String::from_utf8(part).unwrap()).concat();
    assert!(output.status.success(), "{text}");
    text
}

/// It took the sums, and they were right: a wrong one is found with the first epoch that touches its cell, and then all
/// is counted anew and compared.
#[track_caller]
fn assert_goes_on(text: &str) {
    assert!(text.contains("counted_anew=false") && !text.contains("reconciled"), "{text}");
}

#[test]
fn a_start_judges_only_what_changed_since_the_snapshot() {
    let (program, sims) = loaded();
    let edit = || sims.iter().for_each(|sim| drop(sim.edit(20).unwrap()));
    edit();
    assert!(once_with_snapshots(&program).contains("counted_anew=true"), "there is no snapshot");
    edit();
    assert_goes_on(&once_with_snapshots(&program));
    for _ in 0..2 {
        edit();
        // Of these there is no snapshot: each start puts the changes since on top of it.
        assert_goes_on(&program.once(0).text);
    }
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_changes_are_a_chain(&program);

    let program = recent(program, Some(INDICATOR));
    assert!(program.once(0).text.contains("counted_anew=true"), "it is of other packs");
    // The log is short, and yet there is a snapshot with sums of these packs.
    edit();
    assert_goes_on(&program.once(0).text);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
}

#[test]
fn without_state_nothing_is_withdrawn_and_only_differences_are_written() {
    let (mut program, sims) = loaded();
    let (before, epochs, changes) =
        (program.tables(), program.query(EPOCHS), program.query(CHANGES));
    fs::remove_dir_all(program.state()).unwrap();
    for round in 1..=2 {
        // Some pages of takeo can be read, then none.
        sims[1].faults().after("/api/v2/cases", 3, 1_000, Fault::Broken);
        program.start();
        program.wait_until("takeo fails while kampot is read", |program| {
            program.log().matches("failed to ask an instance").count() >= round
                && has_finished_loading(program, "kampot")
        });
        program.kill();
        sims[1].faults().clear();
        assert_eq!(
            (program.query(EPOCHS), program.query(CHANGES)),
            (epochs.clone(), changes.clone())
        );
    }
    assert_same_tables(&program.tables(), &before);
    program.query(
        "CREATE TABLE public.before AS SELECT cell, numerator, denominator FROM tonle.indicator_values",
    );
    sims[0].edit(12).unwrap();
    program.once(0);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    let differing = program.query(
        "SELECT count(*) FROM public.before b FULL JOIN tonle.indicator_values v USING (cell)
          WHERE (b.numerator, b.denominator) IS DISTINCT FROM (v.numerator, v.denominator)",
    );
    assert_ne!(differing, "0");
    // One epoch makes up for the lost state; what one server shows late may take one more.
    let written = format!("SELECT count(*) - {epochs} BETWEEN 1 AND 2 FROM tonle.epochs");
    assert_eq!(program.query(&written), "t");
    let written = format!("SELECT count(*) - {changes} FROM tonle.changes");
    assert_eq!(program.query(&written), differing);
    assert_changes_are_a_chain(&program);
}

#[test]
fn without_state_and_without_a_change_nothing_is_written() {
    let (program, _sims) = loaded();
    let changes = program.query(CHANGES);
    fs::remove_dir_all(program.state()).unwrap();
    program.once(0);
    let last = program.query(
        "SELECT reason, rows_inserted + rows_updated + rows_deleted FROM tonle.epochs
          ORDER BY epoch DESC LIMIT 1",
    );
    assert_eq!(last, "reconcile|0");
    assert_eq!(program.query(CHANGES), changes);
    program.assert_true_to_state();
}

#[test]
fn an_instance_without_cases_that_is_read_last_does_not_hold_the_tables_up() {
    let (program, _sims) = loaded();
    let empty = primero(cases_of_today(33, 0));
    let program = program.server("kep", &empty);
    program.once(0);
    fs::remove_dir_all(program.state()).unwrap();
    // The first answer comes a second later than those of the others.
    empty.faults().next("/api/v2/cases", 1, Fault::Broken);
    program.once(0);
    program.assert_true_to_state();
}

#[test]
fn a_state_that_lost_its_log_withdraws_nothing() {
    let (mut program, sims) = loaded();
    let before = program.tables();
    for file in fs::read_dir(program.state()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "seg" || extension == "snap") {
            fs::remove_file(path).unwrap();
        }
    }
    sims[1].faults().next("/api/v2/cases", 1_000, Fault::Broken);
    program.start();
    program.wait_until("kampot is read", |program| {
        program.log().contains("failed to ask an instance")
            && has_finished_loading(program, "kampot")
    });
    program.kill();
    assert_same_tables(&program.tables(), &before);
    sims[1].faults().clear();
    program.once(0);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &before);
    assert_changes_are_a_chain(&program);
}

#[test]
fn emptied_tables_are_filled_without_asking_for_everything_again() {
    let (program, sims) = loaded();
    let before = program.tables();
    program.query("DROP SCHEMA tonle CASCADE");
    let cases = sent(&sims, || drop(program.once(0)));
    assert!(cases < CASES / 4, "{cases} cases were read again");
    assert_same_tables(&program.tables(), &before);
    program.assert_true_to_state();
}

#[test]
fn tables_emptied_under_a_running_program_are_filled_again() {
    dropped_under_a_running_program(&["SCHEMA tonle"]);
}

/// Drops one after the other under a running program, with edits after each, and expects all to come back.
pub(super) fn dropped_under_a_running_program(dropped: &[&str]) {
    let (mut program, sims) = loaded();
    program.start();
    program.wait_for("kampot", &sims[0]);
    for what in dropped {
        program.query(&format!("DROP {what} CASCADE"));
        sims[0].edit(10).unwrap();
        program.wait_for("kampot", &sims[0]);
    }
    assert_eq!(program.stop(), 0);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
}

#[test]
fn tables_restored_from_an_older_dump_catch_up() {
    let (program, sims) = loaded();
    let dump = dump(&program);
    for _ in 0..3 {
        sims[0].edit(5).unwrap();
        program.once(0);
    }
    program.query("DROP SCHEMA tonle CASCADE");
    load(&program, &dump);
    sims[1].edit(5).unwrap();
    program.once(0);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_changes_are_a_chain(&program);
}

#[test]
fn tables_restored_under_a_running_program_are_noticed() {
    let (mut program, sims) = loaded();
    program.start();
    program.wait_for("kampot", &sims[0]);
    let dump = dump(&program);
    sims[0].edit(10).unwrap();
    program.wait_for("kampot", &sims[0]);
    program.signal(Signal::STOP);
    program.query("DROP SCHEMA tonle CASCADE");
    load(&program, &dump);
    program.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND application_name = 'tonle'",
    );
    program.signal(Signal::CONT);
    sims[1].edit(10).unwrap();
    program.wait_for("takeo", &sims[1]);
    assert_eq!(program.stop(), 0);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_changes_are_a_chain(&program);
}

#[test]
fn rows_changed_by_hand_are_put_right() {
    let edits = [
        "UPDATE tonle.indicator_values SET numerator = numerator + 1",
        "DELETE FROM tonle.indicator_values WHERE instance = 'all'",
        "DELETE FROM tonle.cases",
    ];
    let (mut program, sims) = loaded();
    program.start();
    program.wait_for("kampot", &sims[0]);
    for sql in edits {
        program.query(sql);
        sims[0].edit(20).unwrap();
        program.wait_for("kampot", &sims[0]);
        program.assert_true_to_state();
    }
    assert_eq!(program.stop(), 0);
    let reconciled = "SELECT count(*) >= 3 FROM tonle.epochs WHERE reason = 'reconcile'";
    assert_eq!(program.query(reconciled), "t");
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
}

#[test]
fn an_epoch_whose_transaction_was_lost_with_the_program_is_written_again() {
    killed_in_a_transaction(false);
}

#[test]
fn an_epoch_whose_transaction_outlived_the_program_is_not_written_twice() {
    killed_in_a_transaction(true);
}

fn killed_in_a_transaction(commits: bool) {
    let (mut program, sims) = loaded();
    program.start();
    program.wait_for("kampot", &sims[0]);
    let epoch = "SELECT epoch FROM tonle.tonle_pipeline";
    // Only what was sent before the program died goes on without it: the COMMIT has to be among that.
    let holder = match commits {
        true => Holder::of_commits(&mut program),
        false => Holder::start(&mut program),
    };
    sims[0].edit(20).unwrap();
    holder.wait_for_program(&mut program);
    program.kill();
    let before: u64 = program.query(epoch).parse().unwrap();
    if !commits {
        holder.end_waiting(&mut program);
    }
    holder.release(&mut program);
    // Nobody else works in this database: the transaction that waited has ended, one way or the other.
    let sessions = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'tonle'";
    program.wait_until("the session is over", |program| program.query(sessions) == "0");
    let after: u64 = program.query(epoch).parse().unwrap();
    assert_eq!(after > before, commits, "epoch {before} became {after}");
    sims[1].edit(5).unwrap();
    program.once(0);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_changes_are_a_chain(&program);
}

/// Everything of the program's schema as SQL.
pub(super) fn dump(program: &Program) -> String {
    let output = program.client("pg_dump").arg("--schema=tonle").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // Newer versions put a random word into two lines.
    let kept = text.lines().filter(|line| !line.contains("restrict "));
    kept.flat_map(|line| [line, "\n"]).collect()
}

pub(super) fn load(program: &Program, sql: &str) {
    let mut client = program.client("psql");
    client.args(["-Xq", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = client.spawn().unwrap();
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
