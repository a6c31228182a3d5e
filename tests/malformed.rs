//! Ten thousand malformed packs: each gives an error that names its file and line, or works; none a panic.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use toml::{Table, Value};
use tonle::error::Kind;
use tonle::indicator::{Definition, InstanceDefinition, PackText, Plan, SHIPPED};
use tonle::model::{Dictionary, LocationTree};

use crate::support::packs::random_pack;

/// Packs that are tried.
const PACKS: u64 = 10_000;

/// Of so many one is made of a shipped pack, which are large; the others of random ones.
const SHIPPED_EVERY: u64 = 20;

/// Most changes of one pack; half of the packs have one.
const CHANGES_MAX: usize = 3;

/// Items of a list that is too long.
const HUGE: usize = 2_000;

/// Levels of what is nested too deeply.
const DEEP: usize = 60;

/// Somewhere in a table: the keys on the way.
fn places(table: &Table, at: &[String], found: &mut Vec<Vec<String>>) {
    for (key, value) in table {
        let path = [at, std::slice::from_ref(key)].concat();
        if let Value::Table(inner) = value {
            places(inner, &path, found);
        }
        found.push(path);
    }
}

fn holder<'a>(table: &'a mut Table, path: &[String]) -> Option<&'a mut Table> {
    let mut at = table;
    for key in &path[..path.len() - 1] {
        at = at.get_mut(key)?.as_table_mut()?;
    }
    Some(at)
}

/// A value that fits nowhere, or nearly nowhere.
fn odd(rng: &mut ChaCha8Rng) -> Value {
    match rng.random_range(0..18) {
        0 => Value::Integer(i64::MAX),
        1 => Value::Integer(i64::MIN),
        2 => Value::Integer(-1),
        3 => Value::Float(f64::NAN),
        4 => Value::Float(1e308),
        5 => Value::Boolean(rng.random_bool(0.5)),
        6 => Value::String(String::new()),
        7 => Value::String("ក្មេង\u{0}\u{7f}".into()),
        8 => Value::String("x".repeat(100_000)),
        9 => Value::String("-2147483648..2147483647".into()),
        10 => Value::String("2147483647..99999999999".into()),
        11 => Value::String("a.b.c.d".into()),
        12 => Value::Array(Vec::new()),
        13 => Value::Table(Table::new()),
        14 => Value::Array(vec![Value::String("sex".into()); HUGE]),
        15 => (0..DEEP).fold(Value::Boolean(true), |inner, _| Value::Array(vec![inner])),
        16 => {
            let nest = |inner, _| Value::Table([("not".to_owned(), inner)].into_iter().collect());
            (0..DEEP).fold(Value::Boolean(true), nest)
        }
        _ => {
            let nest = |inner, _| {
                let group = Value::Table([("any".to_owned(), inner)].into_iter().collect());
                Value::Array(vec![group])
            };
            (0..rng.random_range(1..8)).fold(Value::Array(vec![]), nest)
        }
    }
}

/// Changes one place of a pack that is read as a table.
fn change(table: &mut Table, rng: &mut ChaCha8Rng) {
    let mut all = Vec::new();
    places(table, &[], &mut all);
    if all.is_empty() {
        return;
    }
    let pick = |rng: &mut ChaCha8Rng| all[rng.random_range(0..all.len())].clone();
    let (path, other) = (pick(rng), pick(rng));
    let key = path[path.len() - 1].clone();
    let elsewhere = holder(table, &other).and_then(|at| at.get(&other[other.len() - 1]).cloned());
    let Some(at) = holder(table, &path) else { return };
    match rng.random_range(0..6) {
        0 => drop(at.remove(&key)),
        1 => {
            // A letter too few, or another name altogether.
            let name =
                if rng.random_bool(0.7) { key.chars().skip(1).collect() } else { "ក".into() };
            if let Some(value) = at.remove(&key) {
                at.insert(name, value);
            }
        }
        2 => {
            let value = at.get(&key).cloned();
            at.insert(format!("{key}_2"), value.unwrap_or(Value::Boolean(true)));
        }
        3 => drop(at.insert(key, elsewhere.unwrap_or(Value::Integer(0)))),
        _ => drop(at.insert(key, odd(rng))),
    }
}

