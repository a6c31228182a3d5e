//! Epochs: batches of deltas that become visible in Postgres at once, and the proofs that order their life.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of one batch of deltas; it grows by at least one from batch to batch and never comes back.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A moment that entered as an input: milliseconds since 1970-01-01T00:00:00Z.
///
/// Rows carry the instant that was logged with their epoch, never the clock of the process that writes them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Instant(pub i64);

/// Proof that an epoch is in the log and the log is on disk; only the state may make one.
#[must_use]
#[derive(Debug)]
pub struct Logged(Epoch);

impl Logged {
    /// Says that every frame of `epoch` survived an fsync. Call it nowhere but in [`crate::state`].
    pub fn after_fsync(epoch: Epoch) -> Self {
        Self(epoch)
    }

    /// The epoch that is in the log.
    pub fn epoch(&self) -> Epoch {
        self.0
    }
}

/// Proof that an epoch is committed in Postgres; only the sink may make one.
#[must_use]
#[derive(Debug)]
pub struct Durable(Epoch);

impl Durable {
    /// Says that the transaction of `epoch` is committed. Call it nowhere but in [`crate::sink`].
    pub fn after_commit(epoch: Epoch) -> Self {
        Self(epoch)
    }

    /// The epoch that is committed.
    pub fn epoch(&self) -> Epoch {
        self.0
    }
}
