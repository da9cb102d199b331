//! Products on every path against the f64 specification.

use super::*;
use crate::cpu::isa::{every_path, with_isa};
use crate::cpu::parallel::with_threads;
use proptest::prelude::*;

/// Deterministic values in (-1, 1).
fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn doubles(values: &[f32], map: impl Fn(f64) -> f64) -> Vec<f64> {
    values.iter().map(|&x| map(f64::from(x))).collect()
}

/// One product: shapes, layouts, and what happens around it.
#[derive(Clone, Copy, Debug)]
struct Case {
    m: usize,
    k: usize,
    n: usize,
    a_transposed: bool,
    b_transposed: bool,
    packed: bool,
    accumulate: bool,
    /// Elements between the rows of the operands, and of C.
    gap: usize,
    bias: bool,
    sequential: bool,
}

impl Case {
    fn new(m: usize, k: usize, n: usize) -> Self {
        Case {
            m,
            k,
            n,
            a_transposed: false,
            b_transposed: false,
            packed: false,
            accumulate: false,
            gap: 0,
            bias: false,
            sequential: false,
        }
    }
}

/// A view of `rows` x `columns` elements whose lines are `gap` apart, and how many elements it needs.
fn view<T>(data: &[T], rows: usize, columns: usize, transposed: bool, gap: usize) -> MatrixRef<'_, T> {
    if transposed {
        MatrixRef::with_strides(data, columns, rows, rows + gap, 1).transposed()
    } else {
        MatrixRef::with_strides(data, rows, columns, columns + gap, 1)
    }
}

