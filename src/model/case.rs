//! A case: coded, free of identifiers, its subform rows inside, in one small block of words.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Code, Day, RecordKey, Schema, Slot, Subform, Watched};

/// A coded case, one shared allocation. Two versions with equal words are the same for every indicator and row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    words: Arc<[u32]>,
}

/// Most words of one case, about 4 MB. A record with more is refused where it is read.
pub const CASE_WORDS_MAX: usize = 1 << 20;

/// A word for a boolean: 1 is false, 2 is true, 0 is not recorded.
const TRUE: u32 = 2;

impl Case {
    /// A case from its words, for example from a log.
    ///
    /// Returns `None` when the words do not have the layout of `schema`: every later read relies on it.
    pub fn from_words(words: &[u32], schema: &Schema) -> Option<Self> {
        let mut rest = words.get(schema.word_count()..)?;
        for _ in 0..schema.set_count() {
            let length = usize::try_from(*rest.first()?).ok()?;
            rest = rest.get(1..)?.get(length..)?;
        }
        for subform in schema.subforms() {
            let rows = usize::try_from(*rest.first()?).ok()?;
            rest = rest.get(1..)?.get(rows.checked_mul(subform.row_words())?..)?;
        }
        rest.is_empty().then(|| Self { words: words.into() })
    }

    /// All words, for the log.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// A fingerprint of the content, to tell a real change from a stamp that merely moved. Days of first sight
    /// are such stamps; only whether there is one counts.
    pub fn fingerprint(&self, schema: &Schema) -> u64 {
        let mut hasher = foldhash::fast::FixedState::with_seed(0x0074_6f6e_6c65).build_hasher();
        let is_stamp = |at: usize| schema.watched().iter().any(|w| usize::from(w.first_seen) == at);
        let (fields, rest) = self.words.split_at(schema.word_count());
        for (at, word) in fields.iter().enumerate() {
            hasher.write_u32(if is_stamp(at) { u32::from(*word != 0) } else { *word });
        }
        for word in rest {
            hasher.write_u32(*word);
        }
        hasher.finish()
    }

    /// The same case with another day of first sight, as a word.
    #[must_use]
    pub fn with_first_seen(&self, watched: Watched, day: u32) -> Self {
        let mut words = self.words.to_vec();
        words[usize::from(watched.first_seen)] = day;
        Self { words: words.into() }
    }

    /// The instance this case came from, a code of [`super::Domain::Instance`].
    pub fn instance(&self) -> Code {
        Code(self.words[0])
    }

    /// The word of a single-valued field; 0 is not recorded.
    pub fn word(&self, slot: u16) -> u32 {
        self.words[usize::from(slot)]
    }

    /// A boolean word.
    pub fn boolean(word: u32) -> Option<bool> {
        match word {
            0 => None,
            word => Some(word == TRUE),
        }
    }

    /// An integer word.
    pub fn integer(word: u32) -> Option<i32> {
        let zigzag = word.checked_sub(1)?;
        Some((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32))
    }

    /// A day word.
    pub fn day(word: u32) -> Option<Day> {
        Day::from_word(word)
    }

    /// The sorted codes of the `index`-th set.
    pub fn set(&self, schema: &Schema, index: u16) -> &[u32] {
        let mut at = schema.word_count();
        for _ in 0..index {
            at += 1 + self.words[at] as usize;
        }
        &self.words[at + 1..at + 1 + self.words[at] as usize]
    }

    /// The rows of the `index`-th subform, each a slice of its words: four of key, then its fields.
    pub fn rows(&self, schema: &Schema, index: usize) -> std::slice::ChunksExact<'_, u32> {
        let mut at = schema.word_count();
        for _ in 0..schema.set_count() {
            at += 1 + self.words[at] as usize;
        }
        for subform in &schema.subforms()[..index] {
            at += 1 + self.words[at] as usize * subform.row_words();
        }
        let width = schema.subforms()[index].row_words();
        let length = self.words[at] as usize * width;
        self.words[at + 1..at + 1 + length].chunks_exact(width)
    }

    /// The key of a subform row.
    pub fn row_key(row: &[u32]) -> RecordKey {
        RecordKey::from_words([row[0], row[1], row[2], row[3]])
    }
}

/// Makes a [`Case`] of one schema, field by field; what is not given is not recorded.
#[derive(Clone, Debug)]
pub struct CaseBuilder {
    words: Vec<u32>,
    sets: Vec<Vec<u32>>,
    rows: Vec<Vec<u32>>,
}

