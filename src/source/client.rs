//! Asks one Primero server over HTTP: signs in, keeps the session cookie, bounds everything, sorts
//! what goes wrong.
//!
//! **Invariant:** an error text never holds a body, a query string or a credential.

use std::fmt;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, COOKIE, DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, SET_COOKIE,
};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Response, StatusCode, Url};
use zeroize::Zeroizing;

use super::settings::{ServerSettings, is_this_machine};
use crate::crash::{self, Step};
use crate::error::{Error, Kind, Result};
use crate::model::Instant;

/// Longest time for a connection to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for one request, body included, where silence may not last longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest body after decompression, in bytes: a thousand cases with all fields are 3 MB.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Longest request line, in bytes: the proxy that ships with Primero refuses 1 kB and more.
pub(super) const REQUEST_LINE_BYTES_MAX: usize = 1_000;
/// Longest session cookie that is sent back, in bytes; the same proxy refuses longer headers.
const COOKIE_BYTES_MAX: usize = 900;
/// Longest wait that a server may ask for.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);
/// Most redirects in a row.
const REDIRECTS_MAX: usize = 3;

const SESSION_COOKIE: &str = "_app_session=";
const USER_AGENT: &str = concat!("tonle/", env!("CARGO_PKG_VERSION"));

/// A request that failed, with the wait that the server asked for.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) retry_after: Option<Duration>,
    /// Whether asking once more would do harm: another failed sign-in.
    pub(super) is_final: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None, is_final: false }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// A body, and the server's clock when it was sent.
pub(super) struct Reply {
    pub(super) body: Vec<u8>,
    pub(super) date: Option<Instant>,
}

/// What all clients of one user of one server share: they keep one session, and once the password was refused
/// none of them sends it again.
#[derive(Clone, Default)]
pub(super) struct Session(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    cookie: Option<HeaderValue>,
    is_refused: bool,
}

impl Session {
    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.0.lock().expect("no holder of the session panics"))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(…)")
    }
}

/// A signed-in reader of one server.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    sign_in: HeaderValue,
    session: Session,
}

impl Client {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// A configuration error when TLS cannot be set up.
    pub(super) fn new(settings: &ServerSettings) -> Result<Self> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Fails only when another part of the process has chosen a provider, which then serves
            // as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let mut http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(settings.timeout)
            .timeout(REQUEST_TIMEOUT.max(settings.timeout))
            .redirect(Policy::custom(same_server))
            .gzip(true)
            .tls_certs_only(authorities(&settings.url)?);
        if is_this_machine(&settings.url) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| {
            Error::config("setting up the HTTP client").caused_by(error.without_url())
        })?;
        let base = settings.url.as_str().trim_end_matches('/').to_owned();
        let sign_in = sign_in(&settings.user, settings.password.expose())?;
        Ok(Self { http, base, sign_in, session: settings.session.clone() })
    }

    /// Bytes of the request line of `path`, which begins with `/api` and includes its query.
    pub(super) fn request_line_bytes(&self, path: &str) -> usize {
        let prefix = Url::parse(&self.base).map_or(0, |url| url.path().trim_end_matches('/').len());
        "GET  HTTP/1.1\r\n".len() + prefix + path.len()
    }

    /// Checks that a proxy in front of the server will take the request for `path`.
    ///
    /// # Errors
    /// A configuration error when the request line is too long.
    pub(super) fn fits(&self, path: &str) -> Result<()> {
        let bytes = self.request_line_bytes(path);
        if bytes <= REQUEST_LINE_BYTES_MAX {
            return Ok(());
        }
        let doing =
            format!("asking for records: the request line has {bytes} bytes, 1,000 may be sent");
        Err(Error::config(doing).advise("let the packs read fewer fields"))
    }

    /// Asks for `path` once. What `doing` says goes into errors.
    pub(super) async fn get(&self, path: &str, doing: &str) -> Result<Reply, Failure> {
        self.fits(path)?;
        if self.session.with(|kept| kept.is_refused) {
            return Err(unknown_user(doing));
        }
        let mut request = self
            .http
            .get(format!("{}{path}", self.base))
            .header(AUTHORIZATION, self.sign_in.clone())
            .header(ACCEPT, "application/json");
        if let Some(cookie) = self.session.with(|kept| kept.cookie.clone()) {
            request = request.header(COOKIE, cookie);
        }
        let reply = request.send().await.map_err(|error| transport(doing, error))?;
        self.keep_cookie(reply.headers());
        if reply.status() == StatusCode::UNAUTHORIZED {
            self.session.with(|kept| kept.is_refused = true);
            return Err(unknown_user(doing));
        }
        if reply.status() != StatusCode::OK {
            return Err(refusal(doing, &reply));
        }
        let date = reply.headers().get(DATE).and_then(http_date);
        let date = date.map(|date| Instant(date.as_millisecond()));
        let body = read_body(doing, reply).await?;
        crash::point(Step::ReplyRead);
        Ok(Reply { body, date })
    }

    /// Without its cookie sent back, each request leaves a row in a table of the server.
    fn keep_cookie(&self, headers: &HeaderMap) {
        for header in headers.get_all(SET_COOKIE) {
            let pair = header.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
            if !pair.starts_with(SESSION_COOKIE.as_bytes()) || pair.len() > COOKIE_BYTES_MAX {
                continue;
            }
            if let Ok(mut cookie) = HeaderValue::from_bytes(pair) {
                cookie.set_sensitive(true);
                self.session.with(|kept| kept.cookie = Some(cookie));
            }
        }
    }
}

