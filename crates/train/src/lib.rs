//! Training of Vitrine's models: data, sampling, the built-in corpus, metrics and learning-rate schedules.
//!
//! Reading order: [`data`] for how rows get in, [`data::sampling`] for which of them are used and in which order,
//! [`schedule`] and [`metrics`] for the numbers around a step.

pub mod corpus;
pub mod data;
mod error;
pub mod metrics;
pub mod schedule;

pub use error::{Place, Result, TrainError};
