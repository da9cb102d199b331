//! Transcendental functions over f32 lanes, from the lanes' arithmetic. `Scalar<f64>` uses libm's instead.

use super::Lanes;

/// e^x as 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2, and a degree-7 Taylor polynomial for e^r, whose truncation
/// error is below 0.35^8 / 8! = 5.6e-9, a tenth of an f32 rounding.
#[inline(always)]
pub fn exp<L: Lanes>(x: L) -> L {
    // Beyond these the result is 0 or infinity anyway; NaN passes `min` and `max` as their second operand.
    let clamped = L::constant(-105.0).max(L::constant(89.0).min(x));
    let n = (clamped * L::constant(std::f64::consts::LOG2_E)).round();
    // ln 2 in two parts, the first with few enough bits that n times it is exact.
    let r = n.mul_add(L::constant(-0.693_359_375), clamped);
    let r = n.mul_add(L::constant(2.121_944_400_546_905_8e-4), r);
    let mut p = L::constant(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p.mul_add(r, L::constant(coefficient));
    }
    p.ldexp(n)
}

/// tanh x: near 0 as x P(x^2), with a relative error of 4e-9 from the polynomial; else as 1 - 2 / (e^2|x| + 1), which
/// reaches 1 by itself, with the sign of x.
#[inline(always)]
pub fn tanh<L: Lanes>(x: L) -> L {
    const P: [f64; 6] = [
        -0.005_660_337_649_11,
        0.020_591_362_872_6,
        -0.053_721_214_268_6,
        0.133_311_300_32,
        -0.333_332_607_002,
        0.999_999_996_109,
    ];
    let (magnitude, one) = (x.abs(), L::constant(1.0));
    let far = one - L::constant(2.0) / ((magnitude + magnitude).exp() + one);
    L::select(magnitude.lt(L::constant(0.625)), x * horner(x * x, &P), with_sign_of(x, far))
}

/// erf x: near 0 as x P(x^2), with a relative error of 6e-9 from the polynomial; else as 1 - e^Q(|x|), with an error of
/// 2e-9, which is 1 in f32 from |x| = 3.95 on, with the sign of x.
///
/// The polynomials of this file are weighted least-squares fits, reweighted by their error until it is level.
#[inline(always)]
pub fn erf<L: Lanes>(x: L) -> L {
    const P: [f64; 6] = [
        -0.000_631_540_047_399,
        0.005_051_148_952_8,
        -0.026_802_587_093_3,
        0.112_827_186_516,
        -0.376_125_719_99,
        1.128_379_160_29,
    ];
    const Q: [f64; 7] = [
        0.000_202_532_548_22,
        -0.003_107_224_644_74,
        0.022_479_136_264_1,
        -0.104_448_328_032,
        -0.636_601_364_579,
        -1.128_015_600_83,
        -0.000_114_670_020_997,
    ];
    // NaN passes `min` as its second operand.
    let magnitude = L::constant(3.95).min(x.abs());
    let far = L::constant(1.0) - horner(magnitude, &Q).exp();
    L::select(magnitude.lt(L::constant(0.85)), x * horner(x * x, &P), with_sign_of(x, far))
}

/// The polynomial with these coefficients, the highest power's first.
#[inline(always)]
fn horner<L: Lanes, const N: usize>(x: L, coefficients: &[f64; N]) -> L {
    let mut sum = L::constant(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = sum.mul_add(x, L::constant(coefficient));
    }
    sum
}

/// `magnitude` if x is not negative, else `-magnitude`.
#[inline(always)]
fn with_sign_of<L: Lanes>(x: L, magnitude: L) -> L {
    L::select(x.lt(L::constant(0.0)), -magnitude, magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;
    use crate::cpu::simd::{self, Kernel};

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Tanh,
        Erf,
    }

    struct Apply<'a>(Function, &'a [f32], &'a mut [f32]);
    impl Kernel<f32> for Apply<'_> {
        type Output = ();
        #[inline(always)]
        fn run<L: Lanes<Real = f32>>(self) {
            match self.0 {
                Function::Exp => simd::map(self.1, self.2, |x: L| x.exp()),
                Function::Tanh => simd::map(self.1, self.2, |x: L| x.tanh()),
                Function::Erf => simd::map(self.1, self.2, |x: L| x.erf()),
            }
        }
    }

    /// A dense grid, and every exponent of f32.
    fn grid(limit: f32) -> Vec<f32> {
        let count = 400_000;
        let linear = (0..=count).map(|i| limit * (2.0 * i as f32 / count as f32 - 1.0));
        let powers = (-140..8).flat_map(|e| [1.0f32, -1.0, 1.37, -1.37].map(|m| m * 2f32.powi(e)));
        linear.chain(powers.filter(|x| x.abs() <= limit)).collect()
    }

    /// The largest error against `exact`, divided by `unit(exact)`.
    fn largest_error(
        function: Function,
        limit: f32,
        exact: impl Fn(f64) -> f64,
        unit: impl Fn(f64) -> f64,
        bound: f64,
    ) {
        let x = grid(limit);
        for isa in Isa::available() {
            let mut y = vec![0.0; x.len()];
            simd::run(isa, Apply(function, &x, &mut y));
            let mut worst = (0.0, 0.0);
            for (&x, &y) in x.iter().zip(&y) {
                let expected = exact(f64::from(x));
                let error = (f64::from(y) - expected).abs() / unit(expected);
                assert!(error <= bound, "{isa}: f({x}) = {y}, exactly {expected}: error {error:e}");
                if error > worst.0 {
                    worst = (error, x);
                }
            }
            println!("{isa}: largest error {:e} at {}", worst.0, worst.1);
        }
    }

    fn relative(y: f64) -> f64 {
        y.abs().max(f64::from(f32::MIN_POSITIVE))
    }

    #[test]
    fn exp_is_accurate() {
        largest_error(Function::Exp, 88.7, f64::exp, relative, 2.4e-7);
    }

    #[test]
    fn tanh_is_accurate() {
        largest_error(Function::Tanh, 30.0, f64::tanh, relative, 2.4e-7);
        largest_error(Function::Tanh, 30.0, f64::tanh, |_| 1.0, 1.2e-7);
    }

    #[test]
    fn erf_is_accurate() {
        largest_error(Function::Erf, 8.0, libm::erf, relative, 2.4e-7);
        largest_error(Function::Erf, 8.0, libm::erf, |_| 1.0, 1.2e-7);
    }

    #[test]
    fn extremes_saturate_and_nan_stays() {
        let x = [f32::NEG_INFINITY, -1e30, 1e30, f32::INFINITY, 0.0, f32::NAN];
        for isa in Isa::available() {
            for (function, expected) in [
                (Function::Exp, [0.0, 0.0, f32::INFINITY, f32::INFINITY, 1.0]),
                (Function::Tanh, [-1.0, -1.0, 1.0, 1.0, 0.0]),
                (Function::Erf, [-1.0, -1.0, 1.0, 1.0, 0.0]),
            ] {
                let mut y = [0.0; 6];
                simd::run(isa, Apply(function, &x, &mut y));
                assert_eq!(y[..5], expected, "{isa}");
                assert!(y[5].is_nan(), "{isa}");
            }
        }
    }
}
