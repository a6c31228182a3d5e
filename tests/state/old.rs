//! Files of each version of the format can be read for ever; of a later one, it is said.

use std::fs;
use std::path::{Path, PathBuf};

use tonle::error::Kind;
use tonle::state::{Agreement, State};

use super::world::{
    How, Step, World, copy, files, schema, sealed, settings, small_world_in, small_world_made,
    step, view_with,
};

fn samples(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Writes the sample files of the present version anew: `TONLE_WRITE_SAMPLES=1 cargo test golden -- --ignored`.
#[test]
#[ignore = "writes into tests/data if TONLE_WRITE_SAMPLES=1 orders it, else does nothing"]
fn golden_files_are_written() {
    if !samples_are_ordered() {
        return;
    }
    for (name, how) in [("state-v4", settings as How), ("state-v4-sealed", sealed)] {
        let to = samples(name);
        fs::create_dir_all(&to).unwrap();
        for path in files(&to, "seg").into_iter().chain(files(&to, "snap")) {
            fs::remove_file(path).unwrap();
        }
        for entry in fs::read_dir(golden_world_2(how).directory.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() != "lock" {
                let text = fs::read(&path).unwrap();
                fs::write(to.join(path.file_name().unwrap()), text).unwrap();
            }
        }
    }
}

/// Evidence is not rewritten by whoever runs all ignored tests.
pub(super) fn samples_are_ordered() -> bool {
    std::env::var("TONLE_WRITE_SAMPLES").is_ok_and(|ordered| ordered == "1")
}

fn golden_world(how: How) -> World {
    golden_world_in(small_world_made(how, true))
}

fn golden_world_in(mut world: World) -> World {
    world.step(&Step { deferred: true, changes: vec![(3, Some(70_00)), (4, None)], ..step(30) });
    world
}

/// With backfills, which files have since version 2: in the log and in the last snapshot.
fn golden_world_2(how: How) -> World {
    golden_world_2_in(golden_world(how))
}

fn golden_world_2_in(mut world: World) -> World {
    world.step(&Step { backfill: true, snapshot: true, ..step(31) });
    world.step(&Step { backfill: true, ..step(34) });
    world
}

fn check(name: &str, how: How, mut world: World) {
    let copied = copy(&samples(name));
    let kept = &world.snapshots[world.snapshots.len() - 2..];
    for published in [kept[0], kept[1], world.last()] {
        let restored = view_with(&how(copied.path()), Some(published)).unwrap();
        world.check(&restored, Some(published));
        assert_eq!(restored.agreement, Agreement::Agrees);
        assert_eq!(restored.last, world.last());
        assert!(restored.warnings.is_empty());
    }
    // And gone on with: what is written next is of this version, and lies beside the old files.
    world.directory = copied;
    world.restart(Some(world.last()));
    for seed in 40..44 {
        world.step(&Step { snapshot: seed % 2 == 1, ..step(seed) });
    }
    world.restart(Some(world.last()));
}

#[test]
fn files_of_version_1_are_read() {
    check("state-v1", settings, golden_world(settings));
}

#[test]
fn files_of_version_2_are_read() {
    check("state-v2", settings, golden_world_2(settings));
}

#[test]
fn files_of_version_3_are_read() {
    check("state-v3", settings, golden_world_2(settings));
    check("state-v3-sealed", sealed, golden_world_2(sealed));
}

#[test]
fn files_of_version_4_are_read_and_written_no_differently() {
    check("state-v4", settings, golden_world_2(settings));
    // Under the same number of the pipeline nothing differs.
    let world = World::unopened(settings);
    let pipeline = world.directory.path().join("pipeline");
    fs::copy(samples("state-v4").join("pipeline"), pipeline).unwrap();
    let world = golden_world_2_in(golden_world_in(small_world_in(world.opened(), true)));
    let kept = samples("state-v4");
    let paths: Vec<_> = ["seg", "snap"].into_iter().flat_map(|end| files(&kept, end)).collect();
    assert_eq!(paths.len(), 6);
    for path in paths {
        let now = world.directory.path().join(path.file_name().unwrap());
        assert!(fs::read(&path).unwrap() == fs::read(&now).unwrap(), "{}", path.display());
    }
}

#[test]
fn sealed_files_of_version_4_are_read() {
    check("state-v4-sealed", sealed, golden_world_2(sealed));
}

/// A file that a later program wrote is neither passed over, which would end in removing it, nor
/// called damaged.
#[test]
fn a_later_version_is_named() {
    let world = golden_world_2(settings);
    for extension in ["seg", "snap"] {
        for path in files(world.directory.path(), extension) {
            let copied = copy(world.directory.path());
            let path = copied.path().join(path.file_name().unwrap());
            let mut bytes = fs::read(&path).unwrap();
            bytes[8..12].copy_from_slice(&5u32.to_le_bytes());
            let crc = crc32fast::hash(&bytes[..12]).to_le_bytes();
            bytes[12..16].copy_from_slice(&crc);
            fs::write(&path, &bytes).unwrap();
            let mut state = State::open(&settings(copied.path())).unwrap();
            let error = state.restore(Some(world.last()), &schema()).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (Kind::Config, 2), "{error}");
            let text = error.to_string();
            let name = path.file_name().unwrap().to_str().unwrap();
            for words in [name, "version 5 of the format", "reads versions 1 to 4", "newer program"]
            {
                assert!(text.contains(words), "expected {words} in: {text}");
            }
            drop(state);
            assert_eq!(fs::read(&path).unwrap(), bytes, "it is left alone");
        }
    }
}
