//! The commands as a person meets them: what they say and the code they end with.

use std::fs;
use std::process::Command;

use crate::support::postgres::private;
use crate::support::program::{Ending, Program, cases_of_today, primero};

/// An address where nothing listens.
const NOBODY: &str = "http://127.0.0.1:1";

/// A database where nothing listens, with a password that must not be repeated.
const NO_DATABASE: &str = "postgres://tonle:hush-4711@127.0.0.1:1/none";

/// Runs the program without a configuration.
fn bare(arguments: &[&str]) -> Ending {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tonle"));
    let output = command.args(arguments).env_remove("TONLE_LOG").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    Ending { code: output.status.code().unwrap_or(-1), text }
}

#[track_caller]
fn expect(ending: &Ending, code: i32, words: &[&str]) {
    assert_eq!(ending.code, code, "{}", ending.text);
    for word in words {
        assert!(ending.text.contains(word), "expected {word:?} in\n{}", ending.text);
    }
}

/// The number of the line that contains `word` in a file.
fn line_of(program: &Program, file: &str, word: &str) -> usize {
    let text = fs::read_to_string(program.path(file)).unwrap();
    text.lines().position(|line| line.contains(word)).unwrap() + 1
}

#[test]
fn help_names_every_command_and_exit_code() {
    let help = bare(&["--help"]);
    let commands =
        ["demo", "run", "check", "config", "verify", "plan", "explain", "test", "freeze", "sim"];
    expect(
        &help,
        0,
        &[&commands[..], &["Exit codes", "65 data differs", "77 permission"]].concat(),
    );
    for command in commands {
        expect(&bare(&[command, "--help"]), 0, &["Usage: tonle", command]);
    }
    expect(&bare(&["--version"]), 0, &[env!("CARGO_PKG_VERSION")]);
}

#[test]
fn wrong_usage_ends_with_two() {
    expect(&bare(&["run", "--onse"]), 2, &["--onse", "--once"]);
    expect(&bare(&["rum"]), 2, &["rum", "run"]);
    expect(&bare(&[]), 2, &["Usage"]);
    expect(&bare(&["demo", "--for", "soon"]), 2, &["--for"]);
    let missing = bare(&["run", "--config", "/no/such/tonle.toml"]);
    expect(&missing, 2, &["/no/such/tonle.toml", "--config"]);
}

#[test]
fn check_says_what_is_read_and_written() {
    let sim = primero(cases_of_today(3, 60));
    let program = Program::new().server("kampot", &sim);
    let words = [
        "packs",
        "cp-core 2.0.0, cambodia 2.0.0",
        "registration_date",
        "services_section",
        "nothing else of a case: no names",
        "kampot: version 2.14.0, 60 cases visible",
        "schema tonle will be made",
        "writes     ",
        "indicator_values",
        "state ",
        "all is well",
    ];
    expect(&program.end(&["check"]), 0, &words);
    assert!(!program.state().exists(), "check wrote a state");
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'tonle'";
    assert_eq!(program.query(tables), "0", "check wrote tables");
    program.once(0);
    expect(&program.end(&["check"]), 0, &["schema tonle exists", "all is well"]);
}

#[test]
fn check_tells_apart_what_is_away_and_what_is_refused() {
    let sim = primero(cases_of_today(4, 10));
    let program = Program::new().server("kampot", &sim).server_at("takeo", NOBODY, "");
    let words = ["takeo: FAILED", "no connection", "kampot: version 2.14.0", "postgres   1"];
    expect(&program.end(&["check"]), 69, &words);

    let program = Program::new().server("kampot", &sim);
    let away = program.end(&["check", "--database-url", NO_DATABASE]);
    expect(&away, 69, &["postgres   FAILED", "kampot: version 2.14.0"]);
    assert!(!away.text.contains("hush-4711"), "{}", away.text);

    program.write_secret("kampot.password", "hush-4711\n");
    let refused = program.end(&["check"]);
    expect(&refused, 77, &["kampot: FAILED", "401", "six failures lock"]);
    assert!(!refused.text.contains("hush-4711"), "{}", refused.text);
    expect(&program.end(&["run", "--once"]), 77, &["401"]);
}

