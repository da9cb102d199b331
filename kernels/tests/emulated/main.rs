//! The committed PTX, run on the CPU by the emulator, against plain f64 loops.

mod harness;

use Arg::{F, L, Null, P, S, W};
use half::bf16;
use harness::{Arg, Buffer, Gpu, bytes};
use vitrine_kernels as kernels;
use vitrine_kernels::{Attention, Dropout};

// ---- Both dtypes ----

/// A storage type: f32 or bf16.
trait Float: Copy + Default {
    const SUFFIX: &str;
    /// Relative rounding error of storage, with room for the f32 arithmetic before it.
    const TOLERANCE: f64;
    fn new(x: f64) -> Self;
    fn get(self) -> f64;
}
impl Float for f32 {
    const SUFFIX: &str = "f32";
    const TOLERANCE: f64 = 4e-6;
    fn new(x: f64) -> Self {
        x as f32
    }
    fn get(self) -> f64 {
        self.into()
    }
}
impl Float for bf16 {
    const SUFFIX: &str = "bf16";
    const TOLERANCE: f64 = 4.5e-3;
    fn new(x: f64) -> Self {
        bf16::from_f64(x)
    }
    fn get(self) -> f64 {
        self.into()
    }
}

/// Numbers in about [-2, 2], as the type holds them.
fn numbers<T: Float>(n: usize, seed: u64) -> Vec<T> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        T::new((x >> 40) as f64 / f64::from(1 << 22) - 2.0)
    };
    (0..n).map(|_| next()).collect()
}
fn wide<T: Float>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| x.get()).collect()
}

/// Fails on NaN, on another length, and beyond `tolerance * max(1, |expected|)`.
fn assert_close<T: Float>(what: &str, got: &[T], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    for (i, (got, &expected)) in got.iter().zip(expected).enumerate() {
        let error = (got.get() - expected).abs();
        assert!(error <= tolerance * expected.abs().max(1.0), "{what}[{i}]: {} for {expected}", got.get());
    }
}

// ---- Dropout's definition: crates/tensor/src/random.rs ----

