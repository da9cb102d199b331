//! `vitrine doctor`: what this machine has, what Vitrine chose, and whether it computes correctly here.

use crate::args::Doctor;
use crate::machine::{Machine, available_memory_bytes};
use crate::names::{EMBEDDED, card_field};
use crate::output::{self, Failure, Outcome, Style, line, paint};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Instant;
use vitrine_bert::{Bundle, WEIGHTS_FILE};
use vitrine_tensor::cpu::gemm;
use vitrine_tensor::cpu::isa::{self, Available, Isa};
use vitrine_tensor::cpu::parallel;
use vitrine_tensor::ops::linear::{Activation, linear};
use vitrine_tensor::{DType, Device, Error, Tensor, cuda, random};

/// Folders that dynamic linkers search on the systems that NVIDIA supports.
const LIBRARY_FOLDERS: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/local/cuda/lib64",
    "/usr/lib/wsl/lib",
    "/run/opengl-driver/lib",
];

#[derive(Serialize)]
struct Report {
    machine: Machine,
    embedded: Vec<EmbeddedModel>,
    memory_available_bytes: Option<u64>,
    isa_reason: String,
    cuda: Vec<Library>,
    cuda_device: Option<Gpu>,
    /// Why there is no CUDA device.
    cuda_reason: Option<String>,
    f32_peak_gflops: f64,
    bf16_peak_gflops: f64,
    copy_gb_per_second: f64,
    self_test: Vec<Check>,
    passed: bool,
}

/// A model that is in this program.
#[derive(Serialize)]
struct EmbeddedModel {
    name: &'static str,
    bytes: usize,
    weights_sha256: String,
    /// Of hidden tokens, in nats, as its card says.
    held_out_loss: Option<f64>,
    /// On IMDB's test reviews, as its card says.
    accuracy: Option<f64>,
}

impl EmbeddedModel {
    fn look(bundle: &'static Bundle) -> Self {
        let weights = bundle.file(WEIGHTS_FILE).unwrap_or_default();
        let number = |field| card_field(bundle, field)?.parse().ok();
        EmbeddedModel {
            name: bundle.name,
            bytes: bundle.files.iter().map(|(_, bytes)| bytes.len()).sum(),
            weights_sha256: Sha256::digest(weights).iter().map(|byte| format!("{byte:02x}")).collect(),
            held_out_loss: number("vitrine_held_out_loss"),
            accuracy: number("vitrine_accuracy"),
        }
    }

    fn line(&self) -> String {
        let figures = [("held-out loss", self.held_out_loss), ("accuracy", self.accuracy)];
        let figures: String =
            figures.iter().filter_map(|(name, value)| Some(format!(", {name} {}", (*value)?))).collect();
        format!("{}: {}{figures}, weights {}", self.name, output::bytes(self.bytes), self.weights_sha256)
    }
}

/// A shared library, and where it was found under one of its names.
#[derive(Serialize)]
struct Library {
    name: &'static str,
    path: Option<String>,
}

/// A CUDA device.
#[derive(Serialize)]
struct Gpu {
    name: String,
    compute_capability: String,
    multiprocessors: usize,
    memory_bytes: usize,
    memory_free_bytes: usize,
    driver_cuda: String,
    /// Whether cuBLASLt was found; without it products run on Vitrine's own kernels.
    cublaslt: bool,
}

/// Where a check computes.
#[derive(Clone, Copy)]
enum Backend {
    Cpu(Available),
    Cuda,
}

/// One instruction set (or device) and precision against the f64 reference.
#[derive(Serialize)]
struct Check {
    isa: String,
    dtype: String,
    /// Largest error of `gelu(x W^T + b)`, relative to the largest result.
    relative_error: f64,
    limit: f64,
    passed: bool,
}

