//! Rotary positions: the many ways in which config.json describes them, brought into one.

use std::f64::consts::PI;

use dunlin_format::{Metadata, Value};
use serde_json::{Map, Value as Json};

use crate::{ConvertError, config::Config};

/// Rotary positions of a model: `rope_parameters` (or `rope_scaling` and the entries beside it).
#[derive(Debug)]
pub(crate) struct Rope {
    /// Of the layers that see everything.
    global: Map<String, Json>,
    /// Base of the layers with a window, where it is another.
    pub(crate) local_theta: Option<f32>,
    /// Share of the head width that is rotated, where the file says it.
    pub(crate) partial: Option<f32>,
}

impl Rope {
    pub(crate) fn read(config: &Config) -> Result<Self, ConvertError> {
        let given = match config.get(&["rope_parameters", "rope_scaling"]) {
            Some(Json::Object(given)) => given.clone(),
            Some(other) => return Err(config.bad("rope_parameters", other, "an object")),
            None => Map::new(),
        };
        let inner = |name: &str| given.get(name).and_then(Json::as_object).cloned();
        let theta = |map: &Map<String, Json>| map.get("rope_theta").and_then(Json::as_f64);
        let nested =
            given.contains_key("full_attention") || given.contains_key("sliding_attention");
        let local = inner("sliding_attention").as_ref().and_then(theta);
        let mut global = inner("full_attention").unwrap_or_else(|| given.clone());
        let mut local_theta = local.map(|theta| theta as f32);
        if !nested {
            const GLOBAL: &[&str] = &[
                "global_rope_theta",
                "rope_global_theta",
                "rope_theta",
                "rotary_emb_base",
            ];
            const LOCAL: &[&str] = &["local_rope_theta", "rope_local_base_freq"];
            local_theta = config.float(LOCAL)?;
            if let Some(kind) = global.get("type").cloned() {
                global.entry("rope_type").or_insert(kind);
            }
            if let (None, Some(theta)) = (global.get("rope_theta"), config.float(GLOBAL)?) {
                global.insert("rope_theta".to_owned(), f64::from(theta).into());
            }
        }
        for name in ["partial_rotary_factor", "original_max_position_embeddings"] {
            let missing = !global.contains_key(name);
            let beside = if name == "partial_rotary_factor" {
                config
                    .float(&[name])?
                    .map(|value| Json::from(f64::from(value)))
            } else {
                config.unsigned(&[name])?.map(Json::from)
            };
            if let (true, false, Some(value)) = (missing, nested, beside) {
                global.insert(name.to_owned(), value);
            }
        }
        let partial = if nested { &given } else { &global }.get("partial_rotary_factor");
        let rope = Self {
            partial: partial.and_then(Json::as_f64).map(|partial| partial as f32),
            local_theta,
            global,
        };
        let kind = rope.kind();
        if !config.family.ropes.contains(&kind)
            && !(kind == "default" && config.family.ropes.is_empty())
        {
            return Err(config.unsupported(format!("rope_type `{kind}`")));
        }
        Ok(rope)
    }

    /// `default`, `linear`, `yarn`, `llama3`, ...
    pub(crate) fn kind(&self) -> &str {
        self.global
            .get("rope_type")
            .and_then(Json::as_str)
            .unwrap_or("default")
    }

