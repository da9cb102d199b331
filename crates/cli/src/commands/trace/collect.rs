//! What a tape knows of each operation, as rows for a table, a page or JSON.

use super::model::{Input, Subject, Target};
use crate::output::Outcome;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use vitrine_autograd::{Gradients, Node, Op, Profile, Tape};
use vitrine_nn::ParameterStore;
use vitrine_tensor::{DType, Device, Summary, Tensor};

/// Rows and columns of a tensor that are shown.
const SHOWN: (usize, usize) = (4, 6);

/// Statistics of a tensor. Of what is not finite only the number counts.
#[derive(Clone, Debug, Serialize)]
pub struct Numbers {
    pub count: usize,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub mean: Option<f64>,
    pub norm: f64,
    pub zeros: usize,
    pub non_finite: usize,
    /// The first numbers of the first rows; in JSON null where not finite.
    pub first: Vec<Vec<f64>>,
}

impl Numbers {
    fn of(tensor: &Tensor) -> vitrine_tensor::Result<Self> {
        let Summary { count, min, max, mean, norm, zeros, non_finite } = Summary::of(tensor)?;
        let rows = if tensor.rank() < 2 { 1 } else { tensor.dims()[..tensor.rank() - 1].iter().product() };
        let width = tensor.dims().last().copied().unwrap_or(1);
        let host = tensor.contiguous()?.to_device(Device::Cpu)?;
        let first = host.reshape(&[rows, width])?.narrow(0, 0, rows.min(SHOWN.0))?;
        let first = first.narrow(1, 0, width.min(SHOWN.1))?.contiguous()?.to_dtype(DType::F64)?;
        let first = first.to_vec::<f64>()?.chunks(width.clamp(1, SHOWN.1)).map(<[f64]>::to_vec).collect();
        Ok(Numbers { count, min, max, mean, norm, zeros, non_finite, first })
    }
}

/// What an operation reads.
#[derive(Clone, Debug, Serialize)]
pub struct InputRow {
    /// The path of the operation that made it, the key of a parameter, or `constant`.
    pub name: String,
    pub shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Numbers>,
}

/// One operation.
#[derive(Clone, Debug, Serialize)]
pub struct OpRow {
    /// Its name among all: the scope, the operation, and a number from the second of the same name on.
    pub path: String,
    pub scope: String,
    pub op: String,
    pub formula: &'static str,
    pub gradient_formula: &'static str,
    pub file: &'static str,
    pub line: u32,
    /// The shapes of what it reads.
    pub inputs: Vec<Vec<usize>>,
    pub reads: Vec<InputRow>,
    pub output: Vec<usize>,
    pub dtype: String,
    pub output_bytes: usize,
    /// What a training step keeps for backward.
    pub saved_bytes: usize,
    pub flops: u64,
    /// Seconds from the beginning of the pass.
    pub started: f64,
    pub seconds: f64,
    /// In backward, from the beginning of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backward_started: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backward_seconds: Option<f64>,
    /// The norm of the loss's gradient by its result; null in JSON where that is not finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient: Option<Numbers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Numbers>,
}

/// The gradient of one parameter under its key.
#[derive(Clone, Debug, Serialize)]
pub struct ParameterRow {
    pub key: String,
    pub shape: Vec<usize>,
    /// Null in JSON where it is not finite.
    pub gradient_norm: f64,
    /// Relative to the norm of the weights.
    pub relative: Option<f64>,
}

/// What one pass shows.
pub struct Passed {
    /// Logits or hidden states.
    pub output: Tensor,
    pub ops: Vec<OpRow>,
    pub seconds: f64,
    pub loss: Option<f64>,
    pub backward_seconds: Option<f64>,
    pub gradients: Option<Gradients>,
}

/// What is wanted of a pass.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Values of every result.
    pub values: bool,
    /// The loss's gradients.
    pub target: Option<&'a Target>,
}

/// The norm of a gradient: NaN where a number of it is not finite.
fn norm_of(summary: &Summary) -> f64 {
    if summary.non_finite > 0 { f64::NAN } else { summary.norm }
}

/// What the hook of a tape saw: by the place of an operation its result's gradient.
type Seen = Arc<Mutex<BTreeMap<usize, vitrine_tensor::Result<(f64, Option<Numbers>)>>>>;

