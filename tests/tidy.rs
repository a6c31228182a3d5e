//! Style a machine can check: who may name whom, sizes, and that what README shows exists.
//!
//! Each rule is a function from a text to complaints, so that each has a test that it can fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tonle::crash::Step;

/// Each part of the program, and the parts it may name. `cli` stands above them all.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["cli", "report", "error"]),
    (
        "pipeline",
        &[
            "config",
            "source",
            "dataflow",
            "sink",
            "state",
            "indicator",
            "report",
            "model",
            "error",
            "crash",
        ],
    ),
    ("sim", &["config", "indicator", "report", "model", "error"]),
    ("web", &["report", "model", "error"]),
    ("postgres", &["report", "model", "error"]),
    ("config", &["source", "dataflow", "sink", "state", "indicator", "report", "model", "error"]),
    ("source", &["indicator", "report", "model", "error", "crash"]),
    ("dataflow", &["indicator", "model", "error"]),
    ("sink", &["indicator", "report", "model", "error", "crash"]),
    ("state", &["indicator", "report", "model", "error", "crash"]),
    ("indicator", &["report", "model", "error"]),
    ("report", &["model", "error"]),
    ("model", &["error"]),
    ("error", &[]),
    ("crash", &[]),
];

/// Crates that only some files may name, so that replacing one changes one place.
const CRATES: &[(&str, &[&str])] = &[
    ("timely", &["src/dataflow"]),
    ("differential_dataflow", &["src/dataflow"]),
    ("bincode", &["src/state/format.rs"]),
    ("chacha20poly1305", &["src/state/seal.rs"]),
    ("tokio_postgres", &["src/sink", "src/postgres"]),
    ("tokio_postgres_rustls", &["src/sink"]),
    ("reqwest", &["src/source"]),
    ("axum", &["src/web", "src/sim"]),
    ("tracing", &["src/report"]),
    ("tracing_subscriber", &["src/report"]),
    ("clap", &["src/cli", "src/config", "src/main.rs"]),
];

/// What must not stand in the code of a folder, and why.
const BANNED: &[(&str, &[&str], &str)] = &[
    ("src", &[".unwrap()", "todo!(", "unimplemented!(", "dbg!("], "it ends the program"),
    ("src", &["println!(", "print!(", "eprint!("], "only `report` and the commands speak"),
    (
        "src/dataflow",
        &["Instant::now", "SystemTime", "Timestamp::now", "Zoned::now", "std::fs", "std::net"],
        "the same input must give the same rows on any machine",
    ),
    (
        "src/dataflow",
        &["std::env", "tokio::", "rand::", "async fn", "RandomState"],
        "the same input must give the same rows on any machine",
    ),
];

/// SQL that only `src/sink` may contain.
const SQL: &[&str] = &["INSERT INTO", "CREATE TABLE", "DELETE FROM", "TRUNCATE "];

/// Longest file, in lines.
const FILE_LINES_MAX: usize = 500;

/// Files that may be longer, and why.
const LONG_FILES: &[(&str, &str)] = &[
    ("tests/contract_sim.rs", "one test for each recorded exchange"),
    ("tests/sink.rs", "one test for each promise of the sink"),
    ("tests/state.rs", "one test for each promise of the state"),
];

/// Files below `src` that only tests compile, for what is private to a part.
const TEST_FILES: &[&str] = &["src/source/scripted.rs", "src/source/scripted/census.rs"];

/// Longest line, comments included; rustfmt keeps code within 100.
const LINE_COLUMNS_MAX: usize = 120;

/// Largest file in the repository, in bytes.
const FILE_BYTES_MAX: u64 = 5 * 1024 * 1024;

// The rules.

/// A part names only the parts it may, and each `use` line names one of them.
fn layers(path: &str, text: &str) -> Vec<String> {
    let part = part_of(path);
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == part) else {
        let known = ["lib", "cli"].contains(&part);
        return if known { vec![] } else { vec![format!("{path}: {part} is not in LAYERS")] };
    };
    let mut complaints = Vec::new();
    for (number, line) in code_lines(text) {
        for name in named_parts(line) {
            if name.is_empty() {
                complaints.push(format!("{path}:{number}: one `use` line must name one part"));
            } else if name != part && !allowed.contains(&name) && is_a_part(name) {
                complaints.push(format!("{path}:{number}: {part} must not use {name}"));
            }
        }
        let top = path.ends_with("/mod.rs") || path.matches('/').count() == 1;
        if top && line.contains("super::") {
            complaints.push(format!("{path}:{number}: write crate:: for another part"));
        }
    }
    complaints
}

