//! What every indicator and every row means, once more: a plain batch function, slow and obviously right.
//!
//! It reads the definition and the cases by name, and shares nothing with the plan, its cells or the graph.
//! Property tests and `tonle verify` compare the tables with it.

mod account;
mod breakdown;
mod condition;
mod count;
mod life;
mod place;
mod rows;
mod total;
mod view;

use std::collections::BTreeMap;

use crate::indicator::{Definition, InstanceDefinition, Value};
use crate::model::{Case, Day, Dictionary, Domain, Figure, LocationTree, RecordKey, Schema};

use total::Totals;
use view::View;

pub use account::{Account, KEYS_MAX, account};

/// Everything a value depends on besides the cases.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The packs as meant.
    pub definition: &'a Definition,
    /// How the cases are laid out.
    pub schema: &'a Schema,
    /// What their codes stand for.
    pub dictionary: &'a Dictionary,
    /// Where places are.
    pub locations: &'a LocationTree,
    /// The configured instances.
    pub instances: &'a [InstanceDefinition],
    /// The last clock tick.
    pub today: Day,
}

/// A cell by its text: indicator, instance, period type, period start, and a value for each dimension.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellName {
    /// Code of the indicator.
    pub indicator: String,
    /// The name that an instance is published under, or `all`.
    pub instance: String,
    /// Name of the period type.
    pub period_type: &'static str,
    /// First day of the period.
    pub period_start: Option<Day>,
    /// A value for each dimension in the order of their names.
    pub dimensions: Vec<String>,
}

/// The tables that should exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Every cell that is not empty.
    pub values: BTreeMap<CellName, Figure>,
    /// Every row of every extract: by table and key, the text of its columns.
    pub rows: BTreeMap<(String, RecordKey), Vec<Option<String>>>,
}

/// Computes all tables from all cases.
pub fn tables<'a>(
    world: &World<'_>,
    records: impl IntoIterator<Item = (&'a RecordKey, &'a Case)>,
) -> Tables {
    let mut totals = Totals::default();
    let mut rows = BTreeMap::new();
    for (key, case) in records {
        let Some(name) = world.dictionary.term(Domain::Instance, case.instance()) else {
            continue;
        };
        let Some(instance) = world.instances.iter().find(|known| known.name == name) else {
            continue;
        };
        let view = View { world, case, instance };
        for (code, indicator) in &world.definition.indicators {
            view.count(code, indicator, &mut totals);
        }
        view.rows(*key, &mut rows);
    }
    Tables { values: totals.figures(world), rows }
}

/// The text of a value, as the tables of the oracle hold it.
pub fn text(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Text(text) => Some((*text).to_owned()),
        Value::Date(day) => Some(day.date().to_string()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(value) => Some(value.to_string()),
        Value::Key(key) => Some(format!("{:032x}", key.0)),
    }
}
