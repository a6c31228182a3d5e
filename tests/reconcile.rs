//! `tonle reconcile`: the real program beside a server that computes Primero's own reports.

use serde_json::json;
use tonle::sim::{Fault, ReportAccess, Settings, Sim};

use crate::support::program::{Ending, Program, WAIT_MAX, primero};
use crate::support::replay::recording;

/// A file of the state that holds a page of cases is longer than this, in bytes.
const PAGE_BYTES_MIN: u64 = 4_000;

/// A server of this version with the 317 recorded cases, 10 of them disabled.
fn server(version: &str) -> Sim {
    let from = Some(recording("cases.ndjson"));
    primero(Settings { from, primero_version: version.to_owned(), ..Settings::default() })
}

/// A program that reads what the parity pack asks for.
fn program(sim: &Sim) -> Program {
    Program::new().with("packs = [\"primero-parity\"]").server("kampot", sim)
}

/// Runs the command and expects its exit code.
#[track_caller]
fn reconcile(program: &Program, arguments: &[&str], code: i32) -> Ending {
    let ending = program.end(&[&["reconcile"], arguments].concat());
    assert_eq!(ending.code, code, "{}", ending.text);
    ending
}

/// The line of a report and cell: our figure, Primero's, the verdict.
#[track_caller]
fn line(ending: &Ending, report: &str, cell: &str) -> (String, String, String) {
    let head = format!("{:<12} {report:<24} {cell:<26} ", "kampot");
    let found = ending.text.lines().find_map(|line| line.strip_prefix(&head));
    let mut words = found.expect(&ending.text).split_whitespace();
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (ours, theirs) = (word(), word());
    (ours, theirs, words.collect::<Vec<_>>().join(" "))
}

#[track_caller]
fn check(ending: &Ending, report: &str, cell: &str, expected: (&str, &str, &str)) {
    let (ours, theirs, verdict) = line(ending, report, cell);
    assert_eq!((ours.as_str(), theirs.as_str(), verdict.as_str()), expected, "{}", ending.text);
}

const DISABLED: &str = "different: disabled cases counted";
const SCOPE: &str = "different: scope: the report counts cases that the user cannot see";

#[test]
fn disabled_cases_are_why_an_older_version_differs() {
    let sim = server("2.14.0");
    let program = program(&sim);
    program.once(0);
    let ending = reconcile(&program, &[], 65);
    check(&ending, "records", "enabled", ("307", "307", "equal"));
    check(&ending, "records", "disabled", ("10", "10", "equal"));
    for report in ["workflow", "concerns", "locations"] {
        check(&ending, report, "all, all", ("307", "317", DISABLED));
    }
    let (_, theirs, verdict) = line(&ending, "followups", "all, all");
    assert_eq!((theirs.as_str(), verdict.as_str()), ("346", DISABLED));
    assert!(
        ending.text.contains("0 different and not explained, 0 not compared"),
        "{}",
        ending.text
    );
    assert!(ending.text.contains("all for known reasons"), "{}", ending.text);
    reconcile(&program, &["--accept-explained"], 0);
}

#[test]
fn a_later_version_is_equal_now_and_by_month_and_a_planted_difference_is_found() {
    let sim = server("2.14.1");
    let program = program(&sim);
    program.once(0);
    let ending = reconcile(&program, &[], 0);
    check(&ending, "workflow", "all, all", ("307", "307", "equal"));
    assert!(ending.text.contains(" concerns "), "one concern is compared: {}", ending.text);
    let ending = reconcile(&program, &["--from", "2026-01-01", "--to", "2026-06-30"], 0);
    let (ours, theirs, verdict) = line(&ending, "services", "all, all");
    assert!(ours == theirs && ours != "0" && verdict == "equal", "{}", ending.text);
    let wrong = reconcile(&program, &["--from", "2026-01-02", "--to", "2026-06-30"], 2);
    assert!(wrong.text.contains("whole months"), "{}", wrong.text);
    let wrong = reconcile(&program, &["--instance", "takeo"], 2);
    assert!(wrong.text.contains("takeo"), "{}", wrong.text);

    let cases = sim.cases();
    let girl = cases.iter().find(|case| case["sex"] == "female" && case["record_state"] == true);
    sim.patch(girl.unwrap()["id"].as_str().unwrap(), json!({"sex": "male"})).unwrap();
    let ending = reconcile(&program, &["--accept-explained"], 65);
    let (ours, theirs, verdict) = line(&ending, "workflow", "female, all");
    assert_eq!(ours.parse::<i64>().unwrap(), theirs.parse::<i64>().unwrap() + 1);
    assert_eq!(verdict, "different: not explained");
    check(&ending, "workflow", "all, all", ("307", "307", "equal"));
    reconcile(&program, &["--fresh"], 0);
}

