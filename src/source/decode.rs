//! Reads a record and strips it in one pass: what is not on the allow-list is skipped where it
//! stands.
//!
//! **Invariant:** a value of a key that the schema does not name is never copied; an id leaves only
//! as a keyed pseudonym, a birth date only as its month.
//!
//! A body is read in one fast pass. What that pass cannot take (an object where a text belongs, a
//! number out of range, a broken escape) is an error of the whole body for the parser, so the body
//! is then read once more, leniently: cut into records first and values second, each isolated from
//! its neighbours.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::moment::Zone;
use super::plan::{Identity, Plan};
use super::reader::{self, Draft, Reader, RecordSeed, RowDraft};
use super::value::Terms;
use crate::error::{Error, Kind, Result};
use crate::model::{
    CASE_WORDS_MAX, Case, CaseBuilder, Code, Domain, FieldType, Instant, Interner, RECORD_TYPE,
    RecordKey, RecordType, Schema, Secret,
};

/// Why a record was refused: fixed words that quote nothing of it.
pub(super) const NOT_AN_OBJECT: &str = "it is not a JSON object";
pub(super) const NO_ID: &str = "it has no id that is a UUID";
const TOO_LARGE: &str = "it has more values than a case can hold";

/// What one record gave.
pub(super) struct Decoded {
    /// When it was last changed, if that could be read.
    pub(super) stamp: Option<Instant>,
    /// Its key and content, or why it was refused.
    pub(super) record: Result<Record, &'static str>,
}

/// A record that could be read.
pub(super) struct Record {
    pub(super) key: RecordKey,
    pub(super) case: Case,
    /// Indices into [`Decoder::misfit_name`], one for each value that did not fit.
    pub(super) misfits: Vec<u16>,
}

/// A page of a list.
#[derive(Default)]
pub(super) struct Page {
    pub(super) records: Vec<Decoded>,
    pub(super) metadata: Metadata,
}

/// What a list says about itself.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Metadata {
    /// Records that match, over all pages.
    pub(super) total: Option<u64>,
    /// Records of a full page, after the server's cap.
    pub(super) per: Option<u64>,
}

/// A stream of records, as far as a decoder minds.
pub(super) struct Stream<'a> {
    /// Its own name.
    pub(super) name: &'a str,
    /// The name that its instance is published under.
    pub(super) published_as: &'a str,
    /// What its records are.
    pub(super) record_type: RecordType,
}

/// Decodes records of one stream. Clones share the plan, and each has its own scratch space.
pub(super) struct Decoder {
    plan: Arc<Plan>,
    terms: Terms,
    draft: Draft,
}

impl Clone for Decoder {
    fn clone(&self) -> Self {
        let terms = Terms::new(self.terms.interner().clone());
        Self { plan: Arc::clone(&self.plan), terms, draft: Draft::new(&self.plan) }
    }
}

impl Decoder {
    /// A decoder for the records of one stream.
    ///
    /// # Errors
    /// A configuration error for an unusable pseudonym key or schema, or when the dictionary is
    /// full.
    pub(super) fn new(
        stream: &Stream<'_>,
        schema: Arc<Schema>,
        interner: Interner,
        key: &Secret,
        zone: Zone,
    ) -> Result<Self> {
        let code = interner.intern(Domain::Instance, stream.name);
        let code = code.ok_or_else(|| Error::config("the name of an instance is too long"))?;
        let type_code = match schema.field(RECORD_TYPE) {
            None => None,
            Some(_) => {
                let code = interner.intern(Domain::Option, stream.record_type.id());
                Some(code.ok_or_else(|| Error::config("there are too many option ids"))?)
            }
        };
        let Stream { published_as, record_type, .. } = *stream;
        let identity = Identity { published_as, code, record_type, type_code, key };
        let plan = Arc::new(Plan::new(&identity, schema, zone)?);
        Ok(Self { draft: Draft::new(&plan), plan, terms: Terms::new(interner) })
    }

    /// The code of the instance.
    pub(super) fn instance(&self) -> Code {
        self.plan.instance
    }

    /// The key of the record with this id, if it is one.
    pub(super) fn key_of(&self, id: &str) -> Option<RecordKey> {
        reader::case_key(id, &self.plan)
    }

    /// What is read of a record.
    pub(super) fn schema(&self) -> &Schema {
        &self.plan.schema
    }

    /// The dictionary that terms are added to.
    pub(super) fn interner(&self) -> &Interner {
        self.terms.interner()
    }

    /// The field that a misfit index names, `sub.field` for one of a subform.
    pub(super) fn misfit_name(&self, index: u16) -> &str {
        &self.plan.misfit_names[usize::from(index)]
    }

