//! `tonle sim`: serve invented cases as a Primero would, or write them to files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::sim::{self, Settings, generator};

/// The longest password taken from a file, in bytes.
const PASSWORD_BYTES_MAX: usize = 1_024;

/// Serves invented cases as a Primero server would, or writes them to files.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// How many cases to invent.
    #[arg(long, default_value_t = 1_000)]
    cases: u64,
    /// The seed of everything invented: the same seed gives the same cases.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The loopback address to listen on; port 0 lets the system choose.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Random edits made per second while serving.
    #[arg(long, default_value_t = 0)]
    edits_per_second: u32,
    /// Serve the cases of this file (one JSON object a line) instead of inventing some.
    #[arg(long, value_name = "FILE", conflicts_with = "write")]
    from: Option<PathBuf>,
    /// The user name the server accepts.
    #[arg(long, default_value = "api_reader")]
    user: String,
    /// A file with the password the server accepts, on its first line.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The newest day the cases know of; the computer's date (UTC) by default.
    #[arg(long, value_name = "YYYY-MM-DD")]
    today: Option<jiff::civil::Date>,
    /// The version the server says it is; managed reports count disabled cases up to 2.14.0.
    #[arg(long, value_name = "VERSION", default_value = sim::PRIMERO_VERSION)]
    primero_version: String,
    /// Invent clean cases only: nothing missing, wrong or odd.
    #[arg(long)]
    no_dirt: bool,
    /// Put a unique token into every field that points at a person.
    #[arg(long)]
    canary: bool,
    /// Write the cases to this file, one a line, and do not serve.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Write the incidents of these cases to this file, one a line, and do not serve.
    #[arg(long, value_name = "FILE")]
    write_incidents: Option<PathBuf>,
    /// Write only these fields of a case (and `id`, `enabled`, `last_updated_at`).
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "write")]
    fields: Option<Vec<String>>,
    /// Write the places to this file, as `/api/v2/locations?hierarchy=true` gives them.
    #[arg(long, value_name = "FILE")]
    locations: Option<PathBuf>,
}

/// Runs the command: writes the files asked for, or prints the server's address and serves until
/// it is interrupted.
///
/// # Errors
/// [`Kind::Config`] for a wrong flag or an unreadable file; [`Kind::Unavailable`] when the address
/// is taken or a file cannot be written.
pub(super) fn run(args: Args) -> Result<()> {
    let settings = settings(&args)?;
    if let Some(path) = &args.locations {
        generator::write_locations(create(path)?)?;
    }
    if let Some(path) = &args.write_incidents {
        generator::write_incidents(&settings, create(path)?)?;
    }
    if let Some(path) = &args.write {
        let fields: Option<Vec<&str>> =
            args.fields.as_ref().map(|names| names.iter().map(String::as_str).collect());
        return generator::write_ndjson(&settings, fields.as_deref(), create(path)?);
    }
    if args.locations.is_some() || args.write_incidents.is_some() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::new(Kind::Unavailable, "starting tokio").caused_by(cause))?;
    runtime.block_on(serve(settings))
}

fn settings(args: &Args) -> Result<Settings> {
    let defaults = Settings::default();
    let password = match &args.password_file {
        Some(path) => read_password(path)?,
        None => defaults.password.clone(),
    };
    let today = args
        .today
        .unwrap_or_else(|| jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date());
    Ok(Settings {
        seed: args.seed,
        case_count: args.cases,
        today,
        dirt: !args.no_dirt,
        canary: args.canary,
        listen: args.listen,
        user: args.user.clone(),
        password,
        edits_per_second: args.edits_per_second,
        primero_version: args.primero_version.clone(),
        from: args.from.clone(),
        ..defaults
    })
}

fn read_password(path: &Path) -> Result<String> {
    let reading = || Error::config(format!("reading the password from {}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|cause| reading().caused_by(cause))?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(reading().advise("its first line must hold the password"));
    }
    Ok(password.to_owned())
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    let file = File::create(path)
        .map_err(|cause| Error::config(format!("creating {}", path.display())).caused_by(cause))?;
    Ok(BufWriter::with_capacity(1 << 20, file))
}

async fn serve(settings: Settings) -> Result<()> {
    let sim = sim::start(settings).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", sim.base_url())
        .and_then(|()| out.flush())
        .map_err(|cause| Error::new(Kind::Unavailable, "printing the address").caused_by(cause))?;
    interrupted().await?;
    sim.stop();
    Ok(())
}

async fn interrupted() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |cause| Error::new(Kind::Unavailable, "waiting for a signal").caused_by(cause);
    let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        outcome = tokio::signal::ctrl_c() => outcome.map_err(failed),
        _ = terminated.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        let words = std::iter::once("sim").chain(words.iter().copied());
        Command::try_parse_from(words).unwrap().args
    }

    #[test]
    fn cases_and_places_are_written_to_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (cases, places) = (path("cases.ndjson"), path("locations.json"));
        let incidents = path("incidents.ndjson");
        let words = ["--cases", "12", "--today", "2026-03-01", "--fields", "sex,age"];
        let files = ["--write", &cases, "--locations", &places, "--write-incidents", &incidents];
        run(args(&[&words[..], &files].concat())).unwrap();
        assert!(std::fs::read_to_string(&incidents).unwrap().contains("incident_case_id"));
        assert_eq!(std::fs::read_to_string(&cases).unwrap().lines().count(), 12);
        assert!(!std::fs::read_to_string(&cases).unwrap().contains("name"));
        assert!(std::fs::read_to_string(&places).unwrap().contains("Phnom Penh"));
    }

    #[test]
    fn an_empty_password_file_is_refused_and_no_password_is_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(settings(&args(&["--password-file", path])).is_err());
        std::fs::write(path, "very-secret\nrest").unwrap();
        let settings = settings(&args(&["--password-file", path])).unwrap();
        assert_eq!(settings.password, "very-secret");
        assert!(!format!("{settings:?}").contains("very-secret"));
    }

    #[test]
    fn only_loopback_is_served() {
        assert!(run(args(&["--listen", "0.0.0.0:0"])).is_err());
    }
}
