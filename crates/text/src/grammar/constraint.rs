//! One answer on its way through a grammar.

use std::fmt;

use llguidance::Matcher;

use super::Grammar;
use super::compile::plain;
use super::trigger::Trigger;
use crate::{TextError, TokenId};

/// Follows one answer through a [`Grammar`], token by token.
///
/// Before each token either [`Constraint::mask`] forbids in the scores what may not come, or [`Constraint::allows`] is asked about
/// a single token; the chosen one is told to [`Constraint::commit`]. [`Constraint::take_forced`] gives the tokens that must come
/// next, which need no scores at all. A clone goes on independently.
#[derive(Clone)]
pub struct Constraint {
    matcher: Matcher,
    grammar: Grammar,
    /// Until this text has come up, everything is allowed.
    trigger: Option<Trigger>,
    /// Tokens that the grammar has seen.
    seen: usize,
    /// The answer was ended by an end-of-generation token.
    is_ended: bool,
}

impl Constraint {
    pub(super) fn new(matcher: Matcher, grammar: Grammar, trigger: Option<Trigger>) -> Self {
        Constraint {
            matcher,
            grammar,
            trigger,
            seen: 0,
            is_ended: false,
        }
    }

    /// Whether the grammar decides about the next token. It does not before the text that it begins after.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.trigger.as_ref().is_none_or(Trigger::is_found)
    }

    /// Whether what has come so far is a whole text of the grammar, so that the answer may end.
    ///
    /// # Errors
    /// [`TextError::GrammarStopped`].
    pub fn is_complete(&mut self) -> Result<bool, TextError> {
        if !self.is_active() {
            return Ok(false);
        }
        Ok(self.is_ended || self.matcher.is_accepting().map_err(stopped)?)
    }

    /// Whether nothing but the end may follow.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_active() && (self.is_ended || self.matcher.is_stopped())
    }

    /// Whether this token may come next.
    ///
    /// # Errors
    /// [`TextError::GrammarStopped`] where the grammar takes more work than its limits allow.
    pub fn allows(&mut self, token: TokenId) -> Result<bool, TextError> {
        if !self.is_active() {
            return Ok(true);
        }
        if self.grammar.tokenizer().is_end_of_generation(token) {
            return self.is_complete();
        }
        if self.is_finished() {
            return Ok(false);
        }
        let allowed = self.matcher.validate_tokens(&[token]).map_err(stopped)?;
        Ok(allowed == 1)
    }

    /// Sets the scores of all tokens that may not come next to minus infinity. `scores`: one number a token, at most as many as
    /// the vocabulary has.
    ///
    /// # Errors
    /// [`TextError::GrammarStopped`], as [`Constraint::allows`].
    pub fn mask(&mut self, scores: &mut [f32]) -> Result<(), TextError> {
        if !self.is_active() {
            return Ok(());
        }
        if self.is_ended {
            scores.fill(f32::NEG_INFINITY);
            return Ok(());
        }
        let allowed = self.matcher.compute_mask_or_eos().map_err(stopped)?;
        for (scores, mut bits) in scores
            .chunks_mut(32)
            .zip(allowed.as_slice().iter().copied())
        {
            if bits == u32::MAX {
                continue;
            }
            for score in scores {
                if bits & 1 == 0 {
                    *score = f32::NEG_INFINITY;
                }
                bits >>= 1;
            }
        }
        Ok(())
    }

    /// Takes the next token of the answer.
    ///
    /// # Errors
    /// [`TextError::GrammarRefuses`] for a token that may not come next; nothing has changed then.
    /// [`TextError::GrammarStopped`].
    pub fn commit(&mut self, token: TokenId) -> Result<(), TextError> {
        if !self.allows(token)? {
            let text = self.grammar.tokenizer().piece(token).unwrap_or_default();
            return Err(TextError::GrammarRefuses { id: token, text });
        }
        if let Some(trigger) = self.trigger.as_mut().filter(|trigger| !trigger.is_found()) {
            let bytes = self.grammar.tokenizer().piece_bytes(token);
            trigger.push(&bytes.unwrap_or_default());
            return Ok(());
        }
        if self.grammar.tokenizer().is_end_of_generation(token) {
            self.is_ended = true;
        } else {
            self.matcher.consume_token(token).map_err(stopped)?;
        }
        self.seen += 1;
        Ok(())
    }

    /// Takes the tokens that must come next, as the tokenizer itself would write them, and returns them; none where there is a
    /// choice.
    ///
    /// # Errors
    /// [`TextError::GrammarStopped`].
    pub fn take_forced(&mut self) -> Result<Vec<TokenId>, TextError> {
        if !self.is_active() || self.is_finished() {
            return Ok(Vec::new());
        }
        let forced = self.matcher.compute_ff_tokens();
        for token in &forced {
            self.matcher.consume_token(*token).map_err(stopped)?;
            self.seen += 1;
        }
        match self.matcher.get_error() {
            Some(reason) => Err(stopped(reason)),
            None => Ok(forced),
        }
    }

    /// Takes back the last tokens, forced ones included: wrong guesses of a speculation.
    ///
    /// # Errors
    /// [`TextError::GrammarStopped`], also where there were fewer tokens.
    pub fn rollback(&mut self, tokens: usize) -> Result<(), TextError> {
        let mut within = tokens.min(self.seen);
        if let Some(trigger) = &mut self.trigger {
            trigger.pop(tokens - within);
        }
        self.seen -= within;
        if self.is_ended && within > 0 {
            self.is_ended = false;
            within -= 1;
        }
        self.matcher.rollback(within).map_err(stopped)
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint")
            .field("grammar", &self.grammar)
            .field("is_active", &self.is_active())
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

fn stopped(reason: impl fmt::Display) -> TextError {
    TextError::GrammarStopped {
        reason: plain(&reason.to_string()),
    }
}
