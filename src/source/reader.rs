//! The visitors that walk through a record and fill a draft of its case.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::moment::Moment;
use super::plan::{Plan, Role, SubformPlan, Target, Targets};
use super::value::{Misfit, Terms, ValueSeed, Word};
use crate::model::{CaseBuilder, FieldType, Instant, RecordKey, Slot};

/// Most codes of one multi-select; what comes after is a misfit.
pub(super) const SET_CODES_MAX: usize = 1_000;
/// Most rows of one subform of one case; what comes after is a misfit.
pub(super) const ROWS_MAX: usize = 10_000;
/// Longest id of a row, in bytes; a longer one is none.
const ROW_ID_BYTES_MAX: usize = 128;

/// The record that is being read. Reused, so that a record costs no more allocations than its case.
pub(super) struct Draft {
    pub(super) builder: CaseBuilder,
    pub(super) key: Option<RecordKey>,
    pub(super) stamp: Option<Instant>,
    /// The day of the stamp, as a word.
    pub(super) stamp_day: u32,
    pub(super) enabled: u32,
    pub(super) state_known: bool,
    pub(super) rows: Vec<RowDraft>,
    pub(super) words: Vec<u32>,
    pub(super) row_ids: String,
    pub(super) misfits: Vec<u16>,
    /// Whether the builder holds anything of a record.
    pub(super) spoiled: bool,
}

/// A row whose key waits until the case's own is known.
#[derive(Clone, Copy)]
pub(super) struct RowDraft {
    pub(super) subform: usize,
    pub(super) words: usize,
    pub(super) id: usize,
}

impl Draft {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            builder: CaseBuilder::new(&plan.schema, plan.instance),
            key: None,
            stamp: None,
            stamp_day: 0,
            enabled: 0,
            state_known: false,
            rows: Vec::new(),
            words: Vec::new(),
            row_ids: String::new(),
            misfits: Vec::new(),
            spoiled: false,
        }
    }

    pub(super) fn clear(&mut self, plan: &Plan) {
        if self.spoiled {
            self.builder = CaseBuilder::new(&plan.schema, plan.instance);
        }
        self.spoiled = true;
        (self.key, self.stamp, self.enabled, self.state_known) = (None, None, 0, false);
        self.stamp_day = 0;
        self.rows.clear();
        self.words.clear();
        self.row_ids.clear();
        self.misfits.clear();
    }

    fn truncate_rows(&mut self, row: RowDraft) {
        self.words.truncate(row.words);
        self.row_ids.truncate(row.id);
    }
}

/// Reads one record into a draft.
pub(super) struct Reader<'a> {
    pub(super) plan: &'a Plan,
    pub(super) draft: &'a mut Draft,
    pub(super) terms: &'a mut Terms,
    /// Whether each value is cut out before it is read, so that a broken one spoils nothing else.
    pub(super) lenient: bool,
}

