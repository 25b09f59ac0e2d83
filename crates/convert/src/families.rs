//! The families that can be imported, a row each.
//!
//! What a row says is what llama.cpp's converter writes for the architecture (`conversion/` there)
//! and what transformers fills in for it (its `configuration_*.py`).

use crate::{
    family::{Default, Family, Key, Layers, Windows},
    tensors::{self as t, encoders as e},
};

/// The row for an architecture of config.json.
pub(crate) fn find(hugging_face: &str) -> Option<&'static Family> {
    let rows = FAMILIES.iter().copied();
    rows.into_iter()
        .find(|family| family.hugging_face.contains(&hugging_face))
}

/// The rows whose files have this `general.architecture`.
pub(crate) fn of_gguf(architecture: &str) -> impl Iterator<Item = &'static Family> {
    let rows = FAMILIES.iter().copied();
    rows.filter(move |family| family.gguf == architecture)
}

/// The architectures that can be imported, as they stand in `architectures` of config.json.
pub fn supported_architectures() -> Vec<&'static str> {
    let names = FAMILIES.iter().flat_map(|family| family.hugging_face);
    names.copied().collect()
}

const FAMILIES: &[&Family] = &[
    &LLAMA,
    &MISTRAL,
    &MISTRAL3,
    &SMOLLM3,
    &GRANITE,
    &QWEN2,
    &QWEN3,
    &QWEN3_SCORE,
    &QWEN35,
    &GEMMA2,
    &GEMMA3,
    &GEMMA_EMBEDDING,
    &GEMMA4,
    &PHI3,
    &OLMO2,
    &LFM2,
    &BERT,
    &BERT_CLASSIFIER,
    &XLM_ROBERTA,
    &XLM_ROBERTA_CLASSIFIER,
    &NOMIC_BERT,
    &MODERN_BERT,
    &MODERN_BERT_CLASSIFIER,
];

type Defaults = &'static [(&'static str, Default)];

const DECODER: Defaults = &[
    ("num_key_value_heads", Default::Heads),
    ("rms_norm_eps", Default::F32(1e-6)),
    ("rope_theta", Default::F32(10_000.0)),
];

const VOCAB_SIZE: Key = Key::U32("vocab_size", &["vocab_size"]);

const LLAMA: Family = Family {
    hugging_face: &["LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel"],
    gguf: "llama",
    defaults: &[DECODER, &[("head_dim", Default::HiddenPerHead)]],
    activations: &["silu"],
    ropes: &["default", "linear", "yarn", "llama3"],
    windows: Windows::None,
    layers: Layers::Attention,
    tensors: &[
        t::ENDS,
        t::HEAD,
        t::NORMS_BEFORE,
        t::PAIRED_ATTENTION,
        t::GATED_FEED_FORWARD,
    ],
    skip: &[],
    keys: &[VOCAB_SIZE, Key::RopeDimensions(1.0)],
    without: &[],
};

const MISTRAL: Family = Family {
    hugging_face: &["MistralForCausalLM"],
    defaults: &[
        &[
            ("num_key_value_heads", Default::U32(8)),
            ("sliding_window", Default::U32(4096)),
            ("max_position_embeddings", Default::U32(131_072)),
        ],
        DECODER,
        LLAMA.defaults[1],
    ],
    windows: Windows::All,
    // llama.cpp does not write (or read) the window for this family; the models were trained with it.
    keys: &[VOCAB_SIZE, Key::RopeDimensions(1.0), Key::SlidingWindow],
    ..LLAMA
};

const MISTRAL3: Family = Family {
    hugging_face: &["Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"],
    gguf: "mistral3",
    windows: Windows::Refused,
    keys: &[VOCAB_SIZE, Key::RopeDimensions(1.0), Key::Temperature],
    ..LLAMA
};

const SMOLLM3: Family = Family {
    hugging_face: &["SmolLM3ForCausalLM"],
    gguf: "smollm3",
    defaults: &[&[("rope_theta", Default::F32(2_000_000.0))], DECODER],
    ..LLAMA
};

