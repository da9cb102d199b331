//! The gradient of every operation.

use crate::{Op, Result, Tape};
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::elementwise::{add, div, mul, neg, relu_backward, scale, tanh_backward};
use vitrine_tensor::ops::embedding::{EmbedTables, embed_layer_norm_backward, embedding_backward};
use vitrine_tensor::ops::linear::{LinearNeeds, linear_backward};
use vitrine_tensor::ops::reduce::{self, reduce_to_shape};
use vitrine_tensor::ops::{
    attention, cross_entropy, dropout, dropout_add_layer_norm, gelu, layer_norm, matmul, movement, softmax,
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

        Op::EmbedLayerNorm { ids, token_types, positions, rows, sum, mean, rstd, weight } => {
            let wanted = |table: usize| needs[table].then_some(rows[table]);
            let tables = EmbedTables { word: wanted(0), position: wanted(1), token_type: wanted(2) };
            let g =
                embed_layer_norm_backward(dy, ids, token_types, positions, sum, weight, mean, rstd, tables)?;
            Ok(vec![g.dword, g.dposition, g.dtoken_type, Some(g.dweight), Some(g.dbias)])
        }
        Op::Linear { x, weight, activation, saved, x_dtype } => {
            let bias = needs.get(2).copied().unwrap_or(false);
            let wanted = LinearNeeds { x: needs[0].then_some(*x_dtype), weight: needs[1], bias };
            let so_far = take_so_far(0);
            let g = linear_backward(dy, x, weight, *activation, saved.as_ref(), wanted, so_far.as_ref())?;
            Ok(vec![g.dx, g.dweight, g.dbias])
        }
        Op::Attention { qkv, lse, heads, softmax_scale, offsets, queries, options } => one(
            attention::attention_backward(dy, qkv, lse, *heads, *softmax_scale, offsets, *queries, options)?,
        ),
        Op::Dropout { dropout, offsets } => one(dropout::dropout_backward(dy, dropout, offsets)?),
        Op::DropoutAddLayerNorm { sum, mean, rstd, weight, dropout, offsets, x_dtype } => {
            let g = dropout_add_layer_norm::dropout_add_layer_norm_backward(
                dy,
                sum,
                weight,
                mean,
                rstd,
                dropout.as_ref(),
                offsets,
                *x_dtype,
            )?;
            Ok(vec![Some(g.dx), Some(g.dresidual), Some(g.dweight), Some(g.dbias)])
        }
        Op::Segment { x, function, parameters, randomness } => {
            let tape = Tape::replay(*randomness);
            let x = if needs[0] { tape.leaf(x.clone()) } else { tape.constant(x.clone()) };
            let (input, y) = (x.id(), function.run(&tape, &x)?.id());
            drop(x);
            let gradients = tape.backward_from(y, dy.clone())?;
            let of_parameters = parameters.iter().map(|&id| gradients.parameter(id).cloned());
            Ok([gradients.of(input).cloned()].into_iter().chain(of_parameters).collect())
        }
        Op::GatherRows { indices, rows } => one(movement::gather_rows_backward(dy, indices, *rows)?),
        Op::CrossEntropy { probabilities, labels } => {
            one(cross_entropy::cross_entropy_backward(dy, probabilities, labels)?)
        }

        Op::Add { a, b } => Ok(vec![Some(reduce_to_shape(dy, a)?), Some(reduce_to_shape(dy, b)?)]),
        Op::Sub { a, b } => Ok(vec![Some(reduce_to_shape(dy, a)?), Some(reduce_to_shape(&neg(dy)?, b)?)]),
        Op::Mul { a, b } => {
            let side = |other: &Tensor, own: &Tensor| -> Result<_> {
                Ok(reduce_to_shape(&mul(dy, other)?, own.dims())?)
            };
            Ok(vec![Some(side(b, a)?), Some(side(a, b)?)])
        }
        Op::Div { a, b, y } => {
            let da = div(dy, b)?;
            let db = neg(&mul(&da, y)?)?;
            Ok(vec![Some(reduce_to_shape(&da, a)?), Some(reduce_to_shape(&db, b.dims())?)])
        }
        Op::Scale { factor } => one(scale(dy, *factor)?),
        Op::AddScalar => one(dy.clone()),
        Op::Exp { y } => one(mul(dy, y)?),
        Op::Ln { x } => one(div(dy, x)?),
        Op::Sqrt { y } => one(div(dy, &add(y, y)?)?),
        Op::Tanh { y } => one(tanh_backward(dy, y)?),
        Op::Relu { y } => one(relu_backward(dy, y)?),
        Op::GeluErf { x } => one(gelu::gelu_erf_backward(dy, x)?),
        Op::GeluTanh { x } => one(gelu::gelu_tanh_backward(dy, x)?),
        Op::Softmax { y } => one(softmax::softmax_backward(dy, y)?),
        Op::LogSoftmax { y } => one(softmax::log_softmax_backward(dy, y)?),
        Op::LayerNorm { x, weight, mean, rstd } => {
            let g = layer_norm::layer_norm_backward(dy, x, weight, mean, rstd)?;
            Ok(vec![Some(g.dx), Some(g.dweight), Some(g.dbias)])
        }
        Op::Embedding { ids, rows } => one(embedding_backward(dy, ids, *rows)?),
        Op::Matmul { a, b } => {
            let da =
                if needs[0] { Some(reduce_to_shape(&matmul::matmul(dy, &b.t()?)?, a.dims())?) } else { None };
            let db =
                if needs[1] { Some(reduce_to_shape(&matmul::matmul(&a.t()?, dy)?, b.dims())?) } else { None };
            Ok(vec![da, db])
        }
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
        Op::Max { from, dim, indices } => one(reduce::max_backward(dy, indices, from, *dim)?),
        Op::Sum { from, dim, keepdim } => {
            let dy = if *keepdim { dy.clone() } else { dy.unsqueeze(*dim)? };
            one(dy.broadcast_to(from)?.contiguous()?)
        }
    }
}
