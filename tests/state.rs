//! The state against a plain model: whatever was logged, snapshotted, cut or damaged, what comes
//! back is what went in, or a clear error.

#![allow(clippy::unwrap_used)]

mod bundle;
mod disk;
mod fuzz;
mod memory;
mod old;
mod power;
mod sealed;
mod shards;
mod sums;
mod world;

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use rand::RngExt;
use tonle::error::Kind;
use tonle::model::{
    Arrival, Case, CaseBuilder, Code, Cursor, Day, Domain, Durable, Epoch, EpochInput, FieldType,
    Interner, RecordChange, RecordKey, RowField, Schema, Subform,
};
use tonle::state::{Agreement, Settings, SnapshotContent, State};

use world::{
    How, Step, World, case, copy, files, frames, key, schema, sealed, settings, small_world,
    small_world_made, state_key, step, view, view_with,
};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let changes = prop::collection::vec((0u8..12, prop::option::weighted(0.8, 0u16..500)), 0..6);
    let flags = (any::<bool>(), prop::bool::weighted(0.2), any::<bool>(), any::<bool>());
    let around = (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.1),
        any::<bool>(),
    );
    let today = prop::option::weighted(0.3, 40_000u32..50_000);
    let step = (0u8..3, changes, today, flags, around).prop_map(
        |(instance, changes, today, (deferred, release, places, term), around)| Step {
            instance,
            changes,
            deferred,
            release,
            today,
            places,
            term,
            gap: around.0,
            snapshot: around.1,
            restart: around.2,
            backfill: around.3,
        },
    );
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Any history, asked for at any epoch, is what a plain map says.
    #[test]
    fn any_history_comes_back_as_of_any_epoch(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        let last = world.last();
        let kept = world.snapshots.len().saturating_sub(2);
        let oldest = if world.snapshots.len() < 2 { Epoch(0) } else { world.snapshots[kept] };
        for published in 0..=last.0 + 1 {
            let published = Epoch(published);
            let restored = view(world.directory.path(), Some(published)).unwrap();
            world.check(&restored, Some(published));
            let known = world.truth.contains_key(&published) && published >= oldest;
            if known {
                prop_assert_eq!(restored.agreement, Agreement::Agrees);
            } else if published < oldest && world.truth.contains_key(&published) {
                prop_assert!(restored.agreement != Agreement::Fresh);
            } else {
                let reconciled = matches!(restored.agreement, Agreement::Reconcile { .. });
                prop_assert!(reconciled);
            }
        }
        let restored = view(world.directory.path(), None).unwrap();
        world.check(&restored, None);
        let reconciled = matches!(restored.agreement, Agreement::Reconcile { .. });
        prop_assert!(reconciled);
        world.restart(Some(last));
    }
}

#[test]
fn a_torn_end_is_cut_wherever_it_is_torn() {
    torn_everywhere(settings);
}

#[test]
fn a_torn_end_of_sealed_files_is_cut_too() {
    torn_everywhere(sealed);
}

fn torn_everywhere(how: How) {
    let world = small_world_made(how, false);
    let view = |directory: &std::path::Path, published| view_with(&how(directory), published);
    let last_segment = world.newest("seg");
    let whole = fs::read(&last_segment).unwrap();
    // Its seal, if it has one, and its head.
    let (_, head, _) = *frames(&whole).iter().find(|(_, _, tag)| *tag == 1).unwrap();
    for length in head..whole.len() {
        let copied = copy(world.directory.path());
        let segment = copied.path().join(last_segment.file_name().unwrap());
        let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
        file.set_len(length as u64).unwrap();
        // Sometimes the length of the file came to the disk, and its content did not.
        if length % 3 == 0 {
            file.set_len(whole.len() as u64).unwrap();
        }
        drop(file);
        let first = view(copied.path(), Some(Epoch(3))).unwrap();
        world.check(&first, Some(Epoch(3)));
        assert_eq!(first.agreement, Agreement::Agrees);

        let mut mended = World {
            directory: copied,
            state: None,
            dictionary: world.dictionary.clone(),
            inputs: world.inputs.clone(),
            truth: world.truth.clone(),
            snapshots: Vec::new(),
            how,
            durable: world.durable,
        };
        mended.restart(Some(Epoch(3)));
        mended.forget_after(first.last);
        mended.step(&Step { gap: length % 2 == 0, ..step(77) });
        mended.restart(Some(Epoch(3)));
        assert!(view(mended.directory.path(), Some(Epoch(3))).unwrap().warnings.is_empty());
    }
}

