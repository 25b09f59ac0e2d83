//! How fast a model computes on this machine: the tests of llama.cpp's llama-bench, so that the numbers can be laid side by
//! side.
//!
//! A [`Bench`] loads a model by the way that [`Lm::load`](crate::Lm::load) goes and times steps of the engine: no text is
//! encoded and no token is sampled. Tests take turns: what disturbs the machine for a while meets all of them, so that their
//! ratios are worth more than their figures. [`cold_start`] times whole programs.

mod cold_start;
mod file_type;
mod machine;
mod plan;
mod spread;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunlin_compute::Tier;
use dunlin_engine::{
    Chunk, Engine, EngineConfig, EngineError, Logits, MAX_BATCH, ModelSpec, SequenceId,
};
use dunlin_format::Gguf;
use dunlin_hub::ModelRef;
use dunlin_text::TokenId;

use crate::info::{Header, MemoryEstimate, ModelInfo};
use crate::load::{LoadOptions, locate};
use crate::{Error, lm};

pub use cold_start::cold_start;
pub(crate) use machine::machine_memory;
pub use machine::{peak_resident_bytes, processor_name, resident_bytes};
pub use plan::{BenchKind, BenchOptions, BenchTest};
pub use spread::{NOISY, Spread};

/// Tokens at most of a generation that is run and not timed.
const WARM_UP: usize = 16;

/// What a test found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BenchResult {
    /// The test.
    pub test: BenchTest,
    /// Tokens per second over all sequences. (Those of `depth` are not counted, and their time is not taken.)
    pub tokens_per_second: Spread,
    /// Seconds of a run: of a prompt, the time to the scores of the first token.
    pub seconds: Spread,
}

/// A model that is loaded to be measured.
pub struct Bench {
    engine: Engine,
    gguf: Arc<Gguf>,
    info: ModelInfo,
    memory: MemoryEstimate,
    file_type: &'static str,
    path: PathBuf,
    load: Duration,
    tests: Vec<BenchTest>,
    runs: usize,
}

impl Bench {
    /// Loads a model with a cache that is just large enough for the tests, which all keep their depth in it; a context length in
    /// `load` is not looked at.
    ///
    /// # Errors
    /// As [`Lm::load`](crate::Lm::load); [`Error::CannotGenerate`] for an encoder, [`Error::ContextLength`] for a test that is
    /// longer than the context that the model was trained for, [`EngineError::WrongBatch`] for one with more sequences than a step
    /// takes.
    pub fn load(
        model: &ModelRef,
        mut load: LoadOptions<'_>,
        options: &BenchOptions,
    ) -> Result<Self, Error> {
        let (threads, tier) = load.device.resolve()?;
        let path = locate(model, &mut load)?.path;
        let start = Instant::now();
        let gguf = Arc::new(Gguf::open(&path)?);
        let mut spec = ModelSpec::from_gguf(&gguf)?;
        if let Some(factor) = load.yarn_factor {
            spec = spec.stretched(factor)?;
        }
        let tests = options.tests();
        let config = EngineConfig {
            threads,
            tier,
            context_length: positions_for(&tests, &spec)?,
            kv_types: load.kv_types,
            yarn_factor: load.yarn_factor,
        };
        // The tokenizer is built as for any other use, so that the time to load is the one that users wait.
        let types = load.type_plan(&gguf, &spec)?;
        let (engine, _) = lm::load_both(&gguf, config, &types, &mut load)?;
        let load = start.elapsed();
        let memory = MemoryEstimate {
            weights: engine.weight_bytes(),
            ..Header::of(&gguf, &spec, &types).memory(&spec, config.context_length, config.kv_types)
        };
        let info = ModelInfo::of(&gguf)?;
        Ok(Bench {
            file_type: file_type::file_type(&gguf, &info),
            info,
            engine,
            gguf,
            memory,
            path,
            load,
            tests,
            runs: options.runs.max(1),
        })
    }

