//! Models and data sets of the Hugging Face hub. This is the only crate with network code, and none of it runs unless [`Hub::look_up`]
//! or [`Hub::download`] is called.
//!
//! Files go into the cache that Python's `huggingface_hub` uses, so that the two share it:
//!
//! ```text
//! $HF_HUB_CACHE/models--OWNER--NAME/       datasets--OWNER--NAME/ for data sets
//!     refs/main                            the commit that `main` was at the last look
//!     trees/COMMIT.json                    what the hub says of every file of a commit: size and hash
//!     blobs/HASH                           a file's bytes: SHA-256 for large files (LFS), git's SHA-1 for others
//!     blobs/HASH.incomplete                a download that has not ended
//!     snapshots/COMMIT/config.json         a link to a blob
//! $HF_HUB_CACHE/.locks/models--OWNER--NAME/HASH.lock
//! ```
//!
//! A blob gets its name when its size and its hash are those that the hub announced, so nothing half-written is ever read. The listing
//! in `trees/` says which files a commit has. So it is known without a network whether a snapshot is whole, and a tokenizer is never
//! read without a file that somebody has not fetched yet.
//!
//! **Why not `hf-hub`.** Its version 0.5 downloads a file, and little else: no hashes, no `HF_TOKEN`, no offline mode, no retry of the
//! request for metadata; a resumed file is not verified, a lock is waited for 5 seconds; and its errors have lost the headers of the answer
//! (`X-Error-Code`, `Retry-After`), so they cannot say what to do. All of that would stand around it, and only the joining of URLs would
//! remain inside. `ureq` itself is what it would bring anyway, without `indicatif`, `rand` and `dirs`.
//!
//! Sources: huggingface_hub 2.4, `constants.py` (variables and folders), `file_download.py` (links, refs, locks), `_tree_cache.py`
//! (listings), `utils/_http.py` (what the status codes mean), `utils/_validators.py` (names).

mod address;
mod cache;
mod client;
mod download;
mod error;
mod listing;
mod name;
mod settings;

pub use cache::Snapshot;
pub use error::{HubError, Result};
pub use listing::{Hash, Listing, RemoteFile};
pub use name::{Kind, RepoId, origin};
pub use settings::Settings;

use client::Client;
use std::path::{Path, PathBuf};

/// What happens during a download, for those who wait for it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A file is being fetched: `done` of its `total` bytes are here.
    Bytes {
        /// Its path in the repository.
        file: &'a str,
        /// Bytes that are here, those of an earlier download included.
        done: u64,
        /// Bytes of the file.
        total: u64,
    },
    /// Bytes of an earlier download are there, and only the rest is fetched.
    Resumed {
        /// The file.
        file: &'a str,
        /// Bytes that are there.
        from: u64,
    },
    /// Another process downloads this file, and its end is waited for.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// A request failed, and is made again.
    Retry {
        /// What failed.
        why: &'a str,
        /// Seconds until then.
        seconds: f64,
    },
    /// The hub cannot be reached, and what the cache has is used.
    Stale {
        /// Why not.
        why: &'a str,
    },
    /// Another program has filled the cache and kept no listing, and there is no network: the repository may have more files.
    Unlisted,
}

/// Takes the events of a download. The crate itself prints nothing.
pub type Observer<'a> = dyn FnMut(Event<'_>) + 'a;

/// Chooses the files that are wanted from all paths of a repository; or says what it has instead, and what to do.
pub type Select<'a> = dyn Fn(&[&str]) -> std::result::Result<Vec<String>, String> + 'a;

/// A hub and a cache.
pub struct Hub {
    settings: Settings,
    client: Client,
}

impl Hub {
    /// The hub and the cache of these settings. Nothing is opened yet.
    ///
    /// # Errors
    /// `Setting` for certificates that cannot be read.
    pub fn new(settings: Settings) -> Result<Self> {
        let client = Client::new(&settings)?;
        Ok(Hub { settings, client })
    }

