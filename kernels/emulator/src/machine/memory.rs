//! Device memory: buffers at addresses of their own, each with what has been written and who accessed it.
//!
//! Addresses are never used twice and buffers lie far apart, so that an overrun or a stale pointer hits nothing.

use super::races::Shadow;
use std::collections::BTreeMap;

/// A set of byte offsets.
#[derive(Clone, Debug, Default)]
pub struct Bytes(Vec<u64>);

impl Bytes {
    /// None of `size` bytes.
    pub fn none(size: usize) -> Self {
        Bytes(vec![0; size.div_ceil(64)])
    }

    /// The words that `start..start + size` touches, with the bits of the range.
    fn words(start: usize, size: usize) -> impl Iterator<Item = (usize, u64)> {
        let end = start + size;
        (start / 64..end.div_ceil(64)).map(move |word| {
            let low = start.saturating_sub(word * 64);
            let high = (end - word * 64).min(64);
            (word, (u64::MAX >> (64 - (high - low))) << low)
        })
    }

    /// Whether all bytes of a range are in the set.
    pub fn all(&self, start: usize, size: usize) -> bool {
        Self::words(start, size).all(|(word, bits)| self.0[word] & bits == bits)
    }

    /// Whether any byte of a range is in the set.
    pub fn any(&self, start: usize, size: usize) -> bool {
        Self::words(start, size).any(|(word, bits)| self.0[word] & bits != 0)
    }

    /// Puts a range in.
    pub fn insert(&mut self, start: usize, size: usize) {
        Self::words(start, size).for_each(|(word, bits)| self.0[word] |= bits);
    }

    /// Takes a range out.
    pub fn remove(&mut self, start: usize, size: usize) {
        Self::words(start, size).for_each(|(word, bits)| self.0[word] &= !bits);
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }
}

/// Memory aligned for every access, of a number of bytes.
#[derive(Debug)]
enum Storage {
    Owned(Vec<u128>),
    /// Host memory (pinned or managed) that the program reads and writes itself.
    Host(*mut u8),
}

/// One allocation.
#[derive(Debug)]
pub struct Buffer {
    storage: Storage,
    /// Its bytes.
    pub size: usize,
    /// Which bytes have been written.
    pub written: Bytes,
    /// Whether kernels may only read it.
    pub constant: bool,
    /// Who accessed it during the launch.
    pub shadow: Shadow,
    whole: bool,
}

// SAFETY: `Storage::Host` points to memory that the driver allocated and frees with the buffer; access to buffers goes
// through the device's lock.
unsafe impl Send for Buffer {}

impl Buffer {
    fn pointer(&self) -> *mut u8 {
        match &self.storage {
            Storage::Owned(words) => words.as_ptr().cast_mut().cast(),
            Storage::Host(pointer) => *pointer,
        }
    }

    /// How many bytes of the device it takes.
    fn on_device(&self) -> usize {
        match self.storage {
            Storage::Owned(_) => self.size,
            Storage::Host(_) => 0,
        }
    }

    /// Its contents.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the storage holds `size` bytes as long as the buffer lives.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.size) }
    }

    /// Its contents, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let pointer = match &mut self.storage {
            Storage::Owned(words) => words.as_mut_ptr().cast(),
            Storage::Host(pointer) => *pointer,
        };
        // SAFETY: the storage holds `size` bytes as long as the buffer lives, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(pointer, self.size) }
    }

    /// Whether `size` bytes from `offset` have been written.
    #[inline]
    pub fn is_written(&mut self, offset: usize, size: usize) -> bool {
        if self.whole {
            return true;
        }
        self.written.all(offset, size)
    }

    /// Notes that `size` bytes from `offset` are written.
    #[inline]
    pub fn mark_written(&mut self, offset: usize, size: usize) {
        if !self.whole {
            self.written.insert(offset, size);
            self.whole = offset == 0 && size == self.size;
        }
    }
}

/// Why an address is no good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadAddress {
    /// No buffer there.
    Nowhere(String),
    /// A buffer that was freed.
    Freed(String),
}

/// All buffers of the device.
#[derive(Debug)]
pub struct DeviceMemory {
    buffers: Vec<Option<Buffer>>,
    /// First address to (one past the last, slot).
    index: BTreeMap<u64, (u64, usize)>,
    freed: BTreeMap<u64, u64>,
    next: u64,
    used: usize,
    last: (u64, u64, usize),
    generation: u64,
    capacity: usize,
}

const FIRST_ADDRESS: u64 = 0x1000_0000_0000;
const ALIGNMENT: u64 = 256;
/// Unused addresses between buffers.
const GAP: u64 = 16 << 20;
/// Bytes of the device, at first.
const CAPACITY: usize = 16 << 30;
/// How many freed buffers are remembered.
const REMEMBERED: usize = 1 << 16;

impl Default for DeviceMemory {
    fn default() -> Self {
        DeviceMemory {
            buffers: Vec::new(),
            index: BTreeMap::new(),
            freed: BTreeMap::new(),
            next: FIRST_ADDRESS,
            used: 0,
            last: (1, 0, 0),
            generation: 0,
            capacity: CAPACITY,
        }
    }
}

impl DeviceMemory {
    /// A number that no earlier launch had.
    pub fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// How many bytes the device has.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Changes how many bytes the device has.
    pub fn set_capacity(&mut self, bytes: usize) {
        self.capacity = bytes;
    }

