//! The sizes of a model, layer by layer, read from its configuration and checked.

use serde_json::Value as Json;

use crate::{
    ConvertError,
    config::Config,
    family::{Family, Layers, Length, Place, Windows},
    modules::Modules,
    rope::Rope,
};

/// No tensor of any model is longer in any direction (the largest vocabularies have a million tokens);
/// what is read at a time stays small by it.
const MAX_LENGTH: u64 = 1 << 24;

/// No head is wider, no delta rule has more heads.
const MAX_WIDTH: u32 = 1 << 16;

/// A model as its configuration describes it.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) config: Config,
    pub(crate) rope: Rope,
    pub(crate) modules: Modules,
    pub(crate) layers: Vec<Layer>,
    pub(crate) hidden: u32,
    /// Names of what a classification head scores, where there is one.
    pub(crate) labels: Vec<String>,
    /// Whether the config says in so many words that the head is a tensor of its own.
    pub(crate) untied: bool,
    pub(crate) delta: Option<Delta>,
}

/// One layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    /// Attention, or what the family has in its place.
    pub(crate) attention: bool,
    /// Sees only a window.
    pub(crate) local: bool,
    /// Computes keys and values of its own.
    pub(crate) own_keys: bool,
    pub(crate) heads: u32,
    pub(crate) heads_kv: u32,
    pub(crate) head_width: u32,
    pub(crate) feed_forward: u32,
}

/// Sizes of a gated delta rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delta {
    pub(crate) key_heads: u32,
    pub(crate) value_heads: u32,
    pub(crate) key_width: u32,
    pub(crate) value_width: u32,
    pub(crate) taps: u32,
}

impl Model {
    pub(crate) fn new(config: Config, modules: Modules) -> Result<Self, ConvertError> {
        refuse_what_cannot_be_said(&config)?;
        let rope = Rope::read(&config)?;
        let hidden = config.require_unsigned(&["hidden_size", "n_embd"])?;
        let mut model = Self {
            rope,
            modules,
            hidden,
            labels: labels(&config)?,
            untied: config.bool(&["tie_word_embeddings"])? == Some(false),
            delta: delta(&config)?,
            layers: Vec::new(),
            config,
        };
        model.layers = model.read_layers()?;
        model.check_windows()?;
        Ok(model)
    }

