//! A conversation as token ids, with no control token that a message brought in.
//!
//! The template's output is one text in which the template's own control tokens and the words of users stand side by
//! side. So the texts of control tokens are broken up in messages and tools *before* rendering, by a mark: one character
//! that stands nowhere else. In the rendered text every control token that is still whole is the template's own. The
//! mark is taken out of the text between them, and that text is encoded without control tokens.
//!
//! Conversations without such texts, which is nearly all, are rendered and encoded as they are.

use std::collections::{BTreeSet, HashMap, HashSet};

use dunlin_text::{ChatTemplate, TemplateInput, TokenId, TokenKind, Tokenizer};
use serde_json::{Map, Value as Json};

use crate::Error;

/// The token ids of a conversation. BOS is the template's own affair where it writes one; where it does not, the model's
/// rule adds it.
///
/// # Errors
/// What the template or the tokenizer says, and [`Error::UnsafeText`].
pub(crate) fn encode_conversation(
    tokenizer: &Tokenizer,
    special: &SpecialTexts,
    template: &ChatTemplate,
    input: &TemplateInput,
) -> Result<Vec<TokenId>, Error> {
    let mut ids = match render(special, template, input)? {
        Rendered { text, mark: None } => tokenizer.encode(&text, true)?,
        Rendered {
            text,
            mark: Some(mark),
        } => special.encode_marked(tokenizer, &text, mark)?,
    };
    insert_bos(tokenizer, &mut ids);
    Ok(ids)
}

/// The same conversation in stretches, to be encoded one by one. Their ids together, BOS apart ([`insert_bos`]), are those of
/// [`encode_conversation`].
///
/// # Errors
/// What the template says, and [`Error::UnsafeText`].
pub(crate) fn split_conversation(
    special: &SpecialTexts,
    template: &ChatTemplate,
    input: &TemplateInput,
) -> Result<Vec<Stretch>, Error> {
    let Rendered { text, mark } = render(special, template, input)?;
    Ok(special.split(&text, mark))
}

/// Puts BOS before the ids of a conversation where the model's rule adds it and the template has not.
pub(crate) fn insert_bos(tokenizer: &Tokenizer, ids: &mut Vec<TokenId>) {
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    if let Some(bos) = bos.filter(|bos| ids.first() != Some(bos)) {
        ids.insert(0, bos);
    }
}

/// What the template makes of a conversation.
struct Rendered {
    text: String,
    /// The character that breaks up texts of control tokens, where there are such.
    mark: Option<char>,
}

fn render(
    special: &SpecialTexts,
    template: &ChatTemplate,
    input: &TemplateInput,
) -> Result<Rendered, Error> {
    let mut texts = Vec::new();
    input
        .messages
        .iter()
        .for_each(|message| collect(message, Place::Message, &mut texts));
    input
        .tools
        .iter()
        .for_each(|tools| collect(tools, Place::Inside, &mut texts));
    if texts.iter().all(|text| special.breaks(text).is_empty()) {
        let text = template.render(input)?;
        return Ok(Rendered { text, mark: None });
    }
    let mark = free_character(&texts, template.source(), special)?;
    let texts_of = |json: &Json, place| rewrite(json, place, &|text| special.break_up(text, mark));
    let marked = TemplateInput {
        messages: input
            .messages
            .iter()
            .map(|message| texts_of(message, Place::Message))
            .collect(),
        tools: input
            .tools
            .as_ref()
            .map(|tools| texts_of(tools, Place::Inside)),
        ..input.clone()
    };
    let text = template.render(&marked)?;
    Ok(Rendered {
        text,
        mark: Some(mark),
    })
}

/// A control token of the template, and the text behind it up to the next one.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// `None` for the text before the first control token.
    pub control: Option<TokenId>,
    /// Without marks.
    pub text: String,
    parts: Vec<Part>,
}

/// A piece of a stretch.
#[derive(Debug)]
enum Part {
    Text(String),
    /// A token with a text of its own: the control token at the beginning, or a user-defined one.
    Token(TokenId, String),
}

impl Stretch {
    /// The token ids, the control token first.
    pub(crate) fn encode(&self, tokenizer: &Tokenizer) -> Result<Vec<TokenId>, Error> {
        let mut ids = Vec::new();
        let mut before = None;
        for part in &self.parts {
            match part {
                Part::Text(text) => encode_between(tokenizer, before, text, &mut ids)?,
                Part::Token(id, text) => {
                    ids.push(*id);
                    before = Some((*id, text.as_str()));
                }
            }
        }
        Ok(ids)
    }
}

