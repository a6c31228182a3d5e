//! Encryption at rest: how a frame is sealed and opened with XChaCha20-Poly1305.
//!
//! Each file has 16 random bytes of its own, its *prefix*; with the number of the frame they are the
//! nonce, so no nonce is ever used twice: a frame is written once, and a file that was begun by one
//! run of the program is never gone on with by another. The tag of each frame covers the beginning
//! of the file too (kind, version, pipeline, epoch, prefix): a frame that is changed, moved within
//! its file or to another, or left out, does not open.
//!
//! In clear stay the kind and length of each frame, and all of a commit frame: epochs only, which
//! the search behind a torn end looks for ([`super::segment`]). Its tag covers them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::model::{Epoch, Secret};

use super::format::COMMIT;

/// Length of a key, in bytes.
pub const KEY_BYTES: usize = 32;

/// Most keys that may open files, beside the one that seals.
pub const PREVIOUS_KEYS_MAX: usize = 16;

/// The random bytes of a file, and what tells which key it was sealed with, in bytes.
const PREFIX_BYTES: usize = 16;
const CHECK_BYTES: usize = 16;

/// Behind the content of a sealed frame, in bytes.
const TAG_BYTES: usize = 16;

/// In front of the tag of a commit frame: the number of the frame, in bytes.
const NUMBER_BYTES: usize = 8;

/// The most that a frame grows by being sealed, in bytes.
pub(super) const SEAL_BYTES_MAX: usize = NUMBER_BYTES + TAG_BYTES;

/// What the check of a key is the MAC of.
const CHECK_OF: &[u8] = b"tonle: which key sealed this state";

/// Why a frame was refused, in fixed words.
type Refused = &'static str;

/// A key that seals state files; it never prints, and is wiped when dropped.
#[derive(Clone)]
pub struct StateKey(Arc<Inner>);

struct Inner {
    cipher: XChaCha20Poly1305,
    check: KeyCheck,
}

/// Tells which key a file was sealed with, and nothing of the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyCheck([u8; CHECK_BYTES]);

impl fmt::Display for KeyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StateKey {
    /// Reads a key file: 32 random bytes, as hex digits or base64 on one line.
    ///
    /// # Errors
    /// A configuration error that names the file when it cannot be read or holds something else.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::from_secret(&Secret::from_file(path)?).ok_or_else(|| {
            let wrong = "expected 32 bytes as 64 hex digits or as base64, on one line";
            Error::config(format!("reading the secret file {}: {wrong}", path.display()))
                .advise("make one with: head -c 32 /dev/urandom | base64 > FILE")
        })
    }

    /// A key from its text; `None` when it is not 32 bytes as hex digits or base64.
    pub fn from_secret(secret: &Secret) -> Option<Self> {
        let text = secret.expose();
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        if text.len() == 2 * KEY_BYTES {
            for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
                *byte = digit(digits[0])? << 4 | digit(digits[1])?;
            }
        } else {
            let engine = if text.ends_with(b"=") { &STANDARD } else { &STANDARD_NO_PAD };
            // A buffer that decoding fits into whatever the text: nothing is left in a freed one.
            let mut decoded = Zeroizing::new([0; KEY_BYTES + 16]);
            let length = engine.decode_slice(text, &mut decoded[..]).ok()?;
            if length != KEY_BYTES {
                return None;
            }
            bytes.copy_from_slice(&decoded[..KEY_BYTES]);
        }
        Some(Self::new(&bytes))
    }

    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut check = [0; CHECK_BYTES];
        if let Ok(mac) = Hmac::<Sha256>::new_from_slice(bytes) {
            let mac = mac.chain_update(CHECK_OF).finalize().into_bytes();
            check.copy_from_slice(&mac[..CHECK_BYTES]);
        }
        let cipher = XChaCha20Poly1305::new(bytes.into());
        Self(Arc::new(Inner { cipher, check: KeyCheck(check) }))
    }

    fn check(&self) -> KeyCheck {
        self.0.check
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateKey(…)")
    }
}

impl PartialEq for StateKey {
    fn eq(&self, other: &Self) -> bool {
        self.check() == other.check()
    }
}

impl Eq for StateKey {}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// The keys of a state: the one that seals what is written, and those that may open as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) current: Option<StateKey>,
    pub(super) previous: Vec<StateKey>,
}

impl Keys {
    /// The key with this check.
    pub(super) fn with_check(&self, check: KeyCheck) -> Option<&StateKey> {
        self.current.iter().chain(&self.previous).find(|key| key.check() == check)
    }

    /// What a file that is written now is sealed with.
    pub(super) fn sealing(&self) -> Option<KeyCheck> {
        self.current.as_ref().map(StateKey::check)
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.current.is_none() && self.previous.is_empty()
    }
}

/// What a sealed file says of itself in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SealHead {
    pub(super) check: KeyCheck,
    pub(super) pipeline: u128,
    /// The epoch of its name.
    pub(super) epoch: Epoch,
    prefix: [u8; PREFIX_BYTES],
}

impl SealHead {
    /// For a new file.
    pub(super) fn new(key: &StateKey, pipeline: u128, epoch: Epoch) -> Self {
        Self { check: key.check(), pipeline, epoch, prefix: rand::random() }
    }

    pub(super) fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.check.0);
        bytes.extend(self.pipeline.to_le_bytes());
        bytes.extend(self.epoch.0.to_le_bytes());
        bytes.extend(self.prefix);
    }

    pub(super) fn take(bytes: &[u8]) -> Option<Self> {
        let (check, bytes) = bytes.split_first_chunk()?;
        let (pipeline, bytes) = bytes.split_first_chunk()?;
        let (epoch, bytes) = bytes.split_first_chunk()?;
        Some(Self {
            check: KeyCheck(*check),
            pipeline: u128::from_le_bytes(*pipeline),
            epoch: Epoch(u64::from_le_bytes(*epoch)),
            prefix: bytes.try_into().ok()?,
        })
    }
}

