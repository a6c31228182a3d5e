//! What a pack may say, declaration by declaration, before anything of it is checked.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use crate::indicator::{Framework, Labels};
use crate::model::{FieldType, PeriodType};

/// A pack file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPack {
    pub(super) pack: RawHead,
    pub(super) locations: Option<RawLocations>,
    pub(super) lifecycle: Option<Spanned<RawLifecycle>>,
    #[serde(default)]
    pub(super) fields: BTreeMap<String, Spanned<RawField>>,
    #[serde(default)]
    pub(super) subforms: BTreeMap<String, BTreeMap<String, Spanned<RawField>>>,
    #[serde(default)]
    pub(super) populations: BTreeMap<String, Spanned<RawTests>>,
    #[serde(default)]
    pub(super) concepts: BTreeMap<String, Spanned<RawConcept>>,
    #[serde(default)]
    pub(super) values: BTreeMap<String, Spanned<RawValue>>,
    #[serde(default)]
    pub(super) dimensions: BTreeMap<String, Spanned<RawDimension>>,
    #[serde(default)]
    pub(super) indicators: BTreeMap<String, Spanned<RawIndicator>>,
    #[serde(default)]
    pub(super) extracts: BTreeMap<String, Spanned<RawExtract>>,
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
    pub(super) history_start: Option<Spanned<String>>,
}

/// `[locations]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLocations {
    pub(super) levels: Vec<String>,
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
    pub(super) concepts: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, Labels>,
}

/// `[concepts.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConcept {
    pub(super) field: Spanned<String>,
    pub(super) ids: Vec<String>,
    #[serde(default)]
    pub(super) assert_labels: BTreeMap<String, Labels>,
    #[serde(default)]
    pub(super) instances: BTreeMap<String, Vec<String>>,
}

/// `[values.NAME]`: exactly one of its kinds.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum RawValue {
    Age(RawAge),
    Days(RawDays),
    Lifecycle(RawLifecycleValue),
}

/// `age = { … }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAge {
    pub(super) born: Option<Spanned<String>>,
    pub(super) on: Spanned<String>,
    pub(super) otherwise: Option<Spanned<String>>,
    pub(super) recorded_on: Option<Spanned<String>>,
}

/// `days = { … }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDays {
    pub(super) from: Spanned<String>,
    pub(super) to: Spanned<String>,
}

/// `lifecycle = "conflict"`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawLifecycleValue {
    Conflict,
}

/// `[indicators.CODE]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIndicator {
    pub(super) title: Labels,
    #[serde(default)]
    pub(super) definition: Labels,
    #[serde(default)]
    pub(super) framework: Vec<Framework>,
    pub(super) direction: Option<Spanned<String>>,
    pub(super) count: Option<Spanned<String>>,
    pub(super) population: Option<Spanned<String>>,
    #[serde(default, rename = "where")]
    pub(super) filter: RawTests,
    #[serde(default)]
    pub(super) rows: RawTests,
    pub(super) follows: Option<RawTests>,
    pub(super) latest: Option<Spanned<RawLatest>>,
    pub(super) placed: Option<Spanned<RawPlaced>>,
    pub(super) numerator: Option<RawTests>,
    pub(super) numerator_rows: Option<RawTests>,
    pub(super) ratio: Option<Spanned<RawRatio>>,
    pub(super) any_of: Option<Spanned<Vec<RawPart>>>,
    pub(super) mean: Option<Spanned<String>>,
    pub(super) median: Option<Spanned<String>>,
    pub(super) per: Option<Spanned<RawPer>>,
    #[serde(default)]
    pub(super) periods: Vec<PeriodType>,
    pub(super) tables: Vec<Vec<Spanned<String>>>,
    pub(super) share_over: Option<Spanned<String>>,
}

impl RawIndicator {
    /// What it counts by itself.
    pub(super) fn part(&self) -> RawPart {
        RawPart {
            count: self.count.clone(),
            population: self.population.clone(),
            filter: self.filter.clone(),
            rows: self.rows.clone(),
            follows: self.follows.clone(),
            latest: self.latest.clone(),
            placed: self.placed.clone(),
            numerator: self.numerator.clone(),
            numerator_rows: self.numerator_rows.clone(),
            set: BTreeMap::new(),
        }
    }
}

/// What is counted: an indicator by itself, or an alternative of `any_of`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPart {
    pub(super) count: Option<Spanned<String>>,
    pub(super) population: Option<Spanned<String>>,
    #[serde(default, rename = "where")]
    pub(super) filter: RawTests,
    #[serde(default)]
    pub(super) rows: RawTests,
    pub(super) follows: Option<RawTests>,
    pub(super) latest: Option<Spanned<RawLatest>>,
    pub(super) placed: Option<Spanned<RawPlaced>>,
    #[serde(skip)]
    pub(super) numerator: Option<RawTests>,
    #[serde(skip)]
    pub(super) numerator_rows: Option<RawTests>,
    #[serde(default)]
    pub(super) set: BTreeMap<String, Spanned<String>>,
}

/// `latest = { row_of = …, by = … }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLatest {
    pub(super) row_of: String,
    pub(super) by: String,
}

/// `ratio = { numerator = […], denominator = […] }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRatio {
    pub(super) numerator: Vec<Spanned<String>>,
    pub(super) denominator: Vec<Spanned<String>>,
}

/// `per = { field = …, show = … }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPer {
    pub(super) field: Spanned<String>,
    pub(super) show: RawShow,
}

/// What is shown of case workers.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum RawShow {
    #[serde(rename = "workers")]
    Workers,
    #[serde(rename = "cases per worker")]
    CasesPerWorker,
}

/// `placed = "stock"`, `{ flow = "registration_date" }` or `{ cohort = "registration_date", mature_after = 14 }`.
#[derive(Clone, Debug)]
pub(super) enum RawPlaced {
    Flow(String),
    Cohort { date: String, mature_after: u32 },
    Presence,
    Stock,
    Now,
}

impl<'de> Deserialize<'de> for RawPlaced {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = RawPlaced;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "\"presence\", \"stock\", \"now\", { flow = DATE } or { cohort = DATE, mature_after = DAYS }",
                )
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<RawPlaced, E> {
                match name {
                    "presence" => Ok(RawPlaced::Presence),
                    "stock" => Ok(RawPlaced::Stock),
                    "now" => Ok(RawPlaced::Now),
                    _ => Err(E::unknown_variant(name, &["presence", "stock", "now"])),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<RawPlaced, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Dated {
                    flow: Option<String>,
                    cohort: Option<String>,
                    mature_after: Option<u32>,
                }
                match Dated::deserialize(MapAccessDeserializer::new(map))? {
                    Dated { flow: Some(date), cohort: None, mature_after: None } => {
                        Ok(RawPlaced::Flow(date))
                    }
                    Dated { flow: None, cohort: Some(date), mature_after: Some(days) } => {
                        Ok(RawPlaced::Cohort { date, mature_after: days })
                    }
                    _ => Err(de::Error::custom(
                        "expected { flow = DATE } or { cohort = DATE, mature_after = DAYS }",
                    )),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
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
