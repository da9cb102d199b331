//! Rows of functions of elements: of one tensor, and of two under broadcasting.
//!
//! Tolerances: a quotient or root is one rounding; `exp`, `ln`, `tanh` and GELU are within eight units of their exact
//! values; a gradient is a product or two of such numbers. A gradient of a broadcast operand adds the sum over T repeats,
//! about sqrt(T) roundings.

use super::{Cost, Input, Low, NaiveResults, OpCase, Values, one};
use crate::{Result, Var};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

/// The textbook gradient of a function of one tensor from dy, x and y. Like the rule's it starts from the rounded y where that is
/// saved, so both carry its error.
type NaiveBackward = fn(Low, Low, Low) -> Low;

/// Both signs, far enough out for tails.
const WIDE: Values = Values::Normal { mean: 0.0, std: 2.0 };
/// All positive, well away from zero.
const POSITIVE: Values = Values::Normal { mean: 5.0, std: 0.5 };

fn unary(
    op: &'static str,
    len: usize,
    values: Values,
    function: for<'t> fn(&Var<'t>) -> Result<Var<'t>>,
    f: fn(f64) -> f64,
    df: NaiveBackward,
) -> OpCase {
    let flops = match op {
        "gelu_erf" => 5,
        "gelu_tanh" => 9,
        _ => 1,
    };
    OpCase {
        op,
        variant: len.to_string(),
        inputs: vec![Input::new("x", &[len]).values(values)],
        roundings: 16.0,
        function: one(move |v| function(&v[0])),
        naive: Box::new(move |inputs, douts| {
            let y: Vec<Low> = inputs[0].iter().map(|x| x.map(f)).collect();
            let dx = inputs[0].iter().zip(&y).zip(&douts[0]).map(|((&x, &y), &dy)| df(dy, x, y)).collect();
            NaiveResults { outputs: vec![y], gradients: vec![dx] }
        }),
        cost: Cost { bytes: 8 * len, flops: flops * len },
        backward_cost: Some(Cost { bytes: 12 * len, flops: 2 * flops * len }),
    }
}

pub(super) fn gelu_erf_of(x: f64) -> (f64, f64) {
    let cdf = 0.5 * (1.0 + libm::erf(x * FRAC_1_SQRT_2));
    (x * cdf, cdf + x * (-0.5 * x * x).exp() * 0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2)
}

pub(super) fn gelu_tanh_of(x: f64) -> (f64, f64) {
    let root = (2.0 / PI).sqrt();
    let tanh = (root * (x + 0.044715 * x.powi(3))).tanh();
    let slope = root * (1.0 + 3.0 * 0.044715 * x * x);
    (0.5 * x * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * slope)
}

/// GELU by the error function, of `len` elements.
pub fn gelu_erf(len: usize) -> OpCase {
    let df: NaiveBackward = |dy, x, _| x.map(|x| gelu_erf_of(x).1) * dy;
    unary("gelu_erf", len, WIDE, |x| x.gelu_erf(), |x| gelu_erf_of(x).0, df)
}

/// GELU by tanh, of `len` elements.
pub fn gelu_tanh(len: usize) -> OpCase {
    let df: NaiveBackward = |dy, x, _| x.map(|x| gelu_tanh_of(x).1) * dy;
    unary("gelu_tanh", len, WIDE, |x| x.gelu_tanh(), |x| gelu_tanh_of(x).0, df)
}

/// Every other function of one tensor, of `len` elements.
pub fn functions(len: usize) -> Vec<OpCase> {
    vec![
        unary("exp", len, WIDE, |x| x.exp(), f64::exp, |dy, _, y| dy * y),
        unary("ln", len, POSITIVE, |x| x.ln(), f64::ln, |dy, x, _| dy / x),
        unary("sqrt", len, POSITIVE, |x| x.sqrt(), f64::sqrt, |dy, _, y| dy / (y + y)),
        unary("tanh", len, WIDE, |x| x.tanh(), f64::tanh, |dy, _, y| dy * (y.like(1.0) - y * y)),
        unary(
            "relu",
            len,
            WIDE,
            |x| x.relu(),
            |x| x.max(0.0),
            |dy, _, y| {
                if y.get() > 0.0 { dy } else { dy.like(0.0) }
            },
        ),
        unary("scale", len, WIDE, |x| x.scale(-1.5), |x| -1.5 * x, |dy, _, _| dy.map(|dy| -1.5 * dy)),
        unary("add_scalar", len, WIDE, |x| x.add_scalar(0.75), |x| x + 0.75, |dy, _, _| dy),
    ]
}

/// `x + x`: a variable that an operation takes twice gets the sum of two gradients. One rounding each.
pub fn twice(len: usize) -> OpCase {
    let df: NaiveBackward = |dy, _, _| dy + dy;
    unary("add", len, WIDE, |x| x.add(x), |x| x + x, df).named(&format!("{len}_twice"))
}

