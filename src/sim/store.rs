//! The cases of the simulated server, and what is visible of them at a given moment.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::calendar;
use super::generator::Dice;
use super::save::{self, Case, Saving};
use crate::error::{Error, Result};

/// A case as the database has it: a few columns, and the document as text.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) enabled: bool,
    /// Milliseconds since 1970.
    pub(super) updated_ms: i64,
    /// Microseconds since 1970: finer than the text the server gives.
    pub(super) created_us: i64,
    pub(super) json: Arc<str>,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    record_state: Option<bool>,
    enabled: Option<bool>,
    #[serde(borrow)]
    last_updated_at: Cow<'a, str>,
    #[serde(borrow)]
    created_at: Option<Cow<'a, str>>,
}

impl Row {
    /// Reads the columns from a document.
    pub(super) fn read(json: &str) -> Result<Self> {
        let head: Head<'_> = serde_json::from_str(json)
            .map_err(|cause| Error::config("reading a case").caused_by(cause))?;
        let updated_ms = calendar::parse_instant(&head.last_updated_at)
            .ok_or_else(|| Error::config("reading a case: last_updated_at is not an instant"))?;
        let created = head.created_at.as_deref().and_then(calendar::parse_instant);
        let hidden_us =
            head.id.bytes().fold(7, |sum: i64, byte| (sum * 31 + i64::from(byte)) % 998);
        Ok(Self {
            enabled: head.record_state.or(head.enabled).unwrap_or(true),
            updated_ms,
            created_us: created.unwrap_or(updated_ms) * 1_000 + hidden_us + 1,
            id: head.id.into_owned(),
            json: json.into(),
        })
    }

    /// The document.
    pub(super) fn document(&self) -> Case {
        serde_json::from_str(&self.json).expect("a stored case is a JSON object")
    }
}

/// The server's clock: it never goes back.
pub(super) struct Clock {
    base_ms: i64,
    started: Instant,
    last_ms: i64,
}

impl Clock {
    /// A clock that shows `base_ms` now.
    pub(super) fn starting_at(base_ms: i64) -> Self {
        Self { base_ms, started: Instant::now(), last_ms: base_ms }
    }

    /// Moves the clock on, never back.
    fn advance(&mut self, ms: i64) {
        self.base_ms = self.base_ms.saturating_add(ms.max(0));
    }

    /// Milliseconds since 1970, never less than before.
    pub(super) fn now_ms(&mut self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.last_ms = self.last_ms.max(self.base_ms.saturating_add(elapsed));
        self.last_ms
    }
}

/// A save or deletion that is not committed yet.
enum Change {
    Saved(Row),
    Deleted,
}

/// All cases.
pub(super) struct Store {
    rows: Vec<Row>,
    places: HashMap<String, usize>,
    /// By the moment of the commit, then in order of arrival.
    pending: BTreeMap<(i64, u64), (String, Change)>,
    arrivals: u64,
    out_of_scope: BTreeSet<String>,
    clock: Clock,
    delay_ms_max: i64,
    pub(super) dice: Dice,
    /// The canaries of every version ever stored, when they are wanted.
    canaries: Option<BTreeSet<String>>,
}

impl Store {
    /// An empty store.
    pub(super) fn new(clock: Clock, commit_delay: Duration, dice: Dice, canary: bool) -> Self {
        Self {
            rows: Vec::new(),
            places: HashMap::new(),
            pending: BTreeMap::new(),
            arrivals: 0,
            out_of_scope: BTreeSet::new(),
            clock,
            delay_ms_max: i64::try_from(commit_delay.as_millis()).unwrap_or(i64::MAX / 4),
            dice,
            canaries: canary.then(BTreeSet::new),
        }
    }

    /// Puts a case as it is, stamp included, visible at once.
    pub(super) fn load(&mut self, row: Row) {
        self.remember_canaries(&row);
        match self.places.get(&row.id) {
            Some(place) => self.rows[*place] = row,
            None => {
                self.places.insert(row.id.clone(), self.rows.len());
                self.rows.push(row);
            }
        }
    }

