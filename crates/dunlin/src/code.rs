//! Code completed at a gap: what stands before and after it, and other files of the repository.

mod end;
mod prompt;
mod suffix;
mod tokens;

use dunlin_hub::ModelRef;

use crate::{Error, Event, FinishReason, GenerateOptions, Lm, LoadOptions, Prompt, Usage};

pub use end::CodeEnd;
use end::Reach;
pub use prompt::InfillPrompt;
use suffix::SuffixWatch;
pub use tokens::InfillOrder;
use tokens::InfillTokens;
pub(crate) use tokens::{can_infill, names_infill_token};

/// Most tokens of a completion that nobody limited otherwise.
const MAX_TOKENS: usize = 256;

/// A model that fills in the middle of code ("FIM"), with the tokens that its family has for that.
///
/// Where a request begins as an earlier one did (the same files, the same beginning of the prefix), only the rest is computed.
#[derive(Clone)]
pub struct CodeCompleter {
    lm: Lm,
    tokens: InfillTokens,
}

/// A gap in a file, and what is known around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodeRequest {
    /// What stands before the gap.
    pub prefix: String,
    /// What stands after it; may be empty.
    pub suffix: String,
    /// Path of the file in its repository; models guess the language by it.
    pub path: Option<String>,
    /// Name of the repository.
    pub repository: Option<String>,
    /// Other files of the repository, the most important ones last: those are nearest to the gap, and left out last.
    pub files: Vec<CodeFile>,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeFile {
    /// Its path in the repository.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl CodeRequest {
    /// A gap between two texts.
    #[must_use]
    pub fn new(prefix: impl Into<String>, suffix: impl Into<String>) -> Self {
        CodeRequest {
            prefix: prefix.into(),
            suffix: suffix.into(),
            ..Self::default()
        }
    }

    /// In a file of this path.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// In a repository of this name.
    #[must_use]
    pub fn with_repository(mut self, name: impl Into<String>) -> Self {
        self.repository = Some(name.into());
        self
    }

    /// With one more file of the repository.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<String>, text: impl Into<String>) -> Self {
        self.files.push(CodeFile {
            path: path.into(),
            text: text.into(),
        });
        self
    }
}

/// What is done with a request that is longer than the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InfillOverflow {
    /// [`Error::InfillTooLong`].
    #[default]
    Error,
    /// What is nearest to the gap is kept: whole files are left out, those named first before the others; then the beginning
    /// of the prefix and the end of the suffix, which gets a quarter of the room where both are too long.
    /// [`CodeCompletion::dropped`] says what was left out.
    KeepNearest,
}

/// How a gap is filled. The builder methods set one field each.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CodeOptions {
    /// How tokens are chosen, and how many at most: by default always the likeliest one, and 256.
    pub generate: GenerateOptions,
    /// Where the completion ends, if the model does not end it before.
    pub end: CodeEnd,
    /// Whether the completion also ends where it repeats what stands after the gap, which is then left out of it: the beginning of
    /// the suffix, 20 characters of it and the rest of their line. On by default.
    pub stop_at_suffix: bool,
    /// What is done with a request that is too long.
    pub overflow: InfillOverflow,
    /// Which side of the gap the model reads first; `None`: as its family was trained.
    pub order: Option<InfillOrder>,
}

impl Default for CodeOptions {
    fn default() -> Self {
        CodeOptions {
            generate: GenerateOptions::greedy().with_max_tokens(MAX_TOKENS),
            end: CodeEnd::default(),
            stop_at_suffix: true,
            overflow: InfillOverflow::default(),
            order: None,
        }
    }
}

impl CodeOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this way to choose tokens, and their number.
    #[must_use]
    pub fn with_generate(mut self, generate: GenerateOptions) -> Self {
        self.generate = generate;
        self
    }

    /// With at most this many tokens.
    #[must_use]
    pub fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.generate.max_tokens = Some(tokens);
        self
    }

    /// With this end.
    #[must_use]
    pub fn with_end(mut self, end: CodeEnd) -> Self {
        self.end = end;
        self
    }

    /// Ending, or not, where the suffix begins again.
    #[must_use]
    pub fn with_stop_at_suffix(mut self, stop: bool) -> Self {
        self.stop_at_suffix = stop;
        self
    }

    /// With this way to deal with requests that are too long.
    #[must_use]
    pub fn with_overflow(mut self, overflow: InfillOverflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// With this side of the gap first.
    #[must_use]
    pub fn with_order(mut self, order: InfillOrder) -> Self {
        self.order = Some(order);
        self
    }
}

/// What was left out of a request that is longer than the context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InfillDropped {
    /// Paths of files.
    pub files: Vec<String>,
    /// Tokens at the beginning of the prefix.
    pub prefix_tokens: usize,
    /// Tokens at the end of the suffix.
    pub suffix_tokens: usize,
}