#[test]
fn what_the_user_cannot_see_is_told_apart_and_so_is_a_lacking_right() {
    let sim = server("2.14.1");
    let cases = sim.cases();
    let enabled = cases.iter().filter(|case| case["record_state"] == true);
    for case in enabled.take(3) {
        sim.set_scope(case["id"].as_str().unwrap(), false);
    }
    let program = program(&sim);
    program.once(0);
    let ending = reconcile(&program, &[], 65);
    check(&ending, "records", "enabled", ("304", "304", "equal"));
    check(&ending, "workflow", "all, all", ("304", "307", SCOPE));
    assert!(ending.text.contains("0 different and not explained"), "{}", ending.text);

    sim.set_report_access(ReportAccess::InScope);
    reconcile(&program, &[], 0);

    sim.set_report_access(ReportAccess::Forbidden);
    let ending = reconcile(&program, &[], 69);
    let (ours, theirs, verdict) = line(&ending, "services", "all cells");
    assert_eq!((ours.as_str(), theirs.as_str()), ("-", "-"));
    assert!(verdict.starts_with("could not compare: "), "{verdict}");
    assert!(verdict.contains("403") && verdict.contains("managed reports"), "{verdict}");
    check(&ending, "records", "enabled", ("304", "304", "equal"));
}

#[test]
fn an_instance_that_was_not_read_completely_is_not_compared() {
    let sim = server("2.14.1");
    let mut program =
        Program::new().with("packs = [\"primero-parity\"]").server_with("kampot", &sim, "page_size = 100");
    sim.faults().after("/api/v2/cases", 1, 10, Fault::Hang(WAIT_MAX));
    program.start();
    program.wait_until("a part of the cases is in the log", |program| {
        let files = std::fs::read_dir(program.state()).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).any(|file| file.len() > PAGE_BYTES_MIN)
    });
    program.kill();
    sim.faults().clear();
    let ending = reconcile(&program, &[], 69);
    let (ours, _, verdict) = line(&ending, "workflow", "all cells");
    assert_eq!(ours, "-", "{}", ending.text);
    assert_eq!(verdict, "could not compare: this instance was not read completely yet");
    program.once(0);
    reconcile(&program, &[], 0);
}

#[test]
fn a_field_that_is_not_read_is_named_and_a_fresh_reading_does_without_the_state() {
    let sim = server("2.14.1");
    let mut program = Program::new().server("kampot", &sim);
    let pack = "[pack]\nid = \"small\"\nversion = \"1.0.0\"\ntitle = { en = \"Small\" }\n\
                [fields]\nrecord_state = \"boolean\"\n\
                sex = { type = \"option\", values = [\"male\", \"female\"] }\nage = \"integer\"\n\
                [populations.enabled]\nrecord_state = true\n\
                [dimensions.sex]\nfrom = \"sex\"\n[indicators.X]\ntitle = { en = \"X\" }\ncount = \"cases\"\n\
                population = \"enabled\"\nplaced = \"now\"\ntables = [[\"sex\"]]\n";
    std::fs::write(program.path("small.toml"), pack).unwrap();
    program.set("packs = [\"small.toml\"]");
    let unread = reconcile(&program, &[], 2);
    assert!(unread.text.contains("there is no state directory"), "{}", unread.text);
    reconcile(&program, &["--fresh"], 0);
    program.once(0);
    let ending = reconcile(&program, &[], 69);
    check(&ending, "workflow", "all, all", ("307", "307", "equal"));
    let (.., verdict) = line(&ending, "services", "all cells");
    let expected = "could not compare: field services_section is not read; \
                    add pack primero-parity, or use --fresh";
    assert_eq!(verdict, expected);
}
