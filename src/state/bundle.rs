//! The state as one file, to be kept or carried elsewhere: written beside a running pipeline, and put in place only
//! when all of it was read.
//!
//! Eight letters and a version, then each file as the length of its name, the name, its length and its bytes; at the
//! end a name of no length and the SHA-256 of everything before. Numbers are little endian.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::directory::{Directory, IMPORTED, IMPORTING, failed};
use super::disk::DiskFile;
use super::view::{VIEW_ATTEMPTS_MAX, VIEW_PAUSE};
use super::{Settings, StateView, tie_to_key};
use crate::error::{Error, Kind, Result};
use crate::model::{Epoch, Schema};

const MAGIC: &[u8; 8] = b"tonlexpt";
const VERSION: u32 = 1;

/// Bytes of the SHA-256 at the end.
pub(super) const SUM_BYTES: usize = 32;

/// Longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// What a state directory may hold that is no state.
const NO_STATE: &[&str] = &["lock", "README.md", ".gitignore", IMPORTED];

/// What is added to the name of an export: while it is written, and where it is read back. What an export that was
/// killed left of these is removed by the next one.
const WRITING: &str = ".tmp";
const READING: &str = ".tmp-read";

/// What was exported or imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Files of the state.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The last epoch.
    pub last: Epoch,
    /// Visible records as of that.
    pub records: usize,
}

impl StateView {
    /// Writes everything into `path`, a new file for its owner only, and reads it back.
    ///
    /// # Errors
    /// A configuration error when there is such a file, DataDiffers when there is no state or it is damaged, else
    /// when reading or writing fails; then there is no such file.
    pub fn export(&self, path: &Path, schema: &Schema) -> Result<Exported> {
        let doing = || format!("exporting to {}", path.display());
        if self.pipeline_id()?.is_none() {
            let what = format!("{}: the state directory is empty", doing());
            return Err(Error::new(Kind::DataDiffers, what));
        }
        if path.symlink_metadata().is_ok() {
            return Err(Error::config(format!("{}: there is such a file", doing())));
        }
        let temporary = with_ending(path, WRITING);
        let mut attempt = 1;
        let outcome = loop {
            let written = self.write_bundle(&temporary);
            // A file went away, for the pipeline had no use for it any more.
            let is_gone = matches!(&written, Err(error) if error.kind() == Kind::Temporary);
            if !is_gone || attempt == VIEW_ATTEMPTS_MAX {
                break written;
            }
            std::thread::sleep(VIEW_PAUSE);
            attempt += 1;
        };
        let checked = outcome.and_then(|()| self.read_back(&temporary, path, schema));
        let exported = checked.and_then(|exported| {
            let named = fs::rename(&temporary, path).and_then(|()| sync_above(path));
            named.map_err(|e| failed(doing(), e)).map(|()| exported)
        });
        if exported.is_err() {
            fs::remove_file(&temporary).ok(); // the first error says more
        }
        exported.map_err(|error| error.while_doing(doing()))
    }

    fn write_bundle(&self, path: &Path) -> Result<()> {
        let sizes = self.directory.sizes()?;
        let doing = || format!("writing {}", path.display());
        // Never into what somebody else put there, or made to lead elsewhere.
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(doing(), e)),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.create_new(true).write(true).mode(0o600);
        let file = options.open(path).map_err(|e| failed(doing(), e))?;
        let mut output = Hashing { inner: BufWriter::new(file), hash: Sha256::new() };
        let put = |written: io::Result<()>| {
            written.map_err(|e| Error::new(Kind::Temporary, doing()).caused_by(e))
        };
        put(output.begin())?;
        for (name, bytes) in sizes.iter().filter(|(name, _)| is_state(name)) {
            let (mut file, _) = self.directory.open(name)?;
            put(output.file(name, *bytes, &mut file))?;
        }
        put(output.end())
    }

    /// Reads what was written into `bundle`, in a directory beside it that goes again.
    fn read_back(&self, bundle: &Path, near: &Path, schema: &Schema) -> Result<Exported> {
        let path = with_ending(near, READING);
        let doing = |what: &str| format!("{what} {}", path.display());
        if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            fs::remove_dir_all(&path).map_err(|e| failed(doing("removing"), e))?;
        }
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| failed(doing("making"), e))?;
        let directory = Directory::look(&path, self.directory.access().clone())?;
        let read = read_into(directory, bundle, schema, None);
        let removed = fs::remove_dir_all(&path).map_err(|e| failed(doing("removing"), e));
        read.and_then(|exported| removed.map(|()| exported))
    }
}

