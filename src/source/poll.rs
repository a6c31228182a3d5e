//! Polls one server: what changed since, in ascending order, from a lower bound that moves with
//! what was read.
//!
//! A page is asked for again from the second of its last record; only when a whole page lies in one
//! second, the next page of the same query is read. Each poll begins some minutes before the newest
//! change seen, and what comes again unchanged is dropped by its fingerprint. The server's answer
//! is never believed where it can be checked: a filter that was dropped, an order that was not kept
//! and an empty page that should not be empty are faults, and a fault moves nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use jiff::Timestamp;
use tokio::time::Instant as Clock;

use super::census::Census;
use super::client::{Client, Failure, Reply};
use super::decode::{Decoded, Decoder, Page};
use super::outlet::{Halt, Outlet};
use super::paths::By;
use super::position::{Position, is_ordered, whole_second};
use super::settings::ServerSettings;
use super::stumble::{Backoff, Stumble};
use super::ties::{Settled, Ties};
use super::{Event, parts, paths};
use crate::crash::{self, Step};
use crate::error::{Error, Kind, Result};
use crate::model::{Batch, Cursor, Instant, RecordChange, RecordKey, RecordType, Refusal};

/// Most pages of one query, that is of records that share one second.
pub(super) const PAGES_MAX: u32 = 10_000;
/// Most refused records that are remembered, so that the overlap does not count them again.
const SEEN_MAX: usize = 10_000;
/// Most times that the parts of one page are asked for because records changed in between.
const PARTS_ATTEMPTS: u32 = 3;
/// Failures in a row after which a run that is not continuous gives up.
pub(super) const ATTEMPTS_MAX: u32 = 8;
/// Furthest that a stored stamp with a zone of its own can be from the same stamp in UTC.
pub(super) const OFFSET_MS_MAX: i64 = 14 * 60 * 60 * 1_000;

/// The poll of one stream of records.
pub(super) struct Poll {
    client: Client,
    pub(super) decoder: Decoder,
    settings: ServerSettings,
    pub(super) record_type: RecordType,
    /// What is asked of each record, in as many requests as it needs.
    fields: Vec<String>,
    cursor: Cursor,
    /// The cursor of the last batch that was sent.
    sent: Cursor,
    known: HashMap<RecordKey, u64>,
    seen: HashSet<(Option<Instant>, &'static str)>,
    /// What was seen of the second that is being read.
    ties: Ties,
    pub(super) census: Census,
    total: Option<u64>,
    newest: Option<Instant>,
    failures: u32,
    pub(super) places_due: Clock,
    /// Whether locations or labels could not be read the last time.
    pub(super) places_failed: bool,
    pub(super) backoff: Backoff,
    pub(super) poll_interval: Duration,
    pub(super) once: bool,
    pub(super) outlet: Outlet,
}

/// What is read: what changed, or everything again for fields that were never read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Live,
    Backfill,
}

impl Poll {
    /// A poll that goes on at `cursor`, with the fingerprints of what was handed on before.
    ///
    /// # Errors
    /// A configuration error when the client cannot be set up or the fields do not fit into a
    /// request.
    pub(super) fn new(
        settings: ServerSettings,
        decoder: Decoder,
        record_type: RecordType,
        cursor: Cursor,
        known: Vec<(RecordKey, u64)>,
        outlet: Outlet,
    ) -> Result<Self> {
        let client = Client::new(&settings)?;
        let (schema, per) = (decoder.schema(), settings.page_size);
        let fields = parts::fields(&client, record_type, schema, per, PAGES_MAX)?;
        Ok(Self {
            client,
            decoder,
            census: Census::new(&settings),
            settings,
            record_type,
            fields,
            sent: cursor.clone(),
            cursor,
            known: known.into_iter().collect(),
            seen: HashSet::new(),
            ties: Ties::default(),
            total: None,
            newest: None,
            failures: 0,
            places_due: Clock::now(),
            places_failed: false,
            backoff: Backoff::default(),
            poll_interval: Duration::from_secs(10),
            once: false,
            outlet,
        })
    }

    /// The decoder, with the dictionary that it filled.
    #[cfg(test)]
    pub(super) fn into_decoder(self) -> Decoder {
        self.decoder
    }

    /// Polls until stopped, or until caught up when it runs `once`. What is read again for fields that were
    /// never read goes on in between, so that it delays no change for longer than a poll does.
    pub(super) async fn run(&mut self) -> Result<(), Halt> {
        loop {
            self.read_places().await?;
            self.catch_up().await?;
            self.read_places().await?;
            let instance = self.decoder.instance();
            let (total, newest) = (self.total.take(), self.newest);
            self.outlet.send(Event::CaughtUp { instance, total, newest }).await?;
            if self.cursor.backfill.is_some() {
                self.read_again().await?;
                continue;
            }
            if self.take_census().await? {
                continue;
            }
            if self.once {
                return Ok(());
            }
            self.outlet.wait(self.poll_interval).await?;
        }
    }

