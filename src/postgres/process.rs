//! Running the programs of Postgres as a user Postgres accepts.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, Kind, Result};

/// Bytes quoted of what a program that failed had said.
const QUOTE_BYTES_MAX: usize = 600;

/// The user a server runs as when we are root, which Postgres refuses to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Owner {
    /// Nobody else unless we are root; then `postgres`, and where that does not exist `nobody`.
    pub(super) fn to_run_as() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        ["postgres", "nobody"].into_iter().find_map(Self::named).map(Some).ok_or_else(|| {
            Error::config("Postgres does not run as root, and no user postgres or nobody exists")
                .advise("run this as an ordinary user")
        })
    }

    fn named(name: &str) -> Option<Self> {
        let number = |flag: &str| -> Option<u32> {
            let output =
                Command::new("id").args([flag, name]).stdin(Stdio::null()).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        Some(Self { uid: number("-u")?, gid: number("-g")? })
    }
}

/// A command that runs in `directory` as `owner`, away from the terminal's Ctrl-C and from
/// inherited settings.
pub(super) fn command(program: &Path, directory: &Path, owner: Option<Owner>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).stdin(Stdio::null()).process_group(0).env("LC_ALL", "C");
    let inherited: Vec<OsString> = env::vars_os().map(|(name, _)| name).collect();
    for name in inherited.iter().filter(|name| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    if let Some(owner) = owner {
        command.uid(owner.uid).gid(owner.gid);
    }
    command
}

/// Runs a command to its end; what it wrote to standard error becomes the cause of a failure.
pub(super) fn run(command: &mut Command, doing: &str) -> Result<()> {
    let output = command.output().map_err(|e| Error::new(Kind::Unavailable, doing).caused_by(e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = last_words(&output.stderr);
    Err(Error::new(Kind::Unavailable, doing).caused_by(format!("{}: {said}", output.status)))
}

/// The end of what a program said, on one line.
pub(super) fn last_words(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(QUOTE_BYTES_MAX);
    String::from_utf8_lossy(&bytes[from..]).trim().replace('\n', "; ")
}
