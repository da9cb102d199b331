//! [`Var`]: a value on a tape, and its operations. A method exists only because a rule does.

use crate::tape::{Tape, VarId};
use crate::{Op, Result, Saved, Segment};
use std::sync::Arc;
use vitrine_tensor::ops::attention::{AttentionOptions, Queries, attention};
use vitrine_tensor::ops::embedding::{embed_layer_norm, embedding};
use vitrine_tensor::ops::linear::{Activation, Bias, linear};
use vitrine_tensor::ops::{
    cross_entropy, dropout, dropout_add_layer_norm, elementwise, gelu, layer_norm, matmul, movement, reduce,
    rms_norm, softmax,
};
use vitrine_tensor::{DType, Offsets, Tensor};

/// A value, and its place on a tape. Holds its tensor; the tape holds only what gradients need.
#[derive(Clone)]
pub struct Var<'t> {
    pub(crate) tape: &'t Tape,
    pub(crate) id: VarId,
    pub(crate) value: Tensor,
    /// The same in a half type, from an operation that handed it out beside, or a parameter's copy.
    pub(crate) rounded: Option<Tensor>,
    pub(crate) needs_gradient: bool,
}

/// The ids of a batch: one word, token type and position for each of T tokens.
#[derive(Clone, Debug)]
pub struct TokenIds {
    /// Rows of the word table.
    pub ids: Arc<[u32]>,
    /// Rows of the token-type table.
    pub token_types: Arc<[u32]>,
    /// Rows of the position table.
    pub positions: Arc<[u32]>,
}

/// The parameters of [`Var::embed_layer_norm`].
pub struct EmbedParameters<'a, 't> {
    /// `[V, C]`.
    pub word: &'a Var<'t>,
    /// `[positions, C]`.
    pub position: &'a Var<'t>,
    /// `[types, C]`.
    pub token_type: &'a Var<'t>,
    /// `[C]`.
    pub weight: &'a Var<'t>,
    /// `[C]`.
    pub bias: &'a Var<'t>,
    /// LayerNorm's epsilon.
    pub eps: f64,
}

/// How [`Var::attention`] attends.
#[derive(Clone, Debug)]
pub struct AttentionSettings {
    /// The number of heads H.
    pub heads: usize,
    /// What scores are multiplied by: `1 / sqrt(D)`.
    pub softmax_scale: f64,
    /// Which rows ask.
    pub queries: Queries,
    /// The probability of dropping an attention probability.
    pub dropout_p: f64,
    /// The dropout's site.
    pub site: u16,
    /// Heads whose probabilities are wanted.
    pub probabilities_for: Vec<usize>,
}

impl<'t> Var<'t> {
    /// The value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The value alone.
    pub fn into_value(self) -> Tensor {
        self.value
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        self.value.dims()
    }

    /// The place on the tape.
    pub fn id(&self) -> VarId {
        self.id
    }

    /// Whether its gradient is wanted: it is a leaf or a trainable parameter, or depends on one.
    pub fn needs_gradient(&self) -> bool {
        self.needs_gradient
    }

