//! The state as its operator sees it: what lies there, how far it goes, and the whole of it carried elsewhere.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::Config;
use crate::error::Result;
use crate::indicator::schema_of;
use crate::model::{Cursor, Domain, Epoch};
use crate::sink::look::Look;
use crate::source;
use crate::state::{self, Exported, Shown, State};

/// What is known of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceState {
    /// Records that are published.
    pub records: u64,
    /// Changes that wait until its first complete read is over.
    pub waiting: u64,
    /// Where reading goes on.
    pub cursor: Cursor,
}

/// The state and what the tables show of it.
#[derive(Debug)]
pub struct Overview {
    /// What lies in the directory.
    pub shown: Shown,
    /// The last epoch.
    pub last: Epoch,
    /// The last epoch that Postgres shows, or why it could not be asked.
    pub committed: Result<Option<Epoch>>,
    /// Whether the tables were written from this state.
    pub is_own: bool,
    /// What is known of each instance, by name.
    pub instances: BTreeMap<String, InstanceState>,
    /// What was found damaged and is made good by other files.
    pub warnings: Vec<String>,
}

/// Looks at the state beside a running pipeline; a Postgres that cannot be asked is told.
///
/// # Errors
/// When there is no state directory, or it cannot be read.
pub async fn overview(config: &Config) -> Result<Overview> {
    let view = State::read_only(&config.state)?;
    let position = async { Look::open(&config.sink).await?.position().await }.await;
    let shown = view.show()?;
    let restored = view.restore(None, &schema_of(&config.definition))?;
    let name = |code| restored.dictionary.term(Domain::Instance, code).unwrap_or("?").to_owned();
    let mut instances: BTreeMap<String, InstanceState> = BTreeMap::new();
    for (code, cursor) in &restored.cursors {
        instances.entry(name(*code)).or_default().cursor = cursor.clone();
    }
    for (_, case) in &restored.records {
        instances.entry(name(case.instance())).or_default().records += 1;
    }
    for (code, changes) in &restored.deferred {
        instances.entry(name(*code)).or_default().waiting += changes.len() as u64;
    }
    let own = shown.pipeline.map(|id| id.0);
    let is_own = matches!(&position, Ok(Some(position)) if position.pipeline == own);
    let committed = position.map(|position| position.map(|position| position.epoch));
    let (last, warnings) = (restored.last, restored.warnings);
    Ok(Overview { shown, last, committed, is_own, instances, warnings })
}

/// Writes the whole state into one file, beside a running pipeline.
///
/// # Errors
/// As for [`state::StateView::export`].
pub fn export(config: &Config, file: &Path) -> Result<Exported> {
    State::read_only(&config.state)?.export(file, &schema_of(&config.definition))
}

/// Puts an exported state where there is none.
///
/// # Errors
/// As for [`state::import`].
pub fn import(config: &Config, file: &Path) -> Result<Exported> {
    let check = source::key_check(&config.pseudonym_key)?;
    state::import(&config.state, file, &schema_of(&config.definition), check)
}
