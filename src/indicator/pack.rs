//! A pack as it is written: TOML read into typed declarations, each error with its file, line and key.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use crate::error::{Error, Result};
use crate::indicator::Labels;
use crate::indicator::spelling::{line_of, misread, nearest};
use crate::model::{FieldType, PeriodType};

/// Longest pack file that is read, in bytes.
pub const PACK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The text of a pack and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackText {
    /// Its file name, or the name of a pack inside the binary.
    pub name: String,
    /// Its TOML.
    pub text: String,
}

/// The packs inside the binary, by id.
pub const SHIPPED: [(&str, &str); 2] = [
    ("cp-core", include_str!("../../packs/cp-core.toml")),
    ("cambodia", include_str!("../../packs/cambodia.toml")),
];

impl PackText {
    /// A pack inside the binary.
    pub fn shipped(id: &str) -> Option<Self> {
        let (_, text) = SHIPPED.iter().find(|(known, _)| *known == id)?;
        Some(Self { name: format!("packs/{id}.toml"), text: (*text).to_owned() })
    }
}

/// A value with the place it was written at.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A place in one of several pack files.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    file: usize,
    span: Range<usize>,
}

/// Several packs read one over the other: what a later one declares replaces the same name of an earlier one.
#[derive(Clone, Debug, Default)]
pub(super) struct RawPacks {
    pub(super) texts: Vec<PackText>,
    pub(super) heads: Vec<RawHead>,
    pub(super) history_start: Option<At<String>>,
    pub(super) levels: Vec<String>,
    pub(super) lifecycle: Option<At<RawLifecycle>>,
    pub(super) fields: BTreeMap<String, At<RawField>>,
    pub(super) subforms: BTreeMap<String, BTreeMap<String, At<RawField>>>,
    pub(super) populations: BTreeMap<String, At<RawTests>>,
    pub(super) dimensions: BTreeMap<String, At<RawDimension>>,
    pub(super) indicators: BTreeMap<String, At<RawIndicator>>,
    pub(super) extracts: BTreeMap<String, At<RawExtract>>,
}

impl RawPacks {
    /// Reads packs in order.
    pub(super) fn read(texts: Vec<PackText>) -> Result<Self> {
        let mut packs = Self::default();
        for text in texts {
            packs.add(text)?;
        }
        Ok(packs)
    }

    fn add(&mut self, text: PackText) -> Result<()> {
        if text.text.len() > PACK_BYTES_MAX {
            return Err(Error::config(format!("reading {}: longer than 4 MiB", text.name)));
        }
        let doing = || format!("reading {}", text.name);
        let raw: RawPack =
            toml::from_str(&text.text).map_err(|error| misread(&doing(), &text.text, &error))?;
        let file = self.texts.len();
        self.texts.push(text);
        self.history_start = at(raw.pack.history_start.clone(), file).or(self.history_start.take());
        self.heads.push(raw.pack);
        if let Some(locations) = raw.locations {
            self.levels = locations.levels;
        }
        self.lifecycle = at(raw.lifecycle, file).or(self.lifecycle.take());
        extend(&mut self.fields, raw.fields, file);
        for (name, fields) in raw.subforms {
            extend(self.subforms.entry(name).or_default(), fields, file);
        }
        extend(&mut self.populations, raw.populations, file);
        extend(&mut self.dimensions, raw.dimensions, file);
        extend(&mut self.indicators, raw.indicators, file);
        extend(&mut self.extracts, raw.extracts, file);
        Ok(())
    }

    /// An error at a place: which file, line and key, and what is wrong there.
    pub(super) fn error(&self, place: &Place, key: &str, wrong: impl fmt::Display) -> Error {
        let Some(text) = self.texts.get(place.file) else {
            return Error::config(format!("reading packs: {key}: {wrong}"));
        };
        let line = line_of(&text.text, place.span.start);
        Error::config(format!("reading {} line {line}: {key}: {wrong}", text.name))
    }

    /// An error for a name that is not among those that exist, with the nearest of them.
    pub(super) fn unknown<'a>(
        &self,
        place: &Place,
        key: &str,
        what: &str,
        name: &str,
        valid: impl Iterator<Item = &'a str>,
    ) -> Error {
        let near = nearest(name, valid);
        let hint = near.map_or(String::new(), |known| format!("; the nearest is {known:?}"));
        self.error(place, key, format!("there is no {what} {name:?}{hint}"))
    }
}

fn at<T>(value: Option<Spanned<T>>, file: usize) -> Option<At<T>> {
    value.map(|spanned| located(spanned, file))
}

/// Attaches the file to a spanned value.
fn located<T>(spanned: Spanned<T>, file: usize) -> At<T> {
    let place = Place { file, span: spanned.span() };
    At { value: spanned.into_inner(), place }
}

