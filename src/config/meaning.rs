//! What the option ids of one instance mean, as its section says and the packs allow.

use std::collections::BTreeMap;

use toml::{Spanned, Value};

use super::Checker;
use crate::error::{Error, Result};
use crate::indicator::{Definition, FieldDefinition, InstanceDefinition, nearest};
use crate::model::FieldType;
use crate::source::{RawConcepts, RawMappings};

/// What an instance says of its option ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Meaning {
    /// By field (`field` or `subform.field`): the id of the packs that stands in place of one of its own.
    mappings: BTreeMap<String, BTreeMap<String, String>>,
    /// By name of a concept: the ids that it means here.
    concepts: BTreeMap<String, Vec<String>>,
}

impl Meaning {
    /// Adds it to what else is said of the instance.
    pub(super) fn put(&self, into: &mut InstanceDefinition) {
        into.mappings.clone_from(&self.mappings);
        into.concepts.clone_from(&self.concepts);
    }
}

/// Names of the concepts that packs declare.
fn concepts_of(packs: &Definition) -> impl Iterator<Item = &str> {
    packs.concepts.keys().map(String::as_str)
}

impl Checker<'_> {
    /// Checks what the instance called `name` says.
    ///
    /// # Errors
    /// A configuration error with line and key, and the nearest name where a field or concept does not exist.
    pub(super) fn meaning(
        &self,
        name: &str,
        mappings: &RawMappings,
        concepts: &RawConcepts,
        definition: &Definition,
    ) -> Result<Meaning> {
        let mut meaning = Meaning::default();
        for (field, ids) in mappings {
            for (path, at, ids) in by_field(field, ids) {
                let key = format!("instances.{name}.mappings.{path}");
                let place = |wrong: String| self.at(at, &key, Error::config(wrong));
                let ids = ids.ok_or_else(|| place("expected { own_id = \"pack_id\" }".into()))?;
                check(&path, &ids, definition).map_err(place)?;
                meaning.mappings.entry(path).or_default().extend(ids);
            }
        }
        for (concept, ids) in concepts {
            let known: Vec<_> = concepts_of(definition).collect();
            if !known.contains(&concept.as_str()) {
                let key = format!("instances.{name}.concepts.{concept}");
                let wrong = unknown("concept", concept, known.into_iter());
                return Err(self.at(ids, &key, Error::config(wrong)));
            }
            meaning.concepts.insert(concept.clone(), ids.get_ref().clone());
        }
        Ok(meaning)
    }
}

/// A field, where it is written, and its ids if they are such.
type Mapped<'a> = (String, &'a Spanned<Value>, Option<BTreeMap<String, String>>);

/// `mappings.field` holds ids, `mappings.subform` fields that do.
fn by_field<'a>(
    name: &'a str,
    inner: &'a Spanned<BTreeMap<String, Spanned<Value>>>,
) -> impl Iterator<Item = Mapped<'a>> {
    inner.get_ref().iter().map(move |(key, value)| match value.get_ref() {
        Value::String(id) => {
            (name.to_owned(), value, Some(BTreeMap::from([(key.clone(), id.clone())])))
        }
        Value::Table(ids) => {
            let text = |id: &Value| id.as_str().map(str::to_owned);
            let ids = ids.iter().map(|(own, id)| Some((own.clone(), text(id)?))).collect();
            (format!("{name}.{key}"), value, ids)
        }
        _ => (name.to_owned(), value, None),
    })
}

/// What is wrong with the mapping of a field, if anything.
fn check(path: &str, ids: &BTreeMap<String, String>, packs: &Definition) -> Result<(), String> {
    let field = field_of(path, packs)?;
    if !matches!(field.field_type, FieldType::Option | FieldType::Options | FieldType::Agency) {
        return Err("only option ids and agencies can be mapped".into());
    }
    let known = || field.values.iter().map(String::as_str);
    match ids.values().find(|id| !field.values.is_empty() && !field.values.contains(id)) {
        Some(id) => Err(unknown("value", id, known())),
        None => Ok(()),
    }
}

fn field_of<'a>(path: &str, packs: &'a Definition) -> Result<&'a FieldDefinition, String> {
    let (fields, name) = match path.split_once('.') {
        None => (&packs.fields, path),
        Some((subform, name)) => {
            let subforms = packs.subforms.keys().map(String::as_str);
            let fields = packs.subforms.get(subform);
            (fields.ok_or_else(|| unknown("subform", subform, subforms))?, name)
        }
    };
    let known = || fields.keys().map(String::as_str);
    fields.get(name).ok_or_else(|| unknown("field", name, known()))
}

fn unknown<'a>(what: &str, name: &str, valid: impl Iterator<Item = &'a str>) -> String {
    let near = nearest(name, valid);
    let hint = near.map_or(String::new(), |known| format!("; the nearest is {known:?}"));
    format!("the packs have no {what} {name:?}{hint}")
}
