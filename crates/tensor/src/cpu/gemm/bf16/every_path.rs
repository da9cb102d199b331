//! The bfloat16 product on every path against sums in f64.

use super::*;
use crate::cpu::isa::{every_path, with_isa};
use crate::random::philox;
use std::sync::Mutex;

/// Numbers in [-1, 1], rounded to bfloat16.
fn numbers(len: usize, seed: u32) -> Vec<bf16> {
    let word = |i: usize| philox([i as u32, seed, 0, 0], [7, 0])[0];
    (0..len).map(|i| bf16::from_f64(f64::from(word(i)) / f64::from(u32::MAX) * 2.0 - 1.0)).collect()
}

/// C and the sums of absolute products, in f64.
fn reference(a: MatrixRef<'_, bf16>, b: MatrixRef<'_, bf16>) -> Vec<(f64, f64)> {
    // SAFETY: indices below the numbers of rows and columns.
    let at = |m: MatrixRef<'_, bf16>, i, j| unsafe {
        f64::from(f32::from_bits(u32::from((*m.at(i, j)).to_bits()) << 16))
    };
    // Every number is converted once: an emulated processor runs this, too.
    let rows: Vec<f64> = (0..a.rows()).flat_map(|i| (0..a.columns()).map(move |k| at(a, i, k))).collect();
    let mut c = vec![(0.0, 0.0); a.rows() * b.columns()];
    for k in 0..b.rows() {
        let b_row: Vec<f64> = (0..b.columns()).map(|j| at(b, k, j)).collect();
        for (i, c) in c.chunks_exact_mut(b.columns().max(1)).enumerate() {
            let a = rows[i * b.rows() + k];
            for ((sum, size), b) in c.iter_mut().zip(&b_row) {
                (*sum, *size) = (*sum + a * b, *size + (a * b).abs());
            }
        }
    }
    c
}

/// C as the sink receives it; panics if an element comes twice or never.
fn product(a: MatrixRef<'_, bf16>, b: &PackedPairs) -> Vec<f32> {
    collect(a, b, |sink| gemm_bf16(a, b, sink))
}

fn collect(a: MatrixRef<'_, bf16>, b: &PackedPairs, multiply: impl FnOnce(Sink<'_>)) -> Vec<f32> {
    let columns = b.columns();
    let c = Mutex::new(vec![None; a.rows() * columns]);
    multiply(&|row, first, sums| {
        let mut c = c.lock().unwrap();
        for (j, sum) in sums.iter().enumerate() {
            assert!(c[row * columns + first + j].replace(*sum).is_none(), "({row}, {}) twice", first + j);
        }
    });
    c.into_inner().unwrap().into_iter().map(|c| c.expect("every element")).collect()
}

#[track_caller]
fn check(name: &str, a: MatrixRef<'_, bf16>, b: MatrixRef<'_, bf16>) {
    let expected = reference(a, b);
    for isa in every_path() {
        let got = with_isa(isa, || product(a, &PackedPairs::new(b)));
        compare(&format!("{name} on {isa}"), a.columns(), &got, &expected);
    }
}

#[track_caller]
fn compare(name: &str, depth: usize, got: &[f32], expected: &[(f64, f64)]) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, (sum, size))) in got.iter().zip(expected).enumerate() {
        // K roundings of f32, each relative to a partial sum; the dot product instruction has two a pair.
        let limit = size * (depth as f64 + 4.0) * f64::from(f32::EPSILON);
        let error = (f64::from(*got) - sum).abs();
        assert!(error <= limit, "{name}, element {index}: {got} instead of {sum} +- {limit}");
    }
}

/// The AMX kernel's machine code, on the processor's tiles or, where it has none, on emulated ones.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn amx_tiles() {
    if Isa::Amx.if_available().is_none() {
        tiles::emulate();
    }
    let isa = Isa::current();
    for [m, k, n] in SHAPES {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let (a, b) = (MatrixRef::new(&a, m, k), MatrixRef::new(&b, k, n));
        let packed = PackedPairs::new(b);
        // SAFETY: the machine has AMX, or the emulation of it.
        let got = collect(a, &packed, |sink| unsafe { multiply::<amx::Amx>(isa, a, &packed, sink) });
        compare(&format!("{m} x {k} x {n}"), k, &got, &reference(a, b));
    }
    // The tails of a row count, with a sum that is continued.
    let (a, b) = (numbers(31 * 64, 5), numbers(64 * 32, 6));
    let b = MatrixRef::new(&b, 64, 32);
    let mut words = vec![0; pairs_len(64, 32)];
    pack_pairs(isa, b, &mut words);
    for rows in 1..=31 {
        let a = MatrixRef::new(&a, rows, 64);
        let mut c = vec![1.0; rows * 32];
        let tile = Tile {
            steps: 2,
            a: a.pointer,
            a_row_stride: 64,
            b: words.as_ptr(),
            c: c.as_mut_ptr(),
            c_row_stride: 32,
            accumulate: true,
            passes_a: rows % 2 == 0,
        };
        // SAFETY: the machine has AMX, or the emulation of it; the operands are as large as the tile says.
        unsafe {
            amx::Amx::begin();
            amx::Amx::tile(isa, rows, &tile);
            amx::Amx::end();
        }
        let expected: Vec<_> =
            reference(a, b).into_iter().map(|(sum, size)| (sum + 1.0, size + 1.0)).collect();
        compare(&format!("{rows} rows, continued"), 64, &c, &expected);
    }
}

