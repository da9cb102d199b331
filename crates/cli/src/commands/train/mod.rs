//! `vitrine train`: fine-tunes a classifier, saves it, measures it, and says what happened.

mod output;
mod settings;
mod start;

use super::{Resolved, resolve};
use crate::args::Train;
use crate::config;
use crate::data_summary::{self, SplitSummary};
use crate::interrupt::Interrupts;
use crate::machine::{self, Machine};
use crate::output::{
    Failure, Outcome, detail, json, line, next, note, print, printable, quoted_path, thousands, warn,
};
use crate::progress::{Progress, duration};
use crate::report::{self, RunObserver, tokenized, truncating};
use output::{claim_output, kept_elsewhere};
use serde::Serialize;
pub use settings::default_options;
use settings::{Defaults, Settings, settings};
use start::{Start, rows, start};
use std::io::LineWriter;
use std::path::Path;
use std::time::Instant;
use vitrine_bert::{BertError, SequenceClassifier, StagedFiles, Tokenizer};
use vitrine_tensor::Error;
use vitrine_train::data::{Dataset, Splits};
use vitrine_train::{Evaluation, TokenizedDataset, TrainError, TrainSummary, corpus, predict};

/// What happened, as one JSON object.
const REPORT_FILE: &str = "run.json";
/// Its options, as a file for `--config`.
const OPTIONS_FILE: &str = "run.toml";
/// A JSON object a step.
const METRICS_FILE: &str = "metrics.jsonl";

/// Bytes of a step's line in it, at most.
const METRICS_LINE: u64 = 256;
/// Bytes of it that are reserved, at most: a run of more steps is not kept waiting for room that it may never use.
const METRICS_RESERVED: u64 = 64 << 20;
/// Bytes that are reserved for the report.
const REPORT_RESERVED: u64 = 64 << 10;

/// `run.json`.
#[derive(Serialize)]
struct RunReport {
    command: &'static str,
    settings: Settings,
    resolved: Resolved,
    machine: Machine,
    rows: RowsReport,
    data: Vec<SplitSummary>,
    data_warnings: Vec<String>,
    schedule_warnings: Vec<String>,
    notes: Vec<String>,
    train: TrainSummary,
    peak_rss_bytes: Option<u64>,
    seconds_total: f64,
    eval: Option<Evaluation>,
}

/// Which rows were used; the hash is SHA-256 over texts and labels in the order drawn.
#[derive(Serialize)]
struct RowsReport {
    train: usize,
    train_hash: String,
    train_tokens: usize,
    train_truncated: usize,
    test: Option<usize>,
    test_hash: Option<String>,
    test_truncated: Option<usize>,
}

/// Settings other than these with which a training step fits into `room` bytes of a device, by estimate.
fn what_fits(model: &SequenceClassifier, settings: &Settings, room: usize) -> String {
    // Master, the gradient of a micro-batch, the sum of those before, and two moments in f32; and a bfloat16 copy.
    let parameters: usize = model.parameters().iter().map(|(_, p)| 22 * p.value.numel()).sum();
    let config = model.config();
    let needs = |batch: usize, checkpoint: bool| {
        // Counted in f32; what backward adds for a moment is about a layer's share.
        let kept = config.cost(&vec![settings.max_length; batch]).activation_bytes as usize;
        let layers = config.num_hidden_layers;
        let needed = if checkpoint { 3 * kept / layers } else { kept + 2 * kept / layers };
        parameters + needed
    };
    let asked = (settings.train.rows_at_once(), settings.train.checkpoint_layers);
    let found = [asked.1, true].into_iter().find_map(|checkpoint| {
        // What was asked for did not fit, whatever the estimate says.
        let from = if checkpoint == asked.1 { asked.0 / 2 } else { asked.0 };
        super::rows_that_fit(from, room, |batch| needs(batch, checkpoint)).map(|batch| (batch, checkpoint))
    });
    match found.filter(|&(batch, _)| batch > 0) {
        Some((batch, false)) => format!("--micro-batch-size {batch} should fit"),
        Some((batch, true)) => format!("--micro-batch-size {batch} --checkpoint-layers should fit"),
        None => "no batch of this model and --max-length fits; use --device cpu".into(),
    }
}

