//! The embeddings' sum with LayerNorm, chosen rows, and sums of chosen rows.

use crate::harness::Gpu;
use crate::normalization::layer_norm;
use crate::numbers::{assert_close, numbers, wide};
use half::bf16;
use vitrine_kernels::embedding::EmbedLayerNormForward;
use vitrine_kernels::movement::{GatherRows, Piece, SegmentSum};

#[test]
fn embeddings_and_rows() {
    let gpu = Gpu::open();
    let (tokens, width) = (9, 20);
    let ids = [4u32, 1, 4, 0, 2, 4, 1, 3, 4];
    let zeros = [0u32; 9];
    let (table, other) = (numbers::<f32>(5 * width, 1), numbers::<f32>(width, 2));
    let (w, b) = (numbers::<f32>(width, 3), numbers::<f32>(width, 4));
    let [mut sum, mut y] = [0; 2].map(|_| gpu.room::<f32>(tokens * width));
    let [mut mean, mut rstd] = [0; 2].map(|_| gpu.room::<f32>(tokens));
    let (pi, pz, pt, po) = (gpu.table(&ids), gpu.table(&zeros), gpu.put(&table), gpu.put(&other));
    gpu.launch(EmbedLayerNormForward {
        ids: &pi,
        token_types: &pz,
        positions: &pz,
        word: &pt,
        token_type: &po,
        position: &po,
        weight: &gpu.put(&w),
        bias: &gpu.put(&b),
        y: &mut y,
        sum: &mut sum,
        mean: &mut mean,
        rstd: &mut rstd,
        rows: tokens as u32,
        width: width as u32,
        eps: 1e-5,
    });
    let expected: Vec<f64> = (0..tokens * width)
        .map(|i| {
            f64::from(table[ids[i / width] as usize * width + i % width]) + 2.0 * f64::from(other[i % width])
        })
        .collect();
    assert_close("sum", &gpu.get::<f32>(sum), &expected, 1e-6);
    let [expected, ..] = layer_norm(&expected, &wide(&w), &wide(&b), &expected, 1e-5f32.into());
    assert_close("y", &gpu.get::<f32>(y), &expected, 1e-5);
    let mut gathered = gpu.room::<f32>(tokens * width);
    gpu.launch(GatherRows {
        rows: tokens,
        x: &pt,
        x_stride: width as u64,
        indices: &pi,
        y: &mut gathered,
        width: width as u32,
    });
    let expected: Vec<f64> =
        (0..tokens * width).map(|i| table[ids[i / width] as usize * width + i % width].into()).collect();
    assert_close("gathered", &gpu.get::<f32>(gathered), &expected, 0.0);

    let dy = numbers::<bf16>(tokens * width, 5);
    let order = [3u32, 1, 6, 4, 7, 0, 2, 5, 8];
    let piece = |row, begin, end| Piece { row, begin, end };
    let pieces = [piece(0, 0, 1), piece(1, 1, 3), piece(2, 3, 4), piece(3, 4, 5), piece(4, 5, 9)];
    let mut dtable = gpu.room::<f32>(5 * width);
    gpu.launch(SegmentSum {
        piece_count: pieces.len(),
        x: &gpu.put(&dy),
        x_stride: width as u64,
        index: Some(&gpu.table(&order)),
        pieces: &gpu.table(&pieces),
        y: &mut dtable,
        width: width as u32,
    });
    let mut expected = vec![0.0; 5 * width];
    (0..tokens * width).for_each(|i| expected[ids[i / width] as usize * width + i % width] += dy[i].to_f64());
    assert_close("dtable", &gpu.get::<f32>(dtable), &expected, 1e-6);
}
