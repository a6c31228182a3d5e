//! Keyed pseudonyms: what a record's id becomes in the call that reads it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::{Error, Result};
use crate::model::{RecordKey, Secret};

/// Shortest pseudonym key, in bytes: less could be searched.
pub(super) const KEY_BYTES_MIN: usize = 16;

/// Makes the keys of one instance and one type of record: HMAC-SHA-256, cut to 16 bytes.
///
/// The keyed state, with instance and type already absorbed, is kept and cloned for each key. Every
/// part of the message is preceded by its length, so no two different lists of parts give the same
/// message.
#[derive(Clone)]
pub(super) struct Pseudonyms(Hmac<Sha256>);

impl Pseudonyms {
    /// The pseudonyms of records of `record_type` (`case`, `incident`, `worker`, or the name of a
    /// subform) in `instance`.
    ///
    /// # Errors
    /// A configuration error when the key is shorter than [`KEY_BYTES_MIN`].
    pub(super) fn new(key: &Secret, instance: &str, record_type: &str) -> Result<Self> {
        if key.expose().len() < KEY_BYTES_MIN {
            return Err(Error::config("reading the pseudonym key: it is shorter than 16 bytes"));
        }
        let mac = Hmac::new_from_slice(key.expose())
            .map_err(|_| Error::bug("HMAC refused a key, though it takes keys of any length"))?;
        let mut pseudonyms = Self(mac);
        for part in [instance, record_type] {
            pseudonyms.absorb(part.as_bytes());
        }
        Ok(pseudonyms)
    }

    fn absorb(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    /// The key of the record with these parts of a name.
    pub(super) fn key<'p>(&self, parts: impl IntoIterator<Item = &'p [u8]>) -> RecordKey {
        let mut mac = self.clone();
        for part in parts {
            mac.absorb(part);
        }
        let bytes = mac.0.finalize().into_bytes();
        let mut head = [0; 16];
        head.copy_from_slice(&bytes[..16]);
        RecordKey::from_bytes(head)
    }
}

/// Makes the pseudonyms of the case workers of one instance: what stands in place of a user name.
#[derive(Clone)]
pub(super) struct Workers(Pseudonyms);

impl Workers {
    /// The pseudonyms of the workers of `instance`.
    ///
    /// # Errors
    /// A configuration error when the key is shorter than [`KEY_BYTES_MIN`].
    pub(super) fn new(key: &Secret, instance: &str) -> Result<Self> {
        Pseudonyms::new(key, instance, "worker").map(Self)
    }

    /// The pseudonym of a user: 128 bits as 32 hexadecimal digits.
    pub(super) fn pseudonym(&self, user_name: &str) -> String {
        format!("{:032x}", self.0.key([user_name.as_bytes()]).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &str, instance: &str, record_type: &str, parts: &[&str]) -> RecordKey {
        Pseudonyms::new(&Secret::new(secret), instance, record_type)
            .unwrap()
            .key(parts.iter().map(|part| part.as_bytes()))
    }

    #[test]
    fn everything_that_should_separate_keys_does() {
        let secret = "0123456789abcdef";
        let keys = [
            key(secret, "kampot", "case", &["ab"]),
            key("0123456789abcdeF", "kampot", "case", &["ab"]),
            key(secret, "kampo", "tcase", &["ab"]),
            key(secret, "kampot", "services", &["ab"]),
            key(secret, "kampot", "case", &["a", "b"]),
            key(secret, "kampot", "case", &["", "ab"]),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(one), "{index}");
        }
        assert_eq!(keys[0], key(secret, "kampot", "case", &["ab"]));
    }

    #[test]
    fn the_function_is_hmac_sha_256_for_ever() {
        // Keys are in databases: a change of this value orphans every row ever published.
        let key = key("0123456789abcdef", "kampot", "case", &["x"]);
        assert_eq!(format!("{:032x}", key.0), EXPECTED);
    }

    // Reckoned with another implementation of HMAC over the documented message.
    const EXPECTED: &str = "9ce40a7451e06d3f4972c95423a72a2c";

    #[test]
    fn a_worker_has_one_pseudonym_in_each_instance_and_under_each_key() {
        let worker = |secret: &str, instance: &str, name: &str| {
            Workers::new(&Secret::new(secret), instance).unwrap().pseudonym(name)
        };
        let one = worker("0123456789abcdef", "kampot", "sok.dara");
        assert_eq!(one, worker("0123456789abcdef", "kampot", "sok.dara"));
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
        for other in [
            worker("0123456789abcdeF", "kampot", "sok.dara"),
            worker("0123456789abcdef", "kep", "sok.dara"),
            worker("0123456789abcdef", "kampot", "sok.dari"),
            format!("{:032x}", key("0123456789abcdef", "kampot", "case", &["sok.dara"]).0),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!(Pseudonyms::new(&Secret::new("short"), "a", "case").is_err());
    }
}
