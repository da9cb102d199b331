//! The cache: where the files of a commit are, and which of them are there.

use crate::listing::{Hash, Listing};
use crate::name::is_commit;
use crate::{HubError, RepoId, Result, io};
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The most bytes of a listing that are read: the largest data sets have some 100,000 files.
const MAX_TREE: u64 = 64 << 20;

/// A repository at a commit, as the hub or the cache describes it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    id: RepoId,
    listing: Listing,
    listed: bool,
    cache: PathBuf,
}

impl Snapshot {
    /// What the hub has just said.
    pub(crate) fn new(cache: &Path, id: &RepoId, listing: Listing) -> Self {
        Snapshot { id: id.clone(), listing, listed: true, cache: cache.to_owned() }
    }

    /// What the cache has of a revision.
    pub(crate) fn cached(cache: &Path, id: &RepoId) -> Result<Option<Self>> {
        let storage = cache.join(id.folder_name());
        let commit = match is_commit(&id.revision) {
            true => id.revision.clone(),
            false => match read(&storage.join("refs").join(&id.revision), 1 << 10)? {
                Some(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
                None => return Ok(None),
            },
        };
        if !is_commit(&commit) {
            return Ok(None);
        }
        let tree = read(&storage.join("trees").join(format!("{commit}.json")), MAX_TREE)?;
        let listing = tree.and_then(|json| Listing::from_cache(&commit, &json));
        let folder = storage.join("snapshots").join(&commit);
        let (listing, listed) = match listing {
            Some(listing) => (listing, true),
            None if folder.is_dir() => (Listing::of_files(&commit, files_in(&folder)), false),
            None => return Ok(None),
        };
        Ok(Some(Snapshot { id: id.clone(), listing, listed, cache: cache.to_owned() }))
    }

    /// The repository, at the revision that was asked for.
    pub fn id(&self) -> &RepoId {
        &self.id
    }

    /// The repository at its commit.
    pub fn at_commit(&self) -> RepoId {
        RepoId { revision: self.listing.commit().to_owned(), ..self.id.clone() }
    }

    /// The files of the commit.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Whether the listing is the hub's. Else it is only of the files that another program has fetched, and the repository may have
    /// more.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// The folder that holds the files under their names.
    pub fn folder(&self) -> PathBuf {
        self.storage().join("snapshots").join(self.listing.commit())
    }

    /// Whether a file is there, with the size that it should have.
    pub fn has(&self, name: &str) -> bool {
        let there = fs::metadata(self.folder().join(name));
        let size = self.listing.get(name).map(|file| file.size);
        there.is_ok_and(|there| there.is_file() && size == Some(there.len()))
    }

    /// Those of `files` that are not there.
    pub fn missing(&self, files: &[String]) -> Vec<String> {
        files.iter().filter(|name| !self.has(name)).cloned().collect()
    }

    fn storage(&self) -> PathBuf {
        self.cache.join(self.id.folder_name())
    }

    pub(crate) fn blob(&self, hash: &Hash) -> PathBuf {
        self.storage().join("blobs").join(hash.digits())
    }

    pub(crate) fn lock_path(&self, hash: &Hash) -> PathBuf {
        self.cache.join(".locks").join(self.id.folder_name()).join(format!("{}.lock", hash.digits()))
    }

    /// Gives a blob its name in the snapshot, which appears in one step: a link with a relative target, so that the cache can be moved,
    /// or else another name of the same file, or a copy.
    pub(crate) fn link(&self, name: &str, hash: &Hash) -> Result<()> {
        let (blob, path) = (self.blob(hash), self.folder().join(name));
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(io(folder))?;
        let above = "../".repeat(2 + name.matches('/').count());
        let fresh = temporary(&path);
        let _ = fs::remove_file(&fresh);
        let made = symlink(&format!("{above}blobs/{}", hash.digits()), &fresh)
            .or_else(|_| fs::hard_link(&blob, &fresh))
            .or_else(|_| fs::copy(&blob, &fresh).map(drop));
        made.and_then(|()| fs::rename(&fresh, &path)).map_err(|source| {
            let _ = fs::remove_file(&fresh);
            HubError::Io { path, source }
        })
    }

    /// Keeps the listing, and that the revision is now this commit. What the cache says already is not written again: it may be
    /// read-only.
    ///
    /// # Errors
    /// `Io`.
    pub fn remember(&self) -> Result<()> {
        let storage = self.storage();
        let commit = self.listing.commit();
        if self.listed {
            write(&storage.join("trees").join(format!("{commit}.json")), &self.listing.to_cache())?;
        }
        if self.id.revision != commit {
            write(&storage.join("refs").join(&self.id.revision), commit)?;
        }
        Ok(())
    }
}

#[cfg(unix)]
fn symlink(target: &str, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_target: &str, _link: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// A name beside `path` for this process until the file is whole.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// Writes a small file whole, unless this is what stands there.
fn write(path: &Path, text: &str) -> Result<()> {
    if read(path, MAX_TREE)?.is_some_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(io(folder))?;
    let fresh = temporary(path);
    fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, path)).map_err(|source| {
        let _ = fs::remove_file(&fresh);
        HubError::Io { path: path.to_owned(), source }
    })
}

/// The bytes of a small file; nothing if there is none, or one that is larger.
fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut read = || {
        // A pipe would be waited for.
        if !fs::metadata(path)?.is_file() {
            return Err(ErrorKind::NotFound.into());
        }
        fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)
    };
    match read() {
        Ok(count) => Ok((count as u64 <= most).then_some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(HubError::Io { path: path.to_owned(), source }),
    }
}

/// The files below a folder, as paths with / and their sizes. Nothing deeper than the folders of data sets is looked at.
fn files_in(folder: &Path) -> Vec<(String, u64)> {
    fn add(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<(String, u64)>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match fs::metadata(entry.path()) {
                Ok(there) if there.is_file() => found.push((name, there.len())),
                Ok(there) if there.is_dir() && depth > 0 => {
                    add(&entry.path(), &format!("{name}/"), depth - 1, found);
                }
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    add(folder, "", 4, &mut found);
    found
}
