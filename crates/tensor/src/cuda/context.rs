//! A CUDA device that is in use: its context, its one stream, its memory, and the kernels loaded so far.

use super::cublaslt::CublasLt;
use super::memory::{Pool, Staging};
use crate::{Device, Error, Result};
use cudarc::driver::{DriverError, result, sys};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vitrine_kernels::Module;

/// The oldest NVIDIA driver that can load the kernels (PTX ISA 8.4), by its own number.
pub const DRIVER_FLOOR: &str = "550";
/// The same as `cuDriverGetVersion` tells it: CUDA 12.4.
const VERSION_FLOOR: i32 = 12040;
const NO_DEVICE: &str = "the NVIDIA driver finds no device";
/// Compute capability of Ampere, where `cp.async` and bfloat16 products begin.
const CAPABILITY_FLOOR: (i32, i32) = (8, 0);

/// One device in use. Kept for the life of the process once opened.
pub(crate) struct Context {
    pub ordinal: usize,
    handle: sys::CUcontext,
    stream: sys::CUstream,
    functions: Mutex<HashMap<&'static str, Function>>,
    modules: Mutex<HashMap<&'static str, LoadedModule>>,
    pub pool: Mutex<Pool>,
    pub staging: Mutex<Staging>,
    /// NVIDIA's matrix product, where it is installed.
    pub cublaslt: Option<CublasLt>,
    /// How many blocks of threads run at once, roughly: multiprocessors.
    pub multiprocessors: usize,
}

/// A kernel that can be launched.
#[derive(Clone, Copy)]
pub(crate) struct Function(pub sys::CUfunction);

#[derive(Clone, Copy)]
struct LoadedModule(sys::CUmodule);

// SAFETY: the driver's handles may be used from any thread; the context is made current on each before use.
unsafe impl Send for Context {}
// SAFETY: as above; the maps and the pool are behind locks.
unsafe impl Sync for Context {}
// SAFETY: as above.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Send for LoadedModule {}

/// Bytes of dynamic shared memory that a kernel may have without an attribute that allows more.
pub(crate) const SHARED_DEFAULT: usize = 48 << 10;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are whole after any panic: every change is one insertion.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A failed call, as the crate's error.
pub(super) fn failed(ordinal: usize, what: &'static str) -> impl Fn(DriverError) -> Error {
    move |error| {
        let text = |found: std::result::Result<&std::ffi::CStr, DriverError>| {
            found.map_or_else(|_| "unknown error".into(), |text| text.to_string_lossy().into_owned())
        };
        let message = format!("{}: {}", text(error.error_name()), text(error.error_string()));
        Error::Cuda { device: Device::Cuda(ordinal), what, message }
    }
}

fn unavailable(ordinal: usize, why: impl Into<String>) -> Error {
    Error::CudaUnavailable { device: Device::Cuda(ordinal), why: why.into() }
}

/// Opens the driver. Without the probe, cudarc would panic where there is none.
fn open_driver(ordinal: usize) -> Result<()> {
    // SAFETY: only looks for the library.
    if !unsafe { sys::is_culib_present() } {
        let why =
            format!("no NVIDIA driver (libcuda.so) on this machine: install driver {DRIVER_FLOOR} or newer");
        return Err(unavailable(ordinal, why));
    }
    result::init().map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => unavailable(ordinal, NO_DEVICE),
        _ => failed(ordinal, "starting the driver")(error),
    })?;
    let mut version = 0;
    // SAFETY: there is room for the version.
    let status = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    status.result().map_err(failed(ordinal, "asking for the driver's version"))?;
    if version < VERSION_FLOOR {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        let why = format!(
            "the driver supports CUDA {major}.{minor}; the kernels need 12.4: install driver {DRIVER_FLOOR} or newer"
        );
        return Err(unavailable(ordinal, why));
    }
    Ok(())
}

