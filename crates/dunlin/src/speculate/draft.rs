//! Guesses of a small model.

use std::fmt;

use dunlin_engine::Logits;
use dunlin_hub::ModelRef;
use dunlin_text::{TokenId, TokenKind, Tokenizer};
use std::time::Instant;

use super::pace::{CLASSES, Rates, StepCosts, best_length};
use super::{DraftLength, require_going_back};
use crate::state::State;
use crate::{Error, Lm, LoadOptions};

/// Probabilities that the small model gives its guess, from which on the chance of it is told apart.
const SURE: [f32; CLASSES] = [0.0, 0.3, 0.5, 0.7, 0.85, 0.95];
/// Chances before any guess was judged.
const USUAL_CHANCES: [f64; CLASSES] = [0.2, 0.4, 0.55, 0.7, 0.85, 0.95];
/// Steps without guesses after which one is tried again.
const REST: u32 = 32;
/// Tokens that are taken back one by one at most; what differs more is another text.
const TAKEN_BACK: usize = 2 * super::MOST_TOKENS;

/// A small model that guesses for larger ones with the same vocabulary. Clones share it; generations on several threads that do
/// so take turns, which costs their speed.
#[derive(Clone)]
pub struct DraftModel {
    lm: Lm,
}

impl fmt::Debug for DraftModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DraftModel").field(&self.lm.path()).finish()
    }
}

impl DraftModel {
    /// Loads a model for guessing. Its context should be as long as that of the model it guesses for: it stops guessing at
    /// its own.
    ///
    /// # Errors
    /// As [`Lm::load`]; [`Error::CannotGenerate`] for a model that does not write, [`Error::CannotSpeculate`] for one that
    /// cannot take back a guess.
    pub fn load(model: ModelRef, options: LoadOptions<'_>) -> Result<Self, Error> {
        let lm = Lm::load(model, options)?;
        lm.check_writes()?;
        require_going_back(&lm)?;
        Ok(DraftModel { lm })
    }

    /// Whether this model's tokens are those of another one. Padding at the end of a vocabulary does not count.
    ///
    /// # Errors
    /// [`Error::DraftVocabulary`] with the first difference.
    pub fn check_vocabulary(&self, tokenizer: &Tokenizer) -> Result<(), Error> {
        let own = self.lm.tokenizer();
        let most = own.vocab_size().max(tokenizer.vocab_size());
        let is_padding = |tokenizer: &Tokenizer, id| {
            let kind = tokenizer.kind(id);
            matches!(kind, None | Some(TokenKind::Unused))
        };
        let differs = |id: &TokenId| {
            own.token_text(*id) != tokenizer.token_text(*id)
                && !(is_padding(own, *id) && is_padding(tokenizer, *id))
        };
        match (0..most as TokenId).find(differs) {
            None => Ok(()),
            Some(id) => Err(Error::DraftVocabulary {
                draft_size: own.vocab_size(),
                size: tokenizer.vocab_size(),
                id,
                draft_token: own.token_text(id).unwrap_or_default().to_owned(),
                token: tokenizer.token_text(id).unwrap_or_default().to_owned(),
            }),
        }
    }
}

/// The guesses of a small model in one generation.
pub(crate) struct DraftSpeculator {
    model: DraftModel,
    length: DraftLength,
    /// Tokens that both models know.
    vocab_size: usize,
    rates: Rates,
    /// How often guesses of any kind were right.
    overall: Rates,
    /// The last guesses and their classes.
    guesses: Vec<(TokenId, usize)>,
    rested: u32,
}

impl DraftSpeculator {
    /// # Errors
    /// [`Error::DraftVocabulary`].
    pub(super) fn new(
        model: &DraftModel,
        length: DraftLength,
        tokenizer: &Tokenizer,
    ) -> Result<Self, Error> {
        model.check_vocabulary(tokenizer)?;
        Ok(DraftSpeculator {
            model: model.clone(),
            length,
            vocab_size: tokenizer
                .vocab_size()
                .min(model.lm.tokenizer().vocab_size()),
            rates: Rates::new(USUAL_CHANCES),
            overall: Rates::new([0.7; CLASSES]),
            guesses: Vec::new(),
            rested: 0,
        })
    }

