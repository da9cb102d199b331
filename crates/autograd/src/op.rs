//! [`Op`]: everything that can stand on a tape, with what its gradient needs.

use crate::tape::{Randomness, Tape};
use crate::{AutogradError, ParameterId, Result, Var};
use std::fmt;
use std::sync::Arc;
use vitrine_tensor::ops::attention::{AttentionOptions, Queries};
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::ops::source::{Source, source};
use vitrine_tensor::{DType, Dropout, Offsets, Shape, Tensor};

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

/// A tensor of an operation that its gradients take. Kept only if an input whose gradient takes it needs one; the shape is always
/// known.
#[derive(Clone, Debug)]
pub struct Saved {
    shape: Shape,
    tensor: Option<Tensor>,
}

impl Saved {
    /// `tensor` if it is `wanted`, else its shape.
    pub(crate) fn new(tensor: &Tensor, wanted: bool) -> Self {
        Saved { shape: *tensor.shape(), tensor: wanted.then(|| tensor.clone()) }
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        &self.shape
    }

    /// The tensor, if it is kept.
    pub fn tensor(&self) -> Option<&Tensor> {
        self.tensor.as_ref()
    }

    /// The tensor, for a rule that takes it.
    pub(crate) fn get(&self) -> Result<&Tensor> {
        self.tensor.as_ref().ok_or(AutogradError::NotSaved)
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
        sum: Saved,
        mean: Saved,
        rstd: Saved,
        weight: Saved,
    },
    /// Inputs: x, weight, bias. What is saved of x has the weight's dtype; `saved` is what the activation's derivative takes.
    Linear { x: Saved, weight: Saved, activation: Activation, saved: Option<Saved>, x_dtype: DType },
    /// Input: qkv.
    Attention {
        qkv: Saved,
        lse: Saved,
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
        sum: Saved,
        mean: Saved,
        rstd: Saved,
        weight: Saved,
        dropout: Option<Dropout>,
        offsets: Offsets,
        x_dtype: DType,
    },
    /// Inputs: x, and the parameters that the function takes, in that order. The FLOPs are those of what is inside.
    Segment {
        x: Saved,
        function: Segment,
        parameters: Vec<ParameterId>,
        randomness: Option<Randomness>,
        /// Whether the tape on which it is run again checks what is in it.
        checks: bool,
        flops: u64,
    },
    /// Input: x.
    GatherRows { indices: Arc<[u32]>, rows: usize },
    /// Input: logits.
    CrossEntropy { probabilities: Saved, labels: Arc<[u32]> },

    // General tensor code.
    /// Inputs: a, b.
    Add { a: Vec<usize>, b: Vec<usize> },
    /// Inputs: a, b.
    Sub { a: Vec<usize>, b: Vec<usize> },
    /// Inputs: a, b.
    Mul { a: Saved, b: Saved },
    /// Inputs: a, b.
    Div { a: Vec<usize>, b: Saved, y: Saved },
    /// Input: x.
    Scale { factor: f64 },
    /// Input: x.
    AddScalar,
    /// Input: x.
    Exp { y: Saved },
    /// Input: x.
    Ln { x: Saved },
    /// Input: x.
    Sqrt { y: Saved },
    /// Input: x.
    Tanh { y: Saved },
    /// Input: x.
    Relu { y: Saved },
    /// Input: x.
    GeluErf { x: Saved },
    /// Input: x.
    GeluTanh { x: Saved },
    /// Input: x.
    Softmax { y: Saved },
    /// Input: x.
    LogSoftmax { y: Saved },
    /// Inputs: x, weight, bias.
    LayerNorm { x: Saved, weight: Saved, mean: Saved, rstd: Saved },
    /// Inputs: x, weight.
    RmsNorm { x: Saved, weight: Saved, rstd: Saved },
    /// Input: the table.
    Embedding { ids: Arc<[u32]>, rows: usize },
    /// Inputs: a, b.
    Matmul { a: Saved, b: Saved },
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
    Max { from: Vec<usize>, dim: usize, indices: Saved },
    /// Input: x.
    Sum { from: Vec<usize>, dim: usize, keepdim: bool },
}

/// Names the variants of [`Op`]: a variant that stands on no line does not compile.
macro_rules! names {
    ($($variant:ident $name:literal,)*) => {
        impl Op {
            /// Every variant, as it is written here, and its name: that of its method on [`Var`], and of the rows that check its rule.
            pub const VARIANTS: &[(&str, &str)] = &[$((stringify!($variant), $name)),*];

            /// This variant's entry in [`Op::VARIANTS`].
            pub fn variant(&self) -> (&'static str, &'static str) {
                match self {
                    $(Op::$variant { .. } => (stringify!($variant), $name),)*
                }
            }
        }
    };
}

names! {
    Constant "constant",
    Leaf "leaf",
    Parameter "parameter",
    EmbedLayerNorm "embed_layer_norm",
    Linear "linear",
    Attention "attention",
    Dropout "dropout",
    DropoutAddLayerNorm "dropout_add_layer_norm",
    Segment "segment",
    GatherRows "gather_rows",
    CrossEntropy "cross_entropy",
    Add "add",
    Sub "sub",
    Mul "mul",
    Div "div",
    Scale "scale",
    AddScalar "add_scalar",
    Exp "exp",
    Ln "ln",
    Sqrt "sqrt",
    Tanh "tanh",
    Relu "relu",
    GeluErf "gelu_erf",
    GeluTanh "gelu_tanh",
    Softmax "softmax",
    LogSoftmax "log_softmax",
    LayerNorm "layer_norm",
    RmsNorm "rms_norm",
    Embedding "embedding",
    Matmul "matmul",
    Transpose "transpose",
    Reshape "reshape",
    Cast "cast",
    Narrow "narrow",
    BroadcastTo "broadcast_to",
    Cat "cat",
    Max "max",
    Sum "sum",
}

