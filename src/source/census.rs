//! Takes a census of a server: what was deleted there for good leaves no trace among what changed, so everything that
//! is there has to be listed now and then and compared with what is known.
//!
//! A list is no proof by itself: rows change places between two pages, and a filter that fails inside the server hides
//! rows. So a record counts as gone only when two lists lack it that fail in different ways: one by time of creation,
//! which never changes, so that no row can slip through between two pages; and one without any filter, in an order
//! in which every record has one place. A record cannot be asked for by its id instead, for ids are not kept. And
//! when more is missing than a setting allows, nothing leaves: a role that lost its rights looks the same.
//!
//! The other way round, a record that is listed and not known is read at once.

use std::time::Duration;

use hashbrown::HashSet;
use tokio::time::Instant as Clock;

use super::client::Failure;
use super::listing::{self, Entry, Listed};
use super::outlet::Halt;
use super::paths::{self, By};
use super::poll::{PAGES_MAX, Pass, Poll};
use super::position::{Position, is_ascending, whole_second};
use super::stumble::Stumble;
use super::{Event, ServerSettings};
use crate::crash::{self, Step};
use crate::error::{Error, Kind};
use crate::model::{Batch, RecordChange, RecordKey};

/// Longest time until the number of records is compared with that of those known, which costs one request.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(10 * 60);
/// So many records may leave at once whatever their share is.
const GONE_FEW: usize = 20;
/// Failures in a row after which a census is given up until the next one is due.
const FAILURES_MAX: u32 = 4;
/// Most pages of the list without a filter.
const LIST_PAGES_MAX: u32 = 100_000;
/// Most records that leave with one batch.
const BATCH_RECORDS_MAX: usize = 10_000;

/// When a census is taken, and the one that is under way.
pub(super) struct Census {
    interval: Duration,
    /// Greatest share of the known records that may leave at once.
    percent_max: u8,
    due: Clock,
    look_due: Clock,
    /// Records that were missing from the last one and did not leave, because they were too many.
    withheld: u64,
    failures: u32,
    under_way: Option<Listing>,
}

/// A census under way.
struct Listing {
    /// Known at its beginning, and on no list of this round so far.
    unseen: HashSet<RecordKey>,
    list: List,
    /// Records of the list without a filter that were met.
    met: u64,
}

/// Which list is read, and how far.
#[derive(Clone, Copy)]
enum List {
    ByCreation(Position),
    Whole { page: u32 },
    Ended,
}

impl Census {
    pub(super) fn new(settings: &ServerSettings) -> Self {
        let interval = settings.census_interval;
        Self {
            interval,
            percent_max: settings.gone_percent_max,
            due: Clock::now() + interval,
            look_due: Clock::now(),
            withheld: 0,
            failures: 0,
            under_way: None,
        }
    }

    /// Notes that a record was read: it is there.
    pub(super) fn met(&mut self, key: RecordKey) {
        if let Some(listing) = &mut self.under_way {
            listing.unseen.remove(&key);
        }
    }

    /// Notes that everything was read just now, so that there is nothing to look for.
    pub(super) fn everything_was_read(&mut self) {
        self.look_due = Clock::now() + self.interval.min(LOOK_INTERVAL_MAX);
    }

    /// Puts the next one off.
    fn put_off(&mut self) {
        self.under_way = None;
        self.failures = 0;
        self.due = Clock::now() + self.interval;
    }
}

impl Poll {
    /// Goes on with a census, or begins one that is due, until the next poll is. True when more of it is to be done.
    pub(super) async fn take_census(&mut self) -> Result<bool, Halt> {
        if self.census.under_way.is_none() && !self.begin_census().await? {
            return Ok(false);
        }
        let due = Clock::now() + self.poll_interval;
        loop {
            match self.list_on().await {
                Ok(()) => self.census.failures = 0,
                Err(Stumble::Halt(halt)) => return Err(halt),
                Err(Stumble::Failure(failure)) if !self.may_list_on(&failure) => {
                    let wait = self.census.interval;
                    self.census.put_off();
                    self.census.look_due = self.census.due; // the same would come of it
                    self.trouble(failure.error.while_doing("taking a census"), wait).await?;
                    return Ok(false);
                }
                Err(Stumble::Failure(failure)) => {
                    self.census.failures += 1;
                    self.pause(failure, self.census.failures).await?;
                }
            }
            if let Some(Listing { list: List::Ended, .. }) = &self.census.under_way {
                self.end_census().await?;
                return Ok(false);
            }
            if Clock::now() >= due {
                return Ok(true);
            }
        }
    }

    /// Whether a census is due: by time, or because the server has fewer records than are known. A run that ends by
    /// itself cannot wait for the time, so any other number counts.
    async fn begin_census(&mut self) -> Result<bool, Halt> {
        let now = Clock::now();
        if now < self.census.due {
            if now < self.census.look_due {
                return Ok(false);
            }
            self.census.look_due = now + self.census.interval.min(LOOK_INTERVAL_MAX);
            let total = match self.count().await {
                Ok(total) => total,
                Err(Stumble::Halt(halt)) => return Err(halt),
                Err(Stumble::Failure(failure)) => {
                    let wait = self.census.look_due - now;
                    self.trouble(failure.error, wait).await?;
                    return Ok(false);
                }
            };
            let known = self.known_count();
            let differs = |total: u64| match self.once {
                true => total != known,
                false => total + self.census.withheld < known,
            };
            if !total.is_some_and(differs) {
                return Ok(false);
            }
        }
        self.census.put_off();
        let list = List::ByCreation(Position::default());
        self.census.under_way = Some(Listing { unseen: self.known_keys().collect(), list, met: 0 });
        Ok(true)
    }