    pub(crate) fn family(&self) -> &'static Family {
        self.config.family
    }

    /// Whether the layer has a tensor of this place.
    pub(crate) fn has(&self, place: Place, layer: usize) -> bool {
        let own = self.layers[layer];
        match place {
            Place::Every => true,
            Place::Attention => own.attention,
            Place::OwnKeys => own.own_keys,
            Place::Recurrent => !own.attention,
            Place::NotFirst => layer > 0,
        }
    }

    /// The first layer that sees everything, which stands for all of its kind.
    pub(crate) fn global_layer(&self) -> Layer {
        let mut layers = self.layers.iter();
        let global = layers.find(|layer| layer.attention && !layer.local);
        *global.unwrap_or(&self.layers[0])
    }

    /// A length in the shape of a tensor, of `layer` where it belongs to one.
    pub(crate) fn length(&self, length: Length, layer: usize) -> Result<u64, ConvertError> {
        match self.unchecked_length(length, layer)? {
            value if value > MAX_LENGTH => {
                let what = format!("a tensor of length {value} ({length:?})");
                Err(self.config.unsupported(what))
            }
            value => Ok(value),
        }
    }

    fn unchecked_length(&self, length: Length, layer: usize) -> Result<u64, ConvertError> {
        let own = self.layers[layer];
        let hidden = u64::from(self.hidden);
        let heads = |heads: u32| u64::from(heads) * u64::from(own.head_width);
        let per_layer = || {
            self.config
                .require_unsigned(&["hidden_size_per_layer_input"])
        };
        let delta = || {
            let missing = || self.config.missing(&["linear_num_value_heads"]);
            self.delta.ok_or_else(missing)
        };
        Ok(match length {
            Length::One => 1,
            Length::Vocabulary => self.config.require_unsigned(&["vocab_size"])?.into(),
            Length::Hidden => hidden,
            Length::HeadWidth => own.head_width.into(),
            Length::Query => heads(own.heads),
            Length::QueryAndGate => 2 * heads(own.heads),
            Length::Key => heads(own.heads_kv),
            Length::QueryKeyValue => heads(own.heads) + 2 * heads(own.heads_kv),
            Length::FeedForward => own.feed_forward.into(),
            Length::TwiceFeedForward => 2 * u64::from(own.feed_forward),
            Length::Positions => self
                .config
                .require_unsigned(&["max_position_embeddings"])?
                .into(),
            Length::TokenTypes => self.config.require_unsigned(&["type_vocab_size"])?.into(),
            Length::Labels => self.labels.len() as u64,
            Length::PerLayer => per_layer()?.into(),
            Length::AllPerLayer => u64::from(per_layer()?) * self.layers.len() as u64,
            Length::PerLayerVocabulary => {
                let names = &["vocab_size_per_layer_input", "vocab_size"];
                self.config.require_unsigned(names)?.into()
            }
            Length::ThreeHidden => 3 * hidden,
            Length::Taps => match self.delta {
                Some(delta) => delta.taps.into(),
                None => self.config.require_unsigned(&["conv_L_cache"])?.into(),
            },
            Length::DeltaQueryKeyValue => {
                let delta = delta()?;
                2 * delta.keys() + delta.values()
            }
            Length::DeltaValue => delta()?.values(),
            Length::DeltaHeads => delta()?.value_heads.into(),
            Length::DeltaHeadWidth => delta()?.value_width.into(),
        })
    }

    fn read_layers(&self) -> Result<Vec<Layer>, ConvertError> {
        let config = &self.config;
        let count = config.layer_count()?;
        let heads = config.require_unsigned(&["num_attention_heads", "n_head"])?;
        if heads == 0
            || !self.hidden.is_multiple_of(heads) && config.unsigned(&["head_dim"])?.is_none()
        {
            return Err(config.bad("num_attention_heads", heads, "a divisor of hidden_size"));
        }
        let head_width = match config.unsigned(&["head_dim"])? {
            // transformers does not read it for this family.
            Some(_) if config.family.gguf == "granite" => self.hidden / heads,
            Some(width) => width,
            None => self.hidden / heads,
        };
        let alike = Layer {
            attention: true,
            local: false,
            own_keys: true,
            heads,
            heads_kv: config.unsigned(&["num_key_value_heads"])?.unwrap_or(heads),
            head_width,
            feed_forward: self.feed_forward()?,
        };
        if alike.heads_kv == 0 || !heads.is_multiple_of(alike.heads_kv) {
            return Err(config.bad(
                "num_key_value_heads",
                alike.heads_kv,
                "a divisor of num_attention_heads",
            ));
        }
        check_head_width(config, "head_dim", head_width)?;
        let mut layers = vec![alike; count as usize];
        let types = config.layer_types()?;
        for (index, layer) in layers.iter_mut().enumerate() {
            let kind = types.as_ref().map(|types| types[index]);
            layer.local = self.is_local(index as u32, kind)?;
            layer.attention = self.is_attention(index as u32, kind)?;
        }
        if config.family.layers == Layers::PerLayer {
            self.read_differences(&mut layers)?;
        }
        Ok(layers)
    }

    fn is_local(&self, index: u32, kind: Option<&str>) -> Result<bool, ConvertError> {
        let window = self.window()?.is_some();
        Ok(match (self.family().windows, kind) {
            (Windows::None | Windows::Refused, Some("sliding_attention")) => {
                return Err(self.config.unsupported("attention with a window"));
            }
            (Windows::None | Windows::Refused, _) => false,
            (Windows::All, _) => window,
            (_, Some(kind)) => kind == "sliding_attention",
            (Windows::Every(own), None) => !(index + 1).is_multiple_of(self.period(own)?),
            (Windows::EveryFromFirst(own), None) => !index.is_multiple_of(self.period(own)?),
            (Windows::Listed, None) => return Err(self.config.missing(&["layer_types"])),
        })
    }

    fn is_attention(&self, index: u32, kind: Option<&str>) -> Result<bool, ConvertError> {
        Ok(match self.family().layers {
            Layers::Attention | Layers::PerLayer => true,
            Layers::ShortConvolution => match (kind, self.config.get(&["full_attn_idxs"])) {
                (Some(kind), _) => kind != "conv",
                (None, Some(Json::Array(full))) => {
                    full.iter().any(|full| full.as_u64() == Some(index.into()))
                }
                _ => return Err(self.config.missing(&["layer_types"])),
            },
            Layers::DeltaRule => match kind {
                Some(kind) => kind != "linear_attention",
                None => {
                    let name = "full_attention_interval";
                    let interval = self.config.require_unsigned(&[name])?;
                    if interval == 0 {
                        return Err(self.config.bad(name, interval, "1 or more"));
                    }
                    (index + 1).is_multiple_of(interval)
                }
            },
        })
    }

    /// How many layers make a group of which one sees everything.
    pub(crate) fn period(&self, own: u32) -> Result<u32, ConvertError> {
        let names = &[
            "sliding_window_pattern",
            "_sliding_window_pattern",
            "global_attn_every_n_layers",
        ];
        let period = self.config.unsigned(names)?.unwrap_or(own);
        match period {
            0 => Err(self.config.bad(names[0], period, "1 or more")),
            period => Ok(period),
        }
    }

    /// Tokens that a layer with a window sees.
    pub(crate) fn window(&self) -> Result<Option<u32>, ConvertError> {
        self.config.unsigned(&["sliding_window", "local_attention"])
    }

    /// GGUF knows windows by their period alone (but for families that list them).
    fn check_windows(&self) -> Result<(), ConvertError> {
        let expected: Box<dyn Fn(u32) -> bool> = match self.family().windows {
            Windows::Every(own) => {
                let period = self.period(own)?;
                Box::new(move |index| !(index + 1).is_multiple_of(period))
            }
            Windows::EveryFromFirst(own) => {
                let period = self.period(own)?;
                Box::new(move |index| !index.is_multiple_of(period))
            }
            Windows::Refused if self.window()?.is_some() => {
                return Err(self.config.unsupported("attention with a window"));
            }
            _ => return Ok(()),
        };
        let mut layers = (0u32..).zip(&self.layers);
        if layers.any(|(index, layer)| layer.local != expected(index)) {
            let what = "a mixture of windowed and full layers without a period";
            return Err(self.config.unsupported(what));
        }
        Ok(())
    }

    fn feed_forward(&self) -> Result<u32, ConvertError> {
        let config = &self.config;
        let convolutions = config.family.layers == Layers::ShortConvolution;
        let names: &[&str] = match convolutions {
            true => &["block_ff_dim", "intermediate_size"],
            false => &["intermediate_size", "n_inner"],
        };
        let width = config.require_unsigned(names)?;
        let adjusted = convolutions && config.bool(&["block_auto_adjust_ff_dim"])? != Some(false);
        if !adjusted {
            return Ok(width);
        }
        let multiplier = config.float(&["block_ffn_dim_multiplier"])?.unwrap_or(1.0);
        let multiple = config.require_unsigned(&["block_multiple_of"])?.max(1);
        let two_thirds = u64::from(width) * 2 / 3;
        let scaled = (f64::from(multiplier) * two_thirds as f64) as u64;
        let rounded = scaled
            .div_ceil(multiple.into())
            .checked_mul(multiple.into());
        rounded
            .and_then(|rounded| rounded.try_into().ok())
            .ok_or_else(|| config.bad(names[0], width, "smaller"))
    }

    /// Gemma 4: full layers have wider heads, the last layers share keys and are twice as wide.
    fn read_differences(&self, layers: &mut [Layer]) -> Result<(), ConvertError> {
        let config = &self.config;
        let shared = config.require_unsigned(&["num_kv_shared_layers"])? as usize;
        let Some(own) = layers.len().checked_sub(shared) else {
            return Err(config.bad("num_kv_shared_layers", shared, "at most num_hidden_layers"));
        };
        let full = layers.iter().position(|layer| !layer.local);
        let of_full = |name: &str| {
            let index = full?.to_string();
            let settings = config.get(&["per_layer_config"])?.get(index)?;
            u32::try_from(settings.get(name)?.as_u64()?).ok()
        };
        let width = match config.unsigned(&["global_head_dim"])? {
            Some(width) => width,
            None => of_full("head_dim").unwrap_or(layers[0].head_width),
        };
        let heads_kv = config.unsigned(&["num_global_key_value_heads"])?;
        let heads_kv = heads_kv.or_else(|| of_full("num_key_value_heads"));
        let doubled = config.bool(&["use_double_wide_mlp"])? == Some(true);
        for (index, layer) in layers.iter_mut().enumerate() {
            layer.own_keys = index < own;
            if !layer.local {
                layer.head_width = width;
                layer.heads_kv = heads_kv.unwrap_or(layer.heads_kv);
            }
            if doubled && index >= own {
                layer.feed_forward = layer.feed_forward.saturating_mul(2);
            }
        }
        check_head_width(config, "global_head_dim", width)
    }
}

