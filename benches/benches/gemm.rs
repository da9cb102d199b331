//! The f32 matrix product beside the `gemm` and `matrixmultiply` crates, at BERT's shapes.
//!
//! First a table of interleaved medians, on one thread and on all; then criterion's own measurements. For the table
//! alone: `cargo bench -p vitrine-benches --bench gemm -- table`.

use criterion::{BenchmarkId, Criterion, Throughput};
use std::time::Duration;
use vitrine_benches::{Candidate, interleaved, values, verify};
use vitrine_tensor::cpu::gemm::{self, MatrixMut, MatrixRef, PackedB};
use vitrine_tensor::cpu::{isa, parallel};

/// Which operand is stored transposed.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// A `[M, K]`, B `[K, N]`.
    Plain,
    /// B is stored as `[N, K]`: y = x W^T.
    WeightTransposed,
    /// A is stored as `[K, M]`: dW = dy^T x.
    InputTransposed,
}

/// One way of computing the product into C.
type Run<'a> = (&'static str, &'a dyn Fn(&mut [f32]));

struct Shape {
    m: usize,
    k: usize,
    n: usize,
    layout: Layout,
}

const fn shape(m: usize, k: usize, n: usize, layout: Layout) -> Shape {
    Shape { m, k, n, layout }
}

const SHAPES: [Shape; 14] = [
    shape(8192, 768, 768, Layout::Plain),
    shape(8192, 768, 3072, Layout::Plain),
    shape(8192, 3072, 768, Layout::Plain),
    shape(8192, 768, 768, Layout::WeightTransposed),
    shape(8192, 768, 3072, Layout::WeightTransposed),
    shape(8192, 3072, 768, Layout::WeightTransposed),
    shape(768, 8192, 768, Layout::InputTransposed),
    shape(3072, 8192, 768, Layout::InputTransposed),
    shape(768, 8192, 3072, Layout::InputTransposed),
    shape(128, 768, 3072, Layout::Plain),
    shape(128, 768, 3072, Layout::WeightTransposed),
    shape(128, 3072, 768, Layout::WeightTransposed),
    shape(1, 768, 768, Layout::WeightTransposed),
    shape(37, 101, 53, Layout::Plain),
];

/// The operands of one shape.
struct Operands {
    shape: &'static Shape,
    a: Vec<f32>,
    b: Vec<f32>,
    packed: PackedB,
}

impl Operands {
    fn new(shape: &'static Shape) -> Self {
        let &Shape { m, k, n, .. } = shape;
        let (a, b) = (values(m * k, 1), values(k * n, 2));
        let packed = PackedB::new(b_view(shape, &b));
        Operands { shape, a, b, packed }
    }

