//! The decoder families, a row each, and how a row and a file's metadata become a [`ModelSpec`].

use std::collections::HashMap;

use dunlin_format::{Gguf, Metadata, TensorInfo};

use super::read::{Reader, limit};
use super::{Activation, LayerSpec, ModelSpec, Norm, RopeKind, RopeSpec, names};
use crate::EngineError;

/// What a family fixes by its name and does not write into its files.
struct Family {
    architecture: &'static str,
    rope: RopeKind,
    activation: Activation,
    windows: Windows,
    /// The files must hold biases for queries, keys and values; other families have them where the file has them.
    qkv_bias: bool,
    qk_norm: bool,
    post_norms: bool,
    scaled_embedding: bool,
    /// `rope_freqs.weight` is honoured where the file has it.
    rope_factors: bool,
}

/// Which layers `attention.sliding_window` is for.
enum Windows {
    /// The family knows no window.
    None,
    /// All layers.
    All,
    /// Local and global layers take turns: every `period`-th layer is global. Local layers rotate with a base of their
    /// own and without position scaling.
    Alternating { period: u32, local_base: f32 },
}

const LLAMA: Family = Family {
    architecture: "llama",
    rope: RopeKind::Interleaved,
    activation: Activation::Silu,
    windows: Windows::All,
    qkv_bias: false,
    qk_norm: false,
    post_norms: false,
    scaled_embedding: false,
    rope_factors: true,
};

const QWEN2: Family = Family {
    architecture: "qwen2",
    rope: RopeKind::Neox,
    windows: Windows::None,
    qkv_bias: true,
    rope_factors: false,
    ..LLAMA
};

const QWEN3: Family = Family {
    architecture: "qwen3",
    qkv_bias: false,
    qk_norm: true,
    ..QWEN2
};

const GEMMA3: Family = Family {
    architecture: "gemma3",
    rope: RopeKind::Neox,
    activation: Activation::GeluTanh,
    windows: Windows::Alternating {
        period: 6,
        local_base: 10_000.0,
    },
    qkv_bias: false,
    qk_norm: true,
    post_norms: true,
    scaled_embedding: true,
    rope_factors: false,
};

const FAMILIES: [&Family; 4] = [&LLAMA, &QWEN2, &QWEN3, &GEMMA3];

/// The architectures that a [`ModelSpec`] can be read for, as they stand in `general.architecture`.
pub fn supported_architectures() -> impl ExactSizeIterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.architecture)
}

impl ModelSpec {
    /// Reads the description of a model from its file, without touching the weights.
    ///
    /// # Errors
    ///
    /// As [`from_metadata`](Self::from_metadata).
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, EngineError> {
        Self::from_metadata(gguf.metadata(), gguf.tensors())
    }

    /// Reads the description of a model from its metadata and tensor table.
    ///
    /// The table decides what the metadata leave open: the vocabulary's size, a tied head, biases, rope factors. Whether
    /// all tensors are there in the right shape is asked of [`check_tensors`](Self::check_tensors).
    ///
    /// # Errors
    ///
    /// [`EngineError::UnknownArchitecture`]; [`EngineError::Format`] for a key that is missing or has another type;
    /// [`EngineError::InvalidMetadata`] for sizes that no model has or that contradict each other;
    /// [`EngineError::UnsupportedFeature`] for what would silently change the answer (YaRN, experts, ...).
    pub fn from_metadata(metadata: &Metadata, tensors: &[TensorInfo]) -> Result<Self, EngineError> {
        let architecture = metadata.require_str("general.architecture")?;
        let Some(family) = FAMILIES
            .iter()
            .find(|family| family.architecture == architecture)
        else {
            return Err(EngineError::UnknownArchitecture {
                found: architecture.to_owned(),
                supported: supported_architectures().collect(),
            });
        };
        let table: HashMap<&str, &TensorInfo> = tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor))
            .collect();
        let reader = Reader {
            metadata,
            architecture,
        };
        refuse_what_is_not_computed(&reader, family)?;

        let hidden_size = reader.size("embedding_length", limit::HIDDEN)?;
        let eps = reader.require_positive("attention.layer_norm_rms_epsilon")?;
        Ok(ModelSpec {
            architecture: architecture.to_owned(),
            vocab_size: vocab_size(&table)?,
            hidden_size,
            context_length: reader.size("context_length", limit::CONTEXT)?,
            embedding_scale: if family.scaled_embedding {
                (hidden_size as f32).sqrt()
            } else {
                1.0
            },
            norm: Norm::Rms { eps },
            activation: family.activation,
            attention_softcap: reader.positive_or_off("attn_logit_softcapping")?,
            final_logit_softcap: reader.positive_or_off("final_logit_softcapping")?,
            tied_head: !table.contains_key(names::OUTPUT),
            layers: layers(&reader, family, &table, hidden_size)?,
        })
    }
}

