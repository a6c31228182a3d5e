//! Order, pages and fields of a list, without any promise about rows whose sort keys are equal.

use std::cmp::Ordering;

use serde_json::Value;

use super::params::{Params, Raw};
use super::save::Case;
use super::schema;
use super::store::Row;

/// Rows of a page of cases or lookups when the request does not say.
pub(super) const PER_DEFAULT: i64 = 20;
/// Rows of a page of cases or lookups at most.
pub(super) const PER_MAX: i64 = 1_000;
/// The largest page number that is taken at its word.
const PAGE_MAX: i64 = 1_000_000_000;

/// Where a page starts and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) page: i64,
    pub(super) per: i64,
}

impl Page {
    /// Reads `page` and `per`; a text that is no number counts as 0.
    pub(super) fn read(params: &Params, per_default: i64, per_max: i64) -> Self {
        let page = params.text("page").map_or(1, leading_number).min(PAGE_MAX);
        let per = params.text("per").map_or(per_default, leading_number).min(per_max);
        Self { page, per }
    }

    /// What the database says to a negative limit or offset.
    pub(super) fn check(self) -> Result<(), &'static str> {
        if self.per < 0 {
            return Err("PG::InvalidRowCountInLimitClause: ERROR:  LIMIT must not be negative\n");
        }
        if self.page < 1 {
            return Err(
                "PG::InvalidRowCountInResultOffsetClause: ERROR:  OFFSET must not be negative\n",
            );
        }
        Ok(())
    }

    /// The rows of this page.
    pub(super) fn cut<T>(self, rows: &[T]) -> &[T] {
        let per = usize::try_from(self.per).unwrap_or(0);
        let start = usize::try_from(self.page - 1).unwrap_or(0).saturating_mul(per);
        let start = start.min(rows.len());
        &rows[start..start.saturating_add(per).min(rows.len())]
    }
}

fn leading_number(text: &str) -> i64 {
    let text = text.trim_start();
    let end = text
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || (*at == 0 && *c == '-')))
        .map_or(text.len(), |(at, _)| at);
    text[..end].parse().unwrap_or(0)
}

/// The order a request asks for.
pub(super) struct Order<'a> {
    by: &'a str,
    descending: bool,
    /// Decides, differently for every request, between rows with the same key.
    salt: u64,
}

impl<'a> Order<'a> {
    /// Reads `order_by` and `order`; without them the newest come first.
    pub(super) fn read(params: &'a Params, salt: u64) -> Self {
        let by = params.text("order_by").filter(|by| !by.is_empty()).unwrap_or("created_at");
        let descending = match params.text("order") {
            None | Some("") => true,
            Some(word) => word.eq_ignore_ascii_case("desc"),
        };
        Self { by, descending, salt }
    }

    /// Sorts rows. An unknown field is nothing in every row, so its order is any order.
    pub(super) fn sort(&self, rows: &mut [&Row]) {
        match self.by {
            "created_at" => self.sort_by(rows, |row| Key::Number(row.created_us)),
            "last_updated_at" => self.sort_by(rows, |row| Key::Number(row.updated_ms)),
            "record_state" => self.sort_by(rows, |row| Key::Number(i64::from(row.enabled))),
            "id" => self.sort_by(rows, |_| Key::Nothing),
            "unique_identifier" => self.sort_by(rows, unique_key),
            by => self.sort_by(rows, |row| key_of(row, by)),
        }
    }

    fn sort_by(&self, rows: &mut [&Row], key: impl Fn(&Row) -> Key) {
        rows.sort_by_cached_key(|row| Place {
            key: key(row),
            descending: self.descending,
            tie: tie(&row.id, self.salt),
        });
    }
}

/// The sort key of a row; nothing comes last when ascending, first when descending.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Text(String),
    Number(i64),
    Nothing,
}

