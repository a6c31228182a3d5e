//! A list of fields that is too long for one request line is asked for in parts, and the parts of a page are
//! joined again.
//!
//! Leaving `fields=` out would be one request, but its reply holds names and addresses: what is not read is not
//! even asked for.

use std::collections::HashMap;

use super::client::Client;
use super::decode::{Decoded, Page, Record};
use super::paths::{self, By};
use crate::error::{Error, Result};
use crate::model::{Case, CaseBuilder, Instant, RecordKey, RecordType, Schema, Slot, Subform};

/// Most requests for one page.
pub(super) const PARTS_MAX: usize = 4;

/// The values of `fields=` that together ask for everything in `schema`, each short enough for a page of `per`
/// records with a number up to `page_max`.
///
/// # Errors
/// A configuration error when the fields do not fit into [`PARTS_MAX`] requests.
pub(super) fn fields(
    client: &Client,
    record_type: RecordType,
    schema: &Schema,
    per: u32,
    page_max: u32,
) -> Result<Vec<String>> {
    let fits = |fields: &str| {
        client.fits(&paths::since(record_type, By::Changed, fields, Instant(0), per, page_max))
    };
    let mut parts = vec![String::new()];
    for name in schema.names().map(paths::field) {
        let part = parts.last_mut().expect("there is at least one part");
        let longer = if part.is_empty() { name.clone() } else { format!("{part},{name}") };
        if fits(&longer).is_ok() {
            *part = longer;
        } else {
            fits(&name)?;
            parts.push(name);
        }
    }
    if parts.len() > PARTS_MAX {
        let plural = record_type.plural();
        let what = format!("asking for {plural}: the fields do not fit into {PARTS_MAX} requests");
        return Err(Error::config(what).advise("let the packs read fewer fields"));
    }
    Ok(parts)
}

/// Joins the next part of a page to what was read of it, and returns how many records had to be left out
/// because they changed in between: what is known of them belongs to two versions.
pub(super) fn join(page: &mut Page, part: Page, schema: &Schema) -> usize {
    let known = |decoded: Decoded| Some((decoded.record.ok()?, decoded.stamp));
    let mut others: HashMap<RecordKey, (Record, Option<Instant>)> = HashMap::new();
    for (record, stamp) in part.records.into_iter().filter_map(known) {
        others.insert(record.key, (record, stamp));
    }
    let before = page.records.len();
    page.records.retain_mut(|Decoded { stamp, record }| {
        // A record that is refused is refused in every part.
        let Ok(record) = record else { return true };
        let other = others.remove(&record.key).filter(|(_, other_stamp)| other_stamp == stamp);
        let Some((other, _)) = other else { return false };
        record.case = joined(&record.case, &other.case, schema);
        record.misfits.extend(other.misfits);
        true
    });
    before - page.records.len()
}

/// One case of two that hold different fields of it; what both hold is the same.
fn joined(one: &Case, other: &Case, schema: &Schema) -> Case {
    let mut builder = CaseBuilder::new(schema, one.instance());
    for case in [one, other] {
        for field in schema.fields() {
            match field.slot {
                Slot::Word(word) if case.word(word) == 0 => {}
                Slot::Word(word) => builder.put(field.slot, case.word(word)),
                Slot::Set(set) => {
                    case.set(schema, set).iter().for_each(|code| builder.put(field.slot, *code));
                }
            }
        }
        for (index, subform) in schema.subforms().iter().enumerate() {
            for row in case.rows(schema, index) {
                builder.row(subform, index, Case::row_key(row), &row[Subform::KEY_WORDS..]);
            }
        }
    }
    builder.finish(schema)
}
