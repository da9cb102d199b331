//! Eight f32 lanes on AVX2 with FMA and F16C.

use super::{Kernel, Lanes};
use half::{bf16, f16};
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Eight f32. Only [`enter`] makes code with this type run, so the processor has the instructions.
#[derive(Clone, Copy)]
pub struct Avx2(__m256);

/// Runs a kernel compiled for AVX2.
///
/// # Safety
/// The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn enter<K: Kernel<f32>>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}

macro_rules! binary {
    ($($trait:ident $method:ident $intrinsic:ident),*) => {$(
        impl $trait for Avx2 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: see the type.
                Avx2(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}
binary!(Add add _mm256_add_ps, Sub sub _mm256_sub_ps, Mul mul _mm256_mul_ps, Div div _mm256_div_ps);

impl Neg for Avx2 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: see the type.
        Avx2(unsafe { _mm256_xor_ps(self.0, _mm256_set1_ps(-0.0)) })
    }
}

impl Avx2 {
    /// The bits of the nearest bfloat16, ties to even, in the upper half of each lane; the lower half is anything.
    #[inline(always)]
    fn rounded_bits(self) -> __m256i {
        // SAFETY: see the type.
        unsafe {
            // Add 0x7fff and the lowest kept bit; a NaN stays a quiet NaN instead.
            let bits = _mm256_castps_si256(self.0);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            _mm256_blendv_epi8(rounded, quiet, nan)
        }
    }
}

// SAFETY of every intrinsic below: see the type; loads and stores are covered by the trait's contracts.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx2 {
    type Real = f32;
    type Mask = __m256;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Avx2(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load_real(pointer: *const f32) -> Self {
        Avx2(unsafe { _mm256_loadu_ps(pointer) })
    }
    #[inline(always)]
    unsafe fn store_real(self, pointer: *mut f32) {
        unsafe { _mm256_storeu_ps(pointer, self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(pointer: *const bf16) -> Self {
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(pointer.cast()));
            Avx2(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide)))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, pointer: *mut bf16) {
        unsafe {
            // The packing takes lanes of 128 bits, each twice; the middle quarters change places.
            let words = _mm256_srli_epi32::<16>(self.rounded_bits());
            let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(words, words));
            _mm_storeu_si128(pointer.cast(), _mm256_castsi256_si128(halves));
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_pairs(first: Self, second: Self, pointer: *mut u32) {
        unsafe {
            let low = _mm256_srli_epi32::<16>(first.rounded_bits());
            // The lower half of each word from `low`, the upper from `second`.
            _mm256_storeu_si256(
                pointer.cast(),
                _mm256_blend_epi16::<0b1010_1010>(low, second.rounded_bits()),
            );
        }
    }
    #[inline(always)]
    unsafe fn load_f16(pointer: *const f16) -> Self {
        Avx2(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(pointer.cast())) })
    }
    #[inline(always)]
    unsafe fn store_f16(self, pointer: *mut f16) {
        unsafe { _mm_storeu_si128(pointer.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)) }
    }
    #[inline(always)]
    unsafe fn below_u16(pointer: *const u16, threshold: u16) -> __m256 {
        unsafe {
            let draws = _mm256_cvtepu16_epi32(_mm_loadu_si128(pointer.cast()));
            _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(threshold.into()), draws))
        }
    }
    #[inline(always)]
    unsafe fn transpose_8x8(source: *const f32, stride: usize, out: *mut f32, out_stride: usize) {
        unsafe { transpose_8x8(source, stride, out, out_stride) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Avx2(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Avx2(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Avx2(unsafe { _mm256_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Avx2(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Avx2(unsafe { _mm256_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        Avx2(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn ldexp(self, n: Self) -> Self {
        unsafe {
            // 2^n in two factors whose exponents stay in range, so that neither over- nor underflows first.
            let n = _mm256_cvtps_epi32(n.0);
            let half = _mm256_srai_epi32::<1>(n);
            let power =
                |n| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))));
            Avx2(_mm256_mul_ps(_mm256_mul_ps(self.0, power(half)), power(_mm256_sub_epi32(n, half))))
        }
    }
    #[inline(always)]
    fn lt(self, other: Self) -> __m256 {
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn select(mask: __m256, yes: Self, no: Self) -> Self {
        Avx2(unsafe { _mm256_blendv_ps(no.0, yes.0, mask) })
    }
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(pointer: *const u32) -> (Self, Self) {
        unsafe {
            let pairs = _mm256_loadu_si256(pointer.cast());
            let first = _mm256_slli_epi32::<16>(pairs);
            let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32.cast_signed()));
            (Avx2(_mm256_castsi256_ps(first)), Avx2(_mm256_castsi256_ps(second)))
        }
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}

/// Copies the 8 x 8 block whose columns are contiguous and `stride` apart into rows `out_stride` apart.
///
/// # Safety
/// The processor has AVX2; all elements of both blocks are valid, those of `out` exclusively.
#[target_feature(enable = "avx2")]
pub(in crate::cpu) unsafe fn transpose_8x8(
    source: *const f32,
    stride: usize,
    out: *mut f32,
    out_stride: usize,
) {
    // Halves of two columns side by side: column i with column i + 4, elements 0..4 and then 4..8.
    let mut halves = [[_mm256_setzero_ps(); 4]; 2];
    for (part, halves) in halves.iter_mut().enumerate() {
        for (i, half) in halves.iter_mut().enumerate() {
            // SAFETY: four elements of columns i and i + 4.
            *half = unsafe {
                let low = _mm_loadu_ps(source.add(i * stride + part * 4));
                let high = _mm_loadu_ps(source.add((i + 4) * stride + part * 4));
                _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
            };
        }
    }
    // What is left is to transpose the four 4 x 4 blocks, two at a time.
    for (part, [a, b, c, d]) in halves.into_iter().enumerate() {
        let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        let rows = [
            _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low),
            _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
        ];
        for (i, row) in rows.into_iter().enumerate() {
            // SAFETY: row `part * 4 + i` of the output block.
            unsafe { _mm256_storeu_ps(out.add((part * 4 + i) * out_stride), row) };
        }
    }
}
