//! Makes a kernel that can run: calls are inlined, and variables get their addresses.

use super::parser::{Extent, Function, Module};
use super::{Instruction, Op, Operand, Place, PtxError, limits};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// A kernel ready to launch.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Offsets and sizes of its arguments in the parameter space.
    pub params: Vec<Extent>,
    /// Its instructions, those of the functions it calls included.
    pub code: Vec<Instruction>,
    /// How many registers a thread has.
    pub registers: usize,
    /// Bytes of local memory of a thread.
    pub frame: usize,
    /// Its static shared variables.
    pub shared: Vec<Extent>,
    /// Where dynamic shared memory begins.
    pub dynamic_shared: usize,
    /// `.maxntid`, or 0.
    pub max_threads: u32,
    /// Names of the source files of its locations.
    pub files: Arc<HashMap<u32, String>>,
}

struct Linker<'a> {
    module: &'a Module,
    globals: &'a [u64],
    code: Vec<Instruction>,
    /// How many instructions there may be, so that the module's kernels stay inside its limit.
    room: usize,
    registers: u32,
    frame: usize,
    shared: Vec<Extent>,
    active: Vec<usize>,
}

/// Where a function's copy has its registers and variables.
#[derive(Clone, Copy)]
struct Base {
    registers: u32,
    frame: usize,
    shared: usize,
}

impl Module {
    /// The kernels of the module; `globals` are the addresses of [`Module::variables`], as many and in their order.
    ///
    /// # Errors
    /// Recursion, calls of what is not there or with other arguments, and more than [`limits`] allow after inlining.
    pub fn link(&self, globals: &[u64]) -> Result<Vec<Kernel>, PtxError> {
        let files = Arc::new(self.files.clone());
        let mut room = limits::INSTRUCTIONS;
        let mut kernels = Vec::new();
        for (number, function) in self.functions.iter().enumerate() {
            if let Some(function) = function.as_ref().filter(|function| function.is_kernel) {
                let kernel = self.link_kernel(number, function, globals, room, files.clone())?;
                room -= kernel.code.len();
                kernels.push(kernel);
            }
        }
        Ok(kernels)
    }

    fn link_kernel(
        &self,
        number: usize,
        function: &Function,
        globals: &[u64],
        room: usize,
        files: Arc<HashMap<u32, String>>,
    ) -> Result<Kernel, PtxError> {
        let mut linker = Linker {
            module: self,
            globals,
            code: Vec::new(),
            room,
            registers: 0,
            frame: 0,
            shared: self.shared.clone(),
            active: Vec::new(),
        };
        let base = linker.reserve(function, function.line)?;
        linker.fill(number, function, base)?;
        // 128 bytes are what a launch can count on without saying so.
        let align = self.dynamic_align.max(128);
        let dynamic_shared =
            linker.shared.last().map_or(0, |last| (last.offset + last.size).next_multiple_of(align));
        for operand in linker.code.iter_mut().flat_map(|i| &mut i.operands) {
            visit(operand, &mut |operand| {
                if let Operand::Symbol(Place::DynamicShared, offset) = operand {
                    *operand = Operand::Immediate(dynamic_shared as u64 + *offset);
                }
            });
        }
        Ok(Kernel {
            name: function.name.clone(),
            params: function.params.clone(),
            code: linker.code,
            registers: linker.registers as usize,
            frame: linker.frame,
            shared: linker.shared,
            dynamic_shared,
            max_threads: function.max_threads,
            files,
        })
    }
}

/// Applies `change` to an operand and those inside it.
fn visit(operand: &mut Operand, change: &mut impl FnMut(&mut Operand)) {
    match operand {
        Operand::Address { base, .. } => visit(base, change),
        Operand::Vector(parts) => parts.iter_mut().for_each(|part| visit(part, change)),
        _ => {}
    }
    change(operand);
}

