//! Frames: how any content lies in a state file, `{length u32, crc32 u32, payload}`, little endian.
//!
//! The checksum covers the length too. A payload is never empty, so a run of zeros is never a
//! frame. When files are encrypted at rest this is also where a payload is sealed and opened
//! ([`super::seal`]); the checksum is that of the sealed one.

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::Arc;

use super::beginning::Setting;
use super::seal::{SEAL_BYTES_MAX, Seal};

/// Longest payload of a frame, in bytes: the most that a corrupted length can make a reader
/// allocate.
pub(super) const FRAME_BYTES_MAX: usize = 16 << 20;

/// A list is split into frames of about this many bytes.
pub(super) const FRAME_BYTES_GOAL: usize = 1 << 20;

/// Length and checksum in front of a payload, in bytes.
pub(super) const FRAME_HEAD_BYTES: usize = 8;

/// What is wrong with the bytes at an offset, in words that quote none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// Offset of the frame in its file, in bytes.
    pub(super) at: u64,
    /// What is wrong with it.
    pub(super) what: Cow<'static, str>,
}

impl Damage {
    pub(super) fn new(at: u64, what: impl Into<Cow<'static, str>>) -> Self {
        Self { at, what: what.into() }
    }
}

/// Why a frame could not be read.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The file could not be read.
    Io(io::Error),
    /// It could, and is not what was written.
    Damage(Damage),
    /// It is what was written, and its content makes no sense here: never the mark of a crash.
    Refused(Damage),
    /// It is sound, and cannot be read as things are set up.
    Setting(Setting),
}

/// Reads the frames of a file one by one, never past `end`.
pub(super) struct Frames<R> {
    input: R,
    at: u64,
    end: u64,
    payload: Vec<u8>,
    seal: Option<Arc<Seal>>,
    /// Frames since sealing began.
    number: u64,
}

/// A frame as it lies in the file, perhaps sealed.
pub(super) struct Body {
    /// Offset of the frame in its file, in bytes.
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
    number: u64,
}

impl Body {
    /// What kind of frame it says it is: the first byte of its payload.
    pub(super) fn tag(&self) -> Option<u8> {
        self.bytes.first().copied()
    }

    /// The payload.
    pub(super) fn open(&mut self, seal: Option<&Seal>) -> Result<&[u8], Trouble> {
        opened(seal, self.at, self.number, &mut self.bytes)
    }
}

fn opened<'a>(
    seal: Option<&Seal>,
    at: u64,
    number: u64,
    body: &'a mut [u8],
) -> Result<&'a [u8], Trouble> {
    match seal {
        None => Ok(body),
        // Its checksum was right, so it was written like this: no crash makes such a frame.
        Some(seal) => {
            seal.open(number, body).map_err(|what| Trouble::Refused(Damage::new(at, what)))
        }
    }
}

impl<R: Read> Frames<R> {
    /// Frames of `input`, which stands at offset `at` of a file of `end` bytes.
    pub(super) fn new(input: R, at: u64, end: u64) -> Self {
        Self { input, at, end, payload: Vec::new(), seal: None, number: 0 }
    }

    /// From here on frames are sealed.
    pub(super) fn sealed(&mut self, seal: Arc<Seal>) {
        self.seal = Some(seal);
    }

    /// What frames are sealed with.
    pub(super) fn seal(&self) -> Option<&Arc<Seal>> {
        self.seal.as_ref()
    }

    /// Offset of the next frame, in bytes.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The payload of the next frame and its checksum; `None` exactly at the end.
    pub(super) fn next(&mut self) -> Result<Option<(&[u8], u32)>, Trouble> {
        let (at, number) = (self.at, self.number);
        let Some(crc) = self.read()? else { return Ok(None) };
        let payload = opened(self.seal.as_deref(), at, number, &mut self.payload)?;
        Ok(Some((payload, crc)))
    }

    /// The next frame as it lies in the file, to be opened elsewhere, and its checksum.
    pub(super) fn next_body(&mut self) -> Result<Option<(Body, u32)>, Trouble> {
        let (at, number) = (self.at, self.number);
        let Some(crc) = self.read()? else { return Ok(None) };
        Ok(Some((Body { at, bytes: std::mem::take(&mut self.payload), number }, crc)))
    }