/// Runs the command.
pub fn run(arguments: &Doctor) -> Outcome {
    let found = cuda::describe(0);
    let mut places: Vec<Backend> = Isa::available().into_iter().map(Backend::Cpu).collect();
    places.extend(found.is_ok().then_some(Backend::Cuda));
    let cases = places.into_iter().flat_map(|place| [(place, DType::F32), (place, DType::BF16)]);
    let self_test = cases.map(|(place, dtype)| check(place, dtype)).collect::<Outcome<Vec<_>>>()?;
    let (cuda_device, cuda_reason) = match found {
        Ok(found) => (Some(gpu(found)), None),
        Err(Error::CudaUnavailable { why, .. }) => (None, Some(why)),
        Err(error) => (None, Some(error.to_string())),
    };
    let forced = std::env::var("VITRINE_ISA").ok().filter(|value| !value.is_empty());
    let report = Report {
        machine: Machine::look(),
        embedded: EMBEDDED.iter().map(EmbeddedModel::look).collect(),
        memory_available_bytes: available_memory_bytes(),
        isa_reason: forced.map_or("the best this machine has".into(), |value| format!("VITRINE_ISA={value}")),
        cuda: [&["libcuda.so", "libcuda.so.1"][..], &cuda::CUBLASLT_NAMES].map(find_library).into(),
        cuda_device,
        cuda_reason,
        f32_peak_gflops: gemm::peak_gflops(parallel::threads()),
        bf16_peak_gflops: gemm::peak_gflops_bf16(parallel::threads()),
        copy_gb_per_second: copy_bandwidth(),
        passed: self_test.iter().all(|check| check.passed),
        self_test,
    };
    if arguments.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    if report.passed { Ok(()) } else { Err(Failure::Run("the self-test failed on this machine".into())) }
}

fn print(report: &Report) -> Outcome {
    let machine = &report.machine;
    let memory = machine.memory_bytes.map_or("unknown".into(), |total| {
        let available =
            report.memory_available_bytes.map_or("?".into(), |bytes| output::bytes(bytes as usize));
        format!("{} ({available} available)", output::bytes(total as usize))
    });
    line(format!("vitrine      {} on {}", machine.vitrine, machine.platform))?;
    line(format!(
        "processor    {}, {} cores, {} threads in use",
        machine.processor, machine.cores, machine.threads
    ))?;
    line(format!("memory       {memory}"))?;
    for model in &report.embedded {
        line(format!("model        {}", model.line()))?;
    }
    line(format!(
        "instructions {} of {}: {}",
        machine.isa,
        machine.isas_available.join(", "),
        report.isa_reason
    ))?;
    line(format!(
        "peaks        {:.0} GFLOP/s in f32, {:.0} in bf16, {:.1} GB/s copying",
        report.f32_peak_gflops, report.bf16_peak_gflops, report.copy_gb_per_second
    ))?;
    for library in &report.cuda {
        let found = library.path.as_deref().unwrap_or("not found");
        line(format!("cuda         {}: {found}", library.name))?;
    }
    if let Some(gpu) = &report.cuda_device {
        line(format!(
            "device       cuda:0: {}, compute capability {}, {} multiprocessors, {} ({} free), driver for CUDA {} (at least 12.4, which is driver {})",
            gpu.name,
            gpu.compute_capability,
            gpu.multiprocessors,
            output::bytes(gpu.memory_bytes),
            output::bytes(gpu.memory_free_bytes),
            gpu.driver_cuda,
            cuda::DRIVER_FLOOR
        ))?;
        let products = if gpu.cublaslt {
            "by cuBLASLt (VITRINE_GEMM=own: by Vitrine's kernels)"
        } else if cuda::own_products()? {
            "by Vitrine's kernels, as VITRINE_GEMM=own asks"
        } else {
            "by Vitrine's kernels; with NVIDIA's libcublasLt.so.12 or .13 they are faster (pip install nvidia-cublas-cu12, and its folder in LD_LIBRARY_PATH)"
        };
        line(format!("products     {products}"))?;
    } else if let Some(why) = &report.cuda_reason {
        line(format!("device       cuda: none: {why}"))?;
    }
    for check in &report.self_test {
        let (style, verdict) = if check.passed { (Style::Good, "ok") } else { (Style::Error, "FAILED") };
        let verdict = paint(&std::io::stdout(), style, verdict);
        let error = format!("relative error {:.1e}, limit {:.1e}", check.relative_error, check.limit);
        line(format!("self-test    {:<12} {:<5} {verdict}  ({error})", check.isa, check.dtype))?;
    }
    Ok(())
}

