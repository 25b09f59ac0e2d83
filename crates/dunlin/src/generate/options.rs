//! How an answer is generated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dunlin_engine::{AdapterId, AdapterUse, SamplerConfig};
use dunlin_text::TokenId;

use serde_json::Value as Json;

use super::OutputFormat;
use crate::{Error, Lm, Speculation, TemplateOptions};

/// How an answer is generated. Every field has a default; the builder methods set one each.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Most tokens of the answer; `None`: as many as the context holds.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen. Its own `seed` is not looked at: see the next field.
    pub sampler: SamplerConfig,
    /// Seed of the random generator; `None`: another one each time, told in [`Usage::seed`](crate::Usage::seed).
    pub seed: Option<u64>,
    /// Texts through which no repetition goes where [`SamplerConfig::dry_multiplier`] is on; beside those of
    /// [`SamplerConfig::dry_breakers`].
    pub dry_breakers: Vec<String>,
    /// Whether [`Completion::logprobs`](crate::Completion::logprobs) is wanted, and with how many of the likeliest tokens at each
    /// place; `None`: not, which costs nothing.
    pub logprobs: Option<usize>,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the answer as the model's own end-of-generation tokens do, and are not part of it.
    pub stop_tokens: Vec<TokenId>,
    /// What the chat template gets beside the messages.
    pub template: TemplateOptions,
    /// Ends the generation from another thread or a signal handler.
    pub cancel: CancelToken,
    /// How tokens are guessed to compute several at once. The answer does not depend on it.
    pub speculation: Speculation,
    /// Adapters of the model at work, each with its scale. Their order does not matter.
    pub adapters: Vec<AdapterUse>,
    /// What form the answer has.
    pub format: OutputFormat,
    /// The form begins after this text, which may be that of a control token (`</think>`); what comes before is free. An answer
    /// that ends before it has no form: [`FormatState::Waiting`](crate::FormatState::Waiting).
    pub format_after: Option<String>,
    /// Go on after end-of-generation tokens, to the length asked for (for measurements). An answer with a form ends with it all
    /// the same.
    pub ignore_end_of_text: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            max_tokens: None,
            sampler: SamplerConfig::default(),
            seed: None,
            dry_breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
            logprobs: None,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            template: TemplateOptions::default(),
            cancel: CancelToken::default(),
            speculation: Speculation::default(),
            adapters: Vec::new(),
            format: OutputFormat::default(),
            format_after: None,
            ignore_end_of_text: false,
        }
    }
}

impl GenerateOptions {
    /// The defaults: sampling as llama.cpp does, up to the end of the answer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The defaults, but for the sampling settings that the model's own metadata recommend ([`Lm::default_sampler`]).
    ///
    /// # Errors
    /// As [`Lm::default_sampler`].
    pub fn for_model(lm: &Lm) -> Result<Self, Error> {
        Ok(Self::default().with_sampler(lm.default_sampler()?))
    }

    /// Always the likeliest token.
    #[must_use]
    pub fn greedy() -> Self {
        Self::default().with_sampler(SamplerConfig::greedy())
    }

    /// With at most this many tokens.
    #[must_use]
    pub fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// With this way to choose tokens.
    #[must_use]
    pub fn with_sampler(mut self, sampler: SamplerConfig) -> Self {
        self.sampler = sampler;
        self
    }

    /// With this temperature; 0: always the likeliest token.
    #[must_use]
    pub fn with_temperature(mut self, temperature: f32) -> Self {
        self.sampler.temperature = temperature;
        self
    }

    /// With this seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// With these texts through which no repetition goes, instead of those of the default (line end, colon, quotation mark and
    /// asterisk).
    #[must_use]
    pub fn with_dry_breakers(
        mut self,
        breakers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.dry_breakers = breakers.into_iter().map(Into::into).collect();
        self
    }

    /// With the log-probabilities of the tokens of the answer, and of so many of the likeliest ones at each place.
    #[must_use]
    pub fn with_logprobs(mut self, top: usize) -> Self {
        self.logprobs = Some(top);
        self
    }

    /// With one more text that ends the answer.
    #[must_use]
    pub fn with_stop(mut self, stop: impl Into<String>) -> Self {
        self.stop.push(stop.into());
        self
    }

    /// With one more token that ends the answer.
    #[must_use]
    pub fn with_stop_token(mut self, token: TokenId) -> Self {
        self.stop_tokens.push(token);
        self
    }

    /// With these tools and variables for the chat template.
    #[must_use]
    pub fn with_template(mut self, template: TemplateOptions) -> Self {
        self.template = template;
        self
    }

    /// With this way to guess tokens.
    #[must_use]
    pub fn with_speculation(mut self, speculation: Speculation) -> Self {
        self.speculation = speculation;
        self
    }

    /// With one more adapter ([`Lm::add_adapter`](crate::Lm::add_adapter)) at this scale; 1: as it was trained.
    #[must_use]
    pub fn with_adapter(mut self, adapter: AdapterId, scale: f32) -> Self {
        self.adapters.push(AdapterUse { adapter, scale });
        self
    }

    /// With an answer of this form.
    #[must_use]
    pub fn with_format(mut self, format: OutputFormat) -> Self {
        self.format = format;
        self
    }

    /// With an answer that is JSON and validates against this schema.
    #[must_use]
    pub fn with_json_schema(self, schema: Json) -> Self {
        self.with_format(OutputFormat::JsonSchema(schema))
    }

    /// With an answer that matches this regular expression as a whole.
    #[must_use]
    pub fn with_regex(self, regex: impl Into<String>) -> Self {
        self.with_format(OutputFormat::Regex(regex.into()))
    }

    /// With an answer that is one of these texts.
    #[must_use]
    pub fn with_choices<S: Into<String>>(self, choices: impl IntoIterator<Item = S>) -> Self {
        let choices = choices.into_iter().map(Into::into).collect();
        self.with_format(OutputFormat::Choices(choices))
    }

    /// With a form that begins after this text.
    #[must_use]
    pub fn with_format_after(mut self, text: impl Into<String>) -> Self {
        self.format_after = Some(text.into());
        self
    }

    /// With this token to cancel it.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }
}

/// Cancels generations from elsewhere: looked at between tokens, and between the batches of a prompt. Clones share one
/// switch.
#[derive(Clone, Debug, Default)]
pub struct CancelToken {
    switch: Arc<Switch>,
}

#[derive(Debug, Default)]
struct Switch {
    is_cancelled: AtomicBool,
    parent: Option<CancelToken>,
}

impl CancelToken {
    /// A token that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A token that is cancelled when this one is, and can also be cancelled alone.
    #[must_use]
    pub fn child(&self) -> Self {
        let switch = Switch {
            is_cancelled: AtomicBool::new(false),
            parent: Some(self.clone()),
        };
        CancelToken {
            switch: Arc::new(switch),
        }
    }

    /// Ends the generations that look at it, and those that will. Safe in a signal handler.
    pub fn cancel(&self) {
        self.switch.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Makes it as new. (A token that this one was made from stays cancelled.)
    pub fn reset(&self) {
        self.switch.is_cancelled.store(false, Ordering::Relaxed);
    }

    /// Whether it was cancelled, or the one that it was made from.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let Switch {
            is_cancelled,
            parent,
        } = &*self.switch;
        is_cancelled.load(Ordering::Relaxed) || parent.as_ref().is_some_and(Self::is_cancelled)
    }
}
