//! The requests that are made, as paths with their queries.

use url::form_urlencoded;

use super::moment::filter_bound;
use crate::model::{Instant, RecordType};

/// The version and settings of the server.
pub(super) const SYSTEM_SETTINGS: &str = "/api/v2/system_settings";

/// The list of all records of a type.
fn list(record_type: RecordType) -> String {
    format!("/api/v2/{}", record_type.plural())
}

/// The newest record, without any filter, to check an empty answer by.
pub(super) fn newest(record_type: RecordType) -> String {
    let list = list(record_type);
    format!("{list}?order_by=last_updated_at&order=desc&per=1&page=1&fields=last_updated_at")
}

/// What must be empty, if filters work.
pub(super) fn far_future(record_type: RecordType) -> String {
    let list = list(record_type);
    format!("{list}?last_updated_at=2200-01-01T00:00:00Z..&per=1&page=1&fields=last_updated_at")
}

/// All forms of a type of record.
pub(super) fn forms(record_type: RecordType) -> String {
    format!("/api/v2/forms?record_type={}", record_type.id())
}

/// A name as it stands in the value of `fields=`.
pub(super) fn field(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

/// What records are listed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The time of their last change.
    Changed,
    /// The time of their creation, which never changes.
    Created,
    /// What is unique to each; all are listed then, whatever the bound.
    Identity,
}

impl By {
    /// The field that holds it.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Changed => "last_updated_at",
            Self::Created => "created_at",
            Self::Identity => "unique_identifier",
        }
    }
}

/// One page of the records whose time is not before `lower`, in the order of that time; by identity of all.
pub(super) fn since(
    record_type: RecordType,
    by: By,
    fields: &str,
    lower: Instant,
    per: u32,
    page: u32,
) -> String {
    let filter = match by {
        By::Changed | By::Created => format!("{}={}..&", by.field(), filter_bound(lower)),
        By::Identity => String::new(),
    };
    format!(
        "{list}?{filter}order_by={order}&order=asc&per={per}&page={page}&fields={fields}",
        list = list(record_type),
        order = by.field(),
    )
}

/// The number of all records.
pub(super) fn count(record_type: RecordType) -> String {
    format!("{}?per=1&page=1&fields=last_updated_at", list(record_type))
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

/// One page of the agencies.
pub(super) fn agencies(page: usize, per: usize) -> String {
    format!("/api/v2/agencies?page={page}&per={per}")
}
