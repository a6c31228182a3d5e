//! The layer between the state and a disk: each call is one operation that a test can make fail.
//!
//! Outside of tests no fault is ever asked for, and each call is the one of the standard library.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::power::{Loss, Platter};

/// Longest time that syncs are held up, should a test forget them.
const HELD_MAX: Duration = Duration::from_secs(30);

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Listing a directory.
    List,
    /// Opening a file that exists.
    Open,
    /// Making a file or a directory, or opening a file to be written anew.
    Create,
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Waiting until a file is on disk.
    Sync,
    /// Waiting until the names in a directory are on disk.
    SyncDirectory,
    /// Cutting a file.
    Cut,
    /// Giving a file its name.
    Rename,
    /// Removing a file, or a directory with all it holds.
    Remove,
}

/// Which operations fail.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// The one with this number, counted from 0, and if `on` all after it.
    Number { number: u64, on: bool },
    /// One of a kind once `after` of them went well, and if `on` all after it.
    Kind { operation: Operation, after: u64, on: bool },
}

/// Faults for tests: which operation fails, and with which error of the system.
#[doc(hidden)]
#[derive(Debug)]
pub struct Faults {
    rule: Rule,
    errno: i32,
    /// A write that fails leaves so many of its bytes, at most, on the disk.
    short_bytes: usize,
    seen: Mutex<Seen>,
    /// The only thread whose syncs go on, while those of others are held up.
    held: Mutex<Option<ThreadId>>,
    let_go: Condvar,
    /// What is left without power, where that is to fail.
    platter: Option<Mutex<Platter>>,
}

#[derive(Debug, Default)]
struct Seen {
    count: u64,
    kinds: BTreeMap<Operation, u64>,
    failed: Vec<(Operation, PathBuf)>,
    lifted: bool,
}

impl Faults {
    fn new(rule: Rule, errno: i32) -> Arc<Self> {
        Self::with(rule, errno, 0, None)
    }

    fn with(rule: Rule, errno: i32, short_bytes: usize, platter: Option<Platter>) -> Arc<Self> {
        let (seen, held, let_go) = Default::default();
        let platter = platter.map(Mutex::new);
        Arc::new(Self { rule, errno, short_bytes, seen, held, let_go, platter })
    }

    /// No fault: only counts.
    pub fn none() -> Arc<Self> {
        Self::nth(u64::MAX, 0)
    }

    /// The operation with this number, counted from 0.
    pub fn nth(number: u64, errno: i32) -> Arc<Self> {
        Self::new(Rule::Number { number, on: false }, errno)
    }

    /// That operation and all after it.
    pub fn from(number: u64, errno: i32) -> Arc<Self> {
        Self::new(Rule::Number { number, on: true }, errno)
    }

    /// All operations of a kind once so many of them went well.
    pub fn of(operation: Operation, after: u64, errno: i32) -> Arc<Self> {
        Self::new(Rule::Kind { operation, after, on: true }, errno)
    }

    /// One operation of a kind, once so many of them went well.
    pub fn one_of(operation: Operation, after: u64, errno: i32) -> Arc<Self> {
        Self::new(Rule::Kind { operation, after, on: false }, errno)
    }

    /// A disk that is full: a write once so many went well, which leaves this many of its bytes.
    pub fn full(after: u64, short_bytes: usize, errno: i32) -> Arc<Self> {
        let rule = Rule::Kind { operation: Operation::Write, after, on: true };
        Self::with(rule, errno, short_bytes, None)
    }

