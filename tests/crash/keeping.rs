//! The commands that look after the state directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::disagree::{expect, last_epoch, written_after};
use super::restart::{dump, load, loaded};
use super::{assert_changes_are_a_chain, recent, undisturbed};
use crate::support::program::{Program, assert_same_tables, cases_of_today, primero};

/// A database where nothing listens.
const NO_DATABASE: &str = "postgres://tonle@127.0.0.1:1/none";

/// The names of the log and the snapshots.
pub(super) fn files(program: &Program) -> Vec<String> {
    let names = fs::read_dir(program.state()).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".seg") || name.ends_with(".snap"));
    names.sort();
    names
}

#[test]
fn a_state_is_shown_beside_the_program_that_writes_it() {
    let (mut program, sims) = loaded();
    let shown = program.end(&["state", "show"]);
    let last = last_epoch(&program);
    let words = [
        "pipeline   ",
        &format!("last epoch {last}"),
        &format!("epoch {last} is in Postgres"),
        "log-0000",
        ", not sealed",
        "sealed     0 of 1 files; no key_file is set; as configured",
        "erased     0 tombstones",
        "kampot: 150 records; read up to 20",
        "takeo: 100 records",
    ];
    expect(&shown, 0, &words);
    program.start();
    program.wait_for("kampot", &sims[0]);
    let document = program.end(&["state", "show", "--format", "json"]);
    assert_eq!(document.code, 0, "{}", document.text);
    assert_eq!(program.stop(), 0);
    let line = document.text.lines().find(|line| line.starts_with('{')).unwrap();
    let document: Value = serde_json::from_str(line).unwrap();
    assert_eq!(document["tables_are_of_this_state"], true);
    assert_eq!(document["instances"][0]["name"], "kampot");
    assert_eq!(document["instances"][0]["records"], 150);
    assert_eq!(document["instances"][0]["first_load_done"], true);
    assert!(document["last_epoch"].as_u64() >= document["committed_epoch"].as_u64());
    assert!(document["segments"][0]["bytes"].as_u64() > Some(100));
    assert_eq!(document["segments"][0]["sealed"], false);
    assert_eq!(document["segments"][0]["key"], Value::Null);
    assert_eq!((&document["seals"], &document["files_sealed"]), (&false.into(), &0.into()));
    assert_eq!(document["files_not_sealed_as_configured"], 0);
    let away = program.end(&["state", "show", "--database-url", NO_DATABASE]);
    expect(&away, 0, &["Postgres could not be asked", "kampot: 150 records"]);
    fs::remove_dir_all(program.state()).unwrap();
    expect(&program.end(&["state", "show"]), 2, &["no state directory"]);
    assert!(!program.state().exists());
}

/// Two keys.
const KEYS: [&str; 2] = [
    "0101010101010101010101010101010101010101010101010101010101010101",
    "0202020202020202020202020202020202020202020202020202020202020202",
];

/// The beginning of the check of the first one.
const CHECK: &str = "614eb96e";

