//! What a cache of codes holds, read byte by byte, and attention over exactly that.

use crate::batch::{Batch, Case, Text};
use crate::same;
use dunlin_compute::{
    KvElement, KvElements, KvLayout, KvSlabs, POSITIONS_PER_BLOCK, Pool, Sight, Tier, store_kv,
};
use half::f16;

/// Elements that share a scale.
const GROUP: usize = 32;

/// Numbers of the keys or values of a head in a block, and how their bytes lie.
#[derive(Clone, Copy)]
struct Numbers {
    element: KvElement,
    dim: usize,
    transposed: bool,
}

impl Numbers {
    /// Bytes of the numbers, and of their scales.
    fn bytes(self) -> (usize, usize) {
        let padded = |multiple: usize| match self.transposed {
            true => self.dim,
            false => self.dim.next_multiple_of(multiple),
        };
        let scales = 2 * POSITIONS_PER_BLOCK * self.dim.div_ceil(GROUP);
        let (bytes, scales) = match self.element {
            KvElement::F32 => (4 * padded(16), 0),
            KvElement::F16 => (2 * padded(16), 0),
            KvElement::Q8_0 => (padded(16), scales),
            KvElement::Q4_0 => (padded(32).div_ceil(2), scales),
            other => panic!("{other} is new"),
        };
        (POSITIONS_PER_BLOCK * bytes, scales)
    }

    /// Element `d` of position `p`.
    fn read(self, numbers: &[u8], scales: &[u8], p: usize, d: usize) -> f64 {
        let at = |count: usize, p: usize, d: usize| match self.transposed {
            true => d * POSITIONS_PER_BLOCK + p,
            false => p * count + d,
        };
        let half = |bytes: &[u8], at: usize| {
            f64::from(f16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).to_f32())
        };
        let plain = at(self.dim.next_multiple_of(16), p, d);
        let scale = || half(scales, d / GROUP * POSITIONS_PER_BLOCK + p);
        match self.element {
            KvElement::F32 => {
                let bytes = numbers[4 * plain..][..4].try_into().unwrap();
                f64::from(f32::from_le_bytes(bytes))
            }
            KvElement::F16 => half(numbers, plain),
            KvElement::Q8_0 => f64::from(numbers[plain] as i8) * scale(),
            _ => {
                // Neighbours share a byte of a key; of a value elements 16 apart do.
                let (byte, upper) = match self.transposed {
                    true => (d / 2, d % 2),
                    false => (d / GROUP * 16 + d % 16, d % GROUP / 16),
                };
                let stride = self.dim.next_multiple_of(GROUP) / 2;
                let code = (numbers[at(stride, p, byte)] >> (4 * upper)) & 15;
                (f64::from(code) - 8.0) * scale()
            }
        }
    }
}

/// The keys and the values that the cache holds of a text, `[positions, heads * head_dim]`; those that are rotated are so.
fn held(batch: &Batch, elements: KvElements, text: &Text, first_block: usize) -> [Vec<f64>; 2] {
    let layout = batch.layout;
    let (keys, values) = (
        Numbers {
            element: elements.keys,
            dim: layout.head_dim_k,
            transposed: true,
        },
        Numbers {
            element: elements.values,
            dim: layout.head_dim_v,
            transposed: false,
        },
    );
    let ((key_bytes, key_scales), (value_bytes, value_scales)) = (keys.bytes(), values.bytes());
    let head_bytes = key_bytes + value_bytes + key_scales + value_scales;
    assert_eq!(layout.block_bytes(elements), layout.heads * head_bytes);
    let (mut k, mut v) = (Vec::new(), Vec::new());
    for position in 0..text.past + text.tokens {
        let block = batch.blocks[first_block + position / POSITIONS_PER_BLOCK];
        // The slab is the block's last part.
        let block = batch.slabs.block(block);
        let block = &block[block.len() - layout.heads * head_bytes..];
        let p = position % POSITIONS_PER_BLOCK;
        for head in block.chunks_exact(head_bytes) {
            let (key_numbers, rest) = head.split_at(key_bytes);
            let (value_numbers, rest) = rest.split_at(value_bytes);
            let (key_scales, value_scales) = rest.split_at(key_scales);
            k.extend((0..keys.dim).map(|d| keys.read(key_numbers, key_scales, p, d)));
            v.extend((0..values.dim).map(|d| values.read(value_numbers, value_scales, p, d)));
        }
    }
    [k, v]
}

