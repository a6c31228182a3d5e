//! Canaries: every identifying value is marked, the program is run through good and bad days at its most
//! talkative, and then nothing that it wrote anywhere holds a mark.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tonle::config::{Config, Overrides};
use tonle::indicator::schema_of;
use tonle::model::{Domain, Epoch};
use tonle::sim::{EditKind, Fault, Settings, Sim};
use tonle::state::{SnapshotContent, State};

use crate::support::gate::{Gate, Quote};
use crate::support::program::{PSEUDONYM_KEY, Program, cases_of_today, primero};

/// What every canary begins with; nothing else does.
const MARK: &str = "canary";

/// An option id that no lookup has. It is no identifying value: the dictionary keeps it, so it shows that
/// the search finds what is there.
const PLANTED: &str = "planted_heron_status";

/// The instance's time zone and name stand in the configuration, so these are no secrets.
const INSTANCE: &str = "kampot";

/// Reads the month of birth and the case workers too, so that full dates of birth and user names come into the
/// program, and incidents.
const OVERLAY: &str = r#"
[pack]
id = "births"
version = "1"
[fields]
date_of_birth = "birth_month"
record_type = { type = "option", values = ["case", "incident"] }
incident_date = "date"
owned_by = "worker"
created_by = "worker"
owned_by_agency_id = "agency"
followup_due_dates = "dates"
[subforms.notes_section]
note_created_by = "worker"
"#;

/// The file that the state is exported to.
const EXPORT: &str = "kept.tonle";

/// Everything that must not be found.
struct Forbidden {
    /// Texts in lower case, by length: a window of that length is looked up.
    texts: BTreeMap<usize, HashSet<Vec<u8>>>,
}

impl Forbidden {
    fn of(sim: &Sim) -> Self {
        let mut forbidden = Self { texts: BTreeMap::new() };
        for canary in sim.canaries() {
            let lower = canary.to_lowercase();
            if lower.starts_with(MARK) {
                continue; // Found by the mark.
            }
            forbidden.add_id(&lower);
        }
        for case in sim.cases() {
            if let Some(born) = full_birth(&case) {
                forbidden.add(&born);
            }
        }
        let password = Settings::default().password;
        forbidden.add(&password);
        forbidden.add(&base64(&format!("api_reader:{password}")));
        forbidden.add(PSEUDONYM_KEY);
        forbidden.add(MARK);
        forbidden
    }

    fn add(&mut self, text: &str) {
        let text = text.to_lowercase().into_bytes();
        self.texts.entry(text.len()).or_default().insert(text);
    }

    /// A record id, as text with and without dashes.
    fn add_id(&mut self, id: &str) {
        self.add(id);
        let digits = id.replace('-', "");
        if digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            self.add(&digits);
            self.add(&format!("{:?}", u128::from_str_radix(&digits, 16).unwrap()));
        }
    }

    fn count(&self) -> usize {
        self.texts.values().map(HashSet::len).sum()
    }

    /// The forbidden texts in `bytes`, whatever their case.
    fn found_in(&self, bytes: &[u8]) -> BTreeSet<String> {
        let lower = bytes.to_ascii_lowercase();
        let mut found = BTreeSet::new();
        for (length, texts) in &self.texts {
            let windows = lower.windows(*length).filter(|window| texts.contains(*window));
            found.extend(windows.map(|window| String::from_utf8_lossy(window).into_owned()));
        }
        found
    }

    #[track_caller]
    fn assert_none(&self, place: &str, bytes: &[u8]) {
        assert!(!bytes.is_empty(), "{place} is empty: the search would prove nothing");
        let found = self.found_in(bytes);
        assert!(found.is_empty(), "{place} holds {found:?}");
    }
}

fn is_hex(c: char) -> bool {
    matches!(c, '0'..='9' | 'a'..='f')
}

fn base64(text: &str) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(text)
}

