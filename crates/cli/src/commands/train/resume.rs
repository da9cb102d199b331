//! Where a run goes on: from which checkpoint, or from none.

use super::output::{finished_report, report};
use crate::commands::Resolved;
use crate::output::{Failure, Outcome, note, warn};
use serde_json::{Map, Value};
use std::path::Path;
use vitrine_train::checkpoint::{SettingsTable, differences};
use vitrine_train::{Checkpoints, Found, TrainError, TrainState};

/// Whether the run in a folder is finished, which is then said. One that was another run is refused: its result is not what this
/// command would make.
pub fn is_finished(output: &Path, determined_by: &Map<String, Value>) -> Outcome<bool> {
    let Some(report) = finished_report(output) else { return Ok(false) };
    let differences = match report.get("determined_by") {
        Some(Value::Object(before)) => differences(before, determined_by),
        _ => Vec::new(),
    };
    if !differences.is_empty() {
        return Err(Failure::Usage(format!(
            "the run in {} is finished, and it was made with other settings:\n{}\nchoose another --output, or start over with \
             --overwrite",
            output.display(),
            SettingsTable(&differences)
        )));
    }
    note(format!("the run in {} is finished: there is nothing to go on with", output.display()));
    if report.get("eval").is_none_or(Value::is_null) {
        note(format!("it is not evaluated; use `vitrine eval --model {}`", output.display()));
    }
    Ok(true)
}

/// The checkpoint from which a run goes on, which is said, and so is why there is none.
pub fn newest(checkpoints: &mut Checkpoints, total_steps: usize) -> Outcome<Option<Found<TrainState>>> {
    let (found, damaged) = checkpoints.newest::<TrainState>().map_err(|error| match error {
        TrainError::SettingsDiffer { .. } => Failure::Usage(error.to_string()),
        error => error.into(),
    })?;
    damaged.iter().for_each(warn);
    match &found {
        Some(found) => {
            note(format!(
                "going on after step {} of {total_steps}, from {}",
                found.step,
                found.path.display()
            ));
        }
        None => note("no checkpoint to go on from: starting from the beginning"),
    }
    Ok(found)
}

/// What a run that goes on may lose: bits are those of an uninterrupted run only where the arithmetic is.
pub fn other_machine(output: &Path, resolved: &Resolved) -> Option<String> {
    let before = report(output)?["resolved"].take();
    let differs: Vec<String> = [("device", &resolved.device), ("isa", &resolved.isa)]
        .into_iter()
        .filter_map(|(name, now)| {
            let before = before.get(name)?.as_str().filter(|before| before != now)?;
            Some(format!("{before} before, {now} now"))
        })
        .collect();
    let what = differs.join("; ");
    (!differs.is_empty())
        .then(|| format!("{what}: sums are rounded otherwise, so the last bits will differ from one run"))
}
