//! The whole graph on one screen.

use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::AsCollection;
use differential_dataflow::operators::CountTotal;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::{InputHandle, ProbeHandle};
use timely::worker::Worker;

use crate::dataflow::contribute::{contributions, rows};
use crate::dataflow::upsert::{Delta, Records, versions};
use crate::dataflow::worker::Outbox;
use crate::indicator::Plan;
use crate::model::Cell;

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
/// deltas ─ versions ─┬─ contributions ─ finest (arranged) ─ roll up ─ tables (arranged) ─ count ─▶ cells
///   (old, new case)  └─ rows ────────────────────────────────────────────────────────────────────▶ rows
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

        let finest =
            contributions(versions.clone(), plan).as_collection().arrange_by_self_named("Finest");
        let rolled_up = {
            let plan = Arc::clone(plan);
            finest.flat_map_ref(move |cell: &Cell, _| plan.roll_up(*cell))
        };
        let cells = rolled_up.arrange_by_self_named("Tables").count_total_core::<i32>();
        let rows = rows(versions, plan).as_collection();

        let (to_cells, to_rows) = (Rc::clone(outbox), Rc::clone(outbox));
        cells.inspect(move |(cell, _, diff)| to_cells.cell(*cell, *diff)).probe_with(&done);
        rows.inspect(move |(row, _, diff)| to_rows.row(row.clone(), *diff)).probe_with(&done);
    });
    Ends { input, done }
}
