//! What goes wrong on the way costs time and nothing else: no record is lost, no row removed that should stay.

use std::time::Duration;

use serde_json::Value;
use tonle::sim::{Fault, Settings, Sim};

use crate::path::{assert_as_undisturbed, assert_changes_are_a_chain};
use crate::support::postgres;
use crate::support::program::{Program, assert_same_tables, cases_of_today, primero};
use crate::support::replay::recording;

/// Path of the lists of cases.
const CASES: &str = "/api/v2/cases";

/// Small pages, so that a load takes many requests; a server may be silent for a second.
const MANY_PAGES: &str = "page_size = 12\ntimeout_seconds = 1";

/// Longer than the client waits.
const TOO_LONG: Duration = Duration::from_secs(5);

/// Every way to fail that passes.
const PASSING: &[Fault] = &[
    Fault::Broken,
    Fault::TooManyRequests { retry_after_s: Some(1) },
    Fault::TooManyRequests { retry_after_s: None },
    Fault::Unavailable { retry_after_s: Some(1) },
    Fault::Unavailable { retry_after_s: None },
    Fault::Hang(TOO_LONG),
    Fault::CutBody,
    Fault::NotJson,
    Fault::OddShape,
    Fault::FalseEmpty,
];

/// Orders one of each after a proper reply to each request that leads on.
fn order_all(sim: &Sim, path: &str, between: u64) {
    for fault in PASSING {
        sim.faults().after(path, between, 1, fault.clone());
    }
}

#[test]
fn a_load_through_every_fault_loses_nothing() {
    let kampot = primero(cases_of_today(21, 150));
    order_all(&kampot, CASES, 1);
    for path in ["/api/v2/locations", "/api/v2/lookups", "/api/v2/forms"] {
        kampot.faults().next(path, 1, Fault::Broken);
        kampot.faults().next(path, 1, Fault::CutBody);
    }
    let program = Program::reproducible().server_with("kampot", &kampot, MANY_PAGES);
    let ending = program.once(0);
    // Labels are not worth a second attempt within one run.
    let served = kampot.requests().faults;
    assert!(served >= PASSING.len() as u64 + 3, "only {served} faults came: {}", ending.text);
    let rest = kampot.faults();
    assert!(rest.waiting() <= 3, "{} faults were not met: {}", rest.waiting(), ending.text);
    program.assert_true_to_state();
    rest.clear();
    assert_as_undisturbed(&program, &[("kampot", &kampot)]);
}

#[test]
fn a_second_of_many_pages_loses_no_case_although_equal_stamps_have_no_order() {
    let lines = std::fs::read_to_string(recording("cases.ndjson")).unwrap();
    let one_second = lines.lines().map(|line| {
        let mut case: Value = serde_json::from_str(line).unwrap();
        case["last_updated_at"] = "2026-05-01T00:00:00.000Z".into();
        format!("{case}\n")
    });
    let whole = Program::reproducible();
    let file = whole.path("cases.ndjson");
    std::fs::write(&file, one_second.collect::<String>()).unwrap();
    let kampot = primero(Settings { from: Some(file), ..Settings::default() });
    let paged = whole.elsewhere().server_with("kampot", &kampot, MANY_PAGES);
    let whole = whole.server("kampot", &kampot);
    for program in [&paged, &whole] {
        program.once(0);
    }
    assert_same_tables(&paged.tables(), &whole.tables());
    assert_eq!(paged.query("SELECT cases_known FROM tonle.sync_status"), "317");
}

#[test]
fn live_edits_through_every_fault_lose_nothing() {
    let kampot = primero(cases_of_today(22, 60));
    let mut program = Program::reproducible().server_with("kampot", &kampot, MANY_PAGES);
    program.start();
    program.wait_until_live("kampot");
    order_all(&kampot, CASES, 1);
    kampot.edit(60).unwrap();
    program.wait_until("every fault was met", |_| {
        kampot.edit(1).unwrap();
        kampot.faults().waiting() == 0
    });
    program.wait_for("kampot", &kampot);
    program.assert_true_to_state();
    assert_eq!(program.stop(), 0, "{}", program.log());
    assert_changes_are_a_chain(&program);
    assert_as_undisturbed(&program, &[("kampot", &kampot)]);
}

