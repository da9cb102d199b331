//! Element types: [`DType`] at run time, [`Element`] at compile time.

use crate::cpu::simd::{Lanes, Real};
use half::{bf16, f16};
use std::fmt;

/// The type of a tensor's elements, a run-time value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE binary32: parameters, statistics, losses; the default.
    F32,
    /// bfloat16: the upper half of an F32.
    BF16,
    /// IEEE binary16.
    F16,
    /// IEEE binary64, the reference: scalar code, every operation, CPU only.
    F64,
    /// Token ids, positions and labels.
    U32,
    /// Integers as other systems' files have them.
    I64,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::BF16 | DType::F16 => 2,
            DType::F32 | DType::U32 => 4,
            DType::F64 | DType::I64 => 8,
        }
    }

    /// Whether gradients exist for this type.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::BF16 | DType::F16 | DType::F64)
    }

    /// The type in which sums over this type are held: F32 for the half types.
    pub const fn accumulator(self) -> DType {
        match self {
            DType::BF16 | DType::F16 => DType::F32,
            other => other,
        }
    }

    /// The name used on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            DType::F64 => "f64",
            DType::U32 => "u32",
            DType::I64 => "i64",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    /// Every bit pattern of an implementor is a valid value, which is what lets tensors reinterpret bytes.
    pub trait PlainOldData: Copy + Send + Sync + 'static {}
}

/// A Rust type that a tensor can hold. Sealed: every bit pattern of an implementor is a valid value.
pub trait Element: sealed::PlainOldData + Default + PartialEq + fmt::Debug {
    /// The run-time name of the type.
    const DTYPE: DType;
}

/// An element type with gradients; arithmetic on it happens in [`Float::Real`].
pub trait Float: Element {
    /// The type that arithmetic and accumulation use: f32, or f64 for the reference.
    type Real: Real;
    /// Converts from f64, rounding to nearest even.
    fn from_f64(x: f64) -> Self;
    /// Converts to f64, exactly.
    fn to_f64(self) -> f64;
    /// `LANES` consecutive elements as reals.
    ///
    /// # Safety
    /// `pointer` is valid for reads of `L::LANES` elements.
    unsafe fn load_lanes<L: Lanes<Real = Self::Real>>(pointer: *const Self) -> L;
    /// Writes `LANES` consecutive elements, rounding to nearest even.
    ///
    /// # Safety
    /// `pointer` is valid for writes of `L::LANES` elements.
    unsafe fn store_lanes<L: Lanes<Real = Self::Real>>(lanes: L, pointer: *mut Self);

    /// Writes two vectors one after the other, past the caches if the instruction set can. [`fence`](crate::cpu::simd::fence)
    /// has to follow on this thread before another one reads them.
    ///
    /// # Safety
    /// `pointer` is valid for writes of `2 * L::LANES` elements, and aligned to their size, or to 64 bytes where that is less.
    #[inline(always)]
    unsafe fn stream_lanes<L: Lanes<Real = Self::Real>>(vectors: [L; 2], pointer: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe {
            Self::store_lanes(vectors[0], pointer);
            Self::store_lanes(vectors[1], pointer.add(L::LANES));
        }
    }
}

macro_rules! element {
    ($($type:ty => $dtype:ident),*) => {$(
        impl sealed::PlainOldData for $type {}
        impl Element for $type { const DTYPE: DType = DType::$dtype; }
    )*};
}
element!(f32 => F32, bf16 => BF16, f16 => F16, f64 => F64, u32 => U32, i64 => I64);

macro_rules! float {
    ($($type:ty, $real:ty, $from:expr, $to:expr, $load:ident, $store:ident $(, $stream:ident)?;)*) => {$(
        impl Float for $type {
            type Real = $real;
            #[inline(always)]
            fn from_f64(x: f64) -> Self { $from(x) }
            #[inline(always)]
            fn to_f64(self) -> f64 { $to(self) }
            #[inline(always)]
            unsafe fn load_lanes<L: Lanes<Real = $real>>(pointer: *const Self) -> L {
                // SAFETY: the caller's promise.
                unsafe { L::$load(pointer) }
            }
            #[inline(always)]
            unsafe fn store_lanes<L: Lanes<Real = $real>>(lanes: L, pointer: *mut Self) {
                // SAFETY: the caller's promise.
                unsafe { lanes.$store(pointer) }
            }
            $(
                #[inline(always)]
                unsafe fn stream_lanes<L: Lanes<Real = $real>>(vectors: [L; 2], pointer: *mut Self) {
                    // SAFETY: the caller's promise.
                    unsafe { L::$stream(vectors, pointer) }
                }
            )?
        }
    )*};
}
float! {
    f32, f32, |x| x as f32, f64::from, load_real, store_real, stream_reals;
    f64, f64, |x| x, |x| x, load_real, store_real;
    bf16, f32, |x| bf16::from_f32(round_to_odd(x)), bf16::to_f64, load_bf16, store_bf16, stream_bf16s;
    f16, f32, |x| f16::from_f32(round_to_odd(x)), f16::to_f64, load_f16, store_f16;
}

