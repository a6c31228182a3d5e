//! The layout of a coded case: which fields a pack reads, of which type, and in which word each one is kept.

use serde::{Deserialize, Serialize};

/// The built-in option field that says what a record is. The source sets it; no server is asked for it.
pub const RECORD_TYPE: &str = "record_type";

/// The end of the name of a field of type [`FieldType::FirstSeen`]; before it stands the field that is watched.
pub const FIRST_SEEN_SUFFIX: &str = "_first_seen";

/// What a record is, each type with a list of its own in Primero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// A child's case.
    #[default]
    Case,
    /// An incident, linked to a case or standing alone.
    Incident,
}

impl RecordType {
    /// Its id in [`RECORD_TYPE`], in keys and in Primero's forms.
    pub fn id(self) -> &'static str {
        match self {
            Self::Case => "case",
            Self::Incident => "incident",
        }
    }

    /// What several of them are called.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Case => "cases",
            Self::Incident => "incidents",
        }
    }
}

/// What a field may hold. A value of another type is *not recorded*, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    /// One option id.
    Option,
    /// Several option ids, an unordered set.
    Options,
    /// True or false; the texts `"true"` and `"false"` are taken for it.
    Boolean,
    /// A whole number.
    Integer,
    /// A calendar date.
    Date,
    /// A moment, kept as the local day of the instance.
    Datetime,
    /// A date of birth, kept as its month.
    BirthMonth,
    /// A location code.
    Location,
    /// An agency's unique id.
    Agency,
    /// A case worker: a user name that is replaced by its keyed pseudonym where it is read, and never published.
    Worker,
    /// Several calendar dates, a sorted set of days.
    Dates,
    /// The day on which a field without a date of its own was first seen to hold what it holds now
    /// ([`FIRST_SEEN_SUFFIX`]). Tonle keeps it; no server is asked for it.
    FirstSeen,
}

impl FieldType {
    /// Whether a case holds several values of it, so that it is kept as a set.
    pub fn is_set(self) -> bool {
        matches!(self, Self::Options | Self::Dates)
    }
}

/// Where a value is kept in the words of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// The word at this index.
    Word(u16),
    /// The set with this index among the sets behind the words.
    Set(u16),
}

/// A field of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Primero's name of it.
    pub name: String,
    /// What it may hold.
    pub field_type: FieldType,
    /// Where it is kept.
    pub slot: Slot,
}

impl Field {
    /// Whether a server is asked for it; what is not, the source fills by itself.
    pub fn is_asked(&self) -> bool {
        self.name != RECORD_TYPE && self.field_type != FieldType::FirstSeen
    }
}

/// A field of the rows of a subform; its word within the row is its index among the fields plus the key's four.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowField {
    /// Primero's name of it.
    pub name: String,
    /// What it may hold; never a set ([`FieldType::is_set`]).
    pub field_type: FieldType,
}

/// A subform: an array of rows inside a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subform {
    /// Primero's name of it.
    pub name: String,
    /// What is read of each row.
    pub fields: Vec<RowField>,
}

impl Subform {
    /// Words of the row's own key in front of its fields.
    pub const KEY_WORDS: usize = 4;

    /// Words of one row.
    pub fn row_words(&self) -> usize {
        Self::KEY_WORDS + self.fields.len()
    }

    /// The index of a field of this subform.
    pub fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }
}

/// Everything that is read of a case, and where it is kept: an allow-list with types.
///
/// The words of a case are: the instance, one word for each single-valued field, then each set as a length
/// and its sorted codes, then each subform as a row count and its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    fields: Vec<Field>,
    subforms: Vec<Subform>,
    word_count: u16,
    set_count: u16,
    watched: Vec<Watched>,
}

/// A field whose value is watched, and where the day is kept on which that value was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// The word of the field.
    pub value: u16,
    /// The word of the day.
    pub first_seen: u16,
}

impl Schema {
    /// Lays out `fields` (name and type, in this order) and `subforms`.
    pub fn new(
        fields: impl IntoIterator<Item = (String, FieldType)>,
        subforms: Vec<Subform>,
    ) -> Self {
        let mut schema = Self { word_count: 1, subforms, ..Self::default() };
        for (name, field_type) in fields {
            let slot = if field_type.is_set() {
                schema.set_count += 1;
                Slot::Set(schema.set_count - 1)
            } else {
                schema.word_count += 1;
                Slot::Word(schema.word_count - 1)
            };
            schema.fields.push(Field { name, field_type, slot });
        }
        schema.watched =
            schema.fields.iter().filter_map(|field| schema.watched_by(field)).collect();
        schema
    }

    fn watched_by(&self, field: &Field) -> Option<Watched> {
        let name = field.name.strip_suffix(FIRST_SEEN_SUFFIX)?;
        let is_kept = field.field_type == FieldType::FirstSeen;
        match (field.slot, self.field(name)?.slot) {
            (Slot::Word(first_seen), Slot::Word(value)) if is_kept => {
                Some(Watched { value, first_seen })
            }
            _ => None,
        }
    }

    /// The fields of which the day of first sight is kept.
    pub fn watched(&self) -> &[Watched] {
        &self.watched
    }

    /// The fields of a case.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The subforms of a case.
    pub fn subforms(&self) -> &[Subform] {
        &self.subforms
    }

    /// The field called `name`.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The index of the subform called `name`.
    pub fn subform(&self, name: &str) -> Option<usize> {
        self.subforms.iter().position(|subform| subform.name == name)
    }

    /// Words before the first set: the instance and the single-valued fields.
    pub fn word_count(&self) -> usize {
        usize::from(self.word_count)
    }

    /// Sets behind the words.
    pub fn set_count(&self) -> usize {
        usize::from(self.set_count)
    }

    /// Names of everything to ask a server for, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let fields = self.fields.iter().filter(|field| field.is_asked());
        let fields = fields.map(|field| field.name.as_str());
        fields.chain(self.subforms.iter().map(|subform| subform.name.as_str()))
    }
}
