//! What an embedding model wants to be written before a query and before a document.

use dunlin_engine::Pooling;

use crate::Lm;

/// What is written before a query and before a document, so that the model knows which it reads.
///
/// Many models were trained with such words, and find less without them. GGUF has no key for them: they stand in the model's
/// card, or in `config_sentence_transformers.json` of its repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// Before a query.
    pub query: String,
    /// Before a document.
    pub document: String,
}

const SEARCH_PASSAGES: &str = "Represent this sentence for searching relevant passages: ";
const INSTRUCTION: &str =
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:";

/// Parts of model names (in small letters, `-` for everything that is no letter or digit) with the words before queries and
/// documents, as the models' cards give them. The first part that a name contains counts.
const BY_NAME: [(&str, &str, &str); 15] = [
    ("nomic-embed-text", "search_query: ", "search_document: "),
    ("modernbert-embed", "search_query: ", "search_document: "),
    ("multilingual-e5-large-instruct", SPACED_INSTRUCTION, ""),
    ("multilingual-e5-", "query: ", "passage: "),
    ("e5-small", "query: ", "passage: "),
    ("e5-base", "query: ", "passage: "),
    ("e5-large", "query: ", "passage: "),
    ("bge-small-en", SEARCH_PASSAGES, ""),
    ("bge-base-en", SEARCH_PASSAGES, ""),
    ("bge-large-en", SEARCH_PASSAGES, ""),
    ("mxbai-embed-large", SEARCH_PASSAGES, ""),
    ("arctic-embed-l-v2", "query: ", ""),
    ("arctic-embed-m-v2", "query: ", ""),
    ("arctic-embed", SEARCH_PASSAGES, ""),
    ("qwen3-embedding", INSTRUCTION, ""),
];
const SPACED_INSTRUCTION: &str =
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ";
/// EmbeddingGemma has an architecture of its own, which tells better than a name.
const GEMMA: (&str, &str, &str) = (
    "gemma-embedding",
    "task: search result | query: ",
    "title: none | text: ",
);

impl Prefixes {
    /// These words.
    #[must_use]
    pub fn new(query: impl Into<String>, document: impl Into<String>) -> Self {
        Prefixes {
            query: query.into(),
            document: document.into(),
        }
    }

    /// No words, for models that were trained without.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of the model, by its name in the file, its card, or its file name: Nomic Embed, ModernBERT Embed, E5, BGE (English),
    /// mxbai-embed-large, Arctic Embed, Qwen3 Embedding and EmbeddingGemma have some. `None` for a model that is not known to
    /// have any (all-MiniLM has none).
    #[must_use]
    pub fn of_model(lm: &Lm) -> Option<Self> {
        if lm.spec().architecture == GEMMA.0 {
            return Some(Self::new(GEMMA.1, GEMMA.2));
        }
        // A decoder that writes has no such words, whatever its name.
        lm.spec()
            .pooling
            .filter(|pooling| *pooling != Pooling::Rank)?;
        let file = lm.path().file_name().map(|name| name.to_string_lossy());
        let names = [
            lm.info().name.as_deref(),
            lm.card().map(|card| card.name.as_str()),
            file.as_deref(),
        ];
        names.into_iter().flatten().find_map(Self::of_name)
    }

    fn of_name(name: &str) -> Option<Self> {
        let letters = name.to_lowercase();
        let name: String = letters
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let found = BY_NAME.iter().find(|(part, _, _)| name.contains(part));
        found.map(|(_, query, document)| Self::new(*query, *document))
    }
}

#[cfg(test)]
mod tests {
    use super::Prefixes;

    #[test]
    fn names_are_found_however_they_are_spelled() {
        let query = |name: &str| Prefixes::of_name(name).map(|prefixes| prefixes.query);
        assert_eq!(
            query("Nomic Embed Text v1.5").as_deref(),
            Some("search_query: ")
        );
        assert_eq!(
            query("intfloat_multilingual-e5-small.Q8_0.gguf").as_deref(),
            Some("query: ")
        );
        assert_eq!(
            query("snowflake-arctic-embed-l-v2.0").as_deref(),
            Some("query: ")
        );
        let bge = query("bge-small-en-v1.5").unwrap();
        assert!(bge.starts_with("Represent this sentence"));
        assert_eq!(query("all-MiniLM-L6-v2"), None);
        assert_eq!(query("bge-m3"), None);
    }

    #[test]
    fn instructions_come_before_their_shorter_namesakes() {
        let instructed = Prefixes::of_name("multilingual-e5-large-instruct").unwrap();
        assert!(instructed.query.starts_with("Instruct: ") && instructed.document.is_empty());
    }
}
