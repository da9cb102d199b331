//! `vitrine train`: fine-tunes a classifier, saves it, measures it, and says what happened.

use super::{Resolved, resolve};
use crate::args::{Recipe, Samples, Train};
use crate::data_summary::{self, SplitSummary};
use crate::interrupt::Interrupts;
use crate::machine::{self, Machine};
use crate::output::{self, Failure, Outcome, note, printable, thousands, warn};
use crate::progress::{Progress, duration};
use crate::report::{self, RunObserver};
use serde::Serialize;
use std::fs;
use std::io::LineWriter;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vitrine_bert::{
    BertError, Checkpoint, DataColumns, Head, Loaded, ModelConfig, SequenceClassifier, StagedFiles, Tokenizer,
};
use vitrine_tensor::Error;
use vitrine_train::data::batching::EvalBatch;
use vitrine_train::data::{self, Dataset, Splits, classes};
use vitrine_train::{Evaluation, TokenizedDataset, TrainError, TrainSettings, TrainSummary, corpus, predict};

/// What happened, as one JSON object.
const REPORT_FILE: &str = "run.json";
/// A JSON object a step.
const METRICS_FILE: &str = "metrics.jsonl";

/// Bytes of a step's line in it, at most.
const METRICS_LINE: u64 = 256;
/// Bytes of it that are reserved, at most: a run of more steps is not kept waiting for room that it may never use.
const METRICS_RESERVED: u64 = 64 << 20;
/// Bytes that are reserved for the report.
const REPORT_RESERVED: u64 = 64 << 10;

