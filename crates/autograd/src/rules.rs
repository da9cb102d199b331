//! The gradient of every operation.

use crate::{Op, Result, Saved, Tape};
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::elementwise::{div, mul, neg, relu_backward, scale, sqrt_backward, tanh_backward};
use vitrine_tensor::ops::embedding::{EmbedTables, embed_layer_norm_backward, embedding_backward};
use vitrine_tensor::ops::linear::{LinearNeeds, linear_backward};
use vitrine_tensor::ops::reduce::{self, reduce_to_shape};
use vitrine_tensor::ops::{
    attention, cross_entropy, dropout, dropout_add_layer_norm, gelu, layer_norm, matmul, movement, rms_norm,
    softmax,
};

/// The gradients of an operation's inputs, in their order, from that of its output. `needs[i]` says whether input i wants
/// one; a rule may return one that nobody needs where it comes for free. `take_so_far(i)` is what other operations gave
/// input i: a rule that can add to it in its own pass takes it, and returns the sum.
pub fn backward(
    op: &Op,
    dy: &Tensor,
    needs: &[bool],
    mut take_so_far: impl FnMut(usize) -> Option<Tensor>,
) -> Result<Vec<Option<Tensor>>> {
    let one = |dx: Tensor| Ok(vec![Some(dx)]);
    match op {
        Op::Constant | Op::Leaf | Op::Parameter(_) => Ok(Vec::new()),

        // LayerNorm's bias alone: the sum of the rows of dy, which takes nothing that was saved.
        Op::EmbedLayerNorm { weight, .. }
        | Op::DropoutAddLayerNorm { weight, .. }
        | Op::LayerNorm { weight, .. }
            if !needs[..needs.len() - 1].contains(&true) =>
        {
            let dbias = reduce_to_shape(&dy.to_dtype(dy.dtype().accumulator())?, weight.dims())?;
            Ok(vec![None; needs.len() - 1].into_iter().chain([Some(dbias)]).collect())
        }
        Op::EmbedLayerNorm { ids, token_types, positions, rows, sum, mean, rstd, weight } => {
            let wanted = |table: usize| needs[table].then_some(rows[table]);
            let tables = EmbedTables { word: wanted(0), position: wanted(1), token_type: wanted(2) };
            let [sum, weight, mean, rstd] = [sum.get()?, weight.get()?, mean.get()?, rstd.get()?];
            let g =
                embed_layer_norm_backward(dy, ids, token_types, positions, sum, weight, mean, rstd, tables)?;
            Ok(vec![g.dword, g.dposition, g.dtoken_type, Some(g.dweight), Some(g.dbias)])
        }
        Op::Linear { x, weight, activation, saved, x_dtype } => {
            let bias = needs.get(2).copied().unwrap_or(false);
            let wanted = LinearNeeds { x: needs[0].then_some(*x_dtype), weight: needs[1], bias };
            let (x, weight, so_far) =
                (x.tensor(), weight.tensor(), needs[0].then(|| take_so_far(0)).flatten());
            let saved = saved.as_ref().and_then(Saved::tensor);
            let g = linear_backward(dy, x, weight, *activation, saved, wanted, so_far.as_ref())?;
            Ok(vec![g.dx, g.dweight, g.dbias])
        }
        Op::Attention { qkv, lse, heads, softmax_scale, offsets, queries, options } => {
            let (qkv, lse) = (qkv.get()?, lse.get()?);
            let (heads, scale) = (*heads, *softmax_scale);
            one(attention::attention_backward(dy, qkv, lse, heads, scale, offsets, *queries, options)?)
        }
        Op::Dropout { dropout, offsets } => one(dropout::dropout_backward(dy, dropout, offsets)?),
        Op::DropoutAddLayerNorm { sum, mean, rstd, weight, dropout, offsets, x_dtype } => {
            let g = dropout_add_layer_norm::dropout_add_layer_norm_backward(
                dy,
                sum.get()?,
                weight.get()?,
                mean.get()?,
                rstd.get()?,
                dropout.as_ref(),
                offsets,
                *x_dtype,
            )?;
            Ok(vec![Some(g.dx), Some(g.dresidual), Some(g.dweight), Some(g.dbias)])
        }
        Op::Segment { x, function, parameters, randomness, checks, .. } => {
            let (tape, x) = (Tape::replay(*randomness, *checks), x.get()?.clone());
            let x = if needs[0] { tape.leaf(x) } else { tape.constant(x) };
            let (input, y) = (x.id(), function.run(&tape, &x)?.id());
            drop(x);
            let gradients = tape.vjp(&[(y, dy.clone())], &[])?;
            let of_parameters = parameters.iter().map(|&id| gradients.parameter(id).cloned());
            Ok([gradients.of(input)?.cloned()].into_iter().chain(of_parameters).collect())
        }
        Op::GatherRows { indices, rows } => one(movement::gather_rows_backward(dy, indices, *rows)?),
        Op::CrossEntropy { probabilities, labels } => {
            one(cross_entropy::cross_entropy_backward(dy, probabilities.get()?, labels)?)
        }

        Op::Add { a, b } => each(needs, |side| Ok(reduce_to_shape(dy, [a, b][side])?)),
        Op::Sub { a, b } => each(needs, |side| match side {
            0 => Ok(reduce_to_shape(dy, a)?),
            _ => Ok(reduce_to_shape(&neg(dy)?, b)?),
        }),
        Op::Mul { a, b } => each(needs, |side| {
            let (own, other) = if side == 0 { (a, b) } else { (b, a) };
            Ok(reduce_to_shape(&mul(dy, other.get()?)?, own.dims())?)
        }),
        Op::Div { a, b, y } => {
            let da = div(dy, b.get()?)?;
            each(needs, |side| match side {
                0 => Ok(reduce_to_shape(&da, a)?),
                _ => Ok(reduce_to_shape(&neg(&mul(&da, y.get()?)?)?, b.dims())?),
            })
        }
        Op::Scale { factor } => one(scale(dy, *factor)?),
        Op::AddScalar => one(dy.clone()),
        Op::Exp { y } => one(mul(dy, y.get()?)?),
        Op::Ln { x } => one(div(dy, x.get()?)?),
        Op::Sqrt { y } => one(sqrt_backward(dy, y.get()?)?),
        Op::Tanh { y } => one(tanh_backward(dy, y.get()?)?),
        Op::Relu { y } => one(relu_backward(dy, y.get()?)?),
        Op::GeluErf { x } => one(gelu::gelu_erf_backward(dy, x.get()?)?),
        Op::GeluTanh { x } => one(gelu::gelu_tanh_backward(dy, x.get()?)?),
        Op::Softmax { y } => one(softmax::softmax_backward(dy, y.get()?)?),
        Op::LogSoftmax { y } => one(softmax::log_softmax_backward(dy, y.get()?)?),
        Op::LayerNorm { x, weight, mean, rstd } => {
            let (mean, rstd) = (mean.get()?, rstd.get()?);
            let g = layer_norm::layer_norm_backward(dy, x.get()?, weight.get()?, mean, rstd)?;
            Ok(vec![Some(g.dx), Some(g.dweight), Some(g.dbias)])
        }
        Op::RmsNorm { x, weight, rstd } => {
            let g = rms_norm::rms_norm_backward(dy, x.get()?, weight.get()?, rstd.get()?)?;
            Ok(vec![Some(g.dx), Some(g.dweight)])
        }
        Op::Embedding { ids, rows } => one(embedding_backward(dy, ids, *rows)?),
        Op::Matmul { a, b } => each(needs, |side| match side {
            0 => Ok(reduce_to_shape(&matmul::matmul(dy, &b.get()?.t()?)?, a.dims())?),
            _ => Ok(reduce_to_shape(&matmul::matmul(&a.get()?.t()?, dy)?, b.dims())?),
        }),
        Op::Transpose { dims: [a, b] } => one(dy.transpose(*a, *b)?.contiguous()?),
        Op::Reshape { from } => one(dy.reshape(from)?),
        Op::Cast { from } => one(dy.to_dtype(*from)?),
        Op::Narrow { dim, start, length } => one(movement::narrow_backward(dy, *dim, *start, *length)?),
        Op::BroadcastTo { from } => one(reduce_to_shape(dy, from)?),
        Op::Cat { dim, lengths } => {
            let mut start = 0;
            let mut piece = |&length: &usize| -> Result<_> {
                start += length;
                Ok(Some(dy.narrow(*dim, start - length, length)?.contiguous()?))
            };
            lengths.iter().map(&mut piece).collect()
        }
        Op::Max { from, dim, indices } => one(reduce::max_backward(dy, indices.get()?, from, *dim)?),
        Op::Sum { from, dim, keepdim } => {
            let dy = if *keepdim { dy.clone() } else { dy.unsqueeze(*dim)? };
            one(dy.broadcast_to(from)?.contiguous()?)
        }
    }
}

/// The gradients of the inputs that need one.
fn each(needs: &[bool], mut gradient: impl FnMut(usize) -> Result<Tensor>) -> Result<Vec<Option<Tensor>>> {
    needs.iter().enumerate().map(|(input, &needed)| needed.then(|| gradient(input)).transpose()).collect()
}
