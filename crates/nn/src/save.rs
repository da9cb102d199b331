//! [`SavedWeights`]: a safetensors file with every part of every parameter under its key.

use crate::{NnError, ParameterStore, Result, WEIGHTS_FILE};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::HashMap;
use std::io::{self, Write};
use vitrine_tensor::{DType, Device, Element, Error, Tensor};

/// Elements converted to bytes at a time.
const CHUNK: usize = 1 << 16;

/// The contents of a weight file: a header's length (u64), the header (JSON), then the tensors by key.
pub struct SavedWeights {
    dtype: DType,
    header: Vec<u8>,
    tensors: Vec<Tensor>,
}

impl SavedWeights {
    /// The file of these parameters in F32, F16 or BF16. Values are not copied before [`SavedWeights::fetched`], which rounds
    /// them; [`ParameterStore::round_to`] finds those that have no place in the type.
    ///
    /// # Errors
    /// `DTypeMismatch` for another type; none else for parameters that a [`Builder`](crate::Builder) made.
    pub fn new(parameters: &ParameterStore, dtype: DType) -> Result<Self> {
        SavedWeights::of(parameters.parts()?, dtype)
    }

    /// The file of these tensors under these keys.
    ///
    /// # Errors
    /// As [`SavedWeights::new`].
    pub fn of<S: AsRef<str>>(mut tensors: Vec<(S, Tensor)>, dtype: DType) -> Result<Self> {
        let stored = match dtype {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            dtype => {
                return Err(Error::DTypeMismatch {
                    op: "save",
                    expected: "f32, f16 or bf16".into(),
                    got: dtype,
                }
                .into());
            }
        };
        tensors.sort_by(|(a, _), (b, _)| a.as_ref().cmp(b.as_ref()));
        let mut end = 0;
        let infos = tensors.iter().map(|(key, value)| {
            let start = end;
            end += value.numel() * dtype.size();
            let shape = value.dims().to_vec();
            (key.as_ref().to_owned(), TensorInfo { dtype: stored, shape, data_offsets: (start, end) })
        });
        // What `transformers` looks for.
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let path = || WEIGHTS_FILE.into();
        let header = Metadata::new(Some(format), infos.collect()).map_err(|source| NnError::Safetensors {
            path: path(),
            len: 0,
            source,
        })?;
        let mut header =
            serde_json::to_vec(&header).map_err(|source| NnError::Json { path: path(), source })?;
        // Spaces at the end of the JSON keep the tensors aligned, so that a reader can map them.
        header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');
        Ok(SavedWeights { dtype, header, tensors: tensors.into_iter().map(|(_, value)| value).collect() })
    }

    /// The file's length in bytes.
    pub fn size(&self) -> u64 {
        let elements: usize = self.tensors.iter().map(Tensor::numel).sum();
        (size_of::<u64>() + self.header.len() + elements * self.dtype.size()) as u64
    }

    /// The same with all values in the file's type in the host's memory: what [`SavedWeights::write`] needs.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn fetched(mut self) -> Result<Self> {
        for tensor in &mut self.tensors {
            *tensor = tensor.to_device(Device::Cpu)?.to_dtype(DType::F32)?.to_dtype(self.dtype)?;
        }
        Ok(self)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of the writer; `Other` for values that were not fetched.
    pub fn write(&self, file: &mut impl Write) -> io::Result<()> {
        file.write_all(&(self.header.len() as u64).to_le_bytes())?;
        file.write_all(&self.header)?;
        for tensor in &self.tensors {
            match self.dtype {
                DType::F16 => write_values(file, tensor, f16::to_le_bytes)?,
                DType::BF16 => write_values(file, tensor, bf16::to_le_bytes)?,
                _ => write_values(file, tensor, f32::to_le_bytes)?,
            }
        }
        Ok(())
    }
}

/// Writes a tensor's values in row-major order.
fn write_values<T: Element, const N: usize>(
    file: &mut impl Write,
    tensor: &Tensor,
    to_bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(CHUNK * N);
    for piece in tensor.as_slice::<T>().map_err(io::Error::other)?.chunks(CHUNK) {
        bytes.clear();
        bytes.extend(piece.iter().flat_map(|&value| to_bytes(value)));
        file.write_all(&bytes)?;
    }
    Ok(())
}
