//! The table: every row that is tested.

use super::*;
use vitrine_tensor::ops::attention::Queries;
use vitrine_tensor::ops::linear::Activation;

/// Widths around the vectors of every instruction set: 1, 4, 8 and 16 lanes, alone and in fours.
const WIDTHS: [usize; 11] = [1, 2, 3, 7, 8, 9, 15, 16, 17, 65, 131];

/// Every row.
pub fn all() -> Vec<OpCase> {
    let mut rows = Vec::new();
    for width in WIDTHS {
        rows.extend([softmax(3, width), log_softmax(2, width), cross_entropy(3, width)]);
        rows.extend([dropout(4, width), embedding(5, 7, width), adamw(width)]);
        // Of one number, RMSNorm leaves only the sign: its gradient there is what rounding leaves of zero.
        if width > 1 {
            rows.push(rms_norm(3, width));
        }
        // Of two numbers, LayerNorm leaves only signs: its gradient there is what rounding leaves of zero.
        if width != 2 {
            rows.extend([layer_norm(3, width), dropout_add_layer_norm(3, width, 0.3)]);
            rows.push(embed_layer_norm(5, 9, width));
        }
    }
    // Empty.
    rows.extend([layer_norm(0, 5), softmax(0, 5), log_softmax(0, 5), dropout(0, 5), adamw(0)]);
    rows.extend([dropout_add_layer_norm(0, 5, 0.3), embedding(0, 7, 5), embedding(0, 70, 5)]);
    rows.extend([embed_layer_norm(0, 9, 5), rms_norm(0, 5)]);
    // Several pieces of parallel work.
    // The widest of these rows is wider than a warp's registers hold.
    rows.extend([rms_norm(70, 24), rms_norm(3, 1100)]);
    rows.extend([layer_norm(70, 24), softmax(3000, 9), cross_entropy(9, 40), dropout(100, 24)]);
    rows.extend([dropout_add_layer_norm(70, 24, 0.3), dropout_add_layer_norm(40, 20, 0.0), adamw(40_000)]);
    rows.extend([embedding(1200, 3, 8), embedding(500, 300, 8), embed_layer_norm(600, 130, 12)]);
    rows.extend([0.0, 0.3].map(|p| dropout_add_layer_norm(37, 24, p).with_wide("residual")));
    rows.extend(dense());
    rows.extend(general());
    // Strided.
    rows.extend(
        [layer_norm(5, 20), rms_norm(5, 20), softmax(5, 20), log_softmax(5, 20), cross_entropy(5, 20)]
            .map(|r| r.strided(3)),
    );
    rows.extend([dropout(5, 20), dropout_add_layer_norm(5, 20, 0.3)].map(|row| row.strided(3)));
    rows.extend([embedding(5, 7, 20), embed_layer_norm(5, 9, 20)].map(|row| row.strided(3)));
    // Extreme and degenerate numbers.
    let with = |row: OpCase, values, name| row.with_values(values).named(name);
    for (values, name) in [(Values::Extreme, "extreme"), (Values::Constant(0.5), "constant")] {
        rows.extend([with(layer_norm(4, 40), values, name), with(softmax(4, 40), values, name)]);
        rows.extend([with(log_softmax(4, 40), values, name), with(cross_entropy(4, 40), values, name)]);
        rows.push(with(dropout_add_layer_norm(4, 40, 0.3), values, name));
        rows.push(with(rms_norm(4, 40), values, name));
    }
    // Squares below eps, which then scales the row: zeros, and one channel, of which it leaves more than a sign.
    rows.push(with(rms_norm(4, 40), Values::Constant(0.0), "zeros"));
    rows.push(with(rms_norm(4, 1), Values::Constant(0.003), "one_channel"));
    // A mean of 1000 deviations: it is rounded by 1000 roundings of a deviation. E[x^2] - E[x]^2 would cost a million.
    let large_mean = Values::Normal { mean: 1000.0, std: 1.0 };
    rows.push(with(layer_norm(4, 40), large_mean, "large_mean").allowing(2000.0));
    // Attention at the edges of vectors, register tiles and dropout blocks, with empty sequences.
    for queries in [Queries::All, Queries::First] {
        for dropout_p in [None, Some(0.3)] {
            rows.push(attention(&[1, 0, 7], 2, 3, queries, dropout_p));
            rows.push(attention(&[17, 16], 1, 8, queries, dropout_p));
            rows.push(attention(&[65, 2], 1, 5, queries, dropout_p));
            // The head sizes that bfloat16 has products for.
            rows.push(attention(&[33, 0, 1, 17], 2, 32, queries, dropout_p));
            rows.push(attention(&[37, 3], 1, 64, queries, dropout_p));
        }
        rows.push(attention(&[], 2, 8, queries, None));
        for dropout_p in [None, Some(0.3)] {
            rows.push(open_attention(&[1, 0, 7], 3, 3, queries, dropout_p, &[1], Edit::None));
            rows.push(open_attention(&[17, 16], 2, 8, queries, dropout_p, &[0, 1], Edit::None));
            for edit in [Edit::Renormalise, Edit::KnockOut, Edit::Replace, Edit::Scale] {
                rows.push(open_attention(&[7, 0, 2, 18], 4, 5, queries, dropout_p, &[0, 2, 3], edit));
            }
        }
        rows.push(attention(&[9, 20], 2, 4, queries, Some(0.1)).strided(3));
    }
    rows
}

