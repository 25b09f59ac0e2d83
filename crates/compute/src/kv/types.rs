//! The number types of a cache, by name.

use std::fmt;

/// A number type of keys or values in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvElement {
    /// IEEE half, the default.
    F16,
    /// Exact, for comparisons.
    F32,
    /// 8-bit codes with one half-precision scale for each 32 elements of a key or value, as GGUF's type of that name.
    Q8_0,
    /// 4-bit codes with one half-precision scale for each 32 elements, as GGUF's type of that name, of keys or values that are
    /// rotated before by a Hadamard matrix of up to 256 of their elements, so that a few large ones do not cost the others their
    /// precision. The scale is chosen for the least squared error. Where many elements of keys are large, as biases make them in
    /// Qwen 2 and 2.5, 16 codes are too few for keys; values have no such elements.
    Q4_0,
}

impl KvElement {
    /// All of them, the smallest first.
    pub const ALL: [KvElement; 4] = [
        KvElement::Q4_0,
        KvElement::Q8_0,
        KvElement::F16,
        KvElement::F32,
    ];

    /// Its name in the field.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            KvElement::F16 => "F16",
            KvElement::F32 => "F32",
            KvElement::Q8_0 => "Q8_0",
            KvElement::Q4_0 => "Q4_0",
        }
    }

    /// The type of this name, in letters of any size.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|element| element.name().eq_ignore_ascii_case(name))
    }

    /// Whether keys and values are rotated before they are stored, and queries and results with them.
    pub(crate) fn is_rotated(self) -> bool {
        self == KvElement::Q4_0
    }
}

impl fmt::Display for KvElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The number types of the keys and of the values of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvElements {
    /// Of keys.
    pub keys: KvElement,
    /// Of values.
    pub values: KvElement,
}

impl From<KvElement> for KvElements {
    fn from(element: KvElement) -> Self {
        KvElements {
            keys: element,
            values: element,
        }
    }
}

/// The name of the type, or those of keys and values with a stroke between them.
impl fmt::Display for KvElements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.keys == self.values {
            true => write!(f, "{}", self.keys),
            false => write!(f, "{}/{}", self.keys, self.values),
        }
    }
}
