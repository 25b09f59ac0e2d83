//! What can be said of a model file without reading its weights.

use std::{collections::BTreeMap, fmt, path::Path};

use crate::{
    DType, FormatError, Gguf, can_decode,
    vocabulary::{check_vocabulary, dangling_ids},
};

/// What a model file that can be opened holds, and what is wrong with it all the same.
#[derive(Debug)]
#[must_use = "a report can hold problems"]
#[non_exhaustive]
pub struct Report {
    /// GGUF version.
    pub version: u32,
    /// Model family, where the file says it.
    pub architecture: Option<String>,
    /// Number of files.
    pub parts: usize,
    /// Number of tensors in all files.
    pub tensor_count: usize,
    /// Number of weights in all tensors.
    pub elements: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// Use of each tensor type, the one with the most bytes first.
    pub dtypes: Vec<DTypeUse>,
    /// What keeps a model from working although the file can be opened.
    pub problems: Vec<Problem>,
    /// What may be meant so, but is worth a look.
    pub warnings: Vec<String>,
}

/// Something wrong with a file that can be opened all the same.
#[derive(Debug)]
#[non_exhaustive]
pub struct Problem {
    /// What is wrong.
    pub error: FormatError,
    /// The byte of the (first) file where the metadata entry to blame starts; `None` for one that
    /// is missing.
    pub at: Option<u64>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        match self.at {
            Some(at) => write!(f, " (at byte {at})"),
            None => Ok(()),
        }
    }
}

/// How much of a file is of one tensor type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DTypeUse {
    /// The type.
    pub dtype: DType,
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of these tensors.
    pub bytes: u64,
}

impl Report {
    /// Whether there are no problems (warnings may remain).
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Checks the model at `path` (all its parts), reading everything but the weights.
///
/// # Errors
/// Where the file cannot be opened as a model at all: the first thing that is wrong, and at which
/// byte. What is wrong beyond that stands in [`Report::problems`].
pub fn validate(path: &Path) -> Result<Report, FormatError> {
    let gguf = Gguf::open(path)?;
    Ok(report(&gguf))
}

fn report(gguf: &Gguf) -> Report {
    let tensors = gguf.tensors();
    let dtypes = dtype_uses(gguf);
    let warnings = warnings(gguf, &dtypes);
    Report {
        version: gguf.version(),
        architecture: gguf.architecture().map(str::to_owned),
        parts: gguf.parts(),
        tensor_count: tensors.len(),
        elements: tensors.iter().map(|tensor| tensor.elements()).sum(),
        file_bytes: gguf.file_bytes(),
        tensor_bytes: tensors.iter().map(|tensor| tensor.byte_len()).sum(),
        dtypes,
        problems: problems(gguf),
        warnings,
    }
}

fn dtype_uses(gguf: &Gguf) -> Vec<DTypeUse> {
    let mut uses = BTreeMap::new();
    for tensor in gguf.tensors() {
        let dtype = tensor.dtype;
        let entry = uses.entry(dtype).or_insert(DTypeUse {
            dtype,
            tensors: 0,
            bytes: 0,
        });
        entry.tensors += 1;
        entry.bytes += tensor.byte_len();
    }
    let mut uses: Vec<_> = uses.into_values().collect();
    uses.sort_by_key(|entry| std::cmp::Reverse(entry.bytes));
    uses
}

fn problems(gguf: &Gguf) -> Vec<Problem> {
    let metadata = gguf.metadata();
    let architecture = metadata.require_str("general.architecture").err();
    architecture
        .into_iter()
        .chain(check_vocabulary(metadata))
        .map(|error| {
            let at = error.key().and_then(|key| metadata.position(key));
            Problem { error, at }
        })
        .collect()
}

fn warnings(gguf: &Gguf, dtypes: &[DTypeUse]) -> Vec<String> {
    let mut warnings = dangling_ids(gguf.metadata());
    if gguf.tensors().is_empty() {
        warnings.push("the file holds no tensors (metadata or vocabulary only)".to_owned());
    }
    for entry in dtypes.iter().filter(|entry| !can_decode(entry.dtype)) {
        let DTypeUse { dtype, tensors, .. } = entry;
        warnings.push(format!(
            "{tensors} tensors are of type {dtype}, which is no type of weights"
        ));
    }
    for key in gguf.stray_keys() {
        warnings.push(format!(
            "`{key}` of a later part is not used; metadata comes from the first part"
        ));
    }
    warnings
}