    /// Reads the next frame into `payload`; gives its checksum.
    fn read(&mut self) -> Result<Option<u32>, Trouble> {
        let damage = |what| Trouble::Damage(Damage::new(self.at, what));
        let rest = self.end.saturating_sub(self.at);
        if rest == 0 {
            return Ok(None);
        }
        if rest < FRAME_HEAD_BYTES as u64 {
            return Err(damage("the file ends within a frame"));
        }
        let mut head = [0; FRAME_HEAD_BYTES];
        self.input.read_exact(&mut head).map_err(Trouble::Io)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let (length, crc) =
            (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([c0, c1, c2, c3]));
        if length == 0 || length as usize > FRAME_BYTES_MAX {
            return Err(damage("the length of a frame is impossible"));
        }
        if u64::from(length) > rest - FRAME_HEAD_BYTES as u64 {
            return Err(damage("the file ends within a frame"));
        }
        self.payload.resize(length as usize, 0);
        self.input.read_exact(&mut self.payload).map_err(Trouble::Io)?;
        if checksum(&self.payload) != crc {
            return Err(damage("the checksum of a frame is wrong"));
        }
        self.at += FRAME_HEAD_BYTES as u64 + u64::from(length);
        self.number += u64::from(self.seal.is_some());
        Ok(Some(crc))
    }
}

/// Adds a frame to `bytes`, its payload written by `fill`, sealed under its number when there is a
/// seal; gives its checksum.
///
/// `None`, with `bytes` as before, when the payload is too long: longer than [`FRAME_BYTES_MAX`]
/// without what sealing adds, so that what fits does not depend on a key.
pub(super) fn put_frame(
    bytes: &mut Vec<u8>,
    seal: Option<(&Seal, u64)>,
    fill: impl FnOnce(&mut Vec<u8>),
) -> Option<u32> {
    let start = bytes.len();
    let payload_at = start + FRAME_HEAD_BYTES;
    bytes.extend([0; FRAME_HEAD_BYTES]);
    fill(bytes);
    debug_assert!(bytes.len() > payload_at, "a frame holds something");
    let fits = bytes.len() - payload_at <= FRAME_BYTES_MAX - SEAL_BYTES_MAX;
    let sealed = fits.then(|| match seal {
        Some((seal, number)) => seal.close(number, bytes, payload_at),
        None => Some(()),
    });
    if sealed.flatten().is_none() {
        bytes.truncate(start);
        return None;
    }
    let length = bytes.len() - payload_at;
    let crc = checksum(&bytes[payload_at..]);
    bytes[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[start + 4..payload_at].copy_from_slice(&crc.to_le_bytes());
    Some(crc)
}

/// The checksum of a payload and its length.
pub(super) fn checksum(payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Trouble> {
        let mut frames = Frames::new(bytes, 0, bytes.len() as u64);
        let mut all = Vec::new();
        while let Some((payload, _)) = frames.next()? {
            all.push(payload.to_vec());
        }
        Ok(all)
    }

    #[test]
    fn frames_come_back_and_no_flipped_bit_passes() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, None, |b| b.extend(b"one")).unwrap();
        put_frame(&mut bytes, None, |b| b.extend(b"another")).unwrap();
        assert_eq!(read(&bytes).unwrap(), [b"one".to_vec(), b"another".to_vec()]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_impossible_length_allocates_nothing() {
        for length in [0, FRAME_BYTES_MAX as u32 + 1, u32::MAX, 1000] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend([0; 100]);
            let mut frames = Frames::new(&bytes[..], 0, bytes.len() as u64);
            assert!(frames.next().is_err());
            assert_eq!(frames.payload.capacity(), 0);
        }
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused() {
        let mut bytes = vec![7];
        assert_eq!(
            put_frame(&mut bytes, None, |b| b.resize(b.len() + FRAME_BYTES_MAX + 1, 0)),
            None
        );
        assert_eq!(bytes, [7]);
    }
}
