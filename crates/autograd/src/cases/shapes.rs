//! Rows of reductions and of movement.
//!
//! Tolerances: movement is exact, so one rounding is more than enough; a sum of N terms with a mean of 1 errs by about
//! sqrt(N) roundings, and a row that is chosen several times gets as many terms.

use super::normalization::{factors, masked, offsets};
use super::{Cost, Input, Low, NaiveResults, OpCase, SITE, Values, one};
use crate::Segment;
use vitrine_tensor::DType;

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

/// A sum over dimension `dim`, which is dropped, or kept with length 1.
pub fn sum(dims: &[usize], dim: usize, keepdim: bool) -> OpCase {
    let name = name(dims, dim) + if keepdim { "_kept" } else { "" };
    let function = one(move |v| v[0].sum(dim, keepdim));
    OpCase { function, ..sums("sum", dims, dim, 1.0) }.named(&name)
}

/// A mean over dimension `dim`, which is kept.
pub fn mean(dims: &[usize], dim: usize) -> OpCase {
    let function = one(move |v| v[0].mean(dim, true));
    OpCase { function, ..sums("mean", dims, dim, 1.0 / dims[dim] as f64) }
}

fn sums(op: &'static str, dims: &[usize], dim: usize, factor: f64) -> OpCase {
    let (shape, numel) = (around(dims, dim), dims.iter().product::<usize>());
    let [outer, _, inner] = shape;
    let scaled = if op == "mean" { outer * inner } else { 0 };
    OpCase {
        op,
        variant: name(dims, dim),
        inputs: vec![Input::new("x", dims).values(AROUND_ONE)],
        roundings: 8.0 + 2.0 * (dims[dim] as f64).sqrt(),
        function: one(move |v| v[0].sum(dim, false)),
        naive: Box::new(move |inputs, douts| {
            let (x, dy) = (&inputs[0], &douts[0]);
            let (mut y, mut dx) = (Vec::new(), x.clone());
            for (line, &dy) in lines(shape).zip(dy) {
                let sum = Low::sum(line.iter().map(|&i| x[i])).unwrap_or(dy.like(0.0));
                y.push(sum.map(|sum| sum * factor));
                line.iter().for_each(|&i| dx[i] = dy.map(|dy| dy * factor));
            }
            NaiveResults { outputs: vec![y], gradients: vec![dx] }
        }),
        cost: Cost { bytes: 4 * numel, flops: numel + scaled },
        backward_cost: Some(Cost { bytes: 4 * numel, flops: scaled }),
    }
}

/// A maximum over dimension `dim`, which is dropped, or kept with length 1.
pub fn max(dims: &[usize], dim: usize, keepdim: bool) -> OpCase {
    let (shape, numel) = (around(dims, dim), dims.iter().product::<usize>());
    OpCase {
        op: "max",
        variant: name(dims, dim) + if keepdim { "_kept" } else { "" },
        inputs: vec![Input::new("x", dims)],
        roundings: 1.0,
        function: one(move |v| v[0].max(dim, keepdim)),
        naive: Box::new(move |inputs, douts| {
            let x = &inputs[0];
            let (mut y, mut dx) = (Vec::new(), x.iter().map(|x| x.like(0.0)).collect::<Vec<_>>());
            for (line, &dy) in lines(shape).zip(&douts[0]) {
                let first_largest = |best: usize, i: usize| if x[i].get() > x[best].get() { i } else { best };
                let Some(best) = line.into_iter().reduce(first_largest) else { continue };
                y.push(x[best]);
                dx[best] = dy;
            }
            NaiveResults { outputs: vec![y], gradients: vec![dx] }
        }),
        cost: Cost { bytes: 4 * numel, flops: numel },
        backward_cost: Some(Cost { bytes: 4 * numel, flops: 0 }),
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
        function: one(move |v| v[0].cat(&[&v[1]], dim)),
        naive: Box::new(move |inputs, douts| {
            let row = |which: usize, o: usize| inputs[which][o * widths[which]..][..widths[which]].to_vec();
            let y = (0..outer).flat_map(|o| [row(0, o), row(1, o)].concat()).collect();
            let rows = || douts[0].chunks((widths[0] + widths[1]).max(1));
            let da = rows().flat_map(|row| row[..widths[0]].to_vec()).collect();
            let db = rows().flat_map(|row| row[widths[0]..].to_vec()).collect();
            NaiveResults { outputs: vec![y], gradients: vec![da, db] }
        }),
        cost: Cost { bytes: 8 * numel, flops: 0 },
        backward_cost: Some(Cost { bytes: 8 * numel, flops: 0 }),
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
        function: one(move |v| v[0].narrow(dim, start, len)),
        naive: Box::new(move |inputs, douts| {
            let mut dx: Vec<Low> = inputs[0].iter().map(|x| x.like(0.0)).collect();
            places().zip(&douts[0]).for_each(|(place, &dy)| dx[place] = dy);
            let y = places().map(|place| inputs[0][place]).collect();
            NaiveResults { outputs: vec![y], gradients: vec![dx] }
        }),
        cost: Cost { bytes: 8 * outer * len * inner, flops: 0 },
        backward_cost: Some(Cost { bytes: 4 * outer * (len + length) * inner, flops: 0 }),
    }
}

