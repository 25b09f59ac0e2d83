//! The tokens after which a model has said what it wanted to say.

use dunlin_format::Metadata;

use crate::{
    TextError, TokenId,
    vocabulary::{TokenKind, Vocabulary},
};

/// Ends of turns that no ordinary text looks like: control tokens whatever the file says.
pub(crate) const UNMISTAKABLE: [&str; 13] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<start_of_turn>",
    "<|im_start|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
];

/// Texts that end a turn where they are control tokens; elsewhere some are ordinary (`</s>` closes
/// struck-out HTML in Gemma's vocabulary).
pub(crate) const ENDS: [&str; 25] = [
    "<|im_end|>",            // ChatML: Qwen, SmolLM, LFM
    "<|eot_id|>",            // Llama 3
    "<|eom_id|>",            // Llama 3: end of a message, a tool answers next
    "<|end|>",               // Phi 3
    "<|end_of_text|>",       // Llama 3, Granite
    "<|endoftext|>",         // GPT-2, Qwen, Phi
    "<|return|>",            // gpt-oss
    "<|call|>",              // gpt-oss
    "<|flush|>",             // Solar
    "<|calls|>",             // Solar
    "<end_of_turn>",         // Gemma 1 to 3
    "<turn|>",               // Gemma 4
    "<|tool_response>",      // Gemma 4: a tool answers next
    "<eos>",                 // Gemma
    "</s>",                  // Llama 2, Mistral
    "<EOT>",                 // several
    "_<EOT>",                // Orion
    "[EOT]",                 // Kimi
    "[EOS]",                 // Kimi
    "<end_of_utterance>",    // SmolVLM
    "<｜end▁of▁sentence｜>", // DeepSeek
    "[e~[",                  // MiniMax
    "<|fim_pad|>",           // Qwen coder: the filled-in middle is complete
    "<|repo_name|>",         // Qwen coder: the next repository begins
    "<|file_sep|>",          // Qwen coder: the next file begins
];

/// The end-of-generation set of a model, ascending: what its metadata name as end of sequence, of
/// turn and of message, and the known end texts among its control tokens.
pub(crate) fn ids(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    eos: Option<TokenId>,
) -> Result<Vec<TokenId>, TextError> {
    let mut ids: Vec<TokenId> = eos.into_iter().collect();
    for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        ids.extend(vocabulary.id_at(metadata, key)?);
    }
    let control = |text: &str| {
        let id = vocabulary.id(text)?;
        (vocabulary.kind(id) == Some(TokenKind::Control)).then_some(id)
    };
    ids.extend(ENDS.into_iter().filter_map(control));
    // In the harmony format `<|end|>` closes one of several messages of a turn; `<|return|>` and
    // `<|call|>` end it.
    let calls = control("<|call|>").or(control("<|calls|>"));
    if calls.is_some() && control("<|return|>").or(control("<|flush|>")).is_some() {
        let message_end = control("<|end|>");
        ids.retain(|&id| Some(id) != message_end || Some(id) == eos);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
