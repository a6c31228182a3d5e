//! The worker threads: one epoch at a time, in, through the graph, out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use timely::worker::Worker;
use timely::{Config, WorkerConfig};

use crate::dataflow::graph::{Ends, build};
use crate::dataflow::reasons::Notes;
use crate::dataflow::sums::Total;
use crate::dataflow::upsert::{Before, Delta, Records, Version};
use crate::error::{Error, Result};
use crate::indicator::{CodedRow, Plan};
use crate::model::{
    Case, Cell, Code, Day, Figure, FineCell, Measure, RecordChange, RecordKey, SharedMap, Sum,
    Tally,
};

/// Records that enter the graph between two steps: few, so that a first load does not pile up in front of it.
const RECORDS_PER_STEP: usize = 32_768;

/// A cell with a figure that was taken away (-1) or holds now (+1).
pub(super) type CellUpdate = ((Cell, Figure), i32);
/// A row that was taken away (-1) or is there now (+1).
pub(super) type RowUpdate = (CodedRow, isize);

/// What a worker is asked.
pub(super) enum Command {
    /// Run this epoch.
    Epoch { time: u32, today: Option<Day>, changes: Vec<RecordChange>, put: Option<Put> },
    /// Hand over all records and sums.
    Hold,
}

/// What was summed up of the records of an epoch before.
pub(super) struct Put {
    pub(super) cells: Vec<Sum>,
    pub(super) before: Before,
}

/// What a worker answers.
pub(super) enum Reply {
    /// What the epoch changed.
    Done(Part),
    /// All its records, and what they add up to.
    Held(SharedMap<RecordKey, Case>, SharedMap<FineCell, Measure>),
}

/// One worker's part of what an epoch changed.
#[derive(Default)]
pub(super) struct Part {
    pub(super) cells: Vec<CellUpdate>,
    pub(super) rows: Vec<RowUpdate>,
    pub(super) notes: Notes,
    pub(super) tally: Tally,
    pub(super) held: BTreeMap<Code, i64>,
}

/// Where the ends of the graph put what came out during the epoch.
#[derive(Default)]
pub(super) struct Outbox {
    cells: RefCell<Vec<CellUpdate>>,
    rows: RefCell<Vec<RowUpdate>>,
    notes: RefCell<Notes>,
}

impl Outbox {
    pub(super) fn cell(&self, cell: (Cell, Figure), diff: i32) {
        self.cells.borrow_mut().push((cell, diff));
    }

    pub(super) fn note(
        &self,
        plan: &Plan,
        version: &Version,
        cells: impl Iterator<Item = FineCell>,
    ) {
        self.notes.borrow_mut().add(plan, version, cells);
    }

    pub(super) fn row(&self, row: CodedRow, diff: isize) {
        self.rows.borrow_mut().push((row, diff));
    }
}

/// Starts one worker for each receiver, all in one process.
pub(super) fn spawn(
    plan: Arc<Plan>,
    receivers: Vec<Receiver<Command>>,
    reply: Sender<Reply>,
) -> Result<JoinHandle<()>> {
    let config = match receivers.len() {
        1 => Config::thread(),
        count => Config::process(count),
    };
    let config = Config { worker: WorkerConfig::default(), ..config };
    let receivers: Vec<_> = receivers.into_iter().map(|r| Mutex::new(Some(r))).collect();
    let reply = Mutex::new(reply);
    let guards = timely::execute(config, move |worker| {
        let commands = receivers[worker.index()].lock().ok().and_then(|mut slot| slot.take());
        let reply = reply.lock().map(|sender| sender.clone());
        if let (Some(commands), Ok(reply)) = (commands, reply) {
            serve(worker, &plan, &commands, &reply);
        }
    })
    .map_err(|why| Error::bug(format!("starting the dataflow workers: {why}")))?;
    std::thread::Builder::new()
        .name("dataflow".into())
        .spawn(move || drop(guards.join()))
        .map_err(|e| Error::bug("starting the dataflow").caused_by(e))
}

/// Answers commands until nobody can send any more.
fn serve(
    worker: &mut Worker,
    plan: &Arc<Plan>,
    commands: &Receiver<Command>,
    reply: &Sender<Reply>,
) {
    let records = Rc::new(Records::default());
    let outbox = Rc::new(Outbox::default());
    let total = Rc::new(Total::default());
    let mut ends = build(worker, plan, &records, &total, &outbox);
    while let Ok(command) = commands.recv() {
        let answer = match command {
            Command::Hold => Reply::Held(records.all(), total.all()),
            Command::Epoch { time, today, changes, put } => {
                if let Some(Put { cells, before }) = put {
                    total.put(cells);
                    records.put(before);
                }
                run(worker, &mut ends, time, today, changes);
                records.put_ended();
                Reply::Done(Part {
                    cells: outbox.cells.take(),
                    rows: outbox.rows.take(),
                    notes: outbox.notes.take(),
                    tally: records.take_tally(),
                    held: records.take_held(),
                })
            }
        };
        if reply.send(answer).is_err() {
            break;
        }
    }
    // Without inputs the workers agree that nothing can come any more, and the graph ends.
    drop(ends);
}

fn run(
    worker: &mut Worker,
    ends: &mut Ends,
    time: u32,
    today: Option<Day>,
    changes: Vec<RecordChange>,
) {
    if let Some(day) = today {
        ends.input.send(Delta::Tick(day));
    }
    for (index, change) in changes.into_iter().enumerate() {
        ends.input.send(Delta::Record(change.key, change.case));
        if index % RECORDS_PER_STEP == RECORDS_PER_STEP - 1 {
            worker.step();
        }
    }
    ends.input.advance_to(time + 1);
    while ends.done.less_than(&(time + 1)) {
        worker.step_or_park(None);
    }
}
