//! Roundings that Rust's operators do not have, and conversions between all types (`cvt`).

use super::alu::{Lanewise, unary};
use crate::ptx::Type;
use half::{bf16, f16};

/// `.rn`, `.rz`, `.rm`, `.rp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Rounding {
    Nearest,
    Zero,
    Down,
    Up,
}

/// `.ftz`: subnormal numbers become zeros of their sign.
#[inline(always)]
pub fn flush(v: f32) -> f32 {
    if v.is_subnormal() { 0.0f32.copysign(v) } else { v }
}

/// `.sat`: into [0, 1], NaN to 0.
#[inline(always)]
pub fn to_unit(v: f32) -> f32 {
    if v.is_nan() { 0.0 } else { v.clamp(0.0, 1.0) }
}

/// `sum + error` rounded to f32, where `error` is smaller than half an ulp of the f64 `sum`.
pub fn round_to_f32(sum: f64, error: f64, rounding: Rounding) -> f32 {
    let nearest = sum as f32;
    // How the rounded value differs from the exact one; the f64 difference is exact.
    let difference = (nearest as f64 - sum) - error;
    let down = match rounding {
        Rounding::Nearest => return nearest,
        Rounding::Zero => sum > 0.0,
        Rounding::Down => true,
        Rounding::Up => false,
    };
    match difference {
        d if d > 0.0 && down => nearest.next_down(),
        d if d < 0.0 && !down => nearest.next_up(),
        _ => nearest,
    }
}

/// `a * b + c` with one rounding. The product of two f32 is exact in f64; the sum's error comes from Knuth's TwoSum.
pub fn fma_rounded(a: f32, b: f32, c: f32, rounding: Rounding) -> f32 {
    let (product, c) = (a as f64 * b as f64, c as f64);
    let sum = product + c;
    let part = sum - product;
    let error = (product - (sum - part)) + (c - part);
    round_to_f32(sum, if error.is_finite() { error } else { 0.0 }, rounding)
}

/// How a float becomes an integer: `.rni`, `.rzi`, `.rmi`, `.rpi`.
fn to_whole(rounding: &str) -> Option<fn(f64) -> f64> {
    Some(match rounding {
        "rni" => f64::round_ties_even,
        "rzi" => f64::trunc,
        "rmi" => f64::floor,
        "rpi" => f64::ceil,
        _ => return None,
    })
}

/// `cvt.ROUNDING.sat.TO.FROM` for one value. `rounding` is empty where the instruction names none.
pub fn convert(to: Type, from: Type, rounding: &str, saturate: bool) -> Option<Lanewise> {
    use Type::*;
    macro_rules! from_float {
        ($s:ty, $up:expr) => {
            match (to, rounding) {
                (F64, "" | "rn") if !saturate => unary!($s => f64, |a| ($up)(a)),
                (F32, "" | "rn") if saturate => unary!($s => f32, |a| to_unit(($up)(a) as f32)),
                (F32, "" | "rn") => unary!($s => f32, |a| ($up)(a) as f32),
                (F32, "rz") => unary!($s => f32, |a| round_to_f32(($up)(a), 0.0, Rounding::Zero)),
                (F32, "rm") => unary!($s => f32, |a| round_to_f32(($up)(a), 0.0, Rounding::Down)),
                (F32, "rp") => unary!($s => f32, |a| round_to_f32(($up)(a), 0.0, Rounding::Up)),
                (F16, "" | "rn") if !saturate => unary!($s => f16, |a| f16::from_f64(($up)(a))),
                (BF16, "" | "rn") if !saturate => unary!($s => bf16, |a| bf16::from_f64(($up)(a))),
                // Truncation: the bits below bfloat16's are dropped.
                (BF16, "rz") if from == F32 => unary!($s => bf16, |a| bf16::from_bits(((($up)(a) as f32).to_bits() >> 16) as u16)),
                (TF32, "rna") => unary!($s => u32, |a| (($up)(a) as f32).to_bits().wrapping_add(0x1000) & !0x1FFF),
                (F32 | F64, _) if to == from => {
                    let _ = to_whole(rounding)?;
                    match rounding {
                        "rni" => unary!($s => $s, |a| ($up)(a).round_ties_even() as $s),
                        "rzi" => unary!($s => $s, |a| ($up)(a).trunc() as $s),
                        "rmi" => unary!($s => $s, |a| ($up)(a).floor() as $s),
                        _ => unary!($s => $s, |a| ($up)(a).ceil() as $s),
                    }
                }
                _ => from_float!(@integer $s, $up, [U8 u8, S8 i8, U16 u16, S16 i16, U32 u32, S32 i32, U64 u64, S64 i64]),
            }
        };
        (@integer $s:ty, $up:expr, [$($name:ident $t:ty),*]) => {
            // Rust's `as` saturates and sends NaN to 0; so does `cvt` to 32 bits.
            match (to, rounding) {
                $(
                    ($name, "rni") => unary!($s => $t, |a| ($up)(a).round_ties_even() as $t),
                    ($name, "rzi") => unary!($s => $t, |a| ($up)(a).trunc() as $t),
                    ($name, "rmi") => unary!($s => $t, |a| ($up)(a).floor() as $t),
                    ($name, "rpi") => unary!($s => $t, |a| ($up)(a).ceil() as $t),
                )*
                _ => return None,
            }
        };
    }
    macro_rules! from_integer {
        ($s:ty) => {
            match (to, rounding) {
                (F32, "rn") => unary!($s => f32, |a| a as f32),
                (F64, "rn") => unary!($s => f64, |a| a as f64),
                (F16, "rn") => unary!($s => f16, |a| f16::from_f64(a as f64)),
                (BF16, "rn") => unary!($s => bf16, |a| bf16::from_f64(a as f64)),
                (_, "") if saturate => match to {
                    U8 => unary!($s => u8, |a| (a as i128).clamp(0, u8::MAX as i128) as u8),
                    S8 => unary!($s => i8, |a| (a as i128).clamp(i8::MIN as i128, i8::MAX as i128) as i8),
                    U16 => unary!($s => u16, |a| (a as i128).clamp(0, u16::MAX as i128) as u16),
                    S16 => unary!($s => i16, |a| (a as i128).clamp(i16::MIN as i128, i16::MAX as i128) as i16),
                    U32 => unary!($s => u32, |a| (a as i128).clamp(0, u32::MAX as i128) as u32),
                    S32 => unary!($s => i32, |a| (a as i128).clamp(i32::MIN as i128, i32::MAX as i128) as i32),
                    _ => return None,
                },
                // Widening keeps the sign of the source; a narrow result fills its register likewise.
                (U8, "") => unary!($s => u8, |a| a as u8),
                (S8, "") => unary!($s => i32, |a| a as i8 as i32),
                (U16, "") => unary!($s => u16, |a| a as u16),
                (S16, "") => unary!($s => i32, |a| a as i16 as i32),
                (U32, "") => unary!($s => u32, |a| a as u32),
                (S32, "") => unary!($s => i32, |a| a as i32),
                (U64, "") => unary!($s => u64, |a| a as u64),
                (S64, "") => unary!($s => i64, |a| a as i64),
                _ => return None,
            }
        };
    }
    Some(match from {
        F64 => from_float!(f64, |a: f64| a),
        F32 => from_float!(f32, |a: f32| a as f64),
        F16 => return convert_half(to, rounding, saturate, true),
        BF16 => return convert_half(to, rounding, saturate, false),
        U8 => from_integer!(u8),
        U16 => from_integer!(u16),
        U32 => from_integer!(u32),
        U64 => from_integer!(u64),
        S8 => from_integer!(i8),
        S16 => from_integer!(i16),
        S32 => from_integer!(i32),
        S64 => from_integer!(i64),
        _ => return None,
    })
}

