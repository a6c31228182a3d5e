//! State and tables side by side, looked at beside a running pipeline: nothing is locked, made or written.

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::indicator::schema_of;
use crate::sink::Position;
use crate::sink::look::Look;
use crate::state::{Restored, State};

/// How often both are read anew because the pipeline went on in between.
pub(super) const GLANCES_MAX: u32 = 3;

/// The tables, if they can be asked, and the state as of what they show.
pub(super) struct Glance {
    /// Why Postgres could not be asked; the state is as of its last epoch then.
    pub(super) look: Result<Look>,
    /// What the tables hold.
    pub(super) position: Option<Position>,
    /// Everything that was read, laid out as the configuration asks.
    pub(super) restored: Restored,
}

impl Glance {
    /// Looks at both.
    ///
    /// # Errors
    /// When the state cannot be read, or the tables were written from another one.
    pub(super) async fn at(config: &Config) -> Result<Self> {
        let (look, position) = match Look::open(&config.sink).await {
            Err(error) => (Err(error), None),
            Ok(look) => {
                let position = look.position().await?;
                (Ok(look), position)
            }
        };
        let state = State::read_only(&config.state)?;
        let of_tables = position.as_ref().map(|position| position.pipeline);
        if of_tables.is_some_and(|pipeline| pipeline.is_some() && pipeline != own(&state)) {
            let what = "looking at the tables: they were written from another state directory";
            return Err(Error::new(Kind::DataDiffers, what)
                .advise("name the state directory and the database of one pipeline"));
        }
        let published = position.as_ref().map(|position| position.epoch);
        let restored = state.restore(published, &schema_of(&config.definition))?;
        Ok(Self { look, position, restored })
    }

    /// What people should know before they rely on it.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.restored.warnings.clone();
        let base = self.restored.base;
        if let Some(position) = self.position.as_ref().filter(|position| position.epoch != base) {
            notes.push(format!(
                "the tables show epoch {}, the state is as of epoch {base}: `tonle run` reconciles them",
                position.epoch
            ));
        }
        notes
    }
}

fn own(state: &crate::state::StateView) -> Option<u128> {
    state.pipeline_id().ok().flatten().map(|id| id.0)
}
