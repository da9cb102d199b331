//! Conversion between dtypes, and copies of strided views into contiguous tensors.

mod cpu;
mod cuda;

use crate::cuda::Context;
use crate::{DType, Device, Float, Result, Tensor, for_float};

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
        match self.device() {
            Device::Cpu => cpu::cast(&source, dtype),
            Device::Cuda(ordinal) => cuda::cast(&Context::get(ordinal)?, &source, dtype),
        }
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
        match self.device() {
            Device::Cpu => for_dtype!(self.dtype(), E => cpu::copy::<E>(self)),
            Device::Cuda(ordinal) => cuda::copy(&Context::get(ordinal)?, self),
        }
    }

    /// A tensor of this shape with every element set to `value`.
    ///
    /// # Errors
    /// `DTypeMismatch` for integer dtypes; as [`Tensor::empty`].
    pub fn full(dims: &[usize], value: f64, dtype: DType, device: Device) -> Result<Tensor> {
        let mut out = Tensor::empty(dims, dtype, device)?;
        match device {
            Device::Cpu => for_float!("full", dtype, E => {
                out.as_mut_slice::<E>()?.fill(<E as Float>::from_f64(value));
                Ok(())
            }),
            Device::Cuda(ordinal) => cuda::fill(&Context::get(ordinal)?, &mut out, value),
        }?;
        Ok(out)
    }
}
