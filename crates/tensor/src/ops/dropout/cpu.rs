//! Dropout on the CPU: a row's draws, then the row.

use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::ops::layer_norm::cpu::BLOCK;
use crate::random::{key, philox_calls};
use crate::tensor::Rows;
use crate::{Dropout, Float, Offsets, Result, Tensor, for_float};

pub(super) fn dropout(op: &'static str, x: &Tensor, dropout: &Dropout, offsets: &Offsets) -> Result<Tensor> {
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    let mut y = Tensor::empty(&[rows, width], x.dtype(), x.device())?;
    for_float!(op, x.dtype(), E => {
        let x = x.as_rows::<E>(op)?;
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
pub(in crate::ops) struct RowMasks<'a> {
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
    pub(in crate::ops) fn new(
        dropout: &'a Dropout,
        offsets: &'a Offsets,
        first: usize,
        width: usize,
    ) -> Self {
        // The last sequence that begins at or before the row; empty ones before it are passed over.
        let sequence =
            offsets.positions().partition_point(|&start| start as usize <= first).saturating_sub(1);
        const { assert!(cfg!(target_endian = "little")) };
        let words = vec![[[0; 2]; CALLS]; width.div_ceil(8 * CALLS)];
        RowMasks { dropout, offsets, sequence, row: first, words }
    }

    /// Draws for the next row.
    #[inline(always)]
    pub(in crate::ops) fn next_row(&mut self) {
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
    pub(in crate::ops) fn map<L: Lanes, X: Float<Real = L::Real>, Y: Float<Real = L::Real>>(
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
    pub(in crate::ops) fn apply<L: Lanes>(&self, channel: usize, x: L) -> L {
        let words = self.words.as_flattened().as_flattened();
        assert!(channel + L::LANES <= 4 * words.len());
        // SAFETY: the words are four times as many draws in memory, of which LANES begin at `channel` as asserted.
        let dropped =
            unsafe { L::below_u16(words.as_ptr().cast::<u16>().add(channel), self.dropout.threshold()) };
        L::select(dropped, L::constant(0.0), x * L::splat(L::Real::from_f64(f64::from(self.dropout.scale()))))
    }
}
