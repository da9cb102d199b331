//! PTX: text → tokens → functions of decoded instructions → kernels with calls inlined and addresses filled in.
//!
//! The reference is NVIDIA's "Parallel Thread Execution ISA", version 8.4. Anything that is not understood is an
//! error when the module is loaded, never a guess when it runs.

mod body;
pub mod decode;
pub mod lexer;
pub mod limits;
pub mod link;
mod operands;
pub mod parser;

use crate::machine::alu::Lanewise;

/// Why PTX text could not be loaded.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum PtxError {
    /// The text does not have the shape of PTX here.
    #[error("PTX line {line}: expected {expected}, found `{}`", shown(.found))]
    Syntax {
        /// Line of the PTX text, from 1.
        line: u32,
        /// What would have been right.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// An instruction that the emulator does not know.
    #[error("PTX line {line}: instruction `{}` is not emulated", shown(.opcode))]
    UnknownInstruction {
        /// Line of the PTX text, from 1.
        line: u32,
        /// The whole opcode with its modifiers.
        opcode: String,
    },
    /// A known instruction with a modifier, or a combination of them, that the emulator does not know.
    #[error("PTX line {line}: `{opcode}`: `{modifier}` is not emulated")]
    UnknownModifier {
        /// Line of the PTX text, from 1.
        line: u32,
        /// The whole opcode with its modifiers.
        opcode: String,
        /// The modifier that is not understood.
        modifier: String,
    },
    /// A register, variable, label or function that is declared nowhere.
    #[error("PTX line {line}: `{}` is not declared", shown(.name))]
    Undeclared {
        /// Line of the PTX text, from 1.
        line: u32,
        /// The name.
        name: String,
    },
    /// Operands that do not fit the instruction.
    #[error("PTX line {line}: `{opcode}` has operands that do not fit it")]
    Operands {
        /// Line of the PTX text, from 1.
        line: u32,
        /// The whole opcode with its modifiers.
        opcode: String,
    },
    /// A function that calls itself; calls are inlined when the module is loaded.
    #[error("PTX line {line}: `{}` calls itself: recursion is not emulated", shown(.name))]
    Recursion {
        /// Line of the call.
        line: u32,
        /// The function.
        name: String,
    },
    /// A name that means two things in one scope.
    #[error("PTX line {line}: `{}` is declared twice", shown(.name))]
    Twice {
        /// Line of the second declaration.
        line: u32,
        /// The name.
        name: String,
    },
    /// More than one of [`limits`] allows.
    #[error("PTX line {line}: more than {most} {what}, which is the emulator's limit")]
    Limit {
        /// Line of the PTX text, from 1.
        line: u32,
        /// The limit.
        most: usize,
        /// Of what.
        what: &'static str,
    },
}

/// A piece of the text for a message: control characters escaped, cut where it is long.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == MOST {
            out.push_str("...");
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The type suffix of an instruction or a declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Type {
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    B8,
    B16,
    B32,
    B64,
    F16,
    BF16,
    F16x2,
    BF16x2,
    TF32,
    F32,
    F64,
    Pred,
}

impl Type {
    /// The type with this suffix (without its dot).
    pub fn parse(suffix: &str) -> Option<Type> {
        use Type::*;
        Some(match suffix {
            "u8" => U8,
            "u16" => U16,
            "u32" => U32,
            "u64" => U64,
            "s8" => S8,
            "s16" => S16,
            "s32" => S32,
            "s64" => S64,
            "b8" => B8,
            "b16" => B16,
            "b32" => B32,
            "b64" => B64,
            "f16" => F16,
            "bf16" => BF16,
            "f16x2" => F16x2,
            "bf16x2" => BF16x2,
            "tf32" => TF32,
            "f32" => F32,
            "f64" => F64,
            "pred" => Pred,
            _ => return None,
        })
    }

    /// Bytes of one value.
    pub fn size(self) -> usize {
        use Type::*;
        match self {
            U8 | S8 | B8 | Pred => 1,
            U16 | S16 | B16 | F16 | BF16 => 2,
            U32 | S32 | B32 | F32 | TF32 | F16x2 | BF16x2 => 4,
            U64 | S64 | B64 | F64 => 8,
        }
    }

    /// Whether it is a signed integer.
    pub fn is_signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    /// Whether it is a floating-point number (one, not a pair).
    pub fn is_float(self) -> bool {
        matches!(self, Type::F16 | Type::BF16 | Type::F32 | Type::F64)
    }
}

/// A state space: which memory an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Any of global, shared or local, told apart by the address.
    Generic,
    /// Device memory.
    Global,
    /// Memory of one block.
    Shared,
    /// Memory of one thread.
    Local,
    /// The kernel's arguments.
    Param,
    /// Constant memory; the emulator keeps it in device memory.
    Const,
}

/// A value that differs per thread or launch and is read like a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// `%tid`, by axis.
    ThreadIndex(usize),
    /// `%ntid`, by axis.
    BlockSize(usize),
    /// `%ctaid`, by axis.
    BlockIndex(usize),
    /// `%nctaid`, by axis.
    GridSize(usize),
    /// `%laneid`.
    Lane,
    /// `%warpid`.
    Warp,
    /// `%nwarpid`.
    Warps,
    /// `%smid`: always 0.
    Zero,
    /// `%lanemask_eq`, `lt`, `le`, `gt`, `ge`.
    LaneMask(LaneMask),
    /// `%clock`, `%clock64`, `%globaltimer`: instructions run so far.
    Clock,
    /// `%dynamic_smem_size`.
    DynamicShared,
    /// `%total_smem_size`.
    TotalShared,
}

