//! Log-probabilities of the tokens of an answer.

use std::collections::VecDeque;

use dunlin_text::{TokenId, Tokenizer};

/// A token of an answer, and how likely it was.
///
/// The probabilities are the model's own: the softmax of its scores before penalties, temperature and all other steps of the
/// sampler, as OpenAI's API gives them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TokenLogprob {
    /// The token.
    pub token: TokenId,
    /// Its bytes on its own; a character may be spread over several tokens.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens at its place, the likeliest first; as many as were asked for. It may itself be among them.
    pub top: Vec<TopLogprob>,
}

/// One of the likeliest tokens at a place.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TopLogprob {
    /// The token.
    pub token: TokenId,
    /// Its bytes on its own.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

impl TokenLogprob {
    /// The text of the token; bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl TopLogprob {
    /// The text of the token; bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Keeps the log-probabilities of a generation. Tokens are chosen some time before they become part of the answer.
pub(super) struct Recorder {
    top: usize,
    /// The model's scores at the present place, because the sampler works in them.
    scores: Vec<f32>,
    order: Vec<u32>,
    pending: VecDeque<TokenLogprob>,
    answer: Vec<TokenLogprob>,
    /// The end-of-generation token.
    end: Option<TokenLogprob>,
}

impl Recorder {
    pub(super) fn new(top: usize) -> Self {
        Recorder {
            top,
            scores: Vec::new(),
            order: Vec::new(),
            pending: VecDeque::new(),
            answer: Vec::new(),
            end: None,
        }
    }

    /// Remembers the model's scores.
    pub(super) fn look(&mut self, scores: &[f32]) {
        self.scores.clear();
        self.scores.extend_from_slice(scores);
    }

    /// Says which token was chosen from them.
    pub(super) fn note(&mut self, token: TokenId, tokenizer: &Tokenizer) {
        let normalizer = log_sum_exp(&self.scores);
        let bytes = |token| tokenizer.piece_bytes(token).unwrap_or_default();
        let logprob = |token: TokenId| (f64::from(self.scores[token as usize]) - normalizer) as f32;
        let scores = &self.scores;
        let top = likeliest(scores, self.top, &mut self.order)
            .iter()
            .map(|token| TopLogprob {
                token: *token,
                bytes: bytes(*token),
                logprob: logprob(*token),
            });
        self.pending.push_back(TokenLogprob {
            token,
            bytes: bytes(token),
            logprob: logprob(token),
            top: top.collect(),
        });
    }

    /// The next token is part of the answer.
    pub(super) fn take(&mut self) {
        self.answer.extend(self.pending.pop_front());
    }

    /// The next token ends the answer and is not part of it.
    pub(super) fn end(&mut self) {
        self.end = self.pending.pop_front();
    }

    pub(super) fn answer(&self) -> &[TokenLogprob] {
        &self.answer
    }

    pub(super) fn into_answer(self) -> Vec<TokenLogprob> {
        self.answer
    }

    /// Mean over the answer and the token that ended it; `None` where there is neither.
    pub(super) fn mean(&self) -> Option<f64> {
        let all = || self.answer.iter().chain(&self.end);
        let count = all().count();
        let sum: f64 = all().map(|token| f64::from(token.logprob)).sum();
        (count > 0).then(|| sum / count as f64)
    }
}

/// `ln(sum(exp(scores)))`, what is to be subtracted from scores to make them log-probabilities.
pub(crate) fn log_sum_exp(scores: &[f32]) -> f64 {
    let largest = f64::from(scores.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let exp = |score: &f32| (f64::from(*score) - largest).exp();
    largest + scores.iter().map(exp).sum::<f64>().ln()
}

/// The tokens with the largest scores, the lowest ids first among equal ones. `order` is a buffer.
fn likeliest<'a>(scores: &[f32], count: usize, order: &'a mut Vec<u32>) -> &'a [TokenId] {
    order.clear();
    if count == 0 {
        return order;
    }
    order.extend(0..scores.len() as u32);
    let compare = |a: &u32, b: &u32| {
        let by_score = scores[*b as usize].total_cmp(&scores[*a as usize]);
        by_score.then(a.cmp(b))
    };
    if count < order.len() {
        order.select_nth_unstable_by(count, compare);
        order.truncate(count);
    }
    order.sort_unstable_by(compare);
    order
}