/// How many CUDA devices there are.
///
/// # Errors
/// `CudaUnavailable` without a driver, or with one that is too old.
pub fn device_count() -> Result<usize> {
    open_driver(0)?;
    let count = result::device::get_count().map_err(failed(0, "counting devices"))?;
    Ok(count as usize)
}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of memory that are free.
    pub free: usize,
    /// Bytes of memory.
    pub total: usize,
    /// The driver's CUDA version, major and minor.
    pub driver: (i32, i32),
    /// Whether cuBLASLt was found and is used.
    pub cublaslt: bool,
}

/// What the device of this ordinal says of itself.
///
/// # Errors
/// `CudaUnavailable` when it cannot be used.
pub fn describe(ordinal: usize) -> Result<Description> {
    let context = Context::get(ordinal)?;
    let device = result::device::get(ordinal as i32).map_err(failed(ordinal, "finding the device"))?;
    let name = result::device::get_name(device).map_err(failed(ordinal, "asking for the device's name"))?;
    let (free, total) = context.memory()?;
    let mut version = 0;
    // SAFETY: there is room for the version.
    let status = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    status.result().map_err(failed(ordinal, "asking for the driver's version"))?;
    Ok(Description {
        name,
        capability: capability(ordinal, device)?,
        multiprocessors: context.multiprocessors,
        free,
        total,
        driver: (version / 1000, version % 1000 / 10),
        cublaslt: context.cublaslt.is_some(),
    })
}

/// Waits until everything asked of a device is done.
///
/// # Errors
/// The first error of that work.
pub fn synchronize(ordinal: usize) -> Result<()> {
    Context::get(ordinal)?.synchronize()
}

/// Seconds that a device takes for what `work` asks of it, between two events of its stream: launches that wait for the
/// host count, what the host does before the first one does not.
///
/// # Errors
/// Those of `work` and of the device.
pub fn seconds_of(ordinal: usize, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    struct Event(sys::CUevent);
    impl Drop for Event {
        fn drop(&mut self) {
            // SAFETY: made by `new`, destroyed once. An error here has no one to go to.
            let _ = unsafe { result::event::destroy(self.0) };
        }
    }
    let context = Context::get(ordinal)?;
    let new = || {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT);
        event.map(Event).map_err(failed(ordinal, "making an event"))
    };
    let record = |event: &Event| {
        // SAFETY: the event and the stream are alive.
        unsafe { result::event::record(event.0, context.stream()) }
            .map_err(failed(ordinal, "recording an event"))
    };
    let (start, end) = (new()?, new()?);
    record(&start)?;
    work()?;
    record(&end)?;
    // SAFETY: both events are alive and recorded.
    unsafe {
        result::event::synchronize(end.0).map_err(failed(ordinal, "waiting for an event"))?;
        let milliseconds = result::event::elapsed(start.0, end.0);
        Ok(f64::from(milliseconds.map_err(failed(ordinal, "timing"))?) / 1e3)
    }
}

fn attribute(ordinal: usize, device: sys::CUdevice, which: sys::CUdevice_attribute) -> Result<i32> {
    // SAFETY: the device exists.
    unsafe { result::device::get_attribute(device, which) }
        .map_err(failed(ordinal, "asking for a device's property"))
}

fn capability(ordinal: usize, device: sys::CUdevice) -> Result<(i32, i32)> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    Ok((attribute(ordinal, device, MAJOR)?, attribute(ordinal, device, MINOR)?))
}

