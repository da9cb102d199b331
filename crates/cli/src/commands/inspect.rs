//! `vitrine inspect`: what a model is made of, and what running it takes.

use crate::args::Inspect;
use crate::output::{self, Align, Failure, Outcome, bytes, line, si, table, thousands, warn};
use serde::Serialize;
use vitrine_bert::{Cost, load_any};

#[derive(Serialize)]
struct Report {
    parameters: usize,
    parameter_bytes: usize,
    parts: Vec<Part>,
    tokens: usize,
    #[serde(flatten)]
    cost: Cost,
}

#[derive(Serialize)]
struct Part {
    key: String,
    shape: Vec<usize>,
    parameters: usize,
}

/// Runs the command.
pub fn run(arguments: &Inspect) -> Outcome {
    let model = load_any(&arguments.model.trained()?)?;
    model.notes().iter().for_each(warn);
    let parts: Vec<Part> = model
        .parameters()
        .parts()?
        .iter()
        .map(|(key, view)| Part {
            key: (*key).to_owned(),
            shape: view.dims().to_vec(),
            parameters: view.numel(),
        })
        .collect();
    let parameters = parts.iter().map(|part| part.parameters).sum();
    let limit = model.config().max_length();
    let tokens = arguments.tokens.unwrap_or(limit);
    if tokens > limit {
        let message =
            format!("--tokens {tokens} is more than the model's {limit} positions; use {limit} or less");
        return Err(Failure::Usage(message));
    }
    let cost = model.config().cost(&[tokens]);
    let report = Report { parameters, parameter_bytes: parameters * 4, parts, tokens, cost };
    if arguments.json {
        return output::json(&report);
    }
    let rows: Vec<Vec<String>> = report
        .parts
        .iter()
        .map(|part| vec![part.key.clone(), format!("{:?}", part.shape), thousands(part.parameters)])
        .collect();
    line(table(&[("parameter", Align::Left), ("shape", Align::Left), ("elements", Align::Right)], &rows))?;
    line("")?;
    line(format!("{} parameters, {} in f32", thousands(parameters), bytes(report.parameter_bytes)))?;
    line(format!(
        "one sequence of {tokens} tokens: {}FLOP forward, {}FLOP for a training step",
        si(report.cost.forward_flops as f64),
        si(report.cost.training_flops as f64)
    ))?;
    line(format!("activations kept for backward: {}", bytes(report.cost.activation_bytes as usize)))
}
