//! Erased records: what is kept of them, and the sieve that keeps them from coming back.
//!
//! A record that was erased on request never comes back. One that is gone from its server, and then is there again, is
//! taken like any other: only what was restored from a backup is no proof that it is there.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, RwLock};

use hashbrown::HashSet;

use super::Settings;
use super::pseudonym::Pseudonyms;
use super::reader::lower_uuid;
use crate::error::{Error, Result};
use crate::model::{RecordChange, RecordKey, RecordType, Secret, Tombstone};

/// Knows which records were erased. Clones share what they know.
#[derive(Clone)]
pub struct Erased(Arc<Inner>);

struct Inner {
    macs: Pseudonyms,
    departures: Pseudonyms,
    known: RwLock<HashSet<Tombstone>>,
}

impl Erased {
    /// Knows these, made with `key`.
    ///
    /// # Errors
    /// A configuration error when the key is too short.
    pub fn new(key: &Secret, known: impl IntoIterator<Item = Tombstone>) -> Result<Self> {
        // No instance has an empty name.
        let macs = Pseudonyms::new(key, "", "erasure")?;
        let departures = Pseudonyms::new(key, "", "departure")?;
        let known = RwLock::new(known.into_iter().collect());
        Ok(Self(Arc::new(Inner { macs, departures, known })))
    }

    /// What is kept of the record with this key.
    pub fn tombstone(&self, key: RecordKey) -> Tombstone {
        Tombstone(self.0.macs.key([&key.to_bytes()[..]]).0)
    }

    /// What is kept of the record with this key when it is gone from its server.
    pub fn departure(&self, key: RecordKey) -> Tombstone {
        Tombstone(self.0.departures.key([&key.to_bytes()[..]]).0)
    }

    /// Adds to what is known, for all clones.
    pub fn add(&self, tombstones: impl IntoIterator<Item = Tombstone>) {
        self.0.known.write().expect("no holder of the tombstones panics").extend(tombstones);
    }

    /// Takes away from what is known, for all clones.
    pub fn remove(&self, tombstones: &BTreeSet<Tombstone>) {
        let mut known = self.0.known.write().expect("no holder of the tombstones panics");
        known.retain(|tombstone| !tombstones.contains(tombstone));
    }

    /// Everything that is known.
    pub fn all(&self) -> Vec<Tombstone> {
        let known = self.0.known.read().expect("no holder of the tombstones panics");
        known.iter().copied().collect()
    }

    /// Whether nothing was ever erased, so that nothing has to be looked at.
    pub fn is_empty(&self) -> bool {
        self.0.known.read().expect("no holder of the tombstones panics").is_empty()
    }

    /// Whether a tombstone is known.
    pub fn knows(&self, tombstone: Tombstone) -> bool {
        self.0.known.read().expect("no holder of the tombstones panics").contains(&tombstone)
    }

    /// Whether the record with this key was erased.
    pub fn is_erased(&self, key: RecordKey) -> bool {
        !self.is_empty() && self.knows(self.tombstone(key))
    }

    /// Takes erased records out of what was read.
    pub fn sieve(&self, changes: &mut Vec<RecordChange>) {
        if !self.is_empty() {
            changes.retain(|change| change.case.is_none() || !self.is_erased(change.key));
        }
    }

    /// The tombstones of a record of an instance, whatever it is there: a case or an incident.
    ///
    /// # Errors
    /// A configuration error when the id is no UUID; it is not quoted.
    pub fn tombstones_of(
        &self,
        key: &Secret,
        instance: &Settings,
        id: &str,
    ) -> Result<Vec<Tombstone>> {
        let id = lower_uuid(id)
            .ok_or_else(|| Error::config("it is no id of a record, which is a UUID"))?;
        [RecordType::Case, RecordType::Incident]
            .into_iter()
            .map(|record_type| {
                let keys = Pseudonyms::new(key, &instance.published_as, record_type.id())?;
                Ok(self.tombstone(keys.key([&id[..]])))
            })
            .collect()
    }
}

impl fmt::Debug for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Erased({})", self.all().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erased_record_is_known_under_its_own_key_only() {
        let secret = Secret::new("a key of tests, long enough");
        let erased = Erased::new(&secret, []).unwrap();
        let (one, other) = (RecordKey(1), RecordKey(2));
        let change = |key| RecordChange { key, case: None };
        assert!(!erased.is_erased(one));
        erased.clone().add([erased.tombstone(one)]);
        assert!(erased.is_erased(one) && !erased.is_erased(other));
        assert_ne!(erased.tombstone(one).0, one.0);
        erased.add([erased.departure(other)]);
        assert!(!erased.is_erased(other), "it may come again");
        let mut changes = vec![change(one), change(other)];
        erased.sieve(&mut changes);
        assert_eq!(changes.len(), 2, "that a record left is never held back");
        let another = Erased::new(&Secret::new("another key, long enough too"), []).unwrap();
        assert_ne!(another.tombstone(one), erased.tombstone(one));
    }
}
