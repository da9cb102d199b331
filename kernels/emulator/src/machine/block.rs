//! One block: its warps, its shared memory, its barriers.

use super::Grid;
use super::alu::Lanes;
use super::memory::Bytes;
use super::races::{Clocks, Shadow};
use super::warp::{Pause, Warp};
use crate::finding::{Fault, FindingKind};

/// Shared memory of the block that runs.
pub(super) struct SharedMemory {
    pub bytes: Vec<u8>,
    /// Inside a variable; between variables there are red zones.
    pub valid: Bytes,
    pub written: Bytes,
    /// Targets of `cp.async` that have not been waited for.
    pub in_flight: Bytes,
    pub shadow: Shadow,
}

/// What the warps of a block share.
pub(super) struct Commons {
    pub number: u32,
    pub index: [u32; 3],
    pub shared: SharedMemory,
    pub clocks: Clocks,
    /// Tells this launch's accesses to device memory from those of earlier ones.
    pub launch_generation: u64,
    /// Tells this block's accesses to shared memory from those of earlier blocks.
    pub block_generation: u64,
    /// Whether a thread of this block did an atomic operation, and so may see what earlier blocks published.
    pub acquired: bool,
}

/// Threads that have come to one of the sixteen barriers.
#[derive(Clone, Default)]
struct Barrier {
    threads: u32,
    expected: u32,
    clocks: Vec<[u32; 32]>,
    waiting: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Waiting,
    Finished,
}

/// The block that runs; it is used again for every block of the launch.
pub(super) struct Block {
    commons: Commons,
    warps: Vec<Warp>,
    threads: u32,
}

type Failure = (Box<Fault>, usize, usize);

impl Block {
    pub fn new(grid: &Grid, launch_generation: u64) -> Self {
        let [width, height, depth] = grid.launch.block;
        let threads = width * height * depth;
        let kernel = grid.kernel;
        let size = kernel.dynamic_shared + grid.launch.dynamic_shared;
        let mut valid = Bytes::none(size);
        for variable in kernel.shared.iter().filter(|variable| variable.size > 0) {
            valid.insert(variable.offset, variable.size);
        }
        if grid.launch.dynamic_shared > 0 {
            valid.insert(kernel.dynamic_shared, grid.launch.dynamic_shared);
        }
        let shared = SharedMemory {
            bytes: vec![0xff; size],
            valid,
            written: Bytes::none(size),
            in_flight: Bytes::none(size),
            shadow: Shadow::default(),
        };
        let warps = (0..threads.div_ceil(32)).map(|warp| Warp::new(grid, warp, threads)).collect();
        let clocks = Clocks::new(threads.div_ceil(32) as usize);
        let commons = Commons {
            number: 0,
            index: [0; 3],
            shared,
            clocks,
            launch_generation,
            block_generation: 0,
            acquired: false,
        };
        Block { commons, warps, threads }
    }

    /// What it costs to begin a block, in instructions: memory is cleared, which is 4 bytes a byte of a thread's frame.
    pub fn cost(&self) -> u64 {
        let frame = self.warps[0].local.frame() / 64;
        (self.warps.len() * (1 + frame) + self.commons.shared.bytes.len() / 1024) as u64
    }

    /// Makes it the block at `index`.
    pub fn start(&mut self, number: u32, index: [u32; 3]) {
        let commons = &mut self.commons;
        (commons.number, commons.index, commons.acquired) = (number, index, false);
        commons.block_generation += 1;
        commons.clocks = Clocks::new(self.warps.len());
        commons.shared.bytes.fill(0xff);
        commons.shared.written.clear();
        commons.shared.in_flight.clear();
        self.warps.iter_mut().for_each(Warp::start);
    }

    /// Runs all warps to their ends.
    pub fn run(&mut self, grid: &mut Grid) -> Result<(), Failure> {
        let mut states = vec![State::Ready; self.warps.len()];
        let mut barriers = vec![Barrier::default(); 16];
        while let Some(number) = states.iter().position(|state| *state == State::Ready) {
            let warp = &mut self.warps[number];
            match warp.run(grid, &mut self.commons).map_err(|fault| (fault, warp.pc(), number))? {
                Pause::Finished => states[number] = State::Finished,
                Pause::Barrier { id, threads, waits } => {
                    let barrier = &mut barriers[id];
                    let expected = threads.unwrap_or(self.threads.next_multiple_of(32));
                    if barrier.threads > 0 && barrier.expected != expected {
                        let message = format!(
                            "barrier {id} for {expected} threads; others came for {}",
                            barrier.expected
                        );
                        return Err((
                            Fault::new(FindingKind::DivergentBarrier, 0, message),
                            warp.pc() - 1,
                            number,
                        ));
                    }
                    barrier.expected = expected;
                    // The last warp counts whole, as the hardware counts warps.
                    barrier.threads += 32;
                    barrier.clocks.push(self.commons.clocks.arrive(number));
                    if waits {
                        barrier.waiting.push(number);
                        states[number] = State::Waiting;
                    }
                    if barrier.threads >= barrier.expected {
                        let complete = std::mem::take(barrier);
                        for waiting in complete.waiting {
                            self.commons.clocks.join(waiting, &complete.clocks);
                            states[waiting] = State::Ready;
                        }
                    }
                }
            }
        }
        for (id, barrier) in barriers.iter().enumerate() {
            if let Some(&warp) = barrier.waiting.first() {
                let message = format!(
                    "barrier {id} waits for {} threads and {} have come; the others ended or wait elsewhere",
                    barrier.expected.min(self.threads),
                    barrier.threads.min(self.threads)
                );
                let fault = Fault::new(FindingKind::DivergentBarrier, 0, message);
                return Err((fault, self.warps[warp].pc() - 1, warp));
            }
        }
        Ok(())
    }
}

impl Commons {
    /// `%ctaid` along an axis, in all lanes.
    pub fn block_index(&self, axis: usize) -> Lanes {
        [u64::from(self.index[axis]); 32]
    }
}
