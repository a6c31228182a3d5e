//! The commands that foresee, explain and rehearse: what the real program says, and that it writes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::program::{Ending, Program, cases_of_today, primero};

/// The examples inside the program.
const WORKED: &str = include_str!("../fixtures/worked-example.toml");

/// A database where nothing listens.
const NO_DATABASE: &str = "postgres://tonle:hush-4711@127.0.0.1:1/none";

#[track_caller]
fn expect(ending: &Ending, code: i32, words: &[&str]) {
    assert_eq!(ending.code, code, "{}", ending.text);
    for word in words {
        assert!(ending.text.contains(word), "expected {word:?} in\n{}", ending.text);
    }
}

/// Runs `tonle test` on these files, in a directory of theirs.
fn test(files: &[(&str, &str)]) -> Ending {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tonle"));
    command.arg("test").env_remove("TONLE_LOG");
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        if !name.starts_with("pack") {
            command.arg(path);
        }
    }
    let output = command.output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    Ending { code: output.status.code().unwrap_or(-1), text }
}

fn changed(from: &str, to: &str) -> String {
    assert!(WORKED.contains(from), "{from}");
    WORKED.replacen(from, to, 1)
}

#[test]
fn the_worked_example_holds() {
    expect(&test(&[]), 0, &["ok", "fixtures/worked-example.toml", "4 steps"]);
    expect(&test(&[("own.toml", WORKED)]), 0, &["ok", "own.toml"]);
}

#[test]
fn an_example_that_does_not_hold_is_told_cell_by_cell() {
    let check = |from: &str, to: &str, code: i32, words: &[&str]| {
        expect(&test(&[("own.toml", &changed(from, to))]), code, words);
    };
    let cell = "indicator = \"CM-02\", period = \"2026-Q1\", numerator = 1";
    let wrong = cell.replace("numerator = 1", "numerator = 2");
    let words = [
        "FAILED",
        "step 1",
        "CM-02 quarter 2026-01-01 instance=all: expected numerator 2; found 1",
    ];
    check(cell, &wrong, 65, &words);
    let gone = &format!("  {{ {cell} }},\n");
    check(gone, "", 65, &["CM-02 quarter 2026-01-01", "expected no such cell; found 1"]);
    let rewritten = "  { indicator = \"CM-04\", period = \"2026-Q1\" },\n";
    check(rewritten, "", 65, &["step 3", "CM-04", "expected to be left alone", "no such cell → 1"]);
    let more = "changed = [ { indicator = \"CM-01\", period = \"2026-Q1\" } ]";
    check("changed = []", more, 65, &["step 2", "CM-01", "it was left alone"]);
    check("\"correction\"", "\"disabled\"", 65, &["step 3", "found \"correction\""]);
    check("value = 1.0", "value = 0.5", 65, &["TQ-02", "value 0.5", "found 1/1"]);

    let nearest = &["own.toml", "CM-O1", "nearest is \"CM-01\""];
    check("{ indicator = \"CM-01\", period", "{ indicator = \"CM-O1\", period", 2, nearest);
    check("district = \"KH12\"", "distric = \"KH12\"", 2, &["nearest is \"district\""]);
    check("district = \"KH12\"", "district = \"KH99\"", 2, &["value of district", "KH99"]);
    check("id = \"0c5f", "id = \"zzzz", 2, &["step 1, record 1", "no id that is a UUID"]);
    check("title = \"reg", "titel = \"reg", 2, &["titel"]);
    check("today = \"2026-06-30\"", "", 2, &["first step has no `today`"]);
}

#[test]
fn examples_may_be_json_and_name_their_own_pack() {
    let pack = "[pack]\nid = \"own\"\nversion = \"1\"\n[fields]\n\
        sex = { type = \"option\", values = [\"female\"] }\n\
        [indicators.OWN]\ntitle = { en = \"All\" }\n\
        definition = { en = \"All\" }\ncount = \"cases\"\nplaced = \"now\"\n\
        tables = [[]]\n";
    let case = |number: u8| json!({ "id": id_of(number), "sex": "female" });
    let file = |count: u8| {
        json!({ "packs": ["pack.toml"], "steps": [{
            "today": "2026-01-01", "records": [case(1), case(2)], "exact": true,
            "cells": [{ "indicator": "OWN", "period": "now", "numerator": count },
                      { "indicator": "OWN", "period": "now", "instance": "here", "numerator": count }],
        }] })
        .to_string()
    };
    expect(&test(&[("pack.toml", pack), ("own.json", &file(2))]), 0, &["ok"]);
    expect(&test(&[("pack.toml", pack), ("own.json", &file(3))]), 65, &["found 2"]);
}

