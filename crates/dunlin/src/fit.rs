//! Which context of a model fits into so much memory, from the file's header alone.

use std::path::Path;

use dunlin_compute::{KvElement, POSITIONS_PER_BLOCK};
use dunlin_engine::KvTypes;
use serde::Serialize;

use crate::info::Sizes;
use crate::{Error, LoadOptions, MemoryEstimate, TensorTypes};

/// Tokens of the shortest context that is worth loading a model for: a question and a short answer.
const SHORTEST_CONTEXT: usize = 512;

/// What a fit may choose. Every field has a default; the builder methods set one each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FitOptions {
    /// Number types of the cache of keys and values.
    pub kv_types: KvTypes,
    /// Leave the weights in the file ([`LoadOptions::mapped_weights`]). [`fit`] does so by itself where nothing else fits.
    pub mapped_weights: bool,
    /// Types that weights are to have in memory ([`LoadOptions::tensor_types`]). They are not left in the file then.
    pub tensor_types: TensorTypes,
    /// Tokens below which a context is of no use; `None`: 512, or all that the model was trained for where that is less.
    pub shortest_context: Option<usize>,
    /// Tokens beyond which a context is not wanted; `None`: up to what the model was trained for.
    pub longest_context: Option<usize>,
}

impl FitOptions {
    /// The defaults: an F16 cache, packed weights, a context of 512 tokens or more.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a cache of this number type.
    #[must_use]
    pub fn with_kv_element(self, element: KvElement) -> Self {
        self.with_kv_types(element.into())
    }

    /// With a cache of these number types.
    #[must_use]
    pub fn with_kv_types(mut self, types: KvTypes) -> Self {
        self.kv_types = types;
        self
    }

    /// With the weights left in the file, or packed.
    #[must_use]
    pub fn with_mapped_weights(mut self, mapped: bool) -> Self {
        self.mapped_weights = mapped;
        self
    }

    /// With these types of weights instead of those of the file.
    #[must_use]
    pub fn with_tensor_types(mut self, types: TensorTypes) -> Self {
        self.tensor_types = types;
        self
    }

    /// With contexts of at least this many tokens.
    #[must_use]
    pub fn with_shortest_context(mut self, tokens: usize) -> Self {
        self.shortest_context = Some(tokens);
        self
    }

    /// With contexts of at most this many tokens.
    #[must_use]
    pub fn with_longest_context(mut self, tokens: usize) -> Self {
        self.longest_context = Some(tokens);
        self
    }
}

/// How a model fits into so much memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Fit {
    /// Bytes that it was to fit into.
    pub budget: u64,
    /// Tokens of the longest context that fits.
    pub context_length: usize,
    /// Whether the weights have to be left in the file: packed ones do not fit, even with the shortest context.
    pub mapped_weights: bool,
    /// Layers to compute on a GPU: always 0, because this build computes on the processor only.
    pub gpu_layers: u32,
    /// The memory that this takes, part by part.
    pub memory: MemoryEstimate,
    #[serde(skip)]
    tensor_types: TensorTypes,
}

impl Fit {
    /// These options with the context, the type of cache, and the types and the place of the weights that fit.
    #[must_use]
    pub fn apply<'a>(&self, load: LoadOptions<'a>) -> LoadOptions<'a> {
        load.with_context_length(self.context_length)
            .with_kv_types(self.memory.kv_types)
            .with_mapped_weights(self.mapped_weights)
            .with_tensor_types(self.tensor_types.clone())
    }
}

/// The longest context of a model that fits into `budget` bytes, with a cache in F16. Only the file's header is read.
///
/// Weights are packed where they fit with a context of [`FitOptions::shortest_context`] tokens at least, and left in the file
/// otherwise ([`LoadOptions::mapped_weights`]): then the file's pages come on top of the budget as far as there is memory, and
/// are read again from the disk where there is not.
///
/// # Errors
/// [`Error::DoesNotFit`]; [`Error::Format`] and [`Error::Engine`] for a file that cannot be computed.
pub fn fit(path: &Path, budget: u64) -> Result<Fit, Error> {
    fit_with(path, budget, &FitOptions::default())
}

/// As [`fit`], with a choice of what it may do.
///
/// # Errors
/// As [`fit`]; [`Error::ContextLength`] where the shortest context is none, or longer than what the model was trained for and
/// the longest one asked for; where weights are to have other types, those of [`TypePlan::for_model`](crate::TypePlan::for_model) and
/// [`Error::MappedConversion`].
pub fn fit_with(path: &Path, budget: u64, options: &FitOptions) -> Result<Fit, Error> {
    let sizes = Sizes::open(path, options)?;
    let trained = sizes.longest_context();
    let longest = options.longest_context.unwrap_or(trained).min(trained);
    let shortest = options
        .shortest_context
        .unwrap_or(SHORTEST_CONTEXT.min(longest));
    if !(1..=longest).contains(&shortest) {
        return Err(Error::ContextLength {
            requested: shortest,
            limit: longest,
        });
    }
    let ways: &[bool] = match options.tensor_types.is_empty() {
        true => &[options.mapped_weights, true],
        false => &[false],
    };
    let mut least = u64::MAX;
    for &mapped_weights in ways {
        let options = options.clone().with_mapped_weights(mapped_weights);
        let taken = |tokens| sizes.estimate(tokens, &options);
        least = least.min(taken(shortest)?.total());
        if least <= budget {
            let context_length = longest_within(shortest, longest, |tokens| {
                Ok(taken(tokens)?.total() <= budget)
            })?;
            return Ok(Fit {
                budget,
                context_length,
                mapped_weights,
                gpu_layers: 0,
                memory: taken(context_length)?,
                tensor_types: options.tensor_types.clone(),
            });
        }
    }
    Err(Error::DoesNotFit {
        needed: least,
        budget,
        context_length: shortest,
    })
}

/// The largest number of tokens up to `longest` that `fits`, in whole blocks of the cache; `shortest` is known to.
fn longest_within(
    shortest: usize,
    longest: usize,
    fits: impl Fn(usize) -> Result<bool, Error>,
) -> Result<usize, Error> {
    if fits(longest)? {
        return Ok(longest);
    }
    // In blocks: `low` fits, `high` does not.
    let (mut low, mut high) = (
        shortest / POSITIONS_PER_BLOCK,
        longest.div_ceil(POSITIONS_PER_BLOCK),
    );
    while high - low > 1 {
        let middle = low.midpoint(high);
        match fits(middle * POSITIONS_PER_BLOCK)? {
            true => low = middle,
            false => high = middle,
        }
    }
    Ok((low * POSITIONS_PER_BLOCK).max(shortest))
}
