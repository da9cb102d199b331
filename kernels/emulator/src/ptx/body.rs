//! Bodies of functions: scopes with their registers, variables and labels; statements; operands.

use super::decode::decode;
use super::lexer::Token;
use super::operands::fit;
use super::parser::{Extent, Function, LOCAL, PARAMETERS, Parser, SHARED};
use super::{CARRY, Instruction, LaneMask, Location, Op, Operand, Place, PtxError, Special, limits};
use std::collections::HashMap;

/// What is declared between `{` and `}`.
#[derive(Default)]
struct Scope<'a> {
    names: HashMap<&'a str, Operand>,
    /// `%r<17>`: the first register's number, and how many there are.
    ranges: HashMap<&'a str, (u32, u32)>,
    labels: HashMap<&'a str, usize>,
    /// Jumps whose label has not been seen yet: the instruction, the label, the line.
    jumps: Vec<(usize, &'a str, u32)>,
}

impl Scope<'_> {
    fn find(&self, name: &str) -> Option<Operand> {
        self.names.get(name).cloned().or_else(|| self.ranged(name))
    }

    /// `%r12` of `%r<17>`; a prefix may end with digits itself, and a number has five at most.
    fn ranged(&self, name: &str) -> Option<Operand> {
        let digits = name.bytes().rev().take(5).take_while(u8::is_ascii_digit).count();
        (name.len() - digits..name.len()).find_map(|at| {
            let (prefix, digits) = name.split_at(at);
            let &(first, count) = self.ranges.get(prefix)?;
            let number: u32 = digits.parse().ok().filter(|_| digits == "0" || !digits.starts_with('0'))?;
            (number < count).then_some(Operand::Register(first + number))
        })
    }
}

/// What is known inside a function's body.
struct Body<'a> {
    function: Function,
    /// Innermost last.
    scopes: Vec<Scope<'a>>,
    frame: Vec<Extent>,
    location: Option<Location>,
}

impl<'a> Body<'a> {
    fn scope(&mut self) -> &mut Scope<'a> {
        self.scopes.last_mut().expect("internal: a body has a scope")
    }

    fn declare(&mut self, name: &'a str, operand: Operand, line: u32) -> Result<(), PtxError> {
        match self.scope().names.insert(name, operand) {
            // In a prototype, parameters may all be called `_`.
            None => Ok(()),
            Some(_) if name == "_" => Ok(()),
            Some(_) => Err(PtxError::Twice { line, name: name.into() }),
        }
    }

    /// Ends the innermost scope: its jumps go to its labels, or to those of the scope around it.
    fn close(&mut self) -> Result<(), PtxError> {
        let scope = self.scopes.pop().expect("internal: a body has a scope");
        for (instruction, label, line) in scope.jumps {
            match (scope.labels.get(label), self.scopes.last_mut()) {
                (Some(&target), _) => self.function.code[instruction].op = Op::Branch(target),
                (None, Some(around)) => around.jumps.push((instruction, label, line)),
                (None, None) => return Err(PtxError::Undeclared { line, name: label.into() }),
            }
        }
        Ok(())
    }
}

