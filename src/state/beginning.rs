//! How a state file begins: a magic word, the version of the format, a checksum of both, and, when
//! the file is sealed, what it is sealed with. Whatever else changes in a later version, this stays.

use std::io::Read;
use std::sync::Arc;

use crate::error::Error;
use crate::model::Epoch;

use super::format::SEALED;
use super::frame::{Damage, Frames, Trouble, put_frame};
use super::seal::{KeyCheck, Keys, Seal, SealHead, StateKey};

/// Version of the format, written into each file. Version 1 is version 2 without backfills; version
/// 3 has records by shard, a checksum behind the version, and can be sealed; version 4 may have sums in a snapshot.
pub(super) const VERSION: u32 = 4;

/// The oldest version that is read.
const VERSION_OLDEST: u32 = 1;

/// The last version without a checksum of the version.
pub(super) const VERSION_UNCHECKED: u32 = 2;

/// Magic word and version, and the checksum of both, in bytes.
pub(super) const MAGIC_BYTES: usize = 8;
pub(super) const PREAMBLE_BYTES: usize = 12;
pub(super) const CHECKED_BYTES: usize = 16;

/// The two kinds of files, told apart by their magic word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A part of the log.
    Segment,
    /// Everything as of one epoch.
    Snapshot,
}

impl FileKind {
    fn magic(self) -> &'static [u8; MAGIC_BYTES] {
        match self {
            Self::Segment => b"tonlelog",
            Self::Snapshot => b"tonlesnp",
        }
    }
}

/// Why a file that is whole cannot be read as things are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// A later version of this program wrote it.
    Newer(u32),
    /// It is sealed, and there is no key.
    NoKey,
    /// It is sealed with a key that is none of those there are.
    OtherKey(KeyCheck),
}

impl Setting {
    /// As an error while reading the file named in `doing`.
    pub(super) fn error(self, doing: &str) -> Error {
        match self {
            Self::Newer(found) => Error::config(format!(
                "{doing}: it has version {found} of the format, this program reads versions \
                 {VERSION_OLDEST} to {VERSION}"
            ))
            .advise(
                "start the newer program that wrote it; or delete the state directory: it is \
                 rebuilt from the sources",
            ),
            Self::NoKey => Error::config(format!("{doing}: it is sealed, and there is no key"))
                .advise("name the file with its key: key_file under [state]"),
            Self::OtherKey(check) => Error::config(format!(
                "{doing}: it is sealed with another key, the one that begins with check {check}"
            ))
            .advise(
                "put that key back as key_file under [state], or into previous_key_files; if it is \
                 lost, delete the state directory: it is rebuilt from the sources",
            ),
        }
    }
}

/// The first bytes of a new file, and what its frames are sealed with if there is a key.
pub(super) fn begin(
    kind: FileKind,
    key: Option<&StateKey>,
    pipeline: u128,
    epoch: Epoch,
) -> (Vec<u8>, Option<Arc<Seal>>) {
    let mut bytes = kind.magic().to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let Some(key) = key else { return (bytes, None) };
    let head = SealHead::new(key, pipeline, epoch);
    let seal = Seal::new(key.clone(), &head, &bound(&bytes, &head));
    put_frame(&mut bytes, None, |bytes| {
        bytes.push(SEALED);
        head.put(bytes);
    });
    (bytes, Some(Arc::new(seal)))
}

/// What every tag of a file covers: how it begins, and what it says of its seal.
fn bound(preamble: &[u8], head: &SealHead) -> Vec<u8> {
    let mut bound = preamble.to_vec();
    head.put(&mut bound);
    bound
}

/// A file whose beginning was read.
pub(super) struct Begun<R> {
    /// What comes behind the head.
    pub(super) frames: Frames<R>,
    /// The payload of the head, its checksum, and its offset in bytes.
    pub(super) head: Vec<u8>,
    pub(super) head_crc: u32,
    pub(super) head_at: u64,
}

