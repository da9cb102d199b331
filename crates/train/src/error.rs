//! The one error type of the crate, and [`Location`]: where in a data file something is.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The crate's result.
pub type Result<T> = std::result::Result<T, TrainError>;

/// Where in the input something is: shown as `file`, `file:line` or `file, row n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file; the rows of a table share it.
    pub path: Arc<Path>,
    /// The position inside it.
    pub position: Position,
}

/// A position inside a file, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The file as a whole.
    File,
    /// A line of a text file.
    Line(u64),
    /// A row of a table without lines (parquet, a JSON array).
    Row(u64),
}

impl Location {
    /// The file as a whole.
    pub fn file(path: &Path) -> Location {
        Location { path: path.into(), position: Position::File }
    }

    /// A line of a text file, counted from one.
    pub fn line(path: &Path, line: u64) -> Location {
        Location { path: path.into(), position: Position::Line(line) }
    }

    /// A row of a parquet file, counted from one.
    pub fn row(path: &Path, row: u64) -> Location {
        Location { path: path.into(), position: Position::Row(row) }
    }

    /// Another position in the same file.
    pub(crate) fn at(&self, position: Position) -> Location {
        Location { path: Arc::clone(&self.path), position }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.position {
            Position::File => write!(f, "{path}"),
            Position::Line(line) => write!(f, "{path}:{line}"),
            Position::Row(row) => write!(f, "{path}, row {row}"),
        }
    }
}

impl TrainError {
    /// The line of a text file that a reader refused.
    pub(crate) fn line(&self) -> Option<u64> {
        let (TrainError::FieldCount { place, .. } | TrainError::Quoting { place, .. }) = self else {
            return None;
        };
        match place.position {
            Position::Line(line) => Some(line),
            Position::File | Position::Row(_) => None,
        }
    }

    /// The tensor operation's error, if it was one, from whatever layer it came.
    pub fn tensor_error(&self) -> Option<&vitrine_tensor::Error> {
        match self {
            TrainError::Tensor(error)
            | TrainError::Autograd(vitrine_autograd::AutogradError::Tensor(error)) => Some(error),
            TrainError::Nn(error) => error.tensor_error(),
            TrainError::Bert(error) => error.tensor_error(),
            _ => None,
        }
    }
}

