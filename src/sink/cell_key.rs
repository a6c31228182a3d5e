//! The key of a cell in Postgres: a hash of its text, so it means the same whatever numbers a plan gives out.

use sha2::{Digest, Sha256};

use crate::indicator::{Catalog, CellText};

/// Value of a dimension that a cell is not broken down by; such dimensions are not part of the key.
pub(super) const ALL: &str = "all";

/// Makes keys of cells: the first 16 bytes of SHA-256 over indicator, instance, period and the dimensions
/// that are not `all`, each with its name, each text with its length in front, dimensions by name.
///
/// A dimension that is added to a pack, or moved in it, leaves the keys of all other cells as they are.
#[derive(Clone, Debug)]
pub(super) struct CellKeys {
    /// Index and name of each dimension of the catalog, by name.
    dimensions: Vec<(usize, String)>,
}

impl CellKeys {
    pub(super) fn new(catalog: &Catalog) -> Self {
        let names = catalog.dimensions.iter().map(|column| column.name.clone());
        let mut dimensions: Vec<_> = names.enumerate().collect();
        dimensions.sort_by(|a, b| a.1.cmp(&b.1));
        Self { dimensions }
    }

    /// The key of a cell, as stored in a `uuid` column.
    pub(super) fn key(&self, cell: &CellText<'_>) -> [u8; 16] {
        let mut text = Vec::with_capacity(192);
        let mut put = |part: &str| {
            text.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            text.extend_from_slice(part.as_bytes());
        };
        put(cell.indicator);
        put(cell.instance);
        put(cell.period_type);
        let start = cell.period_start.map_or(0, |day| day.0);
        put(&format!("{start}"));
        for (index, name) in &self.dimensions {
            if let Some(value) = cell.dimensions.get(*index).filter(|value| **value != ALL) {
                put(name);
                put(value);
            }
        }
        let hash = Sha256::digest(&text);
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::indicator::{Column, ColumnType};
    use crate::model::Day;

    fn keys(names: &[&str]) -> CellKeys {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            column_type: ColumnType::Text,
            comment: String::new(),
        };
        let dimensions = names.iter().map(column).collect();
        CellKeys::new(&Catalog { dimensions, ..Catalog::default() })
    }

    fn cell<'a>(indicator: &'a str, dimensions: &[&'a str]) -> CellText<'a> {
        CellText {
            indicator,
            instance: "kampot",
            period_type: "month",
            period_start: Some(Day(45_000)),
            dimensions: dimensions.to_vec(),
            is_share: false,
        }
    }

    #[test]
    fn a_new_dimension_leaves_the_keys() {
        let before = keys(&["sex", "age"]).key(&cell("CM-01", &["female", ALL]));
        let after = keys(&["district", "age", "sex"]).key(&cell("CM-01", &[ALL, ALL, "female"]));
        assert_eq!(before, after);
    }

    #[test]
    fn different_cells_have_different_keys() {
        let keys = keys(&["sex", "age"]);
        let first = keys.key(&cell("CM-01", &["female", ALL]));
        assert_ne!(first, keys.key(&cell("CM-01", &[ALL, "female"])));
        assert_ne!(first, keys.key(&cell("CM-02", &["female", ALL])));
        assert_ne!(first, keys.key(&cell("CM-01", &["female", "0-5"])));
        let mut now = cell("CM-01", &["female", ALL]);
        now.period_start = None;
        assert_ne!(first, keys.key(&now));
    }

    #[test]
    fn lengths_keep_texts_apart() {
        let keys = keys(&[]);
        let ab = CellText { indicator: "a", instance: "bc", ..CellText::default() };
        let abc = CellText { indicator: "ab", instance: "c", ..CellText::default() };
        assert_ne!(keys.key(&ab), keys.key(&abc));
    }
}
