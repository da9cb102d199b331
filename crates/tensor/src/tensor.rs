//! [`Tensor`]: a shaped, strided view of shared storage. Views and access only; the mathematics is in [`ops`](crate::ops).

use crate::ops::cast::for_dtype;
use crate::shape::{Layout, Shape};
use crate::storage::Storage;
use crate::{DType, Device, Element, Error, Result};
use memmap2::Mmap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// An array of up to six dimensions: a layout over shared storage. Cloning shares the storage.
///
/// There are no type parameters: dtype and device are run-time values.
#[derive(Clone)]
pub struct Tensor {
    storage: Arc<Storage>,
    layout: Layout,
    dtype: DType,
}

impl Tensor {
    /// Memory for a tensor, contents unspecified (but initialised): for results that are written in full.
    ///
    /// # Errors
    /// `ShapeMismatch` for an impossible shape; `CudaUnavailable`, `OutOfMemory`.
    pub fn empty(dims: &[usize], dtype: DType, device: Device) -> Result<Self> {
        let shape = Shape::new(dims)?;
        let storage = Arc::new(Storage::empty(shape.numel() * dtype.size(), device)?);
        Ok(Tensor { storage, layout: Layout::contiguous(shape), dtype })
    }

    /// Zeroes.
    ///
    /// # Errors
    /// As [`Tensor::empty`].
    pub fn zeros(dims: &[usize], dtype: DType, device: Device) -> Result<Self> {
        let mut tensor = Tensor::empty(dims, dtype, device)?;
        tensor.zero_()?;
        Ok(tensor)
    }

    /// Overwrites every element with zero.
    ///
    /// # Errors
    /// `SharedStorage` when another tensor holds the storage.
    pub fn zero_(&mut self) -> Result<()> {
        fn fill<E: Element>(tensor: &mut Tensor) -> Result<()> {
            crate::cpu::parallel::for_each_chunk_mut(tensor.as_mut_slice::<E>()?, 1 << 18, |_, chunk| {
                chunk.fill(E::default());
            });
            Ok(())
        }
        match self.device() {
            Device::Cpu => for_dtype!(self.dtype, E => fill::<E>(self)),
            Device::Cuda(_) => {
                let (start, len) = (self.layout.offset() * self.dtype.size(), self.bytes());
                self.storage_mut("zero_")?.block_mut().zero(start, len)
            }
        }
    }

    /// A CPU tensor with a copy of `values` in row-major order.
    ///
    /// # Errors
    /// `ShapeMismatch` when the number of values is not that of the shape.
    pub fn from_slice<E: Element>(values: &[E], dims: &[usize]) -> Result<Self> {
        let mut tensor = Tensor::empty(dims, E::DTYPE, Device::Cpu)?;
        if tensor.numel() != values.len() {
            let expected = format!("{} elements, as many as values", values.len());
            return Err(Error::ShapeMismatch { op: "from_slice", expected, got: dims.to_vec() });
        }
        tensor.as_mut_slice::<E>()?.copy_from_slice(values);
        Ok(tensor)
    }

    /// A range of bytes of a mapped file (little endian, row-major), without a copy where it is aligned.
    ///
    /// # Errors
    /// `ShapeMismatch` when the range's length is not that of the shape; `IndexOutOfRange` when it leaves the file.
    pub fn from_mapped(map: Arc<Mmap>, range: Range<usize>, dims: &[usize], dtype: DType) -> Result<Self> {
        if range.start > range.end || range.end > map.len() {
            return Err(Error::IndexOutOfRange { op: "from_mapped", index: range.end, len: map.len() });
        }
        let shape = Self::shape_of_bytes("from_mapped", dims, dtype, range.len())?;
        let storage = Arc::new(Storage::mapped(map, range, dtype.size()));
        Ok(Tensor { storage, layout: Layout::contiguous(shape), dtype })
    }

    /// Bytes of the executable (little endian, row-major), without a copy where they are aligned.
    ///
    /// # Errors
    /// `ShapeMismatch` when their length is not that of the shape.
    pub fn from_static(bytes: &'static [u8], dims: &[usize], dtype: DType) -> Result<Self> {
        let shape = Self::shape_of_bytes("from_static", dims, dtype, bytes.len())?;
        let storage = Arc::new(Storage::from_static(bytes, dtype.size()));
        Ok(Tensor { storage, layout: Layout::contiguous(shape), dtype })
    }

