//! What is trained: [`Parameter`]s with their Hugging Face keys, masters and moments.

use crate::{AutogradError, Result};
use vitrine_tensor::{DType, Device, Tensor};

/// A named range of a parameter's rows: what one key of a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The Hugging Face key.
    pub key: String,
    /// How many rows (elements, for a vector).
    pub rows: usize,
}

/// One trained tensor. Query, key and value of an attention are one parameter with three parts.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The parts, in the order of their rows.
    pub parts: Vec<Part>,
    /// The master: F32, or F64 in the reference.
    pub value: Tensor,
    /// Under mixed precision, the master rounded to the dtype that tapes compute in; the optimizer refreshes it. A bias stays
    /// F32 for whoever can add that, and has its copy for who cannot.
    pub compute: Option<Tensor>,
    /// AdamW's running mean of the gradient, once there was a step.
    pub first_moment: Option<Tensor>,
    /// AdamW's running mean of the squared gradient, once there was a step.
    pub second_moment: Option<Tensor>,
    /// Whether gradients are computed and updates applied.
    pub trainable: bool,
    /// Whether weight decay applies: not for biases and LayerNorm.
    pub decay: bool,
}

impl Parameter {
    /// A trainable parameter; the rows of `parts` add up to those of `value`.
    ///
    /// # Errors
    /// `Parts` when they do not.
    pub fn new(parts: Vec<Part>, value: Tensor, decay: bool) -> Result<Self> {
        let rows = value.dims().first().copied().unwrap_or(1);
        let sum = parts.iter().map(|part| part.rows).sum();
        if sum != rows {
            let key = parts.first().map_or_else(String::new, |part| part.key.clone());
            return Err(AutogradError::Parts { key, parts: sum, rows });
        }
        Ok(Parameter {
            parts,
            value,
            compute: None,
            first_moment: None,
            second_moment: None,
            trainable: true,
            decay,
        })
    }

    /// What a tape computes with: a matrix's copy in the compute dtype if there is one, else the master.
    pub fn operand(&self) -> &Tensor {
        self.compute.as_ref().filter(|_| self.value.rank() > 1).unwrap_or(&self.value)
    }

    /// A vector's copy in the compute dtype, which goes along with the master.
    pub fn rounded(&self) -> Option<&Tensor> {
        self.compute.as_ref().filter(|_| self.value.rank() == 1)
    }

    /// Makes tapes compute in `dtype`; the master stays what it is.
    ///
    /// # Errors
    /// Errors of the conversion.
    pub fn compute_in(&mut self, dtype: DType) -> Result<()> {
        self.compute = if dtype == self.value.dtype() { None } else { Some(self.value.to_dtype(dtype)?) };
        Ok(())
    }

    /// Moves the master, its copy and the moments to a device.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn to_device(&mut self, device: Device) -> Result<()> {
        self.value = self.value.to_device(device)?;
        for tensor in
            [&mut self.compute, &mut self.first_moment, &mut self.second_moment].into_iter().flatten()
        {
            *tensor = tensor.to_device(device)?;
        }
        Ok(())
    }

    /// The name for messages: the parts' keys.
    pub fn name(&self) -> String {
        self.parts.iter().map(|part| part.key.as_str()).collect::<Vec<_>>().join(" + ")
    }

    /// A tensor shaped as the value (the value itself, its gradient, a moment) cut into the parts: (key, view of rows).
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

/// Which parameter of a [`ParameterStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParameterId(pub(crate) usize);

/// All parameters of a model. They are updated in place through unique ownership: a tape that still holds one makes
/// [`Tensor::as_mut_slice`] an `internal:` error.
#[derive(Clone, Debug, Default)]
pub struct ParameterStore {
    parameters: Vec<Parameter>,
}

impl ParameterStore {
    /// Adds a parameter.
    pub fn add(&mut self, parameter: Parameter) -> ParameterId {
        self.parameters.push(parameter);
        ParameterId(self.parameters.len() - 1)
    }

    /// One parameter.
    pub fn get(&self, id: ParameterId) -> &Parameter {
        &self.parameters[id.0]
    }

    /// One parameter, to be changed.
    pub fn get_mut(&mut self, id: ParameterId) -> &mut Parameter {
        &mut self.parameters[id.0]
    }

    /// Every parameter in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ParameterId, &Parameter)> {
        self.parameters.iter().enumerate().map(|(index, parameter)| (ParameterId(index), parameter))
    }

    /// Every parameter, to be changed.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (ParameterId, &mut Parameter)> {
        self.parameters.iter_mut().enumerate().map(|(index, parameter)| (ParameterId(index), parameter))
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

    /// The same parameters with values of another dtype and without moments: F64 makes the reference model.
    ///
    /// # Errors
    /// Errors of the conversion.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let convert = |parameter: &Parameter| -> Result<Parameter> {
            let value = parameter.value.to_dtype(dtype)?;
            Ok(Parameter {
                value,
                compute: None,
                first_moment: None,
                second_moment: None,
                ..parameter.clone()
            })
        };
        Ok(ParameterStore { parameters: self.parameters.iter().map(convert).collect::<Result<_>>()? })
    }
}
