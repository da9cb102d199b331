//! Names of the hub in the place of paths, against a hub on this machine.

#[path = "../../../hub/tests/support/mod.rs"]
mod support;

use crate::common::{model, path, refused, text, vitrine};
use crate::outputs::on_a_small_disk;
use std::path::Path;
use std::process::{Command, Output};
use support::{COMMIT, Contents, Reply, Server};
use tempfile::TempDir;

/// Runs the binary with this hub and this HF_HOME.
fn with_hub(endpoint: &str, home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .args(arguments)
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .env("CUDA_VISIBLE_DEVICES", "")
        .env("HF_HOME", home)
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HUB_DOWNLOAD_TIMEOUT", "5")
        .envs([("HF_HUB_OFFLINE", "0"), ("HF_TOKEN", "")])
        .env_remove("HF_HUB_CACHE")
        .env_remove("HUGGINGFACE_HUB_CACHE")
        .output()
        .expect("the binary was built with the tests")
}

fn succeed(endpoint: &str, home: &Path, arguments: &[&str]) -> (String, String) {
    let output = with_hub(endpoint, home, arguments);
    assert!(output.status.success(), "{arguments:?} failed:\n{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// A repository with the files of a folder, and some that no command reads.
fn repository(model: &Path) -> Contents {
    let entries = std::fs::read_dir(model).expect("a folder").map(|entry| entry.expect("an entry").path());
    let files: Vec<(String, Vec<u8>)> = entries
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .chain([
            ("pytorch_model.bin".to_owned(), b"pickle".to_vec()),
            ("onnx/model.onnx".to_owned(), Vec::new()),
        ])
        .collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    Contents::default().with("models/owner/name", &files)
}

/// A data set as the hub has them: splits as tables, beside texts that are no data.
fn data_set(contents: Contents) -> Contents {
    let rows = |word: &str, count: usize| -> String {
        let rows = (0..count).map(|n| format!("a {word} film {n},1\na dull {word} film {n},0\n"));
        format!("text,label\n{}", rows.collect::<String>())
    };
    let (train, test) = (rows("good", 20), rows("fine", 5));
    let files: [(&str, &[u8]); 4] = [
        ("README.md", b"---\n---\n"),
        ("data/train.csv", train.as_bytes()),
        ("data/test.csv", test.as_bytes()),
        ("data/unsupervised.csv", b"text\nx\n"),
    ];
    contents.with("datasets/owner/reviews", &files)
}

#[test]
fn a_model_of_the_hub_is_fetched_once_and_then_needs_no_network() {
    let (_folder, model) = model();
    let (server, home) = (Server::start(repository(&model)), TempDir::new().unwrap());
    let predict = ["predict", "--model", "owner/name", "a wonderful film"];
    let local = vitrine(&["predict", "--model", path(&model), "a wonderful film"]);
    let (stdout, stderr) = succeed(&server.address, home.path(), &predict);
    assert_eq!(stdout, text(&local.stdout));
    assert!(
        stderr.contains("downloading") && stderr.contains(&format!("owner/name at commit {COMMIT}")),
        "{stderr}"
    );
    assert_eq!(server.count("pytorch_model.bin") + server.count("onnx"), 0);
    assert_eq!(server.count("report.html"), 0, "only what is read");
    let requests = server.seen().len();
    let (again, stderr) = succeed(&server.address, home.path(), &predict);
    assert_eq!((again, server.seen().len()), (stdout.clone(), requests));
    assert!(!stderr.contains("downloading"), "{stderr}");
    let nowhere = succeed("http://127.0.0.1:1", home.path(), &predict);
    assert_eq!(nowhere.0, stdout);
    for command in [&["inspect", "--model", "owner/name@main"][..], &["trace", "--model", "owner/name", "x"]]
    {
        succeed("http://127.0.0.1:1", home.path(), command);
    }
}

#[test]
fn a_run_on_the_hub_s_model_and_data_names_both_with_their_commits() {
    let (folder, model) = model();
    let (server, home) = (Server::start(data_set(repository(&model))), TempDir::new().unwrap());
    let output = folder.path().join("out");
    let arguments = [
        "train",
        "--model",
        "owner/name",
        "--data",
        "owner/reviews",
        "--output",
        path(&output),
        "--epochs",
        "1",
        "--lora-rank",
        "2",
        "--json",
    ];
    let (stdout, stderr) = succeed(&server.address, home.path(), &arguments);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["settings"]["model"], format!("owner/name@{COMMIT}"));
    assert_eq!(report["settings"]["data"], format!("owner/reviews@{COMMIT}"));
    assert_eq!((report["rows"]["train"].as_u64(), report["rows"]["test"].as_u64()), (Some(40), Some(10)));
    assert!(stderr.contains(&format!("data set: owner/reviews at commit {COMMIT}")), "{stderr}");
    assert_eq!(server.count("unsupervised.csv"), 0);
    let adapter = std::fs::read_to_string(output.join("adapter/adapter_config.json")).unwrap();
    assert!(adapter.contains("\"owner/name\""), "{adapter}");
    let options = std::fs::read_to_string(output.join("run.toml")).unwrap();
    assert!(options.contains("model = \"owner/name\""), "{options}");
    let eval = ["eval", "--model", path(&output), "--data", "owner/reviews", "--json"];
    let (stdout, _) = succeed("http://127.0.0.1:1", home.path(), &eval);
    assert!(stdout.contains("\"examples\":10"), "{stdout}");
    succeed(
        "http://127.0.0.1:1",
        home.path(),
        &["data", "inspect", "owner/reviews", "--model", "owner/name"],
    );
}

#[test]
fn fetch_prints_the_folder_and_says_what_was_there() {
    let (_folder, model) = model();
    let (server, home) = (Server::start(data_set(repository(&model))), TempDir::new().unwrap());
    let (stdout, stderr) = succeed(&server.address, home.path(), &["fetch", "owner/name", "owner/name@main"]);
    let folders: Vec<&str> = stdout.lines().collect();
    assert!(folders.len() == 2 && folders[0] == folders[1], "{stdout}");
    assert!(Path::new(folders[0]).join("model.safetensors").exists());
    assert!(
        stderr.contains("MiB downloaded in") && stderr.contains("all of it was there already"),
        "{stderr}"
    );
    assert!(vitrine(&["predict", "--model", folders[0], "x"]).status.success());
    let (stdout, _) =
        succeed(&server.address, home.path(), &["fetch", "--dataset", "owner/reviews", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (object["commit"].as_str(), object["files"].as_array().map(Vec::len)),
        (Some(COMMIT), Some(2))
    );
    assert!(
        object["downloaded_bytes"].as_u64() == object["bytes"].as_u64()
            && object["path"].as_str().unwrap().ends_with("/data")
    );
    let (stdout, _) =
        succeed(&server.address, home.path(), &["fetch", "--dataset", "owner/reviews", "--json"]);
    assert!(stdout.contains("\"downloaded_bytes\":0"), "{stdout}");
    // Both at the same time: one waits, or finds the other's files.
    let fresh = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| succeed(&server.address, fresh.path(), &["fetch", "owner/name"]));
        }
    });
}