/// Bits of a file to flip: all of them, or of what is neither near its beginning nor its end one of each byte, drawn.
fn bits(bytes: usize, is_every: bool) -> Vec<usize> {
    let mut random = fuzz::random();
    let mut drawn = |at: usize| {
        let is_near = at < BYTES_NEAR || at + BYTES_NEAR >= bytes;
        let of_byte = if is_every || is_near {
            0..8
        } else {
            let bit = random.random_range(0..8);
            bit..bit + 1
        };
        of_byte.map(move |bit| at * 8 + bit)
    };
    (0..bytes).flat_map(&mut drawn).collect()
}

/// All bits of so many bytes at the beginning and at the end of a file are flipped.
const BYTES_NEAR: usize = 96;

#[test]
fn no_flipped_bit_of_the_log_changes_what_comes_back() {
    flipped_log(settings, true);
}

#[test]
fn no_flipped_bit_of_a_sealed_log_changes_what_comes_back() {
    flipped_log(sealed, false);
}

fn flipped_log(how: How, is_every: bool) {
    let world = small_world_made(how, false);
    let view = |directory: &std::path::Path, published| view_with(&how(directory), published);
    let (mut errors, mut torn) = (0, [0, 0]);
    for path in files(world.directory.path(), "seg") {
        let whole = fs::read(&path).unwrap();
        for bit in bits(whole.len(), is_every) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            // The tables show an epoch before the damage or behind it, or the very last one.
            let published = [Epoch(3), world.last()][bit % 2];
            match view(world.directory.path(), Some(published)) {
                // Only the last epoch may be taken for torn, and then it is told.
                Ok(restored) => {
                    world.check(&restored, Some(published));
                    assert_eq!(path, world.newest("seg"));
                    assert_eq!(Some(restored.last), world.truth.keys().nth_back(1).copied());
                    assert_eq!(restored.warnings.len(), 1);
                    let agrees = restored.agreement == Agreement::Agrees;
                    assert_eq!(agrees, published == Epoch(3), "bit {bit}");
                    torn[bit % 2] += 1;
                }
                Err(error) => {
                    errors += 1;
                    assert_eq!(error.kind(), Kind::DataDiffers, "{error}");
                    assert_damage_is_placed(&error.to_string(), &path, whole.len());
                }
            }
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(errors > 4_000 && torn.iter().all(|count| *count > 50), "{errors} {torn:?}");
    world.check(&view(world.directory.path(), None).unwrap(), None);
}

/// The words name the file, a byte of it, and what to do.
fn assert_damage_is_placed(text: &str, path: &std::path::Path, bytes: usize) {
    let (_, behind) = text.split_once(&format!("{}, byte ", path.display())).unwrap_or_default();
    let at: String = behind.chars().take_while(char::is_ascii_digit).collect();
    let is_within = at.parse::<usize>().is_ok_and(|at| at <= bytes);
    assert!(is_within && text.contains("delete it"), "{text}");
}

#[test]
fn no_flipped_bit_of_a_snapshot_changes_what_comes_back() {
    flipped_snapshot(settings);
}

#[test]
fn no_flipped_bit_of_a_sealed_snapshot_changes_what_comes_back() {
    flipped_snapshot(sealed);
}

fn flipped_snapshot(how: How) {
    let world = small_world_made(how, true);
    let view = |directory: &std::path::Path, published| view_with(&how(directory), published);
    let path = world.newest("snap");
    let whole = fs::read(&path).unwrap();
    for bit in bits(whole.len(), false) {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        // Of the epoch of the damaged one, or of a later one.
        let published = Some([world.last(), world.snapshots[1]][bit % 2]);
        let restored = view(world.directory.path(), published).unwrap();
        world.check(&restored, published);
        assert_eq!(restored.agreement, Agreement::Agrees, "from the older one and the log");
        assert_eq!(restored.warnings.len(), 1);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(restored.warnings[0].starts_with(&format!("{name} was not used: ")));
        assert_damage_is_placed(&restored.warnings[0], &path, whole.len());
    }
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        world.check(&view(world.directory.path(), None).unwrap(), None);
    }
    let older = files(world.directory.path(), "snap").remove(0);
    fs::write(older, b"nothing").unwrap();
    let error = view(world.directory.path(), Some(world.last())).unwrap_err();
    assert_eq!(error.kind(), Kind::DataDiffers);
}