#[test]
fn while_a_server_says_it_is_empty_no_row_leaves() {
    let kampot = primero(cases_of_today(23, 80));
    let mut program = Program::reproducible().server("kampot", &kampot);
    program.once(0);
    let (tables, epochs) = (program.tables(), program.query("TABLE tonle.epochs"));
    kampot.faults().at_rate(CASES, 1_000, Fault::FalseEmpty, 1);
    program.start();
    kampot.edit(20).unwrap();
    let doubted = "SELECT last_error LIKE '%empty page although%' FROM tonle.sync_status";
    program.wait_until("the emptiness is doubted", |program| {
        kampot.requests().faults >= 4 && program.query(doubted) == "t"
    });
    assert_eq!(program.tables(), tables);
    assert_eq!(program.query("TABLE tonle.epochs"), epochs);
    kampot.faults().clear();
    program.wait_for("kampot", &kampot);
    assert_eq!(program.stop(), 0, "{}", program.log());
    program.assert_true_to_state();
    assert_as_undisturbed(&program, &[("kampot", &kampot)]);
}

#[test]
fn a_refused_password_is_sent_once_and_stops_that_server_only() {
    let (kampot, takeo) = (primero(cases_of_today(24, 50)), primero(cases_of_today(25, 50)));
    kampot.set_password("changed this morning");
    let mut program = Program::reproducible().server("kampot", &kampot).server("takeo", &takeo);
    let ending = program.once(77);
    assert!(ending.text.contains("does not know this user and password"), "{}", ending.text);
    let said = "SELECT state, last_error LIKE '%401%' FROM tonle.sync_status
                 WHERE instance = 'kampot'";
    assert_eq!(program.query(said), "failing|t");
    assert_eq!((kampot.requests().refused, kampot.requests().total), (1, 1));
    let takeo_values = "SELECT count(*) > 100 FROM tonle.indicator_values WHERE instance = 'takeo'";
    assert_eq!(program.query(takeo_values), "t");

    program.start();
    program.wait_until_live("takeo");
    for _ in 0..2 {
        takeo.edit(10).unwrap();
        program.wait_for("takeo", &takeo);
    }
    assert_eq!((kampot.requests().refused, kampot.requests().total), (2, 2));
    assert_eq!(program.query(said), "failing|t");
    program.assert_true_to_state();
    assert_eq!(program.stop(), 0, "{}", program.log());
    kampot.set_password(&tonle::sim::Settings::default().password);
    program.once(0);
    assert_as_undisturbed(&program, &[("kampot", &kampot), ("takeo", &takeo)]);
}

#[test]
fn a_password_that_is_refused_later_removes_nothing() {
    let kampot = primero(cases_of_today(26, 60));
    let mut program = Program::new().server("kampot", &kampot);
    program.start();
    program.wait_until_live("kampot");
    let tables = program.tables();
    kampot.set_password("changed this morning");
    // Nothing is left to follow.
    assert_eq!(program.wait_for_end(), 77, "{}", program.log());
    assert_eq!(kampot.requests().refused, 1);
    assert_eq!(program.tables(), tables);
    let said = "SELECT state, last_error LIKE '%401%' FROM tonle.sync_status";
    assert_eq!(program.query(said), "failing|t");
    program.assert_true_to_state();
}

#[test]
fn postgres_may_go_and_come_back() {
    let kampot = primero(cases_of_today(27, 100));
    let mut program = Program::with_own_postgres(postgres::private())
        .without_first_sight()
        .server("kampot", &kampot);
    program.start();
    program.wait_until_live("kampot");
    for crash in [false, true] {
        let cluster = program.postgres();
        if crash { cluster.kill() } else { cluster.stop() }.unwrap();
        kampot.edit(30).unwrap();
        let waits =
            |program: &Program| program.log().matches("failed to write to postgres").count();
        let before = waits(&program);
        program.wait_until("a write failed", |program| waits(program) > before);
        kampot.edit(30).unwrap();
        program.postgres().restart().unwrap();
        program.wait_for("kampot", &kampot);
        program.assert_true_to_state();
    }
    assert_eq!(program.stop(), 0, "{}", program.log());
    assert_changes_are_a_chain(&program);
    assert_as_undisturbed(&program, &[("kampot", &kampot)]);
}

#[test]
fn a_stop_while_postgres_is_away_says_so_and_the_next_start_goes_on() {
    let kampot = primero(cases_of_today(28, 60));
    let mut program = Program::with_own_postgres(postgres::private())
        .without_first_sight()
        .server("kampot", &kampot);
    program.start();
    program.wait_until_live("kampot");
    program.postgres().stop().unwrap();
    kampot.edit(20).unwrap();
    program.wait_until("a write failed", |program| {
        program.log().contains("failed to write to postgres")
    });
    assert_eq!(program.stop(), 75, "{}", program.log());
    program.postgres().restart().unwrap();
    program.once(0);
    program.assert_true_to_state();
    assert_as_undisturbed(&program, &[("kampot", &kampot)]);
}