/// The authorities that this machine trusts; none where nothing is encrypted, so that a machine
/// without any can still talk to itself.
fn authorities(url: &Url) -> Result<Vec<Certificate>> {
    if url.scheme() != "https" {
        return Ok(Vec::new());
    }
    let found = rustls_native_certs::load_native_certs().certs;
    let usable = found.iter().filter_map(|certificate| Certificate::from_der(certificate).ok());
    let authorities: Vec<_> = usable.collect();
    if authorities.is_empty() {
        return Err(Error::config("setting up TLS: this machine trusts no certificate authority")
            .advise("install its ca-certificates, or name a bundle in SSL_CERT_FILE"));
    }
    Ok(authorities)
}

fn sign_in(user: &str, password: &[u8]) -> Result<HeaderValue> {
    let plain = Zeroizing::new([user.as_bytes(), b":", password].concat());
    let coded = Zeroizing::new(format!("Basic {}", STANDARD.encode(&*plain)));
    let mut header = HeaderValue::from_str(&coded)
        .map_err(|_| Error::bug("base64 gave something that no header can hold"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Follows a redirect within one server only: the password is for it alone.
fn same_server(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let first = attempt.previous().first().map(Url::origin);
    if attempt.previous().len() > REDIRECTS_MAX || first != Some(attempt.url().origin()) {
        return attempt.stop();
    }
    attempt.follow()
}

/// An error of the connection itself.
fn transport(doing: &str, error: reqwest::Error) -> Failure {
    let (kind, why) = if error.is_connect() {
        (Kind::Unavailable, "no connection to the server")
    } else if error.is_timeout() {
        (Kind::Temporary, "the server took too long")
    } else {
        (Kind::Temporary, "the connection broke")
    };
    Error::new(kind, format!("{doing}: {why}")).caused_by(error.without_url()).into()
}

/// What 401 means.
fn unknown_user(doing: &str) -> Failure {
    let what = format!("{doing}: the server answered 401: it does not know this user and password");
    let error = Error::new(Kind::Permission, what)
        .advise("check both; it is not tried again, because six failures lock the account");
    Failure { error, retry_after: None, is_final: true }
}

/// What a status other than 200 and 401 means.
fn refusal(doing: &str, reply: &Response) -> Failure {
    let status = reply.status();
    let error = |kind, why: &str| {
        Error::new(kind, format!("{doing}: the server answered {}: {why}", status.as_u16()))
    };
    let error = match status.as_u16() {
        403 => error(Kind::Permission, "the user's role lacks a right")
            .advise("give the role read access to what is asked for and the forms that are read"),
        404 => error(Kind::Unavailable, "there is no such page; is this a Primero server?"),
        429 => error(Kind::Temporary, "it is asked too often"),
        503 => error(Kind::Temporary, "it is busy or being configured"),
        500..=599 => error(Kind::Temporary, "it failed"),
        300..=399 if reply.headers().contains_key(LOCATION) => {
            error(Kind::Config, "it sends us to another server")
                .advise("set url to the address that it ends at")
        }
        _ => error(Kind::Config, "it does not accept this request"),
    };
    let asked =
        reply.headers().get(RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()));
    let retry_after = asked.map(|wait| wait.min(RETRY_AFTER_MAX));
    Failure { error, retry_after, is_final: false }
}

/// The wait that `Retry-After` asks for: seconds, or a date.
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.to_str().ok()?.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = SystemTime::from(http_date(value)?);
    Some(until.duration_since(now).unwrap_or_default())
}

fn http_date(value: &HeaderValue) -> Option<Timestamp> {
    Some(rfc2822::parse(value.to_str().ok()?).ok()?.timestamp())
}

async fn read_body(doing: &str, mut reply: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(|error| transport(doing, error))? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            let text = format!("{doing}: the reply is longer than 64 MiB");
            return Err(Error::config(text).advise("set a smaller page_size").into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn client(url: &str) -> Client {
        let settings = ServerSettings {
            url: url.parse().unwrap(),
            user: "reader".into(),
            password: Secret::new("hush"),
            page_size: 500,
            overlap: Duration::from_secs(300),
            timeout: Duration::from_secs(120),
            census_interval: Duration::from_secs(86_400),
            gone_percent_max: 5,
            session: Session::default(),
        };
        Client::new(&settings).unwrap()
    }

    #[test]
    fn a_server_may_ask_for_seconds_or_name_a_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |text: &str, seconds: Option<u64>| {
            let value = HeaderValue::from_str(text).unwrap();
            assert_eq!(retry_after(&value, now), seconds.map(Duration::from_secs), "{text}");
        };
        check("60", Some(60));
        check("Sun, 06 Nov 1994 08:51:37 GMT", Some(120));
        check("Sun, 06 Nov 1994 08:49:30 GMT", Some(0));
        check("soon", None);
        check("-5", None);
    }

    #[test]
    fn only_the_session_cookie_is_kept() {
        let client = client("http://localhost:1");
        let mut headers = HeaderMap::new();
        for cookie in ["CSRF-TOKEN=x; path=/", "_app_session=abc; secure; HttpOnly", "other=1"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(cookie));
        }
        client.keep_cookie(&headers);
        let kept = || client.session.with(|kept| kept.cookie.clone()).unwrap();
        assert_eq!(kept(), "_app_session=abc");
        assert!(kept().is_sensitive());
        let long = format!("_app_session={}", "x".repeat(COOKIE_BYTES_MAX));
        headers.insert(SET_COOKIE, HeaderValue::from_str(&long).unwrap());
        client.keep_cookie(&headers);
        assert_eq!(kept(), "_app_session=abc");
    }

    #[test]
    fn a_request_that_a_proxy_refuses_is_not_made() {
        let client = client("http://localhost:1/primero");
        assert_eq!(client.request_line_bytes("/api"), "GET /primero/api HTTP/1.1\r\n".len());
        let error = client.fits(&format!("/api?{}", "x".repeat(1_000))).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(!error.to_string().contains("xxx"));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unavailable_and_unnamed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let asked = client(&format!("http://{address}")).get("/api?secret=7f3a", "asking").await;
        let error = asked.err().unwrap().error;
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(!error.to_string().contains("7f3a"), "{error}");
    }
}
