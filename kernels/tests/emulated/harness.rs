//! Launches kernels by name on whatever `libcuda.so` is loaded: here the emulator. Arguments are checked against the table.

use cudarc::driver::sys;
use std::ffi::{CString, c_void};
use vitrine_kernels::{Module, Parameter};

/// One emulated device. Emulation runs at once, on the calling thread; the lock keeps tests apart.
pub struct Gpu {
    _turn: std::sync::MutexGuard<'static, ()>,
    allocations: std::cell::RefCell<Vec<u64>>,
}

/// An array in device memory.
#[derive(Clone, Copy)]
pub struct Buffer {
    pub address: u64,
    pub bytes: usize,
}

/// One argument.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    P(Buffer),
    Null,
    W(usize),
    L(usize),
    F(f32),
    S(&'a [u8]),
}

/// The bytes of a slice of plain numbers or of a padding-free structure.
pub fn bytes<T: Copy>(x: &[T]) -> &[u8] {
    // SAFETY: T is a number or a structure without padding; every byte is initialised.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) }
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

    /// Uploads; an empty slice gets one spare element that nothing may touch.
    pub fn put<T: Copy>(&self, x: &[T]) -> Buffer {
        let buffer = self.room(size_of_val(x));
        if !x.is_empty() {
            // SAFETY: the allocation has that many bytes.
            ok(unsafe { sys::cuMemcpyHtoD_v2(buffer.address, x.as_ptr().cast(), buffer.bytes) }, "upload");
        }
        buffer
    }

    /// Bytes of garbage (a NaN pattern).
    pub fn room(&self, bytes: usize) -> Buffer {
        let mut address = 0;
        // SAFETY: plain driver calls on a fresh allocation.
        unsafe {
            ok(sys::cuMemAlloc_v2(&raw mut address, bytes.max(16)), "cuMemAlloc");
            ok(sys::cuMemsetD8_v2(address, 0xff, bytes.max(16)), "cuMemset");
        }
        self.allocations.borrow_mut().push(address);
        Buffer { address, bytes }
    }

    pub fn get<T: Copy + Default>(&self, buffer: Buffer) -> Vec<T> {
        let mut out = vec![T::default(); buffer.bytes / size_of::<T>()];
        if !out.is_empty() {
            // SAFETY: `out` has room for all bytes of the buffer.
            ok(
                unsafe { sys::cuMemcpyDtoH_v2(out.as_mut_ptr().cast(), buffer.address, buffer.bytes) },
                "download",
            );
        }
        out
    }

    pub fn launch(
        &self,
        module: &Module,
        name: &str,
        grid: [usize; 3],
        block: usize,
        shared: usize,
        arguments: &[Arg],
    ) {
        let kernel = module.kernels.iter().find(|kernel| kernel.name == name);
        let kernel = kernel.unwrap_or_else(|| panic!("no kernel {name}"));
        assert_eq!(kernel.parameters.len(), arguments.len(), "{name}: number of arguments");
        let mut values: Vec<Vec<u8>> = Vec::new();
        for (i, (argument, parameter)) in arguments.iter().zip(kernel.parameters).enumerate() {
            let (value, kind) = match *argument {
                Arg::P(buffer) => (buffer.address.to_ne_bytes().to_vec(), Parameter::Pointer),
                Arg::Null => (0u64.to_ne_bytes().to_vec(), Parameter::Pointer),
                Arg::W(x) => ((x as u32).to_ne_bytes().to_vec(), Parameter::U32),
                Arg::L(x) => ((x as u64).to_ne_bytes().to_vec(), Parameter::U64),
                Arg::F(x) => (x.to_ne_bytes().to_vec(), Parameter::F32),
                Arg::S(x) => (x.to_vec(), Parameter::Struct(x.len())),
            };
            assert_eq!(kind, *parameter, "{name}: argument {i}");
            values.push(value);
        }
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| value.as_mut_ptr().cast()).collect();
        let image = CString::new(module.ptx).unwrap();
        let entry = CString::new(name).unwrap();
        let [gx, gy, gz] = grid.map(|x| x as u32);
        let dynamic = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: argument types were checked against the table, which tests/ptx.rs checks against the PTX; addresses are
        // this test's buffers, and the emulator reports accesses outside of them.
        unsafe {
            let (mut loaded, mut function) = (std::ptr::null_mut(), std::ptr::null_mut());
            ok(sys::cuModuleLoadData(&raw mut loaded, image.as_ptr().cast()), "cuModuleLoadData");
            ok(sys::cuModuleGetFunction(&raw mut function, loaded, entry.as_ptr()), name);
            if shared > 48 << 10 {
                ok(sys::cuFuncSetAttribute(function, dynamic, shared as i32), name);
            }
            let stream = std::ptr::null_mut();
            let none = std::ptr::null_mut();
            let status = sys::cuLaunchKernel(
                function,
                gx,
                gy,
                gz,
                block as u32,
                1,
                1,
                shared as u32,
                stream,
                pointers.as_mut_ptr(),
                none,
            );
            ok(status, name);
            ok(sys::cuCtxSynchronize(), name);
            ok(sys::cuModuleUnload(loaded), name);
        }
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
