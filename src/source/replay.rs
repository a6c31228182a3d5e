//! Replays files of cases, one JSON object a line, through the decoder that reads replies.
//!
//! Blocks of some megabytes are cut at line ends and decoded by several threads at once, but handed
//! on in the order of the file, each with the cursor behind it. Memory is bounded by the blocks
//! under way.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::task::{JoinHandle, spawn_blocking};

use super::decode::{Decoded, Decoder};
use super::outlet::{Halt, Outlet};
use super::settings::FileSettings;
use super::{Event, places};
use crate::error::{Error, Kind, Result};
use crate::model::{Batch, Cursor, Instant, RecordChange, Refusal};

/// Bytes read at once; a batch holds the records of one block.
pub(super) const BLOCK_BYTES: u64 = 4 << 20;
/// Longest line, in bytes; a longer one is refused.
pub(super) const LINE_BYTES_MAX: usize = 16 << 20;
/// Longest file of locations, in bytes.
pub(super) const LOCATIONS_BYTES_MAX: u64 = 64 << 20;

const TOO_LONG: &str = "its line is longer than 16 MiB";

/// The replay of one instance.
pub(super) struct Replay {
    pub(super) settings: FileSettings,
    pub(super) decoder: Decoder,
    pub(super) cursor: Cursor,
    pub(super) poll_interval: Duration,
    pub(super) once: bool,
    pub(super) outlet: Outlet,
}

/// Whole lines of a file.
#[derive(Debug, Default)]
struct Block {
    bytes: Vec<u8>,
    /// Bytes of the file up to the end of these lines.
    end: u64,
    /// Lines in front of them that were too long.
    oversized: usize,
}

/// What a block gave.
struct DecodedBlock {
    changes: Vec<RecordChange>,
    refusals: Vec<Refusal>,
    misfits: BTreeMap<String, u64>,
    newest: Option<Instant>,
    end: u64,
}

/// Decoders that are free, each with its warm memory of terms.
type Pool = Arc<Mutex<Vec<Decoder>>>;

impl Replay {
    /// Replays what the cursor leaves, then ends, or goes on watching the last file.
    pub(super) async fn run(&mut self) -> Result<(), Halt> {
        if let Some(path) = self.settings.locations.clone() {
            let interner = self.decoder.interner().clone();
            let read = spawn_blocking(move || read_locations(&path, &interner));
            let places = self.outlet.until_stop(read).await?.map_err(lost)??;
            let instance = self.decoder.instance();
            self.outlet.send(Event::Locations { instance, places }).await?;
        }
        let pool = Pool::default();
        let mut newest = None;
        let mut seen = None;
        loop {
            self.read_on(&pool, &mut newest).await?;
            if seen.as_ref() != Some(&self.cursor) {
                self.caught_up(newest).await?;
                seen = Some(self.cursor.clone());
            }
            if self.once {
                return Ok(());
            }
            self.outlet.wait(self.poll_interval).await?;
        }
    }

    async fn caught_up(&mut self, newest: Option<Instant>) -> Result<(), Halt> {
        let instance = self.decoder.instance();
        let is_backfill = self.cursor.backfill.take().is_some();
        if is_backfill || !self.cursor.first_load_done {
            self.cursor.first_load_done = true;
            let (changes, refusals, misfits) = Default::default();
            let cursor = self.cursor.clone();
            let batch = Batch { instance, changes, cursor, is_backfill, refusals, misfits };
            self.outlet.send(Event::Batch(batch)).await?;
        }
        self.outlet.send(Event::CaughtUp { instance, total: None, newest }).await
    }

    /// Reads from the cursor to the end of the last file.
    async fn read_on(&mut self, pool: &Pool, newest: &mut Option<Instant>) -> Result<(), Halt> {
        let paths = self.settings.paths.clone();
        let first = self.cursor.files_done as usize;
        if first >= paths.len() {
            return Err(Halt::Failed(
                Error::config(format!("replaying files: {first} were finished, fewer are named"))
                    .advise("name every file again, in the same order, and new ones after them"),
            ));
        }
        for (index, path) in paths.iter().enumerate().skip(first) {
            let is_last = index + 1 == paths.len();
            let complete = !is_last || self.once;
            self.read_file(path, complete, pool, newest).await?;
            if !is_last {
                self.cursor.files_done += 1;
                self.cursor.file_offset = 0;
            }
        }
        Ok(())
    }