fn convert_half(to: Type, rounding: &str, saturate: bool, is_f16: bool) -> Option<Lanewise> {
    macro_rules! half_to {
        ($($t:ty, |$a:ident| $body:expr);*) => {{
            $( if is_f16 { unary!(f16 => $t, |v| { let $a = v.to_f64(); $body }) } else { unary!(bf16 => $t, |v| { let $a = v.to_f64(); $body }) } )*
        }};
    }
    if saturate {
        return None;
    }
    Some(match (to, rounding) {
        (Type::F32, "" | "rn") => half_to!(f32, |a| a as f32),
        (Type::F64, "" | "rn") => half_to!(f64, |a| a),
        (Type::F16, "" | "rn") => half_to!(f16, |a| f16::from_f64(a)),
        (Type::BF16, "" | "rn") => half_to!(bf16, |a| bf16::from_f64(a)),
        (Type::S32, "rni") => half_to!(i32, |a| a.round_ties_even() as i32),
        (Type::S32, "rzi") => half_to!(i32, |a| a.trunc() as i32),
        (Type::S32, "rmi") => half_to!(i32, |a| a.floor() as i32),
        (Type::S32, "rpi") => half_to!(i32, |a| a.ceil() as i32),
        (Type::U32, "rzi") => half_to!(u32, |a| a.trunc() as u32),
        (Type::S64, "rzi") => half_to!(i64, |a| a.trunc() as i64),
        _ => return None,
    })
}

/// `cvt.rn.f16x2.f32 d, a, b` and the bfloat16 form: `a` is the upper half.
pub fn convert_pair(to: Type, relu: bool) -> Option<Lanewise> {
    macro_rules! pair {
        ($t:ty, $up:expr) => {
            Lanewise::Binary(|high, low| {
                let mut out = [0; 32];
                for lane in 0..32 {
                    let half = |bits: u64| {
                        let value = f32::from_bits(bits as u32);
                        <$t>::from_f32(if $up && value <= 0.0 { 0.0 } else { value }).to_bits() as u64
                    };
                    out[lane] = half(high[lane]) << 16 | half(low[lane]);
                }
                out
            })
        };
    }
    Some(match (to, relu) {
        (Type::F16x2, false) => pair!(f16, false),
        (Type::BF16x2, false) => pair!(bf16, false),
        (Type::F16x2, true) => pair!(f16, true),
        (Type::BF16x2, true) => pair!(bf16, true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directed_rounding_brackets_the_exact_sum() {
        // 1 + 2^-30 lies between 1 and the next f32.
        let tiny = 2.0f32.powi(-30);
        assert_eq!(fma_rounded(1.0, 1.0, tiny, Rounding::Nearest), 1.0);
        assert_eq!(fma_rounded(1.0, 1.0, tiny, Rounding::Down), 1.0);
        assert_eq!(fma_rounded(1.0, 1.0, tiny, Rounding::Zero), 1.0);
        assert_eq!(fma_rounded(1.0, 1.0, tiny, Rounding::Up), 1.0f32.next_up());
        assert_eq!(fma_rounded(-1.0, 1.0, -tiny, Rounding::Down), -1.0f32.next_up());
        // An error below f64's precision still decides.
        assert_eq!(fma_rounded(1.0, 1.0, -f32::MIN_POSITIVE, Rounding::Down), 1.0f32.next_down());
        assert_eq!(fma_rounded(1.0, 1.0, -f32::MIN_POSITIVE, Rounding::Up), 1.0);
    }
}
