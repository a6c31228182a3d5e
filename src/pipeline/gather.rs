//! From events of the sources to the input of the next epoch.

use std::time::Duration;

use jiff::Timestamp;

use super::{Pipeline, Progress};
use crate::error::Result;
use crate::model::{Arrival, Batch, Day, EpochInput, Instant};
use crate::source::Event;

/// Most records of one epoch; more wait for the next.
const EPOCH_RECORDS_MAX: usize = 10_000;

/// Most records of an epoch while nothing of them is visible yet.
const EPOCH_RECORDS_LOADING_MAX: usize = 50_000;

/// How often the loop turns when nothing happens.
pub(super) const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// What there is to do next.
pub(super) enum Gathered {
    /// An epoch.
    Input(Box<EpochInput>),
    /// Nothing happened for a while.
    Idle,
    /// Every source has ended, or a stop was asked for.
    Done,
}

impl Pipeline<'_> {
    /// Waits for something to do. What already arrived enters the same epoch, up to a limit: while Postgres
    /// writes one epoch the next one grows, so bursts become fewer and larger epochs by themselves.
    pub(super) async fn gather(&mut self) -> Result<Gathered> {
        if *self.options.stop.borrow() {
            return Ok(Gathered::Done);
        }
        if let Some(input) = self.tick() {
            return Ok(Gathered::Input(Box::new(input)));
        }
        if self.owed.is_some() && self.may_settle() {
            return Ok(Gathered::Input(Box::new(self.next_input())));
        }
        if self.sources_running == 0 {
            return Ok(Gathered::Done);
        }
        let first = match self.set_aside.take() {
            Some(event) => Some(event),
            None => tokio::select! {
                biased;
                _ = self.options.stop.wait_for(|stop| *stop) => return Ok(Gathered::Done),
                event = self.events.recv() => match event {
                    Some(event) => Some(event),
                    None => return Ok(Gathered::Done), // every source has ended
                },
                () = tokio::time::sleep(HOUSEKEEPING_INTERVAL) => return Ok(Gathered::Idle),
            },
        };
        let mut input = self.next_input();
        let mut event = first;
        let (mut visible, mut loading) = (0, 0);
        while let Some(next) = event {
            if !self.fits(&next, &input) {
                self.set_aside = Some(next);
                break;
            }
            let before = input.arrivals.len();
            self.take(next, &mut input)?;
            for arrival in &input.arrivals[before..] {
                let count = if arrival.deferred { &mut loading } else { &mut visible };
                *count += arrival.changes.len();
            }
            if visible >= EPOCH_RECORDS_MAX || loading >= EPOCH_RECORDS_LOADING_MAX {
                break;
            }
            event = self.events.try_recv().ok();
        }
        let is_visible = !input.released.is_empty() || input.arrivals.iter().any(|a| !a.deferred);
        if is_visible && self.standing.today().is_none() {
            input.today = self.clock();
        }
        if input.is_empty() { Ok(Gathered::Idle) } else { Ok(Gathered::Input(Box::new(input))) }
    }

    /// Whether what an event tells may enter the same epoch. Changes of cases, what is read again for new fields,
    /// and changes of places do not mix, for an epoch says why its rows changed.
    fn fits(&self, event: &Event, input: &EpochInput) -> bool {
        match event {
            Event::Batch(batch) => {
                let alike = |arrival: &Arrival| arrival.is_backfill == batch.is_backfill;
                input.locations.is_empty() && input.arrivals.iter().all(alike)
            }
            Event::Locations { instance, places } => {
                input.arrivals.is_empty() || self.standing.knows(*instance, places)
            }
            _ => true,
        }
    }

    /// The input of the next epoch, still empty.
    pub fn next_input(&self) -> EpochInput {
        let at = Instant(Timestamp::now().as_millisecond());
        EpochInput { epoch: self.epoch.next(), at, ..EpochInput::default() }
    }

    /// An epoch of its own when the day has changed. The clock never goes back.
    fn tick(&self) -> Option<EpochInput> {
        let (before, now) = (self.standing.today()?, self.clock()?);
        (now > before).then(|| EpochInput { today: Some(now), ..self.next_input() })
    }

    fn clock(&self) -> Option<Day> {
        let now = Timestamp::now().to_zoned(self.config.time_zone.clone());
        Day::of(now.date())
    }

    fn take(&mut self, event: Event, input: &mut EpochInput) -> Result<()> {
        self.board.note(&event, &self.standing, &self.options.metrics);
        match event {
            Event::Batch(batch) => self.take_batch(batch, input),
            Event::Locations { instance, places } => {
                if !self.standing.knows(instance, &places) {
                    input.locations.push((instance, places));
                }
            }
            Event::CaughtUp { instance, .. } => {
                self.caught_up.insert(instance);
            }
            Event::Trouble { .. } | Event::Census { .. } | Event::CensusFailed { .. } => {}
            Event::Ended { result, .. } => {
                self.sources_running -= 1;
                // The others go on; a run that was to end by itself says what it could not read.
                if let Err(error) = result {
                    self.board.fail(error);
                }
            }
            Event::Labels { instance, labels } => {
                self.compare_labels(instance, &labels);
                self.board.labels(instance, labels);
                self.is_described = false;
            }
        }
        Ok(())
    }

    fn take_batch(&mut self, batch: Batch, input: &mut EpochInput) {
        let Batch { instance, mut changes, cursor, is_backfill, .. } = batch;
        // It may have been on its way when the erasure was asked for.
        self.erasing.erased.sieve(&mut changes);
        self.erasing.depart(&changes);
        self.sightings.settle(&mut changes);
        let released = self.standing.is_released(instance) || input.released.contains(&instance);
        let waits = is_backfill && self.standing.is_backfilled_at_once(instance);
        if waits && cursor.backfill.is_none() {
            input.released.push(instance);
        }
        if !released {
            if cursor.first_load_done {
                input.released.push(instance);
            }
            let records = self.standing.deferred_count(instance) + changes.len() as u64;
            let instance = self.board.name(instance).to_owned();
            (self.options.observe)(&Progress::Loading { instance, records });
        }
        let deferred = !released || waits;
        input.arrivals.push(Arrival { instance, cursor, deferred, is_backfill, changes });
    }
}