/// A transposed copy of a `[rows, columns]` matrix.
pub fn transpose(rows: usize, columns: usize) -> OpCase {
    OpCase {
        op: "transpose",
        variant: format!("{rows}x{columns}"),
        inputs: vec![Input::new("x", &[rows, columns])],
        roundings: 1.0,
        function: one(|v| v[0].transpose(0, 1)),
        naive: Box::new(move |inputs, douts| {
            let turned = |x: &[Low], m: usize, n: usize| (0..m * n).map(|i| x[i % m * n + i / m]).collect();
            let (y, dx) = (turned(&inputs[0], rows, columns), turned(&douts[0], columns, rows));
            NaiveResults { outputs: vec![y], gradients: vec![dx] }
        }),
        cost: Cost { bytes: 8 * rows * columns, flops: 0 },
        backward_cost: Some(Cost { bytes: 8 * rows * columns, flops: 0 }),
    }
}

/// `count` rows of `[rows, width]`, the same ones again and again, out of order.
pub fn gather_rows(rows: usize, width: usize, count: usize) -> OpCase {
    let indices: Vec<u32> = (0..count).map(|b| ((b * 5 + 3) % rows) as u32).collect();
    let taken = indices.clone();
    OpCase {
        op: "gather_rows",
        variant: format!("{count}_of_{rows}x{width}"),
        inputs: vec![Input::new("x", &[rows, width])],
        roundings: 4.0 + count.div_ceil(rows) as f64,
        function: one(move |v| v[0].gather_rows(&taken)),
        naive: Box::new(move |inputs, douts| {
            let places = || indices.iter().flat_map(move |&i| i as usize * width..(i as usize + 1) * width);
            let mut dx: Vec<Low> = inputs[0].iter().map(|x| x.like(0.0)).collect();
            places().zip(&douts[0]).for_each(|(place, &dy)| dx[place] = dx[place] + dy);
            let y = places().map(|place| inputs[0][place]).collect();
            NaiveResults { outputs: vec![y], gradients: vec![dx] }
        }),
        cost: Cost { bytes: 8 * count * width, flops: 0 },
        backward_cost: Some(Cost { bytes: 4 * (count + rows) * width, flops: count * width }),
    }
}

/// The same elements under another shape.
pub fn reshape(from: &[usize], to: &[usize]) -> OpCase {
    let (numel, dims) = (from.iter().product::<usize>(), to.to_vec());
    OpCase {
        op: "reshape",
        variant: format!("{from:?}_{to:?}").replace(", ", "x"),
        inputs: vec![Input::new("x", from)],
        roundings: 1.0,
        function: one(move |v| v[0].reshape(&dims)),
        naive: Box::new(|inputs, douts| NaiveResults {
            outputs: vec![inputs[0].clone()],
            gradients: vec![douts[0].clone()],
        }),
        cost: Cost { bytes: 8 * numel, flops: 0 },
        backward_cost: Some(Cost { bytes: 8 * numel, flops: 0 }),
    }
}

/// `len` elements in another dtype and back: F64 in F32, F32 in bfloat16, the half types in F32.
///
/// The numbers are exact in every dtype, so that central differences see through the rounding. An F32 dy is rounded to bfloat16,
/// whose numbers have 8 bits: by at most 2^-8 of itself, 2^16 roundings of F32.
pub fn cast(len: usize) -> OpCase {
    OpCase {
        op: "cast",
        variant: len.to_string(),
        inputs: vec![Input::new("x", &[len]).values(Values::Sixteenths)],
        roundings: f64::from(1 << 16),
        function: one(|v| {
            let dtype = v[0].value().dtype();
            let other = if dtype == DType::F32 { DType::BF16 } else { DType::F32 };
            v[0].to_dtype(other)?.to_dtype(dtype)
        }),
        naive: Box::new(|inputs, douts| NaiveResults {
            outputs: vec![inputs[0].clone()],
            gradients: vec![douts[0].clone()],
        }),
        cost: Cost { bytes: 8 * len, flops: 0 },
        backward_cost: Some(Cost { bytes: 8 * len, flops: 0 }),
    }
}

/// `tanh(dropout(x)) x` of `[rows, width]`, computed again in backward. Tolerance: as a function of elements.
pub fn segment(rows: usize, width: usize) -> OpCase {
    let numel = rows * width;
    OpCase {
        op: "segment",
        variant: format!("{rows}x{width}"),
        inputs: vec![Input::new("x", &[rows, width])],
        roundings: 16.0,
        function: one(move |v| {
            let function = Segment::new(move |_, x| x.dropout(0.3, SITE, &offsets(rows)?)?.tanh()?.mul(x));
            v[0].segment(function)
        }),
        naive: Box::new(move |inputs, douts| {
            let factors = factors(0.3, rows, width);
            let tanh: Vec<Low> = masked(&inputs[0], &factors).iter().map(|x| x.map(f64::tanh)).collect();
            let elements = || inputs[0].iter().zip(&tanh).zip(&douts[0]).map(|((&x, &t), &dy)| (x, t, dy));
            let slopes: Vec<Low> = elements().map(|(x, t, dy)| dy * x * (t.like(1.0) - t * t)).collect();
            let through_tanh = masked(&slopes, &factors);
            let dx = through_tanh.iter().zip(elements()).map(|(&d, (_, t, dy))| d + dy * t).collect();
            let y = elements().map(|(x, t, _)| t * x).collect();
            NaiveResults { outputs: vec![y], gradients: vec![dx] }
        }),
        cost: Cost { bytes: 8 * numel, flops: 3 * numel },
        backward_cost: Some(Cost { bytes: 12 * numel, flops: 10 * numel }),
    }
}
