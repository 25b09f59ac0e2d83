//! Metadata of a model: an ordered map with readers that say what they expected.

use std::{borrow::Cow, collections::HashMap};

use crate::{Array, FormatError, StringArray, Value};

/// Metadata in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
    /// Where the entries stand that were read from a file.
    positions: Vec<Option<u64>>,
}

/// Two sets of metadata are equal when they have the same entries in the same order.
impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Metadata {
    /// Metadata without any entry.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_capacity(entries: usize) -> Self {
        Self {
            entries: Vec::with_capacity(entries),
            index: HashMap::with_capacity(entries),
            positions: Vec::with_capacity(entries),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&index| &self.entries[index].1)
    }

    /// Whether there is a value for `key`.
    pub fn contains(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    /// The byte of the file at which the entry of `key` starts, where it was read from one.
    pub fn position(&self, key: &str) -> Option<u64> {
        self.index.get(key).and_then(|&index| self.positions[index])
    }

    pub(crate) fn insert_at(&mut self, key: &str, value: Value, at: u64) {
        self.insert(key, value);
        self.positions[self.index[key]] = Some(at);
    }

    /// All entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// Sets `key`; a value that it had is replaced in its place and returned.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.index.get(&key) {
            Some(&index) => {
                self.positions[index] = None;
                Some(std::mem::replace(&mut self.entries[index].1, value))
            }
            None => {
                self.index.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
                self.positions.push(None);
                None
            }
        }
    }

    /// Removes `key` and returns its value; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let removed = self.index.remove(key)?;
        for index in self.index.values_mut().filter(|index| **index > removed) {
            *index -= 1;
        }
        self.positions.remove(removed);
        Some(self.entries.remove(removed).1)
    }

    /// The text at `key`; `None` where the key is absent.
    ///
    /// # Errors
    /// [`FormatError::WrongType`] where the value is not a text.
    pub fn str(&self, key: &str) -> Result<Option<&str>, FormatError> {
        self.read(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The truth value at `key`; `None` where the key is absent.
    ///
    /// # Errors
    /// [`FormatError::WrongType`] where the value is not a truth value.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, FormatError> {
        self.read(key, "a bool", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// The number at `key`, of either float type; `None` where the key is absent.
    ///
    /// # Errors
    /// [`FormatError::WrongType`] where the value is not a float.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, FormatError> {
        Ok(self.f64(key)?.map(|value| value as f32))
    }

    /// The number at `key`, of either float type; `None` where the key is absent.
    ///
    /// # Errors
    /// [`FormatError::WrongType`] where the value is not a float.
    pub fn f64(&self, key: &str) -> Result<Option<f64>, FormatError> {
        self.read(key, "a float", |value| match *value {
            Value::F32(value) => Some(value.into()),
            Value::F64(value) => Some(value),
            _ => None,
        })
    }

    /// The number at `key`, of any integer type; `None` where the key is absent.
    ///
    /// # Errors
    /// [`FormatError::WrongType`] where the value is not an integer, [`FormatError::OutOfRange`]
    /// where it does not fit.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, FormatError> {
        self.integer(key, "u32")
    }

    /// The number at `key`, of any integer type; `None` where the key is absent.
    ///
    /// # Errors
    /// As [`Metadata::u32`].
    pub fn i32(&self, key: &str) -> Result<Option<i32>, FormatError> {
        self.integer(key, "i32")
    }

    /// The number at `key`, of any integer type; `None` where the key is absent.
    ///
    /// # Errors
    /// As [`Metadata::u32`].
    pub fn u64(&self, key: &str) -> Result<Option<u64>, FormatError> {
        self.integer(key, "u64")
    }

    /// The array of texts at `key`; `None` where the key is absent.
    ///
    /// # Errors
    /// [`FormatError::WrongType`] where the value is not an array of texts.
    pub fn strings(&self, key: &str) -> Result<Option<&StringArray>, FormatError> {
        self.read(key, "an array of string", |value| match value {
            Value::Array(Array::String(texts)) => Some(texts),
            _ => None,
        })
    }

    /// The array of f32 at `key`; `None` where the key is absent.
    ///
    /// # Errors
    /// [`FormatError::WrongType`] where the value is not an array of f32.
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>, FormatError> {
        self.read(key, "an array of f32", |value| match value {
            Value::Array(Array::F32(values)) => Some(values.as_slice()),
            _ => None,
        })
    }

    /// The array of truth values at `key`; `None` where the key is absent.
    ///
    /// # Errors
    /// [`FormatError::WrongType`] where the value is not an array of truth values.
    pub fn bools(&self, key: &str) -> Result<Option<&[bool]>, FormatError> {
        self.read(key, "an array of bool", |value| match value {
            Value::Array(Array::Bool(values)) => Some(values.as_slice()),
            _ => None,
        })
    }

    /// The array of any integer type at `key`; `None` where the key is absent.
    ///
    /// # Errors
    /// [`FormatError::WrongType`] where the value is not an array of integers,
    /// [`FormatError::OutOfRange`] where one of them does not fit.
    pub fn i32s(&self, key: &str) -> Result<Option<Cow<'_, [i32]>>, FormatError> {
        match self.get(key) {
            Some(Value::Array(Array::I32(values))) => Ok(Some(Cow::Borrowed(values))),
            _ => Ok(self.integers(key, "an array of i32")?.map(Cow::Owned)),
        }
    }

    /// The array of any integer type at `key`; `None` where the key is absent.
    ///
    /// # Errors
    /// As [`Metadata::i32s`].
    pub fn u32s(&self, key: &str) -> Result<Option<Cow<'_, [u32]>>, FormatError> {
        match self.get(key) {
            Some(Value::Array(Array::U32(values))) => Ok(Some(Cow::Borrowed(values))),
            _ => Ok(self.integers(key, "an array of u32")?.map(Cow::Owned)),
        }
    }

    /// As [`Metadata::str`], where the key has to be there.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], or those of [`Metadata::str`].
    pub fn require_str(&self, key: &str) -> Result<&str, FormatError> {
        required(key, self.str(key)?)
    }

    /// As [`Metadata::bool`], where the key has to be there.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], or those of [`Metadata::bool`].
    pub fn require_bool(&self, key: &str) -> Result<bool, FormatError> {
        required(key, self.bool(key)?)
    }

    /// As [`Metadata::f32`], where the key has to be there.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], or those of [`Metadata::f32`].
    pub fn require_f32(&self, key: &str) -> Result<f32, FormatError> {
        required(key, self.f32(key)?)
    }

    /// As [`Metadata::u32`], where the key has to be there.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], or those of [`Metadata::u32`].
    pub fn require_u32(&self, key: &str) -> Result<u32, FormatError> {
        required(key, self.u32(key)?)
    }

    /// As [`Metadata::u64`], where the key has to be there.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], or those of [`Metadata::u64`].
    pub fn require_u64(&self, key: &str) -> Result<u64, FormatError> {
        required(key, self.u64(key)?)
    }

    /// As [`Metadata::strings`], where the key has to be there.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], or those of [`Metadata::strings`].
    pub fn require_strings(&self, key: &str) -> Result<&StringArray, FormatError> {
        required(key, self.strings(key)?)
    }

    /// As [`Metadata::f32s`], where the key has to be there.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], or those of [`Metadata::f32s`].
    pub fn require_f32s(&self, key: &str) -> Result<&[f32], FormatError> {
        required(key, self.f32s(key)?)
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(wrong_type(key, expected, value)),
        }
    }

    fn integer<T: TryFrom<i128>>(
        &self,
        key: &str,
        expected: &'static str,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value
            .as_integer()
            .ok_or_else(|| wrong_type(key, expected, value))?;
        fit(key, expected, number).map(Some)
    }

    fn integers<T: TryFrom<i128>>(
        &self,
        key: &str,
        expected: &'static str,
    ) -> Result<Option<Vec<T>>, FormatError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let Value::Array(array) = value else {
            return Err(wrong_type(key, expected, value));
        };
        if !array.is_integers() {
            return Err(wrong_type(key, expected, value));
        }
        let numbers = (0..array.len()).filter_map(|index| array.integer(index));
        numbers
            .map(|number| fit(key, expected, number))
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Metadata {
    /// Later entries replace earlier ones of the same key.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut metadata = Self::new();
        for (key, value) in entries {
            metadata.insert(key, value);
        }
        metadata
    }
}

