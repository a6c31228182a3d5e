//! Erased records: out of the tables and of every byte of the state, and nothing brings them back.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::json;
use tonle::sim::Sim;

use super::disagree::{copy, expect, last_epoch, put_back, rows_of};
use super::keeping::files;
use super::recent;
use crate::support::program::{Ending, Program, cases_of_today, primero};

/// An option id that only the erased record has.
pub(super) const RARE: &str = "rare_ibis_status";
/// The month in which only the erased record was registered.
const MONTH: &str = "2016-02-01";
const CASES: u64 = 40;
/// Most runs until files are older than a second; each takes about one.
const RUNS_MAX: u32 = 20;

/// A record that is to be erased.
pub(super) struct Marked {
    pub(super) id: String,
    /// Its pseudonym in every form that somebody might write it in.
    pub(super) forms: Vec<Vec<u8>>,
}

/// A program that has read a server, and the record in it.
pub(super) fn marked() -> (Program, Sim, Marked) {
    let sim = primero(cases_of_today(51, CASES));
    let id = mark(&sim);
    let program = recent(Program::new(), None).server("kampot", &sim);
    program.once(0);
    let forms = forms(&program);
    (program, sim, Marked { id, forms })
}

pub(super) fn mark(sim: &Sim) -> String {
    let cases = sim.cases();
    let open = |case: &&serde_json::Value| case["record_state"] == true && case["status"] == "open";
    let id = cases.iter().find(open).unwrap()["id"].as_str().unwrap().to_owned();
    let fields = json!({ "status": RARE, "registration_date": "2016-02-10", "module_id": "primeromodule-cp" });
    sim.patch(&id, fields).unwrap();
    sim.advance(std::time::Duration::from_secs(1));
    id
}

pub(super) fn forms(program: &Program) -> Vec<Vec<u8>> {
    let key = program
        .query(&format!("SELECT case_key FROM tonle.cases WHERE registered_month = '{MONTH}'"));
    let digits = key.replace('-', "");
    let number = u128::from_str_radix(&digits, 16).unwrap_or_else(|_| panic!("one key: {key:?}"));
    let bytes = number.to_be_bytes();
    let mut reversed = bytes;
    reversed.reverse();
    let base = |text: String| text.trim_end_matches('=').to_owned().into_bytes();
    vec![
        bytes.to_vec(),
        reversed.to_vec(),
        key.into_bytes(),
        digits.clone().into_bytes(),
        digits.to_uppercase().into_bytes(),
        number.to_string().into_bytes(),
        base(STANDARD.encode(bytes)),
        base(URL_SAFE.encode(bytes)),
    ]
}

impl Marked {
    /// Which forms of the key are there.
    pub(super) fn found_in(&self, bytes: &[u8]) -> usize {
        self.forms.iter().filter(|form| holds(bytes, form)).count()
    }

    #[track_caller]
    pub(super) fn assert_gone(&self, program: &Program) {
        assert_eq!(self.found_in(&bytes_below(&program.state())), 0, "the state has its key");
        let dump = program.dump();
        assert_eq!(self.found_in(dump.as_bytes()), 0, "the tables have its key");
        assert!(
            !dump.contains(RARE) && !dump.contains(&self.id) && !program.log().contains(&self.id)
        );
        let month = format!("SELECT count(*) FROM tonle.cases WHERE registered_month = '{MONTH}'");
        assert_eq!(program.query(&month), "0");
    }
}

pub(super) fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

pub(super) fn bytes_below(directory: &Path) -> Vec<u8> {
    let files = fs::read_dir(directory).unwrap();
    // A file may go while the program runs.
    let read = files.filter_map(|entry| fs::read(entry.unwrap().path()).ok());
    read.flat_map(|bytes| [bytes, vec![0]].concat()).collect()
}

/// Runs `tonle erase` with a list on its standard input.
pub(super) fn erase(program: &Program, instance: &str, list: &str) -> Ending {
    let mut command = program.command(&["erase", "--instance", instance, "--records", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)];
    Ending { code: output.status.code().unwrap_or(-1), text: text.concat() }
}

#[test]
fn an_erased_record_leaves_every_byte_and_nothing_brings_it_back() {
    let (program, sim, marked) = marked();
    assert!(holds(&bytes_below(&program.state()), &marked.forms[0]), "the search finds the key");
    assert!(holds(&bytes_below(&program.state()), RARE.as_bytes()));
    assert!(marked.found_in(program.dump().as_bytes()) > 0);
    let before = rows_of(&program, "cases");
    copy(&program.state(), &program.path("backup"));

    expect(&erase(&program, "kampott", &marked.id), 2, &["no instance", "kampot"]);
    let odd = erase(&program, "kampot", &format!("{}\nnot-an-id\n", marked.id));
    expect(&odd, 2, &["record 2", "UUID"]);
    assert!(!odd.text.contains("not-an-id"), "{}", odd.text);
    expect(&erase(&program, "kampot", " \n"), 2, &["names none"]);
    assert_eq!(rows_of(&program, "tonle_erased"), 0, "a list with an error asks for nothing");

    let last = last_epoch(&program);
    let erased = erase(&program, "kampot", &format!("\n {} \n", marked.id.to_uppercase()));
    expect(&erased, 0, &["1 were in the tables", "will not come back"]);
    assert!(!erased.text.to_lowercase().contains(&marked.id), "{}", erased.text);
    marked.assert_gone(&program);
    assert!(!holds(&bytes_below(&program.state()), RARE.as_bytes()), "a rare option id stayed");
    assert_eq!(rows_of(&program, "cases"), before - 1);
    let told = format!("SELECT reason, cases_disabled FROM tonle.epochs WHERE epoch > {last}");
    assert_eq!(program.query(&told), "disabled|1");
    program.assert_true_to_state();

    // The server has it still, and it changes there.
    program.once(0);
    marked.assert_gone(&program);
    sim.patch(&marked.id, json!({ "sex": "male" })).unwrap();
    sim.edit(5).unwrap();
    program.once(0);
    marked.assert_gone(&program);

    // The state is read anew, or comes from a backup that does not know of it.
    fs::remove_dir_all(program.state()).unwrap();
    program.once(0);
    marked.assert_gone(&program);
    program.assert_true_to_state();
    put_back(&program, &program.path("backup"));
    program.once(0);
    marked.assert_gone(&program);
    program.assert_true_to_state();

    // The tables come from one.
    program.query("DROP SCHEMA tonle CASCADE");
    program.once(0);
    marked.assert_gone(&program);
    assert_eq!(program.query("SELECT count(*), count(done_at) FROM tonle.tonle_erased"), "2|2");
    let again = program.end(&["erase", "--instance", "kampot", "--record", &marked.id]);
    expect(&again, 0, &["0 were in the tables"]);
    program.assert_true_to_state();
}

