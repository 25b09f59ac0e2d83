//! Measuring speed, on a tiny model: what is run and counted, never how fast.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::ops::ControlFlow;
use std::process::Command;

use common::{options, tiny_ref};
use dunlin::{Bench, BenchKind, BenchOptions, Error, cold_start};

fn small() -> BenchOptions {
    BenchOptions::new()
        .with_prompts([300])
        .with_generations([3])
        .with_sequences([2, 1])
        .with_depths([0, 33])
        .with_runs(2)
}

#[test]
fn every_test_is_run_so_many_times_and_progress_ends_at_the_total() {
    let mut bench = Bench::load(&tiny_ref(), options(), &small()).unwrap();
    let mut seen = Vec::new();
    let results = bench
        .run(&mut |done, total| {
            seen.push((done, total));
            ControlFlow::Continue(())
        })
        .unwrap();
    let tests: Vec<_> = results
        .iter()
        .map(|result| (result.test.kind, result.test.depth, result.test.sequences))
        .collect();
    let (prompt, generation) = (BenchKind::Prompt, BenchKind::Generation);
    assert_eq!(
        tests,
        [
            (prompt, 0, 1),
            (generation, 0, 2),
            (generation, 0, 1),
            (prompt, 33, 1),
            (generation, 33, 2),
            (generation, 33, 1)
        ]
    );
    for result in &results {
        assert_eq!(result.seconds.samples.len(), 2);
        let work = (result.test.tokens * result.test.sequences) as f64;
        let pairs = result
            .seconds
            .samples
            .iter()
            .zip(&result.tokens_per_second.samples);
        for (seconds, speed) in pairs {
            assert!((seconds * speed - work).abs() < 1e-6);
        }
    }
    assert!(seen.is_sorted());
    let (done, total) = *seen.last().unwrap();
    assert_eq!(done, total);
}

#[test]
fn a_measurement_can_be_cancelled_and_begun_again() {
    let mut bench = Bench::load(&tiny_ref(), options(), &small()).unwrap();
    let mut steps = 0;
    let error = bench
        .run(&mut |_, _| {
            steps += 1;
            match steps {
                5 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        })
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error:?}");
    assert_eq!(steps, 5);
    // The cache is as empty as before.
    let again = bench.run(&mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(again.len(), 6);
}

#[test]
fn a_test_beyond_the_context_is_refused_before_weights_are_read() {
    let options_ = small().with_depths([400]);
    let error = Bench::load(&tiny_ref(), options(), &options_)
        .map(|_| ())
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::ContextLength {
                requested: 700,
                limit: 640
            }
        ),
        "{error:?}"
    );
}

#[test]
fn more_sequences_than_a_step_takes_are_refused_before_weights_are_read() {
    let options_ = small().with_sequences([1, 1_000_000_000]);
    let error = Bench::load(&tiny_ref(), options(), &options_)
        .map(|_| ())
        .unwrap_err();
    assert!(
        error.to_string().contains("a step takes 1 to 256 tokens"),
        "{error}"
    );
}

#[test]
fn a_program_that_fails_gives_no_time() {
    let none = || Command::new("/no/such/program");
    let error = cold_start(3, none, &mut |_, _| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, Error::ColdStart { .. }), "{error:?}");
}

#[cfg(unix)]
#[test]
fn a_program_is_started_once_more_than_is_counted() {
    let mut started = 0;
    let command = || {
        started += 1;
        Command::new("true")
    };
    let seconds = cold_start(3, command, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(seconds.samples.len(), 3);
    assert_eq!(started, 4);
    let error = cold_start(1, || Command::new("false"), &mut |_, _| {
        ControlFlow::Continue(())
    });
    assert!(matches!(error, Err(Error::ColdStart { .. })));
}
