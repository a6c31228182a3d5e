//! Malformed packs: every mistake is named with its place, and nothing that can be written makes a panic.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tonle::error::Kind;
use tonle::indicator::{Definition, InstanceDefinition, Judgement, PackText, Plan, SHIPPED};
use tonle::model::{Day, Dictionary, LocationTree};

use crate::support::histories::{Country, FIRST_DAY};

/// Changed packs that are tried.
const CHANGED_PACKS: u32 = 2_000;

/// Most changes of one pack.
const CHANGES_MAX: usize = 4;

/// The first lines of the population that nearly every indicator counts.
const STRICT: &str =
    "[populations.strict]\nrecord_type = { not = \"incident\" }\nrecord_state = true";

/// Reads the core pack with the first `find` replaced, and expects an error at the line of `line` that says
/// all of `words`.
#[track_caller]
fn check(find: &str, replace: &str, line: &str, words: &[&str]) {
    let (_, core) = SHIPPED[0];
    assert!(core.contains(find), "the core pack lacks {find}");
    let text = core.replacen(find, replace, 1);
    let number = text.lines().position(|one| one.contains(line));
    let number = number.unwrap_or_else(|| panic!("no line has {line}")) + 1;
    let pack = PackText { name: "overlay.toml".into(), text };
    let error = Definition::read(vec![pack]).expect_err(replace);
    let said = error.to_string();
    assert_eq!(error.kind(), Kind::Config, "{said}");
    let place = format!("reading overlay.toml line {number}: ");
    assert!(said.starts_with(&place), "expected line {number}: {said}");
    for word in words {
        assert!(said.contains(word), "expected {word}: {said}");
    }
}

#[test]
fn a_misspelt_name_is_told_the_nearest() {
    let near = |name: &str| format!("the nearest is {name:?}");
    for (find, replace, line, key, name) in [
        ("[dimensions.sex]", "[dimension.sex]", "[dimension.sex]", "`dimension`", "dimensions"),
        (
            "service_implemented = \"implemented\"",
            "service_implemented = \"implementd\"",
            "implementd",
            "indicators.SV-01.rows.service_implemented",
            "implemented",
        ),
        ("[lifecycle]", "[lifecycles]", "[lifecycles]", "`lifecycles`", "lifecycle"),
        ("[pack]", "[pak]", "[pak]", "`pak`", "pack"),
        ("type = \"option\"", "type = \"optoin\"", "optoin", "`optoin`", "option"),
        ("values = [\"male\"", "value = [\"male\"", "value = [\"male\"", "`value`", "values"),
        ("from = \"sex\"", "form = \"sex\"", "form = ", "`form`", "from"),
        ("count = \"cases\"", "cuont = \"cases\"", "cuont", "`cuont`", "count"),
        ("placed = \"stock\"", "placed = \"stok\"", "\"stok\"", "`stok`", "stock"),
        ("[\"month\"", "[\"mounth\"", "mounth", "`mounth`", "month"),
        ("from = \"sex\"", "from = \"sx\"", "from = \"sx\"", "dimensions.sex", "sex"),
        (
            "from = \"services_section.",
            "from = \"service_section.",
            "from = \"service_section.",
            "values.days_to_service",
            "services_section",
        ),
        (
            "level = \"district\"",
            "level = \"distrct\"",
            "distrct",
            "dimensions.district",
            "district",
        ),
        (
            "rows of services_section",
            "rows of services",
            "rows of services\"",
            "indicators.SV-01",
            "services_section",
        ),
        (
            "population = \"strict\"",
            "population = \"strickt\"",
            "strickt",
            "indicators.CM-01",
            "strict",
        ),
        (
            "flow = \"registration_date\"",
            "flow = \"registered_date\"",
            "registered_date",
            "indicators.CM-01",
            "registration_date",
        ),
        (
            "[\"sex\", \"age_group\"]",
            "[\"sex\", \"age_grp\"]",
            "\"age_grp\"]",
            "indicators.CM-01",
            "age_group",
        ),
        (
            "where = { status =",
            "where = { statsu =",
            "statsu",
            "indicators.CM-04.where.statsu",
            "status",
        ),
        (
            "concept = \"separated\"",
            "concept = \"seperated\"",
            "seperated",
            "indicators.RC-04.where.protection_status",
            "separated",
        ),
        (
            "median = \"days_to_close\"",
            "median = \"days_to_clos\"",
            "days_to_clos\"",
            "indicators.TQ-05-closed",
            "days_to_close",
        ),
        (
            "denominator = [\"CM-01\"",
            "denominator = [\"CM-1\"",
            "\"CM-1\"",
            "indicators.CM-06",
            "CM-01",
        ),
        (
            "rows = { service_implemented =",
            "rows = { service_implemnted =",
            "service_implemnted",
            "indicators.SV-01.rows.service_implemnted",
            "service_implemented",
        ),
        (
            STRICT,
            "[populations.strict]\nrecord_type = { not = \"incident\" }\nrecord_stat = true",
            "record_stat =",
            "populations.strict.record_stat",
            "record_state",
        ),
        ("share_over = \"risk_level\"", "share_over = \"risk\"", "\"risk\"", "RC-01", "risk_level"),
        (
            "opened = \"reg",
            "opened = \"rg",
            "opened = \"rg",
            "lifecycle.opened",
            "registration_date",
        ),
        (
            "\"sex\", \"age_now\", \"district\", \"s",
            "\"sexx\", \"s",
            "sexx",
            "extracts.cases",
            "sex",
        ),
    ] {
        check(find, replace, line, &[key, &near(name)]);
    }
}

