//! Race detection: who accessed which bytes, and what orders two accesses.
//!
//! Each warp has a clock that counts its synchronisations, and knows the clocks of the other warps as of the last
//! barrier they shared (a vector clock per warp). An access `(thread, clock)` is ordered before what a warp does now if
//! the warp knows a later clock of that thread's warp; inside a warp only a warp barrier or a block barrier orders.
//! Blocks are ordered by nothing, except that one that published (fence, then atomic) is seen by those after it.

/// Who accesses memory now.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// Number of the block in the grid.
    pub block: u32,
    /// Number of the thread in the block.
    pub thread: u32,
    /// The clocks its warp knows; its own among them.
    pub seen: &'a [u32; 32],
    /// Blocks that published before this one read their mark.
    pub releases: &'a [Option<Box<Release>>],
}

/// What a block had done when it published.
#[derive(Clone, Debug)]
pub struct Release {
    thread: u32,
    seen: [u32; 32],
}

/// An access in one word: block + 1, atomic, thread, clock. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access(u64);

const CLOCK_BITS: u32 = 21;

impl Access {
    fn new(actor: &Actor, atomic: bool) -> Self {
        let clock = actor.seen[actor.thread as usize / 32] & ((1 << CLOCK_BITS) - 1);
        let low = u64::from(atomic) << 31 | u64::from(actor.thread) << CLOCK_BITS | u64::from(clock);
        Access((u64::from(actor.block) + 1) << 32 | low)
    }

    /// Number of the block.
    pub fn block(self) -> u32 {
        ((self.0 >> 32) - 1) as u32
    }

    /// Number of the thread in its block.
    pub fn thread(self) -> u32 {
        (self.0 >> CLOCK_BITS) as u32 & 1023
    }

    fn clock(self) -> u32 {
        self.0 as u32 & ((1 << CLOCK_BITS) - 1)
    }

    fn is_atomic(self) -> bool {
        self.0 >> 31 & 1 == 1
    }

    fn is_before(self, thread: u32, seen: &[u32; 32]) -> bool {
        self.thread() == thread || self.clock() < seen[self.thread() as usize / 32]
    }

    /// Whether it cannot disturb, or be disturbed by, what `actor` does now.
    fn is_ordered(self, actor: &Actor) -> bool {
        if self.0 == 0 {
            return true;
        }
        if self.block() == actor.block {
            return self.is_before(actor.thread, actor.seen);
        }
        match actor.releases.get(self.block() as usize) {
            Some(Some(release)) => self.is_before(release.thread, &release.seen),
            _ => false,
        }
    }
}

/// The last write of some bytes, and up to two reads after it by different threads.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    write: Access,
    reads: [Access; 2],
}

/// How an access uses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A load.
    Read,
    /// A store; `true` when it leaves the bytes as they are.
    Write(bool),
    /// A read and write that others cannot divide.
    Atomic,
}

/// Two accesses that nothing orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The earlier one.
    pub with: Access,
    /// Whether it wrote.
    pub was_write: bool,
}

const PAGE: usize = 256;

#[derive(Clone, Debug)]
struct Page {
    generation: u64,
    cells: Box<[Cell; PAGE]>,
}

/// The accesses to one stretch of memory. A cell stands for 4 bytes until a smaller access comes.
#[derive(Clone, Debug)]
pub struct Shadow {
    pages: Vec<Option<Page>>,
    shift: u32,
}

impl Default for Shadow {
    fn default() -> Self {
        Shadow { pages: Vec::new(), shift: 2 }
    }
}

impl Shadow {
    /// Notes an access to `size` bytes from `offset`. Cells of an older `generation` count as never accessed.
    #[inline]
    pub fn note(
        &mut self,
        offset: usize,
        size: usize,
        generation: u64,
        actor: &Actor,
        used: Use,
    ) -> Result<(), Conflict> {
        if (offset | size) & ((1 << self.shift) - 1) != 0 {
            self.refine((offset | size).trailing_zeros());
        }
        let me = Access::new(actor, used == Use::Atomic);
        for cell in offset >> self.shift..(offset + size) >> self.shift {
            note(self.cell(cell, generation), me, actor, used)?;
        }
        Ok(())
    }

    #[inline]
    fn cell(&mut self, number: usize, generation: u64) -> &mut Cell {
        let page = number / PAGE;
        if page >= self.pages.len() {
            self.pages.resize(page + 1, None);
        }
        let page = self.pages[page]
            .get_or_insert_with(|| Page { generation, cells: Box::new([Cell::default(); PAGE]) });
        if page.generation != generation {
            page.generation = generation;
            page.cells.fill(Cell::default());
        }
        &mut page.cells[number % PAGE]
    }

    /// Splits every cell, so that one stands for `1 << shift` bytes.
    fn refine(&mut self, shift: u32) {
        let parts = 1usize << (self.shift - shift);
        let old = std::mem::take(&mut self.pages);
        self.pages = vec![None; old.len() * parts];
        for (number, page) in old.into_iter().enumerate() {
            let Some(page) = page else { continue };
            for part in 0..parts {
                let mut cells = Box::new([Cell::default(); PAGE]);
                for (i, cell) in cells.iter_mut().enumerate() {
                    *cell = page.cells[(part * PAGE + i) / parts];
                }
                self.pages[number * parts + part] = Some(Page { generation: page.generation, cells });
            }
        }
        self.shift = shift;
    }
}

