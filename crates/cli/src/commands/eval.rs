//! `vitrine eval`: measures a classifier on labelled data.

use super::{Resolved, resolve};
use crate::args::Eval;
use crate::machine::{Machine, peak_rss_bytes};
use crate::output::{self, Outcome, note, warn};
use crate::progress::Progress;
use crate::report;
use serde::Serialize;
use vitrine_bert::{BertForSequenceClassification, Loaded};
use vitrine_train::data::LoadOptions;
use vitrine_train::data::batching::EvalBatch;
use vitrine_train::{Evaluation, TokenizedDataset, evaluate};

/// What `--json` prints: the metrics first, then what they were measured with.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    eval: &'a Evaluation,
    rows_hash: String,
    truncated: usize,
    resolved: Resolved,
    machine: Machine,
    peak_rss_bytes: Option<u64>,
}

/// Runs the command.
pub fn run(arguments: &Eval) -> Outcome {
    let resolved = resolve(&arguments.compute)?;
    let Loaded { mut model, tokenizer, notes } = BertForSequenceClassification::load(&arguments.model)?;
    notes.iter().for_each(warn);
    let max_length = report::max_length(arguments.max_length, model.config())?;
    let options = LoadOptions {
        text_column: arguments.columns.text_column.clone(),
        label_column: arguments.columns.label_column.clone(),
        label_names: model.config().named_labels(),
        ..LoadOptions::default()
    };
    let rows = report::load_for_evaluation(&arguments.data, options)?;
    let rows = report::sampled(&rows, arguments.samples, arguments.sample_seed);
    let rows_hash = rows.sha256();
    let tokenized = TokenizedDataset::new(&rows, &tokenizer, max_length)?;
    if !arguments.json {
        note(resolved.line());
        if tokenized.truncated() > 0 {
            warn(format!(
                "{} of {} texts are truncated at {max_length} tokens",
                tokenized.truncated(),
                rows.len()
            ));
        }
    }
    let batch = arguments.batch_size.map_or_else(EvalBatch::default, EvalBatch::Rows);
    let mut progress = report::EvalProgress(Progress::new("eval", tokenized.len()));
    let moved = model.to_device(resolved.place).and_then(|()| model.compute_in(resolved.compute));
    let eval = moved.map_err(Into::into).and_then(|()| evaluate(&model, &tokenized, batch, &mut progress));
    drop(progress);
    let eval = eval.map_err(|error| {
        super::explained(error, &model, max_length, (batch.rows(max_length), "--batch-size"))
    })?;
    if arguments.json {
        let truncated = tokenized.truncated();
        let machine = Machine::look();
        return output::json(&Report {
            eval: &eval,
            rows_hash,
            truncated,
            resolved,
            machine,
            peak_rss_bytes: peak_rss_bytes(),
        });
    }
    report::print_evaluation(&eval, &model.config().label_names())
}
