//! An answer of a conversation, piece by piece or as a whole.

use std::collections::VecDeque;

use dunlin_text::{TokenId, ToolCall, ToolPrompt};

use super::history::{TokenHistory, tokens_of};
use super::reading::Reading;
use super::reasoning::Course;
use super::tools::Offer;
use super::{Dropped, ReasoningEnd, Talk, Written};
use crate::prompt::message_from_json;
use crate::{
    Error, Event, FinishReason, FormatState, GenerateOptions, Generation, Lm, Message,
    OutputFormat, TokenLogprob, ToolResult, Usage,
};

/// One thing that happened in an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AnswerEvent {
    /// The next piece of the reasoning before the answer, never empty.
    Reasoning(String),
    /// The next piece of the answer, never empty.
    Text(String),
    /// A tool call begins.
    ToolCallStart {
        /// Its place among the calls of the answer, from 0.
        index: usize,
        /// The tool.
        name: String,
    },
    /// The next piece of a call's arguments.
    ToolCallArguments {
        /// The call's place.
        index: usize,
        /// JSON text; all pieces of a call together are its arguments.
        text: String,
    },
    /// A tool call is complete.
    ToolCall {
        /// The call's place.
        index: usize,
        /// The call.
        call: ToolCall,
    },
    /// A call was run; comes from [`Conversation::run_tools_with`](crate::Conversation::run_tools_with) only.
    ToolResult(ToolResult),
    /// The answer is over. Always the last event, unless an error was.
    End(Box<Reply>),
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// The text, without reasoning and calls.
    pub text: String,
    /// What the model wrote before it to itself, without the marks around it; `None` where that is nothing.
    pub reasoning: Option<String>,
    /// How the reasoning ended, where there was some.
    pub reasoning_end: Option<ReasoningEnd>,
    /// The calls of tools ([`Conversation::set_tools`](crate::Conversation::set_tools)), each with an identifier.
    pub tool_calls: Vec<ToolCall>,
    /// The token ids of all of it; where a stop string cut the text, they go on to that string's end.
    pub tokens: Vec<TokenId>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What it took. `prompt_tokens` counts the whole conversation, `cached_prompt_tokens` what was not computed again.
    pub usage: Usage,
    /// The log-probabilities of its tokens, where they were asked for.
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// Whether it has the form that was asked for.
    pub format: FormatState,
    /// What the context policy dropped to make room, `None` where nothing had to be.
    pub dropped: Option<Dropped>,
}

/// A running answer: an iterator of [`AnswerEvent`]s. When it ends, or is dropped, the conversation has what was answered.
#[must_use = "nothing is computed until events are asked for"]
pub struct Answer<'c> {
    generation: Generation<'c>,
    lm: &'c Lm,
    talk: &'c mut Talk,
    /// The conversation before the call; taken when the outcome stands in it.
    before: Option<Talk>,
    /// The ids of what was there of the answer before.
    begun: Vec<TokenId>,
    reading: Reading,
    /// Bytes of text and reasoning that were there before.
    old_text: usize,
    old_reasoning: usize,
    /// Control tokens that are text.
    shown: Vec<TokenId>,
    /// How calls are put into a message.
    prompt: Option<ToolPrompt>,
    /// The form of the whole is the caller's, not that of tool calls.
    has_asked_form: bool,
    pending: VecDeque<AnswerEvent>,
    dropped: Option<Dropped>,
    reply: Option<Reply>,
}

/// What an answer goes by.
pub(super) struct Setup<'c> {
    pub lm: &'c Lm,
    pub options: &'c GenerateOptions,
    pub offer: Option<&'c Offer>,
    pub course: Course,
    /// Tool calls of the conversation before.
    pub calls: usize,
}

