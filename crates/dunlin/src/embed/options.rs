//! How texts become vectors.

use dunlin_engine::Pooling;

use super::Prefixes;

/// How texts become vectors. Every field has a default; the builder methods set one each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbedOptions {
    /// How the vectors of a text's tokens become one; `None`: as the model says. A model that was made for writing says
    /// nothing, and embeds (not very well) with what is named here.
    pub pooling: Option<Pooling>,
    /// What becomes of a text that is too long.
    pub too_long: TooLong,
    /// Scale vectors to length 1, so that their dot product is the cosine.
    pub normalize: bool,
    /// Keep only this many numbers of a vector, from its beginning; `None`: all. For models that were trained so that the
    /// first numbers say the most (Matryoshka representation learning, Kusupati et al. 2022, arXiv:2205.13147).
    pub dimensions: Option<usize>,
    /// What is written before queries and documents; `None`: as the model's makers say, see [`Prefixes::of_model`].
    pub prefixes: Option<Prefixes>,
}

/// What becomes of a text that has more tokens than the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TooLong {
    /// It is refused, with the numbers, before any text is computed.
    #[default]
    Error,
    /// It is cut at its end. [`Embeddings::too_long`](super::Embeddings::too_long) says which texts were.
    Truncate,
    /// It is split into as few pieces as fit; its vector is the mean of theirs, each weighted by its tokens (and, where vectors
    /// are scaled to length 1, scaled so before and after). A long text is seen whole, but no piece sees another.
    ChunkAndMean,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        EmbedOptions {
            pooling: None,
            too_long: TooLong::Error,
            normalize: true,
            dimensions: None,
            prefixes: None,
        }
    }
}

impl EmbedOptions {
    /// The defaults: the model's own pooling and prefixes, whole vectors of length 1, nothing cut.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this pooling.
    #[must_use]
    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = Some(pooling);
        self
    }

    /// With this policy for texts that are too long.
    #[must_use]
    pub fn with_too_long(mut self, too_long: TooLong) -> Self {
        self.too_long = too_long;
        self
    }

    /// With vectors of length 1, or as the model gives them.
    #[must_use]
    pub fn with_normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }

    /// With this many numbers of each vector.
    #[must_use]
    pub fn with_dimensions(mut self, dimensions: usize) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// With these prefixes instead of those of the model's makers.
    #[must_use]
    pub fn with_prefixes(mut self, prefixes: Prefixes) -> Self {
        self.prefixes = Some(prefixes);
        self
    }
}