/// Dimensions are rotated two at a time.
fn check_head_width(config: &Config, key: &str, width: u32) -> Result<(), ConvertError> {
    match width {
        1..=MAX_WIDTH if width.is_multiple_of(2) => Ok(()),
        _ => Err(config.bad(key, width, "an even number up to 65536")),
    }
}

impl Delta {
    pub(crate) fn keys(self) -> u64 {
        u64::from(self.key_heads) * u64::from(self.key_width)
    }

    pub(crate) fn values(self) -> u64 {
        u64::from(self.value_heads) * u64::from(self.value_width)
    }
}

fn delta(config: &Config) -> Result<Option<Delta>, ConvertError> {
    if config.family.layers != Layers::DeltaRule {
        return Ok(None);
    }
    let require = |name| match config.require_unsigned(&[name])? {
        number @ 1..=MAX_WIDTH => Ok(number),
        number => Err(config.bad(name, number, "1 to 65536")),
    };
    let delta = Delta {
        key_heads: require("linear_num_key_heads")?,
        value_heads: require("linear_num_value_heads")?,
        key_width: require("linear_key_head_dim")?,
        value_width: require("linear_value_head_dim")?,
        taps: require("linear_conv_kernel_dim")?,
    };
    if !delta.value_heads.is_multiple_of(delta.key_heads) {
        let expected = "a multiple of linear_num_key_heads";
        return Err(config.bad("linear_num_value_heads", delta.value_heads, expected));
    }
    Ok(Some(delta))
}

