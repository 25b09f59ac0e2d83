//! Generation: a blocking iterator of events.

mod beam;
mod best_of;
mod breakers;
mod choose;
mod format;
mod logprobs;
mod options;
mod outcome;
mod steering;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use dunlin_engine::{Logits, Sampler, StopMatcher};
use dunlin_text::{DecodeStream, TokenId, Tokenizer};

use crate::speculate::Speculator;
use crate::state::State;
use crate::{Error, Lm, Prompt};
use choose::Chooser;

use logprobs::Recorder;

pub use beam::BeamOptions;
pub use format::{FormatState, OutputFormat};
pub(crate) use logprobs::log_sum_exp;
pub use logprobs::{TokenLogprob, TopLogprob};
pub use options::{CancelToken, GenerateOptions};
pub use outcome::{Completion, Event, FinishReason, ScoredCompletion, Usage};
pub(crate) use steering::{ReasoningBudget, Steering};

impl Lm {
    /// Starts to continue a text or to answer a conversation. The returned iterator computes as it is asked for events.
    ///
    /// Where the prompt begins as an earlier one (with its answer) did, only the rest is computed: a chat turn costs its
    /// new tokens, also where several conversations take turns. Which tokens are kept is a matter of room: the least recently
    /// used go first. The answer is the same as without: the scores of a token do not depend on how a text was cut into
    /// batches, to the last bit.
    ///
    /// For the same reason it does not depend on how tokens are guessed ([`GenerateOptions::speculation`]).
    ///
    /// Waits while another generation of this model is unfinished.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`] and [`Error::EmptyPrompt`]; [`Error::NoChatTemplate`] and [`Error::Text`] for a
    /// conversation; [`Error::Engine`] for sampling settings outside their ranges, an empty stop string, or adapters that the
    /// model does not have; [`Error::CannotSpeculate`]; [`Error::Text`] for a form of the answer that cannot be kept
    /// ([`OutputFormat`]).
    pub fn generate(
        &self,
        prompt: &Prompt,
        options: &GenerateOptions,
    ) -> Result<Generation<'_>, Error> {
        self.check_writes()?;
        let stream = match prompt {
            Prompt::Chat(_) => self.tokenizer().stream(),
            Prompt::Text(_) | Prompt::Tokens(_) => self.tokenizer().stream_continuing(),
        };
        let ids = self.encode_prompt(prompt, options)?;
        self.generate_after(ids, stream, options)
    }

    /// Starts to continue token ids; `stream` makes text of the answer's.
    pub(crate) fn generate_after(
        &self,
        ids: Vec<TokenId>,
        stream: DecodeStream,
        options: &GenerateOptions,
    ) -> Result<Generation<'_>, Error> {
        self.generate_steered(ids, stream, options, Steering::default())
    }

    /// As [`Lm::generate_after`], with something put into the answer.
    pub(crate) fn generate_steered(
        &self,
        ids: Vec<TokenId>,
        stream: DecodeStream,
        options: &GenerateOptions,
        steering: Steering,
    ) -> Result<Generation<'_>, Error> {
        if ids.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        self.check_length(ids.len())?;
        let seed = options.seed.unwrap_or_else(random_seed);
        let mut config = options.sampler.clone();
        config.seed = seed;
        breakers::add(&mut config, &options.dry_breakers, self.tokenizer())?;
        let sampler = Sampler::new(config)?;
        let stops = StopMatcher::new(&options.stop)?;
        let speculator = Speculator::new(&options.speculation, self)?;
        let tokenizer = self.tokenizer().clone();
        let after = options.format_after.as_deref();
        let constraint = options.format.constraint(after, &tokenizer)?;
        let mut chooser = Chooser::new(sampler, constraint, options.logprobs.is_some());
        chooser.force(steering.opening)?;
        // A form counts every character.
        let stream = match chooser.is_bound() {
            true => tokenizer.stream_continuing(),
            false => stream,
        };
        let stream = stream.showing(&steering.shown);
        let format_start = chooser.is_bound().then_some(0);
        let mut state = self.lock();
        let usage = Usage {
            prompt_tokens: ids.len(),
            cached_prompt_tokens: state.reuse(&ids, &options.adapters)?,
            seed,
            ..Usage::default()
        };
        Ok(Generation {
            state,
            tokenizer,
            stream: Some(stream),
            chosen: chooser.drain_forced().map(Chosen::forced).collect(),
            chooser,
            speculator,
            budget: steering.budget,
            logprobs: options.logprobs.map(Recorder::new),
            text_length: 0,
            format_start,
            stops,
            options: options.clone(),
            context_length: self.context_length(),
            history: ids,
            usage,
            events: VecDeque::new(),
            ended: false,
            is_stopped: false,
        })
    }

    /// The token ids of a prompt, as [`Lm::generate`] feeds them.
    ///
    /// # Errors
    /// As [`Lm::generate`] for what concerns the text.
    pub fn encode_prompt(
        &self,
        prompt: &Prompt,
        options: &GenerateOptions,
    ) -> Result<Vec<TokenId>, Error> {
        match prompt {
            Prompt::Text(text) => self.text().encode_completion(text),
            Prompt::Chat(messages) => self.text().encode_chat(messages, &options.template),
            Prompt::Tokens(ids) => Ok(ids.clone()),
        }
    }
}