fn gpu(found: cuda::Description) -> Gpu {
    let version = |(major, minor): (i32, i32)| format!("{major}.{minor}");
    Gpu {
        name: found.name,
        compute_capability: version(found.capability),
        multiprocessors: found.multiprocessors,
        memory_bytes: found.total,
        memory_free_bytes: found.free,
        driver_cuda: version(found.driver),
        cublaslt: found.cublaslt,
    }
}

/// Looks for a library where the dynamic linker does, by each name in turn.
fn find_library(names: &[&'static str]) -> Library {
    let variable = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = || variable.split(':').filter(|folder| !folder.is_empty()).chain(LIBRARY_FOLDERS);
    let mut paths = names.iter().flat_map(|name| folders().map(move |folder| Path::new(folder).join(name)));
    Library { name: names[0], path: paths.find(|path| path.exists()).map(|path| path.display().to_string()) }
}

/// A fused linear layer of odd sizes on one instruction set or device, against the scalar f64 reference of the same numbers.
fn check(place: Backend, dtype: DType) -> Outcome<Check> {
    const M: usize = 37;
    // Rows of 208 bytes in bfloat16: a multiple of 16, as tensor cores want; all three sizes have tails.
    const K: usize = 104;
    const N: usize = 53;
    let tensor =
        |n: usize, dims: &[usize], stream| Tensor::from_slice(&random::normal(n, 1.0, 7, stream), dims);
    let (x, w, b) = (tensor(M * K, &[M, K], 0)?, tensor(N * K, &[N, K], 1)?, tensor(N, &[N], 2)?);
    let run = |compute: DType, device: Device| -> Result<Vec<f64>, Error> {
        let operand = |tensor: &Tensor| tensor.to_dtype(dtype)?.to_dtype(compute)?.to_device(device);
        let y =
            linear(&operand(&x)?, &operand(&w)?, Some((&operand(&b)?).into()), Activation::GeluErf, false)?.y;
        y.to_device(Device::Cpu)?.to_dtype(DType::F64)?.to_vec::<f64>()
    };
    let expected = run(DType::F64, Device::Cpu)?;
    let got = match place {
        Backend::Cpu(isa) => isa::with_isa(isa, || run(dtype, Device::Cpu))?,
        Backend::Cuda => run(dtype, Device::Cuda(0))?,
    };
    let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    // `max` would let a NaN pass.
    let error = expected.iter().zip(&got).map(|(a, b)| (a - b).abs());
    let relative_error =
        error.fold(0.0, |largest, e| if e > largest || e.is_nan() { e } else { largest }) / largest;
    let limit = match dtype {
        // The sum before GELU and the result after it are rounded to 8 bits.
        DType::BF16 => 3.0 * 2f64.powi(-9),
        // Rounding of K sums, each within half a unit in the last place of f32.
        _ => K as f64 * f64::from(f32::EPSILON),
    };
    Ok(Check {
        isa: match place {
            Backend::Cpu(isa) => isa.to_string(),
            Backend::Cuda => Device::Cuda(0).to_string(),
        },
        dtype: dtype.to_string(),
        relative_error,
        limit,
        passed: relative_error <= limit,
    })
}

/// Bytes read and written a second by an out-of-place copy of 256 MiB on all threads; the best of five.
fn copy_bandwidth() -> f64 {
    const BYTES: usize = 256 << 20;
    const PIECE: usize = 1 << 20;
    let source = vec![1u8; BYTES];
    let mut target = vec![0u8; BYTES];
    let best = (0..5).map(|_| {
        let started = Instant::now();
        parallel::for_each_chunk_mut(&mut target, PIECE, |index, piece| {
            piece.copy_from_slice(&source[index * PIECE..][..piece.len()]);
        });
        std::hint::black_box(&target);
        started.elapsed().as_secs_f64()
    });
    2.0 * BYTES as f64 / best.fold(f64::INFINITY, f64::min) / 1e9
}
