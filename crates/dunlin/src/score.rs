//! How likely a model finds texts as continuations of a prompt: what choices are made by without generating anything.

use dunlin_compute::POSITIONS_PER_BLOCK;
use dunlin_engine::{AdapterUse, Chunk, Logits, SequenceId};
use dunlin_text::{TokenId, TokenKind, Tokenizer};

use crate::generate::log_sum_exp;
use crate::state::State;
use crate::{Error, GenerateOptions, Lm, Prompt, TemplateOptions};

/// How continuations are scored. Every field has a default; the builder methods set one each.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScoreOptions {
    /// Whether each continuation is a whole answer: the probability that the model then ends counts, too. Without it `sad` is at least
    /// as likely as `sadness`, which begins so.
    pub whole: bool,
    /// What the chat template gets beside the messages.
    pub template: TemplateOptions,
    /// Adapters to compute with, each at its scale.
    pub adapters: Vec<AdapterUse>,
}

impl ScoreOptions {
    /// The defaults: beginnings of answers, without adapters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With continuations that are whole answers.
    #[must_use]
    pub fn with_whole(mut self) -> Self {
        self.whole = true;
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
}

/// How likely a continuation is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ContinuationScore {
    /// Natural logarithm of its probability, given the prompt: the sum over its tokens, and over the end where it is a whole answer.
    pub logprob: f64,
    /// Its tokens, without an end.
    pub tokens: Vec<TokenId>,
    /// Choices that the probability is made of: the tokens, and the end where it counts.
    pub choices: usize,
}

impl ContinuationScore {
    /// The mean over the choices: how likely it is for its length. 0 for an empty continuation.
    #[must_use]
    pub fn mean_logprob(&self) -> f64 {
        self.logprob / self.choices.max(1) as f64
    }
}

impl Lm {
    /// The log-probability of each text as the beginning of what follows the prompt, in their order.
    ///
    /// The probabilities are the model's own, before all steps of a sampler. The prompt is computed once, or taken from what was
    /// computed before, and the continuations share its keys and values; as many as fit are computed in one step. The result
    /// is that of [`Lm::logits`] for the tokens of prompt and continuation, to the last bit.
    ///
    /// A continuation is encoded on its own behind the tokens of the prompt: where words follow each other, the space belongs to it
    /// (`"The sky is"`, `" blue"`).
    ///
    /// # Errors
    /// As [`Lm::generate`] for what concerns the prompt; [`Error::PromptTooLong`] also where prompt and continuation together do not
    /// fit.
    pub fn score<S: AsRef<str>>(
        &self,
        prompt: &Prompt,
        continuations: &[S],
    ) -> Result<Vec<ContinuationScore>, Error> {
        self.score_with(prompt, continuations, &ScoreOptions::default())
    }

    /// As [`Lm::score`], with options.
    ///
    /// # Errors
    /// As [`Lm::score`].
    pub fn score_with<S: AsRef<str>>(
        &self,
        prompt: &Prompt,
        continuations: &[S],
        options: &ScoreOptions,
    ) -> Result<Vec<ContinuationScore>, Error> {
        self.check_writes()?;
        let encoding = GenerateOptions::new().with_template(options.template.clone());
        let ids = self.encode_prompt(prompt, &encoding)?;
        if ids.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        self.check_length(ids.len())?;
        let mut scores = Vec::with_capacity(continuations.len());
        for text in continuations {
            let tokens = self.encode_continuation(&ids, text.as_ref())?;
            let choices = tokens.len() + usize::from(options.whole);
            self.check_length(ids.len() + choices.saturating_sub(1))?;
            scores.push(ContinuationScore {
                logprob: 0.0,
                tokens,
                choices,
            });
        }
        let mut state = self.lock();
        let mut scoring = Scoring {
            tokenizer: self.tokenizer(),
            prompt: &ids,
            adapters: &options.adapters,
            context_length: self.context_length(),
            scores,
        };
        match scoring.run(&mut state) {
            Ok(()) => Ok(scoring.scores),
            Err(error) => {
                // Sequences may be left that nobody knows any more.
                state.clear();
                Err(error)
            }
        }
    }

    /// The tokens of a text behind those of a prompt. A SentencePiece-style tokenizer puts a space before a text that follows a
    /// control token, as it does at the beginning, and none within a text.
    fn encode_continuation(&self, prompt: &[TokenId], text: &str) -> Result<Vec<TokenId>, Error> {
        let tokenizer = self.tokenizer();
        let begins = prompt
            .last()
            .is_none_or(|last| tokenizer.kind(*last) == Some(TokenKind::Control));
        Ok(match begins {
            true => tokenizer.encode(text, false)?,
            false => tokenizer.encode_within(text)?,
        })
    }
}

struct Scoring<'a> {
    tokenizer: &'a Tokenizer,
    prompt: &'a [TokenId],
    adapters: &'a [AdapterUse],
    context_length: usize,
    scores: Vec<ContinuationScore>,
}

