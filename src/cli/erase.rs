//! `tonle erase`: records leave for good.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use super::{ConfigArgs, say};
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Erasure, erase};

/// Longest list of records, in bytes.
const LIST_BYTES_MAX: u64 = 4 << 20;

/// Erases records for good: from the tables, the state and its files. A tombstone that names nobody keeps them from
/// coming back, whatever is read, replayed or restored. A running Tonle carries it out within seconds; a stopped
/// one needs no start. Ends with 75 when it is noted, and the next `tonle run` carries it out.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// The instance that the records are of.
    #[arg(long, value_name = "NAME")]
    instance: String,
    /// A file with the id of one record a line, as Primero has it; - for standard input.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "record",
        conflicts_with = "record"
    )]
    records: Option<PathBuf>,
    /// The id of one record. Other users of this machine may see it: better in a file.
    #[arg(long, value_name = "ID")]
    record: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let config = args.config.read(None)?;
    let ids = args.ids()?;
    if ids.is_empty() {
        return Err(Error::config("erasing records: the list names none"));
    }
    let count = ids.len();
    match super::runtime()?.block_on(erase(&config, &args.instance, &ids))? {
        Erasure::Done { found: Some(found) } => {
            say(format!("{count} records asked for, {found} were in the tables"));
            say("they are out of the tables and the files of the state, and will not come back");
            Ok(())
        }
        Erasure::Done { found: None } => {
            say(format!("{count} records asked for; the running Tonle carried it out"));
            say("they are out of the tables and the files of the state, and will not come back");
            Ok(())
        }
        Erasure::Noted => {
            let what = format!("erasing {count} records: it is noted, and not carried out yet");
            Err(Error::new(Kind::Temporary, what)
                .advise("`tonle run` carries it out; ask again then to be sure"))
        }
    }
}

impl Args {
    fn ids(&self) -> Result<Vec<String>> {
        let Some(path) = &self.records else {
            return Ok(self.record.iter().cloned().collect());
        };
        let mut text = String::new();
        let read = match path.as_os_str() == "-" {
            true => io::stdin().take(LIST_BYTES_MAX + 1).read_to_string(&mut text),
            false => File::open(path)
                .and_then(|file| file.take(LIST_BYTES_MAX + 1).read_to_string(&mut text)),
        };
        read.map_err(|e| Error::config("reading the list of records").caused_by(e))?;
        if text.len() as u64 > LIST_BYTES_MAX {
            return Err(Error::config("reading the list of records: it is longer than 4 MiB"));
        }
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.map(str::to_owned).collect())
    }
}
