//! What the hub says of the files of a commit, as it answers and as the cache keeps it.

use crate::name::{is_commit, is_hex};
use crate::{HubError, RepoId, Result};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The version of the listings that huggingface_hub keeps in `trees/`.
const FORMAT: u32 = 1;

/// What tells whether bytes are those of a file. It is also the name of its blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256 of the bytes, of files in large file storage.
    Sha256(String),
    /// SHA-1 of git's blob: `blob LENGTH\0` and the bytes.
    Git(String),
}

impl Hash {
    /// The digits.
    pub fn digits(&self) -> &str {
        match self {
            Hash::Sha256(digits) | Hash::Git(digits) => digits,
        }
    }

    /// Its method, for a message.
    pub fn method(&self) -> &'static str {
        match self {
            Hash::Sha256(_) => "SHA-256",
            Hash::Git(_) => "git's SHA-1",
        }
    }

    /// What computes it for a file of `size` bytes.
    pub(crate) fn hasher(&self, size: u64) -> Hasher {
        match self {
            Hash::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Hash::Git(_) => {
                let mut hasher = Sha1::new();
                hasher.update(format!("blob {size}\0"));
                Hasher::Sha1(hasher)
            }
        }
    }
}

/// A hash that is being computed.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha1(Sha1),
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha1(hasher) => hasher.update(bytes),
        }
    }

    pub fn digits(self) -> String {
        match self {
            Hasher::Sha256(hasher) => hex(&hasher.finalize()),
            Hasher::Sha1(hasher) => hex(&hasher.finalize()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Bytes.
    pub size: u64,
    /// What its bytes are recognised by.
    pub hash: Hash,
    /// The entry as the cache keeps it.
    entry: Entry,
}

/// An entry of `trees/COMMIT.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    size: u64,
    blob_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xet_hash: Option<String>,
}

/// `trees/COMMIT.json`.
#[derive(Serialize, Deserialize)]
struct Tree {
    format_version: u32,
    files: BTreeMap<String, Entry>,
}

/// The answer to `/api/models/NAME/revision/REVISION?blobs=true`, as far as it is read.
#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// The files of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    commit: String,
    files: BTreeMap<String, RemoteFile>,
}

impl Listing {
    /// Reads the hub's answer. Whatever becomes a path is looked at here, once.
    pub(crate) fn from_answer(id: &RepoId, url: &str, json: &[u8]) -> Result<Self> {
        let protocol = |why: String| HubError::Protocol { url: url.to_owned(), why };
        let info: Info = serde_json::from_slice(json)
            .map_err(|error| protocol(format!("the answer is no description of a repository ({error})")))?;
        let mut entries = BTreeMap::new();
        for Sibling { rfilename, size, blob_id, lfs } in info.siblings {
            let size = lfs.as_ref().map(|lfs| lfs.size).or(size);
            let (Some(size), Some(blob_id)) = (size, blob_id) else {
                return Err(protocol(format!("the answer has no size and hash of {rfilename:?}")));
            };
            let (lfs_sha256, lfs_size) = lfs.map(|lfs| (lfs.sha256, lfs.size)).unzip();
            entries.insert(rfilename, Entry { size, blob_id, lfs_sha256, lfs_size, xet_hash: None });
        }
        if !is_commit(&info.sha) {
            return Err(protocol(format!("{:?} is no commit", info.sha)));
        }
        Listing::new(info.sha, entries, |file| match is_inside(file) {
            true => protocol(format!("the answer has a wrong hash of {file:?}")),
            false => HubError::Escapes { id: id.to_string(), file: file.to_owned() },
        })
    }

    /// Reads what the cache keeps; nothing where that is of another version or damaged.
    pub(crate) fn from_cache(commit: &str, json: &[u8]) -> Option<Self> {
        let tree: Tree = serde_json::from_slice(json).ok()?;
        (tree.format_version == FORMAT).then_some(())?;
        Listing::new(commit.to_owned(), tree.files, |_| ()).ok()
    }

    /// As the cache keeps it.
    pub(crate) fn to_cache(&self) -> String {
        let files = self.files.iter().map(|(name, file)| (name.clone(), file.entry.clone())).collect();
        let tree = Tree { format_version: FORMAT, files };
        serde_json::to_string_pretty(&tree).expect("internal: names and numbers are JSON")
    }