/// The labels of a classification head, in the order of their numbers.
fn labels(config: &Config) -> Result<Vec<String>, ConvertError> {
    let mut labels = Vec::new();
    match config.get(&["id2label"]) {
        Some(Json::Object(map)) => {
            for (number, label) in map {
                let number = number.parse::<u32>().ok();
                let (Some(number), Some(label)) = (number, label.as_str()) else {
                    return Err(config.bad(
                        "id2label",
                        "of another kind",
                        "numbers and their names",
                    ));
                };
                labels.push((number, label.to_owned()));
            }
        }
        Some(other) => return Err(config.bad("id2label", other, "an object")),
        None => {
            let count = config.unsigned(&["num_labels"])?.unwrap_or(2).min(1 << 16);
            labels.extend((0..count).map(|number| (number, format!("LABEL_{number}"))));
        }
    }
    labels.sort();
    Ok(labels.into_iter().map(|(_, label)| label).collect())
}

/// Settings that change what a model computes and that the file would not say.
fn refuse_what_cannot_be_said(config: &Config) -> Result<(), ConvertError> {
    if let Some(quantized) = config.get(&["quantization_config"]) {
        let method = quantized.get("quant_method").and_then(Json::as_str);
        let method = method.unwrap_or("unknown");
        return Err(config.unsupported(format!(
            "a folder whose weights are already quantized (with `{method}`; get the unquantized one)"
        )));
    }
    let names = &["hidden_activation", "hidden_act", "activation_function"];
    let activation = config.text(names)?;
    if let Some(activation) = activation.filter(|name| !config.family.activations.contains(name)) {
        return Err(config.unsupported(format!("the activation `{activation}`")));
    }
    for name in [
        "num_experts",
        "num_local_experts",
        "n_routed_experts",
        "moe_every_n_layers",
    ] {
        if config.unsigned(&[name])?.is_some_and(|experts| experts > 0) {
            return Err(config.unsupported(format!("a mixture of experts (`{name}`)")));
        }
    }
    if let Some(kind) = config
        .text(&["position_embedding_type"])?
        .filter(|&kind| kind != "absolute")
    {
        return Err(config.unsupported(format!("position_embedding_type `{kind}`")));
    }
    let windowed = config.bool(&["use_sliding_window"])? == Some(true);
    let first_windowed = config.unsigned(&["max_window_layers"])?.unwrap_or(0);
    if windowed && first_windowed < config.layer_count()? && config.family.windows == Windows::None
    {
        return Err(config.unsupported("attention with a window (`use_sliding_window`)"));
    }
    if config.family.gguf == "smollm3" {
        check_rotated_layers(config)?;
    }
    Ok(())
}

/// llama.cpp fixes which layers of SmolLM 3 have no rotation: every fourth.
fn check_rotated_layers(config: &Config) -> Result<(), ConvertError> {
    let listed = config.get(&["no_rope_layers"]).and_then(Json::as_array);
    let regular = match listed {
        Some(layers) => (1u64..).zip(layers).all(|(number, rotated)| {
            rotated.as_u64() == Some(u64::from(!number.is_multiple_of(4)))
        }),
        None => config
            .unsigned(&["no_rope_layer_interval"])?
            .is_none_or(|every| every == 4),
    };
    if regular {
        Ok(())
    } else {
        Err(config.unsupported("a rotation that does not spare every fourth layer"))
    }
}
