//! [`Low`]: arithmetic in which every result is rounded to a dtype, as a naive half-precision program's is.

use half::{bf16, f16};
use std::ops::{Add, Div, Mul, Neg, Sub};
use vitrine_tensor::{DType, Float};

/// A number whose operations round to its dtype. Sums over many terms, as in reductions and matrix products, round once:
/// also naive programs accumulate those in F32.
#[derive(Clone, Copy, Debug)]
pub struct Low {
    value: f64,
    dtype: DType,
}

impl Low {
    /// The nearest number of a float dtype.
    pub fn new(value: f64, dtype: DType) -> Self {
        let value = match dtype {
            DType::F32 => f64::from(value as f32),
            DType::BF16 => <bf16 as Float>::from_f64(value).to_f64(),
            DType::F16 => <f16 as Float>::from_f64(value).to_f64(),
            DType::F64 | DType::U32 | DType::I64 => value,
        };
        Low { value, dtype }
    }

    /// Numbers of a dtype.
    pub fn from_slice(values: &[f64], dtype: DType) -> Vec<Self> {
        values.iter().map(|&value| Low::new(value, dtype)).collect()
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.value
    }

    /// `f` of it, rounded.
    pub fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Low::new(f(self.value), self.dtype)
    }

    /// Another number of the same dtype.
    pub fn like(self, value: f64) -> Self {
        Low::new(value, self.dtype)
    }

    /// The sum of terms, rounded once; `None` without terms.
    pub fn sum(terms: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut terms = terms.into_iter();
        let first = terms.next()?;
        Some(first.like(terms.fold(first.value, |sum, term| sum + term.value)))
    }

    /// The sum of products, rounded once; `None` without terms.
    pub fn dot(a: &[Self], b: &[Self]) -> Option<Self> {
        let sum = a.iter().zip(b).map(|(a, b)| a.value * b.value).sum();
        Some(a.first()?.like(sum))
    }
}

macro_rules! operator {
    ($($trait:ident $method:ident),*) => {$(
        impl $trait for Low {
            type Output = Low;
            fn $method(self, other: Low) -> Low { self.like(self.value.$method(other.value)) }
        }
    )*};
}
operator!(Add add, Sub sub, Mul mul, Div div);

impl Neg for Low {
    type Output = Low;
    fn neg(self) -> Low {
        self.like(-self.value)
    }
}
