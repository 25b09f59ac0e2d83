//! The vocabulary as the matcher reads it: a trie of the bytes of all tokens.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::api::ParserLimits;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId as TrieToken, TokenizerEnv,
};

use crate::tokenizer::WeakTokenizer;
use crate::{TextError, TokenId, TokenKind, Tokenizer};

/// Bytes of all tokens together that the trie's node numbers can count.
const MAX_BYTES: usize = 1 << 22;
/// Bytes of a token that the trie's depth can count. Longer ones (runs of a thousand spaces) never come up in a grammar.
const MAX_TOKEN_BYTES: usize = 1000;

/// What bounds the work of a grammar: steps of the lexer's construction and of each mask, states, items of the parser. Each is
/// far beyond what real schemas take, and ends in an error.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 2000,
    initial_lexer_fuel: 1_000_000,
    step_lexer_fuel: 200_000,
    step_max_items: 50_000,
    max_lexer_states: 50_000,
    max_grammar_size: 200_000,
    precompute_large_lexemes: false,
    verbose_errors: false,
};

/// The trie of a vocabulary, and what compiles grammars for it. Built at the first grammar of a tokenizer.
pub(crate) struct GrammarTokens {
    factory: ParserFactory,
}

impl GrammarTokens {
    /// # Errors
    /// [`TextError::GrammarVocabulary`] for a vocabulary without an end, or too large for the trie.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let env: TokEnv = Arc::new(Environment::new(tokenizer)?);
        let capabilities = InferenceCapabilities {
            ff_tokens: env.tokenize_is_canonical(),
            ..InferenceCapabilities::default()
        };
        let mut factory =
            ParserFactory::new(&env, capabilities, &SlicedBiasComputer::general_slices())
                .map_err(|error| vocabulary(error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        Ok(GrammarTokens { factory })
    }

    pub(crate) fn factory(&self) -> &ParserFactory {
        &self.factory
    }
}

struct Environment {
    /// The tokenizer holds this value, and a [`Grammar`](super::Grammar) the tokenizer.
    tokenizer: WeakTokenizer,
    trie: TokTrie,
}

impl Environment {
    fn new(tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let Some(&end) = tokenizer.end_of_generation().first() else {
            return Err(vocabulary("it has no token that ends an answer".to_owned()));
        };
        let size = tokenizer.vocab_size();
        let pieces: Vec<Vec<u8>> = (0..size as TokenId)
            .map(|id| bytes_of(tokenizer, id))
            .collect();
        let bytes: usize = pieces.iter().map(Vec::len).sum();
        if bytes >= MAX_BYTES {
            return Err(vocabulary(format!(
                "its {size} tokens have {bytes} bytes, and a grammar takes at most {MAX_BYTES}"
            )));
        }
        let info = TokRxInfo {
            tok_bos: tokenizer.bos(),
            ..TokRxInfo::new(size as u32, end)
        };
        let trie = TokTrie::from(&info, &pieces).with_eos_tokens(tokenizer.end_of_generation());
        let tokenizer = tokenizer.downgrade();
        Ok(Environment { tokenizer, trie })
    }
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TrieToken> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            self.encode(text)
                .unwrap_or_else(|| self.trie.greedy_tokenize(text.as_bytes()))
        })
    }
}

impl Environment {
    /// As the model learned to read the text. `None` where the tokens are not this very text, byte for byte, because the
    /// tokenizer normalises it.
    fn encode(&self, text: &str) -> Option<Vec<TokenId>> {
        let ids = self.tokenizer.upgrade()?.encode_within(text).ok()?;
        (self.trie.decode_raw(&ids) == text.as_bytes()).then_some(ids)
    }
}

/// What a token adds to a text. Tokens that are no text stand behind a byte that no text has.
fn bytes_of(tokenizer: &Tokenizer, id: TokenId) -> Vec<u8> {
    let piece = tokenizer.piece_bytes(id).unwrap_or_default();
    let is_text = matches!(
        tokenizer.kind(id),
        Some(TokenKind::Normal | TokenKind::UserDefined | TokenKind::Byte)
    );
    match is_text {
        _ if piece.len() > MAX_TOKEN_BYTES => Vec::new(),
        true => piece,
        false => [&[TokTrie::SPECIAL_TOKEN_MARKER], &piece[..]].concat(),
    }
}

fn vocabulary(reason: String) -> TextError {
    TextError::GrammarVocabulary { reason }
}