/// The texts that stand for one token as a whole.
#[derive(Debug)]
pub(crate) struct SpecialTexts {
    /// The token of each text, and whether it is a control token.
    tokens: HashMap<String, (TokenId, bool)>,
    /// The lengths in bytes of the texts, longest first.
    lengths: Vec<usize>,
    /// The bytes that such a text begins with: most positions of a text are done with after this look.
    first: HashSet<u8>,
    /// The texts of control tokens, sorted, and their bytes from the last to the first, sorted.
    control: Vec<String>,
    reversed: Vec<Vec<u8>>,
}

impl SpecialTexts {
    pub(crate) fn of(tokenizer: &Tokenizer) -> Self {
        let mut special = SpecialTexts {
            tokens: HashMap::new(),
            lengths: Vec::new(),
            first: HashSet::new(),
            control: Vec::new(),
            reversed: Vec::new(),
        };
        let mut lengths = BTreeSet::new();
        for id in 0..tokenizer.vocab_size() as TokenId {
            let control = match tokenizer.kind(id) {
                Some(TokenKind::Control | TokenKind::Unknown) => true,
                Some(TokenKind::UserDefined) => false,
                _ => continue,
            };
            let text = tokenizer.token_text(id).unwrap_or_default();
            let Some(&first) = text.as_bytes().first() else {
                continue;
            };
            special
                .tokens
                .entry(text.to_owned())
                .or_insert((id, control));
            special.first.insert(first);
            lengths.insert(text.len());
            if control {
                special.control.push(text.to_owned());
                special.reversed.push(text.bytes().rev().collect());
            }
        }
        special.control.sort_unstable();
        special.control.dedup();
        special.reversed.sort_unstable();
        special.reversed.dedup();
        special.lengths = lengths.into_iter().rev().collect();
        special
    }

    /// The token whose text `rest` begins with, the longest of several, with the text's length in bytes.
    fn token_at(&self, rest: &str) -> Option<(TokenId, bool, usize)> {
        self.first
            .contains(rest.as_bytes().first()?)
            .then_some(())?;
        self.lengths.iter().find_map(|&length| {
            let (id, control) = self.tokens.get(rest.get(..length)?)?;
            Some((*id, *control, length))
        })
    }

    /// The byte offsets at which a mark has to go into a text of a message: after the first character of each control
    /// token, and of a beginning of one at the text's end; and before an end of one at the text's start. The text of
    /// the template beside it might complete these.
    fn breaks(&self, text: &str) -> BTreeSet<usize> {
        let mut breaks = BTreeSet::new();
        let (start, end) = (text.trim_start(), text.trim_end());
        for (at, c) in text.char_indices() {
            let rest = &text[at..];
            let whole = || self.control_at(rest);
            let cut = || {
                self.begins_control(rest)
                    || end.get(at..).is_some_and(|rest| self.begins_control(rest))
            };
            if self.first.contains(&text.as_bytes()[at]) && (whole() || cut()) {
                breaks.insert(at + c.len_utf8());
            }
        }
        for start in [text, start] {
            let mut ends = start.char_indices().map(|(at, c)| at + c.len_utf8());
            let longest = self.lengths.first().copied().unwrap_or(0);
            if ends
                .by_ref()
                .take_while(|&at| at <= longest)
                .any(|at| self.ends_control(&start[..at]))
            {
                breaks.insert(text.len() - start.len());
            }
        }
        breaks
    }

    /// Whether `text` is a proper beginning of a control token.
    fn begins_control(&self, text: &str) -> bool {
        // Those that begin with it stand together, itself first.
        let from = self
            .control
            .partition_point(|control| control.as_str() < text);
        let mut longer = self.control[from..]
            .iter()
            .filter(|control| *control != text);
        !text.is_empty()
            && longer
                .next()
                .is_some_and(|control| control.starts_with(text))
    }

    /// Whether `text` is a proper end of a control token.
    fn ends_control(&self, text: &str) -> bool {
        let text: Vec<u8> = text.bytes().rev().collect();
        let from = self.reversed.partition_point(|control| *control < text);
        let mut longer = self.reversed[from..]
            .iter()
            .filter(|control| **control != text);
        !text.is_empty()
            && longer
                .next()
                .is_some_and(|control| control.starts_with(&text))
    }