    async fn count(&mut self) -> Result<Option<u64>, Stumble> {
        let listed = self.ask_list(&paths::count(self.record_type)).await?;
        Ok(listed.metadata.total)
    }

    fn may_list_on(&self, failure: &Failure) -> bool {
        failure.error.kind().may_pass() && self.census.failures + 1 < FAILURES_MAX
    }

    async fn ask_list(&mut self, path: &str) -> Result<Listed, Stumble> {
        let doing = format!("listing {}", self.record_type.plural());
        let reply = self.get(path, &doing).await?;
        Ok(listing::read(&self.decoder, &reply.body)?)
    }

    /// Reads the next page.
    async fn list_on(&mut self) -> Result<(), Stumble> {
        let Some(listing) = &self.census.under_way else { return Ok(()) };
        let next = match listing.list {
            List::ByCreation(at) => self.list_by_creation(at).await?,
            List::Whole { page } => self.list_whole(page).await?,
            List::Ended => List::Ended,
        };
        if let Some(listing) = &mut self.census.under_way {
            let is_over = listing.unseen.is_empty() && !matches!(next, List::ByCreation(_));
            listing.list = if is_over { List::Ended } else { next };
        }
        Ok(())
    }

    async fn list_by_creation(&mut self, at: Position) -> Result<List, Stumble> {
        let (by, per) = (By::Created, self.page_size());
        let path = paths::since(self.record_type, by, by.field(), at.lower, per, at.page);
        let Listed { records, metadata } = self.ask_list(&path).await?;
        let per = metadata.per.unwrap_or(u64::MAX).min(per.into()).max(1);
        if self.note_listed(&records) {
            // Read whole, by the same list: what the polls missed is made up for.
            let (page, _, _) = self.ask_whole(at, by).await?;
            self.hand_on(page.records, None, Pass::Live, false).await?;
        }
        if (records.len() as u64) < per {
            let read = u64::from(at.page - 1) * per + records.len() as u64;
            return match metadata.total {
                Some(total) if total > read => Err(self.incomplete()),
                _ => Ok(List::Whole { page: 1 }),
            };
        }
        let seconds = || records.iter().filter_map(|one| one.created).map(whole_second);
        let last = seconds().next_back().ok_or_else(|| {
            let what = "listing records by time of creation: they have none";
            let advice = "the user's role needs to read created_at; records that were deleted are not noticed";
            Error::new(Kind::Unavailable, what).advise(advice)
        })?;
        if !is_ascending(&seconds().collect::<Vec<_>>()) {
            return Err(self.fault("its list is not in the order that was asked for"));
        }
        Ok(List::ByCreation(if last > at.lower {
            Position { lower: last, page: 1 }
        } else if at.page < PAGES_MAX {
            Position { page: at.page + 1, ..at }
        } else {
            return Err(self.fault("a full page of its list leads no further"));
        }))
    }

    async fn list_whole(&mut self, page: u32) -> Result<List, Stumble> {
        let per = self.page_size();
        let path = paths::all(self.record_type, per, page);
        let Listed { records, metadata } = self.ask_list(&path).await?;
        let per = metadata.per.unwrap_or(u64::MAX).min(per.into()).max(1);
        self.note_listed(&records);
        let Some(listing) = &mut self.census.under_way else { return Ok(List::Ended) };
        listing.met += records.len() as u64;
        if records.len() as u64 >= per && page < LIST_PAGES_MAX {
            return Ok(List::Whole { page: page + 1 });
        }
        if metadata.total.is_none_or(|total| total > listing.met) {
            (listing.met, listing.list) = (0, List::Whole { page: 1 });
            return Err(self.incomplete());
        }
        Ok(List::Ended)
    }

    fn incomplete(&self) -> Stumble {
        self.fault("it listed fewer records than it says there are")
    }

    /// Notes who is listed. True when somebody is who is neither known nor was erased.
    fn note_listed(&mut self, records: &[Entry]) -> bool {
        let keys = records.iter().filter_map(|one| one.key);
        let mut is_unknown = false;
        for key in keys {
            self.census.met(key);
            is_unknown |= !self.knows(key) && !self.outlet.is_erased(key);
        }
        is_unknown
    }

    /// Lets those leave that no list has.
    async fn end_census(&mut self) -> Result<(), Halt> {
        let unseen = self.census.under_way.take().map(|listing| listing.unseen).unwrap_or_default();
        let mut gone: Vec<_> = unseen.into_iter().filter(|key| self.knows(*key)).collect();
        gone.sort_unstable();
        let known = self.known_count();
        let share = usize::try_from(known).unwrap_or(usize::MAX) / 100;
        let most = share.saturating_mul(self.census.percent_max.into()).max(GONE_FEW);
        let (count, is_withheld) = (gone.len() as u64, gone.len() > most);
        self.census.withheld = if is_withheld { count } else { 0 };
        crash::point(Step::CensusTaken);
        if !is_withheld {
            for keys in gone.chunks(BATCH_RECORDS_MAX) {
                self.let_go(keys).await?;
            }
        }
        let instance = self.decoder.instance();
        self.outlet.send(Event::Census { instance, known, gone: count, is_withheld }).await
    }

    async fn let_go(&mut self, keys: &[RecordKey]) -> Result<(), Halt> {
        keys.iter().for_each(|key| self.forget(*key));
        let changes = keys.iter().map(|key| RecordChange { key: *key, case: None }).collect();
        let batch = Batch {
            instance: self.decoder.instance(),
            changes,
            cursor: self.cursor().clone(),
            is_backfill: false,
            refusals: Vec::new(),
            misfits: Vec::new(),
        };
        self.outlet.send(Event::Batch(batch)).await
    }
}
