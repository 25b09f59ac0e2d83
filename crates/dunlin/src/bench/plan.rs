//! Which tests a benchmark has.

use std::collections::BTreeMap;
use std::fmt;

use dunlin_compute::POSITIONS_PER_BLOCK;

/// What a benchmark measures. Each prompt and each generation is measured at each depth.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BenchOptions {
    /// Lengths of prompts, in tokens; 0 is left out.
    pub prompts: Vec<usize>,
    /// Lengths of generations, in tokens; 0 is left out.
    pub generations: Vec<usize>,
    /// Tokens that a sequence holds already when a test begins.
    pub depths: Vec<usize>,
    /// Numbers of sequences that generate side by side, in one step; 0 is left out. Prompts are computed alone.
    pub sequences: Vec<usize>,
    /// Timed runs of each test; 0 counts as 1. One more goes before them and is not timed.
    pub runs: usize,
}

impl Default for BenchOptions {
    /// A prompt of 512 tokens and a generation of 128, for 1, 2, 4 and 8 sequences, five times each.
    fn default() -> Self {
        BenchOptions {
            prompts: vec![512],
            generations: vec![128],
            depths: vec![0],
            sequences: vec![1, 2, 4, 8],
            runs: 5,
        }
    }
}

impl BenchOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With prompts of these lengths.
    #[must_use]
    pub fn with_prompts(mut self, tokens: impl Into<Vec<usize>>) -> Self {
        self.prompts = tokens.into();
        self
    }

    /// With generations of these lengths.
    #[must_use]
    pub fn with_generations(mut self, tokens: impl Into<Vec<usize>>) -> Self {
        self.generations = tokens.into();
        self
    }

    /// At these depths.
    #[must_use]
    pub fn with_depths(mut self, tokens: impl Into<Vec<usize>>) -> Self {
        self.depths = tokens.into();
        self
    }

    /// With these numbers of sequences side by side.
    #[must_use]
    pub fn with_sequences(mut self, sequences: impl Into<Vec<usize>>) -> Self {
        self.sequences = sequences.into();
        self
    }

    /// With this number of timed runs.
    #[must_use]
    pub fn with_runs(mut self, runs: usize) -> Self {
        self.runs = runs;
        self
    }

    /// The tests, in the order in which they are run: by depth, prompts before generations.
    #[must_use]
    pub fn tests(&self) -> Vec<BenchTest> {
        let mut tests = Vec::new();
        let some = |list: &[usize]| list.iter().copied().filter(|&number| number > 0).collect();
        let (prompts, generations): (Vec<_>, Vec<_>) =
            (some(&self.prompts), some(&self.generations));
        let sequences: Vec<_> = some(&self.sequences);
        for &depth in &self.depths {
            tests.extend(prompts.iter().map(|&tokens| BenchTest {
                kind: BenchKind::Prompt,
                tokens,
                depth,
                sequences: 1,
            }));
            for &tokens in &generations {
                tests.extend(sequences.iter().map(|&sequences| BenchTest {
                    kind: BenchKind::Generation,
                    tokens,
                    depth,
                    sequences,
                }));
            }
        }
        tests
    }
}

/// The work of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchKind {
    /// A prompt, in steps as large as the engine takes; the scores after its last token are computed.
    Prompt,
    /// One token after the other, with the scores after each.
    Generation,
}

/// One line of the table. Its name is llama-bench's: `pp512`, `tg128`, `tg128 @ d4096`; with several sequences, `tg128 x 8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BenchTest {
    /// Prompt or generation.
    pub kind: BenchKind,
    /// Tokens that are computed, of each sequence.
    pub tokens: usize,
    /// Tokens that each sequence holds before.
    pub depth: usize,
    /// Sequences side by side.
    pub sequences: usize,
}

impl BenchTest {
    /// Tokens that a run computes, over all sequences.
    pub(super) fn work(self) -> usize {
        self.tokens * self.sequences
    }
}

/// How long each sequence gets whose tests begin at some depth, by depth. A test takes the first sequences of its depth.
pub(super) fn lengths(tests: &[BenchTest]) -> BTreeMap<usize, Vec<usize>> {
    let mut depths: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for test in tests {
        let lengths = depths.entry(test.depth).or_default();
        if lengths.len() < test.sequences {
            lengths.resize(test.sequences, 0);
        }
        for length in &mut lengths[..test.sequences] {
            *length = (*length).max(test.depth + test.tokens);
        }
    }
    depths
}

/// Positions that the cache must have for all these sequences; each takes whole blocks.
pub(super) fn positions(tests: &[BenchTest]) -> usize {
    let lengths = lengths(tests).into_values().flatten();
    let blocks: usize = lengths
        .map(|length| length.div_ceil(POSITIONS_PER_BLOCK))
        .sum();
    blocks.max(1) * POSITIONS_PER_BLOCK
}

impl fmt::Display for BenchTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            BenchKind::Prompt => "pp",
            BenchKind::Generation => "tg",
        };
        write!(f, "{kind}{}", self.tokens)?;
        if self.sequences > 1 {
            write!(f, " x {}", self.sequences)?;
        }
        if self.depth > 0 {
            write!(f, " @ d{}", self.depth)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(options: &BenchOptions) -> Vec<String> {
        options.tests().iter().map(BenchTest::to_string).collect()
    }

    #[test]
    fn tests_have_the_names_of_llama_bench() {
        assert_eq!(
            names(&BenchOptions::new()),
            ["pp512", "tg128", "tg128 x 2", "tg128 x 4", "tg128 x 8"]
        );
        let deep = BenchOptions::new()
            .with_depths([0, 4096])
            .with_sequences([1]);
        assert_eq!(
            names(&deep),
            ["pp512", "tg128", "pp512 @ d4096", "tg128 @ d4096"]
        );
    }

    #[test]
    fn lengths_of_zero_leave_a_test_out() {
        let options = BenchOptions::new()
            .with_prompts([0, 7])
            .with_generations([0]);
        assert_eq!(names(&options), ["pp7"]);
        assert_eq!(names(&options.with_prompts([0])), [""; 0]);
    }

    #[test]
    fn tests_of_a_depth_share_sequences_of_whole_blocks() {
        let options = BenchOptions::new()
            .with_prompts([40])
            .with_generations([1])
            .with_depths([0, 32])
            .with_sequences([1, 3]);
        let tests = options.tests();
        let expected = BTreeMap::from([(0, vec![40, 1, 1]), (32, vec![72, 33, 33])]);
        assert_eq!(lengths(&tests), expected);
        let blocks = (2 + 1 + 1) + (3 + 2 + 2);
        assert_eq!(positions(&tests), blocks * POSITIONS_PER_BLOCK);
        assert_eq!(positions(&[]), POSITIONS_PER_BLOCK);
        assert_eq!(tests.iter().map(|test| test.work()).sum::<usize>(), 88);
    }
}
