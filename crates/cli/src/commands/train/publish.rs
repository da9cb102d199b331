//! What a run leaves for people at its end: predictions, report and model card.

use crate::output::{Failure, Outcome, note};
use std::fs;
use std::path::Path;
use vitrine_bert::{CONFIG_FILE, ModelConfig, StagedFiles};
use vitrine_report::card::{self, CardFacts};
use vitrine_report::{REPORT_PAGE, Run, report};
use vitrine_train::Evaluation;

/// A line an evaluated row.
const PREDICTIONS_FILE: &str = "predictions.jsonl";

/// Writes the predictions of the evaluation at the end, `report.html` and the model card of a run whose `run.json` is written.
///
/// # Errors
/// Of the files; what else could be written is.
pub fn publish(
    files: &StagedFiles,
    model: Option<&Path>,
    config: &ModelConfig,
    eval: Option<&Evaluation>,
) -> Outcome {
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
        let facts = CardFacts {
            base_model: model.and_then(base_model),
            model_type: Some(config.family.model_type.to_owned()),
        };
        files.rewrite(card::FILE, &card::card(&run, &facts))?;
    } else {
        note(format!("{} is yours and stays as it is: no model card is written", path.display()));
    }
    Ok(())
}

/// The hub's name of a model, such as `google-bert/bert-base-uncased`, if its configuration says one: `transformers` writes where
/// it loaded a model from.
fn base_model(folder: &Path) -> Option<String> {
    let config: serde_json::Value = serde_json::from_slice(&fs::read(folder.join(CONFIG_FILE)).ok()?).ok()?;
    let name = config.get("_name_or_path")?.as_str()?;
    let is_name = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let (owner, model) = name.split_once('/')?;
    (is_name(owner) && is_name(model) && !Path::new(name).exists()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_hub_are_base_models() {
        let folder = tempfile::tempdir().unwrap();
        let named = |name: &str| {
            let config = serde_json::json!({"_name_or_path": name}).to_string();
            fs::write(folder.path().join(CONFIG_FILE), config).unwrap();
            base_model(folder.path())
        };
        assert_eq!(named("google-bert/bert-base-uncased").as_deref(), Some("google-bert/bert-base-uncased"));
        for path in ["", "/home/me/model", "./model", "../a", "a/b/c", "bert", "a b/c"] {
            assert_eq!(named(path), None, "{path}");
        }
    }
}
