//! Four f32 lanes on NEON, which every 64-bit Arm processor has.

use super::{Kernel, Lanes};
use std::arch::aarch64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Four f32.
#[derive(Clone, Copy)]
pub struct Neon(float32x4_t);

/// Runs a kernel compiled for NEON.
///
/// # Safety
/// The processor has NEON.
#[target_feature(enable = "neon")]
pub unsafe fn enter<K: Kernel<f32>>(kernel: K) -> K::Output {
    kernel.run::<Neon>()
}

macro_rules! binary {
    ($($trait:ident $method:ident $intrinsic:ident),*) => {$(
        impl $trait for Neon {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: NEON is part of the aarch64 baseline.
                Neon(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}
binary!(Add add vaddq_f32, Sub sub vsubq_f32, Mul mul vmulq_f32, Div div vdivq_f32);

impl Neg for Neon {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: NEON is part of the aarch64 baseline.
        Neon(unsafe { vnegq_f32(self.0) })
    }
}

// SAFETY of every intrinsic below: NEON is part of the aarch64 baseline; loads and stores are covered by the trait's
// contracts.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Neon {
    type Real = f32;
    type Mask = uint32x4_t;
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Neon(unsafe { vdupq_n_f32(x) })
    }
    #[inline(always)]
    unsafe fn load_real(pointer: *const f32) -> Self {
        Neon(unsafe { vld1q_f32(pointer) })
    }
    #[inline(always)]
    unsafe fn store_real(self, pointer: *mut f32) {
        unsafe { vst1q_f32(pointer, self.0) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Neon(unsafe { vfmaq_f32(c.0, self.0, b.0) })
    }
    // Comparison and selection, as `fmax` would not give its second operand for a NaN in the first.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Neon(unsafe { vbslq_f32(vcgtq_f32(self.0, other.0), self.0, other.0) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Neon(unsafe { vbslq_f32(vcltq_f32(self.0, other.0), self.0, other.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Neon(unsafe { vabsq_f32(self.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Neon(unsafe { vsqrtq_f32(self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        Neon(unsafe { vrndnq_f32(self.0) })
    }
    #[inline(always)]
    fn ldexp(self, n: Self) -> Self {
        unsafe {
            // 2^n in two factors whose exponents stay in range, so that neither over- nor underflows first.
            let n = vcvtnq_s32_f32(n.0);
            let half = vshrq_n_s32::<1>(n);
            let power = |n| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))));
            Neon(vmulq_f32(vmulq_f32(self.0, power(half)), power(vsubq_s32(n, half))))
        }
    }
    #[inline(always)]
    fn lt(self, other: Self) -> uint32x4_t {
        unsafe { vcltq_f32(self.0, other.0) }
    }
    #[inline(always)]
    fn select(mask: uint32x4_t, yes: Self, no: Self) -> Self {
        Neon(unsafe { vbslq_f32(mask, yes.0, no.0) })
    }
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        unsafe { vaddvq_f32(self.0) }
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        unsafe { vmaxvq_f32(self.0) }
    }
}
