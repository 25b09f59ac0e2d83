//! Adapters as PEFT saves them: `adapter_config.json` beside `adapter_model.safetensors`.
//!
//! [`PeftAdapter::open`] reads and checks both as far as no model is needed; [`PeftAdapter::pairs`] names the matrices as GGUF
//! does and gives them the row order of its families. The numbers are read one matrix at a time, when somebody asks for them.

mod config;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use dunlin_format::{DType, FormatError, SafeTensor, SafeTensors};

use crate::{
    ConvertError, families,
    family::{Change, Tensor},
    folder::read_json,
    plan::{own_name, split_layer},
    recipe::halves_to_pairs,
};
use config::PeftConfig;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// What PEFT puts before the name of every module.
const PREFIX: &str = "base_model.model.";
const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";

/// A LoRA adapter as PEFT saves it.
#[derive(Debug)]
pub struct PeftAdapter {
    weights: Arc<SafeTensors>,
    modules: Vec<Module>,
}

/// A linear layer that the adapter changes.
#[derive(Debug)]
struct Module {
    /// Its name in the model: `model.layers.0.self_attn.q_proj`.
    name: String,
    a: SafeTensor,
    b: SafeTensor,
    scale: f32,
}

/// Heads of a layer's attention, by which rows of queries and keys are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionHeads {
    /// Heads of queries.
    pub queries: usize,
    /// Heads of keys.
    pub keys: usize,
    /// Length of a head.
    pub width: usize,
}

/// What the adapter adds to one matrix `[rows, cols]`: `scale * b a`.
#[derive(Debug)]
pub struct PeftPair {
    /// The matrix as GGUF names it: `blk.0.attn_q.weight`.
    pub tensor: String,
    /// `[rank, cols]`
    pub a: PeftMatrix,
    /// `[rows, rank]`
    pub b: PeftMatrix,
    /// `alpha / rank`, or what the adapter's configuration makes of it.
    pub scale: f32,
}

/// One matrix of a pair, in the file.
pub struct PeftMatrix {
    weights: Arc<SafeTensors>,
    tensor: SafeTensor,
    dtype: DType,
    rows: usize,
    cols: usize,
    /// Where each row stands in the file, where they stand in another order.
    order: Option<Vec<u32>>,
}

impl PeftAdapter {
    /// Opens the adapter in a folder, or the one whose `adapter_model.safetensors` this is.
    ///
    /// # Errors
    /// [`ConvertError::NotAnAdapter`] where a file is missing or is of another kind, [`ConvertError::AdapterUnsupported`] for
    /// adapters that change more than linear layers by pairs of matrices (DoRA, biases, whole modules, embeddings) or that
    /// go with a changed base model, [`ConvertError::AdapterTensor`] for matrices without their other half or of another
    /// rank than the configuration says, and others for files that are damaged.
    pub fn open(path: &Path) -> Result<Self, ConvertError> {
        let (config, weights) = files(path)?;
        let config = PeftConfig::read(&config, &read_json(&config)?)?;
        let weights = SafeTensors::open(&weights)?;
        let mut modules = Vec::new();
        for tensor in weights.tensors() {
            let name = tensor.name.strip_prefix(PREFIX).unwrap_or(&tensor.name);
            let (module, other) = match (name.strip_suffix(A), name.strip_suffix(B)) {
                (Some(module), _) => (module, tensor.name.replace(A, B)),
                (_, Some(module)) => (module, tensor.name.replace(B, A)),
                _ => return Err(unsupported_tensor(&tensor.name)),
            };
            let Some(other) = weights.tensor(&other) else {
                return Err(ConvertError::AdapterTensor {
                    tensor: tensor.name.clone(),
                    reason: format!("is there and {other} is not"),
                });
            };
            if name.ends_with(A) {
                modules.push(Module::new(&config, module, tensor, other)?);
            }
        }
        if modules.is_empty() {
            return Err(not_an_adapter(path, "it has no pairs of matrices"));
        }
        Ok(PeftAdapter {
            weights: Arc::new(weights),
            modules,
        })
    }

    /// Number of linear layers that it changes.
    #[must_use]
    pub fn modules(&self) -> usize {
        self.modules.len()
    }

    /// The pairs by the names and in the order of rows that a GGUF file of this architecture has. `heads` tells those of a
    /// layer, where it attends.
    ///
    /// # Errors
    /// [`ConvertError::AdapterUnsupported`] for an architecture or a module that has no counterpart.
    pub fn pairs(
        &self,
        architecture: &str,
        heads: &dyn Fn(usize) -> Option<AttentionHeads>,
    ) -> Result<Vec<PeftPair>, ConvertError> {
        let families: Vec<_> = families::of_gguf(architecture).collect();
        let find = |pattern: &str| {
            let mut tensors = families.iter().flat_map(|family| family.tensors());
            tensors.find(|tensor| tensor.from == pattern && !tensor.exact)
        };
        let pairs = self.modules.iter().map(|module| {
            let (pattern, layer) = split_layer(&own_name(&module.name));
            // A tied head is no tensor of its own, and can be changed all the same.
            let (to, change) = match (pattern.as_str(), find(&pattern)) {
                ("lm_head", _) => ("output", Change::Keep),
                (_, Some(Tensor { to, change, .. })) => (*to, *change),
                (_, None) => {
                    return Err(ConvertError::AdapterUnsupported {
                        name: module.name.clone(),
                        reason: format!("models of architecture {architecture} have no such layer"),
                    });
                }
            };
            let layer = layer.unwrap_or(0);
            let order = match (change, heads(layer)) {
                // A layer that the model does not have is found out by its name.
                (Change::Keep, _) | (Change::PairQueryRows | Change::PairKeyRows, None) => None,
                (Change::PairQueryRows, Some(heads)) => row_order(heads.queries, heads.width),
                (Change::PairKeyRows, Some(heads)) => row_order(heads.keys, heads.width),
                _ => {
                    return Err(ConvertError::AdapterUnsupported {
                        name: module.name.clone(),
                        reason: format!("architecture {architecture} orders its rows otherwise"),
                    });
                }
            };
            Ok(PeftPair {
                tensor: format!("{}.weight", to.replace("{}", &layer.to_string())),
                a: PeftMatrix::new(&self.weights, &module.a, None)?,
                b: PeftMatrix::new(&self.weights, &module.b, order)?,
                scale: module.scale,
            })
        });
        pairs.collect()
    }
}

