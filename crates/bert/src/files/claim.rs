//! One writer a folder: [`Claim`] makes the folder if there is none, locks it, and clears away what dead runs left.

use super::{MODEL_FILES, replace};
use crate::{BertError, FolderProblem, Result};
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How long a lock is waited for. Others that hold it for a moment only look, or end the work of a killed run.
const LOOKING: Duration = Duration::from_millis(300);
/// How long a replacement that goes on in another process is waited for: it is a few renames.
const REPLACING: Duration = Duration::from_secs(10);

/// The name of a folder for files that have no place yet; what else has such a name was left by a dead run.
pub(super) fn partial(what: &str) -> String {
    format!(".{what}.{}.partial", std::process::id())
}

/// The process that a `.NAME.PID.partial` belongs to, where NAME is one that this crate stages.
fn process_of(name: &str) -> Option<u32> {
    let (what, pid) = name.strip_prefix('.')?.strip_suffix(".partial")?.rsplit_once('.')?;
    let ours = [super::NEW, super::OLD].contains(&what) || MODEL_FILES.contains(&what);
    pid.parse().ok().filter(|_| ours)
}

/// A folder that no other run writes into while this value lives.
///
/// The lock is `flock` on the folder itself: it leaves nothing behind, and ends with the process, however that ends. Where a
/// system cannot lock a folder, the only guard is that [`Stamp`] is looked at again before files get their names; between
/// machines that share a network file system it is so, too.
pub(super) struct Claim {
    folder: PathBuf,
    /// Open and locked, where that is possible.
    handle: Option<File>,
    /// Folders that were made for this claim, outermost first; they go with it unless it is kept.
    made: Vec<PathBuf>,
}

impl Claim {
    /// Claims a folder.
    ///
    /// # Errors
    /// `Folder` if it is in use or no folder; `Io` if it cannot be made or looked into.
    pub fn new(folder: &Path) -> Result<Self> {
        let io = |source| BertError::Io { path: folder.to_owned(), source };
        let problem = |why| BertError::Folder { folder: folder.to_owned(), why };
        let started = Instant::now();
        loop {
            let mut claim =
                Claim { folder: folder.to_owned(), handle: None, made: make(folder).map_err(io)? };
            match fs::metadata(folder) {
                Ok(found) if !found.is_dir() => return Err(problem(FolderProblem::NotAFolder)),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if let Ok(target) = fs::read_link(folder) {
                        return Err(problem(FolderProblem::DanglingLink { target }));
                    }
                    // Whoever made it has just removed it.
                    if started.elapsed() < LOOKING {
                        continue;
                    }
                    return Err(io(error));
                }
                Err(error) => return Err(io(error)),
            }
            claim.handle = File::open(folder).ok();
            match claim.handle.as_ref().map(File::try_lock) {
                Some(Err(TryLockError::WouldBlock)) => {
                    // Another run uses the folder that this one may have made.
                    claim.made.clear();
                    let pid = writer(folder);
                    if pid.is_some() || started.elapsed() > LOOKING {
                        return Err(problem(FolderProblem::InUse { pid }));
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                // The folder that is locked may have been removed before it was.
                _ if !claim.holds() => claim.made.clear(),
                _ => {
                    replace::finish(folder)?;
                    remove_leftovers(folder).map_err(io)?;
                    return Ok(claim);
                }
            }
        }
    }

    /// Whether the path still leads to the folder that was claimed.
    pub fn holds(&self) -> bool {
        let there = fs::metadata(&self.folder);
        match &self.handle {
            Some(handle) => handle
                .metadata()
                .and_then(|claimed| Ok(identity(&claimed) == identity(&there?)))
                .unwrap_or(false),
            None => there.is_ok(),
        }
    }

    /// The folder stays.
    pub fn keep(&mut self) {
        self.made.clear();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A folder that somebody else has put in its place is theirs.
        let made = if self.holds() { self.made.as_slice() } else { &[] };
        for folder in made.iter().rev() {
            // Refused, as it should be, where there are files in it.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Makes a folder and those above it; which ones were made, outermost first.
fn make(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_err();
    let missing: Vec<&Path> = folder.ancestors().take_while(is_missing).collect();
    let mut made = Vec::new();
    for path in missing.into_iter().rev() {
        match fs::create_dir(path) {
            Ok(()) => made.push(path.to_owned()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                made.iter().rev().for_each(|path| drop(fs::remove_dir(path)));
                return Err(error);
            }
        }
    }
    Ok(made)
}

/// Whether a folder holds nothing but what dead runs left.
pub(super) fn is_empty(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if process_of(&entry?.file_name().to_string_lossy()).is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The process whose unfinished files are in a folder.
fn writer(folder: &Path) -> Option<u32> {
    let entries = fs::read_dir(folder).ok()?;
    entries.flatten().find_map(|entry| process_of(&entry.file_name().to_string_lossy()))
}

/// Removes what dead runs left. The folder is claimed, so no living one has left it.
fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if process_of(&entry.file_name().to_string_lossy()).is_some() {
            // What cannot be removed is in nobody's way.
            let _ = if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
        }
    }
    Ok(())
}

/// Which model stands in a folder: it changes whenever one is written there, by whatever program.
#[derive(PartialEq, Eq)]
pub(super) struct Stamp([Option<(Identity, u64, Option<SystemTime>)>; 2]);

impl Stamp {
    pub fn of(folder: &Path) -> Self {
        Stamp([crate::CONFIG_FILE, crate::WEIGHTS_FILE].map(|name| {
            let found = fs::metadata(folder.join(name)).ok()?;
            Some((identity(&found), found.len(), found.modified().ok()))
        }))
    }
}

type Identity = (u64, u64);

/// Device and number of a file or folder.
#[cfg(unix)]
fn identity(found: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino())
}

#[cfg(not(unix))]
fn identity(_found: &Metadata) -> Identity {
    (0, 0)
}

/// Finishes what a killed run has begun to replace in a folder that is about to be read; `true` if there was something. A
/// replacement that goes on is waited for.
///
/// # Errors
/// `Folder` if it cannot be finished.
pub(super) fn settle(folder: &Path) -> Result<bool> {
    let started = Instant::now();
    while replace::is_unfinished(folder) {
        let handle = File::open(folder).ok();
        if let Some(Err(TryLockError::WouldBlock)) = handle.as_ref().map(File::try_lock) {
            if started.elapsed() > REPLACING {
                let why = FolderProblem::InUse { pid: writer(folder) };
                return Err(BertError::Folder { folder: folder.to_owned(), why });
            }
            std::thread::sleep(Duration::from_millis(10));
        } else {
            let finished = replace::finish(folder)?;
            // What cannot be removed is in no reader's way.
            let _ = remove_leftovers(folder);
            return Ok(finished);
        }
    }
    Ok(false)
}
