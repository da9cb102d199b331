//! Rows that say what an operation must do: [`OpCase`]. Behind the feature `cases`; tests and benches share them.
//!
//! A row is one function over variables, the inputs that it takes, a textbook version of it and of its gradient in scalars,
//! a tolerance, and a count of bytes and floating-point operations. The gradients are those of the tape and of `rules.rs`: no row
//! spells one over tensors. From it follow, as tests of their own: central differences of the F64 forward against the F64 gradient; the
//! textbook version against F64; every dtype on every instruction set, and on CUDA, against F64; the same gradients with the other
//! inputs frozen; and equality for any number of threads. Benches time the same functions.

mod attention;
mod check;
mod classification;
mod compare;
mod dense;
mod elementwise;
mod input;
mod low;
mod normalization;
mod open_attention;
mod optimizer;
mod rows;
mod shapes;

pub use attention::*;
pub use classification::*;
pub use compare::{Mismatch, check_count, compare, largest, numbers_of};
pub use dense::*;
pub use elementwise::*;
pub use input::{Input, Values};
pub use low::Low;
pub use normalization::*;
pub use open_attention::*;
pub use optimizer::*;
pub use rows::{all, memory_bound, of};
pub use shapes::*;

use crate::{Operand, ParameterId, Randomness, Result, Tape, Var, VarId};
use input::rounded;
use vitrine_tensor::{DType, Device, Dropout, Tensor};

/// What dropout draws from in every row.
const RANDOMNESS: Randomness = Randomness { seed: 0x1234_5678_9abc, step: 3, first_sequence: 2 };
/// The site of a row's dropout.
const SITE: u16 = 5;

/// Least bytes moved and floating-point operations done by one call, were its tensors in F32.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Bytes read and written, each once.
    pub bytes: usize,
    /// As [`Op::flops`](crate::Op::flops) counts.
    pub flops: usize,
}

/// Inputs to outputs.
pub type Function = Box<dyn for<'t> Fn(&[Var<'t>]) -> Result<Vec<Var<'t>>> + Send + Sync>;
/// The textbook version: inputs and gradients of the outputs to outputs and gradients, in [`Low`] arithmetic.
pub type Naive = Box<dyn Fn(&[Vec<Low>], &[Vec<Low>]) -> NaiveResults + Send + Sync>;

/// A function with one output.
fn one(function: impl for<'t> Fn(&[Var<'t>]) -> Result<Var<'t>> + Send + Sync + 'static) -> Function {
    Box::new(move |inputs| Ok(vec![function(inputs)?]))
}

/// What a textbook version returns.
#[derive(Debug, Default)]
pub struct NaiveResults {
    /// The outputs, in the function's order.
    pub outputs: Vec<Vec<Low>>,
    /// The gradients, in the inputs' order; empty for operations without.
    pub gradients: Vec<Vec<Low>>,
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
    pub function: Function,
    /// Its textbook version.
    pub naive: Naive,
    /// Of forward.
    pub cost: Cost,
    /// Of backward alone; none for an operation without a gradient.
    pub backward_cost: Option<Cost>,
}

/// The outputs of a row, and the gradients of its inputs.
pub struct Results {
    /// In the function's order.
    pub outputs: Vec<Tensor>,
    /// In the inputs' order.
    pub gradients: Vec<Option<Tensor>>,
}

/// A row's function as it stands on a tape.
pub struct Recorded {
    tape: Tape,
    /// Of all inputs: leaves, constants, or parameters numbered as the inputs are.
    inputs: Vec<VarId>,
    outputs: Vec<(VarId, Tensor)>,
}

impl Recorded {
    /// The outputs.
    pub fn outputs(&self) -> Vec<Tensor> {
        self.outputs.iter().map(|(_, value)| value.clone()).collect()
    }

    /// The gradients of the inputs for these gradients of the outputs.
    ///
    /// # Errors
    /// Those of the rules.
    pub fn backward(self, douts: &[Tensor]) -> Result<Vec<Option<Tensor>>> {
        let outputs: Vec<_> = self.outputs.iter().map(|(id, _)| *id).zip(douts.iter().cloned()).collect();
        let gradients = self.tape.vjp(&outputs, &[])?;
        let gradient = |(index, id): (usize, &VarId)| {
            let leaf = gradients.of(*id)?;
            Ok(leaf.or_else(|| gradients.parameter(ParameterId::new(index))).cloned())
        };
        self.inputs.iter().enumerate().map(gradient).collect()
    }

    /// Bytes that the tape keeps for backward.
    pub fn saved_bytes(&self) -> usize {
        self.tape.nodes().iter().map(crate::Node::saved_bytes).sum()
    }

