//! Documents with their vectors and words, and what is found among them.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::fusion::fuse;
use super::keyword::KeywordIndex;
use super::nearest::{Rows, unit};
use super::{ModelIdentity, SearchError, SearchMode, SearchOptions};
use crate::{Embedder, Error, TextRole};

/// Documents of an index, at most: rows are counted in 32 bits.
const MAX_DOCUMENTS: usize = u32::MAX as usize;
/// Rows of removed documents that are left standing before it is looked at whether they are most.
const FEW_ROWS: usize = 64;

/// What an index holds and finds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Document {
    /// Its name, of which there is one in an index.
    pub id: String,
    /// Its text. May be empty where the caller gives the vector; then it is not found by words.
    pub text: String,
    /// What filters can ask for, and whatever else the caller wants back.
    pub metadata: Map<String, Value>,
}

impl Document {
    /// A document without metadata.
    #[must_use]
    pub fn new(id: impl Into<String>, text: impl Into<String>) -> Self {
        Document {
            id: id.into(),
            text: text.into(),
            metadata: Map::new(),
        }
    }

    /// With this value of the metadata.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// With these metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.metadata = metadata;
        self
    }
}

/// A document that was found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hit<'a> {
    /// The document's name.
    pub id: &'a str,
    /// How well it fits; what that means says [`SearchMode`]. Higher is better.
    pub score: f64,
    /// The cosine of its vector and the query's, where it was found by meaning.
    pub cosine: Option<f64>,
    /// Its BM25 score, where it was found by words.
    pub bm25: Option<f64>,
    /// Its text.
    pub text: &'a str,
    /// Its metadata.
    pub metadata: &'a Map<String, Value>,
}

/// An index of documents by their vectors and words. Searches compare with every document, so that none is missed; the order of
/// hits is that of their scores, then of their ids, on any processor.
///
/// Vectors are kept in `f32`, scaled to length 1: 4 bytes a number, beside the texts. The words are indexed at the first search
/// that asks for them.
pub struct SemanticIndex {
    pub(super) model: Option<ModelIdentity>,
    /// What the caller wants to be saved with the index.
    pub(super) attributes: Map<String, Value>,
    rows: Rows,
    /// One a row; `None` where it was removed.
    entries: Vec<Option<Document>>,
    row_of: HashMap<String, usize>,
    keywords: OnceLock<KeywordIndex>,
}

impl SemanticIndex {
    /// An empty index for texts that this model embeds.
    ///
    /// # Errors
    /// As [`Embedder::identity`].
    pub fn for_embedder(embedder: &Embedder) -> Result<Self, Error> {
        let identity = embedder.identity()?.clone();
        let index = Self::empty(identity.dimensions);
        Ok(SemanticIndex {
            model: Some(identity),
            ..index
        })
    }

    /// An empty index for vectors that the caller makes.
    ///
    /// # Errors
    /// [`SearchError::Width`] for vectors of no numbers.
    pub fn for_vectors(dimensions: usize) -> Result<Self, Error> {
        if dimensions == 0 {
            let (found, expected) = (0, 1);
            return Err(SearchError::Width { found, expected }.into());
        }
        Ok(Self::empty(dimensions))
    }

    fn empty(dimensions: usize) -> Self {
        SemanticIndex {
            model: None,
            attributes: Map::new(),
            rows: Rows::new(dimensions),
            entries: Vec::new(),
            row_of: HashMap::new(),
            keywords: OnceLock::new(),
        }
    }

    /// Of documents without duplicates, and as many rows of length 1.
    pub(super) fn of(
        model: Option<ModelIdentity>,
        attributes: Map<String, Value>,
        documents: Vec<Document>,
        rows: Rows,
    ) -> Self {
        let ids = documents.iter().enumerate();
        SemanticIndex {
            model,
            attributes,
            rows,
            row_of: ids
                .map(|(row, document)| (document.id.clone(), row))
                .collect(),
            entries: documents.into_iter().map(Some).collect(),
            keywords: OnceLock::new(),
        }
    }

