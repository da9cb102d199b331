//! [`step`]: the one training step.

use crate::Result;
use crate::optimizer::Optimizer;
use std::time::Instant;
use vitrine_autograd::{Profile, Randomness, Tape, Var};
use vitrine_nn::Model;
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::adamw::GradNorm;

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
    /// Seconds of each operation's forward, if they were measured.
    pub forward: Profile,
    /// Seconds of each operation's backward, if they were measured.
    pub backward: Profile,
    /// Seconds of norm, clipping and update.
    pub update_seconds: f64,
}

/// Tape, loss, gradients, clipping by the global norm, update.
///
/// The gradient is multiplied by `max_grad_norm / (norm + 1e-6)` where that is below 1 (`torch.nn.utils.clip_grad_norm_`).
///
/// # Errors
/// Those of `loss`; a trainable parameter without a gradient, named; errors of the layers below.
pub fn step<M: Model>(
    model: &mut M,
    loss: impl for<'t> FnOnce(&M, &'t Tape) -> vitrine_bert::Result<Var<'t>>,
    optimizer: &mut dyn Optimizer,
    settings: &StepSettings,
) -> Result<Step> {
    let &StepSettings { seed, step, lr, max_grad_norm, checkpoint_layers, profiled } = settings;
    let mut tape = Tape::training(Randomness { seed, step: step as u32, first_sequence: 0 });
    if profiled {
        tape = tape.profiled();
    }
    if checkpoint_layers {
        tape = tape.checkpointing_layers();
    }
    let (id, loss) = {
        let loss = loss(model, &tape)?;
        (loss.id(), loss.into_value())
    };
    let forward = tape.profile();
    let (gradients, backward) = tape.backward_profiled(id, &[])?;
    let started = Instant::now();
    let parameters = model.parameters_mut();
    parameters.audit(&gradients)?;
    let tensors: Vec<&Tensor> = gradients.parameters().map(|(_, gradient)| gradient).collect();
    let norm = GradNorm::of(&tensors, max_grad_norm)?;
    optimizer.step(parameters, &gradients, &norm, lr, step)?;
    Ok(Step { loss, norm, forward, backward, update_seconds: started.elapsed().as_secs_f64() })
}
