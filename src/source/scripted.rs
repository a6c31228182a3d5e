//! A small scripted server, and what the client and the poll make of its answers.

mod census;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::decode::tests::{CASES, schema};
use super::outlet::{Halt, Outlet};
use super::poll::{ATTEMPTS_MAX, Poll};
use super::settings::ServerSettings;
use super::stumble::Backoff;
use super::*;
use crate::error::Kind;
use crate::model::{Case, CaseBuilder, FieldType, RecordType, RowField, Schema, Subform};

const WAIT: Duration = Duration::from_secs(60);
const PASSWORD: &str = "hush-hush-7f3a";

/// A call as the server saw it.
#[derive(Clone)]
struct Call {
    /// Place among the calls for changed cases, from 0; none for other calls.
    number: Option<usize>,
    path: String,
    query: HashMap<String, String>,
    headers: HeaderMap,
}

type Twist = Box<dyn FnMut(&Call) -> Option<Response> + Send>;

/// The server: honest but for its twist.
struct World {
    cases: Vec<Value>,
    calls: Vec<Call>,
    twist: Twist,
}

type Shelf = Arc<Mutex<World>>;

fn text_of<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_default()
}

impl World {
    fn list(&self, query: &HashMap<String, String>) -> Value {
        let time = match query.contains_key("created_at") {
            true => "created_at",
            false => "last_updated_at",
        };
        let lower = query.get(time).and_then(|range| range.strip_suffix("Z.."));
        let mut rows: Vec<_> = self
            .cases
            .iter()
            .filter(|case| lower.is_none_or(|lower| &text_of(case, time)[..19] >= lower))
            .collect();
        let order = match query["order_by"].as_str() {
            "unique_identifier" => "id",
            _ => time,
        };
        rows.sort_by(|a, b| text_of(a, order).cmp(text_of(b, order)));
        if query.get("order").is_some_and(|order| order == "desc") {
            rows.reverse();
        }
        let number = |name: &str| query[name].parse::<usize>().unwrap();
        let (per, page) = (number("per"), number("page"));
        let fields: Vec<_> = query["fields"].split(',').collect();
        let always = ["id", "enabled", "last_updated_at"];
        let selected = |row: &&Value| {
            let mut row = row.as_object().unwrap().clone();
            row.retain(|name, _| always.contains(&&**name) || fields.contains(&&**name));
            row
        };
        let data: Vec<_> = rows.iter().skip((page - 1) * per).take(per).map(selected).collect();
        json!({"data": data, "metadata": {"total": rows.len(), "per": per, "page": page}})
    }

    fn answer(&mut self, mut call: Call) -> Response {
        let changes = matches!(call.path.as_str(), "/api/v2/cases" | "/api/v2/incidents")
            && call.query.contains_key("last_updated_at")
            && call.query["per"] != "1";
        call.number = changes.then(|| self.calls.iter().filter(|one| one.number.is_some()).count());
        let twisted = (self.twist)(&call);
        let mut query = call.query.clone();
        query.entry("order_by".into()).or_default();
        let path = call.path.clone();
        self.calls.push(call);
        let reply = twisted.unwrap_or_else(|| match path.as_str() {
            "/api/v2/cases" | "/api/v2/incidents" => self.list(&query).to_string().into_response(),
            "/api/v2/system_settings" => {
                json!({"data": {"primero_version": "2.14.0"}}).to_string().into_response()
            }
            _ => json!({"data": []}).to_string().into_response(),
        });
        let cookie = format!("_app_session=s{}; path=/; secure; HttpOnly", self.calls.len());
        ([("set-cookie", cookie)], reply).into_response()
    }
}

async fn answer(State(world): State<Shelf>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let call = Call {
        number: None,
        path: request.uri().path().to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers: request.headers().clone(),
    };
    world.lock().unwrap().answer(call)
}

/// A running server, a poll of it, and what the poll says.
struct Stage {
    world: Shelf,
    poll: Option<Poll>,
    events: mpsc::Receiver<Event>,
    /// Kept, so that the poll is not stopped.
    _stop: watch::Sender<bool>,
    settings: ServerSettings,
}

