//! One panel of plain floats times `f32` tokens.

use super::Task;
use crate::panels::ROWS;
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use std::marker::PhantomData;

/// Multiplies and writes the results.
pub(super) fn multiply<P: Plain>(tier: Tier, task: &Task<'_>) {
    if task.count == 1 {
        tier.run(Tiles::<P, 1> {
            task,
            plain: PhantomData,
        });
    } else {
        tier.run(Tiles::<P, 4> {
            task,
            plain: PhantomData,
        });
    }
}

/// A plain float type of weights.
pub(super) trait Plain {
    const BYTES: usize;
    /// # Safety
    /// `p` has 8 elements.
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F;
}
pub(super) struct F32;
pub(super) struct F16;
pub(super) struct BF16;
impl Plain for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: the caller's promise; so in the two below.
        unsafe { s.load(p.cast()) }
    }
}
impl Plain for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: see above.
        unsafe { s.load_f16(p.cast()) }
    }
}
impl Plain for BF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: see above.
        unsafe { s.load_bf16(p.cast()) }
    }
}

/// `T` tokens at a time; where fewer are left, the last one fills up.
struct Tiles<'a, P, const T: usize> {
    task: &'a Task<'a>,
    plain: PhantomData<P>,
}

impl<P: Plain, const T: usize> Kernel for Tiles<'_, P, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let task = self.task;
        let cols = task.input.cols();
        let inputs = task.input.rows();
        let mut at = 0;
        while at < task.count {
            let mut x = [&inputs[..0]; T];
            for t in 0..T {
                x[t] = &inputs[(task.first + (at + t).min(task.count - 1)) * cols..][..cols];
            }
            // Two sums per token: an FMA takes four cycles, and two can start in each.
            let mut acc = [[s.splat(0.0); 2]; T];
            for (k, w) in task.panels.chunks_exact(P::BYTES * ROWS).enumerate() {
                // SAFETY: `w` has 8 elements, and each row of `x` has one for every column.
                unsafe {
                    let w = P::load(s, w.as_ptr());
                    for t in 0..T {
                        acc[t][k % 2] = s.fma(w, s.splat(*x[t].get_unchecked(k)), acc[t][k % 2]);
                    }
                }
            }
            for t in 0..T.min(task.count - at) {
                task.out.write(s, at + t, 0, s.add(acc[t][0], acc[t][1]));
            }
            at += T;
        }
    }
}
