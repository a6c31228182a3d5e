//! The part of JSON Schema that the program's own schemas use, as a plain walk.

use serde_json::Value;

/// Why `value` is not as `schema` says; empty when it is. `root` holds the definitions.
pub(crate) fn complaints(root: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(root, schema, value, "", &mut found);
    found
}

fn walk(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let rules = schema.as_object().unwrap_or_else(|| panic!("{at}: a schema is an object"));
    for (rule, wanted) in rules {
        let number = || wanted.as_u64().unwrap() as usize;
        let fits = match rule.as_str() {
            "$schema" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let path = wanted.as_str().unwrap().trim_start_matches('#');
                let inner = root.pointer(path).unwrap_or_else(|| panic!("{path} is missing"));
                walk(root, inner, value, at, found);
                true
            }
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|one| is_of(value, one)),
                one => is_of(value, one),
            },
            "enum" => wanted.as_array().unwrap().contains(value),
            "anyOf" => wanted
                .as_array()
                .unwrap()
                .iter()
                .any(|inner| complaints(root, inner, value).is_empty()),
            "required" => value.as_object().is_none_or(|object| {
                wanted
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|key| object.contains_key(key.as_str().unwrap()))
            }),
            "minProperties" => value.as_object().is_none_or(|object| object.len() >= number()),
            "maxProperties" => value.as_object().is_none_or(|object| object.len() <= number()),
            "minItems" => value.as_array().is_none_or(|items| items.len() >= number()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() <= number()),
            "uniqueItems" => value.as_array().is_none_or(|items| {
                items.iter().enumerate().all(|(at, item)| !items[..at].contains(item))
            }),
            "minimum" => value.as_i64().is_none_or(|one| one >= wanted.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|one| one <= wanted.as_i64().unwrap()),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    walk(root, wanted, item, &format!("{at}/{index}"), found);
                }
                true
            }
            "properties" => {
                for (key, inner) in wanted.as_object().unwrap() {
                    if let Some(value) = value.get(key) {
                        walk(root, inner, value, &format!("{at}/{key}"), found);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = rules.get("properties").and_then(Value::as_object);
                let is_other = |key: &String| known.is_none_or(|known| !known.contains_key(key));
                for (key, value) in value.as_object().into_iter().flatten() {
                    match wanted {
                        _ if !is_other(key) => {}
                        Value::Bool(true) => {}
                        Value::Bool(false) => found.push(format!("{at}: unknown key {key}")),
                        inner => walk(root, inner, value, &format!("{at}/{key}"), found),
                    }
                }
                true
            }
            other => panic!("{at}: the walk does not know the rule {other}"),
        };
        if !fits {
            found.push(format!("{at}: {rule} {wanted}"));
        }
    }
}

fn is_of(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("the walk does not know the type {other}"),
    }
}