    /// Reads page after page until there is nothing more.
    async fn catch_up(&mut self) -> Result<(), Halt> {
        let watermark = self.cursor.watermark.map_or(0, |watermark| watermark.0);
        let overlap = i64::try_from(self.settings.overlap.as_millis()).unwrap_or(i64::MAX);
        let lower = whole_second(Instant(watermark.saturating_sub(overlap).max(0)));
        let is_first = !self.cursor.first_load_done;
        self.follow(lower, Pass::Live, None).await?;
        if is_first {
            self.census.everything_was_read();
        }
        Ok(())
    }

    /// Goes on with the backfill until it is complete or the next poll is due. One task does both, page by page,
    /// so an older version of a record is never handed on behind a newer one.
    async fn read_again(&mut self) -> Result<(), Halt> {
        let watermark = self.cursor.backfill.as_ref().and_then(|backfill| backfill.watermark);
        let due = Clock::now() + self.poll_interval;
        self.follow(whole_second(watermark.unwrap_or_default()), Pass::Backfill, Some(due)).await
    }

    /// Reads page after page from `lower` on until there is nothing more; or until it is `due` for something else.
    async fn follow(&mut self, lower: Instant, pass: Pass, due: Option<Clock>) -> Result<(), Halt> {
        let mut at = Position { lower, page: 1 };
        loop {
            if at.lower > lower && at.page == 1 && due.is_some_and(|due| Clock::now() >= due) {
                return Ok(()); // the cursor says where to go on
            }
            match self.step(at, pass).await {
                Ok(None) => {
                    self.failures = 0;
                    return Ok(());
                }
                Ok(Some(next)) => {
                    // Only what leads further counts as success: the pages of one second begin anew
                    // after each fault.
                    if next.lower > at.lower {
                        self.failures = 0;
                    }
                    at = next;
                }
                Err(Stumble::Halt(halt)) => return Err(halt),
                Err(Stumble::Failure(failure)) => {
                    self.recover(failure).await?;
                    at.page = 1;
                    // What kept the places away may be over when the cases come again.
                    if self.places_failed {
                        self.places_due = Clock::now();
                    }
                }
            }
        }
    }

    /// Reads one page and hands it on. `None` when it was the last.
    async fn step(&mut self, at: Position, pass: Pass) -> Result<Option<Position>, Stumble> {
        let (page, date, count) = self.ask_whole(at, By::Changed).await?;
        crash::point(Step::ReplyDecoded);
        let per = page.metadata.per.unwrap_or(u64::MAX).min(self.settings.page_size.into()).max(1);
        self.ties.note(at.lower, at.page, &page.records);
        if count == 0 {
            self.verify_empty(at, &page, per).await?;
            if self.is_unsettled(at, None)? {
                return Ok(Some(Position { page: 1, ..at }));
            }
            self.hand_on(Vec::new(), None, pass, true).await?;
            return Ok(None);
        }
        if at.page == 1 && at.lower == Instant(0) {
            self.total = page.metadata.total;
        }
        let read = u64::from(at.page - 1) * per + count;
        let complete = count < per;
        if complete && page.metadata.total.is_some_and(|total| total > read) {
            return Err(self.fault("it sent fewer records than it says there are"));
        }
        let strays = self.verify_filter(&page.records, at.lower).await?;
        let stamps = || page.records.iter().filter_map(|decoded| decoded.stamp);
        let now = date.unwrap_or_else(|| Instant(Timestamp::now().as_millisecond()));
        let (newest, last) = (stamps().max(), stamps().next_back());
        self.newest = self.newest.max(newest);
        if complete && self.is_unsettled(at, None)? {
            self.hand_on(page.records, Some(at.lower), pass, false).await?;
            return Ok(Some(Position { page: 1, ..at }));
        }
        if complete {
            // A stamp in the future must not carry the watermark past what is still to come.
            let watermark = newest.map(|stamp| stamp.min(now));
            self.hand_on(page.records, watermark, pass, true).await?;
            return Ok(None);
        }
        let last = last.ok_or_else(|| self.fault("its records have no time of last change"))?;
        if !is_ordered(&page.records) {
            return Err(self.fault("its records are not in the order that was asked for"));
        }
        let next = whole_second(last.min(now));
        if next > at.lower && self.is_unsettled(at, Some(next))? {
            self.hand_on(page.records, Some(at.lower), pass, false).await?;
            return Ok(Some(Position { page: 1, ..at }));
        }
        let next = if next > at.lower {
            Position { lower: next, page: 1 }
        } else if strays == 0 && at.page < PAGES_MAX {
            Position { page: at.page + 1, ..at }
        } else {
            return Err(self.fault("a full page leads no further"));
        };
        self.hand_on(page.records, Some(last.min(now)), pass, false).await?;
        Ok(Some(next))
    }

