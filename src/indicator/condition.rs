//! Conditions as they are written in `where`, `rows` and populations.

use toml::Value;

use crate::indicator::definition::Test;
use crate::indicator::resolve::LIST_MAX;
use crate::model::FieldType;

/// What a condition on a field of this type may look like, for an error.
pub(super) fn expected(field_type: FieldType) -> &'static str {
    match field_type {
        FieldType::Boolean => "true, false, { not = true } or { present = true }",
        FieldType::Integer => "a range such as \"0..17\", a number or { present = true }",
        FieldType::Option | FieldType::Options | FieldType::Agency => {
            "an option id, a list of them, { not = … } or { present = true }"
        }
        _ => "{ present = true }",
    }
}

/// The condition that `value` says for a field of this type, if it says one.
pub(super) fn test_of(field_type: FieldType, value: &Value) -> Option<Test> {
    if let Some(present) = value.as_table().filter(|t| t.len() == 1).and_then(|t| t.get("present"))
    {
        return present.as_bool().map(Test::Present);
    }
    match field_type {
        FieldType::Boolean => match value {
            Value::Table(table) if table.len() == 1 => table.get("not")?.as_bool().map(Test::IsNot),
            value => value.as_bool().map(Test::Is),
        },
        FieldType::Integer => range_of(value),
        FieldType::Option | FieldType::Options | FieldType::Agency => match value {
            Value::Table(table) if table.len() == 1 => ids(table.get("not")?).map(Test::None),
            value => ids(value).map(Test::Any),
        },
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

fn range_of(value: &Value) -> Option<Test> {
    if let Some(number) = value.as_integer() {
        let number = i32::try_from(number).ok()?;
        return Some(Test::Range(number, number));
    }
    let (from, to) = value.as_str()?.split_once("..")?;
    let from = if from.is_empty() { i32::MIN } else { from.trim().parse().ok()? };
    let to = if to.is_empty() { i32::MAX } else { to.trim().parse().ok()? };
    (from <= to).then_some(Test::Range(from, to))
}
