//! Conversions and copies on the CPU.

use super::for_dtype;
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::{DType, Element, Float, Result, Tensor};
use half::{bf16, f16};

/// Elements converted by one piece of parallel work.
const CHUNK: usize = 1 << 16;

/// Any dtype, by way of the one type that holds all of its values exactly.
trait Cast: Element {
    fn to_f64(self) -> f64;
    fn from_f64(x: f64) -> Self;
}

macro_rules! cast {
    ($($type:ty: $to:expr, $from:expr;)*) => {$(
        impl Cast for $type {
            #[inline(always)]
            fn to_f64(self) -> f64 { $to(self) }
            #[inline(always)]
            fn from_f64(x: f64) -> Self { $from(x) }
        }
    )*};
}
cast! {
    f32: f64::from, |x| x as f32;
    f64: |x| x, |x| x;
    bf16: bf16::to_f64, Float::from_f64;
    f16: f16::to_f64, Float::from_f64;
    u32: f64::from, |x| x as u32;
    // Exact up to 2^53, far beyond any id or label.
    i64: |x| x as f64, |x| x as i64;
}

/// A contiguous tensor in another dtype.
pub(super) fn cast(source: &Tensor, dtype: DType) -> Result<Tensor> {
    match (source.dtype(), dtype) {
        (DType::F32, DType::BF16) => round::<f32, bf16>(source),
        (DType::BF16, DType::F32) => round::<bf16, f32>(source),
        (DType::F32, DType::F16) => round::<f32, f16>(source),
        (DType::F16, DType::F32) => round::<f16, f32>(source),
        (from, to) => for_dtype!(from, From => for_dtype!(to, To => convert::<From, To>(source))),
    }
}

/// Between the types whose arithmetic is f32: as [`convert`], on vectors.
fn round<From: Float<Real = f32>, To: Float<Real = f32>>(source: &Tensor) -> Result<Tensor> {
    let mut out = Tensor::empty(source.dims(), To::DTYPE, source.device())?;
    let x = source.as_slice::<From>()?;
    let isa = Isa::current();
    parallel::for_each_chunk_mut(out.as_mut_slice::<To>()?, CHUNK, |index, y| {
        let x = &x[index * CHUNK..][..y.len()];
        simd::run(isa, Round { x, y });
    });
    Ok(out)
}

struct Round<'a, From, To> {
    x: &'a [From],
    y: &'a mut [To],
}

impl<From: Float<Real = f32>, To: Float<Real = f32>> Kernel<f32> for Round<'_, From, To> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(self) {
        simd::map(self.x, self.y, |x: L| x);
    }
}

fn convert<From: Cast, To: Cast>(source: &Tensor) -> Result<Tensor> {
    let mut out = Tensor::empty(source.dims(), To::DTYPE, source.device())?;
    let x = source.as_slice::<From>()?;
    parallel::for_each_chunk_mut(out.as_mut_slice::<To>()?, CHUNK, |index, chunk| {
        for (y, x) in chunk.iter_mut().zip(&x[index * CHUNK..]) {
            *y = To::from_f64(x.to_f64());
        }
    });
    Ok(out)
}

/// A contiguous copy in storage of its own.
pub(super) fn copy<E: Element>(source: &Tensor) -> Result<Tensor> {
    let mut out = Tensor::empty(source.dims(), E::DTYPE, source.device())?;
    let target = out.as_mut_slice::<E>()?;
    if let Ok(rows) = source.as_rows::<E>("contiguous") {
        // The common case, rows with gaps between them: whole rows at a time.
        let per_chunk = (CHUNK / rows.width.max(1)).max(1);
        parallel::for_each_chunk_mut(target, per_chunk * rows.width.max(1), |index, chunk| {
            for (r, row) in chunk.chunks_mut(rows.width.max(1)).enumerate() {
                row.copy_from_slice(rows.row(index * per_chunk + r));
            }
        });
        return Ok(out);
    }
    let elements = source.storage().elements::<E>();
    for (y, position) in target.iter_mut().zip(source.layout().positions()) {
        *y = elements[position];
    }
    Ok(out)
}
