//! How a family's row and a file's metadata become a [`ModelSpec`].

use std::collections::HashMap;

use dunlin_format::{Gguf, Metadata, TensorInfo};

use super::families::{AttentionScale, FAMILIES, Family, Mixers, Rope, Windows};
use super::read::{Reader, limit};
use super::{
    Activation, AttentionSpec, Classifier, ClassifierActivation, DeltaNetSpec, FeedForward, Head,
    LayerSpec, Mixer, ModelSpec, Norm, Norms, Pooling, RopeFactors, RopeKind, RopeSpec,
    ShortConvSpec, Temperature, Yarn, names, supported_architectures,
};
use crate::EngineError;

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
    /// The table decides what the metadata leave open: the vocabulary's size, a tied head, biases, fused matrices, rope
    /// factors. Whether all tensors are there in the right shape is asked of [`check_tensors`](Self::check_tensors).
    ///
    /// # Errors
    ///
    /// [`EngineError::UnknownArchitecture`]; [`EngineError::Format`] for a key that is missing or has another type;
    /// [`EngineError::InvalidMetadata`] for sizes that no model has or that contradict each other;
    /// [`EngineError::UnsupportedFeature`] for what would silently change the answer (experts, unknown rope scaling, ...).
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
        let file = File {
            reader: Reader {
                metadata,
                architecture,
            },
            family,
            table: tensors
                .iter()
                .map(|tensor| (tensor.name.as_str(), tensor))
                .collect(),
        };
        file.refuse_what_is_not_computed()?;
        file.model()
    }
}

/// What a description is read from.
struct File<'a> {
    reader: Reader<'a>,
    family: &'a Family,
    table: HashMap<&'a str, &'a TensorInfo>,
}

