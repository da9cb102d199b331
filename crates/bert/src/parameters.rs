//! [`Builder`]: parameters from a checkpoint, or anew from a seed. The model's structs are built once, by the same code, for
//! both.

use crate::{KeyReport, Result, Weights};
use vitrine_autograd::{Parameter, ParameterId, ParameterStore, Part};
use vitrine_tensor::ops::movement::cat;
use vitrine_tensor::{Tensor, random};

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

/// Collects the parameters of a model under construction.
pub(crate) struct Builder {
    weights: Option<Weights>,
    seed: u64,
    std: f64,
    store: ParameterStore,
    report: KeyReport,
}

impl Builder {
    /// New parameters only: a function of the seed and each parameter's key.
    pub fn random(seed: u64, initializer_range: f64) -> Self {
        Builder {
            weights: None,
            seed,
            std: initializer_range,
            store: ParameterStore::default(),
            report: KeyReport::default(),
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
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let key = key.as_ref();
            let stored = match &mut self.weights {
                Some(weights) => weights.take(key, dims, may_be_new)?,
                None => None,
            };
            values.push(match stored {
                Some(tensor) => tensor,
                None => self.fresh(key, dims, init)?,
            });
        }
        let value = match <[Tensor; 1]>::try_from(values) {
            Ok([only]) => only,
            Err(values) => cat(&values.iter().collect::<Vec<_>>(), 0)?,
        };
        let parts = keys.iter().map(|key| Part { key: key.as_ref().into(), rows: dims[0] }).collect();
        // Biases and LayerNorm parameters are vectors, and they alone do not decay.
        Ok(self.store.add(Parameter::new(parts, value, dims.len() > 1)?))
    }

    fn fresh(&self, key: &str, dims: &[usize], init: Init) -> Result<Tensor> {
        let numel = dims.iter().product();
        let values = match init {
            Init::Normal => random::normal(numel, self.std, self.seed, stream(key)),
            Init::Constant(value) => vec![value; numel],
        };
        Ok(Tensor::from_slice(&values, dims)?)
    }

    /// The parameters, and how they fit the checkpoint.
    ///
    /// # Errors
    /// `Weights` when keys are missing or mis-shaped.
    pub fn finish(self) -> Result<(ParameterStore, KeyReport)> {
        let report = match self.weights {
            Some(weights) => weights.finish()?,
            None => self.report,
        };
        Ok((self.store, report))
    }
}

/// The Philox stream of a new parameter: 32-bit FNV-1a of its key, so that no other parameter's existence matters.
fn stream(key: &str) -> u32 {
    key.bytes().fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
