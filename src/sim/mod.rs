//! The simulated Primero: version 2.14.0, HTTP Basic, invented cases, live edits, faults to order.
//!
//! It shares no code with the client that reads a real Primero, so that a test of the one against
//! the other proves something. Tests and the demonstration start it with [`start`]; the
//! [`generator`] alone writes files for benchmarks.
//!
//! **Invariant:** the same settings give the same cases, and the same calls in the same order the
//! same edits. Only stamps of live edits depend on a clock.

mod calendar;
mod configuration;
mod country;
mod edits;
mod faults;
mod filter;
/// Invented cases and places, written to files.
pub mod generator;
mod login;
mod managed;
mod page;
mod params;
mod reply;
mod save;
mod schema;
mod server;
mod store;
mod words;

use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::error::{Error, Kind, Result};
use generator::{Dice, Generator};

pub use edits::{Edit, EditKind};
pub use faults::{Fault, Faults};
pub use managed::ReportAccess;
pub use server::Requests;

use edits::Editor;
use login::Login;
use server::Server;
use store::{Clock, Row, Store};

/// The version the server says it is, unless the settings say another.
pub const PRIMERO_VERSION: &str = "2.14.0";

/// Edits per second at most, so that the task that makes them always yields.
const EDITS_PER_SECOND_MAX: u32 = 10_000;
/// Index of the first new case beside the cases of a file, which may be generated ones themselves.
const INDEX_BESIDE_FILE: u64 = 1 << 40;
/// The stream of chance of edits of incidents.
const INCIDENT_EDITS: u64 = u64::MAX - 1;
/// How often the task that edits wakes up.
const EDIT_TICK: Duration = Duration::from_millis(50);

/// What to simulate.
#[derive(Clone)]
pub struct Settings {
    /// A name for messages; nothing depends on it.
    pub name: String,
    /// Decides every case and every edit.
    pub seed: u64,
    /// How many cases there are at the start.
    pub case_count: u64,
    /// The newest day the generated cases know of. When it is not the day of the computer's clock,
    /// the server's clock starts at noon UTC of this day
    /// (or just after the newest stamp of the cases served).
    pub today: jiff::civil::Date,
    /// Whether a few values are missing, wrong or odd.
    pub dirt: bool,
    /// Whether every identifying text is a token `CANARY-<case>-<field>`.
    pub canary: bool,
    /// Where to listen; port 0 lets the system choose. Must be a loopback address.
    pub listen: SocketAddr,
    /// The user name the server accepts.
    pub user: String,
    /// The password the server accepts.
    pub password: String,
    /// The fields of the forms that the user's role may read; all of them without a list.
    pub permitted_fields: Option<Vec<String>>,
    /// A save becomes visible at most this long after its stamp.
    pub commit_delay: Duration,
    /// Random edits made per second by the server itself.
    pub edits_per_second: u32,
    /// The version the server says it is; managed reports count disabled cases up to 2.14.0.
    pub primero_version: String,
    /// Serve the cases of this file, one JSON object a line, instead of invented ones.
    pub from: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "simulated".to_owned(),
            seed: 7,
            case_count: 1_000,
            today: jiff::civil::Date::constant(2026, 6, 30),
            dirt: true,
            canary: false,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            user: "api_reader".to_owned(),
            password: "simulated-password-1".to_owned(),
            permitted_fields: None,
            commit_delay: Duration::ZERO,
            edits_per_second: 0,
            primero_version: PRIMERO_VERSION.to_owned(),
            from: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name)
            .field("seed", &self.seed)
            .field("case_count", &self.case_count)
            .field("today", &self.today)
            .finish_non_exhaustive()
    }
}

/// A running simulated server. Copies speak to the same server; it stops with the last of them.
#[derive(Clone)]
pub struct Sim(Arc<Running>);

struct Running {
    address: SocketAddr,
    server: Arc<Server>,
    stop: watch::Sender<bool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Starts a simulated server in the current tokio runtime.
///
/// # Errors
/// [`Kind::Config`] when the address is not a loopback address or the file of cases cannot be
/// read; [`Kind::Unavailable`] when the address cannot be listened on.
pub async fn start(settings: Settings) -> Result<Sim> {
    if !settings.listen.ip().is_loopback() {
        return Err(Error::config(format!("listening on {}", settings.listen))
            .advise("the simulated server may only listen on a loopback address"));
    }
    let server = Arc::new(build(&settings)?);
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|cause| unavailable(settings.listen).caused_by(cause))?;
    let address =
        listener.local_addr().map_err(|cause| unavailable(settings.listen).caused_by(cause))?;
    let (stop, stopped) = watch::channel(false);
    serve(listener, Arc::clone(&server), stopped.clone());
    if settings.edits_per_second > 0 {
        tokio::spawn(edit_forever(Arc::clone(&server), settings.edits_per_second, stopped));
    }
    Ok(Sim(Arc::new(Running { address, server, stop })))
}

