//! Runs kernels: the blocks of a launch one after another, the warps of a block in turns, the lanes of a warp together.
//!
//! Reading order: [`alu`] (what one instruction does to 32 lanes), `warp` (which lanes run what), `block` (barriers and
//! shared memory), `access` (every load and store, with its checks), [`races`], `collective` and `matrix`.

mod access;
pub mod alu;
mod block;
mod collective;
pub mod float;
mod matrix;
pub mod memory;
pub mod races;
mod warp;

use crate::finding::{Fault, Finding};
use crate::ptx::link::Kernel;
use block::Block;
use memory::DeviceMemory;
use races::Release;

/// What the driver is asked to run.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: usize,
    /// The parameter space.
    pub params: Vec<u8>,
}

/// What is checked beside addresses, and when a kernel is given up.
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    /// Races and unwritten memory. They cost about as much again as the run.
    pub memory: bool,
    /// The most instructions of one warp.
    pub limit: u64,
    /// The most instructions of a launch, all warps together; to begin a block counts for some.
    pub total: u64,
}

impl Default for Checks {
    fn default() -> Self {
        Checks { memory: true, limit: 1 << 26, total: 1 << 32 }
    }
}

/// The most blocks of a launch.
pub const BLOCKS: u64 = 1 << 24;

/// What every block of a launch shares.
struct Grid<'a> {
    kernel: &'a Kernel,
    launch: &'a Launch,
    checks: Checks,
    memory: &'a mut DeviceMemory,
    /// What blocks made visible to blocks after them, by their number.
    releases: Vec<Option<Box<Release>>>,
    /// Instructions of warps so far.
    executed: u64,
    /// What [`Checks::total`] leaves for instructions.
    limit: u64,
}

/// Runs a launch to its end, or to the first bug. Returns how many instructions the warps ran. A launch has at most
/// [`BLOCKS`] blocks of at most 1024 threads, none 0.
///
/// # Errors
/// The [`Finding`].
pub fn run(
    kernel: &Kernel,
    launch: &Launch,
    checks: Checks,
    memory: &mut DeviceMemory,
) -> Result<u64, Box<Finding>> {
    let mut grid =
        Grid { kernel, launch, checks, memory, releases: Vec::new(), executed: 0, limit: checks.total };
    let generation = grid.memory.next_generation();
    let [columns, rows, layers] = launch.grid;
    let mut block = Block::new(&grid, generation);
    for number in 0..columns * rows * layers {
        let index = [number % columns, number / columns % rows, number / columns / rows];
        block.start(number, index);
        grid.limit = grid.limit.saturating_sub(block.cost());
        block.run(&mut grid).map_err(|(fault, pc, warp)| Box::new(place(&grid, index, *fault, pc, warp)))?;
    }
    Ok(grid.executed)
}

/// A fault with everything that names its place.
fn place(grid: &Grid, block: [u32; 3], fault: Fault, pc: usize, warp: usize) -> Finding {
    let instruction = &grid.kernel.code[pc.min(grid.kernel.code.len() - 1)];
    let named = |(file, line): (u32, u32)| {
        (grid.kernel.files.get(&file).cloned().unwrap_or_else(|| format!("file {file}")), line)
    };
    let [width, height, _] = grid.launch.block;
    let thread = (32 * warp + fault.lane) as u32;
    Finding {
        kind: fault.kind,
        message: fault.message,
        kernel: grid.kernel.name.clone(),
        block,
        thread: [thread % width, thread / width % height, thread / width / height],
        instruction: instruction.opcode.clone(),
        ptx_line: instruction.line,
        source: instruction.location.map(|at| named((at.file, at.line))),
        inlined_at: instruction.location.and_then(|at| at.inlined_at).map(named),
    }
}
