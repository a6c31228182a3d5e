//! What lies in the directory, for the operator: names, sizes and ages, read from nothing but the file system.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{PipelineId, StateView, compact};
use crate::error::Result;
use crate::model::Epoch;

/// A file of the log or a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileShown {
    /// Its name.
    pub name: String,
    /// Its first epoch, or the one it is as of.
    pub epoch: Epoch,
    /// Its size in bytes.
    pub bytes: u64,
    /// Time since it was written to.
    pub age: Duration,
}

/// What lies in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whose files they are; none when nothing was ever written.
    pub pipeline: Option<PipelineId>,
    /// The parts of the log, oldest first.
    pub segments: Vec<FileShown>,
    /// The snapshots, oldest first.
    pub snapshots: Vec<FileShown>,
    /// Tombstones of erased records.
    pub erased: usize,
    /// Time since everything that had left by then was out of the files.
    pub compacted: Option<Duration>,
}

impl StateView {
    /// Shows what lies in the directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn show(&self) -> Result<Shown> {
        let sizes = self.directory.sizes()?;
        let of_kind = |begin: &str| -> Vec<FileShown> {
            let names = sizes.iter().filter(|(name, _)| name.starts_with(begin));
            let file = |(name, bytes): (&String, &u64)| {
                let digits: String = name.chars().filter(char::is_ascii_digit).take(20).collect();
                let path = self.directory.path_of(name);
                let modified = std::fs::metadata(path).and_then(|found| found.modified()).ok()?;
                Some(FileShown {
                    name: name.clone(),
                    epoch: Epoch(digits.parse().ok()?),
                    bytes: *bytes,
                    age: modified.elapsed().unwrap_or_default(),
                })
            };
            names.filter_map(file).collect()
        };
        let since = |moment: u64| {
            let then = UNIX_EPOCH.checked_add(Duration::from_millis(moment))?;
            SystemTime::now().duration_since(then).ok()
        };
        Ok(Shown {
            pipeline: self.pipeline_id()?,
            segments: of_kind("log-"),
            snapshots: of_kind("snapshot-"),
            erased: self.erased()?.len(),
            compacted: compact::read(&self.directory)?
                .filter(|moment| *moment > compact::LONG_AGO)
                .and_then(since),
        })
    }
}
