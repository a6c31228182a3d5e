//! The real client reads what a real Primero v2.14.0 answered, and errs as it should where that refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonle::error::{Error, Kind, Result};
use tonle::indicator::schema_of;
use tonle::model::{
    Case, Code, Domain, Instant, Interner, Location, RecordChange, Schema, Secret, Slot,
};
use tonle::source::{self, Event, FieldLabels, RawSettings, Resume, Settings, Shared};

use crate::support::histories::shipped_packs;
use crate::support::program::{PSEUDONYM_KEY, WAIT_MAX};
use crate::support::replay::{Replay, Reply, count, recorded, recorded_lines, rows, text};

const CASES: &str = "/api/v2/cases";
const LOCATIONS: &str = "/api/v2/locations";

/// The recorded server: the poll of 317 cases in pages of a hundred, places, lookups, forms, settings.
fn recorded_server() -> Replay {
    let server = Replay::start();
    for exchange in recorded_lines("poll-sequence.ndjson") {
        server.replay(&exchange);
    }
    for (path, name) in [
        (LOCATIONS, "locations-hierarchy"),
        ("/api/v2/lookups", "lookups-selected"),
        ("/api/v2/forms", "forms-case"),
        ("/api/v2/system_settings", "system-settings"),
        ("/api/v2/agencies", "agencies"),
    ] {
        server.answer(path, Reply::recorded(name));
    }
    server
}

fn settings(server: &Replay) -> Settings {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("password"), "hush-4711\n").unwrap();
    let text = format!(
        "name = 'xx'\ntime_zone = 'Asia/Phnom_Penh'\nurl = {:?}\nuser = 'API_Reader'\n\
         password_file = 'password'\npage_size = 100\n",
        server.url()
    );
    toml::from_str::<RawSettings>(&text).unwrap().check(directory.path()).unwrap()
}

/// Everything a source said until it ended, or until its first trouble.
struct Heard {
    schema: Arc<Schema>,
    interner: Interner,
    changes: Vec<RecordChange>,
    refused: usize,
    misfits: BTreeMap<String, u64>,
    places: Vec<Location>,
    labels: Vec<FieldLabels>,
    caught_up: Option<(Option<u64>, Option<Instant>)>,
    troubles: Vec<(Error, Duration)>,
    result: Option<Result<()>>,
}

/// Reads a server once. `patient` goes on after trouble; otherwise the first one ends it, unwaited.
fn listen(server: &Replay, patient: bool) -> Heard {
    server.wait(listen_to(server, patient))
}

async fn listen_to(server: &Replay, patient: bool) -> Heard {
    let schema = Arc::new(schema_of(&shipped_packs()));
    let (events, mut heard_events) = mpsc::channel(8);
    let (stop, stopped) = watch::channel(false);
    let interner = Interner::default();
    let shared = Shared {
        schema: Arc::clone(&schema),
        interner: interner.clone(),
        key: Secret::new(PSEUDONYM_KEY),
        erased: source::Erased::new(&Secret::new("a key for tests only"), []).unwrap(),
        once: true,
        events,
        stop: stopped,
    };
    let task = source::start(settings(server), Resume::default(), &shared).unwrap();
    drop(shared);
    let mut heard = Heard {
        schema,
        interner,
        changes: Vec::new(),
        refused: 0,
        misfits: BTreeMap::new(),
        places: Vec::new(),
        labels: Vec::new(),
        caught_up: None,
        troubles: Vec::new(),
        result: None,
    };
    while let Some(event) = timeout(WAIT_MAX, heard_events.recv()).await.expect("it goes on") {
        if matches!(event, Event::Trouble { .. }) && !patient {
            stop.send_replace(true);
        }
        heard.note(event);
    }
    task.await.unwrap();
    heard
}

impl Heard {
    fn note(&mut self, event: Event) {
        match event {
            Event::Batch(batch) => {
                self.changes.extend(batch.changes);
                self.refused += batch.refusals.len();
                for (field, count) in batch.misfits {
                    *self.misfits.entry(field).or_default() += count;
                }
            }
            Event::Locations { places, .. } => self.places = places,
            Event::Labels { labels, .. } => self.labels = labels,
            Event::CaughtUp { total, newest, .. } => self.caught_up = Some((total, newest)),
            Event::Census { gone, .. } => assert_eq!(gone, 0),
            Event::CensusFailed { error, .. } => panic!("{error}"),
            Event::Trouble { error, retry_in, .. } => self.troubles.push((error, retry_in)),
            Event::Ended { result, .. } => self.result = Some(result),
        }
    }

