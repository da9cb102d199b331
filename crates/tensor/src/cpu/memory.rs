//! A caching allocator for tensor memory.
//!
//! A training step allocates the same few hundred buffers again and again, of sizes that vary a little with the length
//! of the reviews. Freed blocks are kept by size class, so that a steady step asks the kernel for nothing: with the
//! default allocator, page faults take up to half of a PyTorch step on the CPU.

use crate::Element;
use memmap2::MmapMut;
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Mutex;

/// Every block starts on a cache line, which is also the widest vector register.
pub const ALIGNMENT: usize = 64;

/// From here on a block is a mapping of its own, advised to use huge pages.
const MAPPED_FROM: usize = 1 << 21;

/// Classes are `2^k * {1, 1.25, 1.5, 1.75}` bytes from 64 on, so at most a fifth of a block is unused.
const SMALLEST_LOG2: usize = 6;
const CLASSES: usize = (usize::BITS as usize - SMALLEST_LOG2) * 4;

/// How many classes above the wanted one may serve a request before new memory is taken (up to 1.5 times its size).
const FALLBACK_CLASSES: usize = 2;

/// The bytes of a class.
const fn class_size(class: usize) -> usize {
    ((4 + class % 4) << (class / 4)) << (SMALLEST_LOG2 - 2)
}

/// The smallest class that holds `bytes`.
fn class_of(bytes: usize) -> usize {
    let bytes = bytes.max(1 << SMALLEST_LOG2);
    let log2 = (usize::BITS - 1 - bytes.leading_zeros()) as usize;
    let base = (log2 - SMALLEST_LOG2) * 4;
    (base..base + 5).find(|&class| class_size(class) >= bytes).unwrap_or(base + 4)
}

enum Memory {
    /// From the global allocator, with this layout.
    Heap(NonNull<u8>, Layout),
    /// An anonymous mapping.
    Mapped(MmapMut),
}

// SAFETY: the memory is owned by this value alone; access goes through `&self` / `&mut self` of `Block`.
unsafe impl Send for Memory {}
// SAFETY: as above; a shared reference gives read access only.
unsafe impl Sync for Memory {}

impl Memory {
    /// Takes zeroed memory from the system.
    fn take(bytes: usize) -> Self {
        if bytes >= MAPPED_FROM
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            #[cfg(target_os = "linux")]
            // A hint: without huge pages everything works, with more TLB misses.
            let _ = map.advise(memmap2::Advice::HugePage);
            return Memory::Mapped(map);
        }
        let layout =
            Layout::from_size_align(bytes, ALIGNMENT).expect("internal: a size class is a valid layout");
        // SAFETY: `layout` has a non-zero size (the smallest class is 64 bytes).
        let pointer = unsafe { std::alloc::alloc_zeroed(layout) };
        match NonNull::new(pointer) {
            Some(pointer) => Memory::Heap(pointer, layout),
            None => std::alloc::handle_alloc_error(layout),
        }
    }

    fn pointer(&self) -> *const u8 {
        match self {
            Memory::Heap(pointer, _) => pointer.as_ptr(),
            Memory::Mapped(map) => map.as_ptr(),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Memory::Heap(pointer, layout) = self {
            // SAFETY: allocated in `take` by the same allocator with the same layout, and dropped once.
            unsafe { std::alloc::dealloc(pointer.as_ptr(), *layout) }
        }
    }
}

struct Pool {
    free: Vec<Vec<Memory>>,
    cached_bytes: usize,
    live_bytes: usize,
    peak_bytes: usize,
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { free: Vec::new(), cached_bytes: 0, live_bytes: 0, peak_bytes: 0 });

fn pool() -> std::sync::MutexGuard<'static, Pool> {
    // The pool's invariants hold at every point where a panic could happen, so a poisoned lock is still good.
    let mut pool = POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if pool.free.is_empty() {
        pool.free.resize_with(CLASSES, Vec::new);
    }
    pool
}