    /// Decodes the body of a list of cases or incidents.
    ///
    /// # Errors
    /// A temporary error when the body is not the JSON of a list: it was cut or replaced on its
    /// way. Its text quotes nothing of the body.
    pub(super) fn page(&mut self, body: &[u8]) -> Result<Page> {
        let text = text(body);
        if let Ok(page) = self.page_pass(&text, false) {
            return Ok(page);
        }
        self.page_pass(&text, true).map_err(|_| {
            Error::new(
                Kind::Temporary,
                "reading a list of records: the reply is not the JSON of one",
            )
        })
    }

    /// Decodes one record standing alone.
    pub(super) fn record(&mut self, json: &[u8]) -> Decoded {
        self.record_text(&text(json))
    }

    fn record_text(&mut self, json: &str) -> Decoded {
        if self.record_pass(json, false).is_err() && self.record_pass(json, true).is_err() {
            return self.refused(NOT_AN_OBJECT);
        }
        self.finish()
    }

    fn page_pass(&mut self, body: &str, lenient: bool) -> serde_json::Result<Page> {
        let mut json = serde_json::Deserializer::from_str(body);
        let page = PageSeed { decoder: self, lenient }.deserialize(&mut json)?;
        json.end()?;
        Ok(page)
    }

    fn record_pass(&mut self, json: &str, lenient: bool) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_str(json);
        self.begin(lenient).deserialize(&mut json)?;
        json.end()
    }

    fn begin(&mut self, lenient: bool) -> RecordSeed<'_> {
        self.draft.clear(&self.plan);
        let (plan, draft, terms) = (&*self.plan, &mut self.draft, &mut self.terms);
        RecordSeed(Reader { plan, draft, terms, lenient })
    }

    fn refused(&mut self, reason: &'static str) -> Decoded {
        Decoded { stamp: self.draft.stamp.take(), record: Err(reason) }
    }

    /// Makes a case of the draft.
    fn finish(&mut self) -> Decoded {
        let Some(key) = self.draft.key else {
            return self.refused(NO_ID);
        };
        let plan = Arc::clone(&self.plan);
        if let Some(slot) = plan.state.filter(|_| !self.draft.state_known) {
            self.draft.builder.put(slot, self.draft.enabled);
        }
        if let Some((slot, word)) = plan.record_type {
            self.draft.builder.put(slot, word);
        }
        for watched in plan.schema.watched() {
            self.draft.builder.first_seen(*watched, self.draft.stamp_day);
        }
        if !self.draft.rows.is_empty() {
            self.add_rows(&plan, key);
        }
        let empty = CaseBuilder::new(&plan.schema, plan.instance);
        let case = std::mem::replace(&mut self.draft.builder, empty).finish(&plan.schema);
        self.draft.spoiled = false;
        if case.words().len() > CASE_WORDS_MAX {
            return self.refused(TOO_LARGE);
        }
        let misfits = std::mem::take(&mut self.draft.misfits);
        Decoded { stamp: self.draft.stamp, record: Ok(Record { key, case, misfits }) }
    }

    fn add_rows(&mut self, plan: &Plan, case: RecordKey) {
        let case_bytes = case.to_bytes();
        let mut taken = Taken::default();
        for index in 0..self.draft.rows.len() {
            let RowDraft { subform, words, id } = self.draft.rows[index];
            let end = self.draft.rows.get(index + 1);
            let (words_end, id_end) = end
                .map_or((self.draft.words.len(), self.draft.row_ids.len()), |next| {
                    (next.words, next.id)
                });
            let own = &self.draft.row_ids[id..id_end];
            let words = &self.draft.words[words..words_end];
            let rows = &plan.subforms[subform].rows;
            let mut key = rows.key([&case_bytes[..], own.as_bytes()]);
            if own.is_empty() || !taken.keys.insert((subform, key)) {
                key = derived_key(plan, subform, &case_bytes, words, &self.terms, &mut taken);
            }
            let layout = &plan.schema.subforms()[subform];
            self.draft.builder.row(layout, subform, key, words);
        }
    }
}

/// The text of a body. Bytes that are no UTF-8 become placeholders, and a misfit where anybody
/// looks.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// The key of a row that has no id of its own, or repeats another's: made from what it says, in
/// words rather than codes, and its ordinal among rows that say the same, so that neither its place
/// nor the dictionary decides.
fn derived_key(
    plan: &Plan,
    subform: usize,
    case: &[u8],
    words: &[u32],
    terms: &Terms,
    taken: &mut Taken,
) -> RecordKey {
    let fields = &plan.schema.subforms()[subform].fields;
    let mut content = Vec::new();
    for (field, word) in fields.iter().zip(words).filter(|(_, word)| **word != 0) {
        let domain = match field.field_type {
            FieldType::Option | FieldType::Options => Some(Domain::Option),
            FieldType::Location => Some(Domain::Location),
            FieldType::Agency => Some(Domain::Agency),
            FieldType::Worker => Some(Domain::Worker),
            _ => None,
        };
        let term = domain.and_then(|domain| {
            terms.interner().read(|all| all.term(domain, Code(*word)).map(str::to_owned))
        });
        content.push(field.name.as_bytes().to_vec());
        content.push(term.map_or_else(|| word.to_be_bytes().to_vec(), String::into_bytes));
    }
    let next = taken.ordinals.entry((subform, words.to_vec())).or_default();
    loop {
        let place = next.to_be_bytes();
        *next += 1;
        let fixed = [case, b"content", &place];
        let parts = fixed.into_iter().chain(content.iter().map(Vec::as_slice));
        let key = plan.subforms[subform].rows.key(parts);
        // At most as many turns as there are rows: each key that is taken is of another row.
        if taken.keys.insert((subform, key)) {
            return key;
        }
    }
}

