//! The command line as its users meet it: runs that succeed, and misuse that gets one clear line and the right exit code.

mod baseline;
mod checkpoints;
mod claims;
mod classes;
mod common;
mod config;
#[cfg(target_os = "linux")]
mod cuda;
mod data;
mod distillation;
mod embedded;
mod explain;
mod explore;
mod families;
mod hub;
mod outputs;
mod predict;
mod pretrain;
mod reports;
mod resume;
mod sweep;
mod tables;
mod taps;
mod techniques;
#[cfg(unix)]
mod terminal;
mod tokenizers;
mod trace;

use common::{model, path, refuse, refused, succeed, text, tiny, train, vitrine};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

#[test]
fn the_same_seed_gives_the_same_weights_with_one_thread_and_with_two() {
    let folder = TempDir::new().expect("a temporary folder");
    let weights = |name: &str, more: &[&str]| {
        train(&folder.path().join(name), more);
        std::fs::read(folder.path().join(name).join("model.safetensors")).expect("the model is saved")
    };
    for dtype in ["f32", "bf16"] {
        let weights = |name: &str, more: &[&str]| {
            weights(&format!("{name}-{dtype}"), &[&["--dtype", dtype, "--threads"], more].concat())
        };
        let one = weights("one", &["1"]);
        assert!(one == weights("two", &["2"]), "{dtype} weights depend on the number of threads");
        assert!(one == weights("again", &["2"]), "two {dtype} runs differ");
        assert!(
            one == weights("checkpointed", &["2", "--checkpoint-layers"]),
            "{dtype}: checkpointing differs"
        );
        assert!(one != weights("other", &["2", "--seed", "7"]), "the seed does nothing");
        assert!(one != weights("grouped", &["2", "--group-by-length"]), "grouping does nothing");
    }
}

#[test]
fn a_run_leaves_the_model_its_report_and_its_metrics() {
    let folder = TempDir::new().expect("a temporary folder");
    let output = folder.path().join("out");
    let report = train(&output, &[]);
    for file in
        ["config.json", "model.safetensors", "run.json", "metrics.jsonl", "tokenizer.json", "vocab.txt"]
    {
        assert!(output.join(file).is_file(), "{file} is missing");
    }
    assert_eq!(report["train"]["steps"], 4);
    assert!(["f32", "bf16"].map(Into::into).contains(&report["resolved"]["dtype"]));
    assert!(report["eval"]["accuracy"].is_number());
    let metrics = std::fs::read_to_string(output.join("metrics.jsonl")).expect("metrics are text");
    let steps: Vec<serde_json::Value> =
        metrics.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    assert_eq!(steps.len(), 4);
    for key in ["step", "epoch", "loss", "lr", "grad_norm", "tokens", "seconds"] {
        assert!(steps[3][key].is_number(), "{key} is missing from {}", steps[3]);
    }

    // A second run into the same folder needs consent.
    refuse(2, &["train", "--output", path(&output), "--epochs", "1"], &["not empty", "--overwrite"]);
    train(&output, &["--overwrite"]);
}

#[test]
fn the_schedule_is_an_option() {
    let folder = tempfile::tempdir().unwrap();
    let last_lr = |schedule: &[&str]| {
        let output = folder.path().join(schedule.last().unwrap_or(&"default"));
        let report = train(&output, &[&["--lr", "0.001", "--warmup-steps", "2"], schedule].concat());
        let name = report["settings"]["schedule"].as_str().unwrap().to_owned();
        let metrics = std::fs::read_to_string(output.join("metrics.jsonl")).unwrap();
        let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
        let steps = metrics.lines().count() as f64;
        (name, last["lr"].as_f64().unwrap(), steps)
    };
    let (name, lr, steps) = last_lr(&[]);
    assert!(name == "linear" && (lr - 0.001 / (steps - 2.0)).abs() < 1e-9, "{name} {lr}");
    let (name, lr, _) = last_lr(&["--schedule", "constant"]);
    assert!(name == "constant" && lr == 0.001, "{name} {lr}");
    let (name, lr, steps) = last_lr(&["--schedule", "cosine"]);
    let half_cosine = 0.0005 * (1.0 + (std::f64::consts::PI * (steps - 3.0) / (steps - 2.0)).cos());
    assert!(name == "cosine" && (lr - half_cosine).abs() < 1e-9, "{name} {lr}");
    refuse(
        2,
        &["train", "--schedule", "square"],
        &["--schedule", "linear, cosine, constant, polynomial, wsd"],
    );
}