    /// Power that fails before the operation with this number; everything in `directory` is synced now.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn without_power(number: u64, errno: i32, directory: &Path) -> io::Result<Arc<Self>> {
        let rule = Rule::Number { number, on: true };
        Ok(Self::with(rule, errno, 0, Some(Platter::holding(directory)?)))
    }

    /// Leaves in the directory what is left once the power has failed. Nobody may use it meanwhile.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn lose(&self, directory: &Path, loss: Loss) -> io::Result<()> {
        self.platter().map_or(Ok(()), |mut platter| platter.lose(directory, loss))
    }

    /// From now on everything goes well.
    pub fn lift(&self) {
        self.seen().lifted = true;
    }

    /// From now on faults come again.
    pub fn arm(&self) {
        self.seen().lifted = false;
    }

    /// From now on the syncs of other threads than this one wait, as on a slow disk, until they are let go or something
    /// fails.
    pub fn hold_syncs(&self) {
        *self.held() = Some(thread::current().id());
    }

    /// Lets them go.
    pub fn let_syncs_go(&self) {
        *self.held() = None;
        self.let_go.notify_all();
    }

    /// How many operations there were, of all kinds.
    pub fn count(&self) -> u64 {
        self.seen().count
    }

    /// How many there were of one kind.
    pub fn count_of(&self, operation: Operation) -> u64 {
        self.seen().kinds.get(&operation).copied().unwrap_or(0)
    }

    /// What failed.
    pub fn failed(&self) -> Vec<(Operation, PathBuf)> {
        self.seen().failed.clone()
    }

    fn held(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when nobody holds this thread's syncs up.
    fn wait(&self) {
        let ours = thread::current().id();
        let is_held = |held: &mut Option<ThreadId>| held.is_some_and(|other| other != ours);
        drop(self.let_go.wait_timeout_while(self.held(), HELD_MAX, is_held));
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn platter(&self) -> Option<MutexGuard<'_, Platter>> {
        let platter = self.platter.as_ref()?;
        Some(platter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ask(&self, operation: Operation, path: &Path) -> io::Result<()> {
        if operation == Operation::Sync {
            self.wait();
        }
        let mut seen = self.seen();
        let number = seen.count;
        seen.count += 1;
        let kind = seen.kinds.entry(operation).or_default();
        let of_kind = *kind;
        *kind += 1;
        let fails = match self.rule {
            Rule::Number { number: wanted, on } => number == wanted || (on && number > wanted),
            Rule::Kind { operation: wanted, after, on } => {
                operation == wanted && (of_kind == after || (on && of_kind > after))
            }
        };
        if !fails || seen.lifted {
            return Ok(());
        }
        seen.failed.push((operation, path.to_owned()));
        self.let_syncs_go();
        Err(io::Error::from_raw_os_error(self.errno))
    }
}

/// The disk, with the faults that a test wants.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Option<Arc<Faults>>);

impl Disk {
    pub(super) fn with_faults(faults: Option<Arc<Faults>>) -> Self {
        Self(faults)
    }

    fn ask(&self, operation: Operation, path: &Path) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |faults| faults.ask(operation, path))
    }

    /// What is to be known of what went well.
    fn note(&self, note: impl FnOnce(&mut Platter)) {
        if let Some(mut platter) = self.0.as_ref().and_then(|faults| faults.platter()) {
            note(&mut platter);
        }
    }

    fn file(&self, file: File, path: &Path) -> DiskFile {
        let mut number = None;
        self.note(|platter| number = platter.number(path));
        DiskFile { file, path: path.to_owned(), disk: self.clone(), number }
    }

    /// Makes a directory for its owner only; that somebody made it meanwhile is no error.
    pub(super) fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.ask(Operation::Create, path)?;
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
            made => made?,
        }
        self.note(|platter| platter.directory_made(path));
        Ok(())
    }

    /// Removes a directory with all it holds.
    pub(super) fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.ask(Operation::Remove, path)?;
        fs::remove_dir_all(path)?;
        self.note(|platter| platter.removed(path));
        Ok(())
    }

    /// The names in a directory.
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.ask(Operation::List, path)?;
        let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Opens a file for reading; gives its length too, in bytes.
    pub(super) fn open(&self, path: &Path) -> io::Result<(DiskFile, u64)> {
        self.ask(Operation::Open, path)?;
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((self.file(file, path), length))
    }

    /// All of a small file; `None` when there is none.
    pub(super) fn read_small(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open(path) {
            Ok((file, _)) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Makes a file for its owner only; it is emptied unless `keep` says that its content stays.
    pub(super) fn create(&self, path: &Path, keep: bool) -> io::Result<DiskFile> {
        self.ask(Operation::Create, path)?;
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(!keep).write(true).mode(0o600).open(path)?;
        self.note(|platter| platter.created(path));
        Ok(self.file(file, path))
    }

    /// Cuts a file to `length` bytes, if it has another length, and waits until that is on disk.
    pub(super) fn cut(&self, path: &Path, length: u64) -> io::Result<()> {
        self.ask(Operation::Cut, path)?;
        let file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.len() != length {
            file.set_len(length)?;
        }
        self.file(file, path).sync_all()
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Operation::Rename, to)?;
        fs::rename(from, to)?;
        self.note(|platter| platter.renamed(from, to));
        Ok(())
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.ask(Operation::Remove, path)?;
        fs::remove_file(path)?;
        self.note(|platter| platter.removed(path));
        Ok(())
    }

    /// Waits until the names in a directory are on disk.
    pub(super) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.ask(Operation::SyncDirectory, path)?;
        File::open(path)?.sync_all()?;
        self.note(|platter| platter.directory_synced(path));
        Ok(())
    }
}

/// A file on such a disk.
#[derive(Debug)]
pub(super) struct DiskFile {
    file: File,
    path: PathBuf,
    disk: Disk,
    /// Under which a disk that is to lose its power knows it.
    number: Option<usize>,
}

impl DiskFile {
    /// Where it is, for errors.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself, to be locked.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Writes all of `bytes` behind what was written.
    pub(super) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.disk.ask(Operation::Write, &self.path) {
            let short_bytes = self.disk.0.as_ref().map_or(0, |faults| faults.short_bytes);
            (&self.file).write_all(&bytes[..short_bytes.min(bytes.len())])?;
            return Err(error);
        }
        (&self.file).write_all(bytes)
    }

    /// Waits until its content is on disk.
    pub(super) fn sync_data(&self) -> io::Result<()> {
        self.disk.ask(Operation::Sync, &self.path)?;
        self.file.sync_data()?;
        self.synced()
    }

    /// Waits until its content and what the system knows of it are on disk.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        self.disk.ask(Operation::Sync, &self.path)?;
        self.file.sync_all()?;
        self.synced()
    }

    fn synced(&self) -> io::Result<()> {
        let mut read = Ok(());
        self.disk.note(|platter| read = platter.synced(self.number));
        read
    }
}

impl Read for DiskFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.disk.ask(Operation::Read, &self.path)?;
        self.file.read(bytes)
    }
}

impl Seek for DiskFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
