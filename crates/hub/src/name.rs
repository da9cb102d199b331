//! Names of repositories: `name` or `owner/name`, with `@revision` behind it.

use crate::{HubError, Result};
use std::fmt;
use std::path::Path;

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

impl Kind {
    /// What it is called in addresses of the API and in the cache: `models`, `datasets`.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        }
    }

    /// What stands before the name in the addresses of pages and files.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        }
    }

    /// For a message.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Model => "model",
            Kind::Dataset => "data set",
        }
    }
}

/// The branch that is meant where no other is named.
pub const MAIN: &str = "main";

/// A repository at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoId {
    /// What it holds.
    pub kind: Kind,
    /// `name` or `owner/name`.
    pub name: String,
    /// A branch, a tag, a commit, or `refs/pr/N`.
    pub revision: String,
}

impl RepoId {
    /// Reads `name`, `owner/name` or `owner/name@revision`.
    ///
    /// # Errors
    /// `Name`, by the rules of huggingface_hub's `validate_repo_id` and those of git for revisions.
    pub fn parse(kind: Kind, text: &str) -> Result<Self> {
        let refuse = |why| Err(HubError::Name { text: text.to_owned(), why });
        let (name, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let plain = |part: &str| {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            part.starts_with(word)
                && part.ends_with(word)
                && part.chars().all(|c| word(c) || c == '-' || c == '.')
        };
        if name.len() > 96 || name.split('/').count() > 2 || !name.split('/').all(plain) {
            return refuse("write name or owner/name, of letters, digits, -, _ and .");
        }
        if name.contains("--") || name.contains("..") || name.ends_with(".git") {
            return refuse("-- and .. and .git at the end are not allowed");
        }
        let in_revision = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
        let is_path = revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
        if revision.len() > 200 || !is_path || !revision.chars().all(in_revision) || revision.contains("..") {
            return refuse("behind @ stands a branch, a tag or a commit");
        }
        Ok(RepoId { kind, name: name.to_owned(), revision: revision.to_owned() })
    }

    /// Its folder in the cache: `models--owner--name`.
    pub(crate) fn folder_name(&self) -> String {
        format!("{}--{}", self.kind.plural(), self.name.replace('/', "--"))
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            MAIN => f.write_str(&self.name),
            revision => write!(f, "{}@{revision}", self.name),
        }
    }
}

/// Whether a text is the name of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Whether a text has only hexadecimal digits, small ones.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The repository at the commit that a path of the cache belongs to, `..models--owner--name/snapshots/COMMIT..`; nothing for other paths.
pub fn origin(path: &Path) -> Option<RepoId> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    parts.windows(3).rev().find_map(|parts| {
        let [folder, "snapshots", commit] = parts else { return None };
        let kinds = [Kind::Model, Kind::Dataset];
        let (kind, name) =
            kinds.iter().find_map(|kind| Some((*kind, folder.strip_prefix(kind.plural())?)))?;
        let name = name.strip_prefix("--")?.replacen("--", "/", 1);
        is_commit(commit).then(|| RepoId { kind, name, revision: (*commit).to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_hub() {
        let id = |text| RepoId::parse(Kind::Model, text);
        for text in
            ["bert-base-uncased", "google-bert/bert-base-uncased", "a/b.c_d", "a/b@refs/pr/1", "a/b@v1.0"]
        {
            assert_eq!(id(text).unwrap().to_string(), text);
        }
        assert_eq!(id("a/b").unwrap(), id("a/b@main").unwrap());
        assert_eq!(id("a/b").unwrap().folder_name(), "models--a--b");
        for text in [
            "", "a/", "/a", "a/b/c", ".a", "a/..", "../a", "a--b/c", "a..b", "a b", "a/b.git", "a\\b", "a@",
            "a@../x", "a@/x", "a@x..y", "a@x y", "a@.x", "-a", "é",
        ] {
            assert!(matches!(id(text), Err(HubError::Name { .. })), "{text:?}");
        }
        assert!(id(&"a".repeat(97)).is_err());
    }

    #[test]
    fn a_path_of_the_cache_says_where_it_is_from() {
        let commit = "86b5e0934494bd15c9632b12f734a8a67f723594";
        let path = format!("/home/me/.cache/hub/datasets--stanfordnlp--imdb/snapshots/{commit}/plain_text");
        let found = origin(Path::new(&path)).unwrap();
        assert_eq!(
            (found.kind, found.name.as_str(), found.revision.as_str()),
            (Kind::Dataset, "stanfordnlp/imdb", commit)
        );
        for path in ["models/MiniLM", "models--a--b/snapshots/main", "a/snapshots/b"] {
            assert_eq!(origin(Path::new(path)), None, "{path}");
        }
    }
}
