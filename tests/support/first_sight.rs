//! The shipped packs without what depends on when it was first seen.
//!
//! A day of first sight is known to who looked at that time: a program that reads a server for the first time today
//! dates by the last change what another one saw months ago. Tests that compare such two, or a program with itself
//! after its state was deleted, do it with everything else.

use std::fs;

use toml::{Table, Value};
use tonle::indicator::SHIPPED;

use super::program::Program;

/// How a condition or date that depends on first sight is told.
const MARK: &str = "_first_seen";

impl Program {
    /// A program of which the tables depend on nothing but what the servers hold now, not on when they were read.
    pub(crate) fn reproducible() -> Self {
        Self::new().without_first_sight()
    }

    /// Lays a pack over the shipped ones that takes out what depends on first sight.
    pub(crate) fn without_first_sight(mut self) -> Self {
        // By its full path, for other programs use it too.
        let path = self.path("no-first-sight.toml");
        fs::write(&path, without()).unwrap();
        self.set(&format!("packs = [\"cp-core\", \"cambodia\", {path:?}]"));
        self
    }
}

/// A pack that lies over the shipped ones: their indicators without the alternatives that depend on first sight.
pub(crate) fn without() -> String {
    let mut indicators = Table::new();
    for (name, text) in SHIPPED.iter().filter(|(name, _)| ["cp-core", "cambodia"].contains(name)) {
        let pack: Table = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        for (code, indicator) in pack["indicators"].as_table().unwrap() {
            let mut indicator = indicator.as_table().unwrap().clone();
            if depends(&Value::Table(indicator.clone())) {
                retain(indicator.get_mut("any_of"));
                retain(indicator.get_mut("numerator").and_then(|tests| tests.get_mut("any")));
                assert!(!depends(&Value::Table(indicator.clone())), "{code}");
                indicators.insert(code.clone(), Value::Table(indicator));
            }
        }
    }
    assert!(!indicators.is_empty(), "some indicators of the shipped packs depend on first sight");
    let head = "[pack]\nid = \"no-first-sight\"\nversion = \"1.0.0\"\ntitle = { en = \"No first sight\" }\n";
    let indicators = Table::from_iter([("indicators".to_owned(), Value::Table(indicators))]);
    format!("{head}{}", toml::to_string(&indicators).unwrap())
}

fn depends(value: &Value) -> bool {
    value.to_string().contains(MARK)
}

fn retain(alternatives: Option<&mut Value>) {
    if let Some(Value::Array(alternatives)) = alternatives {
        alternatives.retain(|alternative| !depends(alternative));
    }
}