#[test]
fn micro_batches_change_memory_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let losses = |name: &str, more: &[&str]| -> Vec<f64> {
        let output = folder.path().join(name);
        let report = train(&output, &[&["--dtype", "f32"], more].concat());
        assert_eq!(report["settings"]["batch_size"], 16);
        let metrics = std::fs::read_to_string(output.join("metrics.jsonl")).unwrap();
        let lines = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["loss"].as_f64().unwrap()).collect()
    };
    let (whole, micro) = (losses("whole", &[]), losses("micro", &["--micro-batch-size", "4"]));
    assert_eq!(whole.len(), micro.len());
    assert!(whole.iter().zip(&micro).all(|(a, b)| (a - b).abs() < 1e-4), "{whole:?} {micro:?}");
    refuse(2, &["train", "--micro-batch-size", "0"], &["--micro-batch-size"]);
}

#[test]
fn a_saved_model_predicts_evaluates_inspects_and_traces() {
    let (folder, model) = model();
    let model = path(&model);

    let lines = succeed(&["predict", "--model", model, "--json", "a wonderful film", "a dull film"]);
    let objects: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    assert_eq!(objects.len(), 2);
    assert!(objects[0]["score"].as_f64().is_some_and(|score| (0.5..=1.0).contains(&score)));
    assert_eq!(objects[0]["logits"].as_array().map(Vec::len), Some(2));
    assert_eq!(objects[0]["truncated"], false);

    let texts = folder.path().join("texts.jsonl");
    std::fs::write(&texts, format!("{{\"text\": \"fine\"}}\n{{\"text\": \"{}\"}}\n", "long ".repeat(900)))
        .expect("a file is written");
    let one = succeed(&["predict", "--model", model, "a \u{1b}[31mred\nfilm"]);
    assert!(one.lines().count() == 1 && !one.contains('\u{1b}'), "a text is a line, and no command: {one:?}");
    let lines = succeed(&["predict", "--model", model, "--file", path(&texts), "--json"]);
    assert!(lines.lines().nth(1).is_some_and(|line| line.contains("\"truncated\":true")), "{lines}");

    let data = folder.path().join("reviews.csv");
    std::fs::write(&data, "text,label\n\"good, really\",1\nbad,0\n").expect("a file is written");
    let metrics: serde_json::Value =
        serde_json::from_str(&succeed(&["eval", "--model", model, "--data", path(&data), "--json"]))
            .expect("JSON");
    assert_eq!(metrics["examples"], 2);

    assert!(succeed(&["inspect", "--model", model]).contains("bert.embeddings.word_embeddings.weight"));
    assert!(succeed(&["trace", "--model", model, "not bad"]).contains("attention"));
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&succeed(arguments)).expect("one JSON object and nothing else")
    };
    let inspected = json(&["inspect", "--model", model, "--json", "--tokens", "10"]);
    assert_eq!(inspected["tokens"], 10);
    assert!(inspected["parts"].as_array().is_some_and(|parts| parts.len() > 30));
    let traced = json(&["trace", "--model", model, "--json", "not bad"]);
    assert!(
        traced["ops"].as_array().is_some_and(|ops| ops.iter().any(|op| op["op"] == "attention")),
        "{traced}"
    );
}

#[test]
fn a_model_from_init_can_be_trained() {
    let folder = TempDir::new().expect("a temporary folder");
    let config = folder.path().join("tiny.json");
    let sizes = r#"{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
        "vocab_size": 30522, "max_position_embeddings": 64, "model_type": "bert"}"#;
    std::fs::write(&config, sizes).expect("a file is written");
    let model = folder.path().join("model");
    succeed(&["init", "--config", path(&config), "--output", path(&model)]);
    refuse(2, &["init", "--config", path(&config), "--output", path(&model)], &["not empty", "--overwrite"]);
    refuse(2, &["init", "--config", "bert-huge", "--output", "x"], &["bert-huge"]);
    let data = folder.path().join("reviews.csv");
    std::fs::write(&data, "text,label\ngood,1\nbad,0\nfine,1\n").expect("a file is written");
    let output = folder.path().join("out");
    let arguments = ["train", "--model", path(&model), "--data", path(&data), "--output", path(&output)];
    succeed(&arguments);
    succeed(&["predict", "--model", path(&output), "good"]);
}

