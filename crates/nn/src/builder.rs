//! [`Builder`]: parameters from a checkpoint, or anew from a seed. A model's layers are built once, by the same code, for
//! both, and before any parameter has its memory: sizes that do not fit the checkpoint cost nothing.

use crate::{KeyReport, Parameter, ParameterStore, Part, Precision, Result, Weights};
use vitrine_autograd::ParameterId;
use vitrine_tensor::{DType, Device, Tensor, random};

/// What a new parameter starts with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// N(0, std^2), with the builder's standard deviation.
    Normal,
    /// U(-bound, bound).
    Uniform(f64),
    /// This number everywhere.
    Constant(f32),
}

impl Init {
    /// Fills a part of a parameter: a function of the seed and the part's key.
    pub(crate) fn fill(self, key: &str, values: &mut [f32], seed: u64, std: f64) {
        let draws = match self {
            Init::Normal => random::normal(values.len(), std, seed, stream(key)),
            Init::Uniform(bound) => random::uniform(values.len(), bound, seed, stream(key)),
            Init::Constant(value) => return values.fill(value),
        };
        values.copy_from_slice(&draws);
    }
}

/// A parameter that has its number and no memory yet.
struct Planned {
    id: ParameterId,
    /// A key for each part, and whether the checkpoint has it.
    parts: Vec<(String, bool)>,
    /// The shape of a part; parts lie one below the other.
    dims: Vec<usize>,
    init: Init,
    precision: Precision,
}

/// Collects the parameters of a model under construction.
pub struct Builder {
    weights: Option<Weights>,
    seed: u64,
    std: f64,
    may_be_new: bool,
    store: ParameterStore,
    planned: Vec<Planned>,
}

impl Builder {
    /// New parameters only: a function of the seed and each parameter's key. `std` is the standard deviation of
    /// [`Init::Normal`].
    pub fn random(seed: u64, std: f64) -> Self {
        let (store, planned) = (ParameterStore::default(), Vec::new());
        Builder { weights: None, seed, std, may_be_new: false, store, planned }
    }

    /// Parameters of a checkpoint; those that [may be new](Builder::may_be_new) start as `random` would start them.
    pub fn from_weights(weights: Weights, seed: u64, std: f64) -> Self {
        Builder { weights: Some(weights), ..Builder::random(seed, std) }
    }

    /// Whether all parameters are new, or the checkpoint lacks this key.
    pub fn lacks(&self, key: &str) -> bool {
        self.weights.as_ref().is_none_or(|weights| !weights.contains(key))
    }

    /// Whether parameters from here on may be missing in a checkpoint, as those of a head that is about to be trained. At first
    /// none may.
    pub fn may_be_new(&mut self, may_be_new: bool) {
        self.may_be_new = may_be_new;
    }

    /// A parameter of `keys.len()` parts of shape `dims` each, one below the other.
    ///
    /// # Errors
    /// `WeightDType` for a checkpoint whose tensor is of no weight's type.
    pub fn parameter<S: AsRef<str>>(
        &mut self,
        keys: &[S],
        dims: &[usize],
        init: Init,
        precision: Precision,
    ) -> Result<ParameterId> {
        let mut parts = Vec::with_capacity(keys.len());
        for key in keys {
            let key = key.as_ref();
            let stored = match &mut self.weights {
                Some(weights) => weights.expect(key, dims, self.may_be_new)?,
                None => false,
            };
            parts.push((key.to_owned(), stored));
        }
        // `finish` puts the parameter in the place of this empty one.
        let empty = Tensor::empty(&[0], DType::F32, Device::Cpu)?;
        let id = self.store.add(Parameter::new(Vec::new(), empty, false, precision)?);
        self.planned.push(Planned { id, parts, dims: dims.to_vec(), init, precision });
        Ok(id)
    }

    fn make(&self, planned: &Planned) -> Result<Parameter> {
        let Planned { parts, dims, init, precision, .. } = planned;
        let mut whole = dims.clone();
        whole[0] *= parts.len();
        let mut value = Tensor::empty(&whole, DType::F32, Device::Cpu)?;
        let numel: usize = dims.iter().product();
        for ((key, stored), values) in parts.iter().zip(value.as_mut_slice::<f32>()?.chunks_mut(numel)) {
            match &self.weights {
                Some(weights) if *stored => weights.read(key, values)?,
                _ => init.fill(key, values, self.seed, self.std),
            }
        }
        let parts = parts.iter().map(|(key, _)| Part { key: key.clone(), rows: dims[0] }).collect();
        // Biases and LayerNorm parameters are vectors, and they alone do not decay.
        Ok(Parameter { init: *init, ..Parameter::new(parts, value, dims.len() > 1, *precision)? })
    }

    /// How the parameters fit the checkpoint.
    ///
    /// # Errors
    /// `Weights` when keys are missing or mis-shaped.
    pub fn report(&self) -> Result<KeyReport> {
        self.weights.as_ref().map_or_else(|| Ok(KeyReport::default()), Weights::report)
    }

    /// The parameters, and how they fit the checkpoint.
    ///
    /// # Errors
    /// `Weights` when keys are missing or mis-shaped, before anything is allocated; those of reading.
    pub fn finish(mut self) -> Result<(ParameterStore, KeyReport)> {
        let report = self.report()?;
        for planned in std::mem::take(&mut self.planned) {
            *self.store.get_mut(planned.id) = self.make(&planned)?;
        }
        Ok((self.store, report))
    }
}

/// The Philox stream of a new parameter: 32-bit FNV-1a of its key, so that no other parameter's existence matters.
fn stream(key: &str) -> u32 {
    key.bytes().fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
