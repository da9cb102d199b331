//! The machine's arithmetic peak: what a matrix product is measured against.

use super::kernel::MicroKernel;
use super::with_kernel;
use crate::cpu::isa::Isa;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// The f32 multiply-add rate of `threads` threads on [`Isa::current`], in GFLOP/s: the best of some runs of about a
/// millisecond that touch registers only.
pub fn peak_gflops(threads: usize) -> f64 {
    const ITERATIONS: u64 = 200_000;
    let (flops, run): (usize, fn() -> f32) = with_kernel!(Isa::current(), K => (
        2 * K::LANES * K::CHAINS,
        // SAFETY: `Isa::current` is available, and K is its kernel.
        || unsafe { K::multiply_add(black_box(ITERATIONS)) },
    ));
    best_rate(threads, flops as f64 * ITERATIONS as f64, &run)
}

/// The most GFLOP/s of some runs of `run`, of `flops` operations, on each of `threads` threads at once.
pub(super) fn best_rate(threads: usize, flops: f64, run: &(impl Fn() -> f32 + Sync)) -> f64 {
    const RUNS: usize = 20;
    let threads = threads.max(1);
    // A run lasts from the moment when all threads are there until the last one is done.
    let barrier = Barrier::new(threads);
    let best_run = || {
        let seconds = (0..RUNS).map(|_| {
            barrier.wait();
            let start = Instant::now();
            black_box(run());
            barrier.wait();
            start.elapsed().as_secs_f64()
        });
        seconds.fold(f64::INFINITY, f64::min)
    };
    let seconds = std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(best_run)));
        best_run()
    });
    flops * threads as f64 / seconds / 1e9
}
