//! Which cases a request asks for: filters as version 2.14.0 builds them, drops and errors included.

use std::cell::OnceCell;

use serde_json::Value;

use super::calendar::{self, DAY_MS};
use super::country;
use super::params::{Given, Params, Raw, convert};
use super::save::Case;
use super::schema::{self, Column};
use super::store::Row;

/// Parameters that are not filters.
const CONTROL: &[&str] = &[
    "fields",
    "order",
    "order_by",
    "page",
    "per",
    "query",
    "id_search",
    "phonetic",
    "query_scope",
    "total",
    "format",
    "phone_number",
];

/// Why no rows are found in the usual way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The database refuses the query; the server logs it and answers an empty page.
    Sql,
    /// The server itself fails with this message: status 500.
    Failure(String),
}

/// A condition on a case.
#[derive(Clone, Debug)]
enum Condition {
    /// Equality of an identifier with an exact text.
    Exact(String, String),
    Id(Vec<String>),
    Equal(String, Given),
    In(String, Vec<Given>),
    Numbers(String, i64, Given),
    Dates(String, Given, Given),
    Within {
        field: String,
        root: String,
        level: usize,
    },
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Containing(String),
}

/// All conditions of a request.
#[derive(Debug, Default)]
pub(super) struct Filter(Vec<Condition>);

impl Filter {
    /// Builds the filter. A parameter whose name the caller may not use, and a value no filter can
    /// be made of, are dropped without a word.
    pub(super) fn build(
        params: &Params,
        permitted: impl Fn(&str) -> bool,
    ) -> Result<Self, Refusal> {
        let mut conditions = Vec::new();
        for (name, raw) in params.iter().filter(|(name, _)| !CONTROL.contains(&name.as_str())) {
            let condition = match (name.as_str(), raw) {
                ("or", Raw::Hash(members)) => {
                    let members = members.iter().map(|(name, raw)| condition(name, raw));
                    let members: Vec<_> =
                        members.filter_map(Result::transpose).collect::<Result<_, _>>()?;
                    (!members.is_empty()).then_some(Condition::Any(members))
                }
                ("not", Raw::Hash(members)) => match members.first() {
                    Some((name, raw)) => {
                        condition(name, raw)?.map(|inner| Condition::Not(Box::new(inner)))
                    }
                    None => None,
                },
                (_, Raw::Array(_)) => None,
                (name, raw) if permitted(plain_name(name)) => condition(name, raw)?,
                _ => None,
            };
            conditions.extend(condition);
        }
        if let Some(query) = params.text("query").filter(|query| !query.is_empty()) {
            conditions.push(Condition::Containing(query.to_owned()));
        }
        Ok(Self(conditions))
    }

    /// Whether a case is asked for. One row that the database cannot compare fails the whole query.
    pub(super) fn matches(&self, row: &Row) -> Result<bool, Refusal> {
        let reader = Reader::new(row);
        for condition in &self.0 {
            if !condition.matches(&reader)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Finds what the database would refuse whatever the rows are.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        self.0.iter().try_for_each(Condition::check)
    }
}

/// The field a parameter's name speaks of: `loc:owned_by_location2` speaks of `owned_by_location`.
fn plain_name(name: &str) -> &str {
    match name.strip_prefix("loc:") {
        Some(name) => name.strip_suffix(|c: char| ('0'..='5').contains(&c)).unwrap_or(name),
        None => name,
    }
}

fn condition(name: &str, raw: &Raw) -> Result<Option<Condition>, Refusal> {
    if let Some(rest) = name.strip_prefix("loc:") {
        let Raw::Text(root) = raw else { return Ok(None) };
        let field = plain_name(name).to_owned();
        let level = rest[field.len()..].parse().unwrap_or(0);
        return Ok(Some(Condition::Within { field, root: root.to_uppercase(), level }));
    }
    if let (true, Raw::Text(text)) = (schema::IDENTIFIER_FIELDS.contains(&name), raw) {
        return Ok(Some(Condition::Exact(name.to_owned(), text.clone())));
    }
    if let ("id", Raw::Text(text)) = (name, raw) {
        let ids = text.split(',').map(str::to_lowercase).collect();
        return Ok(Some(Condition::Id(ids)));
    }
    of_value(name, convert(raw))
}

fn of_value(name: &str, value: Given) -> Result<Option<Condition>, Refusal> {
    let name = name.to_owned();
    Ok(match value {
        Given::Nil | Given::Hash(_) => None,
        Given::Range(from, to) => range(name, *from, *to)?,
        Given::List(items) if items.iter().any(|item| matches!(item, Given::Range(..))) => {
            let mut ranges = Vec::new();
            for item in items {
                ranges.extend(of_value(&name, item)?);
            }
            (!ranges.is_empty()).then_some(Condition::Any(ranges))
        }
        Given::List(items) if items.is_empty() => None,
        Given::List(items) => Some(Condition::In(name, items)),
        value => Some(Condition::Equal(name, value)),
    })
}

fn range(name: String, from: Given, to: Given) -> Result<Option<Condition>, Refusal> {
    match (from, to) {
        (Given::Int(from), to) => Ok(Some(Condition::Numbers(name, from, to))),
        (from @ (Given::Date(_) | Given::Time(_)), to) => match to {
            Given::Nil | Given::Date(_) | Given::Time(_) => {
                Ok(Some(Condition::Dates(name, from, to)))
            }
            Given::Text(text) => {
                Err(Refusal::Failure(format!("undefined method `iso8601' for \"{text}\":String")))
            }
            _ => Err(Refusal::Failure("undefined method `iso8601' for 1:Integer".to_owned())),
        },
        _ => Ok(None),
    }
}

/// Reads fields of a row, its document only when a column does not do.
struct Reader<'a> {
    row: &'a Row,
    document: OnceCell<Case>,
}

