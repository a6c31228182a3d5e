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

/// A pipeline's surroundings: two instances and a small country.
pub(crate) struct Country {
    pub(crate) definition: Arc<Definition>,
    pub(crate) dictionary: Dictionary,
    pub(crate) tree: LocationTree,
    pub(crate) instances: Vec<InstanceDefinition>,
    pub(crate) plan: Arc<Plan>,
}

impl Country {
    pub(crate) fn new(definition: Arc<Definition>) -> Self {
        let mut dictionary = Dictionary::default();
        let mut tree = LocationTree::default();
        let place =
            |dictionary: &mut Dictionary, code: &str, parent: Option<&str>, level| Location {
                code: dictionary.intern(Domain::Location, code).unwrap(),
                parent: parent.map(|code| dictionary.intern(Domain::Location, code).unwrap()),
                level,
                kind: String::new(),
                names: BTreeMap::new(),
            };
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
        let instances =
            vec![InstanceDefinition::plain("kampot"), InstanceDefinition::plain("takeo")];
        let plan =
            Plan::compile(Arc::clone(&definition), &instances, &tree, &mut dictionary).unwrap();
        Self { plan: Arc::new(plan), definition, dictionary, tree, instances }
    }

    /// An invented case: every field any of its values, dates in a window of three years.
    pub(crate) fn case(&mut self, rng: &mut ChaCha8Rng) -> Case {
        let schema = Arc::clone(self.plan.schema());
        let instance = self.instances.choose(rng).unwrap().name.clone();
        let instance = self.dictionary.code(Domain::Instance, &instance).unwrap();
        let mut builder = CaseBuilder::new(&schema, instance);
        for field in schema.fields() {
            let values = &self.definition.fields[&field.name].values;
            match field.name.as_str() {
                // Most cases pass the populations, or the figures would be empty.
                "record_state" => {
                    builder.put(field.slot, CaseBuilder::boolean(rng.random_bool(0.9)))
                }
                "module_id" => builder.put(field.slot, self.option(rng, values, 0.95)),
                _ => {
                    let times = if field.field_type.is_set() { rng.random_range(0..4) } else { 1 };
                    for _ in 0..times {
                        builder.put(field.slot, self.word(rng, field.field_type, values));
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
                        let values = &self.definition.subforms[&subform.name][&field.name].values;
                        self.word(rng, field.field_type, values)
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
            FieldType::Option | FieldType::Options | FieldType::Agency => {
                self.option(rng, values, 0.9)
            }
            FieldType::Boolean => CaseBuilder::boolean(rng.random()),
            FieldType::Integer => CaseBuilder::integer(rng.random_range(-1..22)),
            FieldType::Date | FieldType::Dates | FieldType::Datetime => self.day(rng).0,
            FieldType::Worker => rng.random_range(1..8),
            FieldType::BirthMonth => rng.random_range(1..1_500),
            // One code more than there are places: a place that is in no tree.
            FieldType::Location => rng.random_range(1..11),
        }
    }

    fn option(&self, rng: &mut ChaCha8Rng, values: &[String], known: f64) -> u32 {
        let value = values.choose(rng).filter(|_| rng.random_bool(known));
        let code = value.and_then(|value| self.dictionary.code(Domain::Option, value));
        code.unwrap_or(Code(1)).0
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