const GRANITE: Family = Family {
    hugging_face: &["GraniteForCausalLM"],
    gguf: "granite",
    defaults: &[
        &[
            ("attention_multiplier", Default::F32(1.0)),
            ("embedding_multiplier", Default::F32(1.0)),
            ("residual_multiplier", Default::F32(1.0)),
            ("logits_scaling", Default::F32(1.0)),
        ],
        DECODER,
    ],
    keys: &[
        VOCAB_SIZE,
        Key::RopeDimensions(1.0),
        Key::F32("attention.scale", &["attention_multiplier"]),
        Key::F32("embedding_scale", &["embedding_multiplier"]),
        Key::F32("residual_scale", &["residual_multiplier"]),
        Key::F32("logit_scale", &["logits_scaling"]),
    ],
    ..LLAMA
};

const QWEN2: Family = Family {
    hugging_face: &["Qwen2ForCausalLM", "Qwen2Model"],
    gguf: "qwen2",
    defaults: &[DECODER],
    ropes: &["default", "linear", "yarn"],
    tensors: &[
        t::ENDS,
        t::HEAD,
        t::NORMS_BEFORE,
        t::BIASED_ATTENTION,
        t::GATED_FEED_FORWARD,
    ],
    keys: &[Key::Pooling],
    ..LLAMA
};

const QWEN3: Family = Family {
    hugging_face: &["Qwen3ForCausalLM", "Qwen3Model"],
    gguf: "qwen3",
    defaults: &[DECODER, &[("head_dim", Default::U32(128))]],
    tensors: &[
        t::ENDS,
        t::HEAD,
        t::NORMS_BEFORE,
        t::ATTENTION,
        t::HEAD_NORMS,
        t::GATED_FEED_FORWARD,
    ],
    ..QWEN2
};

const QWEN3_SCORE: Family = Family {
    hugging_face: &["Qwen3ForSequenceClassification"],
    tensors: &[
        t::ENDS,
        t::SCORE,
        t::NORMS_BEFORE,
        t::ATTENTION,
        t::HEAD_NORMS,
        t::GATED_FEED_FORWARD,
    ],
    skip: &["lm_head."],
    ..QWEN3
};

const QWEN35: Family = Family {
    hugging_face: &["Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"],
    gguf: "qwen35",
    defaults: &[
        DECODER,
        &[
            ("head_dim", Default::U32(256)),
            ("full_attention_interval", Default::U32(4)),
        ],
    ],
    activations: &["silu"],
    ropes: &["default", "yarn"],
    windows: Windows::None,
    layers: Layers::DeltaRule,
    tensors: &[t::QWEN35, t::HEAD, t::GATED_FEED_FORWARD],
    // Predicts a token further, for speculation: an optional part.
    skip: &["mtp."],
    keys: &[
        Key::DeltaRule,
        Key::U32("full_attention_interval", &["full_attention_interval"]),
        Key::RopeDimensions(0.25),
    ],
    without: &[],
};

const GEMMA2: Family = Family {
    hugging_face: &["Gemma2ForCausalLM"],
    gguf: "gemma2",
    defaults: &[
        &[
            ("head_dim", Default::U32(256)),
            ("num_key_value_heads", Default::U32(4)),
            ("max_position_embeddings", Default::U32(8192)),
            ("sliding_window", Default::U32(4096)),
            ("attn_logit_softcapping", Default::F32(50.0)),
            ("final_logit_softcapping", Default::F32(30.0)),
            ("query_pre_attn_scalar", Default::U32(256)),
        ],
        DECODER,
    ],
    activations: &["gelu_pytorch_tanh"],
    ropes: &["default"],
    windows: Windows::Every(2),
    layers: Layers::Attention,
    tensors: &[
        t::GEMMA_ENDS,
        t::GEMMA_NORMS,
        t::ATTENTION,
        t::GATED_FEED_FORWARD,
    ],
    // The head is the token embedding; some tools store it again.
    skip: &["lm_head.weight"],
    keys: &[
        Key::F32("attn_logit_softcapping", &["attn_logit_softcapping"]),
        Key::F32("final_logit_softcapping", &["final_logit_softcapping"]),
        Key::SlidingWindow,
        Key::QueryScale,
    ],
    without: &["rope.freq_base"],
};

