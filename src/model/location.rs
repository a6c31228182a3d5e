//! Locations: codes with a place in a hierarchy, the same code in two instances being the same place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Code;

/// Deepest level of a hierarchy (the country is level 0); a longer chain of parents is a loop or a mistake.
pub const LEVEL_MAX: u8 = 9;

/// One place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Its code, of [`super::Domain::Location`].
    pub code: Code,
    /// The place it is part of; none for a country.
    pub parent: Option<Code>,
    /// 0 is the country.
    pub level: u8,
    /// What Primero calls the level: province, district.
    pub kind: String,
    /// Its name in each language that has one.
    pub names: BTreeMap<String, String>,
}

/// All places of all instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocationTree {
    places: BTreeMap<u32, Location>,
}

impl LocationTree {
    /// Adds or replaces places.
    pub fn extend(&mut self, locations: impl IntoIterator<Item = Location>) {
        self.places.extend(locations.into_iter().map(|place| (place.code.0, place)));
    }

    /// The place with this code.
    pub fn get(&self, code: Code) -> Option<&Location> {
        self.places.get(&code.0)
    }

    /// All places, by code.
    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        self.places.values()
    }

    /// Whether no place is known.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The place and everything it is part of, finest first. Unknown codes give nothing.
    pub fn lineage(&self, code: Code) -> impl Iterator<Item = &Location> {
        let start = self.get(code);
        std::iter::successors(start, |place| self.get(place.parent?))
            .take(usize::from(LEVEL_MAX) + 1)
    }

    /// The place itself when it is not finer than `level`, else what it is part of at that level or above.
    pub fn at_level(&self, code: Code, level: u8) -> Option<Code> {
        self.lineage(code).find(|place| place.level <= level).map(|place| place.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(code: u32, parent: Option<u32>, level: u8) -> Location {
        let parent = parent.map(Code);
        Location { code: Code(code), parent, level, kind: String::new(), names: BTreeMap::new() }
    }

    #[test]
    fn a_commune_counts_in_its_district() {
        let mut tree = LocationTree::default();
        tree.extend([
            place(1, None, 0),
            place(2, Some(1), 1),
            place(3, Some(2), 2),
            place(4, Some(3), 3),
        ]);
        assert_eq!(tree.at_level(Code(4), 2), Some(Code(3)));
        assert_eq!(tree.at_level(Code(2), 2), Some(Code(2)));
        assert_eq!(tree.at_level(Code(9), 2), None);
        assert_eq!(tree.lineage(Code(3)).map(|p| p.code.0).collect::<Vec<_>>(), [3, 2, 1]);
    }

    #[test]
    fn a_loop_of_parents_ends() {
        let mut tree = LocationTree::default();
        tree.extend([place(1, Some(2), 1), place(2, Some(1), 1)]);
        assert_eq!(tree.lineage(Code(1)).count(), usize::from(LEVEL_MAX) + 1);
        assert_eq!(tree.at_level(Code(1), 0), None);
    }
}
