//! [`TokenCache`]: token ids of data sets on disk, so that a second run over the same texts tokenizes nothing.
//!
//! A file is named by what it is a function of: the SHA-256 of the texts, of all that the tokenizer is
//! ([`Tokenizer::identity`]), of the maximum length, and of the versions of this program and of this format. It is used only
//! if its size, its key and its checksum fit; otherwise it is made again.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `VITRTOK` and the version of the format |
//! | 32 | the key |
//! | 32 | the checksum: SHA-256 over the SHA-256 of each MiB of all that follows |
//! | 8 each | rows, tokens, rows that were truncated, bytes of an id (2 or 4) |
//! | 4 each | tokens of each row |
//! | 2 or 4 each | ids of all rows, one row after the other |
//!
//! All numbers are little-endian. The file is read, not mapped: its checksum has to be computed anyway, which reads every page
//! once, and a mapped file that somebody cuts meanwhile ends the process. Its texts are in memory, too, and larger.
//!
//! Files are written beside and renamed, so that two processes do not see halves of each other's. The oldest leave when all
//! together would be larger than the limit. Nothing that goes wrong here is an error of the run: there is no cache then.

use crate::Result;
use crate::tokenized::Tokens;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use vitrine_bert::Tokenizer;
use vitrine_tensor::cpu::parallel;

/// What a file begins with; the digit is the version of the format.
const MAGIC: &[u8; 8] = b"VITRTOK1";
/// Where what the checksum covers begins, and where the header ends.
const COVERED: usize = 8 + 32 + 32;
const HEADER: usize = COVERED + 4 * 8;
/// What the names of finished files end in.
const EXTENSION: &str = "tokens";
/// The same of a teacher's logits.
pub(crate) const LOGITS_EXTENSION: &str = "logits";
/// Bytes hashed by one piece of parallel work.
const HASHED: usize = 1 << 20;
/// Rows whose texts are hashed by one.
const ROWS: usize = 256;

/// Bytes of all files together, unless another limit is set.
const LIMIT: u64 = 1 << 30;
/// Bytes of texts that are tokenized quickly enough without a file.
const LEAST: usize = 1 << 20;
/// After this time, a file that was never finished is no longer being written.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) type Hash = [u8; 32];

/// A folder of tokenized data sets.
#[derive(Clone, Debug)]
pub struct TokenCache {
    folder: PathBuf,
    limit: u64,
    least: usize,
}

/// What a cache did for one data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheUse {
    /// The ids were there.
    Hit,
    /// They were made, and are there for the next run.
    Stored,
    /// They were made, and are not kept because there are few of them.
    Small,
    /// They were made, and could not be kept.
    NotStored {
        /// Why not.
        why: String,
    },
}

impl TokenCache {
    /// The user's: `vitrine` in `$XDG_CACHE_HOME`, else `~/.cache/vitrine`. None where neither is known.
    pub fn of_user() -> Option<Self> {
        // A relative path is ignored, as the XDG Base Directory Specification says.
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))?;
        Some(Self::in_folder(&caches.join("vitrine")))
    }

    /// A cache in this folder, which is made when there is something to keep.
    pub fn in_folder(folder: &Path) -> Self {
        TokenCache { folder: folder.to_owned(), limit: LIMIT, least: LEAST }
    }

    /// The same with other limits: bytes of all files together, and bytes of texts from which on they are kept.
    #[must_use]
    pub fn with_limits(self, limit: u64, least: usize) -> Self {
        TokenCache { limit, least, ..self }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The ids of all texts: from the cache, or made by `tokenize` and kept.
    ///
    /// # Errors
    /// Only those of `tokenize`.
    pub(crate) fn tokens(
        &self,
        texts: &[&str],
        tokenizer: &Tokenizer,
        max_length: usize,
        tokenize: impl FnOnce() -> Result<Tokens>,
    ) -> Result<(Tokens, CacheUse)> {
        if texts.iter().map(|text| text.len()).sum::<usize>() < self.least {
            return Ok((tokenize()?, CacheUse::Small));
        }
        let key = key(texts, tokenizer, max_length);
        let path = self.folder.join(hex(&key)).with_extension(EXTENSION);
        if let Some(tokens) = read(&path, &key, texts.len()) {
            return Ok((tokens, CacheUse::Hit));
        }
        let tokens = tokenize()?;
        let used = match self.store(&path, &key, &tokens) {
            Ok(()) => CacheUse::Stored,
            Err(error) => CacheUse::NotStored { why: format!("cannot write {}: {error}", path.display()) },
        };
        Ok((tokens, used))
    }

    fn store(&self, path: &Path, key: &Hash, tokens: &Tokens) -> io::Result<()> {
        self.write(path, &encode(key, tokens))
    }

    /// Writes a file of the cache whole, and makes room for it.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        /// Tells two writers of one process apart.
        static WRITERS: AtomicU64 = AtomicU64::new(0);
        let size = bytes.len() as u64;
        if size > self.limit {
            let why = format!("its {size} bytes are more than the limit of {} bytes", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        fs::create_dir_all(&self.folder)?;
        self.make_room(size);
        let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
        let partial = path.with_extension(format!("{}-{writer}.partial", std::process::id()));
        // It is not synced: a file that a power cut leaves damaged is found by its checksum.
        let written = File::create_new(&partial)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&partial, path));
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written
    }

    /// Removes the files that were used longest ago until `size` bytes more are within the limit, and what dead processes left.
    fn make_room(&self, size: u64) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(about) = entry.metadata() else { continue };
            let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(EXTENSION | LOGITS_EXTENSION) if about.is_file() => {
                    files.push((used, about.len(), path));
                }
                Some("partial") if used.elapsed().is_ok_and(|age| age > ABANDONED) => {
                    let _ = fs::remove_file(path);
                }
                _ => {}
            }
        }
        files.sort();
        let mut all = size + files.iter().map(|(_, size, _)| size).sum::<u64>();
        for (_, size, path) in files {
            if all <= self.limit {
                break;
            }
            if fs::remove_file(path).is_ok() {
                all -= size;
            }
        }
    }
}

