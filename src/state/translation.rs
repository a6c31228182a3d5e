//! Words of a case laid out for one schema, laid out anew for another: field by field, by name and
//! type.

use crate::model::{Case, CaseBuilder, FieldType, Schema, Slot};

/// How cases of one schema become cases of another.
pub(super) struct Translation {
    from: Schema,
    /// The schema to translate to and how; none when it is the same.
    to: Option<(Schema, Moves)>,
}

/// For each part of the wanted schema, where the old one has it.
struct Moves {
    fields: Vec<(Slot, Slot)>,
    /// By wanted subform: the index of the old one, and by wanted field the old field's word within
    /// the row.
    subforms: Vec<Option<(usize, Vec<Option<usize>>)>>,
}

impl Translation {
    /// From the schema of a file to the one that is wanted.
    pub(super) fn new(from: &Schema, to: &Schema) -> Self {
        let moves = (from != to).then(|| (to.clone(), Moves::new(from, to)));
        Self { from: from.clone(), to: moves }
    }

    /// The case with these words of the file; `None` when they do not have the layout of its
    /// schema.
    pub(super) fn case(&self, words: &[u32]) -> Option<Case> {
        let case = Case::from_words(words, &self.from)?;
        match &self.to {
            None => Some(case),
            Some((to, moves)) => Some(moves.apply(&self.from, &case, to)),
        }
    }
}

impl Moves {
    fn new(from: &Schema, to: &Schema) -> Self {
        let same = |name: &str, field_type| {
            from.field(name).filter(|old| old.field_type == field_type).map(|old| old.slot)
        };
        let fields = to.fields().iter();
        let fields =
            fields.filter_map(|new| Some((same(&new.name, new.field_type)?, new.slot))).collect();
        let subforms = to.subforms().iter().map(|new| {
            let index = from.subform(&new.name)?;
            let words = new.fields.iter().map(|field| row_word(from, index, field));
            Some((index, words.collect()))
        });
        Self { fields, subforms: subforms.collect() }
    }

    fn apply(&self, from: &Schema, case: &Case, to: &Schema) -> Case {
        let mut builder = CaseBuilder::new(to, case.instance());
        for (old, new) in &self.fields {
            match *old {
                Slot::Word(index) => builder.put(*new, case.word(index)),
                Slot::Set(index) => {
                    case.set(from, index).iter().for_each(|word| builder.put(*new, *word));
                }
            }
        }
        let mut fields = Vec::new();
        for (new, subform) in to.subforms().iter().enumerate() {
            let Some((old, words)) = &self.subforms[new] else { continue };
            for row in case.rows(from, *old) {
                fields.clear();
                fields.extend(words.iter().map(|word| word.map_or(0, |word| row[word])));
                builder.row(subform, new, Case::row_key(row), &fields);
            }
        }
        builder.finish(to)
    }
}

/// Where a row of the old schema keeps a field, if it has it with that type.
fn row_word(from: &Schema, subform: usize, field: &crate::model::RowField) -> Option<usize> {
    let old = &from.subforms()[subform];
    let index = old.field(&field.name)?;
    (old.fields[index].field_type == field.field_type)
        .then_some(index + crate::model::Subform::KEY_WORDS)
}

/// What `to` asks for that a case of `from` cannot answer, as `field`, `subform` or
/// `subform.field`.
pub(super) fn new_fields(from: &Schema, to: &Schema) -> Vec<String> {
    let known =
        |name: &str, kind: FieldType| from.field(name).is_some_and(|old| old.field_type == kind);
    let fields = to.fields().iter().filter(|new| !known(&new.name, new.field_type));
    let mut all: Vec<String> = fields.map(|new| new.name.clone()).collect();
    for new in to.subforms() {
        let Some(index) = from.subform(&new.name) else {
            all.push(new.name.clone());
            continue;
        };
        let missing = new.fields.iter().filter(|field| row_word(from, index, field).is_none());
        all.extend(missing.map(|field| format!("{}.{}", new.name, field.name)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Code, RecordKey, RowField, Subform};

    fn schema(fields: &[(&str, FieldType)], subforms: &[(&str, &[(&str, FieldType)])]) -> Schema {
        let rows = |fields: &[(&str, FieldType)]| {
            fields
                .iter()
                .map(|(name, kind)| RowField { name: (*name).into(), field_type: *kind })
                .collect()
        };
        Schema::new(
            fields.iter().map(|(name, kind)| ((*name).to_owned(), *kind)),
            subforms
                .iter()
                .map(|(name, fields)| Subform { name: (*name).into(), fields: rows(fields) })
                .collect(),
        )
    }

    #[test]
    fn what_both_schemas_know_is_kept_and_the_rest_is_not_recorded() {
        use FieldType::{Date, Integer, Option as One, Options};
        let old = schema(
            &[("sex", One), ("concerns", Options), ("age", Integer), ("gone", One)],
            &[("gone", &[("x", One)]), ("services", &[("type", One), ("done", Date)])],
        );
        let new = schema(
            &[("age", Integer), ("sex", Options), ("status", One), ("concerns", Options)],
            &[("services", &[("done", Date), ("type", Options), ("by", One)]), ("new", &[])],
        );
        let mut builder = CaseBuilder::new(&old, Code(3));
        for (name, word) in [("sex", 5), ("concerns", 9), ("concerns", 8), ("age", 12)] {
            builder.put(old.field(name).unwrap().slot, word);
        }
        builder.row(&old.subforms()[1], 1, RecordKey(7), &[4, 100]);
        let case = builder.finish(&old);

        let mut wanted = CaseBuilder::new(&new, Code(3));
        for (name, word) in [("concerns", 9), ("concerns", 8), ("age", 12)] {
            wanted.put(new.field(name).unwrap().slot, word);
        }
        wanted.row(&new.subforms()[0], 0, RecordKey(7), &[100, 0, 0]);
        let translation = Translation::new(&old, &new);
        assert_eq!(translation.case(case.words()), Some(wanted.finish(&new)));
        assert_eq!(
            new_fields(&old, &new),
            ["sex", "status", "services.type", "services.by", "new"]
        );
        assert_eq!(new_fields(&new, &new), [""; 0]);
        assert_eq!(translation.case(&[1, 2]), None);
    }
}
