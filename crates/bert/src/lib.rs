//! BERT: configuration, tokenizer, weights and models.
//!
//! Reading order: [`BertConfig`] for the sizes, [`Tokenizer`] and [`TokenBatch`] for the input, [`Weights`] for where
//! parameters come from; then the model from the outside in: [`model`](BertForSequenceClassification), `encoder`, `attention`,
//! `embeddings`, `heads`.

mod batch;
mod checkpoint;
mod config;
mod cost;
mod data_columns;
mod encoder;
mod error;
mod files;
mod folder;
mod heads;
mod labels;
mod model;
mod names;
pub mod panics;
mod save;
mod sites;
mod tokenizer;

pub use batch::TokenBatch;
pub use checkpoint::{AnyModel, Checkpoint, Head, Loaded, load_any};
pub use config::{BertConfig, CONFIG_FILE};
pub use cost::Cost;
pub use data_columns::DataColumns;
pub use encoder::{Encoded, Observe};
pub use error::{BertError, FolderProblem, Result};
pub use files::{StagedFiles, write_atomically};
pub use folder::{check_model_folder, looks_like_hub_name};
pub use model::{BertForMaskedLm, BertForSequenceClassification, BertModel, Classified};
pub use names::NAMES;
pub use tokenizer::{Encoding, MIN_LENGTH, Tokenizer};
pub use vitrine_nn::read::read_text;
pub use vitrine_nn::{KeyReport, WEIGHTS_FILE, Weights, lfs_pointer, refuse_lfs_pointer};
