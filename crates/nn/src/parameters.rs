//! What is trained: [`Parameter`]s under the keys of checkpoints, in a [`ParameterStore`].

use crate::adapters::Adapter;
use crate::{Init, NnError, Result, read};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use std::io::Read;
use std::path::Path;
use vitrine_autograd::{Gradients, Operand, ParameterId};
use vitrine_tensor::{DType, Device, Tensor};

/// A named range of a parameter's rows: what one key of a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The Hugging Face key.
    pub key: String,
    /// How many rows (elements, for a vector).
    pub rows: usize,
}

/// In which dtype a parameter takes part in computations under mixed precision. Layers choose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// The master's, always.
    Full,
    /// The dtype of [`ParameterStore::compute_in`].
    Mixed,
}

/// One trained tensor. Query, key and value of an attention are one parameter with three parts.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The parts, in the order of their rows.
    pub parts: Vec<Part>,
    /// The master: F32, or F64 in the reference.
    pub value: Tensor,
    /// Under mixed precision, the master rounded to the compute dtype; an optimizer refreshes it with each update.
    pub compute: Option<Tensor>,
    /// Whether gradients are computed and updates applied.
    pub trainable: bool,
    /// Whether weight decay applies: not for biases and LayerNorm.
    pub decay: bool,
    /// The learning rate as a multiple of the run's.
    pub lr_factor: f64,
    /// Whether it has a copy under mixed precision.
    pub precision: Precision,
    /// How it starts when it is new.
    pub init: Init,
    /// What is added to the product with it; of matrices of linear layers only.
    pub adapters: Vec<Adapter>,
}

impl Parameter {
    /// A trainable parameter; the rows of `parts` add up to those of `value`.
    ///
    /// # Errors
    /// `Parts` when they do not.
    pub fn new(parts: Vec<Part>, value: Tensor, decay: bool, precision: Precision) -> Result<Self> {
        let rows = value.dims().first().copied().unwrap_or(1);
        let sum = parts.iter().map(|part| part.rows).sum();
        if sum != rows {
            let key = parts.first().map_or_else(String::new, |part| part.key.clone());
            return Err(NnError::Parts { key, parts: sum, rows });
        }
        let (init, adapters) = (Init::Constant(0.0), Vec::new());
        let (compute, trainable, lr_factor) = (None, true, 1.0);
        Ok(Parameter { parts, value, compute, trainable, decay, lr_factor, precision, init, adapters })
    }

    /// Starts anew, in F32 on the CPU: what [`Builder::random`](crate::Builder::random) with this seed and standard deviation
    /// would have made.
    ///
    /// # Errors
    /// Errors of the memory.
    pub fn reinitialise(&mut self, seed: u64, std: f64) -> Result<()> {
        let dims = self.value.dims().to_vec();
        let width: usize = dims[1..].iter().product();
        let mut value = Tensor::empty(&dims, DType::F32, Device::Cpu)?;
        let mut values = value.as_mut_slice::<f32>()?;
        for part in &self.parts {
            let (own, rest) = values.split_at_mut(part.rows * width);
            self.init.fill(&part.key, own, seed, std);
            values = rest;
        }
        self.value = value;
        Ok(())
    }

    /// What a tape computes with: of a matrix its copy in the compute dtype, if there is one. A vector stays as the master
    /// is, and its copy goes beside it: a bias is added to sums in F32 where the device can, else rounded.
    pub fn operand(&self) -> Operand {
        let is_matrix = self.value.rank() > 1;
        let copy = self.compute.clone();
        let (value, rounded) = match copy {
            Some(copy) if is_matrix => (copy, None),
            copy => (self.value.clone(), copy),
        };
        Operand { value, rounded, trainable: self.trainable }
    }

    /// The name for messages: the parts' keys.
    pub fn name(&self) -> String {
        self.parts.iter().map(|part| part.key.as_str()).collect::<Vec<_>>().join(" + ")
    }

