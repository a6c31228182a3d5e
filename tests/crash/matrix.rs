//! The program dies at every step of its path, at the same one again, and while it recovers: afterwards everything is
//! as if nothing had happened.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tonle::crash::Step;
use tonle::sim::Sim;

use super::{Editor, Seed, assert_changes_are_a_chain};
use crate::support::program::{Program, Tables, assert_same_tables, cases_of_today, primero};

const SMALL: &str = include_str!("small.toml");

/// Bytes of a segment, and of log between two snapshots: so few that there are many files after a moment.
const FILE_BYTES: &str = "1500:3000";

/// Instances and how many cases each has at first.
pub(super) const INSTANCES: [(&str, u64); 2] = [("kampot", 50), ("takeo", 30)];

/// Cases of the instance that is read from a file, so many that their cells are copied.
const CASES_IN_FILE: u64 = 2_500;

/// Programs that die beside each other, each with its own servers and database.
const LANES: usize = 3;

/// Longest time until a running program passes a step, and time between two looks whether it has died there.
const REACHED_MAX: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What has to happen so that a step is passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Occasion {
    /// Nothing was ever started.
    First,
    /// The same, with a large file instead of servers.
    File,
    /// Any start while cases are edited.
    Start,
    /// A start behind a crash in the middle of a write to the log.
    Torn,
    /// A start behind a crash between the log and the tables.
    Behind,
    /// A case of an agency that was not known.
    Agency,
    /// A start with another indicator.
    Indicator,
    /// A start with a field that was never read.
    Field,
    /// A case that is deleted on its server.
    Gone,
    /// A run that ends by itself.
    End,
    /// The state is compacted while there is a snapshot and a log behind it.
    Compaction,
    /// A record is erased that nobody has: a tombstone is kept, and no row changes.
    Erasure,
}

fn occasion(step: Step) -> Occasion {
    use Step::*;
    match step {
        PipelineSynced | PipelineRenamed | KeySynced | KeyRenamed => Occasion::First,
        TablesMade | CellsCopied => Occasion::File,
        StateLocked | SchemaMade | SchemaCommitted | FenceClaimed | StateRead | StateRestored
        | FenceKept | ErasuresCompared | BaseComputed | ReplayEnded | SourcesStarted
        | ReplyRead | ReplyDecoded | BatchSent | PlacesSent | LabelsSent | EpochGathered
        | SegmentRolled | SegmentSynced | SegmentRenamed | LogHalfWritten | LogWritten
        | LogSynced | EpochAbsorbed | EpochComputed | EpochLogged | EpochBegun | EpochFenced
        | EpochWritten | EpochCommitted | EpochAcknowledged | SnapshotBegun
        | SnapshotHalfWritten | SnapshotWritten | SnapshotSynced | SnapshotRenamed
        | SnapshotPublished | SnapshotRemoved | SegmentRemoved => Occasion::Start,
        TailCut => Occasion::Torn,
        ReplayBegun => Occasion::Behind,
        RebuildBegun | RebuildComputed => Occasion::Agency,
        ReconcileBegun | ReconcileShaped | ReconcileCells | ReconcileRows | ReconcileFenced
        | ReconcileCommitted => Occasion::Indicator,
        DebtLogged => Occasion::Field,
        CensusTaken | DeparturesKept | DeparturesTold => Occasion::Gone,
        MeaningWritten | MeaningCommitted | StatusWritten | Ending | Ended => Occasion::End,
        CompactedSnapshotRemoved | CompactedSegmentRemoved | CompactedSynced | CompactedRenamed => {
            Occasion::Compaction
        }
        ErasedSynced | ErasedRenamed => Occasion::Erasure,
    }
}

/// The steps that every start passes before it reads anything.
const RECOVERY: &[Step] = &[
    Step::StateLocked,
    Step::SchemaMade,
    Step::SchemaCommitted,
    Step::FenceClaimed,
    Step::StateRead,
    Step::TailCut,
    Step::StateRestored,
    Step::FenceKept,
    Step::ErasuresCompared,
    Step::BaseComputed,
    Step::ReplayEnded,
    Step::SourcesStarted,
];