#[derive(PartialEq, Eq)]
struct Place {
    key: Key,
    descending: bool,
    tie: u64,
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        let keys = self.key.cmp(&other.key);
        let keys = if self.descending { keys.reverse() } else { keys };
        keys.then(self.tie.cmp(&other.tie))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn key_of(row: &Row, name: &str) -> Key {
    match row.document().get(name) {
        None | Some(Value::Null) => Key::Nothing,
        Some(Value::String(text)) => Key::Text(text.clone()),
        Some(Value::Number(number)) => Key::Number(number.as_i64().unwrap_or(i64::MAX)),
        Some(Value::Bool(value)) => Key::Number(i64::from(*value)),
        Some(other) => Key::Text(other.to_string()),
    }
}

/// Every record has a unique identifier in its document; those of incidents are not generated, their ids do as well.
fn unique_key(row: &Row) -> Key {
    match key_of(row, "case_id") {
        Key::Nothing => Key::Text(row.id.clone()),
        key => key,
    }
}

fn tie(id: &str, salt: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = id
        .bytes()
        .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^ (hash >> 29)
}

/// Which fields of a case a reply holds.
pub(super) enum Selection {
    /// All that the role may see.
    Everything,
    /// These, as far as the role may see them.
    Named(Vec<String>),
}

impl Selection {
    /// Reads `fields`. Array syntax selects nothing, an empty text everything.
    pub(super) fn read(params: &Params) -> Self {
        let short = || Raw::Text("short".to_owned());
        let forced = params.text("id_search") == Some("true");
        match params.get("fields").cloned().filter(|_| !forced).or_else(|| forced.then(short)) {
            None => Self::Everything,
            Some(Raw::Text(text)) if text.is_empty() => Self::Everything,
            Some(Raw::Text(text)) if text == "short" => {
                Self::Named(schema::SHORT_FIELDS.iter().map(|name| (*name).to_owned()).collect())
            }
            Some(Raw::Text(text)) => Self::Named(text.split(',').map(str::to_owned).collect()),
            Some(_) => Self::Named(Vec::new()),
        }
    }

    /// The JSON text of a row: `id`, `enabled`, `last_updated_at`, and what is both selected and
    /// permitted.
    pub(super) fn render(&self, row: &Row, permitted: Option<&dyn Fn(&str) -> bool>) -> String {
        if let (Self::Everything, None) = (self, permitted) {
            return row.json.to_string();
        }
        let mut case: Case = row.document();
        case.insert("enabled".to_owned(), row.enabled.into());
        case.retain(|name, _| {
            if matches!(name.as_str(), "id" | "enabled" | "last_updated_at") {
                return true;
            }
            let selected = match self {
                Self::Everything => true,
                Self::Named(names) => names.iter().any(|selected| selected == name),
            };
            selected && permitted.is_none_or(|permitted| permitted(name))
        });
        Value::Object(case).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Page {
        Page::read(&Params::read(query), PER_DEFAULT, PER_MAX)
    }

    #[test]
    fn pages_are_read_like_numbers_and_capped() {
        assert_eq!(page(""), Page { page: 1, per: 20 });
        assert_eq!(page("page=3&per=5000"), Page { page: 3, per: 1_000 });
        assert_eq!(page("page=x&per="), Page { page: 0, per: 0 });
        assert!(page("page=0").check().unwrap_err().contains("OFFSET"));
        assert!(page("per=-1").check().unwrap_err().contains("LIMIT"));
        assert!(page("per=0").check().is_ok());
    }

    #[test]
    fn a_page_beyond_the_end_is_empty() {
        let rows: Vec<u8> = (0..45).collect();
        assert_eq!(page("page=3").cut(&rows), [40, 41, 42, 43, 44]);
        assert!(page("page=4").cut(&rows).is_empty());
        assert!(page("per=0").cut(&rows).is_empty());
    }

    fn row(id: &str, rest: &str) -> Row {
        Row::read(&format!(r#"{{"id":"{id}","last_updated_at":"2024-01-01T00:00:00.000Z"{rest}}}"#))
            .unwrap()
    }

    #[test]
    fn equal_keys_change_places_between_requests() {
        let rows: Vec<Row> =
            (0..40).map(|number| row(&format!("{number:02}"), r#","status":"open""#)).collect();
        let order = |salt| {
            let params = Params::read("order_by=status&order=asc");
            let mut sorted: Vec<&Row> = rows.iter().collect();
            Order::read(&params, salt).sort(&mut sorted);
            sorted.iter().map(|row| row.id.clone()).collect::<Vec<_>>()
        };
        assert_ne!(order(1), order(2));
        assert_eq!(order(1), order(1));
    }

    #[test]
    fn nothing_comes_last_when_ascending() {
        let rows = [row("a", ""), row("b", r#","age":3"#), row("c", r#","age":1"#)];
        let params = Params::read("order_by=age&order=asc");
        let mut sorted: Vec<&Row> = rows.iter().collect();
        Order::read(&params, 0).sort(&mut sorted);
        assert_eq!(sorted.iter().map(|row| row.id.as_str()).collect::<String>(), "cba");
    }

    #[test]
    fn fields_are_the_intersection_of_asked_and_permitted() {
        let row = row("a", r#","sex":"male","name":"x","record_state":true"#);
        let render = |query: &str| {
            let selection = Selection::read(&Params::read(query));
            let text = selection.render(&row, Some(&|name| name != "name"));
            let case: Case = serde_json::from_str(&text).unwrap();
            case.keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(render("fields=sex,name,zzz"), "enabled id last_updated_at sex");
        assert_eq!(render("fields[]=sex"), "enabled id last_updated_at");
        assert_eq!(render("fields="), "enabled id last_updated_at record_state sex");
    }
}
