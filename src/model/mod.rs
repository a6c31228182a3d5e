//! The nouns: what flows from a Primero reply to a committed row.
//!
//! **Invariant:** nothing here can hold a name, a number of a person or a text somebody typed freely; the only
//! strings are option ids, location codes and instance names, kept once each in the [`Dictionary`].

mod batch;
mod case;
mod cell;
mod change;
mod cursor;
mod day;
mod dictionary;
mod epoch;
mod key;
mod location;
mod month;
mod period;
mod period_text;
mod schema;
mod secret;
mod shared;
mod sums;

pub use batch::{Arrival, Batch, EpochInput, RecordChange, Refusal};
pub use case::{CASE_WORDS_MAX, Case, CaseBuilder};
pub use cell::{Cell, DIMENSION_BITS, Figure, FineCell, INSTANCES_MAX, Measure, TABLES_MAX};
pub use change::{CellChange, Changes, ExtractChange, Reason, Tally};
pub use cursor::{Backfill, Cursor};
pub use day::{Day, MonthOfBirth};
pub use dictionary::{CODES_MAX, Code, Dictionary, Domain, Entry, Interner, TERM_BYTES_MAX};
pub use epoch::{Durable, Epoch, Instant, Logged};
pub use key::{RecordKey, SHARDS, Tombstone};
pub use location::{LEVEL_MAX, Location, LocationTree};
pub use period::{Period, PeriodType};
pub use schema::{
    FIRST_SEEN_SUFFIX, Field, FieldType, RECORD_TYPE, RecordType, RowField, Schema, Slot, Subform,
    Watched,
};
pub use secret::{OpenSecret, SECRET_BYTES_MAX, Secret};
pub use shared::{Parted, SharedMap};
pub use sums::{Basis, Sum, Summed, Sums};
