//! What the options of the fields that are read are called, from Primero's lookups and forms.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::places::{Texts, labels};
use crate::error::{Error, Kind, Result};
use crate::model::{FieldType, RecordType, Schema};

/// Most options of one field whose labels are kept.
const OPTIONS_MAX: usize = 10_000;

/// The options of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldLabels {
    /// Name of the field, `sub.field` for one of a subform.
    pub field: String,
    /// Each option id with its labels by language code.
    pub values: Vec<(String, BTreeMap<String, String>)>,
}

impl FieldLabels {
    /// What an option id of a field is called, if any of these says so.
    pub fn label<'a>(
        all: &'a [Self],
        field: &str,
        id: &str,
    ) -> Option<&'a BTreeMap<String, String>> {
        let values = all.iter().filter(|one| one.field == field).flat_map(|one| &one.values);
        values.filter(|(value, _)| value == id).map(|(_, labels)| labels).next()
    }
}

/// A page of lookups, or the list of forms.
#[derive(Deserialize)]
struct Reply<T> {
    data: Vec<T>,
}

#[derive(Deserialize)]
pub(super) struct Lookup {
    unique_id: String,
    #[serde(default)]
    values: Vec<OptionItem>,
}

#[derive(Clone, Deserialize)]
struct OptionItem {
    id: String,
    #[serde(default)]
    display_text: Texts,
}

#[derive(Deserialize)]
pub(super) struct Form {
    #[serde(default)]
    id: Option<i64>,
    unique_id: String,
    #[serde(default)]
    parent_form: Option<String>,
    #[serde(default)]
    is_nested: bool,
    #[serde(default)]
    fields: Vec<FormField>,
}

#[derive(Deserialize)]
struct FormField {
    name: String,
    #[serde(default)]
    option_strings_source: Option<String>,
    /// Older versions keep an object here; then the field has no labels.
    #[serde(default)]
    option_strings_text: serde_json::Value,
    #[serde(default)]
    subform_section_id: Option<i64>,
}

#[derive(Deserialize)]
pub(super) struct Agency {
    unique_id: String,
    #[serde(default)]
    name: Texts,
}

fn list<T: for<'de> Deserialize<'de>>(body: &[u8], what: &str) -> Result<Vec<T>> {
    let reply: Reply<T> = serde_json::from_slice(body).map_err(|_| {
        let doing = format!("reading the {what}: the reply is not a list of them");
        Error::new(Kind::Temporary, doing)
    })?;
    Ok(reply.data)
}

/// Lookups from a reply.
///
/// # Errors
/// A temporary error when the reply is no list of lookups.
pub(super) fn lookups(body: &[u8]) -> Result<Vec<Lookup>> {
    list(body, "lookups")
}

/// Forms from a reply.
///
/// # Errors
/// A temporary error when the reply is no list of forms.
pub(super) fn forms(body: &[u8]) -> Result<Vec<Form>> {
    list(body, "forms")
}

/// Agencies from a reply.
///
/// # Errors
/// A temporary error when the reply is no list of agencies.
pub(super) fn agencies(body: &[u8]) -> Result<Vec<Agency>> {
    list(body, "agencies")
}

/// The names of agencies, for every field of `schema` that holds one.
pub(super) fn of_agencies(schema: &Schema, agencies: Vec<Agency>) -> Vec<FieldLabels> {
    let named = agencies.into_iter().take(OPTIONS_MAX).map(|one| (one.unique_id, labels(one.name)));
    let values: Vec<_> = named.collect();
    if values.is_empty() {
        return Vec::new();
    }
    agency_fields(schema).map(|field| FieldLabels { field, values: values.clone() }).collect()
}

/// Names of the fields that hold an agency.
pub(super) fn agency_fields(schema: &Schema) -> impl Iterator<Item = String> {
    let is_agency = |field_type| field_type == FieldType::Agency;
    let fields = schema.fields().iter().filter(move |field| is_agency(field.field_type));
    let rows = schema.subforms().iter().flat_map(move |subform| {
        let fields = subform.fields.iter().filter(move |field| is_agency(field.field_type));
        fields.map(|field| format!("{}.{}", subform.name, field.name))
    });
    fields.map(|field| field.name.clone()).chain(rows)
}