#[test]
fn what_does_not_fit_is_told_what_is_expected() {
    for (find, replace, line, words) in [
        ("age = \"integer\"", "age = 7", "age = 7", ["a field type such as \"option\"", "7"]),
        ("age = \"integer\"", "Age = \"integer\"", "Age =", ["fields.Age", "a-z, 0-9 and _"]),
        ("bands = [\"0-5\"", "bands = [\"5-0\"", "\"5-0\"", ["dimensions.age_group", "\"5-0\""]),
        ("bands = [\"0-5\"", "bands = [\"0 to 5\"", "0 to 5", ["dimensions.age_group", "\"0-5\""]),
        ("bands = [", "values = [", "[dimensions.age_group]", ["dimensions.age_group", "`bands`"]),
        ("level = \"district\"", "", "[dimensions.district]", ["dimensions.district", "`level`"]),
        (
            "from = \"age\"",
            "from = \"date_closure\"",
            "[dimensions.age_now]",
            ["age_now", "periods"],
        ),
        (
            "status = { type = \"option\", values = [\"open\", \"closed\", \"transferred\", \"duplicate\"] }",
            "status = \"option\"",
            "[dimensions.status]",
            ["dimensions.status", "`values`"],
        ),
        ("count = \"cases\"", "count = \"children\"", "\"children\"", ["CM-01", "rows of SUBFORM"]),
        ("count = \"cases\"\n", "", "[indicators.CM-01]", ["CM-01", "rows of SUBFORM"]),
        ("flow = \"registration_date\"", "flow = \"sex\"", "flow = \"sex\"", ["CM-01", "date"]),
        (
            "flow = \"registration_date\"",
            "flow = \"reopened_logs.reopened_date\"",
            "flow = \"reopened_logs",
            ["CM-01", "not of what is counted"],
        ),
        (
            "count = \"rows of services_section\"\npopulation = \"strict\"",
            "count = \"rows of services_section\"\nplaced = \"stock\"\npopulation = \"strict\"",
            "placed = { flow = \"services_section",
            ["duplicate key", ""],
        ),
        ("placed = \"presence\"", "placed = \"now\"", "[indicators.CM-02]", ["CM-02", "`periods`"]),
        (
            "[\"sex\", \"age_group\"]",
            "[\"sex\", \"sex\"]",
            "[indicators.CM-01]",
            ["CM-01", "repeats"],
        ),
        (
            "[\"sex\", \"age_group\"]",
            "[\"service_type\"]",
            "[\"service_type\"]",
            ["CM-01", "rows that are not counted"],
        ),
        (
            "age_at_event = \"0..17\"",
            "age_at_event = \"17..0\"",
            "17..0",
            ["CM-02.where.age_at_event", "\"0..17\""],
        ),
        (
            "age_at_event = \"0..17\"",
            "age_at_event = true",
            "age_at_event = true",
            ["CM-02.where.age_at_event", "a number"],
        ),
        (
            STRICT,
            "[populations.strict]\nrecord_type = { not = \"incident\" }\nrecord_state = \"yes\"",
            "record_state = \"yes\"",
            ["populations.strict.record_state", "{ not = true }"],
        ),
        (
            "share_over = \"risk_level\"",
            "share_over = \"sex\"",
            "[indicators.RC-01]",
            ["RC-01", "lacks"],
        ),
        (
            "\"2015-01-01\"",
            "\"2015-13-01\"",
            "2015-13-01",
            ["pack.history_start", "\"2015-01-01\""],
        ),
        ("\"2015-01-01\"", "\"2015-01-01", "2015-01-01", ["invalid basic string", ""]),
        ("[indicators.CM-01]", "[indicators.\"CM 01\"]", "CM 01", ["indicators.CM 01", "letters"]),
        (
            "day_time = \"datetime\"",
            "day_time = \"options\"",
            "day_time = \"options\"",
            ["services_section.service_implemented_day_time", "a set"],
        ),
        (
            "month_of = \"date_closure\"",
            "month_of = \"sex\"",
            "month_of = \"sex\"",
            ["cases", "date"],
        ),
        (
            "\"sex\", \"age_now\", \"district\", \"status\", ",
            "\"protection_concern\", \"status\", ",
            "\"protection_concern\", \"status\", ",
            ["extracts.cases", "a set, a caseload"],
        ),
        ("key = \"case_key\"", "key = \"Case Key\"", "Case Key", ["extracts.cases", "a-z"]),
    ] {
        check(find, replace, line, &words);
    }
}

