//! Arithmetic, one operation over 32 lanes at a time: the table from opcode, type and modifiers to a function.
//!
//! A register holds the bits of its value in a `u64`; an operation reads only the bits of its type's width. The loops
//! are plain, so that the compiler vectorises them. `approx` functions are computed exactly: a GPU's differ by a few ulp.

use super::float::{Rounding, flush, fma_rounded, round_to_f32, to_unit};
use crate::ptx::Type;
use half::{bf16, f16};

/// One register of a warp.
pub type Lanes = [u64; 32];

/// A function of the operands of each lane by itself.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Lanewise {
    Unary(fn(&Lanes) -> Lanes),
    Binary(fn(&Lanes, &Lanes) -> Lanes),
    Ternary(fn(&Lanes, &Lanes, &Lanes) -> Lanes),
    Quaternary(fn(&Lanes, &Lanes, &Lanes, &Lanes) -> Lanes),
}

impl Lanewise {
    /// How many operands it reads.
    pub fn arity(self) -> usize {
        match self {
            Lanewise::Unary(_) => 1,
            Lanewise::Binary(_) => 2,
            Lanewise::Ternary(_) => 3,
            Lanewise::Quaternary(_) => 4,
        }
    }
}

/// A value that a register can hold.
pub trait Scalar: Copy {
    /// The value of these bits.
    fn from_bits64(bits: u64) -> Self;
    /// Its bits, zero-extended.
    fn to_bits64(self) -> u64;
}

macro_rules! scalar {
    ($($ty:ty: $from:expr, $to:expr;)*) => { $(
        impl Scalar for $ty {
            #[inline(always)]
            fn from_bits64(bits: u64) -> Self { ($from)(bits) }
            #[inline(always)]
            fn to_bits64(self) -> u64 { ($to)(self) }
        }
    )* };
}
scalar! {
    u8: |b| b as u8, |v| v as u64;
    u16: |b| b as u16, |v| v as u64;
    u32: |b| b as u32, |v| v as u64;
    u64: |b| b, |v| v;
    i8: |b| b as i8, |v| v as u8 as u64;
    i16: |b| b as i16, |v| v as u16 as u64;
    i32: |b| b as i32, |v| v as u32 as u64;
    i64: |b| b as i64, |v| v as u64;
    f32: |b| f32::from_bits(b as u32), |v: f32| v.to_bits() as u64;
    f64: f64::from_bits, f64::to_bits;
    f16: |b| f16::from_bits(b as u16), |v: f16| v.to_bits() as u64;
    bf16: |b| bf16::from_bits(b as u16), |v: bf16| v.to_bits() as u64;
    bool: |b| b != 0, |v| v as u64;
}

/// `unary!(T -> U, |a| ...)`: a [`Lanewise::Unary`] on typed values.
macro_rules! unary {
    ($t:ty => $u:ty, |$a:ident| $body:expr) => {
        $crate::machine::alu::Lanewise::Unary(|x| {
            let mut out = [0; 32];
            for lane in 0..32 {
                let $a = <$t as $crate::machine::alu::Scalar>::from_bits64(x[lane]);
                let value: $u = $body;
                out[lane] = $crate::machine::alu::Scalar::to_bits64(value);
            }
            out
        })
    };
}
macro_rules! binary {
    ($t:ty, $s:ty => $u:ty, |$a:ident, $b:ident| $body:expr) => {
        Lanewise::Binary(|x, y| {
            let mut out = [0; 32];
            for lane in 0..32 {
                let ($a, $b) = (<$t>::from_bits64(x[lane]), <$s>::from_bits64(y[lane]));
                let value: $u = $body;
                out[lane] = value.to_bits64();
            }
            out
        })
    };
}
macro_rules! ternary {
    ($t:ty, $s:ty, $r:ty => $u:ty, |$a:ident, $b:ident, $c:ident| $body:expr) => {
        Lanewise::Ternary(|x, y, z| {
            let mut out = [0; 32];
            for lane in 0..32 {
                let ($a, $b, $c) =
                    (<$t>::from_bits64(x[lane]), <$s>::from_bits64(y[lane]), <$r>::from_bits64(z[lane]));
                let value: $u = $body;
                out[lane] = value.to_bits64();
            }
            out
        })
    };
}
pub(crate) use unary;

