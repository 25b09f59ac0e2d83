//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864) and the ways to stretch it to longer contexts.

use super::{Mixer, ModelSpec, names};
use crate::EngineError;

/// The rotation of one layer's queries and keys.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    /// Which elements of a head form a pair.
    pub kind: RopeKind,
    /// How many elements of a head, from its start, are rotated; even, at most the head's length. 0: none, the layer does
    /// not know positions.
    pub dims: usize,
    /// Base of the geometric row of frequencies (`rope_theta`).
    pub base: f32,
    /// Factor on every frequency: 1 / the factor of linear position scaling (Chen et al. 2023, arXiv:2306.15595).
    pub scale: f32,
    /// Factor on cosines and sines, so on the length of queries and keys.
    pub magnitude: f32,
    /// Divisors of the frequencies that the file holds.
    pub factors: RopeFactors,
    /// Frequencies are blended between scaled and unscaled ones.
    pub yarn: Option<Yarn>,
}

/// Which two elements of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeKind {
    /// `i` and `i + dims / 2`, as in GPT-NeoX and in Hugging Face's code.
    Neox,
    /// `2 i` and `2 i + 1`, as in the original paper; GGUF files of the llama family are permuted for it.
    Interleaved,
}

/// Tensors of divisors, one a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeFactors {
    /// None.
    None,
    /// `rope_freqs.weight` (Llama 3.1; Gemma 4, where a huge divisor stops a pair).
    Fixed,
    /// `rope_factors_short.weight`, and `rope_factors_long.weight` for sequences of more than `original_context` tokens
    /// (LongRoPE, Ding et al. 2024, arXiv:2402.13753).
    ByLength {
        /// Tokens of the longest sequence with short factors.
        original_context: usize,
    },
}

/// YaRN (Peng et al. 2023, arXiv:2309.00071): pairs that turn often keep their frequency, pairs that turn less than once in
/// the original context are scaled, those between are blended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// Tokens for which the model was first trained.
    pub original_context: usize,
    /// Turns in the original context from which on a pair keeps its frequency.
    pub beta_fast: f32,
    /// Turns up to which a pair is scaled.
    pub beta_slow: f32,
}

impl RopeSpec {
    /// The tensors of divisors that the rotation needs.
    #[must_use]
    pub fn factor_tensors(&self) -> &'static [&'static str] {
        match self.factors {
            RopeFactors::None => &[],
            RopeFactors::Fixed => &[names::ROPE_FREQS],
            RopeFactors::ByLength { .. } => &[names::ROPE_FACTORS_SHORT, names::ROPE_FACTORS_LONG],
        }
    }

    /// The angle in radians by which pair `i` turns per position, for `i` in `0 .. dims / 2`:
    /// `base^(-2 i / dims) * scale / factors[i]`, blended by YaRN where the layer has it.
    ///
    /// `factors` is the content of the tensor `name`, to be given exactly where [`factor_tensors`](Self::factor_tensors)
    /// names one.
    ///
    /// # Errors
    ///
    /// [`EngineError::WrongShape`] when there is not one factor a pair, [`EngineError::InvalidTensorValue`] when a
    /// factor is not a finite number above zero.
    pub fn frequencies(&self, factors: Option<(&str, &[f32])>) -> Result<Vec<f64>, EngineError> {
        let pairs = self.dims / 2;
        if let Some((name, factors)) = factors {
            if factors.len() != pairs {
                return Err(EngineError::WrongShape {
                    name: name.to_owned(),
                    expected: vec![pairs as u64],
                    found: vec![factors.len() as u64],
                });
            }
            if let Some(index) = factors
                .iter()
                .position(|factor| !factor.is_normal() || *factor < 0.0)
            {
                return Err(EngineError::InvalidTensorValue {
                    name: name.to_owned(),
                    index,
                    found: factors[index],
                    expected: "a finite number above zero",
                });
            }
        }
        let scale = f64::from(self.scale);
        let frequency = |pair: usize| {
            let exponent = -2.0 * pair as f64 / self.dims as f64;
            let factor = factors.map_or(1.0, |(_, factors)| f64::from(factors[pair]));
            let frequency = f64::from(self.base).powf(exponent) / factor;
            let kept = self
                .yarn
                .map_or(0.0, |yarn| yarn.kept(pair, self.dims, self.base));
            frequency * (kept + (1.0 - kept) * scale)
        };
        Ok((0..pairs).map(frequency).collect())
    }
}

impl ModelSpec {
    /// The description with a context `factor` times as long, by YaRN on the layers that see everything, as the model cards
    /// of Qwen 2.5 and Qwen 3 say to do it.
    ///
    /// Short texts lose a little by it; `factor` should be no more than is needed.
    ///
    /// # Errors
    ///
    /// [`EngineError::CannotStretch`] for a factor below 1 or above 64, and for a model whose positions are not plain
    /// rotations: there is nothing to stretch, or it is stretched already.
    pub fn stretched(mut self, factor: f32) -> Result<Self, EngineError> {
        let refuse = |reason| Err(EngineError::CannotStretch { factor, reason });
        if !(1.0..=64.0).contains(&factor) {
            return refuse("the factor must be from 1 to 64");
        }
        let original_context = self.context_length;
        let mut any = false;
        for layer in &mut self.layers {
            let Mixer::Attention(attention) = &mut layer.mixer else {
                continue;
            };
            let rope = &mut attention.rope;
            // A window does not grow with the context.
            if rope.dims == 0 || attention.sliding_window.is_some() {
                continue;
            }
            if rope.yarn.is_some() || rope.factors != RopeFactors::None || rope.scale != 1.0 {
                return refuse("its rotation is scaled already");
            }
            rope.yarn = Some(Yarn {
                original_context,
                beta_fast: 32.0,
                beta_slow: 1.0,
            });
            rope.scale = 1.0 / factor;
            rope.magnitude *= 1.0 + 0.1 * factor.ln();
            any = true;
        }
        if !any {
            return refuse("it does not tell positions by rotation");
        }
        self.context_length = (original_context as f64 * f64::from(factor)) as usize;
        Ok(self)
    }
}

impl Yarn {
    /// How much of a pair's own frequency is kept, from 0 to 1: a ramp between the pairs that make `beta_fast` and
    /// `beta_slow` turns in the original context, whose ends are whole pairs.
    fn kept(&self, pair: usize, dims: usize, base: f32) -> f64 {
        let turning = |turns: f32| {
            let context = self.original_context as f64;
            let ratio = context / (f64::from(turns) * 2.0 * std::f64::consts::PI);
            dims as f64 * ratio.ln() / (2.0 * f64::from(base).ln())
        };
        let low = turning(self.beta_fast).floor().max(0.0);
        let high = turning(self.beta_slow).ceil().min(dims as f64 - 1.0);
        let span = if high > low { high - low } else { 0.001 };
        1.0 - ((pair as f64 - low) / span).clamp(0.0, 1.0)
    }
}
