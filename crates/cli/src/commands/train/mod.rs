//! `vitrine train`: fine-tunes a classifier, saves it, measures it, and says what happened.

mod distill;
mod logs;
mod memory;
mod observer;
mod output;
mod publish;
mod resume;
mod settings;
mod start;
mod techniques;

use super::{Resolved, resolve, resume_command};
use crate::args::Train;
use crate::config;
use crate::data_summary::{self, SplitSummary};
use crate::interrupt::Interrupts;
use crate::machine::{self, Machine};
use crate::names::{DataName, ModelName};
use crate::output::{
    Failure, Outcome, detail, json, line, next, note, print, printable, quoted_path, thousands, warn,
};
use crate::progress::{Progress, duration};
use crate::report::{self, tokenized, truncating};
use distill::Teacher;
use logs::{TensorBoard, Tracer};
use observer::RunObserver;
use output::{LiveFiles, METRICS_FILE, REPORT_FILE, claim_output, kept_elsewhere};
use resume::{is_finished, newest, other_machine};
use serde::Serialize;
use serde_json::{Map, Value};
pub use settings::default_options;
pub use settings::recipe_samples;
use settings::{Defaults, Settings, settings};
pub use start::{RowChoice, Rows, located};
use start::{Start, start};
use std::io::LineWriter;
use std::path::Path;
use std::time::Instant;
use vitrine_bert::{BertError, SequenceClassifier, StagedFiles, Tokenizer};
use vitrine_tensor::Error;
use vitrine_train::checkpoint::fingerprint;
use vitrine_train::data::Dataset;
use vitrine_train::optimizer::groups::Groups;
use vitrine_train::techniques::FailedStep;
use vitrine_train::{
    Checkpoints, Evaluation, Observer, SaveEvery, Saving, TokenizedDataset, TrainError, TrainSettings,
    TrainSummary, corpus, predict,
};

/// A run's options, as a file for `--config`.
const OPTIONS_FILE: &str = "run.toml";

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
    state: State,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The command that goes on with it, until it is finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    resume: Option<String>,
    settings: Settings,
    /// Everything on which the result depends: a run goes on only with the same.
    determined_by: Map<String, Value>,
    resolved: Resolved,
    machine: Machine,
    rows: RowsReport,
    data: Vec<SplitSummary>,
    data_warnings: Vec<String>,
    schedule_warnings: Vec<String>,
    groups: Groups,
    /// Those of this process; metrics.jsonl has all.
    training_warnings: Vec<String>,
    notes: Vec<String>,
    train: Option<TrainSummary>,
    peak_rss_bytes: Option<u64>,
    seconds_total: f64,
    /// Which rows `eval` is of: `test` or `validation`.
    eval_split: Option<&'static str>,
    eval: Option<Evaluation>,
}

/// How far a run is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Running,
    Finished,
    Interrupted,
    Failed,
}

/// Which rows were used; the hash is SHA-256 over texts and labels in the order drawn.
#[derive(Serialize)]
struct RowsReport {
    train: usize,
    train_hash: String,
    train_tokens: usize,
    train_truncated: usize,
    /// Rows without labels, for which a teacher counts alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    unlabelled: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unlabelled_hash: Option<String>,
    validation: Option<usize>,
    validation_hash: Option<String>,
    validation_truncated: Option<usize>,
    test: Option<usize>,
    test_hash: Option<String>,
    test_truncated: Option<usize>,
}

/// Rows, and as what they were read.
type Split<'a> = (&'a Dataset, &'a TokenizedDataset);

impl RowsReport {
    fn of(train: Split<'_>, validation: Option<Split<'_>>, test: Option<Split<'_>>) -> Self {
        let rows = |split: Option<Split<'_>>| split.map(|(rows, _)| rows.len());
        let hash = |split: Option<Split<'_>>| split.map(|(rows, _)| rows.sha256());
        let truncated = |split: Option<Split<'_>>| split.map(|(_, tokens)| tokens.truncated());
        RowsReport {
            train: train.0.len(),
            train_hash: train.0.sha256(),
            train_tokens: train.1.tokens(),
            train_truncated: train.1.truncated(),
            unlabelled: None,
            unlabelled_hash: None,
            validation: rows(validation),
            validation_hash: hash(validation),
            validation_truncated: truncated(validation),
            test: rows(test),
            test_hash: hash(test),
            test_truncated: truncated(test),
        }
    }
}

