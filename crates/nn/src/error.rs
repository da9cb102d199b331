//! The one error type of the crate.

use safetensors::SafeTensorError;
use std::path::PathBuf;

/// The crate's result.
pub type Result<T> = std::result::Result<T, NnError>;

/// What can go wrong between a file of weights and a layer's result. Every message is one line, except the table of keys.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// The operating system refused to read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// In the place of a file, the pointer that a clone without Git LFS leaves there.
    #[error(
        "{}: this is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository, or download the file again",
        path.display()
    )]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A JSON file does not parse, or a field has another type than it should.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: serde_json::Error,
    },
    /// A file or folder is something else than what is expected in its place.
    #[error("{}: {why}", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What it is, and what to do.
        why: String,
    },
    /// A folder holds no weights that can be read.
    #[error("{}: no model.safetensors{hint}", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// What is there instead, and what to do about it; or nothing.
        hint: String,
    },
    /// A weight file is damaged: its header contradicts itself or the file's length.
    #[error("{}: not a complete safetensors file ({} bytes): {source}", path.display(), len)]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// What is wrong.
        source: SafeTensorError,
    },
    /// A weight is stored in a type that is not a weight's.
    #[error("{}: {key} is stored as {dtype}; a quantised or integer type; expected F32, F16, BF16 or F64", path.display())]
    WeightDType {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its type, by the format's name.
        dtype: String,
    },
    /// A weight is NaN or infinite.
    #[error("{}: {key} holds {value} at element {index}; the checkpoint is damaged", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Position in row-major order.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A weight has no place in the type in which it should be saved.
    #[error("{key} holds {value}, beyond the largest {dtype}, {most}; save the model in f32 or bf16")]
    Overflow {
        /// The key.
        key: String,
        /// The value.
        value: f32,
        /// The type.
        dtype: vitrine_tensor::DType,
        /// Its largest value.
        most: f32,
    },
    /// The keys in the file are not those of the model.
    #[error("{}: the weights do not fit config.json\n{report}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// Missing, mis-shaped and unexpected keys.
        report: Box<crate::KeyReport>,
    },
    /// A trainable parameter did not take part in the loss.
    #[error("no gradient for the trainable parameters {}; freeze them, or use them", keys.join(", "))]
    MissingGradient {
        /// The parameters' keys.
        keys: Vec<String>,
    },
    /// A parameter's parts do not add up to its rows.
    #[error("internal: the parts of parameter {key} have {parts} rows together, its tensor has {rows}")]
    Parts {
        /// The first part's key.
        key: String,
        /// Rows of all parts.
        parts: usize,
        /// Rows of the tensor.
        rows: usize,
    },
    /// A tap that the model does not have, or that has no such value.
    #[error("tap {name}: {why}")]
    Tap {
        /// The point.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] vitrine_tensor::Error),
    /// The tape refused an operation.
    #[error(transparent)]
    Autograd(#[from] vitrine_autograd::AutogradError),
}

impl NnError {
    /// The tensor operation's error, if it was one.
    pub fn tensor_error(&self) -> Option<&vitrine_tensor::Error> {
        match self {
            NnError::Tensor(error) | NnError::Autograd(vitrine_autograd::AutogradError::Tensor(error)) => {
                Some(error)
            }
            _ => None,
        }
    }
}
