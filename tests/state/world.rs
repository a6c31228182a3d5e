//! A state that is written to, beside the truth about it, and histories for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tonle::error::Result;
use tonle::model::Secret;
use tonle::model::{
    Arrival, Backfill, Case, CaseBuilder, Code, Cursor, Day, Domain, Durable, Epoch, EpochInput,
    FieldType, Instant, Interner, Location, RecordChange, RecordKey, RowField, Schema, Subform,
};
use tonle::state::{
    Agreement, Pending, Restored, Settings, SnapshotContent, SnapshotWritten, State, StateKey,
};

use super::sums::{check_sums, sums_of};

pub(super) fn schema() -> Schema {
    let row = |name: &str, field_type| RowField { name: name.into(), field_type };
    Schema::new(
        [
            ("sex".into(), FieldType::Option),
            ("concerns".into(), FieldType::Options),
            ("age".into(), FieldType::Integer),
            ("registered".into(), FieldType::Date),
            ("consent".into(), FieldType::Boolean),
            ("closed".into(), FieldType::Datetime),
            ("born".into(), FieldType::BirthMonth),
            ("location".into(), FieldType::Location),
            ("agency".into(), FieldType::Agency),
        ],
        vec![Subform {
            name: "services".into(),
            fields: vec![row("type", FieldType::Option), row("done", FieldType::Date)],
        }],
    )
}

pub(super) fn key(key: u8) -> RecordKey {
    // Shards apart, and not in the order of their numbers.
    RecordKey(u128::from(key.wrapping_mul(101)) << 120 | u128::from(key))
}

/// A case whose every word follows from `content`.
pub(super) fn case(instance: Code, content: u16) -> Case {
    let schema = schema();
    let word = u32::from(content);
    let mut builder = CaseBuilder::new(&schema, instance);
    builder.put(schema.field("sex").unwrap().slot, word % 3);
    builder.put(schema.field("age").unwrap().slot, CaseBuilder::integer(i64::from(word) - 9));
    for (name, word) in [("consent", word % 2 + 1), ("location", word * 77), ("agency", 3)] {
        builder.put(schema.field(name).unwrap().slot, word);
    }
    for code in 1..word % 4 {
        builder.put(schema.field("concerns").unwrap().slot, code);
    }
    for row in 0..word % 3 {
        let key = RecordKey(u128::from(word) << 64 | u128::from(row));
        builder.row(&schema.subforms()[0], 0, key, &[row, 40_000 + word % 1000]);
    }
    builder.finish(&schema)
}

pub(super) fn place(code: u32, name: &str) -> Location {
    let names = BTreeMap::from([("km".to_owned(), name.to_owned())]);
    Location { code: Code(code), parent: None, level: 1, kind: "province".into(), names }
}

/// What the state is to give back as of an epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Contents {
    pub(super) records: BTreeMap<RecordKey, Case>,
    pub(super) deferred: BTreeMap<Code, Vec<RecordChange>>,
    pub(super) cursors: BTreeMap<Code, Cursor>,
    pub(super) today: Option<Day>,
    pub(super) locations: BTreeMap<Code, Vec<Location>>,
}

impl Contents {
    pub(super) fn apply(&mut self, input: &EpochInput) {
        for arrival in &input.arrivals {
            self.cursors.insert(arrival.instance, arrival.cursor.clone());
            if arrival.deferred && !arrival.changes.is_empty() {
                let waiting = self.deferred.entry(arrival.instance).or_default();
                waiting.extend(arrival.changes.clone());
            }
        }
        for instance in &input.released {
            for change in self.deferred.remove(instance).unwrap_or_default() {
                self.change(&change);
            }
        }
        for arrival in input.arrivals.iter().filter(|arrival| !arrival.deferred) {
            arrival.changes.iter().for_each(|change| self.change(change));
        }
        self.today = input.today.or(self.today);
        self.locations.extend(input.locations.iter().cloned());
    }

    pub(super) fn change(&mut self, change: &RecordChange) {
        match &change.case {
            Some(case) => self.records.insert(change.key, case.clone()),
            None => self.records.remove(&change.key),
        };
    }
}

