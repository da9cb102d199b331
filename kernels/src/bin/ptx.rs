//! Generates `ptx/*.ptx` from the `.cu` files with NVRTC 12.4, or compares them; prints what ptxas says of real `sm_80` and
//! `sm_90a` compiles. See the README for the wheels.

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ptx: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let (mut check, mut wheels) = (false, std::env::var_os("VITRINE_CUDA_WHEELS").map(PathBuf::from));
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--check") => check = true,
            Some("--wheels") => wheels = arguments.next().map(PathBuf::from),
            _ => return Err(format!("unknown argument {argument:?}; use --check, --wheels DIR").into()),
        }
    }
    let wheels = wheels.ok_or("where are the NVRTC wheels? Give --wheels DIR or VITRINE_CUDA_WHEELS")?;
    let nvrtc = Nvrtc::open(&wheels.join("nvidia"))?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut problems = Vec::new();
    println!("{:<44}{:>8}{:>10}{:>10}{:>8}", "kernel", "device", "registers", "shared", "spills");
    for path in sources(folder)? {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        for device in ["sm_80", "sm_90a"] {
            for row in resources(&nvrtc.compile(&path, device)?.log) {
                println!(
                    "{:<44}{device:>8}{:>10}{:>10}{:>8}",
                    row.kernel, row.registers, row.shared, row.spills
                );
                if row.spills > 0 {
                    problems.push(format!("{} spills on {device}", row.kernel));
                }
            }
        }
        let ptx =
            format!("// sha256 {}\n{}", hash(&path)?, relative(&nvrtc.compile(&path, "compute_80")?.ptx));
        let target = folder.join("ptx").join(format!("{name}.ptx"));
        if check {
            if fs::read_to_string(&target).ok().as_deref() != Some(&ptx) {
                problems.push(format!("{name}.ptx differs from its source: run this without --check"));
            }
        } else {
            fs::write(&target, ptx)?;
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ").into()) }
}

include!("../hash.rs");

/// `.file` lines with base names only: no path of the machine that generated them.
fn relative(ptx: &str) -> String {
    let mut out = String::with_capacity(ptx.len());
    for line in ptx.trim_end_matches('\0').lines() {
        match (line.trim_start().starts_with(".file"), line.find('"'), line.rfind('/')) {
            (true, Some(open), Some(slash)) => {
                out.push_str(&line[..=open]);
                out.push_str(&line[slash + 1..]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

struct Resources {
    kernel: String,
    registers: u32,
    shared: u32,
    spills: u32,
}

/// Reads the log of `--ptxas-options=-v`.
fn resources(log: &str) -> Vec<Resources> {
    let number_before = |line: &str, word: &str| -> u32 {
        let before = line.find(word).map_or("", |at| line[..at].trim_end());
        before.rsplit([' ', ',']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let mut rows: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            rows.push(Resources { kernel, registers: 0, shared: 0, spills: 0 });
        }
        let Some(row) = rows.last_mut() else { continue };
        row.registers = row.registers.max(number_before(line, "registers"));
        row.shared = row.shared.max(number_before(line, "bytes smem"));
        row.spills = row.spills.max(number_before(line, "bytes spill stores"));
        row.spills = row.spills.max(number_before(line, "bytes spill loads"));
    }
    rows
}

// ---- NVRTC, by hand: seven functions ----

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

struct Nvrtc {
    create: Symbol<Create>,
    compile: Symbol<Compile>,
    log: [(Symbol<Size>, Symbol<Text>); 2],
    destroy: Symbol<Destroy>,
    include: PathBuf,
}

struct Compiled {
    ptx: String,
    log: String,
}

impl Nvrtc {
    /// Opens the library below `nvidia/` of a folder that the wheels were unpacked into.
    fn open(nvidia: &Path) -> Outcome<Self> {
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

    fn compile(&self, path: &Path, device: &str) -> Outcome<Compiled> {
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