fn required<T>(key: &str, value: Option<T>) -> Result<T, FormatError> {
    value.ok_or_else(|| FormatError::MissingKey {
        key: key.to_owned(),
    })
}

fn wrong_type(key: &str, expected: &'static str, value: &Value) -> FormatError {
    FormatError::WrongType {
        key: key.to_owned(),
        expected,
        found: value.type_name(),
    }
}

fn fit<T: TryFrom<i128>>(
    key: &str,
    expected: &'static str,
    number: i128,
) -> Result<T, FormatError> {
    T::try_from(number).map_err(|_| FormatError::OutOfRange {
        key: key.to_owned(),
        value: number.to_string(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metadata {
        let mut metadata = Metadata::new();
        metadata.insert("count", 7u16);
        metadata.insert("negative", -1i32);
        metadata.insert("name", "duck");
        metadata.insert("theta", 0.5f64);
        metadata.insert("types", vec![1u8, 2]);
        metadata
    }

    #[test]
    fn integers_of_any_width_are_read_where_they_fit() {
        let metadata = sample();
        assert_eq!(metadata.u32("count").unwrap(), Some(7));
        assert_eq!(metadata.u64("count").unwrap(), Some(7));
        assert_eq!(metadata.i32("negative").unwrap(), Some(-1));
        assert_eq!(metadata.u32("absent").unwrap(), None);
        assert!(matches!(
            metadata.u32("negative"),
            Err(FormatError::OutOfRange { .. })
        ));
        assert!(matches!(
            metadata.u32("theta"),
            Err(FormatError::WrongType { .. })
        ));
        assert_eq!(metadata.f32("theta").unwrap(), Some(0.5));
        assert_eq!(metadata.i32s("types").unwrap().unwrap().as_ref(), [1, 2]);
        assert!(matches!(
            metadata.i32s("count"),
            Err(FormatError::WrongType { .. })
        ));
    }

    #[test]
    fn a_wrong_type_and_a_missing_key_name_the_key() {
        let metadata = sample();
        let error = metadata.require_str("count").unwrap_err().to_string();
        assert_eq!(
            error,
            "metadata key `count` should be a string, but has the type u16"
        );
        let error = metadata.require_u32("absent").unwrap_err().to_string();
        assert_eq!(
            error,
            "metadata key `absent` is missing; the model needs it"
        );
    }

    #[test]
    fn keeps_the_order_when_keys_are_replaced_and_removed() {
        let mut metadata = sample();
        assert_eq!(
            metadata.insert("name", "goose"),
            Some(Value::String("duck".into()))
        );
        assert_eq!(metadata.remove("count"), Some(Value::U16(7)));
        let keys: Vec<_> = metadata.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["negative", "name", "theta", "types"]);
        assert_eq!(metadata.str("name").unwrap(), Some("goose"));
    }
}