fn philox(counter: [u32; 4], seed: u64) -> [u32; 4] {
    let (mut c, mut k) = (counter, [seed as u32, (seed >> 32) as u32]);
    for _ in 0..10 {
        let p0 = 0xD251_1F53u64 * u64::from(c[0]);
        let p1 = 0xCD9E_8D57u64 * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}
fn half(words: [u32; 4], i: usize) -> u32 {
    words[i / 2] >> (16 * (i % 2)) & 0xffff
}
fn settings(p: f64) -> Dropout {
    let threshold = (p * 65536.0).round() as u32;
    let scale = 65536.0 / (65536.0 - threshold as f32);
    Dropout {
        seed: 0x1234_5678_9abc_def0,
        step: 1234,
        site: 0x0302,
        first_sequence: 40,
        threshold,
        scale,
        reserved: 0,
    }
}
/// What hidden dropout multiplies by.
fn hidden(d: &Dropout, position: usize, sequence: usize, channel: usize) -> f64 {
    let counter =
        [position as u32, (d.site << 16) | (channel as u32 / 8), d.first_sequence + sequence as u32, d.step];
    let kept = half(philox(counter, d.seed), channel % 8) >= d.threshold;
    if d.threshold == 0 { 1.0 } else { f64::from(u8::from(kept)) * f64::from(d.scale) }
}
/// What attention dropout multiplies by.
fn attention(d: &Dropout, head: usize, sequence: usize, query: usize, key: usize) -> f64 {
    let (row, column) = (query % 16, key % 16);
    let call = (row % 8) * 4 + (column % 8) / 2;
    let block = (query / 16) << 17 | (key / 16) << 5 | call;
    let counter = [block as u32, d.site << 16 | head as u32, d.first_sequence + sequence as u32, d.step];
    let kept = half(philox(counter, d.seed), (row / 8 * 2 + column / 8) * 2 + column % 2) >= d.threshold;
    if d.threshold == 0 { 1.0 } else { f64::from(u8::from(kept)) * f64::from(d.scale) }
}

// ---- Element by element ----

fn normal_cdf(x: f64) -> f64 {
    // Phi by Simpson's rule: independent of any erf.
    let (n, end) = (2000, x.clamp(-9.0, 9.0));
    let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let h = end / f64::from(n);
    let inner: f64 = (1..n).map(|i| density(h * f64::from(i)) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    0.5 + h / 3.0 * (density(0.0) + density(end) + inner)
}

fn elementwise<T: Float>() {
    let gpu = Gpu::open();
    let tanh_gate =
        |x: f64| (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()) / 2.0;
    let slope = |f: &dyn Fn(f64) -> f64, x: f64| (f(x + 1e-5) - f(x - 1e-5)) / 2e-5;
    for n in [1, 7, 8, 9, 2049] {
        let (x, dy) = (numbers::<T>(n, 1), numbers::<T>(n, 2));
        let (px, pdy) = (gpu.put(&x), gpu.put(&dy));
        let grid = [n.div_ceil(2048), 1, 1];
        let gelu_erf = |x: f64| x * normal_cdf(x);
        let gelu_tanh = |x: f64| x * tanh_gate(x);
        let unary: [(&str, &dyn Fn(f64) -> f64); 4] = [
            ("gelu_erf", &gelu_erf),
            ("gelu_tanh", &gelu_tanh),
            ("relu", &|x| x.max(0.0)),
            ("tanh", &f64::tanh),
        ];
        for (name, f) in unary {
            let y = gpu.room(n * size_of::<T>());
            gpu.launch(
                &kernels::GELU,
                &format!("{name}_forward_{}", T::SUFFIX),
                grid,
                256,
                0,
                &[P(px), P(y), L(n)],
            );
            let expected: Vec<f64> = wide(&x).into_iter().map(f).collect();
            assert_close(name, &gpu.get::<T>(y), &expected, T::TOLERANCE);
            let dx = gpu.room(n * size_of::<T>());
            let kernel = format!("{name}_backward_{}", T::SUFFIX);
            gpu.launch(&kernels::GELU, &kernel, grid, 256, 0, &[P(pdy), P(px), P(dx), L(n)]);
            let expected: Vec<f64> = wide(&x)
                .iter()
                .zip(&dy)
                .map(|(&x, dy)| {
                    dy.get()
                        * match name {
                            "relu" => f64::from(u8::from(x > 0.0)),
                            "tanh" => 1.0 - x * x, // of y
                            _ => slope(f, x),
                        }
                })
                .collect();
            assert_close(&kernel, &gpu.get::<T>(dx), &expected, T::TOLERANCE);
        }
        let y = gpu.room(n * size_of::<T>());
        let add = format!("add_{}", T::SUFFIX);
        gpu.launch(&kernels::ELEMENTWISE, &add, grid, 256, 0, &[P(px), P(pdy), P(y), L(n)]);
        let expected: Vec<f64> = wide(&x).iter().zip(&dy).map(|(x, y)| x + y.get()).collect();
        assert_close("add", &gpu.get::<T>(y), &expected, T::TOLERANCE);
    }
}
#[test]
fn elementwise_f32() {
    elementwise::<f32>();
}
#[test]
fn elementwise_bf16() {
    elementwise::<bf16>();
}

// ---- Norms ----

/// y, mean, rstd of rows, and of dy: dx, dweight, dbias.
fn layer_norm(x: &[f64], w: &[f64], b: &[f64], dy: &[f64], eps: f64) -> [Vec<f64>; 4] {
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
        let size = rows * width * size_of::<T>();
        let [px, pr, pdy] = [&x, &residual, &dy].map(|x| gpu.put(x));
        let (pw, pb, po) = (gpu.put(&w), gpu.put(&b), gpu.put(&offsets));
        let (y, sum, mean, rstd) = (gpu.room(size), gpu.room(size), gpu.room(rows * 4), gpu.room(rows * 4));
        let module = &kernels::DROPOUT_ADD_LAYER_NORM;
        let eps = 1e-5f32;
        let by_value = [d];
        gpu.launch(
            module,
            &format!("dropout_add_layer_norm_forward_{}", T::SUFFIX),
            [rows.div_ceil(4), 1, 1],
            128,
            0,
            &[
                P(px),
                P(pr),
                P(pw),
                P(pb),
                P(po),
                P(y),
                Null,
                P(sum),
                P(mean),
                P(rstd),
                W(rows),
                W(width),
                W(5),
                F(eps),
                S(bytes(&by_value)),
            ],
        );
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
        let blocks = rows.div_ceil(32);
        let (dresidual, dx, partials) = (gpu.room(size), gpu.room(size), gpu.room(blocks * 2 * width * 4));
        let warps = 4;
        gpu.launch(
            module,
            &format!("dropout_add_layer_norm_backward_{}", T::SUFFIX),
            [blocks, 1, 1],
            32 * warps,
            warps * 2 * width * 4,
            &[
                P(pdy),
                P(sum),
                P(pw),
                P(mean),
                P(rstd),
                P(po),
                P(dresidual),
                P(dx),
                P(partials),
                W(rows),
                W(width),
                W(5),
                S(bytes(&by_value)),
            ],
        );
        let got = gpu.get::<T>(dresidual);
        assert_close("dresidual", &got, &edx, T::TOLERANCE * stretch);
        if d.threshold > 0 {
            let edx: Vec<f64> = got.iter().zip(&factor).map(|(g, f)| g.get() * f).collect();
            assert_close("dx", &gpu.get::<T>(dx), &edx, T::TOLERANCE);
        }
        let total = gpu.room(2 * width * 4);
        let arguments = [P(partials), P(total), Null, W(blocks), L(2 * width), L(2 * width)];
        gpu.launch(&kernels::REDUCE, "column_sums", [(2 * width).div_ceil(32), 1, 1], 256, 0, &arguments);
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

// ---- Attention ----

struct Reference {
    out: Vec<f64>,
    lse: Vec<f64>,
    dqkv: Vec<f64>,
}

fn attention_reference(qkv: &[f64], dout: &[f64], a: &Attention, offsets: &[u32], d: &Dropout) -> Reference {
    let (heads, size, rows) = (a.heads as usize, a.head_size as usize, a.rows as usize);
    let (width, stride, first_only) = (heads * size, a.qkv_stride as usize, a.first_only == 1);
    let total = *offsets.last().unwrap() as usize;
    let (mut out, mut lse) = (vec![0.0; rows * width], vec![f64::NEG_INFINITY; heads * rows]);
    let mut dqkv = vec![0.0; total * 3 * width];
    for (b, pair) in offsets.windows(2).enumerate() {
        let (begin, end) = (pair[0] as usize, pair[1] as usize);
        for h in 0..heads {
            let at = |row: usize, part: usize| row * stride + part * width + h * size;
            let asking = if first_only { end.min(begin + 1) } else { end };
            for q in begin..asking {
                let o = if first_only { b } else { q };
                let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
                let score = |k: usize| {
                    dot(&qkv[at(q, 0)..][..size], &qkv[at(k, 1)..][..size]) * f64::from(a.softmax_scale)
                };
                let sum: f64 = (begin..end).map(|k| score(k).exp()).sum();
                lse[h * rows + o] = sum.ln();
                let p: Vec<f64> = (begin..end).map(|k| score(k).exp() / sum).collect();
                let keep: Vec<f64> = (begin..end).map(|k| attention(d, h, b, q - begin, k - begin)).collect();
                let dz = &dout[o * width + h * size..][..size];
                let dp: Vec<f64> =
                    (begin..end).map(|k| keep[k - begin] * dot(dz, &qkv[at(k, 2)..][..size])).collect();
                let delta = dot(&p, &dp);
                for k in begin..end {
                    let (p, keep, dp) = (p[k - begin], keep[k - begin], dp[k - begin]);
                    let ds = p * (dp - delta) * f64::from(a.softmax_scale);
                    for i in 0..size {
                        out[o * width + h * size + i] += p * keep * qkv[at(k, 2) + i];
                        let d = |row: usize, part: usize| row * 3 * width + part * width + h * size + i;
                        dqkv[d(q, 0)] += ds * qkv[at(k, 1) + i];
                        dqkv[d(k, 1)] += ds * qkv[at(q, 0) + i];
                        dqkv[d(k, 2)] += p * keep * dz[i];
                    }
                }
            }
        }
    }
    Reference { out, lse, dqkv }
}

/// Which kernels: tensor cores or plain FMAs.
fn attention_case<T: Float>(
    fast: bool,
    size: usize,
    lengths: &[usize],
    first_only: bool,
    p: f64,
    sum_delta: bool,
) {
    let gpu = Gpu::open();
    let what = format!("{} D {size} {lengths:?} first {first_only} p {p} sum {sum_delta}", T::SUFFIX);
    let heads = 2;
    let mut offsets = vec![0u32];
    lengths.iter().for_each(|len| offsets.push(offsets[offsets.len() - 1] + *len as u32));
    let (total, sequences) = (lengths.iter().sum::<usize>(), lengths.len());
    let longest = *lengths.iter().max().unwrap();
    let (width, rows) = (heads * size, if first_only { sequences } else { total });
    let stride = 3 * width + 8;
    let qkv = numbers::<T>(total * stride, 11);
    let dout = numbers::<T>(rows * width, 12);
    let a = [Attention {
        qkv_stride: stride as u64,
        heads: heads as u32,
        head_size: size as u32,
        rows: rows as u32,
        first_only: u32::from(first_only),
        softmax_scale: 1.0 / (size as f32).sqrt(),
        sum_delta: u32::from(sum_delta),
    }];
    let d = [settings(p)];
    let expected = attention_reference(&wide(&qkv), &wide(&dout), &a[0], &offsets, &d[0]);
    let (pqkv, po, pdout) = (gpu.put(&qkv), gpu.put(&offsets), gpu.put(&dout));
    let out = gpu.room(rows * width * size_of::<T>());
    let (lse, delta) = (gpu.room(heads * rows * 4), gpu.room(heads * rows * 4));
    let dqkv = gpu.room(total * 3 * width * size_of::<T>());
    let (a_bytes, d_bytes) = (S(bytes(&a)), S(bytes(&d)));
    let (module, prefix, tile, shared) = if fast {
        (&kernels::ATTENTION, format!("attention_{size}"), 64, [0, 0])
    } else {
        let shared = [4 * (96 * (size + 1) + 1056), 4 * (128 * (size + 1) + 2176)];
        (&kernels::ATTENTION_GENERAL, "attention_general".into(), 32, shared)
    };
    let grid = |longest: usize| [longest.div_ceil(tile).max(1), heads, sequences];
    let launch = |name: &str, grid: [usize; 3], shared: usize, arguments: &[Arg]| {
        gpu.launch(module, &format!("{prefix}_{name}_{}", T::SUFFIX), grid, 128, shared, arguments);
    };
    let asked = if first_only { 1 } else { longest };
    launch("forward", grid(asked), shared[0], &[P(pqkv), P(po), P(out), P(lse), a_bytes, d_bytes]);
    let tolerance = T::TOLERANCE * if T::SUFFIX == "f32" { 10.0 } else { 4.0 };
    assert_close(&format!("{what}: out"), &gpu.get::<T>(out), &expected.out, tolerance);
    for (i, (got, expected)) in gpu.get::<f32>(lse).iter().zip(&expected.lse).enumerate() {
        let same = f64::from(*got) == *expected; // empty: -inf
        assert!(same || (f64::from(*got) - expected).abs() < 1e-4, "{what}: lse[{i}]: {got} for {expected}");
    }
    if !sum_delta {
        let kernel = format!("attention_delta_{}", T::SUFFIX);
        let grid = [(rows * heads).div_ceil(4), 1, 1];
        gpu.launch(
            &kernels::ATTENTION_GENERAL,
            &kernel,
            grid,
            128,
            0,
            &[P(out), P(pdout), P(delta), a_bytes],
        );
    }
    let arguments = [P(pqkv), P(po), P(pdout), P(lse), P(delta), P(dqkv), a_bytes, d_bytes];
    launch("backward_dq", grid(longest), shared[1], &arguments);
    launch("backward_dkv", grid(longest), shared[1], &arguments);
    assert_close(&format!("{what}: dqkv"), &gpu.get::<T>(dqkv), &expected.dqkv, tolerance * 2.0);
}
#[test]
fn attention_general_f32() {
    attention_case::<f32>(false, 5, &[0, 1, 33, 7], false, 0.0, false);
    attention_case::<f32>(false, 64, &[40, 0, 3], false, 0.3, true);
    attention_case::<f32>(false, 128, &[35], false, 0.1, false);
    attention_case::<f32>(false, 16, &[40, 0, 3], true, 0.2, true);
}
#[test]
fn attention_general_bf16() {
    attention_case::<bf16>(false, 24, &[0, 1, 33, 7], false, 0.2, true);
}
#[test]
fn attention_on_tensor_cores() {
    for (p, sum_delta) in [(0.0, false), (0.3, true)] {
        attention_case::<bf16>(true, 32, &[0, 1, 65, 7], false, p, sum_delta);
        attention_case::<bf16>(true, 64, &[64, 0, 130], false, p, sum_delta);
        attention_case::<bf16>(true, 64, &[70, 0, 3], true, p, sum_delta);
    }
}

// ---- Products ----

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
        let g = kernels::GemmSimt {
            a_row: k as u64,
            a_column: 1,
            b_row: 1,
            b_column: k as u64,
            m: m as u32,
            n: n as u32,
            k: k as u32,
            ..Default::default()
        };
        let c = gpu.room(m * n * 4);
        let by_value = [g];
        let arguments = [
            P(gpu.put(&a)),
            P(gpu.put(&b)),
            P(gpu.put(&bias)),
            P(gpu.put(&so_far)),
            P(c),
            S(bytes(&by_value)),
        ];
        gpu.launch(
            &kernels::GEMM_SIMT,
            "gemm_simt_f32",
            [n.div_ceil(64), m.div_ceil(64), 1],
            256,
            0,
            &arguments,
        );
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
        let grid = [n.div_ceil(128), m.div_ceil(128), 1];
        let [m32, n32, k32] = [m, n, k].map(|len| len as u32);
        let s = [kernels::GemmShape { m: m32, n: n32, k: k32, lda: k32, ldb: k32 }];
        let plain = product(m, n, k, |i, p| a[i * k + p].to_f64(), |p, j| b[j * k + p].to_f64());
        let biased: Vec<f64> = plain.iter().enumerate().map(|(i, x)| x + f64::from(bias[i % n])).collect();
        let (c, pre) = (gpu.room(m * n * 2), gpu.room(m * n * 2));
        let arguments = [P(pa), P(pb), P(pbias), P(pre), P(c), S(bytes(&s))];
        gpu.launch(&kernels::GEMM, "gemm_nt_gelu_erf_bf16", grid, 256, 0, &arguments);
        assert_close("nt pre", &gpu.get::<bf16>(pre), &biased, 4.5e-3);
        let gelu: Vec<f64> = biased.iter().map(|&x| x * normal_cdf(x)).collect();
        assert_close("nt gelu", &gpu.get::<bf16>(c), &gelu, 4.5e-3);
        let arguments = [P(pa), P(pb), Null, P(c), S(bytes(&s))];
        gpu.launch(&kernels::GEMM, "gemm_nt_bf16", grid, 256, 0, &arguments);
        assert_close("nt", &gpu.get::<bf16>(c), &plain, 4.5e-3);
    }
}

/// dx on top of what was there, dweight and dbias, in one launch; T is the type of dx.
fn gemm_backward<T: Float>(kernel: &str) {
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
        let (dx, parts) = (gpu.room(rows * k * size_of::<T>()), gpu.room(splits * (n * k + n) * 4));
        let weight_blocks = splits * n.div_ceil(128);
        let numbers = [rows, n, k, n, k, k, splits, weight_blocks].map(|x| x as u32);
        let [rows32, n32, k32, dy_stride, weight_stride, x_stride, splits32, weight_blocks32] = numbers;
        let s = [kernels::GemmBackward {
            rows: rows32,
            n: n32,
            k: k32,
            dy_stride,
            weight_stride,
            x_stride,
            splits: splits32,
            weight_blocks: weight_blocks32,
        }];
        let behind = Buffer { address: parts.address + (n * k * 4) as u64, bytes: 0 };
        let operands = [P(pdy), P(pweight), P(px), P(pso_far), P(dx), P(parts), P(behind), S(bytes(&s))];
        let grid = [k.div_ceil(128), weight_blocks + rows.div_ceil(128), 1];
        gpu.launch(&kernels::GEMM, kernel, grid, 256, 0, &operands);
        assert_close("dx", &gpu.get::<T>(dx), &edx, T::TOLERANCE.max(2e-5));
        let (dweight, dbias) = (gpu.room(n * k * 4), gpu.room(n * 4));
        let width = n * k + n;
        let arguments = [P(parts), P(dweight), P(dbias), W(splits), L(width), L(n * k)];
        gpu.launch(&kernels::REDUCE, "column_sums", [width.div_ceil(32), 1, 1], 256, 0, &arguments);
        assert_close("dweight", &gpu.get::<f32>(dweight), &edw, 2e-5);
        assert_close("dbias", &gpu.get::<f32>(dbias), &edb, 2e-5);
    }
}
#[test]
fn gemm_backward_bf16() {
    gemm_backward::<bf16>("gemm_backward_bf16");
}
#[test]
fn gemm_backward_bf16_f32() {
    gemm_backward::<f32>("gemm_backward_bf16_f32");
}