impl Reader<'_> {
    fn misfit(&mut self, index: usize) {
        self.draft.misfits.push(index as u16);
    }

    fn seed(&mut self, field_type: FieldType) -> ValueSeed<'_> {
        let Plan { zone, workers, .. } = self.plan;
        ValueSeed { field_type, terms: self.terms, zone, workers }
    }

    /// Reads the value of a key. `Ok(None)`: it is broken, and was skipped.
    fn value<'de, A, S>(map: &mut A, lenient: bool, seed: S) -> Result<Option<S::Value>, A::Error>
    where
        A: MapAccess<'de>,
        S: DeserializeSeed<'de>,
    {
        if !lenient {
            return map.next_value_seed(seed).map(Some);
        }
        let raw: &'de RawValue = map.next_value()?;
        Ok(seed.deserialize(&mut serde_json::Deserializer::from_str(raw.get())).ok())
    }

    /// Reads the next element. `Some(None)`: it is broken, and was skipped.
    fn element<'de, A, S>(seq: &mut A, lenient: bool, seed: S) -> ElementResult<S::Value, A::Error>
    where
        A: SeqAccess<'de>,
        S: DeserializeSeed<'de>,
    {
        if !lenient {
            return Ok(seq.next_element_seed(seed)?.map(Some));
        }
        let raw: Option<&'de RawValue> = seq.next_element()?;
        let read = |raw: &'de RawValue| {
            seed.deserialize(&mut serde_json::Deserializer::from_str(raw.get())).ok()
        };
        Ok(raw.map(read))
    }

    fn field<'de, A: MapAccess<'de>>(&mut self, map: &mut A, index: usize) -> Result<(), A::Error> {
        let field = &self.plan.schema.fields()[index];
        let lenient = self.lenient;
        let word = match field.slot {
            Slot::Set(_) => {
                let member = match field.field_type {
                    FieldType::Dates => FieldType::Date,
                    _ => FieldType::Option,
                };
                let seed = SetSeed { reader: self, slot: field.slot, member };
                Self::value(map, lenient, seed)?.unwrap_or(Err(Misfit))
            }
            Slot::Word(_) => {
                let word = Self::value(map, lenient, self.seed(field.field_type))?;
                self.put(field.slot, word.unwrap_or(Err(Misfit)))
            }
        };
        if word.is_err() {
            self.misfit(index);
        }
        Ok(())
    }

    fn put(&mut self, slot: Slot, word: Word) -> Word {
        if let Ok(word) = word {
            self.draft.builder.put(slot, word);
            self.draft.state_known |= word != 0 && self.plan.state == Some(slot);
        }
        word
    }

    fn stamp<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        field: Option<u16>,
    ) -> Result<(), A::Error> {
        let moment = Self::value(map, self.lenient, TextSeed(Moment::parse))?.flatten();
        self.draft.stamp = moment.map(Moment::instant);
        let day = moment.and_then(|moment| self.plan.zone.day(moment));
        self.draft.stamp_day = day.map_or(0, |day| day.0);
        let Some(index) = field.map(usize::from) else { return Ok(()) };
        let field = &self.plan.schema.fields()[index];
        let dated = matches!(field.field_type, FieldType::Date | FieldType::Datetime);
        let word = day.filter(|_| dated).map(|day| day.0).ok_or(Misfit);
        if self.put(field.slot, word).is_err() {
            self.misfit(index);
        }
        Ok(())
    }

    fn subform<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        index: usize,
    ) -> Result<(), A::Error> {
        let lenient = self.lenient;
        if Self::value(map, lenient, RowsSeed { reader: self, subform: index })?.is_none() {
            self.misfit(usize::from(self.plan.subforms[index].misfit));
        }
        Ok(())
    }
}

type ElementResult<T, E> = Result<Option<Option<T>>, E>;

/// Reads a record, which must be an object.
pub(super) struct RecordSeed<'a>(pub(super) Reader<'a>);

impl<'de> DeserializeSeed<'de> for RecordSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RecordSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let reader = &mut self.0;
        let plan = reader.plan;
        while let Some(target) = map.next_key_seed(KeySeed(&plan.targets))? {
            let Some(Target { role, field }) = target else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            match (role, field) {
                (Role::Id, _) => {
                    let seed = TextSeed(|text: &str| case_key(text, plan));
                    reader.draft.key = Reader::value(&mut map, reader.lenient, seed)?.flatten();
                }
                (Role::Enabled, _) => {
                    let lenient = reader.lenient;
                    let word = Reader::value(&mut map, lenient, reader.seed(FieldType::Boolean))?;
                    reader.draft.enabled = word.and_then(Result::ok).unwrap_or(0);
                }
                (Role::Stamp, field) => reader.stamp(&mut map, field)?,
                (Role::Field, Some(index)) => reader.field(&mut map, usize::from(index))?,
                (Role::Subform, Some(index)) => reader.subform(&mut map, usize::from(index))?,
                (Role::Field | Role::Subform, None) => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The pseudonym of a UUID; of nothing else, so that free text never becomes a key.
pub(super) fn case_key(id: &str, plan: &Plan) -> Option<RecordKey> {
    lower_uuid(id).map(|id| plan.records.key([&id[..]]))
}

/// A UUID in lower case, as keys are made of it.
pub(super) fn lower_uuid(id: &str) -> Option<[u8; 36]> {
    let mut lower: [u8; 36] = id.as_bytes().try_into().ok()?;
    lower.make_ascii_lowercase();
    let shaped = lower.iter().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    shaped.then_some(lower)
}

/// Reads a key and says what it means, without copying it.
struct KeySeed<'p>(&'p Targets);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<Target>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<Target>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.get(name))
    }
}

