//! Files of examples: records in, cells out, step by step, through the real decoder and the real dataflow.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::asked::Asked;
use super::expected::{Expected, figure};
use super::sightings::Sightings;
use crate::dataflow::oracle::CellName;
use crate::dataflow::{Dataflow, Input};
use crate::error::{Error, Result};
use crate::indicator::{
    ALL, Definition, InstanceDefinition, Naming, PACK_BYTES_MAX, PackText, Plan, misread, schema_of,
};
use crate::model::{
    Changes, Day, Dictionary, Figure, Interner, LocationTree, Reason, RecordChange, Schema, Secret,
};
use crate::source::{Given, given_places};

/// Longest file of examples, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Key of the pseudonyms of invented children.
const KEY: &str = "invented children need no secret";
/// The instance of a file that names none.
const INSTANCE: &str = "here";

/// The examples inside the binary: the worked example of the core pack.
const SHIPPED: (&str, &str) =
    ("fixtures/worked-example.toml", include_str!("../../fixtures/worked-example.toml"));

/// How a file of examples went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehearsed {
    /// What it is about.
    pub title: String,
    /// How many steps it has.
    pub steps: usize,
    /// How many expectations were looked at.
    pub expectations: u64,
    /// Each that is not so: the step, the cell, expected and found.
    pub failures: Vec<String>,
    /// What was noticed: values that do not fit the type of their field.
    pub notes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    title: Option<String>,
    packs: Vec<String>,
    time_zone: Option<String>,
    instances: Option<Vec<String>>,
    fiscal_year_starts: Option<u8>,
    #[serde(default)]
    locations: Vec<Value>,
    #[serde(default)]
    look: RawLook,
    steps: Vec<RawStep>,
}

/// Which part of the tables `exact` and `changed` are about; everything that is not said is.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLook {
    indicators: Option<Vec<String>>,
    periods: Option<Vec<String>>,
    instances: Option<Vec<String>>,
    breakdowns: Option<Vec<Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    title: Option<String>,
    today: Option<String>,
    instance: Option<String>,
    #[serde(default)]
    records: Vec<Value>,
    #[serde(default)]
    cells: Vec<Map<String, Value>>,
    #[serde(default)]
    exact: bool,
    changed: Option<Vec<Map<String, Value>>>,
    reason: Option<String>,
}

/// Runs a file of examples.
///
/// # Errors
/// A configuration error when the file, a pack or a name in it is wrong; what does not hold is in the answer.
pub fn rehearse(path: &Path) -> Result<Rehearsed> {
    let doing = format!("reading {}", path.display());
    let failed = |error: std::io::Error| Error::config(&doing).caused_by(error);
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(Error::config(format!("{doing}: longer than 16 MiB")));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    run(&doing, &text, path.parent().unwrap_or(Path::new("")))
}

/// Runs the examples inside the binary; the answer begins with their name.
///
/// # Errors
/// As [`rehearse`].
pub fn rehearse_shipped() -> Result<(&'static str, Rehearsed)> {
    let (name, text) = SHIPPED;
    Ok((name, run(&format!("reading {name}"), text, Path::new(""))?))
}

fn run(doing: &str, text: &str, directory: &Path) -> Result<Rehearsed> {
    let file = read(doing, text)?;
    let definition = Arc::new(packs(doing, &file.packs, directory)?);
    let schema = Arc::new(schema_of(&definition));
    let interner = Interner::default();
    let mut done = Rehearsed {
        title: file.title.clone().unwrap_or_default(),
        steps: file.steps.len(),
        ..Rehearsed::default()
    };
    let instances = file.instances.clone().unwrap_or_else(|| vec![INSTANCE.to_owned()]);
    let tree = places(doing, &file.locations, &interner)?;
    // Everything is read before anything runs, so that every agency has its value.
    let inputs = Inputs { doing, file: &file, instances: &instances, schema: &schema };
    let inputs = inputs.read(&interner, &mut done.notes)?;
    let instances: Vec<_> = instances.iter().map(|name| instance(&file, name)).collect();
    let compiled = interner.write(|all| Plan::compile(definition, &instances, &tree, all));
    let plan = Arc::new(compiled?);
    let dictionary = interner.read(Dictionary::clone);
    let asked = Asked { doing, plan: &plan, dictionary: &dictionary };
    let mut play = Play { look: Look::new(&file, &asked)?, asked: &asked, held: BTreeMap::new() };
    let mut dataflow = Dataflow::start(Arc::clone(&plan), 1)?;
    for (index, (step, input)) in file.steps.iter().zip(inputs).enumerate() {
        let told = (!input.changes.is_empty(), input.today.is_some());
        let changes = dataflow.advance(input)?;
        let rewritten = play.absorb(&changes, told);
        let title = step.title.as_deref().unwrap_or("as expected");
        let failures = play.check(step, &rewritten, &mut done.expectations)?;
        let named =
            failures.into_iter().map(|what| format!("step {} ({title}): {what}", index + 1));
        done.failures.extend(named);
    }
    Ok(done)
}

