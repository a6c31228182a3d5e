//! One case, as its programme would tell it, through the real path: from a server over HTTP into the tables of a real
//! Postgres. The figures of two quarters, what a corrected closing rewrites, and what disabling the record takes back.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::support::program::{Program, cases_of_today, primero};

/// The case.
const K: &str = "0c5f7a52-6d0e-4c7b-9f0e-2a6f3f1d9b11";

/// What a cell is called if the example names it, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    name: Option<String>,
    figure: String,
}

/// Every cell of the table.
fn cells(program: &Program) -> BTreeMap<String, Held> {
    let dimensions = program.query("SELECT dimension FROM tonle.dimensions");
    let whole: Vec<_> = dimensions.lines().map(|name| format!("{name} = 'all'")).collect();
    assert!(whole.len() > 20, "{whole:?}");
    let lines = program.query(&format!(
        "SELECT cell, concat_ws('/', numerator, denominator), period_start || ' ' || indicator,
                period_type = 'quarter' AND instance = 'takeo' AND {} AND indicator IN ('CM-01', 'CM-02',
                'CM-03', 'CM-04', 'TQ-02', 'CA-01', 'CA-02', 'CA-06')
           FROM tonle.indicator_values",
        whole.join(" AND ")
    ));
    let held = lines.lines().map(|line| {
        let parts: Vec<_> = line.split('|').map(str::to_owned).collect();
        let [cell, figure, name, is_named] = parts.try_into().unwrap();
        (cell, Held { name: (is_named == "t").then_some(name), figure })
    });
    held.collect()
}

/// The figures that the example names: quarterly totals of the instance.
fn figures(program: &Program) -> Vec<(String, String)> {
    let held = cells(program).into_values();
    let mut figures: Vec<_> = held.filter_map(|held| Some((held.name?, held.figure))).collect();
    figures.sort();
    figures
}

fn expected(figures: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut figures: Vec<_> =
        figures.iter().map(|(name, figure)| ((*name).to_owned(), (*figure).to_owned())).collect();
    figures.sort();
    figures
}

/// What the last epoch rewrote since `before`: the named cells among all cells that differ, which are those that
/// `changes` tells, and the one reason that it gives.
fn rewritten(program: &Program, before: &BTreeMap<String, Held>) -> (Vec<String>, String) {
    let after = cells(program);
    let all: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differing = all.into_iter().filter(|cell| before.get(*cell) != after.get(*cell));
    let differing: BTreeSet<_> = differing.cloned().collect();
    let last = "epoch = (SELECT max(epoch) FROM tonle.changes)";
    let told = program.query(&format!("SELECT cell FROM tonle.changes WHERE {last}"));
    let told: BTreeSet<_> = told.lines().map(str::to_owned).collect();
    assert_eq!(told, differing, "changes tells every cell that differs, and no other");
    let held = |cell: &String| before.get(cell).or(after.get(cell));
    let names = differing.iter().filter_map(|cell| held(cell)?.name.clone());
    let mut names: Vec<_> = names.collect();
    names.sort();
    let reasons = format!("SELECT DISTINCT reason FROM tonle.changes WHERE {last}");
    (names, program.query(&reasons))
}

#[test]
fn the_worked_example_in_the_tables() {
    let takeo = primero(cases_of_today(1, 0));
    let case = json!({
        "module_id": "primeromodule-cp", "status": "closed", "sex": "female", "date_of_birth": "2014-05-01",
        "age": 11, "location_current": "1201", "risk_level": "high", "registration_date": "2026-01-10",
        "date_case_plan": "2026-01-20", "date_closure": "2026-04-05",
        "care_arrangements_section": [
            { "care_arrangements_type": "residential_care", "care_arrangement_started_date": "2026-01-12" },
            { "care_arrangements_type": "foster_care", "care_arrangement_started_date": "2026-03-02" },
        ],
    });
    takeo.patch(K, case).unwrap();
    let mut program = Program::new().server("takeo", &takeo);
    program.start();
    program.wait_until_live("takeo");
    let (q1, q2) = ("2026-01-01", "2026-04-01");
    let mut at_first = vec![
        ("2026-01-01 CM-01", "1"),
        ("2026-01-01 CM-02", "1"),
        ("2026-01-01 CM-03", "1"),
        ("2026-01-01 TQ-02", "1/1"),
        ("2026-01-01 CA-01", "1"),
        ("2026-01-01 CA-02", "1"),
        ("2026-01-01 CA-06", "1"),
        ("2026-04-01 CM-02", "1"),
        ("2026-04-01 CM-04", "1"),
    ];
    assert_eq!(figures(&program), expected(&at_first));
    let kind = "SELECT placement_kind FROM tonle.v_placement_kind
                 WHERE ca_01 = 1 AND instance = 'takeo' AND period_type = 'quarter'";
    assert_eq!(program.query(kind), "family_based");

    // The closing is corrected to a day of the first quarter.
    let before = cells(&program);
    takeo.patch(K, json!({"date_closure": "2026-03-30"})).unwrap();
    program.wait_for("takeo", &takeo);
    let corrected = [
        format!("{q1} CM-03"),
        format!("{q1} CM-04"),
        format!("{q2} CM-02"),
        format!("{q2} CM-04"),
    ];
    assert_eq!(rewritten(&program, &before), (corrected.to_vec(), "correction".to_owned()));
    at_first.retain(|(name, _)| !corrected.contains(&(*name).to_owned()));
    at_first.push(("2026-01-01 CM-04", "1"));
    assert_eq!(figures(&program), expected(&at_first));

    // The record is disabled: everything it added is taken back, and nothing else.
    let before = cells(&program);
    takeo.patch(K, json!({"record_state": false})).unwrap();
    program.wait_for("takeo", &takeo);
    let (names, reason) = rewritten(&program, &before);
    let mut left: Vec<_> = at_first.iter().map(|(name, _)| (*name).to_owned()).collect();
    left.sort();
    assert_eq!((names, reason.as_str()), (left, "disabled"));
    assert_eq!(figures(&program), []);
    assert_eq!(program.query("SELECT count(*) FROM tonle.indicator_values"), "0");
    assert_eq!(program.stop(), 0, "{}", program.log());
    program.assert_true_to_state();
}
