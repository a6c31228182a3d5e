//! What it costs to be durable: the log for each epoch, and snapshots.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tonle::model::{
    Arrival, Case, Domain, Durable, Epoch, EpochInput, Interner, RecordKey, Schema, Secret,
    SharedMap,
};
use tonle::state::{Settings, SnapshotContent, State, StateKey};

use crate::row;
use crate::steady::{Editor, spread};

/// Epochs of one case that are appended, each synced before the next.
const APPENDS: usize = 300;
/// Time between two looks at a snapshot that is being written.
const LOOK: Duration = Duration::from_millis(1);

/// Records in a state of their own, to be written again and again.
struct Written {
    state: State,
    epoch: Epoch,
    records: SharedMap<RecordKey, Case>,
    dictionary: Interner,
}

impl Written {
    fn new(settings: &Settings, schema: &Schema, records: SharedMap<RecordKey, Case>) -> Self {
        let mut state = State::open(settings).expect("the directory is new");
        state.restore(None, schema).expect("there is nothing to restore");
        let dictionary = Interner::default();
        dictionary.intern(Domain::Instance, "bench").expect("a term");
        Self { state, epoch: Epoch(0), records, dictionary }
    }

    /// An epoch, appended and on disk.
    fn append(&mut self, arrivals: Vec<Arrival>) {
        self.epoch = self.epoch.next();
        let input = EpochInput { epoch: self.epoch, arrivals, ..EpochInput::default() };
        let pending = self.state.append(&input, &self.dictionary).expect("the disk has room");
        let logged = pending.wait().expect("it is synced");
        self.state.commit(Durable::after_commit(logged.epoch())).expect("it is known");
    }

    /// Seconds of a snapshot of everything, and its bytes.
    fn snapshot(&mut self) -> (f64, u64) {
        self.append(Vec::new());
        let content = SnapshotContent {
            epoch: self.epoch,
            records: self.records.clone(),
            cursors: BTreeMap::new(),
            dictionary: self.dictionary.clone(),
            ..SnapshotContent::default()
        };
        let begun = Instant::now();
        self.state.snapshot(content).expect("the epoch is committed");
        loop {
            if let Some(finished) = self.state.snapshot_finished() {
                let bytes = finished.expect("the disk has room").bytes;
                return (begun.elapsed().as_secs_f64(), bytes);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Log and snapshots, plain and sealed, each beside its floor.
pub(crate) fn measure(editor: &mut Editor) {
    for sealed in [false, true] {
        let directory = tempfile::tempdir().expect("there is room");
        let mut settings = Settings::new(directory.path()).expect("it has a name");
        if sealed {
            let key = StateKey::from_secret(&Secret::new("0f".repeat(32))).expect("it is a key");
            settings = settings.with_keys(Some(key), Vec::new()).expect("one key");
        }
        let records = editor.restored.records.iter().cloned().collect();
        let how = if sealed { ", sealed" } else { "" };
        let mut written = Written::new(&settings, editor.schema(), records);
        let mut times = Vec::new();
        for _ in 0..APPENDS {
            let arrival = editor.arrival(1);
            let begun = Instant::now();
            written.append(vec![arrival]);
            times.push(begun.elapsed());
        }
        let floor = spread(&mut syncs(directory.path(), 300));
        row(
            &format!("log: one case appended and synced{how}"),
            &spread(&mut times),
            &format!("{floor} appending 300 bytes and `fdatasync`"),
        );
        let (seconds, bytes) = written.snapshot();
        let floor = whole(directory.path(), bytes);
        let megabytes = bytes as f64 / 1e6;
        row(
            &format!("snapshot on a thread of its own{how}"),
            &format!("{seconds:.2} s"),
            &format!("{floor:.2} s writing and syncing the {megabytes:.0} MB"),
        );
    }
}

/// Times of appending so many bytes to a file and syncing it.
fn syncs(directory: &Path, bytes: usize) -> Vec<Duration> {
    let mut file = File::create(directory.join("floor")).expect("there is room");
    let content = vec![7; bytes];
    let once = |_| {
        let begun = Instant::now();
        file.write_all(&content).expect("there is room");
        file.sync_data().expect("it is synced");
        begun.elapsed()
    };
    (0..APPENDS).map(once).collect()
}

/// Seconds of writing so many bytes and syncing them.
fn whole(directory: &Path, bytes: u64) -> f64 {
    let content = vec![7; usize::try_from(bytes).expect("it fits")];
    let begun = Instant::now();
    let mut file = File::create(directory.join("floor")).expect("there is room");
    file.write_all(&content).expect("there is room");
    file.sync_all().expect("it is synced");
    begun.elapsed().as_secs_f64()
}
