//! Packs as they are written, one read over the other; every error with its file, line and key.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml::Spanned;

use crate::error::{Error, Result};
use crate::indicator::raw::*;
use crate::indicator::spelling::{line_of, misread, nearest};

/// Longest pack file that is read, in bytes.
pub const PACK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most names that an error lists as those that exist.
const NAMES_TOLD_MAX: usize = 12;

/// The text of a pack and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackText {
    /// Its file name, or the name of a pack inside the binary.
    pub name: String,
    /// Its TOML.
    pub text: String,
}

/// The packs inside the binary, by id.
pub const SHIPPED: [(&str, &str); 3] = [
    ("cp-core", include_str!("../../packs/cp-core.toml")),
    ("cambodia", include_str!("../../packs/cambodia.toml")),
    ("primero-parity", include_str!("../../packs/primero-parity.toml")),
];

impl PackText {
    /// A pack inside the binary.
    pub fn shipped(id: &str) -> Option<Self> {
        let (_, text) = SHIPPED.iter().find(|(known, _)| *known == id)?;
        Some(Self { name: format!("packs/{id}.toml"), text: (*text).to_owned() })
    }
}

/// A value with the place it was written at.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A place in one of several pack files.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    file: usize,
    span: Range<usize>,
}

/// Several packs read one over the other: what a later one declares replaces the same name of an earlier one.
#[derive(Clone, Debug, Default)]
pub(super) struct RawPacks {
    pub(super) texts: Vec<PackText>,
    pub(super) heads: Vec<RawHead>,
    pub(super) history_start: Option<At<String>>,
    pub(super) levels: Vec<String>,
    pub(super) lifecycle: Option<At<RawLifecycle>>,
    pub(super) fields: BTreeMap<String, At<RawField>>,
    pub(super) subforms: BTreeMap<String, BTreeMap<String, At<RawField>>>,
    pub(super) populations: BTreeMap<String, At<RawTests>>,
    pub(super) concepts: BTreeMap<String, At<RawConcept>>,
    pub(super) values: BTreeMap<String, At<RawValue>>,
    pub(super) dimensions: BTreeMap<String, At<RawDimension>>,
    pub(super) indicators: BTreeMap<String, At<RawIndicator>>,
    pub(super) extracts: BTreeMap<String, At<RawExtract>>,
}

impl RawPacks {
    /// Reads packs in order.
    pub(super) fn read(texts: Vec<PackText>) -> Result<Self> {
        let mut packs = Self::default();
        for text in texts {
            packs.add(text)?;
        }
        Ok(packs)
    }

    fn add(&mut self, text: PackText) -> Result<()> {
        if text.text.len() > PACK_BYTES_MAX {
            return Err(Error::config(format!("reading {}: longer than 4 MiB", text.name)));
        }
        let doing = || format!("reading {}", text.name);
        let raw: RawPack =
            toml::from_str(&text.text).map_err(|error| misread(&doing(), &text.text, &error))?;
        let file = self.texts.len();
        self.texts.push(text);
        self.history_start = at(raw.pack.history_start.clone(), file).or(self.history_start.take());
        self.heads.push(raw.pack);
        if let Some(locations) = raw.locations {
            self.levels = locations.levels;
        }
        self.lifecycle = at(raw.lifecycle, file).or(self.lifecycle.take());
        extend(&mut self.fields, raw.fields, file);
        for (name, fields) in raw.subforms {
            extend(self.subforms.entry(name).or_default(), fields, file);
        }
        extend(&mut self.populations, raw.populations, file);
        extend(&mut self.concepts, raw.concepts, file);
        extend(&mut self.values, raw.values, file);
        extend(&mut self.dimensions, raw.dimensions, file);
        extend(&mut self.indicators, raw.indicators, file);
        extend(&mut self.extracts, raw.extracts, file);
        Ok(())
    }

    /// An error at a place: which file, line and key, and what is wrong there.
    pub(super) fn error(&self, place: &Place, key: &str, wrong: impl fmt::Display) -> Error {
        Error::config(format!("reading {}: {key}: {wrong}", self.place(place)))
    }

    /// A place as it is told: file and line.
    pub(super) fn place(&self, place: &Place) -> String {
        match self.texts.get(place.file) {
            None => "packs".to_owned(),
            Some(text) => format!("{} line {}", text.name, line_of(&text.text, place.span.start)),
        }
    }

    /// An error for a name that is not among those that exist, with the nearest of them.
    pub(super) fn unknown<'a>(
        &self,
        place: &Place,
        key: &str,
        what: &str,
        name: &str,
        valid: impl Iterator<Item = &'a str>,
    ) -> Error {
        let valid: Vec<_> = valid.collect();
        let hint = match nearest(name, valid.iter().copied()) {
            Some(known) => format!("; the nearest is {known:?}"),
            None if valid.is_empty() => "; none is declared".to_owned(),
            None if valid.len() <= NAMES_TOLD_MAX => format!("; expected one of {valid:?}"),
            None => format!("; expected one of the {} that are declared", valid.len()),
        };
        self.error(place, key, format!("there is no {what} {name:?}{hint}"))
    }
}

fn at<T>(value: Option<Spanned<T>>, file: usize) -> Option<At<T>> {
    value.map(|spanned| located(spanned, file))
}

/// Attaches the file to a spanned value.
fn located<T>(spanned: Spanned<T>, file: usize) -> At<T> {
    let place = Place { file, span: spanned.span() };
    At { value: spanned.into_inner(), place }
}

fn extend<T>(to: &mut BTreeMap<String, At<T>>, from: BTreeMap<String, Spanned<T>>, file: usize) {
    to.extend(from.into_iter().map(|(name, value)| (name, located(value, file))));
}

impl Place {
    /// The place of a part that was read with its own span.
    pub(super) fn part<T>(&self, spanned: &Spanned<T>) -> Self {
        Self { file: self.file, span: spanned.span() }
    }

    /// A value that was made from what stands here.
    pub(super) fn spanned<T>(&self, value: T) -> Spanned<T> {
        Spanned::new(self.span.clone(), value)
    }
}
