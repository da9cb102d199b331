//! Which instruction set the CPU kernels run on: detected, forced by `VITRINE_ISA`, or forced for a test.
//!
//! [`Isa`] is a name. [`Available`] is one whose instructions this machine has: only detection makes it, and only with it can
//! safe code enter a kernel. An operation takes [`Isa::current`] once, on the thread that calls it, and passes it to its workers.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// The environment variable that forces an instruction set.
pub const VARIABLE: &str = "VITRINE_ISA";

/// An instruction set with kernels of its own, in ascending order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable Rust, vectorised as far as the compiler can.
    Scalar,
    /// 128-bit vectors of ARM's AArch64.
    Neon,
    /// 256-bit vectors of x86-64: AVX2, FMA and F16C.
    Avx2,
    /// 512-bit vectors of x86-64: AVX-512 F, BW, DQ and VL.
    Avx512,
    /// [`Isa::Avx512`] with dot products of bfloat16 pairs, and conversions to them.
    Avx512Bf16,
    /// [`Isa::Avx512Bf16`] with the bfloat16 tile registers of AMX.
    Amx,
}

impl Isa {
    /// Every instruction set that the crate knows, whether this build and machine have it or not.
    pub const ALL: [Isa; 6] = [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The name that [`VARIABLE`] takes: `scalar`, `neon`, `avx2`, `avx512`, `avx512bf16` or `amx`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
        }
    }

    /// Whether this build has kernels for it and this machine can run them.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Isa::Avx512.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Isa::Amx => Isa::Avx512Bf16.is_available() && amx::is_available(),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The instruction sets that this machine can run, in ascending order of preference; never empty.
    pub fn available() -> Vec<Available> {
        Isa::ALL.into_iter().filter_map(Isa::if_available).collect()
    }

    /// The permission to run its kernels, if this machine can.
    pub fn if_available(self) -> Option<Available> {
        self.is_available().then_some(Available(self))
    }

    /// The best instruction set of this machine.
    pub fn detect() -> Available {
        static BEST: OnceLock<Available> = OnceLock::new();
        *BEST.get_or_init(|| Isa::available().into_iter().max().unwrap_or(Available::SCALAR))
    }

    /// The instruction set that kernels called from this thread use now: [`with_isa`]'s, else [`VARIABLE`]'s, else the
    /// best one. A [`VARIABLE`] that cannot be honoured counts as absent here: binaries refuse it with [`from_env`].
    pub fn current() -> Available {
        static PROCESS: OnceLock<Available> = OnceLock::new();
        FORCED.get().unwrap_or_else(|| *PROCESS.get_or_init(|| from_env().unwrap_or_else(|_| Isa::detect())))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An instruction set that this machine was found to have.
///
/// Its field is private to this file, where only [`Isa::if_available`] fills it after looking at the processor: what the
/// `unsafe` blocks that enter kernels rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Available(Isa);

impl Available {
    /// Every machine has it.
    pub const SCALAR: Available = Available(Isa::Scalar);

    /// Which one.
    pub fn isa(self) -> Isa {
        self.0
    }

    /// As [`Isa::name`].
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The instruction set whose products of reals it runs: those of bfloat16 are what the better ones add.
    pub fn vectors(self) -> Available {
        match self.0 {
            // A machine has these only if it has AVX-512: see `Isa::is_available`.
            Isa::Avx512Bf16 | Isa::Amx => Available(Isa::Avx512),
            _ => self,
        }
    }
}

impl fmt::Display for Available {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Available {
    type Err = UnsupportedIsa;

    /// Parses a name and checks that this machine can run it.
    fn from_str(name: &str) -> Result<Self, UnsupportedIsa> {
        let known = Isa::ALL.into_iter().find(|isa| isa.name() == name);
        match known {
            Some(isa) => isa.if_available().ok_or_else(|| UnsupportedIsa::Unavailable { name: name.into() }),
            None => Err(UnsupportedIsa::Unknown { name: name.into() }),
        }
    }
}

/// An instruction set was asked for that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedIsa {
    /// A known name, but not for this build or machine.
    #[error("{VARIABLE}={name} is not supported by this build or machine; available: {}", available_names())]
    Unavailable {
        /// The name that was asked for.
        name: String,
    },
    /// Not the name of an instruction set.
    #[error("{VARIABLE}={name} names no instruction set; available: {}", available_names())]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
}

fn available_names() -> String {
    Isa::available().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
}

/// The instruction set that this process uses: [`VARIABLE`]'s if it is set and not empty, else the best one.
///
/// Binaries call it first, so that a forced path is the one that runs.
///
/// # Errors
/// [`UnsupportedIsa`] if the variable names something else than an instruction set of this machine.
pub fn from_env() -> Result<Available, UnsupportedIsa> {
    match std::env::var_os(VARIABLE) {
        Some(name) if !name.is_empty() => name.to_string_lossy().parse(),
        _ => Ok(Isa::detect()),
    }
}

/// The paths that a test goes through: the instruction set that [`VARIABLE`] forces, else every one of this machine.
///
/// Tests that call it are in modules (or have names) with `every_path`, and are run on processors that the machine at hand
/// is not by `.ci/every-path`.
pub fn every_path() -> Vec<Available> {
    match std::env::var_os(VARIABLE) {
        Some(name) if !name.is_empty() => {
            vec![
                from_env()
                    .unwrap_or_else(|error| panic!("a test was to run on one instruction set: {error}")),
            ]
        }
        _ => Isa::available(),
    }
}

thread_local! {
    static FORCED: Cell<Option<Available>> = const { Cell::new(None) };
}

/// Runs `body` with [`Isa::current`] answering `isa` on this thread: how tests and benches reach every path.
pub fn with_isa<R>(isa: Available, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<Available>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    let _restore = Restore(FORCED.replace(Some(isa)));
    body()
}

/// AMX: the processor announces it, and the kernel must be asked for its 8 KiB of registers a thread.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    use std::sync::OnceLock;

    /// Leaf 7, EDX: AMX-BF16 and AMX-TILE (Intel SDM, volume 2A, CPUID).
    const FEATURES: u32 = 1 << 22 | 1 << 24;
    /// Leaf 1, ECX: the operating system uses XSAVE.
    const OSXSAVE: u32 = 1 << 27;
    /// The tile configuration and the tile data in XCR0.
    const STATE: u64 = 1 << 17 | 1 << 18;
    /// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`: Linux, Documentation/arch/x86/xstate.rst.
    const ARCH_PRCTL: usize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_DATA: usize = 18;

    /// Whether tiles may be used; asks for the permission, once, for all threads of the process.
    pub(super) fn is_available() -> bool {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        *AVAILABLE.get_or_init(|| processor_has_it() && request_permission())
    }

    fn processor_has_it() -> bool {
        if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
            return false;
        }
        // SAFETY: the operating system has enabled XSAVE, so XGETBV exists.
        let state = unsafe { xgetbv0() };
        __cpuid_count(7, 0).edx & FEATURES == FEATURES && state & STATE == STATE
    }

    /// # Safety
    /// The operating system has enabled XSAVE.
    #[target_feature(enable = "xsave")]
    unsafe fn xgetbv0() -> u64 {
        // SAFETY: passed on from the caller.
        unsafe { _xgetbv(0) }
    }

    fn request_permission() -> bool {
        let result: isize;
        // SAFETY: a system call that reads and writes no memory of ours; RCX and R11 are its only other outputs.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") REQUEST_PERMISSION,
                in("rsi") TILE_DATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        result == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for isa in Isa::available() {
            assert_eq!(isa.name().parse(), Ok(isa));
            assert_eq!(format!("{isa:>8}").trim(), isa.name());
        }
        assert_eq!(Isa::available().last(), Some(&Isa::detect()));
    }

    #[test]
    fn names_that_cannot_be_honoured_are_refused() {
        for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
            let error = isa.name().parse::<Available>().unwrap_err().to_string();
            assert!(error.contains(isa.name()) && error.contains("not supported"), "{error}");
        }
        let error = "sse9".parse::<Available>().unwrap_err().to_string();
        assert!(error.contains("sse9") && error.contains("scalar"), "{error}");
    }

    #[test]
    fn forcing_is_scoped_and_survives_a_panic() {
        let before = Isa::current();
        assert_eq!(with_isa(Available::SCALAR, Isa::current), Available::SCALAR);
        assert_eq!(Isa::current(), before);
        let panicked = std::panic::catch_unwind(|| with_isa(Available::SCALAR, || panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(Isa::current(), before);
    }
}
