//! From the file's tensors to packed weights.

use super::convert::{self, Rows};
use super::{
    AttentionWeights, ClassifierWeights, DeltaNetWeights, LayerInputWeights, LayerWeights, Linear,
    LoadProgress, MixerWeights, NormSet, NormWeights, PerLayerWeights, Rotation, ShortConvWeights,
    WeightSource, Weights,
};
use crate::EngineError;
use crate::memory::matrices;
use crate::spec::{
    AttentionSpec, FeedForward, FeedForwardGate, Head, LayerSpec, Mixer, ModelSpec, Norms,
    RopeSpec, names,
};
use dunlin_compute::{PackError, PackedMatrix, Pool, WeightMemory, map, pack_with, packed_bytes};
use dunlin_format::{DType, Gguf, TensorInfo, decode};
use std::iter::once;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Packs every weight of a model, or leaves the matrices in the file, as `source` says. `rotations` are its distinct rope
/// descriptions.
///
/// # Errors
/// What [`ModelSpec::check_tensors`] gives, a type without a kernel, [`EngineError::Convert`], or [`EngineError::Cancelled`].
pub(crate) fn load(
    gguf: &Arc<Gguf>,
    spec: &ModelSpec,
    rotations: &[RopeSpec],
    pool: &Pool,
    source: &WeightSource<'_>,
    progress: LoadProgress<'_>,
) -> Result<Weights, EngineError> {
    spec.check_tensors(gguf)?;
    if let WeightSource::Converted(types) = source {
        convert::check(gguf, spec, types)?;
    }
    let total = gguf.tensors().iter().map(TensorInfo::byte_len).sum();
    let mut loader = Loader {
        gguf,
        spec,
        pool,
        memory: WeightMemory::with_capacity(room(gguf, spec, source)),
        source,
        progress,
        done: 0,
        total,
    };
    let mut layers = Vec::with_capacity(spec.layers.len());
    for (index, layer) in spec.layers.iter().enumerate() {
        layers.push(loader.layer(index, layer)?);
    }
    Ok(Weights {
        positions: loader.vector_if(
            spec.position_embeddings.is_some(),
            names::POSITION_EMBEDDING,
        )?,
        token_types: loader
            .vector_if(spec.token_types > 0, names::TOKEN_TYPES)?
            .unwrap_or_default(),
        embedding_norm: loader.norm(
            spec.embedding_norm
                .then(|| names::TOKEN_EMBEDDING_NORM.to_owned()),
        )?,
        per_layer: match spec.per_layer_input {
            Some(_) => Some(PerLayerWeights {
                projection: loader.matrix(names::PER_LAYER_PROJECTION)?,
                norm: loader.vector(names::PER_LAYER_PROJECTION_NORM)?,
            }),
            None => None,
        },
        layers,
        rotations: rotations
            .iter()
            .map(|rope| loader.rotation(rope))
            .collect::<Result<_, _>>()?,
        output_norm: loader.norm(spec.output_norm.map(str::to_owned))?,
        head: match spec.head {
            Head::Tied => Some(loader.matrix(names::TOKEN_EMBEDDING)?),
            Head::Own => Some(loader.matrix(names::OUTPUT)?),
            Head::None => None,
        },
        dense: (names::DENSE.iter().zip(&spec.dense))
            .map(|(name, _)| loader.matrix(name))
            .collect::<Result<_, _>>()?,
        classifier: loader.classifier()?,
    })
}

/// Matrices that one of the file becomes at most.
const PARTS: usize = 3;

/// Bytes that the packed matrices take at most, with what places them.
fn room(gguf: &Gguf, spec: &ModelSpec, source: &WeightSource<'_>) -> usize {
    let as_type = |tensor: &TensorInfo| match source {
        WeightSource::Packed => Some(tensor.dtype),
        WeightSource::Converted(types) => Some(*types.get(&tensor.name).unwrap_or(&tensor.dtype)),
        WeightSource::Mapped => None,
    };
    matrices(spec, gguf.tensors())
        .filter_map(|tensor| {
            // Each part is a whole number of panels.
            let row = packed_bytes(as_type(tensor)?, 1, tensor.cols())?;
            let all = packed_bytes(as_type(tensor)?, tensor.rows(), tensor.cols())?;
            Some(all.saturating_add(PARTS * WeightMemory::room_for(row)))
        })
        .fold(0, usize::saturating_add)
}

