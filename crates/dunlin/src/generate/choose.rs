//! The choice of a token: by the sampler, among those that the form of the answer allows.

use std::collections::VecDeque;

use dunlin_engine::{Sampler, SamplerConfig};
use dunlin_text::{Constraint, TokenId};

use super::FormatState;
use crate::Error;

/// A sampler and the form that its choices must keep.
pub(super) struct Chooser {
    sampler: Sampler,
    /// The sampler takes the largest score and changes none, so that it can be asked twice.
    is_plain: bool,
    constraint: Option<Constraint>,
    /// Tokens that must come next, and that the constraint has seen already.
    forced: VecDeque<TokenId>,
    /// Tokens that must come next are chosen as others are, because the scores at their places are wanted.
    one_by_one: bool,
}

impl Chooser {
    pub(super) fn new(sampler: Sampler, constraint: Option<Constraint>, one_by_one: bool) -> Self {
        let config = sampler.config();
        let plain = SamplerConfig {
            seed: config.seed,
            ..SamplerConfig::greedy()
        };
        Chooser {
            is_plain: *config == plain,
            sampler,
            constraint,
            forced: VecDeque::new(),
            one_by_one,
        }
    }

    /// The token after `history`, and what must come after it is known then. `scores`: those of the model, which are used up.
    ///
    /// # Errors
    /// What the sampler or the grammar says.
    pub(super) fn choose(
        &mut self,
        scores: &mut [f32],
        history: &[TokenId],
    ) -> Result<TokenId, Error> {
        if let Some(token) = self.forced.pop_front() {
            return Ok(token);
        }
        let Some(constraint) = &mut self.constraint else {
            return Ok(self.sampler.sample(scores, history)?);
        };
        // The likeliest token of all is the likeliest of those that are allowed, where it is one of them.
        let first = match self.is_plain {
            true => Some(self.sampler.sample(scores, history)?),
            false => None,
        };
        let token = match first {
            Some(token) if constraint.allows(token)? => token,
            _ => {
                constraint.mask(scores)?;
                self.sampler.sample(scores, history)?
            }
        };
        constraint.commit(token)?;
        self.find_forced()?;
        Ok(token)
    }

    /// Lets these tokens come next, whatever the model says, and what must come after them.
    ///
    /// # Errors
    /// What the grammar says, also against one of the tokens.
    pub(super) fn force(&mut self, tokens: Vec<TokenId>) -> Result<(), Error> {
        if let Some(constraint) = &mut self.constraint {
            for token in &tokens {
                constraint.commit(*token)?;
            }
        }
        self.forced.extend(tokens);
        self.find_forced()
    }

    /// Looks for tokens that must come next.
    ///
    /// # Errors
    /// What the grammar says.
    fn find_forced(&mut self) -> Result<(), Error> {
        if let Some(constraint) = &mut self.constraint {
            self.forced.extend(constraint.take_forced()?);
        }
        Ok(())
    }

    /// Gives out the tokens that must come next, where they need not be chosen.
    pub(super) fn drain_forced(&mut self) -> impl Iterator<Item = TokenId> {
        let count = match self.one_by_one {
            true => 0,
            false => self.forced.len(),
        };
        self.forced.drain(..count)
    }

    /// Whether the form decides about tokens, ends of the answer included.
    pub(super) fn is_bound(&self) -> bool {
        self.constraint.as_ref().is_some_and(Constraint::is_active)
    }

    /// Whether the answer has its form, and nothing may follow.
    pub(super) fn is_finished(&self) -> bool {
        self.forced.is_empty()
            && self
                .constraint
                .as_ref()
                .is_some_and(Constraint::is_finished)
    }

    pub(super) fn state(&mut self) -> Result<FormatState, Error> {
        Ok(match &mut self.constraint {
            None => FormatState::Free,
            Some(constraint) if !constraint.is_active() => FormatState::Waiting,
            Some(constraint) => match constraint.is_complete()? {
                true if self.forced.is_empty() => FormatState::Complete,
                _ => FormatState::Open,
            },
        })
    }
}
