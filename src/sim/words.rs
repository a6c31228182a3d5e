//! The invented people, texts and option lists of the simulated instance.

/// Family names: latin and Khmer spelling.
pub(super) const FAMILY_NAMES: &[&(&str, &str)] = &[
    &("Sok", "សុខ"),
    &("Chan", "ចាន់"),
    &("Chea", "ជា"),
    &("Kim", "គឹម"),
    &("Ly", "លី"),
    &("Heng", "ហេង"),
    &("Keo", "កែវ"),
    &("Mao", "ម៉ៅ"),
    &("Meas", "មាស"),
    &("Nhem", "ញ៉ែម"),
    &("Nou", "នូ"),
    &("Ouk", "អ៊ុក"),
    &("Pich", "ពេជ្រ"),
    &("Prak", "ប្រាក់"),
    &("Ros", "រស់"),
    &("Sam", "សំ"),
    &("Seng", "សេង"),
    &("Tep", "ទេព"),
    &("Thach", "ថាច់"),
    &("Touch", "ទូច"),
    &("Ung", "អ៊ុង"),
    &("Vong", "វង្ស"),
    &("Yim", "យឹម"),
    &("Yos", "យស"),
];

/// Girls' names.
pub(super) const GIRLS: &[&(&str, &str)] = &[
    &("Sreymom", "ស្រីមុំ"),
    &("Sreyneang", "ស្រីនាង"),
    &("Bopha", "បុប្ផា"),
    &("Chanthy", "ចន្ធី"),
    &("Kunthea", "គន្ធា"),
    &("Mealea", "មាលា"),
    &("Nary", "ណារី"),
    &("Phalla", "ផល្លា"),
    &("Rachana", "រចនា"),
    &("Sopheap", "សុភាព"),
    &("Theary", "ធារី"),
    &("Vanna", "វណ្ណា"),
    &("Chenda", "ចិន្តា"),
    &("Davy", "ដាវី"),
    &("Kolab", "កុលាប"),
    &("Leakena", "លក្ខិណា"),
];

/// Boys' names.
pub(super) const BOYS: &[&(&str, &str)] = &[
    &("Dara", "តារា"),
    &("Bunthoeun", "ប៊ុនធឿន"),
    &("Chamroeun", "ចំរើន"),
    &("Kosal", "កុសល"),
    &("Makara", "មករា"),
    &("Narith", "ណារិទ្ធ"),
    &("Piseth", "ពិសិដ្ឋ"),
    &("Rithy", "រិទ្ធី"),
    &("Samnang", "សំណាង"),
    &("Sokha", "សុខា"),
    &("Sovann", "សុវណ្ណ"),
    &("Veasna", "វាសនា"),
    &("Vibol", "វិបុល"),
    &("Visal", "វិសាល"),
    &("Phearun", "ភារុណ"),
    &("Rathana", "រតនា"),
];

/// Nicknames.
pub(super) const NICKNAMES: &[&str] = &["Mom", "Pov", "Ah Touch", "ពៅ", "តូច", "Srey Pov", "Kon"];

/// Free texts as case workers write them.
pub(super) const NOTES: &[&str] = &[
    "Met the child at home, the grandmother was present.",
    "Called the village chief about school enrolment.",
    "ជួបកុមារនៅផ្ទះ ជាមួយជីដូន។",
    "The aunt works in the garment factory and comes home on Sundays.",
    "ទូរស័ព្ទទៅមេភូមិអំពីការចុះឈ្មោះចូលរៀន។",
    "Says she wants to stay with her sister.\nTo be discussed again.",
];

/// Streets and landmarks for addresses.
pub(super) const STREETS: &[&str] =
    &["behind the pagoda", "beside the market", "street 271", "ភូមិថ្មី", "near the old bridge"];

/// Work.
pub(super) const OCCUPATIONS: &[&str] = &["student", "helps on the farm", "none", "sells cakes"];

/// `lookup-protection-concerns` without the country's own.
pub(super) const CONCERNS: &[&str] = &[
    "physically_or_mentally_abused",
    "worst_forms_of_child_labor",
    "living_with_vulnerable_person",
    "street_child",
    "migrant",
    "serious_health_issue",
    "mentally_distressed",
    "disabled",
    "trafficked_smuggled",
    "child_headed_household",
    "arrested_detained",
    "gbv_survivor",
    "sexually_exploited",
    "child_mother",
    "statelessness",
    "refugee",
    "caafag",
    "other",
];

/// `lookup-care-arrangements-type`.
pub(super) const CARE_TYPES: &[&str] = &[
    "parent_s",
    "kinship_care_extended_family",
    "residential_care",
    "foster_care",
    "step_parent",
    "customary_caregiver_s",
    "adult_sibling",
    "kafala",
    "independent_living",
    "child_headed_household",
    "unrelated_adult",
    "no_care_arrangement",
    "other",
];

/// `lookup-service-type`, spelt as the seed spells it.
pub(super) const SERVICE_TYPES: &[&str] = &[
    "psychosocial_service",
    "education_service",
    "health_medical_service",
    "food_service",
    "child_protection_service",
    "family_mediation_service",
    "family_seunification_service",
    "livelihoods_service",
    "legal_assistance_service",
    "registration_service",
    "safehouse_service",
    "nfi_clothes_shoes_service",
    "police_other_service",
    "water_sanitation_service",
    "other_service",
];

/// `lookup-followup-type`, spelt as the seed spells it.
pub(super) const FOLLOWUP_TYPES: &[&str] =
    &["for_service", "in_care", "after_reunification", "for_assesment"];

