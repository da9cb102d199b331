//! Options of a run that is evaluated, saved and stopped on its way.

use clap::Args;
use std::time::Duration;
use vitrine_train::{BestBy, Every, SaveEvery};

/// Between two checkpoints where nothing is said.
const SAVE_AFTER: Duration = Duration::from_secs(600);

/// Checkpoints, and going on from one.
#[derive(Args, Clone, Debug)]
pub struct Checkpointing {
    /// Write a checkpoint every N steps, at the end of every `epoch`, or `never`; default: every 10 minutes, until the run is
    /// finished.
    #[arg(long, value_name = "N|epoch|never", value_parser = save_every, help_heading = "Checkpoints")]
    pub save_every: Option<SaveEvery>,
    /// How many of the newest checkpoints stay, beside those of the best model.
    #[arg(long, value_name = "K", value_parser = super::count, default_value_t = 2, help_heading = "Checkpoints")]
    pub keep: usize,
    /// Go on with the run in --output from its newest checkpoint, to the same result as if it had never stopped; without a
    /// checkpoint, start from the beginning.
    #[arg(long, requires = "output", conflicts_with = "overwrite", help_heading = "Checkpoints")]
    pub resume: bool,
}

impl Checkpointing {
    /// When checkpoints are written.
    pub fn save_every(&self) -> SaveEvery {
        self.save_every.unwrap_or(SaveEvery::Time(SAVE_AFTER))
    }
}

/// Evaluation during training.
#[derive(Args, Clone, Debug)]
pub struct Validation {
    /// Share of each class's training rows that is held back to evaluate on; default: 0.1 where the data have no test rows,
    /// else 0. A function of --sample-seed.
    #[arg(long, value_name = "SHARE", value_parser = share, help_heading = "Evaluation")]
    pub validation_split: Option<f64>,
    /// Evaluate every N steps, or at the end of every `epoch`, and after the last step; default: `epoch` with --patience or
    /// --keep-best, else only at the end of the run.
    #[arg(long, value_name = "N|epoch", help_heading = "Evaluation")]
    pub eval_every: Option<Every>,
    /// Stop after so many evaluations in a row without a better one; keeps the best model by loss, unless --keep-best says
    /// otherwise; default: train to the end.
    #[arg(long, value_name = "N", value_parser = super::count, help_heading = "Evaluation")]
    pub patience: Option<usize>,
    /// Save the model of the best evaluation by this metric (accuracy, f1 or loss); default: that of the last step.
    #[arg(long, value_name = "METRIC", help_heading = "Evaluation")]
    pub keep_best: Option<BestBy>,
}

impl Validation {
    /// The settings that these options come to.
    pub fn settings(&self) -> vitrine_train::ValidationSettings {
        let keep_best = self.keep_best.or(self.patience.map(|_| BestBy::Loss));
        let eval_every = self.eval_every.or(keep_best.map(|_| Every::Epoch));
        vitrine_train::ValidationSettings { eval_every, patience: self.patience, keep_best }
    }
}

fn save_every(text: &str) -> Result<SaveEvery, String> {
    match text {
        "never" => Ok(SaveEvery::Never),
        _ => text.parse().map(SaveEvery::Progress).map_err(|error: String| format!("{error}, or `never`")),
    }
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("must be 0 (none) or above, and below 1".into()),
    }
}
