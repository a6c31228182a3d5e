//! One cell explained: what it means, what it holds, who is in it and why the others are not.

use std::collections::BTreeMap;

use super::asked::Asked;
use super::glance::{GLANCES_MAX, Glance};
use super::standing::tree_of;
use super::start::compile;
use crate::config::Config;
use crate::dataflow::oracle::{Account, CellName, World, account};
use crate::error::{Error, Result};
use crate::indicator::{ALL, CellText, IndicatorText, schema_of};
use crate::model::{Day, Dictionary, Epoch, Interner};
use crate::sink::look::{Shown, Told};

/// Most changes of a cell that are told.
const CHANGES_MAX: u32 = 20;

const DOING: &str = "reading CELL";

/// A cell, explained.
#[derive(Debug)]
pub struct Explained {
    /// Title, definition, unit and the rest, as published.
    pub indicator: IndicatorText,
    /// What it counts, in words.
    pub words: Vec<String>,
    /// The cell.
    pub cell: CellName,
    /// The names of the dimensions, in the order of the cell.
    pub dimensions: Vec<String>,
    /// The epoch that records and figure are as of.
    pub epoch: Epoch,
    /// Records that were looked at.
    pub records: usize,
    /// What to know before relying on it.
    pub notes: Vec<String>,
    /// The figure and its last changes, the newest first; or why Postgres could not be asked.
    pub shown: Result<(Option<Shown>, Vec<Told>)>,
    /// Who is in the cell and who is not.
    pub accounts: Vec<Account>,
}

/// Explains the cell that `words` name, each as `key=value`: `indicator`, `period`, `instance` or a dimension.
///
/// # Errors
/// A configuration error that names what is unknown and the nearest that is known; else when the state cannot be
/// read or the tables belong to another state directory.
pub async fn explain(config: &Config, words: &[String]) -> Result<Explained> {
    let mut glance = 1;
    loop {
        let seen = Glance::at(config).await?;
        let before = seen.position.as_ref().map(|position| position.epoch);
        let (explained, after) = explained(config, words, seen).await?;
        if glance == GLANCES_MAX || after.is_none_or(|after| Some(after) == before) {
            return Ok(explained);
        }
        glance += 1; // the pipeline wrote an epoch meanwhile
    }
}

/// The cell, and the epoch that the tables showed after it was looked up.
async fn explained(
    config: &Config,
    words: &[String],
    seen: Glance,
) -> Result<(Explained, Option<Epoch>)> {
    let mut notes = seen.notes();
    let Glance { look, position, restored } = seen;
    let tree = tree_of(&restored.locations);
    let interner = Interner::new(restored.dictionary.clone());
    let plan = compile(config, &tree, &interner)?;
    let dictionary = interner.read(Dictionary::clone);
    let (indicator, cell) =
        Asked { doing: DOING, plan: &plan, dictionary: &dictionary }.cell(pairs(words)?)?;
    if position.as_ref().is_some_and(|p| !plan.catalog().fingerprint.counts_as(p.fingerprint)) {
        notes.push("the tables follow another pack, other instances or other places".to_owned());
    }
    let text = text_of(&cell, indicator.has_denominator);
    let shown = match &look {
        Err(error) => Err(Error::new(error.kind(), error.to_string())),
        Ok(_) if position.is_none() => Ok((None, Vec::new())),
        Ok(look) => look.cell(plan.catalog(), &text, CHANGES_MAX).await,
    };
    let after = match &look {
        Ok(look) => look.position().await.ok().flatten().map(|position| position.epoch),
        Err(_) => None,
    };
    let world = World {
        definition: &config.definition,
        schema: &schema_of(&config.definition),
        dictionary: &dictionary,
        locations: &tree,
        instances: &config.instance_definitions(),
        today: restored.today.unwrap_or(Day::FIRST),
    };
    let explained = Explained {
        words: config.definition.in_words(&cell.indicator).unwrap_or_default(),
        accounts: account(&world, &restored.records, &cell),
        dimensions: plan.catalog().dimensions.iter().map(|column| column.name.clone()).collect(),
        epoch: restored.base,
        records: restored.records.len(),
        indicator,
        cell,
        notes,
        shown,
    };
    Ok((explained, after))
}

impl Explained {
    /// The dimensions that the cell is broken down by, with their values.
    pub fn broken_down(&self) -> String {
        let named = self.dimensions.iter().zip(&self.cell.dimensions);
        let used = named.filter(|(_, value)| *value != ALL);
        used.map(|(name, value)| format!(", {name} {value}")).collect()
    }
}

fn text_of(cell: &CellName, is_share: bool) -> CellText<'_> {
    CellText {
        indicator: &cell.indicator,
        instance: &cell.instance,
        period_type: cell.period_type,
        period_start: cell.period_start,
        dimensions: cell.dimensions.iter().map(String::as_str).collect(),
        is_share,
    }
}

fn pairs(words: &[String]) -> Result<BTreeMap<String, String>> {
    let mut said = BTreeMap::new();
    for word in words.iter().flat_map(|word| word.split_whitespace()) {
        let wrong = |what: &str| {
            Error::config(format!("{DOING}: {what}"))
                .advise("write words such as indicator=CM-02 period=2026-Q1 sex=female")
        };
        let (key, value) =
            word.split_once('=').ok_or_else(|| wrong(&format!("{word:?} is not key=value")))?;
        if said.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(wrong(&format!("{key} is there twice")));
        }
    }
    Ok(said)
}