thread_local! {
    /// The ordinal whose context is current on this thread.
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Context {
    /// The device of this ordinal, opened on first use.
    pub fn get(ordinal: usize) -> Result<Arc<Context>> {
        static OPEN: Mutex<Vec<(usize, Arc<Context>)>> = Mutex::new(Vec::new());
        let mut open = lock(&OPEN);
        let context = match open.iter().find(|(known, _)| *known == ordinal) {
            Some((_, context)) => context.clone(),
            None => {
                let context = Arc::new(Context::open(ordinal)?);
                open.push((ordinal, context.clone()));
                context
            }
        };
        drop(open);
        context.make_current()?;
        Ok(context)
    }

    fn open(ordinal: usize) -> Result<Self> {
        open_driver(ordinal)?;
        let count = result::device::get_count().map_err(failed(ordinal, "counting devices"))? as usize;
        match count {
            0 => return Err(unavailable(ordinal, NO_DEVICE)),
            _ if ordinal >= count => {
                let why = format!("no such CUDA device; the last one here is cuda:{}", count - 1);
                return Err(unavailable(ordinal, why));
            }
            _ => {}
        }
        let device = result::device::get(ordinal as i32).map_err(failed(ordinal, "finding the device"))?;
        let found = capability(ordinal, device)?;
        if found < CAPABILITY_FLOOR {
            let why = format!(
                "its compute capability is {}.{}; the kernels need 8.0 (Ampere) or newer",
                found.0, found.1
            );
            return Err(unavailable(ordinal, why));
        }
        let count = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = attribute(ordinal, device, count)? as usize;
        // SAFETY: the device exists.
        let handle =
            unsafe { result::primary_ctx::retain(device) }.map_err(failed(ordinal, "opening the device"))?;
        // SAFETY: the context was just retained, and is never released.
        unsafe { result::ctx::set_current(handle) }.map_err(failed(ordinal, "opening the device"))?;
        CURRENT.set(Some(ordinal));
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(failed(ordinal, "making a stream"))?;
        Ok(Context {
            ordinal,
            handle,
            stream,
            functions: Mutex::default(),
            modules: Mutex::default(),
            pool: Mutex::default(),
            staging: Mutex::default(),
            cublaslt: CublasLt::open()?,
            multiprocessors,
        })
    }

    /// Makes the context current on this thread, as the driver wants before any call.
    pub fn make_current(&self) -> Result<()> {
        if CURRENT.get() != Some(self.ordinal) {
            // SAFETY: the context is never released.
            unsafe { result::ctx::set_current(self.handle) }
                .map_err(failed(self.ordinal, "using the device"))?;
            CURRENT.set(Some(self.ordinal));
        }
        Ok(())
    }

    pub fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// Free and total bytes, as the driver counts them: blocks in the pool are not free.
    pub fn memory(&self) -> Result<(usize, usize)> {
        result::mem_get_info().map_err(failed(self.ordinal, "asking for the device's memory"))
    }

    pub fn synchronize(&self) -> Result<()> {
        self.make_current()?;
        // SAFETY: the stream lives as long as the context.
        unsafe { result::stream::synchronize(self.stream) }
            .map_err(failed(self.ordinal, "waiting for the device"))
    }

    /// An entry point, its module loaded on first use; a launch will have `shared` bytes of dynamic shared memory.
    pub fn function(&self, module: &Module, entry: &'static str, shared: usize) -> Result<Function> {
        let mut functions = lock(&self.functions);
        let function = match functions.get(entry) {
            Some(function) => *function,
            None => {
                let module = self.module(module)?;
                let name = CString::new(entry).expect("internal: kernels' names have no zero bytes");
                // SAFETY: the module is loaded and never unloaded.
                let found = unsafe { result::module::get_function(module.0, name) };
                let function = Function(found.map_err(failed(self.ordinal, "finding a kernel"))?);
                functions.insert(entry, function);
                function
            }
        };
        if shared > SHARED_DEFAULT {
            let limit = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function belongs to a loaded module.
            unsafe { result::function::set_function_attribute(function.0, limit, shared as i32) }
                .map_err(failed(self.ordinal, "asking for shared memory"))?;
        }
        Ok(function)
    }

    fn module(&self, module: &Module) -> Result<LoadedModule> {
        let mut modules = lock(&self.modules);
        if let Some(loaded) = modules.get(module.name) {
            return Ok(*loaded);
        }
        let ptx = module.ptx().map_err(|error| Error::Cuda {
            device: Device::Cuda(self.ordinal),
            what: "unpacking kernels",
            message: error.to_string(),
        })?;
        let text = CString::new(ptx).expect("internal: PTX has no zero bytes");
        // SAFETY: the image is PTX text that ends with a zero.
        let loaded = unsafe { result::module::load_data(text.as_ptr().cast::<c_void>()) };
        let loaded = LoadedModule(loaded.map_err(failed(self.ordinal, "loading kernels"))?);
        modules.insert(module.name, loaded);
        Ok(loaded)
    }
}
