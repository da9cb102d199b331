//! The operations that memory bounds, at BERT's shapes, as shares of an out-of-place copy measured in the same run.
//!
//! Rows are those of [`cases`]: verified in F32 against F64 first, then timed, forward and backward apart. Bytes are the
//! least that must move. A copy reads its target too, before it overwrites it, so operations that update in place may
//! exceed 100 %. First a table, then criterion's own measurements. For the table alone:
//! `cargo bench -p vitrine-benches --bench memory_bound -- table`.

use criterion::{Criterion, Throughput};
use std::hint::black_box;
use std::time::Duration;
use vitrine_benches::{Candidate, interleaved};
use vitrine_tensor::cases::{self, Cost, OpCase};
use vitrine_tensor::cpu::{isa::Isa, parallel};
use vitrine_tensor::{DType, Device, Tensor};

/// Elements of the copy that counts as 100 %: 256 MiB.
const COPIED: usize = 1 << 26;

/// 16 reviews of 512 tokens, hidden size 768; the vocabulary of bert-base-uncased.
fn rows() -> Vec<OpCase> {
    const T: usize = 16 * 512;
    vec![
        cases::layer_norm(T, 768),
        cases::dropout(T, 768),
        cases::dropout_add_layer_norm(T, 768, 0.1),
        cases::dropout_add_layer_norm(T, 768, 0.0),
        cases::softmax(T, 512),
        cases::cross_entropy(1200, 30_522),
        cases::embedding(T, 30_522, 768),
        cases::embed_layer_norm(T, 30_522, 768),
        cases::adamw(30_522 * 768),
        cases::gelu_erf(T * 3072),
        cases::gelu_tanh(T * 3072),
    ]
}

/// Name, cost and run of one direction of a row.
type Direction<'a> = (String, Cost, Box<dyn Fn() + 'a>);

/// A row with its tensors, ready to run.
struct Bench {
    case: OpCase,
    inputs: Vec<Tensor>,
    saved: Vec<Tensor>,
    douts: Vec<Tensor>,
}

impl Bench {
    /// Verifies the row and makes its tensors.
    fn new(case: OpCase) -> Self {
        if let Err(mismatch) = case.check_f32(Device::Cpu) {
            panic!("{}: {mismatch}", case.name());
        }
        let inputs = case.tensors(DType::F32, DType::F32, Device::Cpu).expect("inputs");
        let forwarded = (case.forward)(&inputs).expect("forward");
        let douts = case.output_gradients(&forwarded.outputs, DType::F32).expect("gradients");
        Bench { case, inputs, saved: forwarded.saved, douts }
    }

    fn forward(&self) {
        black_box((self.case.forward)(&self.inputs).expect("forward"));
    }

    fn backward(&self) {
        if let Some(backward) = &self.case.backward {
            black_box(backward(&self.inputs, &self.saved, &self.douts).expect("backward"));
        }
    }

    /// What the row has.
    fn directions(&self) -> Vec<Direction<'_>> {
        let mut directions: Vec<Direction<'_>> =
            vec![(self.case.name() + " forward", self.case.cost, Box::new(|| self.forward()))];
        if self.case.backward.is_some() {
            let run = Box::new(|| self.backward());
            directions.push((self.case.name() + " backward", self.case.backward_cost, run));
        }
        directions
    }
}

fn table(benches: &[Bench]) {
    let source = Tensor::full(&[COPIED], 1.0, DType::F32, Device::Cpu).expect("256 MiB");
    println!("{}, {} threads", Isa::current(), parallel::threads());
    println!("{:>48} {:>9} {:>8} {:>10}", "", "ms", "GB/s", "% of copy");
    for bench in benches {
        for (name, cost, run) in bench.directions() {
            let mut candidates = [
                Candidate::new("copy", || drop(black_box(source.copy().expect("a copy")))),
                Candidate::new(&name, run),
            ];
            let seconds = interleaved(&mut candidates, Duration::from_secs(1));
            let copy = (2 * source.bytes()) as f64 / seconds[0];
            let speed = cost.bytes as f64 / seconds[1];
            println!("{name:>48} {:9.3} {:8.2} {:10.1}", seconds[1] * 1e3, speed / 1e9, 100.0 * speed / copy);
        }
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let table_only = wanted.first().is_some_and(|first| first == "table");
    let filter = wanted.get(usize::from(table_only));
    let chosen = |case: &OpCase| filter.is_none_or(|filter| case.name().contains(filter.as_str()));
    let benches: Vec<Bench> = rows().into_iter().filter(chosen).map(Bench::new).collect();
    table(&benches);
    if table_only {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for bench in &benches {
        for (name, cost, run) in bench.directions() {
            let (group, direction) = name.rsplit_once(' ').unwrap_or((&name, ""));
            let mut group = criterion.benchmark_group(group);
            group.throughput(Throughput::Bytes(cost.bytes as u64)).sample_size(10);
            group.bench_function(direction, |bencher| bencher.iter(&run));
            group.finish();
        }
    }
    criterion.final_summary();
}
