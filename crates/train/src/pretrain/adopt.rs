//! [`adopt`]: a start from another model's weights, as far as they fit.

use crate::Result;
use std::collections::HashMap;
use vitrine_bert::{AnyModel, MaskedLm, Tokenizer};
use vitrine_tensor::{DType, Tensor};

/// What became of one tensor of the new model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Its key.
    pub key: String,
    /// Its rows (elements, for a vector).
    pub rows: usize,
    /// Rows whose values are the other model's; the others are new.
    pub taken: usize,
    /// Why not all of them, if so.
    pub why: Option<&'static str>,
}

/// Copies into `model` what it has in common with `source`: tensors of the same key and shape; of a vocabulary's tensors (word embeddings and
/// the output's bias) the rows of the tokens that both tokenizers have, by the token's text. The rest stays as it is. All tensors of
/// `model` are returned, in their order. With `layers`, layer `i` of `model` is compared with layer `layers[i]` of `source`, and layers
/// beyond these are new.
///
/// # Errors
/// Tensor errors.
pub fn adopt(
    model: &mut MaskedLm,
    tokenizer: &Tokenizer,
    source: &AnyModel,
    source_tokenizer: &Tokenizer,
    layers: Option<&[usize]>,
) -> Result<Vec<Adopted>> {
    let size = model.config().vocab_size;
    // Rows (in the new vocabulary, in the other one) of the same token.
    let same_text = |id: u32| Some((id as usize, source_tokenizer.id(&tokenizer.token(id)?)? as usize));
    let shared: Vec<(usize, usize)> = (0..size as u32).filter_map(same_text).collect();
    let theirs: HashMap<String, Tensor> =
        source.parameters().parts()?.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let their_size = source.config().vocab_size;
    let mut adopted = Vec::new();
    for (_, parameter) in model.parameters_mut().iter_mut() {
        let mut first = 0;
        let width: usize = parameter.value.dims().get(1..).unwrap_or_default().iter().product();
        for part in &parameter.parts {
            let range = first * width..(first + part.rows) * width;
            first += part.rows;
            let dims = [&[part.rows], parameter.value.dims().get(1..).unwrap_or_default()].concat();
            let mut found = Adopted { key: part.key.clone(), rows: part.rows, taken: 0, why: None };
            match key_in_source(&part.key, layers).and_then(|key| theirs.get(&key)) {
                None => found.why = Some("the other model has none"),
                Some(value) if value.dims().get(1..) != dims.get(1..) => {
                    found.why = Some("it has another width there");
                }
                // Both are tables over a vocabulary.
                Some(value) if part.rows == size && value.dims()[0] == their_size => {
                    let value = value.to_dtype(DType::F32)?.to_vec::<f32>()?;
                    let mine = &mut parameter.value.as_mut_slice::<f32>()?[range];
                    for &(row, their_row) in shared.iter().filter(|(_, their_row)| *their_row < their_size) {
                        mine[row * width..][..width].copy_from_slice(&value[their_row * width..][..width]);
                        found.taken += 1;
                    }
                    found.why = (found.taken < part.rows).then_some("new tokens");
                }
                // Positions count from the first one, whatever their number.
                Some(value) if part.key.ends_with("position_embeddings.weight") => {
                    found.taken = part.rows.min(value.dims()[0]);
                    let value = value.to_dtype(DType::F32)?.to_vec::<f32>()?;
                    let taken = found.taken * width;
                    parameter.value.as_mut_slice::<f32>()?[range][..taken].copy_from_slice(&value[..taken]);
                    found.why = (found.taken < part.rows).then_some("new positions");
                }
                Some(value) if value.dims()[0] != part.rows => {
                    found.why = Some("it has another number of rows there");
                }
                Some(value) => {
                    let value = value.to_dtype(DType::F32)?.to_vec::<f32>()?;
                    parameter.value.as_mut_slice::<f32>()?[range].copy_from_slice(&value);
                    found.taken = part.rows;
                }
            }
            adopted.push(found);
        }
    }
    Ok(adopted)
}

/// The key of the other model's tensor for one of the new model's: another layer's, if so chosen; none for a layer beyond the chosen ones.
fn key_in_source(key: &str, layers: Option<&[usize]>) -> Option<String> {
    let Some(layers) = layers else { return Some(key.to_owned()) };
    let parts = key.split('.').map(|part| match part.parse::<usize>() {
        Ok(layer) => layers.get(layer).map(ToString::to_string),
        Err(_) => Some(part.to_owned()),
    });
    Some(parts.collect::<Option<Vec<_>>>()?.join("."))
}