#[test]
fn a_running_program_erases_within_seconds() {
    let (mut program, sim, marked) = marked();
    program.start();
    program.wait_for("kampot", &sim);
    let asked = erase(&program, "kampot", &marked.id);
    expect(&asked, 0, &["the running Tonle carried it out"]);
    marked.assert_gone(&program);
    sim.patch(&marked.id, json!({ "sex": "male" })).unwrap();
    sim.edit(10).unwrap();
    program.wait_for("kampot", &sim);
    marked.assert_gone(&program);
    assert_eq!(program.stop(), 0);
    program.assert_true_to_state();
    // What its option id was stays a word of the dictionary until nobody computes with it.
    expect(&program.end(&["state", "compact"]), 0, &["terms that no record has are gone"]);
    assert!(!holds(&bytes_below(&program.state()), RARE.as_bytes()));
    program.start();
    program.wait_for("kampot", &sim);
    assert_eq!(program.stop(), 0);
    marked.assert_gone(&program);
    program.assert_true_to_state();
}

#[test]
fn an_erasure_without_a_state_is_noted_and_carried_out_by_the_next_run() {
    let (program, _sim, marked) = marked();
    fs::rename(program.state(), program.path("elsewhere")).unwrap();
    expect(&erase(&program, "kampot", &marked.id), 75, &["noted", "tonle run"]);
    fs::rename(program.path("elsewhere"), program.state()).unwrap();
    let last = last_epoch(&program);
    program.once(0);
    marked.assert_gone(&program);
    let told =
        format!("SELECT count(*) FROM tonle.epochs WHERE epoch > {last} AND cases_disabled = 1");
    assert_eq!(program.query(&told), "1");
    assert_eq!(program.query("SELECT count(*) - count(done_at) FROM tonle.tonle_erased"), "0");
}

#[test]
fn replayed_files_do_not_bring_an_erased_record_back() {
    let sim = primero(cases_of_today(52, CASES));
    let id = mark(&sim);
    let mut program = recent(Program::new(), None);
    let file = program.path("cases.jsonl");
    let lines: String = sim.cases().iter().map(|case| format!("{case}\n")).collect();
    fs::write(&file, lines).unwrap();
    program.set_files("kampot", &[&file], None);
    program.once(0);
    let marked = Marked { forms: forms(&program), id };
    expect(&erase(&program, "kampot", &marked.id), 0, &["1 were in the tables"]);
    marked.assert_gone(&program);
    fs::remove_dir_all(program.state()).unwrap();
    program.once(0);
    marked.assert_gone(&program);
    program.assert_true_to_state();
}

#[test]
fn short_runs_rewrite_the_files_of_the_state_in_time_too() {
    let (program, sim, marked) = marked();
    let program = program.with("erasure_seconds = 1");
    let first = files(&program);
    // It is not there any more, and nobody asked for an erasure.
    let disabled = json!({ "record_state": false, "registration_date": "2016-03-10" });
    sim.patch(&marked.id, disabled).unwrap();
    program.once(0);
    let mut runs = 0;
    while first.iter().any(|name| is_log(name) && files(&program).contains(name)) {
        runs += 1;
        assert!(runs < RUNS_MAX, "{first:?} {:?}", files(&program));
        program.once(0);
    }
    program.assert_true_to_state();
    let last = files(&program);
    assert_eq!(last.iter().filter(|name| name.ends_with(".snap")).count(), 1, "{last:?}");
}

fn is_log(name: &str) -> bool {
    name.ends_with(".seg") || name.ends_with(".snap")
}

#[test]
fn the_files_of_the_state_are_rewritten_before_they_are_too_old() {
    let (program, sim, marked) = marked();
    let mut program = program.with("erasure_seconds = 1");
    let first = files(&program);
    program.start();
    program.wait_for("kampot", &sim);
    program.wait_until("no file is left that there was", |program| {
        files(program).iter().all(|name| !first.contains(name))
    });
    let snapshots = files(&program).iter().filter(|name| name.ends_with(".snap")).count();
    assert!(snapshots >= 1);
    program.kill();
    program.once(0);
    program.assert_true_to_state();
    assert!(marked.found_in(program.dump().as_bytes()) > 0, "nobody asked for this one");
}
