//! What a file of examples expects of a cell, and figures as its failures tell them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::asked::Asked;
use crate::dataflow::oracle::CellName;
use crate::error::{Error, Result};
use crate::model::Figure;

/// Two values that are this near are equal.
const NEAR: f64 = 1e-9;

/// A cell that a step names, and what it should hold.
pub(super) struct Expected {
    pub(super) cell: CellName,
    pub(super) has_denominator: bool,
    numerator: Option<i64>,
    denominator: Option<i64>,
    value: Option<f64>,
}

impl Expected {
    /// A cell that is to hold something.
    pub(super) fn with_figure(map: &Map<String, Value>, asked: &Asked<'_>) -> Result<Self> {
        let expected = Self::read(map, asked)?;
        match expected.has_figure() {
            true => Ok(expected),
            false => Err(Error::config(format!(
                "{}: cells: {} has no numerator, denominator or value to compare with",
                asked.doing, expected.cell.indicator
            ))),
        }
    }

    /// A cell that is only named.
    pub(super) fn without_figure(map: &Map<String, Value>, asked: &Asked<'_>) -> Result<Self> {
        let expected = Self::read(map, asked)?;
        match expected.has_figure() {
            false => Ok(expected),
            true => Err(Error::config(format!(
                "{}: changed: {} has a figure, which `cells` would compare",
                asked.doing, expected.cell.indicator
            ))),
        }
    }

    fn has_figure(&self) -> bool {
        self.numerator.is_some() || self.denominator.is_some() || self.value.is_some()
    }

    pub(super) fn read(map: &Map<String, Value>, asked: &Asked<'_>) -> Result<Self> {
        let mut said = BTreeMap::new();
        let (mut numerator, mut denominator, mut value) = (None, None, None);
        let wrong = |key: &str, what: &str| {
            Error::config(format!("{}: cells: {key}: expected {what}", asked.doing))
        };
        for (key, given) in map {
            let whole = || given.as_i64().ok_or_else(|| wrong(key, "a whole number"));
            match key.as_str() {
                "numerator" => numerator = Some(whole()?),
                "denominator" => denominator = Some(whole()?),
                "value" => value = Some(given.as_f64().ok_or_else(|| wrong(key, "a number"))?),
                _ => {
                    let text = given.as_str().ok_or_else(|| wrong(key, "a text"))?;
                    said.insert(key.clone(), text.to_owned());
                }
            }
        }
        let (indicator, cell) = asked.cell(said)?;
        let has_denominator = indicator.has_denominator;
        Ok(Self { cell, has_denominator, numerator, denominator, value })
    }

    /// Whether a figure is as expected; what is not said may be anything.
    pub(super) fn is_met(&self, figure: Figure) -> bool {
        let near = |value: f64| {
            value_of(figure, self.has_denominator).is_some_and(|found| (found - value).abs() < NEAR)
        };
        self.numerator.is_none_or(|numerator| numerator == figure.numerator)
            && self.denominator.is_none_or(|denominator| denominator == figure.denominator)
            && self.value.is_none_or(near)
    }

    pub(super) fn words(&self) -> String {
        let part = |name: &str, value: Option<String>| value.map(|v| format!("{name} {v}"));
        let parts = [
            part("numerator", self.numerator.map(|n| n.to_string())),
            part("denominator", self.denominator.map(|n| n.to_string())),
            part("value", self.value.map(|n| n.to_string())),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// The published value; none where nothing is counted.
fn value_of(figure: Figure, has_denominator: bool) -> Option<f64> {
    if figure.is_empty() {
        return None;
    }
    match (figure.median_doubled, has_denominator) {
        (Some(doubled), _) => Some(doubled as f64 / 2.0),
        (None, true) => {
            (figure.denominator != 0).then(|| figure.numerator as f64 / figure.denominator as f64)
        }
        (None, false) => Some(figure.numerator as f64),
    }
}

/// A figure for people.
pub(super) fn figure(figure: Figure, has_denominator: bool) -> String {
    if figure.is_empty() {
        return "no such cell".to_owned();
    }
    let denominator = has_denominator && figure.denominator != 0;
    let median = figure.median_doubled.map(|doubled| doubled as f64 / 2.0);
    let denominator = denominator.then_some(figure.denominator);
    crate::sink::look::figure_text(figure.numerator, denominator, median)
}
