//! What a pipeline says of one instance beyond the packs: when its fiscal year begins and what its option ids mean.

use std::collections::BTreeMap;

/// The first month of a fiscal year that is the calendar year.
const JANUARY: u8 = 1;

/// One stream of records: the cases of a Primero, or its incidents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceDefinition {
    /// Its own name; cursors and records are kept under it.
    pub name: String,
    /// The name it is published under; the incidents of a Primero are published under the name of its cases.
    pub published_as: String,
    /// The month in which its fiscal year begins, 1 to 12.
    pub fiscal_year_start: u8,
    /// By field (`field` or `subform.field`): the option id that stands in place of one of its own.
    pub mappings: BTreeMap<String, BTreeMap<String, String>>,
    /// By name of a concept: the option ids that it means here instead of those of the pack.
    pub concepts: BTreeMap<String, Vec<String>>,
}

impl InstanceDefinition {
    /// An instance that the packs say everything of.
    pub fn plain(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            published_as: name.to_owned(),
            fiscal_year_start: JANUARY,
            mappings: BTreeMap::new(),
            concepts: BTreeMap::new(),
        }
    }
}
