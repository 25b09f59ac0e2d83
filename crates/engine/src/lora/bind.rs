//! From an adapter's pairs to packed matrices at their places in the model.

use super::apply::{Bound, ProductWeights, Site, SiteWeights};
use super::{LoraAdapter, LoraMatrix, LoraPair};
use crate::EngineError;
use crate::spec::{FeedForwardGate, Head, LayerSpec, Mixer, ModelSpec, names};
use dunlin_compute::{LOW_RANK_PRODUCTS, PackedMatrix, Pool, pack};
use dunlin_format::{DType, decode};
use std::iter::once;
use std::ops::Range;
use std::slice::from_ref;

/// Places of products at their sites; those without a line here are alone.
const QUERIES: usize = 0;
const KEYS: usize = 1;
const VALUES: usize = 2;
const OUTPUT_GATE: usize = 3;
const GATE: usize = 0;
const UP: usize = 1;

/// Reads and packs an adapter for a model.
///
/// # Errors
/// See [`Engine::add_adapter`](crate::Engine::add_adapter).
pub(super) fn bind(
    spec: &ModelSpec,
    pool: &Pool,
    adapter: &LoraAdapter,
) -> Result<Bound, EngineError> {
    if adapter.architecture != spec.architecture {
        return Err(EngineError::AdapterArchitecture {
            adapter: adapter.architecture.clone(),
            model: spec.architecture.clone(),
        });
    }
    adapter.check()?;
    let layers = spec.layer_count();
    let mut sites: Vec<Vec<(&LoraPair, Target)>> = Vec::new();
    sites.resize_with(Site::count(layers), Vec::new);
    // All shapes are checked before any number is read, so that what is read is no larger than the model allows.
    for pair in adapter.pairs() {
        let Some(target) = target(spec, &pair.tensor)? else {
            continue;
        };
        pair.a.require_shape(pair.a.rows, target.cols)?;
        pair.b.require_shape(target.rows, pair.a.rows)?;
        sites[target.site.index(layers)].push((pair, target));
    }
    let sites = sites.iter().map(|pairs| site_weights(pool, pairs));
    Ok(Bound {
        layers,
        sites: sites.collect::<Result<_, _>>()?,
    })
}

/// What a tensor of the model is to an adapter.
struct Target {
    site: Site,
    rows: usize,
    cols: usize,
    /// The products at the site that it stands for, and their rows.
    parts: Vec<(usize, Vec<Range<usize>>)>,
}

/// `None` for keys and values that the model does not use.
fn target(spec: &ModelSpec, name: &str) -> Result<Option<Target>, EngineError> {
    let unknown = || EngineError::AdapterUnknownTensor {
        name: name.to_owned(),
        architecture: spec.architecture.clone(),
    };
    let unsupported = |reason: &str| EngineError::AdapterUnsupported {
        name: name.to_owned(),
        reason: reason.to_owned(),
    };
    if name == names::OUTPUT && spec.head != Head::None {
        let (rows, cols) = (spec.vocab_size, spec.hidden_size);
        return Ok(Some(Target::whole(Site::Head, 0, rows, cols)));
    }
    if name == names::TOKEN_EMBEDDING {
        return Err(unsupported(
            "adapters of the token embedding are not computed",
        ));
    }
    let place = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'));
    let layer = place.and_then(|(index, suffix)| {
        let index: usize = index.parse().ok()?;
        // A layer has one name: `blk.00.` is none.
        let is_name = names::layer(index, suffix) == name;
        Some((index, suffix, spec.layers.get(index)?)).filter(|_| is_name)
    });
    if let Some((index, suffix, layer)) = layer {
        if !spec.is_used(name) {
            return Ok(None);
        }
        if let Some(target) = target_in_layer(spec.hidden_size, index, suffix, layer) {
            return Ok(Some(target));
        }
    }
    let expected = spec.expected_tensors();
    match expected.iter().any(|tensor| tensor.name == name) {
        true => Err(unsupported(
            "adapters change the matrices of attention, of the feed-forward part and of the output head",
        )),
        false => Err(unknown()),
    }
}

