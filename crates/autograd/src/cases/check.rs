//! What follows from a row.

use super::compare::{check_count, compare, compare_one};
use super::{Low, Mismatch, NaiveResults, OpCase, Recorded, Results, largest, numbers_of};
use crate::{Op, Result};
use std::sync::{Arc, Mutex, PoisonError};
use vitrine_tensor::cpu::memory;
use vitrine_tensor::{DType, Device, Tensor};

type Outcome<T = ()> = std::result::Result<T, Mismatch>;

/// The largest tolerance in F32, as a share of the largest expected magnitude: with more, a check would say nothing.
const LOOSEST_F32: f64 = 0.01;
/// The same in half precision, whose own half unit is up to 2^-9: sixteen of them.
const LOOSEST_HALF: f64 = 1.0 / 32.0;

impl OpCase {
    /// Compares F32 on a device (and the current instruction set) with F64, outputs and gradients.
    ///
    /// # Errors
    /// A [`Mismatch`] for the first element that differs by more than `roundings`, for `roundings` that would excuse anything, or
    /// for the operation's error.
    pub fn check_f32(&self, device: Device) -> Outcome {
        let share = self.roundings * 2f64.powi(-24);
        if share > LOOSEST_F32 {
            return Err(Mismatch::Loose { share, most: LOOSEST_F32 });
        }
        let expected = self.name_results(self.run(DType::F32, DType::F64, Device::Cpu)?);
        let got = self.name_results(self.run(DType::F32, DType::F32, device)?);
        check_count(got.len(), expected.len())?;
        for ((name, got), (_, expected)) in got.iter().zip(&expected) {
            let expected = numbers_of(expected)?;
            compare(|| name.clone(), &numbers_of(got)?, &expected, self.tolerance_f32(&expected))?;
        }
        Ok(())
    }

    fn tolerance_f32(&self, expected: &[f64]) -> f64 {
        self.roundings * 2f64.powi(-24) * largest(expected).max(1e-6)
    }

    /// Compares half precision on a device with F64: at most twice the error of the textbook version in the same
    /// precision. Where that is exact by luck, half a unit in the last place, which every result must be granted, counts
    /// instead; where it is far off or overflowed, a share of the largest magnitude.
    ///
    /// # Errors
    /// As [`OpCase::check_f32`].
    pub fn check_half(&self, dtype: DType, device: Device) -> Outcome {
        let expected = self.name_results(self.run(dtype, DType::F64, Device::Cpu)?);
        let got = self.name_results(self.run(dtype, dtype, device)?);
        let naive = self.naive_numbers(dtype, dtype)?;
        check_count(got.len(), expected.len())?;
        check_count(naive.len(), expected.len())?;
        let half_unit = if dtype == DType::BF16 { 2f64.powi(-9) } else { 2f64.powi(-12) };
        for (((name, got), (_, expected)), naive) in got.iter().zip(&expected).zip(&naive) {
            let expected = numbers_of(expected)?;
            let errors: Vec<f64> = naive.iter().zip(&expected).map(|(naive, exact)| naive - exact).collect();
            let naive_error = if errors.iter().all(|e| e.is_finite()) { largest(&errors) } else { f64::MAX };
            let tolerance = 2.0 * naive_error.max(half_unit * largest(&expected));
            let most = LOOSEST_HALF * largest(&expected).max(1e-3);
            compare(|| name.clone(), &numbers_of(got)?, &expected, tolerance.min(most))?;
        }
        Ok(())
    }

    /// Whether [`OpCase::check_half`] has something to say.
    pub fn has_half(&self) -> bool {
        self.inputs.iter().any(super::Input::is_narrow)
    }

    /// Compares F64 with the textbook version: both are the formula, so only their order of summation differs.
    ///
    /// # Errors
    /// As [`OpCase::check_f32`].
    pub fn check_textbook(&self) -> Outcome {
        let naive = self.naive_numbers(DType::F32, DType::F64)?;
        let results = self.name_results(self.run(DType::F32, DType::F64, Device::Cpu)?);
        check_count(naive.len(), results.len())?;
        for ((name, tensor), expected) in results.iter().zip(&naive) {
            let tolerance = 1e-12 * largest(expected).max(1e-3);
            compare(|| name.clone(), &numbers_of(tensor)?, expected, tolerance)?;
        }
        Ok(())
    }

