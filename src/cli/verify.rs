//! `tonle verify`: everything computed anew from the state by the oracle, and compared with every table.

use super::{ConfigArgs, say};
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Verified, repair, verify};

/// Compares every table with the state. Ends with 0 when they are equal, with 65 when they differ; after a repair with
/// 0 when they are equal then.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write exactly the rows that differ, in one transaction. Tonle must be stopped.
    #[arg(long)]
    repair: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let config = args.config.read(None)?;
    if !args.repair {
        let verified = super::runtime()?.block_on(verify(&config))?;
        show(&verified);
        return outcome(&verified, "`tonle verify --repair` corrects them while Tonle is stopped");
    }
    let repaired = super::runtime()?.block_on(repair(&config))?;
    show(&repaired.before);
    let Some(after) = repaired.after else {
        say("nothing to repair");
        return Ok(());
    };
    if let Some((epoch, rows)) = repaired.written {
        say(format!(
            "repaired with epoch {epoch}: {} rows added, {} changed, {} removed",
            rows.inserted, rows.updated, rows.deleted
        ));
    }
    show(&after);
    outcome(&after, "the figures of the program are not those of its plain computation: report it")
}

fn show(verified: &Verified) {
    let found = &verified.comparison;
    say(format!("epoch {}, {} records", verified.epoch, verified.records));
    let counts = [
        ("different", found.different),
        ("equal", found.equal),
        ("missing", found.missing),
        ("surplus", found.surplus),
    ];
    for (what, count) in counts {
        say(format!("{count:>10} rows {what}"));
    }
    for example in &found.examples {
        say(format!("  {example}"));
    }
}

fn outcome(verified: &Verified, advice: &str) -> Result<()> {
    if verified.comparison.is_equal() {
        return Ok(());
    }
    let what = "comparing the tables with the state: they differ";
    Err(Error::new(Kind::DataDiffers, what).advise(advice))
}