/// Writes `$body` once for the Rust type that stands for an integer type.
macro_rules! for_integer {
    ($ty:expr, $t:ident => $body:expr) => {
        match $ty {
            Type::U16 | Type::B16 => {
                type $t = u16;
                $body
            }
            Type::S16 => {
                type $t = i16;
                $body
            }
            Type::U32 | Type::B32 => {
                type $t = u32;
                $body
            }
            Type::S32 => {
                type $t = i32;
                $body
            }
            Type::U64 | Type::B64 => {
                type $t = u64;
                $body
            }
            Type::S64 => {
                type $t = i64;
                $body
            }
            _ => return None,
        }
    };
}
macro_rules! for_bits {
    ($ty:expr, $t:ident => $body:expr) => {
        match $ty.size() {
            _ if $ty == Type::Pred => {
                type $t = bool;
                $body
            }
            1 => {
                type $t = u8;
                $body
            }
            2 => {
                type $t = u16;
                $body
            }
            4 => {
                type $t = u32;
                $body
            }
            _ => {
                type $t = u64;
                $body
            }
        }
    };
}

/// `add`, `sub`, `mul.lo`, `mul.hi`, `div`, `rem`, `min`, `max` of integers. Division by zero gives all ones.
pub fn integer_binary(name: &str, ty: Type) -> Option<Lanewise> {
    Some(for_integer!(ty, T => match name {
        "add" => binary!(T, T => T, |a, b| a.wrapping_add(b)),
        "sub" => binary!(T, T => T, |a, b| a.wrapping_sub(b)),
        "mul.lo" => binary!(T, T => T, |a, b| a.wrapping_mul(b)),
        "mul.hi" => binary!(T, T => T, |a, b| ((a as i128).wrapping_mul(b as i128) >> T::BITS) as T),
        "div" => binary!(T, T => T, |a, b| if b == 0 { !0 } else { a.wrapping_div(b) }),
        "rem" => binary!(T, T => T, |a, b| if b == 0 { !0 } else { a.wrapping_rem(b) }),
        "min" => binary!(T, T => T, |a, b| a.min(b)),
        "max" => binary!(T, T => T, |a, b| a.max(b)),
        _ => return None,
    }))
}