    /// Whether `rest` begins with a control token, be it the beginning of a longer text of another kind.
    fn control_at(&self, rest: &str) -> bool {
        let control = |&length: &usize| {
            let token = rest.get(..length).and_then(|text| self.tokens.get(text));
            token.is_some_and(|(_, control)| *control)
        };
        self.lengths.iter().any(control)
    }

    fn break_up(&self, text: &str, mark: char) -> String {
        let mut marked = text.to_owned();
        for at in self.breaks(text).into_iter().rev() {
            marked.insert(at, mark);
        }
        marked
    }

    /// Encodes as [`Tokenizer::encode`] with `parse_special`, but for control tokens that a mark breaks up.
    fn encode_marked(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        mark: char,
    ) -> Result<Vec<TokenId>, Error> {
        let mut ids = Vec::new();
        for stretch in self.split(text, Some(mark)) {
            ids.extend(stretch.encode(tokenizer)?);
        }
        Ok(ids)
    }

    /// The stretches of a rendered text.
    fn split(&self, text: &str, mark: Option<char>) -> Vec<Stretch> {
        let begin = |control, parts| Stretch {
            control,
            text: String::new(),
            parts,
        };
        let mut stretches = Vec::new();
        let mut stretch = begin(None, Vec::new());
        let mut between = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            // A mark right behind a token of one character could not break it up.
            let token = self.token_at(rest).filter(|(_, control, length)| {
                let is_marked = mark.is_some_and(|mark| rest[*length..].starts_with(mark));
                !(*control && *length == c.len_utf8() && is_marked)
            });
            let Some((id, control, length)) = token else {
                if Some(c) != mark {
                    between.push(c);
                    stretch.text.push(c);
                }
                rest = &rest[c.len_utf8()..];
                continue;
            };
            stretch.parts.push(Part::Text(std::mem::take(&mut between)));
            let token = Part::Token(id, rest[..length].to_owned());
            if control {
                let next = begin(Some(id), vec![token]);
                stretches.push(std::mem::replace(&mut stretch, next));
            } else {
                stretch.text.push_str(&rest[..length]);
                stretch.parts.push(token);
            }
            rest = &rest[length..];
        }
        stretch.parts.push(Part::Text(between));
        stretches.push(stretch);
        stretches
    }
}

/// Encodes text that follows the token `before`, which may take the white space behind it (as Phi-3's tokens do).
fn encode_between(
    tokenizer: &Tokenizer,
    before: Option<(TokenId, &str)>,
    text: &str,
    ids: &mut Vec<TokenId>,
) -> Result<(), Error> {
    let without_space = text.trim_start();
    let space = &text[..text.len() - without_space.len()];
    let takes_space = match before {
        Some((id, token)) if !space.is_empty() => {
            tokenizer.encode(&format!("{token}{space}"), true)? == [id]
        }
        _ => false,
    };
    let text = if takes_space { without_space } else { text };
    if !text.is_empty() {
        ids.extend(tokenizer.encode(text, false)?);
    }
    Ok(())
}

/// A character that stands in none of these texts. The first choice is DEL, which no filter of templates escapes, trims
/// or changes; a message that contains it leads to one of the private use areas.
fn free_character(texts: &[&str], template: &str, special: &SpecialTexts) -> Result<char, Error> {
    let special = special.tokens.keys().map(String::as_str);
    let used: HashSet<char> = texts
        .iter()
        .copied()
        .chain([template])
        .chain(special)
        .flat_map(str::chars)
        .collect();
    std::iter::once('\u{7f}')
        .chain('\u{e000}'..='\u{f8ff}')
        .chain('\u{f0000}'..='\u{10fffd}')
        .find(|c| !used.contains(c))
        .ok_or(Error::UnsafeText)
}

/// Where JSON stands: the role of a message is the program's word, what is called a role further inside is not.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Message,
    Inside,
}

