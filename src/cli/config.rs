//! `tonle config`: the configuration that holds, and the JSON Schemas that let an editor complete one.

use super::{ConfigArgs, say};
use crate::config::{CONFIG_SCHEMA, Config};
use crate::error::Result;
use crate::indicator::PACK_SCHEMA;

/// Shows the configuration that holds, or the JSON Schema of a pack.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print what holds as TOML: the file, what it leaves out, and the packs as they lie over each other.
    ///
    /// Passwords and keys are not shown.
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// Say behind each value which file and line it came from, and what it replaced.
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON Schema (draft 2020-12) of a pack, with which editors complete and check it.
    Schema {
        /// That of the configuration file instead.
        #[arg(long)]
        config: bool,
    },
}

pub(super) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Show { config, origin } => {
            say(Config::show(&config.config, &config.overrides(None), *origin)?.trim_end());
        }
        Command::Schema { config: true } => say(CONFIG_SCHEMA.trim_end()),
        Command::Schema { config: false } => say(PACK_SCHEMA.trim_end()),
    }
    Ok(())
}
