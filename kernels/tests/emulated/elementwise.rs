//! GELU in both forms, ReLU, tanh, sums of two arrays.

use crate::harness::{Gpu, Reals};
use crate::numbers::{Float, assert_close, numbers, wide};
use half::bf16;
use vitrine_kernels::elementwise::Add;
use vitrine_kernels::gelu::*;

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
        let len = n as u64;
        let gelu_erf = |x: f64| x * normal_cdf(x);
        let gelu_tanh = |x: f64| x * tanh_gate(x);
        macro_rules! kernels {
            ($forward:ident, $backward:ident) => {
                (
                    |gpu, x, y, n| gpu.launch($forward { x, y, n }),
                    |gpu, a, b, y, n| gpu.launch($backward { a, b, y, n }),
                )
            };
        }
        type Forward = fn(&Gpu, &Reals, &mut Reals, u64);
        type Backward = fn(&Gpu, &Reals, &Reals, &mut Reals, u64);
        type Function<'a> = (&'static str, &'a dyn Fn(f64) -> f64, (Forward, Backward));
        let unary: [Function<'_>; 4] = [
            ("gelu_erf", &gelu_erf, kernels!(GeluErfForward, GeluErfBackward)),
            ("gelu_tanh", &gelu_tanh, kernels!(GeluTanhForward, GeluTanhBackward)),
            ("relu", &|x| x.max(0.0), kernels!(ReluForward, ReluBackward)),
            ("tanh", &f64::tanh, kernels!(TanhForward, TanhBackward)),
        ];
        for (name, f, (forward, backward)) in unary {
            let [mut y, mut dx] = [0; 2].map(|_| gpu.room::<T>(n));
            forward(&gpu, &px, &mut y, len);
            let expected: Vec<f64> = wide(&x).into_iter().map(f).collect();
            assert_close(name, &gpu.get::<T>(y), &expected, T::TOLERANCE);
            backward(&gpu, &pdy, &px, &mut dx, len);
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
            assert_close(&format!("{name} backward"), &gpu.get::<T>(dx), &expected, T::TOLERANCE);
        }
        let mut y = gpu.room::<T>(n);
        gpu.launch(Add { a: &px, b: &pdy, y: &mut y, n: len });
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
