//! The operations that memory bounds, at BERT's shapes, as shares of an out-of-place copy measured in the same run.
//!
//! Rows are those of [`cases::memory_bound`]: verified in F32 against F64 first, then timed, forward and backward apart. Bytes are the
//! least that must move; FLOPs are counted as `Op::flops` does. A copy reads its target too, before it overwrites it, so operations that update in place may
//! exceed 100 %. First a table, then criterion's own measurements. For the table alone:
//! `cargo bench -p vitrine-benches --bench memory_bound -- table`.

use criterion::{BatchSize, Criterion, Throughput};
use std::hint::black_box;
use std::time::Duration;
use vitrine_autograd::cases::{self, OpCase};
use vitrine_benches::{Candidate, Row, interleaved, verify_row};
use vitrine_tensor::cpu::{isa::Isa, parallel};
use vitrine_tensor::{DType, Device, Tensor};

/// Elements of the copy that counts as 100 %: 256 MiB.
const COPIED: usize = 1 << 26;

fn table(rows: &[Row]) {
    let source = Tensor::full(&[COPIED], 1.0, DType::F32, Device::Cpu).expect("256 MiB");
    println!("{}, {} threads", Isa::current(), parallel::threads());
    println!("{:>48} {:>9} {:>8} {:>10} {:>9}", "", "ms", "GB/s", "% of copy", "GFLOP/s");
    for row in rows {
        let [forward, backward] = ["forward", "backward"].map(|way| format!("{} {way}", row.case.name()));
        let forward = (row.case.cost, row.forward_candidate(&forward));
        let backward = row.case.backward_cost.map(|cost| (cost, row.backward_candidate(&backward)));
        for (cost, candidate) in [forward].into_iter().chain(backward) {
            let copy = Candidate::new("copy", || drop(black_box(source.copy().expect("a copy"))));
            let mut candidates = [copy, candidate];
            let seconds = interleaved(&mut candidates, Duration::from_secs(1));
            let copy = (2 * source.bytes()) as f64 / seconds[0];
            let (name, speed) = (candidates[1].name, cost.bytes as f64 / seconds[1]);
            let (gflops, share) = (cost.flops as f64 / seconds[1] / 1e9, 100.0 * speed / copy);
            println!("{name:>48} {:9.3} {:8.2} {share:10.1} {gflops:9.2}", seconds[1] * 1e3, speed / 1e9);
        }
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let table_only = wanted.first().is_some_and(|first| first == "table");
    let filter = wanted.get(usize::from(table_only));
    let chosen = |case: &OpCase| filter.is_none_or(|filter| case.name().contains(filter.as_str()));
    let cases = cases::memory_bound().into_iter().filter(chosen);
    let rows: Vec<Row> = cases.inspect(verify_row).map(Row::new).collect();
    table(&rows);
    if table_only {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for row in &rows {
        let mut group = criterion.benchmark_group(row.case.name());
        group.sample_size(10).throughput(Throughput::Bytes(row.case.cost.bytes as u64));
        group.bench_function("forward", |bencher| bencher.iter(|| row.forward()));
        if let Some(cost) = row.case.backward_cost {
            group.throughput(Throughput::Bytes(cost.bytes as u64));
            let backward = |recorded| row.backward(recorded);
            group.bench_function("backward", |bencher| {
                bencher.iter_batched(|| row.forward(), backward, BatchSize::PerIteration);
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
