//! The tokens with which a family fills in the middle of a text, and where it wants them.

use dunlin_format::Metadata;
use dunlin_text::{TokenId, Tokenizer};

use crate::Error;

/// Which side of the gap a model reads first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InfillOrder {
    /// Prefix, suffix, middle ("PSM"): Qwen, StarCoder, DeepSeek, Code Llama, CodeGemma, Granite.
    PrefixFirst,
    /// Suffix, prefix, middle ("SPM"): Seed-Coder, Mellum.
    SuffixFirst,
}

/// How other files of a repository are written before the one to complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileLayout {
    /// A token, the path, a line end and the text of each file; of the last one, the gap instead of the text.
    Headers,
    /// The same, but the last path stands behind the prefix token (StarCoder 2).
    PathInPrefix,
}

/// Tokens of a family by their texts.
struct Form {
    prefix: &'static str,
    suffix: &'static str,
    middle: &'static str,
    order: InfillOrder,
    /// Token before the repository's name, token before each file, and how they are used.
    files: Option<(&'static str, &'static str, FileLayout)>,
    /// Tokens behind a finished middle, beside those that end any generation.
    ends: &'static [&'static str],
}

const FORMS: [Form; 8] = [
    // Qwen 2.5 Coder (technical report, section 3.2), Granite 4. CodeGemma has a token between files, but its card shows no
    // layout for paths.
    Form {
        files: Some(("<|repo_name|>", "<|file_sep|>", FileLayout::Headers)),
        ends: &["<|fim_pad|>", "<|file_separator|>"],
        ..Form::of("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
    },
    // StarCoder 2 (arXiv 2402.19173, section 5.4); StarCoder and Granite Code have no `<file_sep>`.
    Form {
        files: Some(("<repo_name>", "<file_sep>", FileLayout::PathInPrefix)),
        ends: &["<fim_pad>", "<filename>", "<reponame>"],
        ..Form::of("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
    },
    // SantaCoder.
    Form {
        ends: &["<fim-pad>"],
        ..Form::of("<fim-prefix>", "<fim-suffix>", "<fim-middle>")
    },
    // DeepSeek Coder: its third token is called the end.
    Form::of("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    Form::of("<|fim▁begin|>", "<|fim▁hole|>", "<|fim▁end|>"),
    // Code Llama (arXiv 2308.12950, section 2.3).
    Form {
        ends: &["▁<EOT>"],
        ..Form::of("▁<PRE>", "▁<SUF>", "▁<MID>")
    },
    // CodeGeeX 4.
    Form::of("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    // Seed-Coder.
    Form {
        order: InfillOrder::SuffixFirst,
        ..Form::of("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>")
    },
];

/// Mellum has StarCoder's tokens, and was trained in the other order and with one token before each file.
const MELLUM: Form = Form {
    order: InfillOrder::SuffixFirst,
    files: Some(("", "<filename>", FileLayout::Headers)),
    ends: &["<fim_pad>", "<reponame>"],
    ..Form::of("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
};

impl Form {
    const fn of(prefix: &'static str, suffix: &'static str, middle: &'static str) -> Self {
        Form {
            prefix,
            suffix,
            middle,
            order: InfillOrder::PrefixFirst,
            files: None,
            ends: &[],
        }
    }

    /// The form of a model: by its token before the middle, or what its name says.
    fn find(
        metadata: &Metadata,
        has: impl Fn(&str) -> bool,
    ) -> Result<Option<&'static Self>, Error> {
        for key in ["general.basename", "general.name"] {
            let name = metadata.str(key)?.unwrap_or_default();
            if name.to_ascii_lowercase().contains("mellum") && has(MELLUM.middle) {
                return Ok(Some(&MELLUM));
            }
        }
        Ok(FORMS.iter().find(|form| has(form.middle)))
    }
}

/// Metadata keys of the tokens, the present name first.
const PREFIX_KEYS: [&str; 2] = [
    "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.prefix_token_id",
];
const SUFFIX_KEYS: [&str; 2] = [
    "tokenizer.ggml.fim_suf_token_id",
    "tokenizer.ggml.suffix_token_id",
];
const MIDDLE_KEYS: [&str; 2] = [
    "tokenizer.ggml.fim_mid_token_id",
    "tokenizer.ggml.middle_token_id",
];
const REPOSITORY_KEY: &str = "tokenizer.ggml.fim_rep_token_id";
const FILE_KEY: &str = "tokenizer.ggml.fim_sep_token_id";
const PAD_KEY: &str = "tokenizer.ggml.fim_pad_token_id";

/// Whether the metadata name the token before the middle.
pub(crate) fn names_infill_token(metadata: &Metadata) -> bool {
    MIDDLE_KEYS.iter().any(|key| metadata.contains(key))
}

/// Whether the vocabulary has tokens for filling in the middle of a text.
pub(crate) fn can_infill(metadata: &Metadata) -> Result<bool, Error> {
    if names_infill_token(metadata) {
        return Ok(true);
    }
    let tokens = metadata.strings("tokenizer.ggml.tokens")?;
    let is_middle = |token| FORMS.iter().any(|form| form.middle == token);
    Ok(tokens.is_some_and(|tokens| tokens.iter().any(is_middle)))
}

/// The tokens of a model that can fill in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InfillTokens {
    pub prefix: TokenId,
    pub suffix: TokenId,
    pub middle: TokenId,
    pub order: InfillOrder,
    /// Before the repository's name.
    pub repository: Option<TokenId>,
    /// Before each file, where the family has a way to write several.
    pub file: Option<(TokenId, FileLayout)>,
    /// After one of these the middle is complete, ascending.
    pub ends: Vec<TokenId>,
    /// Whether the tokenizer puts a space before a text, which the suffix must not get (Code Llama).
    pub suffix_goes_on: bool,
}

impl InfillTokens {
    /// As the metadata name them, else by the names that code models give them; `None` for a family without.
    pub(super) fn find(metadata: &Metadata, tokenizer: &Tokenizer) -> Result<Option<Self>, Error> {
        let named = |keys: &[&str]| -> Result<Option<TokenId>, Error> {
            for key in keys {
                // An id beyond the vocabulary counts as absent, as for all other tokens.
                let id = metadata.u32(key)?;
                if let Some(id) = id.filter(|id| tokenizer.kind(*id).is_some()) {
                    return Ok(Some(id));
                }
            }
            Ok(None)
        };
        let form = Form::find(metadata, |text| tokenizer.token_id(text).is_some())?;
        let by_name =
            |text: fn(&Form) -> &'static str| form.and_then(|form| tokenizer.token_id(text(form)));
        let main = (
            named(&PREFIX_KEYS)?.or_else(|| by_name(|form| form.prefix)),
            named(&SUFFIX_KEYS)?.or_else(|| by_name(|form| form.suffix)),
            named(&MIDDLE_KEYS)?.or_else(|| by_name(|form| form.middle)),
        );
        let (Some(prefix), Some(suffix), Some(middle)) = main else {
            return Ok(None);
        };
        let files = form.and_then(|form| form.files);
        let file = match files {
            Some((_, file, layout)) => named(&[FILE_KEY])?
                .or_else(|| tokenizer.token_id(file))
                .map(|file| (file, layout)),
            None => None,
        };
        let repository = match files {
            Some((repository, _, _)) => {
                named(&[REPOSITORY_KEY])?.or_else(|| tokenizer.token_id(repository))
            }
            None => None,
        };
        let known_ends = form.into_iter().flat_map(|form| form.ends);
        let mut ends: Vec<TokenId> = known_ends
            .filter_map(|text| tokenizer.token_id(text))
            .chain([prefix, suffix, middle])
            .chain(named(&[PAD_KEY])?)
            .chain(repository)
            .chain(file.map(|(file, _)| file))
            .collect();
        ends.sort_unstable();
        ends.dedup();
        Ok(Some(InfillTokens {
            prefix,
            suffix,
            middle,
            order: form.map_or(InfillOrder::PrefixFirst, |form| form.order),
            repository: repository.filter(|_| file.is_some()),
            file,
            ends,
            suffix_goes_on: form.is_some_and(|form| form.middle == "▁<MID>"),
        }))
    }
}