    /// Runs all tests in turns: a round that is not timed, then those that are. `progress` is told, after each step, how many
    /// tokens of how many are computed; it ends the measurement with [`Error::Cancelled`] by [`ControlFlow::Break`]. Its time is
    /// not counted.
    ///
    /// # Errors
    /// [`Error::Cancelled`], and what the engine says.
    pub fn run(
        &mut self,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Vec<BenchResult>, Error> {
        let tests = self.tests.clone();
        let rounds = self.runs.saturating_add(1);
        let work = tests.iter().map(|test| test.work().saturating_mul(rounds));
        let depths = plan::lengths(&tests)
            .into_iter()
            .map(|(depth, lengths)| depth * lengths.len());
        let mut steps = Steps {
            done: 0,
            total: work.chain(depths).fold(0, usize::saturating_add),
            progress,
        };
        let mut held = Held::new();
        let seconds = self.measure(&tests, &mut held, &mut steps);
        for sequence in held.into_values().flatten() {
            self.engine.remove_sequence(sequence)?;
        }
        let results = tests.into_iter().zip(seconds?).map(|(test, seconds)| {
            let speeds = seconds.iter().map(|seconds| test.work() as f64 / seconds);
            BenchResult {
                test,
                tokens_per_second: Spread::of(speeds.collect()),
                seconds: Spread::of(seconds),
            }
        });
        Ok(results.collect())
    }

    /// What the model's metadata say.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The name of its quantization recipe, such as `Q4_K_M`; where the file names none, the type of most of its bytes.
    #[must_use]
    pub fn file_type(&self) -> &'static str {
        self.file_type
    }

    /// The memory that it takes, with a cache for the tests.
    #[must_use]
    pub fn memory(&self) -> MemoryEstimate {
        self.memory
    }

    /// Its file; of a split model, the first.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The time from opening the file to a model that is ready to compute.
    #[must_use]
    pub fn load_time(&self) -> Duration {
        self.load
    }

