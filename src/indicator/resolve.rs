//! From a pack as written to a pack as meant: names resolved, values checked, every mistake with its place.

use std::collections::BTreeMap;

use jiff::civil::Date;
use toml::Spanned;

use crate::error::{Error, Result};
use crate::indicator::definition::*;
use crate::indicator::pack::{At, PackText, Place, RawDimension, RawField, RawPacks};
use crate::model::{Day, FieldType};

/// Periods before this day are not published unless a pack says otherwise.
const HISTORY_START_DEFAULT: Date = jiff::civil::date(2010, 1, 1);

/// Most columns, values, bands or tables that one declaration may list.
pub(super) const LIST_MAX: usize = 1_000;

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

pub(super) struct Resolver<'a> {
    pub(super) raw: &'a RawPacks,
    pub(super) definition: Definition,
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
    pub(super) fn check_name(&self, place: &Place, key: &str, name: &str) -> Result<()> {
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
    pub(super) fn path(
        &self,
        place: &Place,
        key: &str,
        name: &str,
        types: &[FieldType],
    ) -> Result<Path> {
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
            FieldType::Date
            | FieldType::Datetime
            | FieldType::BirthMonth
            | FieldType::Worker
            | FieldType::Dates => {
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

    pub(super) fn field(&self, path: &Path) -> &FieldDefinition {
        match &path.subform {
            None => &self.definition.fields[&path.field],
            Some(subform) => &self.definition.subforms[subform][&path.field],
        }
    }
}

pub(super) const ANY_TYPE: &[FieldType] = &[
    FieldType::Option,
    FieldType::Options,
    FieldType::Boolean,
    FieldType::Integer,
    FieldType::Date,
    FieldType::Datetime,
    FieldType::BirthMonth,
    FieldType::Location,
    FieldType::Agency,
    FieldType::Worker,
    FieldType::Dates,
];

fn field_of(raw: &RawField) -> FieldDefinition {
    FieldDefinition { field_type: raw.field_type, values: raw.values.clone() }
}

/// An error that no resolver is needed for.
pub(super) fn too_large(what: &str, advice: &str) -> Error {
    Error::config(format!("compiling the pack: {what}")).advise(advice)
}
