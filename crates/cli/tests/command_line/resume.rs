//! Runs that are killed, interrupted, damaged, and go on.

use crate::common::{path, refused, snapshot, succeed, text};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A small model, reviews of several lengths to train on, and the options of a run over them.
struct Run {
    folder: TempDir,
    options: Vec<String>,
}

impl Run {
    fn new(options: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let config = r#"{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
            "vocab_size": 30522, "max_position_embeddings": 32, "model_type": "bert"}"#;
        let at = |name: &str| folder.path().join(name);
        fs::write(at("tiny.json"), config).expect("a file is written");
        succeed(&["init", "--config", path(&at("tiny.json")), "--output", path(&at("model"))]);
        let more = |n: usize| "really ".repeat(n % 7);
        let rows: String = (0..40)
            .map(|n| format!("a {}good film {n},1\na {}bad film {n},0\n", more(n), more(n + 3)))
            .collect();
        fs::write(at("reviews.csv"), format!("text,label\n{rows}")).expect("a file is written");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Run { options, folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The run into `output`, not yet started.
    fn command(&self, output: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vitrine"));
        command.args(["train", "--model", path(&self.at("model")), "--data", path(&self.at("reviews.csv"))]);
        command.args(["--batch-size", "8", "--output", path(output)]);
        command.args(&self.options).args(more);
        command.env("CUDA_VISIBLE_DEVICES", "").stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Runs to the end; what it says.
    fn finish(&self, output: &Path, more: &[&str]) -> String {
        let ended = self.command(output, more).output().expect("the binary was built with the tests");
        assert!(ended.status.success(), "{}", text(&ended.stderr));
        text(&ended.stderr)
    }

    fn start(&self, output: &Path, more: &[&str]) -> Child {
        self.command(output, more).spawn().expect("the binary was built with the tests")
    }

    fn refuse(&self, code: i32, output: &Path, more: &[&str], words: &[&str]) {
        refused(code, more, words, &self.command(output, more).output().expect("it runs"));
    }
}

fn json(file: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(file).expect("a file")).expect("JSON")
}

/// Without what is a matter of time.
fn timeless(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.retain(|key, _| !key.ends_with("seconds") && key != "tokens_per_second");
        object.values_mut().for_each(|inner| *inner = timeless(inner.take()));
    }
    value
}

/// What two equal runs have in common: the weights, the metrics and the summary.
fn result(output: &Path) -> (Vec<u8>, Vec<Value>, Value, Value) {
    let metrics = fs::read_to_string(output.join("metrics.jsonl")).expect("metrics");
    let lines = metrics.lines().map(|line| timeless(serde_json::from_str(line).expect("JSON"))).collect();
    let report = json(&output.join("run.json"));
    assert_eq!(report["state"], "finished");
    let weights = fs::read(output.join("model.safetensors")).expect("weights");
    (weights, lines, timeless(report["train"].clone()), timeless(report["eval"].clone()))
}

