//! Times one forward pass of candle-transformers' BERT, float32, on the CPU.
//!
//! ```text
//! RAYON_NUM_THREADS=2 CANDLE_NUM_THREADS=2 candle-forward --config bert-base --batch 1 --seq 128 --json
//! ```
//!
//! The model ends with the last encoder layer: candle's has neither pooler nor classifier, a ten-thousandth of the work.
//! Training is not timed, since candle's BERT has no dropout and no training step to compare with. Weights are random:
//! speed does not depend on them.

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use candle_transformers::models::bert::{BertModel, Config};
use clap::Parser;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

/// The arguments of `common.py`, of which this is the Rust side.
#[derive(Parser)]
struct Arguments {
    /// bert-base, mini, or a folder with a config.json.
    #[arg(long, default_value = "bert-base")]
    config: String,
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Tokens of each sequence; none is padding.
    #[arg(long, default_value_t = 512)]
    seq: usize,
    /// For the record: candle takes RAYON_NUM_THREADS and CANDLE_NUM_THREADS from the environment.
    #[arg(long)]
    threads: Option<usize>,
    /// Timed repetitions.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Repetitions before them.
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// Accepted for the others' sake: the output is always one JSON object.
    #[arg(long)]
    json: bool,
}

/// Weights drawn when asked for: LayerNorm's are 1, biases 0, and all others normal with a deviation of 0.02.
struct Random;

impl SimpleBackend for Random {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        if name.ends_with("bias") {
            Tensor::zeros(shape, dtype, device)
        } else if name.ends_with("LayerNorm.weight") {
            Tensor::ones(shape, dtype, device)
        } else {
            Tensor::randn(0f32, 0.02, shape, device)?.to_dtype(dtype)
        }
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name} is asked for without a shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        // The older names of LayerNorm's parameters, which candle looks for too, are not there.
        !name.ends_with("gamma") && !name.ends_with("beta")
    }
}

fn config(name: &str) -> Result<Config> {
    // candle's default is bert-base-uncased.
    let base = Config::default();
    match name {
        "bert-base" => Ok(base),
        "mini" => Ok(Config {
            hidden_size: 256,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            intermediate_size: 1024,
            ..base
        }),
        folder => {
            let path = Path::new(folder).join("config.json");
            let text = std::fs::read_to_string(&path)
                .map_err(|error| candle_core::Error::msg(format!("{}: {error}", path.display())))?;
            serde_json::from_str(&text).map_err(candle_core::Error::wrap)
        }
    }
}

/// Peak resident memory of this process in GiB; Linux only.
fn peak_rss_gib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / f64::from(1 << 20))
}

fn run(arguments: &Arguments) -> Result<()> {
    let device = Device::Cpu;
    let config = config(&arguments.config)?;
    let model =
        BertModel::load(VarBuilder::from_backend(Box::new(Random), DType::F32, device.clone()), &config)?;
    let ids: Vec<u32> =
        (0..arguments.batch * arguments.seq).map(|i| (i * 7919 % config.vocab_size) as u32).collect();
    let ids = Tensor::from_vec(ids, (arguments.batch, arguments.seq), &device)?;
    let types = ids.zeros_like()?;
    let mask = ids.ones_like()?;

    let mut seconds = Vec::new();
    for step in 0..arguments.warmup + arguments.steps {
        let started = Instant::now();
        black_box(model.forward(&ids, &types, Some(&mask))?);
        if step >= arguments.warmup {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let (min, max) = (seconds[0], seconds[seconds.len() - 1]);
    let median = (seconds[(seconds.len() - 1) / 2] + seconds[seconds.len() / 2]) / 2.0;
    println!(
        "{}",
        serde_json::json!({
            "system": "candle 0.11.1",
            "config": Path::new(&arguments.config).file_name().map(|name| name.to_string_lossy()),
            "batch": arguments.batch,
            "seq": arguments.seq,
            "mode": "infer",
            "dtype": "f32",
            "threads": candle_core::utils::get_num_threads(),
            "median_s": median,
            "min_s": min,
            "max_s": max,
            "tokens_per_s": (arguments.batch * arguments.seq) as f64 / median,
            "peak_rss_gib": peak_rss_gib(),
        })
    );
    Ok(())
}

fn main() {
    let arguments = Arguments::parse();
    let threads = candle_core::utils::get_num_threads();
    if arguments.steps == 0 {
        eprintln!("--steps must be at least 1");
        std::process::exit(2);
    }
    if arguments.threads.is_some_and(|asked| asked != threads) {
        eprintln!(
            "candle uses {threads} threads: set RAYON_NUM_THREADS and CANDLE_NUM_THREADS for another number"
        );
        std::process::exit(2);
    }
    if let Err(error) = run(&arguments) {
        // The further lines are a backtrace, where one is asked for.
        eprintln!("{}", error.to_string().lines().next().unwrap_or_default());
        std::process::exit(1);
    }
}
