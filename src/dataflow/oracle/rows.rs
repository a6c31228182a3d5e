//! The anonymized rows of a case.

use std::collections::BTreeMap;

use crate::dataflow::oracle::view::{Row, View};
use crate::indicator::ColumnDefinition;
use crate::model::{Case, Day, RecordKey};

impl View<'_> {
    /// Adds every row that the case has in the extracts.
    pub(super) fn rows(
        &self,
        key: RecordKey,
        into: &mut BTreeMap<(String, RecordKey), Vec<Option<String>>>,
    ) {
        for (table, extract) in &self.world.definition.extracts {
            let subform = extract.rows_of.as_deref();
            let rows: Vec<Row<'_>> = match subform {
                None => vec![None],
                Some(name) => self.rows_of(name).into_iter().map(Some).collect(),
            };
            for row in rows {
                if !self.all_hold(&extract.filter, None, None, NO_EVENT)
                    || !self.all_hold(&extract.rows, subform, row, NO_EVENT)
                {
                    continue;
                }
                let mut columns = vec![Some(self.instance.published_as.clone())];
                columns.extend(row.map(|_| Some(format!("{:032x}", key.0))));
                columns.extend(extract.columns.iter().map(|column| self.column(column, row)));
                into.insert((table.clone(), row.map_or(key, Case::row_key)), columns);
            }
        }
    }

    fn column(&self, column: &ColumnDefinition, row: Row<'_>) -> Option<String> {
        match column {
            ColumnDefinition::Dimension(name) => {
                self.values(&self.world.definition.dimensions[name], row, NO_EVENT).pop()
            }
            ColumnDefinition::Month { of, .. } => {
                let date = self.day(of, row)?.date();
                Some(date.first_of_month().to_string())
            }
        }
    }
}

/// No condition or column of an extract depends on an event.
const NO_EVENT: Day = Day::FIRST;
