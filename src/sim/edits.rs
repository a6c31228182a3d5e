//! Seeded random edits, as case workers make them during a day.

use serde_json::{Value, json};

use super::calendar::{self, DAY_MS};
use super::generator::{Dice, Generator};
use super::save::{self, Case};
use super::store::{Row, Store};
use super::words;
use crate::error::{Error, Result};

/// Changes of an incident in a thousand edits of cases.
const INCIDENT_CHANGES: u64 = 50;

/// What an edit did to a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EditKind {
    /// A new case.
    Created,
    /// A field or a subform row that indicators use got another value.
    Changed,
    /// Only fields that point at a person changed.
    Renamed,
    /// The status became closed.
    Closed,
    /// A closed case was opened again, with a log row.
    Reopened,
    /// `record_state` became false.
    Disabled,
    /// `record_state` became true again.
    Enabled,
    /// A service row was added.
    ServiceAdded,
    /// A service row was removed.
    ServiceRemoved,
    /// A service got its day and time.
    ServiceImplemented,
    /// Nothing but the stamp changed, as when the nightly age job runs.
    Touched,
}

/// One edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The record id of the case.
    pub case: String,
    /// What was done.
    pub kind: EditKind,
}

/// Makes edits one after the other.
pub(super) struct Editor {
    pub(super) generator: Generator,
    /// Index of the next new case.
    next_index: u64,
}

impl Editor {
    /// An editor whose first new case has this index.
    pub(super) fn new(generator: Generator, next_index: u64) -> Self {
        Self { generator, next_index }
    }

    /// One random edit.
    pub(super) fn edit(&mut self, store: &mut Store) -> Result<Edit> {
        let number = store.dice.below(u64::from(u32::MAX));
        let draw = store.dice.below(100);
        match store.nth(number) {
            Some(id) if draw >= 10 => self.edit_case(store, id, draw),
            _ => self.create(store),
        }
    }

    /// What an edit of a case brings with it for incidents: those of a new case, and now and then a change of
    /// an old one.
    pub(super) fn follow(&self, edit: &Edit, incidents: &mut Store) -> Result<()> {
        let now = calendar::instant_text(incidents.now_ms());
        if edit.kind == EditKind::Created {
            for text in self.generator.incidents(self.next_index - 1) {
                let mut incident: Case = serde_json::from_str(&text)
                    .map_err(|cause| Error::bug("reading a generated incident").caused_by(cause))?;
                for name in ["created_at", "last_updated_at"] {
                    incident.insert(name.to_owned(), now.clone().into());
                }
                incidents.load(Row::read(&Value::Object(incident).to_string())?);
            }
        } else if incidents.dice.per_mille(INCIDENT_CHANGES) {
            let number = incidents.dice.below(u64::from(u32::MAX));
            let kind = incidents.dice.pick(words::VIOLENCE_TYPES);
            if let Some(id) = incidents.nth(number) {
                let mut fields = Case::new();
                fields.insert("cp_incident_violence_type".to_owned(), kind.into());
                incidents.touch(&id, fields)?;
            }
        }
        Ok(())
    }

    fn create(&mut self, store: &mut Store) -> Result<Edit> {
        let text = self.generator.case(self.next_index, None);
        self.next_index += 1;
        let mut case: Case = serde_json::from_str(&text)
            .map_err(|cause| Error::bug("reading a generated case").caused_by(cause))?;
        let now_ms = store.now_ms();
        case.insert("created_at".to_owned(), calendar::instant_text(now_ms).into());
        if store.dice.per_mille(600) {
            let today = calendar::date_text(now_ms.div_euclid(DAY_MS));
            case.insert("registration_date".to_owned(), today.into());
        }
        let id = save::text_of(&case, "id").to_owned();
        let user = self.user(store);
        store.save(case, &user)?;
        Ok(Edit { case: id, kind: EditKind::Created })
    }

    fn edit_case(&mut self, store: &mut Store, id: String, draw: u64) -> Result<Edit> {
        let Some(row) = store.newest(&id) else { return self.create(store) };
        let mut case = row.document();
        let today = store.now_ms().div_euclid(DAY_MS);
        let kind = choose(&case, draw);
        apply(kind, &mut case, today, &mut store.dice, &self.generator);
        let user = self.user(store);
        store.save(case, &user)?;
        Ok(Edit { case: id, kind })
    }

    fn user(&self, store: &mut Store) -> String {
        self.generator.staff(store.dice.below(400))
    }
}

