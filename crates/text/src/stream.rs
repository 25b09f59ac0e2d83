//! Text as it is generated: a token can end in the middle of a character.

use crate::{TextError, TokenId, Tokenizer};

/// Turns tokens into text one by one. What it has returned, put together, is
/// [`Tokenizer::decode`] of all tokens.
#[derive(Clone, Debug)]
pub struct DecodeStream {
    tokenizer: Tokenizer,
    render_special: bool,
    /// Control tokens that are text here.
    shown: Vec<TokenId>,
    /// Whether the space that the tokenizer puts before a text is still to come.
    at_start: bool,
    /// The bytes of a character that is not complete.
    pending: Vec<u8>,
}

impl DecodeStream {
    pub(crate) fn new(tokenizer: Tokenizer, render_special: bool, at_start: bool) -> Self {
        Self {
            tokenizer,
            render_special,
            shown: Vec::new(),
            at_start,
            pending: Vec::new(),
        }
    }

    /// The same stream, with these control tokens as part of the text: markers that a reader of tool
    /// calls or of reasoning has to see.
    #[must_use]
    pub fn showing(mut self, tokens: &[TokenId]) -> Self {
        self.shown.extend_from_slice(tokens);
        self
    }

    /// Adds a token and returns the text that is complete with it, often none or more than one
    /// token's. Bytes that cannot become a character any more are U+FFFD.
    ///
    /// # Errors
    ///
    /// [`TextError::UnknownToken`] for an id beyond the vocabulary.
    pub fn push(&mut self, id: TokenId) -> Result<String, TextError> {
        let Self {
            tokenizer,
            pending,
            at_start,
            render_special,
            shown,
        } = self;
        let visible = *render_special || shown.contains(&id);
        tokenizer.append_bytes(id, visible, at_start, pending)?;
        let mut text = String::with_capacity(pending.len());
        let mut done = 0;
        loop {
            match std::str::from_utf8(&pending[done..]) {
                Ok(rest) => {
                    text.push_str(rest);
                    done = pending.len();
                    break;
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&pending[done..valid]));
                    done = valid;
                    let Some(invalid) = error.error_len() else {
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    done += invalid;
                }
            }
        }
        pending.drain(..done);
        Ok(text)
    }

    /// The text that is left: U+FFFD where the last character is not complete, else nothing.
    #[must_use]
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }

    /// Whether a character is held back until its last byte comes.
    #[must_use]
    pub fn is_holding_back(&self) -> bool {
        !self.pending.is_empty()
    }
}
