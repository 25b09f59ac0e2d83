//! Rotary positions: the many ways in which config.json describes them, brought into one.

use std::f64::consts::PI;

use dunlin_format::{Metadata, Value};
use serde_json::{Map, Value as Json};

use crate::{
    ConvertError,
    config::{Config, as_float},
};

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
        let nested =
            given.contains_key("full_attention") || given.contains_key("sliding_attention");
        let rope = match nested {
            true => Self::of_both_kinds(config, &given)?,
            false => Self::with_settings_beside(config, given)?,
        };
        let kind = rope.kind();
        let known = config.family.ropes.contains(&kind);
        let none = kind == "default" && config.family.ropes.is_empty();
        if !(known || none) {
            return Err(config.unsupported(format!("rope_type `{kind}`")));
        }
        match rope.partial {
            Some(part) if !(part > 0.0 && part <= 1.0) => {
                Err(config.bad("partial_rotary_factor", part, "more than 0 and at most 1"))
            }
            _ => Ok(rope),
        }
    }

    /// Today's form where layers with a window rotate otherwise: an object for each kind of layer.
    fn of_both_kinds(config: &Config, given: &Map<String, Json>) -> Result<Self, ConvertError> {
        let of = |name: &str| match given.get(name) {
            Some(Json::Object(parameters)) => Ok(parameters.clone()),
            Some(other) => Err(config.bad(name, other, "an object")),
            None => Ok(Map::new()),
        };
        let local = Self {
            global: of("sliding_attention")?,
            local_theta: None,
            partial: None,
        };
        if local.kind() != "default" {
            let what = format!("rope_type `{}` in layers with a window", local.kind());
            return Err(config.unsupported(what));
        }
        let partial = given.get("partial_rotary_factor").map(|part| {
            let bad = || config.bad("partial_rotary_factor", part, "a number");
            as_float(part).ok_or_else(bad)
        });
        Ok(Self {
            local_theta: local.theta(config)?,
            partial: partial.transpose()?,
            global: of("full_attention")?,
        })
    }

    /// One form for all layers; in older files some of it stands beside the object.
    fn with_settings_beside(
        config: &Config,
        mut given: Map<String, Json>,
    ) -> Result<Self, ConvertError> {
        const THETA: &[&str] = &[
            "global_rope_theta",
            "rope_global_theta",
            "rope_theta",
            "rotary_emb_base",
        ];
        const LOCAL_THETA: &[&str] = &["local_rope_theta", "rope_local_base_freq"];
        const PARTIAL: &str = "partial_rotary_factor";
        const ORIGINAL: &str = "original_max_position_embeddings";
        if let Some(kind) = given.get("type").cloned() {
            given.entry("rope_type").or_insert(kind);
        }
        let theta = config.float(THETA)?.map(|theta| f64::from(theta).into());
        let partial = config.float(&[PARTIAL])?;
        let partial = partial.map(|partial| f64::from(partial).into());
        let original = config.unsigned(&[ORIGINAL])?.map(Json::from);
        for (name, beside) in [
            ("rope_theta", theta),
            (PARTIAL, partial),
            (ORIGINAL, original),
        ] {
            if let (false, Some(value)) = (given.contains_key(name), beside) {
                given.insert(name.to_owned(), value);
            }
        }
        let rope = Self {
            global: given,
            local_theta: config.float(LOCAL_THETA)?,
            partial: None,
        };
        let partial = rope.number(config, PARTIAL)?.map(|partial| partial as f32);
        Ok(Self { partial, ..rope })
    }

    /// `default`, `linear`, `yarn`, `llama3`, ...
    pub(crate) fn kind(&self) -> &str {
        match self.global.get("rope_type") {
            None | Some(Json::Null) => "default",
            // What is no text is no kind that any family knows.
            Some(kind) => kind.as_str().unwrap_or_default(),
        }
    }

    pub(crate) fn theta(&self, config: &Config) -> Result<Option<f32>, ConvertError> {
        let theta = self.number(config, "rope_theta")?;
        Ok(theta.map(|theta| theta as f32))
    }

    pub(crate) fn number(&self, config: &Config, name: &str) -> Result<Option<f64>, ConvertError> {
        match self.global.get(name).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => match as_float(value).and(value.as_f64()) {
                Some(number) => Ok(Some(number)),
                None => Err(config.bad(name, value, "a number")),
            },
        }
    }

    pub(crate) fn require(&self, config: &Config, name: &str) -> Result<f64, ConvertError> {
        let number = self.number(config, name)?;
        number.ok_or_else(|| config.missing(&[name]))
    }

    pub(crate) fn require_unsigned(
        &self,
        config: &Config,
        name: &str,
    ) -> Result<u32, ConvertError> {
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
                    for name in names.iter().rev() {
                        if let Some(value) = self.number(config, name)? {
                            set(key, Value::from(value as f32));
                        }
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
        if let Some(theta) = self.theta(config)? {
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
        let number = |name: &str, default: f64| -> Result<f64, ConvertError> {
            Ok(self.number(config, name)?.unwrap_or(default))
        };
        let base = number("rope_theta", 10_000.0)? as f32;
        let factor = number("factor", 8.0)?;
        let low = number("low_freq_factor", 1.0)?;
        let high = number("high_freq_factor", 4.0)?;
        let original = number("original_max_position_embeddings", 8192.0)?;
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
