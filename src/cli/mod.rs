//! The commands: one file each, each one call into the library.

mod check;
mod config;
mod demo;
mod erase;
mod explain;
mod freeze;
mod reconcile;
mod plan;
mod run;
mod sim;
mod state;
mod test;
mod verify;

use std::io::Write;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{Config, Overrides};
use crate::error::{Error, Kind, Result};
use crate::model::OpenSecret;
use crate::report::{self, Event};

/// Keeps a reporting database true to one or many Primero instances.
#[derive(Debug, Parser)]
#[command(name = "tonle", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 a bug; 2 usage or configuration; 65 data differs; 69 unavailable; \
75 try again; 77 permission.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the river: simulated Primeros, a private Postgres, and the pipeline between them.
    Demo(demo::Args),
    /// Read what changed and keep the tables true to it, continuously or once.
    Run(run::Args),
    /// Check configuration, packs, each Primero and Postgres; say what would be read and written.
    Check(ConfigArgs),
    /// Show the configuration that holds and where it came from, or the JSON Schema of a pack.
    Config(config::Args),
    /// Compute everything anew from the state with a plain batch function and compare every table.
    Verify(verify::Args),
    /// Say what a changed configuration would do to the tables, as numbers; nothing is written.
    Plan(plan::Args),
    /// Explain one cell: what it means, who is in it, why the others are not, and how it changed.
    Explain(explain::Args),
    /// Run files of examples, records in and cells out, against the packs.
    Test(test::Args),
    /// Store the published figures of a period once, and list what is stored.
    Freeze(freeze::Args),
    /// Compare our figures with those of Primero's own reports, cell by cell; nothing is written.
    Reconcile(reconcile::Args),
    /// Erase records for good: from the tables, the state and its files.
    Erase(erase::Args),
    /// Show, rewrite, export or import the state directory.
    State(state::Args),
    /// Serve invented cases as a Primero would, or write them to files.
    Sim(sim::Args),
}

/// The configuration file, for every command that reads one.
#[derive(Clone, Debug, clap::Args)]
struct ConfigArgs {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "tonle.toml")]
    config: PathBuf,
    /// The database, instead of the one in the file.
    #[arg(long, value_name = "URL", env = "TONLE_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
}

impl ConfigArgs {
    /// Reads the configuration and starts the log as it says.
    fn read(&self, workers: Option<usize>) -> Result<Config> {
        let config = Config::read(&self.config, &self.overrides(workers))?;
        report::init(config.log_format, config.log_level)?;
        for OpenSecret { path, mode } in &config.open_secrets {
            report::emit(&Event::SecretIsOpen { path, mode: *mode });
        }
        Ok(config)
    }

    fn overrides(&self, workers: Option<usize>) -> Overrides {
        Overrides { workers, database_url: self.database_url.clone() }
    }
}

/// Runs the command that was asked for.
///
/// # Errors
/// Whatever ends it; the kind of the error decides the exit code.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Freeze(args) => freeze::run(&args),
        Command::Reconcile(args) => reconcile::run(&args),
        Command::Erase(args) => erase::run(&args),
        Command::State(args) => state::run(&args),
        Command::Sim(args) => sim::run(args),
    }
}

/// The runtime of everything that waits: HTTP and Postgres.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Unavailable, "starting the threads that wait").caused_by(e))
}

/// Writes a line to standard output; a reader that went away is no error.
fn say(line: impl AsRef<str>) {
    writeln!(std::io::stdout().lock(), "{}", line.as_ref()).ok();
}
