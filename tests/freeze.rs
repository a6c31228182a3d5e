//! Frozen periods, and the calendar that decides the period of a moment, through the real program.

use serde_json::{Value, json};

use crate::support::program::{Ending, Program, cases_of_today, primero};

#[track_caller]
fn expect(ending: &Ending, code: i32, words: &[&str]) {
    assert_eq!(ending.code, code, "{}", ending.text);
    for word in words {
        assert!(ending.text.contains(word), "expected {word:?} in\n{}", ending.text);
    }
}

fn case(sex: &str, age: u8, registered: &str) -> Value {
    json!({ "module_id": "primeromodule-cp", "sex": sex, "age": age, "status": "open",
            "date_of_birth": null, "registration_date": registered })
}

fn id_of(number: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{number:02}")
}

#[test]
fn a_frozen_period_stays_beside_what_changes_later() {
    let sim = primero(cases_of_today(1, 0));
    let (girl, boy) = (id_of(1), id_of(2));
    sim.patch(&girl, case("female", 9, "2016-02-10")).unwrap();
    sim.patch(&boy, case("male", 15, "2016-02-29")).unwrap();
    let mut program = Program::new().server("takeo", &sim);
    expect(&program.end(&["freeze", "2016-Q1"]), 65, &["not there yet", "tonle run"]);
    expect(&program.end(&["freeze", "2016-Q5"]), 2, &["2016-Q5", "2026-Q3", "W2026-08-02"]);
    expect(&program.end(&["freeze"]), 2, &["PERIOD", "required"]);

    program.start();
    program.wait_until_live("takeo");
    expect(&program.end(&["freeze", "--list"]), 0, &["nothing is frozen"]);
    expect(&program.end(&["freeze", "2016-Q1"]), 0, &["2016-Q1 is frozen: "]);
    let figures = "SELECT count(*) FROM tonle.indicator_values
                    WHERE period_type = 'quarter' AND period_start = '2016-01-01'";
    let frozen = "SELECT count(*) FROM tonle.frozen_values WHERE period = '2016-Q1'";
    let count = program.query(frozen);
    assert_eq!(count, program.query(figures));
    let none = "SELECT count(*) FROM tonle.frozen_differences";
    assert_eq!(program.query(none), "0");
    expect(&program.end(&["freeze", "2016-Q1"]), 65, &["only once", "frozen_differences"]);
    expect(&program.end(&["freeze", "2015-Q1"]), 65, &["no figure of 2015-Q1"]);

    sim.patch(&girl, json!({"record_state": false})).unwrap();
    sim.patch(&boy, json!({"sex": "female"})).unwrap();
    program.wait_for("takeo", &sim);
    let differences =
        "SELECT difference, dimensions->>'sex', dimensions->>'age_group', frozen_value,
            present_value, frozen_revision, present_revision
       FROM tonle.frozen_differences WHERE indicator = 'CM-01' AND instance = 'takeo'
        AND NOT dimensions ?| ARRAY['district', 'province', 'agency'] ORDER BY 1, 2, 3";
    let revisions = "SELECT max(revision) FROM tonle.indicator_values
                      WHERE indicator = 'CM-01' AND period_start = '2016-01-01'
                        AND sex = 'all' AND district = 'all' AND province = 'all' AND agency = 'all'";
    let last = program.query(revisions);
    let expected = format!(
        "came|female|12-17||1||1\nchanged|||2|1|1|{last}\n\
         left|female|6-11|1||1|\nleft|male|12-17|1||1|"
    );
    assert_eq!(program.query(differences), expected);

    let year = program.query("SELECT extract(year FROM now())");
    expect(&program.end(&["freeze", &year]), 65, &["not over yet", "--provisional"]);
    expect(&program.end(&["freeze", &year, "--provisional"]), 0, &["is frozen"]);
    let list = program.end(&["freeze", "--list"]);
    expect(&list, 0, &["2016-Q1", &year, "before it was over"]);
    assert_eq!(program.stop(), 0, "{}", program.log());
    program.assert_true_to_state();

    // Another pack takes figures and perhaps columns away, never what is frozen.
    program.set("packs = [\"cp-core\"]");
    program.once(0);
    assert_eq!(program.query(frozen), count);
    assert!(program.query(none).parse::<u32>().unwrap() >= 4);
}

#[test]
fn the_zone_of_an_instance_decides_its_days() {
    // Evening of the last of January in Lima, morning of the first of February in Phnom Penh.
    let service = json!({ "unique_id": "5d4c6a0e-0000-4000-8000-000000000001",
        "service_type": "health_medical_service", "service_implemented": "implemented",
        "service_implemented_day_time": "2016-01-31T23:30:00.000Z" });
    let mut program = Program::new();
    let sims = [primero(cases_of_today(1, 0)), primero(cases_of_today(1, 0))];
    for (sim, (name, zone)) in
        sims.iter().zip([("kampot", "Asia/Phnom_Penh"), ("lima", "America/Lima")])
    {
        let mut case = case("female", 9, "2016-01-10");
        case["services_section"] = json!([service]);
        sim.patch(&id_of(1), case).unwrap();
        program = program.server_with(name, sim, &format!("time_zone = {zone:?}"));
    }
    program.once(0);
    let months = "SELECT string_agg(implemented_month::text, ' ' ORDER BY implemented_month)
                    FROM tonle.services";
    assert_eq!(program.query(months), "2016-01-01 2016-02-01");
    program.assert_true_to_state();
}
