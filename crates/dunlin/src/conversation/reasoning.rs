//! Whether, and how long, a model reasons before its answer.

use dunlin_text::{ReasoningFormat, ReasoningSplitter, TokenId};

use super::Written;
use crate::generate::{ReasoningBudget, Steering};
use crate::prompt::template_input;
use crate::{Error, Lm, Message, TemplateOptions};

/// The variables by which templates let a model reason or not: that of most families, and Granite's.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];

/// Whether a model reasons before it answers.
///
/// Templates are told by their variable `enable_thinking` (Granite: `thinking`). Where that does not decide, the answer is steered: reasoning is
/// begun for the model, or ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reasoning {
    /// As the chat template has it by itself.
    #[default]
    Auto,
    /// Before each answer, as long as the model likes.
    On,
    /// Not at all: what the template or the model begins is ended at once.
    Off,
    /// As [`On`](Self::On), with at most this many tokens: then the closing mark is put in, and the answer follows. 0 is
    /// [`Off`](Self::Off).
    Budget(usize),
}

/// How the reasoning of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReasoningEnd {
    /// The model ended it.
    Closed,
    /// It had all the tokens of its [`Reasoning::Budget`] (none with [`Reasoning::Off`]), and was ended.
    Budget,
    /// It did not end: the answer was cut before.
    Unfinished,
}

impl Reasoning {
    /// Tells the template.
    pub(super) fn set(self, template: &mut TemplateOptions) {
        let switch = match self {
            Reasoning::Auto => return,
            Reasoning::On | Reasoning::Budget(1..) => true,
            Reasoning::Off | Reasoning::Budget(0) => false,
        };
        for name in SWITCHES {
            template.variables.insert(name.to_owned(), switch.into());
        }
    }

    /// Most tokens of the reasoning.
    fn limit(self) -> Option<usize> {
        match self {
            Reasoning::Auto | Reasoning::On => None,
            Reasoning::Off => Some(0),
            Reasoning::Budget(tokens) => Some(tokens),
        }
    }
}

impl Lm {
    /// How the model marks reasoning before its answers; `None` for a model that does not reason.
    #[must_use]
    pub fn reasoning_format(&self) -> Option<ReasoningFormat> {
        ReasoningFormat::detect(self.chat_template().ok()?.source())
    }
}

/// How the reasoning of one answer is opened, read and limited.
pub(super) struct Course {
    format: Option<ReasoningFormat>,
    /// The end of the prompt.
    prompt: String,
    /// The prompt ends within reasoning.
    is_open: bool,
    /// Reasoning is begun for the model.
    is_opened: bool,
    limit: Option<usize>,
}

impl Course {
    /// The course of an answer to a prompt that ends with `prompt`. `is_new`: nothing of the answer is there. `has_form`: it
    /// must have a form, so that it has to be known whether reasoning comes before.
    ///
    /// # Errors
    /// [`Error::CannotReason`]; what the template says.
    pub(super) fn new(
        lm: &Lm,
        reasoning: Reasoning,
        prompt: String,
        is_new: bool,
        has_form: bool,
    ) -> Result<Self, Error> {
        let format = lm.reasoning_format();
        let mut course = Course {
            format,
            prompt,
            is_open: false,
            is_opened: false,
            limit: reasoning.limit(),
        };
        let is_wanted = matches!(reasoning, Reasoning::On | Reasoning::Budget(1..));
        let Some(format) = format else {
            return match is_wanted {
                true => Err(Error::CannotReason),
                false => Ok(course),
            };
        };
        course.is_open = format.is_open_after(&course.prompt);
        let is_decided = course.is_open || is_closed(format, &course.prompt);
        if is_new && !is_decided {
            let is_usual = || Ok::<_, Error>(has_form && reasons_unless_told(lm, format)?);
            course.is_opened = is_wanted || (reasoning == Reasoning::Auto && is_usual()?);
        }
        Ok(course)
    }

    /// A reader of what the model writes.
    pub(super) fn splitter(&self) -> Option<ReasoningSplitter> {
        Some(self.format?.splitter(&self.prompt))
    }

    /// The text after which the answer begins, where reasoning comes before it for certain.
    pub(super) fn answer_after(&self) -> Option<&'static str> {
        let format = self.format?;
        (self.is_open || self.is_opened).then(|| format.close())
    }

    /// Ends the reasoning that the prompt opens before the beginning of an answer that the program wrote.
    ///
    /// # Errors
    /// [`Error::Text`] for a text that the vocabulary cannot express.
    pub(super) fn close_before(&self, lm: &Lm, begun: &mut Written) -> Result<(), Error> {
        if let Some(format) = self.format.filter(|_| self.is_open) {
            let mark = closing(format, true);
            begun.ids.splice(0..0, lm.tokenizer().encode(&mark, true)?);
            begun.text.insert_str(0, &mark);
        }
        Ok(())
    }

    /// What is put into the answer. `splitter`: one that has seen the `begun` tokens of the answer that are there.
    /// `has_form`: the answer's form begins behind the closing mark.
    ///
    /// # Errors
    /// [`Error::Text`] where the vocabulary cannot express the marks.
    pub(super) fn steering(
        &self,
        lm: &Lm,
        splitter: Option<&ReasoningSplitter>,
        begun: usize,
        has_form: bool,
    ) -> Result<Steering, Error> {
        let Some((format, splitter)) = self.format.zip(splitter) else {
            return Ok(Steering::default());
        };
        let tokenizer = lm.tokenizer();
        let opening = match self.is_opened {
            true => tokenizer.encode(&opening(format), true)?,
            false => Vec::new(),
        };
        let budget = match self.limit {
            None => None,
            Some(limit) => {
                let closing = tokenizer.encode(&closing(format, !has_form), true)?;
                let spent = match splitter.is_reasoning() {
                    true => begun,
                    false => 0,
                };
                let budget = ReasoningBudget::new(splitter.clone(), limit, spent, closing);
                Some(budget.behind(opening.len()))
            }
        };
        Ok(Steering {
            opening,
            shown: self.shown(lm),
            budget,
        })
    }

    /// Control tokens that the reader must see.
    pub(super) fn shown(&self, lm: &Lm) -> Vec<TokenId> {
        let markers = self
            .format
            .map(|format| format.control_markers(lm.tokenizer()));
        let ids = markers.into_iter().flatten().map(|(_, id)| id);
        ids.collect()
    }
}

fn is_closed(format: ReasoningFormat, prompt: &str) -> bool {
    prompt.trim_end().ends_with(format.close())
}

/// Whether the template lets the model reason unless it is told not to: then it closes the reasoning in the prompt.
fn reasons_unless_told(lm: &Lm, format: ReasoningFormat) -> Result<bool, Error> {
    let mut told = TemplateOptions::default();
    Reasoning::Off.set(&mut told);
    let prompt = lm
        .text()
        .render(&template_input(&[Message::user("Hello")], &told))?;
    Ok(is_closed(format, &prompt))
}

/// What models write first when they reason.
fn opening(format: ReasoningFormat) -> String {
    match format {
        ReasoningFormat::Think | ReasoningFormat::Channel => format!("{}\n", format.open()),
        _ => format.open().to_owned(),
    }
}

/// What ends reasoning, with the empty line that some families put before free text.
fn closing(format: ReasoningFormat, with_break: bool) -> String {
    match (format, with_break) {
        (ReasoningFormat::Think, true) => format!("\n{}\n\n", format.close()),
        (ReasoningFormat::Think, false) => format!("\n{}", format.close()),
        _ => format.close().to_owned(),
    }
}
