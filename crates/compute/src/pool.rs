//! A fork-join pool: workers spin briefly between regions, then park.
//!
//! A decoder layer is about five parallel regions of a few microseconds each, so a barrier that sleeps would cost
//! more than the work. Workers spin for [`SPINS`] rounds and only then park. A region is open to workers that come, and
//! waits for none that did not: on a machine that others use too, a worker that lost its processor holds nobody up.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Rounds of `pause` before an idle worker parks: a fraction of a millisecond, more than the gap between two tokens
/// usually takes.
const SPINS: u32 = 20_000;
/// Rounds of `pause` after which a waiting thread offers its processor to others.
const SPINS_BEFORE_YIELD: u32 = 1_000;

/// Stretches that a loop is split into at most: one a thread, up to this many.
const STRETCHES: usize = 16;

/// The next item of a stretch, on a pair of cache lines of its own.
#[repr(align(128))]
struct Next(AtomicUsize);

/// Threads that share out the items of a loop. The calling thread is one of them; a pool of one thread starts none.
pub struct Pool {
    shared: Arc<Shared>,
    turn: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
struct Job {
    data: *const (),
    call: unsafe fn(*const (), usize),
}
// SAFETY: the closure behind `data` is `Sync`, and lives until `region` returns.
unsafe impl Send for Job {}

/// The gate of a region, in one number: its epoch, whether it is open, and how many workers have come in.
const OPEN: usize = 1 << 15;
const WORKERS: usize = OPEN - 1;
const EPOCH: usize = 1 << 16;

struct Shared {
    gate: AtomicUsize,
    /// Workers that are through with the region they came into.
    left: AtomicUsize,
    job: Mutex<Option<Job>>,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
    panicked: AtomicBool,
}

impl Pool {
    /// Starts `threads - 1` workers; zero counts as one.
    ///
    /// # Errors
    /// The operating system's, when it cannot start a thread, and for more than 32767 of them.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        if threads > WORKERS {
            let message = format!("a pool has at most {WORKERS} threads, not {threads}");
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                message,
            ));
        }
        let shared = Arc::new(Shared {
            gate: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            job: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let mut pool = Pool {
            shared,
            turn: Mutex::new(()),
            workers: Vec::new(),
        };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new().name(format!("dunlin-{index}"));
            pool.workers.push(worker.spawn(move || shared.work(index))?);
        }
        Ok(pool)
    }

    /// The number of threads that share a loop, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `f(item)` for every item in `0..items`, in chunks of at most `chunk`.
    ///
    /// Each thread begins with a stretch of its own, so that it reads what lies together, and then helps the others with what they
    /// have left. Chunks get shorter as a stretch ends, so that the threads are through at about the same time.
    ///
    /// Loops of several callers take turns. `f` must not start another loop on the same pool.
    ///
    /// # Panics
    /// If `f` panicked on any thread.
    pub fn for_each<F: Fn(usize) + Sync>(&self, items: usize, chunk: usize, f: F) {
        self.for_each_chunk(items, chunk, |chunk| chunk.for_each(&f));
    }

    /// As [`Pool::for_each`], a chunk of neighbouring items at a time.
    ///
    /// # Panics
    /// If `f` panicked on any thread.
    pub fn for_each_chunk<F: Fn(Range<usize>) + Sync>(&self, items: usize, chunk: usize, f: F) {
        let chunk = chunk.max(1);
        if items <= chunk || self.workers.is_empty() {
            if items > 0 {
                f(0..items);
            }
            return;
        }
        let stretches = self.threads().min(STRETCHES);
        let bound = |stretch: usize| items * stretch / stretches;
        let next: [Next; STRETCHES] =
            std::array::from_fn(|stretch| Next(AtomicUsize::new(bound(stretch.min(stretches)))));
        self.region(|thread| {
            for turn in 0..stretches {
                let stretch = (thread + turn) % stretches;
                let end = bound(stretch + 1);
                let len = |start: usize| chunk.min((end - start).div_ceil(2));
                let take = || {
                    next[stretch]
                        .0
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |start| {
                            (start < end).then(|| start + len(start))
                        })
                };
                while let Ok(start) = take() {
                    f(start..start + len(start));
                }
            }
        });
    }

    /// Runs `f(number of the thread)` on this thread, number 0, and on every worker that comes before this thread is through.
    fn region<F: Fn(usize) + Sync>(&self, f: F) {
        /// # Safety
        /// `data` points to a live `F`.
        unsafe fn call<F: Fn(usize)>(data: *const (), thread: usize) {
            // SAFETY: the caller's promise.
            unsafe { (*data.cast::<F>())(thread) }
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        let job = Job {
            data: (&raw const f).cast(),
            call: call::<F>,
        };
        *shared.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
        shared.left.store(0, Ordering::Relaxed);
        let epoch = shared.gate.load(Ordering::Relaxed) & !(OPEN | WORKERS);
        shared
            .gate
            .store(epoch.wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| f(0)));
        let came = shared.gate.fetch_and(!OPEN, Ordering::AcqRel) & WORKERS;
        let mut spins = 0;
        while shared.left.load(Ordering::Acquire) < came {
            pause(&mut spins);
        }
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        if shared.panicked.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("a worker of the thread pool panicked"));
        }
    }
}