/// Keys of the rows of one record that are given away.
#[derive(Default)]
struct Taken {
    keys: HashSet<(usize, RecordKey)>,
    /// By subform and content: the ordinal of the next row that says the same.
    ordinals: HashMap<(usize, Vec<u32>), u64>,
}

/// Reads a whole page: `{"data": [...], "metadata": {...}}`.
struct PageSeed<'a> {
    decoder: &'a mut Decoder,
    lenient: bool,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum PageKey {
    Data,
    Metadata,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for PageSeed<'_> {
    type Value = Page;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Page, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PageSeed<'_> {
    type Value = Page;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a page of records")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page, A::Error> {
        let mut metadata = Metadata::default();
        let mut records = None;
        while let Some(key) = map.next_key()? {
            match key {
                PageKey::Data => {
                    let (decoder, lenient) = (&mut *self.decoder, self.lenient);
                    records = Some(map.next_value_seed(RecordsSeed { decoder, lenient })?);
                }
                PageKey::Metadata => {
                    let raw: &'de RawValue = map.next_value()?;
                    metadata = serde_json::from_str(raw.get()).unwrap_or_default();
                }
                PageKey::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let records = records.ok_or_else(|| A::Error::missing_field("data"))?;
        Ok(Page { records, metadata })
    }
}

/// Reads the records of a page.
struct RecordsSeed<'a> {
    decoder: &'a mut Decoder,
    lenient: bool,
}

