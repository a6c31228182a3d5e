//! Where the state is, how large its files grow, and the keys they are sealed with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

use super::directory::Access;
use super::disk::{Disk, Faults};
use super::seal::{Keys, PREVIOUS_KEYS_MAX, StateKey};
use super::{SEGMENT_BYTES, SNAPSHOT_LOG_BYTES_MIN};

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) directory: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) snapshot_log_bytes_min: u64,
    pub(super) access: Access,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("state"),
            segment_bytes: SEGMENT_BYTES,
            snapshot_log_bytes_min: SNAPSHOT_LOG_BYTES_MIN,
            access: Access::default(),
        }
    }
}

impl Settings {
    /// State in `directory`, which is made when it does not exist.
    ///
    /// # Errors
    /// A configuration error when the path is empty.
    pub fn new(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        if directory.as_os_str().is_empty() {
            return Err(Error::config("the state directory has no name"));
        }
        Ok(Self { directory, ..Self::default() })
    }

    /// The same with small files, so that a test sees many of them.
    #[must_use]
    pub fn with_sizes(mut self, segment_bytes: u64, snapshot_log_bytes_min: u64) -> Self {
        (self.segment_bytes, self.snapshot_log_bytes_min) = (segment_bytes, snapshot_log_bytes_min);
        self
    }

    /// The same with files sealed by `current`, while those sealed by one of `previous`, and plain
    /// ones, are read too.
    ///
    /// Without a current key what is written is plain. Files are written anew by and by: see
    /// [`State::wants_snapshot`](super::State::wants_snapshot).
    ///
    /// # Errors
    /// A configuration error when there are too many.
    pub fn with_keys(mut self, current: Option<StateKey>, previous: Vec<StateKey>) -> Result<Self> {
        if previous.len() > PREVIOUS_KEYS_MAX {
            let wrong = format!("previous_key_files: more than {PREVIOUS_KEYS_MAX} keys");
            return Err(Error::config(wrong).advise("leave out those that sealed no file any more"));
        }
        self.access.keys = Keys { current, previous };
        Ok(self)
    }

    /// The same on a disk that fails as a test wants.
    #[doc(hidden)]
    #[must_use]
    pub fn with_faults(mut self, faults: Arc<Faults>) -> Self {
        self.access.disk = Disk::with_faults(Some(faults));
        self
    }

    /// The same with so many threads to decode a snapshot, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_decoders(mut self, decoders: usize) -> Self {
        self.access.decoders = Some(decoders);
        self
    }

    /// The state directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
