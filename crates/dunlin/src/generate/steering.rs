//! What is put into an answer without asking the model: the beginning of its reasoning, and the end of reasoning that has used up
//! its tokens.

use dunlin_text::{ReasoningSplitter, TokenId};

/// What is put into an answer, and which control tokens of it are text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steering {
    /// Tokens that the answer begins with.
    pub opening: Vec<TokenId>,
    /// Control tokens that come out as text.
    pub shown: Vec<TokenId>,
    pub budget: Option<ReasoningBudget>,
}

/// A limit for the reasoning before an answer.
#[derive(Clone, Debug)]
pub(crate) struct ReasoningBudget {
    splitter: ReasoningSplitter,
    /// Most tokens of the reasoning.
    limit: usize,
    spent: usize,
    /// Tokens of the opening that are still to come, which are none of the reasoning.
    opening: usize,
    /// Tokens that end the reasoning.
    closing: Vec<TokenId>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was written but what may stand before reasoning.
    Before,
    Reasoning,
    /// The reasoning is over, by itself or because it was cut: what follows is not limited.
    After {
        is_cut: bool,
    },
}

impl ReasoningBudget {
    /// A limit for what comes behind a prompt (and the beginning of an answer) that `splitter` has seen.
    pub(crate) fn new(
        splitter: ReasoningSplitter,
        limit: usize,
        spent: usize,
        closing: Vec<TokenId>,
    ) -> Self {
        let stage = match splitter.is_reasoning() {
            true => Stage::Reasoning,
            false => Stage::Before,
        };
        ReasoningBudget {
            splitter,
            limit,
            spent,
            opening: 0,
            closing,
            stage,
        }
    }

    /// The same limit behind so many tokens that open the reasoning.
    pub(crate) fn behind(mut self, opening: usize) -> Self {
        self.opening = opening;
        self
    }

    /// Takes the text of the next token, which may be empty.
    pub(super) fn push(&mut self, text: &str) {
        self.splitter.push(text);
        let is_counted = self.opening == 0;
        self.opening = self.opening.saturating_sub(1);
        self.stage = match (self.stage, self.splitter.is_reasoning()) {
            (Stage::Before, true) => Stage::Reasoning,
            (Stage::Reasoning, true) => {
                self.spent += usize::from(is_counted);
                Stage::Reasoning
            }
            (Stage::Reasoning, false) => Stage::After { is_cut: false },
            (stage, _) => stage,
        };
    }

    /// The tokens that must come now, once, because the reasoning has had all of its own.
    pub(super) fn take_closing(&mut self) -> Option<Vec<TokenId>> {
        let is_due = self.stage == Stage::Reasoning && self.spent >= self.limit;
        is_due.then(|| {
            self.stage = Stage::After { is_cut: true };
            std::mem::take(&mut self.closing)
        })
    }

    /// Most tokens that may be guessed, so that none is chosen behind the last one of the reasoning.
    pub(super) fn most_guesses(&self) -> usize {
        match self.stage {
            Stage::Before => self.limit,
            Stage::Reasoning => (self.limit - self.spent.min(self.limit)).saturating_sub(1),
            Stage::After { .. } => usize::MAX,
        }
    }

    /// Whether the reasoning was ended by the limit.
    pub(super) fn has_cut(&self) -> bool {
        self.stage == Stage::After { is_cut: true }
    }
}

#[cfg(test)]
mod tests {
    use dunlin_text::ReasoningFormat;

    use super::*;

    fn budget(prompt: &str, limit: usize) -> ReasoningBudget {
        ReasoningBudget::new(ReasoningFormat::Think.splitter(prompt), limit, 0, vec![7])
    }

    #[test]
    fn reasoning_is_closed_once_after_its_last_token() {
        let mut budget = budget("", 2);
        for piece in ["<think>", "a"] {
            budget.push(piece);
            assert_eq!(budget.take_closing(), None, "{piece}");
        }
        assert_eq!(budget.most_guesses(), 0);
        budget.push("b");
        assert_eq!(budget.take_closing(), Some(vec![7]));
        budget.push("</think>");
        budget.push("<think>");
        assert_eq!(budget.take_closing(), None);
        assert!(budget.has_cut());
    }

    #[test]
    fn no_tokens_at_all_close_what_the_prompt_has_opened() {
        assert_eq!(budget("<think>\n", 0).take_closing(), Some(vec![7]));
        assert_eq!(budget("", 0).take_closing(), None);
    }

    #[test]
    fn reasoning_that_ends_by_itself_is_not_cut() {
        let mut budget = budget("<think>", 3);
        for piece in ["a", "</think>", "b", "c", "d", "e"] {
            budget.push(piece);
        }
        assert_eq!(budget.take_closing(), None);
        assert!(!budget.has_cut());
        assert_eq!(budget.most_guesses(), usize::MAX);
    }
}