    fn word(&self, case: &Case, field: &str) -> u32 {
        match self.schema.field(field).unwrap().slot {
            Slot::Word(word) => case.word(word),
            Slot::Set(_) => panic!("{field} is a set"),
        }
    }

    fn term(&self, domain: Domain, word: u32) -> Option<String> {
        self.interner.read(|terms| terms.term(domain, Code(word)).map(str::to_owned))
    }

    fn cases(&self) -> impl Iterator<Item = &Case> {
        self.changes.iter().map(|change| change.case.as_ref().unwrap())
    }

    /// How many cases hold each term of an option field.
    fn count(&self, field: &str) -> BTreeMap<Option<String>, usize> {
        count(self.cases().map(|case| self.term(Domain::Option, self.word(case, field))))
    }

    /// How many rows of a subform hold each term of an option field of theirs.
    fn count_rows(&self, subform: &str, field: &str) -> BTreeMap<Option<String>, usize> {
        let index = self.schema.subform(subform).unwrap();
        let word = 4 + self.schema.subforms()[index].field(field).unwrap();
        let rows = self.cases().flat_map(|case| case.rows(&self.schema, index));
        count(rows.map(|row| self.term(Domain::Option, row[word])))
    }

    fn rows_of(&self, subform: &str) -> usize {
        let index = self.schema.subform(subform).unwrap();
        self.cases().map(|case| case.rows(&self.schema, index).count()).sum()
    }

    /// The error it met, by itself or as trouble.
    fn error(&self) -> &Error {
        let ended = self.result.as_ref().and_then(|result| result.as_ref().err());
        ended.or(self.troubles.first().map(|(error, _)| error)).expect("something went wrong")
    }
}

/// The records of the recorded poll, each once.
fn polled() -> BTreeMap<String, Value> {
    let pages = recorded_lines("poll-sequence.ndjson");
    let records = pages.iter().flat_map(|page| page["body"]["data"].as_array().unwrap());
    records.map(|record| (record["id"].as_str().unwrap().to_owned(), record.clone())).collect()
}

#[test]
fn the_recorded_poll_gives_the_recorded_cases() {
    let server = recorded_server();
    let heard = listen(&server, false);
    assert!(matches!(heard.result, Some(Ok(()))), "{:?}", heard.result);
    assert!(heard.troubles.is_empty(), "{:?}", heard.troubles);
    assert_eq!(server.strangers(), [""; 0]);
    let records = polled();
    assert_eq!(records.len(), 317);
    let keys: BTreeSet<_> = heard.changes.iter().map(|change| change.key).collect();
    assert_eq!((keys.len(), heard.changes.len(), heard.refused), (317, 317, 0));

    let disabled =
        heard.cases().filter(|case| Case::boolean(heard.word(case, "record_state")) == Some(false));
    assert_eq!(disabled.count(), 10);
    for field in ["status", "sex", "risk_level", "module_id", "closure_reason"] {
        let expected = count(records.values().map(|record| text(&record[field])));
        assert_eq!(heard.count(field), expected, "{field}");
    }
    assert_eq!(heard.count("status")[&Some("weird_value".to_owned())], 1);
    let ages = count(heard.cases().map(|case| Case::integer(heard.word(case, "age"))));
    let expected = records.values().map(|record| record["age"].as_i64());
    assert_eq!(ages, count(expected.map(|age| age.map(|age| age as i32))));
    for field in ["service_type", "service_implemented"] {
        let services = records.values().flat_map(|record| rows(record, "services_section"));
        let expected = count(services.map(|row| text(&row[field])));
        assert_eq!(heard.count_rows("services_section", field), expected, "{field}");
    }
    let reopened: usize = records.values().map(|record| rows(record, "reopened_logs").len()).sum();
    assert_eq!(heard.rows_of("reopened_logs"), reopened);
    assert_eq!(reopened, 15);
    let places = count(
        heard
            .cases()
            .map(|case| heard.term(Domain::Location, heard.word(case, "location_current"))),
    );
    let expected = records.values().map(|record| text(&record["location_current"]));
    assert_eq!(places, count(expected.map(|code| code.map(|code| code.to_uppercase()))));

    let stamps = records.values().map(|record| text(&record["last_updated_at"]).unwrap());
    let newest: jiff::Timestamp = stamps.max().unwrap().parse().unwrap();
    assert_eq!(heard.caught_up, Some((Some(317), Some(Instant(newest.as_millisecond())))));
}

