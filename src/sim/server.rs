//! The HTTP side: routes, sign-in, and what each request gets.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{DATE, SET_COOKIE};
use axum::http::{HeaderName, Method, Request, Response};
use serde_json::{Value, json};

use super::calendar;
use super::configuration;
use super::country::Country;
use super::edits::Editor;
use super::faults::{Fault, Faults};
use super::filter::{Filter, Refusal};
use super::login::{self, Login, Rights, Sessions};
use super::managed::{self, ReportAccess};
use super::page::{self, Order, Page, Selection};
use super::params::{Given, Params, convert};
use super::reply::Reply;
use super::schema;
use super::store::{Row, Store};

/// The longest request line the shipped proxy takes, in bytes.
const REQUEST_LINE_BYTES_MAX: usize = 1_024;
/// Request lines remembered; older ones are forgotten.
const REQUEST_LINES_MAX: usize = 20_000;
/// Rows of a page of locations when the request does not say.
const LOCATIONS_PER_DEFAULT: i64 = 100;
/// No request hangs longer than this.
const HANG_MAX: Duration = Duration::from_secs(600);

/// What the server has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// All requests, faults included.
    pub total: u64,
    /// Lists of cases.
    pub lists: u64,
    /// Single cases.
    pub shows: u64,
    /// Requests that did not resend a session cookie: each is a row in the server's database.
    pub without_cookie: u64,
    /// 401 replies.
    pub refused: u64,
    /// 304 replies.
    pub not_modified: u64,
    /// Requests that got a fault.
    pub faults: u64,
    /// Cases sent in lists and alone.
    pub cases_sent: u64,
}

/// What has been seen of the callers.
#[derive(Default)]
struct Seen {
    counts: Requests,
    lines: VecDeque<String>,
}

/// The simulated server.
pub(super) struct Server {
    store: Mutex<Store>,
    incidents: Mutex<Store>,
    rights: Mutex<Rights>,
    editor: Mutex<Editor>,
    pub(super) faults: Faults,
    login: Mutex<Login>,
    sessions: Mutex<Sessions>,
    seen: Mutex<Seen>,
    permitted: Mutex<Option<Vec<String>>>,
    locked: AtomicBool,
    version: String,
    country: Country,
}

