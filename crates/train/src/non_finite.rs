//! Where a step broke: [`find`] computes it once more on tapes that look at every number.

use crate::step::{MicroBatch, StepSettings};
use crate::{Result, TrainError};
use std::error::Error;
use std::fmt;
use vitrine_autograd::{Gradients, NotFinite, Tape, Var};
use vitrine_nn::Model;
use vitrine_tensor::{DType, Device, Tensor};

/// What made a loss or a gradient that is not finite.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// A weight was not finite before the step.
    Weight {
        /// Its key.
        key: String,
    },
    /// An operation.
    Operation {
        /// In which micro-batch, from 0.
        micro_batch: usize,
        /// Which operation, and what it made.
        found: Box<NotFinite>,
    },
    /// The gradients of micro-batches are finite and their sum is not.
    Sum {
        /// The parameter.
        key: String,
    },
    /// The second time, every number was finite.
    NotRepeated,
    /// The step could not be computed a second time.
    Unknown(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Weight { key } => write!(f, "the weight {key} was not finite before the step"),
            Finding::Operation { micro_batch: 0, found } => write!(f, "{found}"),
            Finding::Operation { micro_batch, found } => {
                write!(f, "{found} (micro-batch {})", micro_batch + 1)
            }
            Finding::Sum { key } => {
                write!(f, "the sum of the micro-batches' gradients of {key} is not finite")
            }
            Finding::NotRepeated => {
                f.write_str("the same step computed again was finite; suspect the memory or the device")
            }
            Finding::Unknown(error) => write!(f, "where it came from could not be found: {error}"),
        }
    }
}

/// Computes a step's loss and gradients once more, and finds the first number that is not finite. The weights stay as they are.
///
/// # Errors
/// Those of `loss` and of the layers below.
pub fn find<M: Model>(
    model: &M,
    micro_batches: &[MicroBatch],
    loss: impl for<'t> Fn(&M, &'t Tape, usize) -> vitrine_bert::Result<Var<'t>>,
    settings: &StepSettings,
) -> Result<Finding> {
    for (_, parameter) in model.parameters().iter() {
        for (key, part) in parameter.split(&parameter.value)? {
            if !is_finite(&part)? {
                return Ok(Finding::Weight { key: key.to_owned() });
            }
        }
    }
    let all: f64 = micro_batches.iter().map(|part| part.weight).sum();
    let mut sum: Option<Gradients> = None;
    let mut first = 0;
    for (micro_batch, &MicroBatch { sequences, weight }) in micro_batches.iter().enumerate() {
        let tape = settings.tape(first).checking_finite();
        let taken = (|| -> Result<Gradients> {
            let mut loss = loss(model, &tape, micro_batch)?;
            if micro_batches.len() > 1 {
                loss = loss.scale(weight / all)?;
            }
            let id = loss.id();
            drop(loss);
            Ok(tape.backward(id, &[])?)
        })();
        let gradients = match taken {
            Ok(gradients) => gradients,
            Err(error) => match not_finite(&error) {
                Some(found) => return Ok(Finding::Operation { micro_batch, found: Box::new(found.clone()) }),
                None => return Err(error),
            },
        };
        match &mut sum {
            None => sum = Some(gradients),
            Some(sum) => sum.add(gradients)?,
        }
        first += sequences;
    }
    for (id, gradient) in sum.iter().flat_map(Gradients::parameters) {
        if !is_finite(gradient)? {
            return Ok(Finding::Sum { key: model.parameters().get(id).name() });
        }
    }
    Ok(Finding::NotRepeated)
}

fn is_finite(tensor: &Tensor) -> Result<bool> {
    let values = tensor.contiguous()?.to_device(Device::Cpu)?.to_dtype(DType::F64)?.to_vec::<f64>()?;
    Ok(values.iter().all(|value| value.is_finite()))
}

/// What a checking tape found, in an error of any layer.
fn not_finite(error: &TrainError) -> Option<&NotFinite> {
    let mut error: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = error {
        if let Some(found) = cause.downcast_ref::<NotFinite>() {
            return Some(found);
        }
        error = cause.source();
    }
    None
}
