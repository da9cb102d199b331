//! Dropout: `y = x * keep / (1 - p)` with a mask that is a function of (seed, step, sequence, position, site, channel).
//!
//! Nothing is saved for backward: the gradient is the same operation on dy with the same [`Dropout`]. The mask's layout
//! is documented in [`random`](crate::random). Source: Srivastava et al., JMLR 15 (2014); `torch.nn.functional.dropout`.

pub(super) mod cpu;
pub(super) mod cuda;

use super::check;
use crate::cuda::Context;
use crate::{Device, Dropout, Offsets, Result, Tensor};

/// Drops elements of `x: [T, C]` (rows may be strided), whose rows are the tokens of `offsets`.
///
/// # Errors
/// `ShapeMismatch`, `InvalidArgument` for a probability outside [0, 1), `NotContiguous`.
pub fn dropout(x: &Tensor, dropout: &Dropout, offsets: &Offsets) -> Result<Tensor> {
    const OP: &str = "dropout";
    dropout.check(OP)?;
    let (_, width) = check::matrix(OP, "x [T, C]", x)?;
    check::shape(OP, "one row a token,", x, &[offsets.total(), width])?;
    match x.device() {
        Device::Cpu => cpu::dropout(OP, x, dropout, offsets),
        Device::Cuda(ordinal) => cuda::dropout(&Context::get(ordinal)?, OP, x, dropout, offsets),
    }
}

/// The gradient of [`dropout`]: the same mask on dy.
///
/// # Errors
/// As [`dropout`].
pub fn dropout_backward(dy: &Tensor, settings: &Dropout, offsets: &Offsets) -> Result<Tensor> {
    dropout(dy, settings, offsets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::{every_path, with_isa};

    #[test]
    fn masks_follow_the_definition_on_every_path() {
        let offsets = Offsets::from_lengths([0, 3, 0, 40, 1]).unwrap();
        let settings = Dropout { dropout_p: 0.3, seed: 99, step: 5, site: 7, first_sequence: 11 };
        for isa in every_path() {
            for width in [1, 8, 20, 136] {
                let x = Tensor::full(&[offsets.total(), width], 2.0, crate::DType::F32, Device::Cpu).unwrap();
                let y = with_isa(isa, || dropout(&x, &settings, &offsets)).unwrap();
                let y = y.to_vec::<f32>().unwrap();
                for (b, range) in offsets.ranges().enumerate() {
                    for (position, row) in range.enumerate() {
                        for c in 0..width {
                            let draw = settings.hidden_draws(position as u32, b as u32, c as u32 / 8)[c % 8];
                            let expected =
                                if draw < settings.threshold() { 0.0 } else { 2.0 * settings.scale() };
                            assert_eq!(
                                y[row * width + c],
                                expected,
                                "{isa} width {width} row {row} channel {c}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_expectation_is_kept() {
        let offsets = Offsets::from_lengths([1000]).unwrap();
        let settings = Dropout { dropout_p: 0.1, seed: 1, step: 0, site: 0, first_sequence: 0 };
        let x = Tensor::full(&[1000, 256], 1.0, crate::DType::F64, Device::Cpu).unwrap();
        let y = dropout(&x, &settings, &offsets).unwrap().to_vec::<f64>().unwrap();
        let mean = y.iter().sum::<f64>() / y.len() as f64;
        // Four standard errors of a mean of 256,000 draws of variance p / (1 - p).
        assert!((mean - 1.0).abs() < 4.0 * (0.1f64 / 0.9 / 256_000.0).sqrt(), "mean {mean}");
    }
}
