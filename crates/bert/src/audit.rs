//! [`audit`]: which parameters a step would leave as they are, and why.

use crate::{ModelConfig, Result, TokenBatch};
use std::collections::BTreeSet;
use vitrine_autograd::Gradients;
use vitrine_nn::ParameterStore;
use vitrine_tensor::{DType, Device, Summary, Tensor};

/// The gradient of the keys' bias is zero but for rounding; this share of the norm of the queries', keys' and values' together is
/// what rounding may leave. In F32, which has 24 bits, sums over 512 tokens stay below it.
const ROUNDING: f64 = 1e-4;

/// What a parameter got of a backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A gradient, in every row.
    Whole,
    /// A gradient, but not in every row.
    SomeRows,
    /// Numbers that are zero but for rounding.
    Rounding,
    /// A gradient of zeros.
    Zero,
    /// NaN or infinity.
    NonFinite,
    /// None: it took no part in the loss.
    Missing,
    /// None: it is not trained.
    Frozen,
}

impl Finding {
    /// In a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Finding::Whole => "gradient",
            Finding::SomeRows => "some rows",
            Finding::Rounding => "zero but for rounding",
            Finding::Zero => "zero",
            Finding::NonFinite => "not finite",
            Finding::Missing => "no gradient",
            Finding::Frozen => "frozen",
        }
    }

    /// Whether an optimizer without weight decay would leave it, or a part of it, as it is.
    pub fn is_idle(self) -> bool {
        self != Finding::Whole && self != Finding::NonFinite
    }
}

/// One parameter under its key in checkpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Audited {
    /// The key.
    pub key: String,
    /// The shape.
    pub dims: Vec<usize>,
    /// What it got.
    pub finding: Finding,
    /// The norm of its gradient; none without one.
    pub norm: Option<f64>,
    /// How many of its rows (elements, for a vector) got zeros only.
    pub idle_rows: usize,
    /// Why, where it is known.
    pub reason: Option<String>,
}

/// Every parameter of a model, in its order, after one backward pass over this batch. Query, key and value are three.
///
/// # Errors
/// Errors of copies to the host.
pub fn audit(
    config: &ModelConfig,
    parameters: &ParameterStore,
    gradients: &Gradients,
    batch: &TokenBatch,
) -> Result<Vec<Audited>> {
    let mut all = Vec::new();
    for (id, parameter) in parameters.iter() {
        let Some(gradient) = gradients.parameter(id) else {
            let (finding, reason) = match parameter.trainable {
                true => (Finding::Missing, "it took no part in the loss"),
                false => (Finding::Frozen, "it is not trained"),
            };
            for (key, value) in parameter.split(&parameter.value)? {
                let (dims, reason) = (value.dims().to_vec(), Some(reason.to_owned()));
                let idle_rows = dims.first().copied().unwrap_or(1);
                all.push(Audited { key: key.to_owned(), dims, finding, norm: None, idle_rows, reason });
            }
            continue;
        };
        let whole = Summary::of(gradient)?.norm;
        for (key, gradient) in parameter.split(gradient)? {
            all.push(one(config, key, &gradient, whole, batch)?);
        }
    }
    Ok(all)
}

/// One part of a parameter, whose parts' gradients together have the norm `whole`.
fn one(
    config: &ModelConfig,
    key: &str,
    gradient: &Tensor,
    whole: f64,
    batch: &TokenBatch,
) -> Result<Audited> {
    let (dims, summary) = (gradient.dims().to_vec(), Summary::of(gradient)?);
    let (rows, idle_rows) = (dims.first().copied().unwrap_or(1), idle_rows(gradient)?);
    let is_key_bias = key.ends_with(&format!("{}.bias", config.family.layer.query_key_value[1]));
    let (finding, reason) = if summary.non_finite > 0 {
        (Finding::NonFinite, Some(format!("{} of {} numbers", summary.non_finite, summary.count)))
    } else if is_key_bias && summary.norm <= ROUNDING * whole {
        let why = "it adds the same to all scores of a query, which softmax does not see";
        let finding = if summary.norm == 0.0 { Finding::Zero } else { Finding::Rounding };
        (finding, Some(why.to_owned()))
    } else if idle_rows == rows {
        (Finding::Zero, idle(config, key, rows, idle_rows, batch))
    } else if idle_rows > 0 {
        (Finding::SomeRows, idle(config, key, rows, idle_rows, batch))
    } else {
        (Finding::Whole, None)
    };
    Ok(Audited { key: key.to_owned(), dims, finding, norm: Some(summary.norm), idle_rows, reason })
}

/// How many rows have zeros only.
fn idle_rows(gradient: &Tensor) -> Result<usize> {
    let host = gradient.contiguous()?.to_device(Device::Cpu)?.to_dtype(DType::F32)?;
    let width = host.dims()[1..].iter().product::<usize>().max(1);
    Ok(host.as_slice::<f32>()?.chunks(width).filter(|row| row.iter().all(|&value| value == 0.0)).count())
}

/// Why rows of a parameter got zeros, where that follows from the batch.
fn idle(
    config: &ModelConfig,
    key: &str,
    rows: usize,
    idle_rows: usize,
    batch: &TokenBatch,
) -> Option<String> {
    let tokens = batch.tokens();
    let table = key.strip_prefix(config.family.names.base)?.strip_prefix(".embeddings.")?;
    let (used, what) = match table {
        "word_embeddings.weight" => (&tokens.ids, "words"),
        "position_embeddings.weight" => (&tokens.positions, "positions"),
        "token_type_embeddings.weight" => (&tokens.token_types, "token types"),
        _ => return None,
    };
    let used = used.iter().collect::<BTreeSet<_>>().len();
    match idle_rows.checked_sub(rows - used.min(rows)) {
        Some(0) => Some(format!("{what} that the text does not have")),
        Some(more) => Some(format!("{what} that the text does not have, and {more} that it has")),
        None => None,
    }
}
