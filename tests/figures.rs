//! The figures of the cases that a real Primero v2.14.0 held are those that a few lines of plain code count.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use serde_json::Value;

use crate::support::program::Program;
use crate::support::replay::{count, recorded, recorded_lines, recording, rows, text};

/// A recorded case as plain facts, as of a day.
struct Fact {
    strict: bool,
    enabled: bool,
    age: Option<i64>,
    status: String,
    registered: Option<Date>,
    closed: Option<Date>,
    /// Days of reopening, local.
    reopened: Vec<Date>,
    /// Type and day of each implemented service.
    implemented: Vec<(String, Option<Date>)>,
}

fn facts() -> Vec<Fact> {
    let date = |value: &Value| value.as_str().and_then(|text| text.parse::<Date>().ok());
    let day = |value: &Value| {
        let moment: jiff::Timestamp = value.as_str()?.parse().ok()?;
        Some(moment.in_tz("Asia/Phnom_Penh").unwrap().date())
    };
    let fact = |case: &Value| Fact {
        enabled: case["record_state"] == true,
        strict: case["record_state"] == true
            && case["status"] != "duplicate"
            && case["duplicate"] != true
            && case["module_id"] == "primeromodule-cp",
        age: case["age"].as_i64(),
        status: text(&case["status"]).unwrap_or_default(),
        registered: date(&case["registration_date"]),
        closed: date(&case["date_closure"]),
        reopened: rows(case, "reopened_logs")
            .iter()
            .filter_map(|row| day(&row["reopened_date"]))
            .collect(),
        implemented: rows(case, "services_section")
            .iter()
            .filter(|row| row["service_implemented"] == "implemented")
            .map(|row| {
                let kind = text(&row["service_type"]);
                let kind = kind.unwrap_or_else(|| "not_recorded".to_owned());
                (kind, day(&row["service_implemented_day_time"]))
            })
            .collect(),
    };
    recorded_lines("cases.ndjson").iter().map(fact).collect()
}

impl Fact {
    /// Whether the case is open at the end of `today`, by the rule that is written at the lifecycle.
    fn is_open(&self, today: Date) -> bool {
        let Some(registered) = self.registered.filter(|day| *day <= today) else { return false };
        let is_closed = self.status == "closed";
        let Some(closed) = self.closed.map(|day| day.max(registered)) else {
            return !is_closed;
        };
        let again: Vec<_> = self.reopened.iter().filter(|day| **day >= closed).collect();
        match (again.iter().min(), again.iter().max()) {
            (Some(first), Some(last)) => {
                today < closed || (**first <= today && (!is_closed || today < **last))
            }
            _ => !is_closed || today < closed,
        }
    }
}

/// `2026-03-01` of a day in March.
fn month(day: Date) -> String {
    day.first_of_month().to_string()
}

/// Counts by text as the query prints them, in order.
fn printed(counts: BTreeMap<String, usize>) -> String {
    let lines: Vec<_> = counts.iter().map(|(name, count)| format!("{name}|{count}")).collect();
    lines.join("\n")
}

/// What an indicator says by `column`, which is `period_start` or a dimension, all else whole.
fn said(program: &Program, indicator: &str, period_type: &str, column: &str) -> String {
    let whole = whole(program, column);
    let not_whole =
        if column == "period_start" { "true".into() } else { format!("{column} <> 'all'") };
    program.query(&format!(
        "SELECT {column}, sum(numerator) FROM tonle.indicator_values
          WHERE indicator = '{indicator}' AND instance = 'all' AND period_type = '{period_type}'
            AND {not_whole} AND {whole} GROUP BY 1 ORDER BY 1"
    ))
}

/// That a row is not broken down by anything but `column`.
fn whole(program: &Program, column: &str) -> String {
    let dimensions = program.query("SELECT dimension FROM tonle.dimensions ORDER BY 1");
    let names = dimensions.lines().filter(|name| *name != column);
    names.map(|name| format!("{name} = 'all'")).collect::<Vec<_>>().join(" AND ")
}

#[test]
fn figures_of_the_recorded_cases_are_those_counted_by_hand() {
    let mut program = Program::new();
    let places = program.path("places.json");
    std::fs::write(&places, recorded("locations-hierarchy")["body"].to_string()).unwrap();
    program.set_files("xx", &[&recording("cases.ndjson")], Some(&places));
    program.once(0);
    program.assert_true_to_state();

    let facts = facts();
    assert_eq!(facts.len(), 317);
    let strict = || facts.iter().filter(|fact| fact.strict);
    assert_eq!(strict().count(), 317 - 10 - 5, "ten disabled, five without a module");

    let registered = count(strict().filter_map(|fact| fact.registered).map(month));
    assert_eq!(said(&program, "CM-01", "month", "period_start"), printed(registered));

    let closed = strict().filter(|fact| fact.status == "closed");
    let closed = count(closed.filter_map(|fact| fact.closed).map(month));
    assert_eq!(said(&program, "CM-04", "month", "period_start"), printed(closed));

    let services = || strict().flat_map(|fact| &fact.implemented);
    let dated = |service: &&(String, Option<Date>)| service.1.is_some();
    let by_month = count(services().filter_map(|(_, day)| day.map(month)));
    assert_eq!(said(&program, "SV-01", "month", "period_start"), printed(by_month));
    let by_type = count(services().filter(dated).map(|(kind, _)| kind.clone()));
    assert_eq!(said(&program, "SV-01", "year", "service_type"), printed(by_type));

    let served = strict().flat_map(|fact| {
        fact.implemented.iter().filter_map(|(_, day)| day.map(month)).collect::<BTreeSet<_>>()
    });
    assert_eq!(said(&program, "SV-02", "month", "period_start"), printed(count(served)));

    let seed = facts.iter().filter(|fact| fact.enabled);
    let seed = seed.filter(|fact| fact.age.is_some_and(|age| (0..=18).contains(&age))).count();
    let now = format!(
        "SELECT numerator FROM tonle.indicator_values WHERE indicator = '4.11a-seed'
         AND instance = 'xx' AND {}",
        whole(&program, "period_start")
    );
    assert_eq!(program.query(&now), seed.to_string());

    let today = today_of(&program);
    let open = strict().filter(|fact| fact.is_open(today)).count();
    let current = format!(
        "SELECT numerator FROM tonle.indicator_values WHERE indicator = 'CM-03'
         AND instance = 'all' AND period_type = 'month' AND period_start = '{}'
         AND {}",
        month(today),
        whole(&program, "period_start")
    );
    assert_eq!(program.query(&current), if open == 0 { String::new() } else { open.to_string() });
}

/// The day that the program's clock shows.
fn today_of(program: &Program) -> Date {
    let configuration = std::fs::read_to_string(program.path("tonle.toml")).unwrap();
    let configuration: toml::Value = toml::from_str(&configuration).unwrap();
    let zone = configuration["time_zone"].as_str().unwrap();
    jiff::Timestamp::now().in_tz(zone).unwrap().date()
}
