//! Writing a model folder that `AutoModelForSequenceClassification.from_pretrained` and `AutoTokenizer.from_pretrained` load as
//! it is.

use crate::{BertError, CONFIG_FILE, Result, StagedFiles, WEIGHTS_FILE};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use vitrine_autograd::ParameterStore;
use vitrine_tensor::{DType, Device, Tensor};

/// Elements converted to bytes at a time.
const CHUNK: usize = 1 << 16;

/// Writes config, weights and tokenizer files.
pub(crate) fn save(
    files: &mut StagedFiles,
    config: &str,
    parameters: &ParameterStore,
    tokenizer_files: Vec<(&'static str, Cow<'_, str>)>,
) -> Result<()> {
    files.write_text(CONFIG_FILE, config)?;
    for (name, text) in tokenizer_files {
        files.write_text(name, &text)?;
    }
    write_weights(files, parameters)
}

/// Takes the room that [`save`] of the same values will need.
pub(crate) fn reserve(
    files: &mut StagedFiles,
    config: &str,
    parameters: &ParameterStore,
    tokenizer_files: Vec<(&'static str, Cow<'_, str>)>,
) -> Result<()> {
    files.reserve(CONFIG_FILE, config.len() as u64)?;
    for (name, text) in tokenizer_files {
        files.reserve(name, text.len() as u64)?;
    }
    let (header, data) = header(&sorted(parameters.parts()?))?;
    files.reserve(WEIGHTS_FILE, (size_of::<u64>() + header.len() + data) as u64)
}

/// By key.
fn sorted(mut tensors: Vec<(&str, Tensor)>) -> Vec<(&str, Tensor)> {
    tensors.sort_by_key(|&(key, _)| key);
    tensors
}

/// The header of a file with these tensors in F32, and the bytes of the tensors; `{"format": "pt"}` is what `transformers`
/// looks for.
fn header(tensors: &[(&str, Tensor)]) -> Result<(Vec<u8>, usize)> {
    let mut end = 0;
    let infos = tensors.iter().map(|(key, value)| {
        let start = end;
        end += value.numel() * size_of::<f32>();
        let info = TensorInfo { dtype: Dtype::F32, shape: value.dims().to_vec(), data_offsets: (start, end) };
        ((*key).to_owned(), info)
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let path = || WEIGHTS_FILE.into();
    let header = Metadata::new(Some(format), infos.collect()).map_err(|source| BertError::Safetensors {
        path: path(),
        len: 0,
        source,
    })?;
    let mut header =
        serde_json::to_vec(&header).map_err(|source| BertError::Json { path: path(), source })?;
    // Spaces at the end of the JSON keep the tensors aligned, so that a reader can map them.
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');
    Ok((header, end))
}

/// `model.safetensors`: every part of every parameter under its Hugging Face key, in F32.
///
/// The file is a header's length (u64), the header (JSON), then the tensors.
fn write_weights(files: &mut StagedFiles, parameters: &ParameterStore) -> Result<()> {
    let tensors = sorted(parameters.parts()?);
    let (header, _) = header(&tensors)?;
    let mut values = Vec::with_capacity(tensors.len());
    for (_, value) in &tensors {
        values.push(value.to_device(Device::Cpu)?.to_dtype(DType::F32)?);
    }
    let mut slices = Vec::with_capacity(tensors.len());
    for value in &values {
        slices.push(value.as_slice::<f32>()?);
    }
    files.write(WEIGHTS_FILE, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut bytes = Vec::with_capacity(CHUNK * size_of::<f32>());
        for piece in slices.iter().flat_map(|values| values.chunks(CHUNK)) {
            bytes.clear();
            bytes.extend(piece.iter().flat_map(|value| value.to_le_bytes()));
            file.write_all(&bytes)?;
        }
        Ok(())
    })
}
