//! [`Weights`]: the tensors of a checkpoint, found under the [`Names`] of a model family in `transformers`, whatever variant of
//! those names the files use.
//!
//! Files are read, not mapped into memory: a file that another process cuts or overwrites later changes nothing, and one that is
//! cut while it is read is an error, where a map would end the process by a signal or show zeros.

use crate::names::Name;
use crate::read::{self, WEB_PAGE, unusable};
use crate::{Input, KeyReport, Names, NnError, Result, Source, listed, printable, refuse_lfs_pointer};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensorError};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vitrine_tensor::cpu::parallel;
use zerocopy::IntoBytes;

/// The weights of a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Which file holds which key, when the weights are cut into several.
pub const WEIGHTS_INDEX_FILE: &str = "model.safetensors.index.json";

/// Elements read and checked by one piece of parallel work.
const CHUNK: usize = 1 << 16;
/// The most bytes of a header; that of a BERT of 4096 layers takes about 8 MiB.
const MAX_HEADER: u64 = 32 << 20;
/// The most bytes of an index.
const MAX_INDEX: u64 = 32 << 20;

/// One tensor of a file.
struct Entry {
    /// The name in the file.
    name: String,
    input: Arc<Input>,
    /// Its first byte in the file.
    start: u64,
    dtype: Dtype,
    dims: Vec<usize>,
    /// Whether a model has a parameter for it.
    used: bool,
}

impl Entry {
    fn read_at(&self, start: u64, bytes: &mut [u8], key: &str) -> Result<()> {
        let path = self.input.path();
        self.input.read_at(start, bytes).map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => {
                unusable(path, format!("the file became shorter while {key} was read; copy it again"))
            }
            _ => NnError::Io { path: path.to_owned(), source },
        })
    }
}

/// The tensors of one checkpoint by canonical key. A model first compares all keys and shapes ([`Weights::expect`],
/// [`Weights::report`]) and only then allocates and reads ([`Weights::read`]).
pub struct Weights {
    /// The file, for messages.
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    /// Names in the file that mean a key which another name gives already, or that stand under another prefix.
    others: Vec<String>,
    notes: Vec<String>,
    report: KeyReport,
}

impl Weights {
    /// Whether a model has weights, readable or not.
    pub fn is_in(source: impl Into<Source>) -> bool {
        let source = source.into();
        [WEIGHTS_FILE, WEIGHTS_INDEX_FILE].iter().any(|name| source.has(name))
    }

    /// Opens the weights of a model, for a family with these names: `model.safetensors`, else the files that `model.safetensors.index.json` lists.
    /// As in `transformers`, the index is not read where both are there.
    ///
    /// Only headers are read, each key's from the file that the index names.
    ///
    /// # Errors
    /// `NoWeights`, `Io`, `Json`, `LfsPointer`, `Safetensors`; `Unusable` for what is no file, for an index that names files
    /// elsewhere, files that are not there or keys that its files lack, for a key in two files, and for two models in one file.
    pub fn open(source: impl Into<Source>, names: &Names) -> Result<Self> {
        let source = source.into();
        if source.has(WEIGHTS_FILE) {
            let mut tensors = Vec::new();
            open_file(source.open(WEIGHTS_FILE)?, &mut tensors)?;
            let mut weights = Weights::new(source.path_of(WEIGHTS_FILE), tensors, names)?;
            if source.has(WEIGHTS_INDEX_FILE) {
                weights.notes.push(format!("{WEIGHTS_INDEX_FILE} is not read: {WEIGHTS_FILE} is there too"));
            }
            return Ok(weights);
        }
        if !source.has(WEIGHTS_INDEX_FILE) {
            let hint = read::other_weights(&source).map(|hint| format!("; {hint}")).unwrap_or_default();
            return Err(NnError::NoWeights { folder: source.path().to_owned(), hint });
        }
        let index = source.path_of(WEIGHTS_INDEX_FILE);
        Weights::new(index.clone(), open_shards(&source, &index)?, names)
    }