/// A date of birth that cannot be taken for a month's first day or for a day of this test.
fn full_birth(case: &Value) -> Option<String> {
    let born = case["date_of_birth"].as_str()?.get(..10)?;
    (!born.ends_with("-01") && born < "2024").then(|| born.to_owned())
}

/// A command that says as much as it can be made to.
fn talkative(program: &Program, arguments: &[&str]) -> Command {
    let mut command = program.command(arguments);
    command.env("RUST_LOG", "trace").env("TONLE_LOG", "debug").env("RUST_BACKTRACE", "full");
    command
}

fn start(program: &mut Program) {
    let command = talkative(program, &["run"]);
    program.spawn(command);
}

/// What a command says, with its exit code.
#[track_caller]
fn said(program: &Program, arguments: &[&str], code: i32) -> String {
    let output = talkative(program, arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text
}

/// All bytes below a directory, each file with its name in front. Only its owner may read any of them.
fn bytes_below(directory: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(directory), 0, "others may enter {}", directory.display());
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        all.extend(path.file_name().unwrap().as_encoded_bytes());
        if path.is_dir() {
            all.extend(bytes_below(&path));
        } else {
            assert_eq!(mode(&path), 0, "others may read {}", path.display());
            all.extend(fs::read(&path).unwrap());
        }
    }
    all
}

