//! Attention against the limits of the machine.
//!
//! `cargo bench -p dunlin-compute --bench attention [-- THREADS [PART OF A NAME]]` prints for each model shape the multiply-adds of prefill as
//! a fraction of what registers allow, and the bytes of decode as a fraction of what memory gives, both measured in the same
//! run.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    unsafe_code,
    dead_code
)]

mod limits;

use dunlin_compute::{
    Attention, AttentionJob, AttentionScratch, KvElement, KvLayout, KvSlabs, POSITIONS_PER_BLOCK,
    Pool, Sight, Tier, attend, store_kv,
};
use std::time::Instant;

/// Bytes of all caches together that decode goes through in turn, as a model's layers: more than any third-level cache.
const BYTES: usize = 768 << 20;
const RUNS: usize = 5;

struct Model {
    layout: KvLayout,
    heads: usize,
    window: Option<usize>,
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let threads = args.next().map_or(2, |arg| arg.parse().unwrap());
    let only = args.next().unwrap_or_default();
    let pool = Pool::new(threads).unwrap();
    let (peak, memory) = (multiply_adds(&pool), memory(&pool));
    println!(
        "{threads} threads, {}: {:.0} GFLOP/s of multiply-adds, {memory:.1} GB/s of memory",
        Tier::detect().name(),
        2.0 * peak
    );
    let layout = |heads, head_dim| KvLayout {
        heads,
        head_dim_k: head_dim,
        head_dim_v: head_dim,
    };
    let models = [
        ("Qwen2.5 0.5B", layout(2, 64), 14, None),
        ("SmolLM2 135M", layout(3, 64), 9, None),
        ("Gemma 3 270M", layout(1, 256), 4, None),
        ("its windows", layout(1, 256), 4, Some(512)),
        ("Llama 3.1 8B", layout(8, 128), 32, None),
    ];
    for (name, layout, heads, window) in models {
        let model = Model {
            layout,
            heads,
            window,
        };
        for (past, tokens) in [(0, 256), (3840, 256), (4000, 8)] {
            let label = format!("{name:14} {tokens:4} tokens after {past:4}     ");
            if !label.contains(&only) {
                continue;
            }
            let (seconds, _) = run(&pool, &model, KvElement::F16, 1, past, tokens);
            let seen = |t: usize| window.map_or(past + t + 1, |w| w.min(past + t + 1));
            let products = (0..tokens).map(seen).sum::<usize>() * heads * 2 * layout.head_dim_k;
            let rate = products as f64 / seconds / 1e9;
            println!(
                "{label} {:6.1} GFLOP/s, {:3.0} %",
                2.0 * rate,
                100.0 * rate / peak
            );
        }
        for element in [KvElement::F16, KvElement::Q8_0, KvElement::Q4_0] {
            for (sequences, past) in [(1, 128), (1, 4095), (8, 1023)] {
                let kind = element.name();
                let label = format!("{name:14} {sequences:4} x 1 after {past:4} {kind:4}");
                if !label.contains(&only) {
                    continue;
                }
                let (seconds, bytes) = run(&pool, &model, element, sequences, past, 1);
                println!(
                    "{label} {:6.1} us, {:4.1} GB/s, {:3.0} %",
                    1e6 * seconds,
                    bytes as f64 / seconds / 1e9,
                    100.0 * bytes as f64 / seconds / 1e9 / memory
                );
            }
        }
    }
}

/// Seconds of a call, the best fiftieth, and the bytes of the cache that it reads.
fn run(
    pool: &Pool,
    model: &Model,
    element: KvElement,
    sequences: usize,
    past: usize,
    tokens: usize,
) -> (f64, usize) {
    let Model {
        layout,
        heads,
        window,
        ..
    } = *model;
    let tier = Tier::detect();
    let blocks_each = (past + tokens).div_ceil(POSITIONS_PER_BLOCK);
    let blocks: Vec<u32> = (0..(blocks_each * sequences) as u32).collect();
    let bytes = layout.block_bytes(element) * blocks.len();
    let layers = if tokens == 1 { BYTES / bytes } else { 1 }.clamp(1, 512);
    let mut slabs = KvSlabs::new(&vec![(layout, element.into()); layers], blocks.len());
    let row: Vec<f32> = (0..layout.heads * layout.head_dim_k * 64)
        .map(|i| (i as f32 * 0.37).sin())
        .collect();
    for slab in 0..layers {
        for block in &blocks {
            let places: Vec<(u32, u32)> = (0..32).map(|offset| (*block, offset)).collect();
            store_kv(pool, tier, &mut slabs, slab, &places, &row, &row);
        }
    }
    let jobs: Vec<AttentionJob> = (0..sequences)
        .map(|index| AttentionJob {
            tokens,
            first_position: past,
            first_block: index * blocks_each,
        })
        .collect();
    let rows = tokens * sequences;
    let q: Vec<f32> = (0..rows * heads * layout.head_dim_k)
        .map(|i| (i as f32 * 0.11).cos())
        .collect();
    let mut out = vec![0.0; rows * heads * layout.head_dim_v];
    let layer = [(heads, layout)];
    let mut scratch = AttentionScratch::new(pool.threads(), rows, past + tokens, layer);
    // Each call is timed, and the best one counts: on a machine that others use too it is the one that was let alone.
    let calls = if tokens == 1 { 20 * layers.max(20) } else { 12 };
    let seconds = (0..calls).map(|call| {
        let start = Instant::now();
        let layer = Attention {
            slabs: &slabs,
            slab: call % layers,
            blocks: &blocks,
            jobs: &jobs,
            heads,
            sight: Sight::Causal { window },
            scale: 0.1,
            softcap: None,
            q: &q,
            out: &mut out,
        };
        attend(pool, tier, &mut scratch, layer);
        start.elapsed().as_secs_f64()
    });
    let mut times: Vec<f64> = seconds.collect();
    times.sort_by(f64::total_cmp);
    let seen = window.map_or(bytes, |w| bytes * w.min(past + 1) / (past + 1));
    (times[calls / 50], seen)
}

/// Billions of multiply-adds a second in registers.
fn multiply_adds(pool: &Pool) -> f64 {
    const ROUNDS: usize = 200_000;
    let best = (0..20 * RUNS).map(|_| {
        let start = Instant::now();
        let threads = pool.threads();
        pool.for_each(threads, 1, |_| {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("fma") {
                // SAFETY: the processor has the feature.
                #[allow(unsafe_code)]
                unsafe {
                    x86::multiply_adds(ROUNDS);
                }
            }
        });
        (threads * ROUNDS * 12 * 8) as f64 / start.elapsed().as_secs_f64() / 1e9
    });
    best.fold(0.0, f64::max)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// 12 chains of 8 multiply-adds.
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn multiply_adds(rounds: usize) {
        let mut acc = [_mm256_set1_ps(1.0); 12];
        let (a, b) = (
            _mm256_set1_ps(std::hint::black_box(0.999)),
            _mm256_set1_ps(1e-3),
        );
        for _ in 0..rounds {
            for x in &mut acc {
                *x = _mm256_fmadd_ps(*x, a, b);
            }
        }
        // Each chain is looked at, or only one would be computed.
        for x in acc {
            std::hint::black_box(x);
        }
    }
}

/// Billions of bytes a second that all threads read from memory.
fn memory(pool: &Pool) -> f64 {
    let memory = limits::memory();
    let best = (0..RUNS).map(|_| limits::read(pool, &memory) / 1e9);
    best.fold(0.0, f64::max)
}
