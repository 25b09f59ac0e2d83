//! Conversations of many turns.
//!
//! A [`Conversation`] keeps the messages, and beside them the tokens as the model read and wrote them (`history.rs`), so that a
//! turn computes its new tokens only. What happens when the context is full is a policy with a name (`policy.rs`); a
//! conversation can be saved to a file with what was computed (`session.rs`), and give its memory back while it is idle
//! (`hibernate.rs`).
//!
//! What a model writes is told apart into reasoning (`reasoning.rs`), text and tool calls (`tools.rs`) as it comes
//! (`reading.rs`); `tool_run.rs` runs the calls and goes on.

mod answer;
mod edit;
mod hibernate;
mod history;
mod policy;
mod reading;
mod reasoning;
mod session;
mod summary;
mod tool_run;
mod tools;

use std::path::PathBuf;

use dunlin_text::{DateTime, TokenId, ToolChoice};

use crate::prompt::{now, template_input};
use crate::{CancelToken, Error, GenerateOptions, Lm, Message, OutputFormat, TemplateOptions};
use answer::Setup;
use history::TokenHistory;
use reasoning::Course;
use tools::Offer;

pub use answer::{Answer, AnswerEvent, Reply};
pub use policy::{ContextPolicy, Dropped};
pub use reasoning::{Reasoning, ReasoningEnd};
pub use session::{Restored, SaveOptions, Saved};
pub use summary::{SUMMARY_INSTRUCTION, Summary};
pub use tool_run::{ToolRound, ToolRun};
pub use tools::ToolOptions;

/// Tokens of the context that are kept free for an answer of any length.
const ANSWER_ROOM: usize = 512;

/// A conversation of many turns with one model.
///
/// Each turn computes its new tokens only, as far as the model's cache still has the others (which several conversations share:
/// the least recently used go first). The model's own tokens are kept as it wrote them.
///
/// A call that fails leaves the conversation as it was before. An answer that is cancelled, or whose [`Answer`] is dropped
/// before its end, is kept as far as it got, and [`Conversation::continue_answer`] goes on with it; where nothing was answered
/// yet, the conversation is as before the call.
#[derive(Clone)]
pub struct Conversation {
    lm: Lm,
    options: GenerateOptions,
    policy: ContextPolicy,
    answer_room: Option<usize>,
    reasoning: Reasoning,
    offer: Option<Offer>,
    talk: Talk,
}

/// What was said.
#[derive(Clone, Debug, Default)]
struct Talk {
    messages: Vec<Message>,
    /// Of the turns that were dropped.
    summary: Option<String>,
    /// The moment that templates print: the same in all turns, so that a new day changes no token.
    now: Option<DateTime>,
    history: TokenHistory,
    last_answer: Option<Written>,
    /// The file with what was computed, where the cache has given it back.
    asleep: Option<PathBuf>,
}

/// What the model wrote as the last answer.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
struct Written {
    /// All of it, with reasoning and calls.
    text: String,
    ids: Vec<TokenId>,
    /// The message that it became; `None` where it is the beginning of an answer that the program wrote.
    #[serde(default)]
    message: Option<Message>,
}

impl Conversation {
    /// An empty conversation, without system prompt, with default options and [`ContextPolicy::Error`].
    #[must_use]
    pub fn new(lm: &Lm) -> Self {
        Conversation {
            lm: lm.clone(),
            options: GenerateOptions::default(),
            policy: ContextPolicy::default(),
            answer_room: None,
            reasoning: Reasoning::default(),
            offer: None,
            talk: Talk::default(),
        }
    }

    /// With this system prompt, before all other messages.
    #[must_use]
    pub fn with_system(mut self, text: impl Into<String>) -> Self {
        self.set_system(Some(text.into()));
        self
    }

    /// With these options for each answer. Template options that are all defaults leave those that the conversation has (of a
    /// restored session) as they are.
    #[must_use]
    pub fn with_options(mut self, options: GenerateOptions) -> Self {
        self.set_options(options);
        self
    }

