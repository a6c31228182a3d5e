//! Where the programs of the Postgres server are on this machine.

use std::cmp::Reverse;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Oldest major version of Postgres the sink is written for.
pub const VERSION_MIN: u32 = 13;

/// The programs of Postgres that must lie in one directory.
const PROGRAMS: [&str; 4] = ["postgres", "initdb", "pg_ctl", "createdb"];

/// What to do when there is no server.
const ADVICE: &str = "install a Postgres server: `apt-get install postgresql` on Debian and \
                      Ubuntu, `dnf install postgresql-server` on Fedora, \
                      `brew install postgresql@17` on macOS";

/// The directory of the server programs: the one given, or else the first of the usual places that
/// will do.
pub(super) fn find(given: Option<&Path>) -> Result<PathBuf> {
    let places = given.map_or_else(usual_places, |directory| vec![directory.to_owned()]);
    let mut oldest_seen = None;
    for place in places {
        match version_in(&place) {
            Some(version) if version >= VERSION_MIN => return Ok(place),
            Some(version) => oldest_seen = Some(version),
            None => {}
        }
    }
    let doing = match oldest_seen {
        Some(old) => format!("Postgres {old} is too old, {VERSION_MIN} or later is needed"),
        None => "no Postgres server programs were found".to_owned(),
    };
    Err(Error::config(doing).advise(ADVICE))
}

/// The major version of the server in `directory`; `None` unless all programs are there and run.
fn version_in(directory: &Path) -> Option<u32> {
    if !PROGRAMS.iter().all(|program| directory.join(program).is_file()) {
        return None;
    }
    let postgres = directory.join("postgres");
    let output = Command::new(postgres).arg("--version").stdin(Stdio::null()).output().ok()?;
    major_version(&String::from_utf8(output.stdout).ok()?)
}

/// The 15 of "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)" or "postgres (PostgreSQL)
/// 15beta2".
fn major_version(line: &str) -> Option<u32> {
    let version = line.split_once("(PostgreSQL) ")?.1;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

/// Where packages put the server programs, which are often not on the PATH.
fn usual_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    for directory in env::split_paths(&env::var_os("PATH").unwrap_or_default()) {
        // Some systems link a few programs into the PATH: the others lie beside the real file.
        if let Ok(real) = fs::canonicalize(directory.join("postgres")) {
            places.extend(real.parent().map(Path::to_owned));
            places.push(directory);
        }
    }
    for (parent, prefix, suffix) in [
        ("/usr/lib/postgresql", "", "bin"),          // Debian, Ubuntu
        ("/usr", "pgsql-", "bin"),                   // the packages of postgresql.org for Fedora
        ("/opt/homebrew/opt", "postgresql@", "bin"), // Homebrew on Apple silicon
        ("/usr/local/opt", "postgresql@", "bin"),    // Homebrew on Intel
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ] {
        places.extend(newest_first(Path::new(parent), prefix).into_iter().map(|p| p.join(suffix)));
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output() {
        places.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    places
}

/// The entries of `parent` named `prefix` and a version number, newest version first.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path()))
        })
        .collect();
    found.sort_by_key(|(version, _)| Reverse(*version));
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn missing_and_old_servers_are_named() {
        let place = tempfile::tempdir().unwrap();
        let error = find(Some(place.path())).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains("apt-get install postgresql"), "{error}");

        for program in PROGRAMS {
            let path = place.path().join(program);
            fs::write(&path, "#!/bin/sh\necho 'postgres (PostgreSQL) 12.9'\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let error = find(Some(place.path())).unwrap_err();
        assert!(error.to_string().starts_with("Postgres 12 is too old"), "{error}");
    }

    #[test]
    fn versions_are_read_as_packages_write_them() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("postgres: not found"), None);
    }

    #[test]
    fn the_newest_version_comes_first() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["9", "15", "17", "common"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let names: Vec<_> = newest_first(parent.path(), "")
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["17", "15", "9"]);
    }
}
