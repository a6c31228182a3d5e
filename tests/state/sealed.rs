//! Sealed files: unreadable without the key, and no frame of theirs passes anywhere but in its
//! place.

use std::fs;
use std::path::Path;

use tonle::error::{Error, Kind};
use tonle::model::{Domain, Epoch};
use tonle::state::{Agreement, Settings, State};

use super::world::{
    Step, World, copy, files, frames, place, schema, sealed, settings, small_world,
    small_world_made, state_key, step, view_with,
};

/// The keys of these tests, by their first byte.
const KEYS: [u8; 4] = [0, 1, 2, 9];

/// What the frames of a sealed file begin with: in clear, so that the end of a log can be searched.
const SEALED: u8 = 11;

/// A place, as a term of the dictionary and by its name.
const TERM: &str = "kh0703_teuk_chhou";
const NAME: &str = "ស្រុកទឹកឈូ ខេត្តកំពត";

fn names(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let paths = files(directory, "seg").into_iter().chain(files(directory, "snap"));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

fn is_sealed(bytes: &[u8]) -> bool {
    frames(bytes)[0].2 == SEALED
}

fn with(directory: &Path, current: Option<u8>, previous: &[u8]) -> Settings {
    let previous = previous.iter().map(|first| state_key(*first)).collect();
    settings(directory).with_keys(current.map(state_key), previous).unwrap()
}

#[test]
fn what_is_written_comes_back_and_cannot_be_read() {
    let (mut clear, mut hidden) = (World::new(), World::made(sealed));
    for world in [&mut clear, &mut hidden] {
        for seed in 0..40 {
            let (snapshot, restart) = (seed % 9 == 8, seed % 7 == 6);
            let backfill = seed % 5 == 1;
            if seed == 3 {
                world.dictionary.intern(Domain::Location, TERM).unwrap();
            }
            let mut input = world.input(&Step { backfill, ..step(seed) });
            if seed % 8 == 7 {
                input.locations.push((input.arrivals[0].instance, vec![place(3, NAME)]));
            }
            world.append(input);
            if snapshot {
                world.snapshot();
            }
            if restart {
                world.restart(Some(world.last()));
            }
        }
        world.restart(Some(world.last()));
    }
    // An option and a place of the dictionary, the name of a place, a field of a backfill, two names of the schema.
    let words = ["option_", TERM, NAME, "field_", "registered", "services", "province"];
    let found = |world: &World, word: &str| {
        let contains = |bytes: &[u8]| bytes.windows(word.len()).any(|w| w == word.as_bytes());
        names(world.directory.path()).iter().filter(|(_, bytes)| contains(bytes)).count()
    };
    for word in words {
        assert!(found(&clear, word) > 1, "{word} is searched for in vain");
        assert_eq!(found(&hidden, word), 0, "{word} is in clear");
    }
    assert!(names(hidden.directory.path()).iter().all(|(_, bytes)| is_sealed(bytes)));
    assert!(!names(clear.directory.path()).iter().any(|(_, bytes)| is_sealed(bytes)));
}

fn refused(error: &Error, name: &str, words: &[&str]) {
    assert_eq!((error.kind(), error.exit_code()), (Kind::Config, 2), "{error}");
    let text = error.to_string();
    for words in words.iter().chain(&[name, "key_file under [state]"]) {
        assert!(text.contains(words), "expected {words} in: {text}");
    }
    prints_no_key(&text);
}

/// Neither as digits nor as the numbers of its bytes: of none that these tests use.
fn prints_no_key(text: &str) {
    for first in KEYS {
        let bytes = [0, 1, 2, 3].map(|byte| first + byte);
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{bytes:?}").trim_end_matches(']').to_owned();
        for form in [digits, list] {
            assert!(!text.to_lowercase().contains(&form), "the key {first} prints: {text}");
        }
    }
}

#[test]
fn without_its_key_a_sealed_file_is_a_wrong_setting_and_stays_as_it_is() {
    let world = small_world_made(sealed, true);
    let published = Some(world.last());
    for (snapshots, name) in [(true, "snapshot-"), (false, "log-")] {
        let copied = copy(world.directory.path());
        if !snapshots {
            files(copied.path(), "snap").iter().for_each(|path| fs::remove_file(path).unwrap());
        }
        let before = names(copied.path());
        let wrong: [(_, &[u8], _); 3] = [
            (None, &[], "it is sealed, and there is no key"),
            (Some(1), &[], "it is sealed with another key"),
            (None, &[1, 2], "it is sealed with another key"),
        ];
        for (current, previous, words) in wrong {
            let settings = with(copied.path(), current, previous);
            refused(&view_with(&settings, published).unwrap_err(), name, &[words]);
            let mut state = State::open(&settings).unwrap();
            let error = state.restore(published, &schema()).unwrap_err();
            refused(&error, copied.path().to_str().unwrap(), &[words]);
            prints_no_key(&format!("{settings:?} {settings:#?}"));
        }
        assert_eq!(names(copied.path()), before);
    }
}

/// Goes on until no snapshot is wanted; gives how many were.
fn until_settled(world: &mut World) -> usize {
    let mut count = 0;
    for seed in 50..60 {
        world.step(&step(seed));
        if world.state.as_ref().unwrap().wants_snapshot() {
            world.snapshot();
            count += 1;
        }
    }
    count
}

#[test]
fn a_key_is_taken_up_changed_and_given_up_by_two_snapshots() {
    // Nothing but a file that is sealed otherwise asks for a snapshot here.
    let large = |directory: &Path| settings(directory).with_sizes(700, 1 << 30);
    let turns: [(Option<u8>, &[u8]); 4] =
        [(Some(0), &[]), (Some(9), &[0]), (Some(9), &[]), (None, &[9])];
    let mut world = small_world(true);
    let mut before: Option<Option<u8>> = Some(None);
    for (current, previous) in turns {
        let keys = with(world.directory.path(), current, previous);
        let keys = large(keys.directory())
            .with_keys(current.map(state_key), previous.iter().map(|k| state_key(*k)).collect())
            .unwrap();
        let last = Some(world.last());
        world.try_restart(&keys, last).unwrap();
        let changes = before != Some(current);
        let stale = world.state.as_ref().unwrap().stale_file_count();
        assert_eq!(stale > 0, changes, "{stale} files");
        assert_eq!(until_settled(&mut world), if changes { 2 } else { 0 });
        assert_eq!(world.state.as_ref().unwrap().stale_file_count(), 0);
        let is_sealed = |(_, bytes): &(String, Vec<u8>)| is_sealed(bytes) == current.is_some();
        assert!(names(world.directory.path()).iter().all(is_sealed));
        // Neither the key before nor none opens anything any more.
        if let Some(before) = before.filter(|_| changes && current.is_some()) {
            let old = with(world.directory.path(), before, &[]);
            assert_eq!(view_with(&old, last).unwrap_err().kind(), Kind::Config);
        }
        let last = Some(world.last());
        let only = with(world.directory.path(), current, &[]);
        let restored = view_with(&only, last).unwrap();
        world.check(&restored, last);
        assert_eq!(restored.agreement, Agreement::Agrees);
        before = Some(current);
    }
}

/// Frames keep their checksums wherever they are put, so only the seal can tell.
#[test]
fn no_sealed_frame_passes_in_another_place() {
    let world = small_world_made(sealed, true);
    let others = small_world_made(sealed, true);
    let published = Some(world.last());
    let segment = world.newest("seg");
    for path in [segment.clone(), world.newest("snap")] {
        let whole = fs::read(&path).unwrap();
        let other = others.directory.path().join(path.file_name().unwrap());
        let other = fs::read(other).unwrap();
        let all = frames(&whole);
        let mut changed: Vec<(String, Vec<u8>)> = Vec::new();
        for (n, (from, to, _)) in all.iter().copied().enumerate() {
            let without = [&whole[..from], &whole[to..]].concat();
            changed.push((format!("without frame {n}"), without));
            changed.push((format!("frame {n} twice"), [&whole[..to], &whole[from..]].concat()));
            if let Some((_, end, _)) = all.get(n + 1) {
                let turned = [&whole[..from], &whole[to..*end], &whole[from..to], &whole[*end..]];
                changed.push((format!("frames {n} and {} changed places", n + 1), turned.concat()));
            }
            if let Some((other_from, other_to, _)) = frames(&other).get(n) {
                let mixed = [&whole[..from], &other[*other_from..*other_to], &whole[to..]];
                changed.push((format!("frame {n} of another state"), mixed.concat()));
            }
        }
        assert!(changed.len() > 20);
        for (how, bytes) in changed {
            // Without its last frames a log merely ends earlier, as by a crash.
            let is_last =
                segment == path && how.starts_with(&format!("without frame {}", all.len() - 1));
            fs::write(&path, &bytes).unwrap();
            match view_with(&sealed(world.directory.path()), published) {
                Ok(restored) if path != segment => {
                    world.check(&restored, published);
                    assert_eq!(restored.warnings.len(), 1, "{how}");
                }
                Ok(_) => assert!(is_last, "{how}"),
                Err(error) => assert_eq!(error.kind(), Kind::DataDiffers, "{how}: {error}"),
            }
        }
        fs::write(&path, &whole).unwrap();
    }
    world.check(&view_with(&sealed(world.directory.path()), published).unwrap(), published);
}

/// Sealed or not: the name of a file is part of what it says.
#[test]
fn files_that_changed_names_are_told() {
    for how in [settings, sealed] {
        for extension in ["seg", "snap"] {
            // Where there are snapshots, the older parts of the log are not read.
            let world = small_world_made(how, extension == "snap");
            let copied = copy(world.directory.path());
            let paths = files(copied.path(), extension);
            let [a, b] = [&paths[0], &paths[1]];
            let between = copied.path().join("between");
            for (from, to) in [(a, &between), (b, a), (&between, b)] {
                fs::rename(from, to).unwrap();
            }
            let error = view_with(&how(copied.path()), Some(world.last())).unwrap_err();
            assert_eq!(error.kind(), Kind::DataDiffers, "{error}");
            let text = error.to_string();
            let words = ["of its name", "byte ", "delete it"];
            assert!(words.iter().all(|words| text.contains(words)), "{text}");
        }
    }
}

/// Both directories are whole; only the seal of one belongs to the other.
#[test]
fn sealed_files_of_another_pipeline_are_refused() {
    let (world, other) = (small_world_made(sealed, false), small_world_made(sealed, false));
    let pipeline = "pipeline";
    fs::copy(other.directory.path().join(pipeline), world.directory.path().join(pipeline)).unwrap();
    let error = view_with(&sealed(world.directory.path()), Some(Epoch(3))).unwrap_err();
    assert_eq!(error.kind(), Kind::DataDiffers);
    assert!(error.to_string().contains("another pipeline"), "{error}");
}
