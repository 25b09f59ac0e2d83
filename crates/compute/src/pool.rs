//! A fork-join pool: workers spin briefly between regions, then park.
//!
//! A decoder layer is about five parallel regions of a few microseconds each, so a barrier that sleeps would cost
//! more than the work. Workers spin for [`SPINS`] rounds (a fraction of a millisecond) and only then park.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Rounds of `pause` before an idle worker parks: about 0.3 ms, more than the gap between two tokens usually takes.
const SPINS: u32 = 20_000;
/// Rounds of `pause` before the caller yields its processor while it waits for the last worker.
const SPINS_BEFORE_YIELD: u32 = 4_000;

/// A pool of threads that run the same closure, each with its own index.
///
/// The calling thread is thread 0; a pool of one thread starts none.
pub struct Pool {
    shared: Arc<Shared>,
    region: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
struct Job {
    data: *const (),
    call: unsafe fn(*const (), usize),
}
// SAFETY: the closure behind `data` is `Sync`, and lives until `run` returns.
unsafe impl Send for Job {}

struct Shared {
    /// Counts regions; a worker that sees it change runs `job`.
    epoch: AtomicUsize,
    job: Mutex<Option<Job>>,
    running: AtomicUsize,
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
    /// The operating system's, when it cannot start a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: Mutex::new(None),
            running: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let mut pool = Pool {
            shared,
            region: Mutex::new(()),
            workers: Vec::new(),
        };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new().name(format!("dunlin-{index}"));
            pool.workers.push(worker.spawn(move || shared.work(index))?);
        }
        Ok(pool)
    }

    /// The number of threads that run a region, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `f(thread)` once on every thread and returns when all are done.
    ///
    /// Regions of several callers take turns. A region must not start another on the same pool.
    ///
    /// # Panics
    /// If `f` panicked on any thread.
    pub fn run<F: Fn(usize) + Sync>(&self, f: F) {
        if self.workers.is_empty() {
            return f(0);
        }
        let _turn = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        /// # Safety
        /// `data` points to a live `F`.
        unsafe fn call<F: Fn(usize)>(data: *const (), thread: usize) {
            // SAFETY: the caller's promise.
            unsafe { (*data.cast::<F>())(thread) }
        }
        let job = Job {
            data: (&raw const f).cast(),
            call: call::<F>,
        };
        let shared = &*self.shared;
        shared.running.store(self.workers.len(), Ordering::Relaxed);
        *shared.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| f(0)));
        let mut spins = 0;
        while shared.running.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        if shared.panicked.swap(false, Ordering::Relaxed) {
            std::panic::resume_unwind(Box::new("a worker of the thread pool panicked"));
        }
    }

    /// Runs `f(item)` for every item in `0..items`, handed out in chunks as threads become free.
    pub fn for_each<F: Fn(usize) + Sync>(&self, items: usize, chunk: usize, f: F) {
        let next = AtomicUsize::new(0);
        let chunk = chunk.max(1);
        if items <= chunk {
            return (0..items).for_each(f);
        }
        self.run(|_| {
            loop {
                let start = next.fetch_add(chunk, Ordering::Relaxed);
                if start >= items {
                    break;
                }
                for item in start..items.min(start + chunk) {
                    f(item);
                }
            }
        });
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
    struct Parts(*mut f32, usize);
    // SAFETY: each row is touched by one thread.
    unsafe impl Sync for Parts {}
    let (a, b) = (
        Parts(a.as_mut_ptr(), a.len() / rows),
        Parts(b.as_mut_ptr(), b.len() / rows),
    );
    pool.for_each(rows, 4, |i| {
        let row = |Parts(start, len): &Parts| {
            // SAFETY: row `i` lies in the matrix, and belongs to this call alone.
            unsafe { std::slice::from_raw_parts_mut(start.add(i * len), *len) }
        };
        f(i, row(&a), row(&b));
    });
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
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
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            seen = self.wait_for_change(seen);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let job = *self.job.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(job) = job {
                // SAFETY: `run` keeps the closure alive until `running` is zero.
                let result =
                    catch_unwind(AssertUnwindSafe(|| unsafe { (job.call)(job.data, index) }));
                if result.is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            self.running.fetch_sub(1, Ordering::Release);
        }
    }

    fn wait_for_change(&self, seen: usize) -> usize {
        for _ in 0..SPINS {
            let now = self.epoch.load(Ordering::Acquire);
            if now != seen {
                return now;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let now = self.epoch.load(Ordering::SeqCst);
            if now != seen {
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
                return now;
            }
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_runs_exactly_once() {
        let pool = Pool::new(3).unwrap();
        for items in [0, 1, 7, 1000] {
            let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
            pool.for_each(items, 4, |i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn regions_work_again_after_the_workers_parked() {
        let pool = Pool::new(2).unwrap();
        for _ in 0..3 {
            let ran = AtomicUsize::new(0);
            pool.run(|_| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(ran.load(Ordering::Relaxed), 2);
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
    }

    #[test]
    fn a_panic_in_a_region_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::new(2).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(|thread| assert!(thread == 0, "worker fails"))
        }));
        assert!(result.is_err());
        let ran = AtomicUsize::new(0);
        pool.run(|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.load(Ordering::Relaxed), 2);
    }
}
