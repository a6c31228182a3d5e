//! What lies in the directory, for the operator: names, sizes and ages, and from the first bytes of each file what it
//! is sealed with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::beginning::FileKind;
use super::seal::Keys;
use super::{PipelineId, StateView, compact};
use crate::error::Result;
use crate::model::Epoch;

/// What a file is sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// Nothing: it can be read.
    Plain,
    /// The key that seals what is written.
    Current,
    /// A key that may open what was sealed with it.
    Previous,
    /// A key that there is not.
    Missing,
    /// Nobody knows: its beginning cannot be read.
    Unknown,
}

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
    /// What it is sealed with.
    pub sealing: Sealing,
    /// The beginning of the check of that key, by which keys are told apart.
    pub key_check: Option<String>,
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
    /// Whether what is written is sealed.
    pub seals: bool,
    /// Tombstones of erased records.
    pub erased: usize,
    /// Time since everything that had left by then was out of the files.
    pub compacted: Option<Duration>,
}

impl Shown {
    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &FileShown> {
        self.segments.iter().chain(&self.snapshots)
    }

    /// How many files are sealed.
    pub fn sealed_file_count(&self) -> usize {
        let is_sealed =
            |file: &&FileShown| !matches!(file.sealing, Sealing::Plain | Sealing::Unknown);
        self.files().filter(is_sealed).count()
    }

    /// How many files are not sealed as files are now: as [`State::stale_file_count`](super::State::stale_file_count).
    pub fn stale_file_count(&self) -> usize {
        let now = if self.seals { Sealing::Current } else { Sealing::Plain };
        self.files().filter(|file| file.sealing != now).count()
    }
}

impl StateView {
    /// Shows what lies in the directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn show(&self) -> Result<Shown> {
        let sizes = self.directory.sizes()?;
        let of_kind = |begin: &str, kind: FileKind| -> Vec<FileShown> {
            let names = sizes.iter().filter(|(name, _)| name.starts_with(begin));
            let file = |(name, bytes): (&String, &u64)| {
                let digits: String = name.chars().filter(char::is_ascii_digit).take(20).collect();
                let path = self.directory.path_of(name);
                let modified = std::fs::metadata(path).and_then(|found| found.modified()).ok()?;
                let (sealing, key_check) = self.sealing(name, kind);
                Some(FileShown {
                    name: name.clone(),
                    epoch: Epoch(digits.parse().ok()?),
                    bytes: *bytes,
                    age: modified.elapsed().unwrap_or_default(),
                    sealing,
                    key_check,
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
            segments: of_kind("log-", FileKind::Segment),
            snapshots: of_kind("snapshot-", FileKind::Snapshot),
            seals: self.directory.keys().sealing().is_some(),
            erased: self.erased()?.len(),
            compacted: compact::read(&self.directory)?
                .filter(|moment| *moment > compact::LONG_AGO)
                .and_then(since),
        })
    }

    /// What a file is sealed with, and the check of that key.
    fn sealing(&self, name: &str, kind: FileKind) -> (Sealing, Option<String>) {
        let keys: &Keys = self.directory.keys();
        let Ok(said) = self.directory.said_sealing(name, kind) else {
            return (Sealing::Unknown, None);
        };
        let Some(check) = said else { return (Sealing::Plain, None) };
        let sealing = match keys.with_check(check) {
            _ if keys.sealing() == said => Sealing::Current,
            Some(_) => Sealing::Previous,
            None => Sealing::Missing,
        };
        (sealing, Some(check.to_string()))
    }
}
