//! BERT and its relatives: configuration, tokenizer, model folders and models.
//!
//! Reading order: [`ModelConfig`] for the sizes, [`Tokenizer`] and [`TokenBatch`] for the input, [`Weights`] for where
//! parameters come from; then [`Family`] for what distinguishes models, and the model from the outside in:
//! [`model`](SequenceClassifier), `encoder`, `heads`; its layers are those of `vitrine-nn`.

mod batch;
mod checkpoint;
mod config;
mod cost;
mod data_columns;
mod encoder;
mod error;
mod families;
mod files;
mod folder;
mod heads;
mod labels;
mod model;
pub mod panics;
mod place;
mod repository;
mod save;
mod sites;
mod tokenizer;

pub use batch::{Teacher, TokenBatch};
pub use checkpoint::{AnyModel, Checkpoint, Head, Loaded, load_any};
pub use config::{CONFIG_FILE, ModelConfig};
pub use cost::Cost;
pub use data_columns::DataColumns;
pub use encoder::{Encoded, Observe};
pub use error::{BertError, FolderProblem, Result};
pub use families::Family;
pub use files::{StagedFiles, reserve_growth, write_atomically};
pub use folder::{check_model_folder, looks_like_hub_name, unfinished_run};
pub use model::{BaseModel, Classified, MaskedLm, SequenceClassifier};
pub use place::Place;
pub use repository::{model_files, tokenizer_files};
pub use tokenizer::{Encoding, MIN_LENGTH, Tokenizer, Truncation};
pub use vitrine_nn::read::read_text;
pub use vitrine_nn::{Bundle, KeyReport, Source, WEIGHTS_FILE, Weights, lfs_pointer, refuse_lfs_pointer};
