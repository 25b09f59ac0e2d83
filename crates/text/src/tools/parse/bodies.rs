//! What stands behind the marker of each notation.

use super::{
    Body, Sink, Step,
    json::unexpected,
    literal::{Dialect, LiteralReader},
    object::CallObject,
    python::{PythonCall, push_name},
    seek::Expect,
    xml::XmlCall,
};
use crate::tools::{
    Tool, ToolFormat,
    format::{MISTRAL_ARGUMENTS, MISTRAL_ID},
};

/// The reader of what follows the marker of a format.
pub(super) fn after_marker(format: ToolFormat, tools: &[Tool]) -> Box<dyn Body> {
    match format {
        ToolFormat::Hermes => Box::new(Tagged {
            object: CallObject::new(),
            close: None,
            end: format.close(),
        }),
        ToolFormat::QwenXml => Box::new(XmlCall::new(tools, format.close())),
        ToolFormat::Llama3 => Box::new(PythonTag::Start),
        ToolFormat::MistralList | ToolFormat::MistralCallId | ToolFormat::MistralArguments => {
            Box::new(Mistral::Start)
        }
        ToolFormat::Phi4Mini | ToolFormat::Granite3 => Box::new(List::of_objects(format.close())),
        ToolFormat::Lfm2 => Box::new(List::of_python(format.close())),
        ToolFormat::Gemma4 => Box::new(Gemma::Start(Expect::new("call:"))),
    }
}

/// The reader of a call that began without a marker.
pub(super) fn bare() -> Box<dyn Body> {
    Box::new(PythonTag::Object(CallObject::new()))
}

/// One object, then the closing marker.
#[derive(Debug)]
struct Tagged {
    object: CallObject,
    close: Option<Expect>,
    end: &'static str,
}

impl Body for Tagged {
    fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, String> {
        match &mut self.close {
            None => {
                if self.object.push(c, sink)? == Step::Done {
                    self.close = Some(Expect::new(self.end));
                }
            }
            Some(close) => {
                if close.push(c)? {
                    sink.end(self.object.id())?;
                    return Ok(Step::Done);
                }
            }
        }
        Ok(Step::More)
    }
}

/// `[`, calls, `]`, and the closing marker if there is one.
#[derive(Debug)]
struct List {
    state: ListState,
    is_python: bool,
    end: &'static str,
}

#[derive(Debug)]
enum ListState {
    Open,
    CallOrEnd,
    Object(CallObject),
    Python(PythonCall),
    CommaOrEnd,
    Close(Expect),
}

impl List {
    fn of_objects(end: &'static str) -> Self {
        Self {
            state: ListState::Open,
            is_python: false,
            end,
        }
    }

    fn of_python(end: &'static str) -> Self {
        Self {
            is_python: true,
            ..Self::of_objects(end)
        }
    }
}

impl Body for List {
    fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, String> {
        match &mut self.state {
            ListState::Object(object) => {
                if object.push(c, sink)? == Step::Done {
                    sink.end(object.id())?;
                    self.state = ListState::CommaOrEnd;
                }
            }
            ListState::Python(call) => {
                if call.push(c, sink)? == Step::Done {
                    sink.end(None)?;
                    self.state = ListState::CommaOrEnd;
                }
            }
            ListState::Close(close) => {
                if close.push(c)? {
                    return Ok(Step::Done);
                }
            }
            _ if c.is_whitespace() => {}
            ListState::Open if c == '[' => self.state = ListState::CallOrEnd,
            ListState::Open => return Err(unexpected(c, "`[`")),
            ListState::CallOrEnd | ListState::CommaOrEnd if c == ']' => {
                if self.end.is_empty() {
                    return Ok(Step::Done);
                }
                self.state = ListState::Close(Expect::new(self.end));
            }
            ListState::CommaOrEnd if c == ',' => self.state = ListState::CallOrEnd,
            ListState::CommaOrEnd => return Err(unexpected(c, "`,` or `]`")),
            ListState::CallOrEnd if self.is_python => {
                let mut call = PythonCall::new();
                call.push(c, sink)?;
                self.state = ListState::Python(call);
            }
            ListState::CallOrEnd => {
                let mut object = CallObject::new();
                object.push(c, sink)?;
                self.state = ListState::Object(object);
            }
        }
        Ok(Step::More)
    }
}

/// Behind `<|python_tag|>`: an object, or a built-in tool's `name.call(..)`.
#[derive(Debug)]
enum PythonTag {
    Start,
    Object(CallObject),
    Python(PythonCall),
}

