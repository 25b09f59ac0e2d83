//! Grammars of answers whose calls can be read, and whose arguments fit the tools' schemas.
//!
//! The language is llguidance's dialect of Lark. JSON arguments are its `%json`, which refuses schema
//! keywords that it does not know when the grammar is compiled. For the notations that are not JSON
//! the values are written out here (`values.rs`, `xml.rs`), from fewer keywords, and any other is a
//! typed error.

mod lark;
mod schema;
mod values;
mod xml;

use serde_json::{Value as Json, json};

use self::{
    lark::{Lark, quoted},
    values::Dialect,
};
use super::{Tool, ToolChoice, ToolFormat, check_tools, format};
use crate::{TextError, TokenId};

/// Identifiers as Mistral's templates want them.
const MISTRAL_ID: &str = "/[a-zA-Z0-9]{9}/";

impl ToolFormat {
    /// A grammar, in llguidance's Lark, of the answers that `choice` allows: text without calls,
    /// or calls of `tools` with arguments that fit their schemas. After the first call there is no
    /// text any more. `parallel` allows several calls in one answer, which Llama 3 never makes.
    ///
    /// `control_markers` are those markers that the token trie of the grammar engine has as special
    /// tokens, with their ids ([`Self::control_markers`]); the others are matched as text.
    ///
    /// What follows the grammar is read by [`Self::parser`], but for numbers beyond the range of `f64`
    /// and values nested more than a hundred levels deep, which no grammar tells from others.
    ///
    /// # Errors
    ///
    /// [`TextError::InvalidTool`] for tools that cannot be offered, [`TextError::NoSuchTool`] where no
    /// tool fulfils the choice, [`TextError::ToolSchema`] where the notation is not JSON and a schema
    /// has what it cannot be held to.
    pub fn grammar(
        self,
        tools: &[Tool],
        choice: &ToolChoice,
        parallel: bool,
        control_markers: &[(&str, TokenId)],
    ) -> Result<String, TextError> {
        check_tools(tools)?;
        let callable = callable(tools, choice)?;
        let mut lark = Lark::new(control_markers);
        let trigger = self.trigger();
        let is_control = lark.is_control(trigger);
        self.plain(&mut lark, tools);
        if *choice == ToolChoice::None {
            lark.rule("start", "PLAIN?");
            return Ok(lark.finish());
        }
        let begin = match self {
            Self::Llama3 => String::new(),
            _ => lark.marker(trigger) + " ",
        };
        self.calls(&mut lark, &callable, parallel)?;
        let start = match choice {
            ToolChoice::Required | ToolChoice::Named(_) => {
                // The line breaks behind reasoning.
                lark.terminal("BREAKS", "/\\n{1,2}/");
                format!("BREAKS? {begin}calls")
            }
            _ if self == Self::Llama3 => "PLAIN? | calls".to_owned(),
            _ if is_control => format!("PLAIN? | PLAIN? {begin}calls"),
            _ => {
                let lead = format!("lead[suffix={}]", quoted(trigger));
                lark.rule(&lead, "/(?s:.*)/");
                "PLAIN? | lead calls".to_owned()
            }
        };
        lark.rule("start", &start);
        Ok(lark.finish())
    }

    /// The terminal of text that no parser takes for a call.
    fn plain(self, lark: &mut Lark, tools: &[Tool]) {
        let mut plain = "/(?s:.+)/".to_owned();
        if !lark.is_control(self.trigger()) {
            plain.push_str(&lark::without(self.trigger()));
        }
        if self == Self::Llama3 && !tools.is_empty() {
            let names: Vec<String> = tools.iter().map(|tool| lark::regex(&tool.name)).collect();
            plain.push_str(&format!(
                " & ~/\\s*\\{{\\s*\"name\"\\s*:\\s*\"({})\"(?s:.*)/",
                names.join("|")
            ));
        }
        lark.terminal("PLAIN", &plain);
    }

