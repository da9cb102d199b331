//! `vitrine bench kernels`: single operations beside the best copy and the best matrix product of the same run.
//!
//! Memory-bound operations are rated by the bytes that they must move, against a copy; products and attention by their
//! floating-point operations, against the best product. Between repetitions a large buffer is overwritten, so that nothing
//! is left in a cache.

use super::{Resolved, check_memory, resolve};
use crate::args::BenchKernels;
use crate::machine::Machine;
use crate::output::{self, Align, Outcome, line, table};
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
            seconds.push(match self.place {
                Device::Cuda(ordinal) => cuda::seconds_of(ordinal, &mut work)?,
                Device::Cpu => {
                    let started = Instant::now();
                    work()?;
                    started.elapsed().as_secs_f64()
                }
            });
        }
        seconds.sort_by(f64::total_cmp);
        Ok((seconds[seconds.len() / 2], seconds[0]))
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

/// TFLOP/s of the best of a few large products of a device.
pub fn product_peak(place: Device, dtype: DType, repeats: usize) -> Result<f64> {
    // A processor needs less to reach its peak, and much longer.
    let size = if place == Device::Cpu { 1536 } else { 8192 };
    let (x, weight) = (numbers(size, size, dtype, place)?, numbers(size, size, dtype, place)?);
    let mut timer = Timer::new(place, repeats)?;
    let (_, best) = timer.time(|| linear(&x, &weight, None, Activation::None, true).map(drop))?;
    Ok(2.0 * (size as f64).powi(3) / best / 1e12)
}

/// Runs the command.
pub fn run(arguments: &BenchKernels) -> Outcome {
    let resolved = resolve(&arguments.compute)?;
    let (place, dtype) = (resolved.place, resolved.compute);
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

    let mut kernels = Vec::new();
    let mut add = |op: &str, shape: String, cost: Cost, (seconds, seconds_min): (f64, f64)| {
        let (gb_per_second, tflops, share_of_peak) = match cost {
            Cost::Bytes(bytes) => (Some(bytes as f64 / seconds / 1e9), None, bytes as f64 / seconds / copy),
            Cost::Flops(flops) => {
                let rate = flops as f64 / seconds / 1e12;
                (None, Some(rate), rate / product_tflops)
            }
        };
        kernels.push(Row {
            op: op.into(),
            shape,
            seconds,
            seconds_min,
            gb_per_second,
            tflops,
            share_of_peak,
        });
    };
    for &mib in &arguments.size {
        memory_bound(&mut timer, mib << 20, dtype, &mut add)?;
    }
    products(&mut timer, dtype, &mut add)?;
    attentions(&mut timer, dtype, &mut add)?;
    let report = Report {
        copy_gb_per_second: copy / 1e9,
        product_tflops,
        kernels,
        resolved,
        machine: Machine::look(),
    };
    if arguments.json { output::json(&report) } else { print(&report) }
}

type Add<'a> = dyn FnMut(&str, String, Cost, (f64, f64)) + 'a;

