//! Methods that explain what a model does, over the points of [`vitrine_nn::Taps`]: the same model and the same kernels that train.
//!
//! A [`Subject`] is a model of any kind with its tokenizer, and reads a [`Text`]. Every method takes [`Blocks`]: heads and edges that
//! take no part. Each stands in a file with its source: [`attribution`](Subject::attribute), [`ablation`](Subject::ablate_heads),
//! [`lens`](Subject::lens), [`attention`](Subject::attention).
//!
//! Dimensions: `S` tokens of the text, `C` hidden width, `L` layers, `H` heads, `K` classes.

mod ablation;
mod attention;
mod attribution;
mod backward;
mod blocks;
mod comparison;
mod error;
mod lens;
mod patching;
mod prediction;
mod probe;
mod states;
mod subject;
mod text;

pub use ablation::{
    Ablations, EdgeAblations, EdgeChange, LayerAblations, LayerChange, LayerPart, MOST_EDGES,
};
pub use attention::{Attention, HeadNumbers};
pub use attribution::{Attributions, Baseline, Method, Steps, Wanted};
pub use backward::{BackwardLens, Direction};
pub use blocks::{Blocks, Edge};
pub use comparison::{Drift, Moved, drift, linear_cka};
pub use error::{ExplainError, Result};
pub use lens::{Guess, Lens};
pub use patching::{Patched, Patching};
pub use prediction::{Prediction, Watch};
pub use probe::Probe;
pub use states::{Pooling, Rows};
pub use subject::Subject;
pub use text::{Text, Token};