/// The F32 that keeps what rounding an F64 on to a half type has to know: an inexact result is cut, and its last bit set.
///
/// Rounding twice to nearest would take a number just beside a tie for the tie; `half`'s own conversions of an F64 look
/// at its upper 32 bits only, and do that too. Source: Boldo and Melquiond, "Emulation of a FMA and correctly rounded
/// sums: proved algorithms using rounding to odd", 2008.
#[inline(always)]
fn round_to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    let (size, exact) = (f64::from(nearest).abs(), x.abs());
    if size > exact {
        f32::from_bits((nearest.to_bits() - 1) | 1)
    } else if size < exact {
        f32::from_bits(nearest.to_bits() | 1)
    } else {
        nearest
    }
}

/// Runs `$body` with `$type` bound to the Rust type of a float [`DType`]; other dtypes return `DTypeMismatch`.
///
/// ```ignore
/// for_float!("gelu", x.dtype(), E => gelu_forward::<E>(x))
/// ```
#[macro_export]
macro_rules! for_float {
    ($op:expr, $dtype:expr, $type:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $type = f32;
                $body
            }
            $crate::DType::BF16 => {
                type $type = ::half::bf16;
                $body
            }
            $crate::DType::F16 => {
                type $type = ::half::f16;
                $body
            }
            $crate::DType::F64 => {
                type $type = f64;
                $body
            }
            got => Err($crate::Error::DTypeMismatch { op: $op, expected: "a float type".into(), got }),
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    /// The nearest of all finite numbers of a half type, ties to the even one, by trying them all.
    fn nearest(values: &[(f64, u16)], x: f64) -> u16 {
        let (_, bits) = values.iter().fold((f64::INFINITY, 0), |(least, best), &(value, bits)| {
            let distance = (value - x).abs();
            if distance < least || (distance == least && bits & 1 == 0) {
                (distance, bits)
            } else {
                (least, best)
            }
        });
        bits
    }

    fn check<F: Float>(bits: impl Fn(F) -> u16, value: impl Fn(u16) -> F) {
        let finite: Vec<(f64, u16)> = (0..0x8000)
            .map(|bits| (value(bits).to_f64(), bits))
            .filter(|(value, _)| value.is_finite())
            .collect();
        let beside = |x: f64, ulps: i64| f64::from_bits((x.to_bits() as i64 + ulps) as u64);
        // Every 97th number, the subnormal ones among them: itself, the tie above it, and an f64's last bit on each side.
        for pair in finite.windows(2).step_by(97) {
            let ((low, _), (high, _)) = (pair[0], pair[1]);
            let tie = low + (high - low) / 2.0;
            for x in [low, beside(high, -1), beside(tie, -1), tie, beside(tie, 1)] {
                let expected = nearest(&finite, x);
                assert_eq!(bits(F::from_f64(x)), expected, "{x:e}");
                assert_eq!(bits(F::from_f64(-x)), expected | 0x8000, "-{x:e}");
            }
        }
        let largest = finite.last().unwrap();
        let half_step = (largest.0 - finite[finite.len() - 2].0) / 2.0;
        assert_eq!(bits(F::from_f64(beside(largest.0 + half_step, -1))), largest.1);
        assert_eq!(F::from_f64(largest.0 + half_step).to_f64(), f64::INFINITY);
        assert_eq!(F::from_f64(f64::MAX).to_f64(), f64::INFINITY);
        assert_eq!(bits(F::from_f64(f64::MIN_POSITIVE)), 0);
        assert!(F::from_f64(f64::NAN).to_f64().is_nan());
    }

    #[test]
    fn an_f64_becomes_the_nearest_half() {
        check(bf16::to_bits, bf16::from_bits);
        check(f16::to_bits, f16::from_bits);
    }
}
