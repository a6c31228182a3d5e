//! The query string as the server reads it: nested names, then text turned into values.

use super::calendar;

/// Brackets deeper than this in a parameter's name are not followed.
const DEPTH_MAX: usize = 4;

/// A parameter before its text is turned into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    Text(String),
    /// `name[]=a`: array syntax.
    Array(Vec<String>),
    /// `name[key]=a`.
    Hash(Vec<(String, Raw)>),
}

/// A value of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Nil,
    /// A day, counted from 1970-01-01.
    Date(i64),
    /// An instant in milliseconds.
    Time(i64),
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Given>),
    Range(Box<Given>, Box<Given>),
    Hash(Vec<(String, Given)>),
}

/// All parameters of a request, in order of first appearance.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, Raw)>);

impl Params {
    /// Reads a query string.
    pub(super) fn read(query: &str) -> Self {
        let mut top = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let mut path = Vec::new();
            match name.split_once('[') {
                Some((first, rest)) => {
                    path.push(first);
                    let rest = rest.strip_suffix(']').unwrap_or(rest);
                    path.extend(rest.split("][").take(DEPTH_MAX));
                }
                None => path.push(&name),
            }
            put(&mut top, &path, value.into_owned());
        }
        Self(top)
    }

    /// The parameter with this name.
    pub(super) fn get(&self, name: &str) -> Option<&Raw> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, raw)| raw)
    }

    /// The parameter with this name when it is one text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Raw::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// All parameters.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(String, Raw)> {
        self.0.iter()
    }
}

fn put(level: &mut Vec<(String, Raw)>, path: &[&str], value: String) {
    let Some((name, rest)) = path.split_first() else { return };
    let place = level.iter().position(|(key, _)| key == name);
    let entry = match (rest, place) {
        ([], _) => Raw::Text(value),
        ([""], place) => {
            let mut values = match place.map(|place| &level[place].1) {
                Some(Raw::Array(values)) => values.clone(),
                _ => Vec::new(),
            };
            values.push(value);
            Raw::Array(values)
        }
        (rest, place) => {
            let mut inner = match place.map(|place| &level[place].1) {
                Some(Raw::Hash(inner)) => inner.clone(),
                _ => Vec::new(),
            };
            put(&mut inner, rest, value);
            Raw::Hash(inner)
        }
    };
    match place {
        Some(place) => level[place].1 = entry,
        None => level.push(((*name).to_owned(), entry)),
    }
}

/// Turns a parameter into a value, in the server's order of attempts.
pub(super) fn convert(raw: &Raw) -> Given {
    match raw {
        Raw::Text(text) => convert_text(text),
        Raw::Array(texts) => Given::List(texts.iter().map(|text| convert_text(text)).collect()),
        Raw::Hash(entries) => convert_hash(entries),
    }
}

fn convert_hash(entries: &[(String, Raw)]) -> Given {
    let find =
        |name: &str| entries.iter().find(|(key, _)| key == name).map(|(_, raw)| convert(raw));
    let numeric = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
    if entries.iter().all(|(key, _)| key == "from" || key == "to") {
        let end = |name| Box::new(find(name).unwrap_or(Given::Nil));
        return Given::Range(end("from"), end("to"));
    }
    if entries.iter().all(|(key, _)| numeric(key)) {
        let mut sorted: Vec<_> = entries.iter().collect();
        sorted.sort_by_key(|(key, _)| key.parse::<u64>().unwrap_or(u64::MAX));
        return Given::List(sorted.into_iter().map(|(_, raw)| convert(raw)).collect());
    }
    Given::Hash(entries.iter().map(|(key, raw)| (key.clone(), convert(raw))).collect())
}

fn convert_text(text: &str) -> Given {
    if text.is_empty() {
        return Given::Nil;
    }
    if let Some(day) = calendar::parse_date(text) {
        return Given::Date(day);
    }
    if let Some(ms) = calendar::parse_instant(text) {
        return Given::Time(ms);
    }
    match text {
        "true" => return Given::Bool(true),
        "false" => return Given::Bool(false),
        _ => {}
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Given::Int(text.parse().unwrap_or(i64::MAX));
    }
    if text.contains(',') {
        return Given::List(text.split(',').map(convert_text).collect());
    }
    if text.contains("..") {
        let mut ends = text.split("..");
        let mut end = || Box::new(convert_text(ends.next().unwrap_or_default()));
        return Given::Range(end(), end());
    }
    Given::Text(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Given) {
        assert_eq!(convert_text(text), expected, "{text}");
    }

    fn range(from: Given, to: Given) -> Given {
        Given::Range(Box::new(from), Box::new(to))
    }

    #[test]
    fn texts_are_converted_in_order() {
        check("", Given::Nil);
        check("1970-01-03", Given::Date(2));
        check("1970-01-01T00:00:01Z", Given::Time(1_000));
        check("1970-01-01 00:00:01", Given::Time(1_000));
        check("true", Given::Bool(true));
        check("01", Given::Int(1));
        check("5..", range(Given::Int(5), Given::Nil));
        check("..b", range(Given::Nil, Given::Text("b".to_owned())));
        check(
            "1970-01-01T00:00Z..",
            range(Given::Text("1970-01-01T00:00Z".to_owned()), Given::Nil),
        );
        let ranges =
            vec![range(Given::Int(0), Given::Int(5)), range(Given::Int(12), Given::Int(17))];
        check("0..5,12..17", Given::List(ranges));
        check("open", Given::Text("open".to_owned()));
    }

    #[test]
    fn nested_names_are_read() {
        let params =
            Params::read("age[from]=5&age[to]=10&status[1]=b&status[0]=a&x[]=1&x[]=2&p=a+b");
        let value = |name| convert(params.get(name).unwrap());
        assert_eq!(value("age"), range(Given::Int(5), Given::Int(10)));
        let texts = ["a", "b"].map(|text| Given::Text(text.to_owned())).to_vec();
        assert_eq!(value("status"), Given::List(texts));
        assert_eq!(params.get("x"), Some(&Raw::Array(vec!["1".to_owned(), "2".to_owned()])));
        assert_eq!(params.text("p"), Some("a b"));
    }
}
