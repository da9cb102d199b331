//! The linear layer at BERT-base's shapes: fused forward against product plus separate passes, backward, and few rows,
//! as in inference, with and without the weight's cached packed form.
//!
//! `cargo bench -p vitrine-benches --bench linear`.

use std::hint::black_box;
use std::time::Duration;
use vitrine_autograd::cases;
use vitrine_benches::{Candidate, interleaved, values, verify_row};
use vitrine_tensor::Tensor;
use vitrine_tensor::cpu::{gemm, isa, parallel};
use vitrine_tensor::ops::elementwise::add;
use vitrine_tensor::ops::gelu::gelu_erf;
use vitrine_tensor::ops::linear::{Activation, LinearNeeds, linear, linear_backward};
use vitrine_tensor::ops::matmul::matmul;

fn tensor(dims: &[usize], seed: u32) -> Tensor {
    Tensor::from_slice(&values(dims.iter().product(), seed), dims).unwrap()
}

fn report(title: &str, flops: f64, peak: f64, candidates: &mut [Candidate<'_>]) {
    let seconds = interleaved(candidates, Duration::from_secs(3));
    println!("\n{title:<44} {:>9} {:>8} {:>9}", "ms", "GFLOP/s", "% of peak");
    for (candidate, seconds) in candidates.iter().zip(seconds) {
        let rate = flops / seconds / 1e9;
        println!("{:<44} {:>9.3} {rate:>8.1} {:>9.1}", candidate.name, seconds * 1e3, 100.0 * rate / peak);
    }
}

fn main() {
    let peak = gemm::peak_gflops(parallel::threads());
    println!("{} threads, {}, peak {peak:.0} GFLOP/s", parallel::threads(), isa::Isa::current());
    let run = |x: &Tensor, w: &Tensor, b: &Tensor, save| {
        linear(x, w, Some(b.into()), Activation::GeluErf, save).unwrap()
    };

    let (t, k, n) = (2048, 768, 3072);
    // As everywhere, nothing is timed that does not compute what it should: few rows and several tiles of them.
    for rows in [1, 37, 130] {
        verify_row(&cases::linear(rows, k, n, Activation::GeluErf));
    }
    let (x, w, b, dy) = (tensor(&[t, k], 1), tensor(&[n, k], 2), tensor(&[n], 3), tensor(&[t, n], 4));
    let pre = run(&x, &w, &b, true).pre_activation.unwrap();
    let transposed = w.t().unwrap();
    let flops = 2.0 * (t * k * n) as f64;
    report(
        &format!("{t} x {k} x {n}"),
        flops,
        peak,
        &mut [
            Candidate::new("product alone", || drop(black_box(matmul(&x, &transposed)))),
            Candidate::new("linear + GELU, fused", || drop(black_box(run(&x, &w, &b, false)))),
            Candidate::new("linear + GELU, fused, saving", || drop(black_box(run(&x, &w, &b, true)))),
            Candidate::new("linear + GELU, three passes", || {
                let pre = add(&matmul(&x, &transposed).unwrap(), &b).unwrap();
                drop(black_box((gelu_erf(&pre), &pre)));
            }),
        ],
    );
    let needs = LinearNeeds { x: Some(x.dtype()), weight: true, bias: true };
    report(
        &format!("{t} x {k} x {n}, backward"),
        2.0 * flops,
        peak,
        &mut [
            Candidate::new("two products alone", || {
                drop(black_box((matmul(&dy, &w), matmul(&dy.t().unwrap(), &x))));
            }),
            Candidate::new("linear + GELU, backward", || {
                let (x, w, pre) = (Some(&x), Some(&w), Some(&pre));
                drop(black_box(linear_backward(&dy, x, w, Activation::GeluErf, pre, needs, None)));
            }),
        ],
    );
    for m in [1, 4, 16, 64, 128, 256, 512] {
        let x = tensor(&[m, k], 5);
        // A view that does not cover its storage keeps no packed form.
        let packed = tensor(&[n, k], 2);
        let view = tensor(&[n + 1, k], 2).narrow(0, 0, n).unwrap();
        report(
            &format!("{m} x {k} x {n}, few rows"),
            2.0 * (m * k * n) as f64,
            peak,
            &mut [
                Candidate::new("weight as it is", || drop(black_box(run(&x, &view, &b, false)))),
                Candidate::new("weight packed once", || drop(black_box(run(&x, &packed, &b, false)))),
            ],
        );
    }
}
