//! Safetensors files of a run's own state: written through a hash, one tensor in the host's memory at a time, and read
//! back exactly, in the dtype in which they were written.

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use vitrine_tensor::{DType, Device, Element, Tensor};

/// Bytes that are converted, hashed and written, or read and hashed, at a time.
const CHUNK: usize = 1 << 20;
/// The most bytes of a header.
const MAX_HEADER: u64 = 64 << 20;

/// What is wrong with a file: the system's answer, or a sentence.
pub(super) type Fault = io::Error;

pub(super) fn fault(why: impl Into<String>) -> Fault {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// A file's length in bytes and SHA-256, as lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileSum {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256, 64 hexadecimal digits.
    pub sha256: String,
}

pub(super) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that these tensors take in a file, without its header.
pub(super) fn bytes_of(tensors: &[(String, Tensor)]) -> u64 {
    tensors.iter().map(|(_, tensor)| tensor.bytes() as u64).sum()
}

/// Writes the tensors by name and waits until they are on the disk. A tensor of a CUDA device is fetched when its turn
/// comes.
pub(super) fn write(path: &Path, mut tensors: Vec<(String, Tensor)>) -> io::Result<FileSum> {
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut end = 0;
    let infos = tensors.iter().map(|(name, tensor)| {
        let start = end;
        end += tensor.bytes();
        let info = TensorInfo {
            dtype: stored(tensor.dtype()),
            shape: tensor.dims().to_vec(),
            data_offsets: (start, end),
        };
        (name.clone(), info)
    });
    let header = Metadata::new(None, infos.collect()).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&header)?;
    // Spaces at the end of the JSON keep the tensors aligned, so that a reader can map them.
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');
    let mut file = Hashed { file: File::create(path)?, hash: Sha256::new(), bytes: 0 };
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(&header)?;
    for (_, tensor) in tensors {
        let tensor = tensor.to_device(Device::Cpu).map_err(io::Error::other)?;
        match tensor.dtype() {
            DType::F32 => each::<f32, 4>(&tensor, &mut file, f32::to_le_bytes),
            DType::F64 => each::<f64, 8>(&tensor, &mut file, f64::to_le_bytes),
            DType::U32 => each::<u32, 4>(&tensor, &mut file, u32::to_le_bytes),
            DType::I64 => each::<i64, 8>(&tensor, &mut file, i64::to_le_bytes),
            DType::BF16 => each::<half::bf16, 2>(&tensor, &mut file, half::bf16::to_le_bytes),
            DType::F16 => each::<half::f16, 2>(&tensor, &mut file, half::f16::to_le_bytes),
        }?;
    }
    file.file.sync_all()?;
    Ok(FileSum { bytes: file.bytes, sha256: hex(&file.hash.finalize()) })
}

struct Hashed {
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

fn each<E: Element, const N: usize>(
    tensor: &Tensor,
    file: &mut Hashed,
    convert: impl Fn(E) -> [u8; N],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(CHUNK);
    for piece in tensor.as_slice::<E>().map_err(io::Error::other)?.chunks(CHUNK / N) {
        bytes.clear();
        bytes.extend(piece.iter().flat_map(|&value| convert(value)));
        file.write(&bytes)?;
    }
    Ok(())
}

/// Length and hash of a file.
pub(super) fn sum(path: &Path) -> io::Result<FileSum> {
    let mut file = File::open(path)?;
    let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(FileSum { bytes, sha256: hex(&hash.finalize()) });
        }
        hash.update(&piece[..read]);
        bytes += read as u64;
    }
}

/// Tensors of a file, of which only the header has been read.
pub(super) struct Source {
    file: File,
    /// The first byte of the first tensor.
    data: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Source {
    /// Reads the header.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        let data = length.checked_add(8).filter(|&data| data <= len && length <= MAX_HEADER);
        let Some(data) = data else { return Err(fault("its header is longer than the file")) };
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header)?;
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|error| fault(format!("its header: {error}")))?;
        if data.checked_add(header.data_len() as u64) != Some(len) {
            return Err(fault("its header describes another length"));
        }
        let tensors = header.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Source { file, data, tensors })
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys()
    }

    /// Shape and dtype of a tensor.
    pub fn describe(&self, name: &str) -> Option<(&[usize], Option<DType>)> {
        self.tensors.get(name).map(|info| (info.shape.as_slice(), loaded(info.dtype)))
    }

    /// Reads a tensor.
    pub fn read(&mut self, name: &str) -> Result<Tensor, Fault> {
        let info = self.tensors.get(name).ok_or_else(|| fault(format!("{name} is missing")))?;
        let Some(dtype) = loaded(info.dtype) else {
            return Err(fault(format!("{name} is stored as {:?}", info.dtype)));
        };
        let mut tensor =
            Tensor::empty(&info.shape, dtype, Device::Cpu).map_err(|error| fault(error.to_string()))?;
        self.file.seek(SeekFrom::Start(self.data + info.data_offsets.0 as u64))?;
        let file = &mut self.file;
        match dtype {
            DType::F32 => fill::<f32, 4>(file, &mut tensor, f32::from_le_bytes),
            DType::F64 => fill::<f64, 8>(file, &mut tensor, f64::from_le_bytes),
            DType::U32 => fill::<u32, 4>(file, &mut tensor, u32::from_le_bytes),
            DType::I64 => fill::<i64, 8>(file, &mut tensor, i64::from_le_bytes),
            DType::BF16 => fill::<half::bf16, 2>(file, &mut tensor, half::bf16::from_le_bytes),
            DType::F16 => fill::<half::f16, 2>(file, &mut tensor, half::f16::from_le_bytes),
        }?;
        Ok(tensor)
    }
}

fn fill<E: Element, const N: usize>(
    file: &mut File,
    tensor: &mut Tensor,
    convert: impl Fn([u8; N]) -> E,
) -> Result<(), Fault> {
    let mut bytes = vec![0; CHUNK.min(tensor.bytes())];
    let values = tensor.as_mut_slice::<E>().map_err(|error| fault(error.to_string()))?;
    for piece in values.chunks_mut(CHUNK / N) {
        let bytes = &mut bytes[..piece.len() * N];
        file.read_exact(bytes)?;
        for (value, bytes) in piece.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *value = convert(*bytes);
        }
    }
    Ok(())
}

fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::BF16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        DType::F64 => Dtype::F64,
        DType::U32 => Dtype::U32,
        DType::I64 => Dtype::I64,
    }
}

fn loaded(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F16 => Some(DType::F16),
        Dtype::F64 => Some(DType::F64),
        Dtype::U32 => Some(DType::U32),
        Dtype::I64 => Some(DType::I64),
        _ => None,
    }
}
