//! Training of Vitrine's models: data, sampling, the built-in corpus, the loop, optimizers, metrics and learning-rate schedules.
//!
//! Reading order: [`data`] for how rows get in, [`data::sampling`] for which of them are used and in which order,
//! [`step`] for one step, [`train`] for the loop, [`pretrain`] for that of a masked language model, [`optimizer`] for the update, [`schedule`] and [`metrics`] for the numbers around a step.

pub mod checkpoint;
pub mod corpus;
pub mod data;
mod error;
pub mod metrics;
pub mod optimizer;
mod predict;
pub mod pretrain;
pub mod schedule;
mod step;
mod tokenized;
mod trainer;
mod validation;

pub use checkpoint::{Checkpoints, Found};
pub use error::{Place, Position, Result, TrainError};
pub use optimizer::Optimizer;
pub use predict::{Prediction, predict};
pub use step::{Step, StepSettings, accumulating_step, step};
pub use tokenized::TokenizedDataset;
pub use trainer::{
    BestModel, Evaluation, EvaluationRecord, Observer, Rows, Saving, StepRecord, TrainSettings, TrainSummary,
    evaluate, train,
};
pub use validation::{Best, BestBy, Every, SaveEvery, TrainState, ValidationSettings};
