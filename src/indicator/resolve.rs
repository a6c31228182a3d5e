//! From a pack as written to a pack as meant: names resolved, values checked, every mistake with its place.

use std::collections::BTreeMap;

use jiff::civil::Date;
use toml::Spanned;

use crate::error::{Error, Result};
use crate::indicator::definition::*;
use crate::indicator::pack::{At, PackText, Place, RawPacks};
use crate::indicator::raw::{RawAge, RawConcept, RawDays, RawField, RawValue};
use crate::indicator::terms::*;
use crate::model::{Day, FIRST_SEEN_SUFFIX, FieldType};

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
        resolver.concepts()?;
        resolver.lifecycle()?;
        resolver.values()?;
        resolver.dimensions()?;
        resolver.populations()?;
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
        concepts: BTreeMap::new(),
        values: BTreeMap::new(),
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
            self.check_watched(field, name)?;
            self.definition.fields.insert(name.clone(), field_of(&field.value));
        }
        for (subform, fields) in &self.raw.subforms {
            let mut resolved = BTreeMap::new();
            for (name, field) in fields {
                let key = format!("subforms.{subform}.{name}");
                self.check_name(&field.place, &key, name)?;
                self.check_name(&field.place, &key, subform)?;
                let wrong = match field.value.field_type {
                    FieldType::FirstSeen => "first sight is kept for fields of the case only",
                    set if set.is_set() => "a row of a subform can not hold a set",
                    _ => "",
                };
                if !wrong.is_empty() {
                    return Err(self.raw.error(&field.place, &key, wrong));
                }
                resolved.insert(name.clone(), field_of(&field.value));
            }
            self.definition.subforms.insert(subform.clone(), resolved);
        }
        Ok(())
    }

    /// A day of first sight is named after the field that it watches.
    fn check_watched(&self, field: &At<RawField>, name: &str) -> Result<()> {
        if field.value.field_type != FieldType::FirstSeen {
            return Ok(());
        }
        let watched = name.strip_suffix(FIRST_SEEN_SUFFIX).and_then(|of| self.raw.fields.get(of));
        let may_be = |of: &At<RawField>| {
            !of.value.field_type.is_set() && of.value.field_type != FieldType::FirstSeen
        };
        if watched.is_some_and(may_be) {
            return Ok(());
        }
        let wrong = format!(
            "expected the name of a declared field with one value, followed by {FIRST_SEEN_SUFFIX}"
        );
        Err(self.raw.error(&field.place, &format!("fields.{name}"), wrong))
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
        if reopened.as_ref().is_some_and(|path| path.subform.is_none()) {
            let wrong = "expected a date of a subform, such as \"reopened_logs.reopened_date\"";
            return Err(self.raw.error(place, "lifecycle.reopened", wrong));
        }
        let known = &self.field(&status).values;
        if value.closed_when.is_empty() || value.closed_when.len() > LIST_MAX {
            let wrong = "expected the ids of the status that mean closed";
            return Err(self.raw.error(place, "lifecycle.closed_when", wrong));
        }
        if !known.is_empty() {
            let key = "lifecycle.closed_when";
            self.all_known(place, key, "listed value", &value.closed_when, known)?;
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
        let expected: Vec<_> = types.iter().map(|field_type| type_name(*field_type)).collect();
        let (own, expected) = (type_name(found.field_type), expected.join(" or "));
        let wrong = format!("{name} is of type {own}, expected a field of type {expected}");
        Err(self.raw.error(place, key, wrong))
    }

    pub(super) fn field(&self, path: &Path) -> &FieldDefinition {
        self.definition.field_of(path)
    }

    fn concepts(&mut self) -> Result<()> {
        for (name, At { value, place }) in &self.raw.concepts {
            let key = format!("concepts.{name}");
            self.check_name(place, &key, name)?;
            let concept = self.concept_of(&key, place, value)?;
            self.definition.concepts.insert(name.clone(), concept);
        }
        Ok(())
    }

    fn concept_of(&self, key: &str, place: &Place, raw: &RawConcept) -> Result<ConceptDefinition> {
        let types = [FieldType::Option, FieldType::Options];
        let field = self.path(&place.part(&raw.field), key, raw.field.get_ref(), &types)?;
        let known = &self.field(&field).values;
        let wrong = format!("expected 1 to {LIST_MAX} `ids`");
        if raw.ids.is_empty() || raw.ids.len() > LIST_MAX {
            return Err(self.raw.error(place, key, wrong));
        }
        if !known.is_empty() {
            self.all_known(place, key, "listed value", &raw.ids, known)?;
        }
        let asserted: Vec<_> = raw.assert_labels.keys().cloned().collect();
        let mut all = raw.ids.clone();
        all.extend(raw.instances.values().flatten().cloned());
        self.all_known(place, key, "id of the concept", &asserted, &all)?;
        Ok(ConceptDefinition {
            field,
            ids: raw.ids.clone(),
            assert_labels: raw.assert_labels.clone(),
            instances: raw.instances.clone(),
        })
    }

    fn values(&mut self) -> Result<()> {
        for (name, At { value, place }) in &self.raw.values {
            let key = format!("values.{name}");
            self.check_name(place, &key, name)?;
            let taken = self.definition.fields.contains_key(name)
                || self.definition.subforms.values().any(|fields| fields.contains_key(name));
            if taken || ["any", "has", CASELOAD].contains(&name.as_str()) {
                return Err(self.raw.error(place, &key, "the name is taken by something else"));
            }
            let value = match value {
                RawValue::Age(raw) => self.age(&key, place, raw)?,
                RawValue::Days(raw) => self.days(&key, place, raw)?,
                RawValue::Lifecycle(_) if self.definition.lifecycle.is_none() => {
                    return Err(self.raw.error(place, &key, "expected a [lifecycle]"));
                }
                RawValue::Lifecycle(_) => ValueDefinition::Conflict,
            };
            self.definition.values.insert(name.clone(), value);
        }
        Ok(())
    }

    fn age(&self, key: &str, place: &Place, raw: &RawAge) -> Result<ValueDefinition> {
        let of_case = |name: &Spanned<String>, types: &[FieldType]| -> Result<String> {
            let place = place.part(name);
            let path = self.path(&place, key, name.get_ref(), types)?;
            match path.subform {
                None => Ok(path.field),
                Some(_) => Err(self.raw.error(&place, key, "expected a field of the case")),
            }
        };
        let known = |born: &&Spanned<String>| {
            let field = self.definition.fields.get(born.get_ref());
            field.is_some_and(|field| field.field_type == FieldType::BirthMonth)
        };
        let Some(born) = raw.born.as_ref().filter(known) else {
            let place = raw.born.as_ref().map_or(place.clone(), |born| place.part(born));
            let wrong = "an age needs `born`, a field of type birth_month; add date_of_birth = \"birth_month\" \
                         to [fields] and write born = \"date_of_birth\"";
            return Err(self.raw.error(&place, key, wrong));
        };
        let born = born.get_ref().clone();
        let otherwise = raw.otherwise.as_ref().map(|name| of_case(name, &[FieldType::Integer]));
        let recorded_on = raw.recorded_on.as_ref().map(|name| of_case(name, DATES));
        Ok(ValueDefinition::Age {
            born,
            on: self.when(key, place, &raw.on)?,
            otherwise: otherwise.transpose()?,
            recorded_on: recorded_on.transpose()?,
        })
    }

    fn days(&self, key: &str, place: &Place, raw: &RawDays) -> Result<ValueDefinition> {
        let from = self.path(&place.part(&raw.from), key, raw.from.get_ref(), DATES)?;
        let to = self.when(key, place, &raw.to)?;
        if let When::Field(Path { subform: Some(to), .. }) = &to
            && from.subform.as_ref().is_some_and(|from| from != to)
        {
            return Err(self.raw.error(place, key, "the two dates are of different subforms"));
        }
        Ok(ValueDefinition::Days { from, to })
    }

    fn when(&self, key: &str, place: &Place, name: &Spanned<String>) -> Result<When> {
        match name.get_ref().as_str() {
            "event" => Ok(When::Event),
            name_text => self.path(&place.part(name), key, name_text, DATES).map(When::Field),
        }
    }
}

/// The name from which a dimension takes how many cases a case worker has.
pub(super) const CASELOAD: &str = "caseload";

/// Types that hold one day.
pub(super) const DATES: &[FieldType] =
    &[FieldType::Date, FieldType::Datetime, FieldType::FirstSeen];

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
    FieldType::FirstSeen,
];

/// A type as it is written in a pack.
fn type_name(field_type: FieldType) -> &'static str {
    match field_type {
        FieldType::Option => "option",
        FieldType::Options => "options",
        FieldType::Boolean => "boolean",
        FieldType::Integer => "integer",
        FieldType::Date => "date",
        FieldType::Datetime => "datetime",
        FieldType::BirthMonth => "birth_month",
        FieldType::Location => "location",
        FieldType::Agency => "agency",
        FieldType::Worker => "worker",
        FieldType::Dates => "dates",
        FieldType::FirstSeen => "first_seen",
    }
}

fn field_of(raw: &RawField) -> FieldDefinition {
    FieldDefinition { field_type: raw.field_type, values: raw.values.clone() }
}

/// An error that no resolver is needed for.
pub(super) fn too_large(what: &str, advice: &str) -> Error {
    Error::config(format!("compiling the pack: {what}")).advise(advice)
}