/// Puts an exported state in place, once all of it was read.
///
/// # Errors
/// A configuration error when the directory holds a state already, or the export is of another pseudonym key;
/// Temporary while another program uses it; DataDiffers when the file is damaged. Then nothing is changed.
pub fn import(
    settings: &Settings,
    path: &Path,
    schema: &Schema,
    key_check: u128,
) -> Result<Exported> {
    let target = settings.directory();
    let doing = || format!("importing {}", path.display());
    // Locks it too, until everything is in place.
    let directory = Directory::lock(target, settings.access.clone())?;
    let there: Vec<_> = directory.sizes()?.into_keys().collect();
    if there.iter().any(|name| !NO_STATE.contains(&name.as_str())) {
        let what = format!("{}: {} is not empty", doing(), target.display());
        return Err(Error::config(what)
            .advise("move what it holds elsewhere first, or name another state_directory"));
    }
    let importing = directory.make_directory(IMPORTING)?;
    let outcome = read_into(importing, path, schema, Some(key_check));
    let imported = outcome.and_then(|imported| directory.import().map(|()| imported));
    if imported.is_err() {
        directory.remove_directory(IMPORTING).ok(); // the first error says more
    }
    imported.map_err(|error| error.while_doing(doing()))
}

fn is_state(name: &str) -> bool {
    !NO_STATE.contains(&name) && !name.ends_with(".tmp")
}

/// A name that leads nowhere else.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    is_state(name) && !name.starts_with('.') && name.bytes().all(plain)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Waits until the name of a file is on disk.
fn sync_above(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

/// Unpacks a bundle into a new directory and reads all of it back.
fn read_into(
    directory: Directory,
    bundle: &Path,
    schema: &Schema,
    key_check: Option<u128>,
) -> Result<Exported> {
    let doing = || format!("reading {}", bundle.display());
    let file = File::open(bundle).map_err(|e| Error::config(doing()).caused_by(e))?;
    let files = unpack(BufReader::new(file), &directory).map_err(|wrong| match wrong {
        Wrong::Bytes(what) => Error::new(Kind::DataDiffers, format!("{}: {what}", doing()))
            .advise("take another export; without one, the state is read from the sources again"),
        Wrong::Disk(e) => failed(doing(), e),
        Wrong::Place(error) => error,
    })?;
    let view = StateView { directory };
    if let Some(check) = key_check {
        tie_to_key(&view.directory, check)?;
    }
    view.erased()?;
    let restored = view.restore(None, schema)?;
    let bytes = files.values().sum();
    let (last, records) = (restored.last, restored.records.len());
    Ok(Exported { files: files.len(), bytes, last, records })
}

/// Where the files of a bundle go.
pub(super) trait Place {
    type File;
    fn begin(&self, name: &str) -> Result<Self::File>;
    fn put(&self, file: &Self::File, bytes: &[u8]) -> Result<()>;
    fn end(&self, file: &Self::File) -> Result<()>;
}

impl Place for Directory {
    type File = DiskFile;

    fn begin(&self, name: &str) -> Result<DiskFile> {
        self.create_unseen(name)
    }

    fn put(&self, file: &DiskFile, bytes: &[u8]) -> Result<()> {
        let written = file.write_all(bytes);
        written.map_err(|e| failed(format!("writing {}", file.path().display()), e))
    }

    fn end(&self, file: &DiskFile) -> Result<()> {
        file.sync_all().map_err(|e| failed(format!("syncing {}", file.path().display()), e))
    }
}

/// Why a bundle was not unpacked.
#[derive(Debug)]
pub(super) enum Wrong {
    /// It is not what was written.
    Bytes(&'static str),
    /// It cannot be read.
    Disk(io::Error),
    /// Its files cannot be put where they should be.
    Place(Error),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Bytes("it ends too soon"),
            _ => Self::Disk(error),
        }
    }
}