/// The labels of every select field of `schema` that has any on a form of this type of record.
pub(super) fn of_schema(
    schema: &Schema,
    record_type: RecordType,
    lookups: Vec<Lookup>,
    forms: &[Form],
) -> Vec<FieldLabels> {
    let lookups: HashMap<_, _> =
        lookups.into_iter().map(|lookup| (lookup.unique_id, lookup.values)).collect();
    let select = |field_type| matches!(field_type, FieldType::Option | FieldType::Options);
    let mut found = Vec::new();
    for field in schema.fields().iter().filter(|field| select(field.field_type)) {
        let form_field = top_level(forms, record_type, &field.name);
        found.extend(form_field.and_then(|one| one.labels(&field.name, &lookups)));
    }
    for subform in schema.subforms() {
        let own = top_level(forms, record_type, &subform.name);
        let id = own.and_then(|field| field.subform_section_id);
        let is_it = |form: &&Form| match id {
            Some(_) => form.id == id,
            None => form.is_nested && form.unique_id == subform.name,
        };
        let Some(form) = forms.iter().find(is_it) else { continue };
        for field in subform.fields.iter().filter(|field| select(field.field_type)) {
            let form_field = form.fields.iter().find(|one| one.name == field.name);
            let name = format!("{}.{}", subform.name, field.name);
            found.extend(form_field.and_then(|one| one.labels(&name, &lookups)));
        }
    }
    found
}

/// The field called `name` on a form of this type of record. The same field may stand on several
/// forms, always with one shape.
fn top_level<'f>(forms: &'f [Form], of: RecordType, name: &str) -> Option<&'f FormField> {
    let is_its = |form: &&Form| !form.is_nested && form.parent_form.as_deref() == Some(of.id());
    forms.iter().filter(is_its).flat_map(|form| &form.fields).find(|field| field.name == name)
}

impl FormField {
    fn labels(
        &self,
        name: &str,
        lookups: &HashMap<String, Vec<OptionItem>>,
    ) -> Option<FieldLabels> {
        let source = self.option_strings_source.as_deref().unwrap_or_default();
        let own = || Vec::<OptionItem>::deserialize(&self.option_strings_text).ok();
        let items = match source.strip_prefix("lookup ") {
            Some(lookup) => lookups.get(lookup.trim()).cloned()?,
            None => own()?,
        };
        let items = items.into_iter().take(OPTIONS_MAX);
        let values: Vec<_> = items.map(|item| (item.id, labels(item.display_text))).collect();
        (!values.is_empty()).then(|| FieldLabels { field: name.to_owned(), values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::decode::tests::schema;

    #[test]
    fn labels_come_from_lookups_and_from_the_field_itself() {
        let lookups = lookups(
            br#"{"data":[{"unique_id":"lookup-service-type","values":[
            {"id":"food","display_text":{"en":"Food","km":""}}]}]}"#,
        );
        let forms = forms(
            br#"{"data":[
            {"id":5,"unique_id":"nested","parent_form":"case","is_nested":true,"fields":[
              {"name":"service_type","option_strings_source":"lookup lookup-service-type"}]},
            {"id":6,"unique_id":"services","parent_form":"case","fields":[
              {"name":"services_section","subform_section_id":5},
              {"name":"sex","option_strings_text":[{"id":"male","display_text":{"en":"Boy"}}]},
              {"name":"status","option_strings_text":{"en":["odd"]}},
              {"name":"age"}]}]}"#,
        );
        let (lookups, forms) = (lookups.unwrap(), forms.unwrap());
        let found = of_schema(&schema(), RecordType::Case, lookups, &forms);
        let seen: Vec<_> = found
            .iter()
            .map(|one| (one.field.as_str(), one.values[0].0.as_str(), one.values[0].1.len()))
            .collect();
        assert_eq!(seen, [("sex", "male", 1), ("services_section.service_type", "food", 1)]);
    }

    fn recorded(exchange: &str) -> Vec<u8> {
        let exchange: serde_json::Value = serde_json::from_str(exchange).unwrap();
        exchange["body"].to_string().into_bytes()
    }

    #[test]
    fn the_recorded_forms_name_their_options() {
        let lookups = recorded(include_str!("../../tests/data/recordings/lookups-selected.json"));
        let forms = recorded(include_str!("../../tests/data/recordings/forms-case.json"));
        let (lookups, forms) = (super::lookups(&lookups).unwrap(), super::forms(&forms).unwrap());
        let found = of_schema(&schema(), RecordType::Case, lookups, &forms);
        let label = |field: &str, id: &str| {
            let field = found.iter().find(|one| one.field == field).unwrap();
            field.values.iter().find(|(value, _)| value == id).unwrap().1["en"].clone()
        };
        assert_eq!(label("risk_level", "high"), "High");
        assert_eq!(label("services_section.service_type", "food_service"), "Food Service");
    }

    #[test]
    fn the_recorded_agencies_are_the_values_of_agency_fields() {
        let agencies = recorded(include_str!("../../tests/data/recordings/agencies.json"));
        let found = of_agencies(&schema(), super::agencies(&agencies).unwrap());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].field, "owned_by_agency_id");
        let (id, label) = &found[0].values[1];
        assert_eq!(
            (id.as_str(), label["en"].as_str(), label.len()),
            ("agency-alpha", "Alpha Relief", 1)
        );
        assert!(of_agencies(&schema(), Vec::new()).is_empty());
    }
}
