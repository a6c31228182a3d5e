//! The whole graph on one screen.

use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::AsCollection;
use differential_dataflow::VecCollection;
use differential_dataflow::operators::CountTotal;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::{InputHandle, ProbeHandle};
use timely::worker::Worker;

use crate::dataflow::contribute::{contributions, rows};
use crate::dataflow::days::figures;
use crate::dataflow::running::running_totals;
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
/// deltas ─ versions ─┬─ contributions ─ finest ─ roll up ─┬─ count ──────────┬─ totals ─┬──────────── ▶ cells
///   (old, new case)  │   (arranged)                       └─ running totals ─┘          ├─ days ────── ▶ cells
///                    │                                                                  └─ workloads ─ ▶ cells
///                    └─ rows ───────────────────────────────────────────────────────────────────────── ▶ rows
/// ```
pub(super) fn build(
    worker: &mut Worker,
    plan: &Arc<Plan>,
    records: &Rc<Records>,
    outbox: &Rc<Outbox>,
) -> Ends {
    let mut input = InputHandle::new();
    let done = ProbeHandle::new();
    worker.dataflow::<Time, _, _>(|scope| {
        let versions = versions(input.to_stream(scope), plan, records);
        let contributions = contributions(versions.clone(), plan, outbox).as_collection();
        let rolled_up = |is_running| rolled_up(contributions.clone(), plan, is_running);

        let counted = counted(rolled_up(false));
        let totals = counted.concat(running_totals(rolled_up(true)));
        let plain = summed(totals.clone(), plan, Summing::is_count);
        let plain = plain.map(|(cell, measure)| (cell.cell(), Figure::from(measure)));
        let days = summed(totals.clone(), plan, Summing::is_days);
        let workers = summed(totals, plan, Summing::is_workers);

        let cells = plain.concat(figures(histograms(days, plan))).concat(workloads(workers, plan));
        let rows = rows(versions, plan).as_collection();
        let (to_cells, to_rows) = (Rc::clone(outbox), Rc::clone(outbox));
        cells.inspect(move |(cell, _, diff)| to_cells.cell(*cell, *diff)).probe_with(&done);
        rows.inspect(move |(row, _, diff)| to_rows.row(row.clone(), *diff)).probe_with(&done);
    });
    Ends { input, done }
}

/// Cells with the number of days or the case worker that is told apart in them, and how much.
type Totals<'scope> = VecCollection<'scope, Time, (FineCell, Measure), i32>;

/// The cells of published tables that the finest cells add up into; of families that are running totals, or of
/// those that are not. The finest are arranged so that many cases of one cell roll up once.
fn rolled_up<'scope>(
    contributions: VecCollection<'scope, Time, FineCell, Measure>,
    plan: &Arc<Plan>,
    is_running: bool,
) -> VecCollection<'scope, Time, FineCell, Measure> {
    let (to_keep, plan) = (Arc::clone(plan), Arc::clone(plan));
    contributions
        .filter(move |finest| to_keep.is_running(finest.cell()) == is_running)
        .arrange_by_self_named("Finest")
        .flat_map_ref(move |finest: &FineCell, _| {
            let detail = finest.detail();
            let cells = plan.roll_up(finest.cell()).into_iter();
            cells.map(move |cell| FineCell::new(cell, detail))
        })
}

/// The measure of each cell.
fn counted<'scope>(cells: VecCollection<'scope, Time, FineCell, Measure>) -> Totals<'scope> {
    cells.arrange_by_self_named("Tables").count_total_core::<i32>()
}

/// Only the totals of which this is made.
fn summed<'scope>(
    totals: Totals<'scope>,
    plan: &Arc<Plan>,
    what: fn(Summing) -> bool,
) -> Totals<'scope> {
    let plan = Arc::clone(plan);
    totals.filter(move |(cell, _)| what(plan.summing(cell.cell())))
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
