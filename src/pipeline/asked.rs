//! A cell by the names of its parts, as somebody writes them.

use std::collections::BTreeMap;

use crate::dataflow::oracle::CellName;
use crate::error::{Error, Result};
use crate::indicator::{ALL, Catalog, IndicatorText, Plan, nearest};
use crate::model::{Day, Dictionary, Domain, Period, PeriodType};

/// Turns words into a cell that can exist.
pub(super) struct Asked<'a> {
    /// What is being done, for errors.
    pub(super) doing: &'a str,
    pub(super) plan: &'a Plan,
    pub(super) dictionary: &'a Dictionary,
}

impl Asked<'_> {
    /// The cell, and the indicator that it is of.
    ///
    /// # Errors
    /// A configuration error for a name that is not known, with the nearest, or a cell that no table has.
    pub(super) fn cell(
        &self,
        mut said: BTreeMap<String, String>,
    ) -> Result<(IndicatorText, CellName)> {
        let catalog = self.plan.catalog();
        let code = said
            .remove("indicator")
            .ok_or_else(|| self.wrong("it names no indicator").advise("write indicator=CODE"))?;
        let codes = catalog.indicators.iter().map(|indicator| indicator.code.as_str());
        let found = catalog.indicators.iter().find(|indicator| indicator.code == code);
        let indicator = found.ok_or_else(|| self.unknown("indicator", &code, codes))?.clone();
        let (period_type, period_start) = self.period(&indicator, said.remove("period"))?;
        let instance = said.remove("instance").unwrap_or_else(|| ALL.to_owned());
        self.check_instance(&instance)?;
        let dimensions = self.dimensions(catalog, &indicator, said)?;
        let indicator_code = indicator.code.clone();
        let cell = CellName {
            indicator: indicator_code,
            instance,
            period_type: period_type.name(),
            period_start,
            dimensions,
        };
        Ok((indicator, cell))
    }

    fn check_instance(&self, name: &str) -> Result<()> {
        let own = self.plan.instances().iter().map(|(_, name)| name.as_str());
        // Incidents are published under the name of their cases.
        let own: Vec<_> = own.filter(|name| !name.contains('/')).chain([ALL]).collect();
        match own.contains(&name) {
            true => Ok(()),
            false => Err(self.unknown("instance", name, own.into_iter())),
        }
    }

    fn dimensions(
        &self,
        catalog: &Catalog,
        indicator: &IndicatorText,
        said: BTreeMap<String, String>,
    ) -> Result<Vec<String>> {
        let names: Vec<_> = catalog.dimensions.iter().map(|column| column.name.as_str()).collect();
        let mut values = vec![ALL.to_owned(); names.len()];
        let mut used = Vec::new();
        for (name, value) in said {
            let Some(index) = names.iter().position(|known| *known == name) else {
                let keys = ["indicator", "period", "instance"];
                return Err(self.unknown("dimension", &name, names.iter().copied().chain(keys)));
            };
            if value != ALL {
                self.check_value(catalog, &name, &value)?;
                values[index] = value;
                used.push(name);
            }
        }
        let mut tables = indicator.tables.iter().map(|table| {
            let mut table = table.clone();
            table.sort();
            table
        });
        if tables.clone().all(|table| table != used) {
            let lists: Vec<_> = tables.by_ref().map(|table| words_of(&table)).collect();
            let what = format!("{} is not published by {}", indicator.code, words_of(&used));
            return Err(self
                .wrong(&what)
                .advise(format!("its breakdowns are: {}", lists.join("; "))));
        }
        Ok(values)
    }

    fn check_value(&self, catalog: &Catalog, name: &str, value: &str) -> Result<()> {
        let listed = catalog.options.iter().filter(|option| option.dimension == name);
        let mut known: Vec<&str> = listed.map(|option| option.value.as_str()).collect();
        let is_place = catalog.dimension_texts.iter().any(|d| d.name == name && d.is_place);
        if is_place {
            known.extend(self.dictionary.terms(Domain::Location));
        }
        match known.contains(&value) {
            true => Ok(()),
            false => Err(self.unknown(&format!("value of {name}"), value, known.into_iter())),
        }
    }

    fn period(
        &self,
        indicator: &IndicatorText,
        said: Option<String>,
    ) -> Result<(PeriodType, Option<Day>)> {
        let period = said.filter(|text| text != PeriodType::Now.name());
        let period = period.map(|text| text.parse::<Period>()).transpose()?;
        let period_type = period.map_or(PeriodType::Now, Period::period_type);
        if indicator.periods.iter().any(|known| known == period_type.name()) {
            return Ok((period_type, period.and_then(Period::start)));
        }
        let what = match period {
            Some(_) => format!("{} is not published by {}", indicator.code, period_type.name()),
            None => format!("{} needs a period", indicator.code),
        };
        let known = indicator.periods.join(", ");
        Err(self
            .wrong(&what)
            .advise(format!("it is published by {known}; write period=2026-Q3, 2026-07 or 2026")))
    }

    fn unknown<'k>(&self, what: &str, name: &str, known: impl Iterator<Item = &'k str>) -> Error {
        let error = self.wrong(&format!("there is no {what} {name:?}"));
        match nearest(name, known) {
            Some(near) => error.advise(format!("the nearest is {near:?}")),
            None => error,
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::config(format!("{}: {what}", self.doing))
    }
}

fn words_of(table: &[String]) -> String {
    if table.is_empty() { "the total".to_owned() } else { table.join(" and ") }
}