#[test]
fn a_missing_part_of_the_log_is_told() {
    let mut world = World::new();
    for seed in 0..30 {
        // Nothing but the chain of epochs can tell: the dictionary does not grow.
        world.step(&Step { term: false, instance: 0, ..step(seed) });
    }
    let segments = files(world.directory.path(), "seg");
    assert!(segments.len() >= 3, "{}", segments.len());
    for lost in &segments[..segments.len() - 1] {
        let copied = copy(world.directory.path());
        fs::remove_file(copied.path().join(lost.file_name().unwrap())).unwrap();
        let error = view(copied.path(), Some(world.last())).unwrap_err();
        assert_eq!(error.kind(), Kind::DataDiffers, "{error}");
        assert!(lost == &segments[0] || error.to_string().contains("missing"), "{error}");
    }
    // Without the last one, the log merely ends earlier.
    fs::remove_file(segments.last().unwrap()).unwrap();
    let restored = view(world.directory.path(), Some(world.last())).unwrap();
    world.check(&restored, Some(world.last()));
    assert!(matches!(restored.agreement, Agreement::Reconcile { .. }));
}

#[test]
fn a_lost_log_behind_a_newer_snapshot_is_never_mixed_with_it() {
    let mut world = small_world(true);
    let [older, newer] = world.snapshots[..] else { panic!("two snapshots") };
    files(world.directory.path(), "seg").iter().for_each(|path| fs::remove_file(path).unwrap());
    let published = Epoch(older.0 + 1);
    let restored = view(world.directory.path(), Some(published)).unwrap();
    world.check(&restored, Some(published));
    assert_eq!(restored.base, newer);

    // A damaged one cannot come back to life among the epochs that follow.
    let path = world.newest("snap");
    fs::write(&path, b"damaged").unwrap();
    world.restart(Some(published));
    assert!(!path.exists());
    world.forget_after(older);
    world.step(&Step { gap: true, ..step(3) });
    world.restart(Some(world.last()));
}

#[test]
fn a_second_program_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let first = State::open(&settings(directory.path())).unwrap();
    let id = first.pipeline_id();
    let error = State::open(&settings(directory.path())).err().unwrap();
    assert_eq!(error.kind(), Kind::Temporary);
    assert!(error.to_string().contains(directory.path().to_str().unwrap()), "{error}");
    drop(first);
    let second = State::open(&settings(directory.path())).unwrap();
    assert_eq!(second.pipeline_id(), id);
    let looking = State::read_only(&settings(directory.path())).unwrap();
    assert_eq!(looking.pipeline_id().unwrap(), Some(id));
    assert!(State::read_only(&settings(&directory.path().join("absent"))).is_err());
}

#[test]
fn files_of_another_pipeline_are_refused() {
    let world = small_world(true);
    let pipeline = world.directory.path().join("pipeline");
    let id = fs::read_to_string(&pipeline).unwrap();
    fs::write(&pipeline, format!("{}\n", "0".repeat(32))).unwrap();
    let error = view(world.directory.path(), Some(world.last())).unwrap_err();
    assert!(error.to_string().contains("another pipeline"), "{error}");
    fs::remove_file(&pipeline).unwrap();
    let copied = copy(world.directory.path());
    let error = State::open(&settings(copied.path())).err().unwrap();
    assert!(error.to_string().contains("`pipeline`"), "{error}");
    fs::write(&pipeline, id).unwrap();
    view(world.directory.path(), Some(world.last())).unwrap();
}

#[test]
fn a_view_sees_a_pipeline_at_work() {
    let mut world = small_world(true);
    let view = State::read_only(&settings(world.directory.path())).unwrap();
    for seed in 20u16..40 {
        world.step(&Step { snapshot: seed.is_multiple_of(6), ..step(seed) });
        let published = Some(world.last());
        let restored = view.restore(published, &schema()).unwrap();
        world.check(&restored, published);
        assert_eq!(restored.agreement, Agreement::Agrees);
    }
}

