//! The decoder against the corpus of the fuzz target, and against thousands of changed files.

use std::fs;
use std::path::{Path, PathBuf};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tonle::model::{
    Arrival, Cursor, Domain, Durable, Epoch, EpochInput, FieldType, Interner, RecordChange,
    RecordKey, RowField, Schema, Subform,
};
use tonle::model::{CaseBuilder, Code, Day};
use tonle::state::fuzz::{EPOCH, KEY, Outcome, PIPELINE, decode, unpack};
use tonle::state::{Settings, SnapshotContent, State, StateKey};

use super::old::samples_are_ordered;
use super::sums::sums_of;
use super::world::{files, place, schema, sealed, settings, small_world_made};

/// Files of the corpus.
const CORPUS_FILES: usize = 14;

/// How many changed files are tried, and how many changed exports.
const INPUTS: usize = 20_000;
const EXPORTS: usize = 5_000;

/// Names another seed than the usual one.
const SEED_VARIABLE: &str = "TONLE_FUZZ_SEED";

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/state")
}

pub(super) fn read_corpus() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(corpus())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn the_corpus_is_read_or_refused_as_its_names_say() {
    let all = read_corpus();
    assert_eq!(all.len(), CORPUS_FILES);
    for (name, bytes) in &all {
        let [segment, snapshot] = decode(bytes, false);
        let expected = |outcome: &Outcome| match name.split('-').next().unwrap() {
            "whole" => matches!(outcome, Outcome::Read(count) if *count > 3),
            "otherkey" => *outcome == Outcome::Setting,
            _ => matches!(outcome, Outcome::Refused(at) if *at <= bytes.len() as u64),
        };
        let outcome = if name.ends_with("log") { &segment } else { &snapshot };
        assert!(expected(outcome), "{name}: {outcome:?}");
    }
}

#[test]
fn thousands_of_changed_files_are_read_or_refused() {
    let all = read_corpus();
    let mut random = random();
    let mut read = 0;
    for input in 0..INPUTS {
        let mut bytes = all[random.random_range(0..all.len())].1.clone();
        for _ in 0..random.random_range(1..6) {
            change(&mut bytes, &all, &mut random);
        }
        for outcome in decode(&bytes, random.random_bool(0.8)) {
            match outcome {
                Outcome::Read(_) => read += 1,
                Outcome::Refused(at) => assert!(at <= bytes.len() as u64, "input {input}"),
                Outcome::Setting => {}
            }
        }
    }
    // With checksums that are right some changes pass: else everything was refused at its door.
    assert!(read > 100, "{read}");
}

