//! Attention forward and backward in f32, as shares of the multiply-add peak.
//!
//! First a table of interleaved medians with and without dropout, on one thread and on all; then criterion's own
//! measurements. For the table alone: `cargo bench -p vitrine-benches --bench attention -- table`.

use criterion::{BenchmarkId, Criterion, Throughput};
use std::time::Duration;
use vitrine_benches::{Candidate, interleaved, values, verify};
use vitrine_tensor::cpu::{gemm, isa, parallel};
use vitrine_tensor::ops::attention::{Attention, AttentionOptions, Queries, attention, attention_backward};
use vitrine_tensor::{DType, Dropout, Offsets, Tensor};

struct Shape {
    name: &'static str,
    lens: &'static [usize],
    heads: usize,
    head_size: usize,
    queries: Queries,
}

/// Sixteen lengths like those of IMDB's reviews cut at 512 tokens: 277 on average.
const IMDB: &[usize] = &[128, 157, 166, 171, 180, 190, 199, 215, 232, 252, 281, 326, 401, 512, 512, 512];

const SHAPES: [Shape; 6] = [
    Shape { name: "16 x 512", lens: &[512; 16], heads: 12, head_size: 64, queries: Queries::All },
    Shape { name: "IMDB", lens: IMDB, heads: 12, head_size: 64, queries: Queries::All },
    Shape { name: "IMDB, [CLS]", lens: IMDB, heads: 12, head_size: 64, queries: Queries::First },
    Shape { name: "16 x 512", lens: &[512; 16], heads: 12, head_size: 32, queries: Queries::All },
    Shape { name: "IMDB", lens: IMDB, heads: 12, head_size: 32, queries: Queries::All },
    Shape { name: "2 x 2048", lens: &[2048; 2], heads: 12, head_size: 64, queries: Queries::All },
];

/// The operands of one shape.
struct Operands {
    shape: &'static Shape,
    offsets: Offsets,
    qkv: Tensor,
    dout: Tensor,
    options: AttentionOptions,
    forward: Attention,
}

impl Operands {
    fn new(shape: &'static Shape, dropout_p: Option<f32>) -> Self {
        let offsets = Offsets::from_lengths(shape.lens.iter().copied()).unwrap();
        let width = shape.heads * shape.head_size;
        let rows = if shape.queries == Queries::All { offsets.total() } else { offsets.sequences() };
        let tensor = |rows, columns, seed| {
            Tensor::from_slice(&values(rows * columns, seed), &[rows, columns]).unwrap()
        };
        let qkv = tensor(offsets.total(), 3 * width, 1);
        let dout = tensor(rows, width, 2);
        let dropout =
            dropout_p.map(|dropout_p| Dropout { dropout_p, seed: 1, step: 2, site: 3, first_sequence: 0 });
        let options = AttentionOptions { dropout, ..Default::default() };
        let forward = run_forward(shape, &offsets, &qkv, &options);
        Operands { shape, offsets, qkv, dout, options, forward }
    }

    fn forward(&self) -> Attention {
        run_forward(self.shape, &self.offsets, &self.qkv, &self.options)
    }

    fn backward(&self) -> Tensor {
        let Shape { heads, queries, .. } = *self.shape;
        let lse = &self.forward.lse;
        let (scale, offsets) = (scale(self.shape), &self.offsets);
        attention_backward(&self.dout, &self.qkv, lse, heads, scale, offsets, queries, &self.options).unwrap()
    }

    /// Compares both passes over the first sequence, or 600 rows of it, with the f64 reference.
    fn verify(&self) {
        let total = self.offsets.range(0).len().min(600);
        let offsets = Offsets::from_lengths([total]).unwrap();
        let rows = if self.shape.queries == Queries::All { total } else { 1 };
        let part = |tensor: &Tensor, rows| tensor.narrow(0, 0, rows).unwrap().contiguous().unwrap();
        let passes = |dtype| {
            let qkv = part(&self.qkv, total).to_dtype(dtype).unwrap();
            let dout = part(&self.dout, rows).to_dtype(dtype).unwrap();
            let Shape { heads, queries, .. } = *self.shape;
            let Attention { out, lse, .. } = run_forward(self.shape, &offsets, &qkv, &self.options);
            let scale = scale(self.shape);
            let dqkv = attention_backward(&dout, &qkv, &lse, heads, scale, &offsets, queries, &self.options)
                .unwrap();
            [out, dqkv]
        };
        for (got, expected) in passes(DType::F32).iter().zip(passes(DType::F64)) {
            let expected = expected.to_vec::<f64>().unwrap();
            let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
            verify(self.shape.name, &got.to_vec::<f32>().unwrap(), &expected, |_| 1e-5 * largest);
        }
    }

