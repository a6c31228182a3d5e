//! A map that can be handed on as it is while it goes on changing.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::{FineCell, RecordKey};

/// Bits of a key that say which part of a map holds it. Of a million entries a part has about 250, which are copied in
/// some microseconds.
const PART_BITS: u32 = 12;

/// A key that says where it lies.
pub trait Parted {
    /// A number below 2 to the power of `bits`, as often as any other one.
    fn part(&self, bits: u32) -> usize;
}

impl Parted for RecordKey {
    /// The top bits of a MAC, so that parts follow each other as keys do.
    fn part(&self, bits: u32) -> usize {
        (self.0 >> (u128::BITS - bits)) as usize
    }
}

impl Parted for FineCell {
    fn part(&self, bits: u32) -> usize {
        use std::hash::BuildHasher;
        // Another seed than that of the parts themselves, which tell their entries apart by the same hash.
        (foldhash::fast::FixedState::with_seed(1).hash_one(self) >> (u64::BITS - bits)) as usize
    }
}

type Part<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// A map in many small parts. A copy shares all of them, and costs some microseconds however large the map is; a part
/// of which there are copies is copied itself before it changes.
#[derive(Clone, Debug)]
pub struct SharedMap<K, V> {
    parts: Vec<Arc<Part<K, V>>>,
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { parts: vec![Arc::default(); 1 << PART_BITS] }
    }
}

impl<K: Parted + Eq + std::hash::Hash + Clone, V: Clone> SharedMap<K, V> {
    /// Puts a value in; gives the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.part(&key).insert(key, value)
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.part(key).remove(key)
    }

    /// Changes the value of a key, which is the default before it has one, and takes it out when `change` says that
    /// nothing is left of it.
    pub fn alter(&mut self, key: K, change: impl FnOnce(&mut V) -> bool)
    where
        V: Default,
    {
        match self.part(&key).entry(key) {
            Entry::Occupied(mut entry) => {
                if !change(entry.get_mut()) {
                    entry.remove();
                }
            }
            Entry::Vacant(entry) => {
                let mut value = V::default();
                if change(&mut value) {
                    entry.insert(value);
                }
            }
        }
    }

    /// Whether the key has a value.
    pub fn has(&self, key: &K) -> bool {
        self.parts[key.part(PART_BITS)].contains_key(key)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.is_empty())
    }

    /// All entries, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// Takes in what another map has. What only one of both has of a part stays shared.
    pub fn absorb(&mut self, other: Self) {
        for (ours, theirs) in self.parts.iter_mut().zip(other.parts) {
            if ours.is_empty() {
                *ours = theirs;
            } else if !theirs.is_empty() {
                Arc::make_mut(ours).extend(Arc::unwrap_or_clone(theirs));
            }
        }
    }

    /// All entries, part by part, each part sorted; so records come ascending by key. What nobody else shares is freed
    /// on the way.
    pub fn into_sorted(self) -> impl Iterator<Item = (K, V)>
    where
        K: Ord,
    {
        self.parts.into_iter().flat_map(|part| {
            let mut part: Vec<_> = Arc::unwrap_or_clone(part).into_iter().collect();
            part.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            part
        })
    }

    fn part(&mut self, key: &K) -> &mut Part<K, V> {
        Arc::make_mut(&mut self.parts[key.part(PART_BITS)])
    }
}

impl<K: Parted + Eq + std::hash::Hash + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut map = Self::default();
        entries.into_iter().for_each(|(key, value)| drop(map.insert(key, value)));
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_stays_as_it_was() {
        let key =
            |number: u64| RecordKey(u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64);
        let mut map: SharedMap<_, _> = (0..10_000).map(|number| (key(number), number)).collect();
        let copy = map.clone();
        assert_eq!(map.insert(key(3), 0), Some(3));
        assert_eq!(map.remove(&key(4)), Some(4));
        map.alter(key(5), |value| {
            *value += 1;
            true
        });
        map.alter(key(6), |_| false);
        map.alter(key(10_000), |value| *value > 0);
        let of = |map: &SharedMap<RecordKey, u64>, number| {
            map.iter().find(|(k, _)| **k == key(number)).map(|(_, v)| *v)
        };
        assert_eq!([3, 4, 5, 6].map(|number| of(&map, number)), [Some(0), None, Some(6), None]);
        assert_eq!((map.len(), copy.len()), (9_998, 10_000));
        let sorted: Vec<_> = copy.into_sorted().collect();
        assert!(sorted.is_sorted_by(|a, b| a.0 < b.0));
        assert!(sorted.iter().all(|(k, number)| *k == key(*number)));
    }

    #[test]
    fn maps_of_several_workers_become_one() {
        let (mut even, mut odd) = (SharedMap::default(), SharedMap::default());
        for number in 0..1_000_u32 {
            let map = if number % 2 == 0 { &mut even } else { &mut odd };
            map.insert(RecordKey(u128::from(number) << 110), number);
        }
        even.absorb(odd);
        let all: Vec<_> = even.into_sorted().map(|(_, number)| number).collect();
        assert_eq!(all, (0..1_000).collect::<Vec<_>>());
    }
}
