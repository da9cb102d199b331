//! One file: under a lock, beside its place until it is whole, and checked before it gets its name.

use crate::client::{Client, Retries, explained, is_transient, text};
use crate::listing::{Hasher, RemoteFile};
use crate::{Event, HubError, Observer, Result, Settings, Snapshot, io};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::Response;
use ureq::{Body, Error};

/// How often a lock of another process is tried.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Bytes that are read at once.
const CHUNK: usize = 1 << 16;

/// Fetches a file of a snapshot that is not there.
pub(crate) fn fetch(
    client: &Client,
    snapshot: &Snapshot,
    name: &str,
    file: &RemoteFile,
    observer: &mut Observer<'_>,
) -> Result<()> {
    let blob = snapshot.blob(&file.hash);
    let _lock = lock(&snapshot.lock_path(&file.hash), name, observer)?;
    // Another process may have fetched it while this one waited; or another revision has the same file.
    if !fs::metadata(&blob).is_ok_and(|there| there.is_file() && there.len() == file.size) {
        let mut part = Part::open(&blob, name, file)?;
        part.fill(client, snapshot, observer)?;
        fs::rename(&part.path, &blob).map_err(io(&blob))?;
    }
    snapshot.link(name, &file.hash)
}

/// The lock of a blob, which Python's huggingface_hub takes, too (`flock`). It ends with the process, however that ends. Where a file
/// system has no locks, two processes write the same bytes to the same places.
fn lock(path: &Path, name: &str, observer: &mut Observer<'_>) -> Result<File> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(io(folder))?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(io(path))?;
    let mut told = false;
    while let Err(TryLockError::WouldBlock) = file.try_lock() {
        if !told {
            observer(Event::Waiting { file: name });
            told = true;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(file)
}

/// A file that is not whole: `blobs/HASH.incomplete`.
struct Part<'a> {
    path: PathBuf,
    name: &'a str,
    expected: &'a RemoteFile,
    file: File,
    /// Bytes that are there.
    len: u64,
    /// The hash of these.
    hasher: Hasher,
}

impl<'a> Part<'a> {
    /// Opens what an earlier download has left, or begins.
    fn open(blob: &Path, name: &'a str, expected: &'a RemoteFile) -> Result<Self> {
        let folder = blob.parent().unwrap_or(blob);
        fs::create_dir_all(folder).map_err(io(folder))?;
        let path = folder.join(format!("{}.incomplete", expected.hash.digits()));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io(&path))?;
        let mut hasher = expected.hash.hasher(expected.size);
        let mut len = 0;
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = file.read(&mut chunk).map_err(io(&path))?;
            if count == 0 {
                break;
            }
            hasher.update(&chunk[..count]);
            len += count as u64;
        }
        let mut part = Part { path, name, expected, file, len, hasher };
        if part.len > expected.size {
            part.restart()?;
        }
        Ok(part)
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(io(&self.path))?;
        self.len = 0;
        self.hasher = self.expected.hash.hasher(self.expected.size);
        Ok(())
    }

    /// Fetches what lacks, and compares the whole with what the hub announced. What is wrong is removed.
    fn fill(&mut self, client: &Client, snapshot: &Snapshot, observer: &mut Observer<'_>) -> Result<()> {
        let resumed = self.len > 0;
        if resumed {
            observer(Event::Resumed { file: self.name, from: self.len });
        }
        let first = self.fetch_rest(client, snapshot, observer);
        let checked = match first.and_then(|()| self.check()) {
            // The bytes of the earlier download may be the wrong ones.
            Err(HubError::Mismatch { .. }) if resumed => {
                self.restart()?;
                self.fetch_rest(client, snapshot, observer).and_then(|()| self.check())
            }
            checked => checked,
        };
        if let Err(HubError::Mismatch { .. } | HubError::Size { .. }) = &checked {
            // The error that is returned is the one to tell.
            let _ = fs::remove_file(&self.path);
        }
        checked?;
        // A name stands for bytes that are on the disk, also after the power failed.
        self.file.sync_all().map_err(|source| self.unwritable(source))
    }

    fn check(&mut self) -> Result<()> {
        let fresh = self.expected.hash.hasher(self.expected.size);
        let got = std::mem::replace(&mut self.hasher, fresh).digits();
        let hash = &self.expected.hash;
        if got == hash.digits() {
            return Ok(());
        }
        let (file, expected) = (self.name.to_owned(), hash.digits().to_owned());
        Err(HubError::Mismatch { file, method: hash.method(), expected, got })
    }

    /// Fetches until all announced bytes are there, however often the connection breaks, as long as each brings something.
    fn fetch_rest(
        &mut self,
        client: &Client,
        snapshot: &Snapshot,
        observer: &mut Observer<'_>,
    ) -> Result<()> {
        let mut retries = client.retries();
        observer(Event::Bytes { file: self.name, done: self.len, total: self.expected.size });
        // A server that cannot resume may break off at the same byte for ever.
        let mut furthest = self.len;
        while self.len < self.expected.size {
            let commit = snapshot.listing().commit();
            let response = client.file(snapshot.id(), commit, self.name, self.len, &mut retries, observer)?;
            let Err(error) = self.take(response, observer)? else { continue };
            if self.len > furthest {
                furthest = self.len;
                retries.reset();
            }
            let why = explained(&error, client.settings());
            self.again(&why, &mut retries, client.settings(), observer)?;
        }
        Ok(())
    }

    fn again(
        &self,
        why: &str,
        retries: &mut Retries,
        settings: &Settings,
        observer: &mut Observer<'_>,
    ) -> Result<()> {
        if retries.wait(why, None, observer) {
            return Ok(());
        }
        let (what, why) = (self.name.to_owned(), why.to_owned());
        Err(HubError::Dropped { what, attempts: settings.attempts, why })
    }

    /// Appends what an answer brings. The inner error is one of the connection.
    fn take(
        &mut self,
        response: Response<Body>,
        observer: &mut Observer<'_>,
    ) -> Result<std::result::Result<(), Error>> {
        let status = response.status().as_u16();
        let range = text(response.headers(), "content-range").map(content_range);
        if status == 416 || status == 206 && range != Some(Some((self.len, self.expected.size))) {
            // The server has another file, or counts in another way; without a range it has to send everything.
            let got = text(response.headers(), "content-range").unwrap_or("no range").to_owned();
            return match self.len {
                0 => Err(self.size(got)),
                _ => self.restart().map(Ok),
            };
        }
        if status == 200 && self.len > 0 {
            self.restart()?;
        }
        let announced =
            text(response.headers(), "content-length").and_then(|length| length.parse::<u64>().ok());
        if let Some(announced) = announced.filter(|&announced| announced != self.expected.size - self.len) {
            return Err(self.size(format!("{} bytes are sent", announced + self.len)));
        }
        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match body.read(&mut chunk).map_err(Error::from) {
                Ok(0) if self.len < self.expected.size => {
                    return Ok(Err(Error::Io(ErrorKind::UnexpectedEof.into())));
                }
                Ok(0) => return Ok(Ok(())),
                Ok(count) => count,
                Err(error) if is_transient(&error) => return Ok(Err(error)),
                Err(error) => return Ok(Err(Error::Io(std::io::Error::other(error)))),
            };
            if self.len + count as u64 > self.expected.size {
                return Err(self.size("more bytes came".into()));
            }
            self.file.write_all(&chunk[..count]).map_err(|source| self.unwritable(source))?;
            self.hasher.update(&chunk[..count]);
            self.len += count as u64;
            observer(Event::Bytes { file: self.name, done: self.len, total: self.expected.size });
        }
    }

    fn size(&self, got: String) -> HubError {
        HubError::Size { file: self.name.to_owned(), expected: self.expected.size, got }
    }

    fn unwritable(&self, source: std::io::Error) -> HubError {
        let path = self.path.clone();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                HubError::Full { path, needed: self.expected.size - self.len, source }
            }
            _ => HubError::Io { path, source },
        }
    }
}

/// The first byte and the length of the whole file of `bytes 100-199/200`.
fn content_range(header: &str) -> Option<(u64, u64)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}