#[test]
fn what_is_neither_here_nor_there_gets_one_line_about_both() {
    let (_folder, model) = model();
    let (server, home) = (Server::start(data_set(repository(&model))), TempDir::new().unwrap());
    let refuse = |code: i32, endpoint: &str, arguments: &[&str], words: &[&str]| {
        refused(code, arguments, words, &with_hub(endpoint, home.path(), arguments));
    };
    let hub = server.address.as_str();
    refuse(
        1,
        hub,
        &["predict", "--model", "models/bert", "x"],
        &["models/bert: no such folder; on the hub:", "no such model"],
    );
    refuse(1, hub, &["predict", "--model", "owner/name@v9", "x"], &["no branch, tag or commit `v9`"]);
    refuse(1, hub, &["eval", "--model", path(&model), "--data", "owner/name"], &["no such data set"]);
    refuse(
        1,
        "http://127.0.0.1:1",
        &["predict", "--model", "owner/other", "x"],
        &["owner/other", "not in the cache", "cannot be reached", "HF_HUB_OFFLINE"],
    );
    refuse(2, hub, &["fetch", "a/b/c"], &["\"a/b/c\" is no name on the hub"]);
    refuse(2, hub, &["fetch", "owner/name", "../x"], &["\"../x\""]);
    refuse(
        1,
        "huggingface.co",
        &["fetch", "owner/name"],
        &["HF_ENDPOINT=huggingface.co", "https://huggingface.co"],
    );
    refuse(
        1,
        hub,
        &["fetch", "--dataset", "owner/reviews", "--subset", "en"],
        &["no subset `en`; it has data"],
    );
    assert_eq!(server.count("resolve"), 0, "nothing was downloaded for any of these");
    // A path that is there never becomes a name, and what can only be a path neither.
    let before = server.seen().len();
    refuse(1, hub, &["predict", "--model", "src/none", "x"], &["src/none: no such folder"]);
    refuse(1, hub, &["predict", "--model", "./owner/name", "x"], &["./owner/name: no such folder"]);
    assert_eq!(server.seen().len(), before);
}

