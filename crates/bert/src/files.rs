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
    /// Whether the folder is of this value's making.
    made: bool,
    /// Temporary and final names.
    staged: Vec<(PathBuf, PathBuf)>,
}

impl StagedFiles {
    /// Creates the folder if there is none.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(folder: &Path) -> Result<Self> {
        let made = !folder.exists();
        std::fs::create_dir_all(folder)
            .map_err(|source| BertError::Io { path: folder.to_owned(), source })?;
        Ok(StagedFiles { folder: folder.to_owned(), made, staged: Vec::new() })
    }

    /// As [`StagedFiles::new`] in a folder that nobody else has made.
    ///
    /// # Errors
    /// `Io`, of the kind `AlreadyExists` if there is such a folder.
    pub fn in_new_folder(folder: &Path) -> Result<Self> {
        std::fs::create_dir(folder).map_err(|source| BertError::Io { path: folder.to_owned(), source })?;
        Ok(StagedFiles { folder: folder.to_owned(), made: true, staged: Vec::new() })
    }

    /// Where the files will be.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens one file, for a log that grows while other files are made.
    ///
    /// # Errors
    /// `Io` naming the file.
    pub fn create(&mut self, name: &str) -> Result<File> {
        let path = self.folder.join(name);
        let temporary = self.folder.join(format!(".{name}.{}.partial", std::process::id()));
        let file = File::create(&temporary);
        self.staged.push((temporary, path.clone()));
        file.map_err(|source| BertError::Io { path, source })
    }

    /// Writes one file through a buffer.
    ///
    /// # Errors
    /// `Io` naming the file.
    pub fn write(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<()> {
        let mut writer = BufWriter::with_capacity(1 << 20, self.create(name)?);
        let written = content(&mut writer).and_then(|()| writer.flush());
        written.map_err(|source| BertError::Io { path: self.folder.join(name), source })
    }

    /// Writes one file of known content.
    ///
    /// # Errors
    /// As [`StagedFiles::write`].
    pub fn write_text(&mut self, name: &str, text: &str) -> Result<()> {
        self.write(name, |file| file.write_all(text.as_bytes()))
    }

    /// Makes sure that every file is on the disk, then gives each its name.
    ///
    /// # Errors
    /// `Io` when a file does not fit, or a rename is refused.
    pub fn commit(self) -> Result<()> {
        let each = |act: &dyn Fn(&Path, &Path) -> std::io::Result<()>| {
            self.staged.iter().try_for_each(|(temporary, path)| {
                act(temporary, path).map_err(|source| BertError::Io { path: path.clone(), source })
            })
        };
        each(&|temporary, path| {
            // No file takes the name of a folder, and the first renames should not be in vain.
            if path.is_dir() {
                return Err(std::io::ErrorKind::IsADirectory.into());
            }
            // Some file systems say only now that the disk is full.
            File::options().write(true).open(temporary)?.sync_all()
        })?;
        each(&|temporary, path| std::fs::rename(temporary, path))?;
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
        if self.made {
            // Refused, as it should be, where there are files in it.
            let _ = std::fs::remove_dir(&self.folder);
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

        // A folder in the place of a file keeps all the others from being replaced.
        std::fs::create_dir(folder.path().join("c")).unwrap();
        let mut files = StagedFiles::new(folder.path()).unwrap();
        files.write_text("a", "newer").unwrap();
        files.write_text("c", "newer").unwrap();
        assert!(files.commit().is_err());
        assert_eq!(names(), ["a", "b", "c"]);
        assert_eq!(std::fs::read_to_string(folder.path().join("a")).unwrap(), "new");
    }

    #[test]
    fn a_folder_that_was_made_for_files_goes_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let (given_up, kept) = (folder.path().join("given_up"), folder.path().join("kept"));
        StagedFiles::new(&given_up).unwrap().write_text("a", "text").unwrap();
        assert!(!given_up.exists());
        let mut files = StagedFiles::new(&kept).unwrap();
        files.write_text("a", "text").unwrap();
        files.commit().unwrap();
        assert!(kept.join("a").is_file());
        StagedFiles::new(folder.path()).unwrap().write_text("a", "text").unwrap();
        assert!(folder.path().exists());
    }
}
