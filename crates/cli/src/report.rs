//! Pieces that `train` and `eval` share: sampling, limits, progress, and results for people.

use crate::args::{Samples, TokenOptions};
use crate::output::{self, Align, Failure, Outcome, Style, detail, line, paint, printable, thousands, warn};
use crate::progress::{Progress, duration};
use std::time::Instant;
use vitrine_bert::{ModelConfig, Tokenizer, Truncation};
use vitrine_train::data::Dataset;
use vitrine_train::data::sampling::{Sample, stratified};
use vitrine_train::{CacheUse, Evaluation, TokenizedDataset};

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

/// The tokenizer that cuts long texts as was asked, or as the model remembers. Where these differ and the model `is_trained`, that
/// is said: its figures are for the other.
pub fn truncating(tokenizer: Tokenizer, asked: Option<Truncation>, is_trained: bool) -> Tokenizer {
    let remembered = tokenizer.truncation();
    let Some(asked) = asked else { return tokenizer };
    if is_trained && asked != remembered {
        warn(format!("--truncate {asked}, and the model was trained with {remembered}"));
    }
    tokenizer.with_truncation(asked)
}

/// Which part of a long text is read, where it is not its beginning.
pub fn what_stays(tokenizer: &Tokenizer) -> String {
    match tokenizer.truncation() {
        Truncation::Head => String::new(),
        other => format!(" ({other} stays)"),
    }
}

/// Which tokens of a long text were read: so many, `[CLS]` and `[SEP]` included.
pub fn read_tokens(tokenizer: &Tokenizer, tokens: usize) -> String {
    match tokenizer.truncation() {
        Truncation::Head => format!("the first {tokens} tokens"),
        Truncation::Tail => format!("the last {tokens} tokens"),
        Truncation::HeadTail => {
            let room = tokens.saturating_sub(2);
            let head = Truncation::HeadTail.head(room);
            format!("the first {head} and the last {} tokens", room - head)
        }
    }
}

/// The tokens of rows, from the cache if there is one.
pub fn tokenized(
    rows: &Dataset,
    tokenizer: &Tokenizer,
    max_length: usize,
    options: &TokenOptions,
) -> Outcome<TokenizedDataset> {
    let started = Instant::now();
    let Some(cache) = options.cache() else {
        return Ok(TokenizedDataset::new(rows, tokenizer, max_length)?);
    };
    let (tokens, used) = TokenizedDataset::cached(rows, tokenizer, max_length, &cache)?;
    let what = match used {
        CacheUse::Hit => format!("from {}", cache.folder().display()),
        CacheUse::Stored => format!("made, and kept in {}", cache.folder().display()),
        CacheUse::Small => "made".into(),
        CacheUse::NotStored { why } => format!("made, and not kept: {why}"),
    };
    let seconds = started.elapsed().as_secs_f64();
    detail(format!("tokens of {} rows: {what} ({seconds:.3} s)", thousands(rows.len())));
    Ok(tokens)
}

/// Shows an evaluation of so many rows as it goes.
pub fn eval_progress(rows: usize) -> impl FnMut(usize) -> vitrine_train::Result<()> {
    let mut progress = Progress::new("eval", rows);
    move |done| {
        progress.set(done, || format!("{:.0} %", 100.0 * done as f64 / rows as f64));
        Ok(())
    }
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
    let auroc = eval.auroc.map_or(String::new(), |auroc| format!("  auroc {auroc:.4}"));
    let (low, high) = eval.f1_interval;
    let calibration = eval.calibration.expected_calibration_error;
    line(format!("f1 95 % interval {low:.4} to {high:.4}{auroc}  calibration error {calibration:.4}"))?;
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
