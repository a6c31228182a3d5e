//! What the server does to a case at every save.

use serde_json::{Map, Value, json};

use super::calendar;
use super::generator::Dice;

/// A case as a JSON object.
pub(super) type Case = Map<String, Value>;

/// Who saves a case, and when.
pub(super) struct Saving<'a> {
    /// The server's clock, in milliseconds.
    pub(super) now_ms: i64,
    /// The user name of whoever saves.
    pub(super) user: &'a str,
}

/// Applies the rules of a save and stamps the case. `before` is nothing for a new case.
pub(super) fn save(before: Option<&Case>, after: &mut Case, by: &Saving<'_>, dice: &mut Dice) {
    name_rows(after, dice);
    if let Some(before) = before {
        reopen_for_service(before, after);
        close(before, after, by.now_ms);
        reopen(before, after, by);
    }
    derive(after);
    let workflow = workflow(after);
    after.insert("workflow".to_owned(), workflow.into());
    after.insert("last_updated_at".to_owned(), calendar::instant_text(by.now_ms).into());
    after.insert("last_updated_by".to_owned(), by.user.into());
}

/// The fields that follow from others.
pub(super) fn derive(case: &mut Case) {
    let enabled = case.get("record_state").and_then(Value::as_bool).unwrap_or(true);
    case.insert("enabled".to_owned(), enabled.into());
    derive_services(case);
    derive_concerns(case);
    derive_care(case);
    let planned = rows(case, "cp_case_plan_subform_case_plan_interventions").any(|row| {
        ["intervention_service_to_be_provided", "intervention_service_goal"]
            .iter()
            .any(|name| row.get(*name).is_some_and(|value| !value.is_null()))
    });
    case.insert("has_case_plan".to_owned(), planned.into());
    collect(case, "followup_subform_section", "followup_date", "followup_dates");
    derive_due(case);
}

/// What is due and not done yet, by kind of task.
fn derive_due(case: &mut Case) {
    for (due, done, to) in [
        ("assessment_due_date", "assessment_requested_on", "assessment_due_dates"),
        ("case_plan_due_date", "date_case_plan", "case_plan_due_dates"),
    ] {
        let dates = open_of(case, due, done).into_iter().collect();
        put_due(case, to, dates);
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
        let dates = rows(case, form).filter_map(|row| open_of(row, due, done)).collect();
        put_due(case, to, dates);
    }
}

/// The day a task is due, unless it is done.
fn open_of(of: &Case, due: &str, done: &str) -> Option<Value> {
    let is_open = !of.get(done).is_some_and(is_present);
    of.get(due).filter(|day| is_open && is_present(day)).cloned()
}

/// A case that never had such a task has no list of them.
fn put_due(case: &mut Case, name: &str, dates: Vec<Value>) {
    if !dates.is_empty() || case.contains_key(name) {
        case.insert(name.to_owned(), dates.into());
    }
}

fn derive_services(case: &mut Case) {
    if let Some(Value::Array(services)) = case.get_mut("services_section") {
        for row in services.iter_mut().filter_map(Value::as_object_mut) {
            let done = row.get("service_implemented_day_time").is_some_and(is_present);
            let typed = row.get("service_type").is_some_and(is_present);
            if done || typed {
                let word = if done { "implemented" } else { "not_implemented" };
                row.insert("service_implemented".to_owned(), word.into());
            }
        }
    }
    let (form, name) = ("services_section", "service_implemented_day_time");
    collect(case, form, name, "service_implemented_day_times");
}

/// The concerns are the union of themselves and of the types of their rows.
fn derive_concerns(case: &mut Case) {
    let form = "protection_concern_detail_subform_section";
    let types: Vec<Value> = rows(case, form)
        .filter_map(|row| row.get("protection_concern_type"))
        .filter(|kind| is_present(kind))
        .cloned()
        .collect();
    let concerns = case.entry("protection_concerns").or_insert_with(|| json!([]));
    if let Value::Array(concerns) = concerns {
        for kind in types {
            if !concerns.contains(&kind) {
                concerns.push(kind);
            }
        }
    }
}

