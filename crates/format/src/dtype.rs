//! The element types a GGUF tensor can have, and how their blocks lie in memory.

use std::fmt;

/// Element type of a tensor: plain numbers, or blocks of quantized weights.
///
/// The names and numbers are ggml's (`enum ggml_type`). Every type that current files can name is
/// listed, so that such a file opens and can be described; [`crate::can_decode`] says which ones
/// can be turned into numbers.
#[allow(non_camel_case_types, missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    I8,
    I16,
    I32,
    I64,
    F64,
    IQ1_M,
    BF16,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
    Q2_0,
}

struct Layout {
    dtype: DType,
    ggml_id: u32,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
}

/// One row per type, in the order of the enum, so that a type is its own index.
const LAYOUTS: [Layout; 35] = [
    layout(DType::F32, 0, "F32", 1, 4),
    layout(DType::F16, 1, "F16", 1, 2),
    layout(DType::Q4_0, 2, "Q4_0", 32, 18),
    layout(DType::Q4_1, 3, "Q4_1", 32, 20),
    layout(DType::Q5_0, 6, "Q5_0", 32, 22),
    layout(DType::Q5_1, 7, "Q5_1", 32, 24),
    layout(DType::Q8_0, 8, "Q8_0", 32, 34),
    // Two halves and 32 codes in ggml's C source; the Python package still says 40.
    layout(DType::Q8_1, 9, "Q8_1", 32, 36),
    layout(DType::Q2_K, 10, "Q2_K", 256, 84),
    layout(DType::Q3_K, 11, "Q3_K", 256, 110),
    layout(DType::Q4_K, 12, "Q4_K", 256, 144),
    layout(DType::Q5_K, 13, "Q5_K", 256, 176),
    layout(DType::Q6_K, 14, "Q6_K", 256, 210),
    layout(DType::Q8_K, 15, "Q8_K", 256, 292),
    layout(DType::IQ2_XXS, 16, "IQ2_XXS", 256, 66),
    layout(DType::IQ2_XS, 17, "IQ2_XS", 256, 74),
    layout(DType::IQ3_XXS, 18, "IQ3_XXS", 256, 98),
    layout(DType::IQ1_S, 19, "IQ1_S", 256, 50),
    layout(DType::IQ4_NL, 20, "IQ4_NL", 32, 18),
    layout(DType::IQ3_S, 21, "IQ3_S", 256, 110),
    layout(DType::IQ2_S, 22, "IQ2_S", 256, 82),
    layout(DType::IQ4_XS, 23, "IQ4_XS", 256, 136),
    layout(DType::I8, 24, "I8", 1, 1),
    layout(DType::I16, 25, "I16", 1, 2),
    layout(DType::I32, 26, "I32", 1, 4),
    layout(DType::I64, 27, "I64", 1, 8),
    layout(DType::F64, 28, "F64", 1, 8),
    layout(DType::IQ1_M, 29, "IQ1_M", 256, 56),
    layout(DType::BF16, 30, "BF16", 1, 2),
    layout(DType::TQ1_0, 34, "TQ1_0", 256, 54),
    layout(DType::TQ2_0, 35, "TQ2_0", 256, 66),
    layout(DType::MXFP4, 39, "MXFP4", 32, 17),
    layout(DType::NVFP4, 40, "NVFP4", 64, 36),
    layout(DType::Q1_0, 41, "Q1_0", 128, 18),
    layout(DType::Q2_0, 42, "Q2_0", 64, 18),
];

const fn layout(
    dtype: DType,
    ggml_id: u32,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
) -> Layout {
    Layout {
        dtype,
        ggml_id,
        name,
        block_len,
        block_bytes,
    }
}

impl DType {
    /// The type with this number in a GGUF file, or `None` for a number that ggml does not use
    /// (any more).
    pub fn from_ggml(id: u32) -> Option<Self> {
        LAYOUTS
            .iter()
            .find(|layout| layout.ggml_id == id)
            .map(|layout| layout.dtype)
    }

    /// All types, in the order of their numbers.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        LAYOUTS.iter().map(|layout| layout.dtype)
    }

    /// The number that stands for this type in a GGUF file.
    pub fn ggml_id(self) -> u32 {
        self.layout().ggml_id
    }

    /// The field's name of this type, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.layout().name
    }

    /// Weights in one block (1 for plain numbers).
    pub fn block_len(self) -> usize {
        self.layout().block_len
    }

    /// Bytes of one block, scales included.
    pub fn block_bytes(self) -> usize {
        self.layout().block_bytes
    }

    /// Average bits that one weight takes, scales included.
    pub fn bits_per_weight(self) -> f32 {
        self.block_bytes() as f32 * 8.0 / self.block_len() as f32
    }

    /// Bytes of a row of `n` weights; `None` when `n` is not a multiple of the block length or the
    /// number of bytes does not fit.
    pub fn row_bytes(self, n: usize) -> Option<usize> {
        if !n.is_multiple_of(self.block_len()) {
            return None;
        }
        (n / self.block_len()).checked_mul(self.block_bytes())
    }

    fn layout(self) -> &'static Layout {
        &LAYOUTS[self as usize]
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_its_own_index_and_survives_its_number() {
        for (index, layout) in LAYOUTS.iter().enumerate() {
            assert_eq!(layout.dtype as usize, index);
            assert_eq!(DType::from_ggml(layout.ggml_id), Some(layout.dtype));
            assert_eq!(format!("{:?}", layout.dtype), layout.name);
        }
    }

    #[test]
    fn numbers_that_ggml_gave_up_are_unknown() {
        for id in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
            assert_eq!(DType::from_ggml(id), None);
        }
    }

    #[test]
    fn a_row_is_whole_blocks() {
        assert_eq!(DType::Q4_K.row_bytes(512), Some(288));
        assert_eq!(DType::Q4_K.row_bytes(100), None);
        assert_eq!(DType::F64.row_bytes(usize::MAX), None);
        assert_eq!(DType::Q4_0.bits_per_weight(), 4.5);
    }
}
