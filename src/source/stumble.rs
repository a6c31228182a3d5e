//! Why a step of a poll did not come to its end, and how long to wait then.

use std::time::Duration;

use super::client::Failure;
use super::outlet::Halt;
use crate::error::Error;

/// Why a step did not come to its end.
pub(super) enum Stumble {
    Failure(Failure),
    Halt(Halt),
}

impl From<Failure> for Stumble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Error> for Stumble {
    fn from(error: Error) -> Self {
        Self::Failure(error.into())
    }
}

impl From<Halt> for Stumble {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

/// How long to wait after failures in a row: doubling from `base` to `most`, of which a random part
/// of up to half is left out, so that many clients of one server do not come back together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) base: Duration,
    pub(super) most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_secs(1), most: Duration::from_secs(5 * 60) }
    }
}

impl Backoff {
    /// The wait after this many failures.
    pub(super) fn wait(self, failures: u32) -> Duration {
        let doubled = self.base.saturating_mul(1 << failures.saturating_sub(1).min(20));
        doubled.min(self.most).mul_f64(rand::random_range(0.5..=1.0))
    }
}