    /// Whether the pages from one lower bound on have to be read again before they count as read.
    fn is_unsettled(&mut self, at: Position, next: Option<Instant>) -> Result<bool, Stumble> {
        match self.ties.settled(at.page, next) {
            Settled::Yes => Ok(false),
            Settled::Again => Ok(true),
            Settled::Never => Err(self.fault("the pages of one second are never the same")),
        }
    }

    /// One page with all its fields, and how many records the server sent on it. A record that changes between
    /// two parts is left out: it comes again further on, with its new stamp.
    pub(super) async fn ask_whole(
        &mut self,
        at: Position,
        by: By,
    ) -> Result<(Page, Option<Instant>, u64), Stumble> {
        let doing = self.doing();
        let mut attempt = 1;
        loop {
            let mut whole: Option<(Page, Option<Instant>)> = None;
            let (mut count, mut torn) = (0, 0);
            for index in 0..self.fields.len() {
                let (per, fields) = (self.settings.page_size, &self.fields[index]);
                let path = paths::since(self.record_type, by, fields, at.lower, per, at.page);
                let (part, date) = self.ask(&path, &doing).await?;
                match &mut whole {
                    Some((page, _)) => torn += parts::join(page, part, self.decoder.schema()),
                    None => (count, whole) = (part.records.len() as u64, Some((part, date))),
                }
                if count == 0 {
                    break;
                }
            }
            let (page, date) =
                whole.ok_or_else(|| Error::bug("a page was asked for in no part"))?;
            if torn == 0 || (attempt == PARTS_ATTEMPTS && self.cursor.first_load_done && !self.once)
            {
                return Ok((page, date, count));
            }
            if attempt == PARTS_ATTEMPTS {
                return Err(self.fault("its records change faster than they can be read"));
            }
            attempt += 1;
        }
    }

    /// Records of the stream that were handed on and are not gone.
    pub(super) fn known_keys(&self) -> impl Iterator<Item = RecordKey> {
        self.known.keys().copied()
    }

    pub(super) fn known_count(&self) -> u64 {
        self.known.len() as u64
    }

    pub(super) fn knows(&self, key: RecordKey) -> bool {
        self.known.contains_key(&key)
    }

    /// A record is gone; should it come again, it is a new one.
    pub(super) fn forget(&mut self, key: RecordKey) {
        self.known.remove(&key);
    }

    pub(super) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    pub(super) fn page_size(&self) -> u32 {
        self.settings.page_size
    }

    fn doing(&self) -> String {
        format!("asking for changed {}", self.record_type.plural())
    }

    pub(super) async fn get(&mut self, path: &str, doing: &str) -> Result<Reply, Stumble> {
        Ok(self.outlet.until_stop(self.client.get(path, doing)).await??)
    }

    async fn ask(&mut self, path: &str, doing: &str) -> Result<(Page, Option<Instant>), Stumble> {
        let reply = self.get(path, doing).await?;
        Ok((self.decoder.page(&reply.body)?, reply.date))
    }

    /// Hands on what is new of the records, with the cursor behind them.
    pub(super) async fn hand_on(
        &mut self,
        records: Vec<Decoded>,
        watermark: Option<Instant>,
        pass: Pass,
        complete: bool,
    ) -> Result<(), Halt> {
        let is_backfill = pass == Pass::Backfill;
        // What changed since the last poll is left to the next one, which says so.
        let live = self.cursor.watermark.filter(|_| is_backfill);
        let mut misfits = BTreeMap::new();
        let (mut changes, mut refusals) = (Vec::new(), Vec::new());
        if self.seen.len() > SEEN_MAX {
            self.seen.clear();
        }
        for Decoded { stamp, record } in records {
            if live.is_some_and(|live| stamp > Some(live)) {
                continue;
            }
            match record {
                Ok(record) => {
                    let fingerprint = record.case.fingerprint(self.decoder.schema());
                    let is_known = self.known.insert(record.key, fingerprint) == Some(fingerprint);
                    self.census.met(record.key);
                    if is_known && !is_backfill {
                        continue;
                    }
                    for index in record.misfits {
                        let name = self.decoder.misfit_name(index).to_owned();
                        *misfits.entry(name).or_default() += 1;
                    }
                    // A value of a new field that does not fit it leaves the record as it was.
                    if !is_known {
                        changes.push(RecordChange { key: record.key, case: Some(record.case) });
                    }
                }
                Err(reason) if self.seen.insert((stamp, reason)) => {
                    refusals.push(Refusal { key: None, reason });
                }
                Err(_) => {}
            }
        }
        self.advance(watermark, pass, complete);
        if changes.is_empty() && refusals.is_empty() && self.cursor == self.sent {
            return Ok(());
        }
        self.sent = self.cursor.clone();
        let (instance, cursor) = (self.decoder.instance(), self.cursor.clone());
        let misfits = misfits.into_iter().collect();
        let batch = Batch { instance, changes, cursor, is_backfill, refusals, misfits };
        self.outlet.send(Event::Batch(batch)).await?;
        crash::point(Step::BatchSent);
        Ok(())
    }