/// The options after recipe and defaults have filled the gaps: what `run.json` stores.
#[derive(Clone, Debug, Serialize)]
struct Settings {
    model: String,
    data: String,
    recipe: Option<&'static str>,
    test_data: Option<String>,
    text_column: Option<String>,
    label_column: Option<String>,
    train_samples: Option<usize>,
    test_samples: Option<usize>,
    sample_seed: u32,
    max_length: usize,
    warmup_ratio: Option<f64>,
    #[serde(flatten)]
    train: TrainSettings,
}

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
    let Start { mut model, tokenizer, train: train_rows, test: test_rows } =
        start(arguments, train_rows, test_rows, seed, &mut notes)?;
    let positions = model.config().max_length();
    let recipe_length = defaults.max_length.map(|length| length.min(positions));
    let max_length = report::max_length(arguments.max_length.or(recipe_length), model.config())?;
    if arguments.max_length.is_none() && recipe_length < defaults.max_length {
        notes.push(format!("texts are cut at the model's {positions} positions, not at the recipe's length"));
    }

    let train_tokens = TokenizedDataset::new(&train_rows, &tokenizer, max_length)?;
    let test_tokens =
        test_rows.as_ref().map(|rows| TokenizedDataset::new(rows, &tokenizer, max_length)).transpose()?;
    let mut splits = vec![SplitSummary::new("train", &train_rows, &train_tokens)];
    if let (Some(rows), Some(tokens)) = (&test_rows, &test_tokens) {
        splits.push(SplitSummary::new("test", rows, tokens));
    }
    let data_warnings = data_summary::warnings(Some(&train_rows), test_rows.as_ref());
    let settings = settings(arguments, &defaults, seed, max_length, train_tokens.len());
    let total_steps = settings.train.total_steps(train_tokens.len());
    let schedule_warnings = settings.train.schedule(train_tokens.len()).check(settings.train.lr);

    note(resolved.line());
    if let Some(wanted) = settings.train_samples.filter(|&wanted| wanted > train_rows.len()) {
        let (wanted, there) = (thousands(wanted), thousands(train_rows.len()));
        notes.push(format!("{wanted} training rows wanted, {there} drawn: some label has no more"));
    }
    notes.iter().for_each(note);
    data_summary::print(&splits);
    data_warnings.iter().for_each(warn);
    note(format!(
        "texts are cut at {max_length} tokens; {total_steps} steps of {} rows",
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
        output::json(&report)?;
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
    Ok(())
}

/// What is used where neither an option nor anything else says otherwise.
struct Defaults {
    train_samples: Option<usize>,
    test_samples: Option<usize>,
    max_length: Option<usize>,
    epochs: usize,
    batch_size: usize,
    lr: f64,
    warmup_steps: Option<usize>,
    warmup_ratio: f64,
    weight_decay: f64,
}

impl Defaults {
    fn of(arguments: &Train) -> Self {
        let common = Defaults {
            train_samples: None,
            test_samples: None,
            max_length: None,
            epochs: 3,
            batch_size: 16,
            lr: 5e-5,
            warmup_steps: None,
            warmup_ratio: 0.1,
            weight_decay: 0.01,
        };
        match arguments.recipe {
            Some(Recipe::Notebook) => Defaults {
                train_samples: Some(2500),
                test_samples: Some(500),
                max_length: Some(512),
                lr: 2e-5,
                warmup_steps: Some(500),
                ..common
            },
            // A small BERT from scratch has nothing to preserve: it takes a high rate and more passes.
            None if arguments.model.is_none() => Defaults { epochs: 8, batch_size: 32, lr: 1e-3, ..common },
            None => common,
        }
    }
}

fn settings(arguments: &Train, defaults: &Defaults, seed: u64, max_length: usize, rows: usize) -> Settings {
    let batch_size = arguments.batch_size.unwrap_or(defaults.batch_size);
    let epochs = arguments.epochs.unwrap_or(defaults.epochs);
    let total_steps = rows.div_ceil(batch_size) * epochs;
    let by_ratio = |ratio: f64| (ratio * total_steps as f64).ceil() as usize;
    // An explicit option, then the recipe's steps, then a share of the run.
    let (warmup_steps, warmup_ratio) =
        match (arguments.warmup_steps, arguments.warmup_ratio, defaults.warmup_steps) {
            (Some(steps), _, _) | (None, None, Some(steps)) => (steps, None),
            (None, Some(ratio), _) => (by_ratio(ratio), Some(ratio)),
            (None, None, None) => (by_ratio(defaults.warmup_ratio), Some(defaults.warmup_ratio)),
        };
    let name =
        |path: &Option<PathBuf>| path.as_ref().map_or("embedded".into(), |path| path.display().to_string());
    let count = |samples: Option<Samples>, default: Option<usize>| match samples {
        None => default,
        Some(Samples::All) => None,
        Some(Samples::Count(count)) => Some(count),
    };
    Settings {
        model: name(&arguments.model),
        data: name(&arguments.data),
        recipe: arguments.recipe.map(|Recipe::Notebook| "notebook"),
        test_data: arguments.test_data.as_ref().map(|path| path.display().to_string()),
        text_column: arguments.columns.text_column.clone(),
        label_column: arguments.columns.label_column.clone(),
        train_samples: count(arguments.train_samples, defaults.train_samples),
        test_samples: count(arguments.test_samples, defaults.test_samples),
        sample_seed: arguments.sample_seed.unwrap_or(42),
        max_length,
        warmup_ratio,
        train: TrainSettings {
            epochs,
            batch_size,
            micro_batch_size: arguments.micro_batch_size,
            eval_batch: arguments.eval_batch_size.map_or_else(EvalBatch::default, EvalBatch::Rows),
            lr: arguments.lr.unwrap_or(defaults.lr),
            schedule: arguments.schedule,
            warmup_steps,
            weight_decay: arguments.weight_decay.unwrap_or(defaults.weight_decay),
            max_grad_norm: arguments.max_grad_norm.unwrap_or(1.0),
            seed,
            shuffle: !arguments.no_shuffle,
            group_by_length: arguments.group_by_length,
            checkpoint_layers: arguments.checkpoint_layers,
        },
    }
}

/// The rows to train on and, where there are any, to evaluate on, drawn as the options say, and remarks on them.
fn rows(arguments: &Train, defaults: &Defaults) -> Outcome<Splits> {
    let options = arguments.columns.options(None);
    let Splits { train, mut test, mut notes } = match &arguments.data {
        Some(path) => data::load_splits(path, &options)?,
        None => corpus::splits(0),
    };
    if let Some(path) = &arguments.test_data {
        let (rows, remarks) = data::load_evaluation(path, &options)?;
        let (rows, remark) = rows.aligned(&train.label_names, "the training rows")?;
        notes.extend(remarks.into_iter().chain(remark));
        test = Some(rows);
    }
    let labels = train.class_counts().iter().filter(|&&count| count > 0).count();
    if labels < 2 {
        let (rows, source) = (thousands(train.len()), &train.source);
        let message = format!(
            "{source}: all {rows} rows have the same label; there is nothing to learn (see --label-column)"
        );
        return Err(Failure::Run(message));
    }
    let seed = arguments.sample_seed.unwrap_or(42);
    let count = |asked: Option<Samples>, default: Option<usize>| {
        asked.unwrap_or(default.map_or(Samples::All, Samples::Count))
    };
    let train = report::sampled(&train, count(arguments.train_samples, defaults.train_samples), seed);
    let test =
        test.map(|rows| report::sampled(&rows, count(arguments.test_samples, defaults.test_samples), seed));
    Ok(Splits { train, test, notes })
}

/// Where training starts: a model with a class for each of the rows' classes.
struct Start {
    model: SequenceClassifier,
    tokenizer: Tokenizer,
    train: Dataset,
    test: Option<Dataset>,
}

/// The model and tokenizer to start from; `notes` says how they were made. A classifier that the checkpoint brings keeps its
/// classes in their order, and rows are given these by name; it is saved with the data's names.
fn start(
    arguments: &Train,
    train: Dataset,
    test: Option<Dataset>,
    seed: u64,
    notes: &mut Vec<String>,
) -> Outcome<Start> {
    let columns = DataColumns { text: train.text_column.clone(), label: train.label_column.clone() };
    let Some(folder) = &arguments.model else {
        let tokenizer = Tokenizer::from_vocabulary(&corpus::vocabulary())?;
        // About a million parameters: enough for short reviews, seconds an epoch.
        let config = ModelConfig {
            vocab_size: tokenizer.vocabulary_size(),
            hidden_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 512,
            max_position_embeddings: 128,
            ..ModelConfig::bert_mini()
        }
        .with_labels(&train.label_names);
        let model = SequenceClassifier::random(config, seed)?;
        notes.push("no --model and --data: a small BERT from scratch on the embedded corpus".into());
        return Ok(Start { model, tokenizer, train, test });
    };
    let known = match arguments.new_head {
        true => None,
        false => Checkpoint::read(folder, |checkpoint| checkpoint.classes())?.0,
    };
    let Some(known) = known else {
        let head = Head::New { names: &train.label_names, seed };
        let Loaded { mut model, tokenizer, notes: remarks } = SequenceClassifier::load_with(folder, head)?;
        notes.extend(remarks);
        model.describe(&train.label_names, &columns)?;
        return Ok(Start { model, tokenizer, train, test });
    };
    let names = saved_names(&train.label_names, &known);
    let fits = |rows: Dataset| {
        rows.aligned(&known, "the checkpoint's classifier").map_err(|error| match error {
            TrainError::Classes { .. } => {
                Failure::Run(format!("{error}, --new-head starts a new classifier with the data's classes"))
            }
            error => error.into(),
        })
    };
    let (mut train, remark) = fits(train)?;
    let mut test = test.map(fits).transpose()?.map(|(rows, _)| rows);
    for rows in [Some(&mut train), test.as_mut()].into_iter().flatten() {
        rows.label_names.clone_from(&names);
    }
    let Loaded { mut model, tokenizer, notes: remarks } =
        SequenceClassifier::load_with(folder, Head::KeepOrNew { names: &names, seed })?;
    notes.extend(remarks.into_iter().chain(remark));
    model.describe(&names, &columns)?;
    Ok(Start { model, tokenizer, train, test })
}

/// The names of a kept classifier's classes after training: the data's where the data have names, else the model's.
fn saved_names(data: &[String], known: &[String]) -> Vec<String> {
    let mut names = known.to_vec();
    if let Some((map, _)) = classes::align(data, known).filter(|_| !classes::unnamed(data)) {
        for (name, class) in data.iter().zip(map) {
            names[class as usize].clone_from(name);
        }
    }
    names
}

/// Claims --output, or the first of runs/train-001, runs/train-002, .. that is free: another run that starts now gets another.
fn claim_output(arguments: &Train) -> Outcome<StagedFiles> {
    if let Some(folder) = &arguments.output {
        return super::claim_output(folder, arguments.overwrite);
    }
    for n in 1..10_000 {
        match StagedFiles::in_empty_folder(&Path::new("runs").join(format!("train-{n:03}"))) {
            Err(BertError::Folder { .. }) => {}
            claimed => {
                return claimed.map_err(|error| {
                    Failure::Usage(format!("{error}; name a folder that can be written with --output"))
                });
            }
        }
    }
    Err(Failure::Usage("runs/ is full; name a folder with --output".into()))
}

/// Saves a trained model that cannot be saved where it should, beside that folder or in the system's temporary one, and says
/// where.
fn kept_elsewhere(output: &Path, save: impl Fn(&mut StagedFiles) -> Result<(), BertError>) -> String {
    let name = fs::canonicalize(output).ok().and_then(|path| Some(path.file_name()?.to_owned()));
    let name = name.or_else(|| Some(output.file_name()?.to_owned())).unwrap_or_else(|| "model".into());
    let beside = fs::canonicalize(output.join("..")).or_else(|_| fs::canonicalize(parent(output)));
    let mut reasons = Vec::new();
    for place in beside.into_iter().chain([std::env::temp_dir()]) {
        // Names that are taken are passed over, and then the reason is another one.
        for n in 1..1000 {
            let folder = place.join(format!("{}.kept-{n}", name.to_string_lossy()));
            let saved = StagedFiles::in_empty_folder(&folder).and_then(|mut files| save(&mut files));
            match saved {
                Ok(()) => {
                    return format!(
                        "the trained model is not lost: it is in {}, not evaluated; move that folder to its place",
                        folder.display()
                    );
                }
                Err(BertError::Folder { .. }) => {}
                Err(error) => {
                    reasons.push(error.to_string());
                    break;
                }
            }
        }
    }
    format!("the trained model is lost: no other place took it ({})", reasons.join("; "))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn show_sentences(model: &SequenceClassifier, tokenizer: &Tokenizer) -> Outcome {
    let names = model.config().label_names();
    for (text, prediction) in corpus::UNSEEN.iter().zip(predict(model, tokenizer, &corpus::UNSEEN)?) {
        let best = prediction.ranked()[0];
        output::line(format!(
            "{:<8} {:.4}  {text}",
            printable(&names[best]),
            prediction.probabilities[best]
        ))?;
    }
    Ok(())
}
