//! `vitrine pretrain`: pretrains a masked language model on texts without labels, measures it on held-out ones, and saves it.

mod log;
mod start;

use super::{Resolved, claim_output, resolve, resume_command};
use crate::args::Pretrain;
use crate::hub::name_of;
use crate::interrupt::Interrupts;
use crate::machine::{self, Machine};
use crate::output::{Failure, Outcome, line, next, note, quoted_path, thousands};
use crate::progress::{Progress, duration};
use log::{Log, Logged};
use serde::Serialize;
use serde_json::Value;
use start::{Start, fits_output, located, start};
use std::time::Instant;
use vitrine_bert::{BertError, MaskedLm, StagedFiles, write_atomically};
use vitrine_tensor::DType;
use vitrine_train::TrainError;
use vitrine_train::checkpoint::{Checkpoints, fingerprint};
use vitrine_train::pretrain::{
    HiddenTeacher, MaskedEvaluation, PretrainData, PretrainProgress, PretrainSettings, PretrainSummary,
    pretrain,
};

/// What happened, as one JSON object.
const REPORT_FILE: &str = "run.json";
/// Checkpoints that are kept.
const KEPT: usize = 2;
/// Steps whose speed decides how many there are room for, after some that warm up.
const MEASURED: usize = 6;
/// Steps before them.
const WARMING: usize = 2;

/// `run.json`.
#[derive(Serialize)]
struct RunReport<'a> {
    command: &'static str,
    state: &'static str,
    /// The command that goes on.
    resume: String,
    settings: &'a Settings,
    resolved: &'a Resolved,
    machine: Machine,
    data: &'a DataReport,
    notes: &'a [String],
    train: Option<PretrainSummary>,
    eval: Option<MaskedEvaluation>,
    peak_rss_bytes: Option<u64>,
}

/// The options after defaults have filled the gaps.
#[derive(Clone, Serialize)]
struct Settings {
    data: Vec<String>,
    config: String,
    init_from: Option<String>,
    init_layers: Option<Vec<usize>>,
    prune_vocab: Option<usize>,
    distill_from: Option<String>,
    distill_hidden: Option<f64>,
    save_dtype: String,
    held_out: f64,
    dropout: f64,
    #[serde(flatten)]
    train: PretrainSettings,
}

/// What the texts came to.
#[derive(Serialize)]
struct DataReport {
    documents: usize,
    held_out_documents: usize,
    tokens: usize,
    vocabulary: usize,
    train_pieces: usize,
    held_out_pieces: usize,
    epoch_tokens: usize,
    unigram_entropy: f64,
    sha256: String,
}