const GEMMA3: Family = Family {
    hugging_face: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    gguf: "gemma3",
    defaults: &[
        &[
            ("vocab_size", Default::U32(262_208)),
            ("num_attention_heads", Default::U32(8)),
            ("num_key_value_heads", Default::U32(4)),
            ("head_dim", Default::U32(256)),
            ("max_position_embeddings", Default::U32(131_072)),
            ("sliding_window", Default::U32(4096)),
            ("rope_theta", Default::F32(1_000_000.0)),
            ("rope_local_base_freq", Default::F32(10_000.0)),
            ("query_pre_attn_scalar", Default::U32(256)),
        ],
        DECODER,
    ],
    ropes: &["default", "linear"],
    windows: Windows::Every(6),
    tensors: &[
        t::GEMMA_ENDS,
        t::GEMMA_NORMS,
        t::ATTENTION,
        t::GEMMA_HEAD_NORMS,
        t::GATED_FEED_FORWARD,
    ],
    keys: &[
        Key::OptionalF32("final_logit_softcapping", &["final_logit_softcapping"]),
        Key::SlidingWindow,
        Key::WindowPeriod,
        Key::QueryScale,
    ],
    without: &[],
    ..GEMMA2
};

const GEMMA_EMBEDDING: Family = Family {
    hugging_face: &["Gemma3TextModel"],
    gguf: "gemma-embedding",
    keys: &[
        Key::SlidingWindow,
        Key::WindowPeriod,
        Key::QueryScale,
        Key::Dense,
        Key::Pooling,
    ],
    ..GEMMA3
};

const GEMMA4: Family = Family {
    hugging_face: &["Gemma4ForConditionalGeneration", "Gemma4ForCausalLM"],
    gguf: "gemma4",
    defaults: &[
        &[
            ("num_kv_shared_layers", Default::U32(0)),
            ("hidden_size_per_layer_input", Default::U32(0)),
        ],
        DECODER,
    ],
    activations: &["gelu_pytorch_tanh"],
    ropes: &["default", "proportional"],
    windows: Windows::Listed,
    layers: Layers::PerLayer,
    tensors: &[t::GEMMA4, t::GATED_FEED_FORWARD],
    skip: &["lm_head.weight"],
    keys: &[
        Key::OptionalF32("final_logit_softcapping", &["final_logit_softcapping"]),
        Key::SlidingWindow,
        Key::U32("attention.shared_kv_layers", &["num_kv_shared_layers"]),
        Key::U32(
            "embedding_length_per_layer_input",
            &["hidden_size_per_layer_input"],
        ),
        Key::WindowPerLayer,
        Key::PerLayer,
    ],
    without: &[],
};

const PHI3: Family = Family {
    hugging_face: &["Phi3ForCausalLM"],
    gguf: "phi3",
    defaults: &[
        &[
            ("rms_norm_eps", Default::F32(1e-5)),
            ("max_position_embeddings", Default::U32(4096)),
            ("original_max_position_embeddings", Default::U32(4096)),
        ],
        DECODER,
    ],
    activations: &["silu"],
    ropes: &["default", "longrope", "su"],
    windows: Windows::All,
    layers: Layers::Attention,
    tensors: &[t::ENDS, t::HEAD, t::NORMS_BEFORE, t::FUSED],
    skip: &[],
    keys: &[
        Key::LongRope,
        Key::RopeDimensions(1.0),
        Key::SlidingWindowOrZero,
    ],
    without: &["rope.scaling.type"],
};

const OLMO2: Family = Family {
    hugging_face: &["Olmo2ForCausalLM"],
    gguf: "olmo2",
    defaults: &[&[("rms_norm_eps", Default::F32(1e-5))], DECODER],
    ropes: &["default", "linear", "yarn"],
    tensors: &[
        t::ENDS,
        t::HEAD,
        t::NORMS_AFTER,
        t::ATTENTION,
        t::WIDE_NORMS,
        t::GATED_FEED_FORWARD,
    ],
    keys: &[],
    ..LLAMA
};

