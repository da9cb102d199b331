//! Rows of reductions and of movement.
//!
//! Tolerances: movement is exact, so one rounding is more than enough; a sum of N terms with a mean of 1 errs by about
//! sqrt(N) roundings, and a row that is chosen several times gets as many terms.

use super::{Cost, Forwarded, Input, Low, NaiveResults, OpCase, Values};
use crate::ops::{movement, reduce};

/// Sums that do not cancel.
const AROUND_ONE: Values = Values::Normal { mean: 1.0, std: 1.0 };

/// `[outer, length, inner]` around a dimension.
fn around(dims: &[usize], dim: usize) -> [usize; 3] {
    [dims[..dim].iter().product(), dims[dim], dims[dim + 1..].iter().product()]
}

fn name(dims: &[usize], dim: usize) -> String {
    format!("{dims:?}_{dim}").replace(", ", "x")
}

/// For each place of a reduced tensor, the places of the elements along the dimension.
fn lines([outer, len, inner]: [usize; 3]) -> impl Iterator<Item = Vec<usize>> {
    let line = move |at: usize| (0..len).map(|i| (at / inner * len + i) * inner + at % inner).collect();
    (0..outer * inner).map(line)
}

/// A sum over dimension `dim`, which is dropped.
pub fn sum(dims: &[usize], dim: usize) -> OpCase {
    sums("sum", dims, dim, 1.0)
}

/// A mean over dimension `dim`, which is kept.
pub fn mean(dims: &[usize], dim: usize) -> OpCase {
    sums("mean", dims, dim, 1.0 / dims[dim] as f64)
}

fn sums(op: &'static str, dims: &[usize], dim: usize, factor: f64) -> OpCase {
    let (shape, numel) = (around(dims, dim), dims.iter().product::<usize>());
    let kept = op == "mean";
    OpCase {
        op,
        variant: name(dims, dim),
        inputs: vec![Input::new("x", dims).values(AROUND_ONE)],
        roundings: 8.0 + 2.0 * (dims[dim] as f64).sqrt(),
        forward: Box::new(move |inputs| {
            let of = if kept { reduce::mean } else { reduce::sum };
            Ok(Forwarded { outputs: vec![of(&inputs[0], dim, kept)?], saved: vec![] })
        }),
        backward: Some(Box::new(move |inputs, _, douts| {
            let mut dims = inputs[0].dims().to_vec();
            dims[dim] = 1;
            let dx = douts[0].reshape(&dims)?.broadcast_to(inputs[0].dims())?;
            Ok(vec![Some(crate::ops::elementwise::scale(&dx, factor)?)])
        })),
        naive: Some(Box::new(move |inputs, douts| {
            let (x, dy) = (&inputs[0], &douts[0]);
            let (mut y, mut dx) = (Vec::new(), x.clone());
            for (line, &dy) in lines(shape).zip(dy) {
                let sum = Low::sum(line.iter().map(|&i| x[i])).unwrap_or(dy.like(0.0));
                y.push(sum.map(|sum| sum * factor));
                line.iter().for_each(|&i| dx[i] = dy.map(|dy| dy * factor));
            }
            NaiveResults { outputs: vec![y], gradients: vec![Some(dx)] }
        })),
        cost: Cost { bytes: 4 * numel, flops: numel },
        backward_cost: Cost { bytes: 4 * numel, flops: numel },
    }
}

/// A maximum over dimension `dim`, which is dropped.
pub fn max(dims: &[usize], dim: usize) -> OpCase {
    let (shape, numel, all) = (around(dims, dim), dims.iter().product::<usize>(), dims.to_vec());
    OpCase {
        op: "max",
        variant: name(dims, dim),
        inputs: vec![Input::new("x", dims)],
        roundings: 1.0,
        forward: Box::new(move |inputs| {
            let found = reduce::max(&inputs[0], dim, false)?;
            Ok(Forwarded { outputs: vec![found.values], saved: vec![found.indices] })
        }),
        backward: Some(Box::new(move |_, saved, douts| {
            Ok(vec![Some(reduce::max_backward(&douts[0], &saved[0], &all, dim)?)])
        })),
        naive: Some(Box::new(move |inputs, douts| {
            let x = &inputs[0];
            let (mut y, mut dx) = (Vec::new(), x.iter().map(|x| x.like(0.0)).collect::<Vec<_>>());
            for (line, &dy) in lines(shape).zip(&douts[0]) {
                let first_largest = |best: usize, i: usize| if x[i].get() > x[best].get() { i } else { best };
                let Some(best) = line.into_iter().reduce(first_largest) else { continue };
                y.push(x[best]);
                dx[best] = dy;
            }
            NaiveResults { outputs: vec![y], gradients: vec![Some(dx)] }
        })),
        cost: Cost { bytes: 4 * numel, flops: numel },
        backward_cost: Cost { bytes: 4 * numel, flops: 0 },
    }
}

