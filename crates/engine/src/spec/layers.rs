//! The layers of a file, one by one.

use super::build::File;
use super::families::{AttentionScale, Family, Mixers, Windows};
use super::read::{Reader, limit};
use super::ropes::Ropes;
use super::{
    AttentionSpec, DeltaNetSpec, FeedForward, LayerSpec, Mixer, Norms, ShortConvSpec, Temperature,
    names,
};
use crate::EngineError;

impl File<'_> {
    pub(super) fn layers(
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
