//! Techniques of fine-tuning, each switched by a setting: what is trained and how fast, the loss, the optimizer, averages of
//! weights, LoRA.

mod collapse;
mod distillation;
mod lora;
mod loss;
mod replay;

pub use collapse::Collapse;
pub use distillation::{Distillation, teacher_layers, teacher_rows};
pub use lora::{Lora, SavedAdapter};
pub use loss::{ClassificationLoss, balanced_class_weights};
pub use replay::{FailedStep, REPLAY_FOLDER, ReplayedStep};

use crate::optimizer::groups::{self, Freeze};
use crate::optimizer::{AdamW, Ema, Optimizer, Sgd};
use crate::{Result, TrainError};
use serde::{Deserialize, Serialize};
use vitrine_bert::SequenceClassifier;
use vitrine_nn::Model;

/// The rule by which gradients change weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "optimizer", rename_all = "lowercase")]
pub enum OptimizerKind {
    /// [`AdamW`].
    AdamW {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        eps: f64,
    },
    /// [`Sgd`].
    Sgd {
        /// How much of the last step's direction is kept.
        momentum: f64,
    },
}

impl Default for OptimizerKind {
    fn default() -> Self {
        let AdamW { beta1, beta2, eps, .. } = AdamW::new(0.0);
        OptimizerKind::AdamW { beta1, beta2, eps }
    }
}

/// Settings of a run beside the usual ones; the default is none of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Techniques {
    /// The optimizer.
    #[serde(flatten)]
    pub optimizer: OptimizerKind,
    /// Layer-wise decay of the learning rate: see [`groups::layer_decay`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_decay: Option<f64>,
    /// What is not trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Freeze>,
    /// How many of the top layers start anew: see [`groups::reinitialise`].
    #[serde(default)]
    pub reinit_layers: usize,
    /// The loss.
    #[serde(flatten)]
    pub loss: ClassificationLoss,
    /// Decay of the moving average of the weights: see [`Ema`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Low-rank adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
}

impl Techniques {
    /// Makes a model that has just been read ready for training, in F32 on the CPU: top layers anew, adapters, freezing,
    /// learning rates by layer.
    ///
    /// # Errors
    /// `Technique` for a setting that the model or its classes do not fit, and where nothing is left to train.
    pub fn prepare(&self, model: &mut SequenceClassifier, seed: u64) -> Result<()> {
        let config = model.config().clone();
        let parameters = model.parameters_mut();
        self.loss.check(config.num_labels())?;
        groups::reinitialise(parameters, &config, self.reinit_layers, seed)?;
        if let Some(lora) = &self.lora {
            lora.attach(parameters, &config, seed)?;
        }
        if let Some(freeze) = &self.freeze {
            freeze.apply(parameters, &config)?;
        }
        if let Some(decay) = self.layer_decay {
            groups::layer_decay(parameters, &config, decay);
        }
        if parameters.trainable_numel() == 0 {
            let why = "nothing is left to train".to_owned();
            return Err(TrainError::Technique { option: "--freeze", why });
        }
        Ok(())
    }

    /// The optimizer of a run.
    pub fn optimizer(&self, weight_decay: f64) -> Box<dyn Optimizer> {
        let inner: Box<dyn Optimizer> = match self.optimizer {
            OptimizerKind::AdamW { beta1, beta2, eps } => {
                let mut adamw = AdamW::new(weight_decay);
                (adamw.beta1, adamw.beta2, adamw.eps) = (beta1, beta2, eps);
                Box::new(adamw)
            }
            OptimizerKind::Sgd { momentum } => Box::new(Sgd::new(momentum, weight_decay)),
        };
        match self.ema {
            Some(decay) => Box::new(Ema::new(inner, decay)),
            None => inner,
        }
    }

    /// Ends training: adapters become part of their matrices. The model computes the same, up to rounding.
    ///
    /// # Errors
    /// Tensor errors.
    pub fn finish(&self, model: &mut impl Model) -> Result<()> {
        Ok(model.parameters_mut().merge_adapters()?)
    }
}
