//! The bfloat16 matrix product at BERT's shapes, beside our own f32 product of the same sizes.
//!
//! First a table of interleaved medians on all threads, with the share of the peak that the kernel reaches on operands in
//! the first-level cache; then criterion's own measurements. For the table alone:
//! `cargo bench -p vitrine-benches --bench gemm_bf16 -- table`.

use criterion::{BenchmarkId, Criterion, Throughput};
use half::bf16;
use std::sync::Mutex;
use std::time::Duration;
use vitrine_benches::{Candidate, interleaved, values, verify};
use vitrine_tensor::cpu::gemm::{self, MatrixMut, MatrixRef, PackedPairs, gemm_bf16};
use vitrine_tensor::cpu::{isa, parallel};

/// Which of a linear layer's products it is.
#[derive(Clone, Copy)]
enum Role {
    /// `y = x W^T`, the weight packed before.
    Forward,
    /// `dx = dy W`, packing included.
    InputGradient,
    /// `dW = dy^T x`, packing included.
    WeightGradient,
}

/// M, K, N and the role.
const SHAPES: [(usize, usize, usize, Role); 11] = [
    (8192, 768, 768, Role::Forward),
    (8192, 768, 3072, Role::Forward),
    (8192, 3072, 768, Role::Forward),
    (8192, 768, 768, Role::InputGradient),
    (8192, 3072, 768, Role::InputGradient),
    (768, 8192, 768, Role::WeightGradient),
    (3072, 8192, 768, Role::WeightGradient),
    (768, 8192, 3072, Role::WeightGradient),
    (128, 768, 3072, Role::Forward),
    (32, 768, 768, Role::Forward),
    (1, 768, 3072, Role::Forward),
];

struct Operands {
    sizes: [usize; 3],
    role: Role,
    a: Vec<bf16>,
    b: Vec<bf16>,
    packed: PackedPairs,
}

impl Operands {
    fn new((m, k, n, role): (usize, usize, usize, Role)) -> Self {
        let rounded = |len, seed| values(len, seed).into_iter().map(bf16::from_f32).collect::<Vec<_>>();
        let (a, b) = (rounded(m * k, 1), rounded(k * n, 2));
        let packed = PackedPairs::new(right(&b, k, n, role));
        Operands { sizes: [m, k, n], role, a, b, packed }
    }

    fn left(&self) -> MatrixRef<'_, bf16> {
        let [m, k, _] = self.sizes;
        match self.role {
            Role::WeightGradient => MatrixRef::new(&self.a, k, m).transposed(),
            _ => MatrixRef::new(&self.a, m, k),
        }
    }

    fn right(&self) -> MatrixRef<'_, bf16> {
        let [_, k, n] = self.sizes;
        right(&self.b, k, n, self.role)
    }

    fn label(&self) -> String {
        let [m, k, n] = self.sizes;
        let role = match self.role {
            Role::Forward => "x W^T",
            Role::InputGradient => "dy W",
            Role::WeightGradient => "dy^T x",
        };
        format!("{m}x{k}x{n} {role}")
    }

    fn flops(&self) -> usize {
        2 * self.sizes.iter().product::<usize>()
    }

    /// As a linear layer runs it: the result is rounded to bfloat16, a weight's gradient is f32.
    fn run(&self, c: &mut [f32]) {
        let [m, _, n] = self.sizes;
        let fresh;
        let packed = if let Role::Forward = self.role {
            &self.packed
        } else {
            fresh = PackedPairs::new(self.right());
            &fresh
        };
        // Rows are taken once each, by whichever thread has finished them.
        let rows: Vec<Mutex<&mut [f32]>> = c[..m * n].chunks_mut(n).map(Mutex::new).collect();
        gemm_bf16(self.left(), packed, &|row, first, sums| {
            rows[row].lock().expect("no panic in between")[first..first + sums.len()].copy_from_slice(sums);
        });
    }

    fn verify(&self) {
        let [m, k, n] = self.sizes;
        let mut c = vec![f32::NAN; m * n];
        self.run(&mut c);
        let element = |data: &[bf16], view: &MatrixRef<'_, bf16>, i: usize, j: usize| {
            data[i * view.row_stride() + j * view.column_stride()].to_f64()
        };
        let (a, b) = (self.left(), self.right());
        for i in (0..m).step_by(m.div_ceil(3)).chain([m - 1]) {
            let (mut sums, mut sizes) = (vec![0.0; n], vec![0.0; n]);
            for p in 0..k {
                for j in 0..n {
                    let product = element(&self.a, &a, i, p) * element(&self.b, &b, p, j);
                    sums[j] += product;
                    sizes[j] += product.abs();
                }
            }
            let what = format!("{}, row {i}", self.label());
            verify(&what, &c[i * n..][..n], &sums, |j| (k + 4) as f64 * f64::from(f32::EPSILON) * sizes[j]);
        }
    }
}

