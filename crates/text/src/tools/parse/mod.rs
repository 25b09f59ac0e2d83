//! Calls read from the text of an answer while it is generated.

mod bare;
mod bodies;
mod json;
mod literal;
mod object;
mod python;
mod seek;
mod xml;

use std::fmt;

use serde_json::Value as Json;

use self::{bare::BareCall, seek::Seeker};
use super::{Tool, ToolCall, ToolFormat};
use crate::TextError;

/// What a parser has found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ToolEvent {
    /// Text of the answer outside of calls.
    Text(String),
    /// A call begins.
    CallStart {
        /// Its place among the calls of the answer, from 0.
        index: usize,
        /// The tool's name as the model wrote it; it may be none of the tools.
        name: String,
    },
    /// More of the arguments of a call.
    ArgumentsDelta {
        /// The call's place.
        index: usize,
        /// JSON text. All pieces of a call together are its arguments.
        text: String,
    },
    /// A call is complete.
    CallEnd {
        /// The call's place.
        index: usize,
        /// The call.
        call: ToolCall,
    },
}

/// Takes the text of an answer in pieces and gives events.
///
/// Text without calls comes out as it went in. White space between two calls and after the last one
/// belongs to the notation and is no text. The pieces may be cut anywhere: the events are the same
/// but for where texts and arguments are cut. Tokens that are markers must be in the text
/// ([`ToolFormat::marker_tokens`]).
#[derive(Debug)]
pub struct ToolParser {
    format: ToolFormat,
    tools: Vec<Tool>,
    sink: Sink,
    state: State,
    /// The text from the beginning of the call or list of calls at hand.
    raw: String,
}

#[derive(Debug)]
enum State {
    Text(TextState),
    Calls(Box<dyn Body>),
    Broken(String),
}

#[derive(Debug)]
struct TextState {
    marker: Seeker,
    /// The beginning of the answer while it may be a call without a marker.
    bare: Option<BareCall>,
    /// White space since the last call.
    space: Option<String>,
}

/// How far a value, a call or a list of calls is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    More,
    Done,
    /// It was done before the character, which belongs to what comes next.
    DoneBefore,
}

/// What stands behind a marker: one call or a list of them.
trait Body: fmt::Debug + Send + Sync {
    /// Takes the next character. A body does not end before a character.
    fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, String>;
}

impl ToolParser {
    pub(super) fn new(format: ToolFormat, tools: &[Tool]) -> Self {
        let mut text = TextState::new(format);
        text.bare = (format == ToolFormat::Llama3).then(BareCall::default);
        Self {
            format,
            tools: tools.to_vec(),
            sink: Sink::default(),
            state: State::Text(text),
            raw: String::new(),
        }
    }

    /// Takes the next piece of the answer.
    pub fn push(&mut self, piece: &str) -> Vec<ToolEvent> {
        for c in piece.chars() {
            self.take(c);
        }
        std::mem::take(&mut self.sink.events)
    }

    /// Whether a call has begun and has not ended.
    #[must_use]
    pub fn is_in_call(&self) -> bool {
        matches!(self.state, State::Calls(_))
    }

    /// What is wrong with a call, once a character came that cannot stand there. There will be no
    /// more events: the caller may stop generating, and [`Self::finish`] gives the error.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        match &self.state {
            State::Broken(reason) => Some(reason),
            State::Text(_) | State::Calls(_) => None,
        }
    }

    /// The rest of the events at the end of the answer.
    ///
    /// # Errors
    ///
    /// [`TextError::ToolCallIncomplete`] where the answer ends inside a call, and
    /// [`TextError::ToolCallMalformed`] where it has a call that cannot be read; both hold the text
    /// from the marker on. Calls that ended before stand.
    pub fn finish(mut self) -> Result<Vec<ToolEvent>, TextError> {
        match self.state {
            State::Text(text) => {
                text.finish(&mut self.sink);
                Ok(self.sink.events)
            }
            State::Calls(_) => Err(TextError::ToolCallIncomplete {
                index: self.sink.index,
                raw: self.raw,
            }),
            State::Broken(reason) => Err(TextError::ToolCallMalformed {
                index: self.sink.index,
                reason,
                raw: self.raw,
            }),
        }
    }

    fn take(&mut self, c: char) {
        match &mut self.state {
            State::Broken(_) => self.raw.push(c),
            State::Text(text) => match text.push(c, &self.tools, &mut self.sink) {
                Found::Text => {}
                Found::Marker => {
                    self.raw.push_str(self.format.trigger());
                    self.state = State::Calls(bodies::after_marker(self.format, &self.tools));
                }
                Found::BareCall(beginning) => {
                    self.state = State::Calls(bodies::bare());
                    beginning.chars().for_each(|c| self.take(c));
                }
                Found::NoBareCall(beginning) => {
                    text.bare = None;
                    beginning.chars().for_each(|c| self.take(c));
                }
            },
            State::Calls(body) => {
                self.raw.push(c);
                match body.push(c, &mut self.sink) {
                    Ok(Step::More) => {}
                    Ok(Step::Done | Step::DoneBefore) => {
                        self.raw.clear();
                        let mut text = TextState::new(self.format);
                        text.space = Some(String::new());
                        self.state = State::Text(text);
                    }
                    Err(reason) => self.state = State::Broken(reason),
                }
            }
        }
    }
}