/// Each row of `dim` elements times the Hadamard matrix of its size over the square root of that. A length that is no power of two is cut
/// into such, the longest first, none longer than 256.
fn rotated(x: &[f64], dim: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for row in x.chunks_exact(dim) {
        let mut rest = row;
        while !rest.is_empty() {
            let piece;
            let len = (1 << rest.len().ilog2()).min(256);
            (piece, rest) = rest.split_at(len);
            out.extend((0..len).map(|i| {
                let signed = piece.iter().enumerate().map(|(j, x)| {
                    // Sylvester's matrices have the sign of the bits that both indices have.
                    match (i & j).count_ones() % 2 {
                        0 => *x,
                        _ => -x,
                    }
                });
                signed.sum::<f64>() / (len as f64).sqrt()
            }));
        }
    }
    out
}

fn rotated_if(x: Vec<f64>, dim: usize, element: KvElement) -> Vec<f64> {
    match element {
        KvElement::Q4_0 => rotated(&x, dim),
        _ => x,
    }
}

const CODED: [KvElements; 5] = [
    same(KvElement::Q8_0),
    same(KvElement::Q4_0),
    KvElements {
        keys: KvElement::Q8_0,
        values: KvElement::Q4_0,
    },
    KvElements {
        keys: KvElement::Q4_0,
        values: KvElement::F16,
    },
    KvElements {
        keys: KvElement::F32,
        values: KvElement::Q4_0,
    },
];

#[test]
fn attention_over_codes_is_the_definition_over_the_numbers_that_they_stand_for() {
    let causal = Sight::Causal { window: None };
    let window = |window| Sight::Causal {
        window: Some(window),
    };
    // Key-value heads, lengths of keys and values; query heads; tokens before and in the call; sight; softcap.
    let cases = [
        ((2, 64, 64), 14, (411, 1), causal, None),
        ((2, 64, 64), 14, (31, 37), causal, None),
        ((1, 256, 256), 4, (500, 60), window(512), None),
        ((1, 256, 256), 4, (600, 1), window(512), None),
        ((2, 256, 256), 8, (150, 30), causal, Some(5.0)),
        ((1, 512, 512), 2, (70, 3), causal, None),
        ((4, 96, 96), 32, (130, 3), causal, None),
        ((4, 80, 80), 4, (257, 20), causal, None),
        ((2, 20, 44), 2, (200, 40), window(128), None),
        ((1, 8, 8), 24, (3, 5), causal, None),
        ((2, 7, 9), 2, (40, 40), causal, None),
        ((2, 24, 24), 4, (0, 70), Sight::Both { window: None }, None),
    ];
    for tier in Tier::available() {
        for ((kv_heads, head_dim_k, head_dim_v), heads, (past, tokens), sight, softcap) in cases {
            let layout = KvLayout {
                heads: kv_heads,
                head_dim_k,
                head_dim_v,
            };
            let case = Case {
                layout,
                heads,
                past,
                tokens,
                sight,
                softcap,
            };
            for elements in CODED {
                let batch = Batch::new(tier, elements, &case, &[(past, tokens)]);
                let text = &batch.texts[0];
                let [k, v] = held(&batch, elements, text, 0);
                let q = text.q.iter().map(|x| f64::from(*x)).collect();
                let q = rotated_if(q, head_dim_k, elements.keys);
                let want = batch.definition_over(text, &q, &k, &v);
                let want = rotated_if(want, head_dim_v, elements.values);
                for threads in [1, 2] {
                    let out = batch.attend(tier, threads, &batch.jobs, &text.q);
                    let pairs = out.iter().zip(&want);
                    let worst = pairs
                        .map(|(got, want)| (f64::from(*got) - want).abs())
                        .fold(0.0, f64::max);
                    assert!(
                        worst < 2e-5,
                        "{} {elements} {layout:?} after {past}: {worst:.1e}",
                        tier.name()
                    );
                }
            }
        }
    }
}