/// Bytes held by tensors now, at the most so far, and kept for reuse.
#[derive(Clone, Copy, Debug)]
pub struct MemoryStats {
    /// Bytes in blocks that tensors hold.
    pub live: usize,
    /// The largest `live` since the last [`reset_peak`].
    pub peak: usize,
    /// Bytes in free blocks.
    pub cached: usize,
}

/// What the pool holds now.
pub fn stats() -> MemoryStats {
    let pool = pool();
    MemoryStats { live: pool.live_bytes, peak: pool.peak_bytes, cached: pool.cached_bytes }
}

/// Starts the peak of [`stats`] anew.
pub fn reset_peak() {
    let mut pool = pool();
    pool.peak_bytes = pool.live_bytes;
}

/// Gives all free blocks back to the system.
pub fn release_cached() {
    let blocks = {
        let mut pool = pool();
        pool.cached_bytes = 0;
        std::mem::take(&mut pool.free)
    };
    drop(blocks);
}

/// A block of memory, aligned to [`ALIGNMENT`], that returns to the pool when dropped.
///
/// Its contents are unspecified but initialised: zeroes from the system, or what its previous owner wrote.
pub struct Block {
    memory: Option<Memory>,
    class: usize,
    len: usize,
}

impl Block {
    /// A block of `len` bytes.
    pub fn new(len: usize) -> Self {
        let wanted = class_of(len);
        let mut pool = pool();
        let reused =
            (wanted..=wanted + FALLBACK_CLASSES).find_map(|class| Some((pool.free[class].pop()?, class)));
        let class = reused.as_ref().map_or(wanted, |&(_, class)| class);
        pool.live_bytes += class_size(class);
        pool.peak_bytes = pool.peak_bytes.max(pool.live_bytes);
        if reused.is_some() {
            pool.cached_bytes -= class_size(class);
        }
        drop(pool);
        let memory = reused.map_or_else(|| Memory::take(class_size(class)), |(memory, _)| memory);
        Block { memory: Some(memory), class, len }
    }

    fn pointer(&self) -> *const u8 {
        self.memory.as_ref().expect("internal: a block keeps its memory until it is dropped").pointer()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the memory holds at least `len` initialised bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.len) }
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `bytes`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer().cast_mut(), self.len) }
    }

    /// The bytes as whole elements.
    pub fn elements<E: Element>(&self) -> &[E] {
        const { assert!(ALIGNMENT.is_multiple_of(align_of::<E>())) };
        let bytes = self.bytes();
        // SAFETY: aligned (checked above); every bit pattern of an `Element` is valid.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<E>()) }
    }

    /// The bytes as whole elements, to be written: scratch memory.
    pub fn elements_mut<E: Element>(&mut self) -> &mut [E] {
        const { assert!(ALIGNMENT.is_multiple_of(align_of::<E>())) };
        let bytes = self.bytes_mut();
        // SAFETY: aligned (checked above) and exclusively borrowed; every bit pattern of an `Element` is valid.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<E>()) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            let mut pool = pool();
            pool.live_bytes -= class_size(self.class);
            pool.cached_bytes += class_size(self.class);
            pool.free[self.class].push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_fits_its_class_with_little_waste() {
        for bytes in (1..5000).chain([1 << 20, (1 << 20) + 1, (1 << 30) - 1, 5 << 33]) {
            let size = class_size(class_of(bytes));
            assert!(size >= bytes, "{bytes} bytes in a class of {size}");
            assert!(bytes <= 64 || size <= bytes + bytes / 4, "{bytes} bytes waste too much of {size}");
        }
    }

    #[test]
    fn a_dropped_block_serves_the_next_request() {
        // A size that no other test uses, as the pool is shared by all threads.
        let bytes = 7_654_321;
        let first = Block::new(bytes).pointer();
        let second = Block::new(bytes - 1000);
        assert_eq!(first, second.pointer());
        assert_eq!(second.bytes().len(), bytes - 1000);
        assert_eq!(first as usize % ALIGNMENT, 0);
    }
}
