//! `vitrine predict`: classifies texts.

use super::resolve;
use crate::args::Predict;
use crate::output::{self, Failure, Outcome, note, printable, warn};
use crate::report;
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::path::Path;
use vitrine_bert::{Loaded, SequenceClassifier};
use vitrine_train::data::{self, LoadOptions, TextLines};
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
    let Loaded { mut model, tokenizer, notes } = SequenceClassifier::load(&arguments.model.trained()?)?;
    notes.iter().for_each(warn);
    let tokenizer = report::truncating(tokenizer, arguments.truncate, true);
    let options = LoadOptions {
        text_column: arguments.text_column.clone(),
        remembered_text_column: model.config().data_columns().text,
        ..LoadOptions::default()
    };
    let given = match (&arguments.file, &arguments.texts[..]) {
        (Some(path), _) if path == Path::new("-") => None,
        (Some(path), _) => {
            let (texts, remarks) = data::read_texts(path, &options)?;
            remarks.iter().for_each(note);
            Some(texts)
        }
        (None, []) => None,
        (None, [only]) if only == "-" => None,
        (None, texts) => Some(texts.to_vec()),
    };
    let positions = model.config().max_length();
    // The texts of a batch are not the user's to choose, so only the device is.
    let failed = |error, model: &_| super::explained(error, model, positions, (1, ""));
    let moved = model.to_device(resolved.place).and_then(|()| model.compute_in(resolved.compute));
    moved.map_err(|error| failed(error.into(), &model))?;
    let names = model.config().label_names();
    let classify = |texts: &[String]| -> Outcome {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let predictions = predict(&model, &tokenizer, &texts).map_err(|error| failed(error, &model))?;
        texts.iter().zip(predictions).try_for_each(|(text, p)| {
            print(arguments, text, &p, &names)?;
            if p.truncated && !arguments.json {
                warn(format!("only {} of this text were read", report::read_tokens(&tokenizer, p.tokens)));
            }
            Ok(())
        })
    };
    if let Some(texts) = given {
        return texts.chunks(BATCH).try_for_each(classify);
    }
    if io::stdin().is_terminal() {
        note("reading texts from standard input, one a line; Ctrl-D ends");
    }
    let mut lines = TextLines::new(io::stdin().lock(), "standard input", &options);
    let mut any = false;
    loop {
        // Every text is answered before the next is waited for; what is there already is classified together.
        let texts = lines.ready(BATCH)?;
        if texts.is_empty() {
            break;
        }
        any = true;
        classify(&texts)?;
    }
    if any {
        return Ok(());
    }
    Err(Failure::Usage(
        "no text: give TEXT, or --file FILE, or texts on standard input, one a line".to_owned(),
    ))
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
    let labels: Vec<String> =
        shown.iter().map(|s| format!("{} {:.4}", printable(s.label), s.score)).collect();
    // A line a text, and no commands for the terminal.
    let text = text.replace(char::is_control, " ");
    output::line(format!("{}\t{text}", labels.join("  ")))
}
