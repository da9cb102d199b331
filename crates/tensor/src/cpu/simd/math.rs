//! Transcendental functions over f32 lanes, from the lanes' arithmetic. `Scalar<f64>` uses libm's instead.

use super::Lanes;

/// e^x as 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2, and a polynomial for e^r whose relative error is below 4e-9,
/// a twentieth of an f32 rounding.
#[inline(always)]
pub fn exp<L: Lanes>(x: L) -> L {
    const P: [f64; 7] =
        [0.001_381_454_002, 0.008_368_745_241, 0.041_668_390_8, 0.166_665_204, 0.499_999_934_3, 1.0, 1.0];
    // Beyond these the result is 0 or infinity anyway; NaN passes `min` and `max` as their second operand.
    let clamped = L::constant(-105.0).max(L::constant(89.0).min(x));
    let n = (clamped * L::constant(std::f64::consts::LOG2_E)).round();
    // ln 2 in two parts, the first with few enough bits that n times it is exact.
    let r = n.mul_add(L::constant(-0.693_359_375), clamped);
    let r = n.mul_add(L::constant(2.121_944_400_546_905_8e-4), r);
    horner(r, &P).ldexp(n)
}

/// 2^x as 2^n 2^r with n = round(x), where r = x - n is exact: four operations less than e^x, with the polynomial of e^r
/// stretched by ln 2.
#[inline(always)]
pub fn exp2<L: Lanes>(x: L) -> L {
    let clamped = L::constant(-151.0).max(L::constant(129.0).min(x));
    let n = clamped.round();
    exp2_of_fraction(clamped - n).ldexp(n)
}

/// 2^r for |r| <= 1/2.
#[inline(always)]
pub fn exp2_of_fraction<L: Lanes>(r: L) -> L {
    const P: [f64; 7] = [
        1.532_107_346_89e-4,
        1.339_021_815_4e-3,
        9.618_527_098_12e-3,
        5.550_362_156_08e-2,
        0.240_226_475_393,
        std::f64::consts::LN_2,
        1.0,
    ];
    horner(r, &P)
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

/// erf x as x P(x^2) / Q(x^2), with a relative error of 3e-8 from the fit and below 4.8e-7 (four units in the last place)
/// in f32. From |x| = 3.92 on, where erf is 1 in f32, the quotient passes 1 by more than it is rounded, and is cut there.
///
/// The functions of this file are weighted least-squares fits, reweighted by their error until it is level.
#[inline(always)]
pub fn erf<L: Lanes>(x: L) -> L {
    const P: [f64; 6] = [
        2.262_327_059_08e-6,
        2.908_987_328_29e-4,
        3.541_871_200_93e-3,
        5.215_504_938_15e-2,
        0.183_819_390_868,
        1.128_379_192_85,
    ];
    const Q: [f64; 6] = [
        4.056_065_452_8e-5,
        1.127_315_223_2e-3,
        1.453_410_231_3e-2,
        0.111_634_705_923,
        0.496_239_151_814,
        1.0,
    ];
    let (limit, one) = (L::constant(3.95), L::constant(1.0));
    // NaN passes `min` and `max` as their second operand.
    let x = (-limit).max(limit.min(x));
    let square = x * x;
    (-one).max(one.min(x * horner(square, &P) / horner(square, &Q)))
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
mod every_path {
    use super::*;
    use crate::cpu::isa::every_path;
    use crate::cpu::simd::{self, Kernel};

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Exp2,
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
                Function::Exp2 => simd::map(self.1, self.2, |x: L| x.exp2()),
                Function::Tanh => simd::map(self.1, self.2, |x: L| x.tanh()),
                Function::Erf => simd::map(self.1, self.2, |x: L| x.erf()),
            }
        }
    }

    /// A dense grid, and every exponent of f32.
    fn grid(limit: f32) -> Vec<f32> {
        let count = 40_000;
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
        for isa in every_path() {
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
        largest_error(Function::Exp2, 127.9, f64::exp2, relative, 2.4e-7);
    }

    #[test]
    fn tanh_is_accurate() {
        largest_error(Function::Tanh, 30.0, f64::tanh, relative, 2.4e-7);
        largest_error(Function::Tanh, 30.0, f64::tanh, |_| 1.0, 1.2e-7);
    }

    #[test]
    fn erf_is_accurate() {
        largest_error(Function::Erf, 8.0, libm::erf, relative, 4.8e-7);
    }

    #[test]
    fn extremes_saturate_and_nan_stays() {
        let x = [f32::NEG_INFINITY, -1e30, 1e30, f32::INFINITY, 0.0, f32::NAN];
        for isa in every_path() {
            for (function, expected) in [
                (Function::Exp, [0.0, 0.0, f32::INFINITY, f32::INFINITY, 1.0]),
                (Function::Exp2, [0.0, 0.0, f32::INFINITY, f32::INFINITY, 1.0]),
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
