//! What the table of operations has no row for: views of any layout, misfits, accuracy far out.

use vitrine_tensor::cpu::isa::{every_path, with_isa};
use vitrine_tensor::ops::linear::{Activation, LinearNeeds, linear, linear_backward};
use vitrine_tensor::ops::{elementwise as e, gelu, matmul, movement, reduce};
use vitrine_tensor::{DType, Device, Result, Tensor};

/// Values in `low..high`, the same for every run.
fn values(dims: &[usize], low: f64, high: f64, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values: Vec<f64> = (0..dims.iter().product())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            low + (high - low) * (state >> 11) as f64 / (1u64 << 53) as f64
        })
        .collect();
    Tensor::from_slice(&values, dims).unwrap()
}

fn f64s(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

#[track_caller]
fn assert_close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let (got, expected) = (f64s(got), f64s(expected));
    let scale = expected.iter().fold(1.0f64, |largest, x| largest.max(x.abs()));
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * scale, "{what}: [{i}]: {got} against {expected}");
    }
}

#[test]
fn views_of_any_layout_on_every_path() {
    let x = values(&[5, 21], 0.5, 4.0, 5);
    let functions = [e::neg, e::exp, e::ln, e::sqrt, e::tanh, e::relu, gelu::gelu_erf, gelu::gelu_tanh];
    for isa in every_path() {
        with_isa(isa, || {
            for dtype in [DType::F64, DType::F32, DType::BF16] {
                let x = x.to_dtype(dtype).unwrap();
                for view in [x.narrow(1, 2, 18).unwrap(), x.t().unwrap(), x.narrow(0, 1, 1).unwrap()] {
                    let whole = view.contiguous().unwrap();
                    for function in functions {
                        let (got, expected) = (function(&view).unwrap(), function(&whole).unwrap());
                        assert_close("function of a view", &got, &expected, 0.0);
                    }
                    for function in [e::add, e::sub, e::mul, e::div] {
                        let (got, expected) =
                            (function(&view, &view).unwrap(), function(&whole, &whole).unwrap());
                        assert_close("arithmetic with views", &got, &expected, 0.0);
                    }
                }
            }
        });
    }
}

#[test]
fn gelus_are_finite_far_out_on_every_path() {
    let x = Tensor::from_slice(&[-1e30f32, -3e4, -150.0, 150.0, 3e4, 1e30], &[6]).unwrap();
    let ones = Tensor::full(&[6], 1.0, DType::F32, Device::Cpu).unwrap();
    for isa in every_path() {
        with_isa(isa, || {
            for y in [gelu::gelu_erf(&x), gelu::gelu_tanh(&x)] {
                assert_eq!(y.unwrap().as_slice::<f32>().unwrap(), [0.0, 0.0, 0.0, 150.0, 3e4, 1e30], "{isa}");
            }
            for dx in [gelu::gelu_erf_backward(&ones, &x), gelu::gelu_tanh_backward(&ones, &x)] {
                assert_eq!(dx.unwrap().as_slice::<f32>().unwrap(), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0], "{isa}");
            }
        });
    }
}

/// The error of f32 GELU is at most 2e-7 max(|x|, 1), which is that of the normal distribution's function, and its
/// derivative's at most 5e-7.
#[test]
fn gelus_are_accurate_on_every_path() {
    let count = 20_001;
    let x: Vec<f32> = (0..count).map(|i| 24.0 * (i as f32 / (count - 1) as f32 - 0.5)).collect();
    let x = Tensor::from_slice(&x, &[count]).unwrap();
    let ones = Tensor::full(&[count], 1.0, DType::F32, Device::Cpu).unwrap();
    type Function = fn(&Tensor) -> Result<Tensor>;
    type Derivative = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let forms: [(Function, Derivative); 2] =
        [(gelu::gelu_erf, gelu::gelu_erf_backward), (gelu::gelu_tanh, gelu::gelu_tanh_backward)];
    for (form, (forward, backward)) in forms.into_iter().enumerate() {
        let wide = x.to_dtype(DType::F64).unwrap();
        let y64 = f64s(&forward(&wide).unwrap());
        let dx64 = f64s(&backward(&ones.to_dtype(DType::F64).unwrap(), &wide).unwrap());
        for isa in every_path() {
            let (y, dx) =
                with_isa(isa, || (f64s(&forward(&x).unwrap()), f64s(&backward(&ones, &x).unwrap())));
            for (i, x) in f64s(&x).into_iter().enumerate() {
                // Half of erf's error of 4.8e-7 at most, and a rounding.
                let error = (y[i] - y64[i]).abs() / x.abs().max(1.0);
                assert!(error <= 3e-7, "{form} on {isa} at {x}: {} against {}", y[i], y64[i]);
                assert!(
                    (dx[i] - dx64[i]).abs() <= 4e-7,
                    "{form}' on {isa} at {x}: {} against {}",
                    dx[i],
                    dx64[i]
                );
            }
        }
    }
}

