//! Launches: how the typed kernels of `vitrine-kernels` reach a device's stream.

use super::context::{Context, failed};
use super::memory::Buffer;
use crate::{DType, Error, Result, Tensor};
use cudarc::driver::sys;
use vitrine_kernels::{Grid, Launch, Launcher, Mismatch, Pointer, Real, Reals};

impl Pointer for Tensor {
    fn address(&self) -> u64 {
        self.device_address()
    }
}

impl Reals for Tensor {
    fn real(&self) -> Option<Real> {
        match self.dtype() {
            DType::F32 => Some(Real::F32),
            DType::BF16 => Some(Real::Bf16),
            _ => None,
        }
    }
}

impl Launcher for Context {
    type Tensor = Tensor;
    type Array<E> = Buffer<E>;
    type Error = Error;

    fn run(&self, launch: &Launch<'_>) -> Result<()> {
        let Grid { blocks, threads, shared } = launch.grid();
        if blocks.contains(&0) {
            return Ok(());
        }
        let [x, y, z] = blocks;
        if x > i32::MAX as usize || y > 65535 || z > 65535 {
            return Err(Error::InvalidArgument {
                op: launch.entry(),
                name: "size",
                expected: "a problem that fits a CUDA grid (2^31 - 1, 65535, 65535 blocks)",
                got: format!("{x}, {y}, {z}"),
            });
        }
        let function = self.function(launch.module(), launch.entry(), shared)?;
        // SAFETY: a `Launch` has as many arguments as the kernel, of its types; the driver only reads them, although it takes
        // them as mutable. Addresses are of tensors and buffers that go back to the pool at the earliest after this call, and
        // so to work behind this launch in the stream. That kernels stay inside of their arrays is what the emulator checks.
        let status = unsafe {
            sys::cuLaunchKernel(
                function.0,
                x as u32,
                y as u32,
                z as u32,
                threads as u32,
                1,
                1,
                shared as u32,
                self.stream(),
                launch.arguments().cast_mut().cast(),
                std::ptr::null_mut(),
            )
        };
        status.result().map_err(failed(self.ordinal, launch.entry()))
    }

    fn mismatch(&self, Mismatch { kernel, given }: Mismatch) -> Error {
        Error::InvalidArgument {
            op: kernel,
            name: "dtypes",
            expected: "a combination that a kernel exists for",
            got: given,
        }
    }
}

impl Context {
    /// `NotSupported` unless kernels compute with the tensor's dtype.
    pub fn computes(&self, op: &'static str, tensor: &Tensor) -> Result<()> {
        match tensor.real() {
            Some(_) => Ok(()),
            None => Err(Error::NotSupported { op, device: tensor.device(), dtype: tensor.dtype() }),
        }
    }
}
