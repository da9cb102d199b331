//! [`StagedFiles`]: several files that appear together, or not at all.

use crate::{BertError, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Files of one folder, written beside their final names and renamed at the end.
///
/// Until [`commit`](StagedFiles::commit) nothing in the folder changes for a reader; dropping the value removes what was
/// written. A full disk is thus an error before the first rename. Renaming also leaves a file alone that somebody has
/// mapped into memory, such as the weights that are being written back to their own folder.
pub struct StagedFiles {
    folder: PathBuf,
    staged: Vec<(PathBuf, PathBuf)>,
}

impl StagedFiles {
    /// Creates the folder if there is none.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .map_err(|source| BertError::Io { path: folder.to_owned(), source })?;
        Ok(StagedFiles { folder: folder.to_owned(), staged: Vec::new() })
    }

    /// Writes one file through a buffer, and makes sure that it is on the disk.
    ///
    /// # Errors
    /// `Io` naming the file.
    pub fn write(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<()> {
        let path = self.folder.join(name);
        let temporary = self.folder.join(format!(".{name}.{}.partial", std::process::id()));
        self.staged.push((temporary.clone(), path.clone()));
        let write = || {
            let mut writer = BufWriter::with_capacity(1 << 20, File::create(temporary)?);
            content(&mut writer)?;
            writer.into_inner()?.sync_all()
        };
        write().map_err(|source| BertError::Io { path, source })
    }

    /// Writes one file of known content.
    ///
    /// # Errors
    /// As [`StagedFiles::write`].
    pub fn write_text(&mut self, name: &str, text: &str) -> Result<()> {
        self.write(name, |file| file.write_all(text.as_bytes()))
    }

    /// Gives every file its name.
    ///
    /// # Errors
    /// `Io` when a rename is refused.
    pub fn commit(self) -> Result<()> {
        for (temporary, path) in &self.staged {
            std::fs::rename(temporary, path)
                .map_err(|source| BertError::Io { path: path.clone(), source })?;
        }
        // The names themselves are on the disk once the folder is; some file systems cannot promise that.
        let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

/// Writes one file beside its final name, then renames it.
///
/// # Errors
/// `Io`.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut files = StagedFiles::new(folder)?;
    files.write(&name, |file| file.write_all(content))?;
    files.commit()
}

impl Drop for StagedFiles {
    fn drop(&mut self) {
        for (temporary, _) in &self.staged {
            // Renamed already, or beyond help: an error that matters is on its way.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let names = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        std::fs::write(folder.path().join("a"), "old").unwrap();
        let mut files = StagedFiles::new(folder.path()).unwrap();
        files.write_text("a", "new").unwrap();
        let full = |_: &mut BufWriter<File>| Err(std::io::ErrorKind::StorageFull.into());
        assert!(files.write("b", full).is_err());
        drop(files);
        assert_eq!(names(), ["a"]);
        assert_eq!(std::fs::read_to_string(folder.path().join("a")).unwrap(), "old");

        let mut files = StagedFiles::new(folder.path()).unwrap();
        files.write_text("a", "new").unwrap();
        files.write_text("b", "new").unwrap();
        files.commit().unwrap();
        assert_eq!(names(), ["a", "b"]);
        assert_eq!(std::fs::read_to_string(folder.path().join("a")).unwrap(), "new");
    }
}
