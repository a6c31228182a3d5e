//! The real program in a directory of its own: a configuration, simulated Primeros, a database, and the binary.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonle::postgres::PrivatePostgres;
use tonle::sim::{self, Settings, Sim};

use super::postgres::Database;

/// Longest wait for anything the program does; generous, because machines that test are slow.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// Time between two looks at a state that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes of the log that a failed test shows.
const LOG_BYTES_SHOWN: usize = 6_000;

/// Key of all pseudonyms in tests, so that two programs give the same rows.
pub(crate) const PSEUDONYM_KEY: &str = "a key of tests, thirty-two bytes or more";

/// The columns that say when and how often a row was written, not what it holds.
const WRITTEN_COLUMNS: &str = "'epoch', 'updated_at', 'revision'";

/// Tables by name, each as its sorted rows.
pub(crate) type Tables = BTreeMap<String, Vec<String>>;

/// Where the tables are.
enum Store {
    /// A database of the cluster that all tests share.
    Shared(Database),
    /// A cluster of the test's own, which it may stop.
    Own(Box<PrivatePostgres>),
}

/// One configuration directory, with the program when it runs.
pub(crate) struct Program {
    directory: TempDir,
    store: Store,
    /// Lines at the top of the configuration.
    settings: String,
    /// Name and section of each instance.
    instances: Vec<(String, String)>,
    child: Option<Child>,
}

/// How a command of the program ended.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) code: i32,
    /// Standard output, then standard error.
    pub(crate) text: String,
}

/// A simulated Primero of today; it lives as long as the answer.
pub(crate) fn primero(settings: Settings) -> Sim {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let build = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().expect("threads can be started")
    };
    RUNTIME.get_or_init(build).block_on(sim::start(settings)).expect("a simulated server starts")
}

/// Settings for `count` cases whose newest are of today, as the computer's clock has it.
pub(crate) fn cases_of_today(seed: u64, count: u64) -> Settings {
    let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    Settings { seed, case_count: count, today, ..Settings::default() }
}

impl Program {
    /// A program with a fresh database and no instance yet.
    pub(crate) fn new() -> Self {
        Self::with_store(Store::Shared(Database::fresh()))
    }

    /// A program with a Postgres of its own.
    pub(crate) fn with_own_postgres(cluster: PrivatePostgres) -> Self {
        Self::with_store(Store::Own(Box::new(cluster)))
    }

    /// Another program with the same settings and a directory of its own, on the same database.
    pub(crate) fn beside(&self) -> Self {
        let Store::Shared(Database { url, name }) = &self.store else {
            panic!("only the shared Postgres is shared");
        };
        let database = Database { url: url.clone(), name: name.clone() };
        let mut other = Self::with_store(Store::Shared(database));
        other.settings.clone_from(&self.settings);
        other
    }

    /// Another program with the same settings, a directory and a database of its own, and no instance.
    pub(crate) fn elsewhere(&self) -> Self {
        let mut other = Self::new();
        other.settings.clone_from(&self.settings);
        other
    }

