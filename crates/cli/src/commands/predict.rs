//! `vitrine predict`: classifies texts.

use super::resolve;
use crate::args::Predict;
use crate::output::{self, Failure, Outcome, warn};
use serde::Serialize;
use std::fs;
use std::io::Read;
use std::path::Path;
use vitrine_bert::{BertForSequenceClassification, Loaded};
use vitrine_train::{Prediction, predict};

/// Texts classified before their results are printed.
const BATCH: usize = 16;

/// One line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    label: &'a str,
    score: f32,
    logits: &'a [f32],
    tokens: usize,
    truncated: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<Scored<'a>>,
}

/// A label and its probability.
#[derive(Serialize)]
struct Scored<'a> {
    label: &'a str,
    score: f32,
}

/// Runs the command.
pub fn run(arguments: &Predict) -> Outcome {
    let resolved = resolve(&arguments.compute)?;
    let texts = match &arguments.file {
        Some(path) => read_texts(path)?,
        None => arguments.texts.clone(),
    };
    let Loaded { mut model, tokenizer, notes } = BertForSequenceClassification::load(&arguments.model)?;
    notes.iter().for_each(warn);
    let positions = model.config().max_position_embeddings;
    // The texts of a batch are not the user's to choose, so only the device is.
    let failed = |error, model: &_| super::explained(error, model, positions, (1, ""));
    let moved = model.to_device(resolved.place).and_then(|()| model.compute_in(resolved.compute));
    moved.map_err(|error| failed(error.into(), &model))?;
    let names = model.config().label_names();
    for texts in texts.chunks(BATCH) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let predictions = predict(&model, &tokenizer, &texts).map_err(|error| failed(error, &model))?;
        for (text, prediction) in texts.iter().zip(predictions) {
            print(arguments, text, &prediction, &names)?;
        }
    }
    Ok(())
}

fn print(arguments: &Predict, text: &str, prediction: &Prediction, names: &[String]) -> Outcome {
    let ranked = prediction.ranked();
    let scored = |&class: &usize| Scored { label: &names[class], score: prediction.probabilities[class] };
    let shown: Vec<Scored> = ranked.iter().take(arguments.top_k).map(scored).collect();
    if arguments.json {
        return output::json(&Line {
            label: shown[0].label,
            score: shown[0].score,
            logits: &prediction.logits,
            tokens: prediction.tokens,
            truncated: prediction.truncated,
            top: if arguments.top_k > 1 { shown } else { Vec::new() },
        });
    }
    let labels: Vec<String> = shown.iter().map(|s| format!("{} {:.4}", s.label, s.score)).collect();
    // A line a text, and no commands for the terminal.
    let text = text.replace(char::is_control, " ");
    output::line(format!("{}\t{text}", labels.join("  ")))?;
    if prediction.truncated {
        warn(format!("only the first {} tokens of this text were read", prediction.tokens));
    }
    Ok(())
}

/// A text a line, or JSONL with a `text` field (told by the file's name, or by the first line being a JSON object); blank
/// lines are skipped.
fn read_texts(path: &Path) -> Outcome<Vec<String>> {
    let name = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    let failure = |error: std::io::Error| Failure::Run(format!("{name}: {error}"));
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(failure)?;
    } else {
        bytes = fs::read(path).map_err(failure)?;
    }
    let content = String::from_utf8(bytes).map_err(|error| {
        Failure::Run(format!(
            "{name}: byte {} is not UTF-8; save the file as UTF-8",
            error.utf8_error().valid_up_to()
        ))
    })?;
    let content = content.strip_prefix('\u{feff}').unwrap_or(&content);
    let lines: Vec<(usize, &str)> =
        content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Err(Failure::Run(format!("{name}: no text to classify")));
    }
    let is_object =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|value| value.is_object());
    let named = path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
    if !named && !lines.first().is_some_and(|(_, line)| is_object(line)) {
        return Ok(lines.into_iter().map(|(_, line)| line.to_owned()).collect());
    }
    let text_of = |(index, line): (usize, &str)| {
        let value: serde_json::Value = serde_json::from_str(line)
            .map_err(|error| Failure::Run(format!("{name}, line {}: not valid JSON: {error}", index + 1)))?;
        let text = value.get("text").and_then(|text| text.as_str());
        text.map(str::to_owned).ok_or_else(|| {
            Failure::Run(format!("{name}, line {}: no field `text` with a string in it", index + 1))
        })
    };
    lines.into_iter().map(text_of).collect()
}