impl<'a> Reader<'a> {
    fn new(row: &'a Row) -> Self {
        Self { row, document: OnceCell::new() }
    }

    fn field(&self, name: &str) -> Option<&Value> {
        let document = self.document.get_or_init(|| self.row.document());
        document.get(name).filter(|value| !value.is_null())
    }

    /// The texts of a field, one or many.
    fn values(&self, name: &str) -> Vec<&Value> {
        match self.field(name) {
            Some(Value::Array(values)) => values.iter().collect(),
            Some(value) => vec![value],
            None => Vec::new(),
        }
    }

    /// The instants of a field in milliseconds, its zone and what is finer than a second ignored.
    fn seconds(&self, name: &str) -> Result<Vec<i64>, Refusal> {
        if name == "last_updated_at" {
            return Ok(vec![cut_to_second(self.row.updated_ms)]);
        }
        let texts = self.values(name).into_iter().filter_map(Value::as_str);
        texts.map(|text| read_stamp(text).ok_or(Refusal::Sql)).collect()
    }
}

fn cut_to_second(ms: i64) -> i64 {
    ms.div_euclid(1_000) * 1_000
}

/// What the database makes of a text when it is told that it is a day or an instant.
fn read_stamp(text: &str) -> Option<i64> {
    let day = calendar::parse_date(text.get(..10)?)?;
    let clock =
        text.get(11..19).and_then(|clock| calendar::parse_instant(&format!("1970-01-01T{clock}Z")));
    Some(day * DAY_MS + clock.unwrap_or(0))
}

impl Condition {
    fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Id(ids) if !ids.iter().all(|id| is_uuid(id)) => Err(Refusal::Sql),
            Self::Equal(name, value) => check_value(name, value),
            Self::In(name, values) => values.iter().try_for_each(|value| check_value(name, value)),
            Self::Numbers(name, _, to) => match (schema::column_of(name), to) {
                (Some(Column::Integer) | None, Given::Int(_) | Given::Nil) => Ok(()),
                _ => Err(Refusal::Sql),
            },
            Self::Dates(name, ..) => match schema::column_of(name) {
                None | Some(Column::Date | Column::Dates | Column::Instant) => Ok(()),
                _ => Err(Refusal::Sql),
            },
            Self::Any(members) => members.iter().try_for_each(Self::check),
            Self::Not(inner) => inner.check(),
            _ => Ok(()),
        }
    }

    fn matches(&self, reader: &Reader<'_>) -> Result<bool, Refusal> {
        Ok(match self {
            Self::Exact(name, text) => {
                let name = if name == "unique_identifier" { "case_id" } else { name };
                reader.values(name).iter().any(|value| value.as_str() == Some(text))
            }
            Self::Id(ids) => ids.contains(&reader.row.id),
            Self::Equal(name, value) => equal(reader, name, value),
            Self::In(name, values) => values.iter().any(|value| equal(reader, name, value)),
            Self::Numbers(name, from, to) => numbers(reader, name, *from, to),
            Self::Dates(name, from, to) => dates(reader, name, from, to)?,
            Self::Within { field, root, level } => reader
                .values(field)
                .iter()
                .filter_map(|value| value.as_str())
                .any(|code| country::is_within(code, root, *level)),
            Self::Any(members) => {
                let mut any = false;
                for member in members {
                    any |= member.matches(reader)?;
                }
                any
            }
            Self::Not(inner) => !inner.matches(reader)?,
            Self::Containing(text) => schema::IDENTIFIER_FIELDS.iter().any(|name| {
                reader
                    .values(name)
                    .iter()
                    .any(|value| value.as_str().is_some_and(|value| value.contains(text.as_str())))
            }),
        })
    }
}