/// A running generation: an iterator of [`Event`]s, the last of which is [`Event::End`]. Dropping it early is fine: what
/// was computed serves the next generation.
#[must_use = "nothing is computed until events are asked for"]
pub struct Generation<'lm> {
    state: MutexGuard<'lm, State>,
    tokenizer: Tokenizer,
    /// Taken at the end.
    stream: Option<DecodeStream>,
    chooser: Chooser,
    speculator: Speculator,
    /// Where the reasoning is limited.
    budget: Option<ReasoningBudget>,
    /// Where log-probabilities are wanted.
    logprobs: Option<Recorder>,
    /// Tokens that the last step gave and that are not part of the answer yet.
    chosen: VecDeque<Chosen>,
    /// Bytes of the answer's text so far.
    text_length: usize,
    /// Bytes of the answer's text before its form begins.
    format_start: Option<usize>,
    stops: StopMatcher,
    options: GenerateOptions,
    context_length: usize,
    /// Prompt and answer; the state holds the beginning of it that is computed.
    history: Vec<TokenId>,
    usage: Usage,
    /// Events that are due.
    events: VecDeque<Event>,
    ended: bool,
    /// By a stop string.
    is_stopped: bool,
}

/// A token that comes next, or why there is none.
struct Chosen {
    token: Result<TokenId, Error>,
    /// It was not sampled, because no other was allowed.
    is_forced: bool,
}

impl Chosen {
    fn sampled(token: Result<TokenId, Error>) -> Self {
        Chosen {
            token,
            is_forced: false,
        }
    }

