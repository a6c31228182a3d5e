//! A server that answers requests with replies that a real Primero gave.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The server's clock: a little after the newest recorded change, whatever the time is now.
const DATE: &str = "Sun, 22 Nov 2026 18:00:00 GMT";

/// Headers that belong to a transfer, not to a reply.
const OTHER_HEADERS: [&str; 2] = ["transfer-encoding", "date"];

/// A recorded reply.
#[derive(Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) target: String,
    /// The user that signed in.
    pub(crate) user: Option<String>,
    pub(crate) cookie: Option<String>,
}

/// What is answered, and how often.
struct Rule {
    path: String,
    /// Name and value of each parameter but `fields`; whatever they are when absent.
    query: Option<BTreeSet<(String, String)>>,
    left: u32,
    reply: Reply,
}

#[derive(Default)]
struct World {
    rules: Vec<Rule>,
    asked: Vec<Asked>,
    strangers: Vec<String>,
}

/// The server; it stops when it is dropped.
pub(crate) struct Replay {
    world: Arc<Mutex<World>>,
    url: String,
    runtime: Runtime,
}

/// A file among the recordings.
pub(crate) fn recording(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings").join(name)
}

/// The exchanges in a file with one a line.
pub(crate) fn recorded_lines(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(recording(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// One recorded exchange.
pub(crate) fn recorded(name: &str) -> Value {
    let text = std::fs::read_to_string(recording(&format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A text, if it is one.
pub(crate) fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The rows of a subform.
pub(crate) fn rows<'a>(record: &'a Value, subform: &str) -> &'a [Value] {
    record[subform].as_array().map_or(&[], Vec::as_slice)
}

/// How often each item comes.
pub(crate) fn count<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}

impl Reply {
    /// The reply of an exchange; one without headers gets those of a list of cases.
    pub(crate) fn of(exchange: &Value) -> Self {
        let like = match exchange.get("headers") {
            Some(headers) => headers.clone(),
            None => recorded("index-default")["headers"].clone(),
        };
        let headers: Vec<(String, String)> = serde_json::from_value(like).unwrap();
        let body = match &exchange["body"] {
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        let status = exchange["status"].as_u64().unwrap();
        Self { status: status.try_into().unwrap(), headers, body: body.into_bytes() }
    }

    /// The reply of the exchange with this name.
    pub(crate) fn recorded(name: &str) -> Self {
        Self::of(&recorded(name))
    }

    fn send(&self, gzip: bool) -> Response {
        let mut response = Response::builder().status(self.status).header(header::DATE, DATE);
        for (name, value) in &self.headers {
            if !OTHER_HEADERS.contains(&name.to_lowercase().as_str()) {
                response = response.header(name, value);
            }
        }
        if !gzip || self.body.is_empty() {
            return response.body(Body::from(self.body.clone())).unwrap();
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.body).unwrap();
        let body = Body::from(encoder.finish().unwrap());
        response.header(header::CONTENT_ENCODING, "gzip").body(body).unwrap()
    }
}

impl Replay {
    /// A server that knows no answer yet.
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let world = Arc::new(Mutex::new(World::default()));
        let answering = Arc::clone(&world);
        let router = axum::Router::new().fallback(move |request: Request| {
            let response = answering.lock().unwrap().answer(&request);
            async move { response }
        });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { world, url, runtime }
    }

    /// `http://127.0.0.1:<port>`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Does `work` beside the server.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Answers the request of an exchange with its reply, whatever fields it asks for.
    pub(crate) fn replay(&self, exchange: &Value) {
        let request = &exchange["request"];
        let query = parameters(request["query"].as_str().unwrap_or_default());
        self.add(request["path"].as_str().unwrap(), Some(query), u32::MAX, Reply::of(exchange));
    }

    /// Answers every request for a path.
    pub(crate) fn answer(&self, path: &str, reply: Reply) {
        self.add(path, None, u32::MAX, reply);
    }

    /// Answers the next requests for a path, before all other answers to them.
    pub(crate) fn answer_next(&self, path: &str, count: u32, reply: Reply) {
        let rule = Rule { path: path.into(), query: None, left: count, reply };
        self.world.lock().unwrap().rules.insert(0, rule);
    }

    fn add(&self, path: &str, query: Option<BTreeSet<(String, String)>>, left: u32, reply: Reply) {
        self.world.lock().unwrap().rules.push(Rule { path: path.into(), query, left, reply });
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.world.lock().unwrap().asked.clone()
    }

    /// Requests that there is no recording of.
    pub(crate) fn strangers(&self) -> Vec<String> {
        self.world.lock().unwrap().strangers.clone()
    }
}

impl World {
    fn answer(&mut self, request: &Request) -> Response {
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let user = text(header::AUTHORIZATION).and_then(|value| {
            let plain = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
            Some(String::from_utf8(plain).ok()?.split_once(':')?.0.to_owned())
        });
        let cookie = text(header::COOKIE).map(str::to_owned);
        self.asked.push(Asked { target: request.uri().to_string(), user, cookie });
        let gzip = text(header::ACCEPT_ENCODING).is_some_and(|value| value.contains("gzip"));
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let query = parameters(query);
        let fits = |rule: &&mut Rule| {
            rule.left > 0
                && rule.path == path
                && rule.query.as_ref().is_none_or(|wanted| *wanted == query)
        };
        match self.rules.iter_mut().find(fits) {
            Some(rule) => {
                rule.left -= 1;
                rule.reply.send(gzip)
            }
            None => {
                self.strangers.push(request.uri().to_string());
                Response::builder().status(404).body(Body::empty()).unwrap()
            }
        }
    }
}

fn parameters(query: &str) -> BTreeSet<(String, String)> {
    let pairs = url::form_urlencoded::parse(query.as_bytes()).into_owned();
    pairs.filter(|(name, _)| name != "fields").collect()
}
