//! [`step`] and [`accumulating_step`]: the one training step.

use crate::non_finite::{self, Finding};
use crate::optimizer::Optimizer;
use crate::{Result, TrainError};
use serde::{Deserialize, Serialize};
use std::time::Instant;
use vitrine_autograd::{Gradients, Profile, Randomness, Tape, Var};
use vitrine_nn::Model;
use vitrine_tensor::ops::adamw::GradNorm;
use vitrine_tensor::ops::elementwise::add;
use vitrine_tensor::{Device, Tensor};

/// What a step does beside computing the loss.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct StepSettings {
    /// The run's seed, for dropout.
    pub seed: u64,
    /// The step, from 0.
    pub step: usize,
    /// Learning rate.
    pub lr: f64,
    /// Largest global norm of the gradient; none leaves it as it is.
    pub max_grad_norm: Option<f64>,
    /// Whether layers are computed again in backward instead of saving their activations.
    pub checkpoint_layers: bool,
    /// Whether the seconds of every operation are measured.
    #[serde(skip)]
    pub profiled: bool,
}

/// A part of a step's rows that is computed at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MicroBatch {
    /// How many sequences it has.
    pub sequences: usize,
    /// What the mean of its loss was divided by: for a mean over sequences, their number; for a weighted mean, the sum of the
    /// weights. The step's loss is the mean of the parts' losses by these weights.
    pub weight: f64,
}

impl MicroBatch {
    /// A part whose loss is the mean over its sequences.
    pub fn of(sequences: usize) -> Self {
        MicroBatch { sequences, weight: sequences as f64 }
    }
}

/// What a step found. On a CUDA device the update may still be at work; loss and norm are in the host's memory.
pub struct Step {
    /// The loss before the update, a scalar.
    pub loss: Tensor,
    /// The global norm of the gradient before it was clipped.
    pub norm: GradNorm,
    /// The gradients before they were clipped.
    pub gradients: Gradients,
    /// Seconds of each operation's forward, if they were measured.
    pub forward: Profile,
    /// Seconds of each operation's backward, if they were measured.
    pub backward: Profile,
    /// When norm, clipping and update began.
    pub update_started: Instant,
    /// Seconds of norm, clipping and update.
    pub update_seconds: f64,
}

/// Tape, loss, gradients, clipping by the global norm, update: [`accumulating_step`] of a batch that is computed at once.
///
/// # Errors
/// As [`accumulating_step`].
pub fn step<M: Model>(
    model: &mut M,
    loss: impl for<'t> Fn(&M, &'t Tape) -> vitrine_bert::Result<Var<'t>>,
    optimizer: &mut dyn Optimizer,
    settings: &StepSettings,
) -> Result<Step> {
    accumulating_step(model, &[MicroBatch::of(1)], |model, tape, _| loss(model, tape), optimizer, settings)
}

/// One optimizer step whose rows are computed in several micro-batches, one after the other; `loss(model, tape, i)` is the mean
/// loss of micro-batch `i`.
///
/// The step is the one of all rows at once up to the order of sums: gradients are added in F32, weighted by the
/// [weights](MicroBatch::weight), and a sequence's dropout is a function of its place in the step. The gradient is multiplied by
/// `max_grad_norm / (norm + 1e-6)` where that is below 1 (`torch.nn.utils.clip_grad_norm_`).
///
/// # Errors
/// `NonFinite` for a loss or a gradient that is not finite: it has not reached the weights. The step is then computed once more to
/// find the operation that made it. Those of `loss`; a trainable parameter without a gradient, named; errors of the layers below.
///
/// # Panics
/// Without a micro-batch.
pub fn accumulating_step<M: Model>(
    model: &mut M,
    micro_batches: &[MicroBatch],
    loss: impl for<'t> Fn(&M, &'t Tape, usize) -> vitrine_bert::Result<Var<'t>>,
    optimizer: &mut dyn Optimizer,
    settings: &StepSettings,
) -> Result<Step> {
    let &StepSettings { step, lr, max_grad_norm, profiled, .. } = settings;
    let all: f64 = micro_batches.iter().map(|part| part.weight).sum();
    let (mut forward, mut backward) = (Profile::default(), Profile::default());
    let mut sums: Option<(Tensor, Gradients)> = None;
    let mut first = 0;
    for (index, &MicroBatch { sequences, weight }) in micro_batches.iter().enumerate() {
        let tape = settings.tape(first);
        let tape = if profiled { tape.profiled() } else { tape };
        let (id, loss) = {
            let mut loss = loss(model, &tape, index)?;
            if micro_batches.len() > 1 {
                loss = loss.scale(weight / all)?;
            }
            (loss.id(), loss.into_value())
        };
        forward.extend(tape.profile());
        let (gradients, seconds) = tape.backward_profiled(id, &[])?;
        backward.extend(seconds);
        sums = Some(match sums {
            None => (loss, gradients),
            Some((loss_so_far, mut gradients_so_far)) => {
                gradients_so_far.add(gradients)?;
                (add(&loss_so_far, &loss)?, gradients_so_far)
            }
        });
        first += sequences;
    }
    let (loss_sum, gradients) = sums.expect("a step has rows");
    let started = Instant::now();
    model.parameters().audit(&gradients)?;
    let tensors: Vec<&Tensor> = gradients.parameters().map(|(_, gradient)| gradient).collect();
    let norm = GradNorm::of(&tensors, max_grad_norm)?;
    // The one place where the host waits for a CUDA device: what is not finite must not reach the weights.
    let (fetched_loss, fetched_norm) = (loss_sum.to_device(Device::Cpu)?, norm.fetched()?);
    let (loss_value, grad_norm) = (fetched_loss.item()?, fetched_norm.norm()?);
    if !(loss_value.is_finite() && grad_norm.is_finite()) {
        drop(gradients);
        let finding = non_finite::find(model, micro_batches, loss, settings)
            .unwrap_or_else(|error| Finding::Unknown(error.to_string()));
        return Err(TrainError::NonFinite { step: step + 1, loss: loss_value, grad_norm, finding });
    }
    optimizer.step(model.parameters_mut(), &gradients, &norm, lr, step)?;
    let update_seconds = started.elapsed().as_secs_f64();
    Ok(Step {
        loss: fetched_loss,
        norm: fetched_norm,
        gradients,
        forward,
        backward,
        update_started: started,
        update_seconds,
    })
}

impl StepSettings {
    /// The tape of the step's rows from this sequence on.
    pub(crate) fn tape(&self, first_sequence: usize) -> Tape {
        let &StepSettings { seed, step, .. } = self;
        let tape =
            Tape::training(Randomness { seed, step: step as u32, first_sequence: first_sequence as u32 });
        if self.checkpoint_layers { tape.checkpointing_layers() } else { tape }
    }
}
