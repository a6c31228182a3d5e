//! Puts the tables right on request: compared by the oracle, corrected by the path that every epoch takes.

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::watch;

use super::start::Purpose;
use super::verify::{Verified, verify};
use super::{Options, Pipeline, Progress};
use crate::config::Config;
use crate::error::Result;
use crate::model::Epoch;
use crate::report::Metrics;
use crate::sink::RowCounts;
use crate::state::State;

/// What a repair found and did.
#[derive(Debug)]
pub struct Repaired {
    /// What was found at first.
    pub before: Verified,
    /// The epoch that corrected it and the rows it wrote; none when there was nothing to correct.
    pub written: Option<(Epoch, RowCounts)>,
    /// What was found then.
    pub after: Option<Verified>,
}

/// Compares every table with the state and writes exactly the differences, in one transaction.
///
/// # Errors
/// Temporary when a pipeline uses the state: it has to be stopped. As for [`verify`]: when state and tables are not
/// of one pipeline or of one epoch, nothing is written, for then the instances have to be read first.
pub async fn repair(config: &Config) -> Result<Repaired> {
    State::read_only(&config.state)?; // none is made
    drop(State::open(&config.state)?);
    let before = verify(config).await?;
    if before.comparison.is_equal() {
        return Ok(Repaired { before, written: None, after: None });
    }
    let written = Cell::new(None);
    let (_keep, stop) = watch::channel(false);
    let options = Options {
        once: true,
        stop,
        metrics: Arc::new(Metrics::new(config.instance_names())),
        observe: Box::new(|progress| {
            if let Progress::Committed { epoch, rows, .. } = progress {
                written.set(Some((*epoch, *rows)));
            }
        }),
    };
    drop(Pipeline::settled(config.clone(), options, Purpose::Repair).await?);
    let after = verify(config).await?;
    Ok(Repaired { before, written: written.get(), after: Some(after) })
}
