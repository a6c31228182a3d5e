//! From a pack as written to a pack as meant: names resolved, values checked, every mistake with its place.

use std::collections::BTreeMap;

use jiff::civil::Date;
use toml::{Spanned, Value};

use crate::error::{Error, Result};
use crate::indicator::definition::*;
use crate::indicator::pack::{
    At, PackText, Place, RawColumn, RawDimension, RawExtract, RawField, RawIndicator, RawPacks,
    RawPlaced, RawTests,
};
use crate::model::{Day, FieldType};

/// Periods before this day are not published unless a pack says otherwise.
const HISTORY_START_DEFAULT: Date = jiff::civil::date(2010, 1, 1);

/// Most columns, values, bands or tables that one declaration may list.
const LIST_MAX: usize = 1_000;

impl Definition {
    /// Reads and checks packs; a later one replaces what an earlier one declared under the same name.
    ///
    /// # Errors
    /// A configuration error with file, line and key, what was expected and the nearest valid name.
    pub fn read(texts: Vec<PackText>) -> Result<Self> {
        let raw = RawPacks::read(texts)?;
        let mut resolver = Resolver { raw: &raw, definition: empty(&raw)? };
        resolver.fields()?;
        resolver.lifecycle()?;
        resolver.dimensions()?;
        resolver.indicators()?;
        resolver.extracts()?;
        Ok(resolver.definition)
    }
}

fn empty(raw: &RawPacks) -> Result<Definition> {
    let history_start = match &raw.history_start {
        None => Day::of(HISTORY_START_DEFAULT),
        Some(At { value, place }) => {
            let day = value.parse::<Date>().ok().and_then(Day::of);
            Some(day.ok_or_else(|| {
                raw.error(place, "pack.history_start", "expected a date such as \"2015-01-01\"")
            })?)
        }
    };
    Ok(Definition {
        packs: raw.heads.iter().map(|head| format!("{} {}", head.id, head.version)).collect(),
        history_start: history_start.expect("the default is a day"),
        lifecycle: None,
        fields: BTreeMap::new(),
        subforms: BTreeMap::new(),
        dimensions: BTreeMap::new(),
        indicators: BTreeMap::new(),
        extracts: BTreeMap::new(),
    })
}

struct Resolver<'a> {
    raw: &'a RawPacks,
    definition: Definition,
}

