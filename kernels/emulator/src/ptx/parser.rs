//! Modules and declarations. What stands inside functions is in `body`, what single instructions mean in `decode`.

use super::lexer::{Token, tokens};
use super::{Instruction, Location, Place, PtxError, Type, limits, shown};
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
    /// Line of the PTX text where it begins.
    pub line: u32,
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
    /// The alignment of dynamic shared memory, in bytes.
    pub dynamic_align: usize,
    /// Functions by the number calls use; `None` where only declared.
    pub functions: Vec<Option<Function>>,
    names: HashMap<String, usize>,
    pub(super) symbols: HashMap<String, (Place, u64)>,
}

/// Free bytes kept between shared variables, so that an access past the end of one is not inside the next.
const RED_ZONE: usize = 16;

/// Variables one behind the other in one memory.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Free bytes between two.
    gap: usize,
    /// Bytes in all, and how an error calls them.
    most: usize,
    what: &'static str,
}

pub(super) const PARAMETERS: Layout =
    Layout { gap: 0, most: limits::PARAMETERS, what: "bytes of parameters" };
pub(super) const LOCAL: Layout = Layout { gap: 0, most: limits::LOCAL, what: "bytes of local memory" };
const GLOBAL: Layout = Layout { gap: 0, most: limits::GLOBAL, what: "bytes of `.global` variables" };
const CONST: Layout = Layout { gap: 0, most: limits::CONST, what: "bytes of `.const` variables" };
pub(super) const SHARED: Layout =
    Layout { gap: RED_ZONE, most: limits::SHARED, what: "bytes of shared memory" };

impl Layout {
    /// Puts a variable behind those that are there.
    pub(super) fn place(self, extents: &mut Vec<Extent>, declared: &Declaration) -> Result<usize, PtxError> {
        let end = extents.last().map_or(0, |last| last.offset + last.size + self.gap);
        let (offset, size) = (end.next_multiple_of(declared.align), declared.size());
        limits::check(offset + size, self.most, self.what, declared.line)?;
        extents.push(Extent { offset, size });
        Ok(offset)
    }
}

/// A declaration such as `.param .align 16 .b8 name[24]`.
pub(super) struct Declaration<'a> {
    pub(super) name: &'a str,
    ty: Type,
    pub(super) align: usize,
    /// Elements, or `None` for `name[]`.
    count: Option<usize>,
    pub(super) line: u32,
}

impl Declaration<'_> {
    pub(super) fn size(&self) -> usize {
        self.ty.size() * self.count.unwrap_or(0)
    }
}

pub(super) struct Parser<'a> {
    pub(super) tokens: Vec<(Token<'a>, u32)>,
    pub(super) at: usize,
    pub(super) module: Module,
    /// Instructions so far.
    pub(super) instructions: usize,
}