/// A key that changes the computation and is not computed must not be passed over.
fn refuse_what_is_not_computed(reader: &Reader<'_>, family: &Family) -> Result<(), EngineError> {
    let refuse = |what: &str, suffix: &str| {
        Err(EngineError::UnsupportedFeature {
            feature: format!("{what} ({})", reader.key(suffix)),
        })
    };
    if reader
        .metadata
        .u32(&reader.key("expert_count"))?
        .unwrap_or(0)
        > 0
    {
        return refuse("a mixture of experts", "expert_count");
    }
    if reader.metadata.bool(&reader.key("attention.causal"))? == Some(false) {
        return refuse("attention in both directions", "attention.causal");
    }
    let window = reader
        .metadata
        .u32(&reader.key("attention.sliding_window"))?
        .unwrap_or(0);
    if matches!(family.windows, Windows::None) && window > 0 {
        return refuse(
            "a sliding window in this family",
            "attention.sliding_window",
        );
    }
    match reader.metadata.str(&reader.key("rope.scaling.type"))? {
        None | Some("none" | "linear") => Ok(()),
        Some(other) => refuse(
            &format!("rope scaling of type {other:?}"),
            "rope.scaling.type",
        ),
    }
}

fn vocab_size(table: &HashMap<&str, &TensorInfo>) -> Result<usize, EngineError> {
    let name = names::TOKEN_EMBEDDING;
    let Some(embedding) = table.get(name) else {
        return Err(EngineError::MissingTensor {
            name: name.to_owned(),
        });
    };
    match embedding.shape.get(1).copied() {
        Some(rows @ 1..=limit::VOCAB) => Ok(rows as usize),
        _ => Err(EngineError::InvalidMetadata {
            key: format!("shape of {name}"),
            found: format!("{:?}", embedding.shape),
            expected: format!(
                "two dimensions, of which the second is from 1 to {}",
                limit::VOCAB
            ),
        }),
    }
}

fn layers(
    reader: &Reader<'_>,
    family: &Family,
    table: &HashMap<&str, &TensorInfo>,
    hidden_size: usize,
) -> Result<Vec<LayerSpec>, EngineError> {
    let layer_count = reader.size("block_count", limit::LAYERS)?;
    let head_count =
        reader.require_size_per_layer("attention.head_count", limit::HEADS, layer_count)?;
    let head_count_kv = reader
        .size_per_layer("attention.head_count_kv", limit::HEADS, layer_count)?
        .unwrap_or_else(|| head_count.clone());
    let feed_forward =
        reader.require_size_per_layer("feed_forward_length", limit::FEED_FORWARD, layer_count)?;
    let key_length = reader.optional_size("attention.key_length", limit::HEAD_DIM)?;
    let value_length = reader.optional_size("attention.value_length", limit::HEAD_DIM)?;
    let attention_scale = reader.positive_or_off("attention.scale")?;
    let windows = sliding_windows(reader, family, layer_count)?;
    let ropes = Ropes::read(reader, family, table.contains_key(names::ROPE_FREQS))?;

    let mut layers = Vec::with_capacity(layer_count);
    for index in 0..layer_count {
        let heads = head_count[index];
        if !heads.is_multiple_of(head_count_kv[index]) {
            return Err(EngineError::InvalidMetadata {
                key: reader.key("attention.head_count_kv"),
                found: head_count_kv[index].to_string(),
                expected: format!("a divisor of the {heads} query heads of layer {index}"),
            });
        }
        let head_dim_k = head_dim(
            reader,
            "attention.key_length",
            key_length,
            hidden_size,
            heads,
        )?;
        layers.push(LayerSpec {
            head_count: heads,
            head_count_kv: head_count_kv[index],
            head_dim_k,
            head_dim_v: head_dim(
                reader,
                "attention.value_length",
                value_length,
                hidden_size,
                heads,
            )?,
            feed_forward_length: feed_forward[index],
            rope: ropes.of_layer(reader, windows[index].is_some(), head_dim_k)?,
            sliding_window: windows[index],
            attention_scale: attention_scale.unwrap_or_else(|| {
                family.attention_scale(head_dim_k, layer_count, hidden_size, heads)
            }),
            qkv_bias: family.qkv_bias
                || table.contains_key(names::layer(index, names::ATTN_Q_BIAS).as_str()),
            qk_norm: family.qk_norm,
            post_norms: family.post_norms,
        });
    }
    Ok(layers)
}

