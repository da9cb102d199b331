//! One warp: its registers, and which of its lanes run which instruction.
//!
//! Lanes at the same instruction form a group and run together. Of several groups the one that is furthest behind runs, so
//! that groups meet again. A group at an instruction that wants more lanes (a barrier, a shuffle) is parked until they come.

use super::Grid;
use super::access::{self, Local};
use super::alu::{Lanes, Lanewise};
use super::block::Commons;
use super::{collective, matrix};
use crate::finding::{Fault, FindingKind};
use crate::ptx::link::Kernel;
use crate::ptx::{Carry, Instruction, Op, Operand, ProductHalf, Special};

/// Lanes at one instruction.
#[derive(Clone, Copy, Debug)]
struct Group {
    pc: usize,
    mask: u32,
}

/// Why a warp stopped.
pub(super) enum Pause {
    /// All its lanes ended.
    Finished,
    /// It came to a barrier.
    Barrier {
        /// Which.
        id: usize,
        /// How many threads complete it; `None` for all of the block.
        threads: Option<u32>,
        /// Whether it waits there.
        waits: bool,
    },
}

/// The lanes that a mask names.
pub(super) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |lane| mask >> lane & 1 == 1)
}

pub(super) struct Warp {
    pub number: usize,
    registers: Vec<Lanes>,
    pub local: Local,
    /// Lanes that have not ended.
    pub live: u32,
    all: u32,
    current: Group,
    others: Vec<Group>,
    parked: Vec<Group>,
    thread_index: [Lanes; 3],
    /// Lanes that ran a fence since their last atomic operation.
    pub fenced: u32,
    executed: u64,
}

impl Warp {
    pub fn new(grid: &Grid, number: u32, threads: u32) -> Self {
        let [width, height, _] = grid.launch.block;
        let here = (threads - 32 * number).min(32);
        let along = |axis: fn(u32, u32, u32) -> u32| -> Lanes {
            std::array::from_fn(|lane| axis(32 * number + lane as u32, width, height).into())
        };
        let thread_index = [
            along(|thread, width, _| thread % width),
            along(|thread, width, height| thread / width % height),
            along(|thread, width, height| thread / width / height),
        ];
        Warp {
            number: number as usize,
            registers: vec![[0; 32]; grid.kernel.registers],
            local: Local::new(grid.kernel.frame),
            live: 0,
            all: u32::MAX >> (32 - here),
            current: Group { pc: 0, mask: 0 },
            others: Vec::new(),
            parked: Vec::new(),
            thread_index,
            fenced: 0,
            executed: 0,
        }
    }

    /// Back to the kernel's first instruction.
    pub fn start(&mut self) {
        self.local.start();
        self.live = self.all;
        self.current = Group { pc: 0, mask: self.all };
        self.others.clear();
        self.parked.clear();
        (self.fenced, self.executed) = (0, 0);
    }

    /// The instruction that runs.
    pub fn pc(&self) -> usize {
        self.current.pc
    }

    /// Runs to a barrier or to the end.
    pub fn run(&mut self, grid: &mut Grid, block: &mut Commons) -> Result<Pause, Box<Fault>> {
        let kernel: &Kernel = grid.kernel;
        loop {
            if self.current.mask == 0 {
                if self.live == 0 {
                    return Ok(Pause::Finished);
                }
                self.unpark(kernel)?;
            }
            let instruction = &kernel.code[self.current.pc];
            self.executed += 1;
            grid.executed += 1;
            if self.executed > grid.checks.limit {
                let message =
                    format!("more than {} instructions in a warp: an endless loop?", grid.checks.limit);
                return Err(self.fault(FindingKind::Endless, message));
            }
            if grid.executed > grid.limit {
                let message = format!("more than {} instructions in a launch", grid.checks.total);
                return Err(self.fault(FindingKind::Endless, message));
            }
            let mask = match instruction.guard {
                None => self.current.mask,
                Some((register, negated)) => {
                    let predicate = &self.registers[register as usize];
                    self.current.mask & collective::ballot(predicate)
                        ^ if negated { self.current.mask } else { 0 }
                }
            };
            if mask == 0 {
                self.advance();
                continue;
            }
            match instruction.op {
                Op::Branch(target) => {
                    self.leave(mask, target);
                    continue;
                }
                Op::Exit => {
                    self.live &= !mask;
                    self.current.mask &= !mask;
                    self.current.pc += 1;
                    self.choose();
                    continue;
                }
                _ => {}
            }
            if let Some(wanted) = self.wanted(instruction, mask)? {
                if mask != self.current.mask {
                    // Lanes whose guard is false go on; the others come here as a group of their own.
                    let rest = Group { pc: self.current.pc + 1, mask: self.current.mask & !mask };
                    self.others.push(rest);
                    self.current.mask = mask;
                }
                if wanted & !mask != 0 {
                    self.parked.push(self.current);
                    self.current.mask = 0;
                    self.choose();
                    continue;
                }
            }
            if let Some(pause) = self.execute(grid, block, instruction, mask)? {
                self.advance();
                return Ok(pause);
            }
            self.advance();
        }
    }