/// Only the places in [`CRATES`] name those crates.
fn crates(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, places) in CRATES {
        if places.iter().any(|place| within(path, place)) {
            continue;
        }
        for (number, line) in code_lines(text) {
            if names(line, name) {
                complaints.push(format!("{path}:{number}: only {places:?} may name {name}"));
            }
        }
    }
    complaints
}

/// Nothing of [`BANNED`], and no SQL outside the sink.
fn banned(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in code_lines(text) {
        for (place, words, why) in BANNED {
            let spoken = within(path, "src/cli") && why.starts_with("only `report`");
            for word in words.iter().filter(|word| line.contains(*word)) {
                if within(path, place) && !spoken {
                    complaints.push(format!("{path}:{number}: {word} ({why})"));
                }
            }
        }
        for word in SQL.iter().filter(|word| line.contains(*word)) {
            if !within(path, "src/sink") {
                complaints.push(format!("{path}:{number}: only the sink knows SQL: {word}"));
            }
        }
    }
    complaints
}

/// A file says what it is, is one idea, and fits the screen.
fn shape(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push(format!("{path}: must start with what it is (//!)"));
    }
    // Unit tests stand at the end of what they test, and do not count.
    let line_count = code_lines(text).count();
    let excepted = LONG_FILES.iter().any(|(file, _)| *file == path);
    if line_count > FILE_LINES_MAX && !excepted {
        complaints.push(format!("{path}: {line_count} lines are more than one idea"));
    }
    if line_count <= FILE_LINES_MAX && excepted {
        complaints.push(format!("{path}: needs no exception in LONG_FILES any more"));
    }
    for (index, line) in text.lines().enumerate() {
        let column_count = line.chars().count();
        if column_count > LINE_COLUMNS_MAX {
            complaints.push(format!("{path}:{}: {column_count} columns", index + 1));
        }
    }
    complaints
}

/// Nothing in the repository tells where somebody keeps it.
fn homes(path: &str, text: &str) -> Vec<String> {
    let found = |line: &str| {
        ["/home/", "/Users/"].iter().any(|home| {
            // A made-up user is fine in an example.
            line.match_indices(home).any(|(at, _)| !line[at + home.len()..].starts_with("tonle"))
        }) || names_root_home(line)
    };
    let lines = text.lines().enumerate().filter(|(_, line)| found(line));
    lines.map(|(index, _)| format!("{path}:{}: the path of a home", index + 1)).collect()
}

/// Every `make x` that README shows is a target.
fn make_commands(readme: &str, makefile: &str) -> Vec<String> {
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, rest)| !rest.starts_with('=') && name.chars().all(is_word))
        .map(|(name, _)| name)
        .collect();
    let shown = shown_commands(readme, "make").into_iter();
    shown
        .filter(|word| !targets.contains(word.as_str()))
        .map(|word| format!("README shows `make {word}`, which is no target"))
        .collect()
}

/// Every `tonle x` that README shows is a command.
fn tonle_commands(readme: &str, help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let commands: BTreeSet<&str> = listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let shown = shown_commands(readme, "tonle").into_iter();
    shown
        .filter(|word| !commands.contains(word.as_str()))
        .map(|word| format!("README shows `tonle {word}`, which is no command"))
        .collect()
}

/// Every step at which a test ends the program is passed somewhere, exactly once.
fn crash_steps(steps: &[String], program: &str) -> Vec<String> {
    let passed = |step: &String| {
        let ways = ["point(", "pass(", "half_written("].map(|way| format!("{way}Step::{step}"));
        let count = |way: &String| {
            let ends = program.match_indices(way).map(|(at, way)| &program[at + way.len()..]);
            ends.filter(|rest| !rest.starts_with(is_word)).count()
        };
        ways.iter().map(count).sum::<usize>()
    };
    let wrong = steps.iter().map(|step| (step, passed(step))).filter(|(_, count)| *count != 1);
    wrong.map(|(step, count)| format!("src/crash.rs: {step} is passed {count} times")).collect()
}