fn id_of(number: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{number:02}")
}

/// Every file of the state, and everything in the database.
fn everything(program: &Program) -> (BTreeMap<String, Vec<u8>>, String) {
    let files = fs::read_dir(program.state()).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    });
    // What psql is told to keep secret is another word in each dump.
    let dump = program.dump();
    let lines = dump.lines().filter(|line| !line.contains("restrict"));
    (files.collect(), lines.collect::<Vec<_>>().join("\n"))
}

const OWN_PACK: &str = "[pack]\nid = \"own\"\nversion = \"1\"\n\
    [dimensions.age_group]\ntitle = { en = \"Age\" }\nfrom = \"age_at_event\"\nbands = [\"0-8\", \"9-17\", \"18+\"]\n\
    [dimensions.open]\ntitle = { en = \"Open\" }\nfrom = \"status\"\n\
    [indicators.OWN-1]\ntitle = { en = \"Girls\" }\ndefinition = { en = \"Girls registered.\" }\ncount = \"cases\"\n\
    population = \"strict\"\nwhere = { sex = \"female\" }\nplaced = { flow = \"registration_date\" }\n\
    periods = [\"year\"]\ntables = [[], [\"open\"]]\n\
    [extracts.own_cases]\ncomment = \"Cases\"\nkey = \"own_key\"\ncolumns = [\"sex\"]\n";

#[test]
fn a_plan_tells_what_the_next_run_writes_and_writes_nothing() {
    let sim = primero(cases_of_today(21, 70));
    let mut program = Program::new().server("kampot", &sim);
    expect(&program.end(&["plan"]), 2, &["no state directory"]);
    program.once(0);
    program.once(0); // agencies that the first run met have their columns from the second on
    let before = everything(&program);
    expect(&program.end(&["plan"]), 0, &["70 records", "nothing would change"]);

    fs::write(program.path("own.toml"), OWN_PACK).unwrap();
    program.set("packs = [\"cp-core\", \"own.toml\"]");
    let planned = program.end(&["plan", "--cells", "2"]);
    let words = [
        "packs      cp-core 2.0.0, own 1",
        "the tables follow cp-core 2.0.0, cambodia 1",
        "indicator  + OWN-1: new; cells: ",
        "indicator  - 4.11a-seed: gone; cells: 0 appear, 0 change, ",
        "instance=all: new, ",
        " → gone",
        "column     + indicator_values.open",
        "rows       own_cases: 70 appear, 0 change, 0 leave",
        "rows would be written; nothing was",
    ];
    expect(&planned, 65, &words);
    assert!(everything(&program) == before, "a plan wrote something");

    let total = planned
        .text
        .lines()
        .find_map(|line| line.strip_suffix(" rows would be written; nothing was"));
    program.once(0);
    let written = "SELECT rows_inserted + rows_updated + rows_deleted FROM tonle.epochs ORDER BY epoch DESC LIMIT 1";
    assert_eq!(total.map(str::trim), Some(program.query(written).as_str()), "{}", planned.text);
    expect(&program.end(&["plan"]), 0, &["nothing would change"]);
}

#[test]
fn a_plan_names_what_would_be_read() {
    let sim = primero(cases_of_today(22, 20));
    let mut program = Program::new().server("kampot", &sim);
    program.once(0);
    program.once(0);
    program.start();
    program.wait_until_live("kampot");
    expect(&program.end(&["plan"]), 0, &["20 records"]);
    assert_eq!(program.stop(), 0);

    let pack =
        "[pack]\nid = \"own\"\nversion = \"1\"\n[fields]\nconsent_for_services = \"boolean\"\n";
    fs::write(program.path("own.toml"), pack).unwrap();
    program.set("packs = [\"cp-core\", \"cambodia\", \"own.toml\"]");
    program.remove_instance("kampot");
    let program = program.server("takeo", &sim);
    let words = [
        "instance   + takeo",
        "instance   - kampot",
        "fields     + consent_for_services",
        "rows       cases: 0 appear, 0 change, ",
    ];
    expect(&program.end(&["plan"]), 65, &words);
    let away = program.end(&["plan", "--database-url", NO_DATABASE]);
    expect(&away, 69, &["postgres   FAILED", "fields     + consent_for_services", "not complete"]);
    assert!(!away.text.contains("hush-4711"), "{}", away.text);
}

