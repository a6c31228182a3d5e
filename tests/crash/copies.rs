//! Two copies of the program, and a program that is asked to end.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

use super::restart::{dump, loaded};
use super::{Editor, Seed, assert_changes_are_a_chain, recent, undisturbed};
use crate::support::program::{Program, assert_same_tables, cases_of_today, primero};

/// Longest time that a refused start and a polite end take.
const AT_ONCE: Duration = Duration::from_secs(5);
/// How often the program is asked to end.
const STOPS: usize = 6;

#[test]
fn a_second_copy_on_the_same_state_ends_at_once() {
    let (mut program, sims) = loaded();
    program.start();
    program.wait_for("kampot", &sims[0]);
    let begun = Instant::now();
    let ending = program.end(&["run"]);
    assert!(begun.elapsed() < AT_ONCE);
    assert_eq!(ending.code, 75, "{}", ending.text);
    assert!(ending.text.contains("another running program uses it"), "{}", ending.text);
    // The first one did not notice.
    sims[0].edit(5).unwrap();
    program.wait_for("kampot", &sims[0]);
    assert_eq!(program.stop(), 0);
    program.assert_true_to_state();
}

#[test]
fn a_copy_that_was_paused_while_another_took_over_writes_nothing() {
    let (mut first, sims) = loaded();
    first.start();
    first.wait_for("kampot", &sims[0]);
    first.signal(Signal::STOP);
    let mut second = first.beside().server("kampot", &sims[0]).server("takeo", &sims[1]);
    sims[0].edit(10).unwrap();
    second.start();
    second.wait_for("kampot", &sims[0]);
    second.wait_until("the second copy has compared the tables", |second| {
        second.log().contains("reconciled the tables")
    });
    assert_eq!(second.stop(), 0);
    second.assert_true_to_state();
    let before = dump(&second);
    sims[0].edit(10).unwrap();
    first.signal(Signal::CONT);
    assert_eq!(first.wait_for_end(), 2);
    let log = first.last_of_log();
    assert!(log.contains("two copies of tonle write to this schema"), "{log}");
    assert!(dump(&second) == before, "the first copy wrote something");
    second.once(0);
    second.assert_true_to_state();
    assert_same_tables(&second.tables(), &undisturbed(&second, &sims).tables());
    assert_changes_are_a_chain(&second);
}

#[test]
fn a_copy_that_was_replaced_ends_although_nothing_changes() {
    let (mut first, sims) = loaded();
    first.start();
    first.wait_for("kampot", &sims[0]);
    let second = first.beside().server("kampot", &sims[0]).server("takeo", &sims[1]);
    second.once(0);
    assert_eq!(first.wait_for_end(), 2);
    assert!(first.last_of_log().contains("two copies"), "{}", first.last_of_log());
    // The state of the first one is older than the tables now, and comes from elsewhere.
    first.once(0);
    first.assert_true_to_state();
    assert_same_tables(&first.tables(), &undisturbed(&first, &sims).tables());
}

#[test]
fn a_program_that_is_asked_to_end_says_how_far_it_came() {
    let seed = Seed::drawn();
    let mut rng = ChaCha8Rng::seed_from_u64(seed.0);
    let sims = [primero(cases_of_today(seed.0, 300)), primero(cases_of_today(seed.0 + 1, 100))];
    let mut program = recent(Program::new(), None)
        .server_with("kampot", &sims[0], "page_size = 10")
        .server_with("takeo", &sims[1], "page_size = 10");
    let editor = Editor::start(&sims);
    for stop in 1..=STOPS {
        program.start();
        program.wait_until("it has started", |program| {
            program.log().matches(" started ").count() >= stop
        });
        std::thread::sleep(Duration::from_millis(rng.random_range(0..600)));
        let begun = Instant::now();
        let (code, log) = (program.stop(), program.last_of_log());
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        let said = log.lines().last().unwrap_or_default();
        match code {
            0 => assert!(said.contains("stopped epoch="), "{log}"),
            75 => assert!(said.contains("error: ending: "), "{log}"),
            _ => panic!("code {code}\n{log}"),
        }
    }
    editor.stop();
    program.once(0);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_changes_are_a_chain(&program);
}