    /// The textbook version's numbers, in the order of [`OpCase::name_results`].
    ///
    /// # Errors
    /// Those of making tensors.
    pub fn naive_numbers(&self, exact_in: DType, dtype: DType) -> Result<Vec<Vec<f64>>> {
        let NaiveResults { outputs, gradients } = self.run_naive(exact_in, dtype)?;
        let all = outputs.into_iter().chain(gradients);
        Ok(all.map(|numbers| numbers.into_iter().map(Low::get).collect()).collect())
    }

    /// Runs the textbook version with every result rounded to `dtype`.
    fn run_naive(&self, exact_in: DType, dtype: DType) -> Result<NaiveResults> {
        let numbers = self.numbers(exact_in)?;
        let inputs: Vec<_> = numbers.iter().map(|numbers| Low::from_slice(numbers, dtype)).collect();
        let operands = self.operands_of(&numbers, DType::F64, Device::Cpu)?;
        let recorded = self.record(&operands)?;
        let douts = self.output_gradients(&recorded.outputs(), exact_in)?;
        let douts: vitrine_tensor::Result<Vec<_>> = douts.iter().map(numbers_of).collect();
        let douts: Vec<_> = douts?.iter().map(|numbers| Low::from_slice(numbers, dtype)).collect();
        Ok((self.naive)(&inputs, &douts))
    }

    /// Outputs and then gradients, with names for reports.
    pub fn name_results(&self, results: Results) -> Vec<(String, Tensor)> {
        let outputs = results.outputs.into_iter().enumerate().map(|(i, y)| (format!("output {i}"), y));
        let gradients = self.inputs.iter().zip(results.gradients);
        let gradients = gradients.filter_map(|(input, d)| Some((format!("d{}", input.name), d?)));
        outputs.chain(gradients).collect()
    }

