//! The part of resolving that concerns how an indicator is published: in which periods and tables.

use toml::Spanned;

use crate::error::Result;
use crate::indicator::definition::*;
use crate::indicator::pack::Place;
use crate::indicator::raw::RawIndicator;
use crate::indicator::resolve::{LIST_MAX, Resolver};
use crate::model::PeriodType;

impl Resolver<'_> {
    pub(super) fn check_periods(
        &self,
        key: &str,
        place: &Place,
        indicator: &IndicatorDefinition,
    ) -> Result<()> {
        let is_now = |part: &Part| part.placed == Placed::Now;
        let now = indicator.parts.iter().filter(|part| is_now(part)).count();
        if now != 0 && now != indicator.parts.len() {
            return Err(self.raw.error(place, key, "\"now\" can not be mixed with periods"));
        }
        let mut seen = Vec::new();
        for period_type in &indicator.periods {
            if *period_type == PeriodType::Now || seen.contains(period_type) {
                let name = period_type.name();
                let wrong = format!("{name:?} is listed twice or is no period that ends");
                return Err(self.raw.error(place, key, wrong));
            }
            seen.push(*period_type);
        }
        if indicator.periods.is_empty() != (now != 0) {
            let wrong = "expected `periods`, except where placed = \"now\"";
            return Err(self.raw.error(place, key, wrong));
        }
        Ok(())
    }

    pub(super) fn check_share(
        &self,
        key: &str,
        place: &Place,
        raw: Option<&Spanned<String>>,
        indicator: &IndicatorDefinition,
    ) -> Result<()> {
        let Some(name) = raw else { return Ok(()) };
        let place = place.part(name);
        let found = self.dimension(&place, key, name.get_ref(), indicator)?;
        let wrong = if self.definition.subform_of(&found.from).is_some() {
            "expected a dimension of the case"
        } else if self.definition.depends_on_event(&found.from) {
            "expected a dimension that does not depend on the event"
        } else if indicator.is_union
            || indicator
                .parts
                .iter()
                .any(|part| part.role != Role::Counted || part.numerator.is_some())
        {
            "`share_over` goes with a plain count"
        } else {
            return Ok(());
        };
        Err(self.raw.error(&place, key, wrong))
    }

    /// A dimension that what is counted can be broken down by.
    fn dimension(
        &self,
        place: &Place,
        key: &str,
        name: &str,
        indicator: &IndicatorDefinition,
    ) -> Result<&DimensionDefinition> {
        let known = self.definition.dimensions.keys().map(String::as_str);
        let found = self.definition.dimensions.get(name);
        let found = found.ok_or_else(|| self.raw.unknown(place, key, "dimension", name, known))?;
        let by_worker = matches!(indicator.summary, Some(Summary::Workers(_)));
        if found.from == Origin::Caseload && !by_worker {
            let wrong = format!("dimension {name:?} goes with per = {{ …, show = \"workers\" }}");
            return Err(self.raw.error(place, key, wrong));
        }
        let subform = self.definition.subform_of(&found.from);
        let fits = |part: &Part| {
            subform.is_none() || part.subform() == subform || part.set.contains_key(name)
        };
        if !indicator.parts.iter().all(fits) {
            let wrong = format!("dimension {name:?} is of rows that are not counted here");
            return Err(self.raw.error(place, key, wrong));
        }
        Ok(found)
    }

    pub(super) fn tables(
        &self,
        key: &str,
        place: &Place,
        raw: &RawIndicator,
        indicator: &IndicatorDefinition,
    ) -> Result<Vec<Vec<String>>> {
        if raw.tables.is_empty() || raw.tables.len() > LIST_MAX {
            let wrong = "expected `tables`, at least [[]] for the total";
            return Err(self.raw.error(place, key, wrong));
        }
        let mut tables = Vec::new();
        for table in &raw.tables {
            let mut names = Vec::new();
            for name in table {
                self.dimension(&place.part(name), key, name.get_ref(), indicator)?;
                names.push(name.get_ref().clone());
            }
            names.sort();
            let wrong =
                if names.windows(2).any(|pair| pair[0] == pair[1]) || tables.contains(&names) {
                    format!("the table {names:?} repeats something")
                } else if indicator.share_over.as_ref().is_some_and(|over| !names.contains(over)) {
                    format!("the table {names:?} lacks the dimension of share_over")
                } else {
                    tables.push(names);
                    continue;
                };
            return Err(self.raw.error(place, key, wrong));
        }
        Ok(tables)
    }
}
