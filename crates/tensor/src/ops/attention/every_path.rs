//! Attention against an explicit softmax, central differences, and itself on other paths.

use super::*;
use crate::cpu::isa::{Isa, every_path, with_isa};
use crate::cpu::parallel;
use crate::random;

/// One problem, with its inputs in f64.
#[derive(Clone)]
struct Case {
    lens: Vec<usize>,
    heads: usize,
    head_size: usize,
    queries: Queries,
    dropout: Option<Dropout>,
    qkv: Vec<f64>,
    dout: Vec<f64>,
}

const SCALE: f64 = 0.3;

fn dropout(dropout_p: f32) -> Dropout {
    Dropout { dropout_p, seed: 0x1234_5678_9abc, step: 7, site: 3, first_sequence: 5 }
}

impl Case {
    fn new(
        lens: &[usize],
        heads: usize,
        head_size: usize,
        queries: Queries,
        dropout: Option<Dropout>,
    ) -> Self {
        let total: usize = lens.iter().sum();
        let width = heads * head_size;
        let values = |n, std, stream| random::normal(n, std, 11, stream).into_iter().map(f64::from).collect();
        let rows = if queries == Queries::All { total } else { lens.len() };
        Case {
            lens: lens.to_vec(),
            heads,
            head_size,
            queries,
            dropout,
            qkv: values(total * 3 * width, 1.0, 0),
            dout: values(rows * width, 1.0, 1),
        }
    }

    fn width(&self) -> usize {
        self.heads * self.head_size
    }

    fn offsets(&self) -> Offsets {
        Offsets::from_lengths(self.lens.iter().copied()).unwrap()
    }

    fn options(&self) -> AttentionOptions {
        AttentionOptions { dropout: self.dropout, probabilities_for: (0..self.heads).rev().collect() }
    }

    fn tensor(&self, values: &[f64], columns: usize, dtype: DType) -> Tensor {
        Tensor::from_slice(values, &[values.len() / columns, columns]).unwrap().to_dtype(dtype).unwrap()
    }

    fn forward(&self, dtype: DType) -> Attention {
        let qkv = self.tensor(&self.qkv, 3 * self.width(), dtype);
        attention(&qkv, self.heads, SCALE, &self.offsets(), self.queries, &self.options()).unwrap()
    }

    fn backward(&self, dtype: DType) -> Tensor {
        let lse = self.forward(dtype).lse;
        let qkv = self.tensor(&self.qkv, 3 * self.width(), dtype);
        let dout = self.tensor(&self.dout, self.width(), dtype);
        let (offsets, options) = (self.offsets(), self.options());
        attention_backward(&dout, &qkv, &lse, self.heads, SCALE, &offsets, self.queries, &options).unwrap()
    }