// ---- The rest ----

#[test]
fn cross_entropy() {
    let gpu = Gpu::open();
    for (rows, classes) in [(1, 1), (3, 2), (5, 100)] {
        let (x, labels) = (
            numbers::<f32>(rows * classes, 1),
            (0..rows).map(|i| (i * 7 % classes) as u32).collect::<Vec<_>>(),
        );
        let (px, pl) = (gpu.put(&x), gpu.put(&labels));
        let (probabilities, losses, loss) = (gpu.room(rows * classes * 4), gpu.room(rows * 4), gpu.room(4));
        let (module, grid) = (&kernels::CROSS_ENTROPY, [rows, 1, 1]);
        let arguments = [P(px), L(classes), P(pl), P(probabilities), P(losses), W(classes)];
        gpu.launch(module, "cross_entropy_forward_f32", grid, 64, 0, &arguments);
        gpu.launch(module, "mean_loss", [1, 1, 1], 256, 0, &[P(losses), P(loss), W(rows)]);
        let dx = gpu.room(rows * classes * 4);
        let arguments = [P(gpu.put(&[2.0f32])), P(probabilities), P(pl), P(dx), W(classes)];
        gpu.launch(module, "cross_entropy_backward_f32", grid, 64, 0, &arguments);
        let (mut mean, mut gradient) = (0.0, vec![]);
        for (x, &label) in wide(&x).chunks(classes).zip(&labels) {
            let sum: f64 = x.iter().map(|x| x.exp()).sum();
            mean += (sum.ln() - x[label as usize]) / rows as f64;
            let onehot = |i: usize| f64::from(u8::from(i == label as usize));
            gradient
                .extend(x.iter().enumerate().map(|(i, x)| (x.exp() / sum - onehot(i)) * 2.0 / rows as f64));
        }
        assert_close("loss", &gpu.get::<f32>(loss), &[mean], 1e-6);
        assert_close("dx", &gpu.get::<f32>(dx), &gradient, 1e-6);
    }
}

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