impl<'de> DeserializeSeed<'de> for RecordsSeed<'_> {
    type Value = Vec<Decoded>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for RecordsSeed<'_> {
    type Value = Vec<Decoded>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut records = Vec::new();
        if self.lenient {
            while let Some(raw) = seq.next_element::<&'de RawValue>()? {
                records.push(self.decoder.record_text(raw.get()));
            }
            return Ok(records);
        }
        while seq.next_element_seed(self.decoder.begin(false))?.is_some() {
            records.push(self.decoder.finish());
        }
        Ok(records)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Dictionary, RowField, Subform};
    use crate::source::reader::ROWS_MAX;

    pub(in crate::source) const CASES: &str =
        include_str!("../../tests/data/recordings/cases.ndjson");
    const ID: &str = "63ae7397-3463-4996-bf8c-110b5c1d0665";

    pub(in crate::source) fn schema() -> Arc<Schema> {
        use FieldType::*;
        let fields = [
            ("record_state", Boolean),
            ("status", Option),
            ("sex", Option),
            ("age", Integer),
            ("registration_date", Date),
            ("date_closure", Date),
            ("created_at", Datetime),
            ("date_of_birth", BirthMonth),
            ("protection_concerns", Options),
            ("nationality", Options),
            ("risk_level", Option),
            ("location_current", Location),
            ("owned_by_location", Location),
            ("owned_by_agency_id", Agency),
            ("has_case_plan", Boolean),
            ("workflow", Option),
        ];
        let subform = |name: &str, fields: &[(&str, FieldType)]| Subform {
            name: name.into(),
            fields: fields
                .iter()
                .map(|(name, field_type)| RowField {
                    name: (*name).into(),
                    field_type: *field_type,
                })
                .collect(),
        };
        let services = [
            ("service_type", Option),
            ("service_implemented", Option),
            ("service_response_day_time", Datetime),
            ("service_appointment_date", Date),
        ];
        let follow_ups = [("followup_type", Option), ("followup_date", Date)];
        Arc::new(Schema::new(
            fields.map(|(name, field_type)| (name.to_owned(), field_type)),
            vec![
                subform("services_section", &services),
                subform("followup_subform_section", &follow_ups),
                subform("reopened_logs", &[("reopened_date", Datetime)]),
            ],
        ))
    }

    pub(in crate::source) fn decoder() -> Decoder {
        let key = Secret::new("a key for tests only");
        let zone = Zone::new(&jiff::tz::TimeZone::get("Asia/Phnom_Penh").unwrap());
        decoder_of(RecordType::Case, schema(), zone, &key)
    }

    pub(in crate::source) fn page_of_all() -> String {
        let rows: Vec<&str> = CASES.lines().collect();
        let count = rows.len();
        format!(
            r#"{{"data":[{}],"metadata":{{"total":{count},"per":1000,"page":1}}}}"#,
            rows.join(",")
        )
    }

    /// A decoder of `record_type` for these fields.
    pub(in crate::source) fn decoder_of(
        record_type: RecordType,
        schema: Arc<Schema>,
        zone: Zone,
        key: &Secret,
    ) -> Decoder {
        let stream = Stream { name: "kampot", published_as: "kampot", record_type };
        Decoder::new(&stream, schema, Interner::new(Dictionary::default()), key, zone).unwrap()
    }

    struct Read {
        decoder: Decoder,
        decoded: Decoded,
    }

    fn read(record: &Value) -> Read {
        let mut decoder = decoder();
        let decoded = decoder.record(record.to_string().as_bytes());
        Read { decoder, decoded }
    }

    impl Read {
        fn record(&self) -> &Record {
            self.decoded.record.as_ref().unwrap()
        }

        fn word(&self, name: &str) -> u32 {
            let slot = self.decoder.plan.schema.field(name).unwrap().slot;
            let Slot::Word(index) = slot else { panic!("{name} is a set") };
            self.record().case.word(index)
        }

        fn term(&self, name: &str) -> std::option::Option<String> {
            let domain = match self.decoder.plan.schema.field(name).unwrap().field_type {
                FieldType::Location => Domain::Location,
                FieldType::Agency => Domain::Agency,
                FieldType::Worker => Domain::Worker,
                _ => Domain::Option,
            };
            let code = Code(self.word(name));
            self.decoder.terms.interner().read(|all| all.term(domain, code).map(str::to_owned))
        }

        fn set(&self, name: &str) -> Vec<String> {
            let schema = &self.decoder.plan.schema;
            let Slot::Set(index) = schema.field(name).unwrap().slot else { panic!() };
            let term = |code: &u32| {
                self.decoder
                    .terms
                    .interner()
                    .read(|all| all.term(Domain::Option, Code(*code)).unwrap().to_owned())
            };
            self.record().case.set(schema, index).iter().map(term).collect()
        }

        fn keys(&self, subform: &str) -> Vec<RecordKey> {
            let schema = &self.decoder.plan.schema;
            let index = schema.subform(subform).unwrap();
            self.record().case.rows(schema, index).map(Case::row_key).collect()
        }

        fn misfits(&self) -> Vec<&str> {
            let names = self.record().misfits.iter();
            names.map(|index| self.decoder.misfit_name(*index)).collect()
        }
    }

    use crate::model::Slot;

    fn with(name: &str, value: Value) -> Read {
        read(&json!({"id": ID, name: value}))
    }

    #[test]
    fn every_recorded_case_is_read_without_a_misfit() {
        let mut decoder = decoder();
        let page = decoder.page(page_of_all().as_bytes()).unwrap();
        assert_eq!(page.records.len(), 317);
        assert_eq!(page.metadata.total, Some(317));
        let mut keys = HashSet::new();
        for (line, decoded) in CASES.lines().zip(&page.records) {
            let record = decoded.record.as_ref().unwrap();
            assert!(decoded.stamp.is_some());
            assert!(record.misfits.is_empty(), "{:?}", record.misfits);
            assert!(keys.insert(record.key));
            let alone = decoder.clone().record(line.as_bytes()).record.ok().unwrap();
            assert_eq!((alone.key, &alone.case), (record.key, &record.case));
            let value: Value = serde_json::from_str(line).unwrap();
            let rows = value["services_section"].as_array().map_or(0, Vec::len);
            assert_eq!(record.case.rows(&decoder.plan.schema, 0).len(), rows);
        }
    }

    #[test]
    fn the_recorded_poll_gives_each_case_once() {
        let calls = include_str!("../../tests/data/recordings/poll-sequence.ndjson");
        let mut decoder = decoder();
        let mut polled = HashSet::new();
        for call in calls.lines() {
            let call: Value = serde_json::from_str(call).unwrap();
            let page = decoder.page(call["body"].to_string().as_bytes()).unwrap();
            assert_eq!(page.metadata.per, Some(100));
            polled.extend(page.records.iter().map(|one| one.record.as_ref().ok().unwrap().key));
        }
        let all = decoder.page(page_of_all().as_bytes()).unwrap().records;
        assert_eq!(polled, all.iter().map(|one| one.record.as_ref().ok().unwrap().key).collect());
    }

    #[test]
    fn both_passes_read_the_same() {
        let mut decoder = decoder();
        for line in CASES.lines() {
            decoder.record_pass(line, false).unwrap();
            let fast = decoder.finish().record.ok().unwrap();
            decoder.record_pass(line, true).unwrap();
            let lenient = decoder.finish().record.ok().unwrap();
            assert_eq!((fast.key, fast.case), (lenient.key, lenient.case));
        }
    }

    #[test]
    fn an_option_may_be_a_text_a_boolean_or_a_number() {
        let check = |value: Value, term: std::option::Option<&str>, misfits: &[&str]| {
            let read = with("sex", value);
            assert_eq!(read.term("sex").as_deref(), term);
            assert_eq!(read.misfits(), misfits);
        };
        check(json!("male"), Some("male"), &[]);
        check(json!(true), Some("true"), &[]);
        check(json!(3), Some("3"), &[]);
        for empty in [json!(null), json!(""), json!([])] {
            check(empty, None, &[]);
        }
        for misfit in [json!(["male"]), json!({"a": 1}), json!(1.5), json!("x".repeat(200))] {
            check(misfit, None, &["sex"]);
        }
    }

    #[test]
    fn a_set_takes_one_or_many_and_keeps_what_fits() {
        assert_eq!(
            with("nationality", json!(["b", "a", "b", null, ""])).set("nationality").len(),
            2
        );
        assert_eq!(with("nationality", json!("a")).set("nationality"), ["a"]);
        let odd = with("nationality", json!(["a", {"x": 1}, 7]));
        assert_eq!(odd.set("nationality"), ["a", "7"]);
        assert_eq!(odd.misfits(), ["nationality"]);
        assert!(with("nationality", json!([])).misfits().is_empty());
    }

    #[test]
    fn numbers_and_booleans_are_strict_but_for_their_spelling() {
        assert_eq!(Case::integer(with("age", json!(7)).word("age")), Some(7));
        assert_eq!(Case::integer(with("age", json!(7.0)).word("age")), Some(7));
        for misfit in
            [json!("7"), json!(7.5), json!(true), json!(1e300), json!(u64::MAX), json!({})]
        {
            let read = with("age", misfit);
            assert_eq!((read.word("age"), read.misfits()), (0, vec!["age"]));
        }
        assert_eq!(
            Case::boolean(with("has_case_plan", json!("true")).word("has_case_plan")),
            Some(true)
        );
        assert_eq!(
            Case::boolean(with("has_case_plan", json!(false)).word("has_case_plan")),
            Some(false)
        );
        assert_eq!(with("has_case_plan", json!("yes")).misfits(), ["has_case_plan"]);
    }

    #[test]
    fn dates_become_local_days_and_a_birth_date_its_month() {
        let day = |name: &str, text: &str| {
            Case::day(with(name, json!(text)).word(name)).map(|day| day.date().to_string())
        };
        assert_eq!(day("created_at", "2024-01-31T18:00:00.123Z").as_deref(), Some("2024-02-01"));
        assert_eq!(day("created_at", "2024-01-31T18:00:00+00:00").as_deref(), Some("2024-02-01"));
        assert_eq!(day("created_at", "2024-01-31").as_deref(), Some("2024-01-31"));
        assert_eq!(day("registration_date", "2024-01-31T18:00:00Z").as_deref(), Some("2024-02-01"));
        assert_eq!(with("registration_date", json!("31/01/2024")).misfits(), ["registration_date"]);
        let first = with("date_of_birth", json!("2014-05-01")).word("date_of_birth");
        assert_ne!(first, 0);
        assert_eq!(first, with("date_of_birth", json!("2014-05-31")).word("date_of_birth"));
    }

    #[test]
    fn locations_keep_their_digits_and_lose_their_case() {
        let term = |value: Value| with("location_current", value).term("location_current").unwrap();
        assert_eq!(term(json!("01")), "01");
        assert_eq!(term(json!("xx0101")), "XX0101");
        assert_eq!(term(json!(9901)), "9901");
    }

    /// Reads a record with one field of this type.
    fn typed(field_type: FieldType, record_type: RecordType, name: &str, value: Value) -> Read {
        let schema = Arc::new(Schema::new([(name.to_owned(), field_type)], Vec::new()));
        let zone = Zone::new(&jiff::tz::TimeZone::get("Asia/Phnom_Penh").unwrap());
        let key = Secret::new("a key for tests only");
        let mut decoder = decoder_of(record_type, schema, zone, &key);
        let decoded = decoder.record(json!({"id": ID, name: value}).to_string().as_bytes());
        Read { decoder, decoded }
    }

    #[test]
    fn a_worker_is_a_pseudonym_and_an_agency_its_id() {
        let worker = |value: Value| typed(FieldType::Worker, RecordType::Case, "owned_by", value);
        let read = worker(json!("sok.dara"));
        let pseudonym = read.term("owned_by").unwrap();
        assert_eq!(pseudonym.len(), 32);
        let same = worker(json!("sok.dara")).term("owned_by");
        assert_eq!(same.as_deref(), Some(pseudonym.as_str()));
        assert_ne!(worker(json!("sok.dari")).term("owned_by"), same);
        let entries = read.decoder.terms.interner().read(|all| all.entries_from(0));
        assert!(!format!("{entries:?}").contains("dara"));
        for empty in [json!(null), json!("")] {
            assert_eq!(worker(empty).word("owned_by"), 0);
        }
        for misfit in [json!(["sok.dara"]), json!({"user": "sok.dara"}), json!(true)] {
            let read = worker(misfit);
            assert_eq!((read.word("owned_by"), read.misfits()), (0, vec!["owned_by"]));
        }
        let of_incident =
            typed(FieldType::Worker, RecordType::Incident, "owned_by", json!("sok.dara"));
        assert_eq!(of_incident.term("owned_by"), same, "one worker, whatever the record");

        let agency = with("owned_by_agency_id", json!("agency-alpha"));
        assert_eq!(agency.term("owned_by_agency_id").as_deref(), Some("agency-alpha"));
        assert_eq!(with("owned_by_agency_id", json!(42)).term("owned_by_agency_id").unwrap(), "42");
    }

    #[test]
    fn dates_are_a_sorted_set_of_days() {
        let days = |value: Value| {
            let read = typed(FieldType::Dates, RecordType::Case, "followup_due_dates", value);
            let schema = Arc::clone(&read.decoder.plan.schema);
            let days = read.record().case.set(&schema, 0).iter();
            let days: Vec<_> =
                days.map(|day| Case::day(*day).unwrap().date().to_string()).collect();
            (days.join(" "), read.misfits().len())
        };
        let check = |value: Value, text: &str, misfits: usize| {
            assert_eq!(days(value.clone()), (text.to_owned(), misfits), "{value}");
        };
        check(json!(["2026-03-01", "2026-01-31", "2026-03-01"]), "2026-01-31 2026-03-01", 0);
        check(json!("2026-03-01"), "2026-03-01", 0);
        check(json!(["2024-01-31T18:00:00Z", null, ""]), "2024-02-01", 0);
        for empty in [json!([]), json!(null), json!("")] {
            check(empty, "", 0);
        }
        check(json!(["2026-03-01", "soon", 7, {"x": 1}]), "2026-03-01", 1);
        for misfit in [json!("soon"), json!(20260301), json!({"x": 1}), json!(true)] {
            check(misfit, "", 1);
        }
    }

    #[test]
    fn the_record_type_is_ours_whatever_a_record_says() {
        for (record_type, id) in [(RecordType::Case, "case"), (RecordType::Incident, "incident")] {
            let read = typed(FieldType::Option, record_type, RECORD_TYPE, json!("elephant"));
            assert_eq!(read.term(RECORD_TYPE).as_deref(), Some(id));
            assert!(read.misfits().is_empty());
            assert_eq!(read.decoder.schema().names().count(), 0, "no server is asked for it");
        }
        let key = |record_type| {
            typed(FieldType::Option, record_type, RECORD_TYPE, json!(null)).record().key
        };
        assert_ne!(key(RecordType::Case), key(RecordType::Incident));
        let schema = Schema::new([(RECORD_TYPE.to_owned(), FieldType::Boolean)], Vec::new());
        let zone = Zone::new(&jiff::tz::TimeZone::UTC);
        let stream = Stream { name: "a", published_as: "a", record_type: RecordType::Case };
        let secret = Secret::new("a key for tests only");
        let made = Decoder::new(&stream, Arc::new(schema), Interner::default(), &secret, zone);
        assert_eq!(made.err().unwrap().kind(), Kind::Config);
    }

    #[test]
    fn the_recorded_incident_is_read() {
        let exchange: Value =
            serde_json::from_str(include_str!("../../tests/data/recordings/incidents-index.json"))
                .unwrap();
        let fields = [
            ("incident_date", FieldType::Date),
            ("owned_by", FieldType::Worker),
            ("owned_by_agency_id", FieldType::Agency),
            (RECORD_TYPE, FieldType::Option),
            ("record_state", FieldType::Boolean),
        ];
        let fields = fields.map(|(name, field_type)| (name.to_owned(), field_type));
        let zone = Zone::new(&jiff::tz::TimeZone::UTC);
        let secret = Secret::new("a key for tests only");
        let schema = Arc::new(Schema::new(fields, Vec::new()));
        let mut decoder = decoder_of(RecordType::Incident, schema, zone, &secret);
        let page = decoder.page(exchange["body"].to_string().as_bytes()).unwrap();
        assert_eq!((page.records.len(), page.metadata.total), (1, Some(1)));
        let Ok(record) = &page.records[0].record else { panic!("it is refused") };
        assert!(record.misfits.is_empty());
        let day = decoder.schema().field("incident_date").unwrap().slot;
        let Slot::Word(word) = day else { panic!("a date is a word") };
        let day = Case::day(record.case.word(word)).unwrap();
        assert_eq!(day.date().to_string(), "2026-11-02");
    }

    #[test]
    fn enabled_stands_in_for_record_state() {
        let state = |record: Value| Case::boolean(read(&record).word("record_state"));
        assert_eq!(state(json!({"id": ID, "enabled": false})), Some(false));
        assert_eq!(state(json!({"id": ID, "enabled": true, "record_state": false})), Some(false));
        assert_eq!(state(json!({"record_state": null, "enabled": true, "id": ID})), Some(true));
        assert_eq!(state(json!({"id": ID})), None);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_refused_alone() {
        let good = json!({"id": ID, "last_updated_at": "2024-01-02T03:04:05.678Z", "sex": "male"});
        let odd = [
            json!(7),
            json!([]),
            json!(null),
            json!({"sex": "male"}),
            json!({"id": "x"}),
            json!({"id": 5}),
            json!({"id": ID, "age": {"total": 1}}),
        ];
        let mut rows = vec![good.clone()];
        rows.extend(odd);
        rows.push(good);
        let body = json!({"data": rows, "metadata": {"total": 9}}).to_string();
        let mut decoder = decoder();
        let page = decoder.page(body.as_bytes()).unwrap();
        let reasons: Vec<_> =
            page.records.iter().map(|one| one.record.as_ref().err().copied()).collect();
        let (object, id) = (Some(NOT_AN_OBJECT), Some(NO_ID));
        assert_eq!(reasons, [None, object, object, object, id, id, id, None, None]);
        assert_eq!(page.records[0].stamp, Some(Instant(1_704_164_645_678)));
        let (first, last) = (&page.records[0].record, &page.records[8].record);
        assert_eq!(first.as_ref().ok().unwrap().case, last.as_ref().ok().unwrap().case);
    }

    #[test]
    fn one_value_that_no_parser_takes_is_a_misfit() {
        let mut decoder = decoder();
        let text = format!(
            r#"{{"age":1e999,"sex":"\ud800","status":"open","id":"{}","name":"\udfff",
               "services_section":[{{"unique_id":"a","service_type":"\ud800"}},5]}}"#,
            ID.to_uppercase()
        );
        let record = decoder.record(text.as_bytes()).record.ok().unwrap();
        let mut names: Vec<_> = record.misfits.iter().map(|i| decoder.misfit_name(*i)).collect();
        names.sort_unstable();
        assert_eq!(names, ["age", "services_section", "services_section.service_type", "sex"]);
        assert_eq!(record.key, read(&json!({"id": ID})).record().key);
        assert_eq!(record.case.rows(&decoder.plan.schema, 0).len(), 1);
    }

    #[test]
    fn a_row_keeps_its_key_wherever_it_stands() {
        let rows = |rows: Value| with("services_section", rows).keys("services_section");
        let (a, b) = (json!({"unique_id": "a"}), json!({"unique_id": "b", "service_type": "x"}));
        let (ab, ba) = (rows(json!([a, b])), rows(json!([b, a])));
        assert_eq!(ab, [ba[1], ba[0]]);
        let (x, y) = (json!({"service_type": "x"}), json!({"service_type": "y"}));
        let (xyx, yxx) = (rows(json!([x, y, x])), rows(json!([y, x, x])));
        assert_eq!(xyx, [yxx[1], yxx[0], yxx[2]]);
        assert_ne!(xyx[0], xyx[2]);
        let twice = rows(json!([a, a]));
        assert_ne!(twice[0], twice[1]);
    }

    #[test]
    fn a_row_that_breaks_midway_leaves_nothing_behind() {
        let rows = r#"[{"unique_id":"a"},{"service_type":"x","\ud800":1},{"unique_id":"b"}]"#;
        let text = format!(r#"{{"id":"{ID}","services_section":{rows}}}"#);
        let mut decoder = decoder();
        let record = decoder.record(text.as_bytes()).record.ok().unwrap();
        let words: Vec<_> =
            record.case.rows(&decoder.plan.schema, 0).map(|row| &row[4..]).collect();
        assert_eq!(words, [[0; 4], [0; 4]]);
        assert_eq!(record.misfits.len(), 1);
    }

    #[test]
    fn rows_are_bounded_however_often_their_subform_comes() {
        let rows = format!("[{}]", vec!["{}"; ROWS_MAX].join(","));
        let twice =
            format!(r#"{{"id":"{ID}","services_section":{rows},"services_section":{rows}}}"#);
        let decoded = decoder().record(twice.as_bytes());
        let record = decoded.record.unwrap();
        assert_eq!(record.case.rows(&schema(), 0).count(), ROWS_MAX);
        assert_eq!(record.misfits.len(), ROWS_MAX);
    }

    #[test]
    fn the_same_row_id_in_two_cases_is_two_rows() {
        let other = "00000000-3463-4996-bf8c-110b5c1d0665";
        let keys = |id: &str| {
            let rows = json!([{"unique_id": "a"}]);
            read(&json!({"services_section": rows, "id": id})).keys("services_section")
        };
        assert_ne!(keys(ID), keys(other));
    }

    #[test]
    fn a_derived_key_does_not_depend_on_the_dictionary() {
        let record = json!({"id": ID, "services_section": [{"service_type": "x"}]}).to_string();
        let mut warm = decoder();
        warm.record(json!({"id": ID, "sex": "male"}).to_string().as_bytes());
        let row = |mut decoder: Decoder| {
            let record = decoder.record(record.as_bytes()).record.ok().unwrap();
            let row = record.case.rows(&decoder.plan.schema, 0).next().unwrap().to_vec();
            Case::row_key(&row)
        };
        assert_eq!(row(warm), row(decoder()));
    }

    #[test]
    fn a_cut_body_is_an_error_that_quotes_nothing() {
        let body = page_of_all();
        for end in [0, 1, 100, body.len() / 2, body.len() - 1] {
            let error = decoder().page(&body.as_bytes()[..end]).err().unwrap();
            assert_eq!(error.kind(), Kind::Temporary);
            assert!(!error.to_string().contains("open"));
        }
    }

    #[test]
    fn what_identifies_a_child_stays_outside() {
        const CANARY: &str = "CANARY-7f3a";
        let mut decoder = decoder();
        for line in CASES.lines() {
            let mut record: Value = serde_json::from_str(line).unwrap();
            plant(&mut record, CANARY, &|name| decoder.plan.schema.names().all(|n| n != name));
            decoder.record(record.to_string().as_bytes());
            let decoded = decoder.record(record.to_string().as_bytes()).record.ok().unwrap();
            let text = format!("{:?} {:?}", decoded.case, decoded.key);
            assert!(!text.contains(CANARY));
        }
        let entries = decoder.terms.interner().read(|all| all.entries_from(0));
        assert!(entries.len() > 50, "the test looked at something");
        assert!(!format!("{entries:?}").contains(CANARY));
        assert!(!decoder.draft.row_ids.contains(CANARY));
    }

    /// Replaces every text, outside what is read, by a canary.
    fn plant(value: &mut Value, canary: &str, outside: &dyn Fn(&str) -> bool) {
        const ROWS_READ: [&str; 8] = [
            "unique_id",
            "service_type",
            "service_implemented",
            "service_response_day_time",
            "service_appointment_date",
            "followup_type",
            "followup_date",
            "reopened_date",
        ];
        let Value::Object(object) = value else { return };
        for (name, value) in object {
            match value {
                Value::String(text) if outside(name) && name != "id" => *text = canary.into(),
                Value::Array(rows) if name.ends_with("section") || name == "reopened_logs" => {
                    rows.iter_mut()
                        .for_each(|row| plant(row, canary, &|n| !ROWS_READ.contains(&n)));
                }
                Value::Array(rows) if outside(name) => *rows = vec![json!(canary)],
                _ => {}
            }
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            "20[0-9]{2}-[01][0-9]-[0-3][0-9]".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            let name = prop::sample::select(vec![
                "id",
                "unique_id",
                "age",
                "sex",
                "services_section",
                "service_type",
                "nationality",
                "registration_date",
                "last_updated_at",
                "enabled",
                "data",
                "other",
                "location_current",
            ]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map(name.prop_map(str::to_owned), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(values in prop::collection::vec(any_json(), 0..6)) {
            let mut decoder = decoder();
            let mut rows = values;
            for row in &mut rows {
                if let Value::Object(object) = row {
                    object.insert("id".into(), json!(ID));
                }
            }
            let body = json!({"data": rows, "metadata": {}}).to_string();
            let page = decoder.page(body.as_bytes()).unwrap();
            prop_assert_eq!(page.records.len(), rows.len());
            for (row, decoded) in rows.iter().zip(page.records) {
                prop_assert_eq!(row.is_object(), decoded.record.is_ok());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            cut in 0..2_000_usize, bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let line = CASES.lines().nth(1).unwrap().as_bytes();
            let broken = [&line[..cut.min(line.len())], &bytes].concat();
            let mut decoder = decoder();
            let _ = decoder.record(&broken);
            prop_assert!(decoder.record(line).record.is_ok());
            let _ = decoder.page(&broken);
        }
    }

    #[test]
    #[ignore = "a measurement: run it alone, optimized"]
    fn rates() {
        let body = page_of_all();
        let mut decoder = decoder();
        let best = |run: &mut dyn FnMut()| {
            (0..30)
                .map(|_| {
                    let start = std::time::Instant::now();
                    (0..10).for_each(|_| run());
                    start.elapsed().as_secs_f64() / 10.0
                })
                .fold(f64::MAX, f64::min)
        };
        let floor = best(&mut || {
            serde_json::from_slice::<IgnoredAny>(body.as_bytes()).unwrap();
        });
        let fast = best(&mut || {
            decoder.page(body.as_bytes()).unwrap();
        });
        let lenient = best(&mut || {
            decoder.page_pass(&body, true).unwrap();
        });
        for (name, seconds) in [("floor", floor), ("decode", fast), ("lenient", lenient)] {
            println!(
                "{name}: {:.0} MB/s, {:.0} cases/s, {:.2} x floor",
                body.len() as f64 / seconds / 1e6,
                317.0 / seconds,
                seconds / floor
            );
        }
    }
}
