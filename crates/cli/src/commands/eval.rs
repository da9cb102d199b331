//! `vitrine eval`: measures a classifier on labelled data.

use super::{Resolved, resolve};
use crate::args::Eval;
use crate::data_summary::{self, SplitSummary};
use crate::machine::{Machine, peak_rss_bytes};
use crate::output::{self, Failure, Outcome, note, warn};
use crate::report;
use serde::Serialize;
use vitrine_bert::{Loaded, SequenceClassifier, write_atomically};
use vitrine_train::data::batching::EvalBatch;
use vitrine_train::{Evaluation, evaluate};

/// What `--json` prints: the metrics first, then what they were measured with.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    eval: &'a Evaluation,
    data: SplitSummary,
    data_warnings: Vec<String>,
    rows_hash: String,
    truncated: usize,
    truncate: String,
    resolved: Resolved,
    machine: Machine,
    peak_rss_bytes: Option<u64>,
}

/// Runs the command.
pub fn run(arguments: &Eval) -> Outcome {
    if let Some(path) = &arguments.predictions {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if path.is_dir() || folder.is_some_and(|folder| !folder.is_dir()) {
            let path = path.display();
            return Err(Failure::Usage(format!(
                "--predictions {path}: name a file in a folder that is there"
            )));
        }
    }
    let resolved = resolve(&arguments.compute)?;
    let Loaded { mut model, tokenizer, notes } = SequenceClassifier::load(&arguments.model.trained()?)?;
    notes.iter().for_each(warn);
    let max_length = report::max_length(arguments.max_length, model.config())?;
    let options = arguments.columns.options(Some(&model.config().data_columns()));
    let (rows, remarks) = arguments.data.evaluation(&options)?;
    remarks.iter().for_each(warn);
    let (rows, remark) = rows.aligned(&model.config().label_names(), "the model")?;
    remark.iter().for_each(note);
    let rows = report::sampled(&rows, arguments.samples, arguments.sample_seed);
    let rows_hash = rows.sha256();
    let tokenizer = report::truncating(tokenizer, arguments.tokens.truncate, true);
    let tokenized = report::tokenized(&rows, &tokenizer, max_length, &arguments.tokens)?;
    let (summary, warnings) =
        (SplitSummary::new("test", &rows, &tokenized), data_summary::warnings(None, Some(("test", &rows))));
    note(resolved.line());
    data_summary::print(std::slice::from_ref(&summary));
    warnings.iter().for_each(warn);
    let batch = arguments.batch_size.map_or_else(EvalBatch::default, EvalBatch::Rows);
    let mut progress = report::eval_progress(tokenized.len());
    let moved = model.to_device(resolved.place).and_then(|()| model.compute_in(resolved.compute));
    let eval = moved.map_err(Into::into).and_then(|()| evaluate(&model, &tokenized, batch, &mut progress));
    drop(progress);
    let eval = eval.map_err(|error| {
        super::explained(error, &model, max_length, (batch.rows(max_length), "--batch-size"))
    })?;
    let eval = eval.quoting(&rows);
    // What was found is printed first, whatever becomes of the file.
    let written = arguments.predictions.as_ref().map_or(Ok(()), |path| {
        let mut lines = Vec::new();
        eval.predictions.write_jsonl(&mut lines)?;
        Ok(write_atomically(path, &lines)?)
    });
    if arguments.json {
        let truncated = tokenized.truncated();
        let machine = Machine::look();
        output::json(&Report {
            eval: &eval,
            data: summary,
            data_warnings: warnings,
            rows_hash,
            truncated,
            truncate: tokenizer.truncation().to_string(),
            resolved,
            machine,
            peak_rss_bytes: peak_rss_bytes(),
        })?;
        return written;
    }
    report::print_evaluation(&eval)?;
    written
}
