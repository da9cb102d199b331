//! Matrix products: plain FMAs and tensor cores, with their epilogues.

use crate::elementwise::normal_cdf;
use crate::harness::Gpu;
use crate::numbers::{Float, assert_close, numbers};
use half::bf16;
use vitrine_kernels::gemm::{self, BackwardShape, GemmBackward, GemmNt, GemmNtGeluErf, Shape};
use vitrine_kernels::gemm_simt::{Gemm, GemmSimt};
use vitrine_kernels::reduce::ColumnSums;

fn product(
    m: usize,
    n: usize,
    k: usize,
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    (0..m * n).map(|i| (0..k).map(|k| a(i / n, k) * b(k, i % n)).sum()).collect()
}
#[test]
fn gemm_simt() {
    let gpu = Gpu::open();
    for (m, n, k) in [(1, 1, 1), (65, 3, 17), (20, 70, 33)] {
        let (a, b) = (numbers::<f32>(m * k, 1), numbers::<f32>(n * k, 2));
        let (bias, so_far) = (numbers::<f32>(n, 3), numbers::<f32>(m * n, 4));
        let gemm = Gemm {
            a_row: k as u64,
            a_column: 1,
            b_row: 1,
            b_column: k as u64,
            m: m as u32,
            n: n as u32,
            k: k as u32,
            ..Default::default()
        };
        let mut c = gpu.room::<f32>(m * n);
        gpu.launch(GemmSimt {
            batch: 1,
            a: &gpu.put(&a),
            b: &gpu.put(&b),
            bias: Some(&gpu.put(&bias)),
            so_far: Some(&gpu.put(&so_far)),
            c: &mut c,
            gemm,
        });
        let mut expected = product(m, n, k, |i, p| a[i * k + p].into(), |p, j| b[j * k + p].into());
        expected
            .iter_mut()
            .enumerate()
            .for_each(|(i, x)| *x += f64::from(bias[i % n]) + f64::from(so_far[i]));
        assert_close("c", &gpu.get::<f32>(c), &expected, 1e-5);
    }
}
#[test]
fn gemm_on_tensor_cores() {
    let gpu = Gpu::open();
    // K divided by 8, as alignment asks; other sizes have tails.
    for (m, n, k) in [(8, 8, 8), (136, 24, 72), (24, 136, 200)] {
        let (a, b) = (numbers::<bf16>(m * k, 1), numbers::<bf16>(n * k, 2));
        let bias = numbers::<f32>(n, 3);
        let (pa, pb, pbias) = (gpu.put(&a), gpu.put(&b), gpu.put(&bias));
        let [m32, n32, k32] = [m, n, k].map(|len| len as u32);
        let shape = Shape { m: m32, n: n32, k: k32, lda: k32, ldb: k32 };
        let plain = product(m, n, k, |i, p| a[i * k + p].to_f64(), |p, j| b[j * k + p].to_f64());
        let biased: Vec<f64> = plain.iter().enumerate().map(|(i, x)| x + f64::from(bias[i % n])).collect();
        let [mut c, mut pre] = [0; 2].map(|_| gpu.room::<bf16>(m * n));
        gpu.launch(GemmNtGeluErf {
            x: &pa,
            weight: &pb,
            bias: Some(&pbias),
            pre: Some(&mut pre),
            y: &mut c,
            shape,
        });
        assert_close("nt pre", &gpu.get::<bf16>(pre), &biased, 4.5e-3);
        let gelu: Vec<f64> = biased.iter().map(|&x| x * normal_cdf(x)).collect();
        assert_close("nt gelu", &gpu.get::<bf16>(c), &gelu, 4.5e-3);
        gpu.launch(GemmNt { x: &pa, weight: &pb, bias: None, y: &mut c, shape });
        assert_close("nt", &gpu.get::<bf16>(c), &plain, 4.5e-3);
    }
}

/// dx on top of what was there, dweight and dbias, in one launch; T is the type of dx.
fn gemm_backward<T: Float>() {
    let gpu = Gpu::open();
    // N and K divided by 8, as alignment asks; other sizes have tails.
    for (rows, n, k, splits) in [(1, 8, 8, 1), (137, 24, 72, 1), (200, 136, 24, 3), (40, 8, 136, 2)] {
        let (dy, weight) = (numbers::<bf16>(rows * n, 1), numbers::<bf16>(n * k, 2));
        let (x, so_far) = (numbers::<bf16>(rows * k, 3), numbers::<T>(rows * k, 4));
        let (pdy, pweight, px, pso_far) = (gpu.put(&dy), gpu.put(&weight), gpu.put(&x), gpu.put(&so_far));
        let of_dy = |t: usize, j: usize| dy[t * n + j].to_f64();
        let mut edx = product(rows, k, n, of_dy, |j, i| weight[j * k + i].to_f64());
        edx.iter_mut().zip(&so_far).for_each(|(dx, so_far)| *dx += so_far.get());
        let edw = product(n, k, rows, |j, t| of_dy(t, j), |t, i| x[t * k + i].to_f64());
        let edb: Vec<f64> = (0..n).map(|j| (0..rows).map(|t| of_dy(t, j)).sum()).collect();
        let (mut dx, mut parts) = (gpu.room::<T>(rows * k), gpu.room::<f32>(splits * (n * k + n)));
        let tile = gemm::BM as usize;
        let weight_blocks = splits * n.div_ceil(tile);
        let numbers = [rows, n, k, splits, weight_blocks].map(|x| x as u32);
        let [rows32, n32, k32, splits32, weight_blocks32] = numbers;
        let shape = BackwardShape {
            rows: rows32,
            n: n32,
            k: k32,
            dy_stride: n32,
            weight_stride: k32,
            x_stride: k32,
            splits: splits32,
            weight_blocks: weight_blocks32,
        };
        gpu.launch(GemmBackward {
            dx_blocks: rows.div_ceil(tile),
            dy: &pdy,
            weight: &pweight,
            x: &px,
            so_far: Some(&pso_far),
            dx: Some(&mut dx),
            dbias: Some(&mut parts.from(n * k)),
            dweight: Some(&mut parts),
            shape,
        });
        assert_close("dx", &gpu.get::<T>(dx), &edx, T::TOLERANCE.max(2e-5));
        let (mut dweight, mut dbias) = (gpu.room::<f32>(n * k), gpu.room::<f32>(n));
        gpu.launch(ColumnSums {
            partials: &parts,
            y: &mut dweight,
            z: Some(&mut dbias),
            rows: splits32,
            width: (n * k + n) as u64,
            split: (n * k) as u64,
        });
        assert_close("dweight", &gpu.get::<f32>(dweight), &edw, 2e-5);
        assert_close("dbias", &gpu.get::<f32>(dbias), &edb, 2e-5);
    }
}
#[test]
fn gemm_backward_bf16() {
    gemm_backward::<bf16>();
}
#[test]
fn gemm_backward_bf16_f32() {
    gemm_backward::<f32>();
}
