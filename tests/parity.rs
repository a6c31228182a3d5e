//! The pack `primero-parity` over the cases that a real Primero v2.14.0 held gives the figures of that Primero's own
//! managed reports, cell by cell.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::program::Program;
use crate::support::replay::{recorded, recording, text};

/// A table by sex and age: how many.
type Cells = BTreeMap<(String, String), i64>;

/// A program that has read the recorded cases with the pack.
fn loaded() -> Program {
    let mut program = Program::new().with("packs = [\"primero-parity\"]");
    let places = program.path("places.json");
    std::fs::write(&places, recorded("locations-hierarchy")["body"].to_string()).unwrap();
    program.set_files("xx", &[&recording("cases.ndjson")], Some(&places));
    program.once(0);
    program.assert_true_to_state();
    program
}

/// What Primero's report says: by group if it has groups, by sex and age.
fn reported(name: &str) -> Vec<(Option<String>, Cells)> {
    let reply = recorded(&format!("managed-report-{name}"));
    let reports = reply["body"]["data"]["report_data"].as_object().unwrap();
    let report = reports.values().next().unwrap();
    let indicator = report["data"].as_object().unwrap().values().next().unwrap();
    let lines = indicator.as_array().unwrap();
    match lines.iter().any(|line| line.get("group_id").is_some()) {
        false => vec![(None, cells_of(lines))],
        true => lines
            .iter()
            .map(|group| (text(&group["group_id"]), cells_of(group["data"].as_array().unwrap())))
            .collect(),
    }
}

/// Primero's lines in our words.
fn cells_of(lines: &[Value]) -> Cells {
    let mut cells = Cells::new();
    for line in lines {
        let sex = match line["id"].as_str() {
            None => "not_recorded",
            Some("total") => "all",
            Some(sex) => sex,
        };
        for (age, count) in line.as_object().unwrap().iter().filter(|(key, _)| *key != "id") {
            let age = match age.as_str() {
                "incomplete_data" => "not_recorded".to_owned(),
                "total" => "all".to_owned(),
                band => band.replace(' ', ""),
            };
            cells.insert((sex.to_owned(), age), count.as_i64().unwrap());
        }
    }
    cells
}

/// What our tables say: the finest cells that fulfil `condition`, summed up by sex and age as Primero does.
fn ours(program: &Program, indicator: &str, condition: &str) -> Cells {
    let sql = format!(
        "SELECT sex, age, sum(numerator) FROM tonle.indicator_values
          WHERE indicator = '{indicator}' AND instance = 'xx' AND sex <> 'all' AND age <> 'all'
            AND {condition} GROUP BY 1, 2"
    );
    let mut cells = Cells::new();
    for line in program.query(&sql).lines() {
        let [sex, age, count]: [&str; 3] = line.split('|').collect::<Vec<_>>().try_into().unwrap();
        let count: i64 = count.parse().unwrap();
        for key in [(sex, age), (sex, "all"), ("all", age), ("all", "all")] {
            *cells.entry((key.0.to_owned(), key.1.to_owned())).or_default() += count;
        }
    }
    cells
}

/// Conditions on the dimensions that stand besides sex and age; each is whole unless it is named.
fn only(named: &str) -> String {
    const OTHERS: [&str; 6] = [
        "status",
        "workflow",
        "protection_concern",
        "reporting_location",
        "followup_type",
        "service_type",
    ];
    let whole = OTHERS.iter().filter(|name| !named.starts_with(*name));
    let mut conditions: Vec<_> = whole.map(|name| format!("{name} = 'all'")).collect();
    if !named.is_empty() {
        conditions.push(named.to_owned());
    }
    conditions.join(" AND ")
}

#[track_caller]
fn check(program: &Program, report: &str, indicator: &str, named: &str) {
    let reported = reported(report);
    let [(None, reported)] = reported.as_slice() else { panic!("{report} has groups") };
    assert!(reported.len() > 5, "{report} says something: {reported:?}");
    assert_eq!(ours(program, indicator, &only(named)), *reported, "{report}");
}

/// The same of the periods that begin in a range.
#[track_caller]
fn check_range(program: &Program, report: &str, indicator: &str, (from, to): (&str, &str)) {
    let within = format!(
        "{} AND period_type = 'month' AND period_start BETWEEN '{from}' AND '{to}'",
        only("")
    );
    let reported = reported(report);
    let [(None, reported)] = reported.as_slice() else { panic!("{report} has groups") };
    assert_eq!(ours(program, indicator, &within), *reported, "{report}");
}

/// The same of single periods.
#[track_caller]
fn check_groups(program: &Program, report: &str, indicator: &str, period_type: &str) {
    let groups = reported(report);
    assert!(groups.len() > 1, "{report} has groups");
    for (group, reported) in groups {
        let group = group.unwrap();
        let start = match group.split_once("-Q") {
            None => format!("{group}-01"),
            Some((year, quarter)) => {
                format!("{year}-{:02}-01", quarter.parse::<u8>().unwrap() * 3 - 2)
            }
        };
        let within =
            format!("{} AND period_type = '{period_type}' AND period_start = '{start}'", only(""));
        assert_eq!(ours(program, indicator, &within), reported, "{report} {group}");
    }
}

#[test]
fn the_reports_of_a_real_primero_are_equal_cell_by_cell() {
    let program = &loaded();
    check(program, "workflow", "MR-workflow.disabled", "");
    check(program, "workflow-closed", "MR-workflow.disabled", "status = 'closed'");
    check(program, "workflow-one-state", "MR-workflow.disabled", "workflow = 'reopened'");
    check(program, "protection-concerns", "MR-concerns.disabled", "");
    check(program, "concerns-one", "MR-concerns.disabled", "protection_concern = 'caafag'");
    check(program, "reporting-locations", "MR-locations.disabled", "");
    check(program, "followups", "MR-followups.disabled", "");
    check(program, "services", "MR-services.disabled", "");

    let (quarter, half) = (("2026-01-01", "2026-03-31"), ("2026-01-01", "2026-06-30"));
    check_range(program, "workflow-range", "MR-workflow-dated.disabled", quarter);
    check_range(program, "followups-range", "MR-followups-dated.disabled", half);
    check_range(program, "services-range", "MR-services-dated.disabled", half);
    check_groups(program, "workflow-by-month", "MR-workflow-dated.disabled", "month");
    check_groups(program, "workflow-by-quarter", "MR-workflow-dated.disabled", "quarter");
    check_groups(program, "followups-by-month", "MR-followups-dated.disabled", "month");

    // Ten of the recorded cases are disabled: later versions leave them out.
    let total = |code: &str| ours(program, code, &only(""))[&("all".to_owned(), "all".to_owned())];
    assert_eq!(total("MR-workflow.disabled"), 317);
    assert_eq!(total("MR-workflow"), 307);
}