/// Seals and opens the frames of one file.
pub(super) struct Seal {
    key: StateKey,
    prefix: [u8; PREFIX_BYTES],
    /// The first bytes of the file, which every tag covers.
    bound: Vec<u8>,
}

impl Seal {
    /// For the file that begins with `bound`, in which `head` is.
    pub(super) fn new(key: StateKey, head: &SealHead, bound: &[u8]) -> Self {
        Self { key, prefix: head.prefix, bound: bound.to_vec() }
    }

    fn nonce(&self, number: u64) -> XNonce {
        let mut nonce = XNonce::default();
        nonce[..PREFIX_BYTES].copy_from_slice(&self.prefix);
        nonce[PREFIX_BYTES..].copy_from_slice(&number.to_le_bytes());
        nonce
    }

    fn covered(&self, clear: &[u8]) -> Vec<u8> {
        [&self.bound[..], clear].concat()
    }

    /// Seals the payload that begins at `from`, of the frame with this number.
    pub(super) fn close(&self, number: u64, bytes: &mut Vec<u8>, from: usize) -> Option<()> {
        let clear = if bytes.get(from) == Some(&COMMIT) {
            bytes.extend(number.to_le_bytes());
            bytes.len() - from
        } else {
            1
        };
        let (clear, content) = bytes.get_mut(from..)?.split_at_mut_checked(clear)?;
        let tag = self.key.0.cipher.encrypt_inout_detached(
            &self.nonce(number),
            &self.covered(clear),
            content.into(),
        );
        bytes.extend(tag.ok()?);
        Some(())
    }

    /// Opens the frame with this number in place; gives its payload.
    pub(super) fn open<'a>(&self, number: u64, body: &'a mut [u8]) -> Result<&'a [u8], Refused> {
        let short = "a frame is too short to be sealed";
        let end = body.len().checked_sub(TAG_BYTES).filter(|end| *end > 0).ok_or(short)?;
        let (content, tag) = body.split_at_mut(end);
        let is_commit = content[0] == COMMIT;
        let (clear, sealed) = content.split_at_mut(if is_commit { end } else { 1 });
        let tag = Tag::try_from(&*tag).map_err(|_| short)?;
        self.key
            .0
            .cipher
            .decrypt_inout_detached(&self.nonce(number), &self.covered(clear), sealed.into(), &tag)
            .map_err(|_| "a frame is not the one that was sealed here")?;
        let end = if is_commit { end.checked_sub(NUMBER_BYTES).ok_or(short)? } else { end };
        Ok(&body[..end])
    }

    /// Opens a commit frame wherever it was found, with the number that it says it has.
    pub(super) fn open_commit<'a>(&self, body: &'a mut [u8]) -> Option<&'a [u8]> {
        let end = body.len().checked_sub(TAG_BYTES)?;
        let number = body[..end].last_chunk::<NUMBER_BYTES>()?;
        self.open(u64::from_le_bytes(*number), body).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> StateKey {
        StateKey::new(&[byte; KEY_BYTES])
    }

    fn seal(key: StateKey, epoch: u64) -> Seal {
        let mut head = SealHead::new(&key, 7, Epoch(epoch));
        head.prefix = [9; PREFIX_BYTES];
        let mut bound = Vec::new();
        head.put(&mut bound);
        Seal::new(key, &head, &bound)
    }

    #[test]
    fn a_frame_opens_only_where_it_was_sealed() {
        let here = seal(key(1), 5);
        for payload in [&[8, 1, 2, 3][..], &[8], &[COMMIT; 21]] {
            let mut sealed = vec![0xee];
            sealed.extend(payload);
            here.close(3, &mut sealed, 1).unwrap();
            let body = &sealed[1..];
            assert_eq!(here.open(3, &mut body.to_vec()).unwrap(), payload);
            assert!(here.open(4, &mut body.to_vec()).is_err(), "another place");
            assert!(seal(key(1), 6).open(3, &mut body.to_vec()).is_err(), "another file");
            assert!(seal(key(2), 5).open(3, &mut body.to_vec()).is_err(), "another key");
            for bit in 0..body.len() * 8 {
                let mut flipped = body.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(here.open(3, &mut flipped).is_err(), "bit {bit}");
            }
            for length in 0..body.len() {
                assert!(here.open(3, &mut body[..length].to_vec()).is_err(), "{length} bytes");
            }
            let commit = here.open_commit(&mut body.to_vec()).is_some();
            assert_eq!(commit, payload[0] == COMMIT);
        }
    }

    #[test]
    fn a_key_is_hex_or_base64_and_never_prints() {
        let of = |text: &str| StateKey::from_secret(&Secret::new(text));
        let bytes: Vec<u8> = (0..32).collect();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = STANDARD.encode(&bytes);
        assert_eq!(of(&hex), of(&base64));
        assert_eq!(of(&hex.to_uppercase()), of(base64.trim_end_matches('=')));
        assert!(of(&hex).is_some() && of(&hex) != Some(key(1)));
        let words = format!("{:?}", of(&hex));
        assert_eq!(words, "Some(StateKey(…))");
        let zs = "z".repeat(64);
        for wrong in [&hex[1..], &hex[2..], &base64[4..], &zs, "secret", &"A".repeat(500), "ក"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_check_of_a_key_stays_the_same() {
        // Else no key would be known again after an upgrade.
        let check: String = key(1).check().0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(check, "614eb96eb3f9a0356f87b344c2b1dabb");
        assert_eq!(key(1).check().to_string(), "614eb96e");
        assert_ne!(key(1).check(), key(2).check());
    }
}