fn memory_bound(timer: &mut Timer, bytes: usize, dtype: DType, add: &mut Add) -> Result<()> {
    let place = timer.place;
    let rows = bytes / dtype.size() / WIDTH;
    let shape = || format!("{rows} x {WIDTH} {dtype}");
    // Two tensors: an operand that is given twice would be read once.
    let (x, dy) = (numbers(rows, WIDTH, dtype, place)?, numbers(rows, WIDTH, dtype, place)?);
    let size = x.bytes();
    let (weight, bias) = (
        numbers(1, WIDTH, DType::F32, place)?.reshape(&[WIDTH])?,
        numbers(1, WIDTH, DType::F32, place)?.reshape(&[WIDTH])?,
    );
    add("gelu", shape(), Cost::Bytes(2 * size), timer.time(|| gelu_erf(&x).map(drop))?);
    add(
        "gelu backward",
        shape(),
        Cost::Bytes(3 * size),
        timer.time(|| gelu_erf_backward(&dy, &x).map(drop))?,
    );
    let forward = timer.time(|| layer_norm(&x, &weight, &bias, 1e-12).map(drop))?;
    add("layer_norm", shape(), Cost::Bytes(2 * size), forward);
    let saved = layer_norm(&x, &weight, &bias, 1e-12)?;
    let backward =
        timer.time(|| layer_norm_backward(&dy, &x, &weight, &saved.mean, &saved.rstd).map(drop))?;
    add("layer_norm backward", shape(), Cost::Bytes(3 * size), backward);
    let offsets =
        Offsets::from_lengths((0..rows.div_ceil(512)).map(|sequence| (rows - 512 * sequence).min(512)))?;
    let dropout = Dropout { dropout_p: 0.1, seed: 1, step: 1, site: 1, first_sequence: 0 };
    let forward = timer.time(|| {
        dropout_add_layer_norm(&x, &dy, &weight, &bias, 1e-12, Some(&dropout), &offsets).map(drop)
    })?;
    add("dropout + add + layer_norm", shape(), Cost::Bytes(4 * size), forward);
    let saved = dropout_add_layer_norm(&x, &dy, &weight, &bias, 1e-12, Some(&dropout), &offsets)?;
    let backward = timer.time(|| {
        let (sum, mean, rstd) = (&saved.sum, &saved.mean, &saved.rstd);
        dropout_add_layer_norm_backward(&dy, sum, &weight, mean, rstd, Some(&dropout), &offsets, dtype)
            .map(drop)
    })?;
    add("dropout + add + layer_norm backward", shape(), Cost::Bytes(4 * size), backward);
    drop((x, dy, saved));

    let rows = bytes / 4 / WIDTH;
    let new = || numbers(rows, WIDTH, DType::F32, place);
    let (mut param, grad, mut first_moment) = (new()?, new()?, new()?);
    let mut second_moment = Tensor::full(&[rows, WIDTH], 1.0, DType::F32, place)?;
    let settings = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 3 };
    let (size, norm) = (grad.bytes(), GradNorm::fixed(1.0, place)?);
    let update = timer.time(|| {
        let (param, first_moment, second_moment) = (&mut param, &mut first_moment, &mut second_moment);
        let update =
            Update { param, compute: None, grad: &grad, first_moment, second_moment, weight_decay: 0.01 };
        adamw_step(&mut [update], &settings, &norm)
    })?;
    add("adamw", format!("{rows} x {WIDTH} f32"), Cost::Bytes(7 * size), update);
    Ok(())
}

/// The products of a BERT-base layer, 16 x 512 tokens (a quarter of them on a processor).
fn products(timer: &mut Timer, dtype: DType, add: &mut Add) -> Result<()> {
    let place = timer.place;
    let m = if place == Device::Cpu { 2048 } else { 8192 };
    for (k, n) in [(768, 768), (768, 2304), (768, 3072), (3072, 768)] {
        let (x, weight) = (numbers(m, k, dtype, place)?, numbers(n, k, dtype, place)?);
        let (dy, bias) = (numbers(m, n, dtype, place)?, numbers(1, n, DType::F32, place)?.reshape(&[n])?);
        let flops = Cost::Flops(2 * m * k * n);
        let shape = format!("{m} x {k} x {n} {dtype}");
        let forward =
            timer.time(|| linear(&x, &weight, Some((&bias).into()), Activation::None, true).map(drop))?;
        add("linear", shape.clone(), flops, forward);
        if (k, n) == (768, 3072) {
            let forward = timer
                .time(|| linear(&x, &weight, Some((&bias).into()), Activation::GeluErf, true).map(drop))?;
            add("linear + gelu", shape.clone(), flops, forward);
        }
        for (name, needs) in [
            ("linear dx", LinearNeeds { x: Some(dtype), weight: false, bias: false }),
            ("linear dweight", LinearNeeds { x: None, weight: true, bias: false }),
        ] {
            let backward =
                || linear_backward(&dy, &x, &weight, Activation::None, None, needs, None).map(drop);
            add(name, shape.clone(), flops, timer.time(backward)?);
        }
    }
    Ok(())
}

fn attentions(timer: &mut Timer, dtype: DType, add: &mut Add) -> Result<()> {
    const HEADS: usize = 12;
    let place = timer.place;
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
        add("attention", shape.clone(), Cost::Flops(flops), timer.time(|| forward().map(drop))?);
        let lse = forward()?.lse;
        let backward = timer.time(|| {
            attention_backward(&dout, &qkv, &lse, HEADS, scale, &offsets, Queries::All, &options).map(drop)
        })?;
        add("attention backward", shape, Cost::Flops(flops / 2 * 5), backward);
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
