//! Typed access to the columns of a record batch.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type, UInt32Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, Float32Array, Int32Array, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use arrow_schema::ArrowError;

use crate::Timestamp;

type Column = (&'static str, ArrayRef);

pub(super) fn u32s(name: &'static str, values: impl Iterator<Item = u32>) -> Column {
    (name, Arc::new(UInt32Array::from_iter_values(values)))
}

pub(super) fn maybe_u32s(name: &'static str, values: impl Iterator<Item = Option<u32>>) -> Column {
    (name, Arc::new(values.collect::<UInt32Array>()))
}

pub(super) fn i32s(name: &'static str, values: impl Iterator<Item = i32>) -> Column {
    (name, Arc::new(Int32Array::from_iter_values(values)))
}

pub(super) fn f32s(name: &'static str, values: impl Iterator<Item = f32>) -> Column {
    (name, Arc::new(Float32Array::from_iter_values(values)))
}

pub(super) fn u64s(name: &'static str, values: impl Iterator<Item = u64>) -> Column {
    (name, Arc::new(UInt64Array::from_iter_values(values)))
}

pub(super) fn maybe_u64s(name: &'static str, values: impl Iterator<Item = Option<u64>>) -> Column {
    (name, Arc::new(values.collect::<UInt64Array>()))
}

pub(super) fn times(name: &'static str, values: impl Iterator<Item = Timestamp>) -> Column {
    u64s(name, values.map(Timestamp::as_nanos))
}

pub(super) fn spans(name: &'static str, values: impl Iterator<Item = Option<Duration>>) -> Column {
    maybe_u64s(name, values.map(|span| span.map(nanos)))
}

pub(super) fn words(name: &'static str, values: impl Iterator<Item = &'static str>) -> Column {
    (name, Arc::new(StringArray::from_iter_values(values)))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads the columns of one record batch by name.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a>(pub(super) &'a RecordBatch);

type Read<T> = Result<T, ArrowError>;

impl<'a> Columns<'a> {
    pub(super) fn u32s(self, name: &str) -> Read<impl Fn(usize) -> u32 + 'a> {
        let column = self.primitive::<UInt32Type>(name)?;
        Ok(move |row| column.value(row))
    }

    pub(super) fn maybe_u32s(self, name: &str) -> Read<impl Fn(usize) -> Option<u32> + 'a> {
        let column = self.primitive::<UInt32Type>(name)?;
        Ok(move |row| column.is_valid(row).then(|| column.value(row)))
    }

    pub(super) fn i32s(self, name: &str) -> Read<impl Fn(usize) -> i32 + 'a> {
        let column = self.primitive::<Int32Type>(name)?;
        Ok(move |row| column.value(row))
    }

    pub(super) fn f32s(self, name: &str) -> Read<impl Fn(usize) -> f32 + 'a> {
        let column = self.primitive::<Float32Type>(name)?;
        Ok(move |row| column.value(row))
    }

    pub(super) fn u64s(self, name: &str) -> Read<impl Fn(usize) -> u64 + 'a> {
        let column = self.primitive::<UInt64Type>(name)?;
        Ok(move |row| column.value(row))
    }

    pub(super) fn maybe_u64s(self, name: &str) -> Read<impl Fn(usize) -> Option<u64> + 'a> {
        let column = self.primitive::<UInt64Type>(name)?;
        Ok(move |row| column.is_valid(row).then(|| column.value(row)))
    }

    pub(super) fn times(self, name: &str) -> Read<impl Fn(usize) -> Timestamp + 'a> {
        let value = self.u64s(name)?;
        Ok(move |row| Timestamp::from_nanos(value(row)))
    }

    pub(super) fn spans(self, name: &str) -> Read<impl Fn(usize) -> Option<Duration> + 'a> {
        let value = self.maybe_u64s(name)?;
        Ok(move |row| value(row).map(Duration::from_nanos))
    }

    pub(super) fn words<T>(
        self,
        name: &'static str,
        parse: impl Fn(&str) -> Option<T> + 'a,
    ) -> Read<impl Fn(usize) -> Read<T> + 'a> {
        let column = self
            .column(name)?
            .as_string_opt::<i32>()
            .ok_or_else(|| wrong(format!("column `{name}` does not hold text")))?;
        Ok(move |row| {
            let word = column.value(row);
            parse(word).ok_or_else(|| wrong(format!("column `{name}` holds `{word}`")))
        })
    }

    fn primitive<T: arrow_array::types::ArrowPrimitiveType>(
        self,
        name: &str,
    ) -> Read<&'a arrow_array::PrimitiveArray<T>> {
        self.column(name)?
            .as_primitive_opt::<T>()
            .ok_or_else(|| wrong(format!("column `{name}` does not hold {}", T::DATA_TYPE)))
    }

    fn column(self, name: &str) -> Read<&'a ArrayRef> {
        self.0.column_by_name(name).ok_or_else(|| wrong(format!("there is no column `{name}`")))
    }
}

fn wrong(what: String) -> ArrowError {
    ArrowError::SchemaError(what)
}