    async fn read_file(
        &mut self,
        path: &Path,
        complete: bool,
        pool: &Pool,
        newest: &mut Option<Instant>,
    ) -> Result<(), Halt> {
        let (owned, offset) = (path.to_owned(), self.cursor.file_offset);
        let mut blocks =
            spawn_blocking(move || Blocks::open(owned, offset)).await.map_err(lost)??;
        let mut under_way: VecDeque<JoinHandle<DecodedBlock>> = VecDeque::new();
        let mut at_end = false;
        loop {
            while !at_end && under_way.len() <= self.settings.threads {
                let read = spawn_blocking(move || {
                    let block = blocks.next(complete);
                    (blocks, block)
                });
                let (back, block) = self.outlet.until_stop(read).await?.map_err(lost)?;
                blocks = back;
                let Some(block) = block? else {
                    at_end = true;
                    break;
                };
                let (pool, spare) = (Arc::clone(pool), self.decoder.clone());
                under_way.push_back(spawn_blocking(move || decode_in(&pool, spare, &block)));
            }
            let Some(next) = under_way.pop_front() else { return Ok(()) };
            let done = self.outlet.until_stop(next).await?.map_err(lost)?;
            *newest = (*newest).max(done.newest);
            self.hand_on(done).await?;
        }
    }

    async fn hand_on(&mut self, done: DecodedBlock) -> Result<(), Halt> {
        self.cursor.file_offset = done.end;
        let batch = Batch {
            instance: self.decoder.instance(),
            changes: done.changes,
            cursor: self.cursor.clone(),
            is_backfill: self.cursor.backfill.is_some(),
            refusals: done.refusals,
            misfits: done.misfits.into_iter().collect(),
        };
        self.outlet.send(Event::Batch(batch)).await
    }
}

/// A thread of ours ended without an answer. What it said when it panicked may hold data, so it is
/// not kept.
fn lost(_: tokio::task::JoinError) -> Error {
    Error::bug("replaying a file: a thread was lost")
}

fn read_locations(
    path: &Path,
    interner: &crate::model::Interner,
) -> Result<Vec<crate::model::Location>> {
    let doing = || format!("reading the locations in {}", path.display());
    let failed = |error: io::Error| Error::config(doing()).caused_by(error);
    let file = File::open(path).map_err(failed)?;
    let mut body = Vec::new();
    file.take(LOCATIONS_BYTES_MAX + 1).read_to_end(&mut body).map_err(failed)?;
    if body.len() as u64 > LOCATIONS_BYTES_MAX {
        return Err(Error::config(format!("{}: longer than 64 MiB", doing())));
    }
    let (places, _) = places::locations(&body, interner)
        .map_err(|_| Error::config(format!("{}: it is not a list of locations", doing())))?;
    Ok(places)
}

/// Cuts a file into blocks of whole lines.
struct Blocks {
    path: PathBuf,
    file: File,
    /// The begun line behind the last block.
    rest: Vec<u8>,
    /// Where `rest` begins in the file.
    offset: u64,
    /// Whether `rest` is the middle of a line that is too long.
    skipping: bool,
}

impl Blocks {
    fn open(path: PathBuf, offset: u64) -> Result<Self> {
        let failed = |error| Error::config(format!("opening {}", path.display())).caused_by(error);
        let mut file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length < offset {
            let doing = format!("replaying {}: it is shorter than what was read", path.display());
            return Err(Error::new(Kind::DataDiffers, doing).advise(
                "restore the file; later versions of cases belong at its end or in a new file",
            ));
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok(Self { path, file, rest: Vec::new(), offset, skipping: false })
    }

    /// The next lines; `None` at the end of what is there. A last line without an end is taken when
    /// the file is `complete` or when it is whole JSON; otherwise somebody may still be writing it.
    fn next(&mut self, complete: bool) -> Result<Option<Block>> {
        let mut oversized = 0;
        loop {
            let mut bytes = std::mem::take(&mut self.rest);
            let old = bytes.len();
            Read::take(&mut self.file, BLOCK_BYTES).read_to_end(&mut bytes).map_err(|error| {
                let doing = format!("reading {}", self.path.display());
                Error::new(Kind::Unavailable, doing).caused_by(error)
            })?;
            if bytes.len() == old {
                return Ok(self.tail(bytes, oversized, complete));
            }
            if self.skipping {
                let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                    self.offset += bytes.len() as u64;
                    continue;
                };
                bytes.drain(..=end);
                self.offset += end as u64 + 1;
                (self.skipping, oversized) = (false, oversized + 1);
            }
            if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
                self.rest = bytes.split_off(end + 1);
                self.offset += bytes.len() as u64;
                return Ok(Some(Block { bytes, end: self.offset, oversized }));
            }
            if bytes.len() > LINE_BYTES_MAX {
                self.offset += bytes.len() as u64;
                self.skipping = true;
            } else {
                self.rest = bytes;
            }
        }
    }

    fn tail(&mut self, bytes: Vec<u8>, oversized: usize, complete: bool) -> Option<Block> {
        let whole = complete || serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
        let cut = complete && std::mem::take(&mut self.skipping);
        let oversized = oversized + usize::from(cut);
        let bytes = if whole { bytes } else { Vec::new() };
        self.offset += bytes.len() as u64;
        let something = !bytes.is_empty() || oversized > 0;
        something.then_some(Block { bytes, end: self.offset, oversized })
    }
}