/// Runs the command.
pub fn run(arguments: &Pretrain) -> Outcome {
    let started = Instant::now();
    let resolved = resolve(&arguments.compute)?;
    fits_output(arguments)?;
    if arguments.resume && log::state(&arguments.output).as_deref() == Some("finished") {
        note(format!("{}: this run has finished; nothing to resume", arguments.output.display()));
        return Ok(());
    }
    note(resolved.line());
    let arguments = &located(arguments)?;
    let Start { mut model, tokenizer, data, mut notes, dropout } = start(arguments, &resolved)?;
    let initial = fingerprint(model.parameters())?;
    let documents = data.documents();
    let report = DataReport {
        documents: documents.len(),
        held_out_documents: documents.held_out(),
        tokens: documents.tokens(),
        vocabulary: tokenizer.vocabulary_size(),
        train_pieces: data.train().len(),
        held_out_pieces: data.held_out().len(),
        epoch_tokens: data.epoch_tokens(),
        unigram_entropy: data.unigram_entropy(),
        sha256: documents.sha256().to_owned(),
    };
    say(&report, arguments, &model);
    notes.iter().for_each(note);

    let needed = {
        let config = model.config();
        let lengths = vec![arguments.max_length; (arguments.batch_tokens / arguments.max_length).max(1)];
        let logits =
            3.0 * 4.0 * arguments.batch_tokens as f64 * arguments.mask_share * config.vocab_size as f64;
        16 * model.parameters().numel() as u64 + config.cost(&lengths).activation_bytes + logits as u64
    };
    super::check_memory(resolved.place, needed, || format!("--batch-tokens {}", arguments.batch_tokens))?;
    model.to_device(resolved.place)?;
    model.compute_in(resolved.compute)?;
    let settings = settings(arguments, &data, &model, &resolved)?;
    let train = &settings.train;
    train.schedule().check(train.lr).iter().for_each(crate::output::warn);

    let interrupts = Interrupts::watch();
    let mut files = claim_output(&arguments.output, arguments.resume || arguments.overwrite)?;
    let output = files.folder().to_owned();
    let mut checkpoints =
        Checkpoints::new(&output, KEPT, decisive(&settings, &data, &report, &initial, &resolved)?)?;
    let mut optimizer = train.optimizer();
    let mut progress = PretrainProgress::default();
    if arguments.resume {
        let (found, damaged) = checkpoints.newest::<PretrainProgress>()?;
        damaged.iter().for_each(crate::output::warn);
        match found {
            Some(found) => {
                found.restore(model.parameters_mut(), &mut optimizer)?;
                progress = found.state;
                note(format!(
                    "resumed after step {} of {}",
                    thousands(progress.step),
                    thousands(train.steps)
                ));
            }
            None => note("--resume: there is no checkpoint yet, so the run starts afresh"),
        }
    } else {
        checkpoints.clear()?;
    }
    // A full disk shows now, not when hours of training are to be saved.
    model.save_dropout(dropout.0, dropout.1);
    model.reserve_in(&mut files, &tokenizer)?;
    let write_report = |state, train, eval, notes: &[String]| -> Outcome<String> {
        Ok(serde_json::to_string_pretty(&RunReport {
            command: "pretrain",
            state,
            resume: resume_command(&output),
            settings: &settings,
            resolved: &resolved,
            machine: Machine::look(),
            data: &report,
            notes,
            train,
            eval,
            peak_rss_bytes: machine::peak_rss_bytes(),
        })?)
    };
    let report_path = output.join(REPORT_FILE);
    write_atomically(&report_path, write_report("running", None, None, &notes)?.as_bytes())?;
    let first = progress.step;
    let mut log = Log::open(&output, progress.step, &mut checkpoints, &interrupts, arguments.save_every)?;
    note(format!(
        "{} steps of at most {} tokens, {:.2} passes over the texts",
        thousands(train.steps),
        thousands(train.batch_tokens),
        train.steps as f64 / data.steps(1, train.batch_tokens, train.seed) as f64
    ));
    let trained = pretrain(&mut model, &mut optimizer, &data, train, &mut progress, &mut log);
    let Logged { last, .. } = log.finish();
    let summary = match trained {
        Ok(summary) => summary,
        Err(error) => {
            let state =
                if matches!(error, TrainError::Interrupted { .. }) { "interrupted" } else { "failed" };
            let text = write_report(state, None, last, &notes)?;
            // What went wrong first is what matters.
            let _ = write_atomically(&report_path, text.as_bytes());
            return Err(match error {
                TrainError::Interrupted { step, total, .. } => Failure::Run(format!(
                    "interrupted after step {step} of {total}; go on with: {}",
                    resume_command(&output)
                )),
                error => error.into(),
            });
        }
    };
    let dtype = arguments.save_dtype.dtype();
    model.save_as(dtype).map_err(|error| {
        let kept = checkpoints.path(progress.step);
        let kept = kept.display();
        Failure::Run(format!("--save-dtype: {error}: --resume saves it; the weights are safe in {kept}"))
    })?;
    if dtype != DType::F32 {
        notes.push(format!("saved in {dtype}, and measured in f32"));
    }
    notes.push(format!("finished after {} in this process", duration(started.elapsed().as_secs_f64())));
    let text = write_report("finished", Some(summary), last, &notes)?;
    let metrics = log::metrics(&output)?;
    let save = |files: &mut StagedFiles| -> Result<(), BertError> {
        model.save_into(files, &tokenizer)?;
        files.write_text(REPORT_FILE, &text)?;
        files.write_text(log::METRICS_FILE, &metrics)?;
        files.commit()
    };
    save(&mut files).map_err(|error| {
        let kept = checkpoints.path(progress.step);
        Failure::Run(format!(
            "{error}; the weights are safe in {}: --resume saves them again",
            kept.display()
        ))
    })?;
    checkpoints.clear()?;
    if arguments.json {
        line(&text)?;
    } else if let Some(eval) = last {
        line(format!(
            "held-out loss {:.4}, accuracy {:.4} of {} hidden tokens (knowing only how frequent tokens are: loss {:.4})",
            eval.loss,
            eval.accuracy,
            thousands(eval.masked),
            report.unigram_entropy
        ))?;
    }
    let steps = progress.step - first;
    note(format!(
        "{} steps, {} tokens in all, {:.0} tokens/s; saved in {}",
        thousands(steps),
        thousands(summary.tokens),
        summary.tokens_per_second,
        output.display()
    ));
    let folder = quoted_path(&output);
    next("next:", format!("vitrine fill-mask --model {folder} \"the movie was [MASK].\""));
    next("     ", format!("vitrine train --model {folder} --data DATA"));
    Ok(())
}

