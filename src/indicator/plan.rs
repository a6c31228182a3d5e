//! The plan: a definition laid out for speed and bound to the places and instances of one pipeline.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::error::Result;
use crate::indicator::check::Check;
use crate::indicator::dimension::{Dimension, Places};
use crate::indicator::extract::ExtractPlan;
use crate::indicator::lifecycle::LifecycleSlots;
use crate::indicator::table::{Family, Table, tabulate};
use crate::indicator::{
    Catalog, Count, Definition, Fingerprint, InstanceDefinition, Path, Placed, Test,
};
use crate::model::{
    Code, Day, Dictionary, Domain, Field, FieldType, INSTANCES_MAX, LocationTree, PeriodType,
    RowField, Schema, Slot, Subform,
};

/// Everything the dataflow and the sink need to know of a pack. Immutable; a changed pack, tree or list of
/// instances is another plan.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) definition: Arc<Definition>,
    pub(super) schema: Arc<Schema>,
    pub(super) catalog: Catalog,
    pub(super) instances: Vec<(Code, String)>,
    /// By instance code: the number in a cell; 0 for an instance that is not configured.
    pub(super) instance_numbers: Vec<u8>,
    pub(super) places: Places,
    pub(super) dimensions: Vec<Dimension>,
    pub(super) lifecycle: Option<LifecycleSlots>,
    /// The word of `record_state`, if the pack reads it.
    pub(super) record_state: Option<u16>,
    pub(super) indicators: Vec<Indicator>,
    pub(super) families: Vec<Family>,
    pub(super) tables: Vec<Table>,
    pub(super) extracts: Vec<ExtractPlan>,
}

/// An indicator, compiled.
#[derive(Clone, Debug)]
pub(super) struct Indicator {
    pub(super) code: String,
    pub(super) filter: Vec<Check>,
    pub(super) rows: Vec<Check>,
    /// The subform whose rows are counted.
    pub(super) subform: Option<usize>,
    /// Whether a case counts once however many rows it has.
    pub(super) distinct: bool,
    pub(super) placed: PlacedAt,
    pub(super) periods: Vec<PeriodType>,
    pub(super) is_share: bool,
    /// Its families, as a range of [`Plan::families`].
    pub(super) families: std::ops::Range<usize>,
}

/// What places an indicator in a period, compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlacedAt {
    /// By a word of the case.
    Case(u16),
    /// By a word of the row.
    Row(usize),
    Presence,
    Stock,
    Now,
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
        if instances.len() > INSTANCES_MAX {
            let what = format!("{} instances, at most {INSTANCES_MAX} fit", instances.len());
            return Err(super::resolve::too_large(&what, "run a second pipeline for the rest"));
        }
        let meanings = hash(format_args!("{instances:?}"));
        let instances: Vec<_> = instances
            .iter()
            .filter_map(|instance| {
                let code = dictionary.intern(Domain::Instance, &instance.name)?;
                Some((code, instance.name.clone()))
            })
            .collect();
        let schema = Arc::new(schema_of(&definition));
        let places = Places::new(tree, dictionary);
        let dimensions: Vec<_> = definition
            .dimensions
            .iter()
            .map(|(name, dimension)| {
                let slot = slot_of(&schema, &dimension.from);
                Dimension::new(name, dimension, slot, dictionary, &places)
            })
            .collect();
        let mut plan = Self {
            record_state: record_state_of(&schema),
            lifecycle: lifecycle_of(&definition, &schema, dictionary),
            catalog: Catalog::default(),
            instance_numbers: instance_numbers(&instances),
            indicators: Vec::new(),
            families: Vec::new(),
            tables: Vec::new(),
            extracts: Vec::new(),
            definition,
            schema,
            instances,
            places,
            dimensions,
        };
        plan.lay_out_indicators(dictionary)?;
        plan.lay_out_extracts(dictionary);
        plan.catalog = super::naming::catalog_of(&plan, plan.fingerprint(meanings));
        Ok(plan)
    }

    fn lay_out_indicators(&mut self, dictionary: &mut Dictionary) -> Result<()> {
        let definition = Arc::clone(&self.definition);
        for (code, indicator) in &definition.indicators {
            let (subform, distinct) = match &indicator.count {
                Count::Cases => (None, false),
                Count::Rows(name) => (self.schema.subform(name), false),
                Count::CasesWith(name) => (self.schema.subform(name), true),
            };
            let families_start = self.families.len();
            tabulate(self, code, indicator, distinct)?;
            self.indicators.push(Indicator {
                code: code.clone(),
                filter: checks(&self.schema, None, &indicator.filter, dictionary),
                rows: checks(&self.schema, subform, &indicator.rows, dictionary),
                subform,
                distinct,
                placed: self.placed(&indicator.placed),
                periods: match indicator.placed {
                    Placed::Now => vec![PeriodType::Now],
                    _ => indicator.periods.clone(),
                },
                is_share: indicator.share_over.is_some(),
                families: families_start..self.families.len(),
            });
        }
        Ok(())
    }

    fn placed(&self, placed: &Placed) -> PlacedAt {
        match placed {
            Placed::Flow(path) => match (slot_of(&self.schema, path), &path.subform) {
                (Slot::Word(word), None) => PlacedAt::Case(word),
                (Slot::Word(word), Some(_)) => PlacedAt::Row(usize::from(word)),
                (Slot::Set(_), _) => unreachable!("a date is kept in a word"),
            },
            Placed::Presence => PlacedAt::Presence,
            Placed::Stock => PlacedAt::Stock,
            Placed::Now => PlacedAt::Now,
        }
    }

    fn lay_out_extracts(&mut self, dictionary: &mut Dictionary) {
        let definition = Arc::clone(&self.definition);
        for extract in definition.extracts.values() {
            let compiled = ExtractPlan::new(extract, &self.schema, &self.dimensions, dictionary);
            self.extracts.push(compiled);
        }
    }

    /// Changes whenever anything that decides a row changes: packs, instances or places.
    fn fingerprint(&self, instances: u64) -> Fingerprint {
        let places = self.places.places.iter().map(|place| {
            let lineage = place.lineage.iter().map(|ordinal| (ordinal - 2) as usize);
            lineage.map(|index| &self.places.places[index].code).collect::<Vec<_>>()
        });
        let places = hash(format_args!("{:?}", places.collect::<Vec<_>>()));
        Fingerprint { packs: hash(format_args!("{:?}", self.definition)), instances, places }
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

    /// The configured instances.
    pub fn instances(&self) -> &[(Code, String)] {
        &self.instances
    }

    /// Periods that begin before this day are not published.
    pub fn history_start(&self) -> Day {
        self.definition.history_start
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

/// Compiles conditions on a case, or on the rows of `subform`.
pub(super) fn checks(
    schema: &Schema,
    subform: Option<usize>,
    tests: &[(String, Test)],
    dictionary: &mut Dictionary,
) -> Vec<Check> {
    let subform = subform.map(|index| schema.subforms()[index].name.clone());
    tests
        .iter()
        .map(|(field, test)| {
            let path = Path { subform: subform.clone(), field: field.clone() };
            let slot = slot_of(schema, &path);
            Check::new(slot, test, dictionary)
        })
        .collect()
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

fn instance_numbers(instances: &[(Code, String)]) -> Vec<u8> {
    let length = instances.iter().map(|(code, _)| code.0 as usize + 1).max().unwrap_or(0);
    let mut numbers = vec![0; length];
    for (index, (code, _)) in instances.iter().enumerate() {
        numbers[code.0 as usize] = u8::try_from(index + 1).expect("INSTANCES_MAX fits");
    }
    numbers
}
