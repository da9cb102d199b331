//! `vitrine bench step`: times whole training or inference steps, and says where the time goes.

use super::{Resolved, bench_kernels, check_memory, named_config, resolve, weight_bytes};
use crate::args::{BenchStep, StepMode};
use crate::machine::{Machine, cpu_seconds, peak_rss_bytes};
use crate::output::{self, Align, Failure, Outcome, bytes, line, table, warn};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use vitrine_autograd::{Profile, Tape, Var};
use vitrine_bert::{Checkpoint, MaskedLm, ModelConfig, SequenceClassifier, TokenBatch, Weights};
use vitrine_nn::{Model, ParameterStore};
use vitrine_tensor::cpu::gemm;
use vitrine_tensor::cpu::parallel;
use vitrine_tensor::random::philox;
use vitrine_tensor::{DType, Device, cuda};
use vitrine_train::StepSettings;
use vitrine_train::optimizer::AdamW;

/// Weights, token ids and dropout come from this.
const SEED: u64 = 42;

/// The most bytes of a file of lengths: some ten million sequences.
const MAX_LENGTHS_FILE: u64 = 64 << 20;
/// The most tokens in a step of equal lengths; no machine of today takes so many.
const MAX_TOKENS: usize = 1 << 24;

#[derive(Serialize)]
struct Report {
    config: String,
    mode: &'static str,
    batch: usize,
    /// `None` for real lengths.
    seq: Option<usize>,
    /// The mean.
    tokens_per_step: f64,
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
    /// Of the best matrix product on the CUDA device, measured in this run.
    device_peak_tflops: Option<f64>,
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
    // Weights are random; where the folder has some, its config.json should be theirs.
    let folder = Path::new(&arguments.config);
    if Weights::is_in(folder)
        && let Err(error) = Checkpoint::open(folder).and_then(Checkpoint::check)
    {
        warn(format!("{error}\nthe step has random weights of the sizes in config.json"));
    }
    let (shapes, steps) = lengths(arguments, config.max_length())?;
    check_memory(resolved.place, needed_bytes(&config, arguments, &shapes), || match arguments.lengths {
        Some(_) => format!("--batch {}", arguments.batch),
        None => format!("--batch {} --seq {}", arguments.batch, arguments.seq),
    })?;
    let mut model = match arguments.mode {
        StepMode::Pretrain => {
            let config =
                ModelConfig { hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0, ..config.clone() };
            Benched::MaskedLm(MaskedLm::random(config, SEED)?)
        }
        StepMode::Train | StepMode::Infer => {
            Benched::Classifier(SequenceClassifier::random(config.clone(), SEED)?)
        }
    };
    let parameters = model.parameters_mut();
    parameters.to_device(resolved.place)?;
    parameters.compute_in(resolved.compute)?;

