//! `vitrine bench step`: times whole training or inference steps, and says where the time goes.

use super::{Resolved, named_config, resolve};
use crate::args::{BenchStep, StepMode};
use crate::machine::{Machine, cpu_seconds, peak_rss_bytes};
use crate::output::{self, Align, Failure, Outcome, bytes, line, table};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;
use vitrine_autograd::{Profile, Randomness, Tape};
use vitrine_bert::{BertConfig, BertForSequenceClassification, TokenBatch};
use vitrine_tensor::cpu::gemm;
use vitrine_tensor::cpu::parallel;
use vitrine_tensor::random::philox;
use vitrine_tensor::{DType, Device, cuda};
use vitrine_train::optimizer::AdamW;

/// Weights, token ids and dropout come from this.
const SEED: u64 = 42;

#[derive(Serialize)]
struct Report {
    config: String,
    mode: &'static str,
    batch: usize,
    seq: usize,
    steps: usize,
    seconds_per_step: f64,
    seconds_min: f64,
    seconds_max: f64,
    tokens_per_second: f64,
    /// Nominal TFLOP/s: 6 (or 2) x encoder weights x tokens + 12 (or 4) L C sum(S^2), over the time.
    tflops: f64,
    executed_tflops: f64,
    f32_peak_tflops: f64,
    /// Of the instruction set's bfloat16 products, or of f32 where there are none.
    bf16_peak_tflops: f64,
    peak_rss_bytes: Option<u64>,
    /// Share of processor time spent in the kernel during the timed steps.
    system_time_share: Option<f64>,
    /// Median seconds a step by operation, the largest first; together they make up the step.
    breakdown: Vec<Row>,
    resolved: Resolved,
    machine: Machine,
}

#[derive(Serialize)]
struct Row {
    op: String,
    seconds: f64,
    share: f64,
}

/// Runs the command.
pub fn run(arguments: &BenchStep) -> Outcome {
    let resolved = resolve(&arguments.compute)?;
    let config = named_config("--config", &arguments.config)?;
    if arguments.seq > config.max_position_embeddings {
        let limit = config.max_position_embeddings;
        return Err(Failure::Usage(format!(
            "--seq {} is more than the model's {limit} positions",
            arguments.seq
        )));
    }
    let lengths = vec![arguments.seq; arguments.batch];
    let mut model = BertForSequenceClassification::random(config.clone(), SEED)?;
    model.to_device(resolved.place)?;
    model.compute_in(resolved.compute)?;
    let batch = random_batch(&config, &lengths)?;

    let mut times = Vec::new();
    let mut breakdowns: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut cpu_before = cpu_seconds();
    for step in 0..arguments.warmup + arguments.steps {
        if step == arguments.warmup {
            cpu_before = cpu_seconds();
        }
        synchronize(&resolved)?;
        let started = Instant::now();
        let parts = match arguments.mode {
            StepMode::Train => training_step(&mut model, &batch, step, arguments.checkpoint_layers)?,
            StepMode::Infer => inference_step(&model, &batch)?,
        };
        synchronize(&resolved)?;
        let seconds = started.elapsed().as_secs_f64();
        if step >= arguments.warmup {
            times.push(seconds);
            let counted: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
            for (op, seconds) in parts.into_iter().chain([("(between operations)".into(), seconds - counted)])
            {
                breakdowns.entry(op).or_default().push(seconds);
            }
        }
    }
    let system_time_share = cpu_before.zip(cpu_seconds()).map(|((user0, system0), (user1, system1))| {
        let (user, system) = (user1 - user0, system1 - system0);
        system / (user + system).max(f64::MIN_POSITIVE)
    });

    let seconds_per_step = median(&mut times);
    let cost = config.cost(&lengths);
    let (mode, nominal, executed) = match arguments.mode {
        StepMode::Train => ("train", cost.training_flops, cost.executed_training_flops),
        StepMode::Infer => ("infer", cost.forward_flops, cost.executed_forward_flops),
    };
    let mut breakdown: Vec<Row> = breakdowns
        .into_iter()
        .map(|(op, mut seconds)| {
            let seconds = median(&mut seconds);
            Row { op, seconds, share: seconds / seconds_per_step }
        })
        .collect();
    breakdown.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let report = Report {
        config: arguments.config.clone(),
        mode,
        batch: arguments.batch,
        seq: arguments.seq,
        steps: arguments.steps,
        seconds_per_step,
        seconds_min: times[0],
        seconds_max: times[times.len() - 1],
        tokens_per_second: batch.offsets().total() as f64 / seconds_per_step,
        tflops: nominal as f64 / seconds_per_step / 1e12,
        executed_tflops: executed as f64 / seconds_per_step / 1e12,
        f32_peak_tflops: gemm::peak_gflops(parallel::threads()) / 1e3,
        bf16_peak_tflops: gemm::peak_gflops_bf16(parallel::threads()) / 1e3,
        peak_rss_bytes: peak_rss_bytes(),
        system_time_share,
        breakdown,
        resolved,
        machine: Machine::look(),
    };
    if arguments.json { output::json(&report) } else { print(&report) }
}

