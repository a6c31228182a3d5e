//! Random packs: everything that the grammar allows, drawn from a seed, over one set of fields.

mod dice;
mod indicators;
mod tests_of;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tonle::indicator::{InstanceDefinition, PackText};

use dice::{chance, one, quoted, some_of};

/// A pack with the instances that go with it, and which forms of the grammar it uses.
pub(crate) struct RandomPack {
    pub(crate) text: PackText,
    pub(crate) instances: Vec<InstanceDefinition>,
    pub(crate) forms: BTreeSet<&'static str>,
}

/// The fields that all random packs read; enough of each type.
const HEAD: &str = r#"
[locations]
levels = ["country", "province", "district", "commune"]

[lifecycle]
opened = "registered_on"
closed = "closed_on"
reopened = "reopenings.on"
status = "status"
closed_when = ["closed"]

[fields]
record_state = "boolean"
status = { type = "option", values = ["open", "closed", "duplicate"] }
registered_on = "date"
closed_on = "date"
seen_on = "datetime"
born = "birth_month"
age = "integer"
urgent = "boolean"
sex = { type = "option", values = ["male", "female"] }
care = { type = "option", values = ["parents", "aunt", "foster", "home"] }
care_first_seen = "first_seen"
source = "option"
concerns = { type = "options", values = ["abuse", "work", "migrant", "street"] }
lives_in = "location"
worker = "worker"
agency = "agency"
due = "dates"

[subforms.reopenings]
on = "datetime"

[subforms.services]
kind = { type = "option", values = ["health", "legal", "school"] }
asked_on = "datetime"
given_on = "date"
done = "boolean"
hours = "integer"
given_in = "location"
given_by = { type = "agency", values = ["unicef", "mosvy"] }

[subforms.visits]
kind = { type = "option", values = ["planned", "after_return"] }
on = "date"
home = { type = "option", values = ["parents", "aunt", "foster"] }
"#;

/// Every form of the grammar that the packs of a run must have used.
pub(crate) const FORMS: &[&str] = &[
    "count cases",
    "count rows",
    "count cases with",
    "flow",
    "flow of row",
    "flow of first sight",
    "cohort",
    "cohort of row",
    "presence",
    "stock",
    "now",
    "month",
    "quarter",
    "half",
    "year",
    "fiscal_year",
    "week",
    "follows",
    "latest",
    "numerator",
    "numerator_rows",
    "share_over",
    "share_over caseload",
    "share_over location",
    "mean",
    "median",
    "workers",
    "cases per worker",
    "ratio",
    "any_of",
    "set",
    "population",
    "dimension option",
    "dimension options",
    "dimension concepts",
    "dimension concepts of a set",
    "dimension concepts of a row",
    "dimension agency",
    "dimension any agency",
    "dimension bands",
    "dimension value",
    "dimension value at event",
    "dimension value of a row",
    "dimension location",
    "dimension location of a row",
    "dimension boolean",
    "dimension caseload",
    "dimension option of a row",
    "age at event",
    "age at a date",
    "age at a date of a row",
    "days to event",
    "days between dates",
    "days of a row",
    "days of a row to event",
    "conflict",
    "test is",
    "test is not",
    "test id",
    "test ids",
    "test not",
    "test concept",
    "test not_concept",
    "test unmapped",
    "test range",
    "test within",
    "test within dates",
    "test present",
    "test value",
    "any",
    "has",
    "has within",
    "has twice",
    "mapping",
    "mapping of a set",
    "mapping of a row",
    "mapping of agencies",
    "concept of the pack at an instance",
    "concept of the configuration",
    "published as another",
];

/// A computed value that indicators may use.
struct ValueName {
    name: String,
    subform: Option<&'static str>,
    at_event: bool,
}

/// A dimension that indicators may use.
struct DimensionName {
    name: String,
    subform: Option<&'static str>,
    at_event: bool,
    is_caseload: bool,
    is_location: bool,
    /// Values that a part may set.
    settable: Vec<String>,
}

/// A pack in the making.
struct Drawing {
    rng: ChaCha8Rng,
    text: String,
    forms: BTreeSet<&'static str>,
    values: Vec<ValueName>,
    dimensions: Vec<DimensionName>,
    /// Whether conditions are drawn where no event is.
    no_event: bool,
}

/// Concepts, each with its field, its ids and those that only some instance has.
const CONCEPTS: &[(&str, &str, &[&str], &str)] = &[
    ("family", "care", &["parents", "aunt"], "family_77"),
    ("alternative", "care", &["aunt", "foster"], "foster_12"),
    ("harm", "concerns", &["abuse", "work"], "harm_3"),
    ("moved", "concerns", &["migrant"], "moved_9"),
    ("care_service", "services.kind", &["health", "legal"], "clinic_5"),
    ("kin_home", "visits.home", &["parents", "aunt"], "kin_1"),
];