fn extend<T>(to: &mut BTreeMap<String, At<T>>, from: BTreeMap<String, Spanned<T>>, file: usize) {
    to.extend(from.into_iter().map(|(name, value)| (name, located(value, file))));
}

impl Place {
    /// The place of a part that was read with its own span.
    pub(super) fn part<T>(&self, spanned: &Spanned<T>) -> Self {
        Self { file: self.file, span: spanned.span() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPack {
    pack: RawHead,
    locations: Option<RawLocations>,
    lifecycle: Option<Spanned<RawLifecycle>>,
    #[serde(default)]
    fields: BTreeMap<String, Spanned<RawField>>,
    #[serde(default)]
    subforms: BTreeMap<String, BTreeMap<String, Spanned<RawField>>>,
    #[serde(default)]
    populations: BTreeMap<String, Spanned<RawTests>>,
    #[serde(default)]
    dimensions: BTreeMap<String, Spanned<RawDimension>>,
    #[serde(default)]
    indicators: BTreeMap<String, Spanned<RawIndicator>>,
    #[serde(default)]
    extracts: BTreeMap<String, Spanned<RawExtract>>,
}

/// Conditions by field: `[populations.NAME]`, `where`, `rows`.
pub(super) type RawTests = BTreeMap<String, Spanned<toml::Value>>;

/// `[pack]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHead {
    pub(super) id: String,
    pub(super) version: String,
    #[serde(default)]
    #[allow(dead_code, reason = "read by people; kept so that it is not refused")]
    title: Labels,
    history_start: Option<Spanned<String>>,
}

/// `[locations]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLocations {
    levels: Vec<String>,
}

/// `[lifecycle]`: how a case opens, closes and opens again.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLifecycle {
    pub(super) opened: Spanned<String>,
    pub(super) closed: Spanned<String>,
    pub(super) reopened: Option<Spanned<String>>,
    pub(super) status: Spanned<String>,
    pub(super) closed_when: Vec<String>,
}

/// A field: its type alone, or a table with its values.
#[derive(Clone, Debug)]
pub(super) struct RawField {
    pub(super) field_type: FieldType,
    pub(super) values: Vec<String>,
}

impl<'de> Deserialize<'de> for RawField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = RawField;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a field type such as \"option\", or a table { type = …, values = […] }",
                )
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<RawField, E> {
                let field_type = FieldType::deserialize(de::value::StrDeserializer::new(name))?;
                Ok(RawField { field_type, values: Vec::new() })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<RawField, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Full {
                    #[serde(rename = "type")]
                    field_type: FieldType,
                    #[serde(default)]
                    values: Vec<String>,
                }
                let full = Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawField { field_type: full.field_type, values: full.values })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `[dimensions.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDimension {
    #[serde(default)]
    pub(super) title: Labels,
    pub(super) from: Spanned<String>,
    pub(super) values: Option<Vec<String>>,
    pub(super) bands: Option<Spanned<Vec<String>>>,
    pub(super) level: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, Labels>,
}

/// `[indicators.CODE]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIndicator {
    pub(super) title: Labels,
    #[serde(default)]
    pub(super) definition: Labels,
    pub(super) count: Spanned<String>,
    pub(super) population: Option<Spanned<String>>,
    #[serde(default, rename = "where")]
    pub(super) filter: RawTests,
    #[serde(default)]
    pub(super) rows: RawTests,
    pub(super) placed: Spanned<RawPlaced>,
    #[serde(default)]
    pub(super) periods: Vec<PeriodType>,
    pub(super) tables: Vec<Vec<Spanned<String>>>,
    pub(super) share_over: Option<Spanned<String>>,
}

/// `placed = "stock"` or `placed = { flow = "registration_date" }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum RawPlaced {
    Flow(String),
    Presence,
    Stock,
    Now,
}

/// `[extracts.TABLE]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExtract {
    #[serde(default)]
    pub(super) comment: String,
    pub(super) key: Spanned<String>,
    pub(super) rows_of: Option<Spanned<String>>,
    pub(super) population: Option<Spanned<String>>,
    #[serde(default, rename = "where")]
    pub(super) filter: RawTests,
    #[serde(default)]
    pub(super) rows: RawTests,
    pub(super) columns: Vec<Spanned<RawColumn>>,
}

/// A column of an extract: a dimension, or the month of a date.
#[derive(Clone, Debug)]
pub(super) enum RawColumn {
    Dimension(String),
    Month { name: String, month_of: String },
}

impl<'de> Deserialize<'de> for RawColumn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = RawColumn;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a dimension, or a table { name = …, month_of = … }")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<RawColumn, E> {
                Ok(RawColumn::Dimension(name.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<RawColumn, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Month {
                    name: String,
                    month_of: String,
                }
                let Month { name, month_of } = Month::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawColumn::Month { name, month_of })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
