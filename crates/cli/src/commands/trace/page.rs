//! `--html`: the trace as a page.

use super::collect::{Numbers, OpRow};
use super::{Report, Subject};
use crate::args::Trace;
use crate::output::Outcome;
use std::path::Path;
use vitrine_bert::write_atomically;
use vitrine_report::timeline::{Idle, Numbers as Shown, Operation, Span, Timeline, Weight};

/// Writes the page.
pub fn write(path: &Path, arguments: &Trace, subject: &Subject, report: &Report) -> Outcome {
    let config = subject.config();
    let mut facts = vec![
        ("model".to_owned(), arguments.model.to_string()),
        (
            "sizes".to_owned(),
            format!(
                "{} layers of width {}, {} heads",
                config.num_hidden_layers, config.hidden_size, config.num_attention_heads
            ),
        ),
    ];
    if let (Some(label), Some(score)) = (&report.label, report.score) {
        facts.push(("answer".into(), format!("{label} {score:.4}")));
    }
    for guess in &report.guesses {
        facts.push((format!("row {}", guess.row), format!("{} {:.4}", guess.token, guess.score)));
    }
    if let (Some(loss), Some(target)) = (report.loss, &report.target) {
        facts.push(("loss".into(), format!("{} for {target}", super::print::number(loss))));
    }
    let weight = |row: &super::ParameterRow| Weight {
        key: row.key.clone(),
        shape: row.shape.clone(),
        gradient_norm: row.gradient_norm,
        relative: row.relative,
    };
    let idle = |row: &super::AuditRow| Idle {
        key: row.key.clone(),
        finding: row.finding.to_owned(),
        rows: row.idle_rows,
        of: row.shape.first().copied().unwrap_or(1),
        reason: row.reason.clone(),
    };
    let idle = report.audit.iter().flatten().filter(|row| row.finding != "gradient").map(idle).collect();
    let timeline = Timeline {
        text: arguments.text.clone(),
        tokens: report.words.clone(),
        facts,
        seconds: report.seconds,
        backward_seconds: report.backward_seconds,
        operations: report.ops.iter().map(operation).collect(),
        weights: report.parameters.iter().map(weight).collect(),
        idle,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Ok(write_atomically(path, timeline.page().as_bytes())?)
}

fn operation(op: &OpRow) -> Operation {
    Operation {
        path: op.path.clone(),
        scope: op.scope.clone(),
        name: op.op.clone(),
        formula: op.formula.to_owned(),
        gradient_formula: op.gradient_formula.to_owned(),
        place: format!("{}:{}", op.file, op.line),
        reads: op.reads.iter().map(|read| (read.name.clone(), read.shape.clone())).collect(),
        shape: op.output.clone(),
        dtype: op.dtype.clone(),
        bytes: op.output_bytes,
        saved_bytes: op.saved_bytes,
        flops: op.flops,
        forward: Span { started: op.started, seconds: op.seconds },
        backward: op
            .backward_started
            .zip(op.backward_seconds)
            .map(|(started, seconds)| Span { started, seconds }),
        gradient_norm: op.gradient_norm,
        values: op.values.as_ref().map(shown),
    }
}

fn shown(numbers: &Numbers) -> Shown {
    Shown {
        count: numbers.count,
        min: numbers.min,
        max: numbers.max,
        mean: numbers.mean,
        norm: numbers.norm,
        zeros: numbers.zeros,
        non_finite: numbers.non_finite,
        first: numbers.first.first().cloned().unwrap_or_default(),
    }
}
