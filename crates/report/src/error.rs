//! What can go wrong with the files of a run.

use std::path::PathBuf;
use thiserror::Error;

/// The result of reading a run or writing its report.
pub type Result<T, E = ReportError> = std::result::Result<T, E>;

/// Why a report cannot be made.
#[derive(Debug, Error)]
pub enum ReportError {
    /// A folder without the files of a run.
    #[error(
        "{}: neither run.json nor metrics.jsonl is there; give the --output folder of `vitrine train`",
        folder.display()
    )]
    NotARun {
        /// The folder.
        folder: PathBuf,
    },
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not what Vitrine writes.
    #[error("{}: not what vitrine writes: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        source: serde_json::Error,
    },
}