/// No build but one for tests can be ordered to die.
fn crash_feature(_: &str, manifest: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let features = manifest.split("[features]").nth(1).unwrap_or_default();
    let features = features.split("\n[").next().unwrap_or_default();
    let by_others = features.lines().filter(|line| !line.trim_start().starts_with('#'));
    if by_others.filter(|line| line.contains("crash-points")).ne(["crash-points = []"]) {
        complaints.push("Cargo.toml: no other feature may bring crash-points".to_owned());
    }
    let needed = manifest.split("[dev-dependencies]").next().unwrap_or_default();
    if needed.lines().any(|line| line.trim_start().starts_with("tonle =")) {
        complaints
            .push("Cargo.toml: only what is built for tests may bring crash-points".to_owned());
    }
    complaints
}

// The rules applied to this repository.

#[test]
fn every_source_file_keeps_the_rules() {
    let mut complaints = Vec::new();
    for (path, text) in rust_files("src") {
        if TEST_FILES.contains(&path.as_str()) {
            continue;
        }
        for rule in [layers, crates, banned, shape] {
            complaints.extend(rule(&path, &text));
        }
    }
    for folder in ["tests", "benches"] {
        for (path, text) in rust_files(folder) {
            complaints.extend(shape(&path, &text));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_file_in_the_repository_may_be_seen() {
    let mut complaints = Vec::new();
    for path in repository_files() {
        let name = path.display().to_string();
        let file = root().join(&path);
        // A file that is deleted but not yet committed is nobody's business.
        let Ok(metadata) = fs::metadata(&file) else { continue };
        if metadata.len() > FILE_BYTES_MAX {
            complaints.push(format!("{name}: {} bytes", metadata.len()));
        } else if let Ok(text) = fs::read_to_string(&file)
            && name != "tests/tidy.rs"
        {
            complaints.extend(homes(&name, &text));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn a_test_can_end_the_program_at_every_step_and_nobody_else_can() {
    let steps: Vec<_> = Step::ALL.iter().map(|step| format!("{step:?}")).collect();
    let code = rust_files("src").into_iter().flat_map(|(_, text)| {
        code_lines(&text).map(|(_, line)| format!("{line}\n")).collect::<Vec<_>>()
    });
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("there is a Cargo.toml");
    let mut complaints = crash_steps(&steps, &code.collect::<String>());
    complaints.extend(crash_feature("Cargo.toml", &manifest));
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_command_in_the_readme_exists() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap_or_default();
    let makefile = fs::read_to_string(root().join("Makefile")).expect("there is a Makefile");
    let help = Command::new(env!("CARGO_BIN_EXE_tonle")).arg("--help").output();
    let help = String::from_utf8(help.expect("tonle runs").stdout).expect("help is text");
    let mut complaints = make_commands(&readme, &makefile);
    complaints.extend(tonle_commands(&readme, &help));
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

// Reading.

/// The part a file of `src` belongs to.
fn part_of(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    inside.split(['/', '.']).next().unwrap_or_default()
}

fn is_a_part(name: &str) -> bool {
    ["cli", "lib"].contains(&name) || LAYERS.iter().any(|(part, _)| *part == name)
}

/// The lines of the program itself, numbered from 1: no comments, no unit tests.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_tests = |pair: &[&str]| {
        pair[0] == "#[cfg(test)]" && pair[1].trim_start_matches("pub(super) ").starts_with("mod ")
    };
    let inline = |pair: &[&str]| is_tests(pair) && pair[1].ends_with('{');
    let end = lines.windows(2).position(inline).unwrap_or(lines.len());
    let code = lines.into_iter().take(end).enumerate();
    code.map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
}

/// What follows each `crate::` of a line; empty for a list of several parts.
fn named_parts(line: &str) -> Vec<&str> {
    let roots = ["crate::", "tonle::"].into_iter();
    let starts = roots.flat_map(|root| line.match_indices(root).map(|(at, r)| at + r.len()));
    starts
        .map(|start| {
            let rest = &line[start..];
            &rest[..rest.find(|c: char| !is_word(c)).unwrap_or(rest.len())]
        })
        .collect()
}

/// Whether a line names a crate: as a path, or as all of a `use`.
fn names(line: &str, crate_name: &str) -> bool {
    line.match_indices(crate_name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + crate_name.len()..];
        let alone = !before.is_some_and(|c| is_word(c) || c == ':' || c == '.' || c == '"');
        alone
            && (after.starts_with("::")
                || (line.trim().starts_with("use ") && after.starts_with(';')))
    })
}

fn names_root_home(line: &str) -> bool {
    line.match_indices("/root/")
        .any(|(at, _)| !line[..at].ends_with(|c: char| is_word(c) || "/}.".contains(c)))
}

fn within(path: &str, place: &str) -> bool {
    path == place || path.strip_prefix(place).is_some_and(|rest| rest.starts_with(['/', '.']))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// The first words that follow `program` in what a text shows as code.
fn shown_commands(text: &str, program: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut shown: Vec<&str> = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            shown.push(line);
        } else {
            shown.extend(line.split('`').skip(1).step_by(2));
        }
    }
    let commands = shown.iter().filter_map(|code| {
        let code = code.trim_start().trim_start_matches("$ ");
        let (first, rest) = code.split_once(' ')?;
        let called = first.rsplit('/').next() == Some(program);
        let word = rest.split(|c: char| !is_word(c)).next()?;
        let plain = word.starts_with(|c: char| c.is_ascii_lowercase()) && !rest.contains(" = ");
        (called && plain).then(|| word.to_owned())
    });
    commands.collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below a folder, by path from the root.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = Vec::new();
    collect(&root().join(folder), &mut files);
    let rust = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("it is below the root").display().to_string();
        (name, fs::read_to_string(&path).expect("a source file is text"))
    };
    let mut found: Vec<_> = rust.map(read).collect();
    found.sort();
    found
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

/// What git keeps; outside a repository, what is in the folders of the sources.
fn repository_files() -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    match listed {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8_lossy(&output.stdout).into_owned();
            names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect()
        }
        _ => {
            let mut files = Vec::new();
            for folder in ["src", "tests", "benches", "packs"] {
                collect(&root().join(folder), &mut files);
            }
            files
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule has something to say exactly when `complaint` is not empty.
    fn check(rule: impl Fn(&str, &str) -> Vec<String>, path: &str, text: &str, complaint: &str) {
        let said = rule(path, text).join("\n");
        if complaint.is_empty() {
            assert_eq!(said, "", "about {path}:\n{text}");
        } else {
            assert!(said.contains(complaint), "about {path}:\n{text}\nsaid: {said:?}");
        }
    }

    #[test]
    fn a_part_that_names_one_above_or_beside_is_found() {
        check(layers, "src/sink/mod.rs", "use crate::model::Epoch;\n", "");
        check(layers, "src/sink/mod.rs", "use crate::state::Log;\n", ":1: sink must not use state");
        check(
            layers,
            "src/model/day.rs",
            "let x = crate::report::emit;",
            "model must not use report",
        );
        check(
            layers,
            "src/sim/mod.rs",
            "\npub use crate::source::X;",
            ":2: sim must not use source",
        );
        check(layers, "src/sink/mod.rs", "use crate::{error::Error, model::Day};", "name one part");
        check(layers, "src/dataflow/mod.rs", "use super::sink::Sink;", "write crate::");
        check(layers, "src/main.rs", "use tonle::sink::Sink;", "main must not use sink");
        check(layers, "src/helpers.rs", "", "helpers is not in LAYERS");
        check(layers, "src/model/epoch.rs", "/// As [`crate::state`] does.\n", "");
        check(layers, "src/sink/a.rs", "#[cfg(test)]\nmod tests {\n use crate::sim::X;\n}", "");
        check(layers, "src/cli/run.rs", "use crate::pipeline::run;", "");
    }

    #[test]
    fn a_crate_named_in_the_wrong_place_is_found() {
        check(crates, "src/dataflow/worker.rs", "use timely::Config;", "");
        check(crates, "src/pipeline.rs", "use timely::Config;", "may name timely");
        check(crates, "src/state/log.rs", "let x = bincode::serialize(&y);", "may name bincode");
        check(crates, "src/state/format.rs", "let x = bincode::serialize(&y);", "");
        check(crates, "src/source/mod.rs", "use reqwest;", "");
        check(crates, "src/sim/mod.rs", "use reqwest;", "may name reqwest");
        check(crates, "src/cli/run.rs", "crate::tracing::x(); not_timely::x();", "");
        check(crates, "src/report/mod.rs", "tracing::info!()", "");
        check(crates, "src/reporting.rs", "tracing::info!()", "may name tracing");
    }

    #[test]
    fn what_is_banned_is_found() {
        check(banned, "src/sink/mod.rs", "let x = y.unwrap();", ".unwrap()");
        check(banned, "src/sink/mod.rs", "#[cfg(test)]\nmod tests {\ny.unwrap()\n}", "");
        check(banned, "src/sink/mod.rs", "let x = 1; // never .unwrap()", "");
        check(banned, "src/dataflow/mod.rs", "let t = Instant::now();", "same rows");
        check(banned, "src/web/mod.rs", "let t = Instant::now();", "");
        check(banned, "src/web/mod.rs", "println!(\"x\");", "only `report`");
        check(banned, "src/cli/run.rs", "println!(\"x\");", "");
        check(banned, "src/web/mod.rs", "\"DELETE FROM cases\"", "only the sink");
        check(banned, "src/sink/mod.rs", "\"DELETE FROM cases\"", "");
    }

    #[test]
    fn a_misshapen_file_is_found() {
        check(shape, "src/a.rs", "//! Good.\n", "");
        check(shape, "src/a.rs", "use std::fs;\n", "must start");
        check(shape, "src/a.rs", &format!("//! Long.\n{}", "\n".repeat(600)), "more than one idea");
        check(shape, "src/a.rs", &format!("//! Wide.\n// {}", "é".repeat(118)), ":2: 121 columns");
        check(shape, "src/a.rs", &format!("//! Not wide.\n// {}", "é".repeat(117)), "");
    }

    #[test]
    fn the_path_of_a_home_is_found() {
        check(homes, "a", "see /home/dara/tonle.toml", "a:1: the path of a home");
        check(homes, "a", "\n\"/Users/dara/x\"", "a:2:");
        check(homes, "a", "in /root/x", "a:1:");
        check(homes, "a", "/home/tonle/tonle.toml, https://example.org/root/x", "");
    }

    #[test]
    fn a_command_that_does_not_exist_is_found() {
        let makefile = "X := 1\n.PHONY: demo\ndemo:\n\techo\nlint: demo ## all: of it\n";
        let rule = |readme: &str, _: &str| make_commands(readme, makefile);
        check(
            rule,
            "```sh\n$ make demo\nmake lint FOR=1s\n```\nwith `make demo`, make sense",
            "",
            "",
        );
        check(rule, "run `make soak`", "", "`make soak`");
        check(rule, "```\nmake X\nmake nothing\n```", "", "`make nothing`");

        let help = "Keeps it true\n\nUsage: tonle <COMMAND>\n\nCommands:\n  run    Runs\n  demo   \
                    Shows\n\nOptions:\n  bad";
        let rule = |readme: &str, _: &str| tonle_commands(readme, help);
        check(
            rule,
            "`tonle run --config x`, `tonle --help`, `tonle.toml`, `./target/tonle demo`",
            "",
            "",
        );
        check(rule, "```\ntonle verify\n```", "", "`tonle verify`");
        check(rule, "`tonle bad`", "", "`tonle bad`");
    }

    #[test]
    fn a_step_that_is_never_passed_or_ordered_outside_of_tests_is_found() {
        let steps = ["LogSynced".to_owned()];
        let rule = |_: &str, program: &str| crash_steps(&steps, program);
        check(rule, "", "crash::point(Step::LogSynced);", "");
        check(rule, "", "requests.pass(Step::LogSynced).await?;", "");
        check(rule, "", "crash::point(Step::LogSyncedLate);", "LogSynced is passed 0 times");
        check(rule, "", "point(Step::LogSynced)\npoint(Step::LogSynced)", "2 times");
        let own =
            "[features]\n# crash-points\ncrash-points = []\n\n[dev-dependencies]\ntonle = 1\n";
        check(crash_feature, "", own, "");
        let default = own.replace("[features]", "[features]\ndefault = [\"crash-points\"]");
        check(crash_feature, "", &default, "no other feature");
        check(crash_feature, "", &own.replace("dev-", "build-"), "only what is built for tests");
    }

    #[test]
    fn the_rules_have_files_to_look_at() {
        assert!(rust_files("src").iter().any(|(path, _)| path == "src/error.rs"));
        assert!(repository_files().contains(&PathBuf::from("Cargo.toml")));
    }
}
