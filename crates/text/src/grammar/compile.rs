//! Grammars of every kind, compiled for a tokenizer.

use std::sync::Arc;
use std::{fmt, thread};

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, TokenParser, regex_to_lark};
use serde_json::Value as Json;

use super::trigger::Trigger;
use super::{Constraint, GrammarTokens, gbnf, lark, schema};
use crate::{TextError, TokenId, TokenKind, Tokenizer};

/// Bytes of a grammar's text, far more than any that is written by hand.
const MAX_TEXT: usize = 1 << 18;
/// Choices of a list.
const MAX_CHOICES: usize = 10_000;
/// Repetitions of a part of a regular expression: the time to follow one grows with their square.
const MAX_REPETITIONS: usize = 2_000;
/// Bytes of stack for the compilation, whose recursion follows the nesting of what it compiles.
const STACK: usize = 64 << 20;

/// What an answer must match, compiled for one tokenizer. Clones share it; [`Grammar::constraint`] starts an answer.
#[derive(Clone)]
pub struct Grammar {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: Tokenizer,
    /// Never advanced: each answer begins with a copy.
    matcher: Matcher,
    kind: &'static str,
}

impl Grammar {
    /// JSON that validates against a schema. Between the values stands at most one space, or a line end with its indentation, so
    /// that no answer can lose itself in white space.
    ///
    /// Honoured are `type`, `const`, `enum`, `properties`, `patternProperties`, `additionalProperties`, `required`, `items`,
    /// `prefixItems`, `additionalItems` (with an array of `items`), `minItems`, `maxItems`, `minProperties` and `maxProperties` (as
    /// far as the choice of properties allows), `minLength`, `maxLength`, `pattern`, `minimum`, `maximum`, `exclusiveMinimum`,
    /// `exclusiveMaximum`, `multipleOf`, `anyOf`, `oneOf` (of schemas that exclude each other), `allOf`, `$ref` within the schema,
    /// and the formats `date`, `time`, `date-time`, `duration`, `email`, `hostname`, `ipv4`, `ipv6`, `uuid`, `uri` and those of
    /// sized numbers. Properties come in the order of the schema. Integers without bounds stay within ±(2⁵³ − 1), which every
    /// reader of JSON keeps exactly (RFC 7493).
    ///
    /// # Errors
    /// [`TextError::Schema`] with the place (a JSON Pointer, RFC 6901) for everything that cannot be honoured, unknown keywords
    /// included; annotations of one's own begin with `x-`. [`TextError::GrammarTooLarge`], [`TextError::GrammarVocabulary`].
    pub fn from_json_schema(tokenizer: &Tokenizer, schema: &Json) -> Result<Self, TextError> {
        let tokens = tokenizer.grammar_tokens()?;
        let matcher = on_large_stack(|| {
            let checked = schema::normalise(schema)?;
            match matcher(&tokens, TopLevelGrammar::from_json_schema(checked)) {
                Ok(matcher) => Ok(matcher),
                Err(reason) => Err(schema::locate(schema, reason, |part| {
                    matcher_error(&tokens, part)
                })),
            }
        })?;
        Ok(Self::new(tokenizer, matcher, "JSON Schema"))
    }

    /// Any JSON object.
    ///
    /// # Errors
    /// [`TextError::GrammarVocabulary`].
    pub fn json(tokenizer: &Tokenizer) -> Result<Self, TextError> {
        Self::from_json_schema(tokenizer, &serde_json::json!({"type": "object"}))
    }

    /// Text that matches a regular expression as a whole, in the syntax of Rust's `regex` crate. A `^` at its beginning and a `$`
    /// at its end say nothing more; boundaries and look-around are refused.
    ///
    /// # Errors
    /// [`TextError::Grammar`] with what is wrong, [`TextError::GrammarTooLarge`], also for a part that is repeated more than 2000
    /// times; [`TextError::GrammarVocabulary`].
    pub fn from_regex(tokenizer: &Tokenizer, regex: &str) -> Result<Self, TextError> {
        check_repetitions(regex)?;
        let text = match regex_to_lark(regex, "") {
            empty if empty.is_empty() => "start: \"\"".to_owned(),
            regex => format!("start: /{regex}/"),
        };
        Self::compile(tokenizer, &text, "regular expression")
    }

    /// One of these texts.
    ///
    /// # Errors
    /// [`TextError::Grammar`] where there is none, [`TextError::GrammarTooLarge`], [`TextError::GrammarVocabulary`].
    pub fn from_choices<S: AsRef<str>>(
        tokenizer: &Tokenizer,
        choices: impl IntoIterator<Item = S>,
    ) -> Result<Self, TextError> {
        let kind = "list of choices";
        let literals: Vec<String> = choices
            .into_iter()
            .map(|choice| lark::literal(choice.as_ref()))
            .collect();
        if literals.is_empty() {
            let reason = "it is empty: give at least one".to_owned();
            return Err(TextError::Grammar { kind, reason });
        }
        within(kind, "choices", literals.len(), MAX_CHOICES)?;
        Self::compile(tokenizer, &format!("start: {}", literals.join(" | ")), kind)
    }

    /// A grammar in llguidance's dialect of Lark, whose first rule is `start`. `%json { ... }` in it stands for a JSON Schema, which
    /// is checked as in [`Grammar::from_json_schema`]; `<name>` and `<[id]>` stand for a token ([`Grammar::lark_token`] writes it).
    ///
    /// # Errors
    /// [`TextError::Grammar`] with line and column, [`TextError::Schema`], [`TextError::GrammarTooLarge`],
    /// [`TextError::GrammarVocabulary`].
    pub fn from_lark(tokenizer: &Tokenizer, text: &str) -> Result<Self, TextError> {
        within("Lark grammar", "bytes", text.len(), MAX_TEXT)?;
        let text = on_large_stack(|| lark::check(text))?;
        Self::compile(tokenizer, &text, "Lark grammar")
    }