/// The configuration and the weights.
fn files(path: &Path) -> Result<(PathBuf, PathBuf), ConvertError> {
    let (folder, weights) = match path.is_dir() {
        true => (path, path.join(WEIGHTS)),
        false => (path.parent().unwrap_or(Path::new("")), path.to_owned()),
    };
    let config = folder.join(CONFIG);
    if !config.is_file() {
        let reason = format!("{CONFIG} is not there");
        return Err(not_an_adapter(folder, &reason));
    }
    if !weights.is_file() {
        let reason = format!("{WEIGHTS} is not there (weights as adapter_model.bin are not read)");
        return Err(not_an_adapter(folder, &reason));
    }
    Ok((config, weights))
}

fn not_an_adapter(path: &Path, reason: &str) -> ConvertError {
    ConvertError::NotAnAdapter {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

/// What a tensor that is none of a pair is.
fn unsupported_tensor(name: &str) -> ConvertError {
    let reason = if name.contains(".lora_magnitude_vector") {
        "it is the magnitude of a DoRA adapter"
    } else if name.contains(".lora_embedding_") {
        "adapters of embeddings are not computed"
    } else if name.contains(".base_layer.") || name.ends_with("embed_tokens.weight") {
        "it is a weight of the model itself (where that was not trained, save the adapter with save_embedding_layers=False)"
    } else if name.ends_with(".bias") {
        "an adapter's biases are not computed"
    } else {
        "it is no half of a low-rank pair (modules that were trained whole are not taken over)"
    };
    ConvertError::AdapterUnsupported {
        name: name.to_owned(),
        reason: reason.to_owned(),
    }
}

impl Module {
    fn new(
        config: &PeftConfig,
        name: &str,
        a: &SafeTensor,
        b: &SafeTensor,
    ) -> Result<Self, ConvertError> {
        let rank = a.shape.first().copied().unwrap_or(0);
        let wrong = |tensor: &SafeTensor, reason: String| ConvertError::AdapterTensor {
            tensor: tensor.name.clone(),
            reason,
        };
        for tensor in [a, b] {
            if tensor.shape.len() != 2 {
                let reason = format!("has the shape {:?}, not one of a matrix", tensor.shape);
                return Err(wrong(tensor, reason));
            }
        }
        if rank == 0 {
            return Err(wrong(a, "has rank 0, 1 at least is needed".to_owned()));
        }
        if b.shape[1] != rank {
            let reason = format!(
                "has {} columns, and its other half has rank {rank}",
                b.shape[1]
            );
            return Err(wrong(b, reason));
        }
        let declared = config.rank(name);
        if declared != rank {
            let reason = format!("has rank {rank}, and {CONFIG} says {declared}");
            return Err(wrong(a, reason));
        }
        Ok(Module {
            name: name.to_owned(),
            a: a.clone(),
            b: b.clone(),
            scale: config.scale(name, rank),
        })
    }
}

/// Rows of heads as families with rotation of neighbours have them. Matrices of other sizes are found out by their shape.
fn row_order(heads: usize, width: usize) -> Option<Vec<u32>> {
    let (heads, width) = (u32::try_from(heads).ok()?, u32::try_from(width).ok()?);
    Some(halves_to_pairs(heads, width))
}

impl PeftMatrix {
    fn new(
        weights: &Arc<SafeTensors>,
        tensor: &SafeTensor,
        order: Option<Vec<u32>>,
    ) -> Result<Self, ConvertError> {
        let unsupported = || ConvertError::UnsupportedType {
            tensor: tensor.name.clone(),
            dtype: tensor.dtype_name.clone(),
        };
        let is_float = |dtype: &DType| matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
        let dtype = tensor.dtype.filter(is_float).ok_or_else(unsupported)?;
        let length = |at: usize| usize::try_from(tensor.shape[at]).unwrap_or(usize::MAX);
        let (rows, cols) = (length(0), length(1));
        Ok(PeftMatrix {
            weights: Arc::clone(weights),
            tensor: tensor.clone(),
            dtype,
            rows,
            cols,
            order: order.filter(|order| order.len() == rows),
        })
    }

    /// Its name in the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.tensor.name
    }

    /// Type of its numbers.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Reads its numbers, rows one after the other.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn read(&self) -> Result<Vec<u8>, FormatError> {
        let len = usize::try_from(self.tensor.byte_len()).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        self.weights.read(&self.tensor, 0, &mut bytes)?;
        let Some(order) = &self.order else {
            return Ok(bytes);
        };
        let row_bytes = bytes.len() / self.rows;
        let row = |row: &u32| &bytes[*row as usize * row_bytes..][..row_bytes];
        Ok(order.iter().flat_map(row).copied().collect())
    }
}

impl fmt::Debug for PeftMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeftMatrix")
            .field("name", &self.tensor.name)
            .field("dtype", &self.dtype)
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .finish_non_exhaustive()
    }
}