fn is_equal(output: &Path, reference: &Path) {
    let (weights, lines, train, eval) = result(output);
    let (expected_weights, expected_lines, expected_train, expected_eval) = result(reference);
    assert!(weights == expected_weights, "the weights differ");
    let differs = lines.iter().zip(&expected_lines).find(|(a, b)| a != b);
    assert!(differs.is_none() && lines.len() == expected_lines.len(), "metrics differ: {differs:?}");
    assert_eq!(train, expected_train);
    assert_eq!(eval, expected_eval);
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: not in a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn lines(output: &Path) -> usize {
    fs::read_to_string(output.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

/// Kills runs at moments spread over their whole time, start-up included, until there were `kills`; every run that came to its
/// end has the reference's result.
fn killed(kills: usize, options: &[&str]) {
    let run = Run::new(options);
    let reference = run.at("reference");
    let begun = Instant::now();
    run.finish(&reference, &["--threads", "1"]);
    let whole_run = begun.elapsed();
    let (mut killed, mut ended, mut resumed) = (0, 0, 0);
    let mut output = run.at("out-0");
    for n in 0_u32.. {
        let threads = if n % 3 == 0 { "2" } else { "1" };
        let mut child = run.start(&output, &["--resume", "--threads", threads]);
        // Weyl's sequence is spread evenly, and any other sequence of the same length is as good.
        let moment = whole_run.mul_f64((f64::from(n) * 0.618_033_988_749_895).fract() * 0.7);
        let begun = Instant::now();
        while child.try_wait().expect("a status").is_none() && begun.elapsed() < moment {
            std::thread::sleep(Duration::from_micros(200));
        }
        if killed < kills {
            child.kill().expect("it is killed, or has ended");
        }
        let end = child.wait_with_output().expect("the run ends");
        resumed += usize::from(text(&end.stderr).contains("going on after step"));
        if end.status.code().is_none() {
            killed += 1;
            if output.join("run.json").exists() && !output.join("config.json").exists() {
                let predict = ["predict", "--model", path(&output), "a film"];
                let predicted = crate::common::vitrine(&predict);
                // Killed between the renames that put the model into its place: whoever reads it finishes them.
                if predicted.status.success() {
                    assert!(result(&output).0 == result(&reference).0, "the weights differ");
                } else {
                    refused(1, &predict, &["no model yet"], &predicted);
                }
            }
            continue;
        }
        assert!(end.status.success(), "{}", text(&end.stderr));
        // It may have been killed after its model was in its place, before it was evaluated: then this run says so.
        if json(&output.join("run.json"))["eval"].is_null() {
            assert!(text(&end.stderr).contains("not evaluated"), "{}", text(&end.stderr));
            assert!(result(&output).0 == result(&reference).0, "the weights differ");
        } else {
            is_equal(&output, &reference);
        }
        ended += 1;
        if killed >= kills {
            break;
        }
        fs::remove_dir_all(&output).expect("it is removed");
        output = run.at(&format!("out-{ended}"));
    }
    eprintln!(
        "{killed} kills, {resumed} starts from a checkpoint, {ended} runs to their end, all with the reference's result"
    );
    assert!(resumed > kills / 4, "{resumed} of {kills} went on from a checkpoint");
}

/// With shuffled rows of several lengths, dropout, micro-batches and the best model.
#[cfg(unix)]
#[test]
fn a_run_killed_at_any_moment_goes_on_to_the_same_result() {
    let kills = std::env::var("VITRINE_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let common = ["--save-every", "7", "--epochs", "12", "--lr", "1e-3"];
    killed(
        kills / 2,
        &[&common[..], &["--dtype", "bf16", "--group-by-length", "--micro-batch-size", "3"]].concat(),
    );
    killed(
        kills - kills / 2,
        &[&common[..], &["--dtype", "f32", "--eval-every", "13", "--keep-best", "loss"]].concat(),
    );
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_says_how_it_goes_on_and_does() {
    use std::os::unix::process::ExitStatusExt;
    let run = Run::new(&["--epochs", "2000"]);
    let output = run.at("out put");
    let child = run.start(&output, &["--threads", "2"]);
    wait_until("a step", || lines(&output) > 3);
    assert_eq!(json(&output.join("run.json"))["state"], "running");
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
    let ended = child.wait_with_output().expect("the run ends");
    let stderr = text(&ended.stderr);
    assert_eq!(ended.status.signal(), Some(15), "{stderr}");
    let report = json(&output.join("run.json"));
    assert_eq!(report["state"], "interrupted");
    let command = report["resume"].as_str().expect("a command");
    assert!(stderr.contains(&format!("go on with: {command}")), "{stderr}");
    assert_eq!(fs::read_dir(output.join("checkpoints")).expect("a folder").count(), 1);
    // Nothing else takes it for a result.
    let predict = ["predict", "--model", path(&output), "a film"];
    refused(1, &predict, &["interrupted", command], &crate::common::vitrine(&predict));
    run.refuse(2, &output, &[], &["--output", "interrupted", command, "--overwrite"]);
    run.refuse(2, &output, &["--resume", "--lr", "2e-3"], &["settings"]);
    // The command is one for a shell.
    let mut again = Command::new("bash");
    again.args(["-c", &format!("exec {command}")]).env("CUDA_VISIBLE_DEVICES", "");
    let mut child = again.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("bash runs");
    let before = lines(&output);
    wait_until("the next step", || lines(&output) > before);
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
}

#[test]
fn what_resume_says_where_there_is_nothing_to_resume() {
    let run = Run::new(&["--epochs", "1"]);
    let reference = run.at("reference");
    run.finish(&reference, &[]);
    // Nothing there, with a folder or without one.
    let output = run.at("out");
    let said = run.finish(&output, &["--resume"]);
    assert!(said.contains("no checkpoint") && said.contains("starting from the beginning"), "{said}");
    is_equal(&output, &reference);
    assert!(!output.join("checkpoints").exists(), "a short run has paid for checkpoints");
    // Finished.
    let before = snapshot(&output);
    let said = run.finish(&output, &["--resume"]);
    assert!(said.contains("is finished") && !said.contains("train 9/9"), "{said}");
    run.refuse(
        2,
        &output,
        &["--resume", "--weight-decay", "0.5"],
        &["finished", "weight_decay", "0.01", "0.5"],
    );
    run.refuse(2, &output, &[], &["not empty"]);
    assert!(snapshot(&output) == before, "something was changed");
    // Something else.
    let other = run.at("other");
    fs::create_dir(&other).expect("a folder is made");
    fs::write(other.join("notes.txt"), "mine").expect("a file is written");
    run.refuse(2, &other, &["--resume"], &["--output", "not empty"]);
    run.refuse(2, &output, &["--resume", "--overwrite"], &["--resume", "--overwrite"]);
}

/// A run that was killed after two checkpoints.
#[cfg(unix)]
fn killed_after_checkpoints(run: &Run, output: &Path) {
    let mut child = run.start(output, &[]);
    wait_until("the third checkpoint", || output.join("checkpoints/step-00000021").exists());
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
}

#[cfg(unix)]
#[test]
fn damaged_checkpoints_are_named_and_skipped() {
    let run = Run::new(&["--epochs", "30", "--save-every", "7", "--keep", "3"]);
    let reference = run.at("reference");
    run.finish(&reference, &[]);
    let output = run.at("out");
    killed_after_checkpoints(&run, &output);
    let mut newest: Vec<PathBuf> = fs::read_dir(output.join("checkpoints"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")))
        .collect();
    newest.sort();
    let damaged = newest.pop().expect("a checkpoint");
    let weights = damaged.join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&weights, bytes).expect("weights are damaged");
    let said = run.finish(&output, &["--resume"]);
    let name = damaged.file_name().and_then(|name| name.to_str()).expect("UTF-8");
    assert!(said.contains(name) && said.contains("is damaged") && said.contains("skipped"), "{said}");
    let older = newest.pop().expect("another checkpoint");
    assert!(said.contains(&format!("from {}", older.display())), "{said}");
    is_equal(&output, &reference);
    // All of them.
    let output = run.at("all");
    killed_after_checkpoints(&run, &output);
    for entry in fs::read_dir(output.join("checkpoints")).expect("a folder") {
        let _ = fs::write(entry.expect("an entry").path().join("state.json"), "{\"sha256\": \"nonsense\"}");
    }
    let said = run.finish(&output, &["--resume"]);
    assert!(said.matches("it is skipped").count() >= 2 && said.contains("from the beginning"), "{said}");
    is_equal(&output, &reference);
}

/// Runs a script in a namespace of mounts with a file system of 3 MiB at `$DISK`; none where that is not allowed.
#[cfg(target_os = "linux")]
fn on_a_small_disk(disk: &Path, script: &str, train: &Command) -> Option<Output> {
    fs::create_dir_all(disk).expect("a folder is made");
    let script = format!("mount -t tmpfs -o size=3m tmpfs {} || exit 77\n{script}", path(disk));
    let mut bash = Command::new("unshare");
    bash.args(["-rm", "bash", "-c", &script, "bash"]).arg(train.get_program()).args(train.get_args());
    let output = bash.env("CUDA_VISIBLE_DEVICES", "").env("DISK", disk).output().ok()?;
    let refused = output.status.code() == Some(77) || text(&output.stderr).contains("unshare:");
    (!refused).then_some(output)
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_during_a_checkpoint() {
    let run = Run::new(&["--epochs", "400", "--save-every", "200", "--keep", "1"]);
    let reference = run.at("reference");
    run.finish(&reference, &[]);
    let disk = run.at("disk");
    let train = run.command(&disk.join("out"), &[]);
    // Somebody takes the rest of the disk after the first checkpoint, the run is killed after the next has failed, and goes on
    // where there is room again.
    let script = "\"$@\" 2> $DISK/../said & run=$!
        until [ -e $DISK/out/checkpoints/step-00000200 ]; do sleep 0.005; done
        cat /dev/zero > $DISK/rest 2>/dev/null
        until grep -q 'goes on without it' $DISK/../said; do kill -0 $run || exit 78; sleep 0.005; done
        kill -KILL $run; wait $run
        ls -A $DISK/out/checkpoints > $DISK/../left
        rm $DISK/rest
        \"$@\" --resume; code=$?; cp -r $DISK/out $DISK/../saved; exit $code";
    let Some(output) = on_a_small_disk(&disk, script, &train) else {
        eprintln!("SKIPPED: no mounts of our own");
        return;
    };
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = fs::read_to_string(run.at("said")).expect("what it said");
    for part in ["cannot write the checkpoint", "No space left", "MiB: free at least as much", "step-00000"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let left = fs::read_to_string(run.at("left")).expect("a list");
    assert!(left.lines().count() == 1 && !left.contains("partial"), "half a checkpoint is left: {left}");
    assert!(
        text(&output.stderr).contains(&format!("checkpoints/{}", left.trim())),
        "{}",
        text(&output.stderr)
    );
    is_equal(&run.at("saved"), &reference);
}

#[test]
fn patience_ends_a_run_whose_best_model_is_kept() {
    let run = Run::new(&["--epochs", "20", "--lr", "1e-12", "--keep-best", "accuracy", "--patience", "2"]);
    let output = run.at("out");
    let said = run.finish(&output, &["--save-every", "epoch"]);
    assert!(said.contains("stopped after step 27") && said.contains("the model of step 9 is kept"), "{said}");
    let report = json(&output.join("run.json"));
    assert_eq!(report["train"]["steps"], 27);
    assert_eq!(report["train"]["stopped_early"], true);
    assert_eq!(report["train"]["best"]["step"], 9);
    assert_eq!(report["eval_split"], "validation");
    let metrics = fs::read_to_string(output.join("metrics.jsonl")).expect("metrics");
    let evaluations: Vec<Value> = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|line| line.get("eval").is_some())
        .collect();
    let steps: Vec<_> = evaluations.iter().map(|line| (&line["step"], &line["best"])).collect();
    assert_eq!(steps, [(&9.into(), &true.into()), (&18.into(), &false.into()), (&27.into(), &false.into())]);
    assert_eq!(evaluations[0]["eval"]["accuracy"], report["eval"]["accuracy"]);
    // The tensors of both files are those of the best step.
    let tensors = |file: &Path| {
        let bytes = fs::read(file).expect("weights");
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        bytes[8 + header..].to_vec()
    };
    let best = output.join("checkpoints/step-00000009/model.safetensors");
    assert!(
        tensors(&best) == tensors(&output.join("model.safetensors")),
        "the model is not that of the best step"
    );
}

#[test]
fn rows_are_held_back_where_there_are_no_test_rows() {
    let run = Run::new(&["--epochs", "1"]);
    let rows = |name: &str, more: &[&str]| {
        let said = run.finish(&run.at(name), more);
        let report = json(&run.at(name).join("run.json"));
        let count = |split: &str| report["rows"][split].as_u64();
        (count("train"), count("validation"), count("test"), report["eval_split"].clone(), said)
    };
    let (train, validation, test, split, _) = rows("default", &[]);
    assert_eq!((train, validation, test, split), (Some(72), Some(8), None, "validation".into()));
    let (train, validation, _, split, said) = rows("none", &["--validation-split", "0"]);
    assert_eq!((train, validation, split), (Some(80), None, Value::Null));
    assert!(said.contains("warning: no rows to evaluate on"), "{said}");
    let data = run.at("reviews.csv");
    let (train, validation, test, split, _) = rows("test", &["--test-data", path(&data)]);
    assert_eq!((train, validation, test, split), (Some(80), None, Some(80), "test".into()));
    let (train, validation, test, split, _) =
        rows("both", &["--test-data", path(&data), "--validation-split", "0.25"]);
    assert_eq!((train, validation, test, split), (Some(60), Some(20), Some(80), "test".into()));
    // As many training rows as were asked for, and a tenth of that beside them.
    let (train, validation, ..) = rows("some", &["--train-samples", "40"]);
    assert_eq!((train, validation), (Some(40), Some(4)));
    run.refuse(2, &run.at("x"), &["--validation-split", "1"], &["--validation-split", "below 1"]);
    run.refuse(
        2,
        &run.at("x"),
        &["--validation-split", "0", "--patience", "1"],
        &["--patience", "--test-data"],
    );
    run.refuse(2, &run.at("x"), &["--eval-every", "0"], &["--eval-every", "epoch"]);
    run.refuse(2, &run.at("x"), &["--keep-best", "accurracy"], &["--keep-best", "accuracy, f1 or loss"]);
    run.refuse(2, &run.at("x"), &["--save-every", "often"], &["--save-every", "epoch", "never"]);
}
