//! Modules, functions and declarations: everything of PTX except what single instructions mean (see `decode`).

use super::decode::decode;
use super::lexer::{Token, tokens};
use super::{CARRY, Instruction, LaneMask, Location, Op, Operand, Place, PtxError, Special, Type};
use std::collections::HashMap;

/// A variable of global or constant memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its first bytes; the rest are zeros.
    pub data: Vec<u8>,
    /// Its bytes in all.
    pub size: usize,
    /// Whether kernels may write it.
    pub constant: bool,
}

/// A stretch of memory inside a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub offset: usize,
    /// How long it is.
    pub size: usize,
}

/// A kernel or a device function, its addresses not yet filled in.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Whether the host can launch it.
    pub is_kernel: bool,
    /// Its parameters: in the parameter space for a kernel, in the frame for a function.
    pub params: Vec<Extent>,
    /// Its results, in the frame.
    pub results: Vec<Extent>,
    /// Its instructions.
    pub code: Vec<Instruction>,
    /// How many registers it names (the carry flag is number 0).
    pub registers: u32,
    /// Bytes of `.local` variables and call parameters of one thread.
    pub frame: usize,
    /// Its own shared variables.
    pub shared: Vec<Extent>,
    /// `.maxntid`, or 0.
    pub max_threads: u32,
}

/// A parsed module.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// The `.file` table.
    pub files: HashMap<u32, String>,
    /// Global and constant variables, in order.
    pub variables: Vec<Variable>,
    /// Shared variables of the module.
    pub shared: Vec<Extent>,
    /// Functions by the number calls use; `None` where only declared.
    pub functions: Vec<Option<Function>>,
    names: HashMap<String, usize>,
    symbols: HashMap<String, (Place, u64)>,
}

/// Free bytes kept between shared variables, so that an access past the end of one is not inside the next.
const RED_ZONE: usize = 16;

/// Puts a variable behind those that are there.
pub(super) fn place(extents: &mut Vec<Extent>, size: usize, align: usize, gap: usize) -> usize {
    let end = extents.last().map_or(0, |last| last.offset + last.size + gap);
    let offset = end.next_multiple_of(align.max(1));
    extents.push(Extent { offset, size });
    offset
}

/// A declaration such as `.param .align 16 .b8 name[24]`.
struct Declaration {
    name: String,
    ty: Type,
    align: usize,
    /// Elements, or `None` for `name[]`.
    count: Option<usize>,
}

impl Declaration {
    fn size(&self) -> usize {
        self.ty.size() * self.count.unwrap_or(0)
    }
}

struct Parser<'a> {
    tokens: Vec<(Token<'a>, u32)>,
    at: usize,
    module: Module,
}

/// What is known inside a function's body.
struct Body {
    function: Function,
    /// Names of registers and variables, innermost scope last.
    scopes: Vec<HashMap<String, Operand>>,
    frame: Vec<Extent>,
    labels: HashMap<String, usize>,
    jumps: Vec<(usize, String, u32)>,
    location: Option<Location>,
}

impl Module {
    /// Parses and decodes PTX text.
    pub fn parse(text: &str) -> Result<Module, PtxError> {
        let mut parser = Parser { tokens: tokens(text)?, at: 0, module: Module::default() };
        parser.header()?;
        while parser.at < parser.tokens.len() {
            parser.top_level()?;
        }
        Ok(parser.module)
    }

    /// The name of a function, also of one that is only declared.
    pub fn function_name(&self, number: usize) -> String {
        let found = self.names.iter().find(|(_, other)| **other == number);
        found.map_or_else(String::new, |(name, _)| name.clone())
    }

    fn function_number(&mut self, name: &str) -> usize {
        if let Some(&number) = self.names.get(name) {
            return number;
        }
        self.functions.push(None);
        self.names.insert(name.to_string(), self.functions.len() - 1);
        self.functions.len() - 1
    }
}

