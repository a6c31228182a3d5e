//! Export and import: nothing lies beside the state directory, whatever ends an import can be tried again, and an
//! export writes into no file but its own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tonle::error::{Kind, Result};
use tonle::model::Tombstone;
use tonle::state::{Agreement, Exported, Faults, Loss, Operation, Settings, State, import};

use super::disk::{EIO, directory};
use super::world::{How, World, schema, sealed, settings, small_world_made, view_with};

/// What tells one pseudonym key from another.
const KEY_CHECK: u128 = 77;

fn below(path: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(path).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn export(settings: &Settings, file: &Path) -> Result<Exported> {
    State::read_only(settings)?.export(file, &schema())
}

fn take(settings: &Settings, file: &Path) -> Result<Exported> {
    import(settings, file, &schema(), KEY_CHECK)
}

/// A state, and the file that holds it.
struct Kept {
    world: World,
    outer: TempDir,
    file: PathBuf,
}

impl Kept {
    fn new(how: How) -> Self {
        let mut world = small_world_made(how, true);
        let erased = BTreeSet::from([Tombstone(5)]);
        let state = world.state.as_mut().unwrap();
        state.keep_erased(&erased).unwrap();
        state.tie_to_key(KEY_CHECK).unwrap();
        world.state = None;
        let outer = directory();
        let file = outer.path().join("kept.tonle");
        let exported = export(&how(world.directory.path()), &file).unwrap();
        assert_eq!(exported.last, world.last());
        assert_eq!(below(outer.path()), BTreeSet::from(["kept.tonle".to_owned()]));
        Self { world, outer, file }
    }

    /// The directory holds exactly what was exported.
    fn assert_imported(&self, directory: &Path, context: &str) {
        let (well, last) = ((self.world.how)(directory), Some(self.world.last()));
        let restored = view_with(&well, last).unwrap_or_else(|e| panic!("{context}: {e}"));
        self.world.check(&restored, last);
        assert_eq!(restored.agreement, Agreement::Agrees, "{context}");
        let view = State::read_only(&well).unwrap();
        assert_eq!(view.erased().unwrap(), BTreeSet::from([Tombstone(5)]));
        let mut wanted = below(self.world.directory.path());
        wanted.extend(["lock".to_owned(), "README.md".to_owned()]);
        assert_eq!(below(directory), wanted, "{context}");
    }
}

/// A directory to import into, alone in one that nobody may write into.
fn target() -> (TempDir, PathBuf) {
    let outer = directory();
    let path = outer.path().join("state");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("README.md"), "what the repository puts there").unwrap();
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o555)).unwrap();
    (outer, path)
}

/// Root may write all the same, so that nothing appears is looked at too.
fn assert_alone(outer: &Path, context: &str) {
    assert_eq!(below(outer), BTreeSet::from(["state".to_owned()]), "{context}");
}

