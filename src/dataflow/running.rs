//! Running totals: what is added at a period holds in all later ones, until it is taken away.
//!
//! An open case is told at the two ends of its time only, so a first load of a country does not tell it for each
//! month anew. The totals of a cell are a short list of changes by period; when some of them change, the totals
//! between the first and the last period that differ are told anew. All runs end, so the last total is nothing.

use std::collections::BTreeMap;

use differential_dataflow::consolidation::consolidate;
use differential_dataflow::difference::Semigroup;
use differential_dataflow::{AsCollection, VecCollection};
use hashbrown::HashMap;
use smallvec::SmallVec;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::{Capability, Operator};

use crate::dataflow::graph::Time;
use crate::model::{FineCell, Measure, Period};

/// Changes of one cell by period; zero changes are not kept.
type Steps = SmallVec<[(Period, Measure); 4]>;

/// A cell with its total: -1 where it was, +1 where it is.
pub(super) type Total = ((FineCell, Measure), Time, i32);

/// The totals of every period, from what is added and taken away.
pub(super) fn running_totals<'scope>(
    steps: VecCollection<'scope, Time, FineCell, Measure>,
) -> VecCollection<'scope, Time, (FineCell, Measure), i32> {
    steps
        .inner
        .unary_frontier::<CapacityContainerBuilder<Vec<Total>>, _, _, _>(
            Exchange::new(|(cell, _, _): &(FineCell, Time, Measure)| shard(line_of(*cell))),
            "Running totals",
            |_, _| {
                let mut lines: HashMap<FineCell, Steps, foldhash::fast::FixedState> =
                    HashMap::default();
                let mut waiting: BTreeMap<Time, (Capability<Time>, Vec<(FineCell, Measure)>)> =
                    BTreeMap::new();
                move |(input, frontier), output| {
                    input.for_each(|capability, updates| {
                        for (cell, time, measure) in updates.drain(..) {
                            let stash = waiting.entry(time);
                            let stash =
                                stash.or_insert_with(|| (capability.delayed(&time, 0), Vec::new()));
                            stash.1.push((cell, measure));
                        }
                    });
                    while let Some(entry) = waiting.first_entry() {
                        if frontier.less_equal(entry.key()) {
                            break;
                        }
                        let (time, (capability, mut updates)) = entry.remove_entry();
                        consolidate(&mut updates);
                        updates.sort_unstable_by_key(|(cell, _)| {
                            (line_of(*cell), cell.cell().period())
                        });
                        let mut session = output.session(&capability);
                        for changed in updates.chunk_by(|a, b| line_of(a.0) == line_of(b.0)) {
                            let line = line_of(changed[0].0);
                            let steps = lines.entry(line).or_default();
                            advance(line, steps, changed, |total, diff| {
                                session.give((total, time, diff));
                            });
                            if steps.is_empty() {
                                lines.remove(&line);
                            }
                        }
                    }
                }
            },
        )
        .as_collection()
}

/// What the periods of one type of a cell have in common: the cell in the first period of the type.
fn line_of(cell: FineCell) -> FineCell {
    let coarse = cell.cell();
    FineCell::new(coarse.in_period(coarse.period().first_of_type()), cell.detail())
}

/// Which worker a line is summed up by.
fn shard(line: FineCell) -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::FixedState::with_seed(0).hash_one(line)
}

/// Applies the changes of one line, in order of periods, and tells every total that differs.
fn advance(
    line: FineCell,
    steps: &mut Steps,
    changed: &[(FineCell, Measure)],
    mut tell: impl FnMut((FineCell, Measure), i32),
) {
    let before = std::mem::take(steps);
    let mut old = before.iter().copied().peekable();
    let mut new = changed.iter().map(|(cell, measure)| (cell.cell().period(), *measure)).peekable();
    let (mut old_total, mut new_total) = (Measure::default(), Measure::default());
    while let Some(period) = earliest(old.peek(), new.peek()) {
        let kept =
            old.next_if(|step| step.0 == period).map_or_else(Measure::default, |step| step.1);
        let more =
            new.next_if(|step| step.0 == period).map_or_else(Measure::default, |step| step.1);
        old_total.plus_equals(&kept);
        let mut step = kept;
        step.plus_equals(&more);
        new_total.plus_equals(&step);
        if !step.is_empty() {
            steps.push((period, step));
        }
        let Some(end) = earliest(old.peek(), new.peek()) else { break };
        let mut at = period;
        while old_total != new_total && at < end {
            let cell = FineCell::new(line.cell().in_period(at), line.detail());
            if !old_total.is_empty() {
                tell((cell, old_total), -1);
            }
            if !new_total.is_empty() {
                tell((cell, new_total), 1);
            }
            at = at.next();
        }
    }
    debug_assert!(new_total.is_empty(), "every run ends");
}

fn earliest(old: Option<&(Period, Measure)>, new: Option<&(Period, Measure)>) -> Option<Period> {
    match (old, new) {
        (Some(old), Some(new)) => Some(old.0.min(new.0)),
        (old, new) => old.or(new).map(|step| step.0),
    }
}