const LFM2: Family = Family {
    hugging_face: &["Lfm2ForCausalLM", "LFM2ForCausalLM"],
    gguf: "lfm2",
    defaults: &[&[
        ("num_key_value_heads", Default::U32(8)),
        ("norm_eps", Default::F32(1e-5)),
        ("rope_theta", Default::F32(1_000_000.0)),
        ("conv_L_cache", Default::U32(3)),
        ("block_multiple_of", Default::U32(256)),
        ("block_ffn_dim_multiplier", Default::F32(1.0)),
    ]],
    activations: &["silu"],
    ropes: &["default"],
    windows: Windows::None,
    layers: Layers::ShortConvolution,
    tensors: &[t::LFM2, t::HEAD],
    skip: &[],
    keys: &[VOCAB_SIZE, Key::U32("shortconv.l_cache", &["conv_L_cache"])],
    without: &[],
};

const ENCODER: Defaults = &[
    ("layer_norm_eps", Default::F32(1e-12)),
    ("type_vocab_size", Default::U32(2)),
];

const CAUSAL: Key = Key::Bool("attention.causal", false);

const BERT: Family = Family {
    hugging_face: &["BertModel", "BertForMaskedLM"],
    gguf: "bert",
    defaults: &[ENCODER],
    activations: &["gelu"],
    ropes: &[],
    windows: Windows::None,
    layers: Layers::Attention,
    tensors: &[e::BERT, e::POSITIONS],
    // The pooler serves the next-sentence task only; embeddings are pooled from the last layer.
    skip: &["pooler.", "cls.", "classifier."],
    keys: &[CAUSAL, Key::Pooling],
    without: &[],
};

const BERT_CLASSIFIER: Family = Family {
    hugging_face: &["BertForSequenceClassification"],
    tensors: &[e::BERT, e::POSITIONS, e::BERT_CLASSIFIER],
    skip: &["cls."],
    ..BERT
};

const XLM_ROBERTA: Family = Family {
    hugging_face: &["XLMRobertaModel", "XLMRobertaForMaskedLM"],
    tensors: &[e::BERT, e::POSITIONS_AFTER_PADDING],
    defaults: &[&[("pad_token_id", Default::U32(1))], ENCODER],
    skip: &["pooler.", "lm_head.", "classifier."],
    ..BERT
};

const XLM_ROBERTA_CLASSIFIER: Family = Family {
    hugging_face: &["XLMRobertaForSequenceClassification"],
    tensors: &[e::BERT, e::POSITIONS_AFTER_PADDING, e::ROBERTA_CLASSIFIER],
    skip: &["pooler.", "lm_head."],
    ..XLM_ROBERTA
};

const NOMIC_BERT: Family = Family {
    hugging_face: &["NomicBertModel"],
    gguf: "nomic-bert",
    defaults: &[&[("rotary_emb_base", Default::F32(1000.0))], ENCODER],
    activations: &["silu", "swiglu"],
    ropes: &["default"],
    tensors: &[e::NOMIC_BERT],
    skip: &["pooler.", "cls."],
    ..BERT
};

const MODERN_BERT: Family = Family {
    hugging_face: &["ModernBertModel", "ModernBertForMaskedLM"],
    gguf: "modern-bert",
    defaults: &[&[
        ("norm_eps", Default::F32(1e-5)),
        ("layer_norm_eps", Default::F32(1e-5)),
        ("local_attention", Default::U32(128)),
        ("global_rope_theta", Default::F32(160_000.0)),
        ("local_rope_theta", Default::F32(10_000.0)),
    ]],
    activations: &["gelu", "silu"],
    ropes: &["default"],
    windows: Windows::EveryFromFirst(3),
    tensors: &[e::MODERN_BERT],
    skip: &["head.", "decoder.", "classifier."],
    keys: &[
        CAUSAL,
        Key::Pooling,
        Key::SlidingWindow,
        Key::WindowPeriod,
        Key::Text("rope.scaling.type", "none"),
        VOCAB_SIZE,
        Key::OptionalText("hidden_activation", &["hidden_activation"]),
    ],
    ..BERT
};

const MODERN_BERT_CLASSIFIER: Family = Family {
    hugging_face: &["ModernBertForSequenceClassification"],
    tensors: &[e::MODERN_BERT, e::MODERN_BERT_CLASSIFIER],
    skip: &["decoder."],
    ..MODERN_BERT
};
