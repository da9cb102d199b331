//! `vitrine look`: one page about one text, in a file.

use super::{opened, saved};
use crate::args::Look;
use crate::output::{Outcome, json, line, printable};
use serde::Serialize;
use std::path::PathBuf;
use vitrine_explore::contract::{Models, Prediction};
use vitrine_explore::engine::Engine;

/// What `--json` prints.
#[derive(Serialize)]
struct Written {
    html: PathBuf,
    bytes: usize,
    /// Maps of heads in the file, of all models.
    maps: usize,
    models: Vec<Of>,
}

/// What a model says.
#[derive(Serialize)]
struct Of {
    model: String,
    tokens: usize,
    truncated: usize,
    label: Option<String>,
    score: Option<f32>,
}

/// Runs the command.
pub fn run(arguments: &Look) -> Outcome {
    let (model, text) = arguments.model_and_text()?;
    saved::check(&arguments.output, "--output")?;
    let names = [Some(&model), arguments.compare.as_ref()];
    let engine = opened(names, arguments.lens.as_ref(), &arguments.compute)?;
    let written = saved::write(&engine, &text, &arguments.output)?;
    let Models { models, .. } = engine.models();
    let of = models.into_iter().zip(&written.recorded.runs).map(|(model, run)| {
        let said =
            run.prediction.as_ref().zip(model.classes).map(|(said, classes)| likeliest(said, &classes));
        let (label, score) = said.unzip();
        Of { model: model.name, tokens: run.tokens.len(), truncated: run.truncated, label, score }
    });
    let of: Vec<Of> = of.collect();
    if arguments.json {
        let (html, maps) = (arguments.output.clone(), written.recorded.maps);
        return json(&Written { html, bytes: written.bytes, maps, models: of });
    }
    written.say();
    for Of { model, label, score, .. } in &of {
        match (label, score) {
            (Some(label), Some(score)) => {
                line(format!("{}: {} {score:.4}", printable(model), printable(label)))?;
            }
            _ => line(format!("{}: no classifier", printable(model)))?,
        }
    }
    line(arguments.output.display())
}

/// The class with the largest probability.
fn likeliest(said: &Prediction, classes: &[String]) -> (String, f32) {
    let ranked = classes.iter().zip(&said.probabilities).max_by(|a, b| a.1.total_cmp(b.1));
    ranked.map_or_else(Default::default, |(class, &score)| (class.clone(), score))
}
