//! Incidents through the real program: read beside the cases of the same Primero, and never in their way.

use std::fs::{self, File};
use std::time::Duration;

use serde_json::{Value, json};
use tonle::sim::{Settings, Sim, generator};

use crate::support::program::{Program, cases_of_today, primero};

/// A pack that tells incidents from cases and counts them.
const PACK: &str = r#"
[pack]
id = "violence"
version = "1"
[fields]
record_type = { type = "option", values = ["case", "incident"] }
record_state = "boolean"
incident_date = "date"
owned_by = "worker"
[indicators.IN-01]
title = { en = "Incidents" }
definition = { en = "Enabled incidents, as of now." }
count = "cases"
where = { record_state = true, record_type = "incident" }
placed = "now"
tables = [[]]
"#;

/// The incidents that are published, over all instances.
const COUNTED: &str = "SELECT coalesce(sum(numerator), 0) FROM tonle.indicator_values
                        WHERE indicator = 'IN-01' AND instance <> 'all'";

/// State, records and error of the two streams.
fn stream(program: &Program, name: &str, column: &str) -> String {
    program.query(&format!("SELECT {column} FROM tonle.sync_status WHERE instance = '{name}'"))
}

fn program() -> Program {
    let program = Program::new().with("packs = [\"cp-core\", \"violence.toml\"]");
    fs::write(program.path("violence.toml"), PACK).unwrap();
    program
}

fn enabled(sim: &Sim) -> Vec<Value> {
    sim.incidents().into_iter().filter(|incident| incident["record_state"] == true).collect()
}

#[test]
fn incidents_are_read_and_followed_beside_the_cases() {
    let sim = primero(cases_of_today(61, 120));
    let all = sim.incidents().len();
    assert!(all > 10, "{all}");
    let mut program = program().server_with("kampot", &sim, "incidents = true");
    program.start();
    program.wait_until_live("kampot");
    program.wait_until_live("kampot/incidents");
    let counted = |program: &Program| program.try_query(COUNTED).unwrap_or_default();
    let expected = enabled(&sim).len().to_string();
    program.wait_until("all incidents are counted", |program| counted(program) == expected);
    assert_eq!(stream(&program, "kampot/incidents", "cases_known"), all.to_string());
    assert_eq!(stream(&program, "kampot", "cases_known"), "120");

    let gone = enabled(&sim).swap_remove(0);
    sim.advance(Duration::from_millis(2));
    let id = gone["id"].as_str().unwrap();
    assert!(sim.patch_incident(id, json!({ "record_state": false })).unwrap());
    let expected = enabled(&sim).len().to_string();
    program.wait_until("the disabled incident left", |program| counted(program) == expected);
    assert_eq!(program.stop(), 0, "{}", program.last_of_log());
    program.assert_true_to_state();

    let lines = sim.request_lines();
    let of_incidents: Vec<_> =
        lines.iter().filter(|line| line.contains("/api/v2/incidents?")).collect();
    assert!(of_incidents.iter().any(|line| line.contains("incident_date")), "{of_incidents:?}");
    let asks_for = |line: &&String, field: &str| {
        let fields = line.split("fields=").nth(1).unwrap_or_default();
        fields.split([',', '&']).any(|one| one == field)
    };
    assert!(lines.iter().all(|line| !asks_for(&line, "record_type")), "it is our own field");
}

#[test]
fn incidents_that_may_not_be_read_do_not_hold_up_the_cases() {
    let sim = primero(cases_of_today(62, 40));
    sim.set_incidents_permitted(false);
    let mut program = program().server_with("kampot", &sim, "incidents = true");
    program.start();
    program.wait_until_live("kampot");
    program.wait_until("the refusal is told", |program| {
        let state = "SELECT state FROM tonle.sync_status WHERE instance = 'kampot/incidents'";
        program.try_query(state).as_deref() == Some("failing")
    });
    let error = stream(&program, "kampot/incidents", "last_error");
    assert!(error.contains("incidents") && error.contains("403"), "{error}");
    assert_eq!(stream(&program, "kampot", "last_error"), "");
    sim.edit(5).unwrap();
    program.wait_for("kampot", &sim);
    assert_eq!(program.stop(), 0, "{}", program.last_of_log());
    program.once(77);
}

#[test]
fn incidents_are_replayed_from_files() {
    let settings = Settings { case_count: 200, ..cases_of_today(63, 200) };
    let mut program = program();
    let (cases, incidents) = (program.path("cases.ndjson"), program.path("incidents.ndjson"));
    generator::write_ndjson(&settings, None, File::create(&cases).unwrap()).unwrap();
    generator::write_incidents(&settings, File::create(&incidents).unwrap()).unwrap();
    program.put_instance(
        "archive",
        format!("files = [{cases:?}]\nincident_files = [{incidents:?}]\n"),
    );
    program.once(0);
    let text = fs::read_to_string(&incidents).unwrap();
    let enabled = text.lines().filter(|line| line.contains("\"record_state\":true")).count();
    assert!(enabled > 10, "{enabled}");
    assert_eq!(program.query(COUNTED), enabled.to_string());
    program.assert_true_to_state();
}

#[test]
fn incidents_need_a_pack_that_tells_them_from_cases() {
    let sim = primero(cases_of_today(64, 3));
    let program = Program::new().server_with("kampot", &sim, "incidents = true");
    let ending = program.end(&["check"]);
    assert_eq!(ending.code, 2, "{}", ending.text);
    for word in ["line", "incidents", "record_type", "leave incidents out"] {
        assert!(ending.text.contains(word), "{word}: {}", ending.text);
    }
}
