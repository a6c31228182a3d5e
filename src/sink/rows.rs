//! Changes as rows: the same values in the same order, whether they go into arrays or into a COPY.

use tokio_postgres::types::Type;

use super::cell_key::CellKeys;
use super::encode::{Array, CopyRows, PutValue};
use super::layout::{ExtractLayout, Layout};
use crate::error::{Error, Result};
use crate::indicator::{CellText, Naming, Value};
use crate::model::{Cell, Day, Figure, Period, PeriodType, RecordKey};

/// Somewhere that takes a row column by column, in order.
pub(super) trait Columns {
    type Column: PutValue;

    /// Where the next value, of the column `index`, goes.
    fn column(&mut self, index: usize) -> &mut Self::Column;
}

impl Columns for CopyRows {
    type Column = Self;

    fn column(&mut self, _: usize) -> &mut Self {
        self
    }
}

/// One array for each column.
pub(super) struct Arrays(pub(super) Vec<Array>);

impl Columns for Arrays {
    type Column = Array;

    fn column(&mut self, index: usize) -> &mut Array {
        let array = &mut self.0[index];
        array.count_one();
        array
    }
}

impl Arrays {
    /// For rows of `indicator_values`.
    pub(super) fn of_cells(layout: &Layout) -> Self {
        let columns = layout.value_columns();
        Self(columns.iter().map(|(_, sql_type)| Array::new(element(sql_type))).collect())
    }

    /// For rows of an extract.
    pub(super) fn of_rows(extract: &ExtractLayout) -> Self {
        let key = std::iter::once(Array::new(Type::UUID));
        Self(key.chain(extract.columns.iter().map(|c| Array::of(c.column_type))).collect())
    }
}

fn element(sql_type: &str) -> Type {
    match sql_type {
        "uuid" => Type::UUID,
        "date" => Type::DATE,
        "bigint" => Type::INT8,
        "double precision" => Type::FLOAT8,
        "boolean" => Type::BOOL,
        _ => Type::TEXT,
    }
}

/// A cell with its text and its key.
pub(super) struct NamedCell<'a> {
    pub(super) key: [u8; 16],
    pub(super) text: CellText<'a>,
}

impl<'a> NamedCell<'a> {
    /// # Errors
    /// A bug when the naming belongs to another catalog than the tables.
    pub(super) fn of(
        cell: Cell,
        naming: &'a dyn Naming,
        keys: &CellKeys,
        layout: &Layout,
    ) -> Result<Self> {
        let text = naming.cell(cell);
        if text.dimensions.len() != layout.dimensions.len() {
            return Err(Error::bug("naming a cell: not one value for each dimension"));
        }
        Ok(Self { key: keys.key(&text), text })
    }

    /// The denominator as stored: none for a count, none for a cell that does not exist.
    pub(super) fn denominator(&self, figure: Figure) -> Option<i64> {
        let stored = self.text.is_share && !figure.is_empty();
        stored.then_some(figure.denominator)
    }

    /// Whether the period is not known to be over on `today`. Nothing is over before the first clock tick, and
    /// *now* never is.
    pub(super) fn is_provisional(&self, today: Option<Day>) -> bool {
        let (name, start) = (self.text.period_type, self.text.period_start);
        let period = PeriodType::named(name).zip(start).map(|(t, day)| Period::beginning(t, day));
        period.and_then(Period::end).zip(today).is_none_or(|(end, today)| end >= today)
    }

    /// Writes the columns of [`Layout::value_columns`].
    pub(super) fn put(&self, out: &mut impl Columns, figure: Figure, today: Option<Day>) {
        let text = &self.text;
        out.column(0).key(self.key);
        out.column(1).text(text.indicator);
        out.column(2).text(text.instance);
        out.column(3).text(text.period_type);
        out.column(4).optional(text.period_start, PutValue::date);
        for (index, value) in text.dimensions.iter().enumerate() {
            out.column(5 + index).text(value);
        }
        let next = 5 + text.dimensions.len();
        out.column(next).bigint(figure.numerator);
        out.column(next + 1).optional(self.denominator(figure), PutValue::bigint);
        out.column(next + 2).optional(median(figure), PutValue::double);
        out.column(next + 3).boolean(self.is_provisional(today));
    }
}

/// The median as stored. Halves of days are exact.
pub(super) fn median(figure: Figure) -> Option<f64> {
    figure.median_doubled.map(|doubled| doubled as f64 / 2.0)
}

/// Writes the columns of [`ExtractLayout::key_and_columns`].
///
/// # Errors
/// A bug when the naming belongs to another catalog than the tables.
pub(super) fn put_row(
    out: &mut impl Columns,
    extract: &ExtractLayout,
    key: RecordKey,
    values: &[Value<'_>],
) -> Result<()> {
    if values.len() != extract.columns.len() {
        return Err(Error::bug("naming a row: not one value for each column"));
    }
    out.column(0).key(key.to_bytes());
    for (index, (value, column)) in values.iter().zip(&extract.columns).enumerate() {
        if !fits(value, column.column_type) {
            return Err(Error::bug(format!("a value is of another type than {}", column.name)));
        }
        out.column(1 + index).value(value);
    }
    Ok(())
}

fn fits(value: &Value<'_>, column_type: crate::indicator::ColumnType) -> bool {
    use crate::indicator::ColumnType as T;
    matches!(
        (value, column_type),
        (Value::Null, _)
            | (Value::Text(_), T::Text)
            | (Value::Date(_), T::Date)
            | (Value::Integer(_), T::Integer)
            | (Value::Boolean(_), T::Boolean)
            | (Value::Key(_), T::Key)
    )
}
