//! What places and options are called: asked of a server at the start and once a day, beside its records.

use std::time::Duration;

use tokio::time::Instant as Clock;

use super::labels::Agency;
use super::outlet::Halt;
use super::poll::Poll;
use super::stumble::Stumble;
use super::{Event, labels, paths, places};
use crate::crash::{self, Step};
use crate::model::RecordType;

/// Time between two readings of locations and labels.
const PLACES_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// Attempts to read locations and labels before the cases are read without them.
const PLACES_ATTEMPTS: u32 = 4;
/// Time after which locations and labels that could not be read are tried again.
const PLACES_RETRY: Duration = Duration::from_secs(5 * 60);
/// Places asked for at once.
const PLACES_PER_PAGE: usize = 1_000;
/// Most pages of places, and of lookups.
const PLACES_PAGES_MAX: usize = 200;
impl Poll {
    /// Reads locations and labels when they are due. That they cannot be read is said, and never
    /// stops the cases; only a refused password does. What may pass is tried a few times before,
    /// because cases without places give other figures.
    pub(super) async fn read_places(&mut self) -> Result<(), Halt> {
        if Clock::now() < self.places_due {
            return Ok(());
        }
        self.places_due = Clock::now() + PLACES_INTERVAL;
        self.places_failed = false;
        // The places of a server come with its cases, once.
        let attempts = if self.record_type == RecordType::Case { PLACES_ATTEMPTS } else { 0 };
        for attempt in 1..=attempts {
            match self.send_places().await {
                Err(Stumble::Failure(failure))
                    if attempt < PLACES_ATTEMPTS && failure.error.kind().may_pass() =>
                {
                    self.pause(failure, attempt).await?;
                }
                outcome => {
                    self.tolerate(outcome).await?;
                    break;
                }
            }
        }
        let labels = self.send_labels().await;
        self.tolerate(labels).await
    }

    async fn tolerate(&mut self, outcome: Result<(), Stumble>) -> Result<(), Halt> {
        match outcome {
            Ok(()) => Ok(()),
            Err(Stumble::Halt(halt)) => Err(halt),
            Err(Stumble::Failure(failure)) if failure.is_final => Err(Halt::Failed(failure.error)),
            Err(Stumble::Failure(failure)) => {
                self.places_failed = true;
                self.places_due = Clock::now() + PLACES_RETRY;
                self.trouble(failure.error, PLACES_RETRY).await
            }
        }
    }

    async fn send_places(&mut self) -> Result<(), Stumble> {
        let mut places = Vec::new();
        for page in 1..=PLACES_PAGES_MAX {
            let path = paths::locations(page, PLACES_PER_PAGE);
            let reply = self.get(&path, "asking for locations").await?;
            let (more, count) = places::locations(&reply.body, self.decoder.interner())?;
            places.extend(more);
            if count < PLACES_PER_PAGE {
                break;
            }
        }
        let instance = self.decoder.instance();
        self.outlet.send(Event::Locations { instance, places }).await?;
        crash::point(Step::PlacesSent);
        Ok(())
    }

    async fn send_labels(&mut self) -> Result<(), Stumble> {
        let mut lookups = Vec::new();
        for page in 1..=PLACES_PAGES_MAX {
            let path = paths::lookups(page, PLACES_PER_PAGE);
            let more = labels::lookups(&self.get(&path, "asking for lookups").await?.body)?;
            let is_last = more.len() < PLACES_PER_PAGE;
            lookups.extend(more);
            if is_last {
                break;
            }
        }
        let forms = paths::forms(self.record_type);
        let forms = labels::forms(&self.get(&forms, "asking for forms").await?.body)?;
        let agencies = self.agencies().await?;
        let schema = self.decoder.schema();
        let mut labels = labels::of_schema(schema, self.record_type, lookups, &forms);
        labels.extend(labels::of_agencies(schema, agencies));
        let instance = self.decoder.instance();
        self.outlet.send(Event::Labels { instance, labels }).await?;
        crash::point(Step::LabelsSent);
        Ok(())
    }

    /// The agencies, if anything read holds one; none when the role may not read them, which many roles that
    /// read cases may not.
    async fn agencies(&mut self) -> Result<Vec<Agency>, Stumble> {
        let mut agencies = Vec::new();
        if labels::agency_fields(self.decoder.schema()).next().is_none() {
            return Ok(agencies);
        }
        for page in 1..=PLACES_PAGES_MAX {
            let path = paths::agencies(page, PLACES_PER_PAGE);
            let reply = match self.get(&path, "asking for agencies").await {
                Err(Stumble::Failure(failure)) if !failure.is_final => break,
                reply => reply?,
            };
            let more = labels::agencies(&reply.body)?;
            let is_last = more.len() < PLACES_PER_PAGE;
            agencies.extend(more);
            if is_last {
                break;
            }
        }
        Ok(agencies)
    }
}
