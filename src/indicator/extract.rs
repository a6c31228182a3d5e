//! Anonymized rows: what of a case or of a subform row is published, as coded words.

use crate::indicator::check::Check;
use crate::indicator::dimension::Dimension;
use crate::indicator::plan::{checks, slot_of};
use crate::indicator::{ColumnDefinition, ExtractDefinition, Plan, Value};
use crate::model::{Case, Day, Dictionary, RecordKey, Schema, Slot};

/// An extract, compiled.
#[derive(Clone, Debug)]
pub(super) struct ExtractPlan {
    filter: Vec<Check>,
    rows: Vec<Check>,
    subform: Option<usize>,
    pub(super) columns: Vec<ColumnPlan>,
}

/// A column of an extract, compiled.
#[derive(Clone, Copy, Debug)]
pub(super) enum ColumnPlan {
    /// The number of the instance.
    Instance,
    /// The key of the case, four words.
    CaseKey,
    /// The ordinal of a dimension, read from this word.
    Dimension { dimension: usize, of_row: bool, word: u16 },
    /// The first day of the month of a date, read from this word.
    Month { of_row: bool, word: u16 },
}

impl ExtractPlan {
    pub(super) fn new(
        definition: &ExtractDefinition,
        schema: &Schema,
        dimensions: &[Dimension],
        dictionary: &mut Dictionary,
    ) -> Self {
        let subform = definition.rows_of.as_ref().and_then(|name| schema.subform(name));
        let mut columns = vec![ColumnPlan::Instance];
        columns.extend(subform.map(|_| ColumnPlan::CaseKey));
        for column in &definition.columns {
            columns.push(match column {
                ColumnDefinition::Dimension(name) => {
                    let found = dimensions.iter().position(|dimension| dimension.name == *name);
                    let index = found.expect("the resolver checked the names");
                    let Dimension { of_row, slot, .. } = dimensions[index];
                    ColumnPlan::Dimension { dimension: index, of_row, word: word_of(slot) }
                }
                ColumnDefinition::Month { of, .. } => {
                    let word = word_of(slot_of(schema, of));
                    ColumnPlan::Month { of_row: of.subform.is_some(), word }
                }
            });
        }
        Self {
            filter: checks(schema, None, &definition.filter, dictionary),
            rows: checks(schema, subform, &definition.rows, dictionary),
            subform,
            columns,
        }
    }
}

fn word_of(slot: Slot) -> u16 {
    match slot {
        Slot::Word(word) => word,
        Slot::Set(_) => unreachable!("the resolver refuses sets as columns"),
    }
}

/// A row of an extract: its extract, its key and its coded values.
pub type CodedRow = (u16, RecordKey, Box<[u32]>);

impl Plan {
    /// Hands `give` every row that `case` has in the extracts.
    pub fn extract(&self, key: RecordKey, case: &Case, mut give: impl FnMut(CodedRow)) {
        let number = self.instance_numbers.get(case.instance().0 as usize).copied().unwrap_or(0);
        if number == 0 {
            return;
        }
        for (index, extract) in self.extracts.iter().enumerate() {
            if !extract.filter.iter().all(|check| check.holds(case, &self.schema)) {
                continue;
            }
            let index = u16::try_from(index).expect("packs are bounded");
            let coded = |row: &[u32]| self.coded(extract, number, key, case, row);
            match extract.subform {
                None => give((index, key, coded(&[]))),
                Some(subform) => {
                    let rows = case.rows(&self.schema, subform);
                    for row in rows.filter(|row| extract.rows.iter().all(|c| c.holds_for_row(row)))
                    {
                        give((index, Case::row_key(row), coded(row)));
                    }
                }
            }
        }
    }

    fn coded(
        &self,
        extract: &ExtractPlan,
        instance: u8,
        key: RecordKey,
        case: &Case,
        row: &[u32],
    ) -> Box<[u32]> {
        let read = |of_row, word| match of_row {
            true => row[usize::from(word)],
            false => case.word(word),
        };
        let mut words = Vec::with_capacity(extract.columns.len() + 3);
        for column in &extract.columns {
            match *column {
                ColumnPlan::Instance => words.push(u32::from(instance)),
                ColumnPlan::CaseKey => words.extend(key.to_words()),
                ColumnPlan::Dimension { dimension, of_row, word } => {
                    words.push(self.dimensions[dimension].ordinal(read(of_row, word)));
                }
                ColumnPlan::Month { of_row, word } => {
                    let day = Case::day(read(of_row, word)).map(Day::first_of_month);
                    words.push(day.map_or(0, |day| day.0));
                }
            }
        }
        words.into_boxed_slice()
    }

    /// The values of a coded row, in the order of the catalog's columns.
    pub(super) fn row_values(&self, extract: u16, row: &[u32]) -> Vec<Value<'_>> {
        let mut words = row.iter().copied();
        let mut next = || words.next().unwrap_or(0);
        let columns = &self.extracts[usize::from(extract)].columns;
        columns
            .iter()
            .map(|column| match *column {
                ColumnPlan::Instance => Value::Text(self.instance_name(next() as u8)),
                ColumnPlan::CaseKey => {
                    Value::Key(RecordKey::from_words([next(), next(), next(), next()]))
                }
                ColumnPlan::Dimension { dimension, .. } => {
                    Value::Text(self.dimensions[dimension].text(next(), &self.places))
                }
                ColumnPlan::Month { .. } => Day::from_word(next()).map_or(Value::Null, Value::Date),
            })
            .collect()
    }
}
