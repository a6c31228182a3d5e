//! For fuzzing: any bytes as a state file or an export. Nothing of it is part of the interface.

use std::io::Cursor;

use sha2::{Digest, Sha256};

use crate::error::Result as Done;
use crate::model::{Epoch, FieldType, RowField, Schema, Secret, Subform};

use super::beginning::{CHECKED_BYTES, MAGIC_BYTES, PREAMBLE_BYTES, VERSION_UNCHECKED};
use super::bundle::{self, Place};
use super::frame::{FRAME_HEAD_BYTES, Trouble, checksum};
use super::seal::{Keys, StateKey};
use super::segment::Epochs;
use super::snapshot;

/// The key of sealed files in the corpus, as hex digits.
pub const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// The pipeline of the corpus, and the epoch that each file begins with or is of.
pub const PIPELINE: u128 = 7;
/// See [`PIPELINE`].
pub const EPOCH: u64 = 1;

/// What came of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A sound file: its epochs, or its records.
    Read(usize),
    /// It was refused at this offset, in bytes.
    Refused(u64),
    /// It is whole, and the key or the version is another.
    Setting,
}

/// Reads `bytes` as a segment and as a snapshot of [`EPOCH`] and [`PIPELINE`].
///
/// Checksums are made right first when `mend` is set, as mutated bytes would not get past them.
pub fn decode(bytes: &[u8], mend: bool) -> [Outcome; 2] {
    let mended;
    let bytes = if mend {
        mended = with_right_checksums(bytes);
        &mended[..]
    } else {
        bytes
    };
    let (key, length) = (StateKey::from_secret(&Secret::new(KEY)), bytes.len() as u64);
    let keys = Keys { current: key, previous: Vec::new() };
    let (epoch, schema, pipeline) = (Epoch(EPOCH), schema(), PIPELINE);
    let epochs = || {
        let mut epochs = Epochs::open(Cursor::new(bytes), length, epoch, pipeline, &keys, &schema)?;
        let mut count = 0;
        while epochs.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    };
    let records = || {
        let input = Cursor::new(bytes);
        let stored = snapshot::decode(input, length, epoch, pipeline, &keys, &schema, 1)?;
        Ok(stored.records.len())
    };
    [outcome(epochs()), outcome(records())]
}

/// Takes `bytes` for an export, whose files go nowhere; gives how many there are when it is whole.
///
/// Its checksum is made right first when `mend` is set.
pub fn unpack(bytes: &[u8], mend: bool) -> Option<usize> {
    let mut bytes = bytes.to_vec();
    if mend && let Some((content, sum)) = bytes.split_last_chunk_mut::<{ bundle::SUM_BYTES }>() {
        sum.copy_from_slice(&Sha256::digest(content));
    }
    bundle::unpack(&bytes[..], &Nowhere).ok().map(|files| files.len())
}

struct Nowhere;

impl Place for Nowhere {
    type File = ();

    fn begin(&self, _: &str) -> Done<()> {
        Ok(())
    }

    fn put(&self, (): &(), _: &[u8]) -> Done<()> {
        Ok(())
    }

    fn end(&self, (): &()) -> Done<()> {
        Ok(())
    }
}

fn outcome(read: Result<usize, Trouble>) -> Outcome {
    match read {
        Ok(count) => Outcome::Read(count),
        Err(Trouble::Damage(damage) | Trouble::Refused(damage)) => Outcome::Refused(damage.at),
        Err(Trouble::Io(_)) => Outcome::Refused(0),
        Err(Trouble::Setting(_)) => Outcome::Setting,
    }
}

/// Of the corpus, and one more field, so that records are laid out anew.
fn schema() -> Schema {
    let row = |name: &str, field_type| RowField { name: name.into(), field_type };
    let fields = [("age", FieldType::Integer), ("concerns", FieldType::Options)];
    let services = Subform {
        name: "services".into(),
        fields: vec![row("done", FieldType::Date), row("type", FieldType::Option)],
    };
    let fields = fields.into_iter().chain([("new", FieldType::Option)]);
    Schema::new(fields.map(|(name, kind)| (name.to_owned(), kind)), vec![services])
}

/// The same bytes with the checksums of the version and of each frame right, as far as frames follow
/// each other.
fn with_right_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = PREAMBLE_BYTES;
    if let Some((version, crc)) = bytes.split_at_mut_checked(at)
        && version[MAGIC_BYTES] > VERSION_UNCHECKED as u8
        && let Some(crc) = crc.first_chunk_mut()
    {
        *crc = crc32fast::hash(version).to_le_bytes();
        at = CHECKED_BYTES;
    }
    while let Some(rest) = bytes.get_mut(at..)
        && let Some((head, rest)) = rest.split_at_mut_checked(FRAME_HEAD_BYTES)
        && let Some(length) = head.first_chunk().map(|length| u32::from_le_bytes(*length) as usize)
        && let Some(payload) = rest.get(..length)
    {
        head[4..].copy_from_slice(&checksum(payload).to_le_bytes());
        at += FRAME_HEAD_BYTES + length;
    }
    bytes
}
