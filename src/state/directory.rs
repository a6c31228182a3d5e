//! The state directory: the one place that opens, renames and removes its files, owner-only.
//!
//! Everything the state does to what lies in there goes through here, and from here through [`super::disk`], where a
//! test can make a disk fail. An exported state lies elsewhere: that one file is the business of [`super::bundle`].

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::model::Epoch;

use super::beginning::{self, FileKind};
use super::disk::{Disk, DiskFile};
use super::frame::{Damage, Trouble};
use super::seal::{KeyCheck, Keys};

/// What to do about damage.
pub(super) const REBUILD: &str = "restore the state directory from a backup, or delete it: it is \
     rebuilt from the sources";

const LOCK: &str = "lock";
const PIPELINE: &str = "pipeline";
/// The file that says which key the pseudonyms in all others were made with.
const KEY_CHECK: &str = "key-check";
const TEMPORARY: &str = ".tmp";
/// Where an import is put together; it bears [`IMPORTED`] as its name once all of it was read and is on disk.
pub(super) const IMPORTING: &str = "imported.tmp";
/// A whole state whose files get their places, at the next start if not now.
pub(super) const IMPORTED: &str = "imported";

/// Most of a file that names something that is read, in bytes.
const NOTE_BYTES_MAX: u64 = 1024;

/// How long a lock that somebody holds is waited for, and how often it is tried.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How files are read and written.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    pub(super) disk: Disk,
    pub(super) keys: Keys,
    /// Threads that decode a snapshot; as many as pay when absent.
    pub(super) decoders: Option<usize>,
}

/// The state directory, locked by its owner or only looked at.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    access: Access,
    /// Held as long as anything may still write here.
    _lock: Option<DiskFile>,
}

/// The epochs that name the files of the log and the snapshots, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) segments: Vec<Epoch>,
    pub(super) snapshots: Vec<Epoch>,
}

/// The name of the segment that begins with `first`.
pub(super) fn segment_name(first: Epoch) -> String {
    format!("log-{:020}.seg", first.0)
}

/// The name of the snapshot of `epoch`.
pub(super) fn snapshot_name(epoch: Epoch) -> String {
    format!("snapshot-{:020}.snap", epoch.0)
}

fn epoch_in(name: &str, prefix: &str, suffix: &str) -> Option<Epoch> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let all = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok().map(Epoch))?
}