fn shown_as_json(program: &Program) -> Value {
    let shown = program.end(&["state", "show", "--format", "json"]);
    assert_eq!(shown.code, 0, "{}", shown.text);
    let line = shown.text.lines().find(|line| line.starts_with('{')).unwrap();
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_state_shows_which_files_are_sealed_and_with_which_key() {
    let sim = primero(cases_of_today(36, 20));
    let mut program = recent(Program::new(), None).server("kampot", &sim);
    for (name, key) in ["one.key", "two.key"].into_iter().zip(KEYS) {
        program.write_secret(name, key);
    }
    program.once(0);
    let plain = files(&program);
    let log = format!("{}: from epoch 1,", plain[0]);
    let row = |program: &Program, words: &[&str]| {
        let shown = program.end(&["state", "show"]);
        expect(&shown, 0, words);
        for key in KEYS {
            assert!(!shown.text.contains(key), "{}", shown.text);
        }
    };
    // What is on disk stays as it was until something is written.
    program.set("state = { key_file = \"one.key\" }");
    let not_yet = "sealed     0 of 1 files; key_file is set; 1 not as configured";
    row(&program, &[&log, ", not sealed", not_yet]);
    sim.edit(3).unwrap();
    program.once(0);
    let mixed = shown_as_json(&program);
    let all = |document: &Value| -> Vec<Value> {
        let [segments, snapshots] =
            ["segments", "snapshots"].map(|kind| document[kind].as_array().unwrap().clone());
        [segments, snapshots].concat()
    };
    let of = |document: &Value, key: &str| -> usize {
        all(document).iter().filter(|file| file["key"] == key).count()
    };
    let sealed = of(&mixed, "current");
    assert!(sealed > 0, "{mixed}");
    assert_eq!(mixed["files_sealed"], sealed);
    assert_eq!(mixed["files_not_sealed_as_configured"], all(&mixed).len() - sealed);
    assert_eq!(mixed["seals"], true);
    for file in all(&mixed).iter().filter(|file| file["sealed"] == true) {
        assert_eq!(file["key_check"], CHECK);
    }
    // One key gives way to the other; one that is needed no more for what is written still seals.
    expect(&program.end(&["state", "compact"]), 0, &[]);
    row(&program, &["sealed with the key of key_file, check 614eb96e", "1 of 1 files"]);
    row(&program, &["; key_file is set; as configured"]);
    let before = "previous_key_files = [\"one.key\"]";
    program.set(&format!("state = {{ key_file = \"two.key\", {before} }}"));
    let previous = "sealed with a key of previous_key_files, check 614eb96e";
    row(&program, &[previous, "1 of 1 files; key_file is set; 1 not as configured"]);
    let document = shown_as_json(&program);
    assert_eq!((of(&document, "previous"), of(&document, "current")), (1, 0), "{document}");
    program.set(&format!("state = {{ {before} }}"));
    row(&program, &[previous, "1 of 1 files; no key_file is set; 1 not as configured"]);
    program.set("state = {}");
    expect(&program.end(&["state", "show"]), 2, &["it is sealed, and there is no key"]);
}

#[test]
fn a_compacted_state_is_one_snapshot_and_goes_on() {
    let (mut program, sims) = loaded();
    let older = dump(&program);
    sims[0].edit(10).unwrap();
    program.once(0);
    program.start();
    program.wait_until_live("kampot");
    expect(&program.end(&["state", "compact"]), 75, &["another running program uses it"]);
    assert_eq!(program.stop(), 0);
    let away = program.end(&["state", "compact", "--database-url", NO_DATABASE]);
    expect(&away, 69, &["Postgres"]);
    let before = program.tables();
    expect(&program.end(&["state", "compact"]), 0, &["records in one snapshot"]);
    let left = files(&program);
    assert!(left.len() == 1 && left[0].starts_with("snapshot-"), "{left:?}");
    expect(&program.end(&["state", "compact"]), 0, &["records in one snapshot", " 0 terms"]);
    program.assert_true_to_state();
    sims[0].edit(10).unwrap();
    program.once(0);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_changes_are_a_chain(&program);

    // The tables go back to where the state does not: it knows all the same what they should hold.
    expect(&program.end(&["state", "compact"]), 0, &[]);
    let after = program.tables();
    program.query("DROP SCHEMA tonle CASCADE");
    load(&program, &older);
    let last = last_epoch(&program);
    sims.iter()
        .for_each(|sim| sim.faults().next("/api/v2/cases", 1_000, tonle::sim::Fault::Broken));
    program.start();
    program.wait_until("they are compared although no instance answers", |program| {
        program.log().contains("does not go back so far")
            && program.log().contains("reconciled the tables")
    });
    program.kill();
    assert_same_tables(&program.tables(), &after);
    assert!(written_after(&program, &last).starts_with("1|"));
    sims.iter().for_each(|sim| sim.faults().clear());
    program.once(0);
    program.assert_true_to_state();
    assert_changes_are_a_chain(&program);
    drop(before);
}

#[test]
fn an_export_taken_beside_a_running_program_can_be_put_back() {
    let (mut program, sims) = loaded();
    let file = program.path("kept.tonle");
    let path = file.to_str().unwrap().to_owned();
    program.start();
    program.wait_for("kampot", &sims[0]);
    for _ in 0..3 {
        sims[0].edit(3).unwrap();
        let _ = fs::remove_file(&file);
        expect(&program.end(&["state", "export", &path]), 0, &["250 records"]);
    }
    expect(&program.end(&["state", "export", &path]), 2, &["there is such a file"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    program.wait_for("kampot", &sims[0]);
    let busy = program.end(&["state", "import", &path]);
    expect(&busy, 75, &["another running program uses it"]);
    assert_eq!(program.stop(), 0);
    expect(&program.end(&["state", "import", &path]), 2, &["is not empty"]);

    fs::remove_dir_all(program.state()).unwrap();
    let whole = fs::read(&file).unwrap();
    let damaged = program.path("damaged.tonle");
    let refused = |program: &Program, bytes: &[u8], words: &[&str]| {
        fs::write(&damaged, bytes).unwrap();
        expect(&program.end(&["state", "import", damaged.to_str().unwrap()]), 65, words);
        assert_eq!(files(program), Vec::<String>::new());
        let left = fs::read_dir(program.path("")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains("unpacked")), "{left:?}");
    };
    for at in [0, 9, 13, 40, whole.len() / 2, whole.len() - 3] {
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        refused(&program, &flipped, &["damaged.tonle"]);
    }
    refused(&program, &whole[..whole.len() / 2], &["ends too soon", "another export"]);
    refused(&program, b"", &["ends too soon"]);
    program.write_secret("pseudonym.key", "another key, with more than enough bytes");
    expect(&program.end(&["state", "import", &path]), 2, &["another pseudonym key"]);
    program.write_secret("pseudonym.key", crate::support::program::PSEUDONYM_KEY);
    assert_eq!(files(&program), Vec::<String>::new());

    fs::write(program.state().join("README.md"), "what the repository puts there").unwrap();
    expect(&program.end(&["state", "import", &path]), 0, &["imported 250 records"]);
    assert!(program.state().join("README.md").exists());
    assert_eq!(fs::metadata(program.state()).unwrap().permissions().mode() & 0o777, 0o700);
    let before = program.tables();
    program.once(0);
    program.assert_true_to_state();
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_same_tables(&program.tables(), &before);
    assert_changes_are_a_chain(&program);
}