fn case(sex: &str, age: u8, registered: &str) -> Value {
    json!({ "module_id": "primeromodule-cp", "sex": sex, "age": age, "status": "open",
            "registration_date": registered })
}

#[test]
fn a_cell_is_explained_by_who_is_in_it_and_why_the_others_are_not() {
    let sim = primero(cases_of_today(1, 0));
    for (number, of) in [
        (1, case("female", 9, "2016-02-10")),
        (2, case("female", 10, "2016-03-31")),
        (3, case("male", 15, "2016-02-29")),
        (4, case("female", 9, "2016-04-01")),
        (5, case("male", 9, "2017-04-01")),
    ] {
        sim.patch(&id_of(number), of).unwrap();
    }
    let duplicate = json!({ "module_id": "primeromodule-cp", "status": "duplicate", "sex": "female",
        "registration_date": "2016-02-10" });
    sim.patch(&id_of(6), duplicate).unwrap();
    let mut program = Program::new().server("takeo", &sim);
    program.start();
    program.wait_until_live("takeo");
    sim.patch(&id_of(2), json!({"registration_date": "2016-03-30", "sex": "male"})).unwrap();
    program.wait_for("takeo", &sim);

    let cell = "indicator=CM-01 period=2016-Q1 instance=takeo age_group=6-11 sex=female";
    let explained = program.end(&["explain", cell]);
    let words = [
        "CM-01  New cases registered",
        "counts    cases",
        "placed    in the period of registration_date",
        "record_state is true",
        "cell        quarter from 2016-01-01, takeo, age_group 6-11, sex female",
        "figure      1 (revision 2, epoch ",
        "6 records",
        "         1  cases in it",
        "         5  cases not in it, by the first reason:",
        "             1  status is duplicate",
        "             2  registration_date is not in the period",
        "             1  other age_group",
        "             1  other sex",
        "correction: 2 → 1",
        "first load: none → 2",
        "not for publication",
    ];
    expect(&explained, 0, &words);
    let key_of = |date: &str| {
        program.query(&format!(
            "SELECT case_key FROM tonle.cases WHERE registered_month = '{date}' AND sex = 'female'"
        ))
    };
    let key = key_of("2016-02-01");
    assert!(!explained.text.contains(key.lines().next().unwrap()), "{}", explained.text);
    let with_keys = program.end(&["explain", cell, "--pseudonyms"]);
    expect(&with_keys, 0, &["pseudonyms"]);
    let keys = program.query("SELECT case_key FROM tonle.cases");
    let shown = keys.lines().filter(|key| with_keys.text.contains(key)).collect::<Vec<_>>();
    assert!(shown.len() == 1 && key.contains(shown[0]), "{shown:?} of {key}");

    let check = |cell: &str, code: i32, words: &[&str]| {
        expect(&program.end(&["explain", cell]), code, words);
    };
    check("indicator=CM-03 period=2016-Q1", 0, &["         3  cases in it", "at whose end"]);
    check("indicator=TQ-02 period=2016-Q1", 0, &["of them in the numerator", "not: "]);
    check("indicator=CM-06 period=2016-Q1", 0, &["numerator:", "denominator:"]);
    check("indicator=SV-01 period=2016-Q1", 0, &["counts    rows of", "has no row of services"]);
    check("indicator=CM-O1 period=2016-Q1", 2, &["nearest is \"CM-01\""]);
    check("indicator=CM-01 period=2016-Q1 sez=female age_group=6-11", 2, &["nearest is \"sex\""]);
    check("indicator=CM-01 period=2016-Q1 age_group=6-11 sex=femal", 2, &["nearest is \"female\""]);
    check("indicator=CM-01 period=2016-Q1 instance=take", 2, &["nearest is \"takeo\""]);
    check("indicator=CM-01", 2, &["needs a period", "quarter"]);
    check("indicator=CM-01 period=2016-Q9", 2, &["2016-Q9"]);
    check("indicator=CM-01 period=2016-Q1 sex=female status=open", 2, &["its breakdowns are"]);
    check("CM-01", 2, &["key=value"]);
    let away = program.end(&["explain", cell, "--database-url", NO_DATABASE]);
    expect(&away, 69, &["         1  cases in it", "could not be asked"]);
    assert_eq!(program.stop(), 0);
}