/// How thoroughly a program dies.
#[derive(Clone, Copy)]
struct Deaths {
    /// At the step itself, one after the other.
    at_step: usize,
    /// In the starts that follow, at steps drawn from [`RECOVERY`].
    recovering: usize,
    /// The step is passed up to so many times before, where it is passed often.
    passings: u32,
}

#[test]
fn a_program_that_dies_at_any_step_ends_with_the_same_tables() {
    run_matrix(Deaths { at_step: 1, recovering: 1, passings: 1 });
}

#[test]
#[ignore = "takes minutes: every step is died at again and again"]
fn a_program_that_dies_at_any_step_again_and_again_ends_with_the_same_tables() {
    run_matrix(Deaths { at_step: 2, recovering: 0, passings: 2 });
    run_matrix(Deaths { at_step: 2, recovering: 2, passings: 3 });
}

#[allow(clippy::print_stderr)]
fn run_matrix(deaths: Deaths) {
    let seed = Seed::drawn();
    let wanted = wanted();
    let steps = &wanted[..];
    let total: usize = thread::scope(|scope| {
        let lane = |index: usize| {
            let steps = steps.iter().copied().skip(index).step_by(LANES);
            let seed = seed.0 + index as u64;
            scope.spawn(move || {
                let mut lane = Lane::new(seed);
                steps.for_each(|step| lane.survive(step, deaths));
                lane.end()
            })
        };
        let lanes: Vec<_> = (0..LANES).map(lane).collect();
        let ended = lanes.into_iter().map(|lane| lane.join());
        ended.map(|died| died.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).sum()
    });
    eprintln!("{} steps, {total} deaths", steps.len());
    assert!(total >= steps.len() * (1 + deaths.recovering), "{total} deaths at {steps:?}");
}

/// All steps, or those that `TONLE_TEST_STEP` names, with commas between.
fn wanted() -> Vec<Step> {
    let Some(only) = std::env::var("TONLE_TEST_STEP").ok().filter(|only| !only.is_empty()) else {
        return Step::ALL.to_vec();
    };
    let step = |name: &str| {
        let found = Step::ALL.iter().find(|step| step.name() == name);
        *found.unwrap_or_else(|| panic!("TONLE_TEST_STEP: there is no step {name:?}"))
    };
    only.split(',').map(step).collect()
}

/// A program that goes on through one death after the other, and its servers.
struct Lane {
    /// None while it dies.
    program: Option<Program>,
    sims: Vec<Sim>,
    rng: ChaCha8Rng,
    /// Which variants of the packs were used, so that each start with other packs differs from the one before.
    packs: u32,
    agencies: u32,
    died: usize,
    /// Reads the same servers and never dies.
    undisturbed: Program,
}

impl Lane {
    fn new(seed: u64) -> Self {
        let sims: Vec<_> = INSTANCES
            .iter()
            .zip(seed..)
            .map(|((_, count), seed)| primero(cases_of_today(seed, *count)))
            .collect();
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let program = with_servers(put_small_pack(Program::new()), &sims);
        program.once(0);
        let undisturbed = with_servers(program.elsewhere(), &sims);
        Self { program: Some(program), sims, rng, packs: 0, agencies: 0, died: 0, undisturbed }
    }

    fn survive(&mut self, step: Step, deaths: Deaths) {
        match occasion(step) {
            Occasion::First => {
                let mut program =
                    with_servers(self.program.as_ref().unwrap().elsewhere(), &self.sims);
                self.die_and_compare(&mut program, step, deaths);
            }
            Occasion::File => {
                let mut program = self.program.as_ref().unwrap().elsewhere();
                self.fill_from_file(&mut program);
                self.die_and_compare(&mut program, step, deaths);
            }
            _ => {
                let mut program = self.program.take().unwrap();
                self.die_and_compare(&mut program, step, deaths);
                self.program = Some(program);
            }
        }
    }

    fn die_and_compare(&mut self, program: &mut Program, step: Step, deaths: Deaths) {
        let editor = Editor::slow(&self.sims);
        for again in 0..deaths.at_step {
            if again == 0 || is_passed_again(step) {
                self.prepare(program, step);
                self.die(program, step, deaths.passings);
            }
        }
        for _ in 0..deaths.recovering {
            let recovery = *RECOVERY.choose(&mut self.rng).unwrap();
            self.die(program, recovery, 1);
        }
        editor.stop();
        self.assert_undisturbed(program, step);
    }

