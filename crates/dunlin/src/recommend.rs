//! Which models of the catalog suit a machine, reckoned from their cards: nothing is fetched and no file is opened.
//!
//! What is reckoned here is rough, on the safe side. Of a file that is on this machine, [`fit`](crate::fit) and
//! [`MemoryEstimate`](crate::MemoryEstimate) know the bytes.

use dunlin_hub::{Capability, ModelCard};
use serde::Serialize;

use crate::load::DEFAULT_CONTEXT_LENGTH;
use crate::{Device, import};

/// Tokens per second at which nobody waits for an answer: about four times as fast as people read silently (238 words a minute,
/// Brysbaert 2019, and 1.3 tokens a word).
const PLEASANT_SPEED: f64 = 20.0;
/// Score from which a model is fast enough that its size decides.
const COMFORTABLE: f64 = 0.5;
/// Bytes for tokenizer, buffers and the program.
const BESIDE_WEIGHTS: f64 = 100e6;
/// Bytes of keys and values of a token, for each parameter and at most: those of models with grouped-query attention.
const KV_PER_PARAMETER: f64 = 0.25e-3;
const KV_AT_MOST: f64 = 150e3;

/// What a model is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Task {
    /// A conversation.
    Chat,
    /// Writing and completing program code.
    Code,
    /// Calling tools.
    Tools,
    /// Thinking before an answer.
    Reasoning,
    /// Turning texts into vectors.
    Embed,
    /// Scoring how well texts answer a query.
    Rerank,
}

impl Task {
    /// What a model must be able to do for it.
    #[must_use]
    pub fn capability(self) -> Capability {
        match self {
            Task::Chat => Capability::Chat,
            Task::Code => Capability::Code,
            Task::Tools => Capability::Tools,
            Task::Reasoning => Capability::Reasoning,
            Task::Embed => Capability::Embeddings,
            Task::Rerank => Capability::Rerank,
        }
    }
}

/// How a model suits a device, reckoned from its card.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Rating {
    /// Bytes of memory with the default context.
    pub memory: u64,
    /// Whether there is room for it at present, without other programs giving up theirs.
    pub fits: bool,
    /// Tokens per second of an answer: the device reads all weights for each.
    pub tokens_per_second: f64,
    /// See [`performance_score`].
    pub score: f64,
}

/// A model of the catalog that suits a device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Recommendation {
    /// Its card.
    pub card: &'static ModelCard,
    /// How it suits.
    pub rating: Rating,
}

/// How well a device runs a model, from 0 to 1:
///
/// - 0: not at all. It does not fit into the memory, this build cannot compute it, or its card says neither size nor parameters.
/// - below 1: the predicted speed of an answer as a share of 20 tokens per second. 0.25 is about how fast people read.
/// - 1: 20 tokens per second and more, where nobody waits.
///
/// Half of that where the model fits into the memory of the machine, but not into what is available at present.
///
/// The speed is that of the device's memory: an answer reads all weights for each token. It says nothing of how long a
/// prompt takes, and nothing of how good the answers are.
#[must_use]
pub fn performance_score(card: &ModelCard, device: &Device) -> f64 {
    rate(card, device).map_or(0.0, |rating| rating.score)
}

/// How a model suits a device; `None` where this build cannot compute it, or its card says neither size nor parameters.
#[must_use]
pub fn rate(card: &ModelCard, device: &Device) -> Option<Rating> {
    if let Some(architecture) = &card.architecture {
        import::refuse_unsupported(architecture).ok()?;
    }
    let parameters = card.parameter_count().map(|count| count as f64);
    let weights = match card.file_size() {
        Some(bytes) => bytes as f64,
        None => parameters? * bits_per_weight(card.quantization.as_deref()) / 8.0,
    };
    // A weight has at least 4 bits in nearly all files.
    let parameters = parameters.unwrap_or(weights * 2.0);
    let trained = card.context_length.unwrap_or(u64::MAX);
    let context = trained.min(DEFAULT_CONTEXT_LENGTH as u64) as f64;
    let kv_cache = context * (parameters * KV_PER_PARAMETER).min(KV_AT_MOST);
    let memory = (weights + kv_cache + BESIDE_WEIGHTS) as u64;
    let within = |limit: Option<u64>| limit.is_none_or(|limit| memory <= limit);
    let tokens_per_second = device.bandwidth / weights.max(1.0);
    let room = match (within(device.memory_available), within(device.memory_total)) {
        (true, _) => 1.0,
        (false, true) => 0.5,
        (false, false) => 0.0,
    };
    Some(Rating {
        memory,
        fits: within(device.memory_available),
        tokens_per_second,
        score: room * (tokens_per_second / PLEASANT_SPEED).min(1.0),
    })
}

