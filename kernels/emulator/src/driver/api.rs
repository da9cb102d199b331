//! The C functions of `libcuda.so`, those that cudarc calls. A missing one is a missing symbol, never a stub.

#![allow(non_snake_case)]

use super::{
    BLOCK_LIMIT, Event, Failure, GRID_LIMIT, LAST, Outcome, Recorded, SHARED_LIMIT, State, Status, Work,
    failed, report, state,
};
use crate::machine::Launch;
use crate::ptx::limits;
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::MutexGuard;

type Handle = *mut c_void;

/// Defines C functions whose body gives an [`Outcome`].
///
/// Each is `unsafe` in the way of C: pointers must be what `cuda.h` says of them.
macro_rules! api {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $ty:ty),* $(,)?) $body:block)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// Pointers are what `cuda.h` says of them.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $ty),*) -> c_int {
            let run = || -> Outcome { $body };
            report(run())
        }
    )* };
}

/// Writes a result through a pointer of the caller.
macro_rules! give {
    ($to:expr, $value:expr) => {{
        let value = $value;
        if $to.is_null() {
            return failed(Status::InvalidValue, "a null pointer for a result");
        }
        // SAFETY: the caller promised room for the result, and it is not null.
        unsafe { $to.write(value) };
        Ok(())
    }};
}

/// A number in an environment variable.
fn number(variable: &str) -> Option<c_int> {
    std::env::var(variable).ok()?.parse().ok()
}

/// `VITRINE_EMULATOR_DEVICES`: 1 unless it says 0.
fn device_count() -> c_int {
    c_int::from(std::env::var("VITRINE_EMULATOR_DEVICES").as_deref() != Ok("0"))
}

/// What the emulated device says of itself, by `CUdevice_attribute`.
fn device_attribute(attribute: c_int) -> Option<c_int> {
    let capability = number("VITRINE_EMULATOR_CAPABILITY").unwrap_or(80);
    Some(match attribute {
        1 => limits::THREADS as c_int,                         // threads of a block
        2..=4 => BLOCK_LIMIT[attribute as usize - 2] as c_int, // along x, y, z
        5..=7 => GRID_LIMIT[attribute as usize - 5] as c_int,  // blocks along x, y, z
        8 => 48 << 10,                                         // shared memory of a block
        10 => 32,                                              // lanes of a warp
        12 => 65536,                                           // registers of a block
        13 | 36 => 1_000_000,                                  // clock rates, kHz
        16 => 4,                                               // multiprocessors
        37 => 1024,                                            // bits of the memory bus
        38 => 4 << 20,                                         // bytes of L2
        39 => 2048,                                            // threads of a multiprocessor
        75 => capability / 10,                                 // compute capability, major
        76 => capability % 10,                                 // and minor
        81 => 164 << 10,                                       // shared memory of a multiprocessor
        97 => SHARED_LIMIT as c_int,                           // of a block, if asked for
        41 | 115 => 1,                                         // unified addresses, stream-ordered allocation
        _ => return None,
    })
}

/// A C string of the caller.
fn text<'a>(pointer: *const c_char, what: &str) -> Outcome<&'a str> {
    if pointer.is_null() {
        return failed(Status::InvalidValue, format!("a null pointer for {what}"));
    }
    // SAFETY: not null, and the caller promised a terminated string.
    unsafe { CStr::from_ptr(pointer) }
        .to_str()
        .map_err(|_| Failure(Status::InvalidValue, format!("{what} is not UTF-8")))
}

thread_local! {
    /// Whether the context is current on this thread, without which a driver does nothing.
    static CURRENT: Cell<bool> = const { Cell::new(false) };
}

/// The device, for a thread that its context is current on.
fn device() -> Outcome<MutexGuard<'static, State>> {
    if !CURRENT.get() {
        return failed(Status::InvalidContext, "no context is current on this thread (cuCtxSetCurrent)");
    }
    Ok(state())
}

