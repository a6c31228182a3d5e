//! The incidents of one case, which only some cases have.

use super::super::calendar::{self, DAY_MS};
use super::super::words;
use super::case::MORNING_MS;
use super::json::{Json, Object};
use super::rows::value_of;
use super::{Dice, Generator};

/// Bit of the streams of incidents, above every index of a case.
const INCIDENT_STREAMS: u64 = 1 << 62;
/// Longest time from an incident to the registration of its case, in days.
const BEFORE_REGISTRATION_DAYS: i64 = 90;
/// What an incident takes over from its case as it is.
const SHARED: &[&str] = &[
    "module_id",
    "owned_by",
    "owned_by_groups",
    "owned_by_location",
    "owned_by_agency_id",
    "created_by",
    "created_organization",
    "associated_user_names",
    "last_updated_by",
    "case_id_display",
];

impl Generator {
    /// How many incidents the case with this index has.
    pub(in crate::sim) fn incident_count(&self, index: u64) -> u64 {
        count_of(&mut self.dice.stream(index | INCIDENT_STREAMS))
    }

    /// The incidents of the case with this index, each as JSON text.
    pub(in crate::sim) fn incidents(&self, index: u64) -> Vec<String> {
        let text = |incident: &Object| {
            let json = super::Selected { object: incident, fields: None };
            serde_json::to_string(&json).expect("writing to memory does not fail")
        };
        self.incident_drafts(index).iter().map(text).collect()
    }

    pub(super) fn incident_drafts(&self, index: u64) -> Vec<Object> {
        let mut dice = self.dice.stream(index | INCIDENT_STREAMS);
        let count = count_of(&mut dice);
        if count == 0 {
            return Vec::new();
        }
        let case = self.draft(index);
        (0..count).map(|number| self.incident(index, number, &case, &mut dice)).collect()
    }

    fn incident(&self, index: u64, number: u64, case: &Object, dice: &mut Dice) -> Object {
        let shared = |name: &str| value_of(case, name).cloned().unwrap_or(Json::Null);
        let secret = |name: &str, plain: String| match self.canary {
            true => Json::Text(format!("CANARY-{index}-incident.{number}.{name}")),
            false => Json::Text(plain),
        };
        let id = dice.uuid();
        let enabled = !dice.per_mille(15);
        let short = secret("short_id", id[29..].to_owned());
        let happened = self.today - dice.between(0, 900);
        let reported = (happened + dice.between(0, BEFORE_REGISTRATION_DAYS)).min(self.today);
        let created = instant(reported, self.today, dice);
        let touched = dice.between(reported, self.today);
        let updated = instant(touched, self.today, dice).max(created + 1);
        let mut incident: Object = vec![
            ("id", id.into()),
            ("enabled", enabled.into()),
            ("record_state", enabled.into()),
            ("status", "open".into()),
            ("short_id", short),
            ("incident_case_id", shared("id")),
            ("incident_date_derived", calendar::date_text(happened).into()),
            ("date_of_first_report", calendar::date_text(reported).into()),
            ("created_at", calendar::instant_text(created).into()),
            ("last_updated_at", calendar::instant_text(updated).into()),
            ("record_in_scope", true.into()),
        ];
        incident.extend(SHARED.iter().map(|name| (*name, shared(name))));
        if !(self.dirt && dice.per_mille(20)) {
            incident.push(("incident_date", calendar::date_text(happened).into()));
        }
        let kind = dice.early(words::VIOLENCE_TYPES);
        incident.push(("cp_incident_violence_type", kind.into()));
        for (from, to) in
            [("sex", "cp_sex"), ("age", "age"), ("location_current", "incident_location")]
        {
            incident.extend(value_of(case, from).map(|value| (to, value.clone())));
        }
        incident
            .extend(value_of(case, "disability_type").map(|v| ("cp_disability_type", v.clone())));
        incident
            .push(("cp_incident_description", secret("description", "hit with a belt".to_owned())));
        let perpetrator = format!("{} Vuthy", dice.pick(words::FAMILY_NAMES).0);
        incident.push(("cp_incident_perpetrator_name", secret("perpetrator", perpetrator)));
        incident
    }
}

fn count_of(dice: &mut Dice) -> u64 {
    if dice.per_mille(160) { 1 + dice.below(3).min(dice.below(3)) } else { 0 }
}

fn instant(day: i64, today: i64, dice: &mut Dice) -> i64 {
    let length = if day >= today { MORNING_MS } else { DAY_MS };
    day * DAY_MS + dice.between(0, length - 2)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::sim::Settings;

    #[test]
    fn incidents_belong_to_their_case_and_are_the_same_every_time() {
        let generator = Generator::new(&Settings { dirt: false, ..Settings::default() });
        let mut count = 0;
        for index in 0..300 {
            let case: Value = serde_json::from_str(&generator.case(index, None)).unwrap();
            let incidents = generator.incidents(index);
            assert_eq!(case["has_incidents"], !incidents.is_empty());
            assert_eq!(incidents, generator.incidents(index));
            for text in &incidents {
                let incident: Value = serde_json::from_str(text).unwrap();
                assert_eq!(incident["incident_case_id"], case["id"]);
                assert_eq!(incident["cp_sex"], case["sex"]);
                assert_eq!(incident["owned_by"], case["owned_by"]);
                assert!(incident["created_at"].as_str() <= incident["last_updated_at"].as_str());
                assert!(incident["incident_date"].as_str() <= incident["created_at"].as_str());
                count += 1;
            }
        }
        assert!((30..150).contains(&count), "{count}");
    }
}
