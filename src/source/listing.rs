//! Reads the lists of a census: of each record no more than who it is, as a pseudonym, and when it was created.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::decode::{Decoder, Metadata};
use super::moment::Moment;
use crate::error::{Error, Kind, Result};
use crate::model::{Instant, RecordKey};

/// A page of such a list.
pub(super) struct Listed {
    /// Its records; without a key where the id could not be read.
    pub(super) records: Vec<Entry>,
    pub(super) metadata: Metadata,
}

/// One record of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Option<RecordKey>,
    pub(super) created: Option<Instant>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    metadata: Option<Metadata>,
}

/// A record as far as it is looked at. Values of another type than text count as absent.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
}

/// Reads the body of a list of records.
///
/// # Errors
/// A temporary error when it is not the JSON of one; its text quotes nothing of it.
pub(super) fn read(decoder: &Decoder, body: &[u8]) -> Result<Listed> {
    let Body { data, metadata } = serde_json::from_slice(body).map_err(|_| {
        Error::new(Kind::Temporary, "reading a list of records: the reply is not the JSON of one")
    })?;
    let records = data.into_iter().map(|raw| entry(decoder, raw)).collect();
    Ok(Listed { records, metadata: metadata.unwrap_or_default() })
}

fn entry(decoder: &Decoder, raw: &RawValue) -> Entry {
    let Ok(Row { id, created_at }) = serde_json::from_str(raw.get()) else {
        return Entry { key: None, created: None };
    };
    let id = id.and_then(text);
    let created = created_at.and_then(text);
    Entry {
        key: id.and_then(|id| decoder.key_of(&id)),
        created: created.and_then(|text| Moment::parse(&text)).map(Moment::instant),
    }
}

fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str(raw.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::decode::tests::decoder;
    use super::*;

    const ID: &str = "00000000-0000-4000-8000-0000000000AB";

    #[test]
    fn a_list_gives_pseudonyms_and_times_whatever_else_is_in_it() {
        let mut decoder = decoder();
        let body = format!(
            r#"{{"data":[{{"id":"{ID}","created_at":"2026-01-02T03:04:05.678Z","name":"x"}},
                         {{"id":7,"created_at":[]}}, 3, {{"id":"{ID}"}}],
                "metadata":{{"total":4,"per":20}}}}"#
        );
        let listed = read(&decoder, body.as_bytes()).unwrap();
        let record = decoder.record(format!(r#"{{"id":"{}"}}"#, ID.to_lowercase()).as_bytes());
        let key = record.record.ok().map(|record| record.key);
        let nothing = Entry { key: None, created: None };
        let created = Some(Instant(1_767_323_045_678));
        let expected = [Entry { key, created }, nothing, nothing, Entry { key, created: None }];
        assert!(key.is_some());
        assert_eq!(listed.records, expected);
        assert_eq!((listed.metadata.total, listed.metadata.per), (Some(4), Some(20)));
    }

    #[test]
    fn what_is_no_list_is_an_error_that_quotes_nothing() {
        for body in ["", "[]", r#"{"data":{}}"#, r#"{"data":[1,]}"#, r#"{"secret":"hush"}"#] {
            let error = read(&decoder(), body.as_bytes()).err().unwrap();
            assert_eq!(error.kind(), Kind::Temporary);
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}
