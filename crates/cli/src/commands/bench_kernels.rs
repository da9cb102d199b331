//! `vitrine bench kernels`: single operations beside the best copy and the best matrix product of the same run.
//!
//! Memory-bound operations are rated by the bytes that they must move, against a copy; products and attention by their
//! floating-point operations, against the best product. Between repetitions a large buffer is overwritten, so that nothing
//! is left in a cache.

use super::{Resolved, check_memory, resolve};
use crate::args::BenchKernels;
use crate::machine::Machine;
use crate::output::{self, Align, Failure, Outcome, line, table};
use serde::Serialize;
use std::time::Instant;
use vitrine_tensor::ops::adamw::{AdamW, GradNorm, Update, adamw_step};
use vitrine_tensor::ops::attention::{AttentionOptions, Queries, attention, attention_backward};
use vitrine_tensor::ops::dropout_add_layer_norm::{dropout_add_layer_norm, dropout_add_layer_norm_backward};
use vitrine_tensor::ops::gelu::{gelu_erf, gelu_erf_backward};
use vitrine_tensor::ops::layer_norm::{layer_norm, layer_norm_backward};
use vitrine_tensor::ops::linear::{Activation, LinearNeeds, linear, linear_backward};
use vitrine_tensor::{DType, Device, Dropout, Offsets, Result, Tensor, cuda, random};

/// Channels: BERT-base.
const WIDTH: usize = 768;
/// Larger than the second-level cache of any GPU and the last-level cache of most processors.
const FLUSHED: usize = 256 << 20;

#[derive(Serialize)]
struct Report {
    /// GB/s of an out-of-place copy of the largest size, bytes read and written.
    copy_gb_per_second: f64,
    /// TFLOP/s of the best product.
    product_tflops: f64,
    kernels: Vec<Row>,
    resolved: Resolved,
    machine: Machine,
}

#[derive(Serialize)]
struct Row {
    op: String,
    shape: String,
    seconds: f64,
    seconds_min: f64,
    /// GB/s, for what is bound by memory.
    gb_per_second: Option<f64>,
    /// TFLOP/s, for what is bound by arithmetic.
    tflops: Option<f64>,
    /// Of the copy or of the product.
    share_of_peak: f64,
}

/// What an operation costs.
#[derive(Clone, Copy)]
enum Cost {
    Bytes(usize),
    Flops(usize),
}

/// Times work on a device.
struct Timer {
    place: Device,
    repeats: usize,
    flushed: Tensor,
}

/// What is measured, and what came out so far.
struct Bench<'a> {
    timer: Timer,
    dtype: DType,
    only: &'a str,
    /// Bytes a second of the best copy.
    copy: f64,
    product_tflops: f64,
    rows: Vec<Row>,
}

impl Timer {
    fn new(place: Device, repeats: usize) -> Result<Self> {
        Ok(Timer { place, repeats, flushed: Tensor::zeros(&[FLUSHED / 4], DType::F32, place)? })
    }

    /// The median and the least seconds; once before, untimed.
    fn time(&mut self, mut work: impl FnMut() -> Result<()>) -> Result<(f64, f64)> {
        work()?;
        let mut seconds = Vec::new();
        for _ in 0..self.repeats {
            self.flushed.zero_()?;
            seconds.push(seconds_of(self.place, &mut work)?);
        }
        seconds.sort_by(f64::total_cmp);
        Ok((seconds[seconds.len() / 2], seconds[0]))
    }
}

fn seconds_of(place: Device, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    match place {
        Device::Cuda(ordinal) => cuda::seconds_of(ordinal, work),
        Device::Cpu => {
            let started = Instant::now();
            work()?;
            Ok(started.elapsed().as_secs_f64())
        }
    }
}

