//! [`LogitsKey`]: a teacher's logits of a data set in the user's cache, beside the tokens, so that a second run and a resumed one
//! do not compute them again.
//!
//! A file holds `VITRLOG1`, the key, SHA-256 of the rest, and the logits `[rows, K]` as little-endian f32. It is used only if its size, its
//! key and its checksum fit.

use crate::token_cache::{Hash, LOGITS_EXTENSION, TokenCache, checksum, hex};
use crate::{Result, checkpoint};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;
use vitrine_bert::{SequenceClassifier, Tokenizer};
use vitrine_tensor::DType;

/// What a file begins with; the digit is the version of the format.
const MAGIC: &[u8; 8] = b"VITRLOG1";
const HEADER: usize = 8 + 32 + 32;

/// What a teacher's logits are a function of, up to the rounding of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogitsKey(Hash);

impl LogitsKey {
    /// Of a teacher in F32 as it was read, its tokenizer, the longest input in tokens, the precision in which it will compute, the
    /// teacher's class for each of the student's, the layers whose states are wanted, too, and the SHA-256 of the rows.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn new(
        teacher: &SequenceClassifier,
        tokenizer: &Tokenizer,
        max_length: usize,
        dtype: DType,
        classes: &[u32],
        layers: &[usize],
        rows: &[String],
    ) -> Result<Self> {
        let config = teacher.config();
        let mut hash = Sha256::new();
        hash.update(MAGIC);
        hash.update(env!("CARGO_PKG_VERSION"));
        hash.update(checkpoint::fingerprint(teacher.parameters())?);
        hash.update(config.to_json(&config.family.architecture("ForSequenceClassification")));
        hash.update(Sha256::digest(tokenizer.identity()));
        hash.update(format!("{max_length} {dtype} {classes:?} {layers:?} {rows:?}"));
        Ok(LogitsKey(hash.finalize().into()))
    }

    /// 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

impl TokenCache {
    fn logits_path(&self, key: &LogitsKey) -> PathBuf {
        self.folder().join(key.hex()).with_extension(LOGITS_EXTENSION)
    }

    /// So many logits of a teacher, if they are here and whole.
    pub fn logits(&self, key: &LogitsKey, count: usize) -> Option<Vec<f32>> {
        let path = self.logits_path(key);
        let whole = count.checked_mul(4)?.checked_add(HEADER)?;
        // Looked at before it is opened: opening a pipe would wait for a writer.
        fs::metadata(&path).ok().filter(|about| about.is_file() && about.len() == whole as u64)?;
        let bytes = fs::read(&path).ok()?;
        let (header, payload) = bytes.split_at_checked(HEADER)?;
        if bytes.len() != whole || header[..8] != *MAGIC || header[8..40] != key.0 {
            return None;
        }
        if checksum(payload) != header[40..] {
            return None;
        }
        // Its age is the time of its last use.
        let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(payload.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }

    /// Keeps a teacher's logits.
    ///
    /// # Errors
    /// Those of the file system; nothing is lost but time.
    pub fn keep_logits(&self, key: &LogitsKey, logits: &[f32]) -> io::Result<()> {
        let payload: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        let bytes = [&MAGIC[..], &key.0, &checksum(&payload), &payload].concat();
        self.write(&self.logits_path(key), &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_come_back_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let cache = TokenCache::in_folder(&folder.path().join("cache"));
        let (key, other) = (LogitsKey([7; 32]), LogitsKey([8; 32]));
        assert_eq!(cache.logits(&key, 3), None);
        cache.keep_logits(&key, &[1.5, -0.0, f32::MAX]).unwrap();
        assert_eq!(cache.logits(&key, 3), Some(vec![1.5, -0.0, f32::MAX]));
        assert_eq!((cache.logits(&key, 2), cache.logits(&other, 3)), (None, None));
        let path = cache.logits_path(&key);
        let mut bytes = fs::read(&path).unwrap();
        fs::write(cache.logits_path(&other), &bytes).unwrap();
        assert_eq!(cache.logits(&other, 3), None, "of another key");
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(cache.logits(&key, 3), None, "damaged");
    }
}
