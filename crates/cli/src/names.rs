//! What `--model` and `--data` may be: names of what is embedded in the program, or paths.

use crate::hub::{name_of, resolve_data, resolve_model, resolve_tokenizer};
use crate::output::{Failure, Outcome, note};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use vitrine_bert::{Bundle, Source, Tokenizer};
use vitrine_train::corpus;
use vitrine_train::data::{self, Dataset, LoadOptions, Purpose, Splits};

/// The models that are embedded in this program: the folders of `crates/cli/assets`.
pub static EMBEDDED: &[Bundle] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The pretrained masked language model, the default where training starts. Also the name of the built-in data.
pub const PRETRAINED: &str = "embedded";
/// The same, fine-tuned on IMDB: the default where texts are classified.
pub const CLASSIFIER: &str = "embedded-imdb";
/// A model of the sizes and with the tokenizer of `embedded`, and random weights.
pub const SCRATCH: &str = "scratch";

/// The value of a `--model` option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelName {
    /// A model in [`EMBEDDED`], by name.
    Embedded(&'static str),
    /// The architecture and tokenizer of [`PRETRAINED`] with random weights.
    Scratch,
    /// A folder, or where a tokenizer is enough one of its files.
    Path(PathBuf),
}

impl From<OsString> for ModelName {
    fn from(name: OsString) -> Self {
        match name.to_str() {
            Some(PRETRAINED) => ModelName::Embedded(PRETRAINED),
            Some(CLASSIFIER) => ModelName::Embedded(CLASSIFIER),
            Some(SCRATCH) => ModelName::Scratch,
            _ => ModelName::Path(name.into()),
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelName::Embedded(name) => f.write_str(name),
            ModelName::Scratch => f.write_str(SCRATCH),
            ModelName::Path(path) => f.write_str(&name_of(path)),
        }
    }
}

impl ModelName {
    /// The same, with the place of its files in the cache for a name on the hub.
    ///
    /// # Errors
    /// As [`resolve_model`].
    pub fn located(&self) -> Outcome<Self> {
        match self {
            ModelName::Path(path) => Ok(ModelName::Path(resolve_model(path)?)),
            embedded => Ok(embedded.clone()),
        }
    }

    /// Where its files are, which is said for an embedded one. For [`ModelName::Scratch`] those of [`PRETRAINED`], of which only the
    /// sizes and the tokenizer are of use.
    ///
    /// # Errors
    /// `Usage` for an embedded model that this build lacks.
    pub fn source(&self) -> Outcome<Source> {
        match self {
            ModelName::Embedded(name) => {
                not_the_folder("--model", name);
                embedded(name)
            }
            ModelName::Scratch => {
                not_the_folder("--model", SCRATCH);
                embedded(PRETRAINED)
            }
            // The one place where a path that a user typed becomes a folder.
            ModelName::Path(path) => Ok(Source::from(&resolve_model(path)?)),
        }
    }

    /// As [`source`](Self::source), for commands that need trained weights; an embedded model is named on standard error.
    ///
    /// # Errors
    /// `Usage` for [`ModelName::Scratch`], and as [`source`](Self::source).
    pub fn trained(&self) -> Outcome<Source> {
        if *self == ModelName::Scratch {
            let message =
                "--model scratch has random weights: it is for train and sweep; name a trained model";
            return Err(Failure::Usage(message.into()));
        }
        let source = self.source()?;
        if let ModelName::Embedded(name) = self {
            note(format!("model {name}, embedded in this program; --model names another"));
        }
        Ok(source)
    }

    /// Its tokenizer, which a file alone may be, too.
    ///
    /// # Errors
    /// As [`source`](Self::source) and [`Tokenizer::from_path`].
    pub fn tokenizer(&self) -> Outcome<Tokenizer> {
        if let ModelName::Path(path) = self {
            return Ok(Tokenizer::from_path(&resolve_tokenizer(path)?)?);
        }
        Ok(match self.source()? {
            Source::Folder(path) => Tokenizer::from_path(&path)?,
            source @ Source::Memory(_) => Tokenizer::from_dir(&source)?,
        })
    }
}

