//! `vitrine explain drift`: what differs between two checkpoints.

use super::lens::depths;
use super::watched;
use crate::args;
use crate::output::{self, Align, Failure, Outcome, line, note, printable, table, thousands, warn};
use crate::report;
use serde_json::{Value, json};
use vitrine_bert::Truncation;
use vitrine_explain::{Drift, Pooling, Rows, Subject, Text, drift, linear_cka};

/// What is compared of the states.
const POOLINGS: [Pooling; 2] = [Pooling::Cls, Pooling::Mean];

/// Runs the command.
pub fn run(arguments: &args::Drift) -> Outcome {
    let resolved = super::super::resolve(&arguments.compute)?;
    let load = |model: &crate::names::ModelName| -> Outcome<Subject> {
        let subject = Subject::load(&model.trained()?)?;
        subject.notes().iter().for_each(warn);
        Ok(subject)
    };
    let [mut first, mut second] = [load(&arguments.from)?, load(&arguments.model)?];
    let moved = drift(first.parameters(), second.parameters())?;
    if moved.parameters.is_empty() {
        return Err(Failure::Usage(format!(
            "{} and {} have no parameter of the same name and shape; compare a model with one that was made of it",
            arguments.from, arguments.model
        )));
    }
    let limits = [&first, &second].map(|subject| report::max_length(arguments.max_length, subject.config()));
    let [a, b] = limits;
    let max_length = a?.min(b?);
    let options = arguments.columns.options(Some(&second.config().data_columns()));
    let (rows, remarks) = arguments.data.evaluation(&options)?;
    remarks.iter().for_each(note);
    let rows = report::sampled(&rows, arguments.samples, arguments.sample_seed);
    let states = |subject: &mut Subject| -> Outcome<Vec<Vec<Rows>>> {
        // Both read the same part of a text.
        subject.set_truncation(Truncation::Head);
        subject.prepare(resolved.place, resolved.compute)?;
        let texts = rows.examples.iter().map(|row| Ok(subject.read_at_most(&row.text, max_length)?));
        let texts = texts.collect::<Outcome<Vec<Text>>>()?;
        watched("texts", |watch| subject.pooled_states(&texts, &POOLINGS, watch))
    };
    let (of_first, of_second) = (states(&mut first)?, states(&mut second)?);
    // Of models of different depth, the layers that both have.
    let alike: Vec<Vec<Option<f64>>> = of_first
        .iter()
        .zip(&of_second)
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| linear_cka(a, b)).collect())
        .collect::<vitrine_explain::Result<_>>()?;
    if arguments.json {
        let depths: Vec<Value> = alike.iter().map(|row| json!({ "cls": row[0], "mean": row[1] })).collect();
        return output::json(
            &json!({ "drift": moved, "texts": rows.len(), "cka": depths, "resolved": resolved }),
        );
    }
    print(arguments, &moved, rows.len(), &alike)
}

fn print(arguments: &args::Drift, moved: &Drift, texts: usize, alike: &[Vec<Option<f64>>]) -> Outcome {
    let relative =
        |relative: Option<f64>| relative.map_or("-".to_owned(), |relative| format!("{relative:.5}"));
    line(format!(
        "{} has moved from {} by {} of the weights' norm, in {} parameters that both have",
        arguments.model,
        arguments.from,
        relative(moved.relative),
        moved.parameters.len()
    ))?;
    for (model, keys) in [(&arguments.from, &moved.only_first), (&arguments.model, &moved.only_second)] {
        if !keys.is_empty() {
            line(format!("only {model} has {}", printable(&keys.join(", "))))?;
        }
    }
    if !moved.other_shapes.is_empty() {
        line(format!("of other shapes: {}", printable(&moved.other_shapes.join(", "))))?;
    }
    let mut ranked: Vec<_> = moved.parameters.iter().collect();
    ranked.sort_by(|a, b| b.relative.unwrap_or(-1.0).total_cmp(&a.relative.unwrap_or(-1.0)));
    let rows: Vec<Vec<String>> = ranked
        .iter()
        .take(arguments.top)
        .map(|moved| {
            vec![
                printable(&moved.key),
                format!("{:.4}", moved.norm),
                format!("{:.4}", moved.distance),
                relative(moved.relative),
            ]
        })
        .collect();
    let columns = [
        ("parameter", Align::Left),
        ("norm", Align::Right),
        ("distance", Align::Right),
        ("relative", Align::Right),
    ];
    line(table(&columns, &rows))?;
    if rows.len() < ranked.len() {
        line(format!(
            "({} of {} parameters, those that moved most; --json has all)",
            rows.len(),
            ranked.len()
        ))?;
    }
    line(format!(
        "\nlinear CKA of the states of both for {} texts: 1 is the same but for rotation and scale",
        thousands(texts)
    ))?;
    let cell = |value: &Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let rows: Vec<Vec<String>> = depths(alike.len())
        .into_iter()
        .zip(alike)
        .map(|(depth, row)| [depth].into_iter().chain(row.iter().map(cell)).collect())
        .collect();
    let columns = [("states", Align::Left), ("first token", Align::Right), ("mean of tokens", Align::Right)];
    line(table(&columns, &rows))
}