impl RowsReport {
    fn with_unlabelled(self, rows: Option<&Dataset>) -> Self {
        RowsReport { unlabelled: rows.map(Dataset::len), unlabelled_hash: rows.map(Dataset::sha256), ..self }
    }
}

/// Runs the command.
pub fn run(arguments: &Train) -> Outcome {
    let started = Instant::now();
    if arguments.config.print_config {
        return print(config::to_file(&arguments.config.resolved));
    }
    let resolved = resolve(&arguments.compute)?;
    // Refused now, before anything is read, and claimed for good when there is something to train on: until then an
    // interrupted run has nothing to clean up.
    drop(claim_output(arguments)?);
    let arguments = &located(arguments)?;
    let defaults = Defaults::of(arguments);
    let seed = arguments.seed.unwrap_or(42);
    let rows = RowChoice::of(arguments, &defaults).rows()?;
    detail(format!("data read {} after the start", duration(started.elapsed().as_secs_f64())));
    let Start { mut model, tokenizer, rows } = start(arguments, rows, seed)?;
    let Rows { train: train_rows, validation: validation_rows, test: test_rows, mut notes } = rows;
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
    let validation_tokens = validation_rows.as_ref().map(tokenize).transpose()?;
    let test_tokens = test_rows.as_ref().map(tokenize).transpose()?;
    let known: Vec<&Dataset> =
        [Some(&train_rows), validation_rows.as_ref(), test_rows.as_ref()].into_iter().flatten().collect();
    let unlabelled = distill::unlabelled(arguments, &known)?;
    let unlabelled = unlabelled.map(|(rows, remarks)| {
        notes.extend(remarks);
        rows
    });
    // Every row that steps are made of.
    let step_tokens = match &unlabelled {
        Some(rows) => train_tokens.clone().with_unlabelled(&tokenize(rows)?),
        None => train_tokens.clone(),
    };
    let seen: Vec<&Dataset> = [Some(&train_rows), unlabelled.as_ref()].into_iter().flatten().collect();
    let teacher = Teacher::read(arguments, model.config(), max_length, &resolved, &seen)?;
    detail(format!("ready to train {} after the start", duration(started.elapsed().as_secs_f64())));
    let mut splits = vec![SplitSummary::new("train", &train_rows, &train_tokens)];
    for (name, rows, tokens) in
        [("validation", &validation_rows, &validation_tokens), ("test", &test_rows, &test_tokens)]
    {
        if let (Some(rows), Some(tokens)) = (rows, tokens) {
            splits.push(SplitSummary::new(name, rows, tokens));
        }
    }
    // What the model is evaluated on at the end, and during training.
    let at_the_end = [("test", &test_tokens), ("validation", &validation_tokens)]
        .into_iter()
        .find_map(|(name, tokens)| Some((name, tokens.as_ref()?)));
    let during = validation_tokens.as_ref().or(test_tokens.as_ref());
    let held_out = [("test", &test_rows), ("validation", &validation_rows)]
        .into_iter()
        .find_map(|(name, rows)| Some((name, rows.as_ref()?)));
    let data_warnings = data_summary::warnings(Some(&train_rows), held_out);
    let techniques = techniques::techniques(arguments, &train_rows, model.config())?;
    techniques.prepare(&mut model, seed).map_err(techniques::refused)?;
    let cut = (max_length, tokenizer.truncation());
    let settings = settings(arguments, &defaults, seed, cut, step_tokens.len(), techniques)?;
    let groups = Groups::of(model.parameters(), model.config());
    let total_steps = settings.train.total_steps(step_tokens.len());
    let schedule_warnings = settings.train.schedule(step_tokens.len()).check(settings.train.lr);

    start_of_run(arguments, &model);
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
    techniques::lines(&settings.train, step_tokens.len(), &groups, model.config()).iter().for_each(note);
    teacher.iter().map(Teacher::line).for_each(note);
    techniques::warnings(arguments, &groups).iter().for_each(warn);
    schedule_warnings.iter().for_each(warn);
    look_at_evaluation(&settings.train, total_steps, validation_tokens.is_some(), test_tokens.is_some())?;

    memory::check(&model, &settings, &step_tokens, resolved.place)?;

    let failed = |error: TrainError, model: &_| match error.tensor_error() {
        Some(&Error::OutOfMemory { free, held, .. }) => {
            Failure::Run(format!("{error}; {}", memory::what_fits(model, &settings, free + held)))
        }
        _ => error.into(),
    };
    let rows_report = RowsReport::of(
        (&train_rows, &train_tokens),
        validation_rows.as_ref().zip(validation_tokens.as_ref()),
        test_rows.as_ref().zip(test_tokens.as_ref()),
    )
    .with_unlabelled(unlabelled.as_ref());
    let mut determined_by = determined_by(&settings, &resolved, &model, &rows_report)?;
    if let Some(teacher) = &teacher {
        // Teacher and rows, those without labels, too.
        determined_by.insert("teacher_logits".into(), teacher.key().hex().into());
    }
    let moved = model.to_device(resolved.place).and_then(|()| model.compute_in(resolved.compute));
    moved.map_err(|error| failed(error.into(), &model))?;

    let interrupts = Interrupts::watch();
    let mut files = claim_output(arguments)?;
    let output = files.folder().to_owned();
    if arguments.checkpointing.resume && is_finished(&output, &determined_by)? {
        return Ok(());
    }
    let step_tokens = match teacher {
        Some(teacher) => {
            teacher.attach(step_tokens, &train_rows, unlabelled.as_ref(), &resolved, &interrupts)?
        }
        None => step_tokens,
    };
    let mut checkpoints = Checkpoints::new(&output, arguments.checkpointing.keep, determined_by.clone())?;
    let from = if arguments.checkpointing.resume { newest(&mut checkpoints, total_steps)? } else { None };
    if from.is_some() {
        other_machine(&output, &resolved).iter().for_each(warn);
    }
    // A full disk shows now, not when hours of training are to be saved.
    model.reserve_in(&mut files, &tokenizer)?;
    files.reserve(REPORT_FILE, REPORT_RESERVED)?;
    let options = config::to_file(&arguments.config.resolved);
    files.reserve(OPTIONS_FILE, options.len() as u64)?;

    let mut report = RunReport {
        command: "train",
        state: State::Running,
        error: None,
        resume: Some(resume_command(&output)),
        rows: rows_report,
        data: splits,
        data_warnings,
        settings: settings.clone(),
        determined_by,
        resolved,
        machine: Machine::look(),
        schedule_warnings,
        groups,
        training_warnings: Vec::new(),
        notes,
        train: None,
        peak_rss_bytes: machine::peak_rss_bytes(),
        seconds_total: started.elapsed().as_secs_f64(),
        eval_split: None,
        eval: None,
    };
    let save_failed_step = |failed: &FailedStep<'_>| techniques::save_failed_step(failed, &output);
    let room = (total_steps as u64).saturating_mul(METRICS_LINE).min(METRICS_RESERVED);
    let after = from.as_ref().map(|found| found.step);
    if after.is_none() {
        checkpoints.clear()?;
    }
    let (live, metrics) = LiveFiles::begin(
        &files,
        from.as_ref().map(|found| &found.state),
        room,
        &serde_json::to_string_pretty(&report)?,
    )?;
    let mut observer = RunObserver {
        metrics: LineWriter::new(metrics),
        metrics_path: output.join(METRICS_FILE),
        progress: Progress::new("train", total_steps),
        interrupts: &interrupts,
        steps: 0,
        warnings: Vec::new(),
        failed_step: None,
        save_failed_step: &save_failed_step,
    };
    let save_every = arguments.checkpointing.save_every();
    let saving = Saving { checkpoints: &mut checkpoints, every: save_every, from };
    let rows = vitrine_train::Rows { train: &step_tokens, validation: during };
    let mut tensorboard = TensorBoard::start(&output, after);
    tensorboard.settings(&report.settings);
    let mut tracer = Tracer { folder: output.clone() };
    let mut observers: Vec<&mut dyn Observer> = vec![&mut observer, &mut tensorboard, &mut tracer];
    let trained =
        vitrine_train::train(&mut model, rows, &report.settings.train, Some(saving), &mut observers);
    let RunObserver { steps: steps_seen, warnings, failed_step, .. } = observer;
    report.training_warnings = warnings;
    let train = match trained {
        Ok(train) => train,
        Err(error) => {
            let has_checkpoint = checkpoints.steps().is_ok_and(|steps| !steps.is_empty());
            let interrupted = matches!(error, TrainError::Interrupted { .. });
            // What diverged would diverge again.
            if has_checkpoint && !interrupted && !matches!(error, TrainError::NonFinite { .. }) {
                note(format!("the run goes on from its last checkpoint with: {}", resume_command(&output)));
            }
            let failure = match &error {
                TrainError::Interrupted { step, total, checkpoint: Some(_) } => Failure::Run(format!(
                    "interrupted after step {step} of {total}, which is saved; go on with: {}",
                    resume_command(&output)
                )),
                TrainError::NonFinite { .. } => Failure::Run(
                    [error.to_string()].into_iter().chain(failed_step).collect::<Vec<_>>().join("; "),
                ),
                _ => failed(error, &model),
            };
            let replaces = output.join(vitrine_bert::CONFIG_FILE).exists();
            if !has_checkpoint && (steps_seen == 0 || replaces) {
                live.abandon();
                tensorboard.abandon();
            } else {
                report.state = if interrupted { State::Interrupted } else { State::Failed };
                report.error = (!interrupted).then(|| failure.to_string());
                report.resume = report.resume.filter(|_| has_checkpoint);
                report.seconds_total = started.elapsed().as_secs_f64();
                // The error that led here is told; there is no better one.
                let _ = files.rewrite(REPORT_FILE, &serde_json::to_string_pretty(&report)?);
            }
            return Err(failure);
        }
    };
    let adapter =
        techniques::adapter(&settings.train.techniques, arguments, model.parameters(), model.config())?;
    settings.train.techniques.finish(&mut model)?;
    // Hours of training are not lost to one weight that does not fit: it is saved in f32, and the run ends with the error.
    let rounded = model.save_as(arguments.save_dtype.dtype());
    note(format!("trained in {}, {:.0} tokens/s", duration(train.seconds), train.tokens_per_second));
    if train.stopped_early {
        note(format!("stopped after step {} of {total_steps}: no better evaluation came", train.steps));
    }
    if let Some(best) = train.best {
        note(format!(
            "the model of step {} is kept: its {} of {:.4} is the best",
            best.step, best.by, best.value
        ));
    }

    report.state = State::Finished;
    report.resume = None;
    report.train = Some(train);
    report.peak_rss_bytes = machine::peak_rss_bytes();
    report.seconds_total = started.elapsed().as_secs_f64();
    // Model, report and metrics of one run appear together, and replace those of another together.
    let text = serde_json::to_string_pretty(&report)?;
    let metrics = output.join(METRICS_FILE);
    let save = |files: &mut StagedFiles| -> Result<(), BertError> {
        model.save_into(files, &tokenizer)?;
        files.write_text(REPORT_FILE, &text)?;
        files.write_text(OPTIONS_FILE, &options)?;
        if metrics.exists() {
            files.adopt(METRICS_FILE, &metrics)?;
        }
        files.commit()
    };
    if let Err(error) = save(&mut files) {
        let failure = format!("{error}; {}", kept_elsewhere(&output, save));
        report.state = State::Failed;
        report.error = Some(failure.clone());
        // Refused, as it should be, where another model is by now.
        let _ = files.rewrite(REPORT_FILE, &serde_json::to_string_pretty(&report)?);
        return Err(Failure::Run(failure));
    }
    live.finished();
    techniques::save_adapter(adapter.as_ref(), &output)?;
    tensorboard.finished();
    if matches!(save_every, SaveEvery::Time(_)) {
        // They were there for the case that the run does not come this far; nobody has asked for them.
        checkpoints.clear()?;
    }
    if interrupts.seen() {
        return Err(Failure::Run(format!("interrupted: saved in {}, but not evaluated", output.display())));
    }
    drop(interrupts);
    let mut rewritten = Ok(());
    if let Some((name, rows)) = at_the_end {
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
        report.eval_split = Some(name);
        let eval = match held_out {
            Some((_, rows)) => eval.quoting(rows),
            None => eval,
        };
        tensorboard.evaluation(name, train.steps, &eval);
        report.eval = Some(eval);
        report.peak_rss_bytes = machine::peak_rss_bytes();
        report.seconds_total = started.elapsed().as_secs_f64();
        let text = serde_json::to_string_pretty(&report)?;
        // What was found is printed first, whatever becomes of the file.
        rewritten = files.rewrite(REPORT_FILE, &text);
    }
    let published = publish::publish(&files, model.config(), report.eval.as_ref());
    if arguments.json {
        json(&report)?;
    } else {
        if let Some(eval) = &report.eval {
            report::print_evaluation(eval)?;
        }
        if arguments.data == DataName::Embedded {
            show_sentences(&model, &tokenizer)?;
        }
    }
    rewritten
        .map_err(|error| Failure::Run(format!("{error}; the model is saved, without this evaluation")))?;
    published.map_err(|error| Failure::Run(format!("{error}; the model is saved, without its report")))?;
    rounded.map_err(|error| {
        Failure::Run(format!("--save-dtype: {error}; it is saved in f32, in {}", output.display()))
    })?;
    note(format!("saved in {}", output.display()));
    what_next(&output);
    Ok(())
}

