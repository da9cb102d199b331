//! Makes a kernel that can run: calls are inlined, and variables get their addresses.

use super::parser::{Extent, Function, Module};
use super::{Instruction, Op, Operand, Place, PtxError};

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
    pub files: std::collections::HashMap<u32, String>,
}

struct Linker<'a> {
    module: &'a Module,
    globals: &'a [u64],
    code: Vec<Instruction>,
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
    /// The kernels of the module; `globals` are the addresses of [`Module::variables`].
    pub fn link(&self, globals: &[u64]) -> Result<Vec<Kernel>, PtxError> {
        let kernels =
            self.functions.iter().enumerate().filter(|(_, f)| f.as_ref().is_some_and(|f| f.is_kernel));
        kernels.map(|(number, _)| self.link_kernel(number, globals)).collect()
    }

    fn link_kernel(&self, number: usize, globals: &[u64]) -> Result<Kernel, PtxError> {
        let mut linker = Linker {
            module: self,
            globals,
            code: Vec::new(),
            registers: 0,
            frame: 0,
            shared: self.shared.clone(),
            active: Vec::new(),
        };
        let function = self.functions[number].as_ref().expect("internal: a kernel has a body");
        let base = linker.reserve(function);
        linker.fill(number, function, base)?;
        // 128 bytes are the most that any launch can count on.
        let dynamic_shared =
            linker.shared.last().map_or(0, |last| (last.offset + last.size).next_multiple_of(128));
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
            files: self.files.clone(),
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
    fn reserve(&mut self, function: &Function) -> Base {
        let base = Base {
            registers: self.registers,
            frame: self.frame.next_multiple_of(16),
            shared: self.shared.last().map_or(0, |last| (last.offset + last.size + 16).next_multiple_of(128)),
        };
        self.registers += function.registers;
        self.frame = base.frame + function.frame;
        let moved = |extent: &Extent| Extent { offset: base.shared + extent.offset, ..*extent };
        self.shared.extend(function.shared.iter().map(moved));
        base
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
                Op::Call(callee) => self.call(callee, &instruction)?,
                Op::Branch(target) => {
                    jumps.push((self.code.len(), target));
                    self.code.push(instruction);
                }
                Op::Exit if !is_kernel => {
                    jumps.push((self.code.len(), function.code.len()));
                    self.code.push(instruction);
                }
                _ => self.code.push(instruction),
            }
        }
        starts.push(self.code.len());
        for (at, target) in jumps {
            self.code[at].op = Op::Branch(starts[target]);
        }
        self.active.pop();
        Ok(())
    }

    /// Arguments into the callee's frame, its code, results out of it. A guard jumps around all of it.
    fn call(&mut self, callee: usize, call: &Instruction) -> Result<(), PtxError> {
        let (Operand::Vector(results), Operand::Vector(arguments)) = (&call.operands[0], &call.operands[1])
        else {
            return Err(PtxError::Operands { line: call.line, opcode: call.opcode.clone() });
        };
        let skip = call.guard.map(|(predicate, negated)| {
            self.code.push(Instruction {
                guard: Some((predicate, !negated)),
                op: Op::Nothing,
                ..call.clone()
            });
            self.code.len() - 1
        });
        let Some(function) = &self.module.functions[callee] else {
            let name = self.module.function_name(callee);
            return Err(PtxError::Undeclared { line: call.line, name });
        };
        if self.active.contains(&callee) {
            return Err(PtxError::Recursion { line: call.line, name: function.name.clone() });
        }
        if arguments.len() != function.params.len() || results.len() != function.results.len() {
            return Err(PtxError::Operands { line: call.line, opcode: call.opcode.clone() });
        }
        let base = self.reserve(function);
        let place = |extent: &Extent| Operand::Immediate((base.frame + extent.offset) as u64);
        let copy = |to: Operand, from: Operand, size| Instruction {
            op: Op::CopyLocal(size),
            operands: vec![to, from],
            guard: None,
            ..call.clone()
        };
        for (argument, param) in arguments.iter().zip(&function.params) {
            self.code.push(copy(place(param), argument.clone(), param.size));
        }
        self.fill(callee, function, base)?;
        for (result, from) in results.iter().zip(&function.results) {
            self.code.push(copy(result.clone(), place(from), from.size));
        }
        if let Some(skip) = skip {
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