    fn shape_of_bytes(op: &'static str, dims: &[usize], dtype: DType, bytes: usize) -> Result<Shape> {
        let shape = Shape::new(dims)?;
        if shape.numel() * dtype.size() != bytes {
            let expected = format!("{bytes} bytes of {dtype}");
            return Err(Error::ShapeMismatch { op, expected, got: dims.to_vec() });
        }
        Ok(shape)
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        self.layout.shape()
    }

    /// The shape as a slice.
    pub fn dims(&self) -> &[usize] {
        self.layout.shape()
    }

    /// Distances between neighbours, in elements.
    pub fn strides(&self) -> &[usize] {
        self.layout.strides()
    }

    /// Shape, strides and offset.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims().len()
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.shape().numel()
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the storage is.
    pub fn device(&self) -> Device {
        self.storage.device()
    }

    /// The bytes of the elements, were they contiguous.
    pub fn bytes(&self) -> usize {
        self.numel() * self.dtype.size()
    }

    /// Whether elements follow one another in row-major order.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// Whether this tensor is its whole storage, in order: such a weight may cache derived forms there.
    pub(crate) fn covers_storage(&self) -> bool {
        self.is_contiguous() && self.bytes() == self.storage.bytes()
    }

    /// The storage.
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    // ---- Views ----

    fn view(&self, layout: Layout) -> Self {
        Tensor { storage: self.storage.clone(), layout, dtype: self.dtype }
    }