    fn forced(token: TokenId) -> Self {
        Chosen {
            token: Ok(token),
            is_forced: true,
        }
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.advance() {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }
}

impl Generation<'_> {
    /// The seed in use: given again with the same prompt, settings and threads, it leads to the same answer.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.usage.seed
    }

    /// What was used so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The ids of the answer so far, without an end-of-generation token.
    #[must_use]
    pub fn tokens(&self) -> &[TokenId] {
        &self.history[self.usage.prompt_tokens..]
    }

    /// The log-probabilities of the tokens of the answer so far; none where they were not asked for
    /// ([`GenerateOptions::logprobs`]).
    #[must_use]
    pub fn logprobs(&self) -> &[TokenLogprob] {
        self.logprobs.as_ref().map_or(&[], Recorder::answer)
    }

    /// Whether the reasoning was ended because it had used up its tokens.
    pub(crate) fn has_cut_reasoning(&self) -> bool {
        self.budget.as_ref().is_some_and(ReasoningBudget::has_cut)
    }

    /// The log-probabilities of the tokens so far, where they were asked for.
    pub(crate) fn asked_logprobs(&self) -> Option<Vec<TokenLogprob>> {
        self.logprobs
            .as_ref()
            .map(|logprobs| logprobs.answer().to_vec())
    }

    /// Runs to the end and returns the whole answer.
    ///
    /// # Errors
    /// What one of the events is.
    pub fn complete(self) -> Result<Completion, Error> {
        Ok(self.complete_with_mean()?.0)
    }

    /// The whole answer, and the mean log-probability of its tokens where they were asked for.
    fn complete_with_mean(mut self) -> Result<(Completion, Option<f64>), Error> {
        let mut text = String::new();
        let mut finish_reason = FinishReason::Cancelled;
        for event in self.by_ref() {
            match event? {
                Event::Text(piece) => text.push_str(&piece),
                Event::End { reason, .. } => finish_reason = reason,
            }
        }
        let (tokens, usage) = (self.tokens().to_vec(), self.usage);
        let mean = self.logprobs.as_ref().and_then(Recorder::mean);
        let completion = Completion {
            format_start: self.format_start.unwrap_or(text.len()).min(text.len()),
            text,
            tokens,
            finish_reason,
            logprobs: self.logprobs.take().map(Recorder::into_answer),
            usage,
            format: self.format_state()?,
        };
        Ok((completion, mean))
    }

    /// How far the answer has got with its form. Asked after the end it says whether the answer has it: of one that was cut
    /// short it is the beginning.
    ///
    /// # Errors
    /// [`Error::Text`] where the grammar takes more work than its limits allow.
    pub fn format_state(&mut self) -> Result<FormatState, Error> {
        // The grammar has seen what must come next, and what a stop string took off the end.
        let pending = |chosen: &Chosen| !matches!(chosen.token, Ok(token) if self.ends_text(token));
        let is_cut = self.is_stopped || self.chosen.iter().any(pending);
        Ok(match self.chooser.state()? {
            FormatState::Complete if is_cut => FormatState::Open,
            state => state,
        })
    }

    /// One step: a batch of the prompt, or a token of the answer.
    fn advance(&mut self) -> Result<(), Error> {
        if self.options.cancel.is_cancelled() {
            return self.end(FinishReason::Cancelled);
        }
        if self.chosen.is_empty() && self.chooser.is_finished() {
            return self.end(FinishReason::EndOfText);
        }
        if self
            .options
            .max_tokens
            .is_some_and(|limit| self.usage.completion_tokens >= limit)
        {
            return self.end(FinishReason::Length);
        }
        if self.history.len() > self.context_length {
            return self.end(FinishReason::ContextFull);
        }
        if self.chosen.is_empty() {
            self.close_spent_reasoning()?;
        }
        if self.chosen.is_empty() {
            self.compute()?;
        }
        let Some(chosen) = self.chosen.pop_front() else {
            return Ok(());
        };
        match chosen.token? {
            token if self.ends_text(token) => {
                if let Some(logprobs) = &mut self.logprobs {
                    logprobs.end();
                }
                self.end(FinishReason::EndOfText)
            }
            token => {
                self.usage.forced_tokens += usize::from(chosen.is_forced);
                self.take(token)
            }
        }
    }

    /// Ends reasoning that has had all of its tokens.
    fn close_spent_reasoning(&mut self) -> Result<(), Error> {
        let closing = self.budget.as_mut().and_then(ReasoningBudget::take_closing);
        if let Some(closing) = closing {
            self.chooser.force(closing)?;
            self.chosen
                .extend(self.chooser.drain_forced().map(Chosen::forced));
        }
        Ok(())
    }

    /// Computes the next tokens that are not computed yet, guessed ones after them, and chooses the tokens that follow as far
    /// as the guesses are right.
    fn compute(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let (from, known) = (self.state.tokens().len(), self.history.len());
        let to = known.min(from + self.state.max_batch());
        if to < known {
            self.state
                .append(&self.history[from..to], Logits::None, |_, _| {})?;
            self.count(from, started.elapsed());
            return Ok(());
        }
        let limit = self.most_guesses(known - from);
        let result = self.speculate(from, limit);
        self.history.truncate(known);
        let guessed = result?;
        let right = self.chosen.len().saturating_sub(1);
        let forced = self.chooser.drain_forced().map(Chosen::forced);
        self.chosen.extend(forced);
        self.state.cut(known + right)?;
        self.usage.drafted_tokens += guessed;
        self.usage.accepted_tokens += right;
        self.count(from, started.elapsed());
        let chosen = self
            .chosen
            .iter()
            .map_while(|chosen| chosen.token.as_ref().ok());
        self.speculator.learn(chosen.copied());
        Ok(())
    }

    /// Appends guesses to the text, and computes it from `from` on. Returns how many were made.
    fn speculate(&mut self, from: usize, limit: usize) -> Result<usize, Error> {
        let known = self.history.len();
        self.speculator
            .propose(&mut self.history, limit, self.state.step_costs())?;
        let started = Instant::now();
        self.verify(from, known)?;
        let guessed = self.history.len() - known;
        if known - from == 1 {
            self.state.learn_cost(1 + guessed, started.elapsed());
        }
        Ok(guessed)
    }

    /// Guesses that a step of `tokens` known ones may have: as many as fit the context, the answer and the step. None with a
    /// piece of the prompt, whose scores are not wanted.
    fn most_guesses(&self, tokens: usize) -> usize {
        if tokens > 1 {
            return 0;
        }
        let length = self.history.len();
        let asked = self
            .options
            .max_tokens
            .map_or(usize::MAX, |limit| limit - self.usage.completion_tokens - 1);
        let budget = self
            .budget
            .as_ref()
            .map_or(usize::MAX, ReasoningBudget::most_guesses);
        (self.context_length - length)
            .min(self.state.max_batch() - tokens)
            .min(asked)
            .min(budget)
    }

    /// Appends the tokens from `from` on, and chooses the token after the last known one, and after each guess that is what
    /// was chosen. The text has the guesses at its end, so that each choice sees the history that it would have without.
    fn verify(&mut self, from: usize, known: usize) -> Result<(), Error> {
        let (chooser, history, chosen) = (&mut self.chooser, &self.history, &mut self.chosen);
        let (tokenizer, logprobs) = (&self.tokenizer, &mut self.logprobs);
        let options = &self.options;
        // Rows of padding beyond the vocabulary stand for no text.
        let vocab_size = tokenizer.vocab_size();
        // Guesses follow a single known token.
        let wanted = match history.len() == known {
            true => Logits::Last,
            false => Logits::All,
        };
        let mut is_open = true;
        self.state
            .append(&history[from..], wanted, |position, logits| {
                if !is_open {
                    return;
                }
                let known = logits.len().min(vocab_size);
                let next = position + 1;
                if let Some(logprobs) = logprobs {
                    logprobs.look(&logits[..known]);
                }
                let token = chooser.choose(&mut logits[..known], &history[..next]);
                is_open = token.as_ref().is_ok_and(|&token| {
                    let ends = ends_text(options, tokenizer, chooser, token);
                    history.get(next) == Some(&token) && !ends && !chooser.is_finished()
                });
                if let (Some(logprobs), Ok(token)) = (logprobs.as_mut(), &token) {
                    logprobs.note(*token, tokenizer);
                }
                chosen.push_back(Chosen::sampled(token));
            })?;
        Ok(())
    }

    fn count(&mut self, from: usize, elapsed: Duration) {
        if from < self.usage.prompt_tokens {
            self.usage.prompt_seconds += elapsed.as_secs_f64();
        } else {
            self.usage.completion_seconds += elapsed.as_secs_f64();
            self.usage.completion_steps += 1;
        }
    }

    fn ends_text(&self, token: TokenId) -> bool {
        ends_text(&self.options, &self.tokenizer, &self.chooser, token)
    }

    /// Adds a token to the answer.
    fn take(&mut self, token: TokenId) -> Result<(), Error> {
        self.history.push(token);
        self.usage.completion_tokens += 1;
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.take();
        }
        let text = match &mut self.stream {
            Some(stream) => stream.push(token)?,
            None => String::new(),
        };
        self.text_length += text.len();
        if let Some(budget) = &mut self.budget {
            budget.push(&text);
        }
        if self.format_start.is_none() && self.chooser.is_bound() {
            self.format_start = Some(self.text_length);
        }
        match self.show(&text) {
            Some(stop) => self.end(FinishReason::Stop(stop)),
            None => Ok(()),
        }
    }

    /// Gives out text as far as no stop string can begin in it; the stop string that is complete.
    fn show(&mut self, text: &str) -> Option<String> {
        let released = self.stops.push(text);
        self.push_text(released.text);
        released.stop.map(|index| self.options.stop[index].clone())
    }

    fn push_text(&mut self, text: String) {
        if !text.is_empty() {
            self.events.push_back(Event::Text(text));
        }
    }

    /// Gives out what was held back, and the end.
    fn end(&mut self, mut reason: FinishReason) -> Result<(), Error> {
        self.ended = true;
        let rest = self
            .stream
            .take()
            .map(DecodeStream::finish)
            .unwrap_or_default();
        if let Some(stop) = self.show(&rest) {
            reason = FinishReason::Stop(stop);
        }
        self.is_stopped = matches!(reason, FinishReason::Stop(_));
        let held = self.stops.finish();
        self.push_text(held);
        self.events.push_back(Event::End {
            reason,
            usage: self.usage,
        });
        Ok(())
    }
}

/// Whether an answer ends before this token.
fn ends_text(
    options: &GenerateOptions,
    tokenizer: &Tokenizer,
    chooser: &Chooser,
    token: TokenId,
) -> bool {
    match tokenizer.is_end_of_generation(token) {
        true => chooser.is_bound() || !options.ignore_end_of_text,
        false => options.stop_tokens.contains(&token) && !options.ignore_end_of_text,
    }
}

/// A seed from the operating system: the standard library takes the keys of its hash maps from there.
fn random_seed() -> u64 {
    RandomState::new().hash_one(Instant::now())
}
