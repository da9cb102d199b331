//! What differs between two checkpoints: [`linear_cka`] of what they compute, and [`drift`] of their weights.

use crate::subject::numbers;
use crate::{ExplainError, Result, Rows};
use serde::Serialize;
use std::collections::BTreeMap;
use vitrine_nn::ParameterStore;

/// Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414, equation for linear kernels) of two models' rows for the
/// same texts: `|Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F)` with centred columns. 1 where one is a rotation and scaling of the other, 0
/// where they share nothing; widths may differ. None where the rows of one do not vary.
///
/// # Errors
/// `Setting` for other numbers of rows.
pub fn linear_cka(x: &Rows, y: &Rows) -> Result<Option<f64>> {
    if x.count() != y.count() || x.count() == 0 {
        let (name, expected) = ("the rows of two models", "as many, at least one");
        return Err(ExplainError::Setting {
            name,
            expected,
            got: format!("{} and {}", x.count(), y.count()),
        });
    }
    let (x, y) = (centred(x), centred(y));
    let (across, own_x, own_y) = (product_norm(&x, &y), product_norm(&x, &x), product_norm(&y, &y));
    let varies = own_x > 0.0 && own_y > 0.0;
    Ok(varies.then(|| across / (own_x * own_y).sqrt()))
}

fn centred(rows: &Rows) -> Rows {
    let mut means = vec![0.0; rows.width];
    let count = rows.count() as f64;
    rows.iter().for_each(|row| means.iter_mut().zip(row).for_each(|(mean, x)| *mean += x / count));
    let row = |row: &[f64]| row.iter().zip(&means).map(|(x, mean)| x - mean).collect::<Vec<_>>();
    Rows { values: rows.iter().flat_map(row).collect(), width: rows.width }
}

/// `|Y^T X|_F^2`, in whichever form takes fewer products: `[width, width]`, or `sum XX^T . YY^T` over pairs of rows.
fn product_norm(x: &Rows, y: &Rows) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    if x.count() < x.width.min(y.width) {
        let with = |(a, b): (&[f64], &[f64])| {
            x.iter().zip(y.iter()).map(|(c, d)| dot(a, c) * dot(b, d)).sum::<f64>()
        };
        return x.iter().zip(y.iter()).map(with).sum();
    }
    let mut product = vec![0.0; x.width * y.width];
    for (a, b) in x.iter().zip(y.iter()) {
        for (line, &a) in product.chunks_mut(y.width).zip(a) {
            line.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
        }
    }
    dot(&product, &product)
}

/// How far a parameter has moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moved {
    /// Its key.
    pub key: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its Euclidean norm in the first checkpoint.
    pub norm: f64,
    /// The norm of the difference.
    pub distance: f64,
    /// `distance / norm`; none where the norm is zero.
    pub relative: Option<f64>,
}

/// How far the weights of two checkpoints are from each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Drift {
    /// Parameters of both, in the order of the first.
    pub parameters: Vec<Moved>,
    /// The relative distance of all of them together; none where there are none, or all are zero.
    pub relative: Option<f64>,
    /// Keys that only the first has.
    pub only_first: Vec<String>,
    /// Keys that only the second has.
    pub only_second: Vec<String>,
    /// Keys of both under different shapes.
    pub other_shapes: Vec<String>,
}

