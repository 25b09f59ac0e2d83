//! The metadata of the file, except for the tokenizer's.

use dunlin_format::{Array, DType, Metadata, StringArray, Value};
use serde_json::Value as Json;

use crate::{
    ConvertError,
    family::{Key, Layers, Windows},
    model::Model,
    modules::Pooling,
};

/// The version of ggml's block types, which all writers state.
const QUANTIZATION_VERSION: u32 = 2;

/// What the metadata say beyond the model's own configuration.
pub(crate) struct General<'a> {
    pub(crate) name: &'a str,
    pub(crate) parameters: u64,
    pub(crate) dtype: DType,
    pub(crate) generation: Option<&'a Json>,
}

/// All `general.*` entries and those of the family.
pub(crate) fn metadata(model: &Model, general: &General<'_>) -> Result<Metadata, ConvertError> {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", model.family().gguf);
    metadata.insert("general.type", "model");
    sampling(general.generation, &mut metadata);
    metadata.insert("general.name", general.name);
    metadata.insert("general.size_label", size_label(general.parameters));
    let mut writer = Writer { model, metadata };
    writer.common()?;
    for &key in model.family().keys {
        writer.own(key)?;
    }
    let mut metadata = writer.metadata;
    metadata.insert("general.file_type", file_type(general.dtype));
    metadata.insert("general.quantization_version", QUANTIZATION_VERSION);
    Ok(metadata)
}

struct Writer<'a> {
    model: &'a Model,
    metadata: Metadata,
}