    /// The files that are there of a commit that nobody has listed. Nothing tells whether their bytes are right.
    pub(crate) fn of_files(commit: &str, files: Vec<(String, u64)>) -> Self {
        let entry =
            |size| Entry { size, blob_id: String::new(), lfs_sha256: None, lfs_size: None, xet_hash: None };
        let file = |size| RemoteFile { size, hash: Hash::Git(String::new()), entry: entry(size) };
        let files = files.into_iter().map(|(name, size)| (name, file(size))).collect();
        Listing { commit: commit.to_owned(), files }
    }

    fn new<E>(
        commit: String,
        entries: BTreeMap<String, Entry>,
        refuse: impl Fn(&str) -> E,
    ) -> std::result::Result<Self, E> {
        let mut files = BTreeMap::new();
        for (name, entry) in entries {
            let hash = match &entry.lfs_sha256 {
                Some(sha256) => Hash::Sha256(sha256.clone()),
                None => Hash::Git(entry.blob_id.clone()),
            };
            let length = if matches!(hash, Hash::Git(_)) { 40 } else { 64 };
            if !is_inside(&name) || hash.digits().len() != length || !is_hex(hash.digits()) {
                return Err(refuse(&name));
            }
            let size = entry.lfs_size.unwrap_or(entry.size);
            files.insert(name, RemoteFile { size, hash, entry });
        }
        Ok(Listing { commit, files })
    }

    /// The commit: 40 hexadecimal digits.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The paths of all files, with / between folders, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// A file by its path.
    pub fn get(&self, name: &str) -> Option<&RemoteFile> {
        self.files.get(name)
    }

    /// Bytes of these files together.
    pub fn bytes(&self, files: &[String]) -> u64 {
        files.iter().filter_map(|name| self.get(name)).map(|file| file.size).sum()
    }
}

/// Whether a path of the hub stays in the folder that it is joined to, on every system.
fn is_inside(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    !name.contains(|c: char| c.is_control() || c == '\\' || c == ':') && name.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    const COMMIT: &str = "86b5e0934494bd15c9632b12f734a8a67f723594";

    fn answer(siblings: &str) -> Result<Listing> {
        let id = RepoId::parse(Kind::Model, "a/b").unwrap();
        let json = format!(r#"{{"id": "a/b", "sha": "{COMMIT}", "siblings": [{siblings}], "tags": []}}"#);
        Listing::from_answer(&id, "http://hub/api", json.as_bytes())
    }

    #[test]
    fn what_the_cache_keeps_is_what_the_hub_said() {
        let sha256 = "0".repeat(64);
        let listing = answer(&format!(
            r#"{{"rfilename": "config.json", "size": 570, "blobId": "{COMMIT}"}},
               {{"rfilename": "x/model.safetensors", "size": 1, "blobId": "{COMMIT}",
                 "lfs": {{"sha256": "{sha256}", "size": 440449768, "pointerSize": 134}}}}"#
        ))
        .unwrap();
        assert_eq!(listing.get("x/model.safetensors").unwrap().size, 440_449_768);
        assert_eq!(listing.get("x/model.safetensors").unwrap().hash, Hash::Sha256(sha256));
        assert_eq!(listing.get("config.json").unwrap().hash, Hash::Git(COMMIT.into()));
        assert_eq!(Listing::from_cache(COMMIT, listing.to_cache().as_bytes()), Some(listing));
        assert_eq!(Listing::from_cache(COMMIT, b"{\"format_version\": 2, \"files\": {}}"), None);
        assert_eq!(Listing::from_cache(COMMIT, b"{"), None);
    }

    #[test]
    fn what_would_become_a_wrong_path_is_refused() {
        for name in ["../x", "/etc/passwd", "a/../../b", "a//b", "a\\\\b", "c:x", "", ".", "a/", "x\\u0000"] {
            let error = answer(&format!(r#"{{"rfilename": "{name}", "size": 1, "blobId": "{COMMIT}"}}"#));
            assert!(matches!(error, Err(HubError::Escapes { .. })), "{name}: {error:?}");
        }
        for hash in ["", "../../../../../../../../../../../../../x", &COMMIT.to_uppercase()] {
            let error = answer(&format!(r#"{{"rfilename": "x", "size": 1, "blobId": "{hash}"}}"#));
            assert!(matches!(error, Err(HubError::Protocol { .. })), "{hash}: {error:?}");
        }
        assert!(answer(r#"{"rfilename": "x"}"#).is_err());
    }

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        let hashed = |hash: Hash| {
            let mut hasher = hash.hasher(6);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            hasher.digits()
        };
        // `echo hello | git hash-object --stdin`, `echo hello | sha256sum`
        assert_eq!(hashed(Hash::Git(String::new())), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(
            hashed(Hash::Sha256(String::new())),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
    }
}