fn read(doing: &str, text: &str) -> Result<RawFile> {
    let wrong = |error: serde_json::Error| Error::config(doing).caused_by(error);
    let value = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(wrong)?
    } else {
        let table: toml::Table = toml::from_str(text).map_err(|e| misread(doing, text, &e))?;
        json(toml::Value::Table(table))
    };
    let file: RawFile = serde_json::from_value(value).map_err(wrong)?;
    if file.fiscal_year_starts.is_some_and(|month| !(1..=12).contains(&month)) {
        return Err(Error::config(format!(
            "{doing}: fiscal_year_starts: expected a month, 1 to 12"
        )));
    }
    match file.steps.first().map(|step| step.today.is_some()) {
        Some(true) => Ok(file),
        Some(false) => Err(Error::config(format!("{doing}: the first step has no `today`"))),
        None => Err(Error::config(format!("{doing}: it has no [[steps]]"))),
    }
}

/// The same as JSON; a date is its text.
fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(moment) => Value::String(moment.to_string()),
        toml::Value::Array(values) => values.into_iter().map(json).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(key, value)| (key, json(value))).collect())
        }
    }
}

fn packs(doing: &str, names: &[String], directory: &Path) -> Result<Definition> {
    let text = |name: &String| {
        if let Some(text) = PackText::shipped(name) {
            return Ok(text);
        }
        let path = directory.join(name);
        let doing = format!("{doing}: packs: opening {}", path.display());
        let failed = |error: std::io::Error| Error::config(&doing).caused_by(error);
        if fs::metadata(&path).map_err(failed)?.len() > PACK_BYTES_MAX as u64 {
            return Err(Error::config(format!("{doing}: it is too long")));
        }
        let text = fs::read_to_string(&path).map_err(failed)?;
        Ok(PackText { name: path.display().to_string(), text })
    };
    Definition::read(names.iter().map(text).collect::<Result<_>>()?)
}

fn places(doing: &str, locations: &[Value], interner: &Interner) -> Result<LocationTree> {
    let reply = serde_json::json!({ "data": locations }).to_string();
    let places = given_places(reply.as_bytes(), interner);
    let places = places.map_err(|error| Error::config(doing).caused_by(error))?;
    if places.len() != locations.len() {
        let wrong =
            format!("{doing}: locations: each needs a code, and a hierarchy or an admin_level");
        return Err(Error::config(wrong));
    }
    let mut tree = LocationTree::default();
    tree.extend(places);
    Ok(tree)
}

fn instance(file: &RawFile, name: &str) -> InstanceDefinition {
    let plain = InstanceDefinition::plain(name);
    InstanceDefinition {
        fiscal_year_start: file.fiscal_year_starts.unwrap_or(plain.fiscal_year_start),
        ..plain
    }
}

/// The records of all steps, as they are read.
struct Inputs<'a> {
    doing: &'a str,
    file: &'a RawFile,
    instances: &'a [String],
    schema: &'a Arc<Schema>,
}

