//! A call as a JSON object, `{"name": .., "arguments": {..}}`.

use super::{
    Sink, Step,
    json::{JsonScanner, unexpected},
};

/// Reads the object of a call. Its entries may come in any order, `arguments` may be named
/// `parameters` and may be a text that holds JSON, as some interfaces have it; entries other than
/// these, `name` and `id` are passed over.
#[derive(Debug)]
pub(super) struct CallObject {
    state: State,
    scanner: JsonScanner,
    key: String,
    /// The value at hand, where it is not passed on at once.
    text: String,
    is_named: bool,
    /// Arguments that came before the name.
    early: Option<String>,
    has_arguments: bool,
    id: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Open,
    KeyOrEnd,
    Key,
    InKey,
    Colon,
    ValueStart,
    /// `streams`: whether its characters go on as they come.
    Value {
        streams: bool,
    },
    CommaOrEnd,
}

impl CallObject {
    pub(super) fn new() -> Self {
        Self {
            state: State::Open,
            scanner: JsonScanner::new(),
            key: String::new(),
            text: String::new(),
            is_named: false,
            early: None,
            has_arguments: false,
            id: None,
        }
    }

    /// Takes the next character, of white space before the object, too.
    ///
    /// # Errors
    ///
    /// What is wrong with the object.
    pub(super) fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, String> {
        match self.state {
            State::InKey => {
                self.text.push(c);
                if self.scanner.push(c)? == Step::Done {
                    self.key = json_text(&self.text)?;
                    self.state = State::Colon;
                }
                return Ok(Step::More);
            }
            State::Value { streams } => return self.value(c, streams, sink),
            _ => {}
        }
        if matches!(c, ' ' | '\t' | '\n' | '\r') {
            return Ok(Step::More);
        }
        match (self.state, c) {
            (State::Open, '{') => self.state = State::KeyOrEnd,
            (State::Open, _) => return Err(unexpected(c, "the object of a call")),
            (State::KeyOrEnd | State::CommaOrEnd, '}') => return self.end(sink),
            (State::KeyOrEnd | State::Key, '"') => {
                self.begin(State::InKey);
                self.text.push(c);
                self.scanner.push(c)?;
            }
            (State::Colon, ':') => self.state = State::ValueStart,
            (State::CommaOrEnd, ',') => self.state = State::Key,
            (State::ValueStart, _) => {
                let is_arguments = is_arguments(&self.key);
                if is_arguments && self.has_arguments || self.key == "name" && self.is_named {
                    return Err(format!("`{}` stands there twice", self.key));
                }
                self.has_arguments |= is_arguments;
                let streams = is_arguments && c == '{' && self.is_named;
                self.begin(State::Value { streams });
                return self.value(c, streams, sink);
            }
            (State::Colon, _) => return Err(unexpected(c, "`:`")),
            (State::CommaOrEnd, _) => return Err(unexpected(c, "`,` or `}`")),
            _ => return Err(unexpected(c, "a key in quotes")),
        }
        Ok(Step::More)
    }

    /// The identifier that the object has.
    pub(super) fn id(&mut self) -> Option<String> {
        self.id.take()
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.scanner = JsonScanner::new();
        self.text.clear();
    }

    fn value(&mut self, c: char, streams: bool, sink: &mut Sink) -> Result<Step, String> {
        let step = self.scanner.push(c)?;
        if step != Step::DoneBefore {
            match streams {
                true => sink.delta(c.encode_utf8(&mut [0; 4])),
                false => self.text.push(c),
            }
        }
        if step == Step::More {
            return Ok(Step::More);
        }
        self.state = State::CommaOrEnd;
        if !streams {
            self.take(sink)?;
        }
        match step {
            Step::DoneBefore => self.push(c, sink),
            _ => Ok(Step::More),
        }
    }

    /// Takes an entry that is complete.
    fn take(&mut self, sink: &mut Sink) -> Result<(), String> {
        match self.key.as_str() {
            "name" => {
                let name = json_text(&self.text)
                    .map_err(|_| format!("the name of the tool is {}, no text", self.text))?;
                sink.start(&name)?;
                self.is_named = true;
                if let Some(early) = self.early.take() {
                    sink.delta(&early);
                }
            }
            "id" => self.id = json_text(&self.text).ok(),
            key if is_arguments(key) => {
                let arguments = match self.text.starts_with('"') {
                    true => json_text(&self.text)?,
                    false => std::mem::take(&mut self.text),
                };
                if !arguments.trim_start().starts_with('{') {
                    return Err(format!("the arguments are {arguments}, no object"));
                }
                match self.is_named {
                    true => sink.delta(&arguments),
                    false => self.early = Some(arguments),
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, sink: &mut Sink) -> Result<Step, String> {
        if !self.is_named {
            return Err("the call has no `name`".to_owned());
        }
        if !self.has_arguments {
            sink.delta("{}");
        }
        Ok(Step::Done)
    }
}

fn is_arguments(key: &str) -> bool {
    matches!(key, "arguments" | "parameters")
}

fn json_text(json: &str) -> Result<String, String> {
    serde_json::from_str(json).map_err(|error| format!("{json} is no text: {error}"))
}