struct Loader<'a> {
    gguf: &'a Arc<Gguf>,
    spec: &'a ModelSpec,
    pool: &'a Pool,
    memory: WeightMemory,
    source: &'a WeightSource<'a>,
    progress: LoadProgress<'a>,
    done: u64,
    total: u64,
}

impl Loader<'_> {
    fn layer(&mut self, index: usize, layer: &LayerSpec) -> Result<LayerWeights, EngineError> {
        let name = |suffix: &str| names::layer(index, suffix);
        let mixer_norms = self.norms(index, &layer.mixer_norms)?;
        let mixer = match &layer.mixer {
            Mixer::Attention(attention) => {
                MixerWeights::Attention(self.attention(index, attention)?)
            }
            Mixer::DeltaNet(delta) => MixerWeights::DeltaNet(DeltaNetWeights {
                mixed: self.matrix(&name(names::ATTN_QKV))?,
                gate: self.matrix(&name(names::ATTN_GATE))?,
                alpha: self.matrix(&name(names::SSM_ALPHA))?,
                beta: self.matrix(&name(names::SSM_BETA))?,
                conv: self.taps(&name(names::SSM_CONV), delta.conv_taps)?,
                dt_bias: self.vector(&name(names::SSM_DT_BIAS))?,
                a: self.vector(&name(names::SSM_A))?,
                norm: self.vector(&name(names::SSM_NORM))?,
                output: self.matrix(&name(names::SSM_OUT))?,
            }),
            Mixer::ShortConv(conv) => MixerWeights::ShortConv(ShortConvWeights {
                input: self.matrix(&name(names::CONV_IN))?,
                conv: self.taps(&name(names::CONV), conv.conv_taps)?,
                output: self.matrix(&name(names::CONV_OUT))?,
            }),
        };
        let feed_forward_norms = self.norms(index, &layer.feed_forward_norms)?;
        let FeedForward {
            length, gate, bias, ..
        } = layer.feed_forward;
        let up = name(names::FFN_UP);
        let (gate, up) = match gate {
            FeedForwardGate::None => (None, self.linear(&up, bias)?),
            FeedForwardGate::Own => (
                Some(self.matrix(&name(names::FFN_GATE))?),
                self.linear(&up, bias)?,
            ),
            FeedForwardGate::Fused => (
                Some(self.rows(&up, once(0..length))?),
                Linear {
                    weight: self.rows(&up, once(length..2 * length))?,
                    bias: None,
                },
            ),
        };
        Ok(LayerWeights {
            mixer_norms,
            mixer,
            feed_forward_norms,
            gate,
            up,
            down: self.linear(&name(names::FFN_DOWN), bias)?,
            input: match self.spec.per_layer_input {
                Some(_) => Some(LayerInputWeights {
                    gate: self.matrix(&name(names::INPUT_GATE))?,
                    projection: self.matrix(&name(names::INPUT_PROJECTION))?,
                    norm: NormWeights {
                        weight: self.vector(&name(names::POST_NORM))?,
                        bias: None,
                    },
                }),
                None => None,
            },
            output_scale: self
                .vector_if(layer.output_scale, &name(names::LAYER_OUTPUT_SCALE))?
                .map(|scale| scale[0]),
        })
    }

    fn attention(
        &mut self,
        index: usize,
        spec: &AttentionSpec,
    ) -> Result<AttentionWeights, EngineError> {
        let name = |suffix: &str| names::layer(index, suffix);
        let own_kv = spec.shares_kv_of.is_none();
        let (q_rows, k_rows, v_rows) = (spec.q_size(), spec.k_size(), spec.v_size());
        let bias = spec.qkv_bias;
        let (q, kv, gate);
        if spec.fused_qkv {
            let all = name(names::ATTN_QKV);
            let mut biases = self
                .vector_if(bias, &names::bias(&all))?
                .map(|all| all.into_iter());
            let mut part = |loader: &mut Self, rows: Range<usize>| {
                let count = rows.len();
                Ok::<_, EngineError>(Linear {
                    weight: loader.rows(&all, once(rows))?,
                    bias: biases.as_mut().map(|all| all.take(count).collect()),
                })
            };
            q = part(self, 0..q_rows)?;
            let k = part(self, q_rows..q_rows + k_rows)?;
            let v = part(self, q_rows + k_rows..q_rows + k_rows + v_rows)?;
            (kv, gate) = (Some([k, v]), None);
        } else {
            let q_name = name(names::ATTN_Q);
            (q, gate) = match spec.output_gate {
                // Each head's query rows and then its gate's.
                true => {
                    let dim = spec.head_dim_k;
                    let every_other = |first: usize| {
                        (0..spec.head_count).map(move |head| {
                            let at = (2 * head + first) * dim;
                            at..at + dim
                        })
                    };
                    let q = Linear {
                        weight: self.rows(&q_name, every_other(0))?,
                        bias: None,
                    };
                    (q, Some(self.rows(&q_name, every_other(1))?))
                }
                false => (self.linear(&q_name, bias)?, None),
            };
            kv = match own_kv {
                true => Some([
                    self.linear(&name(names::ATTN_K), bias)?,
                    self.linear(&name(names::ATTN_V), bias)?,
                ]),
                false => None,
            };
        }
        let normed = spec.qk_norm.is_some();
        Ok(AttentionWeights {
            q,
            kv,
            gate,
            q_norm: self.vector_if(normed, &name(names::ATTN_Q_NORM))?,
            k_norm: self.vector_if(normed && own_kv, &name(names::ATTN_K_NORM))?,
            v_norm: (spec.value_norm && own_kv).then(|| vec![1.0; spec.head_dim_v]),
            output: self.linear(&name(names::ATTN_OUTPUT), spec.output_bias)?,
        })
    }

    fn classifier(&mut self) -> Result<Option<ClassifierWeights>, EngineError> {
        let Some(spec) = &self.spec.classifier else {
            return Ok(None);
        };
        Ok(Some(ClassifierWeights {
            dense: match spec.dense {
                Some(_) => Some(self.linear(names::CLASSIFIER, spec.dense_bias)?),
                None => None,
            },
            norm: match spec.norm {
                true => Some(NormWeights {
                    weight: self.vector(names::CLASSIFIER_NORM)?,
                    bias: None,
                }),
                false => None,
            },
            output: self.linear(names::CLASSIFIER_OUTPUT, spec.output_bias)?,
        }))
    }

    fn rotation(&mut self, rope: &RopeSpec) -> Result<Rotation, EngineError> {
        let mut frequencies = Vec::new();
        for name in rope.factor_tensors() {
            let factors = self.vector(name)?;
            frequencies.push(rope.frequencies(Some((name, &factors)))?);
        }
        if frequencies.is_empty() {
            frequencies.push(rope.frequencies(None)?);
        }
        let mut frequencies = frequencies
            .into_iter()
            .map(|all| all.into_iter().map(|x| x as f32).collect());
        Ok(Rotation {
            frequencies: frequencies.next().unwrap_or_default(),
            long: frequencies.next(),
            magnitude: rope.magnitude,
        })
    }

    fn norms(&mut self, index: usize, norms: &Norms) -> Result<NormSet, EngineError> {
        let name = |suffix: Option<&str>| suffix.map(|suffix| names::layer(index, suffix));
        Ok(NormSet {
            before: self.norm(name(norms.before))?,
            branch: self.norm(name(norms.branch))?,
            after: self.norm(name(norms.after))?,
        })
    }

    fn norm(&mut self, name: Option<String>) -> Result<Option<NormWeights>, EngineError> {
        let Some(name) = name else { return Ok(None) };
        Ok(Some(NormWeights {
            weight: self.vector(&name)?,
            bias: self.vector_if(self.spec.norm.has_bias(), &names::bias(&name))?,
        }))
    }

    fn linear(&mut self, name: &str, bias: bool) -> Result<Linear, EngineError> {
        Ok(Linear {
            weight: self.matrix(name)?,
            bias: self.vector_if(bias, &names::bias(name))?,
        })
    }

    fn matrix(&mut self, name: &str) -> Result<PackedMatrix, EngineError> {
        let rows = find(self.gguf, name)?.rows();
        self.rows(name, once(0..rows))
    }

    /// Packs some rows of a matrix, in the order given. Rows that do not lie together are packed in any case.
    fn rows(
        &mut self,
        name: &str,
        ranges: impl IntoIterator<Item = Range<usize>>,
    ) -> Result<PackedMatrix, EngineError> {
        let gguf = self.gguf;
        let info = find(gguf, name)?;
        let (dtype, cols) = (info.dtype, info.cols());
        let ranges = Vec::from_iter(ranges);
        if let WeightSource::Converted(types) = self.source
            && let Some(to) = types.get(name).filter(|to| **to != dtype)
        {
            return self.converted(info, *to, &ranges);
        }
        let all = gguf.data(info);
        let row_bytes = all.len() / info.rows().max(1);
        let (mut rows, mut parts) = (0, Vec::new());
        for range in ranges {
            rows += range.len();
            parts.push(range.start * row_bytes..range.end * row_bytes);
        }
        let mut flow = ControlFlow::Continue(());
        let mut packed = |bytes: usize| {
            self.done += bytes as u64;
            if flow.is_continue() {
                flow = (self.progress)(self.done.min(self.total), self.total);
            }
        };
        let matrix = match &parts[..] {
            [one] if matches!(self.source, WeightSource::Mapped) => {
                let owner = TensorBytes {
                    gguf: Arc::clone(self.gguf),
                    info: info.clone(),
                };
                packed(one.len());
                map(dtype, rows, cols, Arc::new(owner), one.clone())
            }
            [one] => {
                let bytes = &all[one.clone()];
                let memory = &mut self.memory;
                pack_with(self.pool, memory, dtype, rows, cols, bytes, &mut packed)
            }
            many => {
                let parts: Vec<&[u8]> = many.iter().map(|part| &all[part.clone()]).collect();
                let bytes = parts.concat();
                let memory = &mut self.memory;
                pack_with(self.pool, memory, dtype, rows, cols, &bytes, &mut packed)
            }
        };
        if flow.is_break() {
            return Err(EngineError::Cancelled);
        }
        matrix.map_err(|source: PackError| EngineError::Pack {
            name: name.to_owned(),
            source,
        })
    }

    /// Packs some rows of a matrix, in the order given, as the type `to`.
    fn converted(
        &mut self,
        info: &TensorInfo,
        to: DType,
        ranges: &[Range<usize>],
    ) -> Result<PackedMatrix, EngineError> {
        let source = Rows {
            name: &info.name,
            dtype: info.dtype,
            bytes: self.gguf.data(info),
            cols: info.cols(),
            ranges,
        };
        let (pool, mut memory) = (self.pool, std::mem::take(&mut self.memory));
        let packed = convert::pack(pool, &mut memory, &source, to, &mut |bytes| {
            self.advance(bytes)
        });
        self.memory = memory;
        packed
    }

    fn vector(&mut self, name: &str) -> Result<Vec<f32>, EngineError> {
        let info = find(self.gguf, name)?;
        let bytes = self.gguf.data(info);
        let mut out = vec![0.0; info.rows() * info.cols()];
        decode(info.dtype, bytes, &mut out)?;
        self.advance(bytes.len())?;
        Ok(out)
    }

    fn vector_if(&mut self, wanted: bool, name: &str) -> Result<Option<Vec<f32>>, EngineError> {
        wanted.then(|| self.vector(name)).transpose()
    }

    /// A convolution's weights `[channels, taps]` as `[taps, channels]`.
    fn taps(&mut self, name: &str, taps: usize) -> Result<Vec<f32>, EngineError> {
        let by_channel = self.vector(name)?;
        let channels = by_channel.len() / taps;
        let mut by_tap = vec![0.0; by_channel.len()];
        for (channel, weights) in by_channel.chunks_exact(taps).enumerate() {
            for (tap, weight) in weights.iter().enumerate() {
                by_tap[tap * channels + channel] = *weight;
            }
        }
        Ok(by_tap)
    }

    fn advance(&mut self, bytes: usize) -> Result<(), EngineError> {
        self.done += bytes as u64;
        match (self.progress)(self.done.min(self.total), self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EngineError::Cancelled),
        }
    }
}

fn find<'a>(gguf: &'a Gguf, name: &str) -> Result<&'a TensorInfo, EngineError> {
    gguf.tensor(name).ok_or_else(|| EngineError::MissingTensor {
        name: name.to_owned(),
    })
}

/// The bytes of a tensor, for as long as somebody computes from them.
struct TensorBytes {
    gguf: Arc<Gguf>,
    info: TensorInfo,
}

impl AsRef<[u8]> for TensorBytes {
    fn as_ref(&self) -> &[u8] {
        self.gguf.data(&self.info)
    }
}
