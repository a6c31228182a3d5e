//! Running totals: what is added at a period holds in all later ones, until it is taken away.
//!
//! An open case is told at the two ends of its time only, so a first load of a country does not tell it for each
//! month anew. The totals of a cell are a short list of changes by period; when some of them change, the totals
//! between the first and the last period that differ are told anew. All runs end, so the last total is nothing.

use std::collections::BTreeMap;

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

/// What is added to a cell at a period. The cell is that of [`line_of`].
type Change = (FineCell, Period, Measure);

/// What came of one epoch that is not complete yet, and the right to answer it.
type Stash = (Capability<Time>, Vec<Change>);

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
                let mut waiting: BTreeMap<Time, Stash> = BTreeMap::new();
                move |(input, frontier), output| {
                    input.for_each(|capability, updates| {
                        for (cell, time, measure) in updates.drain(..) {
                            let stash = waiting.entry(time);
                            let stash =
                                stash.or_insert_with(|| (capability.delayed(&time, 0), Vec::new()));
                            stash.1.push((line_of(cell), cell.cell().period(), measure));
                        }
                    });
                    while let Some(entry) = waiting.first_entry() {
                        if frontier.less_equal(entry.key()) {
                            break;
                        }
                        let (time, (capability, mut changes)) = entry.remove_entry();
                        consolidate_steps(&mut changes);
                        let mut session = output.session(&capability);
                        for changed in changes.chunk_by(|a, b| a.0 == b.0) {
                            let line = changed[0].0;
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

/// What the periods of a cell that follow each other have in common: the cell in the first of them.
fn line_of(cell: FineCell) -> FineCell {
    let coarse = cell.cell();
    FineCell::new(coarse.in_period(coarse.period().first_in_line()), cell.detail())
}

/// Which worker a line is summed up by.
fn shard(line: FineCell) -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::FixedState::with_seed(0).hash_one(line)
}

/// Sorts changes by line and period, and joins those of the same period.
fn consolidate_steps(changes: &mut Vec<Change>) {
    changes.sort_unstable();
    changes.dedup_by(|later, kept| {
        let is_same = (later.0, later.1) == (kept.0, kept.1);
        if is_same {
            kept.2.plus_equals(&later.2);
        }
        is_same
    });
}

/// Applies the changes of one line, in order of periods, and tells every total that differs.
fn advance(
    line: FineCell,
    steps: &mut Steps,
    changed: &[Change],
    mut tell: impl FnMut((FineCell, Measure), i32),
) {
    let before = std::mem::take(steps);
    let mut old = before.iter().copied().peekable();
    let mut new = changed.iter().map(|(_, period, measure)| (*period, *measure)).peekable();
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

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::model::{Cell, Day, PeriodType};

    /// What is added from one period on and taken away at another.
    type Run = (Period, Period, Measure);

    /// Totals as they are told, checking that each tells truly what was there before.
    #[derive(Default)]
    struct Told {
        lines: BTreeMap<FineCell, Steps>,
        totals: BTreeMap<FineCell, Measure>,
    }

    impl Told {
        /// As the operator does with the updates of one epoch.
        fn epoch(&mut self, updates: Vec<(FineCell, Measure)>) {
            let change =
                |(cell, measure): (FineCell, _)| (line_of(cell), cell.cell().period(), measure);
            let mut changes: Vec<Change> = updates.into_iter().map(change).collect();
            consolidate_steps(&mut changes);
            for changed in changes.chunk_by(|a, b| a.0 == b.0) {
                let line = changed[0].0;
                let totals = &mut self.totals;
                let steps = self.lines.entry(line).or_default();
                advance(line, steps, changed, |(cell, measure), diff| {
                    let before = match diff {
                        -1 => totals.remove(&cell),
                        _ => totals.insert(cell, measure),
                    };
                    assert_eq!(before, (diff == -1).then_some(measure), "{cell:?}");
                });
                if steps.is_empty() {
                    self.lines.remove(&line);
                }
            }
        }
    }

    /// The total of every period by adding up every run that covers it.
    fn naive(runs: &[(u32, Run)]) -> BTreeMap<FineCell, Measure> {
        let mut totals: BTreeMap<FineCell, Measure> = BTreeMap::new();
        for (detail, (first, end, measure)) in runs {
            let mut period = *first;
            while period < *end {
                totals.entry(cell(period, *detail)).or_default().plus_equals(measure);
                period = period.next();
            }
        }
        totals.retain(|_, measure| !measure.is_empty());
        totals
    }

    fn cell(period: Period, detail: u32) -> FineCell {
        FineCell::new(Cell::new(3, period, 1, 5), detail)
    }

    fn updates((detail, (first, end, measure)): (u32, Run), sign: i32) -> [(FineCell, Measure); 2] {
        let times = |sign: i32| Measure {
            numerator: measure.numerator * sign,
            denominator: measure.denominator * sign,
        };
        [(cell(first, detail), times(sign)), (cell(end, detail), times(-sign))]
    }

    fn random_run(rng: &mut ChaCha8Rng) -> (u32, Run) {
        let types = [PeriodType::Month, PeriodType::Week, PeriodType::FiscalYear];
        let day = Day(rng.random_range(40_000..41_500));
        let fiscal_year_start = if rng.random() { 1 } else { 7 };
        let of = types[rng.random_range(0..types.len())];
        let first = Period::in_calendar(of, day, fiscal_year_start);
        let mut end = first.next();
        for _ in 0..rng.random_range(0..12) {
            end = end.next();
        }
        let measure = Measure { numerator: rng.random_range(0..2), denominator: 1 };
        (rng.random_range(0..2), (first, end, measure))
    }

    #[test]
    fn totals_are_what_every_run_adds_up_to() {
        for seed in 0..60 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut told = Told::default();
            let mut runs: Vec<(u32, Run)> = Vec::new();
            for _ in 0..30 {
                let mut changes = Vec::new();
                for _ in 0..rng.random_range(0..6) {
                    if !runs.is_empty() && rng.random_bool(0.45) {
                        let gone = runs.swap_remove(rng.random_range(0..runs.len()));
                        changes.extend(updates(gone, -1));
                    } else {
                        runs.push(random_run(&mut rng));
                        changes.extend(updates(runs[runs.len() - 1], 1));
                    }
                }
                told.epoch(changes);
                assert_eq!(told.totals, naive(&runs), "seed {seed}");
            }
            told.epoch(runs.drain(..).flat_map(|run| updates(run, -1)).collect());
            assert!(told.totals.is_empty() && told.lines.is_empty(), "seed {seed}");
        }
    }
}
