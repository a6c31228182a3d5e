//! Where reading of one instance goes on after a restart.

use serde::{Deserialize, Serialize};

use super::Instant;

/// How far one instance has been read. Logged with each batch, so it never runs ahead of the records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Newest `last_updated_at` seen from a server; reading goes on some minutes before it.
    pub watermark: Option<Instant>,
    /// File replay: files finished, in the configured order.
    pub files_done: u32,
    /// File replay: bytes of the current file that were read.
    pub file_offset: u64,
    /// Whether the first complete read is over: until then nothing of the instance is published.
    pub first_load_done: bool,
    /// What is being read again beside it. Written apart, so that older files can be read.
    #[serde(skip)]
    pub backfill: Option<Backfill>,
}

/// An instance that is published and is read again from the beginning, for fields that were never read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// The fields, as `field`, `subform` or `subform.field`.
    pub fields: Vec<String>,
    /// How far a server has been read again; files are read again by their place in the cursor.
    pub watermark: Option<Instant>,
}
