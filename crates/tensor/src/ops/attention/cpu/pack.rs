//! Scratch memory, and copies of one head's rows into it: converted to reals, padded to whole vectors, transposed where keys become columns.

use crate::cpu::gemm::MatrixMut;
use crate::cpu::memory::Block;
use crate::cpu::simd::{self, Kernel, Lanes, MAX_LANES, Real};
use crate::{Float, Rows};
use std::marker::PhantomData;
use std::ops::Range;

/// Keys in a panel of a transposed operand. A panel of head size 64 takes half of a first-level cache.
pub(super) const PANEL: usize = 64;

/// Rounds up to whole vectors of any instruction set.
pub(super) const fn padded(len: usize) -> usize {
    len.next_multiple_of(MAX_LANES)
}

/// Some rows and columns of a tensor's rows: one head of one sequence.
#[derive(Clone)]
pub(super) struct Part<'a, E> {
    /// All rows.
    pub source: Rows<'a, E>,
    /// Which rows.
    pub rows: Range<usize>,
    /// Which columns.
    pub columns: Range<usize>,
}

impl<'a, E: Copy> Part<'a, E> {
    #[inline(always)]
    fn row(&self, index: usize) -> &'a [E] {
        &self.source.row(self.rows.start + index)[self.columns.clone()]
    }

    /// Rows `rows` of these rows.
    pub(super) fn narrow(&self, rows: Range<usize>) -> Self {
        Part { rows: self.rows.start + rows.start..self.rows.start + rows.end, ..self.clone() }
    }
}

/// Pooled memory, cut into `N` pieces of reals that start on cache lines and hold anything.
pub(super) struct Scratch<R, const N: usize> {
    block: Block,
    lens: [usize; N],
    real: PhantomData<R>,
}

impl<R: Real, const N: usize> Scratch<R, N> {
    /// Pieces of at least these lengths.
    pub(super) fn new(lens: [usize; N]) -> Self {
        let lens = lens.map(padded);
        let block = Block::new(lens.iter().sum::<usize>() * size_of::<R>());
        Scratch { block, lens, real: PhantomData }
    }

    /// The pieces.
    pub(super) fn pieces(&mut self) -> [&mut [R]; N] {
        let mut rest = self.block.elements_mut::<R>();
        self.lens.map(|len| {
            let (piece, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            piece
        })
    }
}

/// Copies rows, times a factor, into rows of `padded(columns)` reals.
pub(super) struct PackRows<'a, E: Float> {
    pub source: Part<'a, E>,
    pub factor: f64,
    pub out: &'a mut [E::Real],
}

impl<E: Float> Kernel<E::Real> for PackRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        let width = self.source.columns.len();
        let factor = L::constant(self.factor);
        for (index, out) in self.out.chunks_exact_mut(padded(width)).take(self.source.rows.len()).enumerate()
        {
            let (out, padding) = out.split_at_mut(width);
            simd::map(self.source.row(index), out, |x: L| x * factor);
            padding.fill(E::Real::default());
        }
    }
}

/// Transposes packed rows: panels of [`PANEL`] rows, in each of which row `d` holds element `d` of the panel's rows. The
/// last panel is only as wide as whole vectors need.
pub(super) struct PackPanels<'a, R> {
    /// `padded(count)` packed rows; those from `count` on may hold anything, and so will their columns.
    pub source: &'a [R],
    /// How many rows.
    pub count: usize,
    /// The length of a packed row, and of a panel's column.
    pub stride: usize,
    pub out: &'a mut [R],
}

impl<R: Real> Kernel<R> for PackPanels<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = R>>(self) {
        let PackPanels { source, count, stride, out } = self;
        let rows = padded(count);
        assert!(rows * stride <= source.len().min(out.len()), "internal: panels exceed their memory");
        assert!(stride.is_multiple_of(8), "internal: packed rows have no whole blocks");
        for first in (0..rows).step_by(PANEL) {
            let width = PANEL.min(rows - first);
            for row in (0..width).step_by(8) {
                for d in (0..stride).step_by(8) {
                    // SAFETY: the block's rows are below `rows`, a multiple of 8, and its columns below `stride`, another;
                    // the panel takes as many elements from `first * stride` on as its rows have.
                    unsafe {
                        let source = source.as_ptr().add((first + row) * stride + d);
                        let out = out.as_mut_ptr().add(first * stride + d * width + row);
                        L::transpose_8x8(source, stride, out, width);
                    }
                }
            }
        }
    }
}

/// Writes rows of `padded(columns)` reals to a tensor, each times its own factor.
pub(super) struct Unpack<'a, 'b, E: Float> {
    pub source: &'a [E::Real],
    pub factors: &'a [E::Real],
    pub first_row: usize,
    pub out: &'a mut MatrixMut<'b, E>,
}

impl<E: Float> Kernel<E::Real> for Unpack<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        let width = self.out.columns();
        for (index, (source, &factor)) in
            self.source.chunks_exact(padded(width)).zip(self.factors).enumerate()
        {
            let factor = L::splat(factor);
            simd::map(&source[..width], self.out.row_mut(self.first_row + index), |x: L| x * factor);
        }
    }
}