fn writable(outer: &Path) {
    fs::set_permissions(outer, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_import_needs_no_directory_but_its_own() {
    for how in [settings as How, sealed] {
        let kept = Kept::new(how);
        let (outer, path) = target();
        assert_eq!(take(&how(&path), &kept.file).unwrap().last, kept.world.last());
        assert_alone(outer.path(), "all went well");
        kept.assert_imported(&path, "all went well");
        let again = take(&how(&path), &kept.file).unwrap_err();
        assert!(again.kind() == Kind::Config && again.to_string().contains("is not empty"));
        kept.assert_imported(&path, "it was refused");
        writable(outer.path());
    }
}

/// Wherever it ends, by a disk that fails or as if killed, nothing lies elsewhere, and the same command ends it well.
#[test]
fn an_import_that_ends_anywhere_can_be_tried_again() {
    let kept = Kept::new(settings);
    let faults = Faults::none();
    let (outer, path) = target();
    take(&settings(&path).with_faults(Arc::clone(&faults)), &kept.file).unwrap();
    writable(outer.path());
    let count = faults.count();
    assert!(count > 50, "{count}");
    let (mut done, mut begun_anew) = (0, 0);
    for number in 0..count {
        for (is_over, faults) in
            [(false, Faults::nth(number, EIO)), (true, Faults::from(number, EIO))]
        {
            let context = format!("operation {number} of {count}: {faults:?}");
            let (outer, path) = target();
            let taken = take(&settings(&path).with_faults(Arc::clone(&faults)), &kept.file);
            let (operation, _) = faults.failed()[0];
            match &taken {
                Err(error) => assert!(error.to_string().contains("os error 5"), "{error}"),
                // What is read back is read again when that fails once.
                Ok(_) => {
                    let is_read = [Operation::List, Operation::Open, Operation::Read];
                    assert!(!is_over && is_read.contains(&operation), "{context}");
                }
            }
            assert_alone(outer.path(), &context);
            match take(&settings(&path), &kept.file) {
                Ok(_) => begun_anew += 1,
                // It was whole; only its files were to be named.
                Err(error) => {
                    assert!(error.to_string().contains("is not empty"), "{context}: {error}");
                    done += 1;
                }
            }
            kept.assert_imported(&path, &context);
            assert_alone(outer.path(), &context);
            writable(outer.path());
        }
    }
    assert!(done > 10 && begun_anew > 40, "{done} {begun_anew}");
}

#[test]
fn an_import_outlives_the_power_or_can_be_tried_again() {
    let kept = Kept::new(settings);
    let (outer, path) = target();
    let faults = Faults::without_power(u64::MAX, EIO, &path).unwrap();
    take(&settings(&path).with_faults(Arc::clone(&faults)), &kept.file).unwrap();
    writable(outer.path());
    let count = faults.count();
    for number in 0..=count {
        let losses = [Loss::Everything, Loss::Bytes, Loss::Names];
        for loss in losses.into_iter().chain((0..4).map(|seed| Loss::Some(number + seed * 1000))) {
            let context = format!("{loss:?} lost before operation {number} of {count}");
            let (outer, path) = target();
            let faults = Faults::without_power(number, EIO, &path).unwrap();
            let taken = take(&settings(&path).with_faults(Arc::clone(&faults)), &kept.file);
            assert_eq!(taken.is_ok(), number == count, "{context}");
            faults.lose(&path, loss).unwrap();
            if taken.is_ok() {
                // The lock goes without harm.
                fs::write(path.join("lock"), "").unwrap();
            } else if let Err(error) = take(&settings(&path), &kept.file) {
                assert!(error.to_string().contains("is not empty"), "{context}: {error}");
            }
            kept.assert_imported(&path, &context);
            writable(outer.path());
        }
    }
}

#[test]
fn an_export_writes_into_no_file_that_was_there() {
    let kept = Kept::new(settings);
    let from = settings(kept.world.directory.path());
    let path = |name: &str| kept.outer.path().join(name);
    let is_private = |path: &Path| {
        let found = fs::symlink_metadata(path).unwrap();
        found.is_file() && found.permissions().mode() & 0o777 == 0o600
    };
    // What a killed export left, readable for all; or a link that somebody made.
    fs::write(path("victim"), "dear").unwrap();
    fs::set_permissions(path("victim"), fs::Permissions::from_mode(0o644)).unwrap();
    for (name, is_link) in [("first", false), ("second", true)] {
        let temporary = path(&format!("{name}.tmp"));
        match is_link {
            true => symlink(path("victim"), &temporary).unwrap(),
            false => drop(fs::copy(path("victim"), &temporary).unwrap()),
        }
        fs::create_dir(path(&format!("{name}.tmp-read"))).unwrap();
        fs::write(path(&format!("{name}.tmp-read/pipeline")), "0").unwrap();
        export(&from, &path(name)).unwrap();
        assert!(is_private(&path(name)), "{name}");
        assert_eq!(fs::read(path("victim")).unwrap(), b"dear");
    }
    assert_eq!(fs::read(path("first")).unwrap(), fs::read(&kept.file).unwrap());
    // Nor where a link leads that leads nowhere yet.
    symlink(path("absent"), path("third")).unwrap();
    let error = export(&from, &path("third")).unwrap_err();
    assert!(error.to_string().contains("there is such a file"), "{error}");
    let left = ["first", "kept.tonle", "second", "third", "victim"].map(str::to_owned);
    assert_eq!(below(kept.outer.path()), BTreeSet::from(left));
}

#[test]
fn an_export_that_fails_leaves_nothing() {
    let kept = Kept::new(settings);
    let from = |faults: &Arc<Faults>| {
        settings(kept.world.directory.path()).with_faults(Arc::clone(faults))
    };
    let (faults, target) = (Faults::none(), kept.outer.path().join("other"));
    export(&from(&faults), &target).unwrap();
    fs::remove_file(&target).unwrap();
    let count = faults.count();
    assert!(count > 40, "{count}");
    for number in 0..count {
        let faults = Faults::from(number, EIO);
        let error = export(&from(&faults), &target).unwrap_err();
        assert!(error.to_string().contains("os error 5"), "operation {number}: {error}");
        assert_eq!(below(kept.outer.path()), BTreeSet::from(["kept.tonle".to_owned()]));
    }
}
