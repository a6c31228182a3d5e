//! The configuration a client may read: lookups, forms, settings.

use serde_json::{Value, json};

use super::schema::{self, Field, Form};
use super::words;

/// When the configuration was made.
const MADE_AT: &str = "2024-01-15T02:00:00.000Z";
/// Ids of fields of incidents are greater: more than the fields of cases.
const FIELDS_OF_CASES: usize = 1_000;

/// All lookups, in the order of their database ids.
pub(super) fn lookups() -> Vec<Value> {
    let lookup = |(at, (unique_id, name, options)): (usize, &(&str, &str, &[&str]))| {
        let values: Vec<Value> = options
            .iter()
            .map(|id| json!({"id": id, "display_text": {"en": label(id), "km": ""}}))
            .collect();
        json!({
            "id": at + 1, "unique_id": unique_id, "name": {"en": name, "km": ""},
            "locked": *unique_id == "lookup-case-status", "values": values,
        })
    };
    words::LOOKUPS.iter().enumerate().map(lookup).collect()
}

/// Labels that do not follow from the id.
const LABELS: [(&str, &str); 5] = [
    ("parent_s", "Parent(s)"),
    ("kinship_care_extended_family", "Kinship care / extended family"),
    ("customary_caregiver_s", "Customary caregiver(s)"),
    ("caafag", "CAAFAG"),
    ("after_reunification", "Follow up After Reunification"),
];

