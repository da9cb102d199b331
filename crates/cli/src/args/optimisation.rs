//! The options of `vitrine train` for schedule, optimizer, loss and what is trained.

use super::{not_negative, positive, ratio};
use clap::{Args, ValueEnum};
use vitrine_train::optimizer::groups::Freeze;
use vitrine_train::schedule::DecayShape;

/// How the learning rate moves after its warmup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ScheduleName {
    /// A straight line to 0.
    #[default]
    Linear,
    /// Half a cosine, to 0.
    Cosine,
    /// The peak, to the end.
    Constant,
    /// A power of what remains, to --lr-end.
    Polynomial,
    /// The peak, and a decay at the end of the run (warmup, stable, decay).
    Wsd,
}

/// How the rate falls in the decay of `wsd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DecayShapeName {
    /// Half a cosine.
    Cosine,
    /// A straight line.
    Linear,
    /// 1 minus the square root of the decay's share that is over.
    #[value(name = "1-sqrt")]
    OneMinusSqrt,
}

impl From<DecayShapeName> for DecayShape {
    fn from(name: DecayShapeName) -> DecayShape {
        match name {
            DecayShapeName::Cosine => DecayShape::Cosine,
            DecayShapeName::Linear => DecayShape::Linear,
            DecayShapeName::OneMinusSqrt => DecayShape::OneMinusSqrt,
        }
    }
}

/// The rule of the updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OptimizerName {
    /// Adam with decoupled weight decay.
    #[default]
    Adamw,
    /// Stochastic gradient descent, with --momentum.
    Sgd,
}

/// What classes weigh in the loss.
#[derive(Clone, Debug, PartialEq)]
pub enum ClassWeights {
    /// By the number of their training rows.
    Balanced,
    /// These, in the order of the classes.
    Given(Vec<f64>),
}

fn class_weights(text: &str) -> Result<ClassWeights, String> {
    if text == "balanced" {
        return Ok(ClassWeights::Balanced);
    }
    let weights = text.split(',').map(|weight| positive(weight.trim()));
    match weights.collect::<Result<Vec<f64>, String>>() {
        Ok(weights) => Ok(ClassWeights::Given(weights)),
        Err(_) => Err("must be `balanced`, or a number above 0 for each class, such as 0.3,0.7".into()),
    }
}

fn below_one(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("must be from 0 to below 1".into()),
    }
}

fn decay(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err("must be above 0 and at most 1".into()),
    }
}

fn target(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match !text.is_empty() && text.chars().all(is_name) {
        true => Ok(text.to_owned()),
        false => Err("must be names of linear layers, such as query,value".into()),
    }
}

/// The schedule of the learning rate.
#[derive(Args, Clone, Debug)]
pub struct ScheduleOptions {
    /// How the learning rate moves after its warmup: linear (to 0), cosine (half a cosine, to 0), constant, polynomial (see
    /// --power and --lr-end), or wsd (the peak, then a decay at the end of the run; see --decay-steps).
    #[arg(
        long,
        value_enum,
        default_value = "linear",
        hide_possible_values = true,
        value_name = "NAME",
        help_heading = "Training"
    )]
    pub schedule: ScheduleName,
    /// Power of a polynomial schedule: 1 is a straight line, 2 falls early, 0.5 late; default: 1.
    #[arg(long, value_parser = positive, value_name = "P", help_heading = "Training")]
    pub power: Option<f64>,
    /// Learning rate at the end of a polynomial schedule; default: 1e-7.
    #[arg(long, value_parser = not_negative, value_name = "LR", help_heading = "Training")]
    pub lr_end: Option<f64>,
    /// Steps of the decay at the end of a wsd schedule; default: as --decay-ratio says.
    #[arg(long, value_name = "STEPS", conflicts_with = "decay_ratio", help_heading = "Training")]
    pub decay_steps: Option<usize>,
    /// The same as a share of all steps; default: 0.1.
    #[arg(long, value_parser = ratio, value_name = "SHARE", help_heading = "Training")]
    pub decay_ratio: Option<f64>,
    /// How the rate falls in the decay of a wsd schedule: cosine, linear or 1-sqrt; default: cosine.
    #[arg(long, value_enum, hide_possible_values = true, value_name = "SHAPE", help_heading = "Training")]
    pub decay_shape: Option<DecayShapeName>,
    /// Lowest rate of a wsd schedule, at its start and end, as a share of the peak; default: 0.
    #[arg(long, value_parser = below_one, value_name = "SHARE", help_heading = "Training")]
    pub min_lr_ratio: Option<f64>,
}