/// A lock whose holder panicked is still good: every change is complete or absent.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(super) fn new(
        store: Store,
        incidents: Store,
        editor: Editor,
        login: Login,
        permitted: Option<Vec<String>>,
        version: String,
    ) -> Self {
        Self {
            store: Mutex::new(store),
            incidents: Mutex::new(incidents),
            rights: Mutex::new(Rights::AT_FIRST),
            editor: Mutex::new(editor),
            faults: Faults::default(),
            login: Mutex::new(login),
            sessions: Mutex::default(),
            seen: Mutex::default(),
            permitted: Mutex::new(permitted),
            locked: AtomicBool::new(false),
            version,
            country: Country::new(),
        }
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        hold(&self.store)
    }

    pub(super) fn incidents(&self) -> MutexGuard<'_, Store> {
        hold(&self.incidents)
    }

    pub(super) fn rights(&self) -> MutexGuard<'_, Rights> {
        hold(&self.rights)
    }

    pub(super) fn editor(&self) -> MutexGuard<'_, Editor> {
        hold(&self.editor)
    }

    pub(super) fn login(&self) -> MutexGuard<'_, Login> {
        hold(&self.login)
    }

    pub(super) fn set_permitted(&self, fields: Option<Vec<String>>) {
        *hold(&self.permitted) = fields;
    }

    pub(super) fn set_locked(&self, locked: bool) {
        self.locked.store(locked, Ordering::SeqCst);
    }

    pub(super) fn requests(&self) -> Requests {
        hold(&self.seen).counts
    }

    pub(super) fn request_lines(&self) -> Vec<String> {
        hold(&self.seen).lines.iter().cloned().collect()
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let fault = self.faults.take(&path);
        self.note(&request, fault.is_some());
        match fault {
            None => self.proper(&request).send(),
            Some(Fault::Hang(time)) => {
                tokio::time::sleep(time.min(HANG_MAX)).await;
                self.proper(&request).send_half()
            }
            Some(Fault::CutBody) => self.proper(&request).send_half(),
            Some(Fault::SlowBody(pause)) => self.proper(&request).send_slowly(pause),
            Some(Fault::Broken) => Reply::error(500, &path, None, "stack level too deep").send(),
            Some(Fault::TooManyRequests { retry_after_s }) => Reply::too_many(retry_after_s).send(),
            Some(Fault::Unavailable { retry_after_s }) => {
                Reply::unavailable(&path, retry_after_s).send()
            }
            Some(Fault::NotJson) => Reply::json("{\"data\": [{\"id\": <html>".to_owned()).send(),
            Some(Fault::OddShape) => {
                Reply::json(json!({"data": {"rows": 3}, "metadata": []}).to_string()).send()
            }
            Some(Fault::FalseEmpty) => {
                let params = Params::read(request.uri().query().unwrap_or_default());
                let page = Page::read(&params, page::PER_DEFAULT, page::PER_MAX);
                list_reply(&[], 0, page).validate(request.headers()).send()
            }
            Some(Fault::Unauthorized) => self.refuse(login::INVALID).send(),
        }
    }

    fn note(&self, request: &Request<Body>, faulty: bool) {
        let mut seen = hold(&self.seen);
        seen.counts.total += 1;
        seen.counts.faults += u64::from(faulty);
        if seen.lines.len() >= REQUEST_LINES_MAX {
            seen.lines.pop_front();
        }
        seen.lines.push_back(format!("{} {}", request.method(), request.uri()));
    }

    fn count(&self, change: impl FnOnce(&mut Requests)) {
        change(&mut hold(&self.seen).counts);
    }

    fn refuse(&self, sentence: &str) -> Reply {
        self.count(|counts| counts.refused += 1);
        Reply::unauthorized(sentence).validate(&axum::http::HeaderMap::new())
    }

    /// The reply without any fault.
    fn proper(&self, request: &Request<Body>) -> Reply {
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let line = request.method().as_str().len() + target + "  HTTP/1.1\r\n".len();
        if line > REQUEST_LINE_BYTES_MAX {
            return Reply::line_too_long();
        }
        let mut reply = self.route(request);
        if reply.status.as_u16() == 304 {
            self.count(|counts| counts.not_modified += 1);
        }
        let mut store = self.store();
        reply.set(HeaderName::from_static("x-request-id"), &store.dice.uuid());
        // Of the same clock as the stamps, which a test may have moved on.
        if let Some(date) = calendar::http_date(store.now_ms()) {
            reply.set(DATE, &date);
        }
        drop(store);
        reply.compress(request.headers())
    }

    fn route(&self, request: &Request<Body>) -> Reply {
        let path = request.uri().path();
        let path = path.strip_suffix('/').unwrap_or(path);
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Reply::no_route();
        }
        if let Some(check) = path.strip_prefix("/health") {
            return self.health(check).validate(request.headers());
        }
        let Some(resource) = path.strip_prefix("/api/v2/") else { return Reply::no_route() };
        match self.api(request, path, resource) {
            Ok(reply) => {
                let mut reply = reply.validate(request.headers());
                self.start_session(request, &mut reply);
                reply
            }
            Err(sentence) => self.refuse(sentence),
        }
    }

    /// A call that does not resend a session's cookie gets a new session, signed in or not.
    fn start_session(&self, request: &Request<Body>, reply: &mut Reply) {
        let mut sessions = hold(&self.sessions);
        if !sessions.knows(request.headers()) {
            let session = self.store().dice.uuid().replace('-', "");
            self.count(|counts| counts.without_cookie += 1);
            let cookie = format!("_app_session={session}; path=/; HttpOnly; SameSite=Lax");
            reply.set(SET_COOKIE, &cookie);
            sessions.add(session);
        }
    }

    fn health(&self, check: &str) -> Reply {
        let locked = self.locked.load(Ordering::SeqCst);
        match check {
            "/api" if locked => Reply::unhealthy(),
            "" | "/api" | "/database" | "/solr" | "/server" => Reply::no_content(),
            _ => Reply::unhealthy(),
        }
    }

    /// Routes under `/api/v2`; the error is a sentence of the sign-in.
    fn api(
        &self,
        request: &Request<Body>,
        path: &str,
        resource: &str,
    ) -> Result<Reply, &'static str> {
        let locked = self.locked.load(Ordering::SeqCst);
        let public = matches!(resource, "primero" | "identity_providers");
        if !public && is_route(resource) {
            self.login().check(request.headers())?;
        }
        if locked && is_route(resource) {
            return Ok(Reply::unavailable(path, Some(60)));
        }
        let params = Params::read(request.uri().query().unwrap_or_default());
        Ok(match resource {
            "primero" => Reply::json(configuration::public().to_string()),
            "identity_providers" => Reply::json(
                json!({"data": [], "metadata": {"use_identity_provider": false}}).to_string(),
            ),
            "cases" => self.cases(path, &params),
            "incidents" if self.rights().incidents => self.list_incidents(path, &params),
            "locations" => self.locations(path, &params),
            "lookups" => lookups(path, &params),
            "forms" => {
                let nested = params.text("exclude_subforms") != Some("true");
                let of = params.text("record_type").unwrap_or("case");
                Reply::json(configuration::forms(of, nested).to_string())
            }
            "system_settings" => {
                let extended = params.text("extended") == Some("true");
                Reply::json(configuration::settings(extended, locked, &self.version).to_string())
            }
            "contact_information" => Reply::json(configuration::contact(&self.version).to_string()),
            "agencies" if self.rights().agencies => agencies(&params),
            "agencies" | "incidents" => Reply::error(403, path, None, "Forbidden"),
            "cases.json" => Reply::error(
                500,
                path,
                None,
                "undefined method `parent_form' for nil:NilClass\n\n      roles",
            ),
            _ => match resource.strip_prefix("cases/") {
                Some(id) if !id.contains('/') => self.show(path, id, &params),
                _ if resource.starts_with("lookups/") => Reply::error(403, path, None, "Forbidden"),
                _ => match resource.strip_prefix("managed_reports/") {
                    Some(id) => self.managed_report(path, id, &params),
                    None => Reply::no_route(),
                },
            },
        })
    }

    /// Whether the caller's role may see a field; `None` means every form is readable.
    fn permitted(&self) -> Option<Vec<String>> {
        hold(&self.permitted).clone()
    }

    fn cases(&self, path: &str, params: &Params) -> Reply {
        self.count(|counts| counts.lists += 1);
        let role = self.permitted();
        let permitted = |name: &str| may_see(role.as_deref(), name);
        self.list(path, params, &self.store, (&permitted, role.is_some()))
    }

    fn list_incidents(&self, path: &str, params: &Params) -> Reply {
        let permitted = &schema::is_known_of_incidents;
        self.list(path, params, &self.incidents, (permitted, false))
    }

    /// A page of the records in a store. What may be seen is all there is unless the role is `narrow`.
    fn list(
        &self,
        path: &str,
        params: &Params,
        store: &Mutex<Store>,
        (permitted, narrow): (&dyn Fn(&str) -> bool, bool),
    ) -> Reply {
        let page = Page::read(params, page::PER_DEFAULT, page::PER_MAX);
        let salt = self.requests().total;
        let found = Filter::build(params, permitted)
            .and_then(|filter| filter.check().map(|()| filter))
            .and_then(|filter| find(&mut hold(store), &filter, params, (page, salt)));
        let (rows, total) = match found {
            Ok(found) => found,
            Err(Refusal::Sql) => (Vec::new(), 0),
            Err(Refusal::Failure(message)) => return Reply::error(500, path, None, &message),
        };
        if let Err(message) = page.check() {
            return Reply::error(500, path, None, message);
        }
        self.count(|counts| counts.cases_sent += rows.len() as u64);
        let selection = Selection::read(params);
        let narrow = narrow.then_some(permitted);
        let texts: Vec<String> = rows.iter().map(|row| selection.render(row, narrow)).collect();
        list_reply(&texts, total, page)
    }

    fn managed_report(&self, path: &str, id: &str, params: &Params) -> Reply {
        let access = self.rights().reports;
        let mut store = self.store();
        let mut rows = store.visible().to_vec();
        rows.retain(|row| access == ReportAccess::Everything || store.in_scope(&row.id));
        drop(store);
        match access {
            ReportAccess::Forbidden => Reply::error(403, path, None, "Forbidden"),
            _ => managed::answer(path, id, params, &self.version, &rows),
        }
    }

    fn show(&self, path: &str, id: &str, params: &Params) -> Reply {
        self.count(|counts| counts.shows += 1);
        let mut store = self.store();
        let within = store.in_scope(id);
        let Some(row) = store.find(id).cloned() else {
            let detail = format!("Couldn't find Child with 'id'=\"{id}\"");
            return Reply::error(404, path, Some(&detail), "Not Found");
        };
        drop(store);
        if !within {
            return Reply::error(403, path, None, "Forbidden");
        }
        self.count(|counts| counts.cases_sent += 1);
        let role = self.permitted();
        let permitted = |name: &str| may_see(role.as_deref(), name);
        let narrow = role.as_ref().map(|_| &permitted as &dyn Fn(&str) -> bool);
        let case = Selection::read(params).render(&row, narrow);
        Reply::json(format!("{{\"data\":{case}}}"))
    }

    fn locations(&self, path: &str, params: &Params) -> Reply {
        let page = Page::read(params, LOCATIONS_PER_DEFAULT, i64::MAX);
        if page.page < 1 {
            return Reply::error(500, path, None, &format!("invalid page: {}", page.page));
        }
        let hierarchy = params.text("hierarchy") == Some("true");
        let places = self.country.places();
        let enabled_only = params.get("disabled").is_some_and(|raw| match convert(raw) {
            Given::List(values) => values == [Given::Bool(false)],
            value => value == Given::Bool(false),
        });
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.retain(|at| !(enabled_only && places[*at].disabled));
        match params.text("order_by") {
            Some("code" | "hierarchy") => order.sort_by_key(|at| &places[*at].code),
            // Without an order the database gives rows as they lie.
            _ => order.sort_by_key(|at| at % 7),
        }
        if params.text("order").is_some_and(|order| order.eq_ignore_ascii_case("desc")) {
            order.reverse();
        }
        let data: Vec<String> = page
            .cut(&order)
            .iter()
            .map(|at| self.country.reply(*at, hierarchy).to_string())
            .collect();
        list_reply(&data, order.len(), page)
    }
}

