//! The trace as tables.

use super::Report;
use super::collect::{Numbers, OpRow};
use crate::output::{Align, Outcome, bytes, line, printable, si, table};

/// A number of a tensor, in four digits.
pub fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    match value.abs() {
        size if !size.is_finite() => value.to_string(),
        size if (1e-3..1e5).contains(&size) => format!("{value:.4}"),
        _ => format!("{value:.3e}"),
    }
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), number)
}

fn milliseconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".into(), |seconds| format!("{:.3}", seconds * 1e3))
}

/// A share as a percentage; a few of many are not 0.
fn share(part: usize, of: usize) -> String {
    match part {
        0 => "0".into(),
        part if part * 1000 < of => "<0.1 %".into(),
        part => format!("{:.1} %", 100.0 * part as f64 / of as f64),
    }
}

/// Every operation in a line.
pub fn operations(report: &Report, backward: bool, values: bool) -> Outcome {
    type Cell = fn(&OpRow) -> String;
    type Column = ((&'static str, Align), Cell);
    const RIGHT: Align = Align::Right;
    const NONE: &Numbers = &Numbers {
        count: 0,
        min: None,
        max: None,
        mean: None,
        norm: 0.0,
        zeros: 0,
        non_finite: 0,
        first: Vec::new(),
    };
    fn of(op: &OpRow) -> &Numbers {
        op.values.as_ref().unwrap_or(NONE)
    }
    let mut columns: Vec<Column> = vec![
        (("scope", Align::Left), |op| op.scope.clone()),
        (("op", Align::Left), |op| op.op.clone()),
        (("output", Align::Left), |op| format!("{:?}", op.output)),
    ];
    if !values {
        columns.extend::<[Column; 4]>([
            (("dtype", Align::Left), |op| op.dtype.clone()),
            (("saved", RIGHT), |op| bytes(op.saved_bytes)),
            (("FLOP", RIGHT), |op| si(op.flops as f64)),
            (("ms", RIGHT), |op| milliseconds(Some(op.seconds))),
        ]);
    }
    if backward {
        columns.extend::<[Column; 2]>([
            (("ms back", RIGHT), |op| milliseconds(op.backward_seconds)),
            (("gradient norm", RIGHT), |op| optional(op.gradient_norm)),
        ]);
    }
    if values {
        columns.extend::<[Column; 7]>([
            (("min", RIGHT), |op| optional(of(op).min)),
            (("max", RIGHT), |op| optional(of(op).max)),
            (("mean", RIGHT), |op| optional(of(op).mean)),
            (("norm", RIGHT), |op| number(of(op).norm)),
            (("zeros", RIGHT), |op| share(of(op).zeros, of(op).count)),
            (("not finite", RIGHT), |op| of(op).non_finite.to_string()),
            (("first", Align::Left), |op| {
                let first = of(op).first.first().map_or(&[][..], Vec::as_slice);
                first.iter().take(3).map(|&value| number(value)).collect::<Vec<_>>().join(" ")
            }),
        ]);
    }
    let heads: Vec<(&str, Align)> = columns.iter().map(|column| column.0).collect();
    let rows: Vec<Vec<String>> =
        report.ops.iter().map(|op| columns.iter().map(|column| column.1(op)).collect()).collect();
    line(table(&heads, &rows))
}

/// The gradient norm of every parameter.
pub fn parameters(report: &Report) -> Outcome {
    let heads = [
        ("parameter", Align::Left),
        ("shape", Align::Left),
        ("gradient norm", Align::Right),
        ("/ norm of weights", Align::Right),
    ];
    let row = |row: &super::ParameterRow| {
        let norms = [number(row.gradient_norm), optional(row.relative)];
        [vec![printable(&row.key), format!("{:?}", row.shape)], norms.to_vec()].concat()
    };
    line(table(&heads, &report.parameters.iter().map(row).collect::<Vec<_>>()))
}

/// The parameters that a step would not change, or not in every row.
pub fn audit(report: &Report) -> Outcome {
    let audit = report.audit.as_deref().unwrap_or_default();
    let shown: Vec<&super::AuditRow> = audit.iter().filter(|row| row.finding != "gradient").collect();
    if !shown.is_empty() {
        let heads = [
            ("parameter", Align::Left),
            ("shape", Align::Left),
            ("finding", Align::Left),
            ("rows without", Align::Right),
            ("gradient norm", Align::Right),
            ("why", Align::Left),
        ];
        let row = |row: &&super::AuditRow| {
            vec![
                printable(&row.key),
                format!("{:?}", row.shape),
                row.finding.to_owned(),
                row.idle_rows.to_string(),
                optional(row.gradient_norm),
                row.reason.clone().unwrap_or_else(|| "unknown".into()),
            ]
        };
        line(table(&heads, &shown.iter().map(row).collect::<Vec<_>>()))?;
        line("")?;
    }
    line(format!(
        "{} of {} parameters get a gradient in every row; weight decay is not counted",
        audit.len() - shown.len(),
        audit.len()
    ))
}

/// What the whole pass took, and what the model answered.
pub fn summary(report: &Report) -> Outcome {
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
    if let (Some(loss), Some(target), Some(seconds)) = (report.loss, &report.target, report.backward_seconds)
    {
        line(format!("loss {} for {}, backward {:.1} ms", number(loss), printable(target), seconds * 1e3))?;
    }
    for guess in &report.guesses {
        line(format!("row {}: {} {:.4}", guess.row, printable(&guess.token), guess.score))?;
    }
    match (&report.label, report.score) {
        (Some(label), Some(score)) => line(format!("{} {score:.4}", printable(label))),
        _ => Ok(()),
    }
}
