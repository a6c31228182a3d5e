//! The simulated server answers recorded requests as the recorded server (v2.14.0) did.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};
use tonle::sim::{self, EditKind, Fault, ReportAccess, Settings, Sim};

/// No reply of the simulated server takes longer than this, faults included.
const REPLY_MAX: Duration = Duration::from_secs(20);

/// Headers that belong to one exchange or to the web server, not to the contract.
const OTHER_HEADERS: &[&str] =
    &["transfer-encoding", "content-length", "date", "connection", "content-security-policy"];

/// A simulated server with a runtime of its own.
struct World {
    sim: Sim,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    fn start(settings: Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let sim = runtime.block_on(sim::start(settings)).unwrap();
        Self { sim, _runtime: runtime }
    }

    /// Serving the 317 recorded cases.
    fn recorded() -> Self {
        Self::start(Settings { from: Some(data("cases.ndjson")), ..Settings::default() })
    }

    fn invented(case_count: u64) -> Self {
        Self::start(Settings { case_count, ..Settings::default() })
    }

    fn get(&self, target: &str) -> Reply {
        self.send(target, &[&signed("api_reader", &Settings::default().password)])
    }

    fn send(&self, target: &str, headers: &[&str]) -> Reply {
        self.try_send("GET", target, headers).unwrap()
    }

    fn try_send(&self, method: &str, target: &str, headers: &[&str]) -> std::io::Result<Reply> {
        let url = self.sim.base_url();
        let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
        stream.set_read_timeout(Some(REPLY_MAX))?;
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        stream.write_all(format!("{head}{headers}\r\n").as_bytes())?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(Reply::read(&String::from_utf8_lossy(&bytes)))
    }
}

fn signed(user: &str, password: &str) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {text}")
}

/// A reply as it came over the wire.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    text: String,
}

