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

use super::directory::{Access, Directory, failed};
use super::view::{VIEW_ATTEMPTS_MAX, VIEW_PAUSE};
use super::{Settings, State, StateView};
use crate::error::{Error, Kind, Result};
use crate::model::{Epoch, Schema};

const MAGIC: &[u8; 8] = b"tonlexpt";
const VERSION: u32 = 1;

/// Longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// What a state directory may hold that is no state.
const NO_STATE: &[&str] = &["lock", "README.md", ".gitignore"];

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
        if path.exists() {
            return Err(Error::config(format!("{}: there is such a file", doing())));
        }
        let temporary = with_ending(path, ".tmp");
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
        let checked = outcome.and_then(|()| {
            let access = self.directory.access().clone();
            unpacked(&temporary, path, access, schema, None)
        });
        let exported = checked.and_then(|(directory, exported)| {
            fs::remove_dir_all(directory).map_err(|e| failed(doing(), e))?;
            fs::rename(&temporary, path).map_err(|e| failed(doing(), e))?;
            Ok(exported)
        });
        if exported.is_err() {
            fs::remove_file(&temporary).ok(); // the first error says more
        }
        exported.map_err(|error| error.while_doing(doing()))
    }

    fn write_bundle(&self, path: &Path) -> Result<()> {
        let sizes = self.directory.sizes()?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        let doing = || format!("writing {}", path.display());
        let file = options.open(path).map_err(|e| failed(doing(), e))?;
        let mut output = Hashing { inner: BufWriter::new(file), hash: Sha256::new() };
        let written = output.begin().and_then(|()| {
            let states = sizes.iter().filter(|(name, _)| is_state(name));
            states.into_iter().try_for_each(|(name, bytes)| {
                let mut file = File::open(self.directory.path_of(name))?;
                output.file(name, *bytes, &mut file)
            })?;
            output.end()
        });
        written.map_err(|e| Error::new(Kind::Temporary, doing()).caused_by(e))
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
    let (unpacked, imported) =
        unpacked(path, target, settings.access.clone(), schema, Some(key_check))
            .map_err(|error| error.while_doing(doing()))?;
    let moved = there
        .iter()
        .try_for_each(|name| fs::rename(target.join(name), unpacked.join(name)))
        .and_then(|()| fs::remove_dir(target))
        .and_then(|()| fs::rename(&unpacked, target));
    moved.map_err(|e| failed(doing(), e))?;
    if let Some(outer) = target.parent().filter(|outer| !outer.as_os_str().is_empty()) {
        let synced = File::open(outer).and_then(|outer| outer.sync_all());
        synced.map_err(|e| failed(doing(), e))?;
    }
    drop(directory);
    Ok(imported)
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

/// Unpacks a bundle into a new directory beside `near` and reads all of it back.
fn unpacked(
    bundle: &Path,
    near: &Path,
    access: Access,
    schema: &Schema,
    key_check: Option<u128>,
) -> Result<(PathBuf, Exported)> {
    let directory = with_ending(near, &format!(".unpacked-{:08x}", rand::random::<u32>()));
    let made = DirBuilder::new().mode(0o700).create(&directory);
    made.map_err(|e| failed(format!("making {}", directory.display()), e))?;
    let read = unpack(bundle, &directory).and_then(|files| {
        let settings = Settings { access, ..Settings::new(&directory)? };
        let view = State::read_only(&settings)?;
        if let Some(check) = key_check {
            State::open(&settings)?.tie_to_key(check)?;
            fs::remove_file(directory.join("lock")).map_err(|e| failed("unpacking", e))?;
        }
        view.erased()?;
        let restored = view.restore(None, schema)?;
        let bytes = files.values().sum();
        let (last, records) = (restored.last, restored.records.len());
        Ok(Exported { files: files.len(), bytes, last, records })
    });
    match read {
        Ok(exported) => Ok((directory, exported)),
        Err(error) => {
            fs::remove_dir_all(&directory).ok(); // the first error says more
            Err(error)
        }
    }
}

/// Writes the files of a bundle into `directory`; gives their lengths.
fn unpack(bundle: &Path, directory: &Path) -> Result<BTreeMap<String, u64>> {
    let doing = || format!("reading {}", bundle.display());
    let file = File::open(bundle).map_err(|e| Error::config(doing()).caused_by(e))?;
    let mut input = Hashing { inner: BufReader::new(file), hash: Sha256::new() };
    let damaged = |what: &str| {
        Error::new(Kind::DataDiffers, format!("{}: {what}", doing()))
            .advise("take another export; without one, the state is read from the sources again")
    };
    let mut files = BTreeMap::new();
    let mut take = |input: &mut Hashing<BufReader<File>>| -> io::Result<Result<bool>> {
        let length = usize::from(u16::from_le_bytes(input.bytes()?));
        if length == 0 {
            return Ok(Ok(false));
        }
        let mut name = vec![0; length.min(NAME_BYTES_MAX)];
        input.read(&mut name)?;
        let name = String::from_utf8(name).unwrap_or_default();
        if length > NAME_BYTES_MAX || !is_plain(&name) {
            return Ok(Err(damaged("a name in it is impossible")));
        }
        let bytes = u64::from_le_bytes(input.bytes()?);
        let mut options = OpenOptions::new();
        let file = options.create_new(true).write(true).mode(0o600).open(directory.join(&name))?;
        input.copy(bytes, &file)?;
        file.sync_all()?;
        files.insert(name, bytes);
        Ok(Ok(true))
    };
    let mut read = || -> io::Result<Result<()>> {
        if input.bytes()? != *MAGIC {
            return Ok(Err(damaged("it is no export of a state")));
        }
        if u32::from_le_bytes(input.bytes()?) != VERSION {
            return Ok(Err(damaged("it was written in a version that this program does not read")));
        }
        loop {
            match take(&mut input)? {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Ok(Err(error)),
            }
        }
        let wanted = input.hash.clone().finalize();
        let mut found = [0; 32];
        input.inner.read_exact(&mut found)?;
        if found[..] != wanted[..] {
            return Ok(Err(damaged("its checksum is wrong")));
        }
        Ok(Ok(()))
    };
    match read() {
        Ok(outcome) => outcome?,
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(damaged("it ends too soon"));
        }
        Err(e) => return Err(failed(doing(), e)),
    }
    Ok(files)
}

/// Bytes of a file that are held at once.
const PIECE_BYTES: usize = 1 << 16;

/// Lends room for each next piece of so many bytes.
fn in_pieces(bytes: u64, mut each: impl FnMut(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
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
    fn file(&mut self, name: &str, bytes: u64, file: &mut File) -> io::Result<()> {
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

    fn copy(&mut self, bytes: u64, mut file: &File) -> io::Result<()> {
        in_pieces(bytes, |piece| {
            self.read(piece)?;
            file.write_all(piece)
        })
    }
}
