//! Anonymized rows: what of a case or of a subform row is published, as coded words.

use crate::indicator::check::Check;
use crate::indicator::dimension::Dimension;
use crate::indicator::plan::Compiler;
use crate::indicator::value::{Source, Subject};
use crate::indicator::{ColumnDefinition, ExtractDefinition, Plan, Value};
use crate::model::{Case, Day, RecordKey};

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
    /// The ordinal of a dimension.
    Dimension(usize),
    /// The first day of the month of a date.
    Month(Source),
}

impl ExtractPlan {
    pub(super) fn new(
        definition: &ExtractDefinition,
        compiler: &mut Compiler<'_>,
        dimensions: &[Dimension],
    ) -> Self {
        let rows_of = definition.rows_of.as_deref();
        let subform = rows_of.and_then(|name| compiler.schema.subform(name));
        let mut columns = vec![ColumnPlan::Instance];
        columns.extend(subform.map(|_| ColumnPlan::CaseKey));
        for column in &definition.columns {
            columns.push(match column {
                ColumnDefinition::Dimension(name) => {
                    let found = dimensions.iter().position(|dimension| dimension.name == *name);
                    ColumnPlan::Dimension(found.expect("the resolver checked the names"))
                }
                ColumnDefinition::Month { of, .. } => {
                    ColumnPlan::Month(Source::of(compiler.schema, of))
                }
            });
        }
        Self {
            filter: compiler.checks(None, &definition.filter),
            rows: compiler.checks(rows_of, &definition.rows),
            subform,
            columns,
        }
    }
}

/// A row of an extract: its extract, its key and its coded values.
pub type CodedRow = (u16, RecordKey, Box<[u32]>);

impl Plan {
    /// Hands `give` every row that `case` has in the extracts.
    pub fn extract(&self, key: RecordKey, case: &Case, mut give: impl FnMut(CodedRow)) {
        let Some(stream) = self.stream_of(case) else { return };
        let translated = self.streams[stream].translated(case, &self.schema);
        let case = translated.as_ref().unwrap_or(case);
        // No condition or column of an extract depends on the event: the resolver saw to it.
        let subject = Subject { case, row: None, event: Day::FIRST };
        for (index, extract) in self.extracts.iter().enumerate() {
            if !self.hold(&extract.filter, &subject, stream) {
                continue;
            }
            let index = u16::try_from(index).expect("packs are bounded");
            let Some(subform) = extract.subform else {
                give((index, key, self.coded(extract, stream, key, &subject)));
                continue;
            };
            for row in case.rows(&self.schema, subform) {
                let subject = Subject { row: Some(row), ..subject };
                if self.hold(&extract.rows, &subject, stream) {
                    let coded = self.coded(extract, stream, key, &subject);
                    give((index, Case::row_key(row), coded));
                }
            }
        }
    }

    fn coded(
        &self,
        extract: &ExtractPlan,
        stream: usize,
        key: RecordKey,
        subject: &Subject<'_>,
    ) -> Box<[u32]> {
        let mut words = Vec::with_capacity(extract.columns.len() + 3);
        for column in &extract.columns {
            match *column {
                ColumnPlan::Instance => words.push(u32::from(self.streams[stream].number)),
                ColumnPlan::CaseKey => words.extend(key.to_words()),
                ColumnPlan::Dimension(index) => {
                    words.push(self.ordinal(&self.dimensions[index], subject, stream));
                }
                ColumnPlan::Month(source) => {
                    let day = Case::day(subject.word(source)).map(Day::first_of_month);
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
                ColumnPlan::Dimension(index) => {
                    Value::Text(self.dimensions[index].text(next(), &self.places))
                }
                ColumnPlan::Month(_) => Day::from_word(next()).map_or(Value::Null, Value::Date),
            })
            .collect()
    }
}
