//! How well texts answer a query.

use std::ops::ControlFlow;

use dunlin_engine::{EngineError, Input};
use dunlin_hub::ModelRef;
use dunlin_text::{ChatTemplate, TemplateInput, TokenId};
use serde_json::{Map, json};

use crate::embed::{check_length, in_groups, require_numbers};
use crate::prompt::{SpecialTexts, encode_conversation};
use crate::{Error, Lm, LoadOptions};

/// Metadata key of the form in which a decoder reads query and document.
const TEMPLATE_KEY: &str = "tokenizer.chat_template.rerank";

/// How query and documents are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RerankOptions {
    /// Cut a document that is too long beside its query at its end instead of refusing it.
    pub truncate: bool,
}

impl RerankOptions {
    /// With documents that are too long cut, or refused.
    #[must_use]
    pub fn with_truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }
}

/// Scores how well texts answer a query (a cross-encoder): it reads both together, which is slower than comparing
/// embeddings and knows more.
///
/// Scores are what the model's head gives, before any sigmoid: higher is better, and only scores for the same query can be
/// compared. Rerankers that answer "yes" or "no" (Qwen 3) give the probability of "yes".
#[derive(Clone)]
pub struct Reranker {
    lm: Lm,
    options: RerankOptions,
    /// Which of the head's scores counts.
    label: usize,
    /// The parts of the text around query and document, for decoders.
    form: Option<[String; 3]>,
}

impl Reranker {
    /// Loads the model of this name with all defaults: see [`Lm::load_from_model_id`].
    ///
    /// # Errors
    /// As [`Reranker::load`].
    pub fn load_from_model_id(id: &str) -> Result<Self, Error> {
        Self::load(
            id.parse()?,
            LoadOptions::default(),
            RerankOptions::default(),
        )
    }

    /// Loads a model.
    ///
    /// # Errors
    /// As [`Lm::load`] and [`Reranker::new`].
    pub fn load(
        model: ModelRef,
        load: LoadOptions<'_>,
        options: RerankOptions,
    ) -> Result<Self, Error> {
        Self::new(Lm::load(model, load)?, options)
    }

    /// Scores with a loaded model.
    ///
    /// # Errors
    /// [`EngineError::NoClassifier`] for a model that has no head to score with, [`Error::ManyLabels`] for one that sorts
    /// texts into classes.
    pub fn new(lm: Lm, options: RerankOptions) -> Result<Self, Error> {
        let Some(classifier) = &lm.spec().classifier else {
            return Err(EngineError::NoClassifier.into());
        };
        let yes = classifier.label_names.iter().position(|name| name == "yes");
        let label = match (classifier.labels, yes) {
            (1, _) => 0,
            (_, Some(yes)) => yes,
            (labels, None) => return Err(Error::ManyLabels { labels }),
        };
        let form = lm
            .text()
            .metadata()
            .str(TEMPLATE_KEY)?
            .and_then(parts_of_form);
        Ok(Reranker {
            lm,
            options,
            label,
            form,
        })
    }

    /// One score a document, in their order.
    ///
    /// # Errors
    /// [`Error::TextTooLong`] for a query and document that do not fit together, unless the options say to cut;
    /// [`Error::Text`] for a text that the vocabulary cannot express, or a tokenizer that has no form for two texts. Either
    /// is found before the first document is computed.
    pub fn rerank(&self, query: &str, documents: &[impl AsRef<str>]) -> Result<Vec<f32>, Error> {
        self.rerank_with(query, documents, &mut |_, _| ControlFlow::Continue(()))
    }

    /// As [`Reranker::rerank`]; now and then `progress` is told how many of how many are done, and ends the work
    /// with [`Error::Cancelled`] by [`ControlFlow::Break`].
    ///
    /// # Errors
    /// As [`Reranker::rerank`].
    pub fn rerank_with(
        &self,
        query: &str,
        documents: &[impl AsRef<str>],
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Vec<f32>, Error> {
        let inputs: Vec<(Vec<TokenId>, Vec<u32>)> = documents
            .iter()
            .enumerate()
            .map(|(index, document)| self.encode(index, query, document.as_ref()))
            .collect::<Result<_, _>>()?;
        let inputs: Vec<Input<'_>> = inputs
            .iter()
            .map(|(tokens, token_types)| Input {
                tokens,
                token_types,
            })
            .collect();
        in_groups(&self.lm, &inputs, progress, |group| self.compute(group))
    }

    /// The score of these token ids, exactly as they are: query, document and special tokens in one. `token_types` has one
    /// type an id (0 for the query's, 1 for the document's), or is empty: all 0.
    ///
    /// # Errors
    /// [`Error::TextTooLong`]; [`Error::EmptyPrompt`]; [`Error::Engine`] for an id or a type outside the model's tables.
    pub fn rank_ids(&self, ids: &[TokenId], token_types: &[u32]) -> Result<f32, Error> {
        check_length(self.lm.context_length(), 0, ids.len())?;
        let input = Input {
            tokens: ids,
            token_types,
        };
        Ok(self.compute(&[input])?.remove(0))
    }

    /// The score of two lists of ids, without special tokens, joined as the model joins two texts: `[CLS] query [SEP]
    /// document [SEP]` with their token types for BERT.
    ///
    /// # Errors
    /// As [`Reranker::rank_ids`], and [`Error::Text`] where the tokenizer has no form for two texts.
    pub fn rank_pair(&self, query: &[TokenId], document: &[TokenId]) -> Result<f32, Error> {
        let (ids, types) = self.lm.tokenizer().join_pair(query.to_vec(), document)?;
        self.rank_ids(&ids, &self.types_that_count(types))
    }

    /// Tokens that query, document and special tokens can have together.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.lm.context_length()
    }

