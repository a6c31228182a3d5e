//! What could bring an erased record back: a backup whose first start is killed, an instance that was half read, an
//! epoch that only the log has, an end in the middle of a compaction.

use std::fs;

use serde_json::json;
use tonle::crash::Step;
use tonle::sim::Fault;

use super::disagree::{copy, expect, put_back, rows_of};
use super::erasure::{Marked, bytes_below, erase, forms, holds, mark, marked};
use super::keeping::files;
use super::recent;
use crate::support::program::{Ending, Program, cases_of_today, primero};

/// Runs a command that is to die at a step.
fn die(program: &mut Program, arguments: &[&str], step: Step) {
    let mut command = program.command(arguments);
    command.env("TONLE_CRASH", format!("{}:1", step.name()));
    program.spawn(command);
    assert_eq!(program.wait_for_end(), -9, "{step:?}\n{}", program.last_of_log());
}

#[test]
fn a_backup_whose_first_start_is_killed_brings_no_erased_record_back() {
    for steps in [
        [Step::ErasuresCompared, Step::BaseComputed],
        [Step::SourcesStarted, Step::ReconcileCommitted],
        [Step::EpochAcknowledged, Step::SnapshotSynced],
    ] {
        let (mut program, _sim, marked) = marked();
        copy(&program.state(), &program.path("backup"));
        expect(&erase(&program, "kampot", &marked.id), 0, &["1 were in the tables"]);
        put_back(&program, &program.path("backup"));
        for step in steps {
            die(&mut program, &["run", "--once"], step);
        }
        program.once(0);
        marked.assert_gone(&program);
        program.assert_true_to_state();
        let due = "SELECT count(*) - count(done_at) FROM tonle.tonle_erased";
        assert_eq!(program.query(due), "0", "{steps:?}");
    }
}

#[test]
fn a_record_erased_while_its_instance_is_half_read_does_not_come_with_the_rest() {
    let sims = [primero(cases_of_today(56, 30)), primero(cases_of_today(57, 60))];
    let id = mark(&sims[1]);
    let mut program = recent(Program::new(), None).server("kampot", &sims[0]).server_with(
        "takeo",
        &sims[1],
        "page_size = 20",
    );
    // Its key, as another program sees it that may read everything.
    let other = program.elsewhere().server("kampot", &sims[0]).server("takeo", &sims[1]);
    other.once(0);
    let marked = Marked { forms: forms(&other), id: id.clone() };
    drop(other);
    // So that the marked record comes with the first page.
    let rest: Vec<_> = sims[1].cases().iter().map(|case| case["id"].clone()).collect();
    for other in rest.iter().filter(|other| **other != id.as_str()) {
        sims[1].patch(other.as_str().unwrap(), json!({ "age": 9 })).unwrap();
        sims[1].advance(std::time::Duration::from_secs(1));
    }
    sims[1].faults().after("/api/v2/cases", 2, 1_000, Fault::Broken);
    program.start();
    program.wait_until("kampot is published and takeo is half read", |program| {
        program.was_started()
            && rows_if_any(program, "cases") > 0
            && holds(&bytes_below(&program.state()), &marked.forms[0])
            && program.log().contains("failed to ask an instance")
    });
    assert_eq!(program.stop(), 0);
    expect(&erase(&program, "takeo", &id), 0, &["0 were in the tables"]);
    assert_eq!(marked.found_in(&bytes_below(&program.state())), 0, "it waits in the state");
    sims[1].faults().clear();
    program.once(0);
    marked.assert_gone(&program);
    assert_eq!(rows_of(&program, "sync_status WHERE state = 'live'"), 2);
    program.assert_true_to_state();
}

fn rows_if_any(program: &Program, table: &str) -> u64 {
    let count = program.try_query(&format!("SELECT count(*) FROM tonle.{table}"));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[test]
fn a_record_of_an_epoch_that_only_the_log_has_is_erased_with_it() {
    let sim = primero(cases_of_today(58, 40));
    let mut program = recent(Program::new(), None).server("kampot", &sim);
    program.once(0);
    // A case that no epoch before has a version of.
    let id = "00000000-0000-4000-8000-00000000abcd".to_owned();
    let mut case = sim.cases().swap_remove(0);
    for (name, value) in [
        ("status", "rare_ibis_status"),
        ("registration_date", "2016-02-10"),
        ("module_id", "primeromodule-cp"),
        ("id", &*id),
    ] {
        case[name] = json!(value);
    }
    case["record_state"] = json!(true);
    sim.patch(&id, case).unwrap();
    let other = program.elsewhere().server("kampot", &sim);
    other.once(0);
    let marked = Marked { forms: forms(&other), id: id.clone() };
    die(&mut program, &["run", "--once"], Step::EpochLogged);
    assert!(holds(&bytes_below(&program.state()), b"rare_ibis_status"), "the log has the epoch");
    expect(&erase(&program, "kampot", &id), 0, &["will not come back"]);
    assert_eq!(marked.found_in(&bytes_below(&program.state())), 0, "it stays in the log");
    marked.assert_gone(&program);
    program.once(0);
    marked.assert_gone(&program);
    program.assert_true_to_state();
}

#[test]
fn a_compaction_that_is_killed_leaves_a_state_that_starts() {
    for step in [Step::SnapshotHalfWritten, Step::SnapshotRenamed, Step::SnapshotPublished] {
        // The last segment of the log is the first one: it has the entries of option ids that no record has.
        let (mut program, sim, _marked) = marked();
        assert_eq!(files(&program).iter().filter(|name| name.ends_with(".seg")).count(), 1);
        die(&mut program, &["state", "compact"], step);
        program.assert_true_to_state();
        sim.edit(5).unwrap();
        program.once(0);
        program.assert_true_to_state();
        let compacted: Ending = program.end(&["state", "compact"]);
        expect(&compacted, 0, &["terms that no record has are gone"]);
        fs::metadata(program.state().join("pipeline")).unwrap();
    }
}