impl Scoring<'_> {
    fn run(&mut self, state: &mut State) -> Result<(), Error> {
        self.read_prompt(state)?;
        let (mut groups, alone) = self.groups(state.max_batch());
        if !groups.is_empty() {
            let root = state.hand_over();
            for group in &mut groups {
                self.step(state, root, group)?;
            }
            state.end(root)?;
        }
        for index in alone {
            self.follow(state, index)?;
        }
        Ok(())
    }

    /// Computes the prompt, and looks at how likely each continuation's first token is.
    fn read_prompt(&mut self, state: &mut State) -> Result<(), Error> {
        let mut known = state.reuse(self.prompt, self.adapters)?;
        while known < self.prompt.len() {
            let end = self.prompt.len().min(known + state.max_batch());
            let wanted = match end == self.prompt.len() {
                true => Logits::Last,
                false => Logits::None,
            };
            state.append(&self.prompt[known..end], wanted, |_, logits| {
                let row = Row::of(self.tokenizer, logits);
                for score in &mut self.scores {
                    row.add(score, 0);
                }
            })?;
            known = end;
        }
        Ok(())
    }

    /// Tokens of a continuation that must be computed: what follows the last choice does not count.
    fn computed(&self, index: usize) -> usize {
        self.scores[index].choices.saturating_sub(1)
    }

    /// The continuations that go on behind their first token: those that are computed side by side, in groups, and those that are
    /// too long for it. Sequences share the whole blocks of the prompt; what follows is each one's own.
    fn groups(&self, max_batch: usize) -> (Vec<Vec<usize>>, Vec<usize>) {
        let block = POSITIONS_PER_BLOCK;
        let begun = self.prompt.len() % block;
        let shared = self.prompt.len().div_ceil(block);
        let room = (self.context_length / block).saturating_sub(shared);
        let (mut groups, mut alone) = (Vec::<Vec<usize>>::new(), Vec::new());
        let (mut tokens, mut blocks) = (max_batch, room);
        for index in 0..self.scores.len() {
            let own_tokens = self.computed(index);
            let own_blocks = (begun + own_tokens).div_ceil(block);
            if own_tokens == 0 {
                continue;
            }
            if own_tokens > max_batch || own_blocks > room {
                alone.push(index);
                continue;
            }
            if tokens + own_tokens > max_batch || blocks + own_blocks > room {
                groups.push(Vec::new());
                (tokens, blocks) = (0, 0);
            }
            if let Some(group) = groups.last_mut() {
                group.push(index);
            }
            tokens += own_tokens;
            blocks += own_blocks;
        }
        (groups, alone)
    }

    /// Computes the continuations of a group in one step.
    fn step(&mut self, state: &mut State, root: SequenceId, group: &[usize]) -> Result<(), Error> {
        let mut sequences = Vec::with_capacity(group.len());
        for _ in group {
            sequences.push(state.fork(root)?);
        }
        let tokens: Vec<Vec<TokenId>> = group
            .iter()
            .map(|index| self.scores[*index].tokens[..self.computed(*index)].to_vec())
            .collect();
        let chunks: Vec<Chunk<'_>> = sequences
            .iter()
            .zip(&tokens)
            .map(|(sequence, tokens)| Chunk {
                sequence: *sequence,
                tokens,
                logits: Logits::All,
            })
            .collect();
        state.step(&chunks, |scores| {
            let row = Row::of(self.tokenizer, scores.logits);
            let place = scores.position + 1 - self.prompt.len();
            row.add(&mut self.scores[group[scores.chunk]], place);
        })?;
        for sequence in sequences {
            state.end(sequence)?;
        }
        Ok(())
    }

    /// Computes one continuation behind the prompt, in as many steps as it needs.
    fn follow(&mut self, state: &mut State, index: usize) -> Result<(), Error> {
        let computed = self.computed(index);
        let mut whole = self.prompt.to_vec();
        whole.extend_from_slice(&self.scores[index].tokens[..computed]);
        // What is cached of the continuation would give no scores.
        state.reuse(self.prompt, self.adapters)?;
        while state.tokens().len() < whole.len() {
            let from = state.tokens().len();
            let to = whole.len().min(from + state.max_batch());
            state.append(&whole[from..to], Logits::All, |position, logits| {
                if position >= self.prompt.len() {
                    let row = Row::of(self.tokenizer, logits);
                    row.add(&mut self.scores[index], position + 1 - self.prompt.len());
                }
            })?;
        }
        Ok(())
    }
}

/// The scores for the token at one place.
struct Row<'a> {
    tokenizer: &'a Tokenizer,
    logits: &'a [f32],
    normalizer: f64,
}

impl<'a> Row<'a> {
    fn of(tokenizer: &'a Tokenizer, logits: &'a [f32]) -> Self {
        // Rows of padding beyond the vocabulary stand for no text.
        let logits = &logits[..logits.len().min(tokenizer.vocab_size())];
        Row {
            tokenizer,
            logits,
            normalizer: log_sum_exp(logits),
        }
    }

    /// Adds how likely the choice at this place of the continuation is.
    fn add(&self, score: &mut ContinuationScore, place: usize) {
        if place >= score.choices {
            return;
        }
        let logit = match score.tokens.get(place) {
            Some(token) => f64::from(self.logits[*token as usize]),
            None => self.end(),
        };
        score.logprob += logit - self.normalizer;
    }

    /// `ln(sum(exp(logits)))` of the tokens that end an answer: it does not matter which one does.
    fn end(&self) -> f64 {
        let ends = self.tokenizer.end_of_generation().iter();
        let logits: Vec<f32> = ends
            .filter_map(|token| self.logits.get(*token as usize).copied())
            .collect();
        match logits.is_empty() {
            true => f64::NEG_INFINITY,
            false => log_sum_exp(&logits),
        }
    }
}
