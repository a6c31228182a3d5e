//! The whole graph on one screen.

use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::AsCollection;
use differential_dataflow::VecCollection;
use differential_dataflow::operators::CountTotal;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::{InputHandle, ProbeHandle, Stream};
use timely::worker::Worker;

use crate::dataflow::contribute::{contributions, rows};
use crate::dataflow::days::figures;
use crate::dataflow::running::running_totals;
use crate::dataflow::sums::Total;
use crate::dataflow::upsert::{Delta, Records, versions};
use crate::dataflow::worker::Outbox;
use crate::indicator::{Plan, Summing};
use crate::model::{Cell, Figure, FineCell, Measure};

/// Time inside the graph: the number of the epoch since the graph was built.
pub(super) type Time = u32;

/// The ends of the graph of one worker.
pub(super) struct Ends {
    pub(super) input: InputHandle<Time, CapacityContainerBuilder<Vec<Delta>>>,
    pub(super) done: ProbeHandle<Time>,
}

/// Builds the graph of one worker. Records stay on the worker that their shard is given to; cells are exchanged.
///
/// ```text
/// deltas ─ versions ─┬─ contributions ─┬─ count ──────────┬─ totals ─┬──────────── ▶ cells
///   (old, new case)  │   (rolled up)   └─ running totals ─┘          ├─ days ────── ▶ cells
///                    │                                               └─ workloads ─ ▶ cells
///                    └─ rows ────────────────────────────────────────────────────── ▶ rows
/// ```
pub(super) fn build(
    worker: &mut Worker,
    plan: &Arc<Plan>,
    records: &Rc<Records>,
    total: &Rc<Total>,
    outbox: &Rc<Outbox>,
) -> Ends {
    let mut input = InputHandle::new();
    let done = ProbeHandle::new();
    worker.dataflow::<Time, _, _>(|scope| {
        let versions = versions(input.to_stream(scope), plan, records);
        let contributions = contributions(versions.clone(), plan, total, outbox);
        let (steps, contributions) = apart(contributions, plan);
        let totals = counted(contributions).concat(running_totals(steps));

        let (plain, others) = split(totals, plan, Summing::is_count);
        let (days, workers) = split(others, plan, Summing::is_days);
        let plain = plain.map(|(cell, measure)| (cell.cell(), Figure::from(measure)));
        let cells = plain.concat(figures(histograms(days, plan))).concat(workloads(workers, plan));
        let rows = rows(versions, plan).as_collection();
        let (to_cells, to_rows) = (Rc::clone(outbox), Rc::clone(outbox));
        cells.inspect(move |(cell, _, diff)| to_cells.cell(*cell, *diff)).probe_with(&done);
        rows.inspect(move |(row, _, diff)| to_rows.row(row.clone(), *diff)).probe_with(&done);
    });
    Ends { input, done }
}

/// What is added to cells of published tables.
type Contributions<'scope> = VecCollection<'scope, Time, FineCell, Measure>;

/// Cells with the number of days or the case worker that is told apart in them, and how much.
type Totals<'scope> = VecCollection<'scope, Time, (FineCell, Measure), i32>;

/// What is added to and taken away from running totals, and what is simply counted.
fn apart<'scope>(
    contributions: Stream<'scope, Time, Vec<(FineCell, Time, Measure)>>,
    plan: &Arc<Plan>,
) -> (Contributions<'scope>, Contributions<'scope>) {
    let plan = Arc::clone(plan);
    let (steps, counted) =
        contributions.ok_err(move |update| match plan.is_running(update.0.cell()) {
            true => Ok(update),
            false => Err(update),
        });
    (steps.as_collection(), counted.as_collection())
}

/// The measure of each cell.
fn counted(cells: Contributions<'_>) -> Totals<'_> {
    cells.arrange_by_self_named("Tables").count_total_core::<i32>()
}

/// The totals of which this is made, and the others.
fn split<'scope>(
    totals: Totals<'scope>,
    plan: &Arc<Plan>,
    what: fn(Summing) -> bool,
) -> (Totals<'scope>, Totals<'scope>) {
    let plan = Arc::clone(plan);
    let (ours, others) =
        totals.inner.ok_err(move |total| match what(plan.summing(total.0.0.cell())) {
            true => Ok(total),
            false => Err(total),
        });
    (ours.as_collection(), others.as_collection())
}

/// How many times each cell holds each number of days.
fn histograms<'scope>(
    days: Totals<'scope>,
    plan: &Arc<Plan>,
) -> VecCollection<'scope, Time, ((Cell, Summing), u32), i32> {
    let plan = Arc::clone(plan);
    days.inner
        .map(move |((fine, measure), time, diff)| {
            let cell = fine.cell();
            // Details are one more than the days, so that none is 0.
            (((cell, plan.summing(cell)), fine.detail() - 1), time, diff * measure.numerator)
        })
        .as_collection()
}

/// The cells of case workers, from how many cases each of them has in a cell.
fn workloads<'scope>(
    workers: Totals<'scope>,
    plan: &Arc<Plan>,
) -> VecCollection<'scope, Time, (Cell, Figure), i32> {
    let plan = Arc::clone(plan);
    let cells = workers.inner.flat_map(move |((fine, measure), time, diff)| {
        let cells = plan.workload(fine.cell(), measure.numerator).into_iter();
        cells.map(move |(cell, Measure { numerator, denominator })| {
            let measure = Measure { numerator: numerator * diff, denominator: denominator * diff };
            (FineCell::new(cell, 0), time, measure)
        })
    });
    counted(cells.as_collection()).map(|(cell, measure)| (cell.cell(), Figure::from(measure)))
}