fn decode_in(pool: &Pool, spare: Decoder, block: &Block) -> DecodedBlock {
    let free = pool.lock().expect("no holder of the pool panics").pop();
    let mut decoder = free.unwrap_or(spare);
    let decoded = decode(&mut decoder, block);
    pool.lock().expect("no holder of the pool panics").push(decoder);
    decoded
}

fn decode(decoder: &mut Decoder, block: &Block) -> DecodedBlock {
    let mut done = DecodedBlock {
        changes: Vec::new(),
        refusals: vec![Refusal { key: None, reason: TOO_LONG }; block.oversized],
        misfits: BTreeMap::new(),
        newest: None,
        end: block.end,
    };
    for line in block.bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        if line.is_empty() {
            continue;
        }
        let Decoded { stamp, record } = decoder.record(line);
        match record {
            Ok(record) => {
                for index in record.misfits {
                    *done.misfits.entry(decoder.misfit_name(index).to_owned()).or_default() += 1;
                }
                done.newest = done.newest.max(stamp);
                done.changes.push(RecordChange { key: record.key, case: Some(record.case) });
            }
            Err(reason) => done.refusals.push(Refusal { key: None, reason }),
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::super::decode::tests::{CASES, decoder, schema};
    use super::super::{Resume, Settings, Shared, SourceKind, start};
    use super::*;
    use crate::model::{Interner, RecordType, Secret};

    const WAIT: Duration = Duration::from_secs(60);

    fn settings(paths: Vec<PathBuf>, threads: usize) -> Settings {
        Settings {
            name: "kampot".into(),
            published_as: "kampot".into(),
            record_type: RecordType::Case,
            incidents: None,
            time_zone: jiff::tz::TimeZone::get("Asia/Phnom_Penh").unwrap(),
            fiscal_year_start: 1,
            poll_interval: Duration::from_millis(20),
            kind: SourceKind::File(FileSettings { paths, locations: None, threads }),
        }
    }

    struct Running {
        events: tokio::sync::mpsc::Receiver<Event>,
        stop: tokio::sync::watch::Sender<bool>,
        shared: Shared,
    }

    fn run(settings: Settings, cursor: Cursor, once: bool) -> Running {
        let (sender, events) = tokio::sync::mpsc::channel(2);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let shared = Shared {
            schema: schema(),
            interner: Interner::default(),
            key: Secret::new("a key for tests only"),
            erased: super::super::Erased::new(&Secret::new("a key for tests only"), []).unwrap(),
            once,
            events: sender,
            stop: stopped,
        };
        start(settings, Resume { cursor, known: Vec::new() }, &shared).unwrap();
        Running { events, stop, shared }
    }

    impl Running {
        /// All batches up to the next time it is caught up.
        async fn batches(&mut self) -> Vec<Batch> {
            let mut batches = Vec::new();
            loop {
                match tokio::time::timeout(WAIT, self.events.recv()).await.unwrap().unwrap() {
                    Event::Batch(batch) => batches.push(batch),
                    Event::CaughtUp { .. } => return batches,
                    other => panic!("{other:?}"),
                }
            }
        }

        async fn end(mut self) -> Result<()> {
            loop {
                if let Event::Ended { result, .. } =
                    tokio::time::timeout(WAIT, self.events.recv()).await.unwrap().unwrap()
                {
                    return result;
                }
            }
        }
    }

    fn write(path: &Path, text: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(path, text).unwrap();
        path.to_owned()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn blocks_come_in_order_whoever_decodes_them() {
        let directory = tempfile::tempdir().unwrap();
        let many = write(&directory.path().join("a"), CASES.repeat(15));
        let few = write(&directory.path().join("b"), CASES);
        let mut running = run(settings(vec![many, few], 3), Cursor::default(), true);
        let batches = running.batches().await;
        let mut alone = decoder();
        let expected: Vec<_> = CASES
            .lines()
            .map(|line| alone.record(line.as_bytes()).record.ok().unwrap().key)
            .collect();
        let keys: Vec<_> =
            batches.iter().flat_map(|b| &b.changes).map(|change| change.key).collect();
        assert_eq!(keys, expected.repeat(16));
        assert!(batches.len() > 4, "one batch is one block");
        let last = batches.last().unwrap();
        assert!(last.cursor.first_load_done);
        assert_eq!((last.cursor.files_done, last.cursor.file_offset), (1, CASES.len() as u64));
        assert!(batches.iter().rev().skip(1).all(|batch| !batch.cursor.first_load_done));
        running.end().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_goes_on_where_a_cursor_stands() {
        let directory = tempfile::tempdir().unwrap();
        let path = write(&directory.path().join("a"), CASES.repeat(12));
        let all = run(settings(vec![path.clone()], 2), Cursor::default(), true).batches().await;
        for index in 0..all.len() {
            let mut rest = run(settings(vec![path.clone()], 2), all[index].cursor.clone(), true);
            let count: usize = rest.batches().await.iter().map(|batch| batch.changes.len()).sum();
            let left: usize = all[index + 1..].iter().map(|batch| batch.changes.len()).sum();
            assert_eq!(count, left);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_bad_line_is_a_refusal_and_the_rest_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let good: Vec<_> = CASES.lines().take(3).collect();
        let long =
            format!("{{\"name\":\"{}\"}}", "x".repeat(LINE_BYTES_MAX + 2 * BLOCK_BYTES as usize));
        let text = [good[0], "{\"id\":", "\r", good[1], &long, "[1]", good[2]].join("\n");
        let path = write(&directory.path().join("a"), text);
        let mut running = run(settings(vec![path], 2), Cursor::default(), true);
        let batches = running.batches().await;
        let count: usize = batches.iter().map(|batch| batch.changes.len()).sum();
        let mut reasons = HashMap::<_, usize>::new();
        for refusal in batches.iter().flat_map(|batch| &batch.refusals) {
            *reasons.entry(refusal.reason).or_default() += 1;
        }
        assert_eq!(count, 3);
        assert_eq!(reasons.get(TOO_LONG), Some(&1));
        assert_eq!(reasons.values().sum::<usize>(), 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn lines_that_are_added_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let lines: Vec<_> = CASES.lines().take(3).collect();
        let path = directory.path().join("a");
        write(&path, format!("{}\n{}", lines[0], &lines[1][..50]));
        let mut running = run(settings(vec![path.clone()], 2), Cursor::default(), false);
        let first = running.batches().await;
        assert_eq!(first.iter().map(|batch| batch.changes.len()).sum::<usize>(), 1);
        write(&path, lines.join("\n"));
        let mut found = 0;
        while found < 2 {
            found += running.batches().await.iter().map(|batch| batch.changes.len()).sum::<usize>();
        }
        running.stop.send(true).unwrap();
        assert_eq!((found, running.shared.once), (2, false));
        running.end().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_missing_or_shortened_file_is_a_clear_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let error = run(settings(vec![path.clone()], 1), Cursor::default(), true).end().await;
        assert_eq!(error.unwrap_err().kind(), Kind::Config);
        write(&path, "{}");
        let cursor = Cursor { file_offset: 100, ..Cursor::default() };
        let error = run(settings(vec![path], 1), cursor, true).end().await.unwrap_err();
        assert_eq!(error.kind(), Kind::DataDiffers);
        assert!(error.to_string().contains("shorter"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn locations_come_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = write(&directory.path().join("a"), CASES);
        let reply = json!({"data": [{"code": "99", "hierarchy": ["99"]}]}).to_string();
        let mut settings = settings(vec![path], 1);
        let SourceKind::File(files) = &mut settings.kind else { panic!() };
        files.locations = Some(write(&directory.path().join("l"), reply));
        let mut running = run(settings, Cursor::default(), true);
        let event = running.events.recv().await.unwrap();
        assert!(matches!(event, Event::Locations { places, .. } if places.len() == 1));
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "a measurement: run it alone, optimized"]
    async fn rates() {
        let directory = tempfile::tempdir().unwrap();
        let path = write(&directory.path().join("a"), CASES.repeat(300));
        for threads in [1, 2, 4] {
            let start = std::time::Instant::now();
            let mut running = run(settings(vec![path.clone()], threads), Cursor::default(), true);
            let mut count = 0;
            while let Some(Event::Batch(batch)) = running.events.recv().await {
                count += batch.changes.len();
            }
            let seconds = start.elapsed().as_secs_f64();
            println!("{threads} threads: {:.0} cases/s", count as f64 / seconds);
        }
    }
}
