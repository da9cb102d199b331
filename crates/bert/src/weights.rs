//! [`Weights`]: the tensors of a checkpoint, mapped into memory and found under the names of `BertForSequenceClassification`
//! and `BertForMaskedLM` in `transformers`, whatever variant of those names the file uses.

use crate::{BertError, Result};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vitrine_tensor::cpu::parallel;
use vitrine_tensor::{DType, Tensor};

/// The weights of a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Which file holds which key, when the weights are cut into several.
pub const WEIGHTS_INDEX_FILE: &str = "model.safetensors.index.json";

/// Elements checked by one piece of parallel work.
const CHUNK: usize = 1 << 16;

/// The bytes of a safetensors file.
#[derive(Clone)]
enum Bytes {
    Mapped(Arc<Mmap>),
    Static(&'static [u8]),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

/// One tensor of a file.
struct Entry {
    /// The name in the file.
    name: String,
    path: PathBuf,
    bytes: Bytes,
    range: Range<usize>,
    dtype: Dtype,
    dims: Vec<usize>,
}

/// The tensors of one checkpoint by canonical key; loading a model takes them out one by one.
pub struct Weights {
    /// The file, for messages.
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    /// Names in the file that mean a key which another name gives already.
    duplicates: Vec<String>,
    report: KeyReport,
}

/// What fits and what does not between a checkpoint and a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyReport {
    /// Keys that the model needs and the file lacks, with the most similar name among the unexpected ones.
    pub missing: Vec<(String, Option<String>)>,
    /// Keys with another shape: key, the model's shape, the file's.
    pub misshaped: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Names in the file that the model has no use for.
    pub unexpected: Vec<String>,
    /// Keys that the file lacks and that start anew: a head that is about to be trained.
    pub new: Vec<String>,
}

impl fmt::Display for KeyReport {
    /// A line per key: what is wrong, the key, and the detail.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for (key, hint) in &self.missing {
            let hint = hint.as_ref().map(|name| format!("  (is it {name}?)")).unwrap_or_default();
            lines.push(format!("  missing     {key}{hint}"));
        }
        for (key, expected, got) in &self.misshaped {
            lines.push(format!("  mis-shaped  {key}: the config says {expected:?}, the file has {got:?}"));
        }
        lines.extend(self.unexpected.iter().map(|name| format!("  unexpected  {name}")));
        lines.extend(self.new.iter().map(|key| format!("  new         {key}")));
        f.write_str(&lines.join("\n"))
    }
}

