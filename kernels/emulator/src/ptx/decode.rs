//! From an opcode with its modifiers to an [`Op`]. Every modifier must be consumed: what is left over is an error.

use super::{
    Atomic, CARRY, Carry, MatrixType, Op, Operand, Place, ProductHalf, PtxError, Shuffle, Space, Type, Vote,
    operands::fit,
};
use crate::machine::alu::{self, Lanewise};
use crate::machine::float::{self, Rounding};

/// An opcode split at its dots; modifiers are taken out as they are understood.
struct Opcode<'a> {
    text: &'a str,
    name: &'a str,
    modifiers: Vec<&'a str>,
    line: u32,
}

type Decoded = Vec<(Op, Vec<Operand>)>;

impl<'a> Opcode<'a> {
    fn new(text: &'a str, line: u32) -> Self {
        let mut parts = text.split('.');
        Opcode { text, name: parts.next().unwrap_or_default(), modifiers: parts.collect(), line }
    }

    fn take(&mut self, modifier: &str) -> bool {
        let found = self.modifiers.iter().position(|m| *m == modifier);
        if let Some(at) = found {
            self.modifiers.remove(at);
        }
        found.is_some()
    }

    /// The one of these that is there.
    fn one_of(&mut self, choices: &[&'static str]) -> Option<&'static str> {
        choices.iter().find(|choice| self.take(choice)).copied()
    }

    /// The first type suffix left.
    fn ty(&mut self) -> Result<Type, PtxError> {
        let at =
            self.modifiers.iter().position(|m| Type::parse(m).is_some()).ok_or_else(|| self.unknown())?;
        Ok(Type::parse(self.modifiers.remove(at)).expect("internal: just matched"))
    }

    fn space(&mut self) -> Space {
        match self.one_of(&["global", "shared", "shared::cta", "local", "param", "const"]) {
            Some("global") => Space::Global,
            Some("shared" | "shared::cta") => Space::Shared,
            Some("local") => Space::Local,
            Some("param") => Space::Param,
            Some("const") => Space::Const,
            _ => Space::Generic,
        }
    }

    fn atomic(&mut self) -> Result<Atomic, PtxError> {
        Ok(match self.one_of(&["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"]) {
            Some("add") => Atomic::Add,
            Some("min") => Atomic::Min,
            Some("max") => Atomic::Max,
            Some("and") => Atomic::And,
            Some("or") => Atomic::Or,
            Some("xor") => Atomic::Xor,
            Some("exch") => Atomic::Exchange,
            Some("cas") => Atomic::CompareAndSwap,
            Some("inc") => Atomic::Increment,
            Some("dec") => Atomic::Decrement,
            _ => return Err(self.unknown()),
        })
    }

    /// Hints about caches and memory order, which one machine without caches can leave aside.
    fn ignore_hints(&mut self) {
        const HINTS: [&str; 24] = [
            "nc",
            "ca",
            "cg",
            "cs",
            "lu",
            "cv",
            "wb",
            "wt",
            "volatile",
            "relaxed",
            "weak",
            "acquire",
            "release",
            "acq_rel",
            "sc",
            "cta",
            "gpu",
            "sys",
            "gl",
            "noftz",
            "L1::no_allocate",
            "L2::128B",
            "L2::256B",
            "L1::evict_last",
        ];
        self.modifiers.retain(|m| !HINTS.contains(m));
    }

    fn unknown(&self) -> PtxError {
        PtxError::UnknownInstruction { line: self.line, opcode: self.text.into() }
    }

    fn done(&self) -> Result<(), PtxError> {
        match self.modifiers.first() {
            None => Ok(()),
            Some(modifier) => Err(PtxError::UnknownModifier {
                line: self.line,
                opcode: self.text.into(),
                modifier: format!(".{modifier}"),
            }),
        }
    }

    fn operands(&self) -> PtxError {
        PtxError::Operands { line: self.line, opcode: self.text.into() }
    }
}

/// Decodes one instruction; a few become two. Each has the operands that running it reads.
pub fn decode(text: &str, operands: Vec<Operand>, line: u32) -> Result<Decoded, PtxError> {
    let mut opcode = Opcode::new(text, line);
    let decoded = understand(&mut opcode, operands)?;
    if decoded.iter().all(|(op, operands)| fit(op, operands)) { Ok(decoded) } else { Err(opcode.operands()) }
}

fn understand(opcode: &mut Opcode, mut operands: Vec<Operand>) -> Result<Decoded, PtxError> {
    if let Some(decoded) = control(opcode, &operands)? {
        opcode.done()?;
        return Ok(decoded);
    }
    if let Some(op) = memory(opcode, &operands)?.or(collective(opcode, &operands)?) {
        opcode.done()?;
        return Ok(vec![(op, operands)]);
    }
    match opcode.name {
        "setp" => return set_predicate(opcode, operands),
        "mov" => return movement(opcode, operands),
        _ => {}
    }
    if let Some(carry) = carry_chain(opcode)? {
        opcode.done()?;
        operands.push(Operand::Register(CARRY));
        return Ok(vec![(Op::Carry(carry), operands)]);
    }
    let function = lanewise(opcode)?;
    opcode.done()?;
    Ok(vec![(Op::Lanes(function), operands)])
}

fn control(opcode: &mut Opcode, operands: &[Operand]) -> Result<Option<Decoded>, PtxError> {
    let op = match opcode.name {
        "ret" | "exit" => {
            opcode.take("uni");
            Op::Exit
        }
        "trap" => Op::Trap,
        "bar" | "barrier" => {
            opcode.take("cta");
            opcode.take("aligned");
            if opcode.take("warp") {
                opcode.take("sync");
                Op::WarpSync
            } else if opcode.take("arrive") {
                Op::Arrive
            } else if opcode.take("sync") {
                Op::Barrier
            } else {
                return Err(opcode.unknown());
            }
        }
        "membar" | "fence" => {
            opcode.ignore_hints();
            Op::Fence
        }
        "nanosleep" => {
            opcode.ty()?;
            Op::Nothing
        }
        "prefetch" => {
            opcode.space();
            opcode.one_of(&["L1", "L2"]);
            Op::Nothing
        }
        _ => return Ok(None),
    };
    Ok(Some(vec![(op, operands.to_vec())]))
}

/// Whether an address is that of a variable in the thread's frame.
fn in_frame(operand: Option<&Operand>) -> bool {
    matches!(operand, Some(Operand::Address { base, .. }) if matches!(**base, Operand::Symbol(Place::Local, _)))
}

/// The type of what `ld` and `st` move; 16 bytes are the most at once.
fn stored(opcode: &mut Opcode, count: usize) -> Result<Type, PtxError> {
    let ty = opcode.ty()?;
    if ty == Type::Pred || ty.size() * count > 16 { Err(opcode.unknown()) } else { Ok(ty) }
}

fn memory(opcode: &mut Opcode, operands: &[Operand]) -> Result<Option<Op>, PtxError> {
    let vector = |opcode: &mut Opcode| match opcode.one_of(&["v2", "v4"]) {
        Some("v2") => 2,
        Some(_) => 4,
        None => 1,
    };
    // Parameters and results of device functions are variables of the frame.
    let space_of = |space: Space, address: Option<&Operand>| {
        if space == Space::Param && in_frame(address) { Space::Local } else { space }
    };
    Ok(Some(match opcode.name {
        "ld" | "ldu" => {
            opcode.ignore_hints();
            let (space, count) = (opcode.space(), vector(opcode));
            Op::Load(space_of(space, operands.get(1)), stored(opcode, count)?, count)
        }
        "st" => {
            opcode.ignore_hints();
            let (space, count) = (opcode.space(), vector(opcode));
            Op::Store(space_of(space, operands.first()), stored(opcode, count)?, count)
        }
        "atom" | "red" => {
            opcode.ignore_hints();
            let (space, kind, returns) = (opcode.space(), opcode.atomic()?, opcode.name == "atom");
            let ty = opcode.ty()?;
            let whole = matches!(ty.size(), 4 | 8) && !ty.is_float() && ty != Type::TF32;
            let pair = matches!(ty, Type::F16x2 | Type::BF16x2);
            let fits = match kind {
                Atomic::Add => whole || ty.is_float(),
                Atomic::CompareAndSwap => whole || ty == Type::B16,
                Atomic::Exchange => whole,
                _ => whole && !pair,
            };
            if !fits {
                return Err(opcode.unknown());
            }
            Op::Atomic { space, ty, kind, returns }
        }
        "cvta" => {
            let to = opcode.take("to");
            let space = opcode.space();
            opcode.ty()?;
            Op::ConvertAddress(space, to)
        }
        "isspacep" => Op::IsSpace(opcode.space()),
        "cp" => {
            if !opcode.take("async") {
                return Err(opcode.unknown());
            }
            if opcode.take("commit_group") {
                Op::CommitCopies
            } else if opcode.take("wait_group") || opcode.take("wait_all") {
                if opcode.text.ends_with("group") == operands.is_empty() {
                    return Err(opcode.operands());
                }
                Op::WaitCopies
            } else {
                opcode.ignore_hints();
                if !(opcode.take("shared") || opcode.take("shared::cta")) || !opcode.take("global") {
                    return Err(opcode.unknown());
                }
                Op::CopyAsync
            }
        }
        _ => return Ok(None),
    }))
}

fn collective(opcode: &mut Opcode, operands: &[Operand]) -> Result<Option<Op>, PtxError> {
    Ok(Some(match opcode.name {
        "shfl" => {
            let mode = opcode.one_of(&["up", "down", "bfly", "idx"]);
            if !opcode.take("sync") || !opcode.take("b32") {
                return Err(opcode.unknown());
            }
            Op::Shuffle(match mode {
                Some("up") => Shuffle::Up,
                Some("down") => Shuffle::Down,
                Some("bfly") => Shuffle::Butterfly,
                Some(_) => Shuffle::Index,
                None => return Err(opcode.unknown()),
            })
        }
        "vote" => {
            let mode = opcode.one_of(&["all", "any", "uni", "ballot"]);
            if !opcode.take("sync") || !(opcode.take("pred") || opcode.take("b32")) {
                return Err(opcode.unknown());
            }
            Op::Vote(match mode {
                Some("all") => Vote::All,
                Some("any") => Vote::Any,
                Some("uni") => Vote::Uniform,
                Some(_) => Vote::Ballot,
                None => return Err(opcode.unknown()),
            })
        }
        "activemask" => {
            opcode.take("b32");
            Op::ActiveMask
        }
        "match" => {
            let all = opcode.take("all");
            if !(all || opcode.take("any")) || !opcode.take("sync") {
                return Err(opcode.unknown());
            }
            let ty = opcode.ty()?;
            if !matches!(ty, Type::B32 | Type::B64) {
                return Err(opcode.unknown());
            }
            Op::Match(all, ty)
        }
        "redux" => {
            if !opcode.take("sync") {
                return Err(opcode.unknown());
            }
            let (kind, ty) = (opcode.atomic()?, opcode.ty()?);
            let known = match kind {
                Atomic::Add | Atomic::Min | Atomic::Max => matches!(ty, Type::U32 | Type::S32),
                Atomic::And | Atomic::Or | Atomic::Xor => ty == Type::B32,
                _ => false,
            };
            if !known {
                return Err(opcode.unknown());
            }
            Op::Reduce(kind, ty)
        }
        "ldmatrix" => {
            let matrices = match opcode.one_of(&["x1", "x2", "x4"]) {
                Some("x1") => 1,
                Some("x2") => 2,
                Some(_) => 4,
                None => return Err(opcode.unknown()),
            };
            let known = ["sync", "aligned", "m8n8"].into_iter().all(|part| opcode.take(part));
            let shared = opcode.take("shared") || opcode.take("shared::cta");
            if !known || !shared || !opcode.take("b16") {
                return Err(opcode.unknown());
            }
            match operands.first() {
                Some(Operand::Vector(parts)) if parts.len() == matrices => {}
                _ => return Err(opcode.operands()),
            }
            Op::LoadMatrix(opcode.take("trans"))
        }
        "mma" => {
            let depth = match opcode.one_of(&["m16n8k16", "m16n8k8"]) {
                Some("m16n8k16") => 16,
                Some(_) => 8,
                None => return Err(opcode.unknown()),
            };
            let known =
                ["sync", "aligned", "row", "col", "f32", "f32"].into_iter().all(|part| opcode.take(part));
            let ty = match (opcode.ty()?, opcode.ty()?) {
                (Type::BF16, Type::BF16) => MatrixType::BF16,
                (Type::F16, Type::F16) => MatrixType::F16,
                (Type::TF32, Type::TF32) if depth == 8 => MatrixType::TF32,
                _ => return Err(opcode.unknown()),
            };
            let factor = if ty == MatrixType::TF32 { 4 } else { depth / 4 };
            let counts = [4, factor, factor / 2, 4];
            let fits = operands.len() == 4
                && operands.iter().zip(counts).all(|(o, n)| match o {
                    Operand::Vector(parts) => parts.len() == n,
                    Operand::Register(_) => n == 1,
                    _ => false,
                });
            if !known || !fits {
                return Err(opcode.operands());
            }
            Op::MatrixMultiply(ty, depth)
        }
        _ => return Ok(None),
    }))
}

/// `setp.CMP[.BOOL].TYPE p[|q], a, b[, c]`: the comparison, then `q`, then the combination with `c`.
fn set_predicate(opcode: &mut Opcode, mut operands: Vec<Operand>) -> Result<Decoded, PtxError> {
    const COMPARISONS: [&str; 18] = [
        "eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan", "lo",
        "ls", "hi", "hs",
    ];
    let comparison = opcode.one_of(&COMPARISONS).ok_or_else(|| opcode.unknown())?;
    let combine = opcode.one_of(&["and", "or", "xor"]);
    opcode.take("ftz");
    let ty = opcode.ty()?;
    opcode.done()?;
    let compare = alu::compare(comparison, ty).ok_or_else(|| opcode.unknown())?;
    if operands.len() != 3 + usize::from(combine.is_some()) {
        return Err(opcode.operands());
    }
    let (first, second) = match operands.remove(0) {
        Operand::Vector(mut pair) if pair.len() == 2 => (pair.remove(0), Some(pair.remove(0))),
        one => (one, None),
    };
    let combined = combine.map(|name| (alu::bitwise(name, Type::Pred), operands.remove(2)));
    if combined.is_some() && second.is_some() {
        return Err(opcode.unknown());
    }
    let mut out = Vec::new();
    // With a third operand that is also the result, the comparison must not overwrite it: it goes by the carry flag.
    let target = if combined.is_some() { Operand::Register(CARRY) } else { first.clone() };
    let mut arguments = vec![target.clone()];
    arguments.append(&mut operands);
    out.push((Op::Lanes(compare), arguments));
    if let Some((Some(function), third)) = combined {
        out.push((Op::Lanes(function), vec![first, target, third]));
    } else if let (Some(second), Some(not)) = (second, alu::integer_unary("not", Type::Pred)) {
        out.push((Op::Lanes(not), vec![second, first]));
    }
    Ok(out)
}

/// `mov`, also between a register and its parts: `mov.b32 {%rs1, %rs2}, %r1`.
fn movement(opcode: &mut Opcode, operands: Vec<Operand>) -> Result<Decoded, PtxError> {
    let ty = opcode.ty()?;
    opcode.done()?;
    if let [Operand::Vector(parts), _] | [_, Operand::Vector(parts)] = operands.as_slice() {
        let bits = 8 * ty.size() / parts.len().max(1);
        if !matches!(parts.len(), 2 | 4) || bits < 8 {
            return Err(opcode.operands());
        }
        return Ok(vec![(Op::Pack(bits as u32), operands)]);
    }
    let copy = alu::integer_unary("mov", ty).ok_or_else(|| opcode.unknown())?;
    Ok(vec![(Op::Lanes(copy), operands)])
}

fn carry_chain(opcode: &mut Opcode) -> Result<Option<Carry>, PtxError> {
    let carry_in = matches!(opcode.name, "addc" | "subc" | "madc");
    let carry_out = matches!(opcode.name, "add" | "sub" | "mad") && opcode.modifiers.contains(&"cc");
    if !(carry_in || carry_out) {
        return Ok(None);
    }
    let carry_out = opcode.take("cc");
    let product = match opcode.one_of(&["lo", "hi"]) {
        Some("lo") => Some(ProductHalf::Low),
        Some(_) => Some(ProductHalf::High),
        None => None,
    };
    let ty = opcode.ty()?;
    let whole = matches!(ty, Type::U32 | Type::S32 | Type::B32 | Type::U64 | Type::S64 | Type::B64);
    if !whole || product.is_some() != opcode.name.starts_with("mad") {
        return Err(opcode.unknown());
    }
    Ok(Some(Carry { product, subtract: opcode.name.starts_with("sub"), carry_in, carry_out, ty }))
}

/// Everything that works on each lane by itself.
fn lanewise(opcode: &mut Opcode) -> Result<Lanewise, PtxError> {
    let ftz = opcode.take("ftz");
    let saturate = opcode.take("sat");
    let half = opcode.one_of(&["lo", "hi", "wide"]);
    let approx = opcode.take("approx") || opcode.take("full");
    let whole = opcode.one_of(&["rni", "rzi", "rmi", "rpi", "rna"]);
    let rounding = opcode.one_of(&["rn", "rz", "rm", "rp"]);
    let relu = opcode.take("relu");
    let name = opcode.name;
    let found = match name {
        "cvt" => {
            let (to, from) = (opcode.ty()?, opcode.ty()?);
            if matches!(to, Type::F16x2 | Type::BF16x2)
                && from == Type::F32
                && rounding == Some("rn")
                && !saturate
            {
                float::convert_pair(to, relu)
            } else if relu {
                None
            } else {
                float::convert(to, from, whole.or(rounding).unwrap_or(""), saturate)
            }
        }
        _ if whole.is_some() => None,
        "dp4a" => {
            let (a, b) = (opcode.ty()?, opcode.ty()?);
            if a == b { alu::fields(name, a) } else { None }
        }
        "shf" => {
            let direction = opcode.one_of(&["l", "r"]).unwrap_or("");
            let mode = opcode.one_of(&["wrap", "clamp"]).unwrap_or("");
            alu::fields(&format!("shf.{direction}.{mode}"), opcode.ty()?)
        }
        "bfind" => {
            let name = if opcode.take("shiftamt") { "bfind.shiftamt" } else { name };
            alu::integer_unary(name, opcode.ty()?)
        }
        "selp" | "bfe" | "bfi" | "prmt" | "lop3" => alu::fields(name, opcode.ty()?),
        "and" | "or" | "xor" | "shl" | "shr" => alu::bitwise(name, opcode.ty()?),
        "not" | "cnot" | "popc" | "clz" | "brev" => alu::integer_unary(name, opcode.ty()?),
        "min" | "max" if opcode.take("NaN") => alu::float_binary(&format!("{name}.NaN"), opcode.ty()?, ftz),
        "fma" | "mad" | "add" | "sub" | "mul" | "div" | "rem" | "min" | "max" | "sad" | "neg" | "abs"
        | "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" | "copysign" => {
            let ty = opcode.ty()?;
            let is_float = ty.is_float() || matches!(ty, Type::F16x2 | Type::BF16x2);
            if is_float {
                float_function(name, ty, rounding, approx, ftz, saturate, relu)
            } else {
                let full = half.map_or(name.to_string(), |half| format!("{name}.{half}"));
                let found = match half {
                    Some("wide") => alu::wide(&full, ty),
                    _ => alu::integer_binary(&full, ty)
                        .or_else(|| alu::integer_ternary(&full, ty))
                        .or_else(|| alu::integer_unary(&full, ty)),
                };
                found.filter(|_| !saturate && !ftz && rounding.is_none())
            }
        }
        _ => None,
    };
    found.ok_or_else(|| opcode.unknown())
}

fn float_function(
    name: &str,
    ty: Type,
    rounding: Option<&str>,
    approx: bool,
    ftz: bool,
    saturate: bool,
    relu: bool,
) -> Option<Lanewise> {
    let directed = match rounding {
        Some("rz") => Some(Rounding::Zero),
        Some("rm") => Some(Rounding::Down),
        Some("rp") => Some(Rounding::Up),
        _ => None,
    };
    if let Some(directed) = directed {
        return alu::float_rounded(name, directed).filter(|_| ty == Type::F32 && !ftz && !saturate);
    }
    match name {
        "fma" | "mad" => alu::fma(ty, ftz, saturate, relu),
        _ if saturate || relu => None,
        "add" | "sub" | "mul" | "div" | "min" | "max" | "copysign" => alu::float_binary(name, ty, ftz),
        "rcp" | "sqrt" if !approx => alu::float_unary(name, ty, ftz),
        "neg" | "abs" => alu::float_unary(name, ty, ftz),
        _ => alu::float_unary(&format!("{name}.approx"), ty, ftz),
    }
}