/// Reads the beginning of the file of `epoch` that is `length` bytes long.
pub(super) fn read<R: Read>(
    input: R,
    length: u64,
    kind: FileKind,
    keys: &Keys,
    pipeline: u128,
    epoch: Epoch,
) -> Result<Begun<R>, Trouble> {
    let missing = |at| Trouble::Damage(Damage::new(at, "the head of the file is missing"));
    let (preamble, mut frames) = preamble(input, length, kind)?;
    let at = frames.at();
    let (first, crc) = frames.next()?.ok_or_else(|| missing(at))?;
    if first.first() != Some(&SEALED) || preamble.len() < CHECKED_BYTES {
        let (head, head_crc) = (first.to_vec(), crc);
        return Ok(Begun { frames, head, head_crc, head_at: at });
    }
    let refused = |what: &'static str| Trouble::Refused(Damage::new(at, what));
    let said = SealHead::take(&first[1..]).ok_or_else(|| refused("a seal is malformed"))?;
    if said.pipeline != pipeline {
        return Err(refused("it belongs to another pipeline"));
    }
    if said.epoch != epoch {
        return Err(refused("it is not of the epoch of its name"));
    }
    let key = key_for(said.check, keys).map_err(Trouble::Setting)?;
    frames.sealed(Arc::new(Seal::new(key.clone(), &said, &bound(&preamble, &said))));
    let head_at = frames.at();
    let (head, head_crc) = frames.next()?.ok_or_else(|| missing(head_at))?;
    let head = head.to_vec();
    Ok(Begun { frames, head, head_crc, head_at })
}

/// The key that opens what was sealed with the one of this check.
pub(super) fn key_for(check: KeyCheck, keys: &Keys) -> Result<&StateKey, Setting> {
    keys.with_check(check).ok_or(match keys.is_empty() {
        true => Setting::NoKey,
        false => Setting::OtherKey(check),
    })
}

/// What a file is sealed with, as far as its first bytes tell; no key is needed.
pub(super) fn sealing<R: Read>(
    input: R,
    length: u64,
    kind: FileKind,
) -> Result<Option<KeyCheck>, Trouble> {
    let (_, mut frames) = preamble(input, length, kind)?;
    let first = frames.next()?.and_then(|(first, _)| first.strip_prefix(&[SEALED]));
    Ok(first.and_then(SealHead::take).map(|head| head.check))
}

/// Reads magic word, version and checksum; gives them, and the frames behind.
fn preamble<R: Read>(
    mut input: R,
    length: u64,
    kind: FileKind,
) -> Result<(Vec<u8>, Frames<R>), Trouble> {
    let damage = |what: &'static str| Trouble::Damage(Damage::new(0, what));
    if length < PREAMBLE_BYTES as u64 {
        return Err(damage("the head of the file is missing"));
    }
    let mut bytes = vec![0; PREAMBLE_BYTES];
    input.read_exact(&mut bytes).map_err(Trouble::Io)?;
    if !bytes.starts_with(kind.magic()) {
        return Err(damage("it does not begin as such a file does"));
    }
    let version = bytes.last_chunk().map_or(0, |version| u32::from_le_bytes(*version));
    if !(VERSION_OLDEST..=VERSION_UNCHECKED).contains(&version) {
        let mut crc = [0; CHECKED_BYTES - PREAMBLE_BYTES];
        if length < CHECKED_BYTES as u64 {
            return Err(damage("the head of the file is missing"));
        }
        input.read_exact(&mut crc).map_err(Trouble::Io)?;
        if version < VERSION_OLDEST || u32::from_le_bytes(crc) != crc32fast::hash(&bytes) {
            return Err(damage("the version of its format is damaged"));
        }
        if version > VERSION {
            return Err(Trouble::Setting(Setting::Newer(version)));
        }
        bytes.extend(crc);
    }
    let at = bytes.len() as u64;
    Ok((bytes, Frames::new(input, at, length)))
}