/// What the ids are a function of.
fn key(texts: &[&str], tokenizer: &Tokenizer, max_length: usize) -> Hash {
    let texts = parallel::map(texts.chunks(ROWS), |_, texts| {
        let mut hash = Sha256::new();
        for text in texts {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.finalize()
    });
    let mut hash = Sha256::new();
    hash.update(MAGIC);
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update((max_length as u64).to_le_bytes());
    hash.update(Sha256::digest(tokenizer.identity()));
    texts.iter().for_each(|text| hash.update(text));
    hash.finalize().into()
}

pub(crate) fn checksum(bytes: &[u8]) -> Hash {
    let pieces = parallel::map(bytes.chunks(HASHED), |_, piece| Sha256::digest(piece));
    Sha256::digest(pieces.concat()).into()
}

pub(crate) fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encode(key: &Hash, tokens: &Tokens) -> Vec<u8> {
    let narrow = tokens.ids.iter().all(|&id| u16::try_from(id).is_ok());
    let width: usize = if narrow { 2 } else { 4 };
    let (rows, ids) = (tokens.rows(), tokens.ids.len());
    let mut bytes = Vec::with_capacity(HEADER + 4 * rows + width * ids);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&[0; 32]);
    for number in [rows, ids, tokens.truncated, width] {
        bytes.extend_from_slice(&(number as u64).to_le_bytes());
    }
    bytes.extend(tokens.lengths().flat_map(|length| (length as u32).to_le_bytes()));
    match narrow {
        true => bytes.extend(tokens.ids.iter().flat_map(|&id| (id as u16).to_le_bytes())),
        false => bytes.extend(tokens.ids.iter().flat_map(|id| id.to_le_bytes())),
    }
    let sum = checksum(&bytes[COVERED..]);
    bytes[COVERED - 32..COVERED].copy_from_slice(&sum);
    bytes
}

/// The ids of a file, if it is whole and about these rows.
fn read(path: &Path, key: &Hash, rows: usize) -> Option<Tokens> {
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let size = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    let mut file = File::open(path).ok()?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header).ok()?;
    let number = |index: usize| {
        let bytes = header[COVERED + 8 * index..][..8].try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let [rows_there, ids, truncated, width] = [number(0)?, number(1)?, number(2)?, number(3)?];
    let whole = ids.checked_mul(width)?.checked_add(rows.checked_mul(4)?)?.checked_add(HEADER)?;
    // No more memory is taken than the file has bytes.
    if &header[..8] != MAGIC
        || header[8..40] != *key
        || rows_there != rows
        || truncated > rows
        || !matches!(width, 2 | 4)
        || whole as u64 != size
    {
        return None;
    }
    let mut bytes = Vec::with_capacity(whole);
    bytes.extend_from_slice(&header);
    file.take((whole - HEADER) as u64).read_to_end(&mut bytes).ok()?;
    if bytes.len() != whole || checksum(&bytes[COVERED..]) != header[COVERED - 32..COVERED] {
        return None;
    }
    let (lengths, payload) = bytes[HEADER..].split_at(4 * rows);
    let (lengths, _) = lengths.as_chunks::<4>();
    let lengths = lengths.iter().map(|&length| u32::from_le_bytes(length) as usize);
    let ids = match width {
        2 => payload.as_chunks::<2>().0.iter().map(|&id| u16::from_le_bytes(id).into()).collect(),
        _ => payload.as_chunks::<4>().0.iter().map(|&id| u32::from_le_bytes(id)).collect(),
    };
    let tokens = Tokens::new(ids, lengths, truncated)?;
    // Its age is the time of its last use.
    let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
    Some(tokens)
}

#[cfg(test)]
mod tests;
