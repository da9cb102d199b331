//! A model replaced by another so that no reader meets a mixture of the two, also when the process is killed between any two
//! steps.
//!
//! A file system renames one file at a time, and `transformers` looks at file names only. So the old files leave before the
//! new ones enter, and `config.json`, without which nothing loads a model, leaves first and enters last:
//!
//! | step | `transformers` finds | a killed run is |
//! |---|---|---|
//! | 1. the new files, complete and on the disk, are in a folder `.vitrine-new.PID.partial` | the old model | forgotten |
//! | 2. that folder is named `.vitrine-new.whole` | the old model | finished from step 3 on |
//! | 3. the old files leave, `config.json` first | no model | finished from step 3 on |
//! | 4. the folder is named `.vitrine-new.entering` | no model | finished from step 5 on |
//! | 5. the new files enter, `config.json` last | no model | finished from step 5 on |
//! | 6. the empty folder goes | the new model | finished |
//!
//! Steps 3 to 5 are some twenty renames, a fraction of a millisecond. Who finishes: the next run that reads or writes the
//! folder. To this crate the new model is thus there from step 2 on, and the old one before. Nothing but renames inside one
//! folder is needed, so this holds on every file system, for folders that are mounts, links, or somebody's current folder, and
//! beside files of others. (Exchanging two folders would be one step, but not there.)

use super::claim::partial;
use super::{MODEL_FILES, OLD};
use crate::{BertError, FolderProblem, Result};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Complete; the old files have not all left.
const WHOLE: &str = ".vitrine-new.whole";
/// Complete together with what is in its place already.
const ENTERING: &str = ".vitrine-new.entering";

type Rename<'a> = &'a mut dyn FnMut(&Path, &Path) -> io::Result<()>;

/// Renames, and takes all of it back when one fails.
struct Renames<'a> {
    rename: Rename<'a>,
    done: Vec<(PathBuf, PathBuf)>,
}

impl Renames<'_> {
    fn rename(&mut self, from: PathBuf, to: PathBuf) -> Result<()> {
        (self.rename)(&from, &to).map_err(|source| BertError::Io { path: to.clone(), source })?;
        self.done.push((from, to));
        Ok(())
    }

    fn undo(&mut self) {
        while let Some((from, to)) = self.done.pop() {
            // The error that led here is told; there is no better one.
            let _ = fs::rename(to, from);
        }
    }
}

/// Puts the files of `staging`, a folder inside `folder`, in the place of the model that is there. `rename` is
/// [`std::fs::rename`], except in tests.
///
/// # Errors
/// `Io`; then everything is as it was.
pub(super) fn replace(folder: &Path, staging: &Path, rename: Rename) -> Result<()> {
    let mut renames = Renames { rename, done: Vec::new() };
    sync(staging);
    let replaced = renames.rename(staging.to_owned(), folder.join(WHOLE)).and_then(|()| {
        // From here on a killed run is finished. What follows may reach the disk when it does: file systems with a journal
        // keep the order of renames.
        sync(folder);
        enter(folder, &mut renames)
    });
    if replaced.is_err() {
        renames.undo();
        let _ = fs::remove_dir(folder.join(partial(OLD)));
    }
    replaced
}

/// Whether a replacement goes on, or was killed.
pub(super) fn is_unfinished(folder: &Path) -> bool {
    [WHOLE, ENTERING].iter().any(|name| folder.join(name).is_dir())
}

/// Finishes the replacement of a killed run; `true` if there was one. The folder has to be claimed.
///
/// # Errors
/// `Folder`.
pub(super) fn finish(folder: &Path) -> Result<bool> {
    finish_by(folder, &mut |from, to| fs::rename(from, to))
}

pub(super) fn finish_by(folder: &Path, rename: Rename) -> Result<bool> {
    if !is_unfinished(folder) {
        return Ok(false);
    }
    enter(folder, &mut Renames { rename, done: Vec::new() }).map_err(|error| {
        let why = FolderProblem::Unfinished { error: error.to_string() };
        BertError::Folder { folder: folder.to_owned(), why }
    })?;
    Ok(true)
}

/// Steps 3 to 6.
fn enter(folder: &Path, renames: &mut Renames) -> Result<()> {
    let (whole, entering, old) = (folder.join(WHOLE), folder.join(ENTERING), folder.join(partial(OLD)));
    let io = |path: &Path| {
        let path = path.to_owned();
        |source| BertError::Io { path, source }
    };
    if whole.is_dir() {
        if !old.is_dir() {
            fs::create_dir(&old).map_err(io(&old))?;
        }
        let new = names(&whole).map_err(io(&whole))?;
        let known = MODEL_FILES.iter().map(|&name| name.to_owned());
        let others = new.into_iter().filter(|name| !MODEL_FILES.contains(&name.as_str()));
        // What the old model has and the new one has not leaves, too. A folder of such a name is somebody else's.
        for name in known.chain(others) {
            let path = folder.join(&name);
            if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_dir()) {
                renames.rename(path, old.join(name))?;
            }
        }
        renames.rename(whole, entering.clone())?;
    }
    let mut new = names(&entering).map_err(io(&entering))?;
    // Names that are not known first, then the known from last to first.
    let place = |name: &String| MODEL_FILES.iter().position(|known| known == name).unwrap_or(usize::MAX);
    new.sort_by_key(|name| std::cmp::Reverse(place(name)));
    for name in new {
        renames.rename(entering.join(&name), folder.join(&name))?;
    }
    // The names are on the disk once the folder is; some file systems cannot promise that.
    sync(folder);
    let _ = fs::remove_dir(entering);
    let _ = fs::remove_dir_all(old);
    Ok(())
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn sync(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}
