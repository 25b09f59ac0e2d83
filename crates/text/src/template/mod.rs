//! Chat templates: messages in, prompt text out, byte for byte what transformers renders.
//!
//! Scope: the Jinja of `apply_chat_template` (`ImmutableSandboxedEnvironment` with `trim_blocks`,
//! `lstrip_blocks`, loop controls, its own `tojson`, `raise_exception`, `strftime_now`). A template
//! comes with the model and is untrusted: it runs with a budget of work and memory, reaches nothing
//! but the conversation, and can fail only with an error.

mod clock;
mod filters;
mod python;

use std::{error::Error as _, fmt, sync::mpsc, thread, time::Duration};

use dunlin_format::Metadata;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, syntax::SyntaxConfig};
use serde_json::{Map, Value as Json};

pub use clock::DateTime;
pub(crate) use python::float as python_float;

use crate::{TextError, Tokenizer};

/// Work that every render may do: instructions, or 64 bytes of text each. The shared test
/// conversations need less than 2,000, tools included.
const BASE_FUEL: u64 = 500_000;
/// Reserved, not used, memory of the threads that compile and render. The fuel allows about 80,000
/// levels of lists in lists.
const STACK_BYTES: usize = 256 << 20;
/// The compiler descends once for each sign of `- - - 1` and of `a|f|f|f`, without a limit of its
/// own, so the length of the source bounds its stack. Templates of models have up to 20 KB.
const MAX_SOURCE_BYTES: usize = 64 << 10;
/// Compiling and rendering take milliseconds. The renderer joins lists (`l + l`) without charging fuel, which 33
/// doublings turn into billions of elements; only time ends that. The compiler needs time with the
/// square of an expression's length (`1~1~1`).
const BASE_TIME: Duration = Duration::from_secs(8);
/// Time added for each MiB of the conversation.
const TIME_PER_MIB: Duration = Duration::from_secs(1);
/// Work added for each byte of the conversation, which templates trim, split and copy again and
/// again.
const FUEL_PER_BYTE: u64 = 4;
/// Recursion is charged per macro call and loop; more could overflow a small thread's stack.
const RECURSION_LIMIT: usize = 200;
/// As deep as JSON parsers commonly go.
const MAX_INPUT_DEPTH: usize = 120;

const DEFAULT_TEMPLATE: &str = "chat_template";
const TOOL_TEMPLATE: &str = "tool_use";

/// The chat template of a model, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    has_tool_template: bool,
    bos: Option<String>,
    eos: Option<String>,
}

/// One conversation to render.
#[derive(Clone, Debug, Default)]
pub struct TemplateInput {
    /// Objects with `role` and `content` and whatever else the template reads (`tool_calls`,
    /// `reasoning_content`, ..).
    pub messages: Vec<Json>,
    /// The list of tools on offer (JSON Schema functions), `None` for no tools.
    pub tools: Option<Json>,
    /// Whether to open the assistant's turn at the end.
    pub add_generation_prompt: bool,
    /// Further template variables, such as `enable_thinking`.
    pub extra: Map<String, Json>,
    /// What `strftime_now` shows. Without it the function does not exist, and templates that ask
    /// (`strftime_now is defined`) use the fixed date written in them.
    pub now: Option<DateTime>,
}

impl ChatTemplate {
    /// The template in a model's metadata (`tokenizer.chat_template`, and
    /// `tokenizer.chat_template.tool_use` for conversations with tools where a model has it).
    ///
    /// # Errors
    ///
    /// [`TextError::NoChatTemplate`] for a base model, [`TextError::TemplateSyntax`] for a template
    /// that cannot be compiled.
    pub fn from_gguf(metadata: &Metadata, tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let source = metadata
            .str("tokenizer.chat_template")?
            .ok_or(TextError::NoChatTemplate)?;
        let text_of = |id: Option<_>| id.and_then(|id| tokenizer.token_text(id));
        let mut template = Self::new(source, text_of(tokenizer.bos()), text_of(tokenizer.eos()))?;
        if let Some(source) = metadata.str("tokenizer.chat_template.tool_use")? {
            template.add(TOOL_TEMPLATE, source)?;
            template.has_tool_template = true;
        }
        Ok(template)
    }

