//! The requests that are made, as paths with their queries.

use url::form_urlencoded;

use super::moment::filter_bound;
use crate::model::{Instant, Schema};

/// The newest case, without any filter, to check an empty answer by.
pub(super) const NEWEST: &str =
    "/api/v2/cases?order_by=last_updated_at&order=desc&per=1&page=1&fields=last_updated_at";
/// What must be empty, if filters work.
pub(super) const FAR_FUTURE: &str =
    "/api/v2/cases?last_updated_at=2200-01-01T00:00:00Z..&per=1&page=1&fields=last_updated_at";
/// All forms of cases.
pub(super) const FORMS: &str = "/api/v2/forms?record_type=case";
/// The version and settings of the server.
pub(super) const SYSTEM_SETTINGS: &str = "/api/v2/system_settings";

/// The value of `fields=` for a schema.
pub(super) fn fields(schema: &Schema) -> String {
    let encode = |name: &str| form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>();
    schema.names().map(encode).collect::<Vec<_>>().join(",")
}

/// One page of the cases changed since `lower`, oldest change first.
pub(super) fn cases(fields: &str, lower: Instant, per: u32, page: u32) -> String {
    format!(
        "/api/v2/cases?last_updated_at={bound}..&order_by=last_updated_at&order=asc\
         &per={per}&page={page}&fields={fields}",
        bound = filter_bound(lower)
    )
}

/// One page of all places.
pub(super) fn locations(page: usize, per: usize) -> String {
    format!("/api/v2/locations?hierarchy=true&order_by=code&order=asc&page={page}&per={per}")
}

/// One page of the lookups.
pub(super) fn lookups(page: usize, per: usize) -> String {
    format!("/api/v2/lookups?order_by=unique_id&order=asc&page={page}&per={per}")
}

/// One of the cases that the user can see, for the number of all of them.
pub(super) fn visible(enabled: bool) -> String {
    format!("/api/v2/cases?record_state={enabled}&per=1&page=1&fields=last_updated_at")
}
