//! What is measured: invented cases in a file, a private Postgres, a configuration, the real binary.

use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tonle::config::{Config, Overrides};
use tonle::indicator::{Definition, PackText, SHIPPED, schema_of};
use tonle::postgres::{PrivatePostgres, Settings};
use tonle::sim::{self, generator};

use crate::{floors, machine, row};

/// Five indicators by month: each case contributes to about five months, each contribution to four rows (province
/// and country; with and without sex and age), and again for `all`.
const FIVE: &str = include_str!("five.toml");
/// The first indicators of cp-core, which the full pack is compared with.
const FIRST: &str = include_str!("first.toml");
const FIVE_ROWS: &str = include_str!("five-rows.toml");

/// Which indicators are maintained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pack {
    Five,
    FiveRows,
    First,
    Core,
    CoreValues,
}

impl Pack {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Five => "five indicators, indicator table only",
            Self::FiveRows => "five indicators, cases and services tables too",
            Self::First => "the first nine indicators of cp-core, indicator table only",
            Self::Core => "cp-core as shipped",
            Self::CoreValues => "cp-core, indicator table only",
        }
    }

    pub(crate) fn is_core(self) -> bool {
        matches!(self, Self::Core | Self::CoreValues)
    }

    fn texts(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Five => vec![("five.toml", FIVE)],
            Self::FiveRows => vec![("five.toml", FIVE), ("five-rows.toml", FIVE_ROWS)],
            Self::First => vec![("first.toml", FIRST)],
            Self::Core => Vec::new(),
            Self::CoreValues => vec![("core.toml", values_of_core())],
        }
    }

    fn definition(self) -> Definition {
        let texts = match self {
            Self::Core => vec![PackText::shipped("cp-core").expect("it is shipped")],
            pack => {
                let own =
                    |(name, text): (&str, &str)| PackText { name: name.into(), text: text.into() };
                pack.texts().into_iter().map(own).collect()
            }
        };
        Definition::read(texts).expect("the packs of the benchmark are sound")
    }
}

/// The core pack up to its tables of rows, which are the last part of it.
fn values_of_core() -> &'static str {
    let (_, text) = SHIPPED.iter().find(|(id, _)| *id == "cp-core").expect("it is shipped");
    text.split_once("\n[extracts.").map_or(*text, |(values, _)| values)
}

pub(crate) struct World {
    pub(crate) cases: u64,
    pub(crate) workers: usize,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) postgres: PrivatePostgres,
    file: PathBuf,
}

impl World {
    pub(crate) fn new(pack: Pack, cases: u64, workers: usize) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let settings = sim::Settings { case_count: cases, dirt: false, ..sim::Settings::default() };
        let schema = schema_of(&pack.definition());
        let fields: Vec<&str> = schema.names().collect();
        let file = directory.path().join("cases.ndjson");
        let create = |path: &Path| BufWriter::new(File::create(path).expect("there is room"));
        generator::write_ndjson(&settings, Some(&fields), create(&file))
            .expect("cases are written");
        let places = directory.path().join("locations.json");
        generator::write_locations(create(&places)).expect("places are written");
        let postgres = PrivatePostgres::start(&Settings::default()).expect("Postgres starts");
        let world = Self { cases, workers, directory, postgres, file };
        world.write_configuration(pack);
        world
    }

    fn write_configuration(&self, pack: Pack) {
        let write = |name: &str, text: &str| {
            fs::write(self.directory.path().join(name), text).expect("there is room");
        };
        pack.texts().into_iter().for_each(|(name, text)| write(name, text));
        let names: Vec<_> = match pack {
            Pack::Core => vec!["cp-core"],
            pack => pack.texts().into_iter().map(|(name, _)| name).collect(),
        };
        write("pseudonym.key", "0123456789abcdef0123456789abcdef");
        let own = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.directory.path().join("pseudonym.key"), own).expect("it is ours");
        write(
            "tonle.toml",
            &format!(
                "packs = {names:?}\npseudonym_key_file = \"pseudonym.key\"\n\
                 time_zone = \"Asia/Phnom_Penh\"\n[database]\nurl = \"{}\"\n[[instances]]\n\
                 name = \"bench\"\ntime_zone = \"Asia/Phnom_Penh\"\nfiles = [\"cases.ndjson\"]\n\
                 locations = \"locations.json\"\n",
                self.postgres.url()
            ),
        );
    }

    pub(crate) fn config(&self) -> Config {
        let overrides = Overrides { workers: Some(self.workers), database_url: None };
        Config::read(&self.directory.path().join("tonle.toml"), &overrides).expect("it is sound")
    }

    /// One answer of Postgres, as text.
    pub(crate) fn ask(&self, sql: &str) -> String {
        let mut psql = self.postgres.client("psql", "tonle");
        let output = psql.args(["-XAtqc", sql]).output().expect("psql runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// From a file to committed tables, by the real binary.
    pub(crate) fn first_load(&self) {
        let child = Command::new(env!("CARGO_BIN_EXE_tonle"))
            .args(["run", "--once", "--workers", &self.workers.to_string(), "--config"])
            .arg(self.directory.path().join("tonle.toml"))
            .env("TONLE_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        let used = machine::watch(child);
        let seconds = used.wall.as_secs_f64();
        let parse = floors::parse(&self.file);
        let copy = floors::copy(self);
        row(
            "first load, file to committed tables",
            &format!("{seconds:.1} s, {:.0} cases/s", self.cases as f64 / seconds),
            &format!("{parse:.1} s parsing the bytes + {copy:.1} s COPY of the rows"),
        );
        row("  processor time of the program", &format!("{:.1} s", used.cpu_seconds), "");
        row("  peak resident size", &format!("{} MB", used.peak_mb), "");
        let per_case = used.peak_mb as f64 * 1e6 / self.cases as f64;
        row("  memory per case", &format!("{per_case:.0} B"), "");
        let state = directory_bytes(&self.directory.path().join("state"));
        row("  state on disk per case", &format!("{:.0} B", state as f64 / self.cases as f64), "");
        let count = |table: &str| self.ask(&format!("SELECT count(*) FROM tonle.{table}"));
        row("  rows of indicator_values", &count("indicator_values"), "");
    }
}

pub(crate) fn directory_bytes(path: &Path) -> u64 {
    let entries = fs::read_dir(path).expect("the directory is there").flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
