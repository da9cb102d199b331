//! What the emulator reports: one bug in a kernel, with everything needed to find it.

use crate::ptx::shown;
use std::fmt;

/// The sort of bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FindingKind {
    /// An access outside every buffer or variable.
    OutOfBounds = 0,
    /// An access to a buffer that was freed.
    UseAfterFree,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// A read of memory that nothing has written.
    Uninitialised,
    /// Two accesses to the same bytes, one a write, with nothing that orders them.
    Race,
    /// An access to the target of a `cp.async` that was not waited for.
    UnfinishedCopy,
    /// A barrier that not all threads reach, or not the same one.
    DivergentBarrier,
    /// A shuffle, vote or warp barrier whose lane mask does not fit the lanes that are there.
    LaneMask,
    /// A write to constant memory.
    ReadOnly,
    /// `trap` or a failed assertion.
    Trap,
    /// More instructions than the limit: an endless loop, or a wait for another warp or block.
    Endless,
}

impl FindingKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [FindingKind; 11] = [
        FindingKind::OutOfBounds,
        FindingKind::UseAfterFree,
        FindingKind::Misaligned,
        FindingKind::Uninitialised,
        FindingKind::Race,
        FindingKind::UnfinishedCopy,
        FindingKind::DivergentBarrier,
        FindingKind::LaneMask,
        FindingKind::ReadOnly,
        FindingKind::Trap,
        FindingKind::Endless,
    ];
}

/// A bug in a kernel, and where it showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The sort of bug.
    pub kind: FindingKind,
    /// What happened.
    pub message: String,
    /// The kernel.
    pub kernel: String,
    /// Block index.
    pub block: [u32; 3],
    /// Thread index in the block.
    pub thread: [u32; 3],
    /// The PTX instruction.
    pub instruction: String,
    /// Its line in the PTX text, from 1.
    pub ptx_line: u32,
    /// File and line of the source, when the PTX was compiled with line information; where the innermost inlined
    /// function stands.
    pub source: Option<(String, u32)>,
    /// File and line where that function was inlined, when it was.
    pub inlined_at: Option<(String, u32)>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { message, block, thread, instruction, ptx_line, .. } = self;
        let kernel = shown(&self.kernel);
        write!(
            f,
            "{message} [kernel {kernel}, block {block:?}, thread {thread:?}, `{instruction}` at PTX line {ptx_line}"
        )?;
        if let Some((file, line)) = &self.source {
            write!(f, ", {file}:{line}")?;
        }
        if let Some((file, line)) = &self.inlined_at {
            write!(f, " inlined at {file}:{line}")?;
        }
        write!(f, "]")
    }
}

/// A finding before its place is known: what happened, in which lane.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: FindingKind,
    pub(crate) message: String,
    pub(crate) lane: usize,
}

impl Fault {
    pub(crate) fn new(kind: FindingKind, lane: usize, message: String) -> Box<Fault> {
        Box::new(Fault { kind, message, lane })
    }
}
