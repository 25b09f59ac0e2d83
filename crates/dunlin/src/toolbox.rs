//! Rust functions as tools.

use std::fmt::{self, Display};

use dunlin_text::{Tool, ToolCall};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::Error;

/// A function of JSON arguments that gives a text for the model, or what went wrong.
type Function = Box<dyn Fn(&Json) -> Result<String, String> + Send + Sync>;

/// Rust functions that a model may call.
///
/// ```
/// # #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Sum {
///     /// The numbers to add.
///     numbers: Vec<f64>,
/// }
///
/// let toolbox = dunlin::Toolbox::new().with("sum", "Adds numbers.", |sum: Sum| {
///     Ok::<_, String>(sum.numbers.iter().sum::<f64>())
/// })?;
/// assert_eq!(toolbox.tools()[0].name, "sum");
/// # Ok::<(), dunlin::Error>(())
/// ```
#[derive(Default)]
pub struct Toolbox {
    tools: Vec<Tool>,
    functions: Vec<Function>,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ToolResult {
    /// The call.
    pub call: ToolCall,
    /// What the model is given: a text as it is, any other value as JSON, and of an error its message after `error: `.
    pub content: String,
    /// Whether it is an error: of the function, or because the arguments or the name did not fit.
    pub is_error: bool,
}

impl Toolbox {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more function. The schema of its arguments is that of their type, a struct, whose doc comments the model reads, as it
    /// does the description: what the function does and when to use it. Arguments beyond the fields of the struct do not come up.
    ///
    /// # Errors
    /// [`Error::Text`] for a name or a type that tools cannot have ([`Tool::new`]), and for a name that is there already.
    pub fn with<A, R, E>(
        self,
        name: impl Into<String>,
        description: impl Into<String>,
        function: impl Fn(A) -> Result<R, E> + Send + Sync + 'static,
    ) -> Result<Self, Error>
    where
        A: DeserializeOwned + JsonSchema,
        R: Serialize,
        E: Display,
    {
        let schema = schema_for_model(schemars::schema_for!(A).to_value());
        self.with_tool(Tool::new(name, description, schema)?, move |arguments| {
            let arguments = A::deserialize(arguments)
                .map_err(|error| format!("the arguments do not fit: {error}"))?;
            let value = function(arguments).map_err(|error| error.to_string())?;
            match serde_json::to_value(value) {
                Ok(Json::String(text)) => Ok(text),
                Ok(value) => Ok(value.to_string()),
                Err(error) => Err(format!("the result cannot be written as JSON: {error}")),
            }
        })
    }

    /// With one more tool whose schema is given as it is, and a function of JSON that gives a text for the model, or what went wrong.
    /// Arguments that a model writes validate against the schema; others may not.
    ///
    /// # Errors
    /// [`Error::Text`] for a name that is there already.
    pub fn with_tool(
        mut self,
        tool: Tool,
        function: impl Fn(&Json) -> Result<String, String> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        if self.tools.iter().any(|other| other.name == tool.name) {
            return Err(Error::Text(dunlin_text::TextError::InvalidTool {
                name: tool.name,
                reason: "two tools have this name".to_owned(),
            }));
        }
        self.tools.push(tool);
        self.functions.push(Box::new(function));
        Ok(self)
    }

    /// The tools as models are told of them.
    #[must_use]
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// Runs a call. Whatever is wrong with it is a result that says so, for the model to read.
    #[must_use]
    pub fn call(&self, call: &ToolCall) -> ToolResult {
        let place = self.tools.iter().position(|tool| tool.name == call.name);
        let outcome = match place.and_then(|place| self.functions.get(place)) {
            Some(function) => function(&call.arguments),
            None => {
                let names: Vec<&str> = self.tools.iter().map(|tool| tool.name.as_str()).collect();
                Err(format!(
                    "there is no tool `{}`; there are: {}",
                    call.name,
                    names.join(", ")
                ))
            }
        };
        ToolResult::new(call, outcome)
    }
}

impl ToolResult {
    pub(crate) fn new(call: &ToolCall, outcome: Result<String, String>) -> Self {
        ToolResult {
            call: call.clone(),
            is_error: outcome.is_err(),
            content: outcome.unwrap_or_else(|error| format!("error: {error}")),
        }
    }
}

/// The schema of arguments as models are told of it.
pub(crate) fn schema_for_model(mut schema: Json) -> Json {
    if let Some(schema) = schema.as_object_mut() {
        // Of no use to the model, which reads all of it in every prompt.
        schema.shift_remove("$schema");
        schema.shift_remove("title");
    }
    close(&mut schema);
    schema
}

/// Allows objects the properties that they name, and no others, where a schema leaves it open: small models make names up, which
/// `serde` would pass over.
fn close(schema: &mut Json) {
    match schema {
        Json::Array(items) => items.iter_mut().for_each(close),
        Json::Object(fields) => {
            fields.values_mut().for_each(close);
            let others = ["allOf", "anyOf", "oneOf", "$ref", "additionalProperties"];
            let is_open = fields.get("properties").is_some_and(Json::is_object)
                && fields.get("type").is_some_and(|kind| kind == "object")
                && !others.iter().any(|keyword| fields.contains_key(*keyword));
            if is_open {
                fields.insert("additionalProperties".to_owned(), false.into());
            }
        }
        _ => {}
    }
}

impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toolbox")
            .field("tools", &self.tools)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(serde::Deserialize, JsonSchema)]
    struct Division {
        /// What is divided.
        dividend: i64,
        divisor: i64,
    }

    fn toolbox() -> Toolbox {
        Toolbox::new()
            .with("divide", "Divides.", |args: Division| {
                let quotient = args.dividend.checked_div(args.divisor);
                quotient.ok_or("nothing can be divided by zero")
            })
            .unwrap()
            .with("greet", "Greets.", |_: Division| {
                Ok::<_, String>("Hello".to_owned())
            })
            .unwrap()
    }

    #[test]
    fn a_functions_arguments_are_its_schema() {
        let toolbox = toolbox();
        let schema = &toolbox.tools()[0].parameters;
        assert_eq!(schema["required"], json!(["dividend", "divisor"]));
        let dividend = &schema["properties"]["dividend"];
        assert_eq!(dividend["type"], "integer");
        assert_eq!(dividend["description"], "What is divided.");
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn calls_give_text_json_or_an_error_that_says_why() {
        let toolbox = toolbox();
        for (name, arguments, content, is_error) in [
            ("divide", json!({"dividend": 7, "divisor": 2}), "3", false),
            (
                "greet",
                json!({"dividend": 7, "divisor": 2}),
                "Hello",
                false,
            ),
            (
                "divide",
                json!({"dividend": 7, "divisor": 0}),
                "error: nothing can be divided by zero",
                true,
            ),
            (
                "divide",
                json!({"dividend": 7}),
                "error: the arguments do not fit: missing field `divisor`",
                true,
            ),
            (
                "add",
                json!({}),
                "error: there is no tool `add`; there are: divide, greet",
                true,
            ),
        ] {
            let result = toolbox.call(&ToolCall::new(name, arguments));
            assert_eq!(result.content, content);
            assert_eq!(result.is_error, is_error);
        }
    }

    #[test]
    fn arguments_are_a_struct_and_names_are_one_of_a_kind() {
        let unit = Toolbox::new().with("now", "", |_: ()| Ok::<_, String>(1));
        assert!(unit.is_err());
        let twice = toolbox().with("greet", "", |_: Division| Ok::<_, String>(1));
        assert!(twice.unwrap_err().to_string().contains("this name"));
    }
}
