//! Tools, calls and results in the messages that a chat template reads.

use serde_json::{Map, Value as Json, json};

use super::{Tool, ToolCall, ToolFormat, check_tools, render::python_json};
use crate::{ChatTemplate, TemplateInput, TextError};

/// What Phi-4 Mini is told where its tools need a system message and there is none (model card).
const PHI_SYSTEM: &str = "You are a helpful assistant with some tools.";

/// How a chat template takes tools, calls and results.
///
/// Found by rendering small conversations: templates that read `tools` and `tool_calls` get them,
/// and for those that do not, the calls are written into the text of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolPrompt {
    format: ToolFormat,
    offer: Offer,
    calls: Calls,
    results: Results,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// The variable `tools`.
    Variable,
    /// A text under `tools` in the system message (Phi-4 Mini).
    SystemMessage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calls {
    /// `tool_calls` with arguments as an object.
    Objects,
    /// `tool_calls` with arguments as a text that holds JSON.
    Texts,
    /// In the text of the message.
    Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Results {
    /// Messages with the role `tool`.
    Messages,
    /// `tool_responses` of the message that called (early templates of Gemma 4).
    Responses,
}

impl ToolPrompt {
    /// How a template takes tools, `None` where it does not offer them or in a notation that is not
    /// known here. `has_token` is as in [`ToolFormat::detect`].
    ///
    /// # Errors
    ///
    /// [`TextError::TemplateFuel`] and [`TextError::TemplateTime`] for a template that does not come
    /// to an end.
    pub fn of(
        template: &ChatTemplate,
        has_token: impl Fn(&str) -> bool,
    ) -> Result<Option<Self>, TextError> {
        let Some(format) = ToolFormat::detect(template.source(), has_token) else {
            return Ok(None);
        };
        let Some(offer) = find_offer(template)? else {
            return Ok(None);
        };
        let source = template.source();
        let has_responses = source.contains("tool_responses") && !source.contains("tool_call_id");
        Ok(Some(Self {
            format,
            offer,
            calls: find_calls(template, format)?,
            results: match has_responses {
                true => Results::Responses,
                false => Results::Messages,
            },
        }))
    }

    /// The notation of the calls.
    #[must_use]
    pub fn format(&self) -> ToolFormat {
        self.format
    }

    /// An identifier for the call number `number` of a conversation, in the form that every template
    /// takes: nine letters and digits (Mistral).
    #[must_use]
    pub fn identifier(number: usize) -> String {
        format!("call{:05}", number % 100_000)
    }

    /// Offers tools in a conversation, in place of those that it had. Phi-4 Mini takes them in the system
    /// message, which is added where there is none.
    ///
    /// # Errors
    ///
    /// [`TextError::InvalidTool`] for a tool that cannot be offered, and for two of one name.
    pub fn offer(&self, input: &mut TemplateInput, tools: &[Tool]) -> Result<(), TextError> {
        check_tools(tools)?;
        match self.offer {
            Offer::Variable => {
                let tools: Vec<Json> = tools.iter().map(Tool::to_json).collect();
                input.tools = (!tools.is_empty()).then_some(Json::Array(tools));
            }
            Offer::SystemMessage if tools.is_empty() => {
                if let Some(system) = system_message(&mut input.messages) {
                    system.remove("tools");
                }
            }
            Offer::SystemMessage => {
                if system_message(&mut input.messages).is_none() {
                    let system = json!({"role": "system", "content": PHI_SYSTEM});
                    input.messages.insert(0, system);
                }
                let functions = tools.iter().map(|tool| tool.to_json()["function"].take());
                let text = python_json(&Json::Array(functions.collect()));
                if let Some(system) = system_message(&mut input.messages) {
                    system.insert("tools".to_owned(), Json::String(text));
                }
            }
        }
        Ok(())
    }

    /// The assistant's message with calls, and with the text before them (often none).
    ///
    /// # Errors
    ///
    /// [`TextError::ToolCallNotWritable`] where the calls stand in the text of the message, and the
    /// notation cannot write them.
    pub fn assistant(&self, content: &str, calls: &[ToolCall]) -> Result<Json, TextError> {
        if self.calls == Calls::Content {
            let calls = self.format.render(calls)?;
            return Ok(json!({"role": "assistant", "content": format!("{content}{calls}")}));
        }
        let calls = calls.iter().map(|call| {
            let arguments = match self.calls {
                Calls::Texts => Json::String(python_json(&call.arguments)),
                Calls::Objects | Calls::Content => call.arguments.clone(),
            };
            let mut object = Map::new();
            if let Some(id) = &call.id {
                object.insert("id".to_owned(), Json::from(id.as_str()));
            }
            object.insert("type".to_owned(), Json::from("function"));
            let function = json!({"name": call.name, "arguments": arguments});
            object.insert("function".to_owned(), function);
            Json::Object(object)
        });
        let calls: Vec<Json> = calls.collect();
        Ok(match calls.is_empty() {
            true => json!({"role": "assistant", "content": content}),
            false => json!({"role": "assistant", "content": content, "tool_calls": calls}),
        })
    }

    /// Adds the result of a call to the messages, which end with the message that called or with
    /// results of its other calls.
    pub fn push_result(&self, messages: &mut Vec<Json>, call: &ToolCall, content: &str) {
        if self.results == Results::Responses
            && let Some(Json::Object(caller)) = messages.last_mut()
            && caller.contains_key("tool_calls")
        {
            let response = json!({"name": call.name, "response": content});
            match caller
                .get_mut("tool_responses")
                .and_then(Json::as_array_mut)
            {
                Some(responses) => responses.push(response),
                None => {
                    caller.insert("tool_responses".to_owned(), Json::Array(vec![response]));
                }
            }
            return;
        }
        let mut message = json!({"role": "tool", "name": call.name, "content": content});
        if let Some(id) = &call.id {
            message["tool_call_id"] = Json::from(id.as_str());
        }
        messages.push(message);
    }
}

fn system_message(messages: &mut [Json]) -> Option<&mut Map<String, Json>> {
    let first = messages.first_mut()?.as_object_mut()?;
    (first.get("role").and_then(Json::as_str) == Some("system")).then_some(first)
}

/// A name that no template has in itself.
const PROBE: &str = "zq_probe_tool";

fn find_offer(template: &ChatTemplate) -> Result<Option<Offer>, TextError> {
    let tool = json!([{
        "type": "function",
        "function": {
            "name": PROBE,
            "description": "d",
            "parameters": {"type": "object", "properties": {"k": {"type": "string"}}},
        },
    }]);
    let mut input = TemplateInput {
        messages: vec![
            json!({"role": "system", "content": "s"}),
            json!({"role": "user", "content": "u"}),
        ],
        tools: Some(tool),
        add_generation_prompt: true,
        now: "2026-01-15T09:30:00".parse().ok(),
        ..TemplateInput::default()
    };
    if renders(template, &input, PROBE)? {
        return Ok(Some(Offer::Variable));
    }
    input.tools = None;
    input.messages[0]["tools"] = Json::from(PROBE);
    Ok(renders(template, &input, PROBE)?.then_some(Offer::SystemMessage))
}

fn find_calls(template: &ChatTemplate, format: ToolFormat) -> Result<Calls, TextError> {
    let call = ToolCall::new(PROBE, json!({"k": "v"})).with_id(ToolPrompt::identifier(0));
    let expected = format.render(std::slice::from_ref(&call))?;
    for calls in [Calls::Objects, Calls::Texts] {
        let prompt = ToolPrompt {
            format,
            offer: Offer::Variable,
            calls,
            results: Results::Messages,
        };
        // Some templates drop the calls before the last question, others want a result.
        for with_result in [true, false] {
            let mut messages = vec![
                json!({"role": "user", "content": "u"}),
                prompt.assistant("", std::slice::from_ref(&call))?,
            ];
            if with_result {
                prompt.push_result(&mut messages, &call, "r");
            }
            let input = TemplateInput {
                messages,
                now: "2026-01-15T09:30:00".parse().ok(),
                ..TemplateInput::default()
            };
            if renders(template, &input, &expected)? {
                return Ok(calls);
            }
        }
    }
    Ok(Calls::Content)
}

/// Whether a template takes a conversation, and shows a text that is in it.
fn renders(template: &ChatTemplate, input: &TemplateInput, text: &str) -> Result<bool, TextError> {
    match template.render(input) {
        Ok(rendered) => Ok(rendered.contains(text)),
        Err(TextError::TemplateRaised { .. } | TextError::TemplateFailed { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