/// The arrangement with the latest start is the current one.
fn derive_care(case: &mut Case) {
    let mut current: Option<&Case> = None;
    for row in rows(case, "care_arrangements_section") {
        let started = |row: &Case| text_of(row, "care_arrangement_started_date").to_owned();
        if current.is_none_or(|newest| started(row) > started(newest)) {
            current = Some(row);
        }
    }
    let Some(current) = current.cloned() else { return };
    for (from, to) in [
        ("care_arrangements_type", "current_care_arrangements_type"),
        ("care_arrangement_started_date", "current_care_arrangement_started_date"),
        ("name_caregiver", "current_name_caregiver"),
    ] {
        let value = current.get(from).cloned().unwrap_or(Value::Null);
        case.insert(to.to_owned(), value);
    }
}

/// Collects one field of a subform's rows into a list at the top.
fn collect(case: &mut Case, form: &str, from: &str, to: &str) {
    if case.get(form).is_some_and(Value::is_array) {
        let values: Vec<Value> = rows(case, form)
            .filter_map(|row| row.get(from))
            .filter(|value| is_present(value))
            .cloned()
            .collect();
        case.insert(to.to_owned(), values.into());
    }
}

/// Closing sets the closing date only if there is none.
fn close(before: &Case, after: &mut Case, now_ms: i64) {
    let closing = text_of(after, "status") == "closed" && text_of(before, "status") != "closed";
    if closing && !after.get("date_closure").is_some_and(is_present) {
        let today = calendar::date_text(now_ms.div_euclid(calendar::DAY_MS));
        after.insert("date_closure".to_owned(), today.into());
    }
}

/// A service added to a closed and enabled case reopens it.
fn reopen_for_service(before: &Case, after: &mut Case) {
    let enabled = after.get("record_state").and_then(Value::as_bool).unwrap_or(true);
    let closed = text_of(before, "status") == "closed" && text_of(after, "status") == "closed";
    let count = |case| rows(case, "services_section").count();
    if enabled && closed && count(after) > count(before) {
        after.insert("status".to_owned(), "open".into());
        after.insert("case_status_reopened".to_owned(), true.into());
    }
}

/// Reopening writes a log row, newest first; the row gets its `unique_id` at the next save.
fn reopen(before: &Case, after: &mut Case, by: &Saving<'_>) {
    let reopening = text_of(before, "status") == "closed" && text_of(after, "status") == "open";
    let flagged = after.get("case_status_reopened") == Some(&Value::Bool(true));
    if !reopening || !flagged {
        return;
    }
    let date = calendar::instant_text(by.now_ms);
    let log = json!({"reopened_date": date, "reopened_user": by.user});
    match after.entry("reopened_logs").or_insert_with(|| json!([])) {
        Value::Array(logs) => logs.insert(0, log),
        other => *other = json!([log]),
    }
}

fn workflow(case: &Case) -> String {
    if text_of(case, "status") == "closed" {
        return "closed".to_owned();
    }
    let mut open: Option<&Case> = None;
    for row in rows(case, "services_section") {
        let waiting = text_of(row, "service_implemented") == "not_implemented";
        let asked = |row| text_of(row, "service_response_day_time");
        if waiting && open.is_none_or(|newest| asked(row) > asked(newest)) {
            open = Some(row);
        }
    }
    let reopened = case.get("case_status_reopened") == Some(&Value::Bool(true));
    let planned = case.get("has_case_plan") == Some(&Value::Bool(true));
    let stage = match open {
        Some(row) => text_of(row, "service_response_type"),
        None if rows(case, "services_section").next().is_some() => "services_implemented",
        None if reopened => "reopened",
        None if planned => "case_plan",
        None => "new",
    };
    if stage.is_empty() { "new".to_owned() } else { stage.to_owned() }
}

/// Gives every row of every subform a `unique_id` that has none.
fn name_rows(case: &mut Case, dice: &mut Dice) {
    for rows in case.values_mut().filter_map(Value::as_array_mut) {
        for row in rows.iter_mut().filter_map(Value::as_object_mut) {
            if !row.contains_key("unique_id") && !row.contains_key("file_name") {
                row.insert("unique_id".to_owned(), dice.uuid().into());
            }
        }
    }
}