/// Changes the text itself: cut anywhere, also within a letter, or with something between.
fn spoil(text: &str, rng: &mut ChaCha8Rng) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = rng.random_range(0..=bytes.len());
    match rng.random_range(0..6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..bytes.len().min(at + rng.random_range(1..40)))),
        2 => drop(bytes.splice(at..at, "ខ្មែរ".bytes().take(rng.random_range(1..9)))),
        3 => drop(bytes.splice(at..at, std::iter::repeat_n(b'[', 5_000))),
        4 => drop(bytes.splice(at..at, "{a=".bytes().cycle().take(3_000))),
        _ => {
            let line = text.lines().nth(rng.random_range(0..text.lines().count().max(1)));
            bytes.extend(line.unwrap_or_default().bytes());
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How far a pack came; panics when an error does not say where it is.
fn follow(text: &str, instances: &[InstanceDefinition], compile: bool) -> &'static str {
    let pack = PackText { name: "mine.toml".into(), text: text.to_owned() };
    let definition = match Definition::read(vec![pack]) {
        Ok(definition) => Arc::new(definition),
        Err(error) => {
            let said = error.to_string();
            assert_eq!(error.kind(), Kind::Config, "{said}");
            let line = said.strip_prefix("reading mine.toml line ");
            let line = line.and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
            let lines = text.lines().count() + 1;
            assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "{said}");
            return "refused";
        }
    };
    if !compile {
        return "read";
    }
    let (tree, mut dictionary) = (LocationTree::default(), Dictionary::default());
    match Plan::compile(definition, instances, &tree, &mut dictionary) {
        Ok(_) => "compiled",
        Err(error) => {
            assert_eq!(error.kind(), Kind::Config, "{error}");
            "too large"
        }
    }
}

#[test]
fn ten_thousand_malformed_packs_are_refused_with_their_place_or_work() {
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    let shipped: Vec<Table> = SHIPPED.iter().map(|(_, text)| text.parse().unwrap()).collect();
    for seed in 0..PACKS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let is_shipped = seed % SHIPPED_EVERY == 0;
        let random = random_pack(seed / 10);
        let mut table = match is_shipped {
            true => shipped[rng.random_range(0..shipped.len())].clone(),
            false => random.text.text.parse().unwrap(),
        };
        let changes = if rng.random() { 1 } else { rng.random_range(1..=CHANGES_MAX) };
        for _ in 0..changes {
            change(&mut table, &mut rng);
        }
        let mut text = toml::to_string(&table).unwrap();
        if rng.random_bool(0.2) {
            text = spoil(&text, &mut rng);
        }
        *ends.entry(follow(&text, &random.instances, !is_shipped)).or_default() += 1;
    }
    // Neither end would prove anything alone.
    for end in ["refused", "compiled"] {
        assert!(ends.get(end).is_some_and(|count| *count > PACKS / 20), "{ends:?}");
    }
}

#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let pack = PackText { name: "mine.toml".into(), text: text.to_owned() };
    let said = Definition::read(vec![pack]).unwrap_err().to_string();
    for word in words {
        assert!(said.contains(word), "expected {word}: {said}");
    }
}

#[test]
fn an_age_without_a_month_of_birth_says_what_to_add() {
    let head =
        "[pack]\nid = \"x\"\nversion = \"1\"\n[fields]\nborn = \"date\"\nregistered = \"date\"\n";
    let advice = "add date_of_birth = \"birth_month\" to [fields]";
    for born in ["", "born = \"born\", ", "born = \"date_of_birth\", "] {
        let value = format!("{head}[values.age]\nage = {{ {born}on = \"registered\" }}\n");
        let line = if born.is_empty() { "line 7: values.age" } else { "line 8: values.age" };
        refused(&value, &["mine.toml", line, advice]);
    }
}

#[test]
fn a_day_of_first_sight_is_named_after_the_field_it_watches() {
    let head =
        "[pack]\nid = \"x\"\nversion = \"1\"\n[fields]\nsex = \"option\"\nconcerns = \"options\"\n";
    for name in ["first_seen", "age_first_seen", "concerns_first_seen", "sex_first_seen_first_seen"]
    {
        let wrong = "expected the name of a declared field with one value, followed by _first_seen";
        refused(&format!("{head}{name} = \"first_seen\"\n"), &["line 7", name, wrong]);
    }
    let pack = format!("{head}[subforms.s]\nkind = \"option\"\nkind_first_seen = \"first_seen\"\n");
    refused(&pack, &["line 9", "for fields of the case only"]);
}

#[test]
fn a_name_that_is_near_to_nothing_is_told_what_there_is() {
    let head =
        "[pack]\nid = \"x\"\nversion = \"1\"\n[fields]\nsex = \"option\"\nage = \"integer\"\n";
    refused(
        &format!("{head}[dimensions.d]\nfrom = \"nationality\"\n"),
        &["line 8: dimensions.d", "no field \"nationality\"", "expected one of [\"age\", \"sex\"]"],
    );
    refused(
        &format!("{head}[dimensions.d]\nfrom = \"services.kind\"\n"),
        &["no subform \"services\"", "none is declared"],
    );
    refused(
        &format!(
            "{head}[lifecycle]\nopened = \"age\"\nclosed = \"age\"\nstatus = \"sex\"\nclosed_when = []\n"
        ),
        &[
            "line 8: lifecycle.opened",
            "age is of type integer, expected a field of type date or datetime",
        ],
    );
}