    /// Moves the cursor behind what was read.
    fn advance(&mut self, watermark: Option<Instant>, pass: Pass, complete: bool) {
        match (pass, &mut self.cursor.backfill) {
            (Pass::Live, _) => {
                self.cursor.watermark = self.cursor.watermark.max(watermark);
                self.cursor.first_load_done |= complete;
            }
            (Pass::Backfill, ended) if complete => *ended = None,
            (Pass::Backfill, Some(backfill)) => {
                backfill.watermark = backfill.watermark.max(watermark);
            }
            (Pass::Backfill, None) => {}
        }
    }

    /// Believes an empty page only when the rest of what the server says agrees with it: a filter
    /// that failed inside the server looks just the same.
    async fn verify_empty(&mut self, at: Position, page: &Page, per: u64) -> Result<(), Stumble> {
        if at.page > 1 {
            let before = u64::from(at.page - 1) * per;
            let ended = page.metadata.total.is_some_and(|total| total > 0 && total <= before);
            return if ended { Ok(()) } else { Err(self.fault("a page in the middle is empty")) };
        }
        let (control, _) =
            self.ask(&paths::newest(self.record_type), "asking for the newest record").await?;
        let newest = control.records.first().map(|decoded| decoded.stamp);
        match newest {
            None if self.known.is_empty() && control.metadata.total.unwrap_or(0) == 0 => {
                self.total = Some(0);
                Ok(())
            }
            Some(Some(newest)) if newest < at.lower => Ok(()),
            _ => Err(self.fault("it sent an empty page although it holds records")),
        }
    }

    /// Checks each record against the filter, and returns how many lie outside it for a reason that
    /// is known: a stamp stored with a zone of its own is compared without it. Anything else means
    /// that the filter was dropped.
    async fn verify_filter(
        &mut self,
        records: &[Decoded],
        lower: Instant,
    ) -> Result<usize, Stumble> {
        let stamps = || records.iter().filter_map(|decoded| decoded.stamp);
        let strays = stamps().filter(|stamp| *stamp < lower).count();
        if strays == 0 {
            return Ok(0);
        }
        let (doing, plural) = (self.doing(), self.record_type.plural());
        let dropped = || {
            let what = format!("{doing}: the server ignored the filter by last_updated_at");
            let advice =
                format!("the user's role needs read access to {plural}; nothing was taken over");
            Error::new(Kind::Unavailable, what).advise(advice)
        };
        if stamps().any(|stamp| stamp.0 < lower.0 - OFFSET_MS_MAX) {
            return Err(dropped().into());
        }
        let (probe, _) =
            self.ask(&paths::far_future(self.record_type), "testing the filter").await?;
        if probe.records.is_empty() { Ok(strays) } else { Err(dropped().into()) }
    }

    /// Says what went wrong and waits, unless waiting cannot help.
    async fn recover(&mut self, failure: Failure) -> Result<(), Halt> {
        self.failures += 1;
        let given_up = self.once && self.failures >= ATTEMPTS_MAX;
        if given_up || !failure.error.kind().may_pass() {
            return Err(Halt::Failed(failure.error));
        }
        self.pause(failure, self.failures).await
    }

    /// An answer that contradicts itself or an earlier one. It may be right the next time.
    pub(super) fn fault(&self, what: &str) -> Stumble {
        let what = format!("{}: the server is inconsistent: {what}", self.doing());
        Error::new(Kind::Temporary, what).advise("nothing was taken over; it is asked again").into()
    }

    /// Says what went wrong and waits, the longer the more `failures` there were in a row.
    pub(super) async fn pause(&mut self, failure: Failure, failures: u32) -> Result<(), Halt> {
        let backoff = self.backoff.wait(failures);
        let retry_in = failure.retry_after.map_or(backoff, |asked| asked.max(backoff));
        self.trouble(failure.error, retry_in).await?;
        self.outlet.wait(retry_in).await
    }

    pub(super) async fn trouble(&mut self, error: Error, retry_in: Duration) -> Result<(), Halt> {
        let instance = self.decoder.instance();
        self.outlet.send(Event::Trouble { instance, error, retry_in }).await
    }
}
