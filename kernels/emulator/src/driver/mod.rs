//! The driver API over one emulated device. Work is done at once, on the calling thread, in the order of the calls.
//!
//! [`api`] has the C functions, as `cuda.h` of CUDA 12.4 declares them; this file, what is behind them. Handles are numbers
//! that are looked up, so a stale one is an error and not a crash. Unlike a device's, an error is not sticky: the next launch
//! runs as if nothing had happened.

pub mod api;

use crate::Counters;
use crate::finding::Finding;
use crate::machine::memory::{BadAddress, DeviceMemory};
use crate::machine::{self, BLOCKS, Checks, Launch};
use crate::ptx::limits;
use crate::ptx::link::Kernel;
use crate::ptx::parser::Module;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{CString, c_int};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// A `CUresult` other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// An argument makes no sense.
    InvalidValue = 1,
    /// The device is full.
    OutOfMemory = 2,
    /// `VITRINE_EMULATOR_DEVICES=0`.
    NoDevice = 100,
    /// No device of this ordinal.
    InvalidDevice = 101,
    /// No context is current on the calling thread.
    InvalidContext = 201,
    /// Not PTX, but a binary.
    NoBinaryForGpu = 209,
    /// PTX that the emulator does not understand.
    InvalidPtx = 218,
    /// A handle that does not exist, or no more.
    InvalidHandle = 400,
    /// No kernel or variable of this name.
    NotFound = 500,
    /// A kernel with a bug: see the findings.
    LaunchFailed = 719,
    /// What may not be done while a stream is captured.
    CaptureUnsupported = 900,
}

/// A failure: the code that the program gets, and the text of `cuGetErrorString`.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Status, pub(crate) String);

type Outcome<T = ()> = Result<T, Failure>;

fn failed<T>(status: Status, why: impl Into<String>) -> Outcome<T> {
    Err(Failure(status, why.into()))
}

thread_local! {
    /// The text of this thread's last failure.
    pub(crate) static LAST: RefCell<CString> = RefCell::default();
    /// This thread's findings.
    pub(crate) static FINDINGS: RefCell<Vec<Finding>> = const { RefCell::new(Vec::new()) };
}

/// What is done in order on a stream, and kept by a graph.
#[derive(Clone)]
enum Work {
    Launch {
        kernel: Arc<Kernel>,
        launch: Launch,
    },
    /// On this stream; on none, the call itself waits for the copy.
    ToDevice {
        to: u64,
        from: usize,
        size: usize,
        stream: Option<u64>,
    },
    ToHost {
        to: usize,
        from: u64,
        size: usize,
    },
    OnDevice {
        to: u64,
        from: u64,
        size: usize,
    },
    Fill {
        to: u64,
        pattern: Vec<u8>,
        count: usize,
    },
    Record {
        event: u64,
        stream: u64,
    },
}

/// A copy from page-locked memory that the host has not waited for yet. A device may read its source until then, so what was
/// there is kept, to be compared.
struct Flight {
    number: u64,
    stream: u64,
    from: usize,
    bytes: Vec<u8>,
}

/// A point in a stream, once it is recorded.
struct Event {
    /// Whether it may be asked for its time.
    timed: bool,
    recorded: Option<Recorded>,
}

#[derive(Clone, Copy)]
struct Recorded {
    at: Instant,
    stream: u64,
    /// The last flight before it.
    flight: u64,
}

struct LoadedModule {
    kernels: Vec<Arc<Kernel>>,
    variables: Vec<(String, u64, usize)>,
    functions: Vec<u64>,
}

#[derive(Clone)]
struct Function {
    kernel: Arc<Kernel>,
    dynamic_limit: usize,
}

/// Everything that exists on the device. Handles are keys.
#[derive(Default)]
pub(crate) struct State {
    memory: DeviceMemory,
    next: u64,
    modules: HashMap<u64, LoadedModule>,
    functions: HashMap<u64, Function>,
    /// The work recorded so far, for a stream that is captured.
    streams: HashMap<u64, Option<Vec<Work>>>,
    events: HashMap<u64, Event>,
    graphs: HashMap<u64, Vec<Work>>,
    pinned: HashMap<usize, Layout>,
    flights: Vec<Flight>,
    last_flight: u64,
    pub(crate) counters: Counters,
    /// The names of kernels that ran.
    pub(crate) launched: BTreeSet<String>,
    checks: Checks,
}

