//! GELU in both forms, ReLU, tanh, sums of two arrays.

use crate::harness::{Arg::*, Gpu};
use crate::numbers::{Float, assert_close, numbers, wide};
use half::bf16;
use vitrine_kernels as kernels;

pub fn normal_cdf(x: f64) -> f64 {
    // Phi by Simpson's rule: independent of any erf.
    let (n, end) = (2000, x.clamp(-9.0, 9.0));
    let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let h = end / f64::from(n);
    let inner: f64 = (1..n).map(|i| density(h * f64::from(i)) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    0.5 + h / 3.0 * (density(0.0) + density(end) + inner)
}

fn elementwise<T: Float>() {
    let gpu = Gpu::open();
    let tanh_gate =
        |x: f64| (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()) / 2.0;
    let slope = |f: &dyn Fn(f64) -> f64, x: f64| (f(x + 1e-5) - f(x - 1e-5)) / 2e-5;
    for n in [1, 7, 8, 9, 2049] {
        let (x, dy) = (numbers::<T>(n, 1), numbers::<T>(n, 2));
        let (px, pdy) = (gpu.put(&x), gpu.put(&dy));
        let grid = [n.div_ceil(2048), 1, 1];
        let gelu_erf = |x: f64| x * normal_cdf(x);
        let gelu_tanh = |x: f64| x * tanh_gate(x);
        let unary: [(&str, &dyn Fn(f64) -> f64); 4] = [
            ("gelu_erf", &gelu_erf),
            ("gelu_tanh", &gelu_tanh),
            ("relu", &|x| x.max(0.0)),
            ("tanh", &f64::tanh),
        ];
        for (name, f) in unary {
            let y = gpu.room(n * size_of::<T>());
            gpu.launch(
                &kernels::GELU,
                &format!("{name}_forward_{}", T::SUFFIX),
                grid,
                256,
                0,
                &[P(px), P(y), L(n)],
            );
            let expected: Vec<f64> = wide(&x).into_iter().map(f).collect();
            assert_close(name, &gpu.get::<T>(y), &expected, T::TOLERANCE);
            let dx = gpu.room(n * size_of::<T>());
            let kernel = format!("{name}_backward_{}", T::SUFFIX);
            gpu.launch(&kernels::GELU, &kernel, grid, 256, 0, &[P(pdy), P(px), P(dx), L(n)]);
            let expected: Vec<f64> = wide(&x)
                .iter()
                .zip(&dy)
                .map(|(&x, dy)| {
                    dy.get()
                        * match name {
                            "relu" => f64::from(u8::from(x > 0.0)),
                            "tanh" => 1.0 - x * x, // of y
                            _ => slope(f, x),
                        }
                })
                .collect();
            assert_close(&kernel, &gpu.get::<T>(dx), &expected, T::TOLERANCE);
        }
        let y = gpu.room(n * size_of::<T>());
        let add = format!("add_{}", T::SUFFIX);
        gpu.launch(&kernels::ELEMENTWISE, &add, grid, 256, 0, &[P(px), P(pdy), P(y), L(n)]);
        let expected: Vec<f64> = wide(&x).iter().zip(&dy).map(|(x, y)| x + y.get()).collect();
        assert_close("add", &gpu.get::<T>(y), &expected, T::TOLERANCE);
    }
}
#[test]
fn elementwise_f32() {
    elementwise::<f32>();
}
#[test]
fn elementwise_bf16() {
    elementwise::<bf16>();
}