/// Two tensors, `a` and one with `more` elements in dimension `dim`, one after the other.
pub fn cat(a: &[usize], more: usize, dim: usize) -> OpCase {
    let mut b = a.to_vec();
    b[dim] = more;
    let [outer, len, inner] = around(a, dim);
    let widths = [len * inner, more * inner];
    let numel = outer * (widths[0] + widths[1]);
    OpCase {
        op: "cat",
        variant: format!("{}_{more}", name(a, dim)),
        inputs: vec![Input::new("a", a), Input::new("b", &b)],
        roundings: 1.0,
        forward: Box::new(move |inputs| {
            Ok(Forwarded { outputs: vec![movement::cat(&[&inputs[0], &inputs[1]], dim)?], saved: vec![] })
        }),
        backward: Some(Box::new(move |_, _, douts| {
            let part = |start, len| douts[0].narrow(dim, start, len)?.contiguous();
            Ok(vec![Some(part(0, len)?), Some(part(len, more)?)])
        })),
        naive: Some(Box::new(move |inputs, douts| {
            let row = |which: usize, o: usize| inputs[which][o * widths[which]..][..widths[which]].to_vec();
            let y = (0..outer).flat_map(|o| [row(0, o), row(1, o)].concat()).collect();
            let rows = || douts[0].chunks((widths[0] + widths[1]).max(1));
            let da = rows().flat_map(|row| row[..widths[0]].to_vec()).collect();
            let db = rows().flat_map(|row| row[widths[0]..].to_vec()).collect();
            NaiveResults { outputs: vec![y], gradients: vec![Some(da), Some(db)] }
        })),
        cost: Cost { bytes: 8 * numel, flops: 0 },
        backward_cost: Cost { bytes: 8 * numel, flops: 0 },
    }
}

/// `len` elements from `start` on of dimension `dim`.
pub fn narrow(dims: &[usize], dim: usize, start: usize, len: usize) -> OpCase {
    let [outer, length, inner] = around(dims, dim);
    let places = move || {
        (0..outer * len * inner).map(move |at| {
            let (o, rest) = (at / (len * inner), at % (len * inner));
            (o * length + start) * inner + rest
        })
    };
    OpCase {
        op: "narrow",
        variant: format!("{}_{start}+{len}", name(dims, dim)),
        inputs: vec![Input::new("x", dims)],
        roundings: 1.0,
        forward: Box::new(move |inputs| {
            Ok(Forwarded { outputs: vec![inputs[0].narrow(dim, start, len)?.contiguous()?], saved: vec![] })
        }),
        backward: Some(Box::new(move |_, _, douts| {
            Ok(vec![Some(movement::narrow_backward(&douts[0], dim, start, length)?)])
        })),
        naive: Some(Box::new(move |inputs, douts| {
            let mut dx: Vec<Low> = inputs[0].iter().map(|x| x.like(0.0)).collect();
            places().zip(&douts[0]).for_each(|(place, &dy)| dx[place] = dy);
            let y = places().map(|place| inputs[0][place]).collect();
            NaiveResults { outputs: vec![y], gradients: vec![Some(dx)] }
        })),
        cost: Cost { bytes: 8 * outer * len * inner, flops: 0 },
        backward_cost: Cost { bytes: 4 * outer * (len + length) * inner, flops: 0 },
    }
}

/// A transposed copy of a `[rows, columns]` matrix.
pub fn transpose(rows: usize, columns: usize) -> OpCase {
    OpCase {
        op: "transpose",
        variant: format!("{rows}x{columns}"),
        inputs: vec![Input::new("x", &[rows, columns])],
        roundings: 1.0,
        forward: Box::new(|inputs| {
            Ok(Forwarded { outputs: vec![inputs[0].t()?.contiguous()?], saved: vec![] })
        }),
        backward: Some(Box::new(|_, _, douts| Ok(vec![Some(douts[0].t()?.contiguous()?)]))),
        naive: Some(Box::new(move |inputs, douts| {
            let turned = |x: &[Low], m: usize, n: usize| (0..m * n).map(|i| x[i % m * n + i / m]).collect();
            let (y, dx) = (turned(&inputs[0], rows, columns), turned(&douts[0], columns, rows));
            NaiveResults { outputs: vec![y], gradients: vec![Some(dx)] }
        })),
        cost: Cost { bytes: 8 * rows * columns, flops: 0 },
        backward_cost: Cost { bytes: 8 * rows * columns, flops: 0 },
    }
}

/// `count` rows of `[rows, width]`, the same ones again and again, out of order.
pub fn gather_rows(rows: usize, width: usize, count: usize) -> OpCase {
    let indices: Vec<u32> = (0..count).map(|b| ((b * 5 + 3) % rows) as u32).collect();
    let [forward_indices, backward_indices] = [indices.clone(), indices.clone()];
    OpCase {
        op: "gather_rows",
        variant: format!("{count}_of_{rows}x{width}"),
        inputs: vec![Input::new("x", &[rows, width])],
        roundings: 4.0 + count.div_ceil(rows) as f64,
        forward: Box::new(move |inputs| {
            Ok(Forwarded {
                outputs: vec![movement::gather_rows(&inputs[0], &forward_indices)?],
                saved: vec![],
            })
        }),
        backward: Some(Box::new(move |_, _, douts| {
            Ok(vec![Some(movement::gather_rows_backward(&douts[0], &backward_indices, rows)?)])
        })),
        naive: Some(Box::new(move |inputs, douts| {
            let places = || indices.iter().flat_map(move |&i| i as usize * width..(i as usize + 1) * width);
            let mut dx: Vec<Low> = inputs[0].iter().map(|x| x.like(0.0)).collect();
            places().zip(&douts[0]).for_each(|(place, &dy)| dx[place] = dx[place] + dy);
            let y = places().map(|place| inputs[0][place]).collect();
            NaiveResults { outputs: vec![y], gradients: vec![Some(dx)] }
        })),
        cost: Cost { bytes: 8 * count * width, flops: 0 },
        backward_cost: Cost { bytes: 4 * (count + rows) * width, flops: count * width },
    }
}
