//! Dimensions compiled: how the words of a case become a small ordinal, and how many bits it takes.

use crate::indicator::{Band, DimensionDefinition, DimensionKind};
use crate::model::{Case, Code, Dictionary, Domain, LocationTree, Schema, Slot};

/// The value is empty, or could not be read.
pub(super) const NOT_RECORDED: u32 = 0;
/// The value is none of those that are listed, or a place that is not in the tree.
pub(super) const UNMAPPED: u32 = 1;
/// The first listed value.
pub(super) const FIRST: u32 = 2;

/// A dimension with its values in order; the ordinal of the first is [`FIRST`].
#[derive(Clone, Debug)]
pub(super) struct Dimension {
    pub(super) name: String,
    /// Whether it is read from a row of the counted subform.
    pub(super) of_row: bool,
    pub(super) slot: Slot,
    pub(super) reading: Reading,
    /// How many ordinals there are.
    pub(super) size: u32,
}

/// How a word becomes an ordinal.
#[derive(Clone, Debug)]
pub(super) enum Reading {
    /// By option code.
    Options { ordinals: Vec<u16>, values: Vec<String> },
    /// By band.
    Bands(Vec<Band>),
    /// By location code.
    Location { ordinals: Vec<u32> },
    /// False, then true.
    Boolean,
}

impl Dimension {
    pub(super) fn new(
        name: &str,
        definition: &DimensionDefinition,
        slot: Slot,
        dictionary: &mut Dictionary,
        places: &Places,
    ) -> Self {
        let (reading, values) = match &definition.kind {
            DimensionKind::Option(values) | DimensionKind::Options(values) => {
                (options(values, dictionary), values.len())
            }
            DimensionKind::Bands(bands) => (Reading::Bands(bands.clone()), bands.len()),
            DimensionKind::Boolean => (Reading::Boolean, 2),
            DimensionKind::Location { level } => {
                (Reading::Location { ordinals: places.ordinals(*level) }, places.places.len())
            }
        };
        let size = FIRST + u32::try_from(values).expect("lists and trees are bounded");
        let of_row = definition.from.subform.is_some();
        Self { name: name.into(), of_row, slot, reading, size }
    }

    /// Bits that hold every ordinal.
    pub(super) fn bits(&self) -> u32 {
        u32::BITS - (self.size - 1).leading_zeros()
    }

    /// Whether one case can have several values.
    pub(super) fn is_set(&self) -> bool {
        matches!(self.slot, Slot::Set(_))
    }

    pub(super) fn is_location(&self) -> bool {
        matches!(self.reading, Reading::Location { .. })
    }

    /// The ordinal of one word.
    pub(super) fn ordinal(&self, word: u32) -> u32 {
        if word == 0 {
            return NOT_RECORDED;
        }
        match &self.reading {
            Reading::Options { ordinals, .. } => {
                ordinals.get(word as usize).map_or(UNMAPPED, |ordinal| u32::from(*ordinal))
            }
            Reading::Location { ordinals } => {
                ordinals.get(word as usize).copied().unwrap_or(UNMAPPED)
            }
            Reading::Boolean => Case::boolean(word).map_or(NOT_RECORDED, |b| FIRST + u32::from(b)),
            Reading::Bands(bands) => {
                let Some(value) = Case::integer(word) else { return NOT_RECORDED };
                let found = bands.iter().position(|band| (band.from..=band.to).contains(&value));
                found.map_or(UNMAPPED, |index| FIRST + index as u32)
            }
        }
    }

    /// The ordinals of a case, sorted, each once; [`NOT_RECORDED`] alone for an empty set.
    pub(super) fn members(&self, case: &Case, schema: &Schema, into: &mut Vec<u32>) {
        into.clear();
        match self.slot {
            Slot::Word(word) => into.push(self.ordinal(case.word(word))),
            Slot::Set(set) => {
                into.extend(case.set(schema, set).iter().map(|word| self.ordinal(*word)));
                if into.is_empty() {
                    into.push(NOT_RECORDED);
                }
                into.sort_unstable();
                into.dedup();
            }
        }
    }

    /// The text of an ordinal.
    pub(super) fn text<'a>(&'a self, ordinal: u32, places: &'a Places) -> &'a str {
        let Some(index) = ordinal.checked_sub(FIRST) else {
            return if ordinal == NOT_RECORDED { "not_recorded" } else { "unmapped" };
        };
        let index = index as usize;
        match &self.reading {
            Reading::Options { values, .. } => values.get(index).map_or("unmapped", String::as_str),
            Reading::Bands(bands) => bands.get(index).map_or("unmapped", |band| &band.name),
            Reading::Boolean => ["false", "true"][index.min(1)],
            Reading::Location { .. } => {
                places.places.get(index).map_or("unmapped", |place| &place.code)
            }
        }
    }
}

fn options(values: &[String], dictionary: &mut Dictionary) -> Reading {
    let codes: Vec<_> = values.iter().map(|id| dictionary.intern(Domain::Option, id)).collect();
    let length = codes.iter().flatten().map(|code| code.0 as usize + 1).max().unwrap_or(0);
    let mut ordinals = vec![UNMAPPED as u16; length];
    for (index, code) in codes.iter().enumerate() {
        if let Some(code) = code {
            ordinals[code.0 as usize] = (FIRST as usize + index) as u16;
        }
    }
    Reading::Options { ordinals, values: values.to_vec() }
}

/// The places of a pipeline as ordinals, in the order of their codes in the dictionary.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) places: Vec<PlaceText>,
    /// By location code: index into `places`, if it is one.
    by_code: Vec<Option<u32>>,
}

/// A place: what is written of it, and the ordinals of itself and everything it is part of, finest first.
#[derive(Clone, Debug)]
pub(super) struct PlaceText {
    pub(super) code: String,
    pub(super) level: u8,
    pub(super) lineage: Vec<u32>,
}

impl Places {
    pub(super) fn new(tree: &LocationTree, dictionary: &Dictionary) -> Self {
        let length = tree.iter().map(|place| place.code.0 as usize + 1).max().unwrap_or(0);
        let mut by_code = vec![None; length];
        for (index, place) in tree.iter().enumerate() {
            by_code[place.code.0 as usize] = Some(index as u32);
        }
        let ordinal = |code: Code| by_code[code.0 as usize].map_or(UNMAPPED, |index| index + FIRST);
        let places = tree
            .iter()
            .map(|place| PlaceText {
                code: dictionary.term(Domain::Location, place.code).unwrap_or("unmapped").into(),
                level: place.level,
                lineage: tree.lineage(place.code).map(|ancestor| ordinal(ancestor.code)).collect(),
            })
            .collect();
        Self { places, by_code }
    }

    /// By location code: the ordinal of the place itself or of what it is part of at `level` or above.
    fn ordinals(&self, level: u8) -> Vec<u32> {
        let at_level = |index: &u32| {
            let lineage = &self.places[*index as usize].lineage;
            let found = lineage.iter().find(|ordinal| self.level(**ordinal) <= level);
            found.copied().unwrap_or(UNMAPPED)
        };
        self.by_code.iter().map(|index| index.as_ref().map_or(UNMAPPED, at_level)).collect()
    }

    fn level(&self, ordinal: u32) -> u8 {
        self.places[(ordinal - FIRST) as usize].level
    }

    /// The ordinal itself, for a place followed by everything it is part of.
    pub(super) fn lineage<'a>(&'a self, ordinal: &'a u32) -> &'a [u32] {
        match ordinal.checked_sub(FIRST) {
            Some(index) => &self.places[index as usize].lineage,
            None => std::slice::from_ref(ordinal),
        }
    }
}
