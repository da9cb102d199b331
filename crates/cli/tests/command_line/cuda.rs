//! Commands on the emulated CUDA device, which the binary takes for a real one.

use crate::common::{path, refused, text, tiny};
use std::path::PathBuf;
use std::process::{Command, Output};
use tempfile::TempDir;

/// The emulator under the driver's name, in a folder that the dynamic linker is told of.
struct Emulated(TempDir);

impl Emulated {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        // Cargo puts the library beside this test.
        let test = std::env::current_exe().expect("a process has an executable");
        let library = test.parent().expect("a file has a folder").join("libvitrine_emulator.so");
        std::os::unix::fs::symlink(library, folder.path().join("libcuda.so")).expect("a link is made");
        Emulated(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn output(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vitrine"))
            .args(arguments)
            .env("LD_LIBRARY_PATH", self.0.path())
            .env("VITRINE_GEMM", "own")
            .envs(variables.iter().copied())
            .output()
            .expect("the binary was built with the tests")
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments, &[]);
        assert!(output.status.success(), "{arguments:?}:\n{}", text(&output.stderr));
        text(&output.stdout)
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.run(arguments)).expect("JSON")
    }
}

/// Options of the shortest training run.
const SHORT: [&str; 8] =
    ["--train-samples", "16", "--test-samples", "4", "--batch-size", "8", "--epochs", "1"];

#[test]
fn everything_runs_on_an_emulated_cuda_device() {
    let emulated = Emulated::new();
    let doctor = emulated.json(&["doctor", "--json"]);
    assert_eq!(doctor["cuda_device"]["name"], "Vitrine emulator");
    assert_eq!(doctor["passed"], true);
    assert!(doctor["cuda"][0]["path"].as_str().is_some_and(|path| path.ends_with("libcuda.so")), "{doctor}");
    let checks = doctor["self_test"].as_array().expect("an array");
    assert_eq!(checks.iter().filter(|check| check["isa"] == "cuda:0").count(), 2);
    let words = emulated.run(&["doctor"]);
    for word in ["driver for CUDA 12.4", "550", "compute capability 8.0", "16.0 GiB", "VITRINE_GEMM=own"] {
        assert!(words.contains(word), "expected {word:?} in\n{words}");
    }

    let model = emulated.path("model");
    let train = |device: &str, dtype: &str| -> serde_json::Value {
        let compute = [
            "--model",
            tiny(),
            "--device",
            device,
            "--dtype",
            dtype,
            "--overwrite",
            "--json",
            "--output",
            path(&model),
        ];
        emulated.json(&[&["train"], &compute[..], &SHORT[..]].concat())
    };
    // `auto` takes the device, and bfloat16 on it.
    let report = train("auto", "auto");
    assert_eq!(
        (&report["resolved"]["device"], &report["resolved"]["dtype"]),
        (&"cuda:0".into(), &"bf16".into())
    );
    let scores = |device: &str| -> f64 {
        let compute = ["--device", device, "--dtype", "f32", "--json"];
        let line =
            emulated.json(&[&["predict", "--model", path(&model)], &compute[..], &["a fine film"]].concat());
        line["logits"][0].as_f64().expect("a number")
    };
    let (cpu, cuda) = (scores("cpu"), scores("cuda:0"));
    assert!((cpu - cuda).abs() <= 1e-4, "logit {cuda} on CUDA, {cpu} on the CPU");

    // In f32 the two devices train alike.
    let [cpu, cuda] = ["cpu", "cuda"].map(|device| train(device, "f32")["train"]["final_loss"].clone());
    let (cpu, cuda) = (cpu.as_f64().expect("a loss"), cuda.as_f64().expect("a loss"));
    assert!((cpu - cuda).abs() <= 1e-4, "loss {cuda} on CUDA, {cpu} on the CPU");
}

#[test]
fn a_cuda_device_that_cannot_be_used_is_one_line() {
    let emulated = Emulated::new();
    let unusable = [
        ("cuda:9", ("VITRINE_EMULATOR_DEVICES", "1"), ["cuda:9: no such CUDA device", "cuda:0"]),
        ("cuda", ("VITRINE_EMULATOR_DEVICES", "0"), ["the NVIDIA driver finds no device", "cuda:0"]),
        (
            "cuda",
            ("VITRINE_EMULATOR_VERSION", "12020"),
            ["CUDA 12.2; the kernels need 12.4", "install driver 550"],
        ),
        ("cuda", ("VITRINE_EMULATOR_CAPABILITY", "75"), ["compute capability is 7.5", "8.0 (Ampere)"]),
    ];
    for (device, variable, words) in unusable {
        let arguments = ["train", "--model", tiny(), "--device", device, "--epochs", "1"];
        let output = emulated.output(&arguments, &[variable]);
        refused(1, &arguments, &[&words[..], &["--device cpu"]].concat(), &output);
        if device == "cuda" {
            let doctor = emulated.output(&["doctor"], &[variable]);
            assert!(doctor.status.success() && text(&doctor.stdout).contains(words[0]), "{doctor:?}");
        }
    }
}

