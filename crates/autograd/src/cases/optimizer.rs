//! Rows of AdamW, which changes tensors in place and has no gradient: its results stand on the tape as constants.
//!
//! Tolerance: the moments are three roundings each, the quotient adds seven, and the result is a sum of the parameter and
//! a step that is not larger.

use super::{Cost, Input, NaiveResults, OpCase, Values};
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::adamw::{AdamW, GradNorm, Update, adamw_step};

/// One update of `len` elements at a step where both bias corrections matter.
pub fn adamw(len: usize) -> OpCase {
    const GRAD_SCALE: f64 = 0.5;
    const WEIGHT_DECAY: f64 = 0.1;
    let settings = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 3 };
    let input = |name| Input::new(name, &[len]).wide();
    OpCase {
        op: "adamw",
        variant: len.to_string(),
        inputs: vec![
            input("param"),
            input("grad"),
            input("first_moment"),
            input("second_moment").values(Values::Squares),
        ],
        roundings: 16.0,
        function: Box::new(move |v| {
            let [param, grad, first_moment, second_moment] = [0, 1, 2, 3].map(|i| v[i].value());
            let [mut param, mut first_moment, mut second_moment] =
                [param.copy()?, first_moment.copy()?, second_moment.copy()?];
            let update = Update {
                param: &mut param,
                compute: None,
                grad,
                first_moment: &mut first_moment,
                second_moment: &mut second_moment,
                weight_decay: WEIGHT_DECAY,
            };
            adamw_step(&mut [update], &settings, &GradNorm::fixed(GRAD_SCALE, grad.device())?)?;
            let result = |value: Tensor| v[0].tape().constant(value);
            Ok([param, first_moment, second_moment].map(result).into())
        }),
        naive: Box::new(move |inputs, _| {
            let AdamW { lr, beta1, beta2, eps, step } = settings;
            let mut outputs = vec![Vec::new(); 3];
            let elements = inputs[0].iter().zip(&inputs[1]).zip(inputs[2].iter().zip(&inputs[3]));
            for ((param, grad), (first, second)) in elements {
                let (p, g) = (param.get(), grad.get() * GRAD_SCALE);
                let m = beta1 * first.get() + (1.0 - beta1) * g;
                let v = beta2 * second.get() + (1.0 - beta2) * g * g;
                let m_hat = m / (1.0 - beta1.powi(step as i32));
                let v_hat = v / (1.0 - beta2.powi(step as i32));
                let p = p - lr * (m_hat / (v_hat.sqrt() + eps) + WEIGHT_DECAY * p);
                for (output, value) in outputs.iter_mut().zip([p, m, v]) {
                    output.push(param.like(value));
                }
            }
            NaiveResults { outputs, gradients: Vec::new() }
        }),
        cost: Cost { bytes: 28 * len, flops: 15 * len },
        backward_cost: None,
    }
}
