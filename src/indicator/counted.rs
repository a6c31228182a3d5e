//! The part of resolving that concerns indicators: what is counted, and when.

use std::collections::BTreeMap;

use toml::Spanned;

use crate::error::Result;
use crate::indicator::definition::*;
use crate::indicator::filter::Scope;
use crate::indicator::pack::{At, Place};
use crate::indicator::raw::{
    RawIndicator, RawPart, RawPer, RawPlaced, RawRatio, RawShow, RawTests,
};
use crate::indicator::resolve::{DATES, Resolver};
use crate::indicator::terms::*;
use crate::model::{FieldType, TABLES_MAX};

/// Most parts of one indicator.
const PARTS_MAX: usize = 16;

/// Longest wait until a cohort is mature, in days: ten years.
const MATURE_DAYS_MAX: u32 = 3_653;

impl Resolver<'_> {
    /// All indicators; ratios last, because they are made of others.
    pub(super) fn indicators(&mut self) -> Result<()> {
        if let Some((code, At { place, .. })) = self.raw.indicators.iter().nth(TABLES_MAX) {
            let wrong = format!("more than {TABLES_MAX} indicators");
            return Err(self.raw.error(place, &format!("indicators.{code}"), wrong));
        }
        for is_ratio in [false, true] {
            for (code, At { value, place }) in &self.raw.indicators {
                if value.ratio.is_some() == is_ratio {
                    let indicator = self.indicator(code, place, value)?;
                    self.definition.indicators.insert(code.clone(), indicator);
                }
            }
        }
        Ok(())
    }

    fn indicator(
        &self,
        code: &str,
        place: &Place,
        raw: &RawIndicator,
    ) -> Result<IndicatorDefinition> {
        let key = format!("indicators.{code}");
        let printable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if code.is_empty() || code.len() > 40 || !code.chars().all(printable) {
            return Err(self.raw.error(place, &key, "expected a code of letters, digits, - _ ."));
        }
        let is_union = raw.any_of.is_some();
        let mut indicator = IndicatorDefinition {
            title: raw.title.clone(),
            definition: raw.definition.clone(),
            framework: raw.framework.clone(),
            direction: self.direction(&key, place, raw.direction.as_ref())?,
            written: Written(self.raw.place(place)),
            parts: self.parts(&key, place, raw)?,
            is_union,
            summary: None,
            periods: raw.periods.clone(),
            tables: Vec::new(),
            share_over: raw.share_over.as_ref().map(|name| name.get_ref().clone()),
        };
        indicator.summary = self.summary(&key, place, raw, &indicator)?;
        self.check_periods(&key, place, &indicator)?;
        self.check_share(&key, place, raw.share_over.as_ref(), &indicator)?;
        indicator.tables = self.tables(&key, place, raw, &indicator)?;
        Ok(indicator)
    }

    fn direction(
        &self,
        key: &str,
        place: &Place,
        raw: Option<&Spanned<String>>,
    ) -> Result<Option<String>> {
        match raw {
            Some(raw) if !["up", "down"].contains(&raw.get_ref().as_str()) => {
                let wrong = "expected direction = \"up\" or \"down\": which way is better";
                Err(self.raw.error(&place.part(raw), key, wrong))
            }
            raw => Ok(raw.map(|raw| raw.get_ref().clone())),
        }
    }

    fn parts(&self, key: &str, place: &Place, raw: &RawIndicator) -> Result<Vec<Part>> {
        let own = raw.part();
        match (&raw.ratio, &raw.any_of) {
            (None, None) => Ok(vec![self.part(key, place, &own)?]),
            _ if !is_blank(&own) => {
                let wrong = "`ratio` and `any_of` stand instead of count, population, where, rows and placed";
                Err(self.raw.error(place, key, wrong))
            }
            (Some(ratio), None) => self.ratio(key, &place.part(ratio), ratio.get_ref()),
            (None, Some(parts)) => {
                let place = place.part(parts);
                if parts.get_ref().is_empty() || parts.get_ref().len() > PARTS_MAX {
                    let wrong = format!("expected 1 to {PARTS_MAX} alternatives");
                    return Err(self.raw.error(&place, key, wrong));
                }
                parts.get_ref().iter().map(|part| self.alternative(key, &place, part)).collect()
            }
            (Some(_), Some(_)) => {
                Err(self.raw.error(place, key, "expected `ratio` or `any_of`, not both"))
            }
        }
    }

    fn alternative(&self, key: &str, place: &Place, raw: &RawPart) -> Result<Part> {
        let mut part = self.part(key, place, raw)?;
        if matches!(part.count, Count::Rows(_)) {
            let wrong = "an alternative counts cases: \"cases\" or \"cases with SUBFORM\"";
            return Err(self.raw.error(place, key, wrong));
        }
        for (name, value) in &raw.set {
            let place = place.part(value);
            let known = self.definition.dimensions.keys().map(String::as_str);
            let Some(dimension) = self.definition.dimensions.get(name) else {
                return Err(self.raw.unknown(&place, key, "dimension", name, known));
            };
            if self.definition.subform_of(&dimension.from).is_none() {
                let wrong = "only a dimension of rows can be set; a case has its own value";
                return Err(self.raw.error(&place, key, wrong));
            }
            let (DimensionKind::Option(values) | DimensionKind::Concepts(values)) = &dimension.kind
            else {
                let wrong = "only a dimension with listed values or concepts can be set";
                return Err(self.raw.error(&place, key, wrong));
            };
            self.all_known(&place, key, "value", std::slice::from_ref(value.get_ref()), values)?;
            part.set.insert(name.clone(), value.get_ref().clone());
        }
        Ok(part)
    }

    /// The parts of other indicators, as the two sides of a figure.
    fn ratio(&self, key: &str, place: &Place, raw: &RawRatio) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        let sides = [(Role::Numerator, &raw.numerator), (Role::Denominator, &raw.denominator)];
        for (role, codes) in sides {
            if codes.is_empty() || codes.len() > PARTS_MAX {
                let wrong = "expected indicators on both sides of the ratio";
                return Err(self.raw.error(place, key, wrong));
            }
            for code in codes {
                let place = place.part(code);
                let known = self.definition.indicators.keys().map(String::as_str);
                let Some(of) = self.definition.indicators.get(code.get_ref()) else {
                    return Err(self.raw.unknown(&place, key, "indicator", code.get_ref(), known));
                };
                let is_plain = !of.has_denominator() && of.summary.is_none() && !of.is_union;
                let [part] = of.parts.as_slice() else { continue };
                if !is_plain {
                    let wrong = format!("{:?} is no plain count", code.get_ref());
                    return Err(self.raw.error(&place, key, wrong));
                }
                parts.push(Part { role, ..part.clone() });
            }
        }
        match parts.len() == raw.numerator.len() + raw.denominator.len() {
            true => Ok(parts),
            false => Err(self.raw.error(place, key, "a ratio is made of plain counts")),
        }
    }

    fn part(&self, key: &str, place: &Place, raw: &RawPart) -> Result<Part> {
        let count = match &raw.count {
            Some(count) => self.count(key, &place.part(count), count.get_ref())?,
            None => return Err(self.raw.error(place, key, COUNT_EXPECTED)),
        };
        let latest = self.latest(key, place, raw, &count)?;
        let Some(placed) = &raw.placed else {
            let wrong = "expected `placed`: { flow = DATE }, \"presence\", \"stock\", \"now\" or { cohort = … }";
            return Err(self.raw.error(place, key, wrong));
        };
        let placed = self.placed(key, &place.part(placed), placed.get_ref(), &count)?;
        let mut part = Part {
            role: Role::Counted,
            filter: self.filter(
                key,
                place,
                raw.population.as_ref(),
                &raw.filter,
                Scope::of(None),
            )?,
            rows: Vec::new(),
            follows: None,
            numerator: None,
            set: BTreeMap::new(),
            count,
            latest,
            placed,
        };
        part.rows = self.rows(&format!("{key}.rows"), place, &raw.rows, &part)?;
        part.follows = self.follows(key, place, raw.follows.as_ref(), &part)?;
        if raw.numerator.is_some() || raw.numerator_rows.is_some() {
            let none = RawTests::new();
            let case = raw.numerator.as_ref().unwrap_or(&none);
            let rows = raw.numerator_rows.as_ref().unwrap_or(&none);
            part.numerator = Some(Numerator {
                filter: self.conditions(
                    &format!("{key}.numerator"),
                    place,
                    case,
                    Scope::of(None),
                )?,
                rows: self.rows(&format!("{key}.numerator_rows"), place, rows, &part)?,
            });
        }
        Ok(part)
    }

    fn rows(
        &self,
        key: &str,
        place: &Place,
        raw: &RawTests,
        part: &Part,
    ) -> Result<Vec<Condition>> {
        match part.subform() {
            None if !raw.is_empty() => Err(self.raw.error(place, key, "no rows are counted here")),
            subform => self.conditions(key, place, raw, Scope::of(subform)),
        }
    }

    fn follows(
        &self,
        key: &str,
        place: &Place,
        raw: Option<&RawTests>,
        part: &Part,
    ) -> Result<Option<Vec<Condition>>> {
        let Some(raw) = raw else { return Ok(None) };
        let key = format!("{key}.follows");
        let by_row = match &part.placed {
            Placed::Flow(path) | Placed::Cohort { date: path, .. } => path.subform.is_some(),
            Placed::Presence | Placed::Stock | Placed::Now => false,
        };
        if !by_row {
            let wrong = "only rows that are placed by a date of theirs have one before them";
            return Err(self.raw.error(place, &key, wrong));
        }
        self.rows(&key, place, raw, part).map(Some)
    }

    fn count(&self, key: &str, place: &Place, text: &str) -> Result<Count> {
        if text == "cases" {
            return Ok(Count::Cases);
        }
        if let Some(name) = text.strip_prefix("rows of ") {
            return self.subform(place, key, name).map(Count::Rows);
        }
        if let Some(name) = text.strip_prefix("cases with ") {
            return self.subform(place, key, name).map(Count::CasesWith);
        }
        Err(self.raw.error(place, key, COUNT_EXPECTED))
    }

    fn latest(
        &self,
        key: &str,
        place: &Place,
        raw: &RawPart,
        count: &Count,
    ) -> Result<Option<Latest>> {
        let Some(latest) = &raw.latest else { return Ok(None) };
        let place = place.part(latest);
        if *count != Count::Cases {
            return Err(self.raw.error(&place, key, "`latest` goes with count = \"cases\""));
        }
        let latest = latest.get_ref();
        let subform = self.subform(&place, key, &latest.row_of)?;
        let path = self.path(&place, key, &format!("{subform}.{}", latest.by), DATES)?;
        Ok(Some(Latest { subform, by: path.field }))
    }

    fn placed(&self, key: &str, place: &Place, raw: &RawPlaced, count: &Count) -> Result<Placed> {
        let by_life = |placed: Placed| match &self.definition.lifecycle {
            Some(_) => Ok(placed),
            None => Err(self.raw.error(place, key, "expected a [lifecycle]")),
        };
        let date = |name: &str| -> Result<Path> {
            let path = self.path(place, key, name, DATES)?;
            let fits = match (count, &path.subform) {
                (_, None) => true,
                (Count::Rows(counted) | Count::CasesWith(counted), Some(of)) => counted == of,
                (Count::Cases, Some(_)) => false,
            };
            match fits {
                true => Ok(path),
                false => Err(self.raw.error(place, key, "the date is not of what is counted")),
            }
        };
        match raw {
            RawPlaced::Flow(name) => date(name).map(Placed::Flow),
            RawPlaced::Cohort { mature_after, .. } if *mature_after > MATURE_DAYS_MAX => {
                let wrong = format!("expected mature_after of at most {MATURE_DAYS_MAX} days");
                Err(self.raw.error(place, key, wrong))
            }
            RawPlaced::Cohort { date: name, mature_after } => {
                Ok(Placed::Cohort { date: date(name)?, mature_after: *mature_after })
            }
            RawPlaced::Presence => by_life(Placed::Presence),
            RawPlaced::Stock => by_life(Placed::Stock),
            RawPlaced::Now => Ok(Placed::Now),
        }
    }

    fn summary(
        &self,
        key: &str,
        place: &Place,
        raw: &RawIndicator,
        indicator: &IndicatorDefinition,
    ) -> Result<Option<Summary>> {
        let days = |name: &Spanned<String>| -> Result<String> {
            let place = place.part(name);
            let known = self.definition.values.keys().map(String::as_str);
            let Some(value) = self.definition.values.get(name.get_ref()) else {
                return Err(self.raw.unknown(&place, key, "value", name.get_ref(), known));
            };
            let fits = |part: &Part| value.subform().is_none() || value.subform() == part.subform();
            match indicator.parts.iter().all(fits) {
                true => Ok(name.get_ref().clone()),
                false => {
                    Err(self.raw.error(&place, key, "the value is of rows that are not counted"))
                }
            }
        };
        let summary = match (&raw.mean, &raw.median, &raw.per) {
            (None, None, None) => return Ok(None),
            (Some(name), None, None) => Summary::Mean(days(name)?),
            (None, Some(name), None) => Summary::Median(days(name)?),
            (None, None, Some(per)) => self.per(key, &place.part(per), per.get_ref())?,
            _ => {
                return Err(self.raw.error(
                    place,
                    key,
                    "expected one of `mean`, `median` and `per`",
                ));
            }
        };
        let by_worker = matches!(summary, Summary::Workers(_) | Summary::CasesPerWorker(_));
        if indicator.parts.iter().any(|part| part.role != Role::Counted || part.numerator.is_some())
        {
            let wrong = "`mean`, `median` and `per` go with a plain count";
            return Err(self.raw.error(place, key, wrong));
        }
        let over =
            indicator.share_over.as_ref().and_then(|name| self.definition.dimensions.get(name));
        if by_worker && over.is_some_and(|over| over.from != Origin::Caseload) {
            let wrong = "with `per`, `share_over` can only be a dimension from caseload";
            return Err(self.raw.error(place, key, wrong));
        }
        if indicator.is_distinct() || (!by_worker && indicator.share_over.is_some()) {
            let wrong =
                "`mean`, `median` and `per` are taken over cases or rows, not over \"cases with\"";
            return Err(self.raw.error(place, key, wrong));
        }
        Ok(Some(summary))
    }

    fn per(&self, key: &str, place: &Place, raw: &RawPer) -> Result<Summary> {
        let path =
            self.path(&place.part(&raw.field), key, raw.field.get_ref(), &[FieldType::Worker])?;
        if path.subform.is_some() {
            return Err(self.raw.error(place, key, "expected a field of the case"));
        }
        Ok(match raw.show {
            RawShow::Workers => Summary::Workers(path.field),
            RawShow::CasesPerWorker => Summary::CasesPerWorker(path.field),
        })
    }
}

const COUNT_EXPECTED: &str =
    "expected count = \"cases\", \"rows of SUBFORM\" or \"cases with SUBFORM\"";

/// Whether nothing is said of what is counted.
fn is_blank(part: &RawPart) -> bool {
    let RawPart { count, population, filter, rows, follows, latest, placed, .. } = part;
    let named = count.is_none() && population.is_none() && placed.is_none() && latest.is_none();
    let tested = filter.is_empty() && rows.is_empty() && follows.is_none();
    named && tested && part.numerator.is_none() && part.numerator_rows.is_none()
}
