//! Values in Postgres's binary form: as elements of array parameters and as fields of a binary COPY.
//!
//! Both use the same bytes for a value: its length as `i32` (−1 for null), then its content.

use std::error::Error as StdError;

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::indicator::{ColumnType, Value};
use crate::model::{Day, Instant};

/// Days from 1899-12-31, day 0 of [`Day`], to 2000-01-01, day 0 of Postgres.
const DAYS_BEFORE_2000: i32 = 36_525;
/// Seconds from 1970 to 2000.
const SECONDS_BEFORE_2000: i64 = 946_684_800;

/// Bytes gathered before they are handed to the connection.
const COPY_CHUNK_BYTES: usize = 128 * 1024;

/// Writes values in binary form.
pub(super) trait PutValue {
    fn buffer(&mut self) -> &mut BytesMut;

    fn null(&mut self) {
        self.buffer().put_i32(-1);
    }

    fn key(&mut self, key: [u8; 16]) {
        let buffer = self.buffer();
        buffer.put_i32(16);
        buffer.put_slice(&key);
    }

    fn text(&mut self, text: &str) {
        // A NUL is valid UTF-8 but no text for Postgres; ids and codes with one are not ids.
        if text.contains('\0') {
            return self.text(&text.replace('\0', ""));
        }
        let length = i32::try_from(text.len()).expect("a text of a row is far below 2 GiB");
        let buffer = self.buffer();
        buffer.put_i32(length);
        buffer.put_slice(text.as_bytes());
    }

    fn bigint(&mut self, number: i64) {
        let buffer = self.buffer();
        buffer.put_i32(8);
        buffer.put_i64(number);
    }

    fn double(&mut self, number: f64) {
        let buffer = self.buffer();
        buffer.put_i32(8);
        buffer.put_f64(number);
    }

    fn integer(&mut self, number: i32) {
        let buffer = self.buffer();
        buffer.put_i32(4);
        buffer.put_i32(number);
    }

    fn boolean(&mut self, truth: bool) {
        let buffer = self.buffer();
        buffer.put_i32(1);
        buffer.put_u8(u8::from(truth));
    }

    fn date(&mut self, day: Day) {
        self.integer(days(day));
    }

    fn instant(&mut self, at: Instant) {
        self.bigint(microseconds(at));
    }

    fn optional<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T))
    where
        Self: Sized,
    {
        match value {
            Some(value) => put(self, value),
            None => self.null(),
        }
    }

    fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Null => self.null(),
            Value::Text(text) => self.text(text),
            Value::Date(day) => self.date(*day),
            Value::Integer(number) => self.integer(*number),
            Value::Boolean(truth) => self.boolean(*truth),
            Value::Key(key) => self.key(key.to_bytes()),
        }
    }
}

/// A `date`: days since 2000.
fn days(day: Day) -> i32 {
    i32::try_from(day.0).unwrap_or(i32::MAX) - DAYS_BEFORE_2000
}

/// A day as a parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Date(pub(super) Day);

impl ToSql for Date {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.put_i32(days(self.0));
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::DATE
    }

    to_sql_checked!();
}

/// A `timestamptz`: microseconds since 2000.
fn microseconds(at: Instant) -> i64 {
    at.0.saturating_sub(SECONDS_BEFORE_2000 * 1_000).saturating_mul(1_000)
}

/// An instant as a parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timestamp(pub(super) Instant);

impl ToSql for Timestamp {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.put_i64(microseconds(self.0));
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

/// A key as a parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uuid(pub(super) [u8; 16]);

impl ToSql for Uuid {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    to_sql_checked!();
}

/// A column of values as one array parameter.
#[derive(Debug)]
pub(super) struct Array {
    element: Type,
    count: i32,
    body: BytesMut,
}

impl Array {
    pub(super) fn new(element: Type) -> Self {
        Self { element, count: 0, body: BytesMut::new() }
    }

    /// An array for the values of a column.
    pub(super) fn of(column_type: ColumnType) -> Self {
        Self::new(match column_type {
            ColumnType::Text => Type::TEXT,
            ColumnType::Date => Type::DATE,
            ColumnType::Integer => Type::INT4,
            ColumnType::Boolean => Type::BOOL,
            ColumnType::Key => Type::UUID,
        })
    }

    /// Adds one element; call one method of the writer in `put`.
    pub(super) fn push(&mut self, put: impl FnOnce(&mut Self)) {
        self.count_one();
        put(self);
    }

    /// Says that one value follows.
    pub(super) fn count_one(&mut self) {
        self.count += 1;
    }
}

impl PutValue for Array {
    fn buffer(&mut self) -> &mut BytesMut {
        &mut self.body
    }
}

impl ToSql for Array {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.reserve(20 + self.body.len());
        out.put_i32(i32::from(self.count > 0));
        out.put_i32(1); // there may be nulls
        out.put_u32(self.element.oid());
        if self.count > 0 {
            out.put_i32(self.count);
            out.put_i32(1); // the first index
            out.put_slice(&self.body);
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true // the statement casts each parameter; the element type is in the header
    }

    to_sql_checked!();
}

/// Rows of a binary COPY, handed out in chunks of about 128 KiB.
#[derive(Debug)]
pub(super) struct CopyRows {
    buffer: BytesMut,
    columns: i16,
}

impl CopyRows {
    pub(super) fn new(columns: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(COPY_CHUNK_BYTES + 4_096);
        buffer.put_slice(b"PGCOPY\n\xff\r\n\0");
        buffer.put_i32(0); // no flags
        buffer.put_i32(0); // no extension
        Self { buffer, columns: i16::try_from(columns).expect("a table has at most 1600 columns") }
    }

    /// Begins a row; then one value for each column.
    pub(super) fn row(&mut self) -> &mut Self {
        self.buffer.put_i16(self.columns);
        self
    }

    /// A chunk, when there is enough for one.
    pub(super) fn full(&mut self) -> Option<Bytes> {
        (self.buffer.len() >= COPY_CHUNK_BYTES).then(|| self.take())
    }

    /// The last chunk.
    pub(super) fn end(mut self) -> Bytes {
        self.buffer.put_i16(-1);
        self.buffer.freeze()
    }

    fn take(&mut self) -> Bytes {
        let chunk = self.buffer.split().freeze();
        self.buffer.reserve(COPY_CHUNK_BYTES + 4_096);
        chunk
    }
}

impl PutValue for CopyRows {
    fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn days_count_from_2000() {
        let mut array = Array::of(ColumnType::Date);
        array.push(|a| a.date(Day::of(date(2000, 1, 2)).unwrap()));
        assert_eq!(&array.body[..], [0, 0, 0, 4, 0, 0, 0, 1]);
        let day = Day::of(date(1999, 12, 31)).unwrap();
        assert_eq!(i32::try_from(day.0).unwrap() - DAYS_BEFORE_2000, -1);
    }

    #[test]
    fn an_array_says_what_and_how_many() {
        let mut array = Array::new(Type::INT8);
        array.push(|a| a.bigint(7));
        array.push(PutValue::null);
        let mut out = BytesMut::new();
        array.to_sql(&Type::INT8_ARRAY, &mut out).unwrap();
        let head = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1];
        assert_eq!(&out[..20], head);
        assert_eq!(&out[20..], [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7, 255, 255, 255, 255]);
    }

    #[test]
    fn a_nul_never_reaches_a_row() {
        let mut rows = CopyRows::new(1);
        rows.row().text("a\0b");
        assert!(rows.end().ends_with(&[0, 0, 0, 2, b'a', b'b', 255, 255]));
    }
}