/// Techniques of fine-tuning.
#[derive(Args, Clone, Debug)]
pub struct TechniqueOptions {
    /// Rule of the updates: adamw or sgd.
    #[arg(
        long,
        value_enum,
        default_value = "adamw",
        hide_possible_values = true,
        value_name = "NAME",
        help_heading = "Optimisation"
    )]
    pub optimizer: OptimizerName,
    /// Momentum of sgd; default: 0.9.
    #[arg(long, value_parser = below_one, value_name = "M", help_heading = "Optimisation")]
    pub momentum: Option<f64>,
    /// Decay of adamw's mean of gradients; default: 0.9.
    #[arg(long, value_parser = below_one, value_name = "B", help_heading = "Optimisation")]
    pub adam_beta1: Option<f64>,
    /// Decay of adamw's mean of squared gradients; default: 0.999.
    #[arg(long, value_parser = below_one, value_name = "B", help_heading = "Optimisation")]
    pub adam_beta2: Option<f64>,
    /// What adamw adds to the root of the mean square; default: 1e-8.
    #[arg(long, value_parser = positive, value_name = "EPS", help_heading = "Optimisation")]
    pub adam_epsilon: Option<f64>,
    /// Lower the learning rate from layer to layer: of L layers, the head has the factor 1, layer i (from 0) D^(L-i), the
    /// embeddings D^(L+1); default: 1.
    #[arg(long, value_parser = decay, value_name = "D", help_heading = "Optimisation")]
    pub layer_decay: Option<f64>,
    /// Parts that are not trained: embeddings, layers (from 0) and ranges of them, or encoder for all of these; such as
    /// embeddings,0-5; default: none.
    #[arg(long, value_name = "PARTS", help_heading = "Optimisation")]
    pub freeze: Option<Freeze>,
    /// Start the top N layers and the pooler from random weights; default: 0.
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_name = "N",
        help_heading = "Optimisation"
    )]
    pub reinit_layers: usize,
    /// Share of the target that is spread evenly over all classes; default: 0.
    #[arg(long, value_parser = below_one, value_name = "SHARE", help_heading = "Optimisation")]
    pub label_smoothing: Option<f64>,
    /// What rows of each class weigh in the loss: balanced (rows / (classes x rows of the class)), or a number for each class
    /// in the order of the classes, such as 0.3,0.7; default: every row weighs the same.
    #[arg(long, value_parser = class_weights, value_name = "balanced|W,..", help_heading = "Optimisation")]
    pub class_weights: Option<ClassWeights>,
    /// Keep an exponential moving average of the weights with this decay, such as 0.999; it is what is evaluated and saved;
    /// default: none.
    #[arg(long, value_parser = below_one, value_name = "DECAY", help_heading = "Optimisation")]
    pub ema: Option<f64>,
    /// Train low-rank adapters (LoRA) of this rank and the head, and nothing else; they are merged into the saved model, and
    /// saved alone in adapter/, as peft reads it; default: none.
    #[arg(long, value_parser = super::count, value_name = "R", help_heading = "Optimisation")]
    pub lora_rank: Option<usize>,
    /// What adapters add is multiplied by ALPHA / R; default: 16.
    #[arg(long, value_parser = positive, value_name = "ALPHA", requires = "lora_rank", help_heading = "Optimisation")]
    pub lora_alpha: Option<f64>,
    /// Linear layers with adapters, by the ends of their names; default: the projections to queries and values (BERT:
    /// query,value).
    #[arg(long, value_parser = target, value_delimiter = ',', value_name = "NAME,..", requires = "lora_rank", help_heading = "Optimisation")]
    pub lora_targets: Vec<String>,
}
