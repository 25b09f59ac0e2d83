//! A model's weights, packed for the kernels and bound to their places.

use crate::EngineError;
use crate::spec::{LayerSpec, ModelSpec, names};
use dunlin_compute::{PackedMatrix, PanelFormat, Pool, pack};
use dunlin_format::{Gguf, TensorInfo, decode};
use std::ops::ControlFlow;

/// All weights of a decoder but its embedding rows, which are read from the file a row at a time.
pub(crate) struct Weights {
    pub layers: Vec<LayerWeights>,
    pub output_norm: Vec<f32>,
    pub head: PackedMatrix,
}

/// One layer.
pub(crate) struct LayerWeights {
    pub attn_norm: Vec<f32>,
    pub q: PackedMatrix,
    pub k: PackedMatrix,
    pub v: PackedMatrix,
    /// Biases of queries, keys and values.
    pub qkv_bias: Option<[Vec<f32>; 3]>,
    /// Norms of query and key heads.
    pub qk_norm: Option<[Vec<f32>; 2]>,
    pub attn_output: PackedMatrix,
    /// Norms of the results of attention and of the feed-forward part.
    pub post_norms: Option<[Vec<f32>; 2]>,
    pub ffn_norm: Vec<f32>,
    pub gate: PackedMatrix,
    pub up: PackedMatrix,
    pub down: PackedMatrix,
    /// Radians per position of each rotated pair.
    pub rope: Vec<f32>,
}

/// Told while weights are packed: bytes done, and of how many. Break to give up.
pub type LoadProgress<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

impl Weights {
    /// Packs every weight of the model.
    ///
    /// # Errors
    /// What [`ModelSpec::check_tensors`] gives, a type without a kernel, or [`EngineError::Cancelled`].
    pub(crate) fn load(
        gguf: &Gguf,
        spec: &ModelSpec,
        pool: &Pool,
        progress: LoadProgress<'_>,
    ) -> Result<Self, EngineError> {
        spec.check_tensors(gguf)?;
        let total = gguf.tensors().iter().map(TensorInfo::byte_len).sum();
        let mut loader = Loader {
            gguf,
            pool,
            progress,
            done: 0,
            total,
        };
        let factors = match spec.layers.iter().any(|layer| layer.rope.has_factors) {
            true => Some(loader.vector(names::ROPE_FREQS)?),
            false => None,
        };
        let mut layers = Vec::with_capacity(spec.layers.len());
        for (index, layer) in spec.layers.iter().enumerate() {
            layers.push(loader.layer(index, layer, factors.as_deref())?);
        }
        let head = if spec.tied_head {
            names::TOKEN_EMBEDDING
        } else {
            names::OUTPUT
        };
        Ok(Weights {
            layers,
            output_norm: loader.vector(names::OUTPUT_NORM)?,
            head: loader.matrix(head)?,
        })
    }

    /// Bytes of memory of the packed matrices.
    pub(crate) fn bytes(&self) -> u64 {
        let layers = self.layers.iter().flat_map(LayerWeights::matrices);
        layers
            .chain([&self.head])
            .map(|matrix| matrix.bytes() as u64)
            .sum()
    }
}

impl LayerWeights {
    fn matrices(&self) -> [&PackedMatrix; 7] {
        [
            &self.q,
            &self.k,
            &self.v,
            &self.attn_output,
            &self.gate,
            &self.up,
            &self.down,
        ]
    }
}

/// Whether a product with any of these weights needs quantized activations.
pub(crate) fn any_quantized(weights: &[&PackedMatrix]) -> bool {
    weights
        .iter()
        .any(|matrix| PanelFormat::is_quantized(matrix.format()))
}

struct Loader<'a> {
    gguf: &'a Gguf,
    pool: &'a Pool,
    progress: LoadProgress<'a>,
    done: u64,
    total: u64,
}

impl Loader<'_> {
    fn layer(
        &mut self,
        index: usize,
        spec: &LayerSpec,
        factors: Option<&[f32]>,
    ) -> Result<LayerWeights, EngineError> {
        let name = |suffix: &str| names::layer(index, suffix);
        let factors = if spec.rope.has_factors { factors } else { None };
        let rope = spec
            .rope
            .frequencies(factors)?
            .into_iter()
            .map(|x| x as f32)
            .collect();
        Ok(LayerWeights {
            attn_norm: self.vector(&name(names::ATTN_NORM))?,
            q: self.matrix(&name(names::ATTN_Q))?,
            k: self.matrix(&name(names::ATTN_K))?,
            v: self.matrix(&name(names::ATTN_V))?,
            qkv_bias: self.vectors(
                spec.qkv_bias,
                [names::ATTN_Q_BIAS, names::ATTN_K_BIAS, names::ATTN_V_BIAS].map(name),
            )?,
            qk_norm: self.vectors(
                spec.qk_norm,
                [names::ATTN_Q_NORM, names::ATTN_K_NORM].map(name),
            )?,
            attn_output: self.matrix(&name(names::ATTN_OUTPUT))?,
            post_norms: self.vectors(
                spec.post_norms,
                [names::POST_ATTENTION_NORM, names::POST_FFW_NORM].map(name),
            )?,
            ffn_norm: self.vector(&name(names::FFN_NORM))?,
            gate: self.matrix(&name(names::FFN_GATE))?,
            up: self.matrix(&name(names::FFN_UP))?,
            down: self.matrix(&name(names::FFN_DOWN))?,
            rope,
        })
    }

    fn find(&self, name: &str) -> Result<&TensorInfo, EngineError> {
        self.gguf
            .tensor(name)
            .ok_or_else(|| EngineError::MissingTensor {
                name: name.to_owned(),
            })
    }

    fn matrix(&mut self, name: &str) -> Result<PackedMatrix, EngineError> {
        let info = self.find(name)?;
        let bytes = self.gguf.data(info);
        let packed =
            pack(self.pool, info.dtype, info.rows(), info.cols(), bytes).map_err(|source| {
                EngineError::Pack {
                    name: name.to_owned(),
                    source,
                }
            })?;
        self.advance(bytes.len())?;
        Ok(packed)
    }

    fn vector(&mut self, name: &str) -> Result<Vec<f32>, EngineError> {
        let info = self.find(name)?;
        let bytes = self.gguf.data(info);
        let mut out = vec![0.0; info.rows() * info.cols()];
        decode(info.dtype, bytes, &mut out)?;
        self.advance(bytes.len())?;
        Ok(out)
    }

    fn vectors<const N: usize>(
        &mut self,
        wanted: bool,
        names: [String; N],
    ) -> Result<Option<[Vec<f32>; N]>, EngineError> {
        if !wanted {
            return Ok(None);
        }
        let mut out = [const { Vec::new() }; N];
        for (out, name) in out.iter_mut().zip(names) {
            *out = self.vector(&name)?;
        }
        Ok(Some(out))
    }

    fn advance(&mut self, bytes: usize) -> Result<(), EngineError> {
        self.done += bytes as u64;
        match (self.progress)(self.done.min(self.total), self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EngineError::Cancelled),
        }
    }
}
