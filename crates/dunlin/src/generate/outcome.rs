//! What comes out of a generation.

use dunlin_text::TokenId;

use super::FormatState;
use super::logprobs::TokenLogprob;

/// One thing that happened in a generation.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The next piece of the answer, never empty; the pieces together are the answer.
    Text(String),
    /// The answer is over. Always the last event, unless an error was.
    End {
        /// Why.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it (an end-of-generation token), or nothing may follow in the form that was asked for.
    EndOfText,
    /// This stop string came up; it is not part of the answer.
    Stop(String),
    /// The most tokens asked for. An answer with a form may be incomplete.
    Length,
    /// The context has no room for another token. An answer with a form may be incomplete.
    ContextFull,
    /// The [`CancelToken`](crate::CancelToken) was cancelled.
    Cancelled,
}

impl FinishReason {
    /// One word for scripts: `stop` (end of text or stop string), `length` (asked for, or context full), `cancelled`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            FinishReason::EndOfText | FinishReason::Stop(_) => "stop",
            FinishReason::Length | FinishReason::ContextFull => "length",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// What a generation took. The seconds are those of computing: what a caller does between two events is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were kept from before and not computed again.
    pub cached_prompt_tokens: usize,
    /// Tokens of the answer, without an end-of-generation token.
    pub completion_tokens: usize,
    /// Steps after the prompt. Each gives a token, one more for each guess that was right, and those that must follow. (The prompt's own last step
    /// gives the first token of the answer, and the last token is computed only if another one follows.)
    pub completion_steps: usize,
    /// Tokens that were guessed to compute several in a step ([`Speculation`](crate::Speculation)).
    pub drafted_tokens: usize,
    /// Guesses that were right.
    pub accepted_tokens: usize,
    /// Tokens that the form of the answer left no choice for: they were added without being sampled, and computed together
    /// with the token before. Those that were guessed, too, are counted as guesses. None where
    /// log-probabilities are wanted.
    pub forced_tokens: usize,
    /// Seconds for the prompt.
    pub prompt_seconds: f64,
    /// Seconds for the steps after it.
    pub completion_seconds: f64,
    /// Seed of the random generator, to repeat the answer.
    pub seed: u64,
}

impl Usage {
    /// Speed of the prompt, without the tokens that were kept; 0 where nothing was computed.
    #[must_use]
    pub fn prompt_tokens_per_second(&self) -> f64 {
        rate(
            self.prompt_tokens - self.cached_prompt_tokens,
            self.prompt_seconds,
        )
    }

    /// Speed of the answer; 0 where nothing was computed after the prompt.
    #[must_use]
    pub fn completion_tokens_per_second(&self) -> f64 {
        rate(
            self.completion_steps + self.accepted_tokens + self.forced_tokens,
            self.completion_seconds,
        )
    }
}

fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 {
        tokens as f64 / seconds
    } else {
        0.0
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Completion {
    /// The text.
    pub text: String,
    /// Its token ids; where a stop string cut the text, they go on to that string's end.
    pub tokens: Vec<TokenId>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// One entry a token of [`Completion::tokens`], where they were asked for ([`GenerateOptions::logprobs`](crate::GenerateOptions::logprobs)).
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// What it took.
    pub usage: Usage,
    /// Whether it has the form that was asked for.
    pub format: FormatState,
    /// Bytes of the text before the part that has the form.
    pub format_start: usize,
}

impl Completion {
    /// The part of the text that has the form asked for: all of it, or what follows the text that the form begins after.
    #[must_use]
    pub fn formatted(&self) -> &str {
        self.text.get(self.format_start..).unwrap_or_default()
    }
}

/// One of several answers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ScoredCompletion {
    /// The answer.
    pub completion: Completion,
    /// How good it is by the model's own probabilities; the larger the better, 0 at most in the usual cases.
    pub score: f64,
}