impl<'c> Answer<'c> {
    /// Starts to answer the history of a conversation, or goes on after the answer in `begun`.
    pub(super) fn start(
        setup: Setup<'c>,
        talk: &'c mut Talk,
        before: Talk,
        begun: Written,
        dropped: Option<Dropped>,
    ) -> Result<Self, Error> {
        match begin(&setup, &talk.history, begun) {
            Ok(beginning) => Ok(Answer {
                generation: beginning.generation,
                lm: setup.lm,
                talk,
                before: Some(before),
                begun: beginning.ids,
                old_text: beginning.reading.text.len(),
                old_reasoning: beginning.reading.reasoning.len(),
                reading: beginning.reading,
                shown: beginning.shown,
                prompt: setup.offer.map(|offer| offer.prompt.clone()),
                has_asked_form: !matches!(setup.options.format, OutputFormat::Text),
                pending: VecDeque::new(),
                dropped,
                reply: None,
            }),
            Err(error) => {
                *talk = before;
                Err(error)
            }
        }
    }

    /// What was used so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.generation.usage()
    }

    /// Runs to the end and returns the whole answer.
    ///
    /// # Errors
    /// What one of the events is.
    pub fn complete(mut self) -> Result<Reply, Error> {
        for event in self.by_ref() {
            event?;
        }
        // None where an event was an error before.
        self.reply.take().ok_or(Error::NothingToContinue)
    }

    /// Takes the end of the generation.
    fn end(&mut self, reason: FinishReason, usage: Usage) -> Result<(), Error> {
        let tokens = self.generation.tokens().to_vec();
        let format = match self.has_asked_form {
            true => self.generation.format_state()?,
            false => FormatState::Free,
        };
        let reasoning_end = self.reasoning_end();
        match self.reading.finish(&mut self.pending) {
            // Half a call is nothing that could be gone on with.
            Err(_) if reason == FinishReason::Cancelled => self.take_back(),
            Err(error) => return Err(error.into()),
            Ok(()) if reason == FinishReason::Cancelled && tokens.is_empty() => self.take_back(),
            Ok(()) => self.keep()?,
        }
        let reasoning = &self.reading.reasoning[self.old_reasoning..];
        let reply = Reply {
            text: self.reading.text[self.old_text..].to_owned(),
            reasoning: (!reasoning.is_empty()).then(|| reasoning.to_owned()),
            reasoning_end,
            tool_calls: self.reading.calls.clone(),
            tokens,
            finish_reason: reason,
            usage,
            logprobs: self.generation.asked_logprobs(),
            format,
            dropped: self.dropped.take(),
        };
        self.reply = Some(reply.clone());
        self.pending.push_back(AnswerEvent::End(Box::new(reply)));
        Ok(())
    }

    /// How the reasoning ended, asked at the end of the generation.
    fn reasoning_end(&self) -> Option<ReasoningEnd> {
        let is_new = self.reading.reasoning.len() > self.old_reasoning;
        if self.generation.has_cut_reasoning() {
            return Some(ReasoningEnd::Budget);
        }
        match (self.reading.is_reasoning(), is_new) {
            (true, _) => Some(ReasoningEnd::Unfinished),
            (false, true) => Some(ReasoningEnd::Closed),
            (false, false) => None,
        }
    }

    /// Puts the answer into the conversation.
    fn keep(&mut self) -> Result<(), Error> {
        let Some(before) = self.before.take() else {
            return Ok(());
        };
        let tokenizer = self.lm.tokenizer();
        let mut ids = [&self.begun, self.generation.tokens()].concat();
        let appended = self.talk.history.append(tokenizer, &ids);
        let message = appended.and_then(|()| self.message());
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                *self.talk = before;
                return Err(error);
            }
        };
        // A stop string, and what was not shown any more, may stand in the tokens behind the text.
        let raw = &self.reading.raw;
        let shown = tokens_of(tokenizer, &self.shown, &ids, raw);
        ids.truncate(shown.unwrap_or(0));
        self.talk.last_answer = shown.map(|_| Written {
            text: raw.clone(),
            ids,
            message: Some(message.clone()),
        });
        self.talk.messages.push(message);
        Ok(())
    }

    /// The answer as a message.
    fn message(&self) -> Result<Message, Error> {
        let Reading {
            text,
            reasoning,
            calls,
            ..
        } = &self.reading;
        let mut message = match &self.prompt {
            Some(prompt) if !calls.is_empty() => message_from_json(prompt.assistant(text, calls)?),
            _ => Message::assistant(text.clone()),
        };
        if !reasoning.is_empty() {
            let reasoning = reasoning.as_str().into();
            message
                .extra
                .insert("reasoning_content".to_owned(), reasoning);
        }
        Ok(message)
    }

    /// Makes the conversation what it was before the call.
    fn take_back(&mut self) {
        if let Some(before) = self.before.take() {
            *self.talk = before;
        }
    }
}

