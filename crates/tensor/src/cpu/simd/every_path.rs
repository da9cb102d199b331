//! The vector loops and conversions on every path against plain ones.

use super::*;
use crate::cpu::isa::{Isa, every_path};
use crate::cpu::memory::Block;

struct Pairs<'a>([&'a [f32; MAX_LANES]; 2], &'a mut [u32; MAX_LANES]);
impl Kernel<f32> for Pairs<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(self) {
        let Pairs([first, second], out) = self;
        for start in (0..MAX_LANES).step_by(L::LANES) {
            // SAFETY: LANES divides MAX_LANES, the length of all three.
            unsafe {
                let halves = [first, second].map(|half| L::load_real(half.as_ptr().add(start)));
                L::store_bf16_pairs(halves[0], halves[1], out.as_mut_ptr().add(start));
            }
        }
    }
}

#[test]
fn pairs_are_rounded_as_single_elements_are() {
    // Ties to either side, one bit beyond them, overflow to infinity, subnormals, infinities and NaN.
    let first = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        1.0 + 1.0 / 256.0,
        1.0 + 3.0 / 256.0,
        1.003_906_4,
        f32::MAX,
        f32::MIN,
        1e-40,
        -1e-45,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::from_bits(0x7fff_ffff),
        f32::MIN_POSITIVE,
    ];
    let second: [f32; MAX_LANES] = std::array::from_fn(|i| first[MAX_LANES - 1 - i]);
    for isa in every_path() {
        // The one conversion that takes subnormal numbers for zeros: its documentation says why it may.
        let flushes = matches!(isa.isa(), Isa::Avx512Bf16 | Isa::Amx);
        let bits = |x: f32| {
            let x = if flushes && x.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(x) } else { x };
            u32::from(bf16::from_f32(x).to_bits())
        };
        let mut out = [0; MAX_LANES];
        run(isa, Pairs([&first, &second], &mut out));
        for (i, pair) in out.into_iter().enumerate() {
            for (half, x) in [(pair & 0xffff, first[i]), (pair >> 16, second[i])] {
                if x.is_nan() {
                    assert!(bf16::from_bits(half as u16).is_nan(), "{isa}: {x} became {half:#x}");
                } else {
                    assert_eq!(half, bits(x), "{isa}: {x}");
                }
            }
        }
    }
}

struct Written<'a, Y>(&'a [f32], [&'a mut [Y]; 3]);
impl<Y: Float<Real = f32>> Kernel<f32> for Written<'_, Y> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(self) {
        let Written(x, [streamed, mapped, in_place]) = self;
        stream::<L, Y>(x, streamed);
        fence();
        map(x, mapped, |x: L| x + x);
        map(x, in_place, |x: L| x);
        map_in_place(in_place, |y: L| y + y);
    }
}

/// Any length and any alignment, with values that rounding has to look at.
#[test]
fn streams_and_changes_in_place_equal_maps() {
    fn check<Y: Float<Real = f32>>(bits: impl Fn(Y) -> u32 + Copy) {
        let x: Vec<f32> = (0..150_u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9))).collect();
        let x: Vec<f32> = x.into_iter().map(|x| if x.is_nan() { 1e-40 } else { x }).collect();
        let double: Vec<Y> = x.iter().map(|&x| Y::from_f64(f64::from(x + x))).collect();
        let rounded: Vec<Y> = x.iter().map(|&x| Y::from_f64(f64::from(x))).collect();
        let of_rounded = rounded.iter().map(|y| y.to_f64() as f32).map(|y| Y::from_f64(f64::from(y + y)));
        let of_rounded: Vec<Y> = of_rounded.collect();
        let all = |values: &[Y]| values.iter().map(|&y| bits(y)).collect::<Vec<_>>();
        for isa in every_path() {
            for (first, len) in
                [0, 1, 2, 16, 31].into_iter().flat_map(|a| [0, 1, 31, 32, 64, 100].map(|b| (a, b)))
            {
                let mut out = [(); 3].map(|()| Block::new(1024));
                let [a, b, c] = &mut out;
                let outs = [a, b, c].map(|block| &mut block.elements_mut::<Y>()[first..first + len]);
                run(isa, Written(&x[..len], outs));
                let [streamed, mapped, in_place] =
                    out.each_ref().map(|block| all(&block.elements::<Y>()[first..first + len]));
                assert_eq!(streamed, all(&rounded[..len]), "{isa}, {first}, {len}");
                assert_eq!(mapped, all(&double[..len]), "{isa}, {first}, {len}");
                assert_eq!(in_place, all(&of_rounded[..len]), "{isa}, {first}, {len}");
            }
        }
    }
    check::<f32>(f32::to_bits);
    check::<bf16>(|y| y.to_bits().into());
}

struct Below<'a>(&'a [u16; MAX_LANES], u16, &'a mut [f32; MAX_LANES]);
impl Kernel<f32> for Below<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(self) {
        for start in (0..MAX_LANES).step_by(L::LANES) {
            // SAFETY: LANES divides MAX_LANES, the length of both.
            unsafe {
                let below = L::below_u16(self.0.as_ptr().add(start), self.1);
                L::select(below, L::constant(1.0), L::constant(0.0))
                    .store_real(self.2.as_mut_ptr().add(start));
            }
        }
    }
}

#[test]
fn draws_are_compared_without_a_sign() {
    let draws: [u16; MAX_LANES] =
        [0, 1, 2, 6553, 6554, 6555, 32766, 32767, 32768, 32769, 40000, 58981, 58982, 65533, 65534, 65535];
    for isa in every_path() {
        for threshold in [0, 1, 6554, 32767, 32768, 32769, 65535] {
            let mut out = [0.5; MAX_LANES];
            run(isa, Below(&draws, threshold, &mut out));
            let expected = draws.map(|draw| if draw < threshold { 1.0 } else { 0.0 });
            assert_eq!(out, expected, "{isa}: below {threshold}");
        }
    }
}
