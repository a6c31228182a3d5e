//! The file `erased`: tombstones of erased records, which no restored log or snapshot brings back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read;

use super::directory::{Directory, failed};
use super::frame::Damage;
use super::{State, StateView};
use crate::error::Result;
use crate::model::Tombstone;

const NAME: &str = "erased";

/// The first line: what it is, and the version of its format.
const HEAD: &str = "tonle erased 1";

/// Longest file, in bytes: some millions of tombstones.
const BYTES_MAX: u64 = 256 << 20;

impl State {
    /// The tombstones that are kept beside the log.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn erased(&self) -> Result<BTreeSet<Tombstone>> {
        read(&self.directory)
    }

    /// Keeps exactly these, whole and on disk.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_erased(&mut self, tombstones: &BTreeSet<Tombstone>) -> Result<()> {
        let mut text = format!("{HEAD}\n");
        for Tombstone(number) in tombstones {
            writeln!(text, "{number:032x}").expect("writing to a string never fails");
        }
        let crc = crc32fast::hash(text.as_bytes());
        writeln!(text, "end {crc:08x}").expect("writing to a string never fails");
        let file = self.directory.create(NAME)?;
        let writing = || format!("writing {}", file.path().display());
        file.write_all(text.as_bytes()).map_err(|e| failed(writing(), e))?;
        self.directory.publish(NAME, &file)
    }
}

impl StateView {
    /// The tombstones that are kept beside the log.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn erased(&self) -> Result<BTreeSet<Tombstone>> {
        read(&self.directory)
    }
}

fn read(directory: &Directory) -> Result<BTreeSet<Tombstone>> {
    if !directory.sizes()?.contains_key(NAME) {
        return Ok(BTreeSet::new());
    }
    let (mut file, length) = directory.open(NAME)?;
    let damaged = |what| directory.damaged(NAME, Damage::new(0, what));
    if length > BYTES_MAX {
        return Err(damaged("it is too long"));
    }
    let mut bytes = Vec::new();
    let reading = format!("reading {}", directory.path_of(NAME).display());
    file.read_to_end(&mut bytes).map_err(|e| failed(reading, e))?;
    parse(&bytes).ok_or_else(|| damaged("it is not what was written"))
}

fn parse(bytes: &[u8]) -> Option<BTreeSet<Tombstone>> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (content, end) =
        text.rsplit_once('\n').map(|(_, end)| (&text[..text.len() - end.len()], end))?;
    let crc = u32::from_str_radix(end.strip_prefix("end ")?, 16).ok()?;
    if crc != crc32fast::hash(content.as_bytes()) {
        return None;
    }
    let mut lines = content.lines();
    if lines.next()? != HEAD {
        return None;
    }
    let tombstone = |line: &str| {
        let is_whole = line.len() == 32 && !line.starts_with('+');
        is_whole.then(|| u128::from_str_radix(line, 16).ok().map(Tombstone))?
    };
    lines.map(tombstone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Settings;

    #[test]
    fn tombstones_come_back_and_no_flipped_bit_passes() {
        let outer = tempfile::tempdir().unwrap();
        let mut state = State::open(&Settings::new(outer.path()).unwrap()).unwrap();
        assert!(state.erased().unwrap().is_empty());
        let all = BTreeSet::from([Tombstone(1), Tombstone(u128::MAX)]);
        state.keep_erased(&all).unwrap();
        assert_eq!(state.erased().unwrap(), all);
        let path = outer.path().join(NAME);
        let bytes = std::fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Another case of a digit is the same number.
            assert!(parse(&flipped).is_none_or(|found| found == all), "bit {bit}");
        }
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let error = state.erased().unwrap_err().to_string();
        assert!(error.contains("erased") && error.contains("backup"), "{error}");
    }
}
