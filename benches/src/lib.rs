//! Shared pieces of the benches: data, interleaved timing, tables.
//!
//! The machines that this runs on are shared, so a figure means little by itself. Candidates are timed in turns within
//! one process, and reported as medians and as shares of a limit measured in that process.

use std::time::{Duration, Instant};

/// Deterministic values in (-1, 1).
pub fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Something to be timed against others.
pub struct Candidate<'a> {
    /// Its name in the table.
    pub name: &'a str,
    /// One run.
    pub run: Box<dyn FnMut() + 'a>,
}

impl<'a> Candidate<'a> {
    /// A candidate that runs `run`.
    pub fn new(name: &'a str, run: impl FnMut() + 'a) -> Self {
        Candidate { name, run: Box::new(run) }
    }
}

/// The median seconds of a run of each candidate. The candidates take turns for about `budget`, at least 5 rounds; runs
/// shorter than 200 microseconds are repeated within a turn.
pub fn interleaved(candidates: &mut [Candidate<'_>], budget: Duration) -> Vec<f64> {
    const SHORTEST: f64 = 2e-4;
    let time = |candidate: &mut Candidate<'_>, repeats: usize| {
        let start = Instant::now();
        for _ in 0..repeats {
            (candidate.run)();
        }
        start.elapsed().as_secs_f64() / repeats as f64
    };
    let repeats: Vec<usize> = candidates
        .iter_mut()
        .map(|candidate| {
            time(candidate, 1);
            (SHORTEST / time(candidate, 1)).ceil().clamp(1.0, 1e6) as usize
        })
        .collect();
    let mut seconds = vec![Vec::new(); candidates.len()];
    let start = Instant::now();
    while start.elapsed() < budget || seconds[0].len() < 5 {
        for ((candidate, &repeats), seconds) in candidates.iter_mut().zip(&repeats).zip(&mut seconds) {
            seconds.push(time(candidate, repeats));
        }
    }
    seconds.into_iter().map(median).collect()
}

/// The middle value (the upper one of two).
///
/// # Panics
/// If there are no values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Panics unless `got` is within `tolerance` of `expected` at every index; NaN counts as a difference.
///
/// # Panics
/// At the first difference, with its index and both values: a bench verifies before it times.
pub fn verify(what: &str, got: &[f32], expected: &[f64], tolerance: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths differ");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - expected).abs();
        assert!(error <= tolerance(i), "{what}: [{i}]: {got} against {expected}");
    }
}
