//! The part of resolving that concerns dimensions.

use std::collections::BTreeSet;

use toml::Spanned;

use crate::error::Result;
use crate::indicator::definition::*;
use crate::indicator::pack::{At, Place};
use crate::indicator::raw::RawDimension;
use crate::indicator::resolve::{ANY_TYPE, CASELOAD, LIST_MAX, Resolver};
use crate::model::{FieldType, LEVEL_MAX};

/// What is published where no value of a dimension is.
const RESERVED_VALUES: [&str; 3] = ["all", "not_recorded", "unmapped"];

impl Resolver<'_> {
    pub(super) fn dimensions(&mut self) -> Result<()> {
        for (name, At { value, place }) in &self.raw.dimensions {
            let key = format!("dimensions.{name}");
            self.check_name(place, &key, name)?;
            let (from, kind) = self.origin(&key, place, value)?;
            self.check_values(&key, place, &kind)?;
            let (title, labels) = (value.title.clone(), value.labels.clone());
            let dimension = DimensionDefinition { title, from, kind, labels };
            self.definition.dimensions.insert(name.clone(), dimension);
        }
        Ok(())
    }

    /// What a dimension is made from, and how.
    fn origin(
        &self,
        key: &str,
        place: &Place,
        raw: &RawDimension,
    ) -> Result<(Origin, DimensionKind)> {
        let name = raw.from.get_ref();
        if name == CASELOAD {
            return Ok((Origin::Caseload, self.bands(key, place, raw)?));
        }
        if self.definition.values.contains_key(name) {
            return Ok((Origin::Value(name.clone()), self.bands(key, place, raw)?));
        }
        let path = self.path(&place.part(&raw.from), key, name, ANY_TYPE)?;
        let kind = self.kind(key, place, raw, &path)?;
        self.check_unused(key, place, raw, &kind)?;
        Ok((Origin::Field(path), kind))
    }

    /// What is written and means nothing for the kind of the dimension was meant to mean something.
    fn check_unused(
        &self,
        key: &str,
        place: &Place,
        raw: &RawDimension,
        kind: &DimensionKind,
    ) -> Result<()> {
        let uses = match kind {
            DimensionKind::Option(_) | DimensionKind::Options(_) | DimensionKind::Agency(_) => {
                "values"
            }
            DimensionKind::Concepts(_) => "concepts",
            DimensionKind::Bands(_) => "bands",
            DimensionKind::Location { .. } => "level",
            DimensionKind::Boolean => "none of them",
        };
        let given = [
            ("values", raw.values.is_some()),
            ("concepts", raw.concepts.is_some()),
            ("bands", raw.bands.is_some()),
            ("level", raw.level.is_some()),
        ];
        match given.iter().find(|(name, is_given)| *is_given && *name != uses) {
            None => Ok(()),
            Some((name, _)) => {
                let wrong = format!("`{name}` means nothing here: the dimension uses {uses}");
                Err(self.raw.error(place, key, wrong))
            }
        }
    }

    /// Each value names rows of its own: none twice, and none that means something else.
    fn check_values(&self, key: &str, place: &Place, kind: &DimensionKind) -> Result<()> {
        let names: Vec<&String> = match kind {
            DimensionKind::Option(values)
            | DimensionKind::Options(values)
            | DimensionKind::Concepts(values)
            | DimensionKind::Agency(values) => values.iter().collect(),
            DimensionKind::Bands(bands) => bands.iter().map(|band| &band.name).collect(),
            DimensionKind::Boolean | DimensionKind::Location { .. } => Vec::new(),
        };
        let mut known = BTreeSet::from(RESERVED_VALUES);
        match names.into_iter().find(|name| !known.insert(name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let wrong = format!(
                    "the value {name:?} is listed twice, or is one of {RESERVED_VALUES:?}, which have a \
                     meaning of their own"
                );
                Err(self.raw.error(place, key, wrong))
            }
        }
    }

    fn kind(
        &self,
        key: &str,
        place: &Place,
        raw: &RawDimension,
        from: &Path,
    ) -> Result<DimensionKind> {
        let field = self.field(from);
        if let Some(names) = &raw.concepts {
            return self.concept_values(key, place, names, from);
        }
        match field.field_type {
            FieldType::Option => Ok(DimensionKind::Option(self.listed(key, place, raw, field)?)),
            FieldType::Options => Ok(DimensionKind::Options(self.listed(key, place, raw, field)?)),
            FieldType::Agency => {
                let values = raw.values.as_ref().unwrap_or(&field.values);
                if values.len() > LIST_MAX {
                    let wrong = format!("expected at most {LIST_MAX} `values`");
                    return Err(self.raw.error(place, key, wrong));
                }
                Ok(DimensionKind::Agency(values.clone()))
            }
            FieldType::Boolean => Ok(DimensionKind::Boolean),
            FieldType::Integer => self.bands(key, place, raw),
            FieldType::Location => self.level(key, place, raw),
            FieldType::Worker => {
                let wrong = "a case worker is never published; count them with `per`";
                Err(self.raw.error(place, key, wrong))
            }
            FieldType::Date
            | FieldType::Datetime
            | FieldType::BirthMonth
            | FieldType::Dates
            | FieldType::FirstSeen => {
                Err(self.raw.error(place, key, "a date can not be a dimension; use periods"))
            }
        }
    }

    fn listed(
        &self,
        key: &str,
        place: &Place,
        raw: &RawDimension,
        field: &FieldDefinition,
    ) -> Result<Vec<String>> {
        let values = raw.values.as_ref().unwrap_or(&field.values);
        if values.is_empty() || values.len() > LIST_MAX {
            let wrong =
                "expected `values`, here or at the field: only listed option ids are published";
            return Err(self.raw.error(place, key, wrong));
        }
        Ok(values.clone())
    }

    fn concept_values(
        &self,
        key: &str,
        place: &Place,
        names: &[Spanned<String>],
        from: &Path,
    ) -> Result<DimensionKind> {
        if names.is_empty() || names.len() > LIST_MAX {
            return Err(self.raw.error(place, key, "expected names of concepts"));
        }
        for name in names {
            self.concept(&place.part(name), key, name.get_ref(), from)?;
        }
        Ok(DimensionKind::Concepts(names.iter().map(|name| name.get_ref().clone()).collect()))
    }

    fn level(&self, key: &str, place: &Place, raw: &RawDimension) -> Result<DimensionKind> {
        let Some(level) = &raw.level else {
            let wrong = "expected `level`, one of [locations] levels";
            return Err(self.raw.error(place, key, wrong));
        };
        let levels = &self.raw.levels;
        let found = levels.iter().position(|known| known == level.get_ref());
        let level = found.ok_or_else(|| {
            let known = levels.iter().map(String::as_str);
            self.raw.unknown(&place.part(level), key, "level", level.get_ref(), known)
        })?;
        Ok(DimensionKind::Location {
            level: u8::try_from(level).unwrap_or(LEVEL_MAX).min(LEVEL_MAX),
        })
    }

    fn bands(&self, key: &str, place: &Place, raw: &RawDimension) -> Result<DimensionKind> {
        let Some(bands) = &raw.bands else {
            let wrong = "expected `bands` such as [\"0-5\", \"6+\"]";
            return Err(self.raw.error(place, key, wrong));
        };
        let place = place.part(bands);
        if bands.get_ref().is_empty() || bands.get_ref().len() > LIST_MAX {
            return Err(self.raw.error(&place, key, format!("expected 1 to {LIST_MAX} bands")));
        }
        let bands = bands.get_ref().iter().map(|band| self.band(&place, key, band));
        Ok(DimensionKind::Bands(bands.collect::<Result<_>>()?))
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
}