fn unavailable(address: SocketAddr) -> Error {
    Error::new(Kind::Unavailable, format!("listening on {address}"))
}

fn build(settings: &Settings) -> Result<Server> {
    let generator = Generator::new(settings);
    // Edits draw from a stream of their own, so that they do not depend on the number of cases.
    let dice = Dice::new(settings.seed).stream(u64::MAX);
    let clock = Clock::starting_at(start_of_clock(settings.today));
    let mut store = Store::new(clock, settings.commit_delay, dice, settings.canary);
    match &settings.from {
        Some(path) => load_file(path, &mut store)?,
        None => {
            for index in 0..settings.case_count {
                store.load(Row::read(&generator.case(index, None))?);
            }
        }
    }
    store.pass_newest_stamp();
    let mut incidents = Store::new(
        Clock::starting_at(start_of_clock(settings.today)),
        Duration::ZERO,
        Dice::new(settings.seed).stream(INCIDENT_EDITS),
        settings.canary,
    );
    if settings.from.is_none() {
        for incident in (0..settings.case_count).flat_map(|index| generator.incidents(index)) {
            incidents.load(Row::read(&incident)?);
        }
    }
    incidents.pass_newest_stamp();
    let next_index = if settings.from.is_some() { INDEX_BESIDE_FILE } else { settings.case_count };
    let editor = Editor::new(generator, next_index);
    let login = Login::new(&settings.user, &settings.password);
    let permitted = settings.permitted_fields.clone();
    let version = settings.primero_version.clone();
    Ok(Server::new(store, incidents, editor, login, permitted, version))
}

fn start_of_clock(today: jiff::civil::Date) -> i64 {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let day = calendar::day_of(today);
    let is_today = now_ms.div_euclid(calendar::DAY_MS) == day;
    if is_today { now_ms } else { day * calendar::DAY_MS + calendar::DAY_MS / 2 }
}

fn load_file(path: &Path, store: &mut Store) -> Result<()> {
    let reading = || format!("reading cases from {}", path.display());
    let file =
        std::fs::File::open(path).map_err(|cause| Error::config(reading()).caused_by(cause))?;
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|cause| Error::config(reading()).caused_by(cause))?;
        if !line.trim().is_empty() {
            let row = Row::read(&line).map_err(|error| {
                error.while_doing(format!("{}, line {}", reading(), number + 1))
            })?;
            store.load(row);
        }
    }
    Ok(())
}

fn serve(listener: TcpListener, server: Arc<Server>, stopped: watch::Receiver<bool>) {
    let answering = stopped.clone();
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let (server, mut stopped) = (Arc::clone(&server), answering.clone());
        async move {
            tokio::select! {
                response = server.answer(request) => response,
                _ = stopped.wait_for(|stopped| *stopped) => reply::Reply::no_content().send(),
            }
        }
    });
    let mut stopped = stopped;
    let until = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(until).await });
}

async fn edit_forever(server: Arc<Server>, per_second: u32, mut stopped: watch::Receiver<bool>) {
    let per_second = f64::from(per_second.min(EDITS_PER_SECOND_MAX));
    let mut tick = tokio::time::interval(EDIT_TICK);
    let mut owed = 0.0;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        owed += per_second * EDIT_TICK.as_secs_f64();
        while owed >= 1.0 {
            owed -= 1.0;
            if edit(&server).is_err() {
                return;
            }
        }
    }
}

fn edit(server: &Server) -> Result<Edit> {
    let mut editor = server.editor();
    let edit = editor.edit(&mut server.store())?;
    editor.follow(&edit, &mut server.incidents())?;
    Ok(edit)
}

impl Sim {
    /// `http://127.0.0.1:<port>`, without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// Makes `count` seeded random edits now, one after the other, and says what they were.
    ///
    /// # Errors
    /// [`Kind::Bug`] when a stored case is not JSON.
    pub fn edit(&self, count: usize) -> Result<Vec<Edit>> {
        (0..count).map(|_| edit(&self.0.server)).collect()
    }