impl Bench<'_> {
    fn wants(&self, op: &str) -> bool {
        op.contains(self.only)
    }

    /// Times an operation, if it is wanted.
    fn add(&mut self, op: &str, shape: &str, cost: Cost, work: impl FnMut() -> Result<()>) -> Result<()> {
        if !self.wants(op) {
            return Ok(());
        }
        let (seconds, seconds_min) = self.timer.time(work)?;
        let (gb_per_second, tflops, share_of_peak) = match cost {
            Cost::Bytes(bytes) => {
                (Some(bytes as f64 / seconds / 1e9), None, bytes as f64 / seconds / self.copy)
            }
            Cost::Flops(flops) => {
                let rate = flops as f64 / seconds / 1e12;
                (None, Some(rate), rate / self.product_tflops)
            }
        };
        let (op, shape) = (op.into(), shape.into());
        self.rows.push(Row { op, shape, seconds, seconds_min, gb_per_second, tflops, share_of_peak });
        Ok(())
    }
}

/// Normal numbers of a shape, from a few rows over and over.
fn numbers(rows: usize, width: usize, dtype: DType, place: Device) -> Result<Tensor> {
    let few = rows.clamp(1, 64);
    let tile = Tensor::from_slice(&random::normal(few * width, 1.0, 7, 0), &[1, few, width])?;
    let tile = tile.to_dtype(dtype)?.to_device(place)?;
    let times = rows.div_ceil(few);
    tile.broadcast_to(&[times, few, width])?.reshape(&[times * few, width])?.narrow(0, 0, rows)?.contiguous()
}

/// The largest product that is tried, and how long one has to take for a device to be busy with it, in seconds.
const LARGEST: usize = 8192;
const LONG: f64 = 0.03;

/// TFLOP/s of the best product of square matrices, of 256 rows or twice as many again until one takes long or is the largest.
pub fn product_peak(place: Device, dtype: DType, repeats: usize) -> Result<f64> {
    let mut timer = Timer::new(place, repeats)?;
    let mut size = 256;
    loop {
        let (x, weight) = (numbers(size, size, dtype, place)?, numbers(size, size, dtype, place)?);
        let work = || linear(&x, &weight, None, Activation::None, true).map(drop);
        // The first time, kernels are loaded and memory is found.
        work()?;
        if size >= LARGEST || seconds_of(place, work)? >= LONG {
            return Ok(2.0 * (size as f64).powi(3) / timer.time(work)?.1 / 1e12);
        }
        size *= 2;
    }
}

/// Runs the command.
pub fn run(arguments: &BenchKernels) -> Outcome {
    let resolved = resolve(&arguments.compute)?;
    let (place, dtype, only) = (resolved.place, resolved.compute, arguments.only.as_str());
    if !OPERATIONS.concat().iter().any(|op| op.contains(only)) {
        let message =
            format!("--only {only}: no such operation; there are {}", OPERATIONS.concat().join(", "));
        return Err(Failure::Usage(message));
    }
    let largest = arguments.size.iter().copied().max().unwrap_or(64) << 20;
    // Up to eight arrays of this size live at once, beside the one that empties the caches.
    let needed = 8 * largest as u64 + FLUSHED as u64;
    check_memory(place, needed, || format!("--size {}", largest >> 20))?;
    let product_tflops = product_peak(place, dtype, arguments.repeats)?;
    let mut timer = Timer::new(place, arguments.repeats)?;
    let source = numbers(largest / 4 / WIDTH, WIDTH, DType::F32, place)?;
    let (_, best) = timer.time(|| source.copy().map(drop))?;
    let copy = 2.0 * source.bytes() as f64 / best;
    drop(source);

    let mut bench = Bench { timer, dtype, only, copy, product_tflops, rows: Vec::new() };
    for &mib in &arguments.size {
        memory_bound(&mut bench, mib << 20)?;
    }
    products(&mut bench)?;
    attentions(&mut bench)?;
    let report = Report {
        copy_gb_per_second: copy / 1e9,
        product_tflops,
        kernels: bench.rows,
        resolved,
        machine: Machine::look(),
    };
    if arguments.json { output::json(&report) } else { print(&report) }
}

