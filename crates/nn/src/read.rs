//! How files of others are opened and read: regular files only, of limited size.

use crate::weights::{WEIGHTS_FILE, WEIGHTS_INDEX_FILE};
use crate::{Input, NnError, Result, Source};
use std::fs::{File, Metadata};
use std::path::{Component, Path};

/// Entries of a folder that are looked at for advice.
const MAX_ENTRIES: usize = 10_000;

/// An error that says what is wrong with a file or folder.
pub fn unusable(path: &Path, why: impl Into<String>) -> NnError {
    NnError::Unusable { path: path.to_owned(), why: why.into() }
}

/// Opens a regular file, or a link to one, and gives its length in bytes. Nothing else is opened: a pipe would wait for
/// ever.
///
/// # Errors
/// `Io`; `Unusable` for a folder, a pipe or a device.
pub fn open(path: &Path) -> Result<(File, u64)> {
    let io = |source| NnError::Io { path: path.to_owned(), source };
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
    Input::open(path)?.text(most)
}

/// What stands where a download went to a page that shows a file.
pub(crate) const WEB_PAGE: &str = "this is a web page, not the file itself; download the file (on the hub, from /resolve/main/, not from /blob/main/)";

/// What a folder without `model.safetensors` has instead, and what to do with it.
pub(crate) fn other_weights(source: &Source) -> Option<String> {
    about_weights(&source.names())
}

/// What weights, if any, are among the names in a folder, and what to do with them.
pub fn about_weights(names: &[String]) -> Option<String> {
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
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .take(MAX_ENTRIES)
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort_unstable();
    names
}

/// Whether a file's name is plain: no path, no parent. What an index names lies beside it.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(only)) if only == name);
    plain && components.next().is_none() && !name.contains(['/', '\\', '\0'])
}
