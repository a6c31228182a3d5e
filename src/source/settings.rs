//! The settings of one instance: read loosely once, checked, and from then on known to be sound.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;
use toml::Spanned;
use url::{Host, Url};

use super::client::Session;
use crate::error::{Error, Result};
use crate::model::{RecordType, Secret};

/// Longest name of an instance, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 64;
/// The month in which a fiscal year begins, unless the settings say otherwise.
pub(super) const FISCAL_YEAR_START: u8 = 1;
/// Records asked for at once, unless the settings say otherwise.
pub(super) const PAGE_SIZE: u32 = 500;
/// Most records a server gives at once; it cuts a larger wish without a word.
pub(super) const PAGE_SIZE_MAX: u32 = 1_000;
/// Seconds between two polls of a caught-up instance, unless the settings say otherwise.
pub(super) const POLL_SECONDS: u32 = 10;
/// Longest wait between two polls, in seconds.
pub(super) const POLL_SECONDS_MAX: u32 = 86_400;
/// Minutes that are read again at each poll: a change becomes visible some time after its stamp.
pub(super) const OVERLAP_MINUTES: u32 = 5;
/// Longest overlap, in minutes.
pub(super) const OVERLAP_MINUTES_MAX: u32 = 24 * 60;
/// Longest silence of a server, in seconds, unless the settings say otherwise; it may have to scan
/// its whole table before the first byte.
pub(super) const TIMEOUT_SECONDS: u32 = 120;
/// Longest silence that may be allowed, in seconds.
pub(super) const TIMEOUT_SECONDS_MAX: u32 = 600;
/// Seconds between two censuses, in which everything that a server has is listed, unless the settings say otherwise.
pub(super) const CENSUS_SECONDS: u32 = 86_400;
/// Longest time between two censuses, in seconds.
pub(super) const CENSUS_SECONDS_MAX: u32 = 31 * 86_400;
/// Greatest share of the known records that may leave at once because a census lacks them, in percent, unless the
/// settings say otherwise.
pub(super) const GONE_PERCENT: u32 = 5;
/// Most threads that decode one instance's files.
pub(super) const THREADS_MAX: usize = 64;

/// `mappings.FIELD = { own_id = "pack_id" }`, or the same of a field of `mappings.SUBFORM`.
pub type RawMappings = BTreeMap<String, Spanned<BTreeMap<String, Spanned<toml::Value>>>>;
/// `concepts.NAME = ["own_id"]`.
pub type RawConcepts = BTreeMap<String, Spanned<Vec<String>>>;

/// The settings of one instance as written: `url` makes it a server, `files` a replay of files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSettings {
    /// Name of the instance, as published: lower-case letters, digits, `-` and `_`.
    pub name: String,
    /// IANA name of the time zone in which the instance's days begin.
    pub time_zone: String,
    /// What stands in the packs for the instance's own option ids, by field; the configuration checks it.
    #[serde(default)]
    pub mappings: RawMappings,
    /// The instance's option ids of concepts of the packs; the configuration checks it.
    #[serde(default)]
    pub concepts: RawConcepts,
    /// The month in which the instance's fiscal year begins: 1 to 12; 1 unless given.
    pub fiscal_year_starts: Option<u8>,
    /// Where the server is, `https://primero.example.org`.
    pub url: Option<String>,
    /// The user to sign in as.
    pub user: Option<String>,
    /// The file that holds the user's password.
    pub password_file: Option<PathBuf>,
    /// Records asked for at once: 1 to 1,000; 500 unless given.
    pub page_size: Option<u32>,
    /// Seconds between two polls, or two looks at the last file: 10 unless given.
    pub poll_seconds: Option<u32>,
    /// Minutes that are read again at each poll, because a change becomes visible some time after
    /// its stamp: 5 unless given.
    pub overlap_minutes: Option<u32>,
    /// Seconds that the server may be silent before a request is given up and made again: 1 to 600;
    /// 120 unless given, because a server may have to scan its whole table first.
    pub timeout_seconds: Option<u32>,
    /// Seconds between two censuses, which find what was deleted on the server for good: 1 to 2,678,400; 86,400
    /// unless given.
    pub census_seconds: Option<u32>,
    /// Greatest share of the known records, in percent, that leave because a census lacks them; when more are missing,
    /// none leaves: 1 to 100; 5 unless given.
    pub gone_percent: Option<u32>,
    /// Whether a password may travel unencrypted to another machine.
    pub allow_plain_http: Option<bool>,
    /// Whether the server's incidents are read too: not unless given.
    pub incidents: Option<bool>,
    /// Files of cases as the API returns them, one JSON object a line, in the order of their
    /// versions.
    pub files: Option<Vec<PathBuf>>,
    /// Files of incidents, in the same form, beside `files`.
    pub incident_files: Option<Vec<PathBuf>>,
    /// A file with the reply of `/api/v2/locations`, beside `files`.
    pub locations: Option<PathBuf>,
    /// Threads that decode `files`: as many as there are cores unless given.
    pub threads: Option<usize>,
}

