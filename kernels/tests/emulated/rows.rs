//! The embeddings' sum with LayerNorm, chosen rows, and sums of chosen rows.

use crate::harness::{Arg::*, Gpu};
use crate::normalization::layer_norm;
use crate::numbers::{assert_close, numbers, wide};
use half::bf16;
use vitrine_kernels as kernels;

#[test]
fn embeddings_and_rows() {
    let gpu = Gpu::open();
    let (tokens, width) = (9, 20);
    let ids = [4u32, 1, 4, 0, 2, 4, 1, 3, 4];
    let zeros = [0u32; 9];
    let (table, other) = (numbers::<f32>(5 * width, 1), numbers::<f32>(width, 2));
    let (w, b) = (numbers::<f32>(width, 3), numbers::<f32>(width, 4));
    let [sum, y] = [0; 2].map(|_| gpu.room(tokens * width * 4));
    let [mean, rstd] = [0; 2].map(|_| gpu.room(tokens * 4));
    let (pi, pz, pt, po) = (gpu.put(&ids), gpu.put(&zeros), gpu.put(&table), gpu.put(&other));
    let arguments = [
        P(pi),
        P(pz),
        P(pz),
        P(pt),
        P(po),
        P(po),
        P(gpu.put(&w)),
        P(gpu.put(&b)),
        P(y),
        P(sum),
        P(mean),
        P(rstd),
        W(tokens),
        W(width),
        F(1e-5),
    ];
    gpu.launch(
        &kernels::EMBEDDING,
        "embed_layer_norm_forward_f32",
        [tokens.div_ceil(4), 1, 1],
        128,
        0,
        &arguments,
    );
    let expected: Vec<f64> = (0..tokens * width)
        .map(|i| {
            f64::from(table[ids[i / width] as usize * width + i % width]) + 2.0 * f64::from(other[i % width])
        })
        .collect();
    assert_close("sum", &gpu.get::<f32>(sum), &expected, 1e-6);
    let [expected, ..] = layer_norm(&expected, &wide(&w), &wide(&b), &expected, 1e-5f32.into());
    assert_close("y", &gpu.get::<f32>(y), &expected, 1e-5);
    let gathered = gpu.room(tokens * width * 4);
    gpu.launch(
        &kernels::ROWS,
        "gather_rows_f32",
        [tokens, 1, 1],
        128,
        0,
        &[P(pt), L(width), P(pi), P(gathered), W(width)],
    );
    let expected: Vec<f64> =
        (0..tokens * width).map(|i| table[ids[i / width] as usize * width + i % width].into()).collect();
    assert_close("gathered", &gpu.get::<f32>(gathered), &expected, 0.0);

    let dy = numbers::<bf16>(tokens * width, 5);
    let order = [3u32, 1, 6, 4, 7, 0, 2, 5, 8];
    let piece = |row, begin, end| kernels::Piece { row, begin, end };
    let pieces = [piece(0, 0, 1), piece(1, 1, 3), piece(2, 3, 4), piece(3, 4, 5), piece(4, 5, 9)];
    let dtable = gpu.room(5 * width * 4);
    let arguments = [P(gpu.put(&dy)), L(width), P(gpu.put(&order)), P(gpu.put(&pieces)), P(dtable), W(width)];
    gpu.launch(&kernels::ROWS, "segment_sum_bf16", [5, 1, 1], 128, 0, &arguments);
    let mut expected = vec![0.0; 5 * width];
    (0..tokens * width).for_each(|i| expected[ids[i / width] as usize * width + i % width] += dy[i].to_f64());
    assert_close("dtable", &gpu.get::<f32>(dtable), &expected, 1e-6);
}