    /// A grammar in GBNF, the notation of llama.cpp, whose first rule is `root`. A rule that refers to itself is matched in pieces,
    /// each as long as it can be: of an ambiguous grammar some texts may never come up, and none comes up that it does not have.
    ///
    /// # Errors
    /// [`TextError::Gbnf`] with line and column; as [`Grammar::from_lark`].
    pub fn from_gbnf(tokenizer: &Tokenizer, text: &str) -> Result<Self, TextError> {
        within("GBNF grammar", "bytes", text.len(), MAX_TEXT)?;
        let text = gbnf::to_lark(text, |name| Self::lark_token(tokenizer, name))?;
        Self::compile(tokenizer, &text, "GBNF grammar")
    }

    /// How a token is written in a Lark grammar: a control token as `<[id]>`, the text of any other one as a string. `None` where
    /// the vocabulary has no token of this text.
    #[must_use]
    pub fn lark_token(tokenizer: &Tokenizer, text: &str) -> Option<String> {
        let id = tokenizer.token_id(text)?;
        Some(match tokenizer.kind(id)? {
            TokenKind::Normal | TokenKind::UserDefined | TokenKind::Byte => lark::literal(text),
            _ => lark_id(id),
        })
    }

    /// Starts an answer that must match from its first token on.
    #[must_use]
    pub fn constraint(&self) -> Constraint {
        Constraint::new(self.inner.matcher.deep_clone(), self.clone(), None)
    }

    /// Starts an answer that is free until `text` has come up in it (`</think>`; texts of control tokens count), and must match
    /// from the token after on.
    #[must_use]
    pub fn constraint_after(&self, text: &str) -> Constraint {
        let matcher = self.inner.matcher.deep_clone();
        Constraint::new(matcher, self.clone(), Trigger::new(text))
    }

    /// The tokenizer that it was compiled for.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }

    fn compile(tokenizer: &Tokenizer, lark: &str, kind: &'static str) -> Result<Self, TextError> {
        within(kind, "bytes", lark.len(), 4 * MAX_TEXT)?;
        let tokens = tokenizer.grammar_tokens()?;
        let grammar = TopLevelGrammar::from_lark(lark.to_owned());
        let matcher = on_large_stack(|| {
            matcher(&tokens, grammar).map_err(|reason| TextError::Grammar { kind, reason })
        })?;
        Ok(Self::new(tokenizer, matcher, kind))
    }

    fn new(tokenizer: &Tokenizer, matcher: Matcher, kind: &'static str) -> Self {
        let inner = Inner {
            tokenizer: tokenizer.clone(),
            matcher,
            kind,
        };
        Grammar {
            inner: Arc::new(inner),
        }
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar")
            .field("kind", &self.inner.kind)
            .finish_non_exhaustive()
    }
}

/// Refuses a regular expression with a part that is repeated very often.
///
/// # Errors
/// [`TextError::GrammarTooLarge`].
pub(super) fn check_repetitions(regex: &str) -> Result<(), TextError> {
    let numbers = regex.split('{').skip(1).flat_map(|behind| {
        let counts = behind.split('}').next().unwrap_or_default();
        counts.split(',').map(str::trim)
    });
    let digits = numbers.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    // What is no number that fits is refused by the parser.
    let most = digits.filter_map(|number| number.parse().ok()).max();
    let what = "repetitions of a part";
    within(
        "regular expression",
        what,
        most.unwrap_or(0),
        MAX_REPETITIONS,
    )
}

/// # Errors
/// [`TextError::GrammarTooLarge`].
pub(super) fn within(
    kind: &'static str,
    what: &'static str,
    found: usize,
    limit: usize,
) -> Result<(), TextError> {
    match found > limit {
        true => Err(TextError::GrammarTooLarge {
            kind,
            what,
            found,
            limit,
        }),
        false => Ok(()),
    }
}

/// A token by its number, in Lark.
pub(super) fn lark_id(id: TokenId) -> String {
    format!("<[{id}]>")
}

/// What llguidance says, in one paragraph: without the marks that it puts around its state.
pub(super) fn plain(message: &str) -> String {
    let end = ["<non-verbose/>", "<state>", "<backtrace>"]
        .iter()
        .filter_map(|mark| message.find(mark))
        .min()
        .unwrap_or(message.len());
    message[..end].trim().to_owned()
}

fn matcher(tokens: &GrammarTokens, grammar: TopLevelGrammar) -> Result<Matcher, String> {
    let parser: Result<TokenParser, _> = tokens.factory().create_parser(grammar);
    let parser = parser.map_err(|error| plain(&format!("{error:#}")))?;
    let mut matcher = Matcher::new(Ok(parser));
    // A start that leads nowhere shows at the first mask.
    match matcher.is_stopped() || matcher.compute_mask().is_ok() {
        true => Ok(matcher),
        false => Err(plain(&matcher.get_error().unwrap_or_default())),
    }
}

fn matcher_error(tokens: &GrammarTokens, schema: Json) -> Option<String> {
    matcher(tokens, TopLevelGrammar::from_json_schema(schema)).err()
}

/// Runs on a thread with a stack for the deepest nesting that is let in.
fn on_large_stack<T: Send>(
    work: impl FnOnce() -> Result<T, TextError> + Send,
) -> Result<T, TextError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("dunlin-grammar".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|error| TextError::GrammarThread {
                reason: error.to_string(),
            })?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
