//! A table from the names in `tokenizer.ggml.pre` to the regular expressions of the models'
//! `tokenizer.json`.
//!
//! Several names stand for one way to split text, since a name is given to a vocabulary and not to
//! a rule. Names whose rule needs more than a regular expression without look-ahead (digits grouped
//! from the right, white space in powers of two) are missing.

use crate::TextError;

/// The rules of one family of byte-level tokenizers.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    /// The names under which files know it; the first is the usual one.
    pub(crate) names: &'static [&'static str],
    /// Applied one after the other, each to the pieces of the one before: a match is a piece, and
    /// so is what stands between two matches.
    pub(crate) splits: &'static [Split],
    /// Whether text is composed first (Unicode NFC).
    pub(crate) nfc: bool,
    /// Whether a word that is a token is that token, whatever merging would lead to.
    pub(crate) ignore_merges: bool,
    /// Whether BOS is added where the file does not say.
    pub(crate) add_bos: bool,
    /// Whether the family's detokenizer removes spaces before punctuation.
    pub(crate) clean_up_spaces: bool,
}

/// One cut: a regular expression without look-ahead, so that it runs in linear time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) pattern: &'static str,
    /// How the original's `\s+(?!\S)|\s+` at the end is done here.
    pub(crate) last_space: LastSpace,
}

/// White space before a word belongs to the word in its last character: of a run matched by `\s+`
/// (the last alternative) all but one character are a piece, unless the text ends there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastSpace {
    /// The expression has no such alternative.
    Stays,
    /// It has, and it is the only one that matches white space alone.
    GoesOn,
    /// It has, but what ends in a line break was matched by `\s*[\r\n]+`.
    GoesOnInLine,
}

const fn plain(pattern: &'static str) -> Split {
    Split {
        pattern,
        last_space: LastSpace::Stays,
    }
}

const fn in_line(pattern: &'static str) -> Split {
    Split {
        pattern,
        last_space: LastSpace::GoesOnInLine,
    }
}

/// The split of GPT-2, which `ByteLevel` in `tokenizer.json` stands for.
pub(crate) const GPT2: Split = Split {
    pattern: r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+",
    last_space: LastSpace::GoesOn,
};
pub(crate) const DIGIT: Split = plain(r"\p{N}");
pub(crate) const DIGITS: Split = plain(r"\p{N}+");
/// What `Punctuation` in `tokenizer.json` finds: Unicode's and all of ASCII's.
pub(crate) const PUNCTUATION: Split = plain(r"[\p{P}\$\+<=>\^`~\|]+");
const THREE_DIGITS: Split = plain(r"\p{N}{1,3}");
const LINE_BREAK: Split = plain(r"[\r\n]");

