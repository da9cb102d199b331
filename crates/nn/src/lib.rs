//! Building blocks of models: parameters, layers, and the weights of checkpoints.
//!
//! Reading order: [`ParameterStore`] for what is trained, [`Builder`] for where its values come from, [`layers`] for what
//! computes with it. [`Weights`] reads safetensors files under the [`Names`] of a model family, and [`SavedWeights`] writes
//! them. [`Taps`] read and change what a model computes on the way.

mod adapters;
mod builder;
mod error;
mod keys;
pub mod layers;
mod lfs;
mod names;
mod parameters;
pub mod read;
mod save;
mod source;
mod taps;
pub mod weights;

pub use adapters::{ADAPTER_PREFIX, Adapter};
pub use builder::{Builder, Init};
pub use error::{NnError, Result};
pub use keys::{KeyReport, listed, printable};
pub use layers::{Dropout, Embedding, Embeddings, FeedForward, LayerNorm, Linear, MultiHeadAttention, Pass};
pub use lfs::{lfs_pointer, refuse_lfs_pointer};
pub use names::Names;
pub use parameters::{Model, Parameter, ParameterStore, Part, Precision};
pub use save::SavedWeights;
pub use source::{Bundle, Input, Source};
pub use taps::{At, Extent, LayerPoint, NothingChosen, Point, Tap, Taps, UnknownPoint};
pub use weights::{WEIGHTS_FILE, Weights};
