//! [`SparseRows`]: a sparse matrix, and its products with dense ones. Every sum has one order, whatever the number of threads.

use vitrine_tensor::cpu::parallel;

/// Rows, or columns of a transposed matrix, in one piece of parallel work.
const ROWS: usize = 256;

/// A matrix `[rows, width]` of few numbers: row `i` has `values[j]` in the column `columns[j]` for each j of
/// `offsets[i]..offsets[i + 1]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseRows {
    pub width: usize,
    offsets: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f64>,
}

impl SparseRows {
    /// No rows yet.
    pub fn new(width: usize) -> Self {
        SparseRows { width, offsets: vec![0], columns: Vec::new(), values: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, row: impl Iterator<Item = (u32, f64)>) {
        for (column, value) in row {
            self.columns.push(column);
            self.values.push(value);
        }
        self.offsets.push(self.columns.len());
    }

    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    fn row(&self, row: usize) -> impl Iterator<Item = (usize, f64)> {
        let range = self.offsets[row]..self.offsets[row + 1];
        self.columns[range.clone()]
            .iter()
            .zip(&self.values[range])
            .map(|(&column, &value)| (column as usize, value))
    }

    /// `self . dense`: `[rows, outputs]` of `dense: [width, outputs]`, both row-major, with `outputs` at least 1.
    pub fn times(&self, dense: &[f64], outputs: usize) -> Vec<f64> {
        let mut product = vec![0.0; self.rows() * outputs];
        parallel::for_each_chunk_mut(&mut product, ROWS * outputs, |piece, product| {
            for (row, sums) in product.chunks_exact_mut(outputs).enumerate() {
                for (column, value) in self.row(piece * ROWS + row) {
                    let weights = &dense[column * outputs..(column + 1) * outputs];
                    sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += value * weight);
                }
            }
        });
        product
    }

    /// `[width, rows]`.
    pub fn transposed(&self) -> Self {
        let mut offsets = vec![0; self.width + 1];
        for &column in &self.columns {
            offsets[column as usize + 1] += 1;
        }
        for column in 0..self.width {
            offsets[column + 1] += offsets[column];
        }
        let mut ends = offsets.clone();
        let (mut columns, mut values) = (vec![0; self.columns.len()], vec![0.0; self.values.len()]);
        for row in 0..self.rows() {
            for (column, value) in self.row(row) {
                (columns[ends[column]], values[ends[column]]) = (row as u32, value);
                ends[column] += 1;
            }
        }
        SparseRows { width: self.rows(), offsets, columns, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_a_matrix_and_its_transpose() {
        // [[1, 0, 2], [0, 0, 0], [0, 3, 4]]
        let mut matrix = SparseRows::new(3);
        matrix.push([(0, 1.0), (2, 2.0)].into_iter());
        matrix.push(std::iter::empty());
        matrix.push([(1, 3.0), (2, 4.0)].into_iter());
        assert_eq!(matrix.times(&[1.0, 10.0, 2.0, 20.0, 3.0, 30.0], 2), [7.0, 70.0, 0.0, 0.0, 18.0, 180.0]);
        assert_eq!(matrix.transposed().times(&[1.0, 5.0, 2.0], 1), [1.0, 6.0, 10.0]);
        assert_eq!(matrix.transposed().transposed(), matrix);
    }
}