const CONTEXT: Handle = 0x100 as Handle;
/// What a handle named, which must have been something.
fn known<T>(found: &Option<T>, what: &str) -> Outcome {
    if found.is_some() {
        Ok(())
    } else {
        failed(Status::InvalidHandle, format!("{what} that does not exist"))
    }
}

const POOL: Handle = 0x200 as Handle;

api! {
    /// Begins. Error 100 where `VITRINE_EMULATOR_DEVICES=0`.
    fn cuInit(_flags: c_uint) {
        if device_count() == 0 { failed(Status::NoDevice, "no device: VITRINE_EMULATOR_DEVICES=0") } else { Ok(()) }
    }
    /// 12040, or `VITRINE_EMULATOR_VERSION`.
    fn cuDriverGetVersion(version: *mut c_int) { give!(version, number("VITRINE_EMULATOR_VERSION").unwrap_or(12040)) }
    /// One device, or none.
    fn cuDeviceGetCount(count: *mut c_int) { give!(count, device_count()) }
    /// The device of an ordinal.
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        if ordinal < 0 || ordinal >= device_count() {
            return failed(Status::InvalidDevice, format!("no device {ordinal}: there is {}", device_count()));
        }
        give!(device, 0)
    }
    /// Its name.
    fn cuDeviceGetName(name: *mut c_char, len: c_int, _device: c_int) {
        let text = b"Vitrine emulator\0";
        if name.is_null() || (len as usize) < text.len() {
            return failed(Status::InvalidValue, "no room for the device's name");
        }
        // SAFETY: the caller promised `len` bytes.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len()) };
        Ok(())
    }
    /// Its memory.
    fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) { give!(bytes, state().memory_info().1) }
    /// One of its properties.
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) {
        match device_attribute(attribute) {
            Some(found) => give!(value, found),
            None => failed(Status::InvalidValue, format!("device attribute {attribute} is not emulated")),
        }
    }
    /// A fixed UUID.
    fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], _device: c_int) { give!(uuid, *b"vitrine-emulator") }
    /// The one context.
    fn cuDevicePrimaryCtxRetain(context: *mut Handle, _device: c_int) { give!(context, CONTEXT) }
    /// Nothing to do.
    fn cuDevicePrimaryCtxRelease_v2(_device: c_int) { Ok(()) }
    /// For this thread; a null pointer takes it away.
    fn cuCtxSetCurrent(context: Handle) {
        if context != CONTEXT && !context.is_null() {
            return failed(Status::InvalidContext, "a context that does not exist");
        }
        CURRENT.set(!context.is_null());
        Ok(())
    }
    /// The one context, or none.
    fn cuCtxGetCurrent(context: *mut Handle) { give!(context, if CURRENT.get() { CONTEXT } else { std::ptr::null_mut() }) }
    /// Work is done already; what copies read is let go.
    fn cuCtxSynchronize() { device()?.wait() }

    /// Free and total bytes.
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let (available, all) = device()?.memory_info();
        give!(free, available)?;
        give!(total, all)
    }
    /// A buffer.
    fn cuMemAlloc_v2(address: *mut u64, size: usize) { let found = device()?.allocate(size)?; give!(address, found) }
    /// A buffer.
    fn cuMemAllocAsync(address: *mut u64, size: usize, stream: Handle) {
        let mut state = device()?;
        state.not_capturing(stream as u64, "allocation")?;
        let found = state.allocate(size)?;
        give!(address, found)
    }
    /// Ends a buffer.
    fn cuMemFree_v2(address: u64) { device()?.free(address) }
    /// Ends a buffer.
    fn cuMemFreeAsync(address: u64, stream: Handle) {
        let mut state = device()?;
        state.not_capturing(stream as u64, "free")?;
        state.free(address)
    }
    /// Page-locked host memory.
    fn cuMemHostAlloc(pointer: *mut Handle, size: usize, _flags: c_uint) {
        let found = device()?.allocate_host(size)?;
        give!(pointer, found as Handle)
    }
    /// Ends page-locked host memory.
    fn cuMemFreeHost(pointer: Handle) { device()?.free_host(pointer as usize) }
    /// The one pool.
    fn cuDeviceGetDefaultMemPool(pool: *mut Handle, _device: c_int) { give!(pool, POOL) }
    /// Nothing to set.
    fn cuMemPoolSetAttribute(_pool: Handle, _attribute: c_int, _value: *mut c_void) { Ok(()) }
    /// Host to device.
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, size: usize) {
        let mut state = device()?;
        state.counters.synchronisations += 1;
        state.submit(0, Work::ToDevice { to, from: from as usize, size, stream: None })
    }
    /// Device to host.
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, size: usize) {
        let mut state = device()?;
        state.counters.synchronisations += 1;
        state.submit(0, Work::ToHost { to: to as usize, from, size })
    }
    /// Device to device.
    fn cuMemcpyDtoD_v2(to: u64, from: u64, size: usize) { device()?.submit(0, Work::OnDevice { to, from, size }) }
    /// Host to device, on a stream.
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, size: usize, stream: Handle) {
        device()?.submit(stream as u64, Work::ToDevice { to, from: from as usize, size, stream: Some(stream as u64) })
    }
    /// Device to host, on a stream.
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, size: usize, stream: Handle) {
        device()?.submit(stream as u64, Work::ToHost { to: to as usize, from, size })
    }
    /// Device to device, on a stream.
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, size: usize, stream: Handle) {
        device()?.submit(stream as u64, Work::OnDevice { to, from, size })
    }
    /// Bytes of one value.
    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) { device()?.submit(0, Work::Fill { to, pattern: vec![value], count }) }
    /// Bytes of one value, on a stream.
    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) {
        device()?.submit(stream as u64, Work::Fill { to, pattern: vec![value], count })
    }
    /// Words of one value, on a stream.
    fn cuMemsetD32Async(to: u64, value: c_uint, count: usize, stream: Handle) {
        device()?.submit(stream as u64, Work::Fill { to, pattern: value.to_ne_bytes().to_vec(), count })
    }

    /// A stream.
    fn cuStreamCreate(stream: *mut Handle, _flags: c_uint) {
        let mut state = device()?;
        let handle = state.handle();
        state.streams.insert(handle, None);
        give!(stream, handle as Handle)
    }
    /// Ends a stream.
    fn cuStreamDestroy_v2(stream: Handle) {
        known(&device()?.streams.remove(&(stream as u64)), "a stream")
    }
    /// Work is done already; what copies read is let go.
    fn cuStreamSynchronize(stream: Handle) { device()?.wait_for_stream(stream as u64) }
    /// Work is in order anyway.
    fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: c_uint) {
        let mut state = device()?;
        state.event(event as u64)?;
        state.stream(stream as u64).map(drop)
    }
    /// From now on, work is recorded.
    fn cuStreamBeginCapture_v2(stream: Handle, _mode: c_int) {
        match device()?.stream(stream as u64)? {
            Some(recorded) => {
                *recorded = Some(Vec::new());
                Ok(())
            }
            None => failed(Status::CaptureUnsupported, "the default stream cannot be captured"),
        }
    }
    /// What was recorded, as a graph.
    fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) {
        let mut state = device()?;
        let recorded = state.stream(stream as u64)?.and_then(Option::take);
        let Some(recorded) = recorded else { return failed(Status::InvalidValue, "the stream is not captured") };
        let handle = state.handle();
        state.graphs.insert(handle, recorded);
        give!(graph, handle as Handle)
    }
    /// 1 while a stream is captured.
    fn cuStreamIsCapturing(stream: Handle, status: *mut c_int) {
        let capturing = device()?.is_capturing(stream as u64)?;
        give!(status, c_int::from(capturing))
    }
    /// A graph that can run.
    fn cuGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, _flags: u64) {
        let mut state = device()?;
        let Some(work) = state.graphs.get(&(graph as u64)).cloned() else {
            return failed(Status::InvalidHandle, "a graph that does not exist");
        };
        let handle = state.handle();
        state.graphs.insert(handle, work);
        give!(executable, handle as Handle)
    }
    /// Nothing to do.
    fn cuGraphUpload(_executable: Handle, _stream: Handle) { Ok(()) }
    /// Runs what was recorded.
    fn cuGraphLaunch(executable: Handle, _stream: Handle) {
        let mut state = device()?;
        let Some(work) = state.graphs.get(&(executable as u64)).cloned() else {
            return failed(Status::InvalidHandle, "a graph that does not exist");
        };
        state.counters.graph_launches += 1;
        work.iter().try_for_each(|work| state.perform(work))
    }
    /// Ends a graph.
    fn cuGraphDestroy(graph: Handle) { known(&device()?.graphs.remove(&(graph as u64)), "a graph") }
    /// Ends a graph.
    fn cuGraphExecDestroy(graph: Handle) { known(&device()?.graphs.remove(&(graph as u64)), "a graph") }
    /// An event; flag 2 is without timing.
    fn cuEventCreate(event: *mut Handle, flags: c_uint) {
        let mut state = device()?;
        let handle = state.handle();
        state.events.insert(handle, Event { timed: flags & 2 == 0, recorded: None });
        give!(event, handle as Handle)
    }
    /// The time when the stream comes here.
    fn cuEventRecord(event: Handle, stream: Handle) {
        let mut state = device()?;
        state.event(event as u64)?;
        state.submit(stream as u64, Work::Record { event: event as u64, stream: stream as u64 })
    }
    /// Work is done already; what copies before it read is let go.
    fn cuEventSynchronize(event: Handle) { device()?.wait_for_event(event as u64) }
    /// Everything is done already.
    fn cuEventQuery(event: Handle) { device()?.event(event as u64).map(drop) }
    /// Ends an event.
    fn cuEventDestroy_v2(event: Handle) { known(&device()?.events.remove(&(event as u64)), "an event") }
    /// Milliseconds between two events; of emulation, so they say nothing about a GPU.
    fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) {
        let mut state = device()?;
        let mut at = |event: Handle| match state.event(event as u64)? {
            Event { timed: false, .. } => failed(Status::InvalidHandle, "an event without timing"),
            Event { recorded: Some(Recorded { at, .. }), .. } => Ok(*at),
            Event { recorded: None, .. } => failed(Status::InvalidHandle, "an event that was not recorded"),
        };
        let (start, end) = (at(start)?, at(end)?);
        give!(milliseconds, end.saturating_duration_since(start).as_secs_f32() * 1e3)
    }

    /// Loads PTX text.
    fn cuModuleLoadData(module: *mut Handle, image: *const c_void) {
        let bytes: *const c_char = image.cast();
        if bytes.is_null() {
            return failed(Status::InvalidValue, "a null pointer for the image");
        }
        // SAFETY: a byte is read only if the ones before it are a binary's, so none behind the end of a text.
        if (0..4).all(|i| unsafe { bytes.cast::<u8>().add(i).read() } == b"\x7fELF"[i]) {
            return failed(Status::NoBinaryForGpu, "a cubin cannot be emulated: load PTX");
        }
        let handle = device()?.load(text(bytes, "the PTX")?)?;
        give!(module, handle as Handle)
    }
    /// Ends a module.
    fn cuModuleUnload(module: Handle) { device()?.unload(module as u64) }
    /// A kernel by its name.
    fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) {
        let handle = device()?.function(module as u64, text(name, "a kernel's name")?)?;
        give!(function, handle as Handle)
    }
    /// A variable by its name.
    fn cuModuleGetGlobal_v2(address: *mut u64, size: *mut usize, module: Handle, name: *const c_char) {
        let name = text(name, "a variable's name")?;
        let state = device()?;
        let found = state.modules.get(&(module as u64)).and_then(|m| m.variables.iter().find(|(n, ..)| n == name));
        let Some((_, at, bytes)) = found else {
            return failed(Status::NotFound, format!("no variable {name} in the module"));
        };
        if !size.is_null() {
            give!(size, *bytes)?;
        }
        give!(address, *at)
    }
    /// Only the limit of dynamic shared memory can be set; the carve-out is a hint.
    fn cuFuncSetAttribute(function: Handle, attribute: c_int, value: c_int) {
        let mut state = device()?;
        let function = state.known_function(function as u64)?;
        match attribute {
            8 if (0..=SHARED_LIMIT as c_int).contains(&value) => function.dynamic_limit = value as usize,
            8 => return failed(Status::InvalidValue, format!("{value} bytes of dynamic shared memory, of at most {SHARED_LIMIT}")),
            9 => {}
            _ => return failed(Status::InvalidValue, format!("function attribute {attribute} cannot be set")),
        }
        Ok(())
    }
    /// Threads, shared and local memory of a kernel. Registers are the PTX's, before any allocation.
    fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: Handle) {
        let mut state = device()?;
        let function = state.known_function(function as u64)?;
        let found = match attribute {
            0 if function.kernel.max_threads > 0 => function.kernel.max_threads as usize,
            0 => 1024,
            1 => function.kernel.dynamic_shared,
            3 => function.kernel.frame,
            4 => function.kernel.registers,
            8 => function.dynamic_limit,
            _ => return failed(Status::InvalidValue, format!("function attribute {attribute} is not emulated")),
        };
        give!(value, found as c_int)
    }
    /// Runs a kernel.
    fn cuLaunchKernel(
        function: Handle, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared: c_uint, stream: Handle, arguments: *mut *mut c_void, _extra: *mut *mut c_void,
    ) {
        let mut state = device()?;
        let kernel = state.known_function(function as u64)?.kernel.clone();
        if arguments.is_null() && !kernel.params.is_empty() {
            let wanted = kernel.params.len();
            return failed(Status::InvalidValue, format!("no arguments for {}, which has {wanted}", kernel.name));
        }
        let mut params = vec![0; kernel.params.last().map_or(0, |last| last.offset + last.size)];
        for (i, param) in kernel.params.iter().enumerate() {
            // SAFETY: the caller promised as many pointers as the kernel has parameters, each to a value of its type.
            let value: *const u8 = unsafe { arguments.add(i).read() }.cast();
            // SAFETY: as above; `params` has room for every parameter.
            unsafe { std::ptr::copy_nonoverlapping(value, params[param.offset..].as_mut_ptr(), param.size) };
        }
        let launch = Launch {
            grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], dynamic_shared: shared as usize, params,
        };
        state.launch(function as u64, launch, stream as u64)
    }

    /// The constant's name.
    fn cuGetErrorName(error: c_int, name: *mut *const c_char) {
        give!(name, match error {
            0 => c"CUDA_SUCCESS",
            1 => c"CUDA_ERROR_INVALID_VALUE",
            2 => c"CUDA_ERROR_OUT_OF_MEMORY",
            100 => c"CUDA_ERROR_NO_DEVICE",
            101 => c"CUDA_ERROR_INVALID_DEVICE",
            201 => c"CUDA_ERROR_INVALID_CONTEXT",
            209 => c"CUDA_ERROR_NO_BINARY_FOR_GPU",
            218 => c"CUDA_ERROR_INVALID_PTX",
            400 => c"CUDA_ERROR_INVALID_HANDLE",
            500 => c"CUDA_ERROR_NOT_FOUND",
            719 => c"CUDA_ERROR_LAUNCH_FAILED",
            900 => c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
            _ => c"CUDA_ERROR_UNKNOWN",
        }.as_ptr())
    }
    /// What went wrong last on this thread, in words: with the kernel, the thread and the lines.
    fn cuGetErrorString(_error: c_int, string: *mut *const c_char) {
        thread_local! {
            static SHOWN: std::cell::RefCell<CString> = std::cell::RefCell::default();
        }
        SHOWN.set(LAST.with_borrow(Clone::clone));
        give!(string, SHOWN.with_borrow(|shown| shown.as_ptr()))
    }
}