fn right(b: &[bf16], k: usize, n: usize, role: Role) -> MatrixRef<'_, bf16> {
    match role {
        Role::Forward => MatrixRef::new(b, n, k).transposed(),
        _ => MatrixRef::new(b, k, n),
    }
}

fn table() {
    let threads = parallel::threads();
    println!("\n{threads} thread(s), {}; GFLOP/s and % of the bf16 peak", isa::Isa::current());
    println!("{:<24}{:>8}{:>14}{:>14}{:>10}", "M x K x N", "peak", "bf16", "f32", "bf16/f32");
    for shape in SHAPES {
        let operands = Operands::new(shape);
        operands.verify();
        let [m, _, n] = operands.sizes;
        let (mut c, mut c32) = (vec![0.0; m * n], vec![0.0; m * n]);
        let wide = |data: &[bf16]| data.iter().map(|x| x.to_f32()).collect::<Vec<f32>>();
        let (a32, b32) = (wide(&operands.a), wide(&operands.b));
        let view = |like: MatrixRef<'_, bf16>| {
            [like.rows(), like.columns(), like.row_stride(), like.column_stride()]
        };
        let ([ar, ac, ars, acs], [br, bc, brs, bcs]) = (view(operands.left()), view(operands.right()));
        let a = MatrixRef::with_strides(&a32, ar, ac, ars, acs);
        let b = MatrixRef::with_strides(&b32, br, bc, brs, bcs);
        let before = gemm::peak_gflops_bf16(threads);
        let seconds = interleaved(
            &mut [
                Candidate::new("bf16", || operands.run(&mut c)),
                Candidate::new("f32", || gemm::gemm(a, b, MatrixMut::new(&mut c32, m, n), false, None)),
            ],
            Duration::from_millis(1000),
        );
        let peak = before.max(gemm::peak_gflops_bf16(threads));
        let [bf16, f32] = [0, 1].map(|i| operands.flops() as f64 / seconds[i] / 1e9);
        let of_peak = |gflops: f64| format!("{gflops:.1} {:.0}%", gflops / peak * 100.0);
        println!(
            "{:<24}{peak:>8.0}{:>14}{:>14}{:>10.2}",
            operands.label(),
            of_peak(bf16),
            of_peak(f32),
            bf16 / f32
        );
    }
}

fn criterion_benches(criterion: &mut Criterion) {
    for shape in SHAPES {
        let operands = Operands::new(shape);
        operands.verify();
        let mut group = criterion.benchmark_group("gemm_bf16");
        group.throughput(Throughput::Elements(operands.flops() as u64));
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(1))
            .warm_up_time(Duration::from_millis(200));
        let mut c = vec![0.0; operands.sizes[0] * operands.sizes[2]];
        let id = BenchmarkId::from_parameter(operands.label().replace(' ', "_"));
        group.bench_function(id, |bencher| bencher.iter(|| operands.run(&mut c)));
        group.finish();
    }
}

fn main() {
    if let Err(error) = isa::from_env() {
        eprintln!("error: {error}");
        std::process::exit(2);
    }
    // `cargo test` runs benches too, to see that they work: no table then.
    if !std::env::args().any(|argument| argument == "--test") {
        table();
    }
    let mut criterion = Criterion::default().configure_from_args();
    criterion_benches(&mut criterion);
    criterion.final_summary();
}
