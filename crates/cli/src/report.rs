//! Pieces that `train` and `eval` share: sampling, limits, progress, and results for people.

use crate::args::Samples;
use crate::output::{self, Align, Failure, Outcome, Style, line, paint, printable};
use crate::progress::{Progress, duration};
use vitrine_bert::ModelConfig;
use vitrine_train::Evaluation;
use vitrine_train::data::Dataset;
use vitrine_train::data::sampling::{Sample, stratified};

/// Classes that a table on a terminal has room for.
const SHOWN_CLASSES: usize = 12;

/// The longest input of a run: what was asked, within what the model can take.
pub fn max_length(asked: Option<usize>, config: &ModelConfig) -> Outcome<usize> {
    let limit = config.max_length();
    match asked {
        None => Ok(limit),
        Some(length) if length < 3 => Err(Failure::Usage(format!(
            "--max-length {length} leaves no room for text between [CLS] and [SEP]; use 3 or more"
        ))),
        Some(length) if length > limit => Err(Failure::Usage(format!(
            "--max-length {length} is more than the model's {limit} positions; use {limit} or less"
        ))),
        Some(length) => Ok(length),
    }
}

/// The rows asked for: all, or a balanced draw as pandas makes it.
pub fn sampled(rows: &Dataset, samples: Samples, seed: u32) -> Dataset {
    let sample = match samples {
        Samples::All => Sample::All,
        Samples::Count(total) => Sample::Total(total),
    };
    rows.subset(&stratified(rows, sample, seed))
}

/// Shows an evaluation of so many rows as it goes.
pub fn eval_progress(rows: usize) -> impl FnMut(usize) {
    let mut progress = Progress::new("eval", rows);
    move |done| progress.set(done, || format!("{:.0} %", 100.0 * done as f64 / rows as f64))
}

/// Prints what an evaluation found.
pub fn print_evaluation(eval: &Evaluation) -> Outcome {
    let m = &eval.metrics;
    let (low, high) = eval.accuracy_interval;
    line(format!(
        "accuracy {}  (95 % interval {low:.4} to {high:.4}, {} rows)",
        paint(&std::io::stdout(), Style::Bold, &format!("{:.4}", m.accuracy)),
        m.examples
    ))?;
    let of = match &m.positive_class {
        Some(class) => format!("of `{}`", printable(class)),
        None => "mean over the classes that occur".to_owned(),
    };
    line(format!(
        "f1 {:.4}  precision {:.4}  recall {:.4} ({of})  loss {:.4}",
        m.f1, m.precision, m.recall, m.loss
    ))?;
    // Rows and columns of classes that do not occur would be zero.
    let occurs = |class: &usize| {
        m.confusion_matrix[*class].iter().any(|&n| n > 0)
            || m.confusion_matrix.iter().any(|row| row[*class] > 0)
    };
    let all = m.per_class.len();
    let shown: Vec<usize> =
        if all <= SHOWN_CLASSES { (0..all).collect() } else { (0..all).filter(occurs).collect() };
    let shown = &shown[..shown.len().min(SHOWN_CLASSES)];
    let names: Vec<String> = m.per_class.iter().map(|class| printable(&class.class)).collect();
    let columns: Vec<(&str, Align)> = [("true \\ predicted", Align::Left)]
        .into_iter()
        .chain(shown.iter().map(|&class| (names[class].as_str(), Align::Right)))
        .chain([("f1", Align::Right)])
        .collect();
    let rows: Vec<Vec<String>> = shown
        .iter()
        .map(|&class| {
            let counts = shown.iter().map(|&predicted| m.confusion_matrix[class][predicted].to_string());
            [names[class].clone()]
                .into_iter()
                .chain(counts)
                .chain([format!("{:.4}", m.per_class[class].f1)])
                .collect()
        })
        .collect();
    line(output::table(&columns, &rows))?;
    if shown.len() < all {
        line(format!("({} of {all} classes are shown; --json has them all)", shown.len()))?;
    }
    line(format!("evaluated in {}, {:.0} tokens/s", duration(eval.seconds), eval.tokens_per_second))
}