impl<'a> Parser<'a> {
    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |(_, line)| *line)
    }

    fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn wrong<T>(&self, expected: &'static str) -> Result<T, PtxError> {
        let found = self.peek().map_or("the end of the text".to_string(), ToString::to_string);
        Err(PtxError::Syntax { line: self.line(), expected, found })
    }

    fn accept(&mut self, token: &Token) -> bool {
        let same = self.peek() == Some(token);
        self.at += usize::from(same);
        same
    }

    fn mark(&mut self, mark: char, expected: &'static str) -> Result<(), PtxError> {
        self.directive(&Token::Mark(mark), expected)
    }

    fn word(&mut self) -> Result<&'a str, PtxError> {
        match self.peek() {
            Some(&Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.wrong("a name"),
        }
    }

    fn number(&mut self) -> Result<u64, PtxError> {
        let negative = self.accept(&Token::Mark('-'));
        match self.peek() {
            Some(&Token::Number(number)) => {
                self.at += 1;
                Ok(if negative { number.wrapping_neg() } else { number })
            }
            _ => self.wrong("a number"),
        }
    }

    /// What every module begins with; addresses have 64 bits.
    fn header(&mut self) -> Result<(), PtxError> {
        self.directive(&Token::Word(".version"), "`.version`")?;
        self.number()?;
        self.directive(&Token::Word(".target"), "`.target`")?;
        self.word()?;
        while self.accept(&Token::Mark(',')) {
            self.word()?;
        }
        self.directive(&Token::Word(".address_size"), "`.address_size 64`")?;
        self.directive(&Token::Number(64), "`.address_size 64`")
    }

    fn directive(&mut self, token: &Token, expected: &'static str) -> Result<(), PtxError> {
        if self.accept(token) { Ok(()) } else { self.wrong(expected) }
    }

    fn top_level(&mut self) -> Result<(), PtxError> {
        match self.word()? {
            ".file" => self.file(),
            ".loc" => self.location().map(drop),
            ".section" => {
                self.word()?;
                while !self.accept(&Token::Mark('}')) {
                    if self.at >= self.tokens.len() {
                        return self.wrong("`}`");
                    }
                    self.at += 1;
                }
                Ok(())
            }
            ".visible" | ".extern" | ".weak" | ".common" => Ok(()),
            kind @ (".entry" | ".func") => self.function(kind == ".entry"),
            space @ (".global" | ".const") => self.variable(space == ".const"),
            ".shared" => {
                let declared = self.declaration()?;
                self.mark(';', "`;`")?;
                let place = match declared.count {
                    None => (Place::DynamicShared, 0),
                    Some(_) => {
                        let at = place(&mut self.module.shared, declared.size(), declared.align, RED_ZONE);
                        (Place::ModuleShared, at as u64)
                    }
                };
                self.module.symbols.insert(declared.name, place);
                Ok(())
            }
            _ => {
                self.at -= 1;
                self.wrong("a declaration or a function")
            }
        }
    }

    fn file(&mut self) -> Result<(), PtxError> {
        let number = self.number()? as u32;
        let Some(&Token::Text(name)) = self.peek() else { return self.wrong("a file name") };
        self.at += 1;
        while self.accept(&Token::Mark(',')) {
            self.number()?; // time and size of the file
        }
        let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
        self.module.files.insert(number, name.to_string());
        Ok(())
    }

    /// `.loc FILE LINE COLUMN[, function_name LABEL[+N], inlined_at FILE LINE COLUMN]`
    fn location(&mut self) -> Result<Location, PtxError> {
        let (file, line, _) = (self.number()? as u32, self.number()? as u32, self.number()?);
        let mut location = Location { file, line, inlined_at: None };
        while self.accept(&Token::Mark(',')) {
            match self.word()? {
                "function_name" => {
                    self.word()?;
                    if self.accept(&Token::Mark('+')) {
                        self.number()?;
                    }
                }
                "inlined_at" => {
                    location.inlined_at = Some((self.number()? as u32, self.number()? as u32));
                    self.number()?;
                }
                _ => return self.wrong("`function_name` or `inlined_at`"),
            }
        }
        Ok(location)
    }

    /// What follows `.param`, `.local`, `.shared`, `.global` or `.const`.
    fn declaration(&mut self) -> Result<Declaration, PtxError> {
        let (mut ty, mut align) = (None, 0);
        let name = loop {
            match self.word()? {
                ".align" => align = self.number()? as usize,
                ".ptr" | ".global" | ".shared" | ".const" | ".local" => {} // what a pointer parameter points to
                suffix if suffix.starts_with('.') => match Type::parse(&suffix[1..]) {
                    Some(found) => ty = Some(found),
                    None => return self.wrong("a type"),
                },
                name => break name.to_string(),
            }
        };
        let Some(ty) = ty else { return self.wrong("a type before the name") };
        let mut count = Some(1);
        while self.accept(&Token::Mark('[')) {
            if self.accept(&Token::Mark(']')) {
                count = None;
                continue;
            }
            let extent = self.number()? as usize;
            count = count.map(|count| count * extent);
            self.mark(']', "`]`")?;
        }
        Ok(Declaration { name, ty, align: if align == 0 { ty.size() } else { align }, count })
    }

    fn variable(&mut self, constant: bool) -> Result<(), PtxError> {
        let declared = self.declaration()?;
        let mut data = Vec::new();
        if self.accept(&Token::Mark('=')) {
            let list = self.accept(&Token::Mark('{'));
            loop {
                let value = self.number()?;
                data.extend_from_slice(&value.to_le_bytes()[..declared.ty.size()]);
                if !self.accept(&Token::Mark(',')) {
                    break;
                }
            }
            if list {
                self.mark('}', "`}`")?;
            }
        }
        self.mark(';', "`;`")?;
        let size = declared.size().max(data.len());
        let number = self.module.variables.len();
        self.module.symbols.insert(declared.name.clone(), (Place::Global(number), 0));
        self.module.variables.push(Variable { name: declared.name, data, size, constant });
        Ok(())
    }

    fn parameters(&mut self) -> Result<Vec<Declaration>, PtxError> {
        let mut out = Vec::new();
        if !self.accept(&Token::Mark('(')) {
            return Ok(out);
        }
        while !self.accept(&Token::Mark(')')) {
            if self.word()? != ".param" {
                self.at -= 1;
                return self.wrong("`.param`");
            }
            out.push(self.declaration()?);
            self.accept(&Token::Mark(','));
        }
        Ok(out)
    }

    fn function(&mut self, is_kernel: bool) -> Result<(), PtxError> {
        let results = if is_kernel { Vec::new() } else { self.parameters()? };
        let name = self.word()?.to_string();
        let params = self.parameters()?;
        let number = self.module.function_number(&name);
        let mut body = Body {
            function: Function { name, is_kernel, registers: CARRY + 1, ..Function::default() },
            scopes: vec![HashMap::new()],
            frame: Vec::new(),
            labels: HashMap::new(),
            jumps: Vec::new(),
            location: None,
        };
        let mut space = Vec::new();
        for param in &params {
            let (extents, at) =
                if is_kernel { (&mut space, Place::Param) } else { (&mut body.frame, Place::Local) };
            let offset = place(extents, param.size(), param.align, 0);
            body.function.params.push(Extent { offset, size: param.size() });
            body.scopes[0].insert(param.name.clone(), Operand::Symbol(at, offset as u64));
        }
        for result in &results {
            let offset = place(&mut body.frame, result.size(), result.align, 0);
            body.function.results.push(Extent { offset, size: result.size() });
            body.scopes[0].insert(result.name.clone(), Operand::Symbol(Place::Local, offset as u64));
        }
        while !self.accept(&Token::Mark('{')) {
            if self.accept(&Token::Mark(';')) {
                return Ok(()); // only declared
            }
            match self.word()? {
                ".maxntid" => {
                    let mut threads = self.number()? as u32;
                    while self.accept(&Token::Mark(',')) {
                        threads *= self.number()? as u32;
                    }
                    body.function.max_threads = threads;
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
        for (instruction, label, line) in body.jumps {
            let Some(&target) = body.labels.get(&label) else {
                return Err(PtxError::Undeclared { line, name: label });
            };
            body.function.code[instruction].op = Op::Branch(target);
        }
        body.function.frame = body.frame.last().map_or(0, |last| last.offset + last.size);
        self.module.functions[number] = Some(body.function);
        Ok(())
    }

    fn statement(&mut self, body: &mut Body) -> Result<(), PtxError> {
        if self.accept(&Token::Mark('{')) {
            body.scopes.push(HashMap::new());
            return Ok(());
        }
        if self.accept(&Token::Mark('}')) {
            body.scopes.pop();
            if body.scopes.is_empty() {
                // Falling off the end is a return.
                self.emit(body, "ret", None, Vec::new(), Op::Exit);
            }
            return Ok(());
        }
        if self.accept(&Token::Mark(';')) {
            return Ok(());
        }
        if self.accept(&Token::Mark('@')) {
            let negated = self.accept(&Token::Mark('!'));
            let Operand::Register(predicate) = self.operand(body)? else { return self.wrong("a predicate") };
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
                let declared = self.declaration()?;
                self.mark(';', "`;`")?;
                let (extents, at, gap) = match space {
                    ".shared" => (&mut body.function.shared, Place::Shared, RED_ZONE),
                    _ => (&mut body.frame, Place::Local, 0),
                };
                let offset = place(extents, declared.size(), declared.align, gap);
                self.declare(body, declared.name, Operand::Symbol(at, offset as u64));
            }
            label if self.accept(&Token::Mark(':')) => {
                body.labels.insert(label.to_string(), body.function.code.len());
            }
            _ => {
                self.at -= 1;
                self.instruction(body, None)?;
            }
        }
        Ok(())
    }

    fn declare(&self, body: &mut Body, name: String, operand: Operand) {
        body.scopes.last_mut().expect("internal: a body has a scope").insert(name, operand);
    }

    /// `.reg .b32 %r<17>, %x;`
    fn registers(&mut self, body: &mut Body) -> Result<(), PtxError> {
        self.word()?;
        loop {
            let name = self.word()?;
            let count = if self.accept(&Token::Mark('<')) {
                let count = self.number()?;
                self.mark('>', "`>`")?;
                Some(count)
            } else {
                None
            };
            for i in 0..count.unwrap_or(1) {
                let name = if count.is_some() { format!("{name}{i}") } else { name.to_string() };
                let register = body.function.registers;
                self.declare(body, name, Operand::Register(register));
                body.function.registers += 1;
            }
            if !self.accept(&Token::Mark(',')) {
                return self.mark(';', "`;`");
            }
        }
    }

    fn emit(
        &self,
        body: &mut Body,
        opcode: &str,
        guard: Option<(u32, bool)>,
        operands: Vec<Operand>,
        op: Op,
    ) {
        let (line, location) = (self.tokens[self.at - 1].1, body.location);
        body.function.code.push(Instruction {
            op,
            operands,
            guard,
            line,
            opcode: opcode.to_string(),
            location,
        });
    }

    fn instruction(&mut self, body: &mut Body, guard: Option<(u32, bool)>) -> Result<(), PtxError> {
        let line = self.line();
        let opcode = self.word()?;
        match opcode {
            "bra" | "bra.uni" => {
                let label = self.word()?.to_string();
                body.jumps.push((body.function.code.len(), label, line));
                self.emit(body, opcode, guard, Vec::new(), Op::Nothing);
                return self.mark(';', "`;`");
            }
            "call" | "call.uni" => return self.call(body, opcode, guard),
            _ => {}
        }
        let mut operands = Vec::new();
        while !self.accept(&Token::Mark(';')) {
            operands.push(self.operand(body)?);
            if self.accept(&Token::Mark('|')) {
                // A second result: `setp.eq.s32 %p|%q, ...`.
                let second = self.operand(body)?;
                let first = operands.pop().expect("internal: just pushed");
                operands.push(Operand::Vector(vec![first, second]));
            }
            if !self.accept(&Token::Mark(',')) && self.peek() != Some(&Token::Mark(';')) {
                return self.wrong("`,` or `;`");
            }
        }
        for (op, operands) in decode(opcode, operands, line)? {
            self.emit(body, opcode, guard, operands, op);
        }
        Ok(())
    }

    /// `call (result), name, (arguments);`
    fn call(&mut self, body: &mut Body, opcode: &str, guard: Option<(u32, bool)>) -> Result<(), PtxError> {
        let list = |parser: &mut Self| {
            let mut out = Vec::new();
            if parser.accept(&Token::Mark('(')) {
                while !parser.accept(&Token::Mark(')')) {
                    out.push(parser.operand(body)?);
                    parser.accept(&Token::Mark(','));
                }
                parser.accept(&Token::Mark(','));
            }
            Ok::<_, PtxError>(Operand::Vector(out))
        };
        let results = list(self)?;
        let name = self.word()?;
        if name.starts_with('%') {
            self.at -= 1;
            return self.wrong("the name of a function (calls through a pointer are not emulated)");
        }
        self.accept(&Token::Mark(','));
        let arguments = list(self)?;
        self.mark(';', "`;`")?;
        let number = self.module.function_number(name);
        self.emit(body, opcode, guard, vec![results, arguments], Op::Call(number));
        Ok(())
    }

    fn operand(&mut self, body: &Body) -> Result<Operand, PtxError> {
        if self.accept(&Token::Mark('{')) {
            let mut parts = Vec::new();
            while !self.accept(&Token::Mark('}')) {
                parts.push(self.operand(body)?);
                self.accept(&Token::Mark(','));
            }
            return Ok(Operand::Vector(parts));
        }
        if self.accept(&Token::Mark('[')) {
            let base = Box::new(self.operand(body)?);
            let offset = if self.accept(&Token::Mark('+')) || self.peek() == Some(&Token::Mark('-')) {
                self.number()? as i64
            } else {
                0
            };
            self.mark(']', "`]`")?;
            return Ok(Operand::Address { base, offset });
        }
        if matches!(self.peek(), Some(Token::Number(_) | Token::Mark('-'))) {
            return Ok(Operand::Immediate(self.number()?));
        }
        let line = self.line();
        let negated = self.accept(&Token::Mark('!'));
        let name = self.word()?;
        let found = body.scopes.iter().rev().find_map(|scope| scope.get(name)).cloned();
        let operand = found
            .or_else(|| self.module.symbols.get(name).map(|&(place, at)| Operand::Symbol(place, at)))
            .or_else(|| special(name).map(Operand::Special))
            .or_else(|| (name == "_").then_some(Operand::Sink))
            .or_else(|| (name == "WARP_SZ").then_some(Operand::Immediate(32)));
        match operand {
            Some(_) if negated => {
                Err(PtxError::Syntax { line, expected: "a plain operand", found: format!("!{name}") })
            }
            Some(operand) => Ok(operand),
            None => Err(PtxError::Undeclared { line, name: name.to_string() }),
        }
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
