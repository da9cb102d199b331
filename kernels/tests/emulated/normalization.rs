//! Dropout + residual + LayerNorm.

use crate::draws::{hidden, settings};
use crate::harness::Gpu;
use crate::numbers::{Float, assert_close, numbers, wide};
use half::bf16;
use vitrine_kernels::BACKWARD_ROWS;
use vitrine_kernels::dropout_add_layer_norm::{DropoutAddLayerNormBackward, DropoutAddLayerNormForward};
use vitrine_kernels::reduce::ColumnSums;

/// y, mean, rstd of rows, and of dy: dx, dweight, dbias.
pub fn layer_norm(x: &[f64], w: &[f64], b: &[f64], dy: &[f64], eps: f64) -> [Vec<f64>; 4] {
    let width = w.len();
    let mut out = [vec![], vec![], vec![0.0; width], vec![0.0; width]];
    for (x, dy) in x.chunks(width).zip(dy.chunks(width)) {
        let n = width as f64;
        let mean = x.iter().sum::<f64>() / n;
        let rstd = 1.0 / (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + eps).sqrt();
        let hat: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
        let g: Vec<f64> = dy.iter().zip(w).map(|(dy, w)| dy * w).collect();
        let mean_g = g.iter().sum::<f64>() / n;
        let mean_gx = g.iter().zip(&hat).map(|(g, x)| g * x).sum::<f64>() / n;
        for i in 0..width {
            out[0].push(hat[i] * w[i] + b[i]);
            out[1].push(rstd * (g[i] - mean_g - hat[i] * mean_gx));
            out[2][i] += dy[i] * hat[i];
            out[3][i] += dy[i];
        }
    }
    out
}

fn dropout_add_layer_norm<T: Float>() {
    let gpu = Gpu::open();
    let offsets = [0u32, 0, 3, 3, 36, 37];
    let rows = 37;
    for (width, p) in [(1, 0.0), (20, 0.3), (72, 0.1), (1032, 0.25)] {
        let (x, residual) = (numbers::<T>(rows * width, 1), numbers::<T>(rows * width, 2));
        let (w, b) = (numbers::<f32>(width, 3), numbers::<f32>(width, 4));
        let dy = numbers::<T>(rows * width, 5);
        let d = settings(p);
        let [px, pr, pdy] = [&x, &residual, &dy].map(|x| gpu.put(x));
        let (pw, pb, po) = (gpu.put(&w), gpu.put(&b), gpu.table(&offsets));
        let [mut y, mut sum] = [0; 2].map(|_| gpu.room::<T>(rows * width));
        let [mut mean, mut rstd] = [0; 2].map(|_| gpu.room::<f32>(rows));
        let eps = 1e-5f32;
        gpu.launch(DropoutAddLayerNormForward {
            x: &px,
            residual: &pr,
            weight: &pw,
            bias: &pb,
            offsets: &po,
            y: &mut y,
            rounded_y: None,
            sum: &mut sum,
            mean: &mut mean,
            rstd: &mut rstd,
            rows: rows as u32,
            width: width as u32,
            sequences: 5,
            eps,
            dropout: d,
        });
        let factor: Vec<f64> = (0..rows * width)
            .map(|i| {
                let row = i / width;
                let b = (0..5).find(|&b| row < offsets[b + 1] as usize).unwrap();
                hidden(&d, row - offsets[b] as usize, b, i % width)
            })
            .collect();
        let expected_sum: Vec<f64> =
            (0..rows * width).map(|i| x[i].get() * factor[i] + residual[i].get()).collect();
        let got_sum = gpu.get::<T>(sum);
        assert_close("sum", &got_sum, &expected_sum, T::TOLERANCE);
        // From the kernel's own sum: a rounding of it may go either way.
        let [ey, edx, edw, edb] = layer_norm(&wide(&got_sum), &wide(&w), &wide(&b), &wide(&dy), eps.into());
        let stretch = if width == 1 { 400.0 } else { 4.0 };
        assert_close("y", &gpu.get::<T>(y), &ey, T::TOLERANCE * stretch);
        let blocks = rows.div_ceil(BACKWARD_ROWS as usize);
        let [mut dresidual, mut dx] = [0; 2].map(|_| gpu.room::<T>(rows * width));
        let mut partials = gpu.room::<f32>(blocks * 2 * width);
        gpu.launch(DropoutAddLayerNormBackward {
            warps: 4,
            dy: &pdy,
            sum: &sum,
            weight: &pw,
            mean: &mean,
            rstd: &rstd,
            offsets: &po,
            dresidual: &mut dresidual,
            dx: Some(&mut dx),
            partials: &mut partials,
            rows: rows as u32,
            width: width as u32,
            sequences: 5,
            dropout: d,
        });
        let got = gpu.get::<T>(dresidual);
        assert_close("dresidual", &got, &edx, T::TOLERANCE * stretch);
        if d.threshold > 0 {
            let edx: Vec<f64> = got.iter().zip(&factor).map(|(g, f)| g.get() * f).collect();
            assert_close("dx", &gpu.get::<T>(dx), &edx, T::TOLERANCE);
        }
        let mut total = gpu.room::<f32>(2 * width);
        gpu.launch(ColumnSums {
            partials: &partials,
            y: &mut total,
            z: None,
            rows: blocks as u32,
            width: 2 * width as u64,
            split: 2 * width as u64,
        });
        assert_close("dweight, dbias", &gpu.get::<f32>(total), &[edw, edb].concat(), 4e-5 * stretch);
    }
}
#[test]
fn dropout_add_layer_norm_f32() {
    dropout_add_layer_norm::<f32>();
}
#[test]
fn dropout_add_layer_norm_bf16() {
    dropout_add_layer_norm::<bf16>();
}
