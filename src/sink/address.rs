//! Where the database is and how the connection to it is protected, read from a URL.
//!
//! The `sslmode` words are libpq's, but nothing weaker than what they promise is ever done:
//!
//! | `sslmode`             | here |
//! |-----------------------|------|
//! | `disable`             | no TLS |
//! | `allow`, `prefer`     | no TLS on this machine; refused elsewhere, since they fall back to plain text silently |
//! | `require`, `verify-ca`| as `verify-full`: encryption to a server nobody checked protects nothing |
//! | `verify-full`         | TLS; the certificate must be trusted and carry the host name |
//! | not given             | `disable` for a loopback address or a Unix socket, else `verify-full` |

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use crate::error::{Error, Result};
use crate::model::Secret;

/// How long a connection attempt may take when the URL does not say, in seconds.
const CONNECT_SECONDS: u64 = 10;
/// The longest that a URL may ask for, in seconds.
const CONNECT_SECONDS_MAX: u64 = 300;
const PORT: u16 = 5432;

/// How a connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Not at all: this machine, or somebody asked for it in so many words.
    None,
    /// TLS with a trusted certificate for the host, from these roots or from those of the system.
    Verified {
        /// A PEM file of trusted certificates.
        roots: Option<PathBuf>,
    },
}

/// A database and a role in it. Prints without its password.
#[derive(Clone)]
pub struct Address {
    /// Host name, IP address, or directory of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: String,
    /// Role.
    pub user: String,
    /// How the connection is protected.
    pub protection: Protection,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    password: Option<Secret>,
}

impl Address {
    /// Reads a `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…` URL. A Unix socket is
    /// named by `host=/directory` in the query. `password`, usually from a file, goes before one in the URL.
    ///
    /// # Errors
    /// A configuration error that never quotes the URL.
    pub fn parse(text: &str, password: Option<Secret>) -> Result<Self> {
        let url = Url::parse(&with_host(text)).map_err(|e| {
            wrong(format!("it is no URL: {e}"))
                .advise("postgres://user@host:5432/database; percent-encode special characters")
        })?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(wrong("it must begin with postgres://"));
        }
        let options = Options::read(&url)?;
        let host = match (&options.socket, url.host_str()) {
            (Some(directory), _) => directory.clone(),
            (None, Some(host)) if !host.is_empty() => decoded(host.trim_matches(['[', ']']))?,
            _ => "localhost".to_owned(),
        };
        let user = decoded(url.username())?;
        if user.is_empty() {
            return Err(wrong("it names no user"));
        }
        let database = match decoded(url.path().trim_start_matches('/'))? {
            name if name.is_empty() => user.clone(),
            name => name,
        };
        let in_url = url.password().map(decoded).transpose()?.map(Secret::new);
        let protection = options.protection(is_local(&host))?;
        Ok(Self {
            host,
            port: url.port().unwrap_or(PORT),
            database,
            user,
            protection,
            connect_timeout: options.connect_timeout,
            password: password.or(in_url),
        })
    }

    /// The address as a URL again, without its password.
    pub fn without_password(&self) -> String {
        let encode = |text: &str| {
            url::form_urlencoded::byte_serialize(text.as_bytes())
                .collect::<String>()
                .replace('+', "%20")
        };
        let (user, database) = (encode(&self.user), encode(&self.database));
        let is_socket = self.host.starts_with('/');
        let host = match self.host.contains(':') {
            _ if is_socket => String::new(),
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        let mut text = format!("postgres://{user}@{host}:{}/{database}?sslmode=", self.port);
        match &self.protection {
            Protection::None => text += "disable",
            Protection::Verified { roots: None } => text += "verify-full",
            Protection::Verified { roots: Some(file) } => {
                text += &format!("verify-full&sslrootcert={}", encode(&file.to_string_lossy()));
            }
        }
        text += &format!("&connect_timeout={}", self.connect_timeout.as_secs());
        if is_socket {
            text += &format!("&host={}", encode(&self.host));
        }
        text
    }

    pub(super) fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database {} on {}:{} as {}", self.database, self.host, self.port, self.user)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}, {:?}", self.protection)
    }
}

struct Options {
    socket: Option<String>,
    mode: Option<String>,
    roots: Option<PathBuf>,
    connect_timeout: Duration,
}

