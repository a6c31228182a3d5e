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
use crate::model::{
    Case, CellChange, Changes, Day, ExtractChange, FineCell, Measure, RecordChange, RecordKey,
    SharedMap, Summed,
};

use upsert::Before;
use worker::{Command, Put, Reply};

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

/// All records, and what each worker has summed up of what they contribute.
pub type Held = (SharedMap<RecordKey, Case>, Vec<SharedMap<FineCell, Measure>>);

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
        self.run(input, None)
    }

    /// Puts records back whose contributions were summed up before: only those are judged that changed since, and those
    /// for which the days that passed make a difference. It must be the first epoch; it returns what
    /// [`advance`](Self::advance) would have returned for all of the records. They are ascending by key.
    ///
    /// # Errors
    /// A bug, when a worker died.
    pub fn resume(
        &mut self,
        records: Vec<(RecordKey, Case)>,
        today: Day,
        summed: Summed,
    ) -> Result<Changes> {
        let is_gone = |key: &RecordKey| records.binary_search_by_key(key, |(key, _)| *key).is_err();
        let gone: Vec<_> = summed
            .before
            .iter()
            .filter(|(key, was)| was.is_some() && is_gone(key))
            .map(|(key, _)| RecordChange { key: *key, case: None })
            .collect();
        let records = records.into_iter();
        let changes = records.map(|(key, case)| RecordChange { key, case: Some(case) });
        let changes = changes.chain(gone).collect();
        self.run(Input { changes, today: Some(today) }, Some(summed))
    }

    fn run(&mut self, input: Input, summed: Option<Summed>) -> Result<Changes> {
        let count = self.workers.len();
        let mut shares: Vec<Vec<RecordChange>> = vec![Vec::new(); count];
        if count == 1 {
            shares[0] = input.changes;
        } else {
            for change in input.changes {
                shares[change.key.shard() % count].push(change);
            }
        }
        let is_busy: Vec<bool> = shares.iter().map(|share| !share.is_empty()).collect();
        let puts = puts(summed, &is_busy);
        for ((worker, changes), put) in self.workers.iter().zip(shares).zip(puts) {
            let command = Command::Epoch { time: self.time, today: input.today, changes, put };
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

    /// All records as of the last epoch. Cheap: they are shared, not copied.
    ///
    /// # Errors
    /// A bug, when a worker died.
    pub fn records(&mut self) -> Result<SharedMap<RecordKey, Case>> {
        Ok(self.held()?.0)
    }

    /// The same, and what they contribute to cells, summed up by each worker.
    ///
    /// # Errors
    /// A bug, when a worker died.
    pub fn held(&mut self) -> Result<Held> {
        for worker in &self.workers {
            worker.send(Command::Hold).map_err(|_| died())?;
        }
        let (mut records, mut sums) = (SharedMap::default(), Vec::new());
        for _ in 0..self.workers.len() {
            let Reply::Held(part, cells) = self.replies.recv().map_err(|_| died())? else {
                return Err(died());
            };
            records.absorb(part);
            sums.push(cells);
        }
        Ok((records, sums))
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

/// What was summed up before, parted among the workers: records as they are, sums in any way among those that have
/// records, for with them the sums enter the graph.
fn puts(summed: Option<Summed>, is_busy: &[bool]) -> Vec<Option<Put>> {
    let count = is_busy.len();
    let Some(Summed { today, cells, before, .. }) = summed else {
        return (0..count).map(|_| None).collect();
    };
    let mut puts: Vec<_> = (0..count)
        .map(|_| Put { cells: Vec::new(), before: Before { today, records: Default::default() } })
        .collect();
    let busy = (0..count).filter(|worker| is_busy[*worker]).cycle();
    for (worker, sum) in busy.zip(cells) {
        puts[worker].cells.push(sum);
    }
    for (key, case) in before {
        puts[key.shard() % count].before.records.insert(key, case);
    }
    puts.into_iter().map(Some).collect()
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
