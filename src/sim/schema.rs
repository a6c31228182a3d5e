//! The forms of the simulated instance, and what the server knows about their fields.

/// How Primero calls a kind of field.
pub(super) type Kind = &'static str;

/// A field of a form.
pub(super) struct Field {
    /// Its name in the record.
    pub(super) name: &'static str,
    /// `text_field`, `select_box`, …
    pub(super) kind: Kind,
    /// Where its options come from: a lookup, `Location`, `Agency`, `User`, or nothing.
    pub(super) options: &'static str,
}

/// A form: a page of the case, or the row of a subform.
pub(super) struct Form {
    /// Its unique id; for a subform also the name of the field that holds the rows.
    pub(super) unique_id: &'static str,
    /// Whether it describes a row of a subform.
    pub(super) nested: bool,
    /// Its fields.
    pub(super) fields: &'static [Field],
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, options: "" }
}

const fn text(name: &'static str) -> Field {
    field(name, "text_field")
}

const fn date(name: &'static str) -> Field {
    field(name, "date_field")
}

const fn tick(name: &'static str) -> Field {
    field(name, "tick_box")
}

const fn number(name: &'static str) -> Field {
    field(name, "numeric_field")
}

const fn rows(name: &'static str) -> Field {
    field(name, "subform")
}

const fn one(name: &'static str, options: &'static str) -> Field {
    Field { name, kind: "select_box", options }
}

/// More than one option may be chosen; sent as a `select_box` with `multi_select`.
const fn many(name: &'static str, options: &'static str) -> Field {
    Field { name, kind: "multi", options }
}

const fn page(unique_id: &'static str, fields: &'static [Field]) -> Form {
    Form { unique_id, nested: false, fields }
}

const fn row(unique_id: &'static str, fields: &'static [Field]) -> Form {
    Form { unique_id, nested: true, fields }
}