enum Found {
    Text,
    Marker,
    /// The answer is a call without a marker, which began with this.
    BareCall(String),
    /// It is none, and began with this.
    NoBareCall(String),
}

impl TextState {
    fn new(format: ToolFormat) -> Self {
        Self {
            marker: Seeker::new(format.trigger()),
            bare: None,
            space: None,
        }
    }

    fn push(&mut self, c: char, tools: &[Tool], sink: &mut Sink) -> Found {
        if let Some(bare) = &mut self.bare {
            match bare.push(c, tools) {
                bare::Verdict::Possible => return Found::Text,
                bare::Verdict::Call(beginning) => return Found::BareCall(beginning),
                bare::Verdict::Text(beginning) => return Found::NoBareCall(beginning),
            }
        }
        let mut text = String::new();
        let found = self.marker.push(c, &mut text);
        self.write(&text, sink);
        match found {
            true => Found::Marker,
            false => Found::Text,
        }
    }

    fn write(&mut self, text: &str, sink: &mut Sink) {
        match &mut self.space {
            Some(space) => {
                space.push_str(text);
                if !space.trim().is_empty() {
                    sink.text(space);
                    self.space = None;
                }
            }
            None => sink.text(text),
        }
    }

    fn finish(mut self, sink: &mut Sink) {
        if let Some(bare) = self.bare.take() {
            self.write(bare.beginning(), sink);
        }
        let held = self.marker.release();
        self.write(&held, sink);
    }
}

/// Where events go. Neighbouring texts and arguments become one.
#[derive(Debug, Default)]
struct Sink {
    events: Vec<ToolEvent>,
    /// The place of the call at hand, or of the next one.
    index: usize,
    name: Option<String>,
    arguments: String,
}

impl Sink {
    fn text(&mut self, text: &str) {
        match self.events.last_mut() {
            Some(ToolEvent::Text(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.events.push(ToolEvent::Text(text.to_owned())),
        }
    }

    fn start(&mut self, name: &str) -> Result<(), String> {
        let name = name.trim();
        if name.is_empty() {
            return Err("the name of the tool is empty".to_owned());
        }
        self.name = Some(name.to_owned());
        self.arguments.clear();
        self.events.push(ToolEvent::CallStart {
            index: self.index,
            name: name.to_owned(),
        });
        Ok(())
    }

    fn delta(&mut self, text: &str) {
        self.arguments.push_str(text);
        match self.events.last_mut() {
            Some(ToolEvent::ArgumentsDelta { text: last, .. }) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.events.push(ToolEvent::ArgumentsDelta {
                index: self.index,
                text: text.to_owned(),
            }),
        }
    }

    fn end(&mut self, id: Option<String>) -> Result<(), String> {
        let name = self.name.take().ok_or("the call has no name")?;
        let arguments: Json = serde_json::from_str(&self.arguments)
            .map_err(|error| format!("the arguments are no JSON: {error}"))?;
        if !arguments.is_object() {
            return Err(format!("the arguments are {arguments}, no object"));
        }
        self.events.push(ToolEvent::CallEnd {
            index: self.index,
            call: ToolCall {
                id,
                name,
                arguments,
            },
        });
        self.index += 1;
        Ok(())
    }
}
