"""Writes the tokenizer files of small folders, and what the reference implementations make of them.

    pip install tokenizers==0.23.* sentencepiece==0.2.* protobuf && python make_folders.py

`folders.json` holds, for each folder, its files (a model file in hexadecimal), the GGUF architecture,
cases of text and ids without special tokens, and pairs of texts with all special tokens.
`splits.json` holds the pre-tokenizers of known families as their `tokenizer.json` writes them, and the
words into which Hugging Face's tokenizers cut some texts.
"""

import io
import json
import pathlib
import tempfile

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

from texts import TEXTS, TRAINING

HERE = pathlib.Path(__file__).parent
PAIRS = [("The quick fox", "jumps over it."), ("", "lazy dog"), ("Größe?", "日本語 and ＡＢＣ")]
MORE = ["ﬁne ＡＢＣ １２３", "x" * 101, "x" * 100, "don't—stop", "e\u0301 E\u0301 \u00ad soft\u200bzero", "  spaces   inside  "]


def plain(tokenizer):
    """The tokenizer without special tokens in text: user text must not lead to them."""
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["special"]]
    data["post_processor"] = None
    return Tokenizer.from_str(json.dumps(data))


def cases(encode):
    return [{"text": text, "ids": encode(text)} for text in TEXTS + MORE]


def word_piece(lowercase):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, show_progress=False, special_tokens=special)
    tokenizer.train_from_iterator(TRAINING, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    pairs = [(a, b, tokenizer.encode(a, b)) for a, b in PAIRS]
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return {
        "architecture": "bert",
        "files": {
            "tokenizer.json": json.loads(tokenizer.to_str()),
            "vocab.txt": "".join(text + "\n" for text, _ in vocab),
            "tokenizer_config.json": {f"{name}_token": text for name, text in names.items()}
            | {"do_lower_case": lowercase},
            "config.json": {"vocab_size": len(vocab), "type_vocab_size": 2},
        },
        "cases": cases(lambda text: plain(tokenizer).encode(text).ids),
        "pairs": [{"texts": [a, b], "ids": e.ids, "types": e.type_ids} for a, b, e in pairs],
    }


def without_quirks(cases):
    """Sentencepiece's Python wrapper stops at NUL. `▁` in a text is half a space to both, and to each
    in another way: sentencepiece drops it at the end, Hugging Face puts none before it."""
    return [case for case in cases if "\0" not in case["text"] and "▁" not in case["text"]]


RULES = [("ﬁ", "fi"), ("１", "1"), ("２", "2"), ("３", "3"), ("e\u0301", "é"), ("\t", " "), ("\n", " "), ("\r", " ")]
RULES += [(chr(0xFF21 + i), chr(0x41 + i)) for i in range(26)] + [("\u3000", " "), ("\u2003", " "), ("\u00a0", " "), ("\u00ad", "")]


def train(**options):
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        for old, new in RULES:
            line = [" ".join(f"{ord(c):X}" for c in text) for text in (old, new)]
            rules.write("\t".join(line) + "\n")
        rules.flush()
        if options["model_type"] == "unigram":
            options |= {"normalization_rule_tsv": rules.name, "hard_vocab_limit": False}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(line for text in TRAINING for line in text.split("\n") if line),
            model_writer=model,
            minloglevel=2,
            **options,
        )
    return model.getvalue()


def xlm_roberta():
    """Hugging Face puts `<s> <pad> </s> <unk>` before the pieces and the mask behind them."""
    model = train(model_type="unigram", vocab_size=200, character_coverage=0.99)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode(text):
        return [3 if i == 0 else i + 1 for i in processor.encode(text.replace("\0", ""))]

    pairs = []
    for a, b in PAIRS:
        ids = [0] + encode(a) + [2, 2] + encode(b) + [2]
        pairs.append({"texts": [a, b], "ids": ids, "types": [0] * len(ids)})
    size = processor.get_piece_size() + 2
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    return {
        "architecture": "bert",
        "files": {
            "sentencepiece": model.hex(),
            "tokenizer_config.json": {"tokenizer_class": "XLMRobertaTokenizer", "bos_token": "<s>"},
            "config.json": {"vocab_size": size, "type_vocab_size": 1} | ids,
        },
        "cases": without_quirks(cases(encode)),
        "pairs": pairs,
    }


