//! `vitrine baseline`: the bag-of-words classifier on the rows of a training run, alone or beside the run's model.

mod against;

use super::start_threads;
use super::train::{RowChoice, Rows, recipe_samples};
use crate::args::{Baseline, Samples};
use crate::data_summary;
use crate::machine::{Machine, peak_rss_bytes};
use crate::names::DataName;
use crate::output::{self, Align, Failure, Outcome, line, note, printable, table, thousands, warn};
use crate::progress::duration;
use crate::report;
use against::Against;
use serde::Serialize;
use std::time::Instant;
use vitrine_train::Evaluation;
use vitrine_train::baseline::{BagOfWords, BagOfWordsSettings, Fitted, Term};
use vitrine_train::data::Dataset;

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    command: &'static str,
    settings: BagOfWordsSettings,
    data: String,
    train_rows: usize,
    train_hash: String,
    eval_split: &'static str,
    eval_rows: usize,
    eval_hash: String,
    data_warnings: Vec<String>,
    notes: Vec<String>,
    fit: Fitted,
    eval: Evaluation,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    most_telling: Vec<Telling>,
    /// The run's model on the same rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<Against>,
    seconds_total: f64,
    machine: Machine,
    peak_rss_bytes: Option<u64>,
}

/// The terms that speak most for a class.
#[derive(Serialize)]
struct Telling {
    class: String,
    terms: Vec<Term>,
}

/// Runs the command.
pub fn run(arguments: &Baseline) -> Outcome {
    let started = Instant::now();
    start_threads(arguments.threads.map_or(0, usize::from))?;
    let finished = arguments.run.as_deref().map(against::read).transpose()?;
    let rows = match &finished {
        Some(run) => run.rows(arguments)?,
        None => choice(arguments).rows()?,
    };
    let Rows { train, validation, test, notes } = rows;
    let held_out = [("test", test), ("validation", validation)];
    let Some((split, held_out)) = held_out.into_iter().find_map(|(name, rows)| Some((name, rows?))) else {
        let message =
            "no rows to evaluate on; name some with --test-data, or hold some back with --validation-split";
        return Err(Failure::Run(message.into()));
    };
    let (train_hash, eval_hash) = (train.sha256(), held_out.sha256());
    if let Some(run) = &finished {
        run.check(split, &train_hash, &eval_hash)?;
    }
    notes.iter().for_each(note);
    let data_warnings = data_summary::warnings(Some(&train), Some((split, &held_out)));
    data_warnings.iter().for_each(warn);
    describe(&train, split, &held_out);

    let settings = arguments.settings();
    let (model, fit) = BagOfWords::fit(&train, &settings)?;
    note(format!(
        "{} {}, fitted in {} ({} steps)",
        thousands(fit.features),
        terms(&settings),
        duration(fit.seconds),
        fit.convergence.iterations
    ));
    if !fit.convergence.converged {
        warn(
            "the fit ended before its optimum was reached as closely as wanted; a smaller --c is easier to fit",
        );
    }
    let eval = model.evaluate(&held_out)?;
    let most_telling = arguments.most_telling.map_or(Vec::new(), |count| model.most_telling(count));
    let report = Report {
        command: "baseline",
        settings,
        data: train.source.clone(),
        train_rows: train.len(),
        train_hash,
        eval_split: split,
        eval_rows: held_out.len(),
        eval_hash,
        data_warnings,
        notes,
        fit,
        run: finished.map(|run| run.compare(&eval)).transpose()?,
        eval,
        most_telling: most_telling.into_iter().map(|(class, terms)| Telling { class, terms }).collect(),
        seconds_total: started.elapsed().as_secs_f64(),
        machine: Machine::look(),
        peak_rss_bytes: peak_rss_bytes(),
    };
    if arguments.json {
        return output::json(&report);
    }
    match &report.run {
        None => report::print_evaluation(&report.eval)?,
        Some(run) => run.print(&report.eval, terms(&settings), report.fit.seconds)?,
    }
    report.most_telling.iter().try_for_each(show)
}

/// The rows that the options name.
fn choice(arguments: &Baseline) -> RowChoice<'_> {
    let (train, test) = recipe_samples(arguments.recipe);
    let count = |asked: Option<Samples>, default: Option<usize>| {
        asked.unwrap_or(default.map_or(Samples::All, Samples::Count))
    };
    RowChoice {
        data: arguments.data.clone().unwrap_or(DataName::Embedded),
        test_data: arguments.test_data.as_deref(),
        options: arguments.columns.options(None),
        train_samples: count(arguments.train_samples, train),
        test_samples: count(arguments.test_samples, test),
        sample_seed: arguments.sample_seed.unwrap_or(42),
        validation_split: arguments.validation_split,
    }
}

/// What the terms are called.
fn terms(settings: &BagOfWordsSettings) -> &'static str {
    if settings.ngrams == 1 { "words" } else { "words and pairs" }
}

/// Says which rows are used.
fn describe(train: &Dataset, split: &str, held_out: &Dataset) {
    let columns =
        [("split", Align::Left), ("rows", Align::Right), ("classes", Align::Left), ("source", Align::Left)];
    let rows = [("train", train), (split, held_out)].map(|(name, rows)| {
        vec![name.to_owned(), thousands(rows.len()), data_summary::classes(rows), printable(&rows.source)]
    });
    note(table(&columns, &rows));
}

/// Prints the terms that speak most for a class.
fn show(telling: &Telling) -> Outcome {
    let terms: Vec<String> =
        telling.terms.iter().map(|term| format!("{} {:+.2}", printable(&term.term), term.weight)).collect();
    line(format!("{}: {}", printable(&telling.class), terms.join(", ")))
}