/// Refuses values that cannot be compared with the column's type, or that break the JSON path.
fn check_value(name: &str, value: &Given) -> Result<(), Refusal> {
    let fits = match (schema::column_of(name), value) {
        (None, Given::Text(text)) => !text.contains('"'),
        (None, Given::Date(_) | Given::Time(_)) => false,
        (None, _) => true,
        (Some(Column::Text | Column::Texts), value) => matches!(value, Given::Text(_)),
        (Some(Column::Integer), value) => matches!(value, Given::Int(_)),
        (Some(Column::Boolean), value) => matches!(value, Given::Bool(_)),
        (Some(Column::Date | Column::Dates | Column::Instant), value) => {
            matches!(value, Given::Date(_) | Given::Time(_))
        }
    };
    if fits { Ok(()) } else { Err(Refusal::Sql) }
}

fn equal(reader: &Reader<'_>, name: &str, value: &Given) -> bool {
    if name == "record_state" {
        return *value == Given::Bool(reader.row.enabled);
    }
    match value {
        Given::Text(text) => reader.values(name).iter().any(|item| item.as_str() == Some(text)),
        Given::Int(number) => reader.values(name).iter().any(|item| item.as_i64() == Some(*number)),
        Given::Bool(wanted) => {
            let field = reader.field(name);
            let yes = |word: &str| {
                field == Some(&Value::Bool(word == "true"))
                    || field.is_some_and(|field| field == word)
            };
            // A column that is empty equals nothing; a document without the field counts as false.
            let missing = field.is_none() && schema::column_of(name).is_none();
            if *wanted { yes("true") } else { yes("false") || missing }
        }
        Given::Date(day) => {
            let date = calendar::date_text(*day);
            reader.values(name).iter().any(|item| item.as_str() == Some(&date))
        }
        _ => false,
    }
}

fn numbers(reader: &Reader<'_>, name: &str, from: i64, to: &Given) -> bool {
    let to = match (to, schema::column_of(name)) {
        (Given::Int(to), _) => *to,
        (_, None) => i64::MAX,
        // The column is compared with NULL.
        _ => return false,
    };
    let mut values = reader.values(name).into_iter().filter_map(Value::as_i64);
    values.any(|value| (from..=to).contains(&value))
}

fn dates(reader: &Reader<'_>, name: &str, from: &Given, to: &Given) -> Result<bool, Refusal> {
    if schema::column_of(name).is_some() {
        let (from, to) = (bound_us(from).unwrap_or(i64::MIN), bound_us(to).unwrap_or(i64::MAX));
        if name == "created_at" {
            return Ok((from..=to).contains(&reader.row.created_us));
        }
        let texts = reader.values(name).into_iter().filter_map(Value::as_str);
        return Ok(texts.filter_map(read_stamp).any(|ms| (from..=to).contains(&(ms * 1_000))));
    }
    let by_day = matches!(from, Given::Date(_));
    let cut = |ms: i64| if by_day { ms.div_euclid(DAY_MS) } else { ms.div_euclid(1_000) };
    let bound = |given: &Given| bound_us(given).map(|us| cut(us.div_euclid(1_000)));
    let (from, to) = (bound(from).unwrap_or(i64::MIN), bound(to).unwrap_or(i64::MAX));
    Ok(reader.seconds(name)?.into_iter().any(|ms| (from..=to).contains(&cut(ms))))
}