impl Resolver<'_> {
    fn fields(&mut self) -> Result<()> {
        for (name, field) in &self.raw.fields {
            self.check_name(&field.place, &format!("fields.{name}"), name)?;
            self.definition.fields.insert(name.clone(), field_of(&field.value));
        }
        for (subform, fields) in &self.raw.subforms {
            let mut resolved = BTreeMap::new();
            for (name, field) in fields {
                let key = format!("subforms.{subform}.{name}");
                self.check_name(&field.place, &key, name)?;
                self.check_name(&field.place, &key, subform)?;
                if field.value.field_type == FieldType::Options {
                    let wrong = "a row of a subform can not hold a set of options";
                    return Err(self.raw.error(&field.place, &key, wrong));
                }
                resolved.insert(name.clone(), field_of(&field.value));
            }
            self.definition.subforms.insert(subform.clone(), resolved);
        }
        Ok(())
    }

    /// Names become columns, request parameters and keys: only what Primero itself allows for a field.
    fn check_name(&self, place: &Place, key: &str, name: &str) -> Result<()> {
        let fits = name.len() <= 60 && name.starts_with(|c: char| c.is_ascii_lowercase());
        if fits && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            return Ok(());
        }
        Err(self.raw.error(place, key, "expected a name of a-z, 0-9 and _, at most 60 long"))
    }

    fn lifecycle(&mut self) -> Result<()> {
        let Some(At { value, place }) = &self.raw.lifecycle else { return Ok(()) };
        let date = |name: &Spanned<String>, key: &str| -> Result<Path> {
            let key = format!("lifecycle.{key}");
            self.path(
                &place.part(name),
                &key,
                name.get_ref(),
                &[FieldType::Date, FieldType::Datetime],
            )
        };
        let (opened, closed) = (date(&value.opened, "opened")?, date(&value.closed, "closed")?);
        let reopened = value.reopened.as_ref().map(|name| date(name, "reopened")).transpose()?;
        let status = self.path(
            &place.part(&value.status),
            "lifecycle.status",
            value.status.get_ref(),
            &[FieldType::Option],
        )?;
        for path in [&opened, &closed, &status] {
            if path.subform.is_some() {
                return Err(self.raw.error(place, "lifecycle", "expected fields of the case"));
            }
        }
        self.definition.lifecycle = Some(Lifecycle {
            opened: opened.field,
            closed: closed.field,
            reopened,
            status: status.field,
            closed_when: value.closed_when.clone(),
        });
        Ok(())
    }

    /// Resolves `field` or `subform.field`, which must be declared and of one of `types`.
    fn path(&self, place: &Place, key: &str, name: &str, types: &[FieldType]) -> Result<Path> {
        let (path, fields) = match name.split_once('.') {
            None => (Path { subform: None, field: name.into() }, &self.definition.fields),
            Some((subform, field)) => {
                let known = self.definition.subforms.keys().map(String::as_str);
                let fields = self
                    .definition
                    .subforms
                    .get(subform)
                    .ok_or_else(|| self.raw.unknown(place, key, "subform", subform, known))?;
                (Path { subform: Some(subform.into()), field: field.into() }, fields)
            }
        };
        let known = fields.keys().map(String::as_str);
        let found = fields
            .get(&path.field)
            .ok_or_else(|| self.raw.unknown(place, key, "field", &path.field, known))?;
        if types.contains(&found.field_type) {
            return Ok(path);
        }
        let wrong = format!("{name} is of type {:?}, expected one of {types:?}", found.field_type);
        Err(self.raw.error(place, key, wrong.to_lowercase()))
    }

    fn dimensions(&mut self) -> Result<()> {
        for (name, At { value, place }) in &self.raw.dimensions {
            let key = format!("dimensions.{name}");
            self.check_name(place, &key, name)?;
            let from = self.path(&place.part(&value.from), &key, value.from.get_ref(), ANY_TYPE)?;
            let kind = self.dimension_kind(&key, place, value, &from)?;
            self.definition.dimensions.insert(
                name.clone(),
                DimensionDefinition {
                    title: value.title.clone(),
                    from,
                    kind,
                    labels: value.labels.clone(),
                },
            );
        }
        Ok(())
    }

    fn dimension_kind(
        &self,
        key: &str,
        place: &Place,
        raw: &RawDimension,
        from: &Path,
    ) -> Result<DimensionKind> {
        let field = self.field(from);
        let values = || -> Result<Vec<String>> {
            let values = raw.values.clone().unwrap_or_else(|| field.values.clone());
            if values.is_empty() || values.len() > LIST_MAX {
                let wrong =
                    "expected `values`, here or at the field: only listed option ids are published";
                return Err(self.raw.error(place, key, wrong));
            }
            Ok(values)
        };
        match field.field_type {
            FieldType::Option | FieldType::Agency => Ok(DimensionKind::Option(values()?)),
            FieldType::Options => Ok(DimensionKind::Options(values()?)),
            FieldType::Boolean => Ok(DimensionKind::Boolean),
            FieldType::Integer => {
                let Some(bands) = &raw.bands else {
                    return Err(self.raw.error(
                        place,
                        key,
                        "expected `bands` such as [\"0-5\", \"6+\"]",
                    ));
                };
                let place = place.part(bands);
                let bands = bands.get_ref().iter().map(|band| self.band(&place, key, band));
                Ok(DimensionKind::Bands(bands.collect::<Result<_>>()?))
            }
            FieldType::Location => {
                let Some(level) = &raw.level else {
                    return Err(self.raw.error(
                        place,
                        key,
                        "expected `level`, one of [locations] levels",
                    ));
                };
                let levels = &self.raw.levels;
                let found = levels.iter().position(|known| known == level.get_ref());
                let level = found.ok_or_else(|| {
                    let known = levels.iter().map(String::as_str);
                    self.raw.unknown(&place.part(level), key, "level", level.get_ref(), known)
                })?;
                let level = u8::try_from(level).unwrap_or(u8::MAX).min(crate::model::LEVEL_MAX);
                Ok(DimensionKind::Location { level })
            }
            FieldType::Date | FieldType::Datetime | FieldType::BirthMonth => {
                Err(self.raw.error(place, key, "a date can not be a dimension; use periods"))
            }
        }
    }

    fn band(&self, place: &Place, key: &str, name: &str) -> Result<Band> {
        let parsed = match name.strip_suffix('+') {
            Some(from) => from.parse().ok().map(|from| (from, i32::MAX)),
            None => {
                name.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
            }
        };
        match parsed {
            Some((from, to)) if from <= to => Ok(Band { name: name.into(), from, to }),
            _ => {
                let wrong = format!("{name:?} is no band; expected \"0-5\" or \"18+\"");
                Err(self.raw.error(place, key, wrong))
            }
        }
    }

    fn field(&self, path: &Path) -> &FieldDefinition {
        match &path.subform {
            None => &self.definition.fields[&path.field],
            Some(subform) => &self.definition.subforms[subform][&path.field],
        }
    }

    fn indicators(&mut self) -> Result<()> {
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
            rows: self.tests(&key, place, &raw.rows, subform)?,
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
        tests.extend(self.tests(key, place, raw, None)?);
        Ok(tests)
    }

    /// The conditions of `where` (fields of the case) or of `rows` (fields of `subform`).
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
            let key = format!("{key}.where.{name}");
            let path = self.path(&place, &key, &path, ANY_TYPE)?;
            if path.subform.as_deref() != subform {
                return Err(self.raw.error(&place, &key, "expected a field of the case"));
            }
            let field_type = self.field(&path).field_type;
            let test = test_of(field_type, value.get_ref()).ok_or_else(|| {
                let wrong = format!("expected {}", expected(field_type));
                self.raw.error(&place, &key, wrong)
            })?;
            tests.push((path.field, test));
        }
        Ok(tests)
    }

    fn extracts(&mut self) -> Result<()> {
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
                Some(subform) => self.tests(&key, place, &raw.rows, Some(subform))?,
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

const ANY_TYPE: &[FieldType] = &[
    FieldType::Option,
    FieldType::Options,
    FieldType::Boolean,
    FieldType::Integer,
    FieldType::Date,
    FieldType::Datetime,
    FieldType::BirthMonth,
    FieldType::Location,
    FieldType::Agency,
];

fn field_of(raw: &RawField) -> FieldDefinition {
    FieldDefinition { field_type: raw.field_type, values: raw.values.clone() }
}

/// What a condition on a field of this type may look like, for an error.
fn expected(field_type: FieldType) -> &'static str {
    match field_type {
        FieldType::Boolean => "true, false, { not = true } or { present = true }",
        FieldType::Integer => "a range such as \"0..17\", a number or { present = true }",
        FieldType::Option | FieldType::Options | FieldType::Agency => {
            "an option id, a list of them, { not = … } or { present = true }"
        }
        _ => "{ present = true }",
    }
}

