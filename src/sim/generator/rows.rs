//! The subforms of a case: plans, services, follow-ups, care, family, notes.

use super::super::calendar;
use super::super::words;
use super::Dice;
use super::case::Draft;
use super::json::{Json, Object};

/// Rows a generated case has at most in one subform.
const ROWS_MAX: u64 = 4;

impl Draft<'_> {
    /// Between no and a few rows, fewer being likelier; at least one when canaries are wanted.
    fn row_count(&mut self, rate: u64) -> u64 {
        let some = self.dice.per_mille(rate) || self.generator.canary;
        let count = 1 + self.dice.below(ROWS_MAX).min(self.dice.below(ROWS_MAX));
        if some { count } else { 0 }
    }

    /// An identifying text of a row.
    fn row_secret(
        &mut self,
        row: &mut Object,
        (subform, number, name): (&str, u64, &'static str),
        rate: u64,
        plain: impl FnOnce(&mut Dice) -> String,
    ) {
        let text = plain(&mut self.dice);
        if self.dice.per_mille(rate) || self.generator.canary {
            row.push((name, self.secret(&format!("{subform}.{number}.{name}"), text)));
        }
    }

    /// Puts a subform that has rows; the server leaves one out that never had any.
    fn put_rows(&mut self, form: &'static str, rows: Vec<Json>) {
        if !rows.is_empty() {
            self.put(form, Json::List(rows));
        }
    }

    /// A day after registration, not after today.
    fn day_within(&mut self, days: i64) -> i64 {
        (self.registered + self.dice.between(0, days)).min(self.today)
    }

    /// The concerns of the case, and the rows that detail some of them.
    pub(super) fn concern_rows(&mut self) -> (Json, Json) {
        let mut concerns: Vec<&'static str> = Vec::new();
        for _ in 0..self.dice.below(4) {
            let concern = self.dice.early(words::CONCERNS);
            if !concerns.contains(&concern) {
                concerns.push(concern);
            }
        }
        let form = "protection_concern_detail_subform_section";
        let mut rows = Vec::new();
        for number in 0..self.row_count(420) {
            let concern = self.dice.early(words::CONCERNS);
            if !concerns.contains(&concern) {
                concerns.push(concern);
            }
            let mut row: Object = vec![
                ("unique_id", self.dice.uuid().into()),
                ("protection_concern_type", concern.into()),
                ("date_concern_identified", self.dice.early(words::CONCERN_IDENTIFIED).into()),
            ];
            let detail = (form, number, "concern_details");
            self.row_secret(&mut row, detail, 500, |dice| dice.pick(words::NOTES).to_owned());
            rows.push(Json::Object(row));
        }
        (Json::words(&concerns), Json::List(rows))
    }

    /// Registration, assessment and case plan; whether there is a plan with an intervention.
    pub(super) fn put_plan(&mut self) -> bool {
        self.put("registration_date", calendar::date_text(self.registered));
        if self.dice.per_mille(680) {
            let day = self.day_within(21);
            self.put("assessment_requested_on", calendar::date_text(day));
        }
        if self.dice.per_mille(200) {
            let due = self.registered + 14;
            self.put("assessment_due_date", calendar::date_text(due));
        }
        let form = "cp_case_plan_subform_case_plan_interventions";
        let mut rows = Vec::new();
        for number in 0..self.row_count(520) {
            let mut row: Object = vec![("unique_id", self.dice.uuid().into())];
            for (name, text) in [
                ("intervention_service_to_be_provided", "home visits"),
                ("intervention_service_goal", "back at school"),
                ("case_plan_provider_and_contact_details", "Sister Chan 012 000 111"),
            ] {
                self.row_secret(&mut row, (form, number, name), 1_000, |_| text.to_owned());
            }
            let due = self.registered + self.dice.between(20, 200);
            row.push(("case_plan_timeframe", calendar::date_text(due).into()));
            match self.dice.below(3) {
                0 => row.push(("intervention_service_success", true.into())),
                1 => row.push(("intervention_service_success", "false".into())),
                _ => {}
            }
            rows.push(Json::Object(row));
        }
        let planned = !rows.is_empty();
        if planned {
            let day = self.day_within(40);
            self.put("date_case_plan", calendar::date_text(day));
            let approval = self.dice.early(&["approved", "pending", "rejected"]);
            self.put("approval_status_case_plan", approval);
            let comment = self.secret("case_plan_approved_comments", "ok for Bopha".to_owned());
            self.put("case_plan_approved_comments", comment);
        }
        self.put("has_case_plan", planned);
        self.put_rows(form, rows);
        planned
    }

    /// Services; answers the workflow they lead to.
    pub(super) fn put_services(&mut self) -> Option<&'static str> {
        let mut workflow: Option<(i64, &'static str)> = None;
        let mut rows = Vec::new();
        let mut times = Vec::new();
        let count = self.row_count(560);
        for number in 0..count {
            let day = self.day_within(200);
            let response = self.instant(day);
            let done_day = day + self.dice.between(0, 45);
            let done = self.dice.per_mille(640) && done_day < self.today;
            let stage = self.dice.early(words::RESPONSE_TYPES);
            let mut row = self.service_row(number, response, stage);
            row.push(("service_implemented", done_word(done).into()));
            if done {
                let instant = calendar::instant_text(response.max(self.instant(done_day)));
                times.push(Json::from(instant.clone()));
                row.push(("service_implemented_day_time", instant.into()));
            } else if workflow.is_none_or(|(newest, _)| response > newest) {
                workflow = Some((response, stage));
            }
            rows.push(Json::Object(row));
        }
        self.put_rows("services_section", rows);
        if count > 0 {
            self.put("service_implemented_day_times", Json::List(times));
        }
        match workflow {
            Some((_, stage)) => Some(stage),
            None => (count > 0).then_some("services_implemented"),
        }
    }

    fn service_row(&mut self, number: u64, response: i64, stage: &'static str) -> Object {
        let form = "services_section";
        let mut row: Object = vec![
            ("unique_id", self.dice.uuid().into()),
            ("service_type", self.dice.early(words::SERVICE_TYPES).into()),
            ("service_response_type", stage.into()),
            ("service_response_day_time", calendar::instant_text(response).into()),
        ];
        if self.more.per_mille(300) {
            let day = response.div_euclid(calendar::DAY_MS) + self.more.between(2, 40);
            row.push(("service_appointment_date", calendar::date_text(day).into()));
        }
        if self.dice.per_mille(400) {
            row.push(("service_status_referred", true.into()));
            let user = self.generator.staff(self.worker ^ 1);
            row.push(("service_implementing_agency_individual", user.into()));
            let agency = self.dice.pick(words::AGENCIES).0;
            row.push(("service_implementing_agency", agency.into()));
        }
        for (name, rate, text) in [
            ("service_provider", 200, "Dr Keo, health centre"),
            ("service_location", 200, "school of Phum Thmei"),
            ("service_referral_notes", 350, "please call the aunt first"),
            ("note_on_referral_from_provider", 80, "came with her brother"),
        ] {
            self.row_secret(&mut row, (form, number, name), rate, |_| text.to_owned());
        }
        row
    }

    /// Follow-ups, done and planned.
    pub(super) fn put_followups(&mut self) {
        let form = "followup_subform_section";
        let (mut rows, mut dates) = (Vec::new(), Vec::new());
        for number in 0..self.row_count(520) {
            let needed = self.registered + self.dice.between(5, 240);
            let kind = self.dice.early(words::FOLLOWUP_TYPES);
            let mut row: Object = vec![
                ("unique_id", self.dice.uuid().into()),
                ("followup_type", kind.into()),
                ("followup_needed_by_date", calendar::date_text(needed).into()),
            ];
            if kind == "for_service" {
                row.push(("followup_service_type", self.dice.early(words::SERVICE_TYPES).into()));
            }
            let done = (needed + self.dice.between(-4, 10)).max(self.registered);
            if done <= self.today && self.dice.per_mille(750) {
                let date = calendar::date_text(done);
                dates.push(Json::from(date.clone()));
                row.push(("followup_date", date.into()));
            }
            let comment = (form, number, "followup_comments");
            self.row_secret(&mut row, comment, 600, |dice| dice.pick(words::NOTES).to_owned());
            rows.push(Json::Object(row));
        }
        if !rows.is_empty() {
            self.put("followup_dates", Json::List(dates));
        }
        self.put_rows(form, rows);
    }

    /// Care arrangements, and the current one beside them.
    pub(super) fn put_care(&mut self) {
        let form = "care_arrangements_section";
        let mut rows = Vec::new();
        let mut current: Option<(i64, &'static str, Json)> = None;
        let mut started = self.registered;
        for number in 0..self.row_count(380) {
            started = (started + self.dice.between(1, 120)).min(self.today);
            let kind = self.dice.early(words::CARE_TYPES);
            let family = self.dice.pick(words::FAMILY_NAMES).0;
            let caregiver = format!("{family} {}", self.dice.pick(words::GIRLS).0);
            let mut row: Object = vec![
                ("unique_id", self.dice.uuid().into()),
                ("care_arrangements_type", kind.into()),
                ("care_arrangement_started_date", calendar::date_text(started).into()),
                ("relationship_caregiver", self.dice.pick(words::RELATIONS).into()),
                ("caregiver_age", self.dice.between(19, 75).into()),
            ];
            let name = (form, number, "name_caregiver");
            self.row_secret(&mut row, name, 1_000, |_| caregiver);
            if current.as_ref().is_none_or(|(day, ..)| started > *day) {
                let name = row.last().map_or(Json::Null, |(_, value)| value.clone());
                current = Some((started, kind, name));
            }
            for (name, text) in [
                ("nickname_caregiver", "Ming Pov"),
                ("care_agency_name", "Romdoul House, street 5"),
                ("care_arrangements_type_notes", "sleeps in the kitchen"),
            ] {
                self.row_secret(&mut row, (form, number, name), 150, |_| text.to_owned());
            }
            rows.push(Json::Object(row));
        }
        if let Some((day, kind, name)) = current {
            self.put("current_care_arrangements_type", kind);
            self.put("current_care_arrangement_started_date", calendar::date_text(day));
            self.put("current_name_caregiver", name);
        }
        self.put_rows(form, rows);
    }

    /// Where the case came from, and the reunification of a child that was separated.
    pub(super) fn put_reunification(&mut self) {
        if self.more.per_mille(700) {
            let source = self.more.early(words::SOURCES);
            self.put("source_identification_referral", source);
        }
        let is_separated = self.object.iter().any(|(name, _)| *name == "protection_status");
        if !(is_separated && self.more.per_mille(350)) {
            return;
        }
        let form = "reunification_details_section";
        let day = (self.registered + self.more.between(10, 300)).min(self.today);
        let name = self.secret(&format!("{form}.0.name_reunification"), "her aunt Sok".to_owned());
        let row: Object = vec![
            ("unique_id", self.more.uuid().into()),
            ("date_reunification", calendar::date_text(day).into()),
            ("name_reunification", name),
        ];
        self.put(form, Json::List(vec![Json::Object(row)]));
    }

    /// The tasks that are due and not done, as the server gathers them.
    pub(super) fn put_due(&mut self) {
        if self.more.per_mille(300) {
            let due = self.registered + self.more.between(14, 40);
            self.put("case_plan_due_date", calendar::date_text(due));
        }
        for (due, done, to) in [
            ("assessment_due_date", "assessment_requested_on", "assessment_due_dates"),
            ("case_plan_due_date", "date_case_plan", "case_plan_due_dates"),
        ] {
            if let Some(date) = open_of(&self.object, due, done) {
                self.put(to, Json::List(vec![date]));
            }
        }
        for (form, due, done, to) in [
            (
                "followup_subform_section",
                "followup_needed_by_date",
                "followup_date",
                "followup_due_dates",
            ),
            (
                "services_section",
                "service_appointment_date",
                "service_implemented_day_time",
                "service_due_dates",
            ),
        ] {
            let Some(Json::List(rows)) = value_of(&self.object, form) else { continue };
            let open = |row: &Json| match row {
                Json::Object(row) => open_of(row, due, done),
                _ => None,
            };
            let dates: Vec<_> = rows.iter().filter_map(open).collect();
            if !dates.is_empty() {
                self.put(to, Json::List(dates));
            }
        }
    }

    /// Relatives and wishes.
    pub(super) fn put_family(&mut self) {
        let form = "family_details_section";
        let mut rows = Vec::new();
        for number in 0..self.row_count(450) {
            let family = self.dice.pick(words::FAMILY_NAMES).0;
            let mut row: Object = vec![
                ("unique_id", self.dice.uuid().into()),
                ("relation", self.dice.early(words::RELATIONS).into()),
                ("relation_is_caregiver", self.dice.per_mille(400).into()),
                ("relation_age", self.dice.between(3, 80).into()),
            ];
            for (name, rate, text) in [
                ("relation_name", 1_000, format!("{family} Sothea")),
                ("relation_nickname", 100, "Yeay Mao".to_owned()),
                ("relation_other_family", 50, "cousin in Kep".to_owned()),
                ("relation_address_current", 200, "behind the market".to_owned()),
                ("relation_telephone", 300, format!("0{}", self.dice.digits(8))),
                ("relation_death_details", 30, "accident on road 6".to_owned()),
            ] {
                self.row_secret(&mut row, (form, number, name), rate, |_| text);
            }
            rows.push(Json::Object(row));
        }
        self.put(form, Json::List(rows));
        if self.dice.per_mille(60) || self.generator.canary {
            let form = "child_preferences_section";
            let mut row: Object = vec![("unique_id", self.dice.uuid().into())];
            let name = (form, 0, "wishes_name");
            self.row_secret(&mut row, name, 1_000, |_| "grandmother Sok".to_owned());
            self.put(form, Json::List(vec![Json::Object(row)]));
        }
    }

    /// Notes of the case worker.
    pub(super) fn put_notes(&mut self) {
        let form = "notes_section";
        let mut rows = Vec::new();
        for number in 0..self.row_count(300) {
            let day = self.day_within(300);
            let mut row: Object = vec![
                ("unique_id", self.dice.uuid().into()),
                ("note_date", calendar::instant_text(self.instant(day)).into()),
                ("note_created_by", self.generator.staff(self.worker).into()),
            ];
            let subject = (form, number, "note_subject");
            self.row_secret(&mut row, subject, 1_000, |_| "visit to her aunt".to_owned());
            let text = (form, number, "note_text");
            self.row_secret(&mut row, text, 1_000, |dice| dice.pick(words::NOTES).to_owned());
            rows.push(Json::Object(row));
        }
        self.put(form, Json::List(rows));
    }
}

pub(super) fn value_of<'o>(object: &'o Object, name: &str) -> Option<&'o Json> {
    object.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The day that a task is due, unless it is done.
fn open_of(object: &Object, due: &str, done: &str) -> Option<Json> {
    value_of(object, done).is_none().then(|| value_of(object, due).cloned()).flatten()
}

fn done_word(done: bool) -> &'static str {
    if done { "implemented" } else { "not_implemented" }
}