    /// Compares the gradients that the tape makes in F64 with central differences of forward; returns the operations whose
    /// rules made them.
    ///
    /// # Errors
    /// As [`OpCase::compare_gradients`].
    pub fn check_gradients(&self) -> Outcome<Vec<Op>> {
        let ops = Arc::new(Mutex::new(Vec::new()));
        let seen = ops.clone();
        let tape = Self::tape().on_gradient(move |_, node, dy| {
            // A gradient of zeros would prove nothing.
            if numbers_of(dy).is_ok_and(|dy| largest(&dy) > 0.0) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(node.op.clone());
            }
        });
        let operands = self.operands(DType::F32, DType::F64, Device::Cpu)?;
        let recorded = self.record_on(tape, &operands, |_| true)?;
        let douts = self.output_gradients(&recorded.outputs(), DType::F32)?;
        let gradients = recorded.backward(&douts)?;
        self.compare_gradients(&gradients)?;
        let mut ops = ops.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut ops))
    }

    /// Compares gradients in F64 with central differences of forward, at the [`OpCase::probes`] of each input.
    ///
    /// # Errors
    /// A [`Mismatch`] for the first element that differs, and for a missing gradient; the operation's errors, as a mismatch of
    /// their own.
    pub fn compare_gradients(&self, gradients: &[Option<Tensor>]) -> Outcome {
        if self.backward_cost.is_none() {
            return Ok(());
        }
        let numbers = self.numbers(DType::F32)?;
        let operands = self.operands_of(&numbers, DType::F64, Device::Cpu)?;
        let douts = self.output_gradients(&self.record(&operands)?.outputs(), DType::F32)?;
        for (i, (input, gradient)) in self.inputs.iter().zip(gradients).enumerate() {
            let gradient = gradient.as_ref().map_or(Ok(Vec::new()), numbers_of)?;
            if gradient.len() != input.numel() {
                let what = format!("d{}", input.name);
                return Err(Mismatch::Length { what, got: gradient.len(), expected: input.numel() });
            }
            let loss = |element: usize, step: f64| -> Result<(f64, f64)> {
                let (mut operands, mut moved) = (operands.clone(), numbers[i].clone());
                moved[element] += step;
                operands[i] = input.operand(&moved, DType::F64, Device::Cpu)?;
                dot(&self.record(&operands)?.outputs(), &douts)
            };
            let largest = largest(&gradient);
            for element in Self::probes(gradient.len()) {
                // Four points: the formula's error is of order STEP^4, rounding's of order 2^-53 terms / STEP.
                let [(a, terms), (b, _), (c, _), (d, _)] = [1.0, -1.0, 2.0, -2.0]
                    .map(|step| loss(element, step * Self::STEP).unwrap_or((f64::NAN, f64::NAN)));
                let numeric = (8.0 * (a - b) - (c - d)) / (12.0 * Self::STEP);
                let tolerance = 1e-7 * largest.max(1e-3) + 1e-15 * terms / Self::STEP;
                let what = || format!("d{} against central differences", input.name);
                compare_one(what, element, gradient[element], numeric, tolerance)?;
            }
        }
        Ok(())
    }

    /// The elements, at most 40 evenly spread ones, of an input with `len` elements at which differences are taken.
    pub fn probes(len: usize) -> impl Iterator<Item = usize> {
        (0..len).step_by(len.div_ceil(40).max(1))
    }

    /// A power of two: what lies a step or two beside a number of few bits is exact in F32, so that a difference sees through
    /// a conversion to it.
    const STEP: f64 = 1.0 / 32768.0;

    /// Freezes inputs: the gradient of each alone is what it is beside the others', but for the order of sums, and where nobody
    /// needs one, the tape holds no tensor. An operation that saves too little fails here.
    ///
    /// # Errors
    /// As [`OpCase::check_f32`].
    pub fn check_frozen(&self, dtype: DType, device: Device) -> Outcome {
        if self.backward_cost.is_none() {
            return Ok(());
        }
        let all = self.run(DType::F32, dtype, device)?;
        let operands = self.operands(DType::F32, dtype, device)?;
        for (alone, input) in self.inputs.iter().enumerate() {
            let recorded = self.record_on(Self::tape(), &operands, |index| index == alone)?;
            let douts = self.output_gradients(&recorded.outputs(), DType::F32)?;
            let gradients = recorded.backward(&douts)?;
            check_count(gradients.iter().flatten().count(), 1)?;
            if let (Some(got), Some(expected)) = (&gradients[alone], &all.gradients[alone]) {
                let what = || format!("d{} alone", input.name);
                let expected = numbers_of(expected)?;
                compare(what, &numbers_of(got)?, &expected, self.tolerance_f32(&expected))?;
            }
        }
        let recorded = self.record_on(Self::tape(), &operands, |_| false)?;
        let got = recorded.saved_bytes();
        if got == 0 { Ok(()) } else { Err(Mismatch::Length { what: "saved bytes".into(), got, expected: 0 }) }
    }
}

impl OpCase {
    /// Bytes that a tape holds of forward in F32 once inputs and outputs are gone: in the memory of tensors, and by its own count,
    /// in which weights are none. Gradients are wanted of all inputs or of none. The memory's counters are the process's, so this
    /// means something only where nothing else runs.
    ///
    /// # Errors
    /// The operation's.
    pub fn held(&self, wanted: bool) -> Result<(usize, usize)> {
        let before = memory::stats().live;
        let operands = self.operands(DType::F32, DType::F32, Device::Cpu)?;
        let recorded = self.record_on(Self::tape(), &operands, |_| wanted)?;
        drop(operands);
        let saved = recorded.saved_bytes();
        let Recorded { tape, outputs, .. } = recorded;
        drop(outputs);
        let live = memory::stats().live - before;
        drop(tape);
        Ok((live, saved))
    }
}

/// The loss `sum outputs * douts`, and the sum of its terms' magnitudes.
fn dot(outputs: &[Tensor], douts: &[Tensor]) -> Result<(f64, f64)> {
    let (mut sum, mut magnitudes) = (0.0, 0.0);
    for (output, dout) in outputs.iter().zip(douts) {
        for (y, dy) in numbers_of(output)?.iter().zip(numbers_of(dout)?) {
            sum += y * dy;
            magnitudes += (y * dy).abs();
        }
    }
    Ok((sum, magnitudes))
}