    /// The rows a reader may see now, with the moment they are read at.
    pub(super) fn visible(&mut self) -> &[Row] {
        self.commit_due();
        &self.rows
    }

    /// Whether the caller's role reaches this case.
    pub(super) fn in_scope(&self, id: &str) -> bool {
        !self.out_of_scope.contains(id)
    }

    /// Whether every case is in the caller's scope.
    pub(super) fn all_in_scope(&self) -> bool {
        self.out_of_scope.is_empty()
    }

    /// Takes a case out of the caller's scope, or brings it back.
    pub(super) fn set_scope(&mut self, id: &str, within: bool) {
        if within {
            self.out_of_scope.remove(id);
        } else {
            self.out_of_scope.insert(id.to_owned());
        }
    }

    /// The visible case with this id.
    pub(super) fn find(&mut self, id: &str) -> Option<&Row> {
        self.commit_due();
        self.places.get(id).map(|place| &self.rows[*place])
    }

    /// The newest version of every case, committed or not, in order of id.
    pub(super) fn newest_all(&mut self) -> Vec<Row> {
        self.commit_due();
        let mut newest: BTreeMap<&str, &Row> =
            self.rows.iter().map(|row| (row.id.as_str(), row)).collect();
        for (id, change) in self.pending.values() {
            match change {
                Change::Saved(row) => newest.insert(id, row),
                Change::Deleted => newest.remove(id.as_str()),
            };
        }
        newest.into_values().cloned().collect()
    }

    /// The newest version of one case, committed or not.
    pub(super) fn newest(&self, id: &str) -> Option<&Row> {
        match self.pending.values().rev().find(|(pending, _)| pending == id) {
            Some((_, Change::Saved(row))) => Some(row),
            Some((_, Change::Deleted)) => None,
            None => self.places.get(id).map(|place| &self.rows[*place]),
        }
    }

    /// The id of the visible case with this number, counted round and round.
    pub(super) fn nth(&mut self, number: u64) -> Option<String> {
        self.commit_due();
        let count = self.rows.len() as u64;
        (count > 0).then(|| self.rows[(number % count) as usize].id.clone())
    }

    /// How many cases a reader may see now.
    pub(super) fn count(&mut self) -> usize {
        self.visible().len()
    }

    /// Moves the server's clock on.
    pub(super) fn advance(&mut self, ms: i64) {
        self.clock.advance(ms);
    }

    /// Makes the clock show an instant after every stamp there is, unless it does already.
    pub(super) fn pass_newest_stamp(&mut self) {
        let newest = self.rows.iter().map(|row| row.updated_ms).max().unwrap_or(0);
        let behind = newest + 1 - self.clock.now_ms();
        self.clock.advance(behind);
    }

    /// What the server's clock shows, in milliseconds.
    pub(super) fn now_ms(&mut self) -> i64 {
        self.clock.now_ms()
    }

    /// Saves a case by the server's rules. It gets its stamp now and becomes visible at its commit.
    pub(super) fn save(&mut self, mut after: Case, user: &str) -> Result<()> {
        let id = save::text_of(&after, "id").to_owned();
        let before = self.newest(&id).map(Row::document);
        let now_ms = self.now_ms();
        save::save(before.as_ref(), &mut after, &Saving { now_ms, user }, &mut self.dice);
        let text = serde_json::to_string(&after)
            .map_err(|cause| Error::bug("writing a case as JSON").caused_by(cause))?;
        let row = Row::read(&text)?;
        self.remember_canaries(&row);
        self.put(id, Change::Saved(row), now_ms);
        Ok(())
    }