/// Decides what is changed; the variable repeats one.
#[allow(clippy::print_stdout)]
pub(super) fn random() -> ChaCha8Rng {
    let given = std::env::var(SEED_VARIABLE).ok().filter(|seed| !seed.is_empty());
    let seed =
        given.map_or(1, |seed| seed.parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE}={seed}")));
    println!("{SEED_VARIABLE}={seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

#[test]
fn thousands_of_changed_exports_are_unpacked_or_refused() {
    let outer = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for (name, how) in [("plain", settings as fn(&Path) -> Settings), ("sealed", sealed)] {
        let world = small_world_made(how, true);
        let path = outer.path().join(name);
        let view = State::read_only(&how(world.directory.path())).unwrap();
        let exported = view.export(&path, &schema()).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(unpack(&bytes, false), Some(exported.files));
        assert!((0..bytes.len()).all(|end| unpack(&bytes[..end], false).is_none()));
        all.push((name.to_owned(), bytes));
    }
    let mut random = random();
    let (mut unpacked, mut refused) = (0, 0);
    for _ in 0..EXPORTS {
        let mut bytes = all[random.random_range(0..all.len())].1.clone();
        for _ in 0..random.random_range(1..4) {
            change(&mut bytes, &all, &mut random);
        }
        assert!(all.iter().any(|(_, whole)| *whole == bytes) || unpack(&bytes, false).is_none());
        match unpack(&bytes, true) {
            Some(_) => unpacked += 1,
            None => refused += 1,
        }
    }
    // With a right checksum whatever changes only the content of files passes; they have checksums of their own.
    assert!(unpacked > 500 && refused > 500, "{unpacked} {refused}");
}

fn change(bytes: &mut Vec<u8>, all: &[(String, Vec<u8>)], random: &mut impl Rng) {
    let at = random.random_range(0..bytes.len().max(1));
    let end = (at + random.random_range(1..40)).min(bytes.len());
    match random.random_range(0..9) {
        _ if bytes.is_empty() => bytes.push(random.random()),
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = [0, 1, 127, 128, 250, 251, 252, 253, 254, 255][random.random_range(0..10)],
        2 => bytes[at] = bytes[at].wrapping_add(1),
        3 => bytes[at] = random.random(),
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(at..end)),
        6 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        7 => bytes[at..end].fill(0xff),
        _ => {
            let other = &all[random.random_range(0..all.len())].1;
            let from = random.random_range(0..other.len().max(1)).min(other.len());
            let to = (from + random.random_range(1..200)).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
    }
}

/// Writes the corpus anew, after a change of the format:
/// `TONLE_WRITE_SAMPLES=1 cargo test the_corpus_is_written -- --ignored`.
#[test]
#[ignore = "writes into fuzz/corpus if TONLE_WRITE_SAMPLES=1 orders it, else does nothing"]
fn the_corpus_is_written() {
    if !samples_are_ordered() {
        return;
    }
    fs::create_dir_all(corpus()).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(corpus().join(name), bytes).unwrap();
    for (kind, key) in [("plain", None), ("sealed", Some(KEY)), ("other", Some("f"))] {
        let key = key.map(|key| key.repeat(64 / key.len()));
        for (name, snapshot) in [("log", false), ("snapshot", true)] {
            let bytes = written(key.as_deref(), snapshot);
            if kind == "other" {
                write(&format!("otherkey-{name}"), &bytes);
                continue;
            }
            write(&format!("whole-{kind}-{name}"), &bytes);
            write(&format!("cut-{kind}-{name}"), &bytes[..bytes.len() - 5]);
            let mut flipped = bytes.clone();
            flipped[bytes.len() * 2 / 3] ^= 4;
            write(&format!("flipped-{kind}-{name}"), &flipped);
        }
    }
}

/// One file of a small state.
fn written(key: Option<&str>, snapshot: bool) -> Vec<u8> {
    let row = |name: &str, field_type| RowField { name: name.into(), field_type };
    let fields = vec![row("type", FieldType::Option), row("done", FieldType::Date)];
    let schema = Schema::new(
        [("age".into(), FieldType::Integer), ("concerns".into(), FieldType::Options)],
        vec![Subform { name: "services".into(), fields }],
    );
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("pipeline"), format!("{PIPELINE:032x}\n")).unwrap();
    let key = key.map(|key| StateKey::from_secret(&tonle::model::Secret::new(key)).unwrap());
    let settings = Settings::new(directory.path()).unwrap().with_keys(key, Vec::new()).unwrap();
    let mut state = State::open(&settings).unwrap();
    state.restore(None, &schema).unwrap();
    let dictionary = Interner::default();
    let instance = dictionary.intern(Domain::Instance, "kampot").unwrap();
    let case = |n: u8| {
        let mut builder = CaseBuilder::new(&schema, instance);
        builder.put(schema.field("age").unwrap().slot, CaseBuilder::integer(i64::from(n)));
        builder.put(schema.field("concerns").unwrap().slot, u32::from(n % 3) + 1);
        for row in 0..n % 3 {
            builder.row(&schema.subforms()[0], 0, RecordKey(u128::from(row)), &[300, 45_000]);
        }
        (RecordKey(u128::from(n.wrapping_mul(77)) << 120 | 3), builder.finish(&schema))
    };
    for n in 0..5 {
        let epoch = Epoch(EPOCH + n);
        let change = |(key, case)| RecordChange { key, case: (n != 3).then_some(case) };
        let arrival = Arrival {
            instance,
            cursor: Cursor::default(),
            deferred: n == 2,
            is_backfill: false,
            changes: (0..3).map(case).map(change).collect(),
        };
        let (locations, today) = (vec![(instance, vec![place(1, "p")])], Some(Day(45_000)));
        let input = EpochInput {
            epoch,
            arrivals: vec![arrival],
            locations,
            today,
            ..EpochInput::default()
        };
        let logged = state.append(&input, &dictionary).unwrap().wait().unwrap();
        state.commit(Durable::after_commit(logged.epoch())).unwrap();
    }
    if snapshot {
        let content = SnapshotContent {
            epoch: Epoch(EPOCH),
            records: (0..12).map(case).collect(),
            sums: Some(sums_of(&(0..12).map(case).collect(), Some(Day(45_000)))),
            deferred: [(Code(1), vec![RecordChange { key: RecordKey(1), case: None }])].into(),
            cursors: [(instance, Cursor::default())].into(),
            today: Some(Day(45_000)),
            locations: [(instance, vec![place(1, "p")])].into(),
            dictionary,
        };
        state.snapshot(content).unwrap();
    }
    drop(state);
    let extension = if snapshot { "snap" } else { "seg" };
    fs::read(&files(directory.path(), extension)[0]).unwrap()
}
