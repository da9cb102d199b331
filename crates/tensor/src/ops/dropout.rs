//! Dropout: `y = x * keep / (1 - p)` with a mask that is a function of (seed, step, sequence, position, site, channel).
//!
//! Nothing is saved for backward: the gradient is the same operation on dy with the same [`Dropout`]. The mask's layout
//! is documented in [`random`](crate::random). Source: Srivastava et al., JMLR 15 (2014); `torch.nn.functional.dropout`.

use super::check;
use super::layer_norm::BLOCK;
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::random::{key, philox_calls};
use crate::tensor::Rows;
use crate::{Device, Dropout, Float, Offsets, Result, Tensor, cuda, for_float};

/// Drops elements of `x: [T, C]` (rows may be strided), whose rows are the tokens of `offsets`.
///
/// # Errors
/// `ShapeMismatch`, `InvalidArgument` for a probability outside [0, 1), `NotContiguous`.
pub fn dropout(x: &Tensor, dropout: &Dropout, offsets: &Offsets) -> Result<Tensor> {
    const OP: &str = "dropout";
    dropout.check(OP)?;
    let (rows, width) = check::matrix(OP, "x [T, C]", x)?;
    check::shape(OP, "one row a token,", x, &[offsets.total(), width])?;
    if x.device() != Device::Cpu {
        return cuda::dropout(x, dropout, offsets);
    }
    let mut y = Tensor::empty(&[rows, width], x.dtype(), x.device())?;
    for_float!(OP, x.dtype(), E => {
        let x = x.as_rows::<E>(OP)?;
        let isa = Isa::current();
        parallel::for_each(y.as_mut_slice::<E>()?.chunks_mut(BLOCK * width.max(1)), |block, y| {
            let masks = RowMasks::new(dropout, offsets, block * BLOCK, width);
            simd::run(isa, Forward { x, first: block * BLOCK, y, masks });
        });
        Ok(())
    })?;
    Ok(y)
}

struct Forward<'a, E: Float> {
    x: Rows<'a, E>,
    first: usize,
    y: &'a mut [E],
    masks: RowMasks<'a>,
}

impl<E: Float> Kernel<E::Real> for Forward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(mut self) {
        for (row, y) in self.y.chunks_mut(self.x.width.max(1)).enumerate() {
            let x = self.x.row(self.first + row);
            self.masks.next_row();
            self.masks.map::<L, E, E>(x, y);
        }
    }
}

/// The masks of consecutive rows, one row at a time.
pub(super) struct RowMasks<'a> {
    dropout: &'a Dropout,
    offsets: &'a Offsets,
    sequence: usize,
    row: usize,
    /// What Philox returned: each word is four draws in the order of memory, on little-endian machines, which all supported
    /// ones are.
    words: Vec<[[u64; 2]; CALLS]>,
}

/// Calls of Philox side by side; each gives eight draws.
const CALLS: usize = 16;

impl<'a> RowMasks<'a> {
    /// Starts before row `first` of `offsets.total()`.
    pub(super) fn new(dropout: &'a Dropout, offsets: &'a Offsets, first: usize, width: usize) -> Self {
        // The last sequence that begins at or before the row; empty ones before it are passed over.
        let sequence =
            offsets.positions().partition_point(|&start| start as usize <= first).saturating_sub(1);
        const { assert!(cfg!(target_endian = "little")) };
        let words = vec![[[0; 2]; CALLS]; width.div_ceil(8 * CALLS)];
        RowMasks { dropout, offsets, sequence, row: first, words }
    }

    /// Draws for the next row.
    #[inline(always)]
    pub(super) fn next_row(&mut self) {
        while self.row >= self.offsets.range(self.sequence).end {
            self.sequence += 1;
        }
        let position = (self.row - self.offsets.range(self.sequence).start) as u32;
        self.row += 1;
        let site = u32::from(self.dropout.site) << 16;
        let sequence = self.dropout.first_sequence.wrapping_add(self.sequence as u32);
        for (piece, calls) in self.words.iter_mut().enumerate() {
            let block = (piece * CALLS) as u32;
            let blocks: [u32; CALLS] = std::array::from_fn(|i| site | (block + i as u32));
            let counter = [[position; CALLS], blocks, [sequence; CALLS], [self.dropout.step; CALLS]];
            *calls = philox_calls(counter, key(self.dropout.seed));
        }
    }

    /// A row: y is x, dropped or scaled.
    #[inline(always)]
    pub(super) fn map<L: Lanes, X: Float<Real = L::Real>, Y: Float<Real = L::Real>>(
        &self,
        x: &[X],
        y: &mut [Y],
    ) {
        let mut channel = 0;
        simd::map(x, y, |x: L| {
            let dropped = self.apply(channel, x);
            channel += L::LANES;
            dropped
        });
    }

    /// `x` at channels from `channel` on of the row, dropped or scaled.
    #[inline(always)]
    pub(super) fn apply<L: Lanes>(&self, channel: usize, x: L) -> L {
        let words = self.words.as_flattened().as_flattened();
        assert!(channel + L::LANES <= 4 * words.len());
        // SAFETY: the words are four times as many draws in memory, of which LANES begin at `channel` as asserted.
        let dropped =
            unsafe { L::below_u16(words.as_ptr().cast::<u16>().add(channel), self.dropout.threshold()) };
        L::select(dropped, L::constant(0.0), x * L::splat(L::Real::from_f64(f64::from(self.dropout.scale()))))
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
