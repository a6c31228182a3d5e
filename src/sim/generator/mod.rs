//! Invented cases: a seed, an index and a date give the same case on any machine.

mod case;
mod dice;
mod incident;
mod json;
mod rows;

use std::io::Write;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::error::{Error, Kind, Result};
use crate::sim::country::Country;
use crate::sim::{Settings, calendar};

pub(super) use dice::Dice;

/// Makes cases of the child protection module as the server would give them.
pub struct Generator {
    pub(super) country: Country,
    dice: Dice,
    /// The newest day a clean case knows of, counted from 1970-01-01.
    today: i64,
    dirt: bool,
    canary: bool,
}

impl Generator {
    /// A generator for the seed, the date, the dirt and the canaries of `settings`.
    pub fn new(settings: &Settings) -> Self {
        Self {
            country: Country::new(),
            dice: Dice::new(settings.seed),
            today: calendar::day_of(settings.today),
            dirt: settings.dirt,
            canary: settings.canary,
        }
    }

    /// The JSON text of one case, with `id`, `enabled` and `last_updated_at`, and of the fields
    /// named (all fields without a list).
    pub fn case(&self, index: u64, fields: Option<&[&str]>) -> String {
        let mut text = Vec::with_capacity(4_096);
        self.write_case(index, fields, &mut text).expect("writing to memory does not fail");
        String::from_utf8(text).expect("JSON is UTF-8")
    }

    fn write_case(
        &self,
        index: u64,
        fields: Option<&[&str]>,
        writer: impl Write,
    ) -> serde_json::Result<()> {
        let object = self.draft(index);
        serde_json::to_writer(writer, &Selected { object: &object, fields })
    }

    /// The staff member with this number, as the server names him.
    pub(super) fn staff(&self, number: u64) -> String {
        if self.canary { format!("CANARY-staff-{number}") } else { format!("worker_{number:03}") }
    }
}

/// Writes `case_count` cases, one a line, as `GET /cases` returns them, restricted to `fields`
/// when there is a list (`id`, `enabled` and `last_updated_at` always come).
///
/// # Errors
/// [`Kind::Unavailable`] when the writer fails.
pub fn write_ndjson(
    settings: &Settings,
    fields: Option<&[&str]>,
    mut writer: impl Write,
) -> Result<()> {
    let generator = Generator::new(settings);
    let failed = |cause| Error::new(Kind::Unavailable, "writing generated cases").caused_by(cause);
    let mut line = Vec::with_capacity(8_192);
    for index in 0..settings.case_count {
        line.clear();
        generator
            .write_case(index, fields, &mut line)
            .map_err(|cause| Error::bug("writing a case as JSON").caused_by(cause))?;
        line.push(b'\n');
        writer.write_all(&line).map_err(failed)?;
    }
    writer.flush().map_err(failed)
}

/// Writes the incidents of the same cases, one a line, as `GET /incidents` returns them.
///
/// # Errors
/// [`Kind::Unavailable`] when the writer fails.
pub fn write_incidents(settings: &Settings, mut writer: impl Write) -> Result<()> {
    let generator = Generator::new(settings);
    let failed = |cause| Error::new(Kind::Unavailable, "writing incidents").caused_by(cause);
    for index in 0..settings.case_count {
        for incident in generator.incidents(index) {
            writeln!(writer, "{incident}").map_err(failed)?;
        }
    }
    writer.flush().map_err(failed)
}

/// Writes the reply of `GET /api/v2/locations?hierarchy=true`, all places on one page.
///
/// # Errors
/// [`Kind::Unavailable`] when the writer fails.
pub fn write_locations(mut writer: impl Write) -> Result<()> {
    let failed = |cause| Error::new(Kind::Unavailable, "writing locations").caused_by(cause);
    let text = Country::new().reply_all().to_string();
    writer.write_all(text.as_bytes()).and_then(|()| writer.flush()).map_err(failed)
}

/// An object of which only some keys are written.
struct Selected<'a> {
    object: &'a json::Object,
    fields: Option<&'a [&'a str]>,
}

impl Serialize for Selected<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.object {
            let wanted = self.fields.is_none_or(|fields| fields.contains(key));
            if wanted || matches!(*key, "id" | "enabled" | "last_updated_at") {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::sim::save;

    fn cases(settings: &Settings) -> Vec<Value> {
        let mut text = Vec::new();
        write_ndjson(settings, None, &mut text).unwrap();
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn settings(case_count: u64) -> Settings {
        Settings { case_count, ..Settings::default() }
    }

    #[test]
    fn a_case_depends_on_seed_and_index_only() {
        let few = cases(&settings(20));
        let many = cases(&settings(300));
        assert_eq!(few[..], many[..20]);
        assert_ne!(few, cases(&Settings { seed: 8, ..settings(20) }));
        let ids: BTreeSet<_> = many.iter().map(|case| case["id"].to_string()).collect();
        assert_eq!(ids.len(), many.len());
    }

    #[test]
    fn what_the_server_derives_at_save_is_already_so() {
        for case in cases(&Settings { dirt: false, ..settings(400) }) {
            let before = case.as_object().unwrap().clone();
            let mut after = before.clone();
            save::derive(&mut after);
            for (name, value) in &after {
                assert_eq!(before.get(name), Some(value), "{name} of {}", case["id"]);
            }
        }
    }

    #[test]
    fn a_clean_case_lies_in_the_past_and_is_coherent() {
        let today = Settings::default().today.to_string();
        for case in cases(&Settings { dirt: false, ..settings(500) }) {
            let registered = case["registration_date"].as_str().unwrap();
            assert!(registered <= today.as_str());
            assert!(case["created_at"].as_str() <= case["last_updated_at"].as_str());
            if case["status"] == "closed" {
                assert!(case["date_closure"].as_str().unwrap() >= registered);
            }
            for time in case["service_implemented_day_times"].as_array().into_iter().flatten() {
                assert!(time.as_str() <= case["last_updated_at"].as_str());
            }
            assert_eq!(case["enabled"], case["record_state"]);
            assert!(
                case["case_id"].as_str().unwrap().ends_with(case["short_id"].as_str().unwrap())
            );
        }
    }

    #[test]
    fn dirt_is_rare_and_leaves_the_rest_alone() {
        let clean = cases(&Settings { dirt: false, ..settings(2_000) });
        let dirty = cases(&Settings { dirt: true, ..settings(2_000) });
        let changed = clean.iter().zip(&dirty).filter(|(a, b)| a != b).count();
        assert!((20..400).contains(&changed), "{changed}");
        let text = serde_json::to_string(&dirty).unwrap();
        for expected in ["not implemented", "weird_value", "not known"] {
            assert!(text.contains(expected), "{expected}");
        }
    }

    #[test]
    fn every_identifying_field_carries_a_canary() {
        let case = &cases(&Settings { canary: true, ..settings(1) })[0];
        for name in ["name", "name_first", "telephone_current", "national_id_no", "short_id"] {
            assert_eq!(case[name], format!("CANARY-0-{name}"));
        }
        let text = case.to_string();
        assert!(text.contains("CANARY-staff-"));
        assert!(text.contains("CANARY-0-notes_section.0.note_text"));
    }

    #[test]
    fn fields_restrict_a_case() {
        let text = Generator::new(&settings(1)).case(0, Some(&["sex", "status"]));
        let case: Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<_> = case.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(
            keys.iter()
                .all(|key| { ["id", "enabled", "last_updated_at", "sex", "status"].contains(key) })
        );
        assert!(keys.contains(&"id") && keys.contains(&"enabled"));
    }
}
