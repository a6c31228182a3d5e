//! The locations of an instance, from the reply of `/api/v2/locations`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::model::{Code, Domain, Interner, LEVEL_MAX, Location};

/// Longest name of a place or label of an option, in bytes; a longer one is left out.
pub(super) const LABEL_BYTES_MAX: usize = 256;

/// Most languages of a label, and the longest code of one in bytes; what is more is left out.
const LANGUAGES_MAX: usize = 64;
const LANGUAGE_BYTES_MAX: usize = 35;

/// Texts by language code.
pub(super) type Texts = BTreeMap<String, Option<String>>;

#[derive(Deserialize)]
struct Reply {
    data: Vec<RawPlace>,
}

#[derive(Deserialize)]
struct RawPlace {
    code: RawCode,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    admin_level: Option<u8>,
    #[serde(default)]
    placename: Texts,
    #[serde(default)]
    hierarchy: Vec<RawCode>,
}

/// Codes are texts, but a country whose codes are digits may send numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawCode {
    Text(String),
    Number(i64),
}

impl RawCode {
    fn intern(&self, interner: &Interner) -> Option<Code> {
        let text = match self {
            Self::Text(text) => text.to_uppercase(),
            Self::Number(number) => number.to_string(),
        };
        interner.intern(Domain::Location, &text)
    }
}

/// What is left of texts by language without the empty ones, which Primero sends for missing
/// translations.
pub(super) fn labels(texts: Texts) -> BTreeMap<String, String> {
    let full = |text: &String| !text.trim().is_empty() && text.len() <= LABEL_BYTES_MAX;
    let texts = texts.into_iter().filter(|(language, _)| language.len() <= LANGUAGE_BYTES_MAX);
    let texts = texts.filter_map(|(language, text)| Some((language, text.filter(full)?)));
    texts.take(LANGUAGES_MAX).collect()
}

/// The places in a reply, and how many items it had; an item without a usable code or level is left
/// out.
///
/// # Errors
/// A temporary error when the reply is not a list of locations.
pub(super) fn locations(body: &[u8], interner: &Interner) -> Result<(Vec<Location>, usize)> {
    let reply: Reply = serde_json::from_slice(body).map_err(|_| {
        Error::new(Kind::Temporary, "reading the locations: the reply is not a list of them")
    })?;
    let count = reply.data.len();
    Ok((reply.data.into_iter().filter_map(|place| location(place, interner)).collect(), count))
}

fn location(place: RawPlace, interner: &Interner) -> Option<Location> {
    let depth = place.hierarchy.len().checked_sub(1).and_then(|depth| u8::try_from(depth).ok());
    let level = place.admin_level.or(depth).filter(|level| *level <= LEVEL_MAX)?;
    let above = place.hierarchy.len().checked_sub(2).and_then(|index| place.hierarchy.get(index));
    let kind = place.kind.filter(|kind| kind.len() <= LABEL_BYTES_MAX).unwrap_or_default();
    Some(Location {
        code: place.code.intern(interner)?,
        parent: above.and_then(|code| code.intern(interner)),
        level,
        kind,
        names: labels(place.placename),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_knows_its_parent_and_only_real_names() {
        let body = br#"{"data":[
            {"id":11,"code":"99","type":"country","admin_level":0,"hierarchy":["99"],
             "name":{"en":"Country 99"},"placename":{"en":"Country 99","fr":"","km":null}},
            {"id":12,"code":"yy01","type":"province","hierarchy":["YY","YY01"],
             "placename":{"en":"Province 9"}},
            {"code":9901,"admin_level":1,"hierarchy":[99,9901]},
            {"code":"","hierarchy":[""]},
            {"code":"loose"}
        ],"metadata":{"total":5}}"#;
        let interner = Interner::default();
        let (places, count) = locations(body, &interner).unwrap();
        let term = |code| interner.read(|all| all.term(Domain::Location, code).unwrap().to_owned());
        let seen: Vec<_> = places
            .iter()
            .map(|place| (term(place.code), place.parent.map(term), place.level, place.names.len()))
            .collect();
        assert_eq!(
            seen,
            [
                ("99".into(), None, 0, 1),
                ("YY01".into(), Some("YY".into()), 1, 1),
                ("9901".into(), Some("99".into()), 1, 0),
            ]
        );
        assert_eq!(count, 5);
    }

    #[test]
    fn another_reply_is_an_error() {
        assert!(locations(b"{\"data\":null}", &Interner::default()).is_err());
    }

    #[test]
    fn the_recorded_places_form_a_tree() {
        let exchange = include_str!("../../tests/data/recordings/locations-hierarchy.json");
        let exchange: serde_json::Value = serde_json::from_str(exchange).unwrap();
        let interner = Interner::default();
        let (places, count) =
            locations(exchange["body"].to_string().as_bytes(), &interner).unwrap();
        assert_eq!((places.len(), count), (12, 12));
        assert!(places.iter().all(|place| place.parent.is_none() == (place.level == 0)));
        let mut tree = crate::model::LocationTree::default();
        tree.extend(places);
        let code = interner.read(|all| all.code(Domain::Location, "XX0101")).unwrap();
        assert_eq!(tree.lineage(code).count(), 3);
    }
}
