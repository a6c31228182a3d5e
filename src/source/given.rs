//! Records that somebody hands over as JSON instead of a server: for files of examples.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::decode::{Decoder, Stream};
use super::moment::Zone;
use super::places;
use crate::error::Result;
use crate::model::{Code, Interner, Location, RecordChange, RecordType, Refusal, Schema, Secret};

/// Reads the records of one stream as those of a server are read.
pub struct Given(Decoder);

impl Given {
    /// For the cases of the instance `name`, whose days are those of `time_zone`.
    ///
    /// # Errors
    /// A configuration error for an unusable key or schema.
    pub fn cases(
        name: &str,
        time_zone: &TimeZone,
        schema: Arc<Schema>,
        interner: Interner,
        key: &Secret,
    ) -> Result<Self> {
        let stream = Stream { name, published_as: name, record_type: RecordType::Case };
        Decoder::new(&stream, schema, interner, key, Zone::new(time_zone)).map(Self)
    }

    /// The code of the instance.
    pub fn instance(&self) -> Code {
        self.0.instance()
    }

    /// A record, and the fields whose values did not fit their declared type.
    ///
    /// # Errors
    /// Why it is no record, in words that quote nothing of it.
    pub fn read(&mut self, json: &[u8]) -> Result<(RecordChange, Vec<String>), Refusal> {
        match self.0.record(json).record {
            Ok(record) => {
                let misfits = record.misfits.iter().map(|index| self.0.misfit_name(*index));
                let misfits = misfits.map(str::to_owned).collect();
                Ok((RecordChange { key: record.key, case: Some(record.case) }, misfits))
            }
            Err(reason) => Err(Refusal { key: None, reason }),
        }
    }
}

/// The places in the form of a reply of `/api/v2/locations`.
///
/// # Errors
/// A temporary error when it is no list of places.
pub fn given_places(reply: &[u8], interner: &Interner) -> Result<Vec<Location>> {
    places::locations(reply, interner).map(|(places, _)| places)
}
