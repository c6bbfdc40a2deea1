//! Checked access to the fields of a result, with errors that name them.

use serde_json::{Map, Value};

use super::ImportError;

/// The longest time that a field may hold, in seconds: some thirty years.
const LONGEST_S: f64 = 1e9;

/// An object and what stands before its fields' names in messages.
#[derive(Debug, Clone, Default)]
pub(super) struct Object {
    fields: Map<String, Value>,
    prefix: String,
}

/// A field's value and the way to it.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    pub(super) value: &'a Value,
    name: String,
}

impl Object {
    /// Reads an object; `place` is the line in a file of lines, and empty elsewhere.
    pub(super) fn parse(text: &str, place: &str) -> Result<Self, ImportError> {
        let not_json = |cause| ImportError::NotJson { place: place.to_owned(), cause };
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Self { fields, prefix: place.to_owned() }),
            Ok(other) => Err(not_json(format!("it is {}", shown(&other)))),
            Err(error) => Err(not_json(format!("{error}{}", hint(text, &error)))),
        }
    }

    /// A field that is there and not null.
    pub(super) fn optional(&self, name: &str) -> Option<Field<'_>> {
        let value = self.fields.get(name).filter(|value| !value.is_null())?;
        Some(Field { value, name: format!("{}{name}", self.prefix) })
    }

    /// A field that is needed; `hint` says what has it.
    pub(super) fn required(
        &self,
        name: &str,
        hint: &'static str,
    ) -> Result<Field<'_>, ImportError> {
        self.optional(name).ok_or_else(|| self.missing(name, hint))
    }

    pub(super) fn missing(&self, name: &str, hint: &'static str) -> ImportError {
        ImportError::Missing { field: format!("{}{name}", self.prefix), hint }
    }

    /// Those of these fields that it has, as they stand.
    pub(super) fn values(&self, names: &[&str]) -> Map<String, Value> {
        let values =
            names.iter().filter_map(|name| self.optional(name).map(|field| (*name, field.value)));
        values.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    }
}

impl<'a> Field<'a> {
    /// As an object of its own.
    pub(super) fn object(&self) -> Result<Object, ImportError> {
        let fields = self.value.as_object().ok_or_else(|| self.wrong("an object"))?;
        Ok(Object { fields: fields.clone(), prefix: format!("{}.", self.name) })
    }

    /// A list whose entries are fields.
    pub(super) fn entries(&self) -> Result<Vec<Self>, ImportError> {
        let entry = |(at, value)| Self { value, name: format!("{}[{at}]", self.name) };
        Ok(self.list()?.iter().enumerate().map(entry).collect())
    }

    /// A list of times of `unit_s` seconds each, in seconds.
    pub(super) fn times(&self, unit_s: f64) -> Result<Vec<f64>, ImportError> {
        let time = |(at, value): (usize, &Value)| {
            time(value, unit_s).ok_or_else(|| wrong(format!("{}[{at}]", self.name), value, A_TIME))
        };
        self.list()?.iter().enumerate().map(time).collect()
    }

    /// A time of so many units, in seconds.
    pub(super) fn time(&self, unit_s: f64) -> Result<f64, ImportError> {
        time(self.value, unit_s).ok_or_else(|| self.wrong(A_TIME))
    }

    /// A list of counts.
    pub(super) fn counts(&self) -> Result<Vec<u32>, ImportError> {
        self.entries()?.iter().map(Field::count).collect()
    }

    /// A count.
    pub(super) fn count(&self) -> Result<u32, ImportError> {
        let whole = self.value.as_f64().filter(|count| count.fract() == 0.0);
        let count = whole.filter(|count| (0.0..=f64::from(u32::MAX)).contains(count));
        #[expect(clippy::cast_sign_loss, reason = "it is in the range of u32")]
        count.map(|count| count as u32).ok_or_else(|| self.wrong("a whole number from 0"))
    }

    /// Nanoseconds, whole.
    pub(super) fn nanos(&self) -> Result<u64, ImportError> {
        self.value.as_u64().ok_or_else(|| self.wrong("whole nanoseconds, 0 or more"))
    }

    /// A text.
    pub(super) fn text(&self) -> Result<&'a str, ImportError> {
        self.value.as_str().ok_or_else(|| self.wrong("a text"))
    }

    /// Refuses a list that has not an entry for each of the requests of `other`.
    pub(super) fn check_len(
        &self,
        len: usize,
        other: &'static str,
        expected: usize,
    ) -> Result<(), ImportError> {
        if len == expected {
            return Ok(());
        }
        Err(ImportError::Lengths { field: self.name.clone(), len, other, expected })
    }

    pub(super) fn wrong(&self, allowed: &'static str) -> ImportError {
        wrong(self.name.clone(), self.value, allowed)
    }

    fn list(&self) -> Result<&'a Vec<Value>, ImportError> {
        self.value.as_array().ok_or_else(|| self.wrong("a list"))
    }
}

/// What Python's `json` writes where a number is not finite, and no reader of JSON takes.
const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

fn hint(text: &str, error: &serde_json::Error) -> &'static str {
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let rest = line.get(error.column().saturating_sub(1)..).unwrap_or_default();
    if NOT_FINITE.iter().any(|word| rest.starts_with(word)) {
        " (NaN and Infinity are not JSON: write null in their place)"
    } else {
        ""
    }
}

const A_TIME: &str = "a time of 0 or more";

fn time(value: &Value, unit_s: f64) -> Option<f64> {
    value.as_f64().map(|time| time * unit_s).filter(|time| (0.0..=LONGEST_S).contains(time))
}

fn wrong(field: String, value: &Value, allowed: &'static str) -> ImportError {
    ImportError::Wrong { field, found: shown(value), allowed }
}

/// A value as a message can hold it.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("`{}`", text.chars().take(40).collect::<String>()),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