/// The models of the catalog that can do a task and fit into the memory that is available, the best first: of those that write
/// comfortably fast (a score of 0.5, 10 tokens per second) the largest, because a larger model of one generation answers better;
/// then the others, the fastest first.
#[must_use]
pub fn recommend(task: Task, device: &Device) -> Vec<Recommendation> {
    let mut fitting = fitting(device);
    fitting.retain(|found| found.card.can(task.capability()));
    fitting
}

/// All models of the catalog that fit into the memory that is available, in the order of [`recommend`].
#[must_use]
pub fn fitting(device: &Device) -> Vec<Recommendation> {
    let cards = ModelCard::predefined().iter();
    let mut found: Vec<Recommendation> = cards
        .filter_map(|card| {
            let rating = rate(card, device)?;
            rating.fits.then_some(Recommendation { card, rating })
        })
        .collect();
    found.sort_by(|a, b| {
        let comfortable = |found: &Recommendation| found.rating.score >= COMFORTABLE;
        let size = |found: &Recommendation| found.card.parameter_count().unwrap_or(0);
        let by_class = comfortable(b).cmp(&comfortable(a));
        by_class.then_with(|| match comfortable(a) {
            true => size(b).cmp(&size(a)),
            false => b.rating.score.total_cmp(&a.rating.score),
        })
    });
    found
}

/// Bits of a weight in a file of this recipe, with the embeddings that most recipes keep in more of them.
fn bits_per_weight(quantization: Option<&str>) -> f64 {
    match quantization.unwrap_or_default() {
        "F32" => 32.0,
        "F16" | "BF16" => 16.0,
        "Q6_K" => 6.7,
        "Q5_K_M" | "Q5_K_S" | "Q5_0" | "Q5_1" => 6.0,
        "Q4_K_M" | "Q4_K_S" | "Q4_0" | "Q4_1" => 5.3,
        // Q8_0, and on the safe side what is not named.
        _ => 8.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(memory: u64) -> Device {
        Device::cpu().with_memory(memory).with_bandwidth(24e9)
    }

    #[test]
    fn a_score_falls_with_size_and_is_nothing_where_there_is_no_room() {
        let roomy = device(64 << 30);
        let score = |id| performance_score(dunlin_hub::find(id).unwrap(), &roomy);
        assert_eq!(score("smollm2:135m"), 1.0);
        assert!(score("qwen3:4b") < score("qwen3:1.7b"));
        assert!(
            (0.1..0.5).contains(&score("llama3.1:8b")),
            "{}",
            score("llama3.1:8b")
        );
        let tight = device(1 << 30);
        assert_eq!(
            performance_score(dunlin_hub::find("qwen3:4b").unwrap(), &tight),
            0.0
        );
        // It fits into the machine, and at present not beside what else runs.
        let mut busy = roomy;
        busy.memory_available = Some(1 << 20);
        let busy = performance_score(dunlin_hub::find("smollm2:135m").unwrap(), &busy);
        assert_eq!(busy, 0.5);
    }

    #[test]
    fn the_largest_comfortable_model_comes_first_and_nothing_that_does_not_fit() {
        let chat = recommend(Task::Chat, &device(64 << 30));
        assert_eq!(chat[0].card.id, "qwen3:1.7b");
        assert!(chat.iter().all(|found| found.card.can(Capability::Chat)));
        let small = recommend(Task::Chat, &device(500 << 20));
        let ids: Vec<_> = small.iter().map(|found| found.card.id.as_str()).collect();
        assert_eq!(ids, ["smollm2:135m"]);
        let code = recommend(Task::Code, &device(1200 << 20));
        assert_eq!(code[0].card.id, "qwen2.5-coder:0.5b");
    }

    #[test]
    fn embedding_models_are_recommended_for_embedding_alone() {
        let embed = recommend(Task::Embed, &device(4 << 30));
        let ids: Vec<_> = embed.iter().map(|found| found.card.id.as_str()).collect();
        assert!(
            ids.contains(&"all-minilm:l6-v2") && !ids.contains(&"smollm2:135m"),
            "{ids:?}"
        );
    }
}