    /// A template from its source, with the texts that `bos_token` and `eos_token` stand for.
    ///
    /// # Errors
    ///
    /// [`TextError::TemplateSyntax`] where the source is not valid Jinja or too long,
    /// [`TextError::TemplateTime`] where compiling it does not come to an end.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        // The builder fails only for custom delimiters, and none are set.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| syntax_error(&error))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_recursion_limit(RECURSION_LIMIT);
        environment.set_debug(false);
        filters::install(&mut environment);
        let mut template = Self {
            environment,
            source: source.to_owned(),
            has_tool_template: false,
            bos: bos.map(str::to_owned),
            eos: eos.map(str::to_owned),
        };
        template.add(DEFAULT_TEMPLATE, source)?;
        Ok(template)
    }

    fn add(&mut self, name: &'static str, source: &str) -> Result<(), TextError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(TextError::TemplateSyntax {
                message: format!(
                    "its source has {} bytes and {MAX_SOURCE_BYTES} are read at most",
                    source.len()
                ),
                line: None,
            });
        }
        let source = without_generation_tags(source);
        let mut environment = self.environment.clone();
        let compile = move || {
            environment.add_template_owned(name, source)?;
            Ok(environment)
        };
        self.environment =
            on_large_stack(compile, BASE_TIME)?.map_err(|error| syntax_error(&error))?;
        Ok(())
    }

    /// The Jinja source, as the model brings it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for a conversation. It holds the model's control tokens as text, BOS included
    /// where the template writes one: encode it with `parse_special`, and do not add BOS again.
    ///
    /// # Errors
    ///
    /// [`TextError::TemplateRaised`] where the template refuses the conversation,
    /// [`TextError::TemplateFailed`] where it fails on it, [`TextError::TemplateFuel`] and
    /// [`TextError::TemplateTime`] where it does not come to an end.
    pub fn render(&self, input: &TemplateInput) -> Result<String, TextError> {
        let context = self.context(input)?;
        let bytes = input_bytes(input);
        let fuel = BASE_FUEL + FUEL_PER_BYTE * bytes;
        let mebibytes = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let limit = BASE_TIME.saturating_add(TIME_PER_MIB.saturating_mul(mebibytes));
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));
        let with_tools = input.tools.as_ref().is_some_and(|tools| !tools.is_null());
        let name = match with_tools && self.has_tool_template {
            true => TOOL_TEMPLATE,
            false => DEFAULT_TEMPLATE,
        };
        let render = move || {
            let template = environment.get_template(name)?;
            template.render(context)
        };
        on_large_stack(render, limit)?.map_err(|error| render_error(&error, fuel))
    }

    fn context(&self, input: &TemplateInput) -> Result<Value, TextError> {
        let mut messages = Vec::with_capacity(input.messages.len());
        for (index, message) in input.messages.iter().enumerate() {
            let message = message
                .as_object()
                .ok_or(TextError::InvalidMessage { index })?;
            messages.push(value_of(&with_reasoning_names(message), MAX_INPUT_DEPTH)?);
        }
        let mut variables: Vec<(String, Value)> = Vec::new();
        for (name, text) in [("bos_token", &self.bos), ("eos_token", &self.eos)] {
            if let Some(text) = text {
                variables.push((name.to_owned(), Value::from(text.as_str())));
            }
        }
        for (name, value) in &input.extra {
            variables.push((name.clone(), value_of(value, MAX_INPUT_DEPTH)?));
        }
        variables.push(("messages".to_owned(), Value::from(messages)));
        let tools = input.tools.as_ref().unwrap_or(&Json::Null);
        variables.push(("tools".to_owned(), value_of(tools, MAX_INPUT_DEPTH)?));
        if !input.extra.contains_key("documents") {
            variables.push(("documents".to_owned(), Value::from(())));
        }
        variables.push((
            "add_generation_prompt".to_owned(),
            input.add_generation_prompt.into(),
        ));
        if let Some(now) = input.now {
            let strftime_now = Value::from_function(move |format: &str| now.strftime(format));
            variables.push(("strftime_now".to_owned(), strftime_now));
        }
        Ok(Value::from_pairs(variables))
    }
}