#[test]
fn every_request_is_signed_and_keeps_the_session() {
    let server = recorded_server();
    let heard = listen(&server, false);
    let asked = server.asked();
    // Places, three lists of labels, and the pages.
    assert_eq!(asked.len(), 4 + 4, "{asked:#?}");
    assert!(asked.iter().all(|asked| asked.user.as_deref() == Some("api_reader")));
    assert_eq!(asked[0].cookie, None);
    let kept = |asked: &str| asked == "_app_session=<redacted>";
    assert!(asked[1..].iter().all(|asked| asked.cookie.as_deref().is_some_and(kept)));
    let fields = |target: &str| target.split_once("&fields=").unwrap().1.to_owned();
    let pages = asked.iter().filter(|asked| asked.target.starts_with(CASES));
    // The allow-list and nothing else, so nothing that identifies, whatever it is called. Of the date of birth the
    // month is kept.
    let allowed: BTreeSet<_> = heard.schema.names().collect();
    for identifying in ["name", "national_id_no", "telephone_current", "address_current"] {
        assert!(!allowed.contains(identifying), "{allowed:?}");
    }
    for page in pages {
        let fields = fields(&page.target);
        assert_eq!(fields.split(',').collect::<BTreeSet<_>>(), allowed);
    }
}

#[test]
fn recorded_places_and_labels_get_their_names() {
    let heard = listen(&recorded_server(), false);
    let exchange = recorded("locations-hierarchy");
    let expected: BTreeSet<_> = exchange["body"]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|place| {
            let above = place["hierarchy"].as_array().unwrap().iter().rev().nth(1);
            let name = place["placename"]["en"].as_str().unwrap();
            let level = place["admin_level"].as_u64().unwrap();
            let code = place["code"].as_str().unwrap();
            (code.to_owned(), level, name.to_owned(), above.and_then(text))
        })
        .collect();
    assert_eq!(expected.len(), 12);
    let term = |code: Code| heard.term(Domain::Location, code.0).unwrap();
    let places = heard.places.iter().map(|place| {
        let name = place.names["en"].clone();
        (term(place.code), u64::from(place.level), name, place.parent.map(term))
    });
    assert_eq!(places.collect::<BTreeSet<_>>(), expected);

    let label = |field: &str, id: &str| {
        let found = heard.labels.iter().find(|labels| labels.field == field);
        let found = found.and_then(|labels| labels.values.iter().find(|(value, _)| value == id));
        found.and_then(|(_, texts)| texts.get("en")).map_or("none", String::as_str)
    };
    for (field, id, expected) in [
        ("sex", "male", "Male"),
        ("risk_level", "high", "High"),
        ("status", "open", "Open"),
        ("disability_type", "mental_disability", "Mental Disability"),
        ("protection_concerns", "gbv_survivor", "GBV survivor"),
        ("services_section.service_type", "safehouse_service", "Safehouse Service"),
        ("services_section.service_implemented", "not_implemented", "Not Implemented"),
        ("sex", "no_such_id", "none"),
    ] {
        assert_eq!(label(field, id), expected, "{field}.{id}");
    }
}

#[test]
fn recorded_refusals_are_errors_of_the_right_kind() {
    for (name, kind, waits_seconds) in [
        ("auth-none-401", Kind::Permission, None),
        ("auth-wrong-password-401", Kind::Permission, None),
        ("auth-locked-401", Kind::Permission, None),
        ("auth-disabled-user-401", Kind::Permission, None),
        ("error-403-no-permission", Kind::Permission, None),
        ("show-404", Kind::Unavailable, Some(0)),
        ("error-422-bad-type", Kind::Config, None),
        ("tokens-429", Kind::Temporary, Some(0)),
        ("error-500-json-suffix", Kind::Temporary, Some(0)),
        ("error-503-config-lock", Kind::Temporary, Some(60)),
        ("health-api-503-config-lock", Kind::Temporary, Some(60)),
    ] {
        let server = recorded_server();
        server.answer_next(CASES, u32::MAX, Reply::recorded(name));
        let heard = listen(&server, false);
        let error = heard.error();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        let waits = heard.troubles.first().map(|(_, wait)| wait.as_secs());
        assert_eq!(waits, waits_seconds, "{name}");
        let asked = server.asked().iter().filter(|asked| asked.target.starts_with(CASES)).count();
        assert_eq!(asked, 1, "{name}: asked again");
        assert!(heard.changes.is_empty() && heard.caught_up.is_none(), "{name}");
        let status = recorded(name)["status"].to_string();
        let said = error.to_string();
        assert!(said.contains(&status), "{name}: {said}");
        for body in
            ["sign in", "Invalid", "parent_form", "Couldn't", "/age", "hush-4711", "last_up"]
        {
            assert!(!said.contains(body), "{name}: {said}");
        }
    }
}

