//! What a person reads first: one sentence, and numbers as a person writes them.

use crate::Run;
use crate::run::Evaluation;

/// A share as a percentage, with a space that does not break, and with one digit; with two near both ends, where one digit says little.
pub fn percent(share: f64) -> String {
    let value = 100.0 * share;
    let digits = if (0.0..1.0).contains(&value) || (99.0..100.0).contains(&value) { 2 } else { 1 };
    if share == 0.0 || share == 1.0 {
        format!("{value:.0}\u{a0}%")
    } else {
        format!("{value:.digits$}\u{a0}%")
    }
}

/// An interval of shares: "91.8 to 92.4 %".
pub fn percent_interval((low, high): (f64, f64)) -> String {
    let (low, high) = (percent(low), percent(high));
    format!("{} to {high}", low.trim_end_matches("\u{a0}%"))
}

/// Seconds as a person says them.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() || s < 0.0 => "–".into(),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => {
            let minutes = (s / 60.0).round() as u64;
            format!("{} h {} min", minutes / 60, minutes % 60)
        }
    }
}

/// A count with thousands separated.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The last part of a path or name.
fn last_part(path: &str) -> &str {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
    // `owner/name@COMMIT` is of the Hugging Face hub.
    match last.rsplit_once('@') {
        Some((name, commit)) if commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            name
        }
        _ => last,
    }
}

/// What was trained: the name of the model it started from.
pub fn model(run: &Run) -> String {
    match run.setting("model").as_deref() {
        None => "a model".into(),
        Some("embedded") => "Vitrine's embedded BERT".into(),
        Some("scratch") => "a small BERT from scratch".into(),
        Some(path) => last_part(path).to_owned(),
    }
}

/// On what: the name of the data.
pub fn data(run: &Run) -> String {
    match run.setting("data").as_deref() {
        None => "its data".into(),
        Some("embedded") => "the embedded corpus".into(),
        Some(path) => last_part(path).to_owned(),
    }
}

/// What was trained, on what, how good, how long: one sentence.
pub fn headline(run: &Run) -> String {
    let rows = run.training_split().map(|split| format!("{} rows of ", thousands(split.rows)));
    let trained =
        format!("{}, trained on {}{}", capitalized(&model(run)), rows.unwrap_or_default(), data(run));
    let took = run.summary.train.as_ref().map(|train| {
        let epochs =
            run.setting("epochs").map(|n| format!("{n} epoch{} in ", if n == "1" { "" } else { "s" }));
        format!(", after {}{}", epochs.unwrap_or_default(), duration(train.seconds))
    });
    match run.evaluation() {
        Some(evaluation) => format!("{trained}, {}{}.", how_good(evaluation), took.unwrap_or_default()),
        None => format!("{trained}, has not been evaluated{}.", took.unwrap_or_default()),
    }
}

/// "classifies 92.1 % of 25,000 rows correctly (95 % interval ..)".
fn how_good(evaluation: &Evaluation) -> String {
    let interval = evaluation
        .accuracy_interval
        .map(|interval| format!(" (95\u{a0}% interval {})", percent_interval(interval)));
    let (accuracy, rows) = (percent(evaluation.accuracy), thousands(evaluation.examples));
    format!("classifies {accuracy} of {rows} evaluated rows correctly{}", interval.unwrap_or_default())
}

/// The same for several runs: the best of them, and whether the intervals tell it from the next.
pub fn comparison(runs: &[Run]) -> String {
    let mut evaluated: Vec<(&Run, &Evaluation)> =
        runs.iter().filter_map(|run| Some((run, run.evaluation()?))).collect();
    evaluated.sort_by(|a, b| b.1.accuracy.total_cmp(&a.1.accuracy));
    let Some((best, evaluation)) = evaluated.first() else {
        return format!("{} runs, none of which has been evaluated.", runs.len());
    };
    let apart = match evaluated.get(1) {
        None => "no other has been evaluated".to_owned(),
        Some((next, other)) => match (evaluation.accuracy_interval, other.accuracy_interval) {
            (Some((low, _)), Some((_, high))) if low > high => {
                format!("its interval is above that of {}, the next", next.name())
            }
            _ => format!("its interval overlaps that of {}, the next", next.name()),
        },
    };
    format!("Of {} runs {} is best: it {}; {apart}.", runs.len(), best.name(), how_good(evaluation))
}

/// The first letter of a name that begins a sentence, where it is a word and no name such as `bert-base`.
fn capitalized(text: &str) -> String {
    match text.strip_prefix("a ") {
        Some(rest) => format!("A {rest}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(percent(0.9213), "92.1\u{a0}%");
        assert_eq!(percent(0.99912), "99.91\u{a0}%");
        assert_eq!(percent(1.0), "100\u{a0}%");
        assert_eq!(percent(0.0), "0\u{a0}%");
        assert_eq!(percent_interval((0.918, 0.924)), "91.8 to 92.4\u{a0}%");
        assert_eq!(duration(3.21), "3.2 s");
        assert_eq!(duration(89.0), "89 s");
        assert_eq!(duration(2460.0), "41 min");
        assert_eq!(duration(9000.0), "2 h 30 min");
    }
}
