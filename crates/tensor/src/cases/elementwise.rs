//! Rows of functions of elements: of one tensor, and of two under broadcasting.
//!
//! Tolerances: a quotient or root is one rounding; `exp`, `ln`, `tanh` and GELU are within eight units of their exact
//! values; a gradient is a product or two of such numbers. A gradient of a broadcast operand adds the sum over T repeats,
//! about sqrt(T) roundings.

use super::{Cost, Forwarded, Input, Low, NaiveResults, OpCase, Values};
use crate::ops::elementwise as e;
use crate::ops::gelu;
use crate::ops::reduce::reduce_to_shape;
use crate::{Result, Tensor};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

/// The gradient of a function of one tensor from dy, x and y: the operation's, and the textbook's. Both start from the
/// rounded y where it is saved, so both carry its error.
type Backward = fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>;
type NaiveBackward = fn(Low, Low, Low) -> Low;

/// Both signs, far enough out for tails.
const WIDE: Values = Values::Normal { mean: 0.0, std: 2.0 };
/// All positive, well away from zero.
const POSITIVE: Values = Values::Normal { mean: 5.0, std: 0.5 };

fn unary(
    op: &'static str,
    len: usize,
    values: Values,
    forward: fn(&Tensor) -> Result<Tensor>,
    backward: Backward,
    f: fn(f64) -> f64,
    df: NaiveBackward,
) -> OpCase {
    OpCase {
        op,
        variant: len.to_string(),
        inputs: vec![Input::new("x", &[len]).values(values)],
        roundings: 16.0,
        forward: Box::new(move |inputs| {
            let y = forward(&inputs[0])?;
            Ok(Forwarded { outputs: vec![y.clone()], saved: vec![y] })
        }),
        backward: Some(Box::new(move |inputs, saved, douts| {
            Ok(vec![Some(backward(&douts[0], &inputs[0], &saved[0])?)])
        })),
        naive: Some(Box::new(move |inputs, douts| {
            let y: Vec<Low> = inputs[0].iter().map(|x| x.map(f)).collect();
            let dx = inputs[0].iter().zip(&y).zip(&douts[0]).map(|((&x, &y), &dy)| df(dy, x, y)).collect();
            NaiveResults { outputs: vec![y], gradients: vec![Some(dx)] }
        })),
        cost: Cost { bytes: 8 * len, flops: 20 * len },
        backward_cost: Cost { bytes: 12 * len, flops: 30 * len },
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
    let backward: Backward = |dy, x, _| gelu::gelu_erf_backward(dy, x);
    let df: NaiveBackward = |dy, x, _| x.map(|x| gelu_erf_of(x).1) * dy;
    unary("gelu_erf", len, WIDE, gelu::gelu_erf, backward, |x| gelu_erf_of(x).0, df)
}

/// GELU by tanh, of `len` elements.
pub fn gelu_tanh(len: usize) -> OpCase {
    let backward: Backward = |dy, x, _| gelu::gelu_tanh_backward(dy, x);
    let df: NaiveBackward = |dy, x, _| x.map(|x| gelu_tanh_of(x).1) * dy;
    unary("gelu_tanh", len, WIDE, gelu::gelu_tanh, backward, |x| gelu_tanh_of(x).0, df)
}

/// Every other function of one tensor, of `len` elements.
pub fn functions(len: usize) -> Vec<OpCase> {
    let row = |op, values, forward, backward: Backward, f, df: NaiveBackward| {
        unary(op, len, values, forward, backward, f, df)
    };
    vec![
        row("neg", WIDE, e::neg, |dy, _, _| e::neg(dy), |x| -x, |dy, _, _| -dy),
        row("exp", WIDE, e::exp, |dy, _, y| e::mul(dy, y), f64::exp, |dy, _, y| dy * y),
        row("ln", POSITIVE, e::ln, |dy, x, _| e::div(dy, x), f64::ln, |dy, x, _| dy / x),
        row(
            "sqrt",
            POSITIVE,
            e::sqrt,
            |dy, _, y| e::sqrt_backward(dy, y),
            f64::sqrt,
            |dy, _, y| dy / (y + y),
        ),
        row(
            "tanh",
            WIDE,
            e::tanh,
            |dy, _, y| e::tanh_backward(dy, y),
            f64::tanh,
            |dy, _, y| dy * (y.like(1.0) - y * y),
        ),
        row(
            "relu",
            WIDE,
            e::relu,
            |dy, _, y| e::relu_backward(dy, y),
            |x| x.max(0.0),
            |dy, _, y| {
                if y.get() > 0.0 { dy } else { dy.like(0.0) }
            },
        ),
        row(
            "scale",
            WIDE,
            |x| e::scale(x, -1.5),
            |dy, _, _| e::scale(dy, -1.5),
            |x| -1.5 * x,
            |dy, _, _| dy.map(|dy| -1.5 * dy),
        ),
        row(
            "add_scalar",
            WIDE,
            |x| e::add_scalar(x, 0.75),
            |dy, _, _| dy.contiguous(),
            |x| x + 0.75,
            |dy, _, _| dy,
        ),
    ]
}

/// For each element of a result of shape `dims`, the element of an operand of shape `operand` that it is made from.
fn sources(operand: &[usize], dims: &[usize]) -> Vec<usize> {
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
fn collected(operand: &[Low], sources: &[usize], d: &[Low]) -> Vec<Low> {
    let terms = |element| d.iter().zip(sources).filter(move |(_, at)| **at == element).map(|(&d, _)| d);
    operand.iter().enumerate().map(|(i, x)| Low::sum(terms(i)).unwrap_or(x.like(0.0))).collect()
}

/// Gradients of both operands by dy, a, b and y, before they are summed to the operands' shapes.
type BinaryBackward = fn(&Tensor, &Tensor, &Tensor, &Tensor) -> Result<[Tensor; 2]>;

fn binary(
    op: &'static str,
    a: &[usize],
    b: &[usize],
    forward: fn(&Tensor, &Tensor) -> Result<Tensor>,
    backward: BinaryBackward,
    f: fn(Low, Low) -> Low,
    df: fn(Low, Low, Low, Low) -> [Low; 2],
) -> OpCase {
    let dims = e::broadcast_shape(op, a, b).expect("rows are made with shapes that broadcast").to_vec();
    let (from_a, from_b) = (sources(a, &dims), sources(b, &dims));
    let numel: usize = dims.iter().product();
    let (numel_a, numel_b): (usize, usize) = (a.iter().product(), b.iter().product());
    OpCase {
        op,
        variant: format!("{a:?}_{b:?}").replace(", ", "x"),
        inputs: vec![Input::new("a", a), Input::new("b", b).values(POSITIVE)],
        roundings: 16.0 + 2.0 * (numel as f64).sqrt(),
        forward: Box::new(move |inputs| {
            let y = forward(&inputs[0], &inputs[1])?;
            Ok(Forwarded { outputs: vec![y.clone()], saved: vec![y] })
        }),
        backward: Some(Box::new(move |inputs, saved, douts| {
            let [da, db] = backward(&douts[0], &inputs[0], &inputs[1], &saved[0])?;
            Ok(vec![
                Some(reduce_to_shape(&da, inputs[0].dims())?),
                Some(reduce_to_shape(&db, inputs[1].dims())?),
            ])
        })),
        naive: Some(Box::new(move |inputs, douts| {
            let pairs = || from_a.iter().zip(&from_b).map(|(&a, &b)| (inputs[0][a], inputs[1][b]));
            let y: Vec<Low> = pairs().map(|(a, b)| f(a, b)).collect();
            let (da, db): (Vec<Low>, Vec<Low>) =
                pairs().zip(&y).zip(&douts[0]).map(|(((a, b), &y), &dy)| df(dy, a, b, y).into()).unzip();
            let (da, db) = (collected(&inputs[0], &from_a, &da), collected(&inputs[1], &from_b, &db));
            NaiveResults { outputs: vec![y], gradients: vec![Some(da), Some(db)] }
        })),
        cost: Cost { bytes: 4 * (numel_a + numel_b + numel), flops: numel },
        backward_cost: Cost { bytes: 4 * (2 * numel_a + 2 * numel_b + numel), flops: 3 * numel },
    }
}

/// Sum, difference, product and quotient of operands of these shapes.
pub fn arithmetic(a: &[usize], b: &[usize]) -> Vec<OpCase> {
    let row = |op, forward, backward, f, df| binary(op, a, b, forward, backward, f, df);
    vec![
        row("add", e::add, |dy, _, _, _| Ok([dy.clone(), dy.clone()]), |a, b| a + b, |dy, _, _, _| [dy, dy]),
        row(
            "sub",
            e::sub,
            |dy, _, _, _| Ok([dy.clone(), e::neg(dy)?]),
            |a, b| a - b,
            |dy, _, _, _| [dy, -dy],
        ),
        row(
            "mul",
            e::mul,
            |dy, a, b, _| Ok([e::mul(dy, b)?, e::mul(dy, a)?]),
            |a, b| a * b,
            |dy, a, b, _| [dy * b, dy * a],
        ),
        row(
            "div",
            e::div,
            |dy, _, b, y| Ok([e::div(dy, b)?, e::neg(&e::div(&e::mul(dy, y)?, b)?)?]),
            |a, b| a / b,
            |dy, _, b, y| [dy / b, -(dy * y / b)],
        ),
    ]
}