impl Weights {
    /// Maps the weights of a model folder: `model.safetensors`, or the files that `model.safetensors.index.json` lists.
    ///
    /// Only headers are read; tensors are checked when they are taken.
    ///
    /// # Errors
    /// `NoWeights`, `Io`, `Json`, `Safetensors`.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(WEIGHTS_FILE);
        let index = folder.join(WEIGHTS_INDEX_FILE);
        if path.exists() {
            let mut weights = Weights::empty(path.clone());
            weights.add(&map(&path)?, &path)?;
            return Ok(weights);
        }
        if !index.exists() {
            let hint = if folder.join("pytorch_model.bin").exists() {
                "; pytorch_model.bin is a Python pickle: load it with transformers and save_pretrained(..., safe_serialization=True)"
            } else {
                ""
            };
            return Err(BertError::NoWeights { folder: folder.to_owned(), hint });
        }
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = std::fs::read_to_string(&index)
            .map_err(|source| BertError::Io { path: index.clone(), source })?;
        let Index { weight_map } =
            serde_json::from_str(&text).map_err(|source| BertError::Json { path: index.clone(), source })?;
        let mut files: Vec<&String> = weight_map.values().collect();
        files.sort_unstable();
        files.dedup();
        let mut weights = Weights::empty(index);
        for file in files {
            let path = folder.join(file);
            weights.add(&map(&path)?, &path)?;
        }
        Ok(weights)
    }

    /// The weights in a safetensors file that is part of the executable; `origin` is named in errors.
    ///
    /// # Errors
    /// `Safetensors`.
    pub fn from_static(bytes: &'static [u8], origin: &Path) -> Result<Self> {
        let mut weights = Weights::empty(origin.to_owned());
        weights.add(&Bytes::Static(bytes), origin)?;
        Ok(weights)
    }

    fn empty(path: PathBuf) -> Self {
        Weights { path, entries: BTreeMap::new(), duplicates: Vec::new(), report: KeyReport::default() }
    }

    fn add(&mut self, bytes: &Bytes, path: &Path) -> Result<()> {
        let len = bytes.as_slice().len();
        let (header, metadata) = SafeTensors::read_metadata(bytes.as_slice())
            .map_err(|source| BertError::Safetensors { path: path.to_owned(), len: len as u64, source })?;
        let data = header + size_of::<u64>();
        let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
        // Exact names first, so that a file with two names for a key always resolves the same way.
        tensors.sort_by_cached_key(|(name, _)| {
            (canonical(name).as_deref() != Some(name.as_str()), name.clone())
        });
        for (name, info) in tensors {
            let Some(key) = canonical(&name) else { continue };
            if self.entries.contains_key(&key) {
                // The one key that healthy files hold twice: tied parameters are written under both names.
                if !name.ends_with("cls.predictions.decoder.bias") {
                    self.duplicates.push(name);
                }
                continue;
            }
            let (start, end) = info.data_offsets;
            let entry = Entry {
                name,
                path: path.to_owned(),
                bytes: bytes.clone(),
                range: data + start..data + end,
                dtype: info.dtype,
                dims: info.shape.clone(),
            };
            self.entries.insert(key, entry);
        }
        Ok(())
    }

    /// Whether the checkpoint has this key, under any of its names.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The shape of a key's tensor.
    pub fn dims(&self, key: &str) -> Option<&[usize]> {
        self.entries.get(key).map(|entry| entry.dims.as_slice())
    }

    /// Takes a tensor out, in F32: still in the file if it is stored so, else converted. `None` if it is missing or has
    /// another shape, which the report remembers; a missing one is no fault if it `may_be_new`.
    ///
    /// # Errors
    /// `WeightDType`; `NotFinite` for NaN or infinity.
    pub fn take(&mut self, key: &str, dims: &[usize], may_be_new: bool) -> Result<Option<Tensor>> {
        let Some(entry) = self.entries.remove(key) else {
            if may_be_new {
                self.report.new.push(key.into());
            } else {
                self.report.missing.push((key.into(), None));
            }
            return Ok(None);
        };
        if entry.dims != dims {
            self.report.misshaped.push((key.into(), dims.to_vec(), entry.dims));
            return Ok(None);
        }
        let dtype = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                let dtype = other.to_string();
                return Err(BertError::WeightDType { path: entry.path, key: entry.name, dtype });
            }
        };
        let stored = match &entry.bytes {
            Bytes::Mapped(map) => Tensor::from_mapped(map.clone(), entry.range, dims, dtype)?,
            Bytes::Static(bytes) => Tensor::from_static(&bytes[entry.range], dims, dtype)?,
        };
        let tensor = stored.to_dtype(DType::F32)?;
        let values = tensor.as_slice::<f32>()?;
        let first_bad = parallel::map(values.chunks(CHUNK), |_, piece| {
            let finite = piece.iter().fold(true, |finite, value| finite & value.is_finite());
            if finite { None } else { piece.iter().position(|value| !value.is_finite()) }
        });
        if let Some((chunk, index)) = first_bad.iter().enumerate().find_map(|(chunk, i)| Some((chunk, (*i)?)))
        {
            let index = chunk * CHUNK + index;
            let value = f64::from(values[index]);
            return Err(BertError::NotFinite { path: entry.path, key: entry.name, index, value });
        }
        Ok(Some(tensor))
    }

    /// Says what was missing, new, mis-shaped, and never taken.
    ///
    /// # Errors
    /// `Weights` with the whole report when a key is missing or mis-shaped.
    pub fn finish(self) -> Result<KeyReport> {
        let mut report = self.report;
        report.unexpected =
            self.entries.into_values().map(|entry| entry.name).chain(self.duplicates).collect();
        report.unexpected.sort_unstable();
        for (key, hint) in &mut report.missing {
            let distances = report.unexpected.iter().map(|name| (edit_distance(key, name), name));
            *hint = distances
                .min()
                .filter(|(distance, _)| *distance <= key.len() / 4)
                .map(|(_, name)| name.clone());
        }
        if report.missing.is_empty() && report.misshaped.is_empty() {
            return Ok(report);
        }
        Err(BertError::Weights { path: self.path, report })
    }
}

fn map(path: &Path) -> Result<Bytes> {
    let io = |source| BertError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is read-only. Another process that shortens the file under it would end this one with a signal;
    // this program itself replaces files only by renaming (`StagedFiles`), which leaves mapped ones alone.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    Ok(Bytes::Mapped(Arc::new(map)))
}

/// The key that a name in a file means; `None` for what is no weight.
///
/// | in the file | means |
/// |---|---|
/// | `module.`, `model.` in front | nothing: wrappers of training frameworks |
/// | `embeddings.`, `encoder.`, `pooler.` in front | `bert.` before them: a `BertModel` saved by itself |
/// | `LayerNorm.gamma`, `LayerNorm.beta` | `LayerNorm.weight`, `LayerNorm.bias`: TensorFlow's names |
/// | `cls.predictions.decoder.bias` | `cls.predictions.bias`, which it is tied to |
/// | `cls.predictions.decoder.weight` | nothing: tied to the word embeddings |
/// | `position_ids`, `token_type_ids` at the end | nothing: counters that old versions saved |
fn canonical(name: &str) -> Option<String> {
    let mut key = name.strip_prefix("module.").unwrap_or(name);
    key = key.strip_prefix("model.").unwrap_or(key);
    let last = key.rsplit('.').next().unwrap_or(key);
    if matches!(last, "position_ids" | "token_type_ids") || key == "cls.predictions.decoder.weight" {
        return None;
    }
    if key == "cls.predictions.decoder.bias" {
        return Some("cls.predictions.bias".into());
    }
    let bare = ["embeddings.", "encoder.", "pooler."].iter().any(|part| key.starts_with(part));
    let key = if bare { format!("bert.{key}") } else { key.to_owned() };
    for (old, new) in [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")] {
        if let Some(parent) =
            key.strip_suffix(old).filter(|parent| parent.is_empty() || parent.ends_with('.'))
        {
            return Some(format!("{parent}{new}"));
        }
    }
    Some(key)
}

/// Levenshtein's distance, in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
