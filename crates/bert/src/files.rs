//! [`StagedFiles`]: the files of a model folder, which appear together or not at all.

mod claim;
mod replace;
mod reserve;
#[cfg(test)]
mod tests;

use crate::{BertError, CONFIG_FILE, FolderProblem, Result, WEIGHTS_FILE};
use claim::{Claim, Stamp};
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

/// What a run of this program writes into a model folder, in the order in which loaders look for it. A new model replaces all
/// of it: what it has none of is removed, since `added_tokens.json` or a report of another model would speak of this one.
const MODEL_FILES: [&str; 13] = [
    CONFIG_FILE,
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    WEIGHTS_FILE,
    "run.json",
    "metrics.jsonl",
    "predictions.jsonl",
    "report.html",
];

/// What the folders of new files, and of old ones that leave, are called.
const NEW: &str = "vitrine-new";
const OLD: &str = "vitrine-old";

/// Files of one folder that get their names together, by [`commit`](StagedFiles::commit); until then nothing in the folder
/// changes for a reader, and dropping the value removes what was written.
///
/// - While the value lives no other run writes into the folder.
/// - A process that is killed leaves the old files or the new ones, never some of each (`files/replace.rs` says how).
/// - Files are replaced by renaming, which leaves alone what somebody has mapped into memory, such as the weights that are
///   being written back to their own folder.
pub struct StagedFiles {
    claim: Claim,
    folder: PathBuf,
    /// Where files are until they get their names: inside `folder`, so on the same file system.
    staging: PathBuf,
    /// Each name with its file, whose position is the end of what was written.
    files: Vec<(String, File)>,
    /// What stood in the folder when it was claimed, or was put there by `commit`.
    stands: Stamp,
}

impl StagedFiles {
    /// Claims a folder, whatever is in it, and makes it if there is none.
    ///
    /// # Errors
    /// `Folder` if another run writes into it, or it is no folder; `Io` if nothing can be written there.
    pub fn new(folder: &Path) -> Result<Self> {
        Self::of(Claim::new(folder)?, folder)
    }

    /// As [`StagedFiles::new`], of a folder that is missing or empty. What a killed run has left does not count.
    ///
    /// # Errors
    /// The same, and `Folder` if it is not empty.
    pub fn in_empty_folder(folder: &Path) -> Result<Self> {
        let claim = Claim::new(folder)?;
        match claim::is_empty(folder) {
            Ok(true) => Self::of(claim, folder),
            Ok(false) => Err(BertError::Folder { folder: folder.to_owned(), why: FolderProblem::NotEmpty }),
            Err(source) => Err(BertError::Io { path: folder.to_owned(), source }),
        }
    }

    fn of(claim: Claim, folder: &Path) -> Result<Self> {
        let staging = folder.join(claim::partial(NEW));
        fs::create_dir(&staging).map_err(|source| BertError::Io { path: folder.to_owned(), source })?;
        let stands = Stamp::of(folder);
        Ok(StagedFiles { claim, folder: folder.to_owned(), staging, files: Vec::new(), stands })
    }