    /// With this policy for a context that is full.
    #[must_use]
    pub fn with_policy(mut self, policy: ContextPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// With or without reasoning before each answer. Where the options ask for a form, it begins after the reasoning.
    #[must_use]
    pub fn with_reasoning(mut self, reasoning: Reasoning) -> Self {
        self.set_reasoning(reasoning);
        self
    }

    /// With this many tokens of the context kept free for each answer. Without it: [`GenerateOptions::max_tokens`], or 512 where
    /// there is no such limit, and a quarter of the context at most.
    #[must_use]
    pub fn with_answer_room(mut self, tokens: usize) -> Self {
        self.answer_room = Some(tokens);
        self
    }

    /// Changes the options of the next answers, as [`Conversation::with_options`].
    pub fn set_options(&mut self, options: GenerateOptions) {
        let template = std::mem::replace(&mut self.options, options).template;
        if self.options.template == TemplateOptions::default() {
            self.options.template = template;
        }
    }

    /// Lets another token cancel the next answers; returns the one before.
    pub(crate) fn replace_cancel(&mut self, cancel: CancelToken) -> CancelToken {
        std::mem::replace(&mut self.options.cancel, cancel)
    }

    /// Lets the model reason before the next answers, or not. A program's own, and no part of a saved session.
    pub fn set_reasoning(&mut self, reasoning: Reasoning) {
        self.reasoning = reasoning;
    }

    /// Whether the model reasons before the next answers.
    #[must_use]
    pub fn reasoning(&self) -> Reasoning {
        self.reasoning
    }

    /// The options of the next answers.
    #[must_use]
    pub fn options(&self) -> &GenerateOptions {
        &self.options
    }

    /// What happens when the context is full.
    #[must_use]
    pub fn policy(&self) -> ContextPolicy {
        self.policy
    }

    /// The model.
    #[must_use]
    pub fn lm(&self) -> &Lm {
        &self.lm
    }

    /// Tokens of the context that are kept free for an answer.
    #[must_use]
    pub fn answer_room(&self) -> usize {
        if let Some(tokens) = self.answer_room {
            return tokens;
        }
        let quarter = self.lm.context_length() / 4;
        match self.options.max_tokens {
            Some(most) => most.min(quarter),
            None => quarter.min(ANSWER_ROOM),
        }
    }

    /// Says something and starts to answer it.
    ///
    /// # Errors
    /// As [`Lm::generate`]; [`Error::ConversationTooLong`] where the policy does not make room; [`Error::CannotReason`],
    /// [`Error::FormWithTools`]. An answer that is cut within a tool call is [`Error::Text`]
    /// ([`TextError::ToolCallIncomplete`](crate::TextError::ToolCallIncomplete)).
    pub fn send(&mut self, text: impl Into<String>) -> Result<Answer<'_>, Error> {
        self.send_message(Message::user(text))
    }

