//! Reverse-mode automatic differentiation on a Wengert list.
//!
//! A [`Tape`] records what a model does to [`Var`]s; [`Tape::backward`] walks the list in reverse. The model is written
//! once: a recording tape keeps what gradients need, an inference tape keeps nothing. Reading order: [`Op`] for what can be
//! recorded, `rules.rs` for every gradient, [`Tape`] for the walk. What a model trains is known here by [`ParameterId`] only.

#[cfg(feature = "cases")]
pub mod cases;
mod error;
mod gradients;
mod op;
mod open_attention;
mod parameter;
mod rules;
mod tape;
mod var;

pub use error::{AutogradError, Direction, NotFinite, Result};
pub use gradients::Gradients;
pub use op::{Op, Saved, Segment};
pub use open_attention::{AttentionMatrix, BlockedEdges, Blocking, Edge, Look};
pub use parameter::{Operand, ParameterId};
pub use tape::{Node, Profile, Randomness, ScopeGuard, Tape, TimedOp, VarId};
pub use var::{AttentionSettings, EmbedParameters, TokenIds, Var};
