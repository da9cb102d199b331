//! NVRTC, by hand: seven functions.

use crate::Outcome;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use vitrine_kernels::generate::OPTIONS;

type Program = *mut c_void;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;

pub struct Nvrtc {
    create: Symbol<Create>,
    compile: Symbol<Compile>,
    log: [(Symbol<Size>, Symbol<Text>); 2],
    destroy: Symbol<Destroy>,
    include: PathBuf,
}

pub struct Compiled {
    pub ptx: String,
    pub log: String,
}

impl Nvrtc {
    /// Opens the library below `nvidia/` of a folder that the wheels were unpacked into.
    pub fn open(nvidia: &Path) -> Outcome<Self> {
        let lib = nvidia.join("cuda_nvrtc/lib");
        // Builtins first, as NVRTC looks for it by name. Both stay loaded for the life of the process.
        let open = |name: &str| {
            let path = lib.join(name);
            // SAFETY: NVIDIA's libraries, whose initialisers have no preconditions.
            unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }
                .map_err(|_| format!("cannot load {}: unpack the wheels of the README there", path.display()))
        };
        std::mem::forget(open("libnvrtc-builtins.so.12.4")?);
        let library = open("libnvrtc.so.12")?;
        // SAFETY: the types are those of nvrtc.h of CUDA 12.4.
        let nvrtc = unsafe {
            Nvrtc {
                create: library.get(b"nvrtcCreateProgram")?,
                compile: library.get(b"nvrtcCompileProgram")?,
                log: [
                    (library.get(b"nvrtcGetProgramLogSize")?, library.get(b"nvrtcGetProgramLog")?),
                    (library.get(b"nvrtcGetPTXSize")?, library.get(b"nvrtcGetPTX")?),
                ],
                destroy: library.get(b"nvrtcDestroyProgram")?,
                include: nvidia.join("cuda_runtime/include"),
            }
        };
        std::mem::forget(library);
        Ok(nvrtc)
    }

    pub fn compile(&self, path: &Path, device: &str) -> Outcome<Compiled> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut options: Vec<String> = OPTIONS.iter().map(|option| (*option).to_owned()).collect();
        options.push(format!("--gpu-architecture={device}"));
        options.push(format!("--include-path={}", folder.display()));
        options.push(format!("--include-path={}", self.include.display()));
        if device.starts_with("sm_") {
            options.push("--ptxas-options=-v".into());
        }
        let options: Vec<CString> = options.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        let pointers: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        let source = CString::new(fs::read_to_string(path)?)?;
        let name = CString::new(path.file_name().and_then(|name| name.to_str()).unwrap_or_default())?;
        let mut program = std::ptr::null_mut();
        // SAFETY: all pointers are to NUL-terminated strings that outlive the calls; the program is destroyed once.
        unsafe {
            let none = std::ptr::null();
            if (self.create)(&raw mut program, source.as_ptr(), name.as_ptr(), 0, none, none) != 0 {
                return Err("NVRTC could not make a program".into());
            }
            let status = (self.compile)(program, pointers.len() as c_int, pointers.as_ptr());
            let log = text(program, &self.log[0])?;
            let ptx = if status == 0 { text(program, &self.log[1])? } else { String::new() };
            (self.destroy)(&raw mut program);
            if status == 0 { Ok(Compiled { ptx, log }) } else { Err(log.into()) }
        }
    }
}

/// Asks for a text's size, then for the text.
///
/// # Safety
/// `program` is alive and the functions are a pair of NVRTC's.
unsafe fn text(program: Program, (size, get): &(Symbol<Size>, Symbol<Text>)) -> Outcome<String> {
    let mut len = 0;
    // SAFETY: by the caller; the buffer has the size that NVRTC asked for, and one more byte, which stays 0.
    let buffer = unsafe {
        size(program, &raw mut len);
        let mut buffer = vec![0u8; len + 1];
        get(program, buffer.as_mut_ptr().cast());
        buffer
    };
    Ok(CStr::from_bytes_until_nul(&buffer)?.to_str()?.to_owned())
}
