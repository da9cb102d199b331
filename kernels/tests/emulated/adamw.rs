//! AdamW over several tensors, with clipping.

use crate::harness::{Gpu, Reals};
use crate::numbers::{assert_close, numbers};
use half::bf16;
use vitrine_kernels::adamw::{AdamwNorm, AdamwSquares, AdamwUpdate, CHUNK, Chunk, Settings, Tensor};

#[test]
fn adamw() {
    let gpu = Gpu::open();
    let lens = [1usize, 2049, 100];
    let params: Vec<[Vec<f32>; 4]> = (0..3u64)
        .map(|i| {
            std::array::from_fn(|j| {
                numbers::<f32>(lens[i as usize], i * 4 + j as u64).iter().map(|x| x.abs()).collect()
            })
        })
        .collect();
    let buffers: Vec<[Reals; 4]> = params.iter().map(|p| std::array::from_fn(|j| gpu.put(&p[j]))).collect();
    let copy = gpu.room::<bf16>(2049);
    let (mut tensors, mut chunks) = (vec![], vec![]);
    for (i, &len) in lens.iter().enumerate() {
        let [param, grad, first_moment, second_moment] = buffers[i].map(|buffer| buffer.address());
        let compute = if i == 1 { copy.address() } else { 0 };
        let weight_decay = if i == 0 { 0.0 } else { 0.01 };
        tensors.push(Tensor {
            param,
            grad,
            first_moment,
            second_moment,
            compute,
            len: len as u64,
            weight_decay,
        });
        chunks.extend(
            (0..len.div_ceil(CHUNK as usize)).map(|index| Chunk { tensor: i as u32, index: index as u32 }),
        );
    }
    let s = Settings {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        correction1: 0.271,
        correction2: 0.002997001,
        max_grad_norm: 1.0,
    };
    let (table, chunk_count) = (gpu.table(&tensors), chunks.len());
    let (chunks, settings) = (gpu.table(&chunks), gpu.table(&[s]));
    let (mut partials, mut norm) = (gpu.space(chunk_count), gpu.room::<f32>(2));
    gpu.launch(AdamwSquares { chunk_count, tensors: &table, chunks: &chunks, partials: &mut partials });
    let count = chunk_count as u32;
    gpu.launch(AdamwNorm { partials: &partials, count, settings: &settings, norm: &mut norm });
    gpu.launch(AdamwUpdate {
        chunk_count,
        tensors: &table,
        chunks: &chunks,
        settings: &settings,
        norm: &norm,
    });
    let root = params.iter().flat_map(|p| &p[1]).map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    let clip = 1.0 / (root + 1e-6);
    assert_close("norm", &gpu.get::<f32>(norm), &[root, clip], 1e-6);
    for (i, p) in params.iter().enumerate() {
        let update = |j: usize| {
            let [p, g, m, v] = std::array::from_fn(|k| f64::from(params[i][k][j]));
            let g = g * clip;
            let (m, v) = (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g);
            p * (1.0 - s.lr * tensors[i].weight_decay)
                - s.lr / s.correction1 * m / ((v / s.correction2).sqrt() + s.eps)
        };
        let expected: Vec<f64> = (0..p[0].len()).map(update).collect();
        assert_close("param", &gpu.get::<f32>(buffers[i][0]), &expected, 2e-6);
        if i == 1 {
            assert_close("compute copy", &gpu.get::<bf16>(copy), &expected, 4e-3);
        }
    }
}