/// One epoch of a history, and what happens around it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) instance: u8,
    pub(super) changes: Vec<(u8, Option<u16>)>,
    pub(super) deferred: bool,
    pub(super) release: bool,
    pub(super) today: Option<u32>,
    pub(super) places: bool,
    pub(super) term: bool,
    pub(super) gap: bool,
    pub(super) snapshot: bool,
    pub(super) restart: bool,
    pub(super) backfill: bool,
}

/// A state that is written to, and the truth about it.
pub(super) struct World {
    pub(super) directory: TempDir,
    pub(super) state: Option<State>,
    pub(super) dictionary: Interner,
    pub(super) inputs: Vec<EpochInput>,
    pub(super) truth: BTreeMap<Epoch, Contents>,
    pub(super) snapshots: Vec<Epoch>,
    pub(super) how: How,
    /// The last epoch that was acknowledged to be on disk.
    pub(super) durable: Epoch,
}

/// How the files of a directory are read and written.
pub(super) type How = fn(&Path) -> Settings;

pub(super) fn settings(directory: &Path) -> Settings {
    Settings::new(directory).unwrap().with_sizes(700, 0)
}

/// The key that begins with this byte and has its successors behind it.
pub(super) fn state_key(first: u8) -> StateKey {
    let digits: String = (0..32).map(|byte| format!("{:02x}", first.wrapping_add(byte))).collect();
    StateKey::from_secret(&Secret::new(digits)).unwrap()
}

/// The same with files sealed by the key 0, which is also that of the sealed samples.
pub(super) fn sealed(directory: &Path) -> Settings {
    settings(directory).with_keys(Some(state_key(0)), Vec::new()).unwrap()
}

impl World {
    pub(super) fn new() -> Self {
        Self::made(settings)
    }

    pub(super) fn made(how: How) -> Self {
        Self::unopened(how).opened()
    }

    pub(super) fn opened(mut self) -> Self {
        let mut state = State::open(&(self.how)(self.directory.path())).unwrap();
        assert_eq!(state.restore(None, &schema()).unwrap().agreement, Agreement::Fresh);
        self.state = Some(state);
        self
    }