    /// Swaps two dimensions; a view.
    ///
    /// # Errors
    /// `IndexOutOfRange` when one does not exist.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        Ok(self.view(self.layout.transpose(a, b)?))
    }

    /// Swaps the last two dimensions: `[.., M, N]` to `[.., N, M]`; a view.
    ///
    /// # Errors
    /// `IndexOutOfRange` below two dimensions.
    pub fn t(&self) -> Result<Self> {
        let last = self.rank().wrapping_sub(1);
        self.transpose(last.wrapping_sub(1), last)
    }

    /// Keeps `start..start + len` of dimension `dim`; a view.
    ///
    /// # Errors
    /// `IndexOutOfRange` when the range leaves the dimension.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Self> {
        Ok(self.view(self.layout.narrow(dim, start, len)?))
    }

    /// The `index`-th slice along `dim`, without that dimension; a view.
    ///
    /// # Errors
    /// `IndexOutOfRange` when it does not exist.
    pub fn select(&self, dim: usize, index: usize) -> Result<Self> {
        self.narrow(dim, index, 1)?.squeeze(dim)
    }

    /// Inserts a dimension of length 1; a view.
    ///
    /// # Errors
    /// As [`Layout::unsqueeze`].
    pub fn unsqueeze(&self, dim: usize) -> Result<Self> {
        Ok(self.view(self.layout.unsqueeze(dim)?))
    }

    /// Removes a dimension of length 1; a view.
    ///
    /// # Errors
    /// As [`Layout::squeeze`].
    pub fn squeeze(&self, dim: usize) -> Result<Self> {
        Ok(self.view(self.layout.squeeze(dim)?))
    }

    /// Repeats dimensions of length 1 without copying; a view.
    ///
    /// # Errors
    /// `ShapeMismatch` when the shapes do not broadcast.
    pub fn broadcast_to(&self, dims: &[usize]) -> Result<Self> {
        Ok(self.view(self.layout.broadcast_to(Shape::new(dims)?)?))
    }

    /// The same elements under another shape: a view where contiguous, else a copy.
    ///
    /// # Errors
    /// `ShapeMismatch` when the numbers of elements differ.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        let shape = Shape::new(dims)?;
        match self.layout.reshape(shape)? {
            Some(layout) => Ok(self.view(layout)),
            None => self.contiguous()?.reshape(dims),
        }
    }

    // ---- Access from the host ----

    fn check_dtype<E: Element>(&self, op: &'static str) -> Result<()> {
        if self.dtype == E::DTYPE {
            return Ok(());
        }
        Err(Error::DTypeMismatch { op, expected: E::DTYPE.to_string(), got: self.dtype })
    }

    fn check_host(&self, op: &'static str) -> Result<()> {
        match self.device() {
            Device::Cpu => Ok(()),
            left @ Device::Cuda(_) => Err(Error::DeviceMismatch { op, left, right: Device::Cpu }),
        }
    }

    /// Whether another tensor holds the same storage: then this one cannot be changed in place.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.storage) > 1
    }

    fn storage_mut(&mut self, op: &'static str) -> Result<&mut Storage> {
        Arc::get_mut(&mut self.storage).ok_or(Error::SharedStorage { op })
    }

    pub(crate) fn not_contiguous(&self, op: &'static str) -> Error {
        Error::NotContiguous { op, shape: self.dims().to_vec(), strides: self.strides().to_vec() }
    }

    /// The elements, in order.
    ///
    /// # Errors
    /// `DTypeMismatch`; `NotContiguous`; `DeviceMismatch` for a tensor of a CUDA device, here and below.
    pub fn as_slice<E: Element>(&self) -> Result<&[E]> {
        self.check_dtype::<E>("as_slice")?;
        self.check_host("as_slice")?;
        if !self.is_contiguous() {
            return Err(self.not_contiguous("as_slice"));
        }
        let start = self.layout.offset();
        Ok(&self.storage.elements()[start..start + self.numel()])
    }

    /// The elements for writing.
    ///
    /// # Errors
    /// As [`Tensor::as_slice`]; `SharedStorage` when another tensor holds the storage.
    pub fn as_mut_slice<E: Element>(&mut self) -> Result<&mut [E]> {
        self.check_dtype::<E>("as_mut_slice")?;
        self.check_host("as_mut_slice")?;
        if !self.is_contiguous() {
            return Err(self.not_contiguous("as_mut_slice"));
        }
        let range = self.layout.offset()..self.layout.offset() + self.numel();
        Ok(&mut self.storage_mut("as_mut_slice")?.elements_mut()[range])
    }

    /// Seen as a matrix of rows: all elements from the first one on, and the distance between rows in elements.
    /// For kernels that accept strided rows, such as the query, key and value parts of one `[T, 3C]` projection.
    ///
    /// # Errors
    /// `DTypeMismatch`; `NotContiguous` when rows themselves have gaps.
    pub fn as_rows<E: Element>(&self, op: &'static str) -> Result<Rows<'_, E>> {
        self.check_dtype::<E>(op)?;
        self.check_host(op)?;
        let stride = self.row_stride(op)?;
        let width = self.shape().last_dim();
        let count = self.numel().checked_div(width).unwrap_or(0);
        let start = self.layout.offset();
        let len = if count == 0 { 0 } else { (count - 1) * stride + width };
        Ok(Rows { data: &self.storage.elements()[start..start + len], count, width, stride })
    }

    /// A copy of the elements in row-major order, for any layout and from any device.
    ///
    /// # Errors
    /// `DTypeMismatch`.
    pub fn to_vec<E: Element>(&self) -> Result<Vec<E>> {
        self.check_dtype::<E>("to_vec")?;
        match self.device() {
            Device::Cpu if self.is_contiguous() => Ok(self.as_slice::<E>()?.to_vec()),
            Device::Cpu => {
                let elements = self.storage.elements::<E>();
                Ok(self.layout.positions().map(|position| elements[position]).collect())
            }
            Device::Cuda(_) => self.to_device(Device::Cpu)?.to_vec(),
        }
    }

    /// The only element of a one-element tensor, as f64.
    ///
    /// # Errors
    /// `ShapeMismatch` when there is not exactly one element; `DTypeMismatch` for integers.
    pub fn item(&self) -> Result<f64> {
        if self.numel() != 1 {
            return Err(Error::ShapeMismatch {
                op: "item",
                expected: "one element".into(),
                got: self.dims().to_vec(),
            });
        }
        self.to_device(Device::Cpu)?.to_dtype(DType::F64)?.as_slice::<f64>().map(|values| values[0])
    }

    /// Moves to a device; a cheap clone when already there. From a CUDA device it waits for all work before.
    ///
    /// # Errors
    /// `CudaUnavailable`, `OutOfMemory`, `Cuda`; `NotSupported` between two CUDA devices.
    pub fn to_device(&self, device: Device) -> Result<Self> {
        match (self.device(), device) {
            (from, to) if from == to => Ok(self.clone()),
            (Device::Cpu, Device::Cuda(_)) => {
                let source = self.contiguous()?;
                let mut target = Tensor::empty(self.dims(), self.dtype, device)?;
                for_dtype!(self.dtype, E => {
                    target.storage_mut("to_device")?.block_mut().write(source.as_slice::<E>()?)?;
                });
                Ok(target)
            }
            (Device::Cuda(_), Device::Cpu) => {
                let source = self.contiguous()?;
                let mut target = Tensor::empty(self.dims(), self.dtype, Device::Cpu)?;
                let start = source.layout.offset() * self.dtype.size();
                for_dtype!(self.dtype, E => {
                    source.storage.block().read(start, target.as_mut_slice::<E>()?)?;
                });
                Ok(target)
            }
            _ => Err(Error::NotSupported { op: "to_device", device, dtype: self.dtype }),
        }
    }

    // ---- For the CUDA backend ----

    /// Elements between rows, when rows have no gaps inside.
    pub(crate) fn row_stride(&self, op: &'static str) -> Result<usize> {
        self.layout.row_stride().ok_or_else(|| self.not_contiguous(op))
    }

    /// The device address of the first element. Kernels that write it get a tensor that nothing else holds.
    pub(crate) fn device_address(&self) -> u64 {
        self.storage.block().address() + (self.layout.offset() * self.dtype.size()) as u64
    }

    /// The same bits as elements of another dtype of the same size.
    pub(crate) fn seen_as(&self, dtype: DType) -> Tensor {
        assert_eq!(self.dtype.size(), dtype.size(), "internal: elements of another size");
        Tensor { dtype, ..self.clone() }
    }

    /// The same of a contiguous tensor that is changed in place.
    pub(crate) fn device_address_mut(&mut self) -> Result<u64> {
        if !self.is_contiguous() {
            return Err(self.not_contiguous("device_address_mut"));
        }
        self.storage_mut("device_address_mut")?;
        Ok(self.device_address())
    }

    /// Copies all elements of a contiguous tensor to the elements from `start` on of this contiguous one.
    pub(crate) fn device_copy_from(&mut self, start: usize, source: &Tensor) -> Result<()> {
        let size = self.dtype.size();
        let to = (self.layout.offset() + start) * size;
        let (from, len) = (source.layout.offset() * size, source.bytes());
        self.storage_mut("device_copy_from")?.block_mut().copy_from(to, source.storage.block(), from, len)
    }
}