    fn fault(&self, kind: FindingKind, message: String) -> Box<Fault> {
        Fault::new(kind, self.current.mask.trailing_zeros().min(31) as usize, message)
    }

    fn advance(&mut self) {
        self.current.pc += 1;
        if !(self.others.is_empty() && self.parked.is_empty()) {
            self.choose();
        }
    }

    /// Lanes of `mask` go to `target`, the rest of the group to the next instruction.
    fn leave(&mut self, mask: u32, target: usize) {
        let rest = self.current.mask & !mask;
        if rest != 0 {
            self.others.push(Group { pc: self.current.pc + 1, mask: rest });
        }
        self.current = Group { pc: target, mask };
        self.choose();
    }

    /// Makes the group that is furthest behind the current one, joined with all lanes at the same instruction.
    fn choose(&mut self) {
        if self.others.is_empty() && self.parked.is_empty() {
            return;
        }
        if self.current.mask != 0 {
            self.others.push(self.current);
        }
        let Some(pc) = self.others.iter().map(|group| group.pc).min() else {
            self.current.mask = 0;
            return;
        };
        let mut mask = 0;
        for groups in [&mut self.others, &mut self.parked] {
            groups.retain(|group| {
                let here = group.pc == pc;
                mask |= if here { group.mask } else { 0 };
                !here
            });
        }
        self.current = Group { pc, mask };
    }

    /// Nothing runs: a parked group can go on if the lanes that it waited for have ended; otherwise they never come.
    fn unpark(&mut self, kernel: &Kernel) -> Result<(), Box<Fault>> {
        for at in 0..self.parked.len() {
            let group = self.parked[at];
            if self.wanted(&kernel.code[group.pc], group.mask)?.is_none_or(|wanted| wanted & !group.mask == 0)
            {
                self.current = self.parked.swap_remove(at);
                return Ok(());
            }
        }
        self.current = self.parked[0];
        let missing = self.all & !self.current.mask;
        let at_barrier = matches!(kernel.code[self.current.pc].op, Op::Barrier | Op::Arrive);
        let kind = if at_barrier { FindingKind::DivergentBarrier } else { FindingKind::LaneMask };
        let message = format!(
            "lanes {:#010x} of the warp wait here for lanes {missing:#010x}, which wait elsewhere or have ended",
            self.current.mask
        );
        Err(self.fault(kind, message))
    }

    /// The lanes that must be at a collective instruction together; `None` for one that lanes run by themselves.
    fn wanted(&self, instruction: &Instruction, mask: u32) -> Result<Option<u32>, Box<Fault>> {
        let named = match instruction.op {
            // `.aligned`: all lanes of the warp, and one that has ended never comes.
            Op::Barrier | Op::Arrive => return Ok(Some(self.all)),
            Op::LoadMatrix(_) | Op::MatrixMultiply(..) => {
                if self.live != u32::MAX {
                    let message =
                        format!("lanes {:#010x} of the warp have ended; all 32 take part here", !self.live);
                    return Err(self.fault(FindingKind::LaneMask, message));
                }
                return Ok(Some(u32::MAX));
            }
            Op::WarpSync | Op::Shuffle(_) | Op::Vote(_) | Op::Match(..) | Op::Reduce(..) => {
                instruction.operands.last()
            }
            _ => return Ok(None),
        };
        let mut scratch = [0; 32];
        let named = named.map_or(&[0xffff_ffff; 32], |operand| self.read(operand, &mut scratch, None));
        let mut wanted = 0;
        for lane in lanes(mask) {
            let mine = named[lane] as u32;
            if mine >> lane & 1 == 0 {
                let message =
                    format!("lane {lane} runs this with the lane mask {mine:#010x}, which does not name it");
                return Err(Fault::new(FindingKind::LaneMask, lane, message));
            }
            wanted |= mine & self.live;
        }
        Ok(Some(wanted))
    }

