//! From files to everything the pipeline needs to go on: newest usable snapshot, and the log behind
//! it.
//!
//! P is the epoch in Postgres, S that of a snapshot, L the last one in the log. S ≤ P ≤ L agree:
//! what lies in (S, P] is folded into the snapshot, what lies in (P, L] is replayed as normal
//! epochs. Everything else is folded up to L and compared with the tables.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::error::{Error, Kind, Result};
use crate::model::{
    Case, Code, Cursor, Day, Dictionary, Epoch, EpochInput, Location, RecordChange, RecordKey,
    Schema, Summed,
};

use super::directory::{Directory, Listing, REBUILD, snapshot_name};
use super::frame::Damage;
use super::segment::{Next, SegmentReader};
use super::snapshot::{self, Stored};
use super::translation;

/// Whether the files and the tables belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// There is no state: everything is read from the sources. If the tables hold an epoch already,
    /// the first complete read has to be compared with them.
    Fresh,
    /// The tables show what the state had at [`Restored::base`].
    Agrees,
    /// Compute everything, compare it with the tables and write the differences.
    Reconcile {
        /// Why, for the operator.
        why: String,
    },
}

/// Everything the pipeline needs to go on.
#[derive(Debug)]
pub struct Restored {
    /// All codes, as of `last`.
    pub dictionary: Dictionary,
    /// Where to go on reading, as of `last`.
    pub cursors: BTreeMap<Code, Cursor>,
    /// The last clock tick as of `base`.
    pub today: Option<Day>,
    /// The places of each instance as of `base`.
    pub locations: BTreeMap<Code, Vec<Location>>,
    /// All visible records as of `base`, ascending by key, which is also by shard.
    pub records: Vec<(RecordKey, Case)>,
    /// What the records were summed up to with the snapshot, and which of them changed since.
    pub sums: Option<Summed>,
    /// Changes as of `base` that wait until their instance is released, in the order they arrived.
    pub deferred: BTreeMap<Code, Vec<RecordChange>>,
    /// The epoch that everything above is as of: the published one when state and tables agree,
    /// else `last`.
    pub base: Epoch,
    /// The epochs after `base`, to be replayed as normal ones.
    pub tail: Vec<EpochInput>,
    /// The newest epoch in the state. The next one must be greater than it and than the published
    /// one.
    pub last: Epoch,
    /// Whether the tables can be trusted to show `base`.
    pub agreement: Agreement,
    /// Whether the tables once showed a later epoch of this state than they do now: then they hold nothing that it
    /// does not know.
    pub is_ahead: bool,
    /// Whether the newest file was written with another schema. The first epoch that is appended
    /// makes the schema asked for the one of the state, so it has to carry the cursors of whatever
    /// is fetched again.
    pub schema_changed: bool,
    /// What the schema asks for and the newest file does not have, as `field`, `subform` or
    /// `subform.field`: not recorded in any record until its instance is fetched again.
    pub new_fields: Vec<String>,
    /// What was found and mended, for the operator.
    pub warnings: Vec<String>,
}

/// What was restored, and what a writer needs to know to go on behind it.
pub(super) struct Recovered {
    pub(super) restored: Restored,
    /// Dictionary entries in the log.
    pub(super) entry_count: usize,
    /// The snapshot everything started from: its epoch and size in bytes.
    pub(super) snapshot: Option<(Epoch, u64)>,
    /// Snapshots that failed their checks.
    pub(super) unusable: Vec<Epoch>,
    /// Bytes of the log that were read behind the snapshot.
    pub(super) log_bytes: u64,
    /// The last segment: its first epoch, and its bytes up to the last whole epoch (none: nothing
    /// in it).
    pub(super) end: Option<(Epoch, Option<u64>)>,
}

/// Reads the files of `pipeline`, changing nothing.
pub(super) fn recover(
    directory: &Directory,
    listing: &Listing,
    pipeline: u128,
    published: Option<Epoch>,
    schema: &Schema,
) -> Result<Recovered> {
    let files = Files { directory, listing, pipeline, schema };
    if listing.segments.is_empty() && listing.snapshots.is_empty() {
        let fold = Fold::new(Stored::default(), None, schema);
        return Ok(fold.finish(Agreement::Fresh, schema, Vec::new()));
    }
    let mut snapshots = Snapshots::default();
    let start = files.start(published, &mut snapshots)?;
    let mut too_new = start.too_new;
    let mut fold = files.fold(start, published)?;
    // A part of the log is lost, and a snapshot knows what was in it.
    let newer = listing.snapshots.iter().rev().filter(|epoch| **epoch > fold.last);
    if let Some(stored) = files.first_usable(newer, &mut snapshots)? {
        too_new = true;
        fold = files.fold(Start { stored, too_new }, published)?;
    }
    // Only what the tables show becomes a snapshot.
    let is_ahead = too_new && published.is_some_and(|published| published < fold.stored.epoch);
    let agreement = fold.agreement(published, too_new);
    let mut recovered = fold.finish(agreement, schema, snapshots.warnings);
    recovered.restored.is_ahead = is_ahead;
    recovered.unusable = snapshots.unusable;
    Ok(recovered)
}