/// The device, one for the process.
pub(crate) fn state() -> MutexGuard<'static, State> {
    static STATE: OnceLock<Mutex<State>> = OnceLock::new();
    let state = STATE.get_or_init(|| {
        let memory = std::env::var("VITRINE_EMULATOR_CHECKS").as_deref() != Ok("0");
        let mut state = State { checks: Checks { memory, ..Checks::default() }, ..State::default() };
        if let Some(bytes) = std::env::var("VITRINE_EMULATOR_MEMORY").ok().and_then(|text| text.parse().ok())
        {
            state.set_capacity(bytes);
        }
        Mutex::new(state)
    });
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Static and dynamic shared memory of a block without asking for more.
const SHARED_DEFAULT: usize = 48 << 10;
/// The most that a block can ask for.
pub(crate) const SHARED_LIMIT: usize = limits::SHARED;
/// The most blocks along x, y, z.
pub(crate) const GRID_LIMIT: [u32; 3] = [i32::MAX as u32, 65535, 65535];
/// The most threads of a block along x, y, z.
pub(crate) const BLOCK_LIMIT: [u32; 3] = [1024, 1024, 64];

impl State {
    fn handle(&mut self) -> u64 {
        self.next += 1;
        // Small numbers stand for the default streams.
        0x1000 + 16 * self.next
    }

    pub(crate) fn set_capacity(&mut self, bytes: usize) {
        self.memory.set_capacity(bytes);
    }

    pub(crate) fn memory_info(&self) -> (usize, usize) {
        (self.memory.capacity().saturating_sub(self.memory.used()), self.memory.capacity())
    }

    // ---- Memory ----

    fn allocate(&mut self, size: usize) -> Outcome<u64> {
        if size == 0 {
            return failed(Status::InvalidValue, "an allocation of 0 bytes");
        }
        self.counters.allocations += 1;
        match self.memory.allocate(size) {
            Some(address) => Ok(address),
            None => {
                let (free, total) = self.memory_info();
                failed(Status::OutOfMemory, format!("{size} bytes asked for, {free} of {total} free"))
            }
        }
    }

    fn free(&mut self, address: u64) -> Outcome {
        if address == 0 {
            return Ok(());
        }
        self.memory.free(address).or_else(|bad| {
            let (BadAddress::Freed(text) | BadAddress::Nowhere(text)) = bad;
            failed(Status::InvalidValue, format!("free of what is not the start of a buffer: {text}"))
        })
    }

    /// Page-locked host memory; kernels may use its address.
    fn allocate_host(&mut self, size: usize) -> Outcome<usize> {
        self.counters.allocations += 1;
        let layout = Layout::from_size_align(size.max(1), 256)
            .map_err(|e| Failure(Status::OutOfMemory, e.to_string()))?;
        // SAFETY: the layout has at least one byte.
        let pointer = unsafe { alloc_zeroed(layout) };
        if pointer.is_null() {
            return failed(Status::OutOfMemory, format!("{size} bytes of host memory"));
        }
        // SAFETY: freed together with the buffer, in `free_host`.
        unsafe { self.memory.adopt_host(pointer, layout.size()) };
        self.pinned.insert(pointer as usize, layout);
        Ok(pointer as usize)
    }

    fn free_host(&mut self, pointer: usize) -> Outcome {
        let Some(layout) = self.pinned.remove(&pointer) else {
            return failed(Status::InvalidValue, "free of host memory that was not allocated here");
        };
        // The driver waits until nothing uses the memory.
        self.land(|flight| (pointer..pointer + layout.size()).contains(&flight.from))?;
        self.free(pointer as u64)?;
        // SAFETY: allocated with this layout by `allocate_host`, and no longer known to anyone.
        unsafe { dealloc(pointer as *mut u8, layout) };
        Ok(())
    }

    /// The bytes of a device range, for a copy.
    fn range(&mut self, address: u64, size: usize, writes: bool) -> Outcome<&mut [u8]> {
        let (buffer, start) = self.memory.find(address, size).map_err(|bad| {
            let (BadAddress::Freed(text) | BadAddress::Nowhere(text)) = bad;
            Failure(Status::InvalidValue, format!("copy outside of device memory: {text}"))
        })?;
        if writes {
            buffer.mark_written(start, size);
        }
        Ok(&mut buffer.bytes_mut()[start..start + size])
    }

    /// Ends flights, which the host has waited for: their sources must still hold what the device was to read.
    fn land(&mut self, which: impl Fn(&Flight) -> bool) -> Outcome {
        for Flight { from, bytes, .. } in self.flights.extract_if(.., |flight| which(flight)) {
            // SAFETY: the source lies in page-locked memory of `pinned`, whose release waits for its flights.
            let now = unsafe { std::slice::from_raw_parts(from as *const u8, bytes.len()) };
            if let Some(at) = now.iter().zip(&bytes).position(|(now, then)| now != then) {
                let size = bytes.len();
                let text = format!(
                    "byte {at} of {size} of page-locked memory was written while a copy to the device could still read it"
                );
                return failed(Status::LaunchFailed, text);
            }
        }
        Ok(())
    }