/// The lanes that a `%lanemask` register names, relative to the lane that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LaneMask {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl LaneMask {
    /// The mask for a lane below 32.
    pub fn of(self, lane: u32) -> u32 {
        let (equal, less) = (1 << lane, (1 << lane) - 1);
        match self {
            LaneMask::Equal => equal,
            LaneMask::Less => less,
            LaneMask::LessOrEqual => less | equal,
            LaneMask::Greater => !(less | equal),
            LaneMask::GreaterOrEqual => !less,
        }
    }
}

/// Where a variable lives before its address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A kernel argument.
    Param,
    /// The thread's own frame; function parameters and results live here too.
    Local,
    /// A shared variable of this function.
    Shared,
    /// `extern .shared`: begins where the launch's static shared memory ends.
    DynamicShared,
    /// A shared variable of the module.
    ModuleShared,
    /// A `.global` or `.const` variable of the module, by its number.
    Global(usize),
}

/// What an instruction works on.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register of the function, by number.
    Register(u32),
    /// A constant's bits.
    Immediate(u64),
    /// A special register.
    Special(Special),
    /// The address of a variable plus an offset; linking turns it into an [`Operand::Immediate`].
    Symbol(Place, u64),
    /// `[base + offset]`; `bits` is the width of the base.
    Address {
        /// A register, an immediate or a symbol.
        base: Box<Operand>,
        /// Bytes added to it.
        offset: i64,
    },
    /// `{a, b, ...}`.
    Vector(Vec<Operand>),
    /// `_`: the result is not wanted.
    Sink,
}

/// A source position: file (a key of the module's file table) and line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Number of the `.file`.
    pub file: u32,
    /// Line in it, from 1.
    pub line: u32,
    /// Where the function of `line` was inlined, outermost.
    pub inlined_at: Option<(u32, u32)>,
}

/// An instruction as the machine runs it.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// What it does.
    pub op: Op,
    /// Results first.
    pub operands: Vec<Operand>,
    /// Predicate register, and whether it is negated.
    pub guard: Option<(u32, bool)>,
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// The opcode as written.
    pub opcode: String,
    /// Where in the source it comes from, when the PTX has line information.
    pub location: Option<Location>,
}

/// Which way a shuffle reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// What a vote computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

/// What an atomic operation or `redux` does to the old value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Atomic {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    Increment,
    Decrement,
}

/// Element type of the factors of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MatrixType {
    F16,
    BF16,
    TF32,
}

/// What an instruction does. Operands are in [`Instruction::operands`].
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// A function of the operands of each lane by itself.
    Lanes(Lanewise),
    /// `{a, b, ..} = x` or `x = {a, b, ..}`: each part has this many bits.
    Pack(u32),
    /// Addition chains: `add.cc`, `addc`, `sub.cc`, `mad.hi.cc`...: value = f(a, b, c, carry).
    Carry(Carry),
    /// `ld`: the type, how many of them, and where.
    Load(Space, Type, usize),
    /// `st`.
    Store(Space, Type, usize),
    /// `atom` and `red`; `returns` is false for `red`.
    Atomic {
        /// Where.
        space: Space,
        /// The type of the value in memory.
        ty: Type,
        /// The operation.
        kind: Atomic,
        /// Whether the old value is wanted.
        returns: bool,
    },
    /// `cvta.to.SPACE` (`true`: generic to space) or `cvta.SPACE` (`false`).
    ConvertAddress(Space, bool),
    /// `isspacep`.
    IsSpace(Space),
    /// Copies bytes between variables of the thread's frame: arguments and results of inlined calls.
    CopyLocal(usize),
    /// A jump to the instruction of this number.
    Branch(usize),
    /// A call of the function of this number; linking replaces it.
    Call(usize),
    /// The thread ends (in a function: returns, until linking makes it a jump).
    Exit,
    /// `trap`: the kernel ends with an error.
    Trap,
    /// `bar.sync`; operands: barrier, and perhaps the number of threads.
    Barrier,
    /// `bar.arrive`.
    Arrive,
    /// `bar.warp.sync`.
    WarpSync,
    /// `shfl.sync`.
    Shuffle(Shuffle),
    /// `vote.sync`.
    Vote(Vote),
    /// `activemask`.
    ActiveMask,
    /// `match.sync`; `true` is `.all`.
    Match(bool, Type),
    /// `redux.sync`.
    Reduce(Atomic, Type),
    /// `cp.async`.
    CopyAsync,
    /// `cp.async.commit_group`.
    CommitCopies,
    /// `cp.async.wait_group`; without an operand, `wait_all`.
    WaitCopies,
    /// `ldmatrix`; `true` transposes.
    LoadMatrix(bool),
    /// `mma.sync.aligned.m16n8kK` with f32 accumulators; K.
    MatrixMultiply(MatrixType, usize),
    /// `membar`, `fence`.
    Fence,
    /// Nothing to do on one machine: prefetches, hints.
    Nothing,
}

/// The addition-with-carry family: `value = product(a, b) + c + carry`, each part optional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carry {
    /// `mad`: the low or high half of a product; otherwise `a` itself.
    pub product: Option<ProductHalf>,
    /// Subtract instead of add.
    pub subtract: bool,
    /// Uses the carry flag (`addc`).
    pub carry_in: bool,
    /// Sets the carry flag (`.cc`).
    pub carry_out: bool,
    /// Width and sign.
    pub ty: Type,
}

/// Which half of a product an instruction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductHalf {
    /// The low half.
    Low,
    /// The high half.
    High,
}

/// The register that holds the carry flag of every function.
pub const CARRY: u32 = 0;
