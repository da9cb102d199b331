//! Both storage types, numbers of them, and how results are compared.

use half::bf16;
use vitrine_kernels::Real;

/// A storage type: f32 or bf16.
pub trait Float: Copy + Default {
    const REAL: Real;
    /// Relative rounding error of storage, with room for the f32 arithmetic before it.
    const TOLERANCE: f64;
    fn new(x: f64) -> Self;
    fn get(self) -> f64;
}
impl Float for f32 {
    const REAL: Real = Real::F32;
    const TOLERANCE: f64 = 4e-6;
    fn new(x: f64) -> Self {
        x as f32
    }
    fn get(self) -> f64 {
        self.into()
    }
}
impl Float for bf16 {
    const REAL: Real = Real::Bf16;
    const TOLERANCE: f64 = 4.5e-3;
    fn new(x: f64) -> Self {
        bf16::from_f64(x)
    }
    fn get(self) -> f64 {
        self.into()
    }
}

/// Numbers in about [-2, 2], as the type holds them.
pub fn numbers<T: Float>(n: usize, seed: u64) -> Vec<T> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        T::new((x >> 40) as f64 / f64::from(1 << 22) - 2.0)
    };
    (0..n).map(|_| next()).collect()
}
pub fn wide<T: Float>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| x.get()).collect()
}

/// Fails on NaN, on another length, and beyond `tolerance * max(1, |expected|)`.
pub fn assert_close<T: Float>(what: &str, got: &[T], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    for (i, (got, &expected)) in got.iter().zip(expected).enumerate() {
        let error = (got.get() - expected).abs();
        assert!(error <= tolerance * expected.abs().max(1.0), "{what}[{i}]: {} for {expected}", got.get());
    }
}