    /// The model.
    #[must_use]
    pub fn lm(&self) -> &Lm {
        &self.lm
    }

    fn compute(&self, inputs: &[Input<'_>]) -> Result<Vec<f32>, Error> {
        if inputs.iter().any(|input| input.tokens.is_empty()) {
            return Err(Error::EmptyPrompt);
        }
        let scores = self.lm.lock().rank(inputs)?;
        let of_label = |scores: &Vec<f32>| {
            require_numbers(scores)?;
            let score = scores.get(self.label).copied();
            score.ok_or_else(|| EngineError::NoClassifier.into())
        };
        scores.iter().map(of_label).collect()
    }

    fn encode(
        &self,
        index: usize,
        query: &str,
        document: &str,
    ) -> Result<(Vec<TokenId>, Vec<u32>), Error> {
        if let Some(form) = &self.form {
            return Ok((
                self.encode_in_form(index, form, query, document)?,
                Vec::new(),
            ));
        }
        let tokenizer = self.lm.tokenizer();
        let query = tokenizer.encode(query, false)?;
        let mut document = tokenizer.encode(document, false)?;
        if self.options.truncate {
            let (special, _) = tokenizer.join_pair(Vec::new(), &[])?;
            let taken = query.len() + special.len();
            document.truncate(self.max_tokens().saturating_sub(taken));
        }
        let (ids, types) = tokenizer.join_pair(query, &document)?;
        check_length(self.lm.context_length(), index, ids.len())?;
        Ok((ids, self.types_that_count(types)))
    }

    /// The ids of query and document in the model's own words. No text in them becomes a control token.
    fn encode_in_form(
        &self,
        index: usize,
        form: &[String; 3],
        query: &str,
        document: &str,
    ) -> Result<Vec<TokenId>, Error> {
        const SOURCE: &str = "{{ before }}{{ messages[0].content }}{{ between }}{{ messages[1].content }}{{ after }}";
        let tokenizer = self.lm.tokenizer();
        let template = ChatTemplate::new(SOURCE, None, None)?;
        let special = SpecialTexts::of(tokenizer);
        let variables = ["before", "between", "after"].into_iter().zip(form);
        let extra: Map<_, _> = variables
            .map(|(name, text)| (name.to_owned(), text.as_str().into()))
            .collect();
        let mut document = document;
        loop {
            let input = TemplateInput {
                messages: vec![
                    json!({"role": "user", "content": query}),
                    json!({"role": "user", "content": document}),
                ],
                tools: None,
                add_generation_prompt: false,
                extra: extra.clone(),
                now: None,
            };
            let ids = encode_conversation(tokenizer, &special, &template, &input)?;
            let excess = ids.len().saturating_sub(self.max_tokens());
            if excess == 0 || !self.options.truncate || document.is_empty() {
                check_length(self.lm.context_length(), index, ids.len())?;
                return Ok(ids);
            }
            // A token has at least one byte: this never cuts more than needed, and often less.
            document = start_of(document, document.len().saturating_sub(excess));
        }
    }

    /// The types of the tokens, for models that have a table of them.
    fn types_that_count(&self, types: Vec<u32>) -> Vec<u32> {
        if self.lm.spec().token_types > 1 {
            types
        } else {
            Vec::new()
        }
    }
}

/// What stands before `{query}`, between it and `{document}`, and behind.
fn parts_of_form(form: &str) -> Option<[String; 3]> {
    let (before, rest) = form.split_once("{query}")?;
    let (between, after) = rest.split_once("{document}")?;
    Some([before, between, after].map(str::to_owned))
}

/// The first `length` bytes of a text, or fewer where a character would be cut.
fn start_of(text: &str, length: usize) -> &str {
    let end = (0..=length.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::{parts_of_form, start_of};

    #[test]
    fn a_form_has_a_place_for_query_and_document() {
        let parts = parts_of_form("<q>{query}<d>{document}!").unwrap();
        assert_eq!(parts, ["<q>", "<d>", "!"]);
        assert_eq!(parts_of_form("{document}{query}"), None);
    }

    #[test]
    fn a_cut_leaves_characters_whole() {
        assert_eq!(start_of("aéb", 2), "a");
        assert_eq!(start_of("aéb", 3), "aé");
        assert_eq!(start_of("é", 9), "é");
        assert_eq!(start_of("é", 0), "");
    }
}
