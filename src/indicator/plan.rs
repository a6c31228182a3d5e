//! The plan: a definition laid out for speed and bound to the places and instances of one pipeline.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::error::Result;
use crate::indicator::alarm::Alarms;
use crate::indicator::check::Check;
use crate::indicator::dimension::{Dimension, Places};
use crate::indicator::extract::ExtractPlan;
use crate::indicator::lifecycle::LifecycleSlots;
use crate::indicator::part::{Indicator, Placing};
use crate::indicator::stream::{Stream, streams_of};
use crate::indicator::table::{Family, Table};
use crate::indicator::value::ValuePlan;
use crate::indicator::{Catalog, Definition, Fingerprint, InstanceDefinition, Path};
use crate::model::{
    Basis, Case, Code, Day, Dictionary, Domain, Field, FieldType, LocationTree, RowField, Schema,
    Slot, Subform,
};

/// Everything the dataflow and the sink need to know of a pack. Immutable; a changed pack, tree or list of
/// instances is another plan.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) definition: Arc<Definition>,
    pub(super) schema: Arc<Schema>,
    pub(super) catalog: Catalog,
    /// The streams of records, each with its code.
    instances: Vec<(Code, String)>,
    /// What is known of each stream, in the same order.
    pub(super) streams: Vec<Stream>,
    /// By instance code: index of its stream.
    stream_indices: Vec<Option<u16>>,
    /// The names that streams are published under; the number in a cell is one more than the index.
    pub(super) published: Vec<String>,
    pub(super) places: Places,
    pub(super) values: Vec<ValuePlan>,
    pub(super) dimensions: Vec<Dimension>,
    pub(super) lifecycle: Option<LifecycleSlots>,
    /// The word of `record_state`, if the pack reads it.
    record_state: Option<u16>,
    /// Conditions on a case that no event decides, each once, however many indicators share it.
    pub(super) checks: Vec<Check>,
    /// What places cases in periods, each way once, however many indicators share it.
    pub(super) placings: Vec<Placing>,
    pub(super) indicators: Vec<Indicator>,
    pub(super) families: Vec<Family>,
    pub(super) tables: Vec<Table>,
    pub(super) extracts: Vec<ExtractPlan>,
    pub(super) alarms: Alarms,
    /// How many agencies were known, if a dimension takes any that is.
    agencies_known: Option<usize>,
}

/// What everything is compiled from.
pub(super) struct Compiler<'a> {
    pub(super) definition: &'a Definition,
    pub(super) schema: &'a Schema,
    pub(super) dictionary: &'a mut Dictionary,
    pub(super) instances: &'a [InstanceDefinition],
}

impl Compiler<'_> {
    /// The codes of ids; they are made if they have none.
    pub(super) fn codes(&mut self, domain: Domain, ids: &[String]) -> Vec<u32> {
        ids.iter().filter_map(|id| self.dictionary.intern(domain, id)).map(|code| code.0).collect()
    }

    /// The codes of the ids of concepts, for each stream.
    pub(super) fn concepts(&mut self, names: &[String]) -> Vec<Vec<u32>> {
        let (definition, instances) = (self.definition, self.instances);
        let ids_at = |instance| -> Vec<String> {
            let ids = names.iter().flat_map(|name| definition.concept_ids(name, instance));
            ids.cloned().collect()
        };
        instances.iter().map(|instance| self.codes(Domain::Option, &ids_at(instance))).collect()
    }

    /// The index of a value.
    pub(super) fn value(&self, name: &str) -> usize {
        let found = self.definition.values.keys().position(|known| known == name);
        found.expect("the resolver checked the names")
    }
}

impl Plan {
    /// Lays out `definition` for these places and instances.
    ///
    /// The ids that the pack names are added to the dictionary, so the same history of packs gives the same codes.
    ///
    /// # Errors
    /// A configuration error when the pack is too large for its cells.
    pub fn compile(
        definition: Arc<Definition>,
        instances: &[InstanceDefinition],
        tree: &LocationTree,
        dictionary: &mut Dictionary,
    ) -> Result<Self> {
        let schema = Arc::new(schema_of(&definition));
        let lifecycle = lifecycle_of(&definition, &schema, dictionary);
        let mut compiler =
            Compiler { definition: &definition, schema: &schema, dictionary, instances };
        let (codes, streams, published) = streams_of(&mut compiler)?;
        let places = Places::new(tree, compiler.dictionary);
        let dimensions = definition.dimensions.iter();
        let dimensions: Vec<_> = dimensions
            .map(|(name, dimension)| compiler.dimension(name, dimension, &places))
            .collect();
        let values = definition.values.values();
        let mut plan = Self {
            record_state: record_state_of(&schema),
            values: values.map(|v| ValuePlan::new(v, &schema, lifecycle.as_ref())).collect(),
            lifecycle,
            catalog: Catalog::default(),
            stream_indices: indices_of(&codes),
            instances: codes,
            streams,
            published,
            checks: Vec::new(),
            placings: Vec::new(),
            indicators: Vec::new(),
            families: Vec::new(),
            tables: Vec::new(),
            extracts: Vec::new(),
            alarms: Alarms::default(),
            agencies_known: agencies_known(&definition, compiler.dictionary),
            definition: Arc::clone(&definition),
            schema: Arc::clone(&schema),
            places,
            dimensions,
        };
        plan.lay_out_indicators(&mut compiler)?;
        for extract in definition.extracts.values() {
            let compiled = ExtractPlan::new(extract, &mut compiler, &plan.dimensions);
            plan.extracts.push(compiled);
        }
        plan.alarms = Alarms::of(&plan);
        plan.catalog = super::naming::catalog_of(&plan, plan.fingerprint(instances));
        Ok(plan)
    }

