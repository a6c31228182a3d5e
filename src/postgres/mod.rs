//! A throw-away Postgres cluster beside the path, for the demo and the tests.
//!
//! It lives in one temporary directory of mode 0700: the unix socket in it needs no password, the
//! loopback port needs one that is made anew for each cluster, so no other user of the machine gets
//! in. Every call here blocks.
//!
//! **Invariant:** no cluster outlives the process that started it. A small shell holds the read end
//! of a pipe whose write end is ours; when that closes (a drop, a panic, SIGKILL) it ends the
//! server and removes the directory.

use std::env;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::error::{Error, Kind, Result};

mod process;
mod programs;

pub use programs::VERSION_MIN;

use process::{Owner, command, last_words, run};

/// How long a server may take to accept connections or to stop, in seconds; crash recovery
/// included.
const WAIT_SECONDS_MAX: u32 = 60;

/// How many ports are tried before the start is given up.
const PORT_ATTEMPTS_MAX: u32 = 8;

/// Ports below the range from which Linux and macOS take the ports of outgoing connections: a
/// client that waits for a stopped server can otherwise be given the very port it asks for, and
/// talks to itself.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Longest directory whose socket still fits `sockaddr_un` everywhere, in bytes.
const SOCKET_DIRECTORY_BYTES_MAX: usize = 85;

/// Longest name of a database, in bytes (Postgres's own limit).
const DATABASE_NAME_BYTES_MAX: usize = 63;

/// The database superuser, and the database that exists after the start.
const NAME: &str = "tonle";

/// Ends the server and removes the directory once nobody holds the other end of standard input.
const WATCHDOG: &str = r#"
trap '' INT HUP TERM
read -r _
"$1" stop --pgdata="$2/data" --mode=immediate --silent --timeout=60
cd / && rm -rf "$2"
"#;

/// How a private cluster is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether a commit waits for the disk. Off is faster and loses nothing while the machine
    /// itself runs on.
    pub fsync: bool,
    /// Where the server programs are; `None` looks for them.
    pub program_directory: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { fsync: true, program_directory: None }
    }
}

/// A running cluster of our own; dropping it stops the server and removes everything.
#[derive(Debug)]
pub struct PrivatePostgres {
    programs: PathBuf,
    directory: TempDir,
    owner: Option<Owner>,
    fsync: bool,
    port: u16,
    password: String,
    watchdog: Child,
}

impl PrivatePostgres {
    /// Makes a cluster, starts it, and returns when it accepts connections; about two seconds.
    ///
    /// # Errors
    /// [`Kind::Config`] with what to install when no server programs of version 13 or later are
    /// found; [`Kind::Unavailable`] with the end of the server's log when it does not start.
    pub fn start(settings: &Settings) -> Result<Self> {
        let programs = programs::find(settings.program_directory.as_deref())?;
        let owner = Owner::to_run_as()?;
        let directory = make_directory(owner)?;
        let watchdog = spawn_watchdog(&programs, directory.path(), owner)?;
        let mut cluster = Self {
            programs,
            directory,
            owner,
            fsync: settings.fsync,
            port: 0,
            password: format!("{:032x}", rand::random::<u128>()),
            watchdog,
        };
        cluster.initialize()?;
        cluster.start_on_a_free_port()?;
        cluster.create_database(NAME)?;
        Ok(cluster)
    }

    /// Where to connect: the loopback port, with the password of this cluster.
    pub fn url(&self) -> String {
        self.url_of(NAME)
    }

    /// The same for another database of the cluster.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgresql://{NAME}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The loopback port; a [`restart`](Self::restart) keeps it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What to type to look into the database; it goes through the socket and shows no password.
    pub fn psql_line(&self) -> String {
        format!("psql -h {} -p {} -U {NAME} {NAME}", self.directory.path().display(), self.port)
    }

    /// The file the server logs to; it goes away with the cluster.
    pub fn log_path(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    /// A client program of Postgres ("psql", "pg_dump") set up to reach `database` of this cluster.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = self.command(program);
        command
            .env("PGHOST", self.directory.path())
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", NAME)
            .env("PGDATABASE", database);
        command
    }