    /// An operand's value in every lane; `block` is needed for special registers that differ per block.
    pub fn read<'a>(
        &'a self,
        operand: &Operand,
        scratch: &'a mut Lanes,
        at: Option<(&Grid, &Commons)>,
    ) -> &'a Lanes {
        match operand {
            Operand::Register(register) => &self.registers[*register as usize],
            Operand::Immediate(bits) => {
                *scratch = [*bits; 32];
                scratch
            }
            Operand::Special(special) => {
                if let Some((grid, block)) = at {
                    *scratch = self.special(*special, grid, block);
                }
                scratch
            }
            // An address as a value: linking has made symbols immediates.
            Operand::Address { base, offset } => {
                let mut inner = [0; 32];
                let base = self.read(base, &mut inner, at);
                for lane in 0..32 {
                    scratch[lane] = base[lane].wrapping_add(*offset as u64);
                }
                scratch
            }
            Operand::Symbol(..) | Operand::Vector(_) | Operand::Sink => scratch,
        }
    }

    fn special(&self, special: Special, grid: &Grid, block: &Commons) -> Lanes {
        let same = |value: u32| [u64::from(value); 32];
        match special {
            Special::ThreadIndex(axis) => self.thread_index[axis],
            Special::BlockSize(axis) => same(grid.launch.block[axis]),
            Special::BlockIndex(axis) => block.block_index(axis),
            Special::GridSize(axis) => same(grid.launch.grid[axis]),
            Special::Lane => std::array::from_fn(|lane| lane as u64),
            Special::Warp => same(self.number as u32),
            Special::Warps => same(grid.launch.block.iter().product::<u32>().div_ceil(32)),
            Special::Zero => same(0),
            Special::LaneMask(mask) => std::array::from_fn(|lane| u64::from(mask.of(lane as u32))),
            Special::Clock => [grid.executed; 32],
            Special::DynamicShared => same(grid.launch.dynamic_shared as u32),
            Special::TotalShared => same((grid.kernel.dynamic_shared + grid.launch.dynamic_shared) as u32),
        }
    }

    /// Writes a result in the lanes of `mask`.
    pub fn write(&mut self, operand: &Operand, mask: u32, value: &Lanes) {
        let Operand::Register(register) = operand else { return };
        let register = &mut self.registers[*register as usize];
        if mask == u32::MAX {
            *register = *value;
        } else {
            lanes(mask).for_each(|lane| register[lane] = value[lane]);
        }
    }

    fn execute(
        &mut self,
        grid: &mut Grid,
        block: &mut Commons,
        instruction: &Instruction,
        mask: u32,
    ) -> Result<Option<Pause>, Box<Fault>> {
        let operands = &instruction.operands[..];
        match instruction.op {
            Op::Lanes(function) => {
                let mut scratch = [[0; 32]; 4];
                let [a, b, c, d] = &mut scratch;
                let at = Some((&*grid, &*block));
                let value = match function {
                    Lanewise::Unary(f) => f(self.read(&operands[1], a, at)),
                    Lanewise::Binary(f) => f(self.read(&operands[1], a, at), self.read(&operands[2], b, at)),
                    Lanewise::Ternary(f) => f(
                        self.read(&operands[1], a, at),
                        self.read(&operands[2], b, at),
                        self.read(&operands[3], c, at),
                    ),
                    Lanewise::Quaternary(f) => f(
                        self.read(&operands[1], a, at),
                        self.read(&operands[2], b, at),
                        self.read(&operands[3], c, at),
                        self.read(&operands[4], d, at),
                    ),
                };
                self.write(&operands[0], mask, &value);
            }
            Op::Pack(bits) => self.pack(bits, operands, mask, (grid, block)),
            Op::Carry(carry) => self.carry(carry, operands, mask, (grid, block)),
            Op::Load(..) | Op::Store(..) | Op::Atomic { .. } | Op::CopyLocal(_) | Op::CopyAsync => {
                access::execute(self, grid, block, instruction, mask)?;
            }
            Op::CommitCopies => self.local.commit(mask)?,
            Op::WaitCopies => access::wait(self, grid, block, instruction, mask)?,
            Op::ConvertAddress(space, to) => {
                let mut scratch = [0; 32];
                let window = access::window(space);
                let from = self.read(&operands[1], &mut scratch, Some((grid, block)));
                let value =
                    from.map(
                        |address| {
                            if to { address.wrapping_sub(window) } else { address.wrapping_add(window) }
                        },
                    );
                self.write(&operands[0], mask, &value);
            }
            Op::IsSpace(space) => {
                let mut scratch = [0; 32];
                let from = self.read(&operands[1], &mut scratch, Some((grid, block)));
                let value = from.map(|address| u64::from(access::space_of(address) == space));
                self.write(&operands[0], mask, &value);
            }
            Op::Barrier | Op::Arrive => {
                let mut scratch = [0; 32];
                let mut operand = |at: usize| {
                    operands.get(at).map(|o| {
                        self.read(o, &mut scratch, Some((grid, block)))[mask.trailing_zeros() as usize]
                    })
                };
                let id = operand(0).unwrap_or(0) as usize;
                let threads = operand(1).map(|threads| threads as u32);
                let wrong = match threads {
                    _ if id > 15 => Some(format!("barrier {id}: there are 16, numbered from 0")),
                    Some(threads) if !(1..=1024).contains(&threads) => {
                        Some(format!("barrier {id} for {threads} threads: a block has 1 to 1024"))
                    }
                    _ => None,
                };
                if let Some(message) = wrong {
                    return Err(self.fault(FindingKind::DivergentBarrier, message));
                }
                let threads = threads.map(|threads| threads.next_multiple_of(32));
                return Ok(Some(Pause::Barrier {
                    id,
                    threads,
                    waits: matches!(instruction.op, Op::Barrier),
                }));
            }
            Op::WarpSync => block.clocks.warp_sync(self.number),
            Op::Shuffle(_) | Op::Vote(_) | Op::ActiveMask | Op::Match(..) | Op::Reduce(..) => {
                collective::execute(self, instruction, mask, (grid, block))?;
            }
            Op::LoadMatrix(_) => matrix::load(self, grid, block, instruction)?,
            Op::MatrixMultiply(ty, depth) => matrix::multiply(self, ty, depth, operands, (grid, block)),
            Op::Fence => self.fenced |= mask,
            Op::Trap => return Err(self.fault(FindingKind::Trap, "the kernel gave up".into())),
            Op::Nothing => {}
            Op::Branch(_) | Op::Exit | Op::Call(_) => {
                unreachable!("internal: handled before, or replaced by linking")
            }
        }
        Ok(None)
    }

    /// `{a, b, ..} = x` and `x = {a, b, ..}`.
    fn pack(&mut self, bits: u32, operands: &[Operand], mask: u32, at: (&Grid, &Commons)) {
        let part = u64::MAX >> (64 - bits);
        let mut scratch = [0; 32];
        match operands {
            [Operand::Vector(parts), whole] => {
                let whole = *self.read(whole, &mut scratch, Some(at));
                for (i, to) in parts.iter().enumerate() {
                    self.write(to, mask, &whole.map(|v| v >> (bits * i as u32) & part));
                }
            }
            [whole, Operand::Vector(parts)] => {
                let mut value = [0; 32];
                for (i, from) in parts.iter().enumerate() {
                    let from = self.read(from, &mut scratch, Some(at));
                    (0..32).for_each(|lane| value[lane] |= (from[lane] & part) << (bits * i as u32));
                }
                self.write(whole, mask, &value);
            }
            _ => unreachable!("internal: decoded with one vector"),
        }
    }

    /// Operands: result, a, (b,) c, the carry flag.
    fn carry(&mut self, carry: Carry, operands: &[Operand], mask: u32, at: (&Grid, &Commons)) {
        let (flag, operands) = operands.split_last().expect("internal: decoded with the flag");
        let (wide, bits) = (carry.ty.size() == 8, carry.ty.size() as u32 * 8);
        let narrow = |v: u64| if wide { v } else { v & 0xffff_ffff };
        let mut values = [[0; 32]; 3];
        for (value, operand) in values.iter_mut().zip(&operands[1..]) {
            let mut scratch = [0; 32];
            *value = self.read(operand, &mut scratch, Some(at)).map(narrow);
        }
        let mut scratch = [0; 32];
        let flags = *self.read(flag, &mut scratch, None);
        let (mut out, mut carried) = ([0; 32], [0; 32]);
        for lane in 0..32 {
            let (a, c) = match carry.product {
                None => (values[0][lane], values[1][lane]),
                Some(half) => {
                    let (x, y) = (values[0][lane], values[1][lane]);
                    let product = if carry.ty.is_signed() && !wide {
                        (i64::from(x as i32) * i64::from(y as i32)) as u128
                    } else if carry.ty.is_signed() {
                        (i128::from(x as i64) * i128::from(y as i64)) as u128
                    } else {
                        u128::from(x) * u128::from(y)
                    };
                    let part = if half == ProductHalf::High { product >> bits } else { product };
                    (narrow(part as u64), values[2][lane])
                }
            };
            let incoming = u128::from(carry.carry_in && flags[lane] != 0);
            let sum = if carry.subtract {
                u128::from(a).wrapping_sub(u128::from(c)).wrapping_sub(incoming)
            } else {
                u128::from(a) + u128::from(c) + incoming
            };
            out[lane] = narrow(sum as u64);
            carried[lane] = u64::from(sum >> bits & 1 == 1);
        }
        self.write(&operands[0], mask, &out);
        if carry.carry_out {
            self.write(flag, mask, &carried);
        }
    }
}