    /// Changes whenever anything that decides a row changes: packs, instances or places.
    fn fingerprint(&self, instances: &[InstanceDefinition]) -> Fingerprint {
        let places = self.places.places.iter().map(|place| {
            let lineage = place.lineage.iter().map(|ordinal| (ordinal - 2) as usize);
            let lineage: Vec<_> = lineage.map(|index| &self.places.places[index].code).collect();
            (place.level, lineage)
        });
        let agencies = self.agencies_known.map(|_| &self.dimensions);
        let agencies = agencies.into_iter().flatten().map(|dimension| dimension.size);
        Fingerprint {
            packs: hash(format_args!("{:?}", self.definition)),
            instances: hash(format_args!("{instances:?}")),
            places: hash(format_args!("{:?}", places.collect::<Vec<_>>())),
            agencies: hash(format_args!("{:?}", agencies.collect::<Vec<_>>())),
        }
    }

    /// What decides the contributions of a record besides the record and the day.
    pub fn basis(&self) -> Basis {
        let Fingerprint { packs, instances, places, agencies } = self.catalog.fingerprint;
        // Another program may judge differently.
        let sources = env!("TONLE_SOURCES").parse().expect("the build makes it a number");
        Basis([sources, packs, instances, places, agencies])
    }

    /// The pack as meant.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// How a case is laid out.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// What is published.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The configured streams of records.
    pub fn instances(&self) -> &[(Code, String)] {
        &self.instances
    }

    /// Periods that begin before this day are not published.
    pub fn history_start(&self) -> Day {
        self.definition.history_start
    }

    /// Whether agencies were met that have no value of their own yet: then the plan is to be compiled anew.
    pub fn lacks_agencies(&self, dictionary: &Dictionary) -> bool {
        let known = self.agencies_known.unwrap_or(usize::MAX);
        known < super::dimension::AGENCIES_MAX && dictionary.code_count(Domain::Agency) > known
    }

    /// Whether `case` says of itself that it is disabled.
    pub fn is_disabled(&self, case: &Case) -> bool {
        let state = self.record_state.map(|word| case.word(word));
        state.and_then(Case::boolean) == Some(false)
    }

    /// The index of the stream that a case came from, if it is configured.
    pub(super) fn stream_of(&self, case: &Case) -> Option<usize> {
        self.stream_indices.get(case.instance().0 as usize).copied().flatten().map(usize::from)
    }
}

/// The same for the same text on any machine.
fn hash(text: fmt::Arguments<'_>) -> u64 {
    let digest = Sha256::digest(text.to_string());
    u64::from_be_bytes(*digest.first_chunk().expect("SHA-256 has 32 bytes"))
}

/// The layout of cases for a definition.
pub fn schema_of(definition: &Definition) -> Schema {
    let fields = definition.fields.iter().map(|(name, field)| (name.clone(), field.field_type));
    let subforms = definition.subforms.iter().map(|(name, fields)| Subform {
        name: name.clone(),
        fields: fields
            .iter()
            .map(|(name, field)| RowField { name: name.clone(), field_type: field.field_type })
            .collect(),
    });
    Schema::new(fields, subforms.collect())
}

/// Where a field is kept: a slot of the case, or the word within a row.
pub(super) fn slot_of(schema: &Schema, path: &Path) -> Slot {
    match &path.subform {
        None => schema.field(&path.field).expect("paths were resolved").slot,
        Some(name) => {
            let subform = &schema.subforms()[schema.subform(name).expect("paths were resolved")];
            let index = subform.field(&path.field).expect("paths were resolved");
            Slot::Word(u16::try_from(Subform::KEY_WORDS + index).expect("packs are bounded"))
        }
    }
}

fn lifecycle_of(
    definition: &Definition,
    schema: &Schema,
    dictionary: &mut Dictionary,
) -> Option<LifecycleSlots> {
    let lifecycle = definition.lifecycle.as_ref()?;
    let word = |field: &str| match slot_of(schema, &Path { subform: None, field: field.into() }) {
        Slot::Word(word) => word,
        Slot::Set(_) => unreachable!("dates and a status are kept in words"),
    };
    let codes = lifecycle.closed_when.iter().filter_map(|id| dictionary.intern(Domain::Option, id));
    Some(LifecycleSlots {
        opened: word(&lifecycle.opened),
        closed: word(&lifecycle.closed),
        status: word(&lifecycle.status),
        closed_when: codes.map(|code| code.0).collect(),
        reopened: lifecycle.reopened.as_ref().and_then(|path| {
            let Slot::Word(word) = slot_of(schema, path) else { return None };
            Some((schema.subform(path.subform.as_ref()?)?, usize::from(word)))
        }),
    })
}

fn record_state_of(schema: &Schema) -> Option<u16> {
    match schema.field("record_state")? {
        Field { field_type: FieldType::Boolean, slot: Slot::Word(word), .. } => Some(*word),
        _ => None,
    }
}

fn indices_of(instances: &[(Code, String)]) -> Vec<Option<u16>> {
    let length = instances.iter().map(|(code, _)| code.0 as usize + 1).max().unwrap_or(0);
    let mut indices = vec![None; length];
    for (index, (code, _)) in instances.iter().enumerate() {
        indices[code.0 as usize] = u16::try_from(index).ok();
    }
    indices
}

/// How many agencies are known, if a dimension takes any that is.
fn agencies_known(definition: &Definition, dictionary: &Dictionary) -> Option<usize> {
    use crate::indicator::DimensionKind;
    let takes_any =
        |kind: &DimensionKind| matches!(kind, DimensionKind::Agency(values) if values.is_empty());
    let any = definition.dimensions.values().any(|dimension| takes_any(&dimension.kind));
    any.then(|| dictionary.code_count(Domain::Agency))
}
