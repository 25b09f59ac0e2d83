//! Beam search: the continuations with the largest probability, instead of a drawn one.

mod hypotheses;

use std::time::Instant;

use dunlin_engine::{AdapterUse, Chunk, EngineError, Logits, SequenceId};
use dunlin_text::{TokenId, Tokenizer};

use super::logprobs::log_sum_exp;
use super::{
    CancelToken, Completion, FinishReason, FormatState, GenerateOptions, ScoredCompletion, Usage,
};
use crate::prompt::TemplateOptions;
use crate::state::State;
use crate::{Error, Lm, Prompt};
use hypotheses::{Best, Continuation, Finished};

/// How a beam search is done. Every field has a default; the builder methods set one each.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BeamOptions {
    /// Most tokens of an answer; `None`: as many as the context holds for all beams.
    pub max_tokens: Option<usize>,
    /// The score of an answer is the sum of its tokens' log-probabilities, divided by their number to this power. 0: the
    /// sum, which prefers short answers; 1: the mean; more prefers long ones.
    pub length_penalty: f32,
    /// End as soon as there are as many complete answers as beams, though a better one might follow.
    pub early_stopping: bool,
    /// What the chat template gets beside the messages.
    pub template: TemplateOptions,
    /// Adapters to compute with, each at its scale.
    pub adapters: Vec<AdapterUse>,
    /// Ends the search from another thread or a signal handler.
    pub cancel: CancelToken,
}

impl Default for BeamOptions {
    fn default() -> Self {
        BeamOptions {
            max_tokens: None,
            length_penalty: 1.0,
            early_stopping: false,
            template: TemplateOptions::default(),
            adapters: Vec::new(),
            cancel: CancelToken::default(),
        }
    }
}

impl BeamOptions {
    /// The defaults: answers of any length, scored by the mean log-probability of their tokens.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With at most this many tokens.
    #[must_use]
    pub fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// With this power of the length by which scores are divided.
    #[must_use]
    pub fn with_length_penalty(mut self, power: f32) -> Self {
        self.length_penalty = power;
        self
    }

    /// Ends as soon as there are as many complete answers as beams.
    #[must_use]
    pub fn with_early_stopping(mut self) -> Self {
        self.early_stopping = true;
        self
    }

    /// With these tools and variables for the chat template.
    #[must_use]
    pub fn with_template(mut self, template: TemplateOptions) -> Self {
        self.template = template;
        self
    }

    /// With these adapters, each at its scale.
    #[must_use]
    pub fn with_adapters(mut self, adapters: Vec<AdapterUse>) -> Self {
        self.adapters = adapters;
        self
    }

    /// With this token to cancel it.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }
}

impl Lm {
    /// Follows the `beams` likeliest beginnings of an answer side by side, and returns as many answers with their scores, the
    /// best first. Nothing is drawn: the same prompt gives the same answers. The steps and the scores are those of
    /// `generate(num_beams=..)` in transformers.
    ///
    /// For tasks with one right answer, such as translation or short extraction; a story gets worse by it. Each step
    /// computes a token for all beams at once, and they share the keys and values of the prompt; each beam needs room in the
    /// context for its own answer.
    ///
    /// # Errors
    /// As [`Lm::generate`] for what concerns the prompt; [`Error::SearchSetting`] for no or too many beams, a length penalty that
    /// is not a number, and more tokens than the context has room for with so many beams.
    pub fn beam_search(
        &self,
        prompt: &Prompt,
        beams: usize,
        options: &BeamOptions,
    ) -> Result<Vec<ScoredCompletion>, Error> {
        self.check_writes()?;
        let encoding = GenerateOptions::new().with_template(options.template.clone());
        let ids = self.encode_prompt(prompt, &encoding)?;
        if ids.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        self.check_length(ids.len())?;
        let mut state = self.lock();
        let limit = self.check_search(ids.len(), beams, options, state.max_batch())?;
        let result = Search {
            tokenizer: self.tokenizer(),
            options,
            beams,
            limit,
            finished: Finished::new(beams),
            usage: Usage {
                prompt_tokens: ids.len(),
                ..Usage::default()
            },
        }
        .run(&mut state, &ids);
        if result.is_err() {
            // Sequences may be left that nobody knows any more.
            state.clear();
        }
        let (answers, usage) = result?;
        drop(state);
        answers
            .into_iter()
            .map(|answer| self.completion(prompt, answer, usage))
            .collect()
    }