    /// Embeds the texts of documents and adds them. Either all are added or, on an error, none.
    ///
    /// # Errors
    /// [`SearchError::DuplicateId`], [`SearchError::OtherModel`], [`SearchError::NoModel`], [`SearchError::Full`]; and as
    /// [`Embedder::embed`].
    pub fn add(&mut self, embedder: &Embedder, documents: Vec<Document>) -> Result<(), Error> {
        self.add_with(embedder, documents, &mut |_, _| ControlFlow::Continue(()))
    }

    /// As [`SemanticIndex::add`], with a `progress` as that of [`Embedder::embed_as`].
    ///
    /// # Errors
    /// As [`SemanticIndex::add`]; [`Error::Cancelled`].
    pub fn add_with(
        &mut self,
        embedder: &Embedder,
        documents: Vec<Document>,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.require_model(embedder)?;
        self.require_new(&documents)?;
        let texts: Vec<&str> = documents.iter().map(|document| &*document.text).collect();
        let vectors = embedder
            .embed_as(TextRole::Document, &texts, progress)?
            .vectors;
        let units = documents.iter().zip(&vectors);
        let units: Vec<_> = units
            .map(|(document, vector)| self.unit(&document.id, vector))
            .collect::<Result<_, _>>()?;
        for (document, unit) in documents.into_iter().zip(units) {
            self.push(document, &unit);
        }
        Ok(())
    }

    /// Adds a document with a vector of the caller, of any length but 0.
    ///
    /// # Errors
    /// [`SearchError::DuplicateId`], [`SearchError::Width`], [`SearchError::NoDirection`], [`SearchError::Full`].
    pub fn add_vector(&mut self, document: Document, vector: &[f32]) -> Result<(), Error> {
        self.require_new(std::slice::from_ref(&document))?;
        let unit = self.unit(&document.id, vector)?;
        self.push(document, &unit);
        Ok(())
    }

    /// Replaces the document of the same id by another one, whose text is embedded.
    ///
    /// # Errors
    /// [`SearchError::UnknownId`]; else as [`SemanticIndex::add`].
    pub fn update(&mut self, embedder: &Embedder, document: Document) -> Result<(), Error> {
        self.require_model(embedder)?;
        self.row(&document.id)?;
        let vector = embedder.embed_documents(&[&document.text])?.remove(0);
        self.update_vector(document, &vector)
    }

    /// Replaces the document of the same id by another one with a vector of the caller.
    ///
    /// # Errors
    /// [`SearchError::UnknownId`], [`SearchError::Width`], [`SearchError::NoDirection`].
    pub fn update_vector(&mut self, document: Document, vector: &[f32]) -> Result<(), Error> {
        let row = self.row(&document.id)?;
        let unit = self.unit(&document.id, vector)?;
        self.rows.set(row, &unit);
        if let Some(keywords) = self.keywords.get_mut() {
            if let Some(old) = &self.entries[row] {
                keywords.remove(row, &old.text);
            }
            keywords.insert(row, &document.text);
        }
        self.entries[row] = Some(document);
        Ok(())
    }

    /// Removes a document and gives it back, if there is one of this id.
    pub fn remove(&mut self, id: &str) -> Option<Document> {
        let row = self.row_of.remove(id)?;
        let document = self.entries[row].take();
        if let (Some(keywords), Some(document)) = (self.keywords.get_mut(), &document) {
            keywords.remove(row, &document.text);
        }
        let removed = self.entries.len() - self.len();
        if removed > FEW_ROWS.max(self.len()) {
            self.compact();
        }
        document
    }

