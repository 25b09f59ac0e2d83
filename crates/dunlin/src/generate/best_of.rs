//! Several answers, the best first.

use super::{FinishReason, GenerateOptions, ScoredCompletion, random_seed};
use crate::{Error, Lm, Prompt};

impl Lm {
    /// Draws several answers and returns them with their scores, the best first. The score is the mean log-probability of an
    /// answer's tokens, the end-of-generation token included, by the model itself
    /// ([`TokenLogprob`](crate::TokenLogprob)); so it does not prefer short answers.
    ///
    /// The prompt is computed once. The answers have the seeds `seed`, `seed + 1` and so on, where `seed` is that of the
    /// options; each can be repeated with [`Lm::generate`] and the seed in its usage. At temperature 0 they are all the
    /// same.
    ///
    /// # Errors
    /// As [`Lm::generate`]; [`Error::SearchSetting`] where no answer is asked for. Where the generation is cancelled, the answers
    /// so far are returned, the last of them incomplete.
    pub fn best_of(
        &self,
        prompt: &Prompt,
        samples: usize,
        options: &GenerateOptions,
    ) -> Result<Vec<ScoredCompletion>, Error> {
        if samples == 0 {
            return Err(Error::SearchSetting {
                setting: "the number of answers",
                found: samples.to_string(),
                allowed: "1 or more".to_owned(),
            });
        }
        let first = options.seed.unwrap_or_else(random_seed);
        let mut answers = Vec::new();
        for index in 0..samples {
            let mut options = options.clone();
            options.seed = Some(first.wrapping_add(index as u64));
            options.logprobs.get_or_insert(0);
            let (completion, mean) = self.generate(prompt, &options)?.complete_with_mean()?;
            let is_cancelled = completion.finish_reason == FinishReason::Cancelled;
            let score = mean.unwrap_or(f64::NEG_INFINITY);
            answers.push(ScoredCompletion { completion, score });
            if is_cancelled {
                break;
            }
        }
        if options.logprobs.is_none() {
            for answer in &mut answers {
                answer.completion.logprobs = None;
            }
        }
        answers.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(answers)
    }
}
