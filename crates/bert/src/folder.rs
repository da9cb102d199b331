//! Model folders: whether a path is one, and what to pass instead where it is not.

use crate::{BertError, CONFIG_FILE, Result};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use vitrine_nn::WEIGHTS_FILE;
use vitrine_nn::read::{about_weights, names, read_text, unusable};
use vitrine_nn::weights::WEIGHTS_INDEX_FILE;

/// What every message about a wrong path ends with.
const A_MODEL: &str =
    "a model is a folder with config.json, model.safetensors and a tokenizer (tokenizer.json or vocab.txt)";

/// The report of a run.
const RUN_FILE: &str = "run.json";
/// The most bytes of it that are read.
const MAX_RUN: u64 = 16 << 20;

/// Checks that a path is a folder with a model in it, before any of its files is read.
///
/// # Errors
/// `Unusable` with what to pass instead; `Io`.
pub fn check_model_folder(folder: &Path) -> Result<()> {
    let refuse = |why: String| Err(unusable(folder, why).into());
    match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(metadata) if metadata.is_file() => return refuse(about_file(folder)),
        Ok(_) => return refuse(format!("this is a pipe or a device; {A_MODEL}")),
        Err(source) if source.kind() == ErrorKind::PermissionDenied => {
            return Err(BertError::Io { path: folder.to_owned(), source });
        }
        Err(_) => return refuse(about_missing(folder)),
    }
    let config = folder.join(CONFIG_FILE);
    match std::fs::symlink_metadata(&config) {
        Ok(_) if config.exists() => Ok(()),
        Ok(_) => {
            let target = std::fs::read_link(&config).unwrap_or_default();
            let why =
                format!("a link to {}, where there is no file; download the model again", target.display());
            Err(unusable(&config, why).into())
        }
        Err(source) if source.kind() == ErrorKind::PermissionDenied => {
            Err(BertError::Io { path: config, source })
        }
        Err(_) => refuse(about_folder(folder)),
    }
}

/// What stands in a folder's `run.json` if that is the report of a training run which has not finished: how far it is, and how
/// it goes on.
pub fn unfinished_run(folder: &Path) -> Option<String> {
    let text = read_text(&folder.join(RUN_FILE), MAX_RUN).ok()?;
    let report: serde_json::Value = serde_json::from_str(&text).ok()?;
    let state = report["state"].as_str().filter(|&state| state != "finished")?;
    let is_at_work =
        File::open(folder).is_ok_and(|folder| matches!(folder.try_lock(), Err(TryLockError::WouldBlock)));
    if state == "running" && is_at_work {
        return Some("a training run is at work in this folder; wait for its end".into());
    }
    let how = match state {
        "running" => "was killed",
        "interrupted" => "was interrupted",
        _ => "failed",
    };
    let next = report["resume"]
        .as_str()
        .map_or(String::new(), |command| format!("; go on with: {}", command.replace(char::is_control, " ")));
    Some(format!("a training run in this folder {how} before its end{next}"))
}

/// Why a file is no model, and what is.
fn about_file(path: &Path) -> String {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if parent.join(CONFIG_FILE).is_file() {
        return format!("this is a file; pass the folder that it is in: {}", parent.display());
    }
    format!("this is a file; {A_MODEL}")
}

/// Why a path that does not exist is no model, and what the user may have meant.
fn about_missing(path: &Path) -> String {
    let name = path.to_string_lossy();
    if name.contains("://") {
        return format!(
            "this is an address; a model on the Hugging Face hub is named owner/name, and else {A_MODEL}"
        );
    }
    if name.starts_with('~') {
        return "no such folder: the shell leaves ~ as it is inside quotes and after =; write the whole path"
            .into();
    }
    if looks_like_hub_name(path) {
        return format!(
            "no such folder; if it is a model's name on the Hugging Face hub, download it first with `vitrine fetch {name}`, and \
             pass the folder that it prints"
        );
    }
    format!("no such folder; {A_MODEL}")
}

/// Whether a path could be `name` or `owner/name` on the hub: such as `bert-base-uncased`, but no path from here.
pub fn looks_like_hub_name(path: &Path) -> bool {
    let Some(text) = path.to_str() else { return false };
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let parts: Vec<&str> = text.split('/').collect();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let file =
        ["json", "jsonl", "safetensors", "bin", "gguf", "onnx", "txt", "csv", "tsv", "parquet", "zip", "gz"];
    (1..=2).contains(&parts.len())
        && parts.iter().all(|part| plain(part))
        && !file.contains(&extension)
        && (parts.len() == 1 || !Path::new(parts[0]).exists())
}

/// Why a folder without `config.json` is no model, and where one is.
fn about_folder(folder: &Path) -> String {
    let names = names(folder);
    if names.is_empty() {
        return format!("the folder is empty; {A_MODEL}");
    }
    if let Some(run) = unfinished_run(folder) {
        return format!("no model yet: {run}");
    }
    if names.iter().any(|name| name == "state.json") && names.iter().any(|name| name == WEIGHTS_FILE) {
        return "this is a checkpoint inside of a training run, for `vitrine train --resume`; the model appears in the \
                run's folder at its end"
            .into();
    }
    // ~/.cache/huggingface/hub/models--owner--name: snapshots/HASH holds the model, refs/main names the hash.
    let snapshots = models_in(&folder.join("snapshots"));
    if let Some(first) = snapshots.first() {
        let main = read_text(&folder.join("refs/main"), 1 << 10).unwrap_or_default();
        let current = snapshots.iter().find(|path| path.ends_with(main.trim())).unwrap_or(first);
        return format!("this is a folder of the hub's cache; pass the model in it: {}", current.display());
    }
    let models = models_in(folder);
    let step = |path: &PathBuf| -> Option<u64> {
        path.file_name()?.to_str()?.strip_prefix("checkpoint-")?.parse().ok()
    };
    if let Some(newest) = models.iter().filter(|path| step(path).is_some()).max_by_key(|path| step(path)) {
        return format!(
            "no config.json in it, but checkpoints of the Trainer; pass one, such as the last: {}",
            newest.display()
        );
    }
    match models.as_slice() {
        [] => {}
        [only] => return format!("no config.json in it; the model is one folder below: {}", only.display()),
        [first, others @ ..] => {
            let others = others.len();
            return format!(
                "no config.json in it, but models below; pass one, such as {} ({others} more)",
                first.display()
            );
        }
    }
    if let Some(cached) = names.iter().find(|name| name.starts_with("models--")) {
        return format!(
            "this is the hub's cache; pass one model in it, such as {}",
            folder.join(cached).join("snapshots/..").display()
        );
    }
    if names.iter().any(|name| name == WEIGHTS_FILE || name == WEIGHTS_INDEX_FILE) {
        return "no config.json in it; download it from where the weights came from".into();
    }
    let what = about_weights(&names).unwrap_or_else(|| A_MODEL.into());
    format!("no config.json in it; {what}")
}

/// The folders in a folder that hold a `config.json`.
fn models_in(folder: &Path) -> Vec<PathBuf> {
    let paths = names(folder).into_iter().map(|name| folder.join(name));
    paths.filter(|path| path.join(CONFIG_FILE).is_file()).collect()
}