impl File<'_> {
    fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    fn model(&self) -> Result<ModelSpec, EngineError> {
        let (reader, family) = (&self.reader, self.family);
        let hidden_size = reader.size("embedding_length", limit::HIDDEN)?;
        let positions = match family.rope {
            Rope::None => Some(self.rows(names::POSITION_EMBEDDING)?),
            Rope::All(_) | Rope::AllBut(..) => None,
        };
        let context_length = reader.size("context_length", limit::CONTEXT)?;
        let (_, logit_cap) = family.softcaps.unzip();
        let prediction_blocks = reader.count("nextn_predict_layers")?;
        let multiplier = |suffix| match family.multipliers {
            true => Ok::<_, EngineError>(reader.positive(suffix)?.unwrap_or(1.0)),
            false => Ok(1.0),
        };
        Ok(ModelSpec {
            architecture: reader.architecture.to_owned(),
            vocab_size: self.rows(names::TOKEN_EMBEDDING)?,
            hidden_size,
            context_length: context_length.min(positions.unwrap_or(usize::MAX)),
            causal: family.causal,
            embedding_scale: match family.scaled_embedding {
                true => (hidden_size as f32).sqrt(),
                false => multiplier("embedding_scale")?,
            },
            position_embeddings: positions,
            token_types: match self.has(names::TOKEN_TYPES) {
                true => self.rows(names::TOKEN_TYPES)?,
                false => 0,
            },
            embedding_norm: family.output_norm != Some(names::TOKEN_EMBEDDING_NORM)
                && self.has(names::TOKEN_EMBEDDING_NORM),
            per_layer_input: match family.per_layer_embeddings {
                true => reader.size_or_off("embedding_length_per_layer_input", limit::HIDDEN)?,
                false => None,
            },
            norm: self.norm()?,
            residual_scale: multiplier("residual_scale")?,
            layers: self.layers(hidden_size, prediction_blocks)?,
            prediction_blocks,
            output_norm: family.output_norm,
            head: match (family.causal, self.has(names::OUTPUT)) {
                (false, _) => Head::None,
                (true, true) => Head::Own,
                (true, false) => Head::Tied,
            },
            logit_scale: 1.0 / multiplier("logit_scale")?,
            final_logit_softcap: reader.cap("final_logit_softcapping", logit_cap)?,
            pooling: self.pooling("pooling_type")?,
            dense: self.dense()?,
            classifier: self.classifier()?,
        })
    }

    /// A key that changes the computation and is not computed must not be passed over.
    fn refuse_what_is_not_computed(&self) -> Result<(), EngineError> {
        let (reader, family) = (&self.reader, self.family);
        let refuse = |what: &str, suffix: &str| {
            Err(EngineError::UnsupportedFeature {
                feature: format!("{what} ({})", reader.key(suffix)),
            })
        };
        if reader.count("expert_count")? > 0 {
            return refuse("a mixture of experts", "expert_count");
        }
        let causal = reader.metadata.bool(&reader.key("attention.causal"))?;
        if causal.is_some_and(|causal| causal != family.causal) {
            return refuse(
                "attention in another direction than the family's",
                "attention.causal",
            );
        }
        let window = reader.count("attention.sliding_window")?;
        if matches!(family.windows, Windows::None) && window > 0 {
            return refuse(
                "a sliding window in this family",
                "attention.sliding_window",
            );
        }
        let activation = reader.metadata.str(&reader.key("hidden_activation"))?;
        let known = match family.activation {
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu_pytorch_tanh",
            Activation::Gelu => "gelu",
        };
        if activation.is_some_and(|activation| activation != known) {
            return refuse("another activation than the family's", "hidden_activation");
        }
        match reader.metadata.str(&reader.key("rope.scaling.type"))? {
            Some("longrope") if !self.has(names::ROPE_FACTORS_LONG) => {
                Err(EngineError::MissingTensor {
                    name: names::ROPE_FACTORS_LONG.to_owned(),
                })
            }
            None | Some("none" | "linear" | "yarn" | "longrope") => Ok(()),
            Some(other) => refuse(
                &format!("rope scaling of type {other:?}"),
                "rope.scaling.type",
            ),
        }
    }

    /// Rows of a matrix that must be there, as many as a vocabulary has at most.
    fn rows(&self, name: &str) -> Result<usize, EngineError> {
        let Some(tensor) = self.table.get(name) else {
            return Err(EngineError::MissingTensor {
                name: name.to_owned(),
            });
        };
        // A single row's dimension may be left out, but a vocabulary is never a single row.
        let single = (name != names::TOKEN_EMBEDDING).then_some(1);
        match tensor.shape.get(1).copied().or(single).unwrap_or(0) {
            rows @ 1..=limit::VOCAB => Ok(rows as usize),
            _ => Err(EngineError::InvalidMetadata {
                key: format!("shape of {name}"),
                found: format!("{:?}", tensor.shape),
                expected: format!(
                    "two dimensions, of which the second is from 1 to {}",
                    limit::VOCAB
                ),
            }),
        }
    }

    fn norm(&self) -> Result<Norm, EngineError> {
        if !self.family.layer_norm {
            let eps = self
                .reader
                .require_positive("attention.layer_norm_rms_epsilon")?;
            return Ok(Norm::Rms { eps });
        }
        Ok(Norm::Layer {
            eps: self
                .reader
                .require_positive("attention.layer_norm_epsilon")?,
            bias: self.has(&names::bias(names::TOKEN_EMBEDDING_NORM)),
        })
    }

    fn pooling(&self, suffix: &str) -> Result<Option<Pooling>, EngineError> {
        let key = self.reader.key(suffix);
        Ok(match self.reader.metadata.u32(&key)? {
            None | Some(0) => None,
            Some(1) => Some(Pooling::Mean),
            Some(2) => Some(Pooling::Cls),
            Some(3) => Some(Pooling::Last),
            Some(4) => Some(Pooling::Rank),
            Some(other) => {
                return Err(EngineError::InvalidMetadata {
                    key,
                    found: other.to_string(),
                    expected: "0 (none), 1 (mean), 2 (cls), 3 (last) or 4 (rank)".to_owned(),
                });
            }
        })
    }

    fn dense(&self) -> Result<Vec<(usize, usize)>, EngineError> {
        let mut dense = Vec::new();
        for name in names::DENSE {
            if let Some(tensor) = self.table.get(name) {
                let columns = tensor.cols();
                if !(1..=limit::HIDDEN as usize).contains(&columns) {
                    return Err(EngineError::InvalidMetadata {
                        key: format!("shape of {name}"),
                        found: format!("{:?}", tensor.shape),
                        expected: format!("1 to {} columns", limit::HIDDEN),
                    });
                }
                dense.push((columns, self.rows(name)?));
            }
        }
        Ok(dense)
    }

    fn classifier(&self) -> Result<Option<Classifier>, EngineError> {
        if !self.has(names::CLASSIFIER) && !self.has(names::CLASSIFIER_OUTPUT) {
            return Ok(None);
        }
        let modern = self.family.architecture == "modern-bert";
        let labels = self
            .reader
            .metadata
            .strings(&self.reader.key("classifier.output_labels"))?;
        let default = match (modern, self.family.causal) {
            (true, _) => Pooling::Mean,
            (false, true) => Pooling::Last,
            (false, false) => Pooling::Cls,
        };
        Ok(Some(Classifier {
            pooling: self.pooling("classifier.pooling_type")?.unwrap_or(default),
            dense: self.has(names::CLASSIFIER).then_some(match modern {
                true => ClassifierActivation::Gelu,
                false => ClassifierActivation::Tanh,
            }),
            dense_bias: self.has(&names::bias(names::CLASSIFIER)),
            norm: self.has(names::CLASSIFIER_NORM),
            labels: self.rows(names::CLASSIFIER_OUTPUT)?,
            output_bias: self.has(&names::bias(names::CLASSIFIER_OUTPUT)),
            softmax: self.family.causal,
            label_names: labels
                .map(|labels| labels.iter().map(str::to_owned).collect())
                .unwrap_or_default(),
        }))
    }

    fn layers(
        &self,
        hidden_size: usize,
        prediction_blocks: usize,
    ) -> Result<Vec<LayerSpec>, EngineError> {
        let (reader, family) = (&self.reader, self.family);
        let blocks = reader.size("block_count", limit::LAYERS)?;
        if prediction_blocks >= blocks {
            return Err(EngineError::InvalidMetadata {
                key: reader.key("nextn_predict_layers"),
                found: prediction_blocks.to_string(),
                expected: format!("fewer than the {blocks} blocks"),
            });
        }
        let heads = Heads::read(reader, family, hidden_size, blocks)?;
        let feed_forward =
            reader.require_size_per_layer("feed_forward_length", limit::FEED_FORWARD, blocks)?;
        let windows = self.sliding_windows(blocks)?;
        let ropes = Ropes::read(self)?;
        let recurrent = self.recurrent_layers(&heads, blocks)?;

        let count = blocks - prediction_blocks;
        let shared = match family.per_layer_embeddings {
            true => reader.count("attention.shared_kv_layers")?,
            false => 0,
        };
        let first_shared = count.saturating_sub(shared);
        let mut layers: Vec<LayerSpec> = Vec::with_capacity(count);
        for index in 0..count {
            let mixer = match (recurrent[index], &family.mixers) {
                (true, Mixers::DeltaNet) => Mixer::DeltaNet(self.delta_net()?),
                (true, Mixers::ShortConv) => Mixer::ShortConv(ShortConvSpec {
                    channels: hidden_size,
                    conv_taps: self.conv_taps("shortconv.l_cache")?,
                }),
                _ => {
                    let shares_kv_of = match index >= first_shared {
                        true => {
                            Some(self.kv_source(&layers[..first_shared], windows[index], index)?)
                        }
                        false => None,
                    };
                    let local = windows[index].is_some();
                    let attention = self.attention(index, &heads, &ropes, local)?;
                    Mixer::Attention(AttentionSpec {
                        sliding_window: windows[index],
                        shares_kv_of,
                        ..attention
                    })
                }
            };
            layers.push(LayerSpec {
                mixer,
                mixer_norms: self.norms(family.mixer_norms, index),
                feed_forward: FeedForward {
                    length: feed_forward[index],
                    gate: family.feed_forward,
                    activation: family.activation,
                    bias: self.has(&names::layer(index, &names::bias(names::FFN_UP))),
                },
                feed_forward_norms: family.feed_forward_norms,
                output_scale: family.per_layer_embeddings
                    && self.has(&names::layer(index, names::LAYER_OUTPUT_SCALE)),
            });
        }
        Ok(layers)
    }

    /// The first layer of an encoder has no norm of its own where the embedding has just been normalised.
    fn norms(&self, norms: Norms, index: usize) -> Norms {
        let missing = |name: &str| !self.has(&names::layer(index, name));
        match norms.before {
            Some(name) if index == 0 && !self.family.causal && missing(name) => Norms {
                before: None,
                ..norms
            },
            _ => norms,
        }
    }

    fn attention(
        &self,
        index: usize,
        heads: &Heads,
        ropes: &Ropes,
        local: bool,
    ) -> Result<AttentionSpec, EngineError> {
        let (reader, family) = (&self.reader, self.family);
        let (head_count, head_count_kv) = (heads.queries[index], heads.keys[index]);
        if head_count_kv == 0 || !head_count.is_multiple_of(head_count_kv) {
            return Err(EngineError::InvalidMetadata {
                key: reader.key("attention.head_count_kv"),
                found: head_count_kv.to_string(),
                expected: format!("a divisor of the {head_count} query heads of layer {index}"),
            });
        }
        let head_dim_k = heads.dim(
            reader,
            heads.key_length,
            heads.key_length_local,
            local,
            index,
        )?;
        let head_dim_v = heads.dim(
            reader,
            heads.value_length,
            heads.value_length_local,
            local,
            index,
        )?;
        let scale = match family.attention_scale {
            AttentionScale::One => 1.0,
            AttentionScale::HiddenOverHeads(layers) if layers == heads.queries.len() => {
                1.0 / ((heads.hidden_size / head_count) as f32).sqrt()
            }
            AttentionScale::HiddenOverHeads(_) | AttentionScale::HeadDim => {
                1.0 / (head_dim_k as f32).sqrt()
            }
        };
        let tensor = |name: &str| self.has(&names::layer(index, name));
        let fused_qkv = tensor(names::ATTN_QKV) && !tensor(names::ATTN_Q);
        let (score_cap, _) = family.softcaps.unzip();
        Ok(AttentionSpec {
            head_count,
            head_count_kv,
            head_dim_k,
            head_dim_v,
            rope: ropes.of_layer(reader, index, local, head_dim_k)?,
            sliding_window: None,
            scale: reader.positive_or_off("attention.scale")?.unwrap_or(scale),
            softcap: reader.cap("attn_logit_softcapping", score_cap)?,
            temperature: self.temperature()?,
            fused_qkv,
            qkv_bias: family.qkv_bias
                || tensor(&names::bias(match fused_qkv {
                    true => names::ATTN_QKV,
                    false => names::ATTN_Q,
                })),
            output_bias: tensor(&names::bias(names::ATTN_OUTPUT)),
            qk_norm: family.qk_norm,
            value_norm: family.per_layer_embeddings,
            output_gate: matches!(family.mixers, Mixers::DeltaNet),
            shares_kv_of: None,
        })
    }

    fn temperature(&self) -> Result<Option<Temperature>, EngineError> {
        let reader = &self.reader;
        let Some(scale) = reader.positive_or_off("attention.temperature_scale")? else {
            return Ok(None);
        };
        let length = reader.size("rope.scaling.original_context_length", limit::CONTEXT)?;
        Ok(Some(Temperature { scale, length }))
    }

    /// The layer whose keys and values a layer without any reads: the last one with its own that sees as far.
    fn kv_source(
        &self,
        own: &[LayerSpec],
        window: Option<u32>,
        index: usize,
    ) -> Result<usize, EngineError> {
        own.iter()
            .rposition(|layer| {
                let attention = layer.attention();
                attention.is_some_and(|attention| attention.sliding_window == window)
            })
            .ok_or_else(|| EngineError::InvalidMetadata {
                key: self.reader.key("attention.shared_kv_layers"),
                found: format!("layer {index} without keys and values"),
                expected: "an earlier layer with the same window that has them".to_owned(),
            })
    }

    fn recurrent_layers(&self, heads: &Heads, blocks: usize) -> Result<Vec<bool>, EngineError> {
        let reader = &self.reader;
        Ok(match self.family.mixers {
            Mixers::Attention => vec![false; blocks],
            Mixers::ShortConv => heads.keys.iter().map(|count| *count == 0).collect(),
            Mixers::DeltaNet => match reader.flags("attention.recurrent_layers", blocks)? {
                Some(flags) => flags,
                None => {
                    let interval =
                        reader.optional_size("full_attention_interval", limit::LAYERS)?;
                    let interval = interval.unwrap_or(4);
                    (0..blocks)
                        .map(|layer| !(layer + 1).is_multiple_of(interval))
                        .collect()
                }
            },
        })
    }

    fn delta_net(&self) -> Result<DeltaNetSpec, EngineError> {
        let reader = &self.reader;
        let key_heads = reader.size("ssm.group_count", limit::HEADS)?;
        let value_heads = reader.size("ssm.time_step_rank", limit::HEADS)?;
        let inner = reader.size("ssm.inner_size", limit::HIDDEN)?;
        if !value_heads.is_multiple_of(key_heads) || !inner.is_multiple_of(value_heads) {
            return Err(EngineError::InvalidMetadata {
                key: reader.key("ssm.time_step_rank"),
                found: value_heads.to_string(),
                expected: format!("a multiple of the {key_heads} key heads that divides {inner}"),
            });
        }
        Ok(DeltaNetSpec {
            key_heads,
            value_heads,
            head_dim_k: reader.size("ssm.state_size", limit::HEAD_DIM)?,
            head_dim_v: inner / value_heads,
            conv_taps: self.conv_taps("ssm.conv_kernel")?,
        })
    }

    fn conv_taps(&self, suffix: &str) -> Result<usize, EngineError> {
        self.reader.size(suffix, limit::CONV_TAPS)
    }

    fn sliding_windows(&self, blocks: usize) -> Result<Vec<Option<u32>>, EngineError> {
        let reader = &self.reader;
        // Zero is how some converters write "no window"; Gemma 2's first files left its 4096 out.
        let written = reader
            .metadata
            .u32(&reader.key("attention.sliding_window"))?;
        let window = match (written, self.family.architecture) {
            (None, "gemma2") => Some(4096),
            (written, _) => written.filter(|window| *window > 0),
        };
        Ok(match self.family.windows {
            Windows::None => vec![None; blocks],
            Windows::All => vec![window; blocks],
            Windows::Alternating {
                period,
                global_first,
                ..
            } => {
                let local = reader.local_layers(period, global_first, blocks)?;
                local
                    .into_iter()
                    .map(|local| window.filter(|_| local))
                    .collect()
            }
        })
    }
}

