//! The tensors that a row takes: [`Input`].

use super::numbers_of;
use crate::tape::Tape;
use crate::{Operand, ParameterId, Var};
use vitrine_tensor::{DType, Device, Result, Tensor, random};

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
    /// Standard normal, rounded to sixteenths: exact in every float dtype.
    Sixteenths,
}

impl Values {
    /// Standard normal.
    pub const STANDARD: Values = Values::Normal { mean: 0.0, std: 1.0 };

    pub(super) fn generate(self, len: usize, seed: u64) -> Vec<f64> {
        let normal = random::normal(len, 1.0, seed, 0).into_iter().map(f64::from);
        match self {
            Values::Normal { mean, std } => normal.map(|x| mean + std * x).collect(),
            Values::Constant(value) => vec![value; len],
            Values::Squares => normal.map(|x| x * x).collect(),
            Values::Sixteenths => normal.map(|x| (16.0 * x).round() / 16.0).collect(),
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

/// What an input is where the operation runs in half precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// In half precision, and so is its gradient.
    Data,
    /// In the accumulator's dtype, such as an F32 residual stream or a moment.
    Wide,
    /// As a model's parameters under mixed precision: a matrix has a copy in half precision to compute in, a vector stays as
    /// it is, with a rounded copy beside. The gradient has the accumulator's dtype.
    Parameter,
}

/// One tensor that an operation takes.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name, such as `x` or `weight`.
    pub name: &'static str,
    /// Its shape.
    pub dims: Vec<usize>,
    values: Values,
    role: Role,
    /// Elements between a row and the next: a view of a wider tensor.
    gap: usize,
}

impl Input {
    /// Standard normal data.
    pub fn new(name: &'static str, dims: &[usize]) -> Self {
        Input { name, dims: dims.to_vec(), values: Values::STANDARD, role: Role::Data, gap: 0 }
    }

    /// The same with other numbers.
    pub fn values(self, values: Values) -> Self {
        Input { values, ..self }
    }

    /// The same as a parameter of a model.
    pub fn parameter(self) -> Self {
        Input { role: Role::Parameter, ..self }
    }

    /// The same in the accumulator's dtype, whatever the operation's.
    pub fn wide(self) -> Self {
        Input { role: Role::Wide, ..self }
    }

    /// The same with `gap` elements between rows.
    pub(super) fn strided(self, gap: usize) -> Self {
        Input { gap, ..self }
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether it has the operation's dtype, and not the accumulator's.
    pub(super) fn is_narrow(&self) -> bool {
        match self.role {
            Role::Data => true,
            Role::Wide => false,
            Role::Parameter => self.dims.len() > 1,
        }
    }

    /// Its dtype in an operation on `dtype`.
    fn dtype(&self, dtype: DType) -> DType {
        if self.is_narrow() { dtype } else { dtype.accumulator() }
    }

    /// Its numbers, which its dtype in an operation on `exact_in` holds exactly.
    pub(super) fn numbers(&self, seed: u64, exact_in: DType) -> Result<Vec<f64>> {
        rounded(&self.values.generate(self.numel(), seed), self.dtype(exact_in))
    }

    /// Numbers as this input's tensor in an operation on `dtype`.
    pub(super) fn operand(&self, numbers: &[f64], dtype: DType, device: Device) -> Result<Operand> {
        let value = self.tensor(numbers, self.dtype(dtype), device)?;
        let has_copy = self.role == Role::Parameter && value.dtype() != dtype;
        let rounded = has_copy.then(|| value.to_dtype(dtype)).transpose()?;
        Ok(Operand { value, rounded, trainable: true })
    }

    fn tensor(&self, numbers: &[f64], dtype: DType, device: Device) -> Result<Tensor> {
        let Some((&width, rows)) = self.dims.split_last() else {
            return Tensor::from_slice(numbers, &self.dims)?.to_dtype(dtype)?.to_device(device);
        };
        // What lies in the gaps must not be read: NaN would show.
        let mut wide = vec![f64::NAN; rows.iter().product::<usize>() * (width + self.gap)];
        for (wide, row) in wide.chunks_mut((width + self.gap).max(1)).zip(numbers.chunks(width.max(1))) {
            wide[..width].copy_from_slice(row);
        }
        let dims: Vec<usize> = rows.iter().copied().chain([width + self.gap]).collect();
        Tensor::from_slice(&wide, &dims)?.to_dtype(dtype)?.to_device(device)?.narrow(rows.len(), 0, width)
    }

    /// The variable of the row's input `index`, whose gradient is wanted or not.
    pub(super) fn variable<'t>(
        &self,
        tape: &'t Tape,
        index: usize,
        operand: &Operand,
        wanted: bool,
    ) -> Var<'t> {
        let operand = operand.clone();
        match self.role {
            Role::Parameter => {
                tape.parameter(ParameterId::new(index), Operand { trainable: wanted, ..operand })
            }
            Role::Data | Role::Wide if wanted => tape.leaf(operand.value),
            Role::Data | Role::Wide => tape.constant(operand.value),
        }
    }
}

/// The nearest numbers that a dtype holds.
pub(super) fn rounded(numbers: &[f64], dtype: DType) -> Result<Vec<f64>> {
    numbers_of(&Tensor::from_slice(numbers, &[numbers.len()])?.to_dtype(dtype)?)
}
