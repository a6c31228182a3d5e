//! Dimensions compiled: how the words of a case become a small ordinal, and how many bits it takes.

use crate::indicator::plan::{Compiler, slot_of};
use crate::indicator::value::Subject;
use crate::indicator::{Band, DimensionDefinition, DimensionKind, Origin, Plan};
use crate::model::{Case, Code, Dictionary, Domain, LocationTree, Slot};

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
    /// Whether it depends on the event.
    pub(super) of_event: bool,
    pub(super) origin: OriginPlan,
    pub(super) reading: Reading,
    /// How many ordinals there are.
    pub(super) size: u32,
    /// How many of them a case can have: places finer than the level it can not.
    pub(super) span: u32,
}

/// What a dimension is read from, compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OriginPlan {
    /// A word of the case or row, or a set of the case.
    Slot(Slot),
    /// The value with this index.
    Value(usize),
    /// Known only when the cases of a case worker are counted.
    Caseload,
}

/// How a word becomes an ordinal.
#[derive(Clone, Debug)]
pub(super) enum Reading {
    /// By code of an option or an agency.
    Codes { ordinals: Vec<u16>, values: Vec<String> },
    /// By concept, for each stream: ordinals by option code.
    Concepts { ordinals: Vec<Vec<u16>>, values: Vec<String> },
    /// By band.
    Bands(Vec<Band>),
    /// By location code.
    Location { level: u8, ordinals: Vec<u32> },
    /// False, then true.
    Boolean,
}

impl Compiler<'_> {
    pub(super) fn dimension(
        &mut self,
        name: &str,
        definition: &DimensionDefinition,
        places: &Places,
    ) -> Dimension {
        let (reading, values) = match &definition.kind {
            DimensionKind::Option(values) | DimensionKind::Options(values) => {
                (self.by_code(Domain::Option, values), values.len())
            }
            DimensionKind::Agency(values) => {
                let values = if values.is_empty() { self.agencies() } else { values.clone() };
                (self.by_code(Domain::Agency, &values), values.len())
            }
            DimensionKind::Concepts(names) => (self.by_concept(names), names.len()),
            DimensionKind::Bands(bands) => (Reading::Bands(bands.clone()), bands.len()),
            DimensionKind::Boolean => (Reading::Boolean, 2),
            DimensionKind::Location { level } => {
                let ordinals = places.ordinals(*level);
                (Reading::Location { level: *level, ordinals }, places.places.len())
            }
        };
        Dimension {
            name: name.to_owned(),
            of_row: self.definition.subform_of(&definition.from).is_some(),
            of_event: self.definition.depends_on_event(&definition.from),
            origin: match &definition.from {
                Origin::Field(path) => OriginPlan::Slot(slot_of(self.schema, path)),
                Origin::Value(name) => OriginPlan::Value(self.value(name)),
                Origin::Caseload => OriginPlan::Caseload,
            },
            span: match &definition.kind {
                DimensionKind::Location { level } => FIRST + places.count_to(*level),
                _ => FIRST + u32::try_from(values).expect("lists are bounded"),
            },
            reading,
            size: FIRST + u32::try_from(values).expect("lists and trees are bounded"),
        }
    }

    fn by_code(&mut self, domain: Domain, values: &[String]) -> Reading {
        let mut ordinals = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let code = self.dictionary.intern(domain, value);
            note(&mut ordinals, code, index);
        }
        Reading::Codes { ordinals, values: values.to_vec() }
    }

    fn by_concept(&mut self, names: &[String]) -> Reading {
        let mut streams = Vec::new();
        for instance in self.instances {
            let mut ordinals = Vec::new();
            // Of several concepts the first holds, so it is noted last.
            for (index, name) in names.iter().enumerate().rev() {
                for id in self.definition.concept_ids(name, instance) {
                    let code = self.dictionary.intern(Domain::Option, id);
                    note(&mut ordinals, code, index);
                }
            }
            streams.push(ordinals);
        }
        Reading::Concepts { ordinals: streams, values: names.to_vec() }
    }

    /// Every agency that is known, in the order in which they were met.
    fn agencies(&self) -> Vec<String> {
        let terms = self.dictionary.terms(Domain::Agency);
        terms.take(AGENCIES_MAX).map(str::to_owned).collect()
    }
}

/// Most agencies of a dimension that lists none; later ones are unmapped.
pub const AGENCIES_MAX: usize = 1_000;

/// Notes the ordinal of a value under its code.
fn note(ordinals: &mut Vec<u16>, code: Option<Code>, index: usize) {
    let Some(code) = code else { return };
    let at = code.0 as usize;
    if ordinals.len() <= at {
        ordinals.resize(at + 1, UNMAPPED as u16);
    }
    ordinals[at] = (FIRST as usize + index) as u16;
}

impl Dimension {
    /// Bits that hold every ordinal.
    pub(super) fn bits(&self) -> u32 {
        u32::BITS - (self.size - 1).leading_zeros()
    }

    /// Whether one case can have several values.
    pub(super) fn is_set(&self) -> bool {
        matches!(self.origin, OriginPlan::Slot(Slot::Set(_)))
    }