    /// Finds the one model among tensors under any prefixes.
    fn new(path: PathBuf, tensors: Vec<Entry>, names: &Names) -> Result<Self> {
        let mut found: Vec<(Name, Entry)> =
            tensors.into_iter().map(|entry| (names.read(&entry.name), entry)).collect();
        // The base model's prefix, which stands in front of all others; a head may also be beside the object that holds that.
        let prefixes: BTreeSet<&str> = found
            .iter()
            .filter_map(|(name, _)| match name {
                Name::Weight { prefix, in_base: true, .. } => Some(prefix.as_str()),
                _ => None,
            })
            .collect();
        let ours = prefixes.first().map_or_else(String::new, |first| (*first).to_owned());
        if let Some(other) = prefixes.iter().find(|prefix| !prefix.starts_with(&ours)) {
            let (first, other) = (printable(&ours), printable(other));
            let why = format!(
                "two models are in it, under \"{first}\" and \"{other}\"; save one of them by itself"
            );
            return Err(unusable(&path, why));
        }
        let mut notes = Vec::new();
        if !ours.is_empty() && ours != "model." {
            notes.push(format!("the names in the file are read without \"{}\" in front", printable(&ours)));
        }
        // Of several names for a key, the exact one, and of two heads the one next to the base model.
        found.sort_by_cached_key(|(name, entry)| match name {
            Name::Weight { prefix, key, .. } => {
                (usize::MAX - prefix.len(), *key != entry.name, entry.name.clone())
            }
            _ => (0, false, entry.name.clone()),
        });
        let mut weights = Weights {
            path,
            entries: BTreeMap::new(),
            others: Vec::new(),
            notes,
            report: KeyReport::default(),
        };
        for (name, entry) in found {
            let (key, is_tied) = match name {
                Name::Ignored => continue,
                Name::Other(key) => (key, false),
                Name::Weight { prefix, key, in_base, is_tied } => {
                    if prefix != ours && (in_base || !ours.starts_with(&prefix)) {
                        weights.others.push(entry.name);
                        continue;
                    }
                    (key, is_tied)
                }
            };
            match weights.entries.get(&key) {
                None => {
                    weights.entries.insert(key, entry);
                }
                // The one key that healthy files hold twice: tied parameters are written under both names.
                Some(_) if is_tied => {}
                Some(first) if first.input.path() != entry.input.path() => {
                    return Err(in_two_files(&weights.path, &key, first, &entry));
                }
                Some(_) => weights.others.push(entry.name),
            }
        }
        Ok(weights)
    }

    /// Whether the checkpoint has this key, under any of its names.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The shape of a key's tensor.
    pub fn dims(&self, key: &str) -> Option<&[usize]> {
        self.entries.get(key).map(|entry| entry.dims.as_slice())
    }

    /// Forgets a key: a head that a new one replaces.
    pub fn discard(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// What a user should know about the files, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Says that a model has a parameter of this key and shape, and returns whether the checkpoint has it so. The report
    /// remembers what is missing or has another shape; a missing one is no fault if it `may_be_new`.
    ///
    /// # Errors
    /// `WeightDType`.
    pub fn expect(&mut self, key: &str, dims: &[usize], may_be_new: bool) -> Result<bool> {
        let Some(entry) = self.entries.get_mut(key) else {
            if may_be_new {
                self.report.new.push(key.into());
            } else {
                self.report.missing.push((key.into(), None));
            }
            return Ok(false);
        };
        entry.used = true;
        if entry.dims != dims {
            self.report.misshaped.push((key.into(), dims.to_vec(), entry.dims.clone()));
            return Ok(false);
        }
        if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64) {
            let (path, key) = (entry.input.path().to_owned(), printable(&entry.name));
            return Err(NnError::WeightDType { path, key, dtype: entry.dtype.to_string() });
        }
        Ok(true)
    }

