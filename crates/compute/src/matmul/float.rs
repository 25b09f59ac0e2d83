//! Panels of plain floats times `f32` tokens.
//!
//! A stretch of two panels stays in the first-level cache while a register tile of tokens after the other passes over it.

use super::{Sums, Task, Write};
use crate::panels::ROWS;
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use std::marker::PhantomData;

/// Bytes of a stretch of a panel: two of them and a tile of tokens fit 32 KiB.
const STRETCH_BYTES: usize = 8 << 10;
/// Tokens in a register tile: with two panels 12 sums, two vectors of weights and one of activations.
const TILE: usize = 6;
/// Panels side by side.
const PAIR: usize = 2;
/// Tokens in the tiles of what is left.
const REST: usize = 2;

/// Multiplies and writes the results: any number of panels for one token, one or two for more.
pub(super) fn multiply<P: Plain>(tier: Tier, task: &Task<'_>) {
    let plain = PhantomData::<P>;
    let cols = task.input.cols();
    let panel_bytes = cols * P::BYTES * ROWS;
    if task.count == 1 {
        return tier.run(One { task, plain });
    }
    let mut sums = Sums::new();
    let sums = sums.zeros(PAIR * task.count);
    let panels = task.panels.len() / panel_bytes;
    let stretch = STRETCH_BYTES / (P::BYTES * ROWS);
    for start in (0..cols).step_by(stretch) {
        tier.run(Tiles {
            task,
            panels,
            start,
            cols: stretch.min(cols - start),
            sums,
            plain,
        });
    }
    tier.run(Write {
        task,
        panels,
        side_by_side: PAIR,
        sums,
    });
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

/// Panels that one token passes over side by side. Each sum is a single chain, as in a tile, so that a token gets the same bits
/// alone; an FMA takes four cycles, and two can start in each.
const SIDE_BY_SIDE: usize = 8;

/// One token straight from the panels.
struct One<'a, P> {
    task: &'a Task<'a>,
    plain: PhantomData<P>,
}

impl<P: Plain> Kernel for One<'_, P> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let panel_bytes = self.task.input.cols() * P::BYTES * ROWS;
        let panels = self.task.panels.len() / panel_bytes;
        let whole = panels / SIDE_BY_SIDE * SIDE_BY_SIDE;
        for first in (0..whole).step_by(SIDE_BY_SIDE) {
            self.group::<S, SIDE_BY_SIDE>(s, first, panel_bytes);
        }
        // What is left, in as few groups: a matrix of few rows is no more than that.
        let mut first = whole;
        if panels - first >= 4 {
            self.group::<S, 4>(s, first, panel_bytes);
            first += 4;
        }
        if panels - first >= 2 {
            self.group::<S, 2>(s, first, panel_bytes);
            first += 2;
        }
        if panels > first {
            self.group::<S, 1>(s, first, panel_bytes);
        }
    }
}

impl<P: Plain> One<'_, P> {
    #[inline(always)]
    fn group<S: Simd, const R: usize>(&self, s: S, first: usize, panel_bytes: usize) {
        let task = self.task;
        let cols = task.input.cols();
        let x = &task.input.rows()[task.first * cols..][..cols];
        let panels = &task.panels[first * panel_bytes..][..R * panel_bytes];
        let mut sums = [s.splat(0.0); R];
        for (k, x) in x.iter().enumerate() {
            let x = s.splat(*x);
            for r in 0..R {
                let at = r * panel_bytes + k * P::BYTES * ROWS;
                // SAFETY: each of the `R` panels has `cols` columns of 8 elements.
                let w = unsafe { P::load(s, panels.as_ptr().add(at)) };
                sums[r] = s.fma(w, x, sums[r]);
            }
        }
        for r in 0..R {
            task.out.write(s, 0, first + r, sums[r]);
        }
    }
}

/// Adds the products of a stretch of one or two panels with each token to its sums.
struct Tiles<'a, P> {
    task: &'a Task<'a>,
    panels: usize,
    /// The stretch's first column, and how many there are.
    start: usize,
    cols: usize,
    sums: &'a mut [[f32; ROWS]],
    plain: PhantomData<P>,
}

impl<P: Plain> Kernel for Tiles<'_, P> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        match self.panels {
            1 => self.by::<S, 1>(s),
            _ => self.by::<S, 2>(s),
        }
    }
}

impl<P: Plain> Tiles<'_, P> {
    /// `R` panels.
    #[inline(always)]
    fn by<S: Simd, const R: usize>(&mut self, s: S) {
        let mut at = 0;
        while at + TILE <= self.task.count {
            self.tile::<S, R, TILE>(s, at);
            at += TILE;
        }
        while at < self.task.count {
            self.tile::<S, R, REST>(s, at);
            at += REST;
        }
    }

    /// `R` panels times `T` tokens from `at` on; where fewer are left, the last one fills up.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const T: usize>(&mut self, s: S, at: usize) {
        let task = self.task;
        let (all, inputs) = (task.input.cols(), task.input.rows());
        let count = T.min(task.count - at);
        let mut panels = [task.panels.as_ptr(); R];
        for r in 0..R {
            let bytes = P::BYTES * ROWS;
            let panel = &task.panels[(r * all + self.start) * bytes..];
            panels[r] = panel[..self.cols * bytes].as_ptr();
        }
        let mut tokens = [inputs.as_ptr(); T];
        let mut sums = [[s.splat(0.0); T]; R];
        for t in 0..T {
            let token = at + t.min(count - 1);
            tokens[t] = inputs[(task.first + token) * all + self.start..][..self.cols].as_ptr();
            for r in 0..R {
                // SAFETY: a sum has 8 elements.
                sums[r][t] = unsafe { s.load(self.sums[PAIR * token + r].as_ptr()) };
            }
        }
        for k in 0..self.cols {
            // SAFETY: panels and tokens have `cols` columns from here on.
            unsafe {
                let mut w = [s.splat(0.0); R];
                for r in 0..R {
                    w[r] = P::load(s, panels[r].add(k * P::BYTES * ROWS));
                }
                for t in 0..T {
                    let x = s.splat(*tokens[t].add(k));
                    for r in 0..R {
                        sums[r][t] = s.fma(w[r], x, sums[r][t]);
                    }
                }
            }
        }
        for r in 0..R {
            for t in 0..count {
                // SAFETY: as above.
                unsafe { s.store(self.sums[PAIR * (at + t) + r].as_mut_ptr(), sums[r][t]) };
            }
        }
    }
}