impl<'a> Parser<'a> {
    /// A kernel or a function, after `.entry` or `.func`.
    pub(super) fn function(&mut self, is_kernel: bool) -> Result<(), PtxError> {
        let results = if is_kernel { Vec::new() } else { self.parameters()? };
        let line = self.line();
        let name = self.word()?;
        let params = self.parameters()?;
        let number = self.module.function_number(name, line)?;
        let mut body = Body {
            function: Function {
                name: name.to_string(),
                is_kernel,
                registers: CARRY + 1,
                line,
                ..Function::default()
            },
            scopes: vec![Scope::default()],
            frame: Vec::new(),
            location: None,
        };
        let mut space = Vec::new();
        for param in &params {
            let (extents, layout, at) = if is_kernel {
                (&mut space, PARAMETERS, Place::Param)
            } else {
                (&mut body.frame, LOCAL, Place::Local)
            };
            let offset = layout.place(extents, param)?;
            body.function.params.push(Extent { offset, size: param.size() });
            body.declare(param.name, Operand::Symbol(at, offset as u64), param.line)?;
        }
        for result in &results {
            let offset = LOCAL.place(&mut body.frame, result)?;
            body.function.results.push(Extent { offset, size: result.size() });
            body.declare(result.name, Operand::Symbol(Place::Local, offset as u64), result.line)?;
        }
        while !self.accept(&Token::Mark('{')) {
            if self.accept(&Token::Mark(';')) {
                return Ok(()); // only declared
            }
            match self.word()? {
                ".maxntid" => {
                    let mut threads = 1usize;
                    loop {
                        let extent = usize::try_from(self.number()?).unwrap_or(usize::MAX);
                        threads = threads.saturating_mul(extent);
                        limits::check(threads, limits::THREADS, "threads of a block", line)?;
                        if !self.accept(&Token::Mark(',')) {
                            break;
                        }
                    }
                    body.function.max_threads = threads as u32;
                }
                ".minnctapersm" | ".maxnreg" | ".maxnctapersm" => drop(self.number()?),
                ".noreturn" => {}
                _ => {
                    self.at -= 1;
                    return self.wrong("`{` or a directive of a function");
                }
            }
        }
        while !body.scopes.is_empty() {
            self.statement(&mut body)?;
        }
        body.function.frame = body.frame.last().map_or(0, |last| last.offset + last.size);
        match self.module.functions[number].replace(body.function) {
            None => Ok(()),
            Some(_) => Err(PtxError::Twice { line, name: name.into() }),
        }
    }

    fn statement(&mut self, body: &mut Body<'a>) -> Result<(), PtxError> {
        let line = self.line();
        if self.accept(&Token::Mark('{')) {
            body.scopes.push(Scope::default());
            return limits::check(body.scopes.len(), limits::SCOPES, "blocks `{ }` inside each other", line);
        }
        if self.accept(&Token::Mark('}')) {
            if body.scopes.len() == 1 {
                // Falling off the end is a return.
                self.emit(body, "ret", None, Vec::new(), Op::Exit)?;
            }
            return body.close();
        }
        if self.accept(&Token::Mark(';')) {
            return Ok(());
        }
        if self.accept(&Token::Mark('@')) {
            let negated = self.accept(&Token::Mark('!'));
            let Operand::Register(predicate) = self.plain(body)? else {
                self.at -= 1;
                return self.wrong("a predicate");
            };
            return self.instruction(body, Some((predicate, negated)));
        }
        match self.word()? {
            ".loc" => body.location = Some(self.location()?),
            ".pragma" => {
                self.at += 1;
                self.mark(';', "`;`")?;
            }
            ".reg" => self.registers(body)?,
            space @ (".local" | ".param" | ".shared") => {
                let shared = space == ".shared";
                let layout = if shared { SHARED } else { LOCAL };
                let declared = self.declaration(layout)?;
                self.mark(';', "`;`")?;
                let (extents, at) = if shared {
                    (&mut body.function.shared, Place::Shared)
                } else {
                    (&mut body.frame, Place::Local)
                };
                let offset = layout.place(extents, &declared)?;
                if shared {
                    limits::check(extents.len(), limits::VARIABLES, "shared variables", line)?;
                }
                body.declare(declared.name, Operand::Symbol(at, offset as u64), line)?;
            }
            label if self.accept(&Token::Mark(':')) => {
                let here = body.function.code.len();
                if body.scope().labels.insert(label, here).is_some() {
                    return Err(PtxError::Twice { line, name: label.into() });
                }
            }
            _ => {
                self.at -= 1;
                self.instruction(body, None)?;
            }
        }
        Ok(())
    }