    /// Where the files will be.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn io(&self, name: &str) -> impl FnOnce(io::Error) -> BertError + use<> {
        let path = self.folder.join(name);
        |source| BertError::Io { path, source }
    }

    /// Takes room on the disk for a file that will be written later, so that a full disk shows now.
    ///
    /// # Errors
    /// `Io` naming the file and its size, if the disk has no such room.
    pub fn reserve(&mut self, name: &str, bytes: u64) -> Result<()> {
        let file = self.create(name)?;
        reserve::allocate(&file, bytes).map_err(|error| {
            let mib = bytes as f64 / f64::from(1 << 20);
            let text = format!("{error}; there has to be room for its {mib:.1} MiB");
            self.io(name)(io::Error::new(error.kind(), text))
        })
    }

    /// Opens one file from its beginning, for a log that grows while other files are made. One that was reserved keeps its
    /// room until [`commit`](StagedFiles::commit).
    ///
    /// # Errors
    /// `Io` naming the file, also when a folder has its name.
    pub fn create(&mut self, name: &str) -> Result<File> {
        if self.folder.join(name).is_dir() {
            // No file takes the name of a folder.
            return Err(self.io(name)(io::ErrorKind::IsADirectory.into()));
        }
        if let Some((_, file)) = self.files.iter().find(|(there, _)| there == name) {
            let mut file = file.try_clone().map_err(self.io(name))?;
            return file.rewind().map(|()| file).map_err(self.io(name));
        }
        let file = File::create(self.staging.join(name)).map_err(self.io(name))?;
        let shared = file.try_clone().map_err(self.io(name))?;
        self.files.push((name.to_owned(), file));
        Ok(shared)
    }

    /// Writes one file through a buffer.
    ///
    /// # Errors
    /// `Io` naming the file.
    pub fn write(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<()> {
        let mut writer = BufWriter::with_capacity(1 << 20, self.create(name)?);
        content(&mut writer).and_then(|()| writer.flush()).map_err(self.io(name))
    }

    /// Writes one file of known content.
    ///
    /// # Errors
    /// As [`StagedFiles::write`].
    pub fn write_text(&mut self, name: &str, text: &str) -> Result<()> {
        self.write(name, |file| file.write_all(text.as_bytes()))
    }

    /// Takes a file that grew under its own name, be it in this folder, to the others, so that it stays when they replace what
    /// is there.
    ///
    /// # Errors
    /// `Io` naming the file.
    pub fn adopt(&mut self, name: &str, from: &Path) -> Result<()> {
        let staged = self.staging.join(name);
        let adopted = match fs::hard_link(from, &staged) {
            Ok(()) => Ok(()),
            // Another file system, or one without such links; a copy may be there from an attempt before.
            Err(_) => fs::copy(from, &staged).map(drop),
        };
        let finished = adopted.and_then(|()| {
            let file = File::options().write(true).open(&staged)?;
            // What was reserved behind its end and not needed goes back.
            file.set_len(file.metadata()?.len())?;
            file.sync_all()
        });
        finished.map_err(self.io(name))
    }

    /// Makes sure that every file is on the disk, then gives each its name. The folder stays claimed.
    ///
    /// # Errors
    /// `Io` when a file does not fit or a rename is refused; `Folder` when another program has put a model there, or a folder of
    /// that name, since this value was made. Then everything is as it was.
    pub fn commit(&mut self) -> Result<()> {
        for (name, file) in &self.files {
            // What was reserved and not needed goes back. Some file systems say only at the end that the disk is full.
            let mut position = file;
            let ended = position.stream_position().and_then(|end| file.set_len(end));
            ended.and_then(|()| file.sync_all()).map_err(self.io(name))?;
            if self.folder.join(name).is_dir() {
                return Err(self.io(name)(io::ErrorKind::IsADirectory.into()));
            }
        }
        self.check_unchanged()?;
        self.files.clear();
        replace::replace(&self.folder, &self.staging, &mut |from, to| fs::rename(from, to))?;
        self.claim.keep();
        self.stands = Stamp::of(&self.folder);
        Ok(())
    }

    /// After [`commit`](StagedFiles::commit): replaces one file that has no part in what the model is, such as a report.
    ///
    /// # Errors
    /// `Io`; `Folder` when the folder is not the same or holds another model by now.
    pub fn rewrite(&self, name: &str, text: &str) -> Result<()> {
        self.check_unchanged()?;
        write_atomically(&self.folder.join(name), text.as_bytes())
    }

    fn check_unchanged(&self) -> Result<()> {
        if self.claim.holds() && Stamp::of(&self.folder) == self.stands {
            return Ok(());
        }
        Err(BertError::Folder { folder: self.folder.clone(), why: FolderProblem::Changed })
    }
}

impl Drop for StagedFiles {
    fn drop(&mut self) {
        // There is none after `commit`, and an error that matters is on its way.
        let _ = fs::remove_dir_all(&self.staging);
    }
}

/// Takes room on the disk for what a file will grow to, and leaves its length as it is. Where the file system cannot do that,
/// nothing is promised.
///
/// # Errors
/// `Io` naming the file and its size, if the disk has no such room.
pub fn reserve_growth(file: &File, path: &Path, bytes: u64) -> Result<()> {
    reserve::keep_size(file, bytes).map_err(|error| {
        let mib = bytes as f64 / f64::from(1 << 20);
        let text = format!("{error}; there has to be room for its {mib:.1} MiB");
        BertError::Io { path: path.to_owned(), source: io::Error::new(error.kind(), text) }
    })
}

/// Writes one file beside its final name, then renames it.
///
/// # Errors
/// `Io`.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(claim::partial(&name));
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&temporary);
        BertError::Io { path: path.to_owned(), source }
    })
}

/// Reads a model folder whole: finishes what a killed run has begun to replace there, and reads again if a run replaces the
/// model meanwhile. Also a line for the user, if there was something to finish.
///
/// # Errors
/// `Folder` if the folder does not come to rest; those of `read`.
pub(crate) fn read_whole<T>(folder: &Path, read: impl Fn() -> Result<T>) -> Result<(T, Option<String>)> {
    const ATTEMPTS: usize = 5;
    let mut finished = false;
    for _ in 0..ATTEMPTS {
        finished |= claim::settle(folder)?;
        let before = Stamp::of(folder);
        let result = read();
        if before == Stamp::of(folder) && !replace::is_unfinished(folder) {
            let note =
                || format!("{}: a killed run had left its new model; it is in place now", folder.display());
            return result.map(|value| (value, finished.then(note)));
        }
    }
    Err(BertError::Folder { folder: folder.to_owned(), why: FolderProblem::Changed })
}
