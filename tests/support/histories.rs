//! Random histories of invented, already coded cases.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use tonle::indicator::{Definition, InstanceDefinition, PackText, Plan};
use tonle::model::{
    Case, CaseBuilder, Code, Day, Dictionary, Domain, FieldType, Location, LocationTree,
    RecordChange, RecordKey, Schema,
};

/// The shipped packs, one over the other.
pub(crate) fn shipped_packs() -> Arc<Definition> {
    let texts = ["cp-core", "cambodia"].map(|id| PackText::shipped(id).unwrap());
    Arc::new(Definition::read(texts.to_vec()).unwrap())
}

/// Agencies that every invented country has, besides those of the packs.
const AGENCIES: [&str; 4] = ["unicef", "caritas", "mosvy", "friends"];

/// A pipeline's surroundings: some instances and a small country.
pub(crate) struct Country {
    pub(crate) definition: Arc<Definition>,
    pub(crate) dictionary: Dictionary,
    pub(crate) tree: LocationTree,
    pub(crate) instances: Vec<InstanceDefinition>,
    pub(crate) plan: Arc<Plan>,
    /// By `field` or `subform.field`: the ids that cases hold.
    ids: BTreeMap<String, Vec<String>>,
}

impl Country {
    pub(crate) fn new(definition: Arc<Definition>) -> Self {
        let instances =
            vec![InstanceDefinition::plain("kampot"), InstanceDefinition::plain("takeo")];
        Self::with(definition, instances).unwrap()
    }

    /// # Errors
    /// When the packs are too large for a plan.
    pub(crate) fn with(
        definition: Arc<Definition>,
        instances: Vec<InstanceDefinition>,
    ) -> tonle::error::Result<Self> {
        let mut dictionary = Dictionary::default();
        let mut tree = LocationTree::default();
        tree.extend([place(&mut dictionary, "KH", None, 0)]);
        for (code, parent, level) in [
            ("01", "KH", 1),
            ("02", "KH", 1),
            ("0101", "01", 2),
            ("0102", "01", 2),
            ("0201", "02", 2),
            ("010101", "0101", 3),
            ("020101", "0201", 3),
            ("020102", "0201", 3),
        ] {
            tree.extend([place(&mut dictionary, code, Some(parent), level)]);
        }
        for agency in AGENCIES {
            dictionary.intern(Domain::Agency, agency);
        }
        let ids = ids_of(&definition, &instances);
        ids.values().flatten().for_each(|id| {
            dictionary.intern(Domain::Option, id);
        });
        let plan = compiled(&definition, &instances, &tree, &mut dictionary)?;
        Ok(Self { plan, definition, dictionary, tree, instances, ids })
    }

    /// Moves a place under another parent, or adds one, and lays the packs out anew.
    pub(crate) fn relocate(&mut self, rng: &mut ChaCha8Rng) {
        let moves = [
            ("0102", "02", 2),
            ("0201", "01", 2),
            ("020102", "0101", 3),
            ("0202", "02", 2),
            ("010201", "0102", 3),
            // Nothing but its level.
            ("0102", "01", 3),
            // A loop: no place of it has a country any more.
            ("02", "020102", 1),
        ];
        let (code, parent, level) = *moves.choose(rng).unwrap();
        self.put_place(code, parent, level);
    }

    /// Puts a place under a parent, and lays the packs out anew.
    pub(crate) fn put_place(&mut self, code: &str, parent: &str, level: u8) {
        self.tree.extend([place(&mut self.dictionary, code, Some(parent), level)]);
        let dictionary = &mut self.dictionary;
        let plan = compiled(&self.definition, &self.instances, &self.tree, dictionary);
        self.plan = plan.unwrap();
    }

    /// An invented case: every field any of its values, dates in a window of three years.
    pub(crate) fn case(&mut self, rng: &mut ChaCha8Rng) -> Case {
        let schema = Arc::clone(self.plan.schema());
        let instance = self.instances.choose(rng).unwrap().name.clone();
        let instance = self.dictionary.code(Domain::Instance, &instance).unwrap();
        let mut builder = CaseBuilder::new(&schema, instance);
        for field in schema.fields() {
            let values = self.ids_of(&field.name);
            match field.name.as_str() {
                // Most cases pass the populations, or the figures would be empty.
                "record_state" => {
                    builder.put(field.slot, CaseBuilder::boolean(rng.random_bool(0.9)))
                }
                "module_id" => {
                    builder.put(field.slot, self.option(rng, Domain::Option, &values, 0.95))
                }
                _ => {
                    let times = if field.field_type.is_set() { rng.random_range(0..4) } else { 1 };
                    for _ in 0..times {
                        builder.put(field.slot, self.word(rng, field.field_type, &values));
                    }
                }
            }
        }
        self.add_rows(rng, &schema, &mut builder);
        builder.finish(&schema)
    }

