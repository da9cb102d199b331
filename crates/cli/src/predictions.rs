//! `predictions.jsonl` of a run folder, and McNemar's test of two classifiers on the same rows.

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use vitrine_train::statistics::mcnemar;

/// A line an evaluated row, in the order of the data.
pub const PREDICTIONS_FILE: &str = "predictions.jsonl";
/// Bytes of one line of it, at most: a thousand classes' probabilities are 20 kB.
const LINE: u64 = 1 << 20;

/// What is read of a line.
#[derive(Deserialize)]
struct Line {
    row: usize,
    label: String,
    predicted: String,
}

/// Whether each row was predicted rightly, and its label.
pub struct Predictions {
    pub right: Vec<bool>,
    pub labels: Vec<String>,
}

impl Predictions {
    /// Those of a run folder.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join(PREDICTIONS_FILE);
        let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut reader = BufReader::new(file);
        let mut predictions = Predictions { right: Vec::new(), labels: Vec::new() };
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let at = predictions.right.len() + 1;
            let fail = |why: String| format!("{}:{at}: {why}", path.display());
            let read = (&mut reader)
                .take(LINE)
                .read_until(b'\n', &mut bytes)
                .map_err(|error| fail(error.to_string()))?;
            if read == 0 {
                return Ok(predictions);
            }
            let line: Line = serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
            if line.row + 1 != at {
                return Err(fail(format!("row {} where {} should be", line.row, at - 1)));
            }
            predictions.right.push(line.label == line.predicted);
            predictions.labels.push(line.label);
        }
    }
}

/// McNemar's test of two classifiers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Discordance {
    /// Rows that only the first got right.
    pub only_first: usize,
    /// Rows that only the second got right.
    pub only_second: usize,
    /// The two-sided probability of such an uneven split if both were equally good.
    pub p: f64,
}

impl Discordance {
    /// Of whether each got the same rows right.
    pub fn of(first: &[bool], second: &[bool]) -> Self {
        let count = |one: bool| first.iter().zip(second).filter(|&(&a, &b)| a != b && a == one).count();
        let (only_first, only_second) = (count(true), count(false));
        Discordance { only_first, only_second, p: mcnemar(only_first, only_second) }
    }
}