/// The kind of edit for a draw below 100, as far as the case allows it.
fn choose(case: &Case, draw: u64) -> EditKind {
    let closed = save::text_of(case, "status") == "closed";
    let enabled = case.get("enabled") != Some(&Value::Bool(false));
    let services = save::rows(case, "services_section").count();
    let waiting = save::rows(case, "services_section")
        .any(|row| save::text_of(row, "service_implemented") == "not_implemented");
    match draw {
        _ if !enabled => EditKind::Enabled,
        ..25 if closed => EditKind::Reopened,
        ..25 => EditKind::Closed,
        25..29 => EditKind::Disabled,
        29..42 => EditKind::ServiceAdded,
        42..47 if services > 0 => EditKind::ServiceRemoved,
        47..57 if waiting => EditKind::ServiceImplemented,
        57..65 => EditKind::Touched,
        65..70 => EditKind::Renamed,
        _ => EditKind::Changed,
    }
}

fn apply(kind: EditKind, case: &mut Case, today: i64, dice: &mut Dice, generator: &Generator) {
    let mut set = |name: &str, value: Value| case.insert(name.to_owned(), value);
    match kind {
        EditKind::Closed => {
            set("status", "closed".into());
            set("closure_reason", dice.early(words::CLOSURE_REASONS).into());
        }
        EditKind::Reopened => {
            set("status", "open".into());
            set("case_status_reopened", true.into());
        }
        EditKind::Disabled => drop(set("record_state", false.into())),
        EditKind::Enabled => drop(set("record_state", true.into())),
        EditKind::Renamed => {
            let nickname = dice.pick(words::NICKNAMES);
            let old = case.get("name_nickname").and_then(Value::as_str).unwrap_or_default();
            let new = if old.starts_with("CANARY-") {
                format!("{old}-{nickname}")
            } else {
                nickname.into()
            };
            case.insert("name_nickname".to_owned(), new.into());
        }
        EditKind::ServiceAdded => add_service(case, today, dice),
        EditKind::ServiceRemoved => {
            let services = case.get_mut("services_section").and_then(Value::as_array_mut);
            if let Some(services) = services.filter(|services| !services.is_empty()) {
                services.remove(dice.below(services.len() as u64) as usize);
            }
        }
        EditKind::ServiceImplemented => implement_service(case, today),
        EditKind::Changed => change(case, today, dice, generator),
        EditKind::Created | EditKind::Touched => {}
    }
}

fn add_service(case: &mut Case, today: i64, dice: &mut Dice) {
    let asked = calendar::instant_text((today - dice.between(0, 20)) * DAY_MS + 3_600_000);
    let service = json!({
        "unique_id": dice.uuid(),
        "service_type": dice.early(words::SERVICE_TYPES),
        "service_response_type": dice.early(words::RESPONSE_TYPES),
        "service_response_day_time": asked,
        "service_status_referred": dice.per_mille(400),
    });
    push(case, "services_section", service);
}

fn implement_service(case: &mut Case, today: i64) {
    let services = case.get_mut("services_section").and_then(Value::as_array_mut);
    let rows = services.into_iter().flatten().filter_map(Value::as_object_mut);
    let mut waiting =
        rows.filter(|row| save::text_of(row, "service_implemented") == "not_implemented");
    if let Some(row) = waiting.next() {
        let time = calendar::instant_text(today * DAY_MS + 5_400_000);
        row.insert("service_implemented_day_time".to_owned(), time.into());
    }
}

/// Gives one field that indicators use another value.
fn change(case: &mut Case, today: i64, dice: &mut Dice, generator: &Generator) {
    let draw = dice.below(u64::from(u32::MAX)) as u32;
    let district = generator.country.district_number(draw);
    let day = calendar::date_text(today - dice.between(0, 90));
    let (name, value): (&str, Value) = match dice.below(12) {
        0 => ("risk_level", dice.pick(&["high", "medium", "low"]).into()),
        1 => ("location_current", generator.country.commune(district, draw >> 7).into()),
        2 => ("displacement_status", dice.pick(words::DISPLACEMENT).into()),
        3 => ("disability_type", dice.pick(words::DISABILITIES).into()),
        4 => ("protection_status", dice.pick(&["unaccompanied", "separated"]).into()),
        5 => ("sex", dice.pick(&["male", "female"]).into()),
        6 => ("age", dice.between(0, 18).into()),
        7 => ("registration_date", day.into()),
        8 => ("date_case_plan", day.into()),
        9 => ("consent_reporting", dice.per_mille(700).into()),
        10 => {
            let kind = dice.early(words::CARE_TYPES);
            let row = json!({"care_arrangements_type": kind, "care_arrangement_started_date": day});
            return push(case, "care_arrangements_section", row);
        }
        _ => {
            let kind = dice.early(words::FOLLOWUP_TYPES);
            let row = json!({"followup_type": kind, "followup_date": day});
            return push(case, "followup_subform_section", row);
        }
    };
    case.insert(name.to_owned(), value);
}

fn push(case: &mut Case, form: &str, row: Value) {
    match case.entry(form).or_insert_with(|| json!([])) {
        Value::Array(rows) => rows.push(row),
        other => *other = json!([row]),
    }
}
