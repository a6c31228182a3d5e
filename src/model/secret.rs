//! Secrets: they come from files, never print, and are wiped when dropped.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Longest secret file that is read, in bytes.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// What lets others than the owner of a file and its group do anything with it.
const OTHERS: u32 = 0o007;

/// The bits of a mode that say who may do what.
const PERMISSIONS: u32 = 0o7777;

/// A secret file that others than its owner and group may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSecret {
    /// The file.
    pub path: PathBuf,
    /// Who may do what with it.
    pub mode: u32,
}

impl OpenSecret {
    /// Looks whether others may use a file; `None` when not, or when it is gone.
    pub fn at(path: &Path) -> Option<Self> {
        let mode = fs::metadata(path).ok()?.permissions().mode() & PERMISSIONS;
        (mode & OTHERS != 0).then(|| Self { path: path.to_owned(), mode })
    }
}

/// Bytes that must not be seen: a password or a key.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A secret from memory; for keys made in tests and demos.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// Reads a secret file; one line end at the end of the file is not part of it.
    ///
    /// # Errors
    /// A configuration error that names the file when it cannot be read, is empty or is too long.
    pub fn from_file(path: &Path) -> Result<Self> {
        let doing = || format!("reading the secret file {}", path.display());
        let length = fs::metadata(path).map_err(|e| Error::config(doing()).caused_by(e))?.len();
        if length > SECRET_BYTES_MAX {
            return Err(Error::config(format!("{}: longer than 64 KiB", doing())));
        }
        let mut bytes =
            Zeroizing::new(fs::read(path).map_err(|e| Error::config(doing()).caused_by(e))?);
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.is_empty() {
            return Err(Error::config(format!("{}: the file is empty", doing())));
        }
        Ok(Self(bytes))
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
