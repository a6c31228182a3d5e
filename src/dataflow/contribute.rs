//! From versions of a case to signed differences: of what it contributes, and of its anonymized rows.

use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::consolidation::consolidate;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Capability, Operator};

use crate::dataflow::graph::Time;
use crate::dataflow::sums::{EpochSums, Total};
use crate::dataflow::upsert::{Dated, Version};
use crate::dataflow::worker::Outbox;
use crate::indicator::{CodedRow, Judgement, Plan};
use crate::model::{FineCell, Measure};

/// What the new version of each case contributes more or less than its old one, rolled up into the cells of published
/// tables. What both contribute never enters the graph, and what many cases contribute to one cell enters it as one
/// sum: of a first load the graph sorts the cells, not every contribution of every case. What was summed up before the
/// program started comes first.
pub(super) fn contributions<'scope>(
    versions: Stream<'scope, Time, Vec<Version>>,
    plan: &Arc<Plan>,
    total: &Rc<Total>,
    outbox: &Rc<Outbox>,
) -> Stream<'scope, Time, Vec<(FineCell, Time, Measure)>> {
    let (plan, total, outbox) = (Arc::clone(plan), Rc::clone(total), Rc::clone(outbox));
    versions.unary_frontier::<CapacityContainerBuilder<Vec<(FineCell, Time, Measure)>>, _, _, _>(
        Pipeline,
        "Contributions",
        |_, _| {
            let mut judgement = Judgement::default();
            let mut sums = EpochSums::default();
            // The epoch whose contributions are being summed up, and the right to hand them on.
            let mut epoch: Option<Capability<Time>> = None;
            move |(input, frontier), output| {
                let mut hand_on = |epoch: &Capability<Time>, sums: &mut EpochSums| {
                    let ours = sums.drain(&plan).inspect(|sum| total.add(*sum));
                    let all = total.take_put().into_iter().chain(ours);
                    let updates = all.map(|(cell, sum)| (cell, *epoch.time(), sum));
                    output.session(epoch).give_iterator(updates);
                };
                input.for_each(|capability, versions| {
                    let Some(time) = capability.least().copied() else { return };
                    if let Some(before) = epoch.take_if(|epoch| *epoch.time() != time) {
                        hand_on(&before, &mut sums);
                    }
                    let epoch = epoch.get_or_insert_with(|| capability.delayed(&time, 0));
                    for version in versions.drain(..) {
                        if is_summed(&plan, &version) {
                            continue;
                        }
                        judge_both(&plan, &version, &mut judgement);
                        let changed = judgement.contributions.iter().map(|(cell, _)| *cell);
                        outbox.note(&plan, &version, changed);
                        sums.extend(judgement.contributions.drain(..));
                    }
                    if sums.is_full() {
                        hand_on(epoch, &mut sums);
                    }
                });
                if let Some(over) = epoch.take_if(|epoch| !frontier.less_equal(epoch.time())) {
                    hand_on(&over, &mut sums);
                }
            }
        },
    )
}

/// Whether what was summed up before the program started is what the case contributes.
fn is_summed(plan: &Plan, version: &Version) -> bool {
    let (Some((before, since)), Some((case, today))) = (&version.summed, &version.new) else {
        return false;
    };
    let (from, to) = (*since.min(today), *since.max(today));
    before == case && (from == to || plan.sleeps_through(case, from, to))
}

fn judge_both(plan: &Plan, version: &Version, judgement: &mut Judgement) {
    judgement.contributions.clear();
    if let Some((case, today)) = version.before() {
        plan.judge(case, *today, judgement);
        for (_, measure) in &mut judgement.contributions {
            measure.numerator = -measure.numerator;
            measure.denominator = -measure.denominator;
        }
    }
    if let Some((case, today)) = &version.new {
        plan.judge(case, *today, judgement);
    }
    if version.before().is_some() && version.new.is_some() {
        consolidate(&mut judgement.contributions);
    }
}

/// The rows of the new version of each case that its old one had not, and the other way round.
pub(super) fn rows<'scope>(
    versions: Stream<'scope, Time, Vec<Version>>,
    plan: &Arc<Plan>,
) -> Stream<'scope, Time, Vec<(CodedRow, Time, isize)>> {
    let plan = Arc::clone(plan);
    versions.unary::<CapacityContainerBuilder<Vec<(CodedRow, Time, isize)>>, _, _, _>(
        Pipeline,
        "Rows",
        |_, _| {
            let mut updates: Vec<(CodedRow, isize)> = Vec::new();
            move |input, output| {
                input.for_each(|capability, versions| {
                    let Some(time) = capability.least().copied() else { return };
                    let mut session = output.session(&capability);
                    for version in versions.drain(..) {
                        let mut add = |dated: &Option<Dated>, diff| {
                            if let Some((case, _)) = dated {
                                plan.extract(version.key, case, |row| updates.push((row, diff)));
                            }
                        };
                        add(&version.old, -1);
                        add(&version.new, 1);
                        if version.old.is_some() {
                            consolidate(&mut updates);
                        }
                        session
                            .give_iterator(updates.drain(..).map(|(row, diff)| (row, time, diff)));
                    }
                });
            }
        },
    )
}
