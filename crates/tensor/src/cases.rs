//! Rows that say what an operation must do: [`OpCase`]. Behind the feature `cases`; tests and benches share them.
//!
//! A row holds generators of its inputs, the operation forward and backward as closures over tensors, a textbook version
//! of the same, a tolerance and a count of bytes and floating-point operations. From it follow, as tests of their own:
//! central differences of the F64 forward against the F64 backward; the textbook version against F64; every dtype on
//! every instruction set against F64; and equality for any number of threads. Benches time the same closures.

mod attention;
mod classification;
mod dense;
mod elementwise;
mod low;
mod normalization;
mod optimizer;
mod rows;
mod shapes;

pub use attention::attention;
pub use classification::{cross_entropy, log_softmax, softmax};
pub use dense::{linear, linear_beside_residual, matmul};
pub use elementwise::{arithmetic, functions, gelu_erf, gelu_tanh};
pub use low::Low;
pub use normalization::{
    dropout, dropout_add_layer_norm, embed_layer_norm, embedding, layer_norm, layer_norm_of,
};
pub use optimizer::adamw;
pub use rows::{all, of};
pub use shapes::{cat, gather_rows, max, mean, narrow, sum, transpose};

use crate::{DType, Device, Result, Tensor, for_float, random};

/// How the numbers of an input are made, before they are rounded to a dtype.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// Normally distributed.
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        std: f64,
    },
    /// Standard normal, with -150 and 150 strewn in: where a naive exponential overflows F32.
    Extreme,
    /// One value everywhere: no variance, ties for the maximum.
    Constant(f64),
    /// Squares of standard normal values: second moments.
    Squares,
}

impl Values {
    /// Standard normal.
    pub const STANDARD: Values = Values::Normal { mean: 0.0, std: 1.0 };

    fn generate(self, len: usize, seed: u64) -> Vec<f64> {
        let normal = random::normal(len, 1.0, seed, 0).into_iter().map(f64::from);
        match self {
            Values::Normal { mean, std } => normal.map(|x| mean + std * x).collect(),
            Values::Constant(value) => vec![value; len],
            Values::Squares => normal.map(|x| x * x).collect(),
            Values::Extreme => normal
                .enumerate()
                .map(|(i, x)| match i % 7 {
                    2 => 150.0,
                    5 => -150.0,
                    _ => x,
                })
                .collect(),
        }
    }
}

/// One tensor that an operation takes.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name, such as `x` or `weight`.
    pub name: &'static str,
    /// Its shape.
    pub dims: Vec<usize>,
    /// Its numbers.
    pub values: Values,
    /// A parameter or statistic: it has the accumulator's dtype where other inputs are in half precision.
    pub parameter: bool,
    /// Elements between a row and the next: a view of a wider tensor.
    pub gap: usize,
}

impl Input {
    /// Standard normal data.
    pub fn new(name: &'static str, dims: &[usize]) -> Self {
        Input { name, dims: dims.to_vec(), values: Values::STANDARD, parameter: false, gap: 0 }
    }

    /// The same with other numbers.
    pub fn values(self, values: Values) -> Self {
        Input { values, ..self }
    }

    /// The same as a parameter.
    pub fn parameter(self) -> Self {
        Input { parameter: true, ..self }
    }

    /// The same with `gap` elements between rows.
    pub fn strided(self, gap: usize) -> Self {
        Input { gap, ..self }
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.dims.iter().product()
    }

    /// The dtype of this input in an operation on `dtype`.
    fn dtype(&self, dtype: DType) -> DType {
        if self.parameter { dtype.accumulator() } else { dtype }
    }