/// What `--only` may name: bound by memory, products, attention.
const OPERATIONS: [&[&str]; 3] = [
    &[
        "gelu",
        "gelu backward",
        "layer_norm",
        "layer_norm backward",
        "dropout + add + layer_norm",
        "dropout + add + layer_norm backward",
        "adamw",
    ],
    &["linear", "linear + gelu", "linear dx", "linear dweight"],
    &["attention", "attention backward"],
];

fn memory_bound(bench: &mut Bench, bytes: usize) -> Result<()> {
    let (place, dtype) = (bench.timer.place, bench.dtype);
    let rows = bytes / dtype.size() / WIDTH;
    let shape = format!("{rows} x {WIDTH} {dtype}");
    if OPERATIONS[0].iter().any(|op| *op != "adamw" && bench.wants(op)) {
        // Two tensors: an operand that is given twice would be read once.
        let (x, dy) = (numbers(rows, WIDTH, dtype, place)?, numbers(rows, WIDTH, dtype, place)?);
        let size = x.bytes();
        let (weight, bias) = (
            numbers(1, WIDTH, DType::F32, place)?.reshape(&[WIDTH])?,
            numbers(1, WIDTH, DType::F32, place)?.reshape(&[WIDTH])?,
        );
        bench.add("gelu", &shape, Cost::Bytes(2 * size), || gelu_erf(&x).map(drop))?;
        bench.add("gelu backward", &shape, Cost::Bytes(3 * size), || gelu_erf_backward(&dy, &x).map(drop))?;
        bench.add("layer_norm", &shape, Cost::Bytes(2 * size), || {
            layer_norm(&x, &weight, &bias, 1e-12).map(drop)
        })?;
        let saved = layer_norm(&x, &weight, &bias, 1e-12)?;
        bench.add("layer_norm backward", &shape, Cost::Bytes(3 * size), || {
            layer_norm_backward(&dy, &x, &weight, &saved.mean, &saved.rstd).map(drop)
        })?;
        drop(saved);
        let offsets =
            Offsets::from_lengths((0..rows.div_ceil(512)).map(|sequence| (rows - 512 * sequence).min(512)))?;
        let dropout = Dropout { dropout_p: 0.1, seed: 1, step: 1, site: 1, first_sequence: 0 };
        let forward = || dropout_add_layer_norm(&x, &dy, &weight, &bias, 1e-12, Some(&dropout), &offsets);
        bench.add("dropout + add + layer_norm", &shape, Cost::Bytes(4 * size), || forward().map(drop))?;
        let saved = forward()?;
        bench.add("dropout + add + layer_norm backward", &shape, Cost::Bytes(4 * size), || {
            let (sum, mean, rstd) = (&saved.sum, &saved.mean, &saved.rstd);
            dropout_add_layer_norm_backward(&dy, sum, &weight, mean, rstd, Some(&dropout), &offsets, dtype)
                .map(drop)
        })?;
    }
    if !bench.wants("adamw") {
        return Ok(());
    }
    let rows = bytes / 4 / WIDTH;
    let new = || numbers(rows, WIDTH, DType::F32, place);
    let (mut param, grad, mut first_moment) = (new()?, new()?, new()?);
    let mut second_moment = Tensor::full(&[rows, WIDTH], 1.0, DType::F32, place)?;
    let settings = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 3 };
    let (size, norm) = (grad.bytes(), GradNorm::fixed(1.0, place)?);
    bench.add("adamw", &format!("{rows} x {WIDTH} f32"), Cost::Bytes(7 * size), || {
        let (param, first_moment, second_moment) = (&mut param, &mut first_moment, &mut second_moment);
        let update =
            Update { param, compute: None, grad: &grad, first_moment, second_moment, weight_decay: 0.01 };
        adamw_step(&mut [update], &settings, &norm)
    })
}