    /// What was missing, new, mis-shaped, or not expected by the model.
    ///
    /// # Errors
    /// `Weights` with the whole report when a key is missing or mis-shaped.
    pub fn report(&self) -> Result<KeyReport> {
        let mut report = self.report.clone();
        let unused = self.entries.values().filter(|entry| !entry.used).map(|entry| &entry.name);
        report.unexpected = unused.chain(&self.others).cloned().collect();
        report.unexpected.sort_unstable();
        if report.fits() {
            return Ok(report);
        }
        report.add_hints();
        Err(NnError::Weights { path: self.path.clone(), report: Box::new(report) })
    }

    /// Reads the elements of an expected tensor, in row-major order, as F32.
    ///
    /// # Errors
    /// `Io`; `Unusable` when the file has become shorter; `NotFinite` for NaN or infinity.
    ///
    /// # Panics
    /// When [`Weights::expect`] did not return true for this key and as many elements.
    pub fn read(&self, key: &str, values: &mut [f32]) -> Result<()> {
        let entry = &self.entries[key];
        assert_eq!(entry.dims.iter().product::<usize>(), values.len(), "internal: {key} was expected so");
        let size = entry.dtype.bitsize() / 8;
        let pieces = parallel::map(values.chunks_mut(CHUNK), |chunk, piece| {
            let start = entry.start + (chunk * CHUNK * size) as u64;
            if entry.dtype == Dtype::F32 && cfg!(target_endian = "little") {
                entry.read_at(start, piece.as_mut_bytes(), key)?;
            } else {
                let mut bytes = vec![0; piece.len() * size];
                entry.read_at(start, &mut bytes, key)?;
                to_f32(&bytes, entry.dtype, piece);
            }
            let finite = piece.iter().fold(true, |finite, value| finite & value.is_finite());
            match piece.iter().position(|value| !value.is_finite()).filter(|_| !finite) {
                None => Ok(()),
                Some(at) => Err(NnError::NotFinite {
                    path: entry.input.path().to_owned(),
                    key: printable(&entry.name),
                    index: chunk * CHUNK + at,
                    value: f64::from(piece[at]),
                }),
            }
        });
        pieces.into_iter().collect()
    }
}

/// Converts little-endian bytes of a type that [`Weights::expect`] lets through.
fn to_f32(bytes: &[u8], dtype: Dtype, values: &mut [f32]) {
    fn each<const N: usize>(bytes: &[u8], values: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
        for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *value = convert(*bytes);
        }
    }
    match dtype {
        Dtype::F64 => each(bytes, values, |bytes| f64::from_le_bytes(bytes) as f32),
        Dtype::BF16 => each(bytes, values, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        Dtype::F16 => {
            let halves: Vec<f16> =
                bytes.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect();
            halves.convert_to_f32_slice(values);
        }
        _ => each(bytes, values, f32::from_le_bytes),
    }
}

fn in_two_files(index: &Path, key: &str, first: &Entry, second: &Entry) -> NnError {
    let [first, second] = [first, second]
        .map(|entry| entry.input.path().file_name().unwrap_or_default().to_string_lossy().into_owned());
    unusable(index, format!("{} is in two files, {first} and {second}; download all again", printable(key)))
}

