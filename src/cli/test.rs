//! `tonle test`: files of examples, records in and cells out, against the packs.

use std::path::PathBuf;

use super::say;
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Rehearsed, rehearse, rehearse_shipped};
use crate::report;

/// Most failures of one file that are shown.
const FAILURES_SHOWN_MAX: usize = 100;

/// Runs files of examples against the packs they name: records go in, step by step, and the cells must come out that
/// the file says. No server, database or state is touched. Ends with 0 when all is as expected, with 65 when not.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files of examples, TOML or JSON; without any, the worked example of the core pack.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    report::init(report::Format::default(), None)?;
    let mut failed = 0;
    if args.files.is_empty() {
        let (name, done) = rehearse_shipped()?;
        failed += tell(name, &done);
    }
    for file in &args.files {
        failed += tell(&file.display().to_string(), &rehearse(file)?);
    }
    match failed {
        0 => Ok(()),
        count => {
            let what = format!("running the examples: {count} expectations do not hold");
            Err(Error::new(Kind::DataDiffers, what).advise("mend the pack, or the examples"))
        }
    }
}

/// Says how a file went; returns how many expectations do not hold.
fn tell(name: &str, done: &Rehearsed) -> usize {
    let count = done.failures.len();
    let word = if count == 0 { "ok" } else { "FAILED" };
    let Rehearsed { title, steps, expectations, .. } = done;
    let title = if title.is_empty() { String::new() } else { format!(" ({title})") };
    say(format!("{word:<7} {name}{title}: {steps} steps, {expectations} expectations"));
    done.notes.iter().for_each(|note| say(format!("  note: {note}")));
    done.failures.iter().take(FAILURES_SHOWN_MAX).for_each(|what| say(format!("  {what}")));
    if count > FAILURES_SHOWN_MAX {
        say(format!("  and {} more", count - FAILURES_SHOWN_MAX));
    }
    count
}
