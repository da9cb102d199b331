//! Arithmetic of NVRTC's PTX against Rust's: functions of its library, integers, halves, calls, jumps, atomics, votes.

mod common;

use common::{Given, floats, launch, load, to_floats};
use half::{bf16, f16};
use vitrine_emulator::take_findings;

const PTX: &str = include_str!("kernels/numerics.ptx");

#[track_caller]
fn run(kernel: &str, blocks: u32, threads: u32, arguments: &[Given]) -> Vec<Vec<u8>> {
    let outcome = launch(load(PTX).unwrap(), kernel, blocks, threads, 0, arguments);
    let findings = take_findings();
    assert!(findings.is_empty(), "{}", findings[0]);
    outcome.unwrap()
}

fn words(values: impl IntoIterator<Item = i32>) -> Given {
    Given::Array(values.into_iter().flat_map(i32::to_le_bytes).collect())
}

fn to_words(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Numbers of many magnitudes and both signs; zero among them.
fn samples() -> Vec<f32> {
    (-40..60)
        .map(|i| (i as f32 * 0.37).sin() * 1.1f32.powi(i / 2))
        .chain([0.0, 1.0, -1.0, 2.5, -3.5])
        .collect()
}

#[track_caller]
fn close(what: &str, got: f64, expected: f64, tolerance: f64) {
    // In this form NaN fails.
    assert!((got - expected).abs() <= tolerance * expected.abs().max(1.0), "{what}: {got} for {expected}");
}

#[test]
fn functions_of_floats() {
    let x = samples();
    let n = x.len();
    let arrays = run("functions", 4, 32, &[floats(x.clone()), Given::Room(4 * 16 * n), Given::Int(n as i32)]);
    let out = to_floats(&arrays[1]);
    for (i, &v) in x.iter().enumerate() {
        let v64 = f64::from(v);
        let half = v64.abs() + 0.5;
        let whole = |v: f64| v.floor() + v.ceil() * 0.5 + v.trunc() * 0.25 + v.round_ties_even();
        let expected = [
            v64.exp(),
            f64::from(v.abs() + 0.5).ln(),
            v64.tanh(),
            libm::erf(v64),
            f64::from(v * 1e6).sin(),
            v64.cos(),
            f64::from(v.abs() + 0.1).powf(f64::from(1.7f32)),
            v64.abs().sqrt(),
            1.0 / (v64 + 10.0),
            whole(v64),
            v64.exp(),
            half.ln(),
            v64 % f64::from(0.7f32),
            2f64.copysign(v64) + v64.min(0.5) + v64.max(-0.5),
            v64.exp2() + (1.0 + v64.abs()).ln() + v64.cbrt() + v64.sin() + v64.cos(),
            1.0 / (v64 + 10.0) + v64 / 3.0 + 1.0 / (v64.abs() + 1.0).sqrt() + v64.clamp(0.0, 1.0),
        ];
        for (k, expected) in expected.into_iter().enumerate() {
            close(&format!("function {k} of {v}"), out[k * n + i].into(), expected, 2e-6);
        }
    }
}

#[test]
fn integers() {
    let a: Vec<i32> = (0..120)
        .map(|i: i32| i.wrapping_mul(0x9E37_79B9u32 as i32).rotate_left(i as u32 % 32) >> (i % 20))
        .collect();
    let b: Vec<i32> = a.iter().rev().map(|&v| if v == 0 { 7 } else { v ^ 0x1234 }).collect();
    let n = a.len();
    let arguments = [words(a.clone()), words(b.clone()), Given::Room(4 * 19 * n), Given::Int(n as i32)];
    let out = to_words(&run("integers", 4, 32, &arguments)[2]);
    for (i, (&x, &y)) in a.iter().zip(&b).enumerate() {
        let (ux, uy) = (x as u32, y as u32);
        let (long_x, long_y) = (i64::from(x), i64::from(y));
        let permuted = {
            let bytes = (u64::from(uy) << 32 | u64::from(ux)).to_le_bytes();
            // 0x2741, its lowest digit the lowest byte.
            u32::from_le_bytes([bytes[1], bytes[4], bytes[7], bytes[2]])
        };
        let funnel = u64::from(uy) << 32 | u64::from(ux);
        let (first, second) = (u64::from(ux) << 32 | u64::from(uy), u64::from(uy) << 32 | u64::from(ux));
        let dot: i32 = x
            .to_le_bytes()
            .iter()
            .zip(y.to_le_bytes())
            .map(|(&p, q)| i32::from(p as i8) * i32::from(q as i8))
            .sum();
        let ffs = if x == 0 { 0 } else { ux.trailing_zeros() + 1 };
        let expected = [
            x.wrapping_div(y),
            x.wrapping_rem(y),
            (ux / uy) as i32,
            (ux % uy) as i32,
            ((long_x * long_y) >> 32) as i32,
            ((u64::from(ux) * u64::from(uy)) >> 32) as i32,
            ((long_x * long_y) >> 7) as i32,
            (ux.count_ones() + ux.leading_zeros() * 64 + ffs * 4096) as i32,
            ux.reverse_bits() as i32,
            permuted as i32,
            ((funnel << (uy & 31)) >> 32) as i32,
            (funnel >> 13) as i32,
            (x & y) ^ (!x | (y >> 3)),
            (x.min(y) as u32).wrapping_add(ux.max(uy)).wrapping_add(x.wrapping_abs() as u32) as i32,
            (ux << (uy & 31)).wrapping_add((x >> (uy & 31)) as u32) as i32,
            (i32::from(x as i16) * i32::from(y as i16))
                .wrapping_add(i32::from(x as i8))
                .wrapping_add(i32::from(y as u8)),
            ((u128::from(first) * u128::from(second)) >> 64) as i32,
            (i64::from(ux).wrapping_mul(1_000_003) / i64::from(y | 1))
                .wrapping_add(i64::from((u64::from(ux) << 9).leading_zeros()))
                .wrapping_add(i64::from((long_x as u64).count_ones())) as i32,
            (x.abs_diff(y).wrapping_add(ux) as i32).wrapping_add(dot + 7),
        ];
        for (k, expected) in expected.into_iter().enumerate() {
            assert_eq!(out[k * n + i], expected, "identity {k} of {x} and {y}");
        }
    }
}

#[test]
fn half_precision() {
    let n = 64;
    let a: Vec<f32> = (0..n).map(|i| (i as f32 - 30.0) * 0.11).collect();
    let b: Vec<f32> = (0..n).map(|i| 1.7 - i as f32 * 0.05).collect();
    let h = |x: &[f32]| Given::Array(x.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect());
    let f = |x: &[f32]| Given::Array(x.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect());
    let room = || Given::Room(2 * 4 * n);
    let arguments = [h(&a), h(&b), room(), f(&a), f(&b), room(), Given::Int(n as i32)];
    let arrays = run("halves", 2, 32, &arguments);
    let pairs = |bytes: &[u8]| -> Vec<u16> {
        bytes.chunks_exact(2).map(|bytes| u16::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    let (h, f) = (pairs(&arrays[2]), pairs(&arrays[5]));
    for i in 0..n {
        // Every operation rounds once, from a result that f64 holds exactly.
        macro_rules! check {
            ($t:ty, $got:expr, $extreme:ident) => {{
                let (x, y) = (<$t>::from_f32(a[i]).to_f64(), <$t>::from_f32(b[i]).to_f64());
                let round = |v: f64| <$t>::from_f64(v).to_f64();
                let expected = [
                    round(x * y + round(x + y)),
                    round(x * y).$extreme(round(x - y)),
                    round(x * 3.0),
                    round(x * y + x),
                ];
                for (k, expected) in expected.into_iter().enumerate() {
                    let got = <$t>::from_bits($got[k * n + i]).to_f64();
                    assert_eq!(got, expected, "{} operation {k} of {x} and {y}", stringify!($t));
                }
            }};
        }
        check!(f16, h, max);
        check!(bf16, f, min);
    }
}

#[test]
fn calls_and_jumps() {
    let x = samples();
    let n = x.len();
    let arrays = run("calls", 4, 32, &[floats(x.clone()), Given::Room(4 * n), Given::Int(n as i32)]);
    let polynomial = |x: f64, degree: usize| (0..=degree).rev().fold(0.0, |y, i| y * x + f64::from(1 << i));
    for (i, (&x, &got)) in x.iter().zip(&to_floats(&arrays[1])).enumerate() {
        let expected = polynomial(x.into(), i % 4) + polynomial(-f64::from(x), 3);
        let size = polynomial(f64::from(x).abs(), 3);
        assert!((f64::from(got) - expected).abs() <= 1e-6 * size, "polynomial of {x}: {got} for {expected}");
    }

    let which: Vec<i32> = (0..64).map(|i| i % 11).collect();
    let arrays = run("jumps", 2, 32, &[words(which.clone()), Given::Room(256), Given::Int(64)]);
    for (r, (&case, &got)) in which.iter().zip(&to_words(&arrays[1])).enumerate() {
        let r = r as i32;
        let table = [r * 3 + 1, r ^ 0x55, r / 3, r.count_ones() as i32, r * r, r - 1000, r % 7, -r];
        assert_eq!(got, table.get(case as usize).copied().unwrap_or(0), "case {case} of {r}");
    }
}

#[test]
fn atomics_and_votes() {
    let x: Vec<i32> = (0..150).map(|i| (i * 37) % 101 - 20).collect();
    let arguments = [
        words(x.clone()),
        Given::Room(4 * 3),
        words([0, 0, i32::MIN, 0]),
        floats([0.0]),
        Given::Int(x.len() as i32),
    ];
    let arrays = run("reductions", 3, 64, &arguments);
    let total = to_words(&arrays[2]);
    let padded: Vec<i32> = x.iter().copied().chain([0; 42]).collect();
    let group = |range: std::ops::Range<usize>| padded[range].iter().sum::<i32>();
    assert_eq!(total[0], x.iter().sum::<i32>());
    assert_eq!(total[1], x.iter().filter(|v| **v & 1 == 1).count() as i32);
    assert_eq!(total[2], [0, 64, 128].map(|first| group(first..first + 32)).into_iter().max().unwrap());
    let peers = |first: usize| {
        padded[first..first + 32].iter().filter(|v| **v & 3 == padded[first] & 3).count() as i32
    };
    assert_eq!(total[3], [0, 64, 128].map(peers).iter().sum::<i32>());
    assert_eq!(to_floats(&arrays[3]), [total[0] as f32]);
}
