//! An answer of a conversation, piece by piece or as a whole.

use dunlin_text::TokenId;

use super::history::{TokenHistory, tokens_of};
use super::{Dropped, Talk, Written};
use crate::{
    Error, Event, FinishReason, FormatState, GenerateOptions, Generation, Lm, Message,
    OutputFormat, TokenLogprob, Usage,
};

/// One thing that happened in an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AnswerEvent {
    /// The next piece of the answer, never empty.
    Text(String),
    /// The answer is over. Always the last event, unless an error was.
    End(Box<Reply>),
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// The text.
    pub text: String,
    /// Its token ids; where a stop string cut the text, they go on to that string's end.
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
    /// What was there of the answer before.
    begun: Written,
    text: String,
    dropped: Option<Dropped>,
    reply: Option<Reply>,
}

impl<'c> Answer<'c> {
    /// Starts to answer the history of a conversation, or goes on after the answer in `begun`.
    pub(super) fn start(
        lm: &'c Lm,
        options: &GenerateOptions,
        talk: &'c mut Talk,
        before: Talk,
        mut begun: Written,
        dropped: Option<Dropped>,
    ) -> Result<Self, Error> {
        match begin(lm, options, &talk.history, &mut begun) {
            Ok(generation) => Ok(Answer {
                generation,
                lm,
                talk,
                before: Some(before),
                begun,
                text: String::new(),
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

    /// Puts the answer into the conversation.
    fn keep(&mut self) -> Result<(), Error> {
        let Some(before) = self.before.take() else {
            return Ok(());
        };
        let tokenizer = self.lm.tokenizer();
        let text = format!("{}{}", self.begun.text, self.text);
        let mut ids = [&self.begun.ids, self.generation.tokens()].concat();
        if let Err(error) = self.talk.history.append(tokenizer, &ids) {
            *self.talk = before;
            return Err(error);
        }
        // A stop string, and what was not shown any more, may stand in the tokens behind the text.
        let shown = tokens_of(tokenizer, &ids, &text);
        ids.truncate(shown.unwrap_or(0));
        self.talk.last_answer = shown.map(|_| Written {
            text: text.clone(),
            ids,
        });
        self.talk.messages.push(Message::assistant(text));
        Ok(())
    }

    /// Makes the conversation what it was before the call.
    fn take_back(&mut self) {
        if let Some(before) = self.before.take() {
            *self.talk = before;
        }
    }
}

/// A generation after a history and the beginning of an answer.
fn begin<'c>(
    lm: &'c Lm,
    options: &GenerateOptions,
    history: &TokenHistory,
    begun: &mut Written,
) -> Result<Generation<'c>, Error> {
    if !begun.ids.is_empty() && !matches!(options.format, OutputFormat::Text) {
        return Err(Error::ContinueForm);
    }
    let mut ids = history.ids(lm.tokenizer());
    ids.extend_from_slice(&begun.ids);
    let mut stream = lm.tokenizer().stream();
    let mut text = String::new();
    for id in &begun.ids {
        text.push_str(&stream.push(*id)?);
    }
    if stream.is_holding_back() {
        // The character that was cut at its end becomes whole with the next token.
        begun.text = text;
    }
    lm.generate_after(ids, stream, options)
}

impl Iterator for Answer<'_> {
    type Item = Result<AnswerEvent, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.generation.next()? {
            Ok(Event::Text(piece)) => {
                self.text.push_str(&piece);
                Some(Ok(AnswerEvent::Text(piece)))
            }
            Ok(Event::End { reason, usage }) => {
                let tokens = self.generation.tokens().to_vec();
                let logprobs = self.generation.asked_logprobs();
                let format = match self.generation.format_state() {
                    Ok(format) => format,
                    Err(error) => {
                        self.take_back();
                        return Some(Err(error));
                    }
                };
                if reason == FinishReason::Cancelled && tokens.is_empty() {
                    self.take_back();
                } else if let Err(error) = self.keep() {
                    return Some(Err(error));
                }
                let reply = Reply {
                    text: self.text.clone(),
                    tokens,
                    finish_reason: reason,
                    usage,
                    logprobs,
                    format,
                    dropped: self.dropped.take(),
                };
                self.reply = Some(reply.clone());
                Some(Ok(AnswerEvent::End(Box::new(reply))))
            }
            Err(error) => {
                self.take_back();
                Some(Err(error))
            }
        }
    }
}

impl Drop for Answer<'_> {
    /// Keeps what was answered. Text that was held back (half a character, the beginning of a stop string) was not shown and
    /// is no part of it.
    fn drop(&mut self) {
        if self.text.is_empty() {
            self.take_back();
        } else {
            // Where that fails, the conversation is as it was before the call.
            let _ = self.keep();
        }
    }
}