#[test]
fn all_tiers_store_the_same_codes() {
    for dim in [7, 20, 64, 80, 256, 320] {
        let case = Case {
            layout: KvLayout {
                heads: 3,
                head_dim_k: dim,
                head_dim_v: dim,
            },
            heads: 3,
            past: 0,
            tokens: 0,
            sight: Sight::Causal { window: None },
            softcap: None,
        };
        for elements in CODED {
            let cache = |tier| Batch::new(tier, elements, &case, &[(0, 70)]);
            let portable = cache(Tier::PORTABLE);
            for tier in Tier::available() {
                let other = cache(tier);
                for &block in &portable.blocks {
                    let same = portable.slabs.block(block) == other.slabs.block(block);
                    assert!(same, "{} {elements} {dim}", tier.name());
                }
            }
        }
    }
}

/// The value of one position as attention gives it back.
fn value_through(element: KvElement, value: &[f32]) -> Vec<f64> {
    let (pool, tier) = (Pool::new(1).unwrap(), Tier::detect());
    let case = Case {
        layout: KvLayout {
            heads: 1,
            head_dim_k: value.len(),
            head_dim_v: value.len(),
        },
        heads: 1,
        past: 0,
        tokens: 1,
        sight: Sight::Causal { window: None },
        softcap: None,
    };
    let mut batch = Batch::new(tier, element.into(), &case, &[(0, 1)]);
    let places = [(batch.blocks[0], 0)];
    let slabs: &mut KvSlabs = &mut batch.slabs;
    store_kv(&pool, tier, slabs, 1, &places, value, value);
    let out = batch.attend(tier, 1, &batch.jobs, &batch.all_queries());
    out.into_iter().map(f64::from).collect()
}

/// GGUF's Q4_0 by its definition: the number of largest magnitude is -8, and each is rounded to the nearest of the 16.
fn gguf_q4_0(x: &[f32]) -> Vec<f64> {
    let group = |x: &[f32]| {
        let extreme = x
            .iter()
            .fold(0.0f32, |m, x| if x.abs() > m.abs() { *x } else { m });
        let scale = f64::from(f16::from_f32(extreme / -8.0).to_f32());
        let code = |x: &f32| (f64::from(*x) / scale + 8.5).floor().clamp(0.0, 15.0) - 8.0;
        x.iter().map(|x| code(x) * scale).collect::<Vec<_>>()
    };
    x.chunks(GROUP).flat_map(group).collect()
}

fn squared_error(x: &[f32], y: &[f64]) -> f64 {
    let errors = x.iter().zip(y).map(|(x, y)| (f64::from(*x) - y).powi(2));
    errors.sum()
}

/// Numbers as from a normal distribution, roughly: sums of uniform ones.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count)
        .map(|_| (0..12).map(|_| uniform()).sum())
        .collect()
}

#[test]
fn four_bits_lose_a_tenth_less_than_ggufs_and_a_few_large_numbers_cost_the_others_little() {
    let (mut ours, mut gguf, mut ours_large, mut gguf_large) = (0.0, 0.0, 0.0, 0.0);
    for seed in 0..200 {
        let mut x = numbers(64, seed);
        ours += squared_error(&x, &value_through(KvElement::Q4_0, &x));
        gguf += squared_error(&x, &gguf_q4_0(&x));
        x[5] += 20.0;
        x[41] -= 12.0;
        ours_large += squared_error(&x, &value_through(KvElement::Q4_0, &x));
        gguf_large += squared_error(&x, &gguf_q4_0(&x));
    }
    println!("{ours:.1} to {gguf:.1}; with large ones {ours_large:.1} to {gguf_large:.1}");
    assert!(ours < 0.92 * gguf, "{ours} to {gguf}");
    assert!(
        ours_large < 0.25 * gguf_large,
        "{ours_large} to {gguf_large}"
    );
}
