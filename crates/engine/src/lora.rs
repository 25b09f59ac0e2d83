//! Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685): `y = W x + scale * B (A x)` for the matrices that an adapter
//! changes. The model's weights stay as they are; what an adapter adds is computed beside them, in floats.
//!
//! [`LoraAdapter`] describes an adapter, whose numbers are read when it is added to an engine ([`bind`]). A sequence has a set of
//! adapters, each with a scale, for its whole life; sequences of one step may have different ones ([`apply`]).

mod apply;
mod bind;

pub(crate) use apply::{AdapterSet, Adapters, Site};

use crate::EngineError;
use crate::engine::Engine;
use dunlin_format::{DType, FormatError, Gguf, TensorInfo};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// The largest rank of a pair of matrices. Adapters have 4 to 256.
pub const LORA_RANK_MAX: usize = 4096;

const TYPE: &str = "general.type";
const ADAPTER_TYPE: &str = "adapter.type";
const ALPHA: &str = "adapter.lora.alpha";
const INVOCATION: &str = "adapter.alora.invocation_tokens";

/// An adapter, not yet bound to a model: pairs of matrices, each for a matrix of the model.
#[derive(Clone, Debug)]
pub struct LoraAdapter {
    architecture: String,
    pairs: Arc<Vec<LoraPair>>,
}

/// What an adapter adds to one matrix `[rows, cols]` of a model.
#[derive(Debug)]
pub struct LoraPair {
    /// The model's tensor as GGUF names it: `blk.3.attn_q.weight`.
    pub tensor: String,
    /// `[rank, cols]`
    pub a: LoraMatrix,
    /// `[rows, rank]`
    pub b: LoraMatrix,
    /// Factor on the product of both, `alpha / rank`.
    pub scale: f32,
}

/// Gives the bytes of a matrix, rows one after the other.
type ReadMatrix = Box<dyn Fn() -> Result<Vec<u8>, FormatError> + Send + Sync>;

/// One matrix of a pair. Its numbers are read when they are needed.
pub struct LoraMatrix {
    /// Its name in the adapter's file.
    pub name: String,
    /// Type of its numbers.
    pub dtype: DType,
    /// Rows.
    pub rows: usize,
    /// Columns, contiguous.
    pub cols: usize,
    read: ReadMatrix,
}

impl LoraAdapter {
    /// An adapter for models of this architecture (`general.architecture`).
    #[must_use]
    pub fn new(architecture: impl Into<String>, pairs: Vec<LoraPair>) -> Self {
        LoraAdapter {
            architecture: architecture.into(),
            pairs: Arc::new(pairs),
        }
    }

    /// Reads the description of an adapter from a GGUF file as llama.cpp's converter writes it: `general.type` is `adapter`,
    /// `adapter.type` is `lora`, and each tensor of the model has `NAME.lora_a` and `NAME.lora_b`.
    ///
    /// # Errors
    /// [`EngineError::NotAnAdapter`] for another kind of file or one without pairs, [`EngineError::AdapterUnsupported`] for
    /// tensors that are none of a pair and adapters that do not work from the first token on,
    /// [`EngineError::AdapterUnpaired`], [`EngineError::AdapterRank`] and [`EngineError::AdapterShape`].
    pub fn from_gguf(gguf: &Arc<Gguf>) -> Result<Self, EngineError> {
        let metadata = gguf.metadata();
        for (key, wanted) in [(TYPE, "adapter"), (ADAPTER_TYPE, "lora")] {
            let found = metadata.str(key)?;
            if found != Some(wanted) {
                let found = found.map_or_else(|| "absent".to_owned(), |text| format!("{text:?}"));
                return Err(EngineError::NotAnAdapter {
                    reason: format!("its {key} is {found}, not {wanted:?}"),
                });
            }
        }
        if metadata.get(INVOCATION).is_some() {
            return Err(EngineError::AdapterUnsupported {
                name: INVOCATION.to_owned(),
                reason: "it works only from certain tokens on".to_owned(),
            });
        }
        let architecture = gguf
            .architecture()
            .ok_or_else(|| EngineError::NotAnAdapter {
                reason: "it has no general.architecture".to_owned(),
            })?;
        let alpha = match metadata.f32(ALPHA)? {
            Some(alpha) if alpha.is_finite() && alpha != 0.0 => alpha,
            found => {
                return Err(EngineError::InvalidMetadata {
                    key: ALPHA.to_owned(),
                    found: found.map_or_else(|| "absent".to_owned(), |found| found.to_string()),
                    expected: "a finite number other than 0".to_owned(),
                });
            }
        };
        let mut pairs = Vec::new();
        for info in gguf.tensors() {
            let Some((tensor, other)) = other_half(&info.name) else {
                return Err(EngineError::AdapterUnsupported {
                    name: info.name.clone(),
                    reason: "it is no half of a low-rank pair".to_owned(),
                });
            };
            let Some(other) = gguf.tensor(&other) else {
                return Err(EngineError::AdapterUnpaired {
                    name: info.name.clone(),
                    missing: other,
                });
            };
            if info.name.ends_with(A) {
                pairs.push(LoraPair {
                    tensor: tensor.to_owned(),
                    scale: alpha / (info.rows() as f32),
                    a: LoraMatrix::of(gguf, info)?,
                    b: LoraMatrix::of(gguf, other)?,
                });
            }
        }
        let adapter = LoraAdapter::new(architecture, pairs);
        adapter.check()?;
        Ok(adapter)
    }

    /// The architecture of the models that it is for.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Its pairs of matrices.
    #[must_use]
    pub fn pairs(&self) -> &[LoraPair] {
        &self.pairs
    }