    /// The hub and the cache that the environment names.
    ///
    /// # Errors
    /// `Setting`.
    pub fn from_env() -> Result<Self> {
        Hub::new(Settings::from_env()?)
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the cache has of a revision, or nothing if it has never been fetched. No network code is called.
    ///
    /// # Errors
    /// `Io` where the cache cannot be read.
    pub fn cached(&self, id: &RepoId) -> Result<Option<Snapshot>> {
        Snapshot::cached(&self.settings.cache, id)
    }

    /// What the hub has at a revision: one request.
    ///
    /// # Errors
    /// `Offline` if the settings forbid it; `Unreachable`, `NotFound`, `Revision`, `Gated`, `Token`, `Status`, `Protocol`.
    pub fn look_up(&self, id: &RepoId, observer: &mut Observer<'_>) -> Result<Snapshot> {
        if self.settings.offline {
            return Err(HubError::Offline { what: id.to_string(), cache: self.settings.cache.clone() });
        }
        let listing = self.client.listing(id, observer)?;
        Ok(Snapshot::new(&self.settings.cache, id, listing))
    }

    /// A revision and the files that are wanted of it: as the cache has them if that has all, else as the hub has them. With `refresh`
    /// the hub is asked in any case, since a branch may have moved. Nothing is downloaded yet.
    ///
    /// # Errors
    /// Those of [`Hub::look_up`], where the cache does not do; `Unfit` for what `select` refuses; `Io`.
    pub fn find(
        &self,
        id: &RepoId,
        refresh: bool,
        select: &Select<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<(Snapshot, Vec<String>)> {
        let choose = |snapshot: Snapshot| {
            let names: Vec<&str> = snapshot.listing().names().collect();
            let unfit = |why| HubError::Unfit { id: id.to_string(), why };
            select(&names).map_err(unfit).map(|files| (snapshot, files))
        };
        let cached = self.cached(id)?.map(|snapshot| (snapshot.is_listed(), choose(snapshot)));
        let (listed, cached) = cached.map_or((false, None), |(listed, chosen)| (listed, chosen.ok()));
        let is_whole = cached.as_ref().is_some_and(|(snapshot, files)| snapshot.missing(files).is_empty());
        let never_moves = cached.as_ref().is_some_and(|(snapshot, _)| snapshot.at_commit() == *id);
        let error = match cached {
            Some(found) if listed && (never_moves || is_whole && !refresh) => return Ok(found),
            _ => match self.look_up(id, observer) {
                Ok(snapshot) => return choose(snapshot),
                Err(error) => error,
            },
        };
        match (error, cached) {
            (error @ (HubError::Offline { .. } | HubError::Unreachable { .. }), Some(found)) if is_whole => {
                if !listed {
                    observer(Event::Unlisted);
                }
                if let HubError::Unreachable { why, .. } = &error {
                    observer(Event::Stale { why });
                }
                Ok(found)
            }
            (error, Some((snapshot, files))) => {
                let lacking = format!("{} of {id}", snapshot.missing(&files).join(", "));
                Err(error.about(lacking))
            }
            (error, None) => Err(error),
        }
    }

    /// Fetches those of `files` that the cache lacks, in the order given, and gives the snapshot's folder. [`Snapshot::remember`]
    /// then makes the revision's name stand for this commit.
    ///
    /// # Errors
    /// `Entry` for a file that the listing has not; those of [`Hub::look_up`]; `Size`, `Mismatch` for files that are not what the hub
    /// announced; `Full`, `Io`.
    pub fn download(
        &self,
        snapshot: &Snapshot,
        files: &[String],
        observer: &mut Observer<'_>,
    ) -> Result<PathBuf> {
        if self.settings.offline && !snapshot.missing(files).is_empty() {
            let what = format!("{} of {}", snapshot.missing(files).join(", "), snapshot.id());
            return Err(HubError::Offline { what, cache: self.settings.cache.clone() });
        }
        for name in files {
            let file = snapshot
                .listing()
                .get(name)
                .ok_or_else(|| HubError::Entry { id: snapshot.id().to_string(), file: name.clone() })?;
            if !snapshot.has(name) {
                download::fetch(&self.client, snapshot, name, file, observer)?;
            }
        }
        Ok(snapshot.folder())
    }
}

/// An error of a file or folder of the cache.
fn io(path: &Path) -> impl FnOnce(std::io::Error) -> HubError + '_ {
    move |source| HubError::Io { path: path.to_owned(), source }
}