    pub(super) fn unopened(how: How) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            state: None,
            dictionary: Interner::default(),
            inputs: Vec::new(),
            truth: BTreeMap::from([(Epoch(0), Contents::default())]),
            snapshots: Vec::new(),
            how,
            durable: Epoch(0),
        }
    }

    pub(super) fn last(&self) -> Epoch {
        *self.truth.last_key_value().unwrap().0
    }

    pub(super) fn contents(&self) -> &Contents {
        self.truth.last_key_value().unwrap().1
    }

    pub(super) fn step(&mut self, step: &Step) {
        let input = self.input(step);
        self.append(input);
        if step.snapshot {
            self.snapshot();
        }
        if step.restart {
            self.restart(Some(self.last()));
        }
    }

    /// What arrives with a step.
    pub(super) fn input(&mut self, step: &Step) -> EpochInput {
        let epoch = Epoch(self.last().0 + 1 + u64::from(step.gap));
        let instance = self.dictionary.intern(Domain::Instance, &format!("i{}", step.instance));
        let instance = instance.unwrap();
        if step.term {
            self.dictionary.intern(Domain::Option, &format!("option_{epoch}")).unwrap();
            self.dictionary.intern(Domain::Location, &format!("KH{epoch}")).unwrap();
        }
        let change = |(k, content): &(u8, Option<u16>)| RecordChange {
            key: key(*k),
            case: content.map(|content| case(instance, content)),
        };
        let cursor = Cursor {
            watermark: (!step.gap).then_some(Instant(1_700_000_000_000 + epoch.0 as i64)),
            files_done: epoch.0 as u32,
            file_offset: epoch.0 << 33,
            first_load_done: step.release,
            backfill: (step.backfill && !step.release).then(|| Backfill {
                fields: vec![format!("field_{epoch}")],
                watermark: step.term.then_some(Instant(epoch.0 as i64)),
            }),
        };
        let arrival = Arrival {
            instance,
            cursor,
            deferred: step.deferred,
            is_backfill: step.backfill,
            changes: step.changes.iter().map(change).collect(),
        };
        EpochInput {
            epoch,
            at: Instant(epoch.0 as i64 * 1000),
            arrivals: vec![arrival],
            released: step.release.then_some(instance).into_iter().collect(),
            today: step.today.map(Day),
            locations: if step.places {
                vec![(instance, vec![place(1, "ក"), place(2, &format!("p{epoch}"))])]
            } else {
                Vec::new()
            },
        }
    }

    pub(super) fn append(&mut self, input: EpochInput) {
        self.try_append(input).unwrap();
    }

    /// Whatever comes of it, the epoch may be in the files: it belongs to the truth.
    pub(super) fn try_append(&mut self, input: EpochInput) -> Result<()> {
        let pending = self.begin_append(input)?;
        self.end_append(pending)
    }

    /// The same, without waiting until it is on disk.
    pub(super) fn begin_append(&mut self, input: EpochInput) -> Result<Pending> {
        let state = self.state.as_mut().unwrap();
        let appended = state.append(&input, &self.dictionary);
        let mut contents = self.contents().clone();
        contents.apply(&input);
        self.truth.insert(input.epoch, contents);
        self.inputs.push(input);
        appended
    }

    pub(super) fn end_append(&mut self, pending: Pending) -> Result<()> {
        let epoch = pending.epoch();
        assert_eq!(pending.wait()?.epoch(), epoch);
        self.durable = epoch;
        self.state.as_mut().unwrap().commit(Durable::after_commit(epoch))
    }

    pub(super) fn snapshot(&mut self) {
        let written = self.try_snapshot().unwrap();
        assert_eq!(fs::metadata(self.newest("snap")).unwrap().len(), written.bytes);
    }

    pub(super) fn try_snapshot(&mut self) -> Result<SnapshotWritten> {
        self.begin_snapshot()?;
        self.end_snapshot()
    }

    pub(super) fn begin_snapshot(&mut self) -> Result<()> {
        let content = self.snapshot_content();
        self.state.as_mut().unwrap().snapshot(content)
    }

    /// Leaves one snapshot and nothing else, without the options that there were.
    pub(super) fn try_compact(&mut self) -> Result<SnapshotWritten> {
        let mut dictionary = self.dictionary.read(Clone::clone);
        assert!(dictionary.empty_unused(Domain::Option, |_| false) > 0);
        let dictionary = Interner::new(dictionary);
        let content = SnapshotContent { dictionary, ..self.snapshot_content() };
        self.state.as_mut().unwrap().compact(content)?;
        let written = self.end_snapshot()?;
        self.snapshots = vec![written.epoch];
        Ok(written)
    }

    fn snapshot_content(&self) -> SnapshotContent {
        let contents = self.contents().clone();
        SnapshotContent {
            epoch: self.last(),
            sums: Some(sums_of(&contents.records, contents.today)),
            records: contents.records.into_iter().rev().collect(),
            deferred: contents.deferred,
            cursors: contents.cursors,
            today: contents.today,
            locations: contents.locations,
            dictionary: self.dictionary.clone(),
        }
    }

    pub(super) fn end_snapshot(&mut self) -> Result<SnapshotWritten> {
        let state = self.state.as_mut().unwrap();
        let written = finished(state)?;
        self.snapshots.push(written.epoch);
        self.snapshots.dedup();
        Ok(written)
    }

    /// Drops everything and goes on from the files.
    pub(super) fn restart(&mut self, published: Option<Epoch>) {
        let settings = (self.how)(self.directory.path());
        self.try_restart(&settings, published).unwrap();
    }

    pub(super) fn try_restart(
        &mut self,
        settings: &Settings,
        published: Option<Epoch>,
    ) -> Result<Epoch> {
        self.state = None;
        let mut state = State::open(settings)?;
        let restored = state.restore(published, &schema())?;
        self.check(&restored, published);
        let last = restored.last;
        self.dictionary = Interner::new(restored.dictionary);
        self.state = Some(state);
        Ok(last)
    }

    /// Forgets what came after `epoch`, because it was lost.
    pub(super) fn forget_after(&mut self, epoch: Epoch) {
        self.truth.retain(|other, _| *other <= epoch);
        self.inputs.retain(|input| input.epoch <= epoch);
    }

    pub(super) fn newest(&self, extension: &str) -> PathBuf {
        files(self.directory.path(), extension).pop().unwrap()
    }

    /// Whatever a state says it restored is true; gives what it said.
    pub(super) fn check(&self, restored: &Restored, published: Option<Epoch>) {
        assert!(self.truth.contains_key(&restored.last), "epoch {} never was", restored.last);
        let base = match &restored.agreement {
            Agreement::Agrees => published.unwrap(),
            Agreement::Fresh => Epoch(0),
            Agreement::Reconcile { .. } => restored.last,
        };
        assert_eq!(restored.base, base);
        let truth = &self.truth[&base];
        assert!(restored.records.is_sorted_by(|a, b| a.0 < b.0));
        assert!(restored.records.is_sorted_by_key(|(key, _)| key.shard()));
        let contents = Contents {
            records: restored.records.iter().cloned().collect(),
            deferred: restored.deferred.clone(),
            cursors: self.truth[&restored.last].cursors.clone(),
            today: restored.today,
            locations: restored.locations.clone(),
        };
        assert_eq!(&contents, &Contents { cursors: contents.cursors.clone(), ..truth.clone() });
        assert_eq!(restored.cursors, self.truth[&restored.last].cursors);
        if let Some(summed) = &restored.sums {
            check_sums(summed, contents.records.clone());
        }
        let tail = |input: &&EpochInput| input.epoch > base && input.epoch <= restored.last;
        let tail: Vec<EpochInput> = self.inputs.iter().filter(tail).cloned().collect();
        assert_eq!(restored.tail, tail);
        assert!(!restored.schema_changed && restored.new_fields.is_empty());
        // Codes mean what they meant.
        let entries = self.dictionary.read(|dictionary| dictionary.entries_from(0));
        let read = restored.dictionary.entries_from(0);
        assert!(read.len() <= entries.len());
        for (read, entry) in read.iter().zip(&entries) {
            // Unless a compaction emptied it.
            let is_emptied = [read, entry].iter().any(|entry| entry.term.starts_with('∅'));
            assert!(
                read == entry || (is_emptied && read.domain == entry.domain),
                "{read:?} {entry:?}"
            );
        }
        for instance in restored.cursors.keys() {
            assert!(restored.dictionary.term(Domain::Instance, *instance).is_some());
        }
    }
}

