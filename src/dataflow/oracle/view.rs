//! A case read by the names of its fields, its option ids as the packs call them.

use crate::dataflow::oracle::World;
use crate::indicator::{FieldDefinition, InstanceDefinition, Path};
use crate::model::{Case, Code, Day, Domain, FieldType, Slot, Subform};

/// One case.
pub(super) struct View<'a> {
    pub(super) world: &'a World<'a>,
    pub(super) case: &'a Case,
    pub(super) instance: &'a InstanceDefinition,
}

/// A row of a subform; none where the case itself is looked at.
pub(super) type Row<'a> = Option<&'a [u32]>;

impl View<'_> {
    /// What the packs say of a field.
    pub(super) fn field(&self, path: &Path) -> &FieldDefinition {
        let definition = self.world.definition;
        match &path.subform {
            None => &definition.fields[&path.field],
            Some(subform) => &definition.subforms[subform][&path.field],
        }
    }

    /// Every word that is recorded in a field; a single one, except for a set.
    pub(super) fn words(&self, path: &Path, row: Row<'_>) -> Vec<u32> {
        let schema = self.world.schema;
        let single = match &path.subform {
            None => match schema.field(&path.field).expect("paths were resolved").slot {
                Slot::Set(set) => return self.case.set(schema, set).to_vec(),
                Slot::Word(word) => self.case.word(word),
            },
            Some(name) => {
                let index = schema.subform(name).expect("paths were resolved");
                let field = schema.subforms()[index].field(&path.field);
                let field = field.expect("paths were resolved");
                row.map_or(0, |row| row[Subform::KEY_WORDS + field])
            }
        };
        Some(single).filter(|word| *word != 0).into_iter().collect()
    }

    /// The option or agency ids of a field; none for an id that is not known at all.
    pub(super) fn ids(&self, path: &Path, row: Row<'_>) -> Vec<Option<&str>> {
        let domain = match self.field(path).field_type {
            FieldType::Agency => Domain::Agency,
            _ => Domain::Option,
        };
        let mapping = self.instance.mappings.get(&path.to_string());
        let meant = |word: u32| {
            let own = self.world.dictionary.term(domain, Code(word))?;
            let meant = mapping.and_then(|mapping| mapping.get(own));
            Some(meant.map_or(own, String::as_str))
        };
        self.words(path, row).into_iter().map(meant).collect()
    }

    pub(super) fn days(&self, path: &Path, row: Row<'_>) -> Vec<Day> {
        self.words(path, row).into_iter().filter_map(Case::day).collect()
    }

    pub(super) fn day(&self, path: &Path, row: Row<'_>) -> Option<Day> {
        self.days(path, row).pop()
    }

    pub(super) fn integer(&self, path: &Path, row: Row<'_>) -> Option<i32> {
        self.words(path, row).pop().and_then(Case::integer)
    }

    pub(super) fn boolean(&self, path: &Path, row: Row<'_>) -> Option<bool> {
        self.words(path, row).pop().and_then(Case::boolean)
    }

    /// The rows of a subform, in their order.
    pub(super) fn rows_of(&self, subform: &str) -> Vec<&[u32]> {
        let index = self.world.schema.subform(subform).expect("paths were resolved");
        self.case.rows(self.world.schema, index).collect()
    }
}

/// A field of the case.
pub(super) fn of_case(field: &str) -> Path {
    Path { subform: None, field: field.to_owned() }
}

/// A field of the rows of a subform.
pub(super) fn of_row(subform: &str, field: &str) -> Path {
    Path { subform: Some(subform.to_owned()), field: field.to_owned() }
}