/// Else a snapshot that is passed over once could come back with codes that mean something else by
/// then.
#[test]
fn a_snapshot_holds_no_term_that_the_log_does_not_hold() {
    let mut world = World::new();
    world.step(&step(0));
    world.dictionary.intern(Domain::Option, "not_logged_yet").unwrap();
    world.snapshot();
    let restored = view(world.directory.path(), Some(world.last())).unwrap();
    assert_eq!(restored.dictionary.code(Domain::Option, "not_logged_yet"), None);
    world.check(&restored, Some(world.last()));
}

#[test]
fn deferred_records_wait_for_their_instance() {
    let mut world = World::new();
    let arrive = |deferred, release, content| Step {
        instance: 0,
        changes: vec![(1, Some(content))],
        deferred,
        release,
        today: None,
        places: false,
        ..step(0)
    };
    world.step(&arrive(true, false, 7));
    world.step(&arrive(true, false, 8));
    world.restart(Some(world.last()));
    let waiting = view(world.directory.path(), Some(world.last())).unwrap();
    assert_eq!((waiting.records.len(), waiting.deferred[&Code(1)].len()), (0, 2));
    world.step(&arrive(true, true, 9));
    let released = view(world.directory.path(), Some(world.last())).unwrap();
    assert_eq!(released.records, [(key(1), case(Code(1), 9))]);
    assert!(released.deferred.is_empty());
    world.restart(Some(world.last()));
}

#[test]
fn pruning_leaves_two_snapshots_and_the_log_behind_the_older_one() {
    let mut world = World::new();
    for seed in 0..40 {
        world.step(&Step { snapshot: seed % 5 == 4, ..step(seed) });
    }
    assert_eq!(files(world.directory.path(), "snap").len(), 2);
    let older = world.snapshots[world.snapshots.len() - 2];
    let segments = files(world.directory.path(), "seg");
    let first = segments[0].file_name().unwrap().to_str().unwrap()[4..24].parse::<u64>().unwrap();
    assert!(first > older.0, "{first} {older}");
    assert!(segments.len() < 12);
}

#[test]
fn an_epoch_that_is_committed_while_a_snapshot_gets_its_name_does_not_remove_it() {
    let mut world = World::new();
    for seed in 0..10 {
        world.step(&Step { snapshot: seed % 5 == 4, ..step(seed) });
    }
    world.step(&Step { snapshot: false, ..step(10) });
    world.begin_snapshot().unwrap();
    let is_named = |world: &World| files(world.directory.path(), "snap").len() == 3;
    let named = (0..2_000_000).any(|_| {
        std::thread::yield_now();
        is_named(&world)
    });
    assert!(named, "the snapshot has its name");
    // Committing removes what no restart needs; nobody has asked yet whether the snapshot is done.
    world.step(&Step { snapshot: false, ..step(11) });
    let written = world.end_snapshot().unwrap();
    let newest = world.newest("snap");
    assert!(newest.to_str().unwrap().contains(&format!("{:020}", written.epoch.0)), "{newest:?}");
    assert_eq!(std::fs::metadata(newest).unwrap().len(), written.bytes);
    let last = world.last();
    world.restart(Some(last));
}

#[test]
fn a_snapshot_is_wanted_when_the_log_has_grown() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::new(directory.path()).unwrap().with_sizes(1 << 20, 2000);
    let mut state = State::open(&settings).unwrap();
    state.restore(None, &schema()).unwrap();
    let dictionary = Interner::default();
    let mut epoch = Epoch(0);
    while !state.wants_snapshot() {
        epoch = epoch.next();
        assert!(epoch.0 < 1000, "never wanted");
        let today = Some(Day(45_000));
        let input = EpochInput { epoch, today, ..EpochInput::default() };
        let logged = state.append(&input, &dictionary).unwrap().wait().unwrap();
        state.commit(Durable::after_commit(logged.epoch())).unwrap();
    }
    assert!(epoch.0 > 10);
    let too_new = SnapshotContent { epoch: epoch.next(), ..SnapshotContent::default() };
    assert_eq!(state.snapshot(too_new).unwrap_err().kind(), Kind::Bug);
    state.snapshot(SnapshotContent { epoch, ..SnapshotContent::default() }).unwrap();
    assert!(!state.wants_snapshot());
}