    /// Timed runs of each test.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// Threads that compute.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.engine.config().threads
    }

    /// Kernels in use.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.engine.config().tier
    }

    /// The seconds of each run of each test. What is put into `held` is the caller's to remove, whatever comes of it.
    fn measure(
        &mut self,
        tests: &[BenchTest],
        held: &mut Held,
        steps: &mut Steps<'_>,
    ) -> Result<Vec<Vec<f64>>, Error> {
        for (depth, lengths) in plan::lengths(tests) {
            for length in lengths {
                let sequence = self.engine.create_sequence();
                held.entry(depth).or_default().push(sequence);
                // Where the rotation depends on a sequence's length, it is to be right from the start.
                self.engine.expect_tokens(sequence, length)?;
                self.feed(sequence, 0..depth, Logits::None, steps)?;
            }
        }
        let mut seconds = vec![Vec::new(); tests.len()];
        for run in 0..=self.runs {
            for (test, seconds) in tests.iter().zip(&mut seconds) {
                let sequences = held.get(&test.depth).map_or(&[][..], Vec::as_slice);
                let sequences = &sequences[..test.sequences];
                let time = self.run_once(test, sequences, run == 0, steps)?;
                if run > 0 {
                    seconds.push(time.as_secs_f64());
                }
                self.back_to(sequences, test.depth, steps)?;
            }
        }
        Ok(seconds)
    }

    /// A run of a test, on sequences of its depth. To warm up, a generation is short.
    fn run_once(
        &mut self,
        test: &BenchTest,
        sequences: &[SequenceId],
        warm_up: bool,
        steps: &mut Steps<'_>,
    ) -> Result<Duration, Error> {
        let from = test.depth;
        match test.kind {
            BenchKind::Prompt => {
                let positions = from..from + test.tokens;
                self.feed(sequences[0], positions, Logits::Last, steps)
            }
            BenchKind::Generation => {
                let tokens = match warm_up {
                    true => test.tokens.min(WARM_UP),
                    false => test.tokens,
                };
                self.generate(sequences, from..from + tokens, steps)
            }
        }
    }

    /// Appends the tokens of these positions in steps as large as may be.
    fn feed(
        &mut self,
        sequence: SequenceId,
        positions: std::ops::Range<usize>,
        logits: Logits,
        steps: &mut Steps<'_>,
    ) -> Result<Duration, Error> {
        let tokens: Vec<TokenId> = positions.map(|at| self.token(0, at)).collect();
        let pieces = tokens.chunks(self.engine.max_batch());
        let last = pieces.len().saturating_sub(1);
        let mut time = Duration::ZERO;
        for (index, tokens) in pieces.enumerate() {
            let logits = if index == last { logits } else { Logits::None };
            time += self.step(&[Chunk {
                sequence,
                tokens,
                logits,
            }])?;
            steps.count(tokens.len())?;
        }
        Ok(time)
    }

    /// Appends the tokens of these positions one by one, to all sequences at once.
    fn generate(
        &mut self,
        sequences: &[SequenceId],
        positions: std::ops::Range<usize>,
        steps: &mut Steps<'_>,
    ) -> Result<Duration, Error> {
        let mut time = Duration::ZERO;
        for at in positions {
            let tokens: Vec<[TokenId; 1]> = (0..sequences.len())
                .map(|index| [self.token(index, at)])
                .collect();
            let chunks: Vec<Chunk<'_>> = sequences
                .iter()
                .zip(&tokens)
                .map(|(&sequence, tokens)| Chunk {
                    sequence,
                    tokens,
                    logits: Logits::Last,
                })
                .collect();
            time += self.step(&chunks)?;
            steps.count(sequences.len())?;
        }
        Ok(time)
    }

    /// One step, and what every step of a generation does after it.
    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Duration, Error> {
        let start = Instant::now();
        self.engine.step(chunks, |_| {})?;
        self.gguf.release_pages();
        Ok(start.elapsed())
    }

    /// Takes what a run appended off again. Recurrent layers may go back further; what is missing then is computed.
    fn back_to(
        &mut self,
        sequences: &[SequenceId],
        depth: usize,
        steps: &mut Steps<'_>,
    ) -> Result<(), Error> {
        for &sequence in sequences {
            let left = self.engine.truncate_sequence(sequence, depth)?;
            self.feed(sequence, left..depth, Logits::None, steps)?;
        }
        Ok(())
    }

    /// A token for a position: 7919 is a prime, so that they are spread over the vocabulary.
    fn token(&self, sequence: usize, position: usize) -> TokenId {
        ((sequence * 131 + position) * 7919 % self.engine.spec().vocab_size) as TokenId
    }
}

/// Positions that the cache needs for all tests.
///
/// # Errors
/// [`Error::CannotGenerate`], [`Error::ContextLength`], [`EngineError::WrongBatch`].
fn positions_for(tests: &[BenchTest], spec: &ModelSpec) -> Result<usize, Error> {
    if !spec.can_generate() {
        return Err(Error::CannotGenerate {
            architecture: spec.architecture.clone(),
        });
    }
    let limit = spec.context_length;
    let lengths = tests
        .iter()
        .map(|test| test.depth.saturating_add(test.tokens));
    if let Some(requested) = lengths.filter(|&length| length > limit).max() {
        return Err(Error::ContextLength { requested, limit });
    }
    if let Some(sequences) = tests.iter().map(|test| test.sequences).max()
        && sequences > MAX_BATCH
    {
        let (tokens, limit) = (sequences, MAX_BATCH);
        return Err(EngineError::WrongBatch { tokens, limit }.into());
    }
    Ok(plan::positions(tests))
}

/// The sequences that hold the tokens of a depth, by depth.
type Held = BTreeMap<usize, Vec<SequenceId>>;

/// Counts what is done.
struct Steps<'a> {
    done: usize,
    total: usize,
    progress: &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>,
}

impl Steps<'_> {
    /// # Errors
    /// [`Error::Cancelled`].
    fn count(&mut self, tokens: usize) -> Result<(), Error> {
        // A short warm-up, or a state that is computed again, makes it a little less or more than was said.
        self.done = (self.done + tokens).min(self.total);
        match (self.progress)(self.done, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}