/// Waits a moment; now and then lets others have the processor.
fn pause(spins: &mut u32) {
    *spins = spins.wrapping_add(1);
    if spins.is_multiple_of(SPINS_BEFORE_YIELD) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

/// A pointer that threads share to write to disjoint parts.
pub(crate) struct SendPtr<T>(pub(crate) *mut T);
// SAFETY: whoever dereferences it says why the parts are disjoint.
unsafe impl<T> Sync for SendPtr<T> {}

impl<T> SendPtr<T> {
    /// The pointer; a method, so that closures capture the wrapper and not the bare pointer in it.
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}

/// Runs `f(i, row of a, row of b)` for `rows` rows of two matrices, spread over the pool.
///
/// # Panics
/// If a matrix does not have whole rows.
pub fn for_each_rows(
    pool: &Pool,
    rows: usize,
    a: &mut [f32],
    b: &mut [f32],
    f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    if rows == 0 {
        return;
    }
    assert!(
        a.len().is_multiple_of(rows) && b.len().is_multiple_of(rows),
        "whole rows"
    );
    let (a_len, b_len) = (a.len() / rows, b.len() / rows);
    let (a, b) = (SendPtr(a.as_mut_ptr()), SendPtr(b.as_mut_ptr()));
    pool.for_each(rows, 4, |i| {
        let row = |start: &SendPtr<f32>, len: usize| {
            // SAFETY: row `i` lies in the matrix, and belongs to this call alone.
            unsafe { std::slice::from_raw_parts_mut(start.get().add(i * len), len) }
        };
        f(i, row(&a, a_len), row(&b, b_len));
    });
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _guard = self
                .shared
                .lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker that panicked has already told its caller.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn work(&self, thread: usize) {
        let mut seen = 0;
        while let Some(gate) = self.wait_for_region(seen) {
            seen = gate & !(OPEN | WORKERS);
            let mut current = gate;
            let entered = loop {
                if current & OPEN == 0 || current & !(OPEN | WORKERS) != seen {
                    break false;
                }
                match self.gate.compare_exchange_weak(
                    current,
                    current + 1,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => break true,
                    Err(found) => current = found,
                }
            };
            if !entered {
                continue;
            }
            let job = *self.job.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(job) = job {
                // SAFETY: `region` keeps the closure alive until all who came in have left.
                let result = catch_unwind(AssertUnwindSafe(|| unsafe {
                    (job.call)(job.data, thread);
                }));
                if result.is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            self.left.fetch_add(1, Ordering::Release);
        }
    }

    /// The gate of an open region other than `seen`; `None` when the pool stops.
    fn wait_for_region(&self, seen: usize) -> Option<usize> {
        let open = || {
            let gate = self.gate.load(Ordering::SeqCst);
            (gate & OPEN != 0 && gate & !(OPEN | WORKERS) != seen).then_some(gate)
        };
        let mut spins = 0;
        while spins < SPINS {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(gate) = open() {
                return Some(gate);
            }
            pause(&mut spins);
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            if let Some(gate) = open() {
                break Some(gate);
            }
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_item_runs_exactly_once() {
        let pool = Pool::new(3).unwrap();
        for round in 0..200 {
            let items = round * 7 % 1000;
            let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
            pool.for_each(items, 4, |i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        }
    }

    /// Two items that wait for each other, so that two threads must have come.
    fn meet(pool: &Pool, then: impl Fn(usize) + Sync) {
        let here = AtomicUsize::new(0);
        pool.for_each(2, 1, |item| {
            here.fetch_add(1, Ordering::SeqCst);
            while here.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            then(item);
        });
    }

    #[test]
    fn workers_come_again_after_they_parked() {
        let pool = Pool::new(2).unwrap();
        for _ in 0..3 {
            meet(&pool, |_| {});
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    #[test]
    fn a_panic_on_any_thread_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::new(2).unwrap();
        for bad in 0..2 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                meet(&pool, |item| assert!(item != bad, "item fails"))
            }));
            assert!(result.is_err());
            meet(&pool, |_| {});
        }
    }
}