    /// Brings about what the step needs.
    fn prepare(&mut self, program: &mut Program, step: Step) {
        match occasion(step) {
            Occasion::Torn => self.die(program, Step::LogHalfWritten, 1),
            Occasion::Behind => self.die(program, Step::EpochLogged, 1),
            Occasion::Agency => {
                let first = self.sims[0].cases().swap_remove(0);
                self.agencies += 1;
                let agency = json!({ "owned_by_agency_id": format!("agency_{}", self.agencies) });
                self.sims[0].patch(first["id"].as_str().unwrap(), agency).unwrap();
            }
            Occasion::Indicator => {
                self.packs += 1;
                put_pack(program, &indicator(self.packs));
            }
            Occasion::Field => {
                // Whatever was read for it is forgotten with a start that does not ask for it.
                put_pack(program, "");
                program.once(0);
                put_pack(program, FIELD);
            }
            Occasion::Gone => {
                let gone = self.sims[0].cases().swap_remove(0);
                assert!(self.sims[0].delete(gone["id"].as_str().unwrap()));
            }
            Occasion::Compaction => {
                self.level(program);
                let compacted = program.end(&["state", "compact"]);
                assert_eq!(compacted.code, 0, "{}", compacted.text);
                self.level(program);
            }
            Occasion::Erasure => self.level(program),
            Occasion::First | Occasion::File | Occasion::Start | Occasion::End => {}
        }
    }

    /// Brings the tables up to a new change, so that commands that want both level go on.
    fn level(&self, program: &Program) {
        self.sims[0].edit(1).unwrap();
        program.once(0);
    }

    /// Starts the program and expects it to die at the step.
    fn die(&mut self, program: &mut Program, step: Step, passings: u32) {
        let passing = match step {
            Step::SnapshotHalfWritten => 2,
            _ if is_passed_often(step) => self.rng.random_range(1..=passings),
            _ => 1,
        };
        let nobody = format!("00000000-0000-4000-8000-{:012x}", self.rng.random::<u32>());
        let arguments: &[&str] = match occasion(step) {
            Occasion::End => &["run", "--once"],
            Occasion::Compaction => &["state", "compact"],
            Occasion::Erasure => &["erase", "--instance", INSTANCES[0].0, "--record", &nobody],
            _ => &["run"],
        };
        let mut command = program.command(arguments);
        command.env("TONLE_CRASH", format!("{}:{passing}", step.name()));
        command.env("TONLE_FILE_BYTES", FILE_BYTES);
        program.spawn(command);
        let begun = Instant::now();
        while program.is_running() {
            let is_patient = begun.elapsed() < REACHED_MAX;
            assert!(is_patient, "{step:?} is not passed\n{}", program.last_of_log());
            thread::sleep(LOOK_INTERVAL);
        }
        let code = program.wait_for_end();
        assert_eq!(code, -9, "{step:?}, passing {passing}\n{}", program.last_of_log());
        self.died += 1;
    }

    /// Lets the program run to the end, and expects what one has that read the same and never died.
    fn assert_undisturbed(&self, program: &Program, step: Step) {
        let ending = program.end(&["run", "--once"]);
        assert_eq!(ending.code, 0, "{step:?}\n{}", ending.text);
        let found = program.verify();
        assert_eq!(found.code, 0, "{step:?}\n{}\n{}", found.text, program.last_of_log());
        assert_changes_are_a_chain(program);
        let mut fresh = None;
        if occasion(step) == Occasion::File {
            let other = fresh.insert(program.elsewhere());
            self.fill_from_file(other);
        }
        let other = fresh.as_ref().unwrap_or(&self.undisturbed);
        other.once(0);
        let (ours, theirs) = (shown(program), shown(other));
        let all = |rows| Tables::from([(step.name().to_owned(), rows)]);
        assert_same_tables(&all(ours), &all(theirs));
    }

    /// The program that never died has what one has that reads everything anew.
    fn end(self) -> usize {
        let fresh = with_servers(self.undisturbed.elsewhere(), &self.sims);
        self.undisturbed.once(0);
        fresh.once(0);
        assert_same_tables(&self.undisturbed.tables(), &fresh.tables());
        self.died
    }