    /// As [`Conversation::send`], with a message of any role (the result of a tool) or with further fields.
    ///
    /// # Errors
    /// As [`Conversation::send`].
    pub fn send_message(&mut self, message: Message) -> Result<Answer<'_>, Error> {
        let before = self.talk.clone();
        self.talk.messages.push(message);
        self.start(before, Written::default())
    }

    /// Says something and waits for the whole answer.
    ///
    /// # Errors
    /// As [`Conversation::send`], and what goes wrong while it is answered.
    pub fn ask(&mut self, text: impl Into<String>) -> Result<Reply, Error> {
        self.send(text)?.complete()
    }

    /// Answers the last message that is not the model's: the one that was pushed, or once more the one whose answer did not
    /// please (which is taken out).
    ///
    /// # Errors
    /// [`Error::NothingToAnswer`] where there is no such message; as [`Conversation::send`].
    pub fn regenerate(&mut self) -> Result<Answer<'_>, Error> {
        let messages = &self.talk.messages;
        let last = messages
            .iter()
            .rposition(|message| !matches!(message.role.as_str(), "assistant" | "system"));
        let last = last.ok_or(Error::NothingToAnswer)?;
        let before = self.talk.clone();
        self.talk.messages.truncate(last + 1);
        self.start(before, Written::default())
    }

    /// Goes on with the last message, which must be the model's: an answer that was cut by a limit or cancelled, or a beginning
    /// that was put into its mouth ([`Conversation::push`]). The events and the reply have the new part only; the message
    /// becomes the whole.
    ///
    /// # Errors
    /// [`Error::NothingToContinue`]; [`Error::ContinueForm`] where the options ask for a form or tools are on offer; as [`Conversation::send`].
    pub fn continue_answer(&mut self) -> Result<Answer<'_>, Error> {
        let last = self.talk.messages.last();
        let Some(last) = last.filter(|message| message.role == "assistant") else {
            return Err(Error::NothingToContinue);
        };
        let tokenizer = self.lm.tokenizer();
        let written = self.talk.last_answer.as_ref();
        let begun = match written.filter(|written| written.message.as_ref() == Some(last)) {
            Some(written) => written.clone(),
            None => Written {
                text: last.content.clone(),
                ids: tokenizer.encode(&last.content, false)?,
                message: None,
            },
        };
        let before = self.talk.clone();
        self.talk.messages.pop();
        self.start(before, begun)
    }

    /// Makes room where it is needed and starts to generate. `begun`: what is there of the answer already.
    fn start(&mut self, mut before: Talk, begun: Written) -> Result<Answer<'_>, Error> {
        let prepared = self
            .prepare(begun.ids.len())
            .and_then(|(history, dropped)| Ok((self.course(&history, &begun)?, history, dropped)));
        match prepared {
            Ok((course, history, dropped)) => {
                self.talk.history = history;
                before.asleep = None;
                let setup = Setup {
                    calls: self.calls_so_far(),
                    lm: &self.lm,
                    options: &self.options,
                    offer: self.offer.as_ref().filter(|offer| !self.has_form(offer)),
                    course,
                };
                Answer::start(setup, &mut self.talk, before, begun, dropped)
            }
            Err(error) => {
                // A conversation that could not be woken says so once.
                before.asleep = self.talk.asleep.take();
                self.talk = before;
                Err(error)
            }
        }
    }

    /// How the reasoning before an answer goes.
    fn course(&self, history: &TokenHistory, begun: &Written) -> Result<Course, Error> {
        let has_form = !matches!(self.options.format, OutputFormat::Text);
        if let Some(offer) = self.offer.as_ref().filter(|_| has_form)
            && offer.options.choice != ToolChoice::None
        {
            return Err(Error::FormWithTools);
        }
        let prompt = history.end(self.lm.tokenizer());
        Course::new(
            &self.lm,
            self.reasoning,
            prompt,
            begun.ids.is_empty(),
            has_form || self.offer.is_some(),
        )
    }

    /// Whether the answer has a form of its own, which keeps it from calling tools.
    fn has_form(&self, offer: &Offer) -> bool {
        offer.options.choice == ToolChoice::None
            && !matches!(self.options.format, OutputFormat::Text)
    }

    /// The tokens of the prompt, with what had to be dropped for them.
    fn prepare(&mut self, begun: usize) -> Result<(TokenHistory, Option<Dropped>), Error> {
        self.talk.now.get_or_insert_with(now);
        self.wake()?;
        self.make_room(begun)
    }

    /// The tokens of these messages as a prompt.
    fn render(&self, messages: &[Message]) -> Result<TokenHistory, Error> {
        let mut template = self.options.template.clone();
        template.now = template.now.or(self.talk.now);
        self.reasoning.set(&mut template);
        let mut input = match &self.talk.summary {
            None => template_input(messages, &template),
            Some(summary) => template_input(&summary::with_summary(messages, summary), &template),
        };
        if let Some(offer) = &self.offer {
            offer.add_to(&mut input)?;
        }
        let stretches = self.lm.text().split(&input)?;
        self.talk.history.render(self.lm.tokenizer(), &stretches)
    }

    fn count(&self, history: &TokenHistory) -> usize {
        history.ids(self.lm.tokenizer()).len()
    }
}