impl Inputs<'_> {
    fn read(&self, interner: &Interner, notes: &mut Vec<String>) -> Result<Vec<Input>> {
        let zone = self.file.time_zone.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(zone)
            .map_err(|_| self.wrong(format!("time_zone: {zone:?} is not known")))?;
        let key = Secret::new(KEY);
        let mut readers = BTreeMap::new();
        for name in self.instances {
            let schema = Arc::clone(self.schema);
            let given = Given::cases(name, &zone, schema, interner.clone(), &key)?;
            readers.insert(name.as_str(), given);
        }
        let first = self.instances.first().map_or(INSTANCE, String::as_str);
        let mut inputs = Vec::new();
        let (mut sightings, mut last) = (Sightings::new(self.schema), None);
        for (index, step) in self.file.steps.iter().enumerate() {
            let name = step.instance.as_deref().unwrap_or(first);
            let reader = readers.get_mut(name).ok_or_else(|| {
                let wrong =
                    self.wrong(format!("step {}: there is no instance {name:?}", index + 1));
                wrong.advise(format!("the instances are {}", self.instances.join(", ")))
            })?;
            let mut changes: Vec<RecordChange> = Vec::new();
            for (place, record) in step.records.iter().enumerate() {
                let at = format!("step {}, record {}", index + 1, place + 1);
                let (change, misfits) = reader
                    .read(record.to_string().as_bytes())
                    .map_err(|refusal| self.wrong(format!("{at}: {}", refusal.reason)))?;
                changes.push(change);
                notes.extend(
                    misfits.iter().map(|name| format!("{at}: {name} does not fit its type")),
                );
            }
            let today = self.today(step)?;
            last = today.or(last);
            self.stamp(&mut changes, last);
            sightings.settle(&mut changes);
            inputs.push(Input { changes, today });
        }
        Ok(inputs)
    }

    /// An example without a stamp of its last change was seen on the day of its step.
    fn stamp(&self, changes: &mut [RecordChange], today: Option<Day>) {
        let Some(today) = today else { return };
        for case in changes.iter_mut().filter_map(|change| change.case.as_mut()) {
            for watched in self.schema.watched() {
                if case.word(watched.value) != 0 && case.word(watched.first_seen) == 0 {
                    *case = case.with_first_seen(*watched, today.0);
                }
            }
        }
    }

    fn today(&self, step: &RawStep) -> Result<Option<Day>> {
        let Some(text) = &step.today else { return Ok(None) };
        let day = text.parse::<Date>().ok().and_then(Day::of);
        day.map(Some).ok_or_else(|| self.wrong(format!("today: {text:?} is no date")))
    }

    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::config(format!("{}: {what}", self.doing))
    }
}

/// The part of the tables that a file is about.
struct Look {
    indicators: BTreeSet<String>,
    periods: Option<Vec<String>>,
    instances: Option<Vec<String>>,
    breakdowns: Option<Vec<Vec<String>>>,
}

impl Look {
    fn new(file: &RawFile, asked: &Asked<'_>) -> Result<Self> {
        let mut indicators = BTreeSet::new();
        let steps = file.steps.iter();
        for map in steps.flat_map(|step| step.cells.iter().chain(step.changed.iter().flatten())) {
            indicators.insert(Expected::read(map, asked)?.cell.indicator);
        }
        let mut breakdowns = file.look.breakdowns.clone();
        breakdowns.iter_mut().flatten().for_each(|table| table.sort());
        Ok(Self {
            indicators: match &file.look.indicators {
                Some(named) => named.iter().cloned().collect(),
                None => indicators,
            },
            periods: file.look.periods.clone(),
            instances: file.look.instances.clone(),
            breakdowns,
        })
    }

    fn includes(&self, cell: &CellName, names: &[&str]) -> bool {
        let among = |list: &Option<Vec<String>>, name: &str| {
            list.as_ref().is_none_or(|list| list.iter().any(|known| known == name))
        };
        let broken_down = names.iter().zip(&cell.dimensions).filter(|(_, value)| *value != ALL);
        let broken_down: Vec<_> = broken_down.map(|(name, _)| *name).collect();
        self.indicators.contains(&cell.indicator)
            && among(&self.periods, cell.period_type)
            && among(&self.instances, &cell.instance)
            && self.breakdowns.as_ref().is_none_or(|all| all.iter().any(|t| *t == broken_down))
    }
}

/// What the tables hold so far.
struct Play<'a> {
    look: Look,
    asked: &'a Asked<'a>,
    held: BTreeMap<CellName, Figure>,
}

/// Cells that a step rewrote: before, after, why.
type Rewritten = BTreeMap<CellName, (Figure, Figure, Reason)>;