    /// `.reg .b32 %r<17>, %x;`
    fn registers(&mut self, body: &mut Body<'a>) -> Result<(), PtxError> {
        self.word()?;
        loop {
            let line = self.line();
            let name = self.word()?;
            let first = body.function.registers;
            let mut count = 1;
            if self.accept(&Token::Mark('<')) {
                count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
                self.mark('>', "`>`")?;
            }
            let total = count.saturating_add(first as usize);
            limits::check(total, limits::REGISTERS, "registers of a function", line)?;
            if self.tokens[self.at - 1].0 == Token::Mark('>') {
                if body.scope().ranges.insert(name, (first, count as u32)).is_some() {
                    return Err(PtxError::Twice { line, name: name.into() });
                }
            } else {
                body.declare(name, Operand::Register(first), line)?;
            }
            body.function.registers += count as u32;
            if !self.accept(&Token::Mark(',')) {
                return self.mark(';', "`;`");
            }
        }
    }

    fn emit(
        &mut self,
        body: &mut Body<'a>,
        opcode: &str,
        guard: Option<(u32, bool)>,
        operands: Vec<Operand>,
        op: Op,
    ) -> Result<(), PtxError> {
        let (line, location) = (self.tokens[self.at - 1].1, body.location);
        self.instructions += 1;
        limits::check(self.instructions, limits::INSTRUCTIONS, "instructions", line)?;
        body.function.code.push(Instruction {
            op,
            operands,
            guard,
            line,
            opcode: opcode.to_string(),
            location,
        });
        Ok(())
    }

    fn instruction(&mut self, body: &mut Body<'a>, guard: Option<(u32, bool)>) -> Result<(), PtxError> {
        let line = self.line();
        let opcode = self.word()?;
        limits::check(opcode.len(), limits::OPCODE, "characters of an opcode", line)?;
        match opcode {
            "bra" | "bra.uni" => {
                let label = self.word()?;
                let here = body.function.code.len();
                body.scope().jumps.push((here, label, line));
                self.emit(body, opcode, guard, Vec::new(), Op::Nothing)?;
                return self.mark(';', "`;`");
            }
            "call" | "call.uni" => return self.call(body, opcode, guard),
            _ => {}
        }
        let mut operands = Vec::new();
        while !self.accept(&Token::Mark(';')) {
            operands.push(self.operand(body)?);
            limits::check(operands.len(), limits::OPERANDS, "operands of an instruction", line)?;
            if self.accept(&Token::Mark('|')) {
                // A second result: `setp.eq.s32 %p|%q, ...`.
                let second = self.plain(body)?;
                let first = operands.pop().expect("internal: just pushed");
                operands.push(Operand::Vector(vec![first, second]));
            }
            if !self.accept(&Token::Mark(',')) && self.peek() != Some(&Token::Mark(';')) {
                return self.wrong("`,` or `;`");
            }
        }
        for (op, operands) in decode(opcode, operands, line)? {
            self.emit(body, opcode, guard, operands, op)?;
        }
        Ok(())
    }

    /// `call (result), name, (arguments);`
    fn call(
        &mut self,
        body: &mut Body<'a>,
        opcode: &str,
        guard: Option<(u32, bool)>,
    ) -> Result<(), PtxError> {
        let list = |parser: &mut Self| {
            let mut out = Vec::new();
            if parser.accept(&Token::Mark('(')) {
                out = parser.list(body, ')')?;
                parser.accept(&Token::Mark(','));
            }
            Ok::<_, PtxError>(Operand::Vector(out))
        };
        let results = list(self)?;
        let line = self.line();
        let name = self.word()?;
        if name.starts_with('%') {
            self.at -= 1;
            return self.wrong("the name of a function (calls through a pointer are not emulated)");
        }
        self.accept(&Token::Mark(','));
        let arguments = list(self)?;
        self.mark(';', "`;`")?;
        let op = Op::Call(self.module.function_number(name, line)?);
        let operands = vec![results, arguments];
        if !fit(&op, &operands) {
            return Err(PtxError::Operands { line, opcode: opcode.into() });
        }
        self.emit(body, opcode, guard, operands, op)
    }

