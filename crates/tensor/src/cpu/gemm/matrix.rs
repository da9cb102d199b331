//! Views of matrices: what the matrix product reads and writes.

use std::marker::PhantomData;
use std::ops::Range;

/// A read-only matrix with any strides: element (i, j) is `data[i * row_stride + j * column_stride]`.
#[derive(Debug)]
pub struct MatrixRef<'a, T = f32> {
    pub(super) pointer: *const T,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
    lifetime: PhantomData<&'a [T]>,
}

impl<T> Clone for MatrixRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for MatrixRef<'_, T> {}

// SAFETY: a `MatrixRef` is a shared borrow of a slice (see `with_strides`), which `T: Sync` lets threads share.
unsafe impl<T: Sync> Send for MatrixRef<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for MatrixRef<'_, T> {}

impl<'a, T> MatrixRef<'a, T> {
    /// The row-major matrix of `rows * columns` elements that `data` starts with.
    ///
    /// # Panics
    /// If `data` is shorter.
    pub fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        MatrixRef::with_strides(data, rows, columns, columns, 1)
    }

    /// A matrix with strides in elements; they may overlap or be zero (a broadcast row).
    ///
    /// # Panics
    /// If an element would lie beyond the end of `data`.
    pub fn with_strides(
        data: &'a [T],
        rows: usize,
        columns: usize,
        row_stride: usize,
        column_stride: usize,
    ) -> Self {
        let needed = extent(rows, columns, row_stride, column_stride);
        assert!(
            needed.is_some_and(|needed| needed <= data.len()),
            "internal: a {rows} x {columns} matrix with strides ({row_stride}, {column_stride}) exceeds {} elements",
            data.len()
        );
        MatrixRef { pointer: data.as_ptr(), rows, columns, row_stride, column_stride, lifetime: PhantomData }
    }

    /// The transposed view; nothing is moved.
    #[must_use]
    pub fn transposed(self) -> Self {
        MatrixRef {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Some of the rows and columns.
    ///
    /// # Panics
    /// If there are not that many.
    #[must_use]
    pub fn part(self, rows: Range<usize>, columns: Range<usize>) -> Self {
        assert!(
            rows.start <= rows.end
                && rows.end <= self.rows
                && columns.start <= columns.end
                && columns.end <= self.columns,
            "internal: {rows:?}, {columns:?} is no part of a {} x {} matrix",
            self.rows,
            self.columns
        );
        // An empty part may start beyond the data, where nothing is read.
        let pointer =
            self.pointer.wrapping_add(rows.start * self.row_stride + columns.start * self.column_stride);
        MatrixRef { pointer, rows: rows.len(), columns: columns.len(), ..self }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Distance from one row to the next, in elements.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Distance from one column to the next, in elements.
    pub fn column_stride(&self) -> usize {
        self.column_stride
    }

    /// Where element (`row`, `column`) lies.
    ///
    /// # Safety
    /// `row < rows` and `column < columns`.
    #[inline(always)]
    pub(super) unsafe fn at(&self, row: usize, column: usize) -> *const T {
        debug_assert!(row < self.rows && column < self.columns);
        // SAFETY: inside of the slice that the view was made from, by the caller's promise and `with_strides`.
        unsafe { self.pointer.add(row * self.row_stride + column * self.column_stride) }
    }
}

/// A matrix to be written, row after row with unit column stride.
#[derive(Debug)]
pub struct MatrixMut<'a, T = f32> {
    pub(super) pointer: *mut T,
    rows: usize,
    columns: usize,
    row_stride: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: a `MatrixMut` is an exclusive borrow of a slice.
unsafe impl<T: Send> Send for MatrixMut<'_, T> {}
// SAFETY: `&MatrixMut` gives no access to the elements but through the unsafe methods of this module.
unsafe impl<T: Send> Sync for MatrixMut<'_, T> {}

impl<'a, T> MatrixMut<'a, T> {
    /// The row-major matrix of `rows * columns` elements that `data` starts with.
    ///
    /// # Panics
    /// If `data` is shorter.
    pub fn new(data: &'a mut [T], rows: usize, columns: usize) -> Self {
        MatrixMut::with_stride(data, rows, columns, columns)
    }

    /// A matrix whose rows start `row_stride` elements apart.
    ///
    /// # Panics
    /// If rows would overlap or an element would lie beyond the end of `data`.
    pub fn with_stride(data: &'a mut [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        let needed = extent(rows, columns, row_stride, 1);
        assert!(
            needed.is_some_and(|needed| needed <= data.len()) && (row_stride >= columns || rows < 2),
            "internal: a {rows} x {columns} output with row stride {row_stride} does not fit {} elements",
            data.len()
        );
        MatrixMut { pointer: data.as_mut_ptr(), rows, columns, row_stride, lifetime: PhantomData }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Distance from one row to the next, in elements.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// The rows before `row`, and those from it on.
    ///
    /// # Panics
    /// If there are fewer rows.
    pub fn split_at_row(self, row: usize) -> (Self, Self) {
        assert!(row <= self.rows, "internal: a split at row {row} of {}", self.rows);
        let below = MatrixMut {
            pointer: self.pointer.wrapping_add(row * self.row_stride),
            rows: self.rows - row,
            ..self
        };
        (MatrixMut { rows: row, ..self }, below)
    }

    /// The columns before `column`, and those from it on.
    ///
    /// # Panics
    /// If there are fewer columns.
    pub fn split_at_column(self, column: usize) -> (Self, Self) {
        assert!(column <= self.columns, "internal: a split at column {column} of {}", self.columns);
        let right =
            MatrixMut { pointer: self.pointer.wrapping_add(column), columns: self.columns - column, ..self };
        (MatrixMut { columns: column, ..self }, right)
    }

    /// One row.
    ///
    /// # Panics
    /// If it does not exist.
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "internal: row {row} of {}", self.rows);
        // SAFETY: the row exists, and `&mut self` makes the access exclusive.
        unsafe { self.segment(row, 0..self.columns) }
    }

    /// Elements `columns` of `row`.
    ///
    /// # Safety
    /// The range lies inside of the matrix, and nothing else uses these elements while the slice lives.
    #[allow(clippy::mut_from_ref, reason = "threads share the matrix and write disjoint parts of it")]
    pub(crate) unsafe fn segment(&self, row: usize, columns: Range<usize>) -> &mut [T] {
        debug_assert!(row < self.rows && columns.end <= self.columns);
        // SAFETY: inside of the slice that the view was made from, and exclusive, by the caller's promise.
        unsafe {
            let start = self.pointer.add(row * self.row_stride + columns.start);
            std::slice::from_raw_parts_mut(start, columns.len())
        }
    }
}

/// One more than the index of the last element; zero for an empty matrix; `None` on overflow.
fn extent(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> Option<usize> {
    if rows == 0 || columns == 0 {
        return Some(0);
    }
    let last_row = (rows - 1).checked_mul(row_stride)?;
    let last_column = (columns - 1).checked_mul(column_stride)?;
    last_row.checked_add(last_column)?.checked_add(1)
}
