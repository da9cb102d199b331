//! The one error type of the crate.

use std::path::PathBuf;
use vitrine_nn::{NnError, listed};

/// The crate's result.
pub type Result<T> = std::result::Result<T, BertError>;

/// What can go wrong between a model folder and its output. Every message is one line, except the table of keys.
#[derive(Debug, thiserror::Error)]
pub enum BertError {
    /// The operating system refused to read or write.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder cannot take a model, or cannot be read now.
    #[error("{}: {why}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not, and what to do.
        why: FolderProblem,
    },
    /// A JSON file does not parse, or a field has another type than it should.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: serde_json::Error,
    },
    /// A config field has a value that this implementation does not compute.
    #[error("{origin}: {field} = {got} is not supported; expected {expected}")]
    Config {
        /// The file, or "config" where there is none.
        origin: String,
        /// The field, by its Hugging Face name.
        field: &'static str,
        /// What is supported.
        expected: String,
        /// Its value.
        got: String,
    },
    /// A file or folder is something else than what is expected in its place.
    #[error("{}: {why}", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What it is, and what to do.
        why: String,
    },
    /// A model folder has no classifier where a trained one is needed.
    #[error(
        "{0}: no classifier in it, only an encoder{others}; train one: vitrine train --model {0} --data ..",
        folder.display()
    )]
    NoClassifier {
        /// The folder.
        folder: PathBuf,
        /// What is in the file beside the encoder; or nothing.
        others: String,
    },
    /// A trained classifier has another number of classes than are wanted.
    #[error(
        "{}: its classifier has {} classes ({}), and the data has {} ({})",
        folder.display(), has.len(), listed(has), wanted.len(), listed(wanted)
    )]
    Classes {
        /// The model folder.
        folder: PathBuf,
        /// The names of the classifier's classes, in order.
        has: Vec<String>,
        /// The names of the classes that are wanted.
        wanted: Vec<String>,
    },
    /// A folder holds no tokenizer.
    #[error("{}: neither tokenizer.json nor vocab.txt, nor vocab.json with merges.txt", folder.display())]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
    },
    /// A setting of the tokenizer has another type than it should, or a value that this implementation does not follow.
    #[error("{path}: {field} = {got} is not supported; expected {expected}")]
    TokenizerSetting {
        /// The file.
        path: String,
        /// The setting.
        field: String,
        /// What is supported.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A long text cannot be tokenized piece by piece.
    #[error(
        "a text has {} MB that can only be tokenized at once, and the limit is {} MB; cut it before",
        bytes / 1_000_000, limit / 1_000_000
    )]
    TextTooLong {
        /// At least so many bytes.
        bytes: usize,
        /// The most bytes that are tokenized at once.
        limit: usize,
    },
    /// The tokenizer's files do not describe a tokenizer that is known here.
    #[error("{path}: {source}")]
    Tokenizer {
        /// The file, or where else it came from.
        path: String,
        /// What is wrong.
        source: tokenizers::Error,
    },
    /// An input cannot be given to the model.
    #[error("sequence {sequence} of the batch: {name} must be {expected}, got {got}")]
    Batch {
        /// Which sequence, from 0.
        sequence: usize,
        /// What about it.
        name: &'static str,
        /// What it must be.
        expected: String,
        /// What it was.
        got: String,
    },
    /// A limit on the number of tokens that no model takes.
    #[error("maximum length must be {min}..={max} tokens, got {got}")]
    MaxLength {
        /// The shortest: `[CLS]`, one token, `[SEP]`.
        min: usize,
        /// The number of positions of the model.
        max: usize,
        /// What was asked for.
        got: usize,
    },
    /// A layer, the weights or one of their files refused something.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] vitrine_tensor::Error),
    /// The tape refused an operation.
    #[error(transparent)]
    Autograd(#[from] vitrine_autograd::AutogradError),
}

impl BertError {
    /// The tensor operation's error, if it was one, from whatever layer it came.
    pub fn tensor_error(&self) -> Option<&vitrine_tensor::Error> {
        match self {
            BertError::Tensor(error)
            | BertError::Autograd(vitrine_autograd::AutogradError::Tensor(error)) => Some(error),
            BertError::Nn(error) => error.tensor_error(),
            _ => None,
        }
    }
}

/// What keeps a folder from taking a model, or from being read.
#[derive(Debug, thiserror::Error)]
pub enum FolderProblem {
    /// Something is in it that may be of use to somebody.
    #[error("the folder is not empty; choose another or pass --overwrite")]
    NotEmpty,
    /// Another run writes into it.
    #[error("another run{} writes into this folder; wait for its end or choose another folder", process(*pid))]
    InUse {
        /// Its process, if its files say so.
        pid: Option<u32>,
    },
    /// It is a file, a device or the like.
    #[error("there is a file of this name; choose another")]
    NotAFolder,
    /// It is a link without a target.
    #[error("a symbolic link to {}, which does not exist; make that folder or choose another", target.display())]
    DanglingLink {
        /// What the link says.
        target: PathBuf,
    },
    /// The path leads to another folder, or another model is in it, than when the work began.
    #[error("another program has changed the model or moved the folder meanwhile")]
    Changed,
    /// A run was killed while it replaced the model, and what it left to do cannot be done.
    #[error(
        "a killed run has left the replacement of this model unfinished, and it cannot be finished: {error}"
    )]
    Unfinished {
        /// What failed.
        error: String,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or(String::new(), |pid| format!(" (process {pid})"))
}