impl Writer<'_> {
    fn common(&mut self) -> Result<(), ConvertError> {
        let model = self.model;
        let config = &model.config;
        self.set("block_count", model.layers.len() as u32);
        if let Some(length) = self.context_length()? {
            self.set("context_length", length);
        }
        self.set("embedding_length", model.hidden);
        self.per_layer("feed_forward_length", |layer| layer.feed_forward);
        self.set("attention.head_count", model.layers[0].heads);
        if config.unsigned(&["num_key_value_heads"])?.is_some() {
            // Layers with a short convolution are told by having no keys.
            let convolutions = model.family().layers == Layers::ShortConvolution;
            self.per_layer("attention.head_count_kv", |layer| {
                let keys = layer.attention || !convolutions;
                if keys { layer.heads_kv } else { 0 }
            });
        }
        if config.bool(&["is_causal"])? == Some(false) {
            self.set("attention.causal", false);
        }
        let mut rope = Metadata::new();
        model.rope.write(config, &mut rope)?;
        let prefix = format!("{}.", model.family().gguf);
        for (key, value) in rope.iter() {
            self.set(key.strip_prefix(&prefix).unwrap_or(key), value.clone());
        }
        if let Some(epsilon) = config.float(&["rms_norm_eps", "norm_eps"])? {
            self.set("attention.layer_norm_rms_epsilon", epsilon);
        }
        if let Some(epsilon) = config.float(&["layer_norm_eps", "layer_norm_epsilon"])? {
            self.set("attention.layer_norm_epsilon", epsilon);
        }
        // Granite: transformers does not read it.
        if let (Some(width), true) = (
            config.unsigned(&["head_dim"])?,
            model.family().gguf != "granite",
        ) {
            self.set("attention.key_length", width);
            self.set("attention.value_length", width);
        }
        Ok(())
    }

    fn own(&mut self, key: Key) -> Result<(), ConvertError> {
        let model = self.model;
        let config = &model.config;
        match key {
            Key::U32(key, names) => self.set(key, config.require_unsigned(names)?),
            Key::F32(key, names) => {
                let value = config.float(names)?.ok_or_else(|| config.missing(names))?;
                self.set(key, value);
            }
            Key::OptionalF32(key, names) => self.set_if(key, config.float(names)?),
            Key::OptionalText(key, names) => self.set_if(key, config.text(names)?),
            Key::Bool(key, value) => self.set(key, value),
            Key::Text(key, value) => self.set(key, value),
            Key::RopeDimensions(part) => {
                let width = model.global_layer().head_width;
                let part = model.rope.partial.unwrap_or(part);
                self.set("rope.dimension_count", rotated(width, part));
            }
            Key::SlidingWindow => self.set_if("attention.sliding_window", model.window()?),
            Key::SlidingWindowOrZero => {
                self.set("attention.sliding_window", model.window()?.unwrap_or(0));
            }
            Key::WindowPeriod => self.window_period()?,
            Key::WindowPerLayer => {
                let local: Vec<bool> = model.layers.iter().map(|layer| layer.local).collect();
                self.set("attention.sliding_window_pattern", local);
            }
            Key::QueryScale => self.query_scale()?,
            Key::Pooling => self.pooling()?,
            Key::Dense => {
                for dense in &model.modules.dense {
                    self.set(&format!("{}_feat_in", dense.name), dense.inputs);
                    self.set(&format!("{}_feat_out", dense.name), dense.outputs);
                }
            }
            Key::LongRope => self.long_rope()?,
            Key::Temperature => {
                if config.text(&["model_type"])? == Some("ministral3") {
                    for (key, name) in [
                        ("rope.scaling.yarn_log_multiplier", "mscale_all_dim"),
                        ("attention.temperature_scale", "llama_4_scaling_beta"),
                    ] {
                        self.set(key, model.rope.require(config, name)? as f32);
                    }
                }
            }
            Key::DeltaRule => self.delta_rule(),
            Key::PerLayer => {
                let global = model.global_layer().head_width;
                let local = config.require_unsigned(&["head_dim"])?;
                self.set("attention.key_length", global);
                self.set("attention.value_length", global);
                self.set("attention.key_length_swa", local);
                self.set("attention.value_length_swa", local);
                self.set("rope.dimension_count", global);
                let part = model.rope.partial.unwrap_or(1.0);
                self.set("rope.dimension_count_swa", rotated(local, part));
            }
        }
        Ok(())
    }

    /// Tokens that positions were trained for.
    fn context_length(&self) -> Result<Option<u32>, ConvertError> {
        let config = &self.model.config;
        let names = &["max_position_embeddings", "n_positions"];
        let Some(length) = config.unsigned(names)? else {
            return Ok(None);
        };
        // Nomic's own configuration names the length that its rotation can be stretched to.
        if self.model.family().gguf == "nomic-bert" && config.get(&["n_positions"]).is_some() {
            let trained = config.unsigned(&["max_trained_positions"])?.unwrap_or(2048);
            return Ok(Some(length.min(trained)));
        }
        let padding = padding_rows(self.model)?;
        match length.checked_sub(padding) {
            Some(length) => Ok(Some(length)),
            None => Err(config.bad(names[0], length, "more than pad_token_id")),
        }
    }

    fn window_period(&mut self) -> Result<(), ConvertError> {
        let (Windows::Every(own) | Windows::EveryFromFirst(own)) = self.model.family().windows
        else {
            return Ok(());
        };
        let period = self.model.period(own)?;
        if period != own {
            self.set("attention.sliding_window_pattern", period);
        }
        Ok(())
    }

    /// llama.cpp scales queries by the width of a head, or by hidden size / heads in the largest
    /// model of the family, whatever the file says; other readers do as the file says.
    fn query_scale(&mut self) -> Result<(), ConvertError> {
        let config = &self.model.config;
        let scalar = config.float(&["query_pre_attn_scalar"])?;
        let width = self.model.layers[0].head_width as f32;
        match scalar {
            Some(scalar) if scalar <= 0.0 => {
                Err(config.bad("query_pre_attn_scalar", scalar, "more than 0"))
            }
            Some(scalar) if scalar != width => {
                self.set("attention.scale", scalar.sqrt().recip());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn pooling(&mut self) -> Result<(), ConvertError> {
        let model = self.model;
        let scores = model.family().scores();
        let pooling = if scores {
            Some(Pooling::Rank)
        } else {
            model.modules.pooling
        };
        self.set_if("pooling_type", pooling.map(|pooling| pooling as u32));
        // Other readers pass over this key.
        self.set_if("max_seq_length", model.modules.longest_text);
        match model.config.text(&["classifier_pooling"])? {
            None => {}
            Some("mean") => self.set("classifier.pooling_type", Pooling::Mean as u32),
            Some("cls") => self.set("classifier.pooling_type", Pooling::Cls as u32),
            Some(other) => {
                let what = format!("classifier_pooling `{other}`");
                return Err(model.config.unsupported(what));
            }
        }
        if scores {
            let labels: StringArray = model.labels.iter().collect();
            self.set("classifier.output_labels", labels);
        }
        Ok(())
    }

    fn long_rope(&mut self) -> Result<(), ConvertError> {
        let model = self.model;
        let config = &model.config;
        let original = model
            .rope
            .require_unsigned(config, "original_max_position_embeddings")?;
        self.set("rope.scaling.original_context_length", original);
        if model.rope.kind() != "default" {
            let longest = config.require_unsigned(&["max_position_embeddings"])?;
            let (longest, original) = (f64::from(longest), f64::from(original));
            let scale = longest / original;
            let factor = match scale > 1.0 && original > 1.0 {
                true => (1.0 + scale.ln() / original.ln()).sqrt(),
                false => 1.0,
            };
            self.set("rope.scaling.attn_factor", factor as f32);
        }
        Ok(())
    }

    fn delta_rule(&mut self) {
        let Some(delta) = self.model.delta else {
            return;
        };
        self.set("ssm.conv_kernel", delta.taps);
        self.set("ssm.state_size", delta.key_width);
        self.set("ssm.group_count", delta.key_heads);
        self.set("ssm.time_step_rank", delta.value_heads);
        self.set("ssm.inner_size", delta.values() as u32);
        let recurrent = self.model.layers.iter().map(|layer| !layer.attention);
        let recurrent: Vec<bool> = recurrent.collect();
        self.set("attention.recurrent_layers", recurrent);
    }

    /// One number where all layers agree, else one for each.
    fn per_layer(&mut self, key: &str, read: impl Fn(&crate::model::Layer) -> u32) {
        let values: Vec<u32> = self.model.layers.iter().map(read).collect();
        if values.iter().all(|&value| value == values[0]) {
            self.set(key, values[0]);
        } else {
            let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
            self.set(key, Array::from(values));
        }
    }

    fn set_if(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        let family = self.model.family();
        if !family.without.contains(&key) {
            self.metadata
                .insert(format!("{}.{key}", family.gguf), value);
        }
    }
}

/// Rows at the start of the position embedding that stand for no position (RoBERTa).
pub(crate) fn padding_rows(model: &Model) -> Result<u32, ConvertError> {
    if !model.family().skips_padding() {
        return Ok(0);
    }
    let padding = model.config.require_unsigned(&["pad_token_id"])?;
    Ok(padding.saturating_add(1))
}

fn rotated(width: u32, part: f32) -> u32 {
    (f64::from(width) * f64::from(part)) as u32
}

/// What generation_config.json recommends for sampling.
fn sampling(generation: Option<&Json>, metadata: &mut Metadata) {
    let Some(generation) = generation else { return };
    let number = |name: &str| generation.get(name).and_then(Json::as_f64);
    if let Some(top_k) = generation.get("top_k").and_then(Json::as_i64) {
        metadata.insert("general.sampling.top_k", top_k as i32);
    }
    for (name, key) in [
        ("top_p", "general.sampling.top_p"),
        ("min_p", "general.sampling.min_p"),
        ("temperature", "general.sampling.temp"),
        ("repetition_penalty", "general.sampling.penalty_repeat"),
    ] {
        if let Some(value) = number(name) {
            metadata.insert(key, value as f32);
        }
    }
}

/// The number of parameters as people write it: two digits at least (`0.6B`, `135M`, `177K`).
fn size_label(parameters: u64) -> String {
    let parameters = parameters as f64;
    let (scale, unit) = match parameters {
        count if count > 1e12 => (1e12, "T"),
        count if count > 1e9 => (1e9, "B"),
        count if count > 1e6 => (1e6, "M"),
        _ => (1e3, "K"),
    };
    let scaled = parameters / scale;
    let digits = match scaled.round_ties_even() {
        0.0 => 2,
        rounded => usize::from(rounded < 10.0),
    };
    format!("{scaled:.digits$}{unit}")
}

/// llama.cpp's number for a file of mostly this type.
fn file_type(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 7,
        DType::Q5_0 => 8,
        DType::Q5_1 => 9,
        DType::Q2_K => 10,
        // Of the mixes with this name, those with the least of other types.
        DType::Q3_K => 11,
        DType::Q4_K => 14,
        DType::Q5_K => 16,
        DType::Q6_K => 18,
        DType::BF16 => 32,
        _ => 1,
    }
}