/// The keys about heads.
struct Heads {
    hidden_size: usize,
    queries: Vec<usize>,
    keys: Vec<usize>,
    key_length: Option<usize>,
    value_length: Option<usize>,
    key_length_local: Option<usize>,
    value_length_local: Option<usize>,
}

impl Heads {
    fn read(
        reader: &Reader<'_>,
        family: &Family,
        hidden_size: usize,
        blocks: usize,
    ) -> Result<Self, EngineError> {
        let queries =
            reader.require_size_per_layer("attention.head_count", limit::HEADS, blocks)?;
        let none_allowed = matches!(family.mixers, Mixers::ShortConv);
        let keys = reader.count_per_layer(
            "attention.head_count_kv",
            limit::HEADS,
            blocks,
            none_allowed,
        )?;
        let length = |suffix| reader.optional_size(suffix, limit::HEAD_DIM);
        Ok(Heads {
            hidden_size,
            keys: keys.unwrap_or_else(|| queries.clone()),
            queries,
            key_length: length("attention.key_length")?,
            value_length: length("attention.value_length")?,
            key_length_local: length("attention.key_length_swa")?,
            value_length_local: length("attention.value_length_swa")?,
        })
    }

    fn dim(
        &self,
        reader: &Reader<'_>,
        length: Option<usize>,
        local_length: Option<usize>,
        local: bool,
        index: usize,
    ) -> Result<usize, EngineError> {
        let (hidden, heads) = (self.hidden_size, self.queries[index]);
        match local_length.filter(|_| local).or(length) {
            Some(length) => Ok(length),
            None if hidden.is_multiple_of(heads) && hidden / heads <= limit::HEAD_DIM as usize => {
                Ok(hidden / heads)
            }
            None => Err(EngineError::InvalidMetadata {
                key: reader.key("attention.key_length"),
                found: "absent".to_owned(),
                expected: format!(
                    "a number from 1 to {}, because a hidden size of {hidden} does not split into {heads} heads",
                    limit::HEAD_DIM
                ),
            }),
        }
    }
}

