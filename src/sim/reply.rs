//! Replies with the headers, error bodies and half-sent bodies of the real server.

use std::convert::Infallible;
use std::io::Write;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt, stream};
use serde_json::json;
use sha2::{Digest, Sha256};

const JSON: &str = "application/json; charset=utf-8";

/// Headers that every reply of a controller carries; those of the sign-in do not.
const SECURITY: &[(&str, &str)] = &[
    ("x-frame-options", "SAMEORIGIN"),
    ("x-xss-protection", "1; mode=block"),
    ("x-content-type-options", "nosniff"),
    ("x-download-options", "noopen"),
    ("x-permitted-cross-domain-policies", "none"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
];

/// Between the half of a body and the break, so that the half really goes out.
const CUT_PAUSE: Duration = Duration::from_millis(10);

/// A reply before it is sent.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: StatusCode, content_type: &str, body: String) -> Self {
        let headers = vec![(CONTENT_TYPE, content_type.to_owned())];
        Self { status, headers, body: body.into_bytes() }
    }

    /// 200 with JSON.
    pub(super) fn json(body: String) -> Self {
        Self::new(StatusCode::OK, JSON, body)
    }

    /// 204.
    pub(super) fn no_content() -> Self {
        Self { status: StatusCode::NO_CONTENT, headers: Vec::new(), body: Vec::new() }
    }

    /// An error of a controller.
    pub(super) fn error(status: u16, resource: &str, detail: Option<&str>, message: &str) -> Self {
        let mut error = json!({"status": status, "resource": resource, "message": message});
        if let Some(detail) = detail {
            error["detail"] = detail.into();
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, JSON, json!({"errors": [error]}).to_string())
    }

    /// 401 in the words of the sign-in library, which has its own shape.
    pub(super) fn unauthorized(sentence: &str) -> Self {
        let body = json!({"error": sentence}).to_string();
        let mut reply = Self::new(StatusCode::UNAUTHORIZED, JSON, body);
        reply.set(WWW_AUTHENTICATE, "Bearer realm=\"Primero\" charset=\"UTF8\"");
        reply
    }

    /// 404 of a route that does not exist.
    pub(super) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "text/html; charset=utf-8", String::new())
    }

    /// 414 of the proxy in front.
    pub(super) fn line_too_long() -> Self {
        let body = "<html>\r\n<head><title>414 Request-URI Too Large</title></head>\r\n</html>\r\n";
        Self::new(StatusCode::URI_TOO_LONG, "text/html", body.to_owned())
    }

    /// 429 of the throttle.
    pub(super) fn too_many(retry_after_s: Option<u32>) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self::new(status, "text/plain", "Retry later\n".to_owned()).retry_after(retry_after_s)
    }

    /// 503 of the configuration lock, or of the proxy when there is nothing to wait for.
    pub(super) fn unavailable(resource: &str, retry_after_s: Option<u32>) -> Self {
        match retry_after_s {
            Some(seconds) => {
                let detail = format!("Retry-After: {seconds}");
                let reply = Self::error(503, resource, Some(&detail), "Service Unavailable");
                reply.retry_after(retry_after_s)
            }
            None => {
                let title = "503 Service Temporarily Unavailable";
                let body = format!("<html>\r\n<head><title>{title}</title></head>\r\n</html>\r\n");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "text/html", body)
            }
        }
    }

    /// 503 of a health check.
    pub(super) fn unhealthy() -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "application/json", String::new()).retry_after(Some(60))
    }

    fn retry_after(mut self, seconds: Option<u32>) -> Self {
        if let Some(seconds) = seconds {
            self.set(RETRY_AFTER, &seconds.to_string());
        }
        self
    }

    /// Sets a header.
    pub(super) fn set(&mut self, name: HeaderName, value: &str) {
        self.headers.push((name, value.to_owned()));
    }

    /// Adds the `ETag`, and answers 304 when the caller has this very body already.
    pub(super) fn validate(mut self, request: &HeaderMap) -> Self {
        if self.status != StatusCode::OK {
            self.set(CACHE_CONTROL, "no-cache");
            return self;
        }
        let hash = Sha256::digest(&self.body);
        let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let tag = format!("W/\"{hex}\"");
        self.set(CACHE_CONTROL, "max-age=0, private, must-revalidate");
        let known =
            request.get(IF_NONE_MATCH).is_some_and(|sent| sent.as_bytes() == tag.as_bytes());
        self.set(ETAG, &tag);
        if known {
            self.status = StatusCode::NOT_MODIFIED;
            self.headers.retain(|(name, _)| name != CONTENT_TYPE);
            self.body.clear();
        }
        self
    }

    /// Compresses the body when the caller takes gzip, as the real server does.
    pub(super) fn compress(mut self, request: &HeaderMap) -> Self {
        let accepted = request.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
        if self.body.is_empty() || !accepted.is_some_and(|accepted| accepted.contains("gzip")) {
            return self;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        if let Ok(body) = encoder.write_all(&self.body).and_then(|()| encoder.finish()) {
            self.body = body;
            self.set(CONTENT_ENCODING, "gzip");
        }
        self
    }

    /// The reply as it goes out whole.
    pub(super) fn send(mut self) -> Response<Body> {
        let body = std::mem::take(&mut self.body);
        self.respond(Body::from(body))
    }

    /// The reply with its full length announced and half of it sent; then the connection breaks.
    pub(super) fn send_half(mut self) -> Response<Body> {
        let body = Bytes::from(std::mem::take(&mut self.body));
        self.set(CONTENT_LENGTH, &body.len().max(2).to_string());
        let half = body.slice(..body.len() / 2);
        let broken = stream::once(async {
            tokio::time::sleep(CUT_PAUSE).await;
            Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
        });
        self.respond(Body::from_stream(stream::iter([Ok(half)]).chain(broken)))
    }

    /// The reply in pieces, with a pause before each.
    pub(super) fn send_slowly(mut self, pause: Duration) -> Response<Body> {
        const PIECES: usize = 8;
        let body = Bytes::from(std::mem::take(&mut self.body));
        self.set(CONTENT_LENGTH, &body.len().to_string());
        let piece = body.len().div_ceil(PIECES).max(1);
        let pieces = stream::unfold(body, move |mut rest| async move {
            if rest.is_empty() {
                return None;
            }
            tokio::time::sleep(pause).await;
            let next = rest.split_to(piece.min(rest.len()));
            Some((Ok::<_, Infallible>(next), rest))
        });
        self.respond(Body::from_stream(pieces))
    }

    fn respond(self, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status != StatusCode::UNAUTHORIZED {
            for (name, value) in SECURITY {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
        }
        if !matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::NO_CONTENT) {
            headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        let transport = HeaderValue::from_static("max-age=63072000; includeSubDomains");
        headers.insert("strict-transport-security", transport);
        headers.insert("x-runtime", HeaderValue::from_static("0.012345"));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.append(name, value);
            }
        }
        response
    }
}