    /// Saves a record that follows no rules of cases, with these fields changed and a new stamp, visible at
    /// once; false when there is none with this id.
    pub(super) fn touch(&mut self, id: &str, fields: Case) -> Result<bool> {
        let Some(mut record) = self.newest(id).map(Row::document) else { return Ok(false) };
        record.extend(fields);
        let enabled = record.get("record_state").and_then(Value::as_bool).unwrap_or(true);
        record.insert("enabled".to_owned(), enabled.into());
        let stamp = calendar::instant_text(self.now_ms());
        record.insert("last_updated_at".to_owned(), stamp.into());
        self.load(Row::read(&Value::Object(record).to_string())?);
        Ok(true)
    }

    /// Deletes a case for good, as an operator does from a shell.
    pub(super) fn delete(&mut self, id: &str) -> bool {
        let known = self.newest(id).is_some();
        if known {
            let now_ms = self.now_ms();
            self.put(id.to_owned(), Change::Deleted, now_ms);
        }
        known
    }

    /// Every canary any version of any case has carried.
    pub(super) fn canaries(&self) -> Vec<String> {
        self.canaries.iter().flatten().cloned().collect()
    }

    fn put(&mut self, id: String, change: Change, now_ms: i64) {
        let delay = self.dice.between(0, self.delay_ms_max);
        let earlier = self.pending.iter().rev().find(|(_, (pending, _))| *pending == id);
        let after_earlier = earlier.map_or(0, |((due, _), _)| *due);
        self.arrivals += 1;
        self.pending.insert(((now_ms + delay).max(after_earlier), self.arrivals), (id, change));
        self.commit_due();
    }

    fn commit_due(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let later = self.pending.split_off(&(self.clock.now_ms() + 1, 0));
        for (id, change) in std::mem::replace(&mut self.pending, later).into_values() {
            match change {
                Change::Saved(row) => self.load(row),
                Change::Deleted => self.forget(&id),
            }
        }
    }

    fn forget(&mut self, id: &str) {
        if let Some(place) = self.places.remove(id) {
            self.rows.swap_remove(place);
            if let Some(moved) = self.rows.get(place) {
                self.places.insert(moved.id.clone(), place);
            }
        }
    }

    fn remember_canaries(&mut self, row: &Row) {
        let Some(canaries) = &mut self.canaries else { return };
        canaries.insert(row.id.clone());
        for (start, _) in row.json.match_indices("\"CANARY-") {
            let rest = &row.json[start + 1..];
            canaries.insert(rest.split('"').next().unwrap_or(rest).to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn store(delay: Duration) -> Store {
        Store::new(Clock::starting_at(1_000_000), delay, Dice::new(3), false)
    }

    fn case(id: &str, age: u8) -> Case {
        json!({"id": id, "age": age}).as_object().unwrap().clone()
    }

    #[test]
    fn stamps_never_go_back_and_deletion_keeps_the_others() {
        let mut store = store(Duration::ZERO);
        for id in ["a", "b", "c"] {
            store.save(case(id, 3), "worker").unwrap();
        }
        let stamps: Vec<i64> = store.visible().iter().map(|row| row.updated_ms).collect();
        assert!(stamps.is_sorted());
        assert!(store.delete("a"));
        assert!(store.find("a").is_none());
        assert_eq!(store.find("c").unwrap().id, "c");
        assert!(!store.delete("a"));
    }

    #[test]
    fn a_late_commit_shows_the_old_version_until_then() {
        let mut store = store(Duration::from_secs(3_600));
        store.load(
            Row::read(r#"{"id":"a","age":1,"last_updated_at":"1970-01-01T00:00:01Z"}"#).unwrap(),
        );
        store.save(case("a", 2), "worker").unwrap();
        store.save(case("a", 3), "worker").unwrap();
        assert_eq!(store.find("a").unwrap().document()["age"], 1);
        assert_eq!(store.newest("a").unwrap().document()["age"], 3);
        assert_eq!(store.newest_all().len(), 1);
        store.advance(3_600_001);
        assert_eq!(store.find("a").unwrap().document()["age"], 3);
    }
}