fn test_of(field_type: FieldType, value: &Value) -> Option<Test> {
    if let Some(present) = value.as_table().filter(|t| t.len() == 1).and_then(|t| t.get("present"))
    {
        return present.as_bool().map(Test::Present);
    }
    match field_type {
        FieldType::Boolean => match value {
            Value::Table(table) if table.len() == 1 => table.get("not")?.as_bool().map(Test::IsNot),
            value => value.as_bool().map(Test::Is),
        },
        FieldType::Integer => range_of(value),
        FieldType::Option | FieldType::Options | FieldType::Agency => match value {
            Value::Table(table) if table.len() == 1 => ids(table.get("not")?).map(Test::None),
            value => ids(value).map(Test::Any),
        },
        _ => None,
    }
}

fn ids(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(id) => Some(vec![id.clone()]),
        Value::Array(ids) if !ids.is_empty() && ids.len() <= LIST_MAX => {
            ids.iter().map(|id| id.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}

fn range_of(value: &Value) -> Option<Test> {
    if let Some(number) = value.as_integer() {
        let number = i32::try_from(number).ok()?;
        return Some(Test::Range(number, number));
    }
    let (from, to) = value.as_str()?.split_once("..")?;
    let from = if from.is_empty() { i32::MIN } else { from.trim().parse().ok()? };
    let to = if to.is_empty() { i32::MAX } else { to.trim().parse().ok()? };
    (from <= to).then_some(Test::Range(from, to))
}

/// An error that no resolver is needed for.
pub(super) fn too_large(what: &str, advice: &str) -> Error {
    Error::config(format!("compiling the pack: {what}")).advise(advice)
}