/// What can go wrong between a user's files and a trained model. Each message is one line: where, what, what to do.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model refused something.
    #[error(transparent)]
    Bert(#[from] vitrine_bert::BertError),
    /// The parameters refused something.
    #[error(transparent)]
    Nn(#[from] vitrine_nn::NnError),
    /// The tape refused something.
    #[error(transparent)]
    Autograd(#[from] vitrine_autograd::AutogradError),
    /// An operation refused something.
    #[error(transparent)]
    Tensor(#[from] vitrine_tensor::Error),
    /// A saved state is not that of an optimizer for this model.
    #[error("the optimizer's state {name}: {why}")]
    OptimizerState {
        /// The name in the state.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Training diverged.
    #[error(
        "step {step}: the loss is {loss} and the gradient's norm {grad_norm}: {finding}; the weights are still those of before \
         the step; lower the learning rate"
    )]
    NonFinite {
        /// The step, from 1.
        step: usize,
        /// Its loss.
        loss: f64,
        /// Global norm of its gradient.
        grad_norm: f64,
        /// What made it.
        finding: crate::Finding,
    },
    /// A technique that the model or the data do not fit.
    #[error("{option}: {why}")]
    Technique {
        /// The option of `vitrine train` or `vitrine pretrain`.
        option: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A file of a saved step is not what it should be.
    #[error("{}: {why}", path.display())]
    Replay {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Something still holds a parameter that is to be updated in place.
    #[error(
        "the parameter {name} cannot be updated while a variable, a tape or another tensor holds its values; drop them before the optimizer's step"
    )]
    ParameterInUse {
        /// The parameter's keys.
        name: String,
    },
    /// Somebody asked for an end.
    #[error("interrupted after step {step} of {total}; {}", kept(checkpoint.as_deref()))]
    Interrupted {
        /// Steps done.
        step: usize,
        /// Steps that there were to do.
        total: usize,
        /// The checkpoint from which the run can go on.
        checkpoint: Option<PathBuf>,
    },
    /// Settings that contradict each other.
    #[error("{why}")]
    Settings {
        /// Which, and what is needed.
        why: &'static str,
    },
    /// A checkpoint cannot be used.
    #[error("the checkpoint {}: {why}", path.display())]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What is damaged, or of another run.
        why: String,
    },
    /// A checkpoint was made with settings that give another result.
    #[error(
        "the checkpoint {} was made with other settings, and going on would change the result:\n{}\ngo on with the settings of \
         the checkpoint, or start a new run",
        path.display(),
        crate::checkpoint::SettingsTable(differences)
    )]
    SettingsDiffer {
        /// Its folder.
        path: PathBuf,
        /// What differs.
        differences: Vec<crate::checkpoint::Difference>,
    },
    /// A checkpoint could not be written.
    #[error(
        "cannot write the checkpoint {}: {source}; it takes {:.1} MiB: free at least as much on that disk{}",
        path.display(),
        *bytes as f64 / f64::from(1 << 20),
        last.as_ref().map_or(String::new(), |last| format!(" (the checkpoint before is whole: {})", last.display()))
    )]
    WriteCheckpoint {
        /// Where it should have been.
        path: PathBuf,
        /// Bytes that it takes.
        bytes: u64,
        /// The one before.
        last: Option<PathBuf>,
        /// What the operating system answered.
        source: std::io::Error,
    },
    /// The operating system refused to write.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What it answered.
        source: std::io::Error,
    },
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What it answered.
        source: std::io::Error,
    },
    /// A file whose format is not known by its extension.
    #[error("{}: not a data file; expected .parquet, .csv, .tsv, .jsonl or a folder", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A path that is nothing here, and that looks like a name on the Hugging Face hub.
    #[error(
        "{name}: no such file or folder. If it is a data set on the Hugging Face hub, fetch it first: \
         `vitrine fetch --dataset {name}`, then pass the folder that it prints"
    )]
    HubName {
        /// The name.
        name: String,
    },
    /// A folder in which no known layout holds the split that was asked for.
    #[error(
        "{}: no `{split}` split (looked for {split}-*.parquet, {split}.csv, .tsv, .jsonl or .json, and class folders \
         {split}/NAME/*.txt, also under plain_text/, data/ and aclImdb/){hint}",
        path.display()
    )]
    NoSplit {
        /// The folder.
        path: PathBuf,
        /// The split.
        split: String,
        /// What is there instead.
        hint: String,
    },
    /// A split is cut into shards, and there are more or fewer files than their names say.
    #[error(
        "{}: {found} files of `{split}`, whose names say that there are {expected}; fetch the missing ones, or remove \
         those of another version",
        path.display()
    )]
    MissingShards {
        /// The folder.
        path: PathBuf,
        /// The split.
        split: String,
        /// How many files there are.
        found: usize,
        /// How many there are by their names.
        expected: usize,
    },
    /// Lines of texts that begin with the header of a table.
    #[error(
        "{place}: `{header}` is the header of a table, not a text; pass it as a file named .csv, .tsv or .jsonl: \
         --file FILE.csv"
    )]
    TableOfTexts {
        /// The first line.
        place: Location,
        /// The line, shortened.
        header: String,
    },
    /// Texts to pretrain on that are test data by their name.
    #[error(
        "{}: by its name this is test data, and a model that was pretrained on it cannot be judged on it; pass the training or \
         unlabelled texts (if it is something else, give it another name)",
        path.display()
    )]
    TestData {
        /// The file or folder.
        path: PathBuf,
    },
    /// Rows without labels where labels are needed.
    #[error("{data}: none of its {rows} rows has a label (every one is empty or -1); see --label-column")]
    Unlabelled {
        /// The file or split.
        data: String,
        /// Its rows.
        rows: usize,
    },
    /// A row without a label among others that have one.
    #[error("{place}: no label here, but other rows have one; give it a label or remove the row")]
    MissingLabel {
        /// The line or row.
        place: Location,
    },
    /// The classes of two sides do not fit.
    #[error(
        "{data} has the classes {}, {owner} has {}; --label-map OLD=NEW renames the labels of the data",
        quoted(classes),
        quoted(known)
    )]
    Classes {
        /// The file or split.
        data: String,
        /// Its classes.
        classes: Vec<String>,
        /// The model, or the split or file that the classes were compared with.
        owner: String,
        /// The classes of that.
        known: Vec<String>,
    },
    /// More different labels than any classifier has classes: the wrong column.
    #[error(
        "{data}: {classes} different labels{}, and at most {} are supported; choose the column with --label-column",
        column.as_ref().map(|name| format!(" in `{}`", shortened(name))).unwrap_or_default(),
        crate::data::MAX_CLASSES
    )]
    TooManyClasses {
        /// The file or split.
        data: String,
        /// How many.
        classes: usize,
        /// The column that they come from.
        column: Option<String>,
    },
    /// Nothing to train or evaluate on.
    #[error("{data}: no rows; a data set needs at least one")]
    Empty {
        /// The file, folder or evaluation.
        data: String,
    },
    /// Text that is not UTF-8.
    #[error(
        "{place}: not UTF-8 at byte {offset}; convert the file to UTF-8, such as from Windows-1252: \
         iconv -f WINDOWS-1252 -t UTF-8"
    )]
    NotUtf8 {
        /// The file, the line of a text file, or the row of a parquet file.
        place: Location,
        /// Offset of the first bad byte in the file, or in the row's text.
        offset: usize,
    },
    /// The text or the label column is not there.
    #[error(
        "{place}: no {role} column {}; the columns are {}; choose one with --{role}-column{hint}",
        quoted(wanted),
        quoted(columns)
    )]
    MissingColumn {
        /// The file, or the line that lacks it.
        place: Location,
        /// What the column is for: `text` or `label`.
        role: &'static str,
        /// The names that were looked for.
        wanted: Vec<String>,
        /// The names that exist.
        columns: Vec<String>,
        /// What else may be wrong, or nothing.
        hint: &'static str,
    },
    /// The text or the label column is there twice.
    #[error(
        "{place}: {count} columns are named `{}`; rename one, or choose another with --{role}-column",
        shortened(column)
    )]
    DuplicateColumn {
        /// The file, or its header line.
        place: Location,
        /// What the column is for: `text` or `label`.
        role: &'static str,
        /// The name.
        column: String,
        /// How many there are.
        count: usize,
    },
    /// A column, or one of its values, has a type that cannot be used.
    #[error("{place}: column `{column}` must hold {expected}, found {got}")]
    ColumnType {
        /// The file, line or row.
        place: Location,
        /// The column.
        column: String,
        /// What it must hold.
        expected: &'static str,
        /// What it holds.
        got: String,
    },
    /// A line of a delimited file with more or fewer fields than its header.
    #[error("{place}: {got} fields where the header has {expected}; {advice}")]
    FieldCount {
        /// The line on which the record starts.
        place: Location,
        /// Fields in the header.
        expected: u64,
        /// Fields in the record.
        got: u64,
        /// What to do.
        advice: &'static str,
    },
    /// Quotes in a delimited file from which rows cannot be told.
    #[error("{place}: {problem}")]
    Quoting {
        /// The line of the quote.
        place: Location,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Text that is not a JSON object.
    #[error("{place}: not a JSON object ({source}); expected one object per line")]
    Json {
        /// The line or row.
        place: Location,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// JSON in which a row is no object.
    #[error(
        "{place}: {found}; expected one object a row, one a line or in an array \
         (pandas: df.to_json(path, orient=\"records\", lines=True))"
    )]
    JsonLayout {
        /// The line or row.
        place: Location,
        /// What is there.
        found: String,
    },
    /// A file whose content is of another kind than its name says, or of a kind that is not read.
    #[error("{}: {found}; {advice}", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A file that unpacks to more than is read.
    #[error(
        "{place}: {what}; at most {limit} MiB are read from this file (the larger of 256 MiB and 100 times its size)"
    )]
    TooLarge {
        /// The file.
        place: Location,
        /// What is too large.
        what: &'static str,
        /// The limit, in MiB.
        limit: u64,
    },
    /// A parquet column that is compressed or encoded in a way that is not built in.
    #[error(
        "{}: a column is {how}, which is not built in; write the file with other settings \
         (pandas: pandas.read_parquet(path).to_parquet(new, compression=\"zstd\"))",
        path.display()
    )]
    ParquetFeature {
        /// The file.
        path: PathBuf,
        /// How the column is written.
        how: &'static str,
    },
    /// A parquet file that is damaged or cut off.
    #[error("{place}: not a readable parquet file ({source}); fetch it again")]
    Parquet {
        /// The file.
        place: Location,
        /// What the reader says.
        source: parquet::errors::ParquetError,
    },
    /// A parquet file whose columns have different numbers of rows.
    #[error("{place}: {texts} texts but {labels} labels; fetch the file again")]
    UnequalColumns {
        /// The file.
        place: Location,
        /// Rows of the text column.
        texts: usize,
        /// Rows of the label column.
        labels: usize,
    },
    /// A label that is neither a class index nor a known name.
    #[error("{place}: label `{label}` is not {expected}")]
    Label {
        /// The line or row.
        place: Location,
        /// The label as it stands there, shortened.
        label: String,
        /// What would be accepted.
        expected: String,
    },
    /// Logits that are NaN or infinite.
    #[error(
        "the logits of evaluated row {row} are not finite ({value}); the weights are damaged or training diverged"
    )]
    NonFiniteLogits {
        /// The row, counted from zero over the evaluation.
        row: usize,
        /// The first such logit.
        value: f32,
    },
    /// Logits and labels of different lengths, or a label outside of the classes.
    #[error("metrics: {logits} logits and {labels} labels do not fit {classes} classes")]
    MetricsShape {
        /// Number of logits.
        logits: usize,
        /// Number of labels.
        labels: usize,
        /// Number of classes.
        classes: usize,
    },
    /// An evaluated label outside of the classes.
    #[error("the label of evaluated row {row} is {label}, and the model has {classes} classes")]
    LabelRange {
        /// The row, counted from zero over the evaluation.
        row: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A name of a schedule that does not exist.
    #[error("unknown schedule `{name}`; expected linear, cosine, constant, polynomial or wsd")]
    UnknownSchedule {
        /// The name.
        name: String,
    },
}

fn kept(checkpoint: Option<&Path>) -> String {
    checkpoint.map_or("nothing was saved".to_owned(), |path| format!("a checkpoint is in {}", path.display()))
}

/// A list of names for a message: quoted, each at most 40 characters, at most 12 of them.
pub(crate) fn quoted(names: &[String]) -> String {
    let mut list: Vec<String> = names.iter().take(12).map(|name| format!("`{}`", shortened(name))).collect();
    if names.len() > list.len() {
        list.push(format!("... ({} in all)", names.len()));
    }
    if list.is_empty() { "(none)".to_owned() } else { list.join(", ") }
}

/// At most 40 characters of user text for a one-line message, control characters shown as spaces.
pub(crate) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(40).collect();
    if text.chars().nth(40).is_some() {
        short.push_str("...");
    }
    short
}