    fn add_rows(&mut self, rng: &mut ChaCha8Rng, schema: &Schema, builder: &mut CaseBuilder) {
        for (index, subform) in schema.subforms().iter().enumerate() {
            for _ in 0..rng.random_range(0..4) {
                let words: Vec<_> = subform
                    .fields
                    .iter()
                    .map(|field| {
                        let values = self.ids_of(&format!("{}.{}", subform.name, field.name));
                        self.word(rng, field.field_type, &values)
                    })
                    .collect();
                builder.row(subform, index, RecordKey(rng.random()), &words);
            }
        }
    }

    fn word(&self, rng: &mut ChaCha8Rng, field_type: FieldType, values: &[String]) -> u32 {
        if rng.random_bool(0.15) {
            return 0;
        }
        match field_type {
            FieldType::Option | FieldType::Options => self.option(rng, Domain::Option, values, 0.9),
            FieldType::Agency => self.option(rng, Domain::Agency, values, 0.7),
            FieldType::Boolean => CaseBuilder::boolean(rng.random()),
            FieldType::Integer => CaseBuilder::integer(rng.random_range(-1..22)),
            FieldType::Date | FieldType::Dates | FieldType::Datetime | FieldType::FirstSeen => {
                self.day(rng).0
            }
            FieldType::Worker => rng.random_range(1..8),
            FieldType::BirthMonth => rng.random_range(1..1_500),
            // One code more than there are places: a place that is in no tree.
            FieldType::Location => rng.random_range(1..11),
        }
    }

    /// An id of the field, or now and then any other.
    fn option(&self, rng: &mut ChaCha8Rng, domain: Domain, values: &[String], known: f64) -> u32 {
        let value = values.choose(rng).filter(|_| rng.random_bool(known));
        let code = value.and_then(|value| self.dictionary.code(domain, value));
        let any = rng.random_range(1..=self.dictionary.code_count(domain).clamp(1, 5));
        code.unwrap_or(Code(any as u32)).0
    }

    /// Listed ids of a field and those that some instance writes instead.
    fn ids_of(&self, path: &str) -> Vec<String> {
        self.ids.get(path).cloned().unwrap_or_default()
    }

    /// A day in 2023 to 2025, now and then far off.
    pub(crate) fn day(&self, rng: &mut ChaCha8Rng) -> Day {
        match rng.random_range(0..40) {
            0 => Day::FIRST,
            1 => Day::LAST,
            2 => Day(rng.random_range(Day::FIRST.0..=Day::LAST.0)),
            _ => Day(FIRST_DAY.0 + rng.random_range(0..1_096)),
        }
    }
}

/// A place of the invented country.
fn place(dictionary: &mut Dictionary, code: &str, parent: Option<&str>, level: u8) -> Location {
    Location {
        code: dictionary.intern(Domain::Location, code).unwrap(),
        parent: parent.map(|code| dictionary.intern(Domain::Location, code).unwrap()),
        level,
        kind: String::new(),
        names: BTreeMap::new(),
    }
}

/// The plan; laid out twice where the packs name agencies that were not known.
fn compiled(
    definition: &Arc<Definition>,
    instances: &[InstanceDefinition],
    tree: &LocationTree,
    dictionary: &mut Dictionary,
) -> tonle::error::Result<Arc<Plan>> {
    loop {
        let plan = Plan::compile(Arc::clone(definition), instances, tree, dictionary)?;
        if !plan.lacks_agencies(dictionary) {
            return Ok(Arc::new(plan));
        }
    }
}

/// By field: the ids that cases hold, listed, of concepts, or an instance's own.
fn ids_of(
    definition: &Definition,
    instances: &[InstanceDefinition],
) -> BTreeMap<String, Vec<String>> {
    let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, field) in &definition.fields {
        ids.entry(name.clone()).or_default().extend(field.values.clone());
    }
    for (subform, fields) in &definition.subforms {
        for (name, field) in fields {
            ids.entry(format!("{subform}.{name}")).or_default().extend(field.values.clone());
        }
    }
    for (name, concept) in &definition.concepts {
        let of_field = ids.entry(concept.field.to_string()).or_default();
        of_field.extend(concept.ids.iter().chain(concept.instances.values().flatten()).cloned());
        let configured = instances.iter().filter_map(|instance| instance.concepts.get(name));
        of_field.extend(configured.flatten().cloned());
    }
    for (path, mapping) in instances.iter().flat_map(|instance| &instance.mappings) {
        ids.entry(path.clone()).or_default().extend(mapping.keys().cloned());
    }
    ids
}

/// 2023-01-01.
pub(crate) const FIRST_DAY: Day = Day(44_926);

/// Up to `most` changes of a small pool of records: new, edited, disabled by an edit, gone, back again.
pub(crate) fn changes(
    country: &mut Country,
    rng: &mut ChaCha8Rng,
    most: usize,
) -> Vec<RecordChange> {
    (0..rng.random_range(0..=most))
        .map(|_| RecordChange {
            key: RecordKey(u128::from(rng.random_range(0_u32..60)) << 117 | 1),
            case: rng.random_bool(0.85).then(|| country.case(rng)),
        })
        .collect()
}
