//! One test as it is written: `"open"`, `["a", "b"]`, `"0..17"`, `{ not = … }`, `{ concept = … }`, `{ within = … }`.

use toml::Value;

use crate::indicator::resolve::LIST_MAX;
use crate::indicator::terms::Test;
use crate::model::FieldType;

/// What a test of a field of this type may look like, for an error.
pub(super) fn expected(field_type: FieldType) -> &'static str {
    match field_type {
        FieldType::Boolean => "true, false, { not = true } or { present = true }",
        FieldType::Integer => "a range such as \"0..17\", a number or { present = true }",
        FieldType::Option | FieldType::Options => {
            "an option id, a list of them, { not = … }, { concept = … }, { concepts = […] }, \
             { not_concept = … }, { unmapped = true } or { present = true }"
        }
        FieldType::Agency => "an agency id, a list of them, { not = … } or { present = true }",
        FieldType::Date | FieldType::Datetime | FieldType::Dates | FieldType::FirstSeen => {
            "{ within = \"-29..0\" }, days from the event, or { present = true }"
        }
        FieldType::Location | FieldType::BirthMonth | FieldType::Worker => "{ present = true }",
    }
}

/// The test that `value` says for a field of this type, if it says one.
pub(super) fn test_of(field_type: FieldType, value: &Value) -> Option<Test> {
    let single = value.as_table().filter(|table| table.len() == 1).and_then(|t| t.iter().next());
    if let Some((key, value)) = single {
        return keyed(field_type, key, value);
    }
    match field_type {
        FieldType::Boolean => value.as_bool().map(Test::Is),
        FieldType::Integer => range_of(value).map(|(from, to)| Test::Range(from, to)),
        FieldType::Option | FieldType::Options | FieldType::Agency => ids(value).map(Test::Any),
        _ => None,
    }
}

/// A test that is written as a table with one key.
fn keyed(field_type: FieldType, key: &str, value: &Value) -> Option<Test> {
    let is_option = matches!(field_type, FieldType::Option | FieldType::Options);
    match (key, field_type) {
        ("present", _) => value.as_bool().map(Test::Present),
        ("not", FieldType::Boolean) => value.as_bool().map(Test::IsNot),
        ("not", FieldType::Agency) => ids(value).map(Test::None),
        ("not", _) if is_option => ids(value).map(Test::None),
        ("concept" | "concepts", _) if is_option => ids(value).map(Test::Concepts),
        ("not_concept" | "not_concepts", _) if is_option => ids(value).map(Test::NotConcepts),
        ("unmapped", _) if is_option => value.as_bool().map(Test::Unmapped),
        (
            "within",
            FieldType::Date | FieldType::Datetime | FieldType::Dates | FieldType::FirstSeen,
        ) => range_of(value).map(|(from, to)| Test::Within(from, to)),
        _ => None,
    }
}

fn ids(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(id) => Some(vec![id.clone()]),
        Value::Array(ids) if !ids.is_empty() && ids.len() <= LIST_MAX => {
            ids.iter().map(|id| id.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}

/// A number, or a range such as `0..17`, `..-1` or `5..`, both ends included.
pub(super) fn range_of(value: &Value) -> Option<(i32, i32)> {
    if let Some(number) = value.as_integer() {
        let number = i32::try_from(number).ok()?;
        return Some((number, number));
    }
    let (from, to) = value.as_str()?.split_once("..")?;
    let from = if from.is_empty() { i32::MIN } else { from.trim().parse().ok()? };
    let to = if to.is_empty() { i32::MAX } else { to.trim().parse().ok()? };
    (from <= to).then_some((from, to))
}