#[test]
fn a_wrong_password_is_sent_once_even_for_the_places() {
    let server = Replay::start();
    for path in [CASES, LOCATIONS, "/api/v2/lookups", "/api/v2/forms"] {
        server.answer(path, Reply::recorded("auth-wrong-password-401"));
    }
    let heard = listen(&server, false);
    assert_eq!(heard.error().kind(), Kind::Permission);
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn cases_are_read_after_a_fault_and_without_places() {
    let server = recorded_server();
    server.answer_next(LOCATIONS, u32::MAX, Reply::recorded("error-403-agencies"));
    server.answer_next(CASES, 1, Reply::recorded("tokens-429"));
    let heard = listen(&server, true);
    assert!(matches!(heard.result, Some(Ok(()))), "{:?}", heard.result);
    assert_eq!((heard.changes.len(), heard.places.len()), (317, 0));
    let kinds: Vec<_> = heard.troubles.iter().map(|(error, _)| error.kind()).collect();
    // The places are asked for once more when the cases come again.
    assert_eq!(kinds, [Kind::Permission, Kind::Temporary, Kind::Permission]);
}

#[test]
fn a_filter_that_is_dropped_or_fails_is_seen() {
    // Dropped: every question gets the first page, and the far future is not empty.
    let pages = recorded_lines("poll-sequence.ndjson");
    let server = recorded_server();
    server.answer_next(CASES, u32::MAX, Reply::recorded("index-unknown-filter-ignored"));
    server.answer_next(CASES, 2, Reply::of(&pages[0]));
    let heard = listen(&server, false);
    assert_eq!(heard.error().kind(), Kind::Unavailable);
    assert!(heard.error().to_string().contains("ignored the filter"), "{}", heard.error());
    assert_eq!(heard.changes.len(), 100);

    // Failed inside the server: an empty page, though there are newer cases.
    let server = recorded_server();
    let mut newest = pages[3].clone();
    let last = newest["body"]["data"].as_array().unwrap().last().unwrap().clone();
    newest["body"]["data"] = json!([last]);
    server.answer_next(CASES, u32::MAX, Reply::of(&newest));
    server.answer_next(CASES, 1, Reply::recorded("index-filter-broken-by-one-row"));
    server.answer_next(CASES, 1, Reply::of(&pages[0]));
    let heard = listen(&server, false);
    assert_eq!(heard.error().kind(), Kind::Temporary);
    assert!(heard.error().to_string().contains("empty page"), "{}", heard.error());
    assert!(heard.caught_up.is_none());
}

#[test]
fn checking_finds_the_version_and_what_comes() {
    let server = recorded_server();
    let mut sample = recorded_lines("poll-sequence.ndjson").swap_remove(0);
    sample["request"]["query"] = json!(
        "last_updated_at=1970-01-01T00:00:00Z..&order_by=last_updated_at&order=asc&per=100&page=1"
    );
    server.replay(&sample);
    let schema = schema_of(&shipped_packs());
    let findings = server.wait(source::check(&settings(&server), &schema)).unwrap();
    let said = recorded("system-settings")["body"]["data"]["primero_version"].clone();
    assert_eq!(findings.version.as_deref(), said.as_str());
    assert_eq!(findings.version.as_deref(), Some("2.14.0"));
    assert_eq!((findings.case_count, findings.location_count), (Some(317), Some(12)));
    assert_eq!(findings.sample_count, 100);
    assert!(findings.fields_seen.iter().any(|field| field == "services_section.service_type"));
    assert!(findings.fields_missing.iter().any(|field| field == "type_of_case"));

    server.answer_next("/api/v2/system_settings", 1, Reply::recorded("auth-locked-401"));
    let refused = server.wait(source::check(&settings(&server), &schema)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Permission);
}
