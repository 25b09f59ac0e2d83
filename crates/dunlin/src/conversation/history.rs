//! The tokens of a conversation beside its text, so that what the model wrote is never encoded again.
//!
//! A model may write a word with other tokens than the tokenizer would ("Hel" and "lo" for "Hello"). Encoded again, the same
//! text would not be found in the cache, and would not be what the model has seen. So the history keeps the ids of each stretch
//! of the rendered conversation (a control token of the template and the text behind it) and uses them again wherever a later
//! rendering has the same stretch. All else is encoded, from a control token on. (An answer behind which a template puts no control
//! token is encoded with the text that follows: two texts side by side are not always two runs of tokens.)

use dunlin_text::{TokenId, TokenKind, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::prompt::{Stretch, insert_bos};

/// Control tokens at the end of a prompt that may belong to the opening of the answer: the role's, and those around reasoning.
const SPANS_OF_OPENING: usize = 3;

/// The token ids of a rendered conversation, in stretches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TokenHistory {
    spans: Vec<Span>,
}

/// A control token and the text behind it, with their ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Span {
    /// The control token; `None` before the first one.
    control: Option<TokenId>,
    text: String,
    /// The control token's first.
    ids: Vec<TokenId>,
    /// Where the model's own part begins.
    generated: Option<Generated>,
}

/// The beginning of what the model wrote in a span.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Generated {
    /// In bytes of the text.
    text: usize,
    /// In ids.
    ids: usize,
}

impl TokenHistory {
    /// The history of a new rendering: with the ids of this one where the text is the same.
    ///
    /// An answer whose end the template trims keeps its ids as far as the text is cut between two tokens. Answers are found
    /// again at another place, too, where a turn before them was dropped.
    ///
    /// # Errors
    /// [`Error::Text`] for a text that the vocabulary cannot express.
    pub(crate) fn render(
        &self,
        tokenizer: &Tokenizer,
        stretches: &[Stretch],
    ) -> Result<TokenHistory, Error> {
        let mut is_same = true;
        let mut spans = Vec::with_capacity(stretches.len());
        for (index, stretch) in stretches.iter().enumerate() {
            let here = self.spans.get(index).filter(|_| is_same);
            let mut known = here.and_then(|span| span.reuse(tokenizer, stretch));
            is_same = known.is_some();
            if known.is_none() {
                let answers = self.spans.iter().filter(|span| span.generated.is_some());
                known = answers
                    .rev()
                    .find_map(|span| span.reuse(tokenizer, stretch));
            }
            spans.push(match known {
                Some(span) => span,
                None => Span {
                    control: stretch.control,
                    text: stretch.text.clone(),
                    ids: stretch.encode(tokenizer)?,
                    generated: None,
                },
            });
        }
        Ok(TokenHistory { spans })
    }

    /// Adds tokens that the model wrote.
    ///
    /// # Errors
    /// [`Error::Text`] for an id beyond the vocabulary.
    pub(crate) fn append(&mut self, tokenizer: &Tokenizer, ids: &[TokenId]) -> Result<(), Error> {
        let is_control = |id| {
            matches!(
                tokenizer.kind(id),
                Some(TokenKind::Control | TokenKind::Unknown)
            )
        };
        let mut rest = ids;
        while !rest.is_empty() {
            let control = rest.first().copied().filter(|id| is_control(*id));
            let behind = &rest[usize::from(control.is_some())..];
            let length = behind.iter().position(|id| is_control(*id));
            let (text, next) = behind.split_at(length.unwrap_or(behind.len()));
            if control.is_some() || self.spans.is_empty() {
                self.spans.push(Span {
                    control,
                    text: String::new(),
                    ids: control.into_iter().collect(),
                    generated: None,
                });
            }
            if let Some(span) = self.spans.last_mut() {
                span.append(tokenizer, text)?;
            }
            rest = next;
        }
        Ok(())
    }

    /// All token ids, BOS by the model's rule.
    pub(crate) fn ids(&self, tokenizer: &Tokenizer) -> Vec<TokenId> {
        let mut ids: Vec<_> = self
            .spans
            .iter()
            .flat_map(|span| &span.ids)
            .copied()
            .collect();
        insert_bos(tokenizer, &mut ids);
        ids
    }

    /// The text at the end, control tokens with it: enough to see how the template opens the answer.
    pub(crate) fn end(&self, tokenizer: &Tokenizer) -> String {
        let last = &self.spans[self.spans.len().saturating_sub(SPANS_OF_OPENING)..];
        let mut end = String::new();
        for span in last {
            let control = span.control.and_then(|id| tokenizer.token_text(id));
            end.push_str(control.unwrap_or_default());
            end.push_str(&span.text);
        }
        end
    }