impl Module {
    /// Parses and decodes PTX text.
    pub fn parse(text: &str) -> Result<Module, PtxError> {
        let mut parser = Parser { tokens: tokens(text)?, at: 0, module: Module::default(), instructions: 0 };
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

    pub(super) fn function_number(&mut self, name: &str, line: u32) -> Result<usize, PtxError> {
        if let Some(&number) = self.names.get(name) {
            return Ok(number);
        }
        limits::check(self.functions.len() + 1, limits::FUNCTIONS, "functions", line)?;
        self.functions.push(None);
        self.names.insert(name.to_string(), self.functions.len() - 1);
        Ok(self.functions.len() - 1)
    }

    fn declare(&mut self, name: &str, meaning: (Place, u64), line: u32) -> Result<(), PtxError> {
        match self.symbols.insert(name.to_string(), meaning) {
            // `extern .shared` may be said again for every kernel.
            Some(before) if before != meaning || meaning.0 != Place::DynamicShared => {
                Err(PtxError::Twice { line, name: name.into() })
            }
            _ => Ok(()),
        }
    }
}

impl<'a> Parser<'a> {
    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |(_, line)| *line)
    }

    pub(super) fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    pub(super) fn wrong<T>(&self, expected: &'static str) -> Result<T, PtxError> {
        let found = self.peek().map_or("the end of the text".to_string(), ToString::to_string);
        Err(PtxError::Syntax { line: self.line(), expected, found })
    }

    pub(super) fn accept(&mut self, token: &Token) -> bool {
        let same = self.peek() == Some(token);
        self.at += usize::from(same);
        same
    }

    pub(super) fn mark(&mut self, mark: char, expected: &'static str) -> Result<(), PtxError> {
        self.directive(&Token::Mark(mark), expected)
    }

    pub(super) fn word(&mut self) -> Result<&'a str, PtxError> {
        match self.peek() {
            Some(&Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.wrong("a name"),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, PtxError> {
        let negative = self.accept(&Token::Mark('-'));
        match self.peek() {
            Some(&Token::Number(number)) => {
                self.at += 1;
                Ok(if negative { number.wrapping_neg() } else { number })
            }
            _ => self.wrong("a number"),
        }
    }

    /// A number that fits into 32 bits.
    fn small(&mut self) -> Result<u32, PtxError> {
        let at = self.at;
        self.number()?.try_into().or_else(|_| {
            self.at = at;
            self.wrong("a number of 32 bits")
        })
    }

    /// What every module begins with; addresses have 64 bits.
    fn header(&mut self) -> Result<(), PtxError> {
        self.directive(&Token::Word(".version"), "`.version`")?;
        let known = |version: &str| {
            let (major, minor) = version.split_once('.').unwrap_or_default();
            matches!(major.parse(), Ok(1..=9)) && matches!(minor.parse(), Ok(0..=9))
        };
        match self.peek() {
            Some(Token::Decimal(version)) if known(version) => self.at += 1,
            _ => return self.wrong("a version of PTX from 1.0 to 9.9"),
        }
        self.directive(&Token::Word(".target"), "`.target`")?;
        let known = |target: &str| {
            let number = target.strip_prefix("sm_").map(|number| number.trim_end_matches(['a', 'f']));
            number.is_some_and(|number| matches!(number.parse(), Ok(10..=999)))
        };
        match self.peek() {
            Some(Token::Word(target)) if known(target) => self.at += 1,
            _ => return self.wrong("a target such as `sm_80`"),
        }
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
                let declared = self.declaration(SHARED)?;
                self.mark(';', "`;`")?;
                let place = match declared.count {
                    None => {
                        self.module.dynamic_align = self.module.dynamic_align.max(declared.align);
                        (Place::DynamicShared, 0)
                    }
                    Some(_) => {
                        let count = self.module.shared.len() + 1;
                        limits::check(count, limits::VARIABLES, "shared variables", declared.line)?;
                        (Place::ModuleShared, SHARED.place(&mut self.module.shared, &declared)? as u64)
                    }
                };
                self.module.declare(declared.name, place, declared.line)
            }
            _ => {
                self.at -= 1;
                self.wrong("a declaration or a function")
            }
        }
    }

    fn file(&mut self) -> Result<(), PtxError> {
        let number = self.small()?;
        let Some(&Token::Text(name)) = self.peek() else { return self.wrong("a file name") };
        self.at += 1;
        while self.accept(&Token::Mark(',')) {
            self.number()?; // time and size of the file
        }
        let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
        self.module.files.insert(number, shown(name));
        Ok(())
    }

    /// `.loc FILE LINE COLUMN[, function_name LABEL[+N], inlined_at FILE LINE COLUMN]`
    pub(super) fn location(&mut self) -> Result<Location, PtxError> {
        let (file, line, _) = (self.small()?, self.small()?, self.number()?);
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
                    location.inlined_at = Some((self.small()?, self.small()?));
                    self.number()?;
                }
                _ => return self.wrong("`function_name` or `inlined_at`"),
            }
        }
        Ok(location)
    }

    /// What follows `.param`, `.local`, `.shared`, `.global` or `.const`; its size alone must fit into `layout`.
    pub(super) fn declaration(&mut self, layout: Layout) -> Result<Declaration<'a>, PtxError> {
        let (mut ty, mut align) = (None, None);
        let line = self.line();
        let name = loop {
            match self.word()? {
                ".align" => align = Some(self.alignment()?),
                ".ptr" | ".global" | ".shared" | ".const" | ".local" => {} // what a pointer parameter points to
                suffix if suffix.starts_with('.') => match Type::parse(&suffix[1..]) {
                    Some(found) => ty = Some(found),
                    None => {
                        self.at -= 1;
                        return self.wrong("a type");
                    }
                },
                name => break name,
            }
        };
        let Some(ty) = ty else { return self.wrong("a type before the name") };
        let mut count = Some(1);
        while self.accept(&Token::Mark('[')) {
            if self.accept(&Token::Mark(']')) {
                count = None;
                continue;
            }
            let extent = usize::try_from(self.number()?).unwrap_or(usize::MAX);
            // Of `[0][N]` too, N must be a size that could be.
            limits::check(extent, layout.most, layout.what, line)?;
            count = count.map(|count: usize| count.saturating_mul(extent));
            limits::check(count.unwrap_or(0).saturating_mul(ty.size()), layout.most, layout.what, line)?;
            self.mark(']', "`]`")?;
        }
        Ok(Declaration { name, ty, align: align.unwrap_or(ty.size()), count, line })
    }

    fn alignment(&mut self) -> Result<usize, PtxError> {
        let at = self.at;
        let align = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if align.is_power_of_two() && align <= limits::ALIGNMENT {
            return Ok(align);
        }
        self.at = at;
        self.wrong("an alignment: a power of two up to 1024")
    }

    fn variable(&mut self, constant: bool) -> Result<(), PtxError> {
        let layout = if constant { CONST } else { GLOBAL };
        let declared = self.declaration(layout)?;
        let mut data = Vec::new();
        if self.accept(&Token::Mark('=')) {
            let list = self.accept(&Token::Mark('{'));
            loop {
                let value = self.number()?;
                data.extend_from_slice(&value.to_le_bytes()[..declared.ty.size()]);
                if !list || !self.accept(&Token::Mark(',')) {
                    break;
                }
            }
            if list {
                self.mark('}', "`}`")?;
            }
        }
        if declared.count.is_some() && data.len() > declared.size() {
            return self.wrong("no more values than the variable has elements");
        }
        self.mark(';', "`;`")?;
        let size = declared.size().max(data.len());
        let variables = &mut self.module.variables;
        limits::check(variables.len() + 1, limits::VARIABLES, "variables", declared.line)?;
        let before: usize = variables.iter().filter(|v| v.constant == constant).map(|v| v.size).sum();
        limits::check(before + size, layout.most, layout.what, declared.line)?;
        let number = variables.len();
        variables.push(Variable { name: declared.name.to_string(), data, size, constant });
        self.module.declare(declared.name, (Place::Global(number), 0), declared.line)
    }

    pub(super) fn parameters(&mut self) -> Result<Vec<Declaration<'a>>, PtxError> {
        let mut out = Vec::new();
        if !self.accept(&Token::Mark('(')) {
            return Ok(out);
        }
        while !self.accept(&Token::Mark(')')) {
            if self.word()? != ".param" {
                self.at -= 1;
                return self.wrong("`.param`");
            }
            out.push(self.declaration(PARAMETERS)?);
            limits::check(out.len(), limits::OPERANDS, "parameters of a function", self.line())?;
            self.accept(&Token::Mark(','));
        }
        Ok(out)
    }
}
