//! The part of resolving that concerns what is published: indicators, their tables, and extracts.

use toml::Spanned;

use crate::error::Result;
use crate::indicator::condition::{expected, test_of};
use crate::indicator::definition::*;
use crate::indicator::pack::{At, Place, RawColumn, RawExtract, RawIndicator, RawPlaced, RawTests};
use crate::indicator::resolve::{ANY_TYPE, LIST_MAX, Resolver};
use crate::model::FieldType;

impl Resolver<'_> {
    pub(super) fn indicators(&mut self) -> Result<()> {
        for (code, At { value, place }) in &self.raw.indicators {
            let indicator = self.indicator(code, place, value)?;
            self.definition.indicators.insert(code.clone(), indicator);
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
        let count = self.count(&key, place, &raw.count)?;
        let placed = self.placed(&key, place, &raw.placed, &count)?;
        if raw.periods.is_empty() != (placed == Placed::Now) {
            let wrong = "expected `periods`, except where placed = \"now\"";
            return Err(self.raw.error(place, &key, wrong));
        }
        let subform = match &count {
            Count::Cases => None,
            Count::Rows(subform) | Count::CasesWith(subform) => Some(subform.as_str()),
        };
        let share_over = raw.share_over.as_ref().map(|name| {
            self.dimension_of_case(&place.part(name), &key, name.get_ref())
                .map(|()| name.get_ref().clone())
        });
        let share_over = share_over.transpose()?;
        Ok(IndicatorDefinition {
            title: raw.title.clone(),
            definition: raw.definition.clone(),
            tables: self.tables(&key, place, raw, subform, share_over.as_deref())?,
            filter: self.filter(&key, place, raw.population.as_ref(), &raw.filter)?,
            rows: self.tests(&format!("{key}.rows"), place, &raw.rows, subform)?,
            periods: raw.periods.clone(),
            count,
            placed,
            share_over,
        })
    }

    fn count(&self, key: &str, place: &Place, raw: &Spanned<String>) -> Result<Count> {
        let place = place.part(raw);
        let subform = |name: &str| -> Result<String> {
            let known = self.definition.subforms.keys().map(String::as_str);
            match self.definition.subforms.contains_key(name) {
                true => Ok(name.to_owned()),
                false => Err(self.raw.unknown(&place, key, "subform", name, known)),
            }
        };
        let text = raw.get_ref().as_str();
        if text == "cases" {
            return Ok(Count::Cases);
        }
        if let Some(name) = text.strip_prefix("rows of ") {
            return Ok(Count::Rows(subform(name)?));
        }
        if let Some(name) = text.strip_prefix("cases with ") {
            return Ok(Count::CasesWith(subform(name)?));
        }
        let wrong = "expected count = \"cases\", \"rows of SUBFORM\" or \"cases with SUBFORM\"";
        Err(self.raw.error(&place, key, wrong))
    }

    fn placed(
        &self,
        key: &str,
        place: &Place,
        raw: &Spanned<RawPlaced>,
        count: &Count,
    ) -> Result<Placed> {
        let place = place.part(raw);
        let needs_cases = |placed: Placed| match (count, &self.definition.lifecycle) {
            (Count::Cases, Some(_)) => Ok(placed),
            (Count::Cases, None) => Err(self.raw.error(&place, key, "expected a [lifecycle]")),
            _ => Err(self.raw.error(&place, key, "only count = \"cases\" can be placed like this")),
        };
        match raw.get_ref() {
            RawPlaced::Flow(name) => {
                let path = self.path(&place, key, name, &[FieldType::Date, FieldType::Datetime])?;
                let fits = match (count, &path.subform) {
                    (_, None) => true,
                    (Count::Rows(counted) | Count::CasesWith(counted), Some(of)) => counted == of,
                    (Count::Cases, Some(_)) => false,
                };
                match fits {
                    true => Ok(Placed::Flow(path)),
                    false => Err(self.raw.error(&place, key, "the date is not of what is counted")),
                }
            }
            RawPlaced::Presence => needs_cases(Placed::Presence),
            RawPlaced::Stock => needs_cases(Placed::Stock),
            RawPlaced::Now if *count == Count::Cases => Ok(Placed::Now),
            RawPlaced::Now => {
                Err(self.raw.error(&place, key, "only count = \"cases\" can be placed now"))
            }
        }
    }

    /// A dimension that a count over `subform` can be broken down by.
    fn dimension(
        &self,
        place: &Place,
        key: &str,
        name: &str,
        subform: Option<&str>,
    ) -> Result<&DimensionDefinition> {
        let known = self.definition.dimensions.keys().map(String::as_str);
        let found = self.definition.dimensions.get(name);
        let found = found.ok_or_else(|| self.raw.unknown(place, key, "dimension", name, known))?;
        if found.from.subform.is_some() && found.from.subform.as_deref() != subform {
            let wrong = format!("dimension {name:?} is of rows that are not counted here");
            return Err(self.raw.error(place, key, wrong));
        }
        Ok(found)
    }

    /// A dimension whose values belong to the case, whatever rows are counted.
    fn dimension_of_case(&self, place: &Place, key: &str, name: &str) -> Result<()> {
        self.dimension(place, key, name, None).map(|_| ())
    }

    fn tables(
        &self,
        key: &str,
        place: &Place,
        raw: &RawIndicator,
        subform: Option<&str>,
        share_over: Option<&str>,
    ) -> Result<Vec<Vec<String>>> {
        if raw.tables.is_empty() || raw.tables.len() > LIST_MAX {
            return Err(self.raw.error(
                place,
                key,
                "expected `tables`, at least [[]] for the total",
            ));
        }
        let mut tables = Vec::new();
        for table in &raw.tables {
            let mut names = Vec::new();
            for name in table {
                self.dimension(&place.part(name), key, name.get_ref(), subform)?;
                names.push(name.get_ref().clone());
            }
            names.sort();
            if names.windows(2).any(|pair| pair[0] == pair[1]) || tables.contains(&names) {
                return Err(self.raw.error(
                    place,
                    key,
                    format!("the table {names:?} repeats something"),
                ));
            }
            if share_over.is_some_and(|over| !names.iter().any(|name| name == over)) {
                let wrong = format!("the table {names:?} lacks the dimension of share_over");
                return Err(self.raw.error(place, key, wrong));
            }
            tables.push(names);
        }
        Ok(tables)
    }

    /// The conditions of a population and of `where`; all of them must hold.
    fn filter(
        &self,
        key: &str,
        place: &Place,
        population: Option<&Spanned<String>>,
        raw: &RawTests,
    ) -> Result<Vec<(String, Test)>> {
        let mut tests = Vec::new();
        if let Some(name) = population {
            let known = self.raw.populations.keys().map(String::as_str);
            let At { value, place } =
                self.raw.populations.get(name.get_ref()).ok_or_else(|| {
                    self.raw.unknown(&place.part(name), key, "population", name.get_ref(), known)
                })?;
            tests = self.tests(&format!("populations.{}", name.get_ref()), place, value, None)?;
        }
        tests.extend(self.tests(&format!("{key}.where"), place, raw, None)?);
        Ok(tests)
    }

    /// The conditions under `key`, on fields of the case or of the rows of `subform`.
    fn tests(
        &self,
        key: &str,
        place: &Place,
        raw: &RawTests,
        subform: Option<&str>,
    ) -> Result<Vec<(String, Test)>> {
        let mut tests = Vec::new();
        for (name, value) in raw {
            let place = place.part(value);
            let path = match subform {
                None => name.clone(),
                Some(subform) => format!("{subform}.{name}"),
            };
            let key = format!("{key}.{name}");
            let path = self.path(&place, &key, &path, ANY_TYPE)?;
            if path.subform.as_deref() != subform {
                return Err(self.raw.error(&place, &key, "expected a field of the case"));
            }
            let field_type = self.field(&path).field_type;
            let test = test_of(field_type, value.get_ref()).ok_or_else(|| {
                let wrong = format!("expected {}", expected(field_type));
                self.raw.error(&place, &key, wrong)
            })?;
            self.check_ids(&place, &key, &path, &test)?;
            tests.push((path.field, test));
        }
        Ok(tests)
    }

    /// A condition on a field whose values are listed names some of them: a misspelt one would count nothing.
    fn check_ids(&self, place: &Place, key: &str, path: &Path, test: &Test) -> Result<()> {
        let (Test::Any(ids) | Test::None(ids)) = test else { return Ok(()) };
        let values = &self.field(path).values;
        match ids.iter().find(|id| !values.is_empty() && !values.contains(id)) {
            None => Ok(()),
            Some(id) => {
                let known = values.iter().map(String::as_str);
                Err(self.raw.unknown(place, key, "listed value", id, known))
            }
        }
    }

    pub(super) fn extracts(&mut self) -> Result<()> {
        for (table, At { value, place }) in &self.raw.extracts {
            let extract = self.extract(table, place, value)?;
            self.definition.extracts.insert(table.clone(), extract);
        }
        Ok(())
    }

    fn extract(&self, table: &str, place: &Place, raw: &RawExtract) -> Result<ExtractDefinition> {
        let key = format!("extracts.{table}");
        self.check_name(place, &key, table)?;
        self.check_name(&place.part(&raw.key), &key, raw.key.get_ref())?;
        let rows_of = raw.rows_of.as_ref().map(Spanned::get_ref).cloned();
        if let (Some(name), Some(spanned)) = (&rows_of, &raw.rows_of)
            && !self.definition.subforms.contains_key(name)
        {
            let known = self.definition.subforms.keys().map(String::as_str);
            return Err(self.raw.unknown(&place.part(spanned), &key, "subform", name, known));
        }
        let mut columns: Vec<ColumnDefinition> = Vec::new();
        for column in &raw.columns {
            let place = place.part(column);
            columns.push(self.column(&place, &key, column.get_ref(), rows_of.as_deref())?);
        }
        Ok(ExtractDefinition {
            comment: raw.comment.clone(),
            key: raw.key.get_ref().clone(),
            filter: self.filter(&key, place, raw.population.as_ref(), &raw.filter)?,
            rows: match &rows_of {
                Some(subform) => {
                    self.tests(&format!("{key}.rows"), place, &raw.rows, Some(subform))?
                }
                None => Vec::new(),
            },
            rows_of,
            columns,
        })
    }

    fn column(
        &self,
        place: &Place,
        key: &str,
        raw: &RawColumn,
        subform: Option<&str>,
    ) -> Result<ColumnDefinition> {
        match raw {
            RawColumn::Dimension(name) => {
                let found = self.dimension(place, key, name, subform)?;
                if matches!(found.kind, DimensionKind::Options(_)) {
                    return Err(self.raw.error(place, key, "a set of options can not be a column"));
                }
                Ok(ColumnDefinition::Dimension(name.clone()))
            }
            RawColumn::Month { name, month_of } => {
                self.check_name(place, key, name)?;
                let of =
                    self.path(place, key, month_of, &[FieldType::Date, FieldType::Datetime])?;
                if of.subform.is_some() && of.subform.as_deref() != subform {
                    return Err(self.raw.error(place, key, "the date is not of these rows"));
                }
                Ok(ColumnDefinition::Month { name: name.clone(), of })
            }
        }
    }
}