/// Runs `case` on `isa` with `threads` threads and returns all of C's memory, gaps included.
fn run(case: Case, isa: Available, threads: usize) -> Vec<f32> {
    let Case { m, k, n, gap, .. } = case;
    let a = values((m + gap) * (k + gap), 1);
    let b = values((k + gap) * (n + gap), 2);
    let bias = values(n, 4);
    let mut c = values(m * (n + gap), 3);
    with_threads(threads, || {
        with_isa(isa, || {
            let a = view(&a, m, k, case.a_transposed, gap);
            let b = view(&b, k, n, case.b_transposed, gap);
            let packed = case.packed.then(|| PackedB::new(b));
            let rhs = packed.as_ref().map_or(Rhs::Matrix(b), Rhs::Packed);
            let out = MatrixMut::with_stride(&mut c, m, n, n + gap);
            if case.sequential {
                gemm_sequential(isa, a, rhs, out, case.accumulate);
            } else {
                let epilogue = add_bias(&bias);
                gemm(a, rhs, out, case.accumulate, case.bias.then_some(&epilogue as Epilogue<'_>));
            }
        });
    });
    c
}

/// Compares `run` with the f64 product, on every instruction set of the machine.
///
/// For any order of summation, with or without fused multiply-adds, the computed sum of n terms differs from the exact
/// one by at most n u / (1 - n u) times the sum of the terms' magnitudes, u = 2^-24 (Higham, Accuracy and Stability of
/// Numerical Algorithms, section 3.1). There are K products, and one term each for C and for the bias; a product that is
/// rounded before it is added counts as one more.
fn check_everywhere(case: Case) {
    let Case { m, k, n, gap, .. } = case;
    let reference = |map: fn(f64) -> f64| {
        let a = doubles(&values((m + gap) * (k + gap), 1), map);
        let b = doubles(&values((k + gap) * (n + gap), 2), map);
        let mut c = doubles(&values(m * (n + gap), 3), map);
        naive(
            view(&a, m, k, case.a_transposed, gap),
            view(&b, k, n, case.b_transposed, gap),
            MatrixMut::with_stride(&mut c, m, n, n + gap),
            case.accumulate,
        );
        if case.bias && !case.sequential {
            let bias = doubles(&values(n, 4), map);
            for row in c.chunks_mut((n + gap).max(1)) {
                row.iter_mut().zip(&bias).for_each(|(c, bias)| *c += bias);
            }
        }
        c
    };
    let (exact, magnitude) = (reference(|x| x), reference(f64::abs));
    let terms = (k + 3) as f64 * f64::from(f32::EPSILON) / 2.0;
    let bound = terms / (1.0 - terms);
    let untouched = values(m * (n + gap), 3);
    for isa in every_path() {
        for (i, &got) in run(case, isa, 1).iter().enumerate() {
            if i % (n + gap).max(1) >= n {
                assert_eq!(got, untouched[i], "{case:?} on {isa}: wrote between the rows, at {i}");
                continue;
            }
            let (error, allowed) = ((f64::from(got) - exact[i]).abs(), bound * magnitude[i]);
            assert!(
                error <= allowed,
                "{case:?} on {isa}: [{i}]: {got} against {}, off by {error:e} > {allowed:e}",
                exact[i]
            );
        }
    }
}

#[test]
fn small_and_ragged_shapes() {
    for m in [0, 1, 2, 3, 5, 6, 7, 8, 9, 13, 17] {
        for n in [0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 47, 48, 49, 97] {
            for k in [0, 1, 2, 19] {
                check_everywhere(Case { bias: true, ..Case::new(m, k, n) });
            }
        }
    }
}

#[test]
fn several_blocks_in_every_dimension() {
    // More rows than a block, more columns than a strip or a packed part, and one block to several parts of the depth.
    // Few elements where a dimension need not be long: an emulated processor computes these, too.
    const SHAPES: [(usize, usize, usize); 9] = [
        (37, 101, 53),
        (129, 383, 17),
        (131, 3, 769),
        (260, 33, 50),
        (16, 513, 97),
        (1, 1025, 200),
        (129, 1, 9),
        (129, 2050, 2),
        (129, 3, 1540),
    ];
    for (m, k, n) in SHAPES {
        for packed in [false, true] {
            check_everywhere(Case { packed, bias: true, ..Case::new(m, k, n) });
            check_everywhere(Case { packed, accumulate: true, gap: 3, ..Case::new(m, k, n) });
            check_everywhere(Case { packed, a_transposed: true, ..Case::new(m, k, n) });
            check_everywhere(Case { packed, b_transposed: true, gap: 1, ..Case::new(m, k, n) });
        }
        check_everywhere(Case {
            a_transposed: true,
            b_transposed: true,
            sequential: true,
            ..Case::new(m, k, n)
        });
    }
}

#[test]
fn strides_of_zero_broadcast() {
    let (row, b) = ([1.0f32, 2.0, 3.0], [1.0f32; 6]);
    let mut c = [0.0; 8];
    gemm(
        MatrixRef::with_strides(&row, 4, 3, 0, 1),
        MatrixRef::new(&b, 3, 2),
        MatrixMut::new(&mut c, 4, 2),
        false,
        None,
    );
    assert_eq!(c, [6.0; 8]);
}

#[test]
fn overwriting_ignores_what_c_held() {
    for isa in every_path() {
        let (a, b) = (values(9 * 5, 1), values(5 * 50, 2));
        let mut c = [f32::NAN; 9 * 50];
        gemm_sequential(
            isa,
            MatrixRef::new(&a, 9, 5),
            MatrixRef::new(&b, 5, 50),
            MatrixMut::new(&mut c, 9, 50),
            false,
        );
        assert!(c.iter().all(|c| c.is_finite()), "on {isa}");
    }
}

#[test]
fn nan_and_infinity_reach_their_rows_and_columns_only() {
    for isa in every_path() {
        let (m, k, n) = (9, 20, 50);
        let (mut a, mut b) = (values(m * k, 1), values(k * n, 2));
        a[3 * k + 7] = f32::NAN;
        b[5 * n + 49] = f32::INFINITY;
        let mut c = vec![0.0; m * n];
        gemm_sequential(
            isa,
            MatrixRef::new(&a, m, k),
            MatrixRef::new(&b, k, n),
            MatrixMut::new(&mut c, m, n),
            false,
        );
        for (i, c) in c.iter().enumerate() {
            assert_eq!(c.is_finite(), i / n != 3 && i % n != 49, "on {isa}: [{i}] is {c}");
        }
    }
}

#[test]
fn the_epilogue_sees_every_element_once() {
    let (m, n) = (300, 1000);
    let (a, b) = (values(m * 8, 1), values(8 * n, 2));
    let (mut c, mut plain) = (vec![0.0; m * n], vec![0.0; m * n]);
    let number = |row: usize, first: usize, c: &mut [f32]| {
        c.iter_mut().enumerate().for_each(|(j, c)| *c += (row * n + first + j) as f32);
    };
    let (a, b) = (MatrixRef::new(&a, m, 8), MatrixRef::new(&b, 8, n));
    gemm(a, b, MatrixMut::new(&mut c, m, n), false, Some(&number));
    gemm(a, b, MatrixMut::new(&mut plain, m, n), false, None);
    for (i, (c, plain)) in c.iter().zip(&plain).enumerate() {
        assert_eq!(*c, plain + i as f32, "[{i}]");
    }
}

#[test]
fn a_packed_matrix_remembers_its_instruction_set() {
    let b = values(30 * 50, 2);
    let packed = with_isa(Available::SCALAR, || PackedB::new(MatrixRef::new(&b, 30, 50)));
    assert_eq!((packed.isa(), packed.rows(), packed.columns()), (Available::SCALAR, 30, 50));
    assert!(packed.bytes() >= 30 * 50 * 4);
    let a = values(4 * 30, 1);
    let (mut c, mut scalar) = (vec![0.0; 200], vec![0.0; 200]);
    gemm(MatrixRef::new(&a, 4, 30), &packed, MatrixMut::new(&mut c, 4, 50), false, None);
    let b = MatrixRef::new(&b, 30, 50);
    gemm_sequential(
        Available::SCALAR,
        MatrixRef::new(&a, 4, 30),
        b,
        MatrixMut::new(&mut scalar, 4, 50),
        false,
    );
    assert_eq!(c, scalar);
}

#[test]
fn the_peak_is_positive() {
    for isa in every_path() {
        let peak = with_isa(isa, || peak_gflops(1));
        assert!(peak.is_finite() && peak > 0.1, "{isa}: {peak}");
    }
}

#[test]
#[should_panic(expected = "cannot multiply")]
fn shapes_that_do_not_fit_are_refused() {
    let mut c = [0.0; 4];
    gemm(
        MatrixRef::new(&[0.0; 6], 2, 3),
        MatrixRef::new(&[0.0; 4], 2, 2),
        MatrixMut::new(&mut c, 2, 2),
        false,
        None,
    );
}

#[test]
#[should_panic(expected = "exceeds 5 elements")]
fn views_beyond_the_data_are_refused() {
    MatrixRef::new(&[0.0f32; 5], 2, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_product_matches_the_specification(
        (m, k, n) in (0..150usize, 0..300usize, 0..60usize),
        (a_transposed, b_transposed, packed) in any::<(bool, bool, bool)>(),
        (accumulate, bias, sequential) in any::<(bool, bool, bool)>(),
        gap in 0..4usize,
    ) {
        check_everywhere(Case { m, k, n, a_transposed, b_transposed, packed, accumulate, gap, bias, sequential });
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads(
        (m, k, n) in (1..200usize, 1..600usize, 1..200usize),
        (a_transposed, b_transposed, packed, accumulate) in any::<(bool, bool, bool, bool)>(),
    ) {
        let case = Case { a_transposed, b_transposed, packed, accumulate, ..Case::new(m, k, n) };
        for isa in every_path() {
            let one = run(case, isa, 1);
            for threads in [2, 3] {
                let more = run(case, isa, threads);
                let differs = (0..one.len()).find(|&i| one[i].to_bits() != more[i].to_bits());
                prop_assert_eq!(differs, None, "{:?} on {} with {} threads", case, isa, threads);
            }
        }
    }
}
