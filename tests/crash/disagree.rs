//! State and tables that do not agree: whatever somebody restored, dropped or edited, the tables end right with the
//! fewest writes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tonle::sim::Fault;

use super::restart::{dropped_under_a_running_program, loaded};
use super::{assert_changes_are_a_chain, recent, undisturbed};
use crate::support::program::{Ending, Program, assert_same_tables, cases_of_today, primero};

/// Rows that epochs after one have written, and how many such epochs there are.
pub(super) fn written_after(program: &Program, epoch: &str) -> String {
    program.query(&format!(
        "SELECT count(*), coalesce(sum(rows_inserted + rows_updated + rows_deleted), 0)
           FROM tonle.epochs WHERE epoch > {epoch}"
    ))
}

pub(super) fn last_epoch(program: &Program) -> String {
    program.query("SELECT epoch FROM tonle.tonle_pipeline")
}

/// The number of rows of a table.
pub(super) fn rows_of(program: &Program, table: &str) -> u64 {
    program.query(&format!("SELECT count(*) FROM tonle.{table}")).parse().unwrap()
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

pub(super) fn put_back(program: &Program, copy: &Path) {
    fs::remove_dir_all(program.state()).unwrap();
    fs::rename(copy, program.state()).unwrap();
}

#[track_caller]
pub(super) fn expect(ending: &Ending, code: i32, words: &[&str]) {
    assert_eq!(ending.code, code, "{}", ending.text);
    for word in words {
        assert!(ending.text.contains(word), "expected {word:?} in\n{}", ending.text);
    }
}

#[test]
fn a_state_restored_from_an_older_backup_writes_no_row_twice() {
    let (mut program, sims) = loaded();
    copy(&program.state(), &program.path("backup"));
    for sim in &sims {
        for _ in 0..15 {
            sim.edit(1).unwrap();
            // More equal stamps than fit a page may be sent in another order for each page.
            sim.advance(Duration::from_millis(2));
        }
    }
    program.once(0);
    let (before, last) = (program.tables(), last_epoch(&program));
    assert_same_tables(&before, &undisturbed(&program, &sims).tables());
    put_back(&program, &program.path("backup"));
    // One instance is away: what the tables show of it must not go back to what the backup knows.
    sims[1].faults().next("/api/v2/cases", 1_000, Fault::Broken);
    program.start();
    program.wait_until("kampot is read and takeo fails", |program| {
        program.log().contains("failed to ask an instance")
            && program.log().contains("leaving the tables alone until every instance was read")
    });
    program.kill();
    assert_same_tables(&program.tables(), &before);
    sims[1].faults().clear();
    program.once(0);
    assert_same_tables(&program.tables(), &before);
    // One epoch says that they were compared; it found nothing. The number of no epoch came back.
    assert_eq!(written_after(&program, &last), "1|0");
    program.assert_true_to_state();
    assert_changes_are_a_chain(&program);
    sims[0].edit(5).unwrap();
    program.once(0);
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_changes_are_a_chain(&program);
}

#[test]
fn tables_emptied_row_by_row_are_filled_at_the_next_start() {
    let (program, sims) = loaded();
    let before = program.tables();
    for emptied in ["indicator_values", "cases"] {
        let (last, rows) = (last_epoch(&program), rows_of(&program, emptied));
        program.query(&format!("TRUNCATE tonle.{emptied}"));
        program.once(0);
        assert_same_tables(&program.tables(), &before);
        assert_eq!(written_after(&program, &last), format!("1|{rows}"), "{emptied}");
        program.assert_true_to_state();
    }
    drop(sims);
}

/// Tables of tonle that are dropped together, and whether their rows have to be written again.
const TABLES: &[(&[&str], bool)] = &[
    (&["indicator_values"], true),
    (&["cases", "services"], true),
    (&["tonle_extracts"], false),
    (&["tonle_made", "tonle_left"], false),
    (&["tonle_migrations"], false),
    (&["tonle_pipeline"], false),
    (&["sync_status", "indicators", "dimensions", "options", "locations"], false),
    (&["frozen_values", "tonle_erased"], false),
    (&["epochs", "changes"], false),
];

#[test]
fn a_table_that_was_dropped_comes_back_with_its_rows() {
    let sim = primero(cases_of_today(34, 40));
    let program = recent(Program::new(), None).server("kampot", &sim);
    program.once(0);
    program.once(0);
    let own = program.query(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1
          WHERE c.relnamespace = 'tonle'::regnamespace AND c.relkind = 'r'
            AND c.relname NOT IN (SELECT table_name FROM tonle.tonle_extracts)",
    );
    let dropped: Vec<_> = TABLES.iter().flat_map(|(tables, _)| *tables).collect();
    let forgotten: Vec<_> = own.lines().filter(|name| !dropped.contains(&name)).collect();
    assert!(forgotten.is_empty(), "{forgotten:?} are tables that no test drops");
    let relations = "SELECT c.relname, c.relkind, (SELECT count(*) FROM pg_attribute a
                       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
          FROM pg_class c WHERE c.relnamespace = 'tonle'::regnamespace AND c.relkind IN ('r', 'v')
         ORDER BY 1";
    let (there, tables) = (program.query(relations), program.tables());
    let described = program.descriptions();
    for (dropped, is_written) in TABLES {
        let last = last_epoch(&program);
        let rows: u64 = dropped.iter().map(|table| rows_of(&program, table)).sum();
        let dropping = dropped.iter().map(|table| format!("DROP TABLE tonle.{table} CASCADE;"));
        program.query(&dropping.collect::<String>());
        let said = program.once(0);
        assert_same_tables(&program.tables(), &tables);
        assert_same_tables(&program.descriptions(), &described);
        assert_eq!(program.query(relations), there, "after {dropped:?} were dropped");
        let written = written_after(&program, &last);
        let written = written.split('|').next_back().unwrap();
        let wanted = if *is_written { rows } else { 0 };
        assert_eq!(written, wanted.to_string(), "{dropped:?}: {}", said.text);
        let is_told = said.text.contains("can only come from a backup");
        assert_eq!(is_told, dropped.contains(&"changes") || dropped.contains(&"frozen_values"));
    }
    program.assert_true_to_state();
}

#[test]
fn tables_dropped_under_a_running_program_come_back() {
    let tables = ["indicator_values", "cases", "changes", "epochs", "sync_status", "tonle_left"];
    let tables = tables.map(|table| format!("TABLE tonle.{table}"));
    dropped_under_a_running_program(&tables.each_ref().map(String::as_str));
}

#[test]
fn a_program_whose_fence_is_gone_ends_and_the_next_one_goes_on_counting() {
    let (mut program, sims) = loaded();
    program.start();
    program.wait_for("kampot", &sims[0]);
    let last: u64 = last_epoch(&program).parse().unwrap();
    program.query("DROP TABLE tonle.tonle_pipeline");
    sims[0].edit(10).unwrap();
    let code = program.wait_for_end();
    assert!([2, 65].contains(&code), "{code}: {}", program.last_of_log());
    program.once(0);
    assert!(last_epoch(&program).parse::<u64>().unwrap() > last);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_changes_are_a_chain(&program);
}

#[test]
fn a_repair_writes_exactly_what_differs() {
    let (mut program, sims) = loaded();
    let (before, last) = (program.tables(), last_epoch(&program));
    expect(&program.end(&["verify", "--repair"]), 0, &["nothing to repair"]);
    assert_eq!(written_after(&program, &last), "0|0");
    program.query(
        "UPDATE tonle.indicator_values SET numerator = numerator + 7
          WHERE cell IN (SELECT cell FROM tonle.indicator_values ORDER BY cell LIMIT 2);
         DELETE FROM tonle.indicator_values
          WHERE cell IN (SELECT cell FROM tonle.indicator_values ORDER BY cell DESC LIMIT 1);
         INSERT INTO tonle.indicator_values (cell, indicator, instance, period_type, numerator, epoch, updated_at)
         VALUES (gen_random_uuid(), 'invented', 'all', 'now', 3, 1, now());
         DELETE FROM tonle.cases WHERE case_key IN (SELECT case_key FROM tonle.cases LIMIT 3);
         UPDATE tonle.cases SET sex = 'other'
          WHERE case_key IN (SELECT case_key FROM tonle.cases ORDER BY case_key LIMIT 1)",
    );
    expect(
        &program.verify(),
        65,
        &["3 rows different", "4 rows missing", "1 rows surplus", "--repair"],
    );
    program.start();
    program.wait_until_live("kampot");
    expect(&program.end(&["verify", "--repair"]), 75, &["another running program uses it"]);
    program.signal(rustix::process::Signal::KILL);
    program.wait_for_end();

    let last = last_epoch(&program);
    let repaired = program.end(&["verify", "--repair"]);
    expect(&repaired, 0, &["repaired with epoch", "4 rows added, 3 changed, 1 removed"]);
    assert_eq!(written_after(&program, &last), "1|8");
    let told = "SELECT count(*), min(reason) FROM tonle.changes WHERE epoch > ";
    assert_eq!(program.query(&format!("{told}{last}")), "4|reconcile");
    assert_same_tables(&program.tables(), &before);
    expect(&program.verify(), 0, &[]);
    program.once(0);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &before);
    drop(sims);
}

#[test]
fn a_repair_leaves_tables_alone_that_only_the_instances_can_put_right() {
    let (program, sims) = loaded();
    copy(&program.state(), &program.path("backup"));
    sims[0].edit(15).unwrap();
    program.once(0);
    let last = last_epoch(&program);
    put_back(&program, &program.path("backup"));
    expect(&program.end(&["verify", "--repair"]), 65, &["does not know epoch", "tonle run"]);
    fs::remove_dir_all(program.state()).unwrap();
    expect(&program.end(&["verify", "--repair"]), 2, &["no state directory"]);
    let other = program.elsewhere().server("kampot", &sims[0]);
    other.once(0);
    fs::create_dir(program.state()).unwrap();
    put_back(&program, &other.state());
    expect(&program.end(&["verify", "--repair"]), 65, &["another state directory"]);
    assert_eq!(written_after(&program, &last), "0|0");
}
