//! [`Op`]: everything that can stand on a tape, with what its gradient needs.

use crate::tape::{Randomness, Tape};
use crate::{ParameterId, Result, Var};
use std::fmt;
use std::sync::Arc;
use vitrine_tensor::ops::attention::{AttentionOptions, Queries};
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::{DType, Dropout, Offsets, Tensor};

type Function = dyn for<'t> Fn(&'t Tape, &Var<'t>) -> Result<Var<'t>> + Send + Sync;

/// A part of a model that saves only its input and is computed again in backward: gradient checkpointing (Chen et al.,
/// "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174). The function is a function of its input, of the
/// parameters that it takes from its tape, and of the step's randomness; so the second time it computes the very same.
#[derive(Clone)]
pub struct Segment(Arc<Function>);

impl Segment {
    /// A segment. The function may not hold on to what it computes, and may not contain another segment.
    pub fn new(
        function: impl for<'t> Fn(&'t Tape, &Var<'t>) -> Result<Var<'t>> + Send + Sync + 'static,
    ) -> Self {
        Segment(Arc::new(function))
    }

    /// Runs it on a tape.
    pub(crate) fn run<'t>(&self, tape: &'t Tape, x: &Var<'t>) -> Result<Var<'t>> {
        (self.0)(tape, x)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Segment")
    }
}

/// An operation and what it saved. The list is closed: `rules.rs` matches on it without a wildcard, so an operation
/// without a gradient does not compile.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the fields are the operands and results that the operation of that name documents"
)]
pub enum Op {
    /// A value without a gradient.
    Constant,
    /// A value whose gradient is wanted.
    Leaf,
    /// A parameter of the model.
    Parameter(ParameterId),

    // BERT's operations.
    /// Inputs: word, position and token-type tables, LayerNorm weight and bias.
    EmbedLayerNorm {
        ids: Arc<[u32]>,
        token_types: Arc<[u32]>,
        positions: Arc<[u32]>,
        /// Rows of the three tables.
        rows: [usize; 3],
        sum: Tensor,
        mean: Tensor,
        rstd: Tensor,
        weight: Tensor,
    },
    /// Inputs: x, weight, bias. What is saved of x has the weight's dtype.
    Linear { x: Tensor, weight: Tensor, activation: Activation, saved: Option<Tensor>, x_dtype: DType },
    /// Input: qkv.
    Attention {
        qkv: Tensor,
        lse: Tensor,
        heads: usize,
        softmax_scale: f64,
        offsets: Offsets,
        queries: Queries,
        options: AttentionOptions,
    },
    /// Input: x.
    Dropout { dropout: Dropout, offsets: Offsets },
    /// Inputs: x, residual, weight, bias.
    DropoutAddLayerNorm {
        sum: Tensor,
        mean: Tensor,
        rstd: Tensor,
        weight: Tensor,
        dropout: Option<Dropout>,
        offsets: Offsets,
        x_dtype: DType,
    },
    /// Inputs: x, and the parameters that the function takes, in that order.
    Segment { x: Tensor, function: Segment, parameters: Vec<ParameterId>, randomness: Option<Randomness> },
    /// Input: x.
    GatherRows { indices: Arc<[u32]>, rows: usize },
    /// Input: logits.
    CrossEntropy { probabilities: Tensor, labels: Arc<[u32]> },

    // General tensor code.
    /// Inputs: a, b.
    Add { a: Vec<usize>, b: Vec<usize> },
    /// Inputs: a, b.
    Sub { a: Vec<usize>, b: Vec<usize> },
    /// Inputs: a, b.
    Mul { a: Tensor, b: Tensor },
    /// Inputs: a, b.
    Div { a: Vec<usize>, b: Tensor, y: Tensor },
    /// Input: x.
    Scale { factor: f64 },
    /// Input: x.
    AddScalar,
    /// Input: x.
    Exp { y: Tensor },
    /// Input: x.
    Ln { x: Tensor },
    /// Input: x.
    Sqrt { y: Tensor },
    /// Input: x.
    Tanh { y: Tensor },
    /// Input: x.
    Relu { y: Tensor },
    /// Input: x.
    GeluErf { x: Tensor },
    /// Input: x.
    GeluTanh { x: Tensor },
    /// Input: x.
    Softmax { y: Tensor },
    /// Input: x.
    LogSoftmax { y: Tensor },
    /// Inputs: x, weight, bias.
    LayerNorm { x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor },
    /// Input: the table.
    Embedding { ids: Arc<[u32]>, rows: usize },
    /// Inputs: a, b.
    Matmul { a: Tensor, b: Tensor },
    /// Input: x.
    Transpose { dims: [usize; 2] },
    /// Input: x.
    Reshape { from: Vec<usize> },
    /// Input: x.
    Cast { from: DType },
    /// Input: x.
    Narrow { dim: usize, start: usize, length: usize },
    /// Input: x.
    BroadcastTo { from: Vec<usize> },
    /// Inputs: the pieces, of these lengths along the dimension.
    Cat { dim: usize, lengths: Vec<usize> },
    /// Input: x.
    Max { from: Vec<usize>, dim: usize, indices: Tensor },
    /// Input: x.
    Sum { from: Vec<usize>, dim: usize, keepdim: bool },
}