/// The rows of a tensor seen as a matrix; see [`Tensor::as_rows`].
#[derive(Clone, Copy)]
pub struct Rows<'a, E> {
    /// From the first element of the first row to the last element of the last row.
    pub data: &'a [E],
    /// The number of rows.
    pub count: usize,
    /// Elements in a row.
    pub width: usize,
    /// Elements from the start of a row to the start of the next.
    pub stride: usize,
}

impl<'a, E> Rows<'a, E> {
    /// One row.
    #[inline(always)]
    pub fn row(&self, index: usize) -> &'a [E] {
        &self.data[index * self.stride..index * self.stride + self.width]
    }
}

impl fmt::Debug for Tensor {
    /// Type and layout, and the first elements in reading order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "Tensor[{:?} {} {}]", self.dims(), self.dtype, self.device())?;
        match self.device() {
            Device::Cpu => {}
            Device::Cuda(_) => return Ok(()), // Looking would wait for the device.
        }
        let positions: Vec<usize> = self.layout.positions().take(SHOWN).collect();
        let dots = if self.numel() > SHOWN { ", .." } else { "" };
        macro_rules! values {
            ($type:ty) => {{
                let elements = self.storage.elements::<$type>();
                let shown: Vec<String> = positions.iter().map(|&p| format!("{:?}", elements[p])).collect();
                write!(f, "[{}{dots}]", shown.join(", "))
            }};
        }
        match self.dtype {
            DType::F32 => values!(f32),
            DType::BF16 => values!(half::bf16),
            DType::F16 => values!(half::f16),
            DType::F64 => values!(f64),
            DType::U32 => values!(u32),
            DType::I64 => values!(i64),
        }
    }
}