/// Compares the weights of two checkpoints, from the first to the second, key by key.
///
/// # Errors
/// Errors of reading them.
pub fn drift(first: &ParameterStore, second: &ParameterStore) -> Result<Drift> {
    let mut others: BTreeMap<&str, _> = second.parts()?.into_iter().collect();
    let mut found = Drift::default();
    let (mut squares, mut distances) = (0.0, 0.0);
    for (key, value) in first.parts()? {
        let Some(other) = others.remove(key) else {
            found.only_first.push(key.to_owned());
            continue;
        };
        if value.dims() != other.dims() {
            found.other_shapes.push(key.to_owned());
            continue;
        }
        let (a, b) = (numbers(&value)?, numbers(&other)?);
        let square: f64 = a.iter().map(|a| a * a).sum();
        let distance: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
        squares += square;
        distances += distance;
        found.parameters.push(Moved {
            key: key.to_owned(),
            shape: value.dims().to_vec(),
            norm: square.sqrt(),
            distance: distance.sqrt(),
            relative: (square > 0.0).then(|| (distance / square).sqrt()),
        });
    }
    found.only_second = others.into_keys().map(str::to_owned).collect();
    found.relative = (squares > 0.0).then(|| (distances / squares).sqrt());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize, width: usize, seed: usize) -> Rows {
        let value = |i: usize| ((i * 7919 + seed * 104_729 + i * i * 31) % 1009) as f64 / 1009.0 - 0.4;
        Rows { values: (0..count * width).map(value).collect(), width }
    }

    fn cka(x: &Rows, y: &Rows) -> f64 {
        linear_cka(x, y).unwrap().unwrap()
    }

    /// Rotations, scalings and shifts change nothing; a linear map that is none does.
    #[test]
    fn cka_sees_through_rotations_and_scalings() {
        // More rows than columns, and fewer.
        for count in [30, 3] {
            let (x, y) = (rows(count, 4, 1), rows(count, 6, 2));
            let (sine, cosine) = 0.7f64.sin_cos();
            let turned = |row: &[f64]| {
                let (a, b) = (cosine * row[0] - sine * row[2], sine * row[0] + cosine * row[2]);
                [-3.0 * a + 5.0, -3.0 * row[1], -3.0 * b - 1.0, -3.0 * row[3]]
            };
            let turned = Rows { values: x.iter().flat_map(turned).collect(), width: 4 };
            assert!((cka(&x, &turned) - 1.0).abs() < 1e-12);
            assert!((cka(&x, &y) - cka(&turned, &y)).abs() < 1e-12);
            assert!((cka(&x, &y) - cka(&y, &x)).abs() < 1e-12);
            let stretched = |row: &[f64]| [10.0 * row[0], row[1], row[2], row[3]];
            let stretched = Rows { values: x.iter().flat_map(stretched).collect(), width: 4 };
            let other = cka(&x, &stretched);
            assert!(other > 0.0 && other < 0.99, "{other}");
        }
    }

    /// Both forms, and the definition by centred kernels `tr(KHLH)`.
    #[test]
    fn cka_is_the_alignment_of_centred_kernels() {
        for (count, widths) in [(12, (3, 5)), (4, (6, 7))] {
            let (x, y) = (rows(count, widths.0, 3), rows(count, widths.1, 4));
            let kernel = |rows: &Rows| {
                let all: Vec<&[f64]> = rows.iter().collect();
                let dot = |a: usize, b: usize| all[a].iter().zip(all[b]).map(|(a, b)| a * b).sum::<f64>();
                let n = count as f64;
                let row = |a: usize| (0..count).map(|b| dot(a, b)).sum::<f64>() / n;
                let mean = (0..count).map(row).sum::<f64>() / n;
                let centred = |cell: usize| {
                    let (a, b) = (cell / count, cell % count);
                    dot(a, b) - row(a) - row(b) + mean
                };
                (0..count * count).map(centred).collect::<Vec<f64>>()
            };
            let (k, l) = (kernel(&x), kernel(&y));
            let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let expected = product(&k, &l) / (product(&k, &k) * product(&l, &l)).sqrt();
            assert!((cka(&x, &y) - expected).abs() < 1e-12);
        }
        let constant = Rows { values: vec![2.0; 12], width: 3 };
        assert_eq!(linear_cka(&constant, &rows(4, 3, 5)).unwrap(), None);
        assert!(linear_cka(&rows(3, 2, 1), &rows(4, 2, 1)).is_err());
    }
}