    pub(crate) fn theta(&self) -> Option<f32> {
        self.number("rope_theta").map(|theta| theta as f32)
    }

    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.global.get(name).and_then(Json::as_f64)
    }

    pub(crate) fn require(&self, config: &Config, name: &str) -> Result<f64, ConvertError> {
        self.number(name)
            .filter(|number| number.is_finite())
            .ok_or_else(|| match self.global.get(name) {
                Some(found) => config.bad(name, found, "a number"),
                None => config.missing(&[name]),
            })
    }

    fn require_unsigned(&self, config: &Config, name: &str) -> Result<u32, ConvertError> {
        let number = self.global.get(name).and_then(Json::as_u64);
        match number.and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Ok(number),
            None => Err(match self.global.get(name) {
                Some(found) => config.bad(name, found, "a whole number"),
                None => config.missing(&[name]),
            }),
        }
    }

    /// The keys under `rope.` that all families share.
    pub(crate) fn write(
        &self,
        config: &Config,
        metadata: &mut Metadata,
    ) -> Result<(), ConvertError> {
        let family = config.family.gguf;
        let mut set = |name: &str, value: Value| {
            metadata.insert(format!("{family}.rope.{name}"), value);
        };
        match self.kind() {
            "linear" => {
                set("scaling.type", Value::from("linear"));
                set(
                    "scaling.factor",
                    Value::from(self.require(config, "factor")? as f32),
                );
            }
            "yarn" => {
                set("scaling.type", Value::from("yarn"));
                set(
                    "scaling.factor",
                    Value::from(self.require(config, "factor")? as f32),
                );
                let original = self.require_unsigned(config, "original_max_position_embeddings")?;
                set("scaling.original_context_length", Value::from(original));
                for (names, key) in [
                    (&["extrapolation_factor"][..], "scaling.yarn_ext_factor"),
                    (
                        &["attention_factor", "attn_factor"],
                        "scaling.yarn_attn_factor",
                    ),
                    (&["beta_fast"], "scaling.yarn_beta_fast"),
                    (&["beta_slow"], "scaling.yarn_beta_slow"),
                ] {
                    if let Some(value) = names.iter().find_map(|name| self.number(name)) {
                        set(key, Value::from(value as f32));
                    }
                }
            }
            "longrope" | "su" => set("scaling.type", Value::from("longrope")),
            // Factors a tensor each: `llama3_factors` and `proportional_factors`.
            _ => {}
        }
        if let Some(sections) = self.global.get("mrope_section") {
            let numbers = sections.as_array().and_then(|sections| {
                let number = |number: &Json| number.as_i64().and_then(|n| i32::try_from(n).ok());
                sections.iter().map(number).collect::<Option<Vec<i32>>>()
            });
            let Some(mut numbers) = numbers.filter(|numbers| numbers.len() <= 4) else {
                return Err(config.bad(
                    "mrope_section",
                    sections,
                    "a list of up to 4 whole numbers",
                ));
            };
            numbers.resize(4, 0);
            set("dimension_sections", Value::from(numbers));
        }
        if let Some(theta) = self.theta() {
            set("freq_base", Value::from(theta));
        }
        if let Some(theta) = self.local_theta {
            set("freq_base_swa", Value::from(theta));
        }
        Ok(())
    }

    /// What each pair's angle is divided by (Llama 3.1 and later), for `width` rotated dimensions.
    /// The arithmetic is that of torch in float32, which divides a number by a tensor as the
    /// product with its reciprocal.
    pub(crate) fn llama3_factors(
        &self,
        config: &Config,
        width: u32,
    ) -> Result<Vec<f32>, ConvertError> {
        let base = self.number("rope_theta").unwrap_or(10_000.0) as f32;
        let factor = self.number("factor").unwrap_or(8.0);
        let low = self.number("low_freq_factor").unwrap_or(1.0);
        let high = self.number("high_freq_factor").unwrap_or(4.0);
        let original = self
            .number("original_max_position_embeddings")
            .unwrap_or(8192.0);
        if high <= low || low <= 0.0 || factor <= 0.0 {
            return Err(config.bad("high_freq_factor", high, "more than low_freq_factor"));
        }
        let longest = (original / low) as f32;
        let shortest = (original / high) as f32;
        let factors = (0..width / 2).map(|pair| {
            let exponent = (2 * pair) as f32 / width as f32;
            let frequency = base.powf(exponent).recip();
            let wavelength = frequency.recip() * (2.0 * PI) as f32;
            if wavelength < shortest {
                1.0
            } else if wavelength > longest {
                factor as f32
            } else {
                let turns = wavelength.recip() * original as f32;
                let smooth = (turns - low as f32) / (high - low) as f32;
                ((1.0 - smooth) / factor as f32 + smooth).recip()
            }
        });
        Ok(factors.collect())
    }

    /// Factors that leave all but the first pairs of `width` dimensions unrotated (Gemma 4).
    pub(crate) fn proportional_factors(
        &self,
        config: &Config,
        width: u32,
    ) -> Result<Vec<f32>, ConvertError> {
        let partial = self.require(config, "partial_rotary_factor")?;
        let rotated = (f64::from(width) * partial / 2.0) as u32;
        let pairs = 0..width / 2;
        Ok(pairs
            .map(|pair| if pair < rotated { 1.0 } else { 1e30 })
            .collect())
    }

    /// The factors of LongRoPE for contexts beyond and within the original length, where there are
    /// any, `pairs` of each.
    pub(crate) fn long_factors(
        &self,
        config: &Config,
        pairs: u32,
    ) -> Result<Option<[Vec<f32>; 2]>, ConvertError> {
        if !self.global.contains_key("long_factor") {
            return Ok(None);
        }
        let read = |name: &str| {
            let factors = self.global.get(name).and_then(Json::as_array);
            let factors = factors.and_then(|factors| {
                let number = |factor: &Json| factor.as_f64().map(|factor| factor as f32);
                factors.iter().map(number).collect::<Option<Vec<f32>>>()
            });
            match factors {
                Some(factors) if factors.len() == pairs as usize => Ok(factors),
                Some(factors) => Err(config.bad(
                    name,
                    format!("a list of {}", factors.len()),
                    "one factor for each pair of rotated dimensions",
                )),
                None => Err(config.missing(&[name])),
            }
        };
        Ok(Some([read("long_factor")?, read("short_factor")?]))
    }
}