    /// Bytes of the device that are allocated.
    pub fn used(&self) -> usize {
        self.used
    }

    /// A new buffer, nothing of it written; `None` when the device is full.
    pub fn allocate(&mut self, size: usize) -> Option<u64> {
        let words = size.div_ceil(16);
        let mut storage = Vec::new();
        if size > self.capacity.saturating_sub(self.used) || storage.try_reserve_exact(words).is_err() {
            return None;
        }
        storage.resize(words, u128::MAX);
        let address = self.next;
        self.next += (size as u64).next_multiple_of(ALIGNMENT) + GAP;
        self.insert(address, size, Storage::Owned(storage), false);
        Some(address)
    }

    /// Makes host memory known under its own address. The program may write it unseen: all of it counts as written.
    ///
    /// # Safety
    /// `pointer..pointer + size` stays valid until [`DeviceMemory::free`] of its address.
    pub unsafe fn adopt_host(&mut self, pointer: *mut u8, size: usize) {
        self.insert(pointer as u64, size, Storage::Host(pointer), true);
    }

    fn insert(&mut self, address: u64, size: usize, storage: Storage, whole: bool) {
        let written = Bytes::none(if whole { 0 } else { size });
        let buffer = Buffer { storage, size, written, constant: false, shadow: Shadow::default(), whole };
        let slot = self.buffers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.buffers.push(None);
            self.buffers.len() - 1
        });
        self.buffers[slot] = Some(buffer);
        self.index.insert(address, (address + size as u64, slot));
        self.used += self.buffers[slot].as_ref().map_or(0, Buffer::on_device);
    }

    /// Ends a buffer; the address must be its first.
    pub fn free(&mut self, address: u64) -> Result<(), BadAddress> {
        let Some((end, slot)) = self.index.remove(&address) else { return Err(self.explain(address, 1)) };
        self.used -= self.buffers[slot].take().map_or(0, |buffer| buffer.on_device());
        self.last = (1, 0, 0);
        if address >= FIRST_ADDRESS && address < self.next {
            self.freed.insert(address, end);
            if self.freed.len() > REMEMBERED {
                self.freed.pop_first();
            }
        }
        Ok(())
    }

    /// The buffer that holds `size` bytes from `address`, and the offset in it.
    #[inline]
    pub fn find(&mut self, address: u64, size: usize) -> Result<(&mut Buffer, usize), BadAddress> {
        let end = address.wrapping_add(size as u64);
        let (start, limit, slot) = self.last;
        if address < start || end > limit || end < address {
            self.last = match self.index.range(..=address).next_back() {
                Some((&start, &(limit, slot))) if end >= address && end <= limit => (start, limit, slot),
                _ => return Err(self.explain(address, size)),
            };
            return self.find(address, size);
        }
        let buffer = self.buffers[slot].as_mut().expect("internal: the index names live buffers");
        Ok((buffer, (address - start) as usize))
    }

    fn explain(&self, address: u64, size: usize) -> BadAddress {
        let before = self.freed.range(..=address).next_back();
        if let Some((start, end)) = before.filter(|(_, end)| address < **end) {
            return BadAddress::Freed(format!(
                "{size} bytes at offset {} of a buffer of {} bytes that was freed",
                address - start,
                end - start
            ));
        }
        let below =
            self.index.range(..=address).next_back().map(|(start, (end, _))| (end - start, address - start));
        let above =
            self.index.range(address..).next().map(|(start, (end, _))| (end - start, start - address));
        BadAddress::Nowhere(match (below, above) {
            (Some((length, offset)), _) if offset < length + GAP / 2 => {
                let past = (offset + size as u64).saturating_sub(length);
                format!("{size} bytes at offset {offset} of a buffer of {length} bytes: {past} past its end")
            }
            (_, Some((length, before))) if before < GAP => {
                format!("{size} bytes, {before} before the start of a buffer of {length} bytes")
            }
            _ => format!("{size} bytes at {address:#x}, where there is no buffer"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_bytes_crosses_words() {
        let mut set = Bytes::none(200);
        set.insert(60, 70);
        assert!(
            set.all(60, 70) && !set.all(59, 2) && !set.all(129, 2) && set.any(129, 2) && !set.any(130, 70)
        );
        set.remove(64, 64);
        assert!(set.all(60, 4) && !set.any(64, 64) && set.all(128, 2));
    }

    #[test]
    fn addresses_are_explained() {
        let mut memory = DeviceMemory::default();
        let (a, b) = (memory.allocate(100).unwrap(), memory.allocate(10).unwrap());
        assert_eq!(memory.find(a + 96, 4).unwrap().1, 96);
        let text = |e: BadAddress| match e {
            BadAddress::Nowhere(text) | BadAddress::Freed(text) => text,
        };
        assert!(text(memory.find(a + 100, 4).unwrap_err()).contains("4 past its end"));
        assert!(text(memory.find(b - 8, 4).unwrap_err()).contains("8 before the start of a buffer of 10"));
        memory.free(a).unwrap();
        assert!(matches!(memory.find(a, 4), Err(BadAddress::Freed(_))));
        assert!(memory.free(a).is_err());
        assert_eq!(memory.used(), 10);
    }
}