/// The checked settings of one stream of records: the cases of an instance, or its incidents.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name: that of the instance, with `/incidents` behind it for incidents.
    pub name: String,
    /// The name of the instance, which its records are published under.
    pub published_as: String,
    /// What its records are.
    pub record_type: RecordType,
    /// The time zone in which its days begin.
    pub time_zone: TimeZone,
    /// The month in which its fiscal year begins, 1 to 12.
    pub fiscal_year_start: u8,
    /// Time between two looks for something new.
    pub poll_interval: Duration,
    /// Where its records come from.
    pub kind: SourceKind,
    /// Where the incidents of the instance come from, if they are read.
    pub(super) incidents: Option<SourceKind>,
}

impl Settings {
    /// The settings of the incidents beside these cases, if they are read: a stream of its own, so that what
    /// hinders one does not hinder the other.
    pub fn incidents(&self) -> Option<Self> {
        Some(Self {
            name: format!("{}/{}", self.name, RecordType::Incident.plural()),
            record_type: RecordType::Incident,
            kind: self.incidents.clone()?,
            incidents: None,
            ..self.clone()
        })
    }
}

/// Where the records of a stream come from.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// A server.
    Server(ServerSettings),
    /// Files.
    File(FileSettings),
}

/// How a server is asked.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Its address, without a trailing slash.
    pub url: Url,
    /// The user, in lower case: servers compare it letter by letter.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// Records asked for at once.
    pub page_size: u32,
    /// How far back each poll reads again.
    pub overlap: Duration,
    /// Longest silence before a request is given up.
    pub timeout: Duration,
    /// Time between two censuses.
    pub census_interval: Duration,
    /// Greatest share of the known records, in percent, that may leave at once.
    pub gone_percent_max: u8,
    /// What its clients share.
    pub(super) session: Session,
}

/// Which files are replayed.
#[derive(Clone, Debug)]
pub struct FileSettings {
    /// Files of records, in the order of their versions.
    pub paths: Vec<PathBuf>,
    /// A file of locations.
    pub locations: Option<PathBuf>,
    /// Threads that decode.
    pub threads: usize,
}

impl RawSettings {
    /// Checks the settings; paths in them are relative to `directory`, that of the configuration
    /// file. Reads the password.
    ///
    /// # Errors
    /// A configuration error that names the instance and the key.
    pub fn check(self, directory: &Path) -> Result<Settings> {
        let name = self.name.clone();
        self.checked(directory).map_err(|error| error.while_doing(format!("instance {name:?}")))
    }

    fn checked(self, directory: &Path) -> Result<Settings> {
        let letters = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        let sound = !self.name.is_empty() && self.name.len() <= NAME_BYTES_MAX;
        if !sound || !self.name.bytes().all(letters) || self.name == "all" {
            return Err(wrong("name", "it must be 1 to 64 of a-z, 0-9, - and _, and not \"all\""));
        }
        let time_zone = TimeZone::get(&self.time_zone).map_err(|_| {
            wrong("time_zone", "no such zone is known").advise("write it as Asia/Phnom_Penh")
        })?;
        let fiscal_year_start = self.fiscal_year_starts.unwrap_or(FISCAL_YEAR_START);
        if !(1..=12).contains(&fiscal_year_start) {
            return Err(wrong("fiscal_year_starts", "it must be the number of a month, 1 to 12"));
        }
        let poll = self.poll_seconds.unwrap_or(POLL_SECONDS);
        within("poll_seconds", poll, POLL_SECONDS_MAX)?;
        let kind = match (&self.url, &self.files) {
            (Some(_), None) => SourceKind::Server(self.server(directory)?),
            (None, Some(_)) => SourceKind::File(self.file(directory)?),
            _ => return Err(wrong("url", "either url or files must be given, not both")),
        };
        let incidents = self.incident_source(directory, &kind)?;
        Ok(Settings {
            published_as: self.name.clone(),
            name: self.name,
            record_type: RecordType::Case,
            time_zone,
            fiscal_year_start,
            poll_interval: Duration::from_secs(poll.into()),
            kind,
            incidents,
        })
    }