    /// Saves a case with these fields changed, by the server's rules (closing date, reopening log,
    /// derived fields, stamp). An unknown id makes a new case; no fields only move the stamp.
    ///
    /// # Errors
    /// [`Kind::Config`] when `fields` is not an object.
    pub fn patch(&self, case: &str, fields: Value) -> Result<()> {
        let Value::Object(fields) = fields else {
            return Err(Error::config("patching a simulated case: the fields are not an object"));
        };
        let mut store = self.0.server.store();
        let mut document = match store.newest(case) {
            Some(row) => row.document(),
            None => {
                let created = calendar::instant_text(store.now_ms());
                let new = [
                    ("id", case.into()),
                    ("record_state", true.into()),
                    ("created_at", created.into()),
                ];
                new.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }
        };
        document.extend(fields);
        store.save(document, "worker_000")
    }

    /// Saves an incident with these fields changed; false when there is none with this id.
    ///
    /// # Errors
    /// [`Kind::Config`] when `fields` is not an object.
    pub fn patch_incident(&self, incident: &str, fields: Value) -> Result<bool> {
        let Value::Object(fields) = fields else {
            return Err(Error::config("patching a simulated incident: this is not an object"));
        };
        self.0.server.incidents().touch(incident, fields)
    }

    /// The newest version of every incident, disabled ones too, in order of id.
    pub fn incidents(&self) -> Vec<Value> {
        let rows = self.0.server.incidents().newest_all();
        rows.iter().map(|row| Value::Object(row.document())).collect()
    }

    /// Changes whether the caller's role may read incidents, as it may at the start.
    pub fn set_incidents_permitted(&self, may: bool) {
        self.0.server.rights().incidents = may;
    }

    /// Changes whether the caller's role may read agencies, as it may not at the start.
    pub fn set_agencies_permitted(&self, may: bool) {
        self.0.server.rights().agencies = may;
    }

    /// Deletes a case for good; false when there is none with this id.
    pub fn delete(&self, case: &str) -> bool {
        self.0.server.store().delete(case)
    }

    /// Takes a case out of the caller's scope (403, absent from lists), or brings it back.
    pub fn set_scope(&self, case: &str, within: bool) {
        self.0.server.store().set_scope(case, within);
    }

    /// Changes which form fields the caller's role may read; `None` means all.
    pub fn set_permitted_fields(&self, fields: Option<Vec<String>>) {
        self.0.server.set_permitted(fields);
    }

    /// Changes which cases the caller's managed reports count.
    pub fn set_report_access(&self, access: ReportAccess) {
        self.0.server.rights().reports = access;
    }

    /// Starts or ends the state in which a configuration is being applied: 503 everywhere.
    pub fn set_configuration_lock(&self, locked: bool) {
        self.0.server.set_locked(locked);
    }

    /// Changes the password the server accepts.
    pub fn set_password(&self, password: &str) {
        self.0.server.login().set_password(password);
    }

    /// Opens the account after too many failed sign-ins.
    pub fn unlock(&self) {
        self.0.server.login().unlock();
    }

    /// The faults to order.
    pub fn faults(&self) -> Faults {
        self.0.server.faults.clone()
    }

    /// What the server has counted.
    pub fn requests(&self) -> Requests {
        self.0.server.requests()
    }

    /// The newest request lines (`GET /api/v2/cases?…`), oldest first, at most 20,000.
    pub fn request_lines(&self) -> Vec<String> {
        self.0.server.request_lines()
    }

    /// The newest version of every case, disabled ones too, in order of id; saves that are not
    /// visible to readers yet are included.
    pub fn cases(&self) -> Vec<Value> {
        let rows = self.0.server.store().newest_all();
        rows.iter().map(|row| Value::Object(row.document())).collect()
    }

    /// How many cases a reader may see now.
    pub fn count(&self) -> usize {
        self.0.server.store().count()
    }

    /// Moves the server's clock on, so that late commits come and days pass without waiting.
    pub fn advance(&self, time: Duration) {
        let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        self.0.server.store().advance(ms);
        self.0.server.incidents().advance(ms);
    }

    /// What the server's clock shows, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.0.server.store().now_ms()
    }

    /// Every canary that any version of any case or incident has carried, and every record id. Staff names
    /// begin with `CANARY-staff-`. Empty unless [`Settings::canary`] is set.
    pub fn canaries(&self) -> Vec<String> {
        let mut canaries = self.0.server.store().canaries();
        canaries.extend(self.0.server.incidents().canaries());
        canaries
    }

    /// Stops listening; connections end after the reply they are at.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    /// Waits until the server is stopped.
    pub async fn stopped(&self) {
        let mut stopped = self.0.stop.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
}
