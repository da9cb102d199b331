//! `vitrine trace`: every operation of one forward pass, in order.

use crate::args::Trace;
use crate::output::{self, Align, Outcome, bytes, line, printable, si, table, warn};
use crate::report::read_tokens;
use serde::Serialize;
use std::time::Instant;
use vitrine_autograd::Tape;
use vitrine_bert::{Loaded, SequenceClassifier, TokenBatch};

#[derive(Serialize)]
struct Report {
    tokens: usize,
    truncated: bool,
    /// Which tokens were read, for people.
    #[serde(skip)]
    read: String,
    label: String,
    score: f32,
    seconds: f64,
    ops: Vec<OpRow>,
}

#[derive(Serialize)]
struct OpRow {
    scope: String,
    op: String,
    inputs: Vec<Vec<usize>>,
    output: Vec<usize>,
    dtype: String,
    /// What a training step would keep for backward.
    saved_bytes: usize,
    flops: u64,
    seconds: f64,
}

/// Runs the command. The tape records as in training, but for dropout, so that saved bytes can be shown.
pub fn run(arguments: &Trace) -> Outcome {
    let Loaded { model, tokenizer, notes } = SequenceClassifier::load(&arguments.model.trained()?)?;
    notes.iter().for_each(warn);
    let encoding = tokenizer.encode(&arguments.text, model.config().max_length())?;
    let batch = TokenBatch::new([encoding.ids.as_slice()], None, model.config())?;
    // Once unmeasured: the first pass fills memory pools and reads the weights from the file.
    model.logits(&Tape::recording(), &batch)?;
    let tape = Tape::recording().profiled();
    let started = Instant::now();
    let logits = model.logits(&tape, &batch)?.value().to_vec::<f32>()?;
    let seconds = started.elapsed().as_secs_f64();
    let prediction = vitrine_train::Prediction::new(logits, encoding.ids.len(), encoding.truncated)?;
    let best = prediction.ranked()[0];
    let nodes = tape.nodes();
    let ops = nodes
        .iter()
        // Parameters and constants are no operations.
        .filter(|node| !node.inputs.is_empty())
        .map(|node| OpRow {
            scope: node.scope.to_string(),
            op: node.op.name().to_owned(),
            inputs: node.inputs.iter().map(|id| nodes[id.index()].shape.to_vec()).collect(),
            output: node.shape.to_vec(),
            dtype: node.dtype.to_string(),
            saved_bytes: node.saved_bytes(),
            flops: node.flops(),
            seconds: node.seconds,
        })
        .collect();
    let report = Report {
        tokens: encoding.ids.len(),
        truncated: encoding.truncated,
        read: read_tokens(&tokenizer, encoding.ids.len()),
        label: model.config().label_names()[best].clone(),
        score: prediction.probabilities[best],
        seconds,
        ops,
    };
    if arguments.json { output::json(&report) } else { print(&report) }
}

fn print(report: &Report) -> Outcome {
    let columns = [
        ("scope", Align::Left),
        ("op", Align::Left),
        ("output", Align::Left),
        ("dtype", Align::Left),
        ("saved", Align::Right),
        ("FLOP", Align::Right),
        ("ms", Align::Right),
    ];
    let rows: Vec<Vec<String>> = report
        .ops
        .iter()
        .map(|op| {
            vec![
                op.scope.clone(),
                op.op.clone(),
                format!("{:?}", op.output),
                op.dtype.clone(),
                bytes(op.saved_bytes),
                si(op.flops as f64),
                format!("{:.3}", op.seconds * 1e3),
            ]
        })
        .collect();
    line(table(&columns, &rows))?;
    let (flops, saved, inside) = report.ops.iter().fold((0, 0, 0.0), |(flops, saved, seconds), op| {
        (flops + op.flops, saved + op.saved_bytes, seconds + op.seconds)
    });
    line("")?;
    line(format!(
        "{} tokens, {} operations, {}FLOP, {} kept for backward, {:.1} ms ({:.1} ms inside operations)",
        report.tokens,
        report.ops.len(),
        si(flops as f64),
        bytes(saved),
        report.seconds * 1e3,
        inside * 1e3
    ))?;
    line(format!("{} {:.4}", printable(&report.label), report.score))?;
    if report.truncated {
        warn(format!("only {} of this text were read", report.read));
    }
    Ok(())
}