/// Reads a text and keeps what a function makes of it; null is nothing.
struct TextSeed<F>(F);

impl<'de, T, F: FnOnce(&str) -> Option<T>> DeserializeSeed<'de> for TextSeed<F> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for TextSeed<F> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<T>, E> {
        Ok((self.0)(text))
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }
}

/// Reads a multi-select or a list of dates: an array, or one value alone.
struct SetSeed<'r, 'a> {
    reader: &'r mut Reader<'a>,
    slot: Slot,
    /// The type of each value.
    member: FieldType,
}

impl<'de> DeserializeSeed<'de> for SetSeed<'_, '_> {
    type Value = Word;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Word, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl SetSeed<'_, '_> {
    fn add(self, word: Word) -> Word {
        self.reader.put(self.slot, word)
    }
}

impl<'de> Visitor<'de> for SetSeed<'_, '_> {
    type Value = Word;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of values")
    }

    fn visit_unit<E>(self) -> Result<Word, E> {
        Ok(Ok(0))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Word, E> {
        let word = self.reader.seed(self.member).visit_str(text)?;
        Ok(self.add(word))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Word, E> {
        let word = self.reader.seed(self.member).visit_bool(value)?;
        Ok(self.add(word))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Word, E> {
        let word = self.reader.seed(self.member).visit_u64(value)?;
        Ok(self.add(word))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Word, A::Error> {
        let lenient = self.reader.lenient;
        let mut all = Ok(0);
        for _ in 0..SET_CODES_MAX {
            let seed = self.reader.seed(self.member);
            let Some(word) = Reader::element(&mut seq, lenient, seed)? else { return Ok(all) };
            if self.reader.put(self.slot, word.unwrap_or(Err(Misfit))).is_err() {
                all = Err(Misfit);
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            all = Err(Misfit);
        }
        Ok(all)
    }
}

/// Reads the rows of a subform.
struct RowsSeed<'r, 'a> {
    reader: &'r mut Reader<'a>,
    subform: usize,
}

impl<'de> DeserializeSeed<'de> for RowsSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RowsSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if text.is_empty() { Ok(()) } else { Err(E::custom("a text instead of rows")) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { reader, subform } = self;
        let (lenient, own) = (reader.lenient, usize::from(reader.plan.subforms[subform].misfit));
        // A subform may come twice in one record.
        let before = reader.draft.rows.iter().filter(|row| row.subform == subform).count();
        for _ in before..ROWS_MAX {
            let (words, id) = (reader.draft.words.len(), reader.draft.row_ids.len());
            let row = RowDraft { subform, words, id };
            let seed = RowSeed { reader, row };
            let Some(read) = Reader::element(&mut seq, lenient, seed)? else { return Ok(()) };
            if read.is_some() {
                reader.draft.rows.push(row);
            } else {
                reader.draft.truncate_rows(row);
                reader.misfit(own);
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            reader.misfit(own);
        }
        Ok(())
    }
}

/// Reads one row, which must be an object.
struct RowSeed<'r, 'a> {
    reader: &'r mut Reader<'a>,
    row: RowDraft,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { reader, row } = self;
        let (plan, lenient) = (reader.plan, reader.lenient);
        let SubformPlan { targets, misfit, .. } = &plan.subforms[row.subform];
        let fields = &plan.schema.subforms()[row.subform].fields;
        reader.draft.words.resize(row.words + fields.len(), 0);
        while let Some(target) = map.next_key_seed(KeySeed(targets))? {
            match target {
                Some(Target { role: Role::Id, .. }) => {
                    let ids = &mut reader.draft.row_ids;
                    let seed = TextSeed(|text: &str| {
                        ids.truncate(row.id);
                        ids.push_str(if text.len() > ROW_ID_BYTES_MAX { "" } else { text });
                        Some(())
                    });
                    Reader::value(&mut map, lenient, seed)?;
                }
                Some(Target { field: Some(field), .. }) => {
                    let index = usize::from(field);
                    let seed = reader.seed(fields[index].field_type);
                    match Reader::value(&mut map, lenient, seed)? {
                        Some(Ok(word)) => reader.draft.words[row.words + index] = word,
                        Some(Err(Misfit)) | None => {
                            reader.misfit(usize::from(*misfit) + 1 + index);
                        }
                    }
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}
