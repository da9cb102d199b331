//! `vitrine replay`: computes the step again at which a run ended, and says what broke.

use super::{Resolved, resolve};
use crate::args::{Compute, DTypeChoice, Replay};
use crate::output::{Outcome, json, line, note};
use serde::Serialize;
use vitrine_tensor::DType;
use vitrine_train::techniques::ReplayedStep;

/// What `--json` prints.
#[derive(Serialize)]
struct ReplayReport {
    step: usize,
    rows: usize,
    finding: String,
    finding_then: String,
    same: bool,
    resolved: Resolved,
}

/// Runs the command. Without options it computes in the run's precision.
pub fn run(arguments: &Replay) -> Outcome {
    let mut replayed = ReplayedStep::read(&arguments.step)?;
    let dtype = match (arguments.compute.dtype, replayed.dtype) {
        (DTypeChoice::Auto, DType::BF16) => DTypeChoice::Bf16,
        (DTypeChoice::Auto, _) => DTypeChoice::F32,
        (asked, _) => asked,
    };
    let resolved = resolve(&Compute { dtype, ..arguments.compute.clone() })?;
    note(resolved.line());
    let (step, rows) = (replayed.settings.step + 1, replayed.rows());
    let finding = replayed.run(resolved.compute, resolved.place)?.to_string();
    let finding_then = replayed.finding.clone();
    let same = finding == finding_then;
    if arguments.json {
        return json(&ReplayReport { step, rows, finding, finding_then, same, resolved });
    }
    line(format!("step {step}, {rows} rows: {finding}"))?;
    if same { line("the run found the same") } else { line(format!("the run found: {finding_then}")) }
}