    /// Checks the settings, and says how many tokens the answers may have.
    fn check_search(
        &self,
        prompt: usize,
        beams: usize,
        options: &BeamOptions,
        max_batch: usize,
    ) -> Result<usize, Error> {
        let refuse = |setting, found: String, allowed| {
            Err(Error::SearchSetting {
                setting,
                found,
                allowed,
            })
        };
        if !(1..=max_batch).contains(&beams) {
            let allowed = format!("1 to {max_batch}");
            return refuse("the number of beams", beams.to_string(), allowed);
        }
        let power = options.length_penalty;
        if !(-100.0..=100.0).contains(&power) {
            let allowed = "-100 to 100".to_owned();
            return refuse("the length penalty", power.to_string(), allowed);
        }
        let room = room(self.context_length(), prompt, beams);
        match options.max_tokens {
            Some(tokens) if tokens > room || tokens == 0 => refuse(
                "the most tokens of an answer",
                tokens.to_string(),
                format!(
                    "1 to {room}: the context of {} tokens has no room for more with {beams} beams and a prompt of {prompt} tokens; load the model with a longer context or search with fewer beams",
                    self.context_length()
                ),
            ),
            None if room == 0 => Err(Error::PromptTooLong {
                prompt_tokens: prompt,
                context_length: self.context_length(),
            }),
            limit => Ok(limit.unwrap_or(room)),
        }
    }

    fn completion(
        &self,
        prompt: &Prompt,
        answer: Answer,
        usage: Usage,
    ) -> Result<ScoredCompletion, Error> {
        let mut stream = match prompt {
            Prompt::Chat(_) => self.tokenizer().stream(),
            Prompt::Text(_) | Prompt::Tokens(_) => self.tokenizer().stream_continuing(),
        };
        let mut text = String::new();
        for token in &answer.tokens {
            text.push_str(&stream.push(*token)?);
        }
        text.push_str(&stream.finish());
        let completion = Completion {
            format: FormatState::Free,
            format_start: text.len(),
            text,
            usage: Usage {
                completion_tokens: answer.tokens.len(),
                ..usage
            },
            tokens: answer.tokens,
            finish_reason: answer.reason,
            logprobs: None,
        };
        Ok(ScoredCompletion {
            completion,
            score: answer.score,
        })
    }
}

/// Tokens that each beam's answer may have: the full blocks of the prompt are shared, all others are each beam's own.
fn room(context_length: usize, prompt: usize, beams: usize) -> usize {
    let block = dunlin_compute::POSITIONS_PER_BLOCK;
    let own = (context_length / block).saturating_sub(prompt / block) / beams;
    let tokens = (own * block).saturating_sub(prompt % block);
    tokens.min(context_length - prompt)
}

/// A complete answer.
#[derive(Clone, Debug)]
struct Answer {
    tokens: Vec<TokenId>,
    score: f64,
    reason: FinishReason,
}

/// A beginning of an answer that is followed.
struct Beam {
    tokens: Vec<TokenId>,
    /// Sum of the log-probabilities.
    sum: f64,
    /// Holds the prompt and all tokens but the last.
    sequence: SequenceId,
}

struct Search<'a> {
    tokenizer: &'a Tokenizer,
    options: &'a BeamOptions,
    beams: usize,
    limit: usize,
    finished: Finished<Answer>,
    usage: Usage,
}