    /// Numbers as this input's tensor.
    fn tensor(&self, values: &[f64], dtype: DType, device: Device) -> Result<Tensor> {
        let dtype = self.dtype(dtype);
        let Some((&width, rows)) = self.dims.split_last() else {
            return Tensor::from_slice(values, &self.dims)?.to_dtype(dtype)?.to_device(device);
        };
        // What lies in the gaps must not be read: NaN would show.
        let mut wide = vec![f64::NAN; rows.iter().product::<usize>() * (width + self.gap)];
        for (wide, row) in wide.chunks_mut((width + self.gap).max(1)).zip(values.chunks(width.max(1))) {
            wide[..width].copy_from_slice(row);
        }
        let dims: Vec<usize> = rows.iter().copied().chain([width + self.gap]).collect();
        Tensor::from_slice(&wide, &dims)?.to_dtype(dtype)?.to_device(device)?.narrow(rows.len(), 0, width)
    }
}

/// Least bytes moved and floating-point operations done by one call, were its tensors in F32.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Bytes read and written, each once.
    pub bytes: usize,
    /// Additions and multiplications.
    pub flops: usize,
}

/// What forward returns.
#[derive(Debug)]
pub struct Forwarded {
    /// The results that have gradients.
    pub outputs: Vec<Tensor>,
    /// What backward needs besides the inputs.
    pub saved: Vec<Tensor>,
}

/// Inputs to outputs.
pub type Forward = Box<dyn Fn(&[Tensor]) -> Result<Forwarded> + Send + Sync>;
/// Inputs, saved tensors and gradients of the outputs to gradients of the inputs, `None` where there is none.
pub type Backward = Box<dyn Fn(&[Tensor], &[Tensor], &[Tensor]) -> Result<Vec<Option<Tensor>>> + Send + Sync>;
/// The textbook version: inputs and gradients of the outputs to outputs and gradients, in [`Low`] arithmetic.
pub type Naive = Box<dyn Fn(&[Vec<Low>], &[Vec<Low>]) -> NaiveResults + Send + Sync>;

/// What a textbook version returns.
#[derive(Debug, Default)]
pub struct NaiveResults {
    /// The outputs, in forward's order.
    pub outputs: Vec<Vec<Low>>,
    /// The gradients, in backward's order; empty for operations without.
    pub gradients: Vec<Option<Vec<Low>>>,
}

/// One operation with one set of shapes and attributes.
pub struct OpCase {
    /// The operation, as its function is called.
    pub op: &'static str,
    /// What is special about this row: shape, attribute, layout.
    pub variant: String,
    /// The tensors that it takes.
    pub inputs: Vec<Input>,
    /// The largest error in F32, in units of 2^-24 (one rounding) of the largest magnitude in the expected tensor. Each
    /// operation derives it where it makes its rows.
    pub roundings: f64,
    /// The operation.
    pub forward: Forward,
    /// Its gradient.
    pub backward: Option<Backward>,
    /// Its textbook version.
    pub naive: Option<Naive>,
    /// Of forward.
    pub cost: Cost,
    /// Of backward alone.
    pub backward_cost: Cost,
}

/// The outputs of a row, and the gradients of its inputs.
pub struct Results {
    /// In forward's order.
    pub outputs: Vec<Tensor>,
    /// In the inputs' order; empty for operations without gradients.
    pub gradients: Vec<Option<Tensor>>,
}

