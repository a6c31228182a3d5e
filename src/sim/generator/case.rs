//! One case, top level.

use super::super::calendar::{self, DAY_MS};
use super::super::country;
use super::super::words;
use super::json::{Json, Object};
use super::{Dice, Generator};

/// How far back the first registrations lie, in days.
const HISTORY_DAYS: i64 = 1_095;
/// No generated instant of today is later than this after midnight UTC: the working day begins.
pub(super) const MORNING_MS: i64 = 1_800_000;
/// Bit of the second streams of cases, above every index.
const MORE_STREAMS: u64 = 1 << 61;

/// A case being made.
pub(super) struct Draft<'g> {
    pub(super) generator: &'g Generator,
    pub(super) index: u64,
    pub(super) dice: Dice,
    /// A second stream, for fields that came later: what the first one decides stays as it was.
    pub(super) more: Dice,
    pub(super) today: i64,
    /// The day of registration.
    pub(super) registered: i64,
    /// The number of the district where the child lives.
    district: usize,
    /// The number of the case worker.
    pub(super) worker: u64,
    /// The newest instant in the case so far, in milliseconds.
    latest_ms: i64,
    pub(super) object: Object,
}

/// What became of a case.
struct Course {
    status: &'static str,
    closed_on: Option<i64>,
    reopened_on: Option<i64>,
}

impl Generator {
    /// The case with this index.
    pub(super) fn draft(&self, index: u64) -> Object {
        let mut dice = self.dice.stream(index);
        let span = if dice.per_mille(300) { HISTORY_DAYS / 2 } else { HISTORY_DAYS };
        let registered = self.today - dice.between(0, span);
        let district = self.country.district_number(dice.below(u64::from(u32::MAX)) as u32);
        let worker = 2 * district as u64 + dice.below(2);
        let object = Vec::with_capacity(110);
        let today = self.today;
        let mut draft = Draft {
            generator: self,
            index,
            dice,
            more: self.dice.stream(index | MORE_STREAMS),
            today,
            registered,
            district,
            worker,
            latest_ms: 0,
            object,
        };
        draft.fill();
        let Draft { mut object, mut dice, .. } = draft;
        if self.dirt {
            spoil(index, self.today, &mut object, &mut dice);
        }
        object
    }
}

