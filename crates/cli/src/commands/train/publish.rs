//! What a run leaves for people at its end: predictions, report and model card.

use crate::output::{Failure, Outcome, note};
use std::fs;
use vitrine_bert::{ModelConfig, StagedFiles};
use vitrine_report::card;
use vitrine_report::{REPORT_PAGE, Run, report};
use vitrine_train::Evaluation;

/// A line an evaluated row.
const PREDICTIONS_FILE: &str = "predictions.jsonl";

/// Writes the predictions of the evaluation at the end, `report.html` and the model card of a run whose `run.json` is written.
///
/// # Errors
/// Of the files; what else could be written is.
pub fn publish(files: &StagedFiles, config: &ModelConfig, eval: Option<&Evaluation>) -> Outcome {
    let output = files.folder();
    let failed = |error: &dyn std::fmt::Display| Failure::Run(error.to_string());
    if let Some(eval) = eval {
        let mut lines = Vec::new();
        eval.predictions.write_jsonl(&mut lines).map_err(|error| failed(&error))?;
        files.rewrite(PREDICTIONS_FILE, &String::from_utf8_lossy(&lines))?;
    }
    let run = Run::read(output).map_err(|error| failed(&error))?;
    files.rewrite(REPORT_PAGE, &report(std::slice::from_ref(&run)))?;
    let path = output.join(card::FILE);
    let mine = match fs::read(&path) {
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        Ok(text) => card::is_ours(&String::from_utf8_lossy(&text)),
    };
    if mine {
        files.rewrite(card::FILE, &card::card(&run, Some(config.family.model_type)))?;
    } else {
        note(format!("{} is yours and stays as it is: no model card is written", path.display()));
    }
    Ok(())
}