#[test]
fn misuse_is_a_usage_error() {
    let (_folder, model) = model();
    let model = path(&model);
    refuse(2, &["train", "--max-length", "2"], &["--max-length 2"]);
    refuse(2, &["train", "--model", tiny(), "--max-length", "100000"], &["--max-length 100000", "positions"]);
    refuse(2, &["train", "--device", "gpu"], &["--device gpu", "cuda"]);
    for device in ["cuda:", "cuda:x", "cuda:-1", "CUDA"] {
        refuse(2, &["train", "--device", device], &["--device", device, "cuda:N"]);
    }
    refuse(1, &["train", "--device", "cuda"], &["cuda:0", "--device cpu"]);
    refuse(1, &["train", "--device", "cuda:9"], &["cuda:9", "--device cpu"]);
    for bench in ["step", "kernels"] {
        refuse(1, &["bench", bench, "--device", "cuda"], &["cuda:0", "--device cpu"]);
    }
    refuse(2, &["bench", "kernels", "--only", "gelo"], &["--only gelo", "gelu", "adamw"]);
    refuse(2, &["train", "--epochs", "0"], &["--epochs"]);
    refuse(2, &["train", "--lr", "nan"], &["--lr"]);
    refuse(2, &["train", "--lr", "-1"], &["--lr", "above 0"]);
    refuse(2, &["train", "--train-samples", "0"], &["--train-samples"]);
    refuse(2, &["train", "--output", "Cargo.toml"], &["--output Cargo.toml", "file"]);
    refuse(2, &["train", "--warmup-steps", "5", "--warmup-ratio", "0.1"], &["--warmup"]);
    refuse(2, &["train", "--epoch", "1"], &["--epoch", "--epochs"]);
    refuse(2, &["predict", "--model", model], &["TEXT"]);
    refuse(2, &["bench", "step", "--config", "bert-hugee"], &["bert-hugee", "bert-base"]);
    // Numbers that would overflow, never end, or have the system end the process.
    refuse(2, &["train", "--epochs", "18446744073709551615"], &["--epochs", "1,000,000,000"]);
    refuse(2, &["train", "--threads", "0"], &["--threads"]);
    refuse(2, &["train", "--warmup-ratio", "1.5"], &["--warmup-ratio"]);
    refuse(2, &["predict", "--model", model, "--top-k", "0", "a"], &["--top-k"]);
    refuse(2, &["inspect", "--model", model, "--tokens", "129"], &["--tokens 129", "128"]);
    let step = ["bench", "step", "--config", "mini"];
    refuse(2, &[&step[..], &["--batch", "1000000"]].concat(), &["--batch 1000000", "tokens"]);
    refuse(2, &[&step[..], &["--batch", "30000"]].concat(), &["--batch 30000", "memory"]);
    refuse(2, &["bench", "kernels", "--size", "1000000000"], &["--size 1000000000", "memory"]);
}

