//! Minutes of everything that can break, at random moments: the program, Postgres, and the lines between them.
//!
//! `make soak MINUTES=10 SEED=7` runs it; the seed decides what happens in which order, the machine how far the
//! program came by then.

use std::thread;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tonle::crash::Step;
use tonle::sim::Sim;

use super::matrix::status;
use super::{Editor, Seed, assert_changes_are_a_chain, late, recent, undisturbed};
use crate::support::line::Line;
use crate::support::postgres;
use crate::support::program::{Program, assert_same_tables, cases_of_today, primero};

/// Minutes without `TONLE_SOAK_MINUTES`.
const MINUTES: f64 = 1.0;

/// From so many minutes on every kind of disaster must have come about.
const MINUTES_FOR_ALL: f64 = 5.0;

/// Instances and how many cases each has at first.
const INSTANCES: [(&str, u64); 3] = [("kampot", 120), ("takeo", 80), ("kep", 1)];

/// What happens between two comparisons.
const DISASTERS: usize = 12;

/// Time that passes before and during a disaster, in milliseconds.
const MOMENT_MS: std::ops::Range<u64> = 20..1_500;

/// How the program may end by itself while what it needs is away: somebody starts it again.
const PASSING_CODES: [i32; 2] = [69, 75];

#[derive(Clone, Copy, Debug)]
enum Disaster {
    /// The program is killed.
    Kill,
    /// The program kills itself at a step.
    KillAtStep,
    /// The program is asked to end.
    Stop,
    /// Postgres is killed.
    KillPostgres,
    /// Postgres is stopped as an administrator does.
    StopPostgres,
    /// Postgres and the program are killed.
    KillBoth,
    /// The line to one instance is cut.
    CutInstance,
    /// The line to Postgres is cut.
    CutPostgres,
    /// All lines are cut.
    CutAll,
    /// All lines are cut, and the program is killed meanwhile.
    CutAndKill,
    /// The line to Postgres lets nothing through.
    SilencePostgres,
}

const ALL: [Disaster; 11] = [
    Disaster::Kill,
    Disaster::KillAtStep,
    Disaster::Stop,
    Disaster::KillPostgres,
    Disaster::StopPostgres,
    Disaster::KillBoth,
    Disaster::CutInstance,
    Disaster::CutPostgres,
    Disaster::CutAll,
    Disaster::CutAndKill,
    Disaster::SilencePostgres,
];

#[test]
#[ignore = "takes as many minutes as it is told"]
#[allow(clippy::print_stderr)]
fn nothing_is_lost_or_doubled_whatever_breaks() {
    let given = std::env::var("TONLE_SOAK_MINUTES").ok();
    let minutes = given.map_or(MINUTES, |minutes| minutes.parse().unwrap());
    let seed = Seed::drawn();
    let begun = Instant::now();
    let mut world = World::new(seed.0);
    while begun.elapsed() < Duration::from_secs_f64(minutes * 60.0) {
        world.endure();
        world.settle();
    }
    let (took, counts) = (begun.elapsed().as_secs(), &world.counts);
    assert!(counts.comparisons > 0 && counts.starts > counts.comparisons, "{counts:?}");
    if minutes >= MINUTES_FOR_ALL {
        let broken = [
            counts.kills,
            counts.kills_at_step,
            counts.stops,
            counts.postgres_kills,
            counts.postgres_stops,
            counts.cuts,
            counts.silences,
        ];
        assert!(!broken.contains(&0), "{counts:?}");
    }
    eprintln!("soak: seed {}, {took} s, {counts:?}", seed.0);
}

/// What was done, for the line at the end.
#[derive(Debug, Default)]
struct Counts {
    starts: u32,
    kills: u32,
    kills_at_step: u32,
    stops: u32,
    ended_by_itself: u32,
    postgres_kills: u32,
    postgres_stops: u32,
    cuts: u32,
    silences: u32,
    comparisons: u32,
}

struct World {
    program: Program,
    sims: Vec<Sim>,
    lines: Vec<Line>,
    to_postgres: Line,
    rng: ChaCha8Rng,
    counts: Counts,
}

impl World {
    fn new(seed: u64) -> Self {
        let sims: Vec<_> = INSTANCES
            .iter()
            .zip(seed..)
            .map(|((_, count), seed)| primero(late(cases_of_today(seed, *count))))
            .collect();
        let lines: Vec<_> =
            sims.iter().map(|sim| Line::to(sim.base_url().trim_start_matches("http://"))).collect();
        let mut program = recent(Program::with_own_postgres(postgres::durable()), None);
        let to_postgres = Line::to(&format!("127.0.0.1:{}", program.postgres().port()));
        for ((name, _), line) in INSTANCES.iter().zip(&lines) {
            let url = format!("http://{}", line.address());
            program = program.server_at(name, &url, "page_size = 40\ntimeout_seconds = 2");
        }
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { program, sims, lines, to_postgres, rng, counts: Counts::default() }
    }