impl Linker<'_> {
    /// Registers and memory for one more copy of a function.
    fn reserve(&mut self, function: &Function, line: u32) -> Result<Base, PtxError> {
        let base = Base {
            registers: self.registers,
            frame: self.frame.next_multiple_of(16),
            shared: self.shared.last().map_or(0, |last| (last.offset + last.size + 16).next_multiple_of(128)),
        };
        self.registers += function.registers;
        self.frame = base.frame + function.frame;
        let moved = |extent: &Extent| Extent { offset: base.shared + extent.offset, ..*extent };
        self.shared.extend(function.shared.iter().map(moved));
        let shared = self.shared.last().map_or(0, |last| last.offset + last.size);
        limits::check(
            self.registers as usize,
            limits::REGISTERS,
            "registers of a kernel, calls inlined",
            line,
        )?;
        limits::check(self.frame, limits::LOCAL, "bytes of local memory of a kernel, calls inlined", line)?;
        limits::check(shared, limits::SHARED, "bytes of shared memory of a kernel, calls inlined", line)?;
        Ok(base)
    }

    fn push(&mut self, instruction: Instruction) -> Result<(), PtxError> {
        const WHAT: &str = "instructions in the kernels of a module, calls inlined";
        limits::check(self.code.len() + 1, self.room, WHAT, instruction.line).map_err(|_| {
            PtxError::Limit { line: instruction.line, most: limits::INSTRUCTIONS, what: WHAT }
        })?;
        self.code.push(instruction);
        Ok(())
    }

    /// Appends a copy of a function's code; returns jump to the end of the copy unless it is the kernel itself.
    fn fill(&mut self, number: usize, function: &Function, base: Base) -> Result<(), PtxError> {
        self.active.push(number);
        let is_kernel = self.active.len() == 1;
        let mut starts = Vec::with_capacity(function.code.len());
        let mut jumps = Vec::new();
        for instruction in &function.code {
            starts.push(self.code.len());
            let mut instruction = instruction.clone();
            if let Some((predicate, _)) = &mut instruction.guard {
                *predicate += base.registers;
            }
            instruction.operands.iter_mut().for_each(|operand| self.relocate(operand, base));
            match instruction.op {
                Op::Call(callee) => {
                    self.call(callee, &instruction, base.frame..base.frame + function.frame)?;
                }
                Op::Branch(target) => {
                    jumps.push((self.code.len(), target));
                    self.push(instruction)?;
                }
                Op::Exit if !is_kernel => {
                    jumps.push((self.code.len(), function.code.len()));
                    self.push(instruction)?;
                }
                _ => self.push(instruction)?,
            }
        }
        starts.push(self.code.len());
        for (at, target) in jumps {
            self.code[at].op = Op::Branch(starts[target]);
        }
        self.active.pop();
        Ok(())
    }

    /// Arguments into the callee's frame, its code, results out of it. A guard jumps around all of it. Arguments and results
    /// are variables of the caller, which has `frame`.
    fn call(&mut self, callee: usize, call: &Instruction, frame: Range<usize>) -> Result<(), PtxError> {
        let line = call.line;
        let wrong = || PtxError::Operands { line, opcode: call.opcode.clone() };
        let [Operand::Vector(results), Operand::Vector(arguments)] = &call.operands[..] else {
            return Err(wrong());
        };
        limits::check(self.active.len(), limits::CALLS, "calls inside each other", line)?;
        let Some(function) = &self.module.functions[callee] else {
            return Err(PtxError::Undeclared { line, name: self.module.function_name(callee) });
        };
        if self.active.contains(&callee) {
            return Err(PtxError::Recursion { line, name: function.name.clone() });
        }
        if function.is_kernel
            || arguments.len() != function.params.len()
            || results.len() != function.results.len()
        {
            return Err(wrong());
        }
        let part = |guard, op, operands| Instruction {
            op,
            operands,
            guard,
            line,
            opcode: call.opcode.clone(),
            location: call.location,
        };
        let skip = self.code.len();
        if let Some((predicate, negated)) = call.guard {
            self.push(part(Some((predicate, !negated)), Op::Nothing, Vec::new()))?;
        }
        let base = self.reserve(function, line)?;
        let copies = |outside: &[Operand], inside: &[Extent], inwards: bool| {
            let copy = |(outside, inside): (&Operand, &Extent)| {
                let Operand::Immediate(at) = *outside else { return Err(wrong()) };
                let at = at as usize;
                if at < frame.start || at + inside.size > frame.end {
                    return Err(wrong());
                }
                let here = Operand::Immediate((base.frame + inside.offset) as u64);
                let operands =
                    if inwards { vec![here, outside.clone()] } else { vec![outside.clone(), here] };
                Ok(part(None, Op::CopyLocal(inside.size), operands))
            };
            outside
                .iter()
                .zip(inside)
                .filter(|(_, inside)| inside.size > 0)
                .map(copy)
                .collect::<Result<Vec<_>, _>>()
        };
        for copy in copies(arguments, &function.params, true)? {
            self.push(copy)?;
        }
        self.fill(callee, function, base)?;
        for copy in copies(results, &function.results, false)? {
            self.push(copy)?;
        }
        if call.guard.is_some() {
            self.code[skip].op = Op::Branch(self.code.len());
        }
        Ok(())
    }

    fn relocate(&self, operand: &mut Operand, base: Base) {
        visit(operand, &mut |operand| match operand {
            Operand::Register(register) => *register += base.registers,
            Operand::Symbol(place, offset) => {
                let address = match place {
                    Place::Param | Place::ModuleShared => *offset,
                    Place::Local => base.frame as u64 + *offset,
                    Place::Shared => base.shared as u64 + *offset,
                    Place::Global(number) => self.globals[*number] + *offset,
                    Place::DynamicShared => return,
                };
                *operand = Operand::Immediate(address);
            }
            _ => {}
        });
    }
}
