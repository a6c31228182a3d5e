//! What an epoch changes: cells and anonymized rows, each with its old and its new content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Cell, Code, Figure, RecordKey};

/// A cell whose figure changed. An empty figure is a cell that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CellChange {
    /// Which cell.
    pub cell: Cell,
    /// What it held before the epoch.
    pub old: Figure,
    /// What it holds after it.
    pub new: Figure,
    /// Why, where that is known for the cell alone; otherwise the reason of the epoch holds.
    pub reason: Option<Reason>,
}

/// A row of an anonymized extract that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExtractChange {
    /// Which extract of the plan.
    pub extract: u16,
    /// The pseudonym of the case or of the subform row.
    pub key: RecordKey,
    /// The new row as coded values, one for each column of the extract; `None` when the row leaves.
    pub row: Option<Box<[u32]>>,
    /// Whether the row was there before the epoch.
    pub existed: bool,
}

/// Why cells changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Only cases that were not known before.
    NewCase,
    /// Only new content of known cases.
    Correction,
    /// Only cases that were disabled or erased.
    Disabled,
    /// Cases changed in more than one way.
    Several,
    /// Only time went on.
    Clock,
    /// An instance became visible after its first complete read.
    FirstLoad,
    /// The tables did not agree with the state and were corrected.
    Reconcile,
    /// A pack or an overlay changed.
    PackChange,
    /// What option ids of an instance stand for changed.
    MappingChange,
    /// The places of an instance changed.
    LocationChange,
}

impl Reason {
    /// As written in the `changes` table.
    pub fn name(self) -> &'static str {
        match self {
            Self::NewCase => "new case",
            Self::Correction => "correction",
            Self::Disabled => "disabled",
            Self::Several => "several",
            Self::Clock => "clock",
            Self::FirstLoad => "first load",
            Self::Reconcile => "reconcile",
            Self::PackChange => "pack change",
            Self::MappingChange => "mapping change",
            Self::LocationChange => "location change",
        }
    }
}

/// How many cases an epoch changed, by what happened to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Not known before.
    pub added: u64,
    /// Known, with new content.
    pub corrected: u64,
    /// Disabled or erased by this epoch.
    pub disabled: u64,
    /// Sent again with the same content.
    pub unchanged: u64,
}

impl Tally {
    /// Cases whose content changed.
    pub fn changed(&self) -> u64 {
        self.added + self.corrected + self.disabled
    }

    /// The one reason for all of it, or [`Reason::Several`]; `None` when nothing changed.
    pub fn reason(&self) -> Option<Reason> {
        match (self.added, self.corrected, self.disabled) {
            (0, 0, 0) => None,
            (_, 0, 0) => Some(Reason::NewCase),
            (0, _, 0) => Some(Reason::Correction),
            (0, 0, _) => Some(Reason::Disabled),
            _ => Some(Reason::Several),
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.corrected += other.corrected;
        self.disabled += other.disabled;
        self.unchanged += other.unchanged;
    }
}

/// Everything an epoch changes, sorted, each cell and each row once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changed cells, by cell.
    pub cells: Vec<CellChange>,
    /// Changed rows, by extract and key.
    pub rows: Vec<ExtractChange>,
    /// Changed cases.
    pub tally: Tally,
    /// How many records each instance has more than before, or fewer.
    pub held: BTreeMap<Code, i64>,
}

impl Changes {
    /// Says of everything computed anew what really changed: `tally`, where every case looks like a new one.
    pub fn recomputed(&mut self, tally: Tally) {
        self.tally = tally;
        self.cells.iter_mut().for_each(|change| change.reason = None);
    }
}