/// The rope keys of a file: one rotation for layers that see everything, one for layers with a window.
struct Ropes {
    kind: RopeKind,
    /// Every so many layers one does not rotate.
    skip: Option<usize>,
    dims: Option<usize>,
    dims_local: Option<usize>,
    global: RopeSpec,
    local: RopeSpec,
}

impl Ropes {
    fn read(file: &File<'_>) -> Result<Self, EngineError> {
        let (reader, family) = (&file.reader, file.family);
        let (kind, skip) = match family.rope {
            Rope::All(kind) => (kind, None),
            Rope::AllBut(kind, period) => (kind, Some(period)),
            Rope::None => (RopeKind::Neox, Some(1)),
        };
        let scaling = reader.metadata.str(&reader.key("rope.scaling.type"))?;
        let factor = match scaling {
            Some("none") => None,
            // Files of 2023 have the second key.
            _ => match reader.positive_or_off("rope.scaling.factor")? {
                Some(factor) => Some(factor),
                None => reader.positive_or_off("rope.scale_linear")?,
            },
        };
        let factor = factor.unwrap_or(1.0);
        let factors = file.rope_factors()?;
        let by_length = matches!(factors, RopeFactors::ByLength { .. });
        let yarn = match scaling {
            Some("yarn") => Some(read_yarn(reader)?),
            _ => None,
        };
        let own_magnitude = reader.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let magnitude = match yarn {
            Some(_) => own_magnitude * yarn_magnitude(reader, factor)?,
            None => own_magnitude,
        };
        let global = RopeSpec {
            kind,
            dims: 0,
            base: reader.positive("rope.freq_base")?.unwrap_or(10_000.0),
            // The factor tensors of LongRoPE hold the whole scaling.
            scale: if by_length { 1.0 } else { 1.0 / factor },
            magnitude,
            factors,
            yarn,
        };
        let local = match family.windows {
            Windows::Alternating {
                local_base: Some(base),
                ..
            } => RopeSpec {
                base: reader.positive("rope.freq_base_swa")?.unwrap_or(base),
                scale: 1.0,
                magnitude: 1.0,
                factors: RopeFactors::None,
                yarn: None,
                ..global
            },
            _ => global.clone(),
        };
        Ok(Ropes {
            kind,
            skip,
            dims: reader.optional_size("rope.dimension_count", limit::HEAD_DIM)?,
            dims_local: reader.optional_size("rope.dimension_count_swa", limit::HEAD_DIM)?,
            global,
            local,
        })
    }

