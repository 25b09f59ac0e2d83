//! The rope keys of a file.

use super::build::File;
use super::families::{Rope, Windows};
use super::read::{Reader, limit};
use super::{RopeFactors, RopeKind, RopeSpec, Yarn, names};
use crate::EngineError;

/// The rope keys of a file: one rotation for layers that see everything, one for layers with a window.
pub(super) struct Ropes {
    kind: RopeKind,
    /// Every so many layers one does not rotate.
    skip: Option<usize>,
    dims: Option<usize>,
    dims_local: Option<usize>,
    global: RopeSpec,
    local: RopeSpec,
}

impl Ropes {
    pub(super) fn read(file: &File<'_>) -> Result<Self, EngineError> {
        let (reader, family) = (&file.reader, file.family);
        let (kind, skip) = match family.rope {
            Rope::All(kind) => (kind, None),
            Rope::AllBut(kind, period) => (kind, Some(period)),
            Rope::None => (RopeKind::Neox, Some(1)),
        };
        let scaling = reader.metadata.str(&reader.key("rope.scaling.type"))?;
        let factor = match scaling {
            Some("none") => None,
            // Files of 2023 have the second key.
            _ => match reader.positive_or_off("rope.scaling.factor")? {
                Some(factor) => Some(factor),
                None => reader.positive_or_off("rope.scale_linear")?,
            },
        };
        let factor = factor.unwrap_or(1.0);
        let factors = file.rope_factors()?;
        let by_length = matches!(factors, RopeFactors::ByLength { .. });
        let yarn = match scaling {
            Some("yarn") => Some(read_yarn(reader)?),
            _ => None,
        };
        let own_magnitude = reader.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let magnitude = match yarn {
            Some(_) => own_magnitude * yarn_magnitude(reader, factor)?,
            None => own_magnitude,
        };
        let global = RopeSpec {
            kind,
            dims: 0,
            base: reader.positive("rope.freq_base")?.unwrap_or(10_000.0),
            // The factor tensors of LongRoPE hold the whole scaling.
            scale: if by_length { 1.0 } else { 1.0 / factor },
            magnitude,
            factors,
            yarn,
        };
        let local = match family.windows {
            Windows::Alternating {
                local_base: Some(base),
                ..
            } => RopeSpec {
                base: reader.positive("rope.freq_base_swa")?.unwrap_or(base),
                scale: 1.0,
                magnitude: 1.0,
                factors: RopeFactors::None,
                yarn: None,
                ..global
            },
            _ => global.clone(),
        };
        Ok(Ropes {
            kind,
            skip,
            dims: reader.optional_size("rope.dimension_count", limit::HEAD_DIM)?,
            dims_local: reader.optional_size("rope.dimension_count_swa", limit::HEAD_DIM)?,
            global,
            local,
        })
    }

    pub(super) fn of_layer(
        &self,
        reader: &Reader<'_>,
        index: usize,
        local: bool,
        head_dim: usize,
    ) -> Result<RopeSpec, EngineError> {
        if self
            .skip
            .is_some_and(|period| (index + 1).is_multiple_of(period))
        {
            return Ok(RopeSpec {
                kind: self.kind,
                dims: 0,
                base: 1.0,
                scale: 1.0,
                magnitude: 1.0,
                factors: RopeFactors::None,
                yarn: None,
            });
        }
        let dims = self
            .dims_local
            .filter(|_| local)
            .or(self.dims)
            .unwrap_or(head_dim);
        if dims > head_dim || !dims.is_multiple_of(2) {
            return Err(EngineError::InvalidMetadata {
                key: reader.key("rope.dimension_count"),
                found: dims.to_string(),
                expected: format!("an even number of at most the head's length, {head_dim}"),
            });
        }
        let rope = if local { &self.local } else { &self.global };
        Ok(RopeSpec {
            dims,
            ..rope.clone()
        })
    }
}

impl File<'_> {
    fn rope_factors(&self) -> Result<RopeFactors, EngineError> {
        if self.has(names::ROPE_FACTORS_LONG) {
            let suffix = "rope.scaling.original_context_length";
            let original_context = self.reader.size(suffix, limit::CONTEXT)?;
            return Ok(RopeFactors::ByLength { original_context });
        }
        Ok(match self.has(names::ROPE_FREQS) {
            true => RopeFactors::Fixed,
            false => RopeFactors::None,
        })
    }
}

fn read_yarn(reader: &Reader<'_>) -> Result<Yarn, EngineError> {
    Ok(Yarn {
        original_context: reader.size("rope.scaling.original_context_length", limit::CONTEXT)?,
        beta_fast: reader
            .positive("rope.scaling.yarn_beta_fast")?
            .unwrap_or(32.0),
        beta_slow: reader
            .positive("rope.scaling.yarn_beta_slow")?
            .unwrap_or(1.0),
    })
}

/// `1 + 0.1 ln(factor)`, over the same with `yarn_log_multiplier` in it where the file has that.
fn yarn_magnitude(reader: &Reader<'_>, factor: f32) -> Result<f32, EngineError> {
    let magnitude = |weight: f32| {
        if factor > 1.0 {
            1.0 + 0.1 * weight * factor.ln()
        } else {
            1.0
        }
    };
    Ok(
        match reader.positive_or_off("rope.scaling.yarn_log_multiplier")? {
            Some(weight) => magnitude(1.0) / magnitude(weight),
            None => magnitude(1.0),
        },
    )
}