/// Rows, inner dimension, columns: around tiles, panels, steps and blocks.
const SHAPES: [[usize; 3]; 14] = [
    [0, 3, 4],
    [3, 4, 0],
    [2, 0, 5],
    [1, 1, 1],
    [1, 64, 40],
    [7, 33, 31],
    [12, 32, 32],
    [16, 31, 33],
    [17, 96, 65],
    [31, 100, 64],
    [32, 513, 32],
    [33, 1056, 33],
    [203, 70, 130],
    [260, 33, 390],
];

#[test]
fn products_of_every_layout_equal_sums_in_f64() {
    for [m, k, n] in SHAPES {
        let name = format!("{m} x {k} x {n}");
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let rows = MatrixRef::new(&a, m, k);
        check(&name, rows, MatrixRef::new(&b, k, n));
        // y = x W^T, dx = dy W and dW = dy^T x read these.
        let columns = MatrixRef::new(&b, n, k).transposed();
        check(&format!("{name}, B transposed"), rows, columns);
        let a_transposed = MatrixRef::new(&a, k, m).transposed();
        check(&format!("{name}, A transposed"), a_transposed, MatrixRef::new(&b, k, n));
        check(&format!("{name}, both"), a_transposed, columns);
    }
}

#[test]
fn strided_operands() {
    let data = numbers(70 * 90, 3);
    for start in [0, 1, 3] {
        let a = MatrixRef::with_strides(&data[start..], 20, 64, 71, 1);
        let b = MatrixRef::with_strides(&data[start..], 64, 33, 75, 1);
        check("odd row strides", a, b);
        check("odd column strides", b.transposed(), a.transposed());
        let both = MatrixRef::with_strides(&data[start..], 20, 35, 88, 2);
        check("two strides", both, MatrixRef::with_strides(&data, 35, 20, 1, 37));
    }
}

/// Sums of small integers are exact in every order, on every instruction set, and with every number of threads.
#[test]
fn integers_are_exact_and_threads_change_nothing() {
    let integers =
        |len: usize| (0..len).map(|i| bf16::from_f32((i * 37 % 15) as f32 - 7.0)).collect::<Vec<_>>();
    let (a, b) = (integers(270 * 96), integers(96 * 70));
    let (a, b) = (MatrixRef::new(&a, 270, 96), MatrixRef::new(&b, 96, 70));
    let expected: Vec<f32> = reference(a, b).into_iter().map(|(sum, _)| sum as f32).collect();
    for isa in every_path() {
        for threads in [1, 2, 3] {
            let got = parallel::with_threads(threads, || with_isa(isa, || product(a, &PackedPairs::new(b))));
            assert!(got == expected, "{isa}, {threads} threads");
        }
    }
}

#[test]
fn values_beyond_numbers_pass_through() {
    let mut a = numbers(40 * 32, 4);
    (a[5 * 32], a[6 * 32]) = (bf16::NAN, bf16::INFINITY);
    let b = vec![bf16::ONE; 32 * 32];
    for isa in every_path() {
        let c = with_isa(isa, || {
            product(MatrixRef::new(&a, 40, 32), &PackedPairs::new(MatrixRef::new(&b, 32, 32)))
        });
        assert!(c[5 * 32..6 * 32].iter().all(|c| c.is_nan()), "{isa}");
        assert!(c[6 * 32..7 * 32].iter().all(|c| *c == f32::INFINITY), "{isa}");
        assert!(c[7 * 32..].iter().chain(&c[..5 * 32]).all(|c| c.is_finite()), "{isa}");
    }
}

/// Products that live on subnormal operands: the bound is that of [`gemm_bf16`], and nothing more than roundings where the
/// instruction set keeps them.
#[test]
fn subnormal_operands_are_kept_or_lost_within_the_bound() {
    const LEAST: f64 = f32::MIN_POSITIVE as f64;
    let (m, k, n) = (35, 70, 40);
    // Every third element of A is subnormal, and so is every fifth of B; the others span the range in which products stay finite.
    let operand = |len: usize, seed: u32, every: usize, scale: f64| -> Vec<bf16> {
        let scaled =
            |(i, x): (usize, bf16)| bf16::from_f64(x.to_f64() * if i % every == 0 { LEAST } else { scale });
        numbers(len, seed).into_iter().enumerate().map(scaled).collect()
    };
    for scale in [1.0, 2f64.powi(60), 2f64.powi(-66)] {
        let (a, b) = (operand(m * k, 1, 3, scale), operand(k * n, 2, 5, scale));
        let (a, b) = (MatrixRef::new(&a, m, k), MatrixRef::new(&b, k, n));
        let exact = reference(a, b);
        // SAFETY: indices below the numbers of rows and columns.
        let size = |matrix: MatrixRef<'_, bf16>, i, j| unsafe { (*matrix.at(i, j)).to_f64().abs() };
        for isa in every_path() {
            let flushes = matches!(isa.isa(), Isa::Avx512Bf16 | Isa::Amx);
            let got = with_isa(isa, || product(a, &PackedPairs::new(b)));
            for (index, (got, (sum, sizes))) in got.iter().zip(&exact).enumerate() {
                let (i, j) = (index / n, index % n);
                let lost: f64 = (0..k).map(|p| size(a, i, p) + size(b, p, j) + 2.0).sum();
                // A rounding to a subnormal sum is off by half of the least number.
                let roundings = (k as f64 + 4.0) * (sizes * f64::from(f32::EPSILON) + 2f64.powi(-150));
                let limit = roundings + if flushes { LEAST * lost } else { 0.0 };
                let error = (f64::from(*got) - sum).abs();
                assert!(error <= limit, "{isa}, {scale:e}: [{i}, {j}]: {got:e}, not {sum:e} +- {limit:e}");
            }
        }
    }
}