fn target_in_layer(hidden: usize, index: usize, suffix: &str, layer: &LayerSpec) -> Option<Target> {
    let input = Site::FeedForwardInput(index);
    let output = Site::FeedForwardOutput(index);
    let length = layer.feed_forward.length;
    match (suffix, layer.feed_forward.gate) {
        (names::FFN_GATE, FeedForwardGate::Own) => {
            return Some(Target::whole(input, GATE, length, hidden));
        }
        (names::FFN_UP, FeedForwardGate::Fused) => {
            return Some(Target::split(
                input,
                hidden,
                &[(GATE, length), (UP, length)],
            ));
        }
        (names::FFN_UP, _) => return Some(Target::whole(input, UP, length, hidden)),
        (names::FFN_DOWN, _) => return Some(Target::whole(output, 0, hidden, length)),
        _ => {}
    }
    let Mixer::Attention(spec) = &layer.mixer else {
        return None;
    };
    let site = Site::MixerInput(index);
    let (q, k, v) = (spec.q_size(), spec.k_size(), spec.v_size());
    match (suffix, spec.fused_qkv) {
        (names::ATTN_QKV, true) => {
            let parts = [(QUERIES, q), (KEYS, k), (VALUES, v)];
            Some(Target::split(site, hidden, &parts))
        }
        (names::ATTN_Q, false) if spec.output_gate => {
            // Each head's query rows and then its gate's.
            let dim = spec.head_dim_k;
            let every_other = |first: usize| {
                let heads = 0..spec.head_count;
                let rows = heads.map(|head| (2 * head + first) * dim..(2 * head + first + 1) * dim);
                rows.collect()
            };
            Some(Target {
                site,
                rows: 2 * q,
                cols: hidden,
                parts: vec![(QUERIES, every_other(0)), (OUTPUT_GATE, every_other(1))],
            })
        }
        (names::ATTN_Q, false) => Some(Target::whole(site, QUERIES, q, hidden)),
        (names::ATTN_K, false) => Some(Target::whole(site, KEYS, k, hidden)),
        (names::ATTN_V, false) => Some(Target::whole(site, VALUES, v, hidden)),
        (names::ATTN_OUTPUT, _) => Some(Target::whole(
            Site::MixerOutput(index),
            0,
            hidden,
            spec.output_size(),
        )),
        _ => None,
    }
}

impl Target {
    fn whole(site: Site, product: usize, rows: usize, cols: usize) -> Self {
        Self::split(site, cols, &[(product, rows)])
    }

    /// Products whose rows follow each other in the tensor.
    fn split(site: Site, cols: usize, parts: &[(usize, usize)]) -> Self {
        let mut rows = 0;
        let parts = parts.iter().map(|(product, count)| {
            let first = rows;
            rows += count;
            (*product, once(first..rows).collect())
        });
        let parts = parts.collect();
        Target {
            site,
            rows,
            cols,
            parts,
        }
    }
}

/// The pairs of one site, packed.
fn site_weights(
    pool: &Pool,
    pairs: &[(&LoraPair, Target)],
) -> Result<Option<SiteWeights>, EngineError> {
    let Some((first, target)) = pairs.first() else {
        return Ok(None);
    };
    let mut a = Rows {
        dtype: plain(first.a.dtype),
        bytes: Vec::new(),
    };
    let (mut ranks, mut products) = (0, [const { None }; LOW_RANK_PRODUCTS]);
    for (pair, target) in pairs {
        a.append(Rows::read(&pair.a)?)?;
        let b = Rows::read(&pair.b)?;
        for (product, rows) in &target.parts {
            products[*product] = Some(ProductWeights {
                b: b.pack(pool, &pair.b.name, rows, pair.b.cols)?,
                first: ranks,
                scale: pair.scale,
            });
        }
        ranks += pair.a.rows;
    }
    Ok(Some(SiteWeights {
        a: a.pack(pool, &first.a.name, from_ref(&(0..ranks)), target.cols)?,
        products,
    }))
}

/// Rows of plain floats.
struct Rows {
    dtype: DType,
    bytes: Vec<u8>,
}

/// The type of plain floats in which numbers of this type lose nothing.
fn plain(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => dtype,
        _ => DType::F32,
    }
}

impl Rows {
    /// # Errors
    /// A number that is not finite, or a type that is none of weights.
    fn read(matrix: &LoraMatrix) -> Result<Self, EngineError> {
        let bytes = (matrix.read)()?;
        let mut values = vec![0.0; matrix.rows * matrix.cols];
        decode(matrix.dtype, &bytes, &mut values)?;
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(EngineError::InvalidTensorValue {
                name: matrix.name.clone(),
                index,
                found: values[index],
                expected: "a finite number",
            });
        }
        let dtype = plain(matrix.dtype);
        let bytes = match dtype == matrix.dtype {
            true => bytes,
            false => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        Ok(Rows { dtype, bytes })
    }

    /// Appends rows as long; where the types differ all become F32.
    fn append(&mut self, mut other: Rows) -> Result<(), EngineError> {
        match self.dtype == other.dtype {
            true => self.bytes.extend(other.bytes),
            false => {
                self.widen()?;
                other.widen()?;
                self.bytes.extend(other.bytes);
            }
        }
        Ok(())
    }

    fn widen(&mut self) -> Result<(), EngineError> {
        let mut values = vec![0.0; self.bytes.len() / self.dtype.block_bytes()];
        decode(self.dtype, &self.bytes, &mut values)?;
        self.bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.dtype = DType::F32;
        Ok(())
    }

    /// Packs some of the rows, each of `cols` numbers.
    fn pack(
        &self,
        pool: &Pool,
        name: &str,
        ranges: &[Range<usize>],
        cols: usize,
    ) -> Result<PackedMatrix, EngineError> {
        let row_bytes = cols * self.dtype.block_bytes();
        let rows = ranges.iter().map(ExactSizeIterator::len).sum();
        let parts = ranges
            .iter()
            .map(|rows| &self.bytes[rows.start * row_bytes..rows.end * row_bytes]);
        let bytes = Vec::from_iter(parts).concat();
        pack(pool, self.dtype, rows, cols, &bytes).map_err(|source| EngineError::Pack {
            name: name.to_owned(),
            source,
        })
    }
}