#[test]
fn nothing_is_written_before_everything_is_restored() {
    let directory = tempfile::tempdir().unwrap();
    let mut state = State::open(&settings(directory.path())).unwrap();
    let input = EpochInput { epoch: Epoch(1), ..EpochInput::default() };
    let error = state.append(&input, &Interner::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Bug);
    // Nor may an epoch get a number that the tables have seen.
    state.restore(Some(Epoch(1)), &schema()).unwrap();
    assert_eq!(state.append(&input, &Interner::default()).unwrap_err().kind(), Kind::Bug);
}

#[test]
fn another_schema_lays_the_records_out_anew() {
    let mut world = small_world(true);
    world.state = None;
    let other = Schema::new(
        [("age".into(), FieldType::Integer), ("status".into(), FieldType::Option)],
        vec![Subform { name: "services".into(), fields: Vec::new() }],
    );
    let mut state = State::open(&settings(world.directory.path())).unwrap();
    let restored = state.restore(Some(world.last()), &other).unwrap();
    assert!(restored.schema_changed);
    assert_eq!(restored.new_fields, ["status"]);
    let old = schema();
    let truth = &world.contents().records;
    assert_eq!(restored.records.len(), truth.len());
    for (key, case) in &restored.records {
        let before = &truth[key];
        let age = |schema: &Schema, case: &Case| match schema.field("age").unwrap().slot {
            tonle::model::Slot::Word(index) => case.word(index),
            tonle::model::Slot::Set(_) => panic!("an age is one word"),
        };
        assert_eq!(age(&other, case), age(&old, before));
        assert_eq!(case.rows(&other, 0).count(), before.rows(&old, 0).count());
    }
    // From the first epoch on, the new schema is that of the state.
    let dictionary = Interner::new(restored.dictionary);
    let epoch = world.last().next();
    let input = EpochInput { epoch, ..EpochInput::default() };
    let _logged = state.append(&input, &dictionary).unwrap().wait().unwrap();
    drop(state);
    let mut state = State::open(&settings(world.directory.path())).unwrap();
    let again = state.restore(Some(epoch), &other).unwrap();
    assert!(!again.schema_changed && again.new_fields.is_empty());
    assert_eq!(again.records, restored.records);
}

/// Figures: `cargo test --release a_million -- --ignored --nocapture`; `TONLE_CASES` says how many instead.
#[test]
#[ignore = "measures; writes some 100 MB"]
fn a_million_cases() {
    measured(|settings| settings);
}

#[test]
#[ignore = "measures; writes some 100 MB"]
fn a_million_cases_sealed() {
    measured(|settings| settings.with_keys(Some(state_key(0)), Vec::new()).unwrap());
}