async fn stage(
    cases: Vec<Value>,
    twist: impl FnMut(&Call) -> Option<Response> + Send + 'static,
) -> Stage {
    stage_of(cases, super::decode::tests::decoder(), RecordType::Case, twist).await
}

async fn stage_of(
    cases: Vec<Value>,
    decoder: Decoder,
    record_type: RecordType,
    twist: impl FnMut(&Call) -> Option<Response> + Send + 'static,
) -> Stage {
    let world = World { cases, calls: Vec::new(), twist: Box::new(twist) };
    let world = Arc::new(Mutex::new(world));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let router = Router::new().fallback(answer).with_state(Arc::clone(&world));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = ServerSettings {
        url,
        user: "reader".into(),
        password: Secret::new(PASSWORD),
        page_size: 50,
        overlap: Duration::from_secs(300),
        timeout: Duration::from_secs(120),
        census_interval: Duration::from_secs(86_400),
        gone_percent_max: 5,
        session: Default::default(),
    };
    let (sender, events) = mpsc::channel(1_000);
    let (stop, stopped) = watch::channel(false);
    let outlet = Outlet::new(sender, stopped, nothing_erased());
    let resume = Resume::default();
    let mut poll =
        Poll::new(settings.clone(), decoder, record_type, resume.cursor, resume.known, outlet)
            .unwrap();
    poll.backoff = Backoff { base: Duration::from_millis(1), most: Duration::from_millis(5) };
    poll.once = true;
    Stage { world, poll: Some(poll), events, _stop: stop, settings }
}

/// What one run said.
struct Outcome {
    result: Result<(), Halt>,
    batches: Vec<Batch>,
    troubles: Vec<(Error, Duration)>,
    caught_up: Option<Option<u64>>,
    /// Known, gone, withheld.
    censuses: Vec<(u64, u64, bool)>,
}

impl Stage {
    async fn run(&mut self) -> Outcome {
        let mut poll = self.poll.take().unwrap();
        let result = tokio::time::timeout(WAIT, poll.run()).await.unwrap();
        self.poll = Some(poll);
        let (mut batches, mut troubles, mut caught_up) = (Vec::new(), Vec::new(), None);
        let mut censuses = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Batch(batch) => batches.push(batch),
                Event::Trouble { error, retry_in, .. } => troubles.push((error, retry_in)),
                Event::CaughtUp { total, .. } => caught_up = Some(total),
                Event::Census { known, gone, is_withheld, .. } => {
                    censuses.push((known, gone, is_withheld));
                }
                Event::CensusFailed { error, .. } => troubles.push((error, Duration::ZERO)),
                Event::Locations { .. } | Event::Labels { .. } => {}
                Event::Ended { .. } => panic!("a poll does not say that it ended"),
            }
        }
        Outcome { result, batches, troubles, caught_up, censuses }
    }

    fn calls(&self) -> Vec<Call> {
        self.world.lock().unwrap().calls.clone()
    }
}

impl Outcome {
    fn keys(&self) -> Vec<RecordKey> {
        self.batches.iter().flat_map(|batch| &batch.changes).map(|change| change.key).collect()
    }

