//! What adapters add to the products of a step.

use super::{AdapterId, AdapterUse};
use crate::EngineError;
use dunlin_compute::{
    Activations, LOW_RANK_PRODUCTS, LowRank, Matmul, PackedMatrix, Pool, Tier, add_low_rank,
    matmul_rows,
};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Products that share their input, of which an adapter may change some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    /// Queries, keys, values and the gate of attention's result, in a layer.
    MixerInput(usize),
    MixerOutput(usize),
    /// Gate and up.
    FeedForwardInput(usize),
    FeedForwardOutput(usize),
    Head,
}

impl Site {
    const IN_LAYER: usize = 4;

    /// Sites of a model of so many layers.
    pub(super) fn count(layers: usize) -> usize {
        Self::IN_LAYER * layers + 1
    }

    pub(super) fn index(self, layers: usize) -> usize {
        let (layer, place) = match self {
            Site::MixerInput(layer) => (layer, 0),
            Site::MixerOutput(layer) => (layer, 1),
            Site::FeedForwardInput(layer) => (layer, 2),
            Site::FeedForwardOutput(layer) => (layer, 3),
            Site::Head => (layers, 0),
        };
        Self::IN_LAYER * layer + place
    }
}

/// An adapter's part in the products of a site.
pub(super) struct SiteWeights {
    /// The A matrices of all products, one below the other: `[sum of ranks, cols]`.
    pub a: PackedMatrix,
    /// By the product's place at the site.
    pub products: [Option<ProductWeights>; LOW_RANK_PRODUCTS],
}

pub(super) struct ProductWeights {
    /// `[rows, rank]`
    pub b: PackedMatrix,
    /// The first row of `a` that belongs to it.
    pub first: usize,
    /// `alpha / rank`
    pub scale: f32,
}

impl SiteWeights {
    fn bytes(&self) -> usize {
        let products = self.products.iter().flatten();
        self.a.bytes() + products.map(|product| product.b.bytes()).sum::<usize>()
    }
}

/// An adapter bound to the model: its part at each [`Site`].
pub(super) struct Bound {
    pub layers: usize,
    pub sites: Vec<Option<SiteWeights>>,
}

impl Bound {
    fn at(&self, site: Site) -> Option<&SiteWeights> {
        self.sites[site.index(self.layers)].as_ref()
    }
}

/// The adapters of a sequence: none that does nothing, in the order of their ids, so that equal sets compute alike.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdapterSet(Arc<[AdapterUse]>);

impl PartialEq for AdapterSet {
    fn eq(&self, other: &Self) -> bool {
        let key = |used: &AdapterUse| (used.adapter, used.scale.to_bits());
        self.0.iter().map(key).eq(other.0.iter().map(key))
    }
}

impl AdapterSet {
    pub(crate) fn has(&self, id: AdapterId) -> bool {
        self.0.iter().any(|used| used.adapter == id)
    }
}

/// The adapters of an engine, and those at work in a step.
#[derive(Default)]
pub(crate) struct Adapters {
    bound: Vec<(AdapterId, Bound)>,
    active: Vec<Active>,
    /// How many of `active` belong to the last rows.
    last: usize,
    /// `[tokens, sum of ranks]`
    hidden: Vec<f32>,
}

/// An adapter at work on some rows of a step.
struct Active {
    rows: Range<usize>,
    used: AdapterUse,
    /// Index of the adapter.
    index: usize,
}

