//! [`step`] and [`accumulating_step`]: the one training step.

use crate::Result;
use crate::optimizer::Optimizer;
use std::time::Instant;
use vitrine_autograd::{Gradients, Profile, Randomness, Tape, Var};
use vitrine_nn::Model;
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::adamw::GradNorm;
use vitrine_tensor::ops::elementwise::add;

/// What a step does beside computing the loss.
#[derive(Clone, Copy, Debug)]
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
    pub profiled: bool,
}

/// What a step found. On a CUDA device it is still at work: whoever reads a number waits for it.
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
    accumulating_step(model, &[1], |model, tape, _| loss(model, tape), optimizer, settings)
}

/// One optimizer step whose rows are computed in several micro-batches, one after the other: `sequences[i]` is how many sequences
/// micro-batch `i` has, and `loss(model, tape, i)` their mean loss.
///
/// The step is the one of all rows at once up to the order of sums: gradients are added in F32, weighted by the sequences, and a
/// sequence's dropout is a function of its place in the step. The gradient is multiplied by `max_grad_norm / (norm + 1e-6)` where
/// that is below 1 (`torch.nn.utils.clip_grad_norm_`).
///
/// # Errors
/// Those of `loss`; a trainable parameter without a gradient, named; errors of the layers below.
///
/// # Panics
/// Without a micro-batch.
pub fn accumulating_step<M: Model>(
    model: &mut M,
    sequences: &[usize],
    loss: impl for<'t> Fn(&M, &'t Tape, usize) -> vitrine_bert::Result<Var<'t>>,
    optimizer: &mut dyn Optimizer,
    settings: &StepSettings,
) -> Result<Step> {
    let &StepSettings { seed, step, lr, max_grad_norm, checkpoint_layers, profiled } = settings;
    let all: usize = sequences.iter().sum();
    let (mut forward, mut backward) = (Profile::default(), Profile::default());
    let mut sums: Option<(Tensor, Gradients)> = None;
    let mut first = 0;
    for (index, &count) in sequences.iter().enumerate() {
        let mut tape = Tape::training(Randomness { seed, step: step as u32, first_sequence: first as u32 });
        if profiled {
            tape = tape.profiled();
        }
        if checkpoint_layers {
            tape = tape.checkpointing_layers();
        }
        let (id, loss) = {
            let mut loss = loss(model, &tape, index)?;
            if count < all {
                loss = loss.scale(count as f64 / all as f64)?;
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
        first += count;
    }
    let (loss, gradients) = sums.expect("a step has rows");
    let started = Instant::now();
    let parameters = model.parameters_mut();
    parameters.audit(&gradients)?;
    let tensors: Vec<&Tensor> = gradients.parameters().map(|(_, gradient)| gradient).collect();
    let norm = GradNorm::of(&tensors, max_grad_norm)?;
    optimizer.step(parameters, &gradients, &norm, lr, step)?;
    let update_seconds = started.elapsed().as_secs_f64();
    Ok(Step { loss, norm, gradients, forward, backward, update_started: started, update_seconds })
}