    /// Makes one more, empty database.
    ///
    /// # Errors
    /// [`Kind::Bug`] when the name is not plain lower case; [`Kind::Unavailable`] when the server
    /// refuses.
    pub fn create_database(&self, name: &str) -> Result<()> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || name.len() > DATABASE_NAME_BYTES_MAX || !name.bytes().all(plain) {
            return Err(Error::bug(format!("{name:?} is not a plain name for a database")));
        }
        let mut command = self.client("createdb", "postgres");
        run(command.arg(name), "making a database in the private Postgres")
    }

    /// Stops the server cleanly: open transactions are rolled back, connections end.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when it does not stop within a minute or was not running.
    pub fn stop(&mut self) -> Result<()> {
        self.pg_ctl_stop("fast")
    }

    /// Stops the server as a crash would: the next start goes through recovery.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when it does not stop within a minute or was not running.
    pub fn kill(&mut self) -> Result<()> {
        self.pg_ctl_stop("immediate")
    }

    /// Starts a stopped server again: same data, same port, same address.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] with the end of the server's log when it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.pg_ctl_start()
    }

    fn initialize(&self) -> Result<()> {
        let password_file = self.directory.path().join("password");
        let doing = "preparing the private Postgres";
        fs::write(&password_file, &self.password)
            .and_then(|()| self.hand_over(&password_file))
            .map_err(|e| Error::new(Kind::Unavailable, doing).caused_by(e))?;
        let mut command = self.command("initdb");
        command
            .arg("--pgdata")
            .arg(self.data())
            .args(["--username", NAME, "--encoding=UTF8", "--no-locale", "--no-sync"])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile"])
            .arg(&password_file);
        run(&mut command, "making the private Postgres (initdb)")
    }

    fn start_on_a_free_port(&mut self) -> Result<()> {
        let mut last = None;
        for _ in 0..PORT_ATTEMPTS_MAX {
            let port = rand::random_range(PORTS);
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
                continue;
            }
            self.port = port;
            match self.pg_ctl_start() {
                Ok(()) => return Ok(()),
                // Somebody else was quicker: between our look and the server's start the port was
                // taken.
                Err(error) if error.to_string().contains("Address already in use") => {
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::new(Kind::Unavailable, "no free loopback port for the private Postgres")
        }))
    }

    fn pg_ctl_start(&self) -> Result<()> {
        let doing = "starting the private Postgres";
        // Read last, so it overrides what initdb found to work on this machine, and only that.
        let configuration = self.data().join("postgresql.auto.conf");
        fs::write(&configuration, self.configuration())
            .and_then(|()| self.hand_over(&configuration))
            .and_then(|()| forget(&self.log_path()))
            .map_err(|e| Error::new(Kind::Unavailable, doing).caused_by(e))?;
        let mut command = self.command("pg_ctl");
        command
            .args(["start", "--wait", "--silent"])
            .arg(format!("--timeout={WAIT_SECONDS_MAX}"))
            .arg("--pgdata")
            .arg(self.data())
            .arg("--log")
            .arg(self.log_path());
        run(&mut command, doing).map_err(|error| match tail(&self.log_path()) {
            Some(log) => error.advise(format!("the server's log ends with: {log}")),
            None => error,
        })
    }

    fn pg_ctl_stop(&self, mode: &str) -> Result<()> {
        let mut command = self.command("pg_ctl");
        command
            .args(["stop", "--wait", "--silent"])
            .arg(format!("--mode={mode}"))
            .arg(format!("--timeout={WAIT_SECONDS_MAX}"))
            .arg("--pgdata")
            .arg(self.data());
        run(&mut command, "stopping the private Postgres")
    }

    /// What differs from the settings initdb wrote.
    fn configuration(&self) -> String {
        let on = if self.fsync { "on" } else { "off" };
        let sockets = self.directory.path().display().to_string().replace('\'', "''");
        format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{sockets}'\n\
             password_encryption = 'scram-sha-256'\nshared_buffers = '64MB'\nmax_wal_size = '4GB'\n\
             timezone = 'UTC'\nlog_timezone = 'UTC'\n\
             fsync = {on}\nsynchronous_commit = {on}\nfull_page_writes = {on}\n",
            self.port
        )
    }

    fn command(&self, program: &str) -> Command {
        command(&self.programs.join(program), self.directory.path(), self.owner)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn hand_over(&self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        self.owner.map_or(Ok(()), |owner| chown(path, Some(owner.uid), Some(owner.gid)))
    }
}

impl Drop for PrivatePostgres {
    /// Lets the watchdog do its work; it is bounded by the time it gives the server to stop.
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        // Nothing can be done in a drop about a shell that failed; the directory is removed once
        // more after this.
        let _ = self.watchdog.wait();
    }
}

/// A fresh directory only its owner may enter, at a place the owner can reach and short enough for
/// a socket.
fn make_directory(owner: Option<Owner>) -> Result<TempDir> {
    let mut parent = env::temp_dir();
    let too_long = parent.as_os_str().len() > SOCKET_DIRECTORY_BYTES_MAX - "/tonle-pg-123456".len();
    if too_long || (owner.is_some() && !open_to_all(&parent)) {
        parent = PathBuf::from("/tmp");
    }
    let made = tempfile::Builder::new()
        .prefix("tonle-pg-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .and_then(|directory| {
            if let Some(owner) = owner {
                chown(directory.path(), Some(owner.uid), Some(owner.gid))?;
            }
            Ok(directory)
        });
    made.map_err(|e| {
        let doing = format!("making a directory for the private Postgres in {}", parent.display());
        Error::config(doing).caused_by(e).advise("set TMPDIR to a directory that can be written")
    })
}

