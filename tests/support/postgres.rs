//! A private Postgres that lives as long as a test binary's value.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

/// The server that the running tests share.
static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());

/// A server in a temporary directory, on a Unix socket only; stopped when dropped.
pub(crate) struct Postgres {
    programs: PathBuf,
    directory: tempfile::TempDir,
}

impl Postgres {
    /// The server that is running, or a new one; the last test that holds it stops it.
    pub(crate) fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// Makes and starts a server with its durability settings as shipped.
    pub(crate) fn start() -> Self {
        let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
            .expect("Postgres is installed")
            .map(|entry| entry.unwrap().path().join("bin"))
            .filter(|path| path.join("initdb").exists())
            .collect();
        found.sort();
        let programs = found.pop().expect("a Postgres with initdb is installed");
        let directory = tempfile::Builder::new().prefix("tonle").tempdir().unwrap();
        let this = Self { programs, directory };
        if is_root() {
            let owner = Command::new("chown").arg("nobody").arg(this.root()).status().unwrap();
            assert!(owner.success());
        }
        let data = this.root().join("data");
        let data = data.to_str().unwrap();
        this.run("initdb", &["-D", data, "-U", "tonle", "-A", "trust", "-E", "UTF8", "--locale=C"]);
        let socket = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c max_connections=20",
            this.root().display()
        );
        let log = this.root().join("log");
        let log = log.to_str().unwrap();
        this.run("pg_ctl", &["-D", data, "-l", log, "-w", "-t", "60", "-o", &socket, "start"]);
        this
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let path = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        let status = command
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{program} failed, see {}", self.root().display());
    }

    /// The URL of its one database.
    pub(crate) fn url(&self) -> String {
        format!("postgres://tonle@/postgres?host={}", self.root().display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.root().join("data");
        self.run("pg_ctl", &["-D", data.to_str().unwrap(), "-m", "immediate", "-w", "stop"]);
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