    /// Plain operands up to `close`.
    fn list(&mut self, body: &Body<'a>, close: char) -> Result<Vec<Operand>, PtxError> {
        let mut out = Vec::new();
        while !self.accept(&Token::Mark(close)) {
            out.push(self.plain(body)?);
            limits::check(out.len(), limits::OPERANDS, "operands in a list", self.line())?;
            if !self.accept(&Token::Mark(',')) && self.peek() != Some(&Token::Mark(close)) {
                return self.wrong("`,` or the end of a list");
            }
        }
        Ok(out)
    }

    /// `{a, b}`, `[base + offset]`, or a plain one. As in PTX, these do not nest.
    fn operand(&mut self, body: &Body<'a>) -> Result<Operand, PtxError> {
        if self.accept(&Token::Mark('{')) {
            return Ok(Operand::Vector(self.list(body, '}')?));
        }
        if self.accept(&Token::Mark('[')) {
            let base = Box::new(self.plain(body)?);
            let offset = if self.accept(&Token::Mark('+')) || self.peek() == Some(&Token::Mark('-')) {
                self.number()? as i64
            } else {
                0
            };
            self.mark(']', "`]`")?;
            return Ok(Operand::Address { base, offset });
        }
        self.plain(body)
    }

    /// A constant, a register, a variable.
    fn plain(&mut self, body: &Body<'a>) -> Result<Operand, PtxError> {
        if matches!(self.peek(), Some(Token::Number(_) | Token::Mark('-'))) {
            return Ok(Operand::Immediate(self.number()?));
        }
        if self.peek() == Some(&Token::Mark('!')) {
            return self.wrong("a plain operand");
        }
        let line = self.line();
        let Ok(name) = self.word() else {
            return self.wrong("a register, a variable or a constant in bits");
        };
        let found = body.scopes.iter().rev().find_map(|scope| scope.find(name));
        found
            .or_else(|| self.module.symbols.get(name).map(|&(place, at)| Operand::Symbol(place, at)))
            .or_else(|| special(name).map(Operand::Special))
            .or_else(|| (name == "_").then_some(Operand::Sink))
            .or_else(|| (name == "WARP_SZ").then_some(Operand::Immediate(32)))
            .ok_or_else(|| PtxError::Undeclared { line, name: name.to_string() })
    }
}

fn special(name: &str) -> Option<Special> {
    let axis = |name: &str| ["x", "y", "z"].iter().position(|axis| *axis == name);
    Some(match name.split_once('.') {
        Some(("%tid", a)) => Special::ThreadIndex(axis(a)?),
        Some(("%ntid", a)) => Special::BlockSize(axis(a)?),
        Some(("%ctaid", a)) => Special::BlockIndex(axis(a)?),
        Some(("%nctaid", a)) => Special::GridSize(axis(a)?),
        Some(_) => return None,
        None => match name {
            "%laneid" => Special::Lane,
            "%warpid" => Special::Warp,
            "%nwarpid" => Special::Warps,
            "%smid" => Special::Zero,
            "%lanemask_eq" => Special::LaneMask(LaneMask::Equal),
            "%lanemask_lt" => Special::LaneMask(LaneMask::Less),
            "%lanemask_le" => Special::LaneMask(LaneMask::LessOrEqual),
            "%lanemask_gt" => Special::LaneMask(LaneMask::Greater),
            "%lanemask_ge" => Special::LaneMask(LaneMask::GreaterOrEqual),
            "%clock" | "%clock64" | "%globaltimer" => Special::Clock,
            "%dynamic_smem_size" => Special::DynamicShared,
            "%total_smem_size" => Special::TotalShared,
            _ => return None,
        },
    })
}
