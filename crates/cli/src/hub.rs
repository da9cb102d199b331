//! Names of the Hugging Face hub in the place of paths: what `--model owner/name` and `--data owner/name` mean.
//!
//! A path that is there is a path, and nothing of the hub is looked at. What else could be a name is looked up in the cache, and on the
//! hub if that has not all of it.

use crate::output::{Failure, Outcome, bytes, note, warn};
use crate::progress::Progress;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use vitrine_bert::{CONFIG_FILE, ModelConfig, looks_like_hub_name, model_files, tokenizer_files};
use vitrine_hub::{Event, Hub, HubError, Kind, RepoId, Snapshot, origin};
use vitrine_train::data::{Purpose, data_set_files};

/// Bytes of a unit of the line that shows a download.
const UNIT: u64 = 1 << 20;

/// What is wanted of a repository.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// A model with its tokenizer.
    Model,
    /// The tokenizer alone.
    Tokenizer,
    /// The tables of a data set, or of a subset of it.
    Data(Option<&'a str>, Purpose),
}

impl Wanted<'_> {
    /// What the repository holds.
    pub fn kind(self) -> Kind {
        match self {
            Wanted::Model | Wanted::Tokenizer => Kind::Model,
            Wanted::Data(..) => Kind::Dataset,
        }
    }

    /// The files to fetch of all `names`, and the path below the snapshot that a command then reads.
    fn files(self, id: &RepoId, names: &[&str]) -> Result<(String, Vec<String>), String> {
        let all = |files| (String::new(), files);
        match self {
            Wanted::Model => model_files(&id.name, names).map(all),
            Wanted::Tokenizer => tokenizer_files(names).map(all),
            Wanted::Data(subset, purpose) => {
                data_set_files(&id.name, names, subset, purpose).map(|found| (found.path, found.files))
            }
        }
    }
}

/// What was fetched, or was there already.
pub struct Fetched {
    /// The repository at its commit.
    pub id: RepoId,
    /// The folder or file for `--model` or `--data`.
    pub path: PathBuf,
    /// The files that are read, with their bytes.
    pub files: Vec<(String, u64)>,
    /// Bytes that the cache lacked before.
    pub lacked: u64,
}

/// The folder of a model: the path itself, or where the hub's model of this name is in the cache.
///
/// # Errors
/// One line about both: what is not here, and what the hub says.
pub fn resolve_model(path: &Path) -> Outcome<PathBuf> {
    resolve(path, Wanted::Model)
}

/// The same where only the tokenizer is read.
///
/// # Errors
/// As [`resolve_model`].
pub fn resolve_tokenizer(path: &Path) -> Outcome<PathBuf> {
    resolve(path, Wanted::Tokenizer)
}

/// The file or folder of data: the path itself, or where the hub's data set of this name is in the cache.
///
/// # Errors
/// As [`resolve_model`].
pub fn resolve_data(path: &Path, purpose: Purpose) -> Outcome<PathBuf> {
    resolve(path, Wanted::Data(None, purpose))
}

fn resolve(path: &Path, wanted: Wanted<'_>) -> Outcome<PathBuf> {
    let Some(id) = as_name(path, wanted.kind()) else { return Ok(path.to_owned()) };
    let here = match wanted.kind() {
        Kind::Model => "no such folder",
        Kind::Dataset => "no such file or folder",
    };
    let both = |failure: Failure| Failure::Run(format!("{}: {here}; on the hub: {failure}", path.display()));
    let fetched = fetch(&Hub::from_env()?, &id, wanted, false).map_err(both)?;
    note(format!("{}: {} from the hub's cache", id.kind.word(), shown(&fetched.id)));
    Ok(fetched.path)
}

/// The repository that a value may mean; nothing for a path that is there, and for what can only be a path.
fn as_name(path: &Path, kind: Kind) -> Option<RepoId> {
    let is_missing =
        matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == ErrorKind::NotFound);
    let text = path.to_str().filter(|_| is_missing)?;
    let name = text.split_once('@').map_or(text, |(name, _)| name);
    looks_like_hub_name(Path::new(name)).then(|| RepoId::parse(kind, text).ok())?
}

