//! BERT and its relatives: configuration, tokenizer, model folders and models.
//!
//! Reading order: [`ModelConfig`] for the sizes, [`Tokenizer`] and [`TokenBatch`] for the input, [`Weights`] for where
//! parameters come from; then [`Family`] for what distinguishes models, and the model from the outside in:
//! [`model`](SequenceClassifier), `encoder`, `heads`; its layers are those of `vitrine-nn`.
//!
//! # Looking inside
//!
//! [`Taps`] read and change what a model computes at its [points](Point), in the same forward pass that trains:
//!
//! ```
//! use vitrine_autograd::{BlockedEdges, Blocking, Edge, Tape};
//! use vitrine_bert::{ModelConfig, SequenceClassifier, Taps, TokenBatch};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let config = ModelConfig {
//! #     vocab_size: 100, hidden_size: 48, num_hidden_layers: 4, num_attention_heads: 6, intermediate_size: 64,
//! #     ..ModelConfig::default()
//! # };
//! let model = SequenceClassifier::random(config, 1)?;
//! // [CLS] not that bad [SEP]
//! let batch = TokenBatch::new([[2, 45, 61, 17, 3]], Some(&[1]), model.config())?;
//! let (not, bad) = (1, 3);
//!
//! let mut taps = Taps::new();
//! // Read the attention maps of layer 3, and their gradients.
//! let maps = taps.read_with_gradient("layer.3.attention.probs".parse()?);
//! // Ablate head 5 of layer 2.
//! taps.scale_heads(2, vec![1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
//! // "bad" must not attend to "not" in layer 1, in any head.
//! let edge = Edge { sequence: Some(0), head: None, query: bad, key: not };
//! taps.block(1, BlockedEdges { edges: vec![edge], blocking: Blocking::Renormalise });
//!
//! let tape = Tape::recording();
//! let loss = model.forward(&tape, &batch, &taps)?.logits.cross_entropy(&[1])?.id();
//! let gradients = tape.backward(loss, &taps.ids())?;
//! let map = &taps.values(maps)?[0];
//! let gradient = &taps.gradients(maps, &gradients)?[0];
//! assert_eq!(map.dims(), [6, 5, 5]);
//! assert_eq!(gradient.dims(), map.dims());
//! # Ok(())
//! # }
//! ```

mod audit;
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
mod tapped;
mod tokenizer;

pub use audit::{Audited, Finding, audit};
pub use batch::{Teacher, TokenBatch};
pub use checkpoint::{AnyModel, Checkpoint, Head, Loaded, load_any};
pub use config::{CONFIG_FILE, ModelConfig};
pub use cost::Cost;
pub use data_columns::DataColumns;
pub use error::{BertError, FolderProblem, Result};
pub use families::Family;
pub use files::{StagedFiles, reserve_growth, write_atomically};
pub use folder::{check_model_folder, looks_like_hub_name, unfinished_run};
pub use model::{BaseModel, Classified, MaskedLm, SequenceClassifier};
pub use place::Place;
pub use repository::{model_files, tokenizer_files};
pub use tapped::TappedModel;
pub use tokenizer::{Encoding, MIN_LENGTH, Tokenizer, Truncation};
pub use vitrine_nn::read::read_text;
pub use vitrine_nn::{At, Extent, LayerPoint, NothingChosen, Point, Tap, Taps, UnknownPoint};
pub use vitrine_nn::{Bundle, KeyReport, Source, WEIGHTS_FILE, Weights, lfs_pointer, refuse_lfs_pointer};
