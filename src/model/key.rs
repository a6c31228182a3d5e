//! Record keys: 128-bit keyed pseudonyms, and what stays of erased ones. The key functions themselves are in
//! `source`, which alone sees the real ids.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of shards of the record map. Fixed for ever: snapshot blocks and workers are assigned by it.
pub const SHARDS: usize = 256;

/// The pseudonym of one record of one instance, or of one row of its subforms.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordKey(pub u128);

impl RecordKey {
    /// From the first 16 bytes of a MAC.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// As stored in a `uuid` column.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Which of the [`SHARDS`] keeps this record. The key is a MAC, so its top byte is uniform already.
    pub fn shard(self) -> usize {
        (self.0 >> 120) as usize
    }

    /// As four words of a subform row, most significant first.
    pub fn to_words(self) -> [u32; 4] {
        [(self.0 >> 96) as u32, (self.0 >> 64) as u32, (self.0 >> 32) as u32, self.0 as u32]
    }

    /// Back from [`to_words`](Self::to_words).
    pub fn from_words(words: [u32; 4]) -> Self {
        Self(words.iter().fold(0, |key, word| (key << 32) | u128::from(*word)))
    }
}

impl fmt::Debug for RecordKey {
    /// Short: enough to tell two apart in a failing test, too little to look one up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}…", (self.0 >> 112) as u16)
    }
}

/// What is kept of a record that was erased, so that it never comes back: a MAC of its key under a context of its
/// own. Whoever has the tables or the state cannot tell which record it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tombstone(pub u128);

impl fmt::Debug for Tombstone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}†", (self.0 >> 112) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_bytes_keep_the_key() {
        let key = RecordKey(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(RecordKey::from_words(key.to_words()), key);
        assert_eq!(RecordKey::from_bytes(key.to_bytes()), key);
        assert_eq!(key.shard(), 1);
    }
}
