//! Shared pieces of the benches: data, interleaved timing, tables.
//!
//! The machines that this runs on are shared, so a figure means little by itself. Candidates are timed in turns within
//! one process, and reported as medians and as shares of a limit measured in that process.

use std::hint::black_box;
use std::time::{Duration, Instant};
use vitrine_autograd::Operand;
use vitrine_autograd::cases::{OpCase, Recorded};
use vitrine_tensor::{DType, Device, Tensor};

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
    /// Runs it as often as told; the seconds of all runs together.
    time: Box<dyn FnMut(usize) -> f64 + 'a>,
}

impl<'a> Candidate<'a> {
    /// A candidate that runs `run`.
    pub fn new(name: &'a str, mut run: impl FnMut() + 'a) -> Self {
        let time = move |repeats| {
            let start = Instant::now();
            (0..repeats).for_each(|_| run());
            start.elapsed().as_secs_f64()
        };
        Candidate { name, time: Box::new(time) }
    }

    /// A candidate that runs `run` on what `prepare` makes for each run, untimed.
    pub fn prepared<T>(
        name: &'a str,
        mut prepare: impl FnMut() -> T + 'a,
        mut run: impl FnMut(T) + 'a,
    ) -> Self {
        let mut once = move || {
            let prepared = prepare();
            let start = Instant::now();
            run(prepared);
            start.elapsed().as_secs_f64()
        };
        Candidate { name, time: Box::new(move |repeats| (0..repeats).map(|_| once()).sum()) }
    }
}

/// A row of the operations' table with its F32 tensors, ready to be timed.
pub struct Row {
    /// The row.
    pub case: OpCase,
    operands: Vec<Operand>,
    douts: Vec<Tensor>,
}

impl Row {
    /// Makes a row's tensors.
    ///
    /// # Panics
    /// If the operation fails.
    pub fn new(case: OpCase) -> Self {
        let operands = case.operands(DType::F32, DType::F32, Device::Cpu).expect("inputs");
        let outputs = case.record(&operands).expect("forward").outputs();
        let douts = case.output_gradients(&outputs, DType::F32).expect("gradients");
        Row { case, operands, douts }
    }

    /// One forward pass, on a tape that records.
    ///
    /// # Panics
    /// If the operation fails.
    pub fn forward(&self) -> Recorded {
        self.case.record(&self.operands).expect("forward")
    }

    /// The backward pass of a forward one, by the tape and its rules.
    ///
    /// # Panics
    /// If the operation fails.
    pub fn backward(&self, recorded: Recorded) {
        black_box(recorded.backward(&self.douts).expect("backward"));
    }

    /// Forward, to be timed.
    pub fn forward_candidate<'a>(&'a self, name: &'a str) -> Candidate<'a> {
        Candidate::new(name, || drop(black_box(self.forward())))
    }

    /// Backward alone, to be timed.
    pub fn backward_candidate<'a>(&'a self, name: &'a str) -> Candidate<'a> {
        Candidate::prepared(name, || self.forward(), |recorded| self.backward(recorded))
    }
}

/// Panics unless a row is in F32 what it is in F64: nothing is timed that does not compute what it should.
///
/// # Panics
/// At the first difference.
pub fn verify_row(case: &OpCase) {
    if let Err(mismatch) = case.check_f32(Device::Cpu) {
        panic!("{}: {mismatch}", case.name());
    }
}

/// The median seconds of a run of each candidate. The candidates take turns for about `budget`, at least 5 rounds; runs
/// shorter than 200 microseconds are repeated within a turn.
pub fn interleaved(candidates: &mut [Candidate<'_>], budget: Duration) -> Vec<f64> {
    const SHORTEST: f64 = 2e-4;
    let time = |candidate: &mut Candidate<'_>, repeats: usize| (candidate.time)(repeats) / repeats as f64;
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
