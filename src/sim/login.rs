//! Sign-in by HTTP Basic, the lock after failures, and the session cookie of anonymous sessions.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::managed::ReportAccess;

/// Failed sign-ins that lock the account.
const FAILURES_MAX: u32 = 6;
/// How long the lock lasts.
const LOCK_MINUTES: u64 = 30;
/// Sessions remembered at most; the oldest id is forgotten first.
const SESSIONS_MAX: usize = 100_000;

/// What the server says to someone who sent nothing.
pub(super) const NOTHING_SENT: &str = "You need to sign in or sign up before continuing.";
/// What the server says to a wrong name, a wrong password and a locked account alike.
pub(super) const INVALID: &str = "Invalid User name or password.";

/// The one account of the server.
pub(super) struct Login {
    user: String,
    password: String,
    failures: u32,
    locked_since: Option<Instant>,
}

impl Login {
    /// An account in good standing.
    pub(super) fn new(user: &str, password: &str) -> Self {
        let (user, password) = (user.to_owned(), password.to_owned());
        Self { user, password, failures: 0, locked_since: None }
    }

    /// Lets a request in, or says why not. The user name is compared as sent.
    pub(super) fn check(&mut self, headers: &HeaderMap) -> Result<(), &'static str> {
        let (user, password) = credentials(headers).ok_or(NOTHING_SENT)?;
        if user != self.user {
            return Err(INVALID);
        }
        let lock = Duration::from_secs(LOCK_MINUTES * 60);
        if self.locked_since.is_some_and(|since| since.elapsed() >= lock) {
            self.unlock();
        }
        if password != self.password {
            self.failures += 1;
            if self.failures >= FAILURES_MAX {
                self.locked_since.get_or_insert_with(Instant::now);
            }
            return Err(INVALID);
        }
        if self.locked_since.is_some() {
            return Err(INVALID);
        }
        self.failures = 0;
        Ok(())
    }

    /// Opens the lock, as an operator or time does.
    pub(super) fn unlock(&mut self) {
        self.failures = 0;
        self.locked_since = None;
    }

    /// Changes the password of the account.
    pub(super) fn set_password(&mut self, password: &str) {
        self.password = password.to_owned();
    }
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The rows of the server's `sessions` table.
#[derive(Default)]
pub(super) struct Sessions(BTreeSet<String>);

impl Sessions {
    /// Whether the request resends the cookie of a session that exists.
    pub(super) fn knows(&self, headers: &HeaderMap) -> bool {
        headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).any(|cookies| {
            cookies.split(';').any(|cookie| match cookie.trim().split_once('=') {
                Some(("_app_session", session)) => self.0.contains(session),
                _ => false,
            })
        })
    }

    /// Adds a row.
    pub(super) fn add(&mut self, session: String) {
        if self.0.len() >= SESSIONS_MAX {
            self.0.pop_first();
        }
        self.0.insert(session);
    }
}

/// What the caller's role may read besides cases.
#[derive(Clone, Copy)]
pub(super) struct Rights {
    pub(super) incidents: bool,
    pub(super) agencies: bool,
    pub(super) reports: ReportAccess,
}

impl Rights {
    /// Those of a reader of all cases, as recorded.
    pub(super) const AT_FIRST: Self =
        Self { incidents: true, agencies: false, reports: ReportAccess::Everything };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(user: &str, password: &str) -> HeaderMap {
        let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn six_failures_lock_and_fewer_do_not() {
        let mut login = Login::new("reader", "right");
        for _ in 0..5 {
            assert_eq!(login.check(&signed("reader", "wrong")), Err(INVALID));
        }
        assert_eq!(login.check(&signed("reader", "right")), Ok(()));
        for _ in 0..6 {
            assert_eq!(login.check(&signed("reader", "wrong")), Err(INVALID));
        }
        assert_eq!(login.check(&signed("reader", "right")), Err(INVALID));
        login.unlock();
        assert_eq!(login.check(&signed("reader", "right")), Ok(()));
    }

    #[test]
    fn the_user_name_is_compared_as_sent() {
        let mut login = Login::new("reader", "right");
        assert_eq!(login.check(&signed("Reader", "right")), Err(INVALID));
        assert_eq!(login.check(&signed("reader ", "right")), Err(INVALID));
        assert_eq!(login.check(&HeaderMap::new()), Err(NOTHING_SENT));
    }
}
