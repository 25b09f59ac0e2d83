//! Progress of downloads and loading: bars where a person watches, a few plain lines elsewhere.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dunlin::{Progress, TypePlan};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::interrupt::{self, Interruptible};
use crate::output;
use crate::terminal::Terminal;

const BYTES: &str =
    "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
const UNKNOWN_SIZE: &str = "{msg} {spinner} {decimal_bytes} {decimal_bytes_per_sec}";
const PERCENT: &str = "{msg} {wide_bar} {percent}%";
const TEXTS: &str = "{msg} {wide_bar} {pos}/{len} {eta}";

/// Shows how a model is fetched, checked and loaded, and stops it at Ctrl-C.
pub(crate) struct ProgressView {
    terminal: Terminal,
    stopped: Arc<AtomicBool>,
    _work: Interruptible,
    bar: Option<(Phase, ProgressBar)>,
    said: Option<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Download,
    Check,
    Unpack,
    Import,
    Convert,
    Load,
    Measure,
    Compute,
    Index,
}

impl Phase {
    fn doing(self) -> &'static str {
        match self {
            Phase::Download => "Downloading",
            Phase::Check => "Checking",
            Phase::Unpack => "Unpacking",
            Phase::Import => "Importing",
            Phase::Convert => "Converting",
            Phase::Load => "Loading",
            Phase::Measure => "Measuring",
            Phase::Compute => "Computing",
            Phase::Index => "Indexing",
        }
    }
}

impl ProgressView {
    pub(crate) fn new(terminal: &Terminal) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stopped);
        let work = interrupt::begin(move || flag.store(true, Ordering::Relaxed));
        ProgressView {
            terminal: *terminal,
            stopped,
            _work: work,
            bar: None,
            said: None,
        }
    }

    /// One message of the hub.
    pub(crate) fn fetch(&mut self, progress: Progress) -> ControlFlow<()> {
        match progress {
            Progress::Trying { source } => self.line(&format!("Trying {source}"), false),
            Progress::Skipped { source, reason } => {
                self.line(&format!("Skipped {source}: {reason}"), false)
            }
            Progress::Waiting => self.line(
                "Another process is pulling this model; waiting for it",
                false,
            ),
            // What a licence wants to be told is said under --quiet, too.
            Progress::Notice(text) => self.line(&text, true),
            Progress::Downloading { done, total } => self.count(Phase::Download, done, total),
            Progress::Verifying { done, total } => self.count(Phase::Check, done, Some(total)),
            Progress::Unpacking { done, total } => self.count(Phase::Unpack, done, total),
            _ => {}
        }
        self.answer()
    }

    /// How much of a model folder is written as a GGUF file.
    pub(crate) fn import(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        self.count(Phase::Import, done, Some(total));
        self.answer()
    }

    /// As [`ProgressView::import`], for a file that the user asked for.
    pub(crate) fn convert(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        self.count(Phase::Convert, done, Some(total));
        self.answer()
    }

    /// What becomes of the types of the weights.
    pub(crate) fn types(&mut self, plan: &TypePlan) -> ControlFlow<()> {
        for note in plan.notes() {
            self.line(&note, false);
        }
        self.answer()
    }

    /// How much of the weights is loaded.
    pub(crate) fn load(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        self.share(Phase::Load, done, total)
    }

    /// How much of a measurement is done.
    pub(crate) fn measure(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        self.share(Phase::Measure, done, total)
    }

    /// How many texts of how many are computed.
    pub(crate) fn compute(&mut self, done: usize, total: usize) -> ControlFlow<()> {
        self.share(Phase::Compute, done as u64, total as u64)
    }

    /// How many files of how many are indexed.
    pub(crate) fn index(&mut self, done: usize, total: usize) -> ControlFlow<()> {
        self.share(Phase::Index, done as u64, total as u64)
    }

    /// Work on this machine, which needs no line where nobody watches.
    fn share(&mut self, phase: Phase, done: u64, total: u64) -> ControlFlow<()> {
        if done >= total {
            self.clear();
        } else if self.terminal.stderr && !self.terminal.quiet {
            self.draw(phase, done, Some(total));
        }
        self.answer()
    }

    /// Removes the bar.
    pub(crate) fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn answer(&self) -> ControlFlow<()> {
        if self.stopped.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn line(&mut self, text: &str, always: bool) {
        self.clear();
        self.said = None;
        if always {
            self.terminal.say(text)
        } else {
            self.terminal.note(text)
        }
    }

    fn count(&mut self, phase: Phase, done: u64, total: Option<u64>) {
        if self.terminal.quiet {
            return;
        }
        if self.terminal.stderr {
            self.draw(phase, done, total);
        } else if self.said != Some(phase) {
            self.said = Some(phase);
            let size = total
                .map(output::bytes)
                .unwrap_or_else(|| "a file of unknown size".to_owned());
            self.terminal.note(format_args!("{} {size}", phase.doing()));
        }
    }

    fn draw(&mut self, phase: Phase, done: u64, total: Option<u64>) {
        if self.bar.as_ref().is_none_or(|(shown, _)| *shown != phase) {
            self.clear();
            self.bar = Some((phase, bar(phase, done, total)));
        }
        if let Some((_, bar)) = &self.bar {
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_position(done);
        }
    }
}

impl Drop for ProgressView {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bar(phase: Phase, done: u64, total: Option<u64>) -> ProgressBar {
    let template = match (phase, total) {
        (Phase::Load | Phase::Measure, _) => PERCENT,
        (Phase::Compute | Phase::Index, _) => TEXTS,
        (_, Some(_)) => BYTES,
        (_, None) => UNKNOWN_SIZE,
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10))
        .with_style(style.progress_chars("█▉▊▋▌▍▎▏ "))
        .with_message(phase.doing())
        .with_position(done)
        // The speed is that of this download, without what an earlier one left.
        .with_elapsed(Duration::ZERO);
    bar.reset_eta();
    bar
}
