//! What the `ptx` tool makes from the `.cu` files, but for compiling them; and the tests that find what is stale.

/// Formats to the end of a string.
macro_rules! put {
    ($out:expr, $($format:tt)*) => {
        $out.push_str(&format!($($format)*))
    };
}

pub mod cuda;
pub mod rust;
pub mod summary;
#[cfg(test)]
mod tests;

use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The options that decide the PTX, beside the target `compute_80`.
pub const OPTIONS: [&str; 2] = ["--std=c++17", "--generate-line-info"];

/// The `.cu` files in order of their names.
///
/// # Errors
/// A folder that cannot be read.
pub fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A file's name without its extension.
pub fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|name| name.to_str()).unwrap_or_default()
}

/// SHA-256 of a `.cu` file, of the headers it includes (in order, each once, theirs too), and of the options.
///
/// # Errors
/// A file that cannot be read.
pub fn hash(path: &Path) -> io::Result<String> {
    let mut files = vec![path.to_owned()];
    let mut hasher = Sha256::new();
    let mut next = 0;
    while next < files.len() {
        let text = fs::read_to_string(&files[next])?;
        hasher.update(&text);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("#include \"").and_then(|rest| rest.split('"').next()) {
                let header = path.with_file_name(name);
                if !files.contains(&header) {
                    files.push(header);
                }
            }
        }
        next += 1;
    }
    hasher.update(OPTIONS.join(" "));
    Ok(hex(hasher))
}

/// SHA-256 of a text.
pub fn hash_of_text(text: &str) -> String {
    hex(Sha256::new().chain_update(text))
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// gzip without a time or a name: the same text gives the same bytes.
///
/// # Panics
/// Never: writing to memory does not fail.
pub fn packed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    written.expect("internal: writing to memory")
}

/// Where a module's packed PTX is.
pub fn packed_path(folder: &Path, module: &str) -> PathBuf {
    folder.join("ptx").join(format!("{module}.ptx.gz"))
}

/// The text of a packed PTX.
///
/// # Errors
/// What is no gzip, no text, or too long.
pub fn unpacked(packed: &[u8]) -> io::Result<String> {
    crate::unpack(packed)
}
