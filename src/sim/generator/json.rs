//! A JSON value with constant keys: building a case from it allocates little.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// A JSON value under construction.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    Word(&'static str),
    Text(String),
    List(Vec<Json>),
    Object(Object),
}

/// The keys and values of a JSON object, in the order they were put.
pub(super) type Object = Vec<(&'static str, Json)>;

impl Json {
    /// A list of option ids.
    pub(super) fn words(words: &[&'static str]) -> Self {
        Self::List(words.iter().map(|word| Self::Word(word)).collect())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&'static str> for Json {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Json {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Word(text) => serializer.serialize_str(text),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}