impl CaseBuilder {
    /// An empty case of `instance`.
    pub fn new(schema: &Schema, instance: Code) -> Self {
        let mut words = vec![0; schema.word_count()];
        words[0] = instance.0;
        Self {
            words,
            sets: vec![Vec::new(); schema.set_count()],
            rows: vec![Vec::new(); schema.subforms().len()],
        }
    }

    /// Sets the word of a single-valued field, or adds it to a set. A zero word adds nothing to a set.
    pub fn put(&mut self, slot: Slot, word: u32) {
        match slot {
            Slot::Word(index) => self.words[usize::from(index)] = word,
            Slot::Set(index) if word != 0 => self.sets[usize::from(index)].push(word),
            Slot::Set(_) => {}
        }
    }

    /// Notes that what a field holds was seen on a day, given as a word; nothing when it holds nothing.
    pub fn first_seen(&mut self, watched: Watched, day: u32) {
        let is_recorded = self.words[usize::from(watched.value)] != 0;
        self.words[usize::from(watched.first_seen)] = if is_recorded { day } else { 0 };
    }

    /// Adds a row to the `index`-th subform. `fields` holds one word for each of its fields.
    ///
    /// # Panics
    /// When the number of fields is not that of the subform, which is an error of the caller.
    pub fn row(&mut self, subform: &Subform, index: usize, key: RecordKey, fields: &[u32]) {
        assert_eq!(fields.len(), subform.fields.len(), "a row has one word for each field");
        self.rows[index].extend(key.to_words());
        self.rows[index].extend(fields);
    }

    /// The word of a boolean.
    pub fn boolean(value: bool) -> u32 {
        1 + u32::from(value)
    }

    /// The word of an integer; 0, not recorded, when it is outside ±1,000,000,000.
    pub fn integer(value: i64) -> u32 {
        match i32::try_from(value) {
            Ok(value) if value.abs() <= 1_000_000_000 => ((value << 1) ^ (value >> 31)) as u32 + 1,
            _ => 0,
        }
    }

    /// The case. Sets are sorted and freed of repetitions, so equal content gives equal words.
    pub fn finish(mut self, schema: &Schema) -> Case {
        for set in &mut self.sets {
            set.sort_unstable();
            set.dedup();
            self.words.push(set.len() as u32);
            self.words.extend(set.iter());
        }
        for (rows, subform) in self.rows.iter().zip(schema.subforms()) {
            self.words.push((rows.len() / subform.row_words()) as u32);
            self.words.extend(rows);
        }
        Case { words: self.words.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FieldType, RowField};

    fn schema() -> Schema {
        let row = |name: &str| RowField { name: name.into(), field_type: FieldType::Option };
        Schema::new(
            [
                ("sex".into(), FieldType::Option),
                ("concerns".into(), FieldType::Options),
                ("age".into(), FieldType::Integer),
            ],
            vec![
                Subform { name: "services".into(), fields: vec![row("type"), row("done")] },
                Subform { name: "reopened".into(), fields: vec![row("date")] },
            ],
        )
    }

    #[test]
    fn what_is_put_is_read() {
        let schema = schema();
        let mut builder = CaseBuilder::new(&schema, Code(3));
        builder.put(Slot::Word(2), CaseBuilder::integer(-7));
        for code in [9, 4, 9] {
            builder.put(Slot::Set(0), code);
        }
        builder.row(&schema.subforms()[1], 1, RecordKey(77), &[5]);
        let case = builder.finish(&schema);
        assert_eq!(case.instance(), Code(3));
        assert_eq!(case.word(1), 0);
        assert_eq!(Case::integer(case.word(2)), Some(-7));
        assert_eq!(case.set(&schema, 0), [4, 9]);
        assert_eq!(case.rows(&schema, 0).count(), 0);
        let row = case.rows(&schema, 1).next().unwrap();
        assert_eq!((Case::row_key(row), row[4]), (RecordKey(77), 5));
        assert_eq!(Case::from_words(case.words(), &schema), Some(case));
    }

    #[test]
    fn words_of_another_layout_are_refused() {
        let schema = schema();
        for words in [&[][..], &[1, 0, 0], &[1, 0, 0, u32::MAX, 0, 0], &[1, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(Case::from_words(words, &schema), None, "{words:?}");
        }
    }

    #[test]
    fn integers_keep_their_sign() {
        for value in [0, 1, -1, 17, -1_000_000_000, 1_000_000_000] {
            assert_eq!(Case::integer(CaseBuilder::integer(value)).map(i64::from), Some(value));
        }
        assert_eq!(CaseBuilder::integer(i64::MAX), 0);
    }
}