    /// The host waits for a stream.
    fn wait_for_stream(&mut self, stream: u64) -> Outcome {
        self.counters.synchronisations += 1;
        self.not_capturing(stream, "synchronising")?;
        self.land(|flight| flight.stream == stream)
    }

    /// The host waits for an event; one that was never recorded is over.
    fn wait_for_event(&mut self, event: u64) -> Outcome {
        self.counters.synchronisations += 1;
        match self.event(event)?.recorded {
            Some(Recorded { stream, flight: last, .. }) => {
                self.land(|flight| flight.stream == stream && flight.number <= last)
            }
            None => Ok(()),
        }
    }

    /// The host waits for everything.
    fn wait(&mut self) -> Outcome {
        self.counters.synchronisations += 1;
        self.land(|_| true)
    }

    fn event(&mut self, event: u64) -> Outcome<&mut Event> {
        self.events
            .get_mut(&event)
            .ok_or(Failure(Status::InvalidHandle, "an event that does not exist".into()))
    }

    // ---- Streams, events, graphs ----

    fn stream(&mut self, stream: u64) -> Outcome<Option<&mut Option<Vec<Work>>>> {
        if stream < 16 {
            return Ok(None);
        }
        match self.streams.get_mut(&stream) {
            Some(found) => Ok(Some(found)),
            None => failed(Status::InvalidHandle, "a stream that does not exist"),
        }
    }

    fn is_capturing(&mut self, stream: u64) -> Outcome<bool> {
        Ok(self.stream(stream)?.is_some_and(|stream| stream.is_some()))
    }

    fn not_capturing(&mut self, stream: u64, what: &str) -> Outcome {
        if self.is_capturing(stream)? {
            return failed(Status::CaptureUnsupported, format!("{what} while the stream is captured"));
        }
        Ok(())
    }

    /// Does work now, or records it for a graph.
    fn submit(&mut self, stream: u64, work: Work) -> Outcome {
        if let Some(Some(recorded)) = self.stream(stream)? {
            recorded.push(work);
            return Ok(());
        }
        self.perform(&work)
    }

    fn perform(&mut self, work: &Work) -> Outcome {
        match work {
            Work::Launch { kernel, launch } => {
                self.counters.launches += 1;
                if !self.launched.contains(&kernel.name) {
                    self.launched.insert(kernel.name.clone());
                }
                match machine::run(kernel, launch, self.checks, &mut self.memory) {
                    Ok(executed) => self.counters.instructions += executed,
                    Err(finding) => {
                        let text = finding.to_string();
                        FINDINGS.with_borrow_mut(|findings| findings.push(*finding));
                        return failed(Status::LaunchFailed, text);
                    }
                }
            }
            Work::ToDevice { to, from, size, stream } => {
                self.counters.copies += 1;
                let target = self.range(*to, *size, true)?;
                // SAFETY: the caller of the copy promised `size` readable bytes; a host range and a device buffer may be the
                // same pinned memory, so the copy allows overlap.
                unsafe { std::ptr::copy(*from as *const u8, target.as_mut_ptr(), *size) };
                let mut pinned = self.pinned.iter().map(|(&start, layout)| start..start + layout.size());
                if let Some(stream) = *stream
                    && pinned.any(|range| range.contains(from))
                {
                    let bytes = self.range(*to, *size, false)?.to_vec();
                    self.last_flight += 1;
                    self.flights.push(Flight { number: self.last_flight, stream, from: *from, bytes });
                }
            }
            Work::ToHost { to, from, size } => {
                self.counters.copies += 1;
                let source = self.range(*from, *size, false)?;
                // SAFETY: as above, with `size` writable bytes.
                unsafe { std::ptr::copy(source.as_ptr(), *to as *mut u8, *size) };
            }
            Work::OnDevice { to, from, size } => {
                self.counters.copies += 1;
                let bytes = self.range(*from, *size, false)?.to_vec();
                self.range(*to, *size, true)?.copy_from_slice(&bytes);
            }
            Work::Fill { to, pattern, count } => {
                let target = self.range(*to, pattern.len().saturating_mul(*count), true)?;
                match pattern[..] {
                    [byte] => target.fill(byte),
                    _ => target
                        .chunks_exact_mut(pattern.len())
                        .for_each(|chunk| chunk.copy_from_slice(pattern)),
                }
            }
            Work::Record { event, stream } => {
                let recorded = Recorded { at: Instant::now(), stream: *stream, flight: self.last_flight };
                self.event(*event)?.recorded = Some(recorded);
            }
        }
        Ok(())
    }