    fn a(&self) -> MatrixRef<'_> {
        let &Shape { m, k, layout, .. } = self.shape;
        match layout {
            Layout::InputTransposed => MatrixRef::new(&self.a, k, m).transposed(),
            _ => MatrixRef::new(&self.a, m, k),
        }
    }

    fn b(&self) -> MatrixRef<'_> {
        b_view(self.shape, &self.b)
    }

    fn label(&self) -> String {
        let &Shape { m, k, n, layout } = self.shape;
        let suffix = match layout {
            Layout::Plain => "",
            Layout::WeightTransposed => " x W^T",
            Layout::InputTransposed => " dy^T x",
        };
        format!("{m}x{k}x{n}{suffix}")
    }

    fn flops(&self) -> usize {
        2 * self.shape.m * self.shape.k * self.shape.n
    }

    fn ours(&self, c: &mut [f32]) {
        gemm::gemm(self.a(), self.b(), MatrixMut::new(c, self.shape.m, self.shape.n), false, None);
    }

    fn ours_packed(&self, c: &mut [f32]) {
        gemm::gemm(self.a(), &self.packed, MatrixMut::new(c, self.shape.m, self.shape.n), false, None);
    }

    fn gemm_crate(&self, c: &mut [f32]) {
        let (&Shape { m, k, n, .. }, a, b) = (self.shape, self.a(), self.b());
        let threads = parallel::threads();
        let parallelism =
            if threads == 1 { ::gemm::Parallelism::None } else { ::gemm::Parallelism::Rayon(threads) };
        // SAFETY: the views were checked against the data that they describe, and `c` holds m * n elements.
        unsafe {
            ::gemm::gemm(
                m,
                n,
                k,
                c.as_mut_ptr(),
                1,
                n as isize,
                false,
                self.a.as_ptr(),
                a.column_stride() as isize,
                a.row_stride() as isize,
                self.b.as_ptr(),
                b.column_stride() as isize,
                b.row_stride() as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    }

    fn matrixmultiply(&self, c: &mut [f32]) {
        let (&Shape { m, k, n, .. }, a, b) = (self.shape, self.a(), self.b());
        // SAFETY: as in `gemm_crate`.
        unsafe {
            matrixmultiply::sgemm(
                m,
                k,
                n,
                1.0,
                self.a.as_ptr(),
                a.row_stride() as isize,
                a.column_stride() as isize,
                self.b.as_ptr(),
                b.row_stride() as isize,
                b.column_stride() as isize,
                0.0,
                c.as_mut_ptr(),
                n as isize,
                1,
            );
        }
    }

    /// Compares some rows of every candidate's result with f64.
    fn verify(&self) {
        let &Shape { m, k, n, .. } = self.shape;
        let mut c = vec![f32::NAN; m * n];
        let rows: Vec<usize> = (0..m).step_by(m.div_ceil(5)).chain([m - 1]).collect();
        let element = |view: &MatrixRef<'_>, data: &[f32], i: usize, j: usize| {
            f64::from(data[i * view.row_stride() + j * view.column_stride()])
        };
        let (a, b) = (self.a(), self.b());
        let row_product = |i: usize, map: fn(f64) -> f64| {
            let mut sums = vec![0.0; n];
            for p in 0..k {
                let a = element(&a, &self.a, i, p);
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum += map(a * element(&b, &self.b, p, j));
                }
            }
            sums
        };
        let expected: Vec<_> =
            rows.iter().map(|&i| (row_product(i, |x| x), row_product(i, f64::abs))).collect();
        let candidates: [Run<'_>; 4] = [
            ("vitrine", &|c| self.ours(c)),
            ("vitrine, packed", &|c| self.ours_packed(c)),
            ("gemm", &|c| self.gemm_crate(c)),
            ("matrixmultiply", &|c| self.matrixmultiply(c)),
        ];
        for (name, run) in candidates {
            run(&mut c);
            for (&i, (exact, magnitude)) in rows.iter().zip(&expected) {
                // The bound of any order of summation: K u sum |a b|, u = 2^-24.
                let bound = (k + 1) as f64 * f64::from(f32::EPSILON) / 2.0;
                let what = format!("{name}, {}, row {i}", self.label());
                verify(&what, &c[i * n..][..n], exact, |j| bound * magnitude[j]);
            }
        }
    }
}

fn b_view<'a>(shape: &Shape, b: &'a [f32]) -> MatrixRef<'a> {
    match shape.layout {
        Layout::WeightTransposed => MatrixRef::new(b, shape.n, shape.k).transposed(),
        _ => MatrixRef::new(b, shape.k, shape.n),
    }
}

/// Interleaved medians of all candidates; `matrixmultiply` takes its own number of threads, so it has no one-thread row.
fn table(threads: usize) {
    let peak = gemm::peak_gflops(threads);
    println!(
        "\n{threads} thread(s), {}, peak {peak:.0} GFLOP/s; GFLOP/s and % of the peak",
        isa::Isa::current()
    );
    println!(
        "{:<24}{:>8}{:>14}{:>14}{:>14}{:>16}{:>9}",
        "M x K x N", "peak", "vitrine", "packed", "gemm", "matrixmultiply", "vs gemm"
    );
    for shape in &SHAPES {
        let operands = Operands::new(shape);
        operands.verify();
        let len = shape.m * shape.n;
        let mut c = [vec![0.0; len], vec![0.0; len], vec![0.0; len], vec![0.0; len]];
        let [c1, c2, c3, c4] = &mut c;
        let mut candidates = vec![
            Candidate::new("vitrine", || operands.ours(c1)),
            Candidate::new("packed", || operands.ours_packed(c2)),
            Candidate::new("gemm", || operands.gemm_crate(c3)),
        ];
        if threads > 1 {
            candidates.push(Candidate::new("matrixmultiply", || operands.matrixmultiply(c4)));
        }
        let before = gemm::peak_gflops(threads);
        let seconds = interleaved(&mut candidates, Duration::from_millis(1000));
        let peak = before.max(gemm::peak_gflops(threads));
        print!("{:<24}{peak:>8.0}", operands.label());
        for seconds in &seconds {
            let gflops = operands.flops() as f64 / seconds / 1e9;
            print!("{:>14}", format!("{gflops:.1} {:.0}%", gflops / peak * 100.0));
        }
        if threads == 1 {
            print!("{:>14}", "");
        }
        println!("{:>11.2}", seconds[2] / seconds[0]);
    }
}