impl Play<'_> {
    fn names(&self) -> Vec<&str> {
        let columns = self.asked.plan.catalog().dimensions.iter();
        columns.map(|column| column.name.as_str()).collect()
    }

    fn absorb(&mut self, changes: &Changes, (has_records, has_tick): (bool, bool)) -> Rewritten {
        // As the pipeline says it of an epoch.
        let whole = match (has_records, has_tick) {
            (false, true) => Reason::Clock,
            (true, true) => Reason::Several,
            _ => changes.tally.reason().unwrap_or(Reason::Several),
        };
        let mut rewritten = Rewritten::new();
        for change in &changes.cells {
            let text = self.asked.plan.cell(change.cell);
            let cell = CellName {
                indicator: text.indicator.to_owned(),
                instance: text.instance.to_owned(),
                period_type: text.period_type,
                period_start: text.period_start,
                dimensions: text.dimensions.iter().map(|value| (*value).to_owned()).collect(),
            };
            if change.new.is_empty() {
                self.held.remove(&cell);
            } else {
                self.held.insert(cell.clone(), change.new);
            }
            rewritten.insert(cell, (change.old, change.new, change.reason.unwrap_or(whole)));
        }
        rewritten
    }

    /// What is not as the step says.
    fn check(&self, step: &RawStep, rewritten: &Rewritten, count: &mut u64) -> Result<Vec<String>> {
        let mut failures = Vec::new();
        let mut listed = BTreeSet::new();
        for map in &step.cells {
            let expected = Expected::with_figure(map, self.asked)?;
            let found = self.held.get(&expected.cell).copied().unwrap_or_default();
            *count += 1;
            if !expected.is_met(found) {
                let cell = self.words(&expected.cell);
                let (wanted, found) = (expected.words(), figure(found, expected.has_denominator));
                failures.push(format!("{cell}: expected {wanted}; found {found}"));
            }
            listed.insert(expected.cell);
        }
        let (names, mut nothing) = (self.names(), None);
        let mut other = |cell: &CellName, what: String| {
            failures.push(format!("{}: {what}", self.words(cell)));
        };
        if step.exact {
            let seen = self.held.iter().filter(|(cell, _)| self.look.includes(cell, &names));
            for (cell, found) in seen {
                *count += 1;
                if !listed.contains(cell) {
                    other(cell, format!("expected no such cell; found {}", figure(*found, true)));
                }
            }
        }
        let seen = rewritten.iter().filter(|(cell, _)| self.look.includes(cell, &names));
        let seen: BTreeMap<_, _> = seen.collect();
        if let Some(changed) = &step.changed {
            let mut wanted = BTreeSet::new();
            for map in changed {
                wanted.insert(Expected::without_figure(map, self.asked)?.cell);
            }
            *count += wanted.len() as u64;
            for cell in wanted.iter().filter(|cell| !seen.contains_key(cell)) {
                other(cell, "expected to be rewritten; it was left alone".to_owned());
            }
            for (cell, (old, new, _)) in seen.iter().filter(|(cell, _)| !wanted.contains(*cell)) {
                let (old, new) = (figure(*old, true), figure(*new, true));
                other(cell, format!("expected to be left alone; it was rewritten, {old} → {new}"));
            }
        }
        if let Some(reason) = &step.reason {
            if seen.is_empty() {
                *count += 1;
                nothing = Some(format!("expected the reason {reason:?}; nothing was rewritten"));
            }
            for (cell, (.., found)) in &seen {
                *count += 1;
                if found.name() != reason {
                    other(
                        cell,
                        format!("expected the reason {reason:?}; found {:?}", found.name()),
                    );
                }
            }
        }
        failures.extend(nothing);
        Ok(failures)
    }

    fn words(&self, cell: &CellName) -> String {
        let start = cell.period_start.map_or(String::new(), |day| format!(" {}", day.date()));
        let mut words = format!("{} {}{start}", cell.indicator, cell.period_type);
        words += &format!(" instance={}", cell.instance);
        for (name, value) in self.names().iter().zip(&cell.dimensions) {
            if value != ALL {
                words += &format!(" {name}={value}");
            }
        }
        words
    }
}
