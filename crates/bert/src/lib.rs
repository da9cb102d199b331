//! BERT: configuration, tokenizer, weights and model.
//!
//! Reading order: [`BertConfig`] for the sizes, [`Tokenizer`] and [`TokenBatch`] for the input, [`Weights`] for where
//! parameters come from.

mod batch;
mod config;
mod error;
mod files;
mod tokenizer;
pub mod weights;

pub use batch::TokenBatch;
pub use config::{BertConfig, CONFIG_FILE};
pub use error::{BertError, Result};
pub use files::{StagedFiles, write_atomically};
pub use tokenizer::{Encoding, MIN_LENGTH, Tokenizer};
pub use weights::{KeyReport, WEIGHTS_FILE, Weights};