    fn error(self) -> Error {
        match self.result {
            Err(Halt::Failed(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn trouble(&self) -> String {
        let texts = self.troubles.iter().map(|(error, _)| error.to_string());
        texts.collect::<Vec<_>>().join("\n")
    }
}

fn recorded() -> Vec<Value> {
    CASES.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn case(number: usize, stamp: &str) -> Value {
    json!({"id": format!("00000000-0000-0000-0000-{number:012}"), "last_updated_at": stamp,
           "enabled": true, "age": number % 18})
}

fn honest(_: &Call) -> Option<Response> {
    None
}

/// A twist of the `number`-th call for changed cases.
fn at(number: usize, mut reply: impl FnMut() -> Response + Send + 'static) -> Twist {
    Box::new(move |call| (call.number == Some(number)).then(&mut reply))
}

fn empty_page() -> Response {
    json!({"data": [], "metadata": {"total": 0, "per": 50, "page": 1}}).to_string().into_response()
}

fn status(code: u16, headers: &[(&str, &str)]) -> Response {
    let mut reply = StatusCode::from_u16(code).unwrap().into_response();
    for (name, value) in headers {
        let name = axum::http::HeaderName::try_from(*name).unwrap();
        reply.headers_mut().insert(name, value.parse().unwrap());
    }
    reply
}

async fn check_all_found(twist: impl FnMut(&Call) -> Option<Response> + Send + 'static) -> Outcome {
    let mut stage = stage(recorded(), twist).await;
    let outcome = stage.run().await;
    assert!(outcome.result.is_ok(), "{:?}", outcome.result);
    let keys = outcome.keys();
    assert_eq!(keys.len(), 317, "each case once");
    assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), 317);
    let last = &outcome.batches.last().unwrap().cursor;
    assert!(last.first_load_done && last.watermark.is_some());
    let early = &outcome.batches[..outcome.batches.len() - 1];
    assert!(early.iter().all(|batch| !batch.cursor.first_load_done));
    let marks: Vec<_> = outcome.batches.iter().map(|batch| batch.cursor.watermark).collect();
    assert!(marks.is_sorted(), "a cursor never goes back");
    outcome
}

#[tokio::test]
async fn a_first_load_finds_each_case_once() {
    let outcome = check_all_found(honest).await;
    assert_eq!(outcome.caught_up, Some(Some(317)));
    assert!(outcome.troubles.is_empty(), "{}", outcome.trouble());
}

#[tokio::test]
async fn a_second_poll_hands_on_only_what_changed() {
    let mut stage = stage(recorded(), honest).await;
    stage.run().await;
    let again = stage.run().await;
    assert_eq!((again.batches.len(), again.caught_up), (0, Some(None)));
    let (touched, changed) = (5, 7);
    {
        let mut world = stage.world.lock().unwrap();
        // A stamp that merely moved, and a real change.
        world.cases[touched]["last_updated_at"] = json!("2026-11-22T18:20:00.000Z");
        world.cases[changed]["last_updated_at"] = json!("2026-11-22T18:20:01.000Z");
        world.cases[changed]["sex"] = json!("another");
    }
    let third = stage.run().await;
    assert_eq!(third.keys().len(), 1);
    assert!(third.batches[0].cursor.first_load_done);
}

#[tokio::test]
async fn one_second_with_many_pages_is_read_page_by_page() {
    let mut cases: Vec<_> = (0..170).map(|n| case(n, "2026-01-01T00:00:05.000Z")).collect();
    cases.extend((170..230).map(|n| case(n, "2026-01-01T00:00:06.000Z")));
    cases.extend((230..240).map(|n| case(n, "2026-01-01T00:00:04.000Z")));
    let mut stage = stage(cases, honest).await;
    let outcome = stage.run().await;
    assert!(outcome.result.is_ok() && outcome.troubles.is_empty(), "{}", outcome.trouble());
    assert_eq!(outcome.keys().len(), 240);
    let pages: Vec<_> = stage.calls().iter().map(|call| call.query.get("page").cloned()).collect();
    assert!(pages.contains(&Some("3".into())));
}

#[tokio::test]
async fn a_last_page_that_is_just_full_ends_the_load() {
    let cases = (0..100).map(|n| case(n, "2026-01-01T00:00:05.000Z")).collect();
    let outcome = stage(cases, honest).await.run().await;
    assert!(outcome.result.is_ok() && outcome.troubles.is_empty(), "{}", outcome.trouble());
    assert_eq!(outcome.keys().len(), 100);
    assert!(outcome.batches.last().unwrap().cursor.first_load_done);
}

#[tokio::test]
async fn an_empty_server_is_caught_up() {
    let outcome = stage(Vec::new(), honest).await.run().await;
    assert_eq!(outcome.caught_up, Some(Some(0)));
    assert!(outcome.batches.last().unwrap().cursor.first_load_done);
}

#[tokio::test]
async fn a_refused_password_is_tried_once() {
    let mut stage = stage(recorded(), |_| Some(status(401, &[]))).await;
    stage.poll.as_mut().unwrap().once = false;
    let error = stage.run().await.error();
    assert_eq!(error.kind(), Kind::Permission);
    assert_eq!(stage.calls().len(), 1);
    assert!(!error.to_string().contains(PASSWORD));
}

#[tokio::test]
async fn a_missing_right_ends_it_but_not_one_to_read_places() {
    let forbidden =
        |path: &'static str| move |call: &Call| (call.path == path).then(|| status(403, &[]));
    let outcome = check_all_found(forbidden("/api/v2/locations")).await;
    assert_eq!(outcome.troubles.len(), 1);
    let outcome = stage(recorded(), forbidden("/api/v2/cases")).await.run().await;
    assert_eq!(outcome.error().kind(), Kind::Permission);
}

#[tokio::test]
async fn every_fault_of_a_reply_costs_a_retry_and_nothing_else() {
    let cut = || {
        let half = Ok::<_, io::Error>(r#"{"data":[{"id":"#.to_owned());
        let gone = Err(io::Error::other("gone"));
        Body::from_stream(stream::iter([half, gone])).into_response()
    };
    let faults: Vec<Box<dyn Fn() -> Response + Send>> = vec![
        Box::new(cut),
        Box::new(|| r#"{"data":[{"id":"#.into_response()),
        Box::new(|| "<html>".into_response()),
        Box::new(|| json!({"data": null}).to_string().into_response()),
        Box::new(empty_page),
        Box::new(|| status(500, &[])),
        Box::new(|| status(503, &[])),
        Box::new(|| status(429, &[])),
    ];
    for (index, fault) in faults.into_iter().enumerate() {
        for number in [0, 2] {
            let reply = fault();
            let mut reply = Some(reply);
            let outcome = check_all_found(at(number, move || reply.take().unwrap())).await;
            assert_eq!(outcome.troubles.len(), 1, "fault {index} of call {number}");
            assert!(outcome.troubles[0].0.kind().may_pass());
        }
    }
}

#[tokio::test]
async fn a_false_end_that_stays_is_an_error_and_no_load() {
    let twist = |call: &Call| call.number.is_some_and(|number| number >= 3).then(empty_page);
    let outcome = stage(recorded(), twist).await.run().await;
    assert_eq!(outcome.troubles.len(), ATTEMPTS_MAX as usize - 1);
    assert!(outcome.batches.iter().all(|batch| !batch.cursor.first_load_done));
    assert_eq!((outcome.caught_up, outcome.error().kind()), (None, Kind::Temporary));
}

#[tokio::test]
async fn a_dropped_filter_moves_nothing() {
    let mut old: Vec<_> = (0..200).map(|n| case(n, "2025-01-01T00:00:00.000Z")).collect();
    old.iter_mut().enumerate().for_each(|(n, case)| {
        case["last_updated_at"] = json!(format!("2025-01-{:02}T00:00:00.000Z", 1 + n / 10));
    });
    let mut stage = stage(old.clone(), honest).await;
    stage.run().await;
    let page =
        json!({"data": old[..50], "metadata": {"total": 200, "per": 50, "page": 1}}).to_string();
    stage.world.lock().unwrap().twist =
        Box::new(move |call| call.number.map(|_| page.clone().into_response()));
    let outcome = stage.run().await;
    assert!(outcome.batches.is_empty());
    assert!(outcome.trouble().contains("ignored the filter"), "{}", outcome.trouble());
    assert!(outcome.result.is_err());
}

#[tokio::test]
async fn a_stamp_with_a_zone_of_its_own_stops_nothing() {
    let mut cases: Vec<_> =
        (0..120).map(|n| case(n, &format!("2026-01-01T{:02}:00:00.000Z", n / 5))).collect();
    let mut stage = stage(cases.clone(), honest).await;
    stage.run().await;
    // The server keeps 23:58+03:00, finds it at 23:58Z and sends it as 20:58Z.
    let odd = case(500, "2026-01-01T20:58:00.000Z");
    cases.push(case(501, "2026-01-01T23:59:00.000Z"));
    let tail = [cases[115..].to_vec(), vec![odd]].concat();
    let page = json!({"data": tail, "metadata": {"total": tail.len(), "per": 50, "page": 1}});
    let page = page.to_string();
    stage.world.lock().unwrap().twist =
        Box::new(move |call| call.number.map(|_| page.clone().into_response()));
    let outcome = stage.run().await;
    assert!(outcome.result.is_ok(), "{}", outcome.trouble());
    assert_eq!(outcome.keys().len(), 2);
}

#[tokio::test]
async fn a_lost_order_is_a_fault() {
    let cases: Vec<_> =
        (0..60).map(|n| case(n, &format!("2026-01-01T00:{:02}:00.000Z", 59 - n))).collect();
    let page = json!({"data": cases[..50], "metadata": {"total": 60, "per": 50, "page": 1}});
    let page = page.to_string();
    let twist = move |call: &Call| (call.number == Some(0)).then(|| page.clone().into_response());
    let outcome = stage(cases, twist).await.run().await;
    assert!(outcome.trouble().contains("order"), "{}", outcome.trouble());
    assert_eq!(outcome.keys().len(), 60);
}

#[tokio::test]
async fn a_stamp_in_the_future_does_not_stop_the_clock() {
    let mut cases: Vec<_> = (0..5).map(|n| case(n, "2026-01-01T00:00:00.000Z")).collect();
    cases.push(case(5, "2099-01-01T00:00:00.000Z"));
    let mut stage = stage(cases, honest).await;
    let outcome = stage.run().await;
    let watermark = outcome.batches.last().unwrap().cursor.watermark.unwrap();
    assert!(watermark.0 <= jiff::Timestamp::now().as_millisecond());
    let now = jiff::Timestamp::now().to_string();
    stage.world.lock().unwrap().cases.push(case(6, &now));
    assert_eq!(stage.run().await.keys().len(), 1);
}

#[tokio::test]
async fn the_wait_that_a_server_asks_for_is_kept() {
    let twist = at(0, || status(503, &[("retry-after", "1")]));
    let outcome = check_all_found(twist).await;
    assert_eq!(outcome.troubles[0].1, Duration::from_secs(1));
}

#[tokio::test]
async fn the_session_cookie_goes_back_and_sign_in_is_sent() {
    let mut stage = stage(recorded(), honest).await;
    stage.run().await;
    let calls = stage.calls();
    let cookie =
        |call: &Call| call.headers.get("cookie").map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(cookie(&calls[0]), None);
    assert_eq!(cookie(&calls[1]).as_deref(), Some("_app_session=s1"));
    assert_eq!(cookie(&calls[2]).as_deref(), Some("_app_session=s2"));
    for call in &calls {
        assert!(call.headers["authorization"].to_str().unwrap().starts_with("Basic "));
        assert!(call.headers["user-agent"].to_str().unwrap().starts_with("tonle/"));
        assert!(call.headers["accept-encoding"].to_str().unwrap().contains("gzip"));
    }
    let fields = &calls.iter().find(|call| call.number == Some(0)).unwrap().query["fields"];
    assert_eq!(fields, &schema().names().collect::<Vec<_>>().join(","));
}

#[tokio::test]
async fn a_password_is_never_sent_to_another_server() {
    let mut other = stage(Vec::new(), honest).await;
    let elsewhere = format!("{}api/v2/cases", other.settings.url);
    let twist = move |_: &Call| Some(status(302, &[("location", &elsewhere)]));
    let error = stage(recorded(), twist).await.run().await.error();
    assert_eq!(error.kind(), Kind::Config);
    assert!(other.calls().is_empty());
    other.run().await;
}

#[tokio::test]
async fn refused_records_are_counted_once() {
    let mut cases: Vec<_> = (0..5).map(|n| case(n, "2026-01-01T00:00:00.000Z")).collect();
    cases.push(json!({"id": 7, "last_updated_at": "2026-01-01T00:00:01.000Z"}));
    cases[0]["age"] = json!("six");
    let mut stage = stage(cases, honest).await;
    let first = stage.run().await;
    let refusals: usize = first.batches.iter().map(|batch| batch.refusals.len()).sum();
    assert_eq!(refusals, 1);
    assert_eq!(first.batches[0].misfits, [("age".to_owned(), 1)]);
    assert!(stage.run().await.batches.is_empty());
}

#[tokio::test]
async fn known_cases_are_not_handed_on_after_a_restart() {
    let mut first = stage(recorded(), honest).await;
    let all = first.run().await;
    let schema = schema();
    let known = all
        .batches
        .iter()
        .flat_map(|batch| &batch.changes)
        .map(|change| (change.key, change.case.as_ref().unwrap().fingerprint(&schema)));
    let cursor = all.batches[0].cursor.clone();
    let (sender, mut events) = mpsc::channel(100);
    let (_stop, stopped) = watch::channel(false);
    let mut poll = Poll::new(
        first.settings.clone(),
        first.poll.take().unwrap().into_decoder(),
        RecordType::Case,
        cursor,
        known.collect(),
        Outlet::new(sender, stopped, nothing_erased()),
    )
    .unwrap();
    poll.once = true;
    poll.run().await.unwrap();
    let mut changes = 0;
    while let Ok(event) = events.try_recv() {
        if let Event::Batch(batch) = event {
            changes += batch.changes.len();
        }
    }
    assert_eq!(changes, 0);
}

/// A schema of 60 fields with long names, whose list fits into no single request line.
fn wide_schema() -> Arc<Schema> {
    let fields = (0..60).map(|n| (format!("a_field_with_a_long_name_{n:02}"), FieldType::Integer));
    let rows = vec![RowField { name: "worth".into(), field_type: FieldType::Integer }];
    let subform = |name: &str| Subform { name: name.into(), fields: rows.clone() };
    Arc::new(Schema::new(fields, vec![subform("first_rows"), subform("last_rows")]))
}

fn wide_case(number: usize, stamp: &str) -> Value {
    let mut wide = case(number, stamp);
    for n in 0..60 {
        wide[format!("a_field_with_a_long_name_{n:02}")] = json!(number * 100 + n);
    }
    for name in ["first_rows", "last_rows"] {
        wide[name] = json!([{"unique_id": "a", "worth": number}, {"unique_id": "b"}]);
    }
    wide
}

async fn wide_stage(
    cases: Vec<Value>,
    twist: impl FnMut(&Call) -> Option<Response> + Send + 'static,
) -> Stage {
    let zone = Zone::new(&jiff::tz::TimeZone::UTC);
    let key = Secret::new("a key for tests only");
    let decoder = super::decode::tests::decoder_of(RecordType::Case, wide_schema(), zone, &key);
    stage_of(cases, decoder, RecordType::Case, twist).await
}

/// Checks that every field of every case came, from whichever part.
fn assert_whole(outcome: &Outcome, count: usize) {
    let schema = wide_schema();
    assert_eq!(outcome.keys().len(), count);
    for change in outcome.batches.iter().flat_map(|batch| &batch.changes) {
        let case = change.case.as_ref().unwrap();
        let value = |word: u16| Case::integer(case.word(word)).unwrap();
        assert!((1..60).all(|word| value(word + 1) == value(1) + i32::from(word)));
        for subform in 0..2 {
            let rows: Vec<_> = case.rows(&schema, subform).map(|row| row[4]).collect();
            assert_eq!(rows, [CaseBuilder::integer(i64::from(value(1) / 100)), 0]);
        }
    }
}

#[tokio::test]
async fn fields_that_fit_into_no_line_are_asked_for_in_parts() {
    let cases = (0..120).map(|n| wide_case(n, &format!("2026-01-01T00:{:02}:00.000Z", n / 2)));
    let mut stage = wide_stage(cases.collect(), honest).await;
    let outcome = stage.run().await;
    assert!(outcome.result.is_ok() && outcome.troubles.is_empty(), "{}", outcome.trouble());
    assert_whole(&outcome, 120);
    let calls: Vec<_> = stage.calls().into_iter().filter(|call| call.number.is_some()).collect();
    let fields: std::collections::BTreeSet<_> =
        calls.iter().map(|call| call.query["fields"].clone()).collect();
    assert_eq!((fields.len(), calls.len() % 2), (2, 0));
    let asked: Vec<_> = fields.iter().flat_map(|fields| fields.split(',')).collect();
    assert_eq!(asked.len(), 62, "each field once: {fields:?}");
    let again = stage.run().await;
    assert_eq!(again.batches.len(), 0, "what came in parts is known");
}

#[tokio::test]
async fn a_case_that_changes_between_two_parts_is_never_half_of_each_version() {
    let cases: Vec<_> = (0..40).map(|n| wide_case(n, "2026-01-01T00:00:05.000Z")).collect();
    let mut stage = wide_stage(cases, honest).await;
    let changed = wide_case(5, "2026-01-01T00:01:00.000Z");
    let mut later = wide_case(7, "2026-01-01T00:01:00.000Z");
    later["id"] = changed["id"].clone();
    // The second part is of another version, with another stamp.
    let second = (0..40)
        .map(|n| if n == 5 { later.clone() } else { wide_case(n, "2026-01-01T00:00:05.000Z") });
    let second: Vec<_> = second.collect();
    let body = json!({"data": second, "metadata": {"total": 40, "per": 50, "page": 1}}).to_string();
    stage.world.lock().unwrap().twist = at(1, move || body.clone().into_response());
    let outcome = stage.run().await;
    assert!(outcome.result.is_ok() && outcome.troubles.is_empty(), "{}", outcome.trouble());
    assert_whole(&outcome, 40);
    let numbers = stage.calls().iter().filter(|call| call.number.is_some()).count();
    assert_eq!(numbers, 4, "both parts were asked for again");
}

#[tokio::test]
async fn too_many_fields_are_a_clear_error() {
    let fields = (0..200).map(|n| (format!("a_field_with_a_long_name_{n:03}"), FieldType::Integer));
    let schema = Arc::new(Schema::new(fields, Vec::new()));
    let settings = stage(Vec::new(), honest).await.settings;
    let client = super::client::Client::new(&settings).unwrap();
    let error = super::parts::fields(&client, RecordType::Case, &schema, 500, 10_000).unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("fewer fields"), "{error}");
}

#[tokio::test]
async fn incidents_are_asked_for_where_they_are() {
    let zone = Zone::new(&jiff::tz::TimeZone::UTC);
    let key = Secret::new("a key for tests only");
    let decoder = super::decode::tests::decoder_of(RecordType::Incident, schema(), zone, &key);
    let mut stage = stage_of(recorded(), decoder, RecordType::Incident, honest).await;
    let outcome = stage.run().await;
    assert!(outcome.result.is_ok() && outcome.troubles.is_empty(), "{}", outcome.trouble());
    assert_eq!(outcome.keys().len(), 317);
    let calls = stage.calls();
    assert!(calls.iter().all(|call| call.path != "/api/v2/cases"));
    assert!(calls.iter().all(|call| call.path != "/api/v2/locations"), "they come with the cases");
    let forms = calls.iter().find(|call| call.path == "/api/v2/forms").unwrap();
    assert_eq!(forms.query["record_type"], "incident");
}

#[tokio::test]
async fn a_refused_password_is_sent_once_for_both_streams() {
    let mut stage = stage(recorded(), |_| Some(status(401, &[]))).await;
    assert_eq!(stage.run().await.error().kind(), Kind::Permission);
    let client = super::client::Client::new(&stage.settings.clone()).unwrap();
    let refused = client.get("/api/v2/incidents", "asking").await.err().unwrap();
    assert!(refused.is_final && refused.error.kind() == Kind::Permission);
    assert_eq!(stage.calls().len(), 1);
}

#[tokio::test]
async fn names_of_agencies_are_labels_where_the_role_may_read_them() {
    let agencies = json!({"data": [{"unique_id": "alpha", "name": {"en": "Alpha"}}]}).to_string();
    let may = move |call: &Call| {
        (call.path == "/api/v2/agencies").then(|| agencies.clone().into_response())
    };
    let may_not = |call: &Call| (call.path == "/api/v2/agencies").then(|| status(403, &[]));
    for (twist, count) in [(Box::new(may) as Twist, 1), (Box::new(may_not) as Twist, 0)] {
        let mut stage = stage(recorded(), honest).await;
        stage.world.lock().unwrap().twist = twist;
        let mut poll = stage.poll.take().unwrap();
        tokio::time::timeout(WAIT, poll.run()).await.unwrap().unwrap();
        let mut found = Vec::new();
        while let Ok(event) = stage.events.try_recv() {
            match event {
                Event::Labels { labels, .. } => found.extend(labels),
                Event::Trouble { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
        assert_eq!(found.iter().filter(|one| one.field == "owned_by_agency_id").count(), count);
    }
}

#[tokio::test]
async fn a_look_says_what_came_back() {
    let stage = stage(recorded(), honest).await;
    let settings = Settings {
        name: "kampot".into(),
        published_as: "kampot".into(),
        record_type: RecordType::Case,
        incidents: None,
        time_zone: jiff::tz::TimeZone::UTC,
        fiscal_year_start: 1,
        poll_interval: Duration::from_secs(10),
        kind: SourceKind::Server(stage.settings.clone()),
    };
    let findings = check(&settings, &schema()).await.unwrap();
    assert_eq!(findings.version.as_deref(), Some("2.14.0"));
    assert_eq!((findings.case_count, findings.sample_count), (Some(317), 100));
    let has = |names: &[String], name: &str| names.iter().any(|one| one == name);
    assert!(has(&findings.fields_seen, "services_section.service_type"));
    assert!(has(&findings.fields_seen, "status"));
    assert!(findings.request_line_bytes < 1_000);
}

#[tokio::test]
async fn a_started_source_ends_when_it_is_told_to() {
    let stage = stage(recorded(), honest).await;
    let (sender, mut events) = mpsc::channel(1);
    let (stop, stopped) = watch::channel(false);
    let shared = Shared {
        schema: schema(),
        interner: Interner::default(),
        key: Secret::new("a key for tests only"),
        erased: nothing_erased(),
        once: false,
        events: sender,
        stop: stopped,
    };
    let settings = Settings {
        name: "kampot".into(),
        published_as: "kampot".into(),
        record_type: RecordType::Case,
        incidents: None,
        time_zone: jiff::tz::TimeZone::UTC,
        fiscal_year_start: 1,
        poll_interval: Duration::from_secs(3_600),
        kind: SourceKind::Server(stage.settings.clone()),
    };
    let task = start(settings, Resume::default(), &shared).unwrap();
    drop(shared);
    let mut count = 0;
    while let Some(event) = tokio::time::timeout(WAIT, events.recv()).await.unwrap() {
        match event {
            Event::Batch(batch) => count += batch.changes.len(),
            Event::CaughtUp { .. } => stop.send(true).unwrap(),
            Event::Ended { result, .. } => assert!(result.is_ok()),
            Event::Trouble { error, .. } => panic!("{error}"),
            Event::Census { .. } | Event::CensusFailed { .. } => panic!("none is due"),
            Event::Locations { .. } | Event::Labels { .. } => {}
        }
    }
    assert_eq!(count, 317);
    task.await.unwrap();
}

#[tokio::test]
async fn nothing_that_is_said_names_a_child() {
    let names: Vec<_> = recorded()
        .iter()
        .filter_map(|case| case["name"].as_str().map(str::to_owned))
        .filter(|name| name.len() > 7)
        .collect();
    assert!(names.len() > 100);
    let echo = |call: &Call| {
        let echoed = || (StatusCode::INTERNAL_SERVER_ERROR, CASES).into_response();
        call.number.filter(|number| number % 2 == 0).map(|_| echoed())
    };
    let mut stage = stage(recorded(), echo).await;
    let outcome = stage.run().await;
    let text = format!("{:?} {} {:?}", outcome.batches, outcome.trouble(), outcome.result);
    assert!(text.contains("500") && outcome.keys().len() == 317);
    assert!(names.iter().all(|name| !text.contains(name)));
    assert!(!text.contains(PASSWORD));
}

fn nothing_erased() -> super::Erased {
    super::Erased::new(&Secret::new("a key for tests only"), []).unwrap()
}
