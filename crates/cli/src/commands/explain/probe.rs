//! `vitrine explain probe`: linear classifiers on the states of each layer.

use super::lens::depths;
use super::watched;
use crate::args;
use crate::output::{self, Align, Failure, Outcome, line, note, table, thousands, warn};
use crate::report;
use serde::Serialize;
use serde_json::json;
use vitrine_explain::{Pooling, Probe, Rows, Subject, Text};
use vitrine_tensor::cpu::parallel;
use vitrine_train::data::sampling::hold_back;
use vitrine_train::data::{Dataset, Splits};
use vitrine_train::metrics::wilson_interval;

/// The share of rows that is held back where there is no test split.
const HELD_BACK: f64 = 0.25;

/// A probe, measured.
#[derive(Serialize)]
struct Measured {
    /// 0 is the embeddings, 1 the first layer.
    depth: usize,
    pooling: Pooling,
    train_accuracy: f64,
    accuracy: f64,
    /// 95 % Wilson interval of the accuracy.
    interval: (f64, f64),
    steps: usize,
    converged: bool,
}

/// Runs the command.
pub fn run(arguments: &args::Probe) -> Outcome {
    let resolved = super::super::resolve(&arguments.compute)?;
    let mut subject = Subject::load(&arguments.model.trained()?)?;
    subject.notes().iter().for_each(warn);
    let max_length = report::max_length(arguments.max_length, subject.config())?;
    if let Some(truncation) = arguments.truncate {
        subject.set_truncation(truncation);
    }
    let (train, test) = rows(arguments, &subject)?;
    subject.prepare(resolved.place, resolved.compute)?;
    let read = |rows: &Dataset| -> Outcome<Vec<Text>> {
        rows.examples.iter().map(|row| Ok(subject.read_at_most(&row.text, max_length)?)).collect()
    };
    let states = |rows: &Dataset| -> Outcome<Vec<Vec<Rows>>> {
        let texts = read(rows)?;
        watched("texts", |watch| subject.pooled_states(&texts, &Pooling::ALL, watch))
    };
    let (fitted, held) = (states(&train)?, states(&test)?);
    let labels = |rows: &Dataset| rows.examples.iter().map(|row| row.label).collect::<Vec<u32>>();
    let (train_labels, test_labels) = (labels(&train), labels(&test));
    let l2 = arguments.l2.unwrap_or(1.0 / train.len() as f64);
    let classes = train.label_names.len();
    let all =
        (0..fitted.len()).flat_map(|depth| (0..Pooling::ALL.len()).map(move |pooling| (depth, pooling)));
    let all: Vec<(usize, usize)> = all.collect();
    let measured = parallel::map(all, |_, (depth, pooling)| -> vitrine_explain::Result<Measured> {
        let probe = Probe::fit(&fitted[depth][pooling], &train_labels, classes, l2)?;
        let right = |rows: &Rows, labels: &[u32]| {
            let hits = probe.predict(rows).iter().zip(labels).filter(|(guess, label)| guess == label).count();
            hits as f64 / labels.len() as f64
        };
        let accuracy = right(&held[depth][pooling], &test_labels);
        Ok(Measured {
            depth,
            pooling: Pooling::ALL[pooling],
            train_accuracy: right(&fitted[depth][pooling], &train_labels),
            accuracy,
            interval: wilson_interval(accuracy, test_labels.len() as u64),
            steps: probe.steps,
            converged: probe.converged,
        })
    });
    let measured: Vec<Measured> = measured.into_iter().collect::<vitrine_explain::Result<_>>()?;
    let most = test.class_counts().into_iter().max().unwrap_or(0) as f64 / test.len() as f64;
    if arguments.json {
        return output::json(&json!({
            "rows": train.len(),
            "test_rows": test.len(),
            "classes": train.label_names,
            "l2": l2,
            "largest_class": most,
            "probes": measured,
            "resolved": resolved,
        }));
    }
    print(&measured, &train, &test, most)
}

/// Rows to fit to and rows to measure on.
fn rows(arguments: &args::Probe, subject: &Subject) -> Outcome<(Dataset, Dataset)> {
    let options = arguments.columns.options(Some(&subject.config().data_columns()));
    let Splits { train, test, notes } = arguments.data.splits(&options)?;
    notes.iter().for_each(note);
    let (train, test) = match test {
        Some(test) => (train, test),
        None => {
            let (kept, held) = hold_back(&train, HELD_BACK, arguments.sample_seed);
            note(format!("no test split: {} rows are held back", thousands(held.len())));
            (train.subset(&kept), train.subset(&held))
        }
    };
    let draw = |rows: &Dataset, samples| report::sampled(rows, samples, arguments.sample_seed);
    let (train, test) = (draw(&train, arguments.samples), draw(&test, arguments.test_samples));
    if train.is_empty()
        || test.is_empty()
        || train.class_counts().iter().filter(|&&rows| rows > 0).count() < 2
    {
        return Err(Failure::Usage(format!(
            "{} rows to fit to and {} to measure on: a probe needs rows of two classes; give more --samples",
            train.len(),
            test.len()
        )));
    }
    Ok((train, test))
}

fn print(measured: &[Measured], train: &Dataset, test: &Dataset, most: f64) -> Outcome {
    line(format!(
        "accuracy of a linear classifier on the states of each depth, fitted to {} rows, measured on {} others (95 % interval); the largest class has {most:.3} of them",
        thousands(train.len()),
        thousands(test.len())
    ))?;
    let depths = depths(measured.len() / Pooling::ALL.len());
    let cell = |probe: &Measured| {
        let (low, high) = probe.interval;
        let unfinished = if probe.converged { "" } else { " (unfinished)" };
        format!("{:.3} ({low:.3} to {high:.3}){unfinished}", probe.accuracy)
    };
    let rows: Vec<Vec<String>> = measured
        .chunks(Pooling::ALL.len())
        .zip(&depths)
        .map(|(probes, depth)| [depth.clone()].into_iter().chain(probes.iter().map(cell)).collect())
        .collect();
    let columns = [
        ("states", Align::Left),
        ("first token", Align::Left),
        ("mean of tokens", Align::Left),
        ("max of tokens", Align::Left),
    ];
    line(table(&columns, &rows))
}