#[test]
fn misfits_are_refused() {
    let (a, b) = (values(&[2, 3], 0.0, 1.0, 1), values(&[4], 0.0, 1.0, 1));
    assert!(e::add(&a, &b).is_err());
    assert!(e::add(&a, &a.to_dtype(DType::F32).unwrap()).is_err());
    assert!(reduce::sum(&a, 2, false).is_err());
    assert!(reduce::reduce_to_shape(&a, &[2]).is_err());
    assert!(reduce::max(&values(&[2, 0], 0.0, 1.0, 1), 1, false).is_err());
    let x = values(&[5, 19], -1.0, 1.0, 3);
    assert!(movement::gather_rows(&x, &[5]).is_err());
    assert!(movement::gather_rows_backward(&x, &[0, 1], 5).is_err());
    assert!(movement::narrow_backward(&x, 1, 1, 19).is_err());
    assert!(movement::cat(&[], 0).is_err());
    assert!(movement::cat(&[&x, &x.t().unwrap()], 0).is_err());
}

#[test]
fn exact_sums_and_the_largest_of_nan_on_every_path() {
    for isa in every_path() {
        with_isa(isa, || {
            // Many pieces: the sum of 300 000 ones is exact.
            let ones = Tensor::full(&[300_000], 1.0, DType::F32, Device::Cpu).unwrap();
            assert_eq!(reduce::sum(&ones, 0, false).unwrap().item().unwrap(), 300_000.0);
            let with_nan = Tensor::from_slice(&[1.0f32, f32::NAN, 3.0], &[3]).unwrap();
            let found = reduce::max(&with_nan, 0, false).unwrap();
            assert!(found.values.item().unwrap().is_nan());
            assert_eq!(found.indices.to_vec::<u32>().unwrap(), [1]);
        });
    }
}

#[test]
fn products_take_views_and_refuse_misfits() {
    let x = values(&[3, 5], -1.0, 1.0, 1);
    assert!(matmul::matmul(&x, &x).is_err());
    assert!(matmul::matmul(&x, &x.reshape(&[15]).unwrap()).is_err());
    let square = matmul::matmul(&x.t().unwrap(), &x).unwrap();
    assert_close("x^T x", &square, &square.t().unwrap(), 1e-15);
}

#[test]
fn linear_takes_views_and_refuses_misfits() {
    let x = values(&[4, 12], -1.0, 1.0, 1).to_dtype(DType::F32).unwrap();
    let w = values(&[3, 5], -1.0, 1.0, 2).to_dtype(DType::F32).unwrap();
    let strided = x.narrow(1, 4, 5).unwrap();
    let y = |x: &Tensor| linear(x, &w, None, Activation::None, false).unwrap().y;
    assert_close("strided x", &y(&strided), &y(&strided.contiguous().unwrap()), 0.0);
    let deep = x.reshape(&[2, 2, 12]).unwrap().narrow(2, 4, 5).unwrap();
    assert_eq!(y(&deep).dims(), [2, 2, 3]);
    assert_close("deep x", &y(&deep).reshape(&[4, 3]).unwrap(), &y(&strided), 0.0);
    let gelu = |bias| linear(&strided, &w, bias, Activation::GeluErf, true).unwrap();
    let zeros = Tensor::zeros(&[3], DType::F32, Device::Cpu).unwrap();
    assert_close("no bias", &gelu(None).y, &gelu(Some((&zeros).into())).y, 0.0);
    assert!(linear(&x, &w, None, Activation::None, false).is_err());
    assert!(linear(&strided, &w, Some((&x).into()), Activation::None, false).is_err());
    assert!(linear(&strided, &w.to_dtype(DType::F64).unwrap(), None, Activation::None, false).is_err());
    let dy = y(&strided);
    let wants = |x, weight| LinearNeeds { x, weight, bias: true };
    let dx = wants(Some(DType::F32), false);
    let backward =
        |x, weight, activation, needs| linear_backward(&dy, x, weight, activation, None, needs, None);
    assert!(backward(Some(&strided), Some(&w), Activation::Tanh, dx).is_err(), "y is missing");
    // Only dweight takes x, and only dx takes the weight.
    let alone = backward(None, Some(&w), Activation::None, dx).unwrap();
    assert!(alone.dx.is_some() && alone.dweight.is_none() && alone.dbias.is_some());
    assert!(backward(Some(&strided), None, Activation::None, wants(None, true)).is_ok());
    assert!(backward(None, None, Activation::None, wants(None, false)).is_ok());
    assert!(backward(Some(&strided), None, Activation::None, dx).is_err(), "the weight is missing");
    assert!(backward(None, Some(&w), Activation::None, wants(None, true)).is_err(), "x is missing");
    assert!(backward(Some(&x), Some(&w), Activation::None, dx).is_err(), "x does not fit");
}
