//! What a model writes, told apart into reasoning, text and tool calls as it comes.

use std::collections::VecDeque;

use dunlin_text::{
    ReasoningEvent, ReasoningSplitter, TextError, ToolCall, ToolEvent, ToolParser, ToolPrompt,
};

use super::AnswerEvent;

/// An answer so far.
pub(super) struct Reading {
    /// Where the model may reason.
    splitter: Option<ReasoningSplitter>,
    /// Where it may call tools.
    parser: Option<ToolParser>,
    /// The number of the first call in the conversation.
    first_call: usize,
    /// All as it was written.
    pub raw: String,
    pub reasoning: String,
    pub text: String,
    pub calls: Vec<ToolCall>,
}

impl Reading {
    pub(super) fn new(
        splitter: Option<ReasoningSplitter>,
        parser: Option<ToolParser>,
        first_call: usize,
    ) -> Self {
        Reading {
            splitter,
            parser,
            first_call,
            raw: String::new(),
            reasoning: String::new(),
            text: String::new(),
            calls: Vec::new(),
        }
    }

    pub(super) fn splitter(&self) -> Option<&ReasoningSplitter> {
        self.splitter.as_ref()
    }

    /// Whether it stands within reasoning.
    pub(super) fn is_reasoning(&self) -> bool {
        self.splitter
            .as_ref()
            .is_some_and(ReasoningSplitter::is_reasoning)
    }

    /// Whether it stands within a call.
    pub(super) fn is_in_call(&self) -> bool {
        self.parser.as_ref().is_some_and(ToolParser::is_in_call)
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &str, events: &mut VecDeque<AnswerEvent>) {
        self.raw.push_str(piece);
        match &mut self.splitter {
            None => self.push_answer(piece, events),
            Some(splitter) => {
                let parts = splitter.push(piece);
                self.push_parts(parts, events);
            }
        }
    }

    /// Takes the end: what was held back comes out.
    ///
    /// # Errors
    /// A call that is incomplete or cannot be read.
    pub(super) fn finish(&mut self, events: &mut VecDeque<AnswerEvent>) -> Result<(), TextError> {
        if let Some(splitter) = self.splitter.take() {
            self.push_parts(splitter.finish(), events);
        }
        if let Some(parser) = self.parser.take() {
            let found = parser.finish()?;
            self.push_found(found, events);
        }
        Ok(())
    }

    fn push_parts(&mut self, parts: Vec<ReasoningEvent>, events: &mut VecDeque<AnswerEvent>) {
        for part in parts {
            match part {
                ReasoningEvent::Reasoning(piece) => {
                    self.reasoning.push_str(&piece);
                    events.push_back(AnswerEvent::Reasoning(piece));
                }
                ReasoningEvent::Answer(piece) => self.push_answer(&piece, events),
                _ => {}
            }
        }
    }

    fn push_answer(&mut self, piece: &str, events: &mut VecDeque<AnswerEvent>) {
        let found = match &mut self.parser {
            Some(parser) => parser.push(piece),
            None => vec![ToolEvent::Text(piece.to_owned())],
        };
        self.push_found(found, events);
    }

    fn push_found(&mut self, found: Vec<ToolEvent>, events: &mut VecDeque<AnswerEvent>) {
        for event in found {
            events.push_back(match event {
                ToolEvent::Text(piece) => {
                    self.text.push_str(&piece);
                    AnswerEvent::Text(piece)
                }
                ToolEvent::CallStart { index, name } => AnswerEvent::ToolCallStart { index, name },
                ToolEvent::ArgumentsDelta { index, text } => {
                    AnswerEvent::ToolCallArguments { index, text }
                }
                ToolEvent::CallEnd { index, mut call } => {
                    // Results are told apart by it, also where the family writes none.
                    let number = self.first_call + index;
                    call.id
                        .get_or_insert_with(|| ToolPrompt::identifier(number));
                    self.calls.push(call.clone());
                    AnswerEvent::ToolCall { index, call }
                }
                _ => continue,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use dunlin_text::{ReasoningFormat, ToolFormat};
    use serde_json::json;

    use super::*;

    const WRITTEN: &str = "<think>\nA <tool_call> here is none.\n</think>\n\nWait.\n<tool_call>\n\
        {\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n\
        {\"name\": \"add\", \"arguments\": {\"a\": 2}}\n</tool_call>";

    fn read(pieces: &[&str]) -> (Reading, Vec<AnswerEvent>) {
        let splitter = ReasoningFormat::Think.splitter("");
        let mut reading = Reading::new(Some(splitter), Some(ToolFormat::Hermes.parser(&[])), 3);
        let mut events = VecDeque::new();
        for piece in pieces {
            reading.push(piece, &mut events);
        }
        reading.finish(&mut events).unwrap();
        (reading, events.into())
    }

    #[test]
    fn reasoning_text_and_calls_come_apart_wherever_they_are_cut() {
        for cut in 0..WRITTEN.len() {
            let (reading, events) = read(&[&WRITTEN[..cut], &WRITTEN[cut..]]);
            assert_eq!(reading.raw, WRITTEN);
            assert_eq!(reading.reasoning, "A <tool_call> here is none.");
            assert_eq!(reading.text.trim_end(), "Wait.");
            let calls = [1, 2].map(|a| {
                let id = ToolPrompt::identifier(2 + a);
                ToolCall::new("add", json!({"a": a})).with_id(id)
            });
            assert_eq!(reading.calls, calls);
            let arguments: String = events
                .iter()
                .filter_map(|event| match event {
                    AnswerEvent::ToolCallArguments { index: 1, text } => Some(text.as_str()),
                    _ => None,
                })
                .collect();
            assert_eq!(arguments, "{\"a\": 2}");
        }
    }

    #[test]
    fn a_call_that_is_cut_is_an_error() {
        let parser = ToolFormat::Hermes.parser(&[]);
        let mut reading = Reading::new(None, Some(parser), 0);
        let mut events = VecDeque::new();
        reading.push("<tool_call>\n{\"name\": \"add\", ", &mut events);
        assert!(reading.is_in_call());
        let error = reading.finish(&mut events).unwrap_err();
        assert!(matches!(error, TextError::ToolCallIncomplete { .. }));
    }
}
