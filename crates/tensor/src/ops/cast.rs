//! Conversion between dtypes, and copies of strided views into contiguous tensors.

use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::{DType, Device, Element, Error, Float, Result, Tensor, cuda, for_float};
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

/// Calls `$body` with `$type` bound to the Rust type of any dtype.
macro_rules! for_dtype {
    ($dtype:expr, $type:ident => $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $type = f32;
                $body
            }
            DType::BF16 => {
                type $type = half::bf16;
                $body
            }
            DType::F16 => {
                type $type = half::f16;
                $body
            }
            DType::F64 => {
                type $type = f64;
                $body
            }
            DType::U32 => {
                type $type = u32;
                $body
            }
            DType::I64 => {
                type $type = i64;
                $body
            }
        }
    };
}

pub(crate) use for_dtype;

impl Tensor {
    /// Converts to a dtype, rounding floats to nearest even and integers toward zero; a cheap clone when it is the same.
    /// The result is contiguous unless nothing had to be converted.
    ///
    /// # Errors
    /// `NotSupported` on a CUDA device but for F32 and BF16.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        if self.dtype() == dtype {
            return Ok(self.clone());
        }
        let source = self.contiguous()?;
        if self.device() != Device::Cpu {
            return cuda::cast(&source, dtype);
        }
        match (self.dtype(), dtype) {
            (DType::F32, DType::BF16) => return round::<f32, bf16>(&source),
            (DType::BF16, DType::F32) => return round::<bf16, f32>(&source),
            (DType::F32, DType::F16) => return round::<f32, f16>(&source),
            (DType::F16, DType::F32) => return round::<f16, f32>(&source),
            _ => {}
        }
        for_dtype!(self.dtype(), From => for_dtype!(dtype, To => convert::<From, To>(&source)))
    }

    /// The same elements in row-major order without gaps; a cheap clone when they already are.
    ///
    /// # Errors
    /// `NotSupported` on a CUDA device but for F32 and BF16.
    pub fn contiguous(&self) -> Result<Tensor> {
        if self.is_contiguous() {
            return Ok(self.clone());
        }
        self.copy()
    }

    /// A deep copy with storage of its own.
    ///
    /// # Errors
    /// `NotSupported` on a CUDA device but for F32 and BF16.
    pub fn copy(&self) -> Result<Tensor> {
        if self.device() != Device::Cpu {
            return cuda::copy(self);
        }
        for_dtype!(self.dtype(), E => copy::<E>(self))
    }

    /// A tensor of this shape with every element set to `value`.
    ///
    /// # Errors
    /// `DTypeMismatch` for integer dtypes; as [`Tensor::empty`].
    pub fn full(dims: &[usize], value: f64, dtype: DType, device: Device) -> Result<Tensor> {
        let mut out = Tensor::empty(dims, dtype, device)?;
        if device != Device::Cpu {
            cuda::fill(&mut out, value)?;
            return Ok(out);
        }
        for_float!("full", dtype, E => {
            out.as_mut_slice::<E>()?.fill(<E as Float>::from_f64(value));
            Ok::<(), Error>(())
        })?;
        Ok(out)
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

fn copy<E: Element>(source: &Tensor) -> Result<Tensor> {
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
