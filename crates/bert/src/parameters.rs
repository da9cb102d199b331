//! [`Builder`]: parameters from a checkpoint, or anew from a seed. The model's structs are built once, by the same code, for
//! both, and before any parameter has its memory: sizes that do not fit the checkpoint cost nothing.

use crate::{KeyReport, Result, Weights};
use vitrine_autograd::{Parameter, ParameterId, ParameterStore, Part};
use vitrine_tensor::{DType, Device, Tensor, random};

/// What a new parameter starts with.
#[derive(Clone, Copy)]
enum Init {
    /// N(0, `initializer_range`^2).
    Normal,
    Constant(f32),
}

/// `y = x W^T + b`: `torch.nn.Linear`. Several outputs of one input are one parameter with several parts.
pub(crate) struct Linear {
    pub weight: ParameterId,
    pub bias: ParameterId,
}

/// Scale and shift of `torch.nn.LayerNorm`, and its eps.
pub(crate) struct LayerNorm {
    pub weight: ParameterId,
    pub bias: ParameterId,
    pub eps: f64,
}

/// A parameter that has its number and no memory yet.
struct Planned {
    id: ParameterId,
    /// A key for each part, and whether the checkpoint has it.
    parts: Vec<(String, bool)>,
    /// The shape of a part; parts lie one below the other.
    dims: Vec<usize>,
    init: Init,
}

/// Collects the parameters of a model under construction.
pub(crate) struct Builder {
    weights: Option<Weights>,
    seed: u64,
    std: f64,
    store: ParameterStore,
    planned: Vec<Planned>,
}

impl Builder {
    /// New parameters only: a function of the seed and each parameter's key.
    pub fn random(seed: u64, initializer_range: f64) -> Self {
        Builder {
            weights: None,
            seed,
            std: initializer_range,
            store: ParameterStore::default(),
            planned: Vec::new(),
        }
    }

    /// Parameters of a checkpoint; a head that is allowed to be new starts as `random` would start it.
    pub fn from_weights(weights: Weights, seed: u64, initializer_range: f64) -> Self {
        Builder { weights: Some(weights), ..Builder::random(seed, initializer_range) }
    }

    /// Whether all parameters are new, or the checkpoint lacks this key.
    pub fn lacks(&self, key: &str) -> bool {
        self.weights.as_ref().is_none_or(|weights| !weights.contains(key))
    }

    /// A table `[rows, width]`.
    pub fn embedding(&mut self, key: &str, rows: usize, width: usize) -> Result<ParameterId> {
        self.parameter(&[key], &[rows, width], Init::Normal, false)
    }

    /// `names[i].weight: [rows, width]` and `names[i].bias: [rows]`, one below the other.
    pub fn linear(&mut self, names: &[&str], rows: usize, width: usize, may_be_new: bool) -> Result<Linear> {
        let keys = |suffix: &str| names.iter().map(|name| format!("{name}.{suffix}")).collect::<Vec<_>>();
        Ok(Linear {
            weight: self.parameter(&keys("weight"), &[rows, width], Init::Normal, may_be_new)?,
            bias: self.parameter(&keys("bias"), &[rows], Init::Constant(0.0), may_be_new)?,
        })
    }

    /// `name.weight` and `name.bias`, both `[width]`.
    pub fn layer_norm(&mut self, name: &str, width: usize, eps: f64) -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: self.parameter(&[format!("{name}.weight")], &[width], Init::Constant(1.0), false)?,
            bias: self.parameter(&[format!("{name}.bias")], &[width], Init::Constant(0.0), false)?,
            eps,
        })
    }

    /// A vector `[rows]` of its own, zero when new.
    pub fn bias(&mut self, key: &str, rows: usize) -> Result<ParameterId> {
        self.parameter(&[key], &[rows], Init::Constant(0.0), false)
    }

    fn parameter<S: AsRef<str>>(
        &mut self,
        keys: &[S],
        dims: &[usize],
        init: Init,
        may_be_new: bool,
    ) -> Result<ParameterId> {
        let mut parts = Vec::with_capacity(keys.len());
        for key in keys {
            let key = key.as_ref();
            let stored = match &mut self.weights {
                Some(weights) => weights.expect(key, dims, may_be_new)?,
                None => false,
            };
            parts.push((key.to_owned(), stored));
        }
        // `finish` puts the parameter in the place of this empty one.
        let empty = Tensor::empty(&[0], DType::F32, Device::Cpu)?;
        let id = self.store.add(Parameter::new(Vec::new(), empty, false)?);
        self.planned.push(Planned { id, parts, dims: dims.to_vec(), init });
        Ok(id)
    }

    fn make(&self, planned: &Planned) -> Result<Parameter> {
        let Planned { parts, dims, init, .. } = planned;
        let mut whole = dims.clone();
        whole[0] *= parts.len();
        let mut value = Tensor::empty(&whole, DType::F32, Device::Cpu)?;
        let numel: usize = dims.iter().product();
        for ((key, stored), values) in parts.iter().zip(value.as_mut_slice::<f32>()?.chunks_mut(numel)) {
            match (&self.weights, init) {
                (Some(weights), _) if *stored => weights.read(key, values)?,
                (_, Init::Normal) => {
                    values.copy_from_slice(&random::normal(numel, self.std, self.seed, stream(key)));
                }
                (_, Init::Constant(value)) => values.fill(*value),
            }
        }
        let parts = parts.iter().map(|(key, _)| Part { key: key.clone(), rows: dims[0] }).collect();
        // Biases and LayerNorm parameters are vectors, and they alone do not decay.
        Ok(Parameter::new(parts, value, dims.len() > 1)?)
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
