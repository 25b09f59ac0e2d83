//! Reasoning that a model writes before its answer, told apart from the answer as it comes.

use crate::{TokenId, Tokenizer, tools::control_tokens};

/// The marks around reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReasoningFormat {
    /// `<think>` and `</think>`: Qwen 3 and 3.5, SmolLM 3, LFM 2.5, DeepSeek R1, Granite 3.3.
    Think,
    /// `<|channel>thought` and `<channel|>`: Gemma 4.
    Channel,
    /// `[THINK]` and `[/THINK]`: Ministral 3 and Magistral.
    Brackets,
}

impl ReasoningFormat {
    /// The format that a chat template speaks of, `None` for a model that does not reason.
    #[must_use]
    pub fn detect(template_source: &str) -> Option<Self> {
        let formats = [Self::Channel, Self::Brackets, Self::Think];
        formats
            .into_iter()
            .find(|format| template_source.contains(format.close()))
    }

    /// What opens reasoning.
    #[must_use]
    pub fn open(self) -> &'static str {
        match self {
            Self::Think => "<think>",
            Self::Channel => "<|channel>thought",
            Self::Brackets => "[THINK]",
        }
    }

    /// What closes it.
    #[must_use]
    pub fn close(self) -> &'static str {
        match self {
            Self::Think => "</think>",
            Self::Channel => "<channel|>",
            Self::Brackets => "[/THINK]",
        }
    }

    /// The texts that are single tokens in vocabularies of these families, and that a splitter must
    /// see. See [`crate::ToolFormat::marker_tokens`].
    #[must_use]
    pub fn marker_tokens(self) -> &'static [&'static str] {
        match self {
            Self::Think => &["<think>", "</think>"],
            Self::Channel => &["<|channel>", "<channel|>"],
            Self::Brackets => &["[THINK]", "[/THINK]"],
        }
    }

    /// The markers that are control tokens of a vocabulary, with their ids: those that a decoder has
    /// to be told to show.
    #[must_use]
    pub fn control_markers(self, tokenizer: &Tokenizer) -> Vec<(&'static str, TokenId)> {
        control_tokens(self.marker_tokens(), tokenizer)
    }

    /// Whether a rendered prompt leaves the model in the middle of its reasoning, as templates do that
    /// write `<think>` themselves.
    #[must_use]
    pub fn is_open_after(self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.open())
    }

    /// A splitter for an answer to this prompt.
    #[must_use]
    pub fn splitter(self, prompt: &str) -> ReasoningSplitter {
        let is_open = self.is_open_after(prompt);
        ReasoningSplitter {
            format: self,
            state: match is_open {
                true => State::Reasoning,
                false => State::Answer,
            },
            held: String::new(),
            breaks: Breaks {
                at_start: is_open,
                held: 0,
            },
        }
    }
}

/// A part of what a model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReasoningEvent {
    /// Reasoning.
    Reasoning(String),
    /// The answer.
    Answer(String),
}

/// Takes what a model writes in pieces, cut anywhere, and tells reasoning from answer.
///
/// Reasoning may open anywhere and more than once. The markers are left out, and so are line breaks
/// after the opening one and on both sides of the closing one, as templates do with earlier turns.
/// All other text comes out as it went in. A closing marker without an opening one is text.
#[derive(Clone, Debug)]
pub struct ReasoningSplitter {
    format: ReasoningFormat,
    state: State,
    /// The beginning of a marker.
    held: String,
    breaks: Breaks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reasoning,
    Answer,
}

/// Line breaks that belong to the markers.
#[derive(Clone, Debug)]
struct Breaks {
    /// Whether nothing but line breaks came since a marker.
    at_start: bool,
    /// Line breaks of the reasoning that come out when more of it follows.
    held: usize,
}

impl ReasoningSplitter {
    /// Takes the next piece.
    pub fn push(&mut self, piece: &str) -> Vec<ReasoningEvent> {
        let mut events = Vec::new();
        for c in piece.chars() {
            self.take(c, &mut events);
        }
        events
    }

    /// Whether the model is in the middle of its reasoning. After the last piece this says that the
    /// reasoning was cut off.
    #[must_use]
    pub fn is_reasoning(&self) -> bool {
        self.state == State::Reasoning
    }

    /// The rest at the end of what the model wrote: what might have become a marker.
    #[must_use]
    pub fn finish(mut self) -> Vec<ReasoningEvent> {
        let mut events = Vec::new();
        let held = std::mem::take(&mut self.held);
        held.chars().for_each(|c| self.write(c, &mut events));
        events
    }

    fn take(&mut self, c: char, events: &mut Vec<ReasoningEvent>) {
        let marker = match self.state {
            State::Reasoning => self.format.close(),
            State::Answer => self.format.open(),
        };
        self.held.push(c);
        while !marker.starts_with(&self.held) {
            let first = self.held.remove(0);
            self.write(first, events);
        }
        if self.held == marker {
            self.held.clear();
            self.breaks = Breaks {
                at_start: true,
                held: 0,
            };
            self.state = match self.state {
                State::Reasoning => State::Answer,
                State::Answer => State::Reasoning,
            };
        }
    }

    fn write(&mut self, c: char, events: &mut Vec<ReasoningEvent>) {
        if c == '\n' {
            if self.breaks.at_start {
                return;
            }
            if self.state == State::Reasoning {
                self.breaks.held += 1;
                return;
            }
        }
        self.breaks.at_start = false;
        let breaks = "\n".repeat(std::mem::take(&mut self.breaks.held));
        match (self.state, events.last_mut()) {
            (State::Reasoning, Some(ReasoningEvent::Reasoning(text)))
            | (State::Answer, Some(ReasoningEvent::Answer(text))) => {
                text.push_str(&breaks);
                text.push(c);
            }
            (State::Reasoning, _) => events.push(ReasoningEvent::Reasoning(format!("{breaks}{c}"))),
            (State::Answer, _) => events.push(ReasoningEvent::Answer(format!("{breaks}{c}"))),
        }
    }
}
