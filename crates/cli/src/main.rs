//! The `dunlin` command: arguments in, calls to the SDK, answers on stdout and everything else on stderr.

mod args;
mod commands;
mod exit;
mod interrupt;
mod kv;
mod lists;
mod output;
mod progress;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use terminal::Terminal;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let terminal = Terminal::new(cli.global.quiet);
    let result = interrupt::install().and_then(|()| commands::run(cli, &terminal));
    exit::finish(result, &terminal)
}