/// All case forms.
#[rustfmt::skip]
pub(super) const FORMS: &[Form] = &[
    page("basic_identity", &[
        text("case_id"), text("short_id"), text("case_id_display"), text("cpims_id"),
        one("status", "lookup-case-status"), tick("case_status_reopened"), text("name"),
        text("name_first"), text("name_middle"), text("name_last"), text("name_nickname"),
        text("name_other"), date("registration_date"), date("assessment_due_date"),
        one("sex", "lookup-gender"), number("age"), date("date_of_birth"), tick("estimated"),
        text("ration_card_no"), text("icrc_ref_no"), text("rc_id_no"), text("unhcr_id_no"),
        text("unhcr_individual_no"), text("un_no"), text("national_id_no"), text("other_id_type"),
        text("other_id_no"), text("other_agency_id"), text("other_agency_name"),
        text("oscar_number"), text("family_number"),
        one("source_identification_referral", "lookup-source-identification-referral"),
        many("nationality", "lookup-nationality"),
        one("maritial_status", "lookup-marital-status"), text("occupation"),
        field("address_current", "textarea"), one("location_current", "Location"),
        text("telephone_current"), tick("duplicate"),
    ]),
    page("other_identity_details", &[
        field("address_last", "textarea"), text("telephone_last"), one("location_last", "Location"),
        one("country_of_origin", "lookup-country"), many("ethnicity", "lookup-ethnicity"),
        many("language", "lookup-language"), many("religion", "lookup-religion"),
    ]),
    page("photos_and_audio", &[
        field("photos", "photo_upload_box"), field("recorded_audio", "audio_upload_box"),
    ]),
    page("other_documents", &[field("other_documents", "document_upload_box")]),
    page("bid_documents", &[field("upload_bid_document", "document_upload_box")]),
    page("consent", &[
        one("interview_subject", "lookup-interview-subject"), text("consent_source_other"),
        tick("consent_for_services"),
        Field { name: "consent_reporting", kind: "radio_button", options: "lookup-yes-no" },
        tick("disclosure_other_orgs"), text("disclosure_deny_details"),
    ]),
    page("protection_concern", &[
        one("protection_status", "lookup-protection-status"),
        Field { name: "urgent_protection_concern", kind: "radio_button", options: "lookup-yes-no" },
        one("risk_level", "lookup-risk-level"),
        one("displacement_status", "lookup-displacement-status"), text("unhcr_protection_code"),
        many("protection_concerns", "lookup-protection-concerns"), text("protection_concerns_other"),
        one("disability_type", "lookup-disability-type"),
    ]),
    page("protection_concern_details", &[rows("protection_concern_detail_subform_section")]),
    page("assessment", &[date("assessment_requested_on"), date("case_plan_due_date")]),
    page("cp_case_plan", &[
        date("date_case_plan"), one("approval_status_case_plan", "lookup-approval-status"),
        tick("case_plan_approved"), date("case_plan_approved_date"),
        field("case_plan_approved_comments", "textarea"),
        rows("cp_case_plan_subform_case_plan_interventions"),
    ]),
    page("care_arrangements", &[
        text("current_name_caregiver"),
        one("current_care_arrangements_type", "lookup-care-arrangements-type"),
        date("current_care_arrangement_started_date"), rows("care_arrangements_section"),
    ]),
    page("reintegration", &[
        one("type_of_case", "lookup-type-of-case"), one("type_of_placement", "lookup-type-of-placement"),
        one("location_caregiver", "Location"),
    ]),
    page("tracing", &[
        one("tracing_status", "lookup-tracing-status"), date("date_of_separation"),
        text("separation_cause_other"), one("location_separation", "Location"),
        rows("reunification_details_section"),
    ]),
    page("services", &[rows("services_section")]),
    page("followup", &[rows("followup_subform_section")]),
    page("family_details", &[rows("family_details_section")]),
    page("child_wishes", &[rows("child_preferences_section")]),
    page("notes", &[rows("notes_section")]),
    page("closure_form", &[
        one("closure_reason", "lookup-closure-reason"), text("closure_reason_other"),
        date("date_closure"),
    ]),
    page("record_owner", &[
        one("owned_by", "User"), text("owned_by_full_name"), one("owned_by_agency_id", "Agency"),
        one("owned_by_location", "Location"), text("created_by"), rows("reopened_logs"),
    ]),
    row("services_section", &[
        one("service_response_type", "lookup-service-response-type"),
        one("service_type", "lookup-service-type"),
        Field { name: "service_response_day_time", kind: "date_time", options: "" },
        text("service_response_timeframe"), date("service_appointment_date"),
        one("service_implementing_agency", "Agency"), text("service_provider"),
        one("service_delivery_location", "Location"),
        one("service_implementing_agency_individual", "User"), tick("service_status_referred"),
        text("service_location"), field("service_referral_notes", "textarea"),
        one("service_implemented", "lookup-service-implemented"),
        Field { name: "service_implemented_day_time", kind: "date_time", options: "" },
        field("note_on_referral_from_provider", "textarea"),
    ]),
    row("followup_subform_section", &[
        one("followup_type", "lookup-followup-type"),
        one("followup_service_type", "lookup-service-type"), date("followup_needed_by_date"),
        date("followup_date"), text("followup_comments"),
    ]),
    row("protection_concern_detail_subform_section", &[
        one("protection_concern_type", "lookup-protection-concerns"),
        one("date_concern_identified", "lookup-concern-identified"),
        field("concern_details", "textarea"),
    ]),
    row("cp_case_plan_subform_case_plan_interventions", &[
        text("intervention_service_to_be_provided"),
        text("case_plan_provider_and_contact_details"), text("intervention_service_goal"),
        date("case_plan_timeframe"),
        Field { name: "intervention_service_success", kind: "radio_button", options: "lookup-yes-no" },
    ]),
    row("care_arrangements_section", &[
        one("care_arrangements_type", "lookup-care-arrangements-type"),
        field("care_arrangements_type_notes", "textarea"), text("care_agency_name"),
        text("name_caregiver"), text("nickname_caregiver"), number("caregiver_age"),
        date("caregiver_dob"), one("relationship_caregiver", "lookup-family-relationship"),
        date("care_arrangement_started_date"),
    ]),
    row("reunification_details_section", &[
        date("date_reunification"), text("name_reunification"),
    ]),
    row("family_details_section", &[
        text("relation_name"), text("relation_nickname"), text("relation_other_family"),
        one("relation", "lookup-family-relationship"), tick("relation_is_caregiver"),
        number("relation_age"), date("relation_date_of_birth"),
        text("relation_address_current"), text("relation_telephone"),
        text("relation_death_details"),
    ]),
    row("child_preferences_section", &[
        text("wishes_name"), one("wishes_relationship", "lookup-family-relationship"),
    ]),
    row("notes_section", &[
        Field { name: "note_date", kind: "date_time", options: "" }, text("note_subject"),
        field("note_text", "textarea"), one("note_created_by", "User"),
    ]),
    row("reopened_logs", &[
        Field { name: "reopened_date", kind: "date_time", options: "" },
        one("reopened_user", "User"),
    ]),
];

/// All incident forms.
#[rustfmt::skip]
pub(super) const INCIDENT_FORMS: &[Form] = &[
    page("cp_incident_form", &[
        text("incident_id"), text("short_id"), one("status", "lookup-incident-status"),
        date("incident_date"), date("date_of_first_report"), one("cp_sex", "lookup-gender"), number("age"),
        one("cp_disability_type", "lookup-disability-type"),
        one("cp_incident_violence_type", "lookup-cp-violence-type"),
        one("incident_location", "Location"), field("cp_incident_description", "textarea"),
    ]),
    page("cp_perpetrators", &[text("cp_incident_perpetrator_name")]),
];

/// Further names that a reader of incidents may see.
#[rustfmt::skip]
const INCIDENT_CORE_FIELDS: &[&str] = &[
    "id", "status", "flagged", "owned_by", "short_id", "has_photo", "module_id", "created_at", "created_by",
    "record_state", "incident_date", "referred_users", "last_updated_at", "last_updated_by", "owned_by_groups",
    "owned_by_location", "owned_by_agency_id", "current_alert_types", "not_edited_by_owner",
    "created_organization", "transferred_to_users", "associated_user_names", "incident_date_derived",
    "referred_users_present", "transferred_to_user_groups", "incident_case_id", "case_id_display",
    "record_in_scope", "flag_count", "alert_count", "photo",
];

