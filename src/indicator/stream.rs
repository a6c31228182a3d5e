//! The streams of records: which name each is published under, and what its own option ids stand for.

use std::collections::HashMap;

use crate::error::Result;
use crate::indicator::plan::Compiler;
use crate::indicator::resolve::too_large;
use crate::indicator::{InstanceDefinition, Path};
use crate::model::{
    Case, CaseBuilder, Code, Domain, FieldType, INSTANCES_MAX, Schema, Slot, Subform,
};

/// Most streams: the cases and the incidents of each instance.
const STREAMS_MAX: usize = 2 * INSTANCES_MAX;

/// One stream, compiled.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// The number of its instance in cells.
    pub(super) number: u8,
    /// The month in which its fiscal year begins, 1 to 12.
    pub(super) fiscal_start: u8,
    /// What its own ids stand for; empty when they are those of the packs.
    mappings: Vec<Mapping>,
}

/// What the codes of one field stand for.
#[derive(Clone, Debug)]
struct Mapping {
    /// The subform, for a field of its rows.
    subform: Option<usize>,
    slot: Slot,
    codes: HashMap<u32, u32>,
}

/// Codes, streams and published names.
type Streams = (Vec<(Code, String)>, Vec<Stream>, Vec<String>);

/// Compiles what is said of the instances.
pub(super) fn streams_of(compiler: &mut Compiler<'_>) -> Result<Streams> {
    let (mut codes, mut streams, mut published) = (Vec::new(), Vec::new(), Vec::<String>::new());
    let instances = compiler.instances;
    for instance in instances {
        let Some(code) = compiler.dictionary.intern(Domain::Instance, &instance.name) else {
            continue;
        };
        let known = published.iter().position(|name| *name == instance.published_as);
        let index = known.unwrap_or_else(|| {
            published.push(instance.published_as.clone());
            published.len() - 1
        });
        let number = u8::try_from(index + 1).ok().filter(|_| codes.len() < STREAMS_MAX);
        let Some(number) = number else {
            let what = format!("{} instances, at most {INSTANCES_MAX} fit", instances.len());
            return Err(too_large(&what, "run a second pipeline for the rest"));
        };
        codes.push((code, instance.name.clone()));
        streams.push(Stream {
            number,
            fiscal_start: instance.fiscal_year_start,
            mappings: mappings_of(compiler, instance),
        });
    }
    Ok((codes, streams, published))
}

/// Mappings of fields that the packs read as options or agencies; the configuration checks that there are no others.
fn mappings_of(compiler: &mut Compiler<'_>, instance: &InstanceDefinition) -> Vec<Mapping> {
    let mut mappings = Vec::new();
    for (name, ids) in &instance.mappings {
        let path = Path::parse(name);
        let Some((subform, slot, field_type)) = found(compiler.schema, &path) else { continue };
        let domain = match field_type {
            FieldType::Option | FieldType::Options => Domain::Option,
            FieldType::Agency => Domain::Agency,
            _ => continue,
        };
        let mut codes = HashMap::new();
        for (own, meant) in ids {
            let own = compiler.dictionary.intern(domain, own);
            let meant = compiler.dictionary.intern(domain, meant);
            codes.extend(own.zip(meant).map(|(own, meant)| (own.0, meant.0)));
        }
        mappings.push(Mapping { subform, slot, codes });
    }
    mappings
}

fn found(schema: &Schema, path: &Path) -> Option<(Option<usize>, Slot, FieldType)> {
    let Some(name) = &path.subform else {
        let field = schema.field(&path.field)?;
        return Some((None, field.slot, field.field_type));
    };
    let index = schema.subform(name)?;
    let subform = &schema.subforms()[index];
    let field = subform.field(&path.field)?;
    let word = u16::try_from(Subform::KEY_WORDS + field).ok()?;
    Some((Some(index), Slot::Word(word), subform.fields[field].field_type))
}

impl Stream {
    /// The case in the ids of the packs; none when it needs no translation.
    pub(super) fn translated(&self, case: &Case, schema: &Schema) -> Option<Case> {
        if self.mappings.is_empty() {
            return None;
        }
        let meant = |subform: Option<usize>, slot: Slot, word: u32| {
            let of = self.mappings.iter().find(|m| m.subform == subform && m.slot == slot);
            of.and_then(|mapping| mapping.codes.get(&word).copied()).unwrap_or(word)
        };
        let mut builder = CaseBuilder::new(schema, case.instance());
        for field in schema.fields() {
            match field.slot {
                Slot::Word(word) => {
                    builder.put(field.slot, meant(None, field.slot, case.word(word)));
                }
                Slot::Set(set) => {
                    for word in case.set(schema, set) {
                        builder.put(field.slot, meant(None, field.slot, *word));
                    }
                }
            }
        }
        for (index, subform) in schema.subforms().iter().enumerate() {
            for row in case.rows(schema, index) {
                let words = row.iter().enumerate().skip(Subform::KEY_WORDS);
                let words: Vec<_> = words
                    .map(|(at, word)| {
                        let slot = Slot::Word(u16::try_from(at).unwrap_or(u16::MAX));
                        meant(Some(index), slot, *word)
                    })
                    .collect();
                builder.row(subform, index, Case::row_key(row), &words);
            }
        }
        Some(builder.finish(schema))
    }
}
