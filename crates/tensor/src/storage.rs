//! The bytes behind a tensor.

use crate::cpu::gemm::{PackedB, PackedPairs};
use crate::cpu::memory::{ALIGNMENT, Block};
use crate::{Device, Element, Result, cuda};
use memmap2::Mmap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// The bytes behind one or more tensors, shared through an `Arc`. One device, one allocation, no interior mutability.
pub enum Storage {
    /// Host memory.
    Cpu(CpuStorage),
    /// Memory of a CUDA device.
    Cuda(CudaStorage),
}

/// Memory of a CUDA device.
pub struct CudaStorage(pub(crate) cuda::Block);

/// Host memory: a pooled block, a range of a mapped file, or bytes in the executable.
pub struct CpuStorage {
    bytes: CpuBytes,
    packed: PackedForms,
}

/// A weight W in the forms in which the product x W^T reads it; see [`Storage::packed`].
#[derive(Default)]
pub(crate) struct PackedForms {
    /// Of an F32 weight.
    pub reals: OnceLock<PackedB>,
    /// Of a BF16 weight.
    pub pairs: OnceLock<PackedPairs>,
}

enum CpuBytes {
    Pooled(Block),
    Mapped(Arc<Mmap>, Range<usize>),
    Static(&'static [u8]),
}

impl CpuStorage {
    fn new(bytes: CpuBytes) -> Self {
        CpuStorage { bytes, packed: PackedForms::default() }
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            CpuBytes::Pooled(block) => block.bytes(),
            CpuBytes::Mapped(map, range) => &map[range.clone()],
            CpuBytes::Static(bytes) => bytes,
        }
    }

    /// The bytes for writing; read-only ones are copied into a pooled block first. Forms derived from them are dropped.
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.packed = PackedForms::default();
        if !matches!(self.bytes, CpuBytes::Pooled(_)) {
            self.bytes = CpuBytes::Pooled(copied(self.bytes()));
        }
        match &mut self.bytes {
            CpuBytes::Pooled(block) => block.bytes_mut(),
            CpuBytes::Mapped(..) | CpuBytes::Static(_) => unreachable!("internal: replaced above"),
        }
    }
}

fn copied(bytes: &[u8]) -> Block {
    let mut block = Block::new(bytes.len());
    block.bytes_mut().copy_from_slice(bytes);
    block
}

impl Storage {
    /// `len` bytes with unspecified contents.
    ///
    /// # Errors
    /// `CudaUnavailable`, `OutOfMemory`.
    pub(crate) fn empty(len: usize, device: Device) -> Result<Self> {
        match device {
            Device::Cpu => Ok(Storage::Cpu(CpuStorage::new(CpuBytes::Pooled(Block::new(len))))),
            Device::Cuda(ordinal) => {
                let context = cuda::Context::get(ordinal)?;
                Ok(Storage::Cuda(CudaStorage(cuda::Block::new(&context, len)?)))
            }
        }
    }

    /// A range of a mapped file, copied only if it is not aligned for its elements.
    pub(crate) fn mapped(map: Arc<Mmap>, range: Range<usize>, element_size: usize) -> Self {
        let bytes = &map[range.clone()];
        let aligned = (bytes.as_ptr() as usize).is_multiple_of(element_size);
        let bytes = if aligned { CpuBytes::Mapped(map, range) } else { CpuBytes::Pooled(copied(bytes)) };
        Storage::Cpu(CpuStorage::new(bytes))
    }

    /// Bytes of the executable, copied only if they are not aligned for their elements.
    pub(crate) fn from_static(bytes: &'static [u8], element_size: usize) -> Self {
        let aligned = (bytes.as_ptr() as usize).is_multiple_of(element_size);
        let bytes = if aligned { CpuBytes::Static(bytes) } else { CpuBytes::Pooled(copied(bytes)) };
        Storage::Cpu(CpuStorage::new(bytes))
    }

    /// The device that holds the bytes.
    pub fn device(&self) -> Device {
        match self {
            Storage::Cpu(_) => Device::Cpu,
            Storage::Cuda(storage) => Device::Cuda(storage.0.context().ordinal),
        }
    }

    /// How many bytes there are.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Storage::Cpu(storage) => storage.bytes().len(),
            Storage::Cuda(storage) => storage.0.len(),
        }
    }

    /// The place for the packed forms of a weight that covers the storage: filled once, shared by all views, and emptied by
    /// any mutable access.
    pub(crate) fn packed(&self) -> &PackedForms {
        match self {
            Storage::Cpu(storage) => &storage.packed,
            Storage::Cuda(_) => unreachable!("internal: packed forms are the CPU's"),
        }
    }

    /// The device's block.
    pub(crate) fn block(&self) -> &cuda::Block {
        match self {
            Storage::Cpu(_) => unreachable!("internal: the CUDA backend has only its own tensors"),
            Storage::Cuda(storage) => &storage.0,
        }
    }

    /// The device's block, to be written.
    pub(crate) fn block_mut(&mut self) -> &mut cuda::Block {
        match self {
            Storage::Cpu(_) => unreachable!("internal: the CUDA backend has only its own tensors"),
            Storage::Cuda(storage) => &mut storage.0,
        }
    }

    /// The whole buffer as elements.
    pub(crate) fn elements<E: Element>(&self) -> &[E] {
        match self {
            Storage::Cpu(storage) => {
                let bytes = storage.bytes();
                debug_assert_eq!(bytes.as_ptr() as usize % align_of::<E>(), 0);
                // SAFETY: constructors make the start aligned for the elements (ALIGNMENT covers every `Element`);
                // the length is rounded down to whole elements; every bit pattern of an `Element` is valid.
                unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<E>()) }
            }
            Storage::Cuda(_) => unreachable!("internal: a device's elements cannot be seen from the host"),
        }
    }

    /// The whole buffer as elements, to be written. Read-only bytes are copied first.
    pub(crate) fn elements_mut<E: Element>(&mut self) -> &mut [E] {
        const { assert!(ALIGNMENT.is_multiple_of(align_of::<E>())) };
        match self {
            Storage::Cpu(storage) => {
                let bytes = storage.bytes_mut();
                // SAFETY: a pooled block is aligned to ALIGNMENT; otherwise as `elements`, and `&mut` is exclusive.
                unsafe {
                    std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<E>())
                }
            }
            Storage::Cuda(_) => unreachable!("internal: a device's elements cannot be seen from the host"),
        }
    }
}