/// A bound in microseconds; a day means its midnight.
fn bound_us(given: &Given) -> Option<i64> {
    match given {
        Given::Date(day) => Some(day * DAY_MS * 1_000),
        Given::Time(ms) => Some(ms * 1_000),
        _ => None,
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &[&str] = &[
        r#"{"id":"00000000-0000-4000-8000-000000000001","status":"open","age":5,"record_state":true,
            "created_at":"2024-01-31T10:00:00.500Z","last_updated_at":"2024-02-01T00:00:05.900Z",
            "protection_concerns":["migrant"],"location_current":"010203","case_id":"x1",
            "type_of_case":"a","date_case_plan":"2024-01-31","estimated":true}"#,
        r#"{"id":"00000000-0000-4000-8000-000000000002","status":"closed","age":12,
            "record_state":false,"created_at":"2024-02-01T00:00:00.000Z",
            "last_updated_at":"2024-02-01T00:00:06.100Z","location_current":"0203",
            "case_id":"12"}"#,
    ];

    fn found(query: &str) -> Result<String, Refusal> {
        let filter = Filter::build(&Params::read(query), schema::is_known)?;
        filter.check()?;
        let mut found = String::new();
        for json in ROWS {
            let row = Row::read(json).unwrap();
            if filter.matches(&row)? {
                found.push_str(&row.id[35..]);
            }
        }
        Ok(found)
    }

    fn check(query: &str, expected: &str) {
        assert_eq!(found(query).unwrap(), expected, "{query}");
    }

    fn check_sql_error(query: &str) {
        assert_eq!(found(query), Err(Refusal::Sql), "{query}");
    }

    #[test]
    fn equality_lists_and_ranges() {
        check("status=open", "1");
        check("status=open,closed", "12");
        check("status[0]=closed", "2");
        check("status=Open", "");
        check("age=5", "1");
        check("age=5,12", "12");
        check("age=0..5,12..17", "12");
        check("age[from]=5&age[to]=10", "1");
        check("record_state=false", "2");
        check("protection_concerns=migrant,refugee", "1");
        check("type_of_case=a", "1");
        check("estimated=false", "2");
        check("id=00000000-0000-4000-8000-000000000002", "2");
        check("case_id=12", "2");
        check("not[status]=open", "2");
        check("not[type_of_case]=a", "2");
        check("or[status]=open&or[age]=12", "12");
    }

    #[test]
    fn dropped_filters_give_everything() {
        for query in [
            "zzz=1",
            "status[]=open",
            "status=",
            "last_updated_at=..2024-01-01",
            "age=..5",
            "last_updated_at=garbage..",
            "last_updated_at=2024-02-01T00:00Z..",
            "last_updated_at=2024-02-01T00:00:06+00:00..",
            "unique_identifier=x1",
        ] {
            check(query, "12");
        }
    }

    #[test]
    fn what_the_database_refuses() {
        for query in [
            "status=1",
            "owned_by_agency_id=42",
            "status=open,1",
            "location_current=0203",
            "id=not-a-uuid",
            "age=five",
            "last_updated_at=2024-02-01T00:00:05Z",
            "type_of_case=a\"b",
            "status=true",
            "age=2024-01-01..2024-02-01",
        ] {
            check_sql_error(query);
        }
        let bad_end = found("last_updated_at=2024-02-01T00:00:05Z..garbage");
        assert!(matches!(bad_end, Err(Refusal::Failure(_))));
    }

    #[test]
    fn stamps_are_compared_by_the_second_and_columns_exactly() {
        check("last_updated_at=2024-02-01T00:00:05.999Z..", "12");
        check("last_updated_at=2024-02-01T00:00:06Z..", "2");
        check("last_updated_at=2024-02-01T00:00:05Z..2024-02-01T00:00:05Z", "1");
        check("last_updated_at=2024-02-01..2024-02-01", "12");
        check("created_at=2024-01-31..2024-01-31", "");
        check("created_at=2024-01-31T10:00:00.500Z..2024-01-31T10:00:00.500Z", "");
        check("created_at=2024-01-31T10:00:00.500Z..2024-01-31T10:00:00.501Z", "1");
        check("created_at=2024-01-31T10:00:00.500Z", "");
        check("age=5..", "");
        check("date_case_plan=2024-01-31..", "1");
    }

    #[test]
    fn locations_match_their_descendants() {
        check("loc:location_current1=02", "2");
        check("loc:location_current=kh", "12");
        check("loc:location_current3=0102", "");
        check("loc:location_current2=0102", "1");
    }
}