/// Runs what a hostile template can make recurse deeply where there is stack for it: compiling
/// descends into long expressions, and lists nested as deep as the fuel allows take a level for each
/// of theirs to be printed and dropped.
///
/// A thread cannot be stopped from outside: one that is still at work after `limit` is left to
/// itself, until its own end or the program's.
fn on_large_stack<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    limit: Duration,
) -> Result<T, TextError> {
    let failed = |message: String| TextError::TemplateFailed {
        message,
        line: None,
    };
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("chat-template".to_owned())
        .stack_size(STACK_BYTES)
        // Nobody waits any more where sending fails.
        .spawn(move || drop(sender.send(work())))
        .map_err(|error| failed(format!("no thread for the template: {error}")))?;
    receiver.recv_timeout(limit).map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => TextError::TemplateTime {
            seconds: limit.as_secs(),
        },
        mpsc::RecvTimeoutError::Disconnected => failed("the template engine panicked".to_owned()),
    })
}

/// Reasoning goes by three names; templates read one or another. As transformers 5 does: the text
/// stands under `thinking` (first key) and under `reasoning_content`.
fn with_reasoning_names(message: &Map<String, Json>) -> Json {
    let reasoning = ["reasoning_content", "thinking", "reasoning"]
        .iter()
        .find_map(|name| message.get(*name).filter(|value| !value.is_null()));
    let Some(reasoning) = reasoning else {
        return Json::Object(message.clone());
    };
    let mut named = Map::new();
    named.insert("thinking".to_owned(), reasoning.clone());
    named.extend(
        message
            .iter()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    named.insert("reasoning_content".to_owned(), reasoning.clone());
    Json::Object(named)
}

/// `{% generation %}` marks the assistant's words for training and prints nothing. It becomes a
/// block that prints nothing either, so that the white space around it is treated as before.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let inner = &tag[2..end];
        let name = inner.trim_matches(['-', '+']).trim();
        match name {
            "generation" => out.push_str(&format!("{{%{}%}}", inner.replace(name, "with"))),
            "endgeneration" => out.push_str(&format!("{{%{}%}}", inner.replace(name, "endwith"))),
            _ => {
                out.push_str("{%");
                rest = &tag[2..];
                continue;
            }
        }
        rest = &tag[end + 2..];
    }
    out.push_str(rest);
    out
}

/// JSON as the template sees it, at most `depth` levels of it.
fn value_of(json: &Json, depth: usize) -> Result<Value, TextError> {
    let inner = || {
        let limit = MAX_INPUT_DEPTH;
        depth
            .checked_sub(1)
            .ok_or(TextError::InputTooDeep { limit })
    };
    Ok(match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => {
            let depth = inner()?;
            items
                .iter()
                .map(|item| value_of(item, depth))
                .collect::<Result<Value, _>>()?
        }
        Json::Object(map) => {
            let depth = inner()?;
            let mut pairs = Vec::with_capacity(map.len());
            for (key, item) in map {
                pairs.push((key.as_str(), value_of(item, depth)?));
            }
            Value::from_pairs(pairs)
        }
    })
}

/// About the length of the input as JSON.
fn input_bytes(input: &TemplateInput) -> u64 {
    fn bytes(value: &Json) -> u64 {
        match value {
            Json::String(text) => text.len() as u64 + 2,
            Json::Array(items) => items.iter().map(bytes).sum::<u64>() + 2,
            Json::Object(map) => map.iter().map(|(k, v)| k.len() as u64 + 4 + bytes(v)).sum(),
            _ => 4,
        }
    }
    let values = input
        .messages
        .iter()
        .chain(&input.tools)
        .chain(input.extra.values());
    values.map(bytes).sum()
}

/// What `raise_exception` was called with, carried through the renderer to the caller.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn syntax_error(error: &minijinja::Error) -> TextError {
    TextError::TemplateSyntax {
        message: message_of(error),
        line: error.line(),
    }
}

fn render_error(error: &minijinja::Error, fuel: u64) -> TextError {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return TextError::TemplateRaised {
                message: message.clone(),
            };
        }
        if let Some(inner) = inner.downcast_ref::<minijinja::Error>()
            && inner.kind() == ErrorKind::OutOfFuel
        {
            return TextError::TemplateFuel { fuel };
        }
        source = inner.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return TextError::TemplateFuel { fuel };
    }
    TextError::TemplateFailed {
        message: message_of(error),
        line: error.line(),
    }
}

fn message_of(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{:?}: {detail}", error.kind()),
        None => format!("{:?}", error.kind()),
    }
}
