//! What runs leave in their output folders, also when they are killed, interrupted or raced.

use crate::common::{
    model, path, refuse, refused, snapshot, succeed, text, tiny as tiny_model, train, vitrine,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Two small models of different sizes, so that no file of one goes with those of the other, and data to train on.
struct Tiny {
    folder: TempDir,
    a: PathBuf,
    b: PathBuf,
    data: PathBuf,
}

fn tiny() -> Tiny {
    let folder = TempDir::new().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    for (name, size) in [("a", 16), ("b", 32)] {
        let config = format!(
            r#"{{"hidden_size": {size}, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": {size},
            "vocab_size": 30522, "max_position_embeddings": {size}, "model_type": "bert"}}"#
        );
        fs::write(at("tiny.json"), config).expect("a file is written");
        succeed(&["init", "--config", path(&at("tiny.json")), "--output", path(&at(name))]);
    }
    let rows: String = (0..40).map(|n| format!("a good film {n},1\na bad film {n},0\n")).collect();
    fs::write(at("reviews.csv"), format!("text,label\n{rows}")).expect("a file is written");
    Tiny { a: at("a"), b: at("b"), data: at("reviews.csv"), folder }
}

impl Tiny {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `vitrine train`, not yet started.
    fn train(&self, model: &Path, output: &Path, epochs: usize, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vitrine"));
        command.args(["train", "--model", path(model), "--data", path(&self.data), "--batch-size", "8"]);
        command
            .args(["--dtype", "f32", "--output", path(output), "--epochs", &epochs.to_string()])
            .args(more);
        command.env("CUDA_VISIBLE_DEVICES", "").stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

fn run(mut command: Command) -> Output {
    command.output().expect("the binary was built with the tests")
}

fn start(mut command: Command) -> Child {
    command.spawn().expect("the binary was built with the tests")
}

fn trained(command: Command) {
    let output = run(command);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn copied(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).expect("a folder is made");
    for (name, content) in snapshot(from) {
        fs::write(to.join(name.file_name().expect("a name")), content).expect("a file is written");
    }
}

/// Names in a folder; an event file's, which has the time in it, is "events".
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let name = |name: std::ffi::OsString| name.into_string().expect("UTF-8");
    let without_time = |name: String| if is_events(&name) { "events".to_owned() } else { name };
    entries.map(name).map(without_time).collect()
}

fn is_events(name: &str) -> bool {
    name.starts_with("events.out.tfevents.")
}

/// Waits for a step in a run's log.
fn wait_for_a_step(output: &Path) {
    let started = Instant::now();
    while !fs::read(output.join("metrics.jsonl")).is_ok_and(|log| log.first() == Some(&b'{')) {
        assert!(started.elapsed() < Duration::from_secs(60), "no step in a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a run's report says of its state.
fn state(output: &Path) -> String {
    let report = fs::read_to_string(output.join("run.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    report["state"].as_str().expect("a state").to_owned()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[cfg(unix)]
fn signal(run: &Child, name: &str) {
    let status = Command::new("kill").args([name, &run.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
}

fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// The files of a model folder, as a program that knows only names sees them, without what differs between two equal runs:
/// reports hold times.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let of_the_run =
        ["run.json", "run.toml", "metrics.jsonl", "events", "predictions.jsonl", "report.html", "README.md"];
    let is_of_the_model = |name: &String| !name.starts_with('.') && !of_the_run.contains(&name.as_str());
    let names = names(folder).into_iter().filter(is_of_the_model);
    names.map(|name| (name.clone(), fs::read(folder.join(name)).expect("a file"))).collect()
}

/// What runs that replace `old` by `new` leave when they are killed.
struct Replacing {
    tiny: Tiny,
    old: PathBuf,
    new: PathBuf,
    output: PathBuf,
    /// Found whole: the old one, the new one.
    found: [usize; 2],
    /// Found without a `config.json`, before anybody looked.
    between: usize,
}

impl Replacing {
    fn new() -> Self {
        let tiny = tiny();
        let (old, new, output) = (tiny.at("old"), tiny.at("new"), tiny.at("out"));
        trained(tiny.train(&tiny.a, &old, 1, &[]));
        trained(tiny.train(&tiny.b, &new, 1, &[]));
        for file in ["added_tokens.json", "notes.txt"] {
            fs::write(old.join(file), "{}").expect("a file is written");
        }
        fs::write(new.join("notes.txt"), "{}").expect("a file is written");
        Replacing { tiny, old, new, output, found: [0; 2], between: 0 }
    }

    /// The command that replaces the old model, which is in its place again.
    fn command(&self) -> Command {
        copied(&self.old, &self.output);
        self.tiny.train(&self.tiny.b, &self.output, 1, &["--overwrite"])
    }

    /// Looks at what a killed run has left, as a program that knows only names does, then as this one does.
    fn check(&mut self) {
        let (output, whole) = (&self.output, [&self.old, &self.new]);
        if output.join("config.json").exists() {
            // That of a run which is not finished says so, and the model's own is beside it.
            let report =
                ["run.json", ".vitrine-previous/run.json"].map(|name| fs::read_to_string(output.join(name)));
            let report =
                report.into_iter().flatten().find(|report| report.contains(r#""state": "finished""#));
            let report = report.expect("a report comes with its model");
            let is_new = report.contains(path(&self.tiny.b));
            assert!(files(output) == files(whole[usize::from(is_new)]), "a mixture: {:?}", names(output));
        } else {
            self.between += 1;
        }
        let predict = |model: &Path| {
            succeed(&["predict", "--model", path(model), "--dtype", "f32", "--json", "a good film"])
        };
        let predicted = predict(output);
        let found =
            whole.iter().position(|model| predict(model) == predicted).expect("the old or the new one");
        assert!(files(output) == files(whole[found]), "files of another model: {:?}", names(output));
        self.found[found] += 1;
    }
}

/// Kills come at random moments of the whole run, and as soon as a replacement is seen to go on.
#[cfg(unix)]
#[test]
fn a_run_killed_at_any_moment_leaves_the_old_model_or_the_new_one() {
    let kills = std::env::var("VITRINE_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(30);
    let mut replacing = Replacing::new();
    let started = Instant::now();
    trained(replacing.command());
    let whole_run = started.elapsed();
    let mut killed = 0;
    for n in 0_u32..kills {
        let mut run = start(replacing.command());
        // Weyl's sequence is spread evenly, and any other sequence of the same length is as good.
        let moment = whole_run.mul_f64((f64::from(n) * 0.618_033_988_749_895).fract() * 1.05);
        let begun = Instant::now();
        let is_replaced = || {
            let there = |name: &str| replacing.output.join(name).exists();
            there(".vitrine-new.whole") || there(".vitrine-new.entering") || !there("config.json")
        };
        while run.try_wait().expect("a status").is_none() {
            if if n % 2 == 0 { begun.elapsed() >= moment } else { is_replaced() } {
                break;
            }
            if n % 2 == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        run.kill().expect("it is killed, or has ended");
        let ended = run.wait_with_output().expect("the run ends");
        killed += u32::from(ended.status.code().is_none());
        replacing.check();
    }
    eprintln!(
        "{kills} runs, {killed} killed: {} left the old model, {} the new one; {} had no config.json until it was read",
        replacing.found[0], replacing.found[1], replacing.between
    );
    assert!(killed > kills / 4, "{killed} of {kills} runs were killed");
    // The next run finds nothing in its way, and nothing is left of those before.
    trained(replacing.tiny.train(&replacing.tiny.b, &replacing.output, 1, &["--overwrite"]));
    assert!(files(&replacing.output) == files(&replacing.new), "{:?}", names(&replacing.output));
}

/// The same at each rename, one after the other.
#[cfg(target_os = "linux")]
#[test]
fn a_run_killed_at_each_rename_leaves_the_old_model_or_the_new_one() {
    let mut replacing = Replacing::new();
    let traced = |command: &Command, when: usize| {
        let calls = "rename,renameat,renameat2";
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={calls}:signal=KILL:when={when}")]);
        strace.arg(command.get_program()).args(command.get_args()).env("CUDA_VISIBLE_DEVICES", "").output()
    };
    let mut kills = 0;
    loop {
        match traced(&replacing.command(), kills + 1) {
            Ok(output) if output.status.success() => break,
            Ok(output) if !text(&output.stderr).contains("ptrace") => kills += 1,
            _ => return skip("no strace that may trace"),
        }
        replacing.check();
        assert!(kills < 100, "a run does not end");
    }
    eprintln!(
        "{kills} kills, one at each rename: {} left the old model, {} the new one; {} had no config.json until it was read",
        replacing.found[0], replacing.found[1], replacing.between
    );
    // Two that set the old report and metrics aside, the new report's, and the one from which on the new model is there.
    assert!(kills >= 16 && replacing.found[0] == 4, "{kills} renames, {:?}", replacing.found);
}

#[cfg(unix)]
#[test]
fn of_two_runs_into_one_new_folder_one_succeeds() {
    let tiny = tiny();
    for round in 0..4 {
        let output = tiny.at(&format!("out-{round}"));
        let runs = [&tiny.a, &tiny.b].map(|model| (model, start(tiny.train(model, &output, 2, &[]))));
        let mut winners = Vec::new();
        for (model, run) in runs {
            let ended = run.wait_with_output().expect("the run ends");
            if ended.status.success() {
                winners.push(model);
            } else {
                // The later one meets the earlier one at work or, on a busy machine, its model.
                refused(2, &["train"], &["--output", path(&output), "folder"], &ended);
            }
        }
        let [winner] = winners.as_slice() else { panic!("{} runs succeeded", winners.len()) };
        let reference = tiny.at(&format!("alone-{round}"));
        trained(tiny.train(winner, &reference, 2, &[]));
        assert!(files(&output) == files(&reference), "the model of the run that succeeded is not whole");
    }
}

#[cfg(unix)]
#[test]
fn a_folder_in_use_is_refused_at_once_also_to_overwrite() {
    let tiny = tiny();
    let output = tiny.at("out");
    let first = start(tiny.train(&tiny.a, &output, 100_000, &[]));
    wait_for_a_step(&output);
    let pid = format!("process {}", first.id());
    for more in [&[][..], &["--overwrite"]] {
        let begun = Instant::now();
        refused(2, more, &["--output", path(&output), &pid], &run(tiny.train(&tiny.b, &output, 1, more)));
        assert!(begun.elapsed() < Duration::from_secs(10));
        let init = ["init", "--config", "mini", "--output", path(&output)];
        refuse(2, &[&init[..], more].concat(), &[&pid]);
    }
    signal(&first, "-TERM");
    assert!(!first.wait_with_output().expect("the run ends").status.success());
    assert_eq!(state(&output), "interrupted");
}

#[test]
fn a_failed_run_leaves_everything_as_it_was() {
    let (folder, model) = model();
    let before = snapshot(&model);
    let rows = ["--train-samples", "64", "--test-samples", "32", "--batch-size", "16"];
    let fails = |output: &Path| {
        let arguments = [
            "train",
            "--model",
            tiny_model(),
            "--lr",
            "1e30",
            "--warmup-steps",
            "0",
            "--overwrite",
            "--output",
            path(output),
        ];
        refuse(1, &[&arguments[..], &rows[..]].concat(), &["step", "learning rate"]);
    };
    fails(&model);
    // The step that broke is beside the model, for `vitrine replay`.
    fs::remove_dir_all(model.join("replay")).expect("the step that broke");
    assert!(snapshot(&model) == before, "the old model, its report or its metrics changed");
    // Where there is nothing to lose, what shows how it failed stays.
    let fresh = folder.path().join("fresh/nested");
    fails(&fresh);
    assert_eq!(names(&fresh), set(["events", "metrics.jsonl", "replay", "run.json"]));
    let report = fs::read_to_string(fresh.join("run.json")).expect("a report");
    assert!(report.contains(r#""state": "failed""#) && report.contains("learning rate"), "{report}");
    refuse(1, &["predict", "--model", path(&fresh), "a film"], &["no model yet", "failed"]);
    refuse(2, &["train", "--output", path(&fresh)], &["failed", "--overwrite"]);
}

#[test]
fn a_refused_run_leaves_nothing_behind() {
    let tiny = tiny();
    let empty = tiny.at("empty");
    fs::create_dir(&empty).expect("a folder is made");
    let data = tiny.at("same.csv");
    fs::write(&data, "text,label\na,1\nb,1\n").expect("a file is written");
    let model = ["--model", path(&tiny.a)];
    let cases: [&[&str]; 5] = [
        &["--data", path(&data)],
        &["--data", "missing.csv"],
        &["--data", path(&tiny.data), "--max-length", "100000"],
        &["--data", path(&tiny.data), "--label-column", "stars"],
        &["--data", path(&tiny.data), "--test-data", "missing.csv"],
    ];
    for case in cases {
        for output in [&[][..], &["--output", "out"], &["--output", "a/b/c"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_vitrine"));
            command.arg("train").args(model).args(case).args(output).current_dir(&empty);
            let ended = run(command);
            assert!(!ended.status.success(), "{case:?}");
            assert_eq!(names(&empty), BTreeSet::new(), "{case:?} {output:?}: {}", text(&ended.stderr));
        }
    }
}

#[cfg(unix)]
#[test]
fn an_output_that_can_be_no_folder_is_one_line_before_anything_is_read() {
    let tiny = tiny();
    let link = |name: &str, target: &str| {
        std::os::unix::fs::symlink(target, tiny.at(name)).expect("a link is made");
        tiny.at(name)
    };
    let dangling = link("dangling", "nowhere");
    let circle = link("circle", "circle");
    let to_file = link("to-file", "reviews.csv");
    let fifo = tiny.at("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
    let long = tiny.at(&"n".repeat(300));
    let below = tiny.data.join("out");
    let before = names(tiny.folder.path());
    let cases: [(&Path, &str); 8] = [
        (Path::new("/dev/null"), "file"),
        (&tiny.data, "file"),
        (&to_file, "file"),
        (&fifo, "file"),
        (&below, "Not a directory"),
        (&dangling, "nowhere"),
        (&circle, "Too many levels"),
        (&long, "too long"),
    ];
    for (output, word) in cases {
        for more in [&[][..], &["--overwrite"]] {
            // The data is missing, too: the output is looked at first.
            let train =
                ["train", "--model", path(&tiny.a), "--data", "missing.csv", "--output", path(output)];
            refuse(2, &[&train[..], more].concat(), &["--output", path(output), word]);
            let init = ["init", "--config", path(&tiny.a), "--output", path(output)];
            refuse(2, &[&init[..], more].concat(), &["--output", path(output), word]);
        }
    }
    refuse(2, &["init", "--config", "mini", "--output", ""], &["--output"]);
    assert_eq!(names(tiny.folder.path()), before);
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_may_not_be_written_is_one_line_before_anything_is_read() {
    let folder = TempDir::new().expect("a temporary folder");
    let script = format!(
        "mount -t tmpfs tmpfs {0} && mkdir {0}/out && mount -o remount,ro {0} || exit 77
        cd {0}; exec {1} train \"$@\"",
        path(folder.path()),
        env!("CARGO_BIN_EXE_vitrine"),
    );
    for arguments in [&[][..], &["--output", "out"], &["--output", "new"], &["--output", "new/er"]] {
        let mut bash = Command::new("unshare");
        bash.args(["-rm", "bash", "-c", &script, "bash"]).args(arguments).env("CUDA_VISIBLE_DEVICES", "");
        match bash.output() {
            Ok(output) if output.status.code() != Some(77) && !text(&output.stderr).contains("unshare") => {
                refused(2, arguments, &["Read-only", "--output"], &output);
                assert!(!text(&output.stderr).contains("rows"), "{}", text(&output.stderr));
            }
            _ => return skip("no mounts of our own"),
        }
    }
}

#[cfg(unix)]
#[test]
fn links_current_folders_and_other_files_stay() {
    let tiny = tiny();
    let real = tiny.at("real");
    fs::create_dir_all(real.join(".git/objects")).expect("folders are made");
    fs::write(real.join("notes.txt"), "mine").expect("a file is written");
    std::os::unix::fs::symlink("real", tiny.at("link")).expect("a link is made");
    refused(2, &[], &["not empty"], &run(tiny.train(&tiny.a, &tiny.at("link"), 1, &[])));
    trained(tiny.train(&tiny.a, &tiny.at("link"), 1, &["--overwrite"]));
    assert!(tiny.at("link").is_symlink() && real.join("config.json").is_file());

    // From inside, over a model of another size, whose files that the new one lacks must not stay.
    fs::write(real.join("added_tokens.json"), r#"{"[NEW]": 30522}"#).expect("a file is written");
    let mut command = tiny.train(&tiny.b, Path::new("."), 1, &["--overwrite"]);
    command.current_dir(&real);
    trained(command);
    assert!(!real.join("added_tokens.json").exists());
    succeed(&["predict", "--model", path(&real), "a film"]);
    // And over itself.
    trained(tiny.train(&real, &tiny.at("link"), 1, &["--overwrite"]));
    succeed(&["predict", "--model", path(&real), "a film"]);
    // A random model has no report, and least of all another's.
    let config = tiny.a.join("config.json");
    succeed(&["init", "--config", path(&config), "--output", path(&real), "--overwrite"]);
    assert!(!real.join("run.json").exists() && !real.join("metrics.jsonl").exists());
    assert_eq!(fs::read_to_string(real.join("notes.txt")).expect("a file"), "mine");
    assert!(real.join(".git/objects").is_dir());
    assert!(names(&real).iter().all(|name| !name.starts_with(".vitrine")), "{:?}", names(&real));

    // A folder that has the name of a file stays, too.
    let taken = tiny.at("taken");
    fs::create_dir_all(taken.join("config.json/mine")).expect("folders are made");
    let ended = run(tiny.train(&tiny.a, &taken, 1, &["--overwrite"]));
    refused(1, &[], &["config.json", "directory"], &ended);
    assert!(!text(&ended.stderr).contains("train 10/10"), "it was trained in vain: {}", text(&ended.stderr));
    assert_eq!(names(&taken), BTreeSet::from(["config.json".to_owned()]));
}

#[cfg(unix)]
#[test]
fn what_a_killed_run_left_is_in_nobodys_way() {
    let tiny = tiny();
    let killed = |output: &Path, arguments: &[&str], folder: &Path| {
        let mut command = tiny.train(&tiny.a, Path::new("unused"), 100_000, &[]);
        let kept: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let at = kept.iter().position(|argument| argument == "--output").expect("it is there");
        command = Command::new(env!("CARGO_BIN_EXE_vitrine"));
        command.args(&kept[..at]).args(&kept[at + 2..]).args(arguments).current_dir(folder);
        let mut run = start({
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command
        });
        wait_for_a_step(output);
        run.kill().expect("it is killed");
        run.wait().expect("it ends");
    };
    let output = tiny.at("out");
    killed(&output, &["--output", path(&output)], tiny.folder.path());
    assert_eq!(names(&output).len(), 4, "a run that is killed cannot tidy up: {:?}", names(&output));
    // What versions before this one left.
    fs::write(output.join(".metrics.jsonl.4711.partial"), "{}").expect("a file is written");
    refused(2, &[], &["was killed", "--resume", "--overwrite"], &run(tiny.train(&tiny.a, &output, 1, &[])));
    trained(tiny.train(&tiny.a, &output, 1, &["--overwrite"]));
    assert!(names(&output).iter().all(|name| !name.starts_with('.')), "{:?}", names(&output));

    // Without --output the folder of the killed run stays as it is.
    let first = tiny.at("runs/train-001");
    killed(&first, &[], tiny.folder.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitrine"));
    command.args(["train", "--model", path(&tiny.a), "--data", path(&tiny.data)]);
    command.current_dir(tiny.folder.path());
    trained(command);
    assert_eq!(names(&tiny.at("runs")), set(["train-001", "train-002"]));
    succeed(&["predict", "--model", path(&tiny.at("runs/train-002")), "a film"]);
    refuse(1, &["predict", "--model", path(&first), "a film"], &["was killed", "--resume"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_is_saved_and_ends_by_the_signal() {
    use std::os::unix::process::ExitStatusExt;
    let tiny = tiny();
    // Not SIGINT: shells have what they start in the background ignore it, and so would this run.
    for (name, number) in [("-TERM", 15), ("-HUP", 1)] {
        let output = tiny.at("new/out");
        let run = start(tiny.train(&tiny.a, &output, 100_000, &[]));
        wait_for_a_step(&output);
        signal(&run, name);
        let ended = run.wait_with_output().expect("the run ends");
        let stderr = text(&ended.stderr);
        assert_eq!(ended.status.signal(), Some(number), "{stderr}");
        assert!(stderr.contains("interrupted after step") && stderr.contains("--resume"), "{stderr}");
        assert_eq!(names(&output), set(["checkpoints", "events", "metrics.jsonl", "run.json"]));
        assert_eq!(names(&output.join("checkpoints")).len(), 1);
        fs::remove_dir_all(tiny.at("new")).expect("it is removed");
    }
}

/// As under `nohup`.
#[cfg(unix)]
#[test]
fn a_run_that_is_to_ignore_a_closed_terminal_does() {
    let tiny = tiny();
    let output = tiny.at("out");
    let mut bash = Command::new("bash");
    let train = tiny.train(&tiny.a, &output, 100_000, &[]);
    bash.args(["-c", "trap '' HUP; exec \"$@\"", "bash"]).arg(train.get_program()).args(train.get_args());
    bash.env("CUDA_VISIBLE_DEVICES", "").stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = start(bash);
    wait_for_a_step(&output);
    signal(&run, "-HUP");
    std::thread::sleep(Duration::from_millis(300));
    assert!(run.try_wait().expect("a status").is_none(), "it has ended");
    signal(&run, "-TERM");
    assert!(!run.wait().expect("it ends").success());
    assert_eq!(state(&output), "interrupted");
}

/// A limit on the size of files stands in for a full disk: writing fails in the same places.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_shows_before_training_and_leaves_everything_as_it_was() {
    let (folder, model) = model();
    let before = snapshot(&model);
    let limited = |output: &Path, trap: &str| {
        let script = format!(
            "{trap} ulimit -f 1000; exec {} train --epochs 1 --train-samples 64 --overwrite --output {}",
            env!("CARGO_BIN_EXE_vitrine"),
            path(output)
        );
        let output = Command::new("bash").args(["-c", &script]).env("CUDA_VISIBLE_DEVICES", "").output();
        let output = output.expect("bash runs");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let last = stderr.lines().last().unwrap_or_default();
        assert!(
            last.contains("error:") && last.contains("model.safetensors") && last.contains("MiB"),
            "{stderr}"
        );
        assert!(!stderr.contains("trained in"), "{stderr}");
    };
    for trap in ["trap '' XFSZ;", ""] {
        limited(&model, trap);
        assert!(snapshot(&model) == before, "the old model, its report or its metrics changed");
        limited(&folder.path().join("fresh"), trap);
        assert!(!folder.path().join("fresh").exists(), "something half-written was left");
    }
}

/// Runs a script in a namespace of mounts with a file system of `size` at `disk`; `None` where that is not allowed.
#[cfg(target_os = "linux")]
pub fn on_a_small_disk(size: &str, disk: &Path, script: &str, train: &Command) -> Option<Output> {
    fs::create_dir_all(disk).expect("a folder is made");
    let script = format!("mount -t tmpfs -o size={size} tmpfs {} || exit 77\n{script}", path(disk));
    let mut bash = Command::new("unshare");
    bash.args(["-rm", "bash", "-c", &script, "bash"]).arg(train.get_program()).args(train.get_args());
    let output = bash.env("CUDA_VISIBLE_DEVICES", "").env("DISK", disk).output().ok()?;
    let refused = output.status.code() == Some(77) || text(&output.stderr).contains("unshare:");
    (!refused).then_some(output)
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_or_fills_up_while_training() {
    let tiny = tiny();
    let disk = tiny.at("disk");
    // Less than the weights alone.
    let before = tiny.train(&tiny.b, &disk.join("out"), 1, &[]);
    let Some(output) = on_a_small_disk("64k", &disk, "\"$@\"; code=$?; ls -A $DISK >&2; exit $code", &before)
    else {
        return skip("no mounts of our own");
    };
    let stderr = text(&output.stderr);
    refused(1, &[], &["No space left", "MiB"], &output);
    assert!(
        !stderr.contains("trained in") && stderr.trim_end().ends_with("MiB"),
        "a trace is left: {stderr}"
    );

    // Somebody takes the rest of the disk after the first step.
    let script = "\"$@\" & run=$!
        until grep -q '^{' $DISK/out/metrics.jsonl 2>/dev/null; do sleep 0.01; done
        cat /dev/zero > $DISK/rest 2>/dev/null
        [ $(df --output=avail $DISK | tail -n 1) = 0 ] || exit 78
        wait $run; code=$?; cp -r $DISK/out $DISK/../saved; exit $code";
    let during = tiny.train(&tiny.b, &disk.join("out"), 100, &["--test-data", path(&tiny.data)]);
    let output = on_a_small_disk("16m", &disk, script, &during).expect("it was allowed before");
    assert!(output.status.success(), "the room was reserved: {}", text(&output.stderr));
    let report = fs::read_to_string(tiny.at("saved/run.json")).expect("a report");
    assert!(report.contains("\"accuracy\""), "it is evaluated: {report}");
    let reference = tiny.train(&tiny.b, &tiny.at("reference"), 100, &["--test-data", path(&tiny.data)]);
    trained(reference);
    assert!(files(&tiny.at("saved")) == files(&tiny.at("reference")));
}

#[cfg(unix)]
#[test]
fn a_trained_model_that_cannot_be_saved_in_its_place_is_kept() {
    let tiny = tiny();
    let epochs = 100;
    let reference = tiny.at("reference");
    trained(tiny.train(&tiny.b, &reference, epochs, &[]));
    let kept = tiny.at("out.kept-1");
    let disturbed = |disturb: &dyn Fn(&Path)| {
        let output = tiny.at("out");
        let run = start(tiny.train(&tiny.b, &output, epochs, &[]));
        wait_for_a_step(&output);
        disturb(&output);
        let ended = run.wait_with_output().expect("the run ends");
        refused(1, &[], &["the trained model is not lost", path(&kept)], &ended);
        assert!(files(&kept) == files(&reference), "what was kept is not the model");
        assert!(kept.join("run.json").is_file());
        fs::remove_dir_all(&kept).expect("it is there");
    };
    // Somebody puts another model there.
    disturbed(&|output| fs::write(output.join("config.json"), "{}").expect("a file is written"));
    assert_eq!(names(&tiny.at("out")), set(["config.json", "events", "metrics.jsonl", "run.json"]));
    fs::remove_dir_all(tiny.at("out")).expect("it is there");
    // Somebody removes the folder, or moves it away, or makes another.
    disturbed(&|output| fs::remove_dir_all(output).expect("it is there"));
    assert!(!tiny.at("out").exists());
    disturbed(&|output| fs::rename(output, tiny.at("moved")).expect("it is moved"));
    assert!(!tiny.at("out").exists());
    disturbed(&|output| {
        fs::rename(output, tiny.at("moved-again")).expect("it is moved");
        fs::create_dir(output).expect("a folder is made");
    });
    assert_eq!(names(&tiny.at("out")), BTreeSet::new());
    // A folder takes the name of a file.
    disturbed(&|output| fs::create_dir(output.join("vocab.txt")).expect("a folder is made"));
    assert_eq!(names(&tiny.at("out")), set(["events", "metrics.jsonl", "run.json", "vocab.txt"]));
    assert_eq!(state(&tiny.at("out")), "failed");
}

#[test]
fn readers_meet_whole_models_while_these_are_replaced() {
    let tiny = tiny();
    let output = tiny.at("out");
    trained(tiny.train(&tiny.a, &output, 1, &[]));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..8 {
                let model = if n % 2 == 0 { &tiny.b } else { &tiny.a };
                trained(tiny.train(model, &output, 1, &["--overwrite"]));
            }
        });
        while !writer.is_finished() {
            let read = vitrine(&["predict", "--model", path(&output), "a film"]);
            assert!(read.status.success(), "{}", text(&read.stderr));
        }
        writer.join().expect("the runs succeed");
    });
}

#[test]
fn the_built_in_reviews_train_into_a_new_folder() {
    let folder = TempDir::new().expect("a temporary folder");
    train(&folder.path().join("a/b"), &[]);
    assert!(names(&folder.path().join("a/b")).iter().all(|name| !name.starts_with('.')));
}