    fn with_store(store: Store) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program =
            Self { directory, store, settings: String::new(), instances: Vec::new(), child: None };
        program.write_secret("pseudonym.key", PSEUDONYM_KEY);
        program
            .with("packs = [\"cp-core\", \"cambodia\"]")
            .with(&format!("time_zone = {:?}", zone_far_from_midnight()))
    }

    /// Adds a line to the top of the configuration, or replaces the one with the same key.
    pub(crate) fn with(mut self, line: &str) -> Self {
        self.set(line);
        self
    }

    /// The same, later.
    pub(crate) fn set(&mut self, line: &str) {
        let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
        let kept = self.settings.lines().filter(|old| key(old) != key(line));
        self.settings = kept.chain([line]).map(|line| format!("{line}\n")).collect();
    }

    /// Adds a simulated server as an instance.
    pub(crate) fn server(self, name: &str, sim: &Sim) -> Self {
        self.server_with(name, sim, "")
    }

    /// The same with more lines of settings.
    pub(crate) fn server_with(self, name: &str, sim: &Sim, more: &str) -> Self {
        self.server_at(name, &sim.base_url(), more)
    }

    /// Adds whatever answers at an address as an instance.
    pub(crate) fn server_at(mut self, name: &str, url: &str, more: &str) -> Self {
        let password = format!("{name}.password");
        self.write_secret(&password, &Settings::default().password);
        let section =
            format!("url = {url:?}\nuser = \"api_reader\"\npassword_file = {password:?}\n{more}\n");
        self.put_instance(name, section);
        self
    }

    /// Adds files as an instance, or names its files anew.
    pub(crate) fn set_files(&mut self, name: &str, paths: &[&Path], locations: Option<&Path>) {
        let mut section = format!("files = {paths:?}\n");
        if let Some(path) = locations {
            writeln!(section, "locations = {path:?}").unwrap();
        }
        self.put_instance(name, section);
    }

    /// Takes an instance out of the configuration.
    pub(crate) fn remove_instance(&mut self, name: &str) {
        self.instances.retain(|(other, _)| other != name);
    }

    /// Adds an instance with these lines of configuration, or replaces it.
    pub(crate) fn put_instance(&mut self, name: &str, section: String) {
        let mut section = format!("name = {name:?}\npoll_seconds = 1\n{section}");
        if !section.contains("time_zone =") {
            section.push_str("time_zone = \"Asia/Phnom_Penh\"\n");
        }
        match self.instances.iter_mut().find(|(other, _)| other == name) {
            Some((_, before)) => *before = section,
            None => self.instances.push((name.to_owned(), section)),
        }
    }

    /// A file in the program's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Everything the program has said since the first start.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.path("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write_secret(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The database's address.
    pub(crate) fn url(&self) -> String {
        match &self.store {
            Store::Shared(database) => database.url.clone(),
            Store::Own(cluster) => cluster.url(),
        }
    }

    /// The Postgres of its own.
    pub(crate) fn postgres(&mut self) -> &mut PrivatePostgres {
        match &mut self.store {
            Store::Own(cluster) => cluster,
            Store::Shared(_) => panic!("the shared Postgres is not to be touched"),
        }
    }

    fn write_configuration(&self) {
        let mut text = self.settings.clone();
        text += "pseudonym_key_file = \"pseudonym.key\"\n[database]\nurl = \"\"\n";
        text += "[log]\nlevel = \"debug\"\n";
        for (_, section) in &self.instances {
            write!(text, "[[instances]]\n{section}").unwrap();
        }
        fs::write(self.path("tonle.toml"), text).unwrap();
    }

    /// A command of the program on this configuration, not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.write_configuration();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tonle"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.path("tonle.toml"))
            .current_dir(self.directory.path())
            .env("TONLE_DATABASE_URL", self.url())
            .env_remove("TONLE_LOG")
            .stdin(Stdio::null());
        command
    }

    /// Starts `tonle run`.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts `tonle run` with more arguments.
    pub(crate) fn start_with(&mut self, arguments: &[&str]) {
        let command = self.command(&[&["run"], arguments].concat());
        self.spawn(command);
    }

    /// Starts a prepared command as the running program; what it says goes to the log.
    pub(crate) fn spawn(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "the program runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.child = Some(child.expect("the program can be started"));
    }

    /// Whether a program was started whose end was not waited for.
    pub(crate) fn was_started(&self) -> bool {
        self.child.is_some()
    }

    /// Whether the started program has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Runs `tonle run --once` and expects it to end with this code.
    pub(crate) fn once(&self, code: i32) -> Ending {
        self.once_with(&[], code)
    }

    /// The same with more arguments.
    pub(crate) fn once_with(&self, arguments: &[&str], code: i32) -> Ending {
        let ending = self.end(&[&["run", "--once"], arguments].concat());
        assert_eq!(ending.code, code, "{}", ending.text);
        ending
    }

    /// Runs `tonle verify`.
    pub(crate) fn verify(&self) -> Ending {
        self.end(&["verify"])
    }

    /// Runs a command to its end.
    pub(crate) fn end(&self, arguments: &[&str]) -> Ending {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = [String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)].concat();
        Ending { code: status.code().unwrap_or(-1), text }
    }

    /// Expects `tonle verify` to find the tables equal to what the oracle computes.
    #[track_caller]
    pub(crate) fn assert_true_to_state(&self) {
        let found = self.verify();
        assert_eq!(found.code, 0, "{}\n{}", found.text, self.last_of_log());
    }

    /// Sends SIGTERM, waits for the end, and returns the exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.wait_for_end()
    }

    /// Sends a signal to the running program.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).expect("our own child can be told");
    }

    /// The running program.
    pub(crate) fn process(&self) -> Pid {
        let child = self.child.as_ref().expect("the program runs");
        Pid::from_raw(child.id().cast_signed()).expect("a process has a number")
    }

    /// Waits until the program has ended by itself, and returns the exit code, or the negative number of a signal.
    pub(crate) fn wait_for_end(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            let child = self.child.as_mut().expect("the program was started");
            if let Some(status) = child.try_wait().unwrap() {
                self.child = None;
                return status.code().or(status.signal().map(|signal| -signal)).unwrap();
            }
            let waited = begun.elapsed() < WAIT_MAX;
            assert!(waited, "the program did not end\n{}", self.last_of_log());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Ends the program as a crash would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the program runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until something holds, while the program runs.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            let running = self.child.is_none() || self.is_running();
            assert!(running, "the program ended before {what}\n{}", self.last_of_log());
            let patient = begun.elapsed() < WAIT_MAX;
            assert!(patient, "waited {WAIT_MAX:?} until {what}\n{}", self.last_of_log());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Waits until every save that the simulated server has taken so far is in the tables. Makes one more save,
    /// which changes nothing but the stamp of one case, as the mark to wait for.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, name: &str, sim: &Sim) {
        sim.advance(Duration::from_millis(2));
        let first = sim.cases().swap_remove(0);
        sim.patch(first["id"].as_str().unwrap(), json!({})).unwrap();
        let id = &first["id"];
        let cases = sim.cases();
        let mark = cases.iter().find(|case| case["id"] == *id).expect("it was just saved");
        let mark = mark["last_updated_at"].as_str().unwrap().to_owned();
        let sql = format!(
            "SELECT newest_change >= '{mark}' AND state = 'live' FROM tonle.sync_status
              WHERE instance = '{name}'"
        );
        let what = format!("what {name} saved up to {mark} is in the tables");
        self.wait_until(&what, |program| program.try_query(&sql).as_deref() == Some("t"));
    }

    /// Waits until an instance is published.
    #[track_caller]
    pub(crate) fn wait_until_live(&mut self, name: &str) {
        let sql = format!("SELECT state FROM tonle.sync_status WHERE instance = '{name}'");
        let what = format!("{name} is live");
        self.wait_until(&what, |program| program.try_query(&sql).as_deref() == Some("live"));
    }

    /// What `psql` prints for a query: rows as lines, columns parted by `|`.
    #[track_caller]
    pub(crate) fn query(&self, sql: &str) -> String {
        let output = self.psql(sql);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {complaint}");
        String::from_utf8(output.stdout).expect("psql prints UTF-8").trim_end().to_owned()
    }

    /// The same, or nothing while there is no such table or no server.
    pub(crate) fn try_query(&self, sql: &str) -> Option<String> {
        let output = self.psql(sql);
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim_end().to_owned())
    }

    fn psql(&self, sql: &str) -> Output {
        self.client("psql").args(["-XAtqc", sql]).output().expect("psql runs")
    }

    /// A client program of Postgres that connects to the database.
    pub(crate) fn client(&self, program: &str) -> Command {
        match &self.store {
            Store::Shared(database) => database.client(program),
            Store::Own(cluster) => cluster.client(program, "tonle"),
        }
    }

    /// The whole database as SQL.
    pub(crate) fn dump(&self) -> String {
        let Store::Shared(database) = &self.store else { panic!("only a shared one is dumped") };
        database.dump()
    }

    /// What the page with health and metrics answers, once the running program has opened it.
    pub(crate) fn page(&mut self, path: &str) -> String {
        const OPENED: &str = "opened the page with health and metrics address=";
        self.wait_until("its page is open", |program| program.log().contains(OPENED));
        let log = self.log();
        let address = log.rsplit(OPENED).next().and_then(|rest| rest.split_whitespace().next());
        let mut stream = TcpStream::connect(address.expect("an address follows")).unwrap();
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The published tables, without the columns that say when a row was written.
    pub(crate) fn tables(&self) -> Tables {
        let names = self.query(
            "SELECT 'indicator_values' UNION ALL SELECT table_name FROM tonle.tonle_extracts",
        );
        names.lines().map(|name| (name.to_owned(), self.rows(name))).collect()
    }

    /// The tables that say what rows mean.
    pub(crate) fn descriptions(&self) -> Tables {
        // Labels of options come from servers that may be away; they decide no figure.
        let names = ["indicators", "locations"];
        names.into_iter().map(|name| (name.to_owned(), self.rows(name))).collect()
    }

    /// The sorted rows of one table, without the columns that say when a row was written.
    pub(crate) fn rows(&self, table: &str) -> Vec<String> {
        let columns = self.query(&format!(
            "SELECT string_agg(quote_ident(column_name), ', ' ORDER BY column_name)
               FROM information_schema.columns WHERE table_schema = 'tonle'
                AND table_name = '{table}' AND column_name NOT IN ({WRITTEN_COLUMNS})"
        ));
        let rows = self.query(&format!("SELECT {columns} FROM tonle.{table}"));
        let mut rows: Vec<_> = rows.lines().map(str::to_owned).collect();
        rows.sort();
        rows
    }

    /// The end of the log, for the message of a failed test.
    pub(crate) fn last_of_log(&self) -> String {
        let log = self.log();
        let start = log.len().saturating_sub(LOG_BYTES_SHOWN);
        let start = (start..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
        format!("--- the log ends with:\n{}", &log[start..])
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Expects equal tables, and shows the first differences.
#[track_caller]
pub(crate) fn assert_same_tables(ours: &Tables, theirs: &Tables) {
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (table, rows) in ours {
        let only = |of: &[String], other: &[String]| -> Vec<String> {
            let missing = of.iter().filter(|row| other.binary_search(row).is_err());
            missing.take(5).cloned().collect()
        };
        let (left, right) = (only(rows, &theirs[table]), only(&theirs[table], rows));
        let same = rows == &theirs[table];
        assert!(same, "{table}: only in the first {left:#?}, only in the second {right:#?}");
    }
}

/// A time zone in which it is between six and eighteen o'clock, so that no day ends during a test.
fn zone_far_from_midnight() -> &'static str {
    let hour = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).hour();
    if (6..18).contains(&hour) { "UTC" } else { "Etc/GMT-12" }
}
