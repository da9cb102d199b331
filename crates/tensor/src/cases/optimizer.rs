//! Rows of AdamW.
//!
//! Tolerance: the moments are three roundings each, the quotient adds seven, and the result is a sum of the parameter and
//! a step that is not larger.

use super::{Cost, Forwarded, Input, Low, NaiveResults, OpCase, Values};
use crate::ops::adamw::{AdamW, GradNorm, Update, adamw_step};

/// One update of `len` elements at a step where both bias corrections matter.
pub fn adamw(len: usize) -> OpCase {
    const GRAD_SCALE: f64 = 0.5;
    const WEIGHT_DECAY: f64 = 0.1;
    let settings = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 3 };
    let input = |name| Input::new(name, &[len]).parameter();
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
        forward: Box::new(move |inputs| {
            let mut outputs = vec![inputs[0].copy()?, inputs[2].copy()?, inputs[3].copy()?];
            if let [param, first_moment, second_moment] = &mut outputs[..] {
                let (grad, weight_decay) = (&inputs[1], WEIGHT_DECAY);
                let update = Update { param, compute: None, grad, first_moment, second_moment, weight_decay };
                let norm = GradNorm::fixed(GRAD_SCALE, grad.device())?;
                adamw_step(&mut [update], &settings, &norm)?;
            }
            Ok(Forwarded { outputs, saved: vec![] })
        }),
        backward: None,
        naive: Some(Box::new(move |inputs, _| {
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
            NaiveResults { outputs, gradients: Vec::<Option<Vec<Low>>>::new() }
        })),
        cost: Cost { bytes: 28 * len, flops: 15 * len },
        backward_cost: Cost::default(),
    }
}
