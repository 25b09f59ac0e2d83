//! A tensor of the file: its name, shape and type, and how it is made of one of the folder.

use dunlin_format::{DType, SafeTensor};

/// One tensor of the file.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) name: String,
    /// In GGUF order: the first length is contiguous.
    pub(crate) shape: Vec<u64>,
    pub(crate) dtype: DType,
    pub(crate) source: Source,
}

/// Where the numbers of a tensor come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Computed from the configuration.
    Values(Vec<f32>),
    /// Read from the folder.
    File(Recipe),
}

/// How a tensor of the folder becomes one of the file.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// Which file of weights, and which tensor there.
    pub(crate) file: usize,
    pub(crate) tensor: SafeTensor,
    pub(crate) columns: usize,
    pub(crate) rows: Rows,
    /// For each column of the file the column of the folder, where they differ.
    pub(crate) column_order: Option<Vec<u32>>,
    pub(crate) apply: Apply,
}

/// The rows that are taken, in this order.
#[derive(Debug)]
pub(crate) enum Rows {
    Range(std::ops::Range<u64>),
    Listed(Vec<u32>),
}

impl Rows {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Range(range) => range.end - range.start,
            Self::Listed(rows) => rows.len() as u64,
        }
    }
}

/// What happens to each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apply {
    Nothing,
    AddOne,
    /// -exp(x)
    NegativeExponential,
}

/// For each row of a head, halves one after the other: the first of each half, the second, ...
pub(crate) fn halves_to_pairs(heads: u32, width: u32) -> Vec<u32> {
    let half = width / 2;
    let rows = (0..heads).flat_map(|head| {
        (0..half).flat_map(move |pair| [0, 1].map(|side| head * width + side * half + pair))
    });
    rows.collect()
}

/// Rows of heads stored group by group: the first head of each group, the second, ...
pub(crate) fn grouped_to_tiled(groups: u32, per_group: u32, width: u32) -> Vec<u32> {
    let heads =
        (0..per_group).flat_map(|head| (0..groups).map(move |group| group * per_group + head));
    heads
        .flat_map(|head| (0..width).map(move |row| head * width + row))
        .collect()
}
