//! What PTX text may ask for. A text of a hundred bytes can name any number, so each number that makes something is compared
//! with one of these when the text is loaded. Where CUDA has a limit it is CUDA's; the others are far above what compilers write.

use super::PtxError;

/// Bytes of a text.
pub const TEXT: usize = 16 << 20;
/// Kernels and functions of a module.
pub const FUNCTIONS: usize = 4096;
/// Variables of a module in device memory, and as many in shared memory.
pub const VARIABLES: usize = 4096;
/// Bytes of a module's `.global` variables together.
pub const GLOBAL: usize = 64 << 20;
/// Bytes of a module's `.const` variables together: CUDA's.
pub const CONST: usize = 64 << 10;
/// Bytes of shared memory of a block: an A100's 163 KiB, gaps between variables included.
pub const SHARED: usize = 163 << 10;
/// Bytes of local memory of a thread, calls inlined: CUDA's.
pub const LOCAL: usize = 512 << 10;
/// Bytes of a kernel's parameters: CUDA's.
pub const PARAMETERS: usize = 32764;
/// Threads of a block: CUDA's.
pub const THREADS: usize = 1024;
/// Registers of a thread, calls inlined. They are PTX's, of which a function has one for every value.
pub const REGISTERS: usize = 1 << 16;
/// Instructions of a module as it is written, and again of all its kernels with their calls inlined.
pub const INSTRUCTIONS: usize = 1 << 19;
/// Calls inside calls.
pub const CALLS: usize = 64;
/// Blocks `{ }` inside blocks.
pub const SCOPES: usize = 64;
/// Operands of an instruction, parts of a vector, arguments or results of a call.
pub const OPERANDS: usize = 256;
/// Characters of an opcode with its modifiers.
pub const OPCODE: usize = 128;
/// The largest alignment, in bytes.
pub const ALIGNMENT: usize = 1024;

/// An error unless `found` is at most `most`; `what` is in the plural.
pub(super) fn check(found: usize, most: usize, what: &'static str, line: u32) -> Result<(), PtxError> {
    if found > most { Err(PtxError::Limit { line, most, what }) } else { Ok(()) }
}