/// A random pack and instances for it.
pub(crate) fn random_pack(seed: u64) -> RandomPack {
    let mut drawing = Drawing {
        rng: ChaCha8Rng::seed_from_u64(seed),
        text: String::new(),
        forms: BTreeSet::new(),
        values: Vec::new(),
        dimensions: Vec::new(),
        no_event: false,
    };
    drawing.head();
    drawing.concepts();
    drawing.draw_values();
    drawing.populations();
    drawing.draw_dimensions();
    drawing.indicators();
    drawing.extracts();
    let instances = drawing.instances();
    RandomPack {
        text: PackText { name: format!("random-{seed}.toml"), text: drawing.text },
        instances,
        forms: drawing.forms,
    }
}

impl Drawing {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").unwrap();
    }

    fn used(&mut self, form: &'static str) {
        self.forms.insert(form);
    }

    fn head(&mut self) {
        let start = *one(&mut self.rng, &["2022-07-01", "2023-02-15", "2024-01-01"]);
        self.line("[pack]\nid = \"random\"\nversion = \"1.0.0\"");
        self.line(&format!("history_start = \"{start}\""));
        self.line(HEAD);
    }

    fn concepts(&mut self) {
        for (name, field, ids, own) in CONCEPTS {
            let ids = some_of(&mut self.rng, ids, 1);
            self.line(&format!("[concepts.{name}]\nfield = \"{field}\"\nids = {}", quoted(&ids)));
            if chance(&mut self.rng, 0.4) {
                self.used("concept of the pack at an instance");
                self.line(&format!("instances.kampot = [\"{own}\"]"));
            }
        }
    }

    fn draw_values(&mut self) {
        let mut value = |name: &str, subform, at_event, form, text: &str| {
            self.line(&format!("[values.{name}]\n{text}"));
            self.used(form);
            self.values.push(ValueName { name: name.to_owned(), subform, at_event });
        };
        value(
            "age_then",
            None,
            true,
            "age at event",
            "age = { born = \"born\", on = \"event\", otherwise = \"age\", recorded_on = \"registered_on\" }",
        );
        value(
            "age_first",
            None,
            false,
            "age at a date",
            "age = { born = \"born\", on = \"registered_on\", otherwise = \"age\" }",
        );
        value(
            "age_served",
            Some("services"),
            false,
            "age at a date of a row",
            "age = { born = \"born\", on = \"services.given_on\" }",
        );
        value(
            "days_open",
            None,
            true,
            "days to event",
            "days = { from = \"registered_on\", to = \"event\" }",
        );
        value(
            "days_to_close",
            None,
            false,
            "days between dates",
            "days = { from = \"registered_on\", to = \"closed_on\" }",
        );
        value(
            "days_to_serve",
            Some("services"),
            false,
            "days of a row",
            "days = { from = \"services.asked_on\", to = \"services.given_on\" }",
        );
        value(
            "days_since_visit",
            Some("visits"),
            true,
            "days of a row to event",
            "days = { from = \"visits.on\", to = \"event\" }",
        );
        value("conflict", None, false, "conflict", "lifecycle = \"conflict\"");
    }

    fn populations(&mut self) {
        for name in ["strict", "wide"] {
            let conditions = self.conditions(None, 2, 0);
            self.line(
                &format!("[populations]\n{name} = {conditions}")
                    .replace("[populations]\nwide", "wide"),
            );
        }
    }

    fn draw_dimensions(&mut self) {
        let bands = |rng: &mut ChaCha8Rng| {
            *one(rng, &["[\"0-5\", \"6-11\", \"12-17\", \"18+\"]", "[\"0-1\", \"2-40\", \"90+\"]"])
        };
        let mut all: Vec<(&'static str, DimensionName, String)> = Vec::new();
        let rng = &mut self.rng;
        let named = |name: &str, subform, settable: Vec<String>| DimensionName {
            name: name.to_owned(),
            subform,
            at_event: false,
            is_caseload: false,
            is_location: false,
            settable,
        };
        let owned =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        all.push(("dimension option", named("sex", None, Vec::new()), "from = \"sex\"".into()));
        let concerns = some_of(rng, &["abuse", "work", "migrant"], 1);
        let text = format!("from = \"concerns\"\nvalues = {}", quoted(&concerns));
        all.push(("dimension options", named("concern", None, Vec::new()), text));
        let text = "from = \"care\"\nconcepts = [\"family\", \"alternative\"]".to_owned();
        all.push(("dimension concepts", named("care_kind", None, Vec::new()), text));
        let text = "from = \"concerns\"\nconcepts = [\"harm\", \"moved\"]".to_owned();
        all.push(("dimension concepts of a set", named("concern_kind", None, Vec::new()), text));
        let text = "from = \"visits.home\"\nconcepts = [\"kin_home\"]".to_owned();
        let home = named("home_kind", Some("visits"), owned(&["kin_home"]));
        all.push(("dimension concepts of a row", home, text));
        let kinds = some_of(rng, &["health", "legal", "school"], 2);
        let text = format!("from = \"services.kind\"\nvalues = {}", quoted(&kinds));
        let kinds = named("service", Some("services"), owned(&kinds));
        all.push(("dimension option of a row", kinds, text));
        let text = "from = \"agency\"\nvalues = [\"unicef\", \"mosvy\"]".to_owned();
        all.push(("dimension agency", named("main_agency", None, Vec::new()), text));
        all.push((
            "dimension any agency",
            named("agency", None, Vec::new()),
            "from = \"agency\"".into(),
        ));
        all.push((
            "dimension agency",
            named("giver", Some("services"), Vec::new()),
            "from = \"services.given_by\"".into(),
        ));
        let text = format!("from = \"age\"\nbands = {}", bands(rng));
        all.push(("dimension bands", named("age_group", None, Vec::new()), text));
        let text = format!("from = \"services.hours\"\nbands = {}", bands(rng));
        all.push(("dimension bands", named("hours", Some("services"), Vec::new()), text));
        for value in &self.values {
            let form = match (value.subform, value.at_event) {
                (None, false) => "dimension value",
                (None, true) => "dimension value at event",
                (Some(_), _) => "dimension value of a row",
            };
            let text = format!("from = \"{}\"\nbands = {}", value.name, bands(rng));
            let mut dimension = named(&format!("of_{}", value.name), value.subform, Vec::new());
            dimension.at_event = value.at_event;
            all.push((form, dimension, text));
        }
        for (form, name, from, subform) in [
            ("dimension location", "place", "lives_in", None),
            ("dimension location of a row", "served_in", "services.given_in", Some("services")),
        ] {
            let level = one(rng, &["country", "province", "district", "commune"]);
            let mut dimension = named(name, subform, Vec::new());
            dimension.is_location = true;
            all.push((form, dimension, format!("from = \"{from}\"\nlevel = \"{level}\"")));
        }
        all.push((
            "dimension boolean",
            named("urgent", None, Vec::new()),
            "from = \"urgent\"".into(),
        ));
        let mut caseload = named("caseload", None, Vec::new());
        caseload.is_caseload = true;
        let text = "from = \"caseload\"\nbands = [\"0-1\", \"2-3\", \"5+\"]".to_owned();
        all.push(("dimension caseload", caseload, text));
        for (form, dimension, text) in all {
            if chance(&mut self.rng, 0.5) {
                self.used(form);
                self.line(&format!("[dimensions.{}]\n{text}", dimension.name));
                self.dimensions.push(dimension);
            }
        }
    }

    fn extracts(&mut self) {
        self.no_event = true;
        for (table, rows_of) in [("some_cases", None), ("some_services", Some("services"))] {
            let filter = self.conditions(None, 1, 0);
            let mut text = format!("[extracts.{table}]\nkey = \"row_key\"\nwhere = {filter}\n");
            if let Some(subform) = rows_of {
                let rows = self.conditions(Some(subform), 1, 0);
                writeln!(text, "rows_of = \"{subform}\"\nrows = {rows}").unwrap();
            }
            let single = self.dimensions.iter().filter(|d| {
                let is_set = d.name.starts_with("concern");
                (d.subform.is_none() || d.subform == rows_of)
                    && !d.at_event
                    && !d.is_caseload
                    && !is_set
            });
            let mut columns: Vec<_> = single.map(|d| format!("\"{}\"", d.name)).collect();
            columns.push("{ name = \"since\", month_of = \"registered_on\" }".to_owned());
            writeln!(text, "columns = [{}]", columns.join(", ")).unwrap();
            self.line(&text);
        }
        self.no_event = false;
    }

    fn instances(&mut self) -> Vec<InstanceDefinition> {
        let mut instances = Vec::new();
        let start = self.rng.random_range(1..=12);
        for name in ["kampot", "takeo", "kampot_incidents", "pursat"] {
            if name != "kampot" && chance(&mut self.rng, 0.3) {
                continue;
            }
            let mut instance = InstanceDefinition::plain(name);
            instance.fiscal_year_start = self.rng.random_range(1..=12);
            if name == "kampot_incidents" {
                self.used("published as another");
                instance.published_as = "kampot".to_owned();
                instance.fiscal_year_start = start;
            } else if name == "kampot" {
                instance.fiscal_year_start = start;
            }
            self.mappings(&mut instance);
            for (concept, _, _, own) in CONCEPTS {
                if chance(&mut self.rng, 0.2) {
                    self.used("concept of the configuration");
                    instance.concepts.insert((*concept).to_owned(), vec![(*own).to_owned()]);
                }
            }
            instances.push(instance);
        }
        instances
    }

    fn mappings(&mut self, instance: &mut InstanceDefinition) {
        for (form, path, own, meant) in [
            ("mapping", "sex", "f", "female"),
            ("mapping", "status", "done", "closed"),
            ("mapping of a set", "concerns", "hitting", "abuse"),
            ("mapping of a set", "concerns", "work", "street"),
            ("mapping of a row", "services.kind", "doctor", "health"),
            ("mapping of a row", "visits.home", "parents", "aunt"),
            ("mapping of agencies", "agency", "un", "unicef"),
            ("mapping of agencies", "services.given_by", "mosvy_2", "mosvy"),
        ] {
            if chance(&mut self.rng, 0.3) {
                self.used(form);
                let of_field: &mut BTreeMap<_, _> =
                    instance.mappings.entry(path.to_owned()).or_default();
                of_field.insert(own.to_owned(), meant.to_owned());
            }
        }
    }
}
