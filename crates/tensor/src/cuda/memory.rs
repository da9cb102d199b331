//! Device memory: blocks that come from a pool and go back to it, and copies between host and device.
//!
//! A freed block may be given out at once, although kernels that use it may not have run yet: all work is in one stream, so
//! whoever gets it comes after them. Sizes are rounded up to classes (2^k times 1, 1.25, 1.5 or 1.75), so that batches of
//! varying length find blocks; a steady training step asks the driver for nothing.

use super::context::{Context, failed};
use crate::{Device, Element, Error, Result, Tensor};
use cudarc::driver::{result, sys};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError};
use vitrine_kernels::Pointer;

/// Blocks that nobody uses, by their size class.
#[derive(Default)]
pub(crate) struct Pool {
    free: HashMap<usize, Vec<u64>>,
    /// Bytes that the driver gave and has not got back, in use or not.
    held: usize,
}

/// The smallest block, and what all starts are multiples of.
const SMALLEST: usize = 512;

/// The size of the block that holds `len` bytes: wastes at most a fifth of it.
fn size_class(len: usize) -> usize {
    if len <= SMALLEST {
        return SMALLEST;
    }
    let step = 1usize << (len - 1).ilog2().saturating_sub(2);
    len.next_multiple_of(step)
}

/// Device memory of one owner.
pub(crate) struct Block {
    context: Arc<Context>,
    address: u64,
    len: usize,
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.len > 0 {
            let mut pool = self.context.pool.lock().unwrap_or_else(PoisonError::into_inner);
            pool.free.entry(size_class(self.len)).or_default().push(self.address);
        }
    }
}

impl Block {
    /// `len` bytes with unspecified contents.
    pub fn new(context: &Arc<Context>, len: usize) -> Result<Self> {
        if len == 0 {
            return Ok(Block { context: context.clone(), address: 0, len });
        }
        let size = size_class(len);
        let mut pool = context.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let found = pool.free.get_mut(&size).and_then(Vec::pop);
        let address = match found {
            Some(address) => address,
            None => allocate(context, &mut pool, size)?,
        };
        Ok(Block { context: context.clone(), address, len })
    }

    /// A copy of host values.
    pub fn upload<T: Copy>(context: &Arc<Context>, values: &[T]) -> Result<Self> {
        let mut block = Block::new(context, size_of_val(values))?;
        block.write(values)?;
        Ok(block)
    }

    /// Copies host values to the start; does not wait for the device.
    pub fn write<T: Copy>(&mut self, values: &[T]) -> Result<()> {
        assert!(size_of_val(values) <= self.len, "internal: more values than the block has room for");
        if values.is_empty() {
            return Ok(());
        }
        self.context.make_current()?;
        // SAFETY: the values are plain numbers or structures without padding, so every byte is initialised.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        let mut staging = self.context.staging.lock().unwrap_or_else(PoisonError::into_inner);
        staging.send(&self.context, self.address, bytes)
    }

    /// Copies bytes from `offset` on to the host; waits for everything before.
    pub fn read<E: Element>(&self, offset: usize, out: &mut [E]) -> Result<()> {
        assert!(offset + size_of_val(out) <= self.len, "internal: more values than the block holds");
        if out.is_empty() {
            return Ok(());
        }
        self.context.make_current()?;
        let ordinal = self.context.ordinal;
        // SAFETY: the block holds the bytes as asserted, every bit pattern of an `Element` is valid, and `out` is not touched
        // before the stream is done.
        unsafe { result::memcpy_dtoh_async(out, self.address + offset as u64, self.context.stream()) }
            .map_err(failed(ordinal, "copying to the host"))?;
        self.context.synchronize()
    }

    /// Copies `len` bytes from another block.
    pub fn copy_from(&mut self, to: usize, from: &Block, start: usize, len: usize) -> Result<()> {
        assert!(to + len <= self.len && start + len <= from.len, "internal: a copy outside of a block");
        if len == 0 {
            return Ok(());
        }
        self.context.make_current()?;
        let (to, from) = (self.address + to as u64, from.address + start as u64);
        // SAFETY: both ranges lie inside their blocks, as asserted.
        unsafe { result::memcpy_dtod_async(to, from, len, self.context.stream()) }
            .map_err(failed(self.context.ordinal, "copying on the device"))
    }

    /// Sets bytes to zero.
    pub fn zero(&mut self, offset: usize, len: usize) -> Result<()> {
        assert!(offset + len <= self.len, "internal: zeros outside of a block");
        if len == 0 {
            return Ok(());
        }
        self.context.make_current()?;
        // SAFETY: the range lies inside the block, as asserted.
        unsafe { result::memset_d8_async(self.address + offset as u64, 0, len, self.context.stream()) }
            .map_err(failed(self.context.ordinal, "setting memory to zero"))
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn len(&self) -> usize {
        self.len
    }
}

/// Device memory of `E`s that is no tensor, such as indices and tables; or that of a tensor whose dtype was checked.
pub(crate) struct Buffer<E> {
    memory: Memory,
    elements: PhantomData<fn() -> E>,
}

enum Memory {
    Block(Block),
    Tensor(Tensor),
}

impl<E: Copy> Buffer<E> {
    /// Room for `len` elements with unspecified contents.
    pub fn new(context: &Arc<Context>, len: usize) -> Result<Self> {
        let memory = Memory::Block(Block::new(context, len * size_of::<E>())?);
        Ok(Buffer { memory, elements: PhantomData })
    }