    // ---- Modules and launches ----

    fn load(&mut self, text: &str) -> Outcome<u64> {
        let invalid = |error: crate::ptx::PtxError| Failure(Status::InvalidPtx, error.to_string());
        let module = Module::parse(text).map_err(invalid)?;
        let mut loaded = LoadedModule { kernels: Vec::new(), variables: Vec::new(), functions: Vec::new() };
        let outcome = self.place(&module, &mut loaded.variables).and_then(|()| {
            let addresses: Vec<u64> = loaded.variables.iter().map(|(_, address, _)| *address).collect();
            loaded.kernels = module.link(&addresses).map_err(invalid)?.into_iter().map(Arc::new).collect();
            Ok(())
        });
        let handle = self.handle();
        self.modules.insert(handle, loaded);
        if let Err(failure) = outcome {
            self.unload(handle)?;
            return Err(failure);
        }
        Ok(handle)
    }

    /// Variables of a module, each in a buffer of its own.
    fn place(&mut self, module: &Module, placed: &mut Vec<(String, u64, usize)>) -> Outcome {
        for variable in &module.variables {
            let address = self.allocate(variable.size.max(1))?;
            placed.push((variable.name.clone(), address, variable.size));
            let target = self.range(address, variable.size, true)?;
            target.fill(0);
            target[..variable.data.len()].copy_from_slice(&variable.data);
            if variable.constant
                && let Ok((buffer, _)) = self.memory.find(address, 1)
            {
                buffer.constant = true;
            }
        }
        Ok(())
    }

    fn unload(&mut self, module: u64) -> Outcome {
        let Some(module) = self.modules.remove(&module) else {
            return failed(Status::InvalidHandle, "a module that does not exist");
        };
        for function in module.functions {
            self.functions.remove(&function);
        }
        module.variables.iter().try_for_each(|(_, address, _)| self.free(*address))
    }

    fn function(&mut self, module: u64, name: &str) -> Outcome<u64> {
        let handle = self.handle();
        let Some(module) = self.modules.get_mut(&module) else {
            return failed(Status::InvalidHandle, "a module that does not exist");
        };
        let Some(kernel) = module.kernels.iter().find(|kernel| kernel.name == name) else {
            return failed(Status::NotFound, format!("no kernel {name} in the module"));
        };
        self.functions.insert(handle, Function { kernel: kernel.clone(), dynamic_limit: SHARED_DEFAULT });
        module.functions.push(handle);
        Ok(handle)
    }

    fn known_function(&mut self, function: u64) -> Outcome<&mut Function> {
        self.functions
            .get_mut(&function)
            .ok_or(Failure(Status::InvalidHandle, "a function that does not exist".into()))
    }

    fn launch(&mut self, function: u64, launch: Launch, stream: u64) -> Outcome {
        let Function { kernel, dynamic_limit } = self.known_function(function)?.clone();
        let outside = |extents: [u32; 3], limits: [u32; 3]| {
            extents.iter().zip(limits).any(|(&extent, limit)| extent == 0 || extent > limit)
        };
        let product = |extents: [u32; 3]| extents.iter().map(|&n| u128::from(n)).product::<u128>();
        let most = if kernel.max_threads > 0 { kernel.max_threads } else { limits::THREADS as u32 };
        let wrong = if outside(launch.grid, GRID_LIMIT) {
            Some("is not a grid (at most 2^31 - 1, 65535, 65535; none 0)".to_string())
        } else if product(launch.grid) > u128::from(BLOCKS) {
            Some(format!("has {} blocks, of at most {BLOCKS} that are emulated", product(launch.grid)))
        } else if product(launch.block) > u128::from(most) {
            Some(format!("has {} threads in a block, of at most {most}", product(launch.block)))
        } else if outside(launch.block, BLOCK_LIMIT) {
            Some("is not a block (at most 1024, 1024, 64; none 0)".to_string())
        } else if launch.dynamic_shared > dynamic_limit {
            Some(format!(
                "asks for {} bytes of dynamic shared memory, of at most {dynamic_limit} (cuFuncSetAttribute raises it)",
                launch.dynamic_shared
            ))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let message =
                format!("{}: grid {:?}, block {:?} {wrong}", kernel.name, launch.grid, launch.block);
            return failed(Status::InvalidValue, message);
        }
        self.submit(stream, Work::Launch { kernel, launch })
    }
}

/// Turns an outcome into a `CUresult`, and keeps its text.
pub(crate) fn report(outcome: Outcome) -> c_int {
    match outcome {
        Ok(()) => 0,
        Err(Failure(status, text)) => {
            LAST.set(CString::new(text.replace('\0', " ")).unwrap_or_default());
            status as c_int
        }
    }
}