/// The rows of one page, and how many rows match in all.
fn find(
    store: &mut Store,
    filter: &Filter,
    params: &Params,
    (page, salt): (Page, u64),
) -> Result<(Vec<Row>, usize), Refusal> {
    let hidden: Option<Vec<String>> = (!store.all_in_scope()).then(|| {
        let ids: Vec<String> = store.visible().iter().map(|row| row.id.clone()).collect();
        ids.into_iter().filter(|id| !store.in_scope(id)).collect()
    });
    let mut rows = Vec::new();
    for row in store.visible() {
        let reachable = hidden.as_ref().is_none_or(|hidden| !hidden.contains(&row.id));
        if reachable && filter.matches(row)? {
            rows.push(row);
        }
    }
    Order::read(params, salt).sort(&mut rows);
    let total = rows.len();
    Ok((page.cut(&rows).iter().map(|row| (*row).clone()).collect(), total))
}

fn agencies(params: &Params) -> Reply {
    let page = Page::read(params, page::PER_DEFAULT, page::PER_MAX);
    let agencies = configuration::agencies();
    let data: Vec<String> = page.cut(&agencies).iter().map(Value::to_string).collect();
    list_reply(&data, agencies.len(), page)
}

fn lookups(path: &str, params: &Params) -> Reply {
    let page = Page::read(params, page::PER_DEFAULT, page::PER_MAX);
    if let Err(message) = page.check() {
        return Reply::error(500, path, None, message);
    }
    let mut lookups = configuration::lookups();
    if params.text("order_by").is_none() {
        lookups.reverse();
    }
    let data: Vec<String> = page.cut(&lookups).iter().map(Value::to_string).collect();
    list_reply(&data, lookups.len(), page)
}

/// Whether the route exists, so that the sign-in is asked for before anything else.
fn is_route(resource: &str) -> bool {
    let first = resource.split('/').next().unwrap_or_default();
    matches!(
        first,
        "cases"
            | "cases.json"
            | "incidents"
            | "locations"
            | "lookups"
            | "managed_reports"
            | "forms"
            | "system_settings"
            | "contact_information"
            | "agencies"
            | "primero"
            | "identity_providers"
    )
}

fn may_see(role: Option<&[String]>, name: &str) -> bool {
    match role {
        None => schema::is_known(name),
        Some(fields) => {
            schema::CORE_FIELDS.contains(&name) || fields.iter().any(|field| field == name)
        }
    }
}

fn list_reply(data: &[String], total: usize, page: Page) -> Reply {
    let Page { page, per } = page;
    let data = data.join(",");
    Reply::json(format!(
        "{{\"data\":[{data}],\"metadata\":{{\"total\":{total},\"per\":{per},\"page\":{page}}}}}"
    ))
}