struct Files<'a> {
    directory: &'a Directory,
    listing: &'a Listing,
    pipeline: u128,
    schema: &'a Schema,
}

/// Where reading starts.
struct Start {
    stored: Stored,
    /// Whether it is newer than the tables, so that there is nothing to agree with.
    too_new: bool,
}

/// What was found out about snapshots that cannot be used.
#[derive(Default)]
struct Snapshots {
    unusable: Vec<Epoch>,
    warnings: Vec<String>,
}

impl Files<'_> {
    /// The newest snapshot that is not newer than the tables; the whole log; or any snapshot.
    fn start(&self, published: Option<Epoch>, snapshots: &mut Snapshots) -> Result<Start> {
        let (older, newer): (Vec<_>, Vec<_>) = self
            .listing
            .snapshots
            .iter()
            .rev()
            .partition(|epoch| published.is_some_and(|published| **epoch <= published));
        if let Some(stored) = self.first_usable(older, snapshots)? {
            return Ok(Start { stored, too_new: false });
        }
        // A damaged beginning of the log only matters when no snapshot can stand for it.
        let whole = match self.log_is_whole() {
            Err(error) if error.kind() != Kind::DataDiffers => return Err(error),
            whole => whole,
        };
        if published.is_some() && matches!(whole, Ok(true)) {
            return Ok(Start { stored: Stored::default(), too_new: false });
        }
        if let Some(stored) = self.first_usable(newer, snapshots)? {
            return Ok(Start { stored, too_new: true });
        }
        if whole? {
            return Ok(Start { stored: Stored::default(), too_new: true });
        }
        let found = match snapshots.warnings.join("; ") {
            none if none.is_empty() => "there is none".to_owned(),
            found => found,
        };
        let doing = format!("restoring the state: no snapshot can be used: {found}");
        Err(Error::new(Kind::DataDiffers, doing).advise(REBUILD))
    }

    /// The first snapshot that is not damaged.
    ///
    /// Only damage is passed over: a disk that does not answer and a key that is missing say nothing
    /// against a file, and going on without it could end in removing it.
    fn first_usable<'e>(
        &self,
        epochs: impl IntoIterator<Item = &'e Epoch>,
        snapshots: &mut Snapshots,
    ) -> Result<Option<Stored>> {
        for &epoch in epochs {
            if snapshots.unusable.contains(&epoch) {
                continue;
            }
            match snapshot::read(self.directory, epoch, self.pipeline, self.schema) {
                Ok(stored) => return Ok(Some(stored)),
                Err(error) if error.kind() == Kind::DataDiffers => {
                    let warning = format!("{} was not used: {error}", snapshot_name(epoch));
                    snapshots.warnings.push(warning);
                    snapshots.unusable.push(epoch);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The snapshot and everything after it.
    fn fold(&self, start: Start, published: Option<Epoch>) -> Result<Fold> {
        let base = published.filter(|_| !start.too_new);
        let mut fold = Fold::new(start.stored, base, self.schema);
        self.walk(&mut fold)?;
        Ok(fold)
    }

    /// Whether the log begins with the first epoch there ever was.
    fn log_is_whole(&self) -> Result<bool> {
        let Some(first) = self.listing.segments.first() else { return Ok(false) };
        Ok(self.open(*first)?.head().previous == Epoch(0))
    }

    fn open(&self, first: Epoch) -> Result<SegmentReader> {
        SegmentReader::open(self.directory, first, self.pipeline, self.schema)
    }

    /// Which segments can hold epochs after `start`: the last one that goes on from it or before,
    /// and all behind.
    fn segments_after(&self, start: Epoch) -> Result<&[Epoch]> {
        let segments = &self.listing.segments[..];
        let mut oldest = None;
        for (index, first) in segments.iter().enumerate().rev() {
            let segment = self.open(*first)?;
            let previous = segment.head().previous;
            if previous <= start {
                return Ok(&segments[index..]);
            }
            oldest = Some((segment.name, previous));
        }
        match oldest {
            None => Ok(&[]),
            Some((name, previous)) => Err(missing(start, &name, previous)),
        }
    }

    /// Takes every epoch after the snapshot.
    fn walk(&self, fold: &mut Fold) -> Result<()> {
        let start = fold.last;
        let segments = self.segments_after(start)?;
        // The last epoch of the segment before; before the first one, whatever it says.
        let mut chained: Option<Epoch> = None;
        for first in segments {
            let mut segment = self.open(*first)?;
            let is_last = segments.last() == Some(first);
            let previous = segment.head().previous;
            if let Some(chained) = chained
                && chained != previous
            {
                return Err(missing(chained, &segment.name, previous));
            }
            self.take(&mut segment, fold, start, is_last)?;
            chained = Some(segment.last().unwrap_or(previous));
            if is_last {
                fold.end = Some((*first, segment.last().map(|_| segment.good_bytes())));
            }
        }
        Ok(())
    }

    fn take(
        &self,
        segment: &mut SegmentReader,
        fold: &mut Fold,
        start: Epoch,
        is_last: bool,
    ) -> Result<()> {
        let name = segment.name.clone();
        let damaged = |at, what: &'static str| self.directory.damaged(&name, Damage::new(at, what));
        if segment.head().entry_count > fold.stored.dictionary.entry_count() as u64 {
            return Err(damaged(0, "dictionary entries are missing before it"));
        }
        fold.entry_count = fold.entry_count.max(segment.head().entry_count as usize);
        loop {
            match segment.next(self.directory)? {
                Next::Epoch(logging) => {
                    for (first, entries) in logging.entries {
                        let end = first.saturating_add(entries.len() as u64) as usize;
                        snapshot::extend(&mut fold.stored.dictionary, first, entries)
                            .map_err(|what| damaged(segment.good_bytes(), what))?;
                        fold.entry_count = fold.entry_count.max(end);
                    }
                    if logging.input.epoch > start {
                        fold.take(logging.input);
                    }
                }
                Next::End => break,
                Next::Torn(Damage { at, what }) if is_last => {
                    let after = segment.last().unwrap_or(segment.head().previous);
                    fold.warnings.push(format!(
                        "{name} was cut after epoch {after}, byte {}: byte {at}: {what}",
                        segment.good_bytes()
                    ));
                    break;
                }
                Next::Torn(damage) => return Err(self.directory.damaged(&name, damage)),
            }
        }
        if segment.last().is_some_and(|last| last > start) {
            fold.schema = Some(segment.head().schema.clone());
        }
        fold.log_bytes += segment.good_bytes();
        Ok(())
    }
}

fn missing(after: Epoch, name: &str, previous: Epoch) -> Error {
    let doing = format!(
        "restoring the state: a part of the log is missing: {name} goes on after epoch {previous}, \
         what comes before it ends with epoch {after}"
    );
    Error::new(Kind::DataDiffers, doing).advise(REBUILD)
}

/// A snapshot and the epochs behind it, becoming one.
struct Fold {
    /// As of the snapshot; its places, clock and dictionary move on with each epoch.
    stored: Stored,
    /// What changed in the records since.
    changed: HashMap<RecordKey, Option<Case>>,
    /// Cursors as of the last epoch.
    cursors: BTreeMap<Code, Cursor>,
    /// Epochs after this one go to the tail; none: all are folded.
    base: Option<Epoch>,
    /// Whether the epoch `base` was seen.
    base_seen: bool,
    tail: Vec<EpochInput>,
    last: Epoch,
    /// Schema of the newest file.
    schema: Option<Schema>,
    entry_count: usize,
    log_bytes: u64,
    end: Option<(Epoch, Option<u64>)>,
    warnings: Vec<String>,
}

impl Fold {
    fn new(mut stored: Stored, base: Option<Epoch>, schema: &Schema) -> Self {
        let cursors = std::mem::take(&mut stored.cursors);
        if stored.schema.as_ref() != Some(schema) {
            stored.sums = None; // of other fields
        }
        Self {
            changed: HashMap::new(),
            cursors,
            base,
            base_seen: base == Some(stored.epoch),
            tail: Vec::new(),
            last: stored.epoch,
            schema: Some(stored.schema.take().unwrap_or_else(|| schema.clone())),
            // A compacted state may have no log.
            entry_count: stored.dictionary.entry_count(),
            log_bytes: 0,
            end: None,
            warnings: Vec::new(),
            stored,
        }
    }

    fn take(&mut self, input: EpochInput) {
        self.last = input.epoch;
        for arrival in &input.arrivals {
            self.cursors.insert(arrival.instance, arrival.cursor.clone());
        }
        self.base_seen |= self.base == Some(input.epoch);
        if self.base.is_some_and(|base| input.epoch > base) {
            self.tail.push(input);
        } else {
            self.apply(input);
        }
    }

    /// What an epoch does: deferred changes wait, released ones become visible, then the others
    /// hold.
    fn apply(&mut self, input: EpochInput) {
        let (deferred, visible): (Vec<_>, Vec<_>) =
            input.arrivals.into_iter().partition(|arrival| arrival.deferred);
        for arrival in deferred.into_iter().filter(|arrival| !arrival.changes.is_empty()) {
            self.stored.deferred.entry(arrival.instance).or_default().extend(arrival.changes);
        }
        let released = input.released.iter().filter_map(|i| self.stored.deferred.remove(i));
        let changes = released.chain(visible.into_iter().map(|arrival| arrival.changes));
        self.changed.extend(changes.flatten().map(|change| (change.key, change.case)));
        self.stored.today = input.today.or(self.stored.today);
        self.stored.locations.extend(input.locations);
    }

    /// Compares with the tables; folds the tail too when they do not fit.
    fn agreement(&mut self, published: Option<Epoch>, too_new: bool) -> Agreement {
        let last = self.last;
        if last == Epoch(0) {
            return Agreement::Fresh;
        }
        let why = match published {
            None => format!("the tables hold no epoch, the state ends with epoch {last}"),
            Some(published) if too_new => {
                format!("the tables show epoch {published}, the state does not go back so far")
            }
            Some(_) if self.base_seen => return Agreement::Agrees,
            Some(published) if published > last => {
                format!("the tables show epoch {published}, the state ends with epoch {last}")
            }
            Some(published) => {
                format!("the tables show epoch {published}, which the state never had")
            }
        };
        for input in std::mem::take(&mut self.tail) {
            self.apply(input);
        }
        Agreement::Reconcile { why }
    }

    fn finish(self, agreement: Agreement, schema: &Schema, warnings: Vec<String>) -> Recovered {
        let newest = self.schema.as_ref().unwrap_or(schema);
        let base = match agreement {
            Agreement::Agrees => self.base.unwrap_or(self.last),
            Agreement::Fresh | Agreement::Reconcile { .. } => self.last,
        };
        let mut sums = self.stored.sums;
        let before = sums.as_mut().map(|sums| &mut sums.before);
        let restored = Restored {
            cursors: self.cursors,
            today: self.stored.today,
            locations: self.stored.locations,
            records: merged(self.stored.records, self.changed, before),
            sums,
            deferred: self.stored.deferred,
            base,
            tail: self.tail,
            last: self.last,
            agreement,
            is_ahead: false,
            schema_changed: newest != schema,
            new_fields: translation::new_fields(newest, schema),
            warnings: warnings.into_iter().chain(self.warnings).collect(),
            dictionary: self.stored.dictionary,
        };
        Recovered {
            restored,
            entry_count: self.entry_count,
            snapshot: (self.stored.bytes > 0).then_some((self.stored.epoch, self.stored.bytes)),
            unusable: Vec::new(),
            log_bytes: self.log_bytes,
            end: self.end,
        }
    }
}

/// Records that are ascending by key, with `changed` put into them; those that were there `before` are kept.
fn merged(
    records: Vec<(RecordKey, Case)>,
    changed: HashMap<RecordKey, Option<Case>>,
    mut before: Option<&mut Vec<(RecordKey, Option<Case>)>>,
) -> Vec<(RecordKey, Case)> {
    if changed.is_empty() {
        return records;
    }
    let mut changed: Vec<_> = changed.into_iter().collect();
    changed.sort_unstable_by_key(|(key, _)| *key);
    let mut all = Vec::with_capacity(records.len() + changed.len());
    let mut records = records.into_iter().peekable();
    for (key, case) in changed {
        while let Some(record) = records.next_if(|(other, _)| *other < key) {
            all.push(record);
        }
        let was = records.next_if(|(same, _)| *same == key).map(|(_, case)| case);
        if let Some(before) = &mut before {
            before.push((key, was));
        }
        all.extend(case.map(|case| (key, case)));
    }
    all.extend(records);
    all
}