/// A generation that has begun, and what reads it.
struct Beginning<'c> {
    generation: Generation<'c>,
    reading: Reading,
    /// What is there of the answer.
    ids: Vec<TokenId>,
    shown: Vec<TokenId>,
}

/// A generation after a history and the beginning of an answer.
fn begin<'c>(
    setup: &Setup<'c>,
    history: &TokenHistory,
    mut begun: Written,
) -> Result<Beginning<'c>, Error> {
    let (lm, course) = (setup.lm, &setup.course);
    let mut options = setup.options.clone();
    if let Some(offer) = setup.offer {
        options.format = OutputFormat::Grammar(offer.grammar.clone());
    }
    let has_form = !matches!(options.format, OutputFormat::Text);
    if has_form && !begun.ids.is_empty() {
        return Err(Error::ContinueForm);
    }
    if has_form && options.format_after.is_none() {
        options.format_after = course.answer_after().map(str::to_owned);
    }
    if !begun.ids.is_empty() && begun.message.is_none() {
        course.close_before(lm, &mut begun)?;
    }
    let mut shown = course.shown(lm);
    if let Some(offer) = setup.offer {
        let markers = offer.prompt.format().control_markers(lm.tokenizer());
        shown.extend(markers.into_iter().map(|(_, id)| id));
    }
    let mut ids = history.ids(lm.tokenizer());
    ids.extend_from_slice(&begun.ids);
    let mut stream = lm.tokenizer().stream().showing(&shown);
    let mut text = String::new();
    for id in &begun.ids {
        text.push_str(&stream.push(*id)?);
    }
    if stream.is_holding_back() {
        // The character that was cut at its end becomes whole with the next token.
        begun.text = text;
    }
    let parser = setup.offer.map(Offer::parser);
    let mut reading = Reading::new(course.splitter(), parser, setup.calls);
    reading.push(&begun.text, &mut VecDeque::new());
    let begun_tokens = begun.ids.len();
    let mut steering = course.steering(lm, reading.splitter(), begun_tokens, has_form)?;
    steering.shown.clone_from(&shown);
    Ok(Beginning {
        generation: lm.generate_steered(ids, stream, &options, steering)?,
        reading,
        ids: begun.ids,
        shown,
    })
}

impl Iterator for Answer<'_> {
    type Item = Result<AnswerEvent, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(Ok(event));
            }
            let outcome = match self.generation.next()? {
                Ok(Event::Text(piece)) => {
                    self.reading.push(&piece, &mut self.pending);
                    Ok(())
                }
                Ok(Event::End { reason, usage }) => self.end(reason, usage),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                self.pending.clear();
                self.take_back();
                return Some(Err(error));
            }
        }
    }
}

impl Drop for Answer<'_> {
    /// Keeps what was answered. Text that was held back (half a character, the beginning of a stop string or a mark) was not shown
    /// and is no part of it. Half a call is nothing that could be kept.
    fn drop(&mut self) {
        let reading = &self.reading;
        let has_more = reading.text.len() > self.old_text
            || reading.reasoning.len() > self.old_reasoning
            || !reading.calls.is_empty();
        if has_more && !reading.is_in_call() {
            // Where that fails, the conversation is as it was before the call.
            let _ = self.keep();
        } else {
            self.take_back();
        }
    }
}
