//! What happens when a conversation does not fit the context any more.

use std::ops::Range;

use super::Conversation;
use super::history::TokenHistory;
use super::summary::{Summary, reserve, summarize};
use crate::{Error, Message};

/// What happens when a conversation and the room for its answer do not fit the context.
///
/// A turn is a message of the user with all that follows it, up to the next one: turns are dropped whole. The system prompt
/// and the turn that is to be answered are never dropped. What was dropped is told in [`Reply::dropped`](crate::Reply::dropped)
/// and is no part of the conversation any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContextPolicy {
    /// [`Error::ConversationTooLong`], and the conversation is as before.
    #[default]
    Error,
    /// The oldest turns go, as few as needed.
    DropOldestTurns,
    /// As [`DropOldestTurns`](Self::DropOldestTurns), but the first turns (examples, say) stay, too.
    SlidingWindow {
        /// Turns after the system prompt that stay.
        keep_first: usize,
    },
    /// The oldest turns are replaced by a summary that the model itself writes ([`SUMMARY_INSTRUCTION`](crate::SUMMARY_INSTRUCTION)):
    /// so many that the others fill half of the room at most, so that it is not needed again soon. The summary stands before
    /// the first message of the user that is left.
    Summarize,
}

/// What a policy took out of a conversation.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Dropped {
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// Tokens that the prompt is shorter by; 0 where a summary is as long as what it replaces.
    pub tokens: usize,
    /// What stands for them now, with [`ContextPolicy::Summarize`].
    pub summary: Option<Summary>,
}

impl Conversation {
    /// The tokens of the prompt, shortened by the policy where it must be. `begun`: tokens of the answer that are there already.
    pub(super) fn make_room(
        &mut self,
        begun: usize,
    ) -> Result<(TokenHistory, Option<Dropped>), Error> {
        let history = self.render(&self.talk.messages)?;
        let prompt_tokens = self.count(&history);
        let room = self.room(begun);
        if prompt_tokens <= room {
            return Ok((history, None));
        }
        let too_long = |prompt_tokens| self.too_long(prompt_tokens + begun);
        let turns = turns(&self.talk.messages);
        let keep_first = match self.policy {
            ContextPolicy::Error => return Err(too_long(prompt_tokens)),
            ContextPolicy::SlidingWindow { keep_first } => keep_first,
            ContextPolicy::DropOldestTurns | ContextPolicy::Summarize => 0,
        };
        let droppable = turns.get(keep_first..turns.len().saturating_sub(1));
        let droppable = droppable.unwrap_or_default();
        let (limit, reserve) = match self.policy {
            ContextPolicy::Summarize => (room / 2, reserve(&self.lm)),
            _ => (room, 0),
        };
        let all = self.tokens_without(droppable, droppable.len())? + reserve;
        if droppable.is_empty() || all > room {
            return Err(too_long(all));
        }
        let limit = limit.max(all);
        // The fewest turns that are enough.
        let (mut few, mut enough) = (0, droppable.len());
        while few + 1 < enough {
            let middle = few.midpoint(enough);
            match self.tokens_without(droppable, middle)? + reserve <= limit {
                true => enough = middle,
                false => few = middle,
            }
        }
        let range = span(droppable, enough);
        let messages: Vec<_> = self.talk.messages.drain(range).collect();
        let mut summary = None;
        if self.policy == ContextPolicy::Summarize {
            let previous = self.talk.summary.take();
            let written = summarize(&self.lm, &self.options, previous.as_deref(), &messages)?;
            self.talk.summary = Some(written.text.clone());
            summary = Some(written);
        }
        let history = self.render(&self.talk.messages)?;
        let left = self.count(&history);
        if left > room {
            return Err(self.too_long(left + begun));
        }
        let dropped = Dropped {
            messages,
            tokens: prompt_tokens.saturating_sub(left),
            summary,
        };
        Ok((history, Some(dropped)))
    }

    /// Tokens that a prompt can have.
    fn room(&self, begun: usize) -> usize {
        let taken = self.answer_room().saturating_add(begun);
        self.lm.context_length().saturating_sub(taken)
    }

    fn too_long(&self, prompt_tokens: usize) -> Error {
        Error::ConversationTooLong {
            prompt_tokens,
            answer_room: self.answer_room(),
            context_length: self.lm.context_length(),
        }
    }

    /// Tokens of the prompt without the first `count` of these turns.
    fn tokens_without(&self, turns: &[Range<usize>], count: usize) -> Result<usize, Error> {
        let range = span(turns, count);
        let messages = &self.talk.messages;
        let left = [&messages[..range.start], &messages[range.end..]].concat();
        Ok(self.count(&self.render(&left)?))
    }
}

/// The messages of the first `count` turns, which stand together.
fn span(turns: &[Range<usize>], count: usize) -> Range<usize> {
    match (turns.first(), turns[..count].last()) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => 0..0,
    }
}

/// The turns of a conversation behind its system prompt. What stands before the first message of the user (a greeting) is one, too.
fn turns(messages: &[Message]) -> Vec<Range<usize>> {
    let is_system = |message: &&Message| matches!(message.role.as_str(), "system" | "developer");
    let first = messages.iter().take_while(is_system).count();
    let begins =
        (first..messages.len()).filter(|&index| index == first || messages[index].role == "user");
    let begins: Vec<_> = begins.chain([messages.len()]).collect();
    begins.windows(2).map(|ends| ends[0]..ends[1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_a_message_of_the_user_with_all_that_follows() {
        let roles = |roles: &[&str]| -> Vec<Message> {
            roles.iter().map(|role| Message::new(*role, "")).collect()
        };
        assert!(turns(&[]).is_empty());
        assert!(turns(&roles(&["system"])).is_empty());
        assert_eq!(
            turns(&roles(&[
                "system",
                "user",
                "assistant",
                "tool",
                "tool",
                "assistant",
                "user"
            ])),
            [1..6, 6..7]
        );
        assert_eq!(
            turns(&roles(&["assistant", "user", "user", "assistant"])),
            [0..1, 1..2, 2..4]
        );
    }
}