#[test]
fn what_no_command_could_use_is_refused_before_its_weights_come() {
    let files: [(&str, &[u8]); 3] = [
        ("config.json", b"{\"model_type\": \"llama\", \"hidden_size\": 64}"),
        ("tokenizer.json", b"{}"),
        ("model.safetensors", b"weights"),
    ];
    let old: [(&str, &[u8]); 3] = [files[0], files[1], ("pytorch_model.bin", b"pickle")];
    let contents = Contents::default().with("models/owner/llama", &files).with("models/owner/old", &old);
    let (server, home) = (Server::start(contents), TempDir::new().unwrap());
    let arguments = ["fetch", "owner/llama"];
    refused(1, &arguments, &["model_type", "llama"], &with_hub(&server.address, home.path(), &arguments));
    assert_eq!(server.count("model.safetensors"), 0);
    let arguments = ["predict", "--model", "owner/old", "x"];
    let words = ["pytorch_model.bin", "save_pretrained('converted')", "n = 'owner/old'"];
    refused(1, &arguments, &words, &with_hub(&server.address, home.path(), &arguments));
}

#[test]
fn a_wrong_file_is_no_model() {
    let (_folder, model) = model();
    let contents = repository(&model)
        .failing(|request, _| request.path.contains("/large/").then(|| Reply::file(&[0; 100])));
    let (server, home) = (Server::start(contents), TempDir::new().unwrap());
    let arguments = ["predict", "--model", "owner/name", "x"];
    for _ in 0..2 {
        let output = with_hub(&server.address, home.path(), &arguments);
        refused(1, &arguments, &["model.safetensors", "100 bytes", "announced"], &output);
        assert!(output.stdout.is_empty());
    }
}

/// A disk that fills up ends the download with what is missing; with more room it goes on where it was.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_a_download_that_goes_on_when_there_is_room() {
    let (folder, model) = model();
    let server = Server::start(repository(&model));
    let disk = folder.path().join("disk");
    let mut fetch = Command::new(env!("CARGO_BIN_EXE_vitrine"));
    fetch.args(["fetch", "owner/name"]);
    let script = format!(
        "export HF_HOME=$DISK HF_ENDPOINT={} HF_HUB_OFFLINE=0 HF_TOKEN=; unset HF_HUB_CACHE HUGGINGFACE_HUB_CACHE; \
         \"$@\"; echo \"ended with $?\" >&2; mount -o remount,size=64m $DISK; \
         \"$@\"; echo \"then with $?\" >&2; find $DISK -name '*.incomplete' >&2",
        server.address
    );
    let Some(output) = on_a_small_disk("400k", &disk, &script, &fetch) else {
        return eprintln!("skipped: no mounts of our own");
    };
    let stderr = text(&output.stderr);
    let (first, then) = stderr.split_once("ended with 1").unwrap_or_else(|| panic!("{stderr}"));
    let last = first.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("error:") && last.contains("No space left"), "{stderr}");
    assert!(then.trim_end().ends_with("then with 0"), "something is left or it failed again: {stderr}");
    let starts: Vec<_> = server.seen().iter().filter_map(support::Request::from).collect();
    assert!(starts.iter().any(|&start| start > 0), "it began again: {stderr}");
}