    pub(super) fn propose(
        &mut self,
        text: &mut Vec<TokenId>,
        limit: usize,
        costs: &StepCosts,
    ) -> Result<(), Error> {
        self.guesses.clear();
        let model = self.model.clone();
        // The text and all guesses but the last are computed.
        let room = (model.lm.context_length() + 1).saturating_sub(text.len());
        let limit = limit.min(room);
        let mut state = model.lm.lock();
        let seconds = state.step_costs().one_token();
        let own_cost = match (seconds, costs.one_token()) {
            (Some(own), Some(one)) => own / one,
            // A guess at it, until both were measured.
            _ => 0.2,
        };
        let planned = self.length.choose(limit, || {
            let chance = self.overall.chance(0);
            best_length(
                [chance; super::MOST_TOKENS].into_iter().take(limit),
                own_cost,
                costs,
            )
        });
        let wanted = match planned {
            0 if self.rested < REST || self.length != DraftLength::Adaptive => {
                self.rested += 1;
                return Ok(());
            }
            0 => 1.min(limit),
            planned => planned,
        };
        self.rested = 0;
        while self.guesses.len() < wanted {
            let (token, probability) = self.guess(&mut state, text)?;
            let class = SURE
                .iter()
                .rposition(|from| *from <= probability)
                .unwrap_or(0);
            if self.length == DraftLength::Adaptive {
                let made = self.guesses.iter().map(|(_, class)| *class);
                let chances = made.chain([class]).map(|class| self.rates.chance(class));
                if best_length(chances, own_cost, costs) <= self.guesses.len() {
                    // The guess does not pay. The first one is judged all the same, to see whether it would have been right.
                    if self.guesses.is_empty() {
                        self.guesses.push((token, class));
                    }
                    break;
                }
            }
            self.guesses.push((token, class));
            text.push(token);
        }
        Ok(())
    }

    /// Computes what the model has not seen of the text, and returns its likeliest next token and the probability of that.
    fn guess(&self, state: &mut State, text: &[TokenId]) -> Result<(TokenId, f32), Error> {
        let pairs = state.tokens().iter().zip(text);
        let same = pairs.take_while(|(seen, token)| seen == token).count();
        let same = same.min(text.len() - 1);
        if state.tokens().len() - same > TAKEN_BACK || state.tokens().is_empty() {
            state.reuse(text, &[])?;
        } else {
            state.cut(same)?;
        }
        let mut likeliest = (0, f32::NEG_INFINITY);
        let mut probability = 0.0;
        while state.tokens().len() < text.len() {
            let from = state.tokens().len();
            let to = text.len().min(from + state.max_batch());
            let wanted = match to == text.len() {
                true => Logits::Last,
                false => Logits::None,
            };
            let started = Instant::now();
            state.append(&text[from..to], wanted, |_, logits| {
                let logits = &logits[..logits.len().min(self.vocab_size)];
                for (token, logit) in (0..).zip(logits) {
                    if *logit > likeliest.1 {
                        likeliest = (token, *logit);
                    }
                }
                let sum: f32 = logits.iter().map(|logit| (logit - likeliest.1).exp()).sum();
                probability = 1.0 / sum;
            })?;
            state.learn_cost(to - from, started.elapsed());
        }
        Ok((likeliest.0, probability))
    }

    pub(super) fn learn(&mut self, chosen: impl Iterator<Item = TokenId>) {
        for ((guess, class), chosen) in self.guesses.iter().zip(chosen) {
            self.rates.learn(*class, *guess == chosen);
            self.overall.learn(0, *guess == chosen);
        }
    }
}