impl Options {
    fn read(url: &Url) -> Result<Self> {
        let connect_timeout = Duration::from_secs(CONNECT_SECONDS);
        let mut options = Self { socket: None, mode: None, roots: None, connect_timeout };
        for (name, value) in url.query_pairs() {
            match &*name {
                "sslmode" => options.mode = Some(value.into_owned()),
                "sslrootcert" => options.roots = Some(PathBuf::from(value.into_owned())),
                "host" if value.starts_with('/') => options.socket = Some(value.into_owned()),
                "connect_timeout" => {
                    let seconds =
                        value.parse().ok().filter(|s| (1..=CONNECT_SECONDS_MAX).contains(s));
                    options.connect_timeout = Duration::from_secs(
                        seconds.ok_or_else(|| wrong("connect_timeout must be 1 to 300 seconds"))?,
                    );
                }
                _ => {
                    return Err(wrong(format!("it has an unknown option {name:?}")).advise(
                        "known: sslmode, sslrootcert, host=/socket/directory, connect_timeout",
                    ));
                }
            }
        }
        Ok(options)
    }

    fn protection(&self, local: bool) -> Result<Protection> {
        let verified = Protection::Verified { roots: self.roots.clone() };
        match (self.mode.as_deref(), local) {
            (Some("disable"), _) | (None | Some("allow" | "prefer"), true) => Ok(Protection::None),
            (None | Some("require" | "verify-ca" | "verify-full"), _) => Ok(verified),
            (Some(mode @ ("allow" | "prefer")), false) => Err(wrong(format!(
                "sslmode={mode} would fall back to plain text without saying so"
            ))
            .advise("say sslmode=verify-full, or sslmode=disable on a network you trust")),
            (Some(mode), _) => Err(wrong(format!("sslmode={mode:?} is not known"))
                .advise("disable, require, verify-ca or verify-full")),
        }
    }
}

fn wrong(what: impl fmt::Display) -> Error {
    Error::config(format!("reading the database URL: {what}"))
}

/// `postgres://user@/database` is common for sockets, but no URL: gives it a host.
fn with_host(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let length = text[start..].find(['/', '?', '#']).unwrap_or(text.len() - start);
    let end = start + length;
    if text[start..end].ends_with('@') {
        format!("{}localhost{}", &text[..end], &text[end..])
    } else {
        text.to_owned()
    }
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()).filter(|_| byte == b'%') {
            Some(value) => {
                bytes.push(value);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(wrong("a part of it is no text")),
    }
}

fn is_local(host: &str) -> bool {
    Path::new(host).is_absolute()
        || host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, host: &str, protection: &Protection) {
        let address = Address::parse(url, None).unwrap();
        assert_eq!((address.host.as_str(), &address.protection), (host, protection), "{url}");
    }

    fn refused(url: &str, why: &str) {
        let error = Address::parse(url, None).unwrap_err().to_string();
        assert!(error.contains(why), "{url}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn nothing_weaker_than_asked_is_done() {
        let system = Protection::Verified { roots: None };
        let file = Protection::Verified { roots: Some("/etc/ca.pem".into()) };
        check("postgres://u@db.example.org/x", "db.example.org", &system);
        check("postgres://u@db/x?sslmode=require", "db", &system);
        check("postgres://u@db/x?sslmode=verify-ca&sslrootcert=/etc/ca.pem", "db", &file);
        check("postgres://u@127.0.0.1/x?sslmode=verify-full", "127.0.0.1", &system);
        check("postgres://u@db/x?sslmode=disable", "db", &Protection::None);
        check("postgresql://u@localhost/x", "localhost", &Protection::None);
        check("postgres://u@[::1]:5433/x?sslmode=prefer", "::1", &Protection::None);
        check("postgres://u@/x?host=/run/postgresql", "/run/postgresql", &Protection::None);
        check("postgres://u@%2Frun%2Fpostgresql/x", "/run/postgresql", &Protection::None);
        refused("postgres://u:s3cret@db/x?sslmode=prefer", "plain text");
        refused("postgres://u:s3cret@db/x?sslmode=yes", "not known");
    }

    #[test]
    fn errors_and_debug_do_not_show_the_password() {
        refused("mysql://u:s3cret@db/x", "postgres://");
        refused("postgres://u:s3cret@db:port/x", "no URL");
        refused("postgres://u:s3cret@db/x?option=1", "unknown option");
        refused("postgres://:s3cret@db/x", "no user");
        let address = Address::parse("postgres://u:s3cret%2F@db/x", None).unwrap();
        assert!(!format!("{address:?} {address}").contains("s3cret"));
        assert_eq!(address.password().map(Secret::expose), Some(&b"s3cret/"[..]));
        let file = Address::parse("postgres://u:s3cret@db", Some(Secret::new("other"))).unwrap();
        assert_eq!(file.password().map(Secret::expose), Some(&b"other"[..]));
        assert_eq!(file.database, "u");
    }
}
