//! What an instance calls its options, asked once, for the operator who compares it with the packs.

use super::client::Client;
use super::settings::{Settings, SourceKind};
use super::{FieldLabels, labels, paths};
use crate::error::Result;
use crate::model::Schema;

/// Lookups in one reply.
const LOOKUPS_PER_PAGE: usize = 1_000;
/// Most pages of lookups that are read.
const LOOKUPS_PAGES_MAX: usize = 200;

/// What a server calls the options of the fields of `schema`; none of files, which hold no labels.
///
/// # Errors
/// The first question that is not answered; a permission error when the role may not read lookups or forms.
pub async fn labels_of(settings: &Settings, schema: &Schema) -> Result<Option<Vec<FieldLabels>>> {
    let SourceKind::Server(server) = &settings.kind else { return Ok(None) };
    let client = Client::new(server)?;
    let mut lookups = Vec::new();
    for page in 1..=LOOKUPS_PAGES_MAX {
        let path = paths::lookups(page, LOOKUPS_PER_PAGE);
        let more = labels::lookups(&client.get(&path, "asking for lookups").await?.body)?;
        let is_last = more.len() < LOOKUPS_PER_PAGE;
        lookups.extend(more);
        if is_last {
            break;
        }
    }
    let forms = paths::forms(settings.record_type);
    let forms = labels::forms(&client.get(&forms, "asking for forms").await?.body)?;
    Ok(Some(labels::of_schema(schema, settings.record_type, lookups, &forms)))
}