/// Which model and which data are in use.
fn start_of_run(arguments: &Train, model: &SequenceClassifier) {
    let what = match &arguments.model {
        ModelName::Embedded(_) => ", embedded in this program",
        ModelName::Scratch => ", random weights",
        ModelName::Path(_) => "",
    };
    let config = model.config();
    let (layers, width) = (config.num_hidden_layers, config.hidden_size);
    note(format!(
        "model {}{what}: {} parameters, {layers} layers of width {width}",
        arguments.model,
        thousands(model.parameters().numel())
    ));
    let what = if arguments.data == DataName::Embedded { ", generated short reviews" } else { "" };
    note(format!("data {}{what}", arguments.data));
}

/// Refuses settings of evaluation and measurement that cannot be followed, and warns of figures that will be missing or too good.
fn look_at_evaluation(
    settings: &TrainSettings,
    total_steps: usize,
    has_validation: bool,
    has_test: bool,
) -> Outcome {
    if !has_validation && !has_test {
        warn(
            "no rows to evaluate on: nothing will be; name some with --test-data, or hold some back with --validation-split",
        );
    }
    if let Some(step) = settings.measurements.profile_step.filter(|&step| step > total_steps) {
        return Err(Failure::Usage(format!("--profile-step {step}: the run has {total_steps} steps")));
    }
    if settings.validation.eval_every.is_some() && !has_validation && !has_test {
        return Err(Failure::Usage(
            "--eval-every, --patience and --keep-best need rows to evaluate on: use --validation-split or --test-data".into(),
        ));
    }
    if settings.validation.keep_best.is_some() && !has_validation {
        warn(
            "the best model is chosen by the test rows, so its figures on them are too good; --validation-split holds back others",
        );
    }
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

/// Everything on which a run's result depends. Files are told apart by their content, whatever they are called.
fn determined_by(
    settings: &Settings,
    resolved: &Resolved,
    model: &SequenceClassifier,
    rows: &RowsReport,
) -> Outcome<Map<String, Value>> {
    let mut all = settings.train.mathematics();
    // Without rows held back, evaluations during training are of the test rows.
    let is_of_test = settings.train.validation.eval_every.is_some() && rows.validation.is_none();
    all.extend([
        ("dtype".into(), resolved.dtype.clone().into()),
        ("max_length".into(), settings.max_length.into()),
        ("truncate".into(), settings.truncate.clone().into()),
        ("initial_weights".into(), fingerprint(model.parameters())?.into()),
        ("train_rows".into(), rows.train_hash.clone().into()),
        ("validation_rows".into(), rows.validation_hash.clone().into()),
        ("test_rows".into(), rows.test_hash.clone().filter(|_| is_of_test).into()),
    ]);
    Ok(all)
}

fn show_sentences(model: &SequenceClassifier, tokenizer: &Tokenizer) -> Outcome {
    let names = model.config().label_names();
    for (text, prediction) in corpus::UNSEEN.iter().zip(predict(model, tokenizer, &corpus::UNSEEN)?) {
        let best = prediction.ranked()[0];
        line(format!("{:<8} {:.4}  {text}", printable(&names[best]), prediction.probabilities[best]))?;
    }
    Ok(())
}