    /// The documents that fit a query best. A search by words alone does not embed it.
    ///
    /// # Errors
    /// [`SearchError::OtherModel`], [`SearchError::NoModel`], [`SearchError::NoDirection`]; and as [`Embedder::embed`].
    pub fn search(
        &self,
        embedder: &Embedder,
        query: &str,
        options: &SearchOptions,
    ) -> Result<Vec<Hit<'_>>, Error> {
        if options.mode == SearchMode::Keyword {
            return Ok(self.search_words(query, options));
        }
        self.require_model(embedder)?;
        let vector = embedder.embed_query(query)?;
        self.search_with(&vector, query, options)
    }

    /// As [`SemanticIndex::search`], for a query whose vector the caller has; `words` is what a hybrid search looks for.
    ///
    /// # Errors
    /// [`SearchError::Width`], [`SearchError::NoDirection`].
    pub fn search_with(
        &self,
        vector: &[f32],
        words: &str,
        options: &SearchOptions,
    ) -> Result<Vec<Hit<'_>>, Error> {
        match options.mode {
            SearchMode::Keyword => Ok(self.search_words(words, options)),
            SearchMode::Semantic => {
                let nearest = self.nearest(vector, options, options.top_k)?;
                Ok(self.hits(&nearest, &nearest, &[]))
            }
            SearchMode::Hybrid => {
                let nearest = self.nearest(vector, options, options.depth())?;
                let worded = self.worded(words, options, options.depth());
                let fused = fuse(&[
                    (options.semantic_weight, &nearest),
                    (options.keyword_weight, &worded),
                ]);
                let best = self.best(fused.into_iter().collect(), options.top_k);
                Ok(self.hits(&best, &nearest, &worded))
            }
        }
    }

    /// The documents whose vectors have the smallest angle to one of the caller; the mode of `options` does not matter.
    ///
    /// # Errors
    /// [`SearchError::Width`], [`SearchError::NoDirection`].
    pub fn search_vector(
        &self,
        vector: &[f32],
        options: &SearchOptions,
    ) -> Result<Vec<Hit<'_>>, Error> {
        let nearest = self.nearest(vector, options, options.top_k)?;
        Ok(self.hits(&nearest, &nearest, &[]))
    }

    /// The documents with the words of a query, by BM25; the mode of `options` does not matter. Needs no model.
    #[must_use]
    pub fn search_words(&self, query: &str, options: &SearchOptions) -> Vec<Hit<'_>> {
        let worded = self.worded(query, options, options.top_k);
        self.hits(&worded, &[], &worded)
    }

    /// The document of this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Document> {
        self.entries[*self.row_of.get(id)?].as_ref()
    }

    /// The documents with their vectors of length 1, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&Document, &[f32])> {
        let rows = self.entries.iter().enumerate();
        rows.filter_map(|(row, entry)| Some((entry.as_ref()?, self.rows.row(row))))
    }

    /// Number of documents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.row_of.len()
    }

    /// Whether there is no document.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.row_of.is_empty()
    }

    /// Numbers of a vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.rows.width()
    }

    /// The model that made the vectors; `None` for vectors of the caller.
    #[must_use]
    pub fn model(&self) -> Option<&ModelIdentity> {
        self.model.as_ref()
    }

    /// What the caller wants to be saved with the index.
    #[must_use]
    pub fn attributes(&self) -> &Map<String, Value> {
        &self.attributes
    }

    /// As [`SemanticIndex::attributes`], to be changed.
    pub fn attributes_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.attributes
    }

    fn push(&mut self, document: Document, unit: &[f32]) {
        self.rows.push(unit);
        if let Some(keywords) = self.keywords.get_mut() {
            keywords.push(&document.text);
        }
        self.row_of.insert(document.id.clone(), self.entries.len());
        self.entries.push(Some(document));
    }

    /// Leaves out the rows of removed documents.
    fn compact(&mut self) {
        self.rows.retain(|row| self.entries[row].is_some());
        self.entries.retain(Option::is_some);
        for (row, entry) in self.entries.iter().enumerate() {
            if let Some(number) = entry
                .as_ref()
                .and_then(|entry| self.row_of.get_mut(&entry.id))
            {
                *number = row;
            }
        }
        self.keywords = OnceLock::new();
    }

    pub(super) fn require_model(&self, embedder: &Embedder) -> Result<(), Error> {
        let Some(indexed) = &self.model else {
            return Err(SearchError::NoModel.into());
        };
        let asked = embedder.identity()?;
        if indexed.agrees(asked) {
            return Ok(());
        }
        Err(SearchError::OtherModel {
            indexed: Box::new(indexed.clone()),
            asked: Box::new(asked.clone()),
        }
        .into())
    }

    fn require_new(&self, documents: &[Document]) -> Result<(), SearchError> {
        let limit = MAX_DOCUMENTS;
        if documents.len() > limit - self.entries.len() {
            return Err(SearchError::Full { limit });
        }
        let mut ids = HashSet::with_capacity(documents.len());
        let again = documents
            .iter()
            .find(|document| self.row_of.contains_key(&document.id) || !ids.insert(&document.id));
        match again {
            Some(document) => Err(SearchError::DuplicateId {
                id: document.id.clone(),
            }),
            None => Ok(()),
        }
    }

    fn row(&self, id: &str) -> Result<usize, SearchError> {
        let row = self.row_of.get(id).copied();
        row.ok_or_else(|| SearchError::UnknownId { id: id.to_owned() })
    }

    /// The vector scaled to length 1.
    fn unit(&self, what: &str, vector: &[f32]) -> Result<Vec<f32>, SearchError> {
        let (found, expected) = (vector.len(), self.dimensions());
        if found != expected {
            return Err(SearchError::Width { found, expected });
        }
        unit(vector).ok_or_else(|| SearchError::NoDirection {
            what: what.to_owned(),
        })
    }

    /// Whether each row may be found.
    fn allowed(&self, options: &SearchOptions) -> Vec<bool> {
        let passes = |document: &Document| match &options.filter {
            Some(filter) => filter.passes(&document.metadata),
            None => true,
        };
        let entries = self.entries.iter();
        entries
            .map(|entry| entry.as_ref().is_some_and(passes))
            .collect()
    }

    fn nearest(
        &self,
        vector: &[f32],
        options: &SearchOptions,
        count: usize,
    ) -> Result<Vec<(usize, f64)>, SearchError> {
        let unit = self.unit("the query", vector)?;
        let allowed = self.allowed(options);
        let nearest = self.rows.nearest(&unit, count, |row| allowed[row]);
        Ok(self.best(nearest, count))
    }

    fn worded(&self, query: &str, options: &SearchOptions, count: usize) -> Vec<(usize, f64)> {
        let allowed = self.allowed(options);
        let found = self.keywords().search(query, |row| allowed[row]);
        self.best(found, count)
    }

    fn keywords(&self) -> &KeywordIndex {
        self.keywords.get_or_init(|| {
            let mut keywords = KeywordIndex::default();
            for (row, entry) in self.entries.iter().enumerate() {
                keywords.push(entry.as_ref().map_or("", |document| &document.text));
                if entry.is_none() {
                    keywords.remove(row, "");
                }
            }
            keywords
        })
    }

    /// The rows with the highest scores, best first; of equal ones the smaller id.
    fn best(&self, mut scored: Vec<(usize, f64)>, count: usize) -> Vec<(usize, f64)> {
        let id = |row: usize| self.entries[row].as_ref().map(|document| &document.id);
        let order = |a: &(usize, f64), b: &(usize, f64)| {
            b.1.total_cmp(&a.1).then_with(|| id(a.0).cmp(&id(b.0)))
        };
        if count < scored.len() {
            scored.select_nth_unstable_by(count, order);
            scored.truncate(count);
        }
        scored.sort_unstable_by(order);
        scored
    }

    fn hits(
        &self,
        best: &[(usize, f64)],
        nearest: &[(usize, f64)],
        worded: &[(usize, f64)],
    ) -> Vec<Hit<'_>> {
        let by_row =
            |scored: &[(usize, f64)]| -> HashMap<usize, f64> { scored.iter().copied().collect() };
        let (cosines, bm25) = (by_row(nearest), by_row(worded));
        let hit = |&(row, score): &(usize, f64)| {
            let document = self.entries[row].as_ref()?;
            Some(Hit {
                id: &document.id,
                score,
                cosine: cosines.get(&row).copied(),
                bm25: bm25.get(&row).copied(),
                text: &document.text,
                metadata: &document.metadata,
            })
        };
        best.iter().filter_map(hit).collect()
    }
}