/// The longest wait for a snapshot.
const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(60);

/// The snapshot that was begun, once it is done.
pub(super) fn finished(state: &mut State) -> Result<SnapshotWritten> {
    let begun = std::time::Instant::now();
    loop {
        if let Some(finished) = state.snapshot_finished() {
            return finished;
        }
        assert!(begun.elapsed() < SNAPSHOT_WAIT_MAX, "a snapshot ends");
        std::thread::yield_now();
    }
}

pub(super) fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

pub(super) fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

pub(super) fn step(seed: u16) -> Step {
    Step {
        instance: (seed % 2) as u8,
        changes: (0..seed % 5).map(|i| ((seed + i) as u8 % 9, (i != 3).then_some(seed))).collect(),
        deferred: seed % 4 == 1,
        release: seed % 8 == 5,
        today: (seed.is_multiple_of(3)).then_some(45_000 + u32::from(seed)),
        places: seed.is_multiple_of(7),
        term: seed.is_multiple_of(2),
        gap: seed % 5 == 4,
        snapshot: false,
        restart: false,
        backfill: false,
    }
}

/// Twelve epochs; with two snapshots when asked for.
pub(super) fn small_world(snapshots: bool) -> World {
    small_world_made(settings, snapshots)
}

pub(super) fn small_world_made(how: How, snapshots: bool) -> World {
    small_world_in(World::made(how), snapshots)
}

pub(super) fn small_world_in(mut world: World, snapshots: bool) -> World {
    for seed in 0..12 {
        world.step(&Step { snapshot: snapshots && matches!(seed, 4 | 8), ..step(seed) });
    }
    world
}

pub(super) fn view(directory: &Path, published: Option<Epoch>) -> Result<Restored> {
    view_with(&settings(directory), published)
}

pub(super) fn view_with(settings: &Settings, published: Option<Epoch>) -> Result<Restored> {
    State::read_only(settings)?.restore(published, &schema())
}

/// Where the frames of a file lie: from, to, and the first byte of the payload.
pub(super) fn frames(bytes: &[u8]) -> Vec<(usize, usize, u8)> {
    let mut frames = Vec::new();
    let mut at = 16;
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        frames.push((at, at + 8 + length, bytes[at + 8]));
        at += 8 + length;
    }
    frames
}
