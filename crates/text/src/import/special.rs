//! The ids of special tokens and whether BOS, EOS and a separator are added: what
//! `tokenizer_config.json` names, with what the post-processor of `tokenizer.json` does.

use dunlin_format::{Metadata, Value};
use serde_json::Value as Json;

use super::{TokenizerFiles, tokenizer_json::TokenizerJson, vocabulary::content};
use crate::{TokenId, end_of_generation::ENDS};

/// Special tokens by their name in the configuration and their GGUF key. GGUF has no key for `cls`:
/// there it is `bos`.
const KEYS: [(&str, Option<&str>); 9] = [
    ("bos", Some("tokenizer.ggml.bos_token_id")),
    ("eos", Some("tokenizer.ggml.eos_token_id")),
    ("unk", Some("tokenizer.ggml.unknown_token_id")),
    // The key is spelt like this.
    ("sep", Some("tokenizer.ggml.seperator_token_id")),
    ("pad", Some("tokenizer.ggml.padding_token_id")),
    ("cls", None),
    ("mask", Some("tokenizer.ggml.mask_token_id")),
    ("eot", Some("tokenizer.ggml.eot_token_id")),
    ("eom", Some("tokenizer.ggml.eom_token_id")),
];

/// The keys of `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]`.
pub(super) const BERT_KEYS: [&str; 5] = [
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.mask_token_id",
];

/// Writes how many token types an encoder knows.
pub(super) fn write_type_count(files: &TokenizerFiles, metadata: &mut Metadata) {
    let count = files.setting("type_vocab_size").and_then(Json::as_u64);
    let count = count.and_then(|count| u32::try_from(count).ok());
    let key = "tokenizer.ggml.token_type_count";
    metadata.insert(key, Value::U32(count.unwrap_or(1)));
}

/// Writes the special tokens of a folder. `vocab_size` bounds the ids where the converter does.
pub(super) fn write(
    files: &TokenizerFiles,
    json: Option<&TokenizerJson>,
    vocab_size: Option<usize>,
    metadata: &mut Metadata,
) {
    let mut special = Special::of(files, json);
    special.find_ids(files, json);
    special.add_ends(files, json);
    for (index, (_, key)) in KEYS.into_iter().enumerate() {
        let id = special.ids[index];
        let exists = |id: &TokenId| vocab_size.is_none_or(|size| (*id as usize) < size);
        if let (Some(key), Some(id)) = (key, id.filter(exists)) {
            metadata.insert(key, Value::U32(id));
        }
    }
    for (key, add) in [
        ("tokenizer.ggml.add_bos_token", special.add_bos),
        ("tokenizer.ggml.add_eos_token", special.add_eos),
        ("tokenizer.ggml.add_sep_token", special.add_sep),
    ] {
        if let Some(add) = add {
            metadata.insert(key, Value::Bool(add));
        }
    }
    if let Some(json) = json {
        write_normalizer(&json.normalizer, metadata);
    }
}

#[derive(Default)]
struct Special {
    /// Texts in the order of [`KEYS`].
    texts: [Option<String>; 9],
    ids: [Option<TokenId>; 9],
    add_bos: Option<bool>,
    add_eos: Option<bool>,
    add_sep: Option<bool>,
}

const BOS: usize = 0;
const EOS: usize = 1;
const SEP: usize = 3;
const CLS: usize = 5;
const EOT: usize = 7;
const EOM: usize = 8;

impl Special {
    fn of(files: &TokenizerFiles, json: Option<&TokenizerJson>) -> Self {
        let mut special = Self::default();
        for (index, (name, _)) in KEYS.into_iter().enumerate().take(EOT) {
            let token = files.tokenizer_setting(&format!("{name}_token"));
            special.texts[index] = token.and_then(content);
        }
        if let Some(json) = json {
            special.default_to(BOS, CLS);
            special.default_to(EOS, SEP);
            special.read_post_processor(&json.post_processor);
        }
        for (name, add) in [
            ("add_bos_token", &mut special.add_bos),
            ("add_eos_token", &mut special.add_eos),
            ("add_sep_token", &mut special.add_sep),
        ] {
            // What the post-processor does counts more than what the configuration says.
            *add = add.or_else(|| files.tokenizer_setting(name)?.as_bool());
        }
        special
    }

    fn default_to(&mut self, index: usize, other: usize) {
        if self.texts[index].is_none() {
            self.texts[index] = self.texts[other].clone();
        }
    }

    fn read_post_processor(&mut self, processor: &Json) {
        match processor.get("type").and_then(Json::as_str) {
            Some("Sequence") => {
                let processors = processor.get("processors").and_then(Json::as_array);
                for processor in processors.into_iter().flatten() {
                    self.read_post_processor(processor);
                }
            }
            Some("ByteLevel") => {
                self.add_bos.get_or_insert(false);
                self.add_eos.get_or_insert(false);
            }
            Some("RobertaProcessing" | "BertProcessing") => {
                (self.add_bos, self.add_eos) = (Some(true), Some(true));
                self.add_sep = Some(processor["type"] == "RobertaProcessing");
                for (index, name) in [(CLS, "cls"), (SEP, "sep")] {
                    if self.texts[index].is_none() {
                        let token = processor.get(name).and_then(|pair| pair.get(0)?.as_str());
                        self.texts[index] = token.map(str::to_owned);
                    }
                }
            }
            Some("TemplateProcessing") => self.read_template(processor),
            _ => {}
        }
    }

