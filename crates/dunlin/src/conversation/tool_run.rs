//! Answers with tools: calls are run and their results fed back until there is an answer without calls.

use dunlin_text::ToolChoice;

use super::tools::Offer;
use super::{AnswerEvent, Conversation, Reply, ToolOptions};
use crate::{Error, FinishReason, ToolResult, Toolbox};

/// What came of a message that was answered with tools.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ToolRun {
    /// The last answer. It has calls only where it was cancelled before they were run.
    pub reply: Reply,
    /// The answers with calls before it, with the results.
    pub rounds: Vec<ToolRound>,
    /// Whether all rounds were used, so that the last answer had to do without calls.
    pub is_limited: bool,
}

/// An answer with calls, and what came of them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ToolRound {
    /// The answer.
    pub reply: Reply,
    /// The results, in the order of its calls; those that are errors say so.
    pub results: Vec<ToolResult>,
}

impl Conversation {
    /// Says something and answers it with tools: runs the calls of each answer, one after the other, feeds their results back, and
    /// answers again, until there is an answer without calls. After `max_rounds` answers with calls, the next one is held to do
    /// without.
    ///
    /// The tools of the toolbox are on offer from then on, with the [`ToolOptions`] that the conversation has. A choice that wants calls counts for
    /// the first answer. What a tool returns as an error is given to the model as its result, and told in [`ToolRound::results`].
    ///
    /// # Errors
    /// As [`Conversation::set_tools`] and [`Conversation::send`], and what goes wrong while it is answered. Calls that were run
    /// are not undone: after an error, the conversation has the rounds that were finished, and [`Conversation::answer`]
    /// goes on.
    pub fn run_tools(
        &mut self,
        toolbox: &Toolbox,
        text: impl Into<String>,
        max_rounds: usize,
    ) -> Result<ToolRun, Error> {
        self.run_tools_with(toolbox, text, max_rounds, |_| {})
    }

    /// As [`Conversation::run_tools`], and hands out the events of all answers and the results as they come.
    ///
    /// # Errors
    /// As [`Conversation::run_tools`].
    pub fn run_tools_with(
        &mut self,
        toolbox: &Toolbox,
        text: impl Into<String>,
        max_rounds: usize,
        mut on_event: impl FnMut(&AnswerEvent),
    ) -> Result<ToolRun, Error> {
        let options = self
            .offer
            .as_ref()
            .map_or_else(ToolOptions::default, |offer| offer.options.clone());
        let text = text.into();
        self.set_tools(toolbox.tools(), first(&options, max_rounds))?;
        let run = self.rounds(toolbox, text, &options, max_rounds, &mut on_event);
        let is_other = |offer: &Offer| offer.options != options;
        if self.offer.as_ref().is_some_and(is_other) {
            self.set_tools(toolbox.tools(), options)?;
        }
        run
    }

    fn rounds(
        &mut self,
        toolbox: &Toolbox,
        text: String,
        options: &ToolOptions,
        max_rounds: usize,
        on_event: &mut impl FnMut(&AnswerEvent),
    ) -> Result<ToolRun, Error> {
        let mut rounds = Vec::new();
        let mut answer = self.send(text)?;
        loop {
            for event in answer.by_ref() {
                on_event(&event?);
            }
            let reply = answer.complete()?;
            if reply.tool_calls.is_empty() || reply.finish_reason == FinishReason::Cancelled {
                return Ok(ToolRun {
                    reply,
                    is_limited: rounds.len() == max_rounds,
                    rounds,
                });
            }
            let mut results = Vec::with_capacity(reply.tool_calls.len());
            for call in &reply.tool_calls {
                let result = toolbox.call(call);
                self.push_tool_result(call, &result.content)?;
                on_event(&AnswerEvent::ToolResult(result.clone()));
                results.push(result);
            }
            rounds.push(ToolRound { reply, results });
            let next = later(options, max_rounds - rounds.len());
            if self
                .offer
                .as_ref()
                .is_some_and(|offer| offer.options != next)
            {
                self.set_tools(toolbox.tools(), next)?;
            }
            answer = self.answer()?;
        }
    }
}

/// How tools may be called in the first answer.
fn first(options: &ToolOptions, rounds_left: usize) -> ToolOptions {
    match rounds_left {
        0 => options.clone().with_choice(ToolChoice::None),
        _ => options.clone(),
    }
}

/// How they may be called once there are results.
fn later(options: &ToolOptions, rounds_left: usize) -> ToolOptions {
    match (&options.choice, rounds_left) {
        (_, 0) => options.clone().with_choice(ToolChoice::None),
        (ToolChoice::Required | ToolChoice::Named(_), _) => {
            options.clone().with_choice(ToolChoice::Auto)
        }
        _ => options.clone(),
    }
}