/// Products and activations.
fn dense() -> Vec<OpCase> {
    let mut rows: Vec<OpCase> = WIDTHS.into_iter().flat_map(|len| [gelu_erf(len), gelu_tanh(len)]).collect();
    let sizes = [(1, 1, 1), (3, 5, 7), (16, 16, 16), (17, 33, 15), (1, 64, 9), (40, 3, 70)];
    rows.extend(sizes.map(|(m, k, n)| matmul(m, k, n)));
    rows.extend([matmul(5, 7, 9).strided(4), matmul(70, 130, 50)]);
    // Batches: of one operand, of both, broadcast, empty.
    for (a, b) in [
        (&[2, 3, 5][..], &[5, 4][..]),
        (&[3, 5], &[2, 5, 4]),
        (&[2, 3, 5], &[2, 5, 4]),
        (&[2, 1, 3, 5], &[3, 5, 2]),
        (&[0, 5], &[5, 4]),
        (&[3, 0], &[0, 4]),
        (&[2, 9, 18], &[2, 18, 33]),
    ] {
        rows.push(matmul_of(a, b));
    }
    let activations =
        [Activation::None, Activation::GeluErf, Activation::GeluTanh, Activation::Relu, Activation::Tanh];
    rows.extend(activations.map(|activation| linear(6, 17, 9, activation)));
    // Rows that tensor cores can read, forward and backward.
    rows.extend(activations.map(|activation| linear(33, 40, 72, activation)));
    rows.push(linear(33, 40, 70, Activation::GeluErf));
    // One number, of which the bias takes away nearly nothing: an error is judged by the largest result.
    rows.push(linear(1, 1, 1, Activation::None).with_values(Values::Constant(0.25)));
    rows.push(linear(6, 17, 9, Activation::Tanh).strided(3));
    // No rows, no channels, many rows; without a bias.
    rows.extend(
        [(0, 3, 2), (2, 0, 3), (130, 4, 3)]
            .into_iter()
            .flat_map(|(m, k, n)| activations.map(|activation| linear(m, k, n, activation))),
    );
    rows.extend(activations.map(|activation| linear_without_bias(5, 16, 33, activation)));
    // Widths that tensor cores can read, and that they cannot; the last has more rows than one part of a split sum.
    rows.extend(
        [(37, 40, 72), (6, 17, 9), (0, 8, 16), (300, 24, 136)]
            .map(|(m, k, n)| linear_beside_residual(m, k, n, Activation::None)),
    );
    rows
}

