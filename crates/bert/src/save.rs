//! Writing a model folder that `AutoModelForSequenceClassification.from_pretrained` and `AutoTokenizer.from_pretrained` load as
//! it is.

use crate::{CONFIG_FILE, Result, StagedFiles, WEIGHTS_FILE};
use std::borrow::Cow;
use vitrine_nn::{ParameterStore, SavedWeights};
use vitrine_tensor::DType;

/// Writes config, weights and tokenizer files.
pub(crate) fn save(
    files: &mut StagedFiles,
    (config, dtype): (&str, DType),
    parameters: &ParameterStore,
    tokenizer_files: Vec<(&'static str, Cow<'_, str>)>,
) -> Result<()> {
    files.write_text(CONFIG_FILE, config)?;
    for (name, text) in tokenizer_files {
        files.write_text(name, &text)?;
    }
    let weights = SavedWeights::new(parameters, dtype)?.fetched()?;
    files.write(WEIGHTS_FILE, |file| weights.write(file))
}

/// Takes the room that [`save`] of the same values will need.
pub(crate) fn reserve(
    files: &mut StagedFiles,
    (config, dtype): (&str, DType),
    parameters: &ParameterStore,
    tokenizer_files: Vec<(&'static str, Cow<'_, str>)>,
) -> Result<()> {
    files.reserve(CONFIG_FILE, config.len() as u64)?;
    for (name, text) in tokenizer_files {
        files.reserve(name, text.len() as u64)?;
    }
    files.reserve(WEIGHTS_FILE, SavedWeights::new(parameters, dtype)?.size())
}