    pub(super) fn is_location(&self) -> bool {
        matches!(self.reading, Reading::Location { .. })
    }

    /// Whether it is the same for every event of a case.
    pub(super) fn of_case(&self) -> bool {
        !self.of_row && !self.of_event && self.origin != OriginPlan::Caseload
    }

    /// The ordinal of one word of a record of the stream with this index.
    pub(super) fn ordinal(&self, word: u32, stream: usize) -> u32 {
        if word == 0 {
            return NOT_RECORDED;
        }
        let by_code = |ordinals: &[u16]| {
            ordinals.get(word as usize).map_or(UNMAPPED, |ordinal| u32::from(*ordinal))
        };
        match &self.reading {
            Reading::Codes { ordinals, .. } => by_code(ordinals),
            Reading::Concepts { ordinals, .. } => by_code(&ordinals[stream]),
            Reading::Location { ordinals, .. } => {
                ordinals.get(word as usize).copied().unwrap_or(UNMAPPED)
            }
            Reading::Boolean => Case::boolean(word).map_or(NOT_RECORDED, |b| FIRST + u32::from(b)),
            Reading::Bands(_) => self.band(Case::integer(word)),
        }
    }

    /// Whether a case can have this ordinal: a place that is finer than the level has none.
    pub(super) fn has(&self, ordinal: u32, places: &Places) -> bool {
        match self.reading {
            Reading::Location { level, .. } if ordinal >= FIRST => places.level(ordinal) <= level,
            _ => ordinal < self.size,
        }
    }

    /// The ordinal of a number.
    pub(super) fn band(&self, value: Option<i32>) -> u32 {
        let (Some(value), Reading::Bands(bands)) = (value, &self.reading) else {
            return NOT_RECORDED;
        };
        let found = bands.iter().position(|band| (band.from..=band.to).contains(&value));
        found.map_or(UNMAPPED, |index| FIRST + index as u32)
    }

    /// The ordinal of a published value, for a part that sets it.
    pub(super) fn ordinal_of(&self, value: &str) -> u32 {
        let (Reading::Codes { values, .. } | Reading::Concepts { values, .. }) = &self.reading
        else {
            return UNMAPPED;
        };
        let found = values.iter().position(|known| known == value);
        found.map_or(UNMAPPED, |index| FIRST + index as u32)
    }

    /// The text of an ordinal.
    pub(super) fn text<'a>(&'a self, ordinal: u32, places: &'a Places) -> &'a str {
        let Some(index) = ordinal.checked_sub(FIRST) else {
            return if ordinal == NOT_RECORDED { "not_recorded" } else { "unmapped" };
        };
        let index = index as usize;
        match &self.reading {
            Reading::Codes { values, .. } | Reading::Concepts { values, .. } => {
                values.get(index).map_or("unmapped", String::as_str)
            }
            Reading::Bands(bands) => bands.get(index).map_or("unmapped", |band| &band.name),
            Reading::Boolean => ["false", "true"][index.min(1)],
            Reading::Location { .. } => {
                places.places.get(index).map_or("unmapped", |place| &place.code)
            }
        }
    }
}

impl Plan {
    /// The single value of a dimension for one event; of a caseload none yet.
    pub(super) fn ordinal(
        &self,
        dimension: &Dimension,
        subject: &Subject<'_>,
        stream: usize,
    ) -> u32 {
        match dimension.origin {
            OriginPlan::Slot(Slot::Word(word)) => {
                let word = match (dimension.of_row, subject.row) {
                    (false, _) => subject.case.word(word),
                    (true, Some(row)) => row[usize::from(word)],
                    (true, None) => 0,
                };
                dimension.ordinal(word, stream)
            }
            OriginPlan::Value(index) => {
                dimension.band(self.values[index].value(subject, &self.schema))
            }
            OriginPlan::Slot(Slot::Set(_)) | OriginPlan::Caseload => 0,
        }
    }

    /// The ordinals of a case, sorted, each once; [`NOT_RECORDED`] alone for an empty set.
    pub(super) fn members(
        &self,
        dimension: &Dimension,
        subject: &Subject<'_>,
        stream: usize,
        into: &mut Vec<u32>,
    ) {
        into.clear();
        let OriginPlan::Slot(Slot::Set(set)) = dimension.origin else {
            into.push(self.ordinal(dimension, subject, stream));
            return;
        };
        let words = subject.case.set(&self.schema, set);
        into.extend(words.iter().map(|word| dimension.ordinal(*word, stream)));
        if into.is_empty() {
            into.push(NOT_RECORDED);
        }
        into.sort_unstable();
        into.dedup();
    }
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

/// Without repetitions: where parents form a loop, a case still counts once in each place.
fn each_once(ordinals: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut once = Vec::new();
    for ordinal in ordinals {
        if !once.contains(&ordinal) {
            once.push(ordinal);
        }
    }
    once
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
                lineage: each_once(tree.lineage(place.code).map(|place| ordinal(place.code))),
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

    /// How many places there are at `level` and above it.
    fn count_to(&self, level: u8) -> u32 {
        self.places.iter().filter(|place| place.level <= level).count() as u32
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
