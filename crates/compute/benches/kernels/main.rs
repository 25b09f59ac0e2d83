//! Matrix products as a part of what the processor can do: decode (one token) against the speed at which memory is read,
//! prefill (128 tokens) against loops that multiply in registers and touch no memory.
//!
//! `cargo bench -p dunlin-compute --bench kernels -- [--threads N] [--runs N] [--tier NAME] [TYPE...]`
//!
//! Limit and kernel are measured in turns, so that a machine that others use slows both; figures are medians. divan, the
//! usual harness, prints times and no parts of a limit.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic
)]

#[path = "../limits/mod.rs"]
mod limits;

use std::hint::black_box;
use std::time::Instant;

use dunlin_compute::{Activations, Matmul, PackedMatrix, Pool, Tier, matmul, pack, packed_bytes};
use dunlin_format::DType;
use limits::Limit;

/// Columns of a matrix: of the order of a hidden size, so that its input stays in the first-level cache.
const COLS: usize = 2048;
/// Bytes of a packed matrix for decode: more than any third-level cache.
const DECODE_BYTES: usize = 768 << 20;
/// Rows of a matrix for prefill: of the order of a feed-forward layer.
const PREFILL_ROWS: usize = 4096;
/// Tokens of a prefill: a block of the kernels.
const TOKENS: usize = 128;

/// The types with a kernel, and the limit of each where there is no dot product instruction: how many products of its codes with 8-bit codes fit into 16 bits.
const TYPES: [(DType, Limit); 15] = [
    (DType::Q4_0, Limit::Maddubs8),
    (DType::Q4_1, Limit::Maddubs8),
    (DType::Q4_K, Limit::Maddubs8),
    (DType::Q5_0, Limit::Maddubs4),
    (DType::Q5_1, Limit::Maddubs4),
    (DType::Q5_K, Limit::Maddubs4),
    (DType::Q6_K, Limit::Maddubs2),
    (DType::Q8_0, Limit::MaddubsSigned),
    (DType::Q2_K, Limit::Maddubs8),
    (DType::Q3_K, Limit::Maddubs8),
    (DType::IQ4_NL, Limit::MaddubsSigned),
    (DType::IQ4_XS, Limit::MaddubsSigned),
    (DType::F16, Limit::Fma),
    (DType::BF16, Limit::Fma),
    (DType::F32, Limit::Fma),
];

struct Setup {
    pool: Pool,
    tier: Tier,
    runs: usize,
    types: Vec<String>,
}

fn main() {
    let setup = setup();
    println!(
        "kernels {}, {} threads, medians of {} runs",
        setup.tier.name(),
        setup.pool.threads(),
        setup.runs
    );
    println!(
        "       | 1 token: GB/s of packed weights      | 128 tokens: 10^9 multiply-accumulates/s"
    );
    println!("type   | kernel   DRAM read   part of it      | kernel   registers   part of it");
    let memory = limits::memory();
    for (dtype, limit) in TYPES {
        let named = |name: &String| name.eq_ignore_ascii_case(dtype.name());
        if setup.types.is_empty() || setup.types.iter().any(named) {
            let decode = decode(&setup, dtype, &memory);
            let prefill = prefill(&setup, dtype, limit);
            println!(
                "{:<6} | {} | {}",
                dtype.name(),
                decode.cells(),
                prefill.cells()
            );
        }
    }
}

fn setup() -> Setup {
    let mut arguments = std::env::args().skip(1);
    let (mut threads, mut runs, mut tier) = (num_cpus(), 5, Tier::detect());
    let mut types = Vec::new();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .unwrap_or_else(|| panic!("{argument} needs a value"))
        };
        match argument.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--threads" => threads = value().parse().unwrap(),
            "--runs" => runs = value().parse().unwrap(),
            "--tier" => {
                let name = value();
                let mut tiers = Tier::available().into_iter();
                let found = tiers.find(|tier| tier.name() == name);
                tier = found.unwrap_or_else(|| panic!("this processor has no {name}"));
            }
            name => types.push(name.to_owned()),
        }
    }
    let pool = Pool::new(threads).unwrap();
    Setup {
        pool,
        tier,
        runs,
        types,
    }
}