    fn of_layer(
        &self,
        reader: &Reader<'_>,
        index: usize,
        local: bool,
        head_dim: usize,
    ) -> Result<RopeSpec, EngineError> {
        if self
            .skip
            .is_some_and(|period| (index + 1).is_multiple_of(period))
        {
            return Ok(RopeSpec {
                kind: self.kind,
                dims: 0,
                base: 1.0,
                scale: 1.0,
                magnitude: 1.0,
                factors: RopeFactors::None,
                yarn: None,
            });
        }
        let dims = self
            .dims_local
            .filter(|_| local)
            .or(self.dims)
            .unwrap_or(head_dim);
        if dims > head_dim || !dims.is_multiple_of(2) {
            return Err(EngineError::InvalidMetadata {
                key: reader.key("rope.dimension_count"),
                found: dims.to_string(),
                expected: format!("an even number of at most the head's length, {head_dim}"),
            });
        }
        let rope = if local { &self.local } else { &self.global };
        Ok(RopeSpec {
            dims,
            ..rope.clone()
        })
    }
}

impl File<'_> {
    fn rope_factors(&self) -> Result<RopeFactors, EngineError> {
        if self.has(names::ROPE_FACTORS_LONG) {
            let suffix = "rope.scaling.original_context_length";
            let original_context = self.reader.size(suffix, limit::CONTEXT)?;
            return Ok(RopeFactors::ByLength { original_context });
        }
        Ok(match self.has(names::ROPE_FREQS) {
            true => RopeFactors::Fixed,
            false => RopeFactors::None,
        })
    }
}

fn read_yarn(reader: &Reader<'_>) -> Result<Yarn, EngineError> {
    Ok(Yarn {
        original_context: reader.size("rope.scaling.original_context_length", limit::CONTEXT)?,
        beta_fast: reader
            .positive("rope.scaling.yarn_beta_fast")?
            .unwrap_or(32.0),
        beta_slow: reader
            .positive("rope.scaling.yarn_beta_slow")?
            .unwrap_or(1.0),
    })
}

/// `1 + 0.1 ln(factor)`, over the same with `yarn_log_multiplier` in it where the file has that.
fn yarn_magnitude(reader: &Reader<'_>, factor: f32) -> Result<f32, EngineError> {
    let magnitude = |weight: f32| {
        if factor > 1.0 {
            1.0 + 0.1 * weight * factor.ln()
        } else {
            1.0
        }
    };
    Ok(
        match reader.positive_or_off("rope.scaling.yarn_log_multiplier")? {
            Some(weight) => magnitude(1.0) / magnitude(weight),
            None => magnitude(1.0),
        },
    )
}