    /// What `attention` and `attention_backward` must give, from the definition with whole matrices.
    fn naive(&self) -> Naive {
        let (width, size) = (self.width(), self.head_size);
        let rows = self.dout.len() / width;
        let mut result = Naive {
            out: vec![0.0; rows * width],
            lse: vec![f64::NEG_INFINITY; rows * self.heads],
            probabilities: Vec::new(),
            dqkv: vec![0.0; self.qkv.len()],
        };
        for (sequence, keys) in self.offsets().ranges().enumerate() {
            let query_rows = if self.queries == Queries::All { keys.len() } else { keys.len().min(1) };
            let first_out = if self.queries == Queries::All { keys.start } else { sequence };
            let mut heads_probabilities = vec![Vec::new(); self.heads];
            for (head, probabilities) in heads_probabilities.iter_mut().enumerate() {
                let at = |which: usize, row: usize, d: usize| {
                    (keys.start + row) * 3 * width + which * width + head * size + d
                };
                let x = |which, row, d| self.qkv[at(which, row, d)];
                for i in 0..query_rows {
                    let scores: Vec<f64> = (0..keys.len())
                        .map(|j| SCALE * (0..size).map(|d| x(0, i, d) * x(1, j, d)).sum::<f64>())
                        .collect();
                    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let lse = largest + scores.iter().map(|s| (s - largest).exp()).sum::<f64>().ln();
                    result.lse[head * rows + first_out + i] = lse;
                    let p: Vec<f64> = scores.iter().map(|s| (s - lse).exp()).collect();
                    let keep: Vec<f64> = (0..keys.len())
                        .map(|j| match &self.dropout {
                            None => 1.0,
                            Some(dropout) => {
                                let draw =
                                    dropout.attention_draw(head as u32, sequence as u32, i as u32, j as u32);
                                if draw < dropout.threshold() { 0.0 } else { f64::from(dropout.scale()) }
                            }
                        })
                        .collect();
                    let out_at = (first_out + i) * width + head * size;
                    let dout = &self.dout[out_at..out_at + size];
                    for j in 0..keys.len() {
                        for (d, dout) in dout.iter().enumerate() {
                            result.out[out_at + d] += p[j] * keep[j] * x(2, j, d);
                            result.dqkv[at(2, j, d)] += p[j] * keep[j] * dout;
                        }
                    }
                    let dp: Vec<f64> = (0..keys.len())
                        .map(|j| keep[j] * (0..size).map(|d| dout[d] * x(2, j, d)).sum::<f64>())
                        .collect();
                    let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                    for j in 0..keys.len() {
                        let ds = SCALE * p[j] * (dp[j] - delta);
                        for d in 0..size {
                            result.dqkv[at(0, i, d)] += ds * x(1, j, d);
                            result.dqkv[at(1, j, d)] += ds * x(0, i, d);
                        }
                    }
                    probabilities.extend(p);
                }
            }
            result.probabilities.push(heads_probabilities.into_iter().rev().flatten().collect());
        }
        result
    }

    /// Compares both passes with the definition; errors are relative to the largest value of each result.
    fn check(&self, dtype: DType, tolerance: f64) {
        let what = format!(
            "{dtype} {} lens {:?} heads {} x {} {:?} dropout {:?}",
            Isa::current(),
            self.lens,
            self.heads,
            self.head_size,
            self.queries,
            self.dropout.map(|dropout| dropout.dropout_p)
        );
        let expected = self.naive();
        let Attention { out, lse, probabilities } = self.forward(dtype);
        close(&format!("{what}: out"), &out, &expected.out, tolerance);
        close(&format!("{what}: lse"), &lse, &expected.lse, tolerance);
        for (got, expected) in probabilities.iter().zip(&expected.probabilities) {
            close(&format!("{what}: probabilities"), got, expected, tolerance);
        }
        assert_eq!(probabilities.len(), self.lens.len());
        close(&format!("{what}: dqkv"), &self.backward(dtype), &expected.dqkv, tolerance);
    }
}

struct Naive {
    out: Vec<f64>,
    lse: Vec<f64>,
    probabilities: Vec<Vec<f64>>,
    dqkv: Vec<f64>,
}

fn f64s(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap()
}

fn close(what: &str, got: &Tensor, expected: &[f64], tolerance: f64) {
    let got = f64s(got);
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().filter(|x| x.is_finite()).fold(1e-3f64, |a, x| a.max(x.abs()));
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let fine = got == expected || (got - expected).abs() <= tolerance * largest;
        assert!(fine, "{what}: [{i}] is {got}, not {expected}");
    }
}

const BOUNDARIES: [usize; 8] = [0, 1, 15, 16, 17, 64, 65, 130];

#[test]
fn reference_equals_the_explicit_softmax() {
    for queries in [Queries::All, Queries::First] {
        for dropout in [None, Some(dropout(0.1)), Some(dropout(0.0))] {
            Case::new(&BOUNDARIES, 2, 5, queries, dropout).check(DType::F64, 1e-12);
            Case::new(&[33, 0, 270], 1, 4, queries, dropout).check(DType::F64, 1e-12);
        }
    }
}