def t5():
    model = train(model_type="unigram", vocab_size=200, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pairs = []
    for a, b in PAIRS:
        ids = processor.encode(a) + [1] + processor.encode(b) + [1]
        pairs.append({"texts": [a, b], "ids": ids, "types": [0] * len(ids)})
    ids = {"pad_token_id": 0, "eos_token_id": 1}
    return {
        "architecture": "t5",
        "files": {"sentencepiece": model.hex(), "config.json": {"vocab_size": processor.get_piece_size()} | ids},
        "cases": without_quirks(cases(processor.encode)),
        "pairs": pairs,
    }


def unigram_json():
    """As XLM-RoBERTa's own `tokenizer.json`, its map of characters from a model file."""
    proto = train(model_type="unigram", vocab_size=200)
    charsmap = charsmap_of(proto)
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=200, show_progress=False, special_tokens=special, unk_token="<unk>"
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>"}
    names |= {"pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    pairs = [(a, b, tokenizer.encode(a, b)) for a, b in PAIRS]
    return {
        "architecture": "bert",
        "files": {
            "tokenizer.json": json.loads(tokenizer.to_str()),
            "tokenizer_config.json": {f"{name}_token": text for name, text in names.items()},
            "config.json": {"vocab_size": tokenizer.get_vocab_size()},
        },
        # Its lattice takes `<s>` in a text for the token.
        "cases": [
            case
            for case in without_quirks(cases(lambda text: plain(tokenizer).encode(text).ids))
            if "<s>" not in case["text"]
        ],
        "pairs": [{"texts": [a, b], "ids": e.ids, "types": [0] * len(e.ids)} for a, b, e in pairs],
    }


def charsmap_of(proto):
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(proto)
    return model.normalizer_spec.precompiled_charsmap


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def gemma4():
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=480, show_progress=False, special_tokens=special + BYTES, max_token_length=12
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in BYTES]
    data["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    tokenizer = Tokenizer.from_str(json.dumps(data))
    names = {"pad": "<pad>", "bos": "<bos>", "eos": "<eos>", "unk": "<unk>"}
    return {
        "architecture": "gemma4",
        "files": {
            "tokenizer.json": data,
            "tokenizer_config.json": {f"{name}_token": text for name, text in names.items()},
            "config.json": {},
        },
        "cases": cases(lambda text: plain(tokenizer).encode(text).ids),
        "pairs": [],
    }


def llama_json():
    """A `tokenizer.json` made of a SentencePiece file, as transformers does it: every pair of pieces
    whose union is a piece is a merge, in the order of the union's score."""
    proto = train(
        model_type="bpe",
        vocab_size=460,
        byte_fallback=True,
        character_coverage=0.99,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        allow_whitespace_only_pieces=True,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for piece, i in vocab.items():
        local = []
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab and processor.is_control(i) is False and i > 258:
                local.append((left, right, processor.get_score(i)))
        merges += sorted(local, key=lambda x: (vocab[x[0]], vocab[x[1]]))
    merges = sorted(merges, key=lambda x: (x[2], len(x[0]), len(x[1])), reverse=True)
    model = models.BPE(
        vocab, [(a, b) for a, b, _ in merges], byte_fallback=True, unk_token="<unk>", fuse_unk=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    special = ["<unk>", "<s>", "</s>"]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
    return {
        "architecture": "llama",
        "files": {
            "tokenizer.json": json.loads(tokenizer.to_str()),
            "tokenizer_config.json": {f"{name}_token": text for name, text in names.items()},
            "config.json": {},
        },
        "cases": [c for c in cases(processor.encode) if "\0" not in c["text"]],
        "pairs": [],
    }


folders = {
    "word-piece": word_piece(True),
    "word-piece-cased": word_piece(False),
    "xlm-roberta": xlm_roberta(),
    "t5": t5(),
    "unigram-json": unigram_json(),
    "gemma4": gemma4(),
    "llama-json": llama_json(),
}
HERE.joinpath("folders.json").write_text(
    json.dumps(folders, ensure_ascii=False, separators=(",", ":")) + "\n"
)

# The expressions as the families' files write them.
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
V3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+""" + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
V3 += r"| ?[\p{P}\p{S}]+[\r\n]*" + END
CASED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
CASED_2 = r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
LETTERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
MARKS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
DIGITS = pre_tokenizers.Digits(individual_digits=True)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
FAMILIES = {
    "gpt-2": [GPT2],
    "refact": [DIGITS, GPT2],
    "qwen2": [CONTRACTION + LETTERS + r"|\p{N}" + MARKS + END],
    "qwen35": [
        CONTRACTION
        + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
        + END
    ],
    "dbrx": [CONTRACTION + LETTERS + r"|\p{N}{1,3}" + MARKS + END],
    "gpt-4o": [
        CASED + CONTRACTION + "?" + CASED_2 + CONTRACTION + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + END
    ],
    "tekken": [CASED + CASED_2 + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + END],
    "deepseek-v3": [r"\p{N}{1,3}", CJK, V3],
    "minicpm5": [r"\p{N}{1,3}", CONTRACTION + LETTERS + r"|\p{N}+" + MARKS + END],
    "bailingmoe": [
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    ],
    "seed-coder": [CONTRACTION + LETTERS + r"|\p{N}{1}| ?[^\s\p{L}\p{N}" + "\r\n" + r"]+|\s*[" + "\r\n" + r"]+|\s+(?!\S)|\s+"],
    "ufakzeka": [LETTERS[1:] + r"|\p{N}" + MARKS + END],
    "exaone-moe": [
        CONTRACTION
        + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
    ],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", DIGITS],
}
IGNORE_MERGES = ["tekken", "minicpm5"]
COMPOSE = ["qwen2", "qwen35"]

splits = {}
for name, steps in FAMILIES.items():
    steps = [
        pre_tokenizers.Split(Regex(step), "isolated") if isinstance(step, str) else step
        for step in steps
    ]
    if not any(isinstance(step, pre_tokenizers.ByteLevel) for step in steps):
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer = Tokenizer(models.BPE(ignore_merges=name in IGNORE_MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if name in COMPOSE:
        tokenizer.normalizer = normalizers.NFC()
    cut = []
    for text in TEXTS + MORE:
        words = tokenizer.pre_tokenizer.pre_tokenize_str(text)
        cut.append({"text": text, "words": [text[start:end] for _, (start, end) in words]})
    splits[name] = {"tokenizer.json": json.loads(tokenizer.to_str()), "cases": cut}
HERE.joinpath("splits.json").write_text(
    json.dumps(splits, ensure_ascii=False, separators=(",", ":")) + "\n"
)
