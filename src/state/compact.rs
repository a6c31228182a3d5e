//! Which files go: those that no restart needs; and at a compaction all but one new snapshot, which was read back, so
//! that what left the records is in no file any more.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::directory::{Directory, Listing, failed, segment_name, snapshot_name};
use super::{SNAPSHOTS_KEPT, SnapshotContent, State, Writing};
use crate::crash::{self, Step};
use crate::error::{Error, Result};
use crate::model::Epoch;

/// How long a record that left may stay in files of the state before they are rewritten, unless settings say
/// otherwise.
pub const COMPACTION_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// When everything older than that moment was out of the files, in milliseconds since 1970, as text.
const NAME: &str = "compacted";

/// Longest content of that file, in bytes.
const BYTES_MAX: u64 = 32;

/// What a note that is damaged stands for: a compaction is due.
pub(super) const LONG_AGO: u64 = 0;

impl State {
    /// Whether something that left longer ago than `age_max` may still be in a file. A clock that was set back makes
    /// it due as well.
    ///
    /// # Errors
    /// When the note of the last time cannot be read or, in a new directory, written.
    pub fn compaction_due(&mut self, age_max: Duration) -> Result<bool> {
        let now = now_ms();
        let last = match self.compacted {
            Some(last) => last,
            None => match read(&self.directory)? {
                Some(last) => last,
                None => {
                    write(&self.directory, now)?;
                    now
                }
            },
        };
        self.compacted = Some(last);
        Ok(last > now || u128::from(now - last) >= age_max.as_millis())
    }

    /// Whether a snapshot is being written.
    pub fn is_writing_snapshot(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.background.is_some())
    }

    /// Begins a compaction: as [`Self::snapshot`], and once the snapshot is written and read back, every file goes that
    /// it stands for. [`Self::snapshot_finished`] tells when that is so.
    ///
    /// # Errors
    /// As for [`Self::snapshot`], and when its epoch is not the last one.
    pub fn compact(&mut self, content: SnapshotContent) -> Result<()> {
        let (epoch, began) = (content.epoch, now_ms());
        let last = self.writing("compacting")?.log.last();
        if epoch != last {
            let what = format!("compacting as of epoch {epoch}, the last one is {last}");
            return Err(Error::bug(what));
        }
        self.writing("compacting")?.compacting = Some(began);
        let begun = self.snapshot(content);
        if begun.is_err() {
            self.writing("compacting")?.compacting = None;
        }
        begun
    }

    /// Notes when the compaction that ended was begun.
    pub(super) fn compacted_at(&mut self, began: u64) {
        self.compacted = Some(began);
    }
}

impl Writing {
    /// Removes all but the two newest snapshots, and the segments that the older one of them
    /// covers.
    pub(super) fn prune(&mut self, directory: &Directory) -> Result<()> {
        let kept = self.files.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
        if self.files.snapshots.len() < SNAPSHOTS_KEPT {
            return Ok(());
        }
        // The thread that writes one may have given it its name already, before anybody asked whether it is done.
        let being_written = self.background.as_ref().map(|background| background.epoch);
        for epoch in directory.list()?.snapshots {
            if !self.files.snapshots[kept..].contains(&epoch) && being_written != Some(epoch) {
                directory.remove(&snapshot_name(epoch))?;
                crash::point(Step::SnapshotRemoved);
                self.stale.remove(&snapshot_name(epoch));
            }
        }
        self.files.snapshots.drain(..kept);
        let needed_after = self.files.snapshots[0].min(self.committed);
        // All epochs of a segment are older than the first one of the next.
        while let [oldest, next, ..] = self.files.segments[..]
            && next <= needed_after.next()
        {
            directory.remove(&segment_name(oldest))?;
            crash::point(Step::SegmentRemoved);
            self.stale.remove(&segment_name(oldest));
            self.files.segments.remove(0);
        }
        Ok(())
    }

    /// Removes all that the snapshot of `epoch`, begun at `began`, stands for.
    pub(super) fn keep_only(
        &mut self,
        directory: &Directory,
        epoch: Epoch,
        began: u64,
    ) -> Result<()> {
        let Listing { segments, snapshots } = directory.list()?;
        for other in snapshots.into_iter().filter(|other| *other != epoch) {
            directory.remove(&snapshot_name(other))?;
            crash::point(Step::CompactedSnapshotRemoved);
        }
        // The log was ended before the snapshot was begun: a segment holds nothing but older epochs, or none of them.
        for first in segments.into_iter().filter(|first| *first <= epoch) {
            directory.remove(&segment_name(first))?;
            crash::point(Step::CompactedSegmentRemoved);
        }
        self.files.snapshots = vec![epoch];
        self.files.segments.retain(|first| *first > epoch);
        let files = &self.files;
        self.stale.retain(|name| {
            files.segments.iter().any(|first| segment_name(*first) == *name)
                || snapshot_name(epoch) == *name
        });
        // With it the names that are gone are synced.
        write(directory, began)
    }
}

/// When the files were compacted last, if that was ever noted; a note that is damaged says that it was long ago.
pub(super) fn read(directory: &Directory) -> Result<Option<u64>> {
    if !directory.sizes()?.contains_key(NAME) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let (file, _) = directory.open(NAME)?;
    let doing = || format!("reading {}", directory.path_of(NAME).display());
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(|e| failed(doing(), e))?;
    let text = std::str::from_utf8(&bytes).ok();
    Ok(Some(text.and_then(|text| text.trim_end().parse().ok()).unwrap_or(LONG_AGO)))
}

fn write(directory: &Directory, moment: u64) -> Result<()> {
    directory.set_note(NAME, &moment.to_string())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Settings;

    #[test]
    fn a_damaged_note_makes_a_compaction_due() {
        let outer = tempfile::tempdir().unwrap();
        let due = || {
            let mut state = State::open(&Settings::new(outer.path()).unwrap()).unwrap();
            state.compaction_due(COMPACTION_AGE_MAX).unwrap()
        };
        assert!(!due() && !due(), "a new directory");
        let path = outer.path().join(NAME);
        let noted: u64 = std::fs::read_to_string(&path).unwrap().trim_end().parse().unwrap();
        let garbage = ["", "x", "-1", "99999999999999999999", "\u{1789}"].map(str::to_owned);
        for text in garbage.into_iter().chain([(noted + 1_000_000).to_string()]) {
            std::fs::write(&path, &text).unwrap();
            assert!(due(), "{text:?}");
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(due());
        std::fs::write(&path, noted.to_string()).unwrap();
        assert!(!due());
    }
}