#[test]
fn single_precision_equals_the_explicit_softmax() {
    for isa in every_path() {
        with_isa(isa, || {
            for queries in [Queries::All, Queries::First] {
                for dropout in [None, Some(dropout(0.25))] {
                    Case::new(&BOUNDARIES, 2, 32, queries, dropout).check(DType::F32, 4e-6);
                    Case::new(&[97, 3], 1, 64, queries, dropout).check(DType::F32, 4e-6);
                    for head_size in [1, 5, 24, 72, 80] {
                        Case::new(&[1, 18, 0, 50], 2, head_size, queries, dropout).check(DType::F32, 4e-6);
                    }
                }
            }
        });
    }
}

#[test]
fn half_precision_is_as_exact_as_its_inputs() {
    let check = |lens: &[usize], heads, head_size, queries, dropout_p: Option<f32>| {
        for (dtype, tolerance) in [(DType::BF16, 2e-2), (DType::F16, 3e-3)] {
            let case = Case::new(lens, heads, head_size, queries, dropout_p.map(dropout));
            let rounded = Case {
                qkv: f64s(&case.tensor(&case.qkv, 1, dtype)),
                dout: f64s(&case.tensor(&case.dout, 1, dtype)),
                ..case
            };
            rounded.check(dtype, tolerance);
        }
    };
    for isa in every_path() {
        with_isa(isa, || {
            check(&[17, 70], 2, 40, Queries::All, Some(0.1));
            // Several blocks of queries and of keys, with ragged ends.
            for queries in [Queries::All, Queries::First] {
                check(&BOUNDARIES, 2, 32, queries, Some(0.1));
                check(&[97, 1, 0, 258], 1, 32, queries, None);
                check(&[95], 2, 64, queries, Some(0.25));
            }
        });
    }
}

/// The gradient of `sum(out * dout)` with respect to every input by central differences.
#[test]
fn gradients_equal_central_differences() {
    for queries in [Queries::All, Queries::First] {
        for dropout in [None, Some(dropout(0.3))] {
            let case = Case::new(&[3, 0, 18], 2, 3, queries, dropout);
            let dqkv = f64s(&case.backward(DType::F64));
            let loss = |case: &Case| {
                f64s(&case.forward(DType::F64).out).iter().zip(&case.dout).map(|(y, dy)| y * dy).sum::<f64>()
            };
            let eps = 1e-5;
            for (i, &got) in dqkv.iter().enumerate() {
                let [up, down] = [eps, -eps].map(|step| {
                    let mut moved = case.clone();
                    moved.qkv[i] += step;
                    loss(&moved)
                });
                let expected = (up - down) / (2.0 * eps);
                assert!((got - expected).abs() <= 1e-8, "{queries:?}: dqkv[{i}] is {got}, not {expected}");
            }
        }
    }
}