    /// One disaster after the other, under live edits.
    fn endure(&mut self) {
        let editor = Editor::slow(&self.sims);
        for _ in 0..DISASTERS {
            let disaster = *ALL.choose(&mut self.rng).unwrap();
            if matches!(disaster, Disaster::KillAtStep) && self.program.is_running() {
                self.kill(); // only a start can be ordered to die at a step
            }
            self.keep_running(disaster);
            self.moment();
            self.bring_about(disaster);
        }
        editor.stop();
    }

    fn bring_about(&mut self, disaster: Disaster) {
        match disaster {
            Disaster::Kill => self.kill(),
            Disaster::KillAtStep => self.moment(),
            Disaster::Stop => {
                if self.program.is_running() {
                    let code = self.program.stop();
                    assert!(code == 0 || PASSING_CODES.contains(&code) || code == -9, "{code}");
                    self.counts.stops += 1;
                }
            }
            Disaster::KillPostgres | Disaster::StopPostgres => {
                self.end_postgres(matches!(disaster, Disaster::KillPostgres));
                self.moment();
                self.program.postgres().restart().unwrap();
            }
            Disaster::KillBoth => {
                self.end_postgres(true);
                self.kill();
                self.program.postgres().restart().unwrap();
            }
            Disaster::CutInstance => {
                let index = self.rng.random_range(0..self.lines.len());
                self.cut(&[index], false);
            }
            Disaster::CutPostgres => self.cut(&[], true),
            Disaster::CutAll | Disaster::CutAndKill => {
                let all: Vec<_> = (0..self.lines.len()).collect();
                if matches!(disaster, Disaster::CutAndKill) {
                    self.lines.iter().chain([&self.to_postgres]).for_each(Line::cut);
                    self.moment();
                    self.kill();
                    self.keep_running(disaster);
                }
                self.cut(&all, true);
            }
            Disaster::SilencePostgres => {
                self.to_postgres.silence();
                self.moment();
                self.to_postgres.mend();
                self.counts.silences += 1;
            }
        }
    }

    fn moment(&mut self) {
        thread::sleep(Duration::from_millis(self.rng.random_range(MOMENT_MS)));
    }

    fn kill(&mut self) {
        if self.program.is_running() {
            self.program.kill();
            self.counts.kills += 1;
        }
    }

    fn end_postgres(&mut self, crash: bool) {
        let cluster = self.program.postgres();
        if crash { cluster.kill() } else { cluster.stop() }.unwrap();
        let count =
            if crash { &mut self.counts.postgres_kills } else { &mut self.counts.postgres_stops };
        *count += 1;
    }

    fn cut(&mut self, instances: &[usize], postgres: bool) {
        instances.iter().for_each(|index| self.lines[*index].cut());
        if postgres {
            self.to_postgres.cut();
        }
        self.moment();
        self.lines.iter().chain([&self.to_postgres]).for_each(Line::mend);
        self.counts.cuts += 1;
    }

    /// Starts the program unless it runs; it may have ended by itself, for a reason that passes.
    fn keep_running(&mut self, disaster: Disaster) {
        if self.program.is_running() {
            return;
        }
        if self.program.was_started() {
            let code = self.program.wait_for_end();
            let log = self.program.last_of_log();
            assert!(PASSING_CODES.contains(&code) || code == -9, "it ended with {code}\n{log}");
            let count = if code == -9 {
                &mut self.counts.kills_at_step
            } else {
                &mut self.counts.ended_by_itself
            };
            *count += 1;
        }
        let workers = if self.rng.random_bool(0.5) { "1" } else { "2" };
        let mut command = self.program.command(&["run", "--workers", workers]);
        let port = format!(":{}/", self.program.postgres().port());
        let to_line = format!(":{}/", self.to_postgres.port());
        let url = self.program.url().replace(&port, &to_line);
        command.env("TONLE_DATABASE_URL", url).env("TONLE_FILE_BYTES", "20000:1");
        if matches!(disaster, Disaster::KillAtStep) {
            let (step, passing) =
                (*Step::ALL.choose(&mut self.rng).unwrap(), self.rng.random_range(1..4));
            command.env("TONLE_CRASH", format!("{}:{passing}", step.name()));
        }
        self.program.spawn(command);
        self.counts.starts += 1;
    }

    /// Lets the program come to rest, and compares what it has with what one has that read the same undisturbed.
    fn settle(&mut self) {
        self.kill(); // it may have an order to die
        self.keep_running(Disaster::Kill);
        self.sims.iter().for_each(|sim| sim.advance(Duration::from_secs(1)));
        for ((name, _), sim) in INSTANCES.iter().zip(&self.sims) {
            self.program.wait_for(name, sim);
        }
        assert_eq!(self.program.stop(), 0, "{}", self.program.last_of_log());
        self.program.once(0);
        self.program.assert_true_to_state();
        assert_changes_are_a_chain(&self.program);
        let other = undisturbed(&self.program, &self.sims);
        assert_same_tables(&self.program.tables(), &other.tables());
        assert_same_tables(&self.program.descriptions(), &other.descriptions());
        assert_eq!(status(&self.program), status(&other));
        self.counts.comparisons += 1;
    }
}