#[test]
fn a_wrong_configuration_is_named_by_file_line_and_key() {
    let sim = primero(cases_of_today(5, 1));
    let check = |line: &str, words: &[&str]| {
        let program = Program::new().server("kampot", &sim).with(line);
        let key = line.split(' ').next().unwrap();
        let ending = program.end(&["check"]);
        let place = format!("tonle.toml line {}", line_of(&program, "tonle.toml", key));
        expect(&ending, 2, &[&[place.as_str(), key], words].concat());
    };
    check("time_zome = \"UTC\"", &["nearest is \"time_zone\""]);
    check("time_zone = \"Mars\"", &["Asia/Phnom_Penh"]);
    check("packs = [\"cp-cor\"]", &["cp-core, cambodia"]);
    check("packs = 7", &["expected"]);
    check("web = { listen = \"here\" }", &["socket address"]);
    check("web = { listn = \"127.0.0.1:0\" }", &["nearest is \"listen\""]);

    let odd = |more: &str, words: &[&str]| {
        let program = Program::new().server_with("kampot", &sim, more);
        expect(&program.end(&["check"]), 2, &[&["tonle.toml line "], words].concat());
    };
    odd("page_size = 0", &["kampot", "page_size"]);
    odd("fiscal_year_starts = 13", &["kampot", "fiscal_year_starts", "1 to 12"]);
    odd("pasword_file = \"x\"", &["nearest is \"password_file\""]);
    odd(
        "mappings.sez = { f = \"female\" }",
        &["instances.kampot.mappings.sez", "nearest is \"sex\""],
    );
    odd("mappings.sex = { f = \"femal\" }", &["mappings.sex", "nearest is \"female\""]);
    odd("mappings.sex = { f = 7 }", &["mappings.sex", "own_id = \"pack_id\""]);
    odd("mappings.registration_date = { a = \"b\" }", &["only option ids"]);
    odd(
        "mappings.service_section.service_type = { a = \"b\" }",
        &["service_section.service_type", "nearest is \"services_section\""],
    );
    odd("concepts.residental = [\"a\"]", &["concepts.residental", "nearest is \"residential\""]);
}

#[test]
fn a_wrong_pack_is_named_by_file_line_and_nearest_name() {
    let sim = primero(cases_of_today(6, 1));
    let program = Program::new().server("kampot", &sim).with("packs = [\"cp-core\", \"own.toml\"]");
    let check = |text: &str, words: &[&str]| {
        let text = format!("[pack]\nid = \"own\"\nversion = \"1\"\n{text}\n");
        fs::write(program.path("own.toml"), text).unwrap();
        let ending = program.end(&["check"]);
        expect(&ending, 2, &[&["own.toml line 5"], words].concat());
    };
    check("[dimensions.own]\nform = \"sex\"", &["`form`", "nearest is \"from\""]);
    check("[dimensions.own]\nfrom = \"sez\"", &["dimensions.own", "nearest is \"sex\""]);
    check("[fields]\nown = \"optio\"", &["`optio`", "nearest is \"option\""]);
    check(
        "[populations.own]\nsex = 7\n[extracts.own]\nkey = \"k\"\npopulation = \"own\"\ncolumns = []",
        &["populations.own.sex", "option id"],
    );
}

#[test]
fn verify_names_the_cell_that_was_changed_by_hand() {
    let sim = primero(cases_of_today(7, 80));
    let program = Program::new().server("kampot", &sim);
    expect(&program.verify(), 65, &["nothing was committed"]);
    program.once(0);
    expect(&program.verify(), 0, &["80 records", "equal"]);
    let cell = "indicator = '4.11a-seed' AND instance = 'kampot' AND sex = 'female'
                AND age_now = '6-11'";
    let changed = program.query(&format!(
        "UPDATE tonle.indicator_values SET numerator = numerator + 1 WHERE {cell} RETURNING indicator"
    ));
    assert_eq!(changed, "4.11a-seed");
    let words = ["1 rows different", "4.11a-seed", "kampot", "female", "6-11", "they differ"];
    expect(&program.verify(), 65, &words);
    program.query(&format!("DELETE FROM tonle.indicator_values WHERE {cell}"));
    expect(&program.verify(), 65, &["1 rows missing"]);
}

#[test]
fn invented_cases_are_written_and_can_be_read_back() {
    let mut program = Program::new();
    let (cases, places) = (program.path("cases.ndjson"), program.path("places.json"));
    let write = |seed: &str| {
        let (cases, places) = (cases.to_str().unwrap(), places.to_str().unwrap());
        let ending = bare(&[
            "sim",
            "--cases",
            "150",
            "--seed",
            seed,
            "--write",
            cases,
            "--locations",
            places,
        ]);
        expect(&ending, 0, &[]);
        fs::read_to_string(cases).unwrap()
    };
    let first = write("9");
    assert_eq!(first.lines().count(), 150);
    assert_ne!(write("8"), first);
    assert_eq!(write("9"), first);
    program.set_files("takeo", &[&cases], Some(&places));
    program.once(0);
    program.assert_true_to_state();
    assert_eq!(program.query("SELECT cases_known FROM tonle.sync_status"), "150");
    assert_ne!(program.query("SELECT count(*) FROM tonle.locations"), "0");
    expect(&bare(&["sim", "--listen", "0.0.0.0:0"]), 2, &["loopback"]);
}