impl Reply {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or("0");
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Self { status: status.parse().unwrap(), headers, text: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; an empty body is an empty text, as in the recordings.
    fn body(&self) -> Value {
        if self.text.is_empty() { json!("") } else { serde_json::from_str(&self.text).unwrap() }
    }

    fn total(&self) -> i64 {
        self.body()["metadata"]["total"].as_i64().unwrap()
    }

    fn ids(&self) -> Vec<String> {
        let body = self.body();
        let rows = body["data"].as_array().unwrap();
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings").join(name)
}

/// A recorded exchange.
struct Recording {
    target: String,
    signed_in: bool,
    status: u16,
    headers: Vec<(String, String)>,
    body: Value,
}

fn recording(name: &str) -> Recording {
    let text = std::fs::read_to_string(data(&format!("{name}.json"))).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let request = &value["request"];
    let query = request["query"].as_str().unwrap();
    let mark = if query.is_empty() { "" } else { "?" };
    let pair = |pair: &Value| {
        (pair[0].as_str().unwrap().to_lowercase(), pair[1].as_str().unwrap().to_owned())
    };
    Recording {
        target: format!("{}{mark}{query}", request["path"].as_str().unwrap()),
        signed_in: !value["as"].is_null(),
        status: value["status"].as_u64().unwrap() as u16,
        headers: value["headers"].as_array().unwrap().iter().map(pair).collect(),
        body: value["body"].clone(),
    }
}

/// Sends a recorded request and compares what must be the same whatever the data are: status,
/// header names, content type, top-level keys and their types, page and page length.
fn replay(world: &World, name: &str) -> (Recording, Reply) {
    let recorded = recording(name);
    let reply = if recorded.signed_in {
        world.get(&recorded.target)
    } else {
        world.send(&recorded.target, &[])
    };
    compare(name, &recorded, &reply);
    (recorded, reply)
}

fn compare(name: &str, recorded: &Recording, reply: &Reply) {
    assert_eq!(reply.status, recorded.status, "{name}");
    let find = |wanted: &str| {
        recorded.headers.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str())
    };
    for header in ["content-type", "cache-control", "www-authenticate", "retry-after", "vary"] {
        assert_eq!(reply.header(header), find(header), "{header} of {name}");
    }
    for (header, value) in &recorded.headers {
        let own = OTHER_HEADERS.contains(&header.as_str()) || value.starts_with("CSRF");
        assert!(own || reply.header(header).is_some(), "{header} of {name}");
    }
    let (ours, theirs) = (reply.body(), &recorded.body);
    assert_eq!(shape(&ours), shape(theirs), "{name}");
    for key in ["per", "page"] {
        assert_eq!(ours["metadata"][key], theirs["metadata"][key], "{key} of {name}");
    }
}

/// The keys of an object with the types of their values.
fn shape(value: &Value) -> Vec<String> {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    match value {
        Value::Object(object) => {
            object.iter().map(|(key, value)| format!("{key}: {}", kind(value))).collect()
        }
        other => vec![kind(other).to_owned()],
    }
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn lists_have_the_recorded_shape_and_totals() {
    let world = World::recorded();
    for name in [
        "index-default",
        "index-digits-against-text-column",
        "index-fields",
        "index-fields-unknown-only",
        "index-open-numeric-range",
        "index-order-last-updated-asc",
        "index-order-unique-identifier",
        "index-page-beyond-end",
        "index-per-over-cap",
        "index-range-created-at",
        "index-range-last-updated",
        "index-range-last-updated-open",
        "index-range-last-updated-no-lower-bound",
        "index-record-state-false",
        "index-single-instant",
        "index-status-closed",
        "index-subform-filter-empty",
        "index-unescaped-plus-dropped",
        "index-unknown-filter-ignored",
    ] {
        let (recorded, reply) = replay(&world, name);
        let total = recorded.body["metadata"]["total"].as_i64().unwrap();
        // One case was saved once more between this recording and that of the cases.
        let later = i64::from(name == "index-range-last-updated-open");
        assert_eq!(reply.total(), total + later, "{name}");
        let count = recorded.body["data"].as_array().unwrap().len();
        assert_eq!(reply.ids().len(), count, "{name}");
    }
}

#[test]
fn rows_that_were_recorded_in_both_places_are_equal() {
    let world = World::recorded();
    let mut compared = 0;
    for name in ["index-default", "index-fields", "index-fields-short", "index-fields-unknown-only"]
    {
        let (recorded, reply) = replay(&world, name);
        let ours = reply.body();
        for row in recorded.body["data"].as_array().unwrap() {
            let same = |other: &&Value| {
                other["id"] == row["id"] && other["last_updated_at"] == row["last_updated_at"]
            };
            if let Some(found) = ours["data"].as_array().unwrap().iter().find(same) {
                assert_eq!(found, row, "{name}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 8, "{compared}");
}

#[test]
fn the_recorded_polling_loop_finds_the_same_rows() {
    let world = World::recorded();
    let text = std::fs::read_to_string(data("poll-sequence.ndjson")).unwrap();
    let mut calls = 0;
    for line in text.lines() {
        let call: Value = serde_json::from_str(line).unwrap();
        let query = call["request"]["query"].as_str().unwrap();
        let reply = world.get(&format!("/api/v2/cases?{query}"));
        assert_eq!(reply.body()["metadata"], call["body"]["metadata"]);
        let sorted = |body: &Value| {
            let mut rows: Vec<String> =
                body["data"].as_array().unwrap().iter().map(Value::to_string).collect();
            rows.sort();
            rows
        };
        assert_eq!(sorted(&reply.body()), sorted(&call["body"]));
        calls += 1;
    }
    assert_eq!(calls, 4);
}

#[test]
fn errors_are_the_recorded_ones_word_for_word() {
    let world = World::recorded();
    for name in [
        "index-page-zero",
        "show-404",
        "show-404-malformed-id",
        "error-403-agencies",
        "error-500-json-suffix",
        "auth-none-401",
    ] {
        let (recorded, reply) = replay(&world, name);
        assert_eq!(reply.body(), recorded.body, "{name}");
    }
    let (_, reply) = replay(&world, "index-range-bad-upper");
    assert!(reply.text.contains("undefined method `iso8601' for \\\"garbage\\\":String"));
    world.sim.set_scope("1feb6861-c57d-48a7-a93b-1f92ffe87685", false);
    let (recorded, reply) = replay(&world, "show-403-out-of-scope");
    assert_eq!(reply.body(), recorded.body);
    assert_eq!(world.get("/api/v2/cases?per=1").total(), 316);
    let unknown = world.get("/api/v2/nonsense");
    assert_eq!((unknown.status, unknown.text.as_str()), (404, ""));
    assert!(unknown.header("content-type").unwrap().starts_with("text/html"));
}

#[test]
fn managed_reports_are_the_recorded_ones_word_for_word() {
    let world = World::recorded();
    for name in [
        "concerns-one",
        "followups",
        "followups-by-month",
        "followups-range",
        "protection-concerns",
        "reporting-locations",
        "services",
        "services-one-type-500",
        "services-range",
        "workflow",
        "workflow-by-month",
        "workflow-by-quarter",
        "workflow-closed",
        "workflow-group-scope",
        "workflow-one-state",
        "workflow-range",
        "workflow-scalar-range-grouped-500",
        "workflow-scalar-range-ignored",
    ] {
        let (recorded, reply) = replay(&world, &format!("managed-report-{name}"));
        assert_eq!(reply.body(), recorded.body, "{name}");
    }
    let status = |target: &str| world.get(&format!("/api/v2/managed_reports/{target}")).status;
    assert_eq!(status("no_such_report"), 422);
    world.sim.set_report_access(ReportAccess::Forbidden);
    assert_eq!(status("followups_report"), 403);
}

#[test]
fn single_cases_have_the_recorded_keys() {
    let world = World::recorded();
    for name in ["show-full", "show-fields"] {
        let (recorded, reply) = replay(&world, name);
        assert_eq!(keys(&reply.body()["data"]), keys(&recorded.body["data"]), "{name}");
    }
}

#[test]
fn a_narrow_role_gets_the_recorded_fields() {
    let world = World::recorded();
    world.sim.set_permitted_fields(Some(Vec::new()));
    for name in ["index-narrow-role", "index-narrow-role-fields"] {
        let (recorded, reply) = replay(&world, name);
        let (ours, theirs) = (reply.body(), recorded.body);
        assert_eq!(keys(&ours["data"][0]), keys(&theirs["data"][0]), "{name}");
    }
    // What the role may not read it may not filter by, except inside `or`.
    assert_eq!(world.get("/api/v2/cases?per=1&name_first=Nilo").total(), 317);
    assert!(world.get("/api/v2/cases?per=1&or[name_first]=Nilo").total() < 317);
}

#[test]
fn one_bad_row_empties_a_date_range() {
    let world = World::recorded();
    let range = "/api/v2/cases?date_of_birth=2000-01-01..2030-01-01&fields=status";
    assert!(world.get(range).total() > 100);
    let first = world.sim.cases().swap_remove(0);
    world.sim.patch(first["id"].as_str().unwrap(), json!({"date_of_birth": "unknown"})).unwrap();
    let (_, reply) = replay(&world, "index-filter-broken-by-one-row");
    assert_eq!(reply.total(), 0);
}

#[test]
fn sign_in_fails_as_recorded_and_locks() {
    let world = World::recorded();
    let password = Settings::default().password;
    let wrong = [signed("api_reader", "wrong")];
    let recorded = recording("auth-wrong-password-401");
    for _ in 0..6 {
        let reply = world.send(&recorded.target, &[&wrong[0]]);
        compare("auth-wrong-password-401", &recorded, &reply);
        assert_eq!(reply.body(), recorded.body);
        assert_eq!(reply.header("set-cookie"), None);
    }
    let (locked, reply) = replay(&world, "auth-locked-401");
    assert_eq!(reply.body(), locked.body);
    world.sim.unlock();
    assert_eq!(world.send(&recorded.target, &[&signed("api_reader", &password)]).status, 200);
    assert_eq!(world.send(&recorded.target, &[&signed("API_READER", &password)]).status, 401);
}

#[test]
fn configuration_has_the_recorded_shape() {
    let world = World::invented(1);
    for name in ["identity-providers", "primero-public", "contact-information", "health-api"] {
        replay(&world, name);
    }
    for name in ["primero-public", "system-settings", "system-settings-extended"] {
        let (recorded, reply) = replay(&world, name);
        assert_eq!(shape(&reply.body()["data"]), shape(&recorded.body["data"]), "{name}");
    }
    for name in ["locations-hierarchy", "locations-default", "lookups-page1"] {
        let (recorded, reply) = replay(&world, name);
        let (ours, theirs) = (reply.body(), recorded.body);
        assert_eq!(shape(&ours["data"][0]), shape(&theirs["data"][0]), "{name}");
    }
    let (recorded, reply) = replay(&world, "forms-case");
    let union = |body: &Value, inner: &str| -> BTreeSet<String> {
        let forms = body["data"].as_array().unwrap();
        forms.iter().flat_map(|form| form[inner].as_array().unwrap()).flat_map(keys).collect()
    };
    assert!(union(&reply.body(), "fields").is_subset(&union(&recorded.body, "fields")));
    let (ours, theirs) = (reply.body()["data"][0].clone(), recorded.body["data"][0].clone());
    assert!(keys(&theirs).is_subset(&keys(&ours)));
    let enabled = world.get("/api/v2/locations?disabled[0]=false&per=1").total();
    assert!(enabled < world.get("/api/v2/locations?per=1").total());
    let page_zero = world.get("/api/v2/locations?page=0");
    assert_eq!(page_zero.body()["errors"][0]["message"], "invalid page: 0");
}

#[test]
fn while_a_configuration_is_applied_everything_is_unavailable() {
    let world = World::recorded();
    world.sim.set_configuration_lock(true);
    let (recorded, reply) = replay(&world, "error-503-config-lock");
    assert_eq!(reply.body(), recorded.body);
    replay(&world, "health-api-503-config-lock");
    assert_eq!(world.send("/health/server", &[]).status, 204);
    assert_eq!(world.send("/api/v2/primero", &[]).status, 503);
    assert_eq!(world.send("/api/v2/cases", &[]).status, 401);
    world.sim.set_configuration_lock(false);
    assert_eq!(world.get("/api/v2/cases?per=1").status, 200);
}

#[test]
fn an_unchanged_list_is_not_sent_twice() {
    let world = World::recorded();
    let target = "/api/v2/cases?fields=status&per=2&order_by=unique_identifier";
    let first = world.get(target);
    let password = Settings::default().password;
    let condition = format!("If-None-Match: {}", first.header("etag").unwrap());
    let again = world.send(target, &[&signed("api_reader", &password), &condition]);
    compare("index-etag-304", &recording("index-etag-304"), &again);
    assert_eq!(world.sim.requests().not_modified, 1);
}

#[test]
fn a_resent_session_cookie_makes_no_new_session() {
    let world = World::invented(3);
    let authorization = signed("api_reader", &Settings::default().password);
    let first = world.send("/api/v2/cases", &[&authorization]);
    let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap();
    let resent = format!("Cookie: other=1; {cookie}");
    let second = world.send("/api/v2/cases", &[&authorization, &resent]);
    assert_eq!((second.status, second.header("set-cookie")), (200, None));
    assert_eq!(world.sim.requests().without_cookie, 1);
    assert_eq!(world.send("/api/v2/cases", &[&resent]).status, 401);
}

#[test]
fn pages_without_a_full_order_lose_rows_and_with_one_do_not() {
    let world = World::recorded();
    let collect = |order: &str| -> BTreeSet<String> {
        let page = |page| world.get(&format!("/api/v2/cases?fields=x&per=40&page={page}&{order}"));
        (1..=8).flat_map(|number| page(number).ids()).collect()
    };
    assert!(collect("order_by=status").len() < 317);
    assert!(collect("order_by=id").len() < 317);
    assert_eq!(collect("order_by=unique_identifier").len(), 317);
}

#[test]
fn incidents_are_listed_as_cases_are_for_a_role_that_may_read_them() {
    let world = World::invented(60);
    let recorded = recording("incidents-index");
    let body = world.get("/api/v2/incidents?per=1000").body();
    let count = world.sim.incidents().len();
    assert_eq!(
        (body["data"].as_array().unwrap().len(), body["metadata"]["total"].clone()),
        (count, json!(count))
    );
    for name in
        ["id", "enabled", "record_state", "incident_date_derived", "incident_case_id", "owned_by"]
    {
        assert!(
            recorded.body["data"][0].get(name).is_some() && body["data"][0].get(name).is_some()
        );
    }
    let case = body["data"][0]["incident_case_id"].as_str().unwrap();
    assert_eq!(world.get(&format!("/api/v2/cases/{case}")).status, 200);
    let few = world.get("/api/v2/incidents?fields=cp_sex,zzz,incident_date&per=3").body();
    let known = ["id", "enabled", "last_updated_at", "cp_sex", "incident_date"];
    assert!(few["data"][0].as_object().unwrap().keys().all(|name| known.contains(&name.as_str())));

    let id = body["data"][0]["id"].as_str().unwrap();
    world.sim.advance(Duration::from_secs(2));
    assert!(world.sim.patch_incident(id, json!({"age": 3})).unwrap());
    let newest = "/api/v2/incidents?order_by=last_updated_at&order=desc&per=1";
    assert_eq!(world.get(newest).ids(), [id]);
    let none = "/api/v2/incidents?last_updated_at=2200-01-01T00:00:00Z..";
    assert_eq!(world.get(none).total(), 0);
    let forms = world.get("/api/v2/forms?record_type=incident").body();
    assert_eq!(forms["data"][0]["parent_form"], "incident");

    world.sim.set_incidents_permitted(false);
    let refused = world.get("/api/v2/incidents");
    assert_eq!(
        (refused.status, &refused.body()["errors"][0]["message"]),
        (403, &json!("Forbidden"))
    );
    world.sim.set_agencies_permitted(true);
    let agencies = world.get("/api/v2/agencies").body();
    let keys = |body: &Value| body["data"][0].as_object().unwrap().contains_key("unique_id");
    assert!(keys(&agencies) && keys(&recording("agencies").body));
}

#[test]
fn a_long_request_line_is_refused() {
    let world = World::invented(1);
    let target = |length| format!("/api/v2/cases?fields={}", "a".repeat(length));
    assert_eq!(world.get(&target(900)).status, 200);
    assert_eq!(world.get(&target(1_024)).status, 414);
}

#[test]
fn every_fault_is_served_as_ordered() {
    let world = World::invented(30);
    let list = "/api/v2/cases?per=30";
    let serve = |fault: Fault| {
        world.sim.faults().next("/api/v2/cases", 1, fault);
        let authorization = signed("api_reader", &Settings::default().password);
        world.try_send("GET", list, &[&authorization])
    };
    let status = |fault| serve(fault).unwrap().status;
    assert_eq!(status(Fault::Broken), 500);
    assert_eq!(status(Fault::Unauthorized), 401);
    let throttled = serve(Fault::TooManyRequests { retry_after_s: Some(3) }).unwrap();
    assert_eq!((throttled.status, throttled.header("retry-after")), (429, Some("3")));
    assert_eq!(throttled.text, "Retry later\n");
    let proxy = serve(Fault::Unavailable { retry_after_s: None }).unwrap();
    assert_eq!((proxy.status, proxy.header("retry-after")), (503, None));
    let empty = serve(Fault::FalseEmpty).unwrap();
    assert_eq!((empty.status, empty.total(), empty.ids().len()), (200, 0, 0));
    assert!(serde_json::from_str::<Value>(&serve(Fault::NotJson).unwrap().text).is_err());
    assert!(serve(Fault::OddShape).unwrap().body()["data"].is_object());
    let whole = world.get(list).text.len();
    let length = |reply: &Reply| reply.header("content-length").unwrap().parse::<usize>().unwrap();
    if let Ok(cut) = serve(Fault::CutBody) {
        assert!(cut.text.len() < length(&cut), "{} of {}", cut.text.len(), length(&cut));
    }
    assert_eq!(serve(Fault::SlowBody(Duration::from_millis(1))).unwrap().text.len(), whole);
    if let Ok(hung) = serve(Fault::Hang(Duration::from_millis(5))) {
        assert!(hung.text.len() < length(&hung));
    }
    assert_eq!(world.get(list).ids().len(), 30);
    assert_eq!(world.sim.requests().faults, 10);
}

#[test]
fn edits_are_seeded_and_show_up_in_the_list() {
    let histories = [World::invented(50), World::invented(50)].map(|world| {
        let edits = world.sim.edit(400).unwrap();
        let kinds: BTreeSet<_> = edits.iter().map(|edit| format!("{:?}", edit.kind)).collect();
        assert_eq!(kinds.len(), 11, "{kinds:?}");
        let stripped = world.sim.cases().into_iter().map(without_times).collect::<Vec<_>>();
        let created = edits.iter().filter(|edit| edit.kind == EditKind::Created).count();
        assert_eq!(world.get("/api/v2/cases?per=1").total(), 50 + created as i64);
        (edits, stripped)
    });
    assert_eq!(histories[0], histories[1]);
}

/// A case without what depends on the clock.
fn without_times(mut case: Value) -> Value {
    let object = case.as_object_mut().unwrap();
    for name in ["last_updated_at", "created_at", "reopened_logs"] {
        object.remove(name);
    }
    case
}

#[test]
fn hard_deletion_and_late_commits_are_seen_as_they_are() {
    let settings = Settings { case_count: 5, ..Settings::default() };
    let world = World::start(settings.clone());
    let id = world.sim.cases()[0]["id"].as_str().unwrap().to_owned();
    assert!(world.sim.delete(&id));
    assert_eq!(world.get(&format!("/api/v2/cases/{id}")).status, 404);
    assert_eq!(world.get("/api/v2/cases").total(), 4);

    let late = World::start(Settings { commit_delay: Duration::from_secs(3_600), ..settings });
    late.sim.patch(&id, json!({"age": 17, "sex": "male"})).unwrap();
    late.sim.patch(&id, json!({"age": 16})).unwrap();
    let newest = late.sim.cases().into_iter().find(|case| case["id"] == json!(id)).unwrap();
    assert_eq!(newest["age"], 16);
    let shown = late.get(&format!("/api/v2/cases/{id}?fields=age")).body();
    assert_ne!(shown["data"]["last_updated_at"], newest["last_updated_at"]);
    late.sim.advance(Duration::from_secs(3_600));
    let shown = late.get(&format!("/api/v2/cases/{id}?fields=age")).body();
    assert_eq!(shown["data"]["age"], 16);
    assert_eq!(shown["data"]["last_updated_at"], newest["last_updated_at"]);
}

#[test]
fn replies_are_compressed_when_asked() {
    let world = World::invented(50);
    let authorization = signed("api_reader", &Settings::default().password);
    let plain = world.send("/api/v2/cases?per=50", &[&authorization]);
    let small = world.send("/api/v2/cases?per=50", &[&authorization, "Accept-Encoding: gzip"]);
    assert_eq!(small.header("content-encoding"), Some("gzip"));
    let length = small.header("content-length").unwrap().parse::<usize>().unwrap();
    assert!(length < plain.text.len() / 2);
}

#[test]
fn canaries_are_all_known() {
    let world = World::start(Settings { case_count: 3, canary: true, ..Settings::default() });
    world.sim.edit(20).unwrap();
    let text = world.get("/api/v2/cases?per=1000").text;
    let known: BTreeSet<String> = world.sim.canaries().into_iter().collect();
    assert!(known.len() > 150, "{}", known.len());
    for (start, _) in text.match_indices("\"CANARY-") {
        let token = text[start + 1..].split('"').next().unwrap();
        assert!(known.contains(token), "{token}");
    }
}
