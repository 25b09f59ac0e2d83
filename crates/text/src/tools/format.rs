//! Which notation a family writes its calls in.

use super::{ToolParser, parse};
use crate::{TokenId, TokenKind, Tokenizer, tools::Tool};

/// The notation in which a family of models writes tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ToolFormat {
    /// `<tool_call>\n{"name": .., "arguments": {..}}\n</tool_call>`, once for each call: Hermes,
    /// Qwen 2.5 and 3, Granite 4.
    Hermes,
    /// `<tool_call>\n<function=name>\n<parameter=key>\nvalue\n</parameter>\n</function>\n</tool_call>`:
    /// Qwen 3.5 and Qwen 3 Coder. Text stands as it is, other values as JSON.
    QwenXml,
    /// `{"name": .., "parameters": {..}}` as the whole answer, or after `<|python_tag|>`: Llama 3.1
    /// and 3.2. One call an answer.
    Llama3,
    /// `[TOOL_CALLS][{"name": .., "arguments": {..}, "id": ..}]`: Mistral up to Nemo.
    MistralList,
    /// `[TOOL_CALLS]name[CALL_ID]id[ARGS]{..}`, once for each call: Mistral Small 3.2.
    MistralCallId,
    /// `[TOOL_CALLS]name[ARGS]{..}`, once for each call: Ministral 3 and later.
    MistralArguments,
    /// `<|tool_call|>[{"name": .., "arguments": {..}}]<|/tool_call|>`: Phi-4 Mini.
    Phi4Mini,
    /// `<|tool_call>call:name{key:value}<tool_call|>`, once for each call: Gemma 4. Text stands
    /// between two `<|"|>`, keys without quotes.
    Gemma4,
    /// `<|tool_call_start|>[name(key="value"), ..]<|tool_call_end|>`, Python's syntax: LFM 2.
    Lfm2,
    /// `<|tool_call|>[{"name": .., "arguments": {..}}]` to the end of the answer: Granite 3.
    Granite3,
}

impl ToolFormat {
    /// All formats.
    pub const ALL: [Self; 10] = [
        Self::Hermes,
        Self::QwenXml,
        Self::Llama3,
        Self::MistralList,
        Self::MistralCallId,
        Self::MistralArguments,
        Self::Phi4Mini,
        Self::Gemma4,
        Self::Lfm2,
        Self::Granite3,
    ];

    /// The format that a chat template belongs to, `None` where it offers no tools or in a notation
    /// that is not known here. `has_token` says whether the vocabulary has a token of this text:
    /// the templates of LFM 2 and Phi-4 Mini do not show the calls themselves.
    #[must_use]
    pub fn detect(template_source: &str, has_token: impl Fn(&str) -> bool) -> Option<Self> {
        let has = |text: &str| template_source.contains(text);
        if !has("tools") {
            return None;
        }
        if has("<|tool_call>call:") {
            return Some(Self::Gemma4);
        }
        if has("<function=") && has("<parameter=") {
            return Some(Self::QwenXml);
        }
        // GLM writes `<tool_call>name` and keys as tags.
        if has("<tool_call>") && !has("<arg_key>") {
            return Some(Self::Hermes);
        }
        if has("[TOOL_CALLS]") {
            return Some(match (has("[CALL_ID]"), has("[ARGS]")) {
                (true, _) => Self::MistralCallId,
                (false, true) => Self::MistralArguments,
                (false, false) => Self::MistralList,
            });
        }
        if has("<|tool|>") && has("<|/tool|>") {
            return Some(Self::Phi4Mini);
        }
        if has("<|tool_call|>") && has("<|start_of_role|>") {
            return Some(Self::Granite3);
        }
        if has("<|start_header_id|>") && has("\"parameters\": ") {
            return Some(Self::Llama3);
        }
        if has("List of tools: ") && has_token(LFM2_OPEN) {
            return Some(Self::Lfm2);
        }
        None
    }

    /// The texts that are single tokens in vocabularies of this family, and that a parser must see.
    /// Where such a token is a control token, a decoder leaves it out of the text unless it is told
    /// to show it ([`crate::DecodeStream::showing`]).
    #[must_use]
    pub fn marker_tokens(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::QwenXml => &["<tool_call>", "</tool_call>"],
            Self::Llama3 => &[PYTHON_TAG],
            Self::MistralList => &[MISTRAL_CALLS],
            Self::MistralCallId => &[MISTRAL_CALLS, MISTRAL_ID, MISTRAL_ARGUMENTS],
            Self::MistralArguments => &[MISTRAL_CALLS, MISTRAL_ARGUMENTS],
            Self::Phi4Mini => &["<|tool_call|>", "<|/tool_call|>"],
            Self::Gemma4 => &["<|tool_call>", "<tool_call|>", GEMMA_QUOTE],
            Self::Lfm2 => &[LFM2_OPEN, LFM2_CLOSE],
            Self::Granite3 => &["<|tool_call|>"],
        }
    }

    /// The markers of this format that are control tokens of a vocabulary, with their ids: those
    /// that a decoder has to be told to show, and that a grammar has to ask for as tokens.
    #[must_use]
    pub fn control_markers(self, tokenizer: &Tokenizer) -> Vec<(&'static str, TokenId)> {
        control_tokens(self.marker_tokens(), tokenizer)
    }

    /// A parser of one answer. The tools tell which arguments are text where the notation does not
    /// (Qwen's XML), and which names make a call where no marker does (Llama 3).
    #[must_use]
    pub fn parser(self, tools: &[Tool]) -> ToolParser {
        parse::ToolParser::new(self, tools)
    }

    /// What stands before a call, or before a list of calls. A call of Llama 3 begins with nothing.
    pub(super) fn trigger(self) -> &'static str {
        match self {
            Self::Hermes | Self::QwenXml => "<tool_call>",
            Self::Llama3 => PYTHON_TAG,
            Self::MistralList | Self::MistralCallId | Self::MistralArguments => MISTRAL_CALLS,
            Self::Phi4Mini | Self::Granite3 => "<|tool_call|>",
            Self::Gemma4 => "<|tool_call>",
            Self::Lfm2 => LFM2_OPEN,
        }
    }

    /// What stands after it, empty where nothing does.
    pub(super) fn close(self) -> &'static str {
        match self {
            Self::Hermes | Self::QwenXml => "</tool_call>",
            Self::Phi4Mini => "<|/tool_call|>",
            Self::Gemma4 => "<tool_call|>",
            Self::Lfm2 => LFM2_CLOSE,
            Self::Llama3
            | Self::MistralList
            | Self::MistralCallId
            | Self::MistralArguments
            | Self::Granite3 => "",
        }
    }
}

pub(super) const PYTHON_TAG: &str = "<|python_tag|>";
pub(super) const MISTRAL_CALLS: &str = "[TOOL_CALLS]";
pub(super) const MISTRAL_ID: &str = "[CALL_ID]";
pub(super) const MISTRAL_ARGUMENTS: &str = "[ARGS]";
pub(super) const GEMMA_QUOTE: &str = "<|\"|>";
const LFM2_OPEN: &str = "<|tool_call_start|>";
const LFM2_CLOSE: &str = "<|tool_call_end|>";

/// Those of `markers` that are control tokens of a vocabulary.
pub(crate) fn control_tokens(
    markers: &'static [&'static str],
    tokenizer: &Tokenizer,
) -> Vec<(&'static str, TokenId)> {
    let control = |marker: &&'static str| {
        let id = tokenizer.token_id(marker)?;
        (tokenizer.kind(id) == Some(TokenKind::Control)).then_some((*marker, id))
    };
    markers.iter().filter_map(control).collect()
}
