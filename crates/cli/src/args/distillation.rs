//! The options of `vitrine train` about a teacher.

use super::positive;
use crate::names::ModelName;
use clap::Args;
use std::path::PathBuf;
use vitrine_train::techniques::Distillation;

/// Learning from a teacher.
#[derive(Args, Clone, Debug, Default)]
pub struct DistillationOptions {
    /// A classifier with the data's classes, named as for --model: the student learns from its logits, too (knowledge distillation);
    /// default: none.
    #[arg(long, value_name = "NAME|DIR", help_heading = "Distillation")]
    pub distill_from: Option<ModelName>,
    /// Share of the teacher's term in the loss, the rest is that of the labels; default: 0.5.
    #[arg(long, value_name = "SHARE", value_parser = super::ratio, requires = "distill_from", help_heading = "Distillation")]
    pub distill_weight: Option<f64>,
    /// Temperature by which the logits of both are divided in the teacher's term; default: 2.
    #[arg(long, value_name = "T", value_parser = positive, requires = "distill_from", help_heading = "Distillation")]
    pub distill_temperature: Option<f64>,
    /// Weight of the hidden states: how far the student's `[CLS]` after each layer points from the teacher's after the layer in its place.
    /// Both must have the same width; default: 0, only logits count.
    #[arg(long, value_name = "W", value_parser = super::not_negative, requires = "distill_from", help_heading = "Distillation")]
    pub distill_hidden: Option<f64>,
    /// More texts to train on, for which only the teacher counts: a file or a folder, as for `vitrine pretrain --data`; may be
    /// given several times; default: none.
    #[arg(long, value_name = "DIR|FILE", requires = "distill_from", help_heading = "Distillation")]
    pub unlabelled: Vec<PathBuf>,
}

impl DistillationOptions {
    /// How much the teacher counts.
    pub fn settings(&self) -> Distillation {
        let default = Distillation::default();
        Distillation {
            weight: self.distill_weight.unwrap_or(default.weight),
            temperature: self.distill_temperature.unwrap_or(default.temperature),
            hidden: self.distill_hidden.unwrap_or(default.hidden),
        }
    }
}