impl Adapters {
    /// Keeps an adapter, with room for steps of so many tokens.
    pub(super) fn insert(&mut self, bound: Bound, max_tokens: usize) -> AdapterId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = AdapterId(NEXT.fetch_add(1, Ordering::Relaxed));
        let sites = bound.sites.iter().flatten();
        let ranks = sites.map(|site| site.a.rows()).max().unwrap_or(0);
        let room = self.hidden.len().max(max_tokens * ranks);
        self.hidden.resize(room, 0.0);
        self.bound.push((id, bound));
        id
    }

    pub(super) fn remove(&mut self, id: AdapterId) -> Result<(), EngineError> {
        let index = self.require(id)?;
        self.bound.remove(index);
        self.active.clear();
        if self.bound.is_empty() {
            self.hidden = Vec::new();
        }
        Ok(())
    }

    /// The index of an adapter.
    pub(super) fn require(&self, id: AdapterId) -> Result<usize, EngineError> {
        let found = self.bound.iter().position(|(other, _)| *other == id);
        found.ok_or(EngineError::UnknownAdapter)
    }

    pub(super) fn bytes(&self) -> u64 {
        let sites = self.bound.iter().flat_map(|(_, bound)| &bound.sites);
        let weights: usize = sites.flatten().map(SiteWeights::bytes).sum();
        (weights + 4 * self.hidden.len()) as u64
    }

    /// The set of these adapters. One at scale 0 does nothing and is none of it.
    ///
    /// # Errors
    /// [`EngineError::UnknownAdapter`], [`EngineError::AdapterTwice`], [`EngineError::AdapterScale`].
    pub(crate) fn set_of(&self, adapters: &[AdapterUse]) -> Result<AdapterSet, EngineError> {
        for (index, used) in adapters.iter().enumerate() {
            self.require(used.adapter)?;
            if !used.scale.is_finite() {
                return Err(EngineError::AdapterScale { found: used.scale });
            }
            let before = &adapters[..index];
            if before.iter().any(|other| other.adapter == used.adapter) {
                return Err(EngineError::AdapterTwice);
            }
        }
        let mut set = Vec::from_iter(adapters.iter().copied().filter(|used| used.scale != 0.0));
        set.sort_by_key(|used| used.adapter);
        Ok(AdapterSet(set.into()))
    }

    /// Begins a step.
    pub(crate) fn clear_active(&mut self) {
        self.active.clear();
        self.last = 0;
    }

    /// Lets a sequence's adapters work on the next rows of the step.
    ///
    /// # Errors
    /// [`EngineError::UnknownAdapter`].
    pub(crate) fn activate(
        &mut self,
        rows: Range<usize>,
        set: &AdapterSet,
    ) -> Result<(), EngineError> {
        // Neighbours with the same adapters are computed together.
        let before = self.active.len() - self.last;
        let last = &mut self.active[before..];
        let is_same = |(active, used): (&Active, &AdapterUse)| {
            active.rows.end == rows.start
                && active.used.adapter == used.adapter
                && active.used.scale.to_bits() == used.scale.to_bits()
        };
        if last.len() == set.0.len() && last.iter().zip(set.0.iter()).all(is_same) {
            last.iter_mut()
                .for_each(|active| active.rows.end = rows.end);
            return Ok(());
        }
        for used in set.0.iter() {
            let index = self.require(used.adapter)?;
            let (rows, used) = (rows.clone(), *used);
            self.active.push(Active { rows, used, index });
        }
        self.last = set.0.len();
        Ok(())
    }

    /// Whether an adapter of the step changes this site.
    pub(crate) fn change(&self, site: Site) -> bool {
        let mut active = self.active.iter();
        active.any(|active| self.bound[active.index].1.at(site).is_some())
    }

    /// Adds what the adapters of the step add to the products of a site. `input` and the outputs have all rows of the step.
    pub(crate) fn add(
        &mut self,
        pool: &Pool,
        tier: Tier,
        site: Site,
        input: &Activations,
        outputs: [Option<&mut [f32]>; LOW_RANK_PRODUCTS],
    ) {
        self.add_to_rows(pool, tier, site, input, outputs, |rows| rows);
    }

    /// As [`Adapters::add`], where `input` and the outputs have others than the step's rows: `rows_of` says which of them are
    /// those of some rows of the step.
    pub(crate) fn add_to_rows(
        &mut self,
        pool: &Pool,
        tier: Tier,
        site: Site,
        input: &Activations,
        mut outputs: [Option<&mut [f32]>; LOW_RANK_PRODUCTS],
        rows_of: impl Fn(Range<usize>) -> Range<usize>,
    ) {
        for active in &self.active {
            let Some(weights) = self.bound[active.index].1.at(site) else {
                continue;
            };
            let rows = rows_of(active.rows.clone());
            let hidden = &mut self.hidden[..rows.len() * weights.a.rows()];
            let product = Matmul {
                weights: &weights.a,
                out: &mut *hidden,
            };
            matmul_rows(pool, tier, input, rows.clone(), &mut [product]);
            let mut group = [const { None }; LOW_RANK_PRODUCTS];
            let products = weights.products.iter().zip(&mut outputs).zip(&mut group);
            for ((product, output), place) in products {
                let (Some(product), Some(output)) = (product, output) else {
                    continue;
                };
                let width = product.b.rows();
                *place = Some(LowRank {
                    weights: &product.b,
                    first: product.first,
                    scale: active.used.scale * product.scale,
                    out: &mut output[rows.start * width..rows.end * width],
                });
            }
            add_low_rank(pool, tier, rows.len(), hidden, &mut group);
        }
    }
}