/// `physically_or_mentally_abused` → `Physically or mentally abused`; a trailing number is dropped.
fn label(id: &str) -> String {
    if let Some((_, label)) = LABELS.iter().find(|(known, _)| *known == id) {
        return (*label).to_owned();
    }
    let words: Vec<&str> = id.split('_').filter(|word| word.parse::<u32>().is_err()).collect();
    let mut text = words.join(" ");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// The forms of a type of record, all of them, whatever the role; without subforms when asked.
pub(super) fn forms(record_type: &str, with_subforms: bool) -> Value {
    let is_incident = record_type == "incident";
    let mut field_id = if is_incident { FIELDS_OF_CASES } else { 0 };
    let (first, forms) = match is_incident {
        true => (1 + schema::FORMS.len(), schema::INCIDENT_FORMS),
        false => (1, schema::FORMS),
    };
    let forms: Vec<Value> = (first..)
        .zip(forms)
        .filter(|(_, form)| with_subforms || !form.nested)
        .map(|(id, form)| one_form(id, record_type, form, &mut field_id))
        .collect();
    json!({"data": forms})
}

fn one_form(id: usize, record_type: &str, form: &Form, field_id: &mut usize) -> Value {
    let mut fields = Vec::new();
    for (order, field) in form.fields.iter().enumerate() {
        *field_id += 1;
        fields.push(one_field(*field_id, id, order, field));
    }
    json!({
        "id": id, "unique_id": form.unique_id, "name": {"en": label(form.unique_id), "km": ""},
        "description": {"en": label(form.unique_id), "km": ""}, "parent_form": record_type,
        "visible": !form.nested, "order": 10 * id, "order_form_group": 10, "order_subform": 0,
        "form_group_keyed": false, "form_group_id": record_type, "editable": true, "core_form": false,
        "is_nested": form.nested, "is_first_tab": false, "initial_subforms": 0,
        "subform_prevent_item_removal": false, "subform_append_only": false,
        "subform_header_links": [], "display_help_text_view": false, "is_summary_section": false,
        "hide_subform_placeholder": false, "mobile_form": true, "created_at": MADE_AT,
        "updated_at": MADE_AT, "fields": fields, "module_ids": ["primeromodule-cp"],
        "collapsed_field_names": [],
    })
}

fn one_field(id: usize, form: usize, order: usize, field: &Field) -> Value {
    let kind = match field.kind {
        "multi" => "select_box",
        "date_time" => "date_field",
        kind => kind,
    };
    let mut reply = json!({
        "id": id, "name": field.name, "type": kind, "multi_select": field.kind == "multi",
        "form_section_id": form, "visible": true, "mobile_visible": true,
        "hide_on_view_page": false, "show_on_minify_form": false, "editable": true,
        "disabled": false, "display_name": {"en": label(field.name), "km": ""}, "order": order,
        "hidden_text_field": false, "autosum_total": false, "link_to_path_external": true,
        "field_tags": [], "expose_unique_id": false, "required": false,
        "date_validation": "default_date_validation",
        "date_include_time": field.kind == "date_time", "matchable": false,
        "mandatory_for_completion": false, "created_at": MADE_AT, "updated_at": MADE_AT,
    });
    if field.options.starts_with("lookup") {
        reply["option_strings_source"] = format!("lookup {}", field.options).into();
    } else if !field.options.is_empty() {
        reply["option_strings_source"] = field.options.into();
    }
    if kind == "subform" {
        let subform = schema::FORMS.iter().position(|form| form.unique_id == field.name);
        reply["subform_section_id"] = json!(subform.map(|at| at + 1));
    }
    reply
}

/// `GET /api/v2/primero`, which needs no sign-in.
pub(super) fn public() -> Value {
    json!({"data": {
        "sandbox_ui": false, "config_ui": "full", "allow_self_registration": false,
        "locales": ["en", "km"], "webpush_enabled": false, "agencies": [],
        "agencies_logo_options": [], "registration_streams": [],
        "registration_streams_link_labels": {}, "registration_streams_consent_text": {},
    }})
}

/// `GET /api/v2/contact_information`.
pub(super) fn contact(version: &str) -> Value {
    json!({"data": {
        "name": "administrator", "created_at": MADE_AT, "updated_at": MADE_AT,
        "system_version": version,
    }})
}

/// `GET /api/v2/system_settings`.
pub(super) fn settings(extended: bool, locked: bool, version: &str) -> Value {
    let mut data = json!({
        "base_language": "en",
        "case_code_format": [], "case_code_separator": "-", "auto_populate_list": [],
        "reporting_location_config": {
            "field_key": "owned_by_location", "admin_level": 2,
            "admin_level_map": {"1": ["province"], "2": ["district"], "3": ["commune"]},
            "hierarchy_filter": [], "label_keys": ["district"],
        },
        "age_ranges": {
            "unhcr": ["0..4", "5..11", "12..17", "18..59", "60..999"],
            "primero": ["0..5", "6..11", "12..17", "18..999"],
        },
        "primary_age_range": "primero", "approval_forms_to_alert": {},
        "changes_field_to_form": {"notes_section": "notes", "services_section": "services"},
        "export_config_id": {}, "duplicate_export_field": "national_id_no",
        "primero_version": version,
        "system_options": {
            "show_alerts": true, "due_date_from_appointment_date": false,
            "maximum_attachments_per_record": 100, "allow_case_creation_from_referral": false,
        },
        "config_update_lock": locked, "created_at": MADE_AT, "updated_at": MADE_AT,
        "locale": "en", "default_locale": "en", "rtl_locales": [],
        "approvals_labels": {"case_plan": {"en": "Case Plan", "km": ""}},
        "export_require_password": false,
        "audit_log": {"actions": ["list", "index"], "record_types": ["child"]},
        "exact_search_fields": {"cases": schema::IDENTIFIER_FIELDS},
        "phonetic_search_fields": {"cases": ["name", "name_nickname"]},
    });
    if extended {
        data["agencies"] = agencies().into();
        data["modules"] = json!([module()]);
    }
    json!({"data": data})
}

pub(super) fn agencies() -> Vec<Value> {
    let agency = |(at, (unique_id, name)): (usize, &&(&str, &str))| {
        json!({
            "id": at + 1, "unique_id": unique_id, "agency_code": unique_id.to_uppercase(),
            "order": 0, "name": {"en": name, "km": ""}, "description": {"en": "", "km": ""},
            "telephone": null, "services": [], "logo_enabled": false, "pdf_logo_option": false,
            "terms_of_use_enabled": false, "disabled": false,
        })
    };
    words::AGENCIES.iter().enumerate().map(agency).collect()
}

fn module() -> Value {
    let forms: Vec<&str> = schema::FORMS.iter().map(|form| form.unique_id).collect();
    let stages = ["new", "reopened", "case_plan", "service_provision", "services_implemented"];
    let workflow: Vec<Value> =
        stages.iter().map(|id| json!({"id": id, "display_text": {"en": label(id)}})).collect();
    let options = json!({"case_type": "person", "workflow_lookup": "lookup-workflow"});
    json!({
        "id": 1, "unique_id": "primeromodule-cp", "name": "CP",
        "description": "Child Protection", "associated_record_types": ["case"],
        "form_section_unique_ids": forms, "creation_field_map": null, "field_map": {},
        "module_options": options, "list_filters": {"cases": []}, "list_headers": {"cases": []},
        "options": options, "approvals_labels": null, "field_labels": null,
        "workflows": {"case": workflow},
    })
}