/// Opens the files that an index lists; each key comes from the file that the index names.
fn open_shards(source: &Source, index: &Path) -> Result<Vec<Entry>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = source.text(WEIGHTS_INDEX_FILE, MAX_INDEX)?;
    let Index { weight_map } =
        serde_json::from_str(&text).map_err(|source| NnError::Json { path: index.to_owned(), source })?;
    let files: BTreeSet<&String> = weight_map.values().collect();
    if files.is_empty() {
        return Err(unusable(index, "weight_map is empty; download the index again"));
    }
    if let Some(file) = files.iter().find(|file| !read::is_plain_name(file)) {
        let why =
            format!("it names {:?}; the files of an index are beside it, under plain names", printable(file));
        return Err(unusable(index, why));
    }
    let lacking: Vec<String> =
        files.iter().filter(|file| !source.has(file)).map(|file| (*file).clone()).collect();
    if !lacking.is_empty() {
        let (count, all, verb) = (lacking.len(), files.len(), if lacking.len() == 1 { "is" } else { "are" });
        let why =
            format!("{count} of {all} shards {verb} missing: {}; download all of them", listed(&lacking));
        return Err(unusable(index, why));
    }
    let mut tensors = Vec::new();
    for file in files {
        open_file(source.open(file)?, &mut tensors)?;
    }
    let mut by_name: BTreeMap<&str, &Entry> = BTreeMap::new();
    for entry in &tensors {
        if let Some(first) = by_name.insert(&entry.name, entry) {
            return Err(in_two_files(index, &entry.name, first, entry));
        }
    }
    for (key, file) in &weight_map {
        let found = by_name.get(key.as_str()).filter(|entry| entry.input.path().ends_with(file));
        if found.is_none() {
            let (key, file) = (printable(key), printable(file));
            let why =
                format!("it says that {key} is in {file}, which has no such tensor; download all again");
            return Err(unusable(index, why));
        }
    }
    Ok(tensors)
}

/// Reads the header of a safetensors file: its length (u64), then JSON; the tensors fill the rest.
fn open_file(input: Input, tensors: &mut Vec<Entry>) -> Result<()> {
    let (path, len) = (input.path(), input.size());
    let io = |source| NnError::Io { path: path.to_owned(), source };
    let damaged = |source| NnError::Safetensors { path: path.to_owned(), len, source };
    let mut start = vec![0; len.min(64) as usize];
    input.read_at(0, &mut start).map_err(io)?;
    refuse_lfs_pointer(path, &start)?;
    let length = start.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    // Text in the place of the length is a huge number; a length that could be one is no text.
    if let Some(what) = another_format(&start).filter(|_| length.is_none_or(|length| length > MAX_HEADER)) {
        return Err(unusable(path, what));
    }
    let Some(length) = length else { return Err(damaged(SafeTensorError::HeaderTooSmall)) };
    let Some(data) = length.checked_add(8).filter(|&end| end <= len) else {
        return Err(damaged(SafeTensorError::InvalidHeaderLength));
    };
    if length > MAX_HEADER {
        let why = format!("its header takes {length} bytes; at most {} MiB are read", MAX_HEADER >> 20);
        return Err(unusable(path, why));
    }
    let mut header = vec![0; length as usize];
    input.read_at(8, &mut header).map_err(io)?;
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|source| damaged(SafeTensorError::InvalidHeaderDeserialization(source)))?;
    if data.checked_add(header.data_len() as u64) != Some(len) {
        return Err(damaged(SafeTensorError::MetadataIncompleteBuffer));
    }
    let input = Arc::new(input);
    tensors.extend(header.tensors().into_iter().map(|(name, info)| Entry {
        name,
        input: input.clone(),
        start: data + info.data_offsets.0 as u64,
        dtype: info.dtype,
        dims: info.shape.clone(),
        used: false,
    }));
    Ok(())
}

/// What a file is that begins like no safetensors file.
fn another_format(start: &[u8]) -> Option<&'static str> {
    let json = "this is JSON, not weights: the answer of a server whose download failed";
    let pickle = "this is a PyTorch pickle under the name of a safetensors file; load it with torch and save it with \
                  safetensors.torch.save_file";
    let trimmed = start.trim_ascii_start();
    match trimmed {
        [b'<', b'!' | b'h' | b'H' | b'?', ..] => Some(WEB_PAGE),
        [b'{', b'"', ..] => Some(json),
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => Some(pickle),
        [b'G', b'G', b'U', b'F', ..] => Some("this is a GGUF file under the name of a safetensors file"),
        [0x89, b'H', b'D', b'F', ..] => Some("this is an HDF5 file under the name of a safetensors file"),
        _ => None,
    }
}
