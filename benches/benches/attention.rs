//! Attention forward and backward in f32, as shares of the multiply-add peak.
//!
//! First a table of interleaved medians with and without dropout, on one thread and on all; then criterion's own
//! measurements. For the table alone: `cargo bench -p vitrine-benches --bench attention -- table`.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use std::time::Duration;
use vitrine_autograd::cases::{self, OpCase};
use vitrine_benches::{Row, interleaved, verify_row};
use vitrine_tensor::cpu::{gemm, isa, parallel};
use vitrine_tensor::ops::attention::Queries;

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

impl Shape {
    /// The row, verified by one of a sequence of at most 600 rows.
    fn row(&self, dropout_p: Option<f64>) -> Row {
        let case = |lens: &[usize]| -> OpCase {
            cases::attention(lens, self.heads, self.head_size, self.queries, dropout_p)
        };
        verify_row(&case(&[self.lens[0].min(600)]));
        Row::new(case(self.lens))
    }

    /// Of the products forward, as is the custom; backward has 2.5 times as many.
    fn flops(&self) -> usize {
        let pairs: usize = match self.queries {
            Queries::All => self.lens.iter().map(|len| len * len).sum(),
            Queries::First => self.lens.iter().sum(),
        };
        4 * pairs * self.heads * self.head_size
    }
}

/// Interleaved medians of both passes, with and without dropout.
fn table(threads: usize) {
    println!("\n{threads} thread(s), {}; ms, TFLOP/s and % of the peak", isa::Isa::current());
    println!(
        "{:<20}{:>8}{:>24}{:>24}{:>24}{:>24}",
        "batch, head size", "peak", "forward", "backward", "forward, dropout", "backward, dropout"
    );
    for shape in &SHAPES {
        let (plain, dropped) = (shape.row(None), shape.row(Some(0.1)));
        let mut candidates = [
            plain.forward_candidate("forward"),
            plain.backward_candidate("backward"),
            dropped.forward_candidate("forward, dropout"),
            dropped.backward_candidate("backward, dropout"),
        ];
        let before = gemm::peak_gflops(threads);
        let seconds = interleaved(&mut candidates, Duration::from_millis(2000));
        let peak = before.max(gemm::peak_gflops(threads));
        print!("{:<20}{peak:>8.0}", format!("{}, {}", shape.name, shape.head_size));
        for (index, seconds) in seconds.iter().enumerate() {
            let flops = shape.flops() as f64 * if index % 2 == 0 { 1.0 } else { 2.5 };
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
            let row = shape.row(dropout_p);
            let suffix = if dropout_p.is_some() { "-dropout" } else { "" };
            group.throughput(Throughput::Elements(shape.flops() as u64));
            let id = BenchmarkId::from_parameter(format!("forward{suffix}"));
            group.bench_function(id, |bencher| bencher.iter(|| row.forward()));
            group.throughput(Throughput::Elements(shape.flops() as u64 * 5 / 2));
            let id = BenchmarkId::from_parameter(format!("backward{suffix}"));
            group.bench_function(id, |bencher| {
                let backward = |recorded| row.backward(recorded);
                bencher.iter_batched(|| row.forward(), backward, BatchSize::PerIteration);
            });
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
