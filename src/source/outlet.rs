//! Where a source sends what it found, and how it learns that it should stop.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{Erased, Event};
use crate::error::Error;
use crate::model::RecordKey;

/// Why a source ends.
#[derive(Debug)]
pub(super) enum Halt {
    /// It was asked to, or nobody listens any more.
    Stopped,
    /// It cannot go on.
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The way out of a source. Every wait goes through it, so that a stop is never missed.
pub(super) struct Outlet {
    events: mpsc::Sender<Event>,
    stop: watch::Receiver<bool>,
    erased: Erased,
}

impl Outlet {
    pub(super) fn new(
        events: mpsc::Sender<Event>,
        stop: watch::Receiver<bool>,
        erased: Erased,
    ) -> Self {
        Self { events, stop, erased }
    }

    /// Hands an event on, waiting while the channel is full. Erased records stay behind.
    pub(super) async fn send(&mut self, mut event: Event) -> Result<(), Halt> {
        if let Event::Batch(batch) = &mut event {
            self.erased.sieve(&mut batch.changes);
        }
        let events = self.events.clone();
        self.until_stop(events.send(event)).await?.map_err(|_| Halt::Stopped)
    }

    /// Whether a record was erased, so that it is never handed on.
    pub(super) fn is_erased(&self, key: RecordKey) -> bool {
        self.erased.is_erased(key)
    }

    /// Waits.
    pub(super) async fn wait(&mut self, time: Duration) -> Result<(), Halt> {
        self.until_stop(tokio::time::sleep(time)).await
    }

    /// Does `work` unless a stop comes first.
    pub(super) async fn until_stop<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Halt> {
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => Err(Halt::Stopped),
            done = work => Ok(done),
        }
    }
}