const QWEN2: Split = in_line(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const QWEN35: Split = in_line(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const LLAMA3: Split = in_line(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const MINICPM5: Split = in_line(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const GPT4O: Split = in_line(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const TEKKEN: Split = in_line(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const YOUTU: Split = in_line(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const BAILING: Split = in_line(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+",
);
const SEED_CODER: Split = in_line(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+",
);
const UFAKZEKA: Split =
    in_line(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+");
const EXAONE_MOE: Split = in_line(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+",
);
const CJK: Split = plain(r"[一-龥぀-ゟ゠-ヿ]+");
const DEEPSEEK_V3: Split = in_line(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"##,
);
const DEEPSEEK_LETTERS: Split = plain(
    r"\s?[A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}]+",
);
const BLOOM: Split = plain(r" ?[^(\s|.,!?…。，、।۔،)]+");

/// The rules that most families have; they differ from it in what they name.
const PLAIN: Family = Family {
    names: &[],
    splits: &[],
    nfc: false,
    ignore_merges: false,
    add_bos: false,
    clean_up_spaces: false,
};
/// As [`PLAIN`], for families whose detokenizer removes spaces.
const CLEAN: Family = Family {
    clean_up_spaces: true,
    ..PLAIN
};

const FAMILIES: &[Family] = &[
    Family {
        names: &["smollm"],
        splits: &[DIGIT, GPT2],
        ..PLAIN
    },
    Family {
        names: &["qwen2", "f2llmv2"],
        splits: &[QWEN2],
        nfc: true,
        ..PLAIN
    },
    Family {
        names: &["qwen35"],
        splits: &[QWEN35],
        nfc: true,
        ..PLAIN
    },
    Family {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "lfm2",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "jina-v5-nano",
        ],
        splits: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..CLEAN
    },
    Family {
        names: &["gpt-4o", "llama4", "kanana2", "minimax-m2", "talkie"],
        splits: &[GPT4O],
        ..PLAIN
    },
    Family {
        names: &["granite-embed-multi-97m"],
        splits: &[GPT4O],
        ignore_merges: true,
        ..PLAIN
    },
    Family {
        names: &["tekken"],
        splits: &[TEKKEN],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Family {
        names: &[
            "gpt-2",
            "phi-2",
            "jais",
            "mellum",
            "gigachat",
            "exaone4",
            "a.x-4.0",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
        ],
        splits: &[GPT2],
        ..CLEAN
    },
    Family {
        names: &["modern-bert", "mpt", "olmo"],
        splits: &[GPT2],
        nfc: true,
        ..CLEAN
    },
    Family {
        names: &["trillion", "granite-docling"],
        splits: &[GPT2],
        ..PLAIN
    },
    Family {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        splits: &[LLAMA3],
        ..CLEAN
    },
    Family {
        names: &["glm4", "glm5"],
        splits: &[LLAMA3],
        ignore_merges: true,
        ..CLEAN
    },
    Family {
        names: &[
            "starcoder",
            "refact",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        splits: &[DIGIT, GPT2],
        ..CLEAN
    },
    Family {
        names: &["command-r"],
        splits: &[DIGIT, GPT2],
        nfc: true,
        ..PLAIN
    },
    Family {
        names: &[
            "deepseek-r1-qwen",
            "kormo",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        splits: &[QWEN2],
        ..PLAIN
    },
    Family {
        names: &["stablelm2", "megrez"],
        splits: &[QWEN2],
        nfc: true,
        ..CLEAN
    },
    Family {
        names: &["deepseek-llm"],
        splits: &[
            LINE_BREAK,
            DEEPSEEK_LETTERS,
            plain(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            plain(r"\s+$"),
            plain(r"[一-龥ࠀ-一가-퟿]+"),
            DIGITS,
        ],
        ..PLAIN
    },
    Family {
        names: &["deepseek-coder"],
        splits: &[
            LINE_BREAK,
            plain(r"\s?\p{L}+"),
            plain(r"\s?\p{P}+"),
            plain(r"[一-龥ࠀ-一가-퟿]+"),
            DIGIT,
        ],
        ..PLAIN
    },
    Family {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        splits: &[THREE_DIGITS, CJK, DEEPSEEK_V3],
        ..PLAIN
    },
    // Hugging Face looks for digits when bytes are written as characters already, some of which
    // (`²` for one) count as digits; here, as in llama.cpp, the digits are those of the text.
    Family {
        names: &["falcon"],
        splits: &[PUNCTUATION, GPT2, DIGITS, plain(r"[0-9][0-9][0-9]")],
        ..CLEAN
    },
    Family {
        names: &["minicpm5"],
        splits: &[THREE_DIGITS, MINICPM5],
        ignore_merges: true,
        ..CLEAN
    },
    Family {
        names: &["youtu"],
        splits: &[
            plain(r"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"),
            YOUTU,
        ],
        ignore_merges: true,
        ..PLAIN
    },
    Family {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        splits: &[BAILING],
        ..PLAIN
    },
    Family {
        names: &["seed-coder"],
        splits: &[SEED_CODER],
        ..PLAIN
    },
    Family {
        names: &["ufakzeka"],
        splits: &[UFAKZEKA],
        ..PLAIN
    },
    Family {
        names: &["laguna"],
        splits: &[plain(r"[^\n]+|[\n]+"), QWEN2],
        ..PLAIN
    },
    Family {
        names: &["exaone-moe"],
        splits: &[EXAONE_MOE],
        ..PLAIN
    },
    Family {
        names: &["poro-chat"],
        splits: &[BLOOM],
        ..PLAIN
    },
    Family {
        names: &["bloom", "gpt3-finnish"],
        splits: &[BLOOM],
        ..CLEAN
    },
    Family {
        names: &["viking"],
        splits: &[BLOOM, DIGIT],
        ..PLAIN
    },
    // What converters wrote for tokenizers without a name of their own, split as llama.cpp splits
    // them: there is no other definition.
    Family {
        names: &["default"],
        splits: &[
            plain(r"[\p{P}\$\+<=>\^~\|]+"),
            GPT2,
            DIGITS,
            plain(r"[0-9][0-9][0-9]"),
        ],
        ..CLEAN
    },
];

/// Every family, the likelier of two with the same splits first.
pub(crate) fn all() -> &'static [Family] {
    FAMILIES
}

/// The names that [`find`] knows, for error messages.
pub(crate) fn supported() -> String {
    let names = FAMILIES.iter().flat_map(|family| family.names);
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

pub(crate) fn find(name: &str) -> Result<&'static Family, TextError> {
    FAMILIES
        .iter()
        .find(|family| family.names.contains(&name))
        .ok_or_else(|| TextError::UnsupportedPreTokenizer {
            name: name.to_owned(),
        })
}