#[allow(clippy::print_stdout)]
fn measured(how: fn(Settings) -> Settings) {
    let schema = wide_schema();
    let directory = tempfile::tempdir().unwrap();
    let settings = how(Settings::new(directory.path()).unwrap());
    let count = std::env::var("TONLE_CASES").map_or(1_000_000, |count| count.parse().unwrap());
    let dictionary = Interner::default();
    let instance = dictionary.intern(Domain::Instance, "kampot").unwrap();
    let records: Vec<_> = (0..count).map(|n| wide_case(&schema, instance, n)).collect();
    let words: usize = records.iter().map(|(_, case)| case.words().len()).sum();
    println!("{:.1} words a case", words as f64 / records.len() as f64);

    let mut state = State::open(&settings).unwrap();
    state.restore(None, &schema).unwrap();
    let timed = |what: &str, started: std::time::Instant| {
        println!("{what}: {:.2} s", started.elapsed().as_secs_f64());
    };
    let started = std::time::Instant::now();
    for (n, chunk) in records.chunks(records.len() / 100).enumerate() {
        let change = |(key, case): &(_, Case)| RecordChange { key: *key, case: Some(case.clone()) };
        let changes = chunk.iter().map(change).collect();
        let (cursor, deferred) = (Cursor::default(), false);
        let arrivals = vec![Arrival { instance, cursor, deferred, is_backfill: false, changes }];
        let epoch = Epoch(n as u64 + 1);
        let input = EpochInput { epoch, arrivals, ..EpochInput::default() };
        let logged = state.append(&input, &dictionary).unwrap().wait().unwrap();
        state.commit(Durable::after_commit(logged.epoch())).unwrap();
    }
    timed("append and sync 100 epochs", started);
    let epoch = Epoch(100);
    let content = SnapshotContent {
        epoch,
        records: records.iter().cloned().collect(),
        cursors: BTreeMap::from([(instance, Cursor::default())]),
        dictionary: dictionary.clone(),
        ..SnapshotContent::default()
    };
    drop(state);
    let mut state = State::open(&settings).unwrap();
    let started = std::time::Instant::now();
    assert_eq!(state.restore(Some(epoch), &schema).unwrap().records.len(), records.len());
    timed("restore from the log alone", started);
    let started = std::time::Instant::now();
    state.snapshot(content).unwrap();
    let written = world::finished(&mut state).unwrap();
    timed("snapshot", started);
    println!("{:.1} MB", written.bytes as f64 / 1e6);
    drop(state);
    let mut state = State::open(&settings).unwrap();
    for _ in 0..3 {
        let path = files(directory.path(), "snap").pop().unwrap();
        let started = std::time::Instant::now();
        let bytes = fs::read(&path).unwrap();
        timed("floor: read the bytes", started);
        let started = std::time::Instant::now();
        std::hint::black_box(crc32fast::hash(&bytes));
        timed("floor: checksum", started);
        let started = std::time::Instant::now();
        let mut copied = fs::File::create(path.with_extension("copy")).unwrap();
        std::io::Write::write_all(&mut copied, &bytes).unwrap();
        copied.sync_all().unwrap();
        timed("floor: write and sync the bytes", started);
        drop(bytes);
        let started = std::time::Instant::now();
        let copies: Vec<Case> =
            records.iter().map(|(_, c)| Case::from_words(c.words(), &schema).unwrap()).collect();
        timed("floor: allocate the cases", started);
        drop(copies);
        let started = std::time::Instant::now();
        let restored = state.restore(Some(epoch), &schema).unwrap();
        timed("restore", started);
        let alone = State::read_only(&settings.clone().with_decoders(1)).unwrap();
        let started = std::time::Instant::now();
        drop(alone.restore(Some(epoch), &schema).unwrap());
        timed("restore on one thread", started);
        let started = std::time::Instant::now();
        let map: std::collections::HashMap<_, _> = restored.records.iter().cloned().collect();
        timed("and a map of it", started);
        assert_eq!(map.len(), records.len());
        let truth = records.iter().all(|(key, case)| map.get(key) == Some(case));
        assert!(truth);
    }
}

fn wide_schema() -> Schema {
    let row = |n: usize| RowField { name: format!("s{n}"), field_type: FieldType::Option };
    let fields = (0..20).map(|n| (format!("f{n}"), FieldType::Option));
    let set = ("concerns".to_owned(), FieldType::Options);
    let subform = Subform { name: "services".into(), fields: (0..4).map(row).collect() };
    Schema::new(fields.chain([set]), vec![subform])
}

/// Some 40 words: 20 fields (of which a third are days), a set, two rows of a subform.
fn wide_case(schema: &Schema, instance: Code, n: u64) -> (RecordKey, Case) {
    let mut builder = CaseBuilder::new(schema, instance);
    let mixed = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) ^ n;
    for (index, field) in schema.fields()[..20].iter().enumerate() {
        let word = mixed(n * 31 + index as u64) as u32;
        let word = if index % 3 == 0 { 44_000 + word % 2000 } else { word % 40 };
        builder.put(field.slot, word);
    }
    for code in 1..=mixed(n) as u32 % 4 {
        builder.put(schema.field("concerns").unwrap().slot, code * 7);
    }
    for row in 0..mixed(n + 5) % 4 {
        let key = RecordKey(u128::from(mixed(n + row)) << 64 | u128::from(mixed(n * 3 + row)));
        builder.row(&schema.subforms()[0], 0, key, &[3, 45_000, 7, 0]);
    }
    let key = u128::from(mixed(n).wrapping_mul(0xd6e8_feb8_6659_fd93)) << 64 | u128::from(n);
    (RecordKey(key), builder.finish(schema))
}