/// Whether every user may pass through `directory` and all above it.
fn open_to_all(directory: &Path) -> bool {
    directory.ancestors().all(|part| {
        fs::metadata(part).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    })
}

fn spawn_watchdog(programs: &Path, directory: &Path, owner: Option<Owner>) -> Result<Child> {
    command(Path::new("/bin/sh"), directory, owner)
        .args(["-c", WATCHDOG, "tonle-postgres-watchdog"])
        .arg(programs.join("pg_ctl"))
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| {
            Error::config("starting a process beside the private Postgres")
                .caused_by(e)
                .advise("if this container does not allow root to become another user, run as one")
        })
}

fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn tail(path: &Path) -> Option<String> {
    fs::read(path).ok().map(|bytes| last_words(&bytes)).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn select(cluster: &PrivatePostgres, sql: &str) -> String {
        let output = cluster.client("psql", NAME).args(["-XAtc", sql]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn a_cluster_starts_stops_crashes_starts_again_and_leaves_nothing() {
        let quick = Settings { fsync: false, ..Settings::default() };
        let mut cluster = PrivatePostgres::start(&quick).unwrap();
        let (directory, url) = (cluster.directory.path().to_owned(), cluster.url());
        let process: i32 = first_line(&cluster.data().join("postmaster.pid"));
        select(&cluster, "CREATE TABLE kept AS SELECT 7 AS seven");
        assert_eq!(select(&cluster, "SHOW fsync"), "off");
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);

        cluster.stop().unwrap();
        assert_eq!(select(&cluster, "SELECT 1"), "", "a stopped server must not answer");
        assert_eq!(cluster.stop().unwrap_err().kind(), Kind::Unavailable);
        cluster.restart().unwrap();
        cluster.kill().unwrap();
        cluster.restart().unwrap();
        assert_eq!(cluster.url(), url);
        assert_eq!(select(&cluster, "SELECT seven FROM kept"), "7");
        cluster.create_database("second").unwrap();
        assert_eq!(cluster.create_database("no; drop").unwrap_err().kind(), Kind::Bug);

        let last: i32 = first_line(&cluster.data().join("postmaster.pid"));
        assert_ne!(process, last);
        drop(cluster);
        assert!(!directory.exists());
        let last = rustix::process::Pid::from_raw(last).unwrap();
        eventually("the server ended", || rustix::process::test_kill_process(last).is_err());
    }

    /// Names the file into which the process that is killed writes where its cluster lies.
    const HOLDER: &str = "TONLE_TEST_CLUSTER_HOLDER";

    #[test]
    fn a_killed_process_takes_its_cluster_along() {
        if let Some(answer) = env::var_os(HOLDER) {
            let cluster = PrivatePostgres::start(&Settings::default()).unwrap();
            let draft = PathBuf::from(&answer).with_extension("draft");
            fs::write(&draft, cluster.directory.path().to_str().unwrap()).unwrap();
            fs::rename(draft, answer).unwrap();
            std::thread::park_timeout(WAIT_MAX);
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let answer = place.path().join("directory");
        let mut holder = Command::new(env::current_exe().unwrap())
            .args(["--exact", "postgres::tests::a_killed_process_takes_its_cluster_along"])
            .env(HOLDER, &answer)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("it answered", || answer.exists() || holder.try_wait().unwrap().is_some());
        let directory = PathBuf::from(fs::read_to_string(&answer).unwrap());
        let process = first_line(&directory.join("data/postmaster.pid"));
        let process = rustix::process::Pid::from_raw(process).unwrap();
        assert!(rustix::process::test_kill_process(process).is_ok());

        holder.kill().unwrap();
        holder.wait().unwrap();
        eventually("the directory went away", || !directory.exists());
        eventually("the server ended", || rustix::process::test_kill_process(process).is_err());
    }

    const WAIT_MAX: Duration = Duration::from_secs(60);

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < WAIT_MAX, "waited a minute until {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn first_line(path: &Path) -> i32 {
        fs::read_to_string(path).unwrap().lines().next().unwrap().parse().unwrap()
    }

    #[test]
    fn the_port_wants_the_password() {
        let cluster = PrivatePostgres::start(&Settings::default()).unwrap();
        let ask = |url: &str| cluster.command("psql").args(["-XAtwc", "SELECT 1", url]).output();
        assert!(ask(&cluster.url()).unwrap().status.success());
        let without = cluster.url().replace(&format!(":{}@", cluster.password), "@");
        assert!(!ask(&without).unwrap().status.success());
        assert!(!cluster.psql_line().contains(&cluster.password));
    }
}