/// `mad.lo`, `mad.hi`, `sad` of integers.
pub fn integer_ternary(name: &str, ty: Type) -> Option<Lanewise> {
    Some(for_integer!(ty, T => match name {
        "mad.lo" => ternary!(T, T, T => T, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        "mad.hi" => ternary!(T, T, T => T, |a, b, c| {
            (((a as i128).wrapping_mul(b as i128) >> T::BITS) as T).wrapping_add(c)
        }),
        "sad" => ternary!(T, T, T => T, |a, b, c| c.wrapping_add(a.abs_diff(b) as T)),
        _ => return None,
    }))
}

/// `mul.wide` and `mad.wide`: the whole product.
pub fn wide(name: &str, ty: Type) -> Option<Lanewise> {
    Some(match (name, ty) {
        ("mul.wide", Type::U16) => binary!(u16, u16 => u32, |a, b| a as u32 * b as u32),
        ("mul.wide", Type::S16) => binary!(i16, i16 => i32, |a, b| a as i32 * b as i32),
        ("mul.wide", Type::U32) => binary!(u32, u32 => u64, |a, b| a as u64 * b as u64),
        ("mul.wide", Type::S32) => binary!(i32, i32 => i64, |a, b| a as i64 * b as i64),
        ("mad.wide", Type::U16) => {
            ternary!(u16, u16, u32 => u32, |a, b, c| (a as u32 * b as u32).wrapping_add(c))
        }
        ("mad.wide", Type::S16) => {
            ternary!(i16, i16, i32 => i32, |a, b, c| (a as i32 * b as i32).wrapping_add(c))
        }
        ("mad.wide", Type::U32) => {
            ternary!(u32, u32, u64 => u64, |a, b, c| (a as u64 * b as u64).wrapping_add(c))
        }
        ("mad.wide", Type::S32) => {
            ternary!(i32, i32, i64 => i64, |a, b, c| (a as i64 * b as i64).wrapping_add(c))
        }
        _ => return None,
    })
}

/// `neg`, `abs` of integers; `not`, `cnot`, `popc`, `clz`, `brev`, `bfind`, and plain copies.
pub fn integer_unary(name: &str, ty: Type) -> Option<Lanewise> {
    Some(match (name, ty) {
        ("neg", _) => for_integer!(ty, T => unary!(T => T, |a| (0 as T).wrapping_sub(a))),
        ("abs", Type::S16) => unary!(i16 => i16, |a| a.wrapping_abs()),
        ("abs", Type::S32) => unary!(i32 => i32, |a| a.wrapping_abs()),
        ("abs", Type::S64) => unary!(i64 => i64, |a| a.wrapping_abs()),
        ("not", _) => for_bits!(ty, T => unary!(T => T, |a| !a)),
        ("cnot", Type::B32) => unary!(u32 => u32, |a| (a == 0) as u32),
        ("mov", _) => for_bits!(ty, T => unary!(T => T, |a| a)),
        ("popc", Type::B32) => unary!(u32 => u32, |a| a.count_ones()),
        ("popc", Type::B64) => unary!(u64 => u32, |a| a.count_ones()),
        ("clz", Type::B32) => unary!(u32 => u32, |a| a.leading_zeros()),
        ("clz", Type::B64) => unary!(u64 => u32, |a| a.leading_zeros()),
        ("brev", Type::B32) => unary!(u32 => u32, |a| a.reverse_bits()),
        ("brev", Type::B64) => unary!(u64 => u64, |a| a.reverse_bits()),
        // The highest bit that is not a sign bit; all ones when there is none. `shiftamt`: the shift that brings it up.
        ("bfind", Type::U32) => unary!(u32 => u32, |a| 31u32.wrapping_sub(a.leading_zeros())),
        ("bfind", Type::S32) => unary!(i32 => u32, |a| 31u32.wrapping_sub((a ^ (a >> 31)).leading_zeros())),
        ("bfind", Type::U64) => unary!(u64 => u32, |a| 63u32.wrapping_sub(a.leading_zeros())),
        ("bfind.shiftamt", Type::U32) => unary!(u32 => u32, |a| if a == 0 { !0 } else { a.leading_zeros() }),
        ("bfind.shiftamt", Type::U64) => unary!(u64 => u32, |a| if a == 0 { !0 } else { a.leading_zeros() }),
        _ => return None,
    })
}

/// `and`, `or`, `xor`, `shl`, `shr`; shifts past the width give zero, or the sign.
pub fn bitwise(name: &str, ty: Type) -> Option<Lanewise> {
    Some(match name {
        "and" => for_bits!(ty, T => binary!(T, T => T, |a, b| a & b)),
        "or" => for_bits!(ty, T => binary!(T, T => T, |a, b| a | b)),
        "xor" => for_bits!(ty, T => binary!(T, T => T, |a, b| a ^ b)),
        "shl" => for_integer!(ty, T => binary!(T, u32 => T, |a, b| a.checked_shl(b).unwrap_or(0))),
        "shr" => for_integer!(ty, T => {
            binary!(T, u32 => T, |a, b| if b < T::BITS { a >> b } else { (a >> (T::BITS - 1)) >> 1 })
        }),
        _ => return None,
    })
}

/// `bfe`, `bfi`, `prmt`, `lop3`, `shf.l|r.wrap|clamp`, `dp4a`, `selp`.
pub fn fields(name: &str, ty: Type) -> Option<Lanewise> {
    fn field(bits: u32) -> u64 {
        if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
    }
    Some(match (name, ty) {
        ("bfe", Type::U32 | Type::U64) => for_integer!(ty, T => ternary!(T, u8, u8 => T, |a, at, n| {
            if at as u32 >= T::BITS { 0 } else { (a >> at) & field(n as u32) as T }
        })),
        ("bfe", Type::S32 | Type::S64) => for_integer!(ty, T => ternary!(T, u8, u8 => T, |a, at, n| {
            let (at, n) = (at as u32, n as u32);
            let top = (at + n).min(T::BITS);
            if n == 0 {
                0
            } else if at >= T::BITS {
                a >> (T::BITS - 1)
            } else {
                (a << (T::BITS - top)) >> (T::BITS - top + at)
            }
        })),
        ("bfi", Type::B32 | Type::B64) => {
            let wide = ty == Type::B64;
            macro_rules! insert {
                ($t:ty) => {
                    Lanewise::Quaternary(|a, b, at, n| {
                        let mut out = [0; 32];
                        for lane in 0..32 {
                            let (at, n) = (at[lane] as u8 as u32, n[lane] as u8 as u32);
                            let mask = (field(n) as $t).checked_shl(at).unwrap_or(0);
                            let shifted = (a[lane] as $t).checked_shl(at).unwrap_or(0);
                            out[lane] = ((b[lane] as $t & !mask) | (shifted & mask)) as u64;
                        }
                        out
                    })
                };
            }
            if wide { insert!(u64) } else { insert!(u32) }
        }
        ("prmt", Type::B32) => ternary!(u32, u32, u32 => u32, |a, b, selector| {
            let bytes = (b as u64) << 32 | a as u64;
            let mut value = 0u32;
            for k in 0..4 {
                let code = selector >> (4 * k);
                let byte = (bytes >> (8 * (code & 7))) as u8;
                // Bit 3 of the code: the byte's sign, eight times.
                let byte = if code & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
                value |= (byte as u32) << (8 * k);
            }
            value
        }),
        ("lop3", Type::B32) => Lanewise::Quaternary(|a, b, c, table| {
            let mut out = [0; 32];
            for lane in 0..32 {
                let (a, b, c) = (a[lane] as u32, b[lane] as u32, c[lane] as u32);
                for row in 0..8 {
                    if table[lane] >> row & 1 == 1 {
                        let pick = |x: u32, bit: u32| if row >> bit & 1 == 1 { x } else { !x };
                        out[lane] |= (pick(a, 2) & pick(b, 1) & pick(c, 0)) as u64;
                    }
                }
            }
            out
        }),
        ("shf.l.wrap", Type::B32) => {
            ternary!(u32, u32, u32 => u32, |a, b, n| ((((b as u64) << 32 | a as u64) << (n & 31)) >> 32) as u32)
        }
        ("shf.r.wrap", Type::B32) => {
            ternary!(u32, u32, u32 => u32, |a, b, n| (((b as u64) << 32 | a as u64) >> (n & 31)) as u32)
        }
        ("shf.l.clamp", Type::B32) => {
            ternary!(u32, u32, u32 => u32, |a, b, n| ((((b as u64) << 32 | a as u64) << n.min(32)) >> 32) as u32)
        }
        ("shf.r.clamp", Type::B32) => {
            ternary!(u32, u32, u32 => u32, |a, b, n| (((b as u64) << 32 | a as u64) >> n.min(32)) as u32)
        }
        ("dp4a", Type::S32) => ternary!(u32, u32, i32 => i32, |a, b, c| {
            let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
            let mut sum = c;
            for k in 0..4 {
                sum = sum.wrapping_add(a[k] as i8 as i32 * b[k] as i8 as i32);
            }
            sum
        }),
        ("dp4a", Type::U32) => ternary!(u32, u32, u32 => u32, |a, b, c| {
            let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
            let mut sum = c;
            for k in 0..4 {
                sum = sum.wrapping_add(a[k] as u32 * b[k] as u32);
            }
            sum
        }),
        ("selp", _) => for_bits!(ty, T => ternary!(T, T, bool => T, |a, b, p| if p { a } else { b })),
        _ => return None,
    })
}

/// Whether one of them is NaN.
fn unordered<T: PartialOrd + Copy>(a: T, b: T) -> bool {
    a.partial_cmp(&b).is_none()
}

/// `setp.COMPARISON.TYPE`.
pub fn compare(comparison: &str, ty: Type) -> Option<Lanewise> {
    macro_rules! floats {
        ($t:ty) => {
            match comparison {
                "eq" => binary!($t, $t => bool, |a, b| a == b),
                "ne" => binary!($t, $t => bool, |a, b| !unordered(a, b) && a != b),
                "lt" => binary!($t, $t => bool, |a, b| a < b),
                "le" => binary!($t, $t => bool, |a, b| a <= b),
                "gt" => binary!($t, $t => bool, |a, b| a > b),
                "ge" => binary!($t, $t => bool, |a, b| a >= b),
                "equ" => binary!($t, $t => bool, |a, b| unordered(a, b) || a == b),
                "neu" => binary!($t, $t => bool, |a, b| a != b),
                "ltu" => binary!($t, $t => bool, |a, b| unordered(a, b) || a < b),
                "leu" => binary!($t, $t => bool, |a, b| unordered(a, b) || a <= b),
                "gtu" => binary!($t, $t => bool, |a, b| unordered(a, b) || a > b),
                "geu" => binary!($t, $t => bool, |a, b| unordered(a, b) || a >= b),
                "num" => binary!($t, $t => bool, |a, b| !unordered(a, b)),
                "nan" => binary!($t, $t => bool, |a, b| unordered(a, b)),
                _ => return None,
            }
        };
    }
    match ty {
        Type::F32 => return Some(floats!(f32)),
        Type::F64 => return Some(floats!(f64)),
        Type::F16 => return Some(floats!(f16)),
        Type::BF16 => return Some(floats!(bf16)),
        _ => {}
    }
    Some(for_integer!(ty, T => match comparison {
        "eq" => binary!(T, T => bool, |a, b| a == b),
        "ne" => binary!(T, T => bool, |a, b| a != b),
        "lt" | "lo" => binary!(T, T => bool, |a, b| a < b),
        "le" | "ls" => binary!(T, T => bool, |a, b| a <= b),
        "gt" | "hi" => binary!(T, T => bool, |a, b| a > b),
        "ge" | "hs" => binary!(T, T => bool, |a, b| a >= b),
        _ => return None,
    }))
}

/// The larger of two; a NaN gives way to a number, and +0 is larger than -0.
#[inline(always)]
fn maximum(a: f64, b: f64) -> f64 {
    if a == b { if a.is_sign_negative() { b } else { a } } else { a.max(b) }
}
#[inline(always)]
fn minimum(a: f64, b: f64) -> f64 {
    -maximum(-a, -b)
}

/// One expression for every floating-point type: `f64` computes it and the result is rounded once. (f32 addition,
/// product, quotient and square root through f64 are exactly rounded: Figueroa 1995.)
macro_rules! float_op {
    ($ty:expr, $flush:expr, $kind:ident, |$($a:ident),+| $body:expr) => {
        match $ty {
            Type::F64 => float_op!(@typed $kind, f64, |v: f64| v, |v: f64| v, |$($a),+| $body),
            Type::F32 if $flush => {
                float_op!(@typed $kind, f32, |v: f32| flush(v) as f64, |v: f64| flush(v as f32), |$($a),+| $body)
            }
            Type::F32 => float_op!(@typed $kind, f32, |v: f32| v as f64, |v: f64| v as f32, |$($a),+| $body),
            Type::F16 => float_op!(@typed $kind, f16, |v: f16| v.to_f64(), f16::from_f64, |$($a),+| $body),
            Type::BF16 => float_op!(@typed $kind, bf16, |v: bf16| v.to_f64(), bf16::from_f64, |$($a),+| $body),
            Type::F16x2 => float_op!(@pair $kind, f16, |$($a),+| $body),
            Type::BF16x2 => float_op!(@pair $kind, bf16, |$($a),+| $body),
            _ => return None,
        }
    };
    (@typed unary, $t:ty, $up:expr, $down:expr, |$a:ident| $body:expr) => {
        unary!($t => $t, |$a| { let $a = ($up)($a); ($down)($body) })
    };
    (@typed binary, $t:ty, $up:expr, $down:expr, |$a:ident, $b:ident| $body:expr) => {
        binary!($t, $t => $t, |$a, $b| { let ($a, $b) = (($up)($a), ($up)($b)); ($down)($body) })
    };
    (@typed ternary, $t:ty, $up:expr, $down:expr, |$a:ident, $b:ident, $c:ident| $body:expr) => {
        ternary!($t, $t, $t => $t, |$a, $b, $c| {
            let ($a, $b, $c) = (($up)($a), ($up)($b), ($up)($c));
            ($down)($body)
        })
    };
    (@pair $kind:ident, $t:ty, |$($a:ident),+| $body:expr) => {
        float_op!(@typed $kind, u32, |v: u32| v, |v: u32| v, |$($a),+| {
            let half = |shift: u32| {
                $(let $a = <$t>::from_bits(($a >> shift) as u16).to_f64();)+
                (<$t>::from_f64($body).to_bits() as u32) << shift
            };
            half(0) | half(16)
        })
    };
}

/// `add`, `sub`, `mul`, `div`, `min`, `max`, `copysign` of floating-point numbers and pairs of them.
pub fn float_binary(name: &str, ty: Type, ftz: bool) -> Option<Lanewise> {
    Some(match name {
        "add" => float_op!(ty, ftz, binary, |a, b| a + b),
        "sub" => float_op!(ty, ftz, binary, |a, b| a - b),
        "mul" => float_op!(ty, ftz, binary, |a, b| a * b),
        "div" if matches!(ty, Type::F32 | Type::F64) => float_op!(ty, ftz, binary, |a, b| a / b),
        "min" => float_op!(ty, ftz, binary, |a, b| minimum(a, b)),
        "max" => float_op!(ty, ftz, binary, |a, b| maximum(a, b)),
        "min.NaN" => {
            float_op!(ty, ftz, binary, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { minimum(a, b) })
        }
        "max.NaN" => {
            float_op!(ty, ftz, binary, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { maximum(a, b) })
        }
        "copysign" => float_op!(ty, ftz, binary, |sign, a| a.copysign(sign)),
        _ => return None,
    })
}

/// `fma`: one rounding. In single precision the hardware's own; products of 16-bit numbers are exact in f64.
pub fn fma(ty: Type, ftz: bool, saturate: bool, relu: bool) -> Option<Lanewise> {
    Some(match ty {
        Type::F32 if saturate => ternary!(f32, f32, f32 => f32, |a, b, c| {
            // NaN becomes +0.
            to_unit(a.mul_add(b, c))
        }),
        _ if saturate => return None,
        Type::F32 if ftz => {
            ternary!(f32, f32, f32 => f32, |a, b, c| flush(flush(a).mul_add(flush(b), flush(c))))
        }
        Type::F32 => ternary!(f32, f32, f32 => f32, |a, b, c| a.mul_add(b, c)),
        _ if relu => float_op!(ty, ftz, ternary, |a, b, c| maximum(a.mul_add(b, c), 0.0)),
        _ => float_op!(ty, ftz, ternary, |a, b, c| a.mul_add(b, c)),
    })
}

/// `add`, `sub`, `mul` and `fma` in single precision with a rounding other than to nearest.
pub fn float_rounded(name: &str, rounding: Rounding) -> Option<Lanewise> {
    macro_rules! rounded {
        ($mode:expr) => {
            match name {
                "add" => binary!(f32, f32 => f32, |a, b| fma_rounded(a, 1.0, b, $mode)),
                "sub" => binary!(f32, f32 => f32, |a, b| fma_rounded(a, 1.0, -b, $mode)),
                "mul" => binary!(f32, f32 => f32, |a, b| round_to_f32(a as f64 * b as f64, 0.0, $mode)),
                "fma" => ternary!(f32, f32, f32 => f32, |a, b, c| fma_rounded(a, b, c, $mode)),
                _ => return None,
            }
        };
    }
    Some(match rounding {
        Rounding::Nearest => return None,
        Rounding::Zero => rounded!(Rounding::Zero),
        Rounding::Down => rounded!(Rounding::Down),
        Rounding::Up => rounded!(Rounding::Up),
    })
}

/// Functions of one number: `neg`, `abs`, `rcp`, `sqrt`, `rsqrt`, `ex2`, `lg2`, `sin`, `cos`, `tanh`.
pub fn float_unary(name: &str, ty: Type, ftz: bool) -> Option<Lanewise> {
    Some(match (name, ty) {
        ("neg", Type::F32) if !ftz => unary!(f32 => f32, |a| -a),
        ("abs", Type::F32) if !ftz => unary!(f32 => f32, |a| a.abs()),
        ("neg", _) => float_op!(ty, ftz, unary, |a| -a),
        ("abs", _) => float_op!(ty, ftz, unary, |a| a.abs()),
        // As the hardware: 20 bits of the upper half, the lower half zero.
        ("rcp.approx", Type::F64) => {
            unary!(f64 => f64, |a| f64::from_bits((1.0 / a).to_bits() & 0xFFFF_FFFF_0000_0000))
        }
        ("rsqrt.approx", Type::F64) => unary!(f64 => f64, |a| 1.0 / a.sqrt()),
        ("rcp" | "rcp.approx", _) => float_op!(ty, ftz, unary, |a| 1.0 / a),
        ("sqrt" | "sqrt.approx", _) => float_op!(ty, ftz, unary, |a| a.sqrt()),
        ("rsqrt.approx", Type::F32) => float_op!(ty, ftz, unary, |a| 1.0 / a.sqrt()),
        // Computed in f32: exp2f and friends of the host are within an ulp and several times faster than f64.
        ("ex2.approx", Type::F32) if ftz => unary!(f32 => f32, |a| flush(flush(a).exp2())),
        ("ex2.approx", Type::F32) => unary!(f32 => f32, |a| a.exp2()),
        ("ex2.approx", Type::F16 | Type::BF16 | Type::F16x2 | Type::BF16x2) => {
            float_op!(ty, ftz, unary, |a| a.exp2())
        }
        ("lg2.approx", Type::F32) if ftz => unary!(f32 => f32, |a| flush(a).log2()),
        ("lg2.approx", Type::F32) => unary!(f32 => f32, |a| a.log2()),
        ("sin.approx", Type::F32) => unary!(f32 => f32, |a| a.sin()),
        ("cos.approx", Type::F32) => unary!(f32 => f32, |a| a.cos()),
        ("tanh.approx", Type::F32 | Type::F16 | Type::BF16 | Type::F16x2 | Type::BF16x2) => {
            float_op!(ty, ftz, unary, |a| a.tanh())
        }
        _ => return None,
    })
}
