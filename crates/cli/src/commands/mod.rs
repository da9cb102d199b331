//! A file per command, and what they share: the resolution of precision, device and threads.

mod baseline;
mod bench;
mod bench_kernels;
mod claims;
mod completions;
mod data;
mod doctor;
mod eval;
mod explain;
mod explore;
mod extract;
mod fetch;
mod fill_mask;
mod init;
mod inspect;
mod predict;
mod pretrain;
mod replay;
mod report;
mod sweep;
mod tap;
mod trace;
mod train;

use crate::args::{Bench, Claims, Command, Compute, DTypeChoice, Data};
use crate::machine;
use crate::names::{ModelName, PRETRAINED};
use crate::output::{Failure, Outcome, bytes, quoted, quoted_path};
use serde::Serialize;
use std::path::Path;
pub use train::default_options;
use vitrine_bert::{CONFIG_FILE, ModelConfig, SequenceClassifier, StagedFiles};
use vitrine_tensor::cpu::isa;
use vitrine_tensor::cpu::parallel::{self, ThreadsError};
use vitrine_tensor::{DType, Device, Error, cuda};
use vitrine_train::TrainError;

/// Runs a command.
pub fn run(command: Command) -> Outcome {
    isa::from_env().map_err(|error| Failure::Usage(error.to_string()))?;
    cuda::own_products().map_err(|error| Failure::Usage(error.to_string()))?;
    match command {
        Command::Train(arguments) => train::run(&arguments),
        Command::Sweep(arguments) => sweep::run(&arguments),
        Command::Data(Data::Inspect(arguments)) => start_threads(0).and_then(|()| data::run(&arguments)),
        Command::Completions(arguments) => completions::shell(&arguments),
        Command::Man(arguments) => completions::man(&arguments),
        Command::Pretrain(arguments) => pretrain::run(&arguments),
        Command::FillMask(arguments) => fill_mask::run(&arguments),
        Command::Fetch(arguments) => fetch::run(&arguments),
        Command::Init(arguments) => start_threads(0).and_then(|()| init::run(&arguments)),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Baseline(arguments) => baseline::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Predict(arguments) => predict::run(&arguments),
        Command::Inspect(arguments) => start_threads(0).and_then(|()| inspect::run(&arguments)),
        Command::Trace(arguments) => start_threads(0).and_then(|()| trace::run(&arguments)),
        Command::Tap(arguments) => tap::run(&arguments),
        Command::Extract(arguments) => extract::run(&arguments),
        Command::Explain(command) => explain::run(&command),
        Command::Explore(arguments) => explore::run(&arguments),
        Command::Look(arguments) => explore::look::run(&arguments),
        Command::Claims(Claims::List(arguments)) => claims::list(&arguments),
        Command::Claims(Claims::Run(arguments)) => claims::run(&arguments),
        Command::Doctor(arguments) => start_threads(0).and_then(|()| doctor::run(&arguments)),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Bench(Bench::Step(arguments)) => bench::run(&arguments),
        Command::Bench(Bench::Kernels(arguments)) => bench_kernels::run(&arguments),
    }
}

/// The sizes of bert-base, of bert-mini, of the embedded model, or in a file or a model folder. `option` names where the user gave it.
fn named_config(option: &str, name: &str) -> Outcome<ModelConfig> {
    match name {
        "bert-base" => Ok(ModelConfig::bert_base()),
        "mini" | "bert-mini" => Ok(ModelConfig::bert_mini()),
        PRETRAINED => Ok(ModelConfig::from_source(&ModelName::Embedded(PRETRAINED).source()?)?),
        path if Path::new(path).is_dir() => Ok(ModelConfig::from_file(&Path::new(path).join(CONFIG_FILE))?),
        path if Path::new(path).is_file() => Ok(ModelConfig::from_file(Path::new(path))?),
        other => Err(Failure::Usage(format!(
            "{option} {other} is neither bert-base nor bert-mini nor embedded nor the folder or config.json of a model"
        ))),
    }
}

/// Claims the folder of --output, which has to be missing or empty unless `overwrite`.
fn claim_output(folder: &Path, overwrite: bool) -> Outcome<StagedFiles> {
    let claimed = if overwrite { StagedFiles::new(folder) } else { StagedFiles::in_empty_folder(folder) };
    claimed.map_err(|error| Failure::Usage(format!("--output {error}")))
}

/// The command that goes on with this run in `output`, for a shell.
fn resume_command(output: &Path) -> String {
    let arguments: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let has = |name: &str| {
        arguments.iter().any(|argument| argument == name || argument.starts_with(&format!("{name}=")))
    };
    let mut command: Vec<String> =
        arguments.iter().filter(|&word| word != "--overwrite").map(|word| quoted(word)).collect();
    // Only these know the options; what started them in another way is given again as it was.
    if arguments.get(1).is_some_and(|command| command == "train" || command == "pretrain") {
        if !has("--output") {
            command.extend(["--output".to_owned(), quoted_path(output)]);
        }
        if !has("--resume") {
            command.push("--resume".to_owned());
        }
    }
    command.join(" ")
}

/// Bytes of a model's weights in f32, up to its head.
fn weight_bytes(config: &ModelConfig) -> u64 {
    let rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size;
    4 * (config.cost(&[1]).encoder_weights + (rows * config.hidden_size) as u64)
}

