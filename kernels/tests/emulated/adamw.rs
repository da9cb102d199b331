//! AdamW over several tensors, with clipping.

use crate::harness::{Arg::*, Buffer, Gpu};
use crate::numbers::{assert_close, numbers};
use half::bf16;
use vitrine_kernels as kernels;

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
    let buffers: Vec<[Buffer; 4]> = params.iter().map(|p| std::array::from_fn(|j| gpu.put(&p[j]))).collect();
    let copy = gpu.room(2049 * 2);
    let (mut tensors, mut chunks) = (vec![], vec![]);
    for (i, &len) in lens.iter().enumerate() {
        let [param, grad, first_moment, second_moment] = buffers[i].map(|buffer| buffer.address);
        let compute = if i == 1 { copy.address } else { 0 };
        let weight_decay = if i == 0 { 0.0 } else { 0.01 };
        tensors.push(kernels::AdamwTensor {
            param,
            grad,
            first_moment,
            second_moment,
            compute,
            len: len as u64,
            weight_decay,
        });
        chunks.extend(
            (0..len.div_ceil(2048))
                .map(|index| kernels::AdamwChunk { tensor: i as u32, index: index as u32 }),
        );
    }
    let s = kernels::AdamwSettings {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        correction1: 0.271,
        correction2: 0.002997001,
        max_grad_norm: 1.0,
    };
    let (pt, pc, ps) = (gpu.put(&tensors), gpu.put(&chunks), gpu.put(&[s]));
    let (partials, norm) = (gpu.room(chunks.len() * 8), gpu.room(8));
    let grid = [chunks.len(), 1, 1];
    gpu.launch(&kernels::ADAMW, "adamw_squares", grid, 256, 0, &[P(pt), P(pc), P(partials)]);
    gpu.launch(
        &kernels::ADAMW,
        "adamw_norm",
        [1, 1, 1],
        1024,
        0,
        &[P(partials), W(chunks.len()), P(ps), P(norm)],
    );
    gpu.launch(&kernels::ADAMW, "adamw_update", grid, 256, 0, &[P(pt), P(pc), P(ps), P(norm)]);
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
