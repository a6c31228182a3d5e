//! The configuration: one TOML file and a few flags, read loosely once, checked, and from then on known to be sound.

mod meaning;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;
use toml::Spanned;

use crate::dataflow::WORKERS_MAX;
use crate::error::{Error, Result};
use crate::indicator::{
    Definition, InstanceDefinition, PACK_BYTES_MAX, PackText, SHIPPED, line_of, misread,
};
use crate::model::{INSTANCES_MAX, OpenSecret, RECORD_TYPE, Secret};
use crate::report;
use crate::sink;
use crate::source;
use crate::state;

use meaning::Meaning;

/// Longest configuration file, in bytes.
const CONFIG_BYTES_MAX: usize = 1024 * 1024;

/// Longest `erasure_seconds`: a month.
const ERASURE_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// The schema of the tables, unless the file says otherwise.
const SCHEMA_DEFAULT: &str = "tonle";

/// The JSON Schema of a configuration file.
pub const CONFIG_SCHEMA: &str = include_str!("config.schema.json");

/// What the command line may say over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Worker threads of the dataflow.
    pub workers: Option<usize>,
    /// The database, instead of `database.url`.
    pub database_url: Option<String>,
}

/// A sound configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is read, counted and published.
    pub definition: Arc<Definition>,
    /// What is read of the Primero instances, in the order of the file: the cases of each, and behind them its
    /// incidents where they are wanted.
    pub instances: Vec<source::Settings>,
    /// What the option ids of each instance mean, by its name.
    meanings: BTreeMap<String, Meaning>,
    /// The key of all pseudonyms.
    pub pseudonym_key: Secret,
    /// The files of keys and passwords that others may use, in the order of the file. None is refused: containers
    /// mount them with modes that nobody chose.
    pub open_secrets: Vec<OpenSecret>,
    /// Where the tables are.
    pub sink: sink::Settings,
    /// Where the checkpoint is.
    pub state: state::Settings,
    /// Where health and metrics can be asked; nowhere when absent.
    pub web: Option<SocketAddr>,
    /// The time zone in which the clock ticks.
    pub time_zone: TimeZone,
    /// Worker threads of the dataflow.
    pub workers: usize,
    /// How long a record that left may stay in files of the state.
    pub erasure_within: Duration,
    /// How events are written.
    pub log_format: report::Format,
    /// Which events are written, if the file says so.
    pub log_level: Option<report::Level>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    packs: Spanned<Vec<String>>,
    pseudonym_key_file: Spanned<PathBuf>,
    time_zone: Spanned<String>,
    workers: Option<usize>,
    erasure_seconds: Option<u64>,
    state_directory: Option<PathBuf>,
    state: Option<Spanned<RawState>>,
    database: Spanned<RawDatabase>,
    web: Option<RawWeb>,
    log: Option<Spanned<RawLog>>,
    instances: Vec<Spanned<source::RawSettings>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDatabase {
    url: Option<String>,
    password_file: Option<PathBuf>,
    schema: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawState {
    key_file: Option<PathBuf>,
    #[serde(default)]
    previous_key_files: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWeb {
    listen: SocketAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    format: Option<String>,
    level: Option<String>,
}

impl Config {
    /// Reads and checks a configuration file and everything it names: packs, keys, passwords.
    ///
    /// # Errors
    /// A configuration error with file, line and key.
    pub fn read(path: &Path, overrides: &Overrides) -> Result<Self> {
        let text = text_of(path)?;
        let (checker, raw) = Checker::new(path, &text)?;
        checker.check(raw, overrides)
    }

    /// What the packs do not say of each instance, in order.
    pub fn instance_definitions(&self) -> Vec<InstanceDefinition> {
        let definition = |instance: &source::Settings| {
            let mut definition = InstanceDefinition {
                published_as: instance.published_as.clone(),
                fiscal_year_start: instance.fiscal_year_start,
                ..InstanceDefinition::plain(&instance.name)
            };
            if let Some(meaning) = self.meanings.get(&definition.published_as) {
                meaning.put(&mut definition);
            }
            definition
        };
        self.instances.iter().map(definition).collect()
    }

    /// The names of the instances, in order.
    pub fn instance_names(&self) -> Vec<String> {
        self.instances.iter().map(|instance| instance.name.clone()).collect()
    }
}

fn text_of(path: &Path) -> Result<String> {
    let doing = format!("reading {}", path.display());
    let text = fs::read_to_string(path).map_err(|e| {
        Error::config(&doing).caused_by(e).advise("--config names the file; README has a first one")
    })?;
    if text.len() > CONFIG_BYTES_MAX {
        return Err(Error::config(format!("{doing}: longer than 1 MiB")));
    }
    Ok(text)
}

struct Checker<'a> {
    doing: String,
    text: &'a str,
    directory: &'a Path,
}

impl<'a> Checker<'a> {
    fn new(path: &'a Path, text: &'a str) -> Result<(Self, RawConfig)> {
        let doing = format!("reading {}", path.display());
        let raw = toml::from_str(text).map_err(|error| misread(&doing, text, &error))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Ok((Self { doing, text, directory }, raw))
    }

    fn check(&self, raw: RawConfig, overrides: &Overrides) -> Result<Config> {
        let workers = overrides.workers.or(raw.workers).unwrap_or(1);
        if !(1..=WORKERS_MAX).contains(&workers) {
            let wrong = format!("{}: workers: expected 1 to {WORKERS_MAX}", self.doing);
            return Err(Error::config(wrong));
        }
        let erasure_within =
            raw.erasure_seconds.map_or(state::COMPACTION_AGE_MAX, Duration::from_secs);
        if erasure_within < Duration::from_secs(1) || erasure_within > ERASURE_MAX {
            let wrong =
                format!("{}: erasure_seconds: expected 1 to {}", self.doing, ERASURE_MAX.as_secs());
            return Err(Error::config(wrong));
        }
        let key_file = self.directory.join(raw.pseudonym_key_file.get_ref());
        let secret_files = self.secret_files(&raw, overrides);
        let (log_format, log_level) = self.log(raw.log)?;
        let definition = self.packs(&raw.packs)?;
        let (instances, meanings) = self.instances(raw.instances, &definition)?;
        Ok(Config {
            definition,
            pseudonym_key: Secret::from_file(&key_file).map_err(|error| {
                self.at(&raw.pseudonym_key_file, "pseudonym_key_file", error).advise(
                    "make one with: head -c 32 /dev/urandom | base64 > FILE; keep it for ever",
                )
            })?,
            open_secrets: secret_files.iter().filter_map(|path| OpenSecret::at(path)).collect(),
            sink: self.sink(&raw.database, overrides)?,
            state: self.state(raw.state_directory, raw.state)?,
            web: raw.web.map(|web| web.listen),
            time_zone: TimeZone::get(raw.time_zone.get_ref()).map_err(|_| {
                let wrong = Error::config("no such zone is known; write it as Asia/Phnom_Penh");
                self.at(&raw.time_zone, "time_zone", wrong)
            })?,
            instances,
            meanings,
            workers,
            erasure_within,
            log_format,
            log_level,
        })
    }

    /// Every file that a key or a password is read from, once.
    fn secret_files(&self, raw: &RawConfig, overrides: &Overrides) -> Vec<PathBuf> {
        let database = raw.database.get_ref().password_file.as_ref();
        let database = database.filter(|_| overrides.database_url.is_none());
        let state = raw.state.as_ref().map(Spanned::get_ref);
        let state = state.into_iter().flat_map(|s| s.key_file.iter().chain(&s.previous_key_files));
        let instances = raw.instances.iter().filter_map(|i| i.get_ref().password_file.as_ref());
        let key = [raw.pseudonym_key_file.get_ref()];
        let mut paths: Vec<PathBuf> = Vec::new();
        for file in key.into_iter().chain(state).chain(database).chain(instances) {
            let path = self.directory.join(file);
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths
    }

    /// Says where in the file an error comes from.
    fn at<T>(&self, spanned: &Spanned<T>, key: &str, error: Error) -> Error {
        let line = line_of(self.text, spanned.span().start);
        error.while_doing(format!("{} line {line}: {key}", self.doing))
    }

    fn packs(&self, raw: &Spanned<Vec<String>>) -> Result<Arc<Definition>> {
        Definition::read(self.pack_texts(raw)?).map(Arc::new)
    }

    fn pack_texts(&self, raw: &Spanned<Vec<String>>) -> Result<Vec<PackText>> {
        let texts = raw.get_ref().iter().map(|name| match PackText::shipped(name) {
            Some(text) => Ok(text),
            None => self.pack_file(raw, name),
        });
        let texts: Vec<_> = texts.collect::<Result<_>>()?;
        if texts.is_empty() {
            let wrong = Error::config("expected at least one pack, for example [\"cp-core\"]");
            return Err(self.at(raw, "packs", wrong));
        }
        Ok(texts)
    }

    fn pack_file(&self, raw: &Spanned<Vec<String>>, name: &str) -> Result<PackText> {
        let path = self.directory.join(name);
        let shipped: Vec<_> = SHIPPED.iter().map(|(id, _)| *id).collect();
        let text = fs::read(&path).map_err(|e| {
            let wrong = Error::config(format!("opening the pack {}", path.display())).caused_by(e);
            let advice = format!("a pack is a file, or one of {}", shipped.join(", "));
            self.at(raw, "packs", wrong.advise(advice))
        })?;
        if text.len() > PACK_BYTES_MAX {
            return Err(self.at(raw, "packs", Error::config(format!("{name} is too long"))));
        }
        let text = String::from_utf8(text)
            .map_err(|_| self.at(raw, "packs", Error::config(format!("{name} is not UTF-8"))))?;
        Ok(PackText { name: path.display().to_string(), text })
    }

    fn sink(&self, raw: &Spanned<RawDatabase>, overrides: &Overrides) -> Result<sink::Settings> {
        let RawDatabase { url, password_file, schema } = raw.get_ref().clone();
        let (url, password_file) = match &overrides.database_url {
            Some(url) => (url.clone(), None),
            None => (url.unwrap_or_default(), password_file),
        };
        let password = password_file.map(|file| Secret::from_file(&self.directory.join(file)));
        let address = password
            .transpose()
            .and_then(|password| sink::Address::parse(&url, password))
            .map_err(|error| self.at(raw, "database", error))?;
        Ok(sink::Settings { address, schema: schema.unwrap_or_else(|| SCHEMA_DEFAULT.into()) })
    }

    fn state(
        &self,
        directory: Option<PathBuf>,
        raw: Option<Spanned<RawState>>,
    ) -> Result<state::Settings> {
        let directory = directory.unwrap_or_else(|| "state".into());
        let settings = state::Settings::new(self.directory.join(directory))?;
        let Some(raw) = raw else { return Ok(settings) };
        let read = |file: &PathBuf| state::StateKey::from_file(&self.directory.join(file));
        let RawState { key_file, previous_key_files } = raw.get_ref();
        let current = key_file.as_ref().map(read).transpose();
        let current = current.map_err(|error| self.at(&raw, "state.key_file", error))?;
        let previous: Result<_> = previous_key_files.iter().map(read).collect();
        previous
            .and_then(|previous| settings.with_keys(current, previous))
            .map_err(|error| self.at(&raw, "state.previous_key_files", error))
    }

    fn log(&self, raw: Option<Spanned<RawLog>>) -> Result<(report::Format, Option<report::Level>)> {
        let Some(raw) = raw else { return Ok(Default::default()) };
        let RawLog { format, level } = raw.get_ref();
        let format = format.as_deref().map(str::parse).transpose();
        let level = level.as_deref().map(str::parse).transpose();
        match (format, level) {
            (Ok(format), Ok(level)) => Ok((format.unwrap_or_default(), level)),
            (Err(error), _) | (_, Err(error)) => Err(self.at(&raw, "log", error)),
        }
    }

    fn instances(
        &self,
        raw: Vec<Spanned<source::RawSettings>>,
        definition: &Definition,
    ) -> Result<(Vec<source::Settings>, BTreeMap<String, Meaning>)> {
        if raw.is_empty() || raw.len() > INSTANCES_MAX {
            let wrong = format!("{}: instances: expected 1 to {INSTANCES_MAX}", self.doing);
            return Err(Error::config(wrong));
        }
        let mut names = BTreeSet::new();
        let (mut instances, mut meanings) = (Vec::new(), BTreeMap::new());
        for spanned in raw {
            let line = line_of(self.text, spanned.span().start);
            let place = format!("{} line {line}", self.doing);
            let mut raw = spanned.into_inner();
            let mappings = std::mem::take(&mut raw.mappings);
            let concepts = std::mem::take(&mut raw.concepts);
            let settings = raw.check(self.directory);
            let settings = settings.map_err(|error| error.while_doing(&place))?;
            if !names.insert(settings.name.clone()) {
                let wrong = format!("{place}: two instances are called {:?}", settings.name);
                return Err(Error::config(wrong));
            }
            let meaning = self.meaning(&settings.name, &mappings, &concepts, definition)?;
            meanings.insert(settings.name.clone(), meaning);
            let incidents = settings.incidents();
            instances.push(settings);
            if let Some(incidents) = incidents {
                incidents_are_told(definition).map_err(|error| error.while_doing(&place))?;
                instances.push(incidents);
            }
        }
        if instances.len() > INSTANCES_MAX {
            let what = "instances: with their incidents they are more than";
            return Err(Error::config(format!("{}: {what} {INSTANCES_MAX}", self.doing)));
        }
        Ok((instances, meanings))
    }
}

/// Without the built-in field a pack could not tell incidents from cases, and would count them as such.
fn incidents_are_told(definition: &Definition) -> Result<()> {
    if definition.fields.contains_key(RECORD_TYPE) {
        return Ok(());
    }
    Err(Error::config(format!("incidents: no pack has the field {RECORD_TYPE}")).advise(format!(
        "add {RECORD_TYPE} = {{ type = \"option\", values = [\"case\", \"incident\"] }} to the fields of a pack \
         and to its populations, or leave incidents out"
    )))
}