impl Draft<'_> {
    pub(super) fn put(&mut self, name: &'static str, value: impl Into<Json>) {
        self.object.push((name, value.into()));
    }

    /// The token of an identifying field, or the text itself when no canaries are wanted.
    pub(super) fn secret(&self, name: &str, plain: String) -> Json {
        let canary = self.generator.canary;
        Json::Text(if canary { format!("CANARY-{}-{name}", self.index) } else { plain })
    }

    /// Puts an identifying text `rate` times in a thousand, and always when canaries are wanted.
    fn identify(&mut self, name: &'static str, rate: u64, plain: impl FnOnce(&mut Dice) -> String) {
        let text = plain(&mut self.dice);
        if self.dice.per_mille(rate) || self.generator.canary {
            let value = self.secret(name, text);
            self.put(name, value);
        }
    }

    fn fill(&mut self) {
        let id = self.dice.uuid();
        let enabled = !self.dice.per_mille(20);
        self.put("id", id);
        self.put("enabled", enabled);
        self.put("record_state", enabled);
        let female = self.dice.per_mille(520);
        self.put_names(female);
        self.put_person(female);
        self.put_documents();
        self.put_owner();
        self.put_places();
        self.put_concerns();
        let course = self.course();
        let plan = self.put_plan();
        let services = self.put_services();
        self.put_followups();
        self.put_care();
        self.put_family();
        self.put_notes();
        self.put_course(&course, plan, services);
        self.put_attachments();
        self.put_stamps(&course);
        self.put_reunification();
        self.put_due();
    }

    fn put_names(&mut self, female: bool) {
        let family = *self.dice.pick(words::FAMILY_NAMES);
        let given = *self.dice.pick(if female { words::GIRLS } else { words::BOYS });
        let khmer = self.dice.per_mille(350);
        let (first, last) = if khmer { (given.1, family.1) } else { (given.0, family.0) };
        self.identify("name", 1_000, |_| format!("{first} {last}"));
        self.identify("name_first", 1_000, |_| first.to_owned());
        self.identify("name_last", 980, |_| last.to_owned());
        self.identify("name_middle", 30, |_| "Sok".to_owned());
        self.identify("name_nickname", 200, |dice| dice.pick(words::NICKNAMES).to_owned());
        self.identify("name_other", 60, |_| format!("{} {}", family.1, given.1));
    }

    fn put_person(&mut self, female: bool) {
        if !self.dice.per_mille(15) {
            self.put("sex", if female { "female" } else { "male" });
        }
        let years = match self.dice.below(100) {
            0..3 => self.dice.between(18, 23),
            3..40 => self.dice.between(12, 17),
            40..75 => self.dice.between(6, 11),
            _ => self.dice.between(0, 5),
        };
        let born = self.today - years * 36_525 / 100 - self.dice.between(1, 364);
        let known = self.dice.per_mille(560);
        if !self.dice.per_mille(40) {
            self.put("age", years);
        }
        if known || self.generator.canary {
            self.put("date_of_birth", calendar::date_text(born));
        }
        if !known {
            self.put("estimated", true);
        } else if self.dice.per_mille(300) {
            self.put("estimated", false);
        }
        if self.dice.per_mille(820) {
            let nationality = self.dice.early(words::NATIONALITIES);
            self.put("nationality", Json::words(&[nationality]));
        }
        if self.dice.per_mille(40) {
            self.put("maritial_status", "single");
        }
        self.identify("occupation", 250, |dice| dice.pick(words::OCCUPATIONS).to_owned());
        self.identify("telephone_current", 400, |dice| format!("0{}", dice.digits(8)));
        self.identify("telephone_last", 50, |dice| format!("+855 {}", dice.digits(8)));
        for name in ["address_current", "address_last"] {
            self.identify(name, 500, |dice| {
                format!("House {}, {}", dice.digits(2), dice.pick(words::STREETS))
            });
        }
        if self.dice.per_mille(800) {
            let status = self.dice.early(words::DISPLACEMENT);
            self.put("displacement_status", status);
        }
        if self.dice.per_mille(110) {
            let disability = self.dice.early(words::DISABILITIES);
            self.put("disability_type", disability);
        }
    }

    fn put_documents(&mut self) {
        let case_id = self.dice.uuid();
        let short = case_id[29..].to_owned();
        let district = self.generator.country.district(self.district).to_owned();
        self.put("case_id", case_id);
        self.identify("short_id", 1_000, |_| short.clone());
        self.identify("case_id_display", 1_000, |_| format!("KH-{district}-{short}"));
        self.identify("national_id_no", 180, |dice| dice.digits(9));
        self.identify("other_id_no", 60, |dice| format!("B{}", dice.digits(7)));
        self.identify("oscar_number", 300, |dice| format!("osc-{}", dice.digits(6)));
        self.identify("family_number", 120, |dice| format!("F{}", dice.digits(5)));
        for name in [
            "cpims_id",
            "ration_card_no",
            "icrc_ref_no",
            "rc_id_no",
            "unhcr_id_no",
            "unhcr_individual_no",
            "un_no",
            "other_agency_id",
            "unhcr_protection_code",
        ] {
            self.identify(name, 15, |dice| dice.digits(8));
        }
    }

    fn put_owner(&mut self) {
        let worker = self.generator.staff(self.worker);
        let agency = words::AGENCIES[self.worker as usize % words::AGENCIES.len()].0;
        let district = self.generator.country.district(self.district).to_owned();
        let name = format!("Worker {}", self.worker);
        let full = self.secret("owned_by_full_name", name);
        self.put("owned_by", worker.clone());
        self.put("owned_by_full_name", full);
        self.put("created_by", worker.clone());
        self.put("last_updated_by", worker.clone());
        self.put("associated_user_names", Json::List(vec![worker.into()]));
        self.put("owned_by_agency_id", agency);
        self.put("created_organization", agency);
        let group = format!("usergroup-{}", &district[..2]);
        self.put("owned_by_groups", Json::List(vec![group.into()]));
        self.put("reporting_location_hierarchy", country::dotted_path(&district));
        self.put("owned_by_location", district);
        let module = if self.dice.per_mille(10) { "primeromodule-gbv" } else { "primeromodule-cp" };
        self.put("module_id", module);
        self.put("case_type", "person");
        self.put("has_photo", false);
        let incidents = self.generator.incident_count(self.index);
        self.put("has_incidents", incidents > 0);
        self.put("not_edited_by_owner", false);
        self.put("referred_users_present", false);
        for name in [
            "referred_users",
            "transferred_to_users",
            "transferred_to_user_groups",
            "current_alert_types",
            "incident_details",
        ] {
            self.put(name, Json::List(Vec::new()));
        }
        self.put("record_in_scope", true);
        self.put("alert_count", 0_i64);
        self.put("family_id", Json::Null);
    }

    fn put_places(&mut self) {
        let country = &self.generator.country;
        let place = |dice: &mut Dice| {
            let near = dice.per_mille(850);
            let draw = dice.below(u64::from(u32::MAX)) as u32;
            let district = if near { self.district } else { country.district_number(draw) };
            country.commune(district, draw >> 8).to_owned()
        };
        let current = place(&mut self.dice);
        let caregiver = place(&mut self.dice);
        if !self.dice.per_mille(60) {
            self.put("location_current", current);
        }
        if self.dice.per_mille(350) {
            self.put("location_caregiver", caregiver);
        }
        if self.dice.per_mille(420) {
            let kind = self.dice.pick(words::CASE_TYPES);
            self.put("type_of_case", kind);
            if kind.starts_with("children_undergoing") || self.dice.per_mille(200) {
                let placement = self.dice.early(words::PLACEMENTS);
                self.put("type_of_placement", placement);
            }
        }
    }

    fn put_concerns(&mut self) {
        if self.dice.per_mille(170) {
            let status = *self.dice.pick(&[&"separated", &"unaccompanied"]);
            self.put("protection_status", status);
            if self.dice.per_mille(600) {
                let tracing = self.dice.pick(words::TRACING);
                self.put("tracing_status", tracing);
            }
        }
        if self.dice.per_mille(850) {
            let risk = self.dice.early(&["low", "medium", "high"]);
            self.put("risk_level", risk);
        }
        match self.dice.below(10) {
            0..3 => self.put("urgent_protection_concern", false),
            3 => self.put("urgent_protection_concern", "true"),
            _ => {}
        }
        match self.dice.below(20) {
            0 => self.put("consent_reporting", false),
            1..3 => self.put("consent_reporting", "true"),
            3..14 => self.put("consent_reporting", true),
            _ => {}
        }
        if self.dice.per_mille(500) {
            self.put("consent_for_services", true);
        }
        self.identify("consent_source_other", 20, |_| "asked the village chief".to_owned());
        self.identify("disclosure_deny_details", 20, |_| "fears her stepfather".to_owned());
        let concerns = self.concern_rows();
        self.put("protection_concerns", concerns.0);
        if concerns.1 != Json::List(Vec::new()) {
            self.put("protection_concern_detail_subform_section", concerns.1);
        }
        self.identify("protection_concerns_other", 40, |_| "sleeps at the bus station".to_owned());
    }

    /// Decides how the case went: open, closed, reopened, closed again.
    fn course(&mut self) -> Course {
        let days = self.today - self.registered;
        let closed = days > 45 && self.dice.per_mille(480);
        let on = self.registered + self.dice.between(30.min(days), days.max(1));
        let on = on.min(self.today);
        let reopened = self.dice.per_mille(80);
        let again = self.dice.per_mille(250);
        let reopened_on = self.dice.between(on, self.today);
        let odd = self.dice.below(1_000);
        match (closed, reopened) {
            (true, false) => Course { status: "closed", closed_on: Some(on), reopened_on: None },
            (true, true) => {
                let status = if again { "closed" } else { "open" };
                Course { status, closed_on: Some(on), reopened_on: Some(reopened_on) }
            }
            (false, _) => {
                let status = match odd {
                    0..8 => "transferred",
                    8..16 => "duplicate",
                    _ => "open",
                };
                Course { status, closed_on: None, reopened_on: None }
            }
        }
    }

    fn put_course(&mut self, course: &Course, plan: bool, services: Option<&'static str>) {
        self.put("status", course.status);
        let reason = self.dice.early(words::CLOSURE_REASONS);
        if let Some(day) = course.closed_on {
            self.put("date_closure", calendar::date_text(day));
            self.put("closure_reason", reason);
        }
        self.identify("closure_reason_other", 5, |_| "moved to her uncle in Poipet".to_owned());
        let mut logs = Vec::new();
        if let Some(day) = course.reopened_on {
            self.put("case_status_reopened", true);
            let user = self.generator.staff(self.worker);
            logs.push(Json::Object(vec![
                ("unique_id", self.dice.uuid().into()),
                ("reopened_date", calendar::instant_text(self.instant(day)).into()),
                ("reopened_user", user.into()),
            ]));
        }
        self.put("reopened_logs", Json::List(logs));
        let workflow = match (course.status, course.reopened_on, services, plan) {
            ("closed", ..) => "closed",
            (_, _, Some(service), _) => service,
            (_, Some(_), ..) => "reopened",
            (_, _, None, true) => "case_plan",
            _ => "new",
        };
        self.put("workflow", workflow);
    }

    fn put_attachments(&mut self) {
        let photographed = self.dice.per_mille(150) || self.generator.canary;
        let file = self.dice.digits(10);
        let photo = self.secret("photo", format!("/rails/active_storage/blobs/{file}/face.jpg"));
        self.put("photo", if photographed { photo } else { Json::Null });
        for name in ["photos", "recorded_audio", "other_documents", "upload_bid_document"] {
            let file_name = self.secret(name, format!("scan_{file}.jpg"));
            let attachments = if self.generator.canary {
                vec![Json::Object(vec![("id", Json::Int(1)), ("file_name", file_name)])]
            } else {
                Vec::new()
            };
            self.put(name, Json::List(attachments));
        }
    }

    fn put_stamps(&mut self, course: &Course) {
        let entered = self.registered + self.dice.between(0, 3);
        let created = self.instant(entered.min(self.today));
        let last = course.reopened_on.or(course.closed_on).unwrap_or(entered).min(self.today);
        let touched = self.dice.between(last, self.today);
        let updated = self.instant(touched).max(created + 1).max(self.latest_ms);
        self.put("created_at", calendar::instant_text(created));
        self.put("last_updated_at", calendar::instant_text(updated));
    }

    /// An instant at which something happened on a day, in milliseconds; of today, one before the
    /// working day began.
    pub(super) fn instant(&mut self, day: i64) -> i64 {
        let length = if day >= self.today { MORNING_MS } else { DAY_MS };
        let instant = day * DAY_MS + self.dice.between(0, length - 2);
        self.latest_ms = self.latest_ms.max(instant);
        instant
    }
}

