//! Attention: plain FMAs and tensor cores.

use crate::draws::{attention, settings};
use crate::harness::Gpu;
use crate::numbers::{Float, assert_close, numbers, wide};
use half::bf16;
use vitrine_kernels::attention::{AttentionBackwardDkv, AttentionBackwardDq, AttentionForward};
use vitrine_kernels::attention_general::{
    AttentionGeneralBackwardDkv, AttentionGeneralBackwardDq, AttentionGeneralForward,
};
use vitrine_kernels::{Attention, Dropout, Real};

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
fn attention_case<T: Float>(fast: bool, size: usize, lengths: &[usize], first_only: bool, p: f64) {
    let gpu = Gpu::open();
    let what = format!("{:?} D {size} {lengths:?} first {first_only} p {p}", T::REAL);
    let heads = 2;
    let mut offsets = vec![0u32];
    lengths.iter().for_each(|len| offsets.push(offsets[offsets.len() - 1] + *len as u32));
    let (total, sequences) = (lengths.iter().sum::<usize>(), lengths.len());
    let longest = *lengths.iter().max().unwrap();
    let (width, rows) = (heads * size, if first_only { sequences } else { total });
    let stride = 3 * width + 8;
    let qkv = numbers::<T>(total * stride, 11);
    let dout = numbers::<T>(rows * width, 12);
    let a = Attention {
        qkv_stride: stride as u64,
        heads: heads as u32,
        head_size: size as u32,
        rows: rows as u32,
        first_only: u32::from(first_only),
        softmax_scale: 1.0 / (size as f32).sqrt(),
        reserved: 0,
    };
    let d = settings(p);
    let expected = attention_reference(&wide(&qkv), &wide(&dout), &a, &offsets, &d);
    let (pqkv, po, pdout) = (gpu.put(&qkv), gpu.table(&offsets), gpu.put(&dout));
    let mut out = gpu.room::<T>(rows * width);
    let [mut lse, mut delta] = [0; 2].map(|_| gpu.room::<f32>(heads * rows));
    let mut dqkv = gpu.room::<T>(total * 3 * width);
    macro_rules! launch {
        ($fast:ident or $general:ident { $($fields:tt)* }) => {
            if fast { gpu.launch($fast { $($fields)* }) } else { gpu.launch($general { $($fields)* }) }
        };
    }
    launch!(AttentionForward or AttentionGeneralForward {
        longest: if first_only { 1 } else { longest },
        sequences,
        qkv: &pqkv,
        offsets: &po,
        out: &mut out,
        lse: &mut lse,
        attention: a,
        dropout: d,
    });
    let tolerance = T::TOLERANCE * if T::REAL == Real::F32 { 10.0 } else { 4.0 };
    assert_close(&format!("{what}: out"), &gpu.get::<T>(out), &expected.out, tolerance);
    for (i, (got, expected)) in gpu.get::<f32>(lse).iter().zip(&expected.lse).enumerate() {
        let same = f64::from(*got) == *expected; // empty: -inf
        assert!(same || (f64::from(*got) - expected).abs() < 1e-4, "{what}: lse[{i}]: {got} for {expected}");
    }
    launch!(AttentionBackwardDq or AttentionGeneralBackwardDq {
        longest,
        sequences,
        qkv: &pqkv,
        offsets: &po,
        dout: &pdout,
        lse: &lse,
        delta: &mut delta,
        dqkv: &mut dqkv,
        attention: a,
        dropout: d,
    });
    launch!(AttentionBackwardDkv or AttentionGeneralBackwardDkv {
        longest,
        sequences,
        qkv: &pqkv,
        offsets: &po,
        dout: &pdout,
        lse: &lse,
        delta: &mut delta,
        dqkv: &mut dqkv,
        attention: a,
        dropout: d,
    });
    assert_close(&format!("{what}: dqkv"), &gpu.get::<T>(dqkv), &expected.dqkv, tolerance * 2.0);
}
#[test]
fn attention_general_f32() {
    attention_case::<f32>(false, 5, &[0, 1, 33, 7], false, 0.0);
    attention_case::<f32>(false, 64, &[40, 0, 3], false, 0.3);
    attention_case::<f32>(false, 128, &[35], false, 0.1);
    attention_case::<f32>(false, 16, &[40, 0, 3], true, 0.2);
}
#[test]
fn attention_general_bf16() {
    attention_case::<bf16>(false, 24, &[0, 1, 33, 7], false, 0.2);
}
#[test]
fn attention_on_tensor_cores() {
    for p in [0.0, 0.3] {
        attention_case::<bf16>(true, 32, &[0, 1, 65, 7], false, p);
        attention_case::<bf16>(true, 64, &[64, 0, 130], false, p);
        attention_case::<bf16>(true, 64, &[70, 0, 3], true, p);
    }
}
