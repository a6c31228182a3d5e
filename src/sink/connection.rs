//! One connection to Postgres: how it is made, protected and kept alive, and what its errors mean.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Address, Protection};
use crate::error::{Error, Kind, Result};

/// An idle connection is probed after this time, and given up after [`KEEPALIVE_RETRIES`] probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// Data that the server does not acknowledge for so long is a lost connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// The longest that one statement may run, in milliseconds; a reconcile allows itself more.
const STATEMENT_MS_MAX: u32 = 120_000;
/// The longest that one statement of a reconcile may run, in milliseconds.
pub(super) const RECONCILE_STATEMENT_MS_MAX: u32 = 1_800_000;
/// The longest wait for a lock that somebody else holds, in milliseconds.
const LOCK_MS_MAX: u32 = 15_000;
/// The server ends a transaction that its client forgot after this time, in milliseconds.
const IDLE_IN_TRANSACTION_MS_MAX: u32 = 60_000;

/// A server that may forget what it has committed would forget which run may write, and what was to be erased.
const SYNCHRONOUS: &str = "SELECT set_config('synchronous_commit', 'on', false)
     WHERE current_setting('synchronous_commit') = 'off'";

/// SQLSTATE raised when another copy of the program owns the tables.
pub(super) const STATE_FENCED: &str = "TN001";
/// SQLSTATE raised when a statement did not find exactly the rows it was to change.
pub(super) const STATE_DIFFERS: &str = "TN002";

/// Opens a connection; a task drives it until the client is dropped or the connection is lost.
///
/// # Errors
/// Unavailable when nobody answers, Permission when the server refuses, Config when the TLS files are wrong
/// or the server cannot prove who it is.
pub(super) async fn connect(address: &Address) -> Result<Client> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(&address.host)
        .port(address.port)
        .user(&address.user)
        .dbname(&address.database)
        .application_name("tonle")
        .connect_timeout(address.connect_timeout)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(UNACKNOWLEDGED_MAX);
    if let Some(password) = address.password() {
        config.password(password.expose());
    }
    let doing = format!("connecting to the {address}");
    let client = match &address.protection {
        Protection::None => {
            config.ssl_mode(SslMode::Disable);
            let (client, connection) = config.connect(NoTls).await.map_err(failed(&doing))?;
            tokio::spawn(connection);
            client
        }
        Protection::Verified { roots } => {
            config.ssl_mode(SslMode::Require);
            let tls = MakeRustlsConnect::new(trusting(roots.as_deref())?);
            let (client, connection) = config.connect(tls).await.map_err(failed(&doing))?;
            tokio::spawn(connection);
            client
        }
    };
    // Statements are prepared once and run thousands of times by key; a plan made for small tables must
    // not stay when they have grown, so plans that read whole tables are never taken for them.
    let settings = format!(
        "SET statement_timeout = {STATEMENT_MS_MAX}; SET lock_timeout = {LOCK_MS_MAX};
         SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS_MAX};
         SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET client_min_messages = warning;
         SET search_path = pg_catalog; SET default_transaction_isolation = 'read committed';
         SET plan_cache_mode = force_generic_plan;
         SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
    );
    client.batch_execute(&settings).await.map_err(failed(&doing))?;
    client.batch_execute(SYNCHRONOUS).await.map_err(failed(&doing))?;
    Ok(client)
}

/// TLS that checks the certificate and the host name.
fn trusting(roots: Option<&Path>) -> Result<ClientConfig> {
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) => {
            let doing = format!("reading the trusted certificates in {}", path.display());
            let wrong = |e: rustls::pki_types::pem::Error| {
                Error::config(doing.clone()).caused_by(e.to_string())
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(wrong)? {
                let added = store.add(certificate.map_err(wrong)?);
                added.map_err(|e| Error::config(doing.clone()).caused_by(e))?;
            }
            if store.is_empty() {
                return Err(Error::config(format!("{doing}: there are none")));
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(Error::config("this system has no trusted certificates")
                    .advise("name a file of them: sslrootcert=/path/ca.pem in the database URL"));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::bug("setting up TLS").caused_by(e))?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}

/// Turns an error of the driver into one of ours while `doing` something.
///
/// Details and hints of the server are left out: they quote the content of rows.
pub(super) fn failed(doing: &str) -> impl Fn(tokio_postgres::Error) -> Error {
    move |error| {
        let Some(answer) = error.as_db_error() else { return broken(doing, error) };
        let (kind, advice) = meaning(answer.code());
        let cause = format!("{} (SQLSTATE {})", answer.message(), answer.code().code());
        let error = Error::new(kind, doing).caused_by(cause);
        match advice {
            Some(advice) => error.advise(advice),
            None => error,
        }
    }
}

/// An error that the server did not send.
fn broken(doing: &str, error: tokio_postgres::Error) -> Error {
    let text = error.to_string();
    if text.contains("TLS") {
        return Error::config(doing).caused_by(error).advise(
            "the server must offer TLS with a trusted certificate for this host name; a private \
             authority is named by sslrootcert=… in the database URL",
        );
    }
    if text.contains("authentication") || text.contains("invalid configuration") {
        let advice = "check the role and its password file";
        return Error::new(Kind::Permission, doing).caused_by(error).advise(advice);
    }
    if text.contains("serializing") || text.contains("converting") || text.contains("parameters") {
        return Error::bug(doing).caused_by(error);
    }
    Error::new(Kind::Unavailable, doing)
        .caused_by(error)
        .advise("is Postgres running and reachable from here?")
}

/// What a SQLSTATE means for the person at the keyboard.
fn meaning(code: &SqlState) -> (Kind, Option<&'static str>) {
    let reconcile = "the tables were changed by something else; a reconcile puts them right";
    let rights = "run `tonle check` to see which rights the role needs";
    match code.code() {
        STATE_FENCED => (Kind::Config, Some("two copies of tonle write to this schema: stop one")),
        STATE_DIFFERS | "23505" | "23502" => (Kind::DataDiffers, Some(reconcile)),
        "42501" => (Kind::Permission, Some(rights)),
        "42P01" | "42703" | "3F000" => (Kind::DataDiffers, Some(reconcile)),
        "3D000" => (Kind::Config, Some("the database must exist before the first start")),
        "2BP01" => {
            let advice =
                "something made by hand, such as a view, uses it: drop it and make it again";
            (Kind::Config, Some(advice))
        }
        "25006" => (Kind::Unavailable, Some("the server is read-only: is it a standby?")),
        code => match &code[..2] {
            "28" => (Kind::Permission, Some("check the role, its password and pg_hba.conf")),
            "08" | "57" | "53" | "58" => (Kind::Unavailable, None),
            "40" | "55" => (Kind::Temporary, None),
            _ => (Kind::Bug, None),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_says_who_must_act() {
        let kind = |code: &str| meaning(&SqlState::from_code(code)).0;
        assert_eq!(kind("28P01"), Kind::Permission);
        assert_eq!(kind("57P01"), Kind::Unavailable);
        assert_eq!(kind("40P01"), Kind::Temporary);
        assert_eq!(kind("TN002"), Kind::DataDiffers);
        assert_eq!(kind("22P02"), Kind::Bug);
        assert_eq!(kind("TN001"), Kind::Config);
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(trusting(Some(file.path())).unwrap_err().kind(), Kind::Config);
        assert!(trusting(Some(Path::new("/nowhere"))).is_err());
    }
}