fn strings(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// A device that is too small: what was asked, what is free, and what fits; and that does fit.
#[test]
fn a_full_cuda_device_says_what_fits() {
    let emulated = Emulated::new();
    let model = emulated.path("model");
    let output = |arguments: &[&str], mib: usize| {
        let memory = (mib << 20).to_string();
        // What kernels do is not the question.
        let variables = [("VITRINE_EMULATOR_MEMORY", memory.as_str()), ("VITRINE_EMULATOR_CHECKS", "0")];
        emulated.output(arguments, &variables)
    };
    let full = |arguments: &[&str], mib: usize, words: &[&str]| -> String {
        let output = output(arguments, mib);
        let words = [&["cuda:0: out of memory", "bytes asked for", "free", "in use here"], words].concat();
        refused(1, arguments, &words, &output);
        text(&output.stderr)
    };
    let train = |rows: &str, more: &[&str]| -> Vec<String> {
        let always = ["train", "--device", "cuda", "--test-samples", "4", "--epochs", "1", "--overwrite"];
        let start = ["--model", tiny(), "--output", path(&model), "--train-samples", rows];
        let arguments = [&always[..], &start, more].concat();
        arguments.into_iter().map(str::to_owned).collect()
    };
    let stderr = full(&strings(&train("128", &["--batch-size", "128"])), 14, &["should fit"]);
    let advice = stderr.trim_end().rsplit("; ").next().expect("a last part");
    let advised: Vec<&str> = advice.trim_end_matches(" should fit").split(' ').collect();
    assert_eq!(advised[0], "--micro-batch-size", "{advice}");
    let ran = output(&strings(&train("128", &[&["--batch-size", "128"], &advised[..]].concat())), 14);
    assert!(ran.status.success(), "{advice}:\n{}", text(&ran.stderr));

    full(&strings(&train("8", &["--batch-size", "8"])), 2, &["no batch", "--device cpu"]);
    full(&["predict", "--device", "cuda", "--model", path(&model), "fine"], 2, &["--device cpu"]);
    let data = emulated.path("reviews.csv");
    let rows = format!("text,label\n{}{}", "good film,1\n".repeat(300), "bad film,0\n".repeat(300));
    std::fs::write(&data, rows).expect("a file is written");
    let eval =
        ["eval", "--device", "cuda", "--model", path(&model), "--data", path(&data), "--batch-size", "600"];
    full(&eval, 7, &["--batch-size", "should fit"]);
}

/// What nobody can time on an emulator can be run on it.
#[test]
fn benches_run_on_an_emulated_cuda_device() {
    let emulated = Emulated::new();
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = emulated.output(arguments, &[("VITRINE_EMULATOR_CHECKS", "0")]);
        assert!(output.status.success(), "{arguments:?}:\n{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let kernels =
        ["bench", "kernels", "--device", "cuda", "--size", "1", "--repeats", "1", "--json", "--only"];
    for (only, count) in [("norm", 4), ("adamw", 1)] {
        let report = json(&[&kernels[..], &[only]].concat());
        let rows = report["kernels"].as_array().expect("an array");
        assert_eq!(rows.len(), count);
        assert!(
            rows.iter().all(|row| row["gb_per_second"].as_f64().is_some_and(|rate| rate > 0.0)),
            "{report}"
        );
        assert!(
            ["copy_gb_per_second", "product_tflops"].iter().all(|peak| report[peak].is_number()),
            "{report}"
        );
    }
    let config = emulated.path("tiny.json");
    let sizes = r#"{"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
        "vocab_size": 100, "max_position_embeddings": 16, "model_type": "bert"}"#;
    std::fs::write(&config, sizes).expect("a file is written");
    let shape = ["--config", path(&config), "--batch", "2", "--seq", "8", "--steps", "2", "--warmup", "1"];
    for mode in ["train", "infer"] {
        let step = ["bench", "step", "--device", "cuda", "--json", "--mode", mode];
        let report = json(&[&step[..], &shape[..]].concat());
        assert_eq!((&report["steps"], &report["resolved"]["device"]), (&2.into(), &"cuda:0".into()));
        assert!(report["device_peak_tflops"].as_f64().is_some_and(|peak| peak > 0.0), "{report}");
    }
}