/// A change of a pack's text, by numbers that are taken modulo what there is.
#[derive(Clone, Debug)]
enum Change {
    DeleteLine(usize),
    RepeatLine { from: usize, to: usize },
    SwapLines(usize, usize),
    DeleteToken(usize),
    RepeatToken(usize),
    ReplaceToken { at: usize, by: usize },
    InsertOdd { at: usize, odd: usize },
}

/// Tokens that no pack holds.
const ODD: [&str; 16] = [
    "0",
    "-1",
    "9223372036854775807",
    "\"\"",
    "\"..\"",
    "\"0..99999999999\"",
    "\"-5--1\"",
    "\"99+\"",
    "[]",
    "[[]]",
    "{}",
    "\"។\"",
    "\u{0}",
    "nan",
    "1979-05-27",
    "\"a.b.c\"",
];

fn change() -> impl Strategy<Value = Change> {
    let any = || 0..100_000_usize;
    prop_oneof![
        1 => any().prop_map(Change::DeleteLine),
        1 => (any(), any()).prop_map(|(from, to)| Change::RepeatLine { from, to }),
        1 => (any(), any()).prop_map(|(one, other)| Change::SwapLines(one, other)),
        1 => any().prop_map(Change::DeleteToken),
        1 => any().prop_map(Change::RepeatToken),
        4 => (any(), any()).prop_map(|(at, by)| Change::ReplaceToken { at, by }),
        2 => (any(), any()).prop_map(|(at, odd)| Change::InsertOdd { at, odd }),
    ]
}

/// Words, quoted texts, and single other signs, so that joined they are the text again.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => rest[1..].find(['"', '\n']).map_or(rest.len(), |end| end + 2),
            c if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(end);
        tokens.push(token);
        rest = after;
    }
    tokens
}

