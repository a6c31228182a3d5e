//! A pipeline that runs: how long a restart takes, and how long from changed cases to committed rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;
use tonle::dataflow::{Dataflow, Input};
use tonle::indicator::schema_of;
use tonle::model::{
    Arrival, Case, Code, Cursor, Domain, Interner, LocationTree, RecordChange, RecordKey, Schema,
    Slot,
};
use tonle::pipeline::{Options, Pipeline, Progress, compile};
use tonle::report::Metrics;
use tonle::state::{Restored, State};

use crate::world::{World, directory_bytes};
use crate::{durable, floors, row};

/// Changed cases in an epoch, and how many epochs are measured.
const SIZES: [(usize, usize); 3] = [(1, 300), (100, 60), (10_000, 7)];

pub(crate) fn measure(world: &World) {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let bare = runtime.block_on(floors::bare_commit(&world.postgres.url()));
    let mut editor = Editor::new(world);
    runtime.block_on(measure_epochs(world, &mut editor, bare));
    durable::measure(&mut editor);
    measure_dataflow(world, &mut editor);
}

async fn measure_epochs(world: &World, editor: &mut Editor, bare: Duration) {
    let config = world.config();
    let state = world.directory.path().join("state");
    let reading = floors::read_files(&state);
    let (_stop, stopped) = watch::channel(false);
    let (committed, rows) = std::sync::mpsc::channel();
    let options = Options {
        once: false,
        stop: stopped,
        metrics: Arc::new(Metrics::new(config.instance_names())),
        observe: Box::new(move |progress| {
            if let Progress::Committed { rows, cells, .. } = progress {
                committed.send((rows.total(), *cells)).ok();
            }
        }),
    };
    let begun = Instant::now();
    let mut pipeline = Pipeline::start(config, options).await.expect("it starts again");
    let restart = begun.elapsed().as_secs_f64();
    let megabytes = directory_bytes(&state) as f64 / 1e6;
    row(
        "restart, until the next epoch can be taken",
        &format!("{restart:.1} s"),
        &format!("{reading:.2} s reading the {megabytes:.0} MB of state"),
    );
    for (size, rounds) in SIZES {
        while rows.try_recv().is_ok() {}
        let (mut times, mut changed, mut cells) = (Vec::new(), 0, 0);
        let before = world.ask("SELECT max(epoch) FROM tonle.epochs");
        for _ in 0..rounds {
            let mut input = pipeline.next_input();
            input.arrivals.push(editor.arrival(size));
            let begun = Instant::now();
            pipeline.turn(input).await.expect("it is committed");
            times.push(begun.elapsed());
            let (total, cell_count) = rows.try_recv().unwrap_or_default();
            changed += total;
            cells += cell_count;
        }
        // What Postgres says it wrote: each written cell left a row in `changes`.
        let written = format!("SELECT count(*) FROM tonle.changes WHERE epoch > {before}");
        let written = world.ask(&written);
        row(
            &format!("{size} changed, handed over to committed"),
            &format!(
                "{}, {} rows; in all {cells} cells changed, {written} written",
                spread(&mut times),
                changed / rounds as u64
            ),
            &format!("{:.2} ms bare one-row commit", bare.as_secs_f64() * 1e3),
        );
    }
    measure_beside_snapshots(&mut pipeline, editor).await;
}

/// Epochs of one case while snapshots of the pipeline are written, one after the other. An epoch that a snapshot is
/// begun in front of has waited for that.
async fn measure_beside_snapshots(pipeline: &mut Pipeline<'_>, editor: &mut Editor) {
    let (mut times, mut begins) = (Vec::new(), Vec::new());
    for _ in 0..SIZES[0].1 * 3 {
        pipeline.keep_house().await.expect("what was written is kept");
        let arrival = editor.arrival(1);
        let begun = Instant::now();
        if pipeline.begin_snapshot().expect("the log can be ended") {
            begins.push(begun.elapsed());
        }
        let mut input = pipeline.next_input();
        input.arrivals.push(arrival);
        pipeline.turn(input).await.expect("it is committed");
        times.push(begun.elapsed());
    }
    let what = format!("1 changed, while snapshots are written ({})", begins.len());
    row(&what, &spread(&mut times), "the same without");
    row("beginning a snapshot, between two epochs", &spread(&mut begins), "");
}