/// Runs forward, and backward if there is a target.
pub fn pass(subject: &Subject, input: &Input, wanted: Wanted) -> Outcome<Passed> {
    let mut tape = Tape::recording().profiled();
    if wanted.values {
        tape = tape.keeping_values();
    }
    let seen: Seen = Arc::default();
    if wanted.target.is_some() {
        let (seen, values) = (Arc::clone(&seen), wanted.values);
        tape = tape.on_gradient(move |id, node, gradient| {
            if node.inputs.is_empty() {
                return;
            }
            let found = Summary::of(gradient).and_then(|summary| {
                let numbers = if values { Some(Numbers::of(gradient)?) } else { None };
                Ok((norm_of(&summary), numbers))
            });
            // A poisoned lock means that a hook panicked, which ends the pass anyway.
            if let Ok(mut seen) = seen.lock() {
                seen.insert(id.index(), found);
            }
        });
    }
    let started = Instant::now();
    let output = subject.forward(&tape, input)?;
    let seconds = started.elapsed().as_secs_f64();
    let loss = wanted.target.map(|target| Subject::loss(&output, target)).transpose()?;
    let loss = match loss {
        Some(loss) => Some((loss.id(), loss.value().to_device(Device::Cpu)?.item()?)),
        None => None,
    };
    let output = output.into_value();
    let (mut ops, places) = rows(&tape, subject.parameters(), started)?;
    let (mut gradients, mut backward_seconds) = (None, None);
    if let Some((id, _)) = loss {
        let started = Instant::now();
        let (found, profile) = tape.backward_profiled(id, &[])?;
        backward_seconds = Some(started.elapsed().as_secs_f64());
        gradients = Some(found);
        add_backward(&mut ops, &places, started, &profile);
        let mut seen = seen
            .lock()
            .map_err(|_| crate::output::Failure::Run("internal: a gradient's hook broke".into()))?;
        for (row, place) in ops.iter_mut().zip(&places) {
            if let Some(found) = seen.remove(place) {
                let (norm, numbers) = found?;
                (row.gradient_norm, row.gradient) = (Some(norm), numbers);
            }
        }
    }
    let loss = loss.map(|(_, value)| value);
    Ok(Passed { output, ops, seconds, loss, backward_seconds, gradients })
}

/// A row for each operation, and its place on the tape.
fn rows(tape: &Tape, parameters: &ParameterStore, started: Instant) -> Outcome<(Vec<OpRow>, Vec<usize>)> {
    let profile = tape.profile();
    let began: BTreeMap<usize, f64> = profile
        .operations()
        .iter()
        .filter_map(|timed| Some((timed.node?, timed.started.duration_since(started).as_secs_f64())))
        .collect();
    let nodes = tape.nodes();
    let paths = paths(&nodes);
    let (mut rows, mut places) = (Vec::new(), Vec::new());
    for (place, node) in nodes.iter().enumerate().filter(|(_, node)| !node.inputs.is_empty()) {
        let values = |node: &Node| node.value().map(Numbers::of).transpose();
        let mut reads = Vec::with_capacity(node.inputs.len());
        for id in &node.inputs {
            let input = &nodes[id.index()];
            let name = match &input.op {
                Op::Parameter(id) => parameters.get(*id).name(),
                Op::Constant | Op::Leaf => input.op.name().to_owned(),
                _ => paths[id.index()].clone(),
            };
            reads.push(InputRow { name, shape: input.shape.to_vec(), values: values(input)? });
        }
        let source = node.op.source();
        rows.push(OpRow {
            path: paths[place].clone(),
            scope: node.scope.to_string(),
            op: node.op.name().to_owned(),
            formula: source.map_or("", |source| source.formula),
            gradient_formula: source.map_or("", |source| source.gradient),
            file: source.map_or("", |source| source.file),
            line: source.map_or(0, |source| source.line),
            inputs: reads.iter().map(|read| read.shape.clone()).collect(),
            reads,
            output: node.shape.to_vec(),
            dtype: node.dtype.to_string(),
            output_bytes: node.shape.numel() * node.dtype.size(),
            saved_bytes: node.saved_bytes(),
            flops: node.flops(),
            started: began.get(&place).copied().unwrap_or(0.0),
            seconds: node.seconds,
            backward_started: None,
            backward_seconds: None,
            gradient_norm: None,
            gradient: None,
            values: values(node)?,
        });
        places.push(place);
    }
    Ok((rows, places))
}

/// The name of each operation on a tape: scope, name, and a number where the scope has several of that name.
fn paths(nodes: &[Node]) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let path = |node: &Node| {
        let scope = if node.scope.is_empty() { String::new() } else { format!("{}.", node.scope) };
        let name = format!("{scope}{}", node.op.variant().1);
        let count = counts.entry(name.clone()).or_default();
        *count += 1;
        if *count == 1 { name } else { format!("{name}.{count}") }
    };
    nodes.iter().map(path).collect()
}

fn add_backward(ops: &mut [OpRow], places: &[usize], started: Instant, profile: &Profile) {
    for timed in profile.operations() {
        let Some(row) = timed.node.and_then(|node| places.binary_search(&node).ok()) else { continue };
        ops[row].backward_started = Some(timed.started.duration_since(started).as_secs_f64());
        ops[row].backward_seconds = Some(timed.seconds);
    }
}

/// The gradient norm of every parameter that has one, by key.
pub fn parameters(store: &ParameterStore, gradients: &Gradients) -> Outcome<Vec<ParameterRow>> {
    let mut rows = Vec::new();
    for (id, parameter) in store.iter() {
        let Some(gradient) = gradients.parameter(id) else { continue };
        let values = parameter.split(&parameter.value)?;
        for ((key, gradient), (_, value)) in parameter.split(gradient)?.into_iter().zip(values) {
            let gradient_norm = norm_of(&Summary::of(&gradient)?);
            let norm = Summary::of(&value)?.norm;
            let relative = (norm > 0.0 && gradient_norm.is_finite()).then(|| gradient_norm / norm);
            rows.push(ParameterRow {
                key: key.to_owned(),
                shape: gradient.dims().to_vec(),
                gradient_norm,
                relative,
            });
        }
    }
    Ok(rows)
}