#[test]
fn the_first_query_alone_gives_the_first_row() {
    for dtype in [DType::F32, DType::F64] {
        for dropout in [None, Some(dropout(0.1))] {
            let all = Case::new(&[130, 1, 300], 2, 64, Queries::All, dropout);
            let first = Case { queries: Queries::First, dout: vec![0.0; 3 * all.width()], ..all.clone() };
            let (all_out, first_out) = (f64s(&all.forward(dtype).out), f64s(&first.forward(dtype).out));
            for (sequence, &row) in all.offsets().firsts().iter().enumerate() {
                let row = row as usize * all.width();
                assert_eq!(
                    all_out[row..row + all.width()],
                    first_out[sequence * all.width()..][..all.width()]
                );
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let case = Case::new(&[277, 64, 0, 31], 3, 64, Queries::All, Some(dropout(0.1)));
    let run = |threads| {
        parallel::with_threads(threads, || {
            (f64s(&case.forward(DType::F32).out), f64s(&case.backward(DType::F32)))
        })
    };
    assert!(run(1) == run(2));
}

#[test]
fn strided_rows_give_the_same_as_contiguous_ones() {
    let case = Case::new(&[5, 20], 2, 8, Queries::All, None);
    let columns = 3 * case.width();
    let mut wide = vec![9.0; 25 * (columns + 7)];
    for (wide, row) in wide.chunks_mut(columns + 7).zip(case.qkv.chunks(columns)) {
        wide[4..4 + columns].copy_from_slice(row);
    }
    let wide = case.tensor(&wide, columns + 7, DType::F64).narrow(1, 4, columns).unwrap();
    let got = attention(&wide, 2, SCALE, &case.offsets(), Queries::All, &case.options()).unwrap();
    assert_eq!(f64s(&got.out), f64s(&case.forward(DType::F64).out));
}

#[test]
fn extreme_scores_stay_finite() {
    for magnitude in [1e4f64, -1e4] {
        let mut case = Case::new(&[70, 1, 300], 1, 16, Queries::All, Some(dropout(0.1)));
        // Scores of about ±1e4, of which one or a few keys win.
        case.qkv.iter_mut().for_each(|x| *x = x.signum() * (x.abs() + 1.0) * (magnitude.abs() / 5.0).sqrt());
        if magnitude < 0.0 {
            let columns = 3 * case.width();
            case.qkv.chunks_mut(columns).for_each(|row| {
                (0..16).for_each(|d| (row[d], row[16 + d]) = (row[d].abs(), -row[16 + d].abs()));
            });
        }
        let finite = |tensor: &Tensor| f64s(tensor).iter().all(|x| x.is_finite());
        let forward = case.forward(DType::F32);
        assert!(finite(&forward.out) && finite(&forward.lse) && finite(&case.backward(DType::F32)));
    }
}

#[test]
fn nan_is_not_hidden() {
    let mut case = Case::new(&[20, 20], 1, 16, Queries::All, None);
    case.qkv[3 * 48 + 16] = f64::NAN;
    let out = f64s(&case.forward(DType::F32).out);
    assert!(out[..20 * 16].iter().all(|x| x.is_nan()));
    assert!(out[20 * 16..].iter().all(|x| x.is_finite()));
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let case = Case::new(&[4, 2], 2, 4, Queries::All, None);
    let qkv = case.tensor(&case.qkv, 24, DType::F32);
    let default = AttentionOptions::default();
    let call = |heads, offsets: &Offsets, options: &AttentionOptions| {
        attention(&qkv, heads, SCALE, offsets, Queries::All, options).unwrap_err().to_string()
    };
    assert!(call(3, &case.offsets(), &default).contains("3 heads"));
    assert!(call(0, &case.offsets(), &default).contains("expected"));
    assert!(call(2, &Offsets::ones(5).unwrap(), &default).contains("[5, "));
    let options = AttentionOptions { probabilities_for: vec![2], ..Default::default() };
    assert!(call(2, &case.offsets(), &options).contains("index 2"));
    let options = AttentionOptions { dropout: Some(dropout(1.0)), ..Default::default() };
    assert!(call(2, &case.offsets(), &options).contains("dropout_p"));
    let forward = case.forward(DType::F32);
    let narrow = case.tensor(&case.dout[..16], 8, DType::F32);
    let backward = |dout: &Tensor, lse: &Tensor| {
        let offsets = case.offsets();
        attention_backward(dout, &qkv, lse, 2, SCALE, &offsets, Queries::All, &default)
            .unwrap_err()
            .to_string()
    };
    assert!(backward(&narrow, &forward.lse).contains("dout"));
    let dout = case.tensor(&case.dout, 8, DType::F32);
    assert!(backward(&dout, &forward.lse.to_dtype(DType::F64).unwrap()).contains("lse"));
}
