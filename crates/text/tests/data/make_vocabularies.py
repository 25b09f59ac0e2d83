"""Writes the small vocabularies of the tests, and what the reference implementations make of them.

    pip install tokenizers==0.23.* sentencepiece==0.2.* && python make_vocabularies.py

Byte-level BPE is trained and encoded by Hugging Face's tokenizers, SentencePiece BPE by Google's
sentencepiece. `vocabularies.json` holds, for each, the GGUF metadata and cases of text and ids.
The training text is written here, so the data carry no licence but the project's.
"""

import io
import json
import pathlib

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from texts import TEXTS, TRAINING

CONTROL, USER_DEFINED = 3, 4
CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = {
    "qwen2": CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + REST,
    "llama-bpe": CONTRACTION
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    + REST,
    "gpt-4o": rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + REST,
    "tekken": rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + REST,
}


def byte_level(pre):
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre in ("llama-bpe", "tekken")))
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    if pre in WORDS:
        first = pre_tokenizers.Split(Regex(WORDS[pre]), "isolated")
        steps = [first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        if pre == "smollm":
            steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    # The encoder under test must not make control tokens of text: train with them, encode without.
    data = json.loads(tokenizer.to_str())
    tokens = [text for text, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    data["added_tokens"] = []
    plain = Tokenizer.from_str(json.dumps(data))
    plain.add_tokens(["<tool>"])
    merges = [" ".join(merge) for merge in data["model"]["merges"]]
    kinds = [CONTROL] * 3 + [1] * (len(tokens) - 3) + [USER_DEFINED]
    return {
        "metadata": {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": tokens + ["<tool>"],
            "tokenizer.ggml.token_type": kinds,
            "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
        },
        "cases": [{"text": text, "ids": plain.encode(text).ids} for text in TEXTS],
    }


def sentence_piece(add_space_prefix):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in TRAINING for line in text.split("\n") if line),
        model_writer=model,
        model_type="bpe",
        vocab_size=460,
        byte_fallback=True,
        character_coverage=0.99,
        add_dummy_prefix=add_space_prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["<tool>", "\n"] if not add_space_prefix else [],
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())

    def kind(i):
        tests = [(2, processor.is_unknown), (3, processor.is_control), (5, processor.is_unused)]
        found = next((number for number, test in tests if test(i)), None)
        if found is None:
            found = 6 if processor.is_byte(i) else 1
        return 4 if processor.id_to_piece(i) in ("<tool>", "\n") else found

    count = processor.get_piece_size()
    return {
        "metadata": {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": [processor.id_to_piece(i) for i in range(count)],
            "tokenizer.ggml.scores": [processor.get_score(i) for i in range(count)],
            "tokenizer.ggml.token_type": [kind(i) for i in range(count)],
            "tokenizer.ggml.add_space_prefix": add_space_prefix,
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0,
        },
        # Sentencepiece's Python wrapper stops at NUL.
        "cases": [{"text": t, "ids": processor.encode(t)} for t in TEXTS if "\0" not in t],
    }


names = ["smollm", "qwen2", "llama-bpe", "gpt-4o", "tekken", "gpt-2"]
vocabularies = {name: byte_level(name) for name in names}
vocabularies["spm"] = sentence_piece(True)
vocabularies["spm-without-prefix"] = sentence_piece(False)
path = pathlib.Path(__file__).with_name("vocabularies.json")
path.write_text(json.dumps(vocabularies, ensure_ascii=False, separators=(",", ":")) + "\n")