impl Body for PythonTag {
    fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, String> {
        if let Self::Start = self {
            *self = match c {
                _ if c.is_whitespace() => return Ok(Step::More),
                '{' => Self::Object(CallObject::new()),
                _ => Self::Python(PythonCall::new()),
            };
        }
        let (step, id) = match self {
            Self::Start => return Ok(Step::More),
            Self::Object(object) => (object.push(c, sink)?, object.id()),
            Self::Python(call) => (call.push(c, sink)?, None),
        };
        if step == Step::Done {
            sink.end(id)?;
        }
        Ok(step)
    }
}

/// Behind `[TOOL_CALLS]`: a list of objects, or a name, an identifier perhaps, and the arguments.
#[derive(Debug)]
enum Mistral {
    Start,
    List(List),
    Name(String),
    Id {
        id: String,
        end: Expect,
    },
    Arguments {
        id: Option<String>,
        scanner: super::json::JsonScanner,
        begun: bool,
    },
    /// A marker behind the name, which both begin with `[`.
    Marker {
        name: String,
        marker: String,
    },
}

impl Body for Mistral {
    fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, String> {
        match self {
            Self::Start => match c {
                _ if c.is_whitespace() => {}
                '[' => {
                    let mut list = List::of_objects("");
                    list.push(c, sink)?;
                    *self = Self::List(list);
                }
                _ => {
                    let mut name = String::new();
                    push_name(&mut name, c, "the name of a tool or `[`")?;
                    *self = Self::Name(name);
                }
            },
            Self::List(list) => return list.push(c, sink),
            Self::Name(name) => match c {
                '[' => {
                    *self = Self::Marker {
                        name: std::mem::take(name),
                        marker: c.to_string(),
                    };
                }
                // Some versions leave the marker out.
                '{' => {
                    sink.start(name)?;
                    *self = Self::arguments(None);
                    return self.push(c, sink);
                }
                _ => push_name(name, c, "the name of a tool or `[ARGS]`")?,
            },
            Self::Marker { name, marker } => {
                marker.push(c);
                if marker == MISTRAL_ARGUMENTS {
                    sink.start(name)?;
                    *self = Self::arguments(None);
                } else if marker == MISTRAL_ID {
                    sink.start(name)?;
                    *self = Self::Id {
                        id: String::new(),
                        end: Expect::new(MISTRAL_ARGUMENTS),
                    };
                } else if !MISTRAL_ARGUMENTS.starts_with(&*marker)
                    && !MISTRAL_ID.starts_with(&*marker)
                {
                    return Err(unexpected(c, "`[ARGS]` or `[CALL_ID]`"));
                }
            }
            Self::Id { id, end } => match c {
                _ if c != '[' && end.is_untouched() => push_name(id, c, "an identifier")?,
                _ => {
                    if end.push(c)? {
                        *self = Self::arguments(Some(std::mem::take(id)));
                    }
                }
            },
            Self::Arguments { id, scanner, begun } => {
                let step = scanner.push(c)?;
                if !*begun && !c.is_whitespace() {
                    if c != '{' {
                        return Err(unexpected(c, "the object of arguments"));
                    }
                    *begun = true;
                }
                if *begun {
                    sink.delta(c.encode_utf8(&mut [0; 4]));
                }
                if step == Step::Done {
                    sink.end(id.take())?;
                }
                return Ok(step);
            }
        }
        Ok(Step::More)
    }
}

impl Mistral {
    fn arguments(id: Option<String>) -> Self {
        Self::Arguments {
            id,
            scanner: super::json::JsonScanner::new(),
            begun: false,
        }
    }
}

/// Behind `<|tool_call>`: `call:name{key:value}<tool_call|>`.
#[derive(Debug)]
enum Gemma {
    Start(Expect),
    Name(String),
    Arguments(LiteralReader),
    Close(Expect),
}

impl Body for Gemma {
    fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, String> {
        match self {
            Self::Start(call) => {
                if call.push(c)? {
                    *self = Self::Name(String::new());
                }
            }
            Self::Name(name) => match c {
                '{' => {
                    sink.start(name)?;
                    *self = Self::Arguments(LiteralReader::new(Dialect::Gemma));
                    return self.push(c, sink);
                }
                _ => push_name(name, c, "the name of a tool or `{`")?,
            },
            Self::Arguments(value) => {
                let mut json = String::new();
                let step = value.push(c, &mut json)?;
                sink.delta(&json);
                if step == Step::Done {
                    *self = Self::Close(Expect::new(ToolFormat::Gemma4.close()));
                }
            }
            Self::Close(close) => {
                if close.push(c)? {
                    sink.end(None)?;
                    return Ok(Step::Done);
                }
            }
        }
        Ok(Step::More)
    }
}