/// Puts the files of a bundle into their place; gives their lengths.
pub(super) fn unpack<P: Place>(
    bundle: impl Read,
    place: &P,
) -> Result<BTreeMap<String, u64>, Wrong> {
    let mut input = Hashing { inner: bundle, hash: Sha256::new() };
    if input.bytes()? != *MAGIC {
        return Err(Wrong::Bytes("it is no export of a state"));
    }
    if u32::from_le_bytes(input.bytes()?) != VERSION {
        return Err(Wrong::Bytes("it was written in a version that this program does not read"));
    }
    let mut files = BTreeMap::new();
    while let Some(name) = input.name()? {
        let bytes = u64::from_le_bytes(input.bytes()?);
        if files.insert(name.clone(), bytes).is_some() {
            return Err(Wrong::Bytes("it holds a file twice"));
        }
        let file = place.begin(&name).map_err(Wrong::Place)?;
        in_pieces(bytes, |piece| {
            input.read(piece)?;
            place.put(&file, piece).map_err(Wrong::Place)
        })?;
        place.end(&file).map_err(Wrong::Place)?;
    }
    let wanted = input.hash.clone().finalize();
    let mut found = [0; SUM_BYTES];
    input.inner.read_exact(&mut found)?;
    if found[..] != wanted[..] {
        return Err(Wrong::Bytes("its checksum is wrong"));
    }
    if input.inner.read(&mut [0])? > 0 {
        return Err(Wrong::Bytes("it goes on behind its end"));
    }
    Ok(files)
}

/// Bytes of a file that are held at once.
const PIECE_BYTES: usize = 1 << 16;

/// Lends room for each next piece of so many bytes.
fn in_pieces<E>(bytes: u64, mut each: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<(), E> {
    let mut rest = bytes;
    let mut room = vec![0; PIECE_BYTES];
    while rest > 0 {
        let wanted = usize::try_from(rest).unwrap_or(usize::MAX).min(room.len());
        each(&mut room[..wanted])?;
        rest -= wanted as u64;
    }
    Ok(())
}

/// A file that is hashed as it is written or read.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<W: Write> Hashing<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }

    fn begin(&mut self) -> io::Result<()> {
        self.put(MAGIC)?;
        self.put(&VERSION.to_le_bytes())
    }

    /// The first `bytes` bytes of a file: what was appended since it was looked at is left out.
    fn file(&mut self, name: &str, bytes: u64, file: &mut impl Read) -> io::Result<()> {
        let length = u16::try_from(name.len()).map_err(io::Error::other)?;
        self.put(&length.to_le_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&bytes.to_le_bytes())?;
        in_pieces(bytes, |piece| {
            file.read_exact(piece)?;
            self.put(piece)
        })
    }
}

impl Hashing<BufWriter<File>> {
    fn end(&mut self) -> io::Result<()> {
        self.put(&0u16.to_le_bytes())?;
        let hash = self.hash.clone().finalize();
        self.inner.write_all(&hash)?;
        self.inner.flush()?;
        self.inner.get_ref().sync_all()
    }
}

impl<R: Read> Hashing<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.hash.update(bytes);
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// The name of the next file; none at the end.
    fn name(&mut self) -> Result<Option<String>, Wrong> {
        let length = usize::from(u16::from_le_bytes(self.bytes()?));
        if length == 0 {
            return Ok(None);
        }
        let mut name = vec![0; length.min(NAME_BYTES_MAX)];
        self.read(&mut name)?;
        let name = String::from_utf8(name).unwrap_or_default();
        match length <= NAME_BYTES_MAX && is_plain(&name) {
            true => Ok(Some(name)),
            false => Err(Wrong::Bytes("a name in it is impossible")),
        }
    }
}