fn say(report: &DataReport, arguments: &Pretrain, model: &MaskedLm) {
    note(format!(
        "{} texts, {} held out, {} tokens; {} pieces of at most {} tokens",
        thousands(report.documents),
        thousands(report.held_out_documents),
        thousands(report.tokens),
        thousands(report.train_pieces),
        arguments.max_length
    ));
    let config = model.config();
    note(format!(
        "{} tokens in the vocabulary; {} layers of width {}, {} parameters",
        thousands(report.vocabulary),
        config.num_hidden_layers,
        config.hidden_size,
        thousands(model.parameters().numel())
    ));
    if report.held_out_pieces == 0 {
        crate::output::warn("no text is held out: the model will not be measured");
    }
}

/// The settings of the run. Where minutes were given, a few steps of a copy of the model are measured first; a resumed run has the steps
/// that it began with.
fn settings(
    arguments: &Pretrain,
    data: &PretrainData,
    model: &MaskedLm,
    resolved: &Resolved,
) -> Outcome<Settings> {
    let name = |path: &std::path::PathBuf| name_of(path);
    let mut settings = Settings {
        data: arguments.data.iter().map(name).collect(),
        config: arguments.config.clone().unwrap_or_else(|| "default".into()),
        init_from: arguments.init_from.as_ref().map(ToString::to_string),
        init_layers: arguments.init_layers.clone(),
        prune_vocab: arguments.prune_vocab,
        distill_from: arguments.distill_from.as_ref().map(ToString::to_string),
        distill_hidden: data.teacher().map(HiddenTeacher::weight),
        save_dtype: arguments.save_dtype.dtype().to_string(),
        held_out: arguments.held_out,
        dropout: arguments.dropout,
        train: PretrainSettings {
            steps: 1,
            batch_tokens: arguments.batch_tokens,
            max_length: arguments.max_length,
            mask_share: arguments.mask_share,
            lr: arguments.lr,
            schedule: arguments.schedule,
            warmup_steps: 0,
            weight_decay: arguments.weight_decay,
            beta2: 0.98,
            eps: 1e-6,
            max_grad_norm: arguments.max_grad_norm,
            seed: arguments.seed,
            eval_every: arguments.eval_every,
            checkpoint_layers: arguments.checkpoint_layers,
        },
    };
    let steps = match (arguments.steps, arguments.minutes) {
        (Some(steps), _) => steps,
        (None, Some(minutes)) => match log::began_with(&arguments.output).filter(|_| arguments.resume) {
            Some(steps) => steps,
            None => {
                let seconds = seconds_a_step(&settings.train, data, model, resolved)?;
                let steps = (60.0 * minutes / seconds) as usize;
                note(format!(
                    "{seconds:.2} s a step: {} steps take about {minutes} minutes",
                    thousands(steps.max(1))
                ));
                steps.max(1)
            }
        },
        (None, None) => data.steps(arguments.epochs.unwrap_or(1), arguments.batch_tokens, arguments.seed),
    };
    settings.train.steps = steps;
    settings.train.warmup_steps =
        arguments.warmup_steps.unwrap_or_else(|| (arguments.warmup_ratio * steps as f64).ceil() as usize);
    Ok(settings)
}

/// The seconds that a step of such a model takes, measured on another one.
fn seconds_a_step(
    settings: &PretrainSettings,
    data: &PretrainData,
    model: &MaskedLm,
    resolved: &Resolved,
) -> Outcome<f64> {
    let mut model = MaskedLm::random(model.config().clone(), settings.seed)?;
    model.to_device(resolved.place)?;
    model.compute_in(resolved.compute)?;
    let settings = PretrainSettings { steps: WARMING + MEASURED, eval_every: usize::MAX, ..settings.clone() };
    let (mut timer, mut progress) = (log::Timer::default(), PretrainProgress::default());
    let data = data.without_held_out();
    pretrain(&mut model, &mut settings.optimizer(), &data, &settings, &mut progress, &mut timer)?;
    Ok(timer.median_after(WARMING))
}

/// What the result depends on: a checkpoint is only gone on from with the same.
fn decisive(
    settings: &Settings,
    data: &PretrainData,
    report: &DataReport,
    initial: &str,
    resolved: &Resolved,
) -> Outcome<serde_json::Map<String, Value>> {
    let Value::Object(mut map) = serde_json::to_value(&settings.train)? else {
        return Err(Failure::Run("internal: settings are an object".into()));
    };
    for name in ["eval_every", "checkpoint_layers"] {
        map.remove(name);
    }
    map.insert("dropout".into(), settings.dropout.into());
    map.insert("dtype".into(), resolved.dtype.clone().into());
    if let Some(teacher) = data.teacher() {
        map.insert("distill_hidden".into(), teacher.weight().into());
        map.insert("teacher_sha256".into(), fingerprint(teacher.model().parameters())?.into());
    }
    map.insert("tokens_sha256".into(), report.sha256.clone().into());
    map.insert("train_pieces".into(), report.train_pieces.into());
    map.insert("initial_weights_sha256".into(), initial.into());
    Ok(map)
}