    /// Whether all of it is what a history of this tokenizer can be; a file may hold anything.
    pub(crate) fn is_sound(&self, tokenizer: &Tokenizer) -> bool {
        self.spans.iter().all(|span| {
            let known = |id: &TokenId| (*id as usize) < tokenizer.vocab_size();
            span.ids.iter().all(known)
                && span.generated.is_none_or(|generated| {
                    generated.ids <= span.ids.len() && span.text.is_char_boundary(generated.text)
                })
        })
    }
}

impl Span {
    fn append(&mut self, tokenizer: &Tokenizer, ids: &[TokenId]) -> Result<(), Error> {
        let generated = *self.generated.get_or_insert(Generated {
            text: self.text.len(),
            ids: self.ids.len(),
        });
        self.ids.extend_from_slice(ids);
        self.text.truncate(generated.text);
        let mut stream = tokenizer.stream_continuing();
        for id in &self.ids[generated.ids..] {
            self.text.push_str(&stream.push(*id)?);
        }
        self.text.push_str(&stream.finish());
        Ok(())
    }

    /// This span as the one of a stretch of a later rendering, where its tokens spell that.
    fn reuse(&self, tokenizer: &Tokenizer, stretch: &Stretch) -> Option<Span> {
        if self.control != stretch.control {
            return None;
        }
        if self.text == stretch.text {
            return Some(self.clone());
        }
        let generated = self.generated?;
        let (before, _) = self.text.split_at(generated.text);
        let answer = stretch.text.strip_prefix(before)?;
        let written = &self.ids[generated.ids..];
        let count = tokens_of(tokenizer, &[], written, answer)?;
        Some(Span {
            control: self.control,
            text: stretch.text.clone(),
            ids: self.ids[..generated.ids + count].to_vec(),
            generated: (count > 0).then_some(generated),
        })
    }
}

