//! [`Shape`] and [`Layout`]: how a flat buffer is seen as an array of up to [`MAX_RANK`] dimensions.

use crate::{Error, Result};
use std::fmt;
use std::ops::Deref;

/// The largest number of dimensions of a tensor.
pub const MAX_RANK: usize = 6;

/// The lengths of a tensor's dimensions, outermost first. A small `Copy` value that dereferences to `[usize]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// A shape with these dimensions.
    ///
    /// # Errors
    /// `ShapeMismatch` for more than [`MAX_RANK`] dimensions, or when the number of elements overflows.
    pub fn new(dims: &[usize]) -> Result<Self> {
        let product = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        if dims.len() > MAX_RANK || product.is_none_or(|n| n > isize::MAX as usize / 8) {
            let expected = format!("at most {MAX_RANK} dimensions that fit in memory");
            return Err(Error::ShapeMismatch { op: "shape", expected, got: dims.to_vec() });
        }
        Ok(Self::fitting(dims))
    }

    /// As [`Shape::new`] for dimensions that are known to fit.
    fn fitting(dims: &[usize]) -> Self {
        let mut shape = Shape { dims: [0; MAX_RANK], rank: dims.len() };
        shape.dims[..dims.len()].copy_from_slice(dims);
        shape
    }

    /// The number of elements: the product of the dimensions, 1 for a scalar.
    pub fn numel(&self) -> usize {
        self.iter().product()
    }

    /// The length of the last dimension; 1 for a scalar.
    pub fn last_dim(&self) -> usize {
        self.last().copied().unwrap_or(1)
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A view of a flat buffer: element `(i, j, ..)` is at `offset + i * strides[0] + j * strides[1] + ..`.
///
/// Strides are in elements; 0 marks a broadcast dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    strides: [usize; MAX_RANK],
    offset: usize,
}

impl Layout {
    /// The row-major layout without gaps.
    pub fn contiguous(shape: Shape) -> Self {
        let mut strides = [0; MAX_RANK];
        let mut stride = 1;
        for d in (0..shape.len()).rev() {
            strides[d] = stride;
            stride *= shape[d];
        }
        Layout { shape, strides, offset: 0 }
    }

