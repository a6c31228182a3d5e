//! `tonle state`: what lies in the state directory, rewritten, carried elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{ConfigArgs, say};
use crate::error::Result;
use crate::model::Instant;
use crate::pipeline::{self, InstanceState, Overview};
use crate::state::{Exported, FileShown, Sealing, Shown};

/// Looks after the state directory. Deleting it while Tonle is stopped is always safe: it is read anew.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show files, epochs, records and cursors; it works beside a running Tonle.
    Show {
        /// How it is written.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Rewrite it as one snapshot, so that nothing that left is in any file. Tonle must be stopped.
    Compact(ConfigArgs),
    /// Write all of it into one file, beside a running Tonle. The file needs the care of the database.
    Export {
        /// The file, which must not be there yet.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Put an exported state where there is none. Tonle must be stopped.
    Import {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

pub(super) fn run(args: &Args) -> Result<()> {
    match &args.action {
        Action::Show { format, config } => show(*format, config),
        Action::Compact(config) => {
            let config = config.read(None)?;
            let left = super::runtime()?.block_on(pipeline::compact(&config))?;
            say(format!(
                "epoch {}: {} records in one snapshot of {} bytes; {} terms that no record has are gone",
                left.epoch, left.records, left.bytes, left.terms_emptied
            ));
            Ok(())
        }
        Action::Export { file, config } => {
            let exported = pipeline::export(&config.read(None)?, file)?;
            say(format!("exported {}", words(&exported)));
            Ok(())
        }
        Action::Import { file, config } => {
            let imported = pipeline::import(&config.read(None)?, file)?;
            say(format!("imported {}", words(&imported)));
            Ok(())
        }
    }
}

fn words(carried: &Exported) -> String {
    let Exported { files, bytes, last, records } = carried;
    format!("{records} records as of epoch {last}: {files} files, {bytes} bytes")
}

fn show(format: Format, config: &ConfigArgs) -> Result<()> {
    let seen = super::runtime()?.block_on(pipeline::overview(&config.read(None)?))?;
    match format {
        Format::Text => text(&seen),
        Format::Json => say(document(&seen).to_string()),
    }
    Ok(())
}

fn text(seen: &Overview) {
    let row = |name: &str, value: String| say(format!("{name:<11}{value}"));
    row("pipeline", seen.shown.pipeline.map_or("none yet".to_owned(), |id| id.to_string()));
    row("last epoch", seen.last.to_string());
    row(
        "committed",
        match &seen.committed {
            Ok(Some(epoch)) if seen.is_own => format!("epoch {epoch} is in Postgres"),
            Ok(Some(epoch)) => {
                format!("epoch {epoch} is in Postgres, from another state directory")
            }
            Ok(None) => "nothing is in Postgres".to_owned(),
            Err(error) => format!("Postgres could not be asked: {error}"),
        },
    );
    for (kind, files) in [("log", &seen.shown.segments), ("snapshot", &seen.shown.snapshots)] {
        for file in files {
            let FileShown { name, epoch, bytes, age, .. } = file;
            let (age, sealing) = (time(*age), sealing(file));
            row(kind, format!("{name}: from epoch {epoch}, {bytes} bytes, {age} old, {sealing}"));
        }
    }
    row("sealed", sealed(&seen.shown));
    row(
        "compacted",
        seen.shown.compacted.map_or("never".to_owned(), |age| format!("{} ago", time(age))),
    );
    row("erased", format!("{} tombstones", seen.shown.erased));
    for (name, InstanceState { records, waiting, cursor }) in &seen.instances {
        let mut parts = vec![format!("{records} records")];
        if *waiting > 0 {
            parts.push(format!("{waiting} changes wait for the end of the first read"));
        }
        parts.push(match cursor.watermark {
            Some(at) => format!("read up to {}", moment(at)),
            None => format!("{} files read, then {} bytes", cursor.files_done, cursor.file_offset),
        });
        if !cursor.first_load_done {
            parts.push("the first read is not over".to_owned());
        }
        if let Some(backfill) = &cursor.backfill {
            parts.push(format!("being read again for {}", backfill.fields.join(", ")));
        }
        row("instance", format!("{name}: {}", parts.join("; ")));
    }
    for warning in &seen.warnings {
        row("warning", warning.clone());
    }
}

/// What a file is sealed with.
fn sealing(file: &FileShown) -> String {
    let key = match file.sealing {
        Sealing::Plain => return "not sealed".to_owned(),
        Sealing::Unknown => return "its beginning cannot be read".to_owned(),
        Sealing::Current => "the key of key_file",
        Sealing::Previous => "a key of previous_key_files",
        Sealing::Missing => "a key that is not configured",
    };
    format!("sealed with {key}, check {}", file.key_check.as_deref().unwrap_or("?"))
}

/// Whether the files are sealed as configured, in one line.
fn sealed(shown: &Shown) -> String {
    let (files, sealed) = (shown.files().count(), shown.sealed_file_count());
    let now = if shown.seals { "key_file is set" } else { "no key_file is set" };
    let as_configured = match shown.stale_file_count() {
        0 => "as configured".to_owned(),
        stale => format!("{stale} not as configured, until two snapshots have replaced them"),
    };
    format!("{sealed} of {files} files; {now}; {as_configured}")
}

fn document(seen: &Overview) -> Value {
    let files = |files: &[FileShown]| -> Vec<Value> {
        let file = |file: &FileShown| {
            let (is_sealed, key) = match file.sealing {
                Sealing::Plain => (Some(false), None),
                Sealing::Current => (Some(true), Some("current")),
                Sealing::Previous => (Some(true), Some("previous")),
                Sealing::Missing => (Some(true), Some("missing")),
                Sealing::Unknown => (None, None),
            };
            json!({ "name": file.name, "epoch": file.epoch.0, "bytes": file.bytes,
                    "age_seconds": file.age.as_secs(), "sealed": is_sealed, "key": key,
                    "key_check": file.key_check })
        };
        files.iter().map(file).collect()
    };
    let instance = |(name, state): (&String, &InstanceState)| {
        let cursor = &state.cursor;
        json!({ "name": name, "records": state.records, "waiting": state.waiting,
                "watermark": cursor.watermark.map(moment), "files_done": cursor.files_done,
                "file_offset": cursor.file_offset, "first_load_done": cursor.first_load_done,
                "backfill": cursor.backfill.as_ref().map(|backfill| &backfill.fields) })
    };
    json!({
        "pipeline": seen.shown.pipeline.map(|id| id.to_string()),
        "last_epoch": seen.last.0,
        "committed_epoch": seen.committed.as_ref().ok().copied().flatten().map(|epoch| epoch.0),
        "tables_are_of_this_state": seen.is_own,
        "segments": files(&seen.shown.segments),
        "snapshots": files(&seen.shown.snapshots),
        "seals": seen.shown.seals,
        "files_sealed": seen.shown.sealed_file_count(),
        "files_not_sealed_as_configured": seen.shown.stale_file_count(),
        "compacted_seconds_ago": seen.shown.compacted.map(|age| age.as_secs()),
        "tombstones": seen.shown.erased,
        "instances": seen.instances.iter().map(instance).collect::<Vec<_>>(),
        "warnings": seen.warnings,
    })
}

fn moment(at: Instant) -> String {
    Timestamp::from_millisecond(at.0).map_or("?".to_owned(), |at| at.to_string())
}

fn time(age: Duration) -> String {
    match age.as_secs() {
        seconds @ ..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}