    /// Where incidents come from, beside the `cases`.
    fn incident_source(&self, directory: &Path, cases: &SourceKind) -> Result<Option<SourceKind>> {
        match cases {
            SourceKind::Server(server) => {
                absent("incident_files", self.incident_files.is_some(), "url")?;
                let wanted = self.incidents.unwrap_or(false);
                Ok(wanted.then(|| SourceKind::Server(server.clone())))
            }
            SourceKind::File(files) => {
                absent("incidents", self.incidents.is_some(), "files")?;
                let Some(named) = &self.incident_files else { return Ok(None) };
                let paths = paths_in("incident_files", named, directory)?;
                // The places come with the cases.
                let files = FileSettings { paths, locations: None, threads: files.threads };
                Ok(Some(SourceKind::File(files)))
            }
        }
    }

    fn server(&self, directory: &Path) -> Result<ServerSettings> {
        absent("locations", self.locations.is_some(), "url")?;
        absent("threads", self.threads.is_some(), "url")?;
        let plain = self.allow_plain_http.unwrap_or(false);
        let url = server_url(self.url.as_deref().unwrap_or_default(), plain)?;
        let user = self.user.as_deref().unwrap_or_default().trim().to_lowercase();
        if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) {
            return Err(wrong("user", "it must be a user name, without a colon"));
        }
        let file = self.password_file.as_deref();
        let file = file.ok_or_else(|| wrong("password_file", "it is missing"))?;
        let password = Secret::from_file(&directory.join(file))
            .map_err(|error| error.while_doing("password_file"))?;
        let page_size = self.page_size.unwrap_or(PAGE_SIZE);
        within("page_size", page_size, PAGE_SIZE_MAX)?;
        let overlap = self.overlap_minutes.unwrap_or(OVERLAP_MINUTES);
        within("overlap_minutes", overlap, OVERLAP_MINUTES_MAX)?;
        let overlap = Duration::from_secs(u64::from(overlap) * 60);
        let timeout = self.timeout_seconds.unwrap_or(TIMEOUT_SECONDS);
        within("timeout_seconds", timeout, TIMEOUT_SECONDS_MAX)?;
        let timeout = Duration::from_secs(timeout.into());
        let census = self.census_seconds.unwrap_or(CENSUS_SECONDS);
        within("census_seconds", census, CENSUS_SECONDS_MAX)?;
        let gone = self.gone_percent.unwrap_or(GONE_PERCENT);
        within("gone_percent", gone, 100)?;
        Ok(ServerSettings {
            url,
            user,
            password,
            page_size,
            overlap,
            timeout,
            census_interval: Duration::from_secs(census.into()),
            gone_percent_max: u8::try_from(gone).unwrap_or(100),
            session: Session::default(),
        })
    }

    fn file(&self, directory: &Path) -> Result<FileSettings> {
        absent("user", self.user.is_some(), "files")?;
        absent("password_file", self.password_file.is_some(), "files")?;
        absent("page_size", self.page_size.is_some(), "files")?;
        absent("overlap_minutes", self.overlap_minutes.is_some(), "files")?;
        absent("timeout_seconds", self.timeout_seconds.is_some(), "files")?;
        absent("census_seconds", self.census_seconds.is_some(), "files")?;
        absent("gone_percent", self.gone_percent.is_some(), "files")?;
        absent("allow_plain_http", self.allow_plain_http.is_some(), "files")?;
        let paths = paths_in("files", self.files.as_deref().unwrap_or_default(), directory)?;
        let available = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = self.threads.unwrap_or_else(|| available().min(THREADS_MAX));
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(wrong("threads", "it must be 1 to 64"));
        }
        let locations = self.locations.as_deref().map(|path| directory.join(path));
        Ok(FileSettings { paths, locations, threads })
    }
}

fn paths_in(key: &str, named: &[PathBuf], directory: &Path) -> Result<Vec<PathBuf>> {
    if named.is_empty() {
        return Err(wrong(key, "it must name at least one file"));
    }
    Ok(named.iter().map(|path| directory.join(path)).collect())
}

fn wrong(key: &str, why: &str) -> Error {
    Error::config(format!("reading {key}: {why}"))
}

fn within(key: &str, value: u32, most: u32) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(wrong(key, &format!("it must be 1 to {most}")))
}

fn absent(key: &str, given: bool, beside: &str) -> Result<()> {
    if given { Err(wrong(key, &format!("it has no meaning beside {beside}"))) } else { Ok(()) }
}