    /// The tape.
    pub fn tape(&self) -> &'t Tape {
        self.tape
    }

    /// Sum of three embeddings a token, normalised: `[T, C]`.
    ///
    /// # Errors
    /// As [`embed_layer_norm`].
    pub fn embed_layer_norm(tokens: &TokenIds, p: &EmbedParameters<'_, 't>) -> Result<Var<'t>> {
        let inputs = [p.word, p.position, p.token_type, p.weight, p.bias];
        p.word.tape.apply(&inputs, |needs| {
            let TokenIds { ids, token_types, positions } = tokens.clone();
            let [word, position, token_type, weight, bias] = inputs.map(|input| &input.value);
            let out = embed_layer_norm(
                &ids,
                &token_types,
                &positions,
                word,
                position,
                token_type,
                weight,
                bias,
                p.eps,
            )?;
            let rows = [word, position, token_type].map(|table| table.dims()[0]);
            // One pass makes all gradients but the bias's, which takes only dy.
            let any = needs[..4].contains(&true);
            let [sum, mean, rstd, weight] =
                [&out.sum, &out.mean, &out.rstd, weight].map(|tensor| Saved::new(tensor, any));
            Ok((out.y, Op::EmbedLayerNorm { ids, token_types, positions, rows, sum, mean, rstd, weight }))
        })
    }

    /// `act(self W^T + bias)`: `[T, N]`, in the precision of the weight, to which an F32 self is rounded.
    ///
    /// # Errors
    /// As [`linear`].
    pub fn linear(
        &self,
        weight: &Var<'t>,
        bias: Option<&Var<'t>>,
        activation: Activation,
    ) -> Result<Var<'t>> {
        let inputs: Vec<&Var<'t>> = [self, weight].into_iter().chain(bias).collect();
        self.tape.apply(&inputs, |needs| {
            // A layer of which nobody needs a gradient is used as in inference: its weight is not about to change.
            let any = needs.contains(&true);
            let dtype = weight.value.dtype();
            let x = match &self.rounded {
                Some(rounded) if rounded.dtype() == dtype => rounded.clone(),
                _ if self.value.dtype() == dtype.accumulator() => self.value.to_dtype(dtype)?,
                _ => self.value.clone(),
            };
            let bias = bias.map(|bias| Bias { value: &bias.value, rounded: bias.rounded.as_ref() });
            let out = linear(&x, &weight.value, bias, activation, any)?;
            let saved = match activation {
                Activation::None => None,
                _ if activation.needs_pre_activation() => out.pre_activation,
                _ => Some(out.y.clone()),
            };
            let saved = saved.map(|saved| Saved::new(&saved, any));
            let (x, weight) = (Saved::new(&x, needs[1]), Saved::new(&weight.value, needs[0]));
            let x_dtype = self.value.dtype();
            Ok((out.y, Op::Linear { x, weight, activation, saved, x_dtype }))
        })
    }

    /// Attention of `self: [T, 3C]` within the sequences of `offsets`: `[T, C]`, or `[B, C]` when only first rows ask; and
    /// the probabilities that were asked for, one tensor a sequence.
    ///
    /// # Errors
    /// As [`attention`].
    pub fn attention(
        &self,
        offsets: &Offsets,
        settings: &AttentionSettings,
    ) -> Result<(Var<'t>, Vec<Tensor>)> {
        let mut probabilities = Vec::new();
        let &AttentionSettings { heads, softmax_scale, queries, dropout_p, site, .. } = settings;
        let out = self.tape.apply(&[self], |needs| {
            let options = AttentionOptions {
                dropout: self.tape.dropout_at(dropout_p, site),
                probabilities_for: settings.probabilities_for.clone(),
            };
            let result = attention(&self.value, heads, softmax_scale, offsets, queries, &options)?;
            probabilities = result.probabilities;
            let [qkv, lse] = [&self.value, &result.lse].map(|tensor| Saved::new(tensor, needs[0]));
            let offsets = offsets.clone();
            Ok((result.out, Op::Attention { qkv, lse, heads, softmax_scale, offsets, queries, options }))
        })?;
        Ok((out, probabilities))
    }

    /// Dropout of `self: [T, C]`, whose rows are the tokens of `offsets`; the variable itself when nothing is dropped.
    ///
    /// # Errors
    /// As [`dropout::dropout`].
    pub fn dropout(&self, dropout_p: f64, site: u16, offsets: &Offsets) -> Result<Var<'t>> {
        let Some(dropout) = self.tape.dropout_at(dropout_p, site) else { return Ok(self.clone()) };
        self.tape.apply(&[self], |_| {
            let y = dropout::dropout(&self.value, &dropout, offsets)?;
            Ok((y, Op::Dropout { dropout, offsets: offsets.clone() }))
        })
    }

    /// `LayerNorm(residual + dropout(self))`.
    ///
    /// # Errors
    /// As [`dropout_add_layer_norm::dropout_add_layer_norm`].
    pub fn dropout_add_layer_norm(
        &self,
        residual: &Var<'t>,
        weight: &Var<'t>,
        bias: &Var<'t>,
        eps: f64,
        (dropout_p, site): (f64, u16),
        offsets: &Offsets,
    ) -> Result<Var<'t>> {
        let mut rounded = None;
        let y = self.tape.apply(&[self, residual, weight, bias], |needs| {
            let dropout = self.tape.dropout_at(dropout_p, site);
            let out = dropout_add_layer_norm::dropout_add_layer_norm(
                &self.value,
                &residual.value,
                &weight.value,
                &bias.value,
                eps,
                dropout.as_ref(),
                offsets,
            )?;
            // One pass makes all gradients but the bias's, which takes only dy.
            let any = needs[..3].contains(&true);
            let [sum, mean, rstd, weight] =
                [&out.sum, &out.mean, &out.rstd, &weight.value].map(|tensor| Saved::new(tensor, any));
            let (offsets, x_dtype) = (offsets.clone(), self.value.dtype());
            rounded = out.rounded;
            Ok((out.y, Op::DropoutAddLayerNorm { sum, mean, rstd, weight, dropout, offsets, x_dtype }))
        })?;
        Ok(Var { rounded, ..y })
    }

    /// A function of `self` and of parameters, recorded as one operation that saves only `self`.
    ///
    /// # Errors
    /// Those of the function.
    pub fn segment(&self, function: Segment) -> Result<Var<'t>> {
        self.tape.segment(self, function)
    }

    /// Rows `indices` of `self: [T, C]`.
    ///
    /// # Errors
    /// As [`movement::gather_rows`].
    pub fn gather_rows(&self, indices: &[u32]) -> Result<Var<'t>> {
        self.tape.apply(&[self], |_| {
            let y = movement::gather_rows(&self.value, indices)?;
            Ok((y, Op::GatherRows { indices: indices.into(), rows: self.dims()[0] }))
        })
    }

    /// Mean cross entropy of `self: [B, K]` against labels: a scalar.
    ///
    /// # Errors
    /// As [`cross_entropy::cross_entropy`].
    pub fn cross_entropy(&self, labels: &[u32]) -> Result<Var<'t>> {
        self.tape.apply(&[self], |needs| {
            let out = cross_entropy::cross_entropy(&self.value, labels)?;
            let probabilities = Saved::new(&out.probabilities, needs[0]);
            Ok((out.loss, Op::CrossEntropy { probabilities, labels: labels.into() }))
        })
    }

    /// `self + other`, broadcasting.
    ///
    /// # Errors
    /// As [`elementwise::add`].
    pub fn add(&self, other: &Var<'t>) -> Result<Var<'t>> {
        self.tape.apply(&[self, other], |_| {
            let y = elementwise::add(&self.value, &other.value)?;
            Ok((y, Op::Add { a: self.dims().to_vec(), b: other.dims().to_vec() }))
        })
    }

    /// `self - other`, broadcasting.
    ///
    /// # Errors
    /// As [`elementwise::sub`].
    pub fn sub(&self, other: &Var<'t>) -> Result<Var<'t>> {
        self.tape.apply(&[self, other], |_| {
            let y = elementwise::sub(&self.value, &other.value)?;
            Ok((y, Op::Sub { a: self.dims().to_vec(), b: other.dims().to_vec() }))
        })
    }

    /// `self * other`, broadcasting.
    ///
    /// # Errors
    /// As [`elementwise::mul`].
    pub fn mul(&self, other: &Var<'t>) -> Result<Var<'t>> {
        self.tape.apply(&[self, other], |needs| {
            let y = elementwise::mul(&self.value, &other.value)?;
            Ok((y, Op::Mul { a: Saved::new(&self.value, needs[1]), b: Saved::new(&other.value, needs[0]) }))
        })
    }

    /// `self / other`, broadcasting.
    ///
    /// # Errors
    /// As [`elementwise::div`].
    pub fn div(&self, other: &Var<'t>) -> Result<Var<'t>> {
        self.tape.apply(&[self, other], |needs| {
            let y = elementwise::div(&self.value, &other.value)?;
            let b = Saved::new(&other.value, needs.contains(&true));
            let op = Op::Div { a: self.dims().to_vec(), b, y: Saved::new(&y, needs[1]) };
            Ok((y, op))
        })
    }

    /// `self * factor`.
    ///
    /// # Errors
    /// As [`elementwise::scale`].
    pub fn scale(&self, factor: f64) -> Result<Var<'t>> {
        self.tape.apply(&[self], |_| Ok((elementwise::scale(&self.value, factor)?, Op::Scale { factor })))
    }

    /// `self + summand`.
    ///
    /// # Errors
    /// As [`elementwise::add_scalar`].
    pub fn add_scalar(&self, summand: f64) -> Result<Var<'t>> {
        self.tape.apply(&[self], |_| Ok((elementwise::add_scalar(&self.value, summand)?, Op::AddScalar)))
    }

    /// `e^self`.
    ///
    /// # Errors
    /// As [`elementwise::exp`].
    pub fn exp(&self) -> Result<Var<'t>> {
        self.saving_output(elementwise::exp, |y| Op::Exp { y })
    }

    /// Natural logarithm.
    ///
    /// # Errors
    /// As [`elementwise::ln`].
    pub fn ln(&self) -> Result<Var<'t>> {
        self.saving_input(elementwise::ln, |x| Op::Ln { x })
    }

    /// Square root.
    ///
    /// # Errors
    /// As [`elementwise::sqrt`].
    pub fn sqrt(&self) -> Result<Var<'t>> {
        self.saving_output(elementwise::sqrt, |y| Op::Sqrt { y })
    }

    /// Hyperbolic tangent.
    ///
    /// # Errors
    /// As [`elementwise::tanh`].
    pub fn tanh(&self) -> Result<Var<'t>> {
        self.saving_output(elementwise::tanh, |y| Op::Tanh { y })
    }

    /// `max(self, 0)`.
    ///
    /// # Errors
    /// As [`elementwise::relu`].
    pub fn relu(&self) -> Result<Var<'t>> {
        self.saving_output(elementwise::relu, |y| Op::Relu { y })
    }

    /// GELU in its erf form.
    ///
    /// # Errors
    /// As [`gelu::gelu_erf`].
    pub fn gelu_erf(&self) -> Result<Var<'t>> {
        self.saving_input(gelu::gelu_erf, |x| Op::GeluErf { x })
    }

    /// GELU in its tanh form.
    ///
    /// # Errors
    /// As [`gelu::gelu_tanh`].
    pub fn gelu_tanh(&self) -> Result<Var<'t>> {
        self.saving_input(gelu::gelu_tanh, |x| Op::GeluTanh { x })
    }

    /// Softmax over the last dimension.
    ///
    /// # Errors
    /// As [`softmax::softmax`].
    pub fn softmax(&self) -> Result<Var<'t>> {
        self.saving_output(softmax::softmax, |y| Op::Softmax { y })
    }

    /// The logarithm of softmax over the last dimension.
    ///
    /// # Errors
    /// As [`softmax::log_softmax`].
    pub fn log_softmax(&self) -> Result<Var<'t>> {
        self.saving_output(softmax::log_softmax, |y| Op::LogSoftmax { y })
    }

    /// Layer normalisation of `self: [T, C]`.
    ///
    /// # Errors
    /// As [`layer_norm::layer_norm`].
    pub fn layer_norm(&self, weight: &Var<'t>, bias: &Var<'t>, eps: f64) -> Result<Var<'t>> {
        self.tape.apply(&[self, weight, bias], |needs| {
            let out = layer_norm::layer_norm(&self.value, &weight.value, &bias.value, eps)?;
            // One pass makes all gradients but the bias's, which takes only dy.
            let any = needs[..2].contains(&true);
            let [x, weight, mean, rstd] =
                [&self.value, &weight.value, &out.mean, &out.rstd].map(|tensor| Saved::new(tensor, any));
            Ok((out.y, Op::LayerNorm { x, weight, mean, rstd }))
        })
    }

    /// Normalisation of `self: [T, C]` by the root mean square of each row.
    ///
    /// # Errors
    /// As [`rms_norm::rms_norm`].
    pub fn rms_norm(&self, weight: &Var<'t>, eps: f64) -> Result<Var<'t>> {
        self.tape.apply(&[self, weight], |needs| {
            let out = rms_norm::rms_norm(&self.value, &weight.value, eps)?;
            // One pass makes both gradients.
            let any = needs.contains(&true);
            let [x, weight, rstd] =
                [&self.value, &weight.value, &out.rstd].map(|tensor| Saved::new(tensor, any));
            Ok((out.y, Op::RmsNorm { x, weight, rstd }))
        })
    }

    /// Rows `ids` of the table `self: [V, C]`.
    ///
    /// # Errors
    /// As [`embedding`].
    pub fn embedding(&self, ids: &[u32]) -> Result<Var<'t>> {
        self.tape.apply(&[self], |_| {
            Ok((embedding(&self.value, ids)?, Op::Embedding { ids: ids.into(), rows: self.dims()[0] }))
        })
    }

    /// Batched matrix product.
    ///
    /// # Errors
    /// As [`matmul::matmul`].
    pub fn matmul(&self, other: &Var<'t>) -> Result<Var<'t>> {
        self.tape.apply(&[self, other], |needs| {
            let y = matmul::matmul(&self.value, &other.value)?;
            Ok((
                y,
                Op::Matmul { a: Saved::new(&self.value, needs[1]), b: Saved::new(&other.value, needs[0]) },
            ))
        })
    }

    /// Swaps two dimensions.
    ///
    /// # Errors
    /// As [`Tensor::transpose`].
    pub fn transpose(&self, a: usize, b: usize) -> Result<Var<'t>> {
        self.tape.apply(&[self], |_| Ok((self.value.transpose(a, b)?, Op::Transpose { dims: [a, b] })))
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// As [`Tensor::reshape`].
    pub fn reshape(&self, dims: &[usize]) -> Result<Var<'t>> {
        self.tape
            .apply(&[self], |_| Ok((self.value.reshape(dims)?, Op::Reshape { from: self.dims().to_vec() })))
    }

    /// The same values in another dtype, rounded; the variable itself when it has this one.
    ///
    /// # Errors
    /// As [`Tensor::to_dtype`].
    pub fn to_dtype(&self, dtype: DType) -> Result<Var<'t>> {
        let from = self.value.dtype();
        if from == dtype {
            return Ok(self.clone());
        }
        self.tape.apply(&[self], |_| Ok((self.value.to_dtype(dtype)?, Op::Cast { from })))
    }

    /// `start..start + len` of dimension `dim`.
    ///
    /// # Errors
    /// As [`Tensor::narrow`].
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Var<'t>> {
        self.tape.apply(&[self], |_| {
            let y = self.value.narrow(dim, start, len)?;
            Ok((y, Op::Narrow { dim, start, length: self.dims()[dim] }))
        })
    }

    /// Repeats dimensions of length 1.
    ///
    /// # Errors
    /// As [`Tensor::broadcast_to`].
    pub fn broadcast_to(&self, dims: &[usize]) -> Result<Var<'t>> {
        self.tape.apply(&[self], |_| {
            Ok((self.value.broadcast_to(dims)?, Op::BroadcastTo { from: self.dims().to_vec() }))
        })
    }

    /// `self` and the others, one after the other along dimension `dim`.
    ///
    /// # Errors
    /// As [`movement::cat`].
    pub fn cat(&self, others: &[&Var<'t>], dim: usize) -> Result<Var<'t>> {
        let inputs: Vec<&Var<'t>> = [self].into_iter().chain(others.iter().copied()).collect();
        self.tape.apply(&inputs, |_| {
            let pieces: Vec<&Tensor> = inputs.iter().map(|input| &input.value).collect();
            let y = movement::cat(&pieces, dim)?;
            Ok((y, Op::Cat { dim, lengths: pieces.iter().map(|piece| piece.dims()[dim]).collect() }))
        })
    }

    /// The largest element along a dimension; its gradient goes to the first place where it was found.
    ///
    /// # Errors
    /// As [`reduce::max`].
    pub fn max(&self, dim: usize, keepdim: bool) -> Result<Var<'t>> {
        self.tape.apply(&[self], |needs| {
            let found = reduce::max(&self.value, dim, keepdim)?;
            let indices = Saved::new(&found.indices, needs[0]);
            Ok((found.values, Op::Max { from: self.dims().to_vec(), dim, indices }))
        })
    }

    /// Sum along a dimension.
    ///
    /// # Errors
    /// As [`reduce::sum`].
    pub fn sum(&self, dim: usize, keepdim: bool) -> Result<Var<'t>> {
        self.tape.apply(&[self], |_| {
            Ok((
                reduce::sum(&self.value, dim, keepdim)?,
                Op::Sum { from: self.dims().to_vec(), dim, keepdim },
            ))
        })
    }

    /// Mean along a dimension.
    ///
    /// # Errors
    /// As [`reduce::sum`].
    pub fn mean(&self, dim: usize, keepdim: bool) -> Result<Var<'t>> {
        let length = self.dims().get(dim).copied().unwrap_or(1);
        self.sum(dim, keepdim)?.scale(1.0 / length as f64)
    }

    /// The sum of all elements, a scalar.
    ///
    /// # Errors
    /// As [`reduce::sum`].
    pub fn sum_all(&self) -> Result<Var<'t>> {
        self.reshape(&[self.value.numel()])?.sum(0, false)
    }

    fn saving_output(
        &self,
        forward: impl FnOnce(&Tensor) -> vitrine_tensor::Result<Tensor>,
        op: impl FnOnce(Saved) -> Op,
    ) -> Result<Var<'t>> {
        self.tape.apply(&[self], |needs| {
            let y = forward(&self.value)?;
            let saved = Saved::new(&y, needs[0]);
            Ok((y, op(saved)))
        })
    }

    fn saving_input(
        &self,
        forward: impl FnOnce(&Tensor) -> vitrine_tensor::Result<Tensor>,
        op: impl FnOnce(Saved) -> Op,
    ) -> Result<Var<'t>> {
        self.tape.apply(&[self], |needs| Ok((forward(&self.value)?, op(Saved::new(&self.value, needs[0])))))
    }
}