#[inline]
fn note(cell: &mut Cell, me: Access, actor: &Actor, used: Use) -> Result<(), Conflict> {
    let harmless = |other: Access| other.is_ordered(actor) || (other.is_atomic() && used == Use::Atomic);
    if !harmless(cell.write) {
        // Lanes of one instruction that write the same value to the same place: any order gives the same.
        let same = used == Use::Write(true)
            && cell.write.block() == actor.block
            && cell.write.thread() / 32 == actor.thread / 32;
        if !same {
            return Err(Conflict { with: cell.write, was_write: true });
        }
    }
    if used == Use::Read {
        // The newest read first; the other one is kept while it is concurrent.
        if cell.reads[0].0 == 0 || cell.reads[0].is_ordered(actor) {
            cell.reads[0] = me;
        } else if cell.reads[1].0 == 0 || cell.reads[0].thread() / 32 != actor.thread / 32 {
            cell.reads[1] = cell.reads[0];
            cell.reads[0] = me;
        } else {
            cell.reads[0] = me;
        }
        return Ok(());
    }
    for read in cell.reads {
        if !harmless(read) {
            return Err(Conflict { with: read, was_write: false });
        }
    }
    *cell = Cell { write: me, reads: [Access::default(); 2] };
    Ok(())
}

/// The vector clocks of a block's warps.
#[derive(Clone, Debug)]
pub struct Clocks {
    seen: Vec<[u32; 32]>,
}

impl Clocks {
    /// Warps that know nothing of each other.
    pub fn new(warps: usize) -> Self {
        let mut seen = vec![[0; 32]; warps];
        (0..warps).for_each(|warp| seen[warp][warp] = 1);
        Clocks { seen }
    }

    /// What a warp knows.
    pub fn of(&self, warp: usize) -> &[u32; 32] {
        &self.seen[warp]
    }

    /// The lanes of a warp have met.
    pub fn warp_sync(&mut self, warp: usize) {
        self.seen[warp][warp] += 1;
    }

    /// A warp has come to a barrier: what it lets the others know.
    pub fn arrive(&mut self, warp: usize) -> [u32; 32] {
        self.seen[warp][warp] += 1;
        self.seen[warp]
    }

    /// A warp leaves a barrier at which these had arrived.
    pub fn join(&mut self, warp: usize, arrived: &[[u32; 32]]) {
        for other in arrived {
            for (mine, theirs) in self.seen[warp].iter_mut().zip(other) {
                *mine = (*mine).max(*theirs);
            }
        }
    }

    /// What a thread of this block publishes by a fence and an atomic.
    pub fn release(&self, thread: u32) -> Release {
        Release { thread, seen: self.seen[thread as usize / 32] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor<'a>(clocks: &'a Clocks, thread: u32) -> Actor<'a> {
        Actor { block: 0, thread, seen: clocks.of(thread as usize / 32), releases: &[] }
    }

    #[test]
    fn a_barrier_orders_and_its_absence_is_a_race() {
        let (mut shadow, mut clocks) = (Shadow::default(), Clocks::new(2));
        shadow.note(0, 4, 1, &actor(&clocks, 3), Use::Write(false)).unwrap();
        let conflict = shadow.note(0, 4, 1, &actor(&clocks, 40), Use::Read).unwrap_err();
        assert_eq!((conflict.with.thread(), conflict.was_write), (3, true));
        let arrived = [clocks.arrive(0), clocks.arrive(1)];
        clocks.join(0, &arrived);
        clocks.join(1, &arrived);
        shadow.note(0, 4, 1, &actor(&clocks, 40), Use::Read).unwrap();
        // A write now disturbs that read, unless it comes from the same thread.
        shadow.note(0, 4, 1, &actor(&clocks, 40), Use::Write(false)).unwrap();
        assert!(shadow.note(0, 4, 1, &actor(&clocks, 3), Use::Write(false)).is_err());
    }

    #[test]
    fn lanes_of_a_warp_need_a_warp_barrier() {
        let (mut shadow, mut clocks) = (Shadow::default(), Clocks::new(1));
        shadow.note(8, 4, 1, &actor(&clocks, 0), Use::Write(false)).unwrap();
        assert!(shadow.note(8, 4, 1, &actor(&clocks, 1), Use::Read).is_err());
        clocks.warp_sync(0);
        shadow.note(8, 4, 1, &actor(&clocks, 1), Use::Read).unwrap();
    }

    #[test]
    fn smaller_accesses_split_the_cells() {
        let (mut shadow, clocks) = (Shadow::default(), Clocks::new(2));
        shadow.note(0, 16, 1, &actor(&clocks, 0), Use::Read).unwrap();
        shadow.note(32, 2, 1, &actor(&clocks, 0), Use::Write(false)).unwrap();
        shadow.note(34, 2, 1, &actor(&clocks, 50), Use::Write(false)).unwrap();
        assert!(shadow.note(33, 1, 1, &actor(&clocks, 50), Use::Read).is_err());
        assert!(shadow.note(15, 1, 1, &actor(&clocks, 50), Use::Write(false)).is_err());
        // The next launch starts afresh.
        shadow.note(33, 1, 2, &actor(&clocks, 50), Use::Read).unwrap();
    }
}
