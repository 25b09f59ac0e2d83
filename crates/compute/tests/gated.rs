//! The gate of a feed-forward part on the way between two products, against the same steps one after the other: to the last bit.

#![allow(clippy::unwrap_used, missing_docs)]

use dunlin_compute::{
    Activations, Gated, Matmul, Nonlinearity, PackedMatrix, Pool, Precision, Tier,
    activate_in_place, add_assign, gate, map, matmul, matmul_gated, pack,
};
use dunlin_format::DType;
use std::sync::Arc;

const HIDDEN: usize = 512;
const WIDTH: usize = 768;

/// Random blocks with small scales.
fn bytes(dtype: DType, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let mut random = seed;
    let mut next = move || {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (random >> 33) as u8
    };
    let count = rows * cols / dtype.block_len();
    let mut out: Vec<u8> = (0..count * dtype.block_bytes()).map(|_| next()).collect();
    let halves: &[usize] = match dtype {
        DType::Q4_1 | DType::Q4_K => &[0, 2],
        DType::Q6_K => &[208],
        _ => &[0],
    };
    for block in out.chunks_exact_mut(dtype.block_bytes()) {
        for &at in halves {
            block[at + 1] = 0x20 | block[at + 1] & 0x83;
        }
    }
    out
}

fn weights(pool: &Pool, dtype: DType, rows: usize, cols: usize, seed: u64) -> PackedMatrix {
    pack(pool, dtype, rows, cols, &bytes(dtype, rows, cols, seed)).unwrap()
}

struct Case<'a> {
    pool: &'a Pool,
    tier: Tier,
    gate: Option<&'a PackedMatrix>,
    up: &'a PackedMatrix,
    bias: &'a [f32],
    kind: Nonlinearity,
    tokens: usize,
}

impl Case<'_> {
    fn input(&self) -> Activations {
        let mut input = Activations::new(self.tokens, HIDDEN);
        input.fill(self.pool, self.tier, self.tokens, true, |token, row| {
            for (i, x) in row.iter_mut().enumerate() {
                *x = ((token * 31 + i * 7) as f32 * 0.37).sin();
            }
        });
        input
    }

    fn product(&self, weights: &PackedMatrix, input: &Activations) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.tokens * weights.rows()];
        let group = &mut [Matmul {
            weights,
            out: &mut out,
        }];
        matmul(self.pool, self.tier, input, group);
        out
    }

    fn step_by_step(&self, down: &PackedMatrix) -> Vec<f32> {
        let input = self.input();
        let gates = self.gate.map(|weights| self.product(weights, &input));
        let ups = self.product(self.up, &input);
        let mut gated = Activations::new(self.tokens, WIDTH);
        gated.fill(self.pool, self.tier, self.tokens, true, |token, row| {
            let of = |rows: &[f32]| rows[token * WIDTH..][..WIDTH].to_vec();
            let mut up = of(&ups);
            add_assign(&mut up, self.bias);
            match &gates {
                Some(gates) => gate(self.tier, self.kind, &of(gates), &up, row),
                None => {
                    row.copy_from_slice(&up);
                    activate_in_place(self.tier, self.kind, row);
                }
            }
        });
        self.product(down, &gated)
    }

    fn at_once(&self, down: &PackedMatrix) -> Vec<f32> {
        let mut gated = Activations::new(self.tokens, WIDTH);
        let step = Gated {
            gate: self.gate,
            up: self.up,
            bias: self.bias,
            kind: self.kind,
        };
        let input = self.input();
        assert!(step.fits(&input, &gated));
        matmul_gated(self.pool, self.tier, &input, step, &mut gated);
        self.product(down, &gated)
    }
}

#[test]
fn a_gate_on_the_way_gives_the_bits_of_its_steps() {
    let pool = Pool::new(2).unwrap();
    let down = weights(&pool, DType::Q8_0, 40, WIDTH, 1);
    let bias: Vec<f32> = (0..WIDTH).map(|i| (i as f32 * 0.11).cos()).collect();
    let types = [DType::Q4_1, DType::Q5_0, DType::Q4_K, DType::Q6_K];
    for (index, up) in types.into_iter().enumerate() {
        let up = weights(&pool, up, WIDTH, HIDDEN, 2);
        let gate = weights(&pool, types[(index + 1) % 4], WIDTH, HIDDEN, 3);
        for tier in Tier::available() {
            for (gate, bias, kind) in [
                (Some(&gate), &[][..], Nonlinearity::Silu),
                (Some(&gate), &bias[..], Nonlinearity::GeluTanh),
                (None, &bias[..], Nonlinearity::Gelu),
            ] {
                for tokens in [9, 131, 259] {
                    let case = Case {
                        pool: &pool,
                        tier,
                        gate,
                        up: &up,
                        bias,
                        kind,
                        tokens,
                    };
                    assert!(
                        case.at_once(&down) == case.step_by_step(&down),
                        "{} on {}, {kind:?}, {tokens} tokens",
                        types[index],
                        tier.name()
                    );
                }
            }
        }
    }
}

#[test]
fn weights_left_in_the_file_give_the_same_bits() {
    let pool = Pool::new(2).unwrap();
    let down = weights(&pool, DType::Q8_0, 40, WIDTH, 1);
    let file = bytes(DType::Q5_0, WIDTH, HIDDEN, 2);
    let packed = pack(&pool, DType::Q5_0, WIDTH, HIDDEN, &file).unwrap();
    let all = 0..file.len();
    let mapped = map(DType::Q5_0, WIDTH, HIDDEN, Arc::new(file), all).unwrap();
    for tier in Tier::available() {
        let of = |up| {
            let case = Case {
                pool: &pool,
                tier,
                gate: Some(up),
                up,
                bias: &[],
                kind: Nonlinearity::Silu,
                tokens: 33,
            };
            case.at_once(&down)
        };
        assert!(of(&packed) == of(&mapped), "on {}", tier.name());
    }
}

#[test]
fn what_cannot_be_gated_says_so() {
    let pool = Pool::new(1).unwrap();
    let (tier, up) = (
        Tier::detect(),
        weights(&pool, DType::Q8_0, WIDTH, HIDDEN, 2),
    );
    let floats = vec![0; 4 * WIDTH * HIDDEN];
    let floats = pack(&pool, DType::F32, WIDTH, HIDDEN, &floats).unwrap();
    let input = |tokens, precision| {
        let mut input = Activations::with_precision(tokens, HIDDEN, precision);
        input.fill(&pool, tier, tokens, true, |_, row| row.fill(1.0));
        input
    };
    let (many, few) = (input(9, Precision::Bits8), input(8, Precision::Bits8));
    let wide = input(9, Precision::Bits16);
    let out = Activations::new(9, WIDTH);
    let fits = |up, input: &Activations, out: &Activations| {
        let step = Gated {
            gate: None,
            up,
            bias: &[],
            kind: Nonlinearity::Silu,
        };
        step.fits(input, out)
    };
    assert!(fits(&up, &many, &out));
    assert!(!fits(&up, &few, &out), "a few tokens");
    assert!(!fits(&up, &wide, &out), "tokens in 16 bits");
    assert!(!fits(&floats, &many, &out), "floats");
    assert!(!fits(&up, &many, &Activations::new(9, 40)), "half a block");
}
