//! `tonle config`: what is shown is what holds, and the schemas say what the readers say.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use tonle::error::Kind;
use tonle::indicator::{Definition, PackText, SHIPPED};

use crate::support::packs::random_pack;
use crate::support::program::{Program, cases_of_today, primero};
use crate::support::schema::complaints;

/// Random packs that the schema must take.
const RANDOM_PACKS: u64 = 200;

fn schema(arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tonle"));
    let output = command.args(["config", "schema"]).args(arguments).output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn as_json(text: &str) -> Value {
    serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
}

#[test]
fn the_schema_takes_every_sound_pack() {
    let schema = schema(&[]);
    for (name, text) in SHIPPED {
        assert_eq!(complaints(&schema, &schema, &as_json(text)), [""; 0], "{name}");
    }
    for seed in 0..RANDOM_PACKS {
        let text = random_pack(seed).text.text;
        assert_eq!(complaints(&schema, &schema, &as_json(&text)), [""; 0], "{text}");
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let schema = schema(&[]);
    let (_, core) = SHIPPED[0];
    for (find, replace) in [
        ("[dimensions.sex]", "[dimension.sex]"),
        ("type = \"option\"", "type = \"optoin\""),
        ("values = [\"male\"", "value = [\"male\""),
        ("count = \"cases\"", "cuont = \"cases\""),
        ("count = \"cases\"", "count = 7"),
        ("placed = \"stock\"", "placed = \"stok\""),
        ("[\"month\"", "[\"mounth\""),
        ("concept = \"separated\"", "concpet = \"separated\""),
        ("version = \"2", "verzion = \"2"),
        ("bands = [\"0-5\"", "bands = [5"),
        ("month_of = \"date_closure\"", "month_off = \"date_closure\""),
    ] {
        assert!(core.contains(find), "the core pack lacks {find}");
        let text = core.replacen(find, replace, 1);
        let pack = PackText { name: "x".into(), text: text.clone() };
        assert_eq!(Definition::read(vec![pack]).unwrap_err().kind(), Kind::Config, "{replace}");
        assert_ne!(complaints(&schema, &schema, &as_json(&text)), [""; 0], "{replace}");
    }
}

/// The names that an error of the reader lists as those it knows, when `text` has the key `zzz`.
fn known_to_the_reader(text: &str) -> BTreeSet<String> {
    let pack = PackText { name: "x".into(), text: format!("{text}\n") };
    let said = Definition::read(vec![pack]).unwrap_err().to_string();
    assert!(said.contains("`zzz`"), "{said}");
    said.split('`').skip(1).step_by(2).filter(|name| *name != "zzz").map(str::to_owned).collect()
}

#[test]
fn the_schema_knows_every_key_of_the_reader_and_no_other() {
    let schema = schema(&[]);
    let head = "[pack]\nid = \"x\"\nversion = \"1\"\n";
    let indicator = "[indicators.X]\ntitle = {}\ntables = [[]]\n";
    for (text, at) in [
        ("[zzz]".to_owned(), ""),
        ("[pack]\nzzz = 1".into(), "/properties/pack"),
        (format!("{head}[locations]\nzzz = 1"), "/properties/locations"),
        (format!("{head}[lifecycle]\nzzz = 1"), "/properties/lifecycle"),
        (format!("{head}[fields]\na = {{ zzz = 1 }}"), "/$defs/field/anyOf/1"),
        (format!("{head}[fields]\na = \"zzz\""), "/$defs/field_type"),
        (format!("{head}[concepts.a]\nzzz = 1"), "/$defs/concept"),
        (format!("{head}[values]\na.zzz = 1"), "/$defs/value"),
        (format!("{head}[values]\na.age = {{ zzz = 1 }}"), "/$defs/value/properties/age"),
        (format!("{head}[values]\na.days = {{ zzz = 1 }}"), "/$defs/value/properties/days"),
        (format!("{head}[dimensions.a]\nzzz = 1"), "/$defs/dimension"),
        (format!("{head}[indicators.X]\nzzz = 1"), "/$defs/indicator"),
        (format!("{head}{indicator}latest = {{ zzz = 1 }}"), "/$defs/latest"),
        (format!("{head}{indicator}any_of = [{{ zzz = 1 }}]"), "/$defs/alternative"),
        (
            format!("{head}{indicator}framework = [{{ zzz = 1 }}]"),
            "/$defs/indicator/properties/framework/items",
        ),
        (format!("{head}{indicator}per = {{ zzz = 1 }}"), "/$defs/indicator/properties/per"),
        (format!("{head}{indicator}ratio = {{ zzz = 1 }}"), "/$defs/indicator/properties/ratio"),
        (
            format!("{head}{indicator}periods = [\"zzz\"]"),
            "/$defs/indicator/properties/periods/items",
        ),
        (format!("{head}{indicator}placed = \"zzz\""), "/$defs/placed/anyOf/0"),
        (format!("{head}[extracts.x]\nzzz = 1"), "/$defs/extract"),
    ] {
        let part = schema.pointer(at).unwrap_or_else(|| panic!("{at} is missing"));
        let of_schema: BTreeSet<String> = match (&part["properties"], &part["enum"]) {
            (Value::Object(keys), _) => keys.keys().cloned().collect(),
            (_, Value::Array(words)) => {
                words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
            }
            _ => panic!("{at} has neither keys nor words"),
        };
        assert_eq!(of_schema, known_to_the_reader(&text), "{at}");
    }
}

#[test]
fn the_schema_of_the_configuration_knows_every_key_of_the_reader() {
    let schema = schema(&["--config"]);
    let program = Program::new();
    for (text, at) in [
        ("zzz = 1", ""),
        ("[database]\nzzz = 1", "/properties/database"),
        ("[log]\nzzz = 1", "/properties/log"),
        ("[web]\nzzz = 1", "/properties/web"),
        ("[state]\nzzz = 1", "/properties/state"),
        ("[[instances]]\nzzz = 1", "/properties/instances/items"),
    ] {
        fs::write(program.path("other.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tonle"));
        command.args(["config", "show", "--config"]).arg(program.path("other.toml"));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        let known: BTreeSet<&str> =
            said.split('`').skip(1).step_by(2).filter(|name| *name != "zzz").collect();
        let keys = schema.pointer(at).unwrap()["properties"].as_object().unwrap();
        assert_eq!(keys.keys().map(String::as_str).collect::<BTreeSet<_>>(), known, "{said}");
    }
    // The configuration of README, complete.
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, block) = readme.split_once("```toml\npacks = ").unwrap();
    let text = format!("packs = {}", block.split_once("```").unwrap().0);
    assert_eq!(complaints(&schema, &schema, &as_json(&text)), [""; 0]);
    let wrong = json!({ "packs": [] });
    assert_eq!(complaints(&schema, &schema, &wrong).len(), 2, "no pack, and four keys are missing");
}

/// Every key says what it is, itself or where it refers to.
fn undescribed(root: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let of_ref = inner["$ref"].as_str().and_then(|path| root.pointer(&path[1..]));
        let told = inner["description"].as_str().or(of_ref.and_then(|r| r["description"].as_str()));
        if told.is_none_or(|told| told.len() < 8) {
            found.push(format!("{at}/{key}"));
        }
    }
    match schema {
        Value::Object(parts) => {
            for (key, part) in parts {
                undescribed(root, part, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(parts) => parts.iter().for_each(|part| undescribed(root, part, at, found)),
        _ => {}
    }
}

#[test]
fn every_key_of_a_schema_is_described() {
    for arguments in [&[][..], &["--config"]] {
        let (schema, mut found) = (schema(arguments), Vec::new());
        undescribed(&schema, &schema, "", &mut found);
        assert_eq!(found, [""; 0]);
    }
}

const OVERLAY: &str = "[pack]\nid = \"mine\"\nversion = \"7\"\nhistory_start = \"2016-01-01\"\n\
    [fields]\nsex = { type = \"option\", values = [\"male\", \"female\", \"other\"] }\n\
    [dimensions.sex]\nfrom = \"sex\"\n\
    [subforms.empty]\n[populations.\"with a space\"]\nsex = \"male\"\n";

/// Standard output of a command that ends well.
fn shown(program: &Program, arguments: &[&str]) -> String {
    let output = program.command(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn overlaid() -> Program {
    let program = Program::new()
        .server_at("kampot", "http://127.0.0.1:1", "page_size = 250")
        .with("packs = [\"cp-core\", \"mine.toml\"]");
    fs::write(program.path("mine.toml"), OVERLAY).unwrap();
    program
}

#[test]
fn what_is_shown_read_again_means_the_same() {
    let program = overlaid();
    let text = shown(&program, &["config", "show"]);
    assert!(!text.contains('#') && text.contains("page_size = 250\n"), "{text}");
    assert!(text.contains("timeout_seconds = 120\n") && text.contains("workers = 1\n"), "{text}");
    let mut all: toml::Table = text.parse().unwrap();
    let ours =
        ["packs", "pseudonym_key_file", "time_zone", "workers", "state_directory", "database"];
    for key in ours.iter().chain(&["erasure_seconds", "log", "instances"]) {
        assert!(all.remove(*key).is_some(), "{key} is not shown");
    }
    let read = |texts: Vec<PackText>| Definition::read(texts).unwrap();
    let mine = PackText { name: "mine.toml".into(), text: OVERLAY.into() };
    let mut expected = read(vec![PackText::shipped("cp-core").unwrap(), mine]);
    let mut again = read(vec![PackText { name: "shown".into(), text: all.to_string() }]);
    let both = &again.packs[0];
    assert!(both.starts_with("cp-core, mine ") && both.ends_with(", 7"), "{both}");
    (expected.packs, again.packs) = (vec![], vec![]);
    assert_eq!(format!("{again:?}"), format!("{expected:?}"));
}

#[test]
fn each_value_shown_says_where_it_came_from() {
    let program = overlaid();
    let text = shown(&program, &["config", "show", "--origin"]);
    let line = |file: &str, text: &str, word: &str| {
        let line = text.lines().position(|line| line.starts_with(word)).unwrap() + 1;
        format!("{file} line {line}")
    };
    let own = fs::read_to_string(program.path("tonle.toml")).unwrap();
    let (own_file, mine) = (program.path("tonle.toml"), program.path("mine.toml"));
    let (own_file, mine) = (own_file.display().to_string(), mine.display().to_string());
    let core = |word: &str| line("packs/cp-core.toml", SHIPPED[0].1, word);
    for expected in [
        format!("page_size = 250  # from {}", line(&own_file, &own, "page_size")),
        format!("packs = [\"cp-core\", \"mine.toml\"]  # from {}", line(&own_file, &own, "packs")),
        "poll_seconds = 1  # from".into(),
        "timeout_seconds = 120  # default".into(),
        "schema = \"tonle\"  # default".into(),
        "  # from --database-url or TONLE_DATABASE_URL".into(),
        format!("age = \"integer\"  # from {}", core("age =")),
        format!(
            "[dimensions.sex]  # from {}, replaces {}",
            line(&mine, OVERLAY, "[dimensions.sex]"),
            core("[dimensions.sex]")
        ),
        format!(", replaces {}", core("sex =")),
        format!("[populations.\"with a space\"]  # from {mine} line"),
        format!("[lifecycle]  # from {}", core("[lifecycle]")),
    ] {
        assert!(text.contains(&expected), "expected {expected} in\n{text}");
    }
    assert!(text.parse::<toml::Table>().is_ok(), "{text}");
}

#[test]
fn no_secret_is_shown() {
    let program = overlaid();
    let url = "postgres://tonle:hush-4711@db.example.org:5433/reporting?sslmode=disable";
    let text = shown(&program, &["config", "show", "--origin", "--database-url", url]);
    let without = "postgres://tonle@db.example.org:5433/reporting?sslmode=disable";
    assert!(text.contains(without), "{text}");
    let own = fs::read_to_string(program.path("tonle.toml")).unwrap();
    fs::write(program.path("other.toml"), own.replace("url = \"\"", &format!("url = {url:?}")))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tonle"));
    command.args(["config", "show", "--config"]).arg(program.path("other.toml"));
    let output = command.env_remove("TONLE_DATABASE_URL").output().unwrap();
    let other = String::from_utf8(output.stdout).unwrap();
    assert!(other.contains(without), "{other}");
    for text in [text, other] {
        let key = fs::read_to_string(program.path("pseudonym.key")).unwrap();
        let password = fs::read_to_string(program.path("kampot.password")).unwrap();
        for secret in ["hush-4711", key.trim(), password.trim()] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn the_state_is_sealed_with_the_key_that_is_named() {
    let sim = primero(cases_of_today(9, 20));
    let mut program = Program::new().server("kampot", &sim);
    let key = |first: u8| (0..32).map(|n| format!("{:02x}", first.wrapping_add(n))).collect();
    let (one, other): (String, String) = (key(7), key(8));
    program.write_secret("one.key", &format!("{one}\n"));
    program.write_secret("other.key", &other);
    program.write_secret("short.key", &one[2..]);
    program.set("state = { key_file = \"one.key\" }");
    program.once(0);
    let segment = || {
        let entries = fs::read_dir(program.path("state")).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        fs::read(paths.iter().min().unwrap()).unwrap()
    };
    let clear = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"kampot");
    assert!(!clear(&segment()));
    let shown = shown(&program, &["config", "show"]);
    assert!(shown.contains("[state]\nkey_file = \"one.key\"\n"), "{shown}");
    assert!(!shown.contains(&one), "{shown}");

    for (line, words) in [
        ("state = {}", "it is sealed, and there is no key"),
        ("state = { key_file = \"other.key\" }", "it is sealed with another key"),
        ("state = { key_file = \"short.key\" }", "expected 32 bytes as 64 hex digits"),
        ("state = { key_file = \"absent.key\" }", "absent.key"),
    ] {
        program.set(line);
        let run = program.once(2);
        assert!(run.text.contains(words) && run.text.contains("key_file"), "{line}: {}", run.text);
        assert!(!run.text.contains(&one) && !run.text.contains(&one[2..]), "{}", run.text);
    }
    program.set("state = { key_file = \"other.key\", previous_key_files = [\"one.key\"] }");
    program.once(0);
    program.assert_true_to_state();
}

/// What is told of files that others may use.
fn told_of_secrets(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.contains("that others may use")).collect()
}

#[test]
fn keys_and_passwords_that_others_may_use_are_told_and_taken_all_the_same() {
    let sim = primero(cases_of_today(9, 20));
    let mut program = Program::new().server("kampot", &sim);
    // Two instances may share a password: it is told once.
    program.put_instance(
        "takeo",
        format!(
            "url = {:?}\nuser = \"api_reader\"\npassword_file = \"kampot.password\"\n",
            sim.base_url()
        ),
    );
    let key = |first: u8| (0..32).map(|n| format!("{:02x}", first.wrapping_add(n))).collect();
    let keys: [String; 2] = [key(7), key(8)];
    program.write_secret("state.key", &keys[0]);
    program.write_secret("before.key", &keys[1]);
    let state = "state = { key_file = \"state.key\", previous_key_files = [\"before.key\"] }";
    program.set(state);
    let run = program.once(0);
    assert_eq!(told_of_secrets(&run.text), [""; 0], "{}", run.text);

    let open = [
        ("pseudonym.key", 0o644),
        ("state.key", 0o602),
        ("before.key", 0o601),
        ("kampot.password", 0o666),
    ];
    let set_mode = |name: &str, mode| {
        fs::set_permissions(program.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    open.iter().for_each(|(name, mode)| set_mode(name, *mode));
    for arguments in [&["run", "--once"][..], &["check"], &["state", "show"]] {
        let ending = program.end(arguments);
        assert_eq!(ending.code, 0, "{}", ending.text);
        let told = told_of_secrets(&ending.text);
        assert_eq!(told.len(), open.len(), "{told:#?}");
        for (line, (name, mode)) in told.iter().zip(open) {
            let path = program.path(name).display().to_string();
            let words = [" WARN ", &path, &format!("\"{mode:04o}\""), &format!("chmod 600 {path}")];
            assert!(words.iter().all(|words| line.contains(words)), "{words:?} in {line}");
        }
        for name in open.map(|(name, _)| name) {
            let secret = fs::read_to_string(program.path(name)).unwrap();
            assert!(!ending.text.contains(secret.trim()), "{name} is in {}", ending.text);
        }
    }
    // What the group may do is the operator's matter.
    open.iter().for_each(|(name, _)| set_mode(name, 0o660));
    let check = program.end(&["check"]);
    assert_eq!(told_of_secrets(&check.text), [""; 0], "{}", check.text);
}

#[test]
fn the_password_of_the_database_is_told_where_its_file_is_read() {
    let sim = primero(cases_of_today(9, 3));
    let program = Program::new().server("kampot", &sim);
    let check = |program: &Program| program.end(&["check"]);
    assert_eq!(told_of_secrets(&check(&program).text), [""; 0]);
    let url = program.url();
    let (_, rest) = url.split_once("://").unwrap();
    let password = rest.split(['@', '/']).next().and_then(|user| user.split_once(':'));
    program.write_secret("database.password", password.map_or("any", |(_, password)| password));
    let path = program.path("database.password");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    let named = format!("url = {url:?}\npassword_file = \"database.password\"\n");
    let mut command = program.command(&["check"]);
    let text = fs::read_to_string(program.path("tonle.toml")).unwrap();
    fs::write(program.path("tonle.toml"), text.replace("url = \"\"\n", &named)).unwrap();
    for (is_read, told) in [(false, 0), (true, 1)] {
        if is_read {
            command.env_remove("TONLE_DATABASE_URL");
        }
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        let lines = told_of_secrets(&text);
        assert_eq!(lines.len(), told, "{text}");
        assert!(lines.iter().all(|line| line.contains(path.to_str().unwrap())), "{text}");
    }
}

/// A pack with a concept of the simulated server, whose label it asserts.
fn asserting(label: &str) -> String {
    format!(
        "[pack]\nid = \"mine\"\nversion = \"1\"\n[concepts.girls]\nfield = \"sex\"\nids = [\"female\"]\n\
         assert_labels.female = {{ en = {label:?}, km = \"ស្រី\" }}\n"
    )
}

#[test]
fn a_label_that_is_not_as_asserted_fails_the_check_and_is_told_while_running() {
    let sim = primero(cases_of_today(8, 20));
    let mut program = Program::new().server("kampot", &sim);
    program.set("packs = [\"cp-core\", \"mine.toml\"]");
    fs::write(program.path("mine.toml"), asserting("Woman")).unwrap();
    let check = program.end(&["check"]);
    assert_eq!(check.code, 65, "{}", check.text);
    for word in ["kampot", "girls", "sex \"female\"", "\"Woman\"", "\"Female\"", "assert_labels"] {
        assert!(check.text.contains(word), "expected {word} in\n{}", check.text);
    }
    let run = program.once(0);
    assert!(run.text.contains("found an option with another label"), "{}", run.text);
    let told = program.query("SELECT last_error FROM tonle.sync_status WHERE instance = 'kampot'");
    assert!(told.contains("girls") && told.contains("Female"), "{told}");

    // The Khmer label, which the server does not give, is told and no error.
    fs::write(program.path("mine.toml"), asserting("Female")).unwrap();
    let check = program.end(&["check"]);
    assert_eq!(check.code, 0, "{}", check.text);
    assert!(check.text.contains("does not give: sex \"female\""), "{}", check.text);
    program.once(0);
    let told = "SELECT last_error IS NULL FROM tonle.sync_status WHERE instance = 'kampot'";
    assert_eq!(program.query(told), "t");
}
