//! The messages of a conversation, and how they are changed.
//!
//! A change costs nothing by itself: the next turn computes again from the first token that is another one.

use super::{Conversation, Talk};
use crate::{Error, Message};

impl Conversation {
    /// What was said, the system prompt first where there is one; what a policy dropped is not part of it.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.talk.messages
    }

    /// The summary of the turns that [`ContextPolicy::Summarize`](crate::ContextPolicy::Summarize) dropped. The model reads it
    /// before the first message of the user.
    #[must_use]
    pub fn summary(&self) -> Option<&str> {
        self.talk.summary.as_deref()
    }

    /// The system prompt.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        let first = self.talk.messages.first();
        let system = first.filter(|message| message.role == "system");
        system.map(|message| message.content.as_str())
    }

    /// Changes the system prompt, or takes it out.
    pub fn set_system(&mut self, text: Option<String>) {
        let messages = &mut self.talk.messages;
        if messages
            .first()
            .is_some_and(|message| message.role == "system")
        {
            messages.remove(0);
        }
        if let Some(text) = text {
            messages.insert(0, Message::system(text));
        }
    }

    /// Adds a message without answering it: an example, the result of a tool, or the beginning of an answer
    /// ([`Conversation::continue_answer`]).
    pub fn push(&mut self, message: Message) {
        self.talk.messages.push(message);
    }

    /// Changes the text of a message.
    ///
    /// # Errors
    /// [`Error::NoSuchMessage`].
    pub fn edit(&mut self, index: usize, text: impl Into<String>) -> Result<(), Error> {
        let messages = self.talk.messages.len();
        let message = self.talk.messages.get_mut(index);
        let message = message.ok_or(Error::NoSuchMessage { index, messages })?;
        message.content = text.into();
        Ok(())
    }

    /// Keeps the first `length` messages.
    pub fn truncate(&mut self, length: usize) {
        self.talk.messages.truncate(length);
    }

    /// Takes the last turn back: the last message of the user and all behind it, which are returned. Empty where there is none.
    pub fn undo(&mut self) -> Vec<Message> {
        let messages = &mut self.talk.messages;
        let last = messages.iter().rposition(|message| message.role == "user");
        messages.split_off(last.unwrap_or(messages.len()))
    }

    /// Forgets all that was said but the system prompt.
    pub fn clear(&mut self) {
        let system = self.system().map(Message::system);
        self.talk = Talk {
            messages: system.into_iter().collect(),
            ..Talk::default()
        };
    }
}