impl Op {
    /// The name, as in reports.
    pub fn name(&self) -> &'static str {
        let Op::Linear { activation, .. } = self else { return self.variant().1 };
        match activation {
            Activation::None => "linear",
            Activation::GeluErf => "linear + gelu_erf",
            Activation::GeluTanh => "linear + gelu_tanh",
            Activation::Relu => "linear + relu",
            Activation::Tanh => "linear + tanh",
        }
    }

    /// Where it stands and what it computes; none of what is given (constants, leaves, parameters) and of a segment, which is
    /// operations itself.
    pub fn source(&self) -> Option<&'static Source> {
        source(self.variant().1)
    }

    /// What backward takes, weights of layers not counted; a tensor that is also another operation's may occur there again.
    pub fn saved(&self) -> Vec<&Tensor> {
        let saved: Vec<&Saved> = match self {
            Op::Constant
            | Op::Leaf
            | Op::Parameter(_)
            | Op::Dropout { .. }
            | Op::GatherRows { .. }
            | Op::Add { .. }
            | Op::Sub { .. }
            | Op::Scale { .. }
            | Op::AddScalar
            | Op::Embedding { .. }
            | Op::Transpose { .. }
            | Op::Reshape { .. }
            | Op::Cast { .. }
            | Op::Narrow { .. }
            | Op::BroadcastTo { .. }
            | Op::Cat { .. }
            | Op::Sum { .. } => vec![],
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
            Op::RmsNorm { x, rstd, .. } => vec![x, rstd],
        };
        saved.into_iter().filter_map(Saved::tensor).collect()
    }

    /// Floating-point operations of forward for a result of `numel` elements: one for each addition, multiplication, division
    /// and comparison of two elements, and one for each `exp`, `ln`, `sqrt`, `tanh` or `erf` of an element. Copies, look-ups and
    /// conversions are none, and what is done once for a whole row (a division by its length, a root) is not counted.
    ///
    /// The nominal FLOPs of a model, which benchmarks report, are counted by `BertConfig::cost`: products and attention alone.
    pub fn flops(&self, numel: usize) -> u64 {
        let numel_of = |dims: &[usize]| dims.iter().product::<usize>();
        let flops = match self {
            Op::Constant
            | Op::Leaf
            | Op::Parameter(_)
            | Op::GatherRows { .. }
            | Op::Embedding { .. }
            | Op::Transpose { .. }
            | Op::Reshape { .. }
            | Op::Cast { .. }
            | Op::Narrow { .. }
            | Op::BroadcastTo { .. }
            | Op::Cat { .. } => 0,
            // Two sums of tables.
            Op::EmbedLayerNorm { .. } => (2 + LAYER_NORM) * numel,
            // K products and K sums: the last one is that of the bias.
            Op::Linear { weight, activation, .. } => {
                let of_activation = match activation {
                    Activation::None => 0,
                    Activation::GeluErf => GELU_ERF,
                    Activation::GeluTanh => GELU_TANH,
                    Activation::Relu | Activation::Tanh => 1,
                };
                (2 * weight.dims()[1] + of_activation) * numel
            }
            // A pair of rows has 2 D for its score, its softmax, and 2 D for its share of the result, in each head.
            Op::Attention { qkv, offsets, queries, heads, .. } => {
                let pairs = match queries {
                    Queries::All => offsets.sum_of_squares(),
                    Queries::First => offsets.total(),
                };
                let width = qkv.dims().last().map_or(0, |width| width / 3);
                pairs * (4 * width + SOFTMAX * heads)
            }
            Op::DropoutAddLayerNorm { dropout, .. } => {
                (usize::from(dropout.is_some()) + 1 + LAYER_NORM) * numel
            }
            Op::Segment { flops, .. } => return *flops,
            Op::CrossEntropy { probabilities, .. } => SOFTMAX * numel_of(probabilities.dims()),
            Op::Dropout { .. }
            | Op::Add { .. }
            | Op::Sub { .. }
            | Op::Mul { .. }
            | Op::Div { .. }
            | Op::Scale { .. }
            | Op::AddScalar
            | Op::Exp { .. }
            | Op::Ln { .. }
            | Op::Sqrt { .. }
            | Op::Tanh { .. }
            | Op::Relu { .. } => numel,
            Op::GeluErf { .. } => GELU_ERF * numel,
            Op::GeluTanh { .. } => GELU_TANH * numel,
            Op::Softmax { .. } | Op::LogSoftmax { .. } => SOFTMAX * numel,
            Op::LayerNorm { .. } => LAYER_NORM * numel,
            Op::RmsNorm { .. } => RMS_NORM * numel,
            Op::Matmul { a, .. } => 2 * a.dims().last().copied().unwrap_or(1) * numel,
            Op::Max { from, .. } | Op::Sum { from, .. } => numel_of(from),
        };
        flops as u64
    }
}

/// An element's share of the mean; difference, square and sum of the variance; difference, rstd, weight and bias.
const LAYER_NORM: usize = 8;
/// Square and sum; times rstd, times weight.
const RMS_NORM: usize = 4;
/// Maximum, difference, exponential, sum, and the division by it (in log_softmax, the subtraction of its logarithm).
const SOFTMAX: usize = 5;
/// `x / sqrt 2`, erf, plus 1, times 1/2, times x.
const GELU_ERF: usize = 5;
/// x cubed, its factor, plus x, their factor, tanh, plus 1, times 1/2, times x.
const GELU_TANH: usize = 9;
