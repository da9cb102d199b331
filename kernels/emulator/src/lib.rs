//! Runs CUDA kernels on the CPU: the very PTX, through the very driver calls, with every access checked.
//!
//! The package is built twice. As a shared library it *is* `libcuda.so`: a driver with one device, whose kernels are
//! interpreted ([`ptx`] loads them, [`machine`] runs them, [`driver`] is the API). As a Rust library it has [`install`], which
//! loads that library before cudarc does, and [`take_findings`], which asks it what it found. See the README.

pub mod driver;
pub mod finding;
pub mod machine;
pub mod ptx;

pub use finding::{Finding, FindingKind};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::OnceLock;

/// What the emulated device did so far, all threads together.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Kernels run, those of graphs included.
    pub launches: u64,
    /// Calls that allocate device or pinned memory.
    pub allocations: u64,
    /// Calls that wait for the device.
    pub synchronisations: u64,
    /// Copies between host and device or on the device.
    pub copies: u64,
    /// Graphs run.
    pub graph_launches: u64,
    /// Instructions of warps.
    pub instructions: u64,
}

static LIBRARY: OnceLock<Library> = OnceLock::new();

/// Makes `dlopen("libcuda.so")` find the emulator, from now on and in the whole process: the name is that of a library that
/// is loaded already. Call it before anything touches CUDA. A real driver is out of reach afterwards.
///
/// # Panics
/// When the shared library is not beside the test binary: the package must be a dependency of what is built.
pub fn install() {
    LIBRARY.get_or_init(|| {
        let path = shared_library();
        // SAFETY: the library is this package; its initialisers do nothing.
        unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    });
}

/// Cargo puts it into `target/PROFILE/deps`, where test binaries are too.
fn shared_library() -> PathBuf {
    let executable = std::env::current_exe().expect("a process has an executable");
    let folder = executable.parent().expect("a file has a folder");
    let name = "libvitrine_emulator.so";
    let found = [folder.join(name), folder.join("deps").join(name)].into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not in {}", folder.display()))
}

/// A function of the shared library, which has state of its own.
fn function<F: Copy>(name: &str) -> F {
    install();
    let library = LIBRARY.get().expect("internal: installed above");
    // SAFETY: the callers below name functions of this package with their types.
    *unsafe { library.get(name.as_bytes()) }.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The bugs found in launches of this thread since the last call.
pub fn take_findings() -> Vec<Finding> {
    let visit: VisitFindings = function("vitrine_emulator_visit_findings");
    let mut found: Vec<Finding> = Vec::new();
    // SAFETY: both sides are the same build of this package, so a `Finding` has one layout; `keep` clones it.
    unsafe { visit((&raw mut found).cast(), keep) };
    found
}

/// What the device did so far.
pub fn counters() -> Counters {
    let read: unsafe extern "C" fn(*mut Counters) = function("vitrine_emulator_counters");
    let mut counters = Counters::default();
    // SAFETY: there is room for the counters.
    unsafe { read(&raw mut counters) };
    counters
}

/// The names of the kernels that ran so far, in order: for a test that no kernel is left without one.
pub fn launched() -> Vec<String> {
    let visit: VisitNames = function("vitrine_emulator_visit_launched");
    let mut names: Vec<String> = Vec::new();
    // SAFETY: both sides are the same build of this package; `keep_name` copies the bytes.
    unsafe { visit((&raw mut names).cast(), keep_name) };
    names
}

/// Sets how much memory the device has, in bytes; 16 GiB at first.
pub fn set_capacity(bytes: usize) {
    let set: extern "C" fn(usize) = function("vitrine_emulator_set_capacity");
    set(bytes);
}

type VisitFindings = unsafe extern "C" fn(*mut c_void, unsafe extern "C" fn(*mut c_void, *const Finding));

unsafe extern "C" fn keep(found: *mut c_void, finding: *const Finding) {
    // SAFETY: `take_findings` gave the vector, and the visitor gives a finding that lives during the call.
    unsafe { (*found.cast::<Vec<Finding>>()).push((*finding).clone()) };
}

type VisitNames = unsafe extern "C" fn(*mut c_void, unsafe extern "C" fn(*mut c_void, *const u8, usize));

unsafe extern "C" fn keep_name(names: *mut c_void, start: *const u8, len: usize) {
    // SAFETY: `launched` gave the vector, and the visitor gives bytes that live during the call.
    let (names, bytes) =
        unsafe { (&mut *names.cast::<Vec<String>>(), std::slice::from_raw_parts(start, len)) };
    names.push(String::from_utf8_lossy(bytes).into_owned());
}

/// Calls `visit` with the first byte and the length of the name of each kernel that ran.
///
/// # Safety
/// `visit` accepts `context`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitrine_emulator_visit_launched(
    context: *mut c_void,
    visit: unsafe extern "C" fn(*mut c_void, *const u8, usize),
) {
    for name in &driver::state().launched {
        // SAFETY: promised by the caller.
        unsafe { visit(context, name.as_ptr(), name.len()) };
    }
}

/// Calls `visit` with each finding of this thread, and forgets them.
///
/// # Safety
/// `visit` accepts `context`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitrine_emulator_visit_findings(
    context: *mut c_void,
    visit: unsafe extern "C" fn(*mut c_void, *const Finding),
) {
    for finding in driver::FINDINGS.take() {
        // SAFETY: promised by the caller.
        unsafe { visit(context, &raw const finding) };
    }
}

/// Writes the counters.
///
/// # Safety
/// `counters` has room for them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vitrine_emulator_counters(counters: *mut Counters) {
    // SAFETY: promised by the caller.
    unsafe { counters.write(driver::state().counters) };
}

/// Sets how much memory the device has.
#[unsafe(no_mangle)]
pub extern "C" fn vitrine_emulator_set_capacity(bytes: usize) {
    driver::state().set_capacity(bytes);
}
