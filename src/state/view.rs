//! The state looked at beside the pipeline that writes it: nothing is locked or written.

use std::time::Duration;

use crate::error::Result;
use crate::model::{Epoch, Schema};

use super::directory::Directory;
use super::recovery::{self, Recovered};
use super::{PipelineId, Restored, Settings, State};

/// How often a view reads again when files change under it, and how long it waits before.
pub(super) const VIEW_ATTEMPTS_MAX: u32 = 10;
pub(super) const VIEW_PAUSE: Duration = Duration::from_millis(50);

/// The state of a pipeline that may be running, to be looked at: nothing is locked or written.
pub struct StateView {
    pub(super) directory: Directory,
}

impl State {
    /// Looks at the state beside the pipeline that writes it.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn read_only(settings: &Settings) -> Result<StateView> {
        Ok(StateView { directory: Directory::look(&settings.directory, settings.access.clone())? })
    }
}

impl StateView {
    /// The pipeline this state belongs to; `None` when nothing was ever written.
    ///
    /// # Errors
    /// When the file that names it cannot be read or is damaged.
    pub fn pipeline_id(&self) -> Result<Option<PipelineId>> {
        Ok(self.directory.pipeline()?.map(PipelineId))
    }

    /// Everything as of `published`, as [`State::restore`] gives it; what was written meanwhile is
    /// its tail.
    ///
    /// # Errors
    /// As for [`State::restore`].
    pub fn restore(&self, published: Option<Epoch>, schema: &Schema) -> Result<Restored> {
        let mut attempt = 1;
        loop {
            let before = self.directory.sizes()?;
            let error = match self.recover(published, schema) {
                Ok(recovered) => return Ok(recovered.restored),
                Err(error) => error,
            };
            // A file was pruned, or an end was seen half written: look again. If nothing moves, it
            // is so.
            let moved = self.directory.sizes()? != before;
            if attempt == VIEW_ATTEMPTS_MAX || (attempt > 1 && !moved) {
                return Err(error);
            }
            if moved {
                std::thread::sleep(VIEW_PAUSE);
            }
            attempt += 1;
        }
    }

    fn recover(&self, published: Option<Epoch>, schema: &Schema) -> Result<Recovered> {
        let pipeline = self.directory.pipeline()?.unwrap_or(0);
        let files = self.directory.list()?;
        recovery::recover(&self.directory, &files, pipeline, published, schema)
    }
}
