//! `vitrine trace`: every operation of one pass, in order, forward and on demand back.

mod collect;
mod model;
mod page;
mod print;
mod scopes;

use crate::args::Trace;
use crate::output::{self, Outcome, line, warn};
use crate::report::read_tokens;
use collect::{OpRow, ParameterRow, Passed, Wanted};
use model::{Input, Subject};
use serde::Serialize;
use vitrine_bert::{Audited, audit};
use vitrine_tensor::{DType, Device, Tensor};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    tokens: usize,
    truncated: bool,
    /// Which tokens were read, for people.
    #[serde(skip)]
    read: String,
    #[serde(skip)]
    words: Vec<String>,
    /// Of a trained classifier whose logits are numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    /// Of a masked language model: the likeliest token at each row that it guesses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    guesses: Vec<Guess>,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    backward_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss: Option<f64>,
    /// What the loss takes for true.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    ops: Vec<OpRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parameters: Vec<ParameterRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<Vec<AuditRow>>,
}

#[derive(Serialize)]
struct Guess {
    row: u32,
    token: String,
    score: f64,
}

/// One parameter and what a step would do to it.
#[derive(Serialize)]
struct AuditRow {
    key: String,
    shape: Vec<usize>,
    finding: &'static str,
    idle: bool,
    gradient_norm: Option<f64>,
    idle_rows: usize,
    reason: Option<String>,
}

impl From<Audited> for AuditRow {
    fn from(audited: Audited) -> Self {
        let Audited { key, dims, finding, norm, idle_rows, reason } = audited;
        let (finding, idle) = (finding.name(), finding.is_idle());
        AuditRow { key, shape: dims, finding, idle, gradient_norm: norm, idle_rows, reason }
    }
}

/// Runs the command. Tapes record as in training, but for dropout.
pub fn run(arguments: &Trace) -> Outcome {
    if let Some(path) = &arguments.html {
        super::report::check_page("--html", path)?;
    }
    let wants_page = arguments.html.is_some();
    let wants_loss = arguments.backward || arguments.audit || arguments.label.is_some() || wants_page;
    let mut subject = Subject::load(&arguments.model.trained()?, wants_loss)?;
    subject.notes.iter().for_each(warn);
    if let Some(freeze) = &arguments.freeze {
        let config = subject.config().clone();
        freeze
            .apply(subject.parameters_mut(), &config)
            .map_err(|error| output::Failure::Usage(error.to_string()))?;
    }
    let input = subject.read(&arguments.text)?;
    // Once unmeasured: the first pass fills memory pools and reads the weights from the file.
    let values = arguments.values || arguments.at.is_some() || wants_page;
    let first = collect::pass(&subject, &input, Wanted { values, target: None })?;
    let target = match wants_loss {
        true => Some(subject.target(arguments, &input, &numbers(&first.output)?)?),
        false => None,
    };
    let wanted = Wanted { values, target: target.as_ref() };
    if target.is_some() {
        collect::pass(&subject, &input, wanted)?;
    }
    let passed = collect::pass(&subject, &input, wanted)?;
    let mut report = report(arguments, &subject, &input, passed)?;
    report.target = target.map(|target| target.what);
    if let Some(path) = &arguments.html {
        page::write(path, arguments, &subject, &report)?;
    }
    if let Some(scope) = &arguments.at {
        report.ops = scopes::chosen(report.ops, scope)?;
        report.parameters.clear();
    }
    if arguments.json { output::json(&report) } else { show(arguments, &report) }
}

fn numbers(logits: &Tensor) -> Outcome<Vec<f32>> {
    Ok(logits.to_device(Device::Cpu)?.to_dtype(DType::F32)?.to_vec::<f32>()?)
}

fn report(arguments: &Trace, subject: &Subject, input: &Input, passed: Passed) -> Outcome<Report> {
    let logits = numbers(&passed.output)?;
    let (mut label, mut score) = (None, None);
    if let Some(classes) = subject.classes() {
        match vitrine_train::Prediction::new(logits.clone(), input.tokens.len(), input.truncated) {
            Ok(prediction) => {
                let best = prediction.ranked()[0];
                (label, score) = (classes.get(best).cloned(), Some(prediction.probabilities[best]));
            }
            Err(error) => warn(error),
        }
    }
    let guesses = subject.guesses(input, &logits).into_iter();
    let mut parameters = Vec::new();
    let mut audited = None;
    if let Some(gradients) = &passed.gradients {
        parameters = collect::parameters(subject.parameters(), gradients)?;
        let rows = audit(subject.config(), subject.parameters(), gradients, &input.batch)?;
        audited = Some(rows.into_iter().map(AuditRow::from).collect());
    }
    let wants_audit = arguments.audit || arguments.html.is_some();
    Ok(Report {
        tokens: input.tokens.len(),
        truncated: input.truncated,
        read: read_tokens(&subject.tokenizer, input.tokens.len()),
        words: input.tokens.clone(),
        label,
        score,
        guesses: guesses.map(|(row, token, score)| Guess { row, token, score }).collect(),
        seconds: passed.seconds,
        backward_seconds: passed.backward_seconds,
        loss: passed.loss,
        target: None,
        ops: passed.ops,
        parameters,
        audit: audited.filter(|_| wants_audit),
    })
}

/// For people: what was asked for, and a summary.
fn show(arguments: &Trace, report: &Report) -> Outcome {
    if let Some(path) = &arguments.html {
        line(path.display())?;
    }
    if arguments.at.is_some() {
        scopes::show(report)?;
    } else {
        // A page or an audit that was asked for alone is all that is shown.
        let is_table = arguments.html.is_none() && !arguments.audit || arguments.backward || arguments.values;
        if is_table {
            print::operations(report, arguments.backward || arguments.label.is_some(), arguments.values)?;
        }
        if arguments.backward {
            line("")?;
            print::parameters(report)?;
        }
        if arguments.audit {
            if is_table {
                line("")?;
            }
            print::audit(report)?;
        }
    }
    print::summary(report)?;
    if report.truncated {
        warn(format!("only {} of this text were read", report.read));
    }
    Ok(())
}
