//! Mirostat 2.0 (Basu et al. 2020, arXiv:2007.14966, algorithm 2).

use super::config::Mirostat;
use super::filter::{self, Candidate};

/// The limit of surprise, which follows the tokens that were drawn.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    settings: Mirostat,
    /// In bits.
    limit: f64,
}

impl Limit {
    pub(super) fn new(settings: Mirostat) -> Self {
        Limit {
            settings,
            limit: 2.0 * f64::from(settings.tau),
        }
    }

    /// Keeps the candidates that surprise no more than the limit, and the likeliest in any case.
    pub(super) fn cut(&self, candidates: &mut Vec<Candidate>) {
        let least = filter::total(candidates) * (-self.limit).exp2();
        let best = candidates.iter().min().copied();
        candidates.retain(|candidate| candidate.weight >= least || Some(*candidate) == best);
    }

    /// Learns how much the token that was drawn from `candidates` surprised.
    pub(super) fn follow(&mut self, drawn: Candidate, candidates: &[Candidate]) {
        let surprise = -(drawn.weight / filter::total(candidates)).log2();
        let error = surprise - f64::from(self.settings.tau);
        self.limit -= f64::from(self.settings.eta) * error;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::sampler::filter;

    /// llama.cpp draws with another generator: its draws are followed, and each time the same tokens must be left.
    #[test]
    fn the_limit_goes_where_that_of_llama_cpp_goes() {
        let fixture = include_str!("../../tests/fixtures/llama_samplers.json");
        let fixture: Value = serde_json::from_str(fixture).unwrap();
        let walks = fixture["mirostat"].as_array().unwrap();
        assert_eq!(walks.len(), 3);
        for walk in walks {
            let setting = |name: &str| walk[name].as_f64().unwrap();
            let mut limit = Limit::new(Mirostat {
                tau: setting("tau") as f32,
                eta: setting("eta") as f32,
            });
            for step in walk["steps"].as_array().unwrap() {
                let levels = step["levels"].as_array().unwrap().iter();
                let logits: Vec<f32> = levels
                    .map(|level| level.as_f64().unwrap() as f32 / 64.0)
                    .collect();
                let mut candidates = Vec::new();
                filter::collect(&logits, 0, &mut candidates).unwrap();
                filter::weigh(&mut candidates, setting("temperature"));
                limit.cut(&mut candidates);
                let kept: Vec<u64> = candidates.iter().map(|one| one.token.into()).collect();
                let expected = step["kept"].as_array().unwrap().iter();
                let expected: Vec<u64> = expected.map(|one| one[0].as_u64().unwrap()).collect();
                assert_eq!(kept, expected, "tau {}", setting("tau"));
                let selected = step["selected"].as_u64().unwrap();
                let drawn = candidates
                    .iter()
                    .find(|one| u64::from(one.token) == selected);
                limit.follow(*drawn.unwrap(), &candidates);
            }
        }
    }
}