/// The files of an embedded model.
fn embedded(name: &str) -> Outcome<Source> {
    EMBEDDED.iter().find(|bundle| bundle.name == name).map(Source::from).ok_or_else(|| {
        Failure::Usage(format!(
            "this build of vitrine has no model {name} in it; name a model's folder with --model"
        ))
    })
}

/// What the card of an embedded model says of itself, in a line `field: value` at its beginning.
pub fn card_field(bundle: &Bundle, field: &str) -> Option<&'static str> {
    let card = std::str::from_utf8(bundle.file("README.md")?).ok()?;
    let value = card.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.map(str::trim).filter(|value| *value != "TODO")
}

/// Says that a name is not that of a folder which is here, too.
fn not_the_folder(option: &str, name: &str) {
    if Path::new(name).exists() {
        note(format!("{option} {name} is what vitrine calls so; the one in this folder is ./{name}"));
    }
}

/// The value of a `--data` option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataName {
    /// The generated corpus of short reviews.
    Embedded,
    /// A file or a folder.
    Path(PathBuf),
}

impl From<OsString> for DataName {
    fn from(name: OsString) -> Self {
        if name == PRETRAINED { DataName::Embedded } else { DataName::Path(name.into()) }
    }
}

impl fmt::Display for DataName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataName::Embedded => f.write_str(PRETRAINED),
            DataName::Path(path) => f.write_str(&name_of(path)),
        }
    }
}

impl DataName {
    /// The same, with the place of its files in the cache for a name on the hub.
    ///
    /// # Errors
    /// As [`resolve_data`].
    pub fn located(&self) -> Outcome<Self> {
        match self {
            DataName::Path(path) => Ok(DataName::Path(resolve_data(path, Purpose::Labelled)?)),
            DataName::Embedded => Ok(DataName::Embedded),
        }
    }

    /// The rows to train on and, where there are any, to evaluate on.
    ///
    /// # Errors
    /// As [`data::load_splits`].
    pub fn splits(&self, options: &LoadOptions) -> Outcome<Splits> {
        Ok(match self {
            DataName::Embedded => {
                not_the_folder("--data", PRETRAINED);
                corpus::splits(0)
            }
            DataName::Path(path) => data::load_splits(&resolve_data(path, Purpose::Labelled)?, options)?,
        })
    }

    /// The rows to evaluate on, and remarks.
    ///
    /// # Errors
    /// As [`data::load_evaluation`].
    pub fn evaluation(&self, options: &LoadOptions) -> Outcome<(Dataset, Vec<String>)> {
        let DataName::Path(path) = self else {
            let Splits { train, test, notes } = self.splits(options)?;
            return Ok((test.unwrap_or(train), notes));
        };
        Ok(data::load_evaluation(&resolve_data(path, Purpose::Labelled)?, options)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_what_is_embedded_come_before_folders() {
        let model = |name: &str| ModelName::from(OsString::from(name));
        assert_eq!(model("embedded"), ModelName::Embedded("embedded"));
        assert_eq!(model("embedded-imdb"), ModelName::Embedded("embedded-imdb"));
        assert_eq!(model("scratch"), ModelName::Scratch);
        for path in ["./embedded", "embedded/", "models/scratch", "Embedded", ""] {
            assert_eq!(model(path), ModelName::Path(path.into()));
            assert_eq!(DataName::from(OsString::from(path)), DataName::Path(path.into()));
        }
        for name in ["embedded", "embedded-imdb", "scratch", "./embedded"] {
            assert_eq!(model(name).to_string(), name);
        }
        assert!(matches!(model("scratch").trained(), Err(Failure::Usage(_))));
    }
}
