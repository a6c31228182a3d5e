//! What a configuration would do to the tables: everything computed from the state, compared, and not written.

use std::collections::{BTreeMap, BTreeSet};

use super::glance::{GLANCES_MAX, Glance};
use super::standing::{as_changes, tree_of};
use super::start::compile;
use crate::config::Config;
use crate::dataflow::{Dataflow, Input};
use crate::error::{Error, Result};
use crate::indicator::Naming;
use crate::model::{Changes, Domain, Epoch, Interner};
use crate::sink::look::Outlook;
use crate::state::Restored;

/// What a configuration would do.
#[derive(Debug)]
pub struct Foreseen {
    /// The epoch that the tables show, or the last one of the state.
    pub epoch: Epoch,
    /// Records that everything was computed from.
    pub records: usize,
    /// The packs of the configuration.
    pub packs: String,
    /// What to know before relying on it.
    pub notes: Vec<String>,
    /// Fields that were never read, so that every case would be read again.
    pub new_fields: Vec<String>,
    /// Instances that nothing was read of yet.
    pub instances_added: Vec<String>,
    /// Instances whose cases would leave the tables.
    pub instances_removed: Vec<String>,
    /// Cells that there would be, by indicator.
    pub cells: BTreeMap<String, u64>,
    /// How the tables would change, or why they could not be asked.
    pub outlook: Result<Outlook>,
}

impl Foreseen {
    /// Whether the tables were asked and nothing at all would change.
    pub fn is_nothing(&self) -> bool {
        self.new_fields.is_empty()
            && self.instances_added.is_empty()
            && self.instances_removed.is_empty()
            && self.outlook.as_ref().is_ok_and(Outlook::is_empty)
    }
}

/// Computes the tables of `config` from the records of the state and compares them with Postgres.
///
/// It works beside a running pipeline and writes nothing anywhere.
///
/// # Errors
/// When the state cannot be read, the packs are too large, or the tables belong to another state directory. A
/// Postgres that cannot be asked is told in [`Foreseen::outlook`].
pub async fn foresee(config: &Config, examples_max: usize) -> Result<Foreseen> {
    let mut glance = 1;
    loop {
        let seen = Glance::at(config).await?;
        let foreseen = compared(config, seen, examples_max).await?;
        let shown = foreseen.outlook.as_ref().ok().and_then(|outlook| outlook.position.as_ref());
        if glance == GLANCES_MAX || shown.is_none_or(|shown| shown.epoch == foreseen.epoch) {
            return Ok(foreseen);
        }
        glance += 1; // the pipeline wrote an epoch meanwhile
    }
}

async fn compared(config: &Config, seen: Glance, examples_max: usize) -> Result<Foreseen> {
    let notes = seen.notes();
    let Glance { look, restored, .. } = seen;
    let (instances_added, instances_removed) = instances(config, &restored);
    let interner = Interner::new(restored.dictionary);
    let plan = compile(config, &tree_of(&restored.locations), &interner)?;
    let (records, today) = (restored.records.len(), restored.today);
    let mut complete = Changes::default();
    if today.is_some() {
        let mut dataflow = Dataflow::start(plan.clone(), config.workers)?;
        complete = dataflow.advance(Input { changes: as_changes(restored.records), today })?;
    }
    let mut cells: BTreeMap<String, u64> = BTreeMap::new();
    for change in &complete.cells {
        *cells.entry(plan.cell(change.cell).indicator.to_owned()).or_default() += 1;
    }
    let outlook = match look {
        Err(error) => Err(error),
        Ok(mut look) => {
            let catalog = plan.catalog();
            look.outlook(catalog, &complete, plan.as_ref(), today, examples_max).await
        }
    };
    // Whatever goes wrong with names or statements is an error of this command; only a server that is away is told.
    let outlook = match outlook {
        Err(error) if !is_away(&error) => return Err(error),
        outlook => outlook,
    };
    Ok(Foreseen {
        epoch: restored.base,
        records,
        packs: plan.catalog().pack.clone(),
        notes,
        new_fields: restored.new_fields,
        instances_added,
        instances_removed,
        cells,
        outlook,
    })
}

fn is_away(error: &Error) -> bool {
    error.kind().may_pass() || error.kind() == crate::error::Kind::Permission
}

/// Instances that the configuration has and the state does not know, and the other way round.
fn instances(config: &Config, restored: &Restored) -> (Vec<String>, Vec<String>) {
    let mut codes: BTreeSet<_> = restored.cursors.keys().copied().collect();
    codes.extend(restored.records.iter().map(|(_, case)| case.instance()));
    let known =
        codes.into_iter().filter_map(|code| restored.dictionary.term(Domain::Instance, code));
    let known: BTreeSet<String> = known.map(str::to_owned).collect();
    let wanted: BTreeSet<String> = config.instance_names().into_iter().collect();
    let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
        one.difference(other).cloned().collect::<Vec<_>>()
    };
    (only(&wanted, &known), only(&known, &wanted))
}