/// The error texts here never quote the address: a password may have been written into it.
fn server_url(text: &str, allow_plain_http: bool) -> Result<Url> {
    let url = Url::parse(text.trim_end_matches('/'))
        .map_err(|_| wrong("url", "it is no address; write it as https://primero.example.org"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("url", "it holds a user or password").advise("use user, password_file"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("url", "nothing may follow the path"));
    }
    if url.host().is_none() {
        return Err(wrong("url", "it names no server"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_this_machine(&url) || allow_plain_http => Ok(url),
        "http" => Err(wrong("url", "the password would travel unencrypted")
            .advise("use https, or set allow_plain_http = true on a network you trust")),
        _ => Err(wrong("url", "only https and http are spoken")),
    }
}

/// Whether nothing that is sent there leaves this machine.
pub(super) fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &str) -> Result<Settings> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("password"), "hush\n").unwrap();
        let raw: RawSettings = toml::from_str(lines).unwrap();
        raw.check(directory.path())
    }

    const SERVER: &str = "name = 'kampot'\ntime_zone = 'Asia/Phnom_Penh'\nuser = ' Reader '\n\
        password_file = 'password'\n";

    #[test]
    fn a_sound_server_is_taken() {
        let settings = check(&format!("{SERVER}url = 'https://primero.example.org/'")).unwrap();
        let SourceKind::Server(server) = &settings.kind else { panic!() };
        assert_eq!(server.user, "reader");
        assert_eq!(server.password.expose(), b"hush");
        assert_eq!((server.page_size, settings.fiscal_year_start), (500, 1));
        assert_eq!(server.timeout, Duration::from_secs(120));
        assert!(!format!("{settings:?}").contains("hush"));
    }

    #[test]
    fn each_mistake_names_its_key() {
        let url = "url = 'https://p.example.org'";
        for (lines, key) in [
            (format!("{SERVER}url = 'http://p.example.org'"), "unencrypted"),
            (format!("{SERVER}url = 'https://u:hush@p.example.org'"), "url"),
            (format!("{SERVER}url = 'ftp://p.example.org'"), "url"),
            (format!("{SERVER}{url}\npage_size = 5000"), "page_size"),
            (format!("{SERVER}{url}\ntimeout_seconds = 601"), "timeout_seconds"),
            (format!("{SERVER}{url}\nthreads = 2"), "threads"),
            (format!("{SERVER}{url}\ncensus_seconds = 0"), "census_seconds"),
            (format!("{SERVER}{url}\ngone_percent = 101"), "gone_percent"),
            (format!("{SERVER}{url}\npoll_seconds = 0"), "poll_seconds"),
            (format!("{SERVER}{url}\nfiles = ['a']"), "files"),
            (SERVER.to_owned(), "url"),
            (format!("{SERVER}files = ['a']"), "user"),
            ("name = 'all'\ntime_zone = 'UTC'\nfiles = ['a']".into(), "name"),
            ("name = 'a'\ntime_zone = 'Mars'\nfiles = ['a']".into(), "time_zone"),
            ("name = 'a'\ntime_zone = 'UTC'\nfiles = []".into(), "files"),
            (format!("{SERVER}{url}\nincident_files = ['a']"), "incident_files"),
            ("name = 'a'\ntime_zone = 'UTC'\nfiles = ['a']\nincidents = true".into(), "incidents"),
            (
                "name = 'a'\ntime_zone = 'UTC'\nfiles = ['a']\nincident_files = []".into(),
                "incident_files",
            ),
            (format!("{SERVER}{url}\nfiscal_year_starts = 0"), "fiscal_year_starts"),
            (format!("{SERVER}{url}\nfiscal_year_starts = 13"), "1 to 12"),
        ] {
            let error = check(&lines).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("instance"), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn incidents_are_a_stream_of_their_own_and_only_by_choice() {
        let url = "url = 'https://p.example.org'";
        assert!(check(&format!("{SERVER}{url}")).unwrap().incidents().is_none());
        let cases = check(&format!("{SERVER}{url}\nincidents = true")).unwrap();
        let incidents = cases.incidents().unwrap();
        assert_eq!((cases.name.as_str(), cases.record_type), ("kampot", RecordType::Case));
        assert_eq!(incidents.name, "kampot/incidents");
        assert_eq!(incidents.published_as, "kampot");
        assert_eq!(incidents.record_type, RecordType::Incident);
        assert!(incidents.incidents().is_none());

        let files = "name = 'a'\ntime_zone = 'UTC'\nfiles = ['a']\nlocations = 'l'\n";
        assert!(check(files).unwrap().incidents().is_none());
        let cases = check(&format!("{files}incident_files = ['b', 'c']")).unwrap();
        let SourceKind::File(files) = cases.incidents().unwrap().kind else { panic!() };
        assert!(files.paths.len() == 2 && files.paths[0].ends_with("b"));
        assert!(files.locations.is_none(), "places are read once");
    }

    #[test]
    fn plain_http_is_for_this_machine_or_by_choice() {
        for url in ["http://127.0.0.1:3000", "http://localhost", "http://[::1]:80"] {
            assert!(check(&format!("{SERVER}url = '{url}'")).is_ok());
        }
        let by_choice = format!("{SERVER}url = 'http://p.example.org'\nallow_plain_http = true");
        assert!(check(&by_choice).is_ok());
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(toml::from_str::<RawSettings>(&format!("{SERVER}pasword = 'x'")).is_err());
    }
}