    /// Floating-point operations of forward.
    pub fn flops(&self) -> u64 {
        self.tape.nodes().iter().map(crate::Node::flops).sum()
    }
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

    /// The same row with `gap` elements between the rows of its inputs, but of vectors of parameters and of wide inputs.
    pub fn strided(mut self, gap: usize) -> Self {
        let strided = |input: Input| if input.is_narrow() { input.strided(gap) } else { input };
        self.inputs = self.inputs.into_iter().map(strided).collect();
        self.variant += "_strided";
        self
    }

    /// The same row with an input that stays in the accumulator's dtype, such as an F32 residual stream.
    pub fn with_wide(mut self, name: &str) -> Self {
        let wide = |input: Input| if input.name == name { input.wide() } else { input };
        self.inputs = self.inputs.into_iter().map(wide).collect();
        self.variant += "_wide_";
        self.variant += name;
        self
    }

    /// The same row with other numbers in its first input.
    pub fn with_values(mut self, values: Values) -> Self {
        self.inputs[0] = self.inputs[0].clone().values(values);
        self
    }

    /// The inputs for an operation on `dtype`, with numbers that `exact_in` holds exactly.
    ///
    /// # Errors
    /// Those of making tensors.
    pub fn operands(&self, exact_in: DType, dtype: DType, device: Device) -> Result<Vec<Operand>> {
        self.operands_of(&self.numbers(exact_in)?, dtype, device)
    }

    fn operands_of(&self, numbers: &[Vec<f64>], dtype: DType, device: Device) -> Result<Vec<Operand>> {
        let operand = |(input, numbers): (&Input, &Vec<f64>)| Ok(input.operand(numbers, dtype, device)?);
        self.inputs.iter().zip(numbers).map(operand).collect()
    }

    /// The numbers of the inputs, rounded to `exact_in`.
    fn numbers(&self, exact_in: DType) -> Result<Vec<Vec<f64>>> {
        (1000..).zip(&self.inputs).map(|(seed, input)| Ok(input.numbers(seed, exact_in)?)).collect()
    }

    /// Standard normal gradients for these outputs, with numbers that `exact_in` holds exactly.
    ///
    /// # Errors
    /// Those of making tensors.
    pub fn output_gradients(&self, outputs: &[Tensor], exact_in: DType) -> Result<Vec<Tensor>> {
        let gradient = |(seed, output): (u64, &Tensor)| {
            let numbers = rounded(&Values::STANDARD.generate(output.numel(), seed), exact_in)?;
            let gradient = Tensor::from_slice(&numbers, output.dims())?.to_dtype(output.dtype())?;
            Ok(gradient.to_device(output.device())?)
        };
        (2000..).zip(outputs).map(gradient).collect()
    }

    /// The tape of a run: its dropout drops.
    fn tape() -> Tape {
        Tape::training(RANDOMNESS)
    }

    /// Runs forward on a tape that records for the gradients of all inputs.
    ///
    /// # Errors
    /// The operation's.
    pub fn record(&self, operands: &[Operand]) -> Result<Recorded> {
        self.record_on(Self::tape(), operands, |_| true)
    }

    /// Runs forward on a tape, with gradients wanted of some inputs.
    fn record_on(
        &self,
        tape: Tape,
        operands: &[Operand],
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Recorded> {
        let (inputs, outputs) = {
            let variable = |(index, (input, operand)): (usize, (&Input, &Operand))| {
                input.variable(&tape, index, operand, wanted(index))
            };
            let inputs: Vec<Var> = self.inputs.iter().zip(operands).enumerate().map(variable).collect();
            let outputs = (self.function)(&inputs)?;
            let outputs = outputs.into_iter().map(|output| (output.id(), output.into_value())).collect();
            (inputs.iter().map(Var::id).collect(), outputs)
        };
        Ok(Recorded { tape, inputs, outputs })
    }

    /// Runs forward and backward on `dtype`, with numbers that `exact_in` holds exactly.
    ///
    /// # Errors
    /// The operation's.
    pub fn run(&self, exact_in: DType, dtype: DType, device: Device) -> Result<Results> {
        let recorded = self.record(&self.operands(exact_in, dtype, device)?)?;
        let outputs = recorded.outputs();
        let gradients = recorded.backward(&self.output_gradients(&outputs, exact_in)?)?;
        Ok(Results { outputs, gradients })
    }
}

/// The mask of a row's dropout.
fn mask(dropout_p: f64) -> Option<Dropout> {
    OpCase::tape().dropout_at(dropout_p, SITE)
}