/// Runs the command.
pub fn run(arguments: &Train) -> Outcome {
    let started = Instant::now();
    if arguments.config.print_config {
        return print(config::to_file(&arguments.config.resolved));
    }
    let resolved = resolve(&arguments.compute)?;
    if arguments.model.is_some() != arguments.data.is_some() {
        let message = "--model and --data go together; give neither for the embedded default";
        return Err(Failure::Usage(message.into()));
    }
    // Refused now, before anything is read, and claimed for good when there is something to train on: until then an
    // interrupted run has nothing to clean up.
    drop(claim_output(arguments)?);
    let defaults = Defaults::of(arguments);
    let seed = arguments.seed.unwrap_or(42);
    let Splits { train: train_rows, test: test_rows, mut notes } = rows(arguments, &defaults)?;
    detail(format!("data read {} after the start", duration(started.elapsed().as_secs_f64())));
    let Start { mut model, tokenizer, train: train_rows, test: test_rows } =
        start(arguments, train_rows, test_rows, seed, &mut notes)?;
    let positions = model.config().max_length();
    let recipe_length = defaults.max_length.map(|length| length.min(positions));
    let max_length = report::max_length(arguments.max_length.or(recipe_length), model.config())?;
    if arguments.max_length.is_none() && recipe_length < defaults.max_length {
        notes.push(format!("texts are cut at the model's {positions} positions, not at the recipe's length"));
    }

    detail(format!("model read {} after the start", duration(started.elapsed().as_secs_f64())));
    let tokenizer = truncating(tokenizer, arguments.tokens.truncate, false);
    let tokenize = |rows: &Dataset| tokenized(rows, &tokenizer, max_length, &arguments.tokens);
    let train_tokens = tokenize(&train_rows)?;
    let test_tokens = test_rows.as_ref().map(tokenize).transpose()?;
    detail(format!("ready to train {} after the start", duration(started.elapsed().as_secs_f64())));
    let mut splits = vec![SplitSummary::new("train", &train_rows, &train_tokens)];
    if let (Some(rows), Some(tokens)) = (&test_rows, &test_tokens) {
        splits.push(SplitSummary::new("test", rows, tokens));
    }
    let data_warnings = data_summary::warnings(Some(&train_rows), test_rows.as_ref());
    let settings =
        settings(arguments, &defaults, seed, (max_length, tokenizer.truncation()), train_tokens.len());
    let total_steps = settings.train.total_steps(train_tokens.len());
    let schedule_warnings = settings.train.schedule(train_tokens.len()).check(settings.train.lr);

    note(resolved.line());
    note(format!("options: {}", config::in_a_line(&arguments.config.resolved)));
    if let Some(wanted) = settings.train_samples.filter(|&wanted| wanted > train_rows.len()) {
        let (wanted, there) = (thousands(wanted), thousands(train_rows.len()));
        notes.push(format!("{wanted} training rows wanted, {there} drawn: some label has no more"));
    }
    notes.iter().for_each(note);
    data_summary::print(&splits);
    data_warnings.iter().for_each(warn);
    note(format!(
        "texts are cut at {max_length} tokens{}; {total_steps} steps of {} rows",
        report::what_stays(&tokenizer),
        settings.train.batch_size,
    ));
    schedule_warnings.iter().for_each(warn);
    if test_tokens.is_none() {
        warn("no labelled test split: nothing will be evaluated; name one with --test-data");
    }

    let rows_at_once = settings.train.rows_at_once().min(train_tokens.len());
    let mean_length = train_tokens.tokens() / train_tokens.len();
    let kept = model.config().cost(&vec![mean_length; rows_at_once]).activation_bytes;
    let layers = if settings.train.checkpoint_layers { model.config().num_hidden_layers as u64 } else { 1 };
    // Master, gradient and two moments; with micro-batches, the sum of the gradients before, too.
    let copies = if rows_at_once < settings.train.batch_size.min(train_tokens.len()) { 5 } else { 4 };
    let needed = 4 * copies * model.parameters().numel() as u64 + kept / layers;
    super::check_memory(resolved.place, needed, || {
        format!("--micro-batch-size {}", settings.train.rows_at_once())
    })?;

    let failed = |error: TrainError, model: &_| match error.tensor_error() {
        Some(&Error::OutOfMemory { free, held, .. }) => {
            Failure::Run(format!("{error}; {}", what_fits(model, &settings, free + held)))
        }
        _ => error.into(),
    };
    let moved = model.to_device(resolved.place).and_then(|()| model.compute_in(resolved.compute));
    moved.map_err(|error| failed(error.into(), &model))?;

    let interrupts = Interrupts::watch();
    let mut files = claim_output(arguments)?;
    let output = files.folder().to_owned();
    // A full disk shows now, not when hours of training are to be saved.
    files.reserve(METRICS_FILE, (total_steps as u64).saturating_mul(METRICS_LINE).min(METRICS_RESERVED))?;
    model.reserve_in(&mut files, &tokenizer)?;
    files.reserve(REPORT_FILE, REPORT_RESERVED)?;
    let options = config::to_file(&arguments.config.resolved);
    files.reserve(OPTIONS_FILE, options.len() as u64)?;
    let mut observer = RunObserver {
        metrics: LineWriter::new(files.create(METRICS_FILE)?),
        metrics_path: output.join(METRICS_FILE),
        progress: Progress::new("train", total_steps),
        interrupts: &interrupts,
    };
    let trained = vitrine_train::train(&mut model, &train_tokens, &settings.train, &mut observer);
    drop(observer);
    let train = trained.map_err(|error| failed(error, &model))?;
    note(format!("trained in {}, {:.0} tokens/s", duration(train.seconds), train.tokens_per_second));

    let mut report = RunReport {
        command: "train",
        rows: RowsReport {
            train: train_rows.len(),
            train_hash: train_rows.sha256(),
            train_tokens: train_tokens.tokens(),
            train_truncated: train_tokens.truncated(),
            test: test_rows.as_ref().map(Dataset::len),
            test_hash: test_rows.as_ref().map(Dataset::sha256),
            test_truncated: test_tokens.as_ref().map(TokenizedDataset::truncated),
        },
        data: splits,
        data_warnings,
        settings,
        resolved,
        machine: Machine::look(),
        schedule_warnings,
        notes,
        train,
        peak_rss_bytes: machine::peak_rss_bytes(),
        seconds_total: started.elapsed().as_secs_f64(),
        eval: None,
    };
    // Model, report and metrics of one run appear together, and replace those of another together.
    let text = serde_json::to_string_pretty(&report)?;
    let save = |files: &mut StagedFiles| -> Result<(), BertError> {
        model.save_into(files, &tokenizer)?;
        files.write_text(REPORT_FILE, &text)?;
        files.write_text(OPTIONS_FILE, &options)?;
        files.commit()
    };
    if let Err(error) = save(&mut files) {
        drop(files);
        return Err(Failure::Run(format!("{error}; {}", kept_elsewhere(&output, save))));
    }
    if interrupts.seen() {
        return Err(Failure::Run(format!("interrupted: saved in {}, but not evaluated", output.display())));
    }
    drop(interrupts);
    let mut rewritten = Ok(());
    if let Some(rows) = &test_tokens {
        let mut progress = report::eval_progress(rows.len());
        let eval_batch = report.settings.train.eval_batch;
        let eval = vitrine_train::evaluate(&model, rows, eval_batch, &mut progress).map_err(|error| {
            let rows = eval_batch.rows(max_length);
            super::explained(
                error,
                &model,
                max_length,
                (rows, "saved, but not evaluated: `vitrine eval` with --batch-size"),
            )
        })?;
        report.eval = Some(eval);
        report.peak_rss_bytes = machine::peak_rss_bytes();
        report.seconds_total = started.elapsed().as_secs_f64();
        let text = serde_json::to_string_pretty(&report)?;
        // What was found is printed first, whatever becomes of the file.
        rewritten = files.rewrite(REPORT_FILE, &text);
    }
    if arguments.json {
        json(&report)?;
    } else {
        if let Some(eval) = &report.eval {
            report::print_evaluation(eval)?;
        }
        if arguments.model.is_none() {
            show_sentences(&model, &tokenizer)?;
        }
    }
    rewritten
        .map_err(|error| Failure::Run(format!("{error}; the model is saved, without this evaluation")))?;
    note(format!("saved in {}", output.display()));
    what_next(&output);
    Ok(())
}

/// Says what a user may want to run or look at next.
fn what_next(output: &Path) {
    let folder = quoted_path(output);
    next("next:", format!("vitrine predict --model {folder} \"a wonderful film\""));
    let page = output.join("report.html");
    if page.is_file() {
        next("report:", quoted_path(&page));
    }
}

fn show_sentences(model: &SequenceClassifier, tokenizer: &Tokenizer) -> Outcome {
    let names = model.config().label_names();
    for (text, prediction) in corpus::UNSEEN.iter().zip(predict(model, tokenizer, &corpus::UNSEEN)?) {
        let best = prediction.ranked()[0];
        line(format!("{:<8} {:.4}  {text}", printable(&names[best]), prediction.probabilities[best]))?;
    }
    Ok(())
}