    /// A copy of host values.
    pub fn upload(context: &Arc<Context>, values: &[E]) -> Result<Self> {
        Ok(Buffer { memory: Memory::Block(Block::upload(context, values)?), elements: PhantomData })
    }
}

impl<E: Element> Buffer<E> {
    /// A contiguous tensor's elements.
    ///
    /// # Errors
    /// `DTypeMismatch`, `NotContiguous`.
    pub fn of(op: &'static str, tensor: &Tensor) -> Result<Self> {
        if tensor.dtype() != E::DTYPE {
            return Err(Error::DTypeMismatch { op, expected: E::DTYPE.to_string(), got: tensor.dtype() });
        }
        if !tensor.is_contiguous() {
            return Err(tensor.not_contiguous(op));
        }
        Ok(Buffer { memory: Memory::Tensor(tensor.clone()), elements: PhantomData })
    }
}

impl<E> Pointer for Buffer<E> {
    fn address(&self) -> u64 {
        match &self.memory {
            Memory::Block(block) => block.address(),
            Memory::Tensor(tensor) => tensor.device_address(),
        }
    }
}

/// Page-locked host memory that small uploads pass through, in two halves: while the device still reads one, the host fills the
/// other. So an upload costs the host a copy and a call, and the device nothing that it waits for.
pub(crate) struct Staging {
    memory: *mut u8,
    /// The half in use, and how much of it is filled.
    half: usize,
    filled: usize,
    /// Recorded when a half was left: past it, the device has read it.
    left: [Option<sys::CUevent>; 2],
}

// SAFETY: the memory belongs to this value alone, which is behind a lock.
unsafe impl Send for Staging {}

impl Default for Staging {
    fn default() -> Self {
        Staging { memory: std::ptr::null_mut(), half: 0, filled: 0, left: [None; 2] }
    }
}

/// Bytes of a half: a step of 16 x 512 tokens uploads about 0.3 MiB.
const HALF: usize = 4 << 20;

impl Staging {
    /// Copies bytes to the device. Larger ones than a half, such as weights, go directly.
    fn send(&mut self, context: &Context, address: u64, bytes: &[u8]) -> Result<()> {
        let failed = |error| failed(context.ordinal, "copying to the device")(error);
        let source = if bytes.len() > HALF {
            // From pageable memory the driver has taken the bytes when it returns.
            bytes
        } else {
            self.place(context, bytes)?
        };
        // SAFETY: the target has room, as the caller asserted; a staged source is not written until its half was read.
        unsafe { result::memcpy_htod_async(address, source, context.stream()) }.map_err(failed)
    }

    /// The bytes, in page-locked memory.
    fn place(&mut self, context: &Context, bytes: &[u8]) -> Result<&'static [u8]> {
        let failed = |error| failed(context.ordinal, "staging a copy")(error);
        if self.memory.is_null() {
            // SAFETY: kept for the life of the process, as the context is.
            self.memory = unsafe { result::malloc_host(2 * HALF, 0) }.map_err(failed)?.cast();
        }
        if self.filled + bytes.len() > HALF {
            let event = match self.left[self.half] {
                Some(event) => event,
                None => result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(failed)?,
            };
            // SAFETY: the event and the stream are alive.
            unsafe { result::event::record(event, context.stream()) }.map_err(failed)?;
            self.left[self.half] = Some(event);
            (self.half, self.filled) = (1 - self.half, 0);
            if let Some(event) = self.left[self.half] {
                // SAFETY: the event is alive and recorded.
                unsafe { result::event::synchronize(event) }.map_err(failed)?;
            }
        }
        let start = self.half * HALF + self.filled;
        // Starts stay aligned for every element.
        self.filled += bytes.len().next_multiple_of(16);
        // SAFETY: the range is inside of the memory, which lives as long as the process, and the device has read what was in
        // it; nothing else refers to it.
        unsafe {
            let target = self.memory.add(start);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
            Ok(std::slice::from_raw_parts(target, bytes.len()))
        }
    }
}

/// A new block of the driver's; where the device is full, the pool's blocks are given back first.
fn allocate(context: &Context, pool: &mut Pool, size: usize) -> Result<u64> {
    context.make_current()?;
    let ask = || {
        // SAFETY: the address is used only through a `Block`.
        unsafe { result::malloc_sync(size) }
    };
    let first = ask();
    let is_full = |error: &cudarc::driver::DriverError| error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
    match first {
        Ok(address) => {
            pool.held += size;
            return Ok(address);
        }
        Err(error) if !is_full(&error) => return Err(failed(context.ordinal, "allocating memory")(error)),
        Err(_) => {}
    }
    context.synchronize()?;
    for (class, addresses) in pool.free.drain() {
        for address in addresses {
            pool.held -= class;
            // SAFETY: nobody uses a block of the pool, and the work that did is done.
            unsafe { result::free_sync(address) }.map_err(failed(context.ordinal, "giving memory back"))?;
        }
    }
    match ask() {
        Ok(address) => {
            pool.held += size;
            Ok(address)
        }
        Err(error) if !is_full(&error) => Err(failed(context.ordinal, "allocating memory")(error)),
        Err(_) => {
            let (free, total) = context.memory()?;
            let (device, held) = (Device::Cuda(context.ordinal), pool.held);
            Err(Error::OutOfMemory { device, asked: size, free, held, total })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn classes_are_few_and_waste_little() {
        for len in 1..100_000 {
            let size = size_class(len);
            assert!(size >= len && size_class(size) == size);
            assert!(len < 512 || size * 4 <= len * 5 + 4, "{len} bytes in {size}");
        }
        let classes: std::collections::BTreeSet<_> = (1 << 20..1 << 21).step_by(64).map(size_class).collect();
        assert_eq!(classes.len(), 5);
    }
}