#[test]
fn the_demonstration_runs_to_its_end() {
    let ending = bare(&["demo", "--cases", "300", "--instances", "2", "--for", "2s"]);
    let words =
        ["mekong", "tonle-sap", "Loaded in", "rows written", "CM-01", "New cases registered"];
    expect(&ending, 0, &words);
    assert!(ending.text.contains("epoch"), "no live edit arrived: {}", ending.text);
}

/// The value of a counter on the page with metrics.
#[track_caller]
fn counter(page: &str, name: &str) -> i64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
}

#[test]
fn the_page_counts_what_was_done() {
    let sim = primero(cases_of_today(10, 90));
    let mut program =
        Program::new().server("kampot", &sim).with("web = { listen = \"127.0.0.1:0\" }");
    program.start();
    program.wait_until_live("kampot");
    program.wait_for("kampot", &sim);
    let before = program.page("/metrics");
    assert!(before.starts_with("HTTP/1.1 200"), "{before}");
    assert_eq!(counter(&before, "tonle_cases_changed_total"), 90);
    assert_eq!(counter(&before, "tonle_cases_held"), 90);
    let rows = "SELECT (SELECT count(*) FROM tonle.indicator_values) +
        (SELECT count(*) FROM tonle.cases) + (SELECT count(*) FROM tonle.services)";
    assert_eq!(counter(&before, "tonle_rows_written_total").to_string(), program.query(rows));
    let epoch = program.query("SELECT epoch FROM tonle.tonle_pipeline");
    assert_eq!(counter(&before, "tonle_epoch_last").to_string(), epoch);
    assert_eq!(counter(&before, "tonle_well"), 1);
    assert_eq!(counter(&before, "tonle_instance_asked{instance=\"kampot\"}"), 1);
    assert!(program.page("/health").ends_with("\nok\n"));

    sim.faults().next("/api/v2/cases", 1, tonle::sim::Fault::Broken);
    sim.edit(15).unwrap();
    program.wait_for("kampot", &sim);
    let after = program.page("/metrics");
    assert!(counter(&after, "tonle_cases_changed_total") > 90);
    assert!(
        counter(&after, "tonle_epochs_written_total")
            > counter(&before, "tonle_epochs_written_total")
    );
    assert_eq!(counter(&after, "tonle_source_retries_total{instance=\"kampot\"}"), 1);

    assert_eq!(program.stop(), 0);
}

#[test]
fn the_page_tells_that_postgres_is_away_until_it_is_back() {
    let sim = primero(cases_of_today(11, 40));
    let mut program = Program::with_own_postgres(private())
        .server("kampot", &sim)
        .with("web = { listen = \"127.0.0.1:0\" }");
    program.start();
    program.wait_until_live("kampot");
    program.postgres().stop().unwrap();
    sim.edit(15).unwrap();
    program.wait_until("a write failed", |program| {
        program.log().contains("failed to write to postgres")
    });
    let health = program.page("/health");
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("Postgres"), "{health}");
    let away = program.page("/metrics");
    assert!(counter(&away, "tonle_sink_retries_total") >= 1, "{away}");
    assert_eq!(counter(&away, "tonle_well"), 0);
    program.postgres().restart().unwrap();
    program.wait_for("kampot", &sim);
    assert!(program.page("/health").ends_with("\nok\n"));
    assert_eq!(program.stop(), 0);
}

#[test]
fn a_secret_that_is_taken_for_a_configuration_is_not_quoted() {
    let program = Program::new();
    for secret in ["c2VjcmV0LXNlY3JldC1zZWNyZXQ=", "hush = 4711", "[hush"] {
        program.write_secret("secret", secret);
        let ending = bare(&["check", "--config", program.path("secret").to_str().unwrap()]);
        expect(&ending, 2, &["secret line 1"]);
        for part in ["c2VjcmV0", "4711"] {
            assert!(!ending.text.contains(part), "{}", ending.text);
        }
    }
}
