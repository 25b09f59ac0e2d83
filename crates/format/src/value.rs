//! Metadata values: the thirteen types of GGUF.

use std::{fmt, sync::Arc};

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "the variants are the type names of the GGUF specification"
)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// An array of metadata values of one type.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "the variants are the type names of the GGUF specification"
)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    String(StringArray),
    Array(Vec<Array>),
}

/// The number of each value type in a file (GGUF specification, `gguf_metadata_value_type`).
pub(crate) mod type_id {
    pub(crate) const U8: u32 = 0;
    pub(crate) const I8: u32 = 1;
    pub(crate) const U16: u32 = 2;
    pub(crate) const I16: u32 = 3;
    pub(crate) const U32: u32 = 4;
    pub(crate) const I32: u32 = 5;
    pub(crate) const F32: u32 = 6;
    pub(crate) const BOOL: u32 = 7;
    pub(crate) const STRING: u32 = 8;
    pub(crate) const ARRAY: u32 = 9;
    pub(crate) const U64: u32 = 10;
    pub(crate) const I64: u32 = 11;
    pub(crate) const F64: u32 = 12;
}

impl Value {
    pub(crate) fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => type_id::U8,
            Self::I8(_) => type_id::I8,
            Self::U16(_) => type_id::U16,
            Self::I16(_) => type_id::I16,
            Self::U32(_) => type_id::U32,
            Self::I32(_) => type_id::I32,
            Self::F32(_) => type_id::F32,
            Self::Bool(_) => type_id::BOOL,
            Self::String(_) => type_id::STRING,
            Self::Array(_) => type_id::ARRAY,
            Self::U64(_) => type_id::U64,
            Self::I64(_) => type_id::I64,
            Self::F64(_) => type_id::F64,
        }
    }

    /// What this value is, in words, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::Array(array) => array.type_name(),
        }
    }

    /// The value of any integer type.
    pub fn as_integer(&self) -> Option<i128> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::I8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::U64(value) => Some(value.into()),
            Self::I64(value) => Some(value.into()),
            _ => None,
        }
    }
}

impl Array {
    pub(crate) fn element_type_id(&self) -> u32 {
        match self {
            Self::U8(_) => type_id::U8,
            Self::I8(_) => type_id::I8,
            Self::U16(_) => type_id::U16,
            Self::I16(_) => type_id::I16,
            Self::U32(_) => type_id::U32,
            Self::I32(_) => type_id::I32,
            Self::F32(_) => type_id::F32,
            Self::Bool(_) => type_id::BOOL,
            Self::String(_) => type_id::STRING,
            Self::Array(_) => type_id::ARRAY,
            Self::U64(_) => type_id::U64,
            Self::I64(_) => type_id::I64,
            Self::F64(_) => type_id::F64,
        }
    }

    /// What this array is, in words, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "array of u8",
            Self::I8(_) => "array of i8",
            Self::U16(_) => "array of u16",
            Self::I16(_) => "array of i16",
            Self::U32(_) => "array of u32",
            Self::I32(_) => "array of i32",
            Self::U64(_) => "array of u64",
            Self::I64(_) => "array of i64",
            Self::F32(_) => "array of f32",
            Self::F64(_) => "array of f64",
            Self::Bool(_) => "array of bool",
            Self::String(_) => "array of string",
            Self::Array(_) => "array of arrays",
        }
    }

    /// Number of elements (of the outermost array, where they are nested).
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::I16(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::U64(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::String(values) => values.len(),
            Self::Array(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `index` where the array is of any integer type.
    pub fn integer(&self, index: usize) -> Option<i128> {
        match self {
            Self::U8(values) => values.get(index).map(|&value| value.into()),
            Self::I8(values) => values.get(index).map(|&value| value.into()),
            Self::U16(values) => values.get(index).map(|&value| value.into()),
            Self::I16(values) => values.get(index).map(|&value| value.into()),
            Self::U32(values) => values.get(index).map(|&value| value.into()),
            Self::I32(values) => values.get(index).map(|&value| value.into()),
            Self::U64(values) => values.get(index).map(|&value| value.into()),
            Self::I64(values) => values.get(index).map(|&value| value.into()),
            _ => None,
        }
    }

    /// Whether the elements are of any integer type.
    pub fn is_integers(&self) -> bool {
        !matches!(
            self,
            Self::F32(_) | Self::F64(_) | Self::Bool(_) | Self::String(_) | Self::Array(_)
        )
    }
}

/// Many texts in one buffer: a vocabulary costs a few allocations instead of one per token. Clones share it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StringArray {
    texts: Arc<Texts>,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Texts {
    all: String,
    /// Where each text ends in `all`; it starts where the one before it ends.
    ends: Vec<usize>,
}

impl StringArray {
    /// Cuts a text at `ends`, which ascend to its length; `None` where the text is no UTF-8 or one of them lies within a
    /// character.
    pub(crate) fn cut(all: Vec<u8>, ends: Vec<usize>) -> Option<Self> {
        let all = String::from_utf8(all).ok()?;
        let whole = ends.iter().all(|&end| all.is_char_boundary(end));
        whole.then(|| Self {
            texts: Arc::new(Texts { all, ends }),
        })
    }

    /// Appends one text.
    pub fn push(&mut self, text: &str) {
        let texts = Arc::make_mut(&mut self.texts);
        texts.all.push_str(text);
        texts.ends.push(texts.all.len());
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.texts.ends.len()
    }

    /// Whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.texts.ends.is_empty()
    }

    /// Bytes of all texts together.
    pub fn text_bytes(&self) -> usize {
        self.texts.all.len()
    }

    /// Text number `index`.
    pub fn get(&self, index: usize) -> Option<&str> {
        let Texts { all, ends } = &*self.texts;
        let end = *ends.get(index)?;
        let start = match index {
            0 => 0,
            _ => ends[index - 1],
        };
        all.get(start..end)
    }

    /// All texts in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        let Texts { all, ends } = &*self.texts;
        let mut start = 0;
        ends.iter().map(move |&end| {
            let text = &all[start..end];
            start = end;
            text
        })
    }
}

impl fmt::Debug for StringArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: AsRef<str>> FromIterator<T> for StringArray {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut array = Self::default();
        array.extend(texts);
        array
    }
}

impl<T: AsRef<str>> Extend<T> for StringArray {
    fn extend<I: IntoIterator<Item = T>>(&mut self, texts: I) {
        for text in texts {
            self.push(text.as_ref());
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

value_from! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f32 => F32, f64 => F64, bool => Bool, String => String, &str => String, Array => Array,
}

macro_rules! array_from {
    ($($element:ty => $variant:ident),* $(,)?) => {$(
        impl From<Vec<$element>> for Array {
            fn from(values: Vec<$element>) -> Self {
                Self::$variant(values)
            }
        }

        impl From<Vec<$element>> for Value {
            fn from(values: Vec<$element>) -> Self {
                Self::Array(Array::$variant(values))
            }
        }
    )*};
}

array_from! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f32 => F32, f64 => F64, bool => Bool, Array => Array,
}

impl From<StringArray> for Value {
    fn from(values: StringArray) -> Self {
        Self::Array(Array::String(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_array_gives_back_each_text() {
        let texts = ["", "a", "", "für", "🦆", ""];
        let array: StringArray = texts.iter().collect();
        assert_eq!(array.len(), 6);
        assert_eq!(array.iter().collect::<Vec<_>>(), texts);
        assert_eq!(array.iter().len(), 6);
        for (index, text) in texts.iter().enumerate() {
            assert_eq!(array.get(index), Some(*text));
        }
        assert_eq!(array.get(6), None);
    }
}
