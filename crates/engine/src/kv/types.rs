//! Which number types the cache of a model has.

use crate::spec::AttentionSpec;
use dunlin_compute::{KvElement, KvElements};
use std::fmt;

/// Number types of the cache of keys and values, for each kind of layer that keeps some.
///
/// Keys and values differ in what a rounding costs: an error of a key changes which positions are looked at, one of a value is
/// averaged over them. Layers with a sliding window are a kind of their own because in models that have them they are most layers,
/// so that they take most of the memory, and because their errors reach no farther than the window.
///
/// ```
/// use dunlin_engine::{KvElement, KvTypes};
///
/// let types = KvTypes::from(KvElement::Q8_0).with_values(KvElement::Q4_0);
/// assert_eq!(types.to_string(), "Q8_0/Q4_0");
/// let types = KvTypes::from(KvElement::F16).with_window(KvElement::Q8_0);
/// assert_eq!(types.to_string(), "F16, windows Q8_0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvTypes {
    /// Of layers that attend to the whole context.
    pub full: KvElements,
    /// Of layers that attend to a window of it.
    pub window: KvElements,
}

impl KvTypes {
    /// With values of this type in all layers.
    #[must_use]
    pub fn with_values(mut self, element: KvElement) -> Self {
        self.full.values = element;
        self.window.values = element;
        self
    }

    /// With keys and values of these types in layers with a sliding window.
    #[must_use]
    pub fn with_window(mut self, elements: impl Into<KvElements>) -> Self {
        self.window = elements.into();
        self
    }

    /// Those of a layer.
    #[must_use]
    pub fn of(self, layer: &AttentionSpec) -> KvElements {
        match layer.sliding_window {
            Some(_) => self.window,
            None => self.full,
        }
    }
}

impl Default for KvTypes {
    fn default() -> Self {
        KvElement::F16.into()
    }
}

impl From<KvElement> for KvTypes {
    fn from(element: KvElement) -> Self {
        KvElements::from(element).into()
    }
}

impl From<KvElements> for KvTypes {
    fn from(elements: KvElements) -> Self {
        KvTypes {
            full: elements,
            window: elements,
        }
    }
}

/// The names of the types of keys and values, one where they are the same; where layers with a window have others, theirs, too.
impl fmt::Display for KvTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.full == self.window {
            true => write!(f, "{}", self.full),
            false => write!(f, "{}, windows {}", self.full, self.window),
        }
    }
}