/// NumPy's rule: shapes are aligned at their last dimensions, and a length of 1 is repeated.
pub(super) fn broadcast_shape(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let length = |dims: &[usize], d: usize| (d + dims.len()).checked_sub(rank).map_or(1, |d| dims[d]);
    (0..rank).map(|d| if length(a, d) == 1 { length(b, d) } else { length(a, d) }).collect()
}

/// For each element of a result of shape `dims`, the element of an operand of shape `operand` that it is made from.
pub(super) fn sources(operand: &[usize], dims: &[usize]) -> Vec<usize> {
    let lead = dims.len() - operand.len();
    let source = |mut index: usize| {
        let (mut position, mut stride) = (0, 1);
        for d in (0..dims.len()).rev() {
            let at = index % dims[d];
            index /= dims[d];
            if d >= lead {
                let length = operand[d - lead];
                position += at.min(length - 1) * stride;
                stride *= length;
            }
        }
        position
    };
    (0..dims.iter().product()).map(source).collect()
}

/// For each element of an operand the sum of what its copies got.
pub(super) fn collected(operand: &[Low], sources: &[usize], d: &[Low]) -> Vec<Low> {
    let mut terms = vec![Vec::new(); operand.len()];
    sources.iter().zip(d).for_each(|(&at, &d)| terms[at].push(d));
    terms.into_iter().zip(operand).map(|(terms, x)| Low::sum(terms).unwrap_or(x.like(0.0))).collect()
}

fn binary(
    op: &'static str,
    a: &[usize],
    b: &[usize],
    function: for<'t> fn(&Var<'t>, &Var<'t>) -> Result<Var<'t>>,
    f: fn(Low, Low) -> Low,
    df: fn(Low, Low, Low, Low) -> [Low; 2],
) -> OpCase {
    let dims = broadcast_shape(a, b);
    let (from_a, from_b) = (sources(a, &dims), sources(b, &dims));
    let [numel, numel_a, numel_b] = [&dims, a, b].map(|dims| dims.iter().product::<usize>());
    OpCase {
        op,
        variant: format!("{a:?}_{b:?}").replace(", ", "x"),
        inputs: vec![Input::new("a", a), Input::new("b", b).values(POSITIVE)],
        roundings: 16.0 + 2.0 * (numel as f64).sqrt(),
        function: one(move |v| function(&v[0], &v[1])),
        naive: Box::new(move |inputs, douts| {
            let pairs = || from_a.iter().zip(&from_b).map(|(&a, &b)| (inputs[0][a], inputs[1][b]));
            let y: Vec<Low> = pairs().map(|(a, b)| f(a, b)).collect();
            let (da, db): (Vec<Low>, Vec<Low>) =
                pairs().zip(&y).zip(&douts[0]).map(|(((a, b), &y), &dy)| df(dy, a, b, y).into()).unzip();
            let gradients = vec![collected(&inputs[0], &from_a, &da), collected(&inputs[1], &from_b, &db)];
            NaiveResults { outputs: vec![y], gradients }
        }),
        cost: Cost { bytes: 4 * (numel_a + numel_b + numel), flops: numel },
        backward_cost: Some(Cost { bytes: 4 * (2 * numel_a + 2 * numel_b + numel), flops: 3 * numel }),
    }
}

/// Sum, difference, product and quotient of operands of these shapes.
pub fn arithmetic(a: &[usize], b: &[usize]) -> Vec<OpCase> {
    vec![
        binary("add", a, b, |a, b| a.add(b), |a, b| a + b, |dy, _, _, _| [dy, dy]),
        binary("sub", a, b, |a, b| a.sub(b), |a, b| a - b, |dy, _, _, _| [dy, -dy]),
        binary("mul", a, b, |a, b| a.mul(b), |a, b| a * b, |dy, a, b, _| [dy * b, dy * a]),
        binary("div", a, b, |a, b| a.div(b), |a, b| a / b, |dy, _, b, y| [dy / b, -(dy * y / b)]),
    ]
}

/// A tensor of shape `from`, repeated to shape `to`.
pub fn broadcast_to(from: &[usize], to: &[usize]) -> OpCase {
    let (from_x, to_dims) = (sources(from, to), to.to_vec());
    let [few, many] = [from, to].map(|dims| dims.iter().product::<usize>());
    OpCase {
        op: "broadcast_to",
        variant: format!("{from:?}_{to:?}").replace(", ", "x"),
        inputs: vec![Input::new("x", from)],
        roundings: 16.0 + 2.0 * (many as f64).sqrt(),
        function: one(move |v| v[0].broadcast_to(&to_dims)),
        naive: Box::new(move |inputs, douts| {
            let y = from_x.iter().map(|&at| inputs[0][at]).collect();
            NaiveResults { outputs: vec![y], gradients: vec![collected(&inputs[0], &from_x, &douts[0])] }
        }),
        cost: Cost { bytes: 4 * (few + many), flops: 0 },
        backward_cost: Some(Cost { bytes: 4 * (few + many), flops: many }),
    }
}