    /// The rule `calls`: all that follows the first trigger.
    fn calls(self, lark: &mut Lark, tools: &[&Tool], parallel: bool) -> Result<(), TextError> {
        let mut names = Vec::with_capacity(tools.len());
        for (index, tool) in tools.iter().enumerate() {
            let name = format!("call_{index}");
            let call = self.call(lark, tool, &format!("t{index}"))?;
            lark.rule(&name, &call);
            names.push(name);
        }
        lark.rule("call", &names.join(" | "));
        let close = match self.close() {
            "" => String::new(),
            close => format!(" {}", lark.marker(close)),
        };
        let several = |call: &str, separator: &str| match parallel {
            true => format!("{call} ({separator} {call})*"),
            false => call.to_owned(),
        };
        let trigger = lark.marker(self.trigger());
        let calls = match self {
            Self::MistralList | Self::Phi4Mini | Self::Granite3 | Self::Lfm2 => {
                format!("\"[\" {} \"]\"{close}", several("call", "\", \""))
            }
            Self::Llama3 => "call".to_owned(),
            Self::Hermes | Self::QwenXml => {
                several(&format!("call{close}"), &format!("\"\\n\" {trigger}"))
            }
            Self::Gemma4 | Self::MistralCallId | Self::MistralArguments => {
                several(&format!("call{close}"), &trigger)
            }
        };
        lark.rule("calls", &calls);
        Ok(())
    }

    /// One call, without the markers around it.
    fn call(self, lark: &mut Lark, tool: &Tool, prefix: &str) -> Result<String, TextError> {
        let name = &tool.name;
        let json = |arguments: &str| {
            let open = quoted(&format!("{{\"name\": \"{name}\", \"{arguments}\": "));
            format!("{open} {}", arguments_json(tool))
        };
        Ok(match self {
            Self::Hermes => {
                let open = quoted(&format!("\n{{\"name\": \"{name}\", \"arguments\": "));
                format!("{open} {} {}", arguments_json(tool), quoted("}\n"))
            }
            Self::Llama3 => format!("{} \"}}\"", json("parameters")),
            Self::Phi4Mini | Self::Granite3 => format!("{} \"}}\"", json("arguments")),
            Self::MistralList => {
                let id = quoted(", \"id\": \"");
                format!("{} {id} {MISTRAL_ID} {}", json("arguments"), quoted("\"}"))
            }
            Self::MistralCallId => format!(
                "{} {} {MISTRAL_ID} {} {}",
                quoted(name),
                lark.marker(format::MISTRAL_ID),
                lark.marker(format::MISTRAL_ARGUMENTS),
                arguments_json(tool)
            ),
            Self::MistralArguments => format!(
                "{} {} {}",
                quoted(name),
                lark.marker(format::MISTRAL_ARGUMENTS),
                arguments_json(tool)
            ),
            Self::QwenXml => xml::call(lark, tool, prefix)?,
            Self::Gemma4 => {
                let arguments = values::arguments(lark, tool, Dialect::Gemma, prefix)?;
                format!("{} {arguments} \"}}\"", quoted(&format!("call:{name}{{")))
            }
            Self::Lfm2 => {
                let arguments = values::arguments(lark, tool, Dialect::Python, prefix)?;
                format!("{} {arguments} \")\"", quoted(&format!("{name}(")))
            }
        })
    }
}

/// The tools that an answer may call.
fn callable<'t>(tools: &'t [Tool], choice: &ToolChoice) -> Result<Vec<&'t Tool>, TextError> {
    let missing = |wanted: String| {
        let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
        let offered = match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        };
        TextError::NoSuchTool { wanted, offered }
    };
    match choice {
        ToolChoice::None => Ok(Vec::new()),
        ToolChoice::Auto | ToolChoice::Required if tools.is_empty() => {
            Err(missing("a call".to_owned()))
        }
        ToolChoice::Auto | ToolChoice::Required => Ok(tools.iter().collect()),
        ToolChoice::Named(name) => match tools.iter().find(|tool| tool.name == *name) {
            Some(tool) => Ok(vec![tool]),
            None => Err(missing(format!("`{name}`"))),
        },
    }
}

/// The arguments of a tool as JSON, spaced as the templates space it.
fn arguments_json(tool: &Tool) -> String {
    let mut schema = tool.parameters.clone();
    if let Some(schema) = schema.as_object_mut() {
        schema.entry("type").or_insert_with(|| Json::from("object"));
    }
    json_rule(schema)
}

/// A value that fits a schema, as JSON.
fn json_rule(mut schema: Json) -> String {
    if let Some(schema) = schema.as_object_mut() {
        schema.insert(SETTINGS.to_owned(), spacing());
    }
    format!("%json {schema}")
}

/// The keyword under which the grammar engine takes settings.
pub(crate) const SETTINGS: &str = "x-guidance";

/// JSON spaced as templates space it, so that a call that a model wrote is the one that the next prompt has.
pub(crate) fn spacing() -> Json {
    json!({
        "whitespace_flexible": false,
        "item_separator": ", ",
        "key_separator": ": ",
    })
}
