//! The one error type of the crate. Every message is one line that says what to do.

use std::path::PathBuf;

/// The crate's result.
pub type Result<T> = std::result::Result<T, HubError>;

/// What can go wrong between a name and a file in the cache.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A text is no name of a repository.
    #[error("{text:?} is no name on the hub: {why}")]
    Name {
        /// The text.
        text: String,
        /// Why not.
        why: &'static str,
    },
    /// A variable of the environment, or a file that it names, cannot be used.
    #[error("{variable}={value}: {why}")]
    Setting {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// Why not.
        why: String,
    },
    /// A file is wanted that the cache lacks, and the network is not to be used.
    #[error(
        "{what}: not in the cache ({}), and HF_HUB_OFFLINE forbids to download; unset it, or run `vitrine fetch` \
         where there is a network and copy the cache",
        cache.display()
    )]
    Offline {
        /// The repository, or files of it.
        what: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The hub does not answer.
    #[error(
        "{what}: not in the cache ({}), and the hub at {endpoint} cannot be reached ({why}); see to the network, \
         HF_ENDPOINT or HTTPS_PROXY (HF_HUB_OFFLINE=1 never tries)",
        cache.display()
    )]
    Unreachable {
        /// The repository or file.
        what: String,
        /// The cache.
        cache: PathBuf,
        /// The hub's address.
        endpoint: String,
        /// What the system said.
        why: String,
    },
    /// There is no such repository, or not for this user.
    #[error("{id}: no such {kind} at {endpoint}, or a private one; see to the spelling{token}")]
    NotFound {
        /// `model` or `data set`.
        kind: &'static str,
        /// The repository.
        id: String,
        /// The hub's address.
        endpoint: String,
        /// What to do about a token.
        token: &'static str,
    },
    /// The repository has no such revision.
    #[error("{id}: the repository has no branch, tag or commit `{revision}`; its branches are at {page}")]
    Revision {
        /// The repository.
        id: String,
        /// The revision.
        revision: String,
        /// A page for people.
        page: String,
    },
    /// The repository has no such file.
    #[error("{id}: the repository has no file {file}")]
    Entry {
        /// The repository.
        id: String,
        /// The file.
        file: String,
    },
    /// The repository is only for those who have accepted its terms.
    #[error("{id}: access is restricted; accept its terms at {page}, {token}")]
    Gated {
        /// The repository.
        id: String,
        /// Its page for people.
        page: String,
        /// What to do about a token.
        token: &'static str,
    },
    /// The hub does not know the token.
    #[error(
        "{id}: the hub refuses the access token from {origin}; make another at {endpoint}/settings/tokens, or remove it"
    )]
    Token {
        /// The repository.
        id: String,
        /// The variable or file that it is from.
        origin: String,
        /// The hub's address.
        endpoint: String,
    },
    /// The hub answers with an error.
    #[error("{url}: the hub answers {status}{message}{hint}")]
    Status {
        /// The address.
        url: String,
        /// The status code.
        status: u16,
        /// What it said.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A download that did not end, however often it was tried.
    #[error(
        "{what}: the connection failed {attempts} times, last: {why}; the same command goes on where it ended"
    )]
    Dropped {
        /// The file or address.
        what: String,
        /// How often.
        attempts: u32,
        /// What the system said.
        why: String,
    },
    /// An answer that is not in the hub's protocol.
    #[error("{url}: {why}; is HF_ENDPOINT a hub?")]
    Protocol {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The hub names a file that would not stay in its folder.
    #[error(
        "{id}: the hub names a file {file:?}, which would not stay in its folder; nothing of it was downloaded"
    )]
    Escapes {
        /// The repository.
        id: String,
        /// The name.
        file: String,
    },
    /// The repository has not what is wanted of it.
    #[error("{id}: {why}")]
    Unfit {
        /// The repository.
        id: String,
        /// What it has, and what to do.
        why: String,
    },
    /// A file has another length than was announced.
    #[error("{file}: {got}, and the hub announced {expected} bytes; nothing was kept, try again later")]
    Size {
        /// The file.
        file: String,
        /// Bytes that were announced.
        expected: u64,
        /// What came instead.
        got: String,
    },
    /// A file is not the one that was announced.
    #[error(
        "{file}: {method} of what came is {got}, and the hub announced {expected}; nothing was kept. Something between here \
         and the hub changes files; try again, or another network"
    )]
    Mismatch {
        /// The file.
        file: String,
        /// `SHA-256`, or `git SHA-1`.
        method: &'static str,
        /// What was announced.
        expected: String,
        /// What came.
        got: String,
    },
    /// The disk is full.
    #[error("{}: no room ({source}); {needed} more bytes are needed, and the same command goes on where it ended", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// Bytes that are still to come.
        needed: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// The cache cannot be read or written.
    #[error("{}: {source}; HF_HOME or HF_HUB_CACHE name another cache", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl HubError {
    /// The same error, of these files, where it is one of a network that is not there.
    pub(crate) fn about(mut self, files: String) -> Self {
        if let HubError::Offline { what, .. } | HubError::Unreachable { what, .. } = &mut self {
            *what = files;
        }
        self
    }
}
