//! The flags of `dunlin run` that look for the best of several answers.

use anyhow::{Result, anyhow};
use clap::Args;
use dunlin::{
    BeamOptions, CancelToken, FinishReason, GenerateOptions, Lm, Prompt, ScoredCompletion, Usage,
};
use serde_json::json;

use super::run::usage_as_json;
use crate::args::at_least_one;
use crate::terminal::Terminal;
use crate::{interrupt, output};

/// How the best of several answers is looked for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Several answers")]
pub(super) struct SeveralArgs {
    /// Draw this many answers and show the one that the model finds likeliest by the token
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with = "logprobs")]
    best_of: Option<usize>,
    /// Follow this many likeliest beginnings side by side (beam search); nothing is drawn
    #[arg(
        long, value_name = "N", value_parser = at_least_one,
        conflicts_with_all = ["best_of", "logprobs", "stop", "draft", "speculate", "SamplingArgs"]
    )]
    beams: Option<usize>,
    /// With --beams: above 1 long answers are preferred, below 1 short ones [default: 1]
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        requires = "beams"
    )]
    length_penalty: Option<f32>,
}

impl SeveralArgs {
    pub(super) fn is_beams(&self) -> bool {
        self.beams.is_some()
    }

    pub(super) fn is_asked(&self) -> bool {
        self.best_of.is_some() || self.beams.is_some()
    }

    /// Looks for the answers and shows them; says how the best one ended and what it took.
    ///
    /// # Errors
    /// Those of the search, and a closed stdout.
    pub(super) fn run(
        &self,
        lm: &Lm,
        prompt: &Prompt,
        options: &GenerateOptions,
        as_json: bool,
        terminal: &Terminal,
    ) -> Result<(FinishReason, Usage)> {
        let answers = self.answers(lm, prompt, options)?;
        let Some(best) = answers.first() else {
            return Err(anyhow!(
                "the search was interrupted before its first answer"
            ));
        };
        let completion = &best.completion;
        if as_json {
            let all: Vec<_> = answers
                .iter()
                .map(|answer| {
                    json!({
                        "text": answer.completion.text,
                        "finish_reason": answer.completion.finish_reason.as_str(),
                        "score": answer.score,
                    })
                })
                .collect();
            output::json(&json!({
                "text": completion.text,
                "finish_reason": completion.finish_reason.as_str(),
                "usage": usage_as_json(&completion.usage),
                "answers": all,
            }))?;
        } else {
            terminal.answer(&completion.text)?;
            if !completion.text.ends_with('\n') {
                terminal.answer("\n")?;
            }
        }
        Ok((completion.finish_reason.clone(), completion.usage))
    }

    fn answers(
        &self,
        lm: &Lm,
        prompt: &Prompt,
        options: &GenerateOptions,
    ) -> Result<Vec<ScoredCompletion>> {
        let cancel = CancelToken::new();
        let switch = cancel.clone();
        let _work = interrupt::begin(move || switch.cancel());
        if let Some(samples) = self.best_of {
            let options = options.clone().with_cancel(cancel);
            return Ok(lm.best_of(prompt, samples, &options)?);
        }
        let mut beams = BeamOptions::new()
            .with_template(options.template.clone())
            .with_adapters(options.adapters.clone())
            .with_cancel(cancel);
        beams.max_tokens = options.max_tokens;
        beams.length_penalty = self.length_penalty.unwrap_or(beams.length_penalty);
        Ok(lm.beam_search(prompt, self.beams.unwrap_or(1), &beams)?)
    }
}