/// The same changes through the dataflow alone.
fn measure_dataflow(world: &World, editor: &mut Editor) {
    let config = world.config();
    let interner = Interner::new(editor.restored.dictionary.clone());
    let mut tree = LocationTree::default();
    editor.restored.locations.values().for_each(|places| tree.extend(places.iter().cloned()));
    let plan = compile(&config, &tree, &interner).expect("it compiled before");
    let mut dataflow = Dataflow::start(plan, world.workers).expect("threads can be started");
    let record =
        |(key, case): &(RecordKey, Case)| RecordChange { key: *key, case: Some(case.clone()) };
    let changes: Vec<_> = editor.restored.records.iter().map(record).collect();
    let today = editor.restored.today;
    let begun = Instant::now();
    let loaded = dataflow.advance(Input { changes, today }).expect("it runs");
    let seconds = begun.elapsed().as_secs_f64();
    row("the dataflow alone: load", &format!("{seconds:.2} s, {} cells", loaded.cells.len()), "");
    for (size, rounds) in SIZES {
        let (mut times, mut cells) = (Vec::new(), 0);
        for _ in 0..rounds {
            let changes = editor.arrival(size).changes;
            let begun = Instant::now();
            let changed = dataflow.advance(Input { changes, today: None }).expect("it runs");
            times.push(begun.elapsed());
            cells += changed.cells.len() + changed.rows.len();
        }
        let what = format!("the dataflow alone: {size} changed");
        row(&what, &format!("{}, {} cells and rows", spread(&mut times), cells / rounds), "");
    }
}

pub(crate) fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let ms = |index: usize| times[index].as_secs_f64() * 1e3;
    format!("p50 {:.2} ms, p99 {:.2} ms", ms(times.len() / 2), ms(times.len() * 99 / 100))
}

/// What case workers edit most; a pack reads some of them.
const EDITED: [&str; 5] =
    ["location_current", "status", "risk_level", "date_case_plan", "assessment_requested_on"];

/// Edits as case workers make them: another district, status or risk, the date of a plan or an assessment.
pub(crate) struct Editor {
    pub(crate) restored: Restored,
    schema: Schema,
    options: BTreeMap<String, Vec<u32>>,
    places: Vec<u32>,
    days: Vec<u32>,
    rng: ChaCha8Rng,
}

impl Editor {
    pub(crate) fn new(world: &World) -> Self {
        let config = world.config();
        let schema = schema_of(&config.definition);
        let state = State::read_only(&config.state).expect("the first load made it");
        let epoch = world.ask("SELECT epoch FROM tonle.tonle_pipeline").parse().expect("a number");
        let restored =
            state.restore(Some(tonle::model::Epoch(epoch)), &schema).expect("it is whole");
        let code = |id: &String| restored.dictionary.code(Domain::Option, id).map(|code| code.0);
        let fields = config.definition.fields.iter();
        let options = fields
            .map(|(name, field)| (name.clone(), field.values.iter().filter_map(code).collect()))
            .collect();
        let districts = restored.locations.values().flatten().filter(|place| place.level == 2);
        let places = districts.map(|place| place.code.0).collect();
        let today = restored.today.expect("the first load has a tick").0;
        let days = (today - 700..today).collect();
        Self { schema, options, places, days, restored, rng: ChaCha8Rng::seed_from_u64(5) }
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(crate) fn arrival(&mut self, size: usize) -> Arrival {
        let cursor = Cursor { first_load_done: true, ..Cursor::default() };
        let changes: Vec<_> = (0..size).map(|_| self.edit()).collect();
        Arrival { instance: Code(1), cursor, deferred: false, is_backfill: false, changes }
    }

    fn edit(&mut self) -> RecordChange {
        let index = self.rng.random_range(0..self.restored.records.len());
        let (key, case) = self.restored.records[index].clone();
        let mut words = case.words().to_vec();
        let names: Vec<_> =
            EDITED.into_iter().filter(|name| self.schema.field(name).is_some()).collect();
        let name = *names.choose(&mut self.rng).expect("every pack has some of them");
        let ours = match name {
            "location_current" => &self.places,
            "status" | "risk_level" => &self.options[name],
            _ => &self.days,
        };
        if let Some(Slot::Word(word)) = self.schema.field(name).map(|field| field.slot) {
            words[usize::from(word)] = *ours.choose(&mut self.rng).expect("there are some");
        }
        let case = Case::from_words(&words, &self.schema).expect("the layout is the same");
        self.restored.records[index].1 = case.clone();
        RecordChange { key, case: Some(case) }
    }
}
