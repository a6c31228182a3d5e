//! A copy of the program that is stopped in the middle of something and wakes up late.

use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use tonle::crash::Step;
use tonle::sim::Sim;

use super::matrix::{INSTANCES, put_small_pack, with_servers};
use super::restart::dump;
use super::{HOLDING, assert_changes_are_a_chain, undisturbed};
use crate::support::postgres;
use crate::support::program::{Program, assert_same_tables, cases_of_today, primero};

/// Where a copy is stopped, and whether it holds the fence there: then the server has to end its transaction
/// before another one can take over, as it does by itself after a minute.
const STOPS: &[(Step, bool)] = &[
    (Step::BatchSent, false),
    (Step::EpochGathered, false),
    (Step::LogSynced, false),
    (Step::EpochLogged, false),
    (Step::EpochBegun, false),
    (Step::EpochWritten, true),
    (Step::EpochCommitted, false),
    (Step::MeaningWritten, true),
];

const SESSIONS: &str = "FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'tonle'";

#[test]
fn a_copy_that_wakes_up_after_another_took_over_writes_no_row() {
    for (step, holds_fence) in STOPS {
        let (mut first, sims) = loaded();
        stop_at(&mut first, *step, &sims);
        if *holds_fence {
            first.query(&format!("SELECT pg_terminate_backend(pid) {SESSIONS}"));
        }
        assert_replaced(first, &sims, *step);
    }
}

#[test]
#[ignore = "takes a minute: until the server ends the transaction of a client that is silent"]
fn the_server_ends_the_transaction_of_a_copy_that_was_stopped_in_it() {
    let (mut first, sims) = loaded();
    stop_at(&mut first, Step::EpochWritten, &sims);
    let mut second = beside(&first, &sims);
    second.start();
    let took_over = |second: &Program| second.log().contains("reconciled the tables");
    let waits = |second: &Program| second.log().matches("failed to write to postgres").count();
    second.wait_until("it waits for the lock", |second| waits(second) > 0);
    // Longer than one wait may be, but no longer than two.
    second.wait_until("it waits again", |second| waits(second) > 2 || took_over(second));
    second.wait_until("it took over", took_over);
    assert_eq!(second.stop(), 0);
    assert_wakes_for_nothing(&mut first, &second);
}

#[test]
fn a_postgres_that_goes_away_between_two_connections_of_a_start_is_waited_for() {
    let sims = servers();
    let program = Program::with_own_postgres(postgres::private());
    let mut program = with_servers(put_small_pack(program), &sims);
    program.once(0);
    stop_at(&mut program, Step::StateRestored, &sims);
    // Not killed: this Postgres does not wait for its disk, and would forget who may write.
    program.postgres().stop().unwrap();
    program.signal(Signal::CONT);
    program.wait_until("it waits", |p| p.log().contains("failed to write to postgres"));
    program.postgres().restart().unwrap();
    program.wait_for(INSTANCES[0].0, &sims[0]);
    assert_eq!(program.stop(), 0, "{}", program.log());
    program.assert_true_to_state();
}

#[test]
fn nobody_takes_over_while_the_status_is_being_written() {
    let (mut first, sims) = loaded();
    let mut holder = first.client("psql");
    let sql = "BEGIN; SELECT FROM tonle.sync_status FOR UPDATE; SELECT pg_sleep(60)";
    let mut holder = holder.args(["-XAtqc", sql]).env("PGAPPNAME", "holder").spawn().unwrap();
    let held = format!("SELECT count(*) {HOLDING} AND wait_event = 'PgSleep'");
    first.wait_until("the rows are locked", |first| first.query(&held) == "1");
    first.start();
    let writes = format!("SELECT count(*) {SESSIONS} AND wait_event_type = 'Lock'");
    first.wait_until("it waits for the rows", |first| first.query(&writes) == "1");
    let mut second = beside(&first, &sims);
    second.start();
    second.wait_until("the second copy waits too", |second| second.query(&writes) == "2");
    first.signal(Signal::STOP);
    first.query(&format!("SELECT pg_terminate_backend(pid) {HOLDING}"));
    holder.wait().unwrap();
    second.wait_for(INSTANCES[0].0, &sims[0]);
    second.wait_until("it took over", |second| second.log().contains("reconciled the tables"));
    assert_eq!(second.stop(), 0);
    assert_wakes_for_nothing(&mut first, &second);
}

fn servers() -> Vec<Sim> {
    let settings = INSTANCES.iter().zip(41..).map(|((_, count), seed)| (seed, *count));
    settings.map(|(seed, count)| primero(cases_of_today(seed, count))).collect()
}

/// A program that has read two instances.
fn loaded() -> (Program, Vec<Sim>) {
    let sims = servers();
    let program = with_servers(put_small_pack(Program::new()), &sims);
    program.once(0);
    (program, sims)
}

fn beside(first: &Program, sims: &[Sim]) -> Program {
    with_servers(first.beside(), sims)
}

/// Starts the program with new edits to read, and waits until it has stopped itself at a step.
fn stop_at(program: &mut Program, step: Step, sims: &[Sim]) {
    sims.iter().for_each(|sim| drop(sim.edit(10).unwrap()));
    let mut command = program.command(&["run"]);
    command.env("TONLE_CRASH", format!("{}:1:stop", step.name()));
    program.spawn(command);
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    program.wait_until(&format!("it stops at {step:?}"), |program| {
        let id = WaitId::Pid(program.process());
        waitid(id, options).unwrap().is_some_and(|status| status.stopped())
    });
}

/// Another copy takes over, and the first one wakes up.
fn assert_replaced(mut first: Program, sims: &[Sim], step: Step) {
    let mut second = beside(&first, sims);
    sims[0].edit(10).unwrap();
    second.start();
    second.wait_for(INSTANCES[0].0, &sims[0]);
    second.wait_until(&format!("it took over from {step:?}"), |second| {
        second.log().contains("reconciled the tables")
    });
    assert_eq!(second.stop(), 0);
    second.assert_true_to_state();
    assert_wakes_for_nothing(&mut first, &second);
    second.once(0);
    assert_same_tables(&second.tables(), &undisturbed(&second, sims).tables());
    assert_changes_are_a_chain(&second);
}

/// The copy that was replaced says so and writes nothing.
fn assert_wakes_for_nothing(first: &mut Program, second: &Program) {
    let before = dump(second);
    first.signal(Signal::CONT);
    assert_eq!(first.wait_for_end(), 2, "{}", first.last_of_log());
    let log = first.last_of_log();
    assert!(log.contains("two copies of tonle write to this schema: stop one"), "{log}");
    assert!(dump(second) == before, "the first copy wrote something");
}