/// The products of a BERT-base layer, 16 x 512 tokens (a quarter of them on a processor).
fn products(bench: &mut Bench) -> Result<()> {
    let (place, dtype) = (bench.timer.place, bench.dtype);
    if !OPERATIONS[1].iter().any(|op| bench.wants(op)) {
        return Ok(());
    }
    let m = if place == Device::Cpu { 2048 } else { 8192 };
    for (k, n) in [(768, 768), (768, 2304), (768, 3072), (3072, 768)] {
        let (x, weight) = (numbers(m, k, dtype, place)?, numbers(n, k, dtype, place)?);
        let (dy, bias) = (numbers(m, n, dtype, place)?, numbers(1, n, DType::F32, place)?.reshape(&[n])?);
        let flops = Cost::Flops(2 * m * k * n);
        let shape = format!("{m} x {k} x {n} {dtype}");
        let forward = |activation| linear(&x, &weight, Some((&bias).into()), activation, true).map(drop);
        bench.add("linear", &shape, flops, || forward(Activation::None))?;
        if (k, n) == (768, 3072) {
            bench.add("linear + gelu", &shape, flops, || forward(Activation::GeluErf))?;
        }
        for (name, needs) in [
            ("linear dx", LinearNeeds { x: Some(dtype), weight: false, bias: false }),
            ("linear dweight", LinearNeeds { x: None, weight: true, bias: false }),
        ] {
            bench.add(name, &shape, flops, || {
                linear_backward(&dy, Some(&x), Some(&weight), Activation::None, None, needs, None).map(drop)
            })?;
        }
    }
    Ok(())
}

fn attentions(bench: &mut Bench) -> Result<()> {
    const HEADS: usize = 12;
    let (place, dtype) = (bench.timer.place, bench.dtype);
    if !OPERATIONS[2].iter().any(|op| bench.wants(op)) {
        return Ok(());
    }
    let shapes: &[(usize, usize)] = if place == Device::Cpu { &[(4, 512)] } else { &[(16, 512), (2, 4096)] };
    for &(sequences, len) in shapes {
        let offsets = Offsets::from_lengths(vec![len; sequences])?;
        let (total, options) = (sequences * len, AttentionOptions::default());
        let (qkv, dout) = (numbers(total, 3 * WIDTH, dtype, place)?, numbers(total, WIDTH, dtype, place)?);
        let scale = 1.0 / ((WIDTH / HEADS) as f64).sqrt();
        let forward = || attention(&qkv, HEADS, scale, &offsets, Queries::All, &options);
        let shape = format!("{sequences} x {len}, 12 heads of 64 {dtype}");
        // 4 D a pair forward; 10 D backward, as FlashAttention counts.
        let flops = 4 * WIDTH * sequences * len * len;
        bench.add("attention", &shape, Cost::Flops(flops), || forward().map(drop))?;
        let lse = forward()?.lse;
        bench.add("attention backward", &shape, Cost::Flops(flops / 2 * 5), || {
            attention_backward(&dout, &qkv, &lse, HEADS, scale, &offsets, Queries::All, &options).map(drop)
        })?;
    }
    Ok(())
}

fn print(report: &Report) -> Outcome {
    line(report.resolved.line())?;
    line(format!(
        "copy {:.1} GB/s, best product {:.2} TFLOP/s, both measured now",
        report.copy_gb_per_second, report.product_tflops
    ))?;
    let rows: Vec<Vec<String>> = report
        .kernels
        .iter()
        .map(|row| {
            let rate = match (row.gb_per_second, row.tflops) {
                (Some(rate), _) => format!("{rate:.1} GB/s"),
                (_, Some(rate)) => format!("{rate:.3} TFLOP/s"),
                _ => String::new(),
            };
            let share = format!("{:.0} %", 100.0 * row.share_of_peak);
            vec![row.op.clone(), row.shape.clone(), format!("{:.3}", 1e3 * row.seconds), rate, share]
        })
        .collect();
    let head = [
        ("operation", Align::Left),
        ("shape", Align::Left),
        ("ms", Align::Right),
        ("rate", Align::Right),
        ("of peak", Align::Right),
    ];
    line(table(&head, &rows))
}