#[test]
fn bad_input_is_one_line_that_says_where() {
    let (folder, model) = model();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a file is written");
        path.to_str().expect("temporary folders have UTF-8 names").to_owned()
    };
    let eval =
        |data: &str, words: &[&str]| refuse(1, &["eval", "--model", path(&model), "--data", data], words);
    eval("no/such/file.csv", &["no/such/file.csv"]);
    eval(&file("fields.csv", "text,label\ngood,1\nbad,0,what\n"), &["fields.csv", "3"]);
    eval(&file("column.csv", "text,stars\ngood,1\n"), &["column.csv", "label", "stars"]);
    eval(&file("value.csv", "text,label\ngood,1\nbad,perhaps\n"), &["value.csv", "perhaps"]);
    eval(&file("empty.csv", "text,label\n"), &["empty.csv"]);
    eval(&file("broken.jsonl", "{\"text\": \"a\", \"label\": 1}\n{\"text\": \n"), &["broken.jsonl", "2"]);
    let same = file("same.csv", "text,label\na,1\nb,1\n");
    refuse(
        1,
        &["train", "--model", path(&model), "--data", &same, "--output", "x"],
        &["same.csv", "same label"],
    );
    let broken = file("texts.jsonl", "{\"text\": \n{\"text\": \"fine\"}\n");
    refuse(1, &["predict", "--model", path(&model), "--file", &broken], &["texts.jsonl", "JSON"]);
    let other = file("other.jsonl", "{\"text\": \"fine\"}\n{\"review\": \"fine\"}\n");
    refuse(1, &["predict", "--model", path(&model), "--file", &other], &["other.jsonl:2", "`text`"]);
    eval(&file("not.parquet", "PAR1 this is not a parquet file"), &["not.parquet"]);

    let broken = |name: &str, change: &dyn Fn(&Path)| {
        let copy = folder.path().join(name);
        std::fs::create_dir(&copy).expect("a folder is made");
        for entry in std::fs::read_dir(&model).expect("the model is a folder") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), copy.join(entry.file_name())).expect("a file is copied");
        }
        change(&copy);
        copy
    };
    let predict =
        |model: &Path, words: &[&str]| refuse(1, &["predict", "--model", path(model), "a film"], words);
    predict(Path::new("no/such/model"), &["no/such/model"]);
    let weights = |folder: &Path| folder.join("model.safetensors");
    let cut = broken("cut", &|folder| {
        let bytes = std::fs::read(weights(folder)).expect("weights");
        std::fs::write(weights(folder), &bytes[..bytes.len() / 2]).expect("weights are cut");
    });
    predict(&cut, &["model.safetensors"]);
    let lying = broken("lying", &|folder| {
        let mut bytes = std::fs::read(weights(folder)).expect("weights");
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        std::fs::write(weights(folder), bytes).expect("weights lie");
    });
    predict(&lying, &["model.safetensors"]);
    let nan = broken("nan", &|folder| {
        let mut bytes = std::fs::read(weights(folder)).expect("weights");
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        std::fs::write(weights(folder), bytes).expect("weights have a NaN");
    });
    predict(&nan, &["model.safetensors", "NaN"]);
    let config = broken("config", &|folder| {
        let file = folder.join("config.json");
        let text = std::fs::read_to_string(&file).expect("a config");
        let changed = text.replace("\"vocab_size\": ", "\"vocab_size\": 1");
        assert_ne!(text, changed);
        std::fs::write(file, changed).expect("a config is written");
    });
    predict(&config, &["word_embeddings"]);
    let relative = broken("relative", &|folder| {
        let file = folder.join("config.json");
        let text = std::fs::read_to_string(&file).expect("a config");
        let changed = text.replacen('{', "{\"position_embedding_type\": \"relative_key\",", 1);
        std::fs::write(file, changed).expect("a config is written");
    });
    predict(&relative, &["position_embedding_type", "relative_key"]);
    let shorter = broken("shorter", &|folder| {
        let file = folder.join("config.json");
        let text = std::fs::read_to_string(&file).expect("a config");
        let changed = text.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
        assert_ne!(text, changed);
        std::fs::write(file, changed).expect("a config is written");
    });
    // Half of the model would do, but not in silence.
    let output = vitrine(&["predict", "--model", path(&shorter), "a film"]);
    assert!(output.status.success() && text(&output.stderr).contains("encoder.layer.1"), "{output:?}");
    let encoder = folder.path().join("encoder");
    let config = file("tiny.json", r#"{"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}"#);
    succeed(&["init", "--config", &config, "--output", path(&encoder)]);
    predict(&encoder, &["encoder", "no classifier", "vitrine train"]);
    let missing = broken("missing", &|folder| {
        std::fs::remove_file(weights(folder)).expect("weights are removed");
    });
    predict(&missing, &["model.safetensors"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let (folder, model) = model();
    let texts = folder.path().join("texts.txt");
    std::fs::write(&texts, "a dull film\n".repeat(2000)).expect("a file is written");
    let mut run = Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .args(["predict", "--model", path(&model), "--file", path(&texts)])
        .env("CUDA_VISIBLE_DEVICES", "")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built with the tests");
    let mut first = String::new();
    BufReader::new(run.stdout.take().expect("it is piped")).read_line(&mut first).expect("a line");
    assert!(first.contains("a dull film"));
    // The reader is closed by now.
    let ended = run.wait_with_output().expect("the run ends");
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    assert!(!text(&ended.stderr).contains("panicked"), "{}", text(&ended.stderr));
}

#[test]
fn the_doctor_finds_this_machine_healthy() {
    let report: serde_json::Value = serde_json::from_str(&succeed(&["doctor", "--json"])).expect("JSON");
    assert_eq!(report["passed"], true);
    let forced =
        Command::new(env!("CARGO_BIN_EXE_vitrine")).args(["doctor"]).env("VITRINE_ISA", "sse9").output();
    let forced = forced.expect("the binary was built with the tests");
    assert_eq!(forced.status.code(), Some(2));
    assert!(text(&forced.stderr).contains("sse9"));
    let forced =
        Command::new(env!("CARGO_BIN_EXE_vitrine")).args(["doctor"]).env("VITRINE_GEMM", "owm").output();
    refused(
        2,
        &["doctor"],
        &["VITRINE_GEMM", "`own`", "owm"],
        &forced.expect("the binary was built with the tests"),
    );
}
