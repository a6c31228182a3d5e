//! Records that are deleted on their server for good, which no poll can see: they leave the tables and every byte of
//! the state, and only the server itself brings one back.

use std::fs;

use serde_json::json;
use tonle::sim::{Fault, Sim};

use super::disagree::{copy, last_epoch, put_back, rows_of};
use super::erasure::{Marked, RARE, bytes_below, forms, holds, mark, marked};
use super::{assert_changes_are_a_chain, recent, undisturbed};
use crate::support::program::{Program, assert_same_tables, cases_of_today, primero};

fn delete(sim: &Sim, id: &str) {
    assert!(sim.delete(id));
}

/// What each epoch after one says it was for.
fn reasons_after(program: &Program, epoch: &str) -> String {
    let sql = format!(
        "SELECT reason, cases_disabled FROM tonle.epochs WHERE epoch > {epoch} ORDER BY epoch"
    );
    program.query(&sql)
}

fn error_of(program: &Program) -> String {
    program.query("SELECT last_error FROM tonle.sync_status")
}

#[test]
fn a_record_deleted_on_its_server_leaves_every_byte_and_no_backup_brings_it_back() {
    let (program, sim, marked) = marked();
    assert!(holds(&bytes_below(&program.state()), &marked.forms[0]), "the search finds the key");
    copy(&program.state(), &program.path("backup"));
    let (before, last) = (rows_of(&program, "cases"), last_epoch(&program));
    delete(&sim, &marked.id);
    let said = program.once(0).text;
    assert!(said.contains("lets records go that the server does not list any more"), "{said}");
    marked.assert_gone(&program);
    assert_eq!(rows_of(&program, "cases"), before - 1);
    assert_eq!(reasons_after(&program, &last), "disabled|1");
    assert_eq!(program.query("SELECT count(*), count(done_at) FROM tonle.tonle_erased"), "1|1");
    program.assert_true_to_state();
    assert_changes_are_a_chain(&program);
    assert_same_tables(
        &program.tables(),
        &undisturbed(&program, std::slice::from_ref(&sim)).tables(),
    );

    // A backup of the state knows of nothing, and the server is away, so that only the tables can tell.
    let mut program = program;
    put_back(&program, &program.path("backup"));
    sim.faults().next("/api/v2/cases", 1_000, Fault::Broken);
    program.start();
    program.wait_until("the tables are left alone", |program| {
        program.log().contains("leaving the tables alone until every instance was read")
    });
    program.kill();
    let month = "SELECT count(*) FROM tonle.cases WHERE registered_month = '2016-02-01'";
    assert_eq!(program.query(month), "0");
    sim.faults().clear();
    program.once(0);
    marked.assert_gone(&program);
    program.assert_true_to_state();
    assert_same_tables(
        &program.tables(),
        &undisturbed(&program, std::slice::from_ref(&sim)).tables(),
    );
}

#[test]
fn a_running_program_notices_a_deletion_and_rewrites_its_files() {
    let sim = primero(cases_of_today(53, 40));
    let id = mark(&sim);
    let mut program =
        recent(Program::new(), None).server_with("kampot", &sim, "census_seconds = 1");
    program.once(0);
    let marked = Marked { forms: forms(&program), id };
    program.start();
    program.wait_for("kampot", &sim);
    delete(&sim, &marked.id);
    program.wait_until("the record is out of the tables and of every file", |program| {
        program.query("SELECT count(*) FROM tonle.tonle_erased WHERE done_at IS NOT NULL") == "1"
    });
    marked.assert_gone(&program);
    // What comes after it is followed as ever.
    sim.edit(20).unwrap();
    program.wait_for("kampot", &sim);
    assert_eq!(program.stop(), 0);
    marked.assert_gone(&program);
    program.assert_true_to_state();
    assert_eq!(program.end(&["state", "compact"]).code, 0);
    assert!(!holds(&bytes_below(&program.state()), RARE.as_bytes()));
}

#[test]
fn records_that_many_miss_at_once_stay_until_a_person_decides() {
    let sim = primero(cases_of_today(54, 120));
    let program = recent(Program::new(), None).server("kampot", &sim);
    program.once(0);
    let (before, tables) = (rows_of(&program, "cases"), program.tables());
    let ids: Vec<String> = sim.cases().iter().take(30).map(id).collect();
    // As a role looks that has lost its groups.
    ids.iter().for_each(|id| sim.set_scope(id, false));
    let said = program.once(0).text;
    assert!(said.contains("ERROR keeps records"), "{said}");
    assert_same_tables(&program.tables(), &tables);
    let error = error_of(&program);
    assert!(error.contains("does not list 30 of 120") && error.contains("gone_percent"), "{error}");
    // It has them again: nothing happened.
    ids.iter().for_each(|id| sim.set_scope(id, true));
    let last = last_epoch(&program);
    program.once(0);
    assert_same_tables(&program.tables(), &tables);
    assert_eq!((reasons_after(&program, &last), error_of(&program)), Default::default());
    // They were deleted, and the operator says so.
    ids.iter().for_each(|id| delete(&sim, id));
    program.once(0);
    assert_same_tables(&program.tables(), &tables);
    let program = program.server_with("kampot", &sim, "gone_percent = 30");
    program.once(0);
    assert!(rows_of(&program, "cases") < before);
    assert_eq!(error_of(&program), "");
    program.assert_true_to_state();
    assert_same_tables(
        &program.tables(),
        &undisturbed(&program, std::slice::from_ref(&sim)).tables(),
    );
}

#[test]
fn a_record_that_was_out_of_sight_comes_back_with_all_it_counts() {
    let sim = primero(cases_of_today(55, 60));
    let program = recent(Program::new(), None).server("kampot", &sim);
    program.once(0);
    let tables = program.tables();
    let ids: Vec<String> = sim.cases().iter().take(5).map(id).collect();
    ids.iter().for_each(|id| sim.set_scope(id, false));
    program.once(0);
    assert_same_tables(
        &program.tables(),
        &undisturbed(&program, std::slice::from_ref(&sim)).tables(),
    );
    // Their stamps did not move, so no poll would ask for them.
    ids.iter().for_each(|id| sim.set_scope(id, true));
    program.once(0);
    assert_same_tables(&program.tables(), &tables);
    program.assert_true_to_state();
    // Nothing of the tombstones that they left keeps them from staying, whatever is restored.
    assert_eq!(rows_of(&program, "tonle_erased"), 0);
    let kept = fs::read_to_string(program.state().join("erased")).unwrap();
    assert_eq!(kept.lines().count(), 2, "{kept}");
    program.once(0);
    fs::remove_dir_all(program.state()).unwrap();
    program.once(0);
    assert_same_tables(&program.tables(), &tables);
    sim.patch(&ids[0], json!({ "sex": "male" })).unwrap();
    program.once(0);
    assert_same_tables(
        &program.tables(),
        &undisturbed(&program, std::slice::from_ref(&sim)).tables(),
    );
}

fn id(case: &serde_json::Value) -> String {
    case["id"].as_str().unwrap().to_owned()
}