/// What a tensor library has besides: functions of elements, arithmetic, reductions, movement.
fn general() -> Vec<OpCase> {
    let mut rows: Vec<OpCase> = [0, 1, 3, 8, 9, 16, 17, 33].into_iter().flat_map(functions).collect();
    rows.extend(functions(40_000));
    rows.extend(functions(20).into_iter().map(|row| row.strided(3)));
    // The same shape, rows, columns, both, a scalar, three dimensions, nothing.
    for (a, b) in [
        (&[3, 17][..], &[3, 17][..]),
        (&[3, 17], &[17]),
        (&[3, 17], &[3, 1]),
        (&[1, 5], &[4, 1]),
        (&[], &[2, 3]),
        (&[2, 1, 9], &[3, 1]),
        (&[0, 4], &[4]),
    ] {
        rows.extend(arithmetic(a, b));
    }
    rows.extend(arithmetic(&[3, 20], &[1, 20]).into_iter().map(|row| row.strided(3)));
    for dims in [[2, 3, 4], [1, 33, 1], [5, 1, 17], [3, 4, 130]] {
        rows.extend(
            (0..3).flat_map(|dim| [sum(&dims, dim, false), mean(&dims, dim), max(&dims, dim, false)]),
        );
    }
    rows.extend(
        [(&[2, 0, 3][..], 1), (&[0, 3], 1), (&[20_000], 0), (&[300, 7], 0)].map(|(x, d)| sum(x, d, false)),
    );
    rows.extend([sum(&[2, 3, 4], 1, true), max(&[2, 5, 3], 1, true), max(&[4, 5], 1, true)]);
    rows.extend([sum(&[4, 9], 1, false), mean(&[4, 9], 0), max(&[4, 9], 1, false)].map(|row| row.strided(3)));
    rows.extend([twice(17), cast(5), cast(65), segment(3, 5), segment(9, 40)]);
    rows.extend([reshape(&[2, 6], &[3, 4]), reshape(&[0, 3], &[3, 0]), reshape(&[4, 9], &[6, 6]).strided(3)]);
    rows.extend([
        broadcast_to(&[3, 1], &[2, 3, 4]),
        broadcast_to(&[5], &[70, 5]),
        broadcast_to(&[2], &[0, 2]),
    ]);
    rows.extend([cat(&[3, 5], 2, 0), cat(&[3, 5], 2, 1), cat(&[2, 3, 4], 1, 1), cat(&[2, 3], 0, 1)]);
    rows.extend([narrow(&[5, 19], 0, 1, 3), narrow(&[5, 19], 1, 3, 7), narrow(&[2, 3, 4], 1, 2, 1)]);
    rows.extend([transpose(1, 7), transpose(5, 19), transpose(40, 33)]);
    rows.extend([gather_rows(5, 19, 4), gather_rows(3, 8, 9), gather_rows(7, 1, 0)]);
    rows.extend(
        [cat(&[3, 5], 2, 1), narrow(&[5, 19], 1, 3, 7), transpose(5, 19), gather_rows(5, 19, 4)]
            .map(|row| row.strided(3)),
    );
    rows
}

/// The operations that memory bounds, at BERT's shapes: 16 reviews of 512 tokens, hidden size 768, the vocabulary of
/// bert-base-uncased. For benches: these tensors are too large for tests.
pub fn memory_bound() -> Vec<OpCase> {
    const T: usize = 16 * 512;
    vec![
        layer_norm(T, 768),
        rms_norm(T, 768),
        dropout(T, 768),
        dropout_add_layer_norm(T, 768, 0.1),
        dropout_add_layer_norm(T, 768, 0.0),
        softmax(T, 512),
        cross_entropy(1200, 30_522),
        embedding(T, 30_522, 768),
        embed_layer_norm(T, 30_522, 768),
        adamw(30_522 * 768),
        gelu_erf(T * 3072),
        gelu_tanh(T * 3072),
    ]
}

/// The rows of one operation, by the name of its function.
pub fn of(op: &str) -> Vec<OpCase> {
    all().into_iter().filter(|row| row.op == op).collect()
}