    /// Products forward; backward has 2.5 times as many.
    fn flops(&self) -> usize {
        let pairs = match self.shape.queries {
            Queries::All => self.offsets.sum_of_squares(),
            Queries::First => self.offsets.total(),
        };
        4 * pairs * self.shape.heads * self.shape.head_size
    }
}

fn scale(shape: &Shape) -> f64 {
    (shape.head_size as f64).sqrt().recip()
}

fn run_forward(shape: &Shape, offsets: &Offsets, qkv: &Tensor, options: &AttentionOptions) -> Attention {
    attention(qkv, shape.heads, scale(shape), offsets, shape.queries, options).unwrap()
}

/// Interleaved medians of both passes, with and without dropout.
fn table(threads: usize) {
    println!("\n{threads} thread(s), {}; ms, TFLOP/s and % of the peak", isa::Isa::current());
    println!(
        "{:<20}{:>8}{:>24}{:>24}{:>24}{:>24}",
        "batch, head size", "peak", "forward", "backward", "forward, dropout", "backward, dropout"
    );
    for shape in &SHAPES {
        let (plain, dropped) = (Operands::new(shape, None), Operands::new(shape, Some(0.1)));
        plain.verify();
        dropped.verify();
        let mut candidates = [
            Candidate::new("forward", || drop(plain.forward())),
            Candidate::new("backward", || drop(plain.backward())),
            Candidate::new("forward, dropout", || drop(dropped.forward())),
            Candidate::new("backward, dropout", || drop(dropped.backward())),
        ];
        let before = gemm::peak_gflops(threads);
        let seconds = interleaved(&mut candidates, Duration::from_millis(2000));
        let peak = before.max(gemm::peak_gflops(threads));
        print!("{:<20}{peak:>8.0}", format!("{}, {}", shape.name, shape.head_size));
        for (index, seconds) in seconds.iter().enumerate() {
            let flops = plain.flops() as f64 * if index % 2 == 0 { 1.0 } else { 2.5 };
            let gflops = flops / seconds / 1e9;
            let share = gflops / peak * 100.0;
            print!("{:>24}", format!("{:.2} ms {:.3} {share:.0}%", seconds * 1e3, gflops / 1e3));
        }
        println!();
    }
}

fn criterion_benches(criterion: &mut Criterion) {
    for shape in &SHAPES {
        let name = format!("attention/{}x{}", shape.name.replace([' ', ','], ""), shape.head_size);
        let mut group = criterion.benchmark_group(name);
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(1))
            .warm_up_time(Duration::from_millis(200));
        for dropout_p in [None, Some(0.1)] {
            let operands = Operands::new(shape, dropout_p);
            operands.verify();
            let suffix = if dropout_p.is_some() { "-dropout" } else { "" };
            group.throughput(Throughput::Elements(operands.flops() as u64));
            let id = BenchmarkId::from_parameter(format!("forward{suffix}"));
            group.bench_function(id, |bencher| bencher.iter(|| operands.forward()));
            group.throughput(Throughput::Elements(operands.flops() as u64 * 5 / 2));
            let id = BenchmarkId::from_parameter(format!("backward{suffix}"));
            group.bench_function(id, |bencher| bencher.iter(|| operands.backward()));
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
        parallel::with_threads(1, || table(1));
        let threads = parallel::threads();
        if threads > 1 {
            parallel::with_threads(threads, || table(threads));
        }
    }
    let mut criterion = Criterion::default().configure_from_args();
    criterion_benches(&mut criterion);
    criterion.final_summary();
}
