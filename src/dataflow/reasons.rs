//! Why a single cell changed, where an epoch changed cases in more than one way.
//!
//! The graph adds and takes away; it does not tell why. So each change of a contribution is noted beside the graph
//! with its reason, and when the epoch is over the notes are rolled up like the contributions themselves. An epoch
//! with one reason for everything needs none of this.

use hashbrown::HashMap;

use crate::dataflow::upsert::Version;
use crate::indicator::Plan;
use crate::model::{Cell, CellChange, FineCell, Reason};

/// Most notes of one epoch and worker; beyond them the reason of the epoch holds for every cell. About 16 MB.
const NOTES_MAX: usize = 1_000_000;

/// Reasons as bits.
type Mask = u8;
const NEW_CASE: Mask = 1;
const CORRECTION: Mask = 2;
const DISABLED: Mask = 4;
const CLOCK: Mask = 8;

/// The finest cells that changed, and why.
#[derive(Debug, Default)]
pub(super) struct Notes {
    cells: Vec<(FineCell, Mask)>,
    seen: Mask,
}

impl Notes {
    /// Notes that a version changed these cells.
    pub(super) fn add(
        &mut self,
        plan: &Plan,
        version: &Version,
        cells: impl Iterator<Item = FineCell>,
    ) {
        let reason = reason_of(plan, version);
        self.seen |= reason;
        let room = (NOTES_MAX + 1).saturating_sub(self.cells.len());
        self.cells.extend(cells.take(room).map(|cell| (cell, reason)));
    }

    /// Takes in the notes of another worker.
    pub(super) fn extend(&mut self, other: Self) {
        self.seen |= other.seen;
        self.cells.extend(other.cells);
    }

    /// Gives every change its reason, if there is more than one.
    pub(super) fn explain(mut self, plan: &Plan, changes: &mut [CellChange]) {
        if self.seen.count_ones() < 2 || self.cells.len() > NOTES_MAX || changes.is_empty() {
            return;
        }
        self.cells.sort_unstable();
        let mut lines: HashMap<Cell, Mask, foldhash::fast::FixedState> = HashMap::default();
        for notes in self.cells.chunk_by(|a, b| a.0 == b.0) {
            let mask = notes.iter().fold(0, |mask, note| mask | note.1);
            plan.roll_up(notes[0].0, |fine| {
                *lines.entry(plan.line_of(fine.cell())).or_default() |= mask;
            });
        }
        for change in changes {
            let mask = lines.get(&plan.line_of(change.cell)).copied().unwrap_or_default();
            change.reason = match mask {
                0 => None,
                NEW_CASE => Some(Reason::NewCase),
                CORRECTION => Some(Reason::Correction),
                DISABLED => Some(Reason::Disabled),
                CLOCK => Some(Reason::Clock),
                _ => Some(Reason::Several),
            };
        }
    }
}

fn reason_of(plan: &Plan, version: &Version) -> Mask {
    match (&version.old, &version.new) {
        (None, _) => NEW_CASE,
        (Some(_), None) => DISABLED,
        (Some((old, before)), Some((new, after))) if old == new && before != after => CLOCK,
        (Some((old, _)), Some((new, _))) if plan.is_disabled(new) && !plan.is_disabled(old) => {
            DISABLED
        }
        (Some(_), Some(_)) => CORRECTION,
    }
}