/// All names that a reader of incidents may ask for.
pub(super) fn is_known_of_incidents(name: &str) -> bool {
    INCIDENT_CORE_FIELDS.contains(&name)
        || INCIDENT_FORMS.iter().flat_map(|form| form.fields).any(|field| field.name == name)
}

/// What any role with the right to read cases may see, whatever its forms.
#[rustfmt::skip]
pub(super) const CORE_FIELDS: &[&str] = &[
    "age", "sex", "status", "owned_by", "short_id", "workflow", "case_type", "has_photo",
    "module_id", "created_at", "created_by", "record_state", "has_incidents", "reopened_logs",
    "referred_users", "case_id_display", "last_updated_at", "last_updated_by", "owned_by_groups",
    "owned_by_location", "owned_by_agency_office", "registration_date", "owned_by_agency_id",
    "current_alert_types", "not_edited_by_owner", "protection_concerns", "created_organization",
    "transferred_to_users", "associated_user_names", "referred_users_present",
    "transferred_to_user_groups", "reporting_location_hierarchy", "record_in_scope", "alert_count",
    "family_id", "location_current", "case_status_reopened", "date_closure", "id", "state",
    "assigned_user_names", "previously_owned_by", "previously_owned_by_agency",
    "reassigned_transferred_on", "transfer_status",
];

/// Further names that a role with all case forms may see.
#[rustfmt::skip]
pub(super) const OTHER_FIELDS: &[&str] = &[
    "photo", "has_case_plan", "incident_details", "service_implemented_day_times",
    "followup_dates", "followup_due_dates", "service_due_dates", "assessment_due_dates",
    "case_plan_due_dates", "hidden_name", "followup_status", "flag_count", "client_code",
    "other_reportable_fields", "survivor_code_no",
];

/// What `fields=short` stands for.
#[rustfmt::skip]
pub(super) const SHORT_FIELDS: &[&str] = &[
    "created_at", "owned_by", "owned_by_agency_id", "photos", "flag_count", "status",
    "record_in_scope", "short_id", "alert_count", "case_id_display", "name", "survivor_code_no",
    "age", "sex", "registration_date", "hidden_name", "workflow", "case_status_reopened",
    "module_id", "registry_record_id", "client_code", "gender", "reporting_location_hierarchy",
    "location_current", "photo",
];

/// Fields whose filter is an exact text, never converted.
#[rustfmt::skip]
pub(super) const IDENTIFIER_FIELDS: &[&str] = &[
    "unique_identifier", "short_id", "case_id_display", "case_id", "client_code",
    "ration_card_no", "icrc_ref_no", "rc_id_no", "unhcr_id_no", "unhcr_individual_no", "un_no",
    "other_agency_id", "survivor_code_no", "national_id_no", "other_id_no", "biometrics_id",
    "family_count_no", "dss_id", "camp_id", "tent_number", "nfi_distribution_id", "oscar_number",
    "registry_no", "family_number",
];

/// The type of a column that the server keeps beside the document for searching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// One text.
    Text,
    /// A list of texts.
    Texts,
    /// A whole number.
    Integer,
    /// True, false, or nothing.
    Boolean,
    /// A day.
    Date,
    /// A list of days.
    Dates,
    /// An instant to the microsecond.
    Instant,
}

/// The search column of a field, when the server has one. `last_updated_at` has none.
pub(super) fn column_of(name: &str) -> Option<Column> {
    Some(match name {
        "status"
        | "sex"
        | "workflow"
        | "module_id"
        | "owned_by"
        | "owned_by_agency_id"
        | "owned_by_location"
        | "location_current"
        | "risk_level"
        | "last_updated_by"
        | "gender"
        | "transfer_status"
        | "approval_status_case_plan"
        | "approval_status_assessment"
        | "approval_status_closure"
        | "client_code"
        | "name"
        | "next_steps"
        | "disability_status_yes_no" => Column::Text,
        "assigned_user_names"
        | "associated_user_names"
        | "owned_by_groups"
        | "referred_users"
        | "protection_concerns"
        | "protection_risks"
        | "current_alert_types"
        | "transferred_to_users"
        | "transferred_to_user_groups" => Column::Texts,
        "age" => Column::Integer,
        "record_state"
        | "flagged"
        | "has_incidents"
        | "not_edited_by_owner"
        | "consent_reporting" => Column::Boolean,
        "registration_date" | "date_closure" => Column::Date,
        "assessment_due_dates"
        | "case_plan_due_dates"
        | "followup_due_dates"
        | "service_due_dates" => Column::Dates,
        "created_at" | "reassigned_transferred_on" => Column::Instant,
        _ => return None,
    })
}

/// All names a role with every case form may ask for.
pub(super) fn is_known(name: &str) -> bool {
    CORE_FIELDS.contains(&name)
        || OTHER_FIELDS.contains(&name)
        || FORMS.iter().flat_map(|form| form.fields).any(|field| field.name == name)
}