/// Fetches what the cache lacks, and says so. With `refresh` the hub is asked whether the revision has moved.
///
/// # Errors
/// What the hub or the cache refuse; a model that cannot be computed, before its weights are fetched.
pub fn fetch(hub: &Hub, id: &RepoId, wanted: Wanted<'_>, refresh: bool) -> Outcome<Fetched> {
    let mut shown = Shown::default();
    let mut observer = |event: Event<'_>| shown.event(&event);
    let select = |names: &[&str]| wanted.files(id, names).map(|(_, files)| files);
    let (snapshot, files) = hub.find(id, refresh, &select, &mut observer)?;
    let lacking = snapshot.missing(&files);
    let lacked = snapshot.listing().bytes(&lacking);
    if !lacking.is_empty() {
        note(format!(
            "downloading {} of {} into {}",
            bytes(lacked as usize),
            self::shown(&snapshot.at_commit()),
            hub.settings().cache.display()
        ));
        if matches!(wanted, Wanted::Model) {
            hub.download(&snapshot, &[CONFIG_FILE.to_owned()], &mut observer)?;
            // Before hundreds of megabytes come that no command could use.
            ModelConfig::from_file(&snapshot.folder().join(CONFIG_FILE))?;
        }
        hub.download(&snapshot, &files, &mut observer)?;
    }
    if !lacking.is_empty() || refresh {
        snapshot.remember()?;
    }
    let path = path_of(&snapshot, wanted)?;
    let size = |name: &String| snapshot.listing().get(name).map_or(0, |file| file.size);
    let files = files.iter().map(|name| (name.clone(), size(name))).collect();
    Ok(Fetched { id: snapshot.at_commit(), path, files, lacked })
}

fn path_of(snapshot: &Snapshot, wanted: Wanted<'_>) -> Outcome<PathBuf> {
    let names: Vec<&str> = snapshot.listing().names().collect();
    let (below, _) = wanted.files(snapshot.id(), &names).map_err(Failure::Run)?;
    Ok(if below.is_empty() { snapshot.folder() } else { snapshot.folder().join(below) })
}

/// A repository with its commit.
fn shown(id: &RepoId) -> String {
    format!("{} at commit {}", id.name, id.revision)
}

/// How a path is called in reports: what the hub calls it, with its commit, if it is of the hub's cache.
pub fn name_of(path: &Path) -> String {
    origin(path).map_or_else(|| path.display().to_string(), |id| id.to_string())
}

/// How the base of an adapter is called, where peft looks for it: on the hub, or at its path.
pub fn base_of(path: &Path) -> String {
    origin(path).map_or_else(|| path.display().to_string(), |id| id.name)
}

/// The events of a download, for people.
#[derive(Default)]
struct Shown {
    /// The file that a line is drawn for, and the units that it stands at.
    line: Option<(String, Progress, u64)>,
}

impl Shown {
    fn event(&mut self, event: &Event<'_>) {
        match *event {
            Event::Bytes { file, done, total } => self.bytes(file, done, total),
            Event::Resumed { file, from } => {
                note(format!("{file}: {} are here from an earlier download", bytes(from as usize)));
            }
            Event::Waiting { file } => {
                note(format!("{file}: another process downloads it; waiting for its end"));
            }
            Event::Retry { why, seconds } => note(format!("{why}; trying again in {seconds:.0} s")),
            Event::Stale { why } => {
                warn(format!("the hub cannot be reached ({why}); what the cache has is used"));
            }
            Event::Unlisted => warn(
                "no network, and another program filled the cache: the repository may have more files for the tokenizer",
            ),
        }
    }

    fn bytes(&mut self, file: &str, done: u64, total: u64) {
        if done == total {
            self.line = None;
            return;
        }
        if self.line.as_ref().is_none_or(|(name, ..)| name != file) {
            let progress = Progress::new("download MiB", total.div_ceil(UNIT) as usize);
            self.line = Some((file.to_owned(), progress, u64::MAX));
        }
        if let Some((name, progress, at)) = &mut self.line
            && total > UNIT
            && *at != done / UNIT
        {
            *at = done / UNIT;
            progress.set(*at as usize, || name.clone());
        }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Name { .. } => Failure::Usage(error.to_string()),
            error => Failure::Run(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_there_or_can_only_be_one_is_no_name() {
        let name = |path: &str| as_name(Path::new(path), Kind::Model).map(|id| id.to_string());
        assert_eq!(name("google-bert/bert-base-uncased"), Some("google-bert/bert-base-uncased".into()));
        assert_eq!(name("bert-base-uncased@refs/pr/3"), Some("bert-base-uncased@refs/pr/3".into()));
        // `src` and `Cargo.toml` are here.
        for path in [
            "src",
            "src/bert",
            "./bert",
            "/bert",
            "~/bert",
            "Cargo.toml",
            "a/b/c",
            "bert.safetensors",
            "",
            "a b",
        ] {
            assert_eq!(name(path), None, "{path}");
        }
    }

    #[test]
    fn reports_name_the_repository_and_its_commit() {
        let commit = "86b5e0934494bd15c9632b12f734a8a67f723594";
        let path = PathBuf::from(format!("/c/models--google-bert--bert-base-uncased/snapshots/{commit}"));
        assert_eq!(name_of(&path), format!("google-bert/bert-base-uncased@{commit}"));
        assert_eq!(base_of(&path), "google-bert/bert-base-uncased");
        assert_eq!(name_of(Path::new("models/MiniLM")), "models/MiniLM");
    }
}