/// The wrong, odd and missing values of real data, at small rates.
fn spoil(index: u64, today: i64, object: &mut Object, dice: &mut Dice) {
    if index % 100_000 == 13 {
        replace(object, "assessment_requested_on", "not known".into());
    }
    match dice.below(1_000) {
        0..4 => object.retain(|(name, _)| *name != "registration_date"),
        4..8 => replace(object, "sex", Json::Null),
        8..12 => replace(object, "age", "ten".into()),
        12..15 => replace(object, "age", Json::Int(-1)),
        15..19 => replace(object, "status", "weird_value".into()),
        19..24 => replace(object, "risk_level", "very_high".into()),
        24..28 => replace(object, "location_current", "9999".into()),
        28..33 => replace(object, "case_id_display", "KH-0000-duplicat".to_owned().into()),
        33..37 => {
            let day = today + dice.between(1, 400);
            replace(object, "registration_date", calendar::date_text(day).into());
        }
        37..40 => replace(object, "services_section", Json::Null),
        40..43 => replace(object, "protection_concerns", "street_child".into()),
        43..46 => object.retain(|(name, _)| *name != "module_id"),
        46..49 => replace(object, "location_current", Json::Int(102)),
        49..60 => {
            if let Some((_, Json::List(rows))) =
                object.iter_mut().find(|(name, _)| *name == "services_section")
                && let Some(Json::Object(row)) = rows.first_mut()
            {
                replace(row, "service_implemented_day_time", "not implemented".into());
                replace(row, "service_implemented", "implemented".into());
            }
        }
        _ => {}
    }
}

fn replace(object: &mut Object, name: &'static str, value: Json) {
    match object.iter_mut().find(|(key, _)| *key == name) {
        Some((_, old)) => *old = value,
        None => object.push((name, value)),
    }
}
