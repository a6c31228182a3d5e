//! The values of a dimension that a case or row counts under.

use crate::dataflow::oracle::view::{Row, View};
use crate::indicator::{AGENCIES_MAX, DimensionDefinition, DimensionKind, Origin, Path};
use crate::model::{Code, Day, Domain};

pub(super) const NOT_RECORDED: &str = "not_recorded";
pub(super) const UNMAPPED: &str = "unmapped";

impl View<'_> {
    /// The values that a case or row counts under, each once: for a place, it and all it is part of.
    pub(super) fn members(
        &self,
        dimension: &DimensionDefinition,
        row: Row<'_>,
        event: Day,
    ) -> Vec<String> {
        let mut values = self.values(dimension, row, event);
        if let (DimensionKind::Location { level }, Origin::Field(path)) =
            (&dimension.kind, &dimension.from)
            && let Some(place) = self.place(path, row, *level)
        {
            let lineage = self.world.locations.lineage(place);
            values = lineage.map(|place| self.place_name(place.code)).collect();
        }
        values.sort();
        values.dedup();
        values
    }

    /// The values as recorded; one, except for a set of options.
    pub(super) fn values(
        &self,
        dimension: &DimensionDefinition,
        row: Row<'_>,
        event: Day,
    ) -> Vec<String> {
        let path = match &dimension.from {
            Origin::Field(path) => path,
            Origin::Value(name) => return vec![banded(dimension, self.value(name, row, event))],
            Origin::Caseload => return Vec::new(),
        };
        let mut values: Vec<String> = match &dimension.kind {
            DimensionKind::Option(listed) | DimensionKind::Options(listed) => {
                self.listed(path, row, listed)
            }
            DimensionKind::Agency(listed) if listed.is_empty() => {
                self.listed(path, row, &self.agencies())
            }
            DimensionKind::Agency(listed) => self.listed(path, row, listed),
            DimensionKind::Concepts(names) => {
                let concept = |id: &str| names.iter().find(|name| self.is_in_concept(id, name));
                let ids = self.ids(path, row).into_iter();
                ids.map(|id| id.and_then(concept).map_or(UNMAPPED.into(), String::clone)).collect()
            }
            DimensionKind::Boolean => {
                self.boolean(path, row).map(|value| value.to_string()).into_iter().collect()
            }
            DimensionKind::Bands(_) => vec![banded(dimension, self.integer(path, row))],
            DimensionKind::Location { level } => {
                let recorded = !self.words(path, row).is_empty();
                let place = self.place(path, row, *level).map(|place| self.place_name(place));
                recorded.then(|| place.unwrap_or(UNMAPPED.into())).into_iter().collect()
            }
        };
        if values.is_empty() {
            values.push(NOT_RECORDED.to_owned());
        }
        values
    }

    fn listed(&self, path: &Path, row: Row<'_>, listed: &[String]) -> Vec<String> {
        let published = |id: Option<&str>| {
            let known = id.filter(|id| listed.iter().any(|value| value == id));
            known.unwrap_or(UNMAPPED).to_owned()
        };
        self.ids(path, row).into_iter().map(published).collect()
    }

    /// Every agency that is known, in the order in which they were met.
    fn agencies(&self) -> Vec<String> {
        let known = self.world.dictionary.terms(Domain::Agency);
        known.take(AGENCIES_MAX).map(str::to_owned).collect()
    }

    fn place(&self, path: &Path, row: Row<'_>, level: u8) -> Option<Code> {
        let word = self.words(path, row).pop()?;
        self.world.locations.at_level(Code(word), level)
    }

    fn place_name(&self, code: Code) -> String {
        self.world.dictionary.term(Domain::Location, code).unwrap_or(UNMAPPED).to_owned()
    }

    /// Every value that there is, for a share over them.
    pub(super) fn all_values(&self, dimension: &DimensionDefinition) -> Vec<String> {
        let mut all = vec![NOT_RECORDED.to_owned(), UNMAPPED.to_owned()];
        match &dimension.kind {
            DimensionKind::Agency(listed) if listed.is_empty() => all.extend(self.agencies()),
            DimensionKind::Option(listed)
            | DimensionKind::Options(listed)
            | DimensionKind::Concepts(listed)
            | DimensionKind::Agency(listed) => all.extend(listed.clone()),
            DimensionKind::Bands(bands) => all.extend(bands.iter().map(|band| band.name.clone())),
            DimensionKind::Boolean => all.extend(["false".to_owned(), "true".to_owned()]),
            DimensionKind::Location { level } => {
                let places = self.world.locations.iter().filter(|place| place.level <= *level);
                all.extend(places.map(|place| self.place_name(place.code)));
            }
        }
        all
    }
}

/// The band that a number lies in.
pub(super) fn banded(dimension: &DimensionDefinition, value: Option<i32>) -> String {
    let (Some(value), DimensionKind::Bands(bands)) = (value, &dimension.kind) else {
        return NOT_RECORDED.to_owned();
    };
    let band = bands.iter().find(|band| band.from <= value && value <= band.to);
    band.map_or(UNMAPPED, |band| &band.name).to_owned()
}
