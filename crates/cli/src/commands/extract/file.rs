//! [`ArrayFile`]: a .safetensors or .npy file whose sizes are known before the first number, so that arrays grow side by side and
//! none is held in memory.

use crate::args::Store;
use crate::output::{Failure, Outcome};
use half::f16;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use vitrine_bert::{BertError, reserve_growth};

/// The type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Float(Store),
    /// Ids and places: 64-bit whole numbers.
    Whole,
}

impl Kind {
    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Kind::Float(Store::F16) => 2,
            Kind::Float(Store::F32) => 4,
            Kind::Whole => 8,
        }
    }

    /// What safetensors calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Float(Store::F16) => "F16",
            Kind::Float(Store::F32) => "F32",
            Kind::Whole => "I64",
        }
    }
}

/// An array of the file.
#[derive(Clone, Debug)]
pub struct Array {
    pub name: String,
    pub dims: Vec<usize>,
    pub kind: Kind,
}

impl Array {
    fn bytes(&self) -> u64 {
        self.dims.iter().map(|&dim| dim as u64).product::<u64>() * self.kind.bytes()
    }
}

/// A file that gets its name when it is whole.
pub struct ArrayFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    /// Each array, and where it begins in the file.
    arrays: Vec<(Array, u64)>,
    bytes: u64,
}

impl ArrayFile {
    /// Takes room for arrays with these sizes.
    pub fn new(path: &Path, arrays: Vec<Array>, metadata: &[(&str, String)]) -> Outcome<Self> {
        let header = match is_npy(path) {
            true => npy_header(&arrays[0]),
            false => safetensors_header(&arrays, metadata)?,
        };
        let mut end = header.len() as u64;
        let placed: Vec<(Array, u64)> = arrays
            .into_iter()
            .map(|array| {
                let start = end;
                end += array.bytes();
                (array, start)
            })
            .collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        let opened = File::create(&temporary).map_err(|source| io(path, source))?;
        let mut made =
            ArrayFile { path: path.to_owned(), temporary, file: opened, arrays: placed, bytes: end };
        reserve_growth(&made.file, path, end)?;
        made.write_at(0, &header)?;
        made.file.set_len(end).map_err(|source| io(path, source))?;
        Ok(made)
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The arrays.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.arrays.iter().map(|(array, _)| array)
    }

    /// Writes numbers of an array from element `first` on.
    pub fn floats(&mut self, array: usize, first: usize, numbers: &[f32]) -> Outcome {
        let (Array { name, kind, .. }, start) = &self.arrays[array];
        let place = start + first as u64 * kind.bytes();
        let bytes: Vec<u8> = match kind {
            Kind::Float(Store::F16) => {
                let too_large = |x: &&f32| x.is_finite() && !f16::from_f32(**x).is_finite();
                if let Some(x) = numbers.iter().find(too_large) {
                    let message = format!("{name} has {x}, which F16 cannot hold; use --store f32");
                    return Err(Failure::Run(message));
                }
                numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()
            }
            _ => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        self.write_at(place, &bytes)
    }

    /// Writes a whole array of ids or places.
    pub fn whole_numbers(&mut self, array: usize, numbers: impl Iterator<Item = u64>) -> Outcome {
        let bytes: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        self.write_at(self.arrays[array].1, &bytes)
    }

    fn write_at(&mut self, place: u64, bytes: &[u8]) -> Outcome {
        let written = self.file.seek(SeekFrom::Start(place)).and_then(|_| self.file.write_all(bytes));
        Ok(written.map_err(|source| io(&self.path, source))?)
    }

    /// Gives the file its name.
    pub fn finish(self) -> Outcome {
        let renamed = self.file.sync_all().and_then(|()| fs::rename(&self.temporary, &self.path));
        Ok(renamed.map_err(|source| io(&self.path, source))?)
    }
}

impl Drop for ArrayFile {
    fn drop(&mut self) {
        // After `finish` there is none of that name.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn io(path: &Path, source: std::io::Error) -> BertError {
    BertError::Io { path: path.to_owned(), source }
}

/// Whether the name says NumPy's format.
pub fn is_npy(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "npy")
}

/// The header of safetensors: its length, then JSON with each array's place, padded to whole words of 8 bytes.
fn safetensors_header(arrays: &[Array], metadata: &[(&str, String)]) -> Outcome<Vec<u8>> {
    let mut header = Map::new();
    let facts: Map<String, Value> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    header.insert("__metadata__".into(), Value::Object(facts));
    let mut start = 0;
    for array in arrays {
        let end = start + array.bytes();
        let entry = json!({ "dtype": array.kind.name(), "shape": array.dims, "data_offsets": [start, end] });
        header.insert(array.name.clone(), entry);
        start = end;
    }
    let mut text = serde_json::to_vec(&header)?;
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
}

/// The header of NumPy's format 1.0, padded to whole blocks of 64 bytes.
fn npy_header(array: &Array) -> Vec<u8> {
    let kind = match array.kind {
        Kind::Float(Store::F16) => "<f2",
        Kind::Float(Store::F32) => "<f4",
        Kind::Whole => "<i8",
    };
    // A tuple, which needs its comma with one element too.
    let dims: String = array.dims.iter().map(|dim| format!("{dim}, ")).collect();
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}), }}", dims.trim_end());
    let before = 10;
    let len = (before + text.len() + 1).next_multiple_of(64) - before;
    text.extend(std::iter::repeat_n(' ', len - 1 - text.len()));
    text.push('\n');
    [&b"\x93NUMPY\x01\x00"[..], &(len as u16).to_le_bytes(), text.as_bytes()].concat()
}