fn num_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get())
}

/// Medians of a kernel and of its limit, in the same unit; no limit where this processor has none of its instructions.
struct Part {
    kernel: f64,
    limit: Option<f64>,
    width: usize,
}

impl Part {
    fn cells(&self) -> String {
        let (limit, part) = match self.limit {
            Some(limit) => (
                format!("{limit:.1}"),
                format!("{:.0} %", 100.0 * self.kernel / limit),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let width = self.width;
        format!("{:>6.1}   {limit:>width$}   {part:>10}", self.kernel)
    }
}

/// One token: every weight is read once from memory.
fn decode(setup: &Setup, dtype: DType, memory: &[u8]) -> Part {
    let row = packed_bytes(dtype, 8, COLS).unwrap() / 8;
    let weights = matrix(setup, dtype, (DECODE_BYTES / row).next_multiple_of(8));
    let bytes = weights.bytes() as f64;
    let mut product = product(setup, &weights, 1);
    let (kernel, limit) = in_turns(
        setup.runs,
        || bytes / seconds(&mut product) / 1e9,
        || Some(limits::read(&setup.pool, memory) / 1e9),
    );
    Part {
        kernel,
        limit,
        width: 9,
    }
}

/// Many tokens: arithmetic is what takes the time.
fn prefill(setup: &Setup, dtype: DType, limit: Limit) -> Part {
    let limit = limit.on(setup.tier);
    let weights = matrix(setup, dtype, PREFILL_ROWS);
    let work = (PREFILL_ROWS * COLS * TOKENS) as f64;
    let mut product = product(setup, &weights, TOKENS);
    let (kernel, limit) = in_turns(
        setup.runs,
        || work / seconds(&mut product) / 1e9,
        || Some(limit.measure(&setup.pool)? / 1e9),
    );
    Part {
        kernel,
        limit,
        width: 9,
    }
}

/// The product of a matrix with so many tokens, ready to be run.
fn product<'a>(
    setup: &'a Setup,
    weights: &'a PackedMatrix,
    tokens: usize,
) -> impl FnMut() + use<'a> {
    let mut input = Activations::new(tokens, COLS);
    let quantize = weights.format().is_quantized();
    input.fill(&setup.pool, setup.tier, tokens, quantize, |token, row| {
        for (at, value) in row.iter_mut().enumerate() {
            *value = ((token * 31 + at * 7919) % 255) as f32 - 127.0;
        }
    });
    let mut out = vec![0.0; tokens * weights.rows()];
    move || {
        let group = &mut [Matmul {
            weights,
            out: &mut out,
        }];
        matmul(&setup.pool, setup.tier, &input, group);
        black_box(&out);
    }
}

/// A packed matrix of arbitrary codes. Every byte is between 32 and 63, so that any field of a block that is read as a float
/// is a small number and none is a NaN or subnormal, which would take another time.
fn matrix(setup: &Setup, dtype: DType, rows: usize) -> PackedMatrix {
    let bytes = dtype.row_bytes(COLS).unwrap() * rows;
    let blocks: Vec<u8> = (0..bytes as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as u8 & 31 | 32)
        .collect();
    pack(&setup.pool, dtype, rows, COLS, &blocks).unwrap()
}

/// Medians of two measurements that take turns, each after one that is not counted.
fn in_turns(
    runs: usize,
    mut kernel: impl FnMut() -> f64,
    mut limit: impl FnMut() -> Option<f64>,
) -> (f64, Option<f64>) {
    let (mut kernels, mut limits) = (Vec::new(), Vec::new());
    for run in 0..=runs {
        let (a, b) = (kernel(), limit());
        if run > 0 {
            kernels.push(a);
            limits.extend(b);
        }
    }
    (median(kernels).unwrap_or(f64::NAN), median(limits))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn seconds(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
