//! Sixteen f32 lanes on AVX-512 (F, BW, DQ, VL), and the same with the conversions of AVX-512-BF16.

use super::{Kernel, Lanes, math};
use half::{bf16, f16};
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Sixteen f32. With `BF16` the processor rounds to bfloat16 itself, in one instruction of ten. It takes numbers below 2^-126
/// for zero as it does so: vectors that hold one are rounded as without `BF16`, except where the result goes to a product that
/// would take it for zero, too. Only [`enter`] and [`enter_bf16`] make code with this type run, so the processor has the
/// instructions.
#[derive(Clone, Copy)]
pub struct Avx512<const BF16: bool>(__m512);

/// Runs a kernel compiled for AVX-512.
///
/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub unsafe fn enter<K: Kernel<f32>>(kernel: K) -> K::Output {
    kernel.run::<Avx512<false>>()
}

/// Runs a kernel compiled for AVX-512 with AVX-512-BF16.
///
/// # Safety
/// As [`enter`], and the processor has AVX-512-BF16.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub unsafe fn enter_bf16<K: Kernel<f32>>(kernel: K) -> K::Output {
    kernel.run::<Avx512<true>>()
}

/// The class of `vfpclassps`.
const SUBNORMAL: i32 = 1 << 5;

/// 0, 16, 1, 17 and so on: what interleaves the halves of a vector of 16-bit elements.
static PAIRED: [u16; 32] = {
    let mut places = [0; 32];
    let mut place = 0;
    while place < 32 {
        places[place] = (place / 2 + place % 2 * 16) as u16;
        place += 1;
    }
    places
};

macro_rules! binary {
    ($($trait:ident $method:ident $intrinsic:ident),*) => {$(
        impl<const BF16: bool> $trait for Avx512<BF16> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: see the type.
                Avx512(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}
binary!(Add add _mm512_add_ps, Sub sub _mm512_sub_ps, Mul mul _mm512_mul_ps, Div div _mm512_div_ps);

impl<const BF16: bool> Neg for Avx512<BF16> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: see the type.
        Avx512(unsafe { _mm512_xor_ps(self.0, _mm512_set1_ps(-0.0)) })
    }
}

impl<const BF16: bool> Avx512<BF16> {
    /// The bits of the nearest bfloat16, ties to even, in the upper half of each lane; the lower half is anything.
    #[inline(always)]
    fn rounded_bits(self) -> __m512i {
        // SAFETY: see the type.
        unsafe {
            // Add 0x7fff and the lowest kept bit; a NaN stays a quiet NaN instead.
            let bits = _mm512_castps_si512(self.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x0040_0000))
        }
    }

    /// The nearest bfloat16 numbers.
    #[inline(always)]
    fn rounded_halves(self) -> __m256i {
        // SAFETY: see the type; vectors of the same size, in which all bits are valid.
        unsafe {
            // A number that is not subnormal does not become one by rounding.
            if BF16 && _mm512_fpclass_ps_mask::<SUBNORMAL>(self.0) == 0 {
                std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0))
            } else {
                _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(self.rounded_bits()))
            }
        }
    }
}

// SAFETY of every intrinsic below: see the type; loads and stores are covered by the trait's contracts; vectors are transmuted
// to others of the same size, in which all bits are valid.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const BF16: bool> Lanes for Avx512<BF16> {
    type Real = f32;
    type Mask = __mmask16;
    const LANES: usize = 16;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Avx512(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load_real(pointer: *const f32) -> Self {
        Avx512(unsafe { _mm512_loadu_ps(pointer) })
    }
    #[inline(always)]
    unsafe fn store_real(self, pointer: *mut f32) {
        unsafe { _mm512_storeu_ps(pointer, self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(pointer: *const bf16) -> Self {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(pointer.cast()));
            Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, pointer: *mut bf16) {
        unsafe { _mm256_storeu_si256(pointer.cast(), self.rounded_halves()) }
    }
    #[inline(always)]
    unsafe fn stream_reals([first, second]: [Self; 2], pointer: *mut f32) {
        unsafe {
            _mm512_stream_ps(pointer, first.0);
            _mm512_stream_ps(pointer.add(16), second.0);
        }
    }
    #[inline(always)]
    unsafe fn stream_bf16s([first, second]: [Self; 2], pointer: *mut bf16) {
        unsafe {
            let first = _mm512_castsi256_si512(first.rounded_halves());
            _mm512_stream_si512(pointer.cast(), _mm512_inserti64x4::<1>(first, second.rounded_halves()));
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_pairs(first: Self, second: Self, pointer: *mut u32) {
        unsafe {
            let pairs = if BF16 {
                // The halves of `first`, then those of `second`: element i and element 16 + i become a pair.
                let halves = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second.0, first.0));
                _mm512_permutexvar_epi16(_mm512_loadu_si512(PAIRED.as_ptr().cast()), halves)
            } else {
                let low = _mm512_srli_epi32::<16>(first.rounded_bits());
                let high =
                    _mm512_and_si512(second.rounded_bits(), _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
                _mm512_or_si512(low, high)
            };
            _mm512_storeu_si512(pointer.cast(), pairs);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(pointer: *const u32) -> (Self, Self) {
        unsafe {
            let pairs = _mm512_loadu_si512(pointer.cast());
            let first = _mm512_slli_epi32::<16>(pairs);
            let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
            (Avx512(_mm512_castsi512_ps(first)), Avx512(_mm512_castsi512_ps(second)))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(pointer: *const f16) -> Self {
        Avx512(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(pointer.cast())) })
    }
    #[inline(always)]
    unsafe fn store_f16(self, pointer: *mut f16) {
        unsafe { _mm256_storeu_si256(pointer.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)) }
    }
    #[inline(always)]
    unsafe fn below_u16(pointer: *const u16, threshold: u16) -> __mmask16 {
        unsafe {
            let threshold = _mm256_set1_epi16(threshold.cast_signed());
            _mm256_cmplt_epu16_mask(_mm256_loadu_si256(pointer.cast()), threshold)
        }
    }
    #[inline(always)]
    unsafe fn transpose_8x8(source: *const f32, stride: usize, out: *mut f32, out_stride: usize) {
        unsafe { super::avx2::transpose_8x8(source, stride, out, out_stride) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Avx512(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Avx512(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Avx512(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Avx512(unsafe { _mm512_abs_ps(self.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Avx512(unsafe { _mm512_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        Avx512(unsafe { _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(self.0) })
    }
    #[inline(always)]
    fn ldexp(self, n: Self) -> Self {
        Avx512(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }
    #[inline(always)]
    fn exp2(self) -> Self {
        // Nothing to clamp: what is left of an infinity is 0, and `ldexp` takes any exponent.
        let fraction = Avx512(unsafe { _mm512_reduce_ps::<_MM_FROUND_TO_NEAREST_INT>(self.0) });
        math::exp2_of_fraction(fraction).ldexp(self.round())
    }
    #[inline(always)]
    fn lt(self, other: Self) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn select(mask: __mmask16, yes: Self, no: Self) -> Self {
        Avx512(unsafe { _mm512_mask_blend_ps(mask, no.0, yes.0) })
    }
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        unsafe { _mm512_reduce_add_ps(self.0) }
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
}
