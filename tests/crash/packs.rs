//! Another pack over the same state: only what differs is written, and only new fields are read again.

use super::restart::{loaded, sent};
use super::{Holder, assert_changes_are_a_chain, recent, undisturbed};
use crate::support::program::assert_same_tables;

pub(super) const INDICATOR: &str = r#"
[pack]
id = "more"
version = "1.0.0"
title = { en = "More" }

[indicators.X-01]
title = { en = "New cases by risk level" }
definition = { en = "Cases by date of registration." }
count = "cases"
population = "strict"
placed = { flow = "registration_date" }
periods = ["month"]
tables = [[], ["risk_level"]]
"#;

pub(super) const FIELD: &str = concat!(
    r#"
[pack]
id = "wider"
version = "1.0.0"
title = { en = "Wider" }
"#,
    by_nationality!()
);

pub(super) const OF_NATIONALITIES: &str = "SELECT count(*) FROM tonle.indicator_values
    WHERE indicator = 'X-02' AND nationality IN ('khmer', 'vietnamese', 'thai')";

#[test]
fn a_new_indicator_writes_its_own_rows_only() {
    let (program, sims) = loaded();
    let epoch = program.query("SELECT max(epoch) FROM tonle.epochs");
    let program = recent(program, Some(INDICATOR));
    let cases = sent(&sims, || drop(program.once(0)));
    assert!(cases < 60, "{cases} cases were read again");
    let touched = format!("SELECT DISTINCT indicator FROM tonle.changes WHERE epoch > {epoch}");
    assert_eq!(program.query(&touched), "X-01");
    for table in ["cases", "services"] {
        let touched = format!("SELECT count(*) FROM tonle.{table} WHERE epoch > {epoch}");
        assert_eq!(program.query(&touched), "0", "{table}");
    }
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_changes_are_a_chain(&program);
    // And back again.
    let program = recent(program, None);
    program.once(0);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
}

#[test]
fn a_new_field_is_read_of_every_case() {
    let (program, sims) = loaded();
    let program = recent(program, Some(FIELD));
    let cases = sent(&sims, || drop(program.once(0)));
    assert!(cases >= 250, "{cases} cases were read again");
    assert_ne!(program.query(OF_NATIONALITIES), "0");
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_changes_are_a_chain(&program);
}

#[test]
fn a_new_field_is_read_although_the_program_dies_before_its_tables_change() {
    killed_while_widening(false);
}

#[test]
fn a_new_field_is_read_although_the_program_dies_when_its_tables_change() {
    killed_while_widening(true);
}

fn killed_while_widening(commits: bool) {
    let (program, sims) = loaded();
    let mut program = recent(program, Some(FIELD));
    let holder = Holder::start(&mut program);
    program.start();
    holder.wait_for_program(&mut program);
    program.kill();
    if !commits {
        holder.end_waiting(&mut program);
    }
    holder.release(&mut program);
    program.once(0);
    assert_ne!(program.query(OF_NATIONALITIES), "0");
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_changes_are_a_chain(&program);
}
