//! A `libcublasLt.so` for the emulated device: the matrix product, with plain loops on the host.
//!
//! Memory is read and written by the driver's copies, so a product outside of a buffer is an error here too. What is not
//! emulated (other dtypes, batches, epilogues but a bias, capture in a graph) is refused with
//! `CUBLAS_STATUS_NOT_SUPPORTED`, never guessed.

mod api;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::sync::OnceLock;

/// Makes `dlopen("libcublasLt.so")` find the emulator's, in the whole process.
///
/// # Panics
/// When the shared library is not beside the test binary: the package must be a dependency of what is built.
pub fn install() {
    library();
}

/// How often an algorithm was searched for.
pub fn searches() -> u64 {
    // SAFETY: the function is this package's, with this type.
    unsafe {
        let read = library().get::<unsafe extern "C" fn() -> u64>(b"vitrine_emulator_cublaslt_searches\0");
        read.expect("internal: the library is this package")()
    }
}

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let executable = std::env::current_exe().expect("a process has an executable");
        let folder = executable.parent().expect("a file has a folder");
        let path = folder.join("libvitrine_emulator_cublaslt.so");
        // SAFETY: the library is this package; its initialisers do nothing.
        unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}
