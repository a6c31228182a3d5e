//! The state directory: the one place that opens, renames and removes its files, owner-only.
//!
//! Everything the state does to a disk goes through here, so this is where a test can make a disk
//! fail.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::model::Epoch;

use super::frame::Damage;

/// What to do about damage.
pub(super) const REBUILD: &str = "restore the state directory from a backup, or delete it: it is \
     rebuilt from the sources";

const LOCK: &str = "lock";
const PIPELINE: &str = "pipeline";
/// The file that says which key the pseudonyms in all others were made with.
const KEY_CHECK: &str = "key-check";
const TEMPORARY: &str = ".tmp";

/// How long a lock that somebody holds is waited for, and how often it is tried.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The state directory, locked by its owner or only looked at.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Held as long as anything may still write here.
    _lock: Option<File>,
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
    /// Makes the directory if needed and locks it; leftovers of interrupted writes are removed.
    pub(super) fn lock(path: &Path) -> Result<Self> {
        let doing = || format!("opening the state directory {}", path.display());
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|e| Error::config(doing()).caused_by(e))?;
        // A directory that came with other rights is tightened if it is ours; its files are
        // owner-only anyway.
        fs::set_permissions(path, Permissions::from_mode(0o700)).ok();
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(path.join(LOCK));
        let lock = lock.map_err(|e| Error::config(doing()).caused_by(e))?;
        match locked(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let busy = format!("{}: another running program uses it", doing());
                return Err(Error::new(Kind::Temporary, busy)
                    .advise("stop the other one, or give this one its own state directory"));
            }
            Err(TryLockError::Error(e)) => return Err(Error::config(doing()).caused_by(e)),
        }
        let directory = Self { path: path.to_owned(), _lock: Some(lock) };
        directory.remove_leftovers()?;
        Ok(directory)
    }

    /// Only looks, beside whoever holds the lock.
    pub(super) fn look(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self { path: path.to_owned(), _lock: None });
        }
        Err(Error::config(format!("there is no state directory {}", path.display())))
    }

    /// Where a file of this directory is, for opening and for errors.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn names(&self) -> Result<Vec<String>> {
        let read = || -> io::Result<Vec<String>> {
            let names = fs::read_dir(&self.path)?;
            let names = names.map(|entry| Ok(entry?.file_name().into_string().ok()));
            Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
        };
        read().map_err(|e| failed(format!("listing {}", self.path.display()), e))
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
        let names = self.names()?;
        names.iter().filter(|name| name.ends_with(TEMPORARY)).try_for_each(|name| self.remove(name))
    }

    /// Opens a file for reading; gives its length too, in bytes.
    pub(super) fn open(&self, name: &str) -> Result<(File, u64)> {
        let open = || {
            let file = File::open(self.path_of(name))?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        open().map_err(|e| failed(format!("opening {}", self.path_of(name).display()), e))
    }

    /// Begins a file under a temporary name; [`Self::publish`] gives it its own.
    pub(super) fn create(&self, name: &str) -> Result<File> {
        let path = self.path_of(&format!("{name}{TEMPORARY}"));
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        options.open(&path).map_err(|e| failed(format!("creating {}", path.display()), e))
    }

    /// Gives up a file that was begun.
    pub(super) fn abandon(&self, name: &str) -> Result<()> {
        self.remove(&format!("{name}{TEMPORARY}"))
    }

    /// Makes a file appear under its name, whole and on disk.
    pub(super) fn publish(&self, name: &str, file: &File) -> Result<()> {
        let path = self.path_of(name);
        let publish = || {
            file.sync_all()?;
            crash::synced(name);
            fs::rename(self.path_of(&format!("{name}{TEMPORARY}")), &path)?;
            crash::renamed(name);
            self.sync()
        };
        publish().map_err(|e| failed(format!("writing {}", path.display()), e))
    }

    /// Cuts a file to `length` bytes and waits until that is on disk; so is then everything before.
    pub(super) fn cut(&self, name: &str, length: u64) -> Result<()> {
        let path = self.path_of(name);
        let cut = || {
            let file = OpenOptions::new().write(true).open(&path)?;
            if file.metadata()?.len() != length {
                file.set_len(length)?;
            }
            file.sync_all()
        };
        cut().map_err(|e| failed(format!("repairing {}", path.display()), e))
    }

    /// Removes a file; one that is gone already is no error.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let path = self.path_of(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(failed(format!("removing {}", path.display()), e))
            }
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// The 128 bits that name the pipeline this state belongs to; `None` when they were never
    /// drawn.
    pub(super) fn pipeline(&self) -> Result<Option<u128>> {
        let path = self.path_of(PIPELINE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(format!("reading {}", path.display()), e)),
        };
        let digits = text.strip_suffix(b"\n").filter(|digits| {
            digits.len() == 32 && digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        let id = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match id.and_then(|digits| u128::from_str_radix(digits, 16).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(self.damaged(PIPELINE, Damage { at: 0, what: "it holds no identifier" })),
        }
    }

    /// Keeps the identifier of the pipeline.
    pub(super) fn set_pipeline(&self, id: u128) -> Result<()> {
        let mut file = self.create(PIPELINE)?;
        writeln!(file, "{id:032x}").map_err(|e| failed("writing the pipeline's identifier", e))?;
        self.publish(PIPELINE, &file)
    }

    /// What was noted of the pseudonym key, if anything.
    pub(super) fn key_check(&self) -> Result<Option<String>> {
        let path = self.path_of(KEY_CHECK);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(format!("reading {}", path.display()), e)),
        }
    }

    /// Notes something of the pseudonym key, whole and on disk.
    pub(super) fn set_key_check(&self, check: &str) -> Result<()> {
        let mut file = self.create(KEY_CHECK)?;
        writeln!(file, "{check}").map_err(|e| failed("noting the pseudonym key", e))?;
        self.publish(KEY_CHECK, &file)
    }

    /// The error for damage in a file.
    pub(super) fn damaged(&self, name: &str, damage: Damage) -> Error {
        let path = self.path_of(name);
        let doing = format!("reading {}, byte {}: {}", path.display(), damage.at, damage.what);
        Error::new(Kind::DataDiffers, doing).advise(REBUILD)
    }
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
        let directory = Directory::lock(&path).unwrap();
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
        let directory = Directory::lock(outer.path()).unwrap();
        assert!(!outer.path().join("snapshot-1.snap.tmp").exists());
        assert!(outer.path().join("README.md").exists());
        assert_eq!(directory.pipeline().unwrap(), None);
        fs::write(outer.path().join(PIPELINE), "+0000000000000000000000000000007\n").unwrap();
        assert_eq!(directory.pipeline().unwrap_err().kind(), Kind::DataDiffers);
    }
}