impl Search<'_> {
    /// The answers, the best first, and what the search took.
    fn run(mut self, state: &mut State, prompt: &[TokenId]) -> Result<(Vec<Answer>, Usage), Error> {
        let started = Instant::now();
        let mut best = self.best();
        let sequence = self.read_prompt(state, prompt, &mut best)?;
        self.usage.prompt_seconds = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let root = Beam {
            tokens: Vec::new(),
            sum: 0.0,
            sequence,
        };
        let mut running = self.advance(state, vec![root], best)?;
        while !running.is_empty() {
            if self.options.cancel.is_cancelled() {
                self.give_up(&running);
                break;
            }
            if !self.can_improve(&running) {
                break;
            }
            let best = self.step(state, &running)?;
            running = self.advance(state, running, best)?;
        }
        for beam in running {
            state.end(beam.sequence)?;
        }
        self.usage.completion_seconds = started.elapsed().as_secs_f64();
        Ok((self.finished.into_sorted(), self.usage))
    }

    /// Continuations enough that there are as many as beams when all that can end do.
    fn best(&self) -> Best {
        let ends = self.tokenizer.end_of_generation().len();
        Best::new(self.beams * (1 + ends).max(2))
    }

    /// Computes the prompt, and looks at what may follow it.
    fn read_prompt(
        &mut self,
        state: &mut State,
        prompt: &[TokenId],
        best: &mut Best,
    ) -> Result<SequenceId, Error> {
        self.usage.cached_prompt_tokens = state.reuse(prompt, &self.options.adapters)?;
        let vocab_size = self.tokenizer.vocab_size();
        let mut looked = Ok(());
        while state.tokens().len() < prompt.len() {
            let from = state.tokens().len();
            let to = prompt.len().min(from + state.max_batch());
            let wanted = match to == prompt.len() {
                true => Logits::Last,
                false => Logits::None,
            };
            state.append(&prompt[from..to], wanted, |_, logits| {
                looked = look(best, 0, 0.0, &logits[..logits.len().min(vocab_size)]);
            })?;
        }
        looked?;
        Ok(state.hand_over())
    }

    /// Computes the last token of each beam, and looks at what may follow.
    fn step(&mut self, state: &mut State, running: &[Beam]) -> Result<Best, Error> {
        let mut best = self.best();
        let chunks: Vec<Chunk<'_>> = running
            .iter()
            .map(|beam| Chunk {
                sequence: beam.sequence,
                tokens: &beam.tokens[beam.tokens.len() - 1..],
                logits: Logits::Last,
            })
            .collect();
        let vocab_size = self.tokenizer.vocab_size();
        let mut looked = Ok(());
        state.step(&chunks, |scores| {
            let logits = &scores.logits[..scores.logits.len().min(vocab_size)];
            let result = look(&mut best, scores.chunk, running[scores.chunk].sum, logits);
            if looked.is_ok() {
                looked = result;
            }
        })?;
        looked?;
        self.usage.completion_steps += 1;
        Ok(best)
    }

    /// Sorts the continuations into complete answers and the beams of the next step, whose sequences it makes out of those
    /// of their parents.
    fn advance(
        &mut self,
        state: &mut State,
        parents: Vec<Beam>,
        best: Best,
    ) -> Result<Vec<Beam>, Error> {
        let mut next: Vec<Continuation> = Vec::new();
        for (rank, continuation) in best.into_sorted().into_iter().enumerate() {
            let parent = &parents[continuation.parent];
            let length = parent.tokens.len() + 1;
            let ends = self.tokenizer.is_end_of_generation(continuation.token);
            if !ends && length < self.limit {
                if next.len() < self.beams {
                    next.push(continuation);
                }
            } else if rank < self.beams {
                let mut tokens = parent.tokens.clone();
                if !ends {
                    tokens.push(continuation.token);
                }
                let reason = match (ends, self.options.max_tokens) {
                    (true, _) => FinishReason::EndOfText,
                    (false, Some(_)) => FinishReason::Length,
                    (false, None) => FinishReason::ContextFull,
                };
                self.finish(tokens, continuation.sum, length, reason);
            }
        }
        let mut children = vec![0; parents.len()];
        for continuation in &next {
            children[continuation.parent] += 1;
        }
        // What is not followed makes room first.
        for (beam, _) in parents
            .iter()
            .zip(&children)
            .filter(|(_, count)| **count == 0)
        {
            state.end(beam.sequence)?;
        }
        let mut running = Vec::with_capacity(next.len());
        for continuation in next {
            let parent = &parents[continuation.parent];
            let left = &mut children[continuation.parent];
            *left -= 1;
            // The last child takes its parent's sequence.
            let sequence = match *left {
                0 => parent.sequence,
                _ => state.fork(parent.sequence)?,
            };
            let mut tokens = parent.tokens.clone();
            tokens.push(continuation.token);
            running.push(Beam {
                tokens,
                sum: continuation.sum,
                sequence,
            });
        }
        Ok(running)
    }

    fn finish(&mut self, tokens: Vec<TokenId>, sum: f64, length: usize, reason: FinishReason) {
        let score = self.score(sum, length);
        let answer = Answer {
            tokens,
            score,
            reason,
        };
        self.finished.push(score, answer);
    }

    fn score(&self, sum: f64, length: usize) -> f64 {
        sum / (length as f64).powf(f64::from(self.options.length_penalty))
    }

    /// Whether a better answer may follow: the best running beam would be one if it ended here.
    fn can_improve(&self, running: &[Beam]) -> bool {
        let (Some(worst), Some(best)) = (self.finished.worst(), running.first()) else {
            return true;
        };
        !self.options.early_stopping && self.score(best.sum, best.tokens.len()) > worst
    }

    /// Takes what there is for answers.
    fn give_up(&mut self, running: &[Beam]) {
        for beam in running {
            let length = beam.tokens.len();
            self.finish(
                beam.tokens.clone(),
                beam.sum,
                length,
                FinishReason::Cancelled,
            );
        }
    }
}

/// Looks at all tokens that may follow a beam.
fn look(best: &mut Best, parent: usize, sum: f64, logits: &[f32]) -> Result<(), EngineError> {
    let bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    if let Some(token) = logits.iter().position(bad) {
        return Err(EngineError::InvalidLogit {
            token: token as u32,
            found: logits[token],
        });
    }
    let normalizer = log_sum_exp(logits);
    for (token, logit) in (0..).zip(logits) {
        let sum = sum + f64::from(*logit) - normalizer;
        if sum > f64::NEG_INFINITY {
            best.offer(Continuation { sum, parent, token });
        }
    }
    Ok(())
}
