//! LoRA (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685): beside a frozen matrix `W: [N, K]`
//! two small ones are trained, `A: [r, K]` and `B: [N, r]`, and a linear layer computes `x W^T + (alpha / r) (x A^T) B^T`.
//! Names, initialisation and scale are those of `peft` (`peft/tuners/lora/layer.py`): A from U(-1 / sqrt K, 1 / sqrt K), B zero.

use crate::{Init, NnError, Parameter, ParameterStore, Part, Pass, Result};
use vitrine_autograd::{ParameterId, Var};
use vitrine_tensor::ops::elementwise::{add, scale};
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::ops::matmul::matmul;
use vitrine_tensor::ops::movement::cat;
use vitrine_tensor::{DType, Device, Tensor};

/// What `peft` writes before the name of a module.
pub const ADAPTER_PREFIX: &str = "base_model.model.";

/// A low-rank addition to one part of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adapter {
    /// The part, by its place.
    pub part: usize,
    /// `A: [r, K]`.
    pub a: ParameterId,
    /// `B: [N, r]`, N being the rows of the part.
    pub b: ParameterId,
    /// `alpha / r`.
    pub scale: f64,
}

impl ParameterStore {
    /// Puts an adapter of this rank beside a part of a matrix, and freezes the matrix. The two new parameters follow all others,
    /// with the keys `base_model.model.MODULE.lora_A.weight` and `.lora_B.weight`, the part's key being `MODULE.weight`; A is a
    /// function of the seed and its key.
    ///
    /// # Errors
    /// `Parts` for a parameter that is no matrix, or that has no such part.
    pub fn adapt(&mut self, id: ParameterId, part: usize, rank: usize, scale: f64, seed: u64) -> Result<()> {
        let parameter = self.get(id);
        let (&[_, width], Some(of)) = (parameter.value.dims(), parameter.parts.get(part)) else {
            let rows = parameter.value.dims().first().copied().unwrap_or(1);
            return Err(NnError::Parts { key: parameter.name(), parts: part, rows });
        };
        let (part_rows, precision) = (of.rows, parameter.precision);
        let module = of.key.strip_suffix(".weight").unwrap_or(&of.key);
        let key = |which| format!("{ADAPTER_PREFIX}{module}.{which}.weight");
        let bound = 1.0 / (width as f64).sqrt();
        let new = |key, dims: [usize; 2], init| -> Result<Parameter> {
            let value = Tensor::empty(&dims, DType::F32, Device::Cpu)?;
            let mut new = Parameter::new(vec![Part { key, rows: dims[0] }], value, true, precision)?;
            new.init = init;
            new.reinitialise(seed, 0.0)?;
            Ok(new)
        };
        let a = new(key("lora_A"), [rank, width], Init::Uniform(bound))?;
        let b = new(key("lora_B"), [part_rows, rank], Init::Constant(0.0))?;
        let adapter = Adapter { part, a: self.add(a), b: self.add(b), scale };
        let parameter = self.get_mut(id);
        parameter.trainable = false;
        parameter.adapters.push(adapter);
        Ok(())
    }

    /// Whether a matrix has an adapter.
    pub fn is_adapted(&self) -> bool {
        self.parameters.iter().any(|parameter| !parameter.adapters.is_empty())
    }

    /// Adds `(alpha / r) B A` to the matrices, and removes the adapters: the model then computes the same without them, up to
    /// rounding. Matrices stay frozen.
    ///
    /// # Errors
    /// Errors of the sums.
    pub fn merge_adapters(&mut self) -> Result<()> {
        let adapters = |parameter: &Parameter| parameter.adapters.clone();
        let Some(first) = self.parameters.iter().flat_map(adapters).map(|adapter| adapter.a.index()).min()
        else {
            return Ok(());
        };
        for index in 0..first {
            let parameter = &self.parameters[index];
            if parameter.adapters.is_empty() {
                continue;
            }
            let (dtype, device) = (parameter.value.dtype(), parameter.value.device());
            let width = parameter.value.dims()[1];
            let mut pieces = Vec::with_capacity(parameter.parts.len());
            for (place, part) in parameter.parts.iter().enumerate() {
                let mut piece = Tensor::zeros(&[part.rows, width], dtype, device)?;
                for adapter in parameter.adapters.iter().filter(|adapter| adapter.part == place) {
                    let product = matmul(&self.get(adapter.b).value, &self.get(adapter.a).value)?;
                    piece = add(&piece, &scale(&product, adapter.scale)?)?;
                }
                pieces.push(piece);
            }
            let merged = add(&parameter.value, &cat(&pieces.iter().collect::<Vec<_>>(), 0)?)?;
            let parameter = &mut self.parameters[index];
            if let Some(copy) = &mut parameter.compute {
                *copy = merged.to_dtype(copy.dtype())?;
            }
            parameter.value = merged;
            parameter.adapters.clear();
        }
        self.parameters.truncate(first);
        Ok(())
    }
}

/// What the adapters of a matrix add to `x W^T`: `[T, N]` for `x: [T, K]`; zeros in the columns of parts without one.
pub(crate) fn adapted<'t>(pass: &Pass<'_, 't>, parameter: &Parameter, x: &Var<'t>) -> Result<Var<'t>> {
    let mut pieces = Vec::with_capacity(parameter.parts.len());
    for (place, part) in parameter.parts.iter().enumerate() {
        let mut sum: Option<Var<'t>> = None;
        for adapter in parameter.adapters.iter().filter(|adapter| adapter.part == place) {
            let low = x.linear(&pass.parameter(adapter.a), None, Activation::None)?.scale(adapter.scale)?;
            let piece = low.linear(&pass.parameter(adapter.b), None, Activation::None)?;
            sum = Some(match sum {
                None => piece,
                Some(sum) => sum.add(&piece)?,
            });
        }
        pieces.push((part.rows, sum));
    }
    let like = pieces.iter().find_map(|(_, piece)| piece.clone()).ok_or_else(|| NnError::Parts {
        key: parameter.name(),
        parts: 0,
        rows: 0,
    })?;
    let mut columns = Vec::with_capacity(pieces.len());
    for (rows, piece) in pieces {
        columns.push(match piece {
            Some(piece) => piece,
            None => {
                let (dtype, device) = (like.value().dtype(), like.value().device());
                pass.tape.constant(Tensor::zeros(&[like.dims()[0], rows], dtype, device)?)
            }
        });
    }
    match &columns[..] {
        [one] => Ok(one.clone()),
        [first, others @ ..] => Ok(first.cat(&others.iter().collect::<Vec<_>>(), 1)?),
        [] => Ok(like),
    }
}