/// `lookup-displacement-status`.
pub(super) const DISPLACEMENT: &[&str] = &[
    "resident",
    "returnee",
    "idp",
    "foreign_national",
    "refugee",
    "stateless_person",
    "asylum_seeker",
];

/// `lookup-disability-type`.
pub(super) const DISABILITIES: &[&str] = &["physical_disability", "mental_disability", "both"];

/// `lookup-closure-reason`.
pub(super) const CLOSURE_REASONS: &[&str] = &[
    "formal_closing",
    "transferred",
    "not_seen_during_verification",
    "other",
    "repatriated",
    "death_of_child",
];

/// `lookup-service-response-type`.
pub(super) const RESPONSE_TYPES: &[&str] = &["service_provision", "care_plan", "action_plan"];

/// `lookup-type-of-case`: the country's own field, with the ids its administrators got.
pub(super) const CASE_TYPES: &[&str] = &[
    "children_in_community_based_support_31006",
    "children_undergoing_reintegration_55427",
    "children_in_residential_care_18240",
    "children_in_contact_with_the_law_77913",
];

/// `lookup-type-of-placement`.
pub(super) const PLACEMENTS: &[&str] =
    &["kinship_care_41873", "birth_family_20561", "foster_care_66102", "group_home_90357"];

/// `lookup-family-relationship`.
pub(super) const RELATIONS: &[&str] =
    &["mother", "father", "grandmother", "aunt", "uncle", "sister", "brother", "other"];

/// `date_concern_identified`, which is an option and not a date.
pub(super) const CONCERN_IDENTIFIED: &[&str] = &[
    "registration",
    "verification",
    "follow_up_in_care",
    "reunification",
    "follow_up_after_reunification",
];

/// `lookup-nationality`.
pub(super) const NATIONALITIES: &[&str] = &["khmer", "vietnamese", "thai", "lao", "other"];

/// `lookup-tracing-status`.
pub(super) const TRACING: &[&str] =
    &["open", "tracing_in_progress", "verified", "reunified", "closed"];

/// `lookup-source-identification-referral`.
pub(super) const SOURCES: &[&str] = &[
    "community",
    "local_authority",
    "health_facility",
    "school",
    "police",
    "self_referral",
    "other",
];

/// `lookup-cp-violence-type`.
pub(super) const VIOLENCE_TYPES: &[&str] = &[
    "physical_assault",
    "psychological_emotional_abuse",
    "sexual_assault",
    "denial_of_resources",
    "rape",
    "forced_marriage",
    "other",
];

/// Agencies: unique id and name.
pub(super) const AGENCIES: &[&(&str, &str)] = &[
    &("agency-ministry", "Social Affairs Office"),
    &("agency-alpha", "Alpha Relief"),
    &("agency-romdoul", "Romdoul Children"),
    &("agency-tonle", "River Families"),
    &("agency-mekong", "Mekong Child Support"),
];

/// The lookups of the instance: unique id, name, option ids.
pub(super) const LOOKUPS: &[(&str, &str, &[&str])] = &[
    (
        "lookup-approval-status",
        "Approval Status",
        &["requested", "pending", "approved", "rejected"],
    ),
    ("lookup-care-arrangements-type", "Care Arrangements Type", CARE_TYPES),
    ("lookup-case-status", "Case Status", &["open", "closed", "transferred", "duplicate"]),
    ("lookup-closure-reason", "Closure Reason", CLOSURE_REASONS),
    ("lookup-concern-identified", "Concern Identified", CONCERN_IDENTIFIED),
    ("lookup-cp-violence-type", "Type of Violence", VIOLENCE_TYPES),
    ("lookup-country", "Country", &["cambodia", "vietnam", "thailand", "laos"]),
    ("lookup-disability-type", "Disability Type", DISABILITIES),
    ("lookup-displacement-status", "Displacement Status", DISPLACEMENT),
    ("lookup-ethnicity", "Ethnicity", &["khmer", "cham", "bunong", "other"]),
    ("lookup-family-relationship", "Family Relationship", RELATIONS),
    ("lookup-followup-type", "Follow-up Type", FOLLOWUP_TYPES),
    ("lookup-gender", "Gender", &["male", "female"]),
    ("lookup-incident-status", "Incident Status", &["open", "closed"]),
    ("lookup-interview-subject", "Interview Subject", &["individual", "caregiver", "other"]),
    ("lookup-language", "Language", &["khmer", "cham", "vietnamese"]),
    ("lookup-marital-status", "Marital Status", &["single", "married", "other"]),
    ("lookup-nationality", "Nationality", NATIONALITIES),
    ("lookup-protection-concerns", "Protection Concerns", CONCERNS),
    ("lookup-protection-status", "Protection Status", &["unaccompanied", "separated"]),
    ("lookup-religion", "Religion", &["buddhist", "muslim", "christian"]),
    ("lookup-risk-level", "Risk Level", &["high", "medium", "low"]),
    ("lookup-service-implemented", "Service Implemented", &["not_implemented", "implemented"]),
    ("lookup-service-response-type", "Service Response Type", RESPONSE_TYPES),
    ("lookup-service-type", "Service Type", SERVICE_TYPES),
    ("lookup-source-identification-referral", "Source of Identification", SOURCES),
    ("lookup-tracing-status", "Tracing Status", TRACING),
    ("lookup-type-of-case", "Type of Case", CASE_TYPES),
    ("lookup-type-of-placement", "Type of Placement", PLACEMENTS),
    (
        "lookup-workflow",
        "Workflow",
        &["new", "closed", "reopened", "service_provision", "services_implemented", "case_plan"],
    ),
    ("lookup-yes-no", "Yes or No", &["true", "false"]),
];
