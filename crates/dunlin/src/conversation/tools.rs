//! Tools on offer in a conversation, and the results of their calls.

use dunlin_text::{
    Grammar, TemplateInput, TextError, Tool, ToolCall, ToolChoice, ToolParser, ToolPrompt,
};
use serde_json::Value as Json;

use super::{Answer, Conversation, Written};
use crate::prompt::{message_as_json, message_from_json};
use crate::{Error, Lm, Message};

/// How tools may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolOptions {
    /// Whether an answer has to call tools. Default: the model decides.
    pub choice: ToolChoice,
    /// Whether one answer may have several calls (Llama 3 never has). Default: it may.
    pub parallel: bool,
}

impl Default for ToolOptions {
    fn default() -> Self {
        ToolOptions {
            choice: ToolChoice::Auto,
            parallel: true,
        }
    }
}

impl ToolOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this choice.
    #[must_use]
    pub fn with_choice(mut self, choice: ToolChoice) -> Self {
        self.choice = choice;
        self
    }

    /// With several calls in an answer, or one at most.
    #[must_use]
    pub fn with_parallel(mut self, parallel: bool) -> Self {
        self.parallel = parallel;
        self
    }
}

/// Tools on offer.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    tools: Vec<Tool>,
    pub options: ToolOptions,
    pub prompt: ToolPrompt,
    /// Holds calls to the tools and their schemas.
    pub grammar: Grammar,
}

impl Offer {
    /// # Errors
    /// [`TextError::NoToolFormat`]; what keeps the tools from being offered or held to their schemas.
    pub(super) fn new(lm: &Lm, tools: &[Tool], options: ToolOptions) -> Result<Self, Error> {
        let tokenizer = lm.tokenizer();
        let has_token = |text: &str| tokenizer.token_id(text).is_some();
        let prompt = ToolPrompt::of(lm.chat_template()?, has_token)?;
        let prompt = prompt.ok_or(TextError::NoToolFormat)?;
        let format = prompt.format();
        let markers = format.control_markers(tokenizer);
        let lark = format.grammar(tools, &options.choice, options.parallel, &markers)?;
        let grammar = Grammar::from_lark(tokenizer, &lark);
        Ok(Offer {
            grammar: grammar.map_err(|error| of_tool(lm, tools, error))?,
            tools: tools.to_vec(),
            options,
            prompt,
        })
    }

    /// Puts the tools into what the template reads.
    pub(super) fn add_to(&self, input: &mut TemplateInput) -> Result<(), Error> {
        Ok(self.prompt.offer(input, &self.tools)?)
    }

    pub(super) fn parser(&self) -> ToolParser {
        self.prompt.format().parser(&self.tools)
    }
}

/// Says of which tool a schema is.
fn of_tool(lm: &Lm, tools: &[Tool], error: TextError) -> TextError {
    if !matches!(error, TextError::Schema { .. }) {
        return error;
    }
    let faulty = tools.iter().find_map(|tool| {
        let alone = Grammar::from_json_schema(lm.tokenizer(), &tool.parameters);
        match alone.err()? {
            TextError::Schema { pointer, reason } => Some(TextError::ToolSchema {
                tool: tool.name.clone(),
                place: pointer,
                reason,
            }),
            _ => None,
        }
    });
    faulty.unwrap_or(error)
}

impl Conversation {
    /// With these tools on offer, as [`Conversation::set_tools`].
    ///
    /// # Errors
    /// As [`Conversation::set_tools`].
    pub fn with_tools(mut self, tools: &[Tool], options: ToolOptions) -> Result<Self, Error> {
        self.set_tools(tools, options)?;
        Ok(self)
    }

    /// Offers tools from the next answer on, in place of those before. Calls are held to the tools' names and schemas token by token:
    /// a call that is complete has arguments that validate. Tools are the program's, and no part of a saved session.
    ///
    /// An answer with calls waits for their results ([`Conversation::push_tool_result`]), after which
    /// [`Conversation::answer`] goes on; [`Conversation::run_tools`] does both.
    ///
    /// # Errors
    /// [`TextError::NoToolFormat`] for a model whose template has no place for tools; [`TextError::InvalidTool`],
    /// [`TextError::NoSuchTool`], and [`TextError::ToolSchema`] for a schema that calls cannot be held to.
    /// The tools are as before then.
    pub fn set_tools(&mut self, tools: &[Tool], options: ToolOptions) -> Result<(), Error> {
        self.offer = Some(Offer::new(&self.lm, tools, options)?);
        Ok(())
    }

    /// Offers no tools any more.
    pub fn clear_tools(&mut self) {
        self.offer = None;
    }

    /// The tools on offer.
    #[must_use]
    pub fn tools(&self) -> &[Tool] {
        self.offer
            .as_ref()
            .map_or(&[], |offer| offer.tools.as_slice())
    }

    /// Adds the result of a call, in the way that the model's template reads it. All results of an answer belong in, in the order of
    /// the calls.
    ///
    /// # Errors
    /// [`TextError::NoToolFormat`] where no tools are on offer.
    pub fn push_tool_result(
        &mut self,
        call: &ToolCall,
        content: impl AsRef<str>,
    ) -> Result<(), Error> {
        let offer = self.offer.as_ref().ok_or(TextError::NoToolFormat)?;
        let messages = &mut self.talk.messages;
        // A template may want it in the message that called.
        let mut last: Vec<Json> = messages.pop().iter().map(message_as_json).collect();
        offer.prompt.push_result(&mut last, call, content.as_ref());
        messages.extend(last.into_iter().map(message_from_json));
        Ok(())
    }

    /// Answers the conversation as it stands: after messages that were pushed, or the results of calls.
    ///
    /// # Errors
    /// [`Error::NothingToAnswer`] where it ends with an answer or has no message; as [`Conversation::send`].
    pub fn answer(&mut self) -> Result<Answer<'_>, Error> {
        let waits = |message: &&Message| match message.role.as_str() {
            "assistant" => message.extra.contains_key("tool_responses"),
            role => role != "system",
        };
        let last = self.talk.messages.last();
        last.filter(waits).ok_or(Error::NothingToAnswer)?;
        let before = self.talk.clone();
        self.start(before, Written::default())
    }

    /// Calls and results so far: the next call has this number.
    pub(super) fn calls_so_far(&self) -> usize {
        let calls = |message: &Message| {
            let calls = message.extra.get("tool_calls").and_then(Json::as_array);
            calls.map_or(0, Vec::len) + usize::from(message.role == "tool")
        };
        self.talk.messages.iter().map(calls).sum()
    }
}
