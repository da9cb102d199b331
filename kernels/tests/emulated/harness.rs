//! Launches kernels on whatever `libcuda.so` is loaded: here the emulator.

use crate::numbers::Float;
use cudarc::driver::sys;
use std::ffi::CString;
use std::marker::PhantomData;
use vitrine_kernels::{Kernel, Launch, Launcher, Mismatch, Pointer, Real};

/// One emulated device. Emulation runs at once, on the calling thread; the lock keeps tests apart.
pub struct Gpu {
    _turn: std::sync::MutexGuard<'static, ()>,
    allocations: std::cell::RefCell<Vec<u64>>,
}

/// Reals in device memory.
#[derive(Clone, Copy)]
pub struct Reals {
    address: u64,
    len: usize,
    real: Real,
}

/// `E`s in device memory.
#[derive(Clone, Copy)]
pub struct Buffer<E> {
    address: u64,
    elements: PhantomData<fn() -> E>,
}

impl Reals {
    pub fn address(&self) -> u64 {
        self.address
    }

    /// What begins at an element.
    pub fn from(&self, start: usize) -> Reals {
        let size = if self.real == Real::F32 { 4 } else { 2 };
        Reals { address: self.address + (start * size) as u64, len: self.len - start, real: self.real }
    }
}

impl Pointer for Reals {
    fn address(&self) -> u64 {
        self.address
    }
}

impl vitrine_kernels::Reals for Reals {
    fn real(&self) -> Option<Real> {
        Some(self.real)
    }
}

impl<E> Pointer for Buffer<E> {
    fn address(&self) -> u64 {
        self.address
    }
}

fn ok(result: sys::CUresult, what: &str) {
    let findings = vitrine_emulator::take_findings();
    assert!(findings.is_empty(), "{what}: {}", findings[0]);
    assert_eq!(result, sys::CUresult::CUDA_SUCCESS, "{what}");
}

impl Gpu {
    pub fn open() -> Self {
        static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        vitrine_emulator::install();
        // SAFETY: plain driver calls; the device exists, as the emulator has one.
        unsafe {
            ok(sys::cuInit(0), "cuInit");
            let (mut device, mut context) = (0, std::ptr::null_mut());
            ok(sys::cuDeviceGet(&raw mut device, 0), "cuDeviceGet");
            ok(sys::cuDevicePrimaryCtxRetain(&raw mut context, device), "cuDevicePrimaryCtxRetain");
            ok(sys::cuCtxSetCurrent(context), "cuCtxSetCurrent");
        }
        Gpu { _turn: turn, allocations: std::cell::RefCell::default() }
    }

    /// Uploads reals; an empty slice gets spare bytes that nothing may touch.
    pub fn put<T: Float>(&self, x: &[T]) -> Reals {
        Reals { address: self.upload(x), len: x.len(), real: T::REAL }
    }

    /// Uploads what is no real.
    pub fn table<E: Copy>(&self, x: &[E]) -> Buffer<E> {
        Buffer { address: self.upload(x), elements: PhantomData }
    }

    /// Reals that are garbage (a NaN pattern).
    pub fn room<T: Float>(&self, len: usize) -> Reals {
        Reals { address: self.garbage(len * size_of::<T>()), len, real: T::REAL }
    }

    /// Other elements that are garbage.
    pub fn space<E>(&self, len: usize) -> Buffer<E> {
        Buffer { address: self.garbage(len * size_of::<E>()), elements: PhantomData }
    }

    fn upload<T: Copy>(&self, x: &[T]) -> u64 {
        let (bytes, address) = (size_of_val(x), self.garbage(size_of_val(x)));
        if bytes > 0 {
            // SAFETY: the allocation has that many bytes.
            ok(unsafe { sys::cuMemcpyHtoD_v2(address, x.as_ptr().cast(), bytes) }, "upload");
        }
        address
    }

    fn garbage(&self, bytes: usize) -> u64 {
        let mut address = 0;
        // SAFETY: plain driver calls on a fresh allocation.
        unsafe {
            ok(sys::cuMemAlloc_v2(&raw mut address, bytes.max(16)), "cuMemAlloc");
            ok(sys::cuMemsetD8_v2(address, 0xff, bytes.max(16)), "cuMemset");
        }
        self.allocations.borrow_mut().push(address);
        address
    }

    pub fn get<T: Float>(&self, reals: Reals) -> Vec<T> {
        assert_eq!(reals.real, T::REAL);
        let mut out = vec![T::default(); reals.len];
        if !out.is_empty() {
            let bytes = size_of_val(&out[..]);
            // SAFETY: `out` has room for all bytes of the array.
            ok(unsafe { sys::cuMemcpyDtoH_v2(out.as_mut_ptr().cast(), reals.address, bytes) }, "download");
        }
        out
    }

    pub fn launch(&self, kernel: impl Kernel<Gpu>) {
        if let Err(Mismatch { kernel, given }) = Launcher::launch(self, kernel) {
            panic!("{kernel} does not take {given}");
        }
    }
}

impl Launcher for Gpu {
    type Tensor = Reals;
    type Array<E> = Buffer<E>;
    type Error = Mismatch;

    fn run(&self, launch: &Launch<'_>) -> Result<(), Mismatch> {
        let (name, grid) = (launch.entry(), launch.grid());
        let image = CString::new(launch.module().ptx().unwrap()).unwrap();
        let entry = CString::new(name).unwrap();
        let [x, y, z] = grid.blocks.map(|blocks| blocks as u32);
        let dynamic = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: a `Launch` has the kernel's arguments; addresses are this test's arrays, and the emulator reports accesses
        // outside of them.
        unsafe {
            let (mut loaded, mut function) = (std::ptr::null_mut(), std::ptr::null_mut());
            ok(sys::cuModuleLoadData(&raw mut loaded, image.as_ptr().cast()), "cuModuleLoadData");
            ok(sys::cuModuleGetFunction(&raw mut function, loaded, entry.as_ptr()), name);
            if grid.shared > 48 << 10 {
                ok(sys::cuFuncSetAttribute(function, dynamic, grid.shared as i32), name);
            }
            let (threads, shared) = (grid.threads as u32, grid.shared as u32);
            let (stream, extra) = (std::ptr::null_mut(), std::ptr::null_mut());
            let arguments = launch.arguments().cast_mut().cast();
            ok(sys::cuLaunchKernel(function, x, y, z, threads, 1, 1, shared, stream, arguments, extra), name);
            ok(sys::cuCtxSynchronize(), name);
            ok(sys::cuModuleUnload(loaded), name);
        }
        Ok(())
    }

    fn mismatch(&self, mismatch: Mismatch) -> Mismatch {
        mismatch
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        for &address in self.allocations.borrow().iter() {
            // SAFETY: allocated by `room`, freed once.
            let _ = unsafe { sys::cuMemFree_v2(address) };
        }
    }
}