/// Waits for a CUDA device, whose work goes on while the host does other things.
fn synchronize(resolved: &Resolved) -> Outcome {
    match resolved.place {
        Device::Cpu => Ok(()),
        Device::Cuda(ordinal) => Ok(cuda::synchronize(ordinal)?),
    }
}

fn print(report: &Report) -> Outcome {
    line(report.resolved.line())?;
    line(format!(
        "{} {} step, {} x {} tokens: {:.4} s (median of {}; {:.4} to {:.4})",
        report.config,
        report.mode,
        report.batch,
        report.seq,
        report.seconds_per_step,
        report.steps,
        report.seconds_min,
        report.seconds_max
    ))?;
    let peak = match report.resolved.compute {
        DType::BF16 => report.bf16_peak_tflops,
        _ => report.f32_peak_tflops,
    };
    line(format!(
        "{:.0} tokens/s, {:.3} TFLOP/s nominal, {:.3} executed, {:.0} % of the {} peak of {peak:.3}",
        report.tokens_per_second,
        report.tflops,
        report.executed_tflops,
        100.0 * report.executed_tflops / peak,
        report.resolved.dtype,
    ))?;
    let memory = report.peak_rss_bytes.map_or("unknown".into(), |n| bytes(n as usize));
    let system = report.system_time_share.map_or("unknown".into(), |share| format!("{:.1} %", 100.0 * share));
    line(format!("peak memory {memory}, system time {system}"))?;
    line("")?;
    let rows: Vec<Vec<String>> = report
        .breakdown
        .iter()
        .map(|row| vec![row.op.clone(), format!("{:.4}", row.seconds), format!("{:.1} %", 100.0 * row.share)])
        .collect();
    line(table(&[("operation", Align::Left), ("seconds", Align::Right), ("share", Align::Right)], &rows))
}

fn random_batch(config: &BertConfig, lengths: &[usize]) -> Outcome<TokenBatch> {
    let sequences: Vec<Vec<u32>> = lengths
        .iter()
        .enumerate()
        .map(|(b, &length)| {
            let id = |t| philox([t, b as u32, 0, 0], [SEED as u32, 0])[0] % config.vocab_size as u32;
            (0..length as u32).map(id).collect()
        })
        .collect();
    let labels: Vec<u32> = (0..lengths.len() as u32).map(|b| b % 2).collect();
    Ok(TokenBatch::new(sequences.iter().map(Vec::as_slice), Some(&labels), config)?)
}

/// Forward, backward, clipping, AdamW; returns (operation, seconds).
fn training_step(
    model: &mut BertForSequenceClassification,
    batch: &TokenBatch,
    step: usize,
    checkpoint_layers: bool,
) -> Outcome<Vec<(String, f64)>> {
    let mut tape = Tape::training(Randomness { seed: SEED, step: step as u32, first_sequence: 0 }).profiled();
    if checkpoint_layers {
        tape = tape.checkpointing_layers();
    }
    let loss = model.loss(&tape, batch)?.id();
    let forward = tape.profile();
    let (gradients, backward) = tape.backward_profiled(loss, &[])?;
    let mut parts = named("forward", &forward);
    parts.extend(named("backward", &backward));
    let started = Instant::now();
    let norm = gradients.global_norm()?;
    AdamW::new(0.01, Some(1.0)).step(model.parameters_mut(), &gradients, step, 2e-5, norm)?;
    parts.push(("clip + adamw".into(), started.elapsed().as_secs_f64()));
    Ok(parts)
}

fn inference_step(model: &BertForSequenceClassification, batch: &TokenBatch) -> Outcome<Vec<(String, f64)>> {
    let tape = Tape::inference().profiled();
    model.logits(&tape, batch)?;
    Ok(named("forward", &tape.profile()))
}

fn named(pass: &str, profile: &Profile) -> Vec<(String, f64)> {
    profile.by_op().into_iter().map(|(op, seconds)| (format!("{op} {pass}"), seconds)).collect()
}

/// Sorts, and gives the middle (of an even number, the upper middle).
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
