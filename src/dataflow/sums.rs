//! Contributions of many cases summed up: into finest cells, and those into the cells of the published tables.
//!
//! A case contributes to a hundred cells and more, scattered over all families. Adding each to its sum at once would
//! wait for memory every time. So contributions are gathered by family first and then added up family by
//! family: the sums of one are small enough to stay near the processor. When the epoch is over, each finest cell is
//! rolled up once, however many cases it sums up.

use std::cell::RefCell;

use differential_dataflow::difference::Semigroup;
use hashbrown::HashMap;

use crate::indicator::Plan;
use crate::model::{FineCell, Measure, SharedMap, Sum};

/// Contributions that are gathered before they are added up. About 10 MB.
const GATHERED_MAX: usize = 1 << 19;

/// Most sums that are kept before they have to be handed on. About 150 MB while a country is loaded, and then freed.
const SUMS_MAX: usize = 1 << 22;

type Contribution = (FineCell, Measure);

/// The sums of one epoch.
#[derive(Default)]
pub(super) struct EpochSums {
    families: Vec<Family>,
    gathered: usize,
    summed: usize,
}

#[derive(Default)]
struct Family {
    gathered: Vec<Contribution>,
    sums: Cells,
}

type Cells = HashMap<FineCell, Measure, foldhash::fast::FixedState>;

impl EpochSums {
    /// Takes what one case contributes.
    pub(super) fn extend(&mut self, contributions: impl Iterator<Item = Contribution>) {
        for contribution in contributions {
            let family = usize::from(contribution.0.cell().table());
            if self.families.len() <= family {
                self.families.resize_with(family + 1, Family::default);
            }
            self.families[family].gathered.push(contribution);
            self.gathered += 1;
        }
        if self.gathered >= GATHERED_MAX {
            self.add_up();
        }
    }

    /// Whether they take so much room that they are to be handed on before the epoch is over.
    pub(super) fn is_full(&self) -> bool {
        self.summed > SUMS_MAX
    }

    /// Hands on the sums of all cells of published tables that are not nothing, and forgets everything. Their order
    /// decides nothing: the graph sorts them.
    pub(super) fn drain(&mut self, plan: &Plan) -> impl Iterator<Item = Contribution> {
        self.add_up();
        self.summed = 0;
        let families = self.families.iter_mut().map(|family| std::mem::take(&mut family.sums));
        let tables = families.flat_map(|finest| rolled_up(finest, plan));
        tables.filter(|(_, sum)| !sum.is_empty())
    }

    fn add_up(&mut self) {
        for Family { gathered, sums } in &mut self.families {
            let before = sums.len();
            for (cell, measure) in gathered.drain(..) {
                sums.entry(cell).or_default().plus_equals(&measure);
            }
            self.summed += sums.len() - before;
        }
        self.gathered = 0;
    }
}

/// The cells that finest cells add up into. In their order, so that those of one period are met one after the other.
fn rolled_up(finest: Cells, plan: &Plan) -> Cells {
    let mut finest: Vec<_> = finest.into_iter().filter(|(_, sum)| !sum.is_empty()).collect();
    finest.sort_unstable_by_key(|(cell, _)| *cell);
    let mut cells = Cells::default();
    for (fine, sum) in finest {
        plan.roll_up(fine, |cell| cells.entry(cell).or_default().plus_equals(&sum));
    }
    cells
}

/// What all records of one worker contribute, summed up since there are any: for snapshots, so that a start need not
/// judge every record anew.
#[derive(Default)]
pub(super) struct Total {
    cells: RefCell<SharedMap<FineCell, Measure>>,
    /// What was put back and not handed on to the graph yet.
    put: RefCell<Vec<Sum>>,
}

impl Total {
    /// All sums.
    pub(super) fn all(&self) -> SharedMap<FineCell, Measure> {
        self.cells.borrow().clone()
    }

    /// Adds to one sum.
    pub(super) fn add(&self, (cell, more): Sum) {
        self.cells.borrow_mut().alter(cell, |sum| {
            sum.plus_equals(&more);
            !sum.is_empty()
        });
    }

    /// Puts sums back.
    pub(super) fn put(&self, sums: Vec<Sum>) {
        sums.iter().for_each(|sum| self.add(*sum));
        *self.put.borrow_mut() = sums;
    }

    /// What was put back, once.
    pub(super) fn take_put(&self) -> Vec<Sum> {
        self.put.take()
    }
}
