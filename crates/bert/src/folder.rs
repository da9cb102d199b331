//! Model folders: whether a path is one, what to pass instead where it is not, and how the files in it are read.

use crate::{BertError, CONFIG_FILE, Result, WEIGHTS_FILE, refuse_lfs_pointer, weights::WEIGHTS_INDEX_FILE};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

/// What every message about a wrong path ends with.
const A_MODEL: &str =
    "a model is a folder with config.json, model.safetensors and a tokenizer (tokenizer.json or vocab.txt)";

/// Entries of a folder that are looked at for advice.
const MAX_ENTRIES: usize = 10_000;

/// An error that says what is wrong with a file or folder.
pub(crate) fn unusable(path: &Path, why: impl Into<String>) -> BertError {
    BertError::Unusable { path: path.to_owned(), why: why.into() }
}

/// Opens a regular file, or a link to one, and gives its length in bytes. Nothing else is opened: a pipe would wait for
/// ever.
///
/// # Errors
/// `Io`; `Unusable` for a folder, a pipe or a device.
pub(crate) fn open(path: &Path) -> Result<(File, u64)> {
    let io = |source| BertError::Io { path: path.to_owned(), source };
    let regular = |metadata: &Metadata| match metadata {
        m if m.is_file() => Ok(m.len()),
        m if m.is_dir() => Err(unusable(path, "this is a folder; a file is expected here")),
        _ => Err(unusable(path, "this is a pipe or a device; a file is expected here")),
    };
    regular(&std::fs::metadata(path).map_err(io)?)?;
    let file = File::open(path).map_err(io)?;
    let len = regular(&file.metadata().map_err(io)?)?;
    Ok((file, len))
}

/// The text of a file of at most `most` bytes, without a byte order mark.
///
/// # Errors
/// `Io`; `LfsPointer`; `Unusable` for what is no file, a longer file, a web page, and bytes that are not UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    let (file, len) = open(path)?;
    let too_long =
        |len: u64| unusable(path, format!("{len} bytes; at most {} MiB of this file are read", most >> 20));
    if len > most {
        return Err(too_long(len));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| BertError::Io { path: path.to_owned(), source })?;
    if bytes.len() as u64 > most {
        return Err(too_long(bytes.len() as u64));
    }
    refuse_lfs_pointer(path, &bytes)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        unusable(path, format!("byte {at} is not UTF-8; save the file as UTF-8"))
    })?;
    if text.trim_start().starts_with('<') {
        return Err(unusable(path, WEB_PAGE));
    }
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// What stands where a download went to a page that shows a file.
pub(crate) const WEB_PAGE: &str = "this is a web page, not the file itself; download the file (on the hub, from /resolve/main/, not from /blob/main/)";

/// Checks that a path is a folder with a model in it, before any of its files is read.
///
/// # Errors
/// `Unusable` with what to pass instead; `Io`.
pub fn check_model_folder(folder: &Path) -> Result<()> {
    let refuse = |why: String| Err(unusable(folder, why));
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
            Err(unusable(&config, why))
        }
        Err(source) if source.kind() == ErrorKind::PermissionDenied => {
            Err(BertError::Io { path: config, source })
        }
        Err(_) => refuse(about_folder(folder)),
    }
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
        return format!("this is an address, and vitrine downloads nothing; {A_MODEL}");
    }
    if name.starts_with('~') {
        return "no such folder: the shell leaves ~ as it is inside quotes and after =; write the whole path"
            .into();
    }
    if looks_like_hub_name(path) {
        return format!(
            "no such folder; if it is a model's name on the Hugging Face hub, download it first, for example with \
             `hf download {name} --local-dir {name}` (config.json, model.safetensors, the tokenizer's files)"
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

/// What a folder without `model.safetensors` has instead, and what to do with it.
pub(crate) fn other_weights(folder: &Path) -> Option<String> {
    about_weights(&names(folder))
}

fn about_weights(names: &[String]) -> Option<String> {
    let find = |fits: &dyn Fn(&str) -> bool| names.iter().find(|name| fits(name)).map(String::as_str);
    let convert = "load it with transformers in Python and save_pretrained(FOLDER)";
    if let Some(name) = find(&|name| name.starts_with("adapter_model.") || name == "adapter_config.json") {
        return Some(format!(
            "{name} belongs to a PEFT adapter, which changes a model that is not here; in Python merge_and_unload() it and \
             save_pretrained(FOLDER)"
        ));
    }
    let unfinished = [".incomplete", ".part", ".crdownload", ".tmp"];
    if let Some(name) = find(&|name| unfinished.iter().any(|end| name.ends_with(end))) {
        return Some(format!("{name} is an unfinished download; download the file again"));
    }
    if let Some(name) = find(&|name| {
        let is_index = name.ends_with(".json") && name.contains(".safetensors.index.");
        is_index && name != WEIGHTS_INDEX_FILE
    }) {
        return Some(format!("{name} is an index under another name; rename it to {WEIGHTS_INDEX_FILE}"));
    }
    if let Some(name) = find(&|name| name.ends_with(".safetensors") && name.contains("-of-")) {
        return Some(format!("{name} is one of several files; download {WEIGHTS_INDEX_FILE} too"));
    }
    if let Some(name) = find(&|name| name.ends_with(".safetensors")) {
        return Some(format!("{name} is there; if these are the weights, rename it to {WEIGHTS_FILE}"));
    }
    if let Some(name) =
        find(&|name| name.contains(".bin.index.") || name.ends_with(".bin") || name.ends_with(".pt"))
    {
        return Some(format!("{name} is for PyTorch (a Python pickle); {convert}"));
    }
    if let Some(name) = find(&|name| name.ends_with(".h5")) {
        return Some(format!(
            "{name} is for TensorFlow; {convert} (from_pretrained(.., from_tf=True), transformers 4)"
        ));
    }
    if let Some(name) = find(&|name| name.ends_with(".msgpack")) {
        return Some(format!(
            "{name} is for Flax; {convert} (from_pretrained(.., from_flax=True), transformers 4)"
        ));
    }
    if let Some(name) = find(&|name| name.contains(".ckpt")) {
        return Some(format!(
            "{name} is a TensorFlow checkpoint of Google's code; convert it with transformers first"
        ));
    }
    let name = find(&|name| name.ends_with(".gguf") || name.ends_with(".onnx"))?;
    Some(format!(
        "{name} is in another program's format; download the model.safetensors that it was made from"
    ))
}

/// The names in a folder, sorted; none where it cannot be read. Only for advice, so of a large folder not all.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .take(MAX_ENTRIES)
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort_unstable();
    names
}

/// The folders in a folder that hold a `config.json`.
fn models_in(folder: &Path) -> Vec<PathBuf> {
    let paths = names(folder).into_iter().map(|name| folder.join(name));
    paths.filter(|path| path.join(CONFIG_FILE).is_file()).collect()
}

/// Whether a file's name is plain: no path, no parent. What an index names lies beside it.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(only)) if only == name);
    plain && components.next().is_none() && !name.contains(['/', '\\', '\0'])
}
