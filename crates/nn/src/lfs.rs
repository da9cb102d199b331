//! Git LFS pointers: the few lines of text that a clone without Git LFS holds in the place of a large file.

use crate::{NnError, Result};
use std::path::Path;

/// How every pointer begins (<https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>). The number of the version follows.
const START: &[u8] = b"version https://git-lfs.github.com/spec/v";

/// Whether a file that begins with `bytes` is a Git LFS pointer. The first 64 bytes are enough.
pub fn lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(START)
}

/// Refuses a file that begins with `bytes` if it is a Git LFS pointer.
///
/// # Errors
/// `LfsPointer`.
pub fn refuse_lfs_pointer(path: &Path, bytes: &[u8]) -> Result<()> {
    if lfs_pointer(bytes) {
        return Err(NnError::LfsPointer { path: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_told_from_its_first_line() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
        let message = refuse_lfs_pointer(Path::new("a/vocab.txt"), pointer).unwrap_err().to_string();
        assert!(message.starts_with("a/vocab.txt: ") && message.contains("git lfs pull"), "{message}");
        assert!(!message.contains('\n'), "{message}");
        for other in [&b""[..], b"version 1", b"[PAD]\n", b"{\"version\": \"1.0\"}", b"\x7fELF"] {
            refuse_lfs_pointer(Path::new("x"), other).unwrap();
        }
    }
}