/// Few rows and weights that come from memory, as in inference: all copies together exceed any cache.
fn cold_table(threads: usize) {
    const K: usize = 768;
    const N: usize = 3072;
    const COPIES: usize = 32;
    println!("\n{threads} thread(s), {}: x W^T with packed W [{N}, {K}] from memory", isa::Isa::current());
    println!("{:<8}{:>14}{:>10}{:>10}", "M", "GFLOP/s", "of peak", "GB/s");
    let weight = values(K * N, 2);
    let packed: Vec<_> =
        (0..COPIES).map(|_| PackedB::new(MatrixRef::new(&weight, N, K).transposed())).collect();
    for m in [1, 2, 8, 16, 32, 64, 128, 256] {
        let (x, mut y) = (values(m * K, 1), vec![0.0; m * N]);
        let all = || {
            for weight in &packed {
                gemm::gemm(MatrixRef::new(&x, m, K), weight, MatrixMut::new(&mut y, m, N), false, None);
            }
        };
        let before = gemm::peak_gflops(threads);
        let seconds = interleaved(&mut [Candidate::new("packed", all)], Duration::from_millis(300))[0];
        let peak = before.max(gemm::peak_gflops(threads));
        let gflops = (2 * m * K * N * COPIES) as f64 / seconds / 1e9;
        let bandwidth = (K * N * COPIES * size_of::<f32>()) as f64 / seconds / 1e9;
        println!("{m:<8}{gflops:>14.1}{:>9.0}%{bandwidth:>10.1}", gflops / peak * 100.0);
    }
}

/// The tiles of attention, on one thread: operands are heads within rows of `3 x 768` elements.
fn tile_table() {
    const STRIDE: usize = 3 * 768;
    const CALLS: usize = 100;
    let isa = isa::Isa::current();
    println!("\nOne thread, {isa}: products of attention's tiles");
    println!("{:<24}{:>14}{:>10}{:>14}", "M x K x N", "GFLOP/s", "of peak", "ns a call");
    let rows = values(512 * STRIDE, 1);
    let square = values(512 * 512, 2);
    let mut c = vec![0.0; 512 * 512];
    for (m, k, n, transposed) in [
        (64, 64, 64, true),
        (64, 64, 64, false),
        (64, 32, 64, true),
        (64, 64, 512, true),
        (64, 512, 64, false),
        (16, 64, 64, true),
        (16, 64, 64, false),
        (1, 64, 512, true),
        (1, 512, 64, false),
    ] {
        // Scores are Q K^T with K in rows; the output is P V with P contiguous.
        let (a, b) = if transposed {
            let head = |rows_of| MatrixRef::with_strides(&rows, rows_of, k, STRIDE, 1);
            (head(m), head(n).transposed())
        } else {
            (MatrixRef::new(&square, m, k), MatrixRef::with_strides(&rows, k, n, STRIDE, 1))
        };
        let run = || {
            for _ in 0..CALLS {
                gemm::gemm_sequential(isa, a, b, MatrixMut::new(&mut c, m, n), false);
            }
        };
        let before = gemm::peak_gflops(1);
        let seconds =
            interleaved(&mut [Candidate::new("", run)], Duration::from_millis(100))[0] / CALLS as f64;
        let peak = before.max(gemm::peak_gflops(1));
        let gflops = (2 * m * k * n) as f64 / seconds / 1e9;
        let label = format!("{m}x{k}x{n}{}", if transposed { " Q K^T" } else { " P V" });
        println!("{label:<24}{gflops:>14.1}{:>9.0}%{:>14.0}", gflops / peak * 100.0, seconds * 1e9);
    }
}

fn criterion_benches(criterion: &mut Criterion) {
    for shape in &SHAPES {
        let operands = Operands::new(shape);
        operands.verify();
        let mut group = criterion.benchmark_group(format!("gemm/{}", operands.label().replace(' ', "_")));
        group.throughput(Throughput::Elements(operands.flops() as u64));
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(1))
            .warm_up_time(Duration::from_millis(200));
        let mut c = vec![0.0; shape.m * shape.n];
        let candidates: [Run<'_>; 4] = [
            ("vitrine", &|c| operands.ours(c)),
            ("vitrine-packed", &|c| operands.ours_packed(c)),
            ("gemm", &|c| operands.gemm_crate(c)),
            ("matrixmultiply", &|c| operands.matrixmultiply(c)),
        ];
        for (name, run) in candidates {
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(|| run(&mut c)));
        }
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
        parallel::with_threads(1, || {
            table(1);
            cold_table(1);
            tile_table();
        });
        let threads = parallel::threads();
        if threads > 1 {
            parallel::with_threads(threads, || {
                table(threads);
                cold_table(threads);
            });
        }
    }
    let mut criterion = Criterion::default().configure_from_args();
    criterion_benches(&mut criterion);
    criterion.final_summary();
}
