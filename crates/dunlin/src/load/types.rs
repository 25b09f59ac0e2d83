//! The types that weights are asked to have, by pattern.

use dunlin_format::DType;

/// What becomes of a matrix whose rows are no whole blocks of the type that it is asked to have: K-quants have blocks of 256
/// weights, and many small models have rows of 576, 640 or 896.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypeFallback {
    /// Loading ends with [`Error::TensorWidth`](crate::Error::TensorWidth).
    #[default]
    Refuse,
    /// It gets the next type of a little more bits, as llama.cpp does it: Q4_K becomes Q5_0, Q5_K Q5_1, Q6_K Q8_0, Q2_K and Q3_K
    /// Q4_0; rows that are no whole blocks of 32 become F16. [`TypePlan::fallbacks`](crate::TypePlan::fallbacks) says which.
    Wider,
}

/// Types that weights are to have in memory, whatever they are in the file ("partial quantization"). They are converted while the
/// model is loaded, a few rows at a time; the file stays as it is.
///
/// Only matrices that are multiplied with are concerned: never norms, biases, convolutions and embedding rows. A head that is the
/// embedding (a tied head) is such a matrix, and answers to both names, `token_embd.weight` and `output.weight`: its copy
/// in memory is converted, and the embedding rows of tokens are still read from the file.
///
/// Converting cannot give back what the file's own quantization has lost: from Q4_1 to Q8_0 costs memory and adds no
/// precision. It helps where the file holds a type without a fast kernel.
///
/// ```
/// use dunlin::{DType, TensorTypes};
///
/// // Values and head in 8 bits, the rest in 4.
/// let types = TensorTypes::new()
///     .with_tensor_type("attn_v", DType::Q8_0)
///     .with_tensor_type(r"^output\.", DType::Q8_0)
///     .with_weight_type(DType::Q4_0);
/// # assert!(!types.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorTypes {
    /// Patterns and types, in order: for each matrix the first one counts that matches. A pattern is a regular expression that is
    /// looked for anywhere in the tensor's GGUF name (`blk.3.attn_v.weight`).
    pub patterns: Vec<(String, DType)>,
    /// The type of the matrices that no pattern matches; `None`: that of the file.
    pub weight_type: Option<DType>,
    /// What becomes of matrices whose rows are no whole blocks of their type.
    pub fallback: TypeFallback,
}

impl TensorTypes {
    /// All types as in the file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this type for the matrices whose name has `pattern` in it, a regular expression, as far as no earlier one matches.
    #[must_use]
    pub fn with_tensor_type(mut self, pattern: impl Into<String>, dtype: DType) -> Self {
        self.patterns.push((pattern.into(), dtype));
        self
    }

    /// With this type for the matrices that no pattern matches.
    #[must_use]
    pub fn with_weight_type(mut self, dtype: DType) -> Self {
        self.weight_type = Some(dtype);
        self
    }

    /// With another answer to rows that are no whole blocks.
    #[must_use]
    pub fn with_fallback(mut self, fallback: TypeFallback) -> Self {
        self.fallback = fallback;
        self
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.weight_type.is_none()
    }
}