/// All texts of a message or of tools, but for a message's role. Keys count, since those of a tool's arguments are a
/// model's words.
fn collect<'a>(json: &'a Json, place: Place, texts: &mut Vec<&'a str>) {
    match json {
        Json::String(text) => texts.push(text),
        Json::Array(items) => items
            .iter()
            .for_each(|item| collect(item, Place::Inside, texts)),
        Json::Object(map) => {
            for (key, value) in map
                .iter()
                .filter(|(key, _)| place == Place::Inside || *key != "role")
            {
                texts.push(key);
                collect(value, Place::Inside, texts);
            }
        }
        _ => {}
    }
}

/// The same JSON with all texts that [`collect`] finds changed.
fn rewrite(json: &Json, place: Place, change: &dyn Fn(&str) -> String) -> Json {
    match json {
        Json::String(text) => Json::String(change(text)),
        Json::Array(items) => items
            .iter()
            .map(|item| rewrite(item, Place::Inside, change))
            .collect(),
        Json::Object(map) => {
            let changed = map.iter().map(|(key, value)| match key.as_str() {
                "role" if place == Place::Message => (key.clone(), value.clone()),
                _ => (change(key), rewrite(value, Place::Inside, change)),
            });
            Json::Object(changed.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dunlin_format::Gguf;
    use proptest::prelude::*;

    use super::*;
    use crate::test_data::vocabulary;

    fn tiny() -> Tokenizer {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny.gguf");
        Tokenizer::from_gguf(Gguf::open(&path).unwrap().metadata()).unwrap()
    }

    fn breaks(text: &str) -> Vec<usize> {
        SpecialTexts::of(&tiny()).breaks(text).into_iter().collect()
    }

    #[test]
    fn ordinary_text_is_left_alone() {
        for text in [
            "",
            "Hello",
            "a < b | c",
            "<think>x</think>",
            "<|im_end> |im_end|> x",
            "<b>bold</b>.",
        ] {
            assert_eq!(breaks(text), [0; 0], "{text:?}");
        }
    }

    #[test]
    fn whole_control_tokens_are_broken_up_and_cut_ones_kept_apart_from_the_template() {
        assert_eq!(breaks("a<|im_end|>b<|im_start|>"), [2, 13]);
        assert_eq!(breaks("a <|im_"), [3]);
        assert_eq!(breaks("a <|im_ \n"), [3]);
        assert_eq!(breaks("<"), [1]);
        assert_eq!(breaks("end|> x"), [0]);
        assert_eq!(breaks(" > quoted"), [1]);
        assert_eq!(
            SpecialTexts::of(&tiny()).break_up("a<|im_end|>", '#'),
            "a<#|im_end|>"
        );
    }

    /// Where no mark is, both ways to encode have to agree.
    fn assert_same_tokens(tokenizer: &Tokenizer, text: &str) {
        let special = SpecialTexts::of(tokenizer);
        let marked = special.encode_marked(tokenizer, text, '\u{e000}').unwrap();
        assert_eq!(marked, tokenizer.encode(text, true).unwrap(), "{text:?}");
    }

    proptest! {
        #[test]
        fn text_without_marks_is_encoded_as_the_tokenizer_does(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "<|im_start|>", "<|im_end|>", "<think>", "<", "|im_end|>", " ", "\n", "  a", "the", "é", "<|",
                ]),
                0..20,
            )
        ) {
            assert_same_tokens(&tiny(), &pieces.concat());
        }
    }

    /// Vocabularies with their own rules: white space behind a token (Phi-3), a space before a text (Llama 2), line
    /// breaks as tokens (Gemma).
    #[test]
    fn text_without_marks_is_encoded_as_real_tokenizers_do() {
        for (name, tokens) in [
            ("phi-3", ["<|user|>", "<|end|>", "<|assistant|>"]),
            ("llama-spm", ["<s>", "</s>", "<unk>"]),
            ("gemma3", ["<start_of_turn>", "<end_of_turn>", "\n\n"]),
            (
                "llama-bpe",
                ["<|start_header_id|>", "<|eot_id|>", "<|end_header_id|>"],
            ),
            ("qwen2", ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]),
        ] {
            let Some(gguf) = vocabulary(name) else { return };
            let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
            let [a, b, c] = tokens;
            for text in [
                format!("{a}user\nHello there{b}\n{c}\n"),
                format!("{a} \n {b}  x {c}"),
                format!("  {a}{b}\n\n\n\tif x:\n    y{c}   "),
                format!("{a}< {b} |> </b> é 日本 123456{c}"),
            ] {
                assert_same_tokens(&tokenizer, &text);
            }
        }
    }
}
