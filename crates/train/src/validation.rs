//! Evaluation during training: when, what is better, when training has gone on for long enough without it; and when
//! checkpoints are written.

use crate::metrics::Metrics;
use crate::{Result, TrainError};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How often something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// After so many optimizer steps; at least 1.
    Steps(usize),
    /// At the end of each pass over the rows.
    Epoch,
}

impl Every {
    /// Whether it happens after `step` steps, counted from 1.
    pub fn is_due(self, step: usize, steps_per_epoch: usize) -> bool {
        let every = match self {
            Every::Steps(steps) => steps,
            Every::Epoch => steps_per_epoch,
        };
        step > 0 && step.is_multiple_of(every.max(1))
    }
}

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.parse()) {
            ("epoch", _) => Ok(Every::Epoch),
            (_, Ok(steps @ 1..=1_000_000_000)) => Ok(Every::Steps(steps)),
            _ => Err("must be a number of steps, from 1 on, or `epoch`".into()),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Every::Steps(steps) => write!(f, "{steps}"),
            Every::Epoch => f.write_str("epoch"),
        }
    }
}

impl Serialize for Every {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Every::Steps(steps) => serializer.serialize_u64(*steps as u64),
            Every::Epoch => serializer.serialize_str("epoch"),
        }
    }
}

/// What makes one evaluation better than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BestBy {
    /// The share of right predictions; more is better.
    Accuracy,
    /// F1, as the evaluation reports it; more is better.
    F1,
    /// Mean cross-entropy; less is better.
    Loss,
}

impl BestBy {
    /// The metric's value.
    pub fn value(self, metrics: &Metrics) -> f64 {
        match self {
            BestBy::Accuracy => metrics.accuracy,
            BestBy::F1 => metrics.f1,
            BestBy::Loss => metrics.loss,
        }
    }

    /// Whether a value is strictly better than another: of equal ones the first stays the best.
    pub fn is_better(self, value: f64, than: f64) -> bool {
        match self {
            BestBy::Accuracy | BestBy::F1 => value > than,
            BestBy::Loss => value < than,
        }
    }
}

impl FromStr for BestBy {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "accuracy" => Ok(BestBy::Accuracy),
            "f1" => Ok(BestBy::F1),
            "loss" => Ok(BestBy::Loss),
            _ => Err("must be accuracy, f1 or loss".into()),
        }
    }
}

impl fmt::Display for BestBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BestBy::Accuracy => "accuracy",
            BestBy::F1 => "f1",
            BestBy::Loss => "loss",
        })
    }
}

/// Evaluation during training, on rows that are not trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ValidationSettings {
    /// How often; also after the last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<Every>,
    /// Training ends after so many evaluations in a row without a better one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// The model with the best evaluation by this metric is the run's result, instead of the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_best: Option<BestBy>,
}

impl ValidationSettings {
    /// By which metric evaluations are compared.
    pub fn best_by(&self) -> BestBy {
        self.keep_best.unwrap_or(BestBy::Loss)
    }

    /// Refuses settings that name each other's absence.
    pub(crate) fn check(&self, has_rows: bool, has_checkpoints: bool) -> Result<()> {
        let why = match (self.eval_every, self.patience.is_some() || self.keep_best.is_some()) {
            (None, true) => "patience and the best model need evaluations during training",
            (Some(_), _) if !has_rows => "evaluation during training needs rows to evaluate on",
            _ if self.keep_best.is_some() && !has_checkpoints => "the best model is kept in a checkpoint",
            _ => return Ok(()),
        };
        Err(TrainError::Settings { why })
    }
}

/// When checkpoints are written, apart from those of the best model and of an interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveEvery {
    /// By steps or epochs.
    Progress(Every),
    /// After so much time since the start or the last one: a long run loses little, a short one pays nothing.
    Time(Duration),
    /// Not at all.
    Never,
}

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Optimizer steps before it.
    pub step: usize,
    /// The metric's value.
    #[serde(with = "crate::checkpoint::exact")]
    pub value: f64,
}

/// Everything that a run knows beside weights, optimizer state and settings: with these, it goes on from a checkpoint as if it
/// had never stopped. The place in the order of rows follows from `step`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Optimizer steps taken.
    pub step: usize,
    /// Tokens seen.
    pub tokens: usize,
    /// Sum of the steps' losses.
    #[serde(with = "crate::checkpoint::exact")]
    pub loss_sum: f64,
    /// Loss of the last step.
    #[serde(with = "crate::checkpoint::exact")]
    pub final_loss: f64,
    /// Wall-clock seconds of the loop, of all processes that had a part in it.
    pub seconds: f64,
    /// Those of them that went into steps.
    pub step_seconds: f64,
    /// Those of them that went into checkpoints.
    pub checkpoint_seconds: f64,
    /// After which step the model was evaluated last.
    pub evaluated: Option<usize>,
    /// The best evaluation.
    pub best: Option<Best>,
    /// Evaluations since then.
    pub without_better: usize,
}

impl Default for TrainState {
    fn default() -> Self {
        TrainState {
            step: 0,
            tokens: 0,
            loss_sum: 0.0,
            final_loss: f64::NAN,
            seconds: 0.0,
            step_seconds: 0.0,
            checkpoint_seconds: 0.0,
            evaluated: None,
            best: None,
            without_better: 0,
        }
    }
}

impl TrainState {
    /// Takes note of an evaluation after the last step; whether it is the best so far. One that is not a number is none.
    pub(crate) fn evaluated(&mut self, by: BestBy, metrics: &Metrics) -> bool {
        let value = by.value(metrics);
        let is_best = self.best.is_none_or(|best| by.is_better(value, best.value)) && !value.is_nan();
        self.evaluated = Some(self.step);
        if is_best {
            self.best = Some(Best { step: self.step, value });
            self.without_better = 0;
        } else {
            self.without_better += 1;
        }
        is_best
    }
}