    /// The lengths.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Distances between neighbours along each dimension, in elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.shape.len()]
    }

    /// Position of the first element in the buffer.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Whether elements follow one another in row-major order. Strides of dimensions of length 1 do not matter.
    pub fn is_contiguous(&self) -> bool {
        if self.shape.numel() == 0 {
            return true;
        }
        let mut expected = 1;
        for d in (0..self.shape.len()).rev() {
            if self.shape[d] != 1 && self.strides[d] != expected {
                return false;
            }
            expected *= self.shape[d];
        }
        true
    }

    /// Seen as a matrix `[rows, last_dim]`: the distance between rows, if there is one such distance and the elements
    /// of a row are neighbours.
    pub fn row_stride(&self) -> Option<usize> {
        let rank = self.shape.len();
        if rank == 0 || self.shape.numel() == 0 {
            return Some(self.shape.last_dim());
        }
        if self.shape[rank - 1] != 1 && self.strides[rank - 1] != 1 {
            return None;
        }
        // The leading dimensions must collapse into one.
        let mut row_stride = None;
        let mut expected = 0;
        for d in (0..rank - 1).rev().filter(|&d| self.shape[d] != 1) {
            match row_stride {
                None => row_stride = Some(self.strides[d]),
                Some(_) if self.strides[d] != expected => return None,
                Some(_) => {}
            }
            expected = self.strides[d] * self.shape[d];
        }
        Some(row_stride.unwrap_or(self.shape.last_dim()))
    }

    fn dim(&self, op: &'static str, dim: usize) -> Result<usize> {
        if dim < self.shape.len() {
            Ok(dim)
        } else {
            Err(Error::IndexOutOfRange { op, index: dim, len: self.shape.len() })
        }
    }

    /// Swaps two dimensions.
    ///
    /// # Errors
    /// `IndexOutOfRange` when a dimension does not exist.
    pub fn transpose(mut self, a: usize, b: usize) -> Result<Self> {
        let (a, b) = (self.dim("transpose", a)?, self.dim("transpose", b)?);
        self.shape.dims.swap(a, b);
        self.strides.swap(a, b);
        Ok(self)
    }

    /// Keeps `start..start + len` of a dimension.
    ///
    /// # Errors
    /// `IndexOutOfRange` when the range leaves the dimension.
    pub fn narrow(mut self, dim: usize, start: usize, len: usize) -> Result<Self> {
        let dim = self.dim("narrow", dim)?;
        let end = start.saturating_add(len);
        if end > self.shape[dim] {
            return Err(Error::IndexOutOfRange { op: "narrow", index: end, len: self.shape[dim] });
        }
        if self.shape.numel() > 0 && len > 0 {
            self.offset += start * self.strides[dim];
        }
        self.shape.dims[dim] = len;
        Ok(self)
    }

    /// Inserts a dimension of length 1 before `dim`.
    ///
    /// # Errors
    /// `IndexOutOfRange` past the end, `ShapeMismatch` at [`MAX_RANK`].
    pub fn unsqueeze(self, dim: usize) -> Result<Self> {
        if dim > self.shape.len() {
            return Err(Error::IndexOutOfRange { op: "unsqueeze", index: dim, len: self.shape.len() + 1 });
        }
        let mut dims = self.shape.to_vec();
        dims.insert(dim, 1);
        let shape = Shape::new(&dims)?;
        let mut strides = self.strides;
        strides.copy_within(dim..MAX_RANK - 1, dim + 1);
        strides[dim] = 1;
        Ok(Layout { shape, strides, offset: self.offset })
    }

    /// Removes a dimension of length 1.
    ///
    /// # Errors
    /// `ShapeMismatch` when its length is not 1.
    pub fn squeeze(self, dim: usize) -> Result<Self> {
        let dim = self.dim("squeeze", dim)?;
        if self.shape[dim] != 1 {
            let expected = format!("length 1 in dimension {dim}");
            return Err(Error::ShapeMismatch { op: "squeeze", expected, got: self.shape.to_vec() });
        }
        let mut dims = self.shape.to_vec();
        dims.remove(dim);
        let mut strides = self.strides;
        strides.copy_within(dim + 1.., dim);
        Ok(Layout { shape: Shape::fitting(&dims), strides, offset: self.offset })
    }

    /// Repeats dimensions of length 1, and adds leading ones, by strides of 0 (NumPy's rule).
    ///
    /// # Errors
    /// `ShapeMismatch` when a dimension is neither 1 nor the wanted length.
    pub fn broadcast_to(self, shape: Shape) -> Result<Self> {
        let mismatch = || Error::ShapeMismatch {
            op: "broadcast_to",
            expected: format!("a shape that broadcasts to {shape:?}"),
            got: self.shape.to_vec(),
        };
        let lead = shape.len().checked_sub(self.shape.len()).ok_or_else(mismatch)?;
        let mut strides = [0; MAX_RANK];
        for d in 0..self.shape.len() {
            strides[lead + d] = match self.shape[d] {
                length if length == shape[lead + d] => self.strides[d],
                1 => 0,
                _ => return Err(mismatch()),
            };
        }
        Ok(Layout { shape, strides, offset: self.offset })
    }

    /// The same elements under another shape, when the layout is contiguous (else `None`: copy first).
    ///
    /// # Errors
    /// `ShapeMismatch` when the numbers of elements differ.
    pub fn reshape(self, shape: Shape) -> Result<Option<Self>> {
        if shape.numel() != self.shape.numel() {
            let expected = format!("{} elements for shape {shape:?}", shape.numel());
            return Err(Error::ShapeMismatch { op: "reshape", expected, got: self.shape.to_vec() });
        }
        Ok(self.is_contiguous().then(|| Layout { offset: self.offset, ..Layout::contiguous(shape) }))
    }

    /// The buffer position of the `index`-th element in row-major order of the view.
    pub fn position(&self, mut index: usize) -> usize {
        let mut position = self.offset;
        for d in (0..self.shape.len()).rev() {
            position += index % self.shape[d] * self.strides[d];
            index /= self.shape[d];
        }
        position
    }

    /// The buffer positions of all elements in row-major order of the view.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        let rank = self.shape.len();
        let mut index = [0; MAX_RANK];
        let mut position = self.offset;
        (0..self.shape.numel()).map(move |_| {
            let here = position;
            for d in (0..rank).rev() {
                index[d] += 1;
                position += self.strides[d];
                if index[d] < self.shape[d] {
                    break;
                }
                position -= self.strides[d] * self.shape[d];
                index[d] = 0;
            }
            here
        })
    }
}