/// The rows of a subform, none when it is absent or not a list.
pub(super) fn rows<'a>(case: &'a Case, form: &str) -> impl Iterator<Item = &'a Case> {
    let rows = case.get(form).and_then(Value::as_array).map(Vec::as_slice);
    rows.unwrap_or_default().iter().filter_map(Value::as_object)
}

/// A text of a case, empty when it is absent or not a text.
pub(super) fn text_of<'a>(case: &'a Case, name: &str) -> &'a str {
    case.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn is_present(value: &Value) -> bool {
    !value.is_null() && value != ""
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY: Saving<'static> = Saving { now_ms: 20_000 * calendar::DAY_MS, user: "worker_001" };

    fn case(value: Value) -> Case {
        value.as_object().unwrap().clone()
    }

    fn saved(before: &Case, change: Value) -> Case {
        let mut after = before.clone();
        after.extend(case(change));
        save(Some(before), &mut after, &BY, &mut Dice::new(1));
        after
    }

    #[test]
    fn the_first_closing_date_stays() {
        let open = case(json!({"status": "open"}));
        let closed = saved(&open, json!({"status": "closed"}));
        assert_eq!(closed["date_closure"], "2024-10-04");
        let mut old = closed;
        old.insert("date_closure".to_owned(), "2024-01-01".into());
        let open = saved(&old, json!({"status": "open", "case_status_reopened": true}));
        let again = saved(&open, json!({"status": "closed"}));
        assert_eq!(again["date_closure"], "2024-01-01");
        assert_eq!(again["workflow"], "closed");
    }

    #[test]
    fn a_case_created_as_closed_has_no_closing_date() {
        let mut new = case(json!({"status": "closed"}));
        save(None, &mut new, &BY, &mut Dice::new(1));
        assert_eq!(new.get("date_closure"), None);
    }

    #[test]
    fn a_reopening_is_logged_and_named_one_save_later() {
        let closed = case(json!({"status": "closed", "reopened_logs": [{"unique_id": "a"}]}));
        let open = saved(&closed, json!({"status": "open", "case_status_reopened": true}));
        assert_eq!(open["reopened_logs"].as_array().unwrap().len(), 2);
        assert_eq!(open["reopened_logs"][0].get("unique_id"), None);
        assert!(saved(&open, json!({}))["reopened_logs"][0]["unique_id"].is_string());
    }

    #[test]
    fn a_new_service_reopens_a_closed_case() {
        let closed = case(json!({"status": "closed"}));
        let service = json!({"service_type": "food_service", "service_response_type": "care_plan"});
        let open = saved(&closed, json!({"services_section": [service]}));
        assert_eq!((&open["status"], &open["workflow"]), (&json!("open"), &json!("care_plan")));
        assert_eq!(open["services_section"][0]["service_implemented"], "not_implemented");
    }

    #[test]
    fn what_is_due_stays_so_until_it_is_done() {
        let row = json!({"followup_needed_by_date": "2026-03-01"});
        let due = json!({"followup_subform_section": [row], "assessment_due_date": "2026-02-01"});
        let before = saved(&Case::new(), due);
        assert_eq!(before["followup_due_dates"], json!(["2026-03-01"]));
        assert_eq!(before["assessment_due_dates"], json!(["2026-02-01"]));
        assert_eq!(before.get("service_due_dates"), None);
        let after = saved(&before, json!({"assessment_requested_on": "2026-02-03"}));
        assert_eq!(after["assessment_due_dates"], json!([]));
    }

    #[test]
    fn concerns_keep_what_the_rows_say() {
        let row = json!({"protection_concern_type": "migrant"});
        let form = "protection_concern_detail_subform_section";
        let before = saved(&Case::new(), json!({form: [row], "protection_concerns": ["refugee"]}));
        assert_eq!(before["protection_concerns"], json!(["refugee", "migrant"]));
        let after = saved(&before, json!({form: []}));
        assert_eq!(after["protection_concerns"], json!(["refugee", "migrant"]));
    }
}