/// Writes a snapshot of a stopped program's state, as the program does when its log has grown. Returns what
/// the state calls the case workers.
fn write_snapshot(program: &Program) -> Vec<String> {
    let overrides = Overrides { workers: None, database_url: Some(program.url()) };
    let config = Config::read(&program.path("tonle.toml"), &overrides).unwrap();
    let epoch = program.query("SELECT epoch FROM tonle.tonle_pipeline").parse().unwrap();
    let mut state = State::open(&config.state).unwrap();
    let restored = state.restore(Some(Epoch(epoch)), &schema_of(&config.definition)).unwrap();
    let entries = restored.dictionary.entries_from(0).into_iter();
    let workers = entries.filter(|entry| entry.domain == Domain::Worker).map(|entry| entry.term);
    let workers = workers.collect();
    state.snapshot(SnapshotContent::from(restored)).unwrap();
    drop(state); // Waits for it.
    let names = fs::read_dir(program.state()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    let is_snapshot = |name: &std::ffi::OsString| name.to_string_lossy().contains("snapshot");
    assert!(names.iter().any(is_snapshot), "{names:?}");
    workers
}

/// Edits of every kind, one of which is the planted status.
fn live(sim: &Sim) {
    let edits = sim.edit(120).unwrap();
    let kinds: HashSet<EditKind> = edits.iter().map(|edit| edit.kind).collect();
    assert!(kinds.len() > 3, "{kinds:?}");
    let case = sim.cases().swap_remove(7);
    sim.patch(case["id"].as_str().unwrap(), json!({ "status": PLANTED })).unwrap();
}

/// Every fault that can quote a record, each followed by a good answer.
fn faults(program: &mut Program, gate: &Gate, sim: &Sim) {
    for quote in [Quote::Status(500), Quote::NotJson, Quote::OddShape] {
        sim.edit(5).unwrap();
        gate.quote(&[quote]);
        program.wait_until("the fault was met", |_| gate.waiting() == 0);
        program.wait_for(INSTANCE, sim);
    }
    assert!(gate.quoted_bytes() > 1_000, "the faults quoted nothing");
    for fault in [Fault::Broken, Fault::CutBody, Fault::NotJson] {
        sim.edit(5).unwrap();
        sim.faults().next("/api/v2/cases", 1, fault);
        program.wait_for(INSTANCE, sim);
    }
}

/// Connections that break, and rows that Postgres refuses and quotes.
fn postgres_errors(program: &mut Program, sim: &Sim) {
    sim.edit(5).unwrap();
    program.query(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    program.wait_for(INSTANCE, sim);
    program.query("ALTER TABLE tonle.cases ADD CONSTRAINT odd CHECK (false) NOT VALID");
    let cases = sim.cases();
    let case = cases.iter().find(|case| case["sex"] == "male" && case["record_state"] == true);
    let id = case.and_then(|case| case["id"].as_str()).unwrap();
    sim.patch(id, json!({ "sex": "female", "module_id": "primeromodule-cp" })).unwrap();
    assert_eq!(program.wait_for_end(), 1, "{}", program.last_of_log());
    assert!(program.log().contains("odd"), "{}", program.last_of_log());
    program.query("ALTER TABLE tonle.cases DROP CONSTRAINT odd");
    start(program);
    program.wait_for(INSTANCE, sim);
}

/// Lists of everything, some of them quoted, until a case that was deleted on the server is gone.
fn census(program: &mut Program, gate: &Gate, sim: &Sim) {
    let case = sim.cases().swap_remove(11);
    gate.quote(&[Quote::NotJson, Quote::OddShape]);
    assert!(sim.delete(case["id"].as_str().unwrap()));
    program.wait_until("a case that was deleted is gone", |program| {
        let done = "SELECT count(*) FROM tonle.tonle_erased WHERE done_at IS NOT NULL";
        gate.waiting() == 0 && program.query(done) == "1"
    });
}

/// Commands that mend, erase, show and carry the state, and what they say.
fn keeping_commands(program: &Program, sim: &Sim) -> String {
    let mut heard = said(program, &["verify", "--repair"], 0);
    let ids: Vec<_> = sim.cases().iter().take(2).map(|case| case["id"].clone()).collect();
    let list = program.path("ids");
    let list = list.to_str().unwrap();
    fs::write(list, "CANARY-0001-name\n").unwrap();
    heard += &said(program, &["erase", "--instance", INSTANCE, "--records", list], 2);
    fs::write(list, ids.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")).unwrap();
    heard += &said(program, &["erase", "--instance", INSTANCE, "--records", list], 0);
    fs::remove_file(list).unwrap();
    heard += &said(program, &["state", "show"], 0);
    heard += &said(program, &["state", "show", "--format", "json"], 0);
    let cell = ["indicator=CM-01", "period=2026", "--pseudonyms"];
    heard += &said(program, &[&["explain"], &cell[..]].concat(), 0);
    let export = program.path(EXPORT);
    heard += &said(program, &["state", "export", export.to_str().unwrap()], 0);
    heard
}

/// Commands that fail, and what they say.
fn failing_commands(program: &mut Program, gate: &Gate, sim: &Sim) -> String {
    let mut heard = String::new();
    gate.quote(&[Quote::Status(422)]);
    heard += &said(program, &["check"], 2);
    gate.quote(&[Quote::Status(422)]);
    sim.edit(1).unwrap();
    heard += &said(program, &["run", "--once"], 2);
    sim.set_password("another-password-than-before");
    heard += &said(program, &["check"], 77);
    heard += &said(program, &["run", "--once"], 77);
    sim.set_password(&Settings::default().password);
    heard += &said(program, &["verify"], 0);
    program.query("UPDATE tonle.cases SET sex = 'other' WHERE sex = 'male'");
    heard += &said(program, &["verify"], 65);
    heard += &keeping_commands(program, sim);
    let away = "postgres://tonle:hush@127.0.0.1:1/none";
    heard += &said(program, &["check", "--database-url", away], 69);
    fs::write(program.path("odd.toml"), "[pack]\nid = 7\n").unwrap();
    program.set("packs = [\"cp-core\", \"odd.toml\"]");
    heard += &said(program, &["check"], 2);
    program.set("packs = [\"cp-core\", \"cambodia\", \"births.toml\"]");
    program.set("no_such_setting = 1");
    heard += &said(program, &["run"], 2);
    assert!(!heard.contains("hush"), "{heard}");
    heard
}

#[test]
fn nothing_that_identifies_a_child_is_written_anywhere() {
    let sim = primero(Settings { canary: true, ..cases_of_today(41, 250) });
    let gate = Gate::before(&sim.base_url());
    let mut program = Program::new()
        .with("packs = [\"cp-core\", \"cambodia\", \"births.toml\"]")
        .with("web = { listen = \"127.0.0.1:0\" }")
        .server_at(INSTANCE, gate.url(), "incidents = true\ncensus_seconds = 2");
    fs::write(program.path("births.toml"), OVERLAY).unwrap();

    start(&mut program);
    program.wait_until_live(INSTANCE);
    program.wait_until_live(&format!("{INSTANCE}/incidents"));
    live(&sim);
    program.wait_for(INSTANCE, &sim);
    faults(&mut program, &gate, &sim);
    census(&mut program, &gate, &sim);
    program.kill();
    sim.edit(10).unwrap();
    start(&mut program);
    program.wait_for(INSTANCE, &sim);
    postgres_errors(&mut program, &sim);
    let pages = program.page("/metrics") + &program.page("/health");
    assert_eq!(program.stop(), 0, "{}", program.last_of_log());
    let workers = write_snapshot(&program);
    let is_pseudonym = |worker: &String| worker.len() == 32 && !worker.contains(|c| !is_hex(c));
    assert!(workers.len() > 50 && workers.iter().all(is_pseudonym), "{workers:?}");
    let kept = bytes_below(&program.state());
    let heard = failing_commands(&mut program, &gate, &sim);

    let forbidden = Forbidden::of(&sim);
    assert!(forbidden.count() > 600, "{}", forbidden.count());
    let served = serde_json::to_vec(&[sim.cases(), sim.incidents()]).unwrap();
    let incidents = serde_json::to_string(&sim.incidents()).unwrap();
    assert!(incidents.contains("CANARY-staff-") && incidents.contains(".perpetrator"));
    let seen = forbidden.found_in(&served);
    assert!(seen.len() > 300, "the search finds what was served: {}", seen.len());
    let state = bytes_below(&program.state());
    let dump = program.dump();
    forbidden.assert_none("the state", &kept);
    forbidden.assert_none("the state after an erasure", &state);
    forbidden.assert_none("the exported state", &fs::read(program.path(EXPORT)).unwrap());
    forbidden.assert_none("the database", dump.as_bytes());
    forbidden.assert_none("the log", program.log().as_bytes());
    forbidden.assert_none("the page", pages.as_bytes());
    forbidden.assert_none("the commands", heard.as_bytes());

    // The test of the test: an unknown option id is a term of the dictionary, in the log and in the snapshot,
    // and is published as unmapped only.
    let planted =
        |bytes: &[u8]| bytes.windows(PLANTED.len()).filter(|w| *w == PLANTED.as_bytes()).count();
    assert!(planted(&kept) >= 2, "the log and the snapshot hold the planted term");
    assert_eq!(planted(dump.as_bytes()) + planted(program.log().as_bytes()), 0);
}

#[test]
fn the_search_finds_what_is_there() {
    let sim = primero(Settings { canary: true, ..cases_of_today(42, 3) });
    let forbidden = Forbidden::of(&sim);
    let case = sim.cases().swap_remove(0);
    let id = case["id"].as_str().unwrap();
    let password = Settings::default().password;
    for text in [
        format!("…{}…", case["name"].as_str().unwrap()),
        case["name"].as_str().unwrap().to_uppercase(),
        id.to_uppercase(),
        id.replace('-', ""),
        format!("x{password}"),
        base64(&format!("api_reader:{password}")),
        PSEUDONYM_KEY.to_owned(),
    ] {
        assert_eq!(forbidden.found_in(text.as_bytes()).len(), 1, "{text}");
    }
    assert!(forbidden.found_in(b"2024-01-01 kampot female").is_empty());
}