    /// A tensor shaped as the value (the value itself, its gradient, an optimizer's state) cut into the parts: (key, view of
    /// rows).
    ///
    /// # Errors
    /// `IndexOutOfRange` for a tensor of another shape.
    pub fn split<'a>(&'a self, tensor: &Tensor) -> Result<Vec<(&'a str, Tensor)>> {
        let mut start = 0;
        let mut views = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            views.push((part.key.as_str(), tensor.narrow(0, start, part.rows)?));
            start += part.rows;
        }
        Ok(views)
    }
}

/// Something with parameters that can be trained.
pub trait Model {
    /// The parameters.
    fn parameters(&self) -> &ParameterStore;

    /// The parameters, to be changed.
    fn parameters_mut(&mut self) -> &mut ParameterStore;
}

/// All parameters of a model. They are updated in place through unique ownership: a tape that still holds one makes
/// [`Tensor::as_mut_slice`] an `internal:` error.
#[derive(Clone, Debug, Default)]
pub struct ParameterStore {
    pub(crate) parameters: Vec<Parameter>,
}

impl ParameterStore {
    /// Adds a parameter.
    pub fn add(&mut self, parameter: Parameter) -> ParameterId {
        self.parameters.push(parameter);
        ParameterId::new(self.parameters.len() - 1)
    }

    /// One parameter.
    ///
    /// # Panics
    /// For the id of another store, if this one has fewer parameters.
    pub fn get(&self, id: ParameterId) -> &Parameter {
        &self.parameters[id.index()]
    }

    /// One parameter, to be changed.
    ///
    /// # Panics
    /// As [`ParameterStore::get`].
    pub fn get_mut(&mut self, id: ParameterId) -> &mut Parameter {
        &mut self.parameters[id.index()]
    }

