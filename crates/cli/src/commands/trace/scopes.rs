//! `--break`: the operations of one part of the model, each with what it reads and makes.

use super::Report;
use super::collect::{Numbers, OpRow};
use super::print::number;
use crate::config::distance;
use crate::output::{Failure, Outcome, line, printable};
use std::collections::BTreeSet;

/// What scopes of layers begin with; it may be left out, as in the names of taps.
const STACK: &str = "encoder.";
/// Names that an error proposes.
const PROPOSED: usize = 3;

/// A name without what may be left out.
fn short(name: &str) -> &str {
    name.strip_prefix(STACK).unwrap_or(name)
}

/// The operations in this scope, or the one of this path.
pub fn chosen(ops: Vec<OpRow>, scope: &str) -> Outcome<Vec<OpRow>> {
    let wanted = short(scope.trim_end_matches('.'));
    let is_in = |op: &OpRow| {
        let rest = short(&op.path).strip_prefix(wanted);
        !wanted.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if ops.iter().any(is_in) {
        return Ok(ops.into_iter().filter(is_in).collect());
    }
    let names = names(&ops);
    let mut near: Vec<(usize, &str)> =
        names.iter().map(|name| (distance(name, wanted), name.as_str())).collect();
    near.sort_unstable();
    let near: Vec<&str> = near.into_iter().take(PROPOSED).map(|(_, name)| name).collect();
    Err(Failure::Usage(format!("--break {scope}: no such part of this model; near are {}", near.join(", "))))
}

/// Everything that can be named: paths, and what they begin with.
fn names(ops: &[OpRow]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for op in ops {
        let path = short(&op.path);
        names.extend(path.match_indices('.').map(|(at, _)| path[..at].to_owned()));
        names.insert(path.to_owned());
    }
    // `layer` is no part of a model, but all of them.
    names.remove("layer");
    names
}

/// Each operation with its formula, inputs, result, and gradient if there is one.
pub fn show(report: &Report) -> Outcome {
    for (index, op) in report.ops.iter().enumerate() {
        if index > 0 {
            line("")?;
        }
        let is_named = op.path.split('.').any(|part| part == op.op);
        line(if is_named { op.path.clone() } else { format!("{}  {}", op.path, op.op) })?;
        line(format!("  {}", op.formula))?;
        line(format!("  {}:{}", op.file, op.line))?;
        for read in &op.reads {
            let name = format!("reads {} {:?}", printable(&read.name), read.shape);
            tensor(report, &name, &read.shape, read.values.as_ref())?;
        }
        tensor(report, &format!("makes {:?} {}", op.output, op.dtype), &op.output, op.values.as_ref())?;
        if let Some(gradient) = &op.gradient {
            line(format!("  backward: {}", op.gradient_formula))?;
            tensor(report, "gradient of the result", &op.output, Some(gradient))?;
        }
    }
    Ok(())
}

/// A tensor's statistics and first numbers; rows of tokens have the token in front.
fn tensor(report: &Report, name: &str, shape: &[usize], numbers: Option<&Numbers>) -> Outcome {
    let Some(numbers) = numbers else { return line(format!("  {name}")) };
    line(format!("  {name}: {}", described(numbers)))?;
    let is_of_tokens = shape.len() == 2 && shape[0] == report.words.len();
    let width = numbers.first.iter().flatten().map(|&value| number(value).len()).max().unwrap_or(0);
    let words: Vec<String> = report.words.iter().map(|word| printable(word)).collect();
    let longest = words.iter().take(numbers.first.len()).map(|word| word.chars().count()).max().unwrap_or(0);
    for (row, values) in numbers.first.iter().enumerate() {
        let head = match is_of_tokens {
            true => format!("{:<longest$}  ", words[row]),
            false => String::new(),
        };
        let values: Vec<String> = values.iter().map(|&value| format!("{:>width$}", number(value))).collect();
        let more = if shape.last().is_some_and(|&len| len > values.len()) { "  .." } else { "" };
        line(format!("    {head}{}{more}", values.join("  ")))?;
    }
    let rows = if shape.len() < 2 { 1 } else { shape[..shape.len() - 1].iter().product() };
    if rows > numbers.first.len() { line("    ..") } else { Ok(()) }
}

/// Statistics in a line.
fn described(numbers: &Numbers) -> String {
    let Numbers { min: Some(min), max: Some(max), mean: Some(mean), .. } = numbers else {
        return format!("{} numbers, none of them finite", numbers.count);
    };
    let mut text = format!(
        "min {}, max {}, mean {}, norm {}",
        number(*min),
        number(*max),
        number(*mean),
        number(numbers.norm)
    );
    for (count, what) in [(numbers.zeros, "zero"), (numbers.non_finite, "not finite")] {
        if count > 0 {
            text += &format!(", {count} of {} {what}", numbers.count);
        }
    }
    text
}