    /// A file of many cases, of no agency, without places: its first epoch inserts them all.
    fn fill_from_file(&self, program: &mut Program) {
        let many = primero(cases_of_today(self.sims.len() as u64, CASES_IN_FILE));
        let mut text = String::new();
        for mut case in many.cases() {
            case["owned_by_agency_id"] = Value::Null;
            writeln!(text, "{case}").unwrap();
        }
        let path = program.path("cases.ndjson");
        fs::write(&path, text).unwrap();
        program.set_files("register", &[&path], None);
    }
}

/// Whether a step is passed by a start that follows a death at it.
fn is_passed_again(step: Step) -> bool {
    !matches!(step, Step::PipelineRenamed | Step::KeyRenamed | Step::TablesMade | Step::CellsCopied)
}

/// Whether a running program passes a step time and again.
fn is_passed_often(step: Step) -> bool {
    (Step::ReplyRead..=Step::EpochAcknowledged).contains(&step)
        && occasion(step) == Occasion::Start
        && !matches!(step, Step::PlacesSent | Step::LabelsSent)
}

pub(super) fn with_servers(program: Program, sims: &[Sim]) -> Program {
    let pairs = INSTANCES.iter().zip(sims);
    pairs.fold(program, |program, ((name, _), sim)| {
        program.server_with(name, sim, "page_size = 40\ncensus_seconds = 1")
    })
}

/// The program with the small pack alone.
pub(super) fn put_small_pack(mut program: Program) -> Program {
    put_pack(&mut program, "");
    program
}

/// The small pack alone, with something more.
fn put_pack(program: &mut Program, more: &str) {
    let path = program.path("small.toml");
    fs::write(&path, format!("{SMALL}{more}")).unwrap();
    program.set(&format!("packs = [{:?}]", path.display().to_string()));
}

/// An indicator with a column of its own.
fn indicator(number: u32) -> String {
    format!(
        r#"
[dimensions.age_{number}]
title = {{ en = "Age" }}
from = "age"
bands = ["0-{number}", "{}+"]

[indicators.S-02]
title = {{ en = "New cases by age" }}
definition = {{ en = "Cases by date of registration." }}
count = "cases"
population = "strict"
placed = {{ flow = "registration_date" }}
periods = ["month"]
tables = [[], ["age_{number}"]]
"#,
        number + 1
    )
}

/// A field that the small pack does not read.
const FIELD: &str = by_nationality!();

/// The sorted rows of all tables, without what tells when a row was written.
///
/// Of `changes` nothing is compared: how many epochs there were is the business of each program. That it is a chain
/// which begins with nothing and ends with what `indicator_values` shows is looked at for each program by itself, so
/// the first and the last value of each cell are the same in both where these tables are.
fn shown(program: &Program) -> Vec<String> {
    let plain = ["indicator_values", "cases", "services", "indicators", "locations", "dimensions"];
    let plain = plain.map(|table| {
        format!(
            "SELECT '{table}', (to_jsonb(t) - '{{epoch,updated_at,revision}}'::text[])::text
               FROM tonle.{table} t UNION ALL "
        )
    });
    let rows = program.query(plain.concat().trim_end().trim_end_matches("UNION ALL"));
    let mut rows: Vec<_> = rows.lines().map(str::to_owned).collect();
    rows.extend(status(program));
    rows.sort();
    rows
}

/// How current each instance is, without `updated_at`, which tells when that was written, `polled_at`, which is the
/// time of a request, `lag_seconds`, which follows from both, and without what one run counts of what it read itself:
/// `cases_refused`, `misfits`, `progress`. A server tells its time in whole seconds, and no cursor is after it: what
/// is below a second depends on when it was asked. A file has no cursor in time, and which of its changes was the
/// newest is known to the run alone that reads it.
pub(super) fn status(program: &Program) -> Vec<String> {
    let rows = program.query(
        "SELECT 'sync_status', (instance, state, date_trunc('second', cursor),
                                CASE WHEN cursor IS NOT NULL THEN newest_change END, cases_known,
                                backfill, last_error)::text
           FROM tonle.sync_status ORDER BY instance",
    );
    rows.lines().map(str::to_owned).collect()
}