impl InfillDropped {
    /// Whether everything was used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a completion ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodeFinish {
    /// The generation ended: the model ended it, the most tokens asked for, and so on.
    Generation(FinishReason),
    /// [`CodeOptions::end`] or [`CodeOptions::stop_at_suffix`] ended it.
    End,
}

impl CodeFinish {
    /// One word for scripts: `stop`, `length` or `cancelled`, as [`FinishReason::as_str`].
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            CodeFinish::Generation(reason) => reason.as_str(),
            CodeFinish::End => "stop",
        }
    }
}

/// A gap that was filled.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CodeCompletion {
    /// The text between prefix and suffix.
    pub text: String,
    /// Why it ended.
    pub finish: CodeFinish,
    /// What was left out of the request.
    pub dropped: InfillDropped,
    /// What it took. Tokens that were computed past the end are counted.
    pub usage: Usage,
}

impl CodeCompleter {
    /// Completes code with a loaded model.
    ///
    /// # Errors
    /// [`Error::CannotInfill`] for a family without tokens for it, [`Error::CannotGenerate`] for an encoder.
    pub fn new(lm: Lm) -> Result<Self, Error> {
        lm.check_writes()?;
        let found = InfillTokens::find(lm.text().metadata(), lm.tokenizer())?;
        match found {
            Some(tokens) => Ok(CodeCompleter { lm, tokens }),
            None => Err(Error::CannotInfill {
                architecture: lm.spec().architecture.clone(),
            }),
        }
    }

    /// Loads a model that completes code.
    ///
    /// # Errors
    /// As [`Lm::load`] and [`CodeCompleter::new`].
    pub fn load(model: ModelRef, options: LoadOptions<'_>) -> Result<Self, Error> {
        Self::new(Lm::load(model, options)?)
    }

    /// The model.
    #[must_use]
    pub fn lm(&self) -> &Lm {
        &self.lm
    }

    /// Whether requests may name other files of the repository: the family has tokens that keep them apart.
    #[must_use]
    pub fn takes_files(&self) -> bool {
        self.tokens.file.is_some()
    }

    /// The prompt of a request, as [`complete`](Self::complete) feeds it. Texts of control tokens in it stay text.
    ///
    /// # Errors
    /// [`Error::InfillTooLong`]; [`Error::NoFileTokens`] where the request names a repository or other files, and the family
    /// has no tokens for them; [`Error::Text`].
    pub fn prompt(
        &self,
        request: &CodeRequest,
        options: &CodeOptions,
    ) -> Result<InfillPrompt, Error> {
        let reserved = options.generate.max_tokens.unwrap_or(MAX_TOKENS);
        prompt::build(
            self.lm.tokenizer(),
            &self.tokens,
            request,
            options.order.unwrap_or(self.tokens.order),
            self.lm.context_length().saturating_sub(reserved),
            options.overflow,
        )
    }

    /// Fills a gap.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt) and [`Lm::generate`].
    pub fn complete(
        &self,
        request: &CodeRequest,
        options: &CodeOptions,
    ) -> Result<CodeCompletion, Error> {
        self.complete_with(request, options, |_| {})
    }

    /// As [`complete`](Self::complete); `show` is given each piece of the text as soon as it is known to be part of it.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    pub fn complete_with(
        &self,
        request: &CodeRequest,
        options: &CodeOptions,
        mut show: impl FnMut(&str),
    ) -> Result<CodeCompletion, Error> {
        let InfillPrompt { tokens, dropped } = self.prompt(request, options)?;
        let mut generate = options.generate.clone();
        generate.stop_tokens.extend_from_slice(&self.tokens.ends);
        let line = request.prefix.rsplit('\n').next().unwrap_or_default();
        let watch = options
            .stop_at_suffix
            .then(|| SuffixWatch::new(&request.suffix));
        let watch = watch.flatten();
        let prompt = Prompt::Tokens(tokens);
        let mut generation = self.lm.generate(&prompt, &generate)?;
        let (mut text, mut shown) = (String::new(), 0);
        let mut finish = CodeFinish::Generation(FinishReason::Cancelled);
        for event in generation.by_ref() {
            let reach = match event? {
                Event::Text(piece) => {
                    text.push_str(&piece);
                    let reach = options.end.reach(line, &text);
                    watch
                        .as_ref()
                        .map_or(reach, |watch| reach.and(watch.reach(&text)))
                }
                Event::End { reason, .. } => {
                    finish = CodeFinish::Generation(reason);
                    Reach::Open(text.len())
                }
            };
            let (Reach::Open(end) | Reach::Ended(end)) = reach;
            if end > shown {
                show(&text[shown..end]);
                shown = end;
            }
            if let Reach::Ended(end) = reach {
                text.truncate(end);
                finish = CodeFinish::End;
                break;
            }
        }
        Ok(CodeCompletion {
            text,
            finish,
            dropped,
            usage: generation.usage(),
        })
    }
}