    let mut optimizer = AdamW::new(0.01);
    let mut times = Vec::new();
    let mut breakdowns: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut cpu_before = cpu_seconds();
    // Warm-up steps are the first ones over again.
    let of_steps = || shapes.iter().cycle();
    for (step, lengths) in of_steps().take(arguments.warmup).chain(of_steps().take(steps)).enumerate() {
        let batch = &random_batch(&config, lengths)?;
        if step == arguments.warmup {
            cpu_before = cpu_seconds();
        }
        synchronize(&resolved)?;
        let started = Instant::now();
        let checkpoint_layers = arguments.checkpoint_layers;
        let parts = match (&mut model, arguments.mode) {
            (Benched::Classifier(model), StepMode::Infer) => inference_step(model, batch)?,
            (Benched::Classifier(model), _) => training_step(
                model,
                |model, tape| model.loss(tape, batch),
                &mut optimizer,
                step,
                checkpoint_layers,
            )?,
            (Benched::MaskedLm(model), _) => {
                let rows: Arc<[u32]> = predicted(batch.len()).collect();
                let targets = rows.iter().map(|&row| batch.tokens().ids[row as usize]).collect();
                training_step(
                    model,
                    |model, tape| model.loss(tape, batch, &rows, &targets),
                    &mut optimizer,
                    step,
                    checkpoint_layers,
                )?
            }
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

    // Steps of real lengths differ, so they count by their sum; equal ones by their median.
    let seconds_per_step = match arguments.lengths {
        Some(_) => times.iter().sum::<f64>() / times.len() as f64,
        None => median(&mut times),
    };
    times.sort_by(f64::total_cmp);
    let (mut nominal, mut executed, mut tokens) = (0.0, 0.0, 0.0);
    let count = shapes.len() as f64;
    for lengths in &shapes {
        let cost = config.cost(lengths);
        let flops = match arguments.mode {
            StepMode::Train => (cost.training_flops, cost.executed_training_flops),
            StepMode::Pretrain => {
                let tokens = lengths.iter().sum::<usize>();
                let rows = predicted(tokens).count();
                // The head's two products; and what the last layer spares after its attention.
                let head = 6 * rows * config.hidden_size * (config.hidden_size + config.vocab_size);
                let spared = 12 * (tokens - rows) * config.hidden_size * config.intermediate_size;
                (cost.training_flops + head as u64, cost.training_flops + (head - spared.min(head)) as u64)
            }
            StepMode::Infer => (cost.forward_flops, cost.executed_forward_flops),
        };
        nominal += flops.0 as f64 / count;
        executed += flops.1 as f64 / count;
        tokens += lengths.iter().sum::<usize>() as f64 / count;
    }
    let mode = match arguments.mode {
        StepMode::Train => "train",
        StepMode::Infer => "infer",
        StepMode::Pretrain => "pretrain",
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
        seq: arguments.lengths.is_none().then_some(arguments.seq),
        tokens_per_step: tokens,
        steps: times.len(),
        seconds_per_step,
        seconds_min: times[0],
        seconds_max: times[times.len() - 1],
        tokens_per_second: tokens / seconds_per_step,
        tflops: nominal / seconds_per_step / 1e12,
        executed_tflops: executed / seconds_per_step / 1e12,
        f32_peak_tflops: gemm::peak_gflops(parallel::threads()) / 1e3,
        bf16_peak_tflops: gemm::peak_gflops_bf16(parallel::threads()) / 1e3,
        device_peak_tflops: match resolved.place {
            Device::Cpu => None,
            place => Some(bench_kernels::product_peak(place, resolved.compute, 5)?),
        },
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
        "{} {} step, {}: {:.4} s ({} of {}; {:.4} to {:.4})",
        report.config,
        report.mode,
        report.seq.map_or_else(
            || format!("{} real texts, {:.0} tokens", report.batch, report.tokens_per_step),
            |seq| format!("{} x {seq} tokens", report.batch)
        ),
        report.seconds_per_step,
        if report.seq.is_some() { "median" } else { "mean" },
        report.steps,
        report.seconds_min,
        report.seconds_max
    ))?;
    let peak = match (report.resolved.place, report.resolved.compute) {
        (Device::Cuda(_), _) => report.device_peak_tflops.unwrap_or(f64::NAN),
        (Device::Cpu, DType::BF16) => report.bf16_peak_tflops,
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

/// An estimate of the memory that the largest step takes.
fn needed_bytes(config: &ModelConfig, arguments: &BenchStep, shapes: &[Vec<usize>]) -> u64 {
    let kept = shapes.iter().map(|lengths| config.cost(lengths).activation_bytes).max().unwrap_or(0);
    let a_layer = kept / config.num_hidden_layers as u64;
    match arguments.mode {
        // Masters, gradients and two moments; layer by layer where activations are computed again.
        StepMode::Train | StepMode::Pretrain if arguments.checkpoint_layers => {
            4 * weight_bytes(config) + a_layer
        }
        StepMode::Train => 4 * weight_bytes(config) + kept,
        // Logits, their gradient and a copy, of 3 of 20 tokens.
        StepMode::Pretrain => {
            let tokens = shapes.iter().map(|lengths| lengths.iter().sum::<usize>()).max().unwrap_or(0);
            4 * weight_bytes(config) + kept + (12 * tokens / 20 * 3 * config.vocab_size) as u64
        }
        StepMode::Infer => weight_bytes(config) + a_layer,
    }
}

/// The lengths of the sequences of steps, to be gone through again and again, and how many steps there are.
fn lengths(arguments: &BenchStep, limit: usize) -> Outcome<(Vec<Vec<usize>>, usize)> {
    let Some(file) = &arguments.lengths else {
        if arguments.seq > limit {
            let message = format!("--seq {} is more than the model's {limit} positions", arguments.seq);
            return Err(Failure::Usage(message));
        }
        if arguments.batch * arguments.seq > MAX_TOKENS {
            let (batch, seq) = (arguments.batch, arguments.seq);
            let message = format!("--batch {batch} --seq {seq} is more than {MAX_TOKENS} tokens a step");
            return Err(Failure::Usage(message));
        }
        return Ok((vec![vec![arguments.seq; arguments.batch]], arguments.steps));
    };
    let text = vitrine_bert::read_text(file, MAX_LENGTHS_FILE)?;
    let mut lengths = Vec::new();
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        match text.trim().parse::<usize>() {
            Ok(length) if (1..=limit).contains(&length) => lengths.push(length),
            _ => {
                let (file, line) = (file.display(), line + 1);
                let message = format!("{file}:{line}: {text:?} is not a length from 1 to {limit}");
                return Err(Failure::Run(message));
            }
        }
    }
    if lengths.is_empty() {
        return Err(Failure::Run(format!("{} has no lengths", file.display())));
    }
    let shapes: Vec<Vec<usize>> = lengths.chunks(arguments.batch).map(<[usize]>::to_vec).collect();
    let steps = shapes.len();
    Ok((shapes, steps))
}

fn random_batch(config: &ModelConfig, lengths: &[usize]) -> Outcome<TokenBatch> {
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

/// The rows of so many tokens that are predicted: 3 of 20.
fn predicted(tokens: usize) -> impl Iterator<Item = u32> {
    (0..tokens as u32).filter(|row| matches!(row % 20, 3 | 9 | 16))
}

/// What is benched.
enum Benched {
    Classifier(SequenceClassifier),
    MaskedLm(MaskedLm),
}

impl Benched {
    fn parameters_mut(&mut self) -> &mut ParameterStore {
        match self {
            Benched::Classifier(model) => model.parameters_mut(),
            Benched::MaskedLm(model) => model.parameters_mut(),
        }
    }
}

/// Forward, backward, clipping, AdamW; returns (operation, seconds).
fn training_step<M: Model>(
    model: &mut M,
    loss: impl for<'t> Fn(&M, &'t Tape) -> vitrine_bert::Result<Var<'t>>,
    optimizer: &mut AdamW,
    step: usize,
    checkpoint_layers: bool,
) -> Outcome<Vec<(String, f64)>> {
    // On a CUDA device operations only begin here, so their seconds would say nothing.
    let on_cpu = model.parameters().iter().next().is_none_or(|(_, p)| p.value.device() == Device::Cpu);
    let settings = StepSettings {
        seed: SEED,
        step,
        lr: 2e-5,
        max_grad_norm: Some(1.0),
        checkpoint_layers,
        profiled: on_cpu,
    };
    let taken = vitrine_train::step(model, loss, optimizer, &settings)?;
    let mut parts = named("forward", &taken.forward);
    parts.extend(named("backward", &taken.backward));
    if on_cpu {
        parts.push(("clip + adamw".into(), taken.update_seconds));
    }
    Ok(parts)
}

fn inference_step(model: &SequenceClassifier, batch: &TokenBatch) -> Outcome<Vec<(String, f64)>> {
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