impl Op {
    /// The name, as in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Constant => "constant",
            Op::Leaf => "leaf",
            Op::Parameter(_) => "parameter",
            Op::EmbedLayerNorm { .. } => "embed_layer_norm",
            Op::Linear { activation, .. } => match activation {
                Activation::None => "linear",
                Activation::GeluErf => "linear + gelu_erf",
                Activation::GeluTanh => "linear + gelu_tanh",
                Activation::Relu => "linear + relu",
                Activation::Tanh => "linear + tanh",
            },
            Op::Attention { .. } => "attention",
            Op::Dropout { .. } => "dropout",
            Op::DropoutAddLayerNorm { .. } => "dropout_add_layer_norm",
            Op::Segment { .. } => "segment",
            Op::GatherRows { .. } => "gather_rows",
            Op::CrossEntropy { .. } => "cross_entropy",
            Op::Add { .. } => "add",
            Op::Sub { .. } => "sub",
            Op::Mul { .. } => "mul",
            Op::Div { .. } => "div",
            Op::Scale { .. } => "scale",
            Op::AddScalar => "add_scalar",
            Op::Exp { .. } => "exp",
            Op::Ln { .. } => "ln",
            Op::Sqrt { .. } => "sqrt",
            Op::Tanh { .. } => "tanh",
            Op::Relu { .. } => "relu",
            Op::GeluErf { .. } => "gelu_erf",
            Op::GeluTanh { .. } => "gelu_tanh",
            Op::Softmax { .. } => "softmax",
            Op::LogSoftmax { .. } => "log_softmax",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Embedding { .. } => "embedding",
            Op::Matmul { .. } => "matmul",
            Op::Transpose { .. } => "transpose",
            Op::Reshape { .. } => "reshape",
            Op::Cast { .. } => "cast",
            Op::Narrow { .. } => "narrow",
            Op::BroadcastTo { .. } => "broadcast_to",
            Op::Cat { .. } => "cat",
            Op::Max { .. } => "max",
            Op::Sum { .. } => "sum",
        }
    }

    /// The activations that backward needs, parameters not counted; a tensor that is also another operation's may occur
    /// there again.
    pub fn saved(&self) -> Vec<&Tensor> {
        match self {
            Op::EmbedLayerNorm { sum, mean, rstd, .. } | Op::DropoutAddLayerNorm { sum, mean, rstd, .. } => {
                vec![sum, mean, rstd]
            }
            Op::Linear { x, saved, .. } => [x].into_iter().chain(saved).collect(),
            Op::Attention { qkv, lse, .. } => vec![qkv, lse],
            Op::CrossEntropy { probabilities, .. } => vec![probabilities],
            Op::Mul { a, b } | Op::Matmul { a, b } => vec![a, b],
            Op::Div { b, y, .. } => vec![b, y],
            Op::Exp { y }
            | Op::Sqrt { y }
            | Op::Tanh { y }
            | Op::Relu { y }
            | Op::Softmax { y }
            | Op::LogSoftmax { y } => vec![y],
            Op::Max { indices, .. } => vec![indices],
            Op::Segment { x, .. } | Op::Ln { x } | Op::GeluErf { x } | Op::GeluTanh { x } => vec![x],
            Op::LayerNorm { x, mean, rstd, .. } => vec![x, mean, rstd],
            _ => Vec::new(),
        }
    }

    /// Floating-point operations of forward for a result of `numel` elements: of the matrix products and attention
    /// exactly, of everything else none, as is the custom.
    pub fn flops(&self, numel: usize) -> u64 {
        let flops = match self {
            Op::Linear { weight, .. } => 2 * numel * weight.dims()[1],
            Op::Matmul { a, .. } => 2 * numel * a.shape().last_dim(),
            Op::Attention { qkv, offsets, queries, .. } => {
                let pairs = match queries {
                    Queries::All => offsets.sum_of_squares(),
                    Queries::First => offsets.total(),
                };
                4 * pairs * (qkv.shape().last_dim() / 3)
            }
            _ => 0,
        };
        flops as u64
    }
}