fn head_dim(
    reader: &Reader<'_>,
    suffix: &str,
    length: Option<usize>,
    hidden_size: usize,
    heads: usize,
) -> Result<usize, EngineError> {
    match length {
        Some(length) => Ok(length),
        None if hidden_size.is_multiple_of(heads)
            && hidden_size / heads <= limit::HEAD_DIM as usize =>
        {
            Ok(hidden_size / heads)
        }
        None => Err(EngineError::InvalidMetadata {
            key: reader.key(suffix),
            found: "absent".to_owned(),
            expected: format!(
                "a number from 1 to {}, because a hidden size of {hidden_size} does not split into {heads} heads",
                limit::HEAD_DIM
            ),
        }),
    }
}

fn sliding_windows(
    reader: &Reader<'_>,
    family: &Family,
    layer_count: usize,
) -> Result<Vec<Option<u32>>, EngineError> {
    // Zero is how some converters write "no window".
    let window = reader
        .metadata
        .u32(&reader.key("attention.sliding_window"))?
        .filter(|window| *window > 0);
    Ok(match family.windows {
        Windows::None => vec![None; layer_count],
        Windows::All => vec![window; layer_count],
        Windows::Alternating { period, .. } => {
            let local = reader.local_layers(period, layer_count)?;
            local
                .into_iter()
                .map(|local| window.filter(|_| local))
                .collect()
        }
    })
}

/// The rope keys of a file: one rotation for layers that see everything, one for layers with a window.
struct Ropes {
    kind: RopeKind,
    dims: Option<usize>,
    global: (f32, f32),
    local: (f32, f32),
    has_factors: bool,
}

impl Ropes {
    fn read(reader: &Reader<'_>, family: &Family, has_factors: bool) -> Result<Self, EngineError> {
        let base = reader.positive("rope.freq_base")?.unwrap_or(10_000.0);
        let factor = match reader.metadata.str(&reader.key("rope.scaling.type"))? {
            Some("none") => None,
            // Files of 2023 have the second key.
            _ => match reader.positive_or_off("rope.scaling.factor")? {
                Some(factor) => Some(factor),
                None => reader.positive_or_off("rope.scale_linear")?,
            },
        };
        let global = (base, 1.0 / factor.unwrap_or(1.0));
        let local = match family.windows {
            Windows::Alternating { local_base, .. } => (
                reader.positive("rope.freq_base_swa")?.unwrap_or(local_base),
                1.0,
            ),
            Windows::All | Windows::None => global,
        };
        Ok(Ropes {
            kind: family.rope,
            dims: reader.optional_size("rope.dimension_count", limit::HEAD_DIM)?,
            global,
            local,
            has_factors: family.rope_factors && has_factors,
        })
    }

    fn of_layer(
        &self,
        reader: &Reader<'_>,
        local: bool,
        head_dim: usize,
    ) -> Result<RopeSpec, EngineError> {
        let dims = self.dims.unwrap_or(head_dim);
        if dims > head_dim || !dims.is_multiple_of(2) {
            return Err(EngineError::InvalidMetadata {
                key: reader.key("rope.dimension_count"),
                found: dims.to_string(),
                expected: format!("an even number of at most the head's length, {head_dim}"),
            });
        }
        let (base, scale) = if local { self.local } else { self.global };
        Ok(RopeSpec {
            kind: self.kind,
            dims,
            base,
            scale,
            has_factors: self.has_factors,
        })
    }
}

impl Family {
    /// `1 / sqrt(head_dim)`, but for Gemma 3 27B, which was trained with `query_pre_attn_scalar = hidden / heads` and
    /// whose files do not say so; its 62 layers are how it is known.
    fn attention_scale(
        &self,
        head_dim: usize,
        layer_count: usize,
        hidden_size: usize,
        heads: usize,
    ) -> f32 {
        let scalar = match (self.architecture, layer_count) {
            ("gemma3", 62) => hidden_size / heads,
            _ => head_dim,
        };
        1.0 / (scalar as f32).sqrt()
    }
}