/// Where the tokens are that are not white space.
fn full(tokens: &[&str]) -> Vec<usize> {
    (0..tokens.len()).filter(|at| !tokens[*at].trim().is_empty()).collect()
}

fn apply(text: &str, change: &Change) -> String {
    let mut lines: Vec<_> = text.split_inclusive('\n').collect();
    let mut words = tokens(text);
    let places = full(&words);
    if lines.is_empty() || places.is_empty() {
        return text.to_owned();
    }
    let count = lines.len();
    let (line, word) = (|at: usize| at % count, |at: usize| places[at % places.len()]);
    match *change {
        Change::DeleteLine(at) => {
            lines.remove(line(at));
            return lines.concat();
        }
        Change::RepeatLine { from, to } => {
            lines.insert(line(to), lines[line(from)]);
            return lines.concat();
        }
        Change::SwapLines(one, other) => {
            lines.swap(line(one), line(other));
            return lines.concat();
        }
        Change::DeleteToken(at) => drop(words.remove(word(at))),
        Change::RepeatToken(at) => words.insert(word(at), words[word(at)]),
        Change::ReplaceToken { at, by } => words[word(at)] = words[word(by)],
        Change::InsertOdd { at, odd } => words[word(at)] = ODD[odd % ODD.len()],
    }
    words.concat()
}

/// Reads and compiles packs and judges a few cases by them; says how far it came.
fn follow(texts: Vec<PackText>, seed: u64) -> &'static str {
    let definition = match Definition::read(texts) {
        Ok(definition) => Arc::new(definition),
        Err(error) => {
            assert_eq!(error.kind(), Kind::Config, "{error}");
            assert!(error.to_string().contains("reading "), "{error}");
            return "refused";
        }
    };
    let instances = ["kampot", "takeo"].map(InstanceDefinition::plain);
    let tree = LocationTree::default();
    let bare =
        Plan::compile(Arc::clone(&definition), &instances, &tree, &mut Dictionary::default());
    if let Err(error) = bare {
        assert_eq!(error.kind(), Kind::Config, "{error}");
        return "too large";
    }
    let mut country = Country::new(definition);
    let (mut rng, mut judgement) = (ChaCha8Rng::seed_from_u64(seed), Judgement::default());
    for days in [0, 700] {
        let case = country.case(&mut rng);
        country.plan.judge(&case, Day(FIRST_DAY.0 + days), &mut judgement);
    }
    "judged"
}

fn shipped() -> Vec<PackText> {
    ["cp-core", "cambodia"].map(|id| PackText::shipped(id).unwrap()).to_vec()
}

#[test]
fn a_changed_pack_is_refused_or_works_and_never_panics() {
    assert_eq!(follow(shipped(), 1), "judged");
    let ends: BTreeMap<_, Cell<u32>> =
        ["refused", "too large", "judged"].map(|end| (end, Cell::new(0))).into();
    let config = Config { cases: CHANGED_PACKS, ..Config::default() };
    let packs = prop::collection::vec((any::<bool>(), change()), 1..=CHANGES_MAX);
    let tried = TestRunner::new(config).run(&(packs, any::<u64>()), |(changes, seed)| {
        let mut texts = shipped();
        for (overlay, change) in &changes {
            let text = &mut texts[usize::from(*overlay)].text;
            *text = apply(text, change);
        }
        let count = &ends[follow(texts, seed)];
        count.set(count.get() + 1);
        Ok(())
    });
    tried.unwrap_or_else(|error| panic!("{error}"));
    // Neither end would prove anything alone.
    for end in ["refused", "judged"] {
        assert!(ends[end].get() > CHANGED_PACKS / 20, "{ends:?}");
    }
}

#[test]
fn tokens_joined_are_the_text() {
    for (_, text) in SHIPPED {
        assert_eq!(tokens(text).concat(), text);
    }
    assert_eq!(tokens("a_1 = \"b c\"\n"), ["a_1", " ", "=", " ", "\"b c\"", "\n"]);
    assert_eq!(tokens("\"open"), ["\"open"]);
}