    /// Every parameter in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ParameterId, &Parameter)> {
        self.parameters.iter().enumerate().map(|(index, parameter)| (ParameterId::new(index), parameter))
    }

    /// Every parameter, to be changed.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (ParameterId, &mut Parameter)> {
        self.parameters.iter_mut().enumerate().map(|(index, parameter)| (ParameterId::new(index), parameter))
    }

    /// Every part: (key, view of the value's rows).
    ///
    /// # Errors
    /// None for parameters made by [`Parameter::new`].
    pub fn parts(&self) -> Result<Vec<(&str, Tensor)>> {
        let mut parts = Vec::new();
        for parameter in &self.parameters {
            parts.extend(parameter.split(&parameter.value)?);
        }
        Ok(parts)
    }

    /// The number of elements of all parameters.
    pub fn numel(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.value.numel()).sum()
    }

    /// Makes tapes compute in `dtype` with the parameters whose [`Precision`] is mixed; BF16 for mixed precision, F32 for
    /// single. Masters stay what they are, and every gradient has its master's dtype.
    ///
    /// # Errors
    /// Errors of the conversion.
    pub fn compute_in(&mut self, dtype: DType) -> Result<()> {
        for parameter in &mut self.parameters {
            if parameter.precision == Precision::Mixed {
                let copies = dtype != parameter.value.dtype();
                parameter.compute = copies.then(|| parameter.value.to_dtype(dtype)).transpose()?;
            }
        }
        Ok(())
    }

    /// Moves masters and copies to a device: from then on everything is computed there.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn to_device(&mut self, device: Device) -> Result<()> {
        for parameter in &mut self.parameters {
            parameter.value = parameter.value.to_device(device)?;
            if let Some(copy) = &mut parameter.compute {
                *copy = copy.to_device(device)?;
            }
        }
        Ok(())
    }

    /// Rounds every value to one that `dtype` (F16 or BF16) has, and the copies with it; masters stay F32. What is computed
    /// from then on is what a file in that type holds.
    ///
    /// # Errors
    /// `Overflow` for a value beyond the type's largest, before anything is changed; errors of the device.
    pub fn round_to(&mut self, dtype: DType) -> Result<()> {
        let host = |parameter: &Parameter| parameter.value.to_device(Device::Cpu)?.to_dtype(DType::F32);
        let most = match dtype {
            DType::F16 => f32::from(f16::MAX),
            DType::BF16 => f32::from(bf16::MAX),
            _ => return Ok(()),
        };
        for parameter in &self.parameters {
            for (key, view) in parameter.split(&host(parameter)?)? {
                let beyond = |value: &&f32| value.is_nan() || value.abs() > most;
                if let Some(&value) = view.as_slice::<f32>()?.iter().find(beyond) {
                    return Err(NnError::Overflow { key: key.to_owned(), value, dtype, most });
                }
            }
        }
        for parameter in &mut self.parameters {
            let rounded = host(parameter)?.to_dtype(dtype)?.to_dtype(parameter.value.dtype())?;
            parameter.value = rounded.to_device(parameter.value.device())?;
            if let Some(copy) = &mut parameter.compute {
                *copy = parameter.value.to_dtype(copy.dtype())?;
            }
        }
        Ok(())
    }

    /// The same parameters with values of another dtype and without copies: F64 makes the reference model.
    ///
    /// # Errors
    /// Errors of the conversion.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let convert = |parameter: &Parameter| -> Result<Parameter> {
            Ok(Parameter { value: parameter.value.to_dtype(dtype)?, compute: None, ..parameter.clone() })
        };
        Ok(ParameterStore { parameters: self.parameters.iter().map(convert).collect::<Result<_>>()? })
    }

    /// Takes every part's values from a safetensors file that [`SavedWeights`](crate::SavedWeights) wrote for parameters of these
    /// keys and shapes: F32, whatever the values are. Parameters are then on the CPU, without copies.
    ///
    /// # Errors
    /// `Io`, `Safetensors`; `Unusable` for a file that lacks a part, or has it in another shape or type. Then nothing is changed.
    pub fn read_from(&mut self, path: &Path) -> Result<()> {
        let (file, len) = read::open(path)?;
        // The values, and room for the names.
        let most = (size_of::<f32>() * self.numel()) as u64 + (64 << 20);
        if len > most {
            let why =
                format!("{len} bytes are more than this model's parameters have; it is of another model");
            return Err(read::unusable(path, why));
        }
        let mut bytes = Vec::with_capacity(len as usize);
        file.take(most)
            .read_to_end(&mut bytes)
            .map_err(|source| NnError::Io { path: path.to_owned(), source })?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|source| NnError::Safetensors {
            path: path.to_owned(),
            len,
            source,
        })?;
        let mut values = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            let mut numbers = Vec::with_capacity(parameter.value.numel());
            for part in &parameter.parts {
                let dims = [&[part.rows], &parameter.value.dims()[1..]].concat();
                let view = tensors.tensor(&part.key).ok();
                let view = view.filter(|view| view.shape() == dims && view.dtype() == Dtype::F32);
                let Some(view) = view else {
                    let why = format!("{} is not in it as {dims:?} in F32; it is of another model", part.key);
                    return Err(read::unusable(path, why));
                };
                let bytes = view.data().chunks_exact(size_of::<f32>());
                numbers
                    .extend(bytes.map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])));
            }
            values.push(Tensor::from_slice(&numbers, parameter.value.dims())?);
        }
        for (parameter, value) in self.parameters.iter_mut().zip(values) {
            (parameter.value, parameter.compute) = (value, None);
        }
        Ok(())
    }

    /// The number of elements of those that are trained.
    pub fn trainable_numel(&self) -> usize {
        let trained = self.parameters.iter().filter(|parameter| parameter.trainable);
        trained.map(|parameter| parameter.value.numel()).sum()
    }

    /// Checks that every trainable parameter has a gradient: a forgotten one would silently stay as it was initialised.
    ///
    /// # Errors
    /// `MissingGradient` with the names of all that have none.
    pub fn audit(&self, gradients: &Gradients) -> Result<()> {
        let missing = |(id, parameter): &(ParameterId, &Parameter)| {
            parameter.trainable && gradients.parameter(*id).is_none()
        };
        let keys: Vec<String> = self.iter().filter(missing).map(|(_, parameter)| parameter.name()).collect();
        if keys.is_empty() { Ok(()) } else { Err(NnError::MissingGradient { keys }) }
    }
}