    /// A template is a list of sequences (`A`, `B`) and special tokens.
    fn read_template(&mut self, processor: &Json) {
        let list = |name| processor.get(name).and_then(Json::as_array);
        let single: &[Json] = list("single").map_or(&[], Vec::as_slice);
        let (mut first, mut last) = (None, None);
        if let [start, .., end] = single {
            (first, last) = (special_token(start), special_token(end));
        }
        if let Some(first) = first {
            for index in [BOS, CLS] {
                let known = [BOS, CLS].iter().any(|&i| self.is(i, first));
                if !known && self.texts[index].is_none() {
                    self.texts[index] = Some(first.to_owned());
                }
            }
            self.add_bos = Some(self.is(BOS, first) || self.is(CLS, first));
        }
        if let Some(last) = last {
            if !self.is(EOS, last) {
                let other = if self.texts[EOT].is_none() { EOT } else { EOM };
                self.texts[other] = self.texts[EOS].replace(last.to_owned());
            }
            self.add_eos = Some(true);
        }
        let pair: &[Json] = list("pair").map_or(&[], Vec::as_slice);
        self.read_pair(pair, first, last);
    }

    /// Whether something stands between the sequences that the end of a single one does not bring.
    fn read_pair(&mut self, pair: &[Json], first: Option<&str>, last: Option<&str>) {
        let same = |entry: Option<&Json>, text: Option<&str>| {
            text.is_some() && entry.and_then(special_token) == text
        };
        let pair = match pair {
            [_, rest @ ..] if same(pair.first(), first) => rest,
            _ => pair,
        };
        let pair = match pair {
            [rest @ .., _] if same(pair.last(), last) => rest,
            _ => pair,
        };
        let [a, between @ .., b] = pair else {
            return;
        };
        let is_sequence = |entry: &Json, id| entry["Sequence"]["id"] == id;
        if !is_sequence(a, "A") || !is_sequence(b, "B") || between.is_empty() {
            return;
        }
        let separates = |entry: &Json| {
            special_token(entry).is_some_and(|token| self.is(SEP, token) || self.is(EOS, token))
        };
        let add_sep = match between {
            [entry] => separates(entry) && last.is_none(),
            [entry, second] => separates(second) || (separates(entry) && last.is_none()),
            _ => separates(&between[0]) && last.is_none(),
        };
        self.add_sep = Some(add_sep);
        if add_sep && self.texts[SEP].is_none() {
            self.texts[SEP] = self.texts[EOS].clone();
        }
    }

    fn is(&self, index: usize, text: &str) -> bool {
        self.texts[index].as_deref() == Some(text)
    }

    /// Puts further ends of generation where GGUF has room for them.
    fn add_ends(&mut self, files: &TokenizerFiles, json: Option<&TokenizerJson>) {
        let Some(json) = json else {
            return;
        };
        for id in further_ends(files, json) {
            let free = [EOT, EOM]
                .into_iter()
                .find(|&index| self.ids[index].is_none());
            if let Some(index) = free.filter(|_| !self.ids.contains(&Some(id))) {
                self.ids[index] = Some(id);
            }
        }
    }

    /// The id of each text among the added tokens, else what `config.json` says.
    fn find_ids(&mut self, files: &TokenizerFiles, json: Option<&TokenizerJson>) {
        for (index, (name, _)) in KEYS.into_iter().enumerate() {
            let of_text = |text: &String| {
                let mut added = json?.added_tokens.iter();
                Some(added.find(|token| token.content == *text)?.id)
            };
            let configured = || {
                let id = files.setting(&format!("{name}_token_id"))?.as_u64()?;
                TokenId::try_from(id).ok()
            };
            self.ids[index] = self.texts[index]
                .as_ref()
                .and_then(of_text)
                .or_else(configured);
        }
    }
}

/// The further ends of generation in `generation_config.json`, but for those that every reader knows
/// by their text.
fn further_ends<'a>(
    files: &'a TokenizerFiles,
    json: &'a TokenizerJson,
) -> impl Iterator<Item = TokenId> + 'a {
    let config = files.generation_config.as_ref();
    let ends = config.and_then(|config| config.get("eos_token_id")?.as_array());
    let ids = ends.into_iter().flatten().filter_map(Json::as_u64);
    let is_new = |id: &TokenId| {
        let token = json.added_tokens.iter().find(|token| token.id == *id);
        token.is_some_and(|token| !ENDS.contains(&token.content.as_str()))
    };
    ids.filter_map(|id| TokenId::try_from(id).ok())
        .filter(is_new)
}

fn special_token(entry: &Json) -> Option<&str> {
    entry.get("SpecialToken")?.get("id")?.as_str()
}

/// What is done to text before it is cut: lower case, accents.
fn write_normalizer(normalizer: &Json, metadata: &mut Metadata) {
    let mut set = |name: &str, value: Option<bool>| {
        if let Some(value) = value {
            metadata.insert(
                format!("tokenizer.ggml.normalizer.{name}"),
                Value::Bool(value),
            );
        }
    };
    match normalizer.get("type").and_then(Json::as_str) {
        Some("Lowercase") => set("lowercase", Some(true)),
        Some("StripAccents") => set("strip_accents", Some(true)),
        Some("BertNormalizer") => {
            for name in ["lowercase", "strip_accents"] {
                set(name, normalizer.get(name).and_then(Json::as_bool));
            }
        }
        Some("Sequence") => {
            let normalizers = normalizer.get("normalizers").and_then(Json::as_array);
            for normalizer in normalizers.into_iter().flatten() {
                write_normalizer(normalizer, metadata);
            }
        }
        _ => {}
    }
}