impl Directory {
    /// Makes the directory if needed and locks it; leftovers of interrupted writes are removed, and an import that was
    /// whole is put in place.
    pub(super) fn lock(path: &Path, access: Access) -> Result<Self> {
        let doing = || format!("opening the state directory {}", path.display());
        made(path, &access.disk).map_err(|e| Error::config(doing()).caused_by(e))?;
        // A directory that came with other rights is tightened if it is ours; its files are
        // owner-only anyway.
        fs::set_permissions(path, Permissions::from_mode(0o700)).ok();
        let lock = access.disk.create(&path.join(LOCK), true).map_err(|e| failed(doing(), e))?;
        match locked(lock.file()) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let busy = format!("{}: another running program uses it", doing());
                return Err(Error::new(Kind::Temporary, busy)
                    .advise("stop the other one, or give this one its own state directory"));
            }
            Err(TryLockError::Error(e)) => return Err(Error::config(doing()).caused_by(e)),
        }
        let directory = Self { path: path.to_owned(), access, _lock: Some(lock) };
        directory.remove_leftovers()?;
        Ok(directory)
    }

    /// The same for a directory within it, under the same lock.
    pub(super) fn within(&self, name: &str) -> Self {
        Self { path: self.path_of(name), access: self.access.clone(), _lock: None }
    }

    /// Only looks, beside whoever holds the lock.
    pub(super) fn look(path: &Path, access: Access) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self { path: path.to_owned(), access, _lock: None });
        }
        Err(Error::config(format!("there is no state directory {}", path.display())))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of this directory is, for opening and for errors.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// How its files are reached and opened.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// The keys of its files.
    pub(super) fn keys(&self) -> &Keys {
        &self.access.keys
    }

    /// How many threads are to decode a snapshot, if somebody said so.
    pub(super) fn decoders(&self) -> Option<usize> {
        self.access.decoders
    }

    fn names(&self) -> Result<Vec<String>> {
        let names = self.access.disk.list(&self.path);
        names.map_err(|e| failed(format!("listing {}", self.path.display()), e))
    }

    /// The segments and snapshots that exist.
    pub(super) fn list(&self) -> Result<Listing> {
        let names = self.names()?;
        let epochs = |prefix, suffix| {
            let mut epochs: Vec<Epoch> =
                names.iter().filter_map(|name| epoch_in(name, prefix, suffix)).collect();
            epochs.sort_unstable();
            epochs
        };
        Ok(Listing { segments: epochs("log-", ".seg"), snapshots: epochs("snapshot-", ".snap") })
    }

    /// The names and sizes of all files, to see whether anything moved.
    pub(super) fn sizes(&self) -> Result<BTreeMap<String, u64>> {
        let size = |name: String| {
            let length = fs::metadata(self.path_of(&name)).map_or(0, |metadata| metadata.len());
            (name, length)
        };
        Ok(self.names()?.into_iter().map(size).collect())
    }

    fn remove_leftovers(&self) -> Result<()> {
        for name in self.names()? {
            match &*name {
                IMPORTING => self.remove_directory(&name)?,
                IMPORTED => self.take_imported()?,
                _ if name.ends_with(TEMPORARY) => self.remove(&name)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes an empty directory within this one.
    pub(super) fn make_directory(&self, name: &str) -> Result<Self> {
        let path = self.path_of(name);
        let made = self.access.disk.make_directory(&path);
        made.map_err(|e| failed(format!("creating {}", path.display()), e))?;
        Ok(self.within(name))
    }

    /// Removes a directory within this one with all it holds.
    pub(super) fn remove_directory(&self, name: &str) -> Result<()> {
        let path = self.path_of(name);
        let removed = self.access.disk.remove_directory(&path);
        removed.map_err(|e| failed(format!("removing {}", path.display()), e))
    }

    /// Puts an import in place that was read to its end: its files are named one by one, the one that says whose they
    /// are as the last.
    pub(super) fn import(&self) -> Result<()> {
        self.within(IMPORTING).sync()?;
        self.rename(&self.path_of(IMPORTING), &self.path_of(IMPORTED))?;
        self.sync()?;
        self.take_imported()
    }

    fn take_imported(&self) -> Result<()> {
        let imported = self.within(IMPORTED);
        let mut names = imported.names()?;
        names.sort_by_key(|name| name == PIPELINE);
        for name in &names {
            self.rename(&imported.path_of(name), &self.path_of(name))?;
        }
        self.sync()?;
        self.remove_directory(IMPORTED)?;
        self.sync()
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let renamed = self.access.disk.rename(from, to);
        renamed.map_err(|e| failed(format!("naming {}", to.display()), e))
    }

    /// Waits until the names in it are on disk.
    fn sync(&self) -> Result<()> {
        let synced = self.access.disk.sync_directory(&self.path);
        synced.map_err(|e| failed(format!("syncing the names in {}", self.path.display()), e))
    }

    /// Opens a file for reading; gives its length too, in bytes.
    pub(super) fn open(&self, name: &str) -> Result<(DiskFile, u64)> {
        let path = self.path_of(name);
        self.access.disk.open(&path).map_err(|e| failed(format!("opening {}", path.display()), e))
    }

    /// What a file is sealed with, as far as its first bytes tell; fails when there is no such key.
    pub(super) fn sealing(&self, name: &str, kind: FileKind) -> Result<Option<KeyCheck>> {
        let sealing = self.said_sealing(name, kind)?;
        if let Some(check) = sealing {
            let key = beginning::key_for(check, self.keys());
            key.map_err(|setting| self.troubled(name, Trouble::Setting(setting)))?;
        }
        Ok(sealing)
    }

    /// The same, whether or not there is such a key.
    pub(super) fn said_sealing(&self, name: &str, kind: FileKind) -> Result<Option<KeyCheck>> {
        let (file, length) = self.open(name)?;
        beginning::sealing(file, length, kind).map_err(|trouble| self.troubled(name, trouble))
    }

    /// Makes a file under its own name, where nobody looks for it yet.
    pub(super) fn create_unseen(&self, name: &str) -> Result<DiskFile> {
        let path = self.path_of(name);
        let created = self.access.disk.create(&path, false);
        created.map_err(|e| failed(format!("creating {}", path.display()), e))
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.path_of(&format!("{name}{TEMPORARY}"))
    }

    /// Begins a file under a temporary name; [`Self::publish`] gives it its own.
    pub(super) fn create(&self, name: &str) -> Result<DiskFile> {
        let path = self.temporary(name);
        let created = self.access.disk.create(&path, false);
        created.map_err(|e| failed(format!("creating {}", path.display()), e))
    }

    /// Gives up a file that was begun.
    pub(super) fn abandon(&self, name: &str) -> Result<()> {
        self.remove(&format!("{name}{TEMPORARY}"))
    }

    /// Makes a file appear under its name, whole and on disk.
    pub(super) fn publish(&self, name: &str, file: &DiskFile) -> Result<()> {
        let path = self.path_of(name);
        let doing = |what: &str| format!("{what} {}", path.display());
        file.sync_all().map_err(|e| failed(doing("syncing"), e))?;
        crash::synced(name);
        let renamed = self.access.disk.rename(&self.temporary(name), &path);
        renamed.map_err(|e| failed(doing("naming"), e))?;
        crash::renamed(name);
        let synced = self.access.disk.sync_directory(&self.path);
        synced.map_err(|e| failed(doing("syncing the name of"), e))
    }

    /// Cuts a file to `length` bytes and waits until that is on disk; so is then everything before.
    pub(super) fn cut(&self, name: &str, length: u64) -> Result<()> {
        let path = self.path_of(name);
        let cut = self.access.disk.cut(&path, length);
        cut.map_err(|e| failed(format!("cutting and syncing {}", path.display()), e))
    }

    /// Removes a file; one that is gone already is no error.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let path = self.path_of(name);
        match self.access.disk.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(failed(format!("removing {}", path.display()), e))
            }
            _ => Ok(()),
        }
    }

    fn note(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path_of(name);
        let read = self.access.disk.read_small(&path, NOTE_BYTES_MAX);
        read.map_err(|e| failed(format!("reading {}", path.display()), e))
    }

    /// Keeps a short text under a name, whole and on disk.
    pub(super) fn set_note(&self, name: &str, text: &str) -> Result<()> {
        let file = self.create(name)?;
        let written = file.write_all(format!("{text}\n").as_bytes());
        written.map_err(|e| failed(format!("writing {}", file.path().display()), e))?;
        self.publish(name, &file)
    }

    /// The 128 bits that name the pipeline this state belongs to; `None` when they were never
    /// drawn.
    pub(super) fn pipeline(&self) -> Result<Option<u128>> {
        let Some(text) = self.note(PIPELINE)? else { return Ok(None) };
        let digits = text.strip_suffix(b"\n").filter(|digits| {
            digits.len() == 32 && digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        let id = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match id.and_then(|digits| u128::from_str_radix(digits, 16).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(self.damaged(PIPELINE, Damage::new(0, "it holds no identifier"))),
        }
    }

    /// Keeps the identifier of the pipeline.
    pub(super) fn set_pipeline(&self, id: u128) -> Result<()> {
        self.set_note(PIPELINE, &format!("{id:032x}"))
    }

    /// What was noted of the pseudonym key, if anything.
    pub(super) fn key_check(&self) -> Result<Option<String>> {
        let text = self.note(KEY_CHECK)?;
        Ok(text.map(|text| String::from_utf8_lossy(&text).trim_end().to_owned()))
    }

    /// Notes something of the pseudonym key, whole and on disk.
    pub(super) fn set_key_check(&self, check: &str) -> Result<()> {
        self.set_note(KEY_CHECK, check)
    }

    /// The error for a file that could not be read.
    pub(super) fn troubled(&self, name: &str, trouble: Trouble) -> Error {
        let path = self.path_of(name);
        match trouble {
            Trouble::Damage(damage) | Trouble::Refused(damage) => self.damaged(name, damage),
            Trouble::Io(e) => failed(format!("reading {}", path.display()), e),
            Trouble::Setting(setting) => setting.error(&format!("reading {}", path.display())),
        }
    }

    /// The error for damage in a file.
    pub(super) fn damaged(&self, name: &str, damage: Damage) -> Error {
        let path = self.path_of(name);
        let doing = format!("reading {}, byte {}: {}", path.display(), damage.at, damage.what);
        Error::new(Kind::DataDiffers, doing).advise(REBUILD)
    }
}

/// Makes a directory and those above it that are missing, for their owner only; their names are on disk then.
fn made(path: &Path, disk: &Disk) -> io::Result<()> {
    let missing =
        path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.is_dir());
    let missing: Vec<_> = missing.collect();
    for path in missing.into_iter().rev() {
        disk.make_directory(path)?;
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        match disk.sync_directory(above.unwrap_or(Path::new("."))) {
            // Whoever may write into a directory need not be allowed to open it.
            Err(e) if e.kind() != io::ErrorKind::PermissionDenied => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The error for a file that cannot be read or written.
pub(super) fn failed(doing: impl Into<String>, cause: io::Error) -> Error {
    let kind = match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Config,
        _ => Kind::Temporary,
    };
    Error::new(kind, doing).caused_by(cause)
}

/// Takes the lock, waiting a moment: a program that is just ending, or a child process that it just forked, may
/// still hold it.
fn locked(lock: &File) -> Result<(), TryLockError> {
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_WAIT_MAX => {
                std::thread::sleep(LOCK_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_their_epoch() {
        assert_eq!(segment_name(Epoch(7)), "log-00000000000000000007.seg");
        let segment = |name: &str| epoch_in(name, "log-", ".seg");
        assert_eq!(segment(&segment_name(Epoch(u64::MAX))), Some(Epoch(u64::MAX)));
        for name in ["log-7.seg", "log-0000000000000000000x.seg", "log-99999999999999999999.seg"] {
            assert_eq!(segment(name), None, "{name}");
        }
    }

    #[test]
    fn files_are_for_their_owner_only() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("a/b");
        let directory = Directory::lock(&path, Access::default()).unwrap();
        directory.set_pipeline(7).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(LOCK)), 0o600);
        assert_eq!(mode(&path.join(PIPELINE)), 0o600);
        assert_eq!(directory.pipeline().unwrap(), Some(7));
    }

    #[test]
    fn leftovers_go_and_a_bad_identifier_is_told() {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("snapshot-1.snap.tmp"), "half").unwrap();
        fs::write(outer.path().join("README.md"), "stays").unwrap();
        let directory = Directory::lock(outer.path(), Access::default()).unwrap();
        assert!(!outer.path().join("snapshot-1.snap.tmp").exists());
        assert!(outer.path().join("README.md").exists());
        assert_eq!(directory.pipeline().unwrap(), None);
        fs::write(outer.path().join(PIPELINE), "+0000000000000000000000000000007\n").unwrap();
        assert_eq!(directory.pipeline().unwrap_err().kind(), Kind::DataDiffers);
    }
}
