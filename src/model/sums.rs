//! What records contribute to cells, summed up: with it a start has to judge only what changed since.

use serde::{Deserialize, Serialize};

use super::{Case, Day, FineCell, Measure, RecordKey, SharedMap};

/// What decided the sums besides the records: a hash of each. With another one they mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis(pub [u64; 5]);

/// What all records together contribute to one cell.
pub type Sum = (FineCell, Measure);

/// What all records contribute, as of a day.
#[derive(Clone, Debug)]
pub struct Sums {
    /// What it holds for.
    pub basis: Basis,
    /// The day as of which the records were judged.
    pub today: Day,
    /// One map of each worker; of a cell that several have, they are added up.
    pub cells: Vec<SharedMap<FineCell, Measure>>,
}

/// Sums as they were read back, and the records that have changed since.
#[derive(Debug, PartialEq, Eq)]
pub struct Summed {
    /// What they hold for.
    pub basis: Basis,
    /// The day as of which the records were judged.
    pub today: Day,
    /// The sums, each cell once.
    pub cells: Vec<Sum>,
    /// The records that changed since, as the sums hold them; `None` those that are new.
    pub before: Vec<(RecordKey, Option<Case>)>,
}
