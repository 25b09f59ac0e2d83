//! Grammars that an answer must match: JSON Schema, regular expressions, lists of choices, Lark, GBNF.
//!
//! A [`Grammar`] is compiled once for a tokenizer and is cheap to clone. A [`Constraint`] follows one answer through it, token by
//! token: which tokens may come next, which must, and whether the answer may end. The matching itself is llguidance's (an Earley
//! parser over derivatives of regular expressions); what stands here turns every kind of grammar into its language, and refuses
//! beforehand what it would pass over.

mod compile;
mod constraint;
mod gbnf;
mod lark;
mod schema;
mod tokens;
mod trigger;

pub use compile::Grammar;
pub use constraint::Constraint;
pub(crate) use tokens::GrammarTokens;
