//! The dataflow: new versions of cases in, changed cells and changed anonymized rows out.
//!
//! **Invariant:** nothing here reads a clock, a file, the network or the environment, so replaying the same
//! epochs gives the same changes on any machine, with any number of workers. Only this module names timely and
//! differential dataflow.
//!
//! [`Dataflow`] owns the worker threads and hands them one epoch at a time; [`graph`](self) is built once per
//! worker; [`oracle`] says the same as the graph once more, as a slow batch function.

mod contribute;
mod days;
mod graph;
mod measure;
pub mod oracle;
mod reasons;
mod running;
mod sums;
mod upsert;
mod worker;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::indicator::Plan;
use crate::model::{Case, CellChange, Changes, Day, ExtractChange, RecordChange, RecordKey};

use worker::{Command, Reply};

/// Most worker threads.
pub const WORKERS_MAX: usize = 64;

/// What enters the graph with one epoch.
#[derive(Debug, Default)]
pub struct Input {
    /// New versions of records; of two versions of one record the later holds.
    pub changes: Vec<RecordChange>,
    /// A clock tick: from this epoch on, today is this day. The first epoch must have one.
    pub today: Option<Day>,
}

/// A running dataflow.
pub struct Dataflow {
    plan: Arc<Plan>,
    workers: Vec<Sender<Command>>,
    replies: Receiver<Reply>,
    threads: Option<JoinHandle<()>>,
    time: u32,
}

impl Dataflow {
    /// Starts `workers` threads that maintain what `plan` declares, over no records yet.
    ///
    /// # Errors
    /// When the threads cannot be started or the number of workers is out of range.
    pub fn start(plan: Arc<Plan>, workers: usize) -> Result<Self> {
        if !(1..=WORKERS_MAX).contains(&workers) {
            let what = format!("starting {workers} workers: expected 1 to {WORKERS_MAX}");
            return Err(Error::config(what));
        }
        let (reply, replies) = channel();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| channel()).unzip();
        let threads = worker::spawn(Arc::clone(&plan), receivers, reply)?;
        Ok(Self { plan, workers: senders, replies, threads: Some(threads), time: 0 })
    }

    /// Runs one epoch to its end and returns what it changed: sorted, each cell and row once.
    ///
    /// # Errors
    /// A bug, when a worker died.
    pub fn advance(&mut self, input: Input) -> Result<Changes> {
        let count = self.workers.len();
        let mut shares: Vec<Vec<RecordChange>> = vec![Vec::new(); count];
        if count == 1 {
            shares[0] = input.changes;
        } else {
            for change in input.changes {
                shares[change.key.shard() % count].push(change);
            }
        }
        for (worker, changes) in self.workers.iter().zip(shares) {
            let command = Command::Epoch { time: self.time, today: input.today, changes };
            worker.send(command).map_err(|_| died())?;
        }
        self.time = self.time.checked_add(1).ok_or_else(|| Error::bug("counting epochs"))?;
        let mut gathered = Changes::default();
        let (mut cells, mut rows) = (Vec::new(), Vec::new());
        let mut notes = reasons::Notes::default();
        for _ in 0..count {
            let Reply::Done(part) = self.replies.recv().map_err(|_| died())? else {
                return Err(died());
            };
            cells.extend(part.cells);
            rows.extend(part.rows);
            notes.extend(part.notes);
            gathered.tally += part.tally;
            for (instance, more) in part.held {
                *gathered.held.entry(instance).or_default() += more;
            }
        }
        gathered.cells = pair_cells(cells);
        notes.explain(&self.plan, &mut gathered.cells);
        gathered.rows = pair_rows(rows);
        Ok(gathered)
    }

    /// All records as of the last epoch, in no particular order. Cheap: cases are shared, not copied.
    ///
    /// # Errors
    /// A bug, when a worker died.
    pub fn records(&mut self) -> Result<Vec<(RecordKey, Case)>> {
        for worker in &self.workers {
            worker.send(Command::Records).map_err(|_| died())?;
        }
        let mut records = Vec::new();
        for _ in 0..self.workers.len() {
            match self.replies.recv().map_err(|_| died())? {
                Reply::Records(part) if records.is_empty() => records = part,
                Reply::Records(part) => records.extend(part),
                Reply::Done(_) => return Err(died()),
            }
        }
        Ok(records)
    }
}

impl Drop for Dataflow {
    fn drop(&mut self) {
        self.workers.clear();
        if let Some(threads) = self.threads.take() {
            // A panic of a worker was already reported by the call that waited for it.
            let _ = threads.join();
        }
    }
}

fn died() -> Error {
    Error::bug("waiting for the dataflow: a worker thread ended")
        .advise("restart; please report it")
}

/// One change for each cell from its retraction and its addition.
fn pair_cells(mut updates: Vec<worker::CellUpdate>) -> Vec<CellChange> {
    updates.sort_unstable();
    let mut changes: Vec<CellChange> = Vec::with_capacity(updates.len() / 2 + 1);
    for ((cell, figure), diff) in updates {
        if changes.last().is_none_or(|last| last.cell != cell) {
            changes.push(CellChange {
                cell,
                old: Default::default(),
                new: Default::default(),
                reason: None,
            });
        }
        let change = changes.last_mut().expect("pushed above");
        if diff < 0 {
            change.old = figure;
        } else {
            change.new = figure;
        }
    }
    changes.retain(|change| change.old != change.new);
    changes
}

/// One change for each row; what is taken away and added again with the same content is none.
fn pair_rows(mut updates: Vec<worker::RowUpdate>) -> Vec<ExtractChange> {
    updates.sort_unstable();
    let mut changes: Vec<ExtractChange> = Vec::with_capacity(updates.len() / 2 + 1);
    let mut start = 0;
    while start < updates.len() {
        let (extract, key, _) = updates[start].0;
        let same = |update: &worker::RowUpdate| (update.0.0, update.0.1) == (extract, key);
        let length = updates[start..].iter().take_while(|update| same(update)).count();
        let group = &mut updates[start..start + length];
        start += length;
        let (mut old, mut new) = (None, None);
        for part in group.chunk_by_mut(|a, b| a.0.2 == b.0.2) {
            match part.iter().map(|update| update.1).sum::<isize>() {
                0 => {}
                sum if sum < 0 => old = Some(std::mem::take(&mut part[0].0.2)),
                _ => new = Some(std::mem::take(&mut part[0].0.2)),
            }
        }
        if old.is_some() || new.is_some() {
            changes.push(ExtractChange { extract, key, existed: old.is_some(), row: new });
        }
    }
    changes
}