/// How many of the first tokens of an answer spell `text`, if any number does. The space that a SentencePiece-style tokenizer
/// puts before a text is none of the answer's, but templates may have it. `shown`: control tokens that are part of the text.
pub(super) fn tokens_of(
    tokenizer: &Tokenizer,
    shown: &[TokenId],
    written: &[TokenId],
    text: &str,
) -> Option<usize> {
    if text.is_empty() {
        return Some(0);
    }
    let mut streams = [tokenizer.stream_continuing(), tokenizer.stream()]
        .map(|stream| (stream.showing(shown), Some(String::new())));
    for (index, id) in written.iter().enumerate() {
        for (stream, spelled) in &mut streams {
            let Some(so_far) = spelled else { continue };
            so_far.push_str(&stream.push(*id).ok()?);
            let is_whole = !stream.is_holding_back();
            // A character that was cut at the answer's end stands in the text as U+FFFD.
            let last = match is_whole || index + 1 < written.len() {
                true => String::new(),
                false => stream.clone().finish(),
            };
            if format!("{so_far}{last}") == text && (is_whole || !last.is_empty()) {
                return Some(index + 1);
            }
            if !text.starts_with(so_far.as_str()) {
                *spelled = None;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::prompt::template_input;
    use crate::{Message, TemplateOptions, TokenizerFile};

    fn tiny() -> TokenizerFile {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny.gguf");
        TokenizerFile::open_path(&path).unwrap()
    }

    fn render(text: &TokenizerFile, known: &TokenHistory, messages: &[Message]) -> TokenHistory {
        let input = template_input(messages, &TemplateOptions::default());
        let stretches = text.split(&input).unwrap();
        known.render(text.tokenizer(), &stretches).unwrap()
    }

    /// "the" in three tokens, which the tokenizer would write as one.
    fn t_h_e(text: &TokenizerFile) -> Vec<TokenId> {
        ["t", "h", "e"]
            .map(|letter| text.tokenizer().token_id(letter).unwrap())
            .to_vec()
    }

    fn contains(ids: &[TokenId], part: &[TokenId]) -> bool {
        ids.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn a_fresh_history_has_the_ids_of_the_conversation() {
        let text = tiny();
        for content in ["Hello there", "a <|im_end|> b", "<think> x", ""] {
            let messages = [Message::system("Be brief."), Message::user(content)];
            let ids = render(&text, &TokenHistory::default(), &messages).ids(text.tokenizer());
            let whole = text.encode_chat(&messages, &TemplateOptions::default());
            assert_eq!(ids, whole.unwrap(), "{content:?}");
        }
    }

    #[test]
    fn the_models_tokens_stay_as_they_were_written() {
        let text = tiny();
        let mut messages = vec![Message::user("Say it")];
        let mut history = render(&text, &TokenHistory::default(), &messages);
        let asked = history.ids(text.tokenizer());
        history.append(text.tokenizer(), &t_h_e(&text)).unwrap();
        messages.extend([Message::assistant("the"), Message::user("Again <|im_end|>")]);
        let ids = render(&text, &history, &messages).ids(text.tokenizer());
        let known = [asked, t_h_e(&text)].concat();
        assert_eq!(ids[..known.len()], known);
        // Without the history the word would be one token.
        let fresh = render(&text, &TokenHistory::default(), &messages).ids(text.tokenizer());
        assert!(!contains(&fresh, &t_h_e(&text)));
        assert_eq!(
            text.tokenizer().decode(&ids, true),
            text.tokenizer().decode(&fresh, true)
        );
    }

    #[test]
    fn an_answer_that_the_template_trims_keeps_its_tokens() {
        let text = tiny();
        let space = text.tokenizer().encode(" \n", false).unwrap();
        let mut messages = vec![Message::user("Say it")];
        let mut history = render(&text, &TokenHistory::default(), &messages);
        let written = [t_h_e(&text), space].concat();
        history.append(text.tokenizer(), &written).unwrap();
        messages.extend([Message::assistant("the \n"), Message::user("Again")]);
        let ids = render(&text, &history, &messages).ids(text.tokenizer());
        assert!(contains(&ids, &t_h_e(&text)));
        assert_eq!(
            text.tokenizer().decode(&ids, true),
            text.render_chat(&messages, &TemplateOptions::default())
                .unwrap()
        );
    }

    #[test]
    fn a_changed_answer_is_encoded_and_one_behind_a_dropped_turn_is_kept() {
        let text = tiny();
        let mut messages = vec![Message::user("One")];
        let mut history = render(&text, &TokenHistory::default(), &messages);
        history.append(text.tokenizer(), &t_h_e(&text)).unwrap();
        messages.extend([Message::assistant("the"), Message::user("Two")]);
        history = render(&text, &history, &messages);
        let written = [t_h_e(&text), t_h_e(&text)].concat();
        history.append(text.tokenizer(), &written).unwrap();
        messages.extend([Message::assistant("thethe"), Message::user("Three")]);

        let kept = render(&text, &history, &messages[2..]).ids(text.tokenizer());
        assert!(contains(&kept, &written));
        messages[1].content = "there".to_owned();
        messages[3].content = "them".to_owned();
        let changed = render(&text, &history, &messages).ids(text.tokenizer());
        let fresh = text.encode_chat(&messages, &TemplateOptions::default());
        assert_eq!(changed, fresh.unwrap());
    }

    #[test]
    fn an_answer_taken_back_leaves_the_question() {
        let text = tiny();
        let messages = [Message::user("One")];
        let asked = render(&text, &TokenHistory::default(), &messages);
        let mut history = asked.clone();
        history.append(text.tokenizer(), &t_h_e(&text)).unwrap();
        let again = render(&text, &history, &messages);
        assert_eq!(again.ids(text.tokenizer()), asked.ids(text.tokenizer()));
    }

    #[test]
    fn a_character_in_pieces_and_a_control_token_stay_as_written() {
        let text = tiny();
        let e_acute = text.tokenizer().encode("é", false).unwrap();
        assert_eq!(e_acute.len(), 2);
        let control = text.tokenizer().token_id("<|im_start|>").unwrap();
        let mut messages = vec![Message::user("One")];
        let mut history = render(&text, &TokenHistory::default(), &messages);
        let written = [&t_h_e(&text)[..], &e_acute[..1]].concat();
        history.append(text.tokenizer(), &written).unwrap();
        messages.extend([Message::assistant("the\u{fffd}"), Message::user("Two")]);
        let ids = render(&text, &history, &messages).ids(text.tokenizer());
        assert!(contains(&ids, &written));
        // No message can say a control token: what the model wrote behind one cannot be kept.
        history.append(text.tokenizer(), &[control]).unwrap();
        assert!(history.ids(text.tokenizer()).ends_with(&[control]));
        assert!(history.is_sound(text.tokenizer()));
    }
}