    /// Checks what can be checked without a model.
    ///
    /// # Errors
    /// [`EngineError::NotAnAdapter`] without pairs or with two for one tensor, [`EngineError::AdapterRank`], [`EngineError::AdapterShape`] for matrices
    /// of different ranks, [`EngineError::AdapterScale`].
    pub fn check(&self) -> Result<(), EngineError> {
        if self.pairs.is_empty() {
            return Err(EngineError::NotAnAdapter {
                reason: "it has no pairs of matrices".to_owned(),
            });
        }
        let mut known = HashSet::new();
        for LoraPair {
            tensor,
            a,
            b,
            scale,
        } in self.pairs.iter()
        {
            if !known.insert(tensor) {
                return Err(EngineError::NotAnAdapter {
                    reason: format!("it changes {tensor} twice"),
                });
            }
            let rank = a.rows;
            if !(1..=LORA_RANK_MAX).contains(&rank) {
                return Err(EngineError::AdapterRank {
                    name: a.name.clone(),
                    rank,
                    limit: LORA_RANK_MAX,
                });
            }
            b.require_shape(b.rows, rank)?;
            if !scale.is_finite() {
                return Err(EngineError::AdapterScale { found: *scale });
            }
        }
        Ok(())
    }
}

const A: &str = ".lora_a";
const B: &str = ".lora_b";

/// The tensor of the model that a matrix of an adapter belongs to, and the name of the pair's other matrix.
fn other_half(name: &str) -> Option<(&str, String)> {
    for (own, other) in [(A, B), (B, A)] {
        if let Some(tensor) = name.strip_suffix(own) {
            return Some((tensor, format!("{tensor}{other}")));
        }
    }
    None
}

impl LoraMatrix {
    /// A matrix whose bytes `read` gives, `rows` rows of `cols` numbers of `dtype`.
    pub fn new(
        name: impl Into<String>,
        dtype: DType,
        rows: usize,
        cols: usize,
        read: impl Fn() -> Result<Vec<u8>, FormatError> + Send + Sync + 'static,
    ) -> Self {
        LoraMatrix {
            name: name.into(),
            dtype,
            rows,
            cols,
            read: Box::new(read),
        }
    }

    /// # Errors
    /// The tensor has more than two dimensions.
    fn of(gguf: &Arc<Gguf>, info: &TensorInfo) -> Result<Self, EngineError> {
        if info.shape.iter().skip(2).any(|length| *length != 1) {
            return Err(EngineError::AdapterUnsupported {
                name: info.name.clone(),
                reason: format!("its shape {:?} is none of a matrix", info.shape),
            });
        }
        let (owner, tensor) = (Arc::clone(gguf), info.clone());
        let read = move || Ok(owner.data(&tensor).to_vec());
        Ok(Self::new(
            &info.name,
            info.dtype,
            info.rows(),
            info.cols(),
            read,
        ))
    }

    /// # Errors
    /// [`EngineError::AdapterShape`].
    fn require_shape(&self, rows: usize, cols: usize) -> Result<(), EngineError> {
        if (self.rows, self.cols) == (rows, cols) {
            return Ok(());
        }
        Err(EngineError::AdapterShape {
            name: self.name.clone(),
            found: (self.rows, self.cols),
            expected: (rows, cols),
        })
    }
}

impl fmt::Debug for LoraMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoraMatrix")
            .field("name", &self.name)
            .field("dtype", &self.dtype)
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .finish_non_exhaustive()
    }
}

/// An adapter of an engine. No two adapters have the same, in one engine or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(u64);

/// An adapter at work, and how strongly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterUse {
    /// The adapter.
    pub adapter: AdapterId,
    /// Factor on what it adds; 1: as it was trained.
    pub scale: f32,
}

impl Engine {
    /// Reads an adapter's numbers and binds it to the model. Sequences use it from then on if they are created with it
    /// ([`Engine::create_adapted_sequence`]); no other sequence is computed otherwise or more slowly.
    ///
    /// Its output head may be changed, too, also where that is the embedding: then only the head changes.
    ///
    /// # Errors
    /// [`EngineError::NoLogits`] for a model that does not write, [`EngineError::AdapterArchitecture`], what
    /// [`LoraAdapter::check`] gives, [`EngineError::AdapterUnknownTensor`] and [`EngineError::AdapterShape`] for an adapter of
    /// another model, [`EngineError::AdapterUnsupported`] for tensors that adapters cannot change here,
    /// [`EngineError::InvalidTensorValue`] for numbers that are not finite, and what reading the file gives. The engine is
    /// as before then.
    pub fn add_adapter(&mut self, adapter: &LoraAdapter) -> Result<AdapterId, EngineError> {
        if !self.spec.can_generate() {
            return Err(EngineError::NoLogits {
                architecture: self.spec.architecture.clone(),
            });
        }
        let bound = bind::bind(&self.spec, &self.pool, adapter)?;
        Ok(self.adapters.insert(bound, self.buffers.max_tokens()))
    }

    /// Forgets an adapter.
    ///
    /// # Errors
    /// [`EngineError::UnknownAdapter`], or [`EngineError::AdapterInUse`] while sequences have it.
    pub fn remove_adapter(&mut self, id: AdapterId) -> Result<(), EngineError> {
        self.adapters.require(id)?;
        match self.cache.sequences_with(id) {
            0 => self.adapters.remove(id),
            sequences => Err(EngineError::AdapterInUse { sequences }),
        }
    }

    /// Bytes of memory of the adapters.
    pub fn adapter_bytes(&self) -> u64 {
        self.adapters.bytes()
    }
}
