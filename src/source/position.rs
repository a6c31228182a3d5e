//! Where in a list a page lies, and whether a page ascends.

use super::decode::Decoded;
use crate::model::Instant;

/// Which page is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// Whole second, inclusive.
    pub(super) lower: Instant,
    pub(super) page: u32,
}

impl Default for Position {
    /// The very first one.
    fn default() -> Self {
        Self { lower: Instant(0), page: 1 }
    }
}

pub(super) fn whole_second(instant: Instant) -> Instant {
    Instant(instant.0.div_euclid(1_000) * 1_000)
}

/// Whether a full page ascends; if not, its last record says nothing about what is still to come. A
/// few records out of place are stamps stored with a zone of their own.
pub(super) fn is_ordered(records: &[Decoded]) -> bool {
    let stamps = records.iter().filter_map(|decoded| decoded.stamp);
    is_ascending(&stamps.map(whole_second).collect::<Vec<_>>())
}

/// The same of whole seconds.
pub(super) fn is_ascending(seconds: &[Instant]) -> bool {
    let falls = seconds.windows(2).filter(|pair| pair[1] < pair[0]).count();
    falls * 4 <= seconds.len()
}
