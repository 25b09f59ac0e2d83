//! What a model is asked: text to continue, a conversation, or token ids.

mod encode;

use std::time::{SystemTime, UNIX_EPOCH};

use dunlin_text::{DateTime, TemplateInput, TokenId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

pub(crate) use encode::{
    SpecialTexts, Stretch, encode_conversation, insert_bos, split_conversation,
};

/// What a model is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A text to be continued (plain completion, the way of base models): BOS by the model's own rule, and texts of
    /// control tokens stay text.
    Text(String),
    /// A conversation to be answered, through the model's chat template.
    ///
    /// The control tokens of the template's own text count; texts of control tokens within messages (or tools) stay
    /// text, so that `<|im_end|>` written by a user closes no turn. This holds for everything that the template carries
    /// over from a message in one piece, as a whole or cut at an end. Roles and template variables are the program's own
    /// words and are trusted.
    Chat(Vec<Message>),
    /// Token ids, exactly as they are.
    Tokens(Vec<TokenId>),
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Prompt::Text(text.to_owned())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Prompt::Text(text)
    }
}

impl From<Vec<Message>> for Prompt {
    fn from(messages: Vec<Message>) -> Self {
        Prompt::Chat(messages)
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`. The program's own word: never fill in what a user wrote.
    pub role: String,
    /// What is said.
    #[serde(default)]
    pub content: String,
    /// Whatever else the template reads: `tool_calls`, `reasoning_content`, `name`.
    #[serde(flatten)]
    pub extra: Map<String, Json>,
}

impl Message {
    /// A message of this role.
    #[must_use]
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message {
            role: role.into(),
            content: content.into(),
            extra: Map::new(),
        }
    }

    /// How the model shall behave; the first message where there is one.
    #[must_use]
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// What the user says.
    #[must_use]
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// What the model said.
    #[must_use]
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

/// What a chat template gets beside the messages.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TemplateOptions {
    /// The list of tools on offer (JSON Schema functions).
    pub tools: Option<Json>,
    /// Template variables, such as `enable_thinking`.
    pub variables: Map<String, Json>,
    /// The moment that templates print as today; `None`: now, in UTC.
    pub now: Option<DateTime>,
}

impl TemplateOptions {
    /// With these tools on offer.
    #[must_use]
    pub fn with_tools(mut self, tools: Json) -> Self {
        self.tools = Some(tools);
        self
    }

    /// With a template variable.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<Json>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// With this moment as today.
    #[must_use]
    pub fn with_now(mut self, now: DateTime) -> Self {
        self.now = Some(now);
        self
    }
}

pub(crate) fn template_input(messages: &[Message], options: &TemplateOptions) -> TemplateInput {
    TemplateInput {
        messages: messages.iter().map(message_as_json).collect(),
        tools: options.tools.clone(),
        add_generation_prompt: true,
        extra: options.variables.clone(),
        now: Some(options.now.unwrap_or_else(now)),
    }
}

/// A message as templates read it.
pub(crate) fn message_as_json(message: &Message) -> Json {
    let mut fields = Map::new();
    fields.insert("role".to_owned(), message.role.clone().into());
    fields.insert("content".to_owned(), message.content.clone().into());
    fields.extend(message.extra.clone());
    Json::Object(fields)
}

/// A message from what templates read: an object with a role and a text.
pub(crate) fn message_from_json(json: Json) -> Message {
    let mut extra = match json {
        Json::Object(fields) => fields,
        _ => Map::new(),
    };
    let mut take = |name| match extra.shift_remove(name) {
        Some(Json::String(text)) => text,
        _ => String::new(),
    };
    let (role, content) = (take("role"), take("content"));
    Message {
        role,
        content,
        extra,
    }
}

/// The present moment in UTC.
pub(crate) fn now() -> DateTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    DateTime::from_unix_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))
}