impl OpCase {
    /// `op/variant`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.op, self.variant)
    }

    /// The same row under another name of its variant.
    pub fn named(self, variant: &str) -> Self {
        OpCase { variant: variant.to_string(), ..self }
    }

    /// The same row with another tolerance, for numbers that are badly conditioned.
    pub fn allowing(self, roundings: f64) -> Self {
        OpCase { roundings, ..self }
    }

    /// The same row with `gap` elements between the rows of its inputs that are no parameters.
    pub fn strided(mut self, gap: usize) -> Self {
        for input in self.inputs.iter_mut().filter(|input| !input.parameter) {
            input.gap = gap;
        }
        self.variant += "_strided";
        self
    }

    /// The same row with an input that stays in the accumulator's dtype, such as an F32 residual stream.
    pub fn with_wide(mut self, input: &str) -> Self {
        self.inputs.iter_mut().filter(|i| i.name == input).for_each(|i| i.parameter = true);
        self.variant += "_wide_";
        self.variant += input;
        self
    }

    /// The same row with other numbers in its first input.
    pub fn with_values(mut self, values: Values) -> Self {
        self.inputs[0].values = values;
        self
    }

    /// The inputs for an operation on `dtype`, with numbers that `exact_in` holds exactly.
    ///
    /// # Errors
    /// Those of making tensors.
    pub fn tensors(&self, exact_in: DType, dtype: DType, device: Device) -> Result<Vec<Tensor>> {
        let numbers = self.numbers(exact_in)?;
        let tensor = |(input, numbers): (&Input, &Vec<f64>)| input.tensor(numbers, dtype, device);
        self.inputs.iter().zip(&numbers).map(tensor).collect()
    }

    /// The numbers of the inputs, rounded to `exact_in`.
    fn numbers(&self, exact_in: DType) -> Result<Vec<Vec<f64>>> {
        let round = |(seed, input): (u64, &Input)| {
            let numbers = input.values.generate(input.numel(), 1000 + seed);
            rounded(&numbers, input.dtype(exact_in))
        };
        (0..).zip(&self.inputs).map(round).collect()
    }

    /// Standard normal gradients for these outputs, with numbers that `exact_in` holds exactly.
    ///
    /// # Errors
    /// Those of making tensors.
    pub fn output_gradients(&self, outputs: &[Tensor], exact_in: DType) -> Result<Vec<Tensor>> {
        let gradient = |(seed, output): (u64, &Tensor)| {
            let numbers = rounded(&Values::STANDARD.generate(output.numel(), 2000 + seed), exact_in)?;
            Tensor::from_slice(&numbers, output.dims())?.to_dtype(output.dtype())?.to_device(output.device())
        };
        (0..).zip(outputs).map(gradient).collect()
    }

    /// Runs forward and backward on `dtype`, with numbers that `exact_in` holds exactly.
    ///
    /// # Errors
    /// The operation's.
    pub fn run(&self, exact_in: DType, dtype: DType, device: Device) -> Result<Results> {
        let inputs = self.tensors(exact_in, dtype, device)?;
        let Forwarded { outputs, saved } = (self.forward)(&inputs)?;
        let gradients = match &self.backward {
            Some(backward) => backward(&inputs, &saved, &self.output_gradients(&outputs, exact_in)?)?,
            None => Vec::new(),
        };
        Ok(Results { outputs, gradients })
    }

    /// Compares F32 on a device (and the current instruction set) with F64, outputs and gradients.
    ///
    /// # Errors
    /// A [`Mismatch`] for the first element that differs by more than `roundings`, or for the operation's error.
    pub fn check_f32(&self, device: Device) -> std::result::Result<(), Mismatch> {
        let expected = self.name_results(self.run(DType::F32, DType::F64, Device::Cpu)?);
        let got = self.name_results(self.run(DType::F32, DType::F32, device)?);
        check_count(got.len(), expected.len())?;
        for ((name, got), (_, expected)) in got.iter().zip(&expected) {
            let expected = numbers_of(expected)?;
            let tolerance = self.roundings * 2f64.powi(-24) * largest(&expected).max(1e-6);
            compare(|| name.clone(), &numbers_of(got)?, &expected, tolerance)?;
        }
        Ok(())
    }

    /// Compares half precision on a device with F64: at most twice the error of the textbook version in the same
    /// precision. Where that is exact by luck, half a unit in the last place, which every result must be granted, counts
    /// instead.
    ///
    /// # Errors
    /// As [`OpCase::check_f32`].
    pub fn check_half(&self, dtype: DType, device: Device) -> std::result::Result<(), Mismatch> {
        let expected = self.name_results(self.run(dtype, DType::F64, Device::Cpu)?);
        let got = self.name_results(self.run(dtype, dtype, device)?);
        let naive = self.naive_numbers(dtype, dtype)?;
        check_count(got.len(), expected.len())?;
        check_count(naive.len(), expected.len())?;
        let half_unit = if dtype == DType::BF16 { 2f64.powi(-9) } else { 2f64.powi(-12) };
        for (((name, got), (_, expected)), naive) in got.iter().zip(&expected).zip(&naive) {
            let expected = numbers_of(expected)?;
            let errors: Vec<f64> = naive.iter().zip(&expected).map(|(naive, exact)| naive - exact).collect();
            // A textbook version that overflowed bounds nothing; NaN in the result fails anyway.
            let naive_error = if errors.iter().all(|e| e.is_finite()) { largest(&errors) } else { f64::MAX };
            let tolerance = 2.0 * naive_error.max(half_unit * largest(&expected));
            compare(|| name.clone(), &numbers_of(got)?, &expected, tolerance)?;
        }
        Ok(())
    }

    /// Whether [`OpCase::check_half`] has something to say: nothing is in half precision where all inputs are parameters.
    pub fn has_half(&self) -> bool {
        self.naive.is_some() && self.inputs.iter().any(|input| !input.parameter)
    }

    /// The textbook version's numbers, in the order of [`OpCase::name_results`].
    ///
    /// # Errors
    /// Those of making tensors.
    pub fn naive_numbers(&self, exact_in: DType, dtype: DType) -> Result<Vec<Vec<f64>>> {
        let naive = self.run_naive(exact_in, dtype)?.unwrap_or_default();
        let all = naive.outputs.into_iter().chain(naive.gradients.into_iter().flatten());
        Ok(all.map(|numbers| numbers.into_iter().map(Low::get).collect()).collect())
    }

    /// Outputs and then gradients, with names for reports.
    pub fn name_results(&self, results: Results) -> Vec<(String, Tensor)> {
        let outputs = results.outputs.into_iter().enumerate().map(|(i, y)| (format!("output {i}"), y));
        let gradients = self.inputs.iter().zip(results.gradients);
        let gradients = gradients.filter_map(|(input, d)| Some((format!("d{}", input.name), d?)));
        outputs.chain(gradients).collect()
    }

    /// Runs the textbook version, if there is one, with every result rounded to `dtype`.
    ///
    /// # Errors
    /// Those of making tensors.
    pub fn run_naive(&self, exact_in: DType, dtype: DType) -> Result<Option<NaiveResults>> {
        let Some(naive) = &self.naive else { return Ok(None) };
        let inputs: Vec<_> =
            self.numbers(exact_in)?.iter().map(|numbers| Low::from_slice(numbers, dtype)).collect();
        let outputs = (self.forward)(&self.tensors(exact_in, DType::F64, Device::Cpu)?)?.outputs;
        let douts: Result<Vec<_>> =
            self.output_gradients(&outputs, exact_in)?.iter().map(numbers_of).collect();
        let douts: Vec<_> = douts?.iter().map(|numbers| Low::from_slice(numbers, dtype)).collect();
        Ok(Some(naive(&inputs, &douts)))
    }

    /// Compares backward in F64 with central differences of forward, at the [`OpCase::probes`] of each input.
    ///
    /// # Errors
    /// A [`Mismatch`] for the first element that differs; the operation's errors, as a mismatch of their own.
    pub fn check_gradients(&self) -> std::result::Result<(), Mismatch> {
        let Some(backward) = &self.backward else { return Ok(()) };
        let numbers = self.numbers(DType::F32)?;
        let inputs = self.tensors(DType::F32, DType::F64, Device::Cpu)?;
        let Forwarded { outputs, saved } = (self.forward)(&inputs)?;
        let douts = self.output_gradients(&outputs, DType::F32)?;
        let gradients = backward(&inputs, &saved, &douts)?;
        for (i, (input, gradient)) in self.inputs.iter().zip(&gradients).enumerate() {
            let Some(gradient) = gradient else { continue };
            let gradient = numbers_of(gradient)?;
            if gradient.len() != input.numel() {
                let what = format!("d{}", input.name);
                return Err(Mismatch::Length { what, got: gradient.len(), expected: input.numel() });
            }
            let loss = |element: usize, step: f64| -> Result<(f64, f64)> {
                let (mut inputs, mut moved) = (inputs.clone(), numbers[i].clone());
                moved[element] += step;
                inputs[i] = input.tensor(&moved, DType::F64, Device::Cpu)?;
                dot(&(self.forward)(&inputs)?.outputs, &douts)
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

    const STEP: f64 = 3e-5;
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

fn rounded(numbers: &[f64], dtype: DType) -> Result<Vec<f64>> {
    numbers_of(&Tensor::from_slice(numbers, &[numbers.len()])?.to_dtype(dtype)?)
}

/// The elements of a float tensor as f64.
///
/// # Errors
/// `DTypeMismatch` for integers.
pub fn numbers_of(tensor: &Tensor) -> Result<Vec<f64>> {
    for_float!("numbers_of", tensor.dtype(), E => {
        Ok(tensor.to_vec::<E>()?.into_iter().map(crate::Float::to_f64).collect())
    })
}

/// The largest magnitude, 0 for no numbers; NaN counts as 0, for [`compare`] finds it anyway.
pub fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().fold(0.0, |largest, x| x.abs().max(largest))
}

/// Two results differ, or an operation failed where it should have had a result.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// An element is further from its expected value than allowed, or one of the two is NaN.
    #[error("{what}[{index}]: got {got:e}, expected {expected:e}, allowed difference {tolerance:e}")]
    Element {
        /// The tensor.
        what: String,
        /// Position in row-major order.
        index: usize,
        /// The value found.
        got: f64,
        /// The value wanted.
        expected: f64,
        /// The largest difference allowed.
        tolerance: f64,
    },
    /// The numbers of elements or of tensors differ.
    #[error("{what}: got {got} elements, expected {expected}")]
    Length {
        /// The tensor, or the list of them.
        what: String,
        /// The number found.
        got: usize,
        /// The number wanted.
        expected: usize,
    },
    /// The operation returned an error.
    #[error(transparent)]
    Operation(#[from] crate::Error),
}

/// Checks a number of outputs and gradients.
///
/// # Errors
/// [`Mismatch::Length`].
pub fn check_count(got: usize, expected: usize) -> std::result::Result<(), Mismatch> {
    if got == expected {
        return Ok(());
    }
    Err(Mismatch::Length { what: "outputs and gradients".into(), got, expected })
}

/// Checks every element: `|got - expected| <= tolerance`, where NaN on either side fails, and infinities must be equal.
///
/// # Errors
/// [`Mismatch`] for the first element that fails.
pub fn compare(
    what: impl Fn() -> String,
    got: &[f64],
    expected: &[f64],
    tolerance: f64,
) -> std::result::Result<(), Mismatch> {
    if got.len() != expected.len() {
        return Err(Mismatch::Length { what: what(), got: got.len(), expected: expected.len() });
    }
    let pairs = got.iter().zip(expected).enumerate();
    pairs.into_iter().try_for_each(|(i, (&got, &expected))| compare_one(&what, i, got, expected, tolerance))
}

fn compare_one(
    what: impl Fn() -> String,
    index: usize,
    got: f64,
    expected: f64,
    tolerance: f64,
) -> std::result::Result<(), Mismatch> {
    // In this form NaN fails, as every comparison with it is false.
    if got == expected || (got - expected).abs() <= tolerance {
        return Ok(());
    }
    Err(Mismatch::Element { what: what(), index, got, expected, tolerance })
}
