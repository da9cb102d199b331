//! Training of Vitrine's models: data, sampling, the built-in corpus, the loop, optimizers, metrics and learning-rate schedules.
//!
//! Reading order: [`data`] for how rows get in, [`data::sampling`] for which of them are used and in which order,
//! [`step`] for one step, [`train`] for the loop, [`pretrain`] for that of a masked language model, [`optimizer`] for the update,
//! [`techniques`] for what can be switched on, [`baseline`] for what all of it has to beat, [`schedule`] and [`metrics`] for the numbers around a step.

pub mod baseline;
pub mod checkpoint;
pub mod corpus;
pub mod data;
mod error;
mod evaluation;
pub mod inspect;
mod logits_cache;
pub mod measurements;
pub mod metrics;
mod non_finite;
pub mod optimizer;
mod predict;
pub mod pretrain;
pub mod schedule;
pub mod statistics;
mod step;
pub mod techniques;
mod token_cache;
mod tokenized;
mod trainer;
mod validation;

pub use checkpoint::{Checkpoints, Found};
pub use error::{Location, Position, Result, TrainError};
pub use evaluation::{Evaluation, evaluate};
pub use logits_cache::LogitsKey;
pub use non_finite::Finding;
pub use optimizer::Optimizer;
pub use predict::{Prediction, predict};
pub use step::{MicroBatch, Step, StepSettings, accumulating_step, step};
pub use token_cache::{CacheUse, TokenCache};
pub use tokenized::{TokenizedDataset, token_lengths};
pub use trainer::{
    BestModel, EvaluationRecord, Observer, Rows, Saving, StepRecord, TrainSettings, TrainSummary, train,
};
pub use validation::{Best, BestBy, Every, SaveEvery, TrainState, ValidationSettings};