/// Refuses what cannot fit into this machine, by estimate: the system would end the process without a word.
fn check_memory(place: Device, needed: u64, what: impl FnOnce() -> String) -> Outcome {
    match machine::memory_bytes() {
        Some(total) if place == Device::Cpu && needed > total => Err(Failure::Usage(format!(
            "{} needs about {} of memory, and {} {}; use less",
            what(),
            bytes(needed as usize),
            if machine::memory_is_limited() { "this process is limited to" } else { "this machine has" },
            bytes(total as usize)
        ))),
        _ => Ok(()),
    }
}

/// The largest of `from`, `from / 2`, .. rows that need at most `room` bytes.
fn rows_that_fit(from: usize, room: usize, needed: impl Fn(usize) -> usize) -> Option<usize> {
    std::iter::successors(Some(from), |rows| (*rows > 1).then_some(rows / 2))
        .find(|&rows| needed(rows) <= room)
}

/// An error of a model that computes forward only; where a device's memory lacks, with what fits: `batch` is the rows that were
/// taken at once, of `max_length` tokens, and the option that says so.
fn explained(
    error: TrainError,
    model: &SequenceClassifier,
    max_length: usize,
    batch: (usize, &str),
) -> Failure {
    let Some(&Error::OutOfMemory { free, held, .. }) = error.tensor_error() else { return error.into() };
    // Weights in f32, and copies of the matrices in bfloat16; of activations, what lives at once is about two layers'.
    let (config, weights) = (model.config(), 6 * model.parameters().numel());
    let activations = |rows: usize| config.cost(&vec![max_length; rows]).activation_bytes as usize;
    let needed = |rows: usize| weights + 2 * activations(rows) / config.num_hidden_layers;
    let (rows, option) = batch;
    let advice = match rows_that_fit(rows / 2, free + held, needed) {
        Some(rows) if rows > 0 => format!("{option} {rows} should fit"),
        _ => "this model does not fit; use --device cpu".into(),
    };
    Failure::Run(format!("{error}; {advice}"))
}

/// What `auto` came to, and why; stored with every result.
#[derive(Clone, Debug, Serialize)]
pub struct Resolved {
    /// What activations and the encoder's matrices are computed in.
    #[serde(skip)]
    pub compute: DType,
    /// Where everything is computed.
    #[serde(skip)]
    pub place: Device,
    /// Its name.
    pub dtype: String,
    /// Why this one.
    pub dtype_reason: String,
    /// Device in use.
    pub device: String,
    /// Why this one.
    pub device_reason: String,
    /// Instruction set in use.
    pub isa: String,
    /// Threads in use.
    pub threads: usize,
}

impl Resolved {
    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "dtype {} ({}), device {} ({}), {} with {} thread{}",
            self.dtype,
            self.dtype_reason,
            self.device,
            self.device_reason,
            self.isa,
            self.threads,
            if self.threads == 1 { "" } else { "s" }
        )
    }
}

/// `--device`: auto, cpu, cuda or cuda:N; and why this one.
fn resolve_device(asked: &str) -> Outcome<(Device, String)> {
    let ordinal = match asked {
        "cpu" => return Ok((Device::Cpu, "as asked".into())),
        "auto" => {
            return Ok(match cuda::describe(0) {
                Ok(found) => (Device::Cuda(0), format!("auto: {}", found.name)),
                Err(_) => (Device::Cpu, "auto: no CUDA device; `vitrine doctor` says why".into()),
            });
        }
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()),
    };
    let Some(ordinal) = ordinal else {
        return Err(Failure::Usage(format!("--device {asked}: use auto, cpu, cuda or cuda:N")));
    };
    let found = cuda::describe(ordinal).map_err(|error| Failure::Run(error.to_string()))?;
    Ok((Device::Cuda(ordinal), found.name))
}

/// Starts the pool of threads, 0 for one per core: before the first operation, which could not report that the system refuses.
fn start_threads(count: usize) -> Outcome {
    parallel::set_threads(count).map_err(|error| match error {
        ThreadsError::AlreadyRunning { .. } => Failure::Usage(error.to_string()),
        ThreadsError::Refused { .. } => Failure::Run(error.to_string()),
    })
}

/// Resolves and applies `--dtype`, `--device` and `--threads`.
pub fn resolve(compute: &Compute) -> Outcome<Resolved> {
    let isa = isa::Isa::current();
    let (device, device_reason) = resolve_device(&compute.device)?;
    let (dtype, dtype_reason) = match compute.dtype {
        DTypeChoice::Auto if device != Device::Cpu => {
            (DType::BF16, "auto: the device multiplies bfloat16 faster than f32")
        }
        DTypeChoice::Auto => match isa.isa() {
            isa::Isa::Amx | isa::Isa::Avx512Bf16 => {
                (DType::BF16, "auto: this processor multiplies bfloat16 faster than f32")
            }
            _ => (DType::F32, "auto: this processor has no instructions that multiply bfloat16"),
        },
        DTypeChoice::F32 => (DType::F32, "as asked"),
        DTypeChoice::Bf16 => (DType::BF16, "as asked"),
    };
    start_threads(compute.threads.map_or(0, usize::from))?;
    Ok(Resolved {
        compute: dtype,
        place: device,
        dtype: dtype.to_string(),
        dtype_reason: dtype_reason.into(),
        device: device.to_string(),
        device_reason,
        isa: isa.to_string(),
        threads: parallel::threads(),
    })
}
