//! How an index is asked.

use super::Filter;

/// How an index is asked. Every field has a default; the builder methods set one each.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SearchOptions {
    /// Documents that are wanted at most.
    pub top_k: usize,
    /// What counts: meaning, words, or both.
    pub mode: SearchMode,
    /// Only documents whose metadata pass it.
    pub filter: Option<Filter>,
    /// Weight of the ranks by meaning in a hybrid search.
    pub semantic_weight: f64,
    /// Weight of the ranks by words in a hybrid search.
    pub keyword_weight: f64,
    /// Documents of each of the two rankings that a hybrid search joins; `None`: ten times `top_k`, and at least 100.
    pub candidates: Option<usize>,
}

/// What counts in a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SearchMode {
    /// The meaning: documents whose vectors have the smallest angle to the query's. The score is the cosine, -1 to 1.
    #[default]
    Semantic,
    /// The words: BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"), with k1 = 1.2
    /// and b = 0.75. The score has no upper bound, and only scores for one query and index can be compared.
    Keyword,
    /// Both, joined by their ranks: reciprocal rank fusion (Cormack, Clarke and Büttcher 2009) with k = 60. The score is the
    /// sum of `weight / (60 + rank)`, the first rank being 1.
    Hybrid,
}

impl Default for SearchOptions {
    fn default() -> Self {
        SearchOptions {
            top_k: 10,
            mode: SearchMode::Semantic,
            filter: None,
            semantic_weight: 1.0,
            keyword_weight: 1.0,
            candidates: None,
        }
    }
}

impl SearchOptions {
    /// The defaults: the ten nearest by meaning, all documents allowed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With at most this many documents.
    #[must_use]
    pub fn with_top_k(mut self, top_k: usize) -> Self {
        self.top_k = top_k;
        self
    }

    /// By meaning, words, or both.
    #[must_use]
    pub fn with_mode(mut self, mode: SearchMode) -> Self {
        self.mode = mode;
        self
    }

    /// With only the documents that pass this filter.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// With these weights of meaning and words in a hybrid search.
    #[must_use]
    pub fn with_weights(mut self, semantic: f64, keyword: f64) -> Self {
        self.semantic_weight = semantic;
        self.keyword_weight = keyword;
        self
    }

    /// With this many documents of each ranking in a hybrid search.
    #[must_use]
    pub fn with_candidates(mut self, candidates: usize) -> Self {
        self.candidates = Some(candidates);
        self
    }

    /// Documents of each ranking that a hybrid search joins.
    pub(super) fn depth(&self) -> usize {
        let usual = self.top_k.saturating_mul(10).max(100);
        self.candidates.unwrap_or(usual).max(self.top_k)
    }
}
